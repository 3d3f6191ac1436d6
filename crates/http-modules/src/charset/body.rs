//! A body that is recoded while it passes.

use super::table::{Recoder, Table};
use http::{Body, Broken, Exchange, Piece, Pull};
use net::Data;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::output::Reader;
use crate::range;

/// A recoded body.
pub(super) struct Recoded {
    source: Source,
    table: Rc<Table>,
    recoder: Recoder,
    /// Bytes of a file that are read at a time.
    read: usize,
    ended: bool,
}

enum Source {
    /// All of it, while nothing was pulled yet.
    Whole(Data),
    Body(Reader),
    Empty,
}

impl Recoded {
    pub(super) fn new(body: Body, table: Rc<Table>, read: usize) -> Recoded {
        let source = match body {
            Body::Whole(data) => Source::Whole(data),
            body => Source::Body(Reader::new(body, read)),
        };
        Recoded { source, table, recoder: Recoder::default(), read, ended: false }
    }
}

impl Pull for Recoded {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            if let Source::Whole(_) = self.source
                && let Source::Whole(data) = std::mem::replace(&mut self.source, Source::Empty)
            {
                self.source = Source::Body(Reader::new(Body::Whole(data), self.read));
            }
            let Source::Body(body) = &mut self.source else { return Poll::Ready(Ok(None)) };
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            let piece = ready!(body.poll_pull(cx, x))?;
            let mut out = Vec::new();
            let flush = match &piece {
                Some(piece) => {
                    let text = piece.data.bytes();
                    out.reserve(text.len());
                    self.recoder.recode(&self.table, text, &mut out);
                    piece.flush
                }
                None => {
                    self.ended = true;
                    self.recoder.finish(&mut out);
                    false
                }
            };
            if !out.is_empty() || flush {
                return Poll::Ready(Ok(Some(Piece { data: Data::from(out), flush })));
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        if let Source::Body(body) = &mut self.source {
            body.poll_ahead(cx, x);
        }
    }

    fn part(&self, start: u64, end: u64) -> Option<Box<dyn Pull>> {
        let Source::Whole(data) = &self.source else { return None };
        if !self.table.keeps_length() {
            return None;
        }
        let part = Body::Whole(range::part(data, start, end));
        Some(Box::new(Recoded::new(part, self.table.clone(), self.read)))
    }
}
