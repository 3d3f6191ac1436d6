//! The backend's request: written straight into the send buffer by a plan made at load time.

use super::directives::{self as d, HttpVersion};
use super::settings::{Settings, Speech};
use super::target::{self, Resolved};
use crate::sticky::{self, Sticky};
use config::{Directive, Scope};
use http::{Compiler, Exchange, Field};
use session::text::{Span, push_number};
use session::variables::{Segment, Template};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::ops::Deref;
use wire::http1::{Known, token};

/// Which fields a request gets, compiled from `proxy_set_header` and the defaults.
pub(super) struct Plan {
    pub(super) version: HttpVersion,
    /// Fields set here, in order, each name with its colon; the client's fields of these names are
    /// not passed on.
    set: Vec<(Box<[u8]>, Template)>,
    /// The value of Host, when set.
    host: Option<Template>,
    /// Content-Length or Transfer-Encoding are ours unless the configuration sets them.
    own_length: bool,
    own_encoding: bool,
    skip_known: u128,
    skip_others: Vec<Box<[u8]>>,
    pass_fields: bool,
    /// `TE: trailers` is passed on.
    passes_trailers: bool,
}

/// The fields behind a request's body that go to the backend, as they go there. Fields that mean
/// something in a head do not belong there (RFC 9110 section 6.5.1), and what the configuration
/// sets is not to be said again by the client.
pub(super) fn trailers(settings: &Settings, x: &Exchange) -> Vec<Field> {
    let Speech::Http(plan) = &settings.speech else { return Vec::new() };
    let passes = |field: &&Field| {
        field.known == Known::Other && !plan.skips(field.known, field.name(&x.arena))
    };
    x.body.trailers.iter().filter(passes).copied().collect()
}

/// How the body of a request is told to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
}

impl Plan {
    pub(super) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>, version: HttpVersion) -> Plan {
        let pass_fields = scope.get(&d::PROXY_PASS_REQUEST_HEADERS);
        Plan { pass_fields, ..Plan::with_fields(c, scope, version, &d::PROXY_SET_HEADER) }
    }

    /// The plan of a gRPC call, which wants to be told of trailers (`TE: trailers`).
    pub(super) fn of_calls(
        c: &mut Compiler<'_>,
        scope: &Scope<'_>,
        set_header: &Directive<(Vec<u8>, config::Template)>,
    ) -> Plan {
        let plan = Plan::with_fields(c, scope, HttpVersion::Http2, set_header);
        Plan { passes_trailers: true, ..plan }
    }

    fn with_fields(
        c: &mut Compiler<'_>,
        scope: &Scope<'_>,
        version: HttpVersion,
        set_header: &Directive<(Vec<u8>, config::Template)>,
    ) -> Plan {
        let mut plan = Plan {
            version,
            passes_trailers: false,
            set: Vec::new(),
            host: None,
            own_length: true,
            own_encoding: true,
            skip_known: 0,
            skip_others: Vec::new(),
            pass_fields: true,
        };
        // Hop-by-hop fields (RFC 9110 section 7.6.1) and those that we decide about.
        for known in [
            Known::Host,
            Known::Connection,
            Known::ProxyConnection,
            Known::ContentLength,
            Known::TransferEncoding,
            Known::Te,
            Known::KeepAlive,
            Known::Expect,
            Known::Upgrade,
        ] {
            plan.skip_known |= known.bit();
        }
        for (name, source) in scope.all(set_header) {
            let known = Known::of(&name);
            match known {
                Known::Other => plan.skip_others.push(name.as_slice().into()),
                known => plan.skip_known |= known.bit(),
            }
            plan.own_length &= known != Known::ContentLength;
            plan.own_encoding &= known != Known::TransferEncoding;
            let value = c.template(&source);
            if value.as_constant() == Some(b"") {
                if known == Known::Host {
                    plan.host = Some(value);
                }
                continue;
            }
            match known {
                Known::Host => plan.host = Some(value),
                _ => plan.set.push(([&name[..], b": "].concat().into(), value)),
            }
        }
        plan
    }

    fn skips(&self, known: Known, name: &[u8]) -> bool {
        match known {
            Known::Other => self.skip_others.iter().any(|other| name.eq_ignore_ascii_case(other)),
            known => self.skip_known & known.bit() != 0,
        }
    }
}

/// Bytes that a vector may have room for and still be kept.
const LARGEST_KEPT: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes in a vector that is used again for the next request: mostly they leave at once.
pub(super) struct Text(Vec<u8>);

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Text {
        Text(bytes)
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if bytes.capacity() > LARGEST_KEPT {
            return;
        }
        bytes.clear();
        // At the end of a thread nobody needs it any more.
        let _ = SCRATCH.try_with(|kept| *kept.borrow_mut() = bytes);
    }
}

/// A request's head as it goes to a backend.
pub(super) struct Head {
    pub(super) bytes: Text,
    /// The target, for the error log's URL.
    pub(super) target: Span,
    /// The method is HEAD: the answer has no body.
    pub(super) is_head: bool,
    /// The client asked for another protocol.
    pub(super) upgrade: bool,
    /// With HTTP/2: the host is told by a field of its own rather than by `:authority`.
    pub(super) keeps_host: bool,
}

/// Writes the head of the request for `resolved`.
pub(super) fn head(
    settings: &Settings,
    plan: &Plan,
    x: &mut Exchange,
    resolved: &Resolved,
    framing: BodyFraming,
) -> Head {
    let method = match &settings.method {
        Some(template) => template.value(x),
        None => x.request.method_text,
    };
    let target = resolved.path.unwrap_or_else(|| target::kept(x));
    let mut out = SCRATCH.with_borrow_mut(std::mem::take);
    out.extend_from_slice(x.text(method));
    out.push(b' ');
    if !x.text(target).starts_with(b"/") {
        out.push(b'/');
    }
    out.extend_from_slice(x.text(target));
    out.extend_from_slice(match plan.version {
        HttpVersion::Http10 => b" HTTP/1.0\r\n",
        // Frames are made of this (`http2`).
        HttpVersion::Http11 | HttpVersion::Http2 => b" HTTP/1.1\r\n",
    });
    host_field(plan, x, resolved, &mut out);
    for (name, value) in &plan.set {
        let start = out.len();
        out.extend_from_slice(name);
        let from = out.len();
        append(value, x, &mut out);
        match out.len() == from {
            true => out.truncate(start),
            false => out.extend_from_slice(b"\r\n"),
        }
    }
    framing_fields(plan, framing, &mut out);
    let passes_te = plan.passes_trailers
        && !plan.set.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"te: "));
    let te = x.request.headers.value(Known::Te).filter(|_| passes_te);
    if te.is_some_and(|te| token::has_token(x.text(te), "trailers")) {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    if plan.pass_fields {
        let hidden = sticky::of(&resolved.group).and_then(Sticky::hidden_cookie);
        client_fields(plan, x, hidden, &mut out);
    }
    out.extend_from_slice(b"\r\n");
    let is_head = x.text(method).eq_ignore_ascii_case(b"HEAD");
    let upgrade = x.request.headers.find(Known::Upgrade).is_some();
    let keeps_host = plan.passes_trailers && plan.host.is_some();
    Head { bytes: Text(out), target, is_head, upgrade, keeps_host }
}

/// Appends a template's value without a detour through the arena.
fn append(template: &Template, x: &mut Exchange, out: &mut Vec<u8>) {
    template.for_each(x, |x, segment| match segment {
        Segment::Text(text) => out.extend_from_slice(text),
        Segment::Value(Some(span)) => out.extend_from_slice(x.arena.text(span)),
        Segment::Value(None) => {}
    });
}

fn host_field(plan: &Plan, x: &mut Exchange, resolved: &Resolved, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"Host: ");
    let from = out.len();
    if let Some(host) = &plan.host {
        append(host, x, out);
    }
    // HTTP/1.1 requires a Host (RFC 9112 section 3.2): an empty one gives way to the default.
    if out.len() == from && (plan.host.is_none() || plan.version != HttpVersion::Http10) {
        out.extend_from_slice(x.arena.text(resolved.host));
    }
    match out.len() == from {
        true => out.truncate(start),
        false => out.extend_from_slice(b"\r\n"),
    }
}

fn framing_fields(plan: &Plan, framing: BodyFraming, out: &mut Vec<u8>) {
    match framing {
        BodyFraming::Length(length) if plan.own_length => {
            out.extend_from_slice(b"Content-Length: ");
            push_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked if plan.own_encoding => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        _ => {}
    }
}

/// Values of Connection that name other fields: those concern the client's connection only (RFC
/// 9110 section 7.6.1). Nearly always there is none.
fn listed_by_connection(x: &Exchange) -> SmallVec<[&[u8]; 1]> {
    const USUAL: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
    let is_usual = |t: &[u8]| USUAL.iter().any(|usual| t.eq_ignore_ascii_case(usual));
    let values = x.request.headers.all(Known::Connection).map(|field| x.text(field.value));
    values.filter(|value| !token::tokens(value).all(is_usual)).collect()
}

fn client_fields(plan: &Plan, x: &Exchange, hidden: Option<&[u8]>, out: &mut Vec<u8>) {
    let arena = &x.arena;
    let listed = listed_by_connection(x);
    let mut lines = Lines { arena: arena.bytes(), from: 0, to: 0 };
    for field in x.request.headers.iter() {
        let name = field.name(arena);
        if plan.skips(field.known, name) {
            continue;
        }
        if listed.is_empty()
            && (hidden.is_none() || field.known != Known::Cookie)
            && lines.take(field, out)
        {
            continue;
        }
        lines.flush(out);
        if listed.iter().any(|value| token::tokens(value).any(|t| t.eq_ignore_ascii_case(name))) {
            continue;
        }
        let start = out.len();
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        let value = arena.text(field.value);
        match hidden.filter(|_| field.known == Known::Cookie) {
            None => out.extend_from_slice(value),
            Some(hidden) if sticky::without(value, hidden, out) => {}
            Some(_) => {
                out.truncate(start);
                continue;
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    lines.flush(out);
}

/// Field lines that go on as they came, next to each other: copied all at once.
struct Lines<'a> {
    arena: &'a [u8],
    from: usize,
    to: usize,
}

impl Lines<'_> {
    /// Adds a field's line, if it stands in the arena as it is to be sent.
    #[inline]
    fn take(&mut self, field: &Field, out: &mut Vec<u8>) -> bool {
        let (name, value) = (field.name, field.value);
        let colon = (name.at + name.len) as usize;
        let end = (value.at + value.len) as usize;
        let is_plain = !name.is_empty()
            && value.at as usize == colon + 2
            && self.arena.get(colon..colon + 2) == Some(b": ")
            && self.arena.get(end..end + 2) == Some(b"\r\n");
        if is_plain {
            if name.at as usize != self.to {
                self.flush(out);
                self.from = name.at as usize;
            }
            self.to = end + 2;
        }
        is_plain
    }

    #[inline]
    fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.arena.get(self.from..self.to).unwrap_or_default());
        (self.from, self.to) = (0, 0);
    }
}
