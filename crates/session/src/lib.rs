//! What every client conversation has: texts, variables, logs, addresses

#![forbid(unsafe_code)]

pub mod access_log;
pub mod budget;
pub mod clock;
pub mod contexts;
pub mod log;
pub mod random;
pub mod regex;
pub mod text;
pub mod variables;
