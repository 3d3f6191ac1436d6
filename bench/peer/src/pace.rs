//! The load `pace`: requests at a fixed rate, whether or not earlier ones were answered.
//!
//! `pace ADDRESS rate=N [path=/]`: every request has a time at which it is due, and its latency
//! counts from that time, not from when it could be sent. A proxy that stands still for a moment
//! therefore shows in all requests that were due meanwhile, not only in those that were under
//! way ("coordinated omission"). Requests are due in ticks of 100 us, so that at high rates a few
//! are due together: a wake-up for each would cost more than the request. The first tick comes
//! when every connection has had an answer, and `begin` is printed then.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use net::Address;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use system::driver::{Interest, Source};

use crate::client::{Link, answer, get};
use crate::load::{Counts, Failure, Orders};

/// After the last request is due, answers are awaited for so long, in milliseconds.
const PATIENCE_MS: u64 = 500;
/// Requests are due at multiples of this many microseconds.
const TICK_US: u64 = 100;

/// One connection: when its next requests are due.
#[derive(Default)]
struct Lane {
    due_us: RefCell<VecDeque<u64>>,
    waker: Cell<Option<Waker>>,
}

impl Lane {
    fn push(&self, due_us: u64) {
        self.due_us.borrow_mut().push_back(due_us);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn next(&self) -> u64 {
        poll_fn(|cx| match self.due_us.borrow_mut().pop_front() {
            Some(due) => Poll::Ready(due),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// The load.
pub(crate) async fn run(orders: &Orders) -> Result<(), Failure> {
    let address = orders.address()?;
    let rate: f64 = orders.value("rate", 1000.0)?;
    let request = Rc::new(get("bench", orders.text("path").unwrap_or("/")));
    let counts = Rc::new(Counts::default());
    let mut lanes = Vec::new();
    for _ in 0..orders.connections()? {
        let lane = Rc::new(Lane::default());
        net::spawn(serve(address.clone(), request.clone(), lane.clone(), counts.clone()));
        lanes.push(lane);
    }
    counts.all_warm(lanes.len()).await;
    let sent = pace(&lanes, rate, orders.span_ms()? * 1000).await?;
    let deadline = net::now() + PATIENCE_MS;
    while counts.settled() < sent && net::now() < deadline {
        net::sleep(1).await;
    }
    // What has no answer by now failed.
    for _ in counts.settled()..sent {
        counts.failed("a request without an answer");
    }
    counts.tell();
    Ok(())
}

/// How many requests are due before the end of a tick.
fn due_by(tick: u64, rate: f64) -> u64 {
    ((tick + 1) as f64 * TICK_US as f64 * rate / 1e6) as u64
}

/// Gives each request to the next lane when it is due; how many there were.
async fn pace(lanes: &[Rc<Lane>], rate: f64, span_us: u64) -> io::Result<u64> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let source = Source::new(timer.as_fd(), Interest::READ)?;
    let every = |us: u64| Timespec {
        tv_sec: (us / 1_000_000) as i64,
        tv_nsec: (us % 1_000_000 * 1000) as i64,
    };
    let start = net::precise_now_us() + TICK_US;
    let setting = Itimerspec { it_interval: every(TICK_US), it_value: every(start) };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &setting)?;
    let (mut number, mut tick) = (0, 0);
    while tick < span_us / TICK_US {
        poll_fn(|cx| source.poll_readable(cx)).await;
        let mut expirations = [0; 8];
        let _ = rustix::io::read(&timer, &mut expirations);
        source.clear_readable();
        // Ticks that were missed are made up for at once; their requests are late.
        let now = net::precise_now_us();
        while start + tick * TICK_US <= now && tick < span_us / TICK_US {
            while number < due_by(tick, rate) {
                lanes[number as usize % lanes.len()].push(start + tick * TICK_US);
                number += 1;
            }
            tick += 1;
        }
    }
    Ok(number)
}

async fn serve(address: Address, request: Rc<Vec<u8>>, lane: Rc<Lane>, counts: Rc<Counts>) {
    let mut buffer = vec![0; 16 << 10];
    let mut is_warm = false;
    loop {
        let link = match Link::open(&address, None).await {
            Ok(link) => link,
            Err(error) => {
                if is_warm {
                    lane.next().await;
                }
                counts.failed(error);
                net::sleep(1).await;
                continue;
            }
        };
        let one = async |buffer: &mut [u8]| {
            link.write_all(&request).await?;
            answer(&link, buffer, |bytes| counts.received(bytes)).await
        };
        // The first answer waits for connections on both sides of the proxy, and does not count.
        if one(&mut buffer).await.is_err() {
            net::sleep(1).await;
            continue;
        }
        if !std::mem::replace(&mut is_warm, true) {
            counts.warm();
        }
        loop {
            let due = lane.next().await;
            match one(&mut buffer).await {
                Ok(true) => counts.done(due),
                Ok(false) => counts.failed("a status that is not 200"),
                Err(error) => {
                    counts.failed(error);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_met_over_a_second() {
        let ticks = 1_000_000 / TICK_US;
        for rate in [1.0, 999.0, 10_000.0, 12_345.0, 60_000.0] {
            assert_eq!(due_by(ticks - 1, rate), rate as u64, "{rate}");
        }
        let most = (0..ticks).map(|tick| due_by(tick + 1, 12_345.0) - due_by(tick, 12_345.0));
        assert_eq!(most.max(), Some(2));
    }
}
