//! Clients that stay silent after one request: over HTTP/1.1, with TLS, over HTTP/2 in TLS, or
//! after one message through a TCP proxy.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use net::Address;
use rustls::ClientConfig;
use system::driver::{Interest, Source};

use crate::client::{Link, answer};
use crate::load::{Failure, Orders};
use crate::secure::{Sessions, config};

/// So many connections are opened at a time.
const AT_ONCE: usize = 50;

/// Which request a connection has made before it falls silent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http1,
    Http2,
    Message,
}

/// Opens the connections, says so, and keeps them until standard input ends.
pub(crate) async fn run(orders: &Orders) -> Result<(), Failure> {
    let address = orders.address()?;
    let (kind, secure) = match orders.text("kind").unwrap_or("plain") {
        "plain" => (Kind::Http1, None),
        "tls" => (Kind::Http1, Some(config(Sessions::Full, &[])?)),
        "h2" => (Kind::Http2, Some(config(Sessions::Full, &["h2"])?)),
        "stream" => (Kind::Message, None),
        other => return Err(format!("there is no kind {other}").into()),
    };
    let count = orders.connections()?;
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let mut batch = Vec::new();
        for _ in 0..AT_ONCE.min(count - open.len()) {
            batch.push(connect(&address, kind, secure.as_ref()).await?);
        }
        open.append(&mut batch);
    }
    println!("ready");
    let end = Source::new(std::io::stdin().as_fd(), Interest::READ)?;
    poll_fn(|cx| end.poll_hung_up(cx)).await;
    Ok(())
}

async fn connect(
    address: &Address,
    kind: Kind,
    secure: Option<&Arc<ClientConfig>>,
) -> io::Result<Link> {
    let link = Link::open(address, secure).await?;
    let mut buffer = [0; 8192];
    match kind {
        Kind::Http1 => {
            link.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
            if !answer(&link, &mut buffer, |_| {}).await? {
                return Err(io::Error::other("an answer that is not 200"));
            }
        }
        Kind::Http2 => one_stream(&link, &mut buffer).await?,
        Kind::Message => {
            link.write_all(b"message").await?;
            link.read(&mut buffer).await?;
        }
    }
    Ok(link)
}

/// Preface, empty SETTINGS, and HEADERS of a GET on stream 1 (RFC 9113 sections 3.4 and 6.2, RFC
/// 7541 appendix A for the field block: method, scheme and path by index, authority as text).
const HTTP2_REQUEST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x0a\x01\x05\x00\x00\x00\x01\x82\x87\x84\x41\x05bench";
/// SETTINGS with the flag ACK.
const SETTINGS_ACK: &[u8] = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00";

/// Asks on stream 1 and reads until that stream ends.
async fn one_stream(link: &Link, buffer: &mut [u8]) -> io::Result<()> {
    link.write_all(HTTP2_REQUEST).await?;
    let mut received = Vec::new();
    loop {
        while let Some((frame, length)) = Frame::first(&received) {
            if frame.kind == Frame::SETTINGS && frame.flags & Frame::ACK == 0 {
                link.write_all(SETTINGS_ACK).await?;
            }
            if frame.stream == 1 && frame.flags & Frame::END_STREAM != 0 {
                return Ok(());
            }
            if matches!(frame.kind, Frame::RST_STREAM | Frame::GOAWAY) {
                return Err(io::Error::other("the server ended the stream"));
            }
            received.drain(..length);
        }
        match link.read(buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.extend_from_slice(&buffer[..length]),
        }
    }
}

/// The head of a frame, RFC 9113 section 4.1.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const ACK: u8 = 1;
    const END_STREAM: u8 = 1;

    /// The first frame when it is there wholly, and its length with its head.
    fn first(bytes: &[u8]) -> Option<(Frame, usize)> {
        let [a, b, c, kind, flags, stream @ ..] = bytes.get(..9)? else { return None };
        let length = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let stream = u32::from_be_bytes(stream.try_into().ok()?) & 0x7fff_ffff;
        (bytes.len() >= length).then_some((Frame { kind: *kind, flags: *flags, stream }, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_when_they_are_whole() {
        let frame = Frame { kind: 1, flags: 5, stream: 1 };
        let bytes = &HTTP2_REQUEST[33..];
        assert_eq!(Frame::first(bytes), Some((frame, bytes.len())));
        assert_eq!(Frame::first(&bytes[..12]), None);
        assert_eq!(Frame::first(&[]), None);
    }
}
