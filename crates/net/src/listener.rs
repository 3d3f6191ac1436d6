//! A listening socket of a worker.
//!
//! Workers share a listener: the kernel wakes one of them per connection (EPOLLEXCLUSIVE), always
//! the first in its queue that is asleep. So that all get their share, a worker takes one
//! connection per event, and after every `TURN` it goes to the end of the queue. Bursts still
//! go to whoever gets a processor first: a worker that then holds clearly more connections than
//! another one ([`Seat`]) stays away from the listener for `REST_MS`, and again as long as the
//! other one catches up. When that one stands still for a few milliseconds it comes back for a
//! turn, so a worker that hangs does not keep the others from working.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use system::driver::{Interest, Source, Timer, now};
use system::socket::{self, Address};

use crate::seats::Seat;
use crate::stream::Stream;

/// Connections that a worker takes before it lets the others go first.
const TURN: u32 = 16;
/// The most that a worker which shares with nobody takes for one event.
const BURST: u32 = 16;
/// How long a worker that is ahead stays away, in milliseconds.
const REST_MS: u64 = 1;
/// How often it prolongs that while the last of the others stands still.
const PATIENCE: u32 = 4;

/// Who else accepts from the same socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Other workers do: take turns.
    Workers,
    /// Nobody does: one worker only, or a socket of its own (`reuseport`).
    Alone,
}

/// How many connections are taken at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taking {
    /// One per event; as many as usually wait, up to `BURST`, where nobody else takes them.
    One,
    /// All that wait (`multi_accept on`).
    All,
}

/// A listening socket under watch. Closed when dropped (only this process's descriptor).
pub struct Listener {
    /// Before the descriptor: a source ends before its descriptor is closed.
    source: Source,
    fd: OwnedFd,
    sharing: Sharing,
    taking: Taking,
    taken: Cell<u32>,
    /// How many connections are expected to wait at an event, and how many of them are left.
    burst: Cell<u32>,
    may_burst: Cell<bool>,
    left: Cell<u32>,
    seat: Option<Rc<Seat>>,
    /// Has a deadline while this worker rests.
    rest: Timer,
    /// What the worker with the fewest connections held when the rest began.
    fewest: Cell<u64>,
    /// Rests left before it counts as standing still.
    patience: Cell<u32>,
}

impl Listener {
    /// Watches a non-blocking listening socket.
    ///
    /// # Errors
    /// As [`Source::new`].
    pub fn new(fd: OwnedFd, sharing: Sharing, taking: Taking) -> io::Result<Listener> {
        let source = Source::new(fd.as_fd(), Interest::ACCEPT)?;
        Ok(Listener {
            source,
            fd,
            sharing,
            taking,
            taken: Cell::new(0),
            burst: Cell::new(1),
            may_burst: Cell::new(true),
            left: Cell::new(1),
            seat: None,
            rest: Timer::new(),
            fewest: Cell::new(0),
            patience: Cell::new(0),
        })
    }

    /// Lets this worker rest while it holds more connections than others. What counts as held is
    /// for the owner of the connections to say: [`Seat::hold`].
    #[must_use]
    pub fn with_seat(mut self, seat: Rc<Seat>) -> Listener {
        self.seat = Some(seat);
        self
    }

    /// Takes a connection: its stream, tried before it is waited for, and the peer's address.
    ///
    /// # Errors
    /// What `accept4(2)` answers: `ECONNABORTED` concerns that connection alone; after `EMFILE`
    /// or `ENFILE` the caller pauses the listener for a while. Also a failure to watch the new
    /// socket, which is closed then.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Address)>> {
        // While it rests the source is paused, and only waits here for somebody to resume it.
        while self.rest.deadline().is_some() && self.rest.poll_expired(cx).is_ready() {
            if self.others_catch_up() {
                self.rest_now();
                continue;
            }
            self.source.resume().inspect_err(|_| self.rest_now())?;
            self.rest.clear();
        }
        loop {
            ready!(self.source.poll_readable(cx));
            match socket::accept(self.fd.as_fd()) {
                Ok((fd, peer)) => {
                    if self.taking == Taking::One && self.is_enough() {
                        self.source.clear_readable();
                    }
                    self.take_turns();
                    return Poll::Ready(Stream::accepted(fd).map(|stream| (stream, peer)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let fewer = (self.burst.get() / 2).max(1);
                    self.burst.set(fewer);
                    self.left.set(fewer);
                    self.source.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Whether more than one connection may be taken for an event: not where there is room for
    /// few.
    #[inline]
    pub fn allow_bursts(&self, may: bool) {
        self.may_burst.set(may);
    }

    /// Whether the connection just taken is the last one for this event. A turn of the loop for
    /// each would be too much when they come quickly; asking in vain at each event, when they do
    /// not. So the number doubles while it was reached, and is halved when it was not.
    fn is_enough(&self) -> bool {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        if left > 0 && self.sharing == Sharing::Alone && self.may_burst.get() {
            return false;
        }
        let more = (self.burst.get() * 2).min(BURST);
        self.burst.set(more);
        self.left.set(more);
        true
    }

    /// Takes a connection: [`Listener::poll_accept`] as a future.
    pub async fn accept(&self) -> io::Result<(Stream, Address)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Lets other workers go first, if it is time.
    fn take_turns(&self) {
        let taken = self.taken.get() + 1;
        if self.sharing == Sharing::Alone || taken < TURN {
            self.taken.set(taken);
            return;
        }
        self.taken.set(0);
        self.patience.set(PATIENCE);
        if self.others_catch_up() {
            self.source.pause();
            self.rest_now();
        } else if self.source.requeue().is_err() {
            // Out of kernel memory: try again in a moment.
            self.rest_now();
        }
    }

    /// Whether this worker is ahead, and it is worth waiting for the last one.
    fn others_catch_up(&self) -> bool {
        let Some(fewest) = self.seat.as_ref().and_then(|seat| seat.ahead_of()) else {
            return false;
        };
        if self.fewest.replace(fewest) != fewest {
            self.patience.set(PATIENCE);
        }
        let left = self.patience.get();
        self.patience.set(left.saturating_sub(1));
        left > 0
    }

    fn rest_now(&self) {
        self.rest.set(now().saturating_add(REST_MS));
    }

    /// The socket, unwatched.
    pub fn into_fd(self) -> OwnedFd {
        let Listener { source, fd, .. } = self;
        drop(source);
        fd
    }

    /// Takes no more connections until [`Listener::resume`]: other workers get them.
    pub fn pause(&self) {
        self.rest.clear();
        self.source.pause();
    }

    /// Takes connections again.
    ///
    /// # Errors
    /// As [`Source::new`]; the listener stays paused.
    pub fn resume(&self) -> io::Result<()> {
        self.rest.clear();
        self.source.resume()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seats::Seats;
    use crate::testing::{listener, on_each};
    use crate::{ConnectOptions, connect, sleep};
    use std::future::poll_fn;
    use system::driver::spawn;
    use system::socket::{ListenOptions, listen, local_address};

    #[test]
    fn every_connection_is_taken_with_its_address() {
        on_each(|| async {
            for taking in [Taking::One, Taking::All] {
                let (listener, address) = listener(taking);
                let mut clients = Vec::new();
                for _ in 0..40 {
                    clients.push(connect(&address, &ConnectOptions::default()).await.unwrap());
                }
                for client in &clients {
                    let (_stream, peer) = listener.accept().await.unwrap();
                    assert_eq!(peer, local_address(client.as_fd()).unwrap());
                }
            }
        });
    }

    /// How many of `waiting` connections are taken before a turn of the loop.
    async fn taken_at_once(listener: &Listener, address: &Address, waiting: usize) -> usize {
        let mut clients = Vec::new();
        for _ in 0..waiting {
            clients.push(connect(address, &ConnectOptions::default()).await.unwrap());
        }
        let mut streams = vec![listener.accept().await.unwrap()];
        poll_fn(|cx| {
            while let Poll::Ready(next) = listener.poll_accept(cx) {
                streams.push(next.unwrap());
            }
            Poll::Ready(())
        })
        .await;
        let at_once = streams.len();
        while streams.len() < waiting {
            streams.push(listener.accept().await.unwrap());
        }
        at_once
    }

    #[test]
    fn a_worker_that_shares_with_nobody_takes_as_many_as_usually_wait() {
        on_each(|| async {
            let (listener, address) = listener(Taking::One);
            assert_eq!(taken_at_once(&listener, &address, 3).await, 1);
            let mut most = 0;
            for _ in 0..8 {
                most = most.max(taken_at_once(&listener, &address, 20).await);
            }
            assert!((4..=BURST as usize).contains(&most), "{most}");
            // It gets used to fewer again.
            for _ in 0..8 {
                taken_at_once(&listener, &address, 1).await;
            }
            assert!(listener.burst.get() <= 2);
        });
    }

    #[test]
    fn a_paused_listener_leaves_connections_in_the_queue() {
        on_each(|| async {
            let (listener, address) = listener(Taking::One);
            let listener = Rc::new(listener);
            let waiting = listener.clone();
            let taken = Rc::new(Cell::new(false));
            let flag = taken.clone();
            spawn(async move {
                waiting.accept().await.unwrap();
                flag.set(true);
            });
            listener.pause();
            let _client = connect(&address, &ConnectOptions::default()).await.unwrap();
            sleep(3).await;
            assert!(!taken.get());
            listener.resume().unwrap();
            while !taken.get() {
                system::driver::yield_now().await;
            }
        });
    }

    #[test]
    fn a_worker_that_is_ahead_rests_but_comes_back() {
        on_each(|| async {
            let address = Address::parse("127.0.0.1:0").unwrap();
            let socket = listen(&address, &ListenOptions::default()).unwrap();
            let address = local_address(socket.as_fd()).unwrap();
            let seats = Seats::new(2).unwrap();
            let (own, _other) = (seats.take(0).unwrap(), seats.take(1).unwrap());
            let listener = Listener::new(socket, Sharing::Workers, Taking::One).unwrap();
            let listener = listener.with_seat(own.clone());
            let mut kept = Vec::new();
            for taken in 0..2 * TURN {
                assert_eq!(listener.rest.deadline().is_some(), taken == TURN);
                kept.push(connect(&address, &ConnectOptions::default()).await.unwrap());
                // The other worker never moves: patience ends, and so does the rest.
                let (stream, _) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
                std::mem::forget(own.hold());
                kept.push(stream);
            }
            assert!(listener.rest.deadline().is_some());
        });
    }
}
