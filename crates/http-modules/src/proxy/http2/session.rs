//! A connection to a backend, and the task that alone reads and writes it.
//!
//! ```text
//!             begin                    the last request ends
//! (made) ─────────────► at work ◄────────────────────────────► at rest
//!                          │              begin                   │
//!                          │ leaves: GOAWAY, a fault of the       │ keepalive_timeout, too many
//!                          │ connection, keepalive_requests       │ at rest, the worker retires
//!                          ▼                                      ▼
//!                       takes no more ─ the last request ends ─► closed
//! ```

use super::carried::Carried;
use super::head;
use super::side::{AHEAD, EXTRA, Inner, Side, Trouble, WINDOW, WINDOW_WIDEST};
use crate::proxy::request::Head;
use net::{Block, Chunk, OutQueue, Timer};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use system::errno::Errno;
use upstream::{Carrier, Keepalive, Lease, Listing, Making};
use wire::http2::hpack::Limits;
use wire::http2::{Code, Connection as Codec, Event, Fault, Role, Rules};

/// Requests that we have under way on a connection at most.
pub(super) const STREAMS: u32 = 128;
/// Bytes of frames that may wait for the socket; while there are more nothing is read, and no
/// request has its turn.
pub(super) const OUT_HIGH: u64 = 64 * 1024;
/// Fields of one answer that are kept.
const MOST_FIELDS: usize = 1000;
/// Bytes received before other tasks have their turn.
const READ_SHARE: usize = 256 * 1024;
/// How much is received at a time while little comes, and at most.
const READ: usize = 16 * 1024;
const READ_MOST: usize = 128 * 1024;
/// Payloads up to this size are copied behind their head.
const JOINED: u64 = 1024;

/// A connection and what is under way on it.
pub(super) struct Session {
    state: RefCell<State>,
    waker: Cell<Option<Waker>>,
}

struct State {
    codec: Codec,
    /// `None` once it is closed.
    lease: Option<Lease>,
    listing: Option<Listing>,
    /// Others wait until the backend has told how many requests it takes.
    making: Option<Making>,
    keepalive: Keepalive,
    born_ms: u64,
    requests: u64,
    /// It has brought an answer.
    is_proved: bool,
    /// Frames on their way; newer ones are in the codec's `out`.
    out: OutQueue,
    sides: Vec<Rc<Side>>,
    /// Those with something to send, in turns.
    turns: VecDeque<Rc<Side>>,
    /// Windows grew: all with something to send are queued again.
    room: bool,
    /// Reading stopped because too much waits to be sent.
    held_back: bool,
    /// It takes no further requests.
    leaves: bool,
    /// It is kept without a request, until the timer expires.
    rests: bool,
    timer: Timer,
    /// Bytes received.
    heard: u64,
    /// By how much the windows of all requests have grown.
    extra: i64,
    /// What a write failed with: reading tells the rest.
    write_error: Option<io::Error>,
}

/// How a connection ended.
enum End {
    Closed,
    Broken(Errno),
    Fault(Fault),
}

impl Session {
    /// Begins to serve a new connection; answers' heads are at most `longest` bytes.
    pub(super) fn start(lease: Lease, making: Making, longest: usize) -> Rc<Session> {
        let lists = Limits { field: longest, list: longest, count: MOST_FIELDS };
        let rules = Rules { initial_window: WINDOW as u32, concurrent: STREAMS, lists };
        let session = Rc::new_cyclic(|own: &std::rc::Weak<Session>| {
            let own: std::rc::Weak<dyn Carrier> = own.clone();
            let listing = making.list(&own);
            let state = State {
                codec: Codec::new(Role::Client, rules),
                keepalive: listing.keepalive(),
                born_ms: lease.born_ms(),
                lease: Some(lease),
                listing: Some(listing),
                making: Some(making),
                requests: 0,
                is_proved: false,
                out: OutQueue::new(),
                sides: Vec::new(),
                turns: VecDeque::new(),
                room: false,
                held_back: false,
                leaves: false,
                rests: false,
                timer: Timer::new(),
                heard: 0,
                extra: 0,
                write_error: None,
            };
            Session { state: RefCell::new(state), waker: Cell::new(None) }
        });
        let own = session.clone();
        net::spawn(async move {
            poll_fn(|cx| own.poll(cx)).await;
            own.state.borrow_mut().close();
        });
        session
    }

    /// Begins a request whose head is written as HTTP/1; `ends`: it has no body. `None` when the
    /// connection takes no more. `may_repeat`: it was not asked again yet because a backend did
    /// not look at it.
    pub(super) fn begin(
        self: &Rc<Session>,
        head: &Head,
        ends: bool,
        secure: bool,
        may_repeat: bool,
    ) -> Option<Carried> {
        let mut state = self.state.borrow_mut();
        if state.lease.is_none() || state.leaves || !state.codec.may_open() {
            return None;
        }
        if std::mem::take(&mut state.rests) {
            state.timer.clear();
            if let Some(listing) = &state.listing {
                listing.rises();
            }
        }
        state.requests += 1;
        let id = state.codec.open();
        let block = head::encode(head, secure);
        state.codec.send_head(id, &block, ends);
        let mut side = Side::new(id, head.is_head, ends, state.heard);
        side.may_repeat = may_repeat;
        side.reused = may_repeat && state.is_proved;
        let side = Rc::new(side);
        side.inner.borrow_mut().count_sent(block.len() as u64);
        state.sides.push(side.clone());
        drop(state);
        self.wake();
        Some(Carried::new(self.clone(), side))
    }

    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Gives a request its turns to send.
    pub(super) fn queue(&self, side: &Rc<Side>) {
        if side.inner.borrow().has_work() && !side.queued.replace(true) {
            self.state.borrow_mut().turns.push_back(side.clone());
            self.wake();
        }
    }

    /// The reader of an answer has taken a part: the backend may send more.
    pub(super) fn has_read(&self, side: &Side) {
        let mut inner = side.inner.borrow_mut();
        if inner.inbox.ended {
            return;
        }
        let mut state = self.state.borrow_mut();
        let waiting = inner.inbox.len() as i64;
        let allowed = state.codec.allowed(side.id);
        if waiting == 0
            && allowed < inner.window / 2
            && inner.window < WINDOW_WIDEST
            && state.extra + inner.window <= EXTRA
        {
            // It is read as fast as it comes: the window is what holds it back.
            state.extra += inner.window;
            inner.window *= 2;
        }
        let wanted = inner.window - waiting;
        if wanted - allowed > inner.window / 4 {
            state.codec.allow(side.id, wanted);
            drop(state);
            self.wake();
        }
    }

    /// A request is over, or was given up.
    pub(super) fn leave(&self, side: &Rc<Side>) {
        let mut state = self.state.borrow_mut();
        state.codec.reset(side.id, Code::Cancel);
        state.is_proved |= side.inner.borrow().inbox.ended;
        state.sides.retain(|other| other.id != side.id);
        state.turns.retain(|other| other.id != side.id);
        state.extra -= side.inner.borrow().window - WINDOW;
        drop(state);
        self.wake();
    }

    fn poll(self: &Rc<Session>, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.set(Some(cx.waker().clone()));
        let mut state = self.state.borrow_mut();
        if let Err(end) = state.poll_read(cx) {
            state.end(cx, end);
            return Poll::Ready(());
        }
        if let Poll::Ready(Err(error)) = state.poll_write(cx) {
            // The backend may have answered before it closed: reading tells.
            state.write_error = Some(error);
            state.out.clear();
            cx.waker().wake_by_ref();
        }
        if std::mem::take(&mut state.held_back) && state.waiting_bytes() < OUT_HIGH {
            // There is room now for the answers to what was not read.
            cx.waker().wake_by_ref();
        }
        if state.stands() {
            // Those who waited come first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        state.poll_rest(cx)
    }
}

impl Carrier for Session {
    fn has_room(&self) -> bool {
        let state = self.state.borrow();
        state.lease.is_some()
            && state.making.is_none()
            && !state.leaves
            && !state.is_spent()
            && state.codec.may_open()
            && state.waiting_bytes() < OUT_HIGH
    }

    fn retire(&self) {
        self.state.borrow_mut().leaves = true;
        self.wake();
    }

    fn as_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }
}

impl State {
    fn find(&self, id: u32) -> Option<Rc<Side>> {
        self.sides.iter().find(|side| side.id == id).cloned()
    }

    /// Bytes of frames that did not leave yet.
    fn waiting_bytes(&self) -> u64 {
        self.out.len_bytes() + self.codec.out.len() as u64
    }

    fn is_spent(&self) -> bool {
        let age_ms = net::now().saturating_sub(self.born_ms);
        self.requests >= self.keepalive.requests || age_ms > self.keepalive.time_ms
    }

    /// Tells those who wait for the connection once it can be said how many it takes; true when
    /// that was now.
    fn stands(&mut self) -> bool {
        let Some(room) = self.codec.peer_streams() else { return false };
        let Some(making) = self.making.take() else { return false };
        making.stands(room.min(STREAMS))
    }

    /// Receives and decodes until nothing comes, or too much waits to be sent.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut left = READ_SHARE;
        let mut size = READ;
        loop {
            self.held_back = self.waiting_bytes() >= OUT_HIGH;
            if self.held_back {
                return Ok(());
            }
            if left == 0 {
                // Others have their turn.
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let Some(lease) = &self.lease else { return Err(End::Closed) };
            let block = match lease.stream().poll_lend(cx, size) {
                Poll::Ready(Ok(block)) if !block.is_empty() => block,
                Poll::Ready(Ok(_)) => return Err(End::Closed),
                Poll::Ready(Err(error)) => return Err(End::Broken(Errno::from(&error))),
                Poll::Pending => {
                    return match self.write_error.take() {
                        Some(error) => Err(End::Broken(Errno::from(&error))),
                        None => Ok(()),
                    };
                }
            };
            if block.is_full() {
                size = (size * 2).min(READ_MOST);
            }
            left = left.saturating_sub(block.len());
            self.decode(&block.freeze()).map_err(End::Fault)?;
        }
    }

    fn decode(&mut self, chunk: &Chunk) -> Result<(), Fault> {
        self.codec.turn()?;
        let mut at = 0;
        while at < chunk.len() {
            let (used, event) = self.codec.receive(&chunk[at..])?;
            self.heard += used as u64;
            if let Some(event) = event {
                self.happened(event, chunk, at, used);
            }
            at += used;
        }
        Ok(())
    }

    fn happened(&mut self, event: Event, chunk: &Chunk, at: usize, used: usize) {
        match event {
            Event::Head { stream, end } => {
                self.taken(stream, used, |side, inner, codec| {
                    inner.take_head(codec.list(), side.is_head, end)
                });
            }
            Event::Data { stream, from, to, end } => {
                let piece = chunk.slice(at + from..at + to);
                self.taken(stream, used, |_, inner, _| inner.take_data(piece, end));
            }
            Event::Trailers { stream } => {
                self.taken(stream, used, |_, inner, codec| inner.take_trailers(codec.list()));
            }
            Event::Reset { stream, code } => {
                let text = format!("upstream rejected request with error {code}");
                // REFUSED_STREAM: it was not looked at (RFC 9113 section 8.7).
                let refused = code == Code::RefusedStream as u32;
                self.leaves |= refused;
                if let Some(side) = self.find(stream) {
                    let doubtful = code != Code::NoError as u32 && !side.inner.borrow().sent_end;
                    if doubtful {
                        side.spoil();
                    }
                    side.fail(match refused {
                        true => Trouble::Unserved { text, again: true },
                        false => Trouble::Invalid(text),
                    });
                }
            }
            Event::Failed { stream, fault } => {
                if let Some(side) = self.find(stream) {
                    side.spoil();
                    side.fail(Trouble::of(&fault));
                }
            }
            Event::GoAway { last, code } => {
                self.leaves = true;
                let text = format!("upstream sent goaway with error {code}");
                // None of these was looked at (RFC 9113 section 6.8).
                let trouble = Trouble::Unserved { text, again: code == 0 };
                self.sides.iter().filter(|side| side.id > last).for_each(|side| {
                    side.fail(trouble.clone());
                });
            }
            Event::Room => self.room = true,
            Event::Refused(_) => {}
        }
    }

    /// A part of an answer is here.
    fn taken(
        &mut self,
        stream: u32,
        used: usize,
        take: impl FnOnce(&Side, &mut Inner, &Codec) -> Result<(), Trouble>,
    ) {
        let Some(side) = self.find(stream) else { return };
        let mut inner = side.inner.borrow_mut();
        inner.received += used as u64;
        if inner.trouble.is_some() {
            return;
        }
        let taken = take(&side, &mut inner, &self.codec);
        drop(inner);
        match taken {
            Ok(()) => side.wake(),
            Err(trouble) => {
                self.codec.reset(stream, Code::Protocol);
                side.fail(trouble);
            }
        }
    }

    /// Makes frames, in turns, and writes them.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if std::mem::take(&mut self.room) {
                for side in &self.sides {
                    if side.inner.borrow().has_work() && !side.queued.replace(true) {
                        self.turns.push_back(side.clone());
                    }
                }
            }
            self.make_frames();
            push_frames(&mut self.codec, &mut self.out);
            let (Some(lease), false) = (&self.lease, self.out.is_empty()) else {
                return Poll::Ready(Ok(()));
            };
            match self.out.poll_flush(cx, lease.stream()) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
    }

    fn make_frames(&mut self) {
        while self.waiting_bytes() < OUT_HIGH {
            let Some(side) = self.turns.pop_front() else { return };
            match self.make_frame(&side) {
                true => self.turns.push_back(side),
                false => side.queued.set(false),
            }
        }
    }

    /// Makes the request's next frame; true when it has more to send now.
    fn make_frame(&mut self, side: &Side) -> bool {
        let mut inner = side.inner.borrow_mut();
        if !inner.has_work() {
            return false;
        }
        let waiting = inner.body.len_bytes();
        let size = waiting.min(self.codec.room(side.id) as u64);
        if size == 0 && waiting > 0 {
            return false;
        }
        let is_last = inner.body_ends && size == waiting;
        let trailers = if is_last { inner.own_trailers.take() } else { None };
        let ends = is_last && trailers.is_none();
        if size > 0 || ends {
            self.codec.send_data(side.id, size as usize, ends);
            inner.count_sent(size);
            let (codec, out) = (&mut self.codec, &mut self.out);
            inner.take_body(size, |data| match data {
                data if data.len() <= JOINED && data.bytes().len() as u64 == data.len() => {
                    codec.out.extend_from_slice(data.bytes());
                }
                data => {
                    push_frames(codec, out);
                    out.push(data);
                }
            });
        }
        if let Some(block) = trailers {
            self.codec.send_head(side.id, &block, true);
            inner.count_sent(block.len() as u64);
        }
        inner.sent_end = is_last;
        let more = inner.has_work();
        let wakes = inner.body.len_bytes() < AHEAD;
        drop(inner);
        if wakes {
            side.wake();
        }
        more
    }

    /// Without a request: whether the connection is kept, and for how long. Ready when not.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sides.is_empty() {
            return Poll::Pending;
        }
        let leaves = self.leaves || self.codec.is_leaving() || self.is_spent();
        if leaves || (!self.rests && !self.listing.as_ref().is_some_and(Listing::rests)) {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut self.rests, true) {
            self.timer.set(net::now().saturating_add(self.keepalive.timeout_ms));
        }
        self.timer.poll_expired(cx)
    }

    /// The connection is of no use any more: tells all requests why.
    fn end(&mut self, cx: &mut Context<'_>, end: End) {
        if let End::Fault(fault) = &end {
            self.codec.go_away(fault.code);
            // As far as the socket takes it.
            let _ = self.poll_write(cx);
        }
        for side in &self.sides {
            let quiet = side.heard == self.heard;
            side.fail(match &end {
                End::Closed => Trouble::Closed { quiet },
                End::Broken(errno) => Trouble::Broken { errno: *errno, quiet },
                End::Fault(fault) => Trouble::of(fault),
            });
        }
    }

    fn close(&mut self) {
        for side in self.sides.drain(..) {
            side.fail(Trouble::Closed { quiet: false });
        }
        self.turns.clear();
        self.making = None;
        self.listing = None;
        self.lease = None;
    }
}

/// Moves frames that the codec has made to the queue.
fn push_frames(codec: &mut Codec, out: &mut OutQueue) {
    if !codec.out.is_empty() {
        out.push(Block::copy_of(&codec.out));
        codec.out.clear();
    }
}
