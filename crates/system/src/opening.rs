//! Opening files that others may have put there: without symbolic links, or with those alone
//! whose owner also owns what they lead to, and never waiting for the other end of a pipe.
//!
//! A path is walked folder by folder with `openat(2)`, so that nobody can put a link in the place
//! of a folder between the check and its use.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, open, openat, stat, statat};
use rustix::io::{Errno, retry_on_intr};

/// What a file may be opened through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// Any symbolic link.
    #[default]
    Any,
    /// No symbolic link.
    None,
    /// Links whose owner is the owner of what they lead to.
    SameOwner,
}

/// A way to a file: which links it may lead through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// What is allowed.
    pub links: Links,
    /// Bytes at the start of the path that may lead through any links; the next one is a slash.
    pub trusted: usize,
}

/// What a file is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be read; a folder can be opened too.
    Read,
    /// To write at its end; it is created, with the mode 0644, when it is not there.
    Append,
}

/// Why a file is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The call that failed, as logs show it: `openat()`.
    pub call: &'static str,
    /// Its error.
    pub code: Errno,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A device, a pipe, a socket.
    Other,
}

/// What is known about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// In bytes.
    pub size: u64,
    /// Time of the last change, in seconds since 1970.
    pub changed: u64,
    /// Device and number of the file: the same while it is the same file.
    pub id: (u64, u64),
}

impl About {
    fn new(stat: &Stat) -> About {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        };
        About {
            kind,
            mode: stat.st_mode & 0o7777,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: stat.st_mtime as u64,
            id: (stat.st_dev, stat.st_ino),
        }
    }
}

/// Opens a file, and tells what it is.
///
/// # Errors
/// `ELOOP` for a last part that is a link which is not allowed, `ENOTDIR` for such a link before.
pub fn open_file(path: &[u8], way: Way, purpose: Purpose) -> Result<(OwnedFd, About), Failure> {
    let file = open_way(path, way, purpose)?;
    let stat = fstat(&file).map_err(|code| Failure { call: "fstat()", code })?;
    Ok((file, About::new(&stat)))
}

/// Tells what a path leads to, without a need to read it where links do not matter.
///
/// # Errors
/// As [`open_file`].
pub fn look(path: &[u8], way: Way) -> Result<About, Failure> {
    if way.links == Links::Any {
        let stat = stat(path).map_err(|code| Failure { call: "stat()", code })?;
        return Ok(About::new(&stat));
    }
    open_file(path, way, Purpose::Read).map(|(_, about)| about)
}

fn open_way(path: &[u8], way: Way, purpose: Purpose) -> Result<OwnedFd, Failure> {
    let (flags, mode) = match purpose {
        Purpose::Read => (OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()),
        Purpose::Append => {
            (OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, Mode::from_raw_mode(0o644))
        }
    };
    let flags = flags | OFlags::CLOEXEC;
    let plain = |code| Failure { call: "open()", code };
    let failed = |code| Failure { call: "openat()", code };
    if way.links == Links::Any {
        return retry_on_intr(|| open(path, flags, mode)).map_err(plain);
    }
    let (trusted, rest) = path.split_at_checked(way.trusted).unwrap_or((b"", path));
    let (mut folder, rest) = match (trusted, rest) {
        ([], [b'/', rest @ ..]) => (Some(open(&b"/"[..], SEARCH, Mode::empty())), rest),
        ([], rest) => (None, rest),
        (trusted, rest) => (Some(open(trusted, SEARCH, Mode::empty())), rest),
    };
    let mut at = folder.take().transpose().map_err(plain)?;
    let mut parts = rest.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let here = at.as_ref().map_or(CWD, AsFd::as_fd);
        if parts.peek().is_some() {
            if !part.is_empty() {
                at = Some(step(here, part, way.links, SEARCH, Mode::empty()).map_err(failed)?);
            }
        } else if part.is_empty() {
            // A path that ends in a slash is a folder: itself, with the flags that are wanted.
            return openat(here, &b"."[..], flags, mode).map_err(failed);
        } else {
            // A file that may have to be created has no owner yet to be compared.
            let links = if purpose == Purpose::Append { Links::None } else { way.links };
            return step(here, part, links, flags, mode).map_err(failed);
        }
    }
    Err(failed(Errno::NOENT))
}

/// How folders on the way are opened: nothing but searching them is asked for.
const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// One step of the way.
fn step(
    at: BorrowedFd<'_>,
    part: &[u8],
    links: Links,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    if links != Links::SameOwner {
        return openat(at, part, flags | OFlags::NOFOLLOW, mode);
    }
    let file = openat(at, part, flags, mode)?;
    // Whether a link was there when it was opened cannot be known, so the owners are compared in
    // any case.
    let named = statat(at, part, AtFlags::SYMLINK_NOFOLLOW)?;
    if fstat(&file)?.st_uid != named.st_uid {
        return Err(Errno::LOOP);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    fn scratch() -> PathBuf {
        let path = std::env::temp_dir().join(format!("system-opening-{}", std::process::id()));
        std::fs::create_dir_all(path.join("in")).unwrap();
        std::fs::write(path.join("in/file"), "text").unwrap();
        symlink("file", path.join("in/link")).unwrap();
        symlink("in", path.join("way")).unwrap();
        symlink("nowhere", path.join("in/loose")).unwrap();
        path.canonicalize().unwrap()
    }

    #[test]
    fn links_are_followed_as_the_way_says() {
        let folder = scratch();
        let text = folder.as_os_str().as_encoded_bytes();
        let check = |rest: &str, links: Links, trusted: &str, expected: Result<Kind, Errno>| {
            let path = [text, rest.as_bytes()].concat();
            let trusted = if trusted.is_empty() { 0 } else { text.len() + trusted.len() - 1 };
            let way = Way { links, trusted };
            let found = open_file(&path, way, Purpose::Read);
            let found = found.map(|(_, about)| about.kind).map_err(|failure| failure.code);
            assert_eq!(found, expected, "{rest} {way:?}");
            let looked = look(&path, way).map(|about| about.kind).map_err(|failure| failure.code);
            assert_eq!(looked, expected, "{rest} {way:?}");
        };
        for links in [Links::Any, Links::None, Links::SameOwner] {
            check("/in/file", links, "", Ok(Kind::File));
            check("//in//./file", links, "", Ok(Kind::File));
            check("/in/../in/file", links, "", Ok(Kind::File));
            check("/in", links, "", Ok(Kind::Folder));
            check("/in/", links, "", Ok(Kind::Folder));
            check("/in/file/", links, "", Err(Errno::NOTDIR));
            check("/in/none", links, "", Err(Errno::NOENT));
        }
        for links in [Links::Any, Links::SameOwner] {
            check("/in/link", links, "", Ok(Kind::File));
            check("/way/link", links, "", Ok(Kind::File));
            check("/in/loose", links, "", Err(Errno::NOENT));
        }
        check("/in/link", Links::None, "", Err(Errno::LOOP));
        check("/way/file", Links::None, "", Err(Errno::NOTDIR));
        check("/way/file", Links::None, "/way/", Ok(Kind::File));
        check("/way/link", Links::None, "/way/", Err(Errno::LOOP));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
