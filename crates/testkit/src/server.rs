//! The server under test, run in a directory of its own.
//!
//! The directory is the prefix: `nginx.conf`, `conf/`, `logs/`, `html/`, `error.log`, all gone
//! when the [`Server`] is dropped. Unless the configuration says otherwise, the program runs in
//! the foreground, its pid file is `nginx.pid`, and a root user's workers stay root, since the
//! directory is closed to others. A server is ready when its pid file is there: it appears once
//! every listener accepts. Dropping a server ends it and checks that it logged no alert.

use crate::client::Client;
use crate::config::{Config, included};
use crate::message::Response;
use crate::ports::Port;
use crate::process::{
    Outcome, alive, binary, children, command_line, finish, listens, spawn, text_of,
};
use crate::sockets::{SocketOptions, options_of, sockets};
use crate::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A running server; it is ended when dropped.
pub struct Server {
    site: Site,
    child: Child,
    /// Every master seen so far, the first one first.
    masters: Vec<u32>,
    alerts_expected: bool,
}

/// A directory with a configuration in it.
struct Site {
    directory: PathBuf,
    config: Config,
    ports: BTreeMap<usize, Port>,
}

impl Server {
    /// Starts the program and waits until it serves; fails the test when it does not.
    #[track_caller]
    pub fn start(config: Config) -> Server {
        Server::try_start(config)
            .unwrap_or_else(|outcome| panic!("the server does not start: {outcome}"))
    }

    /// Starts the program and waits until it serves or ends.
    #[track_caller]
    pub fn try_start(config: Config) -> Result<Server, Outcome> {
        let site = Site::new(config);
        let child = spawn(&mut site.command(), &site.directory);
        let alerts_expected = false;
        let mut server = Server { site, child, masters: Vec::new(), alerts_expected };
        let ready = until(|| server.ended() || server.is_ready());
        if let Some(pid) = server.pid_in_file().filter(|pid| alive(*pid)) {
            server.masters.push(pid);
            return Ok(server);
        }
        if !ready {
            let log = server.error_log();
            panic!("the server writes no pid file in time\n--- error.log\n{log}---");
        }
        // The end is not a healthy one, so its log is the caller's to judge.
        server.alerts_expected = true;
        let mut outcome = finish(&mut server.child, &server.site.directory);
        if outcome.stderr.is_empty() {
            outcome.stderr = server.error_log();
        }
        Err(outcome)
    }

    /// Runs the program with `-t` and the configuration.
    #[track_caller]
    pub fn check(config: Config) -> Outcome {
        Server::run(config.argument("-t"))
    }

    /// Runs the program with the configuration and its arguments to its end.
    #[track_caller]
    pub fn run(config: Config) -> Outcome {
        let site = Site::new(config);
        let mut child = spawn(&mut site.command(), &site.directory);
        finish(&mut child, &site.directory)
    }

    /// Runs the program again with these arguments after the server's `-p`, `-c` and `-e`, such
    /// as `-s reload`, to its end.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Outcome {
        let run = self.site.directory.join("run");
        // It may be there from an earlier command.
        let _ = fs::create_dir(&run);
        let mut command = self.site.bare_command();
        let mut child = spawn(command.args(arguments), &run);
        finish(&mut child, &run)
    }

    fn is_ready(&self) -> bool {
        self.pid_in_file().is_some_and(alive)
    }

    /// True when the started process is gone without leaving a daemon behind.
    fn ended(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(Some(status)) => !status.success() || !self.daemonizes(),
            _ => false,
        }
    }

    fn daemonizes(&self) -> bool {
        let daemon = self.site.config.top_level("daemon");
        daemon.is_some_and(|daemon| daemon.words.get(1).is_some_and(|value| value == "on"))
    }

    fn pid_in_file(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.strip_suffix('\n')?.parse().ok()
    }

    /// The options that a worker has set on the connection of `client`.
    #[track_caller]
    pub fn options_of(&self, client: &Client) -> SocketOptions {
        let side = client.other_side().expect("the connection is open");
        let found = self.workers().into_iter().find_map(|pid| options_of(pid, side.inode));
        found.expect("a worker holds the connection")
    }

    /// The options that workers have set on their connections to a port.
    #[track_caller]
    pub fn options_towards(&self, port: u16) -> Vec<SocketOptions> {
        let outgoing = sockets(port).into_iter().filter(|side| side.remote_port == port);
        let inodes: Vec<u64> = outgoing.map(|side| side.inode).collect();
        let options = |pid| inodes.iter().filter_map(move |inode| options_of(pid, *inode));
        self.workers().into_iter().flat_map(options).collect()
    }

    /// Where the pid file is.
    pub fn pid_file(&self) -> PathBuf {
        match self.site.config.top_level("pid").and_then(|pid| pid.words.get(1).cloned()) {
            Some(path) => {
                let expanded = path.replace("%%DIR%%", &self.site.directory.to_string_lossy());
                self.path(&expanded)
            }
            None => self.path("nginx.pid"),
        }
    }

    /// The master that the pid file names, or the newest one seen when there is no such file.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let newest = self.pid_in_file().or_else(|| self.masters.last().copied());
        newest.expect("a started server had a pid")
    }

    /// The worker processes of the newest master that are alive, retiring ones included.
    pub fn workers(&self) -> Vec<u32> {
        self.workers_of(self.pid())
    }

    /// The worker processes of a certain master.
    pub fn workers_of(&self, master: u32) -> Vec<u32> {
        let others = ["master process", "cache manager", "cache loader", "keeper process"];
        let is_worker = |pid: &u32| {
            let title = command_line(*pid);
            !self.masters.contains(pid) && !others.iter().any(|other| title.contains(other))
        };
        children(master).into_iter().filter(is_worker).collect()
    }

    /// Waits until there are exactly `count` workers and returns them.
    #[track_caller]
    pub fn wait_workers(&self, count: usize) -> Vec<u32> {
        let reached = until(|| self.workers().len() == count);
        let workers = self.workers();
        assert!(reached, "there are {} workers, not {count}{}", workers.len(), self.shown_log());
        workers
    }

    /// The number of the port that `%%PORT_n%%` stands for.
    #[track_caller]
    pub fn port(&self, n: usize) -> u16 {
        let port = self.site.ports.get(&n);
        port.unwrap_or_else(|| panic!("the configuration has no %%PORT_{n}%%")).number()
    }

    /// The test's directory, or a path in it. An absolute path stays as it is.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.site.directory.join(relative)
    }

    /// Writes a file below the test's directory.
    #[track_caller]
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.site.write(path, content.as_ref());
    }

    /// The content of a file below the test's directory; empty when there is none.
    pub fn read(&self, path: &str) -> String {
        text_of(&self.path(path))
    }

    /// A connection to `%%PORT_0%%` of the loopback.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    /// A connection to `%%PORT_n%%` of the loopback.
    #[track_caller]
    pub fn connect_to(&self, n: usize) -> Client {
        Client::connect(self.port(n))
    }

    /// Gets `path` from `%%PORT_0%%` over a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.connect().get(path)
    }

    /// Sends `bytes` to `%%PORT_0%%` over a connection of its own and reads all that comes until
    /// the server closes.
    #[track_caller]
    pub fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.send(bytes);
        String::from_utf8_lossy(&client.read_to_end()).into_owned()
    }

    /// What `error.log` holds.
    pub fn error_log(&self) -> String {
        self.read("error.log")
    }

    /// What `logs/access.log` holds.
    pub fn access_log(&self) -> String {
        self.read("logs/access.log")
    }

    /// Waits until a line of `error.log` holds `text`, and returns that line.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_line("error.log", text)
    }

    /// Waits until a line of `logs/access.log` holds `text`, and returns that line.
    #[track_caller]
    pub fn wait_for_access(&self, text: &str) -> String {
        self.wait_for_line("logs/access.log", text)
    }

    /// Waits until a whole line of a file holds `text`, and returns the first such line.
    #[track_caller]
    pub fn wait_for_line(&self, path: &str, text: &str) -> String {
        let mut line = None;
        let came = until(|| {
            let content = self.read(path);
            let whole = &content[..content.rfind('\n').map_or(0, |end| end + 1)];
            line = whole.lines().find(|line| line.contains(text)).map(str::to_string);
            line.is_some()
        });
        assert!(came, "no line of {path} holds {text:?}:\n{}", self.read(path));
        line.unwrap_or_default()
    }

    /// Waits until `condition` holds; otherwise fails the test and shows the error log.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) {
        assert!(until(condition), "{what} does not come true{}", self.shown_log());
    }

    /// The error log as part of a failure's message.
    pub fn shown_log(&self) -> String {
        format!("\n--- error.log\n{}---", self.error_log())
    }

    /// Sends a signal to the newest master.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Replaces the configuration on disk; the server reads it at its next reload. Ports and
    /// values known so far keep theirs.
    #[track_caller]
    pub fn reconfigure(&mut self, config: Config) {
        let mut values = std::mem::take(&mut self.site.config.values);
        values.extend(config.values.clone());
        self.site.config = Config { values, ..config };
        self.site.config.apply_environment();
        self.site.write_all();
    }

    /// Reloads (HUP) and waits until new workers serve and no old worker accepts any more.
    #[track_caller]
    pub fn reload(&self) {
        let old = self.workers();
        self.signal(Signal::HUP);
        let ports: Vec<u16> = self.site.ports.values().map(Port::number).collect();
        // A worker says that it is shutting down a moment before it closes its listeners.
        let retired = |pid: &u32| !alive(*pid) || !listens(*pid, &ports);
        let done = until(|| {
            self.workers().iter().any(|pid| !old.contains(pid)) && old.iter().all(retired)
        });
        assert!(done, "the server does not reload{}", self.shown_log());
    }

    /// Reopens the logs (USR1) once they were moved away, and waits for the new files.
    #[track_caller]
    pub fn reopen(&self, expected: &[&str]) {
        self.signal(Signal::USR1);
        let there = until(|| expected.iter().all(|path| self.path(path).exists()));
        assert!(there, "the server does not reopen {expected:?}{}", self.shown_log());
    }

    /// Starts a new binary (USR2) and waits until it serves; returns the old master's pid.
    #[track_caller]
    pub fn upgrade(&mut self) -> u32 {
        let old = self.pid();
        send_signal(old, Signal::USR2);
        let done = until(|| self.pid_in_file().is_some_and(|pid| pid != old && alive(pid)));
        assert!(done, "the server does not upgrade{}", self.shown_log());
        self.masters.push(self.pid());
        old
    }

    /// Stops gracefully (QUIT) and waits for the end.
    #[track_caller]
    pub fn quit(&mut self) -> Outcome {
        self.signal(Signal::QUIT);
        self.wait_exit()
    }

    /// Stops fast (TERM) and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> Outcome {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// Waits until the newest master is gone; the outcome is that of the process that the test
    /// started.
    #[track_caller]
    pub fn wait_exit(&mut self) -> Outcome {
        let master = self.masters.last().copied().unwrap_or_default();
        let started = self.child.id();
        if master != started {
            let gone = until(|| !alive(master));
            assert!(gone, "the master {master} does not end{}", self.shown_log());
        }
        finish(&mut self.child, &self.site.directory)
    }

    /// Allows alerts in the error log, for tests that provoke them.
    pub fn expect_alerts(&mut self) {
        self.alerts_expected = true;
    }

    /// Ends all masters and workers of this server, kindly and then for certain.
    fn end(&mut self) {
        if let Some(pid) = self.pid_in_file().filter(|pid| !self.masters.contains(pid)) {
            // A master that an upgrade made unseen by the test; its title names our directory.
            if command_line(pid).contains(&*self.site.directory.to_string_lossy()) {
                self.masters.push(pid);
            }
        }
        let family: Vec<u32> =
            self.masters.iter().flat_map(|master| children(*master)).chain([]).collect();
        for master in self.masters.iter().filter(|pid| alive(**pid)) {
            try_signal(*master, Signal::TERM);
        }
        let started = self.child.id();
        let gone = until(|| {
            // Reaping the child that the test started is what makes it gone.
            let reaped = !matches!(self.child.try_wait(), Ok(None));
            reaped && !self.masters.iter().any(|pid| *pid != started && alive(*pid))
        });
        if gone && !family.iter().any(|pid| alive(*pid)) {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.masters.iter().chain(&family).filter(|pid| **pid != started) {
            if alive(*pid) {
                try_signal(*pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let before = self.error_log().len();
        self.end();
        if std::thread::panicking() {
            eprintln!("--- error.log\n{}---", self.error_log());
            return;
        }
        let log = self.error_log();
        let (served, ended) = log.split_at_checked(before).unwrap_or((&log, ""));
        // A master that is told to end kills workers that take longer than a second for it.
        let ended = ended.lines().filter(|line| !line.ends_with("exited on signal 9"));
        let bad = |line: &&str| line.contains("[alert]") || line.contains("panicked at");
        let stderr = self.read("stderr");
        if let Some(line) = served.lines().chain(ended).chain(stderr.lines()).find(bad)
            && !self.alerts_expected
        {
            panic!("the server was not well: {line}{}", self.shown_log());
        }
    }
}

impl Site {
    #[track_caller]
    fn new(mut config: Config) -> Site {
        config.apply_environment();
        let mut site = Site { directory: make_directory(), config, ports: BTreeMap::new() };
        for directory in ["conf", "logs", "html"] {
            let made = fs::create_dir(site.directory.join(directory));
            made.unwrap_or_else(|error| panic!("cannot make {directory}: {error}"));
        }
        site.write_all();
        site
    }

    /// Writes the configuration and its files.
    #[track_caller]
    fn write_all(&mut self) {
        let mut files = vec![("nginx.conf".to_string(), self.config.text.clone().into_bytes())];
        files.extend(self.config.files.iter().cloned());
        for (path, content) in files {
            let content = if included(&path) {
                let text = String::from_utf8_lossy(&content);
                self.config.expand(&text, &self.directory, &mut self.ports).into_bytes()
            } else {
                content
            };
            self.write(&path, &content);
        }
    }

    #[track_caller]
    fn write(&self, path: &str, content: &[u8]) {
        let path = self.directory.join(path);
        let parent = path.parent().expect("a file has a parent");
        let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, content));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// The program with `-p`, `-c` and `-e`.
    fn bare_command(&self) -> Command {
        let mut program = self.config.program.clone().unwrap_or_else(binary);
        if let Some(name) = &self.config.link {
            let link = self.directory.join(name);
            if !link.exists() {
                symlink(&program, &link).expect("a link in an own directory");
            }
            program = link;
        }
        let mut command = Command::new(program);
        command.arg("-p").arg(format!("{}/", self.directory.display()));
        command.args(["-c", "nginx.conf", "-e", "error.log"]);
        command.envs(self.config.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The program as the test wants it started.
    fn command(&self) -> Command {
        let mut globals = self.config.globals.clone();
        let mut unless_set = |name: &str, directive: &str| {
            if !self.config.sets(name) && !globals.contains(name) {
                globals.push_str(directive);
            }
        };
        unless_set("daemon", " daemon off;");
        unless_set("pid", &format!(" pid {}/nginx.pid;", self.directory.display()));
        if rustix::process::geteuid().is_root() {
            unless_set("user", " user root;");
        }
        let mut command = self.bare_command();
        command.arg("-g").arg(globals.trim_start());
        command.args(&self.config.arguments);
        command
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::env::var_os("HENG_TEST_KEEP").is_some() {
            eprintln!("kept {}", self.directory.display());
            return;
        }
        // What cannot be removed from a temporary directory is the system's to clean.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A new directory that only this user can enter.
fn make_directory() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let base = std::env::temp_dir();
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("heng-test-{}-{count}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return path,
            // A run that was killed left it; the next number is as good.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("cannot make {}: {error}", path.display()),
        }
    }
}

#[track_caller]
fn send_signal(pid: u32, signal: Signal) {
    assert!(try_signal(pid, signal), "there is no process {pid} to signal");
}

fn try_signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Sends any signal to a worker, such as STOP.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    send_signal(pid, signal);
}

/// Kills a worker the hard way, as a crash would.
pub fn kill(pid: u32) {
    // It may be gone already, which is what was wanted.
    try_signal(pid, Signal::KILL);
}

/// True when `path` is a socket file, a pid file or the like that still exists.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
