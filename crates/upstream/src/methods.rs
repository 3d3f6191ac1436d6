//! The directives of an `upstream` block that choose the algorithm, as data.

use std::net::{IpAddr, SocketAddr};

use balance::haproxy::ring;
use balance::outlier::Rules;
use balance::{
    Key, Method, State, fair, first, hash, ip_hash, least_conn, least_time, maglev, random,
    rendezvous, sed, sh, wlc,
};
use config::{Args, Arity, Directive, Invalid, Repeat, Scope, Span, Template, read};
use session::contexts::{STREAM_UPSTREAM, UPSTREAM};

use crate::directives::SERVER;
use crate::guard::{Breaker, Budget, CIRCUIT_BREAKER, OUTLIER_DETECTION, RETRY_BUDGET};
use crate::haproxy::{self, BALANCE, Recipe, STREAM_BALANCE};
use crate::marks::Endings;
use crate::queue::QueueLine;

/// Those of which a block has one.
static METHODS: &[&Directive<Choice>] = &[
    &LEAST_CONN,
    &IP_HASH,
    &HASH,
    &RANDOM,
    &LEAST_TIME,
    &STREAM_LEAST_TIME,
    &FAIR,
    &LC,
    &WLC,
    &SED,
    &NQ,
    &FIRST,
    &SH,
    &DH,
    &BALANCE,
    &STREAM_BALANCE,
];

/// How a group chooses.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The algorithm.
    pub method: &'static Method,
    /// What requests are balanced by.
    pub key: KeySource,
    /// How `balance` makes a key of it.
    pub recipe: Option<Recipe>,
    /// See `hash_balance_factor`.
    pub factor: u32,
    /// See `queue`.
    pub queue: QueueLine,
    /// See `outlier_detection`.
    pub rules: Option<Rules>,
    /// See `retry_budget`.
    pub budget: Option<Budget>,
    /// See `circuit_breaker`.
    pub breaker: Breaker,
    /// Until when `least_time` measures.
    pub moment: Moment,
    /// See `on_marked_down` and `on_marked_up`.
    pub marks: Endings,
}

/// A moment of an answer that an algorithm can measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moment {
    /// The head of the answer is there; in a `stream` block the connection.
    #[default]
    Head,
    /// The first byte is there.
    FirstByte,
}

/// What requests are balanced by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// Nothing of their own.
    #[default]
    Nothing,
    /// The client's address, as nginx's `ip_hash` takes it.
    Client,
    /// The client's address, as IPVS takes it, and its port if that is said.
    Source {
        /// The port counts too.
        port: bool,
    },
    /// The address that the client came to, as IPVS takes it.
    Destination,
    /// A text with variables.
    Text(Template),
}

impl KeySource {
    /// The key, when it is made of addresses: `client` is the client's, `local` the one that it
    /// came to. One that is unknown counts as zeroes.
    pub fn of_addresses(
        &self,
        client: Option<SocketAddr>,
        local: impl FnOnce() -> Option<SocketAddr>,
    ) -> Key {
        match self {
            KeySource::Nothing | KeySource::Text(_) => Key::default(),
            KeySource::Client => match client {
                Some(SocketAddr::V4(address)) => Key::client(&address.ip().octets()[..3]),
                Some(SocketAddr::V6(address)) => Key::client(&address.ip().octets()),
                None => Key::client(&[0; 3]),
            },
            KeySource::Source { port } => folded(client, *port),
            KeySource::Destination => folded(local(), false),
        }
    }
}

fn folded(address: Option<SocketAddr>, with_port: bool) -> Key {
    let port = address.filter(|_| with_port).map_or(0, |address| address.port());
    match address.map(|address| address.ip()) {
        Some(IpAddr::V4(ip)) => Key::folded(&ip.octets(), port),
        Some(IpAddr::V6(ip)) => Key::folded(&ip.octets(), port),
        None => Key::folded(&[0; 4], 0),
    }
}

impl Choice {
    /// A choice without a key.
    pub const fn plain(method: &'static Method) -> Choice {
        let queue = QueueLine { most: 0, timeout_ms: 0 };
        Choice {
            method,
            key: KeySource::Nothing,
            recipe: None,
            factor: 0,
            queue,
            rules: None,
            budget: None,
            breaker: Breaker { max_requests: 0, max_retries: 0 },
            moment: Moment::Head,
            marks: Endings::NONE,
        }
    }

    /// The key in a text: what [`KeySource::Text`] came to.
    pub fn key_of_text(&self, text: &[u8]) -> Key {
        match &self.recipe {
            Some(recipe) => recipe.of_text(text),
            None => Key::text(text),
        }
    }

    /// The key that is made of addresses: see [`KeySource::of_addresses`].
    pub fn key_of_addresses(
        &self,
        client: Option<SocketAddr>,
        local: impl FnOnce() -> Option<SocketAddr>,
    ) -> Key {
        let key = self.key.of_addresses(client, local);
        match &self.recipe {
            Some(recipe) => recipe.of_address(key),
            None => key,
        }
    }

    /// Tells a state what it keeps to.
    pub(crate) fn apply(&self, state: &mut State<'_>) {
        state.set_factor(self.factor);
        state.set_rules(self.rules.unwrap_or_default());
        state.set_most_requests(self.breaker.max_requests);
    }
}

impl Default for Choice {
    /// Peers take turns.
    fn default() -> Choice {
        Choice::plain(&balance::round_robin::METHOD)
    }
}

/// Balancing by load.
pub static LEAST_CONN: Directive<Choice> =
    Directive::new("least_conn", BLOCKS, |_| Ok(Choice::plain(&least_conn::METHOD)))
        .takes(Arity::None)
        .repeats(Repeat::Last)
        .syntax("least_conn;")
        .text(
            "The next request goes to the server with the fewest requests under way, in \
             proportion to its weight; among equals, weighted round robin decides.",
        )
        .example("upstream backend { least_conn; server 127.0.0.1:8081; server 127.0.0.1:8082; }");

/// Balancing by the client's address.
pub static IP_HASH: Directive<Choice> = Directive::new("ip_hash", &[UPSTREAM], |_| {
    Ok(Choice { key: KeySource::Client, ..Choice::plain(&ip_hash::METHOD) })
})
.takes(Arity::None)
.repeats(Repeat::Last)
.syntax("ip_hash;")
.text(
    "Requests of one client go to one server: the first three octets of an IPv4 address, or the \
     whole of an IPv6 address, decide which. While that server cannot be used its clients are \
     spread over the others. A server that leaves for a while should be marked `down`, so that \
     the other clients stay where they are.",
)
.example("upstream backend { ip_hash; server 127.0.0.1:8081; server 127.0.0.1:8082 down; }");

/// Balancing by a key.
pub static HASH: Directive<Choice> = Directive::new("hash", BLOCKS, hash)
    .takes(Arity::Between(1, 2))
    .repeats(Repeat::Last)
    .syntax("hash KEY [consistent | maglev | rendezvous];")
    .text(
        "Requests with the same KEY, which may hold text and variables, go to the same server. \
         Requests with an empty key take turns.\n\n\
         - Without a further word the hash is taken by remainder: when a server is added or \
         removed, nearly all keys move. Compatible with Cache::Memcached.\n\
         - `consistent`: servers have many points on a ring (ketama); when one of N is removed, \
         about one key of N moves. Compatible with Cache::Memcached::Fast.\n\
         - `maglev`: servers share a large table, more evenly than a ring; besides the keys of the \
         removed server about five of a thousand others move.\n\
         - `rendezvous`: the highest bid wins; shares are exact, and only the keys of the removed \
         server move; about as many others besides when there are more than 512 servers.",
    )
    .example("upstream backend { hash $request_uri consistent; server 127.0.0.1:8081; }");

/// Balancing by chance.
pub static RANDOM: Directive<Choice> = Directive::new("random", BLOCKS, random)
    .takes(Arity::Between(0, 2))
    .repeats(Repeat::Last)
    .syntax("random [two [least_conn | least_time=header | least_time=last_byte]];")
    .text(
        "Chance decides, in proportion to the weights. With `two` two servers are drawn, and the \
         one with fewer requests under way is taken (`least_conn`, which holds unless said \
         otherwise), or the one that is expected to answer sooner (see `least_time`). Where \
         several balancers stand before the same servers this is better than `least_conn`, \
         since they do not all choose the same one.",
    )
    .example("upstream backend { random two; server 127.0.0.1:8081; server 127.0.0.1:8082; }");

/// Balancing by time.
pub static LEAST_TIME: Directive<Choice> = Directive::new("least_time", &[UPSTREAM], least_time)
    .takes(Arity::Between(1, 2))
    .repeats(Repeat::Last)
    .syntax("least_time header | last_byte [inflight];")
    .text(
        "The next request goes to the server that is expected to have answered first: by its \
         average time until the head (`header`) or the end (`last_byte`) of an answer, and the \
         requests that it has under way, in proportion to its weight. With `inflight` the time \
         that these have waited already counts too. Servers of about the same speed take turns. \
         Of more than 256 servers 32 are drawn for each request.",
    )
    .example("upstream backend { least_time header; server 127.0.0.1:8081; }");

/// Balancing by time, of sessions.
pub static STREAM_LEAST_TIME: Directive<Choice> =
    Directive::new("least_time", &[STREAM_UPSTREAM], stream_least_time)
        .takes(Arity::Between(1, 2))
        .syntax("least_time connect | first_byte | last_byte [inflight];")
        .text(
            "The next session goes to the server that is expected to be the quickest: by its \
             average time until the connection stands (`connect`), the first byte comes \
             (`first_byte`) or the session ends (`last_byte`), and the sessions that it has under \
             way, in proportion to its weight. With `inflight` the time that these have waited \
             already counts too. Servers of about the same speed take turns.",
        )
        .example("upstream backend { least_time connect; server 127.0.0.1:8081; }");

/// Balancing by time, to the millisecond.
pub static FAIR: Directive<Choice> = plain("fair", |_| Ok(Choice::plain(&fair::METHOD)))
    .syntax("fair;")
    .text(
        "The next request goes to the server that is expected to be done first, as with \
         `least_time last_byte inflight`, but by the millisecond: servers of about the same speed \
         do not take turns.",
    )
    .example("upstream backend { fair; server 127.0.0.1:8081; server 127.0.0.1:8082; }");

/// IPVS's `lc`.
pub static LC: Directive<Choice> = plain("lc", |_| Ok(Choice::plain(&wlc::LC)))
    .syntax("lc;")
    .text(
        "The next request goes to the server with the fewest requests under way, whatever its \
         weight; of equals to the first one, as IPVS does it.",
    )
    .example("upstream backend { lc; server 127.0.0.1:8081; server 127.0.0.1:8082; }");

/// IPVS's `wlc`.
pub static WLC: Directive<Choice> = plain("wlc", |_| Ok(Choice::plain(&wlc::METHOD)))
    .syntax("wlc;")
    .text(
        "The next request goes to the server with the fewest requests under way in proportion to \
         its weight; of equals to the first one, as IPVS does it. With `least_conn` equals take \
         turns.",
    )
    .example("upstream backend { wlc; server 127.0.0.1:8081 weight=2; server 127.0.0.1:8082; }");

/// IPVS's `sed`.
pub static SED: Directive<Choice> = plain("sed", |_| Ok(Choice::plain(&sed::METHOD)))
    .syntax("sed;")
    .text(
        "Shortest expected delay: the next request goes where the requests under way and the new \
         one are the fewest in proportion to the weight; of equals to the first one. A strong \
         server is preferred to an idle weak one.",
    )
    .example("upstream backend { sed; server 127.0.0.1:8081 weight=4; server 127.0.0.1:8082; }");

/// IPVS's `nq`.
pub static NQ: Directive<Choice> = plain("nq", |_| Ok(Choice::plain(&sed::NQ)))
    .syntax("nq;")
    .text(
        "Never queue: the next request goes to the first server that has none under way; if there \
         is none, as with `sed`.",
    )
    .example("upstream backend { nq; server 127.0.0.1:8081 weight=4; server 127.0.0.1:8082; }");

/// HAProxy's `first`.
pub static FIRST: Directive<Choice> = plain("first", |_| Ok(Choice::plain(&first::METHOD)))
    .syntax("first;")
    .text(
        "The next request goes to the first server that has fewer than its `max_conns` requests \
         under way: the last ones are left idle while they are not needed. At least one server \
         needs a `max_conns`.",
    )
    .example(
        "upstream backend {\n    first;\n    server 127.0.0.1:8081 max_conns=100;\n    \
         server 127.0.0.1:8082;\n}",
    );

/// IPVS's `sh`.
pub static SH: Directive<Choice> = Directive::new("sh", BLOCKS, |args| {
    let port = args.len() == 1;
    if port && args.word(0).bytes() != b"port" {
        return Err(invalid_parameter(args, 0));
    }
    Ok(Choice { key: KeySource::Source { port }, ..Choice::plain(&sh::METHOD) })
})
.takes(Arity::Between(0, 1))
.repeats(Repeat::Last)
.syntax("sh [port];")
.text(
    "Source hashing: requests of one client address, or with `port` of one address and port, go \
     to one server, by the table of 256 slots and the arithmetic of IPVS. While that server \
     cannot be used its clients go where the next slots of the table lead.",
)
.example("upstream backend { sh; server 127.0.0.1:8081 weight=2; server 127.0.0.1:8082; }");

/// IPVS's `dh`.
pub static DH: Directive<Choice> = plain("dh", |_| {
    Ok(Choice { key: KeySource::Destination, ..Choice::plain(&sh::DESTINATION) })
})
.syntax("dh;")
.text(
    "Destination hashing: the address that a client came to decides, by the table of 256 slots \
     and the arithmetic of IPVS; weights do not count. For servers of many addresses, such as \
     caches in front of them.",
)
.example("upstream backend { dh; server 127.0.0.1:8081; server 127.0.0.1:8082; }");

/// A method without arguments, of which the last one in a block holds.
const fn plain(
    name: &'static str,
    read: fn(&Args<'_>) -> Result<Choice, Invalid>,
) -> Directive<Choice> {
    Directive::new(name, BLOCKS, read).takes(Arity::None).repeats(Repeat::Last)
}

/// Bounded load.
pub static HASH_BALANCE_FACTOR: Directive<u64> =
    Directive::new("hash_balance_factor", BLOCKS, factor)
        .syntax("hash_balance_factor PERCENT;")
        .default("0")
        .text(
            "With `hash`, or `balance` and `hash_type consistent`, a server may have at most so \
             many percent of its share of all requests under way; keys beyond that go to the \
             next server of their order. 101 keeps all servers nearly equally busy, 150 lets \
             popular keys stay together. 0 sets no bound.",
        )
        .example("upstream backend { hash $uri consistent; hash_balance_factor 150; }");

/// A queue.
pub static QUEUE: Directive<QueueLine> = Directive::new("queue", &[UPSTREAM], queue)
    .takes(Arity::Between(1, 2))
    .syntax("queue NUMBER [timeout=TIME];")
    .text(
        "When all servers that could take a request are busy (`max_conns`), up to NUMBER requests \
         wait for one, in the order in which they came, for 60 seconds unless TIME says otherwise. \
         A request that cannot wait, or waited in vain, is answered with 502. When no server is \
         merely busy, but all are down, none waits. Workers wait apart; with a `zone` NUMBER \
         holds for all of them together.",
    )
    .example("upstream backend { server 127.0.0.1:8081 max_conns=10; queue 100 timeout=5s; }");

/// The blocks of both engines.
const BLOCKS: &[config::Context] = &[UPSTREAM, STREAM_UPSTREAM];

fn hash(args: &Args<'_>) -> Result<Choice, Invalid> {
    let key = KeySource::Text(read::template_at(args, 0)?);
    let method = match args.word(1).bytes() {
        _ if args.len() == 1 => &hash::METHOD,
        b"consistent" => &hash::CONSISTENT,
        b"maglev" => &maglev::METHOD,
        b"rendezvous" => &rendezvous::METHOD,
        _ => return Err(invalid_parameter(args, 1)),
    };
    Ok(Choice { key, ..Choice::plain(method) })
}

fn random(args: &Args<'_>) -> Result<Choice, Invalid> {
    if args.is_empty() {
        return Ok(Choice::plain(&random::METHOD));
    }
    if args.word(0).bytes() != b"two" {
        return Err(invalid_parameter(args, 0));
    }
    Ok(Choice::plain(match args.word(1).bytes() {
        _ if args.len() == 1 => &random::TWO,
        b"least_conn" => &random::TWO,
        b"least_time=header" => &random::TWO_BY_HEADER,
        b"least_time=last_byte" => &random::TWO_BY_LAST_BYTE,
        _ => return Err(invalid_parameter(args, 1)),
    }))
}

fn least_time(args: &Args<'_>) -> Result<Choice, Invalid> {
    let inflight = args.len() == 2;
    if inflight && args.word(1).bytes() != b"inflight" {
        return Err(invalid_parameter(args, 1));
    }
    Ok(Choice::plain(match (args.word(0).bytes(), inflight) {
        (b"header", false) => &least_time::HEADER,
        (b"header", true) => &least_time::HEADER_INFLIGHT,
        (b"last_byte", false) => &least_time::LAST_BYTE,
        (b"last_byte", true) => &least_time::LAST_BYTE_INFLIGHT,
        _ => {
            let message = format!("invalid value \"{}\"", args.str(0));
            return Err(Invalid::new(message).at(0));
        }
    }))
}

fn queue(args: &Args<'_>) -> Result<QueueLine, Invalid> {
    let most = read::number_at(args, 0)?;
    let most = u32::try_from(most).ok().filter(|most| *most > 0);
    let most = most.ok_or_else(|| invalid_parameter(args, 0))?;
    let timeout_ms = match args.word(1).bytes().strip_prefix(b"timeout=") {
        Some(value) => read::parse_time_ms(value).ok_or_else(|| invalid_parameter(args, 1))?,
        None if args.len() == 1 => 60_000,
        None => return Err(invalid_parameter(args, 1)),
    };
    Ok(QueueLine { most, timeout_ms })
}

fn stream_least_time(args: &Args<'_>) -> Result<Choice, Invalid> {
    let inflight = args.len() == 2;
    if inflight && args.word(1).bytes() != b"inflight" {
        return Err(invalid_parameter(args, 1));
    }
    let moment = match args.word(0).bytes() {
        b"first_byte" => Moment::FirstByte,
        _ => Moment::Head,
    };
    let method = match (args.word(0).bytes(), inflight) {
        (b"connect" | b"first_byte", false) => &least_time::HEADER,
        (b"connect" | b"first_byte", true) => &least_time::HEADER_INFLIGHT,
        (b"last_byte", false) => &least_time::LAST_BYTE,
        (b"last_byte", true) => &least_time::LAST_BYTE_INFLIGHT,
        _ => {
            let message = format!("invalid value \"{}\"", args.str(0));
            return Err(Invalid::new(message).at(0));
        }
    };
    Ok(Choice { moment, ..Choice::plain(method) })
}

fn factor(args: &Args<'_>) -> Result<u64, Invalid> {
    let percent = read::number(args)?;
    if percent != 0 && !(100..=100_000).contains(&percent) {
        return Err(Invalid::new("\"hash_balance_factor\" must be 0 or at least 100").at(0));
    }
    Ok(percent)
}

fn invalid_parameter(args: &Args<'_>, i: usize) -> Invalid {
    Invalid::new(format!("invalid parameter \"{}\"", args.str(i))).at(i)
}

/// The choice of a block and where it stands: the last one written holds.
pub(crate) fn compile(block: &Scope<'_>) -> (Choice, Option<Span>) {
    let mut found: Vec<(Choice, Span)> =
        METHODS.iter().flat_map(|directive| block.nodes_local(directive)).collect();
    found.sort_by_key(|(_, span)| (span.line, span.start));
    for (_, span) in found.iter().skip(1) {
        block.warn(*span, "load balancing method redefined");
    }
    let (mut choice, span) = match found.pop() {
        Some((choice, span)) => (choice, Some(span)),
        None => (Choice::default(), None),
    };
    haproxy::compile(block, &mut choice);
    if let Some((percent, span)) = block.local_spanned(&HASH_BALANCE_FACTOR) {
        if choice.recipe.is_some() && choice.method.name != ring::METHOD.name {
            let reason = "\"hash_balance_factor\" works with \"hash_type consistent\" only";
            block.error(span, reason);
        } else if choice.recipe.is_none() && !matches!(choice.key, KeySource::Text(_)) {
            block.error(span, "\"hash_balance_factor\" works with \"hash\" only");
        }
        choice.factor = percent as u32;
    }
    let limits = block.nodes_local(&SERVER).iter().any(|(line, _)| line.options.max_conns > 0);
    if choice.method.name == first::METHOD.name && !limits {
        block.error(span.unwrap_or(block.span()), "\"first\" works with \"max_conns\" only");
    }
    choice.queue = block.local(&QUEUE).unwrap_or_default();
    choice.rules = block.local(&OUTLIER_DETECTION);
    choice.budget = block.local(&RETRY_BUDGET);
    choice.breaker = block.local(&CIRCUIT_BREAKER).unwrap_or_default();
    (choice, span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(directive: &Directive<Choice>, arguments: &str, expected: Result<&str, &str>) {
        let found = directive.read_text(arguments).map(|choice| choice.method.name);
        let found = found.map_err(|invalid| invalid.message);
        assert_eq!(found, expected.map_err(str::to_owned), "{arguments}");
    }

    #[test]
    fn words_of_the_methods() {
        check(&HASH, "$uri", Ok("hash"));
        check(&HASH, "a$uri consistent", Ok("hash consistent"));
        check(&HASH, "$uri maglev", Ok("hash maglev"));
        check(&HASH, "$uri rendezvous", Ok("hash rendezvous"));
        check(&HASH, "$uri constant", Err("invalid parameter \"constant\""));
        check(&RANDOM, "", Ok("random"));
        check(&RANDOM, "two", Ok("random two"));
        check(&RANDOM, "two least_conn", Ok("random two"));
        check(&RANDOM, "two least_time=header", Ok("random two least_time=header"));
        check(&RANDOM, "three", Err("invalid parameter \"three\""));
        check(&RANDOM, "two fair", Err("invalid parameter \"fair\""));
        check(&LEAST_TIME, "header inflight", Ok("least_time header inflight"));
        check(&LEAST_TIME, "last_byte", Ok("least_time last_byte"));
        check(&LEAST_TIME, "first", Err("invalid value \"first\""));
        check(&LEAST_TIME, "header out", Err("invalid parameter \"out\""));
        check(&IP_HASH, "", Ok("ip_hash"));
        check(&LEAST_CONN, "", Ok("least_conn"));
    }
}
