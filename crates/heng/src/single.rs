//! `master_process off`: one process that reads the configuration and serves.
//!
//! Meant for development. A reload starts the new configuration's services beside the old ones,
//! in the same event loop; the old ones finish what is open. Users, limits and processors stay
//! those of the starter, as in nginx.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use session::log::{Level, Log, flush_all, flusher, no_context};
use session::{log, log_errno};
use system::driver::{self, Interest, Source};
use system::process;
use system::signals::{Received, Signal, SignalQueue};

use crate::engines::{Ending, Service};
use crate::open::{Generation, Origin};
use crate::pid_file;
use crate::worker::{all_ended, end, next_signal, say_received, serve, start_driver};

/// Signals that a single process reads.
pub fn signals() -> [Signal; 7] {
    [
        Signal::TERM,
        Signal::INT,
        Signal::QUIT,
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::WINCH,
    ]
}

/// The one process at work.
pub struct Single {
    origin: Origin,
    generation: Generation,
    services: Vec<Rc<dyn Service>>,
    /// Services of older configurations that may still have connections.
    retiring: Vec<Rc<dyn Service>>,
    queue: SignalQueue,
}

impl Single {
    /// Starts the event loop and the services.
    pub fn start(origin: Origin, generation: Generation, queue: SignalQueue) -> io::Result<Single> {
        let snapshot = &generation.snapshot;
        start_driver(&snapshot.core, &snapshot.log)?;
        driver::spawn(flusher());
        let services = serve(&generation, 0, 1)?;
        Ok(Single { origin, generation, services, retiring: Vec::new(), queue })
    }

    /// Serves until told to leave. The result is the exit code.
    pub fn run(mut self) -> i32 {
        driver::block_on(self.obey());
        let log = self.log().clone();
        self.generation.listeners.remove_files_unlike(&Default::default());
        pid_file::remove(&self.generation.snapshot.core.pid_file, &log);
        log!(log, Level::Notice, None, &no_context, "exit");
        flush_all();
        0
    }

    fn log(&self) -> &Log {
        &self.generation.snapshot.log
    }

    async fn obey(&mut self) {
        let Ok(source) = Source::new(self.queue.as_fd(), Interest::READ) else { return };
        let mut finishing = false;
        loop {
            let received = if finishing {
                let signal = next_signal(&self.queue, &source);
                match net::race(signal, self.everything_ended()).await {
                    net::Either::First(received) => received,
                    net::Either::Second(()) => return,
                }
            } else {
                next_signal(&self.queue, &source).await
            };
            say_received(self.log(), received, action(received));
            match received.signal {
                Signal::TERM | Signal::INT => return,
                Signal::QUIT if !finishing => {
                    finishing = true;
                    self.finish();
                }
                Signal::HUP if !finishing => self.reload(),
                Signal::USR1 => self.reopen(),
                _ => {}
            }
        }
    }

    async fn everything_ended(&self) {
        all_ended(&self.services).await;
        all_ended(&self.retiring).await;
    }

    fn limit_ms(&self) -> Option<u64> {
        self.generation.snapshot.core.shutdown_timeout_ms
    }

    fn finish(&mut self) {
        log!(self.log(), Level::Notice, None, &no_context, "gracefully shutting down");
        end(&self.services, Ending::Stop, self.limit_ms());
        end(&self.retiring, Ending::Stop, None);
    }

    fn reload(&mut self) {
        let Some(next) = self.generation.successor(&self.origin) else { return };
        let services = match serve(&next, 0, 1) {
            Ok(services) => services,
            Err(error) => {
                let what = "watching a listener failed";
                log_errno!(self.log(), Level::Emerg, error.into(), None, &no_context, "{what}");
                return;
            }
        };
        let old_services = std::mem::replace(&mut self.services, services);
        end(&old_services, Ending::Retire, self.limit_ms());
        self.retiring.extend(old_services);
        let old = std::mem::replace(&mut self.generation, next);
        old.listeners.remove_files_unlike(&self.generation.listeners);
        self.log().set_process();
        let (old, new) = (&old.snapshot.core.pid_file, &self.generation.snapshot.core.pid_file);
        if old != new && pid_file::create(new, self.log()).is_ok() {
            pid_file::remove(old, self.log());
        }
    }

    fn reopen(&self) {
        log!(self.log(), Level::Notice, None, &no_context, "reopening logs");
        let owner = process::is_superuser().then_some(0);
        self.generation.snapshot.files.reopen(owner, self.log());
    }
}

fn action(received: Received) -> &'static str {
    match received.signal {
        Signal::TERM | Signal::INT => ", exiting",
        Signal::QUIT => ", shutting down",
        Signal::HUP => ", reconfiguring",
        Signal::USR1 => ", reopening logs",
        _ => ", ignoring",
    }
}
