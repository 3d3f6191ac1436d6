//! The directives of an `upstream` block, as data.

use balance::PeerOptions;
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Opens, read};
use session::contexts::{HTTP, STREAM, STREAM_UPSTREAM, UPSTREAM};

use crate::target::{Host, Target};
use crate::{guard, haproxy, marks, methods};

/// The blocks of both engines.
const BLOCKS: &[Context] = &[UPSTREAM, STREAM_UPSTREAM];

/// All of them.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[
    &BLOCK,
    &STREAM_BLOCK,
    &SERVER,
    &methods::LEAST_CONN,
    &methods::IP_HASH,
    &methods::HASH,
    &methods::RANDOM,
    &methods::LEAST_TIME,
    &methods::STREAM_LEAST_TIME,
    &methods::FAIR,
    &methods::LC,
    &methods::WLC,
    &methods::SED,
    &methods::NQ,
    &methods::FIRST,
    &methods::SH,
    &methods::DH,
    &haproxy::BALANCE,
    &haproxy::STREAM_BALANCE,
    &haproxy::HASH_TYPE,
    &methods::HASH_BALANCE_FACTOR,
    &methods::QUEUE,
    &guard::OUTLIER_DETECTION,
    &guard::RETRY_BUDGET,
    &guard::CIRCUIT_BREAKER,
    &ZONE,
    &crate::state::STATE,
    &START_UNRESOLVED,
    &marks::ON_MARKED_DOWN,
    &marks::ON_MARKED_UP,
    &KEEPALIVE,
    &KEEPALIVE_REQUESTS,
    &KEEPALIVE_TIME,
    &KEEPALIVE_TIMEOUT,
];

/// One `server` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The address as written.
    pub text: String,
    /// What it says.
    pub target: Target,
    /// Weight and limits; `fail_timeout` in seconds.
    pub options: PeerOptions,
    /// It is asked only when no primary is usable.
    pub backup: bool,
    /// The name by which clients are bound to it; that of its address when none is given.
    pub route: Option<Box<str>>,
    /// Its name is looked up while the program runs.
    pub resolve: bool,
    /// The service that is looked up at the name (RFC 2782).
    pub service: Option<String>,
}

/// The value of `keepalive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Idle connections kept by each worker.
    pub connections: u32,
    /// Only the location that made a connection uses it again.
    pub local: bool,
}

/// The value of `zone`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneLine {
    /// The name.
    pub name: String,
    /// Bytes, if given.
    pub size: Option<u64>,
}

/// The block itself; its value is the name.
pub static BLOCK: Directive<String> = Directive::new("upstream", &[HTTP], read::text)
    .many()
    .opens(Opens::Context(UPSTREAM))
    .syntax("upstream NAME { ... }")
    .text(
        "Names a group of servers, for `proxy_pass http://NAME`. Requests are spread over the \
         servers by weighted round robin unless the block says otherwise. When a server fails, \
         the request goes to the next one, until all were tried.",
    )
    .example("upstream backend { server 127.0.0.1:8081; server 127.0.0.1:8082; }");

/// The same block for TCP and UDP.
pub static STREAM_BLOCK: Directive<String> = Directive::new("upstream", &[STREAM], read::text)
    .many()
    .opens(Opens::Context(STREAM_UPSTREAM))
    .syntax("upstream NAME { ... }")
    .text(
        "Names a group of servers, for `proxy_pass NAME`. Sessions are spread over the servers by \
         weighted round robin unless the block says otherwise. When a server cannot be reached, \
         the session goes to the next one, until all were tried. Every `server` has a port.",
    )
    .example("upstream database { server 10.0.0.1:5432; server 10.0.0.2:5432 backup; }");

/// A server of a group.
pub static SERVER: Directive<Server> = Directive::new("server", BLOCKS, server)
    .takes(Arity::AtLeast(1))
    .many()
    .syntax(
        "server ADDRESS [weight=N] [max_fails=N] [fail_timeout=TIME] [max_conns=N] \
         [slow_start=TIME] \
         [backup] [down] [resolve] [service=NAME] [drain] [route=NAME] \
         [on_marked_down=shutdown_sessions] [on_marked_up=shutdown_backup_sessions];",
    )
    .text(
        "One server of the group: `HOST`, `HOST:PORT` or `unix:PATH`; the port is 80 unless \
         given. A name is looked up at the start, and each of its addresses becomes a peer.\n\n\
         - `weight=N`: its share of the requests; 1 unless given.\n\
         - `max_fails=N`: after so many failures within `fail_timeout` the server rests; 1 \
         unless given, 0 never. The only server of a group never rests.\n\
         - `fail_timeout=TIME`: that time, and how long it then rests; 10 seconds unless given.\n\
         - `max_conns=N`: at most so many requests at once, counted by each worker for itself \
         unless the group has a `zone`; 0, no limit, unless given.\n\
         - `slow_start=TIME`: after it was down, resting or unhealthy its share grows from nothing \
         to the full one over TIME; at once unless given. Not with methods that go by keys or \
         chance, and of no effect for the only server of a group.\n\
         - `backup`: used only while no other server is usable.\n\
         - `down`: never used.\n\
         - `resolve`: the name is looked up again and again while the program runs, by the \
         `resolver` in force, and its addresses come and go in the group. Needs a `zone`. A reload \
         keeps the addresses that were known.\n\
         - `service=NAME`: with `resolve`, the hosts, ports and weights of that service at the \
         name (DNS SRV; `http` means `_http._tcp`); hosts beyond the first priority are backups.\n\
         - `drain`: used only for clients that are bound to it (`sticky`).\n\
         - `route=NAME`: the name by which `sticky` binds clients to it, of at most 32 characters; \
         unless given, a hash of its address.\n\
         - `on_marked_down=shutdown_sessions`, `on_marked_up=shutdown_backup_sessions`: what the \
         directives of these names say, for this server alone.",
    )
    .example(
        "upstream backend {\n    server 127.0.0.1:8081 weight=5 max_fails=3 fail_timeout=30s;\n    \
         server unix:/run/backend.sock backup;\n}",
    );

/// Starting without names.
pub static START_UNRESOLVED: Directive<bool> = Directive::new(
    "upstream_start_unresolved",
    &[session::contexts::HTTP, session::contexts::STREAM, UPSTREAM, STREAM_UPSTREAM],
    read::flag,
)
.takes(Arity::Flag)
.default("off")
.syntax("upstream_start_unresolved on | off;")
.text(
    "Whether the program starts although the name of a server is unknown. It then says so as a \
     warning, and looks the name up while it runs, as if the line said `resolve`; that needs a \
     `zone` and a `resolver`. Otherwise an unknown name stops the start.",
)
.example("upstream_start_unresolved on;");

/// A state for all workers.
pub static ZONE: Directive<ZoneLine> = Directive::new("zone", BLOCKS, zone)
    .takes(Arity::Between(1, 2))
    .repeats(config::Repeat::Last)
    .syntax("zone NAME [SIZE];")
    .text(
        "Keeps the state of the group in memory that all workers share: they take turns together, \
         a failure that one sees counts for all, and `max_conns` bounds the requests of all. \
         Several groups may name the same zone; the size stands in one of them. At least eight \
         pages of memory must be asked for: there is room for about one server in each kilobyte, \
         and for at least 64; what is really used depends on the number of servers. The zone \
         outlives a reload: servers with the same name and address keep their loads, failures and \
         statistics. A size in another order of magnitude starts afresh.",
    )
    .example("upstream backend { zone backend 64k; server 127.0.0.1:8081 max_conns=100; }");

/// How many connections stay open.
pub static KEEPALIVE: Directive<Kept> = Directive::new("keepalive", &[UPSTREAM], keepalive)
    .takes(Arity::Between(1, 2))
    .default("32 local")
    .syntax("keepalive CONNECTIONS [local];")
    .text(
        "How many idle connections to the servers of the group each worker keeps for further \
         requests; 0 keeps none. The longest unused one is closed when there are more. After \
         more than CONNECTIONS requests were under way at once, as many connections may stay for \
         up to two seconds, so that a burst does not have to open them again. With `local` a \
         location uses only the connections that it opened itself.",
    )
    .example("upstream backend { server 127.0.0.1:8081; keepalive 64; }");

/// Requests per connection.
pub static KEEPALIVE_REQUESTS: Directive<u64> =
    Directive::new("keepalive_requests", &[UPSTREAM], read::number)
        .default("1000")
        .syntax("keepalive_requests NUMBER;")
        .text("After so many requests a connection to a server is closed.")
        .example("upstream backend { server 127.0.0.1:8081; keepalive_requests 10000; }");

/// Age of a connection.
pub static KEEPALIVE_TIME: Directive<u64> =
    Directive::new("keepalive_time", &[UPSTREAM], read::time_ms)
        .default("1h")
        .syntax("keepalive_time TIME;")
        .text("A connection older than this is closed after the request that it serves.")
        .example("upstream backend { server 127.0.0.1:8081; keepalive_time 10m; }");

/// Idle time of a connection.
pub static KEEPALIVE_TIMEOUT: Directive<u64> =
    Directive::new("keepalive_timeout", &[UPSTREAM], read::time_ms)
        .default("60s")
        .syntax("keepalive_timeout TIME;")
        .text("How long a connection to a server stays open without a request.")
        .example("upstream backend { server 127.0.0.1:8081; keepalive_timeout 20s; }");

fn server(args: &Args<'_>) -> Result<Server, Invalid> {
    let mut options = PeerOptions::default();
    let mut backup = false;
    let mut route = None;
    let mut resolve = false;
    let mut service: Option<String> = None;
    for (i, word) in args.words().iter().enumerate().skip(1) {
        let refused = || Invalid::new(format!("invalid parameter \"{}\"", word.str())).at(i);
        let (key, value) = match word.bytes().iter().position(|&byte| byte == b'=') {
            Some(at) => word.bytes().split_at(at + 1),
            None => (word.bytes(), &b""[..]),
        };
        let number = || read::parse_number(value).and_then(|n| u32::try_from(n).ok());
        match key {
            b"weight=" => {
                options.weight = number().filter(|&weight| weight > 0).ok_or_else(refused)?;
            }
            b"max_conns=" => options.max_conns = number().ok_or_else(refused)?,
            b"max_fails=" => options.max_fails = number().ok_or_else(refused)?,
            b"fail_timeout=" => {
                let seconds = read::parse_time_s(value).ok_or_else(refused)?;
                options.fail_timeout = u32::try_from(seconds).unwrap_or(u32::MAX);
            }
            b"slow_start=" => {
                let ms = read::parse_time_ms(value).ok_or_else(refused)?;
                options.slow_start_ms = u32::try_from(ms).unwrap_or(u32::MAX);
            }
            b"backup" => backup = true,
            b"down" => (options.down, options.drain) = (true, false),
            b"drain" => (options.down, options.drain) = (false, true),
            b"on_marked_down=" if value == marks::DOWN_WORD => options.ends_when_down = true,
            b"on_marked_up=" if value == marks::UP_WORD => options.ends_backups_when_up = true,
            b"resolve" => resolve = true,
            b"service=" if value.is_empty() => return Err(Invalid::new("service is empty").at(i)),
            b"service=" => service = Some(String::from_utf8_lossy(value).into_owned()),
            b"route=" => route = Some(read_route(value).map_err(|error| error.at(i))?),
            _ => return Err(refused()),
        }
    }
    let text = args.str(0).into_owned();
    let target = Target::parse(&text)
        .map_err(|error| Invalid::new(format!("{error} in upstream \"{text}\"")).at(0))?;
    // An address needs no looking up.
    let resolve = resolve && (matches!(target.host, Host::Name(_)) || service.is_some());
    if service.is_some() {
        let reason = match (resolve, target.port, &target.host) {
            (false, ..) => Some("requires \"resolve\" parameter"),
            (_, Some(_), _) => Some("may not have port"),
            (_, None, Host::Name(_)) => None,
            _ => Some("requires domain name"),
        };
        if let Some(reason) = reason {
            return Err(Invalid::new(format!("service upstream \"{text}\" {reason}")).at(0));
        }
    }
    Ok(Server { text, target, options, backup, route, resolve, service })
}

/// nginx's longest route is as long as the hash of an address.
const ROUTE_MAX: usize = 32;

fn read_route(value: &[u8]) -> Result<Box<str>, Invalid> {
    match value.len() {
        0 => Err(Invalid::new("route is empty")),
        1..=ROUTE_MAX => Ok(String::from_utf8_lossy(value).into()),
        _ => Err(Invalid::new(format!("route is longer than {ROUTE_MAX}"))),
    }
}

fn zone(args: &Args<'_>) -> Result<ZoneLine, Invalid> {
    let name = args.str(0).into_owned();
    if name.is_empty() {
        return Err(Invalid::new("invalid zone name \"\"").at(0));
    }
    if args.len() == 1 {
        return Ok(ZoneLine { name, size: None });
    }
    let refused = || Invalid::new(format!("invalid zone size \"{}\"", args.str(1))).at(1);
    let size = read::parse_size(args.word(1).bytes()).ok_or_else(refused)?;
    if size < 8 * rustix::param::page_size() as u64 {
        return Err(Invalid::new(format!("zone \"{name}\" is too small")).at(1));
    }
    Ok(ZoneLine { name, size: Some(size) })
}

fn keepalive(args: &Args<'_>) -> Result<Kept, Invalid> {
    let connections = read::parse_number(args.word(0).bytes()).ok_or_else(|| {
        let message = format!("invalid value \"{}\" in \"{}\" directive", args.str(0), args.name());
        Invalid::new(message).at(0)
    })?;
    if args.len() == 2 && args.word(1).bytes() != b"local" {
        return Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(1))).at(1));
    }
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    Ok(Kept { connections, local: args.len() == 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &str, expected: Result<(PeerOptions, bool), &str>) {
        let found = SERVER.read_text(arguments).map(|server| (server.options, server.backup));
        let found = found.map_err(|invalid| invalid.message);
        assert_eq!(found, expected.map_err(str::to_owned), "{arguments}");
    }

    #[test]
    fn servers() {
        let plain = PeerOptions::default();
        check("127.0.0.1", Ok((plain, false)));
        check("a backup down", Ok((PeerOptions { down: true, ..plain }, true)));
        let all = PeerOptions {
            weight: 5,
            max_fails: 0,
            fail_timeout: 90,
            max_conns: 7,
            ..PeerOptions::default()
        };
        check("a weight=5 max_fails=0 fail_timeout=1m30s max_conns=7", Ok((all, false)));
        for word in [
            "weight=0",
            "weight=x",
            "weight=",
            "weight=5000000000",
            "max_fails=-1",
            "max_conns=k",
            "on_marked_down=on",
            "on_marked_up=shutdown_sessions",
            "fail_timeout=10ms",
            "backup=1",
            "bogus",
            "=",
        ] {
            let message = format!("invalid parameter \"{word}\"");
            check(&format!("a {word}"), Err(&message));
        }
        check("a:0", Err("invalid port in upstream \"a:0\""));
        check("unix:", Err("no path in the unix domain socket in upstream \"unix:\""));
    }

    #[test]
    fn keepalives() {
        let check = |arguments: &str, expected: Result<(u32, bool), &str>| {
            let found = KEEPALIVE.read_text(arguments).map(|kept| (kept.connections, kept.local));
            let found = found.map_err(|invalid| invalid.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{arguments}");
        };
        check("0", Ok((0, false)));
        check("16", Ok((16, false)));
        check("16 local", Ok((16, true)));
        check("x", Err("invalid value \"x\" in \"keepalive\" directive"));
        check("16 remote", Err("invalid parameter \"remote\""));
        let default = KEEPALIVE.default_value().map(|kept| (kept.connections, kept.local));
        assert_eq!(default, Some((32, true)));
    }
}
