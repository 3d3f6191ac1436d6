//! Requests that wait until a peer has room for them, in the order in which they came.
//!
//! The first one looks again whenever a request at a peer ends, and now and then besides: a peer
//! may become usable with time, and other workers free what they hold without telling us. Whoever
//! comes while others wait stands behind them. Workers wait apart, but where the group has a zone
//! they count together.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use balance::PeerIndex;
use net::Timer;

use crate::attempts::{Attempts, NoPeer};
use crate::group::Group;

/// How often the first one looks again when nothing happens: alone, and beside other workers.
const ALONE_MS: u64 = 100;
const BESIDE_MS: u64 = 10;

/// What `queue` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLine {
    /// The most requests that wait; 0 lets none wait.
    pub most: u32,
    /// How long each one waits at most.
    pub timeout_ms: u64,
}

/// Why waiting did not lead to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotServed {
    /// As many as may wait already do.
    Full,
    /// It took too long.
    TimedOut,
    /// No peer is merely busy: waiting does not help.
    NoPeer,
}

/// Those who wait for a peer of one group, in one worker.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    line: QueueLine,
    waiting: RefCell<VecDeque<Waiting>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    waker: Option<Waker>,
}

/// A request's place in the queue; dropping it leaves.
struct Place {
    group: Rc<Group>,
    number: u64,
}

impl Queue {
    pub(crate) fn new(line: QueueLine) -> Queue {
        Queue { line, ..Queue::default() }
    }

    /// Whether requests may wait at all.
    pub(crate) fn is_open(&self) -> bool {
        self.line.most > 0
    }

    /// Whether somebody waits.
    pub(crate) fn is_occupied(&self) -> bool {
        self.is_open() && !self.waiting.borrow().is_empty()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// A peer may have room: the first one looks again.
    pub(crate) fn wake_first(&self) {
        if let Some(waker) = self.waiting.borrow_mut().front_mut().and_then(|w| w.waker.take()) {
            waker.wake();
        }
    }

    fn enter(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        self.waiting.borrow_mut().push_back(Waiting { number, waker: None });
        number
    }

    /// Whether the request is the first; if not, `cx` is woken when it is.
    fn poll_first(&self, number: u64, cx: &mut Context<'_>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let is_first = waiting.front().is_some_and(|first| first.number == number);
        if let Some(own) = waiting.iter_mut().find(|own| own.number == number) {
            own.waker = Some(cx.waker().clone());
        }
        is_first
    }
}

impl Place {
    fn new(group: Rc<Group>) -> Option<Place> {
        if !group.count_waiting(group.queue().line.most) {
            return None;
        }
        let number = group.queue().enter();
        Some(Place { group, number })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let queue = self.group.queue();
        queue.waiting.borrow_mut().retain(|waiting| waiting.number != self.number);
        self.group.uncount_waiting();
        // There may be room for more than one.
        queue.wake_first();
    }
}

impl Attempts {
    /// Whether [`Attempts::wait`] may help after [`Attempts::pick`] found nobody: the group has a
    /// queue, and the request was given to no peer yet.
    pub fn may_wait(&self) -> bool {
        self.group().queue().is_open() && self.is_fresh()
    }

    /// Waits for a peer that has room.
    ///
    /// # Errors
    /// Why there is none. Dropping the future leaves the queue.
    pub async fn wait(&mut self) -> Result<PeerIndex, NotServed> {
        let group = self.group().clone();
        if !group.is_busy() {
            return Err(NotServed::NoPeer);
        }
        let Some(place) = Place::new(group.clone()) else { return Err(NotServed::Full) };
        let pause_ms = if group.is_shared() { BESIDE_MS } else { ALONE_MS };
        let timer = Timer::new();
        let until_ms = net::now().saturating_add(group.queue().line.timeout_ms);
        poll_fn(|cx| {
            let now_ms = net::now();
            if group.queue().poll_first(place.number, cx) {
                match self.pick_first() {
                    Ok(peer) => return Poll::Ready(Ok(peer)),
                    Err(NoPeer) if !group.is_busy() => {
                        return Poll::Ready(Err(NotServed::NoPeer));
                    }
                    Err(NoPeer) => {}
                }
            }
            if now_ms >= until_ms {
                return Poll::Ready(Err(NotServed::TimedOut));
            }
            timer.set(until_ms.min(now_ms + pause_ms));
            match timer.poll_expired(cx) {
                Poll::Ready(()) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
