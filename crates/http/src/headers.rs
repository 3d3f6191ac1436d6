//! The one representation of header fields: a flat list of spans, order and case kept.
//!
//! Requests, upstream responses and our own responses use it alike, for every protocol version;
//! known names are small numbers, so that plans, variables and filters compare no strings.

use session::text::{Arena, Span};
use wire::http1::{Known, Slice};

/// One field line: where its name and value lie in the exchange's arena.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name as received; empty for a field that we made with a known name.
    pub name: Span,
    /// The value without surrounding white space.
    pub value: Span,
    /// Which name it is, when it is one that means something to us.
    pub known: Known,
}

impl Field {
    /// The field's name, in the case in which it is sent on.
    pub fn name<'a>(&self, arena: &'a Arena) -> &'a [u8] {
        match self.name.is_empty() {
            true => self.known.name().as_bytes(),
            false => arena.text(self.name),
        }
    }
}

/// A span of the same place as a codec's slice: heads start at offset 0 of their arena.
pub fn span(slice: Slice) -> Span {
    Span::new(slice.at, slice.len)
}

/// A list of fields.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    list: Vec<Field>,
    /// Which known names may be there: a bit may stand for two of them, and stays when its field
    /// goes. Most names that are asked for are not there, and need no look at the list.
    seen: u64,
}

#[inline]
fn bit(known: Known) -> u64 {
    1 << (known as u8 % 64)
}

impl Headers {
    /// A list with room for a browser's head.
    pub fn with_room() -> Headers {
        Headers { list: Vec::with_capacity(16), seen: 0 }
    }

    /// Takes over what a codec found; `base` is where the head's first byte lies in the arena.
    pub fn from_codec(fields: &[wire::http1::Field], base: u32) -> Headers {
        let moved = |s: Slice| Span::new(s.at + base, s.len);
        let mut seen = 0;
        let list = fields
            .iter()
            .map(|f| {
                seen |= bit(f.known);
                Field { name: moved(f.name), value: moved(f.value), known: f.known }
            })
            .collect();
        Headers { list, seen }
    }

    /// All fields in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// The field at a position.
    #[inline]
    pub fn get(&self, at: usize) -> Option<Field> {
        self.list.get(at).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first field with a known name.
    #[inline]
    pub fn find(&self, known: Known) -> Option<Field> {
        if self.seen & bit(known) == 0 {
            return None;
        }
        self.list.iter().find(|field| field.known == known).copied()
    }

    /// The value of the first field with a known name.
    #[inline]
    pub fn value(&self, known: Known) -> Option<Span> {
        self.find(known).map(|field| field.value)
    }

    /// All fields with a known name.
    pub fn all(&self, known: Known) -> impl Iterator<Item = Field> + '_ {
        let list = if self.seen & bit(known) == 0 { &[][..] } else { &self.list };
        list.iter().filter(move |field| field.known == known).copied()
    }

    /// The first field of that name, whatever it is; case does not matter.
    pub fn named<'a>(&'a self, arena: &'a Arena, name: &'a [u8]) -> Option<Field> {
        self.all_named(arena, name).next()
    }

    /// All fields of that name; case does not matter.
    pub fn all_named<'a>(
        &'a self,
        arena: &'a Arena,
        name: &'a [u8],
    ) -> impl Iterator<Item = Field> + 'a {
        self.list.iter().filter(move |f| f.name(arena).eq_ignore_ascii_case(name)).copied()
    }

    /// Appends a field with a known name in its canonical case.
    pub fn push_known(&mut self, known: Known, value: Span) {
        self.push(Field { name: Span::EMPTY, value, known });
    }

    /// Appends a field as it stands.
    pub fn push(&mut self, field: Field) {
        self.seen |= bit(field.known);
        self.list.push(field);
    }

    /// Replaces the first field of that known name, or appends it.
    pub fn set_known(&mut self, known: Known, value: Span) {
        match self.list.iter_mut().find(|field| field.known == known) {
            Some(field) => field.value = value,
            None => self.push_known(known, value),
        }
    }

    /// Removes every field of that known name.
    pub fn remove(&mut self, known: Known) {
        if self.seen & bit(known) == 0 {
            return;
        }
        self.list.retain(|field| field.known != known);
    }

    /// Keeps the fields for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&Field) -> bool) {
        self.list.retain(keep);
    }

    /// Forgets all fields.
    pub fn clear(&mut self) {
        self.list.clear();
        self.seen = 0;
    }
}
