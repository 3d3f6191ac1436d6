//! The request journey: connections, sites, locations, bodies, guards, content, filters.
//!
//! A newcomer reads `journey` first, then `module` (what a feature is) and `exchange` (what a
//! request is). `compile` builds from the configuration what `worker` and `connection` serve.
//! LIFECYCLE.md tells the life of a connection and of a request. What is left out: every feature
//! that is not needed to receive a request and to send an answer; those are in `http-modules`.

#![forbid(unsafe_code)]

pub mod body;
pub mod compile;
mod conclusion;
pub mod connection;
pub mod credentials;
mod debug;
pub mod directives;
mod early_hints;
pub mod error_page;
pub mod exchange;
pub mod files;
mod head;
pub mod headers;
mod hold;
pub mod http;
pub mod http2;
pub mod journey;
mod limit_except;
pub mod listen;
pub mod location;
mod logged;
pub mod module;
pub mod moot;
mod pace;
pub mod part;
pub mod proxy_protocol;
pub mod request_body;
pub mod response;
mod send;
pub mod settings;
pub mod site;
mod slot;
mod subrequest;
pub mod temp;
pub mod tls;
mod trailers;
pub mod upstream_log;
pub mod variables;
pub mod worker;

pub use body::{Body, Broken, Piece, Pull};
pub use compile::{Compiler, Surroundings, compile};
pub use exchange::{Exchange, Persistence};
pub use headers::{Field, Headers};
pub use hold::hold;
pub use http::{Endpoint, Http, Served};
pub use location::{Location, LocationBuilder};
pub use module::{Content, Filter, Guard, Logger, Module, Stage, Step, Verdict};
pub use part::Part;
pub use response::Response;
pub use worker::{Ending, Worker};
