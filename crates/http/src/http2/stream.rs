//! One request's side of an HTTP/2 connection: what stands where a socket stands in HTTP/1.

use super::mux::Mux;
use super::outbox::{Outbox, ROOM};
use net::{Chunk, Inbox, OutQueue, Timer};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use wire::http2::Code;
use wire::http2::frame::{HEAD, WINDOW_MAX};
use wire::http2::hpack;

/// A stream.
pub struct Stream {
    /// The one deadline of whatever its request is doing.
    pub timer: Timer,
    pub(super) id: u32,
    mux: Rc<Mux>,
    pub(super) inbox: RefCell<Inbox>,
    pub(super) outbox: RefCell<Outbox>,
    /// The request's task, when it waits for anything of the stream.
    waker: Cell<Option<Waker>>,
    /// The stream was reset, or the connection broke.
    gone: Cell<bool>,
    /// It stands in the queue of those whose turn to send comes.
    pub(super) queued: Cell<bool>,
    /// Nobody reads the body (any more).
    pub(super) unread: Cell<bool>,
    reading: Cell<Reading>,
    /// Bytes sent: whole, and heads of frames and header lists among them.
    sent: Cell<u64>,
    overhead: Cell<u64>,
    /// The longest frame of its body (`http2_chunk_size`).
    pub(super) chunk: Cell<u64>,
    /// The kernel has the last frame.
    pub(super) is_flushed: Cell<bool>,
    /// The fields behind the request's body, as lines.
    trailers: RefCell<Option<Vec<u8>>>,
    /// The answer breaks off behind what waits to be sent.
    pub(super) breaks_off: Cell<bool>,
    /// What `sent` was when the client's time to take more began.
    seen: Cell<u64>,
}

/// How much of the body the client may send ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// What it was told at first.
    Nobody,
    /// As fast as it can: all is taken in at once, to memory or to a file.
    Whole,
    /// So much beyond what was passed on.
    Passing(i64),
}

impl Stream {
    pub(super) fn new(id: u32, mux: Rc<Mux>, ended: bool) -> Stream {
        Stream {
            timer: Timer::new(),
            id,
            mux,
            inbox: RefCell::new(Inbox::new(ended)),
            outbox: RefCell::default(),
            waker: Cell::new(None),
            gone: Cell::new(false),
            queued: Cell::new(false),
            unread: Cell::new(false),
            reading: Cell::new(Reading::Nobody),
            sent: Cell::new(0),
            overhead: Cell::new(0),
            chunk: Cell::new(8192),
            is_flushed: Cell::new(false),
            trailers: RefCell::new(None),
            breaks_off: Cell::new(false),
            seen: Cell::new(0),
        }
    }

    /// Ready when the client has given the request up.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.gone.get() {
            true => Poll::Ready(()),
            false => self.wait(cx),
        }
    }

    fn wait<T>(&self, cx: &mut Context<'_>) -> Poll<T> {
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The client, or the connection, is no more.
    pub(super) fn lose(&self) {
        self.gone.set(true);
        self.outbox.borrow_mut().clear();
        self.wake();
    }

    /// Bytes sent, and those among them that are no body.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (self.sent.get(), self.overhead.get())
    }

    /// Counts a frame: bytes of its body and, beside its head, of anything else.
    pub(super) fn count(&self, body: u64, other: u64) {
        let other = other + HEAD as u64;
        self.sent.set(self.sent.get() + body + other);
        self.overhead.set(self.overhead.get() + other);
    }

    /// Invites as much of the body as comes.
    pub(crate) fn read_whole(&self) {
        if self.reading.get() == Reading::Nobody {
            self.reading.set(Reading::Whole);
            self.open_window();
        }
    }

    /// Invites so many bytes of the body beyond what was read.
    pub(crate) fn read_passing(&self, ahead: u64) {
        if self.reading.get() == Reading::Nobody {
            let ahead = ahead.max(u64::from(self.mux.settings.preread)).min(WINDOW_MAX as u64);
            self.reading.set(Reading::Passing(ahead as i64));
            self.open_window();
        }
    }

    /// Tells the client how much it may send on, when it is worth a frame.
    fn open_window(&self) {
        let inbox = self.inbox.borrow();
        if inbox.ended || self.gone.get() {
            return;
        }
        let waiting = inbox.len() as i64;
        self.mux.with_codec(|codec| {
            let allowed = codec.allowed(self.id);
            match self.reading.get() {
                Reading::Whole if allowed < WINDOW_MAX / 4 => codec.allow(self.id, WINDOW_MAX),
                Reading::Passing(ahead) if ahead - waiting - allowed > ahead / 4 => {
                    codec.allow(self.id, ahead - waiting);
                }
                _ => {}
            }
        });
    }

    /// The fields behind the body are here.
    pub(super) fn set_trailers(&self, lines: Vec<u8>) {
        *self.trailers.borrow_mut() = Some(lines);
    }

    pub(super) fn take_trailers(&self) -> Option<Vec<u8>> {
        self.trailers.borrow_mut().take()
    }

    /// The next piece of the body; `None` after the last.
    ///
    /// # Errors
    /// The client gave the request up.
    pub(crate) fn poll_piece(
        &self,
        cx: &mut Context<'_>,
        size: usize,
    ) -> Poll<io::Result<Option<Chunk>>> {
        let piece = self.inbox.borrow_mut().pop(size);
        if piece.is_some() {
            self.open_window();
            return Poll::Ready(Ok(piece));
        }
        if self.inbox.borrow().ended {
            return Poll::Ready(Ok(None));
        }
        if self.gone.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.wait(cx)
    }

    /// Tells the client something before the answer (RFC 9110 section 15.2).
    pub(crate) fn send_interim(&self, status: u16) {
        let mut block = Vec::with_capacity(8);
        hpack::encode_status(&mut block, status);
        self.send_ahead(&block);
    }

    /// The same with all of its header list.
    pub(crate) fn send_ahead(&self, block: &[u8]) {
        if self.mux.with_codec(|codec| codec.send_head(self.id, block, false)) {
            self.count(0, block.len() as u64);
        }
    }

    /// Sends an answer's header list, with pieces of at most `chunk` bytes behind it; `ends`:
    /// nothing follows.
    pub(crate) fn send_head(&self, block: &[u8], chunk: u64, ends: bool) {
        self.chunk.set(chunk.max(1));
        if self.mux.with_codec(|codec| codec.send_head(self.id, block, ends)) {
            self.count(0, block.len() as u64);
        }
        if ends {
            self.outbox.borrow_mut().is_over = true;
            self.mux.await_flush(self.id);
        }
    }

    /// Moves what fits from `out` to the frames. Ready when all of it is on its way and, with
    /// `ends`, when the kernel has it.
    ///
    /// # Errors
    /// The client is gone, or a file is not as long as was announced.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        out: &mut OutQueue,
        ends: Option<Option<Vec<u8>>>,
    ) -> Poll<io::Result<()>> {
        if self.gone.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut outbox = self.outbox.borrow_mut();
        outbox.fill(out)?;
        let is_last = ends.is_some();
        if let Some(trailers) = ends
            && out.is_empty()
            && !outbox.ends
        {
            outbox.ends = true;
            outbox.trailers = trailers;
        }
        let has_work = outbox.has_work();
        let is_full = outbox.len() >= ROOM;
        drop(outbox);
        if has_work {
            self.mux.queue(self.id);
        }
        match is_last {
            true if self.is_flushed.get() => Poll::Ready(Ok(())),
            false if out.is_empty() && !is_full => Poll::Ready(Ok(())),
            _ => self.wait(cx),
        }
    }

    /// Ready when all that was handed over is in frames: the answer breaks off behind it.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gone.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.breaks_off.set(true);
        match self.outbox.borrow().len() {
            0 => Poll::Ready(Ok(())),
            _ => self.wait(cx),
        }
    }

    /// True when bytes left since this was asked last.
    pub(crate) fn made_progress(&self) -> bool {
        self.seen.replace(self.sent.get()) != self.sent.get()
    }

    /// The request is over: what is left of the stream is reset with this code.
    pub(crate) fn finish(&self, code: Code) {
        self.unread.set(true);
        self.inbox.borrow_mut().clear();
        self.mux.finish(self.id, code);
    }
}
