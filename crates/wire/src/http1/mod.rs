//! HTTP/1 (RFC 9112): heads, body framing, targets, and the small grammars around them.
//!
//! A head is never copied: [`RequestParser`] and [`ResponseParser`] read a buffer that starts at
//! the head's first byte and may grow or move between calls, and hand out offsets ([`Slice`]).
//! The baseline is what nginx accepts and how it words a refusal; where nginx is laxer than
//! RFC 9112 in a way that lets two parsers disagree about a message's length, we refuse.
//!
//! | wanted | read |
//! |---|---|
//! | a request head | [`RequestParser`], then [`request_framing`] and [`request_host`] |
//! | a response head | [`ResponseParser`], then [`response_framing`] |
//! | a chunked body | [`ChunkDecoder`], and [`TrailerParser`] for its trailer section |
//! | a path, its query and extension; a host name; escaping | [`target`] |
//! | dates, ranges, entity tags | [`date`], [`range`], [`etag`] |
//! | lists of tokens, status texts | [`token`], [`status`] |

mod chunked;
pub mod date;
pub mod escape;
pub mod etag;
mod fault;
mod fields;
mod framing;
pub mod host;
mod known;
mod method;
pub mod range;
mod request;
mod response;
mod scan;
pub mod status;
pub mod target;
pub mod token;

pub use chunked::{BadChunk, BadChunkKind, ChunkDecoder, ChunkEvent, TrailerParser, Trailers};
pub use fault::{BadRequest, BadRequestKind, BadResponse, BadResponseKind};
pub use framing::{
    Framing, ResponseFraming, content_length, request_framing, request_host, response_framing,
};
pub use host::{Authority, validate_host};
pub use known::Known;
pub use method::Method;
pub use request::{Form, Options, Parsed, RequestLine, RequestParser};
pub use response::{ParsedResponse, ResponseParser, StatusLine};

/// A run of bytes inside a head: offset of the first byte, and length, both in bytes.
///
/// Offsets count from the head's first byte, so a slice stays true when the buffer moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    pub at: u32,
    pub len: u32,
}

impl Slice {
    /// The run from `at` up to, not including, `end`; empty when `end` lies before `at`.
    #[inline]
    pub fn between(at: usize, end: usize) -> Slice {
        Slice { at: at as u32, len: end.saturating_sub(at) as u32 }
    }

    /// Offset just past the last byte.
    #[inline]
    pub fn end(self) -> usize {
        self.at as usize + self.len as usize
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The bytes themselves; empty when `head` is not the buffer that this slice was cut from
    /// and is too short for it.
    #[inline]
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.at as usize..self.end()).unwrap_or(&[])
    }
}

/// One field line (RFC 9112 section 5): name, value without surrounding whitespace, and the
/// name's number when it is one that a server treats specially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Slice,
    pub value: Slice,
    pub known: Known,
}

/// An HTTP version. Minor versions above 1 are delivered as 1, as RFC 9110 section 2.5 asks;
/// 0.9 stands for a request line without a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u8,
    pub minor: u8,
}

impl Version {
    pub const HTTP_09: Version = Version { major: 0, minor: 9 };
    pub const HTTP_10: Version = Version { major: 1, minor: 0 };
    pub const HTTP_11: Version = Version { major: 1, minor: 1 };
}

/// The first field with this known name, if any.
pub fn find(fields: &[Field], known: Known) -> Option<&Field> {
    fields.iter().find(|field| field.known == known)
}
