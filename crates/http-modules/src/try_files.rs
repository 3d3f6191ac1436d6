//! `try_files`: the first file or folder of a list that exists answers, else what the last
//! argument says (nginx: ngx_http_try_files_module).

use config::{AnyDirective, Args, Arity, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::settings::Alias;
use http::{Exchange, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use rustix::io::Errno as Code;
use session::contexts::{LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Template;
use system::errno::Errno;
use system::opening::{self, Failure};

use crate::open_files;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_try_files",
        "Looks for files and folders in order and continues with the first that exists.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&TRY_FILES];

static TRY_FILES: Directive<TryLine> =
    Directive::new("try_files", &[SERVER, LOCATION], read_try_files)
        .takes(Arity::AtLeast(2))
        .syntax("try_files FILE ... URI;\ntry_files FILE ... =CODE;\ntry_files FILE ... @NAME;")
        .text(
            "Looks for each FILE below `root` or `alias`; a name that ends in a slash asks for a \
             folder. The first that exists becomes the path of the request, which is then \
             answered in this location. When there is none, the last argument says how to go on: \
             an internal redirect to URI, whose query follows a `?`, an answer with the status \
             CODE, or the location `@NAME`. It holds for its own block only: a location does not \
             inherit it. In a `server` it is for requests that no location claims.",
        )
        .example("location / { try_files $uri $uri/ /index.php?path=$uri; }");

/// What `try_files` says.
#[derive(Debug, PartialEq, Eq)]
struct TryLine {
    candidates: Vec<(config::Template, Kind)>,
    fallback: FallbackLine,
}

#[derive(Debug, PartialEq, Eq)]
enum FallbackLine {
    Code(u16),
    Place(config::Template),
}

/// What a name must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

fn read_try_files(args: &Args<'_>) -> Result<TryLine, Invalid> {
    let last = args.len() - 1;
    let mut candidates = Vec::with_capacity(last);
    for i in 0..last {
        let word = args.word(i).bytes();
        let (name, kind) = match word.strip_suffix(b"/") {
            Some(name) => (name, Kind::Folder),
            None => (word, Kind::File),
        };
        let name = config::Template::parse(name).map_err(|reason| Invalid::new(reason).at(i))?;
        candidates.push((name, kind));
    }
    let fallback = match args.word(last).bytes() {
        [b'=', digits @ ..] => {
            let code = read::parse_number(digits).and_then(|code| u16::try_from(code).ok());
            let invalid = || Invalid::new(format!("invalid code \"{}\"", args.str(last))).at(last);
            FallbackLine::Code(code.filter(|code| *code <= 999).ok_or_else(invalid)?)
        }
        _ => FallbackLine::Place(read::template_at(args, last)?),
    };
    Ok(TryLine { candidates, fallback })
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let Some(line) = scope.local(&TRY_FILES) else { return };
    let candidates = line.candidates.iter();
    let candidates =
        candidates.map(|(name, kind)| Candidate { name: c.template(name), kind: *kind });
    let candidates = candidates.collect();
    let fallback = match &line.fallback {
        FallbackLine::Code(code) => Fallback::Code(*code),
        FallbackLine::Place(place) => Fallback::Place(c.template(place)),
    };
    builder.guard(TryFiles { candidates, fallback });
}

struct TryFiles {
    candidates: Vec<Candidate>,
    fallback: Fallback,
}

struct Candidate {
    name: Template,
    kind: Kind,
}

enum Fallback {
    Code(u16),
    /// A path or `@name`.
    Place(Template),
}

impl Guard for TryFiles {
    fn stage(&self) -> Stage {
        Stage::Prepare
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(self.verdict(x))
    }
}

impl TryFiles {
    fn verdict(&self, x: &mut Exchange) -> Verdict {
        if http::files::is_astray(x) {
            return Verdict::Status(500);
        }
        let alias = x.location.settings.alias;
        let root = http::files::root(x);
        for candidate in &self.candidates {
            let mut name = candidate.name.value(x);
            if let Some(Alias::Prefix(length)) = alias
                && candidate.name.as_constant().is_none()
                && x.text(name).starts_with(x.text(x.request.uri.part(0, length)))
            {
                // `$uri` begins with the name of the location, which the alias replaces.
                name = name.after(length);
            }
            let mark = x.arena.mark();
            x.arena.copy(root);
            x.arena.copy(name);
            let path = x.arena.since(mark);
            if candidate.kind.is(x, path) {
                found(x, alias, name, candidate.kind);
                return Verdict::Next;
            }
        }
        match &self.fallback {
            Fallback::Code(code) => Verdict::Status(*code),
            Fallback::Place(place) => elsewhere(x, place),
        }
    }
}

/// Makes `name` the path of the request.
fn found(x: &mut Exchange, alias: Option<Alias>, name: Span, kind: Kind) {
    x.request.uri = match alias {
        None => name,
        Some(Alias::Prefix(length)) => {
            let before = x.request.uri.part(0, length);
            let mark = x.arena.mark();
            x.arena.copy(before);
            x.arena.copy(name);
            x.arena.since(mark)
        }
        Some(Alias::Whole) if kind == Kind::Folder => return,
        Some(Alias::Whole) => {
            x.file_below_alias = true;
            name
        }
    };
    x.request.plain_uri = false;
}

fn elsewhere(x: &mut Exchange, place: &Template) -> Verdict {
    let place = place.value(x);
    let text = x.text(place);
    if text.starts_with(b"@") {
        return Verdict::Named(String::from_utf8_lossy(text).into());
    }
    match memchr::memchr(b'?', text) {
        Some(at) => Verdict::Internal { uri: place.part(0, at), args: place.after(at + 1) },
        None => Verdict::Internal { uri: place, args: Span::EMPTY },
    }
}

impl Kind {
    fn is(self, x: &mut Exchange, path: Span) -> bool {
        match open_files::look(x, path) {
            Ok(about) => (about.kind == opening::Kind::Folder) == (self == Kind::Folder),
            Err(Failure { call, code }) => {
                // A path with a NUL inside names nothing: EINVAL.
                if !matches!(code, Code::NOENT | Code::NOTDIR | Code::NAMETOOLONG | Code::INVAL) {
                    let (shown, errno) = (Bytes(x.text(path)), Errno::from(code));
                    let message = format_args!("{call} \"{shown}\" failed ({errno})");
                    x.log_error(Level::Crit, message);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |arguments: &str, expected: Result<(&str, Option<u16>), &str>| {
            let found = TRY_FILES.read_text(arguments).map(|line| {
                let kinds: String = line
                    .candidates
                    .iter()
                    .map(|(_, kind)| if *kind == Kind::File { 'f' } else { 'd' })
                    .collect();
                let code = match line.fallback {
                    FallbackLine::Code(code) => Some(code),
                    FallbackLine::Place(_) => None,
                };
                (kinds, code)
            });
            let expected = expected.map(|(kinds, code)| (kinds.to_owned(), code));
            let found = found.map_err(|invalid| invalid.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{arguments}");
        };
        check("$uri $uri/ /a?b", Ok(("fd", None)));
        check("$uri =404", Ok(("f", Some(404))));
        check("/a/ /b/", Ok(("d", None)));
        check("a @b", Ok(("f", None)));
        check("a =", Err("invalid code \"=\""));
        check("a =1000", Err("invalid code \"=1000\""));
        check("a =4x", Err("invalid code \"=4x\""));
        check("$- b", Err("invalid variable name"));
        check("a", Err("invalid number of arguments in \"try_files\" directive"));
    }
}
