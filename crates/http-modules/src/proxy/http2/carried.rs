//! One request on a connection, as whoever asks for its answer sees it.

use super::session::Session;
use super::side::{AHEAD, Side, Trouble};
use net::{Chunk, Data};
use std::rc::Rc;
use std::task::{Context, Poll};
use upstream::Carrier;

/// A request that a connection carries. Dropping it before its answer is complete gives it up;
/// the connection goes on.
pub(in super::super) struct Carried {
    session: Rc<Session>,
    side: Rc<Side>,
}

/// What comes of an answer's body.
pub(in super::super) enum Part {
    Data(Chunk),
    /// The fields behind it, as lines of HTTP/1 with an empty one at the end.
    Trailers(Vec<u8>),
}

impl Carried {
    pub(super) fn new(session: Rc<Session>, side: Rc<Side>) -> Carried {
        Carried { session, side }
    }

    /// Adds to the request's body.
    pub(in super::super) fn push(&self, data: impl Into<Data>) {
        self.side.inner.borrow_mut().body.push(data);
        self.session.queue(&self.side);
    }

    /// The request's body has ended; a header list may follow it.
    pub(in super::super) fn end(&self, trailers: Option<Vec<u8>>) {
        let mut inner = self.side.inner.borrow_mut();
        inner.body_ends = true;
        inner.own_trailers = trailers;
        drop(inner);
        self.session.queue(&self.side);
    }

    /// True when more of the request's body is to be read from the client.
    pub(in super::super) fn wants_body(&self) -> bool {
        let inner = self.side.inner.borrow();
        !inner.body_ends && inner.body.len_bytes() < AHEAD && inner.trouble.is_none()
    }

    /// True when nothing of the request is left to be sent.
    pub(in super::super) fn is_sent(&self) -> bool {
        self.side.inner.borrow().sent_end
    }

    /// Bytes of the request that are on their way.
    pub(in super::super) fn sent(&self) -> u64 {
        self.side.inner.borrow().sent
    }

    /// Bytes of the answer, with the heads of its frames, since this was asked last.
    pub(in super::super) fn take_received(&self) -> u64 {
        std::mem::take(&mut self.side.inner.borrow_mut().received)
    }

    /// True when an earlier request used the connection.
    pub(in super::super) fn reused(&self) -> bool {
        self.side.reused
    }

    /// True when it may be asked again at once if the backend did not look at it.
    pub(in super::super) fn may_repeat(&self) -> bool {
        self.side.may_repeat
    }

    /// The next head of the answer: an interim one, or its own, as lines of HTTP/1.
    ///
    /// # Errors
    /// Why there is none.
    pub(in super::super) fn poll_head(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<u8>, Trouble>> {
        let mut inner = self.side.inner.borrow_mut();
        if let Some(head) = inner.heads.pop_front() {
            return Poll::Ready(Ok(head));
        }
        match inner.trouble.take() {
            Some(trouble) => Poll::Ready(Err(trouble)),
            None => self.side.wait(cx),
        }
    }

    /// The next part of the answer's body, of at most `size` bytes; `None` after the last.
    ///
    /// # Errors
    /// Why it breaks off.
    pub(in super::super) fn poll_part(
        &self,
        cx: &mut Context<'_>,
        size: usize,
    ) -> Poll<Result<Option<Part>, Trouble>> {
        let mut inner = self.side.inner.borrow_mut();
        if let Some(data) = inner.inbox.pop(size) {
            drop(inner);
            self.session.has_read(&self.side);
            return Poll::Ready(Ok(Some(Part::Data(data))));
        }
        if let Some(trailers) = inner.trailers.take() {
            return Poll::Ready(Ok(Some(Part::Trailers(trailers))));
        }
        if inner.inbox.ended {
            return Poll::Ready(Ok(None));
        }
        match inner.trouble.take() {
            Some(trouble) => Poll::Ready(Err(trouble)),
            None => self.side.wait(cx),
        }
    }

    /// All of a body of `length` bytes, when it is here and nothing comes behind it.
    pub(in super::super) fn take_whole(&self, length: u64) -> Option<Option<Chunk>> {
        let mut inner = self.side.inner.borrow_mut();
        if !inner.inbox.ended || inner.trailers.is_some() || inner.inbox.len() as u64 != length {
            return None;
        }
        match length {
            0 => Some(None),
            _ => inner.inbox.take_only().map(Some),
        }
    }

    /// The connection does not answer in time: no other request is to use it.
    pub(in super::super) fn avoid_connection(&self) {
        self.session.retire();
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.session.leave(&self.side);
    }
}
