//! Changing files: PUT, DELETE, MKCOL, COPY and MOVE (RFC 4918; nginx: ngx_http_dav_module).
//!
//! This file has the directives and the rules of each method; `dav/destination.rs` reads where
//! COPY and MOVE lead, `dav/files.rs` does what is to be done to files and folders.

mod destination;
mod files;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::request_body::{BodyError, Stored};
use http::{Content, Exchange, LocationBuilder, Module, Step, Verdict};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use system::errno::Errno;
use wire::http1::{Known, Method, date, escape};

use crate::static_files::leaves_alias;
use files::Failed;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_dav", "Lets clients store, delete, copy and move files, and make folders.")
};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&DAV_METHODS, &DAV_ACCESS, &CREATE_FULL_PUT_PATH, &MIN_DELETE_DEPTH];

const METHODS: &[(&str, u32)] =
    &[("off", 0), ("put", 1), ("delete", 2), ("mkcol", 4), ("copy", 8), ("move", 16)];

static DAV_METHODS: Directive<u32> =
    Directive::new("dav_methods", PLACES, |args: &Args<'_>| read::bitmask(args, METHODS))
        .takes(Arity::AtLeast(1))
        .default("off")
        .syntax("dav_methods off | METHOD ...;")
        .text(
            "Which methods change files: `PUT` stores the request's body as a file, which it \
             replaces in one step; `DELETE` removes a file, or a folder with all that is in it; \
             `MKCOL` makes a folder; `COPY` and `MOVE` take the field Destination. The names of \
             folders end in a slash. Combine it with access rules: whoever may come here may \
             change what the worker's user may.",
        )
        .example("location /files/ { dav_methods PUT DELETE; allow 10.0.0.0/8; deny all; }");

static DAV_ACCESS: Directive<u32> = Directive::new("dav_access", PLACES, read_access)
    .takes(Arity::Between(1, 3))
    .default("user:rw")
    .syntax("dav_access USERS:PERMISSIONS ...;")
    .text(
        "Permissions of new files: USERS is `user`, `group` or `all`, PERMISSIONS is `r` or `rw`. \
         Folders can also be searched by those who may read. The worker's user gets `rw` unless it \
         is said otherwise.",
    )
    .example("dav_access group:rw all:r;");

fn read_access(args: &Args<'_>) -> Result<u32, Invalid> {
    let (mut mode, mut user) = (0, 0o600);
    for (i, word) in args.words().iter().enumerate() {
        let text = word.str();
        let invalid = || Invalid::new(format!("invalid value \"{text}\"")).at(i);
        let (who, what) = text.split_once(':').ok_or_else(invalid)?;
        let bits = match what {
            "r" => 0o4,
            "rw" => 0o6,
            _ => return Err(invalid()),
        };
        let shift = match who {
            "user" => 6,
            "group" => 3,
            "all" => 0,
            _ => return Err(invalid()),
        };
        if shift == 6 {
            user = 0;
        }
        mode |= bits << shift;
    }
    Ok(mode | user)
}

static CREATE_FULL_PUT_PATH: Directive<bool> =
    Directive::new("create_full_put_path", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("create_full_put_path on | off;")
        .text("Whether PUT makes the folders that are missing on the way.")
        .example("create_full_put_path on;");

static MIN_DELETE_DEPTH: Directive<u64> = Directive::new("min_delete_depth", PLACES, read::number)
    .default("0")
    .syntax("min_delete_depth N;")
    .text("DELETE needs a path of at least N parts: with 4, `/users/00/00/name` can be deleted.")
    .example("min_delete_depth 4;");

struct Dav {
    methods: u32,
    /// Permissions of files.
    mode: u32,
    makes_path: bool,
    least_depth: u64,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let methods = scope.get(&DAV_METHODS);
    let mode = scope.get(&DAV_ACCESS);
    let makes_path = scope.get(&CREATE_FULL_PUT_PATH);
    let least_depth = scope.get(&MIN_DELETE_DEPTH);
    if methods != 0 {
        builder.content(Dav { methods, mode, makes_path, least_depth });
    }
}

impl Content for Dav {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        let bit = match x.request.method {
            Method::Put => 1,
            Method::Delete => 2,
            Method::Mkcol => 4,
            Method::Copy => 8,
            Method::Move => 16,
            _ => 0,
        };
        if self.methods & bit == 0 {
            return Step::Now(Verdict::Next);
        }
        if http::files::is_astray(x) {
            return Step::Now(Verdict::Status(500));
        }
        if leaves_alias(x) {
            return Step::Now(Verdict::Status(404));
        }
        if bit == 1 {
            return Step::Later(Box::pin(self.put(x)));
        }
        if x.body.declared().is_some_and(|length| length > 0) || x.body.is_chunked() {
            let what = match x.request.method {
                Method::Delete => "DELETE with body is",
                Method::Mkcol => "MKCOL with body is",
                _ => "COPY and MOVE with body are",
            };
            x.log_error(Level::Error, format_args!("{what} unsupported"));
            return Step::Now(Verdict::Status(415));
        }
        Step::Now(match x.request.method {
            Method::Delete => self.delete(x),
            Method::Mkcol => self.make_folder(x),
            _ => destination::copy_or_move(x, self.folder_mode()).unwrap_or_else(Verdict::Status),
        })
    }
}

impl Dav {
    /// Whoever may read a folder may search it.
    fn folder_mode(&self) -> u32 {
        self.mode | (self.mode & 0o444) >> 2
    }

    async fn put(&self, x: &mut Exchange) -> Verdict {
        if is_folder(x) {
            x.log_error(Level::Error, format_args!("cannot PUT to a collection"));
            return Verdict::Status(409);
        }
        if x.request.headers.named(&x.arena, b"Content-Range").is_some() {
            x.log_error(Level::Error, format_args!("PUT with range is unsupported"));
            return Verdict::Status(501);
        }
        match x.read_body().await {
            Ok(()) => {}
            Err(BodyError::Closed) => return Verdict::Status(499),
            Err(error) => return Verdict::Status(error.status()),
        }
        self.store(x).unwrap_or_else(Verdict::Status)
    }

    /// Gives the body the name that the request asks for.
    fn store(&self, x: &mut Exchange) -> Result<Verdict, u16> {
        let span = http::files::path(x);
        let path = files::path(x.text(span));
        let status = match std::fs::metadata(&path) {
            Err(_) => 201,
            Ok(about) if about.is_dir() => {
                let (shown, errno) = (Bytes(x.text(span)), Errno(21 /* EISDIR */));
                x.log_error(
                    Level::Error,
                    format_args!("\"{shown}\" could not be created ({errno})"),
                );
                return Err(409);
            }
            Ok(_) => 204,
        };
        let stored = stored(x).map_err(|failed| failed.crit(x))?;
        let changed = x.request.headers.value(Known::Date);
        let changed = changed.and_then(|text| date::parse(x.text(text)));
        let named = self.name(&stored, &path, changed);
        if named.is_err() {
            let _ = std::fs::remove_file(&stored);
        }
        named.map_err(|failed| failed.crit(x))?;
        if status == 201 {
            place(x);
        }
        Ok(Verdict::Status(status))
    }

    fn name(&self, temp: &Path, path: &Path, changed: Option<i64>) -> Result<(), Failed> {
        let permissions = Permissions::from_mode(self.mode);
        std::fs::set_permissions(temp, permissions).map_err(Failed::of("chmod()", temp))?;
        if let Some(changed) = changed.and_then(|changed| u64::try_from(changed).ok()) {
            let time = UNIX_EPOCH + Duration::from_secs(changed);
            files::set_changed(temp, time).map_err(Failed::of("futimes()", temp))?;
        }
        let folders = self.makes_path.then_some(self.folder_mode());
        files::rename(temp, path, folders)
    }

    fn delete(&self, x: &mut Exchange) -> Verdict {
        let depth = depth_of(x.text(x.request.uri));
        if depth < self.least_depth {
            x.log_error(Level::Error, format_args!("insufficient URI depth:{depth} to DELETE"));
            return Verdict::Status(409);
        }
        let span = http::files::path(x);
        let path = files::path(x.text(span));
        let about = match std::fs::symlink_metadata(&path) {
            Ok(about) => about,
            Err(error) => {
                let is_below_file = error.raw_os_error() == Some(20 /* ENOTDIR */);
                let status = if is_below_file { 409 } else { 404 };
                return Verdict::Status(Failed::of("lstat()", &path)(error).status(x, status));
            }
        };
        if about.is_dir() && !is_folder(x) {
            let (shown, errno) = (Bytes(x.text(span)), Errno(21 /* EISDIR */));
            x.log_error(Level::Error, format_args!("DELETE \"{shown}\" failed ({errno})"));
            return Verdict::Status(409);
        }
        let depth = Depth::of(x);
        let (fits, wanted) = match about.is_dir() {
            true => (matches!(depth, Depth::Infinity | Depth::None), "infinity"),
            false => (!matches!(depth, Depth::One | Depth::Invalid), "0 or infinity"),
        };
        if !fits {
            x.log_error(Level::Error, format_args!("\"Depth\" header must be {wanted}"));
            return Verdict::Status(400);
        }
        match files::remove(x, &path, about.is_dir()) {
            Ok(()) => Verdict::Status(204),
            Err(failed) => Verdict::Status(failed.status(x, 404)),
        }
    }

    fn make_folder(&self, x: &mut Exchange) -> Verdict {
        if !is_folder(x) {
            x.log_error(Level::Error, format_args!("MKCOL can create a collection only"));
            return Verdict::Status(409);
        }
        let span = http::files::path(x);
        let path = files::path(x.text(span));
        let made = std::fs::DirBuilder::new().mode(self.folder_mode()).create(&path);
        match made.map_err(Failed::of("mkdir()", &path)) {
            Ok(()) => {
                place(x);
                Verdict::Status(201)
            }
            Err(failed) => Verdict::Status(failed.status(x, 409)),
        }
    }
}

/// The body of the request as a file that nobody else has.
fn stored(x: &mut Exchange) -> Result<PathBuf, Failed> {
    let folder = x.location.settings.body_temp.clone();
    match &x.body.stored {
        // The file may be shared with a copy of the request: it gets a second name.
        Some(Stored::File(file)) => {
            let beside = file.path.with_extension("put");
            std::fs::hard_link(&file.path, &beside).map_err(Failed::of("link()", &beside))?;
            Ok(beside)
        }
        stored => {
            let temp = folder.file().map_err(Failed::of("open()", folder.path()))?;
            if let Some(Stored::Memory(bytes)) = stored {
                let written = io::Write::write_all(&mut &temp.file, bytes);
                if written.is_err() {
                    let _ = std::fs::remove_file(&temp.path);
                }
                written.map_err(Failed::of("write()", &temp.path))?;
            }
            Ok(temp.path)
        }
    }
}

/// Names what was made in the field Location.
fn place(x: &mut Exchange) {
    let mut escaped = Vec::new();
    escape::escape_uri(x.text(x.request.uri), escape::Escape::Uri, &mut escaped);
    let place: Span = x.arena.push(&escaped);
    x.response.location = Some(place);
}

/// True for a path that names a folder.
fn is_folder(x: &Exchange) -> bool {
    x.text(x.request.uri).ends_with(b"/")
}

/// How many parts a path has: slashes with something behind them.
fn depth_of(path: &[u8]) -> u64 {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.filter(|(at, _)| at + 1 < path.len()).count() as u64
}

/// The field Depth (RFC 4918 section 10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    None,
    Zero,
    One,
    Infinity,
    Invalid,
}

impl Depth {
    /// What the request says; something else is logged.
    fn of(x: &Exchange) -> Depth {
        let Some(value) = x.request.headers.value(Known::Depth) else { return Depth::None };
        match x.text(value) {
            b"0" => Depth::Zero,
            b"1" => Depth::One,
            b"infinity" => Depth::Infinity,
            other => {
                let shown = Bytes(other);
                let message = format_args!("client sent invalid \"Depth\" header: \"{shown}\"");
                x.log_error(Level::Error, message);
                Depth::Invalid
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions() {
        let check = |arguments: &str, expected: Result<u32, &str>| {
            let found = DAV_ACCESS.read_text(arguments).map_err(|invalid| invalid.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{arguments}");
        };
        check("user:rw", Ok(0o600));
        check("user:r", Ok(0o400));
        check("group:rw all:r", Ok(0o664));
        check("user:rw group:r all:r", Ok(0o644));
        check("user", Err("invalid value \"user\""));
        check("user:w", Err("invalid value \"user:w\""));
        check("nobody:r", Err("invalid value \"nobody:r\""));
    }

    #[test]
    fn depths() {
        let check = |path: &str, expected: u64| {
            assert_eq!(depth_of(path.as_bytes()), expected, "{path}");
        };
        check("/", 0);
        check("/a", 1);
        check("/a/", 1);
        check("/a/b", 2);
        check("/a/b/c/", 3);
    }
}
