//! Compressing answers (nginx: ngx_http_gzip_filter_module).
//!
//! This file decides and changes the answer's head; `accept` knows which clients get compressed
//! answers, `body` compresses while the body passes.

mod accept;
mod body;
mod directives;

use self::directives as d;
use body::{Gzipped, Volume};
use config::Scope;
use http::compile::Compiler;
use http::{Body, Exchange, Filter, LocationBuilder, Module};
use session::text::Span;
use session::variables::Builtin;
use wire::http1::Known;

use crate::output;
use crate::sub_filter::weaken_etag;
use crate::type_list::TypeList;
pub(crate) use accept::Conditions;

/// The feature.
pub static MODULE: Module = Module {
    directives: d::DIRECTIVES,
    variables: &[Builtin::volatile(
        "gzip_ratio",
        ratio,
        "How many times smaller compression made the answer, as `3.42`.",
    )],
    location: Some(attach),
    ..Module::new("http_gzip", "Compresses answers for clients that accept gzip.")
};

/// Set when the answer at hand would be another one with another Accept-Encoding.
#[derive(Default)]
pub(crate) struct Varies;

struct Gzip {
    on: bool,
    types: TypeList,
    conditions: Conditions,
    least: u64,
    level: i32,
    block: usize,
    /// Bytes of a file that are read at a time.
    read: usize,
    vary: bool,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let types = TypeList::compile(scope.all(&d::GZIP_TYPES));
    let conditions = Conditions::compile(scope);
    let block = usize::try_from(scope.get(&d::GZIP_BUFFERS).size).unwrap_or(usize::MAX);
    let level = compressor_level(scope.get(&d::GZIP_COMP_LEVEL));
    let least = scope.get(&d::GZIP_MIN_LENGTH);
    let vary = scope.get(&d::GZIP_VARY);
    let read = output::block_size(scope);
    let on = scope.get(&d::GZIP);
    if on || vary {
        // A block must hold gzip's frame; a larger one would only hold up what is ready.
        let block = block.clamp(64, 1 << 20);
        builder.filter(Gzip { on, types, conditions, least, level, block, read, vary });
    }
}

/// Whether a level of the configuration tells caches that answers vary.
pub(crate) fn tells_caches(scope: &Scope<'_>) -> bool {
    scope.get(&d::GZIP_VARY)
}

/// The compressor's level for a level of the configuration. Its first is made for speed alone and
/// leaves a fifth more than zlib's first, which administrators know.
fn compressor_level(level: u64) -> i32 {
    i32::try_from(level).unwrap_or(9).clamp(2, 9)
}

impl Gzip {
    /// True when the answer is one that is compressed for those who accept it.
    fn concerns(&self, x: &Exchange) -> bool {
        let response = &x.response;
        self.on
            && matches!(response.status, 200 | 403 | 404)
            && !matches!(response.body, Body::Tunnel(_))
            && response.headers.value(Known::ContentEncoding).is_none_or(Span::is_empty)
            && response.length.is_none_or(|length| length >= self.least)
            && self.types.has(x)
    }
}

impl Filter for Gzip {
    fn apply(&self, x: &mut Exchange) {
        let concerned = self.concerns(x);
        if self.vary && (concerned || x.peek_state::<Varies>().is_some()) {
            let value = x.arena.push(b"Accept-Encoding");
            x.response.headers.push_known(Known::Vary, value);
        }
        if !concerned || !self.conditions.allow(x) {
            return;
        }
        let coding = x.arena.push(b"gzip");
        let response = &mut x.response;
        response.headers.set_known(Known::ContentEncoding, coding);
        response.length = None;
        response.allow_ranges = false;
        response.headers.remove(Known::AcceptRanges);
        weaken_etag(x);
        let body = std::mem::take(&mut x.response.body);
        let body = Body::Stream(Box::new(output::Reader::new(body, self.read)));
        x.response.body = Body::Stream(Box::new(Gzipped::new(body, self.level, self.block)));
    }
}

/// `$gzip_ratio`: none while nothing was compressed.
fn ratio(x: &mut Exchange) -> Option<Span> {
    let Volume { read, written } = *x.peek_state::<Volume>()?;
    let hundredths = rounded_ratio(read, written)?;
    let mark = x.arena.mark();
    x.arena.number(hundredths / 100);
    let rest = (hundredths % 100) as u8;
    x.arena.push(&[b'.', b'0' + rest / 10, b'0' + rest % 10]);
    Some(x.arena.since(mark))
}

/// `read / written` in hundredths, rounded.
fn rounded_ratio(read: u64, written: u64) -> Option<u64> {
    let thousandths = read.checked_mul(1000)?.checked_div(written)?;
    Some((thousandths + 5) / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios() {
        let check = |read, written, expected| {
            assert_eq!(rounded_ratio(read, written), expected, "{read}/{written}");
        };
        check(100, 50, Some(200));
        check(1, 3, Some(33));
        check(2, 3, Some(67));
        check(1999, 1000, Some(200));
        check(0, 20, Some(0));
        check(5, 0, None);
        check(u64::MAX, 1, None);
    }
}
