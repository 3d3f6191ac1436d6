//! What the access log asks of an exchange besides its variables.

use crate::exchange::Exchange;
use crate::files;
use session::access_log::Logged;
use session::log::Level;
use session::text::Span;
use std::fmt;
use system::errno::Errno;
use system::opening::Way;

impl Logged for Exchange {
    fn log_root(&mut self) -> Option<Span> {
        Some(files::root(self))
    }

    fn log_way(&mut self, path: Span) -> Way {
        files::way(self, path)
    }

    fn log_failure(&mut self, level: Level, errno: Errno, message: fmt::Arguments<'_>) {
        self.log_error(level, format_args!("{message} ({errno}) while logging request"));
    }
}
