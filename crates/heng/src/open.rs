//! From a compiled snapshot to one whose files, directories and sockets are open.
//!
//! This is what may fail although the text is fine: no permission, no directory, a taken port.
//! At a reload a failure leaves everything as it was.

use std::path::PathBuf;
use std::rc::Rc;

use config::DiskFiles;
use net::Seats;
use session::log::{Level, Log, no_context};
use session::zones::Zones;
use session::{log, log_errno};
use system::identity::identity;
use system::process::{self, Resource};

use crate::compile::{Snapshot, compile};
use crate::directives::event_method;
use crate::listeners::{Listeners, Purpose};
use crate::paths::Places;
use crate::pid_file;
use crate::report;

/// A configuration in force: everything that workers inherit.
pub struct Generation {
    pub snapshot: Rc<Snapshot>,
    pub listeners: Listeners,
    /// By which the workers see how many connections each of them holds. Nothing when there is
    /// nobody to share with, or no memory for it: the kernel's own choice then stands.
    pub seats: Option<Seats>,
}

/// What is needed to read the configuration again.
pub struct Origin {
    pub places: Places,
    /// The text of `-g`.
    pub globals: Vec<String>,
    /// Where errors go without an `error_log`: `-e`.
    pub error_log: PathBuf,
}

fn seats_for(workers: usize) -> Option<Seats> {
    (workers > 1).then(|| Seats::new(workers).ok()).flatten()
}

impl Generation {
    /// Gives workers that are started beside retiring ones of the same generation empty seats.
    pub fn renew_seats(&mut self) {
        self.seats = seats_for(self.snapshot.core.workers);
    }

    /// Compiles and opens the configuration as it is on disk now, beside this one. Nothing when
    /// it is refused or cannot be opened; the reasons are in this one's log.
    pub fn successor(&self, origin: &Origin) -> Option<Generation> {
        let Origin { places, globals, error_log } = origin;
        let log = &self.snapshot.log;
        log!(log, Level::Notice, None, &no_context, "reconfiguring");
        let compilation = compile(&DiskFiles, places, globals, error_log);
        report::to_log(log, &compilation.tree, &compilation.diagnostics);
        report::to_log(log, &compilation.tree, &compilation.late);
        let present = Present { listeners: &self.listeners, zones: Some(&self.snapshot.zones) };
        open(compilation.snapshot?, present, Purpose::Serve, log).ok()
    }
}

/// The reason was logged.
#[derive(Debug)]
pub struct CannotOpen;

/// What is open already and may be taken over.
#[derive(Clone, Copy)]
pub struct Present<'p> {
    pub listeners: &'p Listeners,
    /// Nothing at a start: zones do not outlive the program.
    pub zones: Option<&'p Zones>,
}

/// Opens what a snapshot needs, sharing the sockets and zones of `present`. Until its own log is
/// open, failures go to `log`.
pub fn open(
    snapshot: Snapshot,
    present: Present<'_>,
    purpose: Purpose,
    log: &Log,
) -> Result<Generation, CannotOpen> {
    let core = &snapshot.core;
    if purpose == Purpose::Test && core.master_process {
        pid_file::test(&core.pid_file, log).map_err(|_| CannotOpen)?;
    }
    let owner = core.account.as_ref().map(|account| account.user);
    for engine in &snapshot.engines {
        if let Err(message) = engine.prepare(owner) {
            log!(log, Level::Emerg, None, &no_context, "{message}");
            return Err(CannotOpen);
        }
    }
    if let Err(error) = snapshot.files.open() {
        log!(log, Level::Emerg, None, &no_context, "{error}");
        return Err(CannotOpen);
    }
    let log = &snapshot.log;
    if let Err(message) = snapshot.zones.open(present.zones) {
        log!(log, Level::Emerg, None, &no_context, "{message}");
        return Err(CannotOpen);
    }
    let listeners = present.listeners;
    let workers = if core.master_process { core.workers } else { 1 };
    let listeners =
        listeners.reopen(&snapshot.listeners(), workers, purpose, log).map_err(|_| CannotOpen)?;
    if purpose == Purpose::Serve {
        prepare_counters(log);
        say_event_method(&snapshot);
    }
    // Nothing can fail any more: what lives on in zones may follow this configuration.
    snapshot.engines.iter().for_each(|engine| engine.opened());
    let seats = seats_for(workers);
    Ok(Generation { snapshot: Rc::new(snapshot), listeners, seats })
}

/// Without memory for them nothing is counted, and everything else works.
fn prepare_counters(log: &Log) {
    if let Err(error) = session::counters::prepare() {
        let call = "mmap() for counters failed";
        log_errno!(log, Level::Alert, error.into(), None, &no_context, "{call}");
    }
}

fn say_event_method(snapshot: &Snapshot) {
    let Snapshot { core, log, .. } = snapshot;
    let method = event_method(core.event_method);
    log!(log, Level::Notice, None, &no_context, "using the \"{method}\" event method");
    let limit = process::limit(Resource::Descriptors).soft;
    let limit = core.descriptor_limit.or(limit);
    let wanted = core.connections;
    if let Some(limit) = limit.filter(|&limit| wanted > limit) {
        log!(
            log,
            Level::Warn,
            None,
            &no_context,
            "{wanted} worker_connections exceed open file resource limit: {limit}"
        );
    }
}

/// The lines that open a program's life: who it is and on what it runs.
pub fn say_who_we_are(log: &Log) {
    log!(log, Level::Notice, None, &no_context, "{}", identity().server);
    let (system, release) = process::system_and_release();
    log!(log, Level::Notice, None, &no_context, "OS: {system} {release}");
    let limit = process::limit(Resource::Descriptors);
    let shown = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
    log!(
        log,
        Level::Notice,
        None,
        &no_context,
        "getrlimit(RLIMIT_NOFILE): {}:{}",
        shown(limit.soft),
        shown(limit.hard)
    );
}
