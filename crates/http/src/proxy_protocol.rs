//! The header that a proxy in front sends before the first request of a connection
//! (`listen ... proxy_protocol`), and the variables that show it.

use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::head::{NoHead, within};
use net::Block;
use session::log::{Bytes, Level};
use session::text::Span;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use system::errno::Errno;
use wire::proxy_protocol::{Broken, LONGEST, Origin, Parsed, TLS, Tcp, find, parse, tls_parts};

/// What the proxy said about a client over TCP.
#[derive(Debug)]
pub struct Announced {
    /// The header: the ranges of `tcp` lie here.
    bytes: Box<[u8]>,
    tcp: Tcp,
}

impl Announced {
    /// The client.
    pub fn source(&self) -> SocketAddr {
        self.tcp.source
    }
}

/// Why a connection ends before its first request; the log's words.
enum End {
    Closed,
    TimedOut,
    Refused(Block, Broken),
    Cut(Block),
}

/// Reads the header until `deadline` and keeps what it says and what follows it. False: there was
/// none, the log knows why, and the connection is to be closed.
pub(crate) async fn read_header(connection: &Rc<Connection>, deadline: u64) -> bool {
    let Err(end) = receive(connection, deadline).await else { return true };
    match end {
        End::Closed => tell(connection, Level::Info, format_args!("client closed connection")),
        End::TimedOut => log_timeout(connection),
        End::Refused(_, Broken::TooLong) => {
            tell(connection, Level::Error, format_args!("header is too large"));
        }
        End::Refused(_, Broken::Version(number)) => {
            let message = format_args!("unknown PROXY protocol version: {number}");
            tell(connection, Level::Error, message);
        }
        End::Refused(block, Broken::Form) | End::Cut(block) => {
            let bytes = block.filled();
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let line = Bytes(&bytes[..end.unwrap_or(bytes.len())]);
            tell(connection, Level::Error, format_args!("broken header: \"{line}\""));
        }
    }
    false
}

/// The line for a client that says nothing, or goes on too slowly.
pub(crate) fn log_timeout(connection: &Connection) {
    let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
    tell(connection, Level::Info, format_args!("client timed out ({errno})"));
}

fn tell(connection: &Connection, level: Level, what: fmt::Arguments<'_>) {
    connection.log(level, format_args!("{what} while reading PROXY protocol"));
}

async fn receive(connection: &Rc<Connection>, deadline: u64) -> Result<(), End> {
    let ended = |no_head| match no_head {
        NoHead::TimedOut => End::TimedOut,
        _ => End::Closed,
    };
    // The longest header fits: whoever fills the block is refused or done.
    let first = poll_fn(|cx| connection.poll_lend(cx, LONGEST));
    let mut block = within(connection, deadline, first).await.map_err(ended)?;
    if block.is_empty() {
        return Err(End::Closed);
    }
    loop {
        match parse(block.filled()) {
            Ok(Parsed::Complete { len, origin }) => {
                keep(connection, block, len, origin);
                return Ok(());
            }
            Ok(Parsed::Partial) => {}
            Err(broken) => return Err(End::Refused(block, broken)),
        }
        let more = poll_fn(|cx| connection.stream.poll_fill(cx, &mut block));
        if within(connection, deadline, more).await.map_err(ended)? == 0 {
            return Err(End::Cut(block));
        }
    }
}

fn keep(connection: &Connection, block: Block, len: usize, origin: Origin) {
    if let Origin::Tcp(tcp) = origin {
        connection.announce(Announced { bytes: block.filled()[..len].into(), tcp });
    }
    if block.len() > len {
        let mut rest = block.freeze();
        rest.advance(len);
        connection.put_leftover(rest);
    }
}

type X = Exchange;
type Found = Option<Span>;

/// The address as it came, or written out when it came in binary.
fn address(x: &mut X, of: fn(&Tcp) -> (SocketAddr, &Range<usize>)) -> Found {
    let announced = x.connection.announced()?;
    let (address, text) = of(&announced.tcp);
    Some(match announced.bytes.get(text.clone()).filter(|text| !text.is_empty()) {
        Some(text) => x.arena.push(text),
        None => x.arena.format(format_args!("{}", address.ip())),
    })
}

fn port(x: &mut X, of: fn(&Tcp) -> SocketAddr) -> Found {
    match of(&x.connection.announced()?.tcp).port() {
        0 => Some(Span::EMPTY),
        port => Some(x.arena.number(u64::from(port))),
    }
}

pub(crate) fn addr(x: &mut X) -> Found {
    address(x, |tcp| (tcp.source, &tcp.source_text))
}

pub(crate) fn client_port(x: &mut X) -> Found {
    port(x, |tcp| tcp.source)
}

pub(crate) fn server_addr(x: &mut X) -> Found {
    address(x, |tcp| (tcp.destination, &tcp.destination_text))
}

pub(crate) fn server_port(x: &mut X) -> Found {
    port(x, |tcp| tcp.destination)
}

/// `$proxy_protocol_tlv_NAME`: an extension of version 2.
pub(crate) fn extension(x: &mut X, name: &str) -> Found {
    let announced = x.connection.announced()?;
    let list = announced.bytes.get(announced.tcp.extensions.clone()).unwrap_or_default();
    match look_up(list, name) {
        Ok(Some(Value::Bytes(value))) => Some(x.arena.push(value)),
        Ok(Some(Value::Number(number))) => Some(x.arena.number(u64::from(number))),
        Ok(None) => None,
        Err(NoValue::Broken) => {
            x.log_error(Level::Error, format_args!("broken PROXY protocol TLV"));
            None
        }
        Err(NoValue::NoSuchName) => {
            x.log_error(Level::Error, format_args!("unknown PROXY protocol TLV \"{name}\""));
            None
        }
    }
}

/// The value of an extension.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u32),
}

#[derive(Debug, PartialEq, Eq)]
enum NoValue {
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
