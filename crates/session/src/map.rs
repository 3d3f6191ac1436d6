//! `map`: a variable whose value depends on another text (nginx: ngx_http_map_module).
//!
//! Written for every kind of conversation alike: an engine calls [`compile`] for its block and
//! lists [`DIRECTIVES`] in one of its modules.

use crate::contexts::{HTTP, STREAM};
use crate::names::{Names, Reading, Refused};
use crate::pattern::{GivenUp, Pattern};
use crate::regex::Case;
use crate::text::Span;
use crate::variables::{Caching, Source, Subject, Template, Variables};
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Node, Opens, Scope, read};
use std::rc::Rc;

const PLACES: &[Context] = &[HTTP, STREAM];

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&MAP, &MAP_HASH_MAX_SIZE, &MAP_HASH_BUCKET_SIZE];

/// `map`, see [`MapLine`].
pub static MAP: Directive<MapLine> = Directive::new("map", PLACES, read_map)
    .takes(Arity::Exactly(2))
    .many()
    .opens(Opens::Rows)
    .syntax("map TEXT $VARIABLE { ... }")
    .text(
        "Defines a variable whose value is looked up when it is used. Each row of the block has \
         a text and the value that holds when TEXT, with its variables replaced, is that text; \
         case does not matter. Values may hold variables. A row that begins with `~` has a \
         regular expression, one with `~*` a regular expression that ignores case; they are \
         tried in order when no text fits, and their captures can be used in the value and \
         elsewhere. Special rows: `default` has the value when nothing fits (empty without it); \
         `hostnames`, alone on its row, makes texts below it host names that may begin with \
         `*.` or `.` or end with `.*`; `volatile` makes the value looked up anew at each use; \
         `include FILE` reads rows from a file. A backslash in front of a text takes away its \
         special meaning.",
    )
    .example(
        "map $http_upgrade $connection_upgrade {\n    default upgrade;\n    \"\" close;\n    \
         ~^h2 \"\";\n}",
    );

/// `map_hash_max_size`.
pub static MAP_HASH_MAX_SIZE: Directive<u64> =
    Directive::new("map_hash_max_size", PLACES, read::number)
        .default("2048")
        .syntax("map_hash_max_size NUMBER;")
        .text("Accepted for compatibility. Tables take the room that they need.")
        .example("map_hash_max_size 4096;")
        .moot("tables grow with their rows");

/// `map_hash_bucket_size`.
pub static MAP_HASH_BUCKET_SIZE: Directive<u64> =
    Directive::new("map_hash_bucket_size", PLACES, read::number)
        .default("64")
        .syntax("map_hash_bucket_size NUMBER;")
        .text("Accepted for compatibility. Texts may be as long as they like.")
        .example("map_hash_bucket_size 128;")
        .moot("tables grow with their rows");

/// What `map` says in front of its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLine {
    /// What is looked up.
    pub subject: config::Template,
    /// The variable's name, without `$`.
    pub name: String,
}

fn read_map(args: &Args<'_>) -> Result<MapLine, Invalid> {
    let subject = read::template_at(args, 0)?;
    Ok(MapLine { subject, name: variable_name(args, 1)? })
}

/// Argument `i` as the name of a variable to define.
///
/// # Errors
/// nginx's words: `invalid variable name "x"`.
pub fn variable_name(args: &Args<'_>, i: usize) -> Result<String, Invalid> {
    let word = args.str(i);
    match word.strip_prefix('$') {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(Invalid::new(format!("invalid variable name \"{word}\"")).at(i)),
    }
}

/// Defines the variables of all `map` blocks of a level. Faults go to the scope.
pub fn compile<X: Subject>(scope: &Scope<'_>, table: &mut Variables<X>) {
    scope.get(&MAP_HASH_MAX_SIZE);
    scope.get(&MAP_HASH_BUCKET_SIZE);
    for (line, rows, span) in scope.row_blocks(&MAP) {
        let mut reading = Rows::default();
        // A row that opens a block is reported already.
        for row in rows.iter().filter(|row| row.block.is_none()) {
            if let Err(invalid) = reading.row(row, table) {
                scope.refuse(row, invalid);
            }
        }
        let caching = if reading.volatile { Caching::Volatile } else { Caching::Kept };
        let map = reading.map(Template::compile(&line.subject, table));
        let source = Source::Computed(Rc::new(move |x: &mut X| Some(map.value(x))));
        if let Err(reason) = table.define(&line.name, source, caching) {
            scope.error(span, reason);
        }
    }
}

/// The rows of one block while they are read.
#[derive(Default)]
struct Rows {
    names: Names<Template>,
    patterns: Vec<(Pattern, Template)>,
    default: Option<Template>,
    hostnames: bool,
    volatile: bool,
}

impl Rows {
    fn row<X>(&mut self, row: &Node, table: &mut Variables<X>) -> Result<(), Invalid> {
        let value = match row.args.as_slice() {
            [] if row.name.bytes() == b"hostnames" => {
                self.hostnames = true;
                return Ok(());
            }
            [] if row.name.bytes() == b"volatile" => {
                self.volatile = true;
                return Ok(());
            }
            [value] => config::Template::parse(value.bytes())
                .map_err(|message| Invalid::new(message).at(0))?,
            _ => return Err(Invalid::new("invalid number of the map parameters")),
        };
        let value = Template::compile(&value, table);
        let key = row.name.bytes();
        if key == b"default" {
            if self.default.is_some() {
                return Err(Invalid::new("duplicate default map parameter"));
            }
            self.default = Some(value);
            return Ok(());
        }
        if key.first() == Some(&b'~') {
            let text = row.name.str();
            let (pattern, case) = match text.strip_prefix("~*") {
                Some(pattern) => (pattern, Case::Ignored),
                None => (&text[1..], Case::Sensitive),
            };
            self.patterns.push((Pattern::compile(pattern, case, table)?, value));
            return Ok(());
        }
        let key = key.strip_prefix(b"\\").unwrap_or(key);
        let reading = if self.hostnames { Reading::Wildcards } else { Reading::Plain };
        self.names.add(key, value, reading).map_err(|refused| {
            let key = String::from_utf8_lossy(key);
            Invalid::new(match refused {
                Refused::Invalid => format!("invalid hostname or wildcard \"{key}\""),
                Refused::Conflict => format!("conflicting parameter \"{key}\""),
            })
        })
    }

    fn map(self, subject: Template) -> Map {
        let Rows { names, patterns, default, hostnames, .. } = self;
        let default = default.unwrap_or_else(|| Template::constant(b""));
        Map { subject, hostnames, names, patterns, default }
    }
}

/// A compiled block.
struct Map {
    subject: Template,
    /// A final dot of a host name does not count.
    hostnames: bool,
    names: Names<Template>,
    patterns: Vec<(Pattern, Template)>,
    default: Template,
}

impl Map {
    fn value<X: Subject>(&self, x: &mut X) -> Span {
        let mut subject = self.subject.value(x);
        if self.hostnames && x.arena().text(subject).ends_with(b".") {
            subject.len -= 1;
        }
        self.find(x, subject).value(x)
    }

    fn find<X: Subject>(&self, x: &mut X, subject: Span) -> &Template {
        if !self.names.is_empty() {
            let lower = lower_case(x, subject);
            if let Some(value) = self.names.find(x.arena().text(lower)) {
                return value;
            }
        }
        if !subject.is_empty() {
            for (pattern, value) in &self.patterns {
                match pattern.matches(x, subject) {
                    Ok(false) => {}
                    Ok(true) => return value,
                    Err(GivenUp) => break,
                }
            }
        }
        &self.default
    }
}

/// The same text with ASCII letters in lower case: itself when it has no others.
pub(crate) fn lower_case<X: Subject>(x: &mut X, span: Span) -> Span {
    if !x.arena().text(span).iter().any(u8::is_ascii_uppercase) {
        return span;
    }
    let copy = x.arena_mut().copy(span);
    x.arena_mut().text_mut(copy).make_ascii_lowercase();
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Talk, compiled};

    /// The value of `$y` for each value of `$x`.
    fn check(rows: &str, expected: &[(&str, &str)]) {
        let text = format!("map $x $y {{ {rows} }}");
        let (variables, faults) = compiled(&text, DIRECTIVES, compile::<Talk>);
        assert_eq!(faults, Vec::<String>::new(), "{text}");
        for (subject, value) in expected {
            let mut talk = Talk::new(&variables, &[("x", subject), ("z", "zed")]);
            assert_eq!(talk.value("y"), *value, "{subject} in {text}");
        }
    }

    #[test]
    fn values_are_found() {
        check("", &[("a", ""), ("", "")]);
        check("default d; a 1; B 2;", &[("a", "1"), ("A", "1"), ("b", "2"), ("c", "d")]);
        check("\"\" empty; default full;", &[("", "empty"), ("x", "full")]);
        check("\\default 1; \\hostnames 2; \\~a 3;", &[("default", "1"), ("hostnames", "2")]);
        check("\\~a 3;", &[("~a", "3"), ("\\~a", "")]);
        check("a $z; b -$z-; default $x$z;", &[("a", "zed"), ("b", "-zed-"), ("q", "qzed")]);
        check("*.a 1; a.* 2;", &[("*.a", "1"), ("b.a", ""), ("a.b", "")]);
    }

    #[test]
    fn host_names_have_wildcards() {
        check(
            "hostnames; default 0; example.com 1; *.example.com 2; .b.org 3; www.* 4;",
            &[
                ("example.com", "1"),
                ("EXAMPLE.com.", "1"),
                ("a.example.com", "2"),
                ("b.org", "3"),
                ("a.b.org.", "3"),
                ("www.x", "4"),
                ("www", "0"),
            ],
        );
        // Names above the line are plain, but the final dot counts nowhere.
        check("*.a 1; hostnames; *.b 2;", &[("x.a", ""), ("*.a.", "1"), ("x.b", "2")]);
    }

    #[test]
    fn patterns_are_tried_in_order_and_capture() {
        check(
            "default d; exact 0; ~^e 1; ~*^E(?<rest>.*)$ $rest; ~^(.)(.)$ $2$1; ~ any;",
            &[
                ("exact", "0"),
                ("EXACT", "0"),
                ("early", "1"),
                ("EARLY", "ARLY"),
                ("ab", "ba"),
                ("other", "any"),
                ("", "d"),
            ],
        );
    }

    #[test]
    fn faults_have_nginx_words() {
        for (text, expected) in [
            ("map $x y { }", "invalid variable name \"y\""),
            ("map $x $ { }", "invalid variable name \"$\""),
            ("map $ $y { }", "invalid variable name"),
            ("map $x $x { }", "the duplicate \"x\" variable"),
            ("map $x $y { a; }", "invalid number of the map parameters"),
            ("map $x $y { a b c; }", "invalid number of the map parameters"),
            ("map $x $y { hostnames volatile; a ${; }", "invalid variable name"),
            ("map $x $y { default 1; default 2; }", "duplicate default map parameter"),
            ("map $x $y { a 1; A 2; }", "conflicting parameter \"A\""),
            ("map $x $y { hostnames; a..b 2; }", "invalid hostname or wildcard \"a..b\""),
            ("map $x $y { a $unheard; }", "unknown \"unheard\" variable"),
            ("map $x $y { a { } }", "unexpected \"{\""),
            ("map $x { }", "invalid number of arguments in \"map\" directive"),
        ] {
            let (_, faults) = compiled(text, DIRECTIVES, compile::<Talk>);
            assert_eq!(faults.first().map(String::as_str), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_value_is_kept_unless_volatile() {
        for (rows, expected) in [("default $x;", "1"), ("volatile; default $x;", "2")] {
            let text = format!("map $x $y {{ {rows} }}");
            let (variables, _) = compiled(&text, DIRECTIVES, compile::<Talk>);
            let mut talk = Talk::new(&variables, &[("x", "1")]);
            assert_eq!(talk.value("y"), "1");
            talk.set("x", "2");
            assert_eq!(talk.value("y"), expected, "{rows}");
        }
    }

    #[test]
    fn a_circle_is_reported_and_empty() {
        let text = "map $x $b { default b$a; } map $x $a { default a$b; }";
        let (variables, faults) = compiled(text, DIRECTIVES, compile::<Talk>);
        assert_eq!(faults, Vec::<String>::new());
        let mut talk = Talk::new(&variables, &[]);
        assert_eq!(talk.value("a"), "ab");
        assert_eq!(talk.complaints, ["cycle while evaluating variable \"a\""]);
    }
}
