//! The fewest requests, in the words and in the order of IPVS: `lc` and `wlc`.
//!
//! Unlike `least_conn` it takes the first of equals, so that idle peers do not take turns.

use crate::method::{Method, USUAL};
use crate::ordered::{self, in_proportion};
use crate::peer::Peer;

/// Fewest requests under way.
pub static LC: Method = Method {
    name: "lc",
    about: "The peer with the fewest requests under way is next, the first of equals.",
    slow_start: true,
    draws: true,
    pick: |state, turn, tried| ordered::pick(state, turn, tried, fewest),
    settle: |state, peer| ordered::settle(state, peer, fewest),
    rebuild: |state, tier| ordered::rebuild(state, tier, fewest),
    ..USUAL
};

/// Fewest requests under way in proportion to the weight.
pub static METHOD: Method = Method {
    name: "wlc",
    about: "The peer with the fewest requests under way in proportion to its weight is next, the \
            first of equals.",
    slow_start: true,
    draws: true,
    pick: |state, turn, tried| ordered::pick(state, turn, tried, weighted),
    settle: |state, peer| ordered::settle(state, peer, weighted),
    rebuild: |state, tier| ordered::rebuild(state, tier, weighted),
    ..USUAL
};

fn fewest(peer: &Peer) -> u64 {
    peer.conns.into()
}

fn weighted(peer: &Peer) -> u64 {
    in_proportion(peer.conns.into(), peer.weight)
}
