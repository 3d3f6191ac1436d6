//! Compressing answers with gzip (nginx: ngx_http_gzip_filter_module).
//!
//! `accept` knows which clients get compressed answers, `coder` compresses; how an answer is
//! treated and a body passes is in `compress`.

mod accept;
mod coder;
mod directives;

use self::directives as d;
use config::Scope;
use http::{Exchange, Module};
use session::text::Span;
use session::variables::Builtin;

use crate::compress::{self, Offer, block_size};
use crate::type_list::TypeList;
pub(crate) use accept::Conditions;

/// The feature, and the place in the list where `brotli` and `zstd` compress too.
pub static MODULE: Module = Module {
    directives: d::DIRECTIVES,
    variables: &[Builtin::volatile(
        "gzip_ratio",
        ratio,
        "How many times smaller gzip made the answer, as `3.42`.",
    )],
    location: Some(compress::attach),
    ..Module::new("http_gzip", "Compresses answers for clients that accept gzip.")
};

const CODING: &str = "gzip";

/// What a level of the configuration offers.
pub(crate) fn offer(scope: &Scope<'_>) -> Option<Offer> {
    let types = TypeList::compile(scope.all(&d::GZIP_TYPES));
    let conditions = Some(Conditions::compile(scope));
    let block = block_size(scope.get(&d::GZIP_BUFFERS).size);
    let level = compressor_level(scope.get(&d::GZIP_COMP_LEVEL));
    let least = scope.get(&d::GZIP_MIN_LENGTH);
    scope.get(&d::GZIP).then(|| Offer {
        coding: CODING,
        types,
        least,
        block,
        conditions,
        make: Box::new(move |_| Box::new(coder::Gzip::new(level))),
    })
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

/// `$gzip_ratio`
fn ratio(x: &mut Exchange) -> Option<Span> {
    compress::ratio(x, CODING)
}
