//! Which peer next.
//!
//! Balancing here is pure: the state of a group is plain data in memory that the caller gives
//! ([`State`] borrows it, [`Memory`] keeps it on the heap), events change it ([`State::done`],
//! [`State::failed`], [`State::set_weight`], [`State::set_down`]) and [`State::pick`] answers with
//! an index. Nothing in this crate knows an address, opens a socket, reads a clock or draws a
//! random number, so a proxy, a DNS server and a client library choose alike.
//!
//! ```
//! use balance::{Ask, Memory, PeerOptions, Tried};
//! let weights = [5, 1, 1].map(|weight| PeerOptions { weight, ..PeerOptions::default() });
//! let mut memory = Memory::new(&balance::round_robin::METHOD, &weights, &[]);
//! let mut order = Vec::new();
//! for _ in 0..7 {
//!     let mut state = memory.state();
//!     let peer = state.pick(&Ask::at(100), &mut Tried::new()).unwrap();
//!     order.push("abc".as_bytes()[peer as usize] as char);
//!     state.done(peer);
//! }
//! assert_eq!(order, ['a', 'a', 'b', 'a', 'c', 'a', 'a']);
//! ```
//!
//! Read on in `state.rs` (memory, tiers, events), then in `round_robin.rs`. A further algorithm
//! is one file with its `METHOD` and one line in `method.rs`.

#![forbid(unsafe_code)]

/// Declares structures of plain numbers. With the feature `zone` the compiler proves that they
/// are, and they may lie in memory that processes share.
#[cfg(feature = "zone")]
macro_rules! plain {
    ($($item:tt)*) => {
        system::plain! { $($item)* }
    };
}
#[cfg(not(feature = "zone"))]
macro_rules! plain {
    ($(#[$note:meta])* $seen:vis struct $name:ident { $($body:tt)* }) => {
        $(#[$note])*
        #[repr(C)]
        $seen struct $name { $($body)* }
    };
}

mod ask;
#[cfg(feature = "zone")]
mod block;
mod checks;
pub mod fair;
pub mod first;
pub mod hash;
mod heap;
mod index;
pub mod ip_hash;
pub mod least_conn;
pub mod least_time;
pub mod maglev;
mod membership;
mod method;
#[cfg(test)]
mod model;
mod ordered;
pub mod outlier;
mod peer;
pub mod random;
pub mod rendezvous;
pub mod round_robin;
pub mod sed;
mod slow_start;
mod state;
mod times;
mod tried;
pub mod wlc;

pub use ask::{Ask, Key};
#[cfg(feature = "zone")]
pub use block::{Block, Block1k, Block16k, Block64, Block128k};
pub use checks::{Checks, Health};
pub use index::{Index, Members};
pub use membership::Tier;
pub use method::{METHODS, Method, method};
pub use peer::{Peer, PeerOptions, Verdict};
pub use state::{Memory, PeerIndex, State};
pub use times::{Times, Timing, Took, Until};
pub use tried::Tried;
