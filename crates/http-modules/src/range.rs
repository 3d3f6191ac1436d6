//! Parts of a representation: 206 and 416 (RFC 9110 section 14; nginx: ngx_http_range_filter).
//!
//! A whole body, in memory or in a file, is cut without being copied. A body that streams in is
//! cut as it passes, one range only.

use config::{AnyDirective, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Broken, Exchange, Filter, LocationBuilder, Module, Piece, Pull};
use net::{Chunk, Data, FileRange};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::text::Span;
use std::cell::RefCell;
use std::task::{Context, Poll, ready};
use wire::http1::range::{ByteRange, Verdict, if_range_holds, parse};
use wire::http1::{Known, Version};

use crate::not_modified::last_modified;
use crate::output;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_range",
        "Answers requests for parts of files, and of other answers whose length is known, with \
         just these parts.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&MAX_RANGES];

/// `max_ranges`; no limit without it.
pub static MAX_RANGES: Directive<u64> =
    Directive::new("max_ranges", &[HTTP, SERVER, LOCATION], read::number)
        .syntax("max_ranges NUMBER;")
        .text(
            "How many parts a request may ask for; one that asks for more gets the whole. With 0 \
             no parts are served, and answers do not offer them. Without it the number is not \
             limited.",
        )
        .example("max_ranges 4;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let max = scope.find(&MAX_RANGES).map(|max| u32::try_from(max).unwrap_or(u32::MAX));
    if max != Some(0) {
        let block = (!builder.location.settings.sendfile).then(|| output::block_size(scope));
        builder.filter(Ranges { max, block });
    }
}

struct Ranges {
    max: Option<u32>,
    /// Files are to be read in blocks of this size rather than sent by the kernel.
    block: Option<usize>,
}

thread_local! {
    /// Ranges of the request at hand: most have none, and the others need no list of their own.
    static FOUND: RefCell<Vec<ByteRange>> = const { RefCell::new(Vec::new()) };
}

impl Filter for Ranges {
    fn apply(&self, x: &mut Exchange) {
        let response = &x.response;
        if response.status != 200
            || !response.allow_ranges
            || !x.is_main()
            || x.request.version < Version::HTTP_10
        {
            return;
        }
        let Some(length) = response.length else { return };
        let verdict = match wanted(x) {
            None => Verdict::Whole,
            Some(range) => FOUND.with_borrow_mut(|found| {
                // What streams in is cut as it passes.
                let is_cut = match &x.response.body {
                    Body::Stream(source) => source.part(0, 0).is_none(),
                    _ => false,
                };
                let max = if is_cut { Some(1) } else { self.max };
                parse(x.text(range), length, max, found)
            }),
        };
        match verdict {
            Verdict::Whole => {
                let value = x.arena.push(b"bytes");
                x.response.headers.set_known(Known::AcceptRanges, value);
            }
            Verdict::NotSatisfiable => {
                x.response.reset();
                let value = x.arena.format(format_args!("bytes */{length}"));
                x.response.headers.push_known(Known::ContentRange, value);
                x.refused = Some(416);
            }
            Verdict::Partial => {
                x.response.status = 206;
                x.response.status_line = None;
                FOUND.with_borrow(|found| match found.as_slice() {
                    [range] => single(x, *range, length),
                    ranges => self.several(x, ranges, length),
                });
            }
        }
    }
}

/// The value of `Range`, when the request has one that `If-Range` lets count.
fn wanted(x: &Exchange) -> Option<Span> {
    let range = x.request.headers.value(Known::Range)?;
    if let Some(condition) = x.request.headers.value(Known::IfRange) {
        let etag = x.response.headers.value(Known::Etag).map(|tag| x.text(tag));
        if !if_range_holds(x.text(condition), etag, last_modified(x)) {
            return None;
        }
    }
    Some(range)
}

fn single(x: &mut Exchange, range: ByteRange, length: u64) {
    let ByteRange { start, end } = range;
    let value = x.arena.format(format_args!("bytes {start}-{}/{length}", end - 1));
    let response = &mut x.response;
    response.headers.remove(Known::ContentRange);
    response.headers.push_known(Known::ContentRange, value);
    response.length = Some(end - start);
    let at = response.body_offset;
    response.body = match std::mem::take(&mut response.body) {
        Body::Whole(data) => Body::Whole(part(&data, start, end)),
        Body::Stream(source) => Body::Stream(Box::new(Cut { source, at, range })),
        other => other,
    };
}

/// The bytes of `data` from `start` to `end`.
pub(crate) fn part(data: &Data, start: u64, end: u64) -> Data {
    match data {
        Data::File(whole) => Data::File(FileRange {
            file: whole.file.clone(),
            offset: whole.offset + start,
            length: end - start,
        }),
        // What is in memory is shorter than an address is wide.
        Data::Memory(chunk) => Data::Memory(chunk.slice(start as usize..end as usize)),
        Data::Static(bytes) => Data::Static(&bytes[start as usize..end as usize]),
        Data::Bytes(owned) => {
            Data::Memory(Chunk::copy_of(&owned.as_slice()[start as usize..end as usize]))
        }
        // Pipes bring parts of a stream, never a whole body.
        Data::Spliced(_) => Data::Static(b""),
    }
}

impl Ranges {
    /// `multipart/byteranges` (RFC 9110 section 14.6).
    fn several(&self, x: &mut Exchange, ranges: &[ByteRange], length: u64) {
        let boundary = session::random::u64();
        let mut head = format!("\r\n--{boundary:020}\r\n").into_bytes();
        if let Some(kind) = x.response.content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(x.text(kind));
            if let Some(charset) = x.response.charset.take() {
                head.extend_from_slice(b"; charset=");
                head.extend_from_slice(x.text(charset));
            }
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Content-Range: bytes ");
        let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
        let mut length_sent = 0;
        let body = std::mem::take(&mut x.response.body);
        for range in ranges {
            let ByteRange { start, end } = *range;
            let mut text = head.clone();
            text.extend_from_slice(format!("{start}-{}/{length}\r\n\r\n", end - 1).as_bytes());
            length_sent += text.len() as u64 + (end - start);
            pieces.push(Body::Whole(Data::from(text)));
            match &body {
                Body::Whole(data) => pieces.push(Body::Whole(part(data, start, end))),
                Body::Stream(source) => pieces.extend(source.part(start, end).map(Body::Stream)),
                Body::Empty | Body::Tunnel(_) => {}
            }
        }
        let last = format!("\r\n--{boundary:020}--\r\n").into_bytes();
        length_sent += last.len() as u64;
        pieces.push(Body::Whole(Data::from(last)));
        let kind = format_args!("multipart/byteranges; boundary={boundary:020}");
        x.response.content_type = Some(x.arena.format(kind));
        x.response.headers.remove(Known::ContentRange);
        x.response.length = Some(length_sent);
        let parts = Body::Stream(Box::new(Parts { pieces: pieces.into_iter() }));
        x.response.body = match self.block {
            Some(block) => Body::Stream(Box::new(output::Reader::new(parts, block))),
            None => parts,
        };
    }
}

/// The pieces of a multipart body.
struct Parts {
    pieces: std::vec::IntoIter<Body>,
}

impl Pull for Parts {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        while let Some(body) = self.pieces.as_mut_slice().first_mut() {
            if let Some(piece) = ready!(body.poll_pull(cx, x))? {
                return Poll::Ready(Ok(Some(piece)));
            }
            self.pieces.next();
        }
        Poll::Ready(Ok(None))
    }
}

/// One range of a body that streams in.
struct Cut {
    source: Box<dyn Pull>,
    /// Where in the whole the next piece begins.
    at: u64,
    range: ByteRange,
}

impl Pull for Cut {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        while self.at < self.range.end {
            let Some(mut piece) = ready!(self.source.poll_pull(cx, x))? else { break };
            let (start, length) = (self.at, piece.data.len());
            self.at += length;
            let from = self.range.start.saturating_sub(start).min(length);
            let to = (self.range.end - start).min(length);
            if from < to {
                if from > 0 || to < length {
                    piece.data = part(&piece.data, from, to);
                }
                return Poll::Ready(Ok(Some(piece)));
            }
        }
        Poll::Ready(Ok(None))
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.source.poll_ahead(cx, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_memory() {
        for data in [
            Data::from(Chunk::copy_of(b"0123456789")),
            Data::Static(b"0123456789"),
            Data::from(b"0123456789".to_vec()),
        ] {
            assert_eq!(part(&data, 2, 5).bytes(), b"234", "{data:?}");
        }
    }
}
