//! What a driver does for a stream beyond readiness: it receives ahead and sends behind.
//!
//! With io_uring a wait to read is a receive already, and a small write is handed over and counts
//! as written; with epoll it waits for the end of the batch (`behind.rs`). With the other drivers
//! all this is the absence of flags: nothing was received ahead, everything written is sent.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use super::behind::{self, BEHIND};
use super::early;
use super::io::{
    BULKY, ENDED, FRESH, HUNG, LASTING, POLLING_HANG, POLLING_READ, POLLING_WRITE, READABLE,
    RECEIVING, SEND_FAILED, SENDING, SHUT, STASHED, STREAM, Source, WRITABLE, Want,
};
use super::state::{Backend, State, with};

impl Source {
    /// As [`poll_readable`](Source::poll_readable), without receiving ahead: for a caller that is
    /// going to move bytes by another call. What was received ahead already comes first.
    #[inline]
    pub fn poll_readable_in_place(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flag(cx, READABLE, Want::Look)
    }

    /// Reads what was received ahead. `None`: nothing was, so the caller may receive by itself.
    ///
    /// # Errors
    /// What the receive met.
    #[inline(always)]
    pub fn received(&self, into: &mut [u8]) -> Option<io::Result<usize>> {
        with(|s| {
            if s.ios.at(self.index())?.flags & STASHED == 0 {
                return None;
            }
            take(s, self.index(), into)
        })
    }

    /// How many bytes were received ahead and can be read now; there may be more behind them.
    #[inline]
    pub fn received_bytes(&self) -> usize {
        with(|s| {
            if s.ios.at(self.index()).is_none_or(|slot| slot.flags & STASHED == 0) {
                return 0;
            }
            match &mut s.backend {
                Backend::Uring(uring) => uring.lane(self.index()).unread(),
                _ => early::length(s, self.index()),
            }
        })
    }

    /// Whether something was received ahead.
    #[inline]
    pub fn has_received(&self) -> bool {
        with(|s| s.ios.at(self.index()).is_some_and(|slot| slot.flags & STASHED != 0))
    }

    /// Whether the socket may have more than what was received ahead and read by now.
    #[inline]
    pub fn has_more(&self) -> bool {
        with(|s| {
            s.ios.at(self.index()).is_some_and(|slot| slot.flags & (STASHED | READABLE) == READABLE)
        })
    }

    /// The caller's own receive met the end of the stream.
    #[inline]
    pub fn note_end(&self) {
        with(|s| {
            if let Some(slot) = s.ios.at(self.index()) {
                slot.flags |= HUNG;
            }
        });
    }

    /// Whether [`send_behind`](Source::send_behind) may take anything.
    #[inline(always)]
    pub fn sends_behind(&self) -> bool {
        with(|s| matches!(s.backend, Backend::Uring(_) | Backend::Epoll(_)))
    }

    /// Keeps an error of the caller's own receive for the next read.
    #[cold]
    pub fn put_back(&self, error: &io::Error) {
        let Some(errno) = error.raw_os_error() else { return };
        with(|s| match &mut s.backend {
            Backend::Uring(uring) => {
                if let Some(slot) = s.ios.at(self.index()) {
                    slot.flags |= STASHED | READABLE;
                    uring.set_receive_errno(self.index(), errno);
                }
            }
            _ => early::put_back(s, self.index(), errno),
        });
    }

    /// Takes a copy of `parts` to be sent soon, if they are few: then they count as written. The
    /// caller has found the source writable, and finds it so again when they are sent. `None`:
    /// the caller sends by itself.
    ///
    /// # Errors
    /// Of the send before this one.
    #[inline]
    pub fn send_behind(&self, parts: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        with(|s| {
            let Backend::Uring(uring) = &mut s.backend else {
                return behind::send(s, self.index(), parts);
            };
            let slot = s.ios.at(self.index())?;
            if slot.flags & SEND_FAILED != 0 {
                slot.flags &= !SEND_FAILED;
                return Some(Err(failure(uring.send_errno(self.index()))));
            }
            let length: usize = parts.iter().map(|part| part.len()).sum();
            // After a hang-up the own call tells at once what became of the connection.
            if slot.flags & (STREAM | WRITABLE | HUNG) != STREAM | WRITABLE
                || length == 0
                || length > BEHIND
            {
                return None;
            }
            if !uring.send(slot.fd, parts, self.index(), slot.generation) {
                return None;
            }
            slot.flags = slot.flags & !WRITABLE | SENDING;
            Some(Ok(length))
        })
    }

    /// The failure of a send that nobody was told yet.
    #[inline]
    pub fn take_send_failure(&self) -> Option<io::Error> {
        with(|s| {
            let slot = s.ios.at(self.index()).filter(|slot| slot.flags & SEND_FAILED != 0)?;
            slot.flags &= !SEND_FAILED;
            Some(match &mut s.backend {
                Backend::Uring(uring) => failure(uring.send_errno(self.index())),
                _ => io::Error::from_raw_os_error(s.behind.take_errno(self.index())),
            })
        })
    }

    /// Adds `parts` to what [`send_behind`](Source::send_behind) took and the kernel has not seen
    /// yet, if they are few: then they count as written, too, without waiting.
    #[inline]
    pub fn send_along(&self, parts: &[IoSlice<'_>]) -> Option<usize> {
        with(|s| {
            let Backend::Uring(uring) = &mut s.backend else {
                return behind::send_along(s, self.index(), parts);
            };
            let slot = s.ios.at(self.index())?;
            if slot.flags & (SENDING | SHUT) != SENDING {
                return None;
            }
            let length: usize = parts.iter().map(|part| part.len()).sum();
            if uring.queued(self.index())? + length > BEHIND {
                return None;
            }
            uring.send_too(parts, self.index());
            Some(length)
        })
    }

    /// Ready when the kernel has all that was written.
    #[inline]
    pub fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        let sending =
            with(|s| s.ios.at(self.index()).is_some_and(|slot| slot.flags & SENDING != 0));
        if sending { self.poll_writable(cx) } else { Poll::Ready(()) }
    }

    /// Has the writing side shut down after what is being sent; false when nothing is, and the
    /// caller does it.
    pub fn shut_behind(&self) -> bool {
        with(|s| {
            let Some(slot) = s.ios.at(self.index()) else { return false };
            let sending = slot.flags & SENDING != 0;
            if sending {
                slot.flags |= SHUT;
            }
            sending
        })
    }

    /// Drops what is being sent, as far as the kernel has not taken it.
    pub fn drop_unsent(&self) {
        with(|s| {
            let Some(slot) = s.ios.at(self.index()).filter(|slot| slot.flags & SENDING != 0) else {
                return;
            };
            let is_dropped = match &mut s.backend {
                Backend::Uring(uring) => uring.cancel_send(self.index()),
                _ => s.behind.forget(self.index()),
            };
            if is_dropped {
                slot.flags = slot.flags & !(SENDING | SHUT) | WRITABLE;
            }
        });
    }

    /// Closes the descriptor of the source, which is to be dropped then. What is being sent is
    /// sent first.
    #[inline]
    pub fn close(&self, fd: OwnedFd) {
        let rest = with(|s| {
            let Backend::Uring(uring) = &mut s.backend else {
                return behind::close(s, self.index(), fd);
            };
            let Some(slot) = s.ios.at(self.index()) else { return Some(fd) };
            let (flags, generation) = (slot.flags, slot.generation);
            slot.flags &= !WAITS;
            if flags & SENDING != 0 {
                uring.orphan(self.index(), s.now_ms);
            }
            if flags & SENDING != 0 && uring.queued(self.index()).is_some() {
                uring.cancel_waits(flags & !RECEIVING, self.index(), generation);
                uring.close_sent(self.index(), fd);
            } else {
                uring.cancel_waits(flags, self.index(), generation);
                uring.close(fd);
            }
            None
        });
        drop(rest);
    }
}

/// Whether sources were closed whose last bytes are still to be sent. A process that ends now
/// would lose them. They have at most half a minute.
pub fn has_unsent() -> bool {
    with(|s| match &mut s.backend {
        Backend::Uring(uring) => uring.has_orphans(),
        _ => s.behind.has_orphans(),
    })
}

/// Operations that wait for something.
pub(super) const WAITS: u32 = RECEIVING | LASTING | POLLING_READ | POLLING_WRITE | POLLING_HANG;

fn failure(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[inline]
fn take(s: &mut State, index: u32, into: &mut [u8]) -> Option<io::Result<usize>> {
    let Backend::Uring(uring) = &mut s.backend else { return early::take(s, index, into) };
    let slot = s.ios.at(index)?;
    let (n, left) = uring.take(index, into);
    if left {
        return Some(Ok(n));
    }
    let failed = uring.receive_errno(index);
    if n == 0 && failed == 0 && slot.flags & ENDED != 0 {
        return Some(Ok(0));
    }
    let errno = if n == 0 { failed } else { 0 };
    if errno != 0 {
        uring.set_receive_errno(index, 0);
    }
    if failed == errno && slot.flags & ENDED == 0 {
        slot.flags &= !STASHED;
        // After more than fitted, and after a hang-up, a call of the caller's own finds the rest.
        if !uring.lane(index).take_more() && slot.flags & HUNG == 0 {
            slot.flags &= !READABLE;
        }
    }
    match (n, errno) {
        (0, 0) => None,
        (0, errno) => Some(Err(failure(errno))),
        _ => Some(Ok(n)),
    }
}

/// Starts what tells a task when it is worth another try. Drivers that only look at those who
/// wait, or at all sources anyway, need no start.
#[inline]
pub(super) fn start(s: &mut State, index: u32, want: Want) {
    let Some(slot) = s.ios.at(index) else { return };
    let Backend::Uring(uring) = &mut s.backend else {
        // No call now; but one at the event, if the task still waits to read then.
        let may = matches!(s.backend, Backend::Epoll(_)) && slot.flags & (STREAM | BULKY) == STREAM;
        if want == Want::Read && may {
            slot.flags |= RECEIVING;
        } else if want != Want::Write {
            slot.flags &= !RECEIVING;
        }
        return;
    };
    let (fd, generation, flags) = (slot.fd, slot.generation, slot.flags);
    if slot.is_paused() {
        return;
    }
    let want = match want {
        // Data that nobody has read yet says nothing about the end.
        Want::Hang if flags & (STASHED | READABLE) == 0 && flags & STREAM != 0 => Want::Read,
        want => want,
    };
    match want {
        // What it brings before it has ended comes first.
        Want::Look if flags & LASTING != 0 => {
            slot.flags &= !LASTING;
            uring.end_receive(index, generation);
        }
        Want::Read | Want::Look if flags & (RECEIVING | POLLING_READ) != 0 => {}
        // Many bytes are better received where they are to lie.
        Want::Read if flags & (STREAM | BULKY) == STREAM | BULKY => {
            slot.flags = slot.flags & !FRESH | POLLING_READ;
            uring.poll_stream(fd, index, generation);
        }
        Want::Read if flags & STREAM != 0 => {
            let waiting = flags & FRESH == 0;
            slot.flags = slot.flags & !FRESH | RECEIVING;
            if uring.receive_lasting(fd, index, generation, waiting) {
                slot.flags |= LASTING;
            } else {
                uring.receive(fd, index, generation, waiting);
            }
        }
        Want::Read | Want::Look => {
            slot.flags |= POLLING_READ;
            let exclusive = slot.is_shared() && s.now_ms >= uring.settled_ms;
            uring.poll_read(fd, index, generation, exclusive);
        }
        Want::Write if flags & (SENDING | POLLING_WRITE) == 0 => {
            slot.flags |= POLLING_WRITE;
            uring.poll_write(fd, index, generation);
        }
        Want::Hang if flags & POLLING_HANG == 0 => {
            slot.flags |= POLLING_HANG;
            uring.poll_hang(fd, index, generation);
        }
        Want::Write | Want::Hang => {}
    }
}

/// Ends what was started for a source that pauses or goes away.
pub(super) fn end(s: &mut State, index: u32) {
    let Some(slot) = s.ios.at(index) else { return };
    let Backend::Uring(uring) = &mut s.backend else {
        slot.flags &= !RECEIVING;
        return;
    };
    uring.cancel_waits(slot.flags, index, slot.generation);
    slot.flags &= !WAITS;
}

#[cfg(test)]
mod tests;
