//! The driver of the current thread and the one place that reaches it.
//!
//! Every access is a short closure over `&mut State`. The rule that makes this sound: such a
//! closure never calls code from outside this module (no future, no foreign waker, no destructor
//! of a caller's value), so it can never be entered twice.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::ManuallyDrop;

use rustix::time::{ClockId, clock_gettime};

use super::behind::Behind;
use super::early::Early;
use super::epoll::Epoll;
use super::io::Ios;
use super::late::Late;
use super::poll::PollSet;
use super::select::SelectSet;
use super::task::Tasks;
use super::timer::Timers;
use super::uring::Uring;
use super::waiter::Foreign;
use super::{Kind, Settings};

/// The kernel's side of the driver.
pub(super) enum Backend {
    None,
    Epoll(Epoll),
    Poll(PollSet),
    Select(SelectSet),
    Uring(Box<Uring>),
}

pub(super) struct State {
    pub(super) backend: Backend,
    /// The process that started this driver; a child of it must start its own.
    pid: u32,
    /// Monotonic milliseconds of the current turn.
    pub(super) now_ms: u64,
    /// Wall clock of the current turn, read when first asked for.
    wall: Option<(u64, u32)>,
    pub(super) tasks: Tasks,
    pub(super) ios: Ios,
    pub(super) timers: Timers,
    pub(super) foreign: Foreign,
    pub(super) behind: Behind,
    pub(super) early: Early,
    pub(super) late: Late,
}

impl State {
    const fn new() -> State {
        State {
            backend: Backend::None,
            pid: 0,
            now_ms: 0,
            wall: None,
            tasks: Tasks::new(),
            ios: Ios::new(),
            timers: Timers::new(),
            foreign: Foreign::new(),
            behind: Behind::new(),
            early: Early::new(),
            late: Late::new(),
        }
    }

    /// Starts a turn's clock.
    pub(super) fn refresh_clock(&mut self) {
        self.now_ms = monotonic_ms();
        self.wall = None;
    }
}

struct Local {
    /// `ManuallyDrop` keeps the thread-local free of a destructor, hence of the check that one
    /// would cost on every access. [`stop`] frees; a worker's driver lives as long as it does.
    state: UnsafeCell<ManuallyDrop<State>>,
    /// Debug builds prove with it that accesses do not nest.
    entered: Cell<bool>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            state: UnsafeCell::new(ManuallyDrop::new(State::new())),
            entered: Cell::new(false),
        }
    };
}

/// Reaches the driver of this thread. `f` must not call code from outside this module.
#[inline(always)]
pub(super) fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
    LOCAL.with(|local| {
        if cfg!(debug_assertions) {
            assert!(!local.entered.replace(true), "the driver was entered twice");
        }
        // SAFETY: the cell belongs to this thread, and closures given to `with` neither call
        // `with` nor foreign code (module rule, checked by `entered` in debug builds), so this is
        // the only reference for as long as it lives.
        let result = f(unsafe { &mut *local.state.get() });
        if cfg!(debug_assertions) {
            local.entered.set(false);
        }
        result
    })
}

/// Makes the driver of this thread.
///
/// A worker calls it after fork. What a parent's driver held is forgotten, never freed: freeing
/// could close or deregister descriptors that the parent still uses; only the kernel object's
/// copy in this process is closed.
///
/// # Errors
/// `AlreadyExists` while this process's own driver still has tasks, sources or timers;
/// otherwise what `epoll_create1(2)` or `io_uring_setup(2)` answers.
pub fn start(settings: Settings) -> io::Result<()> {
    let pid = std::process::id();
    let busy = with(|s| (s.pid == pid || s.pid == 0) && !s.is_idle());
    if busy {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the event loop is still in use by tasks of this thread",
        ));
    }
    let backend = match settings.kind {
        Kind::Epoll => Backend::Epoll(Epoll::new(settings.events)?),
        Kind::Poll => Backend::Poll(PollSet::new()),
        Kind::Select => Backend::Select(SelectSet::new()),
        Kind::IoUring => Backend::Uring(Box::new(Uring::new()?)),
    };
    let old = replace(State { backend, pid, now_ms: monotonic_ms(), ..State::new() });
    discard(old, pid);
    Ok(())
}

/// Frees this thread's driver: its kernel object and its slabs.
///
/// # Errors
/// `AlreadyExists` while tasks, sources or timers are alive; nothing is changed then.
pub fn stop() -> io::Result<()> {
    if with(|s| !s.is_idle()) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the event loop is still in use by tasks of this thread",
        ));
    }
    discard(replace(State::new()), std::process::id());
    Ok(())
}

fn replace(new: State) -> State {
    with(|s| std::mem::replace(s, new))
}

/// Frees a former driver; that of another process keeps everything but its kernel object.
fn discard(mut old: State, pid: u32) {
    if old.pid == pid {
        return;
    }
    if let Backend::Uring(uring) = std::mem::replace(&mut old.backend, Backend::None) {
        uring.abandon();
    }
    std::mem::forget(old);
}

impl State {
    fn is_idle(&self) -> bool {
        self.tasks.is_idle() && self.ios.live() == 0 && self.timers.live() == 0
    }

    /// Whether this thread has a started driver.
    pub(super) fn started(&self) -> bool {
        !matches!(self.backend, Backend::None)
    }
}

#[inline]
pub(super) fn now() -> u64 {
    let cached = with(|s| if s.started() { Some(s.now_ms) } else { None });
    cached.unwrap_or_else(monotonic_ms)
}

/// The wall clock of this turn: seconds since the epoch and milliseconds within the second.
#[inline]
pub fn wall() -> (u64, u32) {
    with(|s| match s.wall {
        Some(wall) if s.started() => wall,
        _ => {
            let wall = read_wall();
            s.wall = Some(wall);
            wall
        }
    })
}

/// Microseconds of the monotonic clock, read now.
#[inline]
pub fn precise_now_us() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000
}

/// Bytes that this thread's driver holds: slabs, queues, event buffer and the boxed futures.
pub fn memory() -> usize {
    with(|s| {
        let backend = match &s.backend {
            Backend::None => 0,
            Backend::Epoll(epoll) => epoll.memory(),
            Backend::Poll(set) => set.memory(),
            Backend::Select(set) => set.memory(),
            Backend::Uring(uring) => uring.memory(),
        };
        let slabs = s.tasks.memory() + s.ios.memory() + s.timers.memory();
        let ahead = s.behind.memory() + s.early.memory() + s.late.memory();
        backend + slabs + s.foreign.memory() + ahead
    })
}

/// Whether a failed connection shows as [`Source::hung_up`](super::Source::hung_up).
///
/// select(2) does not report errors apart: there a caller that finished connecting must ask for
/// `SO_ERROR` itself.
pub fn reports_errors() -> bool {
    with(|s| !matches!(s.backend, Backend::Select(_)))
}

pub(super) fn monotonic_ms() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000 + t.tv_nsec as u64 / 1_000_000
}

fn read_wall() -> (u64, u32) {
    let t = clock_gettime(ClockId::Realtime);
    // A clock set before 1970 counts as the epoch itself.
    (u64::try_from(t.tv_sec).unwrap_or(0), (t.tv_nsec / 1_000_000) as u32)
}
