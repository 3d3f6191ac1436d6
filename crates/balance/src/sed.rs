//! The shortest expected delay, in the words and in the order of IPVS: `sed` and `nq`.
//!
//! The expected delay of a peer is `(requests + 1) / weight`: the new request counts too, so that
//! a strong peer with few requests comes before a weak one that has none. `nq` (never queue) takes
//! the first peer that has none, if there is one.

use crate::method::{Method, USUAL};
use crate::ordered::{self, in_proportion};
use crate::peer::Peer;

/// Shortest expected delay.
pub static METHOD: Method = Method {
    name: "sed",
    about: "The peer with the shortest expected delay is next, by requests and weight.",
    slow_start: true,
    draws: true,
    pick: |state, turn, tried| ordered::pick(state, turn, tried, delay),
    settle: |state, peer| ordered::settle(state, peer, delay),
    rebuild: |state, tier| ordered::rebuild(state, tier, delay),
    ..USUAL
};

/// An idle peer, or else the shortest expected delay.
pub static NQ: Method = Method {
    name: "nq",
    about: "The first idle peer is next, or else that with the shortest expected delay.",
    slow_start: true,
    draws: true,
    pick: |state, turn, tried| ordered::pick(state, turn, tried, idle_first),
    settle: |state, peer| ordered::settle(state, peer, idle_first),
    rebuild: |state, tier| ordered::rebuild(state, tier, idle_first),
    ..USUAL
};

fn delay(peer: &Peer) -> u64 {
    in_proportion(u64::from(peer.conns) + 1, peer.weight)
}

fn idle_first(peer: &Peer) -> u64 {
    if peer.conns == 0 { 0 } else { delay(peer) }
}
