//! epoll(7), edge-triggered; listeners level-triggered and exclusive.
//!
//! A registration carries index and generation of its slot, so that an event of a closed
//! descriptor never reaches the slot's next tenant.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::io::{Event, note_registered};
use super::state::{Backend, State};
use super::{behind, late};

pub(super) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

const READ: u32 = libc::EPOLLIN as u32;
const WRITE: u32 = libc::EPOLLOUT as u32;
const HUNG: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

impl Epoll {
    pub(super) fn new(events: usize) -> io::Result<Epoll> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; events.clamp(1, 1 << 16)];
        Ok(Epoll { fd, events })
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn memory(&self) -> usize {
        self.events.capacity() * size_of::<libc::epoll_event>()
    }

    /// Registers `fd`. A listener (`accept`) is level-triggered: after one accept per event the
    /// next look at the kernel reports it again, with no accept that fails in between.
    pub(super) fn add(
        &self,
        fd: RawFd,
        key: u64,
        read: bool,
        write: bool,
        accept: bool,
    ) -> io::Result<()> {
        let mut flags = 0;
        if accept {
            flags |= READ | libc::EPOLLEXCLUSIVE as u32;
        } else {
            flags |= libc::EPOLLET as u32;
            if read {
                flags |= READ | libc::EPOLLRDHUP as u32;
            }
            if write {
                flags |= WRITE;
            }
        }
        let mut event = libc::epoll_event { events: flags, u64: key };
        // SAFETY: `event` lives through the call, which only reads it.
        let r = unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event)
        };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Watches `fd`, which may be registered, for room to write only, with another key.
    pub(super) fn watch_writable(&self, fd: RawFd, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: WRITE | libc::EPOLLET as u32, u64: key };
        let mut error = io::Error::other("not tried");
        for how in [libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_ADD] {
            // SAFETY: `event` lives through the call, which only reads it.
            let r = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), how, fd, &raw mut event) };
            if r == 0 {
                return Ok(());
            }
            error = io::Error::last_os_error();
        }
        Err(error)
    }

    /// Deregisters `fd`; that it is not registered (closed already) is no error.
    pub(super) fn delete(&self, fd: RawFd) {
        // SAFETY: deletion takes no event.
        unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut());
        }
    }
}

/// Waits at most `timeout` milliseconds and notes what happened. An interrupted call counts as
/// one without events.
pub(super) fn wait(s: &mut State, timeout: Option<u64>) {
    let bounds = [timeout, behind::expire(s), late::patience(s)];
    let timeout = bounds.into_iter().flatten().min();
    let Backend::Epoll(epoll) = &mut s.backend else {
        return;
    };
    let timeout = timeout.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
    // SAFETY: the buffer is writable for as many events as its length says, and outlives the
    // call.
    let n = unsafe {
        libc::epoll_wait(
            epoll.fd.as_raw_fd(),
            epoll.events.as_mut_ptr(),
            epoll.events.len() as i32,
            timeout,
        )
    };
    let events = mem::take(&mut epoll.events);
    s.refresh_clock();
    late::catch_up(s);
    for event in &events[..usize::try_from(n).unwrap_or(0)] {
        if behind::note_orphan(s, event.u64) {
            continue;
        }
        let flags = event.events;
        let seen = Event {
            readable: flags & READ != 0,
            writable: flags & WRITE != 0,
            hung: flags & HUNG != 0,
        };
        note_registered(s, event.u64, seen);
    }
    if let Backend::Epoll(epoll) = &mut s.backend {
        epoll.events = events;
    }
}
