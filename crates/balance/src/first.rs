//! The first peer that has room, as HAProxy's `first`: the others are left idle, and can be
//! switched off, until it is full (`max_conns`).

use crate::method::{Method, USUAL};
use crate::ordered;

/// Fill one after another.
pub static METHOD: Method = Method {
    name: "first",
    about: "The first peer that is not full is next.",
    slow_start: true,
    draws: true,
    pick: |state, turn, tried| ordered::pick(state, turn, tried, |_| 0),
    settle: |state, peer| ordered::settle(state, peer, |_| 0),
    rebuild: |state, tier| ordered::rebuild(state, tier, |_| 0),
    ..USUAL
};
