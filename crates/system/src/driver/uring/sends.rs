//! Bytes on their way into sockets: each send owns a copy of them until the kernel has taken
//! them all.

use std::io::IoSlice;
use std::os::fd::RawFd;

/// Sends whose memory is kept for the next ones, when they are as small as most are.
const KEPT: usize = 512;
const SMALL: usize = 1 << 10;
/// Sends whose memory is kept whatever their size.
const KEPT_LARGE: usize = 32;

/// End of the free list, and the bound of indices.
const END: u16 = u16::MAX;

pub(super) struct Send {
    bytes: Vec<u8>,
    /// How many of them the kernel has taken.
    taken: usize,
    /// The source, and its generation, to be told.
    pub(super) source: u32,
    pub(super) generation: u32,
    /// Tells this send from later ones in the same place.
    pub(super) serial: u32,
    pub(super) fd: RawFd,
    /// The descriptor is this send's, and to be closed after it: nothing follows.
    pub(super) last: bool,
    /// Its time is over: what is not sent by now is dropped.
    pub(super) given_up: bool,
    state: Stage,
    /// For a free send the next free index.
    next: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Free,
    /// Not handed over yet: more can be added.
    Queued,
    /// The kernel reads the bytes: they must stay where they are.
    Flying,
}

impl Send {
    /// What is still to be sent.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Counts `n` bytes as taken; whether that was all.
    pub(super) fn advance(&mut self, n: usize) -> bool {
        self.taken = (self.taken + n).min(self.bytes.len());
        self.taken == self.bytes.len()
    }
}

pub(super) struct Sends {
    all: Vec<Send>,
    free: u16,
    /// Those that are handed over with the next call, in order.
    queue: Vec<u16>,
}

impl Sends {
    pub(super) const fn new() -> Sends {
        Sends { all: Vec::new(), free: END, queue: Vec::new() }
    }

    pub(super) fn memory(&self) -> usize {
        self.all.capacity() * size_of::<Send>()
            + self.queue.capacity() * size_of::<u16>()
            + self.all.iter().map(|send| send.bytes.capacity()).sum::<usize>()
    }

    /// Queues a copy of `parts`; the index names it until [`Sends::end`]. None: there are too many.
    #[inline]
    pub(super) fn begin(
        &mut self,
        fd: RawFd,
        parts: &[IoSlice<'_>],
        source: u32,
        generation: u32,
    ) -> Option<u16> {
        let index = self.free;
        let index = if index == END {
            if self.all.len() >= usize::from(END) {
                return None;
            }
            self.all.push(Send {
                bytes: Vec::new(),
                taken: 0,
                source: 0,
                generation: 0,
                serial: 0,
                fd,
                last: false,
                given_up: false,
                state: Stage::Free,
                next: END,
            });
            self.all.len() as u16 - 1
        } else {
            self.free = self.all[usize::from(index)].next;
            index
        };
        let send = &mut self.all[usize::from(index)];
        (send.source, send.generation, send.fd) = (source, generation, fd);
        send.state = Stage::Queued;
        self.queue.push(index);
        self.append(index, parts);
        Some(index)
    }

    /// Adds to a queued send.
    #[inline]
    pub(super) fn append(&mut self, index: u16, parts: &[IoSlice<'_>]) {
        let send = &mut self.all[usize::from(index)];
        debug_assert!(send.state == Stage::Queued, "the kernel has the bytes");
        if send.bytes.capacity() == 0 {
            send.bytes.reserve_exact(SMALL);
        }
        for part in parts {
            send.bytes.extend_from_slice(part);
        }
    }

    /// How many bytes a send has, if more can be added.
    pub(super) fn queued(&self, index: u16) -> Option<usize> {
        let send = self.all.get(usize::from(index))?;
        (send.state == Stage::Queued).then_some(send.bytes.len())
    }

    /// The next queued send, whose bytes stay where they are from now on.
    #[inline]
    pub(super) fn next(&mut self, at: usize) -> Option<u16> {
        let index = *self.queue.get(at)?;
        self.all[usize::from(index)].state = Stage::Flying;
        Some(index)
    }

    /// All that was queued is handed over.
    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
    }

    /// Takes a send back that was not handed over yet.
    pub(super) fn withdraw(&mut self, index: u16) {
        self.queue.retain(|queued| *queued != index);
        self.end(index);
    }

    /// The send under way at `index`.
    #[inline]
    pub(super) fn get(&mut self, index: u16) -> Option<&mut Send> {
        self.all.get_mut(usize::from(index)).filter(|send| send.state != Stage::Free)
    }

    /// Frees the place: the kernel no longer uses the bytes.
    #[inline]
    pub(super) fn end(&mut self, index: u16) {
        let free = self.free;
        let send = &mut self.all[usize::from(index)];
        let kept = if send.bytes.capacity() <= SMALL { KEPT } else { KEPT_LARGE };
        if usize::from(index) >= kept {
            send.bytes = Vec::new();
        }
        send.bytes.clear();
        send.taken = 0;
        (send.last, send.given_up) = (false, false);
        send.state = Stage::Free;
        send.serial = send.serial.wrapping_add(1);
        send.next = free;
        self.free = index;
    }
}
