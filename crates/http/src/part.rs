//! A subrequest whose answer becomes a part of another answer's body (SSI, additions).
//!
//! A part is pulled like a body. Its journey and its filters are those of the location that it
//! asks; what they make goes where the part stands, under the same back-pressure. Several parts of
//! one body may be under way at once: whoever holds them calls [`Part::poll_ahead`] for those whose
//! turn has not come. See LIFECYCLE.md, "A subrequest".

use crate::body::{Body, Broken, Piece};
use crate::exchange::{Exchange, MAX_SUBREQUESTS};
use crate::{conclusion, subrequest};
use session::log::{Bytes, Level};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How many parts one client request may have in all. nginx bounds those under way at a time by
/// the same number, so that pages that include themselves twice come to an end.
const MOST_PARTS: u32 = 65_535 - 1000;

/// Makes what stands in place of an answer without a byte.
pub type Fallback = Box<dyn FnOnce(&mut Exchange) -> Body>;

/// A subrequest that is a part of a body.
pub struct Part {
    state: State,
    fallback: Option<Fallback>,
}

enum State {
    /// Not begun.
    Fresh(Box<Exchange>),
    /// On its journey.
    Asking(Pin<Box<dyn Future<Output = Answered>>>),
    /// Being pulled.
    Answering(Box<Exchange>),
    /// Nothing more comes.
    Over,
    /// There is no answer: the connection is to be closed.
    Lost,
}

/// A part's exchange at the end of its journey, and whether there is an answer.
type Answered = (Box<Exchange>, bool);

/// Parts that the client's request has had so far.
#[derive(Default)]
struct Count(Cell<u32>);

impl Part {
    /// A part of the body of `x`: a GET of the path `uri`, decoded, with the query `args`. Nothing
    /// is done before it is polled. `None`, with a line in the error log, when parts are nested too
    /// deeply or there are too many.
    pub fn new(x: &mut Exchange, uri: &[u8], args: &[u8]) -> Option<Part> {
        if x.depth > MAX_SUBREQUESTS {
            let uri = Bytes(uri);
            x.log_error(Level::Error, format_args!("subrequests cycle while processing \"{uri}\""));
            return None;
        }
        let count = x.lasting::<Count>();
        if count.0.get() >= MOST_PARTS {
            let uri = Bytes(uri);
            let what = "request reference counter overflow while processing";
            x.log_error(Level::Error, format_args!("{what} \"{uri}\""));
            return None;
        }
        count.0.set(count.0.get() + 1);
        let mut child = Box::new(x.subrequest(uri, args));
        child.is_part = true;
        Some(Part { state: State::Fresh(child), fallback: None })
    }

    /// A part that the content of the location that `x` is in makes once more, for the same
    /// request; `prepare` says in what it differs. Filters are left to whoever asked. `None` as
    /// with [`Part::new`].
    pub fn again(x: &mut Exchange, prepare: impl FnOnce(&mut Exchange)) -> Option<Part> {
        let mut part = Part::new(x, b"", b"")?;
        if let State::Fresh(child) = &mut part.state {
            child.repeat(x);
            prepare(child);
        }
        Some(part)
    }

    /// The same part; when its answer is an error of ours, or has no byte, what `fallback` makes
    /// stands in its place.
    #[must_use]
    pub fn or_else(mut self, fallback: Fallback) -> Part {
        self.without_error_pages().fallback = Some(fallback);
        self
    }

    /// Errors make an empty answer with their status, and no page.
    pub fn without_error_pages(&mut self) -> &mut Part {
        if let State::Fresh(child) = &mut self.state {
            child.bare_errors = true;
        }
        self
    }

    /// Ready when there is an answer.
    ///
    /// # Errors
    /// The connection is to be closed without one.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<(), Broken>> {
        self.state.poll_answer(cx, x).map(|answer| answer.map(|_| ()))
    }

    /// The answer, from when there is one until its end.
    pub fn head(&self) -> Option<&Exchange> {
        match &self.state {
            State::Answering(child) => Some(child),
            _ => None,
        }
    }

    /// Goes on as far as it can without giving anything out.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        match self.state.poll_answer(cx, x) {
            Poll::Ready(Ok(Some(child))) => {
                let mut body = std::mem::take(&mut child.response.body);
                body.poll_ahead(cx, child);
                child.response.body = body;
            }
            // Told again when it is pulled.
            Poll::Ready(_) | Poll::Pending => {}
        }
    }

    /// The next piece of it; see [`crate::Pull::poll_pull`].
    pub fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            let Some(child) = ready!(self.state.poll_answer(cx, x))? else {
                return Poll::Ready(Ok(None));
            };
            let mut body = std::mem::take(&mut child.response.body);
            let pulled = body.poll_pull(cx, child);
            child.response.body = body;
            match ready!(pulled) {
                Ok(Some(piece)) => {
                    child.sent.bytes += piece.data.len();
                    return Poll::Ready(Ok(Some(piece)));
                }
                Ok(None) => match self.fallback.take() {
                    Some(fallback) if child.sent.bytes == 0 => {
                        child.response.body = fallback(child);
                    }
                    _ => {
                        child.sent.complete = true;
                        x.learn(child);
                        self.state.end();
                        return Poll::Ready(Ok(None));
                    }
                },
                Err(Broken) => {
                    self.state.end();
                    return Poll::Ready(Err(Broken));
                }
            }
        }
    }
}

impl State {
    /// The exchange with its answer, once that is there; `None` after the end.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<&mut Exchange>, Broken>> {
        if let State::Fresh(_) = self
            && let State::Fresh(mut child) = std::mem::replace(self, State::Over)
        {
            *self = State::Asking(Box::pin(async move {
                let is_answered = subrequest::part(&mut child).await;
                (child, is_answered)
            }));
        }
        if let State::Asking(journey) = self {
            let (child, is_answered) = ready!(journey.as_mut().poll(cx));
            x.learn(&child);
            *self = State::Answering(child);
            if !is_answered {
                self.end();
                *self = State::Lost;
            }
        }
        Poll::Ready(match self {
            State::Answering(child) => Ok(Some(child)),
            State::Lost => Err(Broken),
            _ => Ok(None),
        })
    }

    fn end(&mut self) {
        if let State::Answering(mut child) = std::mem::replace(self, State::Over) {
            conclusion::log(&mut child);
        }
    }
}
