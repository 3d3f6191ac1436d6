//! A key decides, as in nginx's `hash KEY` and `hash KEY consistent`.
//!
//! The plain form is that of Cache::Memcached: `((crc32(TRY KEY) >> 16) & 0x7fff) + PREVIOUS`,
//! with TRY left out at first, and what is left over by the sum of the weights is a point on the
//! line of peers. One peer more or less moves nearly every key.
//!
//! The consistent form is ketama, that of Cache::Memcached::Fast: each server has 160 points
//! per unit of weight on a ring, `crc32(HOST \0 PORT PREVIOUS)`, and a key belongs to the next
//! point. One server of N more or less moves about one key of N. Peers with the same name, the
//! addresses of one host, are one server and take turns.
//!
//! A peer that cannot be used makes the request look again, at most twenty times; then it takes
//! its turn like any other. With a bound on the load (`hash_balance_factor`) a peer that has more
//! than its share cannot be used either.

use std::collections::HashMap;

use crate::ask::Turn;
use crate::index::{Roll, Sums, Table};
use crate::ip_hash::TRIES;
use crate::method::{Method, USUAL};
use crate::places::Places;
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// By the remainder of a hash.
pub static METHOD: Method = Method {
    name: "hash",
    about: "A key decides which peer a request is sent to.",
    backup: false,
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    pick,
    table: Sums::table,
    ..USUAL
};

/// By the next point on a ring.
pub static CONSISTENT: Method = Method {
    name: "hash consistent",
    about: "A key decides; when a peer comes or goes, few keys move (ketama).",
    backup: false,
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    pick: pick_consistent,
    table: Ring::table,
    ..USUAL
};

/// Points of a server for each unit of its weight.
const POINTS: u32 = 160;

/// So many points are passed by when peers are refused for their load.
const BOUNDED_TRIES: u32 = 1000;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let enough = !turn.key.is_empty() && state.head.tiers[turn.tier].count > 1;
    let Some(Table::Sums(sums)) = turn.table.filter(|_| enough) else {
        return round_robin::pick(state, turn, tried);
    };
    while tried.walk.tries <= TRIES && sums.total() > 0 {
        let mut digits = [0; 10];
        let hash = turn.key.after(decimal(tried.walk.again, &mut digits));
        let sum = (tried.walk.hash as u32).wrapping_add(hash >> 16 & 0x7fff);
        tried.walk.begin(sum.into());
        tried.walk.again += 1;
        let peer = sums.at(u64::from(sum) % sums.total());
        if state.admits(peer, turn, tried) {
            return Some(peer);
        }
        tried.walk.tries += 1;
    }
    round_robin::pick(state, turn, tried)
}

/// `number` in digits; 0 is no digit at all.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    &digits[at..]
}

fn pick_consistent(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let Some(Table::Ring(ring)) = turn.table.filter(|_| !turn.key.is_empty()) else {
        return round_robin::pick(state, turn, tried);
    };
    if ring.points.is_empty() {
        return None;
    }
    if !tried.walk.begun {
        tried.walk.begin(ring.find(turn.key.hash) as u64);
    }
    let most = if state.head.factor == 0 { TRIES } else { BOUNDED_TRIES };
    while tried.walk.tries <= most {
        let point = ring.points[tried.walk.hash as usize % ring.points.len()];
        if let Some(peer) = take_turns(state, ring.peers(&point), turn, tried) {
            return Some(peer);
        }
        tried.walk.hash += 1;
        tried.walk.tries += 1;
    }
    round_robin::pick(state, turn, tried)
}

/// Smooth weighted round robin among the peers of one server.
fn take_turns(
    state: &mut State<'_>,
    peers: &[PeerIndex],
    turn: &Turn<'_>,
    tried: &Tried,
) -> Option<PeerIndex> {
    if let [only] = *peers {
        return state.admits(only, turn, tried).then_some(only);
    }
    let mut total = 0;
    let mut best: Option<PeerIndex> = None;
    for &index in peers {
        if !state.admits(index, turn, tried) {
            continue;
        }
        let growth = i64::from(state.peers[index as usize].effective);
        let times = &mut state.times[index as usize];
        times.current = times.current.wrapping_add(growth);
        total += growth;
        let current = times.current;
        if best.is_none_or(|best| current > state.times[best as usize].current) {
            best = Some(index);
        }
    }
    let paying = &mut state.times[best? as usize];
    paying.current = paying.current.wrapping_sub(total);
    best
}

/// The ring of one tier.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    /// By hash.
    points: Box<[Point]>,
    places: Places,
    /// Where the peers of each server begin in `members`, and where the last ones end. Empty when
    /// every server is one peer.
    starts: Box<[u32]>,
    members: Box<[PeerIndex]>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    hash: u32,
    /// The number of a server; of its peer when every server is one peer.
    server: u32,
}

impl Ring {
    fn table(roll: &Roll<'_>) -> Table {
        let mut servers: Vec<Vec<PeerIndex>> = Vec::new();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        let mut points = Vec::new();
        for (peer, &weight) in (roll.first..).zip(roll.weights) {
            let name = (roll.name)(peer);
            let server = *by_name.entry(name).or_insert_with(|| {
                servers.push(Vec::new());
                servers.len() - 1
            });
            servers[server].push(peer);
            add_points(&mut points, name, server as u32, weight);
        }
        // Of equal hashes the earlier point stays.
        points.sort_by_key(|point: &Point| point.hash);
        points.dedup_by_key(|point| point.hash);
        let (mut starts, mut members) = (Vec::new(), Vec::new());
        if servers.iter().all(|peers| peers.len() == 1) {
            points.iter_mut().for_each(|point| point.server = servers[point.server as usize][0]);
        } else {
            starts.push(0);
            for peers in servers {
                members.extend(peers);
                starts.push(members.len() as u32);
            }
        }
        let places = Places::of(points.iter().map(|point| point.hash));
        let (starts, members) = (starts.into(), members.into());
        Table::Ring(Ring { points: points.into(), places, starts, members })
    }

    /// The first point at or behind `hash`; the number of points when that is the first of all.
    fn find(&self, hash: u32) -> usize {
        self.places.find(&self.points, hash, |point| point.hash)
    }

    fn peers<'a>(&'a self, point: &'a Point) -> &'a [PeerIndex] {
        if self.starts.is_empty() {
            return std::slice::from_ref(&point.server);
        }
        let server = point.server as usize;
        let (from, to) = (self.starts[server], self.starts[server + 1]);
        &self.members[from as usize..to as usize]
    }
}

/// The points of one peer. Each follows from the one before.
fn add_points(points: &mut Vec<Point>, name: &str, server: u32, weight: u32) {
    let (host, port) = split(name);
    let mut base = crc32fast::Hasher::new();
    base.update(host.as_bytes());
    base.update(b"\0");
    base.update(port.as_bytes());
    let mut previous = 0u32;
    for _ in 0..u64::from(weight) * u64::from(POINTS) {
        let mut crc = base.clone();
        crc.update(&previous.to_le_bytes());
        previous = crc.finalize();
        points.push(Point { hash: previous, server });
    }
}

/// The host and the port of a server as it was written. A unix socket is its path.
fn split(name: &str) -> (&str, &str) {
    if name.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:")) {
        return (&name[5..], "");
    }
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_and_ports() {
        assert_eq!(split("127.0.0.1:8081"), ("127.0.0.1", "8081"));
        assert_eq!(split("127.0.0.1"), ("127.0.0.1", ""));
        assert_eq!(split("[::1]:80"), ("[::1]", "80"));
        assert_eq!(split("UNIX:/run/a:1"), ("/run/a:1", ""));
        assert_eq!(split("a:"), ("a", ""));
    }

    #[test]
    fn tries_are_written_in_digits() {
        let written = |number| String::from_utf8(decimal(number, &mut [0; 10]).to_vec());
        assert_eq!(written(0).as_deref(), Ok(""));
        assert_eq!(written(7).as_deref(), Ok("7"));
        assert_eq!(written(20).as_deref(), Ok("20"));
        assert_eq!(written(u32::MAX).as_deref(), Ok("4294967295"));
    }
}
