//! The client's side of a session: a connection, or the packets that come from one address.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use net::datagram::DatagramListener;
use net::{Block, Stream};
use system::socket::Address;

use crate::senders::Sender;

/// Packets that wait for their session at most; further ones are lost, as on a busy line.
const WAITING: usize = 256;

/// Where the bytes of a session come from and answers go to.
pub enum Client {
    /// A connection; taken out when it is passed on.
    Connection(Option<Stream>),
    /// Packets.
    Packets(Packets),
}

/// The packets of one client.
pub struct Packets {
    pub(crate) socket: Rc<DatagramListener>,
    pub(crate) inbox: Rc<Inbox>,
    /// The address that they came to, when the socket has several. The port is 0 where it is the
    /// socket's.
    pub(crate) local: Option<SocketAddr>,
    /// Answers leave from here when that is not the socket's port.
    pub(crate) sender: Option<Rc<Sender>>,
    pub(crate) peer: Address,
}

/// Packets that came and wait for their session.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: RefCell<VecDeque<Block>>,
    waker: Cell<Option<Waker>>,
    /// The worker takes no more packets: sessions are to come to their end.
    closing: Cell<bool>,
}

impl Inbox {
    /// Leaves a packet for the session.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < WAITING {
            waiting.push_back(Block::copy_of(bytes));
        }
        drop(waiting);
        self.wake();
    }

    /// Tells the session that its socket takes no more packets.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// The first packet that waits; whoever polls in vain is woken by the next one.
    pub(crate) fn poll_front<R>(
        &self,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut Context<'_>, &[u8]) -> R,
    ) -> Poll<R> {
        match self.waiting.borrow().front() {
            Some(packet) => Poll::Ready(look(cx, packet.filled())),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Forgets the first packet.
    pub(crate) fn pop(&self) {
        self.waiting.borrow_mut().pop_front();
    }
}

impl Packets {
    /// Answers with one packet.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.sender {
            Some(sender) => sender.send(bytes, &self.peer),
            None => self.socket.send_to(bytes, &self.peer, self.local.map(|local| local.ip())),
        }
    }
}

impl Client {
    /// The connection, when there is one.
    pub fn connection(&self) -> Option<&Stream> {
        match self {
            Client::Connection(stream) => stream.as_ref(),
            Client::Packets(_) => None,
        }
    }

    /// The address that the client spoke to.
    pub(crate) fn local(&self) -> Option<Address> {
        match self {
            Client::Connection(stream) => {
                system::socket::local_address(stream.as_ref()?.as_fd()).ok()
            }
            Client::Packets(packets) => {
                let bound = system::socket::local_address(packets.socket.as_fd()).ok()?;
                Some(match (packets.local, &bound) {
                    (Some(to), Address::Inet(bound)) if to.port() == 0 => {
                        Address::Inet((to.ip(), bound.port()).into())
                    }
                    (Some(to), _) => Address::Inet(to),
                    _ => bound,
                })
            }
        }
    }
}

/// The block of the longest packet is not kept: packets are small, and many may wait.
const _: () = assert!(size_of::<Block>() <= 32, "one of these per packet that waits");
