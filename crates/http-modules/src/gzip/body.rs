//! A body that is compressed while it passes.
//!
//! Output is made only when it is asked for: at any time there is one piece of input, one block
//! of output and the compressor's own state. Compressors are kept for the next answer, because
//! making one means clearing some 300 KB of fresh pages.

use http::{Body, Broken, Exchange, Piece, Pull};
use net::{Block, Data};
use session::log::Level;
use std::cell::RefCell;
use std::task::{Context, Poll};
use zlib_rs::{Deflate, DeflateFlush, Status};

/// zlib's code for a window of 32 KiB and gzip's frame around the data.
const GZIP_WINDOW: u8 = 15 + 16;
/// Compressors that a worker keeps.
const KEPT: usize = 4;
/// Bytes of input after which other tasks go first.
const SHARE: u64 = 1 << 20;

thread_local! {
    static SPARE: RefCell<Vec<(i32, Deflate)>> = const { RefCell::new(Vec::new()) };
}

/// A compressor for `level`, a spare one where there is one.
fn lend(level: i32) -> Deflate {
    let spare = SPARE.with_borrow_mut(|spare| {
        let at = spare.iter().position(|(of, _)| *of == level)?;
        Some(spare.swap_remove(at).1)
    });
    match spare {
        Some(mut deflate) => {
            deflate.reset();
            deflate
        }
        None => Deflate::new(level, true, GZIP_WINDOW),
    }
}

fn give_back(level: i32, deflate: Deflate) {
    // At the end of the thread there is nobody left to lend it to.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() == KEPT {
            spare.remove(0);
        }
        spare.push((level, deflate));
    });
}

/// Bytes before and after compression, of an answer that was compressed whole.
#[derive(Clone, Copy, Default)]
pub(super) struct Volume {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// A compressed body; what it compresses holds no files.
pub(super) struct Gzipped {
    body: Body,
    level: i32,
    block: usize,
    deflate: Option<Deflate>,
    input: Data,
    /// What the compressor is to do with `input`.
    order: DeflateFlush,
    out: Option<Block>,
    state: State,
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

impl Gzipped {
    /// Compresses `body`, whose pieces must be in memory; `level` is the compressor's own, and
    /// pieces of output have at most about `block` bytes.
    pub(super) fn new(body: Body, level: i32, block: usize) -> Gzipped {
        Gzipped {
            body,
            level,
            block,
            deflate: None,
            input: Data::Static(b""),
            order: DeflateFlush::NoFlush,
            out: None,
            state: State::Pulling,
            taken: 0,
        }
    }

    fn begin(&mut self, input: Data, order: DeflateFlush) {
        self.input = input;
        self.order = order;
        self.state = State::Packing;
    }

    /// Lets the compressor work once. A piece when the block is full, or the order demands it.
    fn pack(&mut self, x: &mut Exchange) -> Result<Option<Piece>, Broken> {
        let deflate = self.deflate.get_or_insert_with(|| lend(self.level));
        let out = self.out.get_or_insert_with(|| Block::lend(self.block));
        let (read, written) = (deflate.total_in(), deflate.total_out());
        let status = match deflate.compress(self.input.bytes(), out.spare(), self.order) {
            Ok(status) => status,
            Err(error) => {
                let reason = error.as_str();
                x.log_error(Level::Alert, format_args!("deflate() failed: {reason}"));
                self.state = State::Ended;
                return Err(Broken);
            }
        };
        let read = deflate.total_in() - read;
        self.taken += read;
        self.input.advance(read);
        // Not more than the room that the compressor was given.
        out.advance((deflate.total_out() - written) as usize);
        if status == Status::StreamEnd {
            let volume = Volume { read: deflate.total_in(), written: deflate.total_out() };
            *x.state_or_default() = volume;
            self.state = State::Ended;
            self.recycle();
            return Ok(self.piece(false));
        }
        if out.is_full() {
            return Ok(self.piece(false));
        }
        // There was room left, so that all of the input is taken and the order carried out.
        self.state = State::Pulling;
        match self.order {
            DeflateFlush::SyncFlush => {
                Ok(Some(self.piece(true).unwrap_or(Piece { data: Data::Static(b""), flush: true })))
            }
            _ => Ok(None),
        }
    }

    fn piece(&mut self, flush: bool) -> Option<Piece> {
        let block = self.out.take().filter(|block| !block.is_empty())?;
        Some(Piece { data: Data::from(block), flush })
    }

    fn recycle(&mut self) {
        if let Some(deflate) = self.deflate.take() {
            give_back(self.level, deflate);
        }
    }
}

impl Drop for Gzipped {
    fn drop(&mut self) {
        self.recycle();
    }
}

impl Pull for Gzipped {
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
                        self.state = State::Ended;
                        return Poll::Ready(Err(Broken));
                    }
                    Poll::Ready(Ok(None)) => self.begin(Data::Static(b""), DeflateFlush::Finish),
                    Poll::Ready(Ok(Some(Piece { data, flush: true }))) => {
                        self.begin(data, DeflateFlush::SyncFlush);
                    }
                    Poll::Ready(Ok(Some(Piece { data, .. }))) => {
                        self.begin(data, DeflateFlush::NoFlush);
                    }
                },
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(level: i32, text: &[u8]) -> Vec<u8> {
        let mut deflate = lend(level);
        let mut out = vec![0; text.len() + 100];
        let status = deflate.compress(text, &mut out, DeflateFlush::Finish);
        assert_eq!(status, Ok(Status::StreamEnd));
        out.truncate(deflate.total_out() as usize);
        give_back(level, deflate);
        out
    }

    #[test]
    fn a_compressor_that_was_used_makes_the_same() {
        for level in [2, 6, 9] {
            let first = packed(level, b"text text text");
            // Another text and an unfinished one lie between.
            packed(level, &[7; 5000]);
            let mut unfinished = lend(level);
            let mut out = [0; 100];
            assert!(unfinished.compress(b"abcabc", &mut out, DeflateFlush::NoFlush).is_ok());
            give_back(level, unfinished);
            assert_eq!(packed(level, b"text text text"), first);
            // RFC 1952: deflate, no name, no time, made on Unix.
            assert_eq!(first[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
            assert_eq!(first[9], 3);
        }
    }
}
