//! Host names as a client sends them: in `Host`, in an absolute target, with CONNECT.

use super::Slice;

/// A valid `host[:port]`. Offsets count from the first byte of what was validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The name without port and without a trailing dot; an IPv6 literal keeps its brackets.
    pub host: Slice,
    /// The port, where one was given.
    pub port: Option<u16>,
    /// The host holds upper-case letters: fold it before comparing.
    pub has_upper: bool,
}

/// Bytes of a registered name (RFC 3986 section 3.2.2) but for percent escapes.
#[inline]
pub(super) const fn is_reg_name(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'
        | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// What each byte may be in a host that is no IP literal.
static IN_NAME: [HostByte; 256] = {
    let mut table = [HostByte::Bad; 256];
    let mut byte = 0usize;
    while byte < 256 {
        if is_reg_name(byte as u8) || byte as u8 == b'%' {
            table[byte] = HostByte::Plain;
        }
        if (byte as u8).is_ascii_uppercase() {
            table[byte] = HostByte::Upper;
        }
        byte += 1;
    }
    table[b'.' as usize] = HostByte::Dot;
    table
};

#[derive(Clone, Copy)]
#[repr(u8)]
enum HostByte {
    Plain = 0,
    Upper = 1,
    Dot = 2,
    Bad = 4,
}

/// Checks a host as nginx does; `None` is nginx's "client sent invalid host header", 400.
///
/// Refused are bytes outside a registered name or an IP literal, two dots in a row, an empty
/// host, an open bracket, bytes behind a bracket, and a port that is no number below 65536.
pub fn validate_host(value: &[u8]) -> Option<Authority> {
    let (host, port) = split_port(value)?;
    if host.starts_with(b"[") {
        return validate_literal(host, port);
    }
    let (mut all, mut previous) = (0u8, 0u8);
    for &byte in host {
        let kind = IN_NAME[byte as usize] as u8;
        // Two dots in a row are as bad as a byte that does not belong there.
        all |= kind | (kind & previous & HostByte::Dot as u8) << 1;
        previous = kind;
    }
    let len = host.len() - usize::from(previous == HostByte::Dot as u8);
    if len == 0 || all & HostByte::Bad as u8 != 0 {
        return None;
    }
    let has_upper = all & HostByte::Upper as u8 != 0;
    Some(Authority { host: Slice::between(0, len), port, has_upper })
}

/// The same for an IP literal with its brackets.
#[cold]
fn validate_literal(host: &[u8], port: Option<u16>) -> Option<Authority> {
    let inner = host.get(1..host.len() - 1)?;
    let allowed = |byte: &u8| is_reg_name(*byte) || *byte == b':';
    if !inner.iter().all(allowed) || inner.windows(2).any(|pair| pair == b"..") {
        return None;
    }
    let has_upper = inner.iter().any(u8::is_ascii_uppercase);
    Some(Authority { host: Slice::between(0, host.len()), port, has_upper })
}

/// Cuts the port off. The host part of an IP literal includes both brackets.
fn split_port(value: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let end = if value.first() == Some(&b'[') {
        memchr::memchr(b']', value)? + 1
    } else {
        memchr::memchr(b':', value).unwrap_or(value.len())
    };
    let (host, rest) = value.split_at(end);
    match rest {
        [] | [b':'] => Some((host, None)),
        [b':', digits @ ..] => {
            let mut port = 0u16;
            for &digit in digits {
                if !digit.is_ascii_digit() {
                    return None;
                }
                port = port.checked_mul(10)?.checked_add(u16::from(digit - b'0'))?;
            }
            Some((host, Some(port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<(&str, Option<u16>)>) {
        let found = validate_host(value.as_bytes());
        let shown = found.map(|authority| {
            (std::str::from_utf8(authority.host.of(value.as_bytes())).unwrap(), authority.port)
        });
        assert_eq!(shown, expected, "{value:?}");
    }

    #[test]
    fn hosts_as_nginx_reads_them() {
        check("localhost", Some(("localhost", None)));
        check("Example.COM:8080", Some(("Example.COM", Some(8080))));
        check("example.com.", Some(("example.com", None)));
        check("example.com.:80", Some(("example.com", Some(80))));
        check("example.com:", Some(("example.com", None)));
        check("a:0", Some(("a", Some(0))));
        check("a:65535", Some(("a", Some(65535))));
        check("a:65536", None);
        check("a:99999999999999999999", None);
        check("a:8o", None);
        check("a:-1", None);
        check("a:80:80", None);
        check("[::1]", Some(("[::1]", None)));
        check("[::1]:443", Some(("[::1]", Some(443))));
        check("[FE80::1]", Some(("[FE80::1]", None)));
        check("[::1", None);
        check("[::1]x", None);
        check("[::1].", None);
        check("[a/b]", None);
        check("", None);
        check(".", None);
        check(":80", None);
        check("..", None);
        check("a..b", None);
        check("a.b..", None);
        check(".a", Some((".a", None)));
        check("a_b-c~d!$&'()*+,;=", Some(("a_b-c~d!$&'()*+,;=", None)));
        check("a%20b", Some(("a%20b", None)));
        check("a b", None);
        check("a/b", None);
        check("a\\b", None);
        check("a@b", None);
        check("a?b", None);
        check("a#b", None);
        check("a\0b", None);
        check("a\tb", None);
        check("a\u{7f}", None);
        check("b\u{fc}cher", None);
        check("a]", None);
    }

    #[test]
    fn upper_case_is_told() {
        assert!(validate_host(b"A.example").is_some_and(|authority| authority.has_upper));
        assert!(validate_host(b"a.example").is_some_and(|authority| !authority.has_upper));
    }
}
