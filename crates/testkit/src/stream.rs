//! A blocking connection over TCP or a unix socket, with time limits on both directions.

use crate::wait::patience;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where to connect: an address, a port of the loopback, or a unix socket's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An internet address.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl From<u16> for Peer {
    fn from(port: u16) -> Peer {
        Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        Peer::Tcp(address)
    }
}

impl From<PathBuf> for Peer {
    fn from(path: PathBuf) -> Peer {
        Peer::Unix(path)
    }
}

/// A connected byte stream. Reads and writes fail with `TimedOut` or `WouldBlock` after
/// [`patience`] unless [`Stream::set_timeout`] says otherwise.
pub enum Stream {
    /// Over TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `peer`.
    pub fn connect(peer: &Peer) -> io::Result<Stream> {
        let stream = match peer {
            Peer::Tcp(address) => Stream::Tcp(TcpStream::connect_timeout(address, patience())?),
            Peer::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        stream.prepare()?;
        Ok(stream)
    }

    /// Connects from a local address to another one.
    pub fn connect_from(local: IpAddr, peer: SocketAddr) -> io::Result<Stream> {
        let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddr::new(local, 0))?;
        rustix::net::connect(&socket, &peer)?;
        Stream::from_tcp(TcpStream::from(socket))
    }

    /// Takes over an accepted TCP connection.
    pub fn from_tcp(stream: TcpStream) -> io::Result<Stream> {
        let stream = Stream::Tcp(stream);
        stream.prepare()?;
        Ok(stream)
    }

    /// Takes over an accepted unix connection.
    pub fn from_unix(stream: UnixStream) -> io::Result<Stream> {
        let stream = Stream::Unix(stream);
        stream.prepare()?;
        Ok(stream)
    }

    fn prepare(&self) -> io::Result<()> {
        if let Stream::Tcp(stream) = self {
            stream.set_nodelay(true)?;
        }
        self.set_timeout(patience())
    }

    /// Limits each later read and each later write to `limit`.
    pub fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))
            }
        }
    }

    /// A second handle on the same connection.
    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        })
    }

    /// Ends one direction or both; the other side sees the end of the stream.
    pub fn shutdown(&self, direction: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(direction),
            Stream::Unix(stream) => stream.shutdown(direction),
        }
    }

    /// Closes so that the other side sees a reset (RST) where the transport knows one.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self {
            // A linger of zero turns the close into a reset; when the option fails the stream
            // is closed in the ordinary way, which the test will notice.
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }

    /// The local and the remote address, for TCP.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Stream::Tcp(stream) => Some((stream.local_addr().ok()?, stream.peer_addr().ok()?)),
            Stream::Unix(_) => None,
        }
    }

    /// Makes the kernel's receive buffer small, so that the other side soon has to wait.
    pub fn shrink_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                rustix::net::sockopt::set_socket_recv_buffer_size(stream, bytes)?;
            }
            Stream::Unix(stream) => {
                rustix::net::sockopt::set_socket_recv_buffer_size(stream, bytes)?;
            }
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            Stream::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
