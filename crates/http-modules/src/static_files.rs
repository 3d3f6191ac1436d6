//! Files below `root` or `alias` (nginx: ngx_http_static_module): the content of every location
//! that no other content claims.
//!
//! The body is the open file; `output` turns it into memory where `sendfile` is off. What the
//! conditions of a request make of the answer is in `not_modified` and `range`.

use config::Scope;
use http::compile::Compiler;
use http::settings::Alias;
use http::{Body, Content, Exchange, LocationBuilder, Module, Step, Verdict};
use net::{Data, FileRange};
use rustix::io::Errno as Code;
use session::log::{Bytes, Level};
use session::open_files::Opened;
use session::text::Span;
use system::errno::Errno;
use system::opening::{Failure, Kind};
use wire::http1::{Known, Method, escape};

use crate::{media_type, open_files};

/// The feature.
pub static MODULE: Module = Module {
    location: Some(attach),
    ..Module::new(
        "http_static",
        "Serves files: the path of a request, put behind `root` or made of `alias`, names the \
         file. A path that ends in a slash is left to `index`; a folder without the slash is \
         redirected to the same path with it.",
    )
};

fn attach(_: &mut Compiler<'_>, _: &Scope<'_>, builder: &mut LocationBuilder) {
    builder.content(StaticFiles);
}

struct StaticFiles;

impl Content for StaticFiles {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(answer(x))
    }
}

fn answer(x: &mut Exchange) -> Verdict {
    if !matches!(x.request.method, Method::Get | Method::Head | Method::Post) {
        return Verdict::Status(405);
    }
    if x.text(x.request.uri).ends_with(b"/") {
        return Verdict::Next;
    }
    if http::files::is_astray(x) {
        return Verdict::Status(500);
    }
    let path = http::files::path(x);
    if leaves_alias(x) {
        return Verdict::Status(404);
    }
    let opened = match open_files::open(x, path) {
        Ok(opened) => opened,
        Err(failure) => return Verdict::Status(failed(x, failure, path)),
    };
    match opened.about.kind {
        Kind::File => {}
        Kind::Folder => return redirect(x),
        Kind::Other => {
            let shown = Bytes(x.text(path));
            x.log_error(Level::Crit, format_args!("\"{shown}\" is not a regular file"));
            return Verdict::Status(404);
        }
    }
    if x.request.method == Method::Post {
        return Verdict::Status(405);
    }
    respond(x, opened);
    Verdict::Answer
}

/// True, with a line in the error log, for a path that would climb out of an alias: `/i../a` where
/// `location /i` has an `alias` that ends in a slash. nginx lets such requests pass.
pub(crate) fn leaves_alias(x: &Exchange) -> bool {
    let location = &x.location;
    let Some(Alias::Prefix(length)) = location.settings.alias else { return false };
    let rest = x.text(x.request.uri).get(length..).unwrap_or(b"");
    let climbs = rest == b".." || rest.starts_with(b"../");
    if climbs {
        let (name, shown) = (Bytes(&location.name), Bytes(x.text(x.request.uri)));
        let message = format_args!("\"{shown}\" leaves the alias of location \"{name}\"");
        x.log_error(Level::Error, message);
    }
    climbs
}

/// Logs why a file cannot be read; the status that answers it.
pub(crate) fn failed(x: &Exchange, Failure { call, code }: Failure, path: Span) -> u16 {
    let (level, status) = match code {
        // A path with a NUL inside names nothing: EINVAL.
        Code::NOENT | Code::NOTDIR | Code::NAMETOOLONG | Code::INVAL => (Level::Error, 404),
        Code::ACCESS | Code::MLINK | Code::LOOP => (Level::Error, 403),
        _ => (Level::Crit, 500),
    };
    if status != 404 || x.location.settings.log_not_found {
        let (shown, errno) = (Bytes(x.text(path)), Errno::from(code));
        x.log_error(level, format_args!("{call} \"{shown}\" failed ({errno})"));
    }
    status
}

/// `/folder?a` becomes `/folder/?a` by way of the client.
fn redirect(x: &mut Exchange) -> Verdict {
    let (uri, args) = (x.request.uri, x.request.args);
    let mark = x.arena.mark();
    match escape::count_escapes(x.text(uri), escape::Escape::Uri) {
        0 => {
            x.arena.copy(uri);
        }
        _ => {
            let mut escaped = Vec::new();
            escape::escape_uri(x.text(uri), escape::Escape::Uri, &mut escaped);
            x.arena.push(&escaped);
        }
    }
    x.arena.push(b"/");
    if !args.is_empty() {
        x.arena.push(b"?");
        x.arena.copy(args);
    }
    x.response.location = Some(x.arena.since(mark));
    Verdict::Status(301)
}

/// Answers with the whole of a file.
pub(crate) fn respond(x: &mut Exchange, Opened { file, about }: Opened) {
    let (length, changed) = (about.size, about.changed);
    if x.location.settings.etag {
        let tag = entity_tag(x, changed, length);
        x.response.headers.push_known(Known::Etag, tag);
    }
    x.response.content_type = media_type::of(x);
    let response = &mut x.response;
    response.status = 200;
    response.length = Some(length);
    response.last_modified = Some(changed);
    response.allow_ranges = true;
    response.body = match file {
        Some(file) if length > 0 => Body::Whole(Data::File(FileRange { file, offset: 0, length })),
        _ => Body::Empty,
    };
}

/// `"TIME-LENGTH"` in hexadecimal, as nginx makes it, so that clients' caches survive a change
/// of server.
fn entity_tag(x: &mut Exchange, changed: u64, length: u64) -> Span {
    let mark = x.arena.mark();
    let out = x.arena.bytes_mut();
    out.push(b'"');
    push_hexadecimal(out, changed);
    out.push(b'-');
    push_hexadecimal(out, length);
    out.push(b'"');
    x.arena.since(mark)
}

fn push_hexadecimal(out: &mut Vec<u8>, value: u64) {
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * digit)) as usize & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        for value in [0, 1, 9, 10, 15, 16, 255, 256, 0x6553_f1a0, u64::MAX] {
            let mut out = Vec::new();
            push_hexadecimal(&mut out, value);
            assert_eq!(out, format!("{value:x}").into_bytes());
        }
    }
}
