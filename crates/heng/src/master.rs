//! The master: one thread that waits for signals and keeps workers alive.
//!
//! It never touches a connection. What a signal means (nginx's control(8)):
//!
//! | signal | meaning |
//! |---|---|
//! | TERM, INT | all leave at once; who does not within a second is killed |
//! | QUIT | workers finish what is open, then all leave |
//! | HUP | compile the configuration again; new workers serve, old ones retire |
//! | USR1 | everybody opens the logs anew |
//! | USR2 | execute the program anew beside this one |
//! | WINCH | workers leave gracefully, the master stays (daemon only) |

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use session::log::{Level, Log, flush_all, no_context};
use session::{log, log_errno};
use system::identity::identity;
use system::process::{self, Exit, Fork, Pid};
use system::signals::{self, Received, Signal, SignalQueue};

use crate::children::{Children, Death};
use crate::open::{Generation, Origin};
use crate::pid_file;
use crate::readiness::{self, Announcer, Outcome, Readiness};
use crate::upgrade;
use crate::worker::{self, Role, retire_signal, say_received};

/// Generations that may retire at a time; older ones give up their idle connections at once.
const RETIRING: usize = 8;
/// After so long of asking kindly a worker that does not leave is killed (nginx: 1 s).
const KILL_AFTER: Duration = Duration::from_millis(1000);
/// The first pause between two requests to leave; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long a start waits for workers to say that they serve.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How this process came to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Birth {
    /// It left the terminal, or was started by an older program that had.
    pub daemon: bool,
    /// It took over the sockets of an older program.
    pub older_program: Option<OlderProgram>,
}

/// The program that an upgrade has started this one from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OlderProgram {
    /// It was our parent when we started.
    pid: Pid,
    /// Its pid file, when it is where ours leads to suppose. It removes the file as it leaves.
    pid_file: Option<PathBuf>,
}

impl OlderProgram {
    /// The parent of this process, whose pid file stands beside ours.
    pub fn parent(own_pid_file: &Path) -> OlderProgram {
        let pid_file = Some(pid_file::old_name(own_pid_file)).filter(|file| file.exists());
        OlderProgram { pid: process::parent_pid(), pid_file }
    }

    fn lives(&self) -> bool {
        // A process that has removed its pid file is as good as gone.
        let there = self.pid_file.as_ref().is_none_or(|file| file.exists());
        there && process::parent_pid() == self.pid
    }
}

/// What the master is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Serving,
    /// WINCH: no worker serves, sockets stay open.
    Paused,
    /// QUIT: waiting for workers to finish.
    Finishing,
    /// TERM: asking, and at last killing.
    Ending {
        since: Instant,
        pause: Duration,
        next: Instant,
    },
}

/// The master process.
pub struct Master {
    origin: Origin,
    birth: Birth,
    /// Taken out only by a forked child.
    generation: Option<Generation>,
    /// Counts the configurations that came into force.
    serial: u64,
    children: Children,
    phase: Phase,
    queue: SignalQueue,
    new_program: Option<Pid>,
    /// Those of the workers' siblings that are keepers.
    keepers: Vec<Pid>,
    /// Held while workers are being started: the master's end, and the one that each worker
    /// closes when it serves.
    readiness: Option<(Readiness, Announcer)>,
}

/// The signals that a master reads.
pub fn master_signals() -> [Signal; 10] {
    [
        Signal::CHLD,
        Signal::ALRM,
        Signal::IO,
        Signal::INT,
        Signal::HUP,
        Signal::USR1,
        Signal::WINCH,
        Signal::TERM,
        Signal::QUIT,
        Signal::USR2,
    ]
}

impl Master {
    /// A master without workers yet. The queue was opened before, so that no signal is lost.
    pub fn new(origin: Origin, birth: Birth, generation: Generation, queue: SignalQueue) -> Master {
        Master {
            origin,
            birth,
            generation: Some(generation),
            serial: 1,
            children: Children::default(),
            phase: Phase::Serving,
            queue,
            new_program: None,
            keepers: Vec::new(),
            readiness: None,
        }
    }

    fn generation(&self) -> &Generation {
        // Only a forked child takes it, and that one never comes back here.
        self.generation.as_ref().expect("the master keeps its generation")
    }

    fn log(&self) -> &Log {
        &self.generation().snapshot.log
    }

    /// Serves until the end of the program. The result is its exit code.
    pub fn run(mut self) -> i32 {
        loop {
            self.fill_vacancies();
            let limit = self.next_moment().map(|at| at.saturating_duration_since(Instant::now()));
            match self.queue.wait(limit) {
                Ok(Some(received)) => self.handle(received),
                Ok(None) => {}
                Err(error) => {
                    // Nothing can be heard any more; leaving is all that is left.
                    let call = "read() from signalfd failed";
                    log_errno!(self.log(), Level::Alert, error.into(), None, &no_context, "{call}");
                    self.begin_end();
                }
            }
            self.keep_ending();
            let leaving = matches!(self.phase, Phase::Finishing | Phase::Ending { .. });
            if leaving && self.children.is_empty() {
                return self.leave();
            }
        }
    }

    /// Starts the first workers. False when none of them can run; they have said why.
    pub fn begin(&mut self) -> bool {
        let nobody_serves = self.start_workers() == Outcome::Serving(0);
        if !nobody_serves || self.generation().snapshot.core.workers == 0 {
            return true;
        }
        // They have let go of the pipe, so they are dying if they are not dead.
        let end = Instant::now() + START_PATIENCE;
        self.bury();
        while !self.children.is_empty() && Instant::now() < end {
            // A failing wait ends in the next look at the clock.
            let _ = self.queue.wait(Some(FIRST_PAUSE));
            self.bury();
        }
        // One that was killed may do better the next time; one that gave up will not.
        self.children.next_due().is_some() || !self.children.is_empty()
    }

    /// Ends a start that failed after workers were started. The result is the exit code.
    pub fn give_up(mut self, code: i32) -> i32 {
        self.close_listeners();
        let workers = self.living();
        self.send_to(workers.iter().copied(), Signal::TERM);
        for worker in workers {
            // One that is gone already needs no waiting.
            let _ = process::wait_for(worker);
        }
        flush_all();
        code
    }

    fn next_moment(&self) -> Option<Instant> {
        let ending = match self.phase {
            Phase::Ending { next, .. } => Some(next),
            _ => None,
        };
        [ending, self.children.next_due()].into_iter().flatten().min()
    }

    fn handle(&mut self, received: Received) {
        let action = match received.signal {
            Signal::QUIT => ", shutting down",
            Signal::TERM | Signal::INT => ", exiting",
            Signal::WINCH if self.birth.daemon => ", stop accepting connections",
            Signal::HUP => ", reconfiguring",
            Signal::USR1 => ", reopening logs",
            Signal::USR2 if !self.another_program_serves() => ", changing binary",
            Signal::USR2 => ", ignoring",
            _ => "",
        };
        say_received(self.log(), received, action);
        match received.signal {
            Signal::CHLD => self.bury(),
            Signal::TERM | Signal::INT => self.begin_end(),
            Signal::QUIT => self.finish(),
            Signal::HUP => self.reload(),
            Signal::USR1 => self.reopen(),
            Signal::USR2 => self.change_program(),
            Signal::WINCH => self.pause(),
            _ => {}
        }
    }

    // -- workers --

    /// Starts all workers of the present configuration and waits until they serve.
    fn start_workers(&mut self) -> Outcome {
        log!(self.log(), Level::Notice, None, &no_context, "start worker processes");
        // Without a pipe nobody can say that he is ready; the workers come all the same.
        self.readiness = readiness::pipe().ok();
        let snapshot = &self.generation().snapshot;
        let keepers = usize::from(snapshot.wants_keeper());
        for number in 0..snapshot.core.workers + keepers {
            if let Some(pid) = self.start_worker(number) {
                self.children.born(pid, self.serial, number, Instant::now());
            }
        }
        if let Some((readiness, announcer)) = self.readiness.take() {
            drop(announcer);
            return readiness.wait(START_PATIENCE);
        }
        Outcome::Late
    }

    /// Forks one worker. The child never returns.
    fn start_worker(&mut self, number: usize) -> Option<Pid> {
        // What waits in a buffer would be written by both.
        self.generation().snapshot.files.flush();
        match process::fork() {
            Ok(Fork::Parent { child }) => {
                let role = Role::of(number, &self.generation().snapshot);
                let name = role.name();
                log!(self.log(), Level::Notice, None, &no_context, "start {name} process {child}");
                if role == Role::Keeper {
                    self.keepers.push(child);
                }
                Some(child)
            }
            // What the child does not take here it keeps open for ever: this frame never ends.
            Ok(Fork::Child) => match self.generation.take() {
                Some(generation) => {
                    let announcer = self.readiness.take().map(|(_, announcer)| announcer);
                    worker::run(generation, number, announcer)
                }
                None => process::exit_now(worker::FATAL),
            },
            Err(error) => {
                let what = "fork() failed while spawning \"worker process\"";
                log_errno!(self.log(), Level::Alert, error.into(), None, &no_context, "{what}");
                None
            }
        }
    }

    fn fill_vacancies(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        let now = Instant::now();
        while let Some(vacancy) = self.children.due_vacancy(now) {
            match self.start_worker(vacancy.number) {
                Some(pid) => self.children.filled(vacancy, pid, self.serial, now),
                None => self.children.put_off(vacancy, now),
            }
        }
    }

    /// Collects all that have died.
    fn bury(&mut self) {
        // ECHILD means that there is none left.
        while let Ok(Some((pid, exit))) = process::reap() {
            let now = Instant::now();
            let keeper = self.keepers.iter().position(|keeper| *keeper == pid);
            let name = match keeper.map(|at| self.keepers.swap_remove(at)) {
                Some(_) => "keeper process",
                None if self.new_program == Some(pid) => "new binary process",
                None => "worker process",
            };
            self.say_exit(name, pid, exit);
            if self.new_program == Some(pid) {
                self.new_program_died();
                continue;
            }
            match self.children.died(pid, exit, now) {
                Some(Death::Vacant(number)) => {
                    session::counters::respawned();
                    if let Some(seats) = &self.generation().seats {
                        seats.vacate(number);
                    }
                    for engine in &self.generation().snapshot.engines {
                        engine.worker_died(number);
                    }
                }
                Some(Death::Hopeless) => log!(
                    self.log(),
                    Level::Alert,
                    None,
                    &no_context,
                    "{name} {pid} exited with fatal code {} and cannot be respawned",
                    worker::FATAL
                ),
                // One that was cut off may have left requests counted in what workers of all
                // configurations share. It has no number among those of this one.
                Some(Death::Expected) => {
                    for engine in &self.generation().snapshot.engines {
                        engine.worker_died(usize::MAX);
                    }
                }
                None => {}
            }
        }
    }

    fn say_exit(&self, name: &str, pid: Pid, exit: Exit) {
        match exit {
            Exit::Signal { number, core } => {
                let core = if core { " (core dumped)" } else { "" };
                log!(
                    self.log(),
                    Level::Alert,
                    None,
                    &no_context,
                    "{name} {pid} exited on signal {number}{core}"
                );
            }
            Exit::Code(code) => {
                log!(
                    self.log(),
                    Level::Notice,
                    None,
                    &no_context,
                    "{name} {pid} exited with code {code}"
                );
            }
        }
    }

    fn send_to(&self, pids: impl IntoIterator<Item = Pid>, signal: Signal) {
        for pid in pids {
            if let Err(error) = signals::send(pid, signal)
                && process_is_there(&error)
            {
                let number = signal.0;
                log_errno!(
                    self.log(),
                    Level::Alert,
                    error.into(),
                    None,
                    &no_context,
                    "kill({pid}, {number}) failed"
                );
            }
        }
    }

    fn living(&self) -> Vec<Pid> {
        self.children.all().map(|child| child.pid).collect()
    }

    // -- the end --

    fn begin_end(&mut self) {
        if matches!(self.phase, Phase::Ending { .. }) {
            return;
        }
        let now = Instant::now();
        self.children.leave_before(u64::MAX);
        self.phase = Phase::Ending { since: now, pause: FIRST_PAUSE, next: now };
    }

    fn keep_ending(&mut self) {
        let now = Instant::now();
        let Phase::Ending { since, pause, next } = self.phase else { return };
        if now < next {
            return;
        }
        let signal =
            if now.duration_since(since) >= KILL_AFTER { Signal::KILL } else { Signal::TERM };
        self.send_to(self.living(), signal);
        let next = (now + pause).min((since + KILL_AFTER).max(now + FIRST_PAUSE));
        self.phase = Phase::Ending { since, pause: pause * 2, next };
    }

    fn finish(&mut self) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Finishing) {
            return;
        }
        self.children.leave_before(u64::MAX);
        self.phase = Phase::Finishing;
        self.close_listeners();
        self.send_to(self.living(), self.farewell());
    }

    /// How workers are told to finish. While another program serves the same addresses, clients
    /// are not to notice: gently. Else nobody is there for them, and even workers that retire
    /// need not be gentle any more.
    fn farewell(&self) -> Signal {
        if self.another_program_serves() { retire_signal() } else { Signal::QUIT }
    }

    /// Closes the master's sockets, so that the last worker to close one frees the address.
    fn close_listeners(&mut self) {
        if let Some(generation) = &mut self.generation {
            let listeners = std::mem::take(&mut generation.listeners);
            if !self.another_program_serves() {
                listeners.remove_files_unlike(&Default::default());
            }
        }
    }

    fn leave(&mut self) -> i32 {
        self.close_listeners();
        let pid_file = self.generation().snapshot.core.pid_file.clone();
        let name = match self.new_program {
            Some(_) => pid_file::old_name(&pid_file),
            None => pid_file,
        };
        pid_file::remove(&name, self.log());
        log!(self.log(), Level::Notice, None, &no_context, "exit");
        flush_all();
        0
    }

    fn pause(&mut self) {
        if !self.birth.daemon || self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Paused;
        let told = self.children.leave_before(u64::MAX);
        self.send_to(told, self.farewell());
    }

    // -- reload --

    fn reload(&mut self) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Finishing) {
            return;
        }
        if self.new_program.is_some() {
            // The old program is wanted back: its workers serve again with what it knows.
            self.serve_again();
            return;
        }
        let Some(next) = self.generation().successor(&self.origin) else { return };
        self.take_over(next);
    }

    /// Puts a configuration in the place of the present one.
    fn take_over(&mut self, next: Generation) {
        let Some(old) = self.generation.replace(next) else { return };
        self.log().set_process();
        let (old_core, core) = (&old.snapshot.core, &self.generation().snapshot.core);
        if old_core.pid_file != core.pid_file
            && pid_file::create(&core.pid_file, self.log()).is_ok()
        {
            pid_file::remove(&old_core.pid_file, self.log());
        }
        old.listeners.remove_files_unlike(&self.generation().listeners);
        // Before the fork: a socket that only the old configuration wants must not live on in
        // new workers. The old ones empty its queue before they close it.
        drop(old);
        self.serial += 1;
        self.phase = Phase::Serving;
        self.start_workers();
        let told = self.children.leave_before(self.serial);
        self.send_to(told, retire_signal());
        let oldest = self.children.oldest_leaving(RETIRING);
        let hurried = self.children.all().filter(|child| oldest.contains(&child.generation));
        self.send_to(hurried.map(|child| child.pid), Signal::QUIT);
    }

    fn reopen(&self) {
        let snapshot = &self.generation().snapshot;
        log!(self.log(), Level::Notice, None, &no_context, "reopening logs");
        let owner = snapshot.core.account.as_ref().map(|account| account.user);
        snapshot.files.reopen(owner, self.log());
        self.send_to(self.living(), Signal::USR1);
    }

    // -- upgrade --

    fn older_program_lives(&self) -> bool {
        self.birth.older_program.as_ref().is_some_and(OlderProgram::lives)
    }

    fn another_program_serves(&self) -> bool {
        self.new_program.is_some() || self.older_program_lives()
    }

    fn change_program(&mut self) {
        if self.another_program_serves() {
            log!(
                self.log(),
                Level::Crit,
                None,
                &no_context,
                "the changing binary signal is ignored: you should shutdown or terminate before \
                 either old or new binary's process"
            );
            return;
        }
        log!(self.log(), Level::Notice, None, &no_context, "changing binary");
        self.new_program = upgrade::start(self.generation(), self.log());
    }

    fn new_program_died(&mut self) {
        self.new_program = None;
        upgrade::restore_pid_file(&self.generation().snapshot.core.pid_file, self.log());
        self.serve_again();
    }

    /// Starts workers anew after they were sent away by WINCH.
    fn serve_again(&mut self) {
        if self.phase != Phase::Paused {
            return;
        }
        self.phase = Phase::Serving;
        self.serial += 1;
        if let Some(generation) = &mut self.generation {
            generation.renew_seats();
        }
        self.start_workers();
    }
}

/// What `ps` shows for a master: its name and how it was called.
pub fn title(arguments: &[std::ffi::OsString]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    format!("{}: master process {}", identity().program, words.join(" "))
}

/// A worker that has just died needs no signal.
fn process_is_there(error: &std::io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.raw_os_error() != Some(ESRCH)
}
