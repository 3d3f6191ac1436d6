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
//! # As a client's library
//!
//! A program that calls several servers keeps their addresses in a list of its own, and asks here
//! for an index into it: **pick**, try, **report**, and pick again with the same [`Tried`] when the
//! attempt failed. When servers come or go, **refresh**: [`State::admit`] and [`State::dismiss`]
//! change the group under way, and algorithms that go by a key get another [`Index`].
//!
//! ```
//! use balance::{Ask, Index, Key, Memory, PeerIndex, PeerOptions, Tier, Tried, Verdict};
//!
//! struct Client {
//!     /// By index; `None` where none is.
//!     servers: Vec<Option<String>>,
//!     memory: Memory,
//!     index: Index,
//! }
//!
//! const METHOD: &balance::Method = &balance::hash::CONSISTENT;
//!
//! impl Client {
//!     fn new(servers: &[&str]) -> Client {
//!         let options = vec![PeerOptions::default(); servers.len()];
//!         let mut memory = Memory::with_room(METHOD, &options, &[], [16, 0]);
//!         let servers: Vec<_> = servers.iter().map(|server| Some(server.to_string())).collect();
//!         let index = index_of(&mut memory, &servers);
//!         Client { servers, memory, index }
//!     }
//!
//!     /// Asks servers until one answers.
//!     fn call(&mut self, key: &str, now_s: u64, try_at: impl Fn(&str) -> bool) -> Option<String> {
//!         let key = Key::text(key.as_bytes());
//!         let mut tried = Tried::new();
//!         loop {
//!             let ask = Ask { key, index: Some(&self.index), ..Ask::at(now_s) };
//!             let mut state = self.memory.state();
//!             let peer = state.pick(&ask, &mut tried)?;
//!             let server = self.servers[peer as usize].clone()?;
//!             if try_at(&server) {
//!                 state.done(peer);
//!                 return Some(server);
//!             }
//!             if state.failed(peer, now_s) == Verdict::Disabled {
//!                 println!("{server} rests");
//!             }
//!         }
//!     }
//!
//!     /// One more server.
//!     fn refresh(&mut self, server: &str) {
//!         let options = PeerOptions::default();
//!         let place = self.memory.state().admit(Tier::Primary, &options).expect("room");
//!         self.servers.resize((place as usize + 1).max(self.servers.len()), None);
//!         self.servers[place as usize] = Some(server.to_owned());
//!         self.index = index_of(&mut self.memory, &self.servers);
//!     }
//! }
//!
//! fn index_of(memory: &mut Memory, servers: &[Option<String>]) -> Index {
//!     let name = |peer: PeerIndex| servers[peer as usize].as_deref().unwrap_or_default();
//!     Index::new(METHOD, &memory.state().members(), &name)
//! }
//!
//! let mut client = Client::new(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
//! let first = client.call("/a", 100, |_| true).unwrap();
//! assert_eq!(client.call("/a", 100, |_| true), Some(first.clone()));
//! let other = client.call("/a", 100, |server| server != first).unwrap();
//! assert_ne!(other, first);
//! client.refresh("10.0.0.4:80");
//! assert!(client.call("/b", 100, |_| true).is_some());
//! assert_eq!(client.call("/a", 100, |_| false), None);
//! ```
//!
//! # Which hash
//!
//! What `tests/distribution.rs` finds with 20,000 keys: by how much the share of a peer is off at
//! most among 10 peers of weights 1 to 3, and how many of the keys of others, of a thousand, move
//! when one of N peers leaves.
//!
//! | method | off | N = 3 | 10 | 100 | 1,000 |
//! |---|---|---|---|---|---|
//! | [`hash::CONSISTENT`] (ketama) | 10 % | 0 | 0 | 0 | 0 |
//! | [`maglev::METHOD`] | 7 % | 0 | 4 | 6 | 4 |
//! | [`rendezvous::METHOD`] | 7 % | 0 | 0 | 0 | fewer than 1 |
//!
//! Chance alone makes shares differ by about 7 % with so many keys.
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
pub mod haproxy;
pub mod hash;
mod heap;
mod index;
pub mod ip_hash;
pub mod least_conn;
pub mod least_time;
pub mod maglev;
mod marks;
mod membership;
mod method;
#[cfg(test)]
mod model;
mod ordered;
pub mod outlier;
mod peer;
mod places;
pub mod random;
pub mod rendezvous;
pub mod round_robin;
pub mod sed;
pub mod sh;
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
pub use marks::{Mark, Marks};
pub use membership::Tier;
pub use method::{METHODS, Method, method};
pub use peer::{Peer, PeerOptions, Verdict};
pub use state::{Memory, PeerIndex, State};
pub use times::{Times, Timing, Took, Until};
pub use tried::Tried;
