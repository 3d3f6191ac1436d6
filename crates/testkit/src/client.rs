//! A raw HTTP/1 client: bytes out, responses in, no opinion on either.

use crate::message::{ReadError, Reader, Response};
use crate::sockets::{Socket, connection};
use crate::stream::{Peer, Stream};
use crate::wait::until;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

/// One connection to the server under test. Its methods fail the test when the connection does;
/// those named `try_` return the error instead.
pub struct Client {
    reader: Reader,
    peer: Peer,
}

/// Gets `path` from the server on a port of the loopback over a connection of its own.
#[track_caller]
pub fn get(port: u16, path: &str) -> Response {
    Client::connect(port).get(path)
}

impl Client {
    /// Connects to a port of the loopback, an address or a unix socket's path.
    #[track_caller]
    pub fn connect(to: impl Into<Peer>) -> Client {
        let peer = to.into();
        Client::try_connect(peer.clone())
            .unwrap_or_else(|error| panic!("cannot connect to {peer:?}: {error}"))
    }

    /// Connects, or says why not.
    pub fn try_connect(to: impl Into<Peer>) -> std::io::Result<Client> {
        let peer = to.into();
        Ok(Client { reader: Reader::new(Stream::connect(&peer)?), peer })
    }

    /// Connects from another address of the loopback to a port of it.
    #[track_caller]
    pub fn connect_from(local: impl Into<IpAddr>, port: u16) -> Client {
        let (local, to) = (local.into(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let stream = Stream::connect_from(local, to)
            .unwrap_or_else(|error| panic!("cannot connect from {local} to {to}: {error}"));
        Client { reader: Reader::new(stream), peer: to.into() }
    }

    /// Limits each later read and write of this client.
    pub fn set_timeout(&self, limit: Duration) {
        self.stream().set_timeout(limit).expect("an open socket takes a time limit");
    }

    /// The connection itself.
    pub fn stream(&self) -> &Stream {
        &self.reader.stream
    }

    /// This side's address, as the server sees it in `$remote_addr` and `$remote_port`.
    #[track_caller]
    pub fn local_address(&self) -> SocketAddr {
        self.stream().addresses().expect("a TCP connection has addresses").0
    }

    /// Sends `bytes` as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        if let Err(error) = self.try_send(bytes) {
            panic!("cannot send {} bytes to {:?}: {error}", bytes.len(), self.peer);
        }
    }

    /// Sends `bytes`, or says why not: servers may close before they have read all.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    /// Sends each piece once the server has read the one before, so that it sees them apart.
    #[track_caller]
    pub fn send_pieces<T: AsRef<[u8]>>(&mut self, pieces: impl IntoIterator<Item = T>) {
        for piece in pieces {
            self.send(piece);
            self.wait_until_read();
        }
    }

    /// Sends `bytes` one at a time, each after the server has read the one before.
    #[track_caller]
    pub fn send_slowly(&mut self, bytes: impl AsRef<[u8]>) {
        self.send_pieces(bytes.as_ref().chunks(1));
    }

    /// Waits until the server has taken from its socket all that was sent, or has closed it.
    #[track_caller]
    pub fn wait_until_read(&self) {
        let Some((ours, theirs)) = self.stream().addresses() else { return };
        let drained = until(|| unread_bytes(ours, theirs) == 0);
        assert!(drained, "the server does not read what was sent to {theirs}");
    }

    /// Ends the sending side; the server sees the end of the stream.
    #[track_caller]
    pub fn half_close(&self) {
        let result = self.stream().shutdown(Shutdown::Write);
        result.unwrap_or_else(|error| panic!("cannot end the sending side: {error}"));
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.reader.stream.reset();
    }

    /// Reads the next response, which answers any method but HEAD.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        self.try_read_response().unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// Reads the next response, or says why not.
    pub fn try_read_response(&mut self) -> Result<Response, ReadError> {
        self.reader.response(false)
    }

    /// Reads the next response, which answers HEAD and so has no body.
    #[track_caller]
    pub fn read_response_to_head(&mut self) -> Response {
        self.reader.response(true).unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// Reads the head of the next response and leaves its body on the stream.
    #[track_caller]
    pub fn read_head(&mut self) -> Response {
        self.reader.response_head().unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// Reads exactly `length` bytes.
    #[track_caller]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        self.reader.exactly(length).unwrap_or_else(|error| panic!("no {length} bytes: {error}"))
    }

    /// Reads what is there: at least one byte, or why there is none.
    pub fn try_read_some(&mut self) -> Result<Vec<u8>, ReadError> {
        self.reader.some()
    }

    /// Reads until the server closes, and returns what came before.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let peer = self.peer.clone();
        self.reader
            .rest()
            .unwrap_or_else(|error| panic!("{peer:?} does not close the connection: {error}"))
    }

    /// Reads until the server ends the connection; true when it ended with a reset.
    pub fn is_reset(&mut self) -> bool {
        let mut block = [0; 4096];
        loop {
            match self.reader.stream.read(&mut block) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// The server's side of this connection in the kernel's table; None once it is gone.
    pub fn other_side(&self) -> Option<Socket> {
        let (ours, theirs) = self.stream().addresses()?;
        connection(theirs, ours)
    }

    /// Fails the test unless the server closes without another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "expected the end, got \"{}\"", rest.escape_ascii());
    }

    /// Fails the test if the server closes or sends within `time`.
    #[track_caller]
    pub fn expect_quiet(&mut self, time: Duration) {
        self.set_timeout(time);
        let read = self.reader.some();
        self.set_timeout(crate::wait::patience());
        match read {
            Err(ReadError::TimedOut(_)) => {}
            Err(error) => panic!("expected silence: {error}"),
            Ok(bytes) => panic!("expected silence, got \"{}\"", bytes.escape_ascii()),
        }
    }

    /// Sends a request with the fields given (no Host or Content-Length is added) and reads the
    /// response to it.
    #[track_caller]
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes);
        if method == "HEAD" { self.read_response_to_head() } else { self.read_response() }
    }

    /// Gets `path` for the host `localhost` and keeps the connection.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[("Host", "localhost")], b"")
    }

    /// Posts `body` with its length to `path` for the host `localhost`.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Response {
        let body = body.as_ref();
        let length = body.len().to_string();
        self.request("POST", path, &[("Host", "localhost"), ("Content-Length", &length)], body)
    }
}

/// How many bytes from `ours` wait at the socket of `theirs` or on the way to it; 0 when that
/// socket is gone or cannot be seen from here.
fn unread_bytes(ours: SocketAddr, theirs: SocketAddr) -> u64 {
    let sending = connection(ours, theirs).map_or(0, |socket| socket.sending);
    sending + connection(theirs, ours).map_or(0, |socket| socket.receiving)
}
