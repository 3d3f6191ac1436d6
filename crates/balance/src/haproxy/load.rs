//! `balance leastconn`: fewest requests under way, as HAProxy keeps them in order.
//!
//! Peers without a request come first, in the order in which they became so; then those whose
//! requests, with the new one, are the fewest for their weight. Of equals the one whose load
//! changed the longest ago is next, so they take turns.

use crate::ask::Turn;
use crate::haproxy::{MOST, SCALE};
use crate::method::{Method, USUAL};
use crate::ordered;
use crate::peer::{Peer, Place};
use crate::state::{PeerIndex, State};

/// `balance leastconn`.
pub static METHOD: Method = Method {
    name: "balance leastconn",
    about: "The peer with the fewest requests under way in proportion to its weight is next; of \
            equals the one whose load changed the longest ago, as in HAProxy.",
    pick: |state, turn: &Turn<'_>, tried| ordered::pick(state, turn, tried, load),
    settle,
    rebuild: |state, tier| {
        ordered::rebuild(state, tier, load);
        // In the order of the configuration.
        let members = state.head.tiers[tier].members();
        members.for_each(|peer| stamp(state, peer));
    },
    ..USUAL
};

fn load(peer: &Peer) -> u64 {
    match u64::from(peer.conns) {
        0 => 0,
        conns => (conns + 1) * MOST / (u64::from(peer.weight.max(1)) * u64::from(SCALE)),
    }
}

fn settle(state: &mut State<'_>, peer: PeerIndex) {
    let before = key(state, peer);
    ordered::settle(state, peer, load);
    if key(state, peer) != before {
        stamp(state, peer);
    }
}

fn key(state: &mut State<'_>, peer: PeerIndex) -> Option<i64> {
    let at = state.positions[peer as usize] as usize;
    let is_in = state.peers[peer as usize].place() == Place::Heap;
    is_in.then(|| state.heap_of(peer).slots[at].key)
}

/// Puts a peer behind its equals.
fn stamp(state: &mut State<'_>, peer: PeerIndex) {
    if state.peers[peer as usize].place() != Place::Heap {
        return;
    }
    let tier = state.tier_of(peer);
    let rounds = &mut state.head.tiers[tier].rounds;
    *rounds += 1;
    let Ok(stamp) = u32::try_from(*rounds) else {
        // The order of equals starts anew.
        *rounds = 0;
        return (METHOD.rebuild)(state, tier);
    };
    let at = state.positions[peer as usize] as usize;
    let mut heap = state.heap_of(peer);
    heap.slots[at].stamp = stamp;
    heap.sink(at);
}
