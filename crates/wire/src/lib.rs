//! Protocol codecs without I/O: bytes in, events out.
//!
//! A codec here opens no socket, reads no clock, writes no log and is not async; it turns bytes
//! that a peer sent into offsets and verdicts, and leaves every decision about time, memory and
//! wording to its caller. Start reading at [`http1`].

#![forbid(unsafe_code)]

pub mod checks;
pub mod client_hello;
pub mod dns;
pub mod gateway;
pub mod http1;
pub mod http2;
pub mod proxy_protocol;
pub mod rdp;
