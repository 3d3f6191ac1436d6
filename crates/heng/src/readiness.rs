//! How the master learns that the workers it has started serve: a pipe into which each writes a
//! byte when it serves, and which closes when the last of them has let go of it, dead or alive.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use system::process;

/// The master's end.
pub struct Readiness {
    reader: File,
}

/// The end that workers inherit.
pub struct Announcer {
    writer: File,
}

/// What came of starting some workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// So many serve; all others are dead or dying.
    Serving(usize),
    /// Some were still at it when the time was up.
    Late,
}

/// A pipe: the master's end, and the one for workers. Whoever forks them keeps the second one
/// only until the last of them is forked.
pub fn pipe() -> io::Result<(Readiness, Announcer)> {
    let (reader, writer) = process::pipe()?;
    Ok((Readiness { reader: reader.into() }, Announcer { writer: writer.into() }))
}

impl Announcer {
    /// Says that this worker serves.
    pub fn announce(mut self) {
        // A master that is gone needs to know nothing.
        let _ = self.writer.write_all(b"+");
    }
}

impl Readiness {
    /// Waits until every worker serves or is gone, at most for a time.
    pub fn wait(mut self, patience: Duration) -> Outcome {
        match process::wait_closed(self.reader.as_fd(), patience) {
            Ok(true) => {}
            // A failing poll is like one whose time has run out: the master goes on.
            Ok(false) | Err(_) => return Outcome::Late,
        }
        let mut said = Vec::new();
        match self.reader.read_to_end(&mut said) {
            Ok(_) => Outcome::Serving(said.len()),
            Err(_) => Outcome::Late,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_serve_are_counted() {
        let (readiness, announcer) = pipe().unwrap();
        let copy = Announcer { writer: announcer.writer.try_clone().unwrap() };
        let dies = Announcer { writer: announcer.writer.try_clone().unwrap() };
        announcer.announce();
        copy.announce();
        drop(dies);
        assert_eq!(readiness.wait(Duration::from_secs(5)), Outcome::Serving(2));
    }

    #[test]
    fn nobody_is_waited_for_for_ever() {
        let (readiness, _announcer) = pipe().unwrap();
        assert_eq!(readiness.wait(Duration::ZERO), Outcome::Late);
    }
}
