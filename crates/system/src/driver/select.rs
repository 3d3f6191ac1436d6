//! select(2): as poll, with sets of fixed size.
//!
//! select does not tell end of file and errors from data, so a readable socket is peeked at: that
//! is the price of knowing that a peer hung up.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;

use super::io::{Event, note};
use super::state::{Backend, State};

pub(super) struct SelectSet {
    /// Slot, descriptor, and whether it is watched for reading and for writing.
    watched: Vec<(u32, RawFd, bool, bool)>,
}

impl SelectSet {
    pub(super) const fn new() -> SelectSet {
        SelectSet { watched: Vec::new() }
    }

    pub(super) fn memory(&self) -> usize {
        self.watched.capacity() * size_of::<(u32, RawFd, bool, bool)>()
    }

    /// Refuses a descriptor that a set has no bit for.
    pub(super) fn admit(&self, fd: RawFd) -> io::Result<()> {
        if usize::try_from(fd).is_ok_and(|fd| fd < libc::FD_SETSIZE) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "select() cannot watch descriptor {fd}: it holds only those below {}",
                libc::FD_SETSIZE
            ),
        ))
    }
}

/// Waits at most `timeout` milliseconds and notes what happened.
pub(super) fn wait(s: &mut State, timeout: Option<u64>) {
    let Backend::Select(set) = &mut s.backend else {
        return;
    };
    let mut set = std::mem::replace(set, SelectSet::new());
    set.watched.clear();
    let watched = s.ios.watched().filter(|w| w.read || w.write);
    set.watched.extend(watched.map(|w| (w.index, w.fd, w.read, w.write)));
    let (mut readable, mut writable) = (empty(), empty());
    let mut bound = 0;
    for &(_, fd, read, write) in &set.watched {
        bound = bound.max(fd + 1);
        if read {
            insert(fd, &mut readable);
        }
        if write {
            insert(fd, &mut writable);
        }
    }
    let n = select(bound, &mut readable, &mut writable, timeout);
    s.refresh_clock();
    if n > 0 {
        for &(slot, fd, read, write) in &set.watched {
            let mut seen = Event {
                readable: read && contains(fd, &readable),
                writable: write && contains(fd, &writable),
                hung: false,
            };
            seen.hung = seen.readable && look(fd) == Look::End;
            if seen.readable || seen.writable {
                note(s, slot, seen);
            }
        }
    }
    s.backend = Backend::Select(set);
}

fn select(
    bound: i32,
    readable: &mut libc::fd_set,
    writable: &mut libc::fd_set,
    timeout: Option<u64>,
) -> i32 {
    let mut limit = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let limit: *mut libc::timeval = match timeout {
        None => ptr::null_mut(),
        Some(ms) => {
            let ms = ms.min(i32::MAX as u64);
            limit.tv_sec = (ms / 1_000) as libc::time_t;
            limit.tv_usec = (ms % 1_000 * 1_000) as libc::suseconds_t;
            &raw mut limit
        }
    };
    // SAFETY: the sets and the limit outlive the call; every bit in them is below `bound`.
    unsafe { libc::select(bound, readable, writable, ptr::null_mut(), limit) }
}

fn empty() -> libc::fd_set {
    let mut set = MaybeUninit::uninit();
    // SAFETY: FD_ZERO initializes the whole set.
    unsafe {
        libc::FD_ZERO(set.as_mut_ptr());
        set.assume_init()
    }
}

fn insert(fd: RawFd, set: &mut libc::fd_set) {
    // SAFETY: `admit` let in only descriptors from 0 to FD_SETSIZE - 1.
    unsafe { libc::FD_SET(fd, set) }
}

fn contains(fd: RawFd, set: &libc::fd_set) -> bool {
    // SAFETY: as in `insert`.
    unsafe { libc::FD_ISSET(fd, set) }
}

/// What the next read of a socket meets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Nothing,
    Data,
    /// The end of the stream, or an error, which looking takes away.
    End,
}

/// Looks without reading. Pipes and listeners always answer with data: they cannot be asked.
pub(super) fn look(fd: RawFd) -> Look {
    let mut byte = 0_u8;
    // SAFETY: one byte may be written to `byte`.
    let n =
        unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    if n >= 0 {
        return if n == 0 { Look::End } else { Look::Data };
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Look::Nothing,
        Some(libc::EINTR | libc::ENOTSOCK | libc::ENOTCONN | libc::EINVAL) => Look::Data,
        _ => Look::End,
    }
}
