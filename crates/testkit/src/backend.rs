//! Scripted servers behind the server under test.
//!
//! A backend is a listener and a thread for each connection, all of which end with it. It answers
//! each request from a closure, or lets a closure play whole connections; it counts connections
//! and keeps every request it read. It can go down (its port then refuses connections) and come
//! back on the same port.

use crate::answer::{Answer, Next};
use crate::message::{ReadError, Reader, Request};
use crate::ports::Port;
use crate::stream::{Peer, Stream};
use crate::wait::{Gate, until};
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

type Player = Arc<dyn Fn(&mut Conversation) + Send + Sync>;

/// A scripted server; it is gone when dropped.
pub struct Backend {
    place: Place,
    player: Player,
    record: Arc<Mutex<Record>>,
    running: Option<Running>,
}

/// What [`Backend::unreachable`] makes; the port refuses connections once it is dropped.
pub struct Unreachable {
    port: Port,
    _listener: OwnedFd,
    _waiting: Vec<TcpStream>,
}

impl Unreachable {
    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

enum Place {
    Tcp(Port),
    Unix(PathBuf),
}

struct Running {
    /// A second handle on the listening socket, to shut it down.
    listener: OwnedFd,
    acceptor: JoinHandle<()>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What a backend remembers.
#[derive(Default)]
struct Record {
    connections: usize,
    requests: Vec<Request>,
    /// Connections that are open now, by number.
    open: Vec<(usize, Stream)>,
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend {
    /// Reads each request with its body and answers it with what `answer` returns.
    pub fn with(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Backend {
        Backend::script(converse(answer, BodyFirst::Yes))
    }

    /// Answers each request when its head has come; a body is left on the stream, and the
    /// connection is of no further use after a request that has one.
    pub fn with_heads(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Backend {
        Backend::script(converse(answer, BodyFirst::No))
    }

    /// Answers each request with `200` and `name` as the body.
    pub fn named(name: &'static str) -> Backend {
        Backend::with(move |_| Answer::text(name).header("X-Backend", name))
    }

    /// Plays each connection with `player` and closes it when that returns.
    pub fn script(player: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Backend {
        Backend::at(Place::Tcp(Port::reserve()), Arc::new(player))
    }

    /// As [`Backend::with`], on a unix socket.
    pub fn unix(
        path: impl Into<PathBuf>,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Backend {
        Backend::at(Place::Unix(path.into()), Arc::new(converse(answer, BodyFirst::Yes)))
    }

    /// A backend that is down from the start: its port refuses connections.
    pub fn refusing() -> Backend {
        let mut backend = Backend::named("refusing");
        backend.down();
        backend
    }

    /// A port at which connections are never established: its listener's queue is full, and what
    /// comes is dropped in silence, as behind a firewall.
    pub fn unreachable() -> Unreachable {
        let port = Port::reserve();
        let listener = crate::ports::listen_without_queue(port.number());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let mut waiting = Vec::new();
        // Each connection takes a place in the queue until one finds none.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            waiting.push(stream);
        }
        Unreachable { port, _listener: listener, _waiting: waiting }
    }

    fn at(place: Place, player: Player) -> Backend {
        let mut backend =
            Backend { place, player, record: Arc::new(Mutex::default()), running: None };
        backend.up();
        backend
    }

    /// The TCP port; fails the test for a backend on a unix socket.
    #[track_caller]
    pub fn port(&self) -> u16 {
        match &self.place {
            Place::Tcp(port) => port.number(),
            Place::Unix(path) => panic!("the backend at {} has no port", path.display()),
        }
    }

    /// Listens again after [`Backend::down`], on the same port or path.
    pub fn up(&mut self) {
        assert!(self.running.is_none(), "the backend is up already");
        let listener = match &self.place {
            Place::Tcp(port) => TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))
                .map(Listener::Tcp)
                .unwrap_or_else(|error| panic!("a backend cannot listen on {port}: {error}")),
            Place::Unix(path) => {
                // A socket file left by an earlier `down` would be in the way.
                let _ = std::fs::remove_file(path);
                UnixListener::bind(path).map(Listener::Unix).unwrap_or_else(|error| {
                    panic!("a backend cannot listen on {}: {error}", path.display())
                })
            }
        };
        let handle = listener.handle();
        let (player, record) = (Arc::clone(&self.player), Arc::clone(&self.record));
        let acceptor = std::thread::spawn(move || accept(&listener, &player, &record));
        self.running = Some(Running { listener: handle, acceptor });
    }

    /// Stops listening and resets every open connection: the backend has died.
    pub fn down(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Shutting a listener down wakes the thread that waits in accept.
        let _ = rustix::net::shutdown(running.listener.as_fd(), rustix::net::Shutdown::Both);
        running.acceptor.join().unwrap_or_else(|_| panic!("a backend's listener panicked"));
        self.close_connections();
    }

    /// Closes every open connection and goes on listening.
    pub fn close_connections(&self) {
        let open: Vec<_> = lock(&self.record).open.drain(..).collect();
        for (_, stream) in open {
            // It may be closed already; then nothing is left to do.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        lock(&self.record).connections
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        lock(&self.record).open.len()
    }

    /// Every request read so far, in the order in which they were complete.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.record).requests.clone()
    }

    /// How many requests were read so far.
    pub fn request_count(&self) -> usize {
        lock(&self.record).requests.len()
    }

    /// The newest request; fails the test when there was none.
    #[track_caller]
    pub fn last_request(&self) -> Request {
        let newest = lock(&self.record).requests.last().cloned();
        newest.expect("the backend has received a request")
    }

    /// Waits until `count` requests were read in all.
    #[track_caller]
    pub fn wait_requests(&self, count: usize) {
        let came = until(|| self.request_count() >= count);
        assert!(came, "the backend received {} of {count} requests in time", self.request_count());
    }

    /// Waits until exactly `count` connections are open.
    #[track_caller]
    pub fn wait_open_connections(&self, count: usize) {
        let reached = until(|| self.open_connections() == count);
        assert!(reached, "{} connections stay open, not {count}", self.open_connections());
    }

    /// Where the backend listens.
    pub fn peer(&self) -> Peer {
        match &self.place {
            Place::Tcp(port) => port.number().into(),
            Place::Unix(path) => path.clone().into(),
        }
    }

    /// The path of a backend on a unix socket.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Tcp(_) => None,
            Place::Unix(path) => Some(path),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = rustix::net::shutdown(running.listener.as_fd(), rustix::net::Shutdown::Both);
            let _ = running.acceptor.join();
        }
        self.close_connections();
    }
}

impl Listener {
    fn handle(&self) -> OwnedFd {
        let handle = match self {
            Listener::Tcp(listener) => listener.try_clone().map(OwnedFd::from),
            Listener::Unix(listener) => listener.try_clone().map(OwnedFd::from),
        };
        handle.expect("a descriptor for the listener's second handle")
    }

    fn accept(&self) -> std::io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept()?;
                Ok((Stream::from_tcp(stream)?, Some(from)))
            }
            Listener::Unix(listener) => Ok((Stream::from_unix(listener.accept()?.0)?, None)),
        }
    }
}

/// Accepts until the listener is shut down; each connection gets a thread.
fn accept(listener: &Listener, player: &Player, record: &Arc<Mutex<Record>>) {
    // An error means that the listener was shut down, or that this process is out of
    // descriptors, which the test notices as a backend that refuses.
    while let Ok((stream, from)) = listener.accept() {
        let Ok(second) = stream.try_clone() else { return };
        let number = {
            let mut record = lock(record);
            record.connections += 1;
            let number = record.connections;
            record.open.push((number, second));
            number
        };
        let (player, record) = (Arc::clone(player), Arc::clone(record));
        std::thread::spawn(move || {
            let reader = Some(Reader::new(stream));
            let mut conversation = Conversation { number, requests: 0, from, reader, record };
            player(&mut conversation);
            conversation.close();
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyFirst {
    Yes,
    No,
}

/// The player that reads requests and plays the answers to them.
fn converse(
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    body: BodyFirst,
) -> impl Fn(&mut Conversation) + Send + Sync + 'static {
    move |conversation| loop {
        let request = match body {
            BodyFirst::Yes => conversation.read_request(),
            BodyFirst::No => conversation.read_head().inspect(|r| conversation.record(r)),
        };
        let Ok(request) = request else { return };
        match answer(&request).play(&request, conversation) {
            Ok(Next::Request) => {}
            Ok(Next::Reset) => return conversation.reset(),
            Ok(Next::Close) | Err(_) => return,
        }
    }
}

/// One connection to a backend, for scripts that play it themselves.
pub struct Conversation {
    /// Which connection of its backend this is, from 1.
    pub number: usize,
    /// How many requests were read on it.
    pub requests: usize,
    /// The address that connected, over TCP.
    pub from: Option<SocketAddr>,
    /// None once the connection is closed.
    reader: Option<Reader>,
    record: Arc<Mutex<Record>>,
}

impl Conversation {
    fn reader(&mut self) -> Result<&mut Reader, ReadError> {
        self.reader.as_mut().ok_or(ReadError::Closed)
    }

    /// Reads a request with its body, and records it.
    pub fn read_request(&mut self) -> Result<Request, ReadError> {
        let mut request = self.read_head()?;
        self.read_body(&mut request)?;
        self.record(&request);
        Ok(request)
    }

    /// Reads a request's head; its body stays on the stream, and nothing is recorded.
    pub fn read_head(&mut self) -> Result<Request, ReadError> {
        let mut request = self.idle_until_request()?;
        self.requests += 1;
        request.connection = self.number;
        request.number = self.requests;
        Ok(request)
    }

    /// Waits for a request as long as the client keeps the connection open.
    fn idle_until_request(&mut self) -> Result<Request, ReadError> {
        loop {
            match self.reader()?.request_head() {
                // An idle connection in the pool of the server under test is no failure.
                Err(ReadError::TimedOut(bytes)) if bytes.is_empty() => {}
                result => return result,
            }
        }
    }

    /// Reads the body of the request whose head was read last.
    pub fn read_body(&mut self, request: &mut Request) -> Result<(), ReadError> {
        self.reader()?.request_body(request)
    }

    /// Puts `request` on the backend's record.
    pub fn record(&mut self, request: &Request) {
        lock(&self.record).requests.push(request.clone());
    }

    /// Reads at least one byte: what is there.
    pub fn read_some(&mut self) -> Result<Vec<u8>, ReadError> {
        self.reader()?.some()
    }

    /// Reads exactly `length` bytes.
    pub fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        self.reader()?.exactly(length)
    }

    /// Reads until the client closes, and returns what came.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        self.reader().and_then(Reader::rest).unwrap_or_default()
    }

    /// Sends `bytes`; false when the client is gone, which most scripts need not know.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        match &mut self.reader {
            Some(reader) => reader.stream.write_all(bytes.as_ref()).is_ok(),
            None => false,
        }
    }

    /// Waits until `gate` is open.
    pub fn wait(&mut self, gate: &Gate) {
        gate.pass();
    }

    /// Ends the sending side; the client sees the end of the stream.
    pub fn half_close(&mut self) {
        if let Some(reader) = &self.reader {
            // A client that is gone needs no notice.
            let _ = reader.stream.shutdown(Shutdown::Write);
        }
    }

    /// Resets the connection.
    pub fn reset(&mut self) {
        self.forget();
        if let Some(reader) = self.reader.take() {
            reader.stream.reset();
        }
    }

    /// Closes the connection in the ordinary way.
    pub fn close(&mut self) {
        self.forget();
        if let Some(reader) = self.reader.take() {
            let _ = reader.stream.shutdown(Shutdown::Write);
        }
    }

    /// Takes the connection off the record of open ones; its second handle closes with that.
    fn forget(&mut self) {
        let number = self.number;
        lock(&self.record).open.retain(|(open, _)| *open != number);
    }
}
