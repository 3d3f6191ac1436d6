//! Backends: answers to HTTP requests, an echo, bytes without end, and packets that come back.
//!
//! The HTTP backend answers every request; the length of the body is 128 bytes or the number after
//! the last `/` of the path. It skips bodies of requests that say their length.

use std::collections::HashMap;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;

use net::{Address, DatagramListener, Listener, Sharing, Stream, Taking};
use system::datagram::Batch;
use system::socket::{ListenOptions, Transport, listen};

use crate::load::{Failure, Orders};

/// What an answer's body has when the path names no length.
pub(crate) const DEFAULT_BODY: usize = 128;
/// Longer bodies are sent in pieces of this size.
const PIECE: usize = 1 << 20;
/// The longest body that is made.
const LONGEST_BODY: usize = 1 << 32;
/// The longest head that is understood, in bytes.
const LONGEST_HEAD: usize = 4096;
/// What the echo takes at once.
const ECHO: usize = 16 << 10;

/// Serves on all addresses that the orders name, without end.
pub(crate) async fn serve(orders: &Orders) -> Result<(), Failure> {
    let pieces = Pieces::default();
    if let Some(address) = orders.address_of("http")? {
        accept(&address, move |stream| answer(stream, pieces.clone()))?;
    }
    if let Some(address) = orders.address_of("echo")? {
        accept(&address, echo)?;
    }
    if let Some(address) = orders.address_of("source")? {
        let piece: Rc<[u8]> = vec![b'x'; PIECE].into();
        accept(&address, move |stream| pour(stream, piece.clone()))?;
    }
    if let Some(address) = orders.address_of("packets")? {
        let options = ListenOptions { transport: Transport::Datagram, ..ListenOptions::default() };
        let listener = DatagramListener::new(listener(&address, &options)?)?;
        net::spawn(return_packets(listener));
    }
    println!("ready");
    std::future::pending().await
}

fn listener(address: &Address, options: &ListenOptions) -> Result<Listener, Failure> {
    let socket = listen(address, options).map_err(|error| format!("{address}: {error:?}"))?;
    if options.transport == Transport::Stream {
        system::socket::set_nodelay(socket.as_fd(), true)?;
    }
    Ok(Listener::new(socket, Sharing::Alone, Taking::All)?)
}

fn accept<F>(address: &Address, serve: impl Fn(Stream) -> F + 'static) -> Result<(), Failure>
where
    F: Future<Output = ()> + 'static,
{
    let options = ListenOptions { backlog: 16384, ..ListenOptions::default() };
    let listener = listener(address, &options)?;
    net::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            net::spawn(serve(stream));
        }
    });
    Ok(())
}

/// Beginnings of answers by the length of their body, made once for all connections.
#[derive(Default, Clone)]
struct Pieces {
    made: Rc<std::cell::RefCell<HashMap<usize, Rc<[u8]>>>>,
}

impl Pieces {
    /// The head and as much of the body as fits into a piece.
    fn of_length(&self, length: usize) -> Rc<[u8]> {
        let make = || {
            let head = format!(
                "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
                 Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
            );
            [head.as_bytes(), &vec![b'x'; length.min(PIECE)]].concat().into()
        };
        self.made.borrow_mut().entry(length).or_insert_with(make).clone()
    }
}

async fn answer(stream: Stream, pieces: Pieces) {
    let mut head = Vec::new();
    loop {
        match poll_fn(|cx| stream.poll_lend(cx, LONGEST_HEAD)).await {
            Ok(block) if !block.is_empty() => head.extend_from_slice(block.filled()),
            _ => return,
        }
        let Some(end) = head_end(&head) else {
            match head.len() > LONGEST_HEAD {
                true => return,
                false => continue,
            }
        };
        let length = wanted_length(&head);
        let missing = (end + body_length(&head[..end])).saturating_sub(head.len());
        head.clear();
        if skip(&stream, missing).await.is_none() || send(&stream, &pieces, length).await.is_none()
        {
            return;
        }
    }
}

/// Where a head ends; the usual request is a head and nothing else.
fn head_end(bytes: &[u8]) -> Option<usize> {
    match bytes.ends_with(b"\r\n\r\n") {
        true => Some(bytes.len()),
        false => bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4),
    }
}

/// Takes so many bytes of a body.
async fn skip(stream: &Stream, mut missing: usize) -> Option<()> {
    while missing > 0 {
        match poll_fn(|cx| stream.poll_lend(cx, ECHO)).await {
            Ok(block) if !block.is_empty() => missing = missing.saturating_sub(block.len()),
            _ => return None,
        }
    }
    Some(())
}

async fn send(stream: &Stream, pieces: &Pieces, length: usize) -> Option<()> {
    stream.write_all(&pieces.of_length(length)).await.ok()?;
    let mut left = length.saturating_sub(PIECE);
    while left > 0 {
        let piece = pieces.of_length(PIECE);
        let part = left.min(PIECE);
        stream.write_all(&piece[piece.len() - part..]).await.ok()?;
        left -= part;
    }
    Some(())
}

/// The number that the path ends with.
fn wanted_length(head: &[u8]) -> usize {
    let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let last = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    number(last).map_or(DEFAULT_BODY, |length| length.min(LONGEST_BODY))
}

/// The length of a request's body; only requests other than GET are looked at.
fn body_length(head: &[u8]) -> usize {
    if head.starts_with(b"GET ") {
        return 0;
    }
    let lines = head.split(|byte| *byte == b'\n');
    let field = |line: &[u8]| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| number(value.trim_ascii()))?
    };
    lines.filter_map(field).next().unwrap_or(0)
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

async fn echo(stream: Stream) {
    loop {
        match poll_fn(|cx| stream.poll_lend(cx, ECHO)).await {
            Ok(block) if !block.is_empty() => {
                if stream.write_all(block.filled()).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

async fn pour(stream: Stream, piece: Rc<[u8]>) {
    while stream.write_all(&piece).await.is_ok() {}
}

async fn return_packets(listener: DatagramListener) {
    let mut batch = Batch::default();
    loop {
        if poll_fn(|cx| listener.poll_receive(cx, &mut batch)).await.is_err() {
            continue;
        }
        for packet in batch.packets() {
            // A packet that finds no room is lost, as packets may be; its client counts it.
            let _ = listener.send_to(packet.bytes, packet.peer, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_how_long_the_answer_is() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", DEFAULT_BODY),
            ("GET /16384 HTTP/1.1\r\n\r\n", 16384),
            ("GET /a/1 HTTP/1.1\r\n\r\n", 1),
            ("GET /999999999999 HTTP/1.1\r\n\r\n", LONGEST_BODY),
            ("", DEFAULT_BODY),
        ] {
            assert_eq!(wanted_length(head.as_bytes()), expected, "{head}");
        }
    }

    #[test]
    fn bodies_of_requests_are_skipped() {
        for (head, expected) in [
            ("POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", 12),
            ("POST / HTTP/1.1\r\nHost: a\r\ncontent-length:7\r\n\r\n", 7),
            ("POST / HTTP/1.1\r\n\r\n", 0),
            ("GET / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", 0),
        ] {
            assert_eq!(body_length(head.as_bytes()), expected, "{head}");
        }
        assert_eq!(head_end(b"POST / HTTP/1.1\r\n\r\nabc"), Some(19));
        assert_eq!(head_end(b"POST / HTTP/1.1\r\n"), None);
    }

    #[test]
    fn long_answers_begin_with_a_piece() {
        let long = Pieces::default().of_length(PIECE * 3);
        assert!(long.ends_with(&vec![b'x'; PIECE]));
        assert!(long.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}
