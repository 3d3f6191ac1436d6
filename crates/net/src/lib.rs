//! A worker's streams, buffers, timers and listeners on top of the driver.
//!
//! Everything belongs to one thread. Methods take `&self` and a task's [`Context`], in the style
//! of futures: `Pending` means that the task is woken when it is worth another try. An idle
//! connection holds a descriptor, a slot of the driver and a timer, but no buffer: wait until a
//! [`Stream`] is readable, then borrow a [`Block`] from the worker's pool.
//!
//! What is left out: protocols other than TLS, and anything that knows a configuration. The
//! kernel's readiness interface is known to `system::driver` only.
//!
//! Read next: `stream.rs`, `buffer.rs`, `out.rs`.
//!
//! [`Context`]: std::task::Context
#![forbid(unsafe_code)]

pub mod buffer;
pub mod connect;
pub mod datagram;
pub mod inbox;
pub mod listener;
pub mod memory;
pub mod out;
pub mod race;
pub mod relay;
pub mod resolver;
pub mod seats;
pub mod splice;
pub mod stream;
pub mod time;
pub mod tls;
pub mod tunnel;

#[cfg(test)]
mod testing;

pub use buffer::{Block, Chunk};
pub use connect::{ConnectOptions, connect};
pub use datagram::{DatagramListener, Datagrams};
pub use inbox::Inbox;
pub use listener::{Listener, Sharing, Taking};
pub use out::{Data, FileRange, OutQueue, Owned};
pub use race::{Either, race};
pub use relay::{Broken, Closing, End, RelaySettings, Relayed, Side};
pub use seats::{Held, Seat, Seats};
pub use stream::{Push, Stream};
pub use system::driver::{
    Handle, Kind, Settings, Timer, block_on, defer, live_tasks, now, precise_now_us,
    shut_down_clients, spawn, start, stop, wake_all, wall, yield_now,
};
pub use system::socket::Address;
pub use time::{sleep, timeout};
pub use tunnel::{Counts, TunnelEnd, TunnelSettings, tunnel};
