//! Who takes part: heng with either driver, nginx, HAProxy, and a relay that shows what the kernel
//! alone takes.

use super::first_line;
use super::scene::STREAM_MODULE;
use super::stage::{Ports, built};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The example of crate net that relays without parsing.
const FLOOR: &str = "relay_floor";

/// The peers, how others than the system's are named, and where the system's are.
const PEERS: [(Kind, &str, &str); 2] = [
    (Kind::Nginx, "HENG_BENCH_NGINX", "/usr/sbin/nginx"),
    (Kind::Haproxy, "HENG_BENCH_HAPROXY", "/usr/sbin/haproxy"),
];

/// Whether other peers than the system's are named.
pub(super) fn are_peers_named() -> bool {
    PEERS.iter().any(|(_, variable, _)| std::env::var_os(variable).is_some())
}

/// A program that takes part.
pub(super) struct Contestant {
    kind: Kind,
    program: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Heng,
    /// The same program with `use io_uring`.
    HengUring,
    /// Another heng, to be compared with the first, with either driver.
    Before,
    BeforeUring,
    Nginx,
    Haproxy,
    /// A relay that parses nothing: what the kernel takes.
    Floor,
}

impl Contestant {
    /// heng first, freshly built unless `HENG_BENCH_HENG` names a program, and the one that
    /// `HENG_BENCH_BEFORE` names; then the peers:
    /// `HENG_BENCH_NGINX` and `HENG_BENCH_HAPROXY`, or those of the system. Who is not there is
    /// told in the second list.
    pub(super) fn find() -> Result<(Vec<Contestant>, Vec<String>), String> {
        let own = match std::env::var_os("HENG_BENCH_HENG") {
            Some(program) => PathBuf::from(program),
            None => built("heng", &[], "heng")?,
        };
        let mut found = vec![
            Contestant { kind: Kind::Heng, program: own.clone() },
            Contestant { kind: Kind::HengUring, program: own },
        ];
        if let Some(before) = std::env::var_os("HENG_BENCH_BEFORE").map(PathBuf::from) {
            found.push(Contestant { kind: Kind::Before, program: before.clone() });
            found.push(Contestant { kind: Kind::BeforeUring, program: before });
        }
        let mut absent = Vec::new();
        for (kind, variable, usual) in PEERS {
            let program = std::env::var_os(variable).map_or_else(|| usual.into(), PathBuf::from);
            match program.is_file() {
                true => found.push(Contestant { kind, program }),
                false => absent
                    .push(format!("there is no {}; {variable} names another", program.display())),
            }
        }
        let program = built("net", &["--example", FLOOR], FLOOR)?;
        found.push(Contestant { kind: Kind::Floor, program });
        Ok((found, absent))
    }

    #[cfg(test)]
    pub(super) fn of_kind(kind: Kind) -> Contestant {
        Contestant { kind, program: PathBuf::new() }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Heng => "heng",
            Kind::HengUring => "heng-io_uring",
            Kind::Before => "heng-before",
            Kind::BeforeUring => "heng-before-io_uring",
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

    /// Whether it is nginx or HAProxy, with whose figures heng's are compared.
    pub(super) fn is_peer(&self) -> bool {
        matches!(self.kind, Kind::Nginx | Kind::Haproxy)
    }

    /// What it is compared with beside the better peer: the same driver of the other heng.
    pub(super) fn before(&self) -> Option<Kind> {
        match self.kind {
            Kind::Heng => Some(Kind::Before),
            Kind::HengUring => Some(Kind::BeforeUring),
            _ => None,
        }
    }

    /// The name of its configuration in a folder of bench/, and the event interface that it is to
    /// use. None for the floor, which has no configuration.
    pub(super) fn template(&self) -> Option<(&'static str, &'static str)> {
        match self.kind {
            Kind::Heng | Kind::Before => Some(("heng", "epoll")),
            Kind::HengUring | Kind::BeforeUring => Some(("heng", "io_uring")),
            Kind::Nginx => Some(("nginx", "epoll")),
            Kind::Haproxy => Some(("haproxy", "epoll")),
            Kind::Floor => None,
        }
    }

    /// Values of the configuration that depend on logging: `%LOG%` and `%FORMAT%`.
    pub(super) fn logging(&self, log: bool) -> [&'static str; 2] {
        match (self.kind, log) {
            (Kind::Haproxy, true) => ["log ring@access local0", "option httplog"],
            (Kind::Haproxy, false) => ["", ""],
            (_, true) => ["%DIR%/%NAME%-access.log combined buffer=64k flush=1s", ""],
            (_, false) => ["off", ""],
        }
    }

    /// What a peer is told of its buffers: `%BUFFERS%`. heng keeps its defaults.
    pub(super) fn buffers(&self, roomy: bool) -> &'static str {
        match (self.kind, roomy) {
            (Kind::Nginx, true) => "proxy_buffer_size 32k; proxy_buffers 8 32k;",
            (Kind::Haproxy, true) => "tune.bufsize 32768",
            _ => "",
        }
    }

    /// The directive that loads what nginx needs for TCP and UDP, `%STREAM_MODULE%`, unless the
    /// program was built with it.
    pub(super) fn stream_module(&self) -> String {
        let module = std::env::var("HENG_BENCH_NGINX_STREAM").ok();
        if self.kind != Kind::Nginx || module.is_none() && has_stream(&self.options()) {
            return String::new();
        }
        let module = module.unwrap_or_else(|| STREAM_MODULE.to_string());
        format!("load_module {module};")
    }

    /// What the program says of how it was built (`-V`).
    fn options(&self) -> String {
        let output = Command::new(&self.program).arg("-V").output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Listening on these ports, as its configuration says too, behind the words of `command`.
    pub(super) fn command(
        &self,
        mut command: Command,
        configuration: &Path,
        directory: &Path,
        ports: &Ports,
        backend: u16,
    ) -> Command {
        command.arg(&self.program);
        match self.kind {
            Kind::Haproxy => command.arg("-db").arg("-q").arg("-f").arg(configuration),
            Kind::Floor => {
                let ports = [ports.first, backend];
                command.arg("relay").args(ports.map(|port| format!("127.0.0.1:{port}")))
            }
            _ => command.arg("-p").arg(directory).arg("-c").arg(configuration),
        };
        command
    }
}

/// Whether these options of nginx's `configure` have the stream module in the program itself.
fn has_stream(options: &str) -> bool {
    options.split_whitespace().any(|option| option == "--with-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nginx_with_tcp_in_it_loads_no_module() {
        assert!(has_stream("configure arguments: --with-threads --with-stream --with-pcre-jit"));
        assert!(!has_stream("configure arguments: --with-stream=dynamic --with-stream_ssl_module"));
    }
}
