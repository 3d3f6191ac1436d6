//! The texts of "now" that headers and logs print, made at most once per second per worker.
//!
//! All of them are arrays of fixed length, handed out by value: nobody holds a borrow of the
//! cache and nobody allocates. Dates of other moments are in `wire::http1::date`.
//!
//! "Now" is the driver's wall clock: read once per turn of a worker's loop, and at each use in a
//! process that runs no loop (the master).

use std::cell::RefCell;
use system::clock::{Calendar, local};
use system::driver::wall;
use wire::http1::date;

pub use wire::http1::date::format as http_date_of;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

struct Texts {
    second: u64,
    http_date: [u8; 29],
    error_log: [u8; 19],
    time_local: [u8; 26],
    time_iso8601: [u8; 25],
    syslog: [u8; 15],
}

thread_local! {
    static TEXTS: RefCell<Texts> = const { RefCell::new(Texts {
        // No clock says this, so the first use fills the texts.
        second: u64::MAX,
        http_date: [0; 29],
        error_log: [0; 19],
        time_local: [0; 26],
        time_iso8601: [0; 25],
        syslog: [0; 15],
    }) };
}

/// Forgets the texts, after the time zone changed.
pub fn zone_changed() {
    system::clock::zone_changed();
    TEXTS.with_borrow_mut(|texts| texts.second = u64::MAX);
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, for the `Date` header.
pub fn http_date() -> [u8; 29] {
    text(|texts| texts.http_date)
}

/// `1994/11/06 08:49:37` in local time, for the error log.
pub fn error_log() -> [u8; 19] {
    text(|texts| texts.error_log)
}

/// `06/Nov/1994:08:49:37 +0000`: the variable `$time_local`.
pub fn time_local() -> [u8; 26] {
    text(|texts| texts.time_local)
}

/// `1994-11-06T08:49:37+00:00`: the variable `$time_iso8601`.
pub fn time_iso8601() -> [u8; 25] {
    text(|texts| texts.time_iso8601)
}

/// `Nov  6 08:49:37` in local time (RFC 3164 section 4.1.2).
pub fn syslog() -> [u8; 15] {
    text(|texts| texts.syslog)
}

/// `784111777.042`, seconds with milliseconds: the variable `$msec`. Ten digits of seconds last
/// until the year 2286.
pub fn msec() -> [u8; 14] {
    msec_of(wall())
}

fn msec_of((seconds, millis): (u64, u32)) -> [u8; 14] {
    let mut out = *b"0000000000.000";
    decimal(&mut out[..10], seconds);
    decimal(&mut out[11..], u64::from(millis));
    out
}

fn text<T>(pick: impl Fn(&Texts) -> T) -> T {
    let (second, _) = wall();
    TEXTS.with_borrow_mut(|texts| {
        if texts.second != second {
            *texts = Texts::of(second);
        }
        pick(texts)
    })
}

impl Texts {
    fn of(second: u64) -> Texts {
        let here = local(second as i64);
        Texts {
            second,
            http_date: date::format(second as i64),
            error_log: error_log_text(&here),
            time_local: time_local_text(&here),
            time_iso8601: time_iso8601_text(&here),
            syslog: syslog_text(&here),
        }
    }
}

fn error_log_text(at: &Calendar) -> [u8; 19] {
    let mut out = *b"1994/11/06 08:49:37";
    decimal(&mut out[..4], at.year.unsigned_abs());
    decimal(&mut out[5..7], at.month.into());
    decimal(&mut out[8..10], at.day.into());
    time_of_day(&mut out[11..], at);
    out
}

fn time_local_text(at: &Calendar) -> [u8; 26] {
    let mut out = *b"06/Nov/1994:08:49:37 +0000";
    decimal(&mut out[..2], at.day.into());
    out[3..6].copy_from_slice(name(&MONTHS, at.month.wrapping_sub(1)));
    decimal(&mut out[7..11], at.year.unsigned_abs());
    time_of_day(&mut out[12..20], at);
    let offset = u64::from(at.offset_minutes.unsigned_abs());
    out[21] = sign(at);
    decimal(&mut out[22..24], offset / 60);
    decimal(&mut out[24..26], offset % 60);
    out
}

fn time_iso8601_text(at: &Calendar) -> [u8; 25] {
    let mut out = *b"1994-11-06T08:49:37+00:00";
    decimal(&mut out[..4], at.year.unsigned_abs());
    decimal(&mut out[5..7], at.month.into());
    decimal(&mut out[8..10], at.day.into());
    time_of_day(&mut out[11..19], at);
    let offset = u64::from(at.offset_minutes.unsigned_abs());
    out[19] = sign(at);
    decimal(&mut out[20..22], offset / 60);
    decimal(&mut out[23..25], offset % 60);
    out
}

fn syslog_text(at: &Calendar) -> [u8; 15] {
    let mut out = *b"Nov  6 08:49:37";
    out[..3].copy_from_slice(name(&MONTHS, at.month.wrapping_sub(1)));
    decimal(&mut out[4..6], at.day.into());
    if out[4] == b'0' {
        out[4] = b' ';
    }
    time_of_day(&mut out[7..], at);
    out
}

fn sign(at: &Calendar) -> u8 {
    if at.offset_minutes < 0 { b'-' } else { b'+' }
}

fn time_of_day(out: &mut [u8], at: &Calendar) {
    decimal(&mut out[..2], at.hour.into());
    decimal(&mut out[3..5], at.minute.into());
    decimal(&mut out[6..8], at.second.into());
}

/// Fills `out` with the last digits of `value`.
fn decimal(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn name<'a>(names: &[&'a [u8; 3]], at: u8) -> &'a [u8; 3] {
    names.get(usize::from(at)).copied().unwrap_or(b"???")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_text_has_its_form() {
        let check = |at: Calendar, expected: [&str; 4]| {
            let found = [
                as_text(&error_log_text(&at)).to_owned(),
                as_text(&time_local_text(&at)).to_owned(),
                as_text(&time_iso8601_text(&at)).to_owned(),
                as_text(&syslog_text(&at)).to_owned(),
            ];
            assert_eq!(found, expected);
        };
        let sunday = Calendar {
            year: 1994,
            month: 11,
            day: 6,
            hour: 8,
            minute: 49,
            second: 37,
            offset_minutes: 0,
        };
        check(
            sunday,
            [
                "1994/11/06 08:49:37",
                "06/Nov/1994:08:49:37 +0000",
                "1994-11-06T08:49:37+00:00",
                "Nov  6 08:49:37",
            ],
        );
        check(
            Calendar { day: 16, offset_minutes: -570, ..sunday },
            [
                "1994/11/16 08:49:37",
                "16/Nov/1994:08:49:37 -0930",
                "1994-11-16T08:49:37-09:30",
                "Nov 16 08:49:37",
            ],
        );
    }

    #[test]
    fn moments_have_milliseconds() {
        for (now, expected) in [
            ((784_111_777, 42), "0784111777.042"),
            ((1_795_175_999, 999), "1795175999.999"),
            ((951_782_400, 0), "0951782400.000"),
        ] {
            assert_eq!(as_text(&msec_of(now)), expected);
        }
    }

    #[test]
    fn now_is_one_moment_in_all_texts() {
        // The second may change between two calls; then the next try has a whole one to itself.
        let all = || (http_date(), error_log(), time_local(), time_iso8601(), syslog());
        let (before, texts) = loop {
            let before = wall().0;
            let texts = all();
            if wall().0 == before {
                break (before as i64, texts);
            }
        };
        assert_eq!(date::parse(&texts.0), Some(before));
        let here = local(before);
        let expected = (
            date::format(before),
            error_log_text(&here),
            time_local_text(&here),
            time_iso8601_text(&here),
            syslog_text(&here),
        );
        assert_eq!(texts, expected);
    }
}
