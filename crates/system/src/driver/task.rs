//! The executor: tasks in a slab, a queue of ready indices, batches between looks at the kernel.
//!
//! A task's slot: the boxed future, a generation that outlives it (so a late waker cannot touch
//! the next tenant) and its state. Fairness rests on two limits: a poll may find at most
//! [`BUDGET`] sources ready before it is put behind the others, and at most [`ROUNDS`] batches
//! run before the kernel is asked again.

use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::state::{Backend, State, with};
use super::waiter::{self, task_of, wake_foreign};
use super::{behind, epoll, poll, select, uring};

/// I/O operations that one poll of a task may do before it yields.
pub(super) const BUDGET: u32 = 64;
/// Batches of ready tasks between two looks at the kernel.
const ROUNDS: usize = 4;

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

struct TaskSlot {
    /// Taken out while the task is being polled; the main future has none.
    future: Option<Boxed>,
    generation: u32,
    /// [`QUEUED`] and [`FREE`] bits; for a free slot also the next free index.
    state: u32,
}

const _: () = assert!(size_of::<TaskSlot>() <= 24);

/// In the ready queue or the deferred one.
const QUEUED: u32 = 1 << 31;
const FREE: u32 = 1 << 30;
/// End of the free list, and the bound of indices.
const END: u32 = FREE - 1;

pub(super) struct Tasks {
    slots: Vec<TaskSlot>,
    free: u32,
    ready: Vec<u32>,
    /// Ready after the next look at the kernel.
    deferred: Vec<u32>,
    /// Spawned and not finished; without the main future.
    live: usize,
    /// Bytes of the boxed futures.
    bytes: usize,
    /// Slot of the main future while `block_on` runs.
    main: u32,
    /// What the running poll may still do; unlimited outside a poll.
    pub(super) budget: u32,
}

impl Tasks {
    pub(super) const fn new() -> Tasks {
        Tasks {
            slots: Vec::new(),
            free: END,
            ready: Vec::new(),
            deferred: Vec::new(),
            live: 0,
            bytes: 0,
            main: END,
            budget: u32::MAX,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.live == 0 && self.main == END
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<TaskSlot>()
            + (self.ready.capacity() + self.deferred.capacity()) * size_of::<u32>()
            + self.bytes
    }

    fn insert(&mut self, future: Option<Boxed>) -> u32 {
        let index = self.free;
        if index != END {
            let slot = &mut self.slots[index as usize];
            self.free = slot.state & END;
            slot.future = future;
            slot.state = QUEUED;
            self.ready.push(index);
            return index;
        }
        let index = self.slots.len() as u32;
        assert!(index < END, "more tasks than indices");
        grow(&mut self.slots);
        self.slots.push(TaskSlot { future, generation: 0, state: QUEUED });
        self.ready.push(index);
        index
    }

    /// Gives the slot back. Wakers of the old task no longer match.
    fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = FREE | self.free;
        self.free = index;
    }

    /// Wakes a task whose generation is not known; a later tenant is woken for nothing.
    #[inline]
    pub(super) fn wake_index(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && slot.state & (QUEUED | FREE) == 0
        {
            slot.state |= QUEUED;
            self.ready.push(index);
        }
    }

    #[inline]
    pub(super) fn wake(&mut self, index: u32, generation: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && slot.generation == generation
            && slot.state & (QUEUED | FREE) == 0
        {
            slot.state |= QUEUED;
            self.ready.push(index);
        }
    }

    /// As `wake`, but behind the next look at the kernel.
    pub(super) fn defer(&mut self, index: u32, generation: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && slot.generation == generation
            && slot.state & (QUEUED | FREE) == 0
        {
            slot.state |= QUEUED;
            self.deferred.push(index);
        }
    }

    fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.deferred.is_empty()
    }

    /// Takes one future of a driver that is shutting down, and frees its slot.
    fn take_any(&mut self, from: &mut usize) -> Option<Boxed> {
        while *from < self.slots.len() {
            let index = *from;
            *from += 1;
            if let Some(future) = self.slots[index].future.take() {
                self.forget(&future);
                self.release(index as u32);
                return Some(future);
            }
        }
        None
    }

    fn forget(&mut self, future: &Boxed) {
        self.live -= 1;
        self.bytes -= size_of_val(&**future);
    }
}

/// Makes room by a quarter instead of doubling: slabs of idle connections stay close to what
/// they hold.
pub(super) fn grow<T>(slots: &mut Vec<T>) {
    if slots.len() == slots.capacity() {
        slots.reserve_exact((slots.len() / 4).max(64));
    }
}

/// Starts a task. It is polled for the first time by the loop, never from within this call.
///
/// Tasks spawned before [`block_on`] wait for it. Panics of a task travel through `block_on`.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    let future: Boxed = Box::pin(future);
    with(|s| {
        s.tasks.live += 1;
        s.tasks.bytes += size_of_val(&*future);
        s.tasks.insert(Some(future));
    });
}

/// Wakes all tasks: something that concerns each of them has changed.
pub fn wake_all() {
    with(|s| (0..s.tasks.slots.len() as u32).for_each(|index| s.tasks.wake_index(index)));
}

/// How many spawned tasks have not finished.
pub fn live_tasks() -> usize {
    with(|s| s.tasks.live)
}

/// Wakes the task of `cx` after the other ready tasks and the next look at the kernel.
///
/// A long piece of work calls it and returns `Pending` to let others have their turn.
#[inline]
pub fn defer(cx: &Context<'_>) {
    match task_of(cx.waker()) {
        Some((index, generation)) => with(|s| s.tasks.defer(index, generation)),
        None => cx.waker().wake_by_ref(),
    }
}

/// Runs the loop until `main` is done, then drops every other task.
///
/// # Panics
/// When no driver was started on this thread, or from within a task: mistakes of a program, not
/// of its input.
pub fn block_on<F: Future>(main: F) -> F::Output {
    let mut main = pin!(main);
    let (index, generation) = with(|s| {
        assert!(s.started(), "the event loop of this thread was not started");
        assert!(s.tasks.main == END, "the event loop is already running on this thread");
        let index = s.tasks.insert(None);
        s.tasks.main = index;
        (index, s.tasks.slots[index as usize].generation)
    });
    let _end = EndOfLoop;
    let waker = waiter::waker(index, generation);
    let mut batch = Vec::new();
    loop {
        for _ in 0..ROUNDS {
            with(|s| mem::swap(&mut batch, &mut s.tasks.ready));
            if batch.is_empty() {
                break;
            }
            for ready in batch.drain(..) {
                if ready != index {
                    poll_task(ready);
                    continue;
                }
                with(|s| {
                    s.tasks.slots[index as usize].state &= !QUEUED;
                    s.tasks.budget = BUDGET;
                });
                if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
            }
        }
        turn();
    }
}

/// Ends `block_on`, also when a task panicked: the main slot is freed and all tasks dropped.
struct EndOfLoop;

impl Drop for EndOfLoop {
    fn drop(&mut self) {
        with(|s| {
            let main = s.tasks.main;
            s.tasks.release(main);
            s.tasks.main = END;
            s.tasks.budget = u32::MAX;
            s.tasks.ready.clear();
            s.tasks.deferred.clear();
        });
        // A destructor may spawn: look again until a whole pass finds nothing.
        loop {
            let mut from = 0;
            let mut found = false;
            while let Some(future) = with(|s| s.tasks.take_any(&mut from)) {
                found = true;
                drop(future);
            }
            if !found {
                break;
            }
        }
        with(|s| {
            uring::flush(s);
            behind::flush(s);
            s.tasks.ready.clear();
            s.tasks.deferred.clear();
        });
    }
}

/// Frees the slot of a task that finished or panicked.
struct Finish {
    index: u32,
    bytes: usize,
}

impl Drop for Finish {
    fn drop(&mut self) {
        with(|s| {
            s.tasks.live -= 1;
            s.tasks.bytes -= self.bytes;
            s.tasks.release(self.index);
        });
    }
}

#[inline]
fn poll_task(index: u32) {
    let taken = with(|s| {
        let slot = &mut s.tasks.slots[index as usize];
        slot.state &= !QUEUED;
        let future = slot.future.take()?;
        s.tasks.budget = BUDGET;
        Some((future, slot.generation))
    });
    let Some((future, generation)) = taken else {
        return;
    };
    // Declared before the future, so that an unwinding poll drops the future first.
    let finish = Finish { index, bytes: size_of_val(&*future) };
    let mut future = future;
    let waker = waiter::waker(index, generation);
    match future.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Pending => {
            mem::forget(finish);
            with(|s| s.tasks.slots[index as usize].future = Some(future));
        }
        Poll::Ready(()) => drop(future),
    }
}

/// One look at the kernel: waits if nothing is ready, then wakes what has become so.
fn turn() {
    with(|s| {
        behind::flush(s);
        let timeout = if s.tasks.has_ready() { Some(0) } else { s.timers.timeout(s.now_ms) };
        match s.backend {
            Backend::Epoll(_) => epoll::wait(s, timeout),
            Backend::Poll(_) => poll::wait(s, timeout),
            Backend::Select(_) => select::wait(s, timeout),
            Backend::Uring(_) => uring::wait(s, timeout),
            Backend::None => s.refresh_clock(),
        }
        expire(s);
        let Tasks { ready, deferred, .. } = &mut s.tasks;
        ready.append(deferred);
    });
    wake_foreign();
}

fn expire(s: &mut State) {
    while let Some(waiter) = s.timers.expire(s.now_ms) {
        waiter::wake_slot(s, waiter);
    }
}
