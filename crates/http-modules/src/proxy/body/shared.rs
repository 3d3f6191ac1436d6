//! The body of an answer over HTTP/2: its parts come from a connection that others use as well.

use super::{End, Step, UpstreamBody};
use crate::proxy::attempt::Way;
use crate::proxy::http2::{self, Part, Trouble};
use http::Exchange;
use session::log::Level;
use std::task::{Context, Poll};
use wire::http1::ResponseFraming;

impl UpstreamBody {
    /// The next part. The request's body goes on meanwhile.
    pub(super) fn step_shared(&mut self, cx: &mut Context<'_>, x: &mut Exchange) -> Step {
        self.feed(cx, x);
        loop {
            if self.end != End::Open {
                return Step::Over;
            }
            if let Some(pace) = &mut self.pace
                && pace.poll(cx).is_pending()
            {
                return Step::Waiting;
            }
            let Some(Way::Shared(carried)) = &self.way else { return Step::Over };
            let part = carried.poll_part(cx, self.buffers.step);
            let received = carried.take_received() as usize;
            if received > 0 {
                self.count_received(x, received);
            }
            match part {
                Poll::Ready(Ok(Some(Part::Data(data)))) => {
                    self.armed = false;
                    self.remaining = self.remaining.saturating_sub(data.len() as u64);
                    if let Some(pace) = &mut self.pace {
                        pace.has_read(data.len());
                    }
                    if let Some(attempt) = x.upstream_log().last() {
                        attempt.response_length += data.len() as u64;
                    }
                    return Step::Data(data);
                }
                // The body ends with them.
                Poll::Ready(Ok(Some(Part::Trailers(text)))) => self.take_trailers(x, &text),
                Poll::Ready(Ok(None)) => self.finish(x),
                Poll::Ready(Err(trouble)) => self.broken_off(x, trouble),
                Poll::Pending => {
                    let step = self.wait(cx, x);
                    if self.end == End::Broken
                        && let Some(Way::Shared(carried)) = &self.way
                    {
                        carried.avoid_connection();
                    }
                    return step;
                }
            }
        }
    }

    /// Passes on what the client sends while the answer comes.
    fn feed(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        let Some(Way::Shared(carried)) = &self.way else { return };
        while self.streaming && carried.wants_body() {
            match x.poll_body(cx) {
                Poll::Ready(Ok(Some(piece))) => carried.push(piece),
                Poll::Ready(Ok(None)) => {
                    carried.end(http2::trailers(&self.settings, x));
                    self.streaming = false;
                }
                // The answer may come all the same.
                Poll::Ready(Err(_)) => self.streaming = false,
                Poll::Pending => break,
            }
        }
    }

    fn take_trailers(&mut self, x: &mut Exchange, text: &[u8]) {
        self.trailers.get_or_insert_default();
        self.read_trailers(x, text);
    }

    fn broken_off(&mut self, x: &mut Exchange, trouble: Trouble) {
        let doing = "while reading upstream";
        match trouble {
            // All that was announced is there.
            Trouble::Closed { .. } | Trouble::Broken { .. } if self.is_whole() => self.finish(x),
            Trouble::Invalid(text) | Trouble::Unserved { text, .. } => match self.is_whole() {
                true => {
                    self.log(x, Level::Error, format_args!("{text} {doing}"));
                    self.finish(x);
                }
                false => self.fail(x, format_args!("{text} {doing}")),
            },
            Trouble::TooBig => self.fail(x, format_args!("upstream sent too big header {doing}")),
            Trouble::Closed { .. } => {
                self.fail(x, format_args!("upstream prematurely closed connection {doing}"));
            }
            Trouble::Broken { errno, .. } => {
                self.fail(x, format_args!("recv() failed ({errno}) {doing}"));
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.remaining == 0 && matches!(self.framing, ResponseFraming::Length(_))
    }
}
