//! An answer's body on its way to the frames: a bounded queue per stream.
//!
//! A file is read when its turn to be sent has come and not before: many streams that wait hold no
//! copies of files, and what was read is still in the processor's cache when it is sent.

use net::{Block, Data, FileRange, OutQueue};
use rustix::io::pread;
use std::collections::VecDeque;
use std::io;

/// Bytes that a stream may have queued; the rest stays with its sender.
pub(super) const ROOM: u64 = 64 * 1024;
/// Bytes of a file that are read at a time.
const READ: u64 = 32 * 1024;

/// What a stream has to send.
#[derive(Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Data>,
    bytes: u64,
    /// Nothing follows what is queued.
    pub(super) ends: bool,
    /// An encoded header list that follows the body.
    pub(super) trailers: Option<Vec<u8>>,
    /// The last frame was made.
    pub(super) is_over: bool,
    /// What reading a file has met with; nothing is sent any more.
    failed: Option<io::Error>,
}

impl Outbox {
    /// True when a frame of body or of trailers can be made.
    pub(super) fn has_work(&self) -> bool {
        !self.is_over && (self.bytes > 0 || self.ends)
    }

    /// Bytes queued.
    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    /// Moves from `out` what there is room for.
    ///
    /// # Errors
    /// A file that could not be read, or was shorter than announced, told once.
    pub(super) fn fill(&mut self, out: &mut OutQueue) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while self.bytes < ROOM {
            let Some(mut data) = out.pop(READ) else { break };
            // Its turn comes when many others had theirs: big buffers are for them.
            data.compact();
            self.bytes += data.len();
            self.pieces.push_back(data);
        }
        Ok(())
    }

    /// Has the next `size` bytes in memory; false when that failed, which [`Outbox::fill`] tells.
    pub(super) fn load(&mut self, size: u64) -> bool {
        let mut ahead = 0;
        for data in &mut self.pieces {
            if ahead >= size {
                break;
            }
            ahead += data.len();
            let Data::File(range) = data else { continue };
            match read(range) {
                Ok(block) => *data = Data::from(block),
                Err(error) => {
                    self.clear();
                    self.failed = Some(error);
                    return false;
                }
            }
        }
        true
    }

    /// Takes the next bytes, at most `size`, as pieces.
    pub(super) fn take(&mut self, mut size: u64, mut give: impl FnMut(Data)) {
        while size > 0
            && let Some(mut data) = self.pieces.pop_front()
        {
            let length = data.len();
            if length > size {
                let front = data.split_to(size);
                self.pieces.push_front(data);
                self.bytes -= size;
                give(front);
                return;
            }
            size -= length;
            self.bytes -= length;
            give(data);
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Outbox { is_over: true, ..Outbox::default() };
    }
}

/// The bytes of a part of a file, all of them.
fn read(range: &FileRange) -> io::Result<Block> {
    let length = range.length as usize;
    let mut block = Block::lend(length);
    while block.len() < length {
        let at = range.offset + block.len() as u64;
        let wanted = length - block.len();
        let n = pread(&range.file, &mut block.spare()[..wanted], at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        block.advance(n);
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::rc::Rc;

    #[test]
    fn a_file_is_read_in_its_turn_and_what_went_wrong_is_told() {
        let file = Rc::new(memfd_create("outbox", MemfdFlags::CLOEXEC).unwrap());
        rustix::io::pwrite(&*file, &[b'f'; 40_000], 0).unwrap();
        let mut out = OutQueue::new();
        out.push(&b"head"[..]);
        out.push(FileRange { file: file.clone(), offset: 0, length: 40_000 });
        let mut outbox = Outbox::default();
        outbox.fill(&mut out).unwrap();
        assert_eq!((outbox.len(), out.len_bytes()), (40_004, 0));
        let files = |outbox: &Outbox| {
            outbox.pieces.iter().filter(|data| matches!(data, Data::File(_))).count()
        };
        assert!(outbox.load(4) && files(&outbox) == 2, "nothing of the file is due");
        assert!(outbox.load(10) && files(&outbox) == 1, "one part of it is due");
        let mut taken = Vec::new();
        outbox.take(10, |data| taken.extend_from_slice(data.bytes()));
        assert_eq!(taken, b"headffffff");
        ftruncate(&*file, 33_000).unwrap();
        assert!(!outbox.load(40_000) && !outbox.has_work());
        let error = outbox.fill(&mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_small_body_does_not_keep_a_big_buffer() {
        let mut block = Block::lend(32 << 10);
        block.append(b"small");
        let mut out = OutQueue::new();
        out.push(block);
        let mut outbox = Outbox::default();
        outbox.fill(&mut out).unwrap();
        let Some(Data::Memory(chunk)) = outbox.pieces.front() else { unreachable!() };
        assert!(chunk.capacity() <= 1024 && **chunk == *b"small");
    }
}
