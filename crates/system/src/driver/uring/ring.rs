//! One ring: its queues, its buffers, and the call that moves them.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use super::buffers::Buffers;
use super::door::Door;
use super::{AT_ONCE, Completion};

/// Entries of the submission queue: more in one turn cost one more call.
const ENTRIES: u32 = 1024;
/// Entries of the completion queue. The kernel keeps what does not fit.
const COMPLETIONS: u32 = 4096;

pub(super) struct Ring {
    ring: IoUring,
    door: Door,
    pub(super) buffers: ManuallyDrop<Buffers>,
    /// Operations whose completion is yet to come.
    pub(super) flying: usize,
}

/// Makes the queues. What is missed from kernels before 6.6 costs a little only.
fn make_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_cqsize(COMPLETIONS)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    let plain = builder.clone();
    match builder.setup_no_sqarray().build(ENTRIES) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => plain.build(ENTRIES),
        outcome => outcome,
    }
}

impl Ring {
    /// # Errors
    /// As `io_uring_setup(2)` and `io_uring_register(2)`.
    pub(super) fn new() -> io::Result<Ring> {
        let ring = make_ring()?;
        let door = Door::new(ring.as_raw_fd());
        let buffers = ManuallyDrop::new(Buffers::new(&ring.submitter())?);
        let mut ring = Ring { ring, door, buffers, flying: 0 };
        ring.be_heard(false);
        Ok(ring)
    }

    pub(super) fn memory(&self) -> usize {
        self.buffers.memory()
            + ENTRIES as usize * size_of::<squeue::Entry>()
            + COMPLETIONS as usize * size_of::<cqueue::Entry>()
    }

    /// Has an eventfd(2) counted up at every news, from [`Ring::be_heard`] on.
    pub(super) fn register_bell(&self, counter: RawFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(counter)
    }

    /// Whether news ring. They did not before: who asked for it looks once more.
    pub(super) fn be_heard(&mut self, on: bool) {
        let queue = self.ring.completion();
        match on {
            true => queue.enable_eventfd(),
            false => queue.disable_eventfd(),
        }
        // Between this and that look: the kernel notes news before it asks whether to ring.
        fence(Ordering::SeqCst);
    }

    /// Queues an operation for the next call.
    #[inline]
    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: whatever an entry points to is owned by the `Uring` until its completion: the
        // buffers of the ring, and the bytes of a send.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(0, EnterFlags::empty(), None);
        }
    }

    /// One call: submits, and waits for `wanted` completions. Whatever it answers (interrupted,
    /// timed out, too many completions unseen), the next turn goes on from what there is.
    pub(super) fn enter(&mut self, wanted: u32, flags: EnterFlags, timeout_ms: Option<u64>) {
        let _ = self.try_enter(wanted, flags, timeout_ms);
    }

    /// As [`Ring::enter`], and tells what it answers.
    pub(super) fn try_enter(
        &mut self,
        wanted: u32,
        flags: EnterFlags,
        timeout_ms: Option<u64>,
    ) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        self.door.enter(queued, wanted, flags, timeout_ms)
    }

    /// Submits what is queued, and has the kernel do some of what has become possible, unless that
    /// was done and is not looked at yet. No call where there is neither.
    pub(super) fn work(&mut self) {
        let queue = self.ring.submission();
        let (submits, works) = (!queue.is_empty(), queue.taskrun() || queue.cq_overflow());
        drop(queue);
        let works = works && self.ring.completion().is_empty();
        if works {
            self.enter(0, EnterFlags::GETEVENTS, None);
        } else if submits {
            self.enter(0, EnterFlags::empty(), None);
        }
    }

    /// Whether something has ended, or something has become possible.
    pub(super) fn has_news(&mut self) -> bool {
        if !self.ring.completion().is_empty() {
            return true;
        }
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Takes some of what has ended.
    pub(super) fn collect(&mut self, into: &mut Vec<Completion>) {
        let mut queue = self.ring.completion();
        into.extend((&mut queue).take(AT_ONCE).map(Completion::from));
    }

    pub(super) fn next(&mut self) -> Option<Completion> {
        self.ring.completion().next().map(Completion::from)
    }

    /// Closes this process's copy of the descriptor of another process's ring. The caller forgets
    /// the ring.
    pub(super) fn abandon(&self) {
        // SAFETY: the ring is forgotten, so that nobody closes its descriptor twice.
        drop(unsafe { OwnedFd::from_raw_fd(self.ring.as_raw_fd()) });
    }

    /// Frees the buffers, when no operation is under way any more.
    pub(super) fn free(&mut self) {
        // SAFETY: the ring is being dropped; nobody reaches its buffers again.
        unsafe { ManuallyDrop::drop(&mut self.buffers) };
    }

    pub(super) fn close(&mut self) {
        self.door.close();
    }
}

impl From<cqueue::Entry> for Completion {
    fn from(entry: cqueue::Entry) -> Completion {
        Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }
}
