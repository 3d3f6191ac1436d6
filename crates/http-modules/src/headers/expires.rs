//! `expires`: the fields Expires and Cache-Control (RFC 9111 section 5).

use config::{Args, Arity, Directive, Invalid, read};
use http::Exchange;
use http::compile::Compiler;
use session::text::Span;
use session::variables::Template;
use wire::http1::{Known, date};

use super::PLACES;
use crate::not_modified::last_modified;

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;
/// What `epoch` says: long ago.
const LONG_AGO: &[u8] = b"Thu, 01 Jan 1970 00:00:01 GMT";
/// What `max` says: the last moment that 32 bits can tell, nearly.
const NEVER: &[u8] = b"Thu, 31 Dec 2037 23:55:55 GMT";

/// `expires`, see [`Line`].
pub(super) static EXPIRES: Directive<Line> = Directive::new("expires", PLACES, read_expires)
    .takes(Arity::Between(1, 2))
    .default("off")
    .syntax("expires [modified] TIME;\nexpires @TIME;\nexpires epoch | max | off;")
    .text(
        "How long answers stay fresh, as told by the fields Expires and Cache-Control, for the \
         statuses that `add_header` names: TIME from now, or from the last change with \
         `modified`; until the local time of day TIME with `@`. A negative TIME and `epoch` \
         forbid the use of stored answers, `max` allows it for ten years, `off` says nothing. \
         With variables in it, a value that makes no sense counts as `off`.",
    )
    .example("expires 30d;");

/// `expires` as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    from: From,
    value: Value,
}

/// Where the time is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Now,
    LastChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Constant(Rule),
    Template(config::Template),
}

/// What a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Off,
    Epoch,
    Max,
    /// Seconds, negative for the past.
    Seconds(i64),
    /// Seconds since midnight, local time.
    Daily(u64),
}

fn read_expires(args: &Args<'_>) -> Result<Line, Invalid> {
    let (from, at) = match args.len() {
        1 => (From::Now, 0),
        _ if args.word(0).bytes() == b"modified" => (From::LastChange, 1),
        _ => return Err(read::refuse(args, 0, "invalid value")),
    };
    let template = read::template_at(args, at)?;
    let value = match template.constant() {
        None => Value::Template(template),
        Some(text) => {
            let rule = parse(text, from).map_err(|what| read::refuse(args, at, what))?;
            Value::Constant(rule)
        }
    };
    Ok(Line { from, value })
}

fn parse(text: &[u8], from: From) -> Result<Rule, &'static str> {
    if from == From::Now {
        match text {
            b"epoch" => return Ok(Rule::Epoch),
            b"max" => return Ok(Rule::Max),
            b"off" => return Ok(Rule::Off),
            _ => {}
        }
    }
    let (sign, digits) = match text {
        [sign @ (b'@' | b'+' | b'-'), digits @ ..] => (*sign, digits),
        _ => (b'+', text),
    };
    if sign == b'@' && from == From::LastChange {
        return Err("daily time cannot be used with \"modified\" parameter");
    }
    let seconds = read::parse_time_s(digits).ok_or("invalid value")?;
    let signed = i64::try_from(seconds).map_err(|_| "invalid value")?;
    match sign {
        b'@' if seconds > DAY => Err("daily time value must be less than 24 hours"),
        b'@' => Ok(Rule::Daily(seconds)),
        b'-' => Ok(Rule::Seconds(-signed)),
        _ => Ok(Rule::Seconds(signed)),
    }
}

/// `expires` of a location, compiled.
pub(super) struct Lifetime {
    from: From,
    rule: Source,
}

enum Source {
    Constant(Rule),
    Template(Template),
}

impl Lifetime {
    /// `None` for `off`.
    pub(super) fn compile(c: &mut Compiler<'_>, line: &Line) -> Option<Lifetime> {
        let rule = match &line.value {
            Value::Constant(Rule::Off) => return None,
            Value::Constant(rule) => Source::Constant(*rule),
            Value::Template(template) => Source::Template(c.template(template)),
        };
        Some(Lifetime { from: line.from, rule })
    }

    pub(super) fn apply(&self, x: &mut Exchange) {
        let rule = match &self.rule {
            Source::Constant(rule) => *rule,
            Source::Template(template) => {
                let value = template.value(x);
                match parse(x.text(value), self.from) {
                    Ok(rule) => rule,
                    Err(_) => return,
                }
            }
        };
        let now = net::wall().0 as i64;
        let (date, age) = match rule {
            Rule::Off => return,
            Rule::Epoch => (x.arena.push(LONG_AGO), None),
            Rule::Max => (x.arena.push(NEVER), Some(315_360_000)),
            Rule::Seconds(0) => (x.arena.push(&session::clock::http_date()), Some(0)),
            Rule::Seconds(seconds) => {
                let base = match self.from {
                    From::Now => now,
                    From::LastChange => last_modified(x).unwrap_or(now),
                };
                let until = base.saturating_add(seconds);
                let age = Some(until - now).filter(|age| *age >= 0 && seconds >= 0);
                (x.arena.push(&date::format(until)), age)
            }
            Rule::Daily(seconds) => {
                let until = next(now, seconds);
                (x.arena.push(&date::format(until)), Some(until - now))
            }
        };
        let control = match age {
            None => x.arena.push(b"no-cache"),
            Some(age) => x.arena.format(format_args!("max-age={age}")),
        };
        x.response.headers.set_known(Known::Expires, date);
        set_only(x, Known::CacheControl, control);
    }
}

/// Gives a field that value, and removes the others of its name.
fn set_only(x: &mut Exchange, known: Known, value: Span) {
    x.response.headers.set_known(known, value);
    let mut is_first = true;
    x.response
        .headers
        .retain(|field| field.known != known || std::mem::replace(&mut is_first, false));
}

/// The next moment after `now` at which the local time of day is `seconds` after midnight.
fn next(now: i64, seconds: u64) -> i64 {
    let today = system::clock::local(now);
    let passed =
        i64::from(today.hour) * 3600 + i64::from(today.minute) * 60 + i64::from(today.second);
    let wait = (seconds as i64 - passed).rem_euclid(DAY as i64);
    let until = now + if wait == 0 { DAY as i64 } else { wait };
    // A change of the zone's offset between now and then moves the moment.
    let then = system::clock::local(until);
    until - 60 * (i64::from(then.offset_minutes) - i64::from(today.offset_minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let check = |text: &str, from: From, expected: Result<Rule, &str>| {
            assert_eq!(parse(text.as_bytes(), from), expected, "{text}");
        };
        check("epoch", From::Now, Ok(Rule::Epoch));
        check("max", From::Now, Ok(Rule::Max));
        check("off", From::Now, Ok(Rule::Off));
        check("1h30m", From::Now, Ok(Rule::Seconds(5400)));
        check("+5", From::Now, Ok(Rule::Seconds(5)));
        check("-1", From::Now, Ok(Rule::Seconds(-1)));
        check("@15h30m33s", From::Now, Ok(Rule::Daily(55_833)));
        check("@24h", From::Now, Ok(Rule::Daily(86_400)));
        check("@25h", From::Now, Err("daily time value must be less than 24 hours"));
        check("", From::Now, Err("invalid value"));
        check("bad", From::Now, Err("invalid value"));
        check("5", From::LastChange, Ok(Rule::Seconds(5)));
        check("epoch", From::LastChange, Err("invalid value"));
        let daily = "daily time cannot be used with \"modified\" parameter";
        check("@1h", From::LastChange, Err(daily));
    }

    #[test]
    fn the_next_time_of_day_lies_within_a_day() {
        for now in [0, 1_700_000_000, 1_774_746_000, 1_792_890_000] {
            for seconds in [0, 1, 12 * 3600, DAY - 1] {
                let until = next(now, seconds);
                let then = system::clock::local(until);
                assert!(until > now && until <= now + DAY as i64 + 7200, "{now} {seconds}");
                let found = u64::from(then.hour) * 3600
                    + u64::from(then.minute) * 60
                    + u64::from(then.second);
                assert_eq!(found, seconds, "{now}");
            }
        }
    }
}
