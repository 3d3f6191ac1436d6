//! Files where `std` alone is not enough: logs for appending, directories with an owner.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;

/// Opens a log: created with `mode` when absent, every write goes to the end, whole lines of
/// several processes do not mix (`O_APPEND`).
pub fn open_append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).open(path)
}

/// Writes all of `bytes` to a file that was opened for appending.
///
/// # Errors
/// As `write(2)`; `WriteZero` when nothing is taken.
pub fn append(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Opens a file anew: created with `mode` when absent, emptied when present.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)
}

/// Creates a new file that nobody else has: `EEXIST` when the name is taken.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// A file without a name, removed when it is closed (`O_TMPFILE`); for file systems without
/// such files, a named one that is unlinked at once.
pub fn create_nameless(directory: &Path) -> io::Result<File> {
    let unnamed = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory);
    match unnamed {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let mut random = [0; 8];
            crate::process::random(&mut random)?;
            let path = directory.join(format!("{:016x}", u64::from_ne_bytes(random)));
            let file = create_new(&path, 0o600)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        outcome => outcome,
    }
}

/// Makes a directory with a mode, unless it is there, and gives it to a user when one is named,
/// as nginx does for its temporary paths.
pub fn make_directory(path: &Path, mode: u32, owner: Option<u32>) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !path.is_dir() {
                return Err(error);
            }
        }
        Err(error) => return Err(error),
    }
    if let Some(user) = owner {
        give_to(path, user)?;
    }
    Ok(())
}

/// Changes the owner of a file when it is another; the group stays, as in nginx.
pub fn give_to(path: &Path, user: u32) -> io::Result<()> {
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path)?) == user {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(user), None)
}

/// Locks a file for this process alone without waiting (`flock(2)`); `WouldBlock` when another
/// holds it. The lock ends with the descriptor, hence with its process.
pub fn lock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("system-file-{}-{name}", std::process::id()));
        make_directory(&path, 0o700, None).unwrap();
        path
    }

    #[test]
    fn appended_lines_follow_each_other() {
        let directory = scratch("append");
        let path = directory.join("log");
        let (mut one, mut other) =
            (open_append(&path, 0o644).unwrap(), open_append(&path, 0o644).unwrap());
        one.write_all(b"one\n").unwrap();
        other.write_all(b"other\n").unwrap();
        one.write_all(b"again\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nother\nagain\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn nameless_files_leave_no_trace() {
        let directory = scratch("nameless");
        let mut file = create_nameless(&directory).unwrap();
        file.write_all(b"spilled").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "spilled");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(directory).unwrap();
    }

    #[test]
    fn directories_keep_their_mode_and_may_exist() {
        let directory = scratch("directory");
        let path = directory.join("body");
        make_directory(&path, 0o700, None).unwrap();
        make_directory(&path, 0o700, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let file = directory.join("file");
        drop(create(&file, 0o600).unwrap());
        assert!(make_directory(&file, 0o700, None).is_err());
        assert!(create_new(&file, 0o600).is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_lock_has_one_holder() {
        let directory = scratch("lock");
        let path = directory.join("lock");
        let (one, other) = (create(&path, 0o600).unwrap(), create(&path, 0o600).unwrap());
        lock(&one).unwrap();
        assert_eq!(lock(&other).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(one);
        lock(&other).unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
