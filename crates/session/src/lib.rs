//! What every client conversation has: texts, variables, logs, addresses

#![forbid(unsafe_code)]

pub mod contexts;
