//! Unpacking answers for clients that do not accept gzip (nginx: ngx_http_gunzip_filter_module).
//!
//! This file decides and changes the answer's head; `body` unpacks while the body passes.

mod body;

use body::Unpacked;
use config::read::Buffers;
use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Exchange, Filter, LocationBuilder, Module};
use session::contexts::{HTTP, LOCATION, SERVER};
use wire::http1::Known;

use crate::gzip::Conditions;
use crate::output;
use crate::sub_filter::weaken_etag;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_gunzip",
        "Unpacks compressed answers of backends and files for clients that do not accept gzip.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&GUNZIP, &GUNZIP_BUFFERS];

/// `gunzip`.
pub static GUNZIP: Directive<bool> = Directive::new("gunzip", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("gunzip on | off;")
    .text(
        "Whether answers with `Content-Encoding: gzip` are unpacked for clients that do not accept \
         gzip, or that `gzip_http_version`, `gzip_proxied` and `gzip_disable` exclude. An unpacked \
         answer is sent without Content-Length and with a weak ETag.",
    )
    .example("gunzip on;");

/// `gunzip_buffers`.
pub static GUNZIP_BUFFERS: Directive<Buffers> =
    Directive::new("gunzip_buffers", PLACES, read::buffers)
        .takes(Arity::Exactly(2))
        .default("16 8k")
        .syntax("gunzip_buffers NUMBER SIZE;")
        .text(
            "Unpacked output is made in blocks of SIZE. One block is made when the client has \
             taken what was made before, whatever NUMBER says.",
        )
        .example("gunzip_buffers 16 8k;");

struct Gunzip {
    conditions: Conditions,
    block: usize,
    /// Bytes of a file that are read at a time.
    read: usize,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let block = usize::try_from(scope.get(&GUNZIP_BUFFERS).size).unwrap_or(usize::MAX);
    let block = block.clamp(64, 1 << 20);
    let read = output::block_size(scope);
    if scope.get(&GUNZIP) {
        builder.filter(Gunzip { conditions: Conditions::compile(scope), block, read });
    }
}

impl Filter for Gunzip {
    fn apply(&self, x: &mut Exchange) {
        let coding = x.response.headers.value(Known::ContentEncoding);
        if matches!(x.response.body, Body::Tunnel(_))
            || !coding.is_some_and(|coding| x.text(coding).eq_ignore_ascii_case(b"gzip"))
        {
            return;
        }
        x.varies = true;
        if self.conditions.allow(x) {
            return;
        }
        let response = &mut x.response;
        response.headers.remove(Known::ContentEncoding);
        response.headers.remove(Known::AcceptRanges);
        response.length = None;
        response.allow_ranges = false;
        weaken_etag(x);
        x.response.body = match std::mem::take(&mut x.response.body) {
            Body::Empty => Body::Empty,
            body => {
                let body = Body::Stream(Box::new(output::Reader::new(body, self.read)));
                Body::Stream(Box::new(Unpacked::new(body, self.block)))
            }
        };
    }
}
