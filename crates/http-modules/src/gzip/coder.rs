//! gzip (RFC 1952) as a coder. Compressors are kept for the next answer, because making one means
//! clearing some 300 KB of fresh pages.

use std::cell::RefCell;

use zlib_rs::{Deflate, DeflateFlush, Status};

use crate::compress::{Coder, Order, Step};

/// zlib's code for a window of 32 KiB and gzip's frame around the data.
const GZIP_WINDOW: u8 = 15 + 16;
/// Compressors that a worker keeps.
const KEPT: usize = 4;

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

/// Compresses one body; takes a compressor with its first bytes.
pub(super) struct Gzip {
    level: i32,
    deflate: Option<Deflate>,
}

impl Gzip {
    /// `level` is the compressor's own.
    pub(super) fn new(level: i32) -> Gzip {
        Gzip { level, deflate: None }
    }
}

impl Coder for Gzip {
    fn step(&mut self, input: &[u8], out: &mut [u8], order: Order) -> Result<Step, String> {
        let deflate = self.deflate.get_or_insert_with(|| lend(self.level));
        let (read, written) = (deflate.total_in(), deflate.total_out());
        let flush = match order {
            Order::More => DeflateFlush::NoFlush,
            Order::Flush => DeflateFlush::SyncFlush,
            Order::Finish => DeflateFlush::Finish,
        };
        let status = deflate.compress(input, out, flush);
        let status = status.map_err(|error| format!("deflate() failed: {}", error.as_str()))?;
        // Neither is more than the lengths given.
        let read = (deflate.total_in() - read) as usize;
        let written = (deflate.total_out() - written) as usize;
        let complete = match order {
            Order::Finish => status == Status::StreamEnd,
            // There was room left, so that all of the input is taken and the order carried out.
            _ => written < out.len(),
        };
        Ok(Step { read, written, complete })
    }
}

impl Drop for Gzip {
    fn drop(&mut self) {
        if let Some(deflate) = self.deflate.take() {
            give_back(self.level, deflate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(level: i32, text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; text.len() + 100];
        let step = Gzip::new(level).step(text, &mut out, Order::Finish).unwrap();
        assert!(step.complete && step.read == text.len());
        out.truncate(step.written);
        out
    }

    #[test]
    fn a_compressor_that_was_used_makes_the_same() {
        for level in [2, 6, 9] {
            let first = packed(level, b"text text text");
            // Another text and an unfinished one lie between.
            packed(level, &[7; 5000]);
            let mut unfinished = Gzip::new(level);
            assert!(unfinished.step(b"abcabc", &mut [0; 100], Order::More).is_ok());
            drop(unfinished);
            assert_eq!(packed(level, b"text text text"), first);
            // RFC 1952: deflate, no name, no time, made on Unix.
            assert_eq!(first[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
            assert_eq!(first[9], 3);
        }
    }
}
