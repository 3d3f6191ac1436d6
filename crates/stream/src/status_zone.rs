//! `status_zone` for stream: what `session::status_zone` counts, told of sessions.

use std::cell::Cell;
use std::rc::Rc;

use config::Scope;
use session::status_zone::{Ended, StatusZone, StatusZones, Subject, UnderWay};

use crate::compile::Compiler;
use crate::module::{Check, Module, Stage, Step, Verdict};
use crate::server::ServerBuilder;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    stream: Some(collect),
    server: Some(attach),
    ..Module::new(
        "stream_status_zone",
        "Counts what comes to servers: `status_zone`, which is described for http.",
    )
};

fn collect(c: &mut Compiler<'_>, _: &Scope<'_>) {
    let zones = c.state::<StatusZones>().clone();
    c.follow(Rc::new(zones));
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    let zones = c.state::<StatusZones>().clone();
    let Some(zone) = zones.compile(Subject::StreamServer, scope, c.zones) else { return };
    builder.check(Begun(zone.clone()));
    builder.logger(move |s| {
        if let Some(held) = s.state::<Held>() {
            held.0.take();
        }
        zone.end(Ended {
            status: (s.status != 0).then_some(s.status),
            received: s.counts.from_first.get(),
            sent: s.counts.to_first.get(),
        });
    });
}

/// What a session counts for until it is over.
struct Held(Cell<Option<UnderWay>>);

struct Begun(Rc<StatusZone>);

impl Check for Begun {
    fn stage(&self) -> Stage {
        Stage::PostAccept
    }

    fn check<'a>(&'a self, s: &'a mut Session) -> Step<'a> {
        s.keep(Held(Cell::new(Some(self.0.begin()))));
        Step::Now(Verdict::Next)
    }
}
