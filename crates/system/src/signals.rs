//! Signals as readable events: blocked, then read from a descriptor.
//!
//! No handler of ours ever runs, so no code has to be safe inside one. A [`SignalQueue`] is
//! waited on directly by the master and registered with the driver by a worker. The blocked mask
//! survives fork, hence a signal sent to a worker that is still starting waits for its queue;
//! it survives exec as well, so [`restore`] runs before a program is executed.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::Pid;

/// A signal by its number (`signal(7)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Signal(pub i32);

impl Signal {
    pub const HUP: Signal = Signal(libc::SIGHUP);
    pub const INT: Signal = Signal(libc::SIGINT);
    pub const QUIT: Signal = Signal(libc::SIGQUIT);
    pub const KILL: Signal = Signal(libc::SIGKILL);
    pub const USR1: Signal = Signal(libc::SIGUSR1);
    pub const USR2: Signal = Signal(libc::SIGUSR2);
    pub const ALRM: Signal = Signal(libc::SIGALRM);
    pub const TERM: Signal = Signal(libc::SIGTERM);
    pub const CHLD: Signal = Signal(libc::SIGCHLD);
    pub const WINCH: Signal = Signal(libc::SIGWINCH);
    pub const IO: Signal = Signal(libc::SIGIO);
    pub const PIPE: Signal = Signal(libc::SIGPIPE);
    pub const SYS: Signal = Signal(libc::SIGSYS);

    /// A real-time signal, counted from the first one that programs may use.
    pub fn real_time(offset: i32) -> Signal {
        Signal(libc::SIGRTMIN() + offset)
    }

    /// `SIGHUP`; an unnamed one prints as `SIG64`.
    pub fn name(self) -> &'static str {
        match self {
            Signal::HUP => "SIGHUP",
            Signal::INT => "SIGINT",
            Signal::QUIT => "SIGQUIT",
            Signal::KILL => "SIGKILL",
            Signal::USR1 => "SIGUSR1",
            Signal::USR2 => "SIGUSR2",
            Signal::ALRM => "SIGALRM",
            Signal::TERM => "SIGTERM",
            Signal::CHLD => "SIGCHLD",
            Signal::WINCH => "SIGWINCH",
            Signal::IO => "SIGIO",
            Signal::PIPE => "SIGPIPE",
            Signal::SYS => "SIGSYS",
            _ => "SIG",
        }
    }
}

impl fmt::Display for Signal {
    /// As nginx's log: `1 (SIGHUP)`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "SIG" => write!(out, "{} (SIG{})", self.0, self.0),
            name => write!(out, "{} ({name})", self.0),
        }
    }
}

/// One signal that arrived. Standard signals do not queue: several of one kind may become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    pub signal: Signal,
    /// The process that sent it; nothing when the kernel did (a terminal's key).
    pub sender: Option<Pid>,
}

/// The signals of this process that wait to be read.
#[derive(Debug)]
pub struct SignalQueue {
    descriptor: OwnedFd,
}

impl SignalQueue {
    /// Blocks the signals of the list for this process and opens their queue. To be called
    /// before any thread is started, and again in each forked child: the readiness of an
    /// inherited queue follows the parent's signals.
    pub fn open(signals: &[Signal]) -> io::Result<SignalQueue> {
        let set = set_of(signals);
        // SAFETY: `set` is initialised, and the call changes only this thread's mask.
        check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) })?;
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let number = unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given out the number, nobody else owns it.
        Ok(SignalQueue { descriptor: unsafe { OwnedFd::from_raw_fd(number) } })
    }

    /// The next signal, or nothing when none waits.
    pub fn take(&self) -> io::Result<Option<Received>> {
        // SAFETY: signalfd_siginfo is plain integers, for which all zeroes is a value.
        let mut record: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the pointer and the length describe `record`.
        let length =
            unsafe { libc::read(self.descriptor.as_raw_fd(), (&raw mut record).cast(), size) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        // Reads of a signalfd return whole records only (signalfd(2)).
        let sender = (record.ssi_pid != 0).then_some(Pid(record.ssi_pid as i32));
        Ok(Some(Received { signal: Signal(record.ssi_signo as i32), sender }))
    }

    /// Waits for the next signal; nothing when the time runs out first. Without a limit it waits
    /// for ever.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<Option<Received>> {
        if let Some(received) = self.take()? {
            return Ok(Some(received));
        }
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let mut waited = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match poll(&mut waited, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => self.take(),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Makes writes to closed connections fail with EPIPE instead of ending the process. Inherited
/// by children, undone by [`restore`].
pub fn ignore_broken_pipes() {
    for signal in [Signal::PIPE, Signal::SYS] {
        // SAFETY: ignoring a signal installs no code of ours.
        unsafe { libc::signal(signal.0, libc::SIG_IGN) };
    }
}

/// Blocks nothing and leaves every signal to its default again, for a child about to execute
/// another program. Makes only calls that are allowed between fork and exec.
pub fn restore() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: resetting to the default installs no code; KILL and STOP refuse, harmlessly.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let empty = set_of(&[]);
    // SAFETY: `empty` is initialised, and the call changes only this thread's mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut()) };
}

/// Sends a signal to one process.
pub fn send(pid: Pid, signal: Signal) -> io::Result<()> {
    if pid.0 <= 0 {
        // 0 and negative numbers mean groups to kill(2), never one of our processes.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid.0, signal.0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a process with this number exists (a zombie does).
pub fn exists(pid: Pid) -> bool {
    match send(pid, Signal(0)) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    }
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain integers; sigemptyset initialises it before it is used, and
    // sigaddset refuses numbers out of range.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, signal.0);
        }
        set
    }
}

fn check(outcome: i32) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_print_as_in_nginx() {
        assert_eq!(Signal::HUP.to_string(), "1 (SIGHUP)");
        assert_eq!(Signal::CHLD.to_string(), "17 (SIGCHLD)");
        assert_eq!(Signal(40).to_string(), "40 (SIG40)");
    }

    #[test]
    fn a_signal_to_this_thread_is_read_with_its_sender() {
        let queue = SignalQueue::open(&[Signal::WINCH]).unwrap();
        assert_eq!(queue.take().unwrap(), None);
        // SAFETY: raises a blocked signal for this thread only.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGWINCH) };
        let received = queue.wait(Some(Duration::from_secs(5))).unwrap().unwrap();
        let own = Pid(std::process::id() as i32);
        assert_eq!(received, Received { signal: Signal::WINCH, sender: Some(own) });
        assert_eq!(queue.wait(Some(Duration::ZERO)).unwrap(), None);
    }

    #[test]
    fn only_single_processes_get_signals() {
        for number in [0, -1, -999, i32::MAX] {
            assert!(send(Pid(number), Signal(0)).is_err(), "{number}");
        }
        assert!(exists(Pid(std::process::id() as i32)));
    }
}
