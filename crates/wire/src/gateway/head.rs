//! The head of an answer in the manner of CGI (RFC 3875 section 6), rewritten as HTTP/1.
//!
//! Lines may end in a bare LF. The field `Status` tells the status; without it an answer with
//! `Location` is a redirect and any other is good. An answer may also begin with a status line of
//! HTTP. What concerns a connection of HTTP is left out: there is none.

use crate::http1::status;

/// A head that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// A status without a number.
    Status(Vec<u8>),
}

/// Appends the head at the start of `text` to `out` as one of HTTP/1, with its empty line; answers
/// how long it was. `None`: it is not complete.
///
/// # Errors
/// A status that has no number. What else is wrong is found by whoever reads the result.
pub fn rewrite(text: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Bad> {
    let Some(length) = length(text) else { return Ok(None) };
    let lines = || text[..length].split(|byte| *byte == b'\n').map(trimmed);
    let (mut told, mut is_redirect) = (None, false);
    for (number, line) in lines().enumerate() {
        if number == 0 && line.starts_with(b"HTTP/") {
            let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            told = Some(line[at..].trim_ascii());
        } else if let Some(value) = value(line, b"status") {
            told = Some(value);
        }
        is_redirect |= value(line, b"location").is_some();
    }
    out.extend_from_slice(b"HTTP/1.0 ");
    match told {
        Some(value) => {
            let digits = value.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
            let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            let rest = value.get(3..).unwrap_or_default();
            match (number.filter(|number| *number >= 100), rest) {
                (Some(number), []) => status_text(number, out),
                (Some(_), [b' ', ..]) => out.extend_from_slice(value),
                _ => return Err(Bad::Status(value.to_vec())),
            }
        }
        None if is_redirect => status_text(302, out),
        None => status_text(200, out),
    }
    out.extend_from_slice(b"\r\n");
    for (number, line) in lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with(b"HTTP/")) || is_left_out(line) {
            continue;
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(length))
}

fn status_text(number: u16, out: &mut Vec<u8>) {
    match status::status_text(number) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None => out.extend_from_slice(format!("{number} ").as_bytes()),
    }
}

/// The length of the head, its empty line included.
fn length(text: &[u8]) -> Option<usize> {
    let mut start = 0;
    for at in memchr::memchr_iter(b'\n', text) {
        if trimmed(&text[start..at]).is_empty() {
            return Some(at + 1);
        }
        start = at + 1;
    }
    None
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The value of a line that has the field of that name.
fn value<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name))?;
    Some(value.trim_ascii())
}

fn is_left_out(line: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] =
        [b"status", b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"];
    NAMES.iter().any(|name| value(line, name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_become_http() {
        let check = |text: &str, expected: &str, rest: &str| {
            let mut out = Vec::new();
            let length = rewrite(text.as_bytes(), &mut out).unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected, "{text}");
            assert_eq!(&text[length..], rest, "{text}");
        };
        check("A: b\n\nrest", "HTTP/1.0 200 OK\r\nA: b\r\n\r\n", "rest");
        check("A: b\r\n\r\n", "HTTP/1.0 200 OK\r\nA: b\r\n\r\n", "");
        check("status: 404 Nix\r\nA: b\r\n\r\n", "HTTP/1.0 404 Nix\r\nA: b\r\n\r\n", "");
        check("Status: 404\n\n", "HTTP/1.0 404 Not Found\r\n\r\n", "");
        check("Status:599\n\n", "HTTP/1.0 599 \r\n\r\n", "");
        check("Location: /a\n\n", "HTTP/1.0 302 Moved Temporarily\r\nLocation: /a\r\n\r\n", "");
        check("HTTP/1.1 201 Made\r\nA: b\r\n\r\n", "HTTP/1.0 201 Made\r\nA: b\r\n\r\n", "");
        check("Connection: close\nTransfer-Encoding: chunked\n\n", "HTTP/1.0 200 OK\r\n\r\n", "");
        check("\n", "HTTP/1.0 200 OK\r\n\r\n", "");
    }

    #[test]
    fn what_is_no_head() {
        assert_eq!(rewrite(b"A: b\r\n", &mut Vec::new()), Ok(None));
        assert_eq!(rewrite(b"", &mut Vec::new()), Ok(None));
        for status in ["x", "20", "2000", "099 x", ""] {
            let text = format!("Status: {status}\n\n");
            let bad = Bad::Status(status.as_bytes().to_vec());
            assert_eq!(rewrite(text.as_bytes(), &mut Vec::new()), Err(bad));
        }
    }
}
