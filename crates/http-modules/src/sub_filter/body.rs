//! A body in which texts are replaced while it passes.
//!
//! Pieces in which nothing is found pass untouched and uncopied. Between matches, long runs are
//! shared with the piece they come from and short ones are gathered in a block, so that a body
//! full of matches does not fall into crumbs. Output is made only when it is asked for: at any
//! time there is one piece of input, one block of output, and less than one text held back.

use super::Pair;
use super::search::{Part, Patterns, Scanner, Set};
use http::{Body, Broken, Exchange, Piece, Pull};
use net::{Block, Chunk, Data};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Size of a block in which short runs are gathered.
const BLOCK: usize = 16 * 1024;
/// Runs of at least this length are not copied.
const LONG: usize = 1024;

/// What is replaced by what.
pub(super) struct Replacements {
    /// The texts to look for.
    pub(super) patterns: Rc<Patterns>,
    /// Which pair of the configuration each of the texts belongs to.
    pub(super) places: Rc<[usize]>,
    /// The pairs.
    pub(super) pairs: Rc<[Pair]>,
    /// Each text is replaced at its first appearance only.
    pub(super) once: bool,
}

/// A body with replacements; it holds no files.
pub(super) struct Replaced {
    body: Body,
    replacements: Replacements,
    /// Replacements as computed for this request.
    values: Vec<Option<Chunk>>,
    scanner: Scanner,
    done: Set,
    input: Option<Piece>,
    out: Gathered,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Reached,
    Broken,
}

impl Replaced {
    /// Replaces in `body`, whose pieces must be in memory.
    pub(super) fn new(body: Body, replacements: Replacements) -> Replaced {
        let count = replacements.places.len();
        Replaced {
            body,
            replacements,
            values: vec![None; count],
            scanner: Scanner::default(),
            done: Set::default(),
            input: None,
            out: Gathered::default(),
            end: End::Open,
        }
    }

    /// True when the rest of the body passes as it is.
    fn is_idle(&self) -> bool {
        self.done.len() == self.replacements.places.len() && self.scanner.is_clear()
    }

    /// Takes the next step through the input. A piece when the input is used up and asked for a
    /// flush.
    fn step(&mut self, x: &mut Exchange) -> Option<Piece> {
        let input = self.input.as_mut()?;
        let text = input.data.bytes();
        match self.scanner.next(&self.replacements.patterns, &self.done, text) {
            Part::Text(range) if range.len() == text.len() => {
                self.out.whole(std::mem::replace(&mut input.data, Data::Static(b"")));
                // The scanner saw all of the piece and found nothing to hold: an empty one in
                // its place ends it.
            }
            Part::Text(range) => self.out.part(&input.data, range),
            Part::Released => self.out.copy(self.scanner.released()),
            Part::Match(number) => {
                let value = self.value(x, number);
                self.out.chunk(value);
                if self.replacements.once {
                    self.done.insert(number);
                }
            }
            Part::End => {
                let flush = input.flush;
                self.input = None;
                return flush.then(|| Piece { data: self.out.rest(), flush: true });
            }
        }
        None
    }

    /// What stands in place of a text; computed at its first match.
    fn value(&mut self, x: &mut Exchange, number: usize) -> Chunk {
        let pair = &self.replacements.pairs[self.replacements.places[number]];
        if let Some(constant) = &pair.constant {
            return constant.clone();
        }
        if let Some(value) = &self.values[number] {
            return value.clone();
        }
        let span = pair.replacement.value(x);
        let value = Chunk::copy_of(x.text(span));
        self.values[number] = Some(value.clone());
        value
    }

    /// Pulls the next input; false when none is there yet.
    fn pull(&mut self, cx: &mut Context<'_>, x: &mut Exchange) -> bool {
        match self.body.poll_pull(cx, x) {
            Poll::Pending => return false,
            Poll::Ready(Ok(Some(piece))) => self.input = Some(piece),
            Poll::Ready(Ok(None)) => {
                let held = self.scanner.finish();
                self.out.copy(&held);
                self.end = End::Reached;
            }
            Poll::Ready(Err(Broken)) => self.end = End::Broken,
        }
        true
    }
}

impl Pull for Replaced {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            if let Some(data) = self.out.ready() {
                return Poll::Ready(Ok(Some(Piece::new(data))));
            }
            if self.input.is_some() {
                match self.step(x) {
                    Some(piece) => return Poll::Ready(Ok(Some(piece))),
                    None => continue,
                }
            }
            if self.end == End::Open && self.out.is_empty() && self.is_idle() {
                return self.body.poll_pull(cx, x);
            }
            if self.end == End::Open && self.pull(cx, x) {
                continue;
            }
            // Nothing more comes now: what was gathered does not wait for it.
            let rest = self.out.rest();
            return match self.end {
                _ if !rest.is_empty() => Poll::Ready(Ok(Some(Piece::new(rest)))),
                End::Open => Poll::Pending,
                End::Reached => Poll::Ready(Ok(None)),
                End::Broken => Poll::Ready(Err(Broken)),
            };
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}

/// Output that is not given out yet.
#[derive(Default)]
struct Gathered {
    /// Complete: what precedes `block`.
    queue: VecDeque<Data>,
    /// Short runs, side by side.
    block: Option<Block>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.block.is_none()
    }

    /// The next complete piece.
    fn ready(&mut self) -> Option<Data> {
        self.queue.pop_front()
    }

    /// The block as far as it is filled; empty when there is none. Only when nothing is `ready`.
    fn rest(&mut self) -> Data {
        self.block.take().map_or(Data::Static(b""), Data::from)
    }

    fn push(&mut self, data: Data) {
        if let Some(block) = self.block.take() {
            self.queue.push_back(Data::from(block));
        }
        self.queue.push_back(data);
    }

    /// A whole piece of input.
    fn whole(&mut self, data: Data) {
        match data.len() < LONG as u64 && self.block.is_some() {
            true => self.copy(data.bytes()),
            false => self.push(data),
        }
    }

    /// A part of a piece of input.
    fn part(&mut self, data: &Data, range: std::ops::Range<usize>) {
        match data {
            Data::Memory(chunk) if range.len() >= LONG => {
                self.push(Data::from(chunk.slice(range)));
            }
            Data::Static(bytes) if range.len() >= LONG => self.push(Data::Static(&bytes[range])),
            other => self.copy(&other.bytes()[range]),
        }
    }

    /// A replacement.
    fn chunk(&mut self, chunk: Chunk) {
        match chunk.len() >= LONG {
            true => self.push(Data::from(chunk)),
            false => self.copy(&chunk),
        }
    }

    fn copy(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let block = self.block.get_or_insert_with(|| Block::lend(BLOCK));
            let taken = block.append(text);
            text = &text[taken..];
            if block.is_full() {
                self.queue.extend(self.block.take().map(Data::from));
            }
        }
    }
}
