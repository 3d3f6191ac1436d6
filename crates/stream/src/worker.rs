//! What the sessions of one worker share, and how they begin.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use net::datagram::DatagramListener;
use net::{Held, Listener, Seat};
use session::acceptor::Acceptor;
use session::budget::{self, Permit};
use session::handover::{self, Passed};
use session::log::{Level, no_context};
use system::errno::Errno;
use system::socket::{Address, Transport};

use crate::client::Client;
use crate::journey;
use crate::packets;
use crate::served::{Endpoint, Stream};
use crate::session::Session;

/// One worker's shared state.
pub struct Worker {
    /// The configuration.
    pub stream: Rc<Stream>,
    acceptor: Acceptor,
    /// Where the other workers see how many connections this one holds.
    seat: Option<Rc<Seat>>,
    aborted: Cell<bool>,
}

impl Worker {
    /// A worker that serves `stream`; its connections are counted at `seat`.
    pub fn new(stream: Rc<Stream>, seat: Option<Rc<Seat>>) -> Rc<Worker> {
        Rc::new(Worker { stream, acceptor: Acceptor::default(), seat, aborted: Cell::new(false) })
    }

    /// Takes the sessions of one socket until the worker ends. Connections for its address that
    /// others have are taken too.
    pub async fn accept(self: Rc<Worker>, listener: Listener, endpoint: Rc<Endpoint>) {
        match endpoint.options.transport {
            Transport::Stream => self.connections(listener, &endpoint).await,
            Transport::Datagram => self.packets(listener, &endpoint).await,
        }
    }

    async fn connections(self: &Rc<Worker>, listener: Listener, endpoint: &Rc<Endpoint>) {
        let (worker, place) = (self.clone(), endpoint.clone());
        let take = move |passed: Passed| {
            let Some(permit) = budget::acquire() else { return };
            let Passed { stream, ahead, client, address } = passed;
            let begun = worker.session(stream, client, Some(address), &place, permit);
            if let Some(mut session) = begun {
                session.ahead = ahead;
                worker.spawn(session);
            }
        };
        handover::offer(endpoint.address.clone(), Rc::new(take));
        let take = |stream, peer, permit| {
            if let Some(session) = self.session(stream, peer, None, endpoint, permit) {
                self.spawn(session);
            }
        };
        self.acceptor.run(listener, &self.stream.error_log, || {}, take).await;
    }

    /// A session on a connection, which came to `local` where that is known.
    fn session(
        &self,
        stream: net::Stream,
        peer: Address,
        local: Option<Address>,
        endpoint: &Rc<Endpoint>,
        permit: Permit,
    ) -> Option<Session> {
        let client = Client::Connection(Some(stream));
        let local = local.or_else(|| if endpoint.has_several() { client.local() } else { None });
        let served = endpoint.served_at(local.as_ref())?;
        let place = (self.stream.clone(), endpoint.clone(), served);
        let session = Session::new(client, peer, place, permit);
        if let Some(local) = local {
            session.set_local(local);
        }
        Some(session)
    }

    fn spawn(self: &Rc<Worker>, session: Session) {
        let held: Option<Held> = self.seat.as_ref().map(Seat::hold);
        net::spawn(journey::run(session, self.clone(), held));
    }

    async fn packets(self: &Rc<Worker>, listener: Listener, endpoint: &Rc<Endpoint>) {
        let log = &self.stream.error_log;
        match DatagramListener::new(listener) {
            Ok(socket) => packets::run(self, Rc::new(socket), endpoint).await,
            Err(error) => {
                let message = format_args!("epoll_ctl() failed");
                log.fail(Level::Alert, Errno::from(&error), None, message, &no_context);
            }
        }
    }

    /// Takes no further sessions. Connections go on to their end; packets come to other workers.
    pub fn end(&self) {
        if self.acceptor.is_ending() {
            return;
        }
        if let Some(seat) = &self.seat {
            seat.retire();
        }
        for lifecycle in &self.stream.lifecycles {
            lifecycle.worker_ends();
        }
        self.acceptor.end();
        handover::forget();
    }

    /// Cuts all sessions off, which are then logged.
    pub fn abort(&self) {
        self.aborted.set(true);
        net::wake_all();
    }

    /// True once sessions are cut off.
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    /// True once no further sessions are taken.
    pub fn is_ending(&self) -> bool {
        self.acceptor.is_ending()
    }

    /// Waits for the end of the time in which sessions are taken.
    pub(crate) async fn ending(&self) {
        poll_fn(|cx| self.acceptor.poll_ending(cx)).await;
    }
}
