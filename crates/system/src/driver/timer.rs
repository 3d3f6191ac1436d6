//! Lazy deadlines.
//!
//! A timer is a slot with a deadline; a heap holds at most one entry per slot that counts. When a
//! deadline moves later the entry stays where it is: it comes up at its old time, sees the new
//! one and goes back. Only a deadline that moves before its entry costs a push. Entries that no
//! longer count are skipped, and swept out once they are the majority.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::marker::PhantomData;
use std::mem;
use std::task::{Context, Poll};

use super::state::with;
use super::task::grow;
use super::waiter::{self, NONE};

/// No deadline.
const NEVER: u64 = u64::MAX;
/// Below this many entries the heap is not worth sweeping.
const SWEEP_MIN: usize = 64;

struct TimerSlot {
    deadline: u64,
    /// Time of the heap entry that counts, or [`NEVER`].
    queued_at: u64,
    /// Who waits; for a free slot the next free index.
    waiter: u32,
    generation: u32,
}

/// Ordered by time first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: u64,
    index: u32,
    generation: u32,
}

const _: () = assert!(size_of::<TimerSlot>() <= 24 && size_of::<Reverse<Entry>>() <= 16);

pub(super) struct Timers {
    slots: Vec<TimerSlot>,
    free: u32,
    live: usize,
    heap: BinaryHeap<Reverse<Entry>>,
    /// Entries in the heap that no longer count (an upper estimate is never needed: a duplicate
    /// that counts again only makes the next sweep later).
    stale: usize,
}

impl Timers {
    pub(super) const fn new() -> Timers {
        Timers { slots: Vec::new(), free: NONE, live: 0, heap: BinaryHeap::new(), stale: 0 }
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<TimerSlot>()
            + self.heap.capacity() * size_of::<Reverse<Entry>>()
    }

    fn insert(&mut self) -> u32 {
        self.live += 1;
        if self.free != NONE {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            self.free = mem::replace(&mut slot.waiter, NONE);
            return index;
        }
        let index = self.slots.len() as u32;
        assert!(index < NONE, "more timers than indices");
        grow(&mut self.slots);
        self.slots.push(TimerSlot {
            deadline: NEVER,
            queued_at: NEVER,
            waiter: NONE,
            generation: 0,
        });
        index
    }

    fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let queued = slot.queued_at != NEVER;
        slot.generation = slot.generation.wrapping_add(1);
        slot.deadline = NEVER;
        slot.queued_at = NEVER;
        slot.waiter = self.free;
        self.free = index;
        self.live -= 1;
        if queued {
            self.one_more_stale();
        }
    }

    #[inline]
    fn set(&mut self, index: u32, deadline: u64) {
        let slot = &mut self.slots[index as usize];
        slot.deadline = deadline;
        if deadline < slot.queued_at {
            self.queue(index);
        }
    }

    /// Puts an entry for the slot's deadline into the heap.
    fn queue(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let replaced = mem::replace(&mut slot.queued_at, slot.deadline) != NEVER;
        let entry = Entry { at: slot.deadline, index, generation: slot.generation };
        self.heap.push(Reverse(entry));
        if replaced {
            self.one_more_stale();
        }
    }

    /// Sweeps when stale entries are the majority, so each costs O(1) over its life.
    fn one_more_stale(&mut self) {
        self.stale += 1;
        if self.stale * 2 > self.heap.len() && self.heap.len() >= SWEEP_MIN {
            let slots = &self.slots;
            self.heap.retain(|Reverse(entry)| counts(slots, entry));
            self.stale = 0;
            if self.heap.capacity() > SWEEP_MIN * 4 && self.heap.capacity() / 4 > self.heap.len() {
                self.heap.shrink_to(self.heap.len() * 2);
            }
        }
    }

    /// Milliseconds until the next entry is due; `None` without one.
    pub(super) fn timeout(&mut self, now: u64) -> Option<u64> {
        while let Some(Reverse(entry)) = self.heap.peek() {
            if counts(&self.slots, entry) {
                return Some(entry.at.saturating_sub(now));
            }
            self.stale = self.stale.saturating_sub(1);
            self.heap.pop();
        }
        None
    }

    /// Takes one due timer and returns who waits for it; `None` once nothing more is due.
    pub(super) fn expire(&mut self, now: u64) -> Option<u32> {
        while let Some(Reverse(entry)) = self.heap.peek() {
            if entry.at > now {
                return None;
            }
            let (index, live) = (entry.index, counts(&self.slots, entry));
            self.heap.pop();
            if !live {
                self.stale = self.stale.saturating_sub(1);
                continue;
            }
            let slot = &mut self.slots[index as usize];
            slot.queued_at = NEVER;
            if slot.deadline <= now {
                let waiter = mem::replace(&mut slot.waiter, NONE);
                if waiter != NONE {
                    return Some(waiter);
                }
            } else if slot.deadline != NEVER {
                self.queue(index);
            }
        }
        None
    }
}

fn counts(slots: &[TimerSlot], entry: &Entry) -> bool {
    let slot = &slots[entry.index as usize];
    slot.generation == entry.generation && slot.queued_at == entry.at
}

/// One deadline that a task can wait for. A new timer has none.
///
/// Moving the deadline later, or clearing it, is a store. At most one task waits at a time; the
/// last one that polled.
pub struct Timer {
    index: u32,
    /// The index means something on this thread only.
    here: PhantomData<*const ()>,
}

const _: () = assert!(size_of::<Timer>() == 4);

impl Default for Timer {
    fn default() -> Timer {
        Timer::new()
    }
}

impl Timer {
    /// A timer without a deadline.
    pub fn new() -> Timer {
        Timer { index: with(|s| s.timers.insert()), here: PhantomData }
    }

    /// Sets the deadline, in milliseconds of [`now`](super::now). A waiting task need not poll
    /// again.
    #[inline]
    pub fn set(&self, deadline_ms: u64) {
        with(|s| s.timers.set(self.index, deadline_ms));
    }

    /// Removes the deadline.
    #[inline]
    pub fn clear(&self) {
        with(|s| s.timers.slots[self.index as usize].deadline = NEVER);
    }

    /// The deadline, if there is one.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        let deadline = with(|s| s.timers.slots[self.index as usize].deadline);
        (deadline != NEVER).then_some(deadline)
    }

    /// Ready from the deadline on, until it is moved or cleared.
    #[inline]
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let id = waiter::native(cx.waker());
        let (expired, old) = with(|s| {
            let slot = &mut s.timers.slots[self.index as usize];
            if slot.deadline <= s.now_ms {
                (true, None)
            } else if id != NONE {
                (false, waiter::put(&mut s.foreign, &mut slot.waiter, id))
            } else {
                (false, None)
            }
        });
        drop(old);
        if expired {
            return Poll::Ready(());
        }
        if id == NONE {
            let index = self.index as usize;
            waiter::put_foreign(cx.waker(), |s| Some(&mut s.timers.slots[index].waiter));
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let old = with(|s| {
            let slot = &mut s.timers.slots[self.index as usize];
            let old = waiter::put(&mut s.foreign, &mut slot.waiter, NONE);
            s.timers.remove(self.index);
            old
        });
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Random lives of timers under a virtual clock, against a plain map of deadlines.
    #[test]
    fn timers_agree_with_a_model() {
        for seed in 1..=50_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % bound
            };
            let mut timers = Timers::new();
            let mut model: BTreeMap<u32, Option<u64>> = BTreeMap::new();
            let mut now = 0;
            for _ in 0..2_000 {
                let some = model.keys().nth(next(40) as usize).copied();
                match (next(10), some) {
                    (0..=1, _) => {
                        let index = timers.insert();
                        // The waiter's name is the timer's index.
                        timers.slots[index as usize].waiter = index;
                        assert!(model.insert(index, None).is_none(), "seed {seed}");
                    }
                    (2..=5, Some(index)) => {
                        let deadline = now + next(50);
                        timers.set(index, deadline);
                        model.insert(index, Some(deadline));
                    }
                    (6, Some(index)) => {
                        timers.slots[index as usize].deadline = NEVER;
                        model.insert(index, None);
                    }
                    (7, Some(index)) => {
                        timers.remove(index);
                        model.remove(&index);
                    }
                    _ => {
                        let first = model.values().flatten().min().copied();
                        let wait = timers.timeout(now);
                        // It may wake early, for a deadline that moved, but never late.
                        assert!(
                            first.is_none_or(|at| wait.is_some_and(|ms| now + ms <= at.max(now)))
                        );
                        now += next(20);
                        expect_expired(&mut timers, &mut model, now, seed);
                    }
                }
            }
            assert!(timers.heap.len() <= SWEEP_MIN.max(2 * model.len() + 2), "seed {seed}");
        }
    }

    fn expect_expired(
        timers: &mut Timers,
        model: &mut BTreeMap<u32, Option<u64>>,
        now: u64,
        seed: u64,
    ) {
        let mut fired = Vec::new();
        while let Some(waiter) = timers.expire(now) {
            fired.push(waiter);
            timers.slots[waiter as usize].waiter = waiter;
            timers.slots[waiter as usize].deadline = NEVER;
        }
        fired.sort_unstable();
        let due = model.iter().filter(|(_, at)| at.is_some_and(|at| at <= now));
        let due: Vec<u32> = due.map(|(index, _)| *index).collect();
        assert_eq!(fired, due, "seed {seed}, at {now}");
        for index in due {
            model.insert(index, None);
        }
    }
}
