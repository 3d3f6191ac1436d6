//! io_uring(7): receives, sends and polls are handed to the kernel, all with one call per turn.
//!
//! ```text
//!  task waits to read ---> RECV, no buffer of ours ---> bytes in a buffer of the ring ---> copied
//!  task writes little ---> SEND of a copy, "written" -> taken whole, or the error is kept
//!  anything else     ----> POLL_ADD, once         ----> ready, and the caller makes its own call
//! ```
//! At most one receive and one send of a source are under way, so a peer that sends more than is
//! read, or reads less than is sent, is held back as with any other driver.
//!
//! Whatever the kernel may still write to or read from belongs to this module, never to a task: a
//! source can go away at any moment. Its operations are cancelled, and completions that come late
//! name a generation that is gone.
//!
//! What a stream asks for beyond readiness is in `ahead.rs`.

mod buffers;
mod sends;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::io::{
    ENDED, Event, HUNG, POLLING_HANG, POLLING_READ, POLLING_WRITE, READABLE, RECEIVING,
    SEND_FAILED, SENDING, SHUT, STASHED, WRITABLE, note,
};
use super::state::{Backend, State};
use super::waiter::{self, NONE};
use buffers::Buffers;
use sends::Sends;

/// Entries of the submission queue: more in one turn cost one more call.
const ENTRIES: u32 = 1024;
/// Entries of the completion queue. The kernel keeps what does not fit.
const COMPLETIONS: u32 = 4096;
/// Do not try before the socket says that something is there (`IORING_RECVSEND_POLL_FIRST`).
const POLL_FIRST: u16 = 1;
/// How long the bytes of a closed connection may wait for its peer.
const PATIENCE_MS: u64 = 30_000;

/// What a completion is about: the highest byte of its user data.
const IGNORED: u64 = 0;
const RECEIVE: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 3;
const HANG: u64 = 4;
const SEND: u64 = 5;

/// What a receive brought that nobody has read yet.
#[derive(Clone, Copy, Default)]
pub(super) struct Lane {
    /// The buffer, and the part of it that is unread; none when `unread` is 0.
    buffer: u16,
    start: u16,
    unread: u16,
    /// The kernel had more than fitted.
    pub(super) more: bool,
    /// Errors to be told: of the receive, and of the last send.
    pub(super) receive_errno: u16,
    pub(super) send_errno: u16,
    /// The send under way, if the flags say that there is one.
    send: u32,
}

const _: () = assert!(size_of::<Lane>() <= 16 && buffers::SIZE <= u16::MAX as usize);

#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A send whose connection is closed already.
struct Orphan {
    deadline_ms: u64,
    send: u32,
    serial: u32,
}

pub(super) struct Uring {
    ring: IoUring,
    buffers: ManuallyDrop<Buffers>,
    sends: Sends,
    /// One for each source, by its index.
    lanes: Vec<Lane>,
    orphans: VecDeque<Orphan>,
    /// Descriptors that are closed with the next call, after what is sent with it.
    closing: Vec<RawFd>,
    completions: Vec<Completion>,
    /// Operations whose completion is yet to come.
    flying: usize,
}

/// Names an operation of a source; the generation tells it from those of later sources.
fn key(kind: u64, index: u32, generation: u32) -> u64 {
    kind << 56 | u64::from(generation & 0xff_ffff) << 32 | u64::from(index)
}

impl Uring {
    /// Makes the ring and its buffers.
    ///
    /// # Errors
    /// As `io_uring_setup(2)` and `io_uring_register(2)`: what the kernel lacks, forbids or has
    /// no memory for.
    pub(super) fn new() -> io::Result<Uring> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_cqsize(COMPLETIONS)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)?;
        let buffers = Buffers::new(&ring.submitter())?;
        Ok(Uring {
            ring,
            buffers: ManuallyDrop::new(buffers),
            sends: Sends::new(),
            lanes: Vec::new(),
            orphans: VecDeque::new(),
            closing: Vec::new(),
            completions: Vec::with_capacity(COMPLETIONS as usize),
            flying: 0,
        })
    }

    pub(super) fn memory(&self) -> usize {
        self.buffers.memory()
            + self.sends.memory()
            + self.lanes.capacity() * size_of::<Lane>()
            + self.completions.capacity() * size_of::<Completion>()
            + ENTRIES as usize * size_of::<squeue::Entry>()
            + COMPLETIONS as usize * size_of::<cqueue::Entry>()
    }

    /// Makes room for a new source.
    pub(super) fn admit(&mut self, index: u32) {
        if self.lanes.len() <= index as usize {
            super::task::grow(&mut self.lanes);
            self.lanes.resize(index as usize + 1, Lane::default());
        }
        self.lanes[index as usize] = Lane::default();
    }

    #[inline]
    pub(super) fn lane(&mut self, index: u32) -> &mut Lane {
        &mut self.lanes[index as usize]
    }

    /// Queues an operation for the next call.
    #[inline]
    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: whatever an entry points to is owned by this `Uring` until its completion: the
        // buffers of the ring, and the bytes of a send.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.call(0, 0, None);
        }
    }

    /// Queues an operation whose completion will be told apart.
    #[inline]
    fn start(&mut self, entry: squeue::Entry, user_data: u64) {
        self.flying += 1;
        self.push(&entry.user_data(user_data));
    }

    /// Queues an operation that nobody waits for.
    fn start_unwatched(&mut self, entry: squeue::Entry) {
        let flags = squeue::Flags::SKIP_SUCCESS;
        self.push(&entry.flags(flags).user_data(key(IGNORED, 0, 0)));
    }

    /// Receives into a buffer that the kernel picks; `waiting`: nothing is expected to be there.
    pub(super) fn receive(&mut self, fd: RawFd, index: u32, generation: u32, waiting: bool) {
        let entry = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), 0)
            .buf_group(buffers::GROUP)
            .ioprio(if waiting { POLL_FIRST } else { 0 })
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.start(entry, key(RECEIVE, index, generation));
    }

    fn poll(&mut self, fd: RawFd, events: u32, user_data: u64) {
        self.start(opcode::PollAdd::new(Fd(fd), events).build(), user_data);
    }

    pub(super) fn poll_read(&mut self, fd: RawFd, index: u32, generation: u32, shared: bool) {
        let exclusive = if shared { libc::EPOLLEXCLUSIVE as u32 } else { 0 };
        let events = libc::POLLIN as u32 | exclusive;
        self.poll(fd, events, key(READ, index, generation));
    }

    pub(super) fn poll_write(&mut self, fd: RawFd, index: u32, generation: u32) {
        self.poll(fd, libc::POLLOUT as u32, key(WRITE, index, generation));
    }

    pub(super) fn poll_hang(&mut self, fd: RawFd, index: u32, generation: u32) {
        self.poll(fd, libc::POLLRDHUP as u32, key(HANG, index, generation));
    }

    /// Sends a copy of `parts` with the next call.
    pub(super) fn send(&mut self, fd: RawFd, parts: &[IoSlice<'_>], index: u32, generation: u32) {
        let send = self.sends.begin(fd, parts, index, generation);
        self.lanes[index as usize].send = send;
    }

    /// How many bytes a source that is sending is going to send with the next call; none when
    /// the kernel has them already.
    pub(super) fn queued(&self, index: u32) -> Option<usize> {
        self.sends.queued(self.lanes[index as usize].send)
    }

    /// Adds to what is going to be sent.
    pub(super) fn send_too(&mut self, parts: &[IoSlice<'_>], index: u32) {
        self.sends.append(self.lanes[index as usize].send, parts);
    }

    fn send_rest(&mut self, send: u32) {
        let Some(one) = self.sends.get(send) else { return };
        let (fd, rest) = (one.fd, one.rest());
        let entry = opcode::Send::new(Fd(fd), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.start(entry, key(SEND, send, 0));
    }

    fn cancel(&mut self, user_data: u64) {
        let which = CancelBuilder::user_data(user_data).all();
        self.start_unwatched(opcode::AsyncCancel2::new(which).build());
    }

    /// Cancels what is under way for a source, as its `flags` say, except a send.
    pub(super) fn cancel_waits(&mut self, flags: u32, index: u32, generation: u32) {
        let kinds = [
            (RECEIVING, RECEIVE),
            (POLLING_READ, READ),
            (POLLING_WRITE, WRITE),
            (POLLING_HANG, HANG),
        ];
        for (flag, kind) in kinds {
            if flags & flag != 0 {
                self.cancel(key(kind, index, generation));
            }
        }
    }

    /// Drops what a source that is sending has not sent yet; whether that is done at once.
    pub(super) fn cancel_send(&mut self, index: u32) -> bool {
        let send = self.lanes[index as usize].send;
        let queued = self.sends.queued(send).is_some();
        match queued {
            true => self.sends.withdraw(send),
            false => self.cancel(key(SEND, send, 0)),
        }
        queued
    }

    /// Closes a descriptor after all that was queued for it.
    pub(super) fn close(&mut self, fd: OwnedFd) {
        self.closing.push(fd.into_raw_fd());
    }

    /// Gives the send of a source that goes away a limit of time.
    pub(super) fn orphan(&mut self, index: u32, now_ms: u64) {
        let send = self.lanes[index as usize].send;
        if let Some(serial) = self.sends.get(send).map(|send| send.serial) {
            let deadline_ms = now_ms.saturating_add(PATIENCE_MS);
            self.orphans.push_back(Orphan { deadline_ms, send, serial });
        }
    }

    /// Gives back what a source that goes away has not read.
    pub(super) fn forget_unread(&mut self, index: u32) {
        let lane = mem::take(&mut self.lanes[index as usize]);
        if lane.unread != 0 {
            self.buffers.give(lane.buffer);
        }
    }

    /// Reads from what was received ahead; returns how much, and whether more of that is left.
    #[inline]
    pub(super) fn take(&mut self, index: u32, into: &mut [u8]) -> (usize, bool) {
        let lane = &mut self.lanes[index as usize];
        let n = into.len().min(usize::from(lane.unread));
        self.buffers.copy(lane.buffer, usize::from(lane.start), &mut into[..n]);
        lane.start += n as u16;
        lane.unread -= n as u16;
        if lane.unread == 0 && n != 0 {
            self.buffers.give(lane.buffer);
        }
        (n, lane.unread != 0)
    }

    /// Hands all that is queued to the kernel without waiting.
    pub(super) fn submit(&mut self) {
        self.enter(0, 0, None);
    }

    /// As [`Uring::call`], with the sends that were put together since the last time.
    fn enter(&mut self, wanted: u32, flags: u32, timeout_ms: Option<u64>) {
        let mut at = 0;
        while let Some(send) = self.sends.next(at) {
            self.send_rest(send);
            at += 1;
        }
        self.sends.clear_queue();
        while let Some(fd) = self.closing.pop() {
            self.start_unwatched(opcode::Close::new(Fd(fd)).build());
        }
        self.call(wanted, flags, timeout_ms);
    }

    /// One call: submits, and waits for `wanted` completions. Whatever it answers (interrupted,
    /// timed out, too many completions unseen), the next turn goes on from what there is.
    fn call(&mut self, wanted: u32, flags: u32, timeout_ms: Option<u64>) {
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let _ = match timeout_ms {
            Some(ms) => {
                let limit = Timespec::new().sec(ms / 1_000).nsec((ms % 1_000) as u32 * 1_000_000);
                let args = SubmitArgs::new().timespec(&limit);
                let flags = flags | EnterFlags::EXT_ARG.bits();
                // SAFETY: the argument is what EXT_ARG announces, and outlives the call.
                unsafe { submitter.enter(queued, wanted, flags, Some(&args)) }
            }
            // SAFETY: there is no argument.
            None => unsafe { submitter.enter::<libc::sigset_t>(queued, wanted, flags, None) },
        };
    }

    fn collect(&mut self) {
        let mut queue = self.ring.completion();
        self.completions.extend((&mut queue).map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Cancels the sends of closed connections whose time is over; when the next one's is.
    fn expire_orphans(&mut self, now_ms: u64) -> Option<u64> {
        while let Some(first) = self.orphans.front() {
            let (send, serial, deadline_ms) = (first.send, first.serial, first.deadline_ms);
            let alive = self.sends.get(send).is_some_and(|send| send.serial == serial);
            if alive && deadline_ms > now_ms {
                return Some(deadline_ms - now_ms);
            }
            if alive {
                self.cancel(key(SEND, send, 0));
            }
            self.orphans.pop_front();
        }
        None
    }

    /// Whether bytes of closed connections are still to be sent.
    pub(super) fn has_orphans(&mut self) -> bool {
        let Uring { orphans, sends, .. } = self;
        orphans.retain(|one| sends.get(one.send).is_some_and(|send| send.serial == one.serial));
        !orphans.is_empty()
    }

    /// Closes this process's copy of a ring that another process made, and touches nothing else.
    pub(super) fn abandon(self) {
        // SAFETY: the ring is forgotten below, so that nobody closes its descriptor twice.
        drop(unsafe { OwnedFd::from_raw_fd(self.ring.as_raw_fd()) });
        mem::forget(self);
    }
}

impl Drop for Uring {
    /// Nothing is freed that the kernel may still use: all operations end first.
    fn drop(&mut self) {
        self.start_unwatched(opcode::AsyncCancel2::new(CancelBuilder::any()).build());
        for _ in 0..100 {
            self.enter(u32::from(self.flying > 0), EnterFlags::GETEVENTS.bits(), Some(10));
            self.collect();
            let ended = self.completions.drain(..).filter(|c| c.user_data >> 56 != IGNORED);
            self.flying -= ended.count();
            if self.flying == 0 {
                // SAFETY: the ring is being dropped; nobody reaches its buffers again.
                unsafe { ManuallyDrop::drop(&mut self.buffers) };
                return;
            }
        }
        mem::forget(mem::replace(&mut self.sends, Sends::new()));
    }
}

/// Submits, waits at most `timeout` milliseconds, and notes what happened.
pub(super) fn wait(s: &mut State, timeout: Option<u64>) {
    let now_ms = s.now_ms;
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let timeout = match uring.expire_orphans(now_ms) {
        Some(ms) => Some(timeout.map_or(ms, |timeout| timeout.min(ms))),
        None => timeout,
    };
    let events = EnterFlags::GETEVENTS.bits();
    match timeout {
        Some(0) => uring.enter(0, events, None),
        timeout => uring.enter(1, events, timeout),
    }
    uring.collect();
    s.refresh_clock();
    reap(s);
}

/// Submits what is queued and notes what has ended, without waiting: for the end of the loop.
pub(super) fn flush(s: &mut State) {
    if let Backend::Uring(uring) = &mut s.backend {
        uring.enter(0, EnterFlags::GETEVENTS.bits(), None);
        uring.collect();
        reap(s);
    }
}

fn reap(s: &mut State) {
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let mut completions = mem::take(&mut uring.completions);
    for completion in completions.drain(..) {
        complete(s, completion);
    }
    if let Backend::Uring(uring) = &mut s.backend {
        uring.completions = completions;
    }
}

fn complete(s: &mut State, completion: Completion) {
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let kind = completion.user_data >> 56;
    if kind == IGNORED {
        return;
    }
    uring.flying -= 1;
    let (index, generation) =
        (completion.user_data as u32, (completion.user_data >> 32) as u32 & 0xff_ffff);
    match kind {
        SEND => sent(s, index, completion.result),
        RECEIVE => received(s, index, generation, completion),
        _ => polled(s, kind, index, generation, completion.result),
    }
}

fn received(s: &mut State, index: u32, generation: u32, completion: Completion) {
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let buffer = cqueue::buffer_select(completion.flags);
    let Some(slot) = s.ios.current(index, generation) else {
        if let Some(buffer) = buffer {
            uring.buffers.give(buffer);
        }
        return;
    };
    slot.flags &= !RECEIVING;
    let lane = &mut uring.lanes[index as usize];
    let hung = match (completion.result, buffer) {
        (n @ 1.., Some(buffer)) => {
            *lane = Lane { buffer, start: 0, unread: n as u16, ..*lane };
            lane.more = cqueue::sock_nonempty(completion.flags);
            slot.flags |= STASHED | READABLE;
            waiter_of(s, index, false);
            return;
        }
        (outcome, buffer) => {
            if let Some(buffer) = buffer {
                uring.buffers.give(buffer);
            }
            outcome
        }
    };
    match -hung {
        // Cancelled, interrupted, or no buffer was left: what waits is woken and asks again; a
        // poll needs no buffer.
        libc::ECANCELED => return,
        libc::ENOBUFS | libc::EINTR | libc::EAGAIN => {
            slot.flags |= POLLING_READ;
            let (fd, generation) = (slot.fd, slot.generation);
            uring.poll_read(fd, index, generation, false);
            return;
        }
        // A send met the reset first, which leaves the end of the stream to the receive.
        0 if i32::from(lane.send_errno) == libc::ECONNRESET => {
            lane.receive_errno = lane.send_errno;
        }
        0 => slot.flags |= ENDED,
        errno => lane.receive_errno = errno as u16,
    }
    slot.flags |= STASHED;
    note(s, index, Event { readable: true, writable: false, hung: true });
}

/// Wakes the reader of a source, and the writer too if `both`.
fn waiter_of(s: &mut State, index: u32, both: bool) {
    let Some(slot) = s.ios.at(index) else { return };
    let reader = mem::replace(&mut slot.reader, NONE);
    let writer = if both { mem::replace(&mut slot.writer, NONE) } else { NONE };
    waiter::wake_slot(s, reader);
    if writer != reader {
        waiter::wake_slot(s, writer);
    }
}

fn polled(s: &mut State, kind: u64, index: u32, generation: u32, result: i32) {
    let Some(slot) = s.ios.current(index, generation) else {
        return;
    };
    if result == -libc::ECANCELED {
        return;
    }
    slot.flags &= !match kind {
        READ => POLLING_READ,
        WRITE => POLLING_WRITE,
        _ => POLLING_HANG,
    };
    // A poll that the kernel refuses leaves the decision to the caller's own call.
    let events = if result < 0 { (libc::POLLIN | libc::POLLOUT) as u32 } else { result as u32 };
    let has = |bits: i16| events & bits as u32 != 0;
    let seen = Event {
        readable: kind == READ && has(libc::POLLIN),
        writable: kind == WRITE && has(libc::POLLOUT),
        hung: has(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR),
    };
    note(s, index, seen);
}

fn sent(s: &mut State, index: u32, result: i32) {
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let Some(send) = uring.sends.get(index) else {
        return;
    };
    let (source, generation) = (send.source, send.generation);
    let complete = send.advance(usize::try_from(result).unwrap_or(0));
    let slot = s.ios.current(source, generation & 0xff_ffff);
    if !complete && result >= 0 && slot.is_some() {
        // Interrupted halfway.
        uring.send_rest(index);
        return;
    }
    uring.sends.end(index);
    let Some(slot) = slot else { return };
    slot.flags = slot.flags & !SENDING | WRITABLE;
    if slot.flags & SHUT != 0 {
        slot.flags &= !SHUT;
        // SAFETY: takes no pointer. That the peer is gone already needs no telling.
        unsafe { libc::shutdown(slot.fd, libc::SHUT_WR) };
    }
    if result < 0 {
        slot.flags |= SEND_FAILED | HUNG;
        uring.lanes[source as usize].send_errno = -result as u16;
        waiter_of(s, source, true);
        return;
    }
    let writer = mem::replace(&mut slot.writer, NONE);
    waiter::wake_slot(s, writer);
}
