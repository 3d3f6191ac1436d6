//! A worker: one process, one thread, one snapshot for its whole life.
//!
//! It takes on the user, limits and processors that the configuration gives to workers, starts a
//! driver of its own, lets the engines serve, and from then on only waits for signals:
//!
//! - TERM, INT: leave at once;
//! - QUIT: the program stops: finish what is open, then leave;
//! - [`retire_signal`]: a newer generation serves: the same, gentler with idle connections;
//! - USR1: open the logs anew.
//!
//! When the master dies workers go on serving, as nginx's do, until somebody ends them.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use net::Taking;
use session::log::{Level, Log, flush_all, flusher, no_context};
use session::{budget, counters, log, log_errno};
use system::driver::{self, Interest, Source};
use system::identity::identity;
use system::process::{self, Pid, Resource};
use system::signals::{Received, Signal, SignalQueue};
use system::title;

use crate::compile::{Core, Snapshot};
use crate::directives::EnvironmentEntry;
use crate::engines::{Ending, Service, WorkerSetup};
use crate::open::Generation;
use crate::readiness::Announcer;
use crate::report::leave_stderr;

/// The code of a worker that cannot run at all; it is not started again.
pub const FATAL: i32 = 2;

/// By which the master tells a worker that a newer generation serves. A real-time signal, so
/// that signals sent to all processes of a name never mean it.
pub fn retire_signal() -> Signal {
    Signal::real_time(1)
}

/// What a process beside the master is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It serves.
    Worker,
    /// It looks after what the workers share: it asks servers whether they are well. It is started
    /// again when it dies, like a worker, and serves nobody.
    Keeper,
}

impl Role {
    /// The keeper has the number after the last worker's.
    pub fn of(number: usize, snapshot: &Snapshot) -> Role {
        if number < snapshot.core.workers { Role::Worker } else { Role::Keeper }
    }

    /// What logs and `ps` call it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Keeper => "keeper",
        }
    }
}

/// What a worker is told by signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Exit,
    End(Ending),
    Reopen,
}

/// Signals that a worker reads. HUP, USR2 and WINCH mean something to the master only, and are
/// ignored when they are sent to all processes of a name.
fn signals() -> [Signal; 8] {
    [
        Signal::TERM,
        Signal::INT,
        Signal::QUIT,
        Signal::USR1,
        Signal::HUP,
        Signal::USR2,
        Signal::WINCH,
        retire_signal(),
    ]
}

/// The life of a forked worker, which announces when it serves.
pub fn run(generation: Generation, number: usize, announcer: Option<Announcer>) -> ! {
    let role = Role::of(number, &generation.snapshot);
    title::set(&format!("{}: {} process", identity().program, role.name()));
    let log = generation.snapshot.log.clone();
    let code = match begin(&generation, number) {
        Ok(worker) => {
            leave_stderr(&log, &generation.snapshot.files);
            // The master's copies of the sockets would keep addresses open after a stop.
            drop(generation);
            if let Some(announcer) = announcer {
                announcer.announce();
            }
            driver::block_on(worker.obey());
            log!(log, Level::Notice, None, &no_context, "exit");
            0
        }
        Err(Fatal) => FATAL,
    };
    flush_all();
    process::exit_now(code)
}

/// The reason was logged.
struct Fatal;

fn begin(generation: &Generation, number: usize) -> Result<Worker, Fatal> {
    let snapshot = &generation.snapshot;
    take_rights(&snapshot.core, number, &snapshot.log)?;
    Worker::start(generation, number)
}

/// Limits, user, processors and directory, in nginx's order. What is only a wish is said when it
/// fails; running as the wrong user or in the wrong directory is fatal.
fn take_rights(core: &Core, number: usize, log: &Log) -> Result<(), Fatal> {
    let alert = |call: String, outcome: io::Result<()>| {
        if let Err(error) = outcome {
            log_errno!(log, Level::Alert, error.into(), None, &no_context, "{call} failed");
        }
    };
    process::replace_environment(&environment(&core.environment));
    if core.priority != 0 {
        let call = format!("setpriority({})", core.priority);
        alert(call, process::set_priority(core.priority));
    }
    let limits = [
        ("NOFILE", Resource::Descriptors, core.descriptor_limit),
        ("CORE", Resource::Core, core.core_limit),
    ];
    for (name, resource, value) in limits {
        if let Some(value) = value {
            let call = format!("setrlimit(RLIMIT_{name}, {value})");
            alert(call, process::set_limit(resource, value));
        }
    }
    if let Some(account) = core.account.as_ref().filter(|_| process::is_superuser()) {
        process::become_account(account, core.keep).map_err(|failed| {
            let (call, errno) = (failed.call, failed.error.into());
            log_errno!(log, Level::Emerg, errno, None, &no_context, "{call} failed");
            Fatal
        })?;
    }
    if let Some(affinity) = core.affinity.as_ref().filter(|_| number < core.workers) {
        let processors = affinity.of_worker(number, process::processor_count());
        for processor in &processors {
            log!(
                log,
                Level::Notice,
                None,
                &no_context,
                "sched_setaffinity(): using cpu #{processor}"
            );
        }
        alert("sched_setaffinity()".to_owned(), process::set_affinity(&processors));
    }
    alert("prctl(PR_SET_DUMPABLE)".to_owned(), process::set_dumpable());
    if let Some(directory) = &core.working_directory {
        process::change_directory(directory).map_err(|error| {
            let shown = directory.display();
            log_errno!(
                log,
                Level::Alert,
                error.into(),
                None,
                &no_context,
                "chdir(\"{shown}\") failed"
            );
            Fatal
        })?;
    }
    Ok(())
}

/// `NAME=VALUE` texts of the environment that `env` leaves: what it names, and TZ.
pub fn environment(entries: &[EnvironmentEntry]) -> Vec<std::ffi::OsString> {
    let keep_time_zone = EnvironmentEntry::Keep("TZ".to_owned());
    let names_time_zone = entries.iter().any(|entry| match entry {
        EnvironmentEntry::Keep(name) | EnvironmentEntry::Set { name, .. } => name == "TZ",
    });
    let time_zone = Some(&keep_time_zone).filter(|_| !names_time_zone);
    let present = |name: &str| {
        let mut text = std::ffi::OsString::from(name);
        text.push("=");
        text.push(std::env::var_os(name)?);
        Some(text)
    };
    entries
        .iter()
        .chain(time_zone)
        .filter_map(|entry| match entry {
            EnvironmentEntry::Keep(name) => present(name),
            EnvironmentEntry::Set { name, value } => Some(format!("{name}={value}").into()),
        })
        .collect()
}

/// Starts this process's event loop. Where io_uring cannot be had (an older kernel, a limit, a
/// sandbox), epoll takes its place, and the log says so.
pub fn start_driver(core: &Core, log: &Log) -> io::Result<()> {
    let kind = core.event_method;
    let settings = driver::Settings { kind, events: core.events };
    match driver::start(settings) {
        Err(error) if kind == driver::Kind::IoUring => {
            let message = "io_uring is not available, using epoll instead";
            log_errno!(log, Level::Notice, error.into(), None, &no_context, "{message}");
            driver::start(driver::Settings { kind: driver::Kind::Epoll, ..settings })
        }
        outcome => outcome,
    }
}

/// How often a worker that is ending looks whether the last bytes are sent.
const UNSENT_PAUSE_MS: u64 = 20;

/// A process that serves: its services and its ear for signals.
pub struct Worker {
    snapshot: Rc<Snapshot>,
    services: Vec<Rc<dyn Service>>,
    queue: SignalQueue,
    master: Pid,
    /// As `ps` shows it.
    role: &'static str,
}

impl Worker {
    fn start(generation: &Generation, number: usize) -> Result<Worker, Fatal> {
        let snapshot = generation.snapshot.clone();
        let log = &snapshot.log;
        let failed = |what: &str, error: io::Error| {
            log_errno!(log, Level::Emerg, error.into(), None, &no_context, "{what} failed");
            Fatal
        };
        start_driver(&snapshot.core, log)
            .map_err(|error| failed("starting the event loop", error))?;
        driver::spawn(flusher());
        let queue = SignalQueue::open(&signals()).map_err(|e| failed("signalfd()", e))?;
        let services = match Role::of(number, &snapshot) {
            Role::Worker => serve(generation, number, snapshot.core.workers)
                .map_err(|error| failed("watching a listener", error))?,
            Role::Keeper => {
                snapshot.engines.iter().for_each(|engine| engine.keep());
                Vec::new()
            }
        };
        let (role, master) = (Role::of(number, &snapshot).name(), process::parent_pid());
        Ok(Worker { snapshot: snapshot.clone(), services, queue, master, role })
    }

    /// Serves until told to leave.
    async fn obey(self) {
        let log = &self.snapshot.log;
        let source = match Source::new(self.queue.as_fd(), Interest::READ) {
            Ok(source) => source,
            Err(error) => {
                let what = "watching for signals failed";
                log_errno!(log, Level::Emerg, error.into(), None, &no_context, "{what}");
                return;
            }
        };
        let mut ending = None;
        loop {
            let order = match ending {
                None => self.order(&source).await,
                Some(_) => match net::race(self.order(&source), all_ended(&self.services)).await {
                    net::Either::First(order) => order,
                    net::Either::Second(()) => break,
                },
            };
            match order {
                Order::Exit => break,
                Order::Reopen => self.reopen(),
                Order::End(how) => {
                    if ending.is_none() {
                        self.say_ending();
                    }
                    // A retiring worker may still be told that all stops; not the other way.
                    if ending != Some(Ending::Stop) {
                        ending = Some(how);
                        end(&self.services, how, self.snapshot.core.shutdown_timeout_ms);
                    }
                }
            }
        }
        log!(log, Level::Notice, None, &no_context, "exiting");
    }

    fn say_ending(&self) {
        let log = &self.snapshot.log;
        log!(log, Level::Notice, None, &no_context, "gracefully shutting down");
        title::set(&format!("{}: {} process is shutting down", identity().program, self.role));
    }

    fn reopen(&self) {
        let Snapshot { log, files, .. } = &*self.snapshot;
        log!(log, Level::Notice, None, &no_context, "reopening logs");
        files.reopen(None, log);
    }

    /// The next signal that means something.
    async fn order(&self, source: &Source) -> Order {
        loop {
            let received = next_signal(&self.queue, source).await;
            if let Some(order) = self.understand(received) {
                return order;
            }
        }
    }

    fn understand(&self, received: Received) -> Option<Order> {
        let (order, action) = match received.signal {
            Signal::TERM | Signal::INT => (Some(Order::Exit), ", exiting"),
            Signal::QUIT => (Some(Order::End(Ending::Stop)), ", shutting down"),
            Signal::USR1 => (Some(Order::Reopen), ", reopening logs"),
            signal if signal == retire_signal() => {
                (Some(Order::End(Ending::Retire)), ", shutting down")
            }
            _ => (None, ", ignoring"),
        };
        // What the master orders it has logged already.
        if received.sender != Some(self.master) {
            say_received(&self.snapshot.log, received, action);
        }
        order
    }
}

/// Waits for a signal inside a driver; `source` watches the queue.
pub async fn next_signal(queue: &SignalQueue, source: &Source) -> Received {
    loop {
        poll_fn(|cx| source.poll_readable(cx)).await;
        match queue.take() {
            Ok(Some(received)) => return received,
            // Nothing waits, or the queue cannot be read: wait for the next event.
            Ok(None) | Err(_) => source.clear_readable(),
        }
    }
}

/// Waits until each of several services has no connection left, and all that was written to them
/// is with the kernel.
pub async fn all_ended(services: &[Rc<dyn Service>]) {
    for service in services {
        service.ended().await;
    }
    while driver::has_unsent() {
        net::sleep(UNSENT_PAUSE_MS).await;
    }
}

/// Lets the engines of a generation serve as worker `number` out of `workers`.
pub fn serve(
    generation: &Generation,
    number: usize,
    workers: usize,
) -> io::Result<Vec<Rc<dyn Service>>> {
    log::debug_clients(&generation.snapshot.core.debugged);
    let core = &generation.snapshot.core;
    let connections = usize::try_from(core.connections).unwrap_or(usize::MAX);
    budget::set_limit(connections);
    counters::enter();
    let taking = if core.multi_accept { Taking::All } else { Taking::One };
    // A worker beyond the seats, which there is not, would only have none.
    let seat = generation.seats.as_ref().and_then(|seats| seats.take(number).ok());
    let listeners = generation.listeners.of_worker(number, workers, taking, seat.as_ref())?;
    let mut listeners = listeners.into_iter();
    let mut services = Vec::new();
    for engine in &generation.snapshot.engines {
        let own = listeners.by_ref().take(engine.listeners().len()).collect();
        let setup = WorkerSetup { number, listeners: own, seat: seat.clone(), connections };
        services.push(engine.clone().serve(setup));
        if !core.master_process {
            // There is no other process that could.
            engine.keep();
        }
    }
    Ok(services)
}

/// Lets services come to their end, and cuts them off after a time.
pub fn end(services: &[Rc<dyn Service>], how: Ending, limit_ms: Option<u64>) {
    for service in services {
        service.end(how);
    }
    let Some(limit_ms) = limit_ms else { return };
    let services = services.to_vec();
    driver::spawn(async move {
        net::sleep(limit_ms).await;
        services.iter().for_each(|service| service.abort());
    });
}

/// `signal 15 (SIGTERM) received from 123, exiting`.
pub fn say_received(log: &Log, received: Received, action: &str) {
    let Received { signal, sender } = received;
    match sender {
        Some(sender) => log!(
            log,
            Level::Notice,
            None,
            &no_context,
            "signal {signal} received from {sender}{action}"
        ),
        None => log!(log, Level::Notice, None, &no_context, "signal {signal} received{action}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_variables_are_left() {
        let set = |name: &str, value: &str| EnvironmentEntry::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let keep = |name: &str| EnvironmentEntry::Keep(name.to_owned());
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        for (entries, expected) in [
            (vec![], vec![]),
            (vec![set("A", "b=c"), set("TZ", "UTC")], vec!["A=b=c", "TZ=UTC"]),
            (vec![keep("PATH"), keep("SURELY_NOT_SET_ANYWHERE")], vec![path.as_str()]),
        ] {
            let left = environment(&entries);
            let left = left.iter().filter(|text| {
                // The time zone of whoever runs the tests.
                !entries.is_empty() || !text.to_string_lossy().starts_with("TZ=")
            });
            assert_eq!(left.collect::<Vec<_>>(), expected);
        }
    }
}
