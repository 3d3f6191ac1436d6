//! HAProxy's ring: sixteen points for each unit of a peer's weight, made of its number.
//!
//! A key belongs to the nearest point, before it or behind it, of a peer that is in. With
//! `hash_balance_factor` a peer may have its share of all requests under way times the factor, in
//! whole requests that are dealt out by weight; keys go on to the next point behind. Requests
//! without a key walk the ring.
//!
//! The number of a peer is its place in the group, from 1, so it matters in which order servers
//! are written. Points of peers that are not in are passed by, up to [`WALKED`] of them; then the
//! request takes its turn like any other.

use crate::ask::Turn;
use crate::haproxy::hashes::avalanche;
use crate::haproxy::{MOST, SCALE};
use crate::index::{Roll, Table};
use crate::method::{Method, USUAL};
use crate::places::Places;
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// `hash-type consistent`.
pub static METHOD: Method = Method {
    name: "hash_type consistent",
    about: "A key decides by the nearest point on a ring, as in HAProxy.",
    pick,
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    table: Points::table,
    ..USUAL
};

/// So many points are looked at in each direction.
const WALKED: usize = 1024;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let Some(Table::Points(ring)) = turn.table else {
        return round_robin::pick(state, turn, tried);
    };
    let found = if turn.key.is_empty() {
        let next = state.head.wheels[turn.tier].next as usize;
        let found = ring.from(next).find(|at| state.is_open(ring.peer(*at), turn, tried));
        if let Some(at) = found {
            state.head.wheels[turn.tier].next = at as u32 + 1;
        }
        found
    } else {
        nearest(state, turn, ring).and_then(|nearest| {
            let mut points = ring.from(nearest);
            points.find(|at| {
                let peer = ring.peer(*at);
                state.is_open(peer, turn, tried) && has_share_left(state, turn, ring, peer)
            })
        })
    };
    match found {
        Some(at) => Some(ring.peer(at)),
        None => round_robin::pick(state, turn, tried),
    }
}

/// The point of a peer that is in which is nearest to the key.
fn nearest(state: &State<'_>, turn: &Turn<'_>, ring: &Points) -> Option<usize> {
    let is_in = |at: &usize| state.peers[ring.peer(*at) as usize].is_in();
    let start = ring.places.find(&ring.points, turn.key.hash, |(hash, _)| *hash);
    let behind = ring.from(start).find(is_in)?;
    let before = ring.before(start).find(is_in).unwrap_or(behind);
    let distance = |from: u32, to: u32| to.wrapping_sub(from);
    let is_before = distance(ring.points[before].0, turn.key.hash)
        <= distance(turn.key.hash, ring.points[behind].0);
    Some(if is_before { before } else { behind })
}

/// Whether a peer has fewer requests under way than it may have.
fn has_share_left(state: &State<'_>, turn: &Turn<'_>, ring: &Points, peer: PeerIndex) -> bool {
    let (tier, factor) = (&state.head.tiers[turn.tier], u64::from(state.head.factor));
    let total = tier.weight_in * u64::from(SCALE);
    if factor == 0 || total == 0 {
        return true;
    }
    let subject = &state.peers[peer as usize];
    let weight = u64::from(subject.weight) * u64::from(SCALE);
    let before = ring.before[(peer - ring.first) as usize] * u64::from(SCALE);
    let slots = ((u64::from(tier.conns) + 1) * factor).div_ceil(100);
    let (each, left) = (slots / total, u128::from(slots % total));
    let part = |weight: u64| (u128::from(weight) * left / u128::from(total)) as u64;
    let share = weight * each + part(before + weight) - part(before);
    u64::from(subject.conns) < share.max(1)
}

/// The ring of one tier.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    /// Hash and peer, by hash.
    points: Box<[(u32, PeerIndex)]>,
    places: Places,
    first: PeerIndex,
    /// For each peer the weights before it.
    before: Box<[u64]>,
}

impl Points {
    fn table(roll: &Roll<'_>) -> Table {
        let mut points = Vec::new();
        let mut total = 0;
        let mut before = Vec::new();
        for (number, (&weight, is_in)) in (1u32..).zip(roll.weights.iter().zip(roll.is_in)) {
            before.push(total);
            total += if *is_in { u64::from(weight) } else { 0 };
            let peer = roll.first + number - 1;
            let seed = number.wrapping_mul(MOST as u32);
            points.extend(
                (0..weight.saturating_mul(SCALE))
                    .map(|nth| (avalanche(seed.wrapping_add(nth)), peer)),
            );
        }
        // Stable: of equal hashes the earlier peer comes first.
        points.sort_by_key(|(hash, _)| *hash);
        let places = Places::of(points.iter().map(|(hash, _)| *hash));
        let (points, before) = (points.into(), before.into());
        Table::Points(Points { points, places, first: roll.first, before })
    }

    fn peer(&self, at: usize) -> PeerIndex {
        self.points[at].1
    }

    /// The points from one on, once around.
    fn from(&self, start: usize) -> impl Iterator<Item = usize> {
        let end = self.points.len();
        let start = if start >= end { 0 } else { start };
        (start..end).chain(0..start).take(WALKED)
    }

    /// The points before one, backwards, once around.
    fn before(&self, start: usize) -> impl Iterator<Item = usize> {
        let end = self.points.len();
        (0..start.min(end)).rev().chain((start.min(end)..end).rev()).take(WALKED)
    }
}
