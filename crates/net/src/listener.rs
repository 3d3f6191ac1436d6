//! A listening socket of a worker.
//!
//! Workers share a listener: the kernel wakes one of them per connection (EPOLLEXCLUSIVE), always
//! the first in its queue that is asleep. So that all get their share, a worker goes to the end
//! of the queue every [`TURN`] connections, and takes one connection per event.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use system::driver::{Interest, Source};
use system::socket::{self, Address};

use crate::stream::Stream;

/// Connections that a worker takes before it lets the others go first.
const TURN: u32 = 16;

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
    /// One per event.
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
}

impl Listener {
    /// Watches a non-blocking listening socket.
    ///
    /// # Errors
    /// As [`Source::new`].
    pub fn new(fd: OwnedFd, sharing: Sharing, taking: Taking) -> io::Result<Listener> {
        let source = Source::new(fd.as_fd(), Interest::ACCEPT)?;
        Ok(Listener { source, fd, sharing, taking, taken: Cell::new(0) })
    }

    /// Takes a connection: its stream, tried before it is waited for, and the peer's address.
    ///
    /// # Errors
    /// What `accept4(2)` answers: `ECONNABORTED` concerns that connection alone; after `EMFILE`
    /// or `ENFILE` the caller pauses the listener for a while. Also a failure to watch the new
    /// socket, which is closed then.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Address)>> {
        loop {
            ready!(self.source.poll_readable(cx));
            match socket::accept(self.fd.as_fd()) {
                Ok((fd, peer)) => {
                    if self.taking == Taking::One {
                        self.source.clear_readable();
                    }
                    self.take_turns()?;
                    return Poll::Ready(Stream::new(fd, true).map(|stream| (stream, peer)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Takes a connection: [`Listener::poll_accept`] as a future.
    pub async fn accept(&self) -> io::Result<(Stream, Address)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn take_turns(&self) -> io::Result<()> {
        let taken = self.taken.get() + 1;
        if self.sharing == Sharing::Alone || taken < TURN {
            self.taken.set(taken);
            return Ok(());
        }
        self.taken.set(0);
        self.source.requeue()
    }

    /// Takes no more connections until [`Listener::resume`]: other workers get them.
    pub fn pause(&self) {
        self.source.pause();
    }

    /// Takes connections again.
    ///
    /// # Errors
    /// As [`Source::new`]; the listener stays paused.
    pub fn resume(&self) -> io::Result<()> {
        self.source.resume()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
