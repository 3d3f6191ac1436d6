//! `upstream` blocks for stream, and the variables that tell what happened on the way to a peer
//! (nginx: ngx_stream_upstream_module).

use std::cell::RefCell;
use std::rc::Rc;

use config::Scope;
use session::text::Span;
use session::variables::Builtin;
use system::socket::Address;
use upstream::resolver::Resolvers;
use upstream::{Attempts, Followed, Group, Groups, KeySource, Surroundings, SystemNames};

use crate::compile::Compiler;
use crate::module::Module;
use crate::session::Session;
use crate::upstream_log::Attempt;
use crate::variables::seconds;

/// The feature.
pub(crate) static MODULE: Module = Module {
    variables: VARIABLES,
    stream: Some(compile),
    ..Module::new(
        "stream_upstream",
        "Groups of servers that sessions are passed to, and how one of them is chosen: `upstream` \
         and what stands in it, which are described for http.",
    )
};

/// The groups of a configuration.
#[derive(Clone, Default)]
pub(crate) struct SharedGroups(pub(crate) Rc<RefCell<Groups>>);

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let resolvers = c.state::<Resolvers>().clone();
    let surroundings =
        Surroundings { names: &SystemNames, zones: c.zones, resolvers: &resolvers, logs: c.logs };
    let groups = Groups::compile(scope, &surroundings);
    groups.compile_keys(&mut |source| c.template(source));
    let shared = c.state::<SharedGroups>().clone();
    *shared.0.borrow_mut() = groups;
    c.follow(Rc::new(Followed::new("stream", shared.0)));
}

/// Begins a session's way through a group: what it is balanced by is worked out once.
pub(crate) fn begin(s: &mut Session, group: &Rc<Group>) -> Attempts {
    let mut attempts = group.begin();
    match &group.choice().key {
        KeySource::Nothing => {}
        KeySource::Text(_) => {
            if let Some(template) = group.key() {
                let value = template.value(s);
                attempts.set_key(group.choice().key_of_text(s.text(value)));
            }
        }
        _ => {
            let local = || match s.local()? {
                Address::Inet(address) => Some(*address),
                Address::Unix(_) => None,
            };
            let choice = group.choice();
            attempts.set_key(choice.key_of_addresses(s.client_address(), local));
        }
    }
    attempts
}

static VARIABLES: &[Builtin<Session>] = &[
    Builtin::volatile("upstream_addr", addr, "Addresses of the peers that were tried."),
    Builtin::volatile(
        "upstream_bytes_received",
        |s| per_attempt(s, |s, attempt| number(s, attempt.bytes_received)),
        "Bytes received from each peer.",
    ),
    Builtin::volatile(
        "upstream_bytes_sent",
        |s| per_attempt(s, |s, attempt| number(s, attempt.bytes_sent)),
        "Bytes sent to each peer.",
    ),
    Builtin::volatile(
        "upstream_connect_time",
        |s| per_attempt(s, |s, attempt| time(s, attempt.connect_ms)),
        "Seconds until each connection stood.",
    ),
    Builtin::volatile(
        "upstream_first_byte_time",
        |s| per_attempt(s, |s, attempt| time(s, attempt.first_byte_ms)),
        "Seconds until the first byte came from each peer.",
    ),
    Builtin::volatile(
        "upstream_session_time",
        |s| per_attempt(s, |s, attempt| time(s, attempt.session_ms)),
        "Seconds that each peer was busy with the session.",
    ),
];

fn per_attempt(s: &mut Session, mut write: impl FnMut(&mut Session, Attempt)) -> Option<Span> {
    let nth = |s: &Session, i: usize| s.upstream.as_ref()?.attempts.get(i).copied();
    nth(s, 0)?;
    let mark = s.arena.mark();
    let mut i = 0;
    while let Some(attempt) = nth(s, i) {
        if i > 0 {
            s.arena.push(b", ");
        }
        write(s, attempt);
        i += 1;
    }
    Some(s.arena.since(mark))
}

fn addr(s: &mut Session) -> Option<Span> {
    per_attempt(s, |s, attempt| {
        s.arena.copy(attempt.peer);
    })
}

fn number(s: &mut Session, value: u64) {
    s.arena.number(value);
}

fn time(s: &mut Session, ms: Option<u64>) {
    match ms {
        Some(ms) => seconds(s, ms),
        None => s.arena.push(b"-"),
    };
}
