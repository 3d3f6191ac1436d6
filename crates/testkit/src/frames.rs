//! An HTTP/2 client of frames: it says what a test tells it to, right or wrong, and shows what
//! came back. Header lists are written as plain literals and read with a decoder of its own.

use crate::stream::{Peer, Stream};
use crate::wait::patience;
use std::io::{self, Read, Write};
use std::time::Instant;

/// Types of frames.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RESET: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GO_AWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// The stream's last frame; or, of SETTINGS and PING, an answer.
pub const END_STREAM: u8 = 1;
/// The header block is whole.
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of these parts.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let length = (self.payload.len() as u32).to_be_bytes();
        let mut out = length[1..].to_vec();
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }

    /// The last four bytes: the code of RST_STREAM and of GOAWAY without a text.
    pub fn code(&self) -> Option<u32> {
        self.payload.last_chunk().map(|four| u32::from_be_bytes(*four))
    }
}

/// A header list as literals without indexing, names and values as they are.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        let mut rest = text.len();
        if rest < 127 {
            out.push(rest as u8);
        } else {
            out.push(127);
            rest -= 127;
            while rest >= 128 {
                out.push(rest as u8 | 128);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
        out.extend_from_slice(text.as_bytes());
    };
    for (name, value) in fields {
        out.push(0);
        text(&mut out, name);
        text(&mut out, value);
    }
    out
}

/// The header list of a GET, and `more` behind it.
pub fn get_block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    request_block("GET", path, more)
}

/// The header list of a request, and `more` behind it.
pub fn request_block(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo =
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")];
    block(&[&pseudo, more].concat())
}

/// One connection to the server under test. Methods fail the test when the connection does.
pub struct FrameClient {
    stream: Stream,
    received: Vec<u8>,
    next: u32,
}

/// What came back on a stream.
#[derive(Clone, Debug, Default)]
pub struct Answer2 {
    /// The frames, in order.
    pub frames: Vec<Frame>,
}

impl Answer2 {
    /// The status in the first HEADERS; 0 when there are none. Statuses that the static table
    /// holds are one byte, others a literal in digits or in Huffman's code.
    pub fn status(&self) -> u16 {
        self.frames.iter().find(|frame| frame.kind == kind::HEADERS).map_or(0, |frame| {
            let mut block = frame.payload.as_slice();
            if let [0x20, rest @ ..] = block {
                block = rest;
            }
            match block {
                [indexed @ 0x88..=0x8e, ..] => {
                    [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
                }
                [0x08, 3, a, b, c, ..] => digits(&[*a, *b, *c]),
                [0x08, length, coded @ ..] if length & 0x80 != 0 => {
                    digits(&huffman_digits(&coded[..usize::from(length & 0x7f)]))
                }
                _ => 0,
            }
        })
    }

    /// All payload of DATA.
    pub fn body(&self) -> Vec<u8> {
        let data = self.frames.iter().filter(|frame| frame.kind == kind::DATA);
        data.flat_map(|frame| frame.payload.clone()).collect()
    }

    /// The code of RST_STREAM, if there was one.
    pub fn reset(&self) -> Option<u32> {
        self.frames.iter().find(|frame| frame.kind == kind::RESET)?.code()
    }
}

fn digits(text: &[u8]) -> u16 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The digits in Huffman's code: 0 to 2 are five bits, 3 to 9 six.
fn huffman_digits(coded: &[u8]) -> Vec<u8> {
    let bits: Vec<bool> =
        coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 == 1)).collect();
    let number = |bits: &[bool]| bits.iter().fold(0u8, |sum, bit| sum << 1 | u8::from(*bit));
    let mut rest = bits.as_slice();
    let mut out = Vec::new();
    while rest.len() >= 5 && out.len() < 3 {
        let five = number(&rest[..5]);
        if five <= 2 {
            out.push(b'0' + five);
            rest = &rest[5..];
        } else {
            let Some(six) = rest.get(..6) else { break };
            out.push(b'3' + number(six).wrapping_sub(0x19));
            rest = &rest[6..];
        }
    }
    out
}

impl FrameClient {
    /// Connects and begins with the preface and empty SETTINGS.
    #[track_caller]
    pub fn connect(to: impl Into<Peer>) -> FrameClient {
        let mut client = FrameClient::bare(to);
        client.send_bytes(PREFACE);
        client.send(Frame::new(kind::SETTINGS, 0, 0, []));
        client
    }

    /// Connects and says nothing.
    #[track_caller]
    pub fn bare(to: impl Into<Peer>) -> FrameClient {
        let peer = to.into();
        let stream = Stream::connect(&peer);
        let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {peer:?}: {error}"));
        FrameClient { stream, received: Vec::new(), next: 1 }
    }

    /// The connection itself.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("the server takes what is sent");
    }

    /// Sends bytes, or says why not.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame.
    #[track_caller]
    pub fn send(&mut self, frame: Frame) {
        self.send_bytes(&frame.bytes());
    }

    /// Sends a header list on a new stream; its number.
    #[track_caller]
    pub fn request(&mut self, block: &[u8], flags: u8) -> u32 {
        let id = self.next;
        self.next += 2;
        self.send(Frame::new(kind::HEADERS, flags | END_HEADERS, id, block));
        id
    }

    /// Gets a path.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer2 {
        let id = self.request(&get_block(path, &[]), END_STREAM);
        self.answer(id)
    }

    /// Sends a request with a body in one piece.
    #[track_caller]
    pub fn post(&mut self, path: &str, more: &[(&str, &str)], body: &[u8]) -> Answer2 {
        let id = self.request(&request_block("POST", path, more), 0);
        self.send(Frame::new(kind::DATA, END_STREAM, id, body));
        self.answer(id)
    }

    /// The next frame; `None` when the server has closed.
    ///
    /// # Errors
    /// As reading from a socket.
    pub fn try_read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.cut() {
                return Ok(Some(frame));
            }
            let mut buffer = [0; 16384];
            let n = self.stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(None);
            }
            self.received.extend_from_slice(&buffer[..n]);
        }
    }

    fn cut(&mut self) -> Option<Frame> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *self.received.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.received.get(9..9 + length)?.to_vec();
        self.received.drain(..9 + length);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        Some(Frame { kind, flags, stream, payload })
    }

    /// The next frame.
    #[track_caller]
    pub fn read(&mut self) -> Frame {
        match self.try_read() {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the server closed the connection"),
            Err(error) => panic!("no frame came: {error}"),
        }
    }

    /// Reads until a frame of this type; what came before is dropped.
    #[track_caller]
    pub fn read_kind(&mut self, kind: u8) -> Frame {
        let end = Instant::now() + patience();
        loop {
            let frame = self.read();
            if frame.kind == kind {
                return frame;
            }
            assert!(Instant::now() < end, "no frame of type {kind} came");
        }
    }

    /// Reads a stream to its end, giving the server room to send.
    #[track_caller]
    pub fn answer(&mut self, id: u32) -> Answer2 {
        let mut answer = Answer2::default();
        loop {
            let frame = self.read();
            if frame.kind == kind::GO_AWAY {
                panic!("the server leaves with {:?} {:?}", frame.code(), answer.frames);
            }
            if frame.stream != id {
                continue;
            }
            if frame.kind == kind::DATA && !frame.payload.is_empty() {
                let more = (frame.payload.len() as u32).to_be_bytes();
                for stream in [0, id] {
                    let update = Frame::new(kind::WINDOW_UPDATE, 0, stream, more);
                    // The server may be done with all of it already.
                    let _ = self.try_send_bytes(&update.bytes());
                }
            }
            let is_body = matches!(frame.kind, kind::DATA | kind::HEADERS);
            let is_last = is_body && frame.flags & END_STREAM != 0 || frame.kind == kind::RESET;
            answer.frames.push(frame);
            if is_last {
                return answer;
            }
        }
    }

    /// Reads until the server leaves; the code that it gives.
    #[track_caller]
    pub fn read_go_away(&mut self) -> u32 {
        self.read_kind(kind::GO_AWAY).code().expect("GOAWAY has a code")
    }

    /// Reads until the server closes the connection.
    #[track_caller]
    pub fn read_close(&mut self) {
        loop {
            match self.try_read() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the connection stays open: {error}"),
            }
        }
    }
}
