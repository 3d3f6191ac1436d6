//! A picture of one transparent pixel (nginx: ngx_http_empty_gif_module).

use config::{AnyDirective, Arity, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Content, Exchange, LocationBuilder, Module, Step, Verdict};
use net::Data;
use session::contexts::LOCATION;
use wire::http1::Method;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_empty_gif", "Answers with a picture of one transparent pixel.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&EMPTY_GIF];

/// `empty_gif`.
pub static EMPTY_GIF: Directive<()> = Directive::new("empty_gif", &[LOCATION], read::nothing)
    .takes(Arity::None)
    .syntax("empty_gif;")
    .text(
        "Every GET and HEAD of the location is answered with a transparent GIF of one pixel, 43 \
         bytes from memory: for pages that count visits by a picture. Other methods get 405.",
    )
    .example("empty_gif;");

/// The time of the last change that nginx tells: 1970-09-28, when its author was born.
const CHANGED: u64 = 23_349_600;

/// The smallest transparent GIF there is (GIF89a, sections 17 to 27): header; a screen of one by
/// one with a table of two colours, black and white; an extension that makes colour 1
/// transparent; an image of one by one with the codes clear, 1, end; trailer.
static PIXEL: &[u8; 43] = b"GIF89a\
    \x01\x00\x01\x00\x80\x01\x00\x00\x00\x00\xff\xff\xff\
    \x21\xf9\x04\x01\x00\x00\x01\x00\
    \x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x4c\x01\x00\
    \x3b";

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    if scope.has_local(&EMPTY_GIF) {
        builder.handler(EmptyGif);
    }
}

struct EmptyGif;

impl Content for EmptyGif {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if !matches!(x.request.method, Method::Get | Method::Head) {
            return Step::Now(Verdict::Status(405));
        }
        x.response.content_type = Some(x.arena.push(b"image/gif"));
        let response = &mut x.response;
        response.status = 200;
        response.length = Some(PIXEL.len() as u64);
        response.last_modified = Some(CHANGED);
        response.body = Body::Whole(Data::Static(PIXEL));
        Step::Now(Verdict::Answer)
    }
}
