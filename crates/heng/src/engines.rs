//! The seam between the processes of this crate and the protocol engines above them.
//!
//! An engine (http; later stream, mail) is compiled from its block of the configuration. The
//! master asks it which sockets must be open and lets it prepare directories and zones; a worker
//! asks it to serve, and later to come to an end. Nothing else of an engine is known here.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;

use config::Scope;
use net::{Listener, Seat};
use session::log::{Log, LogFiles};
use session::zones::Zones;
use system::socket::{Address, ListenOptions};

/// A socket that an engine wants open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub address: Address,
    pub options: ListenOptions,
}

/// What compiling an engine needs besides the configuration.
pub struct Surroundings<'c> {
    /// Relative paths start here (`-p`).
    pub prefix: &'c Path,
    /// All log files of this configuration, opened once however often they are named.
    pub logs: &'c LogFiles,
    /// The log of the main level.
    pub log: &'c Log,
    /// Named zones of shared memory.
    pub zones: &'c Zones,
}

/// Compiles an engine from the main level; nothing when its block is absent. Faults go to the
/// scope; the result is used only when none of them refuses the configuration.
pub type Compile = fn(&Scope<'_>, Surroundings<'_>) -> Option<Rc<dyn Engine>>;

/// An engine as one configuration describes it.
pub trait Engine {
    /// The sockets it serves, each address once.
    fn listeners(&self) -> Vec<Wanted>;

    /// Makes what must exist before workers are forked, such as directories for temporary files,
    /// for the user that workers will run as. The error is a log message.
    fn prepare(&self, owner: Option<u32>) -> Result<(), String>;

    /// Told in the master when the zones of this configuration have their memory, before a worker
    /// is forked.
    fn opened(&self) {}

    /// Whether it has work for the keeper, the one process beside the workers.
    fn wants_keeper(&self) -> bool {
        false
    }

    /// Begins the keeper's work, inside a started driver.
    fn keep(&self) {}

    /// Begins to serve, inside a worker's started driver.
    fn serve(self: Rc<Self>, worker: WorkerSetup) -> Rc<dyn Service>;

    /// Told in the master when a worker of this configuration has died without being asked to
    /// leave, by its number: what it had counted in shared memory is to be taken back. An engine
    /// without shared memory has nothing to do.
    fn worker_died(&self, number: usize) {
        let _ = number;
    }
}

/// What a worker gives to an engine.
pub struct WorkerSetup {
    /// The worker's place among those of its configuration, from 0. One that replaces a dead
    /// worker has the number of that one.
    pub number: usize,
    /// For each socket of [`Engine::listeners`], in that order, the listeners to accept from.
    pub listeners: Vec<Vec<Listener>>,
    /// Where connections with clients are counted for the other workers to see.
    pub seat: Option<Rc<Seat>>,
    /// `worker_connections`: connections with clients and with upstream servers, together.
    pub connections: usize,
}

/// How a service comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// A newer generation serves (HUP): be gentle with idle connections, their clients do not
    /// know yet.
    Retire,
    /// The program stops (QUIT): idle connections close at once.
    Stop,
}

/// An engine at work in this process.
pub trait Service {
    /// Takes the connections that already wait in the listeners' queues, closes the listeners
    /// and finishes what is open.
    fn end(&self, ending: Ending);

    /// Closes every connection now (`worker_shutdown_timeout`).
    fn abort(&self);

    /// Resolves when no connection is left after [`Service::end`].
    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
}
