//! io_uring(7): receives, sends and polls are handed to the kernel, all with one call per turn.
//!
//! ```text
//!  task waits to read ---> RECV, no buffer of ours ---> bytes in a buffer of the ring ---> copied
//!  task writes little ---> SEND of a copy, "written" -> taken whole, or the error is kept
//!  anything else     ----> POLL_ADD, once         ----> ready, and the caller makes its own call
//! ```
//! At most one receive and one send of a source are under way. Where the kernel can, a receive
//! stays for what comes next, until it has brought [`LASTS`] bytes or nobody reads them. So a peer
//! that sends more than is read, or reads less than is sent, is held back as with any other driver.
//!
//! Whatever the kernel may still write to or read from belongs to this module, never to a task: a
//! source can go away at any moment. Its operations are cancelled, and completions that come late
//! name a generation that is gone.
//!
//! What clients have sent waits in a ring of its own, so that answers come first (`turns.rs`): the
//! kernel runs what has become possible in the order in which it did, and would receive from
//! thousands of clients before it told of an answer to the first.
//!
//! What a stream asks for beyond readiness is in `ahead.rs`.

mod bell;
mod buffers;
mod completions;
mod door;
mod probe;
mod ring;
mod sends;

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{EnterFlags, cqueue, opcode, squeue};

use super::io::{POLLING_HANG, POLLING_READ, POLLING_WRITE, RECEIVING};
use super::state::monotonic_ms;
use super::turns::Turns;
use bell::Bell;
pub(super) use completions::{flush, wait};
use ring::Ring;
use sends::Sends;

/// Completions that are looked at together.
pub(super) const AT_ONCE: usize = 64;
/// Do not try before the socket says that something is there (`IORING_RECVSEND_POLL_FIRST`).
const POLL_FIRST: u16 = 1;
/// Go on after a completion (`IORING_RECV_MULTISHOT`).
const MULTISHOT: u16 = 2;
/// Bytes that a lasting receive brings before it ends by itself: one buffer. What is larger is read
/// from the socket at once, for it would have to be copied out of many buffers.
const LASTS: u32 = 4 << 10;
/// Who has less at once than this is received for; more is left to the task.
pub(super) const BULK: usize = buffers::SIZE;
/// Buffers that wait for a reader before a lasting receive is told to end.
const BEHIND: usize = 3;
/// The kernel goes on watching for a process that was killed, until it has swept out its ring, and
/// may wake only that one for a new connection. Who takes its place looks for itself meanwhile.
const UNSETTLED_MS: u64 = 2_000;
/// How long the bytes of a closed connection may wait for its peer.
const PATIENCE_MS: u64 = 30_000;

/// What a completion is about: the highest byte of its user data.
const IGNORED: u64 = 0;
const RECEIVE: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 3;
const HANG: u64 = 4;
const SEND: u64 = 5;
/// Something has come to the clients' ring.
const NEWS: u64 = 6;

/// Whose operation: the place of its ring.
const OTHERS: usize = 0;
const CLIENTS: usize = 1;

/// What a receive brought that nobody has read yet.
#[derive(Clone, Copy, Default)]
pub(super) struct Lane {
    /// The buffer, and the part of it that is unread; none when `unread` is 0.
    buffer: u8,
    /// [`MORE`], [`FOLLOWED`], [`FAILED`] and [`OF_CLIENT`].
    marks: u8,
    start: u16,
    unread: u16,
    /// The send under way, if the flags say that there is one.
    send: u16,
}

/// The kernel had more than fitted.
const MORE: u8 = 1;
/// There are further buffers in [`Uring::behind`].
const FOLLOWED: u8 = 2;
/// There are errors in [`Uring::failures`].
const FAILED: u8 = 4;
/// A client has made the connection.
const OF_CLIENT: u8 = 8;

/// Errors of a source that were not told yet; 0: none.
#[derive(Clone, Copy, Default)]
struct Failures {
    receive: i32,
    send: i32,
}

impl Lane {
    fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    fn mark(&mut self, mark: u8, on: bool) {
        self.marks = if on { self.marks | mark } else { self.marks & !mark };
    }

    /// The ring that receives for it.
    fn side(&self) -> usize {
        if self.is(OF_CLIENT) { CLIENTS } else { OTHERS }
    }

    /// How many bytes of its buffer are to be read.
    pub(super) fn unread(&self) -> usize {
        usize::from(self.unread)
    }

    /// Whether the kernel had more than fitted, which is told once.
    pub(super) fn take_more(&mut self) -> bool {
        let more = self.is(MORE);
        self.mark(MORE, false);
        more
    }
}

const _: () = assert!(size_of::<Lane>() <= 8 && buffers::SIZE <= u16::MAX as usize);

#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A send whose connection is closed already.
struct Orphan {
    deadline_ms: u64,
    send: u16,
    serial: u32,
}

pub(super) struct Uring {
    /// That of the others, where all is sent, too, and that of the clients.
    rings: [Ring; 2],
    turns: Turns,
    /// Tells the others' ring of news for that of the clients.
    bell: Bell,
    sends: Sends,
    /// One for each source, by its index.
    lanes: Vec<Lane>,
    /// Buffers that came before the first one was read, and their lengths, by source.
    behind: HashMap<u32, VecDeque<(u8, u16)>>,
    /// What receives and sends met, by source, for as long as it lives.
    failures: HashMap<u32, Failures>,
    /// The kernel limits what a receive that goes on brings (since Linux 6.17).
    lasting: bool,
    orphans: VecDeque<Orphan>,
    /// Descriptors that are closed with the next call, after what is sent with it.
    closing: Vec<RawFd>,
    completions: Vec<Completion>,
    /// Until then listeners are watched without relying on one of the processes being woken.
    pub(super) settled_ms: u64,
}

/// Names an operation of a source; the generation tells it from those of later sources.
fn key(kind: u64, index: u32, generation: u32) -> u64 {
    kind << 56 | u64::from(generation & 0xff_ffff) << 32 | u64::from(index)
}

/// A receive into a buffer that the kernel picks.
fn receive_entry(fd: RawFd, ioprio: u16) -> squeue::Entry {
    let entry = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), 0);
    let entry = entry.buf_group(buffers::GROUP).ioprio(ioprio).build();
    entry.flags(squeue::Flags::BUFFER_SELECT)
}

/// As [`receive_entry`], going on until it has brought [`LASTS`] bytes.
fn lasting_entry(fd: RawFd, ioprio: u16) -> squeue::Entry {
    /// Where `struct io_uring_sqe` has `optlen`.
    const LIMIT: usize = 44;
    let mut entry = receive_entry(fd, ioprio | MULTISHOT);
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is the kernel's record of 64 bytes, plain numbers, aligned to 8.
    unsafe { (&raw mut entry).byte_add(LIMIT).cast::<u32>().write(LASTS) };
    entry
}

/// Asks the kernel with a descriptor that is none: the entry is judged first.
fn lasting_receive_is_known(ring: &mut Ring) -> bool {
    ring.push(&lasting_entry(-1, 0));
    ring.enter(1, EnterFlags::GETEVENTS, Some(1_000));
    ring.next().is_some_and(|completion| completion.result == -libc::EBADF)
}

impl Uring {
    /// Makes the ring and its buffers.
    ///
    /// # Errors
    /// As `io_uring_setup(2)` and `io_uring_register(2)`: what the kernel lacks, forbids or has
    /// no memory for.
    pub(super) fn new() -> io::Result<Uring> {
        let mut rings = [Ring::new()?, Ring::new()?];
        let bell = Bell::new(&rings[CLIENTS])?;
        let lasting = lasting_receive_is_known(&mut rings[OTHERS]);
        let mut uring = Uring {
            rings,
            turns: Turns::default(),
            bell,
            sends: Sends::new(),
            lanes: Vec::new(),
            behind: HashMap::new(),
            failures: HashMap::new(),
            lasting,
            orphans: VecDeque::new(),
            closing: Vec::new(),
            completions: Vec::with_capacity(AT_ONCE),
            settled_ms: monotonic_ms() + UNSETTLED_MS,
        };
        probe::round_trip(&mut uring)?;
        Ok(uring)
    }

    pub(super) fn memory(&self) -> usize {
        self.rings.iter().map(Ring::memory).sum::<usize>()
            + self.sends.memory()
            + self.lanes.capacity() * size_of::<Lane>()
            + self.completions.capacity() * size_of::<Completion>()
    }

    /// Makes room for a new source.
    pub(super) fn admit(&mut self, index: u32, of_client: bool) {
        if self.lanes.len() <= index as usize {
            super::task::grow(&mut self.lanes);
            self.lanes.resize(index as usize + 1, Lane::default());
        }
        let marks = if of_client { OF_CLIENT } else { 0 };
        self.lanes[index as usize] = Lane { marks, ..Lane::default() };
    }

    #[inline]
    pub(super) fn lane(&mut self, index: u32) -> &mut Lane {
        &mut self.lanes[index as usize]
    }

    /// The ring that receives for a source.
    #[inline]
    fn side(&self, index: u32) -> usize {
        self.lanes.get(index as usize).map_or(OTHERS, Lane::side)
    }

    /// Queues an operation whose completion will be told apart.
    #[inline]
    fn start(&mut self, side: usize, entry: squeue::Entry, user_data: u64) {
        self.rings[side].flying += 1;
        self.rings[side].push(&entry.user_data(user_data));
    }

    /// Queues an operation that nobody waits for.
    fn start_unwatched(&mut self, side: usize, entry: squeue::Entry) {
        let flags = squeue::Flags::SKIP_SUCCESS;
        self.rings[side].push(&entry.flags(flags).user_data(key(IGNORED, 0, 0)));
    }

    /// Receives into a buffer that the kernel picks; `waiting`: nothing is expected to be there.
    pub(super) fn receive(&mut self, fd: RawFd, index: u32, generation: u32, waiting: bool) {
        let entry = receive_entry(fd, if waiting { POLL_FIRST } else { 0 });
        self.start(self.side(index), entry, key(RECEIVE, index, generation));
    }

    /// As [`Uring::receive`], again and again; false when the kernel cannot.
    #[inline]
    pub(super) fn receive_lasting(
        &mut self,
        fd: RawFd,
        index: u32,
        generation: u32,
        waiting: bool,
    ) -> bool {
        if self.lasting {
            let entry = lasting_entry(fd, if waiting { POLL_FIRST } else { 0 });
            self.start(self.side(index), entry, key(RECEIVE, index, generation));
        }
        self.lasting
    }

    /// Tells a lasting receive to end. What it brings before is not lost.
    pub(super) fn end_receive(&mut self, index: u32, generation: u32) {
        self.cancel(self.side(index), key(RECEIVE, index, generation));
    }

    fn poll(&mut self, side: usize, fd: RawFd, events: u32, user_data: u64) {
        self.start(side, opcode::PollAdd::new(Fd(fd), events).build(), user_data);
    }

    pub(super) fn poll_read(&mut self, fd: RawFd, index: u32, generation: u32, exclusive: bool) {
        let exclusive = if exclusive { libc::EPOLLEXCLUSIVE as u32 } else { 0 };
        let events = libc::POLLIN as u32 | exclusive;
        self.poll(self.side(index), fd, events, key(READ, index, generation));
    }

    /// As [`Uring::poll_read`], for a stream: its end is told with it.
    pub(super) fn poll_stream(&mut self, fd: RawFd, index: u32, generation: u32) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        self.poll(self.side(index), fd, events, key(READ, index, generation));
    }

    pub(super) fn poll_write(&mut self, fd: RawFd, index: u32, generation: u32) {
        self.poll(OTHERS, fd, libc::POLLOUT as u32, key(WRITE, index, generation));
    }

    pub(super) fn poll_hang(&mut self, fd: RawFd, index: u32, generation: u32) {
        let events = libc::POLLRDHUP as u32;
        self.poll(self.side(index), fd, events, key(HANG, index, generation));
    }

    /// Sends a copy of `parts` with the next call; false when too many sends are under way.
    #[inline]
    pub(super) fn send(
        &mut self,
        fd: RawFd,
        parts: &[IoSlice<'_>],
        index: u32,
        generation: u32,
    ) -> bool {
        let send = self.sends.begin(fd, parts, index, generation);
        self.lanes[index as usize].send = send.unwrap_or_default();
        send.is_some()
    }

    /// The error of the last receive, if it was not told.
    pub(super) fn receive_errno(&self, index: u32) -> i32 {
        self.failed(index).receive
    }

    /// Why the last send failed.
    pub(super) fn send_errno(&self, index: u32) -> i32 {
        self.failed(index).send
    }

    fn failed(&self, index: u32) -> Failures {
        match self.lanes[index as usize].is(FAILED) {
            true => self.failures.get(&index).copied().unwrap_or_default(),
            false => Failures::default(),
        }
    }

    /// Keeps the error of a receive, to be told; 0: it was.
    pub(super) fn set_receive_errno(&mut self, index: u32, errno: i32) {
        self.failures(index).receive = errno;
    }

    #[cold]
    fn failures(&mut self, index: u32) -> &mut Failures {
        self.lanes[index as usize].mark(FAILED, true);
        self.failures.entry(index).or_default()
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

    fn send_rest(&mut self, send: u16) {
        let Some(one) = self.sends.get(send) else { return };
        let (fd, rest) = (one.fd, one.rest());
        // What is held back goes out with the end of the stream, in one segment.
        let more = if one.last { libc::MSG_MORE } else { 0 };
        let entry = opcode::Send::new(Fd(fd), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | more)
            .build();
        self.start(OTHERS, entry, key(SEND, send.into(), 0));
    }

    fn cancel(&mut self, side: usize, user_data: u64) {
        let which = CancelBuilder::user_data(user_data).all();
        self.start_unwatched(side, opcode::AsyncCancel2::new(which).build());
    }

    /// Cancels what is under way for a source, as its `flags` say, except a send.
    pub(super) fn cancel_waits(&mut self, flags: u32, index: u32, generation: u32) {
        let side = self.side(index);
        let kinds = [
            (RECEIVING, RECEIVE, side),
            (POLLING_READ, READ, side),
            (POLLING_WRITE, WRITE, OTHERS),
            (POLLING_HANG, HANG, side),
        ];
        for (flag, kind, side) in kinds {
            if flags & flag != 0 {
                self.cancel(side, key(kind, index, generation));
            }
        }
    }

    /// Drops what a source that is sending has not sent yet; whether that is done at once.
    pub(super) fn cancel_send(&mut self, index: u32) -> bool {
        let send = self.lanes[index as usize].send;
        let queued = self.sends.queued(send).is_some();
        match queued {
            true => self.sends.withdraw(send),
            false => self.cancel(OTHERS, key(SEND, send.into(), 0)),
        }
        queued
    }

    /// Closes a descriptor after all that was queued for it.
    pub(super) fn close(&mut self, fd: OwnedFd) {
        self.closing.push(fd.into_raw_fd());
    }

    /// Closes the descriptor of a source whose send is queued, after that send. Until then what
    /// arrives is received and forgotten.
    pub(super) fn close_sent(&mut self, index: u32, fd: OwnedFd) {
        if let Some(send) = self.sends.get(self.lanes[index as usize].send) {
            send.last = true;
            // Its own now: closed when the send has ended.
            let _ = fd.into_raw_fd();
        }
    }

    /// Ends a send, and with it the connection if nothing follows.
    fn end_send(&mut self, index: u16) {
        if let Some(send) = self.sends.get(index).filter(|send| send.last) {
            let fd = send.fd;
            // Sends what is held back, even if something is unread, and ends the receive.
            shut(fd, libc::SHUT_RDWR);
            self.closing.push(fd);
        }
        self.sends.end(index);
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
            self.rings[lane.side()].buffers.give(lane.buffer);
        }
        if lane.is(FAILED) {
            self.failures.remove(&index);
        }
        if lane.is(FOLLOWED) {
            for (buffer, _) in self.behind.remove(&index).into_iter().flatten() {
                self.rings[lane.side()].buffers.give(buffer);
            }
        }
    }

    /// Reads from what was received ahead; returns how much, and whether more of that is left.
    #[inline]
    pub(super) fn take(&mut self, index: u32, into: &mut [u8]) -> (usize, bool) {
        let lane = &mut self.lanes[index as usize];
        let n = into.len().min(usize::from(lane.unread));
        let buffers = &mut self.rings[lane.side()].buffers;
        buffers.copy(lane.buffer, usize::from(lane.start), &mut into[..n]);
        lane.start += n as u16;
        lane.unread -= n as u16;
        if lane.unread == 0 && n != 0 {
            buffers.give(lane.buffer);
            if lane.is(FOLLOWED) {
                self.follow(index);
            }
        }
        (n, self.lanes[index as usize].unread != 0)
    }

    /// Makes the next buffer of a source the one that is read.
    #[cold]
    fn follow(&mut self, index: u32) {
        let lane = &mut self.lanes[index as usize];
        let next = self.behind.get_mut(&index).and_then(VecDeque::pop_front);
        if let Some((buffer, unread)) = next {
            *lane = Lane { buffer, start: 0, unread, ..*lane };
        }
        if self.behind.get(&index).is_none_or(VecDeque::is_empty) {
            lane.mark(FOLLOWED, false);
            self.behind.remove(&index);
        }
    }

    /// Keeps what a receive brought until it is read; how many buffers wait for that now.
    #[inline]
    fn keep(&mut self, index: u32, buffer: u8, length: u16) -> usize {
        let lane = &mut self.lanes[index as usize];
        if lane.unread == 0 {
            *lane = Lane { buffer, start: 0, unread: length, ..*lane };
            return 1;
        }
        let end = lane.start + lane.unread;
        if !lane.is(FOLLOWED) && usize::from(end) + usize::from(length) <= buffers::SIZE {
            // Little pieces must not take all buffers.
            let buffers = &mut self.rings[lane.side()].buffers;
            buffers.append(lane.buffer, end.into(), buffer, length.into());
            buffers.give(buffer);
            lane.unread += length;
            return 1;
        }
        lane.mark(FOLLOWED, true);
        let behind = self.behind.entry(index).or_default();
        behind.push_back((buffer, length));
        1 + behind.len()
    }

    /// Hands all that is queued to the kernel without waiting.
    pub(super) fn submit(&mut self) {
        self.rings[CLIENTS].enter(0, EnterFlags::empty(), None);
        self.enter(0, EnterFlags::empty(), None);
    }

    /// Enters the others' ring, with the sends that were put together since the last time.
    fn enter(&mut self, wanted: u32, flags: EnterFlags, timeout_ms: Option<u64>) {
        let mut at = 0;
        while let Some(send) = self.sends.next(at) {
            self.send_rest(send);
            at += 1;
        }
        self.sends.clear_queue();
        while let Some(fd) = self.closing.pop() {
            self.start_unwatched(OTHERS, opcode::Close::new(Fd(fd)).build());
        }
        self.rings[OTHERS].enter(wanted, flags, timeout_ms);
    }

    /// Whether anything of clients is to be looked at now; if not, whoever waits for the others'
    /// ring is woken when there is.
    fn look_at_clients(&mut self, will_wait: bool) -> bool {
        let clients = &mut self.rings[CLIENTS];
        clients.work();
        if !will_wait || clients.has_news() {
            return true;
        }
        clients.be_heard(true);
        if clients.has_news() {
            clients.be_heard(false);
            return true;
        }
        if let Some(entry) = self.bell.listen() {
            self.start(OTHERS, entry, key(NEWS, 0, 0));
        }
        false
    }

    /// Takes some of what has ended in a ring; how much.
    fn collect(&mut self, side: usize) -> usize {
        self.rings[side].collect(&mut self.completions);
        self.completions.len()
    }

    /// Cancels the sends of closed connections whose time is over; when the next one's is.
    fn expire_orphans(&mut self, now_ms: u64) -> Option<u64> {
        while let Some(first) = self.orphans.front() {
            let (send, serial, deadline_ms) = (first.send, first.serial, first.deadline_ms);
            let alive = self.sends.get(send).is_some_and(|send| send.serial == serial);
            if alive && deadline_ms > now_ms {
                return Some(deadline_ms - now_ms);
            }
            if let Some(late) = self.sends.get(send).filter(|_| alive) {
                late.given_up = true;
                self.cancel(OTHERS, key(SEND, send.into(), 0));
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

    /// Closes this process's copies of rings that another process made, and touches nothing else.
    pub(super) fn abandon(self) {
        self.rings.iter().for_each(Ring::abandon);
        self.bell.abandon();
        mem::forget(self);
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.end();
        self.rings.iter_mut().for_each(Ring::close);
    }
}

impl Uring {
    /// Ends all operations. Nothing is freed that the kernel may still use.
    fn end(&mut self) {
        for side in [OTHERS, CLIENTS] {
            let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.start_unwatched(side, all);
        }
        for _ in 0..100 {
            for side in [CLIENTS, OTHERS] {
                let wanted = u32::from(self.rings[side].flying > 0);
                if side == OTHERS {
                    self.enter(wanted, EnterFlags::GETEVENTS, Some(10));
                } else {
                    self.rings[side].enter(wanted, EnterFlags::GETEVENTS, Some(10));
                }
                while self.collect(side) > 0 {
                    let last =
                        |c: &Completion| c.user_data >> 56 != IGNORED && !cqueue::more(c.flags);
                    self.rings[side].flying -= self.completions.drain(..).filter(last).count();
                }
            }
            if self.rings.iter().all(|ring| ring.flying == 0) {
                self.rings.iter_mut().for_each(Ring::free);
                return;
            }
        }
        mem::forget(mem::replace(&mut self.sends, Sends::new()));
        self.bell.leak();
    }
}

/// Ends what a socket carries. That the peer is gone already needs no telling.
fn shut(fd: RawFd, how: libc::c_int) {
    // SAFETY: takes no pointer.
    unsafe { libc::shutdown(fd, how) };
}
