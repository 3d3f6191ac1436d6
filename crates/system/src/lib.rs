//! The edge to the operating system: processes, sockets, readiness, shared memory.
//!
//! All `unsafe` of the workspace stands here, behind safe faces. Nothing here knows a
//! configuration or a protocol, and nothing logs: errors go back to the caller with the name of
//! the call that failed.

pub mod allocation;
pub mod clock;
pub mod datagram;
pub mod driver;
pub mod errno;
pub mod file;
pub mod host;
pub mod identity;
pub mod opening;
pub mod process;
pub mod sandbox;
pub mod shared;
pub mod signals;
pub mod socket;
pub mod title;
