//! The other ends of a benchmark, in one thread each and cheap enough not to be what is measured.
//!
//! ```text
//! bench-peer answer ADDRESS            a backend: answers every request; the length of the
//!                                      body, 128 bytes or a number after the last `/` of the path
//! bench-peer idle ADDRESS COUNT        opens COUNT connections, sends one request over each, and
//!                                      keeps them silent until its standard input ends
//! ```
//! Both print a line once they are ready. Bodies of requests are not understood.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::error::Error;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;

use net::{Address, ConnectOptions, Listener, Sharing, Stream, Taking, connect};
use system::driver::{Interest, Source};
use system::socket::{ListenOptions, listen};

/// What an answer's body has when the path names no length.
const DEFAULT_BODY: usize = 128;
/// The longest body that is made.
const LONGEST_BODY: usize = 1 << 20;
/// The longest head that is understood, in bytes.
const LONGEST_HEAD: usize = 4096;
/// Idle clients open so many connections at a time.
const AT_ONCE: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    net::start(net::Settings::default())?;
    match words.as_slice() {
        ["answer", address] => net::block_on(answer(parse(address)?)),
        ["idle", address, count] => net::block_on(idle(parse(address)?, count.parse()?)),
        _ => Err("usage: bench-peer answer ADDRESS | idle ADDRESS COUNT".into()),
    }
}

fn parse(address: &str) -> Result<Address, Box<dyn Error>> {
    Ok(Address::parse(address).ok_or_else(|| format!("{address} is no address"))?)
}

// -- the backend --

async fn answer(address: Address) -> Result<(), Box<dyn Error>> {
    let options = ListenOptions { backlog: 4096, ..ListenOptions::default() };
    let socket = listen(&address, &options).map_err(|error| format!("{address}: {error:?}"))?;
    system::socket::set_nodelay(socket.as_fd(), true)?;
    let listener = Listener::new(socket, Sharing::Alone, Taking::All)?;
    println!("ready");
    let responses = Responses::default();
    loop {
        let (stream, _) = listener.accept().await?;
        net::spawn(serve(stream, responses.clone()));
    }
}

/// Answers by the length of their body, made once for all connections.
#[derive(Default, Clone)]
struct Responses {
    made: Rc<std::cell::RefCell<HashMap<usize, Rc<[u8]>>>>,
}

impl Responses {
    fn of_length(&self, length: usize) -> Rc<[u8]> {
        let make = || {
            let head = format!(
                "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
                 Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
            );
            [head.as_bytes(), &vec![b'x'; length]].concat().into()
        };
        self.made.borrow_mut().entry(length).or_insert_with(make).clone()
    }
}

async fn serve(stream: Stream, responses: Responses) {
    let mut head = Vec::new();
    loop {
        match poll_fn(|cx| stream.poll_lend(cx, LONGEST_HEAD)).await {
            Ok(block) if !block.is_empty() => head.extend_from_slice(block.filled()),
            _ => return,
        }
        if head.len() > LONGEST_HEAD {
            return;
        }
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let response = responses.of_length(wanted_length(&head));
        head.clear();
        if stream.write_all(&response).await.is_err() {
            return;
        }
    }
}

/// The number that the path ends with.
fn wanted_length(head: &[u8]) -> usize {
    let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let last = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let number = std::str::from_utf8(last).ok().and_then(|text| text.parse().ok());
    number.map_or(DEFAULT_BODY, |length: usize| length.min(LONGEST_BODY))
}

// -- clients --

async fn idle(address: Address, count: usize) -> Result<(), Box<dyn Error>> {
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let mut batch = Vec::new();
        for _ in 0..AT_ONCE.min(count - open.len()) {
            batch.push(connect(&address, &ConnectOptions::default()).await?);
        }
        for stream in &batch {
            one_request(stream).await?;
        }
        open.append(&mut batch);
    }
    println!("ready");
    let end = Source::new(std::io::stdin().as_fd(), Interest::READ)?;
    poll_fn(|cx| end.poll_hung_up(cx)).await;
    Ok(())
}

/// Sends a request and reads an answer that fits into one block.
async fn one_request(stream: &Stream) -> Result<(), Box<dyn Error>> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        let block = poll_fn(|cx| stream.poll_lend(cx, LONGEST_HEAD)).await?;
        if block.is_empty() {
            return Err("the proxy closed a connection".into());
        }
        answer.extend_from_slice(block.filled());
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        if end.is_some_and(|end| answer.len() >= end + 4 + DEFAULT_BODY) {
            return Ok(());
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
}
