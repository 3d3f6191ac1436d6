//! Response heads: the status line, then its field lines. The sender is not trusted.

use super::fault::{BadResponse, BadResponseKind, HEAD_LIMIT, NOWHERE};
use super::fields::{FieldScanner, Peer, Rules};
use super::scan::line_break;
use super::{Field, Slice, Version};

/// A complete status line. All slices count from the head's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusLine {
    /// 100 to 999.
    pub status: u16,
    /// Status and reason without the line's end, as nginx repeats them: `200 OK`.
    pub text: Slice,
    /// What follows the status and one space; empty where there is nothing.
    pub reason: Slice,
    /// 1.0 or 1.1; a greater version is delivered as 1.1.
    pub version: Version,
}

/// What a call to [`ResponseParser::parse`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedResponse {
    /// More bytes are needed.
    Partial,
    /// The head is complete and `len` bytes long. After a status of 1xx other than 101 another
    /// head follows there.
    Complete { len: usize, line: StatusLine },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Protocol,
    MajorFirst,
    Major,
    MinorFirst,
    Minor,
    Status,
    AfterStatus,
    Reason,
    Fields,
}

/// A resumable parser of one response head; its use is [`super::RequestParser`]'s.
#[derive(Clone, Copy, Debug)]
pub struct ResponseParser {
    stage: Stage,
    max_fields: u32,
    pos: u32,
    digits: u8,
    line: StatusLine,
    fields: FieldScanner,
}

impl Default for ResponseParser {
    fn default() -> ResponseParser {
        ResponseParser::new(u32::MAX)
    }
}

impl ResponseParser {
    /// A parser that refuses a head of more than `max_fields` field lines. nginx has no such
    /// limit: its buffer of one or two pages is the limit.
    pub fn new(max_fields: u32) -> ResponseParser {
        let line = StatusLine {
            status: 0,
            text: NOWHERE,
            reason: NOWHERE,
            version: Version { major: 0, minor: 0 },
        };
        let fields = FieldScanner::default();
        ResponseParser { stage: Stage::Protocol, max_fields, pos: 0, digits: 0, line, fields }
    }

    /// Reads on in `buf`, which starts at the head's first byte, and appends complete fields to
    /// `fields`, which is cleared when the head begins. Names with odd bytes are delivered as
    /// [`super::Known::Other`], as nginx does for upstreams.
    ///
    /// # Errors
    /// The first fault. [`BadResponseKind::NotHttp`] and `InvalidStatusLine` are found before any
    /// field: nginx takes such bytes for an HTTP/0.9 body, and the caller may, too.
    #[inline]
    pub fn parse(
        &mut self,
        buf: &[u8],
        fields: &mut Vec<Field>,
    ) -> Result<ParsedResponse, BadResponse> {
        if buf.len() > HEAD_LIMIT {
            return Err(self.fault(BadResponseKind::HeadTooLarge, HEAD_LIMIT));
        }
        if self.stage != Stage::Fields {
            if self.pos == 0 {
                fields.clear();
            }
            if !self.status_line(buf)? {
                return Ok(ParsedResponse::Partial);
            }
            self.fields = FieldScanner::starting_at(self.pos as usize);
        }
        let rules = Rules {
            underscores: true,
            drop_invalid: false,
            max: self.max_fields,
            peer: Peer::Server,
        };
        match self.fields.scan(buf, &rules, fields)? {
            Some(len) => Ok(ParsedResponse::Complete { len, line: self.line }),
            None => Ok(ParsedResponse::Partial),
        }
    }

    /// The status line, once it is complete.
    pub fn line(&self) -> Option<&StatusLine> {
        (self.stage == Stage::Fields).then_some(&self.line)
    }

    /// Offset of the first byte of the line that is not complete yet.
    pub fn line_start(&self) -> usize {
        if self.stage == Stage::Fields { self.fields.line_start() } else { 0 }
    }

    /// Set of the known names delivered so far, as a sum of [`super::Known::bit`].
    pub fn seen(&self) -> u128 {
        self.fields.seen()
    }

    #[cold]
    fn fault(&self, kind: BadResponseKind, at: usize) -> BadResponse {
        BadResponse { kind, at, line: self.line_start() }
    }

    /// Reads on in the status line; true when it is complete and `pos` stands behind it.
    #[inline]
    fn status_line(&mut self, buf: &[u8]) -> Result<bool, BadResponse> {
        if self.stage == Stage::Protocol {
            // What nearly every upstream sends, in one look.
            let version = match buf.first_chunk::<9>() {
                Some(b"HTTP/1.1 ") => Version::HTTP_11,
                Some(b"HTTP/1.0 ") => Version::HTTP_10,
                _ => self.line.version,
            };
            if version != self.line.version {
                self.line.version = version;
                self.pos = 9;
                self.stage = Stage::Status;
                self.usual_status(buf);
            }
        }
        loop {
            match self.stage {
                Stage::Reason => return self.reason(buf),
                Stage::Fields => return Ok(true),
                _ => {
                    let Some(&byte) = buf.get(self.pos as usize) else { return Ok(false) };
                    self.byte(byte)?;
                }
            }
        }
    }

    /// Three digits and a space in their usual place, in one look. Anything else goes byte by byte.
    #[inline]
    fn usual_status(&mut self, buf: &[u8]) {
        if let Some(&[first @ b'1'..=b'9', second @ b'0'..=b'9', third @ b'0'..=b'9', b' ']) =
            buf.get(9..13)
        {
            let digit = |byte: u8| u16::from(byte - b'0');
            self.line.status = digit(first) * 100 + digit(second) * 10 + digit(third);
            self.line.text.at = 9;
            self.line.reason.at = 13;
            self.digits = 3;
            self.pos = 13;
            self.stage = Stage::Reason;
        }
    }

    fn byte(&mut self, byte: u8) -> Result<(), BadResponse> {
        let place = self.pos as usize;
        self.stage = match (self.stage, byte) {
            (Stage::Protocol, _) => {
                if b"HTTP/".get(place) != Some(&byte) {
                    return Err(self.fault(BadResponseKind::NotHttp, place));
                }
                if place == 4 { Stage::MajorFirst } else { Stage::Protocol }
            }
            (Stage::MajorFirst, b'1'..=b'9') => {
                self.line.version = Version { major: byte - b'0', minor: 0 };
                Stage::Major
            }
            (Stage::Major, b'.') => Stage::MinorFirst,
            // More than one digit, here or in the minor version, says only "greater".
            (Stage::Major, b'0'..=b'9') if place < 8 => {
                self.line.version.major = u8::MAX;
                Stage::Major
            }
            (Stage::MinorFirst | Stage::Minor, b'0'..=b'9') if place < 12 => {
                self.line.version.minor |= byte - b'0';
                Stage::Minor
            }
            (Stage::Minor, b' ') => {
                let version = self.line.version;
                let old = version == Version::HTTP_10;
                self.line.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
                Stage::Status
            }
            (Stage::Status, b' ') if self.digits == 0 => Stage::Status,
            (Stage::Status, b'0'..=b'9') => return self.status_digit(byte),
            (Stage::AfterStatus, b' ' | b'.' | b'\r' | b'\n') => {
                // IIS may send sub-statuses such as 403.1, which nginx reads as reason.
                self.line.reason.at = self.pos + u32::from(byte == b' ');
                self.pos += u32::from(byte == b' ');
                self.stage = Stage::Reason;
                return Ok(());
            }
            _ => return Err(self.fault(BadResponseKind::InvalidStatusLine, place)),
        };
        self.pos += 1;
        Ok(())
    }

    /// Exactly three digits (RFC 9112 section 4).
    fn status_digit(&mut self, byte: u8) -> Result<(), BadResponse> {
        if self.digits == 0 {
            self.line.text.at = self.pos;
            if byte == b'0' {
                return Err(self.fault(BadResponseKind::HostileStatusLine, self.pos as usize));
            }
        }
        self.digits += 1;
        self.line.status = self.line.status * 10 + u16::from(byte - b'0');
        if self.digits == 3 {
            self.stage = Stage::AfterStatus;
        }
        self.pos += 1;
        Ok(())
    }

    /// Any text up to the line's end, but neither NUL nor a CR on its own.
    #[inline]
    fn reason(&mut self, buf: &[u8]) -> Result<bool, BadResponse> {
        let end = line_break(buf, self.pos as usize);
        self.pos = end as u32;
        let next = match (buf.get(end), buf.get(end + 1)) {
            (None, _) | (Some(b'\r'), None) => return Ok(false),
            (Some(b'\n'), _) => end + 1,
            (Some(b'\r'), Some(b'\n')) => end + 2,
            _ => return Err(self.fault(BadResponseKind::HostileStatusLine, end)),
        };
        self.line.reason = Slice::between(self.line.reason.at as usize, end);
        self.line.text = Slice::between(self.line.text.at as usize, end);
        self.pos = next as u32;
        self.stage = Stage::Fields;
        Ok(true)
    }
}
