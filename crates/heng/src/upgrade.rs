//! Changing the program under running connections (USR2): the new one is executed with the
//! listening sockets open, and both serve until somebody ends one of them.
//!
//! The convention is nginx's, so that heng can replace nginx and the other way round: the numbers
//! of the sockets stand in the environment variable `NGINX` as `7;8;`, and the old program's pid
//! file becomes `.oldbin`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use session::log::{Level, Log, no_context};
use session::{log, log_errno};
use system::process::{self, Pid};
use system::title;

use crate::open::Generation;
use crate::pid_file;
use crate::worker;

/// The environment variable with the sockets.
const VARIABLE: &str = "NGINX";

/// The sockets that an older program hands over, when there is one. What else may stand in a
/// variable of that name, such as a path, is none of our business.
pub fn inherited() -> Option<String> {
    let value = std::env::var(VARIABLE).ok()?;
    value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')).then_some(value)
}

/// Starts the program anew with the arguments of this one. Nothing when it cannot be; the reason
/// is logged, and the pid file has its name again.
pub fn start(generation: &Generation, log: &Log) -> Option<Pid> {
    let pid_file = &generation.snapshot.core.pid_file;
    let old_file = pid_file::old_name(pid_file);
    let arguments = title::arguments();
    let called = arguments.first().map_or(OsStr::new(""), |name| name.as_os_str());
    let program = find_program(called);
    let shown = program.display().to_string();
    if let Err(error) = std::fs::rename(pid_file, &old_file) {
        let (from, to) = (pid_file.display(), old_file.display());
        log_errno!(
            log,
            Level::Alert,
            error.into(),
            None,
            &no_context,
            "rename() {from} to {to} failed before executing new binary process \"{shown}\""
        );
        return None;
    }
    match execute(generation, &program, arguments) {
        Ok(pid) => {
            log!(log, Level::Notice, None, &no_context, "start new binary process {pid}");
            Some(pid)
        }
        Err(error) => {
            log_errno!(
                log,
                Level::Alert,
                error.into(),
                None,
                &no_context,
                "execve() failed while executing new binary process \"{shown}\""
            );
            restore_pid_file(pid_file, log);
            None
        }
    }
}

fn execute(generation: &Generation, program: &Path, arguments: &[OsString]) -> io::Result<Pid> {
    let mut environment = worker::environment(&generation.snapshot.core.environment);
    environment.push(format!("{VARIABLE}={}", generation.listeners.numbers()).into());
    let sockets: Vec<BorrowedFd<'_>> = generation.listeners.descriptors().collect();
    process::execute(program, arguments, &environment, &sockets)
}

/// Gives the pid file its name back after the new program has died.
pub fn restore_pid_file(pid_file: &Path, log: &Log) {
    let old_file = pid_file::old_name(pid_file);
    if let Err(error) = std::fs::rename(&old_file, pid_file) {
        let (from, to) = (old_file.display(), pid_file.display());
        log_errno!(
            log,
            Level::Alert,
            error.into(),
            None,
            &no_context,
            "rename() {from} back to {to} failed after the new binary process exited"
        );
    }
}

/// The file of a program as a shell finds it: by its path, or in `PATH`. Found anew at each
/// upgrade, because the file is what was replaced.
fn find_program(called: &OsStr) -> PathBuf {
    let direct = PathBuf::from(called);
    if direct.components().count() > 1 || direct.is_absolute() {
        return direct;
    }
    let executable = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(called))
        .find(executable)
        .unwrap_or(direct)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        for (called, expected) in [
            ("/usr/sbin/nginx", "/usr/sbin/nginx"),
            ("./heng", "./heng"),
            ("target/heng", "target/heng"),
            ("surely-no-such-program", "surely-no-such-program"),
        ] {
            assert_eq!(find_program(OsStr::new(called)), Path::new(expected));
        }
        let shell = find_program(OsStr::new("sh"));
        assert!(shell.is_absolute() && shell.ends_with("sh"), "{shell:?}");
    }
}
