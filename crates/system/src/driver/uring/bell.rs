//! How one ring tells another of its news: an eventfd(2) that the kernel counts up for the first
//! and the second reads.
//!
//! Watching the ring's own descriptor would not do: with `IORING_SETUP_DEFER_TASKRUN` what has
//! become possible wakes only who waits for that ring (io_uring_register(2),
//! `IORING_REGISTER_EVENTFD`). Nobody listens while the loop is busy; then the kernel is told not
//! to ring at all.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};

use super::ring::Ring;

pub(super) struct Bell {
    counter: OwnedFd,
    /// Where a read puts what it read.
    read: Box<[u8; size_of::<u64>()]>,
    /// A read is under way.
    listening: bool,
}

impl Bell {
    /// Makes the bell of a ring, which does not ring yet.
    ///
    /// # Errors
    /// As `eventfd(2)` and `io_uring_register(2)`.
    pub(super) fn new(ring: &Ring) -> io::Result<Bell> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC)?;
        ring.register_bell(counter.as_raw_fd())?;
        Ok(Bell { counter, read: Box::default(), listening: false })
    }

    /// The read to be started, unless one is under way.
    pub(super) fn listen(&mut self) -> Option<squeue::Entry> {
        if mem::replace(&mut self.listening, true) {
            return None;
        }
        let room = self.read.as_mut_ptr();
        Some(opcode::Read::new(Fd(self.counter.as_raw_fd()), room, self.read.len() as u32).build())
    }

    /// The read has ended.
    pub(super) fn heard(&mut self) {
        self.listening = false;
    }

    /// Closes this process's copy of the descriptor of another process's bell. The caller forgets
    /// the bell.
    pub(super) fn abandon(&self) {
        // SAFETY: the bell is forgotten, so that nobody closes its descriptor twice.
        drop(unsafe { OwnedFd::from_raw_fd(self.counter.as_raw_fd()) });
    }

    /// Leaves the memory to the kernel, which may still write to it.
    pub(super) fn leak(&mut self) {
        mem::forget(mem::take(&mut self.read));
    }
}
