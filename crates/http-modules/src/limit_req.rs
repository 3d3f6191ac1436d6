//! `limit_req` for http: what `session::limit_req` decides, done to requests.

use std::cell::Cell;
use std::rc::Rc;

use config::Scope;
use http::{Compiler, Exchange, Guard, LocationBuilder, Module, Stage, Step, Verdict, hold};
use session::limit_req::{BucketZones, DIRECTIVES, Decision, Limits};
use session::text::Span;
use session::variables::Builtin;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: &[Builtin::volatile(
        "limit_req_status",
        status,
        "What became of the request: `PASSED`, `DELAYED`, `REJECTED`, `DELAYED_DRY_RUN` or \
         `REJECTED_DRY_RUN`.",
    )],
    http: Some(collect),
    location: Some(attach),
    ..Module::new("http_limit_req", "Limits how fast requests may come.")
};

/// The zones of the `http` block while locations are compiled.
#[derive(Default)]
struct Known(Rc<BucketZones>);

fn collect(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let zones = BucketZones::compile(scope, c.zones, &mut c.variables);
    c.state::<Known>().0 = Rc::new(zones);
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let known = c.state::<Known>().0.clone();
    if let Some(limits) = Limits::compile(scope, &known, c.zones) {
        builder.guard(Limited(limits));
    }
}

/// What was decided about a request; nothing limits it a second time.
#[derive(Default)]
struct Decided(Cell<Option<Decision>>);

fn status(x: &mut Exchange) -> Option<Span> {
    let text = x.peek_lasting::<Decided>()?.0.get()?.text()?;
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
        let decision = self.0.check(x, net::now());
        if decision != Decision::Unlimited {
            x.lasting::<Decided>().0.set(Some(decision));
        }
        match decision {
            Decision::Rejected(status) => Step::Now(Verdict::Status(status)),
            Decision::Delayed(ms) => Step::Later(Box::pin(hold(x, ms))),
            _ => Step::Now(Verdict::Next),
        }
    }
}
