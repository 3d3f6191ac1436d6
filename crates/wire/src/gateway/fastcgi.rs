//! FastCGI records (FastCGI Specification 1.0, sections 3 and 5).
//!
//! ```text
//! version type id(2) length(2) padding reserved | content | padding
//! ```

use std::ops::Range;

/// The one request of a connection.
const ID: u8 = 1;
const VERSION: u8 = 1;
/// Length of a record's header.
const HEADER: usize = 8;
/// Most bytes of content in a record.
pub const MOST: usize = 65_535;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// The record that begins a request; `keep`: the connection stays open behind it.
pub fn begin(keep: bool, out: &mut Vec<u8>) {
    const RESPONDER: u8 = 1;
    out.extend_from_slice(&header(BEGIN_REQUEST, 8));
    out.extend_from_slice(&[0, RESPONDER, u8::from(keep), 0, 0, 0, 0, 0]);
}

/// The parameters, given as [`push_parameter`] writes them, and their end.
pub fn parameters(list: &[u8], out: &mut Vec<u8>) {
    for part in list.chunks(MOST) {
        out.extend_from_slice(&header(PARAMS, part.len() as u16));
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&header(PARAMS, 0));
}

/// Appends a name and its value to a list of parameters.
pub fn push_parameter(name: &[u8], value: &[u8], list: &mut Vec<u8>) {
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short @ 0..=127) => list.push(short),
            _ => list.extend_from_slice(&(length as u32 | 1 << 31).to_be_bytes()),
        }
    }
    list.extend_from_slice(name);
    list.extend_from_slice(value);
}

/// The header of a record of the request's body; one of length 0 ends it.
pub fn body_header(length: u16) -> [u8; HEADER] {
    header(STDIN, length)
}

fn header(kind: u8, length: u16) -> [u8; HEADER] {
    let [high, low] = length.to_be_bytes();
    [VERSION, kind, 0, ID, high, low, 0, 0]
}

/// What a step of decoding found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part of the answer.
    Stdout(Range<usize>),
    /// A part of what the program complains about.
    Stderr(Range<usize>),
    /// The answer is complete; the request goes on to its end.
    StdoutEnd,
    /// The request is over.
    End,
    /// All of the input was used.
    NeedMore,
}

/// An answer that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    Version(u8),
    Id(u8),
    Kind(u8),
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bad::Version(byte) => {
                write!(f, "upstream sent unsupported FastCGI protocol version: {byte}")
            }
            Bad::Id(byte) => write!(f, "upstream sent unexpected FastCGI request id: {byte}"),
            Bad::Kind(byte) => write!(f, "upstream sent invalid FastCGI record type: {byte}"),
        }
    }
}

/// Takes records apart that come in pieces.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    /// Bytes of the header that were seen.
    seen: usize,
    /// Bytes of content and of padding still to come.
    content: usize,
    padding: usize,
}

impl Decoder {
    /// The next event from `at` on, which is moved behind it.
    ///
    /// # Errors
    /// A record that cannot be part of an answer.
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Event, Bad> {
        loop {
            let rest = input.len() - *at;
            if self.seen < HEADER {
                let taken = rest.min(HEADER - self.seen);
                self.header[self.seen..self.seen + taken].copy_from_slice(&input[*at..*at + taken]);
                self.seen += taken;
                *at += taken;
                if self.seen < HEADER {
                    return Ok(Event::NeedMore);
                }
                self.check()?;
                if self.content == 0 && self.header[1] == STDOUT {
                    return Ok(Event::StdoutEnd);
                }
                continue;
            }
            if self.content > 0 {
                if rest == 0 {
                    return Ok(Event::NeedMore);
                }
                let taken = rest.min(self.content);
                let range = *at..*at + taken;
                self.content -= taken;
                *at += taken;
                match self.header[1] {
                    STDOUT => return Ok(Event::Stdout(range)),
                    STDERR => return Ok(Event::Stderr(range)),
                    _ => continue,
                }
            }
            let taken = rest.min(self.padding);
            self.padding -= taken;
            *at += taken;
            if self.padding > 0 {
                return Ok(Event::NeedMore);
            }
            self.seen = 0;
            if self.header[1] == END_REQUEST {
                return Ok(Event::End);
            }
        }
    }

    fn check(&mut self) -> Result<(), Bad> {
        let [version, kind, high_id, low_id, high, low, padding, _] = self.header;
        if version != VERSION {
            return Err(Bad::Version(version));
        }
        if !matches!(kind, STDOUT | STDERR | END_REQUEST) {
            return Err(Bad::Kind(kind));
        }
        if high_id != 0 || low_id != ID {
            return Err(Bad::Id(if high_id != 0 { high_id } else { low_id }));
        }
        self.content = usize::from(u16::from_be_bytes([high, low]));
        self.padding = usize::from(padding);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Texts on stdout and stderr, and `!` at the ends of the answer and of the request.
    fn decoded(pieces: &[&[u8]]) -> Result<(String, String), Bad> {
        let (mut decoder, mut texts) = (Decoder::default(), (String::new(), String::new()));
        for piece in pieces {
            let mut at = 0;
            loop {
                match decoder.next(piece, &mut at)? {
                    Event::Stdout(range) => {
                        texts.0.push_str(&String::from_utf8_lossy(&piece[range]));
                    }
                    Event::Stderr(range) => {
                        texts.1.push_str(&String::from_utf8_lossy(&piece[range]));
                    }
                    Event::StdoutEnd | Event::End => texts.0.push('!'),
                    Event::NeedMore => break,
                }
            }
        }
        Ok(texts)
    }

    fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let mut record = header(kind, content.len() as u16).to_vec();
        record[6] = padding;
        record.extend_from_slice(content);
        record.extend(std::iter::repeat_n(0, usize::from(padding)));
        record
    }

    #[test]
    fn answers_are_taken_apart() {
        let answer = [
            record(STDOUT, b"one", 5),
            record(STDERR, b"oh", 0),
            record(STDOUT, b"two", 0),
            record(STDOUT, b"", 3),
            record(END_REQUEST, &[0; 8], 0),
        ]
        .concat();
        let expected = Ok(("onetwo!!".to_owned(), "oh".to_owned()));
        assert_eq!(decoded(&[&answer]), expected);
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        assert_eq!(decoded(&bytes), expected);
        assert_eq!(decoded(&[&[2, 6, 0, 1, 0, 0, 0, 0]]), Err(Bad::Version(2)));
        assert_eq!(decoded(&[&[1, 9, 0, 1, 0, 0, 0, 0]]), Err(Bad::Kind(9)));
        assert_eq!(decoded(&[&[1, 6, 0, 2, 0, 0, 0, 0]]), Err(Bad::Id(2)));
    }

    #[test]
    fn parameters_have_short_and_long_lengths() {
        let (mut list, mut out) = (Vec::new(), Vec::new());
        push_parameter(b"A", &[b'x'; 128], &mut list);
        assert_eq!(&list[..6], &[1, 0x80, 0, 0, 128, b'A']);
        parameters(&list, &mut out);
        assert_eq!(&out[..8], &[1, 4, 0, 1, 0, 134, 0, 0]);
        assert_eq!(&out[8 + 134..], &[1, 4, 0, 1, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            pieces in proptest::collection::vec(proptest::collection::vec(0u8..8, 0..30), 0..8),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            // Any verdict will do.
            let _ = decoded(&pieces);
        }
    }
}
