//! `valid_referers`: whether a request was led here by a page that may (nginx:
//! ngx_http_referer_module). The field is easily forged: this keeps out browsers, not attackers.

use std::rc::Rc;

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::directives::SERVER_NAME;
use http::{Compiler, Exchange, LocationBuilder, Module};
use session::contexts::{LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::names::{Names, Reading, Refused};
use session::regex::{Case, Regex};
use session::text::Span;
use session::variables::Builtin;
use wire::http1::Known;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: &[Builtin::kept(
        "invalid_referer",
        invalid_referer,
        "Empty when `valid_referers` has the request's `Referer`, else `1`.",
    )],
    location: Some(attach),
    ..Module::new("http_referer", "Tells requests that come from pages of one's own.")
};

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&VALID_REFERERS, &REFERER_HASH_MAX_SIZE, &REFERER_HASH_BUCKET_SIZE];

const PLACES: &[Context] = &[SERVER, LOCATION];

/// `valid_referers`.
pub static VALID_REFERERS: Directive<Vec<Referer>> =
    Directive::new("valid_referers", PLACES, read_referers)
        .takes(Arity::AtLeast(1))
        .many()
        .syntax("valid_referers none | blocked | server_names | NAME ...;")
        .text(
            "Which `Referer` fields leave `$invalid_referer` empty. `none`: there is no field. \
             `blocked`: it has no `http://` or `https://`, as when a firewall removed its value. \
             `server_names`: it names one of the server's names. A NAME is a host, which may \
             begin with `*.` or `.` or end with `.*`, perhaps with the beginning of a path behind \
             it. With `~` in front it is a regular expression, which ignores case and is looked \
             for in what follows `http://`. Several lines of one level add up; a level without \
             has those of the level around it.",
        )
        .example("valid_referers none blocked server_names *.example.com www.example.org/app/;");

/// `referer_hash_max_size`.
pub static REFERER_HASH_MAX_SIZE: Directive<u64> =
    Directive::new("referer_hash_max_size", PLACES, read::number)
        .default("2048")
        .syntax("referer_hash_max_size NUMBER;")
        .text("Accepted for compatibility. Tables take the room that they need.")
        .example("referer_hash_max_size 4096;")
        .moot("tables grow with their rows");

/// `referer_hash_bucket_size`.
pub static REFERER_HASH_BUCKET_SIZE: Directive<u64> =
    Directive::new("referer_hash_bucket_size", PLACES, read::number)
        .default("64")
        .syntax("referer_hash_bucket_size NUMBER;")
        .text("Accepted for compatibility. Names may be as long as they like.")
        .example("referer_hash_bucket_size 128;")
        .moot("tables grow with their rows");

/// One word of `valid_referers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Referer {
    /// No field at all.
    Absent,
    /// A field without a scheme.
    Blocked,
    /// The names of the server.
    ServerNames,
    /// A pattern for what follows the scheme.
    Pattern(String),
    /// A host, and the beginning of its paths, if that matters.
    Name(String, Option<String>),
}

fn read_referers(args: &Args<'_>) -> Result<Vec<Referer>, Invalid> {
    (0..args.len()).map(|i| read_referer(args, i)).collect()
}

fn read_referer(args: &Args<'_>, i: usize) -> Result<Referer, Invalid> {
    let word = args.str(i);
    Ok(match &*word {
        "" => return Err(Invalid::new("invalid referer \"\"").at(i)),
        "none" => Referer::Absent,
        "blocked" => Referer::Blocked,
        "server_names" => Referer::ServerNames,
        "~" => return Err(Invalid::new("empty regex in \"~\"").at(i)),
        word => match (word.strip_prefix('~'), word.find('/')) {
            (Some(pattern), _) => Referer::Pattern(pattern.to_owned()),
            (None, Some(at)) => Referer::Name(word[..at].to_owned(), Some(word[at..].to_owned())),
            (None, None) => Referer::Name(word.to_owned(), None),
        },
    })
}

/// What is valid in one place.
#[derive(Default)]
struct Valid {
    absent: bool,
    blocked: bool,
    /// Hosts, and the beginning of their paths, if that matters.
    names: Names<Option<Box<[u8]>>>,
    /// For hosts: names of the server.
    host_patterns: Vec<Regex>,
    /// For hosts and paths.
    patterns: Rc<Vec<Regex>>,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    scope.get(&REFERER_HASH_MAX_SIZE);
    scope.get(&REFERER_HASH_BUCKET_SIZE);
    if let Some(valid) = Valid::compile(scope) {
        builder.keep(valid);
    }
}

impl Valid {
    fn compile(scope: &Scope<'_>) -> Option<Valid> {
        let lines = scope.nodes_local(&VALID_REFERERS);
        if lines.is_empty() {
            return scope.parent().and_then(|outer| Valid::compile(&outer));
        }
        let mut valid = Valid::default();
        let mut patterns = Vec::new();
        let mut server_names = false;
        for (words, span) in lines {
            for word in words {
                let outcome = match word {
                    Referer::Absent => {
                        valid.absent = true;
                        Ok(())
                    }
                    Referer::Blocked => {
                        valid.blocked = true;
                        Ok(())
                    }
                    Referer::ServerNames => {
                        server_names = true;
                        Ok(())
                    }
                    Referer::Pattern(text) => {
                        Regex::new(&text, Case::Ignored).map(|pattern| patterns.push(pattern))
                    }
                    Referer::Name(name, path) => valid.add(&name, path),
                };
                if let Err(reason) = outcome {
                    scope.error(span, reason);
                }
            }
        }
        if server_names {
            valid.add_server_names(scope);
        }
        if (valid.absent || valid.blocked) && valid.names.is_empty() {
            scope.error(
                None,
                "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" \
                 directive without any valid referer",
            );
        }
        // A level without patterns of its own has those of the level around it.
        valid.patterns = match patterns.is_empty() {
            true => {
                scope.parent().and_then(|outer| Valid::compile(&outer)).unwrap_or_default().patterns
            }
            false => Rc::new(patterns),
        };
        Some(valid)
    }

    fn add(&mut self, name: &str, path: Option<String>) -> Result<(), String> {
        let path = path.map(|path| path.into_bytes().into());
        self.names.add(name.as_bytes(), path, Reading::Wildcards).map_err(|refused| match refused {
            Refused::Invalid => format!("invalid hostname or wildcard \"{name}\""),
            Refused::Conflict => format!("conflicting parameter \"{name}\""),
        })
    }

    fn add_server_names(&mut self, scope: &Scope<'_>) {
        let mut names: Vec<String> = scope.all(&SERVER_NAME).into_iter().flatten().collect();
        if names.is_empty() {
            names.push(String::new());
        }
        for name in names {
            // Names that are wrong as such are reported where the server is compiled.
            let outcome = match name.strip_prefix('~') {
                Some(pattern) => {
                    self.host_patterns.extend(Regex::new(pattern, Case::Ignored));
                    Ok(())
                }
                None if name.eq_ignore_ascii_case("$hostname") => {
                    self.add(&system::host::name(), None)
                }
                None => self.add(&name, None),
            };
            if let Err(reason) = outcome {
                scope.error(None, reason);
            }
        }
    }

    /// Whether a request with this field is fine; the text is the fault of a pattern.
    fn accepts(&self, referer: Option<&[u8]>) -> Result<bool, String> {
        const SHORTEST: usize = "http://i.ru".len();
        const LONGEST_HOST: usize = 256;
        if self.names.is_empty() && self.host_patterns.is_empty() && self.patterns.is_empty() {
            return Ok(true);
        }
        let Some(referer) = referer else { return Ok(self.absent) };
        let rest = match referer.len() >= SHORTEST {
            true => behind(referer, b"http://").or_else(|| behind(referer, b"https://")),
            false => None,
        };
        let Some(rest) = rest else { return Ok(self.blocked) };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
        if end > LONGEST_HOST {
            return Ok(false);
        }
        let host = rest[..end].to_ascii_lowercase();
        if let Some(wanted) = self.names.find(&host) {
            let Some(wanted) = wanted else { return Ok(true) };
            let slash = rest[end..].iter().position(|byte| *byte == b'/');
            return Ok(slash.is_some_and(|at| rest[end + at..].starts_with(wanted)));
        }
        Ok(any(&self.host_patterns, &host)? || any(&self.patterns, rest)?)
    }
}

/// Whether any of the patterns occurs in `text`.
fn any(patterns: &[Regex], text: &[u8]) -> Result<bool, String> {
    for pattern in patterns {
        if pattern.is_match(text)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What follows `scheme`, in any case of letters.
fn behind<'a>(text: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn invalid_referer(x: &mut Exchange) -> Option<Span> {
    let location = x.location.clone();
    let Some(valid) = location.kept::<Valid>() else { return Some(Span::EMPTY) };
    let referer = x.request.headers.value(Known::Referer);
    match valid.accepts(referer.map(|referer| x.text(referer))) {
        Ok(true) => Some(Span::EMPTY),
        Ok(false) => Some(x.arena.push(b"1")),
        Err(reason) => {
            let shown = Bytes(referer.map_or(b"", |referer| x.text(referer)));
            let message = format_args!("pcre2_match() failed: {reason} on \"{shown}\"");
            x.log_error(Level::Alert, message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{MAIN, Opens};
    use session::contexts::HTTP;

    static BLOCKS: &[&dyn AnyDirective] = &[&HTTP_BLOCK, &SERVER_BLOCK, &SERVER_NAME];
    static HTTP_BLOCK: Directive<()> = block("http", &[MAIN], HTTP);
    static SERVER_BLOCK: Directive<()> = block("server", &[HTTP], SERVER);

    const fn block(
        name: &'static str,
        contexts: &'static [Context],
        inner: Context,
    ) -> Directive<()> {
        Directive::new(name, contexts, read::nothing)
            .takes(Arity::None)
            .opens(Opens::Context(inner))
    }

    /// What is valid in a server with this inside, and the faults found.
    fn compiled(inside: &str) -> (Option<Valid>, Vec<String>) {
        let text = format!("http {{ server {{ {inside} }} }}");
        let files = config::MemoryFiles::new().with("/c", text);
        let registry = config::Registry::new(&[BLOCKS, DIRECTIVES]);
        let (tree, mut found) = config::load(&files, "/c".as_ref(), "/".as_ref(), &[], &registry);
        let sink = config::Sink::new();
        let root = Scope::root(&tree, &registry, &sink);
        let (_, http) = root.blocks(&HTTP_BLOCK).into_iter().next().expect("http");
        let (_, server) = http.blocks(&SERVER_BLOCK).into_iter().next().expect("server");
        let valid = Valid::compile(&server);
        found.extend(sink.take());
        (valid, found.into_iter().map(|fault| fault.message).collect())
    }

    #[test]
    fn fields_are_compared() {
        let check = |inside: &str, expected: &[(&str, bool)]| {
            let (valid, faults) = compiled(inside);
            assert_eq!(faults, Vec::<String>::new(), "{inside}");
            let valid = valid.expect("valid referers");
            for (referer, accepted) in expected {
                let field = Some(*referer).filter(|text| *text != "-").map(str::as_bytes);
                assert_eq!(valid.accepts(field), Ok(*accepted), "{referer:?}: {inside}");
            }
        };
        check(
            "valid_referers www.example.org;",
            &[
                ("http://www.example.org", true),
                ("HTTPS://WWW.Example.org/x", true),
                ("http://www.example.org:80/x", true),
                ("ftp://www.example.org", false),
                ("www.example.org", false),
                ("http://example.org", false),
                ("", false),
                ("-", false),
            ],
        );
        check("valid_referers none a.b;", &[("-", true), ("", false), ("http://a.b/xxxxxx", true)]);
        check(
            "valid_referers blocked a.b;",
            &[("-", false), ("", true), ("removed by somebody", true), ("http://su", true)],
        );
        check(
            "valid_referers *.example.com .b.org www.*;",
            &[
                ("http://x.example.com", true),
                ("http://example.com", false),
                ("http://b.org/any/path", true),
                ("http://a.b.org/", true),
                ("http://www.anything", true),
            ],
        );
        check(
            "valid_referers a.example/uri;",
            &[
                ("http://a.example/uri", true),
                ("http://a.example:80/urix", true),
                ("http://a.example/uRi", false),
                ("http://a.example/ur", false),
                ("http://a.example", false),
            ],
        );
        check(
            "valid_referers ~example.net$ ~/sub/;",
            &[
                ("http://x.EXAMPLE.net", true),
                ("http://x.example.net/", false),
                ("http://any/sub/x", true),
            ],
        );
        check(
            "server_name one.a *.two.a ~^three; valid_referers server_names;",
            &[
                ("http://one.a/xx", true),
                ("http://x.two.a", true),
                ("http://three.x", true),
                ("http://four.xx", false),
            ],
        );
        check("valid_referers server_names;", &[("http:///12345", true), ("http://aaaaaa", false)]);
        let long = format!("http://{}", "a".repeat(256));
        check("valid_referers ~.;", &[(&long, true), (&format!("{long}a"), false)]);
    }

    #[test]
    fn faults_have_nginx_words() {
        for (inside, expected) in [
            ("valid_referers \"\";", "invalid referer \"\""),
            ("valid_referers ~;", "empty regex in \"~\""),
            ("valid_referers a..b;", "invalid hostname or wildcard \"a..b\""),
            ("valid_referers a.b A.b;", "conflicting parameter \"A.b\""),
            (
                "valid_referers none blocked;",
                "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" \
                 directive without any valid referer",
            ),
        ] {
            let (_, faults) = compiled(inside);
            assert_eq!(faults.first().map(String::as_str), Some(expected), "{inside}");
        }
        assert!(compiled("valid_referers ~(;").1[0].starts_with("pcre2_compile() failed"));
    }
}
