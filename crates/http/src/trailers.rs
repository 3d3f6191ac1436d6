//! The fields behind a request's body (RFC 9110 section 6.5), for whoever wants to pass them on.

use crate::exchange::Exchange;
use crate::headers::Headers;
use wire::http1::{BadChunk, ChunkDecoder, Field, TrailerParser};

/// A trailer section as far as it was received.
#[derive(Default)]
pub(crate) struct Section {
    parser: TrailerParser,
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// The section is none, or too long.
pub(crate) struct Bad;

impl From<BadChunk> for Bad {
    fn from(_: BadChunk) -> Bad {
        Bad
    }
}

impl Section {
    /// Takes more of it; how many bytes of `input` belong to it, once it is complete.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<Option<usize>, Bad> {
        let before = self.text.len();
        self.text.extend_from_slice(input);
        const MOST: usize = ChunkDecoder::TRAILER_LIMIT as usize;
        match self.parser.parse(&self.text, &mut self.fields)? {
            Some(length) if length <= MOST => {
                self.text.truncate(length);
                let name = |field: &Field| {
                    let from = field.name.at as usize;
                    self.text.get(from..from + field.name.len as usize).unwrap_or_default()
                };
                // Whoever gets them is to read them as we do.
                if !self.fields.iter().all(|field| name(field).iter().copied().all(is_token)) {
                    return Err(Bad);
                }
                Ok(Some(length.saturating_sub(before)))
            }
            None if self.text.len() <= MOST => Ok(None),
            _ => Err(Bad),
        }
    }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Exchange {
    /// Keeps the fields behind the body in `body.trailers`: before it is read.
    pub fn keep_trailers(&mut self) {
        self.body.keep_trailers();
    }

    /// The section is complete.
    pub(crate) fn has_trailers(&mut self, section: &Section) {
        let base = self.arena.push(&section.text).at;
        self.body.trailers = Headers::from_codec(&section.fields, base);
    }
}
