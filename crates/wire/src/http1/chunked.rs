//! The chunked transfer coding (RFC 9112 section 7.1), decoded in place.
//!
//! ```text
//! START -> SIZE -+-> (PADDING | EXTENSION) -+-> CR LF -+- size > 0 -> DATA -> CR LF -> START
//!                +--------------------------+          +- size = 0 -> TRAILERS -> CR LF -> DONE
//! ```
//!
//! The decoder never copies: it says how many bytes of framing to skip and how many bytes of data
//! follow. It is stricter than nginx where readers are known to differ: a chunk line ends in CR LF
//! and nothing else, an extension begins with `;`, holds no control characters and is bounded, and
//! a trailer line is a field line.

use super::fault::FieldFault;
use super::fields::{FieldScanner, Peer, Rules};
use super::{BadRequestKind, Field};

/// What becomes of the trailer section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trailers {
    /// Checked and skipped; the body is done after its empty line.
    #[default]
    Skip,
    /// Left in the input: the body is done in front of it, [`TrailerParser`] reads on.
    Keep,
}

/// One step of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkEvent {
    /// After `skip` bytes of framing, `take` (at least 1) bytes of data. Decode on behind them.
    Data { skip: usize, take: usize },
    /// All of the input was framing: `consumed` is its length.
    NeedMore { consumed: usize },
    /// The body ended `consumed` bytes into the input; what follows is the next message.
    Done { consumed: usize },
}

/// A body that is not validly chunked. The connection's framing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk {
    pub kind: BadChunkKind,
    /// Offset of the offending byte in the input of this call.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChunkKind {
    /// No hexadecimal digit where a size must begin, or a foreign byte behind the digits.
    InvalidSize,
    /// More than `i64::MAX` bytes in one chunk.
    SizeTooLarge,
    /// A control character, or a line end other than CR LF, in an extension.
    InvalidExtension,
    /// Chunk lines are out of proportion to the data that they announce.
    TooMuchFraming,
    /// A CR without LF, or a LF without CR, or chunk data longer than its size.
    MissingCrLf,
    InvalidTrailer,
    /// A trailer section of more than [`ChunkDecoder::TRAILER_LIMIT`] bytes.
    TrailerTooLarge,
}

impl BadChunk {
    /// nginx's words for a request body (400).
    pub const CLIENT_MESSAGE: &'static str = "client sent invalid chunked body";
    /// nginx's words for a response body.
    pub const UPSTREAM_MESSAGE: &'static str = "upstream sent invalid chunked response";
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Size,
    Padding,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// A resumable decoder of one chunked body.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkDecoder {
    state: State,
    trailers: Trailers,
    /// Spaces between a size and the line's end pass: old servers pad their sizes.
    padded: bool,
    /// Bytes of the current chunk that are still to come.
    size: u64,
    /// Bytes in the current chunk line, or in the trailer section.
    line: u32,
    /// Chunk-line bytes beyond what the data so far justifies.
    excess: u32,
}

impl ChunkDecoder {
    /// What becomes of trailers from now on; of no effect within them.
    pub fn set_trailers(&mut self, trailers: Trailers) {
        self.trailers = trailers;
    }

    /// Most bytes of a trailer section that is skipped.
    pub const TRAILER_LIMIT: u32 = 16 * 1024;
    /// Most bytes by which chunk lines may outgrow the data: each chunk pays for 16 bytes of its
    /// line and two more for every byte of data, so that signatures in extensions of large chunks
    /// pass for ever and a stream of one-byte chunks with long extensions does not.
    pub const EXCESS_LIMIT: u32 = 16 * 1024;

    /// A decoder for a request's body.
    pub fn for_request(trailers: Trailers) -> ChunkDecoder {
        ChunkDecoder { trailers, ..ChunkDecoder::default() }
    }

    /// A decoder for a response's body; it lets spaces pass between a size and its CR LF.
    pub fn for_response(trailers: Trailers) -> ChunkDecoder {
        ChunkDecoder { trailers, padded: true, ..ChunkDecoder::default() }
    }

    /// Takes one step into `input`, which continues where the previous call's answer ended.
    ///
    /// # Errors
    /// The first fault; a body that was refused must not be decoded further.
    pub fn decode(&mut self, input: &[u8]) -> Result<ChunkEvent, BadChunk> {
        let mut at = 0;
        loop {
            if self.state == State::Data {
                let there = input.len() - at;
                if there == 0 {
                    return Ok(ChunkEvent::NeedMore { consumed: at });
                }
                let take = usize::try_from(self.size).map_or(there, |size| size.min(there));
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return Ok(ChunkEvent::Data { skip: at, take });
            }
            if self.state == State::Done {
                return Ok(ChunkEvent::Done { consumed: at });
            }
            let Some(&byte) = input.get(at) else {
                return Ok(ChunkEvent::NeedMore { consumed: at });
            };
            self.step(byte).map_err(|kind| BadChunk { kind, at })?;
            at += 1;
        }
    }

    /// True when the body and, unless kept, its trailer section are complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data that the current chunk still holds: known as soon as its line was read, so
    /// that a body limit can be enforced before the data comes.
    pub fn announced(&self) -> u64 {
        if self.state == State::Data { self.size } else { 0 }
    }

    /// Least number of bytes still to come, down to the empty line that ends the body: a reader
    /// that asks for no more than these never reads into the next message.
    pub fn least_remaining(&self) -> u64 {
        const LAST: u64 = 5; // 0 CR LF CR LF
        let line_done = if self.size > 0 { self.size + 2 + LAST } else { 2 };
        match self.state {
            State::Start => LAST,
            State::Size | State::Padding | State::Extension => 2 + line_done,
            State::SizeLf => 1 + line_done,
            State::Data => line_done,
            State::DataCr => 2 + LAST,
            State::DataLf => 1 + LAST,
            State::TrailerStart => 2,
            State::TrailerName | State::TrailerValue => 4,
            State::TrailerLf => 3,
            State::EndLf => 1,
            State::Done => 0,
        }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<(), BadChunkKind> {
        match self.state {
            State::Start | State::Size | State::Padding | State::Extension | State::SizeLf => {
                self.chunk_line(byte)
            }
            State::DataCr | State::DataLf => {
                let (wanted, next) = match self.state {
                    State::DataCr => (b'\r', State::DataLf),
                    _ => (b'\n', State::Start),
                };
                if byte != wanted {
                    return Err(BadChunkKind::MissingCrLf);
                }
                self.state = next;
                Ok(())
            }
            _ => self.trailer_byte(byte),
        }
    }

    fn chunk_line(&mut self, byte: u8) -> Result<(), BadChunkKind> {
        self.line += 1;
        if self.line > Self::EXCESS_LIMIT {
            return Err(BadChunkKind::TooMuchFraming);
        }
        self.state = match (self.state, byte) {
            (State::Start | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.state == State::Start {
                    self.size = 0;
                }
                // Proof that the digit is one: the pattern above.
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                if self.size > i64::MAX as u64 / 16 {
                    return Err(BadChunkKind::SizeTooLarge);
                }
                self.size = self.size * 16 + u64::from(digit);
                if self.size > i64::MAX as u64 - 9 {
                    return Err(BadChunkKind::SizeTooLarge);
                }
                State::Size
            }
            (State::Size | State::Padding, b' ' | b'\t') => State::Padding,
            (State::Size | State::Padding, b';') => State::Extension,
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Padding, b'\r') if self.padded => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => State::Extension,
            (State::Extension, _) => return Err(BadChunkKind::InvalidExtension),
            (State::SizeLf, b'\n') => return self.end_chunk_line(),
            (State::SizeLf, _) => return Err(BadChunkKind::MissingCrLf),
            _ => return Err(BadChunkKind::InvalidSize),
        };
        Ok(())
    }

    /// The line of a chunk is complete: settles its account and decides what follows.
    fn end_chunk_line(&mut self) -> Result<(), BadChunkKind> {
        let earned = self.size.saturating_mul(2).saturating_add(16);
        let owed = u64::from(self.excess) + u64::from(self.line);
        self.excess = owed.saturating_sub(earned) as u32;
        if self.excess > Self::EXCESS_LIMIT {
            return Err(BadChunkKind::TooMuchFraming);
        }
        self.line = 0;
        self.state = match (self.size, self.trailers) {
            (1.., _) => State::Data,
            (0, Trailers::Skip) => State::TrailerStart,
            (0, Trailers::Keep) => State::Done,
        };
        Ok(())
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<(), BadChunkKind> {
        self.line += 1;
        if self.line > Self::TRAILER_LIMIT {
            return Err(BadChunkKind::TrailerTooLarge);
        }
        self.state = match (self.state, byte) {
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerName, b':') => State::TrailerValue,
            // The bytes of a name; neither a space nor a control.
            (State::TrailerStart | State::TrailerName, b'!'..=b'9' | b';'..=b'~' | 0x80..) => {
                State::TrailerName
            }
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, 0 | b'\n') => return Err(BadChunkKind::InvalidTrailer),
            (State::TrailerValue, _) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            (State::TrailerLf | State::EndLf, _) => return Err(BadChunkKind::MissingCrLf),
            _ => return Err(BadChunkKind::InvalidTrailer),
        };
        Ok(())
    }
}

/// A resumable parser of a trailer section that [`Trailers::Keep`] left in the input.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrailerParser {
    fields: FieldScanner,
}

impl TrailerParser {
    /// Reads on in `buf`, which starts at the section's first byte, and appends complete fields
    /// to `fields`; `Some(len)` when the section, with its empty line, is complete and `len`
    /// bytes long. At most 100 fields pass; the caller limits the bytes.
    ///
    /// # Errors
    /// A line that is no field line, or too many of them.
    pub fn parse(
        &mut self,
        buf: &[u8],
        fields: &mut Vec<Field>,
    ) -> Result<Option<usize>, BadChunk> {
        let rules = Rules { underscores: true, drop_invalid: false, max: 100, peer: Peer::Client };
        self.fields.scan(buf, &rules, fields).map_err(|FieldFault { kind, at, .. }| {
            let kind = match kind {
                BadRequestKind::TooManyFields => BadChunkKind::TrailerTooLarge,
                _ => BadChunkKind::InvalidTrailer,
            };
            BadChunk { kind, at }
        })
    }
}
