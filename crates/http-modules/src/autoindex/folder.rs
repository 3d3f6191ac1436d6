//! A folder of the file system and its entries.

use http::Exchange;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno as Code;
use session::log::{Bytes, Level};
use session::text::Span;
use std::os::fd::OwnedFd;
use system::errno::Errno;

/// An open folder.
pub(crate) struct Folder {
    file: OwnedFd,
    /// Its path, which ends in a slash.
    path: Span,
}

/// What is in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// Time of the last change, in seconds since 1970.
    pub(crate) changed: i64,
    /// In bytes.
    pub(crate) size: u64,
}

/// What an entry is, after following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
    Other,
}

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// The status to answer with; the reason is logged.
    pub(crate) fn open(x: &Exchange, path: Span) -> Result<Folder, u16> {
        let bare = match x.text(path) {
            text @ [_, _, ..] => text.strip_suffix(b"/").unwrap_or(text),
            text => text,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::open(bare, flags, Mode::empty()) {
            Ok(file) => Ok(Folder { file, path }),
            Err(code) => {
                let (level, status) = match code {
                    // A path with a NUL inside names nothing: EINVAL.
                    Code::NOENT | Code::NOTDIR | Code::NAMETOOLONG | Code::INVAL => {
                        (Level::Error, 404)
                    }
                    Code::ACCESS => (Level::Error, 403),
                    _ => (Level::Crit, 500),
                };
                let (shown, errno) = (Bytes(bare), Errno::from(code));
                x.log_error(level, format_args!("opendir() \"{shown}\" failed ({errno})"));
                Err(status)
            }
        }
    }

    /// All entries but hidden ones, in no order. One that may not be looked at is left out.
    ///
    /// # Errors
    /// When the folder cannot be read to its end; the reason is logged.
    pub(crate) fn entries(self, x: &Exchange) -> Result<Vec<Entry>, ()> {
        let mut entries = Vec::new();
        let failed = |call: &str, name: &[u8], code: Code| {
            let (folder, name, errno) = (Bytes(x.text(self.path)), Bytes(name), Errno::from(code));
            x.log_error(Level::Crit, format_args!("{call} \"{folder}{name}\" failed ({errno})"));
        };
        let listing = Dir::read_from(&self.file).map_err(|code| failed("opendir()", b"", code))?;
        for found in listing {
            let found = found.map_err(|code| failed("readdir()", b"", code))?;
            let name = found.file_name().to_bytes();
            if name.starts_with(b".") {
                continue;
            }
            match self.stat(name) {
                Ok(stat) => entries.push(Entry::new(name, &stat)),
                Err((call, code)) => {
                    failed(call, name, code);
                    if code != Code::ACCESS {
                        return Err(());
                    }
                }
            }
        }
        Ok(entries)
    }

    /// What an entry is; of a link that leads nowhere, what the link is.
    fn stat(&self, name: &[u8]) -> Result<Stat, (&'static str, Code)> {
        match rustix::fs::statat(&self.file, name, AtFlags::empty()) {
            Err(Code::NOENT | Code::LOOP) => {
                rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|code| ("lstat()", code))
            }
            other => other.map_err(|code| ("stat()", code)),
        }
    }
}

impl Entry {
    fn new(name: &[u8], stat: &Stat) -> Entry {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File,
            _ => Kind::Other,
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Entry { name: name.to_vec(), kind, changed: stat.st_mtime, size }
    }

    /// True for a regular file, or a link to one.
    pub(crate) fn is_file(&self) -> bool {
        self.kind == Kind::File
    }
}

/// Folders first, then by name, byte by byte.
pub(super) fn sort(entries: &mut [Entry]) {
    entries.sort_unstable_by(|one, other| {
        let rank = |entry: &Entry| entry.kind != Kind::Folder;
        (rank(one), &one.name).cmp(&(rank(other), &other.name))
    });
}
