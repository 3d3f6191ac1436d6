//! Sockets that are received ahead of and sent behind, under epoll and io_uring.

use super::*;
use crate::driver::{Interest, Kind, Settings, block_on, spawn, start, stop, yield_now};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::task::ready;

/// A socket as crate `net` uses one.
struct Socket {
    source: Source,
    fd: Option<OwnedFd>,
}

impl Socket {
    fn new(socket: impl Into<OwnedFd>) -> Socket {
        let socket: OwnedFd = socket.into();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        let source = Source::new(socket.as_fd(), Interest::BOTH.closing().stream()).unwrap();
        source.assume_ready();
        Socket { source, fd: Some(socket) }
    }

    fn pair() -> (Socket, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Socket::new(a), b)
    }

    fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_readable(cx));
            if let Some(outcome) = self.source.received(into) {
                return Poll::Ready(outcome);
            }
            match rustix::net::recv(
                self.fd.as_ref().unwrap(),
                &mut *into,
                rustix::net::RecvFlags::empty(),
            ) {
                Ok((n, _)) => return Poll::Ready(Ok(n)),
                Err(rustix::io::Errno::AGAIN) => self.source.clear_readable(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn tcp_pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Socket::new(listener.accept().unwrap().0), client)
    }

    async fn read(&self, into: &mut [u8]) -> usize {
        poll_fn(|cx| self.poll_read(cx, into)).await.unwrap()
    }

    /// Hands `bytes` over; they must be taken.
    async fn send(&self, bytes: &[u8]) {
        poll_fn(|cx| self.source.poll_writable(cx)).await;
        let taken = self.source.send_behind(&[IoSlice::new(bytes)]);
        assert_eq!(taken.unwrap().unwrap(), bytes.len());
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.source.close(self.fd.take().unwrap());
    }
}

/// On the drivers that send behind.
fn on_each<F: Future<Output = ()> + 'static>(main: impl Fn() -> F) {
    for kind in [Kind::Epoll, Kind::IoUring] {
        start(Settings { kind, events: 16 }).unwrap();
        block_on(main());
        stop().unwrap();
    }
}

fn on_uring<F: Future<Output = ()> + 'static>(main: F) {
    start(Settings { kind: Kind::IoUring, events: 1 }).unwrap();
    block_on(main);
    stop().unwrap();
}

async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

#[test]
fn what_was_handed_over_arrives_although_the_socket_is_closed() {
    on_each(|| async {
        let (socket, mut peer) = Socket::pair();
        socket.send(b"last words").await;
        drop(socket);
        turns(1).await;
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"last words");
    });
    // The same when the loop ends at once.
    let (a, mut peer) = UnixStream::pair().unwrap();
    on_uring(async {
        let socket = Socket::new(a);
        socket.send(b"last words").await;
    });
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last words");
}

#[test]
fn last_words_arrive_although_something_is_unread() {
    on_each(|| async {
        for _ in 0..20 {
            let (socket, mut peer) = Socket::tcp_pair();
            peer.write_all(b"and another thing").unwrap();
            socket.send(b"goodbye").await;
            drop(socket);
            turns(3).await;
            let mut answer = [0; 7];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"goodbye");
        }
    });
}

#[test]
fn small_pieces_go_out_together_and_in_order() {
    on_each(|| async {
        let (socket, mut peer) = Socket::pair();
        let piece = |text: &'static str| [IoSlice::new(text.as_bytes())];
        assert!(socket.source.send_along(&piece("nothing to join")).is_none());
        socket.send(b"one ").await;
        assert_eq!(socket.source.send_along(&piece("two ")), Some(4));
        assert_eq!(socket.source.send_along(&piece("three")), Some(5));
        assert!(socket.source.send_along(&[IoSlice::new(&[0; BEHIND])]).is_none());
        turns(2).await;
        assert!(socket.source.send_along(&piece("it has left")).is_none());
        let mut all = [0; 64];
        assert_eq!(peer.read(&mut all).unwrap(), 13);
        assert_eq!(&all[..13], b"one two three");
        // What was not handed over yet can be taken back.
        socket.send(b"never mind").await;
        socket.source.drop_unsent();
        socket.send(b"this").await;
        turns(2).await;
        assert_eq!(peer.read(&mut all).unwrap(), 4);
    });
}

#[test]
fn the_writing_side_ends_after_what_was_handed_over() {
    on_each(|| async {
        let (socket, mut peer) = Socket::pair();
        assert!(!socket.source.shut_behind(), "nothing is being sent");
        socket.send(b"question").await;
        assert!(socket.source.shut_behind());
        turns(2).await;
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"question");
        peer.write_all(b"answer").unwrap();
        let mut answer = [0; 16];
        assert_eq!(socket.read(&mut answer).await, 6);
    });
}

/// Sends until a send waits for the peer; returns how much was handed over.
async fn fill(socket: &Socket) -> usize {
    let mut sent = 0;
    while sent < 64 << 20 {
        socket.send(&[7; BEHIND]).await;
        sent += BEHIND;
        turns(2).await;
        let full = poll_fn(|cx| Poll::Ready(socket.source.poll_sent(cx).is_pending())).await;
        if full {
            return sent;
        }
    }
    panic!("a socket without limits");
}

#[test]
fn a_slow_peer_holds_the_writer_back_and_is_waited_for_after_closing() {
    on_each(|| async {
        let (socket, mut peer) = Socket::pair();
        let sent = fill(&socket).await;
        poll_fn(|cx| {
            assert!(socket.source.poll_writable(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(!has_unsent());
        drop(socket);
        assert!(has_unsent());
        let mut got = 0;
        peer.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => turns(1).await,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(got, sent);
        assert!(!has_unsent());
    });
}

#[test]
fn unsent_bytes_are_dropped_when_asked_to() {
    on_each(|| async {
        let (socket, peer) = Socket::pair();
        fill(&socket).await;
        socket.source.drop_unsent();
        turns(2).await;
        drop(socket);
        assert!(!has_unsent());
        drop(peer);
    });
}

#[test]
fn a_failed_send_is_told_by_the_next_call() {
    on_each(|| async {
        let (socket, peer) = Socket::pair();
        poll_fn(|cx| socket.source.poll_writable(cx)).await;
        drop(peer);
        socket.send(b"anyone?").await;
        poll_fn(|cx| socket.source.poll_sent(cx)).await;
        let error = socket.source.send_behind(&[IoSlice::new(b"x")]).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(socket.source.take_send_failure().is_none());
        // Once told, the caller's own call finds out.
        assert!(socket.source.send_behind(&[IoSlice::new(b"x")]).is_none());
    });
}

#[test]
fn more_sockets_than_buffers_get_their_bytes() {
    on_each(|| async {
        let mut sockets = Vec::new();
        for n in 0..600_u32 {
            let (socket, mut peer) = Socket::pair();
            poll_fn(|cx| Poll::Ready(socket.source.poll_readable(cx).is_pending())).await;
            peer.write_all(&n.to_le_bytes()).unwrap();
            sockets.push((socket, peer));
        }
        // All have something now, and nobody has read.
        turns(4).await;
        for (n, (socket, _peer)) in (0..).zip(&sockets) {
            let mut bytes = [0; 8];
            assert_eq!(socket.read(&mut bytes).await, 4);
            assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()), n);
        }
    });
}

#[test]
fn sockets_that_go_away_in_the_middle_leave_nothing_behind() {
    on_each(|| async {
        for round in 0..2_000 {
            let (socket, mut peer) = Socket::pair();
            poll_fn(|cx| {
                assert!(socket.source.poll_hung_up(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            if round % 3 == 0 {
                turns(1).await;
            }
            peer.write_all(b"too late").unwrap();
            if round % 2 == 0 {
                turns(1).await;
            }
            drop(socket);
            // The place of the old one, and perhaps its descriptor's number.
            let (next, mut peer) = Socket::pair();
            peer.write_all(b"mine").unwrap();
            let mut bytes = [0; 16];
            assert_eq!(next.read(&mut bytes).await, 4);
            assert_eq!(&bytes[..4], b"mine");
        }
    });
}

#[test]
fn a_socket_is_closed_by_dropping_it_while_it_waits() {
    on_each(|| async {
        let (socket, mut peer) = Socket::pair();
        let number = socket.fd.as_ref().unwrap().as_raw_fd();
        spawn(async move {
            socket.read(&mut [0; 8]).await;
            drop(socket);
        });
        turns(2).await;
        peer.write_all(b"x").unwrap();
        turns(3).await;
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        let again = UnixStream::pair().unwrap();
        assert!([again.0.as_raw_fd(), again.1.as_raw_fd()].contains(&number));
    });
}

#[test]
fn data_beside_the_end_is_read_first() {
    on_each(|| async {
        let (socket, mut peer) = Socket::pair();
        poll_fn(|cx| Poll::Ready(socket.source.poll_readable(cx).is_pending())).await;
        let sent: Vec<u8> = (0..20_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
        peer.write_all(&sent).unwrap();
        drop(peer);
        poll_fn(|cx| socket.source.poll_hung_up(cx)).await;
        let mut got = Vec::new();
        let mut part = [0; 999];
        loop {
            match socket.read(&mut part).await {
                0 => break,
                n => got.extend_from_slice(&part[..n]),
            }
        }
        assert!(got == sent);
        assert_eq!(socket.read(&mut part).await, 0);
    });
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

/// Reads where the bytes are, as one who splices does: ahead first, then by an own call.
async fn read_in_place(socket: &Socket, into: &mut [u8]) -> usize {
    poll_fn(|cx| {
        loop {
            ready!(socket.source.poll_readable_in_place(cx));
            if let Some(outcome) = socket.source.received(into) {
                return Poll::Ready(outcome.unwrap());
            }
            let fd = socket.fd.as_ref().unwrap();
            match rustix::net::recv(fd, &mut *into, rustix::net::RecvFlags::empty()) {
                Ok((n, _)) => return Poll::Ready(n),
                Err(rustix::io::Errno::AGAIN) => socket.source.clear_readable(),
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[test]
fn bytes_stay_in_order_however_they_come_and_are_read() {
    on_uring(async {
        let mut dice = Dice(7);
        for round in 0..40 {
            let (socket, mut peer) = Socket::pair();
            let sent: Vec<u8> = (0..200_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
            peer.set_nonblocking(true).unwrap();
            let (mut written, mut got) = (0, Vec::new());
            let mut buffer = vec![0; 30_000];
            while got.len() < sent.len() {
                // Mostly little pieces, as requests are; sometimes large ones.
                for _ in 0..dice.below(6) {
                    let most = if dice.below(4) == 0 { 20_000 } else { 300 };
                    let end = sent.len().min(written + 1 + dice.below(most));
                    written += peer.write(&sent[written..end]).unwrap_or(0);
                }
                if written == got.len() {
                    continue;
                }
                turns(dice.below(3)).await;
                let most = if dice.below(2) == 0 { 400 } else { 30_000 };
                let part = 1 + dice.below(most);
                let n = match (round + dice.below(8)) % 8 {
                    0 => read_in_place(&socket, &mut buffer[..part]).await,
                    _ => socket.read(&mut buffer[..part]).await,
                };
                got.extend_from_slice(&buffer[..n]);
                assert!(sent.starts_with(&got), "round {round}, at {}", got.len());
            }
            drop(peer);
            assert_eq!(socket.read(&mut buffer).await, 0);
        }
    });
}

#[test]
fn who_does_not_read_is_not_received_for_without_end() {
    on_uring(async {
        let (socket, mut peer) = Socket::pair();
        peer.write_all(b"x").unwrap();
        assert_eq!(socket.read(&mut [0; 8]).await, 1);
        // Waits once more, so that a receive is under way, and never again.
        poll_fn(|cx| Poll::Ready(socket.source.poll_readable(cx).is_pending())).await;
        peer.set_nonblocking(true).unwrap();
        let (mut written, mut quiet) = (0, 0);
        while quiet < 100 && written < 64 << 20 {
            match peer.write(&[1; 1_000]) {
                Ok(n) => (written, quiet) = (written + n, 0),
                Err(_) => quiet += 1,
            }
            turns(1).await;
        }
        assert!(written < 1 << 20, "{written} bytes were taken");
        // Others are not starved.
        let (other, mut peer) = Socket::pair();
        poll_fn(|cx| Poll::Ready(other.source.poll_readable(cx).is_pending())).await;
        peer.write_all(b"yes").unwrap();
        turns(2).await;
        assert!(other.source.has_received());
        let (mut got, mut buffer) = (0, vec![0; 50_000]);
        while got < written {
            got += socket.read(&mut buffer).await;
        }
        assert_eq!(got, written);
    });
}

#[test]
fn little_pieces_share_a_buffer() {
    on_uring(async {
        let mut sockets = Vec::new();
        for _ in 0..200 {
            let (socket, peer) = Socket::pair();
            poll_fn(|cx| Poll::Ready(socket.source.poll_readable(cx).is_pending())).await;
            sockets.push((socket, peer));
        }
        for piece in 0..6_u8 {
            for (_, peer) in &mut sockets {
                peer.write_all(&[piece]).unwrap();
            }
            turns(2).await;
        }
        for (socket, _) in &sockets {
            assert!(socket.source.has_received());
            let mut got = Vec::new();
            let mut buffer = [0; 4];
            while got.len() < 6 {
                let n = socket.read(&mut buffer).await;
                got.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(got, [0, 1, 2, 3, 4, 5]);
        }
    });
}

#[test]
fn more_completions_at_once_than_the_ring_holds_are_all_told() {
    use std::cell::Cell;
    use std::rc::Rc;
    on_uring(async {
        // As many tasks wait for the same socket, each with a source of its own.
        const TASKS: usize = 6_000;
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Rc::new(near);
        let told = Rc::new(Cell::new(0));
        for _ in 0..TASKS {
            let (near, told) = (near.clone(), told.clone());
            spawn(async move {
                let source = Source::new(near.as_fd(), Interest::READ).unwrap();
                poll_fn(|cx| source.poll_readable(cx)).await;
                told.set(told.get() + 1);
            });
        }
        turns(3).await;
        assert_eq!(told.get(), 0);
        far.write_all(b"to all").unwrap();
        while told.get() < TASKS {
            turns(1).await;
        }
    });
}
