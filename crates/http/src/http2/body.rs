//! The body of a request that came by HTTP/2.

use super::stream::Stream;
use crate::exchange::Exchange;
use crate::request_body::BodyError;
use crate::trailers::Section;
use net::Chunk;
use session::log::Level;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use system::errno::Errno;

impl Exchange {
    /// The next bytes of a body that came by HTTP/2: what `decode` and `poll_receive` are in
    /// HTTP/1. A length that was announced must be kept (RFC 9113 section 8.1.1).
    pub(crate) fn poll_stream_body(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Rc<Stream>,
        size: usize,
    ) -> Poll<Result<Option<Chunk>, BodyError>> {
        let piece = match stream.poll_piece(cx, size) {
            Poll::Ready(Ok(piece)) => piece,
            Poll::Ready(Err(_)) => {
                self.body.break_off();
                self.log_error(Level::Info, format_args!("client prematurely closed stream"));
                return Poll::Ready(Err(BodyError::Closed));
            }
            Poll::Pending => {
                ready!(self.poll_body_timeout(cx));
                self.body.break_off();
                return Poll::Ready(Err(BodyError::TimedOut));
            }
        };
        stream.timer.clear();
        let Some(piece) = piece else {
            self.body.end();
            if self.body.keeps_trailers()
                && let Some(text) = stream.take_trailers()
            {
                let mut section = Section::default();
                // Our own text, made of fields that were checked.
                if let Ok(Some(_)) = section.take(&text) {
                    self.has_trailers(&section);
                }
            }
            let received = self.body.received;
            if let Some(declared) = self.body.declared().filter(|declared| *declared != received) {
                self.body.break_off();
                let message = format_args!(
                    "client prematurely closed stream: only {received} out of {declared} bytes of \
                     request body received"
                );
                self.log_error(Level::Info, message);
                return Poll::Ready(Err(BodyError::Malformed));
            }
            return Poll::Ready(Ok(None));
        };
        self.body.received += piece.len() as u64;
        self.check_size()?;
        Poll::Ready(Ok(Some(piece)))
    }

    fn check_size(&mut self) -> Result<(), BodyError> {
        let received = self.body.received;
        if let Some(declared) = self.body.declared() {
            if received <= declared {
                return Ok(());
            }
            self.body.give_up();
            let message = "client intended to send body data larger than declared";
            self.log_error(Level::Info, format_args!("{message}"));
            return Err(BodyError::Malformed);
        }
        let max = self.location.settings.body_max;
        if max == 0 || received <= max {
            return Ok(());
        }
        self.body.give_up();
        let message =
            format_args!("client intended to send too large chunked body: {received} bytes");
        self.log_error(Level::Error, message);
        Err(BodyError::TooLarge)
    }

    fn poll_body_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout_ms = self.location.settings.body_timeout_ms;
        if self.timer().deadline().is_none() {
            self.timer().set(net::now().saturating_add(timeout_ms));
        }
        ready!(self.timer().poll_expired(cx));
        let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
        self.log_error(Level::Info, format_args!("client timed out ({errno})"));
        Poll::Ready(())
    }
}
