//! `index`: which file answers for a folder (nginx: ngx_http_index_module).

use config::{AnyDirective, Args, Arity, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::{Content, Exchange, LocationBuilder, Module, Step, Verdict};
use rustix::io::Errno as Code;
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Template;
use system::errno::Errno;
use system::opening::{Failure, Kind};
use wire::http1::Method;

use crate::open_files;
use crate::static_files::leaves_alias;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_index",
        "Answers requests whose path ends in a slash with one of the files of that folder.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&INDEX];

/// `index`: the names in order.
pub static INDEX: Directive<Vec<config::Template>> =
    Directive::new("index", &[HTTP, SERVER, LOCATION], read_index)
        .takes(Arity::AtLeast(1))
        .many()
        .default("index.html")
        .syntax("index FILE ...;")
        .text(
            "Files that stand for a folder: the first one that exists answers, by an internal \
             redirect to the path of the request with the name behind it, so that another \
             location may serve it. Names may hold variables. The last one may be a path that \
             begins with a slash: the redirect leads there when none of the others exists.",
        )
        .example("index index.$lang.html index.html /missing;");

fn read_index(args: &Args<'_>) -> Result<Vec<config::Template>, Invalid> {
    let last = args.len() - 1;
    (0..args.len())
        .map(|i| {
            let word = args.word(i).bytes();
            if word.is_empty() {
                return Err(Invalid::new("index \"\" in \"index\" directive is invalid").at(i));
            }
            if word.starts_with(b"/") && i != last {
                args.warn(
                    Invalid::new("only the last index in \"index\" directive should be absolute")
                        .at(i),
                );
            }
            read::template_at(args, i)
        })
        .collect()
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let mut names: Vec<config::Template> = scope.all(&INDEX).into_iter().flatten().collect();
    if names.is_empty() {
        names = INDEX.default_value().unwrap_or_default();
    }
    let names = names.iter().map(|name| c.template(name)).collect();
    builder.content(Index { names });
}

struct Index {
    names: Vec<Template>,
}

impl Content for Index {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(self.verdict(x))
    }
}

impl Index {
    fn verdict(&self, x: &mut Exchange) -> Verdict {
        if !x.text(x.request.uri).ends_with(b"/")
            || !matches!(x.request.method, Method::Get | Method::Head | Method::Post)
        {
            return Verdict::Next;
        }
        let mut folder: Option<Span> = None;
        let mut is_folder_tested = false;
        for name in &self.names {
            let name = name.value(x);
            let args = x.request.args;
            if x.text(name).starts_with(b"/") {
                return Verdict::Internal { uri: name, args };
            }
            if folder.is_none() && http::files::is_astray(x) {
                return Verdict::Status(500);
            }
            if folder.is_none() && leaves_alias(x) {
                return Verdict::Status(404);
            }
            let folder = *folder.get_or_insert_with(|| http::files::path(x));
            let path = joined(x, folder, name);
            match open_files::look(x, path) {
                Ok(_) => {
                    let uri = joined(x, x.request.uri, name);
                    return Verdict::Internal { uri, args };
                }
                Err(Failure { code: Code::LOOP | Code::MLINK, .. }) => {
                    return Verdict::Status(403);
                }
                Err(Failure { code, .. })
                    if matches!(code, Code::NOTDIR | Code::NAMETOOLONG | Code::ACCESS) =>
                {
                    return Verdict::Status(missing(x, path, code));
                }
                Err(Failure { call, code }) => {
                    if !is_folder_tested && let Err(status) = test_folder(x, folder, path) {
                        return Verdict::Status(status);
                    }
                    is_folder_tested = true;
                    if code != Code::NOENT {
                        let (shown, errno) = (Bytes(x.text(path)), Errno::from(code));
                        let message = format_args!("{call} \"{shown}\" failed ({errno})");
                        x.log_error(Level::Crit, message);
                        return Verdict::Status(500);
                    }
                }
            }
        }
        Verdict::Next
    }
}

fn joined(x: &mut Exchange, one: Span, other: Span) -> Span {
    let mark = x.arena.mark();
    x.arena.copy(one);
    x.arena.copy(other);
    x.arena.since(mark)
}

/// Finds out, once no first file was found, whether the folder itself is there: a request for one
/// that is not is answered with 404, not 403.
fn test_folder(x: &mut Exchange, folder: Span, file: Span) -> Result<(), u16> {
    let length = match x.text(folder) {
        [_, .., b'/'] => folder.len as usize - 1,
        text => text.len(),
    };
    let bare = folder.part(0, length);
    match open_files::look(x, bare) {
        Ok(about) if about.kind == Kind::Folder => Ok(()),
        Ok(_) => {
            let shown = Bytes(x.text(bare));
            x.log_error(Level::Alert, format_args!("\"{shown}\" is not a directory"));
            Err(500)
        }
        Err(Failure { code: Code::LOOP | Code::MLINK, .. }) => Err(403),
        Err(Failure { code: Code::NOENT, .. }) => Err(missing(x, file, Code::NOENT)),
        // The search for the file went further than this: it may be searched but not looked at.
        Err(Failure { code: Code::ACCESS, .. }) => Ok(()),
        Err(Failure { call, code }) => {
            let (shown, errno) = (Bytes(x.text(bare)), Errno::from(code));
            x.log_error(Level::Crit, format_args!("{call} \"{shown}\" failed ({errno})"));
            Err(500)
        }
    }
}

/// Logs that a file is out of reach; the status that answers it.
fn missing(x: &Exchange, path: Span, code: Code) -> u16 {
    let (shown, errno) = (Bytes(x.text(path)), Errno::from(code));
    if code == Code::ACCESS {
        x.log_error(Level::Error, format_args!("\"{shown}\" is forbidden ({errno})"));
        return 403;
    }
    if x.location.settings.log_not_found {
        x.log_error(Level::Error, format_args!("\"{shown}\" is not found ({errno})"));
    }
    404
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |arguments: &str, expected: Result<usize, &str>| {
            let found = INDEX.read_text(arguments).map(|names| names.len());
            let expected = expected.map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        check("a", Ok(1));
        check("a $b /c", Ok(3));
        check("/c a", Ok(2));
        check("a \"\"", Err("index \"\" in \"index\" directive is invalid"));
        check("a $-", Err("invalid variable name"));
    }
}
