//! A worker's runtime: one thread, one loop, readiness from the kernel.
//!
//! Tasks are futures in a slab, woken by index. A [`Source`] is a descriptor under watch, a
//! [`Timer`] one deadline that moves at the price of a store. Callers see edge-triggered
//! readiness whatever the kernel's call is: a direction is ready until the caller finds that it
//! is not and says so (`clear_readable`), and then it waits for the next event.
//!
//! Everything here is per thread, and nothing crosses a fork: a child calls [`start`] and gets an
//! empty driver. Futures must tolerate spurious polls; the driver never promises that a wake-up
//! means progress.
//!
//! What is left out: sockets, buffers and everything that reads or writes (crate `net`).
//! Read next: `driver/task.rs` (executor), `driver/io.rs` (sources), `driver/timer.rs`, then one
//! file per kernel interface: `epoll.rs`, `poll.rs`, `select.rs`, and `uring.rs` with `ahead.rs`.

mod ahead;
mod aio;
mod behind;
mod early;
mod epoll;
mod io;
mod late;
mod poll;
mod select;
mod state;
mod task;
mod timer;
mod turns;
mod uring;
mod waiter;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use ahead::has_unsent;
pub use io::{Handle, Interest, Source, shut_down_clients};
pub use state::{memory, precise_now_us, reports_errors, start, stop, wall};
pub use task::{block_on, defer, live_tasks, spawn, wake_all};
pub use timer::Timer;

/// The kernel interface that reports readiness (`events { use ...; }`).
///
/// Others may join behind the same face; callers must not match exhaustively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// epoll(7), edge-triggered except for listeners.
    Epoll,
    /// poll(2): every turn hands the whole set to the kernel.
    Poll,
    /// select(2): as poll, and only descriptors below 1024.
    Select,
    /// io_uring(7): receives and small sends are handed over in batches. Not every kernel and
    /// not every sandbox has it.
    IoUring,
}

/// How a worker's driver is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The kernel interface.
    pub kind: Kind,
    /// How many events one call takes from the kernel at most (epoll only). 0 counts as 1.
    pub events: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { kind: Kind::Epoll, events: 512 }
    }
}

/// Milliseconds of the monotonic clock, read once per turn of the loop.
///
/// Outside a started driver each call reads the clock.
#[inline]
pub fn now() -> u64 {
    state::now()
}

/// Lets every other ready task and one look at the kernel go first.
#[inline]
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[must_use = "a future does nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        defer(cx);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
