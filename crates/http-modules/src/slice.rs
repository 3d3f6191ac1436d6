//! `slice`: a large answer asked for in parts of one size (nginx: ngx_http_slice_filter_module).
//!
//! The request that `$slice_range` is used in asks for the part in which the client's range
//! begins. Its answer becomes the whole: status 200, the complete length, and a body that asks for
//! the following parts when it is their turn. What the client does not want is not asked for.

use config::{AnyDirective, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Broken, Exchange, Filter, LocationBuilder, Module, Part, Piece, Pull};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::Level;
use session::text::Span;
use session::variables::Builtin;
use std::task::{Context, Poll, ready};
use wire::http1::Known;
use wire::http1::range::{Verdict, parse};

use crate::range::MAX_RANGES;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: VARIABLES,
    location: Some(attach),
    ..Module::new(
        "http_slice",
        "Asks backends for large answers in parts of one size, so that a client that wants the end \
         of a file does not wait for its beginning.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&SLICE];

/// `slice`.
pub static SLICE: Directive<u64> = Directive::new("slice", &[HTTP, SERVER, LOCATION], read::size)
    .default("0")
    .syntax("slice SIZE;")
    .text(
        "The size of parts; 0: answers are asked for as a whole. The backend must be asked for \
         the part: `proxy_set_header Range $slice_range`. All parts must have the same ETag.",
    )
    .example("slice 1m; proxy_set_header Range $slice_range;");

static VARIABLES: &[Builtin<Exchange>] = &[Builtin::volatile(
    "slice_range",
    slice_range,
    "The part that is to be asked for, as `bytes=0-1048575`.",
)];

/// What is kept in a location.
struct Slices {
    size: u64,
    /// Clients may ask for ranges.
    has_ranges: bool,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let size = scope.get(&SLICE);
    if size > 0 {
        builder.keep(Slices { size, has_ranges: scope.find(&MAX_RANGES) != Some(0) });
        builder.filter(Slice);
    }
}

/// Where the part begins that a request asks for.
#[derive(Default)]
struct Begin(u64);

fn slice_range(x: &mut Exchange) -> Option<Span> {
    let location = x.location.clone();
    let slices = location.kept::<Slices>()?;
    let begin = match x.peek_state::<Begin>() {
        Some(begin) => begin.0,
        None if !x.is_main() || x.response.status != 0 => return None,
        None => {
            let begin = wanted(x, slices) / slices.size * slices.size;
            x.state_or_default::<Begin>().0 = begin;
            begin
        }
    };
    let last = begin.saturating_add(slices.size - 1);
    Some(x.arena.format(format_args!("bytes={begin}-{last}")))
}

/// Where the client's range begins; 0 when there is none, or more than one.
fn wanted(x: &Exchange, slices: &Slices) -> u64 {
    let headers = &x.request.headers;
    let Some(range) = headers.value(Known::Range).filter(|_| slices.has_ranges) else { return 0 };
    let text = x.text(range);
    let behind = text.iter().position(|byte| *byte == b'=').map_or(text, |at| &text[at + 1..]);
    let is_from_end = behind.trim_ascii_start().starts_with(b"-");
    if is_from_end || headers.find(Known::IfRange).is_some() {
        return 0;
    }
    let mut found = Vec::new();
    match parse(text, i64::MAX as u64, Some(1), &mut found) {
        Verdict::Partial => found.first().map_or(0, |range| range.start),
        _ => 0,
    }
}

/// `bytes 0-9/100`: which part an answer has, and of how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    begin: u64,
    /// Behind the last byte.
    end: u64,
    /// `None` when the backend does not know.
    all: Option<u64>,
}

fn place(text: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(text).ok()?.strip_prefix("bytes ")?;
    let (range, all) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = text.trim();
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let all = match all.trim() {
        "*" => None,
        all => Some(number(all)?),
    };
    let (begin, last): (u64, u64) = (number(first)?, number(last)?);
    let end = last.checked_add(1).filter(|end| *end > begin)?;
    Some(Place { begin, end, all }).filter(|place| place.all.is_none_or(|all| end <= all))
}

/// The complete length that an answer with the part from `begin` tells. A fault is logged.
fn check(x: &Exchange, begin: u64, size: u64) -> Option<u64> {
    let fault = |message: std::fmt::Arguments<'_>| {
        x.log_error(Level::Error, message);
        None
    };
    let value = x.response.headers.value(Known::ContentRange);
    let Some(place) = value.and_then(|value| place(x.text(value))) else {
        return fault(format_args!("invalid range in slice response"));
    };
    let Some(all) = place.all else {
        return fault(format_args!("no complete length in slice response"));
    };
    if place.begin != begin || place.end != begin.saturating_add(size).min(all) {
        let Place { begin, end, .. } = place;
        return fault(format_args!("unexpected range in slice response: {begin}-{end}"));
    }
    Some(all)
}

struct Slice;

impl Filter for Slice {
    fn apply(&self, x: &mut Exchange) {
        let location = x.location.clone();
        let Some(slices) = location.kept::<Slices>() else { return };
        let Some(Begin(begin)) = x.peek_state::<Begin>() else { return };
        let (begin, size) = (*begin, slices.size);
        if !x.is_main() || x.response.status != 206 {
            return;
        }
        let Some(all) = check(x, begin, size) else {
            x.response.reset();
            x.refused = Some(502);
            return;
        };
        let etag = x.response.headers.value(Known::Etag).map(|etag| x.text(etag).to_vec());
        let response = &mut x.response;
        response.status = 200;
        response.status_line = None;
        response.length = Some(all);
        response.headers.remove(Known::ContentRange);
        response.allow_ranges = true;
        response.body_offset = begin;
        let body = std::mem::take(&mut response.body);
        let next = begin.saturating_add(size);
        let state = State::Body(body);
        response.body = Body::Stream(Box::new(Sliced { state, next, size, all, etag }));
    }
}

/// A body whose parts are asked for one after another.
struct Sliced {
    state: State,
    /// Where the next part begins.
    next: u64,
    size: u64,
    all: u64,
    etag: Option<Vec<u8>>,
}

enum State {
    /// The part that the request itself asked for.
    Body(Body),
    /// A part whose head is not here yet.
    Asked(Part),
    Part(Part),
    /// A part is over.
    Between,
}

impl Sliced {
    /// Whether an answer is the part that was asked for. A fault is logged.
    fn fits(&self, child: &Exchange) -> bool {
        let begin = self.next - self.size;
        let status = child.response.status;
        if status != 206 {
            let what = "unexpected status code";
            child.log_error(Level::Error, format_args!("{what} {status} in slice response"));
            return false;
        }
        let etag = child.response.headers.value(Known::Etag).map(|etag| child.text(etag));
        if etag != self.etag.as_deref() {
            child.log_error(Level::Error, format_args!("etag mismatch in slice response"));
            return false;
        }
        check(child, begin, self.size).is_some_and(|all| all == self.all)
    }
}

impl Pull for Sliced {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            match &mut self.state {
                State::Body(body) => match ready!(body.poll_pull(cx, x))? {
                    Some(piece) => return Poll::Ready(Ok(Some(piece))),
                    None => self.state = State::Between,
                },
                State::Asked(part) => {
                    ready!(part.poll_head(cx, x))?;
                    let asked = std::mem::replace(&mut self.state, State::Between);
                    match asked {
                        State::Asked(part) if part.head().is_some_and(|head| self.fits(head)) => {
                            self.state = State::Part(part);
                        }
                        _ => return Poll::Ready(Err(Broken)),
                    }
                }
                State::Part(part) => match ready!(part.poll_pull(cx, x))? {
                    Some(piece) => return Poll::Ready(Ok(Some(piece))),
                    None => self.state = State::Between,
                },
                State::Between if self.next >= self.all => return Poll::Ready(Ok(None)),
                State::Between => {
                    let begin = self.next;
                    let part = Part::again(x, |child| child.state_or_default::<Begin>().0 = begin);
                    self.state = State::Asked(part.ok_or(Broken)?);
                    self.next = begin.saturating_add(self.size);
                }
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        match &mut self.state {
            State::Body(body) => body.poll_ahead(cx, x),
            State::Asked(part) | State::Part(part) => part.poll_ahead(cx, x),
            State::Between => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |text: &str, expected: Option<(u64, u64, Option<u64>)>| {
            let expected = expected.map(|(begin, end, all)| Place { begin, end, all });
            assert_eq!(place(text.as_bytes()), expected, "{text}");
        };
        check("bytes 0-9/100", Some((0, 10, Some(100))));
        check("bytes 5-5/6", Some((5, 6, Some(6))));
        check("bytes 0-9/*", Some((0, 10, None)));
        check("bytes 0-9/5", None);
        check("bytes 9-0/100", None);
        check("bytes */100", None);
        check("bytes 0-18446744073709551615/*", None);
        check("lines 0-9/100", None);
        check("", None);
    }
}
