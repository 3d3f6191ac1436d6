//! The error log: levels, targets, and the one function that writes a line.
//!
//! A [`Log`] is compiled from the `error_log` lines of one level of the configuration
//! (`log/directive.rs`), and cloned for the price of a counter into whatever reports through it.
//! The files behind it, shared with the access log, are in `log/file.rs`; batching of access log
//! lines in `log/pending.rs`; syslog in `log/syslog.rs`.
//!
//! A line is what nginx writes:
//! `YYYY/MM/DD HH:MM:SS [level] PID#TID: *CONNECTION message (errno), context`.
//! Unlike nginx's it never holds a control character: those become `\x1B`, so that no client can
//! forge a line or steer the terminal of whoever reads it.

mod debug;
mod directive;
mod file;
mod packed;
mod pending;
mod syslog;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;

use crate::clock;
use system::errno::Errno;
use system::process::redirect_stderr;

pub use config::Level;
pub use debug::{debug_clients, is_debugged};
pub use directive::{DIRECTIVES, ERROR_LOG, ErrorLog, TargetText, compile, compile_main};
pub use file::{Buffering, LogFile, LogFiles, OpenError};
pub use pending::{flush_all, flush_pending, flusher};
pub use syslog::{Syslog, SyslogAddress, SyslogText};

/// Longest line in bytes, its newline included (nginx: `NGX_MAX_ERROR_STR`).
const LINE_LIMIT: usize = 2048;
/// What a message leaves free for the text of an error number.
const ERRNO_ROOM: usize = 50;

thread_local! {
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static MIRROR: Cell<Option<&'static str>> = const { Cell::new(None) };
    static PROCESS: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Writes a line through a [`Log`] unless its level is not wanted; the arguments of the message
/// are evaluated only then.
///
/// `log!(log, Level::Error, connection, context, "no live {}", what)` where `connection` is an
/// `Option<u64>` and `context` a `&dyn Fn(&mut Vec<u8>)` ([`no_context`] for none).
#[macro_export]
macro_rules! log {
    ($log:expr, $level:expr, $connection:expr, $context:expr, $($message:tt)+) => {{
        let log: &$crate::log::Log = &$log;
        let level: $crate::log::Level = $level;
        if log.enabled(level) {
            log.write(level, $connection, ::std::format_args!($($message)+), $context);
        }
    }};
}

/// As [`log!`], with the number of the error that is the reason before the message:
/// `log_errno!(log, Level::Error, Errno(111), None, &no_context, "connect() failed")` writes
/// `connect() failed (111: Connection refused)`.
#[macro_export]
macro_rules! log_errno {
    ($log:expr, $level:expr, $errno:expr, $connection:expr, $context:expr, $($message:tt)+) => {{
        let log: &$crate::log::Log = &$log;
        let level: $crate::log::Level = $level;
        if log.enabled(level) {
            let message = ::std::format_args!($($message)+);
            log.fail(level, $errno, $connection, message, $context);
        }
    }};
}

/// A context that adds nothing.
pub fn no_context(_: &mut Vec<u8>) {}

/// Where lines go, and which.
#[derive(Clone)]
pub struct Log {
    inner: Rc<Inner>,
}

struct Inner {
    /// The most talkative level of any target.
    threshold: Level,
    targets: Vec<Target>,
}

/// Which targets get a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those that want lines of its level.
    Wanted,
    /// All.
    Everywhere,
}

/// One `error_log`.
pub(crate) struct Target {
    pub(crate) level: Level,
    pub(crate) sink: Sink,
}

pub(crate) enum Sink {
    File(Rc<LogFile>),
    Syslog(Rc<Syslog>),
    /// `PROGRAM: [level] message` on stderr.
    Console(&'static str),
}

impl Log {
    pub(crate) fn of_targets(targets: Vec<Target>) -> Log {
        let threshold = targets.iter().map(|target| target.level).max().unwrap_or(Level::Emerg);
        Log { inner: Rc::new(Inner { threshold, targets }) }
    }

    /// The log before any is configured: `PROGRAM: [level] message` on stderr, without a time.
    pub fn stderr(program: &'static str) -> Log {
        Log::of_targets(vec![Target { level: Level::Notice, sink: Sink::Console(program) }])
    }

    /// The log while a configuration is read: the file of `-e` up to level notice, or stderr
    /// when `path` is empty or `stderr`. A file that cannot be opened is said on stderr, which
    /// then takes its place, as in nginx.
    pub fn early(program: &'static str, path: &Path) -> Log {
        let files = LogFiles::new(Path::new(""));
        let mut file = files.stderr();
        if !path.as_os_str().is_empty() && path != Path::new("stderr") {
            let wanted = files.file(path);
            match files.open() {
                Ok(()) => file = wanted,
                Err(error) => Log::stderr(program).write(
                    Level::Alert,
                    None,
                    format_args!("could not open error log file: {error}"),
                    &no_context,
                ),
            }
        }
        Log::to_file(file, Level::Notice)
    }

    /// A log with one file.
    pub fn to_file(file: Rc<LogFile>, level: Level) -> Log {
        Log::of_targets(vec![Target { level, sink: Sink::File(file) }])
    }

    /// A log that drops everything, for tests and for `error_log` lines not yet compiled.
    pub fn silent() -> Log {
        Log::of_targets(Vec::new())
    }

    /// Whether any target wants lines of this level.
    #[inline]
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.inner.threshold && !self.inner.targets.is_empty()
    }

    /// Writes one line. `context` appends what nginx calls the log handler's part, beginning
    /// with a comma: `, client: 127.0.0.1, server: ...`; debug lines go without it.
    pub fn write(
        &self,
        level: Level,
        connection: Option<u64>,
        message: fmt::Arguments<'_>,
        context: &dyn Fn(&mut Vec<u8>),
    ) {
        if self.enabled(level) {
            self.line(level, None, connection, message, context, Reach::Wanted);
        }
    }

    /// As [`Log::write`], to all targets whatever levels they want: for connections that are
    /// logged in every detail.
    pub fn write_everywhere(
        &self,
        level: Level,
        connection: Option<u64>,
        message: fmt::Arguments<'_>,
        context: &dyn Fn(&mut Vec<u8>),
    ) {
        self.line(level, None, connection, message, context, Reach::Everywhere);
    }

    /// As [`Log::write`], with ` (111: Connection refused)` between message and context. A
    /// message that is too long gives way to it.
    pub fn fail(
        &self,
        level: Level,
        errno: Errno,
        connection: Option<u64>,
        message: fmt::Arguments<'_>,
        context: &dyn Fn(&mut Vec<u8>),
    ) {
        if self.enabled(level) {
            self.line(level, Some(errno), connection, message, context, Reach::Wanted);
        }
    }

    fn line(
        &self,
        level: Level,
        errno: Option<Errno>,
        connection: Option<u64>,
        message: fmt::Arguments<'_>,
        context: &dyn Fn(&mut Vec<u8>),
        reach: Reach,
    ) {
        // Taken, not borrowed: a context that logs by itself finds an empty vector.
        let mut line = LINE.take();
        line.clear();
        let message_at = head(&mut line, level, connection);
        // Writing to a vector cannot fail.
        let _ = line.write_fmt(message);
        if let Some(errno) = errno {
            if line.len() > LINE_LIMIT - ERRNO_ROOM {
                line.truncate(LINE_LIMIT - ERRNO_ROOM);
                line.extend_from_slice(b"...");
            }
            let _ = write!(line, " ({errno})");
        }
        if level != Level::Debug {
            context(&mut line);
        }
        replace_controls(&mut line, message_at);
        line.truncate(LINE_LIMIT - 1);
        line.push(b'\n');
        self.hand_out(level, &line, message_at, reach);
        LINE.set(line);
    }

    fn hand_out(&self, level: Level, line: &[u8], message_at: usize, reach: Reach) {
        let mut on_stderr = false;
        let wanted = |target: &&Target| reach == Reach::Everywhere || level <= target.level;
        for target in self.inner.targets.iter().filter(wanted) {
            match &target.sink {
                Sink::File(file) => {
                    file.append(line);
                    on_stderr |= file.is_stderr();
                }
                Sink::Syslog(syslog) => syslog.send_error(level, line),
                Sink::Console(program) => {
                    console(program, level, &line[message_at..]);
                    on_stderr = true;
                }
            }
        }
        if let Some(program) = MIRROR.get()
            && level <= Level::Warn
            && !on_stderr
        {
            console(program, level, &line[message_at..]);
        }
    }

    /// Makes this the log of the process: where failures of the logs themselves are reported,
    /// and what [`Log::process`] hands out.
    pub fn set_process(&self) {
        // The old one is dropped after the borrow: its files may flush, and log, as they close.
        let old = PROCESS.with_borrow_mut(|process| process.replace(self.clone()));
        drop(old);
    }

    /// The log of the process (nginx: of the cycle); silent until one is set.
    pub fn process() -> Log {
        PROCESS.with_borrow(Option::clone).unwrap_or_else(Log::silent)
    }

    /// Lets stderr end up in this log's first file, for the time after daemonising. A log that
    /// writes to stderr itself, or has no open file, changes nothing.
    ///
    /// # Errors
    /// As `dup2(2)`.
    pub fn redirect_stderr(&self) -> io::Result<()> {
        let files = || {
            self.inner.targets.iter().filter_map(|target| match &target.sink {
                Sink::File(file) => Some(file),
                _ => None,
            })
        };
        if files().any(|file| file.is_stderr()) {
            return Ok(());
        }
        match files().next() {
            Some(file) => file.with_descriptor(redirect_stderr).unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { threshold, targets } = &*self.inner;
        write!(f, "Log({}, {} targets)", threshold.name(), targets.len())
    }
}

/// While a program is given, lines of level warn and worse also go to stderr as
/// `PROGRAM: [level] message`: at start, until the process has left its terminal.
pub fn mirror_to_stderr(program: Option<&'static str>) {
    MIRROR.set(program);
}

/// Appends time, level, process and connection; returns where the level's bracket is followed
/// by the message.
fn head(line: &mut Vec<u8>, level: Level, connection: Option<u64>) -> usize {
    line.extend_from_slice(&clock::error_log());
    line.extend_from_slice(b" [");
    line.extend_from_slice(level.name().as_bytes());
    let pid = std::process::id();
    // One thread per process, whose number is the process's.
    let _ = write!(line, "] {pid}#{pid}: ");
    if let Some(connection) = connection {
        let _ = write!(line, "*{connection} ");
    }
    line.len()
}

fn console(program: &str, level: Level, message: &[u8]) {
    let mut text = Vec::with_capacity(program.len() + message.len() + 16);
    let _ = write!(text, "{program}: [{}] ", level.name());
    text.extend_from_slice(message);
    // There is nowhere left to report that stderr is closed.
    let _ = io::stderr().write_all(&text);
}

/// Replaces control characters from `from` on by `\x1B` and the like; a tab may stay.
fn replace_controls(line: &mut Vec<u8>, from: usize) {
    let is_control = |byte: u8| (byte < 0x20 && byte != b'\t') || byte == 0x7f;
    if !line[from..].iter().copied().any(is_control) {
        return;
    }
    let raw = line.split_off(from);
    for byte in raw {
        if is_control(byte) {
            let _ = write!(line, "\\x{byte:02X}");
        } else {
            line.push(byte);
        }
    }
}

/// An error as messages end with it: `(32: Broken pipe)`. For those that do not go through
/// [`log_errno!`].
pub fn os_text(error: &io::Error) -> String {
    format!("({})", Errno::from(error))
}

/// Bytes as they go into a message: text as it is, what is not UTF-8 as `\xE9`.
pub struct Bytes<'a>(pub &'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
