//! Receiving for tasks that wait, before they run (epoll).
//!
//! The kernel's code and our own of a request do not fit into the nearest caches together
//! (`behind.rs`). So what events announce is received at once, for all events of a turn in a row,
//! and tasks find it in buffers of the driver. A socket that once had more than a buffer holds is
//! left to its task from then on: many bytes are better received where they are to lie.

use std::io;

use super::io::{BULKY, Event, HUNG, READABLE, RECEIVING, STASHED};
use super::state::State;

/// Buffers, and so events of a turn that are received for.
const COUNT: usize = 64;
/// Bytes in each: most requests and heads of answers are shorter.
const SIZE: usize = 2 << 10;
/// From one buffer to the next; no power of two, so that their beginnings do not compete for the
/// same places of a cache.
const STRIDE: usize = SIZE + 320;

/// What was received for a source.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// Whether something is unread.
    taken: bool,
    /// The socket has more, as far as is known.
    more: bool,
    source: u32,
    start: u16,
    end: u16,
    /// What the receive met in place of bytes.
    errno: i32,
}

pub(super) struct Early {
    /// Made with the first receive.
    memory: Vec<u8>,
    lanes: [Lane; COUNT],
    /// The lane that is used next, and the one that is read next: both go round.
    next: usize,
    unread: usize,
}

impl Early {
    pub(super) const fn new() -> Early {
        let lane = Lane { taken: false, more: false, source: 0, start: 0, end: 0, errno: 0 };
        Early { memory: Vec::new(), lanes: [lane; COUNT], next: 0, unread: 0 }
    }

    pub(super) fn memory(&self) -> usize {
        self.memory.capacity()
    }

    /// The lane of a source. Tasks run in the order of their events, so it is mostly the next.
    #[inline]
    fn find(&mut self, source: u32) -> Option<usize> {
        let from = self.unread;
        let places = (0..COUNT).map(|step| (from + step) % COUNT);
        let mut all = places.filter(|at| self.lanes[*at].taken && self.lanes[*at].source == source);
        all.next()
    }

    #[inline]
    fn release(&mut self, at: usize) {
        self.lanes[at].taken = false;
        self.unread = (at + 1) % COUNT;
    }
}

/// Receives for a source whose task waits to read, as an event says that something is there.
#[inline]
pub(super) fn receive(s: &mut State, index: u32, event: Event) {
    let Some(slot) = s.ios.at(index) else { return };
    slot.flags &= !RECEIVING;
    let at = s.early.next;
    if event.hung || s.early.lanes[at].taken {
        return;
    }
    if s.early.memory.is_empty() {
        s.early.memory.resize(COUNT * STRIDE, 0);
    }
    let buffer = &mut s.early.memory[at * STRIDE..at * STRIDE + SIZE];
    // SAFETY: the buffer is writable for its length and outlives the call.
    let n = unsafe { libc::recv(slot.fd, buffer.as_mut_ptr().cast(), SIZE, 0) };
    let errno = match n {
        1.. => 0,
        // The end, which the task finds again by itself.
        0 => return,
        _ => io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
    };
    if matches!(errno, libc::EAGAIN | libc::EINTR) {
        return;
    }
    let end = usize::try_from(n).unwrap_or(0).min(SIZE);
    if end == SIZE {
        slot.flags |= BULKY;
    }
    slot.flags |= STASHED;
    let more = end == SIZE;
    s.early.lanes[at] = Lane { taken: true, more, source: index, start: 0, end: end as u16, errno };
    s.early.next = (at + 1) % COUNT;
}

/// How many bytes were received for a source, which is `STASHED`.
#[inline]
pub(super) fn length(s: &mut State, index: u32) -> usize {
    let lane = s.early.find(index).map(|at| &s.early.lanes[at]);
    lane.map_or(0, |lane| usize::from(lane.end - lane.start))
}

/// Reads what was received for a source, which is `STASHED`.
#[inline]
pub(super) fn take(s: &mut State, index: u32, into: &mut [u8]) -> Option<io::Result<usize>> {
    let at = s.early.find(index)?;
    let slot = s.ios.at(index)?;
    let lane = &mut s.early.lanes[at];
    let (start, end) = (usize::from(lane.start), usize::from(lane.end));
    let n = into.len().min(end - start);
    into[..n].copy_from_slice(&s.early.memory[at * STRIDE + start..at * STRIDE + start + n]);
    lane.start += n as u16;
    if start + n < end {
        return Some(Ok(n));
    }
    let (errno, more) = (lane.errno, lane.more);
    s.early.release(at);
    slot.flags &= !STASHED;
    if errno != 0 {
        slot.flags |= HUNG;
        return Some(Err(io::Error::from_raw_os_error(errno)));
    }
    // After a hang-up the end is still to be read, and no event will tell again.
    if !more && slot.flags & HUNG == 0 {
        slot.flags &= !READABLE;
    }
    Some(Ok(n))
}

/// More came before what was received is read: the task has to look for it.
#[cold]
pub(super) fn more(s: &mut State, index: u32) {
    if let Some(at) = s.early.find(index) {
        s.early.lanes[at].more = true;
    }
}

/// Keeps the error of a task's own receive for its next one.
pub(super) fn put_back(s: &mut State, index: u32, errno: i32) {
    let at = s.early.next;
    if let Some(slot) = s.ios.at(index).filter(|_| !s.early.lanes[at].taken) {
        slot.flags |= STASHED | READABLE;
        s.early.lanes[at] =
            Lane { taken: true, more: false, source: index, start: 0, end: 0, errno };
        s.early.next = (at + 1) % COUNT;
    }
}

/// Forgets what was received for a source that goes away.
#[inline]
pub(super) fn end(s: &mut State, index: u32) {
    let stashed = s.ios.at(index).is_some_and(|slot| slot.flags & STASHED != 0);
    if stashed && let Some(at) = s.early.find(index) {
        s.early.release(at);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{self, on_epoll};
    use super::super::{Interest, Source, yield_now};
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    fn pair() -> (Source, UnixStream, UnixStream) {
        tests::pair(|fd| Source::new(fd, Interest::BOTH.closing().stream()))
    }

    async fn wait_to_read(source: &Source) {
        poll_fn(|cx| {
            assert!(source.poll_readable(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[test]
    fn what_a_task_waits_for_is_there_before_it_runs() {
        on_epoll(|| async {
            let (source, socket, mut peer) = pair();
            wait_to_read(&source).await;
            peer.write_all(b"request").unwrap();
            yield_now().await;
            assert!(source.has_received());
            let nothing =
                rustix::net::recv(&socket, &mut [0; 8][..], rustix::net::RecvFlags::empty());
            assert_eq!(nothing.unwrap_err(), rustix::io::Errno::AGAIN);
            let mut text = [0; 4];
            assert_eq!(source.received(&mut text).unwrap().unwrap(), 4);
            assert_eq!(source.received(&mut text).unwrap().unwrap(), 3);
            assert!(source.received(&mut text).is_none() && !source.has_more());
            // Whoever waits for something else finds the bytes where they were.
            wait_to_read(&source).await;
            poll_fn(|cx| Poll::Ready(source.poll_hung_up(cx).is_pending())).await;
            peer.write_all(b"more").unwrap();
            yield_now().await;
            assert!(!source.has_received() && source.has_more());
        });
    }

    #[test]
    fn what_comes_before_the_task_reads_is_not_forgotten() {
        on_epoll(|| async {
            let (source, socket, mut peer) = pair();
            wait_to_read(&source).await;
            for part in ["one", "two"] {
                peer.write_all(part.as_bytes()).unwrap();
                yield_now().await;
            }
            let mut text = [0; 8];
            assert_eq!(source.received(&mut text).unwrap().unwrap(), 3);
            assert!(source.has_more());
            let flags = rustix::net::RecvFlags::empty();
            assert_eq!(rustix::net::recv(&socket, &mut text[..], flags).unwrap().0, 3);
            assert_eq!(&text[..3], b"two");
        });
    }

    #[test]
    fn who_has_much_is_left_alone() {
        on_epoll(|| async {
            let (source, _socket, mut peer) = pair();
            wait_to_read(&source).await;
            peer.write_all(&[7; SIZE + 1]).unwrap();
            yield_now().await;
            let mut bytes = [0; SIZE];
            assert_eq!(source.received(&mut bytes).unwrap().unwrap(), SIZE);
            assert!(source.has_more());
            source.clear_readable();
            wait_to_read(&source).await;
            peer.write_all(b"x").unwrap();
            yield_now().await;
            assert!(!source.has_received());
        });
    }

    #[test]
    fn what_a_gone_source_left_is_forgotten() {
        on_epoll(|| async {
            for _ in 0..3 * COUNT {
                let (source, _socket, mut peer) = pair();
                wait_to_read(&source).await;
                peer.write_all(b"unread").unwrap();
                yield_now().await;
                assert!(source.has_received());
            }
        });
    }
}
