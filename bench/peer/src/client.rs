//! An HTTP/1.1 client on a plain connection or one with TLS, and the load `requests`.
//!
//! `requests ADDRESS [list=FILE] [warm=yes]` asks for `/`, or for the lines of a file, each `HOST
//! PATH`, in random order, one after another on each connection. With `warm` it prints `begin`
//! once every connection has had an answer, and counts from there.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use net::{Address, ConnectOptions, Stream};
use rustls::ClientConfig;

use crate::load::{self, Chance, Counts, Failure, Orders};
use crate::secure::Secure;

/// The longest head of an answer.
const LONGEST_HEAD: usize = 8192;
/// After a failure a task waits so long, in milliseconds, that it does not spin.
const PAUSE_MS: u64 = 10;

/// The fields of a browser, so that heads have a usual size.
pub(crate) const BROWSER: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) \
    AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef; theme=dark\r\n";

/// A connection of either kind.
pub(crate) enum Link {
    Plain(Stream),
    Secure(Box<Secure>),
}

impl Link {
    /// Connects; with TLS when a configuration is given.
    pub(crate) async fn open(
        address: &Address,
        secure: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Link> {
        match secure {
            Some(config) => {
                Ok(Link::Secure(Box::new(Secure::connect(address, config.clone()).await?)))
            }
            None => {
                let stream = net::connect(address, &ConnectOptions::default()).await;
                Ok(Link::Plain(stream.map_err(io::Error::other)?))
            }
        }
    }

    pub(crate) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Link::Plain(stream) => stream.write_all(bytes).await,
            Link::Secure(secure) => secure.write_all(bytes).await,
        }
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Plain(stream) => stream.read(buffer).await,
            Link::Secure(secure) => secure.read(buffer).await,
        }
    }

    /// Closes with a reset, which leaves no port behind.
    pub(crate) fn abort(self) {
        match self {
            Link::Plain(stream) => drop(stream.reset_on_close()),
            Link::Secure(secure) => secure.abort(),
        }
    }
}

/// A GET with a browser's fields.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{BROWSER}\r\n").into_bytes()
}

/// Reads one answer to its end, and tells `seen` of every piece of its body. True when the status
/// is 200.
pub(crate) async fn answer(
    link: &Link,
    buffer: &mut [u8],
    mut seen: impl FnMut(usize),
) -> io::Result<bool> {
    let mut filled = 0;
    let end = loop {
        if filled == buffer.len() || filled > LONGEST_HEAD {
            return Err(io::Error::other("a head without end"));
        }
        match link.read(&mut buffer[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => filled += length,
        }
        let end = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
    };
    let good = buffer.starts_with(b"HTTP/1.1 200");
    let length = content_length(&buffer[..end])
        .ok_or_else(|| io::Error::other("an answer that does not tell its length"))?;
    let mut left = length.saturating_sub(filled - end);
    seen(filled - end);
    while left > 0 {
        match link.read(buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                left = left.saturating_sub(length);
                seen(length);
            }
        }
    }
    Ok(good)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let field = |line: &[u8]| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        let value = std::str::from_utf8(value.trim_ascii()).ok()?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| value.parse().ok())?
    };
    head.split(|byte| *byte == b'\n').filter_map(field).next()
}

/// The load.
pub(crate) async fn requests(orders: &Orders) -> Result<(), Failure> {
    let address = orders.address()?;
    let text = match orders.text("list") {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None => "bench /\n".to_string(),
    };
    let list = text.lines().filter_map(|line| line.split_once(' '));
    let list: Rc<[Vec<u8>]> = list.map(|(host, path)| get(host, path)).collect();
    let task = |number, counts| ask(address.clone(), list.clone(), Chance::new(number), counts);
    match orders.text("warm") {
        Some("yes") => load::run_warm(orders, task).await,
        _ => load::run(orders, task).await,
    }
}

async fn ask(address: Address, list: Rc<[Vec<u8>]>, mut chance: Chance, counts: Rc<Counts>) {
    let mut buffer = vec![0; 4 << 10];
    while !counts.is_over() {
        let outcome = ask_on(&address, &list, &mut chance, &mut buffer, &counts).await;
        if let Err(error) = outcome {
            counts.failed(error);
            net::sleep(PAUSE_MS).await;
        }
    }
}

/// One connection until the time is over or it fails.
async fn ask_on(
    address: &Address,
    list: &[Vec<u8>],
    chance: &mut Chance,
    buffer: &mut [u8],
    counts: &Counts,
) -> io::Result<()> {
    let link = Link::open(address, None).await?;
    let mut is_warm = false;
    while !counts.is_over() {
        let start = net::precise_now_us();
        link.write_all(&list[chance.below(list.len())]).await?;
        match answer(&link, buffer, |bytes| counts.received(bytes)).await? {
            true => counts.done(start),
            false => counts.failed("a status that is not 200"),
        }
        if !is_warm {
            is_warm = true;
            counts.warm();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_tell_their_length() {
        let head = b"HTTP/1.1 200 OK\r\nServer: a\r\nCONTENT-length: 128\r\n\r\n";
        assert_eq!(content_length(head), Some(128));
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), None);
        assert_eq!(content_length(b"HTTP/1.1 204 OK\r\n\r\n"), None);
    }
}
