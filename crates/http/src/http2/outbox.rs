//! An answer's body on its way to the frames: a bounded queue per stream.

use net::{Block, Data, OutQueue};
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

    /// Moves from `out` what there is room for; files are read, for they are cut into frames.
    ///
    /// # Errors
    /// A file that cannot be read, or is shorter than announced.
    pub(super) fn fill(&mut self, out: &mut OutQueue) -> io::Result<()> {
        while self.bytes < ROOM {
            let Some(data) = out.pop(READ) else { break };
            let data = match data {
                Data::File(range) => {
                    let mut block = Block::lend(range.length as usize);
                    let room = range.length as usize;
                    while block.len() < room {
                        let at = range.offset + block.len() as u64;
                        let wanted = room - block.len();
                        let n = pread(&range.file, &mut block.spare()[..wanted], at)?;
                        if n == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        block.advance(n);
                    }
                    Data::from(block)
                }
                memory => memory,
            };
            self.bytes += data.len();
            self.pieces.push_back(data);
        }
        Ok(())
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
