//! Percent and HTML escaping, with nginx's sets of bytes.

/// Where the escaped text will stand, which decides what must not stand there bare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// A path in a URI.
    Uri,
    /// An argument of a query.
    Args,
    /// Anything inside a URI that must not look like syntax.
    UriComponent,
    /// A URI inside an HTML attribute; `?` and its query stay.
    Html,
    /// A URI in a `Refresh` field or in a `Location` that is already escaped.
    Refresh,
    /// A memcached key.
    Memcached,
}

const fn listed(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    let mut control = 0;
    while control <= 0x20 {
        table[control] = true;
        control += 1;
    }
    table
}

/// `listed`, and DEL with everything above it: bytes that no URI may hold.
const fn outside_uri(bytes: &[u8]) -> [bool; 256] {
    let mut table = listed(bytes);
    let mut at = 0x7f;
    while at < 256 {
        table[at] = true;
        at += 1;
    }
    table
}

static URI: [bool; 256] = outside_uri(b"\"#%<>?\\^`{|}");
static ARGS: [bool; 256] = outside_uri(b"\"#%&+;<>?\\^`{|}");
static HTML: [bool; 256] = outside_uri(b"\"#%'<>\\^`{|}");
/// As in nginx, `~` is escaped here and `}` is not.
static REFRESH: [bool; 256] = outside_uri(b"\"'<>\\^`{|~");
static MEMCACHED: [bool; 256] = listed(b"%");
static URI_COMPONENT: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0usize;
    while byte < 128 {
        table[byte] = !((byte as u8).is_ascii_alphanumeric()
            || byte == b'-' as usize
            || byte == b'.' as usize
            || byte == b'_' as usize
            || byte == b'~' as usize);
        byte += 1;
    }
    table
};

fn table(escape: Escape) -> &'static [bool; 256] {
    match escape {
        Escape::Uri => &URI,
        Escape::Args => &ARGS,
        Escape::UriComponent => &URI_COMPONENT,
        Escape::Html => &HTML,
        Escape::Refresh => &REFRESH,
        Escape::Memcached => &MEMCACHED,
    }
}

/// How many bytes of `text` must be escaped; each grows by two.
pub fn count_escapes(text: &[u8], escape: Escape) -> usize {
    let table = table(escape);
    text.iter().filter(|&&byte| table[byte as usize]).count()
}

/// Appends `text` with `%XX` (upper-case digits) for the bytes that must not stand bare.
pub fn escape_uri(text: &[u8], escape: Escape, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let table = table(escape);
    for &byte in text {
        if table[byte as usize] {
            out.extend_from_slice(&[b'%', HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
        } else {
            out.push(byte);
        }
    }
}

/// Appends `text` with `<`, `>`, `&` and `"` as HTML entities.
pub fn escape_html(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            _ => out.push(byte),
        }
    }
}

/// How far [`unescape`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescape {
    /// Every escape, to the end.
    All,
    /// Up to and with the first `?`, bare or escaped: what follows is a query.
    Path,
    /// Likewise, but keeping the escapes of controls, space, `!"#$%` and bytes above 126.
    Redirect,
}

/// Appends `text` with its percent escapes decoded; answers how many bytes of `text` were read.
/// A broken escape is dropped as nginx drops it: `%zz` leaves the second `z`'s predecessor,
/// `%1z` leaves nothing.
pub fn unescape(text: &[u8], kind: Unescape, out: &mut Vec<u8>) -> usize {
    let stops = kind != Unescape::All;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte != b'%' {
            out.push(byte);
            if byte == b'?' && stops {
                return at;
            }
            continue;
        }
        let Some(&first) = text.get(at) else { break };
        at += 1;
        let Some(high) = hex(first) else {
            out.push(first);
            continue;
        };
        let Some(&second) = text.get(at) else { break };
        at += 1;
        let Some(low) = hex(second) else { continue };
        let decoded = high << 4 | low;
        match kind {
            Unescape::Redirect if decoded <= b'%' || decoded >= 0x7f => {
                out.extend_from_slice(&[b'%', first, second]);
            }
            _ => out.push(decoded),
        }
        if decoded == b'?' && stops {
            return at;
        }
    }
    at
}

/// The value of a hexadecimal digit.
#[inline]
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_escapes() {
        let check = |text: &[u8], escape, expected: &str| {
            let mut out = Vec::new();
            escape_uri(text, escape, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{escape:?}");
            assert_eq!(out.len(), text.len() + 2 * count_escapes(text, escape));
        };
        let all = b"aZ0 \"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\x7f\x00\xff";
        check(
            all,
            Escape::Uri,
            "aZ0%20%22%23$%25&'()*+,-./:;%3C=%3E%3F@[%5C]%5E_%60%7B%7C%7D~%7F%00%FF",
        );
        check(
            all,
            Escape::Args,
            "aZ0%20%22%23$%25%26'()*%2B,-./:%3B%3C=%3E%3F@[%5C]%5E_%60%7B%7C%7D~%7F%00%FF",
        );
        check(
            all,
            Escape::Html,
            "aZ0%20%22%23$%25&%27()*+,-./:;%3C=%3E?@[%5C]%5E_%60%7B%7C%7D~%7F%00%FF",
        );
        check(
            all,
            Escape::Refresh,
            "aZ0%20%22#$%&%27()*+,-./:;%3C=%3E?@[%5C]%5E_%60%7B%7C}%7E%7F%00%FF",
        );
        check(b"a b%\x1f\x7f", Escape::Memcached, "a%20b%25%1F\x7f");
        check(b"a-._~!/ %", Escape::UriComponent, "a-._~%21%2F%20%25");
    }

    #[test]
    fn html_escapes() {
        let mut out = Vec::new();
        escape_html(b"<a href=\"x\">'&", &mut out);
        assert_eq!(out, b"&lt;a href=&quot;x&quot;&gt;'&amp;");
    }

    #[test]
    fn unescapes() {
        let check = |text: &str, kind, expected: &str, read| {
            let mut out = Vec::new();
            assert_eq!(unescape(text.as_bytes(), kind, &mut out), read, "{text:?}");
            assert_eq!(out, expected.as_bytes(), "{text:?}");
        };
        check("a%20b+c", Unescape::All, "a b+c", 7);
        check("a?b%3fc", Unescape::All, "a?b?c", 7);
        check("a?b", Unescape::Path, "a?", 2);
        check("a%3fb", Unescape::Path, "a?", 4);
        check("%20%41%7e%7F%3Fx", Unescape::Redirect, "%20A~%7F?", 15);
        check("%zzy", Unescape::All, "zzy", 4);
        check("%1zy", Unescape::All, "y", 4);
        check("%", Unescape::All, "", 1);
        check("%4", Unescape::All, "", 2);
    }
}
