//! The body of a request: read piece by piece, taken in whole (spilled to a file past the
//! buffer), or dropped.
//!
//! A body belongs to its exchange; a subrequest has none of its own. Bytes come from what the
//! connection received already, then from its socket, decoded when they were chunked.

use crate::exchange::Exchange;
use crate::headers::Headers;
use crate::settings::InFileOnly;
use crate::temp::TempFile;
use crate::trailers::Section;
use net::{Block, Chunk, Data, FileRange};
use session::log::Level;
use std::future::poll_fn;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use system::errno::Errno;
use wire::http1::{ChunkDecoder, ChunkEvent, Framing, Known, Trailers, Version};

/// How much is read at a time when a body is longer than its buffer.
const READ: usize = 64 * 1024;

/// Why a body could not be read. Already logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The client paused for too long: 408.
    TimedOut,
    /// The client closed: nobody waits for an answer.
    Closed,
    /// Not a valid chunked body: 400.
    Malformed,
    /// Longer than `client_max_body_size`: 413.
    TooLarge,
    /// A temporary file could not be written: 500.
    Storage,
}

impl BodyError {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            BodyError::TimedOut => 408,
            BodyError::Closed => 400,
            BodyError::Malformed => 400,
            BodyError::TooLarge => 413,
            BodyError::Storage => 500,
        }
    }
}

/// A request's body.
pub struct RequestBody {
    framing: Framing,
    decoder: ChunkDecoder,
    remaining: u64,
    ended: bool,
    broken: bool,
    continue_sent: bool,
    /// Taken from the connection, but more than whoever asked had room for.
    pushed_back: Option<Chunk>,
    /// Bytes of the body received so far, decoded.
    pub received: u64,
    /// The whole body, once it was taken in.
    pub stored: Option<Stored>,
    /// The fields behind it, where somebody wants them.
    pub trailers: Headers,
    keeps_trailers: bool,
    /// Present while they are read.
    section: Option<Box<Section>>,
}

/// A body that was taken in whole.
#[derive(Clone, Debug)]
pub enum Stored {
    /// In memory.
    Memory(Chunk),
    /// In a temporary file.
    File(Rc<StoredFile>),
}

/// A body in a file; the file is removed with the last user of it.
#[derive(Debug)]
pub struct StoredFile {
    /// The file.
    pub file: Rc<OwnedFd>,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes in it.
    pub length: u64,
    keep: bool,
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        if !self.keep {
            // Somebody else may have removed it; there is nothing to do about it here.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Stored {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Stored::Memory(chunk) => chunk.len() as u64,
            Stored::File(file) => file.length,
        }
    }

    /// True for a body without a byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body as something to send.
    pub fn data(&self) -> Data {
        match self {
            Stored::Memory(chunk) => Data::from(chunk.clone()),
            Stored::File(stored) => Data::from(FileRange {
                file: stored.file.clone(),
                offset: 0,
                length: stored.length,
            }),
        }
    }
}

impl RequestBody {
    /// A body framed as the head said.
    pub(crate) fn new(framing: Framing) -> RequestBody {
        let remaining = match framing {
            Framing::Length(length) => length,
            _ => 0,
        };
        RequestBody {
            framing,
            decoder: ChunkDecoder::for_request(Trailers::Skip),
            remaining,
            ended: matches!(framing, Framing::None | Framing::Length(0)),
            broken: false,
            continue_sent: false,
            pushed_back: None,
            received: 0,
            stored: None,
            trailers: Headers::default(),
            keeps_trailers: false,
            section: None,
        }
    }

    /// The body of a request that has a stream of its own; `ended`: all of it is here.
    pub(crate) fn of_stream(framing: Framing, ended: bool) -> RequestBody {
        // Its end is the stream's, whatever length was announced.
        let is_over = ended && matches!(framing, Framing::None | Framing::Length(0));
        RequestBody { ended: is_over, ..RequestBody::new(framing) }
    }

    /// Nothing follows.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// What came is wrong, and nothing more is taken: whoever asks again, such as an error page
    /// that is proxied, finds no body.
    pub(crate) fn give_up(&mut self) {
        (self.broken, self.ended) = (true, true);
    }

    /// Reading failed.
    pub(crate) fn break_off(&mut self) {
        self.broken = true;
    }

    /// No body, and nobody to be invited to send one.
    pub fn absent() -> RequestBody {
        RequestBody { continue_sent: true, ..RequestBody::new(Framing::None) }
    }

    pub(crate) fn keep_trailers(&mut self) {
        self.keeps_trailers = true;
        self.decoder.set_trailers(Trailers::Keep);
    }

    pub(crate) fn keeps_trailers(&self) -> bool {
        self.keeps_trailers
    }

    /// Its length, when the head named one.
    pub fn declared(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        }
    }

    /// True when the request has a body, even an empty one.
    pub fn exists(&self) -> bool {
        !matches!(self.framing, Framing::None)
    }

    /// True when it came in chunks.
    pub fn is_chunked(&self) -> bool {
        matches!(self.framing, Framing::Chunked)
    }

    /// True when all of it was received, or will never be.
    pub fn is_over(&self) -> bool {
        self.ended || self.broken
    }

    /// True when a part of it is still to come and can come.
    pub fn is_pending(&self) -> bool {
        !self.is_over()
    }

    /// True when reading it failed: the connection cannot be used again.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// A body that was taken in whole, for another exchange of the same client request to send.
    pub fn copy_stored(&self) -> Option<RequestBody> {
        let stored = Some(self.stored.clone()?);
        Some(RequestBody {
            framing: self.framing,
            received: self.received,
            ended: true,
            stored,
            ..RequestBody::absent()
        })
    }

    /// Gives the body to another exchange of the same client request.
    pub fn take(&mut self) -> RequestBody {
        // Their text stays behind.
        self.trailers = Headers::default();
        std::mem::replace(self, RequestBody::absent())
    }
}

impl Exchange {
    /// The next bytes of the body; `None` after the last. Times out as `client_body_timeout`
    /// says. Do not mix with [`Exchange::read_body`].
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, BodyError>> {
        if let Some(stream) = &self.stream {
            let length = self.body.declared().map_or(u64::MAX, |length| length.saturating_add(1));
            stream.read_passing(length.min(self.location.settings.body_buffer as u64));
        }
        self.poll_body_sized(cx, READ)
    }

    fn poll_body_sized(
        &mut self,
        cx: &mut Context<'_>,
        size: usize,
    ) -> Poll<Result<Option<Chunk>, BodyError>> {
        if let Some(chunk) = self.body.pushed_back.take() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        loop {
            if self.body.ended {
                return Poll::Ready(Ok(None));
            }
            if self.body.broken {
                return Poll::Ready(Err(BodyError::Closed));
            }
            if let Some(stream) = self.stream.clone() {
                self.invite();
                return self.poll_stream_body(cx, &stream, size);
            }
            if let Some(left) = self.connection.take_leftover()
                && let Some(chunk) = self.decode(left)?
            {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if self.body.ended || self.connection.has_leftover() {
                continue;
            }
            ready!(self.poll_receive(cx, size))?;
        }
    }

    /// Takes the next piece of the body out of what was received; keeps the rest.
    fn decode(&mut self, mut input: Chunk) -> Result<Option<Chunk>, BodyError> {
        if let Some(section) = self.body.section.take() {
            return self.read_trailers(section, input);
        }
        let body = &mut self.body;
        let piece = match body.framing {
            Framing::None => None,
            Framing::Length(_) => {
                let take = body.remaining.min(input.len() as u64);
                body.remaining -= take;
                body.ended = body.remaining == 0;
                Some(input.split_to(take as usize))
            }
            Framing::Chunked => match body.decoder.decode(&input) {
                Ok(ChunkEvent::Data { skip, take }) => {
                    input.advance(skip);
                    Some(input.split_to(take))
                }
                Ok(ChunkEvent::NeedMore { consumed }) => {
                    input.advance(consumed);
                    None
                }
                Ok(ChunkEvent::Done { consumed }) => {
                    input.advance(consumed);
                    body.ended = !body.keeps_trailers;
                    body.section = body.keeps_trailers.then(Box::default);
                    None
                }
                Err(_) => return Err(self.malformed()),
            },
        };
        self.connection.put_leftover(input);
        let piece = piece.filter(|piece| !piece.is_empty());
        if let Some(piece) = &piece {
            self.body.received += piece.len() as u64;
            let max = self.location.settings.body_max;
            if max != 0 && self.body.received > max && self.body.is_chunked() {
                self.body.broken = true;
                let received = self.body.received;
                self.log_error(
                    Level::Error,
                    format_args!(
                        "client intended to send too large chunked body: {received} bytes"
                    ),
                );
                return Err(BodyError::TooLarge);
            }
        }
        Ok(piece)
    }

    fn malformed(&mut self) -> BodyError {
        self.body.broken = true;
        self.log_error(Level::Info, format_args!("client sent invalid chunked body"));
        BodyError::Malformed
    }

    /// Reads on in the trailer section; the body ends with it.
    fn read_trailers(
        &mut self,
        mut section: Box<Section>,
        mut input: Chunk,
    ) -> Result<Option<Chunk>, BodyError> {
        match section.take(&input) {
            Ok(None) => self.body.section = Some(section),
            Ok(Some(length)) => {
                input.advance(length);
                self.connection.put_leftover(input);
                self.has_trailers(&section);
                self.body.ended = true;
            }
            Err(_) => return Err(self.malformed()),
        }
        Ok(None)
    }

    /// Receives more bytes into the connection's leftover.
    fn poll_receive(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<Result<(), BodyError>> {
        self.invite();
        let size = match self.body.framing {
            Framing::Length(_) => size.min(self.body.remaining.max(1) as usize),
            _ => size,
        };
        let timeout_ms = self.location.settings.body_timeout_ms;
        let connection = self.connection.clone();
        match connection.poll_lend(cx, size) {
            Poll::Ready(Ok(block)) if !block.is_empty() => {
                connection.timer.clear();
                connection.put_leftover(block.freeze());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(outcome) => {
                self.body.broken = true;
                match outcome {
                    Ok(_) => self.log_error(
                        Level::Info,
                        format_args!("client prematurely closed connection"),
                    ),
                    Err(error) => self.log_error(
                        Level::Info,
                        format_args!("recv() failed ({})", Errno::from(&error)),
                    ),
                }
                Poll::Ready(Err(BodyError::Closed))
            }
            Poll::Pending => {
                if connection.timer.deadline().is_none() {
                    connection.timer.set(net::now().saturating_add(timeout_ms));
                }
                ready!(connection.timer.poll_expired(cx));
                self.body.broken = true;
                let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
                let doing = "while reading client request body";
                self.log_error(Level::Info, format_args!("client timed out ({errno}) {doing}"));
                Poll::Ready(Err(BodyError::TimedOut))
            }
        }
    }

    /// Answers `Expect: 100-continue` (RFC 9110 section 10.1.1), once. Whoever wants the body calls
    /// it even when there is none, as nginx does.
    pub fn invite(&mut self) {
        if self.body.continue_sent {
            return;
        }
        self.body.continue_sent = true;
        self.timer().clear();
        let Some(expect) = self.request.headers.value(Known::Expect) else { return };
        let wants = self.text(expect).eq_ignore_ascii_case(b"100-continue");
        if !wants || self.request.version < Version::HTTP_11 || self.body.received > 0 {
            return;
        }
        if let Some(stream) = &self.stream {
            stream.send_interim(100);
            return;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // A socket that takes no 25 bytes at the start of an answer is broken, and is found so.
        let _ = self.connection.stream.poll_write(&mut cx, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Takes the whole body in: into memory up to `client_body_buffer_size`, else into a file.
    /// Afterwards `body.stored` is set.
    ///
    /// # Errors
    /// Why it could not be; already logged.
    pub async fn read_body(&mut self) -> Result<(), BodyError> {
        if self.body.stored.is_some() {
            return Ok(());
        }
        self.invite();
        if let Some(stream) = &self.stream {
            stream.read_whole();
        }
        let settings = &self.location.settings;
        let only_file = settings.body_in_file_only != InFileOnly::Off;
        let room = settings.body_buffer;
        let fits = !only_file && self.body.declared().is_some_and(|n| n <= room as u64);
        let size = if fits { room } else { READ };
        let mut first: Option<Chunk> = None;
        let mut memory: Option<Block> = None;
        let mut file: Option<Spill> = None;
        while let Some(chunk) = poll_fn(|cx| self.poll_body_sized(cx, size)).await? {
            if let Some(spill) = &mut file {
                let written = spill.write(&chunk);
                self.stored(written)?;
                continue;
            }
            let held =
                memory.as_ref().map_or(0, Block::len) + first.as_ref().map_or(0, |c| c.len());
            if only_file || held + chunk.len() > room {
                let mut spill = self.spill()?;
                for part in [first.take().as_deref(), memory.take().as_ref().map(Block::filled)] {
                    let written = spill.write(part.unwrap_or_default());
                    self.stored(written)?;
                }
                let written = spill.write(&chunk);
                self.stored(written)?;
                file = Some(spill);
            } else if first.is_none() && memory.is_none() {
                first = Some(chunk);
            } else {
                let block = memory.get_or_insert_with(|| Block::lend(room.max(1)));
                if let Some(first) = first.take() {
                    block.append(&first);
                }
                block.append(&chunk);
            }
        }
        if only_file && file.is_none() && self.body.exists() {
            file = Some(self.spill()?);
        }
        self.body.stored = Some(match (file, memory, first) {
            (Some(spill), _, _) => Stored::File(Rc::new(spill.finish(self))),
            (None, Some(block), _) => Stored::Memory(block.freeze()),
            (None, None, Some(chunk)) => Stored::Memory(chunk),
            (None, None, None) => Stored::Memory(Block::lend(1).freeze()),
        });
        Ok(())
    }

    /// Takes what of the body is there already, up to `client_body_buffer_size`, without waiting.
    /// When that is all of it, `body.stored` is set; otherwise the part taken is returned.
    ///
    /// # Errors
    /// As [`Exchange::read_body`].
    pub async fn read_available(&mut self) -> Result<Option<Chunk>, BodyError> {
        self.invite();
        let room = self.location.settings.body_buffer.max(1);
        let mut block = Block::lend(room);
        let complete = poll_fn(|cx| {
            while block.len() < room {
                match self.poll_body_sized(cx, room - block.len()) {
                    Poll::Ready(Ok(Some(mut chunk))) => {
                        let fits = chunk.split_to(chunk.len().min(room - block.len()));
                        block.append(&fits);
                        if !chunk.is_empty() {
                            self.body.pushed_back = Some(chunk);
                            break;
                        }
                    }
                    Poll::Ready(Ok(None)) => return Poll::Ready(Ok(true)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(self.body.ended && self.body.pushed_back.is_none()))
        })
        .await?;
        let part = block.freeze();
        if complete {
            self.body.stored = Some(Stored::Memory(part));
            return Ok(None);
        }
        Ok(Some(part).filter(|part| !part.is_empty()))
    }

    fn spill(&mut self) -> Result<Spill, BodyError> {
        let made = self.location.settings.body_temp.file();
        match made {
            Ok(temp) => {
                let path = temp.path.display();
                self.log_error(
                    Level::Warn,
                    format_args!("a client request body is buffered to a temporary file {path}"),
                );
                Ok(Spill { temp, length: 0 })
            }
            Err(error) => {
                let folder = self.location.settings.body_temp.path().display().to_string();
                let text = Errno::from(&error);
                self.log_error(Level::Crit, format_args!("open() \"{folder}\" failed ({text})"));
                self.body.broken = true;
                Err(BodyError::Storage)
            }
        }
    }

    fn stored(&mut self, written: std::io::Result<()>) -> Result<(), BodyError> {
        written.map_err(|error| {
            let text = Errno::from(&error);
            self.log_error(
                Level::Crit,
                format_args!("write() to a temporary file failed ({text})"),
            );
            self.body.broken = true;
            BodyError::Storage
        })
    }

    /// Drops what is left of the body, so that the connection can serve the next request. False
    /// when the client does not send it within the limits of lingering.
    pub(crate) async fn discard_body(&mut self) -> bool {
        let settings = &self.location.settings;
        let timeout_ms = settings.lingering_timeout_ms;
        let end = net::now().saturating_add(settings.lingering_time_ms);
        // A client that waits for 100 Continue is not invited any more.
        self.body.continue_sent = true;
        while self.body.is_pending() {
            let connection = self.connection.clone();
            let step = poll_fn(|cx| {
                if let Some(left) = connection.take_leftover() {
                    return Poll::Ready(self.decode(left).is_ok());
                }
                match connection.poll_lend(cx, READ) {
                    Poll::Ready(Ok(block)) if !block.is_empty() => {
                        connection.put_leftover(block.freeze());
                        connection.timer.clear();
                        Poll::Ready(true)
                    }
                    Poll::Ready(_) => Poll::Ready(false),
                    Poll::Pending => {
                        if connection.timer.deadline().is_none() {
                            connection.timer.set(end.min(net::now().saturating_add(timeout_ms)));
                        }
                        connection.timer.poll_expired(cx).map(|()| false)
                    }
                }
            });
            if !step.await || net::now() >= end {
                return false;
            }
        }
        !self.body.broken
    }
}

/// A body on its way into a file.
struct Spill {
    temp: TempFile,
    length: u64,
}

impl Spill {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.length += bytes.len() as u64;
        self.temp.file.write_all(bytes)
    }

    fn finish(self, x: &Exchange) -> StoredFile {
        StoredFile {
            file: Rc::new(self.temp.file.into()),
            path: self.temp.path,
            length: self.length,
            keep: x.location.settings.body_in_file_only == InFileOnly::On,
        }
    }
}
