//! The first packet of a Remote Desktop client: the cookie by which a balancer recognises it
//! (MS-RDPBCGR 2.2.1.1, in a TPKT of RFC 1006 and a connection request of X.224).

/// What was found at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// The packet goes on.
    Partial,
    /// It is something else, or has no cookie.
    Other,
    /// The cookie: its name, such as `mstshash` or `msts`, and its value.
    Cookie { name: &'a [u8], value: &'a [u8] },
}

/// TPKT: version 3, a reserved byte, the length of it all. Then the length of the X.224 header,
/// its code, and five bytes.
const FIXED: usize = 11;
const CONNECTION_REQUEST: u8 = 0xe0;
const COOKIE: &[u8] = b"Cookie: ";

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Seen<'_> {
    let Some(head) = bytes.get(..FIXED) else {
        let is_tpkt = bytes.first().is_none_or(|version| *version == 3);
        return if is_tpkt { Seen::Partial } else { Seen::Other };
    };
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[0] != 3 || head[5] & 0xf0 != CONNECTION_REQUEST || length < FIXED {
        return Seen::Other;
    }
    let Some(rest) = bytes.get(FIXED..length) else { return Seen::Partial };
    let Some(rest) = rest.strip_prefix(COOKIE) else { return Seen::Other };
    let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return Seen::Other };
    match rest[..end].iter().position(|byte| *byte == b'=') {
        Some(at) => Seen::Cookie { name: &rest[..at], value: &rest[at + 1..end] },
        None => Seen::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let length = ((FIXED + body.len()) as u16).to_be_bytes();
        let head = [3, 0, length[0], length[1], 6 + body.len() as u8, 0xe0, 0, 0, 0, 0, 0];
        [&head[..], body].concat()
    }

    #[test]
    fn cookies() {
        let found = packet(b"Cookie: mstshash=alice\r\n\x01\0\x08\0\0\0\0\0");
        let expected = Seen::Cookie { name: b"mstshash", value: b"alice" };
        assert_eq!(parse(&found), expected);
        for end in 0..found.len() {
            assert_eq!(parse(&found[..end]), Seen::Partial, "{end}");
        }
        assert_eq!(parse(&packet(b"")), Seen::Other);
        assert_eq!(parse(&packet(b"Cookie: mstshash=alice")), Seen::Other);
        assert_eq!(parse(&packet(b"Cookie: alice\r\n")), Seen::Other);
        assert_eq!(parse(b"GET"), Seen::Other);
        assert_eq!(parse(b"\x03\0\0\x04\0\xe0\0\0\0\0\0"), Seen::Other);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            parse(&bytes);
            parse(&packet(&bytes));
        }
    }
}
