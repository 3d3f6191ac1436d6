//! Checking again and again: one task per server of a checked group, in the keeper process.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use balance::PeerIndex;
use net::{Address, Stream};
use session::answer::Fault;
use session::lifecycle::Lifecycle;
use session::log::{Level, Log, no_context};
use session::tls::Outgoing;

use super::Health;
use super::directives::Line;
use super::probe::{Patience, Probe};
use crate::Group;
use crate::timeline::What;

/// A check of a group, as one place of the configuration describes it.
pub(super) struct Check {
    group: Rc<Group>,
    line: Line,
    probe: Probe,
    patience: Patience,
    log: Log,
    secure: Option<(Outgoing, Box<str>)>,
    /// The servers that have a task.
    watched: RefCell<HashSet<PeerIndex>>,
    ended: Cell<bool>,
}

/// A check as the engines know it.
pub(super) struct Watch(pub(super) Rc<Check>);

impl Lifecycle for Watch {
    fn opened(&self) {
        self.0.prepare();
    }

    fn worker_began(&self, _: usize) {}

    fn worker_ends(&self) {
        self.0.end();
    }

    fn worker_died(&self, _: usize) {}

    fn wants_keeper(&self) -> bool {
        true
    }

    fn keeper_began(&self) {
        self.0.begin();
    }
}

/// What a task knows of its server.
struct Record {
    peer: PeerIndex,
    address: Address,
    health: Health,
    /// Checks in a row with the same outcome.
    run: u32,
    passed: bool,
    kept: Option<(Stream, u64)>,
}

impl Check {
    /// A check that did not begin.
    pub(super) fn new(
        group: Rc<Group>,
        line: Line,
        probe: Probe,
        patience: Patience,
        log: Log,
        secure: Option<(Outgoing, Box<str>)>,
    ) -> Rc<Check> {
        let (watched, ended) = (RefCell::default(), Cell::new(false));
        Rc::new(Check { group, line, probe, patience, log, secure, watched, ended })
    }

    /// Keeps requests away from servers that were never looked at, if the line says so. For the
    /// master, before there are workers.
    fn prepare(&self) {
        if self.line.mandatory {
            self.group.await_checks(self.line.persistent);
        }
    }

    /// Begins, in a process with a started driver.
    fn begin(self: &Rc<Check>) {
        let check = self.clone();
        net::spawn(async move {
            // Servers that come to the group later are found within an interval.
            while !check.ended.get() {
                check.watch();
                net::sleep(check.line.interval_ms).await;
            }
        });
    }

    /// No more verdicts from now on.
    fn end(&self) {
        self.ended.set(true);
    }

    /// Starts a task for each server that has none.
    fn watch(self: &Rc<Check>) {
        for peer in self.group.checkable() {
            if self.watched.borrow_mut().insert(peer) {
                let check = self.clone();
                net::spawn(async move {
                    check.follow(peer).await;
                    check.watched.borrow_mut().remove(&peer);
                });
            }
        }
    }

    /// Checks one server until it leaves the group.
    async fn follow(&self, peer: PeerIndex) {
        let Some(address) = self.group.address_of(peer) else { return };
        let health = self.group.health(peer);
        self.group.verdicts().join(self.id(), peer, health);
        let mut record = Record { peer, address, health, run: 0, passed: false, kept: None };
        loop {
            let due_ms = net::now() + self.line.interval_ms + self.jitter();
            let outcome = self.look(&mut record).await;
            if self.ended.get() || self.group.address_of(peer).as_ref() != Some(&record.address) {
                self.group.verdicts().leave(self.id(), peer);
                return;
            }
            self.judge(&mut record, outcome);
            net::sleep(due_ms.saturating_sub(net::now()).max(1)).await;
        }
    }

    /// Tells apart the checks of a group.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn jitter(&self) -> u64 {
        match self.line.jitter_ms {
            0 => 0,
            most => session::random::u64() % (most + 1),
        }
    }

    async fn look(&self, record: &mut Record) -> Result<(), Fault> {
        let address = match (&record.address, self.line.port) {
            (Address::Inet(address), Some(port)) => {
                let mut address = *address;
                address.set_port(port);
                Address::Inet(address)
            }
            (address, _) => address.clone(),
        };
        let now_ms = net::now();
        let kept = record.kept.take();
        let young = |born: u64| now_ms.saturating_sub(born) < self.line.keepalive_ms;
        let kept = kept.filter(|(_, born)| young(*born));
        let born = kept.as_ref().map_or(now_ms, |(_, born)| *born);
        let stream = kept.map(|(stream, _)| stream);
        let again = self.probe.look(&address, self.patience, stream, self.secure.as_ref()).await?;
        record.kept = again.filter(|_| self.line.keepalive_ms > 0).map(|stream| (stream, born));
        Ok(())
    }

    /// Counts an outcome, and tells the group when it makes a change.
    fn judge(&self, record: &mut Record, outcome: Result<(), Fault>) {
        let passed = outcome.is_ok();
        record.run = if record.passed == passed { record.run.saturating_add(1) } else { 1 };
        record.passed = passed;
        self.group.count_check(record.peer, passed);
        let enough = if passed { self.line.passes } else { self.line.fails };
        let next = if passed { Health::Well } else { Health::Ill };
        if record.run < enough || record.health == next {
            return;
        }
        let before = record.health;
        record.health = next;
        // Of several checks of one server all must pass.
        let all = self.group.verdicts().join(self.id(), record.peer, next);
        self.group.set_health(record.peer, all);
        self.tell(record, before, outcome);
    }

    fn tell(&self, record: &Record, before: Health, outcome: Result<(), Fault>) {
        let name = self.line.matching.as_deref().unwrap_or("");
        let (peer, group) = (&record.address, self.group.name());
        match outcome {
            Err(Fault { doing, reason }) => {
                let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                self.group.note(record.peer, What::Unhealthy, &format!("{doing}{reason}"));
                let message = format_args!(
                    "peer is unhealthy while {doing}{reason}, health check \"{name}\" of peer \
                     {peer} in upstream \"{group}\""
                );
                self.log.write(Level::Warn, None, message, &no_context);
            }
            Ok(()) if before != Health::Well => {
                let reason = format!("{} passed", self.line.passes);
                self.group.note(record.peer, What::Healthy, &reason);
                let message = format_args!(
                    "peer is healthy, health check \"{name}\" of peer {peer} in upstream \
                     \"{group}\""
                );
                self.log.write(Level::Notice, None, message, &no_context);
            }
            Ok(()) => {}
        }
    }
}
