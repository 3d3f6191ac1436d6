//! Fewest requests under way, relative to the weight; smooth round robin among equals.
//!
//! Pick by pick as nginx's `least_conn`: the first pass finds the least `conns / weight`; when
//! several peers share it, a round of the smooth weighted round robin is held among these alone,
//! with nginx's detail that the round begins with the account of the first of them.
//!
//! That walks the tier in each pick, as nginx does. A tier of more than [`SCANNED`] peers is kept
//! in order instead (`ordered.rs`): the least is found all the same, and of equals the one that
//! was not chosen for the longest time is next.

use std::cmp::Ordering;

use crate::ask::Turn;
use crate::method::{Method, USUAL};
use crate::ordered::{self, in_proportion};
use crate::peer::Peer;
use crate::slow_start::{growth, weight_in_parts};
use crate::state::{PeerIndex, State, Tier};
use crate::times::Times;
use crate::tried::Tried;

/// Fewest requests under way.
pub static METHOD: Method = Method {
    name: "least_conn",
    about: "The peer with the fewest requests under way in proportion to its weight is next.",
    slow_start: true,
    draws: true,
    pick,
    settle: |state, peer| {
        if is_large(state, state.tier_of(peer)) {
            ordered::settle(state, peer, weighted);
        }
    },
    rebuild: |state, tier| {
        if is_large(state, tier) {
            ordered::rebuild(state, tier, weighted);
        }
    },
    ..USUAL
};

/// Tiers up to this size are walked.
const SCANNED: u32 = 256;

fn is_large(state: &State<'_>, tier: usize) -> bool {
    state.head.tiers[tier].count > SCANNED
}

fn weighted(peer: &Peer) -> u64 {
    in_proportion(peer.conns.into(), peer.weight)
}

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    if is_large(state, turn.tier) {
        return ordered::pick_by_turns(state, turn, tried, weighted);
    }
    let Tier { first, count, .. } = state.head.tiers[turn.tier];
    let clock_ms = state.head.clock_ms;
    let (peers, times) = members(state, first, first + count);
    let is_first_try = tried.is_empty();
    let mut best: Option<(PeerIndex, Load)> = None;
    let mut many = false;
    for (index, (peer, times)) in (first..).zip(peers.iter().zip(times.iter())) {
        if !peer.is_usable(turn.now) || !is_first_try && tried.contains(index) {
            continue;
        }
        let load = Load::of(peer, times, clock_ms);
        match best.map(|(_, least)| load.compare(least)) {
            None | Some(Ordering::Less) => {
                best = Some((index, load));
                many = false;
            }
            Some(Ordering::Equal) => many = true,
            Some(Ordering::Greater) => {}
        }
    }
    let (best, least) = best?;
    Some(if many { round(state, turn, tried, (best, least), first + count) } else { best })
}

/// A round of smooth weighted round robin among the peers that are as loaded as the first one.
fn round(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    (from, least): (PeerIndex, Load),
    end: PeerIndex,
) -> PeerIndex {
    let clock_ms = state.head.clock_ms;
    let (peers, times) = members(state, from, end);
    let is_first_try = tried.is_empty();
    let mut best = from;
    let mut most = peers.first().map_or(0, |peer| peer.current);
    let mut total = 0;
    for (index, (peer, times)) in (from..).zip(peers.iter_mut().zip(times.iter_mut())) {
        let equal = Load::of(peer, times, clock_ms).compare(least) == Ordering::Equal;
        if !equal || !peer.is_usable(turn.now) || !is_first_try && tried.contains(index) {
            continue;
        }
        let growth = growth(peer, times, turn.now_ms);
        total += growth;
        peer.current = peer.current.wrapping_add(growth);
        peer.effective = peer.weight.min(peer.effective + 1);
        // The account that is to be beaten is that of the best so far, as it has grown.
        if index == best {
            most = peer.current;
        } else if peer.current > most {
            (best, most) = (index, peer.current);
        }
    }
    let paying = &mut state.peers[best as usize];
    paying.current = paying.current.wrapping_sub(total);
    best
}

/// The peers from one place to another, with their times.
fn members<'a>(
    state: &'a mut State<'_>,
    from: PeerIndex,
    end: PeerIndex,
) -> (&'a mut [Peer], &'a mut [Times]) {
    let range = from as usize..end as usize;
    (&mut state.peers[range.clone()], &mut state.times[range])
}

/// What a peer has to do, and how much it can do.
#[derive(Clone, Copy)]
struct Load {
    conns: u64,
    weight: u64,
}

impl Load {
    #[inline]
    fn of(peer: &Peer, times: &Times, clock_ms: u64) -> Load {
        let weight = match peer.slow_start_ms {
            0 => u64::from(peer.weight) * crate::slow_start::PARTS,
            _ => weight_in_parts(peer, times, clock_ms),
        };
        Load { conns: peer.conns.into(), weight }
    }

    /// Which has more to do in proportion to its weight.
    #[inline]
    fn compare(self, other: Load) -> Ordering {
        let product = |conns: u64, weight: u64| u128::from(conns) * u128::from(weight);
        product(self.conns, other.weight).cmp(&product(other.conns, self.weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Memory, PeerOptions};

    #[test]
    fn a_large_tier_is_loaded_evenly_and_in_turns() {
        let weights = |n: u32| PeerOptions { weight: 1 + n % 2, ..PeerOptions::default() };
        let options: Vec<_> = (0..1_000).map(weights).collect();
        let mut memory = Memory::new(&METHOD, &options, &[]);
        let mut state = memory.state();
        let mut seen = vec![0; 1_000];
        for _ in 0..1_500 * 4 {
            let peer = state.pick(&Ask::at(1), &mut Tried::new()).expect("a peer");
            seen[peer as usize] += 1;
        }
        assert!((0..1_000).all(|n| seen[n] == 4 * (1 + n as u32 % 2)), "{seen:?}");
        // Idle peers take turns.
        (0..1_000).for_each(|n| (0..seen[n as usize]).for_each(|_| state.done(n)));
        let mut order: Vec<_> = (0..1_000)
            .map(|_| {
                let peer = state.pick(&Ask::at(1), &mut Tried::new()).expect("a peer");
                state.done(peer);
                peer
            })
            .collect();
        order.sort_unstable();
        order.dedup();
        assert_eq!(order.len(), 1_000);
        // One that fails rests, and comes back.
        let failing = state.pick(&Ask::at(1), &mut Tried::new()).expect("a peer");
        state.failed(failing, 1);
        let mut picks = |now| -> bool {
            (0..1_500).any(|_| {
                let peer = state.pick(&Ask::at(now), &mut Tried::new()).expect("a peer");
                state.done(peer);
                peer == failing
            })
        };
        assert!(!picks(2));
        assert!(picks(30));
    }
}
