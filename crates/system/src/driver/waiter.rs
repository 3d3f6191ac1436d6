//! Who waits: a task's index where it is one of ours, otherwise a stored waker.
//!
//! Slots hold a `u32` instead of a 16-byte `Waker`. The data pointer of our wakers carries index
//! and generation; a waker made by a combinator around ours is kept in a side table.

use std::mem;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::state::{State, with};

/// Nobody waits.
pub(super) const NONE: u32 = u32::MAX;
/// Marks an index into the table of foreign wakers.
const FOREIGN: u32 = 1 << 31;

/// Wakers that are not ours, by index.
pub(super) struct Foreign {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
    /// Taken out while the driver was borrowed, to be woken once it no longer is.
    pub(super) woken: Vec<Waker>,
}

impl Foreign {
    pub(super) const fn new() -> Foreign {
        Foreign { wakers: Vec::new(), free: Vec::new(), woken: Vec::new() }
    }

    fn insert(&mut self, waker: Waker) -> u32 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.wakers.push(None);
                (self.wakers.len() - 1) as u32
            }
        };
        self.wakers[index as usize] = Some(waker);
        FOREIGN | index
    }

    fn remove(&mut self, id: u32) -> Option<Waker> {
        let index = id & !FOREIGN;
        let waker = self.wakers.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(waker)
    }

    fn same(&self, id: u32, waker: &Waker) -> bool {
        matches!(self.wakers.get((id & !FOREIGN) as usize), Some(Some(w)) if w.will_wake(waker))
    }

    pub(super) fn memory(&self) -> usize {
        self.wakers.capacity() * size_of::<Option<Waker>>()
            + self.free.capacity() * size_of::<u32>()
            + self.woken.capacity() * size_of::<Waker>()
    }
}

/// Whether `id` names a foreign waker.
#[inline(always)]
fn is_foreign(id: u32) -> bool {
    id != NONE && id & FOREIGN != 0
}

/// Wakes whoever `waiter` names and leaves nobody there.
#[inline]
pub(super) fn wake_slot(s: &mut State, waiter: u32) {
    if waiter == NONE {
        return;
    }
    if is_foreign(waiter) {
        if let Some(waker) = s.foreign.remove(waiter) {
            s.foreign.woken.push(waker);
        }
    } else {
        s.tasks.wake_index(waiter);
    }
}

/// Wakes the foreign wakers that the last borrow of the driver collected.
pub(super) fn wake_foreign() {
    if with(|s| s.foreign.woken.is_empty()) {
        return;
    }
    let woken = with(|s| mem::take(&mut s.foreign.woken));
    for waker in woken {
        waker.wake();
    }
}

/// What a slot should hold for `waker`, or [`NONE`] when the waker is foreign.
#[inline(always)]
pub(super) fn native(waker: &Waker) -> u32 {
    if std::ptr::eq(waker.vtable(), &VTABLE) { waker.data().addr() as u32 } else { NONE }
}

/// Index and generation of the task behind `waker`, if it is ours.
#[inline(always)]
pub(super) fn task_of(waker: &Waker) -> Option<(u32, u32)> {
    std::ptr::eq(waker.vtable(), &VTABLE).then(|| unpack(waker.data()))
}

/// Puts `id` (of [`native`]) into a slot; gives back a foreign waker to drop outside.
#[inline(always)]
#[must_use = "a foreign waker must be dropped outside the driver"]
pub(super) fn put(foreign: &mut Foreign, slot: &mut u32, id: u32) -> Option<Waker> {
    let old = mem::replace(slot, id);
    if is_foreign(old) { foreign.remove(old) } else { None }
}

/// Stores a foreign waker in the slot that `select` finds.
#[cold]
pub(super) fn put_foreign(waker: &Waker, select: impl Fn(&mut State) -> Option<&mut u32>) {
    let stored = with(|s| select(s).map(|slot| *slot));
    match stored {
        None => return,
        Some(id) if is_foreign(id) && with(|s| s.foreign.same(id, waker)) => return,
        Some(_) => {}
    }
    let clone = waker.clone();
    let rejected = with(|s| {
        let Some(old) = select(s).map(|slot| *slot) else {
            return Err(clone);
        };
        let id = s.foreign.insert(clone);
        if let Some(slot) = select(s) {
            *slot = id;
        }
        Ok(if is_foreign(old) { s.foreign.remove(old) } else { None })
    });
    drop(rejected);
}

const _: () = assert!(size_of::<usize>() == 8, "a waker's pointer holds index and generation");

fn pack(index: u32, generation: u32) -> *const () {
    std::ptr::without_provenance((generation as usize) << 32 | index as usize)
}

fn unpack(data: *const ()) -> (u32, u32) {
    (data.addr() as u32, (data.addr() >> 32) as u32)
}

/// The waker of a task. Costs nothing to make, clone or drop.
#[inline(always)]
pub(super) fn waker(index: u32, generation: u32) -> Waker {
    // SAFETY: the functions of VTABLE keep RawWaker's contract: the data is a number, not memory,
    // so clones share nothing, and waking from any thread reaches only that thread's own driver.
    unsafe { Waker::from_raw(RawWaker::new(pack(index, generation), &VTABLE)) }
}

static VTABLE: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &VTABLE), wake_raw, wake_raw, |_| {});

fn wake_raw(data: *const ()) {
    let (index, generation) = unpack(data);
    with(|s| s.tasks.wake(index, generation));
}
