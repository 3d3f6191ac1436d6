//! Taking rights away from a thread and from what it starts, for good.

use std::io;

/// Makes a system call fail with `EPERM`, in this thread and in all processes that it starts:
/// what a container's seccomp profile does. `number` is one of this machine's architecture.
///
/// # Errors
/// As `prctl(2)`: the kernel has no seccomp filters.
pub fn deny_call(number: i64) -> io::Result<()> {
    let Ok(number) = u32::try_from(number) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let word = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        // The first field of seccomp_data is the number of the call.
        word(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..word(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number) },
        word(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        word(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers only; without new privileges a filter may be set by anybody.
    let r = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program is as long as it says and outlives the call, which copies it.
    let r =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `io_uring_setup(2)` fail, as many sandboxes do.
///
/// # Errors
/// As [`deny_call`].
pub fn deny_io_uring() -> io::Result<()> {
    deny_call(libc::SYS_io_uring_setup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Kind, Settings, start, stop};

    #[test]
    fn an_io_uring_that_can_be_made_but_not_used_is_refused() {
        for call in [libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
            std::thread::spawn(move || {
                deny_call(call).unwrap();
                let refused = start(Settings { kind: Kind::IoUring, events: 1 }).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
                start(Settings::default()).unwrap();
                stop().unwrap();
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn a_denied_call_fails_in_this_thread_only() {
        let begin = || start(Settings { kind: Kind::IoUring, events: 1 });
        std::thread::spawn(move || {
            deny_io_uring().unwrap();
            assert_eq!(begin().unwrap_err().raw_os_error(), Some(libc::EPERM));
            start(Settings::default()).unwrap();
            stop().unwrap();
        })
        .join()
        .unwrap();
        begin().unwrap();
        stop().unwrap();
        assert_eq!(deny_call(-1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
