//! What every client conversation has: texts, variables, logs, addresses

#![forbid(unsafe_code)]

pub mod acceptor;
pub mod access;
pub mod access_log;
pub mod answer;
pub mod budget;
pub mod clock;
pub mod contexts;
pub mod counters;
pub mod forwarded;
pub mod geo;
pub mod handover;
pub mod lifecycle;
pub mod limit_conn;
pub mod limit_req;
pub mod listen;
pub mod log;
pub mod map;
pub mod names;
pub mod network;
pub mod open_files;
pub mod pattern;
pub mod proxy_protocol;
pub mod random;
pub mod real_ip;
pub mod regex;
pub mod split_clients;
pub mod status_zone;
pub mod table;
#[cfg(test)]
mod testing;
pub mod text;
pub mod tls;
pub mod variables;
pub mod zones;
