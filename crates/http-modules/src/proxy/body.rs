//! A backend's body on its way to the client: decoded, buffered in memory, spilled to a file.
//!
//! While the client keeps up, pieces pass through without being kept. When it does not, reading
//! goes on into memory (`proxy_buffers`) and then into a temporary file
//! (`proxy_max_temp_file_size`), so that the backend is free again as soon as it has answered.
//! What is long, comes fast and is passed on as it is goes through pipes (`splice(2)`) while the
//! client keeps up.

mod shared;

use super::attempt::{Answer, Way};
use super::settings::{Buffers, Settings, Speech};
use super::translate::{Fault, Translator};
use http::body::Broken;
use http::headers::Headers;
use http::{Exchange, Piece, Pull};
use net::splice::{Filled, Splicer, WORTHWHILE};
use net::{Chunk, Data, FileRange, Timer};
use session::log::Level;
use session::text::Span;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use system::errno::Errno;
use upstream::{Attempts, Outcome};
use wire::http1::{ChunkDecoder, ChunkEvent, Field, ResponseFraming, TrailerParser, Trailers};

/// The body of one answer.
pub(super) struct UpstreamBody {
    /// Given back or dropped as soon as the last byte is read.
    way: Option<Way>,
    attempts: Option<Attempts>,
    reusable: bool,
    framing: ResponseFraming,
    decoder: ChunkDecoder,
    /// Present while the trailer section is read.
    trailers: Option<Section>,
    settings: Rc<Settings>,
    /// What makes HTTP of what another protocol says.
    translator: Option<Box<Translator>>,
    /// Bytes of a body of known length still to be read.
    remaining: u64,
    /// Received, not decoded.
    raw: Option<Chunk>,
    /// Decoded, not sent.
    queue: VecDeque<Data>,
    in_memory: usize,
    spill: Option<Spill>,
    end: End,
    buffers: Buffers,
    timer: Option<Timer>,
    armed: bool,
    read_timeout_ms: u64,
    started: u64,
    url: Span,
    pace: Option<Pace>,
    /// Present where pieces may come in pipes.
    splicing: Option<Splicing>,
    /// The client's body goes on while the answer comes (HTTP/2).
    streaming: bool,
}

/// Reads that fill their block before pipes are tried: what comes in small pieces is cheaper
/// copied.
const FULL_READS: u8 = 4;
/// A pipe that is filled with less sends the body back to copying.
const SMALL_FILL: usize = 16 << 10;

/// How long a client may take nothing, in milliseconds, before the rest of an answer that goes
/// through pipes is taken in: for shorter than that the backend is not freed by it, and the bytes
/// would be copied for nothing, perhaps to a file.
const PATIENCE_MS: u64 = 100;

/// The way through pipes.
#[derive(Default)]
struct Splicing {
    splicer: Splicer,
    /// Present while the client takes nothing.
    patience: Option<Timer>,
    /// Reads in a row that filled their block, up to [`FULL_READS`].
    full_reads: u8,
}

/// `proxy_limit_rate`: after each read the next one waits for as long as its bytes may take.
struct Pace {
    rate: u64,
    /// When the next read may be.
    next: u64,
    timer: Timer,
}

impl Pace {
    /// Ready when more may be read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.set(self.next);
        self.timer.poll_expired(cx)
    }

    fn has_read(&mut self, bytes: usize) {
        let takes_ms = (bytes as u64).saturating_mul(1000) / self.rate;
        self.next = self.next.max(net::now()).saturating_add(takes_ms);
    }
}

/// A trailer section as far as it was received.
#[derive(Default)]
struct Section {
    parser: TrailerParser,
    text: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Reached,
    Broken,
}

/// The temporary file behind a slow client; it has no name any more.
struct Spill {
    file: File,
    shared: Rc<OwnedFd>,
    length: u64,
}

/// What came of trying to read.
enum Step {
    Data(Chunk),
    Waiting,
    Over,
}

impl UpstreamBody {
    pub(super) fn new(
        answer: Answer,
        attempts: Attempts,
        buffers: Buffers,
        read_timeout_ms: u64,
        started: u64,
        url: Span,
        settings: Rc<Settings>,
    ) -> UpstreamBody {
        let remaining = match answer.framing {
            ResponseFraming::Length(length) => length,
            _ => 0,
        };
        UpstreamBody {
            streaming: answer.streaming,
            reusable: answer.keeps && answer.sent_whole,
            way: Some(answer.way),
            attempts: Some(attempts),
            framing: answer.framing,
            decoder: ChunkDecoder::for_response(Trailers::Keep),
            trailers: None,
            translator: answer.translator,
            remaining,
            raw: answer.rest,
            queue: VecDeque::new(),
            in_memory: 0,
            spill: None,
            end: End::Open,
            buffers,
            timer: None,
            armed: false,
            read_timeout_ms,
            started,
            url,
            pace: None,
            splicing: None,
            settings,
        }
    }

    /// The same body, read at so many bytes per second at most.
    pub(super) fn limited_to(mut self, rate: Option<u64>) -> UpstreamBody {
        let read = self.raw.as_ref().map_or(0, |raw| raw.len());
        self.pace = rate.map(|rate| {
            let mut pace = Pace { rate, next: net::now(), timer: Timer::new() };
            pace.has_read(read);
            pace
        });
        self
    }

    fn log(&self, x: &mut Exchange, level: Level, message: fmt::Arguments<'_>) {
        x.upstream_log().url = Some(self.url);
        x.log_error(level, message);
        x.upstream_log().url = None;
    }

    /// The next decoded bytes, from what was received or from the socket.
    fn step(&mut self, cx: &mut Context<'_>, x: &mut Exchange) -> Step {
        if let Some(Way::Shared(_)) = &self.way {
            return self.step_shared(cx, x);
        }
        loop {
            match self.end {
                End::Open => {}
                End::Reached | End::Broken => return Step::Over,
            }
            if let Some(raw) = self.raw.take() {
                if let Some(data) = self.decode(x, raw) {
                    return Step::Data(data);
                }
                continue;
            }
            if self.is_complete() {
                self.finish(x);
                continue;
            }
            if let Some(pace) = &mut self.pace
                && pace.poll(cx).is_pending()
            {
                return Step::Waiting;
            }
            let Some(Way::Own(lease)) = &self.way else { return Step::Over };
            match lease.stream().poll_lend(cx, self.buffers.step) {
                Poll::Ready(Ok(block)) if !block.is_empty() => {
                    self.armed = false;
                    self.count_received(x, block.len());
                    if let Some(splicing) = &mut self.splicing {
                        let so_far = splicing.full_reads + 1;
                        splicing.full_reads =
                            if block.is_full() { so_far.min(FULL_READS) } else { 0 };
                    }
                    if let Some(pace) = &mut self.pace {
                        pace.has_read(block.len());
                    }
                    self.raw = match self.translator.is_some() {
                        true => self.translate(x, block.filled()),
                        false => Some(block.freeze()),
                    };
                }
                Poll::Ready(Ok(_)) => self.closed(x),
                Poll::Ready(Err(error)) => {
                    let errno = Errno::from(&error);
                    self.fail(x, format_args!("recv() failed ({errno}) while reading upstream"));
                }
                Poll::Pending => return self.wait(cx, x),
            }
        }
    }

    /// True while the rest of a body of known length is long, and comes fast.
    fn may_splice(&self) -> bool {
        self.splicing.as_ref().is_some_and(|splicing| splicing.full_reads == FULL_READS)
            && self.remaining >= WORTHWHILE
            && self.end == End::Open
            && self.raw.is_none()
            && self.translator.is_none()
            && self.pace.is_none()
    }

    /// True while the client has not been slow for long.
    fn is_patient(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(splicing) = &mut self.splicing else { return false };
        let patience = splicing.patience.get_or_insert_with(|| {
            let timer = Timer::new();
            timer.set(net::now().saturating_add(PATIENCE_MS));
            timer
        });
        patience.poll_expired(cx).is_pending()
    }

    /// The next bytes, in a pipe. `None`: they have to be copied.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Option<Poll<Result<Option<Piece>, Broken>>> {
        let (Some(splicing), Some(Way::Own(lease))) = (&mut self.splicing, &self.way) else {
            return None;
        };
        let filled = match splicing.splicer.poll_fill(cx, lease.stream(), self.remaining) {
            Poll::Ready(Ok(Filled::Bytes(n))) => n,
            Poll::Ready(Ok(Filled::Unsupported)) => {
                self.splicing = None;
                return None;
            }
            // Reading finds the end again, and says what it means.
            Poll::Ready(Ok(Filled::End)) => {
                splicing.full_reads = 0;
                return None;
            }
            Poll::Ready(Err(error)) => {
                let errno = Errno::from(&error);
                self.fail(x, format_args!("recv() failed ({errno}) while reading upstream"));
                return Some(Poll::Ready(Err(Broken)));
            }
            Poll::Pending => {
                return match self.wait(cx, x) {
                    Step::Over => Some(Poll::Ready(Err(Broken))),
                    _ => Some(Poll::Pending),
                };
            }
        };
        let piece = splicing.splicer.take()?;
        splicing.patience = None;
        if filled < SMALL_FILL {
            splicing.full_reads = 0;
        }
        self.armed = false;
        self.remaining -= filled as u64;
        self.count_received(x, filled);
        if let Some(attempt) = x.upstream_log().last() {
            attempt.response_length += filled as u64;
        }
        if self.is_complete() {
            self.finish(x);
        }
        // Written before the next one is taken, so that a transfer holds one pipe at most.
        Some(Poll::Ready(Ok(Some(Piece { data: Data::Spliced(piece), flush: true }))))
    }

    /// True when nothing more is to be read: the body is complete, and so is what another protocol
    /// says behind it, where the connection may be used again.
    fn is_complete(&self) -> bool {
        let is_over = self.translator.as_ref().is_none_or(|translator| translator.is_over());
        match self.framing {
            ResponseFraming::None => true,
            ResponseFraming::Length(_) => self.remaining == 0 && (is_over || !self.reusable),
            ResponseFraming::UntilClose => self.translator.is_some() && is_over,
            ResponseFraming::Chunked => false,
        }
    }

    /// What the backend's protocol says; nothing after a fault.
    fn translate(&mut self, x: &mut Exchange, input: &[u8]) -> Option<Chunk> {
        let translator = self.translator.as_mut()?;
        let mut out = Vec::new();
        let translated = translator.translate(input, &mut out);
        self.reusable &= translator.keeps();
        let is_over = translator.is_over();
        for complaint in translator.take_complaints() {
            self.log(x, Level::Error, format_args!("{complaint} while reading upstream"));
        }
        if let Err(fault) = translated {
            let message = match fault {
                Fault::Invalid(message) => message,
                Fault::TooBig => String::new(),
            };
            // All that was announced is there: only the connection is lost.
            if self.remaining == 0 && matches!(self.framing, ResponseFraming::Length(_)) {
                self.reusable = false;
                self.log(x, Level::Error, format_args!("{message} while reading upstream"));
            } else {
                self.fail(x, format_args!("{message} while reading upstream"));
                return None;
            }
        }
        let missing = self.remaining.saturating_sub(out.len() as u64);
        if is_over && missing > 0 && matches!(self.framing, ResponseFraming::Length(_)) {
            let message = "upstream prematurely closed FastCGI request while reading upstream";
            self.fail(x, format_args!("{message}"));
        }
        Some(Chunk::copy_of(&out)).filter(|chunk| !chunk.is_empty())
    }

    fn count_received(&self, x: &mut Exchange, bytes: usize) {
        if let Some(attempt) = x.upstream_log().last() {
            attempt.bytes_received += bytes as u64;
        }
        if let Some(attempts) = &self.attempts {
            attempts.tell_received(bytes as u64);
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>, x: &mut Exchange) -> Step {
        let timer = self.timer.get_or_insert_with(Timer::new);
        if !self.armed {
            self.armed = true;
            timer.set(net::now().saturating_add(self.read_timeout_ms));
        }
        if timer.poll_expired(cx).is_pending() {
            return if self.is_abandoned(cx, x) { self.abandon(x) } else { Step::Waiting };
        }
        let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
        self.fail(x, format_args!("upstream timed out ({errno}) while reading upstream"));
        Step::Over
    }

    /// True when the client has left, and nobody wants the rest: a backend that says nothing for a
    /// long time is not held for it.
    fn is_abandoned(&self, cx: &mut Context<'_>, x: &Exchange) -> bool {
        let watched = !self.settings.ignore_client_abort && !self.streaming && !x.background;
        watched && x.side().poll_gone(cx).is_ready()
    }

    fn abandon(&mut self, x: &mut Exchange) -> Step {
        let message = "client prematurely closed connection, so upstream connection is closed too \
                       while reading upstream";
        self.log(x, Level::Info, format_args!("{message}"));
        self.reusable = false;
        self.end = End::Broken;
        self.release(x, Outcome::NotCounted);
        Step::Over
    }

    fn decode(&mut self, x: &mut Exchange, mut raw: Chunk) -> Option<Chunk> {
        let data = match self.framing {
            ResponseFraming::None => {
                self.too_much(x);
                self.finish(x);
                return None;
            }
            ResponseFraming::UntilClose => Some(raw),
            ResponseFraming::Length(_) => {
                let take = self.remaining.min(raw.len() as u64) as usize;
                let data = raw.split_to(take);
                self.remaining -= take as u64;
                if !raw.is_empty() {
                    self.too_much(x);
                }
                if self.is_complete() {
                    self.finish(x);
                }
                Some(data)
            }
            ResponseFraming::Chunked if self.trailers.is_some() => {
                self.read_trailers(x, &raw);
                None
            }
            ResponseFraming::Chunked => match self.decoder.decode(&raw) {
                Ok(ChunkEvent::Data { skip, take }) => {
                    raw.advance(skip);
                    let data = raw.split_to(take);
                    self.raw = Some(raw).filter(|raw| !raw.is_empty());
                    Some(data)
                }
                Ok(ChunkEvent::NeedMore { consumed }) => {
                    raw.advance(consumed);
                    self.raw = Some(raw).filter(|raw| !raw.is_empty());
                    None
                }
                Ok(ChunkEvent::Done { consumed }) => {
                    raw.advance(consumed);
                    self.trailers = Some(Section::default());
                    self.raw = Some(raw).filter(|raw| !raw.is_empty());
                    None
                }
                Err(_) => {
                    let message = wire::http1::BadChunk::UPSTREAM_MESSAGE;
                    self.fail(x, format_args!("{message} while reading upstream"));
                    None
                }
            },
        };
        let data = data.filter(|data| !data.is_empty())?;
        if let Some(attempt) = x.upstream_log().last() {
            attempt.response_length += data.len() as u64;
        }
        Some(data)
    }

    /// Reads on in the trailer section (RFC 9112 section 7.1.2); the body ends with it.
    fn read_trailers(&mut self, x: &mut Exchange, raw: &[u8]) {
        let Some(section) = &mut self.trailers else { return };
        section.text.extend_from_slice(raw);
        match section.parser.parse(&section.text, &mut section.fields) {
            Ok(Some(length)) => {
                let is_more = section.text.len() > length;
                let base = x.arena.push(&section.text[..length]).at;
                let mut trailers = Headers::from_codec(&section.fields, base);
                self.trailers = None;
                x.upstream_log().trailers = trailers.clone();
                if self.settings.pass_trailers {
                    let (arena, hide) = (&x.arena, &self.settings.hide);
                    trailers.retain(|field| !hide.hides(field.known, field.name(arena)));
                    trailers.iter().for_each(|field| x.response.trailers.push(*field));
                }
                if is_more {
                    self.too_much(x);
                }
                self.finish(x);
            }
            Ok(None) if section.text.len() <= ChunkDecoder::TRAILER_LIMIT as usize => {}
            Ok(None) | Err(_) => {
                let message = wire::http1::BadChunk::UPSTREAM_MESSAGE;
                self.fail(x, format_args!("{message} while reading upstream"));
            }
        }
    }

    /// More than the answer: whose bytes these are is unknown, so the connection is not kept.
    fn too_much(&mut self, x: &mut Exchange) {
        self.reusable = false;
        let what = match self.framing {
            ResponseFraming::Chunked => "upstream sent data after final chunk",
            ResponseFraming::None => "upstream sent more data than expected",
            _ => "upstream sent more data than specified in \"Content-Length\" header",
        };
        self.log(x, Level::Warn, format_args!("{what} while reading upstream"));
    }

    fn closed(&mut self, x: &mut Exchange) {
        self.reusable = false;
        match self.framing {
            ResponseFraming::UntilClose if !self.ends_itself() => self.finish(x),
            ResponseFraming::Length(_) if self.remaining == 0 => self.finish(x),
            _ => self.fail(
                x,
                format_args!("upstream prematurely closed connection while reading upstream"),
            ),
        }
    }

    /// True when the protocol tells the end of an answer: a connection that closes is not one.
    fn ends_itself(&self) -> bool {
        matches!(&self.settings.speech, Speech::Other(gateway) if gateway.has_records())
    }

    fn finish(&mut self, x: &mut Exchange) {
        self.end = End::Reached;
        self.release(x, Outcome::Ok);
    }

    fn fail(&mut self, x: &mut Exchange, message: fmt::Arguments<'_>) {
        self.log(x, Level::Error, message);
        self.reusable = false;
        self.end = End::Broken;
        self.release(x, Outcome::Failed);
    }

    fn release(&mut self, x: &mut Exchange, outcome: Outcome) {
        self.timer = None;
        if let Some(way) = self.way.take()
            && self.reusable
        {
            way.keep();
        }
        if let Some(mut attempts) = self.attempts.take() {
            attempts.done(outcome);
        }
        super::pass::record_end(x, self.started, None);
    }

    /// Keeps what the client cannot take yet.
    fn store(&mut self, x: &mut Exchange, data: Chunk) {
        let fits = self.in_memory + data.len() <= self.buffers.memory;
        if fits || !self.may_spill() {
            self.in_memory += data.len();
            self.queue.push_back(Data::from(data));
            return;
        }
        match self.write(x, &data) {
            Ok(range) => self.push_range(range),
            Err(error) => {
                let folder = self.buffers.folder.path().display().to_string();
                let errno = Errno::from(&error);
                let doing = "while reading upstream";
                let message = format_args!(
                    "write() to a temporary file in \"{folder}\" failed ({errno}) {doing}"
                );
                self.fail(x, message);
            }
        }
    }

    fn write(&mut self, x: &mut Exchange, data: &[u8]) -> std::io::Result<FileRange> {
        if self.spill.is_none() {
            let temp = self.buffers.folder.file()?;
            let path = temp.path.display().to_string();
            let message = "an upstream response is buffered to a temporary file";
            self.log(x, Level::Warn, format_args!("{message} {path} while reading upstream"));
            std::fs::remove_file(&temp.path)?;
            let shared = Rc::new(OwnedFd::from(temp.file.try_clone()?));
            self.spill = Some(Spill { file: temp.file, shared, length: 0 });
        }
        let Some(spill) = &mut self.spill else { return Err(std::io::ErrorKind::Other.into()) };
        spill.file.write_all(data)?;
        let offset = spill.length;
        spill.length += data.len() as u64;
        Ok(FileRange { file: spill.shared.clone(), offset, length: data.len() as u64 })
    }

    fn push_range(&mut self, range: FileRange) {
        if let Some(Data::File(last)) = self.queue.back_mut()
            && Rc::ptr_eq(&last.file, &range.file)
            && last.offset + last.length == range.offset
        {
            last.length += range.length;
            return;
        }
        self.queue.push_back(Data::File(range));
    }

    /// True when all of what one read may bring can be kept.
    fn has_room(&self) -> bool {
        self.in_memory + self.buffers.step <= self.buffers.memory || self.may_spill()
    }

    fn may_spill(&self) -> bool {
        let spilled = self.spill.as_ref().map_or(0, |spill| spill.length);
        spilled < self.buffers.file_max
    }
}

impl Pull for UpstreamBody {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        if let Some(data) = self.queue.pop_front() {
            if let Data::Memory(chunk) = &data {
                self.in_memory = self.in_memory.saturating_sub(chunk.len());
            }
            return Poll::Ready(Ok(Some(Piece::new(data))));
        }
        if self.may_splice()
            && let Some(spliced) = self.splice(cx, x)
        {
            return spliced;
        }
        match self.step(cx, x) {
            Step::Data(chunk) => {
                Poll::Ready(Ok(Some(Piece { data: chunk.into(), flush: !self.buffers.on })))
            }
            Step::Waiting => Poll::Pending,
            Step::Over if self.end == End::Broken => Poll::Ready(Err(Broken)),
            Step::Over => Poll::Ready(Ok(None)),
        }
    }

    fn take_pipes(&mut self) {
        self.splicing = Some(Splicing::default());
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        if !self.buffers.on || self.may_splice() && self.queue.is_empty() && self.is_patient(cx) {
            return;
        }
        while self.has_room() {
            match self.step(cx, x) {
                Step::Data(chunk) => self.store(x, chunk),
                Step::Waiting | Step::Over => return,
            }
        }
    }
}
