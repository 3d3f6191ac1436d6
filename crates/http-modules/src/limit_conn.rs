//! `limit_conn` for http: what `session::limit_conn` decides, done to requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use config::Scope;
use http::{Compiler, Exchange, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use session::limit_conn::{CountZones, DIRECTIVES, Decision, Holds, Limits};
use session::text::Span;
use session::variables::Builtin;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: &[Builtin::volatile(
        "limit_conn_status",
        status,
        "What became of the request: `PASSED`, `REJECTED` or `REJECTED_DRY_RUN`.",
    )],
    http: Some(collect),
    location: Some(attach),
    ..Module::new("http_limit_conn", "Limits how many requests may be under way at a time.")
};

/// The zones of the `http` block while locations are compiled.
#[derive(Default)]
struct Known(Rc<CountZones>);

fn collect(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let zones = CountZones::compile(scope, c.zones, &mut c.variables);
    c.state::<Known>().0 = Rc::new(zones);
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let known = c.state::<Known>().0.clone();
    if let Some(limits) = Limits::compile(scope, &known, c.zones) {
        builder.guard(Limited(limits));
    }
}

/// What was decided about a request, and what it counts for until it is over.
#[derive(Default)]
struct Decided {
    decision: Cell<Option<Decision>>,
    holds: RefCell<Holds>,
}

fn status(x: &mut Exchange) -> Option<Span> {
    let text = x.peek_lasting::<Decided>()?.decision.get()?.text()?;
    Some(x.arena.push(text.as_bytes()))
}

struct Limited(Limits);

impl Guard for Limited {
    fn stage(&self) -> Stage {
        Stage::Limit
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if x.peek_lasting::<Decided>().is_some() {
            return Step::Now(Verdict::Next);
        }
        let (decision, holds) = self.0.check(x, net::now());
        if decision != Decision::Unlimited {
            let decided = x.lasting::<Decided>();
            decided.decision.set(Some(decision));
            decided.holds.replace(holds);
        }
        Step::Now(match decision {
            Decision::Rejected(status) => Verdict::Status(status),
            _ => Verdict::Next,
        })
    }
}
