//! `heng demo`: a balancer over three small backends, to be tried and broken by hand.
//!
//! Everything is this program itself, each part with a configuration file of its own in a
//! temporary folder: three backends of one process each (`master_process off`, so that one `kill`
//! ends one backend), and in front of them a balancer with a master and two workers. The demo
//! only starts them, says what to try, starts a killed backend again after a while, and takes
//! them all with it when it ends, even when it is killed itself.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use system::process::{self, Exit, Fork, Pid};
use system::signals::{self, Received, Signal, SignalQueue};

use crate::report::{say as complain, say_as_program};

/// Where the balancer listens unless `--port` says otherwise.
const PORT: u16 = 8080;
/// The backends: their names and their weights.
const BACKENDS: [(&str, u32); 3] = [("alpha", 3), ("beta", 2), ("gamma", 1)];
/// How long a part of the demo may take to serve.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// After so long of asking kindly a part that does not end is killed.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// A killed backend comes back after so many seconds: twice the balancer's `fail_timeout`.
const ABSENCE_S: u16 = 20;
/// The pause between two looks at a part that starts or ends.
const PAUSE: Duration = Duration::from_millis(5);

const USAGE: &str = "\
usage: heng demo [--port NUMBER] [--back SECONDS]

Starts three small backends and a balancer in front of them at 127.0.0.1:8080, and says what to
try. --port chooses another port; 0 takes any free one. A backend that you kill comes back after
20 seconds, or what --back says. Ctrl-C ends everything.
";

/// Runs the subcommand until it is told to end. The result is the exit code.
pub fn run(arguments: &[OsString]) -> i32 {
    let outcome = match read(arguments) {
        Ok(Wanted::Demo { port, absence_s }) => {
            Demo::start(port, Duration::from_secs(absence_s.into())).and_then(Demo::watch)
        }
        Ok(Wanted::Help) => {
            show(USAGE);
            return 0;
        }
        Err(mistake) => {
            complain(USAGE.trim_end());
            Err(Failure::Because(mistake))
        }
    };
    match outcome {
        Ok(()) | Err(Failure::ToldToEnd) => 0,
        Err(Failure::Because(reason)) => {
            say_as_program(&reason);
            1
        }
    }
}

/// What the arguments ask for.
#[derive(PartialEq, Eq, Debug)]
enum Wanted {
    Demo { port: u16, absence_s: u16 },
    Help,
}

fn read(arguments: &[OsString]) -> Result<Wanted, String> {
    let (mut port, mut absence_s) = (PORT, ABSENCE_S);
    let mut rest = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = rest.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_ref(), None),
        };
        let target = match name {
            "-h" | "--help" => return Ok(Wanted::Help),
            "--port" => &mut port,
            "--back" => &mut absence_s,
            _ => return Err(format!("the demo does not know \"{argument}\"")),
        };
        let value = inline.or_else(|| rest.next().map(String::from));
        let value = value.ok_or_else(|| format!("{name} needs a number"))?;
        *target = value
            .parse()
            .map_err(|_| format!("{name} takes a number from 0 to 65535, not \"{value}\""))?;
    }
    Ok(Wanted::Demo { port, absence_s })
}

/// Why the demo ends.
enum Failure {
    /// Ctrl-C, or another signal that means the same.
    ToldToEnd,
    Because(String),
}

impl Failure {
    /// `cannot DO: REASON`.
    fn cannot(what: &str, error: &io::Error) -> Failure {
        Failure::Because(format!("the demo cannot {what}: {error}"))
    }
}

/// One of the programs that the demo starts.
struct Part {
    name: &'static str,
    /// Nothing while it does not run.
    pid: Option<Pid>,
}

struct Backend {
    part: Part,
    port: u16,
    weight: u32,
    /// When it is started again.
    returns: Option<Instant>,
}

/// The demo at work. Dropping it ends all it has started.
struct Demo {
    /// This program.
    program: PathBuf,
    folder: Folder,
    port: u16,
    balancer: Part,
    backends: Vec<Backend>,
    /// How long a backend that has ended stays away.
    absence: Duration,
    queue: SignalQueue,
}

impl Demo {
    /// Starts all parts and says what to try.
    fn start(wanted: u16, absence: Duration) -> Result<Demo, Failure> {
        // All ports are chosen before one is given back, so that they differ.
        let held = hold_port(wanted)?;
        let holds: Vec<_> = BACKENDS.iter().map(|_| hold_port(0)).collect::<Result<_, _>>()?;
        let backends = BACKENDS.iter().zip(&holds).map(|((name, weight), hold)| Backend {
            part: Part { name, pid: None },
            port: hold.port,
            weight: *weight,
            returns: None,
        });
        let queue = SignalQueue::open(&[
            Signal::INT,
            Signal::TERM,
            Signal::QUIT,
            Signal::HUP,
            Signal::CHLD,
        ]);
        let mut demo = Demo {
            program: std::env::current_exe().map_err(|e| Failure::cannot("find itself", &e))?,
            folder: Folder::make().map_err(|e| Failure::cannot("make its folder", &e))?,
            port: held.port,
            balancer: Part { name: "balancer", pid: None },
            backends: backends.collect(),
            absence,
            queue: queue.map_err(|e| Failure::cannot("listen to signals", &e))?,
        };
        drop((held, holds));
        // Without it only the workers of a balancer whose master was killed would be missed.
        let _ = process::adopt_orphans();
        demo.start_parts()?;
        show(&demo.introduction());
        Ok(demo)
    }

    fn start_parts(&mut self) -> Result<(), Failure> {
        for at in 0..self.backends.len() {
            self.start_backend(at)?;
        }
        let text = balancer_configuration(self.port, &self.backends);
        self.folder.write(self.balancer.name, &text)?;
        let pid = self.start_part(self.balancer.name)?;
        self.balancer.pid = Some(pid);
        Ok(())
    }

    fn start_backend(&mut self, at: usize) -> Result<Pid, Failure> {
        let Backend { part: Part { name, .. }, port, .. } = self.backends[at];
        self.folder.write(name, &backend_configuration(name, port))?;
        let pid = self.start_part(name)?;
        let backend = &mut self.backends[at];
        backend.part.pid = Some(pid);
        backend.returns = None;
        Ok(pid)
    }

    /// Starts a part and waits until it serves.
    fn start_part(&mut self, name: &str) -> Result<Pid, Failure> {
        let pid_file = self.folder.file(name, "pid");
        // A backend that was killed has left its own there.
        let _ = fs::remove_file(&pid_file);
        let arguments =
            [OsStr::new("-p"), self.folder.path.as_os_str(), OsStr::new("-c"), &configured(name)];
        let pid = execute(&self.program, &arguments)
            .map_err(|error| Failure::cannot(&format!("start the {name}"), &error))?;
        let deadline = Instant::now() + START_PATIENCE;
        while !pid_file.exists() {
            if self.hear(Some(PAUSE))?.iter().any(|(ended, _)| *ended == pid) {
                let reason = self.folder.last_words(name);
                return Err(Failure::Because(format!("{name} does not start: {reason}")));
            }
            if Instant::now() > deadline {
                return Err(Failure::Because(format!("{name} does not serve in time")));
            }
        }
        Ok(pid)
    }

    /// Keeps the demo alive until it is told to end.
    fn watch(mut self) -> Result<(), Failure> {
        loop {
            let due = self.backends.iter().filter_map(|backend| backend.returns).min();
            let limit = due.map(|due| due.saturating_duration_since(Instant::now()));
            let ended = self.hear(limit)?;
            if let Some((_, exit)) = ended.iter().find(|(pid, _)| self.balancer.pid == Some(*pid)) {
                let words = self.folder.last_words(self.balancer.name);
                let end = words_of(*exit);
                return Err(Failure::Because(format!(
                    "the balancer {end}; it logged last: {words}"
                )));
            }
            self.bring_back()?;
        }
    }

    /// Starts again what was away for long enough.
    fn bring_back(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        for at in 0..self.backends.len() {
            if self.backends[at].returns.is_none_or(|due| due > now) {
                continue;
            }
            match self.start_backend(at) {
                Ok(pid) => {
                    show(&format!("{} is back as process {pid}\n", self.backends[at].part.name));
                }
                // Its port may have been taken meanwhile.
                Err(Failure::Because(reason)) => {
                    show(&format!("{reason}; trying again in {} s\n", self.absence.as_secs()));
                    self.backends[at].returns = Some(Instant::now() + self.absence);
                }
                Err(told) => return Err(told),
            }
        }
        Ok(())
    }

    /// Waits for signals, at most for a time, and returns the processes that have ended.
    fn hear(&mut self, limit: Option<Duration>) -> Result<Vec<(Pid, Exit)>, Failure> {
        let received = self.queue.wait(limit);
        let received = received.map_err(|error| Failure::cannot("wait for signals", &error))?;
        match received {
            None => Ok(Vec::new()),
            Some(Received { signal: Signal::CHLD, .. }) => Ok(self.bury()),
            Some(_) => Err(Failure::ToldToEnd),
        }
    }

    /// Collects all children that have ended, and notes which backends are gone.
    fn bury(&mut self) -> Vec<(Pid, Exit)> {
        let mut ended = Vec::new();
        // ECHILD means that there is none left.
        while let Ok(Some((pid, exit))) = process::reap() {
            ended.push((pid, exit));
            let gone = self.backends.iter().position(|backend| backend.part.pid == Some(pid));
            if let Some(at) = gone {
                let backend = &mut self.backends[at];
                backend.part.pid = None;
                backend.returns = Some(Instant::now() + self.absence);
                show(&self.obituary(at, pid, exit));
            }
        }
        ended
    }

    fn obituary(&self, at: usize, pid: Pid, exit: Exit) -> String {
        let end = words_of(exit);
        let alive = self.backends.iter().filter(|backend| backend.part.pid.is_some());
        let alive: Vec<_> = alive.map(|backend| backend.part.name).collect();
        let heirs = match alive.as_slice() {
            [] => "nobody is left to take over, so answers are 502".to_owned(),
            [one] => format!("{one} takes over"),
            several => format!("{} take over", several.join(" and ")),
        };
        let name = self.backends[at].part.name;
        let seconds = self.absence.as_secs();
        format!("{name}, process {pid}, {end}: {heirs}; {name} comes back in {seconds} s\n")
    }
}

impl Drop for Demo {
    /// Ends all children: kindly, and after a while for certain. Those that a killed master left
    /// behind are among them.
    fn drop(&mut self) {
        let deadline = Instant::now() + END_PATIENCE;
        let mut told = Vec::new();
        loop {
            let late = Instant::now() > deadline;
            for child in process::children() {
                if late || !told.contains(&child) {
                    let signal = if late { Signal::KILL } else { Signal::TERM };
                    // One that has just ended needs no signal.
                    let _ = signals::send(child, signal);
                    told.push(child);
                }
            }
            while let Ok(Some(_)) = process::reap() {}
            // ECHILD: there is none left.
            if process::reap().is_err() {
                return;
            }
            // A failing wait is a short one.
            let _ = self.queue.wait(Some(PAUSE));
        }
    }
}

// -- processes --

/// Starts a program that ends when this one does.
fn execute(program: &Path, arguments: &[&OsStr]) -> io::Result<Pid> {
    let parent = process::own_pid();
    match process::fork()? {
        Fork::Parent { child } => Ok(child),
        Fork::Child => {
            let bound = process::end_with_parent(Signal::TERM);
            if bound.is_err() || process::parent_pid() != parent {
                process::exit_now(1);
            }
            signals::restore();
            let error = Command::new(program).args(arguments).exec();
            complain(&format!("{}: {error}", program.display()));
            process::exit_now(1)
        }
    }
}

/// A port of the loopback that nobody else can take while this lives.
struct Hold {
    port: u16,
    _listener: TcpListener,
}

/// Takes a port; 0 is any free one.
fn hold_port(wanted: u16) -> Result<Hold, Failure> {
    let found = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .and_then(|listener| Ok(Hold { port: listener.local_addr()?.port(), _listener: listener }));
    found.map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => "is in use by another program".to_owned(),
            io::ErrorKind::PermissionDenied => "may not be opened by this user".to_owned(),
            _ => format!("cannot be opened ({error})"),
        };
        Failure::Because(format!(
            "127.0.0.1:{wanted} {reason}; choose another port with: heng demo --port N"
        ))
    })
}

// -- files --

/// A new folder of the demo's own, removed with it.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Workers of a balancer that root has started run as nobody, and must get in.
    fn make() -> io::Result<Folder> {
        let base = std::env::temp_dir();
        let mut number = 0;
        loop {
            let path = base.join(format!("heng-demo-{}-{number}", process::own_pid()));
            match fs::DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => return Ok(Folder { path }),
                // An earlier demo was killed and left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => {
                    let shown = path.display();
                    return Err(io::Error::new(error.kind(), format!("{shown}: {error}")));
                }
            }
        }
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.path.join(format!("{name}.{extension}"))
    }

    /// Writes the configuration of a part.
    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        fs::write(self.path.join(configured(name)), text)
            .map_err(|error| Failure::cannot("write a configuration", &error))
    }

    /// The last line that a part has logged.
    fn last_words(&self, name: &str) -> String {
        let log = fs::read(self.file(name, "log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().next_back().unwrap_or("it left no message").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed from a temporary directory is the system's to clean.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn configured(name: &str) -> OsString {
    format!("{name}.conf").into()
}

fn backend_configuration(name: &str, port: u16) -> String {
    format!(
        "\
# A backend of the demo: one process that answers everything with its name.
daemon off;
master_process off;
pid {name}.pid;
error_log {name}.log;

events {{
}}

http {{
    access_log off;

    server {{
        listen 127.0.0.1:{port};
        return 200 \"{name} answers $request_method $request_uri\\n\";
    }}
}}
"
    )
}

fn balancer_configuration(port: u16, backends: &[Backend]) -> String {
    let server = |Backend { part, port, weight, .. }: &Backend| {
        format!("        server 127.0.0.1:{port} weight={weight}; # {}\n", part.name)
    };
    let servers: String = backends.iter().map(server).collect();
    format!(
        "\
daemon off;
worker_processes 2;
pid balancer.pid;
error_log balancer.log notice;

events {{
    worker_connections 512;
}}

http {{
    log_format balanced '$remote_addr \"$request\" $status from $upstream_addr';
    access_log access.log balanced;

    upstream backends {{
        zone backends 64k; # both workers share weights and failures
{servers}    }}

    server {{
        listen 127.0.0.1:{port};

        location / {{
            proxy_pass http://backends;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"
    )
}

// -- words --

/// What happened to a process whose name stands before these words.
fn words_of(exit: Exit) -> String {
    match exit {
        Exit::Signal { number, .. } => format!("was ended by signal {}", Signal(number)),
        Exit::Code(code) => format!("has ended with code {code}"),
    }
}

/// Prints on stdout; a closed stdout is nobody's loss.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

impl Demo {
    /// What is there and what to try.
    fn introduction(&self) -> String {
        let Demo { port, folder, backends, .. } = self;
        let backend = |Backend { part, port, weight, .. }: &Backend| {
            let pid = part.pid.map_or(0, |pid| pid.0);
            format!("    {:8}127.0.0.1:{port:<8}weight {weight}   process {pid}\n", part.name)
        };
        let parts: String = backends.iter().map(backend).collect();
        let balancer = self.balancer.pid.map_or(0, |pid| pid.0);
        let victim = backends.first().and_then(|backend| backend.part.pid).map_or(0, |pid| pid.0);
        let file = folder.path.join(configured(self.balancer.name));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let shown: String =
            text.lines().map(|line| format!("    {line}\n").replace("    \n", "\n")).collect();
        let url = format!("http://127.0.0.1:{port}/");
        let many = format!("for i in $(seq 12); do curl -s {url}; done | sort | uniq -c");
        let (file, log) = (file.display(), folder.file("access", "log"));
        let log = log.display();
        let seconds = self.absence.as_secs();
        format!(
            "\
A balancer at {url} (process {balancer}) over three backends:

{parts}
Its configuration is {file}:

{shown}
Try in another terminal:

  one request
    curl {url}
  the weights at work: of 12 requests 6, 4 and 2
    {many}
  kill a backend and ask again: the others take over (it comes back in {seconds} s)
    kill -9 {victim}
    {many}
  see who answered, and which requests were tried twice
    cat {log}
  change a weight in the file above, then reload
    kill -HUP {balancer}

Ctrl-C ends everything.
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_numbers_by_name() {
        let demo = |port, absence_s| Ok(Wanted::Demo { port, absence_s });
        for (line, expected) in [
            ("", demo(8080, 20)),
            ("--port 9000", demo(9000, 20)),
            ("--back=1 --port=0", demo(0, 1)),
            ("--port 1 --help", Ok(Wanted::Help)),
            ("--port", Err("--port needs a number")),
            ("--port x", Err("--port takes a number from 0 to 65535, not \"x\"")),
            ("--back=65536", Err("--back takes a number from 0 to 65535, not \"65536\"")),
            ("--prot 1", Err("the demo does not know \"--prot\"")),
        ] {
            let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
            assert_eq!(read(&words), expected.map_err(str::to_owned), "{line}");
        }
    }

    #[test]
    fn a_held_port_is_taken() {
        let hold = hold_port(0).unwrap_or_else(|_| panic!("no port of the loopback is free"));
        let Err(Failure::Because(reason)) = hold_port(hold.port) else { panic!("held twice") };
        assert!(reason.contains("is in use"), "{reason}");
        assert!(reason.contains("--port N"), "{reason}");
    }
}
