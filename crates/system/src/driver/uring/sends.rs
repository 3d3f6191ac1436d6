//! Bytes on their way into sockets: each send owns a copy of them until the kernel has taken
//! them all.

use std::io::IoSlice;
use std::mem;
use std::os::fd::RawFd;

/// Bytes that a send has room for at first.
const SMALL: usize = 1 << 10;
/// Memory that is kept for the next sends while few are under way.
const SPARE: usize = 128 << 10;

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
    /// Memory of former sends, and how much that is.
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// Those that are handed over with the next call, in order.
    queue: Vec<u16>,
}

impl Sends {
    pub(super) const fn new() -> Sends {
        Sends { all: Vec::new(), free: END, spare: Vec::new(), spare_bytes: 0, queue: Vec::new() }
    }

    pub(super) fn memory(&self) -> usize {
        self.all.capacity() * size_of::<Send>()
            + self.queue.capacity() * size_of::<u16>()
            + self.all.iter().map(|send| send.bytes.capacity()).sum::<usize>()
            + self.spare.capacity() * size_of::<Vec<u8>>()
            + self.spare_bytes
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
        send.bytes = match self.spare.pop() {
            Some(bytes) => {
                self.spare_bytes -= bytes.capacity();
                bytes
            }
            None => Vec::with_capacity(SMALL),
        };
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
        let mut bytes = mem::take(&mut send.bytes);
        if self.spare_bytes + bytes.capacity() <= SPARE {
            bytes.clear();
            self.spare_bytes += bytes.capacity();
            self.spare.push(bytes);
        }
        send.taken = 0;
        (send.last, send.given_up) = (false, false);
        send.state = Stage::Free;
        send.serial = send.serial.wrapping_add(1);
        send.next = free;
        self.free = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_sends_leaves_little_memory_behind() {
        let mut sends = Sends::new();
        let bytes = [7; 3000];
        let crowd = |sends: &mut Sends, count: usize, length: usize| {
            let begin = |_| sends.begin(0, &[IoSlice::new(&bytes[..length])], 0, 0).unwrap();
            let begun: Vec<u16> = (0..count).map(begin).collect();
            sends.clear_queue();
            begun.into_iter().for_each(|send| sends.end(send));
        };
        for (count, length) in [(1000, 200), (500, 3000), (40, 200), (1000, 900)] {
            crowd(&mut sends, count, length);
            assert_eq!(sends.all.iter().map(|send| send.bytes.capacity()).sum::<usize>(), 0);
            assert_eq!(sends.spare.iter().map(Vec::capacity).sum::<usize>(), sends.spare_bytes);
            assert!((SPARE / 2..=SPARE).contains(&sends.spare_bytes), "{count} of {length}");
        }
        // What is kept is used again.
        let before = sends.spare_bytes;
        let send = sends.begin(0, &[IoSlice::new(b"little")], 0, 0).unwrap();
        assert!(sends.spare_bytes < before);
        sends.withdraw(send);
        assert_eq!(sends.spare_bytes, before);
    }
}
