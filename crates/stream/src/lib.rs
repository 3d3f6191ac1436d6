//! TCP and UDP sessions: how they are accepted, led through their phases, and what the features
//! of `stream { }` do with them.
//!
//! A session travels through one function that is meant to be read from top to bottom,
//! [`journey::run`]. A `server` block *is* its compiled pipeline: lists of checks, prereads, one
//! content and loggers that modules attached while compiling. `list.rs` has the modules in order.
//! What http has too (access, limits, maps, logs, groups) lives below, in `session` and
//! `upstream`; moving bytes is the business of `net::tunnel`, packets that of `net::datagram`.
//!
//! Read next: `journey.rs`, `module.rs`, `proxy/mod.rs`, `packets.rs`.

#![forbid(unsafe_code)]

mod access;
mod access_log;
mod client;
mod compile;
pub mod directives;
mod geo;
pub mod journey;
mod limit_conn;
pub mod list;
mod listen;
mod map;
mod module;
mod packets;
mod pass;
mod proxy;
mod proxy_protocol;
mod rdp_preread;
mod realip;
mod returns;
mod senders;
mod served;
mod server;
mod session;
mod set;
mod split_clients;
mod ssl;
mod ssl_preread;
mod status_zone;
mod upstream_log;
mod upstreams;
pub mod variables;
mod worker;

pub use compile::{Compiler, Surroundings, compile};
pub use module::{Check, Content, Look, Module, Preread, Serving, Stage, Step, Verdict};
pub use served::{Endpoint, Served, Stream};
pub use server::{Server, ServerBuilder};
pub use session::Session;
pub use worker::Worker;
