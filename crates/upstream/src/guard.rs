//! What keeps trouble small: ejection of servers that do worse than others, a budget for retries,
//! and a limit for requests and retries under way.
//!
//! The names and their defaults are Envoy's. Ejection and the limit for requests are part of the
//! balancing state; retries are counted beside it. All hold for all workers together where the
//! group has a zone.

use std::sync::atomic::{AtomicU32, Ordering};

use balance::PeerIndex;
use balance::outlier::{Grade, Rules, Sign};
use config::{Args, Arity, Context, Directive, Invalid, read};
use session::contexts::{STREAM_UPSTREAM, UPSTREAM};
use session::log::{Level, Log, no_context};

use crate::group::Group;
use crate::timeline::What;

/// The blocks of both engines.
const BLOCKS: &[Context] = &[UPSTREAM, STREAM_UPSTREAM];

/// `outlier_detection`.
pub static OUTLIER_DETECTION: Directive<Rules> =
    Directive::new("outlier_detection", BLOCKS, outlier_detection)
        .takes(Arity::Any)
        .syntax(
            "outlier_detection [consecutive_5xx=N] [consecutive_errors=N] [success_rate=FACTOR]\n\
             \x20   [interval=TIME] [request_volume=N] [minimum_hosts=N]\n\
             \x20   [base_ejection_time=TIME] [max_ejection_time=TIME] [max_ejection_percent=N];",
        )
        .text(
            "Takes servers out for a while that do worse than the others:\n\n\
             - `consecutive_5xx=N`: after N answers of 5xx or failures in a row; 5 unless given, \
             0 never.\n\
             - `consecutive_errors=N`: after N failures in a row (refused, broken, timed out, not \
             understood); 5 unless given, 0 never.\n\
             - `success_rate=FACTOR`: when the share of answers below 500 lies more than FACTOR \
             standard deviations below the mean of the group; 0, never, unless given, 1.9 is \
             usual. Shares are compared every `interval` (10 seconds), among servers that had \
             `request_volume` requests in it (100), if there are `minimum_hosts` of them (5).\n\n\
             A server is ejected for `base_ejection_time` (30 seconds), for twice as long the \
             second time, and so on up to `max_ejection_time` (300 seconds); each while without \
             an ejection makes up for one. At most `max_ejection_percent` (10) of the servers are \
             ejected at a time, but one always may be, and never the last one in use. Each \
             ejection is logged with its reason. In a `stream` block only failures to connect \
             count.",
        )
        .example(
            "upstream backend { server 127.0.0.1:8081; outlier_detection consecutive_5xx=3; }",
        );

/// `retry_budget`.
pub static RETRY_BUDGET: Directive<Budget> = Directive::new("retry_budget", BLOCKS, retry_budget)
    .takes(Arity::Between(1, 2))
    .syntax("retry_budget PERCENT [burst=N];")
    .text(
        "Lets at most so many of a hundred requests be tried again at another server, so that \
         retries do not add to an overload: each request pays for PERCENT hundredths of a retry, \
         and up to N retries (10 unless given) can be saved. When nothing is left, a failure is \
         answered as if there were no other server. With a `zone` the budget is that of all \
         workers together; without one each worker has its own.",
    )
    .example("upstream backend { server 127.0.0.1:8081; retry_budget 20; }");

/// `circuit_breaker`.
pub static CIRCUIT_BREAKER: Directive<Breaker> =
    Directive::new("circuit_breaker", BLOCKS, circuit_breaker)
        .takes(Arity::Between(1, 2))
        .syntax("circuit_breaker [max_requests=N] [max_retries=N];")
        .text(
            "Lets at most N requests be under way at all servers of the group together; more are \
             answered as if no server were alive, or wait if there is a `queue`. With a `zone` \
             the limit is that of all workers. `max_retries` bounds the requests of a worker that \
             are being tried again at the same time.",
        )
        .example("upstream backend { server 127.0.0.1:8081; circuit_breaker max_requests=1000; }");

/// What `retry_budget` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Retries for each hundred requests.
    pub percent: u32,
    /// Retries that can be saved.
    pub burst: u32,
}

/// What `circuit_breaker` says; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Requests under way.
    pub max_requests: u32,
    /// Requests under way that were tried before.
    pub max_retries: u32,
}

/// Envoy's defaults.
const USUAL: Rules = Rules {
    interval_ms: 10_000,
    base_ms: 30_000,
    most_ms: 300_000,
    consecutive_5xx: 5,
    consecutive_errors: 5,
    most_percent: 10,
    deviation: 0,
    volume: 100,
    peers: 5,
};

fn outlier_detection(args: &Args<'_>) -> Result<Rules, Invalid> {
    let mut rules = USUAL;
    for i in 0..args.len() {
        let word = args.word(i).bytes();
        let refused = || invalid_parameter(args, i);
        let at = word.iter().position(|byte| *byte == b'=').ok_or_else(refused)?;
        let (key, value) = (&word[..at], &word[at + 1..]);
        let number = || small(value).ok_or_else(refused);
        let time = || read::parse_time_ms(value).filter(|ms| *ms > 0).ok_or_else(refused);
        match key {
            b"consecutive_5xx" => rules.consecutive_5xx = number()?,
            b"consecutive_errors" => rules.consecutive_errors = number()?,
            b"success_rate" => rules.deviation = thousandths(value).ok_or_else(refused)?,
            b"interval" => rules.interval_ms = time()?,
            b"request_volume" => rules.volume = number()?,
            b"minimum_hosts" => rules.peers = number()?,
            b"base_ejection_time" => rules.base_ms = time()?,
            b"max_ejection_time" => rules.most_ms = time()?,
            b"max_ejection_percent" => {
                let percent = small(value).filter(|percent| *percent <= 100);
                rules.most_percent = percent.ok_or_else(refused)?;
            }
            _ => return Err(refused()),
        }
    }
    Ok(rules)
}

fn small(value: &[u8]) -> Option<u32> {
    read::parse_number(value).and_then(|number| u32::try_from(number).ok())
}

/// A number with up to three decimals, in thousandths.
fn thousandths(value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let scale = 10u32.pow(3 - part.len() as u32);
    let part = part.parse::<u32>().ok()? * scale;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(part)
}

fn retry_budget(args: &Args<'_>) -> Result<Budget, Invalid> {
    let percent = small(args.word(0).bytes()).filter(|percent| *percent <= 100);
    let percent = percent.ok_or_else(|| invalid_parameter(args, 0))?;
    let burst = match args.word(1).bytes().strip_prefix(b"burst=") {
        None if args.len() == 1 => Some(10),
        value => value.and_then(small),
    };
    Ok(Budget { percent, burst: burst.ok_or_else(|| invalid_parameter(args, 1))? })
}

fn circuit_breaker(args: &Args<'_>) -> Result<Breaker, Invalid> {
    let mut breaker = Breaker::default();
    for i in 0..args.len() {
        let refused = || invalid_parameter(args, i);
        let word = args.word(i).bytes();
        let (place, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) if &word[..at] == b"max_requests" => (&mut breaker.max_requests, &word[at..]),
            Some(at) if &word[..at] == b"max_retries" => (&mut breaker.max_retries, &word[at..]),
            _ => return Err(refused()),
        };
        *place = small(&value[1..]).filter(|number| *number > 0).ok_or_else(refused)?;
    }
    Ok(breaker)
}

fn invalid_parameter(args: &Args<'_>, i: usize) -> Invalid {
    Invalid::new(format!("invalid parameter \"{}\"", args.str(i))).at(i)
}

/// What a group says of retries, and those of this worker, which count where there is no zone.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    budget: Option<Budget>,
    max_at_once: u32,
    own: RetryCounts,
}

/// The retries of a group: of one worker, or in a zone of all. All zeroes are a fresh start.
#[derive(Debug, Default)]
pub(crate) struct RetryCounts {
    /// What is missing to a full budget, in hundredths of a retry.
    spent: AtomicU32,
    /// Requests under way that were tried before.
    at_once: AtomicU32,
}

/// The counts that hold, and how many of `at_once` this process has, where others have some too.
#[derive(Clone, Copy)]
pub(crate) struct RetryPlace<'a> {
    pub(crate) spent: &'a AtomicU32,
    pub(crate) at_once: &'a AtomicU32,
    pub(crate) of_worker: Option<&'a AtomicU32>,
}

impl Retries {
    pub(crate) fn new(budget: Option<Budget>, breaker: Breaker) -> Retries {
        Retries { budget, max_at_once: breaker.max_retries, own: RetryCounts::default() }
    }

    /// Whether anything is to be counted.
    pub(crate) fn is_on(&self) -> bool {
        self.budget.is_some() || self.max_at_once > 0
    }

    /// The counts of this worker.
    pub(crate) fn own(&self) -> RetryPlace<'_> {
        RetryPlace { spent: &self.own.spent, at_once: &self.own.at_once, of_worker: None }
    }

    /// A request is given to its first peer.
    pub(crate) fn begun(&self, counts: RetryPlace<'_>) {
        if let Some(Budget { percent, .. }) = self.budget {
            let less = |spent: u32| (spent > 0).then(|| spent.saturating_sub(percent));
            let _ = counts.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Whether one more retry may be made, which is counted then. `is_retrying`: the request was
    /// tried again before.
    pub(crate) fn take(&self, counts: RetryPlace<'_>, is_retrying: bool) -> bool {
        let RetryPlace { spent, at_once, of_worker } = counts;
        if !is_retrying {
            let most = if self.max_at_once == 0 { u32::MAX } else { self.max_at_once };
            let more = |now: u32| (now < most).then(|| now + 1);
            if at_once.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                return false;
            }
            if let Some(own) = of_worker {
                own.fetch_add(1, Ordering::Relaxed);
            }
        }
        let Some(Budget { burst, .. }) = self.budget else { return true };
        let most = burst.saturating_mul(100);
        let pay = |spent: u32| spent.checked_add(100).filter(|spent| *spent <= most);
        let is_paid = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok();
        if !is_paid && !is_retrying {
            self.over(counts);
        }
        is_paid
    }

    /// A request that was tried again is over.
    pub(crate) fn over(&self, counts: RetryPlace<'_>) {
        for count in [Some(counts.at_once), counts.of_worker].into_iter().flatten() {
            let less = |now: u32| now.checked_sub(1);
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

impl Group {
    /// Judges how a request at a peer ended; who is ejected then is logged.
    pub(crate) fn judge(&self, peer: PeerIndex, grade: Grade, now_ms: u64) {
        let ejected = self.live().home.judge(peer, grade, now_ms);
        for (peer, sign) in ejected {
            self.note(peer, What::Ejected, reason(sign));
            let (peer, group, reason) = (self.peer(peer), self.name(), reason(sign));
            let message = format_args!(
                "upstream server {} of \"{group}\" is ejected after {reason}",
                peer.name
            );
            Log::process().write(Level::Warn, None, message, &no_context);
        }
    }
}

/// What the log says of an ejection, after the server.
fn reason(sign: Sign) -> &'static str {
    match sign {
        Sign::Consecutive5xx => "consecutive answers of 5xx",
        Sign::ConsecutiveErrors => "consecutive failures",
        Sign::SuccessRate => "a success rate far below that of others",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_directives() {
        let rules = OUTLIER_DETECTION.read_text("consecutive_5xx=0 success_rate=1.9 interval=1s");
        let rules = rules.expect("good words");
        assert_eq!((rules.consecutive_5xx, rules.deviation, rules.interval_ms), (0, 1900, 1000));
        for bad in ["x", "x=1", "interval=0", "success_rate=a", "max_ejection_percent=101"] {
            let found = OUTLIER_DETECTION.read_text(bad).map_err(|invalid| invalid.message);
            assert_eq!(found.err(), Some(format!("invalid parameter \"{bad}\"")));
        }
        assert_eq!(thousandths(b"2"), Some(2000));
        assert_eq!(thousandths(b"0.05"), Some(50));
        assert_eq!(thousandths(b"1."), None);
        let budget = RETRY_BUDGET.read_text("20 burst=3").expect("good words");
        assert_eq!(budget, Budget { percent: 20, burst: 3 });
        assert!(RETRY_BUDGET.read_text("101").is_err());
        assert!(RETRY_BUDGET.read_text("20 burst").is_err());
        let breaker = CIRCUIT_BREAKER.read_text("max_retries=2 max_requests=9").expect("good");
        assert_eq!(breaker, Breaker { max_requests: 9, max_retries: 2 });
        assert!(CIRCUIT_BREAKER.read_text("max_requests=0").is_err());
        assert!(CIRCUIT_BREAKER.read_text("requests=1").is_err());
    }

    #[test]
    fn retries_are_paid_for_by_requests() {
        let retries = Retries::new(Some(Budget { percent: 20, burst: 2 }), Breaker::default());
        let counts = retries.own();
        assert!(retries.take(counts, false) && retries.take(counts, false));
        assert!(!retries.take(counts, false));
        let taken = (0..100).filter(|_| {
            retries.begun(counts);
            retries.take(counts, false)
        });
        assert_eq!(taken.count(), 20);
    }

    #[test]
    fn retries_at_once_are_bounded() {
        let breaker = Breaker { max_retries: 1, ..Breaker::default() };
        let retries = Retries::new(None, breaker);
        let counts = retries.own();
        assert!(retries.take(counts, false));
        assert!(retries.take(counts, true), "the same request again");
        assert!(!retries.take(counts, false));
        retries.over(counts);
        assert!(retries.take(counts, false));
    }

    #[test]
    fn a_retry_that_cannot_be_paid_for_is_not_under_way() {
        let breaker = Breaker { max_retries: 1, ..Breaker::default() };
        let retries = Retries::new(Some(Budget { percent: 100, burst: 1 }), breaker);
        let counts = retries.own();
        assert!(retries.take(counts, false));
        retries.over(counts);
        assert!(!retries.take(counts, false), "nothing is left");
        retries.begun(counts);
        assert!(retries.take(counts, false));
    }
}
