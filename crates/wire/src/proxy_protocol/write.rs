//! Headers of the PROXY protocol as they are sent (sections 2.1 and 2.2).

use std::net::{IpAddr, SocketAddr};

use super::SIGNATURE;

/// The client and where it connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Ends {
    /// Both ends in one family: IPv4 where both are, mapped into IPv6 or not.
    fn in_one_family(self) -> Ends {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (source, destination) = (canonical(self.source), canonical(self.destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Ends { source, destination };
        }
        let mapped = |end: SocketAddr| match end.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
            IpAddr::V6(_) => end,
        };
        Ends { source: mapped(source), destination: mapped(destination) }
    }
}

/// What the client's connection is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Stream,
    Datagram,
}

/// Appends a header of version 1. `None`: it cannot be told who connected.
pub fn write_line(ends: Option<Ends>, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let Some(ends) = ends.map(Ends::in_one_family) else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let Ends { source, destination } = ends;
    let family = if source.is_ipv4() { 4 } else { 6 };
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "PROXY TCP{family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
}

/// The type of the extension with a checksum of the header (section 2.2.4).
const CHECKSUM: u8 = 0x03;

/// Appends a header of version 2, which ends with its checksum. `None`: the connection is the
/// proxy's own. Extensions are types and values.
pub fn write_binary(
    ends: Option<Ends>,
    carrier: Carrier,
    extensions: &[(u8, &[u8])],
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    let transport = match carrier {
        Carrier::Stream => 1,
        Carrier::Datagram => 2,
    };
    let ends = ends.map(Ends::in_one_family);
    let kind = match ends {
        None => 0,
        Some(ends) if ends.source.is_ipv4() => 0x10 | transport,
        Some(_) => 0x20 | transport,
    };
    // The length follows when it is known.
    out.extend_from_slice(&[0x20 | u8::from(ends.is_some()), kind, 0, 0]);
    if let Some(Ends { source, destination }) = ends {
        for end in [source, destination] {
            match end.ip() {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
        }
        for end in [source, destination] {
            out.extend_from_slice(&end.port().to_be_bytes());
        }
    }
    for (kind, value) in extensions {
        let length = value.len().min(usize::from(u16::MAX));
        out.push(*kind);
        out.extend_from_slice(&(length as u16).to_be_bytes());
        out.extend_from_slice(&value[..length]);
    }
    out.extend_from_slice(&[CHECKSUM, 0, 4, 0, 0, 0, 0]);
    let length = (out.len() - start - super::FIXED) as u16;
    out[start + 14..start + 16].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c(&out[start..]);
    let end = out.len();
    out[end - 4..].copy_from_slice(&checksum.to_be_bytes());
}

/// The checksum of RFC 4960, appendix B.
fn crc32c(bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 256] {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 != 0 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    }
    static TABLE: [u32; 256] = table();
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::super::{Origin, Parsed, find, parse};
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn lines() {
        let check = |ends: Option<Ends>, expected: &str| {
            let mut out = Vec::new();
            write_line(ends, &mut out);
            assert_eq!(out, expected.as_bytes());
        };
        let v4 = ends("192.0.2.1:5", "192.0.2.2:80");
        check(Some(v4), "PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n");
        let mapped = ends("[::ffff:192.0.2.1]:5", "[::ffff:192.0.2.2]:80");
        check(Some(mapped), "PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n");
        check(Some(ends("[::1]:5", "[::2]:80")), "PROXY TCP6 ::1 ::2 5 80\r\n");
        let mixed = ends("[::1]:5", "192.0.2.2:80");
        check(Some(mixed), "PROXY TCP6 ::1 ::ffff:192.0.2.2 5 80\r\n");
        check(None, "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["192.0.2.1:5", "[::1]:5"] {
            let both = ends(text, text);
            let mut out = Vec::new();
            write_binary(Some(both), Carrier::Stream, &[(1, b"h2"), (0xea, b"x")], &mut out);
            let Ok(Parsed::Complete { len, origin: Origin::Tcp(tcp) }) = parse(&out) else {
                panic!("{out:?}");
            };
            assert_eq!((len, tcp.source, tcp.destination), (out.len(), both.source, both.source));
            let extensions = &out[tcp.extensions];
            assert_eq!(find(extensions, 1), Ok(Some(&b"h2"[..])));
            assert_eq!(find(extensions, 0xea), Ok(Some(&b"x"[..])));
            let sum = find(extensions, CHECKSUM).unwrap().unwrap().to_vec();
            let end = out.len();
            out[end - 4..].fill(0);
            assert_eq!(sum, crc32c(&out).to_be_bytes());
        }
        let mut out = Vec::new();
        write_binary(None, Carrier::Stream, &[], &mut out);
        assert_eq!(parse(&out), Ok(Parsed::Complete { len: 23, origin: Origin::Itself }));
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }
}
