//! The rows: what each measures, in which scene, and what heng aims at.

use super::contestant::Kind;
use super::figures::Unit;
use super::load::{Load, Port, Reuse, Tool};
use super::scene::{Method, Scene, Setting};
use super::stage::Cores;

/// One row of the results.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) area: Area,
    pub(super) text: &'static str,
    pub(super) setting: Setting,
    pub(super) measure: Measure,
    pub(super) target: Target,
    pub(super) needs: Needs,
}

/// The headings of the results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Area {
    Proxying,
    Many,
    Files,
    Tls,
    Http2,
    Stream,
    Time,
}

impl Area {
    pub(super) fn title(self) -> &'static str {
        match self {
            Area::Proxying => "Proxying HTTP/1",
            Area::Many => "Many connections, servers and peers",
            Area::Files => "Files",
            Area::Tls => "TLS to clients",
            Area::Http2 => "HTTP/2 to clients",
            Area::Stream => "TCP and UDP",
            Area::Time => "Latency, and memory over time",
        }
    }
}

/// What a row measures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Measure {
    /// CPU time for each unit.
    Cpu { load: Load, unit: Unit, cores: Cores, floor: Floor },
    /// The same, and how long the start takes and what memory it leaves.
    Start { load: Load },
    /// CPU time for each request under a heavy load, as a multiple of that under a light one.
    Cliff { light: Load, heavy: Load, idle: Idle },
    /// Private memory for each connection that is idle after one request.
    Memory { kind: &'static str, port: Port, connections: u32 },
    /// Latency at half the rate that the slowest reaches.
    Latency { load: Load },
    /// Private memory over time under a mixture of loads.
    Flat { load: Load },
}

/// Whether the relay that parses nothing stands beside the row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Floor {
    Shown,
    Absent,
}

/// How many connections are idle beside a heavy load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Idle {
    None,
    Connections(u32),
}

/// What must be true for a row to be met.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Target {
    /// The cost as a share of the better peer's, on epoll and on io_uring.
    Ratio { epoll: f64, uring: f64 },
    /// Bytes for each connection, and less than the better peer's.
    Bytes(f64),
    /// At most this multiple of the contestant's own light load.
    Cliff(f64),
    /// The 99th percentile as a share of the better peer's.
    Latency(f64),
    /// Growth of memory as a share.
    Rise(f64),
}

/// Less than the better peer.
const AHEAD: Target = Target::Ratio { epoll: 1.0, uring: 1.0 };

/// What not every contestant can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    Nothing,
    Files,
    Packets,
}

impl Row {
    /// Why a contestant has no part in this row.
    pub(super) fn refusal(&self, kind: Kind) -> Option<&'static str> {
        match (kind, self.needs) {
            (Kind::Haproxy, Needs::Files) => Some("serves no files"),
            (Kind::Haproxy, Needs::Packets) => Some("passes on no UDP"),
            _ => None,
        }
    }

    /// Whether the floor stands beside it.
    pub(super) fn shows_floor(&self) -> bool {
        match self.measure {
            Measure::Cpu { floor, .. } => floor == Floor::Shown,
            // It has a connection to the backend for each client, idle ones too: too many.
            Measure::Cliff { idle, .. } => idle == Idle::None,
            Measure::Latency { .. } => true,
            _ => false,
        }
    }

    /// The programs that its loads need.
    pub(super) fn programs(&self) -> Vec<&'static str> {
        let loads = match self.measure {
            Measure::Cpu { load, .. } | Measure::Start { load } | Measure::Flat { load } => {
                vec![load]
            }
            Measure::Cliff { light, heavy, .. } => vec![light, heavy],
            Measure::Latency { load } => vec![load],
            Measure::Memory { .. } => Vec::new(),
        };
        let mut programs: Vec<&str> = loads.iter().filter_map(Load::program).collect();
        if self.setting.scene == Scene::Tls {
            programs.push("openssl");
        }
        programs
    }
}

const fn wrk(scheme: &'static str, path: &'static str, connections: u32) -> Load {
    Load {
        tool: Tool::Wrk { scheme, path, reuse: Reuse::KeepAlive },
        port: Port::First,
        connections,
    }
}

const fn h2load(scheme: &'static str, path: &'static str) -> Load {
    Load { tool: Tool::H2load { scheme, path, streams: 10 }, port: Port::First, connections: 64 }
}

const fn peer(command: &'static str, connections: u32, words: &'static [&'static str]) -> Load {
    Load { tool: Tool::Peer { command, words }, port: Port::First, connections }
}

/// Small answers over kept connections.
const SMALL: Load = wrk("http", "/", 64);

const fn cpu(load: Load, unit: Unit, floor: Floor) -> Measure {
    Measure::Cpu { load, unit, cores: Cores::One, floor }
}

const fn row(name: &'static str, area: Area, text: &'static str, measure: Measure) -> Row {
    let setting = Setting::of(Scene::Http);
    Row { name, area, text, setting, measure, target: AHEAD, needs: Needs::Nothing }
}

const fn in_scene(scene: Scene, row: Row) -> Row {
    Row { setting: Setting::of(scene), ..row }
}

const fn aims(epoll: f64, uring: f64, row: Row) -> Row {
    Row { target: Target::Ratio { epoll, uring }, ..row }
}

const PROXYING: [Row; 10] = [
    aims(
        0.65,
        0.55,
        row(
            "small",
            Area::Proxying,
            "128 B, 64 connections",
            cpu(SMALL, Unit::Request, Floor::Shown),
        ),
    ),
    Row {
        setting: Setting { log: true, ..Setting::of(Scene::Http) },
        ..aims(
            0.65,
            0.55,
            row(
                "small-log",
                Area::Proxying,
                "128 B, 64 connections, accesses logged",
                cpu(SMALL, Unit::Request, Floor::Absent),
            ),
        )
    },
    row(
        "small-pinned",
        Area::Proxying,
        "128 B, 64 connections, the proxy alone on a core",
        Measure::Cpu { load: SMALL, unit: Unit::Request, cores: Cores::Apart, floor: Floor::Shown },
    ),
    aims(
        0.65,
        0.55,
        row(
            "small-512",
            Area::Proxying,
            "128 B, 512 connections",
            cpu(wrk("http", "/", 512), Unit::Request, Floor::Shown),
        ),
    ),
    Row {
        setting: Setting { keepalive: 128, ..Setting::of(Scene::Http) },
        ..row(
            "keepalive-128",
            Area::Proxying,
            "128 B, 512 connections, 128 connections to the backend kept",
            cpu(wrk("http", "/", 512), Unit::Request, Floor::Absent),
        )
    },
    aims(
        0.65,
        0.55,
        row(
            "16k",
            Area::Proxying,
            "16 KiB, 64 connections",
            cpu(wrk("http", "/16384", 64), Unit::Request, Floor::Shown),
        ),
    ),
    Row {
        setting: Setting { roomy: true, ..Setting::of(Scene::Http) },
        ..row(
            "16k-roomy",
            Area::Proxying,
            "16 KiB, 64 connections, nginx and HAProxy with buffers of 32 KiB",
            cpu(wrk("http", "/16384", 64), Unit::Request, Floor::Absent),
        )
    },
    aims(
        0.95,
        0.95,
        row(
            "1g",
            Area::Proxying,
            "a body of 1 GiB over one connection",
            cpu(
                peer("transfers", 1, &["bodies=1", "path=/long/1073741824"]),
                Unit::Gibibyte,
                Floor::Shown,
            ),
        ),
    ),
    aims(
        0.75,
        0.75,
        row(
            "close",
            Area::Proxying,
            "128 B, a connection for each request, 64 at a time",
            cpu(CLOSE, Unit::Request, Floor::Absent),
        ),
    ),
    Row {
        target: Target::Bytes(300.0),
        ..row(
            "idle",
            Area::Proxying,
            "private memory for an idle keep-alive connection",
            Measure::Memory { kind: "plain", port: Port::First, connections: 9000 },
        )
    },
];

const CLOSE: Load = Load {
    tool: Tool::Wrk { scheme: "http", path: "/", reuse: Reuse::Close },
    port: Port::First,
    connections: 64,
};

/// Requests that count once every connection has had an answer.
const fn warm(connections: u32) -> Load {
    peer("requests", connections, &["warm=yes"])
}

/// What finds the highest rate of a contestant.
pub(super) const MOST: Load = warm(64);

const fn cliff(connections: u32, idle: Idle) -> Measure {
    Measure::Cliff { light: warm(512), heavy: warm(connections), idle }
}

const fn choosing(name: &'static str, text: &'static str, method: Method) -> Row {
    let load = peer("requests", 64, &["list=%DIR%/requests"]);
    in_scene(Scene::Peers(method), row(name, Area::Many, text, Measure::Start { load }))
}

const MANY: [Row; 6] = [
    Row {
        target: Target::Cliff(1.3),
        setting: Setting { keepalive: 10_000, ..Setting::of(Scene::Http) },
        ..row(
            "busy-10000",
            Area::Many,
            "128 B, up to 10,000 connections, all of them active",
            cliff(10_000, Idle::None),
        )
    },
    Row {
        target: Target::Cliff(1.3),
        setting: Setting { clients: Some(16_000), ..Setting::of(Scene::Http) },
        ..row(
            "idle-15000",
            Area::Many,
            "128 B, 512 connections, and up to 15,000 idle ones beside",
            cliff(512, Idle::Connections(15_000)),
        )
    },
    in_scene(
        Scene::Servers,
        row(
            "servers-1000",
            Area::Many,
            "128 B, 64 connections, any of ten locations of any of 1,000 servers",
            Measure::Start { load: peer("requests", 64, &["list=%DIR%/requests"]) },
        ),
    ),
    choosing(
        "peers-10000",
        "128 B, 64 connections, round robin among 10,000 peers in a zone",
        Method::RoundRobin,
    ),
    choosing(
        "peers-10000-least-conn",
        "128 B, 64 connections, the least busy of 10,000 peers in a zone",
        Method::LeastConn,
    ),
    choosing(
        "peers-10000-hash",
        "128 B, 64 connections, a consistent hash of the path over 10,000 peers in a zone",
        Method::Hash,
    ),
];

const FILES: [Row; 2] = [
    Row {
        needs: Needs::Files,
        ..row(
            "static",
            Area::Files,
            "a file of 1 KiB, 64 connections",
            cpu(wrk("http", "/static/1k", 64), Unit::Request, Floor::Absent),
        )
    },
    Row {
        needs: Needs::Files,
        ..row(
            "static-100k",
            Area::Files,
            "a file of 100 KiB with sendfile, 64 connections",
            cpu(wrk("http", "/files/100k", 64), Unit::Request, Floor::Absent),
        )
    },
];

const fn tls(name: &'static str, text: &'static str, load: Load, unit: Unit) -> Row {
    in_scene(Scene::Tls, row(name, Area::Tls, text, cpu(load, unit, Floor::Absent)))
}

const TLS: [Row; 6] = [
    tls(
        "tls-full",
        "full handshakes with ECDSA P-256, 32 at a time",
        peer("handshakes", 32, &["resume=no"]),
        Unit::Handshake,
    ),
    tls(
        "tls-full-rsa",
        "full handshakes with RSA 2048, 32 at a time",
        Load { port: Port::Second, ..peer("handshakes", 32, &["resume=no"]) },
        Unit::Handshake,
    ),
    tls(
        "tls-resumed",
        "handshakes with tickets, 32 at a time",
        peer("handshakes", 32, &["resume=yes"]),
        Unit::Handshake,
    ),
    tls("tls-small", "128 B, 64 kept connections with TLS", wrk("https", "/", 64), Unit::Request),
    tls(
        "tls-bulk",
        "bodies of 100 MiB over four connections with TLS",
        peer("transfers", 4, &["kind=tls", "path=/long/104857600"]),
        Unit::Gibibyte,
    ),
    Row {
        target: Target::Bytes(10_240.0),
        ..in_scene(
            Scene::Tls,
            row(
                "idle-tls",
                Area::Tls,
                "private memory for an idle keep-alive connection with TLS",
                Measure::Memory { kind: "tls", port: Port::First, connections: 9000 },
            ),
        )
    },
];

const HTTP2: [Row; 4] = [
    in_scene(
        Scene::Tls,
        row(
            "h2-small",
            Area::Http2,
            "128 B, 64 connections with TLS, ten streams each",
            cpu(h2load("https", "/"), Unit::Request, Floor::Absent),
        ),
    ),
    in_scene(
        Scene::H2c,
        row(
            "h2c-small",
            Area::Http2,
            "128 B, 64 connections without TLS, ten streams each",
            cpu(h2load("http", "/"), Unit::Request, Floor::Absent),
        ),
    ),
    Row {
        needs: Needs::Files,
        ..in_scene(
            Scene::Tls,
            row(
                "h2-static",
                Area::Http2,
                "a file of 1 KiB, 64 connections with TLS, ten streams each",
                cpu(h2load("https", "/static/1k"), Unit::Request, Floor::Absent),
            ),
        )
    },
    Row {
        target: Target::Bytes(f64::INFINITY),
        ..in_scene(
            Scene::Tls,
            row(
                "idle-h2",
                Area::Http2,
                "private memory for an idle HTTP/2 connection with TLS",
                Measure::Memory { kind: "h2", port: Port::First, connections: 9000 },
            ),
        )
    },
];

const fn tcp(name: &'static str, text: &'static str, load: Load, unit: Unit) -> Row {
    in_scene(Scene::Stream, row(name, Area::Stream, text, cpu(load, unit, Floor::Absent)))
}

const STREAM: [Row; 5] = [
    tcp(
        "stream-connections",
        "TCP: connect, 64 bytes there and back, close; 64 at a time",
        peer("sessions", 64, &[]),
        Unit::Session,
    ),
    tcp(
        "stream-small",
        "TCP: 64 bytes there and back over 64 kept connections",
        peer("pings", 64, &[]),
        Unit::Message,
    ),
    tcp(
        "stream-bulk",
        "TCP: bytes as fast as they come over four connections",
        Load { port: Port::Second, ..peer("transfers", 4, &["kind=stream"]) },
        Unit::Gibibyte,
    ),
    Row {
        needs: Needs::Packets,
        ..tcp(
            "stream-udp",
            "UDP: a packet there and back from a new client each time, 64 at a time",
            Load { port: Port::Third, ..peer("packets", 64, &[]) },
            Unit::Packet,
        )
    },
    Row {
        target: Target::Bytes(f64::INFINITY),
        ..in_scene(
            Scene::Stream,
            row(
                "stream-idle",
                Area::Stream,
                "private memory for an idle TCP session",
                Measure::Memory { kind: "stream", port: Port::First, connections: 9000 },
            ),
        )
    },
];

const TIME: [Row; 2] = [
    Row {
        target: Target::Latency(1.1),
        ..row(
            "latency",
            Area::Time,
            "128 B, 64 connections, at half the rate that the slowest reaches",
            Measure::Latency { load: peer("pace", 64, &[]) },
        )
    },
    Row {
        target: Target::Rise(0.01),
        ..in_scene(
            Scene::Tls,
            row(
                "memory",
                Area::Time,
                "growth of private memory under a mixture of loads",
                Measure::Flat {
                    load: Load {
                        port: Port::Third,
                        ..peer("mixture", 200, &["secure=127.0.0.1:%PORT%"])
                    },
                },
            ),
        )
    },
];

/// All rows in the order of the results.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    let groups: [&[Row]; 7] = [&PROXYING, &MANY, &FILES, &TLS, &HTTP2, &STREAM, &TIME];
    groups.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rows_are_their_own() {
        let mut names: Vec<&str> = all().map(|row| row.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn rows_of_an_area_stand_together() {
        let mut areas: Vec<Area> = all().map(|row| row.area).collect();
        areas.dedup();
        let titles: Vec<&str> = areas.iter().map(|area| area.title()).collect();
        assert_eq!(titles.len(), 7, "{titles:?}");
    }

    #[test]
    fn who_cannot_take_part_is_told_why() {
        let of = |name: &str| all().find(|row| row.name == name).unwrap();
        assert!(of("static").refusal(Kind::Haproxy).is_some());
        assert!(of("static").refusal(Kind::Nginx).is_none());
        assert!(of("stream-udp").refusal(Kind::Haproxy).is_some());
        assert!(of("small").shows_floor() && !of("small-log").shows_floor());
        assert_eq!(of("tls-small").programs(), ["wrk", "openssl"]);
    }
}
