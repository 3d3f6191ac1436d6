//! Conditions of `if`.

use super::replacement::matches;
use super::script::Run;
use crate::open_files;
use config::{Args, Invalid};
use http::Exchange;
use http::compile::Compiler;
use rustix::io::Errno as Code;
use session::log::{Bytes, Level};
use session::pattern::{GivenUp, Pattern};
use session::regex::Case;
use session::text::Span;
use session::variables::{Template, VariableId, value};
use system::errno::Errno;
use system::opening::{self, Failure};

/// What stands between the brackets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// `$a`
    True(String),
    /// `$a = text`, `$a != text`
    Equal { name: String, text: config::Template, sense: Sense },
    /// `$a ~ pattern` and its kin
    Matches { name: String, pattern: String, case: Case, sense: Sense },
    /// `-f path` and its kin
    File { path: config::Template, kind: Kind, sense: Sense },
}

/// Whether the test itself or its opposite is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sense {
    Plain,
    Opposite,
}

/// What a path is tested for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Either,
    Executable,
}

pub(super) fn read_condition(args: &Args<'_>) -> Result<Condition, Invalid> {
    let mut words: Vec<&[u8]> = args.words().iter().map(|word| word.bytes()).collect();
    let shown = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let invalid = |word: &[u8], at: usize| {
        Invalid::new(format!("invalid condition \"{}\"", shown(word))).at(at)
    };
    let mut first = 0;
    match words.first().and_then(|word| word.strip_prefix(b"(")) {
        None => return Err(invalid(words.first().unwrap_or(&&b""[..]), 0)),
        Some(b"") => first = 1,
        Some(rest) => words[0] = rest,
    }
    let mut end = words.len();
    let last = words[end - 1];
    match last.strip_suffix(b")") {
        None => return Err(invalid(last, end - 1)),
        Some(b"") => end -= 1,
        Some(rest) => words[end - 1] = rest,
    }
    // A lone bracket is shown as it is where a condition is missing.
    let start = words.get(first).copied().unwrap_or(last);
    let refuse = || Err(invalid(start, first.min(words.len() - 1)));
    let inner = words.get(first..end).unwrap_or_default();
    let template = |text: &[u8]| {
        config::Template::parse(text).map_err(|reason| Invalid::new(reason).at(end - 1))
    };
    match inner {
        [[b'$', name @ ..]] if !name.is_empty() => Ok(Condition::True(shown(name))),
        [[b'$', name @ ..], operator, operand] if !name.is_empty() => {
            let name = shown(name);
            let (operator, sense) = match operator.strip_prefix(b"!") {
                Some(rest) => (rest, Sense::Opposite),
                None => (*operator, Sense::Plain),
            };
            let pattern = shown(operand);
            match operator {
                b"=" => Ok(Condition::Equal { name, text: template(operand)?, sense }),
                b"~" => Ok(Condition::Matches { name, pattern, case: Case::Sensitive, sense }),
                b"~*" => Ok(Condition::Matches { name, pattern, case: Case::Ignored, sense }),
                _ => {
                    let operator = shown(inner[1]);
                    let message = format!("unexpected \"{operator}\" in condition");
                    Err(Invalid::new(message).at(first + 1))
                }
            }
        }
        [operator, path] => match operator {
            [b'-', kind] => file(*kind, Sense::Plain, template(path)?).map_or_else(refuse, Ok),
            [b'!', b'-', kind] => {
                file(*kind, Sense::Opposite, template(path)?).map_or_else(refuse, Ok)
            }
            _ => refuse(),
        },
        _ => refuse(),
    }
}

fn file(kind: u8, sense: Sense, path: config::Template) -> Option<Condition> {
    let kind = match kind {
        b'f' => Kind::File,
        b'd' => Kind::Folder,
        b'e' => Kind::Either,
        b'x' => Kind::Executable,
        _ => return None,
    };
    Some(Condition::File { path, kind, sense })
}

/// A compiled condition.
pub(super) enum Test {
    True(VariableId),
    Equal { variable: VariableId, text: Template, sense: Sense },
    Matches { variable: VariableId, pattern: Pattern, sense: Sense },
    File { path: Template, kind: Kind, sense: Sense },
}

impl Condition {
    /// # Errors
    /// What is wrong with the pattern.
    pub(super) fn compile(&self, c: &mut Compiler<'_>) -> Result<Test, String> {
        Ok(match self {
            Condition::True(name) => Test::True(c.variables.reference(name)),
            Condition::Equal { name, text, sense } => Test::Equal {
                variable: c.variables.reference(name),
                text: c.template(text),
                sense: *sense,
            },
            Condition::Matches { name, pattern, case, sense } => Test::Matches {
                variable: c.variables.reference(name),
                pattern: c.pattern(pattern, *case)?,
                sense: *sense,
            },
            Condition::File { path, kind, sense } => {
                Test::File { path: c.template(path), kind: *kind, sense: *sense }
            }
        })
    }
}

impl Sense {
    fn of(self, holds: bool) -> bool {
        holds == (self == Sense::Plain)
    }
}

impl Test {
    /// # Errors
    /// A match was given up; the reason is in the error log.
    pub(super) fn holds(&self, x: &mut Exchange, run: &Run) -> Result<bool, GivenUp> {
        match self {
            Test::True(variable) => {
                let found = value(x, *variable).unwrap_or_default();
                Ok(!matches!(x.text(found), b"" | b"0"))
            }
            Test::Equal { variable, text, sense } => {
                let found = value(x, *variable).unwrap_or_default();
                let text = run.value(x, text);
                Ok(sense.of(x.text(found) == x.text(text)))
            }
            Test::Matches { variable, pattern, sense } => {
                let found = value(x, *variable).unwrap_or_default();
                Ok(sense.of(matches(x, pattern, found, run)?))
            }
            Test::File { path, kind, sense } => {
                let path = run.value(x, path);
                Ok(sense.of(kind.is(x, path)))
            }
        }
    }
}

impl Kind {
    fn is(self, x: &mut Exchange, path: Span) -> bool {
        let about = match open_files::look(x, path) {
            Ok(about) => about,
            Err(Failure { call, code }) => {
                // A path with a NUL inside names nothing: EINVAL.
                if !matches!(code, Code::NOENT | Code::NOTDIR | Code::NAMETOOLONG | Code::INVAL) {
                    let (shown, errno) = (Bytes(x.text(path)), Errno::from(code));
                    let message = format_args!("{call} \"{shown}\" failed ({errno})");
                    x.log_error(Level::Crit, message);
                }
                return false;
            }
        };
        match self {
            Kind::File => about.kind == opening::Kind::File,
            Kind::Folder => about.kind == opening::Kind::Folder,
            Kind::Either => about.kind != opening::Kind::Other,
            // The owner's bit, as nginx reads it.
            Kind::Executable => about.mode & 0o100 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::IF_IN_SERVER;
    use proptest::prelude::*;

    #[test]
    fn conditions() {
        let name = || "a".to_owned();
        let text = |text: &str| config::Template::parse(text.as_bytes()).unwrap();
        let check = |arguments: &str, expected: Result<Condition, &str>| {
            let found = IF_IN_SERVER.read_text(arguments).map_err(|invalid| invalid.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{arguments}");
        };
        let equal =
            |value: &str, sense| Condition::Equal { name: name(), text: text(value), sense };
        let matches = |pattern: &str, case, sense| Condition::Matches {
            name: name(),
            pattern: pattern.to_owned(),
            case,
            sense,
        };
        let file = |kind, sense| Condition::File { path: text("/p$a"), kind, sense };
        use {Case::*, Kind::*, Sense::*};
        check("($a)", Ok(Condition::True(name())));
        check("( $a )", Ok(Condition::True(name())));
        check("($a = b)", Ok(equal("b", Plain)));
        check("( $a != $b )", Ok(equal("$b", Opposite)));
        check("($a = \"b c\")", Ok(equal("b c", Plain)));
        check("($a = \"\")", Ok(equal("", Plain)));
        check("($a ~ ^/(x))", Ok(matches("^/(x)", Sensitive, Plain)));
        check("($a ~* \"a{2}\")", Ok(matches("a{2}", Ignored, Plain)));
        check("($a !~ b)", Ok(matches("b", Sensitive, Opposite)));
        check("($a !~* b)", Ok(matches("b", Ignored, Opposite)));
        check("(-f /p$a)", Ok(file(File, Plain)));
        check("(!-d /p$a)", Ok(file(Folder, Opposite)));
        check("(-e /p$a)", Ok(file(Either, Plain)));
        check("(!-x /p$a)", Ok(file(Executable, Opposite)));
        check("$a", Err("invalid condition \"$a\""));
        check("(", Err("invalid condition \"(\""));
        check("()", Err("invalid condition \")\""));
        check("( )", Err("invalid condition \")\""));
        check("\"\"", Err("invalid condition \"\""));
        check("($a = b", Err("invalid condition \"b\""));
        check("($a =)", Err("invalid condition \"$a\""));
        check("($a = b c)", Err("invalid condition \"$a\""));
        check("($a - b)", Err("unexpected \"-\" in condition"));
        check("($a ! b)", Err("unexpected \"!\" in condition"));
        check("($a !== b)", Err("unexpected \"!==\" in condition"));
        check("(-f a b)", Err("invalid condition \"-f\""));
        check("(-fx a)", Err("invalid condition \"-fx\""));
        check("($a = $)", Err("invalid variable name"));
        check("(-f $)", Err("invalid variable name"));
    }

    proptest! {
        #[test]
        fn no_words_panic(words in proptest::collection::vec("[()$!=~*\"a {}-]{0,4}", 1..6)) {
            let words: Vec<String> =
                words.iter().map(|word| format!("\"{}\"", word.replace('"', "\\\""))).collect();
            // Any verdict will do.
            let _ = IF_IN_SERVER.read_text(&words.join(" "));
        }
    }
}
