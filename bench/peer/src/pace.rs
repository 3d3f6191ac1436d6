//! The load `pace`: requests at a fixed rate, whether or not earlier ones were answered.
//!
//! `pace ADDRESS rate=N [path=/]`: every request has a time at which it is due, and its latency
//! counts from that time, not from when it could be sent. A proxy that stands still for a moment
//! therefore shows in all requests that were due meanwhile, not only in those that were under
//! way ("coordinated omission").

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
    let sent = pace(&lanes, rate, orders.span_ms()? * 1000).await?;
    net::sleep(PATIENCE_MS).await;
    // What has no answer by now failed.
    for _ in counts.settled()..sent {
        counts.failed("a request without an answer");
    }
    counts.tell();
    Ok(())
}

/// Gives each request to the next lane when it is due; how many there were.
async fn pace(lanes: &[Rc<Lane>], rate: f64, span_us: u64) -> io::Result<u64> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let source = Source::new(timer.as_fd(), Interest::READ)?;
    let start = net::precise_now_us();
    let due = |number: u64| start + (number as f64 * 1e6 / rate) as u64;
    let mut number = 0;
    loop {
        let now = net::precise_now_us();
        while due(number) <= now {
            if due(number) >= start + span_us {
                return Ok(number);
            }
            lanes[number as usize % lanes.len()].push(due(number));
            number += 1;
        }
        let next = due(number);
        let value = Timespec {
            tv_sec: (next / 1_000_000) as i64,
            tv_nsec: (next % 1_000_000 * 1000) as i64,
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        poll_fn(|cx| source.poll_readable(cx)).await;
        let mut expirations = [0; 8];
        let _ = rustix::io::read(&timer, &mut expirations);
        source.clear_readable();
    }
}

async fn serve(address: Address, request: Rc<Vec<u8>>, lane: Rc<Lane>, counts: Rc<Counts>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let link = match Link::open(&address, None).await {
            Ok(link) => link,
            Err(error) => {
                lane.next().await;
                counts.failed(error);
                continue;
            }
        };
        loop {
            let due = lane.next().await;
            let one = async {
                link.write_all(&request).await?;
                answer(&link, &mut buffer, |bytes| counts.received(bytes)).await
            };
            match one.await {
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
