//! `upstream` blocks for http, and the variables that tell what happened on the way to a peer
//! (nginx: ngx_http_upstream_module).

use crate::sticky;
use config::Scope;
use http::upstream_log::Attempt;
use http::variables::{Which, cookie_value, field_by_variable};
use http::{Compiler, Exchange, Module};
use session::text::Span;
use session::variables::Builtin;
use std::cell::RefCell;
use std::rc::Rc;
use upstream::resolver::Resolvers;
use upstream::{
    Attempts, Followed, Group, Groups, KeySource, PeerIndex, Surroundings, SystemNames,
};
use wire::http1::Known;

/// The module.
pub static MODULE: Module = Module {
    directives: upstream::DIRECTIVES,
    variables: VARIABLES,
    http: Some(compile),
    ..Module::new(
        "http_upstream",
        "Groups of servers that requests are passed to, and how one of them is chosen.",
    )
};

/// The groups of a configuration, shared by all features that pass requests on.
#[derive(Clone, Default)]
pub struct SharedGroups(pub Rc<RefCell<Groups>>);

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let resolvers = c.state::<Resolvers>().clone();
    let surroundings =
        Surroundings { names: &SystemNames, zones: c.zones, resolvers: &resolvers, logs: c.logs };
    let groups = Groups::compile(scope, &surroundings);
    groups.compile_keys(&mut |source| c.template(source));
    let shared = c.state::<SharedGroups>().clone();
    *shared.0.borrow_mut() = groups;
    c.follow(Rc::new(Followed::new("http", shared.0)));
}

/// Begins a request's way through a group: what it is balanced by is worked out once.
pub(crate) fn begin(x: &mut Exchange, group: &Rc<Group>) -> Attempts {
    let mut attempts = group.begin();
    match &group.choice().key {
        KeySource::Nothing => {}
        KeySource::Text(_) => {
            if let Some(template) = group.key() {
                let value = template.value(x);
                attempts.set_key(group.choice().key_of_text(x.text(value)));
            }
        }
        _ => {
            let choice = group.choice();
            let key = choice.key_of_addresses(x.client_address(), || x.connection.local());
            attempts.set_key(key);
        }
    }
    if let Some(sticky) = sticky::of(group) {
        sticky.bind(x, &mut attempts);
    }
    attempts
}

/// A peer was chosen for the next attempt.
pub(crate) fn chosen(x: &mut Exchange, group: &Group, peer: PeerIndex) {
    if let Some(sticky) = sticky::of(group) {
        sticky.chosen(x, group, peer);
    }
}

/// The head of the answer of the open attempt is there, and the log has its fields.
pub(crate) fn answered(x: &mut Exchange, attempts: &mut Attempts) {
    if let Some(last) = x.upstream_log().last() {
        let status = last.status.unwrap_or(0);
        attempts.tell_answer(status, last.bytes_sent, last.bytes_received);
    }
    let group = attempts.group().clone();
    if let (Some(sticky), Some(peer)) = (sticky::of(&group), attempts.current()) {
        sticky.answered(x, attempts, peer);
    }
}

type X = Exchange;

static VARIABLES: &[Builtin<Exchange>] = &[
    Builtin::volatile("upstream_addr", addr, "Addresses of the peers that were asked."),
    Builtin::volatile("upstream_status", status, "Statuses of the peers' answers."),
    Builtin::volatile(
        "upstream_connect_time",
        connect_time,
        "Seconds until each connection stood.",
    ),
    Builtin::volatile("upstream_header_time", header_time, "Seconds until each head was received."),
    Builtin::volatile(
        "upstream_response_time",
        response_time,
        "Seconds until each answer was received.",
    ),
    Builtin::volatile("upstream_response_length", response_length, "Bytes of the answers' bodies."),
    Builtin::volatile("upstream_bytes_received", bytes_received, "Bytes received from the peers."),
    Builtin::volatile("upstream_bytes_sent", bytes_sent, "Bytes sent to the peers."),
    Builtin::family("upstream_http_", http, "The last answer's field of that name."),
    Builtin::family("upstream_trailer_", trailer, "The last answer's trailer of that name."),
    Builtin::family("upstream_cookie_", cookie, "The cookie of that name set by the last answer."),
];

/// One value per attempt; ", " between attempts, " : " where an internal redirect lies between.
fn per_attempt(x: &mut X, mut write: impl FnMut(&mut X, &Attempt)) -> Option<Span> {
    let nth = |x: &X, i: usize| x.upstream.as_deref()?.attempts.get(i).copied();
    nth(x, 0)?;
    let mark = x.arena.mark();
    let mut i = 0;
    while let Some(attempt) = nth(x, i) {
        if i > 0 {
            x.arena.push(if attempt.after_redirect { b" : " } else { b", " });
        }
        write(x, &attempt);
        i += 1;
    }
    Some(x.arena.since(mark))
}

fn addr(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| {
        x.arena.copy(attempt.peer);
    })
}

fn number_or_dash(x: &mut X, value: Option<u64>) {
    match value {
        Some(value) => x.arena.number(value),
        None => x.arena.push(b"-"),
    };
}

fn seconds_or_dash(x: &mut X, ms: Option<u64>) {
    match ms {
        Some(ms) => http::variables::seconds(x, ms),
        None => x.arena.push(b"-"),
    };
}

fn status(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| number_or_dash(x, attempt.status.map(u64::from)))
}

fn connect_time(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| seconds_or_dash(x, attempt.connect_ms))
}

fn header_time(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| seconds_or_dash(x, attempt.header_ms))
}

fn response_time(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| seconds_or_dash(x, attempt.response_ms))
}

fn response_length(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| number_or_dash(x, Some(attempt.response_length)))
}

fn bytes_received(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| number_or_dash(x, Some(attempt.bytes_received)))
}

fn bytes_sent(x: &mut X) -> Option<Span> {
    per_attempt(x, |x, attempt| number_or_dash(x, Some(attempt.bytes_sent)))
}

fn http(x: &mut X, name: &str) -> Option<Span> {
    field_by_variable(x, Which::Upstream, name)
}

fn trailer(x: &mut X, name: &str) -> Option<Span> {
    field_by_variable(x, Which::UpstreamTrailers, name)
}

fn cookie(x: &mut X, name: &str) -> Option<Span> {
    let log = x.upstream.as_deref()?;
    log.headers.all(Known::SetCookie).find_map(|field| {
        let text = x.text(field.value);
        // What follows the first semicolon are the cookie's attributes.
        let pair = text.split(|b| *b == b';').next()?;
        let (from, to) = cookie_value(pair, name.as_bytes(), b';')?;
        Some(field.value.part(from, to))
    })
}
