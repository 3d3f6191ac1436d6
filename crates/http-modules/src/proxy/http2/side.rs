//! What a session and a request that it carries share: the stream's two directions.

use super::head::{self, Follows};
use net::{Chunk, Data, Inbox, OutQueue};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use system::errno::Errno;
use wire::http2::frame::HEAD;
use wire::http2::{Fault, HeaderList};

/// Bytes of an answer that a backend may send ahead of whoever reads it.
pub(super) const WINDOW: i64 = 128 * 1024;
/// The widest window, of an answer that is read as fast as it comes.
pub(super) const WINDOW_WIDEST: i64 = 2 * 1024 * 1024;
/// Bytes by which all windows of a connection together may have grown.
pub(super) const EXTRA: i64 = 16 * 1024 * 1024;
/// Bytes of a request's body that wait for the backend's windows.
pub(super) const AHEAD: u64 = 64 * 1024;
/// Heads of one answer, interim ones among them, that wait to be read.
const MOST_HEADS: usize = 16;

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Trouble {
    /// It is none; why, in nginx's words.
    Invalid(String),
    /// Its head is too long.
    TooBig,
    /// The backend did not look at the request; `again`: it may be asked again at once.
    Unserved { text: String, again: bool },
    /// The backend closed the connection. `quiet`: it had said nothing since the request.
    Closed { quiet: bool },
    /// The connection broke.
    Broken { errno: Errno, quiet: bool },
}

impl Trouble {
    pub(super) fn of(fault: &Fault) -> Trouble {
        Trouble::Invalid(fault.text.replace("client ", "upstream "))
    }
}

/// A request on a connection.
pub(super) struct Side {
    pub(super) id: u32,
    pub(super) is_head: bool,
    /// It may be asked again at once when the backend did not look at it.
    pub(super) may_repeat: bool,
    /// So it may when the connection, which served others before, turns out to be closed.
    pub(super) reused: bool,
    /// Bytes that the connection had received when the request began.
    pub(super) heard: u64,
    /// The request's task, when it waits for anything of the stream.
    waker: Cell<Option<Waker>>,
    /// It stands in the queue of those whose turn to send comes.
    pub(super) queued: Cell<bool>,
    pub(super) inner: RefCell<Inner>,
}

/// Both directions of a stream.
pub(super) struct Inner {
    /// Heads of HTTP/1 that nobody has read yet.
    pub(super) heads: VecDeque<Vec<u8>>,
    pub(super) inbox: Inbox,
    /// The fields behind the body, as lines.
    pub(super) trailers: Option<Vec<u8>>,
    follows: Follows,
    pub(super) trouble: Option<Trouble>,
    /// How far ahead of the reader the backend may be.
    pub(super) window: i64,
    /// The request's body, as far as the windows hold it back.
    pub(super) body: OutQueue,
    pub(super) body_ends: bool,
    /// The header list behind the request's body.
    pub(super) own_trailers: Option<Vec<u8>>,
    pub(super) sent_end: bool,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Side {
    /// The stream `id`; `ends`: the request has no body.
    pub(super) fn new(id: u32, is_head: bool, ends: bool, heard: u64) -> Side {
        let inner = Inner {
            heads: VecDeque::new(),
            inbox: Inbox::default(),
            trailers: None,
            follows: Follows::Head,
            trouble: None,
            window: WINDOW,
            body: OutQueue::new(),
            body_ends: ends,
            own_trailers: None,
            sent_end: ends,
            sent: 0,
            received: 0,
        };
        Side {
            id,
            is_head,
            may_repeat: false,
            reused: false,
            heard,
            waker: Cell::new(None),
            queued: Cell::new(false),
            inner: RefCell::new(inner),
        }
    }

    pub(super) fn wait<T>(&self, cx: &mut Context<'_>) -> Poll<T> {
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Though the answer seemed complete, the backend gave the request up while more of it was to
    /// come, or broke a rule: what was not read yet is not to be relied on. RFC 9113 section 8.1
    /// has NO_ERROR for those that need no more of a request.
    pub(super) fn spoil(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.inbox.ended = false;
        inner.trailers = None;
    }

    /// Nothing more comes, for this reason, unless the answer is complete.
    pub(super) fn fail(&self, trouble: Trouble) {
        let mut inner = self.inner.borrow_mut();
        if !inner.inbox.ended && inner.trouble.is_none() {
            inner.trouble = Some(trouble);
        }
        inner.sent_end = true;
        inner.body.clear();
        drop(inner);
        self.wake();
    }
}

impl Inner {
    /// A header list that is a head; `end`: nothing follows.
    pub(super) fn take_head(
        &mut self,
        list: &HeaderList,
        is_head: bool,
        end: bool,
    ) -> Result<(), Trouble> {
        if list.is_cut() {
            return Err(Trouble::TooBig);
        }
        if self.heads.len() == MOST_HEADS {
            return Err(Trouble::Invalid("upstream sent too many interim answers".to_owned()));
        }
        let mut text = Vec::with_capacity(list.text_len() + 4 * list.len() + 64);
        self.follows = head::decode(list, is_head, end, &mut text).map_err(Trouble::Invalid)?;
        if end {
            // A length that is not kept is known before anybody sees the head.
            self.take_end()?;
        }
        self.heads.push_back(text);
        Ok(())
    }

    /// A part of the answer's body; `end`: the last one.
    pub(super) fn take_data(&mut self, data: Chunk, end: bool) -> Result<(), Trouble> {
        let invalid = |text: &str| Err(Trouble::Invalid(text.to_owned()));
        match &mut self.follows {
            Follows::Head => return invalid("upstream sent DATA before its head"),
            Follows::Length(missing) => {
                let Some(rest) = missing.checked_sub(data.len() as u64) else {
                    let text = "upstream sent response body larger than indicated content length";
                    return invalid(text);
                };
                *missing = rest;
            }
            Follows::Body => {}
            Follows::Nothing if data.is_empty() => {}
            Follows::Nothing => return invalid("upstream sent more data than expected"),
        }
        if !data.is_empty() {
            self.inbox.push(data);
        }
        if end { self.take_end() } else { Ok(()) }
    }

    /// The fields behind the body.
    pub(super) fn take_trailers(&mut self, list: &HeaderList) -> Result<(), Trouble> {
        if list.is_cut() {
            return Err(Trouble::TooBig);
        }
        self.trailers = Some(head::trailers(list).map_err(Trouble::Invalid)?);
        self.take_end()
    }

    fn take_end(&mut self) -> Result<(), Trouble> {
        if matches!(self.follows, Follows::Length(missing) if missing > 0) {
            let text = "upstream sent response body smaller than indicated content length";
            return Err(Trouble::Invalid(text.to_owned()));
        }
        self.inbox.ended = true;
        Ok(())
    }

    /// True when a frame of body or of trailers can be made.
    pub(super) fn has_work(&self) -> bool {
        !self.sent_end && (self.body_ends || !self.body.is_empty())
    }

    /// Counts a frame that was sent.
    pub(super) fn count_sent(&mut self, payload: u64) {
        self.sent += payload + HEAD as u64;
    }

    /// Takes the next bytes of the request's body, at most `size`, as pieces.
    pub(super) fn take_body(&mut self, mut size: u64, mut give: impl FnMut(Data)) {
        while size > 0
            && let Some(data) = self.body.pop(size)
        {
            size -= data.len().min(size);
            give(data);
        }
    }
}
