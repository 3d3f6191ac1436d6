//! `Range: bytes=...` (RFC 9110 section 14) with nginx's answers to odd ones.

use super::{date, etag};

/// A run of bytes of the representation: `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    pub start: u64,
    pub end: u64,
}

/// What to do with a `Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer 206 with the ranges that were found (one or more).
    Partial,
    /// Answer 416.
    NotSatisfiable,
    /// Answer as if there were no `Range`.
    Whole,
}

/// Reads a `Range` against a representation of `length` bytes; `out` is cleared and filled with
/// the satisfiable ranges in the order they were asked for.
///
/// `max_ranges` is nginx's directive: `None` (no limit) also ignores sets whose multipart framing
/// would outgrow the whole representation. A unit other than bytes is ignored, a malformed set is
/// answered 416, and sets that ask for more than there is are ignored.
pub fn parse(
    value: &[u8],
    length: u64,
    max_ranges: Option<u32>,
    out: &mut Vec<ByteRange>,
) -> Verdict {
    out.clear();
    let set = match value.split_at_checked(6) {
        Some((unit, set)) if unit.eq_ignore_ascii_case(b"bytes=") && !set.is_empty() => set,
        _ => return Verdict::Whole,
    };
    let Ok(length) = i64::try_from(length) else { return Verdict::Whole };
    let mut total = 0i64;
    for spec in set.split(|&byte| byte == b',') {
        let Some(Range { start, end }) = resolve(spec, length) else {
            return Verdict::NotSatisfiable;
        };
        if start < end {
            let (Ok(first), Ok(last)) = (u64::try_from(start), u64::try_from(end)) else {
                return Verdict::NotSatisfiable;
            };
            out.push(ByteRange { start: first, end: last });
            let Some(sum) = total.checked_add(end - start) else {
                return Verdict::NotSatisfiable;
            };
            total = sum;
            if max_ranges.is_some_and(|max| out.len() > max as usize) {
                return Verdict::Whole;
            }
        } else if start == 0 {
            return Verdict::Whole;
        }
    }
    match out.len() {
        0 => Verdict::NotSatisfiable,
        1 => Verdict::Partial,
        _ if total > length => Verdict::Whole,
        // A part's header is reckoned at 256 bytes; small excesses are let pass.
        parts
            if max_ranges.is_none()
                && total.saturating_add(parts as i64 * 256) > length.saturating_add(4096) =>
        {
            Verdict::Whole
        }
        _ => Verdict::Partial,
    }
}

struct Range {
    start: i64,
    end: i64,
}

/// One range of a set, cut to `length`; `None` when it is malformed.
fn resolve(spec: &[u8], length: i64) -> Option<Range> {
    let (first, rest) = number(skip_spaces(spec))?;
    let rest = skip_spaces(rest).strip_prefix(b"-")?;
    let (last, rest) = match first {
        // No space may part a suffix's hyphen from its number.
        None => number(rest)?,
        Some(_) => number(skip_spaces(rest))?,
    };
    if !skip_spaces(rest).is_empty() {
        return None;
    }
    let (start, last) = match (first, last) {
        (Some(start), Some(last)) => (start, last),
        (Some(start), None) => (start, length),
        (None, Some(suffix)) => ((length - suffix).max(0), length - 1),
        (None, None) => return None,
    };
    Some(Range { start, end: if last >= length { length } else { last + 1 } })
}

/// Digits at the start, if any, and what follows; `None` when they overflow.
fn number(text: &[u8]) -> Option<(Option<i64>, &[u8])> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() {
        return Some((None, rest));
    }
    let value = digits.iter().try_fold(0i64, |value, digit| {
        value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
    })?;
    Some((Some(value), rest))
}

fn skip_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

/// True when an `If-Range` holds, so that `Range` applies: an entity tag that equals the
/// response's, or a date that equals its `Last-Modified` to the second.
pub fn if_range_holds(value: &[u8], etag: Option<&[u8]>, last_modified: Option<i64>) -> bool {
    if value.len() >= 2 && value.ends_with(b"\"") {
        return etag.is_some_and(|etag| etag == value && !etag.is_empty());
    }
    last_modified.is_some() && date::parse(value) == last_modified
}

/// True when `If-Match` or `If-None-Match` names the tag; see [`etag::matches`].
pub use etag::matches as etag_matches;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, length: u64, expected: Verdict, ranges: &[(u64, u64)]) {
        let mut out = Vec::new();
        assert_eq!(parse(value.as_bytes(), length, None, &mut out), expected, "{value:?}");
        if expected == Verdict::Partial {
            let found: Vec<_> = out.iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(found, ranges, "{value:?}");
        }
    }

    #[test]
    fn ranges_of_a_thousand_bytes() {
        use Verdict::*;
        check("bytes=0-8", 1000, Partial, &[(0, 9)]);
        check("Bytes=0-0", 1000, Partial, &[(0, 1)]);
        check("bytes=990-", 1000, Partial, &[(990, 1000)]);
        check("bytes=990-5000", 1000, Partial, &[(990, 1000)]);
        check("bytes=-10", 1000, Partial, &[(990, 1000)]);
        check("bytes=-5000", 1000, Partial, &[(0, 1000)]);
        check("bytes= 1 - 2 , 5-6", 1000, Partial, &[(1, 3), (5, 7)]);
        check("bytes=5-6,1-2,-1", 1000, Partial, &[(5, 7), (1, 3), (999, 1000)]);
        check("bytes=1000-", 1000, NotSatisfiable, &[]);
        check("bytes=5000-6000", 1000, NotSatisfiable, &[]);
        check("bytes=5000-,0-0", 1000, Partial, &[(0, 1)]);
        check("bytes=-0", 1000, NotSatisfiable, &[]);
        check("bytes=", 1000, Whole, &[]);
        check("bytes=,", 1000, NotSatisfiable, &[]);
        check("bytes=-", 1000, NotSatisfiable, &[]);
        check("bytes=a-b", 1000, NotSatisfiable, &[]);
        check("bytes=1-2x", 1000, NotSatisfiable, &[]);
        check("bytes=1-2,", 1000, NotSatisfiable, &[]);
        check("bytes=--1", 1000, NotSatisfiable, &[]);
        check("bytes=- 1", 1000, NotSatisfiable, &[]);
        check("bytes=5-1", 1000, NotSatisfiable, &[]);
        check("bytes=0-999999999999999999999", 1000, NotSatisfiable, &[]);
        check("bytes=9223372036854775807-", 1000, NotSatisfiable, &[]);
        check("bytes=0-9223372036854775807", 1000, Partial, &[(0, 1000)]);
        check("lines=0-8", 1000, Whole, &[]);
        check("", 1000, Whole, &[]);
        check("bytes=0-,0-", 1000, Whole, &[]);
        check("bytes=-10", 0, Whole, &[]);
        check("bytes=0-", 0, Whole, &[]);
        check("bytes=1-", 0, NotSatisfiable, &[]);
    }

    #[test]
    fn limits() {
        let mut out = Vec::new();
        assert_eq!(parse(b"bytes=0-0,2-2", 9, Some(1), &mut out), Verdict::Whole);
        assert_eq!(parse(b"bytes=0-0,2-2", 9, Some(2), &mut out), Verdict::Partial);
        let many = format!("bytes={}", vec!["1-1"; 40].join(","));
        assert_eq!(parse(many.as_bytes(), 1000, None, &mut out), Verdict::Whole);
        assert_eq!(parse(many.as_bytes(), 1000, Some(100), &mut out), Verdict::Partial);
    }

    #[test]
    fn if_range() {
        let check = |value: &str, etag: Option<&str>, modified, expected| {
            let found = if_range_holds(value.as_bytes(), etag.map(str::as_bytes), modified);
            assert_eq!(found, expected, "{value:?}");
        };
        check("\"a\"", Some("\"a\""), None, true);
        check("\"b\"", Some("\"a\""), None, false);
        check("\"a\"", None, Some(0), false);
        check("Thu, 01 Jan 1970 00:00:10 GMT", None, Some(10), true);
        check("Thu, 01 Jan 1970 00:00:10 GMT", None, Some(11), false);
        check("Thu, 01 Jan 1970 00:00:10 GMT", None, None, false);
        check("nonsense", None, None, false);
    }
}
