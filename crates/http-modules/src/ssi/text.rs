//! What values of commands say: texts with variables, and conditions.

use super::memory::Memory;
use http::Exchange;
use session::log::{Bytes, Level};
use session::regex::{Case, Regex};
use session::variables::value_by_name;

/// A mistake; the error log has it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mistake;

/// Logs a mistake in a page.
pub(super) fn mistake(x: &Exchange, message: std::fmt::Arguments<'_>) -> Mistake {
    x.log_error(Level::Error, message);
    Mistake
}

/// The value of a variable: what pages have set comes before what the request has.
pub(super) fn variable(x: &mut Exchange, name: &[u8]) -> Option<Vec<u8>> {
    let name = name.to_ascii_lowercase();
    let memory = x.lasting::<Memory>();
    if let Some(value) = memory.value(&name) {
        return Some(value);
    }
    let value = value_by_name(x, std::str::from_utf8(&name).ok()?)?;
    Some(x.text(value).to_vec())
}

/// A text with its variables filled in. A backslash keeps its meaning from `\`, `$` and quotes,
/// and stays before all else.
pub(super) fn evaluate(x: &mut Exchange, text: &[u8]) -> Result<Vec<u8>, Mistake> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\\' => {
                let Some((&escaped, tail)) = rest.split_first() else { break };
                rest = tail;
                if !matches!(escaped, b'\\' | b'\'' | b'"' | b'$') {
                    out.push(b'\\');
                }
                out.push(escaped);
            }
            b'$' => {
                let (name, tail) = variable_name(x, text, rest)?;
                rest = tail;
                out.extend(variable(x, name).unwrap_or_default());
            }
            _ => out.push(byte),
        }
    }
    Ok(out)
}

/// The name behind a `$`, and what follows it.
fn variable_name<'t>(
    x: &Exchange,
    text: &[u8],
    rest: &'t [u8],
) -> Result<(&'t [u8], &'t [u8]), Mistake> {
    let (is_bracketed, rest) = match rest {
        [b'{', tail @ ..] => (true, tail),
        _ => (false, rest),
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = rest.iter().position(|byte| !is_name(byte)).unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    let tail = match (is_bracketed, tail) {
        (true, [b'}', tail @ ..]) => tail,
        (true, _) if !rest.is_empty() => {
            let name = Bytes(name);
            let what = format_args!("the closing bracket in \"{name}\" variable is missing");
            return Err(mistake(x, what));
        }
        _ => tail,
    };
    if name.is_empty() {
        let text = Bytes(text);
        return Err(mistake(x, format_args!("invalid variable name in \"{text}\"")));
    }
    Ok((name, tail))
}

/// Whether the condition of an `if` holds: `$a`, `$a = text`, `$a != text`, or either with
/// `/pattern/`.
pub(super) fn holds(x: &mut Exchange, expression: &[u8]) -> Result<bool, Mistake> {
    let is_left = |byte: &u8| byte.is_ascii_alphanumeric() || b"${}_\"'".contains(byte);
    let end = expression.iter().position(|byte| !is_left(byte)).unwrap_or(expression.len());
    // nginx compares what stands on the left in lower case.
    let left = evaluate(x, &expression[..end].to_ascii_lowercase())?;
    let invalid = |x: &Exchange| {
        let expression = Bytes(expression);
        Err(mistake(x, format_args!("invalid expression in \"{expression}\"")))
    };
    let (is_negative, right) = match without_spaces(&expression[end..]) {
        [] => return Ok(!left.is_empty()),
        [b'=', right @ ..] => (false, without_spaces(right)),
        [b'!', b'=', right @ ..] => (true, without_spaces(right)),
        _ => return invalid(x),
    };
    let is_same = match right {
        [b'/', pattern @ .., b'/'] => {
            let pattern = evaluate(x, pattern)?;
            matches(x, &left, &pattern)?
        }
        [b'/', _, ..] => return invalid(x),
        [b'\\', b'/', ..] => left == evaluate(x, &right[1..])?,
        _ => left == evaluate(x, right)?,
    };
    Ok(is_same != is_negative)
}

fn without_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}

/// Whether `pattern` matches; its groups become variables.
fn matches(x: &mut Exchange, subject: &[u8], pattern: &[u8]) -> Result<bool, Mistake> {
    let pattern = String::from_utf8_lossy(pattern);
    let regex = match Regex::new(&pattern, Case::Sensitive) {
        Ok(regex) => regex,
        Err(message) => return Err(mistake(x, format_args!("{message}"))),
    };
    let span = x.arena.push(subject);
    let captures = match regex.captures(&x.arena, span) {
        Ok(Some(captures)) => captures,
        Ok(None) => return Ok(false),
        Err(reason) => {
            let subject = Bytes(subject);
            let message =
                format_args!("pcre2_match() failed: {reason} on \"{subject}\" using \"{pattern}\"");
            x.log_error(Level::Alert, message);
            return Err(Mistake);
        }
    };
    let group = |n: usize| {
        let n = u8::try_from(n).ok()?;
        Some(x.text(captures.group(n)?).to_vec())
    };
    // Of a pattern without groups nothing is kept, so nothing is known of the whole match.
    let groups: Vec<Vec<u8>> = match regex.groups() {
        1 => Vec::new(),
        count => (0..count).map(|n| group(n).unwrap_or_default()).collect(),
    };
    let memory = x.lasting::<Memory>();
    for (number, name) in regex.names() {
        let value = groups.get(usize::from(*number)).cloned().unwrap_or_default();
        memory.set(&name.to_ascii_lowercase().into_bytes(), value);
    }
    memory.set_groups(groups);
    Ok(true)
}
