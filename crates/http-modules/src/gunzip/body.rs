//! A body that is unpacked while it passes.
//!
//! Output is made only when it is asked for: at any time there is one piece of input and one
//! block of output, however much a small input may unpack to.

use http::{Body, Broken, Exchange, Piece, Pull};
use net::{Block, Data};
use session::log::Level;
use std::task::{Context, Poll};
use zlib_rs::{Inflate, InflateFlush, Status};

/// zlib's code for a window of up to 32 KiB and gzip's frame around the data.
const GZIP_WINDOW: u8 = 15 + 16;

/// An unpacked body; what it unpacks holds no files.
pub(super) struct Unpacked {
    body: Body,
    block: usize,
    /// None before the first byte of a member (RFC 1952 section 2.2).
    inflate: Option<Inflate>,
    /// At least one member was unpacked.
    any: bool,
    input: Data,
    /// Send what `input` makes at once.
    flush: bool,
    out: Option<Block>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More input is needed.
    Pulling,
    /// There is input to take, or output that had no room.
    Unpacking,
    /// The body ended; what is in the block is still to be sent.
    Ended,
    /// The body broke off; as before.
    Broken,
}

impl Unpacked {
    /// Unpacks `body`, whose pieces must be in memory, in pieces of about `block` bytes.
    pub(super) fn new(body: Body, block: usize) -> Unpacked {
        Unpacked {
            body,
            block,
            inflate: None,
            any: false,
            input: Data::Static(b""),
            flush: false,
            out: None,
            state: State::Pulling,
        }
    }

    /// Unpacks once. A piece when the block is full, or a flush is due.
    fn unpack(&mut self, x: &mut Exchange) -> Option<Piece> {
        if self.inflate.is_none() && self.input.is_empty() {
            return self.taken();
        }
        let inflate = self.inflate.get_or_insert_with(|| Inflate::new(true, GZIP_WINDOW));
        let out = self.out.get_or_insert_with(|| Block::lend(self.block));
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let input = self.input.bytes();
        let status = match inflate.decompress(input, out.spare(), InflateFlush::NoFlush) {
            Ok(status) => status,
            Err(error) => {
                let reason = error.as_str();
                x.log_error(Level::Error, format_args!("inflate() failed: {reason}"));
                self.state = State::Broken;
                return None;
            }
        };
        self.input.advance(inflate.total_in() - read);
        // Not more than the room that was given.
        out.advance((inflate.total_out() - written) as usize);
        let full = out.is_full();
        if status == Status::StreamEnd {
            self.inflate = None;
            self.any = true;
        }
        match full {
            true => self.piece(false),
            false if self.input.is_empty() => self.taken(),
            // What follows is the next member.
            false => None,
        }
    }

    /// All input is taken.
    fn taken(&mut self) -> Option<Piece> {
        self.state = State::Pulling;
        match std::mem::take(&mut self.flush) {
            true => {
                Some(self.piece(true).unwrap_or(Piece { data: Data::Static(b""), flush: true }))
            }
            false => None,
        }
    }

    fn piece(&mut self, flush: bool) -> Option<Piece> {
        let block = self.out.take().filter(|block| !block.is_empty())?;
        Some(Piece { data: Data::from(block), flush })
    }

    /// The body's end, which must be that of a member.
    fn end(&mut self, x: &mut Exchange) {
        self.state = State::Ended;
        if self.inflate.is_some() || !self.any {
            x.log_error(Level::Error, format_args!("the compressed answer ends too early"));
            self.state = State::Broken;
        }
    }
}

impl Pull for Unpacked {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            match self.state {
                State::Unpacking => {
                    if let Some(piece) = self.unpack(x) {
                        return Poll::Ready(Ok(Some(piece)));
                    }
                }
                State::Pulling => match self.body.poll_pull(cx, x) {
                    // What is there does not wait for what comes.
                    Poll::Pending => match self.piece(false) {
                        Some(piece) => return Poll::Ready(Ok(Some(piece))),
                        None => return Poll::Pending,
                    },
                    Poll::Ready(Ok(None)) => self.end(x),
                    Poll::Ready(Err(Broken)) => self.state = State::Broken,
                    Poll::Ready(Ok(Some(piece))) => {
                        self.input = piece.data;
                        self.flush = piece.flush;
                        self.state = State::Unpacking;
                    }
                },
                State::Ended | State::Broken => {
                    return Poll::Ready(match self.piece(false) {
                        Some(piece) => Ok(Some(piece)),
                        None if self.state == State::Broken => Err(Broken),
                        None => Ok(None),
                    });
                }
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}
