//! The request on its way out and the head of its answer on its way in, on a connection that
//! others use as well.

use super::{Carried, Trouble};
use crate::proxy::attempt::{Cause, Dialogue, Found, Waiting};
use http::Exchange;
use net::Block;
use session::log::Level;
use std::task::{Context, Poll};

const DOING: &str = "while reading response header from upstream";

impl Dialogue<'_> {
    /// Ready with the head of the answer.
    pub(in super::super) fn poll_shared(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
        carried: &Carried,
    ) -> Poll<Result<Found, Cause>> {
        while self.streaming && carried.wants_body() {
            match x.poll_body(cx) {
                Poll::Ready(Ok(Some(piece))) => {
                    self.taken = true;
                    carried.push(piece);
                }
                Poll::Ready(Ok(None)) => {
                    self.streaming = false;
                    carried.end(super::trailers(self.context.settings, x));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Cause::ClientBody(error))),
                Poll::Pending => break,
            }
        }
        loop {
            match carried.poll_head(cx) {
                Poll::Ready(Ok(head)) => {
                    self.armed = None;
                    self.block = Some(Block::copy_of(&head));
                    if let Some(outcome) = self.parse(x) {
                        return Poll::Ready(outcome);
                    }
                }
                Poll::Ready(Err(trouble)) => {
                    let may_repeat = carried.may_repeat() && !self.taken;
                    return Poll::Ready(Err(self.vain(x, trouble, may_repeat)));
                }
                Poll::Pending => break,
            }
        }
        let sent = carried.sent();
        if std::mem::replace(&mut self.marked, sent) != sent {
            self.armed = None;
        }
        let waiting = match carried.is_sent() || (self.streaming && carried.wants_body()) {
            true => Waiting::Read,
            false => Waiting::Send,
        };
        let waited = self.wait(cx, x, waiting);
        if let Poll::Ready(Err(Cause::Timeout)) = waited {
            carried.avoid_connection();
        }
        waited
    }

    /// There is no answer.
    fn vain(&mut self, x: &mut Exchange, trouble: Trouble, may_repeat: bool) -> Cause {
        match trouble {
            Trouble::Unserved { again: true, .. } if may_repeat => Cause::Stale,
            Trouble::Closed { quiet: true } | Trouble::Broken { quiet: true, .. }
                if self.reused && may_repeat =>
            {
                Cause::Stale
            }
            Trouble::Unserved { text, .. } => {
                self.context.log(x, Level::Error, format_args!("{text} {DOING}"));
                Cause::Unserved
            }
            Trouble::Invalid(text) => {
                self.context.log(x, Level::Error, format_args!("{text} {DOING}"));
                Cause::InvalidHead
            }
            Trouble::TooBig => self.too_big(x),
            Trouble::Closed { .. } => self.log_closed(x),
            Trouble::Broken { errno, .. } => self.log_broken(x, errno),
        }
    }
}
