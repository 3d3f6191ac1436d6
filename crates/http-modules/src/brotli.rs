//! Compressing answers with brotli (RFC 7932), under the names of nginx's well-known module
//! ngx_brotli; how an answer is treated and a body passes is in `compress`.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct,
};
use config::read::Buffers;
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::{Exchange, LocationBuilder, Module};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};
use session::text::Span;
use session::variables::Builtin;

use crate::compress::{self, Coder, Offer, Order, Step, block_size};
use crate::gzip_static::{self, When};
use crate::type_list::{self, TypeList};

/// The feature; `gzip` has its place among the filters.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: &[Builtin::volatile(
        "brotli_ratio",
        ratio,
        "How many times smaller brotli made the answer, as `3.42`.",
    )],
    location: Some(attach),
    ..Module::new(
        "http_brotli",
        "Compresses answers for clients that accept br, or serves files that were compressed \
         beforehand. Of several codings a client gets the one that it weighs highest, and of those \
         that it weighs alike the first of zstd, br and gzip. `gzip_vary` tells caches of all.",
    )
};

const CODING: &str = "br";
const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &BROTLI,
    &BROTLI_STATIC,
    &BROTLI_TYPES,
    &BROTLI_COMP_LEVEL,
    &BROTLI_MIN_LENGTH,
    &BROTLI_WINDOW,
    &BROTLI_BUFFERS,
];

static BROTLI: Directive<bool> =
    Directive::new("brotli", &[HTTP, SERVER, LOCATION, IF_LOCATION], read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("brotli on | off;")
        .text(
            "Whether answers with status 200, 403 or 404 are compressed for clients that accept \
             br. It is as with `gzip`, whose other conditions do not matter here.",
        )
        .example("brotli on;");

static BROTLI_STATIC: Directive<When> =
    Directive::new("brotli_static", PLACES, gzip_static::read_when)
        .default("off")
        .syntax("brotli_static on | off | always;")
        .text(
            "Whether a file with `.br` behind its name is served in its place, when there is one: \
             to clients that accept br, or with `always` to all.",
        )
        .example("brotli_static on;");

static BROTLI_TYPES: Directive<Vec<String>> =
    Directive::new("brotli_types", PLACES, type_list::read)
        .takes(Arity::AtLeast(1))
        .many()
        .default("text/html")
        .syntax("brotli_types TYPE ...;")
        .text(
            "Answers of which media types are compressed, besides text/html, which always is. `*` \
             stands for any type.",
        )
        .example("brotli_types text/css text/javascript application/json image/svg+xml;");

static BROTLI_COMP_LEVEL: Directive<u64> =
    Directive::new("brotli_comp_level", PLACES, |args: &Args<'_>| {
        read::number_between(args, 0, 11)
    })
    .default("6")
    .syntax("brotli_comp_level LEVEL;")
    .text(
        "How much effort is made, from 0 to 11. Levels above 5 take much more time than they make \
         answers smaller; those above 9 are for files that are compressed once.",
    )
    .example("brotli_comp_level 4;");

static BROTLI_MIN_LENGTH: Directive<u64> = Directive::new("brotli_min_length", PLACES, read::size)
    .default("20")
    .syntax("brotli_min_length SIZE;")
    .text("Shorter answers are not compressed, where the length is known beforehand.")
    .example("brotli_min_length 1k;");

/// `brotli_window`, as the number of its bits.
static BROTLI_WINDOW: Directive<u32> = Directive::new("brotli_window", PLACES, read_window)
    .default("512k")
    .syntax("brotli_window SIZE;")
    .text(
        "How far back a repetition may lie: a power of two from 1k to 16m. A compressor and a \
         browser need this much memory.",
    )
    .example("brotli_window 128k;");

fn read_window(args: &Args<'_>) -> Result<u32, Invalid> {
    let size = read::size(args)?;
    match (10..=24).find(|bits| 1 << bits == size) {
        Some(bits) => Ok(bits),
        None => Err(Invalid::new("must be 1k, 2k, 4k, ... 8m or 16m").at(0)),
    }
}

static BROTLI_BUFFERS: Directive<Buffers> = Directive::new("brotli_buffers", PLACES, read::buffers)
    .takes(Arity::Exactly(2))
    .default("16 8k")
    .syntax("brotli_buffers NUMBER SIZE;")
    .text(
        "Compressed output is made in blocks of SIZE. One block is made when the client has \
             taken what was made before, whatever NUMBER says.",
    )
    .moot("a client cannot tell in which blocks output was made")
    .example("brotli_buffers 16 8k;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    gzip_static::attach_coding(scope, builder, scope.get(&BROTLI_STATIC), CODING, ".br");
}

/// What a level of the configuration offers.
pub(crate) fn offer(scope: &Scope<'_>) -> Option<Offer> {
    let types = TypeList::compile(scope.all(&BROTLI_TYPES));
    let least = scope.get(&BROTLI_MIN_LENGTH);
    let level = scope.get(&BROTLI_COMP_LEVEL) as u32;
    let window = scope.get(&BROTLI_WINDOW);
    let block = block_size(scope.get(&BROTLI_BUFFERS).size);
    scope.get(&BROTLI).then(|| Offer {
        coding: CODING,
        types,
        least,
        block,
        conditions: None,
        make: Box::new(move |length| Box::new(Brotli::new(level, window, length))),
    })
}

/// `$brotli_ratio`
fn ratio(x: &mut Exchange) -> Option<Span> {
    compress::ratio(x, CODING)
}

/// Compresses one body.
struct Brotli {
    encoder: Box<BrotliEncoderStateStruct<StandardAlloc>>,
}

impl Brotli {
    /// `window` is a number of bits; a short body needs fewer.
    fn new(level: u32, mut window: u32, length: Option<u64>) -> Brotli {
        let mut encoder = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
        if let Some(length) = length {
            while window > 10 && length < 1 << (window - 1) {
                window -= 1;
            }
            let hint = u32::try_from(length).unwrap_or(u32::MAX);
            encoder.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, hint);
        }
        encoder.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, level);
        encoder.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, window);
        Brotli { encoder }
    }
}

impl Coder for Brotli {
    fn step(&mut self, input: &[u8], out: &mut [u8], order: Order) -> Result<Step, String> {
        let operation = match order {
            Order::More => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
            Order::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
            Order::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
        };
        let (mut left, mut read) = (input.len(), 0);
        let (mut room, mut written) = (out.len(), 0);
        let done = self.encoder.compress_stream(
            operation,
            &mut left,
            input,
            &mut read,
            &mut room,
            out,
            &mut written,
            &mut None,
            &mut |_, _, _, _| (),
        );
        if !done {
            return Err("BrotliEncoderCompressStream() failed".to_owned());
        }
        let complete = match order {
            Order::Finish => self.encoder.is_finished(),
            _ => left == 0 && !self.encoder.has_more_output(),
        };
        Ok(Step { read, written, complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_powers_of_two() {
        assert_eq!(BROTLI_WINDOW.read_text("1k").unwrap(), 10);
        assert_eq!(BROTLI_WINDOW.read_text("512k").unwrap(), 19);
        assert_eq!(BROTLI_WINDOW.read_text("16m").unwrap(), 24);
        for text in ["512", "3k", "32m", "x"] {
            assert!(BROTLI_WINDOW.read_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bodies_come_back_whole() {
        let text: Vec<u8> = (0..300_000u32).map(|at| (at / 3 % 97) as u8).collect();
        for level in [0, 1, 5, 9] {
            for piece in [1000, text.len()] {
                let mut coder = Brotli::new(level, 16, None);
                let packed = compress::testing::packed(&mut coder, &text, piece);
                let mut unpacked = Vec::new();
                brotli::BrotliDecompress(&mut &packed[..], &mut unpacked).unwrap();
                assert!(unpacked == text, "{level} {piece}");
            }
        }
    }
}
