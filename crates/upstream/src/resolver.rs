//! Names that are looked up while the program runs: `resolver` and `resolver_timeout`, and the
//! groups made of what is found.
//!
//! The DNS client itself is `net::resolver`. All who see the same `resolver` line share one, so
//! that they share what it remembers.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, Span, read};
use net::resolver::{Event, Hosts, Observer, Settings, TIMED_OUT};
use session::contexts::{HTTP, LOCATION, SERVER, STREAM, STREAM_SERVER, STREAM_UPSTREAM, UPSTREAM};
use session::counters;
use session::log::{Level, Log, no_context};
use system::socket::Address;

use crate::compile::implied;
use crate::group::Group;
use crate::target::{Host, Names, Target};

pub use net::resolver::{Failure, Resolver};

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&RESOLVER, &RESOLVER_TIMEOUT];

/// Where names may be needed.
const PLACES: &[Context] =
    &[HTTP, SERVER, LOCATION, UPSTREAM, STREAM, STREAM_SERVER, STREAM_UPSTREAM];

/// The port of a name server.
const PORT: u16 = 53;

/// `resolver`.
pub static RESOLVER: Directive<Servers> = Directive::new("resolver", PLACES, servers)
    .takes(Arity::AtLeast(1))
    .syntax("resolver ADDRESS... [valid=TIME] [ipv4=on|off] [ipv6=on|off] [status_zone=NAME];")
    .text(
        "The DNS servers that are asked for names which become known only while the program \
         runs: those in a `proxy_pass` with variables, and servers of a group marked `resolve`. \
         Each is `HOST`, `HOST:PORT` or `[V6]:PORT`; the port is 53 unless given. Questions go to \
         the servers in turn, over UDP, and over TCP when an answer does not fit; a server that \
         is silent for five seconds is left for the next one. Give servers of a network that you \
         trust: who can forge their answers chooses where requests go.\n\n\
         - `valid=TIME`: for how long answers hold, instead of what they say themselves.\n\
         - `ipv4=off`, `ipv6=off`: do not ask for addresses of that kind.\n\
         - `status_zone=NAME`: count what is asked and answered, for `resolvers` of the `api`.",
    )
    .example("resolver 127.0.0.53 [::1]:5353 valid=30s ipv6=off;");

/// `resolver_timeout`.
pub static RESOLVER_TIMEOUT: Directive<u64> =
    Directive::new("resolver_timeout", PLACES, read::time_ms)
        .default("30s")
        .syntax("resolver_timeout TIME;")
        .text("How long a request waits for a name at most.")
        .example("resolver_timeout 5s;");

/// What `resolver` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    servers: Vec<(String, Target)>,
    valid_ms: Option<u64>,
    ipv4: bool,
    ipv6: bool,
    status_zone: Option<String>,
}

/// How names are looked up at one place of the configuration.
#[derive(Clone)]
pub struct LookUp {
    /// The nearest resolver; `None` when there is none.
    pub resolver: Option<Rc<Resolver>>,
    /// How long a request waits, in milliseconds.
    pub timeout_ms: u64,
}

/// The resolvers of a configuration, by the place of their lines.
#[derive(Clone, Default)]
pub struct Resolvers(Rc<RefCell<Known>>);

#[derive(Default)]
struct Known {
    resolvers: HashMap<Span, Rc<Resolver>>,
    status_zones: BTreeSet<String>,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// No `resolver` is in force.
    NoResolver(String),
    /// The look-up failed.
    Failed(String, Failure),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unresolved::NoResolver(name) => {
                write!(out, "no resolver defined to resolve {name}")
            }
            Unresolved::Failed(name, failure) => {
                write!(out, "{name} could not be resolved ({failure})")
            }
        }
    }
}

impl Resolvers {
    /// What is in force in a block. Faults go to the scope.
    pub fn look_up(&self, scope: &Scope<'_>, names: &dyn Names) -> LookUp {
        let timeout_ms = scope.get(&RESOLVER_TIMEOUT);
        let Some((line, span)) = scope.find_spanned(&RESOLVER) else {
            return LookUp { resolver: None, timeout_ms };
        };
        if let Some(resolver) = self.0.borrow().resolvers.get(&span) {
            return LookUp { resolver: Some(resolver.clone()), timeout_ms };
        }
        let resolver = compile(scope, &line, span, names);
        let mut known = self.0.borrow_mut();
        known.status_zones.extend(line.status_zone.clone());
        known.resolvers.insert(span, resolver.clone());
        LookUp { resolver: Some(resolver), timeout_ms }
    }

    /// The names under which resolvers are counted, and their counts, in the order of [`EVENTS`].
    pub fn counts(&self) -> Vec<(String, [u64; EVENTS.len()])> {
        let known = self.0.borrow();
        let count = |name: &String| {
            let cells = counted(name);
            let read = |at: usize| cells.map_or(0, |cells| cells[at].load(Ordering::Relaxed));
            (name.clone(), std::array::from_fn(read))
        };
        known.status_zones.iter().map(count).collect()
    }
}

/// What is counted: whether it is a request or a response, and its name.
pub static EVENTS: [(&str, &str); 11] = [
    ("requests", "name"),
    ("requests", "srv"),
    ("requests", "addr"),
    ("responses", "noerror"),
    ("responses", "formerr"),
    ("responses", "servfail"),
    ("responses", "nxdomain"),
    ("responses", "notimp"),
    ("responses", "refused"),
    ("responses", "timedout"),
    ("responses", "unknown"),
];

/// The place of an event in [`EVENTS`].
fn place(event: Event) -> usize {
    match event {
        Event::Asked(what) => what.min(2),
        Event::Found => 3,
        Event::Failed(code @ 1..=5) => 3 + usize::from(code),
        Event::Failed(TIMED_OUT) => 9,
        Event::Failed(_) => 10,
    }
}

fn counted(name: &str) -> Option<&'static [AtomicU64; counters::COUNTS]> {
    counters::named(&format!("resolver {name}"))
}

impl LookUp {
    /// A group of the addresses that `name` has now, each with `port`. Its state is fresh: the
    /// first address is the first to be asked.
    ///
    /// # Errors
    /// What to log; the request is answered with 502.
    pub async fn group(&self, name: &str, port: u16) -> Result<Rc<Group>, Unresolved> {
        let Some(resolver) = &self.resolver else {
            return Err(Unresolved::NoResolver(name.to_owned()));
        };
        let found = resolver.host(name, self.timeout_ms).await;
        let found = found.map_err(|failure| Unresolved::Failed(name.to_owned(), failure))?;
        Ok(implied(name, addresses(&found, port)))
    }
}

fn addresses(found: &Hosts, port: u16) -> Vec<Address> {
    found.addresses.iter().map(|ip| Address::Inet((*ip, port).into())).collect()
}

fn compile(scope: &Scope<'_>, line: &Servers, span: Span, names: &dyn Names) -> Rc<Resolver> {
    let mut servers = Vec::new();
    for (text, target) in &line.servers {
        match target.resolve(names, PORT) {
            Ok(found) => servers.extend(found.into_iter().filter_map(|address| match address {
                Address::Inet(address) => Some(address),
                Address::Unix(_) => None,
            })),
            Err(reason) => scope.error(span, format!("{reason} in resolver \"{text}\"")),
        }
    }
    let settings = Settings { servers, valid_ms: line.valid_ms, ipv4: line.ipv4, ipv6: line.ipv6 };
    let complaints = |message: fmt::Arguments<'_>| {
        Log::process().write(Level::Error, None, message, &no_context);
    };
    let observer = line.status_zone.clone().map(|name| {
        let counts = OnceCell::new();
        Box::new(move |event| {
            if let Some(counts) = *counts.get_or_init(|| counted(&name)) {
                counts[place(event)].fetch_add(1, Ordering::Relaxed);
            }
        }) as Observer
    });
    Resolver::observed(settings, Box::new(complaints), observer)
}

fn servers(args: &Args<'_>) -> Result<Servers, Invalid> {
    let mut found =
        Servers { servers: Vec::new(), valid_ms: None, ipv4: true, ipv6: true, status_zone: None };
    for i in 0..args.len() {
        let text = args.str(i).into_owned();
        let refused = || Invalid::new(format!("invalid parameter: {text}")).at(i);
        let family = |value: &str| match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(refused()),
        };
        match text.split_once('=') {
            Some(("valid", time)) => {
                let seconds = read::parse_time_s(time.as_bytes()).ok_or_else(refused)?;
                // nginx takes `valid=0` for none.
                found.valid_ms = Some(seconds.saturating_mul(1000)).filter(|ms| *ms > 0);
            }
            Some(("ipv4", value)) => found.ipv4 = family(value)?,
            Some(("ipv6", value)) => found.ipv6 = family(value)?,
            Some(("status_zone", "")) => return Err(refused()),
            Some(("status_zone", name)) => found.status_zone = Some(name.to_owned()),
            _ => {
                let target = match Target::parse(&text) {
                    Ok(Target { host: Host::Unix(_), .. }) => Err("invalid host"),
                    parsed => parsed,
                };
                let target = target.map_err(|reason| {
                    Invalid::new(format!("{reason} in resolver \"{text}\"")).at(i)
                })?;
                found.servers.push((text, target));
            }
        }
    }
    if !found.ipv4 && !found.ipv6 {
        return Err(Invalid::new("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
    }
    if found.servers.is_empty() {
        return Err(Invalid::new("no name servers defined"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |line: &str, expected: Result<(usize, Option<u64>, bool, bool), &str>| {
            let found = RESOLVER.read_text(line);
            let found = found.map(|s| (s.servers.len(), s.valid_ms, s.ipv4, s.ipv6));
            assert_eq!(found.map_err(|i| i.message), expected.map_err(str::to_owned), "{line}");
        };
        check("127.0.0.1", Ok((1, None, true, true)));
        check(
            "127.0.0.1:5353 [::1] dns.example valid=1m ipv6=off",
            Ok((3, Some(60_000), true, false)),
        );
        check("127.0.0.1 valid=0 ipv4=off", Ok((1, None, false, true)));
        check("127.0.0.1 valid=x", Err("invalid parameter: valid=x"));
        check("127.0.0.1 ipv4=no", Err("invalid parameter: ipv4=no"));
        check("127.0.0.1 ipv4=off ipv6=off", Err("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
        check("valid=1s", Err("no name servers defined"));
        check("127.0.0.1:0", Err("invalid port in resolver \"127.0.0.1:0\""));
        check("unix:/x", Err("invalid host in resolver \"unix:/x\""));
    }

    #[test]
    fn failures_in_the_words_of_nginx() {
        let failure = Failure { code: 3, valid_until_ms: 0, hosts: Vec::new() };
        let failed = Unresolved::Failed("x.y".to_owned(), failure);
        assert_eq!(failed.to_string(), "x.y could not be resolved (3: Host not found)");
        let none = Unresolved::NoResolver("x.y".to_owned());
        assert_eq!(none.to_string(), "no resolver defined to resolve x.y");
    }
}
