//! What waits to be written to a stream, piece by piece.
//!
//! Pieces of memory go out together, with one call; a range of a file goes out by `sendfile(2)`,
//! and what precedes it is held back until it joins. When the socket is full only the unsent tails
//! stay, and a small tail of a big buffer moves to a small one. Bytes that wait in a pipe leave it
//! by `splice(2)`, and move into memory when too many pipes wait for slow receivers.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use smallvec::SmallVec;
use system::driver::defer;

use crate::buffer::{Block, Chunk};
use crate::splice::Spliced;
use crate::stream::{Push, Stream};

/// Pieces of memory per call.
const GATHER: usize = 64;
/// Bytes after which a flush lets other tasks go first.
const SHARE: u64 = 2 << 20;
/// Bytes of a file that are copied at a time where `sendfile(2)` does not work.
const COPY: usize = 64 << 10;

/// Bytes of a heap allocation, consumed from the front.
pub struct Owned {
    bytes: Box<[u8]>,
    start: usize,
}

impl Owned {
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl From<Vec<u8>> for Owned {
    fn from(bytes: Vec<u8>) -> Owned {
        Owned { bytes: bytes.into_boxed_slice(), start: 0 }
    }
}

/// A part of an open file.
#[derive(Clone)]
pub struct FileRange {
    pub file: Rc<OwnedFd>,
    pub offset: u64,
    pub length: u64,
}

/// A piece of output.
pub enum Data {
    Memory(Chunk),
    Static(&'static [u8]),
    Bytes(Owned),
    File(FileRange),
    Spliced(Spliced),
}

const _: () = assert!(size_of::<Data>() <= 32);

impl Data {
    /// How many bytes it stands for.
    pub fn len(&self) -> u64 {
        match self {
            Data::File(range) => range.length,
            Data::Spliced(spliced) => spliced.len() as u64,
            memory => memory.bytes().len() as u64,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in memory; none for a file or a pipe.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::Memory(chunk) => chunk,
            Data::Static(bytes) => bytes,
            Data::Bytes(owned) => owned.as_slice(),
            Data::File(_) | Data::Spliced(_) => &[],
        }
    }

    /// Drops the first `n` bytes (all when there are fewer).
    #[inline]
    pub fn advance(&mut self, n: u64) {
        let n = n.min(self.len());
        match self {
            Data::Memory(chunk) => chunk.advance(n as usize),
            Data::Static(bytes) => *bytes = &bytes[n as usize..],
            Data::Bytes(owned) => owned.start += n as usize,
            Data::File(range) => {
                range.offset += n;
                range.length -= n;
            }
            Data::Spliced(_) => {
                self.reclaim();
                self.advance(n);
            }
        }
    }

    /// Takes the first `n` bytes off (all when there are fewer).
    pub fn split_to(&mut self, n: u64) -> Data {
        let n = n.min(self.len());
        let front = match self {
            Data::Memory(chunk) => return Data::Memory(chunk.split_to(n as usize)),
            Data::Static(bytes) => Data::Static(&bytes[..n as usize]),
            Data::Bytes(owned) => Data::from(owned.as_slice()[..n as usize].to_vec()),
            Data::File(range) => Data::File(FileRange { length: n, ..range.clone() }),
            Data::Spliced(_) => {
                self.reclaim();
                return self.split_to(n);
            }
        };
        self.advance(n);
        front
    }

    fn is_file(&self) -> bool {
        matches!(self, Data::File(_))
    }

    fn is_in_memory(&self) -> bool {
        !matches!(self, Data::File(_) | Data::Spliced(_))
    }

    /// Moves bytes from a pipe into memory. A pipe that cannot be read has lost them: then none
    /// are left, and the queue that counts on them breaks off.
    fn reclaim(&mut self) {
        if let Data::Spliced(spliced) = self {
            *self = Data::Memory(spliced.reclaim().unwrap_or_default());
        }
    }

    /// Moves a small rest of a big buffer into a small one, so that the big one can be lent
    /// again. Does nothing while others share the buffer: it would not be freed.
    pub fn compact(&mut self) {
        if let Data::Memory(chunk) = self
            && chunk.len() <= chunk.capacity() / 4
            && chunk.capacity() > 1024
            && chunk.is_unique()
        {
            *chunk = Chunk::copy_of(chunk);
        } else if let Data::Spliced(spliced) = self
            && spliced.is_one_too_many()
            && let Ok(chunk) = spliced.reclaim()
        {
            *self = Data::Memory(chunk);
        }
    }
}

impl From<Chunk> for Data {
    fn from(chunk: Chunk) -> Data {
        Data::Memory(chunk)
    }
}

impl From<Block> for Data {
    fn from(block: Block) -> Data {
        Data::Memory(block.freeze())
    }
}

impl From<&'static [u8]> for Data {
    fn from(bytes: &'static [u8]) -> Data {
        Data::Static(bytes)
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Data {
        Data::Bytes(bytes.into())
    }
}

impl From<FileRange> for Data {
    fn from(range: FileRange) -> Data {
        Data::File(range)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Data::Memory(_) => "Memory",
            Data::Static(_) => "Static",
            Data::Bytes(_) => "Bytes",
            Data::File(_) => "File",
            Data::Spliced(_) => "Spliced",
        };
        write!(out, "{kind}({})", self.len())
    }
}

/// Output in order, not yet written. Up to two pieces live in the queue itself.
#[derive(Default)]
pub struct OutQueue {
    pieces: SmallVec<[Data; 2]>,
    length: u64,
    sent: u64,
    /// `sendfile(2)` refused the file at the front: it is read and written instead.
    copying: bool,
    /// All was written, but TLS holds some of it back until the socket takes more.
    held: bool,
}

impl OutQueue {
    pub fn new() -> OutQueue {
        OutQueue::default()
    }

    /// Adds at the end. An empty piece is dropped at once.
    #[inline]
    pub fn push(&mut self, data: impl Into<Data>) {
        let data = data.into();
        let length = data.len();
        if length != 0 {
            self.length += length;
            self.pieces.push(data);
        }
    }

    /// Writes what fits of `bytes`, if nothing waits, and adds a copy of the rest: bytes that leave
    /// at once need no buffer of their own. Nothing may be added behind them soon, which had better
    /// go out with them.
    ///
    /// # Errors
    /// As [`OutQueue::poll_flush`].
    #[inline]
    pub fn send(&mut self, cx: &mut Context<'_>, stream: &Stream, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        // TLS may hold back what the socket does not take: that is a matter of flushing.
        if self.is_empty()
            && stream.tls().is_none()
            && let Poll::Ready(n) = stream.poll_send(cx, bytes, Push::Now)
        {
            let n = n?;
            self.sent += n as u64;
            left = &bytes[n.min(bytes.len())..];
        }
        if !left.is_empty() {
            self.push(Block::copy_of(left));
        }
        Ok(())
    }

    /// Adds before everything else.
    pub fn push_front(&mut self, data: impl Into<Data>) {
        let data = data.into();
        let length = data.len();
        if length != 0 {
            self.length += length;
            self.pieces.insert(0, data);
        }
    }

    /// Bytes that wait.
    #[inline]
    pub fn len_bytes(&self) -> u64 {
        self.length
    }

    /// Whether nothing is left to flush: no bytes that wait, and none that TLS holds back.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0 && !self.held
    }

    /// Bytes written since the queue was made.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Drops all that waits.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.length = 0;
        (self.copying, self.held) = (false, false);
    }

    /// Gives back the room that pieces took which were sent.
    pub fn rest(&mut self) {
        if self.pieces.is_empty() {
            self.pieces.shrink_to_fit();
        }
    }

    /// The pieces that wait, in order.
    pub fn pieces(&self) -> &[Data] {
        &self.pieces
    }

    /// Takes all that waits out of the queue.
    pub fn take(&mut self) -> impl Iterator<Item = Data> + use<> {
        (self.length, self.held) = (0, false);
        std::mem::take(&mut self.pieces).into_iter()
    }

    /// Takes the first `most` bytes, or fewer, off as one piece, which counts as sent: for output
    /// that goes on by other means. A little in a big buffer moves into a small one: a hundred
    /// streams that wait with a hundred bytes each should not hold a hundred big buffers.
    pub fn pop(&mut self, most: u64) -> Option<Data> {
        let first = self.pieces.first_mut()?;
        let mut data =
            if first.len() > most { first.split_to(most) } else { self.pieces.remove(0) };
        data.compact();
        self.length -= data.len();
        self.sent += data.len();
        Some(data)
    }

    /// Writes until nothing waits or the stream is full. After 2 MiB other tasks get a
    /// turn, and this one is woken again.
    ///
    /// # Errors
    /// What `sendmsg(2)` or `sendfile(2)` answers, and what became of bytes that a driver sends
    /// behind our back, as soon as it is known; `UnexpectedEof` when a file is shorter than
    /// its range. The queue keeps what was not written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<io::Result<()>> {
        self.poll_flush_and(cx, stream, Push::Now)
    }

    /// As [`OutQueue::poll_flush`]; `push` says whether more is going to be queued at once.
    pub fn poll_flush_and(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        push: Push,
    ) -> Poll<io::Result<()>> {
        if self.length == 0
            && let Some(error) = stream.source().take_send_failure()
        {
            return Poll::Ready(Err(error));
        }
        let limit = self.sent.saturating_add(SHARE);
        while self.length != 0 {
            if self.sent >= limit {
                defer(cx);
                return Poll::Pending;
            }
            let Poll::Ready(written) = self.poll_step(cx, stream, push) else {
                self.pieces.iter_mut().for_each(Data::compact);
                return Poll::Pending;
            };
            let n = written? as u64;
            self.consume(n);
        }
        let flushed = stream.poll_flush(cx);
        self.held = flushed.is_pending();
        flushed
    }

    /// One call to the kernel for the piece or pieces at the front.
    #[inline]
    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        push: Push,
    ) -> Poll<io::Result<usize>> {
        match self.pieces.as_slice() {
            [] => Poll::Ready(Ok(0)),
            [Data::File(range), ..] => {
                let range = range.clone();
                self.poll_file(cx, stream, &range)
            }
            [Data::Spliced(spliced), rest @ ..] => {
                spliced.poll_write(cx, stream, push == Push::More || !rest.is_empty())
            }
            [one] => stream.poll_send(cx, one.bytes(), push),
            pieces => {
                let memory = pieces.iter().take(GATHER).take_while(|piece| piece.is_in_memory());
                let slices: SmallVec<[IoSlice<'_>; 8]> =
                    memory.map(|piece| IoSlice::new(piece.bytes())).collect();
                let last = slices.len() == pieces.len();
                stream.poll_send_vectored(cx, &slices, if last { push } else { Push::More })
            }
        }
    }

    fn poll_file(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        range: &FileRange,
    ) -> Poll<io::Result<usize>> {
        if !self.copying {
            let length = range.length.min(SHARE) as usize;
            match ready!(stream.poll_send_file(cx, range.file.as_fd(), range.offset, length)) {
                Ok(0) => return Poll::Ready(Err(truncated())),
                Err(error) if is_unsupported(&error) => self.copying = true,
                outcome => return Poll::Ready(outcome),
            }
        }
        ready!(stream.poll_writable(cx));
        let mut block = Block::lend(COPY);
        let wanted = range.length.min(COPY as u64) as usize;
        let n = rustix::io::pread(&range.file, &mut block.spare()[..wanted], range.offset)?;
        if n == 0 {
            return Poll::Ready(Err(truncated()));
        }
        let push = if n as u64 == self.length { Push::Now } else { Push::More };
        stream.poll_send(cx, &block.spare()[..n], push)
    }

    /// Forgets the first `n` bytes, which were written.
    #[inline]
    fn consume(&mut self, mut n: u64) {
        self.sent += n;
        self.length -= n;
        if self.length == 0 {
            self.pieces.clear();
            self.copying = false;
            return;
        }
        let mut whole = 0;
        for piece in &mut self.pieces {
            let length = piece.len();
            if n < length {
                match piece {
                    Data::Spliced(spliced) => spliced.wrote(n as usize),
                    other => other.advance(n),
                }
                break;
            }
            n -= length;
            self.copying &= !piece.is_file();
            whole += 1;
        }
        self.pieces.drain(..whole);
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent")
}

/// Whether `sendfile(2)` cannot read this file at all.
fn is_unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(Errno::INVAL.raw_os_error()) || errno == Some(Errno::NOSYS.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_each, pattern, read_all, tcp_pair, unix_pair};
    use std::future::poll_fn;
    use std::io::Write;
    use system::driver::spawn;

    fn file(bytes: &[u8]) -> Rc<OwnedFd> {
        let directory = std::env::temp_dir();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::TMPFILE;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let mut file = std::fs::File::from(rustix::fs::open(directory, flags, mode).unwrap());
        file.write_all(bytes).unwrap();
        Rc::new(file.into())
    }

    fn range(file: &Rc<OwnedFd>, offset: u64, length: u64) -> FileRange {
        FileRange { file: file.clone(), offset, length }
    }

    async fn flush(queue: &mut OutQueue, stream: &Stream) -> io::Result<()> {
        poll_fn(|cx| queue.poll_flush(cx, stream)).await
    }

    #[test]
    fn pieces_split_where_they_are_told() {
        let bytes = b"abcdef";
        let check = |mut data: Data, n: u64, expected: (&[u8], &[u8])| {
            let front = data.split_to(n);
            assert_eq!((front.bytes(), data.bytes()), expected, "{data:?} at {n}");
        };
        for n in [0, 2, 6, 9] {
            let expected = bytes.split_at(bytes.len().min(n as usize));
            check(Data::Static(bytes), n, expected);
            check(Data::from(bytes.to_vec()), n, expected);
            check(Data::from(Chunk::copy_of(bytes)), n, expected);
        }
        let mut data = Data::from(range(&file(bytes), 1, 5));
        let front = data.split_to(2);
        let place = |data: &Data| match data {
            Data::File(range) => (range.offset, range.length),
            _ => unreachable!("a file was split"),
        };
        assert_eq!((place(&front), place(&data)), ((1, 2), (3, 3)));
    }

    #[test]
    fn pieces_of_all_kinds_arrive_in_order() {
        on_each(|| async {
            let bytes = pattern(5 << 20);
            let file = file(&bytes);
            for (client, server) in [tcp_pair().await, unix_pair()] {
                let mut queue = OutQueue::new();
                queue.push(&b"middle "[..]);
                queue.push_front(Chunk::copy_of(b"head "));
                queue.push(Vec::new());
                queue.push(range(&file, 7, 4 << 20));
                for i in 0..200_u8 {
                    queue.push(vec![i; 1000 + i as usize]);
                }
                queue.push(Block::copy_of(b" tail"));
                let mut expected = b"head middle ".to_vec();
                expected.extend_from_slice(&bytes[7..7 + (4 << 20)]);
                (0..200_u8).for_each(|i| expected.extend(vec![i; 1000 + i as usize]));
                expected.extend_from_slice(b" tail");
                assert_eq!(queue.len_bytes(), expected.len() as u64);
                let length = queue.len_bytes();
                spawn(async move {
                    flush(&mut queue, &client).await.unwrap();
                    assert!(queue.is_empty() && queue.pieces().is_empty());
                    assert_eq!(queue.sent(), length);
                });
                assert!(read_all(&server).await == expected);
            }
        });
    }

    #[test]
    fn bytes_in_pipes_arrive_in_order_and_can_be_taken_out() {
        use crate::splice::{Filled, Splicer};
        on_each(|| async {
            let (sender, from) = tcp_pair().await;
            let (to, receiver) = tcp_pair().await;
            let body = pattern(60_000);
            let mut queue = OutQueue::new();
            let mut splicer = Splicer::new();
            let mut expected = Vec::new();
            // More pieces than may wait in pipes: cut, skipped and moved to memory on the way.
            for turn in 0..20 {
                sender.write_all(&body).await.unwrap();
                let mut rest = body.len();
                while rest > 0 {
                    let filled = poll_fn(|cx| splicer.poll_fill(cx, &from, rest as u64)).await;
                    let Filled::Bytes(n) = filled.unwrap() else { unreachable!("bytes came") };
                    let mut data = Data::Spliced(splicer.take().unwrap());
                    assert_eq!(data.len(), n as u64);
                    let at = body.len() - rest;
                    if turn % 3 == 1 {
                        let front = data.split_to(1);
                        assert_eq!(front.bytes(), &body[at..=at]);
                        data.advance(1);
                        expected.extend_from_slice(&body[at..][2..n]);
                    } else {
                        expected.extend_from_slice(&body[at..][..n]);
                    }
                    queue.push(data);
                    rest -= n;
                }
                queue.push(&b"|"[..]);
                expected.push(b'|');
            }
            let length = expected.len();
            spawn(async move {
                flush(&mut queue, &to).await.unwrap();
                assert_eq!(queue.sent(), length as u64);
            });
            let arrived = read_all(&receiver).await;
            assert!(arrived == expected, "{} of {length} bytes", arrived.len());
        });
    }

    #[test]
    fn a_file_that_sendfile_refuses_is_copied() {
        on_each(|| async {
            let (client, server) = unix_pair();
            let bytes = pattern(200_000);
            let mut queue = OutQueue::new();
            queue.push(range(&file(&bytes), 0, 200_000));
            queue.push(&b"."[..]);
            queue.copying = true;
            spawn(async move { flush(&mut queue, &client).await.unwrap() });
            let got = read_all(&server).await;
            assert!(got[..200_000] == bytes && got[200_000..] == *b".");
        });
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        on_each(|| async {
            for copying in [false, true] {
                let (client, _server) = unix_pair();
                let mut queue = OutQueue::new();
                queue.push(range(&file(b"short"), 0, 100));
                queue.copying = copying;
                let error = flush(&mut queue, &client).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                assert_eq!((queue.sent(), queue.len_bytes()), (5, 95));
            }
        });
    }

    #[test]
    fn a_small_tail_lets_the_big_buffer_go() {
        on_each(|| async {
            let (client, server) = unix_pair();
            let mut queue = OutQueue::new();
            // Fill the socket, then queue a small rest in a big buffer.
            let filler = vec![0; 1 << 20];
            let full = poll_fn(|cx| {
                let mut n = 0;
                while let Poll::Ready(m) = client.poll_write(cx, &filler) {
                    n += m.unwrap();
                }
                Poll::Ready(n)
            })
            .await;
            let mut block = Block::lend(64 << 10);
            block.append(b"the rest");
            queue.push(block);
            let before = crate::memory::usage().lent;
            poll_fn(|cx| {
                assert!(queue.poll_flush(cx, &client).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(before - crate::memory::usage().lent, (64 << 10) - 1024);
            spawn(async move { flush(&mut queue, &client).await.unwrap() });
            let got = read_all(&server).await;
            assert_eq!(got.len(), full + 8);
            assert_eq!(&got[full..], b"the rest");
        });
    }

    #[test]
    fn one_or_two_pieces_need_no_allocation() {
        let mut queue = OutQueue::new();
        queue.push(&b"head"[..]);
        queue.push(&b"body"[..]);
        assert!(!queue.pieces.spilled());
        assert_eq!(queue.take().count(), 2);
        assert!(queue.is_empty());
    }
}
