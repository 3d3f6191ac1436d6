//! One session: the state that every step of its journey shares.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;

use net::{Block, Counts};
use session::access_log::Logged;
use session::budget::Permit;
use session::log::{Level, Log};
use session::pattern::GivenUp;
use session::proxy_protocol::Announced;
use session::regex::Captures;
use session::text::{Arena, Span};
use session::variables::{Cells, Subject, Variables};
use system::errno::Errno;
use system::socket::Address;

use crate::client::Client;
use crate::served::{Endpoint, Served, Stream};
use crate::server::Server;
use crate::upstream_log::UpstreamLog;

/// One session.
pub struct Session {
    /// The client's side.
    pub client: Client,
    /// The configuration.
    pub stream: Rc<Stream>,
    /// What the address it came to serves.
    pub served: Rc<Served>,
    /// The socket it came to: logs show its address.
    pub(crate) endpoint: Rc<Endpoint>,
    /// The `server` that was chosen.
    pub server: Rc<Server>,
    /// All text.
    pub arena: Arena,
    /// The serial number that logs show after `*`.
    pub id: u64,
    /// When it was accepted, in milliseconds of the loop's clock.
    pub started_ms: u64,
    /// The socket's peer.
    pub peer: Address,
    /// Whom a trusted proxy named (realip); none for what it could not name.
    pub real_client: Option<SocketAddr>,
    /// What the proxy in front said.
    pub announced: Option<Box<Announced>>,
    /// What was read ahead, and belongs to whoever serves the session.
    pub ahead: Option<Block>,
    /// How it went; 0 until that is known.
    pub status: u16,
    /// Bytes moved: the client is the first, the backend the second.
    pub counts: Rc<Counts>,
    /// The ways to peers so far; none until one was looked for.
    pub upstream: Option<Box<UpstreamLog>>,
    /// What it is doing: error lines say `while ...`. Empty for nothing in particular.
    pub doing: &'static str,
    local: OnceCell<Option<Address>>,
    captures: Captures,
    cells: Cells,
    states: Vec<Box<dyn Any>>,
    _permit: Permit,
}

impl Session {
    pub(crate) fn new(
        client: Client,
        peer: Address,
        place: (Rc<Stream>, Rc<Endpoint>, Rc<Served>),
        permit: Permit,
    ) -> Session {
        let (stream, endpoint, served) = place;
        let cells = Cells::new(stream.variables.len());
        Session {
            client,
            server: served.servers.default_server(),
            stream,
            served,
            endpoint,
            arena: Arena::lean(),
            id: session::acceptor::next_number(),
            started_ms: net::now(),
            peer,
            real_client: None,
            announced: None,
            ahead: None,
            status: 0,
            counts: Rc::default(),
            upstream: None,
            doing: "initializing session",
            local: OnceCell::new(),
            captures: Captures::default(),
            cells,
            states: Vec::new(),
            _permit: permit,
        }
    }

    /// True for packets.
    pub fn is_udp(&self) -> bool {
        matches!(self.client, Client::Packets(_))
    }

    /// The client's address: whom a trusted proxy named, else the socket's peer; none for unix
    /// sockets.
    pub fn client_address(&self) -> Option<SocketAddr> {
        self.real_client.or(match &self.peer {
            Address::Inet(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// The address that the client spoke to.
    pub fn local(&self) -> Option<&Address> {
        self.local.get_or_init(|| self.client.local()).as_ref()
    }

    /// Says which address the client spoke to, where the socket does not know.
    pub(crate) fn set_local(&self, address: Address) {
        let _ = self.local.set(Some(address));
    }

    /// The text of `span`.
    pub fn text(&self, span: Span) -> &[u8] {
        self.arena.text(span)
    }

    /// Goes on in the server of the address that claims `name`, if one does. The name is one that
    /// the client gave; what is no host name is not looked for.
    ///
    /// # Errors
    /// A regular expression was given up; the reason is in the error log.
    pub fn choose_server(&mut self, name: &[u8]) -> Result<(), GivenUp> {
        let name = name.strip_suffix(b".").unwrap_or(name);
        if !is_host(name) {
            return Ok(());
        }
        let lower = self.arena.push(&name.to_ascii_lowercase());
        let served = self.served.clone();
        if let Some(server) = served.servers.find(self, lower)? {
            self.server = server;
        }
        Ok(())
    }

    /// The module state of type `T`, if it was set.
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.states.iter().find_map(|state| state.downcast_ref())
    }

    /// Keeps a module's state until the session is over.
    pub fn keep<T: 'static>(&mut self, state: T) {
        self.states.push(Box::new(state));
    }

    /// The error log of the server.
    pub fn log(&self) -> &Log {
        &self.server.error_log
    }

    /// Writes to the error log with the session's context.
    pub fn log_error(&self, level: Level, message: fmt::Arguments<'_>) {
        let log = self.log();
        if log.enabled(level) {
            log.write(level, Some(self.id), message, &|out| self.context(self.doing, out));
        }
    }

    /// As [`Session::log_error`], with an error number behind the message.
    pub fn log_errno(&self, level: Level, errno: Errno, message: fmt::Arguments<'_>) {
        let log = self.log();
        if log.enabled(level) {
            log.fail(level, errno, Some(self.id), message, &|out| self.context(self.doing, out));
        }
    }

    /// As [`Session::log_errno`], saying that bytes are moved, and which.
    pub(crate) fn log_while(
        &self,
        level: Level,
        errno: Errno,
        message: fmt::Arguments<'_>,
        moving: &str,
    ) {
        let log = self.log();
        if log.enabled(level) {
            let doing = format!("proxying and {moving}");
            log.fail(level, errno, Some(self.id), message, &|out| self.context(&doing, out));
        }
    }

    /// Writes to the error log without a context: what the message itself tells.
    pub(crate) fn log_plainly(&self, message: fmt::Arguments<'_>) {
        let log = self.log();
        if log.enabled(Level::Info) {
            log.write(Level::Info, Some(self.id), message, &session::log::no_context);
        }
    }

    /// What nginx appends to each error line of a session.
    fn context(&self, doing: &str, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        if !doing.is_empty() {
            let _ = write!(out, " while {doing}");
        }
        let udp = if self.is_udp() { "udp " } else { "" };
        let _ = match self.client_address() {
            Some(address) => write!(out, ", {udp}client: {}", address.ip()),
            None => write!(out, ", {udp}client: unix:"),
        };
        let _ = write!(out, ", server: {}", self.endpoint.address);
        let Some(upstream) = &self.upstream else { return };
        if let Some(peer) = upstream.attempts.last().map(|attempt| attempt.peer) {
            out.extend_from_slice(b", upstream: \"");
            out.extend_from_slice(self.text(peer));
            out.push(b'"');
        }
        let counts = &self.counts;
        let _ = write!(
            out,
            ", bytes from/to client:{}/{}, bytes from/to upstream:{}/{}",
            counts.from_first.get(),
            counts.to_first.get(),
            counts.from_second.get(),
            counts.to_second.get()
        );
    }
}

/// Whether a name is made of what hosts are made of (RFC 3986 section 3.2.2).
fn is_host(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    !name.is_empty() && name.iter().all(allowed) && !name.windows(2).any(|two| two == b"..")
}

impl Subject for Session {
    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }

    fn variables(&self) -> Rc<Variables<Session>> {
        self.stream.variables.clone()
    }

    fn cells(&mut self) -> &mut Cells {
        &mut self.cells
    }

    fn capture(&mut self, n: u8) -> Option<Span> {
        self.captures.group(n)
    }

    fn set_captures(&mut self, captures: Captures) {
        self.captures = captures;
    }

    fn complain(&mut self, level: Level, message: fmt::Arguments<'_>) {
        self.log_error(level, message);
    }
}

impl Logged for Session {
    fn log_root(&mut self) -> Option<Span> {
        None
    }

    fn log_failure(&mut self, level: Level, errno: Errno, message: fmt::Arguments<'_>) {
        self.doing = "logging session";
        self.log_errno(level, errno, message);
    }
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn hosts() {
        for (name, expected) in [
            ("a.example", true),
            ("xn--a_b", true),
            ("", false),
            ("a..b", false),
            ("a/b", false),
            ("a b", false),
            ("a\0b", false),
        ] {
            assert_eq!(is_host(name.as_bytes()), expected, "{name}");
        }
    }
}
