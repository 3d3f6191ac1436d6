//! The journey of one request, from its first byte to its log line. Read top to bottom:
//! `request` (read the head, find the site), `answer` (locate, guards, content, and again after
//! each internal redirect), `finish` (send, log, decide about the connection).

use crate::conclusion::{conclude, log};
use crate::connection::{After, Connection};
use crate::debug;
use crate::error_page;
use crate::exchange::{Exchange, MAX_REDIRECTS, Persistence, Request};
use crate::head::{self, Fault, Head, NoHead};
use crate::headers::{Headers, span};
use crate::hold::hold;
use crate::http2;
use crate::limit_except;
use crate::location::{self, Found, Location};
use crate::module::{Stage, Verdict};
use crate::request_body::RequestBody;
use crate::send::{SendEnd, send};
use crate::site::{self, Site};
pub use crate::subrequest::{log_subrequest, subrequest};
use crate::tls;
use session::counters::Counted;
use session::log::Level;
use session::text::{Arena, Span};
use std::rc::Rc;
use system::errno::Errno;
use wire::http1::{
    BadRequest, Framing, Known, Method, RequestLine, Slice, Version, request_framing, request_host,
    target, token,
};
use wire::http2::Code;

/// Serves one request of a connection.
pub(crate) async fn request(connection: &Rc<Connection>) -> After {
    let Some(site) = tls::first_site(connection) else { return After::Close };
    let mut counted = Counted::reading();
    let head = match head::read(connection, &site.head).await {
        Ok(head) => head,
        Err(NoHead::Nothing) => return After::Wait,
        Err(NoHead::Closed) => return After::Close,
        Err(NoHead::ClosedEarly) => {
            let doing = "while reading client request headers";
            let message = format_args!("client prematurely closed connection {doing}");
            connection.log(Level::Info, message);
            return After::Close;
        }
        Err(NoHead::TimedOut) => {
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            let doing = "while reading client request headers";
            connection.log(Level::Info, format_args!("client timed out ({errno}) {doing}"));
            return if site.root.settings.reset_timedout { After::Reset } else { After::Close };
        }
        Err(NoHead::Bad { arena, line, fault }) => {
            counted.write();
            let mut x = refused(connection, &site, arena, line);
            let status = fault.log(&mut x);
            return refuse(&mut x, status).await;
        }
    };
    connection.requests.set(connection.requests.get() + 1);
    counted.write();
    let mut x = match begin(connection, site, head) {
        Ok(x) => x,
        Err((mut x, status)) => return refuse(&mut x, status).await,
    };
    match answer(&mut x).await {
        Answered::Response => finish(&mut x).await,
        Answered::Close => {
            x.response.status = 444;
            conclude(&mut x).await;
            After::Close
        }
    }
}

/// Serves one request that came on a stream of its own, and gives the stream back.
pub(crate) async fn stream(
    connection: &Rc<Connection>,
    stream: Rc<http2::Stream>,
    arrived: http2::Arrived,
) {
    let mut counted = Counted::reading();
    counted.write();
    let after = match begin_stream(connection, &stream, arrived) {
        None => After::Close,
        Some((mut x, Some(status))) => refuse(&mut x, status).await,
        Some((mut x, None)) => match answer(&mut x).await {
            Answered::Response => finish(&mut x).await,
            Answered::Close => {
                x.response.status = 444;
                log(&mut x);
                After::Close
            }
        },
    };
    stream.finish(match after {
        // An answer is whole although its request is not (RFC 9113 section 8.1).
        After::Keep { .. } => Code::NoError,
        After::Reset => Code::Protocol,
        _ => Code::Internal,
    });
}

/// From a header list to an exchange; with a status when it is to be refused.
fn begin_stream(
    connection: &Rc<Connection>,
    stream: &Rc<http2::Stream>,
    arrived: http2::Arrived,
) -> Option<(Box<Exchange>, Option<u16>)> {
    let site = connection.served.sites.default_site()?.clone();
    let framing = arrived.framing();
    let http2::Arrived { arena, line, headers, host, length, ended, fault, dropped } = arrived;
    let request = Request {
        method: line.map_or(Method::Get, |line| line.method),
        method_text: line.map_or(Span::EMPTY, |line| span(line.method_text)),
        line: line.map_or(Span::EMPTY, |line| span(line.text)),
        target: line.map_or(Span::EMPTY, |line| span(line.path)),
        uri: Span::EMPTY,
        args: Span::EMPTY,
        plain_uri: false,
        rewritten: false,
        detached: false,
        version: Version { major: 2, minor: 0 },
        headers,
        host: Span::EMPTY,
        host_field: host.map_or(Span::EMPTY, |(text, _)| span(text)),
        head_bytes: arena.len() as u32,
    };
    let merge = site.head.merge_slashes;
    let http = connection.worker.http.clone();
    let body = RequestBody::of_stream(framing, ended);
    let mut x = Box::new(Exchange::new(connection.clone(), http, site, arena, request, body));
    x.stream = Some(stream.clone());
    for name in dropped {
        x.log_error(Level::Info, format_args!("client sent invalid header: \"{name}\""));
    }
    let Some(line) = line.filter(|_| fault.is_none()) else {
        let (status, text) = fault.unwrap_or((400, String::new()));
        x.log_error(Level::Info, format_args!("{text}"));
        return Some((x, Some(status)));
    };
    let authority = host.map(|(text, parts)| wire::http1::Authority {
        host: Slice { at: text.at + parts.host.at, len: parts.host.len },
        ..parts
    });
    let refusal = identify(&mut x, &line, authority, merge).err();
    if !x.site.http2.enabled && !connection.served.http2_listen {
        let message = "client attempted to request the server name for which the negotiated \
                       protocol is disabled";
        x.log_error(Level::Info, format_args!("{message}"));
        return Some((x, Some(421)));
    }
    if ended && length.is_some_and(|length| length > 0) {
        x.log_error(Level::Info, format_args!("client prematurely closed stream"));
        return Some((x, Some(400)));
    }
    Some((x, refusal))
}

/// An exchange for something that is no valid request, so that it can be answered and logged.
fn refused(
    connection: &Rc<Connection>,
    site: &Rc<Site>,
    arena: Arena,
    line: Option<RequestLine>,
) -> Exchange {
    connection.requests.set(connection.requests.get() + 1);
    let request = Request {
        method: line.map_or(Method::Get, |line| line.method),
        method_text: line.map_or(Span::EMPTY, |line| span(line.method_text)),
        line: line.map_or_else(|| first_line(&arena), |line| span(line.text)),
        target: line.map_or(Span::EMPTY, |line| span(line.path)),
        uri: Span::EMPTY,
        args: Span::EMPTY,
        plain_uri: false,
        rewritten: false,
        detached: false,
        version: line.map_or(Version::HTTP_10, |line| line.version.max(Version::HTTP_10)),
        headers: Headers::default(),
        host: Span::EMPTY,
        host_field: Span::EMPTY,
        head_bytes: arena.len() as u32,
    };
    let http = connection.worker.http.clone();
    let body = RequestBody::absent();
    Exchange::new(connection.clone(), http, site.clone(), arena, request, body)
}

/// What `$request` shows of a line that could not be parsed.
fn first_line(arena: &Arena) -> Span {
    let bytes = arena.bytes();
    let from = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    let end = bytes[from..].iter().position(|b| matches!(b, b'\r' | b'\n' | 0));
    Span::new(from as u32, end.unwrap_or(bytes.len() - from) as u32)
}

impl Fault {
    /// Logs the fault in nginx's words; the status that answers it.
    fn log(&self, x: &mut Exchange) -> u16 {
        let mut text = Vec::new();
        let (status, action) = match self {
            Fault::Form(bad) => {
                bad.describe(x.arena.bytes(), &[], &mut text);
                (bad.status(), bad.action())
            }
            Fault::LineTooLong => {
                text.extend_from_slice(b"client sent too long URI");
                (414, "reading client request line")
            }
            Fault::FieldTooLong => {
                text.extend_from_slice(b"client sent too long header line");
                (494, "reading client request headers")
            }
            Fault::TooLarge => {
                text.extend_from_slice(b"client sent too large request");
                (494, "reading client request headers")
            }
        };
        let text = session::log::Bytes(&text);
        x.log_error(Level::Info, format_args!("{text} while {action}"));
        status
    }
}

/// Answers with an error before the journey began, and closes.
async fn refuse(x: &mut Exchange, status: u16) -> After {
    x.persistence = Persistence::Close;
    if let Answered::Response = settle(x, Verdict::Status(status)).await {
        return finish(x).await;
    }
    After::Close
}

/// From a head to an exchange: framing, host, site, path.
fn begin(
    connection: &Rc<Connection>,
    default: Rc<Site>,
    head: Head,
) -> Result<Box<Exchange>, (Box<Exchange>, u16)> {
    let Head { arena, line, fields, length, dropped } = head;
    let framing = request_framing(&line, arena.bytes(), &fields);
    let authority = request_host(&line, arena.bytes(), &fields);
    let host_field = match wire::http1::find(&fields, Known::Host) {
        Some(field) => span(field.value),
        None => span(line.authority),
    };
    let request = Request {
        method: line.method,
        method_text: span(line.method_text),
        line: span(line.text),
        target: span(line.path),
        uri: Span::EMPTY,
        args: Span::EMPTY,
        plain_uri: false,
        rewritten: false,
        detached: false,
        version: line.version,
        headers: Headers::from_codec(&fields, 0),
        host: Span::EMPTY,
        host_field,
        head_bytes: length,
    };
    let merge = default.head.merge_slashes;
    let body = RequestBody::new(*framing.as_ref().unwrap_or(&Framing::None));
    let http = connection.worker.http.clone();
    let mut x = Box::new(Exchange::new(connection.clone(), http, default, arena, request, body));
    if let Some(first) = dropped {
        log_dropped(&x, first);
    }
    let verdict = (|| {
        let authority = authority.map_err(|bad| log_bad(&x, &bad, &fields))?;
        framing.map_err(|bad| log_bad(&x, &bad, &fields))?;
        Ok(authority)
    })();
    head::return_fields(fields);
    match verdict.and_then(|authority| identify(&mut x, &line, authority, merge)) {
        Ok(()) => Ok(x),
        Err(status) => Err((x, status)),
    }
}

fn log_dropped(x: &Exchange, line: Slice) {
    let text = session::log::Bytes(x.text(span(line)));
    x.log_error(Level::Info, format_args!("client sent invalid header line: \"{text}\""));
}

fn log_bad(x: &Exchange, bad: &BadRequest, fields: &[wire::http1::Field]) -> u16 {
    let mut text = Vec::new();
    bad.describe(x.arena.bytes(), fields, &mut text);
    let (text, action) = (session::log::Bytes(&text), bad.action());
    x.log_error(Level::Info, format_args!("{text} while {action}"));
    bad.status()
}

/// Host and path of the request, the site they lead to, and what the client wants of the
/// connection.
fn identify(
    x: &mut Exchange,
    line: &RequestLine,
    authority: Option<wire::http1::Authority>,
    merge: bool,
) -> Result<(), u16> {
    if let Some(authority) = authority {
        x.request.host = span(authority.host);
        if authority.has_upper {
            x.request.host = x.arena.copy(x.request.host);
            x.arena.text_mut(x.request.host).make_ascii_lowercase();
        }
    }
    let served = x.connection.served.clone();
    if !served.sites.is_single() {
        let chosen = site::choose(x, &served.sites, x.request.host).map_err(|_| 500u16)?;
        if let Some(site) = chosen.or_else(|| tls::site_of_strangers(x)) {
            x.location = site.root.clone();
            x.site = site;
        }
    }
    if line.method == Method::Trace {
        x.log_error(Level::Info, format_args!("client sent TRACE method"));
        return Err(405);
    }
    if line.method == Method::Connect {
        x.log_error(Level::Info, format_args!("client sent CONNECT method"));
        return Err(405);
    }
    tls::admit(x)?;
    path(x, line, merge)?;
    x.persistence = wanted_persistence(x);
    Ok(())
}

/// Decodes and normalises the path.
fn path(x: &mut Exchange, line: &RequestLine, merge: bool) -> Result<(), u16> {
    let mut normalised = Vec::new();
    let at = line.path.at;
    match target::parse(line.path.of(x.arena.bytes()), merge, &mut normalised) {
        Ok(parts) => {
            let inner = |slice: Slice| Span::new(at + slice.at, slice.len);
            x.request.args = parts.args.map_or(Span::EMPTY, inner);
            x.request.plain_uri = parts.plain;
            x.request.uri = match parts.plain {
                true => inner(parts.raw_path),
                false => x.arena.push(&normalised),
            };
            Ok(())
        }
        Err(_) => {
            let message =
                format_args!("client sent invalid request while reading client request line");
            x.log_error(Level::Info, message);
            Err(400)
        }
    }
}

fn wanted_persistence(x: &Exchange) -> Persistence {
    let mut keep = x.request.version >= Version::HTTP_11;
    for field in x.request.headers.all(Known::Connection) {
        let value = x.text(field.value);
        if token::has_token(value, "close") {
            return Persistence::Close;
        }
        keep |= token::has_token(value, "keep-alive");
    }
    if keep { Persistence::Keep } else { Persistence::Close }
}

/// How the journey ended.
pub(crate) enum Answered {
    /// `x.response` is to be sent.
    Response,
    /// The connection is to be closed without a word.
    Close,
}

/// Finds the answer: the journey proper.
pub(crate) async fn answer(x: &mut Exchange) -> Answered {
    debug::request(x);
    let verdict = enter(x).await;
    settle(x, verdict).await
}

/// From the server's own level to the answer of a location. nginx comes here again at each
/// internal redirect, so the server's rewrites run again too.
pub(crate) async fn enter(x: &mut Exchange) -> Verdict {
    let root = x.site.root.clone();
    if is_guarded(&root, Stage::Rewrite, Stage::Rewrite) {
        match guards(x, &root, Stage::Rewrite, Stage::Rewrite).await {
            Verdict::Next | Verdict::Relocate => {}
            other => return other,
        }
    }
    locate(x).await
}

/// Follows verdicts until there is a response.
pub(crate) async fn settle(x: &mut Exchange, mut verdict: Verdict) -> Answered {
    loop {
        verdict = match verdict {
            Verdict::Answer => {
                if let Some(status) = x.status_override.take() {
                    x.response.status = status;
                    x.response.status_line = None;
                }
                return Answered::Response;
            }
            Verdict::Close => return Answered::Close,
            Verdict::Next | Verdict::Abstain => Verdict::Status(404),
            Verdict::Relocate => relocate(x).await,
            // Nobody waits for these: the client was too slow, or is gone.
            Verdict::Status(code @ (408 | 499)) => {
                x.sent.logged_status = Some(code);
                return Answered::Close;
            }
            Verdict::Status(code) => {
                x.status_override = None;
                if x.bare_errors {
                    x.response.reset();
                    x.response.status = code;
                    return Answered::Response;
                }
                if error_page::ends_connection(code) {
                    x.persistence = Persistence::Close;
                }
                match error_page::redirect(x, code) {
                    Some(next) => next,
                    None => {
                        error_page::built_in(x, code);
                        Verdict::Answer
                    }
                }
            }
            Verdict::Internal { uri, args } => {
                if !enter_redirect(x) {
                    x.log_error(
                        Level::Error,
                        format_args!(
                            "rewrite or internal redirection cycle while internally redirecting \
                             to \"{}\"",
                            session::log::Bytes(x.text(uri))
                        ),
                    );
                    verdict = Verdict::Status(500);
                    continue;
                }
                x.request.uri = uri;
                x.request.args = args;
                x.request.plain_uri = false;
                x.request.rewritten = true;
                x.request.detached = false;
                x.file_below_alias = false;
                x.location = x.site.root.clone();
                debug::redirected(x);
                enter(x).await
            }
            Verdict::Named(name) => named(x, &name).await,
        };
    }
}

/// Counts an internal redirect; false when there were too many.
fn enter_redirect(x: &mut Exchange) -> bool {
    x.internal = true;
    x.redirects += 1;
    x.response.reset();
    for field in std::mem::take(&mut x.carried) {
        match field.known {
            Known::ContentType => x.response.content_type = Some(field.value),
            _ => x.response.headers.push(field),
        }
    }
    x.forget_states();
    if let Some(log) = &mut x.upstream {
        log.redirected = true;
        log.place = None;
    }
    x.redirects <= MAX_REDIRECTS
}

async fn named(x: &mut Exchange, name: &str) -> Verdict {
    if !enter_redirect(x) {
        let message = format_args!(
            "rewrite or internal redirection cycle while redirect to named location \"{name}\""
        );
        x.log_error(Level::Error, message);
        return Verdict::Status(500);
    }
    let bare = name.strip_prefix('@').unwrap_or(name);
    let Some(location) = x.site.root.inner.named(bare).cloned() else {
        x.log_error(Level::Error, format_args!("could not find named location \"{name}\""));
        return Verdict::Status(500);
    };
    let location = limit_except::enter(x, location);
    debug::location(x);
    match guards(x, &location, Stage::Rewrite, Stage::Rewrite).await {
        Verdict::Next => within(x).await,
        other => other,
    }
}

/// Chooses the location for a rewritten path, unless that happened too often already.
async fn relocate(x: &mut Exchange) -> Verdict {
    x.location = x.site.root.clone();
    x.redirects += 1;
    if x.redirects > MAX_REDIRECTS {
        let uri = session::log::Bytes(x.text(x.request.uri));
        let message =
            format_args!("rewrite or internal redirection cycle while processing \"{uri}\"");
        x.log_error(Level::Error, message);
        return Verdict::Status(500);
    }
    locate(x).await
}

/// Chooses the location for the current URI and goes through it.
async fn locate(x: &mut Exchange) -> Verdict {
    let root = x.site.root.clone();
    let (location, is_redirect) = match location::find(x, &root) {
        Found::Location(location) => (location, false),
        Found::Redirect(location) => (location, true),
        Found::Nothing => (root.clone(), false),
        Found::Failed => return Verdict::Status(500),
    };
    x.location = location.clone();
    if location.settings.internal && !x.internal {
        return Verdict::Status(404);
    }
    if !is_body_acceptable(x) {
        return Verdict::Status(413);
    }
    if is_redirect {
        return slash_redirect(x, &location);
    }
    if Rc::ptr_eq(&location, &root) {
        // The rewrites of the server's own level ran before.
        return within(x).await;
    }
    let location = limit_except::enter(x, location);
    debug::location(x);
    if is_guarded(&location, Stage::Rewrite, Stage::Rewrite) {
        match guards(x, &location, Stage::Rewrite, Stage::Rewrite).await {
            Verdict::Next => {}
            other => return other,
        }
    }
    within(x).await
}

/// `/dir` becomes `/dir/` by way of the client.
fn slash_redirect(x: &mut Exchange, location: &Location) -> Verdict {
    let mark = x.arena.mark();
    let mut place = Vec::new();
    target::escape_uri(&location.name, target::Escape::Uri, &mut place);
    x.arena.push(&place);
    if !x.request.args.is_empty() {
        x.arena.push(b"?");
        x.arena.copy(x.request.args);
    }
    x.response.location = Some(x.arena.since(mark));
    Verdict::Status(301)
}

fn is_body_acceptable(x: &mut Exchange) -> bool {
    let max = x.location.settings.body_max;
    let Some(length) = x.body.declared() else { return true };
    if max == 0 || length <= max || !x.is_main() {
        return true;
    }
    let message = format_args!("client intended to send too large body: {length} bytes");
    x.log_error(Level::Error, message);
    false
}

/// The location's guards and content.
async fn within(x: &mut Exchange) -> Verdict {
    let location = x.location.clone();
    if is_guarded(&location, Stage::Limit, Stage::Prepare) {
        match guards(x, &location, Stage::Limit, Stage::Prepare).await {
            Verdict::Next => {}
            other => return other,
        }
    }
    contents(x).await
}

/// Asks the location's contents until one answers.
pub(crate) async fn contents(x: &mut Exchange) -> Verdict {
    let location = x.location.clone();
    for content in &location.contents {
        match content.answer(x).verdict().await {
            Verdict::Next => {}
            other => return other,
        }
    }
    if x.text(x.request.uri).ends_with(b"/") {
        forbidden_directory(x);
        return Verdict::Status(403);
    }
    Verdict::Status(404)
}

fn forbidden_directory(x: &mut Exchange) {
    let path = crate::files::path(x);
    let path = session::log::Bytes(x.text(path));
    x.log_error(Level::Error, format_args!("directory index of \"{path}\" is forbidden"));
}

/// Whether a location has guards in the stages from `first` to `last`. Most have none, and then
/// not even the future is made that would ask them.
#[inline]
fn is_guarded(location: &Location, first: Stage, last: Stage) -> bool {
    let guard = location.guards.get(location.first_guard(first));
    guard.is_some_and(|guard| guard.stage() <= last)
}

/// Asks the guards of the stages from `first` to `last`. Access checks combine as `satisfy` says.
async fn guards(x: &mut Exchange, location: &Rc<Location>, first: Stage, last: Stage) -> Verdict {
    let any = location.settings.satisfy_any;
    let mut denied: Option<u16> = None;
    let mut allowed = false;
    for guard in &location.guards[location.first_guard(first)..] {
        let stage = guard.stage();
        if stage > last {
            break;
        }
        if stage > Stage::Access
            && let Some(code) = denied
        {
            return deny(x, code).await;
        }
        if stage == Stage::Access && (allowed || !x.is_main()) {
            continue;
        }
        let verdict = guard.check(x).verdict().await;
        match verdict {
            Verdict::Next if stage == Stage::Access && any => {
                allowed = true;
                denied = None;
                x.response.headers.remove(Known::WwwAuthenticate);
            }
            Verdict::Next | Verdict::Abstain => {}
            Verdict::Status(code @ (401 | 403 | 407)) if stage == Stage::Access && any => {
                // A check that asks for credentials outranks one that forbids.
                denied = denied.filter(|denied| *denied != 403).or(Some(code));
            }
            Verdict::Status(code @ (401 | 407)) if stage == Stage::Access => {
                return unauthorised(x, code).await;
            }
            other => return other,
        }
    }
    match denied {
        Some(code) if !allowed => deny(x, code).await,
        _ => Verdict::Next,
    }
}

/// Every access check has refused, and one of them would have been enough.
async fn deny(x: &mut Exchange, code: u16) -> Verdict {
    if code != 403 {
        return unauthorised(x, code).await;
    }
    x.log_error(Level::Error, format_args!("access forbidden by rule"));
    Verdict::Status(code)
}

/// Asks the client for credentials, after `auth_delay`.
async fn unauthorised(x: &mut Exchange, code: u16) -> Verdict {
    let delay_ms = x.location.settings.auth_delay_ms;
    if delay_ms == 0 {
        return Verdict::Status(code);
    }
    x.log_error(Level::Info, format_args!("delaying unauthorized request"));
    match hold(x, delay_ms).await {
        Verdict::Next => Verdict::Status(code),
        gone => gone,
    }
}

/// Sends the answer, logs it, and decides what becomes of the connection.
async fn finish(x: &mut Exchange) -> After {
    decide_persistence(x);
    while let Some(status) = filter(x) {
        if let Answered::Close = settle(x, Verdict::Status(status)).await {
            x.response.status = 444;
            conclude(x).await;
            return After::Close;
        }
    }
    let end = send(x).await;
    if let Some(stream) = x.stream.clone() {
        (x.sent.bytes, x.sent.head_bytes) = stream.sent();
        conclude(x).await;
        return match end {
            SendEnd::Complete => After::Keep { timeout_ms: 0, min_ms: 0 },
            SendEnd::ClientLost if x.sent.timed_out => After::Reset,
            SendEnd::ClientLost | SendEnd::Truncated => After::Close,
        };
    }
    if end != SendEnd::ClientLost && x.persistence == Persistence::Keep && x.body.is_pending() {
        // The body that nobody wanted stands between us and the next request.
        if !x.discard_body().await {
            x.persistence = Persistence::Close;
        }
    }
    let location = x.location.clone();
    conclude(x).await;
    let settings = &location.settings;
    if settings.tcp_nodelay && x.persistence == Persistence::Keep {
        x.connection.send_at_once();
    }
    match end {
        SendEnd::ClientLost if x.sent.timed_out && settings.reset_timedout => After::Reset,
        SendEnd::ClientLost => After::Close,
        SendEnd::Truncated => After::Close,
        SendEnd::Complete if x.persistence == Persistence::Keep => After::Keep {
            timeout_ms: settings.keepalive.timeout_ms,
            min_ms: settings.keepalive.min_timeout_ms,
        },
        SendEnd::Complete => {
            let likely = !x.body.is_over() || x.body.is_broken() || x.connection.has_leftover();
            let likely = likely || error_page::ends_connection(x.response.status);
            After::closing(settings, likely)
        }
    }
}

/// Applies the location's filters; the status to answer with instead, when one of them refuses.
pub(crate) fn filter(x: &mut Exchange) -> Option<u16> {
    let location = x.location.clone();
    for filter in &location.filters {
        filter.apply(x);
        if x.refused.is_some() {
            break;
        }
    }
    x.refused.take()
}

/// What the configuration has to say about keeping the connection.
fn decide_persistence(x: &mut Exchange) {
    if x.persistence == Persistence::Close {
        return;
    }
    let keepalive = &x.location.settings.keepalive;
    let age_ms = net::now().saturating_sub(x.connection.accepted_ms);
    let over = keepalive.timeout_ms == 0
        || u64::from(x.connection.requests.get()) >= keepalive.requests
        || age_ms >= keepalive.time_ms
        || x.connection.worker.is_ending()
        || x.body.is_broken()
        || is_unreliable_browser(x);
    if over {
        x.persistence = Persistence::Close;
    }
}

/// `keepalive_disable`: browsers that break on persistent connections.
fn is_unreliable_browser(x: &Exchange) -> bool {
    let keepalive = &x.location.settings.keepalive;
    if !keepalive.disable_msie6 && !keepalive.disable_safari {
        return false;
    }
    let Some(agent) = x.request.headers.value(Known::UserAgent) else { return false };
    let agent = x.text(agent);
    let find = |word: &[u8]| agent.windows(word.len()).position(|part| part == word);
    if keepalive.disable_msie6
        && x.request.method == Method::Post
        && let Some(at) = find(b"MSIE ")
        && !agent.windows(5).any(|part| part == b"Opera")
    {
        // MSIE 4, 5 and 6 without its service pack 2.
        let version = agent.get(at + 5).copied().unwrap_or(b'0');
        if matches!(version, b'4' | b'5') || (version == b'6' && find(b"SV1").is_none()) {
            return true;
        }
    }
    let mac = || find(b"Macintosh").is_some() || find(b"Mac OS X").is_some();
    keepalive.disable_safari && find(b"Safari/").is_some() && mac() && find(b"Chrome/").is_none()
}
