//! The compiled `stream` block: what a worker serves from, immutable for its life.

use std::rc::Rc;

use session::log::Log;
use session::variables::Variables;
use system::socket::{Address, ListenOptions};

use crate::server::Servers;
use crate::session::Session;
use session::lifecycle::Lifecycle;

/// Everything compiled from one `stream` block.
pub struct Stream {
    /// The sockets that must be open, with the addresses each of them serves.
    pub listeners: Vec<Rc<Endpoint>>,
    /// The variables in use.
    pub variables: Rc<Variables<Session>>,
    /// What follows the workers' lives.
    pub lifecycles: Vec<Rc<dyn Lifecycle>>,
    /// The error log of the stream level.
    pub error_log: Log,
}

/// One socket. A wildcard socket may serve several addresses of its port; a session then asks the
/// kernel which one it came to.
pub struct Endpoint {
    /// What the socket is bound to.
    pub address: Address,
    /// How it is opened.
    pub options: ListenOptions,
    /// The most specific addresses first; the last one is the socket's own.
    pub served: Vec<(Address, Rc<Served>)>,
}

impl Endpoint {
    /// What is served at one of the socket's addresses.
    pub(crate) fn served_at(&self, local: Option<&Address>) -> Option<Rc<Served>> {
        let exact = self.served.iter().find(|(address, _)| Some(address) == local);
        exact.or(self.served.last()).map(|(_, served)| served.clone())
    }

    /// Whether it matters which of the socket's addresses a session came to.
    pub(crate) fn has_several(&self) -> bool {
        self.served.len() > 1
    }
}

/// What one `listen` address serves.
pub struct Served {
    /// Its servers.
    pub servers: Servers,
    /// Connections begin with a header of the PROXY protocol: a `listen` of the address says so.
    pub proxy_protocol: bool,
    /// Connections speak TLS.
    pub ssl: bool,
}
