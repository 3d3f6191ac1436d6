//! Sources: descriptors under watch, their readiness, and who waits for it.
//!
//! ```text
//!            event from the kernel            caller met EAGAIN (clear_*)
//!  waiting ------------------------> ready -------------------------------> waiting
//! ```
//! Each direction has that state of its own. Hanging up (RDHUP, HUP, ERR) sticks, makes both
//! directions ready, and wakes whoever waits.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll, Waker};

use super::epoll::Registration;
use super::select::{self, Look};
use super::state::{Backend, State, with};
use super::task::grow;
use super::waiter::{self, NONE};
use super::{ahead, behind, early, late, uring};

/// What to watch a descriptor for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest(u32);

impl Interest {
    /// Data, end of file, hang-up.
    pub const READ: Interest = Interest(READ);
    /// Room to write.
    pub const WRITE: Interest = Interest(WRITE);
    /// Both.
    pub const BOTH: Interest = Interest(READ | WRITE);
    /// A listener: reported again as long as connections wait, and, where the kernel can, to one
    /// of the processes that watch it (EPOLLEXCLUSIVE).
    pub const ACCEPT: Interest = Interest(READ | ACCEPT);

    /// The owner closes the descriptor right after dropping the source and made no duplicate of
    /// it: dropping then saves the call that deregisters, because closing does it.
    #[must_use]
    pub const fn closing(self) -> Interest {
        Interest(self.0 | CLOSING)
    }

    /// Whoever reads takes [`Source::received`] first, and gives the descriptor to
    /// [`Source::close`] in the end. In return a driver may receive before it is asked to.
    #[must_use]
    pub const fn stream(self) -> Interest {
        Interest(self.0 | STREAM)
    }

    /// A connection that a client has made. What others have brought comes before what it brings
    /// (`turns.rs`), and [`shut_down_clients`] ends it.
    #[must_use]
    pub const fn of_client(self) -> Interest {
        Interest(self.0 | CLIENT)
    }
}

const READ: u32 = 1;
const WRITE: u32 = 1 << 1;
pub(super) const ACCEPT: u32 = 1 << 2;
pub(super) const CLOSING: u32 = 1 << 3;
pub(super) const READABLE: u32 = 1 << 4;
pub(super) const WRITABLE: u32 = 1 << 5;
pub(super) const HUNG: u32 = 1 << 6;
/// The kernel does not watch it at present: paused by its owner.
pub(super) const PAUSED: u32 = 1 << 7;
/// The kernel does not watch it at present: a listener reported with nobody waiting.
const PARKED: u32 = 1 << 8;
pub(super) const FREE: u32 = 1 << 9;
/// A stream socket that only its source reads and writes: see `ahead.rs`. The flags below are of
/// the io_uring driver.
pub(super) const STREAM: u32 = 1 << 10;
/// A receive is under way. Nobody receives by a call of their own then, except after the end was
/// seen, so that bytes stay in order.
pub(super) const RECEIVING: u32 = 1 << 11;
/// A receive has ended, and what it brought is not read yet.
pub(super) const STASHED: u32 = 1 << 12;
/// The stream has ended.
pub(super) const ENDED: u32 = 1 << 13;
/// A send is under way. It and `WRITABLE` exclude each other, for the same reason.
pub(super) const SENDING: u32 = 1 << 14;
/// A send has failed, and nobody was told yet.
pub(super) const SEND_FAILED: u32 = 1 << 15;
/// The writing side is to be shut down after the send.
pub(super) const SHUT: u32 = 1 << 16;
/// Polls under way.
pub(super) const POLLING_READ: u32 = 1 << 17;
pub(super) const POLLING_WRITE: u32 = 1 << 18;
pub(super) const POLLING_HANG: u32 = 1 << 19;
/// Reading was not tried yet, and is worth it.
pub(super) const FRESH: u32 = 1 << 20;
/// A client has made the connection.
const CLIENT: u32 = 1 << 21;
/// It had more at once than is received ahead: its task does better by itself. With io_uring that
/// holds until it has little.
pub(super) const BULKY: u32 = 1 << 22;
/// The receive under way goes on after what it brings, and was not told to end.
pub(super) const LASTING: u32 = 1 << 23;
/// The kernel was not told to watch it yet: see `late.rs`.
pub(super) const UNTOLD: u32 = 1 << 24;
/// It is untold, and somebody waits for it to hang up.
pub(super) const NOTED: u32 = 1 << 25;
/// It counts as readable for a first try, which was not made yet.
pub(super) const PROBED: u32 = 1 << 26;

pub(super) struct IoSlot {
    pub(super) fd: RawFd,
    pub(super) flags: u32,
    /// Who waits to read; for a free slot the next free index.
    pub(super) reader: u32,
    pub(super) writer: u32,
    /// Tells events of a former source of this slot from those of the present one.
    pub(super) generation: u32,
}

const _: () = assert!(size_of::<IoSlot>() <= 24);

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Something to read; receiving ahead is welcome.
    Read,
    /// Something to read, which must stay where it is.
    Look,
    Write,
    /// The peer to close its side.
    Hang,
}

impl IoSlot {
    /// Where who waits for it is noted.
    #[inline(always)]
    fn place(&mut self, want: Want) -> &mut u32 {
        if want == Want::Write { &mut self.writer } else { &mut self.reader }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.flags & PAUSED != 0
    }

    /// Other processes watch it too, and one of them is enough.
    pub(super) fn is_shared(&self) -> bool {
        self.flags & ACCEPT != 0
    }
}

/// What the kernel said about a descriptor.
#[derive(Clone, Copy, Default)]
pub(super) struct Event {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) hung: bool,
}

/// What a level-triggered driver must watch for a slot in this turn.
pub(super) struct Watch {
    pub(super) index: u32,
    pub(super) fd: RawFd,
    pub(super) read: bool,
    pub(super) hang: bool,
    pub(super) write: bool,
}

pub(super) struct Ios {
    slots: Vec<IoSlot>,
    free: u32,
    live: usize,
}

impl Ios {
    pub(super) const fn new() -> Ios {
        Ios { slots: Vec::new(), free: NONE, live: 0 }
    }

    #[inline]
    pub(super) fn at(&mut self, index: u32) -> Option<&mut IoSlot> {
        self.slots.get_mut(index as usize)
    }

    /// The source at `index`, if the lower 24 bits of its generation are these.
    #[inline]
    pub(super) fn current(&mut self, index: u32, generation: u32) -> Option<&mut IoSlot> {
        let same = |slot: &&mut IoSlot| {
            slot.flags & FREE == 0 && slot.generation & 0xff_ffff == generation
        };
        self.slots.get_mut(index as usize).filter(same)
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<IoSlot>()
    }

    fn insert(&mut self, fd: RawFd, flags: u32) -> u32 {
        self.live += 1;
        let mut new = IoSlot { fd, flags, reader: NONE, writer: NONE, generation: 0 };
        if self.free != NONE {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            self.free = slot.reader;
            new.generation = slot.generation;
            *slot = new;
            return index;
        }
        let index = self.slots.len() as u32;
        assert!(index < NONE, "more sources than indices");
        grow(&mut self.slots);
        self.slots.push(new);
        index
    }

    fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.flags = FREE;
        slot.fd = -1;
        slot.reader = self.free;
        slot.writer = NONE;
        self.free = index;
        self.live -= 1;
    }

    /// What somebody waits for: all that a level-triggered driver may watch, or it would spin.
    pub(super) fn watched(&self) -> impl Iterator<Item = Watch> + '_ {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            if slot.flags & (FREE | PAUSED) != 0 || (slot.reader == NONE && slot.writer == NONE) {
                return None;
            }
            // Somebody who waits although there is data waits for the peer to hang up.
            let read = slot.reader != NONE && slot.flags & READABLE == 0;
            let hang = slot.reader != NONE;
            let write = slot.writer != NONE && slot.flags & WRITE != 0;
            Some(Watch { index: index as u32, fd: slot.fd, read, hang, write })
        })
    }
}

/// Notes an event and wakes whom it concerns.
#[inline]
pub(super) fn note(s: &mut State, index: u32, event: Event) {
    let Some(slot) = s.ios.slots.get_mut(index as usize) else {
        return;
    };
    if event.hung {
        slot.flags |= HUNG;
    }
    let (mut reader, mut writer) = (NONE, NONE);
    if event.readable || event.hung {
        if slot.flags & RECEIVING == 0 {
            slot.flags |= READABLE;
        }
        reader = mem::replace(&mut slot.reader, NONE);
    }
    if event.writable || event.hung {
        if slot.flags & SENDING == 0 {
            slot.flags |= WRITABLE;
        }
        writer = mem::replace(&mut slot.writer, NONE);
    }
    waiter::wake_slot(s, reader);
    if writer != reader {
        waiter::wake_slot(s, writer);
    }
}

/// As [`note`], for an event that names the generation it was registered with.
#[inline]
pub(super) fn note_registered(s: &mut State, key: u64, event: Event) {
    let (index, generation) = (key as u32, (key >> 32) as u32);
    let Some(slot) = s.ios.slots.get_mut(index as usize) else {
        return;
    };
    if slot.generation != generation || slot.flags & FREE != 0 {
        return;
    }
    let flags = slot.flags;
    if flags & ACCEPT != 0 && slot.reader == NONE && flags & PARKED == 0 {
        // Level-triggered and nobody takes connections: leave it to others until somebody does.
        slot.flags |= PARKED;
        unwatch(s, index);
    }
    if event.writable && flags & SENDING != 0 {
        behind::resume(s, index);
    }
    if event.readable || event.hung {
        if flags & RECEIVING != 0 {
            early::receive(s, index, event);
        } else if flags & STASHED != 0 {
            early::more(s, index);
        }
    }
    note(s, index, event);
}

fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// Has the kernel watch the slot's descriptor. Level-triggered drivers choose every turn.
pub(super) fn watch(s: &mut State, index: u32) -> io::Result<()> {
    let slot = &s.ios.slots[index as usize];
    match &mut s.backend {
        Backend::Epoll(epoll) => {
            let key = key(index, slot.generation);
            let has = |flag| slot.flags & flag != 0;
            let how = Registration {
                read: has(READ),
                write: has(WRITE),
                accept: has(ACCEPT),
                of_client: has(CLIENT),
            };
            epoll.add(slot.fd, key, how)
        }
        Backend::Poll(_) => Ok(()),
        Backend::Select(set) => set.admit(slot.fd),
        Backend::Uring(_) => Ok(()),
        Backend::None => Err(io::Error::other("the event loop of this thread was not started")),
    }
}

fn unwatch(s: &mut State, index: u32) {
    let slot = &s.ios.slots[index as usize];
    if let Backend::Epoll(epoll) = &s.backend {
        epoll.delete(slot.fd, slot.flags & CLIENT != 0);
    }
}

/// A descriptor under watch. Dropping it ends the watch; the descriptor stays its owner's, who
/// must drop the source before closing it.
///
/// One task may wait to read and one to write; the last that polled counts.
pub struct Source {
    index: u32,
    /// The index means something on this thread only.
    here: PhantomData<*const ()>,
}

const _: () = assert!(size_of::<Source>() == 4);

impl Source {
    /// Watches `fd`. Neither direction counts as ready before the kernel says so, which takes at
    /// most one turn of the loop; see [`assume_ready`](Source::assume_ready).
    ///
    /// # Errors
    /// What `epoll_ctl(2)` answers (`EPERM` for a regular file), and `InvalidInput` for a
    /// descriptor that select(2) cannot hold.
    pub fn new(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Source> {
        let index = with(|s| {
            let index = s.ios.insert(fd.as_raw_fd(), interest.0);
            if let Backend::Uring(uring) = &mut s.backend {
                uring.admit(index, interest.0 & CLIENT != 0);
            }
            watch(s, index).inspect_err(|_| s.ios.remove(index)).map(|()| index)
        })?;
        Ok(Source { index, here: PhantomData })
    }

    /// Watches a stream socket that is tried before it is waited for: both directions count as
    /// ready, as after [`assume_ready`](Source::assume_ready), but reading only where it came to
    /// something lately. epoll is told of it when somebody waits to read or to write, and a little
    /// after somebody began to wait for a hang-up.
    ///
    /// # Errors
    /// As [`Source::new`], where the kernel is told at once. Later a descriptor that it cannot
    /// watch is shut down.
    pub fn established(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Source> {
        let index = with(|s| {
            matches!(s.backend, Backend::Epoll(_)).then(|| {
                let read = if s.late.may_try() { READABLE | PROBED } else { 0 };
                s.ios.insert(fd.as_raw_fd(), interest.0 | UNTOLD | WRITABLE | read)
            })
        });
        if let Some(index) = index {
            return Ok(Source { index, here: PhantomData });
        }
        let source = Source::new(fd, interest)?;
        source.assume_ready();
        Ok(source)
    }

    /// Counts both directions as ready, so that the caller tries before it waits: right after
    /// accept a request is often there, and there is always room to write.
    pub fn assume_ready(&self) {
        with(|s| {
            let slot = &mut s.ios.slots[self.index as usize];
            // Where waiting is receiving, that is the try.
            let ahead = matches!(s.backend, Backend::Uring(_)) && slot.flags & STREAM != 0;
            slot.flags |= if ahead { FRESH | WRITABLE } else { READABLE | WRITABLE };
        });
    }

    /// Ready while reading may make progress.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flag(cx, READABLE, Want::Read)
    }

    /// Ready while writing may make progress.
    #[inline]
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flag(cx, WRITABLE, Want::Write)
    }

    /// Ready once the peer has closed its side or the connection failed. Unread data may still
    /// be there.
    ///
    /// It shares the reader's place: data that arrives wakes the caller too, who polls again.
    /// With poll(2) and select(2) the state is only learnt while somebody waits; select(2) learns
    /// it only when no data is unread.
    #[inline]
    pub fn poll_hung_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        with(|s| {
            if matches!(s.backend, Backend::Select(_)) {
                look_ahead(&mut s.ios.slots[self.index as usize]);
            }
        });
        self.poll_flag(cx, HUNG, Want::Hang)
    }

    /// The caller met `EAGAIN`, or a read so short that nothing more can be there.
    #[inline]
    pub fn clear_readable(&self) {
        with(|s| {
            let flags = &mut s.ios.slots[self.index as usize].flags;
            if *flags & PROBED != 0 {
                s.late.learn(false);
            }
            *flags &= !(READABLE | PROBED);
        });
    }

    /// The caller met `EAGAIN`, or a short write.
    #[inline]
    pub fn clear_writable(&self) {
        self.update(|flags| flags & !WRITABLE);
    }

    /// A read was short: it brought `n` bytes, or packets. Nothing more is there, unless the peer
    /// has hung up: then the end of file still is, and no event will tell again.
    #[inline]
    pub fn note_short_read(&self, n: usize) {
        with(|s| {
            let unlearns = matches!(s.backend, Backend::Uring(_)) && n < uring::BULK;
            let flags = &mut s.ios.slots[self.index as usize].flags;
            if unlearns {
                *flags &= !BULKY;
            }
            if *flags & PROBED != 0 {
                s.late.learn(true);
            }
            let done = if *flags & HUNG != 0 { PROBED } else { PROBED | READABLE };
            *flags &= !done;
        });
    }

    /// Whether the kernel reported that the peer hung up or that the connection failed.
    #[inline]
    pub fn hung_up(&self) -> bool {
        with(|s| s.ios.slots[self.index as usize].flags & HUNG != 0)
    }

    /// Whether writing may make progress now. Waits for nothing, and takes nobody's place.
    #[inline]
    pub fn is_writable(&self) -> bool {
        with(|s| {
            let flags = s.ios.slots[self.index as usize].flags;
            flags & WRITABLE != 0 || behind::makes_way(s, self.index)
        })
    }

    /// Stops watching until [`resume`](Source::resume); what was ready is forgotten.
    pub fn pause(&self) {
        with(|s| {
            let slot = &mut s.ios.slots[self.index as usize];
            let watched = slot.flags & (PAUSED | PARKED) == 0;
            slot.flags = (slot.flags | PAUSED) & !(PARKED | READABLE | WRITABLE | UNTOLD | NOTED);
            if watched {
                behind::flush(s);
                unwatch(s, self.index);
                ahead::end(s, self.index);
            }
        });
    }

    /// Watches again after [`pause`](Source::pause).
    ///
    /// # Errors
    /// As [`Source::new`]; the source stays paused.
    pub fn resume(&self) -> io::Result<()> {
        with(|s| {
            if s.ios.slots[self.index as usize].flags & PAUSED == 0 {
                return Ok(());
            }
            watch(s, self.index)?;
            let slot = &mut s.ios.slots[self.index as usize];
            slot.flags &= !PAUSED;
            if slot.reader != NONE {
                ahead::start(s, self.index, Want::Read);
            }
            Ok(())
        })
    }

    /// Goes to the end of the queue of those who watch the same listener: with EPOLLEXCLUSIVE
    /// the kernel wakes the first in it, always the same one.
    ///
    /// # Errors
    /// As [`Source::new`]; the source is paused then.
    pub fn requeue(&self) -> io::Result<()> {
        with(|s| {
            let slot = &s.ios.slots[self.index as usize];
            if slot.flags & (PAUSED | PARKED) != 0 || !matches!(s.backend, Backend::Epoll(_)) {
                return Ok(());
            }
            unwatch(s, self.index);
            watch(s, self.index).inspect_err(|_| {
                s.ios.slots[self.index as usize].flags |= PAUSED;
            })
        })
    }

    /// Names the source, for whoever may have to end its connection.
    pub fn handle(&self) -> Handle {
        let generation = with(|s| s.ios.slots[self.index as usize].generation);
        Handle { index: self.index, generation, here: PhantomData }
    }

    /// Ends the watch with the kernel although the source was made `closing`: for an owner that
    /// gives the descriptor away instead of closing it, and drops the source at once.
    ///
    /// What was received ahead is lost: nobody may have waited to read since the last read.
    pub fn unwatch(&self) {
        self.update(|flags| flags & !CLOSING);
        with(|s| {
            behind::flush(s);
            ahead::end(s, self.index);
            // Before the number of the descriptor means something else.
            if let Backend::Uring(uring) = &mut s.backend {
                uring.submit();
            }
        });
    }

    #[inline]
    fn update(&self, change: impl FnOnce(u32) -> u32) {
        with(|s| {
            let flags = &mut s.ios.slots[self.index as usize].flags;
            *flags = change(*flags);
        });
    }

    #[inline]
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    #[inline(always)]
    pub(super) fn poll_flag(&self, cx: &mut Context<'_>, flag: u32, want: Want) -> Poll<()> {
        let index = self.index as usize;
        let id = waiter::native(cx.waker());
        let answer = with(|s| {
            let slot = &mut s.ios.slots[index];
            if slot.flags & flag != 0 {
                if s.tasks.budget == 0 {
                    return Answer::Tired;
                }
                s.tasks.budget -= 1;
                return Answer::Ready;
            }
            if slot.flags & (PARKED | UNTOLD) != 0 {
                watch_after_all(s, self.index, want);
                if s.ios.slots[index].flags & flag != 0 {
                    return Answer::Tired;
                }
            }
            if want == Want::Write && behind::makes_way(s, self.index) {
                return Answer::Ready;
            }
            ahead::start(s, self.index, want);
            if id == NONE {
                return Answer::Foreign;
            }
            Answer::Waiting(waiter::put(&mut s.foreign, s.ios.slots[index].place(want), id))
        });
        match answer {
            Answer::Ready => return Poll::Ready(()),
            Answer::Waiting(old) => drop(old),
            Answer::Tired => super::task::defer(cx),
            Answer::Foreign => {
                waiter::put_foreign(cx.waker(), |s| Some(s.ios.slots[index].place(want)));
            }
        }
        Poll::Pending
    }
}

/// The name of a source, which says nothing any more once the source is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Handle {
    index: u32,
    generation: u32,
    /// The index means something on this thread only.
    here: PhantomData<*const ()>,
}

impl Handle {
    /// Ends the connection in both directions (`shutdown(2)`): whoever reads comes to its end,
    /// whoever writes fails. False when the source is gone.
    pub fn shut_down(&self) -> bool {
        with(|s| {
            let slot = s.ios.slots.get(self.index as usize);
            let same = |slot: &&IoSlot| slot.generation == self.generation;
            let Some(slot) = slot.filter(same).filter(|slot| slot.flags & FREE == 0) else {
                return false;
            };
            // SAFETY: the call takes any number; this is the descriptor of a living source.
            unsafe { libc::shutdown(slot.fd, libc::SHUT_RDWR) };
            true
        })
    }
}

/// Ends all connections that clients have made, as [`Handle::shut_down`] does, and so lets their
/// tasks come to an end.
pub fn shut_down_clients() {
    with(|s| {
        for slot in s.ios.slots.iter().filter(|slot| slot.flags & (FREE | CLIENT) == CLIENT) {
            // SAFETY: the call takes any number; this is the descriptor of a living source.
            unsafe { libc::shutdown(slot.fd, libc::SHUT_RDWR) };
        }
    });
}

enum Answer {
    Ready,
    /// A foreign waker that was replaced, to be dropped outside the driver.
    Waiting(Option<Waker>),
    /// Ready, but the task has had its share of this turn.
    Tired,
    Foreign,
}

/// Corrects what select(2) cannot tell: whether a socket that counts as readable is, and has
/// more than its end to be read.
fn look_ahead(slot: &mut IoSlot) {
    if slot.flags & (READABLE | HUNG) == READABLE {
        match select::look(slot.fd) {
            Look::Nothing => slot.flags &= !READABLE,
            Look::End => slot.flags |= HUNG,
            Look::Data => {}
        }
    }
}

/// Somebody waits for what the kernel does not watch.
#[cold]
fn watch_after_all(s: &mut State, index: u32, want: Want) {
    match s.ios.slots[index as usize].flags & PARKED {
        0 => late::begin(s, index, want),
        _ => unpark(s, index),
    }
}

/// Watches a listener again that was parked for want of a waiter.
fn unpark(s: &mut State, index: u32) {
    s.ios.slots[index as usize].flags &= !PARKED;
    if watch(s, index).is_err() {
        // Out of kernel memory: count as ready, so that the owner tries to accept, fails and
        // comes back here.
        s.ios.slots[index as usize].flags |= PARKED | READABLE;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let old = with(|s| {
            let slot = &mut s.ios.slots[self.index as usize];
            let watched = slot.flags & (CLOSING | PAUSED | PARKED | UNTOLD) == 0;
            let reader = waiter::put(&mut s.foreign, &mut slot.reader, NONE);
            let writer = waiter::put(&mut s.foreign, &mut slot.writer, NONE);
            if watched {
                unwatch(s, self.index);
            }
            behind::end(s, self.index);
            ahead::end(s, self.index);
            match &mut s.backend {
                Backend::Uring(uring) => uring.forget_unread(self.index),
                _ => early::end(s, self.index),
            }
            s.ios.remove(self.index);
            (reader, writer)
        });
        drop(old);
    }
}
