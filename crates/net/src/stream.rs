//! A connected stream socket, TCP or unix.
//!
//! Readiness is edge-triggered, so a call that could not finish must leave a mark: `EAGAIN` and a
//! short transfer clear the direction's readiness, and the next call waits without asking the
//! kernel. A short read keeps it when the peer has hung up, for then the end of the stream is
//! still to be read and no event will announce it.
//!
//! A driver may receive before it is asked to and send after it was asked to (`system::driver`,
//! `ahead.rs`). So what was received ahead is read first, and closing is the source's work.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use system::driver::{Handle, Interest, Source};
use system::socket::{self, SocketError};

use crate::buffer::Block;
use crate::tls::Session;

/// Whether more bytes follow at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Push {
    /// What is written goes out.
    Now,
    /// The kernel may hold back an incomplete segment until the next write (`MSG_MORE`).
    More,
}

/// A connected stream socket of this thread. Closed when dropped.
///
/// One task may wait to read and one to write (they may be the same).
pub struct Stream {
    source: Source,
    /// Present until the stream is dropped or given away.
    fd: Option<OwnedFd>,
    /// What reads and writes go through once the connection speaks TLS.
    tls: OnceCell<Box<Session>>,
}

const _: () = assert!(size_of::<Stream>() == 16);

impl Stream {
    /// Watches a non-blocking socket. `established`: connected already, so that reading and
    /// writing are tried before waiting; otherwise a connection in progress, which becomes
    /// writable when it is decided.
    ///
    /// The descriptor must have no duplicate: closing it is what ends the kernel's watch.
    ///
    /// # Errors
    /// As [`Source::new`].
    pub fn new(fd: OwnedFd, established: bool) -> io::Result<Stream> {
        let source = Source::new(fd.as_fd(), Interest::BOTH.closing().stream())?;
        if established {
            source.assume_ready();
        }
        Ok(Stream { source, fd: Some(fd), tls: OnceCell::new() })
    }

    /// As [`Stream::new`], for a connection that a client has made: see
    /// [`shut_down_clients`](system::driver::shut_down_clients).
    ///
    /// # Errors
    /// As [`Source::new`].
    pub fn accepted(fd: OwnedFd) -> io::Result<Stream> {
        let interest = Interest::BOTH.closing().stream().of_client();
        let source = Source::established(fd.as_fd(), interest)?;
        Ok(Stream { source, fd: Some(fd), tls: OnceCell::new() })
    }

    /// The connection's TLS, once a handshake is over.
    #[inline]
    pub fn tls(&self) -> Option<&Session> {
        self.tls.get().map(|session| &**session)
    }

    /// Puts TLS above the socket, for the rest of the connection's life.
    pub(crate) fn secure(&self, session: Box<Session>) {
        let is_first = self.tls.set(session).is_ok();
        debug_assert!(is_first, "a connection has one handshake");
    }

    /// Ready when a read may make progress.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.tls() {
            None => self.source.poll_readable(cx),
            // Records without data make the socket readable and nothing to read.
            Some(tls) => tls.poll_received(self, cx).map(drop),
        }
    }

    /// Ready when a write may make progress.
    #[inline]
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(tls) = self.tls() {
            // A failure is told by the write.
            let _ = ready!(tls.poll_flush(self, cx));
        }
        self.source.poll_writable(cx)
    }

    /// Ready once the peer has closed its side or the connection broke, even while data is
    /// unread. Takes the reader's place: see [`Source::poll_hung_up`].
    #[inline]
    pub fn poll_hung_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_hung_up(cx)
    }

    /// Whether the peer is known to have closed its side or the connection to be broken.
    #[inline]
    pub fn hung_up(&self) -> bool {
        self.source.hung_up()
    }

    /// Reads what is there, at most the buffer; 0 is the end of the stream.
    #[inline]
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(tls) = self.tls() {
            return tls.poll_read(self, cx, buffer);
        }
        loop {
            ready!(self.source.poll_readable(cx));
            if let Some(outcome) = self.receive(buffer) {
                return Poll::Ready(outcome);
            }
        }
    }

    /// How many bytes can be read without asking the kernel: received ahead, and not below TLS.
    /// There may be more behind them.
    #[inline]
    pub fn received_bytes(&self) -> usize {
        match self.tls() {
            None => self.source.received_bytes(),
            Some(_) => 0,
        }
    }

    /// Reads into the free part of a block; 0 is the end of the stream.
    #[inline]
    pub fn poll_fill(&self, cx: &mut Context<'_>, block: &mut Block) -> Poll<io::Result<usize>> {
        let n = ready!(self.poll_read(cx, block.spare()))?;
        block.advance(n);
        Poll::Ready(Ok(n))
    }

    /// Waits for data without a buffer, then reads into a block lent from the worker's pool. An
    /// empty block is the end of the stream.
    #[inline]
    pub fn poll_lend(&self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Block>> {
        self.poll_lend_limited(cx, size, usize::MAX)
    }

    /// As [`Stream::poll_lend`], reading at most `limit` bytes although the block may hold more.
    #[inline]
    pub fn poll_lend_limited(
        &self,
        cx: &mut Context<'_>,
        size: usize,
        limit: usize,
    ) -> Poll<io::Result<Block>> {
        match self.tls() {
            None => self.poll_lend_plain(cx, size, limit),
            Some(tls) => tls.poll_lend(self, cx, size, limit),
        }
    }

    /// As [`Stream::poll_lend_limited`], below TLS.
    #[inline]
    pub(crate) fn poll_lend_plain(
        &self,
        cx: &mut Context<'_>,
        size: usize,
        limit: usize,
    ) -> Poll<io::Result<Block>> {
        loop {
            ready!(self.source.poll_readable(cx));
            let mut block = Block::lend(size);
            let spare = block.spare();
            let limit = limit.min(spare.len());
            if let Some(outcome) = self.receive(&mut spare[..limit]) {
                block.advance(outcome?);
                return Poll::Ready(Ok(block));
            }
        }
    }

    /// What was received ahead, or one receive. `None`: nothing there, wait again.
    #[inline(always)]
    fn receive(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        debug_assert!(!buffer.is_empty(), "an empty read looks like the end of the stream");
        match self.source.received(buffer) {
            None => self.receive_now(buffer),
            Some(Ok(n)) if n != 0 && n < buffer.len() => Some(Ok(self.receive_more(buffer, n))),
            outcome => outcome,
        }
    }

    /// Adds to the `n` bytes that were received ahead what the socket still has.
    #[inline]
    fn receive_more(&self, buffer: &mut [u8], n: usize) -> usize {
        if !self.source.has_more() {
            return n;
        }
        match self.receive_now(&mut buffer[n..]) {
            Some(Ok(more)) => n + more,
            Some(Err(error)) => {
                self.source.put_back(&error);
                n
            }
            None => n,
        }
    }

    #[inline(always)]
    fn receive_now(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        match rustix::net::recv(self, &mut *buffer, RecvFlags::empty()) {
            Ok((n, _)) => {
                if n == 0 {
                    self.source.note_end();
                } else if n < buffer.len() {
                    self.source.note_short_read(n);
                }
                Some(Ok(n))
            }
            Err(Errno::AGAIN) => {
                self.source.clear_readable();
                None
            }
            Err(Errno::INTR) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Writes what fits.
    #[inline]
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, Push::Now)
    }

    /// Writes what fits, saying whether more follows.
    #[inline]
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        push: Push,
    ) -> Poll<io::Result<usize>> {
        if let Some(tls) = self.tls() {
            return tls.poll_send(self, cx, &[IoSlice::new(bytes)], push);
        }
        if let Some(outcome) = ready!(self.poll_send_behind(cx, &[IoSlice::new(bytes)], push)) {
            return Poll::Ready(outcome);
        }
        self.poll_output(cx, Some(bytes.len()), |fd| rustix::net::send(fd, bytes, flags(push)))
    }

    /// Writes what fits of several slices, with one call.
    #[inline]
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_vectored(cx, slices, Push::Now)
    }

    /// Writes what fits of several slices, saying whether more follows.
    #[inline]
    pub fn poll_send_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        push: Push,
    ) -> Poll<io::Result<usize>> {
        match self.tls() {
            None => self.poll_send_plain(cx, slices, push),
            Some(tls) => tls.poll_send(self, cx, slices, push),
        }
    }

    /// Ready when all that was written is below TLS, which may hold back what the socket did not
    /// take. Whoever writes without an [`OutQueue`](crate::OutQueue) asks for it in the end.
    #[inline]
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.tls() {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.poll_flush(self, cx),
        }
    }

    /// As [`Stream::poll_send_vectored`], below TLS.
    #[inline]
    pub(crate) fn poll_send_plain(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        push: Push,
    ) -> Poll<io::Result<usize>> {
        if let Some(outcome) = ready!(self.poll_send_behind(cx, slices, push)) {
            return Poll::Ready(outcome);
        }
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.poll_output(cx, Some(length), |fd| {
            rustix::net::sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), flags(push))
        })
    }

    /// Hands the bytes to the driver, if it takes them. What is followed by more at once it does
    /// not get: the next call would have to wait for it.
    #[inline(always)]
    fn poll_send_behind(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        push: Push,
    ) -> Poll<Option<io::Result<usize>>> {
        if !self.source.sends_behind() {
            return Poll::Ready(None);
        }
        if push == Push::Now
            && let Some(outcome) = self.source.send_behind(slices)
        {
            return Poll::Ready(Some(outcome));
        }
        if let Some(n) = self.source.send_along(slices) {
            return Poll::Ready(Some(Ok(n)));
        }
        if push == Push::More {
            return Poll::Ready(None);
        }
        ready!(self.source.poll_writable(cx));
        Poll::Ready(self.source.send_behind(slices))
    }

    /// Ready when the kernel has all that was written: what a write returned may still be the
    /// driver's. Failures count as sent; the next call tells them.
    #[inline]
    pub fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(tls) = self.tls() {
            let _ = ready!(tls.poll_flush(self, cx));
        }
        self.source.poll_sent(cx)
    }

    /// Sends up to `length` bytes of a file from `offset`, without copying them through the
    /// process. 0 means that the file ends at `offset`.
    ///
    /// # Errors
    /// `EINVAL` for a file that `sendfile(2)` cannot read, and under TLS: copy instead.
    pub fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        if self.tls().is_some() {
            return Poll::Ready(Err(Errno::INVAL.into()));
        }
        // A short count may come from the file's end as well as from a full socket, so it does
        // not clear readiness: waiting for room that is already there would be for ever.
        self.poll_output(cx, None, |fd| {
            let mut from = offset;
            rustix::fs::sendfile(fd, file, Some(&mut from), length)
        })
    }

    /// Runs `call` while the socket is writable. `wanted`: the count below which the socket must
    /// be full; `None` when a short count says nothing.
    #[inline(always)]
    pub(crate) fn poll_output(
        &self,
        cx: &mut Context<'_>,
        wanted: Option<usize>,
        mut call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_writable(cx));
            match call(self.as_fd()) {
                Ok(n) => {
                    if wanted.is_some_and(|wanted| n < wanted) {
                        self.source.clear_writable();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(Errno::AGAIN) => self.source.clear_writable(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// The driver's registration, for modules that move bytes by other calls.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Reads what is there: [`Stream::poll_read`] as a future.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// As `send(2)`; how much was written is then unknown.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = &bytes[n..];
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Tells the peer that nothing more will be written.
    pub fn shutdown_write(&self) -> io::Result<()> {
        if let Some(tls) = self.tls() {
            tls.say_goodbye(self);
        }
        if self.source.shut_behind() {
            return Ok(());
        }
        socket::shutdown(self.as_fd(), socket::Direction::Write)
    }

    /// Sends small writes at once (`TCP_NODELAY`). An error on a unix socket.
    pub fn set_nodelay(&self, on: bool) -> Result<(), SocketError> {
        socket::set_nodelay(self.as_fd(), on)
    }

    /// Collects writes into full segments until it is turned off (`TCP_CORK`).
    pub fn set_nopush(&self, on: bool) -> Result<(), SocketError> {
        socket::set_cork(self.as_fd(), on)
    }

    /// Makes closing reset the connection and drop what is unsent (`SO_LINGER` 0).
    pub fn reset_on_close(&self) -> Result<(), SocketError> {
        self.source.drop_unsent();
        socket::set_linger(self.as_fd(), Some(Duration::ZERO))
    }

    /// The pending error of the socket (`SO_ERROR`), cleared by asking.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let pending = socket::take_error(self.as_fd())?;
        Ok(pending.map(|errno| io::Error::from_raw_os_error(errno.0)))
    }

    /// Names the connection for whoever may have to end it.
    pub fn handle(&self) -> Handle {
        self.source.handle()
    }

    /// Gives the socket away, unwatched. What nobody has read yet may be lost.
    pub fn into_fd(mut self) -> OwnedFd {
        self.source.unwatch();
        self.fd.take().expect(OPEN)
    }
}

impl Drop for Stream {
    #[inline]
    fn drop(&mut self) {
        if let (Some(tls), Some(_)) = (self.tls(), &self.fd) {
            tls.say_goodbye(self);
        }
        if let Some(fd) = self.fd.take() {
            self.source.close(fd);
        }
    }
}

/// Why the descriptor is there: only `into_fd` and `drop` take it, and nothing comes after them.
const OPEN: &str = "a stream is open until it is dropped";

impl AsFd for Stream {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect(OPEN).as_fd()
    }
}

fn flags(push: Push) -> SendFlags {
    match push {
        Push::Now => SendFlags::NOSIGNAL,
        Push::More => SendFlags::NOSIGNAL | SendFlags::MORE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_each, pattern, read_all, tcp_pair, unix_pair};
    use system::driver::{Timer, now, spawn, yield_now};

    #[test]
    fn bytes_and_their_end_arrive_in_both_directions() {
        on_each(|| async {
            for (client, server) in [tcp_pair().await, unix_pair()] {
                let sent = pattern(3 << 20);
                let expected = sent.clone();
                spawn(async move {
                    client.write_all(&sent).await.unwrap();
                    client.shutdown_write().unwrap();
                    assert_eq!(read_all(&client).await, b"thanks");
                });
                assert_eq!(read_all(&server).await, expected);
                assert!(server.hung_up() || !system::driver::reports_errors());
                server.write_all(b"thanks").await.unwrap();
                drop(server);
                while system::driver::live_tasks() > 0 {
                    yield_now().await;
                }
            }
        });
    }

    /// The end of the stream that arrives together with the last bytes, or right after the event
    /// that announced them, must be seen although the read that took them was short.
    #[test]
    fn a_short_read_does_not_lose_the_end() {
        on_each(|| async {
            for turns in 0..4 {
                let (client, server) = tcp_pair().await;
                client.write_all(b"bye").await.unwrap();
                for _ in 0..turns {
                    yield_now().await;
                }
                drop(client);
                for _ in 0..turns {
                    yield_now().await;
                }
                let mut buffer = [0; 64];
                assert_eq!(server.read(&mut buffer).await.unwrap(), 3);
                assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
                assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
            }
        });
    }

    #[test]
    fn an_idle_connection_holds_no_buffer_until_it_is_readable() {
        on_each(|| async {
            let (client, server) = unix_pair();
            let before = crate::memory::usage().lent;
            poll_fn(|cx| {
                assert!(server.poll_lend(cx, 4096).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(crate::memory::usage().lent, before);
            client.write_all(b"request").await.unwrap();
            let block = poll_fn(|cx| server.poll_lend_limited(cx, 4096, 3)).await.unwrap();
            assert_eq!(block.filled(), b"req");
            let mut block = poll_fn(|cx| server.poll_lend(cx, 4096)).await.unwrap();
            assert_eq!(block.filled(), b"uest");
            drop(client);
            assert_eq!(poll_fn(|cx| server.poll_fill(cx, &mut block)).await.unwrap(), 0);
            assert!(poll_fn(|cx| server.poll_lend(cx, 1)).await.unwrap().is_empty());
        });
    }

    #[test]
    fn hanging_up_is_seen_beside_unread_data() {
        on_each(|| async {
            let (client, server) = tcp_pair().await;
            if system::driver::reports_errors() {
                client.write_all(b"pipelined").await.unwrap();
            }
            spawn(async move {
                yield_now().await;
                drop(client);
            });
            poll_fn(|cx| server.poll_hung_up(cx)).await;
            assert!(server.hung_up());
        });
    }

    #[test]
    fn a_reset_is_an_error_of_the_reader() {
        on_each(|| async {
            let (client, server) = tcp_pair().await;
            client.reset_on_close().unwrap();
            drop(client);
            poll_fn(|cx| server.poll_hung_up(cx)).await;
            // select(2) learns of the reset by a peek, which takes the error away.
            if system::driver::reports_errors() {
                let error = server.read(&mut [0; 8]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            let error = server.write_all(b"anyone?").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn a_stream_given_away_is_no_longer_watched() {
        on_each(|| async {
            let (client, server) = unix_pair();
            let again = Stream::new(server.into_fd(), false).unwrap();
            client.write_all(b"x").await.unwrap();
            assert_eq!(again.read(&mut [0; 8]).await.unwrap(), 1);
            let idle = Timer::new();
            idle.set(now() + 1);
            poll_fn(|cx| idle.poll_expired(cx)).await;
            assert!(again.take_error().unwrap().is_none());
        });
    }
}
