//! Processes: fork, wait, daemonise, execute, limits, priority, affinity, users.
//!
//! The names and the order of steps are nginx's, so that a worker ends up with the rights and
//! limits that an administrator expects. What ps shows stands in `title`.
//!
//! After a fork the child must make its own epoll, signal queue, timers and random seeds
//! ([`random`] asks the kernel, hence needs no reseeding; user-space generators do).

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{self as sys, DumpableBehavior, Rlimit};
use rustix::thread::CpuSet;

use crate::shared;
use crate::signals::{self, Signal};

/// A process number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// This process.
pub fn own_pid() -> Pid {
    Pid(sys::getpid().as_raw_nonzero().get())
}

/// The process that started this one; 0 when it lives outside of our pid namespace.
pub fn parent_pid() -> Pid {
    Pid(sys::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()))
}

/// Which side of a [`fork`] runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    Parent { child: Pid },
    Child,
}

/// Doubles this process (`fork(2)`).
///
/// Refused with `EBUSY` when the process has other threads: they would vanish in the child and
/// leave their locks held for ever.
pub fn fork() -> io::Result<Fork> {
    if !cfg!(test) && thread_count().is_some_and(|count| count > 1) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the process is single-threaded (asked above), so the child finds every lock of
    // the allocator and of std in a state that its only thread knows.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            shared::forget_own_birth();
            Ok(Fork::Child)
        }
        child => Ok(Fork::Parent { child: Pid(child) }),
    }
}

/// Number of threads, when /proc is there to tell.
fn thread_count() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/stat").ok()?;
    stat_field(&status, 20)
}

/// One numeric field of `/proc/PID/stat`, numbered from 1 as in `proc_pid_stat(5)`; only fields
/// behind the command name, which may hold spaces and parentheses.
pub(crate) fn stat_field(status: &str, number: usize) -> Option<u64> {
    let behind_name = &status[status.rfind(')')? + 1..];
    behind_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It left with a code of its own.
    Code(i32),
    /// A signal ended it, perhaps leaving a core file.
    Signal { number: i32, core: bool },
}

/// Collects one child that has ended; nothing while all run. `ECHILD` when there is none at all.
pub fn reap() -> io::Result<Option<(Pid, Exit)>> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let child = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => Ok(Some((Pid(child), exit_of(status)))),
    }
}

/// Waits until one child has ended.
pub fn wait_for(child: Pid) -> io::Result<Exit> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        if unsafe { libc::waitpid(child.0, &mut status, 0) } == child.0 {
            return Ok(exit_of(status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn exit_of(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

/// Ends a forked child at once: no exit handlers, no flushing of what the parent had buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit touches no memory of this process.
    unsafe { libc::_exit(code) }
}

/// The end of a [`daemonise`]: tells the waiting parent that the start succeeded.
#[derive(Debug)]
pub struct Readiness {
    pipe: OwnedFd,
}

impl Readiness {
    /// Lets the process that was started by the user leave with code 0. Dropped without this
    /// call (also by dying), that process leaves with code 1.
    pub fn announce(self) {
        // If the parent was killed meanwhile there is nobody to tell.
        let _ = rustix::io::write(&self.pipe, &[1]);
    }
}

/// Turns this process into a daemon as nginx does: fork, new session, umask 0, standard input
/// and output on /dev/null; standard error stays until the error log is open.
///
/// Unlike nginx's, the process that the user started leaves only after
/// [`Readiness::announce`], so that the pid file is there when the command returns.
pub fn daemonise() -> io::Result<Readiness> {
    let (reader, writer) = pipe()?;
    if let Fork::Parent { .. } = fork()? {
        drop(writer);
        let mut byte = [0];
        let ready =
            matches!(rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut byte)), Ok(1));
        exit_now(if ready { 0 } else { 1 });
    }
    sys::setsid()?;
    sys::umask(Mode::empty());
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(Readiness { pipe: writer })
}

/// A pipe: the end to read from, and the end to write to. Closed by exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Waits until the last process that holds the other end of a pipe has closed it, at most for a
/// time. True when that came.
pub fn wait_closed(reader: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // Hanging up is always reported, whatever is asked for (poll(2)).
        let mut waited = [PollFd::from_borrowed_fd(reader, PollFlags::empty())];
        match poll(&mut waited, Some(&limit)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(waited[0].revents().contains(PollFlags::HUP)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lets standard error go where the descriptor goes.
pub fn redirect_stderr(target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(target)?)
}

/// Opens /dev/null in place of standard streams that the starter left closed, so that no socket
/// or log is ever given the number 0, 1 or 2.
pub fn open_missing_standard_streams() -> io::Result<()> {
    loop {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // It took the place of a missing stream and stays there.
        std::mem::forget(null);
    }
}

/// Starts another program that inherits some descriptors under their present numbers; all others
/// close. Its signal mask and dispositions are the defaults. `environment` is all it gets.
///
/// The error of a failed exec arrives here, not in the child.
pub fn execute(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    environment: &[impl AsRef<OsStr>],
    inherited: &[BorrowedFd<'_>],
) -> io::Result<Pid> {
    let program = CString::new(program.as_os_str().as_bytes())?;
    let arguments = strings(arguments)?;
    let environment = strings(environment)?;
    let arguments = pointers(&arguments);
    let environment = pointers(&environment);
    let (reader, writer) = pipe()?;
    match fork()? {
        Fork::Parent { child } => {
            drop(writer);
            let mut number = [0; 4];
            match rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut number)) {
                Ok(4) => {
                    wait_for(child)?;
                    Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
                }
                _ => Ok(child),
            }
        }
        Fork::Child => {
            signals::restore();
            for descriptor in inherited {
                // A descriptor that cannot be passed shows in the new program as a missing one.
                let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty());
            }
            // SAFETY: both arrays end in a null pointer and point to zero-terminated strings
            // that live until exec replaces this process.
            unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
            let number = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
            let _ = rustix::io::write(&writer, &number.to_ne_bytes());
            exit_now(1)
        }
    }
}

fn strings(list: &[impl AsRef<OsStr>]) -> io::Result<Vec<CString>> {
    list.iter().map(|text| Ok(CString::new(text.as_ref().as_bytes())?)).collect()
}

fn pointers(list: &[CString]) -> Vec<*const libc::c_char> {
    list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// A limit of `getrlimit(2)`; nothing means unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// Which limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// Open descriptors (`RLIMIT_NOFILE`).
    Descriptors,
    /// Bytes of a core file (`RLIMIT_CORE`).
    Core,
}

impl Resource {
    fn kernel(self) -> sys::Resource {
        match self {
            Resource::Descriptors => sys::Resource::Nofile,
            Resource::Core => sys::Resource::Core,
        }
    }
}

/// The limit as it stands.
pub fn limit(resource: Resource) -> Limit {
    let found = sys::getrlimit(resource.kernel());
    Limit { soft: found.current, hard: found.maximum }
}

/// Sets both the soft and the hard limit, as nginx's worker_rlimit directives do.
pub fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    let new = Rlimit { current: Some(value), maximum: Some(value) };
    Ok(sys::setrlimit(resource.kernel(), new)?)
}

/// Scheduling priority of this process: -20 (first) to 19 (last).
pub fn set_priority(nice: i32) -> io::Result<()> {
    Ok(sys::setpriority_process(None, nice)?)
}

/// Binds this process to processors by number.
pub fn set_affinity(processors: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &number in processors.iter().filter(|&&number| number < CpuSet::MAX_CPU) {
        set.set(number);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The processors that this process may run on, by number.
pub fn affinity() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&number| set.is_set(number)).collect())
}

/// The system's name and release, as `uname -sr` prints them: `Linux`, `6.1.0`.
pub fn system_and_release() -> (String, String) {
    let names = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    (text(names.sysname()), text(names.release()))
}

/// Processors that are online (`worker_processes auto`); at least 1.
pub fn processor_count() -> usize {
    // SAFETY: sysconf takes and returns integers.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}

/// Allows core files and ptrace again, which a change of user takes away.
pub fn set_dumpable() -> io::Result<()> {
    Ok(sys::set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

/// Changes the working directory.
pub fn change_directory(path: &Path) -> io::Result<()> {
    Ok(sys::chdir(path)?)
}

/// Replaces the environment of this process by `NAME=VALUE` texts.
///
/// Meant to be called once in the life of a worker, before it does anything else. Texts with a
/// zero byte are left out.
pub fn replace_environment(texts: &[impl AsRef<OsStr>]) {
    crate::title::install_environment(
        texts.iter().filter_map(|text| CString::new(text.as_ref().as_bytes()).ok()).collect(),
    );
}

/// A user and a group by number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The name that supplementary groups are looked up by.
    pub name: String,
    pub user: u32,
    pub group: u32,
}

/// Lets the kernel send this process a signal when the one that started it ends, however that
/// ends (`PR_SET_PDEATHSIG`). It survives exec, and is not inherited by children.
///
/// A parent that is gone already sends nothing: compare [`parent_pid`] afterwards.
pub fn end_with_parent(signal: Signal) -> io::Result<()> {
    let signal = sys::Signal::from_named_raw(signal.0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok(sys::set_parent_process_death_signal(Some(signal))?)
}

/// Makes this process the parent of every descendant whose own parent dies
/// (`PR_SET_CHILD_SUBREAPER`), so that [`children`] and [`reap`] find it.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(sys::set_child_subreaper(Some(sys::getpid()))?)
}

/// The children of this process that run or wait to be reaped; none without /proc.
pub fn children() -> Vec<Pid> {
    let own = u64::try_from(own_pid().0).ok();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // One that ends between the two looks is left out.
    let is_ours = |number: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{number}/stat"));
        status.is_ok_and(|status| stat_field(&status, 4) == own)
    };
    numbers.filter(is_ours).map(Pid).collect()
}

/// Whether this process may change users (effective user 0).
pub fn is_superuser() -> bool {
    sys::geteuid().is_root()
}

/// The number and primary group of a user (`getpwnam_r(3)`); nothing when there is no such user.
pub fn find_user(name: &str) -> io::Result<Option<(u32, u32)>> {
    let name = CString::new(name)?;
    // SAFETY: passwd is integers and pointers, for which all zeroes is a value.
    let mut record: libc::passwd = unsafe { std::mem::zeroed() };
    let found = look_up(|buffer, length, result| {
        // SAFETY: name ends in zero, `record` and the buffer outlive the call.
        unsafe { libc::getpwnam_r(name.as_ptr(), &mut record, buffer, length, result) }
    })?;
    Ok(found.then_some((record.pw_uid, record.pw_gid)))
}

/// The number of a group (`getgrnam_r(3)`); nothing when there is no such group.
pub fn find_group(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    // SAFETY: group is integers and pointers, for which all zeroes is a value.
    let mut record: libc::group = unsafe { std::mem::zeroed() };
    let found = look_up(|buffer, length, result| {
        // SAFETY: name ends in zero, `record` and the buffer outlive the call.
        unsafe { libc::getgrnam_r(name.as_ptr(), &mut record, buffer, length, result) }
    })?;
    Ok(found.then_some(record.gr_gid))
}

/// Calls a reentrant look-up with a growing buffer; says whether a record was found.
fn look_up<R>(
    mut call: impl FnMut(*mut libc::c_char, usize, *mut *mut R) -> i32,
) -> io::Result<bool> {
    let mut buffer = vec![0 as libc::c_char; 1024];
    loop {
        let mut result: *mut R = std::ptr::null_mut();
        match call(buffer.as_mut_ptr(), buffer.len(), &mut result) {
            0 => return Ok(!result.is_null()),
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            // "Not found" by some of the backends (getpwnam_r(3), ERRORS).
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(false),
            number => return Err(io::Error::from_raw_os_error(number)),
        }
    }
}

/// A step of [`become_account`] that failed, named as nginx's log names it.
#[derive(Debug)]
pub struct AccountError {
    /// `setgid(33)`, `initgroups(www-data, 33)` or `setuid(33)`.
    pub call: String,
    pub error: io::Error,
}

/// What a process may still do when it is not the superuser any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Keep {
    /// What every user may.
    Nothing,
    /// Make connections that seem to come from foreign addresses (`IP_TRANSPARENT`, ip(7)).
    ForeignAddresses,
    /// And bind to any port of such addresses, those below 1024 too.
    ForeignPorts,
}

/// Gives up the superuser's rights: group, supplementary groups, user; in that order, because
/// the last step takes away the right to the others.
pub fn become_account(account: &Account, keep: Keep) -> Result<(), AccountError> {
    let Account { name, user, group } = account;
    let failed = |call: String| AccountError { call, error: io::Error::last_os_error() };
    // SAFETY: setgid takes an integer.
    if unsafe { libc::setgid(*group) } != 0 {
        return Err(failed(format!("setgid({group})")));
    }
    let call = format!("initgroups({name}, {group})");
    let Ok(text) = CString::new(name.as_str()) else {
        return Err(AccountError { call, error: io::Error::from_raw_os_error(libc::EINVAL) });
    };
    // SAFETY: the name ends in zero and outlives the call.
    if unsafe { libc::initgroups(text.as_ptr(), *group) } != 0 {
        return Err(failed(call));
    }
    // SAFETY: this prctl takes integers.
    if keep != Keep::Nothing && unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) } != 0 {
        return Err(failed("prctl(PR_SET_KEEPCAPS, 1)".to_owned()));
    }
    // SAFETY: setuid takes an integer.
    if unsafe { libc::setuid(*user) } != 0 {
        return Err(failed(format!("setuid({user})")));
    }
    let capabilities = match keep {
        Keep::Nothing => return Ok(()),
        Keep::ForeignAddresses => CAP_NET_RAW,
        Keep::ForeignPorts => CAP_NET_RAW | CAP_NET_BIND_SERVICE,
    };
    match keep_capabilities(capabilities) {
        true => Ok(()),
        false => Err(failed("capset()".to_owned())),
    }
}

/// capabilities(7).
const CAP_NET_BIND_SERVICE: u32 = 1 << 10;
const CAP_NET_RAW: u32 = 1 << 13;

/// Keeps some of the capabilities that the process still has, and no others.
fn keep_capabilities(these: u32) -> bool {
    /// `_LINUX_CAPABILITY_VERSION_3`, whose sets are two words each (capset(2)).
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    // Effective, permitted and inheritable; first the lower words, then the upper ones.
    let sets = [these, these, 0, 0, 0, 0];
    // SAFETY: the pointers are to a header of this version and to its two sets, which the call
    // only reads.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) == 0 }
}

/// Fills a buffer with the kernel's random bytes: unpredictable, and different after a fork.
pub fn random(buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut buffer[filled..], flags) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether two descriptors are the same open file, device and inode alike.
pub fn same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (rustix::fs::fstat(one.as_fd()), rustix::fs::fstat(other.as_fd())) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::send;

    fn child(work: impl FnOnce() -> i32) -> Pid {
        match fork().unwrap() {
            Fork::Parent { child } => child,
            Fork::Child => exit_now(work()),
        }
    }

    #[test]
    fn children_end_by_code_or_by_signal() {
        assert_eq!(wait_for(child(|| 7)).unwrap(), Exit::Code(7));
        let stuck = child(|| sleep_for_ever());
        send(stuck, Signal::KILL).unwrap();
        assert_eq!(wait_for(stuck).unwrap(), Exit::Signal { number: 9, core: false });
    }

    #[test]
    fn limits_and_affinity_change_the_child_alone() {
        let before = limit(Resource::Descriptors);
        let outcome = wait_for(child(|| {
            set_limit(Resource::Descriptors, 64).unwrap();
            set_limit(Resource::Core, 0).unwrap();
            set_priority(5).unwrap();
            let first = affinity().unwrap()[0];
            set_affinity(&[first]).unwrap();
            let limited = limit(Resource::Descriptors).soft == Some(64);
            i32::from(limited && affinity().unwrap() == [first])
        }));
        assert_eq!(outcome.unwrap(), Exit::Code(1));
        assert_eq!(limit(Resource::Descriptors), before);
    }

    #[test]
    fn a_program_inherits_what_it_was_given() {
        let (reader, writer) = pipe().unwrap();
        let script = format!("echo \"$GIFT\" >&{}", writer.as_raw_fd());
        let arguments = ["sh", "-c", &script];
        let program = Path::new("/bin/sh");
        let pid = execute(program, &arguments, &["GIFT=socket"], &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut found = [0; 64];
        let length = rustix::io::read(&reader, &mut found).unwrap();
        assert_eq!(&found[..length], b"socket\n");
        assert_eq!(wait_for(pid).unwrap(), Exit::Code(0));
    }

    #[test]
    fn a_missing_program_is_an_error_here() {
        let none: [&str; 0] = [];
        let error = execute(Path::new("/nowhere/at/all"), &["x"], &none, &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_pipe_tells_when_its_last_holder_is_gone() {
        let (reader, writer) = pipe().unwrap();
        let other = writer.try_clone().unwrap();
        drop(writer);
        assert!(!wait_closed(reader.as_fd(), Duration::ZERO).unwrap());
        drop(other);
        assert!(wait_closed(reader.as_fd(), Duration::from_secs(5)).unwrap());
    }

    /// Becomes a process that only a signal ends.
    fn sleep_for_ever() -> ! {
        loop {
            // SAFETY: pause waits for a signal.
            unsafe { libc::pause() };
        }
    }

    #[test]
    fn an_orphan_is_adopted_and_one_bound_to_its_parent_dies_with_it() {
        let outcome = wait_for(child(|| {
            adopt_orphans().unwrap();
            let (reader, writer) = pipe().unwrap();
            let parent = child(|| {
                // Holds the pipe until its parent is gone.
                let bound = child(|| {
                    end_with_parent(Signal::KILL).unwrap();
                    rustix::io::write(&writer, &[1]).unwrap();
                    sleep_for_ever()
                });
                assert_eq!(children(), [bound]);
                sleep_for_ever()
            });
            drop(writer);
            let mut byte = [0];
            let _ = rustix::io::read(&reader, &mut byte).unwrap();
            send(parent, Signal::KILL).unwrap();
            wait_for(parent).unwrap();
            assert!(wait_closed(reader.as_fd(), Duration::from_secs(5)).unwrap());
            let orphan = children();
            assert_eq!(orphan.len(), 1);
            assert_eq!(wait_for(orphan[0]).unwrap(), Exit::Signal { number: 9, core: false });
            assert_eq!(children(), []);
            3
        }));
        assert_eq!(outcome.unwrap(), Exit::Code(3));
    }

    #[test]
    fn accounts_are_found_by_name() {
        assert_eq!(find_user("root").unwrap(), Some((0, 0)));
        assert_eq!(find_group("root").unwrap(), Some(0));
        assert_eq!(find_user("nobody-of-that-name").unwrap(), None);
        assert_eq!(find_group("nobody-of-that-name").unwrap(), None);
    }

    #[test]
    fn stat_fields_are_counted_behind_the_name() {
        let text = "12 (a) b (c)) S 1 2 3";
        assert_eq!(stat_field(text, 4), Some(1));
        assert_eq!(stat_field(text, 6), Some(3));
        assert_eq!(stat_field(text, 7), None);
        assert_eq!(stat_field("", 4), None);
    }

    #[test]
    fn random_bytes_differ() {
        let (mut one, mut other) = ([0; 16], [0; 16]);
        random(&mut one).unwrap();
        random(&mut other).unwrap();
        assert_ne!(one, other);
    }
}
