//! `status_zone` for http: what `session::status_zone` counts, told of requests.

use std::cell::RefCell;
use std::rc::Rc;

use config::{AnyDirective, Scope};
use http::{Compiler, Exchange, Guard, LocationBuilder, Logger, Module, Stage, Step, Verdict};
use session::contexts::{LOCATION, SERVER};
use session::status_zone::{Ended, STATUS_ZONE, StatusZone, StatusZones, Subject, UnderWay};

/// The feature.
pub static MODULE: Module = Module {
    directives: &[&STATUS_ZONE as &dyn AnyDirective],
    http: Some(collect),
    location: Some(attach),
    ..Module::new(
        "http_status_zone",
        "Counts what comes to servers and locations, for `api` and `prometheus`.",
    )
};

fn collect(c: &mut Compiler<'_>, _: &Scope<'_>) {
    let zones = c.state::<StatusZones>().clone();
    c.follow(Rc::new(zones));
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let zones = c.state::<StatusZones>().clone();
    let (mut of_location, mut of_server) = (None, None);
    let mut level = Some(scope.clone());
    while let Some(here) = level {
        if here.context() == SERVER {
            of_server = zones.compile(Subject::Server, &here, c.zones);
            break;
        }
        if here.context() == LOCATION && of_location.is_none() {
            of_location = zones.compile(Subject::Location, &here, c.zones);
        }
        level = here.parent();
    }
    if let Some(zone) = &of_server {
        builder.guard(Begun(zone.clone()));
    }
    for zone in [of_server, of_location].into_iter().flatten() {
        builder.logger(Over(zone));
    }
}

/// What a request counts for until it is over.
#[derive(Default)]
struct Held(RefCell<Option<UnderWay>>);

struct Begun(Rc<StatusZone>);

impl Guard for Begun {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if x.depth == 0 {
            x.lasting::<Held>().0.borrow_mut().get_or_insert_with(|| self.0.begin());
        }
        Step::Now(Verdict::Next)
    }
}

struct Over(Rc<StatusZone>);

impl Logger for Over {
    fn log(&self, x: &mut Exchange) {
        if x.depth > 0 {
            return;
        }
        if let Some(held) = x.peek_lasting::<Held>() {
            held.0.take();
        }
        let status = x.sent.logged_status.unwrap_or(x.response.status);
        self.0.end(Ended {
            status: x.sent.head.then_some(status),
            received: u64::from(x.request.head_bytes) + x.body.received,
            sent: x.sent.bytes,
        });
    }
}
