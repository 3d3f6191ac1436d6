//! The connection's own task: it alone reads and writes the socket.

use super::directives::Settings;
use super::outbox::ROOM;
use super::request;
use super::stream::Stream;
use crate::connection::{After, Connection, linger};
use crate::slot::{self, OfStream};
use net::{Block, Chunk, OutQueue};
use session::log::Level;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use system::errno::Errno;
use wire::http2::hpack::Limits;
use wire::http2::{Code, Connection as Codec, Event, Fault, Role, Rules};

/// Bytes of frames that may wait for the socket; while there are more nothing is read, and no
/// stream has its turn.
pub(super) const OUT_HIGH: u64 = 64 * 1024;
/// Bytes received before other tasks have their turn.
const READ_SHARE: usize = 256 * 1024;
/// How much is received at a time while little comes, and at most.
const READ: usize = 16 * 1024;
const READ_MOST: usize = 128 * 1024;
/// Payloads up to this size are copied behind their head.
const JOINED: u64 = 1024;

/// How long a connection that comes when the worker is about to end may wait for a request.
const LAST_CHANCE_MS: u64 = 2_000;

/// What the tasks of one connection share.
pub(crate) struct Mux {
    connection: Rc<Connection>,
    pub(super) settings: Settings,
    state: RefCell<State>,
    waker: Cell<Option<Waker>>,
}

struct State {
    codec: Codec,
    /// Frames on their way; newer ones are in the codec's `out`.
    out: OutQueue,
    streams: Vec<Rc<Stream>>,
    /// Those with something to send, in turns.
    turns: VecDeque<Rc<Stream>>,
    /// Those whose last frame was made: where it ends, in bytes of the connection.
    flushing: VecDeque<(u64, Rc<Stream>)>,
    /// Windows grew: all with something to send are queued again.
    room: bool,
    /// Reading stopped because too much waits to be sent.
    held_back: bool,
    /// How often the connection was without streams.
    idles: u64,
}

/// Why the connection ends.
enum End {
    /// In order: what waits is sent, the rest dropped for a while.
    Orderly,
    /// The socket is of no use any more.
    Broken,
}

/// Serves a connection that speaks HTTP/2 until it closes.
pub(crate) async fn run(connection: &Rc<Connection>) -> After {
    let Some(site) = connection.served.sites.default_site().cloned() else { return After::Close };
    let settings = site.http2.clone();
    let root = &site.root.settings;
    if root.tcp_nodelay {
        connection.send_at_once();
    }
    let lists = Limits {
        field: site.head.large_size,
        list: site.head.large_size.saturating_mul(site.head.large_count),
        // One more than may be: the request is refused with nginx's words.
        count: (site.head.parsing.max_headers as usize).saturating_add(8),
    };
    let rules = Rules { initial_window: settings.preread, concurrent: settings.concurrent, lists };
    let mux = Rc::new(Mux {
        connection: connection.clone(),
        settings,
        state: RefCell::new(State {
            codec: Codec::new(Role::Server, rules),
            out: OutQueue::new(),
            streams: Vec::new(),
            turns: VecDeque::new(),
            flushing: VecDeque::new(),
            room: false,
            held_back: false,
            idles: 0,
        }),
        waker: Cell::new(None),
    });
    connection.worker.follow(&mux);
    let mut clock = Clock::new(&mux);
    let end = poll_fn(|cx| mux.poll(cx, &mut clock)).await;
    drop(clock);
    mux.state.borrow_mut().lose_all();
    match end {
        End::Broken => After::Close,
        End::Orderly => {
            connection.timer.set(net::now().saturating_add(root.send_timeout_ms));
            let flushed = poll_fn(|cx| {
                let mut state = mux.state.borrow_mut();
                match state.poll_flush(cx, connection) {
                    Poll::Pending => connection.timer.poll_expired(cx).map(|()| false),
                    Poll::Ready(outcome) => Poll::Ready(outcome.is_ok()),
                }
            });
            match flushed.await {
                true => {
                    let (time_ms, timeout_ms) = (root.lingering_time_ms, root.lingering_timeout_ms);
                    Box::pin(linger(connection, time_ms, timeout_ms)).await;
                    After::Close
                }
                false => After::Close,
            }
        }
    }
}

/// What the connection's timer measures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Streams have timers of their own.
    Busy,
    /// The client has to take what was written.
    Write,
    /// The rest of a frame has to come.
    Frame,
    /// Nothing is under way; the place in the worker's list.
    Idle(u32),
}

/// The connection's timer and its place among the idle ones.
struct Clock {
    mux: Rc<Mux>,
    waiting: Waiting,
}

impl Clock {
    fn new(mux: &Rc<Mux>) -> Clock {
        mux.connection.timer.clear();
        Clock { mux: mux.clone(), waiting: Waiting::Busy }
    }

    /// Sets the timer for what is waited for now; it goes on when that is the same as before.
    fn turn(&mut self, state: &mut State, progress: bool) {
        let connection = self.mux.connection.clone();
        let Some(site) = connection.served.sites.default_site() else { return };
        let settings = &site.root.settings;
        let busy = !state.streams.is_empty();
        let next = match (busy, state.out.is_empty(), state.codec.is_within_frame()) {
            (true, ..) => Waiting::Busy,
            (false, false, _) => Waiting::Write,
            (false, true, true) => Waiting::Frame,
            (false, true, false) => Waiting::Idle(0),
        };
        let same = match (self.waiting, next) {
            (Waiting::Idle(_), Waiting::Idle(_)) => !progress,
            (Waiting::Write, Waiting::Write) => !progress,
            (before, now) => before == now,
        };
        if same {
            return;
        }
        self.leave();
        let now = net::now();
        self.waiting = next;
        match next {
            Waiting::Busy => connection.timer.clear(),
            Waiting::Write => connection.timer.set(now.saturating_add(settings.send_timeout_ms)),
            Waiting::Frame => connection.timer.set(now.saturating_add(site.head.timeout_ms)),
            Waiting::Idle(_) => {
                state.idles += 1;
                state.rest();
                let mut timeout_ms = settings.keepalive.timeout_ms;
                if connection.worker.is_ending() {
                    timeout_ms = timeout_ms.min(LAST_CHANCE_MS);
                }
                connection.timer.set(now.saturating_add(timeout_ms));
                let min_ms = settings.keepalive.min_timeout_ms;
                self.waiting = Waiting::Idle(connection.worker.idle(&connection, now, min_ms));
            }
        }
    }

    fn leave(&mut self) {
        if let Waiting::Idle(place) = self.waiting {
            self.mux.connection.worker.busy(place);
        }
        self.waiting = Waiting::Busy;
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Mux {
    fn poll(self: &Rc<Mux>, cx: &mut Context<'_>, clock: &mut Clock) -> Poll<End> {
        self.waker.set(Some(cx.waker().clone()));
        if self.connection.worker.is_aborted() {
            return Poll::Ready(End::Broken);
        }
        let mut state = self.state.borrow_mut();
        state.take_room();
        let before = state.out.sent();
        let (read, end) = match state.poll_read(cx, self) {
            Poll::Ready(Err(end)) => (true, Some(end)),
            Poll::Ready(Ok(())) => (true, None),
            Poll::Pending => (false, None),
        };
        if let Some(end) = end {
            return Poll::Ready(end);
        }
        if self.connection.worker.is_ending() && !state.streams.is_empty() {
            state.codec.go_away(Code::NoError);
        }
        if let Poll::Ready(Err(error)) = state.poll_write(cx, &self.connection) {
            let text = Errno::from(&error);
            self.connection.log(Level::Info, format_args!("send() failed ({text})"));
            return Poll::Ready(End::Broken);
        }
        if std::mem::take(&mut state.held_back) && state.waiting_bytes() < OUT_HIGH {
            // There is room now for the answers to what was not read.
            cx.waker().wake_by_ref();
        }
        let is_over = state.streams.is_empty() && state.codec.is_leaving();
        if is_over {
            return Poll::Ready(End::Orderly);
        }
        let progress = read || state.out.sent() != before;
        clock.turn(&mut state, progress);
        state.give_room();
        if state.idles > self.most_idles() {
            self.connection.log(Level::Info, format_args!("http2 flood detected"));
            state.codec.go_away(Code::NoError);
            return Poll::Ready(End::Orderly);
        }
        if self.connection.timer.poll_expired(cx).is_ready() {
            return Poll::Ready(self.timed_out(&mut state, clock.waiting));
        }
        Poll::Pending
    }

    /// nginx's bound on a client that wakes the connection for nothing.
    fn most_idles(&self) -> u64 {
        let site = self.connection.served.sites.default_site();
        site.map_or(0, |site| site.root.settings.keepalive.requests.saturating_mul(10))
    }

    fn timed_out(&self, state: &mut State, waiting: Waiting) -> End {
        if let Waiting::Idle(_) = waiting {
            state.codec.go_away(Code::NoError);
            return End::Orderly;
        }
        let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
        self.connection.log(Level::Info, format_args!("client timed out ({errno})"));
        state.codec.go_away(Code::Protocol);
        match waiting {
            Waiting::Write => End::Broken,
            _ => End::Orderly,
        }
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Lets a stream's task use the codec; what it says is sent.
    pub(super) fn with_codec<T>(&self, work: impl FnOnce(&mut Codec) -> T) -> T {
        let mut state = self.state.borrow_mut();
        state.take_room();
        let outcome = work(&mut state.codec);
        if !state.codec.out.is_empty() {
            drop(state);
            self.wake();
        }
        outcome
    }

    /// Gives a stream its turns to send.
    pub(super) fn queue(&self, id: u32) {
        let mut state = self.state.borrow_mut();
        if let Some(stream) = state.find(id)
            && !stream.queued.replace(true)
        {
            state.turns.push_back(stream);
            drop(state);
            self.wake();
        }
    }

    /// Tells the stream when the kernel has all frames made so far.
    pub(super) fn await_flush(&self, id: u32) {
        let mut state = self.state.borrow_mut();
        if let Some(stream) = state.find(id) {
            state.ends_here(stream);
            drop(state);
            self.wake();
        }
    }

    /// A request is over.
    pub(super) fn finish(&self, id: u32, code: Code) {
        let mut state = self.state.borrow_mut();
        state.codec.reset(id, code);
        state.streams.retain(|stream| stream.id != id);
        // While others are under way the connection goes on as it does.
        let is_awaited = state.streams.is_empty() || !state.codec.out.is_empty();
        drop(state);
        if is_awaited {
            self.wake();
        }
    }
}

impl State {
    fn find(&self, id: u32) -> Option<Rc<Stream>> {
        self.streams.iter().find(|stream| stream.id == id).cloned()
    }

    /// Bytes of frames that did not leave yet.
    fn waiting_bytes(&self) -> u64 {
        self.out.len_bytes() + self.codec.out.len() as u64
    }

    /// Has room for frames, which a connection that rests has not.
    fn take_room(&mut self) {
        if self.codec.out.capacity() == 0 {
            self.codec.out = ROOMS.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
    }

    /// Leaves it to other connections when nothing is under way.
    fn give_room(&mut self) {
        let frames = &mut self.codec.out;
        if !self.streams.is_empty() || !frames.is_empty() || frames.capacity() == 0 {
            return;
        }
        let room = std::mem::take(frames);
        if room.capacity() <= ROOM_KEPT {
            ROOMS.with_borrow_mut(|rooms| {
                if rooms.len() < ROOMS_KEPT {
                    rooms.push(room);
                }
            });
        }
    }

    /// Gives back the room that a busy time took.
    fn rest(&mut self) {
        self.codec.rest();
        self.streams.shrink_to(4);
        self.turns.shrink_to(4);
        self.flushing.shrink_to(4);
        self.out.rest();
    }

    fn holds_back(&mut self) -> bool {
        self.held_back = self.waiting_bytes() >= OUT_HIGH;
        self.held_back
    }

    /// Receives and decodes until nothing comes, or too much waits to be sent.
    fn poll_read(&mut self, cx: &mut Context<'_>, mux: &Rc<Mux>) -> Poll<Result<(), End>> {
        let connection = &mux.connection;
        let mut left = READ_SHARE;
        let mut size = READ;
        let mut any = false;
        while !self.holds_back() {
            let chunk = match connection.take_leftover() {
                Some(chunk) => chunk,
                None if left == 0 => {
                    // Others have their turn.
                    cx.waker().wake_by_ref();
                    break;
                }
                None => match connection.poll_lend(cx, size) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(block)) if !block.is_empty() => {
                        if block.is_full() {
                            size = (size * 2).min(READ_MOST);
                        }
                        block.freeze()
                    }
                    Poll::Ready(_) => {
                        if !self.streams.is_empty() || self.codec.is_within_frame() {
                            let message = format_args!("client prematurely closed connection");
                            connection.log(Level::Info, message);
                        }
                        return Poll::Ready(Err(End::Broken));
                    }
                },
            };
            any = true;
            left = left.saturating_sub(chunk.len());
            if let Err(fault) = self.decode(mux, &chunk) {
                connection.log(Level::Info, format_args!("{}", fault.text));
                self.codec.go_away(fault.code);
                return Poll::Ready(Err(End::Orderly));
            }
        }
        if any { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn decode(&mut self, mux: &Rc<Mux>, chunk: &Chunk) -> Result<(), Fault> {
        self.codec.turn()?;
        let mut at = 0;
        while at < chunk.len() {
            let (used, event) = self.codec.receive(&chunk[at..])?;
            match event {
                Some(Event::Data { stream, from, to, end }) => {
                    let piece = chunk.slice(at + from..at + to);
                    self.take_data(stream, piece, end);
                }
                Some(event) => self.happened(mux, event),
                None => {}
            }
            at += used;
        }
        Ok(())
    }

    fn take_data(&mut self, id: u32, piece: Chunk, end: bool) {
        let Some(stream) = self.find(id) else { return };
        let mut inbox = stream.inbox.borrow_mut();
        inbox.ended |= end;
        if !stream.unread.get() && !piece.is_empty() {
            inbox.push(piece);
        }
        drop(inbox);
        stream.wake();
    }

    fn happened(&mut self, mux: &Rc<Mux>, event: Event) {
        let connection = &mux.connection;
        match event {
            Event::Head { stream, end } => self.begin(mux, stream, end),
            Event::Trailers { stream } => self.take_trailers(mux, stream),
            Event::Room => self.room = true,
            Event::Refused(fault) => connection.log(Level::Info, format_args!("{}", fault.text)),
            Event::Reset { stream, code } => {
                let why = match code {
                    8 => format!("client canceled stream {stream}"),
                    2 => format!("client terminated stream {stream} due to internal error"),
                    code => format!("client terminated stream {stream} with status {code}"),
                };
                connection.log(Level::Info, format_args!("{why}"));
                self.lose(stream);
            }
            Event::Failed { stream, fault } => {
                connection.log(Level::Info, format_args!("{}", fault.text));
                self.lose(stream);
            }
            Event::Data { .. } | Event::GoAway { .. } => {}
        }
    }

    /// A request arrived.
    fn begin(&mut self, mux: &Rc<Mux>, id: u32, end: bool) {
        let connection = &mux.connection;
        let Some(site) = connection.served.sites.default_site() else { return };
        let requests = connection.requests.get() + 1;
        connection.requests.set(requests);
        let keepalive = &site.root.settings.keepalive;
        let age_ms = net::now().saturating_sub(connection.accepted_ms);
        if keepalive.timeout_ms == 0
            || u64::from(requests) >= keepalive.requests
            || age_ms >= keepalive.time_ms
        {
            self.codec.go_away(Code::NoError);
        }
        self.idles = 0;
        let arrived = request::read(self.codec.list(), &site.head, end);
        let stream = Rc::new(Stream::new(id, mux.clone(), end));
        self.streams.push(stream.clone());
        let request = slot::request::<OfStream>((connection.clone(), stream, arrived));
        net::spawn(async move {
            request.await;
        });
    }

    /// The fields behind a request's body, which ends with them.
    fn take_trailers(&mut self, mux: &Rc<Mux>, id: u32) {
        let Some(stream) = self.find(id) else { return };
        match request::trailers(self.codec.list()) {
            Some(lines) => {
                stream.set_trailers(lines);
                self.take_data(id, Chunk::default(), true);
            }
            None => {
                let message = format_args!("client sent invalid trailers");
                mux.connection.log(Level::Info, message);
                self.codec.reset(id, Code::Protocol);
                self.lose(id);
            }
        }
    }

    fn lose(&mut self, id: u32) {
        if let Some(stream) = self.find(id) {
            stream.lose();
        }
    }

    fn lose_all(&mut self) {
        self.turns.clear();
        self.flushing.clear();
        for stream in self.streams.drain(..) {
            stream.lose();
        }
    }

    /// Makes frames, in turns, and writes them.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Rc<Connection>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            if std::mem::take(&mut self.room) {
                for stream in &self.streams {
                    if stream.outbox.borrow().has_work() && !stream.queued.replace(true) {
                        self.turns.push_back(stream.clone());
                    }
                }
            }
            self.make_frames();
            if self.out.is_empty() && self.codec.out.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let written = self.poll_flush(cx, connection);
            self.tell_flushed();
            match written {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
    }

    fn make_frames(&mut self) {
        while self.waiting_bytes() < OUT_HIGH {
            let Some(stream) = self.turns.pop_front() else { return };
            if self.make_frame(&stream) {
                self.turns.push_back(stream);
            } else {
                stream.queued.set(false);
            }
        }
    }

    /// Makes the stream's next frame; true when it has more to send now.
    fn make_frame(&mut self, stream: &Rc<Stream>) -> bool {
        let mut outbox = stream.outbox.borrow_mut();
        if !outbox.has_work() {
            return false;
        }
        let was_full = outbox.len() >= ROOM / 2;
        let room = (self.codec.room(stream.id) as u64).min(stream.chunk.get());
        let size = outbox.len().min(room);
        if size == 0 && outbox.len() > 0 {
            return false;
        }
        if !outbox.load(size) {
            drop(outbox);
            stream.wake();
            return false;
        }
        let is_last = outbox.ends && size == outbox.len();
        let trailers = if is_last { outbox.trailers.take() } else { None };
        let ends = is_last && trailers.is_none();
        if size > 0 || ends {
            self.codec.send_data(stream.id, size as usize, ends);
            stream.count(size, 0);
            let (codec, out) = (&mut self.codec, &mut self.out);
            outbox.take(size, |data| match data.len() <= JOINED {
                true => codec.out.extend_from_slice(data.bytes()),
                false => {
                    push_frames(codec, out);
                    out.push(data);
                }
            });
        }
        if let Some(block) = trailers {
            self.codec.send_head(stream.id, &block, true);
            stream.count(0, block.len() as u64);
        }
        if is_last {
            outbox.is_over = true;
        }
        let more = outbox.has_work();
        let is_drained = stream.breaks_off.get() && outbox.len() == 0;
        let wakes = is_drained || (was_full && outbox.len() < ROOM / 2);
        drop(outbox);
        if is_last {
            self.ends_here(stream.clone());
        } else if wakes {
            stream.wake();
        }
        more
    }

    fn ends_here(&mut self, stream: Rc<Stream>) {
        let at = self.out.sent() + self.out.len_bytes() + self.codec.out.len() as u64;
        self.flushing.push_back((at, stream));
    }

    /// Tells streams that the kernel has their last frame.
    fn tell_flushed(&mut self) {
        while let Some((at, stream)) = self.flushing.front()
            && *at <= self.out.sent()
        {
            stream.is_flushed.set(true);
            stream.wake();
            self.flushing.pop_front();
        }
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Rc<Connection>,
    ) -> Poll<std::io::Result<()>> {
        push_frames(&mut self.codec, &mut self.out);
        self.out.poll_flush(cx, &connection.stream)
    }
}

/// Empty room for frames that a worker keeps: so many vectors, of so many bytes at most.
const ROOMS_KEPT: usize = 32;
const ROOM_KEPT: usize = 32 * 1024;

thread_local! {
    static ROOMS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Moves frames that the codec has made to the queue.
fn push_frames(codec: &mut Codec, out: &mut OutQueue) {
    if !codec.out.is_empty() {
        out.push(Block::copy_of(&codec.out));
        codec.out.clear();
    }
}
