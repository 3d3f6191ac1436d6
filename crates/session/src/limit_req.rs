//! `limit_req`: how many requests per second a key may make (nginx: ngx_http_limit_req_module).
//!
//! A leaky bucket in milliseconds: each request adds 1 to the excess of its key, which falls by
//! the rate. Excess is counted in thousandths of a request. The buckets lie in a zone that all
//! workers share; the ones not asked for longest make room for new ones. This file decides, the
//! engine that asks waits or refuses; [`Limits::check`] is where to start.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use smallvec::SmallVec;
use system::shared::Zone;

use crate::contexts::{HTTP, LOCATION, SERVER};
use crate::log::{Bytes, Level, Log, no_context};
use crate::table::{Entries, Reference, Table};
use crate::text::Span;
use crate::variables::{Subject, Template, Variables};
use crate::zones::{Kind, NamedZone, ZoneSize, Zones, read_zone};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] =
    &[&LIMIT_REQ_ZONE, &LIMIT_REQ, &LIMIT_REQ_LOG_LEVEL, &LIMIT_REQ_STATUS, &LIMIT_REQ_DRY_RUN];

/// `limit_req_zone`.
pub static LIMIT_REQ_ZONE: Directive<ZoneLine> =
    Directive::new("limit_req_zone", &[HTTP], read_zone_line)
        .takes(Arity::Exactly(3))
        .many()
        .syntax("limit_req_zone KEY zone=NAME:SIZE rate=RATE;")
        .text(
            "Declares a zone of memory, shared by all workers, that remembers how fast requests \
             come for each value of KEY. KEY may hold variables; requests for which it is empty \
             are not limited. RATE is a number of requests per second (`10r/s`) or per minute \
             (`30r/m`). A megabyte remembers about 15 000 addresses; when it is full, keys that \
             were not seen for the longest time are forgotten. What a zone holds outlives a \
             reload.",
        )
        .example("limit_req_zone $binary_remote_addr zone=one:10m rate=5r/s;");

/// `limit_req`.
pub static LIMIT_REQ: Directive<LimitLine> = Directive::new("limit_req", PLACES, read_limit)
    .takes(Arity::Between(1, 3))
    .many()
    .syntax("limit_req zone=NAME [burst=NUMBER] [nodelay | delay=NUMBER];")
    .text(
        "Holds requests to the rate of a zone. A request that comes too early is delayed until \
         it fits the rate; when more than `burst` of them would be waiting it is refused. With \
         `nodelay` nothing within the burst is delayed; with `delay=` so many requests of the \
         burst are not delayed. Several lines hold together. A level that has no such line has \
         those of the level around it.",
    )
    .example("limit_req zone=one burst=10 delay=5;");

/// `limit_req_log_level`.
pub static LIMIT_REQ_LOG_LEVEL: Directive<Level> =
    Directive::new("limit_req_log_level", PLACES, read_level)
        .default("error")
        .syntax("limit_req_log_level info | notice | warn | error;")
        .text(
            "How a request that is refused shows in the error log. A request that is delayed is \
             logged one level lower.",
        )
        .example("limit_req_log_level warn;");

/// `limit_req_status`.
pub static LIMIT_REQ_STATUS: Directive<u64> =
    Directive::new("limit_req_status", PLACES, read_status)
        .default("503")
        .syntax("limit_req_status CODE;")
        .text("The status that answers requests which are refused, 400 to 599.")
        .example("limit_req_status 429;");

/// `limit_req_dry_run`.
pub static LIMIT_REQ_DRY_RUN: Directive<bool> =
    Directive::new("limit_req_dry_run", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("limit_req_dry_run on | off;")
        .text(
            "Counts and logs as if requests were limited, but neither delays nor refuses any. \
             `$limit_req_status` tells what would have happened.",
        )
        .example("limit_req_dry_run on;");

/// What `limit_req_zone` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneLine {
    /// What is counted.
    pub key: config::Template,
    /// The key as written.
    pub key_text: String,
    /// The zone.
    pub zone: ZoneSize,
    /// Thousandths of a request per second.
    pub rate: i64,
}

/// What `limit_req` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitLine {
    /// The zone's name.
    pub zone: String,
    /// Requests that may wait.
    pub burst: i64,
    /// Requests beyond the rate that do not wait.
    pub delay: i64,
}

/// A level of the error log for `limit_req` and `limit_conn`.
pub(crate) fn read_level(args: &Args<'_>) -> Result<Level, Invalid> {
    read::enumeration(
        args,
        &[
            ("info", Level::Info),
            ("notice", Level::Notice),
            ("warn", Level::Warn),
            ("error", Level::Error),
        ],
    )
}

/// A status for requests that are refused.
pub(crate) fn read_status(args: &Args<'_>) -> Result<u64, Invalid> {
    read::number_between(args, 400, 599)
}

/// A parameter that nothing knows.
pub(crate) fn unknown(args: &Args<'_>, i: usize) -> Invalid {
    Invalid::new(format!("invalid parameter \"{}\"", args.str(i))).at(i)
}

/// Said when there is no `zone=`.
pub(crate) fn no_zone(args: &Args<'_>) -> Invalid {
    Invalid::new(format!("\"{}\" must have \"zone\" parameter", args.name()))
}

fn read_zone_line(args: &Args<'_>) -> Result<ZoneLine, Invalid> {
    let key = read::template_at(args, 0)?;
    let mut zone = None;
    let mut rate = 1000;
    for i in 1..args.len() {
        let word = args.str(i);
        if let Some(found) = read_zone(args, i)? {
            zone = Some(found);
        } else if let Some(text) = word.strip_prefix("rate=") {
            rate = parse_rate(text)
                .ok_or_else(|| Invalid::new(format!("invalid rate \"{word}\"")).at(i))?;
        } else {
            return Err(unknown(args, i));
        }
    }
    let zone = zone.filter(|zone| !zone.name.is_empty()).ok_or_else(|| no_zone(args))?;
    Ok(ZoneLine { key, key_text: args.str(0).into_owned(), zone, rate })
}

/// Thousandths of a request per second.
fn parse_rate(text: &str) -> Option<i64> {
    let (number, scale) = match (text.strip_suffix("r/s"), text.strip_suffix("r/m")) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        _ => (text, 1),
    };
    Some(positive(number)?.checked_mul(1000)? / scale)
}

fn positive(text: &str) -> Option<i64> {
    let number = i64::try_from(read::parse_number(text.as_bytes())?).ok()?;
    Some(number).filter(|number| *number > 0)
}

/// More than any excess, with room to be multiplied.
const ENDLESS: i64 = i64::MAX / 1000;

fn read_limit(args: &Args<'_>) -> Result<LimitLine, Invalid> {
    let (mut zone, mut burst, mut delay) = (None, 0, 0);
    for i in 0..args.len() {
        let word = args.str(i);
        let number = |text: &str, what: &str| {
            positive(text)
                .filter(|number| *number <= ENDLESS)
                .ok_or_else(|| Invalid::new(format!("invalid {what} value \"{word}\"")).at(i))
        };
        if let Some(name) = word.strip_prefix("zone=") {
            zone = Some(name.to_owned());
        } else if let Some(text) = word.strip_prefix("burst=") {
            burst = number(text, "burst")?;
        } else if let Some(text) = word.strip_prefix("delay=") {
            delay = number(text, "delay")?;
        } else if word == "nodelay" {
            delay = ENDLESS;
        } else {
            return Err(unknown(args, i));
        }
    }
    let zone = zone.ok_or_else(|| no_zone(args))?;
    Ok(LimitLine { zone, burst, delay })
}

/// Names of the decisions that the table of a zone counts, in its order.
pub static TALLIES: [&str; crate::table::TALLIES] =
    ["passed", "delayed", "rejected", "delayed_dry_run", "rejected_dry_run"];

static KIND: Kind = Kind {
    directive: "limit_req_zone",
    title: "limit_req",
    prepare: Table::prepare,
    migrate: Some(migrate),
};

/// A zone with its rate.
struct Buckets {
    named: Rc<NamedZone>,
    key: Template,
    /// Thousandths of a request per second.
    rate: i64,
    table: OnceCell<Table>,
}

/// The zones of a level while limits are compiled.
#[derive(Default)]
pub struct BucketZones(HashMap<String, Rc<Buckets>>);

impl BucketZones {
    /// Declares the zones of a level. Faults go to the scope.
    pub fn compile<X>(scope: &Scope<'_>, zones: &Zones, table: &mut Variables<X>) -> BucketZones {
        let mut found = BucketZones::default();
        for (line, span) in scope.nodes_local(&LIMIT_REQ_ZONE) {
            let ZoneSize { name, size } = &line.zone;
            let declared = zones.declare(name, *size, &KIND);
            let bound = declared.and_then(|named| named.bind(&line.key_text).map(|()| named));
            match bound {
                Ok(named) => {
                    let key = Template::compile(&line.key, table);
                    let (rate, table) = (line.rate, OnceCell::new());
                    found.0.insert(name.clone(), Rc::new(Buckets { named, key, rate, table }));
                }
                Err(reason) => scope.error(span, reason),
            }
        }
        found
    }
}

/// The limits of one location.
pub struct Limits {
    list: Box<[Limit]>,
    reject_level: Level,
    delay_level: Level,
    status: u16,
    dry_run: bool,
}

struct Limit {
    buckets: Rc<Buckets>,
    /// Thousandths of a request.
    burst: i64,
    delay: i64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No limit has anything to say about it.
    Unlimited,
    /// It goes on, and was counted.
    Passed,
    /// It goes on after so many milliseconds.
    Delayed(u64),
    /// It is answered with this status.
    Rejected(u16),
    /// It goes on, but would have been delayed.
    DelayedDryRun,
    /// It goes on, but would have been refused.
    RejectedDryRun,
}

impl Decision {
    /// The value of `$limit_req_status`.
    pub fn text(self) -> Option<&'static str> {
        Some(match self {
            Decision::Unlimited => return None,
            Decision::Passed => "PASSED",
            Decision::Delayed(_) => "DELAYED",
            Decision::Rejected(_) => "REJECTED",
            Decision::DelayedDryRun => "DELAYED_DRY_RUN",
            Decision::RejectedDryRun => "REJECTED_DRY_RUN",
        })
    }
}

impl Limits {
    /// The limits that hold in a block; `None` when there are none. Faults go to the scope.
    pub fn compile(scope: &Scope<'_>, known: &BucketZones, zones: &Zones) -> Option<Limits> {
        let reject_level = scope.get(&LIMIT_REQ_LOG_LEVEL);
        // It was checked to be between 400 and 599.
        let status = scope.get(&LIMIT_REQ_STATUS) as u16;
        let dry_run = scope.get(&LIMIT_REQ_DRY_RUN);
        for (line, span) in scope.nodes_local(&LIMIT_REQ) {
            if let Err(reason) = zones.declare(&line.zone, 0, &KIND) {
                scope.error(span, reason);
            }
        }
        let mut list: Vec<Limit> = Vec::new();
        for (line, span) in scope.nodes(&LIMIT_REQ) {
            // A zone that nobody declares is found when all was read.
            let Some(buckets) = known.0.get(&line.zone) else { continue };
            if list.iter().any(|limit| Rc::ptr_eq(&limit.buckets, buckets)) {
                scope.error(span, "\"limit_req\" directive is duplicate");
                continue;
            }
            let (burst, delay) = (line.burst.saturating_mul(1000), line.delay.saturating_mul(1000));
            list.push(Limit { buckets: buckets.clone(), burst, delay });
        }
        let delay_level = match reject_level {
            Level::Error => Level::Warn,
            Level::Warn => Level::Notice,
            _ => Level::Info,
        };
        let list = list.into_boxed_slice();
        let limits = Limits { list, reject_level, delay_level, status, dry_run };
        (!limits.list.is_empty()).then_some(limits)
    }

    /// Counts a request that came at `now_ms` of the monotonic clock, and decides about it. The
    /// error log is told of a request that is delayed or refused.
    pub fn check<X: Subject>(&self, x: &mut X, now_ms: u64) -> Decision {
        let mut waiting: SmallVec<[(&Limit, Reference); 4]> = SmallVec::new();
        let mut last: Option<(&Limit, i64)> = None;
        for (n, limit) in self.list.iter().enumerate() {
            let Some(key) = limit.buckets.key(x) else { continue };
            let is_last = n + 1 == self.list.len();
            match limit.count(x.arena().text(key), now_ms, is_last) {
                Counted::Fits(excess) => last = Some((limit, excess)),
                // Nothing is accounted before every limit was asked.
                Counted::Seen(reference) => {
                    waiting.push((limit, reference));
                    last = Some((limit, 0));
                }
                Counted::TooMuch(excess) => {
                    let (whole, rest) = (excess / 1000, excess % 1000);
                    let (dry, zone) = (self.dry(), limit.buckets.named.name());
                    let message = format_args!(
                        "limiting requests{dry}, excess: {whole}.{rest:03} by zone \"{zone}\""
                    );
                    x.complain(self.reject_level, message);
                    return limit.buckets.tell(self.reject());
                }
                Counted::NoRoom => return limit.buckets.tell(self.reject()),
            }
        }
        let Some((mut limit, mut excess)) = last else { return Decision::Unlimited };
        let mut delay_ms = limit.wait(excess);
        for (other, reference) in waiting.into_iter().rev() {
            let Some(found) = other.account(reference, now_ms) else { continue };
            let longer = other.wait(found);
            if longer > delay_ms {
                (limit, excess, delay_ms) = (other, found, longer);
            }
        }
        if delay_ms == 0 {
            return limit.buckets.tell(Decision::Passed);
        }
        let (dry, zone) = (self.dry(), limit.buckets.named.name());
        let (whole, rest) = (excess / 1000, excess % 1000);
        let message =
            format_args!("delaying request{dry}, excess: {whole}.{rest:03}, by zone \"{zone}\"");
        x.complain(self.delay_level, message);
        let delayed =
            if self.dry_run { Decision::DelayedDryRun } else { Decision::Delayed(delay_ms) };
        limit.buckets.tell(delayed)
    }

    fn dry(&self) -> &'static str {
        if self.dry_run { ", dry run" } else { "" }
    }

    fn reject(&self) -> Decision {
        if self.dry_run { Decision::RejectedDryRun } else { Decision::Rejected(self.status) }
    }
}

impl Buckets {
    /// Counts a decision that this zone was the reason of.
    fn tell(&self, decision: Decision) -> Decision {
        let at = match decision {
            Decision::Unlimited => return decision,
            Decision::Passed => 0,
            Decision::Delayed(_) => 1,
            Decision::Rejected(_) => 2,
            Decision::DelayedDryRun => 3,
            Decision::RejectedDryRun => 4,
        };
        if let Some(table) = self.table() {
            table.tally(at);
        }
        decision
    }

    /// The key of a request; `None` when it is not counted.
    fn key<X: Subject>(&self, x: &mut X) -> Option<Span> {
        let key = self.key.value(x);
        if key.len > 65_535 {
            let value = x.arena().text(key).to_vec();
            let (name, value) = (self.named.key(), Bytes(&value));
            let message = format_args!(
                "the value of the \"{name}\" key is more than 65535 bytes: \"{value}\""
            );
            x.complain(Level::Error, message);
            return None;
        }
        (!key.is_empty()).then_some(key)
    }

    /// The table, unless the configuration was never put to use.
    fn table(&self) -> Option<&Table> {
        if self.table.get().is_none() {
            let table = Table::new(self.named.memory()?).ok()?;
            let _ = self.table.set(table);
        }
        self.table.get()
    }
}

/// What a bucket says to one more request.
enum Counted {
    /// It fits; it was accounted, and this is the excess now.
    Fits(i64),
    /// It fits; it is to be accounted once all limits agree.
    Seen(Reference),
    /// The excess would be this.
    TooMuch(i64),
    /// There is no memory to count it.
    NoRoom,
}

/// Values of an entry: when it was accounted last, and its excess then.
const LAST: usize = 0;
const EXCESS: usize = 1;

/// A bucket that was quiet for so long may be forgotten.
const QUIET_MS: i64 = 60_000;

impl Limit {
    fn count(&self, key: &[u8], now_ms: u64, account: bool) -> Counted {
        let Some(table) = self.buckets.table() else { return Counted::Fits(0) };
        let hash = table.hash(key);
        let mut entries = table.lock(hash, self.buckets.named.name());
        if let Some(at) = entries.find(hash, key) {
            entries.touch(at);
            let (passed, excess) = self.excess(&entries, at, now_ms);
            if excess > self.burst {
                return Counted::TooMuch(excess);
            }
            if !account {
                return Counted::Seen(entries.reference(at, hash));
            }
            set(&mut entries, at, passed, excess, now_ms);
            return Counted::Fits(excess);
        }
        self.expire(&mut entries, now_ms, false);
        let inserted = entries.insert(hash, key).or_else(|| {
            self.expire(&mut entries, now_ms, true);
            entries.insert(hash, key)
        });
        let Some(at) = inserted else {
            let zone = self.buckets.named.name();
            let message = format_args!("could not allocate node in limit_req zone \"{zone}\"");
            Log::process().write(Level::Alert, None, message, &no_context);
            return Counted::NoRoom;
        };
        if !account {
            return Counted::Seen(entries.reference(at, hash));
        }
        entries.set_value(at, LAST, now_ms);
        Counted::Fits(0)
    }

    /// Accounts a request that all limits let pass; `None` when its bucket was forgotten since.
    fn account(&self, reference: Reference, now_ms: u64) -> Option<i64> {
        let table = self.buckets.table()?;
        let mut entries = table.lock(reference.hash(), self.buckets.named.name());
        let at = entries.resolve(reference)?;
        let (passed, excess) = self.excess(&entries, at, now_ms);
        set(&mut entries, at, passed, excess, now_ms);
        Some(excess)
    }

    /// The milliseconds since a bucket was accounted last, and its excess with one request more.
    fn excess(&self, entries: &Entries<'_>, at: u32, now_ms: u64) -> (i64, i64) {
        let passed = match now_ms.wrapping_sub(entries.value(at, LAST)) as i64 {
            // The clocks of workers differ by a turn of their loops at most.
            passed if passed < -QUIET_MS => 1,
            passed => passed.max(0),
        };
        let excess = entries.value(at, EXCESS) as i64;
        let drained = self.buckets.rate.saturating_mul(passed) / 1000;
        (passed, excess.saturating_sub(drained).saturating_add(1000).max(0))
    }

    /// How long a request with this excess waits.
    fn wait(&self, excess: i64) -> u64 {
        if excess <= self.delay {
            return 0;
        }
        // A rate is at least 16 thousandths per second.
        ((excess - self.delay).saturating_mul(1000) / self.buckets.rate.max(1)) as u64
    }

    /// Forgets up to two buckets that are empty and quiet; the oldest in any case when `forced`.
    fn expire(&self, entries: &mut Entries<'_>, now_ms: u64, forced: bool) {
        for n in usize::from(!forced)..3 {
            let Some(at) = entries.oldest() else { return };
            if n > 0 {
                let passed = (now_ms.wrapping_sub(entries.value(at, LAST)) as i64).abs();
                let drained = self.buckets.rate.saturating_mul(passed) / 1000;
                if passed < QUIET_MS || entries.value(at, EXCESS) as i64 > drained {
                    return;
                }
            }
            entries.remove(at);
        }
    }
}

fn set(entries: &mut Entries<'_>, at: u32, passed: i64, excess: i64, now_ms: u64) {
    entries.set_value(at, EXCESS, excess as u64);
    // Within one millisecond the clock stands still for the bucket.
    if passed > 0 {
        entries.set_value(at, LAST, now_ms);
    }
}

/// Moves the buckets of a zone to one of another size, the oldest first.
fn migrate(old: &Arc<Zone>, new: &Arc<Zone>) {
    let (Ok(old), Ok(new)) = (Table::new(old), Table::new(new)) else { return };
    let mut key = Vec::new();
    old.each_shard("", |entries| {
        let mut next = entries.oldest();
        while let Some(at) = next {
            key.clear();
            entries.key(at, &mut key);
            let hash = new.hash(&key);
            let mut target = new.lock(hash, "");
            while target.find(hash, &key).is_none() {
                if let Some(copy) = target.insert(hash, &key) {
                    target.set_value(copy, LAST, entries.value(at, LAST));
                    target.set_value(copy, EXCESS, entries.value(at, EXCESS));
                } else if let Some(oldest) = target.oldest() {
                    target.remove(oldest);
                } else {
                    break;
                }
            }
            next = entries.newer(at);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Talk, compiled};

    /// Limits for the inside of an `http` block, with their zones open.
    fn limits(inside: &str) -> (Rc<Variables<Talk>>, Option<Limits>, Vec<String>) {
        let zones = Zones::default();
        let found = std::cell::RefCell::new(None);
        let (variables, mut faults) = compiled(inside, DIRECTIVES, |scope, table| {
            let known = BucketZones::compile(scope, &zones, table);
            *found.borrow_mut() = Limits::compile(scope, &known, &zones);
        });
        faults.extend(zones.faults());
        if faults.is_empty() {
            zones.open(None).unwrap();
        }
        (variables, found.into_inner(), faults)
    }

    /// What becomes of requests at these milliseconds with these keys, and what was logged.
    fn play(inside: &str, requests: &[(u64, &str)]) -> (Vec<Decision>, Vec<String>) {
        let (variables, limits, faults) = limits(inside);
        assert_eq!(faults, Vec::<String>::new(), "{inside}");
        let limits = limits.expect("limits");
        let mut logged = Vec::new();
        let decide = |(at, key): &(u64, &str)| {
            let mut talk = Talk::new(&variables, &[("x", key), ("z", "z")]);
            let decision = limits.check(&mut talk, 1_000_000 + at);
            logged.append(&mut talk.complaints);
            decision
        };
        (requests.iter().map(decide).collect(), logged)
    }

    use Decision::*;

    const ZONE: &str = "limit_req_zone $x zone=one:1m rate=2r/s;";

    #[test]
    fn excess_falls_with_the_rate() {
        let text = format!("{ZONE} limit_req zone=one;");
        let (decisions, logged) = play(
            &text,
            &[(0, "a"), (100, "a"), (100, "b"), (499, "a"), (500, "a"), (999, "a"), (1_000, "")],
        );
        let refused = Rejected(503);
        assert_eq!(decisions, [Passed, refused, Passed, refused, Passed, refused, Unlimited]);
        assert_eq!(logged[0], "limiting requests, excess: 0.800 by zone \"one\"");
        assert_eq!(logged[1], "limiting requests, excess: 0.002 by zone \"one\"");
        assert_eq!(logged.len(), 3);
    }

    #[test]
    fn a_burst_waits() {
        let text = format!("{ZONE} limit_req zone=one burst=2; limit_req_status 429;");
        let (decisions, logged) = play(&text, &[(0, "a"), (0, "a"), (250, "a"), (250, "a")]);
        assert_eq!(decisions, [Passed, Delayed(500), Delayed(750), Rejected(429)]);
        assert_eq!(
            logged,
            [
                "delaying request, excess: 1.000, by zone \"one\"",
                "delaying request, excess: 1.500, by zone \"one\"",
                "limiting requests, excess: 2.500 by zone \"one\"",
            ]
        );
    }

    #[test]
    fn parts_of_a_burst_need_not_wait() {
        let text = format!("{ZONE} limit_req zone=one burst=2 nodelay;");
        let (decisions, _) = play(&text, &[(0, "a"), (0, "a"), (0, "a"), (0, "a")]);
        assert_eq!(decisions, [Passed, Passed, Passed, Rejected(503)]);
        let text = format!("{ZONE} limit_req zone=one burst=3 delay=1;");
        let (decisions, _) = play(&text, &[(0, "a"), (0, "a"), (0, "a"), (0, "a"), (0, "a")]);
        assert_eq!(decisions, [Passed, Passed, Delayed(500), Delayed(1_000), Rejected(503)]);
    }

    #[test]
    fn a_dry_run_only_says_so() {
        let text = format!("{ZONE} limit_req zone=one burst=1; limit_req_dry_run on;");
        let (decisions, logged) = play(&text, &[(0, "a"), (0, "a"), (0, "a")]);
        assert_eq!(decisions, [Passed, DelayedDryRun, RejectedDryRun]);
        assert_eq!(
            logged,
            [
                "delaying request, dry run, excess: 1.000, by zone \"one\"",
                "limiting requests, dry run, excess: 2.000 by zone \"one\"",
            ]
        );
    }

    #[test]
    fn several_limits_hold_together() {
        let text = "limit_req_zone $x zone=one:1m rate=1r/s;
                    limit_req_zone $z zone=all:1m rate=10r/s;
                    limit_req zone=one burst=1;
                    limit_req zone=all burst=9;";
        let (decisions, logged) =
            play(text, &[(0, "a"), (0, "b"), (0, "a"), (0, "a"), (0, "c"), (0, "")]);
        // What one limit refuses, the other one does not count.
        assert_eq!(
            decisions,
            [Passed, Delayed(100), Delayed(1_000), Rejected(503), Delayed(300), Delayed(400)]
        );
        assert_eq!(
            logged,
            [
                "delaying request, excess: 1.000, by zone \"all\"",
                "delaying request, excess: 1.000, by zone \"one\"",
                "limiting requests, excess: 2.000 by zone \"one\"",
                "delaying request, excess: 3.000, by zone \"all\"",
                "delaying request, excess: 4.000, by zone \"all\"",
            ]
        );
    }

    #[test]
    fn keys_may_be_long_but_not_endless() {
        let text = format!("{ZONE} limit_req zone=one;");
        let long = "k".repeat(65_535);
        let longer = "k".repeat(65_536);
        let (decisions, logged) = play(&text, &[(0, &long), (0, &long), (0, &longer)]);
        assert_eq!(decisions, [Passed, Rejected(503), Unlimited]);
        assert!(logged[1].starts_with("the value of the \"$x\" key is more than 65535 bytes: \"k"));
        // One that needs more than the whole zone cannot be counted, so it is refused.
        let text = "limit_req_zone $x zone=one:32k rate=1r/s; limit_req zone=one;";
        assert_eq!(play(text, &[(0, &long)]).0, [Rejected(503)]);
    }

    #[test]
    fn the_oldest_bucket_makes_room() {
        let text = "limit_req_zone $x zone=one:32k rate=1r/s; limit_req zone=one;";
        let keys: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
        let mut requests: Vec<(u64, &str)> = keys.iter().map(|key| (0, key.as_str())).collect();
        requests.extend([(1, "1999"), (1, "0")]);
        let (decisions, _) = play(text, &requests);
        assert_eq!(decisions[..2_000], vec![Passed; 2_000]);
        assert_eq!(decisions[2_000..], [Rejected(503), Passed]);
    }

    #[test]
    fn a_zone_of_another_size_keeps_what_it_knew() {
        let load = |size: &str, present: Option<&Zones>| {
            let zones = Zones::default();
            let text = format!("limit_req_zone $x zone=one:{size} rate=1r/m; limit_req zone=one;");
            let found = std::cell::RefCell::new(None);
            let (variables, _) = compiled(&text, DIRECTIVES, |scope, table| {
                let known = BucketZones::compile(scope, &zones, table);
                *found.borrow_mut() = Limits::compile(scope, &known, &zones);
            });
            zones.open(present).unwrap();
            (zones, variables, found.into_inner().expect("limits"))
        };
        let ask = |variables: &Rc<Variables<Talk>>, limits: &Limits, key: &str| {
            limits.check(&mut Talk::new(variables, &[("x", key)]), 5_000)
        };
        let (zones, variables, limits) = load("1m", None);
        assert_eq!(ask(&variables, &limits, "a"), Passed);
        let (larger, variables, limits) = load("2m", Some(&zones));
        assert_eq!(ask(&variables, &limits, "a"), Rejected(503));
        assert_eq!(ask(&variables, &limits, "b"), Passed);
        let (_same, variables, limits) = load("2m", Some(&larger));
        assert_eq!(ask(&variables, &limits, "b"), Rejected(503));
    }

    #[test]
    fn lines_have_nginx_words() {
        let zone = |text: &str| LIMIT_REQ_ZONE.read_text(text).map(|line| line.rate);
        assert_eq!(zone("$a zone=one:32k rate=5r/s"), Ok(5_000));
        assert_eq!(zone("$a rate=1r/m zone=one:1m"), Ok(16));
        assert_eq!(zone("$a zone=one:1m rate=7"), Ok(7_000));
        for (text, expected) in [
            ("$a zone=one rate=1r/s", "invalid zone size \"zone=one\""),
            ("$a zone=one:x rate=1r/s", "invalid zone size \"zone=one:x\""),
            ("$a zone=one:31k rate=1r/s", "zone \"zone=one:31k\" is too small"),
            ("$a zone=:32k rate=1r/s", "\"limit_req_zone\" must have \"zone\" parameter"),
            ("$a rate=1r/s rate=1r/s", "\"limit_req_zone\" must have \"zone\" parameter"),
            ("$a zone=one:1m rate=0r/s", "invalid rate \"rate=0r/s\""),
            ("$a zone=one:1m rate=r/s", "invalid rate \"rate=r/s\""),
            ("$a zone=one:1m sync", "invalid parameter \"sync\""),
            ("$a zone=one:1m", "invalid number of arguments in \"limit_req_zone\" directive"),
        ] {
            assert_eq!(zone(text).map_err(|invalid| invalid.message), Err(expected.to_owned()));
        }
        let line = |text: &str| LIMIT_REQ.read_text(text).map(|line| (line.burst, line.delay));
        assert_eq!(line("zone=one"), Ok((0, 0)));
        assert_eq!(line("burst=5 zone=one delay=2"), Ok((5, 2)));
        assert_eq!(line("zone=one nodelay"), Ok((0, ENDLESS)));
        for (text, expected) in [
            ("burst=5", "\"limit_req\" must have \"zone\" parameter"),
            ("zone=one burst=0", "invalid burst value \"burst=0\""),
            ("zone=one delay=x", "invalid delay value \"delay=x\""),
            ("zone=one burst", "invalid parameter \"burst\""),
        ] {
            assert_eq!(line(text).map_err(|invalid| invalid.message), Err(expected.to_owned()));
        }
        assert_eq!(
            LIMIT_REQ_STATUS.read_text("399").unwrap_err().message,
            "value must be between 400 and 599"
        );
        assert_eq!(
            LIMIT_REQ_LOG_LEVEL.read_text("crit").unwrap_err().message,
            "invalid value \"crit\""
        );
    }

    #[test]
    fn zones_must_be_declared_once() {
        let first = |text: &str| limits(text).2.into_iter().next().unwrap_or_default();
        assert_eq!(first("limit_req zone=one;"), "zero size shared memory zone \"one\"");
        assert_eq!(
            first(&format!("{ZONE} {ZONE}")),
            "limit_req_zone \"one\" is already bound to key \"$x\""
        );
        assert_eq!(
            first(&format!("{ZONE} limit_req zone=one; limit_req zone=one burst=1;")),
            "\"limit_req\" directive is duplicate"
        );
    }
}
