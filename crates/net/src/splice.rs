//! Moving bodies between sockets without copying them through the process.
//!
//! `splice(2)` moves pages from a socket to a pipe and from there to another socket. Pipes are
//! scarce (a user without privileges gets few large ones), so one is borrowed only while bytes
//! are in it, and where none can be had, or the sockets do not support it, bytes are copied.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::buffer::{Block, Chunk};
use crate::out::OutQueue;
use crate::relay::{Broken, Side};
use crate::stream::Stream;

/// Bytes that a pipe holds.
const CAPACITY: usize = 256 << 10;
/// A fill of at least so much suggests that more follows at once.
const PLENTY: usize = 64 << 10;
/// The most that is written to a pipe at a time of what was received ahead: one page fits always.
const AHEAD: usize = 4 << 10;
/// Empty pipes kept for the next borrower.
const KEPT: usize = 8;
/// Shorter bodies are copied: two calls for a pipe cost more than a copy in the cache.
pub const WORTHWHILE: u64 = 128 << 10;
/// Pieces that may wait in pipes for receivers that are slow; more of them wait in memory.
const WAITING: usize = 16;

struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
}

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    /// Pieces of output that are in pipes.
    static PIECES: Cell<usize> = const { Cell::new(0) };
}

fn borrow_pipe() -> rustix::io::Result<Pipe> {
    if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
        return Ok(pipe);
    }
    let (output, input) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&input, CAPACITY)?;
    Ok(Pipe { output, input })
}

fn return_pipe(pipe: Pipe) {
    // At the end of a thread the pool may be gone: then the pipe is simply closed.
    let _ = PIPES.try_with(|pipes| {
        let mut pipes = pipes.borrow_mut();
        if pipes.len() < KEPT {
            pipes.push(pipe);
        }
    });
}

/// A pipe's worth of a body on its way: filled from one socket, drained to another.
#[derive(Default)]
pub struct Splicer {
    pipe: Option<Pipe>,
    held: usize,
    /// The last fill was large.
    plenty: bool,
}

/// A piece of output that waits in a pipe. Dropped before all of it was written, it takes the pipe
/// with it.
pub struct Spliced {
    /// Absent once nothing is in it, or it broke.
    pipe: Option<Pipe>,
    /// Bytes that the pipe holds.
    held: Cell<usize>,
    /// Bytes that are not known to be written.
    length: usize,
}

impl Spliced {
    fn new(pipe: Pipe, length: usize) -> Spliced {
        PIECES.set(PIECES.get() + 1);
        Spliced { pipe: Some(pipe), held: Cell::new(length), length }
    }

    /// Bytes that are still to be written.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True when all was written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Moves bytes to a socket; what it answers is then told to [`Spliced::wrote`].
    ///
    /// # Errors
    /// As `splice(2)`; `BrokenPipe` when the pipe was lost before.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        to: &Stream,
        is_more: bool,
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let more = if is_more { SpliceFlags::MORE } else { SpliceFlags::empty() };
        let flags = SpliceFlags::NONBLOCK | more;
        match ready!(to.poll_output(cx, None, |to| {
            splice(&pipe.output, None, to, None, self.held.get(), flags)
        })) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                self.held.set(self.held.get().saturating_sub(n));
                Poll::Ready(Ok(n))
            }
            error => Poll::Ready(error),
        }
    }

    /// So many bytes are known to be written.
    pub(crate) fn wrote(&mut self, n: usize) {
        self.length = self.length.saturating_sub(n);
    }

    /// Takes the bytes out of the pipe into memory.
    ///
    /// # Errors
    /// As `read(2)` of the pipe, which is lost then.
    pub(crate) fn reclaim(&mut self) -> io::Result<Chunk> {
        let Some(pipe) = self.pipe.take() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut block = Block::lend(self.length);
        while block.len() < self.length {
            let wanted = self.length - block.len();
            let spare = &mut block.spare()[..wanted];
            match rustix::io::retry_on_intr(|| rustix::io::read(&pipe.output, &mut *spare))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => block.advance(n),
            }
        }
        return_pipe(pipe);
        Ok(block.freeze())
    }

    /// True when too many pieces wait in pipes for this one to wait there too.
    pub(crate) fn is_one_too_many(&self) -> bool {
        PIECES.get() > WAITING
    }
}

impl Drop for Spliced {
    fn drop(&mut self) {
        let _ = PIECES.try_with(|pieces| pieces.set(pieces.get() - 1));
        if self.held.get() == 0
            && let Some(pipe) = self.pipe.take()
        {
            return_pipe(pipe);
        }
    }
}

/// What a fill found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filled {
    /// So many bytes are in the pipe now.
    Bytes(usize),
    /// The source's stream has ended.
    End,
    /// No pipe, or not between these descriptors: copy instead.
    Unsupported,
}

impl Splicer {
    pub fn new() -> Splicer {
        Splicer::default()
    }

    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `limit` bytes from a socket into an empty pipe.
    ///
    /// # Errors
    /// The source's, as `splice(2)` reports it.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        limit: u64,
    ) -> Poll<io::Result<Filled>> {
        debug_assert_eq!(self.held, 0, "an unfinished pipe is drained first");
        if from.tls().is_some() {
            return Poll::Ready(Ok(Filled::Unsupported));
        }
        let limit = limit.min(CAPACITY as u64) as usize;
        loop {
            ready!(from.source().poll_readable_in_place(cx));
            let Ok(pipe) = self.pipe.take().map_or_else(borrow_pipe, Ok) else {
                return Poll::Ready(Ok(Filled::Unsupported));
            };
            if let Some(outcome) = take_received(from, &pipe, limit) {
                match outcome {
                    Ok(n) if n != 0 => {
                        self.pipe = Some(pipe);
                        self.held = n;
                        self.plenty = false;
                        return Poll::Ready(Ok(Filled::Bytes(n)));
                    }
                    outcome => {
                        return_pipe(pipe);
                        return Poll::Ready(outcome.map(|_| Filled::End));
                    }
                }
            }
            match splice(from, None, &pipe.input, None, limit, SpliceFlags::NONBLOCK) {
                Ok(0) => {
                    return_pipe(pipe);
                    return Poll::Ready(Ok(Filled::End));
                }
                Ok(n) => {
                    self.pipe = Some(pipe);
                    self.held = n;
                    self.plenty = n >= PLENTY;
                    return Poll::Ready(Ok(Filled::Bytes(n)));
                }
                Err(Errno::AGAIN) => {
                    return_pipe(pipe);
                    from.source().clear_readable();
                }
                Err(Errno::INTR) => return_pipe(pipe),
                Err(Errno::INVAL | Errno::NOSYS) => {
                    return_pipe(pipe);
                    return Poll::Ready(Ok(Filled::Unsupported));
                }
                Err(error) => {
                    return_pipe(pipe);
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    /// What the pipe holds as a piece of output; the next fill borrows another pipe.
    pub fn take(&mut self) -> Option<Spliced> {
        let pipe = self.pipe.take()?;
        Some(Spliced::new(pipe, std::mem::take(&mut self.held)))
    }

    /// Writes what the pipe holds; ready when it is empty. `rest`: bytes that are to follow.
    ///
    /// # Errors
    /// The destination's; the bytes that remain are lost with the pipe.
    pub fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &Stream,
        rest: u64,
    ) -> Poll<io::Result<()>> {
        while self.held > 0 {
            let Some(pipe) = &self.pipe else {
                break;
            };
            let more =
                if rest > 0 && self.plenty { SpliceFlags::MORE } else { SpliceFlags::empty() };
            let (held, flags) = (self.held, SpliceFlags::NONBLOCK | more);
            let written =
                ready!(to.poll_output(cx, None, |to| {
                    splice(&pipe.output, None, to, None, held, flags)
                }));
            match written {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => self.held -= n,
                Err(error) => {
                    self.pipe = None;
                    self.held = 0;
                    return Poll::Ready(Err(error));
                }
            }
        }
        if let Some(pipe) = self.pipe.take() {
            return_pipe(pipe);
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes what the driver received ahead to an empty pipe, which has room for it.
fn take_received(from: &Stream, pipe: &Pipe, limit: usize) -> Option<io::Result<usize>> {
    if !from.source().has_received() {
        return None;
    }
    let mut block = Block::lend(limit.min(AHEAD));
    let wanted = limit.min(block.capacity());
    match from.source().received(&mut block.spare()[..wanted])? {
        Ok(0) => Some(Ok(0)),
        Ok(n) => {
            block.advance(n);
            Some(rustix::io::write(&pipe.input, block.filled()).map_err(io::Error::from))
        }
        Err(error) => Some(Err(error)),
    }
}

/// Moves `length` bytes from one connection to another, spliced where that is worthwhile and
/// possible. Returns how many were written: fewer only when the first one's stream ended.
///
/// # Errors
/// Names the side that broke: [`Side::First`] is `from`.
pub async fn splice_pump(from: &Stream, to: &Stream, length: u64) -> Result<u64, Broken> {
    let mut rest = length;
    let mut splicer = Splicer::new();
    if length >= WORTHWHILE && to.tls().is_none() {
        while rest > 0 {
            let filled = poll_fn(|cx| splicer.poll_fill(cx, from, rest));
            match filled.await.map_err(first)? {
                Filled::End => return Ok(length - rest),
                Filled::Unsupported => break,
                Filled::Bytes(n) => rest -= n as u64,
            }
            poll_fn(|cx| splicer.poll_drain(cx, to, rest)).await.map_err(second)?;
        }
    }
    Ok(length - rest + copy_pump(from, to, rest).await?)
}

/// Moves `length` bytes by copying them through a lent buffer; otherwise as [`splice_pump`].
pub async fn copy_pump(from: &Stream, to: &Stream, length: u64) -> Result<u64, Broken> {
    let mut rest = length;
    let mut queue = OutQueue::new();
    while rest > 0 {
        let size = rest.min(CAPACITY as u64) as usize;
        let block = poll_fn(|cx| from.poll_lend_limited(cx, size, size)).await.map_err(first)?;
        if block.is_empty() {
            break;
        }
        rest -= block.len() as u64;
        queue.push(block);
        poll_fn(|cx| queue.poll_flush(cx, to)).await.map_err(second)?;
    }
    Ok(length - rest)
}

fn first(error: io::Error) -> Broken {
    Broken { side: Side::First, error }
}

fn second(error: io::Error) -> Broken {
    Broken { side: Side::Second, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_each, pattern, read_all, tcp_pair, unix_pair};
    use system::driver::spawn;

    /// Sends `body` through a pump of `length` bytes; returns what was counted and what arrived.
    async fn through(
        from: (Stream, Stream),
        to: (Stream, Stream),
        body: Vec<u8>,
        length: u64,
    ) -> (u64, Vec<u8>) {
        let (sender, from) = from;
        let (to, receiver) = to;
        spawn(async move {
            // The pump may be over before all is written.
            let _ = sender.write_all(&body).await;
        });
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = count.clone();
        spawn(async move { counted.set(splice_pump(&from, &to, length).await.unwrap()) });
        let arrived = read_all(&receiver).await;
        while system::driver::live_tasks() > 0 {
            system::driver::yield_now().await;
        }
        (count.get(), arrived)
    }

    #[test]
    fn bodies_arrive_whole_spliced_or_copied() {
        on_each(|| async {
            for length in [1, 5_000, 100_000, 128 << 10, 5 << 20] {
                let body = pattern(length);
                for unix in [false, true] {
                    let from = if unix { unix_pair() } else { tcp_pair().await };
                    let (count, arrived) =
                        through(from, tcp_pair().await, body.clone(), length as u64).await;
                    assert_eq!(count, length as u64);
                    assert!(arrived == body, "{length}, unix {unix}");
                }
            }
        });
    }

    #[test]
    fn an_early_end_and_a_longer_stream_are_counted() {
        on_each(|| async {
            for (sent, asked, moved) in [(300_000, 1 << 20, 300_000), (1 << 20, 400_000, 400_000)] {
                let body = pattern(sent);
                let pairs = (tcp_pair().await, unix_pair());
                let (count, arrived) = through(pairs.0, pairs.1, body.clone(), asked).await;
                assert_eq!(count, moved as u64);
                assert!(arrived == body[..moved]);
            }
        });
    }

    #[test]
    fn a_full_pipe_is_reclaimed_for_spilling() {
        on_each(|| async {
            let (sender, from) = tcp_pair().await;
            let body = pattern(50_000);
            sender.write_all(&body).await.unwrap();
            let mut splicer = Splicer::new();
            let mut queue = OutQueue::new();
            while queue.len_bytes() < 50_000 {
                let filled = poll_fn(|cx| splicer.poll_fill(cx, &from, 1 << 20)).await.unwrap();
                assert_eq!(filled, Filled::Bytes(splicer.held()));
                queue.push(splicer.take().unwrap().reclaim().unwrap());
                assert_eq!(splicer.held(), 0);
            }
            let bytes: Vec<u8> = queue.take().flat_map(|data| data.bytes().to_vec()).collect();
            assert!(bytes == body);
            drop(sender);
            let filled = poll_fn(|cx| splicer.poll_fill(cx, &from, 10)).await.unwrap();
            assert_eq!(filled, Filled::End);
            assert!(!PIPES.with_borrow(Vec::is_empty));
        });
    }

    #[test]
    fn a_lost_receiver_is_named() {
        on_each(|| async {
            let (sender, from) = unix_pair();
            let (to, receiver) = unix_pair();
            drop(receiver);
            spawn(async move {
                let _ = sender.write_all(&pattern(1 << 20)).await;
            });
            let broken = splice_pump(&from, &to, 1 << 20).await.unwrap_err();
            assert_eq!(
                (broken.side, broken.error.kind()),
                (Side::Second, io::ErrorKind::BrokenPipe)
            );
            drop(from);
            while system::driver::live_tasks() > 0 {
                system::driver::yield_now().await;
            }
        });
    }
}
