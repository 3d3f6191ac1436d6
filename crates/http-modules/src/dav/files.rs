//! What is done to files and folders. Blocking calls, as all that touches files is.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http::Exchange;
use session::log::{Bytes, Level};
use system::errno::Errno;

/// Folders inside one another that are followed: no more fit into a path that the kernel takes.
const DEEPEST: usize = 2048;

/// A call that failed.
pub(super) struct Failed {
    call: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl Failed {
    /// For `map_err`.
    pub(super) fn of(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed {
        let path = path.to_owned();
        move |error| Failed { call, path, error }
    }

    /// Logs it; the status that answers it, `missing` where something was not there.
    pub(super) fn status(self, x: &Exchange, missing: u16) -> u16 {
        use io::ErrorKind as K;
        let (level, status) = match self.error.kind() {
            K::NotFound | K::NotADirectory | K::InvalidFilename | K::InvalidInput => {
                (Level::Error, missing)
            }
            K::PermissionDenied => (Level::Error, 403),
            K::AlreadyExists => (Level::Error, 405),
            K::StorageFull => (Level::Crit, 507),
            _ => (Level::Crit, 500),
        };
        self.log(x, level);
        status
    }

    /// Logs it as something that should not happen: 500.
    pub(super) fn crit(self, x: &Exchange) -> u16 {
        self.log(x, Level::Crit);
        500
    }

    fn log(&self, x: &Exchange, level: Level) {
        let (call, shown) = (self.call, Bytes(self.path.as_os_str().as_bytes()));
        let errno = Errno::from(&self.error);
        x.log_error(level, format_args!("{call} \"{shown}\" failed ({errno})"));
    }
}

/// The path that stands in the text.
pub(super) fn path(text: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(text)).to_owned()
}

pub(super) fn set_changed(path: &Path, time: SystemTime) -> io::Result<()> {
    File::options().write(true).open(path)?.set_modified(time)
}

/// Gives a file another name, also on another file system; with `folders`, the mode of the
/// folders that are made on the way.
pub(super) fn rename(from: &Path, to: &Path, folders: Option<u32>) -> Result<(), Failed> {
    let mut renamed = fs::rename(from, to);
    if let (Err(error), Some(mode), Some(folder)) = (&renamed, folders, to.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        let made = DirBuilder::new().mode(mode).recursive(true).create(folder);
        made.map_err(Failed::of("mkdir()", folder))?;
        renamed = fs::rename(from, to);
    }
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let beside = beside(to, from);
            let copied = copy(from, &beside).and_then(|()| {
                fs::rename(&beside, to).map_err(Failed::of("rename()", to))?;
                fs::remove_file(from).map_err(Failed::of("unlink()", from))
            });
            if copied.is_err() {
                // What is half done is of no use to anybody.
                let _ = fs::remove_file(&beside);
            }
            copied
        }
        renamed => renamed.map_err(Failed::of("rename()", to)),
    }
}

/// A name in the folder of `path` that nobody else uses.
fn beside(path: &Path, temp: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(temp.file_name().unwrap_or_default());
    name.into()
}

/// Copies a file with its permissions and its time of change.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    let opened = File::open(from).map_err(Failed::of("open()", from))?;
    let about = opened.metadata().map_err(Failed::of("fstat()", from))?;
    if !about.is_file() {
        let error = io::ErrorKind::InvalidInput.into();
        return Err(Failed::of("open()", from)(error));
    }
    let target = File::options().write(true).create(true).truncate(true).open(to);
    let mut target = target.map_err(Failed::of("open()", to))?;
    io::copy(&mut &opened, &mut target).map_err(Failed::of("write()", to))?;
    let permissions = Permissions::from_mode(about.mode() & 0o777);
    target.set_permissions(permissions).map_err(Failed::of("chmod()", to))?;
    let time = about.modified().map_err(Failed::of("fstat()", from))?;
    target.set_modified(time).map_err(Failed::of("futimes()", to))
}

/// Removes a file, or a folder with all that is in it. What cannot be removed in there is logged,
/// and the rest is removed all the same.
pub(super) fn remove(x: &Exchange, path: &Path, is_folder: bool) -> Result<(), Failed> {
    if !is_folder {
        return fs::remove_file(path).map_err(Failed::of("unlink()", path));
    }
    remove_folder(x, path, 0)
}

fn remove_folder(x: &Exchange, path: &Path, depth: usize) -> Result<(), Failed> {
    for (inner, is_folder) in entries(path)? {
        let removed = match is_folder {
            true if depth < DEEPEST => remove_folder(x, &inner, depth + 1),
            true => Ok(()),
            false => fs::remove_file(&inner).map_err(Failed::of("unlink()", &inner)),
        };
        if let Err(failed) = removed {
            failed.status(x, 0);
        }
    }
    fs::remove_dir(path).map_err(Failed::of("rmdir()", path))
}

/// Copies all that is in a folder; links and what is neither file nor folder stay behind. What
/// cannot be copied is logged, and the rest is copied all the same.
pub(super) fn copy_folder(x: &Exchange, from: &Path, to: &Path) -> Result<(), Failed> {
    copy_level(x, from, to, 0)
}

fn copy_level(x: &Exchange, from: &Path, to: &Path, depth: usize) -> Result<(), Failed> {
    let about = fs::symlink_metadata(from).map_err(Failed::of("lstat()", from))?;
    let mode = about.mode() & 0o777;
    DirBuilder::new().mode(mode).create(to).map_err(Failed::of("mkdir()", to))?;
    for (inner, is_folder) in entries(from)? {
        let target = to.join(inner.file_name().unwrap_or_default());
        let copied = match is_folder {
            true if depth < DEEPEST => copy_level(x, &inner, &target, depth + 1),
            true => Ok(()),
            false if inner.is_symlink() || !inner.is_file() => Ok(()),
            false => copy(&inner, &target),
        };
        if let Err(failed) = copied {
            failed.status(x, 0);
        }
    }
    Ok(())
}

/// What is in a folder, and whether it is a folder itself.
fn entries(path: &Path) -> Result<Vec<(PathBuf, bool)>, Failed> {
    let listing = fs::read_dir(path).map_err(Failed::of("opendir()", path))?;
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.map_err(Failed::of("readdir()", path))?;
        let kind = entry.file_type().map_err(Failed::of("lstat()", path))?;
        entries.push((entry.path(), kind.is_dir()));
    }
    Ok(entries)
}
