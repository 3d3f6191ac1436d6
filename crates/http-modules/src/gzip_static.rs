//! Files that were compressed beforehand (nginx: ngx_http_gzip_static_module).

use config::{AnyDirective, Args, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::{Content, Exchange, LocationBuilder, Module, Step, Verdict};
use rustix::io::Errno as Code;
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::{Bytes, Level};
use system::opening::{Failure, Kind};
use wire::http1::{Known, Method};

use crate::compress::weight;
use crate::gzip::{Conditions, tells_caches};
use crate::{open_files, static_files};

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_gzip_static",
        "Serves files that were compressed beforehand in place of the plain ones.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&GZIP_STATIC];

/// When the compressed file is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Never.
    Off,
    /// To clients that accept gzip.
    On,
    /// To all.
    Always,
}

/// `gzip_static`.
pub static GZIP_STATIC: Directive<When> =
    Directive::new("gzip_static", &[HTTP, SERVER, LOCATION], read_when)
        .default("off")
        .syntax("gzip_static on | off | always;")
        .text(
            "Whether a file with `.gz` behind its name is served in its place, when there is one: \
             to clients that accept gzip, on the conditions of `gzip_http_version`, \
             `gzip_proxied` and `gzip_disable`, or with `always` to all. `gunzip` can unpack it \
             for those who do not accept it. Both files should have the same time of change.",
        )
        .example("gzip_static on;");

pub(crate) fn read_when(args: &Args<'_>) -> Result<When, Invalid> {
    read::enumeration(args, &[("off", When::Off), ("on", When::On), ("always", When::Always)])
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let (coding, suffix, vary) = ("gzip", ".gz", tells_caches(scope));
    let accepted = match scope.get(&GZIP_STATIC) {
        When::Off => return,
        When::On => Accepted::If(Conditions::compile(scope)),
        When::Always => Accepted::Always,
    };
    builder.content(Packed { coding, suffix, accepted, vary });
}

/// Attaches what another coding's directive of the kind says.
pub(crate) fn attach_coding(
    scope: &Scope<'_>,
    builder: &mut LocationBuilder,
    when: When,
    coding: &'static str,
    suffix: &'static str,
) {
    let accepted = match when {
        When::Off => return,
        When::On => Accepted::ByName,
        When::Always => Accepted::Always,
    };
    builder.content(Packed { coding, suffix, accepted, vary: tells_caches(scope) });
}

/// Serves files that were compressed beforehand.
struct Packed {
    coding: &'static str,
    /// What stands behind the names of the files.
    suffix: &'static str,
    accepted: Accepted,
    vary: bool,
}

/// Who gets the compressed file.
enum Accepted {
    /// All.
    Always,
    /// Those who accept the coding.
    ByName,
    /// Those who accept it, on the conditions of `gzip`.
    If(Conditions),
}

impl Accepted {
    fn by(&self, x: &Exchange, coding: &str) -> bool {
        match self {
            Accepted::Always => true,
            Accepted::ByName => x.is_main() && weight(x, coding) > 0,
            Accepted::If(conditions) => conditions.allow(x),
        }
    }
}

impl Content for Packed {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(self.serve(x))
    }
}

impl Packed {
    fn serve(&self, x: &mut Exchange) -> Verdict {
        if !matches!(x.request.method, Method::Get | Method::Head)
            || x.text(x.request.uri).ends_with(b"/")
            || http::files::is_astray(x)
        {
            return Verdict::Next;
        }
        let allowed = self.accepted.by(x, self.coding);
        if !allowed && !self.vary {
            return Verdict::Next;
        }
        let plain = http::files::path(x);
        if static_files::leaves_alias(x) {
            return Verdict::Status(404);
        }
        let mark = x.arena.mark();
        x.arena.copy(plain);
        x.arena.push(self.suffix.as_bytes());
        let path = x.arena.since(mark);
        let opened = match open_files::open(x, path) {
            Ok(opened) => opened,
            Err(Failure {
                code: Code::NOENT | Code::NOTDIR | Code::NAMETOOLONG | Code::INVAL,
                ..
            }) => return Verdict::Next,
            Err(failure) => {
                // The plain file may still do: what went wrong is logged and not answered.
                let _ = static_files::failed(x, failure, path);
                return Verdict::Next;
            }
        };
        x.varies |= !matches!(self.accepted, Accepted::Always);
        match opened.about.kind {
            _ if !allowed => return Verdict::Next,
            Kind::File => {}
            Kind::Folder => return Verdict::Next,
            Kind::Other => {
                let shown = Bytes(x.text(path));
                x.log_error(Level::Crit, format_args!("\"{shown}\" is not a regular file"));
                return Verdict::Status(404);
            }
        }
        static_files::respond(x, opened);
        let coding = x.arena.push(self.coding.as_bytes());
        x.response.headers.push_known(Known::ContentEncoding, coding);
        Verdict::Answer
    }
}
