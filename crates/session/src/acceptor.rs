//! Accepting connections: the loop that every engine runs for each of its listeners.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, Waker};

use net::{Listener, Stream};
use system::errno::Errno;
use system::socket::Address;

use crate::budget::{self, Permit};
use crate::log::{Level, Log, no_context};

/// How long accepting pauses after an error that will not go away by itself, such as no
/// descriptors left (nginx: accept_mutex_delay).
const PAUSE_MS: u64 = 500;

/// With room for no more connections than this they are taken one by one.
const ROOMY: usize = 64;

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// The next serial number of a connection of this worker, from 1: what logs show after `*`.
pub fn next_number() -> u64 {
    NUMBER.set(NUMBER.get() + 1);
    NUMBER.get()
}

/// The loops of one engine, to be told of its end.
#[derive(Default)]
pub struct Acceptor {
    ending: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Acceptor {
    /// Ends the loops: what waits in the queues is taken, and the listeners close.
    pub fn end(&self) {
        self.ending.set(true);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// True once the end has begun.
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Waits for the end.
    pub fn poll_ending(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_ending() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Hands the connections of a listener to `take` until the end. Those that wait in its queue
    /// then are taken too: they were promised an answer. `shed` closes connections that can be
    /// spared, when there are too many.
    pub async fn run(
        &self,
        listener: Listener,
        log: &Log,
        shed: impl Fn(),
        take: impl Fn(Stream, Address, Permit),
    ) {
        while !self.is_ending() {
            if budget::used() >= budget::limit() {
                make_room(&listener, log, &shed).await;
                continue;
            }
            listener.allow_bursts(budget::limit().saturating_sub(budget::used()) > ROOMY);
            match poll_fn(|cx| self.poll_accept(cx, &listener)).await {
                None => break,
                Some(Ok((stream, peer))) => give(stream, peer, &take),
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => {
                    let number = Errno::from(&error);
                    let message = format_args!("accept4() failed ({number})");
                    log.write(Level::Crit, None, message, &no_context);
                    listener.pause();
                    shed();
                    net::sleep(PAUSE_MS).await;
                    resume(&listener, log);
                }
            }
        }
        while let Ok((fd, peer)) = system::socket::accept(listener.as_fd()) {
            if let Ok(stream) = Stream::accepted(fd) {
                give(stream, peer, &take);
            }
        }
    }

    /// `None` at the end.
    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
        listener: &Listener,
    ) -> Poll<Option<io::Result<(Stream, Address)>>> {
        if self.is_ending() {
            return Poll::Ready(None);
        }
        let accepted = listener.poll_accept(cx);
        if accepted.is_pending() {
            let _ = self.poll_ending(cx);
        }
        accepted.map(Some)
    }
}

fn give(stream: Stream, peer: Address, take: &impl Fn(Stream, Address, Permit)) {
    if let Some(permit) = budget::acquire() {
        take(stream, peer, permit);
    }
}

/// `worker_connections` are in use: some are closed, and new clients wait in the queue of the
/// socket.
async fn make_room(listener: &Listener, log: &Log, shed: &impl Fn()) {
    shed();
    listener.pause();
    let limit = budget::limit();
    let message = format_args!("{limit} worker_connections are not enough");
    log.write(Level::Alert, None, message, &no_context);
    poll_fn(budget::poll_available).await;
    resume(listener, log);
}

fn resume(listener: &Listener, log: &Log) {
    if let Err(error) = listener.resume() {
        let number = Errno::from(&error);
        let message = format_args!("epoll_ctl() failed ({number})");
        log.write(Level::Alert, None, message, &no_context);
    }
}

/// The peer is to blame, or nobody: try the next one.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::Interrupted)
        || error.raw_os_error() == Some(71 /* EPROTO, accept(2) */)
}
