//! HTTP/1 messages as a test sees them: heads in order, bodies unframed, raw bytes kept.
//!
//! The reader is strict where the server under test must be right (chunk framing, lengths), and
//! has no opinion on what it is not asked about. One reader serves clients and backends.

use crate::stream::Stream;
use std::fmt;
use std::io::{self, Read};

/// Why a message could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The other side closed before the first byte of a message.
    Closed,
    /// The other side closed or reset inside a message; what came is kept.
    Truncated(Vec<u8>),
    /// Nothing more came in time; what came is kept.
    TimedOut(Vec<u8>),
    /// The bytes are no HTTP/1 message, for the reason given.
    Malformed(String, Vec<u8>),
}

impl fmt::Display for ReadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, bytes) = match self {
            ReadError::Closed => return out.write_str("the connection was closed without a byte"),
            ReadError::Truncated(bytes) => ("the connection ended inside the message", bytes),
            ReadError::TimedOut(bytes) => ("no more bytes came in time", bytes),
            ReadError::Malformed(reason, bytes) => (reason.as_str(), bytes),
        };
        write!(out, "{reason}, after {} bytes: {}", bytes.len(), excerpt(bytes))
    }
}

/// The beginning of `bytes`, readable.
fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(600)];
    format!("{}{}", shown.escape_ascii(), if bytes.len() > shown.len() { "..." } else { "" })
}

/// Header fields in order, names as they were sent.
pub type Fields = Vec<(String, String)>;

/// A request as a scripted backend received it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method, such as `GET`.
    pub method: String,
    /// The request target, as it was sent.
    pub target: String,
    /// `HTTP/1.0` or `HTTP/1.1`.
    pub version: String,
    /// Header fields in order.
    pub headers: Fields,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Every byte of the request: head, framing, body, trailers.
    pub raw: Vec<u8>,
    /// Which connection of its backend brought it, from 1.
    pub connection: usize,
    /// Which request of its connection it is, from 1.
    pub number: usize,
}

impl Request {
    /// The first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    /// All fields of that name, in any case.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        fields(&self.headers, name)
    }

    /// The raw bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// The body as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A response as a client received it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// `HTTP/1.0` or `HTTP/1.1`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// Header fields in order.
    pub headers: Fields,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Fields,
    /// Every byte of the response.
    pub raw: Vec<u8>,
}

impl Response {
    /// The first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    /// All fields of that name, in any case.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        fields(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The head as it was sent, up to and with its empty line.
    pub fn head(&self) -> String {
        let end = self.raw.windows(4).position(|four| four == b"\r\n\r\n");
        String::from_utf8_lossy(&self.raw[..end.map_or(self.raw.len(), |at| at + 4)]).into_owned()
    }

    /// This response when its status is `status`; otherwise fails the test and shows it.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert!(self.status == status, "expected status {status}, got {}", excerpt(&self.raw));
        self
    }
}

fn field<'a>(headers: &'a Fields, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn fields<'a>(headers: &'a Fields, name: &str) -> Vec<&'a str> {
    let named = headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads messages off a stream and keeps what came early for the next one.
pub(crate) struct Reader {
    pub(crate) stream: Stream,
    unread: Vec<u8>,
    /// The bytes of the message being read.
    taken: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(stream: Stream) -> Reader {
        Reader { stream, unread: Vec::new(), taken: Vec::new() }
    }

    /// Reads more into `unread`: true when bytes came, false at the end of the stream.
    fn fill(&mut self) -> Result<bool, ReadError> {
        let mut block = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut block) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    self.unread.extend_from_slice(&block[..length]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if timed_out(&error) => {
                    return Err(ReadError::TimedOut(self.everything()));
                }
                // A reset is an end too; whoever cares whether it was clean reads to the end.
                Err(_) => return Ok(false),
            }
        }
    }

    fn everything(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.taken);
        bytes.append(&mut self.unread);
        bytes
    }

    fn malformed(&mut self, reason: impl Into<String>) -> ReadError {
        ReadError::Malformed(reason.into(), self.everything())
    }

    fn truncated(&mut self) -> ReadError {
        let bytes = self.everything();
        if bytes.is_empty() { ReadError::Closed } else { ReadError::Truncated(bytes) }
    }

    /// Moves `length` bytes of the stream to `taken` and returns where they start in it.
    fn take(&mut self, length: usize) -> Result<usize, ReadError> {
        while self.unread.len() < length {
            if !self.fill()? {
                return Err(self.truncated());
            }
        }
        let start = self.taken.len();
        self.taken.extend(self.unread.drain(..length));
        Ok(start)
    }

    /// One line without its CRLF, moved to `taken`.
    fn line(&mut self) -> Result<String, ReadError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..].iter().position(|byte| *byte == b'\n') {
                let start = self.take(searched + at + 1)?;
                let line = &self.taken[start..];
                let Some(line) = line.strip_suffix(b"\r\n") else {
                    return Err(self.malformed("a line ends without a carriage return"));
                };
                // Latin-1, so that every byte survives as one character.
                return Ok(line.iter().map(|byte| char::from(*byte)).collect());
            }
            searched = self.unread.len();
            if !self.fill()? {
                return Err(self.truncated());
            }
        }
    }

    fn fields(&mut self) -> Result<Fields, ReadError> {
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(self.malformed(format!("the field {line:?} has no colon")));
            };
            headers.push((name.to_string(), value.trim().to_string()));
        }
    }

    /// Reads the first line and the fields of a message.
    fn head(&mut self) -> Result<(String, Fields), ReadError> {
        self.taken.clear();
        let first = self.line()?;
        Ok((first, self.fields()?))
    }

    /// Reads a response; `bodiless` when the request was a HEAD.
    pub(crate) fn response(&mut self, bodiless: bool) -> Result<Response, ReadError> {
        let mut response = self.response_head()?;
        let status = response.status;
        let framing = if bodiless || status < 200 || status == 204 || status == 304 {
            Framing::None
        } else {
            self.framing(&response.headers, Framing::UntilClose)?
        };
        (response.body, response.trailers) = self.body(framing)?;
        response.raw = std::mem::take(&mut self.taken);
        Ok(response)
    }

    /// Reads a response's head and leaves its body on the stream.
    pub(crate) fn response_head(&mut self) -> Result<Response, ReadError> {
        let (first, headers) = self.head()?;
        let mut words = first.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_string();
        let status = words.next().unwrap_or_default();
        let reason = words.next().unwrap_or_default().to_string();
        let known = version == "HTTP/1.1" || version == "HTTP/1.0";
        let Some(status) = status.parse().ok().filter(|_| known && status.len() == 3) else {
            return Err(self.malformed(format!("{first:?} is no status line")));
        };
        let raw = self.taken.clone();
        Ok(Response { version, status, reason, headers, raw, ..Response::default() })
    }

    /// Reads a request's head and leaves its body on the stream.
    pub(crate) fn request_head(&mut self) -> Result<Request, ReadError> {
        let (first, headers) = self.head()?;
        let words: Vec<&str> = first.split(' ').collect();
        let [method, target, version] = words[..] else {
            return Err(self.malformed(format!("{first:?} is no request line")));
        };
        let (method, target, version) = (method.into(), target.into(), version.into());
        let raw = self.taken.clone();
        Ok(Request { method, target, version, headers, raw, ..Request::default() })
    }

    /// Reads the body of the request whose head was just read.
    pub(crate) fn request_body(&mut self, request: &mut Request) -> Result<(), ReadError> {
        let framing = self.framing(&request.headers, Framing::None)?;
        (request.body, _) = self.body(framing)?;
        request.raw = std::mem::take(&mut self.taken);
        Ok(())
    }

    fn framing(&mut self, headers: &Fields, otherwise: Framing) -> Result<Framing, ReadError> {
        let codings = fields(headers, "Transfer-Encoding");
        let lengths = fields(headers, "Content-Length");
        match (&codings[..], &lengths[..]) {
            ([], []) => Ok(otherwise),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            ([], [length]) => match length.parse() {
                Ok(length) => Ok(Framing::Length(length)),
                Err(_) => Err(self.malformed(format!("{length:?} is no length"))),
            },
            _ => {
                let reason = format!("ambiguous framing: {codings:?} with {lengths:?}");
                Err(self.malformed(reason))
            }
        }
    }

    fn body(&mut self, framing: Framing) -> Result<(Vec<u8>, Fields), ReadError> {
        match framing {
            Framing::None => Ok((Vec::new(), Vec::new())),
            Framing::Length(length) => {
                let start = self.take(length)?;
                Ok((self.taken[start..].to_vec(), Vec::new()))
            }
            Framing::Chunked => self.chunked(),
            Framing::UntilClose => {
                let start = self.taken.len();
                while self.fill()? {}
                self.taken.append(&mut self.unread);
                Ok((self.taken[start..].to_vec(), Vec::new()))
            }
        }
    }

    fn chunked(&mut self) -> Result<(Vec<u8>, Fields), ReadError> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default();
            let Ok(size) = usize::from_str_radix(digits, 16) else {
                return Err(self.malformed(format!("{line:?} is no chunk size")));
            };
            if size == 0 {
                return Ok((body, self.fields()?));
            }
            let start = self.take(size)?;
            body.extend_from_slice(&self.taken[start..]);
            if !self.line()?.is_empty() {
                return Err(self.malformed("a chunk is longer than its size"));
            }
        }
    }

    /// Exactly `length` bytes, whatever they are.
    pub(crate) fn exactly(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        self.taken.clear();
        self.take(length)?;
        Ok(std::mem::take(&mut self.taken))
    }

    /// At least one byte: what is there.
    pub(crate) fn some(&mut self) -> Result<Vec<u8>, ReadError> {
        self.taken.clear();
        if self.unread.is_empty() && !self.fill()? {
            return Err(ReadError::Closed);
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Everything up to the end of the stream, clean or by reset.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, ReadError> {
        self.taken.clear();
        while self.fill()? {}
        Ok(std::mem::take(&mut self.unread))
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// Reads one response from `bytes`, sent in two pieces and then closed.
    fn read(bytes: &[u8], bodiless: bool) -> Result<Response, ReadError> {
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        sender.write_all(first).unwrap();
        sender.write_all(second).unwrap();
        drop(sender);
        Reader::new(Stream::from_unix(receiver).unwrap()).response(bodiless)
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        let check = |bytes: &str, bodiless, body: &str, rest: usize| {
            let response = read(bytes.as_bytes(), bodiless).unwrap();
            assert_eq!(response.text(), body, "{bytes:?}");
            assert_eq!(response.raw.len(), bytes.len() - rest, "{bytes:?}");
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP", false, "abc", 4);
        check("HTTP/1.1 200 OK\r\n\r\nall of it", false, "all of it", 0);
        check("HTTP/1.1 204 No Content\r\n\r\nnext", false, "", 4);
        check("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, "", 0);
        check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, "", 0);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            &format!("{chunked}3\r\nabc\r\na;x\r\n0123456789\r\n0\r\n\r\n+"),
            false,
            "abc0123456789",
            1,
        );
    }

    #[test]
    fn broken_responses_are_told_apart() {
        let check = |bytes: &str, expected: &str| {
            let error = read(bytes.as_bytes(), false).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{bytes:?}: {error}");
        };
        check("", "the connection was closed without a byte");
        check("HTTP/1.1 20", "the connection ended inside the message");
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "the connection ended inside");
        check("HTTP/2 200\r\n\r\n", "\"HTTP/2 200\" is no status line");
        check("HTTP/1.1 200 OK\n\n", "a line ends without a carriage return");
        check("HTTP/1.1 200 OK\r\nx\r\n\r\n", "the field \"x\" has no colon");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}2\r\nabc\r\n0\r\n\r\n"), "a chunk is longer than its size");
        check(&format!("{chunked}-1\r\n"), "\"-1\" is no chunk size");
        let both = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n";
        check(both, "ambiguous framing");
    }
}
