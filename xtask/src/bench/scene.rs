//! What stands around a row: which folder of bench/ has the configurations, and the values and
//! files that these name.

use super::contestant::{Contestant, Kind};
use super::stage::{BackendPorts, Ports};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Which configurations, and what they proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scene {
    /// HTTP without TLS, on the first port.
    Http,
    /// TLS with an ECDSA certificate on the first port, with RSA on the second, none on the third.
    Tls,
    /// HTTP/2 without TLS.
    H2c,
    /// TCP to an echo, TCP to a source of bytes, and UDP.
    Stream,
    /// A thousand servers.
    Servers,
    /// A group of ten thousand.
    Peers(Method),
}

/// How a peer is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    RoundRobin,
    LeastConn,
    Hash,
}

/// Everything that a configuration depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) scene: Scene,
    /// Whether accesses are logged.
    pub(super) log: bool,
    /// How many idle connections to the backend are kept.
    pub(super) keepalive: u32,
    /// How many clients HAProxy admits; none for half of the descriptors.
    pub(super) clients: Option<u32>,
    /// Whether the peers have buffers that hold an answer of 16 KiB, rather than their defaults.
    pub(super) roomy: bool,
}

impl Setting {
    pub(super) const fn of(scene: Scene) -> Setting {
        Setting { scene, log: false, keepalive: 1024, clients: None, roomy: false }
    }
}

/// How many servers and how many peers the large scenes have.
pub(super) const SERVERS: u32 = 1000;
pub(super) const PEERS: u32 = 10_000;
/// No proxy is given more descriptors than this: nginx prepares a slot for each.
const MOST_DESCRIPTORS: u64 = 24_000;
/// Debian's module, which nginx loads for TCP and UDP; `HENG_BENCH_NGINX_STREAM` names another.
/// A nginx that was built with what is in it needs none.
pub(super) const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

impl Scene {
    /// The folder in bench/, and of its files in target/bench/.
    fn folder(self) -> &'static str {
        match self {
            Scene::Http => "http",
            Scene::Tls => "tls",
            Scene::H2c => "h2c",
            Scene::Stream => "stream",
            Scene::Servers => "servers",
            Scene::Peers(_) => "peers",
        }
    }

    /// Whether the first port takes HTTP/1 without TLS.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Scene::Http | Scene::Servers | Scene::Peers(_))
    }

    /// Writes what the configurations name: bodies, certificates, maps and lists of requests.
    pub(super) fn prepare(self, directory: &Path) -> Result<(), String> {
        for folder in ["static", "files"] {
            fs::create_dir_all(directory.join(folder))
                .map_err(|error| cannot(directory, &error))?;
        }
        write(&directory.join("static/1k"), &"x".repeat(1024))?;
        write(&directory.join("files/100k"), &"x".repeat(100 << 10))?;
        match self {
            Scene::Tls => certificates(directory),
            Scene::Servers => {
                write(&directory.join("servers.map"), &servers_map())?;
                write(&directory.join("requests"), &server_requests())
            }
            Scene::Peers(_) => write(&directory.join("requests"), &key_requests()),
            _ => Ok(()),
        }
    }
}

/// How many descriptors each process gets: proc(5) `limits`.
pub(super) fn descriptors() -> u64 {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    hard_limit(&text).unwrap_or(1024).min(MOST_DESCRIPTORS)
}

fn hard_limit(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The ports of one contestant and of the backends.
pub(super) struct Place<'a> {
    pub(super) directory: &'a Path,
    pub(super) ports: &'a Ports,
    pub(super) backends: &'a BackendPorts,
}

/// Writes a contestant's configuration with its values. None when it has none.
pub(super) fn configure(
    contestant: &Contestant,
    setting: &Setting,
    place: &Place<'_>,
    path: &Path,
) -> Result<(), String> {
    let Some((template, driver)) = contestant.template() else { return Ok(()) };
    let folder = setting.scene.folder();
    let template = crate::workspace::root().join(format!("bench/{folder}/{template}.conf"));
    let text = fs::read_to_string(&template)
        .map_err(|error| format!("cannot read {}: {error}", template.display()))?;
    let descriptors = descriptors();
    let clients = setting.clients.map_or((descriptors.saturating_sub(400)) / 2, u64::from);
    let [log, format] = contestant.logging(setting.log);
    let backend = place.backends.http;
    let values = [
        ("%LOG%", log.to_string()),
        ("%DRIVER%", driver.to_string()),
        ("%FORMAT%", format.to_string()),
        ("%NAME%", contestant.name().to_string()),
        ("%PORT%", place.ports.first.to_string()),
        ("%SECOND%", place.ports.second.to_string()),
        ("%THIRD%", place.ports.third.to_string()),
        ("%ECHO%", place.backends.echo.to_string()),
        ("%SOURCE%", place.backends.source.to_string()),
        ("%PACKETS%", place.backends.packets.to_string()),
        ("%BUFFERS%", contestant.buffers(setting.roomy).to_string()),
        ("%KEEPALIVE%", setting.keepalive.to_string()),
        ("%DESCRIPTORS%", descriptors.to_string()),
        ("%CONNECTIONS%", descriptors.saturating_sub(1000).to_string()),
        ("%MAXCONN%", clients.to_string()),
        ("%STREAM_MODULE%", contestant.stream_module()),
        ("%SERVERS%", servers(place.ports.first)),
        ("%METHOD%", method(contestant.kind(), setting.scene)),
        ("%PEERS%", peers(contestant.kind())),
        ("%BACKEND%", backend.to_string()),
        ("%DIR%", place.directory.to_string_lossy().into_owned()),
    ];
    let text = values.iter().fold(text, |text, (name, value)| match text.contains(name) {
        true => text.replace(name, value),
        false => text,
    });
    write(path, &text)
}

/// The locations of each server, in nginx's words: a regular name, beginnings, one exact path and
/// two regular expressions.
const LOCATIONS: [(&str, &str); 10] = [
    ("/", "/index"),
    ("/api/", "/api/v1/users"),
    ("/images/", "/images/logo"),
    ("/docs/", "/docs/start"),
    ("/shop/", "/shop/cart"),
    ("/blog/2026/", "/blog/2026/november"),
    ("= /health", "/health"),
    ("^~ /assets/", "/assets/site.css"),
    ("~ \\.php$", "/login.php"),
    ("~* \\.(png|jpe?g|gif)$", "/photo.jpg"),
];

fn server_name(number: u32) -> String {
    format!("www{number}.example.com")
}

/// Server blocks for nginx and heng.
fn servers(port: u16) -> String {
    let mut text = String::new();
    for number in 0..SERVERS {
        let name = server_name(number);
        // Options of a socket are given once.
        let backlog = if number == 0 { " backlog=16384" } else { "" };
        let _ = writeln!(text, "    server {{\n        listen 127.0.0.1:{port}{backlog};");
        let _ = writeln!(text, "        server_name {name};");
        for (location, _) in LOCATIONS {
            let _ = writeln!(text, "        location {location} {{ proxy_pass http://backend; }}");
        }
        text.push_str("    }\n");
    }
    text
}

/// The same names and beginnings as a map of HAProxy.
fn servers_map() -> String {
    let mut text = String::new();
    for number in 0..SERVERS {
        for (_, path) in LOCATIONS {
            let _ = writeln!(text, "{}{path} backend", server_name(number));
        }
    }
    text
}

fn server_requests() -> String {
    let mut text = String::new();
    for number in 0..SERVERS {
        for (_, path) in LOCATIONS {
            let _ = writeln!(text, "{} {path}", server_name(number));
        }
    }
    text
}

/// Requests whose paths are different keys; none ends with a number, which would be a length.
fn key_requests() -> String {
    (0..20_000).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "bench /item/k{number}");
        text
    })
}

/// How a group chooses, in the words of nginx and heng, or of HAProxy.
fn method(kind: Kind, scene: Scene) -> String {
    let Scene::Peers(method) = scene else { return String::new() };
    let text = match (kind, method) {
        // Its round robin takes 4,095 servers at most; this one has no limit.
        (Kind::Haproxy, Method::RoundRobin) => "    balance static-rr\n",
        (Kind::Haproxy, Method::LeastConn) => "    balance leastconn\n",
        (Kind::Haproxy, Method::Hash) => "    balance uri\n    hash-type consistent\n",
        (_, Method::RoundRobin) => "",
        (_, Method::LeastConn) => "        least_conn;\n",
        (_, Method::Hash) => "        hash $request_uri consistent;\n",
    };
    text.to_string()
}

/// Ten thousand addresses of one backend.
fn peers(kind: Kind) -> String {
    (0..PEERS).fold(String::new(), |mut text, number| {
        let address = format!("127.1.{}.{}:%BACKEND%", number / 250, 1 + number % 250);
        let _ = match kind {
            Kind::Haproxy => writeln!(text, "    server s{number} {address}"),
            _ => writeln!(text, "        server {address};"),
        };
        text
    })
}

/// A self-signed pair of each kind of key, and both in one file, as HAProxy wants them.
fn certificates(directory: &Path) -> Result<(), String> {
    for (name, key) in [
        ("ecdsa", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..]),
        ("rsa", &["-newkey", "rsa:2048"][..]),
    ] {
        let path = |ending: &str| directory.join(format!("{name}.{ending}"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=bench"]).args(key);
        openssl.arg("-keyout").arg(path("key")).arg("-out").arg(path("crt"));
        let output = openssl.output().map_err(|error| format!("cannot run openssl: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("openssl made no certificate: {said}"));
        }
        let read = |ending: &str| {
            fs::read_to_string(path(ending)).map_err(|error| cannot(&path(ending), &error))
        };
        write(&path("pem"), &(read("crt")? + &read("key")?))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| cannot(path, &error))
}

fn cannot(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write or read {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_the_hard_one() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max processes             94886                94886          processes\n\
                    Max open files            1024                 20000                files\n";
        assert_eq!(hard_limit(text), Some(20_000));
        assert_eq!(hard_limit(""), None);
    }

    #[test]
    fn large_scenes_are_as_large_as_they_say() {
        assert_eq!(servers(80).matches("server_name www").count(), 1000);
        assert_eq!(servers(80).matches("location ").count(), 10_000);
        assert_eq!(servers_map().lines().count(), 10_000);
        let peers = peers(Kind::Nginx);
        let mut lines: Vec<&str> = peers.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 10_000);
    }

    #[test]
    fn every_value_of_every_configuration_is_known() {
        let directory = std::env::temp_dir().join(format!("heng-scene-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let ports = Ports { first: 1, second: 2, third: 3 };
        let backends = BackendPorts { http: 4, echo: 5, source: 6, packets: 7 };
        let place = Place { directory: &directory, ports: &ports, backends: &backends };
        for scene in [
            Scene::Http,
            Scene::Tls,
            Scene::H2c,
            Scene::Stream,
            Scene::Servers,
            Scene::Peers(Method::Hash),
        ] {
            for kind in [Kind::Heng, Kind::HengUring, Kind::Nginx, Kind::Haproxy] {
                let path = directory.join("conf");
                let contestant = Contestant::of_kind(kind);
                configure(&contestant, &Setting::of(scene), &place, &path).unwrap();
                let text = fs::read_to_string(&path).unwrap();
                // HAProxy has a language with %[...] of its own.
                let left = text.replace("%[", "").matches('%').count();
                assert_eq!(left, 0, "{kind:?} in {scene:?}");
            }
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
