//! Request heads: the request line as a small state machine, then its field lines.
//!
//! ```text
//! START -> METHOD -> GAP -+- '/' --> TARGET ------------------+-> AFTER -+- 'H' -> VERSION -> TAIL
//!   |                     |            ^                      |          |                    |
//! CR LF skipped           +- letter -> SCHEME "://" -> HOST --+          +- CR LF (HTTP/0.9) -+
//!                         |                                   |                               |
//!                         +- CONNECT --------> HOST ':' PORT -+                               v
//!                                                                             FIELDS -> complete
//! ```
//!
//! Every transition is taken on one byte, and stage and position are kept between calls: a head
//! that arrives one byte at a time costs what it costs in one piece, and is judged the same, at
//! the same byte.

use super::fault::{BadRequest, BadRequestKind, HEAD_LIMIT, NOWHERE};
use super::fields::{FieldScanner, Peer, Rules};
use super::scan::target_run;
use super::{Field, Method, Slice, Version};

/// What a server lets pass in a request head: nginx's directives of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Drop fields whose names hold bytes outside letters, digits and hyphens (default true);
    /// otherwise deliver them as [`super::Known::Other`].
    pub ignore_invalid_headers: bool,
    /// Count the underscore among the valid bytes of a name (default false).
    pub underscores_in_headers: bool,
    /// Most field lines in one head, dropped ones not counted (default 1000).
    pub max_headers: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { ignore_invalid_headers: true, underscores_in_headers: false, max_headers: 1000 }
    }
}

/// The form of a request target (RFC 9112 section 3.2). nginx refuses the asterisk form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host:port/path?query`
    Absolute,
    /// `host:port`, with CONNECT only
    Authority,
}

/// A complete request line. All slices count from the head's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// The line without its end: nginx's `$request`. Starts after any skipped empty lines.
    pub text: Slice,
    pub method: Method,
    pub method_text: Slice,
    /// The request target as sent.
    pub target: Slice,
    pub form: Form,
    /// `http` in the absolute form, else empty.
    pub scheme: Slice,
    /// `host[:port]` in the absolute and authority forms, not validated yet; else empty.
    pub authority: Slice,
    /// Path and query: nginx's `$request_uri`. In the absolute form it may begin with `?` (an
    /// empty path); where the target has neither path nor query, it is some `/` of the line.
    pub path: Slice,
    pub version: Version,
    /// `HTTP/1.1` as sent, nginx's `$server_protocol`; empty with HTTP/0.9.
    pub version_text: Slice,
}

/// What a call to [`RequestParser::parse`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The head is complete and `len` bytes long; the body, or the next request, follows there.
    Complete { len: usize, line: RequestLine },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Start,
    /// A CR of an empty line, whose LF must follow.
    StartCr,
    Method,
    Gap,
    Scheme,
    SchemeSlash,
    SchemeSlashSlash,
    HostGap,
    HostStart,
    Host,
    HostLiteral,
    HostEnd,
    PortStart,
    Port,
    Target,
    After,
    Protocol,
    MajorFirst,
    Major,
    MinorFirst,
    Minor,
    Tail,
    LineEnd,
    Fields,
}

/// A resumable parser of one request head.
///
/// Give [`parse`](Self::parse) the buffer that starts at the head's first byte, again with every
/// arrival; it may have moved but must not have changed. After [`Parsed::Complete`] or an error,
/// start the next head with a fresh parser.
#[derive(Clone, Copy, Debug)]
pub struct RequestParser {
    options: Options,
    stage: Stage,
    pos: u32,
    line: RequestLine,
    fields: FieldScanner,
}

impl Default for RequestParser {
    fn default() -> RequestParser {
        RequestParser::new(Options::default())
    }
}

impl RequestParser {
    pub fn new(options: Options) -> RequestParser {
        let line = RequestLine {
            text: NOWHERE,
            method: Method::Other,
            method_text: NOWHERE,
            target: NOWHERE,
            form: Form::Origin,
            scheme: NOWHERE,
            authority: NOWHERE,
            path: NOWHERE,
            version: Version::HTTP_09,
            version_text: NOWHERE,
        };
        let fields = FieldScanner::default();
        RequestParser { options, stage: Stage::Start, pos: 0, line, fields }
    }

    /// Reads on in `buf` and appends complete fields to `fields`, which is cleared when the head
    /// begins. With HTTP/0.9 the head ends with its request line.
    ///
    /// # Errors
    /// The first fault, found at the same byte however the input was cut. The connection's
    /// framing is lost: answer and close.
    #[inline]
    pub fn parse(&mut self, buf: &[u8], fields: &mut Vec<Field>) -> Result<Parsed, BadRequest> {
        if buf.len() > HEAD_LIMIT {
            return Err(self.fault(BadRequestKind::HeadTooLarge, HEAD_LIMIT));
        }
        if self.stage != Stage::Fields {
            if self.pos == 0 {
                fields.clear();
            }
            if !self.request_line(buf)? {
                return Ok(Parsed::Partial);
            }
            if self.line.version == Version::HTTP_09 {
                return Ok(Parsed::Complete { len: self.pos as usize, line: self.line });
            }
            self.fields = FieldScanner::starting_at(self.pos as usize);
        }
        let rules = Rules {
            underscores: self.options.underscores_in_headers,
            drop_invalid: self.options.ignore_invalid_headers,
            max: self.options.max_headers,
            peer: Peer::Client,
        };
        match self.fields.scan(buf, &rules, fields)? {
            Some(len) => Ok(Parsed::Complete { len, line: self.line }),
            None => Ok(Parsed::Partial),
        }
    }

    /// True once a byte other than of an empty line was seen: from then on a client that closes
    /// closes in the middle of a request.
    pub fn started(&self) -> bool {
        !matches!(self.stage, Stage::Start | Stage::StartCr)
    }

    /// The request line, once it is complete; before, a head that outgrows its buffer is
    /// answered 414, after it 494.
    pub fn line(&self) -> Option<&RequestLine> {
        (self.stage == Stage::Fields).then_some(&self.line)
    }

    /// Offset of the first byte of the line that is not complete yet: `buf.len() - line_start()`
    /// is what nginx measures against one large buffer. Skipped empty lines before the request
    /// line do not belong to it: while [`started`](Self::started) is false, the caller may drop
    /// everything before this offset and begin anew.
    pub fn line_start(&self) -> usize {
        match self.stage {
            Stage::Start | Stage::StartCr => self.pos as usize,
            Stage::Fields => self.fields.line_start(),
            _ => self.line.text.at as usize,
        }
    }

    /// How many fields were dropped for invalid names, and the first such line, which nginx logs
    /// as `client sent invalid header line: "..."`.
    pub fn dropped(&self) -> (u32, Slice) {
        self.fields.dropped()
    }

    /// Set of the known names delivered so far, as a sum of [`super::Known::bit`].
    pub fn seen(&self) -> u128 {
        self.fields.seen()
    }

    #[cold]
    fn fault(&self, kind: BadRequestKind, at: usize) -> BadRequest {
        BadRequest { kind, at, line: self.line_start() }
    }

    /// Reads on in the request line; true when it is complete and `pos` stands behind it.
    #[inline]
    fn request_line(&mut self, buf: &[u8]) -> Result<bool, BadRequest> {
        if self.pos == 0 && buf.starts_with(b"GET /") {
            // What most clients begin with, in one look.
            self.line.method_text = Slice { at: 0, len: 3 };
            self.line.method = Method::Get;
            self.line.target.at = 4;
            self.line.path.at = 4;
            self.pos = 5;
            self.stage = Stage::Target;
        }
        loop {
            match self.stage {
                Stage::Method => {
                    if !self.method(buf)? {
                        return Ok(false);
                    }
                }
                Stage::Target => {
                    if !self.target(buf)? {
                        return Ok(false);
                    }
                }
                Stage::Protocol => {
                    if self.usual_version(buf) {
                        return Ok(true);
                    }
                    let Some(&byte) = buf.get(self.pos as usize) else { return Ok(false) };
                    self.version_byte(byte)?;
                }
                Stage::Fields => return Ok(true),
                _ => {
                    let Some(&byte) = buf.get(self.pos as usize) else { return Ok(false) };
                    self.byte(byte)?;
                }
            }
        }
    }

    /// METHOD: upper-case letters, `_` and `-`, up to a space.
    #[inline]
    fn method(&mut self, buf: &[u8]) -> Result<bool, BadRequest> {
        let mut pos = self.pos as usize;
        loop {
            match buf.get(pos) {
                Some(b'A'..=b'Z' | b'_' | b'-') => pos += 1,
                Some(b' ') => break,
                Some(_) => return Err(self.fault(BadRequestKind::InvalidMethod, pos)),
                None => {
                    self.pos = pos as u32;
                    return Ok(false);
                }
            }
        }
        self.line.method_text = Slice::between(self.line.text.at as usize, pos);
        self.line.method = Method::of(self.line.method_text.of(buf));
        self.pos = pos as u32 + 1;
        self.stage = match self.line.method {
            Method::Connect => Stage::HostGap,
            _ => Stage::Gap,
        };
        Ok(true)
    }

    /// TARGET: the rest of the path and the query, up to a space or the line's end.
    #[inline]
    fn target(&mut self, buf: &[u8]) -> Result<bool, BadRequest> {
        let pos = target_run(buf, self.pos as usize);
        let Some(&byte) = buf.get(pos) else {
            self.pos = pos as u32;
            return Ok(false);
        };
        if !matches!(byte, b' ' | b'\r' | b'\n') {
            return Err(self.fault(BadRequestKind::InvalidRequestLine, pos));
        }
        self.line.target.len = pos as u32 - self.line.target.at;
        self.line.path.len = pos as u32 - self.line.path.at;
        self.pos = pos as u32;
        self.stage = Stage::After;
        Ok(true)
    }

    /// The two versions that nearly every request has, with their usual line end, in one look.
    /// Anything else goes byte by byte.
    #[inline]
    fn usual_version(&mut self, buf: &[u8]) -> bool {
        let start = self.line.version_text.at;
        let Some(version) = buf.get(start as usize..).and_then(|rest| rest.first_chunk::<10>())
        else {
            return false;
        };
        self.line.version = match version {
            b"HTTP/1.1\r\n" => Version::HTTP_11,
            b"HTTP/1.0\r\n" => Version::HTTP_10,
            _ => return false,
        };
        self.line.version_text.len = 8;
        self.end_line(start + 8, start + 10);
        true
    }

    /// One byte in a stage that is a byte or a few long.
    fn byte(&mut self, byte: u8) -> Result<(), BadRequest> {
        match self.stage {
            Stage::Start | Stage::StartCr => self.start(byte),
            Stage::Gap => self.gap(byte),
            Stage::Scheme | Stage::SchemeSlash | Stage::SchemeSlashSlash => self.scheme_byte(byte),
            Stage::After => self.after_target(byte),
            Stage::MajorFirst
            | Stage::Major
            | Stage::MinorFirst
            | Stage::Minor
            | Stage::Tail
            | Stage::LineEnd => self.version_byte(byte),
            _ => self.host_byte(byte),
        }
    }

    /// START: empty lines before the request line are skipped (RFC 9112 section 2.2).
    fn start(&mut self, byte: u8) -> Result<(), BadRequest> {
        self.stage = match (self.stage, byte) {
            (_, b'\n') => Stage::Start,
            (Stage::Start, b'\r') => Stage::StartCr,
            (Stage::Start, b'A'..=b'Z' | b'_' | b'-') => {
                self.line.text.at = self.pos;
                Stage::Method
            }
            _ => return Err(self.fault(BadRequestKind::InvalidMethod, self.pos as usize)),
        };
        self.pos += 1;
        Ok(())
    }

    /// GAP: spaces before the target, whose first byte tells its form.
    fn gap(&mut self, byte: u8) -> Result<(), BadRequest> {
        match byte {
            b' ' => {}
            b'/' => {
                self.line.target.at = self.pos;
                self.line.path.at = self.pos;
                self.stage = Stage::Target;
            }
            b'a'..=b'z' | b'A'..=b'Z' => {
                self.line.form = Form::Absolute;
                self.line.target.at = self.pos;
                self.line.scheme.at = self.pos;
                self.stage = Stage::Scheme;
            }
            _ => return Err(self.invalid()),
        }
        self.pos += 1;
        Ok(())
    }

    fn scheme_byte(&mut self, byte: u8) -> Result<(), BadRequest> {
        self.stage = match (self.stage, byte) {
            (Stage::Scheme, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') => {
                Stage::Scheme
            }
            (Stage::Scheme, b':') => {
                self.line.scheme.len = self.pos - self.line.scheme.at;
                Stage::SchemeSlash
            }
            (Stage::SchemeSlash, b'/') => {
                // Stands for the path where the target has none.
                self.line.path = Slice { at: self.pos, len: 1 };
                Stage::SchemeSlashSlash
            }
            (Stage::SchemeSlashSlash, b'/') => Stage::HostStart,
            _ => return Err(self.invalid()),
        };
        self.pos += 1;
        Ok(())
    }

    /// HOST and PORT, of an absolute target or of CONNECT.
    fn host_byte(&mut self, byte: u8) -> Result<(), BadRequest> {
        let connect = self.line.method == Method::Connect;
        if self.stage == Stage::HostGap {
            if byte == b' ' {
                self.pos += 1;
                return Ok(());
            }
            self.line.form = Form::Authority;
            self.line.target.at = self.pos;
            self.stage = Stage::HostStart;
        }
        if self.stage == Stage::HostStart {
            self.line.authority.at = self.pos;
            self.stage = match byte {
                b'[' => Stage::HostLiteral,
                _ => Stage::Host,
            };
            if byte == b'[' {
                self.pos += 1;
                return Ok(());
            }
        }
        self.stage = match (self.stage, byte) {
            (Stage::Host, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-') => Stage::Host,
            (Stage::HostLiteral, b']') => Stage::HostEnd,
            (Stage::HostLiteral, b':') => Stage::HostLiteral,
            (Stage::HostLiteral, byte) if super::host::is_reg_name(byte) => Stage::HostLiteral,
            (Stage::Host | Stage::HostEnd, b':') => Stage::PortStart,
            (Stage::PortStart | Stage::Port, b'0'..=b'9') => Stage::Port,
            (Stage::HostLiteral, _) => return Err(self.invalid()),
            (Stage::Port, b' ') if connect => {
                self.end_authority(byte)?;
                return Ok(());
            }
            _ if connect => return Err(self.invalid()),
            _ => return self.end_authority(byte),
        };
        self.pos += 1;
        Ok(())
    }

    /// The byte after host and port decides what the target still holds.
    fn end_authority(&mut self, byte: u8) -> Result<(), BadRequest> {
        self.line.authority.len = self.pos - self.line.authority.at;
        match byte {
            b'/' | b'?' => {
                self.line.path.at = self.pos;
                self.stage = Stage::Target;
            }
            b' ' => {
                self.line.target.len = self.pos - self.line.target.at;
                self.stage = Stage::After;
            }
            _ => return Err(self.invalid()),
        }
        self.pos += 1;
        Ok(())
    }

    /// AFTER: spaces, then a version or, in HTTP/0.9, the line's end.
    fn after_target(&mut self, byte: u8) -> Result<(), BadRequest> {
        match byte {
            b' ' => {}
            b'H' => {
                self.line.version_text.at = self.pos;
                // `usual_version` looks from the H on; the byte-wise way starts behind it.
                self.stage = Stage::Protocol;
            }
            b'\r' => self.stage = Stage::LineEnd,
            b'\n' => return self.finish(self.pos),
            _ => return Err(self.invalid()),
        }
        self.pos += 1;
        Ok(())
    }

    /// VERSION and TAIL, byte by byte.
    fn version_byte(&mut self, byte: u8) -> Result<(), BadRequest> {
        let digit = byte.is_ascii_digit();
        self.stage = match (self.stage, byte) {
            (Stage::Protocol, _) => {
                let place = (self.pos - self.line.version_text.at) as usize;
                if b"HTTP/".get(place) != Some(&byte) {
                    return Err(self.invalid());
                }
                if place == 4 { Stage::MajorFirst } else { Stage::Protocol }
            }
            (Stage::MajorFirst, b'1') => Stage::Major,
            (Stage::MajorFirst, b'2'..=b'9') => return Err(self.unsupported()),
            (Stage::Major, b'.') => Stage::MinorFirst,
            (Stage::Major, _) if digit => return Err(self.unsupported()),
            (Stage::MinorFirst | Stage::Minor, _) if digit => {
                let minor_digits = self.pos - self.line.version_text.at - 6;
                if minor_digits > 3 {
                    return Err(self.invalid());
                }
                let zero = byte == b'0' && self.line.version != Version::HTTP_11;
                self.line.version = if zero { Version::HTTP_10 } else { Version::HTTP_11 };
                Stage::Minor
            }
            (Stage::Minor, b' ') => {
                self.line.version_text.len = self.pos - self.line.version_text.at;
                Stage::Tail
            }
            (Stage::Tail, b' ') => Stage::Tail,
            (Stage::Minor, b'\r' | b'\n') => {
                self.line.version_text.len = self.pos - self.line.version_text.at;
                return self.line_break(byte);
            }
            (Stage::Tail, b'\r' | b'\n') => return self.line_break(byte),
            (Stage::LineEnd, b'\n') => return self.finish(self.pos - 1),
            _ => return Err(self.invalid()),
        };
        self.pos += 1;
        Ok(())
    }

    fn line_break(&mut self, byte: u8) -> Result<(), BadRequest> {
        if byte == b'\n' {
            return self.finish(self.pos);
        }
        self.stage = Stage::LineEnd;
        self.pos += 1;
        Ok(())
    }

    /// The LF of the request line stands at `pos`; its text ends at `end`.
    fn finish(&mut self, end: u32) -> Result<(), BadRequest> {
        if self.line.version == Version::HTTP_09 && self.line.method != Method::Get {
            return Err(self.fault(BadRequestKind::InvalidMethodIn09, self.pos as usize));
        }
        self.end_line(end, self.pos + 1);
        Ok(())
    }

    #[inline]
    fn end_line(&mut self, end: u32, next: u32) {
        self.line.text.len = end - self.line.text.at;
        self.pos = next;
        if self.line.form == Form::Authority {
            // With CONNECT the slash of `HTTP/` stands for the path.
            self.line.path = Slice { at: self.line.version_text.at + 4, len: 1 };
        }
        self.stage = Stage::Fields;
    }

    #[cold]
    fn invalid(&self) -> BadRequest {
        self.fault(BadRequestKind::InvalidRequestLine, self.pos as usize)
    }

    #[cold]
    fn unsupported(&self) -> BadRequest {
        self.fault(BadRequestKind::UnsupportedVersion, self.pos as usize)
    }
}
