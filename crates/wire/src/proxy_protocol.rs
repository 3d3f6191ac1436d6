//! The PROXY protocol, versions 1 and 2: who connected to the proxy in front of us
//! (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2).
//!
//! A connection begins with one header; [`parse`] looks at what came so far and is called again
//! with more while it says [`Parsed::Partial`]. A header that cannot become a valid one is
//! refused at its first wrong byte.

mod write;

pub use write::{Carrier, Ends, write_binary, write_line};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// The longest header that is taken, in bytes; version 1 allows [`LONGEST_LINE`] only.
pub const LONGEST: usize = 4096;

/// The longest line of version 1 with its line end, in bytes (section 2.1).
pub const LONGEST_LINE: usize = 107;

/// What a header of version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, and the length of the rest.
const FIXED: usize = 16;

/// What was found at the beginning of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header goes on.
    Partial,
    /// All of it.
    Complete {
        /// Its length in bytes; what follows belongs to the protocol inside.
        len: usize,
        /// Who speaks.
        origin: Origin,
    },
}

/// For whom a proxy opened a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// For itself, such as a check of our health (`LOCAL`).
    Itself,
    /// It cannot tell, or the protocol is none of TCP.
    Unknown,
    /// A client on a unix socket.
    Unix,
    /// A client over TCP.
    Tcp(Tcp),
}

/// The two ends of the client's connection to the proxy. Ranges are in the header's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
    /// The client's address as version 1 wrote it; empty in version 2.
    pub source_text: Range<usize>,
    /// The same of the destination.
    pub destination_text: Range<usize>,
    /// What follows the addresses of version 2, for [`find`]; empty in version 1.
    pub extensions: Range<usize>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is none, or not written as it must be; a line may also be too long.
    Form,
    /// A header of version 2 says that it is longer than is taken here.
    TooLong,
    /// A version after the second.
    Version(u8),
}

/// Looks at the first bytes of a connection.
///
/// # Errors
/// Why they are no header and cannot become one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Broken> {
    if begins(bytes, SIGNATURE) {
        return binary(bytes);
    }
    match begins(bytes, b"PROXY ") {
        true => line(bytes),
        false => Err(Broken::Form),
    }
}

/// True when as much of `start` as there can be is there.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let len = bytes.len().min(start.len());
    bytes[..len] == start[..len]
}

/// Version 1: a line of text.
fn line(bytes: &[u8]) -> Result<Parsed, Broken> {
    let window = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return match window.len() == LONGEST_LINE {
            true => Err(Broken::Form),
            false => Ok(Parsed::Partial),
        };
    };
    match window[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if end + 1 < LONGEST_LINE => return Ok(Parsed::Partial),
        _ => return Err(Broken::Form),
    }
    let origin = words(&window[..end]).ok_or(Broken::Form)?;
    Ok(Parsed::Complete { len: end + 2, origin })
}

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT`, or `PROXY UNKNOWN` and anything.
fn words(line: &[u8]) -> Option<Origin> {
    let mut at = 0;
    let mut words = line.split(|byte| *byte == b' ').map(|word| {
        let range = at..at + word.len();
        at = range.end + 1;
        range
    });
    // The first word was looked at before.
    words.next()?;
    let protocol = &line[words.next()?];
    if protocol == b"UNKNOWN" {
        return Some(Origin::Unknown);
    }
    let address = |range: &Range<usize>| -> Option<IpAddr> {
        let text = str::from_utf8(&line[range.clone()]).ok()?;
        match protocol {
            b"TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            b"TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source_text, destination_text) = (words.next()?, words.next()?);
    let (from, to) = (address(&source_text)?, address(&destination_text)?);
    let (from_port, to_port) = (port(&line[words.next()?])?, port(&line[words.next()?])?);
    if words.next().is_some() {
        return None;
    }
    Some(Origin::Tcp(Tcp {
        source: SocketAddr::new(from, from_port),
        destination: SocketAddr::new(to, to_port),
        source_text,
        destination_text,
        extensions: 0..0,
    }))
}

fn port(digits: &[u8]) -> Option<u16> {
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Version 2. Fields that decide are looked at as soon as they are there.
fn binary(bytes: &[u8]) -> Result<Parsed, Broken> {
    let byte = |at: usize| bytes.get(at).copied();
    let Some(first) = byte(12) else { return Ok(Parsed::Partial) };
    if first >> 4 != 2 {
        return Err(Broken::Version(first >> 4));
    }
    let command = first & 15;
    if command > 1 {
        return Err(Broken::Form);
    }
    let (Some(kind), Some(high), Some(low)) = (byte(13), byte(14), byte(15)) else {
        return Ok(Parsed::Partial);
    };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > LONGEST {
        return Err(Broken::TooLong);
    }
    let Some(header) = bytes.get(..len) else { return Ok(Parsed::Partial) };
    let body = &header[FIXED..];
    let origin = match (command, kind) {
        (0, _) => Origin::Itself,
        (_, 0x11) => Origin::Tcp(ends::<4>(body).ok_or(Broken::Form)?),
        (_, 0x21) => Origin::Tcp(ends::<16>(body).ok_or(Broken::Form)?),
        // Two paths of 108 bytes.
        (_, 0x31) if body.len() < 216 => return Err(Broken::Form),
        (_, 0x31) => Origin::Unix,
        _ => Origin::Unknown,
    };
    Ok(Parsed::Complete { len, origin })
}

/// Two addresses of `N` bytes, and two ports.
fn ends<const N: usize>(body: &[u8]) -> Option<Tcp>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, rest) = rest.split_first_chunk::<2>()?;
    let end = FIXED + body.len();
    Some(Tcp {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new(
            IpAddr::from(*destination),
            u16::from_be_bytes(*destination_port),
        ),
        source_text: 0..0,
        destination_text: 0..0,
        extensions: end - rest.len()..end,
    })
}

/// A list of extensions ends in the middle of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// The value of the first extension of a type (section 2.2.1): one byte of type, two of length,
/// and the value.
///
/// # Errors
/// The list ends in the middle of an extension before one was found.
pub fn find(mut list: &[u8], wanted: u8) -> Result<Option<&[u8]>, Truncated> {
    while let Some((kind, rest)) = list.split_first() {
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(Truncated)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (value, rest) = rest.split_at_checked(len).ok_or(Truncated)?;
        if *kind == wanted {
            return Ok(Some(value));
        }
        list = rest;
    }
    Ok(None)
}

/// The type of the extension about the client's TLS (section 2.2.6).
pub const TLS: u8 = 0x20;

/// The parts of the [`TLS`] extension: the outcome of the client certificate's check (0: it was
/// presented and is good), and the extensions inside. `None` when it is too short.
pub fn tls_parts(value: &[u8]) -> Option<(u32, &[u8])> {
    let (_client, rest) = value.split_first()?;
    let (verify, inside) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*verify), inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a test says of an outcome: `LENGTH KIND`, with both ends of TCP.
    fn shown(bytes: &[u8]) -> String {
        match parse(bytes) {
            Ok(Parsed::Partial) => "partial".into(),
            Ok(Parsed::Complete { len, origin: Origin::Tcp(tcp) }) => {
                format!("{len} {} {}", tcp.source, tcp.destination)
            }
            Ok(Parsed::Complete { len, origin }) => format!("{len} {origin:?}"),
            Err(broken) => format!("{broken:?}"),
        }
    }

    fn binary_header(first: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut all = SIGNATURE.to_vec();
        all.extend([first, kind]);
        all.extend((body.len() as u16).to_be_bytes());
        all.extend(body);
        all
    }

    const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x16, 0x2e, 0, 80];

    #[test]
    fn lines() {
        let check = |text: &str, expected: &str| {
            assert_eq!(shown(text.as_bytes()), expected, "{text:?}");
        };
        check(
            "PROXY TCP4 192.0.2.7 198.51.100.1 5678 80\r\nGET /",
            "43 192.0.2.7:5678 198.51.100.1:80",
        );
        check("PROXY TCP6 2001:Db8::1 ::2 0 65535\r\n", "36 [2001:db8::1]:0 [::2]:65535");
        check("PROXY UNKNOWN\r\n", "15 Unknown");
        check("PROXY UNKNOWN ffff::1 anything at all\r\n", "39 Unknown");
        check("", "partial");
        check("PRO", "partial");
        check("PROXY TCP4 192.0.2.7 ", "partial");
        check("PROXY UNKNOWN\r", "partial");
        check("GET / HTTP/1.1\r\n", "Form");
        check("PROXX", "Form");
        check("proxy TCP4", "Form");
        check("PROXY\r\n", "Form");
        check("PROXY \r\n", "Form");
        check("PROXY UNKNOWN\n", "Form");
        check("PROXY UNKNOWN\rX", "Form");
        check("PROXY UNKNOWNS\r\n", "Form");
        check("PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", "Form");
        check("PROXY TCP4 ::1 ::1 1 1\r\n", "Form");
        check("PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", "Form");
        check("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", "Form");
        check("PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n", "Form");
        check("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", "Form");
        check("PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n", "Form");
        check("PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", "Form");
        check("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", "Form");
        check("PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n", "Form");
    }

    #[test]
    fn lines_are_bounded() {
        let check = |len: usize, expected: &str| {
            let line = format!("PROXY UNKNOWN {}", "x".repeat(len - 16));
            assert_eq!(shown(format!("{line}\r\n").as_bytes()), expected, "{len}");
        };
        check(LONGEST_LINE, "107 Unknown");
        check(LONGEST_LINE + 1, "Form");
        check(LONGEST_LINE + 2, "Form");
        check(5000, "Form");
    }

    #[test]
    fn texts_of_lines() {
        let line = b"PROXY TCP6 2001:Db8::1 ::2 1 2\r\n";
        let Ok(Parsed::Complete { origin: Origin::Tcp(tcp), .. }) = parse(line) else {
            panic!("a whole header");
        };
        assert_eq!(&line[tcp.source_text], b"2001:Db8::1");
        assert_eq!(&line[tcp.destination_text], b"::2");
    }

    #[test]
    fn binaries() {
        let check = |first: u8, kind: u8, body: &[u8], expected: &str| {
            let header = binary_header(first, kind, body);
            assert_eq!(shown(&header), expected, "{first:x} {kind:x} {body:?}");
            let followed = [header.as_slice(), b"GET /"].concat();
            assert_eq!(shown(&followed), expected, "followed by a request");
        };
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        check(0x21, 0x11, V4, "28 192.0.2.7:5678 198.51.100.1:80");
        check(0x21, 0x11, &[V4, &[4, 0, 0]].concat(), "31 192.0.2.7:5678 198.51.100.1:80");
        check(0x21, 0x21, &v6, "52 [::1]:3 [::2]:4");
        check(0x21, 0x31, &[0; 216], "232 Unix");
        check(0x20, 0x00, b"", "16 Itself");
        check(0x20, 0x11, V4, "28 Itself");
        check(0x21, 0x00, b"whatever", "24 Unknown");
        check(0x21, 0x12, V4, "28 Unknown");
        check(0x21, 0x41, V4, "28 Unknown");
        check(0x21, 0x11, &V4[..11], "Form");
        check(0x21, 0x21, &v6[..35], "Form");
        check(0x21, 0x31, &[0; 215], "Form");
        check(0x22, 0x11, V4, "Form");
        check(0x11, 0x11, V4, "Version(1)");
        check(0x31, 0x11, V4, "Version(3)");
        check(0x21, 0x00, &[0; LONGEST - FIXED], "4096 Unknown");
        check(0x21, 0x00, &[0; LONGEST - FIXED + 1], "TooLong");
    }

    #[test]
    fn extensions() {
        let check = |list: &[u8], expected: Result<Option<&[u8]>, Truncated>| {
            assert_eq!(find(list, 2), expected, "{list:?}");
        };
        check(&[], Ok(None));
        check(&[2, 0, 1, b'a'], Ok(Some(b"a")));
        check(&[1, 0, 1, 9, 2, 0, 2, b'a', b'b', 7], Ok(Some(b"ab")));
        check(&[2, 0, 0], Ok(Some(b"")));
        check(&[1, 0, 0], Ok(None));
        check(&[2], Err(Truncated));
        check(&[2, 0], Err(Truncated));
        check(&[2, 0, 1], Err(Truncated));
        check(&[1, 1, 0, b'a'], Err(Truncated));
        assert_eq!(tls_parts(&[7, 0, 0, 1, 2, 9]), Some((258, &[9][..])));
        assert_eq!(tls_parts(&[7, 0, 0, 1]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = find(&bytes, 2);
            let _ = tls_parts(&bytes);
            let _ = parse(&[&SIGNATURE[..], &bytes].concat());
            let _ = parse(&[&b"PROXY TCP4 "[..], &bytes].concat());
        }

        /// No beginning of a good header is refused, and none is taken for the whole.
        #[test]
        fn headers_come_in_pieces(
            source in any::<SocketAddr>(),
            destination in any::<[u8; 4]>(),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let kind = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let ip = source.ip();
            let text = format!("PROXY {kind} {ip} {ip} {} 80\r\n", source.port());
            let body = [&[1, 2, 3, 4], &destination[..], &[0, 1, 0, 2], &tail].concat();
            for header in [text.into_bytes(), binary_header(0x21, 0x11, &body)] {
                for end in 0..header.len() {
                    prop_assert_eq!(parse(&header[..end]), Ok(Parsed::Partial));
                }
                let whole = matches!(parse(&header),
                    Ok(Parsed::Complete { len, origin: Origin::Tcp(_) }) if len == header.len());
                prop_assert!(whole);
            }
        }
    }
}
