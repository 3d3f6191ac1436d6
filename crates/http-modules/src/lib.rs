//! One file per HTTP feature; `list` has them in the order in which their parts run.
//!
//! A feature declares its directives and variables as data and attaches guards, contents and
//! filters to the locations that ask for it; see `http::module` for what these are.

#![forbid(unsafe_code)]

pub mod list;
pub mod proxy;
pub mod upstreams;
