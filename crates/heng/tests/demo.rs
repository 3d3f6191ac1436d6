//! `heng demo`: it balances, survives the loss of a backend, and leaves nothing behind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use testkit::{Signal, binary, get, kill, signal, until};

/// A demo under test, ended with the test.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    introduction: String,
    port: u16,
    balancer: u32,
    backends: Vec<Backend>,
}

#[derive(Clone)]
struct Backend {
    name: String,
    port: u16,
    pid: u32,
}

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("demo").args(arguments).stdin(Stdio::null());
    command
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let mut command = demo(&[&["--port", "0"], arguments].concat());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let stdout = child.stdout.take().expect("stdout was piped");
        let mut lines = BufReader::new(stdout).lines();
        let mut introduction = String::new();
        while !introduction.contains("Ctrl-C ends everything.") {
            let line = lines.next().expect("the demo introduces itself").expect("in UTF-8");
            introduction += &(line + "\n");
        }
        let behind = |text: &str| {
            let (_, rest) = introduction.split_once(text).expect(text);
            let end = rest.find(|c: char| !c.is_ascii_digit()).expect("more follows");
            rest[..end].parse::<u32>().expect("a number")
        };
        let port = u16::try_from(behind("http://127.0.0.1:")).expect("a port");
        let balancer = behind("(process ");
        let rows = introduction.lines().filter(|line| line.contains("   process "));
        let backend = |row: &str| {
            let words: Vec<&str> = row.split_whitespace().collect();
            Backend {
                name: words[0].to_owned(),
                port: words[1].rsplit(':').next().expect("a port").parse().expect("a port"),
                pid: words[5].parse().expect("a pid"),
            }
        };
        let backends = rows.map(backend).collect();
        Demo { child, lines, introduction, port, balancer, backends }
    }

    /// Who answers `count` requests, each over a connection of its own.
    #[track_caller]
    fn answers(&self, count: usize) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let text = get(self.port, "/some/path?x=1").expect(200).text();
            let name = text.strip_suffix(" answers GET /some/path?x=1\n").expect("a backend's");
            *answers.entry(name.to_owned()).or_default() += 1;
        }
        answers
    }

    fn next_line(&mut self) -> String {
        self.lines.next().expect("the demo says more").expect("in UTF-8")
    }

    /// Itself and all that descend from it.
    fn processes(&self) -> Vec<u32> {
        let parents = parents();
        let mut found = vec![self.child.id()];
        let mut at = 0;
        while at < found.len() {
            let of = found[at];
            found.extend(parents.iter().filter(|(_, parent)| **parent == of).map(|(pid, _)| *pid));
            at += 1;
        }
        found
    }

    /// The configuration file that it names.
    fn file(&self) -> PathBuf {
        let (_, rest) = self.introduction.split_once("configuration is ").expect("it names it");
        PathBuf::from(rest.split_once(":\n").expect("more follows").0)
    }

    fn end(&mut self, how: Signal) -> ExitStatus {
        signal(self.child.id(), how);
        self.child.wait().expect("it can be waited for")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Kindly, so that it removes its folder; most tests have ended it already.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Signal::TERM);
        }
    }
}

/// Every running process and its parent, from proc_pid_stat(5).
fn parents() -> BTreeMap<u32, u32> {
    let entries = std::fs::read_dir("/proc").expect("there is /proc");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let with_parent = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut words = text.rsplit_once(") ")?.1.split(' ');
        let state = words.next()?;
        Some((pid, words.next()?.parse().ok()?)).filter(|_| state != "Z")
    };
    numbers.filter_map(with_parent).collect()
}

#[track_caller]
fn expect_gone(pids: &[u32]) {
    let gone = until(|| {
        let left = parents();
        !pids.iter().any(|pid| left.contains_key(pid))
    });
    assert!(gone, "of {pids:?} some still run");
}

#[test]
fn requests_are_spread_by_weight_from_the_file_it_shows() {
    let mut demo = Demo::start(&[]);
    let expected = [("alpha", 6), ("beta", 4), ("gamma", 2)];
    assert_eq!(demo.answers(12), expected.map(|(name, count)| (name.to_owned(), count)).into());
    for Backend { name, port, .. } in &demo.backends {
        assert_eq!(get(*port, "/").text(), format!("{name} answers GET /\n"));
    }

    let file = demo.file();
    let text = std::fs::read_to_string(&file).expect("its configuration");
    for line in text.lines() {
        assert!(demo.introduction.contains(line), "{line} is not shown");
    }
    let log = std::fs::read_to_string(file.with_file_name("access.log")).expect("its access log");
    assert_eq!(log.lines().count(), 12);

    // What it says about weights is true: edit, reload, ask.
    std::fs::write(&file, text.replace("weight=1", "weight=7")).expect("the file can be changed");
    signal(demo.balancer, Signal::HUP);
    let shifted = until(|| demo.answers(12).get("gamma") == Some(&7));
    assert!(shifted, "the new weight does not come into force");

    let status = demo.end(Signal::INT);
    assert_eq!(status.code(), Some(0));
    assert!(!file.parent().is_some_and(Path::exists), "the folder is left");
}

#[test]
fn the_others_take_over_from_a_killed_backend_and_it_comes_back() {
    let mut demo = Demo::start(&["--back", "1"]);
    assert_eq!(demo.answers(6).len(), 3);
    let alpha = demo.backends[0].clone();
    kill(alpha.pid);
    // No request fails, whoever would have been its server.
    let without = demo.answers(60);
    assert!(without["beta"] > 0 && without["gamma"] > 0, "{without:?}");
    let line = demo.next_line();
    let expected = format!(
        "alpha, process {}, was ended by signal 9 (SIGKILL): beta and gamma take over; \
         alpha comes back in 1 s",
        alpha.pid
    );
    assert_eq!(line, expected);
    let line = demo.next_line();
    let pid = line.strip_prefix("alpha is back as process ").expect(&line);
    assert!(parents().contains_key(&pid.parse().expect("a pid")));
    assert_eq!(get(alpha.port, "/").text(), "alpha answers GET /\n");
}

#[test]
fn nothing_is_left_however_it_ends() {
    // A signal and the exit code; nothing where the signal itself ends it.
    for (how, code) in [
        (Signal::INT, Some(0)),
        (Signal::TERM, Some(0)),
        (Signal::HUP, Some(0)),
        (Signal::KILL, None),
    ] {
        let mut demo = Demo::start(&[]);
        let processes = demo.processes();
        // Itself, three backends, a master and two workers.
        assert_eq!(processes.len(), 7, "{processes:?}");
        let folder = demo.file().parent().expect("a folder").to_owned();
        assert_eq!(demo.end(how).code(), code, "{how:?}");
        expect_gone(&processes);
        if code.is_none() {
            std::fs::remove_dir_all(folder).expect("a killed demo leaves its folder");
        }
    }
}

#[test]
fn a_killed_balancer_ends_it_all_with_a_reason() {
    let mut demo = Demo::start(&[]);
    let processes = demo.processes();
    kill(demo.balancer);
    let status = demo.child.wait().expect("it can be waited for");
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    let mut stderr = demo.child.stderr.take().expect("stderr was piped");
    stderr.read_to_string(&mut said).expect("in UTF-8");
    let reason = "heng: the balancer was ended by signal 9 (SIGKILL); it logged last: ";
    assert!(said.starts_with(reason) && said.lines().count() == 1, "{said}");
    expect_gone(&processes);
}

#[test]
fn mistakes_are_said_in_one_line() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let Output { status, stdout, stderr } =
        demo(&["--port", &port]).output().expect("the program can be started");
    assert_eq!(status.code(), Some(1));
    let expected = format!(
        "heng: 127.0.0.1:{port} is in use by another program; choose another port with: \
         heng demo --port N\n"
    );
    assert_eq!(String::from_utf8_lossy(&stderr), expected);
    assert!(stdout.is_empty());

    for (arguments, said) in [
        (["--port", "many"], "heng: --port takes a number from 0 to 65535, not \"many\"\n"),
        (["--prot", "1"], "heng: the demo does not know \"--prot\"\n"),
    ] {
        let Output { status, stderr, .. } =
            demo(&arguments).output().expect("the program can be started");
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1));
        assert!(stderr.ends_with(said), "{stderr}");
    }
    let Output { status, stdout, .. } =
        demo(&["--help"]).output().expect("the program can be started");
    assert_eq!(status.code(), Some(0));
    assert!(String::from_utf8_lossy(&stdout).starts_with("usage: heng demo"));
}
