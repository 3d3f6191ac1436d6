//! How the master learns that the workers it has started serve: a pipe that closes when the last
//! of them has let go of it, by serving or by dying.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use system::process;

/// The master's end.
pub struct Readiness {
    reader: OwnedFd,
}

impl Readiness {
    /// The master's end, and the one that workers inherit. Whoever forks them keeps it only until
    /// the last one is forked.
    pub fn new() -> io::Result<(Readiness, OwnedFd)> {
        let (reader, writer) = process::pipe()?;
        Ok((Readiness { reader }, writer))
    }

    /// Waits until every worker serves or is gone, at most for a time.
    pub fn wait(&self, patience: Duration) {
        // A failing poll is like one whose time has run out: the master goes on.
        let _ = process::wait_closed(self.reader.as_fd(), patience);
    }
}
