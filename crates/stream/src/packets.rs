//! Packets and the sessions that they belong to: those of one client, which is an address and a
//! port, that came to one address of ours.
//!
//! ```text
//!   socket --batch--> table --> inbox of a session --> backend
//!      ^               |                                  |
//!      |               `-- unknown client: a new session  |
//!      `----------------------- answers ------------------'
//! ```
//! The table holds what `worker_connections` allows. Each session leaves it by itself, at its
//! end or before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use net::datagram::{Batch, DatagramListener, Packet};
use net::{Either, race};
use session::budget;
use session::log::{Level, no_context};
use system::errno::Errno;
use system::socket::Address;

use crate::client::{Client, Inbox, Packets};
use crate::journey;
use crate::senders::Senders;
use crate::served::Endpoint;
use crate::session::Session;
use crate::worker::Worker;

/// Whose packets: the client, and the address that they came to where there are several.
type Key = (Address, Option<SocketAddr>);

/// The sessions of one socket.
#[derive(Default)]
pub(crate) struct Table {
    sessions: RefCell<HashMap<Key, Rc<Inbox>>>,
    senders: Rc<Senders>,
}

thread_local! {
    static BATCH: RefCell<Option<Box<Batch>>> = const { RefCell::new(None) };
}

/// Does something with the worker's room for packets.
pub(crate) fn with_batch<R>(work: impl FnOnce(&mut Batch) -> R) -> R {
    // Taken, not borrowed: nobody who is called in between finds it in use.
    let mut batch = BATCH.take().unwrap_or_default();
    let result = work(&mut batch);
    BATCH.set(Some(batch));
    result
}

/// Leads the packets of a socket to their sessions until the worker ends.
pub(crate) async fn run(
    worker: &Rc<Worker>,
    socket: Rc<DatagramListener>,
    endpoint: &Rc<Endpoint>,
) {
    let table = Rc::new(Table::default());
    loop {
        let receive = poll_fn(|cx| {
            with_batch(|batch| {
                let received = socket.poll_receive(cx, batch)?;
                received.map(|_| {
                    for packet in batch.packets() {
                        take(worker, &socket, endpoint, &table, packet);
                    }
                    Ok::<(), io::Error>(())
                })
            })
        });
        match race(receive, worker.ending()).await {
            Either::First(Ok(())) => net::yield_now().await,
            Either::First(Err(error)) => {
                let message = format_args!("recvmmsg() failed");
                let log = &worker.stream.error_log;
                log.fail(Level::Alert, Errno::from(&error), None, message, &no_context);
                net::yield_now().await;
            }
            Either::Second(()) => break,
        }
    }
    for inbox in table.sessions.take().into_values() {
        inbox.close();
    }
}

fn take(
    worker: &Rc<Worker>,
    socket: &Rc<DatagramListener>,
    endpoint: &Rc<Endpoint>,
    table: &Rc<Table>,
    packet: Packet<'_>,
) {
    let log = &worker.stream.error_log;
    if packet.is_cut {
        log.write(Level::Alert, None, format_args!("recvmsg() truncated data"), &no_context);
        return;
    }
    let key = (packet.peer.clone(), packet.local);
    let is_nameless = matches!(packet.peer, Address::Unix(path) if path.as_os_str().is_empty());
    if let Some(inbox) = table.sessions.borrow().get(&key).filter(|_| !is_nameless) {
        inbox.push(packet.bytes);
        return;
    }
    let Some(permit) = budget::acquire() else {
        let limit = budget::limit();
        let message = format_args!("{limit} worker_connections are not enough");
        log.write(Level::Alert, None, message, &no_context);
        return;
    };
    let sender = match foreign_port(endpoint, packet.local).map(|at| table.senders.at(at)) {
        None => None,
        Some(Ok(sender)) => Some(sender),
        Some(Err(error)) => {
            let message = format_args!("{}() of a socket for answers failed", error.call);
            log.fail(Level::Alert, error.errno, None, message, &no_context);
            return;
        }
    };
    let inbox = Rc::new(Inbox::default());
    inbox.push(packet.bytes);
    let client = Client::Packets(Packets {
        socket: socket.clone(),
        inbox: inbox.clone(),
        local: packet.local,
        sender,
        peer: packet.peer.clone(),
    });
    let local = if endpoint.has_several() { client.local() } else { None };
    let Some(served) = endpoint.served_at(local.as_ref()) else { return };
    let place = (worker.stream.clone(), endpoint.clone(), served);
    let mut session = Session::new(client, packet.peer.clone(), place, permit);
    table.sessions.borrow_mut().insert(key.clone(), inbox);
    session.keep(Entry { table: table.clone(), key: RefCell::new(Some(key)) });
    net::spawn(journey::run(session, worker.clone(), None));
}

/// Where a packet was meant for, if that is another port than the listener's.
fn foreign_port(endpoint: &Endpoint, local: Option<SocketAddr>) -> Option<SocketAddr> {
    local.filter(|to| to.port() != 0 && Some(to.port()) != endpoint.address.port())
}

/// A session's place in the table, which it gives up at its end.
pub(crate) struct Entry {
    table: Rc<Table>,
    key: RefCell<Option<Key>>,
}

impl Entry {
    /// Leaves the table: further packets of the client begin a new session.
    pub(crate) fn leave(&self) {
        if let Some(key) = self.key.take() {
            self.table.sessions.borrow_mut().remove(&key);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.leave();
    }
}
