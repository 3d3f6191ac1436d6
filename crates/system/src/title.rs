//! What `ps` shows for this process: `nginx: worker process`.
//!
//! The kernel shows the memory where it once put the arguments. To write longer texts there, the
//! environment, which lies right behind, is moved to the heap first, as other servers do.

use std::ffi::{CString, OsString};
use std::io;
use std::sync::OnceLock;

use crate::process::stat_field;

struct Area {
    start: usize,
    length: usize,
}

static AREA: OnceLock<Area> = OnceLock::new();
static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

unsafe extern "C" {
    static mut environ: *mut *mut libc::c_char;
}

/// The arguments that this process was started with, whatever its title is now. `std::env`
/// reads the memory that a title overwrites.
pub fn arguments() -> &'static [OsString] {
    ARGUMENTS.get_or_init(|| std::env::args_os().collect())
}

/// Prepares for titles; call it first in `main`, while there is a single thread. Without /proc
/// it fails and [`set`] does nothing.
pub fn prepare() -> io::Result<()> {
    let arguments = arguments();
    let status = std::fs::read_to_string("/proc/self/stat")?;
    // proc_pid_stat(5): (48) arg_start, (49) arg_end, (50) env_start, (51) env_end.
    let field = |number| stat_field(&status, number).map(|value| value as usize);
    let (Some(start), Some(arg_end), Some(env_start), Some(env_end)) =
        (field(48), field(49), field(50), field(51))
    else {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    };
    let spoken: usize = arguments.iter().map(|text| text.len() + 1).sum();
    if start == 0 || arg_end.checked_sub(start) != Some(spoken) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let end = if env_start == arg_end && env_end > env_start { env_end } else { arg_end };
    install_environment(present_environment());
    AREA.get_or_init(|| Area { start, length: end - start });
    Ok(())
}

/// Shows a text in `ps` instead of the command line; it is cut to the room there is.
pub fn set(text: &str) {
    let Some(area) = AREA.get() else { return };
    // One zero byte at the end is always kept.
    let shown = &text.as_bytes()[..text.len().min(area.length - 1)];
    // SAFETY: the kernel put the arguments and the environment into this range of the stack,
    // readable and writable for the life of the process. `prepare` moved the environment away
    // and copied the arguments, so no reference points into it; `std::env::args` would still
    // read zero-terminated texts, because the whole range ends in zeroes.
    unsafe {
        let start = area.start as *mut u8;
        start.write_bytes(0, area.length);
        start.copy_from_nonoverlapping(shown.as_ptr(), shown.len());
    }
}

fn present_environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(std::os::unix::ffi::OsStringExt::into_vec(name)).ok()
        })
        .collect()
}

/// Puts a new environment in place of the present one. The memory is given to the process for
/// good: C code may keep pointers into an environment (getenv(3)). Called at most twice in the
/// life of a process.
pub(crate) fn install_environment(texts: Vec<CString>) {
    let pointers: Vec<*mut libc::c_char> =
        texts.into_iter().map(CString::into_raw).chain([std::ptr::null_mut()]).collect();
    // SAFETY: the array ends in a null pointer and lives for ever, and so do the texts. The
    // process has a single thread at the two places that call this (documented there), so
    // nobody reads the environment meanwhile.
    unsafe { environ = Box::leak(pointers.into_boxed_slice()).as_mut_ptr() };
}
