//! The sockets from which answers leave when clients spoke to somebody else's port: one for each
//! address and port that is in use, however many clients speak to it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};

use session::budget::{self, Permit};
use system::datagram;
use system::errno::Errno;
use system::socket::{Address, SocketError};

/// The sockets of one listener.
#[derive(Default)]
pub(crate) struct Senders(RefCell<HashMap<SocketAddr, Weak<Sender>>>);

/// One socket, for as long as a session needs it.
pub(crate) struct Sender {
    fd: OwnedFd,
    local: SocketAddr,
    all: Rc<Senders>,
    _permit: Permit,
}

impl Senders {
    /// The socket whose packets leave from `local`.
    ///
    /// # Errors
    /// The call that failed; `EMFILE` when `worker_connections` are in use.
    pub(crate) fn at(self: &Rc<Senders>, local: SocketAddr) -> Result<Rc<Sender>, SocketError> {
        if let Some(sender) = self.0.borrow().get(&local).and_then(Weak::upgrade) {
            return Ok(sender);
        }
        let full = SocketError { call: "socket", errno: Errno::from(rustix::io::Errno::MFILE) };
        let permit = budget::acquire().ok_or(full)?;
        let fd = datagram::sender(local)?;
        let sender = Rc::new(Sender { fd, local, all: self.clone(), _permit: permit });
        self.0.borrow_mut().insert(local, Rc::downgrade(&sender));
        Ok(sender)
    }
}

impl Sender {
    /// Sends one packet.
    pub(crate) fn send(&self, bytes: &[u8], peer: &Address) -> io::Result<usize> {
        datagram::send_to(self.fd.as_fd(), bytes, peer, None)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.all.0.borrow_mut().remove(&self.local);
    }
}
