//! Fields that the configuration adds to answers: `add_header`, `add_trailer`, `expires` (nginx:
//! ngx_http_headers_filter_module).
//!
//! This file has the lines of fields and how levels inherit them; `headers/expires.rs` has the
//! lifetime of answers, `headers/trailers.rs` what follows a body.

mod expires;
mod trailers;

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::{Exchange, Field, Filter, LocationBuilder, Module};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::{Segment, Template};
use wire::http1::Known;

use expires::Lifetime;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION, IF_LOCATION];

/// Fields in front of the body. Runs before the filters that change bodies and cut ranges.
pub static MODULE: Module = Module {
    directives: &[&ADD_HEADER, &ADD_HEADER_INHERIT, &expires::EXPIRES],
    location: Some(attach),
    ..Module::new("http_headers", "Adds fields to answers, and says how long answers stay fresh.")
};

/// Fields behind the body. Runs last: a body with trailers has no length.
pub static TRAILERS: Module = Module {
    directives: TRAILER_DIRECTIVES,
    location: Some(trailers::attach),
    ..Module::new("http_trailers", "Adds fields behind the bodies of answers.")
};

static TRAILER_DIRECTIVES: &[&dyn AnyDirective] = &[&ADD_TRAILER, &ADD_TRAILER_INHERIT];

/// `add_header`, see [`Line`].
pub static ADD_HEADER: Directive<Line> = Directive::new("add_header", PLACES, read_line)
    .takes(Arity::Between(2, 3))
    .many()
    .syntax("add_header NAME VALUE [always];")
    .text(
        "Adds a field to answers with the statuses 200, 201, 204, 206, 301, 302, 303, 304, 307 \
         and 308; with `always`, to all. A value that is empty adds nothing. `ETag` and \
         `Last-Modified` replace those of the answer; an empty value removes them. A level that \
         has such lines of its own does not inherit others, unless `add_header_inherit` says so.",
    )
    .example("add_header Strict-Transport-Security max-age=63072000 always;");

/// `add_header_inherit`.
pub static ADD_HEADER_INHERIT: Directive<Inherit> =
    Directive::new("add_header_inherit", PLACES, read_inherit)
        .default("on")
        .syntax("add_header_inherit on | off | merge;")
        .text(
            "Whether the `add_header` lines of outer levels hold here: if there are none here \
             (`on`), never (`off`), or in addition to those here (`merge`).",
        )
        .example("add_header_inherit merge;");

/// `add_trailer`, see [`Line`].
pub static ADD_TRAILER: Directive<Line> = Directive::new("add_trailer", PLACES, read_line)
    .takes(Arity::Between(2, 3))
    .many()
    .syntax("add_trailer NAME VALUE [always];")
    .text(
        "Adds a field behind the body of answers that are sent in chunks, and sends answers that \
         have such fields in chunks where the client understands that. The value is computed \
         when the body was sent. Statuses and inheritance are as with `add_header`.",
    )
    .example("add_trailer X-Duration $request_time;");

/// `add_trailer_inherit`.
pub static ADD_TRAILER_INHERIT: Directive<Inherit> =
    Directive::new("add_trailer_inherit", PLACES, read_inherit)
        .default("on")
        .syntax("add_trailer_inherit on | off | merge;")
        .text("As `add_header_inherit`, for the lines of `add_trailer`.")
        .example("add_trailer_inherit off;");

/// One field as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name as written.
    pub name: String,
    /// Its value.
    pub value: config::Template,
    /// It is added whatever the status is.
    pub always: bool,
}

/// What becomes of the lines of outer levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// They never hold.
    Off,
    /// They hold where there are no others.
    On,
    /// They hold besides the others.
    Merge,
}

fn read_line(args: &Args<'_>) -> Result<Line, Invalid> {
    let always = args.len() == 3;
    if always && args.word(2).bytes() != b"always" {
        return Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(2))).at(2));
    }
    let value = read::template_at(args, 1)?;
    Ok(Line { name: args.str(0).into_owned(), value, always })
}

fn read_inherit(args: &Args<'_>) -> Result<Inherit, Invalid> {
    read::enumeration(
        args,
        &[("off", Inherit::Off), ("on", Inherit::On), ("merge", Inherit::Merge)],
    )
}

/// The lines that hold in a block, its own ones first.
fn lines(scope: &Scope<'_>, line: &Directive<Line>, inherit: &Directive<Inherit>) -> Vec<Line> {
    let mut found = scope.all_local(line);
    let mode = scope.get(inherit);
    if mode == Inherit::Off || (mode == Inherit::On && !found.is_empty()) {
        return found;
    }
    if let Some(outer) = scope.parent() {
        found.extend(lines(&outer, line, inherit));
    }
    found
}

/// A field ready to be added.
struct Added {
    name: Box<[u8]>,
    known: Known,
    value: Template,
    always: bool,
}

impl Added {
    fn compile(c: &mut Compiler<'_>, lines: &[Line]) -> Vec<Added> {
        let one = |line: &Line| Added {
            name: line.name.as_bytes().into(),
            known: Known::of(line.name.as_bytes()),
            value: c.template(&line.value),
            always: line.always,
        };
        lines.iter().map(one).collect()
    }

    /// The value now; empty, with a line in the error log, when a variable would break the head.
    /// A line break that the configuration itself has is meant.
    fn value(&self, x: &mut Exchange) -> Span {
        let value = self.value.value(x);
        if !has_break(x.text(value)) {
            return value;
        }
        let mut from_variable = false;
        self.value.for_each(x, |x, segment| {
            if let Segment::Value(Some(part)) = segment {
                from_variable |= has_break(x.text(part));
            }
        });
        if !from_variable {
            return value;
        }
        let (name, shown) = (Bytes(&self.name), Bytes(x.text(value)));
        x.log_error(Level::Error, format_args!("line break in \"{name}\": \"{shown}\""));
        Span::EMPTY
    }

    /// A field with that value.
    fn field(&self, x: &mut Exchange, value: Span) -> Field {
        let name = match self.known.name().as_bytes() == &*self.name {
            true => Span::EMPTY,
            false => x.arena.push(&self.name),
        };
        Field { name, value, known: self.known }
    }
}

/// Whether a text would begin a line of its own. A line feed with a tab behind it only goes on
/// with the field; `$ssl_client_cert` has such.
fn has_break(text: &[u8]) -> bool {
    let folds = |at: usize| text[at] == b'\n' && text.get(at + 1) == Some(&b'\t');
    memchr::memchr2_iter(b'\r', b'\n', text).any(|at| !folds(at))
}

/// True for the statuses that get fields without being asked twice.
fn is_good(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let fields = Added::compile(c, &lines(scope, &ADD_HEADER, &ADD_HEADER_INHERIT));
    let lifetime = scope.find(&expires::EXPIRES).and_then(|line| Lifetime::compile(c, &line));
    if !fields.is_empty() || lifetime.is_some() {
        builder.filter(AddHeaders { fields, lifetime });
    }
}

struct AddHeaders {
    fields: Vec<Added>,
    lifetime: Option<Lifetime>,
}

impl Filter for AddHeaders {
    fn apply(&self, x: &mut Exchange) {
        let is_good = is_good(x.response.status);
        if is_good && let Some(lifetime) = &self.lifetime {
            lifetime.apply(x);
        }
        for field in self.fields.iter().filter(|field| is_good || field.always) {
            let value = field.value(x);
            match field.known {
                Known::LastModified => {
                    x.response.last_modified = None;
                    replace(field, x, value);
                }
                Known::Etag => replace(field, x, value),
                _ if value.is_empty() => {}
                _ => {
                    let field = field.field(x, value);
                    x.response.headers.push(field);
                }
            }
        }
    }
}

/// Puts a field in the place of the answer's own, or takes that away.
fn replace(added: &Added, x: &mut Exchange, value: Span) {
    x.response.headers.remove(added.known);
    if !value.is_empty() {
        let field = added.field(x, value);
        x.response.headers.push(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let check = |arguments: &str, expected: Result<(&str, bool), &str>| {
            let found = ADD_HEADER.read_text(arguments).map(|line| (line.name, line.always));
            let expected =
                expected.map(|(name, always)| (name.to_owned(), always)).map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        check("X-A b", Ok(("X-A", false)));
        check("X-A \"\" always", Ok(("X-A", true)));
        check("X-A b never", Err("invalid parameter \"never\""));
        check("X-A $", Err("invalid variable name"));
        check("X-A", Err("invalid number of arguments in \"add_header\" directive"));
    }

    /// The names of the lines that hold in the innermost block of `text`.
    fn inherited(text: &str) -> Vec<String> {
        static OUTER: Directive<()> = Directive::new("http", &[config::MAIN], read::nothing)
            .takes(Arity::None)
            .opens(config::Opens::Context(HTTP));
        static INNER: Directive<()> = Directive::new("server", &[HTTP], read::nothing)
            .takes(Arity::None)
            .opens(config::Opens::Context(SERVER));
        static TABLE: &[&dyn AnyDirective] = &[&OUTER, &INNER, &ADD_HEADER, &ADD_HEADER_INHERIT];
        let files = config::MemoryFiles::new().with("/c", text);
        let registry = config::Registry::new(&[TABLE]);
        let (tree, problems) = config::load(&files, "/c".as_ref(), "/".as_ref(), &[], &registry);
        assert!(problems.is_empty(), "{problems:?}");
        let sink = config::Sink::new();
        let root = config::Scope::root(&tree, &registry, &sink);
        let (_, outer) = root.blocks(&OUTER).into_iter().next().unwrap();
        let (_, inner) = outer.blocks(&INNER).into_iter().next().unwrap();
        let found = lines(&inner, &ADD_HEADER, &ADD_HEADER_INHERIT);
        found.into_iter().map(|line| line.name).collect()
    }

    #[test]
    fn levels_inherit_as_they_are_told() {
        let check = |outer: &str, inner: &str, expected: &[&str]| {
            let text = format!("http {{ add_header A 1; {outer} server {{ {inner} }} }}");
            assert_eq!(inherited(&text), expected, "{text}");
        };
        check("", "", &["A"]);
        check("", "add_header B 1;", &["B"]);
        check("add_header_inherit merge;", "add_header B 1;", &["B", "A"]);
        check("", "add_header_inherit merge; add_header B 1;", &["B", "A"]);
        check("", "add_header_inherit off;", &[]);
        check("add_header_inherit off;", "", &[]);
        check("add_header_inherit off;", "add_header_inherit on;", &["A"]);
        check("", "add_header_inherit merge;", &["A"]);
    }
}
