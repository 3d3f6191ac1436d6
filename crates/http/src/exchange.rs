//! One request and its answer: the state that every step of the journey shares.
//!
//! An exchange owns its text (`arena`), its header lists, its variables and its body; it shares
//! the connection with subrequests and with the next request. See LIFECYCLE.md for its life.

use crate::connection::Connection;
use crate::headers::Headers;
use crate::http::Http;
use crate::http2;
use crate::location::Location;
use crate::request_body::RequestBody;
use crate::response::Response;
use crate::site::Site;
use crate::upstream_log::UpstreamLog;
use net::Timer;
use session::log::{Level, Log};
use session::regex::Captures;
use session::text::{Arena, Span};
use session::variables::{Cells, Subject, Variables};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use wire::http1::{Method, Version};

/// How many internal redirects one request may take (nginx: 10).
pub const MAX_REDIRECTS: u8 = 10;
/// How deep subrequests may nest (nginx: 50).
pub const MAX_SUBREQUESTS: u8 = 50;

/// What the client asked for.
#[derive(Debug)]
pub struct Request {
    /// The method, when it is one that means something to us.
    pub method: Method,
    /// The method as written.
    pub method_text: Span,
    /// The whole request line.
    pub line: Span,
    /// The target as written, without scheme and authority.
    pub target: Span,
    /// The path: decoded, normalised, possibly rewritten.
    pub uri: Span,
    /// The query, without `?`.
    pub args: Span,
    /// True when `uri` is what the target says, undecoded: it can be sent on as written.
    pub plain_uri: bool,
    /// The path or the query is no longer what the client sent.
    pub rewritten: bool,
    /// The path was changed and the location kept (`rewrite ... break`): the location's name need
    /// not be the path's beginning any more.
    pub detached: bool,
    /// The protocol version.
    pub version: Version,
    /// The header fields.
    pub headers: Headers,
    /// The host, validated and in lower case, without its port.
    pub host: Span,
    /// The host as written with its port; empty when the request named none.
    pub host_field: Span,
    /// Bytes of the head as received.
    pub head_bytes: u32,
}

/// What a request does with the connection when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The next request may follow.
    Keep,
    /// The connection is closed after the answer.
    Close,
}

/// Where a request came from: a connection that is its own for the time, or a stream among
/// others.
#[derive(Clone)]
pub enum Side {
    /// All of a connection.
    Connection(Rc<Connection>),
    /// One stream of it.
    Stream(Rc<http2::Stream>),
}

impl Side {
    /// The one deadline of whatever the request is doing.
    pub fn timer(&self) -> &Timer {
        match self {
            Side::Connection(connection) => &connection.timer,
            Side::Stream(stream) => &stream.timer,
        }
    }

    /// Ready when the client has left: nobody waits for the answer.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Side::Connection(connection) => connection.stream.poll_hung_up(cx),
            Side::Stream(stream) => stream.poll_gone(cx),
        }
    }
}

/// One request and its answer.
pub struct Exchange {
    /// The connection that the client made; see [`Exchange::side`] for what is this request's.
    pub connection: Rc<Connection>,
    /// The request's stream, in HTTP/2.
    pub stream: Option<Rc<http2::Stream>>,
    /// The configuration.
    pub http: Rc<Http>,
    /// The `server` that was chosen.
    pub site: Rc<Site>,
    /// The `location` that was chosen; the server's own level before one is chosen.
    pub location: Rc<Location>,
    /// All text.
    pub arena: Arena,
    /// What was asked.
    pub request: Request,
    /// The request's body.
    pub body: RequestBody,
    /// What is answered.
    pub response: Response,
    /// Whether the connection may go on.
    pub persistence: Persistence,
    /// Milliseconds of the loop's clock when the first byte of the request was seen.
    pub started_ms: u64,
    /// The client's address, where a module replaced it.
    client: Option<SocketAddr>,
    /// The client's address as text, once asked for.
    client_text: Option<Span>,
    /// How many internal redirects were taken.
    pub redirects: u8,
    /// 0 for the client's request, more for subrequests.
    pub depth: u8,
    /// A subrequest that nobody waits for: it goes on when the client is gone, and leaves the
    /// connection's timer alone.
    pub background: bool,
    /// A subrequest whose answer is a part of the main answer's body: it goes on beside the
    /// sending, and leaves the connection's timer alone.
    pub is_part: bool,
    /// A subrequest that only runs the content of its location, and no filter.
    pub(crate) is_repeated: bool,
    /// Errors make an empty answer with their status in place of a page.
    pub bare_errors: bool,
    /// True after an internal redirect: locations marked `internal` are open.
    pub internal: bool,
    /// True once `error_page` led somewhere where `recursive_error_pages` is off, so that it does
    /// not do so again.
    pub error_page_used: bool,
    /// The status that `error_page` demands in place of the content's.
    pub status_override: Option<u16>,
    /// The answer would be another one with another Accept-Encoding, even if no coding is chosen.
    pub varies: bool,
    /// `try_files` found a file below an alias that stands for the whole URI.
    pub file_below_alias: bool,
    /// Set by a filter that turns the answer into an error: `error_page` may replace it.
    pub refused: Option<u16>,
    /// Bytes sent to the client: whole and without the head.
    pub sent: Sent,
    /// Bytes per second that the answer may take, once that is decided: `set $limit_rate`,
    /// `X-Accel-Limit-Rate`, or the location's limit when sending begins; 0: no limit.
    pub rate: Option<u64>,
    /// The random identity of the request (`$request_id`), once asked for.
    pub request_id: Option<Span>,
    /// The client's method, in a subrequest: `$request_method` is that of the main request.
    pub(crate) main_method: Option<Span>,
    /// What the connection did not take of answers that went ahead; it precedes the answer.
    pub(crate) unsent: Option<net::Chunk>,
    pub(crate) captures: Captures,
    pub(crate) cells: Cells,
    pub(crate) carried: Vec<crate::headers::Field>,
    /// What was asked of backends, once something was; internal redirects keep it.
    pub upstream: Option<Box<UpstreamLog>>,
    states: Vec<Box<dyn Any>>,
    lasting: Option<Lasting>,
}

/// States that live as long as the client's request; subrequests share them.
type Lasting = Rc<RefCell<Vec<Rc<dyn Any>>>>;

/// What went to the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Bytes of head and body.
    pub bytes: u64,
    /// Bytes of the head.
    pub head_bytes: u64,
    /// The head is on its way: the answer can no longer be replaced.
    pub head: bool,
    /// The status line was logged with this in place of the response's: 499, 408.
    pub logged_status: Option<u16>,
    /// The client took nothing for too long.
    pub timed_out: bool,
    /// The answer was sent whole.
    pub complete: bool,
    /// The body was sent in chunks.
    pub chunked: bool,
}

impl Exchange {
    /// A fresh exchange on `connection` for a head that lies at the start of `arena`.
    pub(crate) fn new(
        connection: Rc<Connection>,
        http: Rc<Http>,
        site: Rc<Site>,
        arena: Arena,
        request: Request,
        body: RequestBody,
    ) -> Exchange {
        let cells = Cells::new(http.variables.len());
        let location = site.root.clone();
        Exchange {
            connection,
            stream: None,
            http,
            site,
            location,
            arena,
            request,
            body,
            response: Response::default(),
            persistence: Persistence::Close,
            started_ms: net::now(),
            client: None,
            client_text: None,
            redirects: 0,
            depth: 0,
            background: false,
            is_part: false,
            is_repeated: false,
            bare_errors: false,
            internal: false,
            error_page_used: false,
            status_override: None,
            varies: false,
            file_below_alias: false,
            refused: None,
            sent: Sent::default(),
            rate: None,
            request_id: None,
            main_method: None,
            unsent: None,
            captures: Captures::default(),
            cells,
            carried: Vec::new(),
            upstream: None,
            states: Vec::new(),
            lasting: None,
        }
    }

    /// A subrequest of this exchange for `uri`: a GET with the same fields and no body. It shares
    /// the connection, and owns the rest; see [`Exchange::adopt`] for what comes back.
    pub fn subrequest(&self, uri: &[u8], args: &[u8]) -> Exchange {
        let mut arena = self.arena.duplicate();
        let uri = arena.push(uri);
        let args = arena.push(args);
        let request = Request {
            method: Method::Get,
            method_text: arena.push(b"GET"),
            headers: self.request.headers.clone(),
            uri,
            args,
            plain_uri: false,
            rewritten: true,
            detached: false,
            ..self.request
        };
        let (connection, http) = (self.connection.clone(), self.http.clone());
        let body = RequestBody::absent();
        let mut child = Exchange::new(connection, http, self.site.clone(), arena, request, body);
        child.stream = self.stream.clone();
        child.depth = self.depth + 1;
        child.internal = true;
        child.client = self.client;
        child.request_id = self.request_id;
        child.lasting = self.lasting.clone();
        child.cells = self.cells.clone();
        child.main_method = self.main_method.or(Some(self.request.method_text));
        child
    }

    /// Makes this subrequest of `x` ask the same as that, where that is.
    pub(crate) fn repeat(&mut self, x: &Exchange) {
        self.request = Request { headers: x.request.headers.clone(), ..x.request };
        self.location = x.location.clone();
        self.internal = x.internal;
        self.file_below_alias = x.file_below_alias;
        self.captures = x.captures.clone();
        self.is_repeated = true;
        self.bare_errors = true;
    }

    /// Takes over text and variables of a subrequest that is over, as nginx shares them between a
    /// request and its subrequests. The child's spans are valid here from now on, and so are all
    /// older ones: its text began as a copy of this one. Nothing may have been added here since.
    pub fn adopt(&mut self, child: &mut Exchange) {
        debug_assert!(child.arena.len() >= self.arena.len(), "text was added meanwhile");
        self.arena = std::mem::take(&mut child.arena);
        self.cells = std::mem::take(&mut child.cells);
        self.request_id = self.request_id.or(child.request_id);
    }

    /// Takes over the values that a subrequest has assigned to variables or computed, while this
    /// request goes on: nginx shares variables between a request and its subrequests.
    pub fn learn(&mut self, child: &Exchange) {
        for (id, value) in child.cells.values() {
            let text = child.text(value);
            if self.cells.value(id).is_none_or(|known| self.arena.text(known) != text) {
                let copy = self.arena.push(text);
                self.cells.assign(id, Some(copy));
            }
        }
    }

    /// The client's side of this request, for code that waits while others use the exchange.
    pub fn side(&self) -> Side {
        match &self.stream {
            None => Side::Connection(self.connection.clone()),
            Some(stream) => Side::Stream(stream.clone()),
        }
    }

    /// The one deadline of whatever the request is doing.
    pub fn timer(&self) -> &Timer {
        match &self.stream {
            None => &self.connection.timer,
            Some(stream) => &stream.timer,
        }
    }

    /// True when nobody else uses the request's timer meanwhile.
    pub fn has_timer(&self) -> bool {
        !self.background && !self.is_part
    }

    /// True for the client's own request.
    pub fn is_main(&self) -> bool {
        self.depth == 0
    }

    /// The text of `span`.
    pub fn text(&self, span: Span) -> &[u8] {
        self.arena.text(span)
    }

    /// The client's address: what realip found, else the socket's peer; none for unix sockets.
    pub fn client_address(&self) -> Option<SocketAddr> {
        self.client.or_else(|| self.connection.peer())
    }

    /// The client's address without its port, as text; `unix:` for unix sockets.
    pub fn client_text(&mut self) -> Span {
        if let Some(text) = self.client_text {
            return text;
        }
        let address = self.client_address();
        let text = crate::variables::address_text(self, address);
        self.client_text = Some(text);
        text
    }

    /// Whether the client's address was replaced.
    pub fn has_other_client(&self) -> bool {
        self.client.is_some()
    }

    /// Replaces the client's address by what somebody else said it is (realip); `None`: the
    /// socket's peer again.
    pub fn set_client(&mut self, address: Option<SocketAddr>) {
        self.client = address;
        self.client_text = None;
    }

    /// The record of what is asked of backends.
    #[inline]
    pub fn upstream_log(&mut self) -> &mut UpstreamLog {
        self.upstream.get_or_insert_default()
    }

    /// The module state of type `T`, if it was set.
    pub fn state<T: 'static>(&mut self) -> Option<&mut T> {
        self.states.iter_mut().find_map(|state| state.downcast_mut())
    }

    /// The module state of type `T`, made when missing.
    pub fn state_or_default<T: Default + 'static>(&mut self) -> &mut T {
        let at = match self.states.iter().position(|state| state.is::<T>()) {
            Some(at) => at,
            None => {
                self.states.push(Box::new(T::default()));
                self.states.len() - 1
            }
        };
        // The position was found by type, or the state was just pushed with it.
        self.states[at].downcast_mut().expect("state of this type")
    }

    /// The state of type `T` that lives until the client's request is over, made when missing.
    /// Internal redirects keep it, and subrequests that begin later share it.
    pub fn lasting<T: Default + 'static>(&mut self) -> Rc<T> {
        if let Some(state) = self.peek_lasting() {
            return state;
        }
        let state = Rc::new(T::default());
        self.lasting.get_or_insert_default().borrow_mut().push(state.clone());
        state
    }

    /// The state of type `T` that lives until the client's request is over, if there is one.
    pub fn peek_lasting<T: 'static>(&self) -> Option<Rc<T>> {
        let states = self.lasting.as_ref()?.borrow();
        states.iter().find_map(|state| state.clone().downcast().ok())
    }

    /// Makes the request a GET, as nginx does before it redirects internally to a page.
    pub fn become_get(&mut self) {
        if self.request.method != Method::Head {
            self.request.method = Method::Get;
            self.request.method_text = self.arena.push(b"GET");
        }
    }

    /// Fields that the answer gets although an internal redirect lies between.
    pub fn carry(&mut self, fields: Vec<crate::headers::Field>) {
        self.carried = fields;
    }

    /// Forgets what a location's modules computed: nginx does so at internal redirects.
    pub(crate) fn forget_states(&mut self) {
        self.states.clear();
    }

    /// The error log of the place where the request is.
    pub fn log(&self) -> &Log {
        &self.location.error_log
    }

    /// Writes to the error log with the request's context.
    pub fn log_error(&self, level: Level, message: fmt::Arguments<'_>) {
        let log = self.log();
        if self.connection.is_debugged() {
            let context: &dyn Fn(&mut Vec<u8>) = &|out| self.context(out);
            return log.write_everywhere(level, Some(self.connection.id), message, context);
        }
        if log.enabled(level) {
            log.write(level, Some(self.connection.id), message, &|out| self.context(out));
        }
    }

    /// What nginx appends to each error line of a request.
    fn context(&self, out: &mut Vec<u8>) {
        self.connection.context(self.client_address(), out);
        let mut add = |label: &[u8], text: &[u8], quote: bool| {
            out.extend_from_slice(label);
            if quote {
                out.push(b'"');
            }
            out.extend_from_slice(text);
            if quote {
                out.push(b'"');
            }
        };
        add(b", server: ", &self.site.name, false);
        if !self.request.line.is_empty() {
            add(b", request: ", self.text(self.request.line), true);
        }
        if self.depth > 0 {
            add(b", subrequest: ", self.text(self.request.uri), true);
        }
        if let Some(log) = &self.upstream
            && let Some(url) = log.current()
        {
            add(b", upstream: ", self.text(url), true);
        }
        if !self.request.host_field.is_empty() {
            add(b", host: ", self.text(self.request.host_field), true);
        }
        if let Some(referer) = self.request.headers.value(wire::http1::Known::Referer) {
            add(b", referrer: ", self.text(referer), true);
        }
    }

    /// The module state of type `T`, read only.
    pub fn peek_state<T: 'static>(&self) -> Option<&T> {
        self.states.iter().find_map(|state| state.downcast_ref())
    }
}

impl Subject for Exchange {
    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }

    fn variables(&self) -> Rc<Variables<Exchange>> {
        self.http.variables.clone()
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
