//! HTTP/2 to clients: one connection, many requests.
//!
//! [`begins`] finds out whether a new connection speaks HTTP/2; [`run`] then serves it until it
//! closes. Every stream makes the journey of any request, in a task of its own: where a request of
//! HTTP/1 has the connection's socket and timer, it has a [`Stream`]. The protocol itself is in
//! `wire::http2`; here are the socket, the clock and the queues.
//!
//! ```text
//! socket -> Mux::poll_read -> codec -> Head: request::read -> task: journey::stream
//!                                   -> Data: Stream's inbox  -> body: Exchange::poll_body
//! socket <- Mux::poll_write <- codec <- Stream's outbox, in turns <- send::Sender
//! ```
//!
//! What a client can make us hold: of each stream its window of body that nobody has read yet
//! (`http2_body_preread_size`), and [`outbox::ROOM`] of answer; of the connection
//! [`mux::OUT_HIGH`] of frames, and what the codec holds. While more waits to be sent, nothing is
//! read, so answers to PING and SETTINGS cannot pile up.

mod answer;
mod body;
mod directives;
mod mux;
mod outbox;
mod request;
mod stream;

pub(crate) use answer::{head, hints, trailers};
pub(crate) use directives::CHUNK_SIZE;
pub use directives::{ALL, Settings};
pub(crate) use request::Arrived;
pub use stream::Stream;

use crate::connection::Connection;
use crate::head::NoHead;
use crate::head::within;
use net::Chunk;
use std::future::poll_fn;
use std::rc::Rc;
use wire::http2::frame::PREFACE;

pub(crate) use mux::{Mux, run};

/// Whether a connection that has received its first byte speaks HTTP/2: by agreement (ALPN), or
/// because it begins as only HTTP/2 does. What was received stays the connection's leftover.
pub(crate) async fn begins(connection: &Rc<Connection>, deadline: u64) -> bool {
    if connection.served.tls {
        let session = connection.stream.tls();
        return session.is_some_and(|session| session.alpn().as_deref() == Some(b"h2"));
    }
    loop {
        let mut have = match connection.take_leftover() {
            Some(left) => left,
            None => {
                let more = poll_fn(|cx| connection.poll_lend(cx, FIRST_READ));
                match within(connection, deadline, more).await {
                    Ok(block) => block.freeze(),
                    Err(NoHead::TimedOut | _) => return false,
                }
            }
        };
        let same = have.len().min(PREFACE.len());
        let is_begun = !have.is_empty() && have[..same] == PREFACE[..same];
        if !is_begun || same == PREFACE.len() {
            connection.put_leftover(have);
            return is_begun;
        }
        // A few bytes of it: whether the rest follows decides.
        let more = poll_fn(|cx| connection.poll_lend(cx, FIRST_READ));
        let more = within(connection, deadline, more).await;
        let is_over = match more {
            Ok(block) if !block.is_empty() => {
                let joined = [&have[..], block.filled()].concat();
                have = Chunk::copy_of(&joined);
                false
            }
            _ => true,
        };
        connection.put_leftover(have);
        if is_over {
            return false;
        }
    }
}

/// How much is read to learn what a connection speaks.
const FIRST_READ: usize = 4096;
