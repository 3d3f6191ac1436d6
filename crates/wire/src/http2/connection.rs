//! One side of a connection: frames in, events out.
//!
//! ```text
//! PREFACE -> HEAD -+-> DATA ----------------------+-> PADDING -> HEAD
//!             ^    +-> PREFIX -> BLOCK -----------+
//!             |    +-> CONTROL (whole) -----------+
//!             |    +-> SKIP ----------------------+
//!             +------------------------------------
//! ```
//!
//! A stream is open from its HEADERS until both sides have ended it or one has reset it:
//!
//! ```text
//! idle --HEADERS--> open --END_STREAM from one side--> half closed --from the other--> closed
//!                    +-----------------RST_STREAM from either side-----------------------^
//! ```
//!
//! What a peer can make us hold: one control frame (16 KiB), the undecoded rest of a
//! header field, one header list, the compression table (4 KiB), 48 bytes per open stream. What it
//! can make us do is bounded by [`Rules`] and by the accounts of `budget`; whoever overdraws them
//! is told "http2 flood detected" and leaves.

mod blocks;
mod control;

use super::HeaderList;
use super::frame::{self, Code, FrameHead, HEAD, Kind, PAYLOAD, WINDOW, WINDOW_MAX, flag, setting};
use super::hpack::{self, BadBlock, Decoder};
use super::streams::{Peer, Stream, Streams};
use std::borrow::Cow;

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// What we allow the peer.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of each stream's window before anybody reads its body.
    pub initial_window: u32,
    /// Streams that the peer may have open at a time.
    pub concurrent: u32,
    /// Limits on header lists.
    pub lists: hpack::Limits,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A header list is complete ([`Connection::list`]): of a server, a new request's; of a
    /// client, an answer's, perhaps an interim one.
    Head { stream: u32, end: bool },
    /// The fields after a body are complete ([`Connection::list`]); the stream's other side has
    /// ended.
    Trailers { stream: u32 },
    /// A part of a body lies in the input from `from` to `to`.
    Data { stream: u32, from: usize, to: usize, end: bool },
    /// The peer gave the stream up, with this code.
    Reset { stream: u32, code: u32 },
    /// The peer broke a rule on a stream, which we have reset.
    Failed { stream: u32, fault: Fault },
    /// A stream was refused; the peer may try again.
    Refused(Fault),
    /// More may be sent, on some stream.
    Room,
    /// The peer takes no streams with numbers beyond this one, for this reason.
    GoAway { last: u32, code: u32 },
}

/// A broken rule; the text is nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    pub text: Cow<'static, str>,
}

impl Fault {
    fn new(code: Code, text: &'static str) -> Fault {
        Fault { code, text: Cow::Borrowed(text) }
    }

    fn with(code: Code, text: String) -> Fault {
        Fault { code, text: Cow::Owned(text) }
    }

    /// Too much work for too little.
    fn flood() -> Fault {
        Fault::new(Code::EnhanceYourCalm, "http2 flood detected")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preface,
    Head,
    /// Length of padding and priority, before a header block.
    Prefix,
    Data,
    Block,
    Control,
    Skip,
}

/// A header block that is being received.
#[derive(Clone, Copy, Debug)]
struct Block {
    stream: u32,
    end: bool,
    what: BlockOf,
    /// CONTINUATION frames without a byte.
    empty: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockOf {
    Head,
    Trailers,
    /// Decoded, because the tables must stay alike, and forgotten.
    Nobody,
}

/// Accounts of work that a peer causes.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Bytes received, and sent in answer to control frames.
    total: u64,
    /// Bytes among them that served a purpose.
    payload: u64,
    /// Streams that ended before their answer did, less those that ended well.
    aborted: u32,
    priorities: u32,
    refused: u32,
    /// Streams begun with the bytes of one turn.
    new_streams: u32,
}

/// Bytes of control frames that are free; beyond them every byte of payload pays for eight.
const FREE_OVERHEAD: u64 = 1 << 20;
/// CONTINUATION frames without a byte, per block.
const EMPTY_CONTINUATIONS: u32 = 16;

/// Bytes for which each of its buffers keeps room while a connection rests.
const RESTING: usize = 1024;

/// One side of a connection.
pub struct Connection {
    role: Role,
    rules: Rules,
    /// Frames to be sent.
    pub out: Vec<u8>,
    stage: Stage,
    /// The preface, a frame's head, prefix or payload that is not whole yet.
    held: Vec<u8>,
    head: FrameHead,
    /// Bytes of the frame's payload still to come, without its padding.
    left: usize,
    padding: usize,
    block: Option<Block>,
    decoder: Decoder,
    list: HeaderList,
    streams: Streams,
    /// The highest stream that the peer began.
    last_peer: u32,
    /// The next stream that we begin.
    next_local: u32,
    send_window: i64,
    recv_window: i64,
    peer: Peer,
    settings_acked: bool,
    /// The stream that the peer reset last.
    reset_by_peer: u32,
    table_changed: bool,
    leaving: bool,
    budget: Budget,
}

impl Connection {
    /// A connection whose first frames (and a client's preface) are in `out`.
    pub fn new(role: Role, rules: Rules) -> Connection {
        let mut out = Vec::with_capacity(128);
        let window = (setting::INITIAL_WINDOW_SIZE, rules.initial_window);
        match role {
            Role::Server => {
                let streams = (setting::MAX_CONCURRENT_STREAMS, rules.concurrent);
                let frames = (setting::MAX_FRAME_SIZE, frame::PAYLOAD_MAX as u32);
                frame::put_settings(&mut out, &[streams, window, frames]);
            }
            Role::Client => {
                out.extend_from_slice(frame::PREFACE);
                frame::put_settings(&mut out, &[(setting::ENABLE_PUSH, 0), window]);
            }
        }
        frame::put_window_update(&mut out, 0, (WINDOW_MAX - WINDOW) as u32);
        let stage = if role == Role::Server { Stage::Preface } else { Stage::Head };
        Connection {
            role,
            rules,
            out,
            stage,
            held: Vec::new(),
            head: FrameHead { length: 0, kind: Kind::Unknown, flags: 0, stream: 0 },
            left: 0,
            padding: 0,
            block: None,
            decoder: Decoder::default(),
            list: HeaderList::default(),
            streams: Streams::default(),
            last_peer: 0,
            next_local: 1,
            send_window: WINDOW,
            recv_window: WINDOW_MAX,
            peer: Peer::default(),
            settings_acked: false,
            reset_by_peer: 0,
            table_changed: false,
            leaving: false,
            budget: Budget {
                total: 0,
                payload: 0,
                aborted: 0,
                priorities: rules.concurrent.max(100),
                refused: 0,
                new_streams: 0,
            },
        }
    }

    /// Takes bytes until there is something to tell. How many were used, and what happened;
    /// without an event all were used. The range of [`Event::Data`] counts from the start of
    /// `input`.
    ///
    /// # Errors
    /// What ends the connection: say so with [`Connection::go_away`], send, and close.
    pub fn receive(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Fault> {
        let mut at = 0;
        loop {
            let before = at;
            let event = self.step(input, &mut at)?;
            self.budget.total += (at - before) as u64;
            if event.is_some() {
                return Ok((at, event));
            }
            let may_go_on = at < input.len() || self.is_done_with_payload();
            if !may_go_on {
                return Ok((at, None));
            }
        }
    }

    /// To be called for each piece of input, before or after it.
    ///
    /// # Errors
    /// The peer causes too much work.
    pub fn turn(&mut self) -> Result<(), Fault> {
        self.budget.new_streams = 0;
        match self.budget.total / 8 > self.budget.payload + FREE_OVERHEAD {
            true => Err(Fault::flood()),
            false => Ok(()),
        }
    }

    /// The header list of the last [`Event::Head`] or [`Event::Trailers`].
    pub fn list(&self) -> &HeaderList {
        &self.list
    }

    /// True within a frame or a header block.
    pub fn is_within_frame(&self) -> bool {
        self.stage != Stage::Head || !self.held.is_empty() || self.block.is_some()
    }

    /// Gives back the room that a busy time took, but for that of `out`, which is the caller's.
    pub fn rest(&mut self) {
        let vectors = [&mut self.held, &mut self.list.text];
        for bytes in vectors.into_iter().filter(|bytes| bytes.capacity() > RESTING) {
            bytes.shrink_to(RESTING);
        }
        self.decoder.rest();
        self.streams.rest();
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// True when the peer has ended its side of the stream, or the stream is gone.
    pub fn has_received_end(&self, stream: u32) -> bool {
        self.streams.find(stream).is_none_or(|stream| stream.received_end)
    }

    /// True when more streams may be begun by us.
    pub fn may_open(&self) -> bool {
        let room = self.streams.len() < self.peer.max_streams.min(self.rules.concurrent) as usize;
        room && !self.leaving && self.next_local <= WINDOW_MAX as u32
    }

    /// How many streams the peer lets us have at a time; `None` before it has said anything.
    pub fn peer_streams(&self) -> Option<u32> {
        self.peer.is_known.then_some(self.peer.max_streams)
    }

    /// Begins a stream.
    pub fn open(&mut self) -> u32 {
        let id = self.next_local;
        self.next_local += 2;
        let window = i64::from(self.rules.initial_window);
        self.streams.push(Stream::new(id, self.peer.initial_window, window));
        id
    }

    /// Sends a header list, encoded as `block`. False when the stream is gone.
    pub fn send_head(&mut self, stream: u32, block: &[u8], end: bool) -> bool {
        if self.streams.find(stream).is_none() {
            return false;
        }
        let mut prefix: &[u8] = &[];
        if std::mem::take(&mut self.table_changed) {
            prefix = &[0x20];
        }
        let max = self.peer.max_frame - prefix.len();
        let first = block.len().min(max);
        let mut flags = if end { flag::END_STREAM } else { 0 };
        if first == block.len() {
            flags |= flag::END_HEADERS;
        }
        frame::put_head(&mut self.out, prefix.len() + first, Kind::Headers, flags, stream);
        self.out.extend_from_slice(prefix);
        self.out.extend_from_slice(&block[..first]);
        let mut rest = &block[first..];
        while !rest.is_empty() {
            let length = rest.len().min(self.peer.max_frame);
            let flags = if length == rest.len() { flag::END_HEADERS } else { 0 };
            frame::put_head(&mut self.out, length, Kind::Continuation, flags, stream);
            self.out.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
        self.budget.payload += block.len() as u64;
        if end {
            self.ended(stream);
        }
        true
    }

    /// How many bytes of body may be sent on the stream in one frame; 0: wait for
    /// [`Event::Room`].
    pub fn room(&self, stream: u32) -> usize {
        let Some(stream) = self.streams.find(stream) else { return 0 };
        let room = stream.send_window.min(self.send_window).max(0);
        // Longer frames would make streams wait for one another.
        (room as usize).min(PAYLOAD)
    }

    /// Writes the head of a DATA frame, whose payload the caller puts behind `out`. `length` is at
    /// most [`Connection::room`].
    pub fn send_data(&mut self, stream: u32, length: usize, end: bool) {
        let Some(found) = self.streams.get(stream) else { return };
        found.send_window -= length as i64;
        self.send_window -= length as i64;
        self.budget.payload += length as u64;
        let flags = if end { flag::END_STREAM } else { 0 };
        frame::put_head(&mut self.out, length, Kind::Data, flags, stream);
        if end {
            self.ended(stream);
        }
    }

    /// Lets the peer send so many bytes on the stream from now on, beyond those that wait; never
    /// takes back what it was allowed.
    pub fn allow(&mut self, stream: u32, bytes: i64) {
        let Some(found) = self.streams.get(stream).filter(|found| !found.received_end) else {
            return;
        };
        let more = bytes.min(WINDOW_MAX) - found.recv_window;
        if more > 0 {
            found.recv_window += more;
            frame::put_window_update(&mut self.out, stream, more as u32);
        }
    }

    /// Bytes that the peer may still send on the stream.
    pub fn allowed(&self, stream: u32) -> i64 {
        self.streams.find(stream).map_or(0, |stream| stream.recv_window)
    }

    /// Gives a stream up. Does nothing when it is over.
    pub fn reset(&mut self, stream: u32, code: Code) {
        if self.streams.find(stream).is_some() {
            frame::put_reset(&mut self.out, stream, code);
            self.streams.remove_reset(stream);
        }
    }

    /// Tells the peer that no further streams are served.
    pub fn go_away(&mut self, code: Code) {
        if !self.leaving {
            self.leaving = true;
            frame::put_go_away(&mut self.out, self.last_peer, code);
        }
    }

    /// True once either side has said that it leaves.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Sends a PING.
    pub fn ping(&mut self, payload: [u8; 8]) {
        frame::put_head(&mut self.out, 8, Kind::Ping, 0, 0);
        self.out.extend_from_slice(&payload);
    }

    /// Our side of a stream has ended.
    fn ended(&mut self, id: u32) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.sent_end = true;
        if stream.received_end {
            self.streams.remove(id);
            self.budget.aborted = self.budget.aborted.saturating_sub(1);
        }
    }

    /// The peer's side of a stream has ended.
    fn received_end(&mut self, id: u32) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.received_end = true;
        if stream.sent_end {
            self.streams.remove(id);
            self.budget.aborted = self.budget.aborted.saturating_sub(1);
        }
    }

    /// A stream ended before its answer: cheap for the peer, dear for us (CVE-2023-44487, and
    /// CVE-2025-8671 where the peer's faults make us reset it).
    fn aborted(&mut self) -> Result<(), Fault> {
        self.budget.aborted += 1;
        match self.role == Role::Server && self.budget.aborted > self.rules.concurrent.max(100) {
            true => Err(Fault::flood()),
            false => Ok(()),
        }
    }

    /// Resets a stream on which the peer broke a rule.
    fn fail(&mut self, stream: u32, fault: Fault) -> Result<Option<Event>, Fault> {
        self.reset(stream, fault.code);
        self.aborted()?;
        Ok(Some(Event::Failed { stream, fault }))
    }

    fn is_done_with_payload(&self) -> bool {
        match self.stage {
            Stage::Preface | Stage::Head => false,
            Stage::Prefix | Stage::Control => self.held.len() >= self.wanted(),
            Stage::Data | Stage::Block | Stage::Skip => self.left == 0 && self.padding == 0,
        }
    }

    /// Bytes that `held` must have before it can be looked at.
    fn wanted(&self) -> usize {
        match self.stage {
            Stage::Preface => frame::PREFACE.len(),
            Stage::Head => HEAD,
            Stage::Prefix => prefix_len(&self.head),
            _ => self.head.length,
        }
    }

    /// One step; `at` moves on by what it used.
    fn step(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Event>, Fault> {
        match self.stage {
            Stage::Preface => {
                let have = self.held.len();
                let fresh = (frame::PREFACE.len() - have).min(input.len() - *at);
                let fresh = &input[*at..*at + fresh];
                if frame::PREFACE[have..have + fresh.len()] != *fresh {
                    return Err(Fault::new(Code::Protocol, "invalid connection preface"));
                }
                self.hold(fresh, at);
                if self.held.len() == frame::PREFACE.len() {
                    self.held.clear();
                    self.stage = Stage::Head;
                }
                Ok(None)
            }
            Stage::Head => {
                if !self.collect(input, at) {
                    return Ok(None);
                }
                let head = self.held.first_chunk().map(FrameHead::parse);
                self.held.clear();
                match head {
                    Some(head) => self.begin(head),
                    None => Ok(None),
                }
            }
            Stage::Prefix => {
                if self.collect(input, at) {
                    self.prefix()?;
                }
                Ok(None)
            }
            Stage::Control => match self.collect(input, at) {
                true => self.control(),
                false => Ok(None),
            },
            Stage::Data => self.data(input, at),
            Stage::Block => self.fragment(input, at),
            Stage::Skip => {
                let skipped = (self.left + self.padding).min(input.len() - *at);
                *at += skipped;
                let of_payload = skipped.min(self.left);
                self.left -= of_payload;
                self.padding -= skipped - of_payload;
                if self.left + self.padding == 0 {
                    self.stage = Stage::Head;
                }
                Ok(None)
            }
        }
    }

    fn hold(&mut self, bytes: &[u8], at: &mut usize) {
        self.held.extend_from_slice(bytes);
        *at += bytes.len();
    }

    /// Collects what is wanted; true when it is there.
    fn collect(&mut self, input: &[u8], at: &mut usize) -> bool {
        let missing = self.wanted().saturating_sub(self.held.len());
        let fresh = missing.min(input.len() - *at);
        self.hold(&input[*at..*at + fresh], at);
        fresh == missing
    }

    /// A frame begins.
    fn begin(&mut self, head: FrameHead) -> Result<Option<Event>, Fault> {
        self.head = head;
        self.left = head.length;
        self.padding = 0;
        if let Some(block) = &self.block
            && (head.kind != Kind::Continuation || head.stream != block.stream)
        {
            let text = match head.kind {
                Kind::Continuation => "client sent CONTINUATION frame with incorrect identifier",
                _ => "client sent inappropriate frame while CONTINUATION was expected",
            };
            return Err(Fault::new(Code::Protocol, text));
        }
        let is_streamed = matches!(head.kind, Kind::Data | Kind::Headers | Kind::Continuation);
        if head.length > PAYLOAD && !(is_streamed && self.role == Role::Server) {
            let text = format!("client sent frame with too long payload {}", head.length);
            return Err(Fault::with(Code::FrameSize, text));
        }
        self.stage = match head.kind {
            Kind::Data => return self.begin_data(),
            Kind::Headers => self.begin_headers()?,
            Kind::Continuation => self.begin_continuation()?,
            Kind::PushPromise => {
                return Err(Fault::new(Code::Protocol, "client sent PUSH_PROMISE frame"));
            }
            Kind::Unknown => Stage::Skip,
            Kind::Priority | Kind::Reset | Kind::Ping | Kind::WindowUpdate => {
                self.fixed_length()?;
                Stage::Control
            }
            Kind::Settings | Kind::GoAway => Stage::Control,
        };
        Ok(None)
    }

    fn fixed_length(&self) -> Result<(), Fault> {
        let (name, length) = match self.head.kind {
            Kind::Priority => ("PRIORITY", 5),
            Kind::Reset => ("RST_STREAM", 4),
            Kind::Ping => ("PING", 8),
            _ => ("WINDOW_UPDATE", 4),
        };
        if self.head.length != length {
            let sent = self.head.length;
            let text = format!("client sent {name} frame with incorrect length {sent}");
            return Err(Fault::with(Code::FrameSize, text));
        }
        let of_connection = self.head.kind == Kind::Ping;
        let of_either = self.head.kind == Kind::WindowUpdate;
        if !of_either && (self.head.stream == 0) != of_connection {
            return Err(incorrect_identifier(name));
        }
        Ok(())
    }
}

fn incorrect_identifier(name: &str) -> Fault {
    Fault::with(Code::Protocol, format!("client sent {name} frame with incorrect identifier"))
}

/// Bytes before a header block: the length of padding, and a priority.
fn prefix_len(head: &FrameHead) -> usize {
    usize::from(head.has(flag::PADDED)) + if head.has(flag::PRIORITY) { 5 } else { 0 }
}

fn idle(name: &str, id: u32) -> Fault {
    Fault::with(Code::Protocol, format!("client sent {name} frame for idle stream {id}"))
}
