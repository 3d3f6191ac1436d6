//! What is left of a subrequest's answer that nobody reads.
//!
//! A backend's connection can be used again only when nothing is left to come on it, so a short
//! rest is read and dropped; a long or a slow one costs its connection.

use http::{Body, Exchange};
use std::future::poll_fn;
use std::task::{Context, Poll};

/// How many bytes are read for the sake of the connection.
const MOST: u64 = 64 * 1024;
/// For how long, in milliseconds.
const LONGEST_MS: u64 = 1000;

/// The body of an answer, on its way to nowhere.
pub struct Unread {
    body: Body,
    read: u64,
}

impl Unread {
    /// Takes the body of a subrequest's answer.
    pub fn of(child: &mut Exchange) -> Unread {
        Unread { body: std::mem::take(&mut child.response.body), read: 0 }
    }

    /// Drops what is there by now; true when nothing more is worth waiting for.
    pub async fn drop_ready(&mut self, child: &mut Exchange) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_drop(cx, child).is_ready())).await
    }

    /// Drops what still comes, within the limits.
    pub async fn drop_rest(mut self, child: &mut Exchange) {
        net::timeout(LONGEST_MS, poll_fn(|cx| self.poll_drop(cx, child))).await;
    }

    fn poll_drop(&mut self, cx: &mut Context<'_>, child: &mut Exchange) -> Poll<()> {
        while self.read < MOST && matches!(self.body, Body::Stream(_)) {
            match self.body.poll_pull(cx, child) {
                Poll::Ready(Ok(Some(piece))) => self.read += piece.data.len().max(1),
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}
