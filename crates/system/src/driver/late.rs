//! Connections that the kernel watches from the first wait on (epoll).
//!
//! What was just accepted is tried before anybody waits for it: its request is mostly there, and
//! so is room for an answer. A client that closes after one answer is often through before its
//! task had to wait for anything of it but its leaving, and then telling the kernel to watch it,
//! and to forget it again, was work for nothing.
//!
//! ```text
//!  accepted ---> untold --- somebody waits to read or write ---------------> watched
//!                  |-------- somebody waits for it to hang up, DELAY_MS ----^
//!                  '-------- dropped: nobody told the kernel
//! ```
//! A registration tells what is there already, so being late loses no event.

use std::collections::VecDeque;

use super::io::{FREE, HUNG, IoSlot, NOTED, READABLE, UNTOLD, WRITABLE, Want, watch};
use super::state::State;

/// How late a hang-up may be noticed, in milliseconds of the loop's clock.
const DELAY_MS: u64 = 5;

/// A source whose leaving somebody waits for.
struct Noted {
    index: u32,
    generation: u32,
    due_ms: u64,
}

/// After a first read in vain only one new connection in so many is tried before it is waited
/// for, until that comes to something: a client that is faster than its own request, which the
/// next ones will be, too, is better waited for at once.
const TRIED: u32 = 4;

pub(super) struct Late {
    /// Who is to be watched soon, in the order in which they are due.
    queue: VecDeque<Noted>,
    /// New connections that are not tried.
    spared: u32,
}

impl Late {
    pub(super) const fn new() -> Late {
        Late { queue: VecDeque::new(), spared: 0 }
    }

    /// Whether reading from a new connection is worth a try.
    #[inline]
    pub(super) fn may_try(&mut self) -> bool {
        let may = self.spared == 0;
        self.spared = self.spared.saturating_sub(1);
        may
    }

    /// What came of a try.
    #[inline]
    pub(super) fn learn(&mut self, found: bool) {
        self.spared = if found { 0 } else { TRIED - 1 };
    }

    pub(super) fn memory(&self) -> usize {
        self.queue.capacity() * size_of::<Noted>()
    }
}

/// Somebody begins to wait for a source that the kernel does not watch yet.
#[cold]
pub(super) fn begin(s: &mut State, index: u32, want: Want) {
    if want != Want::Hang {
        return tell(s, index);
    }
    let Some(slot) = s.ios.at(index).filter(|slot| slot.flags & NOTED == 0) else { return };
    slot.flags |= NOTED;
    let noted =
        Noted { index, generation: slot.generation, due_ms: s.now_ms.saturating_add(DELAY_MS) };
    s.late.queue.push_back(noted);
}

/// Has the kernel watch a source from now on. One that cannot be watched has come to its end:
/// whoever uses it finds out at once.
#[cold]
pub(super) fn tell(s: &mut State, index: u32) {
    let Some(slot) = s.ios.at(index).filter(|slot| slot.flags & UNTOLD != 0) else { return };
    slot.flags &= !(UNTOLD | NOTED);
    let fd = slot.fd;
    if watch(s, index).is_err() {
        // SAFETY: takes no pointer; this is the descriptor of a living source.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
        if let Some(slot) = s.ios.at(index) {
            slot.flags |= HUNG | READABLE | WRITABLE;
        }
    }
}

/// How long the loop may wait for events at most, in milliseconds; none: as long as it likes.
#[inline]
pub(super) fn patience(s: &mut State) -> Option<u64> {
    while let Some(first) = s.late.queue.front() {
        let (index, generation, due_ms) = (first.index, first.generation, first.due_ms);
        if s.ios.at(index).is_some_and(|slot| is_noted(slot, generation)) {
            return Some(due_ms.saturating_sub(s.now_ms));
        }
        s.late.queue.pop_front();
    }
    None
}

/// Watches those who are due.
#[inline]
pub(super) fn catch_up(s: &mut State) {
    while let Some(first) = s.late.queue.front()
        && first.due_ms <= s.now_ms
    {
        let (index, generation) = (first.index, first.generation);
        s.late.queue.pop_front();
        if s.ios.at(index).is_some_and(|slot| is_noted(slot, generation)) {
            tell(s, index);
        }
    }
}

fn is_noted(slot: &IoSlot, generation: u32) -> bool {
    slot.generation == generation && slot.flags & (FREE | NOTED) == NOTED
}

#[cfg(test)]
mod tests {
    use super::super::state::{Backend, with};
    use super::super::tests::{self, on_epoll};
    use super::super::{Interest, Source, Timer, has_unsent, now, yield_now};
    use std::future::poll_fn;
    use std::io::{IoSlice, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::task::{Context, Poll};

    fn pair() -> (Source, UnixStream, UnixStream) {
        tests::pair(|fd| Source::established(fd, Interest::BOTH.closing().stream()))
    }

    /// How many descriptors the kernel watches for this thread's driver: proc(5), `fdinfo`.
    fn watched() -> usize {
        let numbers = with(|s| match &s.backend {
            Backend::Epoll(epoll) => epoll.numbers(),
            _ => unreachable!("a test of epoll"),
        });
        let text = numbers
            .map(|fd| std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{fd}")).unwrap());
        let watched = text.iter().flat_map(|text| text.lines());
        // One of them is the other instance.
        watched.filter(|line| line.starts_with("tfd:")).count() - 1
    }

    /// Waits until `poll` is ready, for 30 seconds at most.
    async fn within<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        let watchdog = Timer::new();
        watchdog.set(now() + 30_000);
        poll_fn(|cx| match poll(cx) {
            Poll::Ready(value) => Poll::Ready(value),
            Poll::Pending => {
                assert!(watchdog.poll_expired(cx).is_pending(), "nothing happened for 30 s");
                Poll::Pending
            }
        })
        .await
    }

    #[test]
    fn who_is_served_at_once_is_never_watched() {
        on_epoll(|| async {
            let (source, socket, mut peer) = pair();
            peer.write_all(b"request").unwrap();
            assert!(poll_fn(|cx| Poll::Ready(source.poll_readable(cx))).await.is_ready());
            assert_eq!((&socket).read(&mut [0; 16]).unwrap(), 7);
            source.note_short_read(7);
            assert!(poll_fn(|cx| Poll::Ready(source.poll_hung_up(cx))).await.is_pending());
            source.send_behind(&[IoSlice::new(b"answer")]).unwrap().unwrap();
            yield_now().await;
            assert_eq!((&peer).read(&mut [0; 16]).unwrap(), 6);
            assert_eq!(watched(), 0);
        });
    }

    #[test]
    fn who_waits_to_read_is_told_what_is_there_already() {
        on_epoll(|| async {
            let (source, _socket, mut peer) = pair();
            source.clear_readable();
            peer.write_all(b"request").unwrap();
            within(|cx| source.poll_readable(cx)).await;
            assert_eq!(watched(), 1);
            let mut text = [0; 16];
            assert_eq!(source.received(&mut text).unwrap().unwrap(), 7);
        });
    }

    #[test]
    fn one_in_four_is_tried_while_clients_are_faster_than_their_requests() {
        on_epoll(|| async {
            let is_tried = async |peer_writes: bool| {
                let (source, socket, mut peer) = pair();
                let tried = poll_fn(|cx| Poll::Ready(source.poll_readable(cx))).await.is_ready();
                if peer_writes {
                    peer.write_all(b"request").unwrap();
                }
                match (&socket).read(&mut [0; 16]) {
                    Ok(n) => source.note_short_read(n),
                    Err(_) => source.clear_readable(),
                }
                tried
            };
            assert!(is_tried(false).await);
            for wanted in [false, false, false, true, false] {
                assert_eq!(is_tried(false).await, wanted);
            }
            let mut tried = [false; 4];
            for tried in &mut tried {
                *tried = is_tried(true).await;
            }
            assert_eq!(tried, [false, false, true, true]);
        });
    }

    #[test]
    fn a_client_that_leaves_is_noticed_a_little_later() {
        on_epoll(|| async {
            let (source, _socket, peer) = pair();
            drop(peer);
            within(|cx| source.poll_hung_up(cx)).await;
            assert!(source.hung_up());
            // Others that were noted and are gone keep nobody from sleeping.
            let (gone, _socket, _peer) = pair();
            assert!(poll_fn(|cx| Poll::Ready(gone.poll_hung_up(cx))).await.is_pending());
            assert!(with(super::patience).is_some());
            drop(gone);
            assert!(with(super::patience).is_none());
        });
    }

    #[test]
    fn a_full_socket_is_watched_until_it_has_taken_all() {
        on_epoll(|| async {
            for closed in [false, true] {
                let (source, socket, mut peer) = pair();
                let mut sent = 0;
                while let Ok(n) = (&socket).write(&[1; 4096]) {
                    sent += n;
                }
                source.send_behind(&[IoSlice::new(&[2; 1024])]).unwrap().unwrap();
                yield_now().await;
                let mut source = Some(source);
                if closed {
                    source.as_ref().unwrap().close(socket.into());
                    source = None;
                    assert!(has_unsent());
                }
                let mut all = Vec::new();
                within(|cx| {
                    let mut bytes = [0; 4096];
                    while let Ok(n) = peer.read(&mut bytes) {
                        all.extend_from_slice(&bytes[..n]);
                        if n == 0 {
                            break;
                        }
                    }
                    match all.len() == sent + 1024 {
                        true => Poll::Ready(()),
                        false => {
                            super::super::defer(cx);
                            Poll::Pending
                        }
                    }
                })
                .await;
                assert!(all.ends_with(&[2; 1024]));
                drop(source);
            }
        });
    }
}
