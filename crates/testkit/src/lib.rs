//! Runs a server configuration against scripted peers, for black-box tests.
//!
//! A test is a configuration and a short script: [`Config`] holds the text with its placeholders,
//! [`Server`] runs the program with it in a directory of its own, [`Client`] speaks HTTP/1 byte by
//! byte, and [`Backend`] plays the servers behind. Everything blocks and everything has a time
//! limit: a test that waits in vain says for what, and shows the server's error log.
//!
//! The program under test is `HENG_TEST_BINARY`, or else `heng` beside the test's own executable.
//! [`FrameClient`] speaks HTTP/2 frame by frame.
//!
//! ```no_run
//! use testkit::{Answer, Backend, Config, Server};
//!
//! let backend = Backend::with(|_| Answer::text("hello"));
//! let server = Server::start(
//!     Config::http(
//!         "server {
//!              listen 127.0.0.1:%%PORT_0%%;
//!              location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
//!          }",
//!     )
//!     .with("BACKEND", backend.port()),
//! );
//! assert_eq!(server.get("/").text(), "hello");
//! ```
#![forbid(unsafe_code)]

mod answer;
mod backend;
mod client;
mod config;
mod diag;
mod directives;
mod frame_server;
pub mod frames;
mod message;
mod names;
pub mod ocsp;
mod ports;
mod process;
mod server;
mod sockets;
mod stream;
pub mod tls;
mod wait;

pub use answer::Answer;
pub use backend::{Backend, Conversation, Unreachable};
pub use client::{Client, get};
pub use config::Config;
pub use directives::{Statement, delete, statements};
pub use frame_server::FrameServer;
pub use frames::{Frame, FrameClient};
pub use message::{Fields, ReadError, Request, Response};
pub use names::NameServer;
pub use ports::{Port, has_ipv6};
pub use process::{Outcome, binary};
pub use rustix::process::Signal;
pub use server::{Server, exists, kill, signal};
pub use sockets::{Socket, SocketOptions, listeners, options_of, sockets, sockets_of};
pub use stream::{Peer, Stream};
pub use wait::{Gate, clearly_slower, linger, patience, reaches, steady, until};
