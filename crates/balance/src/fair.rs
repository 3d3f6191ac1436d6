//! The peer that is expected to have the new request done first (Tengine and others: `fair`).
//!
//! As `least_time last_byte inflight`, but every millisecond counts: peers of about the same speed
//! do not take turns, and no time is too long to be compared.

use crate::least_time::{Expectation, pick_by, rebuild, settle};
use crate::method::{Method, USUAL};
use crate::times::{Timing, Until};

/// Shortest time, with the requests under way.
pub static METHOD: Method = Method {
    name: "fair",
    about: "The peer that is expected to be done first is next, by its answers so far and the \
            requests that it has.",
    timing: Some(Timing { until: Until::LastByte, inflight: true }),
    draws: true,
    slow_start: true,
    pick: |state, turn, tried| pick_by(state, turn, tried, Expectation::Exact),
    settle,
    rebuild,
    ..USUAL
};
