//! The texts of "now" that headers and logs print, made at most once per second per worker.
//!
//! All of them are arrays of fixed length, handed out by value: nobody holds a borrow of the
//! cache and nobody allocates. Also here: dates of other moments, written and read as HTTP does
//! (RFC 9110 section 5.6.7).
//!
//! "Now" is the system's clock. A process that runs a driver calls [`turn`] once per turn of its
//! loop, and all texts then come from that one reading, as nginx's cached time does; a process
//! that never does (the master) reads the clock at each use.

use std::cell::{Cell, RefCell};
use std::time::Duration;
use system::clock::{Calendar, local, seconds_of, universal, wall};

const WEEKDAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
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
    static TURN: Cell<Option<Duration>> = const { Cell::new(None) };
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

/// Sets "now" for this process until the next call: a worker's loop gives its driver's wall
/// clock once per turn. `None` returns to reading the system's clock at each use, which a
/// process that has left its loop needs.
pub fn turn(now: Option<Duration>) {
    TURN.set(now);
}

/// Time since 1970-01-01 00:00 UTC, as of this turn of the loop.
pub fn now() -> Duration {
    TURN.get().unwrap_or_else(wall)
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
    let now = now();
    let mut out = *b"0000000000.000";
    decimal(&mut out[..10], now.as_secs());
    decimal(&mut out[11..], u64::from(now.subsec_millis()));
    out
}

fn text<T>(pick: impl Fn(&Texts) -> T) -> T {
    let second = now().as_secs();
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
            http_date: http_date_of(second as i64),
            error_log: error_log_text(&here),
            time_local: time_local_text(&here),
            time_iso8601: time_iso8601_text(&here),
            syslog: syslog_text(&here),
        }
    }
}

/// The HTTP date of any moment, such as a file's last change. Years need four digits; a moment
/// outside 0 to 9999 keeps the last four.
pub fn http_date_of(seconds: i64) -> [u8; 29] {
    let at = universal(seconds);
    let mut out = *b"Sun, 06 Nov 1994 08:49:37 GMT";
    out[..3].copy_from_slice(name(&WEEKDAYS, at.weekday));
    decimal(&mut out[5..7], at.day.into());
    out[8..11].copy_from_slice(name(&MONTHS, at.month.wrapping_sub(1)));
    decimal(&mut out[12..16], at.year.unsigned_abs());
    time_of_day(&mut out[17..25], &at);
    out
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

/// Seconds since 1970 of a date in any of the three forms of RFC 9110 section 5.6.7, or `None`
/// when it is none of them or names a day that does not exist. As in nginx the name of the
/// weekday and whatever follows the time (`GMT`, `; length=...`) are not looked at, and a
/// two-digit year below 70 is in the 21st century.
pub fn parse_http_date(text: &[u8]) -> Option<i64> {
    let at = text.iter().position(|&byte| byte == b',' || byte == b' ')?;
    let rest = text[at + 1..].trim_ascii_start();
    if text[at] == b' ' {
        return parse_asctime(rest);
    }
    match rest.get(2)? {
        b' ' => parse_fixdate(rest),
        b'-' => parse_rfc850(rest),
        _ => None,
    }
}

/// `06 Nov 1994 08:49:37`
fn parse_fixdate(text: &[u8]) -> Option<i64> {
    let text = text.get(..20)?;
    if text[6] != b' ' || text[11] != b' ' {
        return None;
    }
    moment(number(&text[7..11])?, month(&text[3..6])?, number(&text[..2])?, &text[12..])
}

/// `06-Nov-94 08:49:37`
fn parse_rfc850(text: &[u8]) -> Option<i64> {
    let text = text.get(..18)?;
    if text[6] != b'-' || text[9] != b' ' {
        return None;
    }
    let short = number(&text[7..9])?;
    let year = if short < 70 { short + 2000 } else { short + 1900 };
    moment(year, month(&text[3..6])?, number(&text[..2])?, &text[10..])
}

/// `Nov  6 08:49:37 1994`
fn parse_asctime(text: &[u8]) -> Option<i64> {
    let text = text.get(..20)?;
    if text[3] != b' ' || text[6] != b' ' || text[15] != b' ' {
        return None;
    }
    let day = if text[4] == b' ' { number(&text[5..6])? } else { number(&text[4..6])? };
    moment(number(&text[16..])?, month(&text[..3])?, day, &text[7..15])
}

fn month(text: &[u8]) -> Option<u8> {
    MONTHS.iter().position(|month| *month == text).map(|at| at as u8 + 1)
}

fn number(text: &[u8]) -> Option<u16> {
    text.iter().try_fold(0u16, |sum, &byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u16::from(byte - b'0'))
    })
}

fn moment(year: u16, month: u8, day: u16, time: &[u8]) -> Option<i64> {
    if time[2] != b':' || time[5] != b':' {
        return None;
    }
    let (hour, minute, second) =
        (number(&time[..2])?, number(&time[3..5])?, number(&time[6..])?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day == 0 || day > days || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let [day, hour, minute, second] = [day, hour, minute, second].map(|field| field as u8);
    Some(seconds_of(year.into(), month, day, hour, minute, second))
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
        let sunday = universal(784_111_777);
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
    fn a_turn_decides_what_now_is() {
        let check = |millis: u64, date: &str, msec_text: &str| {
            turn(Some(Duration::from_millis(millis)));
            assert_eq!(as_text(&http_date()), date);
            assert_eq!(as_text(&msec()), msec_text);
        };
        check(784_111_777_042, "Sun, 06 Nov 1994 08:49:37 GMT", "0784111777.042");
        check(784_111_778_000, "Sun, 06 Nov 1994 08:49:38 GMT", "0784111778.000");
        check(1_795_175_999_999, "Fri, 20 Nov 2026 11:59:59 GMT", "1795175999.999");
        turn(None);
        assert!(now().as_secs() > 1_577_836_800);
    }

    #[test]
    fn dates_of_clients() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse_http_date(text.as_bytes()), expected, "{text}");
        };
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sun,06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800));
        check("Thu, 29 Feb 2023 00:00:00 GMT", None);
        check("Sun, 06 Nov 1994 08:49:37 GMT; length=19", Some(784_111_777));
        check("Sun, 06 Nov 1994 08:49:3", None);
        check("Sun, 06 Nov 1994 24:49:37 GMT", None);
        check("Sun, 06 Nov 1994 08-49-37 GMT", None);
        check("Sun, 00 Nov 1994 08:49:37 GMT", None);
        check("Sun, 06 nov 1994 08:49:37 GMT", None);
        check("Sun, +6 Nov 1994 08:49:37 GMT", None);
        check("Sun, 06", None);
        check("Sun Nov", None);
        check("Sun,", None);
        check("", None);
        check("784111777", None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        for seconds in [0, 1, 951_782_400, 784_111_777, 253_402_300_799] {
            assert_eq!(parse_http_date(&http_date_of(seconds)), Some(seconds));
        }
    }
}
