//! One client connection speaking HTTP/1: waiting, and the loop from request to request.
//!
//! While it waits a connection holds its socket, a timer slot and this struct, but no buffer and
//! no request: the future of a request is boxed when the first byte is there and dropped when
//! the answer is sent. LIFECYCLE.md draws the whole life.

use crate::debug;
use crate::http::Served;
use crate::http2;
use crate::proxy_protocol;
use crate::settings::Lingering;
use crate::slot::{self, Whole};
use crate::tls;
use crate::worker::Worker;
use net::{Block, Chunk, Stream, Timer};
use session::budget::Permit;
use session::counters::Active;
use session::log::Level;
use session::proxy_protocol::Announced;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::rc::Rc;
use std::task::{Context, Poll};
use system::errno::Errno;
use system::socket::Address;

/// How much is read at a time while a connection's last bytes are dropped.
const DRAIN_BLOCK: usize = 4096;

/// A client connection.
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// The one deadline of whatever the connection is doing.
    pub timer: Timer,
    /// The serial number that logs show after `*`.
    pub id: u64,
    /// Requests begun so far.
    pub requests: Cell<u32>,
    /// The client.
    peer: Peer,
    /// When it was accepted, in milliseconds of the loop's clock.
    pub accepted_ms: u64,
    /// What the address it came to serves.
    pub served: Rc<Served>,
    /// The worker.
    pub worker: Rc<Worker>,
    /// What few connections have.
    extra: OnceCell<Box<Extra>>,
    /// While it is idle: how long it is spared, in milliseconds of silence.
    pub(crate) spared_ms: Cell<u32>,
    nodelay: Cell<bool>,
    _permit: Permit,
    _active: Active,
}

/// What a connection has that is more than a request at a time.
#[derive(Default)]
struct Extra {
    /// Bytes received beyond what was asked for: the rest of a body, the next request.
    leftover: Cell<Option<Chunk>>,
    /// What a proxy said about its client.
    announced: OnceCell<Announced>,
}

/// A client's address in little room: there is one per idle connection.
enum Peer {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    Unix,
}

impl Peer {
    fn of(address: &Address) -> Peer {
        match address {
            Address::Inet(SocketAddr::V4(address)) => Peer::V4(*address),
            Address::Inet(SocketAddr::V6(address)) => Peer::V6(Box::new(*address)),
            Address::Unix(_) => Peer::Unix,
        }
    }
}

const _: () = assert!(size_of::<Connection>() <= 88, "one of these per idle connection");

/// What follows a request.
#[derive(Debug)]
pub(crate) enum After {
    /// The next request, within so many milliseconds.
    Keep { timeout_ms: u64, min_ms: u64 },
    /// There was none after all: a new socket is tried before anything is known of it. The
    /// connection goes on waiting, without the memory that a request takes.
    Wait,
    /// Nothing: close.
    Close,
    /// Close, but first drop what the client still sends.
    Linger { time_ms: u64, timeout_ms: u64 },
    /// Close with a reset.
    Reset,
}

impl After {
    /// Closing as the location's `lingering_close` says; `likely`: more data is expected.
    pub(crate) fn closing(settings: &crate::settings::Settings, likely: bool) -> After {
        let linger = match settings.lingering {
            Lingering::Off => false,
            Lingering::On => likely,
            Lingering::Always => true,
        };
        match linger {
            false => After::Close,
            true => After::Linger {
                time_ms: settings.lingering_time_ms,
                timeout_ms: settings.lingering_timeout_ms,
            },
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.unseated();
    }
}

impl Connection {
    pub(crate) fn new(
        stream: Stream,
        peer: &Address,
        served: Rc<Served>,
        worker: Rc<Worker>,
        permit: Permit,
    ) -> Connection {
        worker.seated();
        Connection {
            stream,
            timer: Timer::new(),
            id: worker.next_connection_id(),
            requests: Cell::new(0),
            peer: Peer::of(peer),
            accepted_ms: net::now(),
            served,
            extra: OnceCell::new(),
            spared_ms: Cell::new(0),
            nodelay: Cell::new(false),
            _permit: permit,
            _active: Active::new(),
            worker,
        }
    }

    /// Sends small writes at once from here on (`tcp_nodelay`); one system call per connection.
    pub fn send_at_once(&self) {
        if !self.nodelay.replace(true) && !matches!(self.peer, Peer::Unix) {
            // A connection that is broken already is found to be so by its next use.
            let _ = self.stream.set_nodelay(true);
        }
    }

    /// The client; none for unix sockets.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.peer {
            Peer::V4(address) => Some(SocketAddr::V4(*address)),
            Peer::V6(address) => Some(SocketAddr::V6(**address)),
            Peer::Unix => None,
        }
    }

    /// What the proxy in front said about its client, by the PROXY protocol.
    pub fn announced(&self) -> Option<&Announced> {
        self.extra.get()?.announced.get()
    }

    /// Keeps what the proxy said. It speaks once.
    pub(crate) fn announce(&self, said: Announced) {
        let _ = self.extra.get_or_init(Box::default).announced.set(said);
    }

    /// Bytes that were received and not used yet.
    pub fn take_leftover(&self) -> Option<Chunk> {
        self.extra.get()?.leftover.take()
    }

    /// Keeps bytes for whoever reads next.
    pub fn put_leftover(&self, bytes: Chunk) {
        if !bytes.is_empty() {
            self.extra.get_or_init(Box::default).leftover.set(Some(bytes));
        }
    }

    /// True when bytes wait that were received already.
    pub fn has_leftover(&self) -> bool {
        let Some(extra) = self.extra.get() else { return false };
        let left = extra.leftover.take();
        let some = left.is_some();
        extra.leftover.set(left);
        some
    }

    /// Reads into a block from the worker's pool; an empty block is the end of the stream.
    pub fn poll_lend(&self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Block>> {
        self.stream.poll_lend(cx, size)
    }

    /// The address the client connected to.
    pub fn local(&self) -> Option<SocketAddr> {
        use std::os::fd::AsFd;
        match system::socket::local_address(self.stream.as_fd()) {
            Ok(Address::Inet(address)) => Some(address),
            _ => None,
        }
    }

    /// `, client: ...` for the error log.
    pub(crate) fn context(&self, client: Option<SocketAddr>, out: &mut Vec<u8>) {
        use std::io::Write;
        // Writing to a vector cannot fail.
        let _ = match client {
            Some(address) => write!(out, ", client: {}", address.ip()),
            None => write!(out, ", client: unix:"),
        };
    }

    /// Logs what concerns the connection and no request.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let Some(site) = self.served.sites.default_site() else { return };
        let log = &site.root.error_log;
        let context: &dyn Fn(&mut Vec<u8>) = &|out| {
            self.context(self.peer(), out);
            out.extend_from_slice(b", server: ");
            out.extend_from_slice(self.served.address.to_string().as_bytes());
        };
        match self.is_debugged() {
            true => log.write_everywhere(level, Some(self.id), message, context),
            false if log.enabled(level) => log.write(level, Some(self.id), message, context),
            false => {}
        }
    }

    /// Whether the client is one whose connections are logged in every detail.
    #[inline]
    pub(crate) fn is_debugged(&self) -> bool {
        session::log::is_debugged(|| self.peer().map(|peer| peer.ip()))
    }
}

/// Serves a connection until it closes.
pub(crate) async fn run(connection: Rc<Connection>) {
    let Some(mut deadline) = first_deadline(&connection) else { return };
    debug::accepted(&connection);
    let mut begins_with_header = connection.served.proxy_protocol;
    let mut begins_with_handshake = connection.served.tls;
    let mut may_be_http2 = connection.served.http2;
    loop {
        connection.timer.set(deadline.at);
        let place = connection.worker.idle(&connection, net::now(), u64::from(deadline.min_ms));
        let ready = poll_fn(|cx| connection.poll_request(cx)).await;
        connection.worker.busy(place);
        if !ready {
            match begins_with_handshake && !begins_with_header && net::now() >= deadline.at {
                true => tls::log_timeout(&connection),
                false => connection.log_silence(deadline.at, begins_with_header),
            }
            break;
        }
        if begins_with_header {
            // Boxed: connections without it, and those that wait for later requests, are smaller.
            if !Box::pin(proxy_protocol::read_header(&connection, deadline.at)).await {
                break;
            }
            begins_with_header = false;
            continue;
        }
        if begins_with_handshake {
            if !Box::pin(tls::handshake(&connection, deadline.at)).await {
                break;
            }
            begins_with_handshake = false;
            continue;
        }
        if may_be_http2 {
            may_be_http2 = false;
            if Box::pin(http2::begins(&connection, deadline.at)).await {
                Box::pin(http2::run(&connection)).await;
                break;
            }
            continue;
        }
        let after = slot::request::<Whole>(connection.clone()).await;
        match after.unwrap_or(After::Close) {
            After::Keep { timeout_ms, min_ms } => deadline = Deadline::after(timeout_ms, min_ms),
            After::Wait => {}
            After::Close => break,
            After::Reset => {
                // A socket that cannot be told to reset is closed all the same.
                let _ = connection.stream.reset_on_close();
                break;
            }
            After::Linger { time_ms, timeout_ms } => {
                Box::pin(linger(&connection, time_ms, timeout_ms)).await;
                break;
            }
        }
    }
    debug::closed(&connection);
    if Rc::strong_count(&connection) > 1 {
        // A subrequest in the background keeps the socket; the client need not wait for it, and
        // is perhaps gone already.
        let _ = connection.stream.shutdown_write();
    }
}

/// How long an idle connection may stay.
#[derive(Clone, Copy)]
struct Deadline {
    at: u64,
    min_ms: u32,
}

impl Deadline {
    fn after(timeout_ms: u64, min_ms: u64) -> Deadline {
        let min_ms = min_ms.min(u64::from(u32::MAX)) as u32;
        Deadline { at: net::now().saturating_add(timeout_ms), min_ms }
    }
}

fn first_deadline(connection: &Connection) -> Option<Deadline> {
    let site = connection.served.sites.default_site()?;
    let min_ms = site.root.settings.keepalive.min_timeout_ms;
    Some(Deadline::after(site.head.timeout_ms, min_ms))
}

impl Connection {
    /// Ready with the first byte of a request; with false when the time for it is over.
    fn poll_request(&self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.has_leftover() || self.stream.poll_readable(cx).is_ready() {
            return Poll::Ready(true);
        }
        self.timer.poll_expired(cx).map(|()| false)
    }

    /// A client that connected and said nothing is worth a line.
    fn log_silence(&self, deadline: u64, begins_with_header: bool) {
        if self.requests.get() == 0 && net::now() >= deadline {
            if begins_with_header {
                return proxy_protocol::log_timeout(self);
            }
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            let doing = "while waiting for request";
            self.log(Level::Info, format_args!("client timed out ({errno}) {doing}"));
        }
    }
}

/// Tells the client that no more is sent, and drops what it sends until it closes too, so that
/// it sees the answer rather than a reset (RFC 9112 section 9.6).
pub(crate) async fn linger(connection: &Rc<Connection>, time_ms: u64, timeout_ms: u64) {
    if connection.stream.shutdown_write().is_err() {
        return;
    }
    let _ = connection.take_leftover();
    let end = net::now().saturating_add(time_ms);
    poll_fn(|cx| {
        loop {
            let now = net::now();
            if now >= end || connection.worker.is_stopping() {
                return Poll::Ready(());
            }
            match connection.poll_lend(cx, DRAIN_BLOCK) {
                Poll::Ready(Ok(block)) if !block.is_empty() => {
                    connection.timer.set(end.min(now.saturating_add(timeout_ms)));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    if connection.timer.deadline().is_none_or(|at| at > end) {
                        connection.timer.set(end.min(now.saturating_add(timeout_ms)));
                    }
                    return connection.timer.poll_expired(cx);
                }
            }
        }
    })
    .await;
}
