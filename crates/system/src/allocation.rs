//! Allocators: [`Pooled`] keeps small pieces of memory for the next request, [`Counting`] counts,
//! for tests which hold that a path allocates nothing.
//!
//! ```
//! use system::allocation::{Counting, count};
//!
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//!
//! let before = count();
//! drop(Box::new(1u64));
//! assert_eq!(count() - before, 1);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr;

thread_local! {
    // Without a destructor, so that it can be used for as long as a thread allocates.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has asked [`Counting`] for memory: new or larger pieces, not freed ones.
pub fn count() -> u64 {
    COUNT.get()
}

/// The system's allocator, counting.
pub struct Counting;

// SAFETY: every call goes unchanged to the system's allocator, whose promises are the same; the
// counter neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the pointer came from `System` with this layout, as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Pieces are kept by size: up to `FINE` bytes in steps of 16 (24, 40, 56, ...: what the system's
/// allocator rounds to, so that nothing is lost by it), beyond it in steps of 128.
const FINE: usize = 1032;
const SMALLEST: usize = 24;
/// Larger pieces are the system's business.
const LARGEST: usize = FINE + 24 * 128;
const FINE_CLASSES: usize = (FINE - SMALLEST) / 16 + 1;
const CLASSES: usize = FINE_CLASSES + (LARGEST - FINE) / 128;
/// Bytes that are kept of each size.
const KEPT: usize = 512 << 10;

/// The size class of a layout, and the bytes of its pieces; none for what is not kept.
#[inline(always)]
fn class(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size();
    if size > LARGEST || layout.align() > 16 || size == 0 {
        return None;
    }
    if size <= FINE {
        let class = size.saturating_sub(SMALLEST).div_ceil(16);
        return Some((class, SMALLEST + class * 16));
    }
    let step = (size - FINE - 1) / 128;
    Some((FINE_CLASSES + step, FINE + (step + 1) * 128))
}

/// A free piece, whose memory holds the link to the next.
struct Free {
    next: *mut Free,
}

struct Shelf {
    first: *mut Free,
    count: u32,
}

struct Shelves([UnsafeCell<Shelf>; CLASSES]);

thread_local! {
    // Without a destructor, so that it can be used for as long as a thread allocates; a worker
    // has one thread, which lives as long as its memory.
    static SHELVES: Shelves = const {
        Shelves([const { UnsafeCell::new(Shelf { first: ptr::null_mut(), count: 0 }) }; CLASSES])
    };
}

/// The system's allocator, with a bounded number of freed pieces of each small size kept at hand.
///
/// A request asks for a dozen pieces of sizes that the last one has just freed. The system's
/// allocator is slow with those above 1 KiB, and not quick with the others.
pub struct Pooled;

// SAFETY: a piece is of the system's allocator, with the size of its class and the layout's
// alignment or more. It is either the caller's or on one shelf of one thread, which only that
// thread touches, and none of this allocates or unwinds.
unsafe impl GlobalAlloc for Pooled {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((class, size)) = class(layout) else {
            // SAFETY: the caller's promises about `layout` are passed on.
            return unsafe { System.alloc(layout) };
        };
        let kept = SHELVES.with(|shelves| {
            // SAFETY: this thread's, and nothing else borrows it here. A piece on the shelf is a
            // written `Free`.
            unsafe {
                let shelf = &mut *shelves.0[class].get();
                let first = shelf.first;
                if !first.is_null() {
                    shelf.first = (*first).next;
                    shelf.count -= 1;
                }
                first.cast::<u8>()
            }
        });
        if kept.is_null() { fresh(size) } else { kept }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some((class, size)) = class(layout) else {
            // SAFETY: pieces of this layout come from `System` unchanged.
            return unsafe { System.dealloc(pointer, layout) };
        };
        let kept = SHELVES.with(|shelves| {
            // SAFETY: this thread's, and nothing else borrows it here. The piece is the caller's
            // no longer, and large and aligned enough for a link: at least 16 bytes of each.
            unsafe {
                let shelf = &mut *shelves.0[class].get();
                if shelf.count as usize * size >= KEPT {
                    return false;
                }
                let piece: *mut Free = pointer.cast();
                piece.write(Free { next: shelf.first });
                shelf.first = piece;
                shelf.count += 1;
                true
            }
        });
        if !kept {
            release(pointer, size);
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if class(layout).is_none() {
            // SAFETY: the caller's promises about `layout` are passed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above; a piece is as long as its layout.
        unsafe {
            let piece = self.alloc(layout);
            if !piece.is_null() {
                piece.write_bytes(0, layout.size());
            }
            piece
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let wanted = Layout::from_size_align(size, layout.align());
        let (old, new) = (class(layout), wanted.ok().and_then(class));
        if old.is_none() && new.is_none() {
            // SAFETY: neither is kept, so both are `System`'s.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        if old == new {
            return pointer;
        }
        // SAFETY: `size` rounded up to the alignment does not overflow, as the caller promises;
        // both pieces are at least as long as what is copied, and apart from each other.
        unsafe {
            let other = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !other.is_null() {
                ptr::copy_nonoverlapping(pointer, other, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            other
        }
    }
}

/// A new piece of a class.
#[cold]
fn fresh(size: usize) -> *mut u8 {
    // SAFETY: the size is that of a class, hence neither 0 nor near the limit.
    unsafe { System.alloc(Layout::from_size_align_unchecked(size, 16)) }
}

/// Gives a piece of a class back to the system.
#[cold]
fn release(pointer: *mut u8, size: usize) {
    // SAFETY: `fresh` made it with this layout.
    unsafe { System.dealloc(pointer, Layout::from_size_align_unchecked(size, 16)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn classes_hold_their_sizes_and_follow_each_other() {
        let mut last = (usize::MAX, 0);
        for size in 1..=LARGEST {
            let (class, piece) = class(layout(size)).unwrap();
            assert!(piece >= size && class < CLASSES);
            assert!(size < SMALLEST || piece - size < if size <= FINE { 16 } else { 128 });
            if class != last.0 {
                assert_eq!((class, size), (last.0.wrapping_add(1), last.1 + 1));
            }
            last = (class, piece);
        }
        assert_eq!(last, (CLASSES - 1, LARGEST));
        let strange = [layout(0), layout(LARGEST + 1), Layout::from_size_align(64, 32).unwrap()];
        assert!(strange.into_iter().all(|layout| class(layout).is_none()));
    }

    #[test]
    fn the_same_piece_comes_back_and_surplus_ones_are_freed() {
        // SAFETY: each piece is used within its size, and freed once with its layout.
        unsafe {
            let piece = Pooled.alloc(layout(700));
            piece.write_bytes(7, 700);
            Pooled.dealloc(piece, layout(700));
            let again = Pooled.alloc(layout(698));
            assert_eq!(again, piece);
            let many: Vec<*mut u8> = (0..300).map(|_| Pooled.alloc(layout(3000))).collect();
            for piece in many {
                Pooled.dealloc(piece, layout(3000));
            }
            let (class, size) = class(layout(3000)).unwrap();
            let count = SHELVES.with(|shelves| (*shelves.0[class].get()).count);
            assert_eq!(count as usize, KEPT.div_ceil(size));
            Pooled.dealloc(again, layout(698));
        }
    }

    #[test]
    fn growing_and_shrinking_keeps_the_bytes() {
        // SAFETY: as above.
        unsafe {
            let mut size = 5;
            let mut piece = Pooled.alloc(layout(size));
            piece.copy_from(b"bytes".as_ptr(), 5);
            for next in [24, 25, 1032, 1033, 4104, 4105, 100_000, 4000, 40, 5] {
                piece = Pooled.realloc(piece, layout(size), next);
                size = next;
                assert_eq!(std::slice::from_raw_parts(piece, 5), b"bytes");
            }
            Pooled.dealloc(piece, layout(size));
            let zeroed = Pooled.alloc_zeroed(layout(5));
            assert_eq!(std::slice::from_raw_parts(zeroed, 5), [0; 5]);
            Pooled.dealloc(zeroed, layout(5));
        }
    }
}
