//! Bytes both ways between two connections, for as long as they like: what TCP balancing is made
//! of. Counted, limited in rate, spliced while a transfer is large and both ends are quick.
//!
//! ```text
//!               several full buffers in a row, taken at once
//!   copying  -------------------------------------------------> splicing
//!      ^                                                            |
//!      `---- little came, or the receiver is slower than we are ----'
//! ```
//! A direction reads only when all that it read before is written, so a slow receiver slows its
//! sender. It holds one buffer at most, and none while it is idle. A pipe holds more, so a slow
//! receiver's transfer goes on by copying. Compare `relay.rs`, which does less and is for
//! upgraded connections.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use system::driver::{Timer, now};

use crate::out::OutQueue;
use crate::relay::{Closing, Side};
use crate::splice::{Filled, Splicer};
use crate::stream::Stream;

/// Full buffers in a row that make splicing worth its calls.
const STREAK: u32 = 4;
/// Bytes that a direction moves before others have their turn.
const TURN: u64 = 1 << 20;

/// How to tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelSettings {
    /// Bytes per read.
    pub buffer: usize,
    /// It ends when nothing moved in either direction for so long, in milliseconds.
    pub idle_ms: u64,
    pub closing: Closing,
    /// Bytes per second that are read from the first connection; 0 is no limit.
    pub first_rate: u64,
    /// The same for the second connection.
    pub second_rate: u64,
    /// Bytes may go through a pipe: both connections are plain.
    pub splice: bool,
    /// Small writes to the first and to the second connection go out at once (`TCP_NODELAY`).
    pub nodelay: [bool; 2],
}

/// The longest write that no path splits: nothing of it waits for an acknowledgement (RFC 9293
/// section 3.7.1: the least segment of IPv4).
const UNSPLIT: u64 = 536;

/// Bytes moved so far, for whoever watches.
#[derive(Debug, Default)]
pub struct Counts {
    pub from_first: Cell<u64>,
    pub to_first: Cell<u64>,
    pub from_second: Cell<u64>,
    pub to_second: Cell<u64>,
    /// When the first byte, or the end, came from the second connection, in milliseconds of the
    /// loop's clock.
    pub answered_ms: Cell<Option<u64>>,
}

/// Why a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// The stream of this side ended last, and all was written that somebody would read.
    Closed(Side),
    /// Nothing moved for `idle_ms`.
    Idle,
    /// What there was could not be written to this side.
    Broken(Side, io::Error),
}

/// Moves bytes until the settings say that it is over. `to_second` holds what was read ahead of
/// the first connection, or comes before it; it counts as written only. `tell` hears of
/// connections that broke while they were read, which counts as the end of their stream.
pub async fn tunnel(
    first: &Stream,
    second: &Stream,
    to_second: OutQueue,
    settings: &TunnelSettings,
    counts: &Counts,
    mut tell: impl FnMut(Side, io::Error),
) -> TunnelEnd {
    let mut there = Direction::new(Side::First, to_second, settings.first_rate);
    let mut back = Direction::new(Side::Second, OutQueue::new(), settings.second_rate);
    there.may_splice = first.tls().is_none() && second.tls().is_none();
    back.may_splice = there.may_splice;
    [back.holds_back, there.holds_back] = settings.nodelay;
    let idle = Timer::new();
    let rearm = || idle.set(now().saturating_add(settings.idle_ms));
    rearm();
    poll_fn(|cx| {
        let before = there.moved() + back.moved();
        let was_delayed = there.is_delayed() || back.is_delayed();
        let outcomes = [
            there.poll(cx, first, second, settings, &mut tell),
            back.poll(cx, second, first, settings, &mut tell),
        ];
        counts.from_first.set(counts.from_first.get() + std::mem::take(&mut there.fresh));
        counts.from_second.set(counts.from_second.get() + std::mem::take(&mut back.fresh));
        counts.to_second.set(there.written());
        counts.to_first.set(back.written());
        if counts.answered_ms.get().is_none() && (back.read > 0 || back.over) {
            counts.answered_ms.set(Some(now()));
        }
        for (outcome, writes_to) in outcomes.into_iter().zip([Side::Second, Side::First]) {
            if let Poll::Ready(Err(error)) = outcome {
                return Poll::Ready(TunnelEnd::Broken(writes_to, error));
            }
        }
        match (there.done, back.done, settings.closing) {
            (true, true, _) => return Poll::Ready(TunnelEnd::Closed(last(&there, &back))),
            (true, false, Closing::Together) => {
                return Poll::Ready(TunnelEnd::Closed(Side::First));
            }
            (false, true, Closing::Together) => {
                return Poll::Ready(TunnelEnd::Closed(Side::Second));
            }
            _ => {}
        }
        let is_delayed = there.is_delayed() || back.is_delayed();
        if is_delayed {
            idle.clear();
            return Poll::Pending;
        }
        if was_delayed || there.moved() + back.moved() != before {
            rearm();
        }
        idle.poll_expired(cx).map(|()| TunnelEnd::Idle)
    })
    .await
}

/// The side whose stream ended last.
fn last(there: &Direction, back: &Direction) -> Side {
    if there.done_at > back.done_at { Side::First } else { Side::Second }
}

/// How bytes are moved at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Through a buffer, which was full so many times in a row.
    Copying(u32),
    Splicing,
}

/// One direction: from `side` to the other.
struct Direction {
    side: Side,
    queue: OutQueue,
    splicer: Option<Box<Splicer>>,
    /// Neither side speaks TLS, whose bytes have to be computed.
    may_splice: bool,
    mode: Mode,
    read: u64,
    /// Read, and not counted yet.
    fresh: u64,
    spliced: u64,
    /// The stream has ended.
    over: bool,
    /// And all of it was written.
    done: bool,
    done_at: u64,
    /// The receiver's socket is to send small writes at once, and does not know it yet. The first
    /// small write goes out at once anyway, so that short sessions are spared the call.
    holds_back: bool,
    pace: Option<Pace>,
}

/// A limit of bytes per second.
struct Pace {
    rate: u64,
    begun_ms: u64,
    timer: Timer,
}

impl Direction {
    fn new(side: Side, queue: OutQueue, rate: u64) -> Direction {
        let pace = || Pace { rate, begun_ms: now(), timer: Timer::new() };
        Direction {
            side,
            queue,
            splicer: None,
            may_splice: false,
            mode: Mode::Copying(0),
            read: 0,
            fresh: 0,
            spliced: 0,
            over: false,
            done: false,
            done_at: 0,
            holds_back: false,
            pace: (rate > 0).then(pace),
        }
    }

    fn moved(&self) -> u64 {
        self.read + self.written()
    }

    fn written(&self) -> u64 {
        self.queue.sent() + self.spliced
    }

    fn is_delayed(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.timer.deadline().is_some())
    }

    /// Moves until one of the two would block; ready at the end, or with an error of writing.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        settings: &TunnelSettings,
        tell: &mut impl FnMut(Side, io::Error),
    ) -> Poll<io::Result<()>> {
        let turn_ends = self.read.saturating_add(TURN);
        while !self.done {
            if self.poll_write(cx, to)?.is_pending() {
                self.mode = Mode::Copying(0);
                return Poll::Pending;
            }
            if self.over {
                self.finish(to, settings);
                break;
            }
            let limit = ready!(self.poll_allowed(cx));
            if self.read >= turn_ends {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.poll_read(cx, from, settings, limit)) {
                Ok(0) => self.over = true,
                Ok(n) => {
                    self.read += n;
                    self.fresh += n;
                    if let Some(pace) = &self.pace {
                        pace.wait_for(n);
                    }
                }
                Err(error) => {
                    tell(self.side, error);
                    self.over = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self, to: &Stream, settings: &TunnelSettings) {
        self.done = true;
        self.done_at = now();
        if let Some(pace) = &self.pace {
            pace.timer.clear();
        }
        if settings.closing == Closing::Apart {
            // A peer that is gone already has nothing to be told.
            let _ = to.shutdown_write();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &Stream) -> io::Result<Poll<()>> {
        if self.holds_back {
            let waiting = self.queue.len_bytes();
            let is_first = self.queue.sent() == 0 && waiting <= UNSPLIT;
            if self.mode == Mode::Splicing || waiting > 0 && !is_first {
                self.holds_back = false;
                // A connection that is broken already is found to be so by its next use.
                let _ = to.set_nodelay(true);
            }
        }
        if let Some(splicer) = self.splicer.as_mut().filter(|splicer| splicer.held() > 0) {
            let before = splicer.held();
            let outcome = splicer.poll_drain(cx, to, 0);
            self.spliced += (before - splicer.held()) as u64;
            return match outcome {
                Poll::Ready(outcome) => outcome.map(Poll::Ready),
                Poll::Pending => Ok(Poll::Pending),
            };
        }
        match self.queue.poll_flush(cx, to) {
            Poll::Ready(outcome) => outcome.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// How many bytes may be read now.
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        let Some(pace) = &self.pace else { return Poll::Ready(u64::MAX) };
        if pace.timer.deadline().is_some() {
            ready!(pace.timer.poll_expired(cx));
            pace.timer.clear();
        }
        match pace.allowance(self.read) {
            Ok(allowed) => Poll::Ready(allowed),
            Err(wait_ms) => {
                pace.timer.set(now().saturating_add(wait_ms));
                pace.timer.poll_expired(cx).map(|()| 1)
            }
        }
    }

    /// Reads some bytes, at most `limit`; 0 is the end of the stream.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        settings: &TunnelSettings,
        limit: u64,
    ) -> Poll<io::Result<u64>> {
        if self.mode == Mode::Splicing {
            let splicer = self.splicer.get_or_insert_default();
            match ready!(splicer.poll_fill(cx, from, limit))? {
                Filled::End => return Poll::Ready(Ok(0)),
                Filled::Bytes(n) => {
                    if n < settings.buffer {
                        self.mode = Mode::Copying(0);
                    }
                    return Poll::Ready(Ok(n as u64));
                }
                // No pipe to be had: this transfer does without.
                Filled::Unsupported => self.mode = Mode::Copying(0),
            }
        }
        let most = settings.buffer.min(usize::try_from(limit).unwrap_or(usize::MAX));
        let block = ready!(from.poll_lend_limited(cx, settings.buffer, most))?;
        let n = block.len();
        self.queue.push(block);
        self.mode = match self.mode {
            Mode::Copying(full) if n == settings.buffer && settings.splice => {
                match full + 1 >= STREAK && self.may_splice {
                    true => Mode::Splicing,
                    false => Mode::Copying(full + 1),
                }
            }
            _ => Mode::Copying(0),
        };
        Poll::Ready(Ok(n as u64))
    }
}

impl Pace {
    /// Bytes that may be read when so many were, or how long to wait, in milliseconds. As in
    /// nginx, those of the next second may come at once.
    fn allowance(&self, read: u64) -> Result<u64, u64> {
        let elapsed = now().saturating_sub(self.begun_ms);
        let granted = self.rate.saturating_mul(elapsed / 1000 + 1);
        match granted.checked_sub(read) {
            Some(allowed @ 1..) => Ok(allowed),
            _ => Err((read - granted).saturating_mul(1000) / self.rate + 1),
        }
    }

    /// Nothing is read for the time that `n` bytes are worth.
    fn wait_for(&self, n: u64) {
        let delay = n.saturating_mul(1000) / self.rate;
        if delay > 0 {
            self.timer.set(now().saturating_add(delay));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_each, pattern, read_all, tcp_pair, unix_pair};
    use std::rc::Rc;
    use system::driver::{live_tasks, spawn, yield_now};

    const SETTINGS: TunnelSettings = TunnelSettings {
        buffer: 4096,
        idle_ms: 5_000,
        closing: Closing::Apart,
        first_rate: 0,
        second_rate: 0,
        splice: true,
        nodelay: [true; 2],
    };

    struct Run {
        end: Rc<Cell<Option<TunnelEnd>>>,
        counts: Rc<Counts>,
    }

    fn start(first: Stream, second: Stream, settings: TunnelSettings) -> Run {
        let run = Run { end: Rc::default(), counts: Rc::default() };
        let (end, counts) = (run.end.clone(), run.counts.clone());
        spawn(async move {
            let outcome =
                tunnel(&first, &second, OutQueue::new(), &settings, &counts, |_, _| {}).await;
            end.set(Some(outcome));
        });
        run
    }

    async fn finish() {
        while live_tasks() > 0 {
            yield_now().await;
        }
    }

    #[test]
    fn large_streams_flow_both_ways_whole_and_are_counted() {
        on_each(|| async {
            for unix in [false, true] {
                let pair = || async { if unix { unix_pair() } else { tcp_pair().await } };
                let ((client, first), (second, server)) = (pair().await, pair().await);
                let run = start(first, second, SETTINGS);
                let (up, down) = (pattern(5 << 20), pattern(3 << 20));
                let (sent_up, sent_down) = (up.clone(), down.clone());
                let client = Rc::new(client);
                let writer = client.clone();
                spawn(async move {
                    writer.write_all(&sent_up).await.unwrap();
                    writer.shutdown_write().unwrap();
                });
                let got_down = Rc::new(Cell::new(Vec::new()));
                let result = got_down.clone();
                spawn(async move { result.set(read_all(&client).await) });
                assert!(read_all(&server).await == up);
                server.write_all(&sent_down).await.unwrap();
                drop(server);
                finish().await;
                assert!(got_down.take() == down);
                assert!(matches!(run.end.take(), Some(TunnelEnd::Closed(Side::Second))));
                let counts = &run.counts;
                assert_eq!((counts.from_first.get(), counts.to_second.get()), (5 << 20, 5 << 20));
                assert_eq!((counts.from_second.get(), counts.to_first.get()), (3 << 20, 3 << 20));
                assert!(counts.answered_ms.get().is_some());
            }
        });
    }

    #[test]
    fn one_end_ends_both_after_what_was_read_is_written() {
        on_each(|| async {
            let ((client, first), (second, server)) = (tcp_pair().await, tcp_pair().await);
            let settings = TunnelSettings { closing: Closing::Together, ..SETTINGS };
            let run = start(first, second, settings);
            let body = pattern(2 << 20);
            let sent = body.clone();
            spawn(async move { server.write_all(&sent).await.unwrap() });
            assert!(read_all(&client).await == body);
            finish().await;
            assert!(matches!(run.end.take(), Some(TunnelEnd::Closed(Side::Second))));
        });
    }

    #[test]
    fn silence_ends_it_and_so_does_a_receiver_that_is_gone() {
        on_each(|| async {
            let ((_client, first), (second, _server)) = (tcp_pair().await, unix_pair());
            let run = start(first, second, TunnelSettings { idle_ms: 3, ..SETTINGS });
            finish().await;
            assert!(matches!(run.end.take(), Some(TunnelEnd::Idle)));
            let ((client, first), (second, server)) = (unix_pair(), unix_pair());
            let run = start(first, second, SETTINGS);
            client.write_all(&pattern(1 << 10)).await.unwrap();
            drop(server);
            finish().await;
            let end = run.end.take();
            assert!(matches!(end, Some(TunnelEnd::Broken(Side::Second, _))), "{end:?}");
        });
    }

    #[test]
    fn a_rate_is_kept() {
        on_each(|| async {
            let ((client, first), (second, server)) = (tcp_pair().await, tcp_pair().await);
            let settings = TunnelSettings { first_rate: 50_000, ..SETTINGS };
            let run = start(first, second, settings);
            let begun = now();
            spawn(async move {
                // The first second's worth, in pieces of the buffer's size.
                client.write_all(&pattern(12_288)).await.unwrap();
            });
            let mut taken = 0;
            let mut buffer = [0; 4096];
            while taken < 12_288 {
                taken += server.read(&mut buffer).await.unwrap();
            }
            // Two waits of 4096 / 50 milliseconds lie before the third piece.
            let elapsed = now() - begun;
            assert!((160..5_000).contains(&elapsed), "{elapsed}");
            drop(server);
            finish().await;
            drop(run);
        });
    }
}
