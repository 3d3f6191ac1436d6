//! Fewest requests under way, relative to the weight; smooth round robin among equals.
//!
//! Pick by pick as nginx's `least_conn`: the first pass finds the least `conns / weight`; when
//! several peers share it, a round of the smooth weighted round robin is held among these alone,
//! with nginx's detail that the round begins with the account of the first of them.
//!
//! It walks the tier in each pick, as nginx does.

use crate::ask::Turn;
use crate::method::{Method, USUAL};
use crate::peer::Peer;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// Fewest requests under way.
pub static METHOD: Method = Method {
    name: "least_conn",
    about: "The peer with the fewest requests under way in proportion to its weight is next.",
    pick,
    ..USUAL
};

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let tier = turn.tier;
    let first = state.head.tiers[tier].first;
    let peers = &mut state.peers[first as usize..][..state.head.tiers[tier].count as usize];
    let mut best: Option<usize> = None;
    let mut many = false;
    for (offset, peer) in peers.iter().enumerate() {
        if !peer.is_usable(turn.now) || tried.contains(first + offset as u32) {
            continue;
        }
        match best.map(|best| load(peer, &peers[best]).cmp(&load(&peers[best], peer))) {
            None | Some(std::cmp::Ordering::Less) => {
                best = Some(offset);
                many = false;
            }
            Some(std::cmp::Ordering::Equal) => many = true,
            Some(std::cmp::Ordering::Greater) => {}
        }
    }
    let mut best = best?;
    if many {
        best = round(peers, best, turn.now, |offset| tried.contains(first + offset as u32));
    }
    Some(first + best as u32)
}

/// A round of smooth weighted round robin among the peers that are as loaded as the first one.
fn round(peers: &mut [Peer], from: usize, now: u64, tried: impl Fn(usize) -> bool) -> usize {
    let mut best = from;
    let mut total = 0;
    for offset in from..peers.len() {
        let peer = peers[offset];
        let equal = load(&peer, &peers[best]) == load(&peers[best], &peer);
        if !equal || !peer.is_usable(now) || tried(offset) {
            continue;
        }
        let growth = i64::from(peer.effective);
        total += growth;
        let peer = &mut peers[offset];
        peer.current = peer.current.wrapping_add(growth);
        peer.effective = peer.weight.min(peer.effective + 1);
        let current = peer.current;
        if current > peers[best].current {
            best = offset;
        }
    }
    peers[best].current = peers[best].current.wrapping_sub(total);
    best
}

/// The load of `peer` on a scale that it shares with `other`.
fn load(peer: &Peer, other: &Peer) -> u64 {
    u64::from(peer.conns) * u64::from(other.weight)
}
