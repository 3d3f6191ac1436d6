//! The file that tells scripts which process is the master.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use session::log::{Level, Log, no_context};
use session::{log, log_errno};
use system::file;
use system::process::{Pid, own_pid};

/// Writes the number of this process. A failure is logged.
pub fn create(path: &Path, log: &Log) -> io::Result<()> {
    let line = format!("{}\n", own_pid());
    // Renamed into place, so that whoever waits for the file never reads half of it. Where the
    // directory is closed but the file is there and open to us, it is written where it is.
    let draft = draft_name(path);
    if file::create_new(&draft, 0o644).and_then(|mut file| file.write_all(line.as_bytes())).is_ok()
        && std::fs::rename(&draft, path).is_ok()
    {
        return Ok(());
    }
    let written = file::create(path, 0o644).and_then(|mut file| file.write_all(line.as_bytes()));
    written.inspect_err(|error| say_open_failed(path, error, log))
}

/// Whether the file could be written, without changing one that is there.
pub fn test(path: &Path, log: &Log) -> io::Result<()> {
    let tested = if path.exists() {
        OpenOptions::new().write(true).open(path).map(drop)
    } else {
        // Under another name: the file itself says that somebody serves.
        let draft = draft_name(path);
        file::create_new(&draft, 0o644).and_then(|_| std::fs::remove_file(&draft))
    };
    tested.inspect_err(|error| say_open_failed(path, error, log))
}

/// A name beside the file that no other process uses.
fn draft_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{}", own_pid()));
    PathBuf::from(name)
}

fn say_open_failed(path: &Path, error: &io::Error, log: &Log) {
    let path = path.display();
    log_errno!(log, Level::Emerg, error.into(), None, &no_context, "open() \"{path}\" failed");
}

/// Reads the number of a running master. A failure is logged as nginx's `-s` does.
pub fn read(path: &Path, log: &Log) -> Option<Pid> {
    let shown = path.display();
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            let errno = error.into();
            log_errno!(log, Level::Error, errno, None, &no_context, "open() \"{shown}\" failed");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&text);
    let digits = text.trim_end_matches(['\r', '\n']);
    let number = digits.parse().ok().filter(|&number| number > 0);
    if number.is_none() {
        log!(
            log,
            Level::Error,
            None,
            &no_context,
            "invalid PID number \"{digits}\" in \"{shown}\""
        );
    }
    number.map(Pid)
}

/// Removes the file; one that is gone already is said.
pub fn remove(path: &Path, log: &Log) {
    if let Err(error) = std::fs::remove_file(path) {
        let path = path.display();
        let errno = error.into();
        log_errno!(log, Level::Alert, errno, None, &no_context, "unlink() \"{path}\" failed");
    }
}

/// Where the old program's number is kept during an upgrade: `nginx.pid.oldbin`.
pub fn old_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".oldbin");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_through_the_file() {
        let path = std::env::temp_dir().join(format!("heng-pid-{}", std::process::id()));
        let log = Log::silent();
        test(&path, &log).unwrap();
        assert!(!path.exists());
        create(&path, &log).unwrap();
        assert_eq!(read(&path, &log), Some(own_pid()));
        test(&path, &log).unwrap();
        assert_eq!(read(&path, &log), Some(own_pid()));
        for nonsense in ["", "x\n", "-5\n", "0\n", "99999999999\n"] {
            std::fs::write(&path, nonsense).unwrap();
            assert_eq!(read(&path, &log), None, "{nonsense:?}");
        }
        remove(&path, &log);
        assert_eq!(read(&path, &log), None);
        assert!(test(Path::new("/nowhere/at/all"), &log).is_err());
        assert_eq!(old_name(Path::new("/r/x.pid")), Path::new("/r/x.pid.oldbin"));
    }
}
