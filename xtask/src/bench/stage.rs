//! The processes of a benchmark: proxies, a backend for each, idle clients, and when and on which
//! cores they run.

use super::contestant::Contestant;
use super::figures::Usage;
use super::scene::{Place, Scene, Setting, configure, descriptors};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long a process may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which processor cores the parts of a benchmark run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cores {
    /// All on the last one: always saturated, and events come in batches.
    One,
    /// The proxy on the last one, load and backend on another.
    Apart,
    /// The same, all of them before any other work of the machine, where this user may.
    Timed,
}

impl Cores {
    fn last() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from) - 1
    }

    /// A command that runs its arguments there, with as many descriptors as there may be.
    fn on(self, core: usize) -> Command {
        let mut command = Command::new("taskset");
        let most = descriptors();
        command.args(["-c", &core.to_string(), "prlimit", &format!("--nofile={most}:{most}")]);
        if self == Cores::Timed && may_be_timed() {
            command.args(["chrt", "-f", "1"]);
        }
        command
    }

    /// A command that runs its arguments where load and backend run.
    pub(super) fn for_load(self) -> Command {
        match self {
            Cores::One => self.on(Cores::last()),
            Cores::Apart | Cores::Timed => self.on(0),
        }
    }

    pub(super) fn for_proxy(self) -> Command {
        self.on(Cores::last())
    }
}

/// Whether this user may run programs under `SCHED_FIFO`, sched(7).
pub(super) fn may_be_timed() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let mut probe = Command::new("chrt");
        probe.args(["-f", "1", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}

/// While it lives, this session's processes come before those of other sessions on a machine that
/// has more to do: sched(7), "The autogroup feature".
pub(super) struct Precedence {
    /// What the session had.
    before: String,
}

/// Of this session's group: `/autogroup-25 nice 0`.
const GROUP: &str = "/proc/self/autogroup";

impl Precedence {
    /// None where there are no such groups, or where this user may not.
    pub(super) fn take() -> Option<Precedence> {
        let before = fs::read_to_string(GROUP).ok()?.split(' ').nth(2)?.trim().to_string();
        fs::write(GROUP, "-20").ok()?;
        Some(Precedence { before })
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        let _ = fs::write(GROUP, &self.before);
    }
}

/// While it lives, no core sleeps: a program of the least precedence (`SCHED_IDLE`, sched(7))
/// computes on each. How long a core takes to wake up, or a virtual one to be given a real one
/// again, is milliseconds at times, and no proxy's doing.
pub(super) struct Awake {
    _spinners: Vec<Running>,
}

impl Awake {
    pub(super) fn keep(peer: &Path) -> Result<Awake, String> {
        let spinner = |core: usize| {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), "chrt", "-i", "0"]).arg(peer).arg("spin");
            Running::start(command.stdin(Stdio::null()))
        };
        let spinners: Result<_, _> = (0..=Cores::last()).map(spinner).collect();
        Ok(Awake { _spinners: spinners? })
    }
}

/// Builds a program of a package as users get it, and returns its path.
pub(super) fn built(package: &str, target: &[&str], name: &str) -> Result<PathBuf, String> {
    let mut build = crate::workspace::cargo();
    build.args(["build", "--quiet", "--release", "--package", package, "--message-format=json"]);
    let built = crate::artifacts::built_by(build.args(target))?;
    let program = built.into_iter().find(|artifact| artifact.name == name);
    program.map(|artifact| artifact.executable).ok_or_else(|| format!("cargo built no {name}"))
}

/// A process that ends with its owner.
pub(super) struct Running {
    child: Child,
}

impl Running {
    pub(super) fn start(command: &mut Command) -> Result<Running, String> {
        let child = command.spawn().map_err(|error| format!("cannot run {command:?}: {error}"))?;
        Ok(Running { child })
    }

    /// Starts a process and waits for the line that says that it is ready.
    pub(super) fn start_ready(command: &mut Command) -> Result<Running, String> {
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = running.child.stdout.take().ok_or("a process without output")?;
        let mut line = String::new();
        match BufReader::new(output).read_line(&mut line) {
            Ok(length) if length > 0 => Ok(running),
            _ => Err(format!("{command:?} ended before it was ready")),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it accepts at a port.
    pub(super) fn wait_for(&mut self, port: u16) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if !self.is_alive() {
                return Err("ended before it accepted connections".to_string());
            }
            if Instant::now() > deadline {
                return Err("does not accept connections".to_string());
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Whether it is still there.
    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked kindly, a master takes its workers along; std knows no other signal than KILL.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::yield_now();
        }
    }
}

/// Where a proxy listens; what for depends on the scene.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) first: u16,
    pub(super) second: u16,
    pub(super) third: u16,
}

/// Where the backends listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendPorts {
    pub(super) http: u16,
    pub(super) echo: u16,
    pub(super) source: u16,
    pub(super) packets: u16,
}

/// A proxy at work, and its backend.
pub(super) struct Proxy<'a> {
    pub(super) contestant: &'a Contestant,
    running: Running,
    backend: Running,
    pub(super) ports: Ports,
    /// From its start until it served, and the CPU time that this took.
    pub(super) started_in: Duration,
    pub(super) start_cpu: Duration,
}

impl Proxy<'_> {
    pub(super) fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub(super) fn backend_pid(&self) -> u32 {
        self.backend.pid()
    }
}

/// The proxies of a row. Each has a backend of its own: a shared one would have as many
/// connections as all of them keep, which is more than one process may have.
pub(super) struct Stage<'a> {
    proxies: Vec<Proxy<'a>>,
    absent: Vec<String>,
    directory: PathBuf,
    peer: PathBuf,
}

impl<'a> Stage<'a> {
    /// Starts everything and waits until it serves. `name` keeps the files of two stages apart.
    pub(super) fn set(
        name: &str,
        contestants: &[&'a Contestant],
        setting: &Setting,
        cores: Cores,
    ) -> Result<Stage<'a>, String> {
        static PEER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let peer = PEER.get_or_init(|| built("bench-peer", &[], "bench-peer")).clone()?;
        let directory = crate::workspace::root().join("target/bench").join(name);
        fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        setting.scene.prepare(&directory)?;
        let mut stage = Stage { proxies: Vec::new(), absent: Vec::new(), directory, peer };
        for contestant in contestants {
            // A port that was free may be another's by the time that it is wanted.
            let start = || stage.start(contestant, setting, cores);
            match start().or_else(|_| start()) {
                Ok(proxy) => stage.proxies.push(proxy),
                Err(error) => stage.absent.push(format!("{}: {error}", contestant.name())),
            }
        }
        Ok(stage)
    }

    fn start(
        &self,
        contestant: &'a Contestant,
        setting: &Setting,
        cores: Cores,
    ) -> Result<Proxy<'a>, String> {
        let (http, echo) = (free_port()?, free_port()?);
        let backends = BackendPorts { http, echo, source: free_port()?, packets: free_port()? };
        let backend = start_backend(&self.peer, &backends, setting.scene, cores)?;
        let ports = Ports { first: free_port()?, second: free_port()?, third: free_port()? };
        let path = self.directory.join(format!("{}.conf", contestant.name()));
        let place = Place { directory: &self.directory, ports: &ports, backends: &backends };
        configure(contestant, setting, &place, &path)?;
        let start = Instant::now();
        let command = cores.for_proxy();
        let mut command =
            contestant.command(command, &path, &self.directory, &ports, backends.http);
        let mut running = Running::start(&mut command)?;
        running.wait_for(ports.first)?;
        if setting.scene.is_plain() {
            first_answer(ports.first)?;
        }
        let started_in = start.elapsed();
        let start_cpu = Duration::from_nanos(Usage::of(running.pid())?.run_ns);
        Ok(Proxy { contestant, running, backend, ports, started_in, start_cpu })
    }

    /// Those that serve.
    pub(super) fn proxies(&self) -> &[Proxy<'a>] {
        &self.proxies
    }

    /// Those that do not, each with its reason.
    pub(super) fn absent(&self) -> &[String] {
        &self.absent
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The program of backends and loads.
    pub(super) fn peer(&self) -> &Path {
        &self.peer
    }

    /// Clients that have asked once and are silent now, until the answer is dropped.
    pub(super) fn idle_clients(
        &self,
        port: u16,
        kind: &str,
        count: u32,
    ) -> Result<Running, String> {
        let mut command = Cores::One.for_load();
        command.arg(&self.peer).arg("idle").arg(format!("127.0.0.1:{port}"));
        command.arg(format!("kind={kind}")).arg(format!("connections={count}"));
        Running::start_ready(&mut command)
    }
}

fn start_backend(
    peer: &Path,
    ports: &BackendPorts,
    scene: Scene,
    cores: Cores,
) -> Result<Running, String> {
    let mut command = cores.for_load();
    command.arg(peer).arg("serve");
    match scene {
        Scene::Stream => {
            command.arg(format!("echo=127.0.0.1:{}", ports.echo));
            command.arg(format!("source=127.0.0.1:{}", ports.source));
            command.arg(format!("packets=127.0.0.1:{}", ports.packets));
        }
        // All of 127.0.0.0/8 is this machine: that is where so many peers come from.
        Scene::Peers(_) => {
            command.arg(format!("http=0.0.0.0:{}", ports.http));
        }
        _ => {
            command.arg(format!("http=127.0.0.1:{}", ports.http));
        }
    }
    Running::start_ready(&mut command)
}

/// Waits for an answer to a request: a port may accept before there is a worker behind it.
fn first_answer(port: u16) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("does not answer: {error}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(failed)?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).map_err(failed)
}

/// Below the ports that connections get of themselves, so that none of theirs comes between the
/// choice of a port and its use; ip(7), `ip_local_port_range`.
const LISTENED: Range<u16> = 10_000..32_000;

/// A port that nobody has at the moment, and another one each time.
pub(super) fn free_port() -> Result<u16, String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() as u16;
    for _ in LISTENED {
        let step = NEXT.fetch_add(1, Relaxed).wrapping_add(begin.wrapping_mul(37));
        let port = LISTENED.start + step % LISTENED.len() as u16;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_below_those_of_clients() {
        let ports = [free_port().unwrap(), free_port().unwrap(), free_port().unwrap()];
        assert!(ports.iter().all(|port| LISTENED.contains(port)), "{ports:?}");
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
    }
}
