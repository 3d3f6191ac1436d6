//! Lists of what is in a folder (nginx: ngx_http_autoindex_module).
//!
//! This file has the directives and finds the folder; `folder` reads it, `write` puts the entries
//! into HTML, JSON and XML. The list is made when the first byte of the body is asked for, as in
//! nginx: a HEAD does not read the folder, and the charset of the answer is known by then.

mod folder;
mod write;

use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Broken, Content, Exchange, LocationBuilder, Module, Piece, Pull, Step, Verdict};
use net::Data;
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use std::task::{self, Poll};
use wire::http1::Method;

use crate::static_files::leaves_alias;
pub(crate) use folder::Folder;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];
/// How long the name of a callback may be.
const LONGEST_CALLBACK: usize = 128;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_autoindex",
        "Answers requests whose path ends in a slash with a list of what is in that folder, when \
         `index` finds no file there. Names that begin with a dot are left out; folders stand \
         first.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&AUTOINDEX, &AUTOINDEX_FORMAT, &AUTOINDEX_LOCALTIME, &AUTOINDEX_EXACT_SIZE];

/// `autoindex`.
pub static AUTOINDEX: Directive<bool> = Directive::new("autoindex", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("autoindex on | off;")
    .text("Whether folders are listed. Without it a folder without an index is answered with 403.")
    .example("autoindex on;");

/// `autoindex_format`.
pub static AUTOINDEX_FORMAT: Directive<Format> =
    Directive::new("autoindex_format", PLACES, |args| {
        read::enumeration(
            args,
            &[
                ("html", Format::Html),
                ("json", Format::Json),
                ("jsonp", Format::Jsonp),
                ("xml", Format::Xml),
            ],
        )
    })
    .default("html")
    .syntax("autoindex_format html | xml | json | jsonp;")
    .text(
        "What the list is written in. `json` is an array of objects with `name`, `type` \
         (`directory`, `file` or `other`), `mtime` and, for files, `size`; `xml` has the same as \
         elements. `jsonp` is `json` in a call of the function that the argument `callback` of \
         the request names: letters, digits, `_` and `.`, at most 128; without that argument it \
         is `json`.",
    )
    .example("autoindex_format json;");

/// `autoindex_localtime`.
pub static AUTOINDEX_LOCALTIME: Directive<bool> =
    Directive::new("autoindex_localtime", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("autoindex_localtime on | off;")
        .text("Whether times in HTML are those of the server's time zone, or else UTC.")
        .example("autoindex_localtime on;");

/// `autoindex_exact_size`.
pub static AUTOINDEX_EXACT_SIZE: Directive<bool> =
    Directive::new("autoindex_exact_size", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("on")
        .syntax("autoindex_exact_size on | off;")
        .text("Whether sizes in HTML are exact, or rounded to K, M and G.")
        .example("autoindex_exact_size off;");

/// What a list is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A page for people.
    Html,
    /// An array of objects.
    Json,
    /// The same in a call.
    Jsonp,
    /// The same as elements.
    Xml,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let autoindex = Autoindex {
        format: scope.get(&AUTOINDEX_FORMAT),
        local_time: scope.get(&AUTOINDEX_LOCALTIME),
        exact_size: scope.get(&AUTOINDEX_EXACT_SIZE),
    };
    if scope.get(&AUTOINDEX) {
        builder.content(autoindex);
    }
}

#[derive(Clone, Copy)]
struct Autoindex {
    format: Format,
    local_time: bool,
    exact_size: bool,
}

impl Content for Autoindex {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(self.verdict(x))
    }
}

impl Autoindex {
    fn verdict(&self, x: &mut Exchange) -> Verdict {
        if !x.text(x.request.uri).ends_with(b"/")
            || !matches!(x.request.method, Method::Get | Method::Head)
        {
            return Verdict::Next;
        }
        if http::files::is_astray(x) {
            return Verdict::Status(500);
        }
        if leaves_alias(x) {
            return Verdict::Status(404);
        }
        let path = http::files::path(x);
        let mut options = *self;
        let mut callback = None;
        if self.format == Format::Jsonp {
            match callback_of(x) {
                Ok(Some(name)) => callback = Some(name),
                Ok(None) => options.format = Format::Json,
                Err(()) => return Verdict::Status(400),
            }
        }
        let folder = match Folder::open(x, path) {
            Ok(folder) => folder,
            Err(status) => return Verdict::Status(status),
        };
        let media_type: &[u8] = match options.format {
            Format::Html => b"text/html",
            Format::Json => b"application/json",
            Format::Jsonp => b"application/javascript",
            Format::Xml => b"text/xml",
        };
        x.response.status = 200;
        x.response.content_type = Some(x.arena.push(media_type));
        if options.format == Format::Xml {
            x.response.charset = Some(x.arena.push(b"utf-8"));
        }
        let list = List { folder: Some(folder), options, callback };
        x.response.body = Body::Stream(Box::new(list));
        Verdict::Answer
    }
}

/// The argument `callback`, unless it is absent or empty; an error, with a line in the log, when
/// it could be anything but the name of a function.
fn callback_of(x: &mut Exchange) -> Result<Option<Span>, ()> {
    let args = x.request.args;
    let Some((from, to)) = http::variables::argument(x.text(args), b"callback") else {
        return Ok(None);
    };
    let span = args.part(from, to);
    let name = x.text(span);
    let is_named = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let fault = match name.len() {
        0 => return Ok(None),
        length if length > LONGEST_CALLBACK => "too long",
        _ if !name.iter().all(is_named) => "invalid",
        _ => return Ok(Some(span)),
    };
    let shown = Bytes(name);
    x.log_error(Level::Info, format_args!("client sent {fault} callback name: \"{shown}\""));
    Err(())
}

/// A list that is made when it is asked for.
struct List {
    folder: Option<Folder>,
    options: Autoindex,
    callback: Option<Span>,
}

impl Pull for List {
    fn poll_pull(
        &mut self,
        _: &mut task::Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        let Some(folder) = self.folder.take() else { return Poll::Ready(Ok(None)) };
        let Ok(mut entries) = folder.entries(x) else { return Poll::Ready(Err(Broken)) };
        folder::sort(&mut entries);
        let mut out = Vec::new();
        match self.options.format {
            Format::Xml => write::xml(&entries, &mut out),
            Format::Json | Format::Jsonp => {
                let callback = self.callback.map(|name| x.text(name));
                write::json(&entries, callback, &mut out);
            }
            Format::Html => {
                let charset = x.response.charset.map(|charset| x.text(charset));
                let page = write::Page {
                    uri: x.text(x.request.uri),
                    utf8: charset.is_some_and(|name| name.eq_ignore_ascii_case(b"utf-8")),
                    ahead_s: if self.options.local_time { ahead_of_utc_s() } else { 0 },
                    exact_size: self.options.exact_size,
                };
                write::html(&entries, &page, &mut out);
            }
        }
        Poll::Ready(Ok(Some(Piece::new(Data::from(out)))))
    }
}

/// How far local time is ahead of UTC now, in seconds; nginx takes today's for all entries.
fn ahead_of_utc_s() -> i64 {
    let now = i64::try_from(net::wall().0).unwrap_or(0);
    i64::from(system::clock::local(now).offset_minutes) * 60
}
