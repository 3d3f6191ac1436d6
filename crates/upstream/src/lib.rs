//! A live group of peers: choose, connect, keep alive, retry.
//!
//! [`Groups::compile`] turns `upstream` blocks into [`Group`]s, [`Groups::locate`] finds the one
//! that a URL means, or makes one. For each request [`Group::begin`] gives [`Attempts`]: pick a
//! peer, connect to it (or take a connection that is kept), report how it went, and pick again.
//! [`Lease::keep`] gives a connection back.
//!
//! Which peer is next is decided in crate `balance`; what travels over a connection, when to try
//! again and what to log is the business of whoever asks. The state of a group is this worker's
//! own, unless `zone` puts it where all workers share it.
//!
//! Read next: `attempts.rs`, `group.rs`, `compile.rs`.

#![forbid(unsafe_code)]

pub mod admin;
mod attempts;
pub mod bind;
mod book;
mod compile;
pub mod directives;
mod followed;
mod group;
pub mod guard;
pub mod haproxy;
pub mod health;
mod home;
pub mod marks;
mod membership;
pub mod methods;
mod names;
mod pool;
mod queue;
mod records;
pub mod resolver;
mod shared;
mod state;
pub mod target;
pub mod timeline;

pub use attempts::{
    Attempts, ConnectError, ConnectFailure, Connecting, KIND_SHIFT, Lease, NoPeer, Outcome,
};
pub use balance::{Health, Key, Mark, PeerIndex, PeerOptions, Verdict};
pub use book::Statistics;
pub use compile::{Groups, Surroundings, implied};
pub use directives::DIRECTIVES;
pub use followed::Followed;
pub use group::{Group, Keepalive, Member, Peer, Settings};
pub use marks::Watch;
pub use methods::{Choice, KeySource, Moment};
pub use queue::{NotServed, QueueLine};
pub use records::Origin;
pub use shared::{Awaited, Carrier, Listing, Making, Shared};
pub use target::{Host, Names, SystemNames, Target};
