//! Processes: the program under test, what a run of it said, and its relatives in /proc.

use crate::sockets::{listeners, sockets_of};
use crate::wait::until;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The program under test: `HENG_TEST_BINARY`, or `heng` in the directory of the build that the
/// test itself belongs to.
#[track_caller]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HENG_TEST_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own executable");
    let built = test.ancestors().skip(1).take(3).map(|directory| directory.join("heng"));
    let mut found = built.filter(|path| path.is_file());
    found.next().unwrap_or_else(|| {
        panic!("no heng was built beside {}: build it or set HENG_TEST_BINARY", test.display())
    })
}

/// How a finished run of a program went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; None when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(out, "exit code {code}")?,
            (None, Some(signal)) => write!(out, "ended by signal {signal}")?,
            (None, None) => write!(out, "ended")?,
        }
        write!(out, "\n--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr)
    }
}

impl Outcome {
    pub(crate) fn new(status: ExitStatus, stdout: String, stderr: String) -> Outcome {
        Outcome { code: status.code(), signal: status.signal(), stdout, stderr }
    }

    /// True when the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// This outcome when the exit code is `code`; otherwise fails the test and shows it.
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        assert!(self.code == Some(code), "expected exit code {code}: {self}");
        self
    }

    /// This outcome when stderr holds `text`; otherwise fails the test and shows it.
    #[track_caller]
    pub fn says(self, text: &str) -> Outcome {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}: {self}");
        self
    }
}

/// Starts `command` with its outputs in the files `stdout` and `stderr` of `directory`: files
/// never fill up as pipes do.
#[track_caller]
pub(crate) fn spawn(command: &mut Command, directory: &Path) -> Child {
    let output = |name: &str| {
        File::create(directory.join(name)).unwrap_or_else(|error| panic!("no {name}: {error}"))
    };
    let child =
        command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr")).spawn();
    child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// Waits for the end of a child started by [`spawn`]; kills it and fails the test when it does
/// not end in time.
#[track_caller]
pub(crate) fn finish(child: &mut Child, directory: &Path) -> Outcome {
    let mut status = None;
    let ended = until(|| {
        status = child.try_wait().expect("the child can be waited for");
        status.is_some()
    });
    let output = |name: &str| text_of(&directory.join(name));
    let (stdout, stderr) = (output("stdout"), output("stderr"));
    if !ended {
        // Its end is all that is left to want.
        let _ = child.kill();
        let _ = child.wait();
        panic!("the program does not end\n--- stdout\n{stdout}--- stderr\n{stderr}---");
    }
    // `until` was true, so there is a status.
    Outcome::new(status.expect("a status"), stdout, stderr)
}

/// The content of a file as text; empty when it cannot be read.
pub(crate) fn text_of(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// True while a process of that id runs; a zombie does not.
pub(crate) fn alive(pid: u32) -> bool {
    status_of(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The command line of a process, its words joined by spaces.
pub(crate) fn command_line(pid: u32) -> String {
    text_of(Path::new(&format!("/proc/{pid}/cmdline"))).replace('\0', " ")
}

/// The living children of a process, in the order of their ids.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<u32> = names
        .filter_map(|name| name.parse().ok())
        .filter(|pid| matches!(status_of(*pid), Some((state, p)) if p == parent && state != 'Z'))
        .collect();
    found.sort_unstable();
    found
}

/// The state letter and the parent of a process, from proc(5) `stat`.
fn status_of(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// True when the process holds a listener on one of these ports.
pub(crate) fn listens(pid: u32, ports: &[u16]) -> bool {
    let own = sockets_of(pid);
    ports.iter().flat_map(|port| listeners(*port)).any(|socket| own.contains(&socket.inode))
}
