//! Buffers lent from a pool of the worker.
//!
//! ```text
//!  pool --lend--> Block (one owner, writable) --freeze--> Chunk (shared, immutable) --+
//!   ^               |                ^------try_unfreeze (last holder)----------------|
//!   +---- drop -----+---------------------------- drop of the last ------------------+
//! ```
//! A buffer and its reference count are one allocation, which the pool keeps: in the steady state
//! nothing is allocated, and nothing is zeroed after the first time. The pool keeps a bounded
//! number of bytes: a little at any time, and more while so much was lent at once lately. Buffers
//! above the largest class are made to measure and freed.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::rc::Rc;

use crate::memory::Usage;

/// Sizes of pooled buffers, in bytes.
const CLASSES: [usize; 9] =
    [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10];
/// Bytes that the pool keeps per class, however little was lent lately.
const RETAINED: usize = 2 << 20;
/// Bytes that the pool keeps per class at most, when as much was lent at once lately.
const CEILING: usize = 32 << 20;
/// How many returns of a class "lately" means: for one to two times as many.
const EPOCH: u32 = 4096;
/// A buffer is never larger: positions are 32 bits wide.
const LARGEST: usize = 1 << 30;

struct Pool {
    classes: [Class; CLASSES.len()],
    usage: Usage,
}

/// The buffers of one size.
struct Class {
    free: Vec<Rc<[u8]>>,
    /// How many are lent.
    lent: usize,
    /// The most that were lent at once in this epoch, and in the one before it.
    most: [usize; 2],
    /// Returns in this epoch.
    returns: u32,
}

impl Class {
    const EMPTY: Class = Class { free: Vec::new(), lent: 0, most: [0; 2], returns: 0 };

    fn take(&mut self) -> Option<Rc<[u8]>> {
        self.lent += 1;
        self.most[0] = self.most[0].max(self.lent);
        self.free.pop()
    }

    /// Takes one back, or lets it go; how many more bytes (or fewer) are kept now.
    fn give(&mut self, bytes: Rc<[u8]>) -> isize {
        let length = bytes.len();
        let before = self.free.len();
        self.lent -= 1;
        self.returns += 1;
        if before < self.room(length) {
            self.free.push(bytes);
        }
        if self.returns == EPOCH {
            self.returns = 0;
            self.most = [self.lent, self.most[0]];
            self.free.truncate(self.room(length));
        }
        (self.free.len() as isize - before as isize) * length as isize
    }

    /// How many to keep: what may be wanted at once, within bounds.
    fn room(&self, length: usize) -> usize {
        let wanted = self.most[0].max(self.most[1]).saturating_sub(self.lent);
        // The lengths of classes are powers of two, and dividing is slow.
        let shift = length.trailing_zeros();
        wanted.clamp(RETAINED >> shift, CEILING >> shift)
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool {
            classes: [Class::EMPTY; CLASSES.len()],
            usage: Usage { lent: 0, peak: 0, pooled: 0 },
        })
    };
}

pub(crate) fn usage() -> Usage {
    POOL.with_borrow(|pool| pool.usage)
}

/// The class for buffers of at least `size` bytes, if it is pooled.
#[inline]
fn class_for(size: usize) -> Option<usize> {
    let size = size.max(1);
    if size > CLASSES[CLASSES.len() - 1] {
        return None;
    }
    // 1..=1024 -> 0, 1025..=2048 -> 1, ...
    Some(((size - 1) >> 10).checked_ilog2().map_or(0, |log| log as usize + 1))
}

fn take(size: usize) -> Rc<[u8]> {
    let class = class_for(size);
    let length = class.map_or(size.min(LARGEST), |class| CLASSES[class]);
    let pooled = POOL.with_borrow_mut(|pool| {
        pool.usage.lent += length;
        pool.usage.peak = pool.usage.peak.max(pool.usage.lent);
        let found = class.and_then(|class| pool.classes[class].take());
        if found.is_some() {
            pool.usage.pooled -= length;
        }
        found
    });
    pooled.unwrap_or_else(|| std::iter::repeat_n(0, length).collect())
}

/// Takes back a buffer; only the last holder's counts.
#[inline]
fn give(bytes: Rc<[u8]>) {
    if Rc::strong_count(&bytes) != 1 {
        return;
    }
    let length = bytes.len();
    let class = class_for(length).filter(|class| CLASSES[*class] == length);
    // At the end of a thread the pool may be gone: then the buffer is simply freed.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        pool.usage.lent -= length;
        if let Some(class) = class {
            let more = pool.classes[class].give(bytes);
            pool.usage.pooled = pool.usage.pooled.wrapping_add_signed(more);
        }
    });
}

/// A buffer with one owner. It goes back to the pool when dropped.
pub struct Block {
    /// Present and unshared until `freeze` or drop takes it.
    bytes: Option<Rc<[u8]>>,
    filled: u32,
}

const _: () = assert!(size_of::<Block>() == 24 && size_of::<Chunk>() == 24);

impl Block {
    /// Borrows a block of at least `size` bytes (at most 1 GiB), empty.
    #[inline]
    pub fn lend(size: usize) -> Block {
        Block { bytes: Some(take(size)), filled: 0 }
    }

    /// A block just large enough for `bytes`, holding a copy of them.
    pub fn copy_of(bytes: &[u8]) -> Block {
        let mut block = Block::lend(bytes.len());
        block.append(bytes);
        block
    }

    /// Bytes that it can hold.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.bytes.as_deref().map_or(0, <[u8]>::len)
    }

    /// Bytes that it holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.filled as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Whether there is no room left.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// What was written.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        self.bytes.as_deref().and_then(|bytes| bytes.get(..self.len())).unwrap_or_default()
    }

    /// What was written, to be changed in place.
    #[inline]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let filled = self.len();
        self.all_mut().get_mut(..filled).unwrap_or_default()
    }

    /// The room behind what was written. Its content is arbitrary.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        let filled = self.len();
        self.all_mut().get_mut(filled..).unwrap_or_default()
    }

    #[inline]
    fn all_mut(&mut self) -> &mut [u8] {
        // Never shared (the Rc enters and leaves a block alone), so `get_mut` always succeeds.
        self.bytes.as_mut().and_then(Rc::get_mut).unwrap_or_default()
    }

    /// Counts `n` more bytes of the spare room as written; never more than there is.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.capacity() - self.len(), "advanced past the end of the block");
        self.filled = (self.len() + n).min(self.capacity()) as u32;
    }

    /// Appends what fits; returns how much that was.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = bytes.len().min(spare.len());
        spare[..n].copy_from_slice(&bytes[..n]);
        self.filled += n as u32;
        n
    }

    /// Keeps the first `n` bytes.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.filled = self.len().min(n) as u32;
    }

    /// Holds nothing again.
    #[inline]
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Removes the first `n` bytes and moves the rest to the front.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.len());
        let filled = self.len();
        self.all_mut().copy_within(n..filled, 0);
        self.filled -= n as u32;
    }

    /// Makes what was written shareable.
    #[inline]
    pub fn freeze(mut self) -> Chunk {
        Chunk { bytes: self.bytes.take(), start: 0, end: self.filled }
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            give(bytes);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Block({} of {})", self.len(), self.capacity())
    }
}

/// A part of a shared buffer. The buffer goes back to the pool with its last chunk.
#[derive(Default)]
pub struct Chunk {
    /// Absent only in an empty chunk without a buffer.
    bytes: Option<Rc<[u8]>>,
    start: u32,
    end: u32,
}

impl Chunk {
    /// A copy of `bytes` in a block of fitting size.
    pub fn copy_of(bytes: &[u8]) -> Chunk {
        if bytes.is_empty() { Chunk::default() } else { Block::copy_of(bytes).freeze() }
    }

    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Size of the buffer that this chunk keeps from the pool.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.bytes.as_deref().map_or(0, <[u8]>::len)
    }

    /// Whether nobody else holds a part of the buffer.
    #[inline]
    pub fn is_unique(&self) -> bool {
        self.bytes.as_ref().is_none_or(|bytes| Rc::strong_count(bytes) == 1)
    }

    /// A part of this chunk; positions beyond its end count as the end.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Chunk {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let length = self.len();
        let from = match range.start_bound() {
            Included(from) => *from,
            Excluded(before) => before.saturating_add(1),
            Unbounded => 0,
        };
        let to = match range.end_bound() {
            Included(last) => last.saturating_add(1),
            Excluded(to) => *to,
            Unbounded => length,
        };
        let to = to.min(length);
        let from = from.min(to);
        let (start, end) = (self.start + from as u32, self.start + to as u32);
        Chunk { bytes: self.bytes.clone(), start, end }
    }

    /// Drops the first `n` bytes (all when there are fewer).
    #[inline]
    pub fn advance(&mut self, n: usize) {
        self.start += n.min(self.len()) as u32;
    }

    /// Keeps the first `n` bytes.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.end = self.start + n.min(self.len()) as u32;
    }

    /// Cuts off the first `n` bytes (all when there are fewer) and returns them.
    pub fn split_to(&mut self, n: usize) -> Chunk {
        let head = self.slice(..n);
        self.advance(n);
        head
    }

    /// The buffer as a block that holds this chunk's bytes, at its front.
    ///
    /// # Errors
    /// The chunk itself while others share its buffer, or when it has none.
    pub fn try_unfreeze(mut self) -> Result<Block, Chunk> {
        if !self.is_unique() || self.bytes.is_none() {
            return Err(self);
        }
        let (start, length) = (self.start as usize, self.len());
        let mut block = Block { bytes: self.bytes.take(), filled: length as u32 };
        if start != 0 {
            block.all_mut().copy_within(start..start + length, 0);
        }
        Ok(block)
    }
}

impl Clone for Chunk {
    #[inline]
    fn clone(&self) -> Chunk {
        Chunk { bytes: self.bytes.clone(), start: self.start, end: self.end }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let range = self.start as usize..self.end as usize;
        self.bytes.as_deref().and_then(|bytes| bytes.get(range)).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Chunk {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Chunk {
    #[inline]
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            give(bytes);
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Chunk({} of {})", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_their_class() {
        fn check(size: usize, capacity: usize) {
            assert_eq!(Block::lend(size).capacity(), capacity, "{size}");
        }
        check(0, 1024);
        check(1, 1024);
        check(1024, 1024);
        check(1025, 2048);
        check(4096, 4096);
        check(40_000, 65_536);
        check(200_000, 262_144);
        check(262_145, 262_145);
    }

    #[test]
    fn a_block_is_written_and_frozen() {
        let mut block = Block::lend(1024);
        assert!(block.is_empty() && block.spare().len() == 1024);
        assert_eq!(block.append(b"hello world"), 11);
        block.filled_mut()[0] = b'J';
        block.consume(6);
        assert_eq!(block.filled(), b"world");
        block.spare()[..1].copy_from_slice(b"!");
        block.advance(1);
        assert_eq!(block.append(&[b'x'; 2000]), 1024 - 6);
        assert!(block.is_full());
        block.truncate(6);
        let chunk = block.freeze();
        assert_eq!(&*chunk, b"world!");
    }

    #[test]
    fn chunks_share_and_cut() {
        let mut chunk = Chunk::copy_of(b"0123456789");
        let other = chunk.clone();
        assert!(!chunk.is_unique());
        assert_eq!(&*chunk.slice(2..4), b"23");
        assert_eq!(&*chunk.slice(..=1), b"01");
        assert_eq!(&*chunk.slice(8..100), b"89");
        assert_eq!(&*chunk.slice(50..60), b"");
        assert_eq!(&*chunk.split_to(3), b"012");
        chunk.advance(2);
        chunk.truncate(3);
        assert_eq!(&*chunk, b"567");
        chunk.advance(50);
        assert!(chunk.is_empty());
        assert_eq!(&*other, b"0123456789");
        assert!(Chunk::copy_of(b"").try_unfreeze().is_err());
    }

    #[test]
    fn only_the_last_holder_gets_the_block_back() {
        let mut chunk = Chunk::copy_of(b"head and body");
        let other = chunk.clone();
        chunk.advance(9);
        chunk = chunk.try_unfreeze().unwrap_err();
        drop(other);
        let block = chunk.try_unfreeze().unwrap();
        assert_eq!(block.filled(), b"body");
        assert_eq!(block.capacity(), 1024);
    }

    #[test]
    fn buffers_return_and_are_accounted() {
        assert_eq!(usage(), Usage::default());
        let mut block = Block::lend(3000);
        block.append(b"mark");
        let first = block.spare().as_ptr();
        let chunk = block.freeze();
        let copy = chunk.slice(1..);
        drop(chunk);
        assert_eq!(usage(), Usage { lent: 4096, peak: 4096, pooled: 0 });
        drop(copy);
        assert_eq!(usage(), Usage { lent: 0, peak: 4096, pooled: 4096 });
        // The same memory comes back, unzeroed, and nothing is allocated.
        let mut again = Block::lend(4096);
        assert_eq!(&again.spare()[..4], b"mark");
        assert_eq!(again.spare()[4..].as_ptr(), first);
        assert_eq!(usage(), Usage { lent: 4096, peak: 4096, pooled: 0 });
        drop(again);
        // One made to measure is freed.
        drop(Block::lend(300_000));
        assert_eq!(usage(), Usage { lent: 0, peak: 300_000, pooled: 4096 });
    }

    #[test]
    fn the_pool_keeps_what_was_lent_at_once_lately() {
        let length = 64 << 10;
        let lend =
            |count: usize| -> Vec<Block> { (0..count).map(|_| Block::lend(length)).collect() };
        drop(lend(100));
        assert_eq!(usage(), Usage { lent: 0, peak: 100 * length, pooled: 100 * length });
        drop(lend(2 * CEILING / length));
        assert_eq!(usage().pooled, CEILING, "a bounded number of bytes");
        // Forgotten once two epochs passed with less.
        (0..2 * EPOCH).for_each(|_| drop(lend(1)));
        assert_eq!(usage().lent, 0);
        assert_eq!(usage().pooled, RETAINED);
    }
}
