//! HTTP/2 (RFC 9113) without I/O: frames, header compression, streams and their windows.
//!
//! [`Connection`] is one side of a connection, a server's or a client's. Bytes go in by
//! [`Connection::receive`], which gives one event at a time; what is to be sent collects in
//! `Connection::out`, in whole frames. Payloads of DATA are neither copied nor held: an event says
//! where they lie in the input, and for what is sent only the frame's head is written.
//!
//! | wanted | read |
//! |---|---|
//! | the state of a connection and of its streams | [`connection`] |
//! | frames and error codes | [`frame`] |
//! | header lists | [`hpack`], [`huffman`] |

pub mod connection;
pub mod frame;
pub mod hpack;
pub mod huffman;
mod streams;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Event, Fault, Role, Rules};
pub use frame::Code;

/// A decoded header list: fields in order, in one text.
#[derive(Clone, Debug, Default)]
pub struct HeaderList {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// Fields in the block, with those that were left out.
    total: usize,
}

/// Where name and value of a field lie: offset and length.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

impl HeaderList {
    /// Names and values in order; pseudo-header fields among them, as sent.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.part(field.name), self.part(field.value)))
    }

    /// True when the block had more fields than are kept.
    pub fn is_cut(&self) -> bool {
        self.total > self.fields.len()
    }

    /// How many fields are kept.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes of all names and values.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    fn part(&self, (at, len): (u32, u32)) -> &[u8] {
        self.text.get(at as usize..(at + len) as usize).unwrap_or_default()
    }

    fn add(&mut self, text: &[u8]) -> (u32, u32) {
        let at = self.text.len() as u32;
        self.text.extend_from_slice(text);
        (at, text.len() as u32)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.total = 0;
    }
}
