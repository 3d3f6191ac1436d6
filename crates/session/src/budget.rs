//! How many connections a worker may have: `worker_connections`, clients and backends together.
//!
//! Whoever opens or accepts a connection holds a [`Permit`] for as long as it lasts. The count
//! belongs to the thread: a worker is one thread.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

thread_local! {
    static LIMIT: Cell<usize> = const { Cell::new(512) };
    static USED: Cell<usize> = const { Cell::new(0) };
    static HAS_WAITERS: Cell<bool> = const { Cell::new(false) };
    static WAITERS: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// The right to one connection; dropping it returns it.
#[derive(Debug)]
pub struct Permit(());

/// Sets the limit of this worker.
pub fn set_limit(connections: usize) {
    LIMIT.set(connections);
}

/// The limit of this worker.
pub fn limit() -> usize {
    LIMIT.get()
}

/// Connections in use.
pub fn used() -> usize {
    USED.get()
}

/// A permit for one more connection, unless the limit is reached.
pub fn acquire() -> Option<Permit> {
    let used = USED.get();
    if used >= LIMIT.get() {
        return None;
    }
    USED.set(used + 1);
    Some(Permit(()))
}

/// Ready when a connection may be had. The one who waits is woken when one is returned.
pub fn poll_available(cx: &mut Context<'_>) -> Poll<()> {
    if USED.get() < LIMIT.get() {
        return Poll::Ready(());
    }
    wait(cx);
    Poll::Pending
}

/// Ready when every permit was returned.
pub fn poll_unused(cx: &mut Context<'_>) -> Poll<()> {
    if USED.get() == 0 {
        return Poll::Ready(());
    }
    wait(cx);
    Poll::Pending
}

fn wait(cx: &Context<'_>) {
    HAS_WAITERS.set(true);
    WAITERS.with_borrow_mut(|waiters| {
        if !waiters.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiters.push(cx.waker().clone());
        }
    });
}

impl Drop for Permit {
    fn drop(&mut self) {
        USED.set(USED.get().saturating_sub(1));
        if HAS_WAITERS.replace(false) {
            // At the end of a thread they may be gone, and nobody waits.
            let waiters = WAITERS.try_with(RefCell::take).unwrap_or_default();
            waiters.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_and_returned() {
        set_limit(2);
        let first = acquire();
        let second = acquire();
        assert!(first.is_some() && second.is_some() && acquire().is_none());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(poll_available(&mut cx).is_pending());
        drop(first);
        assert!(poll_available(&mut cx).is_ready() && used() == 1);
        drop(second);
        assert!(poll_unused(&mut cx).is_ready());
    }
}
