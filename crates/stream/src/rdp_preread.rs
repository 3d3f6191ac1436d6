//! `rdp_preread`: the cookie of Remote Desktop clients, by which sessions find their server again
//! (HAProxy: `rdp-cookie`).

use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use session::contexts::{STREAM, STREAM_SERVER};
use session::text::Span;
use session::variables::Builtin;
use wire::rdp::{Seen, parse};

use crate::compile::Compiler;
use crate::module::{Look, Module, Preread};
use crate::server::ServerBuilder;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: &[
        Builtin::volatile("rdp_cookie", value, "The value of a Remote Desktop client's cookie."),
        Builtin::family(
            "rdp_cookie_",
            value_of,
            "The value of that cookie, `mstshash` or `msts`, of a Remote Desktop client.",
        ),
    ],
    server: Some(attach),
    ..Module::new("stream_rdp_preread", "Reads the cookie of Remote Desktop clients.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&RDP_PREREAD];

const PLACES: &[Context] = &[STREAM, STREAM_SERVER];

static RDP_PREREAD: Directive<bool> = Directive::new("rdp_preread", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("rdp_preread on | off;")
    .text(
        "Whether the first packet of a Remote Desktop connection is read for its cookie before \
         the session is served: `$rdp_cookie` has its value, `$rdp_cookie_mstshash` only if it \
         has that name. For `hash $rdp_cookie` in an `upstream` block.",
    )
    .example("rdp_preread on;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    if scope.get(&RDP_PREREAD) {
        builder.preread(RdpPreread);
    }
}

struct RdpPreread;

/// The cookie that was found.
struct Cookie {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Preread for RdpPreread {
    fn look(&self, s: &mut Session, came: &[u8]) -> Look {
        match parse(came) {
            Seen::Partial => Look::More,
            Seen::Other => Look::Declined,
            Seen::Cookie { name, value } => {
                s.keep(Cookie { name: name.into(), value: value.into() });
                Look::Done
            }
        }
    }
}

fn value(s: &mut Session) -> Option<Span> {
    let value = s.state::<Cookie>()?.value.clone();
    Some(s.arena.push(&value))
}

fn value_of(s: &mut Session, name: &str) -> Option<Span> {
    let cookie = s.state::<Cookie>()?;
    cookie.name.eq_ignore_ascii_case(name.as_bytes()).then_some(())?;
    value(s)
}
