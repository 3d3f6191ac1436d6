//! A scripted server of HTTP/2 in frames, as they come: it checks and keeps no windows.

use crate::Conversation;
use crate::frames::{END_HEADERS, END_STREAM, Frame, block, kind};

/// One connection of a scripted backend that speaks in frames.
pub struct FrameServer<'a> {
    /// The bytes below.
    pub talk: &'a mut Conversation,
}

impl<'a> FrameServer<'a> {
    /// Takes the preface and says empty SETTINGS.
    pub fn accept(talk: &'a mut Conversation) -> FrameServer<'a> {
        FrameServer::accept_with(talk, &[])
    }

    /// Takes the preface and says these SETTINGS: numbers and values.
    pub fn accept_with(talk: &'a mut Conversation, settings: &[(u16, u32)]) -> FrameServer<'a> {
        let mut server = FrameServer::silent(talk);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(number, value)| {
                [number.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()
            })
            .collect();
        server.send(Frame::new(kind::SETTINGS, 0, 0, payload));
        server
    }

    /// Takes the preface and says nothing.
    pub fn silent(talk: &'a mut Conversation) -> FrameServer<'a> {
        talk.read_exactly(24).expect("a preface");
        FrameServer { talk }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: Frame) {
        self.talk.send(frame.bytes());
    }

    /// Sends frames at once.
    pub fn send_all(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.talk.send(bytes);
    }

    /// Answers with 200 and this body.
    pub fn answer(&mut self, stream: u32, body: &str) {
        let head = Frame::new(kind::HEADERS, END_HEADERS, stream, block(&[(":status", "200")]));
        self.send_all(&[head, Frame::new(kind::DATA, END_STREAM, stream, body)]);
    }

    /// The next frame; `None` when the client has closed.
    pub fn try_read(&mut self) -> Option<Frame> {
        let head = self.talk.read_exactly(9).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = match length {
            0 => Vec::new(),
            _ => self.talk.read_exactly(length).ok()?,
        };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of a kind; `None` when the client has closed.
    pub fn try_read_kind(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.try_read()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The next frame of a kind.
    #[track_caller]
    pub fn read_kind(&mut self, kind: u8) -> Frame {
        self.try_read_kind(kind).expect("a frame")
    }

    /// Waits for a request; its stream.
    #[track_caller]
    pub fn head(&mut self) -> u32 {
        self.read_kind(kind::HEADERS).stream
    }

    /// The stream of the next request; `None` when the client has closed.
    pub fn try_head(&mut self) -> Option<u32> {
        Some(self.try_read_kind(kind::HEADERS)?.stream)
    }

    /// Waits for a part of a body.
    #[track_caller]
    pub fn data(&mut self) -> Frame {
        self.read_kind(kind::DATA)
    }
}
