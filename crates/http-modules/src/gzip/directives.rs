//! The directives about compression.

use super::accept::proxied;
use config::read::Buffers;
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, read};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};
use wire::http1::Version;

use crate::type_list;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

pub(super) static DIRECTIVES: &[&dyn AnyDirective] = &[
    &GZIP,
    &GZIP_TYPES,
    &GZIP_MIN_LENGTH,
    &GZIP_COMP_LEVEL,
    &GZIP_HTTP_VERSION,
    &GZIP_PROXIED,
    &GZIP_VARY,
    &GZIP_DISABLE,
    &GZIP_BUFFERS,
];

pub(super) static GZIP: Directive<bool> =
    Directive::new("gzip", &[HTTP, SERVER, LOCATION, IF_LOCATION], read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("gzip on | off;")
        .text(
            "Whether answers with status 200, 403 or 404 are compressed for clients that accept \
             gzip. A compressed answer is sent without Content-Length and with a weak ETag, and \
             cannot be asked for in parts. Answers that are compressed already stay as they are.",
        )
        .example("gzip on;");

pub(super) static GZIP_TYPES: Directive<Vec<String>> =
    Directive::new("gzip_types", PLACES, type_list::read)
        .takes(Arity::AtLeast(1))
        .many()
        .default("text/html")
        .syntax("gzip_types TYPE ...;")
        .text(
            "Answers of which media types are compressed, besides text/html, which always is. \
             `*` stands for any type; images, videos and archives gain nothing.",
        )
        .example("gzip_types text/css text/javascript application/json image/svg+xml;");

pub(super) static GZIP_MIN_LENGTH: Directive<u64> =
    Directive::new("gzip_min_length", PLACES, read::size)
        .default("20")
        .syntax("gzip_min_length SIZE;")
        .text(
            "Shorter answers are not compressed. Only answers whose length is known beforehand \
             can be too short.",
        )
        .example("gzip_min_length 1k;");

pub(super) static GZIP_COMP_LEVEL: Directive<u64> =
    Directive::new("gzip_comp_level", PLACES, |args: &Args<'_>| read::number_between(args, 1, 9))
        .default("1")
        .syntax("gzip_comp_level LEVEL;")
        .text(
            "How much effort is made, from 1 to 9: higher levels make answers smaller and take \
             more time. Levels 1 and 2 are the same here, and not larger than nginx's 1.",
        )
        .example("gzip_comp_level 5;");

pub(super) static GZIP_HTTP_VERSION: Directive<Version> =
    Directive::new("gzip_http_version", PLACES, read_version)
        .default("1.1")
        .syntax("gzip_http_version 1.0 | 1.1;")
        .text("Clients with an older HTTP version get no compressed answers.")
        .example("gzip_http_version 1.0;");

fn read_version(args: &Args<'_>) -> Result<Version, Invalid> {
    read::enumeration(args, &[("1.0", Version::HTTP_10), ("1.1", Version::HTTP_11)])
}

pub(super) static GZIP_PROXIED: Directive<u32> =
    Directive::new("gzip_proxied", PLACES, |args: &Args<'_>| read::bitmask(args, proxied::NAMES))
        .takes(Arity::AtLeast(1))
        .default("off")
        .syntax(
            "gzip_proxied off | expired | no-cache | no-store | private | no_last_modified | \
             no_etag | auth | any ...;",
        )
        .text(
            "Which answers are compressed for requests that came through a proxy, which is known \
             by the field Via: those that the proxy does not keep for others. `expired`, \
             `no-cache`, `no-store` and `private`: what Expires or Cache-Control of the answer \
             says; `no_last_modified` and `no_etag`: the answer lacks that field; `auth`: the \
             request has Authorization; `any`: all; `off`: none.",
        )
        .example("gzip_proxied expired no-cache no-store private auth;");

pub(super) static GZIP_VARY: Directive<bool> = Directive::new("gzip_vary", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("gzip_vary on | off;")
    .text(
        "Whether answers that some clients get compressed say so with \
             `Vary: Accept-Encoding`, for caches on the way.",
    )
    .example("gzip_vary on;");

pub(super) static GZIP_DISABLE: Directive<Vec<String>> =
    Directive::new("gzip_disable", PLACES, read::texts)
        .takes(Arity::AtLeast(1))
        .many()
        .syntax("gzip_disable PATTERN ...;")
        .text(
            "Clients whose User-Agent matches one of the regular expressions, in any case of the \
             letters, get no compressed answers. `msie6` stands for Internet Explorer 4 to 6.",
        )
        .example("gzip_disable msie6;");

pub(super) static GZIP_BUFFERS: Directive<Buffers> =
    Directive::new("gzip_buffers", PLACES, read::buffers)
        .takes(Arity::Exactly(2))
        .default("16 8k")
        .syntax("gzip_buffers NUMBER SIZE;")
        .text(
            "Compressed output is made in blocks of SIZE. One block is made when the client has \
             taken what was made before, whatever NUMBER says.",
        )
        .example("gzip_buffers 16 8k;");
