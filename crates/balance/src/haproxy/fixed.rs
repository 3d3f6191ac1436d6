//! HAProxy's map: a slot for each unit of weight, the peers interleaved by their weights.
//!
//! `balance static-rr` walks it, and a hash of the type `map-based` is taken by its length. Only
//! peers that are in are on it, so it is made anew when one goes down or comes back; weights are
//! divided by what divides them all.
//!
//! A slot whose peer cannot be used (it is full, rests, or was tried) makes the request look at
//! the next one, up to [`WALKED`] of them; then it takes its turn like any other. HAProxy would
//! let it wait for that peer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ask::Turn;
use crate::index::{Roll, Table};
use crate::method::{Method, USUAL};
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// `balance static-rr`.
pub static METHOD: Method = Method {
    name: "balance static-rr",
    about: "Peers take turns by a fixed list in which each is as often as its weight says, as in \
            HAProxy.",
    pick: |state, turn, tried| walk(state, turn, tried, None),
    ..MAPPED
};

/// `hash-type map-based`.
pub static HASH: Method = Method {
    name: "hash_type map-based",
    about: "A key decides by its remainder, as in HAProxy.",
    pick: |state, turn, tried| walk(state, turn, tried, Some(turn.key.hash)),
    ..MAPPED
};

const MAPPED: Method = Method {
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    table: |roll| Table::Lots(fill(roll).into()),
    of_those_in: true,
    ..USUAL
};

/// So many slots are looked at.
const WALKED: usize = 256;

/// From the slot of `hash` on; without a key, from where the last walk ended.
fn walk(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &mut Tried,
    hash: Option<u32>,
) -> Option<PeerIndex> {
    let Some(Table::Lots(lots)) = turn.table else {
        return round_robin::pick(state, turn, tried);
    };
    if lots.is_empty() {
        return None;
    }
    let hash = hash.filter(|_| !turn.key.is_empty());
    let next = state.head.wheels[turn.tier].next as usize;
    let from = match hash {
        Some(hash) => hash as usize % lots.len(),
        None if next >= lots.len() => 0,
        None => next,
    };
    let mut slots = (from..lots.len()).chain(0..from).take(WALKED);
    let found = slots.find(|slot| state.is_open(lots[*slot], turn, tried));
    let Some(slot) = found else { return round_robin::pick(state, turn, tried) };
    if hash.is_none() {
        state.head.wheels[turn.tier].next = slot as u32 + 1;
    }
    Some(lots[slot])
}

/// Each peer's score grows by its weight from slot to slot; who has a slot pays the length of the
/// map. The first one of the highest level is next, levels being whole lengths of the map: so a
/// peer matters again at the slot at which it enters a level, and no sooner.
fn fill(roll: &Roll<'_>) -> Vec<PeerIndex> {
    let divisor = roll.weights.iter().copied().fold(0, common_divisor).max(1);
    let members: Vec<(PeerIndex, u64)> = (roll.first..)
        .zip(roll.weights.iter().zip(roll.is_in))
        .filter(|(_, (weight, is_in))| **weight > 0 && **is_in)
        .map(|(peer, (weight, _))| (peer, u64::from(weight / divisor)))
        .collect();
    let total: u64 = members.iter().map(|(_, weight)| weight).sum();
    let length = total.min(LONGEST);
    let mut slots = Vec::with_capacity(length as usize);
    let mut had = vec![0u64; members.len()];
    // What waits for a slot, and who has entered which level, both with the slots it had then.
    let mut coming = BinaryHeap::new();
    let mut levels: [BinaryHeap<Reverse<(usize, u64)>>; LEVELS] = Default::default();
    let enters = |at: usize, had: u64| {
        let weight = members[at].1;
        // After slot `n` the score is `weight * (n + 1) - total * had`.
        (0..LEVELS as u64).map(move |level| {
            let slot = (total * (had + level)).div_ceil(weight).max(1) - 1;
            Reverse((slot, level as usize, at, had))
        })
    };
    (0..members.len()).for_each(|at| coming.extend(enters(at, 0)));
    for slot in 0..length {
        while let Some(&Reverse((when, level, at, then))) = coming.peek()
            && when <= slot
        {
            coming.pop();
            if had[at] == then {
                levels[level].push(Reverse((at, then)));
            }
        }
        let best = levels.iter_mut().rev().find_map(|level| {
            while let Some(&Reverse((at, then))) = level.peek() {
                if had[at] == then {
                    return Some(at);
                }
                level.pop();
            }
            None
        });
        let Some(best) = best else { break };
        slots.push(members[best].0);
        had[best] += 1;
        coming.extend(enters(best, had[best]));
    }
    slots
}

/// Levels that a score can reach: below a length of the map, below two, below three.
const LEVELS: usize = 3;

/// The longest map.
const LONGEST: u64 = 1 << 22;

fn common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition: each slot looks at all scores.
    fn expected(weights: &[u32], is_in: &[bool]) -> Vec<u32> {
        let divisor = weights.iter().copied().fold(0, common_divisor);
        let members = || (0..weights.len()).filter(|at| is_in[*at]);
        let weight = |at: usize| i64::from(weights[at] / divisor);
        let total: i64 = members().map(weight).sum();
        let mut scores = vec![0; weights.len()];
        let slot = |_| {
            let mut best: Option<(usize, i64)> = None;
            for at in members() {
                scores[at] += weight(at);
                let level = (scores[at] + total) / total;
                if best.is_none_or(|(_, most)| level > most) {
                    best = Some((at, level));
                }
            }
            let (best, _) = best.expect("members");
            scores[best] -= total;
            best as u32
        };
        (0..total).map(slot).collect()
    }

    proptest! {
        #[test]
        fn the_map_is_that_of_all_scores(
            servers in prop::collection::vec((1u32..20, any::<bool>()), 1..30),
        ) {
            let weights: Vec<u32> = servers.iter().map(|(weight, _)| *weight).collect();
            let is_in: Vec<bool> = servers.iter().map(|(_, is_in)| *is_in).collect();
            let roll = Roll { first: 0, weights: &weights, is_in: &is_in, name: &|_| "" };
            prop_assert_eq!(fill(&roll), expected(&weights, &is_in));
        }
    }
}
