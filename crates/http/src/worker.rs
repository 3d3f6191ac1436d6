//! What the connections of one worker share: the configuration, the idle connections in the
//! order in which they fell silent, and whether the worker is on its way out.

use crate::connection::{self, Connection};
use crate::http::{Endpoint, Http, Served};
use crate::http2::Mux;
use net::{Listener, Seat, Stream};
use session::acceptor::Acceptor;
use session::budget;
use session::counters;
use session::handover::Passed;
use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use system::socket::Address;

/// What a retiring worker grants an idle connection at least, in milliseconds of silence: a
/// request that is already on its way is not met with a closed socket.
const RETIRE_QUIET_MS: u64 = 2_000;
/// How many idle connections are closed at a time to make room for new ones (nginx: 32).
const SHED: usize = 32;

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
    acceptor: Acceptor,
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
            acceptor: Acceptor::default(),
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
        self.acceptor.end();
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

    /// Cuts all connections off, as if the clients had closed them: requests are then logged.
    pub fn abort(&self) {
        self.aborted.set(true);
        for mux in self.multiplexed.borrow().iter().filter_map(Weak::upgrade) {
            mux.wake();
        }
        net::shut_down_clients();
        // Those too who wait for somebody else.
        net::wake_all();
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

    /// Counts a connection for the other workers to see, until it is [`Worker::unseated`].
    pub(crate) fn seated(&self) {
        if let Some(seat) = &self.seat {
            seat.enter();
        }
    }

    pub(crate) fn unseated(&self) {
        if let Some(seat) = &self.seat {
            seat.leave();
        }
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        session::acceptor::next_number()
    }

    /// Enters a connection that fell silent; [`Worker::busy`] takes it out again.
    pub(crate) fn idle(&self, connection: &Rc<Connection>, since: u64, min_ms: u64) -> u32 {
        counters::waits();
        connection.spared_ms.set(u32::try_from(min_ms).unwrap_or(u32::MAX));
        self.idle.borrow_mut().push(connection.clone(), since)
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
        let take = |stream, peer: Address, permit| {
            counters::accepted();
            let Some(served) = endpoint.served_for(&stream) else { return };
            let connection = Connection::new(stream, &peer, served, self.clone(), permit);
            net::spawn(connection::run(Rc::new(connection)));
        };
        let log = &self.http.error_log;
        self.acceptor.run(listener, log, || self.shed(), take).await;
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
    previous: u32,
    next: u32,
}

/// No node.
const NOBODY: u32 = u32::MAX;

const _: () = assert!(size_of::<Node>() <= 24, "one of these per idle connection");

impl Default for IdleList {
    fn default() -> IdleList {
        IdleList { nodes: Vec::new(), free: Vec::new(), first: NOBODY, last: NOBODY }
    }
}

impl IdleList {
    fn push(&mut self, connection: Rc<Connection>, since: u64) -> u32 {
        let node = Node { connection: Some(connection), since, previous: self.last, next: NOBODY };
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
                visit(connection, node.since, u64::from(connection.spared_ms.get()));
            }
            at = node.next;
        }
    }
}
