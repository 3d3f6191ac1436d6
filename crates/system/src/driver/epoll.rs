//! epoll(7), edge-triggered; listeners level-triggered and exclusive.
//!
//! A registration carries index and generation of its slot, so that an event of a closed
//! descriptor never reaches the slot's next tenant.
//!
//! What clients have made is watched by an instance of its own, which the other one watches as one:
//! see `turns.rs`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::io::{Event, note_registered};
use super::state::{Backend, State};
use super::turns::Turns;
use super::{behind, late};

pub(super) struct Epoll {
    fd: OwnedFd,
    clients: OwnedFd,
    /// Clients may have more events than were taken.
    more: bool,
    turns: Turns,
    events: Vec<libc::epoll_event>,
}

/// How a descriptor is watched.
#[derive(Clone, Copy)]
pub(super) struct Registration {
    pub(super) read: bool,
    pub(super) write: bool,
    /// A listener, level-triggered: after one accept per event the next look at the kernel
    /// reports it again, with no accept that fails in between.
    pub(super) accept: bool,
    pub(super) of_client: bool,
}

const READ: u32 = libc::EPOLLIN as u32;
const WRITE: u32 = libc::EPOLLOUT as u32;
const HUNG: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const EDGE: u32 = libc::EPOLLET as u32;
/// The key of the clients' instance. No source and no orphan has this index.
const CLIENTS: u64 = u64::MAX;

impl Epoll {
    pub(super) fn new(events: usize) -> io::Result<Epoll> {
        let (fd, clients) = (create()?, create()?);
        control(&fd, libc::EPOLL_CTL_ADD, clients.as_raw_fd(), READ | EDGE, CLIENTS)?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; events.clamp(1, 1 << 16)];
        Ok(Epoll { fd, clients, more: false, turns: Turns::default(), events })
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> [RawFd; 2] {
        [self.fd.as_raw_fd(), self.clients.as_raw_fd()]
    }

    pub(super) fn memory(&self) -> usize {
        self.events.capacity() * size_of::<libc::epoll_event>()
    }

    fn instance(&self, of_client: bool) -> &OwnedFd {
        if of_client { &self.clients } else { &self.fd }
    }

    pub(super) fn add(&self, fd: RawFd, key: u64, how: Registration) -> io::Result<()> {
        let mut flags = 0;
        if how.accept {
            flags |= READ | libc::EPOLLEXCLUSIVE as u32;
        } else {
            flags |= EDGE;
            if how.read {
                flags |= READ | libc::EPOLLRDHUP as u32;
            }
            if how.write {
                flags |= WRITE;
            }
        }
        control(self.instance(how.of_client), libc::EPOLL_CTL_ADD, fd, flags, key)
    }

    /// Watches `fd`, which may be registered, for room to write only, with another key.
    pub(super) fn watch_writable(&self, fd: RawFd, key: u64) -> io::Result<()> {
        let set = |instance, what| control(instance, what, fd, WRITE | EDGE, key);
        set(&self.clients, libc::EPOLL_CTL_MOD)
            .or_else(|_| set(&self.fd, libc::EPOLL_CTL_MOD))
            .or_else(|_| set(&self.fd, libc::EPOLL_CTL_ADD))
    }

    /// Deregisters `fd`; that it is not registered (closed already) is no error.
    pub(super) fn delete(&self, fd: RawFd, of_client: bool) {
        let _ = control(self.instance(of_client), libc::EPOLL_CTL_DEL, fd, 0, 0);
    }
}

fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn control(epoll: &OwnedFd, what: libc::c_int, fd: RawFd, flags: u32, key: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: flags, u64: key };
    // SAFETY: `event` lives through the call, which only reads it.
    let r = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), what, fd, &raw mut event) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Fills the front of `events`; how many. An interrupted call counts as one without events.
fn look(epoll: &OwnedFd, events: &mut [libc::epoll_event], timeout: libc::c_int) -> usize {
    // SAFETY: the buffer is writable for as many events as its length says, and outlives the
    // call.
    let n = unsafe {
        libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, timeout)
    };
    usize::try_from(n).unwrap_or(0)
}

/// Waits at most `timeout` milliseconds and notes what happened.
pub(super) fn wait(s: &mut State, timeout: Option<u64>) {
    let bounds = [timeout, behind::expire(s), late::patience(s)];
    let timeout = bounds.into_iter().flatten().min();
    let Backend::Epoll(epoll) = &mut s.backend else {
        return;
    };
    let timeout = match timeout {
        _ if epoll.more => 0,
        Some(ms) => i32::try_from(ms).unwrap_or(i32::MAX),
        None => -1,
    };
    let mut events = mem::take(&mut epoll.events);
    let n = look(&epoll.fd, &mut events, timeout);
    s.refresh_clock();
    late::catch_up(s);
    note_all(s, &events[..n]);
    let was_full = n == events.len();
    if let Backend::Epoll(epoll) = &mut s.backend
        && epoll.more
        && epoll.turns.are_clients_next(was_full)
    {
        let n = look(&epoll.clients, &mut events, 0);
        epoll.more = n == events.len();
        note_all(s, &events[..n]);
    }
    if let Backend::Epoll(epoll) = &mut s.backend {
        epoll.events = events;
    }
}

fn note_all(s: &mut State, events: &[libc::epoll_event]) {
    for event in events {
        if event.u64 == CLIENTS {
            if let Backend::Epoll(epoll) = &mut s.backend {
                epoll.more = true;
            }
            continue;
        }
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
}

#[cfg(test)]
mod tests {
    use super::super::state::{Backend, with};
    use super::super::tests::{on_epoll, pair};
    use super::super::{Interest, Source};
    use super::{READ, control};
    use std::os::fd::AsRawFd;

    #[test]
    fn an_orphan_is_watched_once_whoever_it_was() {
        on_epoll(|| async {
            for interest in [Interest::BOTH, Interest::BOTH.of_client()] {
                let (_source, socket, _peer) = pair(|fd| Source::new(fd, interest));
                let watched = with(|s| {
                    let Backend::Epoll(epoll) = &s.backend else { return None };
                    let fd = socket.as_raw_fd();
                    epoll.watch_writable(fd, 7).ok()?;
                    let again =
                        |instance| control(instance, libc::EPOLL_CTL_MOD, fd, READ, 7).is_ok();
                    Some([&epoll.fd, &epoll.clients].map(again))
                });
                assert_eq!(watched, Some([interest == Interest::BOTH, interest != Interest::BOTH]));
            }
        });
    }
}
