//! `rewrite`: a pattern, and what replaces the path that it matches.

use super::answer;
use super::script::{Flow, Run};
use config::{Args, Invalid, Part};
use http::compile::Compiler;
use http::{Exchange, Verdict};
use session::log::{Bytes, Level};
use session::pattern::{GivenUp, Pattern};
use session::regex::{Captures, Case, Regex};
use session::text::Span;
use session::variables::{Subject, Template};
use wire::http1::escape::{self, Escape, Unescape};

/// What `rewrite` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RewriteLine {
    pattern: String,
    target: TargetLine,
    /// Nothing follows after a match.
    is_last: bool,
    /// The query of the request is appended.
    keeps_query: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum TargetLine {
    /// A path of this server; `stays`: in the same location.
    Path { path: config::Template, query: Option<config::Template>, stays: bool },
    /// A place where the client is sent.
    Place { place: config::Template, has_query: bool, status: u16 },
}

pub(super) fn read_rewrite(args: &Args<'_>) -> Result<RewriteLine, Invalid> {
    let word = args.word(1).bytes();
    if word.is_empty() {
        return Err(Invalid::new("empty replacement").at(1));
    }
    let (text, keeps_query) = match word.strip_suffix(b"?") {
        Some(text) => (text, false),
        None => (word, true),
    };
    let is_url = ["http://", "https://", "$scheme"]
        .iter()
        .any(|beginning| text.starts_with(beginning.as_bytes()));
    let flag = args.str(2);
    let (is_last, stays, status) = match flag.as_ref() {
        "" if args.len() < 3 => (is_url, false, 302),
        "last" => (true, false, 302),
        "break" => (true, true, 302),
        "redirect" => (true, false, 302),
        "permanent" => (true, false, 301),
        _ => {
            // nginx looks at the pattern first.
            Regex::new(&args.str(0), Case::Sensitive)
                .map_err(|reason| Invalid::new(reason).at(0))?;
            return Err(Invalid::new(format!("invalid parameter \"{flag}\"")).at(2));
        }
    };
    let source = config::Template::parse(text).map_err(|reason| Invalid::new(reason).at(1))?;
    let target = match is_url || matches!(flag.as_ref(), "redirect" | "permanent") {
        true => {
            let has_query = find_query(&source).is_some();
            TargetLine::Place { place: source, has_query, status }
        }
        false => {
            let (path, query) = split_query(source);
            TargetLine::Path { path, query, stays }
        }
    };
    Ok(RewriteLine { pattern: args.str(0).into_owned(), target, is_last, keeps_query })
}

/// Part and offset of the first `?` that is not inside of a variable.
fn find_query(source: &config::Template) -> Option<(usize, usize)> {
    source.parts.iter().enumerate().find_map(|(n, part)| match part {
        Part::Text(text) => Some((n, memchr::memchr(b'?', text)?)),
        _ => None,
    })
}

/// Cuts at the first `?`.
fn split_query(mut source: config::Template) -> (config::Template, Option<config::Template>) {
    let Some((at, offset)) = find_query(&source) else { return (source, None) };
    let mut query = source.parts.split_off(at);
    if let Some(Part::Text(text)) = query.first_mut() {
        let after = text.split_off(offset + 1);
        text.pop();
        let before = std::mem::replace(text, after);
        if !before.is_empty() {
            source.parts.push(Part::Text(before));
        }
        if matches!(query.first(), Some(Part::Text(text)) if text.is_empty()) {
            query.remove(0);
        }
    }
    (source, Some(config::Template { parts: query }))
}

/// A compiled `rewrite`.
pub(super) struct Rewrite {
    pattern: Pattern,
    target: Target,
    is_last: bool,
    keeps_query: bool,
}

enum Target {
    Path { path: Template, query: Option<Template>, stays: bool },
    Place { place: Template, has_query: bool, status: u16 },
}

impl Rewrite {
    pub(super) fn compile(c: &mut Compiler<'_>, line: &RewriteLine) -> Result<Rewrite, String> {
        let target = match &line.target {
            TargetLine::Path { path, query, stays } => Target::Path {
                path: c.template(path),
                query: query.as_ref().map(|query| c.template(query)),
                stays: *stays,
            },
            TargetLine::Place { place, has_query, status } => {
                Target::Place { place: c.template(place), has_query: *has_query, status: *status }
            }
        };
        let pattern = c.pattern(&line.pattern, Case::Sensitive)?;
        Ok(Rewrite { pattern, target, is_last: line.is_last, keeps_query: line.keeps_query })
    }

    pub(super) fn apply(&self, x: &mut Exchange, run: &mut Run) -> Flow {
        match matches(x, &self.pattern, x.request.uri, run) {
            Ok(true) => {}
            Ok(false) => return Flow::Next,
            Err(GivenUp) => return Flow::Verdict(Verdict::Status(500)),
        }
        x.internal = true;
        x.request.rewritten = true;
        run.is_escaping = false;
        match &self.target {
            Target::Place { place, has_query, status } => {
                let place = self.place(x, place, *has_query);
                if run.is_logged {
                    let shown = Bytes(x.text(place));
                    let message = format_args!("rewritten redirect: \"{shown}\"");
                    x.log_error(Level::Notice, message);
                }
                return Flow::Verdict(answer::send_to(x, place, *status));
            }
            Target::Path { path, query, stays } => {
                run.is_changed = !stays;
                x.request.detached |= stays;
                self.change(x, path, query.as_ref());
            }
        }
        if run.is_logged {
            let (uri, args) = (Bytes(x.text(x.request.uri)), Bytes(x.text(x.request.args)));
            let message = format_args!("rewritten data: \"{uri}\", args: \"{args}\"");
            x.log_error(Level::Notice, message);
        }
        if x.request.uri.is_empty() {
            x.log_error(Level::Error, format_args!("the rewritten URI has a zero length"));
            return Flow::Verdict(Verdict::Status(500));
        }
        if self.is_last { Flow::End } else { Flow::Next }
    }

    /// Puts the new path and query in place.
    fn change(&self, x: &mut Exchange, path: &Template, query: Option<&Template>) {
        let path = path.value(x);
        let before = x.request.args;
        x.request.args = match query {
            None if self.keeps_query => before,
            None => Span::EMPTY,
            Some(query) => {
                let query = query.value_with(x, escaped_group);
                match self.keeps_query && !before.is_empty() {
                    true => {
                        let mark = x.arena.mark();
                        x.arena.copy(query);
                        x.arena.push(b"&");
                        x.arena.copy(before);
                        x.arena.since(mark)
                    }
                    false => query,
                }
            }
        };
        x.request.uri = path;
        x.request.plain_uri = false;
    }

    /// Where the client is sent.
    fn place(&self, x: &mut Exchange, place: &Template, has_query: bool) -> Span {
        let mut place = place.value_with(x, escaped_group);
        if memchr::memchr(b'%', x.text(place)).is_some() {
            // The path was escaped as if it were a query: what a path may hold is decoded.
            let mut decoded = Vec::with_capacity(place.len as usize);
            let text = x.text(place);
            let read = escape::unescape(text, Unescape::Redirect, &mut decoded);
            decoded.extend_from_slice(text.get(read..).unwrap_or(b""));
            place = x.arena.push(&decoded);
        }
        if !self.keeps_query || x.request.args.is_empty() {
            return place;
        }
        let mark = x.arena.mark();
        x.arena.copy(place);
        x.arena.push(if has_query { b"&" } else { b"?" });
        x.arena.copy(x.request.args);
        x.arena.since(mark)
    }
}

/// Matches `subject`. Afterwards `$1` and its kin are the groups of this match, or empty.
///
/// # Errors
/// The match was given up; the reason is in the error log.
pub(super) fn matches(
    x: &mut Exchange,
    pattern: &Pattern,
    subject: Span,
    run: &Run,
) -> Result<bool, GivenUp> {
    let found = pattern.matches(x, subject)?;
    if !found {
        x.set_captures(Captures::default());
    }
    if run.is_logged {
        let (pattern, subject) = (pattern.regex.pattern(), Bytes(x.text(subject)));
        let verb = if found { "matches" } else { "does not match" };
        x.log_error(Level::Notice, format_args!("\"{pattern}\" {verb} \"{subject}\""));
    }
    Ok(found)
}

/// A group of the last match for a query or a URL: escaped when the client's path had escapes.
pub(super) fn escaped_group(x: &mut Exchange, n: u8) -> Option<Span> {
    let group = x.capture(n)?;
    let text = x.text(group);
    if escape::count_escapes(text, Escape::Args) == 0 || !is_path_escaped(x) {
        return Some(group);
    }
    let mut escaped = Vec::with_capacity(text.len() + 16);
    escape::escape_uri(text, Escape::Args, &mut escaped);
    Some(x.arena.push(&escaped))
}

/// Whether the path as the client sent it holds `%` or `+`.
fn is_path_escaped(x: &Exchange) -> bool {
    let target = x.text(x.request.target);
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    x.is_main() && memchr::memchr2(b'%', b'+', &target[..end]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::REWRITE;
    use proptest::prelude::*;

    fn text(text: &str) -> config::Template {
        config::Template::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn replacements() {
        let check = |arguments: &str, expected: Result<(TargetLine, bool, bool), &str>| {
            let found = REWRITE
                .read_text(arguments)
                .map(|line| (line.target, line.is_last, line.keeps_query))
                .map_err(|invalid| invalid.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{arguments}");
        };
        let path = |path: &str, query: Option<&str>, stays| TargetLine::Path {
            path: text(path),
            query: query.map(text),
            stays,
        };
        let place = |place: &str, has_query, status| TargetLine::Place {
            place: text(place),
            has_query,
            status,
        };
        check("a /b", Ok((path("/b", None, false), false, true)));
        check("a /b last", Ok((path("/b", None, false), true, true)));
        check("a /b break", Ok((path("/b", None, true), true, true)));
        check("a /b?", Ok((path("/b", None, false), false, false)));
        check("a ?", Ok((path("", None, false), false, false)));
        check("a /$1?c=$2$d", Ok((path("/$1", Some("c=$2$d"), false), false, true)));
        check("a /b??", Ok((path("/b", Some(""), false), false, false)));
        check("a $b?$c last", Ok((path("$b", Some("$c"), false), true, true)));
        check("a ?$c?d?", Ok((path("", Some("$c?d"), false), false, false)));
        check("a /b redirect", Ok((place("/b", false, 302), true, true)));
        check("a /b?c permanent", Ok((place("/b?c", true, 301), true, true)));
        check("a http://b/$1?", Ok((place("http://b/$1", false, 302), true, false)));
        check("a https://b/ permanent", Ok((place("https://b/", false, 301), true, true)));
        check("a $scheme://b/ last", Ok((place("$scheme://b/", false, 302), true, true)));
        check("a \"\"", Err("empty replacement"));
        check("a /b Last", Err("invalid parameter \"Last\""));
        check("a /b \"\"", Err("invalid parameter \"\""));
        check("a /$", Err("invalid variable name"));
        check("a", Err("invalid number of arguments in \"rewrite\" directive"));
    }

    proptest! {
        #[test]
        fn a_query_is_cut_off_and_nothing_else(parts in "[a?$1{}]{0,12}") {
            let Ok(source) = config::Template::parse(parts.as_bytes()) else { return Ok(()) };
            let whole = source.clone();
            let (path, query) = split_query(source);
            prop_assert!(find_query(&path).is_none());
            let mut joined = path.parts;
            if let Some(query) = query {
                joined.push(Part::Text(b"?".to_vec()));
                joined.extend(query.parts);
            }
            let flat = |parts: &[Part]| parts.iter().map(|part| match part {
                Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("<{other:?}>"),
            }).collect::<String>();
            prop_assert_eq!(flat(&joined), flat(&whole.parts));
        }

        #[test]
        fn no_words_panic(
            pattern in "\\PC{0,12}", replacement in "\\PC{0,12}", flag in "\\PC{0,9}"
        ) {
            let word = |text: &str| format!("\"{}\"", text.replace(['"', '\\'], "_"));
            let arguments = format!("{} {} {}", word(&pattern), word(&replacement), word(&flag));
            // Any verdict will do.
            let _ = REWRITE.read_text(&arguments);
        }
    }
}
