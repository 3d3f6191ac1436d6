//! What a client says about itself in `Authorization: Basic` (RFC 7617).

use crate::exchange::Exchange;
use session::text::Span;
use wire::http1::Known;

/// User and password, decoded into the arena; `None` when the field is missing or malformed.
pub fn basic(x: &mut Exchange) -> Option<(Span, Span)> {
    let field = x.request.headers.value(Known::Authorization)?;
    let value = x.text(field);
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = decode(rest.trim_ascii())?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    let all = x.arena.push(&decoded);
    Some((all.part(0, colon), all.after(colon + 1)))
}

/// Decodes base64 (RFC 4648 section 4); padding may be missing, as nginx tolerates.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let body = text.iter().position(|b| *b == b'=').map_or(text, |at| &text[..at]);
    if body.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(body.len() / 4 * 3 + 2);
    for group in body.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            bits = bits << 6 | sextet(*byte)?;
        }
        bits <<= 6 * (4 - group.len() as u32);
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        let check = |text: &str, expected: Option<&str>| {
            let decoded = decode(text.as_bytes());
            assert_eq!(decoded.as_deref(), expected.map(str::as_bytes), "{text}");
        };
        check("dXNlcjpwYXNz", Some("user:pass"));
        check("dXNlcjpwYXM=", Some("user:pas"));
        check("dXNlcjpwYQ==", Some("user:pa"));
        check("dXNlcjpwYQ", Some("user:pa"));
        check("", Some(""));
        check("A", None);
        check("dXN%", None);
    }
}
