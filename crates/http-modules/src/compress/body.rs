//! A body that is compressed while it passes.
//!
//! Output is made only when it is asked for: at any time there is one piece of input, one block
//! of output and the coder's own state.

use std::task::{Context, Poll};

use http::{Body, Broken, Exchange, Piece, Pull};
use net::{Block, Data};
use session::log::Level;

use super::{Coder, Order};

/// Bytes of input after which other tasks go first.
const SHARE: u64 = 1 << 20;

/// Bytes before and after compression, of an answer that was compressed whole.
#[derive(Clone, Copy, Default)]
pub(crate) struct Volume {
    /// By which coding.
    pub(crate) coding: &'static str,
    pub(crate) read: u64,
    pub(crate) written: u64,
}

/// A compressed body; what it compresses holds no files.
pub(super) struct Packed {
    body: Body,
    coder: Option<Box<dyn Coder>>,
    block: usize,
    input: Data,
    /// What the coder is to do with `input`.
    order: Order,
    out: Option<Block>,
    state: State,
    volume: Volume,
    /// Bytes taken since other tasks could go.
    taken: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More input is needed.
    Pulling,
    /// There is input to take, or an order that is not carried out yet.
    Packing,
    Ended,
}

impl Packed {
    /// Compresses `body`, whose pieces must be in memory; pieces of output have at most about
    /// `block` bytes.
    pub(super) fn new(
        body: Body,
        coding: &'static str,
        coder: Box<dyn Coder>,
        block: usize,
    ) -> Packed {
        Packed {
            body,
            coder: Some(coder),
            block,
            input: Data::Static(b""),
            order: Order::More,
            out: None,
            state: State::Pulling,
            volume: Volume { coding, read: 0, written: 0 },
            taken: 0,
        }
    }

    fn begin(&mut self, input: Data, order: Order) {
        self.input = input;
        self.order = order;
        self.state = State::Packing;
    }

    /// Lets the coder work once. A piece when the block is full, or the order demands it.
    fn pack(&mut self, x: &mut Exchange) -> Result<Option<Piece>, Broken> {
        let Some(coder) = &mut self.coder else { return Err(Broken) };
        let out = self.out.get_or_insert_with(|| Block::lend(self.block));
        let step = match coder.step(self.input.bytes(), out.spare(), self.order) {
            Ok(step) => step,
            Err(reason) => {
                x.log_error(Level::Alert, format_args!("{reason}"));
                self.end();
                return Err(Broken);
            }
        };
        self.taken += step.read as u64;
        self.volume.read += step.read as u64;
        self.volume.written += step.written as u64;
        self.input.advance(step.read as u64);
        // Not more than the room that the coder was given.
        out.advance(step.written);
        if !step.complete {
            if !out.is_full() && step.read + step.written == 0 {
                x.log_error(Level::Alert, format_args!("a compressor makes no progress"));
                self.end();
                return Err(Broken);
            }
            let full = out.is_full();
            return Ok(if full { self.piece(false) } else { None });
        }
        self.state = State::Pulling;
        match self.order {
            Order::More if out.is_full() => Ok(self.piece(false)),
            Order::More => Ok(None),
            Order::Flush => {
                Ok(Some(self.piece(true).unwrap_or(Piece { data: Data::Static(b""), flush: true })))
            }
            Order::Finish => {
                *x.state_or_default() = self.volume;
                self.end();
                Ok(self.piece(false))
            }
        }
    }

    /// The coder goes back at once: the client may take long for the rest.
    fn end(&mut self) {
        self.state = State::Ended;
        self.coder = None;
    }

    fn piece(&mut self, flush: bool) -> Option<Piece> {
        let block = self.out.take().filter(|block| !block.is_empty())?;
        Some(Piece { data: Data::from(block), flush })
    }
}

impl Pull for Packed {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            match self.state {
                State::Ended => return Poll::Ready(Ok(None)),
                State::Packing => match self.pack(x) {
                    Ok(None) => {}
                    other => return Poll::Ready(other),
                },
                State::Pulling if self.taken >= SHARE => {
                    self.taken = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Pulling => match self.body.poll_pull(cx, x) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(Broken)) => {
                        self.end();
                        return Poll::Ready(Err(Broken));
                    }
                    Poll::Ready(Ok(None)) => self.begin(Data::Static(b""), Order::Finish),
                    Poll::Ready(Ok(Some(Piece { data, flush: true }))) => {
                        self.begin(data, Order::Flush);
                    }
                    Poll::Ready(Ok(Some(Piece { data, .. }))) => self.begin(data, Order::More),
                },
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}
