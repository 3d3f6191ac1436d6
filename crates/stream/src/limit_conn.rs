//! `limit_conn` for sessions: what `session::limit_conn` decides, done to them.

use std::rc::Rc;

use config::Scope;
use session::limit_conn::{CountZones, Decision, Holds, Limits};
use session::text::Span;
use session::variables::Builtin;

use crate::compile::Compiler;
use crate::module::{Check, Module, Stage, Step, Verdict};
use crate::server::ServerBuilder;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    variables: &[Builtin::volatile(
        "limit_conn_status",
        status,
        "What became of the session: `PASSED`, `REJECTED` or `REJECTED_DRY_RUN`.",
    )],
    stream: Some(collect),
    server: Some(attach),
    ..Module::new(
        "stream_limit_conn",
        "Limits how many sessions may be under way at a time: `limit_conn` and its kin, which are \
         described for http.",
    )
};

/// The zones of the `stream` block while servers are compiled.
#[derive(Default)]
struct Known(Rc<CountZones>);

fn collect(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let zones = CountZones::compile(scope, c.zones, &mut c.variables);
    c.state::<Known>().0 = Rc::new(zones);
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    let known = c.state::<Known>().0.clone();
    if let Some(limits) = Limits::compile(scope, &known, c.zones) {
        builder.check(Limited(limits));
    }
}

/// What was decided about a session, and what it counts for until it is over.
struct Decided {
    decision: Decision,
    _holds: Holds,
}

fn status(s: &mut Session) -> Option<Span> {
    let text = s.state::<Decided>()?.decision.text()?;
    Some(s.arena.push(text.as_bytes()))
}

struct Limited(Limits);

impl Check for Limited {
    fn stage(&self) -> Stage {
        Stage::Preaccess
    }

    fn check<'a>(&'a self, s: &'a mut Session) -> Step<'a> {
        let (decision, holds) = self.0.check(s, net::now());
        if decision != Decision::Unlimited {
            s.keep(Decided { decision, _holds: holds });
        }
        Step::Now(match decision {
            Decision::Rejected(status) => Verdict::End(status),
            _ => Verdict::Next,
        })
    }
}
