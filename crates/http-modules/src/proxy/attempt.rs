//! Asking one peer: connect, send the request, read the head of the answer.

use super::http2::{self, Carried};
use super::pass::Call;
use super::request::{BodyFraming, Head};
use super::settings::{Settings, Speech};
use super::translate::{Fault, Translator};
use super::wrapping::{Wrapping, push_chunk, push_end, push_records, push_whole};
use http::Exchange;
use http::headers::Headers;
use http::request_body::{BodyError, Stored};
use net::{Block, Chunk, Data, OutQueue, Stream, Timer};
use session::log::Level;
use session::text::Span;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};
use system::errno::Errno;
use upstream::{Attempts, ConnectError, ConnectFailure, Connecting, Lease, PeerIndex};
use wire::gateway::fastcgi;
use wire::http1::{
    Field, Known, ParsedResponse, ResponseFraming, ResponseParser, StatusLine, Version,
    response_framing, token,
};

/// Bytes of a streamed body that wait for the peer before more is read from the client.
const STREAM_AHEAD: u64 = 64 * 1024;

/// Why there is no answer. Logged already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The peer refused, broke off or closed.
    Failed,
    /// The peer took too long.
    Timeout,
    /// The peer's answer is not one.
    InvalidHead,
    /// A kept connection was closed by the peer before our request reached it.
    Stale,
    /// The peer said that it did not look at the request.
    Unserved,
    /// The client closed its connection.
    ClientGone,
    /// The client's body could not be read on.
    ClientBody(BodyError),
    /// Our own fault: no descriptor, no such address.
    Ours,
}

/// What an answer comes over.
pub(super) enum Way {
    /// A connection that serves this request and no other.
    Own(Lease),
    /// HTTP/2: a connection that carries others as well.
    Shared(Carried),
}

impl Way {
    /// Nothing of the answer is left on the connection: it may be used again.
    pub(super) fn keep(self) {
        match self {
            Way::Own(lease) => lease.keep(),
            // Its connection is kept by those who carry it.
            Way::Shared(_) => {}
        }
    }

    fn reused(&self) -> bool {
        match self {
            Way::Own(lease) => lease.reused(),
            Way::Shared(carried) => carried.reused(),
        }
    }
}

/// An answer's head, and what follows it.
pub(super) struct Answer {
    pub(super) way: Way,
    pub(super) line: StatusLine,
    /// Where the head begins in the arena.
    pub(super) base: u32,
    pub(super) headers: Headers,
    pub(super) framing: ResponseFraming,
    /// Bytes received behind the head.
    pub(super) rest: Option<Chunk>,
    /// The request was sent to its end: the connection may be used again.
    pub(super) sent_whole: bool,
    /// A part of the client's body is still to be sent.
    pub(super) streaming: bool,
    /// The peer keeps the connection open.
    pub(super) keeps: bool,
    /// The client wanted to speak another protocol.
    pub(super) upgrade: bool,
    /// What makes HTTP of the rest of the answer, where the backend speaks another protocol.
    pub(super) translator: Option<Box<Translator>>,
}

impl Answer {
    /// True when nothing of the answer is left on the connection, as far as its protocol tells.
    pub(super) fn is_over(&self) -> bool {
        self.translator.as_ref().is_none_or(|translator| translator.is_over())
    }

    pub(super) fn status(&self) -> u16 {
        self.line.status
    }
}

/// What an attempt knows of itself, for the logs.
pub(super) struct Context<'a> {
    pub(super) settings: &'a Rc<Settings>,
    pub(super) started: u64,
    pub(super) name: Span,
    pub(super) target: Span,
    /// How the URL begins.
    pub(super) scheme: &'static str,
}

impl Context<'_> {
    /// The URL that the error log shows.
    pub(super) fn url(&self, x: &mut Exchange) -> Span {
        let mark = x.arena.mark();
        x.arena.push(self.scheme.as_bytes());
        x.arena.copy(self.name);
        if x.text(self.name).starts_with(b"unix:") {
            x.arena.push(b":");
        }
        x.arena.copy(self.target);
        x.arena.since(mark)
    }

    /// Logs with the URL of this attempt.
    pub(super) fn log(&self, x: &mut Exchange, level: Level, message: fmt::Arguments<'_>) {
        let url = self.url(x);
        x.upstream_log().url = Some(url);
        x.log_error(level, message);
    }

    /// What the last attempt was doing, after "while".
    pub(super) fn doing(&self, x: &mut Exchange) -> &'static str {
        match x.upstream_log().last().and_then(|last| last.connect_ms) {
            None => "connecting to upstream",
            Some(_) => "reading response header from upstream",
        }
    }
}

/// Asks `peer`.
pub(super) async fn attempt(
    context: &Context<'_>,
    x: &mut Exchange,
    call: &mut Call,
    attempts: &mut Attempts,
    peer: PeerIndex,
    head: Head,
) -> Result<Answer, Cause> {
    let settings = context.settings;
    let own = settings.own_connecting(x, call.resolved.secure);
    let how = own.as_deref().unwrap_or(&settings.connecting);
    let owner = how.owner;
    let way = match settings.speech.is_http2() {
        true => {
            let carried = http2::carry(context, how, x, call, attempts, peer, &head).await?;
            Way::Shared(carried)
        }
        false => {
            let kept = poll_fn(|cx| Poll::Ready(attempts.take_kept(cx, peer, owner))).await;
            Way::Own(match kept {
                Some(lease) => lease,
                // Boxed, so that the future of a request that finds a kept connection stays small.
                None => {
                    let secure = call.resolved.secure;
                    Box::pin(connect(context, how, x, attempts, peer, secure)).await?
                }
            })
        }
    };
    let elapsed = net::now().saturating_sub(context.started);
    if let Some(attempt) = x.upstream_log().last() {
        attempt.connect_ms = Some(elapsed);
    }
    let sent_before = call.sent;
    call.sent = true;
    // Boxed, so that the future around it stays of a size that allocators handle well.
    let mut head = Some(head);
    let mut dialogue = poll_fn(|cx| match head.take() {
        Some(head) => Poll::Ready(Box::new(Dialogue::new(cx, context, x, call, &way, head))),
        None => Poll::Pending,
    })
    .await;
    let outcome = poll_fn(|cx| match &way {
        Way::Own(lease) => dialogue.poll(cx, x, lease.stream()),
        Way::Shared(carried) => dialogue.poll_shared(cx, x, carried),
    })
    .await;
    if dialogue.timer.is_none() {
        x.timer().clear();
    }
    if let Err(Cause::Unserved) = outcome {
        // It may go to another backend, whatever it asks for.
        call.sent = sent_before || dialogue.taken;
    }
    let answer = outcome.and_then(|found| dialogue.answer(x, way, found));
    if answer.is_ok() {
        attempts.answered();
    }
    return_fields(std::mem::take(&mut dialogue.fields));
    answer
}

impl<'a> Dialogue<'a> {
    fn new(
        cx: &mut Task<'_>,
        context: &'a Context<'a>,
        x: &mut Exchange,
        call: &Call,
        way: &Way,
        head: Head,
    ) -> Dialogue<'a> {
        let mut out = OutQueue::new();
        let is_shared = matches!(way, Way::Shared(_));
        let wrapping = match &context.settings.speech {
            Speech::Other(gateway) if gateway.has_records() => Wrapping::Records,
            _ if call.framing == BodyFraming::Chunked => Wrapping::Chunks,
            _ => Wrapping::None,
        };
        let mut write_error = None;
        if let Way::Own(lease) = way {
            // Alone it can leave at once; what follows goes with it.
            match call.data.is_none() && !call.streamed && wrapping != Wrapping::Records {
                true => write_error = out.send(cx, lease.stream(), &head.bytes).err(),
                false => out.push(Block::copy_of(&head.bytes)),
            }
        }
        match (&call.data, wrapping) {
            // What carries the request has its body.
            _ if is_shared => {}
            (Some(data), Wrapping::Chunks) if !call.streamed => {
                push_whole(&mut out, data.data(), context.settings, x);
            }
            (Some(Stored::Memory(begun)), Wrapping::Chunks) => {
                push_chunk(&mut out, [begun.clone()]);
            }
            (Some(data), Wrapping::Records) => push_records(&mut out, data.data()),
            (Some(data), _) => out.push(data.data()),
            (None, _) => {}
        }
        if wrapping == Wrapping::Records && !call.streamed {
            out.push(Data::from(fastcgi::body_header(0).to_vec()));
        }
        let longest = context.settings.buffers.head;
        let translator = match &context.settings.speech {
            Speech::Http(_) => None,
            Speech::Other(gateway) => Some(Box::new(gateway.translator(x, longest))),
        };
        Dialogue {
            context,
            reused: way.reused(),
            out,
            // A streamed body follows the head piece by piece.
            streaming: call.streamed,
            wrapping,
            translator,
            block: None,
            parser: ResponseParser::default(),
            fields: Vec::new(),
            timer: (call.streamed || !x.has_timer()).then(Timer::new),
            armed: None,
            write_error,
            is_head: head.is_head,
            upgrade: head.upgrade,
            hinted: 0,
            fault: None,
            seen: 0,
            taken: false,
            marked: 0,
        }
    }

    /// The answer whose head was found.
    fn answer(&mut self, x: &mut Exchange, way: Way, found: Found) -> Result<Answer, Cause> {
        let (length, line, framing) = found;
        // The dialogue ends with a head only when it holds the block that the head was found in.
        let Some(block) = self.block.take() else { return Err(Cause::Failed) };
        let base = x.arena.push(&block.filled()[..length]).at;
        let headers = Headers::from_codec(&self.fields, base);
        let mut rest = block.freeze();
        rest.advance(length);
        let mut keeps = keeps(x, &line, &headers);
        let translator = self.translator.take();
        let mut received = length + rest.len();
        if let Some(translator) = &translator {
            received = self.seen;
            keeps = translator.keeps();
            if framing == ResponseFraming::None && !rest.is_empty() {
                // Programs send bodies to HEAD as well.
                rest.advance(rest.len());
                keeps = false;
            }
        }
        let mut sent = self.out.sent();
        if let Way::Shared(carried) = &way {
            (sent, received) = (carried.sent(), carried.take_received() as usize);
        }
        let elapsed = net::now().saturating_sub(self.context.started);
        if let Some(attempt) = x.upstream_log().last() {
            attempt.status = Some(line.status);
            attempt.header_ms = Some(elapsed);
            attempt.bytes_sent = sent;
            attempt.bytes_received = received as u64;
        }
        Ok(Answer {
            way,
            line,
            base,
            headers,
            framing,
            rest: Some(rest).filter(|rest| !rest.is_empty()),
            sent_whole: self.out.is_empty() && !self.streaming,
            streaming: self.streaming,
            keeps,
            upgrade: self.upgrade,
            translator,
        })
    }
}

/// Whether the peer said that the connection stays open.
fn keeps(x: &Exchange, line: &StatusLine, headers: &Headers) -> bool {
    let mut keeps = line.version >= Version::HTTP_11;
    for field in headers.all(Known::Connection) {
        let value = x.text(field.value);
        if token::has_token(value, "close") {
            return false;
        }
        keeps |= token::has_token(value, "keep-alive");
    }
    keeps
}

thread_local! {
    static FIELDS: RefCell<Vec<Vec<Field>>> = const { RefCell::new(Vec::new()) };
}

fn lend_fields() -> Vec<Field> {
    FIELDS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(32))
}

fn return_fields(fields: Vec<Field>) {
    FIELDS.with_borrow_mut(|pool| {
        if pool.len() < 64 && fields.capacity() > 0 {
            pool.push(fields);
        }
    });
}

/// Makes a new connection, unless the client leaves meanwhile.
pub(super) async fn connect(
    context: &Context<'_>,
    how: &Connecting,
    x: &mut Exchange,
    attempts: &mut Attempts,
    peer: PeerIndex,
    secure: bool,
) -> Result<Lease, Cause> {
    let watched = !context.settings.ignore_client_abort && !x.background;
    let side = x.side();
    let outcome = {
        let mut connecting = std::pin::pin!(attempts.connect(peer, how));
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = connecting.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            match watched && side.poll_gone(cx).is_ready() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    };
    match outcome {
        Some(Ok(lease)) => {
            if secure && !lease.reused() {
                super::secure::secure(context, x, &lease).await?;
            }
            Ok(lease)
        }
        Some(Err(error)) => Err(log_connect(context, x, &error)),
        None => {
            let message = "client prematurely closed connection, so upstream connection is closed \
                           too while connecting to upstream";
            context.log(x, Level::Info, format_args!("{message}"));
            Err(Cause::ClientGone)
        }
    }
}

fn log_connect(context: &Context<'_>, x: &mut Exchange, error: &ConnectError) -> Cause {
    let name = String::from_utf8_lossy(x.text(context.name)).into_owned();
    let (message, errno) = (error.message(&name), error.errno);
    let doing = "while connecting to upstream";
    if error.kind == ConnectFailure::Exhausted {
        context.log(x, Level::Alert, format_args!("{message} {doing}"));
        return Cause::Ours;
    }
    context.log(x, error.level(), format_args!("{message} ({errno}) {doing}"));
    match error.kind {
        ConnectFailure::Refused => Cause::Failed,
        ConnectFailure::Timeout => Cause::Timeout,
        ConnectFailure::Ours | ConnectFailure::Exhausted => Cause::Ours,
    }
}

/// Where a head was found: its length, its status line and the framing of what follows.
pub(super) type Found = (usize, StatusLine, ResponseFraming);

/// The request on its way out and the head on its way in, at once.
pub(super) struct Dialogue<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) reused: bool,
    out: OutQueue,
    pub(super) streaming: bool,
    wrapping: Wrapping,
    translator: Option<Box<Translator>>,
    pub(super) block: Option<Block>,
    parser: ResponseParser,
    fields: Vec<Field>,
    /// A timer of our own while the client's is in use for its body, or not ours to use.
    timer: Option<Timer>,
    pub(super) armed: Option<Waiting>,
    write_error: Option<io::Error>,
    is_head: bool,
    upgrade: bool,
    /// Bytes of early hints so far.
    hinted: usize,
    /// What was wrong with an answer that is not HTTP.
    fault: Option<Cause>,
    /// Bytes read of an answer that is not HTTP.
    seen: usize,
    /// A part of the client's body went to this peer and cannot go to another.
    pub(super) taken: bool,
    /// HTTP/2: bytes sent when the deadline was set.
    pub(super) marked: u64,
}

/// Passes on what a backend says ahead of its answer, within the size of a head.
fn hints(settings: &Settings, x: &mut Exchange, head: &[u8], fields: &[Field], all: &mut usize) {
    *all += head.len();
    if *all > settings.buffers.head {
        x.log_error(Level::Info, format_args!("upstream sent too big early hints"));
        return;
    }
    if x.location.settings.early_hints.is_empty() || !x.is_main() {
        return;
    }
    let base = x.arena.push(head).at;
    let mut headers = Headers::from_codec(fields, base);
    let arena = &x.arena;
    headers.retain(|field| !settings.hide.hides(field.known, field.name(arena)));
    let fields: Vec<http::Field> = headers.iter().copied().collect();
    x.send_early_hints(&fields);
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Send,
    Read,
}

impl Dialogue<'_> {
    fn poll(
        &mut self,
        cx: &mut Task<'_>,
        x: &mut Exchange,
        stream: &Stream,
    ) -> Poll<Result<Found, Cause>> {
        if (self.streaming || !self.out.is_empty())
            && self.write_error.is_none()
            && let Err(cause) = self.send(cx, x, stream)
        {
            return Poll::Ready(Err(cause));
        }
        loop {
            let step = self.config().step.max(self.config().head);
            let read = match &mut self.block {
                _ if self.translator.is_some() => self.read_other(cx, x, stream),
                Some(block) => stream.poll_fill(cx, block),
                None => match stream.poll_lend(cx, step) {
                    Poll::Ready(Ok(block)) => {
                        let n = block.len();
                        self.block = Some(block);
                        Poll::Ready(Ok(n))
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
            };
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.closed(x))),
                Poll::Ready(Ok(_)) => {
                    self.armed = None;
                    if let Some(cause) = self.fault.take() {
                        return Poll::Ready(Err(cause));
                    }
                    if let Some(outcome) = self.parse(x) {
                        return Poll::Ready(outcome);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(x, &error))),
                Poll::Pending => break,
            }
        }
        if let Some(error) = self.write_error.take() {
            return Poll::Ready(Err(self.unsendable(x, &error)));
        }
        let waiting = match self.out.is_empty() {
            false => Waiting::Send,
            true => Waiting::Read,
        };
        self.wait(cx, x, waiting)
    }

    /// Reads what is not HTTP. The block appears with the head in it; a fault is kept for the
    /// caller.
    fn read_other(
        &mut self,
        cx: &mut Task<'_>,
        x: &mut Exchange,
        stream: &Stream,
    ) -> Poll<io::Result<usize>> {
        let input = ready!(stream.poll_lend(cx, self.config().step.max(self.config().head)))?;
        let Some(translator) = &mut self.translator else { return Poll::Ready(Ok(input.len())) };
        self.seen += input.len();
        let mut out = Vec::new();
        let translated = translator.translate(input.filled(), &mut out);
        for complaint in translator.take_complaints() {
            let doing = "while reading response header from upstream";
            self.context.log(x, Level::Error, format_args!("{complaint} {doing}"));
        }
        match translated {
            Ok(()) if out.is_empty() => {}
            Ok(()) => self.block = Some(Block::copy_of(&out)),
            Err(Fault::TooBig) => self.fault = Some(self.too_big(x)),
            Err(Fault::Invalid(message)) => {
                if !message.is_empty() {
                    let doing = "while reading response header from upstream";
                    self.context.log(x, Level::Error, format_args!("{message} {doing}"));
                }
                self.fault = Some(Cause::InvalidHead);
            }
        }
        Poll::Ready(Ok(input.len()))
    }

    fn config(&self) -> &super::settings::Buffers {
        &self.context.settings.buffers
    }

    /// Sends what can be sent; reads on in the client's body when it is streamed.
    fn send(&mut self, cx: &mut Task<'_>, x: &mut Exchange, stream: &Stream) -> Result<(), Cause> {
        loop {
            let starving = self.take_body(cx, x)?;
            let before = self.out.sent();
            let flushed = self.out.poll_flush(cx, stream);
            if self.out.sent() > before {
                self.armed = None;
            }
            match flushed {
                Poll::Ready(Ok(())) if self.streaming && !starving => {}
                Poll::Ready(Err(error)) => {
                    // The peer may have answered before it closed: look for that first.
                    self.write_error = Some(error);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Queues what the client has sent by now; true when more is to come but not there.
    fn take_body(&mut self, cx: &mut Task<'_>, x: &mut Exchange) -> Result<bool, Cause> {
        let mut starving = false;
        let mut ended = false;
        let mut pieces: SmallVec<[Chunk; 4]> = SmallVec::new();
        let mut bytes = self.out.len_bytes();
        while self.streaming && !ended && bytes < STREAM_AHEAD {
            match x.poll_body(cx) {
                Poll::Ready(Ok(Some(chunk))) => {
                    bytes += chunk.len() as u64;
                    self.taken = true;
                    pieces.push(chunk);
                }
                Poll::Ready(Ok(None)) => ended = true,
                Poll::Ready(Err(error)) => return Err(Cause::ClientBody(error)),
                Poll::Pending => {
                    starving = true;
                    break;
                }
            }
        }
        match self.wrapping {
            Wrapping::Chunks if pieces.is_empty() => {}
            Wrapping::Chunks => push_chunk(&mut self.out, pieces),
            Wrapping::Records => {
                pieces.into_iter().for_each(|piece| push_records(&mut self.out, piece.into()));
            }
            Wrapping::None => pieces.into_iter().for_each(|piece| self.out.push(piece)),
        }
        if ended {
            self.streaming = false;
            match self.wrapping {
                Wrapping::Chunks => push_end(&mut self.out, self.context.settings, x),
                Wrapping::Records => self.out.push(Data::from(fastcgi::body_header(0).to_vec())),
                Wrapping::None => {}
            }
        }
        Ok(starving)
    }

    /// Looks for the head in what was received; `None`: more is needed.
    pub(super) fn parse(&mut self, x: &mut Exchange) -> Option<Result<Found, Cause>> {
        if self.fields.capacity() == 0 {
            // Not before there is something to read: a request that waits needs no list.
            self.fields = lend_fields();
        }
        loop {
            let block = self.block.as_mut()?;
            match self.parser.parse(block.filled(), &mut self.fields) {
                Ok(ParsedResponse::Complete { len, line }) => {
                    if len > self.context.settings.buffers.head {
                        return Some(Err(self.too_big(x)));
                    }
                    if matches!(line.status, 100 | 102..=199) {
                        // An interim answer; the real one follows (RFC 9110 section 15.2).
                        if line.status == 103 {
                            let head = &block.filled()[..len];
                            hints(self.context.settings, x, head, &self.fields, &mut self.hinted);
                        }
                        block.consume(len);
                        self.parser = ResponseParser::default();
                        if block.is_empty() {
                            return None;
                        }
                        continue;
                    }
                    if line.status == 101 && !self.upgrade {
                        let message = "upstream switched protocols unasked while reading response \
                                       header from upstream";
                        self.context.log(x, Level::Error, format_args!("{message}"));
                        return Some(Err(Cause::InvalidHead));
                    }
                    let head = &block.filled()[..len];
                    return Some(
                        response_framing(line.status, self.is_head, false, head, &self.fields)
                            .map(|framing| (len, line, framing))
                            .map_err(|bad| self.invalid(x, &bad)),
                    );
                }
                Ok(ParsedResponse::Partial) => {
                    let full = block.len() >= self.context.settings.buffers.head;
                    return full.then(|| Err(self.too_big(x)));
                }
                Err(bad) => return Some(Err(self.invalid(x, &bad))),
            }
        }
    }

    pub(super) fn too_big(&self, x: &mut Exchange) -> Cause {
        let message = "upstream sent too big header while reading response header from upstream";
        self.context.log(x, Level::Error, format_args!("{message}"));
        Cause::InvalidHead
    }

    fn invalid(&self, x: &mut Exchange, bad: &wire::http1::BadResponse) -> Cause {
        let mut text = Vec::new();
        let head = self.block.as_ref().map_or(&b""[..], Block::filled);
        bad.describe(head, &self.fields, &mut text);
        let text = session::log::Bytes(&text);
        let doing = "while reading response header from upstream";
        self.context.log(x, Level::Error, format_args!("{text} {doing}"));
        Cause::InvalidHead
    }

    /// The peer closed before its head was complete.
    fn closed(&mut self, x: &mut Exchange) -> Cause {
        match self.may_be_stale() {
            true => Cause::Stale,
            false => self.log_closed(x),
        }
    }

    /// Nothing was said on a connection that served others before.
    fn may_be_stale(&self) -> bool {
        let nothing = self.seen == 0 && self.block.as_ref().is_none_or(Block::is_empty);
        self.reused && nothing && !self.taken
    }

    pub(super) fn log_closed(&self, x: &mut Exchange) -> Cause {
        let message = "upstream prematurely closed connection while reading response header from \
                       upstream";
        self.context.log(x, Level::Error, format_args!("{message}"));
        Cause::Failed
    }

    fn broken(&mut self, x: &mut Exchange, error: &io::Error) -> Cause {
        match self.may_be_stale() {
            true => Cause::Stale,
            false => self.log_broken(x, Errno::from(error)),
        }
    }

    pub(super) fn log_broken(&self, x: &mut Exchange, errno: Errno) -> Cause {
        let doing = "while reading response header from upstream";
        self.context.log(x, Level::Error, format_args!("recv() failed ({errno}) {doing}"));
        Cause::Failed
    }

    fn unsendable(&mut self, x: &mut Exchange, error: &io::Error) -> Cause {
        if self.reused && !self.taken {
            return Cause::Stale;
        }
        let errno = Errno::from(error);
        let doing = "while sending request to upstream";
        self.context.log(x, Level::Error, format_args!("writev() failed ({errno}) {doing}"));
        Cause::Failed
    }

    /// Nothing can be done now: watch the clock and the client.
    pub(super) fn wait(
        &mut self,
        cx: &mut Task<'_>,
        x: &mut Exchange,
        waiting: Waiting,
    ) -> Poll<Result<Found, Cause>> {
        let settings = self.context.settings;
        let side = x.side();
        let timer = self.timer.as_ref().unwrap_or(side.timer());
        if self.streaming && waiting == Waiting::Read {
            // It is the client's turn, whose own limit holds.
            timer.clear();
            self.armed = None;
        } else if self.armed != Some(waiting) {
            self.armed = Some(waiting);
            let ms = match waiting {
                Waiting::Send => settings.send_timeout_ms,
                Waiting::Read => settings.read_timeout_ms,
            };
            timer.set(net::now().saturating_add(ms));
        }
        if timer.poll_expired(cx).is_ready() {
            let doing = match waiting {
                Waiting::Send => "sending request to upstream",
                Waiting::Read => "reading response header from upstream",
            };
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            let message = format_args!("upstream timed out ({errno}) while {doing}");
            self.context.log(x, Level::Error, message);
            return Poll::Ready(Err(Cause::Timeout));
        }
        let watched = !settings.ignore_client_abort && !self.streaming && !x.background;
        if watched && side.poll_gone(cx).is_ready() {
            let message = "client prematurely closed connection, so upstream connection is closed \
                           too while sending request to upstream";
            self.context.log(x, Level::Info, format_args!("{message}"));
            return Poll::Ready(Err(Cause::ClientGone));
        }
        Poll::Pending
    }
}
