//! Names looked up while requests wait: a DNS client with a cache, on the worker's own loop.
//!
//! ```text
//!   host("a")        cached and valid ──────────────────────────► addresses
//!      │
//!      └ a flight for ("a", Host), shared by all who wait ─► query.rs asks ─► cache, wake all
//!            alias? the same again for what it stands for
//! ```
//!
//! What is asked at once is asked once. A flight ends when it has an answer, or at the next time
//! to ask again when nobody waits any more. Timing and rotation over the servers are nginx's:
//! a question is asked again after five seconds, of the next server. Beyond nginx, a server that
//! refuses is left at once for the next one, and absence is remembered when the answer carries
//! the zone's SOA (RFC 2308).
//!
//! Against forged answers (RFC 5452): each flight has a socket and a port of its own, connected
//! to the server, random numbers from the kernel, and only what repeats the question counts.

mod query;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use system::driver::{Timer, now, spawn};
use wire::dns;

/// Aliases that one look-up follows (nginx's number).
const ALIASES: usize = 50;
/// Names that are remembered.
const NAMES: usize = 10_000;
/// Questions under way at a time; one more is refused.
const FLIGHTS: usize = 1_024;
/// What nobody asked for so long is forgotten.
const FORGET_MS: u64 = 30_000;
/// For how long a failure counts where nothing says it, in milliseconds.
const FAILURE_MS: u64 = 10_000;
/// The longest time for which absence is remembered.
const NEGATIVE_MAX_S: u32 = 300;

/// The response code for a name that does not exist.
pub const NOT_FOUND: u8 = 3;
/// The code for an answer that did not come in time.
pub const TIMED_OUT: u8 = 110;
/// The code for a server that failed; also ours, when too much is under way.
const SERVER_FAILURE: u8 = 2;

/// Who is asked, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The servers, at least one.
    pub servers: Vec<SocketAddr>,
    /// For how long answers hold, in milliseconds, whatever they say themselves.
    pub valid_ms: Option<u64>,
    /// Ask for IPv4 addresses.
    pub ipv4: bool,
    /// Ask for IPv6 addresses.
    pub ipv6: bool,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// At least one. Those of a remembered answer begin at any of them.
    pub addresses: Vec<IpAddr>,
    /// Until when they hold, in milliseconds of the loop's clock.
    pub valid_until_ms: u64,
}

/// A host that offers a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHost {
    /// What the service says of it; a weight of 0 counts as 1.
    pub service: dns::Service,
    /// Its addresses, or the code of why there are none.
    pub addresses: Result<Vec<IpAddr>, u8>,
}

/// The hosts of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// By priority; at least one of them has an address.
    pub hosts: Vec<ServiceHost>,
    /// Until when they hold, in milliseconds of the loop's clock.
    pub valid_until_ms: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A response code, or [`TIMED_OUT`].
    pub code: u8,
    /// Until when there is no point in asking again, in milliseconds of the loop's clock.
    pub valid_until_ms: u64,
    /// For a service: its hosts, none of which has an address.
    pub hosts: Vec<ServiceHost>,
}

impl fmt::Display for Failure {
    /// nginx's words, without parentheses: `3: Host not found`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, dns::code_text(self.code))
    }
}

/// Counts since the start, for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names, services and addresses asked for, whether remembered or not.
    pub requests: [u64; 3],
    /// Look-ups that ended well.
    pub noerror: u64,
    /// By response code 1 to 5.
    pub codes: [u64; 5],
    /// Look-ups without an answer in time.
    pub timed_out: u64,
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A name, a service or an address was asked for: 0 to 2.
    Asked(usize),
    /// A look-up ended well.
    Found,
    /// A look-up ended with a response code, or [`TIMED_OUT`].
    Failed(u8),
}

/// Who is told of each event.
pub type Observer = Box<dyn Fn(Event)>;

/// Where a resolver tells of what goes wrong with servers and answers.
pub type Complaints = Box<dyn Fn(fmt::Arguments<'_>)>;

/// A DNS client. Made while compiling; opens nothing before the first question.
pub struct Resolver {
    settings: Settings,
    complaints: Complaints,
    observer: Option<Observer>,
    entries: RefCell<HashMap<Key, Entry>>,
    flights: Cell<usize>,
    /// The server that is asked next.
    next_server: Cell<usize>,
    swept_ms: Cell<u64>,
    counts: Cell<Counts>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    Host,
    Service,
    Name,
}

type Key = (Wanted, Rc<str>);

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    Addresses(Vec<Ipv4Addr>, Vec<Ipv6Addr>),
    Alias(String),
    Services(Vec<dns::Service>),
    Name(String),
}

/// The end of a flight: what was found or the code, and until when it holds.
type Landed = (Result<Rc<Data>, u8>, u64);

enum Entry {
    Known { landed: Landed, used_ms: u64 },
    Flying(Rc<Flight>),
}

/// A question under way.
#[derive(Default)]
struct Flight {
    landed: RefCell<Option<Landed>>,
    wakers: RefCell<Vec<Waker>>,
    waiting: Cell<usize>,
}

/// One who waits for a flight.
struct Passenger(Rc<Flight>);

impl Passenger {
    fn new(flight: Rc<Flight>) -> Passenger {
        flight.waiting.set(flight.waiting.get() + 1);
        Passenger(flight)
    }
}

impl Drop for Passenger {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// Whether an answer was there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Memory,
    Server,
}

impl Resolver {
    /// A resolver that has asked nothing yet.
    pub fn new(settings: Settings, complaints: Complaints) -> Rc<Resolver> {
        Resolver::observed(settings, complaints, None)
    }

    /// As [`Resolver::new`], and `observer` is told of what it does.
    pub fn observed(
        settings: Settings,
        complaints: Complaints,
        observer: Option<Observer>,
    ) -> Rc<Resolver> {
        Rc::new(Resolver {
            settings,
            complaints,
            observer,
            entries: RefCell::default(),
            flights: Cell::new(0),
            next_server: Cell::new(0),
            swept_ms: Cell::new(0),
            counts: Cell::default(),
        })
    }

    /// What it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What this worker asked so far.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// The addresses of a name, within `timeout_ms`.
    ///
    /// # Errors
    /// [`NOT_FOUND`] also when the name cannot be one.
    pub async fn host(self: &Rc<Self>, name: &str, timeout_ms: u64) -> Result<Hosts, Failure> {
        self.count(Event::Asked(0));
        let found = self.find_host(name, timeout_ms).await;
        self.count_end(found.as_ref().err());
        found
    }

    /// The hosts of a service at `name`, within `timeout_ms` for the service and for each host.
    /// A service without a dot is one over TCP: `http` is asked for as `_http._tcp`.
    ///
    /// # Errors
    /// Why the service, or any of its hosts, is not found.
    pub async fn service(
        self: &Rc<Self>,
        service: &str,
        name: &str,
        timeout_ms: u64,
    ) -> Result<Services, Failure> {
        self.count(Event::Asked(1));
        let found = self.find_service(service, name, timeout_ms).await;
        self.count_end(found.as_ref().err());
        found
    }

    /// The name of an address, within `timeout_ms`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn name_of(
        self: &Rc<Self>,
        address: IpAddr,
        timeout_ms: u64,
    ) -> Result<String, Failure> {
        self.count(Event::Asked(2));
        let name = dns::reverse_name(address);
        let found = match self.follow(Wanted::Name, name, timeout_ms).await {
            Ok((data, _, _)) => match &*data {
                Data::Name(name) => Ok(name.clone()),
                _ => Err(self.failure(NOT_FOUND)),
            },
            Err(failure) => Err(failure),
        };
        self.count_end(found.as_ref().err());
        found
    }

    async fn find_host(self: &Rc<Self>, name: &str, timeout_ms: u64) -> Result<Hosts, Failure> {
        let (data, valid_until_ms, source) =
            self.follow(Wanted::Host, plain(name), timeout_ms).await?;
        let Data::Addresses(v4, v6) = &*data else { return Err(self.failure(NOT_FOUND)) };
        let turn = match source {
            Source::Memory => u64::from(random()),
            Source::Server => 0,
        };
        Ok(Hosts { addresses: rotated(v4, v6, turn as usize), valid_until_ms })
    }

    async fn find_service(
        self: &Rc<Self>,
        service: &str,
        name: &str,
        timeout_ms: u64,
    ) -> Result<Services, Failure> {
        let name = plain(name);
        let asked = match service.contains('.') {
            true => format!("{}.{name}", plain(service)),
            false => format!("_{}._tcp.{name}", plain(service)),
        };
        let (data, mut valid_until_ms, _) = self.follow(Wanted::Service, asked, timeout_ms).await?;
        let Data::Services(services) = &*data else { return Err(self.failure(NOT_FOUND)) };
        let look_ups = services.iter().map(|service| {
            let found = self.find_host(&service.host, timeout_ms);
            Box::pin(found) as Pin<Box<dyn Future<Output = Result<Hosts, Failure>> + '_>>
        });
        let found: Vec<Result<Hosts, Failure>> = all(look_ups.collect()).await;
        let mut hosts = Vec::with_capacity(found.len());
        for (service, found) in services.iter().zip(found) {
            if let Ok(found) = &found {
                valid_until_ms = valid_until_ms.min(found.valid_until_ms);
            }
            let addresses = found.map(|found| found.addresses).map_err(|failure| failure.code);
            hosts.push(ServiceHost { service: service.clone(), addresses });
        }
        if hosts.iter().any(|host| host.addresses.is_ok()) {
            return Ok(Services { hosts, valid_until_ms });
        }
        let codes: Vec<u8> =
            hosts.iter().filter_map(|h| h.addresses.as_ref().err()).copied().collect();
        let absent = codes.contains(&NOT_FOUND) || codes.is_empty();
        let code = if absent { NOT_FOUND } else { codes[0] };
        Err(Failure { hosts, ..self.failure(code) })
    }

    /// What is known of a name, or of what it is an alias of.
    async fn follow(
        self: &Rc<Self>,
        wanted: Wanted,
        mut name: String,
        timeout_ms: u64,
    ) -> Result<(Rc<Data>, u64, Source), Failure> {
        let timer = Timer::new();
        timer.set(now().saturating_add(timeout_ms));
        for _ in 0..=ALIASES {
            let (data, until, source) = self.look_up((wanted, name.into()), &timer).await?;
            match &*data {
                Data::Alias(next) => name = next.clone(),
                _ => return Ok((data, until, source)),
            }
        }
        Err(self.failure(NOT_FOUND))
    }

    async fn look_up(
        self: &Rc<Self>,
        key: Key,
        timer: &Timer,
    ) -> Result<(Rc<Data>, u64, Source), Failure> {
        let flight = match self.known(&key) {
            Some(Ok(landed)) => return self.passed_on(landed, Source::Memory),
            Some(Err(flight)) => flight,
            None => self.take_off(key)?,
        };
        let passenger = Passenger::new(flight);
        let landed = poll_fn(|cx| {
            if let Some(landed) = &*passenger.0.landed.borrow() {
                return Poll::Ready(Some(landed.clone()));
            }
            let mut wakers = passenger.0.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            timer.poll_expired(cx).map(|()| None)
        })
        .await;
        match landed {
            Some(landed) => self.passed_on(landed, Source::Server),
            None => Err(self.failure(TIMED_OUT)),
        }
    }

    fn passed_on(
        &self,
        (outcome, until): Landed,
        source: Source,
    ) -> Result<(Rc<Data>, u64, Source), Failure> {
        match outcome {
            Ok(data) => Ok((data, until, source)),
            Err(code) => Err(Failure { valid_until_ms: until, ..self.failure(code) }),
        }
    }

    /// What is remembered and still holds, or the flight that is under way.
    fn known(&self, key: &Key) -> Option<Result<Landed, Rc<Flight>>> {
        let now_ms = now();
        match self.entries.borrow_mut().get_mut(key)? {
            Entry::Known { landed, used_ms } if landed.1 > now_ms => {
                *used_ms = now_ms;
                Some(Ok(landed.clone()))
            }
            Entry::Known { .. } => None,
            Entry::Flying(flight) => Some(Err(flight.clone())),
        }
    }

    fn take_off(self: &Rc<Self>, key: Key) -> Result<Rc<Flight>, Failure> {
        if self.flights.get() >= FLIGHTS {
            return Err(self.failure(SERVER_FAILURE));
        }
        let Some(query) = query::Query::new(self, key.0, &key.1) else {
            return Err(self.failure(NOT_FOUND));
        };
        self.sweep();
        let flight = Rc::new(Flight::default());
        self.entries.borrow_mut().insert(key.clone(), Entry::Flying(flight.clone()));
        self.flights.set(self.flights.get() + 1);
        let (resolver, flying) = (self.clone(), flight.clone());
        spawn(async move {
            let landed = query.run(&resolver, || flying.waiting.get() > 0).await;
            resolver.flights.set(resolver.flights.get() - 1);
            resolver.land(key, &flying, landed);
        });
        Ok(flight)
    }

    /// A flight is over. `None` when nobody waited for it any more.
    fn land(&self, key: Key, flight: &Flight, found: Option<query::Found>) {
        let now_ms = now();
        let Some(found) = found else {
            self.entries.borrow_mut().remove(&key);
            return;
        };
        let (outcome, holds_s) = match found {
            Ok((data, ttl_s)) => (Ok(Rc::new(data)), Some(ttl_s)),
            Err((code, negative_s)) => (Err(code), negative_s.map(|s| s.min(NEGATIVE_MAX_S))),
        };
        let own_ms = holds_s.map(|s| u64::from(s) * 1000);
        let until = match own_ms {
            Some(own_ms) => now_ms.saturating_add(self.settings.valid_ms.unwrap_or(own_ms)),
            None => self.failure(0).valid_until_ms,
        };
        let landed = (outcome, until);
        let mut entries = self.entries.borrow_mut();
        // A failure that nothing vouches for is not remembered.
        if own_ms.is_some() && entries.len() <= NAMES {
            entries.insert(key, Entry::Known { landed: landed.clone(), used_ms: now_ms });
        } else {
            entries.remove(&key);
        }
        *flight.landed.borrow_mut() = Some(landed);
        flight.wakers.take().into_iter().for_each(Waker::wake);
    }

    /// Forgets, once in a while, what nobody asked for.
    fn sweep(&self) {
        let now_ms = now();
        let full = self.entries.borrow().len() >= NAMES;
        let pause_ms = if full { 1_000 } else { FORGET_MS };
        if now_ms.saturating_sub(self.swept_ms.get()) < pause_ms {
            return;
        }
        self.swept_ms.set(now_ms);
        self.entries.borrow_mut().retain(|_, entry| match entry {
            Entry::Flying(_) => true,
            Entry::Known { landed, used_ms } => {
                landed.1 > now_ms && (full || now_ms.saturating_sub(*used_ms) < FORGET_MS)
            }
        });
    }

    fn failure(&self, code: u8) -> Failure {
        let holds_ms = self.settings.valid_ms.unwrap_or(FAILURE_MS);
        Failure { code, valid_until_ms: now().saturating_add(holds_ms), hosts: Vec::new() }
    }

    fn count(&self, event: Event) {
        let mut counts = self.counts.get();
        match event {
            Event::Asked(what) => counts.requests[what] += 1,
            Event::Found => counts.noerror += 1,
            Event::Failed(code @ 1..=5) => counts.codes[usize::from(code) - 1] += 1,
            Event::Failed(_) => counts.timed_out += 1,
        }
        self.counts.set(counts);
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    fn count_end(&self, failure: Option<&Failure>) {
        self.count(match failure {
            None => Event::Found,
            Some(failure) => Event::Failed(failure.code),
        });
    }

    fn complain(&self, message: fmt::Arguments<'_>) {
        (self.complaints)(message);
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Resolver").field("settings", &self.settings).finish()
    }
}

/// A name as it is remembered: in lower case, without a final dot.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// All addresses of both families, each family from a place of its own and the whole from one
/// that `turn` says, so that clients of a remembered answer do not all begin with the same one.
fn rotated(v4: &[Ipv4Addr], v6: &[Ipv6Addr], turn: usize) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::with_capacity(v4.len() + v6.len());
    all.extend(v4.iter().map(|v4| IpAddr::from(*v4)));
    all.extend(v6.iter().map(|v6| IpAddr::from(*v6)));
    let (first, second) = all.split_at_mut(v4.len());
    for family in [first, second] {
        if !family.is_empty() {
            family.rotate_left((turn >> 8) % family.len());
        }
    }
    if !all.is_empty() {
        let by = turn % all.len();
        all.rotate_left(by);
    }
    all
}

/// Sixteen bits from the kernel: who could guess the next one could forge answers.
fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without the kernel's randomness the ports, which it draws too, are all there is.
    let _ = system::process::random(&mut bytes);
    u16::from_ne_bytes(bytes)
}

/// The outputs of all futures, which run at once.
async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(found) = future.as_mut().poll(cx)
            {
                *output = Some(found);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
