//! The processes of a benchmark: backend, proxies, idle clients, and the cores they run on.

use super::contestant::Contestant;
use super::figures::Usage;
use super::scene::{Place, Scene, Setting, configure, descriptors};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
}

impl Cores {
    fn last() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from) - 1
    }

    /// A command that runs its arguments there, with as many descriptors as there may be.
    fn on(core: usize) -> Command {
        let mut command = Command::new("taskset");
        let most = descriptors();
        command.args(["-c", &core.to_string(), "prlimit", &format!("--nofile={most}:{most}")]);
        command
    }

    /// A command that runs its arguments where load and backend run.
    pub(super) fn for_load(self) -> Command {
        match self {
            Cores::One => Cores::on(Cores::last()),
            Cores::Apart => Cores::on(0),
        }
    }

    pub(super) fn for_proxy() -> Command {
        Cores::on(Cores::last())
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

/// A proxy at work.
pub(super) struct Proxy {
    running: Running,
    pub(super) ports: Ports,
    /// From its start until it served, and the CPU time that this took.
    pub(super) started_in: Duration,
    pub(super) start_cpu: Duration,
}

impl Proxy {
    pub(super) fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// A backend and the proxies in front of it.
pub(super) struct Stage {
    proxies: Vec<Proxy>,
    directory: PathBuf,
    peer: PathBuf,
    _backend: Running,
}

impl Stage {
    /// Starts everything and waits until it serves. `name` keeps the files of two stages apart.
    pub(super) fn set(
        name: &str,
        contestants: &[&Contestant],
        setting: &Setting,
        cores: Cores,
    ) -> Result<Stage, String> {
        let peer = built("bench-peer", &[], "bench-peer")?;
        let directory = crate::workspace::root().join("target/bench").join(name);
        fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        setting.scene.prepare(&directory)?;
        let (http, echo) = (free_port()?, free_port()?);
        let backends = BackendPorts { http, echo, source: free_port()?, packets: free_port()? };
        let backend = start_backends(&peer, &backends, setting.scene, cores)?;
        let mut stage =
            Stage { proxies: Vec::new(), directory: directory.clone(), peer, _backend: backend };
        for contestant in contestants {
            let proxy = start_proxy(contestant, setting, &backends, &directory);
            let proxy = proxy.map_err(|error| format!("{}: {error}", contestant.name()))?;
            stage.proxies.push(proxy);
        }
        Ok(stage)
    }

    pub(super) fn proxies(&self) -> &[Proxy] {
        &self.proxies
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

fn start_backends(
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

fn start_proxy(
    contestant: &Contestant,
    setting: &Setting,
    backends: &BackendPorts,
    directory: &Path,
) -> Result<Proxy, String> {
    let ports = Ports { first: free_port()?, second: free_port()?, third: free_port()? };
    let path = directory.join(format!("{}.conf", contestant.name()));
    configure(contestant, setting, &Place { directory, ports: &ports, backends }, &path)?;
    let start = Instant::now();
    let mut command = contestant.command(&path, directory, &ports, backends.http);
    let mut running = Running::start(&mut command)?;
    running.wait_for(ports.first)?;
    if setting.scene.is_plain() {
        first_answer(ports.first)?;
    }
    let started_in = start.elapsed();
    let start_cpu = Duration::from_nanos(Usage::of(running.pid())?.run_ns);
    Ok(Proxy { running, ports, started_in, start_cpu })
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

/// A port that nobody has at the moment.
pub(super) fn free_port() -> Result<u16, String> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    bound.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}
