//! epoll(7), edge-triggered; listeners level-triggered and exclusive.
//!
//! A registration carries index and generation of its slot, so that an event of a closed
//! descriptor never reaches the slot's next tenant.
//!
//! What was begun is finished before something new is begun. epoll tells events in the order in
//! which they came: when thousands of clients have a request waiting, the answer to the first
//! would wait behind the requests of all, each of them would occupy a connection to a backend, and
//! nothing of a request would be in a cache any more when its answer comes. So what clients have
//! made is watched by an instance of its own, which the other one watches as one.
//!
//! ```text
//!  turn:  a batch of the others --- full? --- next turn, PATIENCE times
//!                                '- not full: a batch of the clients' too
//! ```

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::io::{Event, note_registered};
use super::state::{Backend, State};
use super::{behind, late};

pub(super) struct Epoll {
    fd: OwnedFd,
    clients: OwnedFd,
    /// Clients may have more events than were taken.
    more: bool,
    /// Turns in which they had to wait, one after another.
    passed: u32,
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
/// Full batches of the others that clients wait for at most, one after another.
const PATIENCE: u32 = 3;
/// The key of the clients' instance. No source and no orphan has this index.
const CLIENTS: u64 = u64::MAX;

impl Epoll {
    pub(super) fn new(events: usize) -> io::Result<Epoll> {
        let (fd, clients) = (create()?, create()?);
        control(&fd, libc::EPOLL_CTL_ADD, clients.as_raw_fd(), READ | EDGE, CLIENTS)?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; events.clamp(1, 1 << 16)];
        Ok(Epoll { fd, clients, more: false, passed: 0, events })
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

    /// Whether clients have their turn after a batch of the others.
    fn are_clients_next(&mut self, was_full: bool) -> bool {
        let wait = was_full && self.passed < PATIENCE;
        self.passed = if wait { self.passed + 1 } else { 0 };
        !wait
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
        && epoll.are_clients_next(was_full)
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
    use super::super::tests::on_epoll_of;
    use super::super::{Interest, Source, spawn, yield_now};
    use super::{PATIENCE, READ, control};
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Who {
        Client,
        Other,
    }

    type Order = Rc<RefCell<Vec<Who>>>;

    /// A task that notes whenever it is told that something is there. `again`: there is more as
    /// soon as it has read. Gives back the end that writes.
    fn reader(who: Who, again: bool, order: &Order) -> UnixStream {
        let (socket, mut peer) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let interest = Interest::BOTH.closing();
        let interest = if who == Who::Client { interest.of_client() } else { interest };
        let source = Source::new(socket.as_fd(), interest).unwrap();
        let order = order.clone();
        let twin = peer.try_clone().unwrap();
        spawn(async move {
            let mut socket = socket;
            loop {
                poll_fn(|cx| source.poll_readable(cx)).await;
                order.borrow_mut().push(who);
                let n = socket.read(&mut [0; 8]).unwrap_or(0);
                source.note_short_read(n);
                if again {
                    peer.write_all(b"x").unwrap();
                }
            }
        });
        twin
    }

    #[test]
    fn answers_come_before_the_requests_that_came_before_them() {
        on_epoll_of(4, || async {
            let order = Order::default();
            let make = |who| (0..3).map(|_| reader(who, false, &order)).collect::<Vec<_>>();
            let (mut clients, mut others) = (make(Who::Client), make(Who::Other));
            // Everybody waits, and the news that there is room to write are out of the way.
            for _ in 0..8 {
                yield_now().await;
            }
            assert!(order.borrow().is_empty());
            clients.iter_mut().chain(&mut others).for_each(|end| end.write_all(b"x").unwrap());
            while order.borrow().len() < 6 {
                yield_now().await;
            }
            assert_eq!(order.borrow()[..3], [Who::Other; 3]);
            assert_eq!(order.borrow()[3..], [Who::Client; 3]);
        });
    }

    #[test]
    fn clients_do_not_wait_for_ever() {
        on_epoll_of(4, || async {
            let order = Order::default();
            let mut others: Vec<_> = (0..8).map(|_| reader(Who::Other, true, &order)).collect();
            let mut clients: Vec<_> = (0..8).map(|_| reader(Who::Client, true, &order)).collect();
            for _ in 0..16 {
                yield_now().await;
            }
            assert!(order.borrow().is_empty());
            others.iter_mut().chain(&mut clients).for_each(|end| end.write_all(b"x").unwrap());
            while order.borrow().len() < 400 {
                yield_now().await;
            }
            let order = order.borrow();
            let clients = order.iter().filter(|&&who| who == Who::Client).count();
            // One batch in PATIENCE + 1, up to the ends.
            let share = order.len() / (PATIENCE as usize + 2);
            assert!((share - 8..=share + 8).contains(&clients), "{clients} of {}", order.len());
        });
    }

    #[test]
    fn an_orphan_is_watched_once_whoever_it_was() {
        on_epoll_of(4, || async {
            for interest in [Interest::BOTH, Interest::BOTH.of_client()] {
                let (socket, _peer) = UnixStream::pair().unwrap();
                let _source = Source::new(socket.as_fd(), interest).unwrap();
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
