//! A page on its way to the client: its texts, and what its commands put between them.
//!
//! The page is read on while an answer that it includes is waited for, so that the next ones are
//! asked for at the same time; how far is bounded by the texts and the answers that stand in line.

use super::Settings;
use super::command::{Effect, Page};
use super::memory::Memory;
use super::scan::{Found, OPENING, Scanner};
use http::{Body, Broken, Exchange, Part, Piece, Pull};
use net::{Chunk, Data};
use session::log::Level;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Bytes of text in line beyond which no more of the page is read.
const ROOM: u64 = 16 * 1024;
/// Answers in line beyond which no more of the page is read.
const MOST_PARTS: usize = 32;
/// Runs of text of at least this length are not copied.
const LONG: usize = 1024;

/// A body with its commands obeyed.
pub(super) struct Included {
    body: Body,
    settings: Rc<Settings>,
    scanner: Scanner,
    page: Page,
    input: Option<Piece>,
    line: VecDeque<Segment>,
    /// Bytes of text in line.
    texts: u64,
    parts: usize,
    /// The page goes on when the last part in line is over.
    waits: bool,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Reached,
    Broken,
}

/// What stands in line for the client.
enum Segment {
    /// Short runs, side by side.
    Text(Vec<u8>),
    Data(Data),
    Flush,
    Part(Part),
    /// An answer that becomes a variable.
    Set {
        part: Part,
        name: Vec<u8>,
        value: Vec<u8>,
        status: u16,
    },
}

impl Included {
    /// `body` is in memory.
    pub(super) fn new(body: Body, settings: Rc<Settings>) -> Included {
        Included {
            body,
            scanner: Scanner::new(settings.longest_value),
            page: Page::new(settings.clone()),
            settings,
            input: None,
            line: VecDeque::new(),
            texts: 0,
            parts: 0,
            waits: false,
            end: End::Open,
        }
    }

    /// Reads on in the page; false when nothing more can be done now.
    fn advance(&mut self, cx: &mut Context<'_>, x: &mut Exchange) -> bool {
        if self.waits || self.texts >= ROOM || self.parts >= MOST_PARTS {
            return false;
        }
        let Some(input) = &self.input else { return self.pull(cx, x) };
        match self.scanner.next(input.data.bytes()) {
            Found::Text(range) if !self.page.is_shown() => {
                self.page.keep(&input.data.bytes()[range]);
            }
            Found::Text(range) => self.push_part(range),
            Found::Held(length) => self.opening(length),
            Found::Command(command) => {
                let effect = self.page.obey(x, &command);
                self.take(effect);
            }
            Found::Bad => {
                if let Some(fault) = self.scanner.take_fault() {
                    x.log_error(Level::Error, format_args!("{fault}"));
                }
                let effect = self.page.error();
                self.take(effect);
            }
            Found::End => {
                if input.flush {
                    self.line.push_back(Segment::Flush);
                }
                self.input = None;
            }
        }
        true
    }

    /// Pulls the next piece of the page.
    fn pull(&mut self, cx: &mut Context<'_>, x: &mut Exchange) -> bool {
        if self.end != End::Open {
            return false;
        }
        match self.body.poll_pull(cx, x) {
            Poll::Pending => return false,
            Poll::Ready(Ok(Some(piece))) => self.input = Some(piece),
            Poll::Ready(Ok(None)) => {
                let held = self.scanner.finish();
                self.opening(held);
                self.end = End::Reached;
            }
            Poll::Ready(Err(Broken)) => self.end = End::Broken,
        }
        true
    }

    /// The beginning of a command that was none.
    fn opening(&mut self, length: usize) {
        match self.page.is_shown() {
            true => self.push_text(&OPENING[..length]),
            false => self.page.keep(&OPENING[..length]),
        }
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Text(text) => self.push_text(&text),
            Effect::Include { part, waits } => {
                self.line.push_back(Segment::Part(part));
                self.parts += 1;
                self.waits = waits;
            }
            Effect::Set { part, name } => {
                self.line.push_back(Segment::Set { part, name, value: Vec::new(), status: 0 });
                self.parts += 1;
                self.waits = true;
            }
        }
    }

    /// A part of the input.
    fn push_part(&mut self, range: std::ops::Range<usize>) {
        let Some(input) = &self.input else { return };
        let data = match &input.data {
            Data::Memory(chunk) if range.len() >= LONG => Data::from(chunk.slice(range)),
            other => {
                // Copied apart, since the input belongs to the same value.
                let text = Chunk::copy_of(&other.bytes()[range]);
                return self.push_text(&text);
            }
        };
        self.texts += data.len();
        self.line.push_back(Segment::Data(data));
    }

    fn push_text(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        self.texts += text.len() as u64;
        match self.line.back_mut() {
            Some(Segment::Text(last)) => last.extend_from_slice(text),
            _ => self.line.push_back(Segment::Text(text.to_vec())),
        }
    }

    /// The next piece of what stands first in line; `None` when that is over.
    fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        match self.line.front_mut() {
            Some(Segment::Part(part)) => {
                if let Some(piece) = ready!(part.poll_pull(cx, x))? {
                    return Poll::Ready(Ok(Some(piece)));
                }
            }
            Some(Segment::Set { part, name, value, status }) => {
                while let Some(piece) = ready!(part.poll_pull(cx, x))? {
                    *status = part.head().map_or(0, |child| child.response.status);
                    let text = in_memory(piece.data);
                    if value.len() + text.len() > self.settings.longest_answer {
                        let length = value.len() + text.len();
                        let what = "too big subrequest response:";
                        x.log_error(Level::Error, format_args!("{what} {length}"));
                        return Poll::Ready(Err(Broken));
                    }
                    value.extend_from_slice(&text);
                }
                let is_good = *status < 300;
                let text = if is_good { std::mem::take(value) } else { Vec::new() };
                let memory = x.lasting::<Memory>();
                if !text.is_empty() || memory.value(name).is_none() {
                    memory.set(name, text);
                }
            }
            _ => return Poll::Ready(Ok(self.pop_text())),
        }
        self.line.pop_front();
        self.parts -= 1;
        // Whoever waits is the last in line.
        self.waits = self.waits && self.parts > 0;
        Poll::Ready(Ok(None))
    }

    fn pop_text(&mut self) -> Option<Piece> {
        let piece = match self.line.pop_front()? {
            Segment::Text(text) => Piece::new(Data::from(text)),
            Segment::Data(data) => Piece::new(data),
            _ => Piece { data: Data::Static(b""), flush: true },
        };
        self.texts -= piece.data.len();
        Some(piece)
    }

    /// Lets answers whose turn has not come go on.
    fn ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange, from: usize) {
        if self.parts == 0 {
            return;
        }
        for segment in self.line.iter_mut().skip(from) {
            if let Segment::Part(part) | Segment::Set { part, .. } = segment {
                part.poll_ahead(cx, x);
            }
        }
    }
}

/// The bytes of a short piece; those of a file are not looked at.
fn in_memory(data: Data) -> Chunk {
    match data {
        Data::File(_) => Chunk::copy_of(b""),
        other => Chunk::copy_of(other.bytes()),
    }
}

impl Pull for Included {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            while self.advance(cx, x) {}
            if self.line.is_empty() {
                return match self.end {
                    End::Open => Poll::Pending,
                    End::Reached => Poll::Ready(Ok(None)),
                    End::Broken => Poll::Ready(Err(Broken)),
                };
            }
            match self.poll_first(cx, x) {
                Poll::Ready(Ok(Some(piece))) => return Poll::Ready(Ok(Some(piece))),
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(Broken)) => return Poll::Ready(Err(Broken)),
                Poll::Pending => {
                    self.ahead(cx, x, 1);
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        while self.advance(cx, x) {}
        self.ahead(cx, x, 0);
        self.body.poll_ahead(cx, x);
    }
}
