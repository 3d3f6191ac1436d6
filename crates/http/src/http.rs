//! The compiled `http` block: what a worker serves from, immutable for its life.

use crate::exchange::Exchange;
use crate::site::{Site, Sites};
use crate::temp::TempFolder;
use session::lifecycle::Lifecycle;
use session::log::Log;
use session::variables::Variables;
use std::rc::Rc;
use system::socket::{Address, ListenOptions};

/// Everything compiled from one `http` block.
pub struct Http {
    /// The sockets that must be open, with the addresses each of them serves.
    pub listeners: Vec<Rc<Endpoint>>,
    /// All servers in the order of the file.
    pub sites: Vec<Rc<Site>>,
    /// The variables in use.
    pub variables: Rc<Variables<Exchange>>,
    /// Folders for temporary files: made by the master before workers start.
    pub temp_folders: Vec<Rc<TempFolder>>,
    /// What follows the workers' lives.
    pub lifecycles: Vec<Rc<dyn Lifecycle>>,
    /// The error log of the http level.
    pub error_log: Log,
}

/// One listening socket. A wildcard socket may serve several addresses of its port; a connection
/// then asks the kernel which one it came to.
pub struct Endpoint {
    /// What the socket is bound to.
    pub address: Address,
    /// How it is opened.
    pub options: ListenOptions,
    /// The most specific addresses first; the last one is the socket's own.
    pub served: Vec<(Address, Rc<Served>)>,
}

/// What one `listen` address serves.
pub struct Served {
    /// Its servers.
    pub sites: Sites,
    /// Text of the address for `$server_addr` when it is not a wildcard.
    pub address: Address,
    /// Connections begin with a header of the PROXY protocol: a `listen` of the address says so.
    pub proxy_protocol: bool,
    /// Clients may speak HTTP/2: a server of the address says so.
    pub http2: bool,
    /// A `listen` of the address says so, for all of its servers.
    pub http2_listen: bool,
    /// Clients speak TLS: a `listen` of the address says so.
    pub tls: bool,
}
