//! When lines of the access log are written: at the end of the turn of the loop in which they
//! came, together; or when their buffer is full or old.
//!
//! nginx writes each unbuffered line by itself. Here the lines of one turn share a write, which
//! nobody can tell from the outside: a request is logged after its answer was sent, and the
//! flusher runs before the loop waits again. Without a running flusher lines are written at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::{Buffering, LogFile};
use system::driver::{self, Timer};

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What is remembered about a file.
#[derive(Default)]
pub(super) struct Place {
    /// The file is in `Queue::buffered`.
    queued: Cell<bool>,
    /// When it must be written, in milliseconds of the driver's clock.
    deadline_ms: Cell<Option<u64>>,
}

struct Queue {
    /// LogFiles with lines to be written at the end of this turn.
    turn: RefCell<Vec<Rc<LogFile>>>,
    /// LogFiles with lines in a buffer.
    buffered: RefCell<Vec<Rc<LogFile>>>,
    /// No file of `buffered` is due before.
    next_ms: Cell<u64>,
    /// The flusher's, while it runs.
    waker: RefCell<Option<Waker>>,
}

thread_local! {
    static QUEUE: Queue = const { Queue {
        turn: RefCell::new(Vec::new()),
        buffered: RefCell::new(Vec::new()),
        next_ms: Cell::new(NEVER),
        waker: RefCell::new(None),
    } };
}

/// Whether a flusher will write what is enqueued.
pub(super) fn is_running() -> bool {
    QUEUE.with(|queue| queue.waker.borrow().is_some())
}

/// Enters a file whose buffer begins with the line just added.
pub(super) fn enqueue(file: &Rc<LogFile>, buffering: Option<Buffering>) {
    QUEUE.with(|queue| {
        let Some(Buffering { flush_ms, .. }) = buffering else {
            queue.turn.borrow_mut().push(file.clone());
            queue.wake();
            return;
        };
        let deadline = flush_ms.map(|wait| driver::now() + wait);
        file.place.deadline_ms.set(deadline);
        if !file.place.queued.replace(true) {
            queue.buffered.borrow_mut().push(file.clone());
        }
        if deadline.is_some_and(|deadline| deadline < queue.next_ms.get()) {
            queue.next_ms.set(deadline.unwrap_or(NEVER));
            queue.wake();
        }
    });
}

impl Queue {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn write_turn(&self) {
        // Taken, so that a failing write may log, and put back for its capacity.
        let mut turn = mem::take(&mut *self.turn.borrow_mut());
        for file in turn.drain(..) {
            file.flush();
        }
        let mut place = self.turn.borrow_mut();
        if place.is_empty() {
            *place = turn;
        }
    }

    /// Writes the buffered files that are due at `now`, and finds when the next one is.
    fn write_due(&self, now: u64) {
        self.next_ms.set(NEVER);
        let mut files = mem::take(&mut *self.buffered.borrow_mut());
        files.retain(|file| {
            let deadline = file.place.deadline_ms.get().unwrap_or(NEVER);
            if deadline <= now {
                file.flush();
                file.place.queued.set(false);
                return false;
            }
            self.next_ms.set(self.next_ms.get().min(deadline));
            true
        });
        self.buffered.borrow_mut().append(&mut files);
    }
}

/// Writes the lines of this turn, and the buffers that are old enough. The flusher does it; a
/// loop of another kind calls this before it waits.
pub fn flush_pending() {
    QUEUE.with(|queue| {
        queue.write_turn();
        if queue.next_ms.get() != NEVER && queue.next_ms.get() <= driver::now() {
            queue.write_due(driver::now());
        }
    });
}

/// Writes every line that waits in this process: before it exits.
pub fn flush_all() {
    QUEUE.with(|queue| {
        queue.write_turn();
        for file in queue.buffered.take() {
            file.place.queued.set(false);
            file.flush();
        }
        queue.next_ms.set(NEVER);
    });
}

/// The task that a worker spawns once, after it started its driver:
/// `driver::spawn(log::flusher())`. It never finishes. When it is dropped, as the loop ends,
/// everything that waits is written, and later lines are written at once.
pub async fn flusher() {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            QUEUE.with(|queue| queue.waker.take());
            flush_all();
        }
    }
    let _end = End;
    let timer = Timer::new();
    poll_fn(|cx| {
        QUEUE.with(|queue| {
            let mut waker = queue.waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        });
        loop {
            flush_pending();
            match QUEUE.with(|queue| queue.next_ms.get()) {
                NEVER => timer.clear(),
                next => timer.set(next),
            }
            if timer.poll_expired(cx).is_pending() {
                return Poll::<()>::Pending;
            }
        }
    })
    .await;
}
