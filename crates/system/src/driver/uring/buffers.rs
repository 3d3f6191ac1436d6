//! Buffers that the kernel picks from when data arrives, so that waiting costs no memory.
//!
//! The ring of entries is shared with the kernel: this side writes an entry and moves the tail,
//! the kernel takes entries from the head. A buffer is either the kernel's (in the ring) or ours
//! (named by a completion, until it is given back).

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Buffers in the ring; a power of two. Their ids are bytes.
const COUNT: u16 = 256;
/// Bytes in each. What a socket has beyond them is read by a call of its own.
pub(super) const SIZE: usize = 4 << 10;
/// The only group of buffers.
pub(super) const GROUP: u16 = 0;

/// Private memory, page by page.
struct Region {
    start: *mut u8,
    length: usize,
}

impl Region {
    fn new(length: usize) -> io::Result<Region> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // All of it is used in turn soon: better at the start than by a fault for each page.
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses aliases nothing.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), length, access, flags)? };
        Ok(Region { start: start.cast(), length })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone; whoever handed it to the kernel has seen to it that
        // the kernel no longer uses it (`Uring::drop`).
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

const _: () = assert!(COUNT == 1 << u8::BITS);

pub(super) struct Buffers {
    entries: Region,
    memory: Region,
    tail: u16,
}

impl Buffers {
    /// Makes the buffers and hands all of them to the kernel.
    pub(super) fn new(submitter: &Submitter<'_>) -> io::Result<Buffers> {
        let entries = Region::new(usize::from(COUNT) * size_of::<BufRingEntry>())?;
        let memory = Region::new(usize::from(COUNT) * SIZE)?;
        // SAFETY: the entries are page-aligned, as many as said, and live until the ring is gone
        // (`Uring::drop`).
        unsafe {
            submitter.register_buf_ring_with_flags(
                entries.start.expose_provenance() as u64,
                COUNT,
                GROUP,
                0,
            )?;
        }
        let mut buffers = Buffers { entries, memory, tail: 0 };
        for id in 0..=u8::MAX {
            buffers.give(id);
        }
        Ok(buffers)
    }

    pub(super) fn memory(&self) -> usize {
        self.entries.length + self.memory.length
    }

    /// Hands a buffer (back) to the kernel.
    #[inline]
    pub(super) fn give(&mut self, id: u8) {
        let at = usize::from(self.tail & (COUNT - 1));
        let entries: *mut BufRingEntry = self.entries.start.cast();
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `at` and `id` are below COUNT, so both pointers stay inside their regions. The
        // kernel reads an entry only after the tail has passed it, which the release store makes
        // it do after the entry is written.
        unsafe {
            let entry = &mut *entries.add(at);
            let start = self.memory.start.add(usize::from(id) * SIZE);
            entry.set_addr(start.expose_provenance() as u64);
            entry.set_len(SIZE as u32);
            entry.set_bid(u16::from(id));
            let tail = BufRingEntry::tail(entries).cast_mut().cast::<u16>();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Copies out of a buffer of ours, from `start`.
    #[inline]
    pub(super) fn copy(&self, id: u8, start: usize, into: &mut [u8]) {
        assert!(start + into.len() <= SIZE, "a part of one buffer");
        // SAFETY: inside the region by the assertion; the kernel does not write to a buffer whose
        // id it has given to us, and `into` is memory of its own.
        unsafe {
            let from = self.memory.start.add(usize::from(id) * SIZE + start);
            ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len());
        }
    }

    /// Copies the first bytes of a buffer of ours into another one, to `at`.
    pub(super) fn append(&mut self, id: u8, at: usize, from: u8, length: usize) {
        assert!(id != from, "two buffers");
        assert!(at + length <= SIZE, "a part of one buffer");
        // SAFETY: inside the region by the assertions, and apart from each other; the kernel does
        // not touch buffers whose ids it has given to us.
        unsafe {
            let from = self.memory.start.add(usize::from(from) * SIZE);
            let into = self.memory.start.add(usize::from(id) * SIZE + at);
            ptr::copy_nonoverlapping(from, into, length);
        }
    }
}
