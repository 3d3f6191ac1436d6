//! One program in front of everything: the command line, master, workers, reload, upgrade.
//!
//! Read `start.rs` first: the steps from the command line to a running program. Then `master.rs`
//! and `worker.rs` for the life of processes, `compile.rs` and `open.rs` for what they live by,
//! `engines.rs` for the seam to the protocols, `modules.rs` for the list of what exists.

#![forbid(unsafe_code)]

pub mod cert;
pub mod children;
pub mod command_line;
pub mod compile;
pub mod demo;
pub mod directives;
pub mod engines;
mod http_engine;
pub mod listeners;
pub mod manual;
pub mod master;
pub mod modules;
pub mod net_setup;
pub mod open;
pub mod paths;
pub mod pid_file;
pub mod readiness;
pub mod report;
mod service;
pub mod single;
pub mod start;
mod stream_engine;
pub mod upgrade;
pub mod version;
pub mod worker;
