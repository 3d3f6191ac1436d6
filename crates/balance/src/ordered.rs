//! A tier in the order of its peers' loads, for algorithms that take the least one.
//!
//! One heap holds the usable peers; what may not be used stands elsewhere, as in the round robin
//! (`round_robin.rs`), whose lists these are. An event moves one peer, and a pick looks at the
//! top, so both cost the depth of the heap however many peers there are.

use crate::ask::Turn;
use crate::peer::{Peer, Place};
use crate::state::{Class, PeerIndex, State};
use crate::tried::Tried;

/// What an algorithm makes of a peer: the least comes first, of equals the one with the lowest
/// number.
pub(crate) type Load = fn(&Peer) -> u64;

/// The quotient of a load and a weight, in a form whose order is exact for weights up to 4,096.
pub(crate) fn in_proportion(load: u64, weight: u32) -> u64 {
    (load << 24) / u64::from(weight.max(1))
}

/// So many peers that start slowly are passed by in one pick.
const ASIDE: usize = 64;

/// The first one that the request has not tried.
pub(crate) fn pick(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    load: Load,
) -> Option<PeerIndex> {
    state.admit_rested(turn.tier);
    let class = state.head.tiers[turn.tier].first as usize;
    let mut aside = Vec::new();
    let (mut found, mut second) = (None, None);
    while let Class { start, len: 1.., .. } = state.classes.get(class).copied().unwrap_or_default()
    {
        let top = state.slots[start as usize].peer;
        if !tried.contains(top) {
            if has_turn(state, turn, top, aside.len() as u32) {
                found = Some(top);
                break;
            }
            second = second.or(Some(top));
            if aside.len() >= ASIDE {
                break;
            }
        }
        state.take_out(turn.tier, top);
        aside.push(top);
    }
    aside.into_iter().for_each(|peer| settle(state, peer, load));
    found.or(second)
}

/// As [`pick`]; of equals, the one that was not chosen for the longest time.
pub(crate) fn pick_by_turns(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    load: Load,
) -> Option<PeerIndex> {
    let found = pick(state, turn, tried, load)?;
    let rounds = &mut state.head.tiers[turn.tier].rounds;
    *rounds += 1;
    if let Ok(stamp) = u32::try_from(*rounds) {
        let at = state.positions[found as usize] as usize;
        let mut heap = state.heap_of(found);
        heap.slots[at].stamp = stamp;
        heap.sink(at);
    } else {
        *rounds = 0;
        rebuild(state, turn.tier, load);
    }
    Some(found)
}

/// A peer that starts slowly has a part of the turns that it would have.
fn has_turn(state: &State<'_>, turn: &Turn<'_>, peer: PeerIndex, nth: u32) -> bool {
    if !state.is_starting(peer) {
        return true;
    }
    let passed = turn.now_ms.saturating_sub(state.times[peer as usize].started_ms);
    turn.draw(nth, state.peers[peer as usize].slow_start_ms.into()) < passed
}

/// Moves `peer` to where its load and its health want it.
pub(crate) fn settle(state: &mut State<'_>, peer: PeerIndex, load: Load) {
    let tier = state.tier_of(peer);
    let subject = &state.peers[peer as usize];
    let key = -(load(subject) as i64);
    let wanted = if subject.is_shut() {
        Place::Out
    } else if subject.is_resting(state.head.clock) {
        Place::Resting
    } else {
        Place::Heap
    };
    match (subject.place(), wanted) {
        (Place::Heap, Place::Heap) => {
            let at = state.positions[peer as usize] as usize;
            state.heap_of(peer).change(at, key);
        }
        (before, wanted) if before == wanted => {}
        _ => {
            state.take_out(tier, peer);
            state.peers[peer as usize].current = key;
            state.put_in(tier, peer, wanted);
        }
    }
}

/// Puts all members of a tier where they belong.
pub(crate) fn rebuild(state: &mut State<'_>, tier: usize, load: Load) {
    let members = state.head.tiers[tier].members();
    members.clone().for_each(|peer| state.take_out(tier, peer));
    if members.is_empty() {
        return;
    }
    // One class of weight 0: its rounds add nothing to the keys.
    state.classes[members.start as usize] = Class { start: members.start, ..Class::default() };
    state.head.tiers[tier].classes = 1;
    for peer in members {
        state.peers[peer as usize].class = 0;
        settle(state, peer, load);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Ask, Memory, Method, PeerOptions, Tried, first, sed, wlc};
    use proptest::prelude::*;

    /// IPVS's loop: the first of the least.
    fn expected(method: &Method, weights: &[u32], loads: &[u32], open: &[bool]) -> Option<u32> {
        let worse = |a: usize, b: usize| {
            let (la, lb) = (u64::from(loads[a]), u64::from(loads[b]));
            let (wa, wb) = (u64::from(weights[a]), u64::from(weights[b]));
            match method.name {
                "lc" => la > lb,
                "wlc" => la * wb > lb * wa,
                "nq" if la == 0 || lb == 0 => la != 0 && lb == 0,
                "sed" | "nq" => (la + 1) * wb > (lb + 1) * wa,
                _ => false,
            }
        };
        let mut best: Option<usize> = None;
        for at in (0..weights.len()).filter(|at| open[*at]) {
            if best.is_none_or(|best| worse(best, at)) {
                best = Some(at);
            }
        }
        best.map(|best| best as u32)
    }

    proptest! {
        #[test]
        fn the_least_loaded_is_next(
            weights in prop::collection::vec(1u32..9, 1..40),
            events in prop::collection::vec((0u8..4, any::<usize>()), 1..200),
        ) {
            for method in [&wlc::LC, &wlc::METHOD, &sed::METHOD, &sed::NQ, &first::METHOD] {
                let options: Vec<_> = weights
                    .iter()
                    .map(|&weight| PeerOptions { weight, max_conns: 3, ..PeerOptions::default() })
                    .collect();
                let backup = [PeerOptions { down: true, ..PeerOptions::default() }];
                let mut memory = Memory::new(method, &options, &backup);
                let mut state = memory.state();
                let count = weights.len();
                for (event, number) in &events {
                    let peer = number % count;
                    let peers = &state.peers()[..count];
                    let loads: Vec<u32> = peers.iter().map(|peer| peer.conns()).collect();
                    let open = |p: &crate::Peer| !p.is_down() && !p.is_full();
                    let open: Vec<bool> = peers.iter().map(open).collect();
                    match event {
                        0 if loads[peer] > 0 => state.done(peer as u32),
                        0 | 1 => {
                            let wanted = expected(method, &weights, &loads, &open);
                            let found = state.pick(&Ask::at(5), &mut Tried::new());
                            prop_assert_eq!(found, wanted, "{}", method.name);
                        }
                        2 => state.set_down(peer as u32, !open[peer] && loads[peer] < 3),
                        _ => {
                            let mut tried = Tried::new();
                            let first = state.pick(&Ask::at(5), &mut tried);
                            let second = state.pick(&Ask::at(5), &mut tried);
                            prop_assert!(first.is_none() || first != second);
                            [first, second].into_iter().flatten().for_each(|p| state.done(p));
                        }
                    }
                }
            }
        }
    }
}
