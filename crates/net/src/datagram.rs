//! Packets: the socket to which many clients send, and a socket of one peer.
//!
//! Packets are taken in batches, several per system call. Nothing is kept here: whoever polls
//! brings the room, and what he does not take in time the kernel drops, as is the way of UDP.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use system::datagram;
use system::driver::{Interest, Source};
use system::socket::{self, Address, SocketError};

pub use system::datagram::{AT_ONCE, Batch, LONGEST, Packet};

use crate::connect::ConnectOptions;
use crate::listener::Listener;

/// A bound socket to which any client may send.
pub struct DatagramListener {
    /// Before the descriptor: a source ends before its descriptor is closed.
    source: Source,
    fd: OwnedFd,
}

impl DatagramListener {
    /// Takes the socket of a listener, which must be one of packets.
    ///
    /// # Errors
    /// As [`Source::new`].
    pub fn new(listener: Listener) -> io::Result<DatagramListener> {
        let fd = listener.into_fd();
        let source = Source::new(fd.as_fd(), Interest::READ)?;
        source.assume_ready();
        Ok(DatagramListener { source, fd })
    }

    /// Takes the packets that wait, and says how many there are in the batch.
    ///
    /// # Errors
    /// As `recvmmsg(2)`; the next call goes on with the next packet.
    pub fn poll_receive(&self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_readable(cx));
            match batch.receive(self.fd.as_fd(), AT_ONCE) {
                Ok(count) => {
                    if count < AT_ONCE {
                        self.source.clear_readable();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends one packet at once, from a local address where one is given.
    ///
    /// # Errors
    /// As `sendmsg(2)`; a full socket is `WouldBlock`.
    pub fn send_to(
        &self,
        bytes: &[u8],
        peer: &Address,
        local: Option<IpAddr>,
    ) -> io::Result<usize> {
        datagram::send_to(self.fd.as_fd(), bytes, peer, local)
    }
}

impl AsFd for DatagramListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket whose packets go to one peer and come from it.
pub struct Datagrams {
    /// Before the descriptor: a source ends before its descriptor is closed.
    source: Source,
    fd: OwnedFd,
}

impl Datagrams {
    /// A socket for packets to and from `address`.
    ///
    /// # Errors
    /// The call that failed and the kernel's reason.
    pub fn connect(address: &Address, options: &ConnectOptions) -> Result<Datagrams, SocketError> {
        let fd = datagram::connect(address, options.local.as_ref(), options.transparent)?;
        if let Some(bytes) = options.receive_buffer {
            socket::set_receive_buffer(fd.as_fd(), bytes)?;
        }
        if let Some(bytes) = options.send_buffer {
            socket::set_send_buffer(fd.as_fd(), bytes)?;
        }
        let source = Source::new(fd.as_fd(), Interest::BOTH.closing())
            .map_err(|error| SocketError { call: "epoll_ctl", errno: (&error).into() })?;
        source.assume_ready();
        Ok(Datagrams { source, fd })
    }

    /// Takes the packets that wait, up to `most`; see [`DatagramListener::poll_receive`].
    ///
    /// # Errors
    /// As `recvmmsg(2)`: `ECONNREFUSED` tells that nobody is there.
    pub fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_readable(cx));
            match batch.receive(self.fd.as_fd(), most) {
                Ok(count) => {
                    if count < most.min(AT_ONCE) {
                        self.source.note_short_read(count);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends one packet when the socket has room.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_writable(cx));
            match socket::send(self.fd.as_fd(), bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear_writable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Sharing, Taking};
    use crate::testing::on_each;
    use std::future::poll_fn;
    use system::socket::{ListenOptions, Transport, listen, local_address};

    #[test]
    fn packets_go_both_ways() {
        on_each(|| async {
            let options = ListenOptions { transport: Transport::Datagram, ..Default::default() };
            let fd = listen(&Address::parse("127.0.0.1:0").unwrap(), &options).unwrap();
            let address = local_address(fd.as_fd()).unwrap();
            let listener = Listener::new(fd, Sharing::Alone, Taking::One).unwrap();
            let server = DatagramListener::new(listener).unwrap();
            let client = Datagrams::connect(&address, &ConnectOptions::default()).unwrap();
            let mut batch = Batch::default();
            for round in 0..3 {
                for packet in [&b"a"[..], b"bc"] {
                    poll_fn(|cx| client.poll_send(cx, packet)).await.unwrap();
                }
                let mut taken = Vec::new();
                while taken.len() < 2 {
                    poll_fn(|cx| server.poll_receive(cx, &mut batch)).await.unwrap();
                    let of_batch = batch.packets();
                    taken.extend(of_batch.map(|one| (one.bytes.to_vec(), one.peer.clone())));
                }
                assert_eq!((&*taken[0].0, &*taken[1].0), (&b"a"[..], &b"bc"[..]), "{round}");
                server.send_to(b"answer", &taken[0].1, None).unwrap();
                poll_fn(|cx| client.poll_receive(cx, &mut batch, AT_ONCE)).await.unwrap();
                assert_eq!(batch.packets().next().unwrap().bytes, b"answer");
            }
        });
    }

    #[test]
    fn a_peer_that_is_not_there_is_noticed() {
        on_each(|| async {
            let options = ListenOptions { transport: Transport::Datagram, ..Default::default() };
            let fd = listen(&Address::parse("127.0.0.1:0").unwrap(), &options).unwrap();
            let address = local_address(fd.as_fd()).unwrap();
            drop(fd);
            let client = Datagrams::connect(&address, &ConnectOptions::default()).unwrap();
            poll_fn(|cx| client.poll_send(cx, b"x")).await.unwrap();
            let mut batch = Batch::default();
            let error =
                poll_fn(|cx| client.poll_receive(cx, &mut batch, AT_ONCE)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
