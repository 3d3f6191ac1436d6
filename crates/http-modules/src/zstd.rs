//! Compressing answers with Zstandard (RFC 8878), under the names of nginx's well-known module
//! zstd-nginx-module; how an answer is treated and a body passes is in `compress`.

use std::cell::RefCell;

use config::read::Buffers;
use config::{AnyDirective, Args, Arity, Context, Directive, Scope, read};
use http::compile::Compiler;
use http::{Exchange, LocationBuilder, Module};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};
use session::text::Span;
use session::variables::Builtin;
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use crate::compress::{self, Coder, Offer, Order, Step, block_size};
use crate::gzip_static::{self, When};
use crate::type_list::{self, TypeList};

/// The feature; `gzip` has its place among the filters.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: &[
        Builtin::volatile(
            "zstd_ratio",
            ratio,
            "How many times smaller zstd made the answer, as `3.42`.",
        ),
        Builtin::volatile("zstd_bytes_in", bytes_in, "Bytes that zstd compressed."),
        Builtin::volatile("zstd_bytes_out", bytes_out, "Bytes that zstd made of them."),
    ],
    location: Some(attach),
    ..Module::new(
        "http_zstd",
        "Compresses answers for clients that accept zstd, or serves files that were compressed \
         beforehand. Of several codings a client gets the one that it weighs highest, and of those \
         that it weighs alike the first of zstd, br and gzip. `gzip_vary` tells caches of all.",
    )
};

const CODING: &str = "zstd";
const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&ZSTD, &ZSTD_STATIC, &ZSTD_TYPES, &ZSTD_COMP_LEVEL, &ZSTD_MIN_LENGTH, &ZSTD_BUFFERS];

static ZSTD: Directive<bool> =
    Directive::new("zstd", &[HTTP, SERVER, LOCATION, IF_LOCATION], read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("zstd on | off;")
        .text(
            "Whether answers with status 200, 403 or 404 are compressed for clients that accept \
             zstd. It is as with `gzip`, whose other conditions do not matter here.",
        )
        .example("zstd on;");

static ZSTD_STATIC: Directive<When> = Directive::new("zstd_static", PLACES, gzip_static::read_when)
    .default("off")
    .syntax("zstd_static on | off | always;")
    .text(
        "Whether a file with `.zst` behind its name is served in its place, when there is one: to \
         clients that accept zstd, or with `always` to all.",
    )
    .example("zstd_static on;");

static ZSTD_TYPES: Directive<Vec<String>> = Directive::new("zstd_types", PLACES, type_list::read)
    .takes(Arity::AtLeast(1))
    .many()
    .default("text/html")
    .syntax("zstd_types TYPE ...;")
    .text(
        "Answers of which media types are compressed, besides text/html, which always is. `*` \
         stands for any type.",
    )
    .example("zstd_types text/css text/javascript application/json image/svg+xml;");

static ZSTD_COMP_LEVEL: Directive<u64> =
    Directive::new("zstd_comp_level", PLACES, |args: &Args<'_>| read::number_between(args, 1, 22))
        .default("1")
        .syntax("zstd_comp_level LEVEL;")
        .text(
            "How much effort is made, from 1 to 22. Levels above 10 take much more time and \
             memory than they make answers smaller.",
        )
        .example("zstd_comp_level 5;");

static ZSTD_MIN_LENGTH: Directive<u64> = Directive::new("zstd_min_length", PLACES, read::size)
    .default("20")
    .syntax("zstd_min_length SIZE;")
    .text("Shorter answers are not compressed, where the length is known beforehand.")
    .example("zstd_min_length 1k;");

static ZSTD_BUFFERS: Directive<Buffers> = Directive::new("zstd_buffers", PLACES, read::buffers)
    .takes(Arity::Exactly(2))
    .default("16 8k")
    .syntax("zstd_buffers NUMBER SIZE;")
    .text(
        "Compressed output is made in blocks of SIZE. One block is made when the client has taken \
         what was made before, whatever NUMBER says.",
    )
    .moot("a client cannot tell in which blocks output was made")
    .example("zstd_buffers 16 8k;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    gzip_static::attach_coding(scope, builder, scope.get(&ZSTD_STATIC), CODING, ".zst");
}

/// What a level of the configuration offers.
pub(crate) fn offer(scope: &Scope<'_>) -> Option<Offer> {
    let types = TypeList::compile(scope.all(&ZSTD_TYPES));
    let least = scope.get(&ZSTD_MIN_LENGTH);
    let level = scope.get(&ZSTD_COMP_LEVEL) as i32;
    let block = block_size(scope.get(&ZSTD_BUFFERS).size);
    scope.get(&ZSTD).then(|| Offer {
        coding: CODING,
        types,
        least,
        block,
        conditions: None,
        make: Box::new(move |length| Box::new(Zstd { level, length, context: None })),
    })
}

/// `$zstd_ratio`
fn ratio(x: &mut Exchange) -> Option<Span> {
    compress::ratio(x, CODING)
}

/// `$zstd_bytes_in`
fn bytes_in(x: &mut Exchange) -> Option<Span> {
    let volume = compress::volume(x, CODING)?;
    Some(x.arena.number(volume.read))
}

/// `$zstd_bytes_out`
fn bytes_out(x: &mut Exchange) -> Option<Span> {
    let volume = compress::volume(x, CODING)?;
    Some(x.arena.number(volume.written))
}

/// Contexts that a worker keeps for the next answers: making one means clearing fresh pages.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<CCtx<'static>>> = const { RefCell::new(Vec::new()) };
}

/// Compresses one body; takes a context with its first bytes.
struct Zstd {
    level: i32,
    length: Option<u64>,
    context: Option<CCtx<'static>>,
}

impl Zstd {
    fn begin(&self) -> Result<CCtx<'static>, usize> {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        let mut context = match spare.map_or_else(CCtx::try_create, Some) {
            Some(context) => context,
            None => return Err(0),
        };
        context.reset(ResetDirective::SessionAndParameters)?;
        context.set_parameter(CParameter::CompressionLevel(self.level))?;
        context.set_pledged_src_size(self.length)?;
        Ok(context)
    }
}

impl Coder for Zstd {
    fn step(&mut self, input: &[u8], out: &mut [u8], order: Order) -> Result<Step, String> {
        let failed = |code| format!("ZSTD_compressStream2() failed: {}", get_error_name(code));
        let context = match &mut self.context {
            Some(context) => context,
            None => {
                let context = self.begin().map_err(failed)?;
                self.context.insert(context)
            }
        };
        let directive = match order {
            Order::More => ZSTD_EndDirective::ZSTD_e_continue,
            Order::Flush => ZSTD_EndDirective::ZSTD_e_flush,
            Order::Finish => ZSTD_EndDirective::ZSTD_e_end,
        };
        let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(out));
        let left = context.compress_stream2(&mut to, &mut from, directive).map_err(failed)?;
        let (read, written) = (from.pos(), to.pos());
        let complete = read == input.len() && (order == Order::More || left == 0);
        Ok(Step { read, written, complete })
    }
}

impl Drop for Zstd {
    fn drop(&mut self) {
        let Some(context) = self.context.take() else { return };
        // At the end of the thread there is nobody left to lend it to.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(context);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_whole() {
        let text: Vec<u8> = (0..300_000u32).map(|at| (at / 3 % 97) as u8).collect();
        for level in [1, 5, 12] {
            for (piece, length) in [(1000, None), (text.len(), Some(text.len() as u64))] {
                let mut coder = Zstd { level, length, context: None };
                let packed = compress::testing::packed(&mut coder, &text, piece);
                let mut unpacked = Vec::with_capacity(text.len());
                zstd_safe::decompress(&mut unpacked, &packed).unwrap();
                assert!(unpacked == text, "{level} {piece}");
            }
        }
    }
}
