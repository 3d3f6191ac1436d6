//! A body as it arrives on a stream of HTTP/2, whose window bounds it.

use crate::buffer::{Block, Chunk};
use std::collections::VecDeque;

/// Pieces shorter than this are copied together, so that a piece of a byte does not keep a whole
/// buffer from the pool.
const SMALL: usize = 4096;
/// The size of the blocks that they are copied into.
const JOINED: usize = 8192;

/// What was received of a body and is not read yet.
#[derive(Default)]
pub struct Inbox {
    pieces: VecDeque<Chunk>,
    /// Behind all pieces: small ones, copied together.
    tail: Option<Block>,
    bytes: usize,
    /// The last byte is here.
    pub ended: bool,
}

impl Inbox {
    /// Nothing yet; `ended`: and nothing to come.
    pub fn new(ended: bool) -> Inbox {
        Inbox { ended, ..Inbox::default() }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True when none do.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds a part of a buffer.
    pub fn push(&mut self, piece: Chunk) {
        self.bytes += piece.len();
        if piece.len() >= SMALL {
            self.close_tail();
            self.pieces.push_back(piece);
            return;
        }
        let mut rest: &[u8] = &piece;
        while !rest.is_empty() {
            let tail = self.tail.get_or_insert_with(|| Block::lend(JOINED));
            rest = &rest[tail.append(rest)..];
            if tail.is_full() {
                self.close_tail();
            }
        }
    }

    fn close_tail(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.pieces.push_back(tail.freeze());
        }
    }

    /// Everything, if it is one piece.
    pub fn take_only(&mut self) -> Option<Chunk> {
        match self.pieces.is_empty() || (self.pieces.len() == 1 && self.tail.is_none()) {
            true => self.pop(usize::MAX),
            false => None,
        }
    }

    /// The next piece, of at most `size` bytes.
    pub fn pop(&mut self, size: usize) -> Option<Chunk> {
        if self.pieces.is_empty() {
            self.close_tail();
        }
        let first = self.pieces.front_mut()?;
        let piece = match first.len() > size {
            true => first.split_to(size),
            false => self.pieces.pop_front()?,
        };
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Inbox::new(self.ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_share_a_buffer_and_keep_their_order() {
        let big = Chunk::copy_of(&[b'b'; SMALL]);
        let mut inbox = Inbox::default();
        for _ in 0..3 {
            inbox.push(Chunk::copy_of(b"a"));
        }
        inbox.push(big.clone());
        inbox.push(Chunk::copy_of(b"c"));
        assert_eq!((inbox.len(), inbox.pieces.len()), (SMALL + 4, 2));
        assert_eq!(inbox.pop(2).as_deref(), Some(&b"aa"[..]));
        assert_eq!(inbox.pop(99).as_deref(), Some(&b"a"[..]));
        assert_eq!(inbox.pop(SMALL).as_deref(), Some(&*big));
        assert_eq!(inbox.pop(99).as_deref(), Some(&b"c"[..]));
        assert_eq!((inbox.pop(99).is_none(), inbox.len()), (true, 0));
    }
}
