//! `limit_rate`: how fast an answer may leave (nginx: ngx_http_write_filter_module).
//!
//! In the first second `rate` bytes may go, head included, and as many more in each second that
//! begins after it; `after` bytes come on top. What may not go yet is held here, so that an
//! answer without a limit costs nothing.

use crate::exchange::Exchange;
use net::{Data, OutQueue};
use session::log::{Bytes, Level};
use session::variables::Template;
use std::collections::VecDeque;
use std::task::{Context, Poll, ready};
use system::driver::Timer;

/// What holds an answer back.
pub(crate) struct Pace {
    /// Bytes per second.
    rate: u64,
    /// Bytes that are free.
    after: u64,
    /// When the seconds began, in milliseconds of the loop's clock.
    since: u64,
    held: VecDeque<Data>,
    held_bytes: u64,
    timer: Timer,
}

impl Pace {
    /// The limit of this answer; `None` when there is none. From here on `$limit_rate` tells it.
    pub(crate) fn of(x: &mut Exchange) -> Option<Box<Pace>> {
        if x.rate.is_none() && x.location.settings.limit_rate.is_none() {
            return None;
        }
        let location = x.location.clone();
        let rate = match x.rate {
            Some(rate) => rate,
            None => size(x, location.settings.limit_rate.as_ref()),
        };
        x.rate = Some(rate);
        if rate == 0 {
            return None;
        }
        Some(Box::new(Pace {
            rate,
            after: size(x, location.settings.limit_rate_after.as_ref()),
            since: x.started_ms,
            held: VecDeque::new(),
            held_bytes: 0,
            timer: Timer::new(),
        }))
    }

    /// Adds at the end of what is held.
    pub(crate) fn hold(&mut self, data: Data) {
        self.held_bytes += data.len();
        self.held.push_back(data);
    }

    /// Bytes held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Moves what may go now to `out`, which must be empty; ready at once when nothing is held,
    /// else when something could be moved.
    pub(crate) fn poll_release(&mut self, cx: &mut Context<'_>, out: &mut OutQueue) -> Poll<()> {
        while self.held_bytes > 0 {
            let seconds = net::now().saturating_sub(self.since) / 1000;
            let allowed = self.rate.saturating_mul(seconds + 1).saturating_add(self.after);
            if allowed > out.sent() {
                self.release(allowed - out.sent(), out);
                break;
            }
            self.timer.set(self.since + (seconds + 1) * 1000);
            ready!(self.timer.poll_expired(cx));
        }
        self.timer.clear();
        Poll::Ready(())
    }

    fn release(&mut self, mut allowed: u64, out: &mut OutQueue) {
        while allowed > 0
            && let Some(mut data) = self.held.pop_front()
        {
            let length = data.len();
            let moved = length.min(allowed);
            if moved < length {
                out.push(data.split_to(moved));
                self.held.push_front(data);
            } else {
                out.push(data);
            }
            allowed -= moved;
            self.held_bytes -= moved;
        }
    }
}

/// The value of a limit in bytes; none is 0, and so is one that is no size.
fn size(x: &mut Exchange, limit: Option<&Template>) -> u64 {
    let Some(template) = limit else { return 0 };
    let value = template.value(x);
    let text = x.text(value);
    match config::read::parse_size(text) {
        Some(size) => size,
        None => {
            x.log_error(Level::Error, format_args!("invalid size \"{}\"", Bytes(text)));
            0
        }
    }
}
