//! What a response's body is: pieces that are pulled, with back-pressure, through filters.
//!
//! A body is asked for its next piece only when there is room to send it. While the client is
//! slow, `poll_ahead` lets a source go on filling its own bounded buffers or its spill file, so
//! that a slow client never pins a backend. A filter wraps the body of the response and forwards
//! both calls.

use crate::exchange::Exchange;
use net::Data;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The next part of a body.
pub struct Piece {
    /// The bytes, in memory or in a file.
    pub data: Data,
    /// Send what is there at once, although more will follow.
    pub flush: bool,
}

impl Piece {
    /// A piece that may wait for more.
    pub fn new(data: Data) -> Piece {
        Piece { data, flush: false }
    }
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// A source of pieces.
pub trait Pull {
    /// The next piece; `None` after the last one. A source that reports `Broken` has logged why.
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>>;

    /// Called while nothing can be sent: buffer what comes in, within the source's own limits.
    fn poll_ahead(&mut self, _cx: &mut Context<'_>, _x: &mut Exchange) {}

    /// Says that whoever pulls only passes on: pieces may come in pipes. Who looks into a body, or
    /// changes it, does not pass this to its source.
    fn take_pipes(&mut self) {}

    /// The bytes from `start` to `end` as a body of their own, where that takes no pulling.
    fn part(&self, _start: u64, _end: u64) -> Option<Box<dyn Pull>> {
        None
    }
}

/// A conversation that takes over the connection after the head (101 Switching Protocols).
pub type Tunnel = Box<dyn FnOnce(Rc<crate::connection::Connection>) -> TunnelFuture>;
/// Resolves when the tunnel is closed: bytes sent to the client.
pub type TunnelFuture = Pin<Box<dyn Future<Output = u64>>>;

/// The body of a response.
#[derive(Default)]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// All of it in one piece.
    Whole(Data),
    /// Pulled piece by piece.
    Stream(Box<dyn Pull>),
    /// Not a body: after the head the connection speaks another protocol.
    Tunnel(Tunnel),
}

impl Body {
    /// True when not one byte will come.
    pub fn is_empty(&self) -> bool {
        matches!(self, Body::Empty)
    }

    /// The next piece, see [`Pull::poll_pull`].
    pub fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        match self {
            Body::Stream(source) => source.poll_pull(cx, x),
            Body::Whole(_) => {
                let Body::Whole(data) = std::mem::take(self) else { return Poll::Ready(Ok(None)) };
                Poll::Ready(Ok(Some(Piece::new(data))))
            }
            Body::Empty | Body::Tunnel(_) => Poll::Ready(Ok(None)),
        }
    }

    /// See [`Pull::poll_ahead`].
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        if let Body::Stream(source) = self {
            source.poll_ahead(cx, x);
        }
    }
}
