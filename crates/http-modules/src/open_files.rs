//! How files are opened for all that serve or look for them: `disable_symlinks`, and the cache of
//! `open_file_cache` (nginx: ngx_http_core_module; the cache itself is `session::open_files`).

use std::collections::HashMap;
use std::rc::Rc;

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, Span as Place, read};
use http::compile::Compiler;
use http::files::{LinkRules, way};
use http::{Exchange, LocationBuilder, Module};
use rustix::fs::Advice;
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::open_files::{Limits, OpenFiles, Opened, Policy, open_uncached, read_limits};
use session::text::Span;
use system::errno::Errno;
use system::opening::{self, About, Failure, Kind, Links, Purpose};

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_open_files",
        "How files are opened: through which symbolic links, and whether they stay open for the \
         next request.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &DISABLE_SYMLINKS,
    &OPEN_FILE_CACHE,
    &OPEN_FILE_CACHE_VALID,
    &OPEN_FILE_CACHE_MIN_USES,
    &OPEN_FILE_CACHE_ERRORS,
    &OPEN_FILE_CACHE_EVENTS,
    &READ_AHEAD,
];

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

static DISABLE_SYMLINKS: Directive<LinksLine> =
    Directive::new("disable_symlinks", PLACES, read_links)
        .takes(Arity::Between(1, 2))
        .default("off")
        .syntax("disable_symlinks off;\ndisable_symlinks on | if_not_owner [from=PART];")
        .text(
            "Which symbolic links files may be reached through: any (`off`), none (`on`), or those \
             whose owner also owns what they lead to (`if_not_owner`). All parts of a path count, \
             unless it begins with PART, which may hold variables: then only what is behind it. \
             A file behind a forbidden link is answered with 403. Costs a call for each folder of \
             a path.",
        )
        .example("disable_symlinks if_not_owner from=$document_root;");

static OPEN_FILE_CACHE: Directive<Option<Limits>> =
    Directive::new("open_file_cache", PLACES, |args| {
        read_limits(args, "open_file_cache", 60, |_| false)
    })
    .takes(Arity::Between(1, 2))
    .default("off")
    .syntax("open_file_cache off;\nopen_file_cache max=N [inactive=TIME];")
    .text(
        "Keeps up to N files open, and knows which folders there are, so that the next request \
         for them asks the kernel for nothing. When there is no room, the entry that was not used \
         for longest goes; one that was not used for TIME (60 seconds) goes too. Each worker has \
         its own.",
    )
    .example("open_file_cache max=1000 inactive=20s;");

static OPEN_FILE_CACHE_VALID: Directive<u64> =
    Directive::new("open_file_cache_valid", PLACES, read::time_s)
        .default("60s")
        .syntax("open_file_cache_valid TIME;")
        .text("How long an entry of `open_file_cache` is believed before its path is looked at.")
        .example("open_file_cache_valid 30s;");

static OPEN_FILE_CACHE_MIN_USES: Directive<u64> =
    Directive::new("open_file_cache_min_uses", PLACES, read::number)
        .default("1")
        .syntax("open_file_cache_min_uses N;")
        .text("How often a file must be used, while it is in the cache, for it to stay open.")
        .example("open_file_cache_min_uses 2;");

static OPEN_FILE_CACHE_ERRORS: Directive<bool> =
    Directive::new("open_file_cache_errors", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("open_file_cache_errors on | off;")
        .text("Whether `open_file_cache` also remembers that files are missing or forbidden.")
        .example("open_file_cache_errors on;");

static OPEN_FILE_CACHE_EVENTS: Directive<bool> =
    Directive::new("open_file_cache_events", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("open_file_cache_events on | off;")
        .text("Whether the kernel is asked to tell about changes of open files.")
        .moot("only the kernels of BSD do, and nginx asks no other")
        .example("open_file_cache_events on;");

static READ_AHEAD: Directive<u64> = Directive::new("read_ahead", PLACES, read::size)
    .default("0")
    .syntax("read_ahead SIZE;")
    .text(
        "Tells the kernel that files of more than 128 KiB are read from beginning to end, when \
         SIZE is not 0. How far it reads ahead is up to the kernel.",
    )
    .moot("it changes nothing but when the kernel reads")
    .example("read_ahead 1m;");

/// Smaller files are read ahead whole in any case.
const READ_AHEAD_FROM: u64 = 128 << 10;

/// What `disable_symlinks` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LinksLine {
    links: Links,
    from: Option<config::Template>,
}

fn read_links(args: &Args<'_>) -> Result<LinksLine, Invalid> {
    let (mut links, mut from) = (None, None);
    for (i, word) in args.words().iter().enumerate() {
        match word.bytes() {
            b"off" => links = Some(Links::Any),
            b"on" => links = Some(Links::None),
            b"if_not_owner" => links = Some(Links::SameOwner),
            text => match text.strip_prefix(b"from=") {
                Some(part) => {
                    let part = config::Template::parse(part);
                    from = Some(part.map_err(|reason| Invalid::new(reason).at(i))?);
                }
                None => {
                    let reason = format!("invalid parameter \"{}\"", word.str());
                    return Err(Invalid::new(reason).at(i));
                }
            },
        }
    }
    let Some(links) = links else {
        let reason = "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter";
        return Err(Invalid::new(reason));
    };
    if args.len() == 2 && from.is_none() {
        let (one, other) = (args.str(0), args.str(1));
        return Err(Invalid::new(format!("duplicate parameters \"{one} {other}\"")));
    }
    if from.is_some() && links == Links::Any {
        return Err(Invalid::new("\"from=\" cannot be used with \"off\" parameter"));
    }
    Ok(LinksLine { links, from })
}

/// What differs from opening files plainly, besides links; locations without have none.
struct Rules {
    cache: Option<(Rc<OpenFiles>, Policy)>,
    read_ahead: bool,
}

/// The caches of a configuration by the place of their line: levels that inherit it share it.
#[derive(Default)]
struct Caches(HashMap<Option<Place>, Rc<OpenFiles>>);

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let LinksLine { links, from } = scope.get(&DISABLE_SYMLINKS);
    if links != Links::Any {
        let from = from.map(|from| c.template(&from));
        builder.keep(LinkRules { links, from });
    }
    let (limits, place) = scope.get_spanned(&OPEN_FILE_CACHE);
    let policy = Policy {
        valid_ms: scope.get(&OPEN_FILE_CACHE_VALID).saturating_mul(1000),
        min_uses: scope.get(&OPEN_FILE_CACHE_MIN_USES),
        errors: scope.get(&OPEN_FILE_CACHE_ERRORS),
        purpose: Purpose::Read,
    };
    scope.find(&OPEN_FILE_CACHE_EVENTS);
    let cache = limits.map(|limits| {
        let caches = &mut c.state::<Caches>().0;
        let cache = caches.entry(place).or_insert_with(|| Rc::new(OpenFiles::new(limits)));
        (cache.clone(), policy)
    });
    let read_ahead = scope.get(&READ_AHEAD) > 0;
    if cache.is_some() || read_ahead {
        builder.keep(Rules { cache, read_ahead });
    }
}

/// Opens the file or folder at `path` as the location's configuration says.
///
/// # Errors
/// Why not; `ELOOP` stands for a forbidden link at the end of the path.
pub(crate) fn open(x: &mut Exchange, path: Span) -> Result<Opened, Failure> {
    let way = way(x, path);
    let text = x.text(path);
    let Some(rules) = x.location.kept::<Rules>() else {
        return open_uncached(text, way, Purpose::Read);
    };
    let opened = match &rules.cache {
        Some((cache, policy)) => cache.open(text, way, *policy),
        None => open_uncached(text, way, Purpose::Read),
    }?;
    if rules.read_ahead {
        advise(x, path, &opened);
    }
    Ok(opened)
}

/// Finds out what is at `path`, without opening it where neither links nor a cache matter.
///
/// # Errors
/// As [`open`].
pub(crate) fn look(x: &mut Exchange, path: Span) -> Result<About, Failure> {
    let way = way(x, path);
    match x.location.kept::<Rules>() {
        Some(Rules { cache: Some((cache, policy)), .. }) => {
            cache.open(x.text(path), way, *policy).map(|opened| opened.about)
        }
        _ => opening::look(x.text(path), way),
    }
}

/// Tells the kernel how a large file will be read.
fn advise(x: &Exchange, path: Span, opened: &Opened) {
    let Some(file) = &opened.file else { return };
    if opened.about.kind != Kind::File || opened.about.size <= READ_AHEAD_FROM {
        return;
    }
    if let Err(code) = rustix::fs::fadvise(file, 0, None, Advice::Sequential) {
        let (shown, errno) = (Bytes(x.text(path)), Errno::from(code));
        let message =
            format_args!("posix_fadvise(POSIX_FADV_SEQUENTIAL) \"{shown}\" failed ({errno})");
        x.log_error(Level::Alert, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |arguments: &str, expected: Result<(Links, bool), &str>| {
            let found = DISABLE_SYMLINKS.read_text(arguments);
            let found = found.map(|line| (line.links, line.from.is_some()));
            let expected = expected.map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        check("off", Ok((Links::Any, false)));
        check("on", Ok((Links::None, false)));
        check("if_not_owner from=/a$b", Ok((Links::SameOwner, true)));
        check("from=/ on", Ok((Links::None, true)));
        check("on off", Err("duplicate parameters \"on off\""));
        check("off from=/", Err("\"from=\" cannot be used with \"off\" parameter"));
        check(
            "from=/",
            Err("\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter"),
        );
        check("yes", Err("invalid parameter \"yes\""));
        check("on from=$", Err("invalid variable name"));
    }
}
