//! The text of one conversation: a growable arena and the spans that point into it.
//!
//! Everything a request says, and everything computed for it, lies in one byte vector: the head
//! as received comes first, computed values are appended. A [`Span`] is a plain pair of numbers,
//! so it can be copied, kept in lists and logged long after parsing, without lifetimes and
//! without an allocation per value. Vectors are pooled per worker; see also `variables`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;

/// A piece of an [`Arena`]: offset and length in bytes. Copying it copies no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte in the arena.
    pub at: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// The empty span; valid in every arena.
    pub const EMPTY: Span = Span { at: 0, len: 0 };

    /// A span of `len` bytes at `at`.
    pub const fn new(at: u32, len: u32) -> Span {
        Span { at, len }
    }

    /// True when no byte is covered.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The part from `from` to `to`, both relative to this span and clipped to it.
    pub fn part(self, from: usize, to: usize) -> Span {
        let to = to.min(self.len as usize);
        let from = from.min(to);
        Span { at: self.at + from as u32, len: (to - from) as u32 }
    }

    /// The part from `from` to the end, relative to this span.
    pub fn after(self, from: usize) -> Span {
        self.part(from, self.len as usize)
    }

    fn range(self) -> std::ops::Range<usize> {
        self.at as usize..self.at as usize + self.len as usize
    }
}

/// Vectors larger than this are freed rather than pooled.
const POOLED_CAPACITY: usize = 64 * 1024;
/// How many vectors a worker keeps ready.
const POOLED_COUNT: usize = 512;
/// What a fresh vector has room for: a browser's head and the values computed for it.
const FRESH_CAPACITY: usize = 2048;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

/// Bytes of text that this worker's live arenas hold, by capacity at the time they were lent.
pub fn lent_arenas() -> usize {
    LENT.get()
}

/// The byte vector behind one request's text.
pub struct Arena {
    bytes: Vec<u8>,
}

impl Default for Arena {
    fn default() -> Arena {
        Arena::new()
    }
}

impl Arena {
    /// An empty arena, from the worker's pool when one is there.
    pub fn new() -> Arena {
        LENT.set(LENT.get() + 1);
        let pooled = POOL.with_borrow_mut(Vec::pop);
        Arena { bytes: pooled.unwrap_or_else(|| Vec::with_capacity(FRESH_CAPACITY)) }
    }

    /// An empty arena that takes no memory before there is text: for what may last for hours and
    /// has little to say.
    pub fn lean() -> Arena {
        LENT.set(LENT.get() + 1);
        Arena { bytes: Vec::new() }
    }

    /// The text of `span`; empty when the span does not lie in this arena.
    pub fn text(&self, span: Span) -> &[u8] {
        self.bytes.get(span.range()).unwrap_or(b"")
    }

    /// Like [`Arena::text`], writable: for rewriting a value in place.
    pub fn text_mut(&mut self, span: Span) -> &mut [u8] {
        self.bytes.get_mut(span.range()).unwrap_or_default()
    }

    /// How many bytes are in use.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when nothing was stored yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that this arena occupies.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends `text`.
    pub fn push(&mut self, text: &[u8]) -> Span {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        Span { at, len: text.len() as u32 }
    }

    /// Appends formatted text, as `arena.format(format_args!("{}:{}", a, b))`.
    pub fn format(&mut self, text: fmt::Arguments<'_>) -> Span {
        use std::io::Write;
        let mark = self.mark();
        // Writing to a vector cannot fail.
        let _ = self.bytes.write_fmt(text);
        self.since(mark)
    }

    /// Appends a decimal number without going through the formatting machinery.
    pub fn number(&mut self, value: u64) -> Span {
        let mark = self.mark();
        push_number(&mut self.bytes, value);
        self.since(mark)
    }

    /// Appends an address as text; most are IPv4 and need no formatting machinery either.
    pub fn address(&mut self, address: IpAddr) -> Span {
        let IpAddr::V4(address) = address else { return self.format(format_args!("{address}")) };
        let mark = self.mark();
        let mut text = [0; 15];
        let mut at = 0;
        for (i, octet) in address.octets().into_iter().enumerate() {
            if i > 0 {
                text[at] = b'.';
                at += 1;
            }
            for (divisor, from) in [(100, 100), (10, 10), (1, 0)] {
                if octet >= from {
                    text[at] = b'0' + octet / divisor % 10;
                    at += 1;
                }
            }
        }
        self.bytes.extend_from_slice(&text[..at]);
        self.since(mark)
    }

    /// Where the next byte goes; pair it with [`Arena::since`].
    pub fn mark(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// What was appended since `mark`.
    pub fn since(&self, mark: u32) -> Span {
        Span { at: mark, len: (self.bytes.len() as u32).saturating_sub(mark) }
    }

    /// Appends a copy of text that is here already.
    pub fn copy(&mut self, span: Span) -> Span {
        let mark = self.mark();
        let range = span.range();
        if range.end <= self.bytes.len() {
            self.bytes.extend_from_within(range);
        }
        self.since(mark)
    }

    /// The vector itself, for writers that append (escapes, templates).
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Everything stored so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A second arena with the same text, so that spans keep their meaning (subrequests).
    pub fn duplicate(&self) -> Arena {
        let mut copy = Arena::new();
        copy.bytes.extend_from_slice(&self.bytes);
        copy
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        LENT.set(LENT.get().saturating_sub(1));
        let mut bytes = std::mem::take(&mut self.bytes);
        // Small ones would have to grow for the next request.
        if !(FRESH_CAPACITY..=POOLED_CAPACITY).contains(&bytes.capacity()) {
            return;
        }
        bytes.clear();
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED_COUNT {
                pool.push(bytes);
            }
        });
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("len", &self.bytes.len()).finish()
    }
}

/// Appends `value` in decimal.
pub fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_their_text_while_the_arena_grows() {
        let mut arena = Arena::new();
        let host = arena.push(b"example.org");
        let number = arena.number(18446744073709551615);
        let zero = arena.number(0);
        let joined = arena.format(format_args!("{}-{}", 1, "x"));
        let copy = arena.copy(host);
        for _ in 0..1000 {
            arena.push(b"filler");
        }
        assert_eq!(arena.text(host), b"example.org");
        assert_eq!(arena.text(number), b"18446744073709551615");
        assert_eq!(arena.text(zero), b"0");
        assert_eq!(arena.text(joined), b"1-x");
        assert_eq!(arena.text(copy), b"example.org");
        assert_eq!(arena.text(host.part(8, 99)), b"org");
        assert_eq!(arena.text(host.after(8)), b"org");
        assert_eq!(arena.text(Span::new(1 << 30, 5)), b"");
    }

    #[test]
    fn addresses_look_as_everywhere() {
        let mut arena = Arena::new();
        let texts = ["0.0.0.0", "1.20.255.100", "127.0.0.1", "9.10.99.109", "::1", "2001:db8::a"];
        for text in texts {
            let span = arena.address(text.parse().unwrap());
            assert_eq!(arena.text(span), text.as_bytes());
        }
    }

    #[test]
    fn a_dropped_arena_comes_back_empty() {
        let mut arena = Arena::new();
        arena.push(b"secret");
        drop(arena);
        assert!(Arena::new().is_empty());
    }
}
