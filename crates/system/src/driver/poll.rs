//! poll(2): the set is written anew every turn, from those who wait.

use std::os::fd::RawFd;

use super::io::{Event, note};
use super::state::{Backend, State};

pub(super) struct PollSet {
    fds: Vec<libc::pollfd>,
    /// The slot of each entry of `fds`.
    slots: Vec<u32>,
}

const HUNG: i16 = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;

impl PollSet {
    pub(super) const fn new() -> PollSet {
        PollSet { fds: Vec::new(), slots: Vec::new() }
    }

    pub(super) fn memory(&self) -> usize {
        self.fds.capacity() * size_of::<libc::pollfd>() + self.slots.capacity() * size_of::<u32>()
    }

    fn push(&mut self, slot: u32, fd: RawFd, events: i16) {
        self.fds.push(libc::pollfd { fd, events, revents: 0 });
        self.slots.push(slot);
    }
}

/// Waits at most `timeout` milliseconds and notes what happened.
pub(super) fn wait(s: &mut State, timeout: Option<u64>) {
    let Backend::Poll(set) = &mut s.backend else {
        return;
    };
    let mut set = std::mem::replace(set, PollSet::new());
    set.fds.clear();
    set.slots.clear();
    for watch in s.ios.watched() {
        let mut events = 0;
        if watch.read {
            events |= libc::POLLIN;
        }
        if watch.hang {
            events |= libc::POLLRDHUP;
        }
        if watch.write {
            events |= libc::POLLOUT;
        }
        set.push(watch.index, watch.fd, events);
    }
    let timeout = timeout.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
    // SAFETY: `fds` is an initialized array of as many entries as the count says.
    let n = unsafe { libc::poll(set.fds.as_mut_ptr(), set.fds.len() as libc::nfds_t, timeout) };
    s.refresh_clock();
    if n > 0 {
        for (entry, slot) in set.fds.iter().zip(&set.slots) {
            let seen = Event {
                readable: entry.revents & libc::POLLIN != 0,
                writable: entry.revents & libc::POLLOUT != 0,
                hung: entry.revents & HUNG != 0,
            };
            if entry.revents != 0 {
                note(s, *slot, seen);
            }
        }
    }
    s.backend = Backend::Poll(set);
}
