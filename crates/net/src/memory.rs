//! How much memory a worker's buffers hold.

use crate::buffer;

/// Bytes of buffers on this thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// In blocks and chunks that somebody holds.
    pub lent: usize,
    /// The most that was ever lent at a time.
    pub peak: usize,
    /// In blocks kept for the next borrower.
    pub pooled: usize,
}

/// What this thread's buffers hold now.
pub fn usage() -> Usage {
    buffer::usage()
}

/// All that this thread's network layer holds, in bytes: buffers and the driver's tables.
pub fn total() -> usize {
    let usage = usage();
    usage.lent + usage.pooled + system::driver::memory()
}
