//! What the header of the PROXY protocol at the beginning of a connection says about its client,
//! for the variables of all engines: addresses, ports and extensions.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use wire::proxy_protocol::{Broken, Origin, TLS, Tcp, find, tls_parts};

use crate::log::Bytes;
use crate::text::{Arena, Span};

/// What the proxy said about a client over TCP.
#[derive(Debug)]
pub struct Announced {
    /// The header: the ranges of `tcp` lie here.
    bytes: Box<[u8]>,
    tcp: Tcp,
}

/// Which end of the client's connection to the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client.
    Client,
    /// Where it connected to.
    Server,
}

impl Announced {
    /// Keeps what a header says; nothing when it names no client over TCP.
    pub fn new(header: &[u8], origin: Origin) -> Option<Announced> {
        match origin {
            Origin::Tcp(tcp) => Some(Announced { bytes: header.into(), tcp }),
            _ => None,
        }
    }

    /// The client.
    pub fn source(&self) -> SocketAddr {
        self.tcp.source
    }

    /// The address of a side: as it came, or written out when it came in binary.
    pub fn address(&self, side: Side, arena: &mut Arena) -> Span {
        let (address, text): (SocketAddr, &Range<usize>) = match side {
            Side::Client => (self.tcp.source, &self.tcp.source_text),
            Side::Server => (self.tcp.destination, &self.tcp.destination_text),
        };
        match self.bytes.get(text.clone()).filter(|text| !text.is_empty()) {
            Some(text) => arena.push(text),
            None => arena.format(format_args!("{}", address.ip())),
        }
    }

    /// The port of a side; empty when it is 0.
    pub fn port(&self, side: Side, arena: &mut Arena) -> Span {
        let port = match side {
            Side::Client => self.tcp.source.port(),
            Side::Server => self.tcp.destination.port(),
        };
        match port {
            0 => Span::EMPTY,
            port => arena.number(u64::from(port)),
        }
    }

    /// The value of `$proxy_protocol_tlv_NAME`.
    ///
    /// # Errors
    /// What the error log is to be told, at level error.
    pub fn extension(&self, name: &str, arena: &mut Arena) -> Result<Option<Span>, NoValue> {
        let list = self.bytes.get(self.tcp.extensions.clone()).unwrap_or_default();
        Ok(look_up(list, name)?.map(|value| match value {
            Value::Bytes(value) => arena.push(value),
            Value::Number(number) => arena.number(u64::from(number)),
        }))
    }
}

/// Why a header is refused, in the log's words, to which the caller adds what it was doing.
pub struct Complaint<'a> {
    broken: Broken,
    line: &'a [u8],
}

impl Complaint<'_> {
    /// About a connection that began with `came`.
    pub fn new(broken: Broken, came: &[u8]) -> Complaint<'_> {
        let end = came.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        Complaint { broken, line: &came[..end.unwrap_or(came.len())] }
    }
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.broken {
            Broken::TooLong => out.write_str("header is too large"),
            Broken::Version(number) => write!(out, "unknown PROXY protocol version: {number}"),
            Broken::Form => write!(out, "broken header: \"{}\"", Bytes(self.line)),
        }
    }
}

/// The value of an extension.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u32),
}

/// Why an extension has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// The list is not well formed.
    Broken,
    /// No extension is called so.
    NoSuchName,
}

/// Finds an extension by its name or `0x` and its type; `ssl_` and one of those is inside the
/// extension about TLS.
fn look_up<'a>(list: &'a [u8], name: &str) -> Result<Option<Value<'a>>, NoValue> {
    let get = |list: &'a [u8], kind| find(list, kind).map_err(|_| NoValue::Broken);
    let Some(inner) = name.strip_prefix("ssl_") else {
        let kind = kind_of(name, false).ok_or(NoValue::NoSuchName)?;
        return Ok(get(list, kind)?.map(Value::Bytes));
    };
    let kind = match inner {
        "verify" => None,
        _ => Some(kind_of(inner, true).ok_or(NoValue::NoSuchName)?),
    };
    let Some(tls) = get(list, TLS)? else { return Ok(None) };
    let (verify, inside) = tls_parts(tls).ok_or(NoValue::Broken)?;
    match kind {
        None => Ok(Some(Value::Number(verify))),
        Some(kind) => Ok(get(inside, kind)?.map(Value::Bytes)),
    }
}

/// The types of sections 2.2.1 to 2.2.8 that nginx names.
fn kind_of(name: &str, of_tls: bool) -> Option<u8> {
    if let Some(digits) = name.strip_prefix("0x") {
        let all = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return u8::from_str_radix(digits, 16).ok().filter(|_| all);
    }
    Some(match (name, of_tls) {
        ("alpn", false) => 0x01,
        ("authority", false) => 0x02,
        ("unique_id", false) => 0x05,
        ("ssl", false) => TLS,
        ("netns", false) => 0x30,
        ("version", true) => 0x21,
        ("cn", true) => 0x22,
        ("cipher", true) => 0x23,
        ("sig_alg", true) => 0x24,
        ("key_alg", true) => 0x25,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_have_names() {
        let tls = [0x20, 0, 12, 7, 0, 0, 0, 2, 0x22, 0, 4, b'c', b'e', b'r', b't'];
        let list = [&[1, 0, 2, b'h', b'2', 0xea, 0, 1, b'x'][..], &tls].concat();
        let check = |name: &str, expected: Result<Option<Value<'_>>, NoValue>| {
            assert_eq!(look_up(&list, name), expected, "{name}");
        };
        let bytes = |text: &'static str| Ok(Some(Value::Bytes(text.as_bytes())));
        check("alpn", bytes("h2"));
        check("0x1", bytes("h2"));
        check("0x01", bytes("h2"));
        check("0xea", bytes("x"));
        check("ssl_cn", bytes("cert"));
        check("ssl_0x22", bytes("cert"));
        check("ssl_verify", Ok(Some(Value::Number(2))));
        check("ssl_cipher", Ok(None));
        check("authority", Ok(None));
        check("cn", Err(NoValue::NoSuchName));
        check("ssl_alpn", Err(NoValue::NoSuchName));
        check("0x", Err(NoValue::NoSuchName));
        check("0x+1", Err(NoValue::NoSuchName));
        check("0x100", Err(NoValue::NoSuchName));
        assert_eq!(look_up(&list[..3], "alpn"), Err(NoValue::Broken));
        assert_eq!(look_up(&[0x20, 0, 1, 7], "ssl_cn"), Err(NoValue::Broken));
        assert_eq!(look_up(&[], "ssl_cn"), Ok(None));
    }
}
