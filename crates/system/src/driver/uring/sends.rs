//! Bytes on their way into sockets: each send owns a copy of them until the kernel has taken
//! them all.

use std::io::IoSlice;

/// Sends whose memory is kept for the next ones.
const KEPT: usize = 512;

/// End of the free list.
const END: u32 = u32::MAX;

pub(super) struct Send {
    bytes: Vec<u8>,
    /// How many of them the kernel has taken.
    taken: usize,
    /// The source, and its generation, to be told; for a free send the next free index.
    pub(super) source: u32,
    pub(super) generation: u32,
    /// Tells this send from later ones in the same place.
    pub(super) serial: u32,
    busy: bool,
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
    free: u32,
}

impl Sends {
    pub(super) const fn new() -> Sends {
        Sends { all: Vec::new(), free: END }
    }

    pub(super) fn memory(&self) -> usize {
        self.all.capacity() * size_of::<Send>()
            + self.all.iter().map(|send| send.bytes.capacity()).sum::<usize>()
    }

    /// A send of a copy of `parts`; the index names it until [`Sends::end`].
    #[inline]
    pub(super) fn begin(&mut self, parts: &[IoSlice<'_>], source: u32, generation: u32) -> u32 {
        let index = self.free;
        let index = if index == END {
            self.all.push(Send {
                bytes: Vec::new(),
                taken: 0,
                source: END,
                generation: 0,
                serial: 0,
                busy: false,
            });
            self.all.len() as u32 - 1
        } else {
            self.free = self.all[index as usize].source;
            index
        };
        let send = &mut self.all[index as usize];
        for part in parts {
            send.bytes.extend_from_slice(part);
        }
        send.source = source;
        send.generation = generation;
        send.busy = true;
        index
    }

    /// The send under way at `index`.
    #[inline]
    pub(super) fn get(&mut self, index: u32) -> Option<&mut Send> {
        self.all.get_mut(index as usize).filter(|send| send.busy)
    }

    /// Frees the place: the kernel no longer uses the bytes.
    #[inline]
    pub(super) fn end(&mut self, index: u32) {
        let free = self.free;
        let send = &mut self.all[index as usize];
        if index as usize >= KEPT {
            send.bytes = Vec::new();
        }
        send.bytes.clear();
        send.taken = 0;
        send.busy = false;
        send.serial = send.serial.wrapping_add(1);
        send.source = free;
        self.free = index;
    }
}
