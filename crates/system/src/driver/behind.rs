//! Small writes that go to the kernel together, when a batch of tasks is through (epoll).
//!
//! The kernel's way of a segment through TCP is longer than our way of a request, and the nearest
//! caches of a processor do not hold both. Whoever sends as soon as an answer is there goes from
//! one to the other and finds both cold, each time. So a small write is copied and counts as
//! written, and what a batch of tasks has written is sent in one go.
//!
//! ```text
//!  written ---> queue --- end of the batch ---> kernel
//!                            full socket: rest --- writable event ---> kernel
//!                            closed meanwhile: orphan --- the same, or half a minute ---> closed
//! ```
//! While anything of a source waits here it is `SENDING` and not `WRITABLE`, so bytes keep their
//! order. The faces that tasks use are in `ahead.rs`.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::aio::{self, Aio, Outcome};
use super::io::{HUNG, READABLE, SEND_FAILED, SENDING, SHUT, STREAM, WRITABLE};
use super::late;
use super::state::{Backend, State};
use super::waiter::{self, NONE};

/// Bytes above which a write is left to the caller's own call: copying them costs more.
pub(super) const BEHIND: usize = 4 << 10;
/// Sends in a batch. More gain nothing, and answers should not wait for long.
const BATCH: usize = aio::MOST;
/// How long the bytes of a closed connection may wait for its peer.
const PATIENCE_MS: u64 = 30_000;
/// The key of events that concern an orphan, whose index is in the upper half.
const ORPHAN: u32 = NONE;

/// A write that the kernel has not seen yet.
struct Queued {
    source: u32,
    generation: u32,
    fd: RawFd,
    /// Its bytes in the common buffer; none once it was taken back.
    start: u32,
    end: u32,
    /// The descriptor, when its owner has closed it.
    closed: Option<OwnedFd>,
}

/// What a full socket did not take, or why it takes nothing any more.
#[derive(Default)]
struct Rest {
    bytes: Vec<u8>,
    errno: i32,
}

/// The rest of a connection that its owner has closed.
struct Orphan {
    fd: OwnedFd,
    bytes: Vec<u8>,
    deadline_ms: u64,
}

#[derive(Default)]
pub(super) struct Behind {
    queue: Vec<Queued>,
    bytes: Vec<u8>,
    /// By source.
    rests: Option<HashMap<u32, Rest>>,
    orphans: Vec<Option<Orphan>>,
    aio: Aio,
}

impl Behind {
    pub(super) const fn new() -> Behind {
        Behind {
            queue: Vec::new(),
            bytes: Vec::new(),
            rests: None,
            orphans: Vec::new(),
            aio: Aio::Untried,
        }
    }

    pub(super) fn memory(&self) -> usize {
        let rests = self.rests.iter().flat_map(HashMap::values).map(|rest| rest.bytes.capacity());
        let orphans = self.orphans.iter().flatten().map(|orphan| orphan.bytes.capacity());
        self.queue.capacity() * size_of::<Queued>()
            + self.bytes.capacity()
            + self.aio.memory()
            + rests.chain(orphans).sum::<usize>()
    }

    fn rests(&mut self) -> &mut HashMap<u32, Rest> {
        self.rests.get_or_insert_default()
    }

    /// The place of what a source that is sending has queued, if the kernel has not seen it.
    fn place(&self, source: u32) -> Option<usize> {
        self.queue.iter().rposition(|queued| queued.source == source && queued.closed.is_none())
    }

    /// Why the last send of a source failed.
    pub(super) fn take_errno(&mut self, source: u32) -> i32 {
        self.rests().remove(&source).map_or(libc::EPIPE, |rest| rest.errno)
    }

    /// Forgets what waits for a source; whether that was anything.
    pub(super) fn forget(&mut self, source: u32) -> bool {
        if let Some(place) = self.place(source) {
            self.queue[place].end = self.queue[place].start;
            return true;
        }
        self.rests().remove(&source).is_some()
    }

    /// Whether bytes of closed connections are still to be sent.
    pub(super) fn has_orphans(&self) -> bool {
        self.orphans.iter().any(Option::is_some)
    }
}

/// Takes a copy of `parts`, if they are few and the source can be written to.
///
/// # Errors
/// Of the send before this one.
#[inline]
pub(super) fn send(s: &mut State, index: u32, parts: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
    if !matches!(s.backend, Backend::Epoll(_)) || s.tasks.budget == 0 {
        return None;
    }
    let slot = s.ios.at(index)?;
    if slot.flags & SEND_FAILED != 0 {
        slot.flags &= !SEND_FAILED;
        let errno = s.behind.take_errno(index);
        return Some(Err(io::Error::from_raw_os_error(errno)));
    }
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // After a hang-up the own call tells at once what became of the connection.
    if slot.flags & (STREAM | WRITABLE | HUNG) != STREAM | WRITABLE
        || length == 0
        || length > BEHIND
    {
        return None;
    }
    slot.flags = slot.flags & !WRITABLE | SENDING;
    let behind = &mut s.behind;
    let start = behind.bytes.len() as u32;
    parts.iter().for_each(|part| behind.bytes.extend_from_slice(part));
    behind.queue.push(Queued {
        source: index,
        generation: slot.generation,
        fd: slot.fd,
        start,
        end: start + length as u32,
        closed: None,
    });
    s.tasks.budget -= 1;
    if behind.queue.len() >= BATCH {
        flush(s);
    }
    Some(Ok(length))
}

/// Adds `parts` to what was queued last, if that is of this source.
pub(super) fn send_along(s: &mut State, index: u32, parts: &[IoSlice<'_>]) -> Option<usize> {
    let flags = s.ios.at(index)?.flags;
    let Behind { queue, bytes, .. } = &mut s.behind;
    let last = queue.last_mut().filter(|last| last.source == index && last.closed.is_none())?;
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let whole = (last.end - last.start) as usize + length;
    if flags & (SENDING | SHUT) != SENDING || whole > BEHIND || last.start == last.end {
        return None;
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    last.end += length as u32;
    Some(length)
}

/// Sends all that is queued.
#[inline]
pub(super) fn flush(s: &mut State) {
    if !s.behind.queue.is_empty() {
        send_queued(s);
    }
}

fn send_queued(s: &mut State) {
    let mut queue = mem::take(&mut s.behind.queue);
    let mut outcomes = [None; BATCH];
    if queue.len() >= aio::WORTHWHILE {
        send_together(&mut s.behind, &queue, &mut outcomes);
    }
    for (at, queued) in queue.drain(..).enumerate() {
        if queued.start == queued.end {
            // Taken back. What was queued again afterwards has a place of its own.
            continue;
        }
        let bytes = &s.behind.bytes[queued.start as usize..queued.end as usize];
        // What is held back goes out with the end of the stream, in one segment.
        let more = if queued.closed.is_some() { libc::MSG_MORE } else { 0 };
        let outcome = match outcomes.get(at) {
            Some(Some(Ok(n))) => Ok(*n),
            Some(Some(Err(libc::EAGAIN))) => Ok(0),
            Some(Some(Err(errno))) if *errno != libc::EINTR => Err(*errno),
            _ => transmit(queued.fd, bytes, more),
        };
        let rest = match outcome {
            Ok(n) => &bytes[n..],
            Err(_) => &[],
        };
        match queued.closed {
            Some(fd) if !rest.is_empty() => {
                let rest = rest.to_vec();
                adopt(s, fd, rest);
            }
            Some(fd) => {
                // Closing alone would drop what is held back if anything is unread.
                // SAFETY: takes no pointer. That the peer is gone already needs no telling.
                unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
            }
            None if !rest.is_empty() => {
                let rest = Rest { bytes: rest.to_vec(), errno: 0 };
                s.behind.rests().insert(queued.source, rest);
                late::tell(s, queued.source);
            }
            None => settle(s, queued.source, queued.generation, outcome.err()),
        }
    }
    s.behind.bytes.clear();
    s.behind.queue = queue;
}

/// One call for all that go on afterwards; what is to be followed by an end needs its own.
fn send_together(behind: &mut Behind, queue: &[Queued], outcomes: &mut [Outcome; BATCH]) {
    let Behind { bytes, aio, .. } = behind;
    let going_on = |queued: &&Queued| queued.start != queued.end && queued.closed.is_none();
    if queue.iter().filter(going_on).count() < aio::WORTHWHILE {
        return;
    }
    let all = queue.iter().enumerate().filter(|(_, queued)| going_on(queued));
    let parts =
        all.map(|(at, queued)| (at, queued.fd, &bytes[queued.start as usize..queued.end as usize]));
    aio.send(parts, outcomes);
}

/// One call. A full socket takes none.
fn transmit(fd: RawFd, bytes: &[u8], more: libc::c_int) -> Result<usize, i32> {
    let flags = libc::MSG_NOSIGNAL | more;
    loop {
        // SAFETY: the bytes live through the call, which only reads them; a descriptor that is
        // not open is an error of the call.
        let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
        if let Ok(n) = usize::try_from(n) {
            return Ok(n.min(bytes.len()));
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) => return Ok(0),
            errno => return Err(errno.unwrap_or(libc::EIO)),
        }
    }
}

/// The kernel has all of a source's bytes, or will never have them.
#[inline]
fn settle(s: &mut State, index: u32, generation: u32, errno: Option<i32>) {
    let Some(slot) = s.ios.at(index) else { return };
    if slot.generation != generation || slot.flags & SENDING == 0 {
        return;
    }
    slot.flags = slot.flags & !SENDING | WRITABLE;
    let mut reader = NONE;
    if slot.flags & SHUT != 0 {
        slot.flags &= !SHUT;
        // SAFETY: takes no pointer. That the peer is gone already needs no telling.
        unsafe { libc::shutdown(slot.fd, libc::SHUT_WR) };
    }
    if let Some(errno) = errno {
        slot.flags |= SEND_FAILED | HUNG | READABLE;
        reader = mem::replace(&mut slot.reader, NONE);
        s.behind.rests().insert(index, Rest { bytes: Vec::new(), errno });
    }
    let writer = mem::replace(&mut slot.writer, NONE);
    waiter::wake_slot(s, writer);
    if reader != writer {
        waiter::wake_slot(s, reader);
    }
}

/// Sends on what a full socket did not take: it has room again.
#[cold]
pub(super) fn resume(s: &mut State, index: u32) {
    let Some(slot) = s.ios.at(index) else { return };
    let (fd, generation) = (slot.fd, slot.generation);
    let Some(rest) = s.behind.rests().get_mut(&index) else { return };
    let outcome = transmit(fd, &rest.bytes, 0);
    if let Ok(n) = outcome
        && n < rest.bytes.len()
    {
        rest.bytes.drain(..n);
        return;
    }
    s.behind.rests().remove(&index);
    settle(s, index, generation, outcome.err());
}

/// Makes a source writable whose bytes only wait for the end of the batch.
#[inline]
pub(super) fn makes_way(s: &mut State, index: u32) -> bool {
    let sending = s.ios.at(index).is_some_and(|slot| slot.flags & SENDING != 0);
    sending && !s.behind.queue.is_empty() && {
        send_queued(s);
        s.ios.at(index).is_some_and(|slot| slot.flags & WRITABLE != 0)
    }
}

/// Closes the descriptor of a source, after what the source is sending; gives it back to be
/// closed when that is nothing.
#[inline]
pub(super) fn close(s: &mut State, index: u32, fd: OwnedFd) -> Option<OwnedFd> {
    let Some(slot) = s.ios.at(index).filter(|slot| slot.flags & SENDING != 0) else {
        return Some(fd);
    };
    slot.flags &= !SENDING;
    if let Some(place) = s.behind.place(index) {
        s.behind.queue[place].closed = Some(fd);
    } else if let Some(rest) = s.behind.rests().remove(&index) {
        adopt(s, fd, rest.bytes);
    }
    None
}

/// A source goes away without its descriptor: what it is sending goes first.
#[inline]
pub(super) fn end(s: &mut State, index: u32) {
    let Some(slot) = s.ios.at(index) else { return };
    if slot.flags & (SENDING | SEND_FAILED) != 0 && matches!(s.backend, Backend::Epoll(_)) {
        flush(s);
        s.behind.rests().remove(&index);
    }
}

/// Watches a closed connection until its last bytes are sent.
#[cold]
fn adopt(s: &mut State, fd: OwnedFd, bytes: Vec<u8>) {
    let orphans = &mut s.behind.orphans;
    let index = orphans.iter().position(Option::is_none).unwrap_or_else(|| {
        orphans.push(None);
        orphans.len() - 1
    });
    let key = (index as u64) << 32 | u64::from(ORPHAN);
    let Backend::Epoll(epoll) = &s.backend else { return };
    if epoll.watch_writable(fd.as_raw_fd(), key).is_ok() {
        let deadline_ms = s.now_ms.saturating_add(PATIENCE_MS);
        orphans[index] = Some(Orphan { fd, bytes, deadline_ms });
    }
}

/// Whether the key of an event names an orphan; if so it is sent on.
#[inline]
pub(super) fn note_orphan(s: &mut State, key: u64) -> bool {
    let is_orphan = key as u32 == ORPHAN;
    if is_orphan {
        send_orphan(s, (key >> 32) as usize);
    }
    is_orphan
}

#[cold]
fn send_orphan(s: &mut State, index: usize) {
    let Some(place) = s.behind.orphans.get_mut(index) else { return };
    let Some(orphan) = place else { return };
    match transmit(orphan.fd.as_raw_fd(), &orphan.bytes, 0) {
        Ok(n) if n < orphan.bytes.len() => drop(orphan.bytes.drain(..n)),
        _ => *place = None,
    }
}

/// Closes the connections whose peers took nothing for too long; when the next one is due.
pub(super) fn expire(s: &mut State) -> Option<u64> {
    if s.behind.orphans.is_empty() {
        return None;
    }
    let now_ms = s.now_ms;
    for place in &mut s.behind.orphans {
        if place.as_ref().is_some_and(|orphan| orphan.deadline_ms <= now_ms) {
            *place = None;
        }
    }
    while s.behind.orphans.last().is_some_and(Option::is_none) {
        s.behind.orphans.pop();
    }
    let deadlines = s.behind.orphans.iter().flatten().map(|orphan| orphan.deadline_ms);
    deadlines.min().map(|deadline_ms| deadline_ms - now_ms)
}

#[cfg(test)]
mod tests {
    use super::super::tests::on_epoll;
    use super::super::{Interest, Source, Timer, has_unsent, now, yield_now};
    use super::*;
    use std::future::poll_fn;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    fn source(socket: &UnixStream) -> Source {
        socket.set_nonblocking(true).unwrap();
        let source = Source::new(socket.as_fd(), Interest::BOTH.closing().stream()).unwrap();
        source.assume_ready();
        source
    }

    fn hand_over(source: &Source, bytes: &[u8]) -> usize {
        source.send_behind(&[IoSlice::new(bytes)]).unwrap().unwrap()
    }

    fn received(peer: &UnixStream) -> Vec<u8> {
        let mut all = vec![0; 1 << 16];
        peer.set_nonblocking(true).unwrap();
        let n = (&mut &*peer).read(&mut all).unwrap_or(0);
        all.truncate(n);
        all
    }

    #[test]
    fn a_batch_is_sent_when_it_is_through_or_full() {
        on_epoll(|| async {
            let pairs: Vec<_> = (0..BATCH + 1).map(|_| UnixStream::pair().unwrap()).collect();
            let sources: Vec<Source> = pairs.iter().map(|(socket, _)| source(socket)).collect();
            for source in &sources[..BATCH - 1] {
                hand_over(source, b"answer");
            }
            assert!(received(&pairs[0].1).is_empty());
            hand_over(&sources[BATCH - 1], b"answer");
            assert_eq!(received(&pairs[0].1), b"answer");
            assert_eq!(received(&pairs[BATCH - 1].1), b"answer");
            hand_over(&sources[BATCH], b"answer");
            assert!(received(&pairs[BATCH].1).is_empty());
            yield_now().await;
            assert_eq!(received(&pairs[BATCH].1), b"answer");
        });
    }

    #[test]
    fn a_caller_that_writes_by_itself_comes_after_what_was_queued() {
        on_epoll(|| async {
            let (socket, peer) = UnixStream::pair().unwrap();
            let source = source(&socket);
            hand_over(&source, b"first");
            poll_fn(|cx| source.poll_writable(cx)).await;
            assert_eq!(received(&peer), b"first");
            hand_over(&source, b"again");
            assert!(source.is_writable());
            assert_eq!(received(&peer), b"again");
            // A source that ends without its descriptor has sent what it took.
            hand_over(&source, b"second");
            drop(source);
            assert_eq!(received(&peer), b"second");
        });
    }

    #[test]
    fn a_peer_that_never_reads_is_given_up() {
        on_epoll(|| async {
            let (socket, _peer) = UnixStream::pair().unwrap();
            let source = source(&socket);
            loop {
                hand_over(&source, &[7; BEHIND]);
                let waits = poll_fn(|cx| Poll::Ready(source.poll_writable(cx).is_pending())).await;
                if waits {
                    break;
                }
            }
            source.close(socket.into());
            drop(source);
            assert!(has_unsent());
            super::super::state::with(|s| {
                for orphan in s.behind.orphans.iter_mut().flatten() {
                    orphan.deadline_ms = s.now_ms + 2;
                }
            });
            // The loop wakes for it, although nothing else happens.
            let limit = Timer::new();
            limit.set(now() + 10_000);
            let begun = now();
            while has_unsent()
                && poll_fn(|cx| Poll::Ready(limit.poll_expired(cx).is_pending())).await
            {
                yield_now().await;
            }
            assert!(!has_unsent() && now() - begun < 5_000);
        });
    }
}
