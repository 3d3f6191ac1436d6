//! From the options of the command line to a running program, a tested configuration or a signal
//! sent: the order of steps that nginx's users know.

use std::io::Write;
use std::path::{Path, PathBuf};

use config::DiskFiles;
use session::log::{Level, Log, LogFiles, no_context};
use session::{log, log_errno};
use system::process;
use system::signals::{self, Signal, SignalQueue};
use system::title;

use crate::command_line::{Options, Request, Test};
use crate::compile::{Compilation, Snapshot, compile};
use crate::listeners::{Listeners, Purpose};
use crate::master::{self, Birth, Master, OlderProgram, master_signals};
use crate::open::{Generation, Origin, Present, open, say_who_we_are};
use crate::paths::{self, Places};
use crate::pid_file;
use crate::report::{Early, leave_stderr, say, say_as_program};
use crate::single::{self, Single};
use crate::upgrade;
use crate::version;

/// Exit code of everything that went wrong.
const FAILURE: i32 = 1;

/// Does what the options say. The result is the exit code.
pub fn run(options: Options) -> i32 {
    if options.shown.version {
        // Nothing to be done when stderr is closed.
        let _ = std::io::stderr().write_all(version::text(options.shown).as_bytes());
        if options.test == Test::No {
            return 0;
        }
    }
    let origin = origin(&options);
    let early = Early::open(options.error_log.as_deref(), &origin.places.prefix);
    let compilation = compile(&DiskFiles, &origin.places, &origin.globals, &origin.error_log);
    early.report(&compilation.tree, &compilation.diagnostics);
    if options.test != Test::No {
        return test(&options, &early, &origin, compilation);
    }
    early.report(&compilation.tree, &compilation.late);
    let Some(snapshot) = compilation.snapshot else { return FAILURE };
    match options.request {
        Some(request) => send(request, &snapshot, &early.log),
        None => start(origin, snapshot, &early.log),
    }
}

fn origin(options: &Options) -> Origin {
    let places = Places::new(options.prefix.as_deref(), options.configuration.as_deref());
    let globals = options.globals.iter().map(|text| String::from_utf8_lossy(text).into_owned());
    let error_log = options.error_log.clone().unwrap_or_else(|| PathBuf::from(paths::ERROR_LOG));
    Origin { places, globals: globals.collect(), error_log }
}

// -- testing --

fn test(options: &Options, early: &Early, origin: &Origin, compilation: Compilation) -> i32 {
    let file = origin.places.configuration.display();
    if compilation.syntax_is_ok() && !options.quiet {
        say_as_program(&format!("the configuration file {file} syntax is ok"));
    }
    let Compilation { tree, late, snapshot, .. } = compilation;
    early.report(&tree, &late);
    let nothing = Present { listeners: &Listeners::default(), zones: None };
    let opened =
        snapshot.is_some_and(|snapshot| open(snapshot, nothing, Purpose::Test, &early.log).is_ok());
    if !opened {
        say_as_program(&format!("configuration file {file} test failed"));
        return FAILURE;
    }
    if !options.quiet {
        say_as_program(&format!("configuration file {file} test is successful"));
    }
    if options.test == Test::Dump && std::io::stdout().write_all(&config::dump(&tree)).is_err() {
        say("the configuration could not be written to the standard output");
        return FAILURE;
    }
    0
}

// -- signalling --

fn send(request: Request, snapshot: &Snapshot, log: &Log) -> i32 {
    log!(log, Level::Notice, None, &no_context, "signal process started");
    let Some(pid) = pid_file::read(&snapshot.core.pid_file, log) else { return FAILURE };
    let signal = match request {
        Request::Stop => Signal::TERM,
        Request::Quit => Signal::QUIT,
        Request::Reload => Signal::HUP,
        Request::Reopen => Signal::USR1,
    };
    match signals::send(pid, signal) {
        Ok(()) => 0,
        Err(error) => {
            let number = signal.0;
            log_errno!(
                log,
                Level::Alert,
                error.into(),
                None,
                &no_context,
                "kill({pid}, {number}) failed"
            );
            FAILURE
        }
    }
}

// -- starting --

fn start(origin: Origin, snapshot: Snapshot, early: &Log) -> i32 {
    let inherited = upgrade::inherited();
    let pid_file = &snapshot.core.pid_file;
    let older_program = inherited.is_some().then(|| OlderProgram::parent(pid_file));
    let present = match &inherited {
        Some(variable) => Listeners::inherit(variable, early),
        None => Listeners::default(),
    };
    if pid_file::test(&snapshot.core.pid_file, early).is_err() {
        return FAILURE;
    }
    let inherited_listeners = Present { listeners: &present, zones: None };
    let Ok(generation) = open(snapshot, inherited_listeners, Purpose::Serve, early) else {
        return FAILURE;
    };
    drop(present);
    let log = generation.snapshot.log.clone();
    log.set_process();
    say_who_we_are(&log);
    signals::ignore_broken_pipes();
    let core = &generation.snapshot.core;
    let wanted_signals: &[Signal] =
        if core.master_process { &master_signals() } else { &single::signals() };
    let queue = match SignalQueue::open(wanted_signals) {
        Ok(queue) => queue,
        Err(error) => {
            log_errno!(log, Level::Emerg, error.into(), None, &no_context, "signalfd() failed");
            return FAILURE;
        }
    };
    let birth = Birth { daemon: core.daemon || inherited.is_some(), older_program };
    let background = if core.daemon && inherited.is_none() {
        match process::daemonise() {
            Ok(background) => Some(background),
            Err(error) => {
                log_errno!(log, Level::Emerg, error.into(), None, &no_context, "fork() failed");
                return FAILURE;
            }
        }
    } else {
        None
    };
    let running = Running { origin, generation, queue, birth, log, background };
    running.serve()
}

/// A program that has everything open and is about to serve.
struct Running {
    origin: Origin,
    generation: Generation,
    queue: SignalQueue,
    birth: Birth,
    log: Log,
    background: Option<process::Readiness>,
}

impl Running {
    fn serve(self) -> i32 {
        let Running { origin, generation, queue, birth, log, background } = self;
        let pid_path = generation.snapshot.core.pid_file.clone();
        let files = generation.snapshot.files.clone();
        if !generation.snapshot.core.master_process {
            let single = match Single::start(origin, generation, queue) {
                Ok(single) => single,
                Err(error) => {
                    let what = "starting the event loop failed";
                    log_errno!(log, Level::Emerg, error.into(), None, &no_context, "{what}");
                    return FAILURE;
                }
            };
            return match appear(&pid_path, &log, &files, background) {
                true => single.run(),
                false => FAILURE,
            };
        }
        title::set(&master::title(title::arguments()));
        let mut master = Master::new(origin, birth, generation, queue);
        if !master.begin() || !appear(&pid_path, &log, &files, background) {
            return master.give_up(FAILURE);
        }
        master.run()
    }
}

/// Says to the outside that the program serves: the pid file, and the end of the command that
/// started it. From then on messages go to the log alone.
fn appear(
    pid_path: &Path,
    log: &Log,
    files: &LogFiles,
    background: Option<process::Readiness>,
) -> bool {
    if pid_file::create(pid_path, log).is_err() {
        return false;
    }
    leave_stderr(log, files);
    if let Some(background) = background {
        background.announce();
    }
    true
}
