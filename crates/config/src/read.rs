//! Ready readers, with nginx's parsing and wording, and the raw parsers on bytes beneath them.
//!
//! A reader turns a directive's arguments into a value. Those here are `fn(&Args) -> Result<T,
//! Invalid>`, ready for [`crate::Directive::new`]; those that want a table or bounds are called
//! from a small reader of the directive's own. Raw parsers return `None` for what nginx refuses.

use crate::directive::{Args, Invalid};
use crate::suggest;
use crate::template::{self, Template};

/// A number of buffers of one size, as `proxy_buffers 8 4k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    pub number: u64,
    /// Bytes.
    pub size: u64,
}

/// The words `"name" directive WHAT`, pointing at argument `word`.
pub fn refuse(args: &Args<'_>, word: usize, what: &str) -> Invalid {
    Invalid::new(format!("\"{}\" directive {what}", args.name())).at(word)
}

/// Milliseconds: `1d 2h` in quotes, `30s`, `500ms`; a bare number is seconds.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn time_ms(args: &Args<'_>) -> Result<u64, Invalid> {
    time_ms_at(args, 0)
}

/// As [`time_ms`], from argument `i`.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn time_ms_at(args: &Args<'_>, i: usize) -> Result<u64, Invalid> {
    parse_time_ms(args.word(i).bytes()).ok_or_else(|| refuse(args, i, "invalid value"))
}

/// Seconds: as [`time_ms`], also with years and months, without `ms`.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn time_s(args: &Args<'_>) -> Result<u64, Invalid> {
    time_s_at(args, 0)
}

/// As [`time_s`], from argument `i`.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn time_s_at(args: &Args<'_>, i: usize) -> Result<u64, Invalid> {
    parse_time_s(args.word(i).bytes()).ok_or_else(|| refuse(args, i, "invalid value"))
}

/// Bytes, with `k` or `m`.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn size(args: &Args<'_>) -> Result<u64, Invalid> {
    size_at(args, 0)
}

/// As [`size`], from argument `i`.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn size_at(args: &Args<'_>, i: usize) -> Result<u64, Invalid> {
    parse_size(args.word(i).bytes()).ok_or_else(|| refuse(args, i, "invalid value"))
}

/// Bytes of a file or body, with `k`, `m` or `g`.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn offset(args: &Args<'_>) -> Result<u64, Invalid> {
    offset_at(args, 0)
}

/// As [`offset`], from argument `i`.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn offset_at(args: &Args<'_>, i: usize) -> Result<u64, Invalid> {
    parse_offset(args.word(i).bytes()).ok_or_else(|| refuse(args, i, "invalid value"))
}

/// `on` or `off`, in any case of letters.
///
/// # Errors
/// `invalid value "x" in "name" directive, it must be "on" or "off"`.
pub fn flag(args: &Args<'_>) -> Result<bool, Invalid> {
    let word = args.word(0).bytes();
    if word.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if word.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err(Invalid::new(format!(
            "invalid value \"{}\" in \"{}\" directive, it must be \"on\" or \"off\"",
            args.word(0).shown(),
            args.name()
        ))
        .at(0))
    }
}

/// Digits only.
///
/// # Errors
/// `"name" directive invalid number`.
pub fn number(args: &Args<'_>) -> Result<u64, Invalid> {
    number_at(args, 0)
}

/// As [`number`], from argument `i`.
///
/// # Errors
/// `"name" directive invalid number`.
pub fn number_at(args: &Args<'_>, i: usize) -> Result<u64, Invalid> {
    parse_number(args.word(i).bytes()).ok_or_else(|| refuse(args, i, "invalid number"))
}

/// A number with bounds, both included; `high` may be `u64::MAX` for none.
///
/// # Errors
/// As [`number`]; `value must be between LOW and HIGH`, or `value must be equal to or greater
/// than LOW`.
pub fn number_between(args: &Args<'_>, low: u64, high: u64) -> Result<u64, Invalid> {
    let value = number(args)?;
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    let message = match (low, high) {
        (_, u64::MAX) => format!("value must be equal to or greater than {low}"),
        (0, _) => format!("value must be equal to or less than {high}"),
        _ => format!("value must be between {low} and {high}"),
    };
    Err(Invalid::new(message).at(0))
}

/// The first argument as text.
///
/// # Errors
/// None.
pub fn text(args: &Args<'_>) -> Result<String, Invalid> {
    Ok(args.str(0).into_owned())
}

/// The first argument as bytes.
///
/// # Errors
/// None.
pub fn bytes(args: &Args<'_>) -> Result<Vec<u8>, Invalid> {
    Ok(args.word(0).text.clone())
}

/// All arguments as texts.
///
/// # Errors
/// None.
pub fn texts(args: &Args<'_>) -> Result<Vec<String>, Invalid> {
    Ok(args.words().iter().map(|word| word.str().into_owned()).collect())
}

/// For directives whose presence says all, such as `ip_hash;` and most blocks.
///
/// # Errors
/// None.
pub fn nothing(_: &Args<'_>) -> Result<(), Invalid> {
    Ok(())
}

/// The first argument with its variables.
///
/// # Errors
/// As [`Template::parse`].
pub fn template(args: &Args<'_>) -> Result<Template, Invalid> {
    template_at(args, 0)
}

/// Argument `i` with its variables.
///
/// # Errors
/// As [`Template::parse`].
pub fn template_at(args: &Args<'_>, i: usize) -> Result<Template, Invalid> {
    template::of_word(args, i)
}

/// A number of buffers and their size, neither of them zero.
///
/// # Errors
/// `"name" directive invalid value`.
pub fn buffers(args: &Args<'_>) -> Result<Buffers, Invalid> {
    let number = parse_number(args.word(0).bytes()).filter(|&number| number > 0);
    let number = number.ok_or_else(|| refuse(args, 0, "invalid value"))?;
    let size = parse_size(args.word(1).bytes()).filter(|&size| size > 0);
    let size = size.ok_or_else(|| refuse(args, 1, "invalid value"))?;
    Ok(Buffers { number, size })
}

/// One of a few words, in any case of letters.
///
/// # Errors
/// `invalid value "x"`.
pub fn enumeration<T: Copy>(args: &Args<'_>, values: &[(&str, T)]) -> Result<T, Invalid> {
    let word = args.word(0).bytes();
    let found = values.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|&(_, value)| value).ok_or_else(|| invalid_value(args, 0, values))
}

/// Any of a few words, in any case of letters: their bits together.
///
/// # Errors
/// `invalid value "x"`. A repeated word only draws a
/// warning.
pub fn bitmask(args: &Args<'_>, values: &[(&str, u32)]) -> Result<u32, Invalid> {
    let mut bits = 0;
    for (i, word) in args.words().iter().enumerate() {
        let word = word.bytes();
        let found = values.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
        let Some(&(_, bit)) = found else { return Err(invalid_value(args, i, values)) };
        // nginx compares with all bits of a value, and some values are several bits.
        if bits & bit != 0 {
            args.warn(Invalid::new(format!("duplicate value \"{}\"", args.word(i).shown())).at(i));
        }
        bits |= bit;
    }
    Ok(bits)
}

fn invalid_value<T>(args: &Args<'_>, i: usize, values: &[(&str, T)]) -> Invalid {
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let near = suggest::word(&names, &args.str(i));
    let help = near.unwrap_or_else(|| format!("it may be: {}", names.join(", ")));
    Invalid::new(format!("invalid value \"{}\"", args.word(i).shown())).at(i).help(help)
}

/// Digits only, at most `i64::MAX`.
pub fn parse_number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    let value = word.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    (value <= MOST).then_some(value)
}

/// Bytes: digits, then perhaps `k` or `m`.
pub fn parse_size(word: &[u8]) -> Option<u64> {
    scaled(word, &[(b'k', 10), (b'm', 20)])
}

/// Bytes: digits, then perhaps `k`, `m` or `g`.
pub fn parse_offset(word: &[u8]) -> Option<u64> {
    scaled(word, &[(b'k', 10), (b'm', 20), (b'g', 30)])
}

/// nginx keeps all of these in signed 64-bit numbers.
const MOST: u64 = i64::MAX as u64;

fn scaled(word: &[u8], units: &[(u8, u32)]) -> Option<u64> {
    let (&last, digits) = word.split_last()?;
    let unit = units.iter().find(|(unit, _)| last.eq_ignore_ascii_case(unit));
    match unit {
        Some((_, shift)) => parse_number(digits)?.checked_mul(1 << shift).filter(|&n| n <= MOST),
        None => parse_number(word),
    }
}

/// Milliseconds. Units from weeks to `ms`, each at most once and in falling order.
pub fn parse_time_ms(word: &[u8]) -> Option<u64> {
    parse_time(word, false)
}

/// Seconds. Units from years to `s`, each at most once and in falling order.
pub fn parse_time_s(word: &[u8]) -> Option<u64> {
    parse_time(word, true)
}

/// The order of units; a unit must be later than the one before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Start,
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Last,
}

fn parse_time(word: &[u8], in_seconds: bool) -> Option<u64> {
    let thousand = if in_seconds { 1 } else { 1000 };
    let mut step = if in_seconds { Step::Start } else { Step::Month };
    let mut total = 0_u64;
    let mut value = 0_u64;
    let mut valid = false;
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte.is_ascii_digit() {
            value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            valid = true;
            continue;
        }
        let (next, scale) = unit(byte, &mut rest)?;
        let in_order = match next {
            // A space ends the whole: after it only a bare number may come.
            Step::Last => step < Step::Second,
            Step::Millisecond => !in_seconds && step < next,
            next => step < next,
        };
        if !in_order {
            return None;
        }
        step = next;
        let scale = if next == Step::Millisecond { scale } else { scale * thousand };
        total = total.checked_add(value.checked_mul(scale)?).filter(|&total| total <= MOST)?;
        value = 0;
        while let [b' ', after @ ..] = rest {
            rest = after;
        }
    }
    let total = total.checked_add(value.checked_mul(thousand)?).filter(|&total| total <= MOST)?;
    valid.then_some(total)
}

/// A unit's place in the order and its seconds (or one millisecond).
fn unit(byte: u8, rest: &mut &[u8]) -> Option<(Step, u64)> {
    const DAY: u64 = 24 * 60 * 60;
    Some(match byte {
        b'y' => (Step::Year, 365 * DAY),
        b'M' => (Step::Month, 30 * DAY),
        b'w' => (Step::Week, 7 * DAY),
        b'd' => (Step::Day, DAY),
        b'h' => (Step::Hour, 60 * 60),
        b'm' => match **rest {
            [b's', ref after @ ..] => {
                *rest = after;
                (Step::Millisecond, 1)
            }
            _ => (Step::Minute, 60),
        },
        b's' => (Step::Second, 1),
        b' ' => (Step::Last, 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        const DAY: u64 = 86_400;
        for (text, in_seconds, in_milliseconds) in [
            ("0", Some(0), Some(0)),
            ("30", Some(30), Some(30_000)),
            ("30s", Some(30), Some(30_000)),
            ("500ms", None, Some(500)),
            ("1s500ms", None, Some(1_500)),
            ("2m", Some(120), Some(120_000)),
            ("1d 2h", Some(DAY + 7_200), Some((DAY + 7_200) * 1_000)),
            ("1h 5", Some(3_605), Some(3_605_000)),
            ("30 5", Some(35), Some(30_000 + 5_000)),
            ("1w", Some(7 * DAY), Some(7 * DAY * 1_000)),
            ("1M", Some(30 * DAY), None),
            ("1y6M", Some((365 + 180) * DAY), None),
            ("6M1y", None, None),
            ("1h1h", None, None),
            ("", None, None),
            ("ms", None, None),
            ("h", None, None),
            ("1x", None, None),
            ("99999999999999999999", None, None),
        ] {
            assert_eq!(parse_time_s(text.as_bytes()), in_seconds, "{text} in seconds");
            assert_eq!(parse_time_ms(text.as_bytes()), in_milliseconds, "{text} in milliseconds");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, size, offset) in [
            ("0", Some(0), Some(0)),
            ("12", Some(12), Some(12)),
            ("4k", Some(4_096), Some(4_096)),
            ("4K", Some(4_096), Some(4_096)),
            ("2m", Some(2 << 20), Some(2 << 20)),
            ("2g", None, Some(2 << 30)),
            ("2G", None, Some(2 << 30)),
            ("2t", None, None),
            ("k", None, None),
            ("", None, None),
            ("-1", None, None),
            ("9223372036854775807", Some(i64::MAX as u64), Some(i64::MAX as u64)),
            ("9223372036854775808", None, None),
            ("9007199254740992k", None, None),
        ] {
            assert_eq!(parse_size(text.as_bytes()), size, "{text} as a size");
            assert_eq!(parse_offset(text.as_bytes()), offset, "{text} as an offset");
        }
    }
}
