//! What the connections of one worker share: the configuration, the idle connections in the
//! order in which they fell silent, and whether the worker is on its way out.

use crate::connection::{self, Connection};
use crate::http::{Endpoint, Http, Served};
use crate::http2::Mux;
use net::{Held, Listener, Seat, Stream};
use session::budget;
use session::counters;
use session::handover::Passed;
use session::log::Level;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use system::errno::Errno;
use system::socket::Address;

/// What a retiring worker grants an idle connection at least, in milliseconds of silence: a
/// request that is already on its way is not met with a closed socket.
const RETIRE_QUIET_MS: u64 = 2_000;
/// How many idle connections are closed at a time to make room for new ones (nginx: 32).
const SHED: usize = 32;
/// How long accepting pauses after an error that will not go away by itself, such as no
/// descriptors left (nginx: accept_mutex_delay).
const ACCEPT_PAUSE_MS: u64 = 500;

/// How a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A new generation has taken over: idle connections are spared until they are quiet.
    Retire,
    /// The program stops: idle connections are closed at once.
    Stop,
}

/// One worker's shared state.
pub struct Worker {
    /// The configuration.
    pub http: Rc<Http>,
    ending: Cell<Option<Ending>>,
    idle: RefCell<IdleList>,
    /// Where the other workers see how many connections this one holds.
    seat: Option<Rc<Seat>>,
    /// Tasks that accept, to be told of the end.
    acceptors: RefCell<Vec<Waker>>,
    /// Connections with several requests at a time, to be told of the end.
    multiplexed: RefCell<Vec<Weak<Mux>>>,
    aborted: Cell<bool>,
}

impl Worker {
    /// A worker that serves `http`; its connections are counted at `seat`.
    pub fn new(http: Rc<Http>, seat: Option<Rc<Seat>>) -> Rc<Worker> {
        Rc::new(Worker {
            http,
            ending: Cell::new(None),
            idle: RefCell::new(IdleList::default()),
            seat,
            acceptors: RefCell::new(Vec::new()),
            multiplexed: RefCell::new(Vec::new()),
            aborted: Cell::new(false),
        })
    }

    /// Begins the end. Connections in use finish their request first; the process may exit when
    /// `session::budget` is unused.
    pub fn end(&self, ending: Ending) {
        self.ending.set(Some(ending));
        if let Some(seat) = &self.seat {
            seat.retire();
        }
        for lifecycle in &self.http.lifecycles {
            lifecycle.worker_ends();
        }
        for waker in self.acceptors.take() {
            waker.wake();
        }
        for mux in self.multiplexed.borrow().iter().filter_map(Weak::upgrade) {
            mux.wake();
        }
        let quiet_ms = match ending {
            Ending::Retire => RETIRE_QUIET_MS,
            Ending::Stop => 0,
        };
        self.idle.borrow().each(|connection, since, min_ms| {
            let min_ms = if ending == Ending::Stop { 0 } else { min_ms };
            let at = since.saturating_add(quiet_ms.max(min_ms));
            connection
                .timer
                .set(connection.timer.deadline().map_or(at, |deadline| deadline.min(at)));
        });
    }

    /// Cuts connections with several requests off; true when there were any, whose requests are
    /// then logged at once.
    pub fn abort(&self) -> bool {
        self.aborted.set(true);
        let mut any = false;
        for mux in self.multiplexed.borrow().iter().filter_map(Weak::upgrade) {
            mux.wake();
            any = true;
        }
        any
    }

    /// True once connections are cut off.
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    /// Tells the connection when the end begins.
    pub(crate) fn follow(&self, mux: &Rc<Mux>) {
        let mut all = self.multiplexed.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|mux| mux.strong_count() > 0);
        }
        all.push(Rc::downgrade(mux));
    }

    /// True once the worker takes no further requests on its connections.
    pub fn is_ending(&self) -> bool {
        self.ending.get().is_some()
    }

    /// True when the whole program stops.
    pub fn is_stopping(&self) -> bool {
        self.ending.get() == Some(Ending::Stop)
    }

    /// Counts a connection for the other workers to see.
    pub(crate) fn hold_seat(&self) -> Option<Held> {
        self.seat.as_ref().map(Seat::hold)
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        session::acceptor::next_number()
    }

    /// Enters a connection that fell silent; [`Worker::busy`] takes it out again.
    pub(crate) fn idle(&self, connection: &Rc<Connection>, since: u64, min_ms: u64) -> u32 {
        counters::waits();
        self.idle.borrow_mut().push(connection.clone(), since, min_ms)
    }

    pub(crate) fn busy(&self, place: u32) {
        counters::waits_no_longer();
        self.idle.borrow_mut().remove(place);
    }

    /// Makes the connections that are idle for the longest time close.
    fn shed(&self) {
        let now = net::now();
        let mut left = SHED;
        self.idle.borrow().each(|connection, since, min_ms| {
            if left > 0 && since.saturating_add(min_ms) <= now {
                connection.timer.set(now);
                left -= 1;
            }
        });
    }

    /// Accepts connections of one socket until the worker ends. Those that wait in its queue
    /// then are taken too: they were promised an answer.
    pub async fn accept(self: Rc<Worker>, listener: Listener, endpoint: Rc<Endpoint>) {
        while !self.is_ending() {
            if budget::used() >= budget::limit() {
                self.make_room(&listener).await;
                continue;
            }
            match poll_fn(|cx| self.poll_accept(cx, &listener)).await {
                None => break,
                Some(Ok((stream, peer))) => self.clone().accepted(stream, &peer, &endpoint),
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => {
                    let number = Errno::from(&error);
                    self.log(Level::Crit, format_args!("accept4() failed ({number})"));
                    listener.pause();
                    self.shed();
                    net::sleep(ACCEPT_PAUSE_MS).await;
                    self.resume(&listener);
                }
            }
        }
        while let Ok((fd, peer)) = system::socket::accept(listener.as_fd()) {
            if let Ok(stream) = Stream::new(fd, true) {
                self.clone().accepted(stream, &peer, &endpoint);
            }
        }
    }

    /// `None` once the worker is ending.
    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
        listener: &Listener,
    ) -> Poll<Option<std::io::Result<(Stream, Address)>>> {
        if self.is_ending() {
            return Poll::Ready(None);
        }
        let accepted = listener.poll_accept(cx);
        if accepted.is_pending() {
            let mut acceptors = self.acceptors.borrow_mut();
            if !acceptors.iter().any(|waker| waker.will_wake(cx.waker())) {
                acceptors.push(cx.waker().clone());
            }
        }
        accepted.map(Some)
    }

    /// `worker_connections` are in use: idle ones are closed, and new clients wait in the queue
    /// of the socket.
    async fn make_room(&self, listener: &Listener) {
        self.shed();
        listener.pause();
        let limit = budget::limit();
        self.log(Level::Alert, format_args!("{limit} worker_connections are not enough"));
        poll_fn(budget::poll_available).await;
        self.resume(listener);
    }

    fn resume(&self, listener: &Listener) {
        if let Err(error) = listener.resume() {
            let number = Errno::from(&error);
            self.log(Level::Alert, format_args!("epoll_ctl() failed ({number})"));
        }
    }

    fn accepted(self: Rc<Worker>, stream: Stream, peer: &Address, endpoint: &Endpoint) {
        counters::accepted();
        let Some(permit) = budget::acquire() else { return };
        let Some(served) = endpoint.served_for(&stream) else { return };
        let connection = Connection::new(stream, peer, served, self, permit);
        net::spawn(connection::run(Rc::new(connection)));
    }

    /// Takes a connection that somebody else accepted and that is meant for one of the addresses
    /// of `endpoint`.
    pub fn take_over(self: Rc<Worker>, passed: Passed, endpoint: &Endpoint) {
        counters::accepted();
        let Some(permit) = budget::acquire() else { return };
        let exact = endpoint.served.iter().find(|(address, _)| *address == passed.address);
        let Some((_, served)) = exact.or(endpoint.served.last()) else { return };
        let connection =
            Connection::new(passed.stream, &passed.client, served.clone(), self, permit);
        if let Some(ahead) = passed.ahead {
            connection.put_leftover(ahead.freeze());
        }
        net::spawn(connection::run(Rc::new(connection)));
    }

    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        self.http.error_log.write(level, None, message, &session::log::no_context);
    }
}

/// The peer is to blame, or nobody: try the next one.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::Interrupted)
        || error.raw_os_error() == Some(71 /* EPROTO, accept(2) */)
}

impl Endpoint {
    /// Which of the socket's addresses a connection came to.
    fn served_for(&self, stream: &Stream) -> Option<Rc<Served>> {
        if let [(_, only)] = self.served.as_slice() {
            return Some(only.clone());
        }
        let local = system::socket::local_address(stream.as_fd()).ok()?;
        let exact = self.served.iter().find(|(address, _)| *address == local);
        exact.or(self.served.last()).map(|(_, served)| served.clone())
    }
}

/// Idle connections, the longest silent first: a list linked through a slab, so that entering
/// and leaving cost a few stores and no allocation.
struct IdleList {
    nodes: Vec<Node>,
    free: Vec<u32>,
    first: u32,
    last: u32,
}

struct Node {
    connection: Option<Rc<Connection>>,
    since: u64,
    min_ms: u32,
    previous: u32,
    next: u32,
}

/// No node.
const NOBODY: u32 = u32::MAX;

const _: () = assert!(size_of::<Node>() <= 32, "one of these per idle connection");

impl Default for IdleList {
    fn default() -> IdleList {
        IdleList { nodes: Vec::new(), free: Vec::new(), first: NOBODY, last: NOBODY }
    }
}

impl IdleList {
    fn push(&mut self, connection: Rc<Connection>, since: u64, min_ms: u64) -> u32 {
        let node = Node {
            connection: Some(connection),
            since,
            min_ms: min_ms.min(u64::from(u32::MAX)) as u32,
            previous: self.last,
            next: NOBODY,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.nodes[place as usize] = node;
                place
            }
            None => {
                if self.nodes.len() == self.nodes.capacity() {
                    // By a quarter, not by half: these are many, and mostly needed at once.
                    self.nodes.reserve_exact((self.nodes.len() / 4).max(64));
                }
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        match self.last {
            NOBODY => self.first = place,
            last => self.nodes[last as usize].next = place,
        }
        self.last = place;
        place
    }

    fn remove(&mut self, place: u32) {
        let node = &mut self.nodes[place as usize];
        node.connection = None;
        let (previous, next) = (node.previous, node.next);
        match previous {
            NOBODY => self.first = next,
            at => self.nodes[at as usize].next = next,
        }
        match next {
            NOBODY => self.last = previous,
            at => self.nodes[at as usize].previous = previous,
        }
        self.free.push(place);
    }

    fn each(&self, mut visit: impl FnMut(&Rc<Connection>, u64, u64)) {
        let mut at = self.first;
        while at != NOBODY {
            let node = &self.nodes[at as usize];
            if let Some(connection) = &node.connection {
                visit(connection, node.since, u64::from(node.min_ms));
            }
            at = node.next;
        }
    }
}

/// Waits until every connection of this worker is closed.
pub async fn drained() {
    poll_fn(budget::poll_unused).await;
}
