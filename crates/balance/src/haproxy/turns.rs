//! `balance roundrobin`: HAProxy's turns.
//!
//! Time is counted in turns. A peer that had one is due again after as many as the weights of all
//! make for its own; what the division leaves over is saved up for it. Peers stand in three trees:
//!
//! ```text
//!             first turn                beyond this round
//!   init ------------------> current ----------------------> next
//!    ^                          |  ^                           |
//!    |                          `--' due again in this round   |
//!    `---------- the round is over: both change roles ---------'
//! ```
//!
//! In `current` the one that is due the soonest is first, in the others the heaviest one. Whoever
//! is in `current` and due goes before those in `init`, and these before whoever is not due yet.
//!
//! A peer that is full, rests, is down or ill stands in no tree, and comes back as HAProxy takes
//! servers back that were down. (HAProxy leaves those that are full in the trees and passes them
//! by in each turn.) The trees are pairing heaps, so a turn costs the logarithm of their size.

use crate::ask::Turn;
use crate::haproxy::{MOST, SCALE};
use crate::method::{Method, USUAL};
use crate::peer::Place;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// `balance roundrobin`.
pub static METHOD: Method = Method {
    name: "balance roundrobin",
    about: "Peers take turns in proportion to their weights, in the order of HAProxy.",
    pick,
    settle,
    rebuild,
    ..USUAL
};

plain! {
    /// Where a peer stands.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Spot {
        /// In its tree the least key comes first, and of equals the one that came first.
        key: i64,
        stamp: u64,
        /// When it is due; 0 before its first turn.
        due: u64,
        /// What divisions left over.
        left: u32,
        /// 0, or the number of its tree.
        tree: u32,
        /// Its first child, the sibling behind it, and the sibling before it or its parent: the
        /// peers' numbers and one, or 0 for nobody.
        child: u32,
        next: u32,
        before: u32,
        unused: u32,
    }
}

plain! {
    /// The turns of a tier.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Wheel {
        stamps: u64,
        /// The present turn, and in which one the round is over.
        now: u64,
        end: u64,
        /// The weights of all that stand in a tree, in the finer unit.
        total: u64,
        /// The peers on top of the trees, plus one, or 0.
        roots: [u32; 3],
        /// Which of the first two trees is `init`.
        init: u32,
        /// Where algorithms that walk a list go on.
        pub(crate) next: u32,
        unused: u32,
    }
}

/// The number of the tree `current`.
const CURRENT: u32 = 3;

impl Wheel {
    fn init(&self) -> u32 {
        1 + (self.init & 1)
    }

    fn next(&self) -> u32 {
        2 - (self.init & 1)
    }
}

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let tier = turn.tier;
    state.admit_rested(tier);
    let wheel = &mut state.head.wheels[tier];
    if wheel.end == 0 {
        (wheel.now, wheel.end) = (wheel.total, wheel.total);
    }
    let mut has_switched = false;
    let mut aside = Vec::new();
    let found = loop {
        let Some(peer) = first(state, tier) else {
            if has_switched {
                break None;
            }
            has_switched = true;
            let wheel = &mut state.head.wheels[tier];
            wheel.init ^= 1;
            (wheel.now, wheel.end) = (wheel.total, wheel.total);
            continue;
        };
        advance(state, tier, peer);
        remove(state, tier, peer);
        state.head.wheels[tier].now += 1;
        if !tried.contains(peer) {
            break Some(peer);
        }
        aside.push(peer);
    };
    if let Some(peer) = found {
        queue(state, tier, peer);
    }
    for peer in aside.into_iter().rev() {
        if has_switched {
            let init = state.head.wheels[tier].init();
            queue_by_weight(state, tier, init, peer);
        } else {
            queue(state, tier, peer);
        }
    }
    found
}

/// Whose turn it is.
fn first(state: &mut State<'_>, tier: usize) -> Option<PeerIndex> {
    let wheel = state.head.wheels[tier];
    let current = wheel.roots[CURRENT as usize - 1].checked_sub(1);
    if current.is_some_and(|peer| state.spots[peer as usize].due <= wheel.now) {
        return current;
    }
    let Some(peer) = wheel.roots[wheel.init() as usize - 1].checked_sub(1) else { return current };
    let spot = &mut state.spots[peer as usize];
    (spot.due, spot.left) = (0, 0);
    Some(peer)
}

/// A peer had its turn, used or not: when it is due again.
fn advance(state: &mut State<'_>, tier: usize, peer: PeerIndex) {
    let Wheel { now, total, .. } = state.head.wheels[tier];
    let weight = weight(state, peer);
    let spot = &mut state.spots[peer as usize];
    if spot.due == 0 {
        spot.due = now;
    }
    spot.due += total / weight;
    let left = u64::from(spot.left) + total % weight;
    spot.due += left / weight;
    spot.left = (left % weight) as u32;
}

fn queue(state: &mut State<'_>, tier: usize, peer: PeerIndex) {
    let wheel = state.head.wheels[tier];
    let weight = weight(state, peer) as i64;
    let spot = &mut state.spots[peer as usize];
    if spot.due >= wheel.end + wheel.end.min(wheel.total) {
        spot.due -= wheel.end;
        return queue_by_weight(state, tier, wheel.next(), peer);
    }
    let shade = MOST as i64 + i64::from(spot.left) - weight;
    let key = 256 * spot.due as i64 + shade.div_euclid(SCALE.into());
    insert(state, tier, CURRENT, peer, key);
}

fn queue_by_weight(state: &mut State<'_>, tier: usize, tree: u32, peer: PeerIndex) {
    let key = MOST as i64 - weight(state, peer) as i64;
    insert(state, tier, tree, peer, key);
}

/// In the finer unit; never 0.
fn weight(state: &State<'_>, peer: PeerIndex) -> u64 {
    u64::from(state.peers[peer as usize].weight.max(1)) * u64::from(SCALE)
}

/// Puts a peer into the trees, or takes it out, as its load and its health want it.
fn settle(state: &mut State<'_>, peer: PeerIndex) {
    let tier = state.tier_of(peer);
    let subject = &state.peers[peer as usize];
    let wanted = if subject.is_shut() {
        Place::Out
    } else if subject.is_resting(state.head.clock) {
        Place::Resting
    } else {
        Place::Wheel
    };
    let before = subject.place();
    if before == wanted {
        return;
    }
    if before == Place::Wheel {
        remove(state, tier, peer);
        let weight = weight(state, peer);
        let wheel = &mut state.head.wheels[tier];
        wheel.total = wheel.total.saturating_sub(weight);
    }
    state.take_out(tier, peer);
    state.put_in(tier, peer, wanted);
    if wanted == Place::Wheel {
        let weight = weight(state, peer);
        let wheel = &mut state.head.wheels[tier];
        wheel.total += weight;
        let ahead = (wheel.total + wheel.end).saturating_sub(wheel.now);
        state.spots[peer as usize].due = wheel.now + ahead / weight;
        queue(state, tier, peer);
    }
}

fn rebuild(state: &mut State<'_>, tier: usize) {
    let next = state.head.wheels[tier].next;
    state.head.wheels[tier] = Wheel { next, ..Wheel::default() };
    let members = state.head.tiers[tier].members();
    for peer in members.clone() {
        state.take_out(tier, peer);
        state.spots[peer as usize] = Spot::default();
    }
    for peer in members {
        let subject = &state.peers[peer as usize];
        if subject.is_shut() || subject.is_resting(state.head.clock) {
            settle(state, peer);
            continue;
        }
        state.head.wheels[tier].total += weight(state, peer);
        state.put_in(tier, peer, Place::Wheel);
        let init = state.head.wheels[tier].init();
        queue_by_weight(state, tier, init, peer);
    }
    let wheel = &mut state.head.wheels[tier];
    (wheel.now, wheel.end) = (wheel.total, wheel.total);
}

fn insert(state: &mut State<'_>, tier: usize, tree: u32, peer: PeerIndex, key: i64) {
    let wheel = &mut state.head.wheels[tier];
    wheel.stamps += 1;
    let spot = &mut state.spots[peer as usize];
    let Spot { due, left, .. } = *spot;
    *spot = Spot { key, stamp: wheel.stamps, due, left, tree, ..Spot::default() };
    let root = &mut wheel.roots[tree as usize - 1];
    *root = join(state.spots, *root, peer + 1);
}

fn remove(state: &mut State<'_>, tier: usize, peer: PeerIndex) {
    let Spot { tree, child, next, before, .. } = state.spots[peer as usize];
    let wheel = &mut state.head.wheels[tier];
    let Some(root) = (tree as usize).checked_sub(1).and_then(|tree| wheel.roots.get_mut(tree))
    else {
        return;
    };
    let children = join_all(state.spots, child);
    if *root == peer + 1 {
        *root = children;
    } else {
        if let Some(before) = before.checked_sub(1) {
            let before = &mut state.spots[before as usize];
            *(if before.child == peer + 1 { &mut before.child } else { &mut before.next }) = next;
        }
        if let Some(next) = next.checked_sub(1) {
            state.spots[next as usize].before = before;
        }
        *root = join(state.spots, *root, children);
    }
    let spot = &mut state.spots[peer as usize];
    (spot.tree, spot.child, spot.next, spot.before) = (0, 0, 0, 0);
}

/// One tree of two, which are numbers of peers and one, or 0.
fn join(spots: &mut [Spot], one: u32, other: u32) -> u32 {
    let (Some(a), Some(b)) = (one.checked_sub(1), other.checked_sub(1)) else {
        return one | other;
    };
    let order = |spot: &Spot| (spot.key, spot.stamp);
    let is_first = order(&spots[a as usize]) < order(&spots[b as usize]);
    let (top, below) = if is_first { (a, b) } else { (b, a) };
    let child = spots[top as usize].child;
    if let Some(child) = child.checked_sub(1) {
        spots[child as usize].before = below + 1;
    }
    spots[below as usize].next = child;
    spots[below as usize].before = top + 1;
    spots[top as usize].child = below + 1;
    spots[top as usize].next = 0;
    spots[top as usize].before = 0;
    top + 1
}

/// One tree of a list of siblings: first two by two, then from the last pair on.
fn join_all(spots: &mut [Spot], mut list: u32) -> u32 {
    let mut pairs = 0;
    while let Some(one) = list.checked_sub(1) {
        let other = std::mem::take(&mut spots[one as usize].next);
        list = match other.checked_sub(1) {
            Some(other) => std::mem::take(&mut spots[other as usize].next),
            None => 0,
        };
        let pair = join(spots, one + 1, other);
        spots[pair as usize - 1].next = pairs;
        pairs = pair;
    }
    let mut all = 0;
    while let Some(pair) = pairs.checked_sub(1) {
        pairs = std::mem::take(&mut spots[pair as usize].next);
        spots[pair as usize].before = 0;
        all = join(spots, all, pair + 1);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Memory, PeerOptions};
    use proptest::prelude::*;

    proptest! {
        /// However they come and go, trees give the least first and lose nobody.
        #[test]
        fn trees_are_in_order(
            events in prop::collection::vec((0u32..20, 0i64..9, any::<bool>()), 1..300),
        ) {
            let options = [PeerOptions { down: true, ..PeerOptions::default() }; 20];
            let mut memory = Memory::new(&METHOD, &options, &[]);
            let mut state = memory.state();
            let mut model: Vec<(i64, u64, u32)> = Vec::new();
            for (stamp, (peer, key, takes_first)) in (0..).zip(events) {
                let root = state.head.wheels[0].roots[0];
                let least = model.iter().min().copied();
                prop_assert_eq!(root.checked_sub(1), least.map(|(_, _, peer)| peer));
                let gone = match least {
                    Some((_, _, first)) if takes_first => first,
                    _ => peer,
                };
                remove(&mut state, 0, gone);
                model.retain(|(_, _, known)| *known != gone);
                if !takes_first {
                    insert(&mut state, 0, 1, peer, key);
                    model.push((key, stamp, peer));
                }
            }
        }

        #[test]
        fn everyone_has_its_share(weights in prop::collection::vec(1u32..30, 2..60)) {
            let options: Vec<_> = weights
                .iter()
                .map(|&weight| PeerOptions { weight, ..PeerOptions::default() })
                .collect();
            let total: u32 = weights.iter().sum();
            let mut memory = Memory::new(&METHOD, &options, &[]);
            let mut seen = vec![0; weights.len()];
            for _ in 0..total * 3 {
                let mut state = memory.state();
                let peer = state.pick(&Ask::at(1), &mut Tried::new()).expect("a peer");
                seen[peer as usize] += 1;
                state.done(peer);
            }
            for (seen, weight) in seen.iter().zip(&weights) {
                prop_assert!((*seen as i64 - i64::from(weight * 3)).abs() <= 3, "{seen} {weight}");
            }
        }
    }
}
