//! How values are written into a line of the access log, so that they cannot break out of it.
//! nginx: `log_format ... escape=default|json|none`.

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The escaping of one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// `\xXX` for quotes, backslashes and everything that is not printable ASCII; `-` for a
    /// value that is missing.
    Default,
    /// As in JSON strings; nothing for a value that is missing.
    Json,
    /// As it is; nothing for a value that is missing.
    None,
}

impl Escape {
    /// Appends what stands for a variable without value.
    pub(super) fn append_missing(self, out: &mut Vec<u8>) {
        if self == Escape::Default {
            out.push(b'-');
        }
    }

    /// Appends a value.
    pub(super) fn append(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Escape::None => out.extend_from_slice(value),
            Escape::Default => append_with(value, out, is_special, |byte, out| {
                append_hex(b"\\x", byte, out);
            }),
            Escape::Json => append_with(value, out, is_special_in_json, append_json),
        }
    }
}

fn is_special(byte: u8) -> bool {
    !(0x20..=0x7e).contains(&byte) | (byte == b'"') | (byte == b'\\')
}

fn is_special_in_json(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Copies `value`, with what is special replaced. Nearly every value has nothing special: that
/// is asked first, without a branch per byte, so that the compiler may use vectors.
#[inline]
fn append_with(
    value: &[u8],
    out: &mut Vec<u8>,
    special: impl Fn(u8) -> bool,
    replace: impl Fn(u8, &mut Vec<u8>),
) {
    if !value.iter().fold(false, |found, &byte| found | special(byte)) {
        out.extend_from_slice(value);
        return;
    }
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&byte| special(byte)) {
        out.extend_from_slice(&rest[..at]);
        replace(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

fn append_json(byte: u8, out: &mut Vec<u8>) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => return append_hex(b"\\u00", byte, out),
    };
    out.extend_from_slice(&[b'\\', letter]);
}

fn append_hex(lead: &[u8], byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(lead);
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_their_line() {
        let check = |escape: Escape, value: &[u8], expected: &[u8]| {
            let mut out = Vec::new();
            escape.append(value, &mut out);
            let shown = String::from_utf8_lossy(&out);
            assert_eq!(out, expected, "{escape:?} {value:?}: {shown}");
        };
        check(Escape::Default, b"", b"");
        check(Escape::Default, b"plain ~text", b"plain ~text");
        check(Escape::Default, b"a\"b\\c\x1f\x7f\xe9\n", b"a\\x22b\\x5Cc\\x1F\\x7F\\xE9\\x0A");
        check(Escape::Json, b"a\"b\\c", b"a\\\"b\\\\c");
        check(Escape::Json, b"\n\r\t\x08\x0c\x00\x1f", b"\\n\\r\\t\\b\\f\\u0000\\u001F");
        check(Escape::Json, b"\x7f\xc3\xa9", b"\x7f\xc3\xa9");
        check(Escape::None, b"a\"\n\x00", b"a\"\n\x00");
    }

    #[test]
    fn a_missing_value_is_a_dash_or_nothing() {
        for (escape, expected) in [(Escape::Default, "-"), (Escape::Json, ""), (Escape::None, "")] {
            let mut out = Vec::new();
            escape.append_missing(&mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
