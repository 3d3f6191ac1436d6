//! Log files: opened once by the master, shared by path between all logs that name them.
//!
//! A [`LogFile`] takes whole lines, either at once (error log) or through a buffer that several
//! lines share (access log). When the buffer is written is decided in `pending.rs`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Level, Log, no_context, pending};
use system::driver;
use system::errno::Errno;
use system::file::open_append;

/// What the kernel writes to a pipe without mixing it with other writers (`PIPE_BUF`).
const ATOMIC_PIPE: usize = 4096;
/// Lines without a `buffer=` wait for the end of the turn only up to this many bytes.
const TURN_LIMIT: usize = 64 * 1024;
/// A failing file is reported at most once in so many seconds (nginx: 59).
const COMPLAIN_EVERY: u64 = 60;

/// `buffer=` and `flush=` of `access_log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// Bytes to collect before they are written.
    pub size: usize,
    /// Milliseconds after which they are written anyway.
    pub flush_ms: Option<u64>,
    /// The level at which what is written together is compressed.
    pub gzip: Option<u8>,
}

/// A log file, open or not yet.
pub struct LogFile {
    /// Absolute; empty for stderr.
    path: PathBuf,
    handle: RefCell<Option<Handle>>,
    buffering: Cell<Option<Buffering>>,
    /// Lines that were not written yet.
    waiting: Cell<Vec<u8>>,
    /// What `pending.rs` remembers about this file.
    pub(super) place: pending::Place,
    /// Wall second of the last report about this file.
    complained: Cell<u64>,
}

enum Handle {
    /// Whatever descriptor 2 is at the time of writing.
    Stderr,
    Open {
        file: fs::File,
        regular: bool,
    },
}

impl LogFile {
    fn new(path: PathBuf) -> LogFile {
        let handle = path.as_os_str().is_empty().then_some(Handle::Stderr);
        LogFile {
            path,
            handle: RefCell::new(handle),
            buffering: Cell::new(None),
            waiting: Cell::new(Vec::new()),
            place: pending::Place::default(),
            complained: Cell::new(0),
        }
    }

    /// The absolute path; empty for stderr.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether lines go to stderr.
    pub fn is_stderr(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    /// Gives the file a buffer. It has one for all logs that share it.
    ///
    /// # Errors
    /// With the file as it was, when it has a buffer of other measures.
    pub fn set_buffering(&self, wanted: Buffering) -> Result<(), Buffering> {
        match self.buffering.get() {
            Some(present) if present != wanted => Err(present),
            _ => {
                self.buffering.set(Some(wanted));
                Ok(())
            }
        }
    }

    /// Calls `f` with the descriptor; `None` for stderr and for a file that is not open.
    pub fn with_descriptor<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        match &*self.handle.borrow() {
            Some(Handle::Open { file, .. }) => Some(f(file.as_fd())),
            _ => None,
        }
    }

    /// Writes a line at once, with one call. Failures are ignored: there is no other place to
    /// tell about a log that cannot be written.
    pub fn append(&self, line: &[u8]) {
        let _ = self.write(line);
    }

    /// Takes what `write_line` appends as one line of the access log. It reaches the file at the
    /// end of this turn of the loop, or as the file's [`Buffering`] says.
    pub fn add_line(self: &Rc<LogFile>, write_line: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.waiting.take();
        let start = waiting.len();
        if start == 0
            && let Some(Buffering { size, .. }) = self.buffering.get()
        {
            // A no-op once the vector has grown; a larger buffer grows as it is used.
            waiting.reserve(size.min(TURN_LIMIT));
        }
        write_line(&mut waiting);
        if waiting.len() == start {
            self.waiting.set(waiting);
            return;
        }
        let buffering = self.buffering.get();
        let first = match buffering {
            Some(buffering) => self.keep(buffering.size, &mut waiting, start),
            None if waiting.len() > TURN_LIMIT || !pending::is_running() => {
                self.write_out(&mut waiting);
                false
            }
            None => start == 0,
        };
        self.waiting.set(waiting);
        if first {
            pending::enqueue(self, buffering);
        }
    }

    /// Keeps the line from `start` on in a buffer of `size`, as nginx does: what does not fit
    /// drives out what is there, and what never fits is written through. Says whether the buffer
    /// begins with this line.
    fn keep(&self, size: usize, waiting: &mut Vec<u8>, start: usize) -> bool {
        if waiting.len() <= size {
            return start == 0;
        }
        if start > 0 {
            self.report(self.write_lines(&waiting[..start]));
            waiting.drain(..start);
        }
        if waiting.len() > size {
            self.write_out(waiting);
            return false;
        }
        true
    }

    /// Writes everything that waits.
    pub fn flush(&self) {
        let mut waiting = self.waiting.take();
        self.write_out(&mut waiting);
        self.waiting.set(waiting);
    }

    fn write_out(&self, waiting: &mut Vec<u8>) {
        if !waiting.is_empty() {
            self.report(self.write_lines(waiting));
            waiting.clear();
        }
    }

    /// Writes lines of the access log, compressed where its buffer says so.
    fn write_lines(&self, lines: &[u8]) -> io::Result<()> {
        match self.buffering.get().and_then(|buffering| buffering.gzip) {
            None => self.write(lines),
            Some(level) => self.write_whole(&super::packed::gzip(lines, level)?),
        }
    }

    /// Writes what must not be cut, with one call where the file takes it.
    fn write_whole(&self, bytes: &[u8]) -> io::Result<()> {
        match &*self.handle.borrow() {
            None => Ok(()),
            Some(Handle::Stderr) => io::stderr().write_all(bytes),
            Some(Handle::Open { file, .. }) => (&*file).write_all(bytes),
        }
    }

    /// Writes whole lines: with one call to a regular file, and to a pipe in pieces that the
    /// kernel does not mix with those of other workers.
    fn write(&self, lines: &[u8]) -> io::Result<()> {
        match &*self.handle.borrow() {
            None => Ok(()),
            Some(Handle::Stderr) => io::stderr().write_all(lines),
            Some(Handle::Open { file, regular: true }) => (&*file).write_all(lines),
            Some(Handle::Open { file, regular: false }) => {
                pieces(lines).try_for_each(|piece| (&*file).write_all(piece))
            }
        }
    }

    fn report(&self, outcome: io::Result<()>) {
        let Err(error) = outcome else { return };
        let (now, _) = driver::wall();
        if now < self.complained.get() + COMPLAIN_EVERY {
            return;
        }
        self.complained.set(now);
        let message = format_args!("write() to \"{}\" failed", self.path.display());
        Log::process().fail(Level::Alert, Errno::from(error), None, message, &no_context);
    }

    fn open(&self) -> io::Result<()> {
        let file = open_append(&self.path, 0o644)?;
        let regular = file.metadata().is_ok_and(|about| about.is_file());
        self.handle.replace(Some(Handle::Open { file, regular }));
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        let waiting = self.waiting.take();
        if !waiting.is_empty() {
            // Not reported: the process's log may be going away at this moment too.
            let _ = self.write_lines(&waiting);
        }
    }
}

impl fmt::Debug for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogFile({})", self.path.display())
    }
}

/// Cuts lines into pieces of at most [`ATOMIC_PIPE`] bytes, between lines where that is possible.
pub(super) fn pieces(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = if rest.len() <= ATOMIC_PIPE {
            rest.len()
        } else {
            let fits = rest[..ATOMIC_PIPE].iter().rposition(|&byte| byte == b'\n');
            let line = || rest.iter().position(|&byte| byte == b'\n');
            fits.or_else(line).map_or(rest.len(), |newline| newline + 1)
        };
        let (piece, after) = rest.split_at(cut);
        rest = after;
        Some(piece)
    })
}

/// Why a log file could not be opened, in nginx's words: `open() "/p" failed (13: ...)`.
#[derive(Debug)]
pub struct OpenError {
    /// The absolute path.
    pub path: PathBuf,
    /// What `open(2)` answered.
    pub errno: Errno,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open() \"{}\" failed ({})", self.path.display(), self.errno)
    }
}

/// All log files of a configuration.
#[derive(Clone)]
pub struct LogFiles {
    inner: Rc<Inner>,
}

struct Inner {
    prefix: PathBuf,
    files: RefCell<Vec<Rc<LogFile>>>,
    /// The logs compiled so far, by the place of their first line.
    logs: RefCell<HashMap<config::Span, Log>>,
    main: RefCell<Option<Log>>,
}

impl LogFiles {
    /// An empty registry; relative paths start at `prefix` (`-p`).
    pub fn new(prefix: &Path) -> LogFiles {
        let inner = Inner {
            prefix: prefix.to_owned(),
            files: RefCell::default(),
            logs: RefCell::default(),
            main: RefCell::default(),
        };
        LogFiles { inner: Rc::new(inner) }
    }

    /// The file of a path, not opened yet when it is new. The same path gives the same file; an
    /// empty one is stderr, as in nginx.
    pub fn file(&self, path: &Path) -> Rc<LogFile> {
        if path.as_os_str().is_empty() {
            return self.entry(PathBuf::new());
        }
        self.entry(self.absolute(path))
    }

    /// Stderr as a file.
    pub fn stderr(&self) -> Rc<LogFile> {
        self.entry(PathBuf::new())
    }

    /// Whether anything is logged to stderr, at whatever level of the configuration.
    pub fn uses_stderr(&self) -> bool {
        self.inner.files.borrow().iter().any(|file| file.is_stderr())
    }

    /// The path with the prefix in front, unless it has a root. nginx puts the two together as
    /// texts, and messages show the result.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.inner.prefix.join(path)
    }

    fn entry(&self, path: PathBuf) -> Rc<LogFile> {
        let mut files = self.inner.files.borrow_mut();
        if let Some(file) = files.iter().find(|file| file.path == path) {
            return file.clone();
        }
        let file = Rc::new(LogFile::new(path));
        files.push(file.clone());
        file
    }

    /// The log whose first line is at `place`, made when it is asked for the first time.
    pub(super) fn log_of(&self, place: config::Span, make: impl FnOnce() -> Log) -> Log {
        if let Some(log) = self.inner.logs.borrow().get(&place) {
            return log.clone();
        }
        let log = make();
        self.inner.logs.borrow_mut().insert(place, log.clone());
        log
    }

    /// The log of the main level; silent until it is compiled.
    pub fn main_log(&self) -> Log {
        self.inner.main.borrow().clone().unwrap_or_else(Log::silent)
    }

    pub(super) fn set_main_log(&self, log: Log) {
        self.inner.main.replace(Some(log));
    }

    /// Opens every file that is not open, creating those that do not exist (mode 0644). Done by
    /// the master before it forks.
    ///
    /// # Errors
    /// At the first file that cannot be opened, to be reported at level emerg.
    pub fn open(&self) -> Result<(), OpenError> {
        for file in self.inner.files.borrow().iter() {
            if file.handle.borrow().is_some() {
                continue;
            }
            file.open().map_err(|error| OpenError {
                path: file.path.clone(),
                errno: Errno::from(error),
            })?;
        }
        Ok(())
    }

    /// Opens every file anew, under the name it has (signal USR1), after writing what waits to
    /// the old one. A file that cannot be opened is reported and stays what it was. The master
    /// gives the number of the workers' user, who then owns the files and may write them: the
    /// workers open them next, for themselves.
    pub fn reopen(&self, owner: Option<u32>, log: &Log) {
        for file in self.inner.files.borrow().iter().filter(|file| !file.is_stderr()) {
            file.flush();
            if let Err(error) = file.open() {
                let path = file.path.display();
                log.fail(
                    Level::Emerg,
                    Errno::from(error),
                    None,
                    format_args!("open() \"{path}\" failed"),
                    &no_context,
                );
                continue;
            }
            if let Some(user) = owner {
                give_to(&file.path, user, log);
            }
        }
    }

    /// Writes everything that waits in any of the files.
    pub fn flush(&self) {
        for file in self.inner.files.borrow().iter() {
            file.flush();
        }
    }
}

/// Makes `user` the owner of a log, with the right to read and write it.
fn give_to(path: &Path, user: u32, log: &Log) {
    const OWNER_READS_AND_WRITES: u32 = 0o600;
    let failed = |call: &str, error: io::Error| {
        let message = format_args!("{call}(\"{}\") failed", path.display());
        log.fail(Level::Emerg, Errno::from(error), None, message, &no_context);
    };
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) => return failed("stat", error),
    };
    if about.uid() == user {
        return;
    }
    if let Err(error) = system::file::give_to(path, user) {
        let message = format_args!("chown(\"{}\", {user}) failed", path.display());
        log.fail(Level::Emerg, Errno::from(error), None, message, &no_context);
        return;
    }
    let mode = about.mode();
    if mode & OWNER_READS_AND_WRITES != OWNER_READS_AND_WRITES {
        let wider = fs::Permissions::from_mode((mode | OWNER_READS_AND_WRITES) & 0o7777);
        if let Err(error) = fs::set_permissions(path, wider) {
            failed("chmod", error);
        }
    }
}
