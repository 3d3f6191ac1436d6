//! HTTP/2 with a backend (`proxy_http_version 2`, `grpc_pass`): a request written as HTTP/1
//! becomes frames, and the frames of an answer become HTTP/1, which is what the rest of the module
//! reads.
//!
//! A connection serves one request at a time, as nginx's do, and is kept like any other; the state
//! of its protocol goes with it ([`upstream::Lease::attach`]). Answers are not held back by
//! windows but by not reading.

use super::attempt::Cause;
use super::pass::Call;
use super::request::Head;
use super::settings::Settings;
use super::translate::Fault;
use http::request_body::Stored;
use net::{Block, Data, OutQueue};
use session::log::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use upstream::Lease;
use wire::http1::{Known, status};
use wire::http2::frame::WINDOW_MAX;
use wire::http2::hpack::{self, Limits};
use wire::http2::{Connection as Codec, Event, HeaderList, Role, Rules};

/// Bytes of a request's body that wait for the backend's windows.
const AHEAD: u64 = 64 * 1024;
/// Fields of one answer that are kept.
const MOST_FIELDS: usize = 1000;

/// A connection that speaks HTTP/2, and the one request that is under way on it.
pub(super) struct Conversation {
    codec: Codec,
    stream: u32,
    is_head: bool,
    /// What of the request's body the windows hold back.
    body: OutQueue,
    body_ends: bool,
    sent_end: bool,
    stage: Stage,
    /// Bytes of the answer's body that are announced and not here yet.
    missing: Option<u64>,
    /// The connection can be used again.
    keeps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    /// A body of announced length.
    Length,
    /// A body that is passed on in chunks.
    Chunks,
    /// No body is expected.
    Bodiless,
    Over,
}

/// A conversation in frames: the connection's own, or its first.
pub(super) type Frames = Rc<RefCell<Conversation>>;

/// Begins the request on a connection that speaks HTTP/2.
pub(super) fn begin(
    settings: &Settings,
    call: &Call,
    lease: &mut Lease,
    head: &Head,
) -> Result<Frames, Cause> {
    let kept = lease.attached().and_then(|state| state.downcast::<RefCell<Conversation>>().ok());
    let frames = kept.unwrap_or_else(|| {
        let longest = settings.buffers.head;
        let fresh: Frames = Rc::new(RefCell::new(Conversation::new(longest)));
        lease.attach(fresh.clone());
        fresh
    });
    let is_bare = call.data.as_ref().is_none_or(Stored::is_empty) && !call.streamed;
    let secure = call.resolved.secure;
    let begun = frames.borrow_mut().begin(head, is_bare, secure);
    // A connection that takes no more is as good as closed.
    if begun { Ok(frames) } else { Err(Cause::Stale) }
}

impl Conversation {
    /// A conversation on a new connection; answers' heads are at most `longest` bytes.
    pub(super) fn new(longest: usize) -> Conversation {
        let lists = Limits { field: longest, list: longest, count: MOST_FIELDS };
        let rules = Rules { initial_window: WINDOW_MAX as u32, concurrent: 1, lists };
        Conversation {
            codec: Codec::new(Role::Client, rules),
            stream: 0,
            is_head: false,
            body: OutQueue::new(),
            body_ends: false,
            sent_end: false,
            stage: Stage::Over,
            missing: None,
            keeps: true,
        }
    }

    /// Begins a request whose head is written as HTTP/1; `ends`: it has no body. False when the
    /// connection takes no more.
    pub(super) fn begin(&mut self, head: &Head, ends: bool, secure: bool) -> bool {
        if !self.codec.may_open() {
            return false;
        }
        self.stream = self.codec.open();
        self.is_head = head.is_head;
        self.body = OutQueue::new();
        (self.body_ends, self.sent_end) = (ends, ends);
        self.stage = Stage::Head;
        self.missing = None;
        let block = encode(head, secure);
        self.codec.send_head(self.stream, &block, ends)
    }

    /// Adds to the request's body.
    pub(super) fn push(&mut self, data: impl Into<Data>) {
        self.body.push(data);
    }

    /// The request's body has ended.
    pub(super) fn end(&mut self) {
        self.body_ends = true;
    }

    /// True when more of the request's body is to be read from the client.
    pub(super) fn wants_body(&self) -> bool {
        !self.body_ends && self.body.len_bytes() < AHEAD
    }

    /// Bytes of the request's body that the windows hold back.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.body.len_bytes()
    }

    /// True when nothing of the request is left to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent_end
    }

    /// Moves to `out` what may be sent now.
    pub(super) fn pump(&mut self, out: &mut OutQueue) {
        while !self.sent_end && (self.body_ends || !self.body.is_empty()) {
            let room = self.codec.room(self.stream) as u64;
            let ends = self.body_ends && self.body.len_bytes() <= room;
            if room == 0 && !ends {
                break;
            }
            let mut length = self.body.len_bytes().min(room);
            self.codec.send_data(self.stream, length as usize, ends);
            self.sent_end = ends;
            self.flush_frames(out);
            while length > 0
                && let Some(data) = self.body.pop(length)
            {
                length -= data.len();
                out.push(data);
            }
        }
        self.flush_frames(out);
    }

    fn flush_frames(&mut self, out: &mut OutQueue) {
        if !self.codec.out.is_empty() {
            out.push(Block::copy_of(&self.codec.out));
            self.codec.out.clear();
        }
    }

    /// True when the answer is complete.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// True when the connection can be used again once the answer is complete.
    pub(super) fn keeps(&self) -> bool {
        self.keeps && !self.codec.is_leaving() && !(self.is_over() && self.codec.is_within_frame())
    }

    /// Appends to `out` what the input says, as HTTP/1.
    ///
    /// # Errors
    /// An answer that is none, or that will not come.
    pub(super) fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut at = 0;
        while at < input.len() {
            let (used, event) = self.codec.receive(&input[at..]).map_err(|fault| {
                self.keeps = false;
                Fault::Invalid(fault.text.replace("client ", "upstream "))
            })?;
            if let Some(event) = event {
                self.happened(event, &input[at..], out)?;
            }
            at += used;
        }
        if self.codec.allowed(self.stream) < WINDOW_MAX / 4 {
            self.codec.allow(self.stream, WINDOW_MAX);
        }
        Ok(())
    }

    fn happened(&mut self, event: Event, input: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match event {
            Event::Head { stream, end } if stream == self.stream => self.head(end, out),
            Event::Data { stream, from, to, end } if stream == self.stream => {
                self.data(&input[from..to], out)?;
                if end { self.ended(None, out) } else { Ok(()) }
            }
            Event::Trailers { stream } if stream == self.stream => {
                let mut fields = Vec::new();
                write_fields(self.codec.list(), &mut fields)?;
                self.ended(Some(fields), out)
            }
            Event::Reset { stream, code } if stream == self.stream => {
                self.keeps = false;
                if self.is_over() {
                    return Ok(());
                }
                let text = format!("upstream rejected request with error {code}");
                Err(match code {
                    // REFUSED_STREAM: it was not looked at (RFC 9113 section 8.7).
                    7 => Fault::Unserved(text),
                    _ => Fault::Invalid(text),
                })
            }
            Event::Failed { stream, fault } if stream == self.stream => {
                self.keeps = false;
                Err(Fault::Invalid(fault.text.replace("client ", "upstream ")))
            }
            Event::GoAway { last, code } => {
                self.keeps = false;
                let text = || format!("upstream sent goaway with error {code}");
                match last < self.stream && !self.is_over() {
                    // An orderly farewell that crossed our request (RFC 9113 section 6.8).
                    true if code == 0 => Err(Fault::Unserved(text())),
                    true => Err(Fault::Invalid(text())),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// A header list: the answer's head, or what comes before it.
    fn head(&mut self, end: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let list = self.codec.list();
        if list.is_cut() {
            return Err(Fault::TooBig);
        }
        let status = list.iter().find(|(name, _)| *name == b":status").map(|(_, value)| value);
        let code = status.and_then(|text| match text {
            [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        });
        let Some(code) = code else {
            let text = match status {
                None => "upstream sent no :status header".to_owned(),
                Some(text) => format!("upstream sent invalid :status \"{}\"", Bytes(text)),
            };
            return Err(Fault::Invalid(text));
        };
        let code: u16 = code;
        out.extend_from_slice(b"HTTP/1.1 ");
        match status::status_text(code) {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None => out.extend_from_slice(format!("{code} ").as_bytes()),
        }
        out.extend_from_slice(b"\r\n");
        write_fields(list, out)?;
        let length = list.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
        let length = length.and_then(|(_, value)| wire::http1::content_length(value));
        if code / 100 == 1 {
            out.extend_from_slice(b"\r\n");
            return match end || code == 101 {
                true => Err(Fault::Invalid("upstream sent no answer".to_owned())),
                false => Ok(()),
            };
        }
        self.stage = match length {
            _ if self.is_head || code == 204 || code == 304 => Stage::Bodiless,
            Some(_) => Stage::Length,
            None if end => {
                out.extend_from_slice(b"Content-Length: 0\r\n");
                Stage::Length
            }
            None => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Stage::Chunks
            }
        };
        if self.stage == Stage::Length {
            self.missing = Some(length.unwrap_or(0));
        }
        out.extend_from_slice(b"\r\n");
        if end { self.ended(None, out) } else { Ok(()) }
    }

    fn data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.stage {
            Stage::Head => {
                return Err(Fault::Invalid("upstream sent DATA before its head".to_owned()));
            }
            Stage::Length => {
                let missing = self.missing.unwrap_or(0);
                let fits = data.len().min(missing as usize);
                out.extend_from_slice(&data[..fits]);
                self.missing = Some(missing - fits as u64);
                if fits < data.len() {
                    self.keeps = false;
                    let text = "upstream sent response body larger than indicated content length";
                    return Err(Fault::Invalid(text.to_owned()));
                }
            }
            Stage::Chunks if !data.is_empty() => {
                out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Stage::Chunks => {}
            Stage::Bodiless | Stage::Over => self.keeps &= data.is_empty(),
        }
        Ok(())
    }

    fn ended(&mut self, trailers: Option<Vec<u8>>, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.stage == Stage::Chunks {
            out.extend_from_slice(b"0\r\n");
            out.extend_from_slice(&trailers.unwrap_or_default());
            out.extend_from_slice(b"\r\n");
        }
        let is_short = self.stage == Stage::Length && self.missing != Some(0);
        self.stage = Stage::Over;
        match is_short {
            true => {
                self.keeps = false;
                let text = "upstream sent response body smaller than indicated content length";
                Err(Fault::Invalid(text.to_owned()))
            }
            false => Ok(()),
        }
    }
}

/// A head of HTTP/1 that we wrote ourselves, as a header list (RFC 9113 section 8.3.1).
fn encode(head: &Head, secure: bool) -> Vec<u8> {
    let Head { bytes, keeps_host, .. } = head;
    let head = bytes.filled();
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = line
        .get(method.len() + 1..)
        .and_then(|rest| rest.strip_suffix(b" HTTP/1.1"))
        .unwrap_or(b"/");
    let mut out = Vec::with_capacity(head.len());
    hpack::encode(&mut out, b":method", method);
    hpack::encode(&mut out, b":scheme", if secure { b"https" } else { b"http" });
    hpack::encode(&mut out, b":path", target);
    let fields: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..at], line[at + 1..].trim_ascii_start()))
        })
        .collect();
    let host = fields.iter().find(|(name, _)| Known::of(name) == Known::Host);
    if let Some((_, host)) = host.filter(|_| !keeps_host) {
        hpack::encode(&mut out, b":authority", host);
    }
    for (name, value) in fields {
        match Known::of(name) {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => {}
            Known::Host if !keeps_host => {}
            Known::Te if !value.eq_ignore_ascii_case(b"trailers") => {}
            _ => hpack::encode(&mut out, name, value),
        }
    }
    out
}

/// Writes an answer's fields as lines.
fn write_fields(list: &HeaderList, out: &mut Vec<u8>) -> Result<(), Fault> {
    for (name, value) in list.iter() {
        if name.starts_with(b":") {
            continue;
        }
        let usual = |b: &u8| {
            matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9')
                || matches!(b, b'^' | b'_' | b'`' | b'a'..=b'z' | b'|' | b'~')
        };
        let broken = |b: &u8| matches!(b, 0 | b'\r' | b'\n');
        if !name.iter().all(usual) || value.iter().any(broken) {
            let (name, value) = (Bytes(name), Bytes(value));
            return Err(Fault::Invalid(format!(
                "upstream sent invalid header: \"{name}: {value}\""
            )));
        }
        match Known::of(name) {
            // They speak of connections, of which HTTP/2 knows nothing.
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => {}
            _ => {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    Ok(())
}
