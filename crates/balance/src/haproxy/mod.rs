//! The algorithms of HAProxy, under its names, pick by pick.
//!
//! nginx and HAProxy call different things by the same words: their turns interleave differently,
//! their rings have other points, their hashes are not the same. What is here chooses as HAProxy
//! does (`tests/haproxy.rs` replays recorded runs of it), so that a site can move over and its
//! caches and sessions stay where they are:
//!
//! - [`turns`]: `balance roundrobin`
//! - [`fixed`]: `balance static-rr`, and hashes of the type `map-based`
//! - [`ring`]: hashes of the type `consistent`, with HAProxy's bound on the load
//! - [`load`]: `balance leastconn`
//! - [`hashes`]: the functions that make a key of a text or an address
//!
//! `balance first` is `first.rs` and `balance random` is `random.rs`, which are HAProxy's anyway.
//! What HAProxy does not know stays ours: peers that rest after failures (`max_fails`), and the
//! peers that a request has tried, of which HAProxy avoids the last one only.

pub mod fixed;
pub mod hashes;
pub mod load;
pub mod ring;
pub mod turns;

/// Points, or parts of a turn, for each unit of weight.
const SCALE: u32 = 16;

/// The largest weight of HAProxy, in the finer unit.
const MOST: u64 = 256 * SCALE as u64;
