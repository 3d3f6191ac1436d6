//! `limit_conn`: how many requests or sessions of a key may be under way at a time (nginx:
//! ngx_http_limit_conn_module).
//!
//! The counts lie in a zone that all workers share. Beside each count stands how much of it
//! belongs to which worker, so that what a worker left behind when it was killed can be taken
//! back: before a request is refused, and when the zone is full. What is counted is given back
//! when its [`Holds`] are dropped.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use smallvec::SmallVec;
use system::shared::{is_dead, own_mark};

use crate::contexts::{HTTP, LOCATION, SERVER, STREAM, STREAM_SERVER};
use crate::limit_req::{no_zone, read_level, read_status, unknown};
use crate::log::{Bytes, Level};
use crate::table::{Entries, Reference, Table};
use crate::text::Span;
use crate::variables::{Subject, Template, Variables};
use crate::zones::{Kind, NamedZone, ZoneSize, Zones, read_zone};

/// Levels of requests and of sessions.
const PLACES: &[Context] = &[HTTP, SERVER, LOCATION, STREAM, STREAM_SERVER];

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[
    &LIMIT_CONN_ZONE,
    &LIMIT_CONN,
    &LIMIT_CONN_LOG_LEVEL,
    &LIMIT_CONN_STATUS,
    &LIMIT_CONN_DRY_RUN,
];

/// `limit_conn_zone`.
pub static LIMIT_CONN_ZONE: Directive<ZoneLine> =
    Directive::new("limit_conn_zone", &[HTTP, STREAM], read_zone_line)
        .takes(Arity::Exactly(2))
        .many()
        .syntax("limit_conn_zone KEY zone=NAME:SIZE;")
        .text(
            "Declares a zone of memory, shared by all workers, that counts what is under way for \
             each value of KEY. KEY may hold variables; what has an empty one is not counted. A \
             megabyte has room for about 7 000 addresses at a time; when it is full, requests \
             with further keys are refused.",
        )
        .example("limit_conn_zone $binary_remote_addr zone=addresses:10m;");

/// `limit_conn`.
pub static LIMIT_CONN: Directive<LimitLine> = Directive::new("limit_conn", PLACES, read_limit)
    .takes(Arity::Exactly(2))
    .many()
    .syntax("limit_conn NAME NUMBER;")
    .text(
        "Lets at most NUMBER requests with the same key of the zone NAME be under way at a time; \
         more are refused. A request counts from when its head was read until its answer was \
         sent, so that idle connections do not count; a TCP or UDP session counts until it ends, \
         and one too many is closed. Several lines hold together. A level that \
         has no such line has those of the level around it.",
    )
    .example("limit_conn addresses 10;");

/// `limit_conn_log_level`.
pub static LIMIT_CONN_LOG_LEVEL: Directive<Level> =
    Directive::new("limit_conn_log_level", PLACES, read_level)
        .default("error")
        .syntax("limit_conn_log_level info | notice | warn | error;")
        .text("How a request that is refused shows in the error log.")
        .example("limit_conn_log_level warn;");

/// `limit_conn_status`.
pub static LIMIT_CONN_STATUS: Directive<u64> =
    Directive::new("limit_conn_status", &[HTTP, SERVER, LOCATION], read_status)
        .default("503")
        .syntax("limit_conn_status CODE;")
        .text("The status that answers requests which are refused, 400 to 599.")
        .example("limit_conn_status 429;");

/// `limit_conn_dry_run`.
pub static LIMIT_CONN_DRY_RUN: Directive<bool> =
    Directive::new("limit_conn_dry_run", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("limit_conn_dry_run on | off;")
        .text(
            "Counts and logs as if requests were limited, but refuses none. \
             `$limit_conn_status` tells what would have happened.",
        )
        .example("limit_conn_dry_run on;");

/// What `limit_conn_zone` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneLine {
    /// What is counted.
    pub key: config::Template,
    /// The key as written.
    pub key_text: String,
    /// The zone.
    pub zone: ZoneSize,
}

/// What `limit_conn` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitLine {
    /// The zone's name.
    pub zone: String,
    /// How many may be under way.
    pub most: u16,
}

fn read_zone_line(args: &Args<'_>) -> Result<ZoneLine, Invalid> {
    let key = read::template_at(args, 0)?;
    let zone = read_zone(args, 1)?.ok_or_else(|| unknown(args, 1))?;
    if zone.name.is_empty() {
        return Err(no_zone(args));
    }
    Ok(ZoneLine { key, key_text: args.str(0).into_owned(), zone })
}

fn read_limit(args: &Args<'_>) -> Result<LimitLine, Invalid> {
    let number = read::parse_number(args.word(1).bytes()).filter(|number| *number > 0);
    let invalid =
        || Invalid::new(format!("invalid number of connections \"{}\"", args.str(1))).at(1);
    let most = u16::try_from(number.ok_or_else(invalid)?)
        .map_err(|_| Invalid::new("connection limit must be less 65536").at(1))?;
    Ok(LimitLine { zone: args.str(0).into_owned(), most })
}

/// Names of the decisions that the table of a zone counts, in its order.
pub static TALLIES: [&str; 3] = ["passed", "rejected", "rejected_dry_run"];

static KIND: Kind = Kind {
    directive: "limit_conn_zone",
    title: "limit_conn_zone",
    prepare: Table::prepare,
    migrate: None,
};

/// A zone with its counts.
struct Counts {
    named: Rc<NamedZone>,
    key: Template,
    table: OnceCell<Table>,
    /// Workers that were alive when they were looked for last, and when that was.
    alive: RefCell<Vec<(u64, u64)>>,
    /// When the whole zone was searched for what dead workers left.
    swept_ms: Cell<Option<u64>>,
}

/// For so long the last look at whether a worker lives is believed.
const BELIEVED_MS: u64 = 100;
/// The whole zone is searched no more often.
const SWEEP_MS: u64 = 1_000;

/// The zones of a level while limits are compiled.
#[derive(Default)]
pub struct CountZones(HashMap<String, Rc<Counts>>);

impl CountZones {
    /// Declares the zones of a level. Faults go to the scope.
    pub fn compile<X>(scope: &Scope<'_>, zones: &Zones, table: &mut Variables<X>) -> CountZones {
        let mut found = CountZones::default();
        for (line, span) in scope.nodes_local(&LIMIT_CONN_ZONE) {
            let ZoneSize { name, size } = &line.zone;
            let declared = zones.declare(name, *size, &KIND);
            let bound = declared.and_then(|named| named.bind(&line.key_text).map(|()| named));
            match bound {
                Ok(named) => {
                    let counts = Counts {
                        named,
                        key: Template::compile(&line.key, table),
                        table: OnceCell::new(),
                        alive: RefCell::default(),
                        swept_ms: Cell::new(None),
                    };
                    found.0.insert(name.clone(), Rc::new(counts));
                }
                Err(reason) => scope.error(span, reason),
            }
        }
        found
    }
}

/// The limits of one location.
pub struct Limits {
    list: Box<[(Rc<Counts>, u16)]>,
    level: Level,
    status: u16,
    dry_run: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No limit has anything to say about it.
    Unlimited,
    /// It goes on, and counts.
    Passed,
    /// It is answered with this status.
    Rejected(u16),
    /// It goes on, but would have been refused.
    RejectedDryRun,
}

impl Decision {
    /// The value of `$limit_conn_status`.
    pub fn text(self) -> Option<&'static str> {
        Some(match self {
            Decision::Unlimited => return None,
            Decision::Passed => "PASSED",
            Decision::Rejected(_) => "REJECTED",
            Decision::RejectedDryRun => "REJECTED_DRY_RUN",
        })
    }
}

/// What a request counts for. Dropping it gives everything back.
#[derive(Default)]
pub struct Holds(SmallVec<[(Rc<Counts>, Reference); 2]>);

impl Drop for Holds {
    fn drop(&mut self) {
        for (counts, reference) in self.0.drain(..) {
            counts.release(reference);
        }
    }
}

impl Limits {
    /// The limits that hold in a block; `None` when there are none. Faults go to the scope.
    pub fn compile(scope: &Scope<'_>, known: &CountZones, zones: &Zones) -> Option<Limits> {
        let level = scope.get(&LIMIT_CONN_LOG_LEVEL);
        // It was checked to be between 400 and 599.
        let status = scope.get(&LIMIT_CONN_STATUS) as u16;
        let dry_run = scope.get(&LIMIT_CONN_DRY_RUN);
        for (line, span) in scope.nodes_local(&LIMIT_CONN) {
            if let Err(reason) = zones.declare(&line.zone, 0, &KIND) {
                scope.error(span, reason);
            }
        }
        let mut list: Vec<(Rc<Counts>, u16)> = Vec::new();
        for (line, span) in scope.nodes(&LIMIT_CONN) {
            // A zone that nobody declares is found when all was read.
            let Some(counts) = known.0.get(&line.zone) else { continue };
            if list.iter().any(|(other, _)| Rc::ptr_eq(other, counts)) {
                scope.error(span, "\"limit_conn\" directive is duplicate");
                continue;
            }
            list.push((counts.clone(), line.most));
        }
        let limits = Limits { list: list.into_boxed_slice(), level, status, dry_run };
        (!limits.list.is_empty()).then_some(limits)
    }

    /// Counts a request at `now_ms` of the monotonic clock, and decides about it. The error log
    /// is told of one that is refused. What was counted is in the [`Holds`].
    pub fn check<X: Subject>(&self, x: &mut X, now_ms: u64) -> (Decision, Holds) {
        let mut holds = Holds::default();
        let mut decision = Decision::Unlimited;
        for (counts, most) in &self.list {
            let Some(key) = counts.key(x) else { continue };
            decision = Decision::Passed;
            match counts.acquire(x.arena().text(key), u64::from(*most), now_ms) {
                Acquired::Hold(reference) => {
                    counts.tell(Decision::Passed);
                    holds.0.push((counts.clone(), reference));
                }
                Acquired::Unopened => {}
                Acquired::NoRoom => return (counts.tell(self.reject()), Holds::default()),
                Acquired::TooMany => {
                    let dry = if self.dry_run { ", dry run," } else { "" };
                    let zone = counts.named.name();
                    let message = format_args!("limiting connections{dry} by zone \"{zone}\"");
                    x.complain(self.level, message);
                    return (counts.tell(self.reject()), Holds::default());
                }
            }
        }
        (decision, holds)
    }

    fn reject(&self) -> Decision {
        if self.dry_run { Decision::RejectedDryRun } else { Decision::Rejected(self.status) }
    }
}

/// The outcome of counting one more.
enum Acquired {
    Hold(Reference),
    TooMany,
    NoRoom,
    /// The configuration was never put to use.
    Unopened,
}

/// Values of an entry: how many are under way, and the first of the cells that say whose.
const TOTAL: usize = 0;
const FIRST: usize = 1;

/// Words of such a cell: the next one, how many, and the mark of the worker.
mod share {
    pub(super) const NEXT: usize = 0;
    pub(super) const COUNT: usize = 1;
    pub(super) const MARK: usize = 2;
}

impl Counts {
    /// Counts a decision that this zone was the reason of, in the order of [`TALLIES`].
    fn tell(&self, decision: Decision) -> Decision {
        let at = match decision {
            Decision::Unlimited => return decision,
            Decision::Passed => 0,
            Decision::Rejected(_) => 1,
            Decision::RejectedDryRun => 2,
        };
        if let Some(table) = self.table() {
            table.tally(at);
        }
        decision
    }

    /// The key of a request; `None` when it is not counted.
    fn key<X: Subject>(&self, x: &mut X) -> Option<Span> {
        let key = self.key.value(x);
        if key.len > 255 {
            let value = x.arena().text(key).to_vec();
            let (name, value) = (self.named.key(), Bytes(&value));
            let message =
                format_args!("the value of the \"{name}\" key is more than 255 bytes: \"{value}\"");
            x.complain(Level::Error, message);
            return None;
        }
        (!key.is_empty()).then_some(key)
    }

    fn table(&self) -> Option<&Table> {
        if self.table.get().is_none() {
            let table = Table::new(self.named.memory()?).ok()?;
            let _ = self.table.set(table);
        }
        self.table.get()
    }

    fn acquire(&self, key: &[u8], most: u64, now_ms: u64) -> Acquired {
        let Some(table) = self.table() else { return Acquired::Unopened };
        let hash = table.hash(key);
        if let Some(acquired) = self.try_acquire(table, hash, key, most, now_ms) {
            return acquired;
        }
        let recently = |swept: u64| now_ms.saturating_sub(swept) < SWEEP_MS;
        if self.swept_ms.get().is_some_and(recently) {
            return Acquired::NoRoom;
        }
        self.swept_ms.set(Some(now_ms));
        self.sweep(table, now_ms);
        self.try_acquire(table, hash, key, most, now_ms).unwrap_or(Acquired::NoRoom)
    }

    /// `None` when there is no room.
    fn try_acquire(
        &self,
        table: &Table,
        hash: u64,
        key: &[u8],
        most: u64,
        now_ms: u64,
    ) -> Option<Acquired> {
        let mut entries = table.lock(hash, self.named.name());
        let mut found = entries.find(hash, key);
        if let Some(at) = found
            && entries.value(at, TOTAL) >= most
        {
            if !self.forget_dead(&mut entries, at, now_ms) {
                found = None;
            } else if entries.value(at, TOTAL) >= most {
                return Some(Acquired::TooMany);
            }
        }
        let at = match found {
            Some(at) => at,
            None => entries.insert(hash, key)?,
        };
        let Some(cell) = own_share(&mut entries, at) else {
            if entries.value(at, TOTAL) == 0 {
                entries.remove(at);
            }
            return None;
        };
        let count = entries.get(cell, share::COUNT);
        entries.set(cell, share::COUNT, count + 1);
        let total = entries.value(at, TOTAL);
        entries.set_value(at, TOTAL, total + 1);
        Some(Acquired::Hold(entries.reference(at, hash)))
    }

    fn release(&self, reference: Reference) {
        let Some(table) = self.table() else { return };
        let mut entries = table.lock(reference.hash(), self.named.name());
        // The entry is gone when a process died inside the lock.
        let Some(at) = entries.resolve(reference) else { return };
        let Some(cell) = find_share(&entries, at, own_mark()) else { return };
        take_off(&mut entries, at, cell, 1);
        if entries.value(at, TOTAL) == 0 {
            entries.remove(at);
        }
    }

    /// Takes back what dead workers hold of an entry; false when nothing is left and the entry
    /// was removed.
    fn forget_dead(&self, entries: &mut Entries<'_>, at: u32, now_ms: u64) -> bool {
        let mut next = entries.value(at, FIRST) as u32;
        while next != 0 {
            let cell = next;
            next = entries.get(cell, share::NEXT);
            if !self.is_alive(mark_of(entries, cell), now_ms) {
                let count = entries.get(cell, share::COUNT);
                take_off(entries, at, cell, count);
            }
        }
        if entries.value(at, TOTAL) == 0 {
            entries.remove(at);
            return false;
        }
        true
    }

    /// Takes back what dead workers hold anywhere.
    fn sweep(&self, table: &Table, now_ms: u64) {
        table.each_shard(self.named.name(), |entries| {
            let mut next = entries.oldest();
            while let Some(at) = next {
                next = entries.newer(at);
                self.forget_dead(entries, at, now_ms);
            }
        });
    }

    fn is_alive(&self, mark: u64, now_ms: u64) -> bool {
        if mark == own_mark() {
            return true;
        }
        let mut alive = self.alive.borrow_mut();
        let known = alive.iter_mut().find(|(known, _)| *known == mark);
        if let Some((_, seen)) = &known
            && now_ms.saturating_sub(*seen) < BELIEVED_MS
        {
            return true;
        }
        if is_dead(mark) {
            alive.retain(|(known, _)| *known != mark);
            return false;
        }
        match known {
            Some((_, seen)) => *seen = now_ms,
            None => alive.push((mark, now_ms)),
        }
        true
    }
}

fn mark_of(entries: &Entries<'_>, cell: u32) -> u64 {
    let (low, high) = (entries.get(cell, share::MARK), entries.get(cell, share::MARK + 1));
    u64::from(high) << 32 | u64::from(low)
}

/// The cell that says how much of an entry belongs to a worker.
fn find_share(entries: &Entries<'_>, at: u32, mark: u64) -> Option<u32> {
    let mut cell = entries.value(at, FIRST) as u32;
    while cell != 0 && mark_of(entries, cell) != mark {
        cell = entries.get(cell, share::NEXT);
    }
    (cell != 0).then_some(cell)
}

/// This worker's cell, made when missing; `None` when there is no room.
fn own_share(entries: &mut Entries<'_>, at: u32) -> Option<u32> {
    let mark = own_mark();
    if let Some(cell) = find_share(entries, at, mark) {
        return Some(cell);
    }
    let cell = entries.take()?;
    let first = entries.value(at, FIRST);
    entries.set(cell, share::NEXT, first as u32);
    entries.set(cell, share::COUNT, 0);
    entries.set(cell, share::MARK, mark as u32);
    entries.set(cell, share::MARK + 1, (mark >> 32) as u32);
    entries.set_value(at, FIRST, u64::from(cell));
    Some(cell)
}

/// Takes `count` off a worker's share and off the total.
fn take_off(entries: &mut Entries<'_>, at: u32, cell: u32, count: u32) {
    let total = entries.value(at, TOTAL);
    entries.set_value(at, TOTAL, total.saturating_sub(u64::from(count)));
    let left = entries.get(cell, share::COUNT).saturating_sub(count);
    entries.set(cell, share::COUNT, left);
    if left > 0 {
        return;
    }
    let after = entries.get(cell, share::NEXT);
    let first = entries.value(at, FIRST) as u32;
    if first == cell {
        entries.set_value(at, FIRST, u64::from(after));
    } else {
        let mut before = first;
        while before != 0 && entries.get(before, share::NEXT) != cell {
            before = entries.get(before, share::NEXT);
        }
        if before != 0 {
            entries.set(before, share::NEXT, after);
        }
    }
    entries.give_back(cell);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Talk, compiled};

    /// Limits for the inside of an `http` block, with their zones open.
    fn limits(inside: &str) -> (Rc<Variables<Talk>>, Option<Limits>, Vec<String>) {
        let zones = Zones::default();
        let found = RefCell::new(None);
        let (variables, mut faults) = compiled(inside, DIRECTIVES, |scope, table| {
            let known = CountZones::compile(scope, &zones, table);
            *found.borrow_mut() = Limits::compile(scope, &known, &zones);
        });
        faults.extend(zones.faults());
        if faults.is_empty() {
            zones.open(None).unwrap();
        }
        (variables, found.into_inner(), faults)
    }

    struct Play {
        variables: Rc<Variables<Talk>>,
        limits: Limits,
        logged: Vec<String>,
    }

    impl Play {
        fn new(inside: &str) -> Play {
            let (variables, limits, faults) = limits(inside);
            assert_eq!(faults, Vec::<String>::new(), "{inside}");
            Play { variables, limits: limits.expect("limits"), logged: Vec::new() }
        }

        fn ask(&mut self, key: &str) -> (Decision, Holds) {
            let mut talk = Talk::new(&self.variables, &[("x", key), ("z", "z")]);
            let outcome = self.limits.check(&mut talk, 5_000);
            self.logged.append(&mut talk.complaints);
            outcome
        }

        fn decide(&mut self, key: &str) -> Decision {
            self.ask(key).0
        }
    }

    use Decision::*;

    #[test]
    fn what_is_under_way_counts() {
        let mut play = Play::new("limit_conn_zone $x zone=one:1m; limit_conn one 2;");
        let (first, a) = play.ask("a");
        let (second, b) = play.ask("a");
        assert_eq!((first, second), (Passed, Passed));
        assert_eq!(play.decide("a"), Rejected(503));
        assert_eq!(play.decide("b"), Passed);
        assert_eq!(play.decide(""), Unlimited);
        assert_eq!(play.logged, ["limiting connections by zone \"one\""]);
        drop(a);
        assert_eq!(play.decide("a"), Passed);
        drop(b);
        let (third, _c) = play.ask("a");
        let (fourth, _d) = play.ask("a");
        assert_eq!((third, fourth, play.decide("a")), (Passed, Passed, Rejected(503)));
    }

    #[test]
    fn a_refused_request_counts_nowhere() {
        let mut play = Play::new(
            "limit_conn_zone $x zone=one:1m; limit_conn_zone $z zone=all:1m;
             limit_conn all 2; limit_conn one 1; limit_conn_status 429;",
        );
        let (first, _a) = play.ask("a");
        assert_eq!((first, play.decide("a")), (Passed, Rejected(429)));
        let (second, _b) = play.ask("b");
        assert_eq!((second, play.decide("c")), (Passed, Rejected(429)));
        assert_eq!(
            play.logged,
            ["limiting connections by zone \"one\"", "limiting connections by zone \"all\""]
        );
    }

    #[test]
    fn a_dry_run_only_says_so() {
        let mut play =
            Play::new("limit_conn_zone $x zone=one:1m; limit_conn one 1; limit_conn_dry_run on;");
        let (first, _a) = play.ask("a");
        assert_eq!((first, play.decide("a")), (Passed, RejectedDryRun));
        assert_eq!(play.logged, ["limiting connections, dry run, by zone \"one\""]);
    }

    #[test]
    fn a_full_zone_refuses_further_keys() {
        let mut play = Play::new("limit_conn_zone $x zone=one:32k; limit_conn one 1;");
        let mut held = Vec::new();
        let refused = (0..1_000).find(|n| {
            let (decision, holds) = play.ask(&n.to_string());
            held.push(holds);
            decision == Rejected(503)
        });
        assert!(refused.is_some_and(|n| n > 200), "{refused:?}");
        assert_eq!(play.logged, Vec::<String>::new());
        held.clear();
        assert_eq!(play.decide("again"), Passed);
    }

    #[test]
    fn long_keys_are_not_counted() {
        let mut play = Play::new("limit_conn_zone $x zone=one:1m; limit_conn one 1;");
        let (decision, _holds) = play.ask(&"k".repeat(255));
        assert_eq!((decision, play.decide(&"k".repeat(255))), (Passed, Rejected(503)));
        assert_eq!(play.decide(&"k".repeat(256)), Unlimited);
        assert!(play.logged[1].starts_with("the value of the \"$x\" key is more than 255 bytes:"));
    }

    #[test]
    fn what_a_dead_worker_held_is_taken_back() {
        let mut play = Play::new("limit_conn_zone $x zone=one:32k; limit_conn one 1;");
        // Asks, and leaves what was counted to a process of this number that was born at another
        // time.
        let leave_behind = |play: &mut Play, key: &str| {
            let (decision, holds) = play.ask(key);
            let Some((counts, reference)) = holds.0.first().cloned() else { return decision };
            let mut entries = counts.table().unwrap().lock(reference.hash(), "one");
            let at = entries.resolve(reference).unwrap();
            let cell = find_share(&entries, at, own_mark()).unwrap();
            let other = own_mark() ^ 1 << 40;
            entries.set(cell, share::MARK + 1, (other >> 32) as u32);
            decision
        };
        assert_eq!(leave_behind(&mut play, "a"), Passed);
        assert_eq!((play.decide("a"), play.decide("a")), (Passed, Passed));
        // A zone full of such entries is swept.
        let decisions: Vec<Decision> =
            (0..400).map(|n| leave_behind(&mut play, &n.to_string())).collect();
        assert_eq!(decisions, vec![Passed; 400]);
    }

    #[test]
    fn lines_have_nginx_words() {
        for (text, expected) in [
            ("$a zone=one", "invalid zone size \"zone=one\""),
            ("$a zone=one:31k", "zone \"zone=one:31k\" is too small"),
            ("$a zone=:32k", "\"limit_conn_zone\" must have \"zone\" parameter"),
            ("$a one:1m", "invalid parameter \"one:1m\""),
        ] {
            let found = LIMIT_CONN_ZONE.read_text(text).unwrap_err();
            assert_eq!(found.message, expected);
        }
        let line = |text: &str| LIMIT_CONN.read_text(text).map(|line| line.most);
        assert_eq!(line("one 65535"), Ok(65_535));
        for (text, expected) in [
            ("one 0", "invalid number of connections \"0\""),
            ("one x", "invalid number of connections \"x\""),
            ("one 65536", "connection limit must be less 65536"),
        ] {
            assert_eq!(line(text).unwrap_err().message, expected);
        }
        let first = |text: &str| limits(text).2.into_iter().next().unwrap_or_default();
        assert_eq!(first("limit_conn one 1;"), "zero size shared memory zone \"one\"");
        let zone = "limit_conn_zone $x zone=one:1m;";
        assert_eq!(
            first(&format!("{zone} {zone}")),
            "limit_conn_zone \"one\" is already bound to key \"$x\""
        );
        assert_eq!(
            first(&format!("{zone} limit_conn one 1; limit_conn one 2;")),
            "\"limit_conn\" directive is duplicate"
        );
    }
}
