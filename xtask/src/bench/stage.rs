//! The processes of a benchmark: backend, proxies, idle clients, and the cores they run on.

use super::first_line;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The example of crate net that relays without parsing.
const FLOOR: &str = "relay_floor";
/// How long a process may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(10);

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

    fn on(core: usize) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]);
        command
    }

    /// A command that runs its arguments where load and backend run.
    pub(super) fn for_load(self) -> Command {
        match self {
            Cores::One => Cores::on(Cores::last()),
            Cores::Apart => Cores::on(0),
        }
    }

    fn for_proxy() -> Command {
        Cores::on(Cores::last())
    }
}

/// A program that takes part.
pub(super) struct Contestant {
    kind: Kind,
    program: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Heng,
    /// The same program with `use io_uring`.
    HengUring,
    Nginx,
    Haproxy,
    /// A relay that parses nothing: what the kernel takes.
    Floor,
}

impl Contestant {
    /// heng first, freshly built unless `HENG_BENCH_HENG` names a program; then the peers:
    /// `HENG_BENCH_NGINX` and `HENG_BENCH_HAPROXY`, or those of the system.
    pub(super) fn find() -> Result<Vec<Contestant>, String> {
        let peer = |variable: &str, usual: &str| {
            let program = std::env::var_os(variable).map_or_else(|| usual.into(), PathBuf::from);
            match program.is_file() {
                true => Ok(program),
                false => {
                    Err(format!("there is no {}; {variable} names another", program.display()))
                }
            }
        };
        let own = match std::env::var_os("HENG_BENCH_HENG") {
            Some(program) => PathBuf::from(program),
            None => built("heng", &[], "heng")?,
        };
        Ok(vec![
            Contestant { kind: Kind::Heng, program: own.clone() },
            Contestant { kind: Kind::HengUring, program: own },
            Contestant { kind: Kind::Nginx, program: peer("HENG_BENCH_NGINX", "/usr/sbin/nginx")? },
            Contestant {
                kind: Kind::Haproxy,
                program: peer("HENG_BENCH_HAPROXY", "/usr/sbin/haproxy")?,
            },
            Contestant { kind: Kind::Floor, program: built("net", &["--example", FLOOR], FLOOR)? },
        ])
    }

    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Heng => "heng",
            Kind::HengUring => "heng-io_uring",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::Floor => "(floor)",
        }
    }

    pub(super) fn version(&self) -> Result<String, String> {
        match self.kind {
            Kind::Floor => Ok("a relay that parses nothing, one connection for each".to_string()),
            _ => first_line(Command::new(&self.program).arg("-v")),
        }
    }

    pub(super) fn serves_files(&self) -> bool {
        matches!(self.kind, Kind::Heng | Kind::HengUring | Kind::Nginx)
    }

    /// Whether it is heng, whose figures are compared with those of its peers.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Heng | Kind::HengUring)
    }

    /// The name of its configuration in bench/, and the event interface that it is to use.
    fn template(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::HengUring => ("heng", "io_uring"),
            _ => (self.name(), "epoll"),
        }
    }

    /// Whether it only shows what no proxy gets below.
    pub(super) fn is_floor(&self) -> bool {
        self.kind == Kind::Floor
    }

    /// Values of the configuration that depend on logging: `%LOG%` and `%FORMAT%`.
    fn logging(&self, log: bool) -> [&'static str; 2] {
        match (self.kind, log) {
            (Kind::Haproxy, true) => ["log ring@access local0", "option httplog"],
            (Kind::Haproxy, false) => ["", ""],
            (_, true) => ["%DIR%/%NAME%-access.log combined buffer=64k flush=1s", ""],
            (_, false) => ["off", ""],
        }
    }

    /// Listening on the first port and passing to the second, as its configuration says too.
    fn command(&self, configuration: &Path, directory: &Path, ports: [u16; 2]) -> Command {
        let mut command = Cores::for_proxy();
        command.arg(&self.program);
        match self.kind {
            Kind::Haproxy => command.arg("-db").arg("-q").arg("-f").arg(configuration),
            Kind::Floor => command.arg("relay").args(ports.map(|port| format!("127.0.0.1:{port}"))),
            _ => command.arg("-p").arg(directory).arg("-c").arg(configuration),
        };
        command
    }
}

/// Builds a program of a package as users get it, and returns its path.
fn built(package: &str, target: &[&str], name: &str) -> Result<PathBuf, String> {
    let mut build = crate::workspace::cargo();
    build.args(["build", "--quiet", "--release", "--package", package, "--message-format=json"]);
    let built = crate::artifacts::built_by(build.args(target))?;
    let program = built.into_iter().find(|artifact| artifact.name == name);
    program.map(|artifact| artifact.executable).ok_or_else(|| format!("cargo built no {name}"))
}

/// A process that ends with its owner.
struct Running {
    child: Child,
}

impl Running {
    fn start(command: &mut Command) -> Result<Running, String> {
        let child = command.spawn().map_err(|error| format!("cannot run {command:?}: {error}"))?;
        Ok(Running { child })
    }

    /// Starts a process and waits for the line that says that it is ready.
    fn start_ready(command: &mut Command) -> Result<Running, String> {
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = running.child.stdout.take().ok_or("a process without output")?;
        let mut line = String::new();
        match BufReader::new(output).read_line(&mut line) {
            Ok(length) if length > 0 => Ok(running),
            _ => Err(format!("{command:?} ended before it was ready")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked kindly, a master takes its workers along; std knows no other signal than KILL.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::yield_now();
        }
    }
}

/// A proxy at work.
pub(super) struct Proxy {
    running: Running,
    port: u16,
}

impl Proxy {
    pub(super) fn pid(&self) -> u32 {
        self.running.child.id()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// A backend and the proxies in front of it.
pub(super) struct Stage {
    proxies: Vec<Proxy>,
    peer: PathBuf,
    _backend: Running,
}

impl Stage {
    /// Starts everything and waits until it serves.
    pub(super) fn set(
        contestants: &[&Contestant],
        cores: Cores,
        log: bool,
    ) -> Result<Stage, String> {
        let peer = built("bench-peer", &[], "bench-peer")?;
        let directory = crate::workspace::root().join("target/bench");
        let written = fs::create_dir_all(directory.join("static"))
            .and_then(|()| fs::write(directory.join("static/1k"), [b'x'; 1024]));
        written.map_err(|error| format!("cannot write to {}: {error}", directory.display()))?;
        let backend = free_port()?;
        let mut command = cores.for_load();
        command.arg(&peer).arg("answer").arg(format!("127.0.0.1:{backend}"));
        let running = Running::start_ready(&mut command)?;
        let mut proxies = Vec::new();
        for contestant in contestants {
            let port = free_port()?;
            let ports = [port, backend];
            let path = directory.join(format!("{}.conf", contestant.name()));
            if !contestant.is_floor() {
                configure(contestant, &directory, &path, ports, log)?;
            }
            let running = Running::start(&mut contestant.command(&path, &directory, ports))?;
            let proxy = Proxy { running, port };
            wait_for(proxy.port).map_err(|error| format!("{}: {error}", contestant.name()))?;
            proxies.push(proxy);
        }
        Ok(Stage { proxies, peer, _backend: running })
    }

    pub(super) fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Clients that have asked once and are silent now, until the answer is dropped.
    pub(super) fn idle_clients(&self, proxy: &Proxy, count: u32) -> Result<impl Drop, String> {
        let mut command = Cores::One.for_load();
        command.arg(&self.peer).arg("idle").arg(format!("127.0.0.1:{}", proxy.port));
        Running::start_ready(command.arg(count.to_string()))
    }
}

/// Writes a contestant's configuration with its values.
fn configure(
    contestant: &Contestant,
    directory: &Path,
    path: &Path,
    [port, backend]: [u16; 2],
    log: bool,
) -> Result<(), String> {
    let name = contestant.name();
    let (template, driver) = contestant.template();
    let template = crate::workspace::root().join(format!("bench/{template}.conf"));
    let text = fs::read_to_string(&template)
        .map_err(|error| format!("cannot read {}: {error}", template.display()))?;
    let [log, format] = contestant.logging(log);
    let text = text
        .replace("%LOG%", log)
        .replace("%DRIVER%", driver)
        .replace("%FORMAT%", format)
        .replace("%NAME%", name)
        .replace("%PORT%", &port.to_string())
        .replace("%BACKEND%", &backend.to_string())
        .replace("%DIR%", &directory.to_string_lossy());
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// A port that nobody has at the moment.
fn free_port() -> Result<u16, String> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    bound.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// Waits until a port accepts.
fn wait_for(port: u16) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > deadline {
            return Err("does not accept connections".to_string());
        }
        std::thread::yield_now();
    }
    Ok(())
}
