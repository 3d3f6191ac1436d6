//! Two-way copying between two connections, for what follows an upgrade (WebSocket, CONNECT).
//!
//! Each direction reads only when everything read before is written, so a slow reader slows its
//! peer and a direction never holds more than one buffer; an idle one holds none.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use system::driver::{Timer, now};

use crate::out::OutQueue;
use crate::stream::Stream;

/// One of the two ends of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    First,
    Second,
}

/// A transfer that failed, and whose connection it was.
#[derive(Debug)]
pub struct Broken {
    pub side: Side,
    pub error: io::Error,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(out)
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What the end of one direction means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// Both are over once what was read has been written (nginx's way).
    Together,
    /// It is passed on (`shutdown(2)`), and the other direction goes on.
    Apart,
}

/// How to relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelaySettings {
    /// Bytes per read, in each direction.
    pub buffer: usize,
    /// The relay ends when nothing has moved in either direction for so long.
    pub idle_ms: Option<u64>,
    pub closing: Closing,
}

/// Why a relay is over.
#[derive(Debug)]
pub enum End {
    /// As the settings say, in good order.
    Closed,
    /// Nothing moved for `idle_ms`.
    Idle,
    /// A connection broke.
    Broken(Broken),
}

/// The outcome of a relay.
#[derive(Debug)]
pub struct Relayed {
    /// Bytes written to the second connection.
    pub to_second: u64,
    /// Bytes written to the first connection.
    pub to_first: u64,
    pub end: End,
}

/// One direction: from `side`'s connection to the other.
struct Direction {
    side: Side,
    queue: OutQueue,
    read: u64,
    over: bool,
}

impl Direction {
    /// Moves until one of the two would block; ready at the end of the source's stream.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        settings: &RelaySettings,
    ) -> Poll<Result<(), Broken>> {
        let (reading, writing) = match self.side {
            Side::First => (Side::First, Side::Second),
            Side::Second => (Side::Second, Side::First),
        };
        let broken = |side| move |error| Broken { side, error };
        while !self.over {
            ready!(self.queue.poll_flush(cx, to)).map_err(broken(writing))?;
            let block = ready!(from.poll_lend(cx, settings.buffer)).map_err(broken(reading))?;
            if block.is_empty() {
                self.over = true;
                if settings.closing == Closing::Apart {
                    // A peer that is gone already has nothing to be told.
                    let _ = to.shutdown_write();
                }
            }
            self.read += block.len() as u64;
            self.queue.push(block);
        }
        Poll::Ready(Ok(()))
    }

    fn moved(&self) -> u64 {
        self.read + self.queue.sent()
    }
}

/// Copies both ways until the settings say that it is over.
///
/// `to_second` and `to_first` hold what was read ahead and must be written first. `progress` is
/// called after every step that moved something, with the bytes written so far to the second and
/// to the first connection: for accounting, and for limits that the caller keeps.
pub async fn relay(
    first: &Stream,
    second: &Stream,
    to_second: OutQueue,
    to_first: OutQueue,
    settings: &RelaySettings,
    mut progress: impl FnMut(u64, u64),
) -> Relayed {
    let ahead = (to_second.sent(), to_first.sent());
    let mut there = Direction { side: Side::First, queue: to_second, read: 0, over: false };
    let mut back = Direction { side: Side::Second, queue: to_first, read: 0, over: false };
    let timer = Timer::new();
    let rearm = |timer: &Timer| {
        if let Some(ms) = settings.idle_ms {
            timer.set(now().saturating_add(ms));
        }
    };
    rearm(&timer);
    let end = poll_fn(|cx| {
        let before = there.moved() + back.moved();
        let outcomes =
            [there.poll(cx, first, second, settings), back.poll(cx, second, first, settings)];
        if there.moved() + back.moved() != before {
            rearm(&timer);
            progress(there.queue.sent() - ahead.0, back.queue.sent() - ahead.1);
        }
        let mut over = 0;
        for outcome in outcomes {
            match outcome {
                Poll::Ready(Err(broken)) => return Poll::Ready(End::Broken(broken)),
                Poll::Ready(Ok(())) => over += 1,
                Poll::Pending => {}
            }
        }
        if over == 2 || (over == 1 && settings.closing == Closing::Together) {
            return Poll::Ready(End::Closed);
        }
        timer.poll_expired(cx).map(|()| End::Idle)
    })
    .await;
    Relayed { to_second: there.queue.sent() - ahead.0, to_first: back.queue.sent() - ahead.1, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_each, pattern, read_all, tcp_pair, unix_pair};
    use std::cell::Cell;
    use std::rc::Rc;
    use system::driver::spawn;

    const SETTINGS: RelaySettings =
        RelaySettings { buffer: 4096, idle_ms: Some(4_000), closing: Closing::Apart };

    #[test]
    fn both_directions_flow_and_close_apart() {
        on_each(|| async {
            let (client, first) = tcp_pair().await;
            let (second, server) = unix_pair();
            let (up, down) = (pattern(1 << 20), pattern(3 << 20));
            let (mut to_second, mut to_first) = (OutQueue::new(), OutQueue::new());
            to_second.push(&b"early "[..]);
            to_first.push(&b"101 "[..]);
            let steps = Rc::new(Cell::new((0, 0)));
            let seen = steps.clone();
            let outcome = Rc::new(Cell::new(None));
            let result = outcome.clone();
            spawn(async move {
                let progress = |a, b| seen.set((a, b));
                let done = relay(&first, &second, to_second, to_first, &SETTINGS, progress).await;
                result.set(Some(done));
            });
            let expected = up.clone();
            let answer = down.clone();
            spawn(async move {
                // The client's end arrives while the server has yet to answer.
                let got = read_all(&server).await;
                assert!(&got[..6] == b"early " && got[6..] == expected);
                server.write_all(&answer).await.unwrap();
            });
            client.write_all(&up).await.unwrap();
            client.shutdown_write().unwrap();
            let got = read_all(&client).await;
            assert!(&got[..4] == b"101 " && got[4..] == down);
            while system::driver::live_tasks() > 0 {
                system::driver::yield_now().await;
            }
            let done = outcome.take().unwrap();
            let moved = (up.len() as u64 + 6, down.len() as u64 + 4);
            assert!(matches!(done.end, End::Closed), "{done:?}");
            assert_eq!((done.to_second, done.to_first), moved);
            assert_eq!(steps.get(), moved);
        });
    }

    #[test]
    fn one_end_closes_both_together() {
        on_each(|| async {
            let (client, first) = unix_pair();
            let (second, server) = unix_pair();
            let settings = RelaySettings { closing: Closing::Together, ..SETTINGS };
            server.write_all(b"farewell").await.unwrap();
            drop(server);
            let (a, b) = (OutQueue::new(), OutQueue::new());
            let done = relay(&first, &second, a, b, &settings, |_, _| {}).await;
            assert!(matches!(done.end, End::Closed) && done.to_first == 8, "{done:?}");
            drop(first);
            assert_eq!(read_all(&client).await, b"farewell");
        });
    }

    #[test]
    fn silence_ends_it_and_traffic_prolongs_it() {
        on_each(|| async {
            let (client, first) = unix_pair();
            let (second, _server) = unix_pair();
            let settings = RelaySettings { idle_ms: Some(100), ..SETTINGS };
            spawn(async move {
                for _ in 0..3 {
                    crate::sleep(40).await;
                    client.write_all(b"ping").await.unwrap();
                }
                // Stay open until the relay has gone.
                assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
            });
            let begin = now();
            let (a, b) = (OutQueue::new(), OutQueue::new());
            let done = relay(&first, &second, a, b, &settings, |_, _| {}).await;
            assert!(matches!(done.end, End::Idle) && done.to_second == 12, "{done:?}");
            assert!(now() >= begin + 220);
            drop(first);
            while system::driver::live_tasks() > 0 {
                system::driver::yield_now().await;
            }
        });
    }

    #[test]
    fn a_slow_reader_holds_its_peer_back() {
        on_each(|| async {
            let (client, first) = unix_pair();
            let (second, _never_reads) = unix_pair();
            let settings = RelaySettings { idle_ms: Some(5), ..SETTINGS };
            let bytes = vec![1; 64 << 20];
            let written = Rc::new(Cell::new(0));
            let total = written.clone();
            let lent = crate::memory::usage().lent;
            let writer = async move {
                poll_fn(|cx| {
                    while let Poll::Ready(n) = client.poll_write(cx, &bytes) {
                        total.set(total.get() + n.unwrap());
                    }
                    Poll::<()>::Pending
                })
                .await
            };
            let (a, b) = (OutQueue::new(), OutQueue::new());
            let relayed = relay(&first, &second, a, b, &settings, |_, _| {});
            let crate::Either::Second(done) = crate::race(writer, relayed).await else {
                unreachable!("the writer never ends");
            };
            assert!(matches!(done.end, End::Idle), "{done:?}");
            // Two socket buffers and one block are all that can be on the way.
            assert!(written.get() < 2 << 20, "{}", written.get());
            assert!(crate::memory::usage().lent <= lent);
        });
    }

    #[test]
    fn a_broken_connection_is_named() {
        on_each(|| async {
            let (_client, first) = unix_pair();
            let (second, server) = tcp_pair().await;
            server.reset_on_close().unwrap();
            drop(server);
            let (mut a, b) = (OutQueue::new(), OutQueue::new());
            a.push(&b"anyone?"[..]);
            let mut done = relay(&first, &second, a, b, &SETTINGS, |_, _| {}).await;
            if !system::driver::reports_errors() && matches!(done.end, End::Closed) {
                return;
            }
            let End::Broken(broken) = &mut done.end else { panic!("{done:?}") };
            assert_eq!(broken.side, Side::Second);
        });
    }
}
