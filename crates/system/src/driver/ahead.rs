//! What a driver does for a stream beyond readiness: it receives ahead and sends behind.
//!
//! With io_uring a wait to read is a receive already, and a small write is handed over and counts
//! as written; with epoll it waits for the end of the batch (`behind.rs`). With the other drivers
//! all this is the absence of flags: nothing was received ahead, everything written is sent.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use super::behind::{self, BEHIND};
use super::early;
use super::io::{
    BULKY, ENDED, FRESH, HUNG, POLLING_HANG, POLLING_READ, POLLING_WRITE, READABLE, RECEIVING,
    SEND_FAILED, SENDING, SHUT, STASHED, STREAM, Source, WRITABLE, Want,
};
use super::state::{Backend, State, with};

impl Source {
    /// As [`poll_readable`](Source::poll_readable), without receiving ahead: for a caller that is
    /// going to move bytes by another call. What was received ahead already comes first.
    #[inline]
    pub fn poll_readable_in_place(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flag(cx, READABLE, Want::Look)
    }

    /// Reads what was received ahead. `None`: nothing was, so the caller may receive by itself.
    ///
    /// # Errors
    /// What the receive met.
    #[inline(always)]
    pub fn received(&self, into: &mut [u8]) -> Option<io::Result<usize>> {
        with(|s| {
            if s.ios.at(self.index())?.flags & STASHED == 0 {
                return None;
            }
            take(s, self.index(), into)
        })
    }

    /// Whether something was received ahead.
    #[inline]
    pub fn has_received(&self) -> bool {
        with(|s| s.ios.at(self.index()).is_some_and(|slot| slot.flags & STASHED != 0))
    }

    /// Whether the socket may have more than what was received ahead and read by now.
    #[inline]
    pub fn has_more(&self) -> bool {
        with(|s| {
            s.ios.at(self.index()).is_some_and(|slot| slot.flags & (STASHED | READABLE) == READABLE)
        })
    }

    /// The caller's own receive met the end of the stream.
    #[inline]
    pub fn note_end(&self) {
        with(|s| {
            if let Some(slot) = s.ios.at(self.index()) {
                slot.flags |= HUNG;
            }
        });
    }

    /// Whether [`send_behind`](Source::send_behind) may take anything.
    #[inline(always)]
    pub fn sends_behind(&self) -> bool {
        with(|s| matches!(s.backend, Backend::Uring(_) | Backend::Epoll(_)))
    }

    /// Keeps an error of the caller's own receive for the next read.
    #[cold]
    pub fn put_back(&self, error: &io::Error) {
        let Some(errno) = error.raw_os_error() else { return };
        with(|s| match &mut s.backend {
            Backend::Uring(uring) => {
                if let Some(slot) = s.ios.at(self.index()) {
                    slot.flags |= STASHED | READABLE;
                    uring.lane(self.index()).receive_errno = errno as u16;
                }
            }
            _ => early::put_back(s, self.index(), errno),
        });
    }

    /// Takes a copy of `parts` to be sent soon, if they are few: then they count as written. The
    /// caller has found the source writable, and finds it so again when they are sent. `None`:
    /// the caller sends by itself.
    ///
    /// # Errors
    /// Of the send before this one.
    #[inline]
    pub fn send_behind(&self, parts: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        with(|s| {
            let Backend::Uring(uring) = &mut s.backend else {
                return behind::send(s, self.index(), parts);
            };
            let slot = s.ios.at(self.index())?;
            if slot.flags & SEND_FAILED != 0 {
                slot.flags &= !SEND_FAILED;
                return Some(Err(failure(uring.lane(self.index()).send_errno)));
            }
            let length: usize = parts.iter().map(|part| part.len()).sum();
            // After a hang-up the own call tells at once what became of the connection.
            if slot.flags & (STREAM | WRITABLE | HUNG) != STREAM | WRITABLE
                || length == 0
                || length > BEHIND
            {
                return None;
            }
            slot.flags = slot.flags & !WRITABLE | SENDING;
            let (fd, generation) = (slot.fd, slot.generation);
            uring.send(fd, parts, self.index(), generation);
            Some(Ok(length))
        })
    }

    /// The failure of a send that nobody was told yet.
    #[inline]
    pub fn take_send_failure(&self) -> Option<io::Error> {
        with(|s| {
            let slot = s.ios.at(self.index()).filter(|slot| slot.flags & SEND_FAILED != 0)?;
            slot.flags &= !SEND_FAILED;
            Some(match &mut s.backend {
                Backend::Uring(uring) => failure(uring.lane(self.index()).send_errno),
                _ => io::Error::from_raw_os_error(s.behind.take_errno(self.index())),
            })
        })
    }

    /// Adds `parts` to what [`send_behind`](Source::send_behind) took and the kernel has not seen
    /// yet, if they are few: then they count as written, too, without waiting.
    #[inline]
    pub fn send_along(&self, parts: &[IoSlice<'_>]) -> Option<usize> {
        with(|s| {
            let Backend::Uring(uring) = &mut s.backend else {
                return behind::send_along(s, self.index(), parts);
            };
            let slot = s.ios.at(self.index())?;
            if slot.flags & (SENDING | SHUT) != SENDING {
                return None;
            }
            let length: usize = parts.iter().map(|part| part.len()).sum();
            if uring.queued(self.index())? + length > BEHIND {
                return None;
            }
            uring.send_too(parts, self.index());
            Some(length)
        })
    }

    /// Ready when the kernel has all that was written.
    #[inline]
    pub fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        let sending =
            with(|s| s.ios.at(self.index()).is_some_and(|slot| slot.flags & SENDING != 0));
        if sending { self.poll_writable(cx) } else { Poll::Ready(()) }
    }

    /// Has the writing side shut down after what is being sent; false when nothing is, and the
    /// caller does it.
    pub fn shut_behind(&self) -> bool {
        with(|s| {
            let Some(slot) = s.ios.at(self.index()) else { return false };
            let sending = slot.flags & SENDING != 0;
            if sending {
                slot.flags |= SHUT;
            }
            sending
        })
    }

    /// Drops what is being sent, as far as the kernel has not taken it.
    pub fn drop_unsent(&self) {
        with(|s| {
            let Some(slot) = s.ios.at(self.index()).filter(|slot| slot.flags & SENDING != 0) else {
                return;
            };
            let is_dropped = match &mut s.backend {
                Backend::Uring(uring) => uring.cancel_send(self.index()),
                _ => s.behind.forget(self.index()),
            };
            if is_dropped {
                slot.flags = slot.flags & !(SENDING | SHUT) | WRITABLE;
            }
        });
    }

    /// Closes the descriptor of the source, which is to be dropped then. What is being sent is
    /// sent first.
    #[inline]
    pub fn close(&self, fd: OwnedFd) {
        let rest = with(|s| {
            let Backend::Uring(uring) = &mut s.backend else {
                return behind::close(s, self.index(), fd);
            };
            let Some(slot) = s.ios.at(self.index()) else { return Some(fd) };
            let (flags, generation) = (slot.flags, slot.generation);
            uring.cancel_waits(flags, self.index(), generation);
            slot.flags &= !WAITS;
            if flags & SENDING != 0 {
                uring.orphan(self.index(), s.now_ms);
            }
            uring.close(fd);
            None
        });
        drop(rest);
    }
}

/// Whether sources were closed whose last bytes are still to be sent. A process that ends now
/// would lose them. They have at most half a minute.
pub fn has_unsent() -> bool {
    with(|s| match &mut s.backend {
        Backend::Uring(uring) => uring.has_orphans(),
        _ => s.behind.has_orphans(),
    })
}

/// Operations that wait for something.
pub(super) const WAITS: u32 = RECEIVING | POLLING_READ | POLLING_WRITE | POLLING_HANG;

fn failure(errno: u16) -> io::Error {
    io::Error::from_raw_os_error(i32::from(errno))
}

#[inline]
fn take(s: &mut State, index: u32, into: &mut [u8]) -> Option<io::Result<usize>> {
    let Backend::Uring(uring) = &mut s.backend else { return early::take(s, index, into) };
    let slot = s.ios.at(index)?;
    let (n, left) = uring.take(index, into);
    if left {
        return Some(Ok(n));
    }
    let lane = uring.lane(index);
    if n == 0 && lane.receive_errno == 0 && slot.flags & ENDED != 0 {
        return Some(Ok(0));
    }
    let errno = if n == 0 { std::mem::take(&mut lane.receive_errno) } else { 0 };
    if lane.receive_errno == 0 && slot.flags & ENDED == 0 {
        slot.flags &= !STASHED;
        // After more than fitted, and after a hang-up, a call of the caller's own finds the rest.
        if !lane.more && slot.flags & HUNG == 0 {
            slot.flags &= !READABLE;
        }
        lane.more = false;
    }
    match (n, errno) {
        (0, 0) => None,
        (0, errno) => Some(Err(failure(errno))),
        _ => Some(Ok(n)),
    }
}

/// Starts what tells a task when it is worth another try. Drivers that only look at those who
/// wait, or at all sources anyway, need no start.
#[inline]
pub(super) fn start(s: &mut State, index: u32, want: Want) {
    let Some(slot) = s.ios.at(index) else { return };
    let Backend::Uring(uring) = &mut s.backend else {
        // No call now; but one at the event, if the task still waits to read then.
        let may = matches!(s.backend, Backend::Epoll(_)) && slot.flags & (STREAM | BULKY) == STREAM;
        if want == Want::Read && may {
            slot.flags |= RECEIVING;
        } else if want != Want::Write {
            slot.flags &= !RECEIVING;
        }
        return;
    };
    let (fd, generation, flags) = (slot.fd, slot.generation, slot.flags);
    if slot.is_paused() {
        return;
    }
    let want = match want {
        // Data that nobody has read yet says nothing about the end.
        Want::Hang if flags & (STASHED | READABLE) == 0 && flags & STREAM != 0 => Want::Read,
        want => want,
    };
    match want {
        Want::Read | Want::Look if flags & (RECEIVING | POLLING_READ) != 0 => {}
        Want::Read if flags & STREAM != 0 => {
            slot.flags = slot.flags & !FRESH | RECEIVING;
            uring.receive(fd, index, generation, flags & FRESH == 0);
        }
        Want::Read | Want::Look => {
            slot.flags |= POLLING_READ;
            uring.poll_read(fd, index, generation, slot.is_shared());
        }
        Want::Write if flags & (SENDING | POLLING_WRITE) == 0 => {
            slot.flags |= POLLING_WRITE;
            uring.poll_write(fd, index, generation);
        }
        Want::Hang if flags & POLLING_HANG == 0 => {
            slot.flags |= POLLING_HANG;
            uring.poll_hang(fd, index, generation);
        }
        Want::Write | Want::Hang => {}
    }
}

/// Ends what was started for a source that pauses or goes away.
pub(super) fn end(s: &mut State, index: u32) {
    let Some(slot) = s.ios.at(index) else { return };
    let Backend::Uring(uring) = &mut s.backend else {
        slot.flags &= !RECEIVING;
        return;
    };
    uring.cancel_waits(slot.flags, index, slot.generation);
    slot.flags &= !WAITS;
}

#[cfg(test)]
mod tests {
    use super::super::{Interest, Kind, Settings, block_on, spawn, start, stop, yield_now};
    use super::*;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;
    use std::task::ready;

    /// A socket as crate `net` uses one.
    struct Socket {
        source: Source,
        fd: Option<OwnedFd>,
    }

    impl Socket {
        fn new(socket: UnixStream) -> Socket {
            socket.set_nonblocking(true).unwrap();
            let source = Source::new(socket.as_fd(), Interest::BOTH.closing().stream()).unwrap();
            source.assume_ready();
            Socket { source, fd: Some(socket.into()) }
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
}
