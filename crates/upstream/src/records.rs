//! Who stands at which place of a group, in a zone: addresses and names as words of 64 bits.
//!
//! The records lie beside the balancing state and are read and written under its lock; the
//! atomics are for the compiler's peace only. A text that does not fit is cut.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use system::socket::Address;

system::plain! {
    /// The unit of a zone behind its state: one line of the processor's cache.
    pub(crate) struct Line {
        pub(crate) words: [AtomicU64; 8],
    }
}

/// Lines of one record: one for numbers, four for the server's name, two for the path of a
/// socket, one for the route.
pub(crate) const LINES: usize = 8;
const SERVER: std::ops::Range<usize> = 1..5;
const PATH: std::ops::Range<usize> = 5..7;
const ROUTE: std::ops::Range<usize> = 7..8;

/// Where a peer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A `server` line with an address, or with a name that was looked up at the start.
    Configured,
    /// A `server` line with `resolve`.
    Resolved,
    /// The API.
    Added,
}

/// One peer's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) origin: Origin,
    /// The peer's number for as long as its zone lives.
    pub(crate) id: u64,
    /// Counts changes of the record over the whole group.
    pub(crate) version: u64,
    /// Its options were changed by the API: the configuration's do not hold any more.
    pub(crate) is_changed: bool,
    /// Tells apart the lines of the configuration that names are looked up for.
    pub(crate) line: u64,
    pub(crate) address: Address,
    pub(crate) server: Box<str>,
    pub(crate) route: Option<Box<str>>,
}

const VACANT: u64 = 0;
const V4: u64 = 1;
const V6: u64 = 2;
const UNIX: u64 = 3;

/// Writes a record.
pub(crate) fn store(lines: &[Line], record: &Record) {
    let [head, ..] = lines else { return };
    let origin = match record.origin {
        Origin::Configured => 1,
        Origin::Resolved => 2,
        Origin::Added => 3,
    };
    let (family, port, ip) = match &record.address {
        Address::Inet(SocketAddr::V4(v4)) => (V4, v4.port(), u128::from(v4.ip().to_bits())),
        Address::Inet(SocketAddr::V6(v6)) => (V6, v6.port(), v6.ip().to_bits()),
        Address::Unix(_) => (UNIX, 0, 0),
    };
    let path: &[u8] = match &record.address {
        Address::Unix(path) => path.as_os_str().as_bytes(),
        Address::Inet(_) => &[],
    };
    let server = write_text(words(&lines[SERVER]), record.server.as_bytes());
    let path = write_text(words(&lines[PATH]), path);
    let route = record.route.as_deref().unwrap_or_default();
    let route_length = write_text(words(&lines[ROUTE]), route.as_bytes());
    let flags = u64::from(record.is_changed) | u64::from(record.route.is_some()) << 1;
    let words = [
        origin | family << 8 | flags << 16 | u64::from(port) << 32,
        ip as u64,
        (ip >> 64) as u64,
        record.id,
        record.version,
        record.line,
        server | path << 16 | route_length << 32,
        0,
    ];
    for (cell, word) in head.words.iter().zip(words) {
        cell.store(word, Ordering::Relaxed);
    }
}

/// Makes a place vacant.
pub(crate) fn clear(lines: &[Line]) {
    if let [head, ..] = lines {
        head.words[0].store(VACANT, Ordering::Relaxed);
    }
}

/// The peer's number; `None` for a vacant place.
pub(crate) fn id(lines: &[Line]) -> Option<u64> {
    number(lines, 3)
}

/// The record's version; `None` for a vacant place.
pub(crate) fn version(lines: &[Line]) -> Option<u64> {
    number(lines, 4)
}

/// Where the peer comes from, and its line; `None` for a vacant place.
pub(crate) fn origin(lines: &[Line]) -> Option<(Origin, u64)> {
    let word = |i: usize| Some(lines.first()?.words[i].load(Ordering::Relaxed));
    Some((origin_of(word(0)?)?, word(5)?))
}

fn origin_of(word: u64) -> Option<Origin> {
    match word & 0xff {
        1 => Some(Origin::Configured),
        2 => Some(Origin::Resolved),
        3 => Some(Origin::Added),
        _ => None,
    }
}

fn number(lines: &[Line], at: usize) -> Option<u64> {
    let head = lines.first()?;
    let is_vacant = head.words[0].load(Ordering::Relaxed) == VACANT;
    (!is_vacant).then(|| head.words[at].load(Ordering::Relaxed))
}

/// Reads a record; `None` for a vacant place.
pub(crate) fn load(lines: &[Line]) -> Option<Record> {
    let [head, ..] = lines else { return None };
    let word = |i: usize| head.words[i].load(Ordering::Relaxed);
    let first = word(0);
    let origin = origin_of(first)?;
    let lengths = word(6);
    let length = |shift: u32| (lengths >> shift & 0xffff) as usize;
    let port = (first >> 32) as u16;
    let ip = u128::from(word(2)) << 64 | u128::from(word(1));
    let address = match first >> 8 & 0xff {
        V4 => Address::Inet((IpAddr::from(Ipv4Addr::from_bits(ip as u32)), port).into()),
        V6 => Address::Inet((IpAddr::from(Ipv6Addr::from_bits(ip)), port).into()),
        UNIX => {
            let path = read_text(words(&lines[PATH]), length(16));
            Address::Unix(PathBuf::from(std::ffi::OsStr::from_bytes(&path)))
        }
        _ => return None,
    };
    let text = |range, shift| {
        String::from_utf8_lossy(&read_text(words(&lines[range]), length(shift))).into()
    };
    let flags = first >> 16 & 0xff;
    Some(Record {
        origin,
        id: word(3),
        version: word(4),
        is_changed: flags & 1 != 0,
        line: word(5),
        address,
        server: text(SERVER, 0),
        route: (flags & 2 != 0).then(|| text(ROUTE, 32)),
    })
}

fn words(lines: &[Line]) -> impl Iterator<Item = &AtomicU64> {
    lines.iter().flat_map(|line| &line.words)
}

/// Writes a text to words until it or they end; the length that was written.
pub(crate) fn write_text<'a>(words: impl Iterator<Item = &'a AtomicU64>, text: &[u8]) -> u64 {
    let mut written = 0;
    for (cell, bytes) in words.zip(text.chunks(8)) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        cell.store(u64::from_le_bytes(word), Ordering::Relaxed);
        written += bytes.len() as u64;
    }
    written
}

/// Reads a text of that length.
pub(crate) fn read_text<'a>(words: impl Iterator<Item = &'a AtomicU64>, length: usize) -> Vec<u8> {
    let words = words.take(length.div_ceil(8));
    let mut text: Vec<u8> =
        words.flat_map(|cell| cell.load(Ordering::Relaxed).to_le_bytes()).collect();
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let lines: Vec<Line> = (0..LINES).map(|_| Line { words: Default::default() }).collect();
        assert_eq!(load(&lines), None);
        let long = "x".repeat(256);
        for (address, server, route) in [
            ("127.0.0.1:80", "a:80", None),
            ("[2001:db8::1]:65535", long.as_str(), Some("")),
            ("unix:/run/some/where.sock", "unix:/run/some/where.sock", Some("route")),
        ] {
            let record = Record {
                origin: Origin::Resolved,
                id: u64::MAX,
                version: 7,
                is_changed: route.is_some(),
                line: 9,
                address: Address::parse(address).expect("an address"),
                server: server.into(),
                route: route.map(Into::into),
            };
            store(&lines, &record);
            assert_eq!((id(&lines), version(&lines)), (Some(record.id), Some(7)));
            assert_eq!(load(&lines), Some(record));
        }
        clear(&lines);
        assert_eq!((load(&lines), id(&lines)), (None, None));
    }
}
