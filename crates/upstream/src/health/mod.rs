//! Active checks: whether the servers of a group are well, asked again and again by one process.
//!
//! `directives` declares `health_check` and `match`, `rules` says what a good answer is, `probe`
//! looks once at one server, `monitor` does so for a whole group and tells it what it found. The
//! group must lie in a zone: the keeper writes there, and all workers read.

mod call;
pub mod directives;
mod monitor;
mod probe;
mod rules;
mod verdicts;

use config::{Scope, Span};
use session::contexts::LOCATION;
use session::lifecycle::Lifecycle;
use session::log::Log;
use session::tls::Outgoing;
use std::rc::Rc;

pub use balance::Health;
pub use directives::{DIRECTIVES, HEALTH_CHECK, Kind, Line};
use monitor::{Check, Watch};
pub use probe::{Patience, Probe};
pub use rules::Rules;

use crate::Group;
use call::Call;
use directives::{BODY, EXPECT, HEADER, MATCH_BLOCK, REQUIRE, SEND, STATUS};
use rules::Expect;
pub(crate) use verdicts::Verdicts;

/// What a place adds to its `health_check` line.
pub struct Place<'a> {
    /// The group that the place passes to.
    pub group: Rc<Group>,
    /// The head of a request of checks over HTTP, less its first line and the empty one:
    /// complete field lines. Unused in stream.
    pub fields: &'a [u8],
    /// The time limits of the place.
    pub patience: Patience,
    /// Where changes are logged.
    pub log: Log,
    /// How connections are secured, and the host that is wanted.
    pub secure: Option<(Outgoing, Box<str>)>,
}

/// The check that `line` asks for at a level; faults go to its sink.
pub fn compile(
    scope: &Scope<'_>,
    line: Line,
    span: Span,
    place: Place<'_>,
) -> Option<Rc<dyn Lifecycle>> {
    let Place { group, fields, patience, log, secure } = place;
    if secure.as_ref().is_some_and(|(outgoing, _)| outgoing.varies()) {
        scope.error(span, "\"health_check\" requires \"proxy_ssl\" directives without variables");
        return None;
    }
    if !group.is_shared() {
        let name = group.name();
        scope.error(span, format!("\"health_check\" requires a \"zone\" in upstream \"{name}\""));
        return None;
    }
    let rules = line.matching.as_ref().map(|name| (name, find_match(scope, name)));
    if let Some((name, None)) = &rules {
        scope.error(span, format!("match \"{name}\" not found"));
        return None;
    }
    let rules = rules.and_then(|(_, block)| block);
    let in_http = LOCATION == scope.context();
    let is_http = line.kind == Kind::Native && in_http;
    if let Some(reason) = misplaced(&line, in_http) {
        scope.error(span, reason);
        return None;
    }
    let probe = match line.kind {
        Kind::Protocol(protocol) if rules.is_none() => {
            Probe::Protocol { protocol, user: line.user.clone() }
        }
        Kind::Grpc if rules.is_none() => Probe::Grpc(Call::new(&line, fields, secure.is_some())),
        Kind::Protocol(_) | Kind::Grpc => {
            scope.error(span, "\"match\" has no meaning for this \"type\"");
            return None;
        }
        _ => match Wanted::of(rules.as_ref()) {
            Wanted::Mixed => {
                scope.error(span, "a \"match\" is about an HTTP answer or about bytes, not both");
                return None;
            }
            Wanted::Answer if !is_http => {
                scope.error(span, "\"match\" is about an HTTP answer, and none is asked for");
                return None;
            }
            Wanted::Bytes if is_http => {
                scope.error(span, "\"send\" and \"expect\" require \"type=tcp\"");
                return None;
            }
            _ if is_http => Probe::Http {
                request: request(&line, fields),
                rules: rules.as_ref().map(http_rules).unwrap_or_default(),
            },
            _ => {
                let (send, expect) = rules.as_ref().map(bytes).unwrap_or_default();
                if line.udp && send.is_empty() {
                    scope.error(span, "\"udp\" requires a \"match\" with \"send\"");
                    return None;
                }
                if line.udp { Probe::Udp { send, expect } } else { Probe::Tcp { send, expect } }
            }
        },
    };
    Some(Rc::new(Watch(Check::new(group, line, probe, patience, log, secure))))
}

/// Why a line has no meaning where it stands.
fn misplaced(line: &Line, in_http: bool) -> Option<&'static str> {
    let is_http = line.kind == Kind::Native && in_http;
    let asks_http = line.keepalive_ms > 0 || &*line.uri != "/";
    match () {
        () if in_http && line.udp => Some("\"udp\" has no meaning in http"),
        () if !in_http && line.kind == Kind::Grpc => Some("\"type=grpc\" has no meaning in stream"),
        () if asks_http && !is_http => {
            Some("\"uri\" and \"keepalive_time\" are for checks over HTTP")
        }
        () => None,
    }
}

/// The `match` block of that name, which stands on the level of the engine.
fn find_match<'t>(scope: &Scope<'t>, name: &str) -> Option<Scope<'t>> {
    let mut level = Some(scope.clone());
    while let Some(here) = level {
        let found = here.blocks(&MATCH_BLOCK).into_iter().find(|(found, _)| found == name);
        if let Some((_, block)) = found {
            return Some(block);
        }
        level = here.parent();
    }
    None
}

/// What a `match` block is about.
enum Wanted {
    Nothing,
    Answer,
    Bytes,
    Mixed,
}

impl Wanted {
    fn of(block: Option<&Scope<'_>>) -> Wanted {
        let Some(block) = block else { return Wanted::Nothing };
        let answer = block.has_local(&STATUS)
            || block.has_local(&HEADER)
            || block.has_local(&REQUIRE)
            || block.has_local(&BODY);
        let bytes = block.has_local(&SEND) || block.has_local(&EXPECT);
        match (answer, bytes) {
            (false, false) => Wanted::Nothing,
            (true, false) => Wanted::Answer,
            (false, true) => Wanted::Bytes,
            (true, true) => Wanted::Mixed,
        }
    }
}

fn http_rules(block: &Scope<'_>) -> Rules {
    Rules {
        status: block.local(&STATUS),
        headers: block.all_local(&HEADER),
        required: block.all_local(&REQUIRE).concat(),
        body: block.local(&BODY),
    }
}

fn bytes(block: &Scope<'_>) -> (Box<[u8]>, Option<Expect>) {
    (block.local(&SEND).unwrap_or_default().into(), block.local(&EXPECT))
}

fn request(line: &Line, fields: &[u8]) -> Box<[u8]> {
    let connection = if line.keepalive_ms > 0 { "" } else { "Connection: close\r\n" };
    let mut head = format!("GET {} HTTP/1.1\r\n", line.uri).into_bytes();
    head.extend_from_slice(fields);
    head.extend_from_slice(connection.as_bytes());
    head.extend_from_slice(b"\r\n");
    head.into()
}
