//! The charset that Content-Type tells, and bodies recoded to it
//! (nginx: ngx_http_charset_filter_module).
//!
//! This file has the directives and decides from which charset to which an answer goes; `table`
//! has the tables of `charset_map`, `body` recodes while the body passes.

mod body;
mod table;

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Opens, Scope, read};
use http::compile::Compiler;
use http::{Body, Exchange, Filter, LocationBuilder, Module};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Template;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use wire::http1::Known;

use crate::output;
use crate::type_list::{self, TypeList};
use body::Recoded;
use table::{Rows, Table};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];
const PLACES_AND_IF: &[Context] = &[HTTP, SERVER, LOCATION, IF_LOCATION];

/// The media types that tell a charset unless `charset_types` says otherwise.
const TYPES: [&str; 5] =
    ["text/xml", "text/plain", "text/vnd.wap.wml", "application/javascript", "application/rss+xml"];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    http: Some(read_maps),
    location: Some(attach),
    ..Module::new(
        "http_charset",
        "Tells clients in Content-Type which charset an answer is in, and recodes answers from one \
         charset to another.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&CHARSET, &SOURCE_CHARSET, &OVERRIDE_CHARSET, &CHARSET_TYPES, &CHARSET_MAP];

/// `charset`; `None` is `off`.
pub static CHARSET: Directive<Option<config::Template>> =
    Directive::new("charset", PLACES_AND_IF, read_charset)
        .default("off")
        .syntax("charset CHARSET | off;")
        .text(
            "Appends `; charset=CHARSET` to the Content-Type of answers that do not tell theirs. \
             CHARSET may be a variable; an empty one appends nothing. Redirects with 301 and 302 \
             tell none. A backend may ask for another one (X-Accel-Charset). What is included \
             into an answer (SSI, additions) is recoded to the charset of the whole.",
        )
        .example("charset utf-8;");

/// `source_charset`.
pub static SOURCE_CHARSET: Directive<config::Template> =
    Directive::new("source_charset", PLACES_AND_IF, read_name)
        .syntax("source_charset CHARSET;")
        .text(
            "The charset in which answers are that do not tell theirs. Where it differs from \
             `charset` answers are recoded by the `charset_map` between the two. Without one the \
             configuration is refused; when only a variable's value shows that there is none, the \
             answer stays as it is and the error log has a line.",
        )
        .example("source_charset utf-8;");

/// `override_charset`.
pub static OVERRIDE_CHARSET: Directive<bool> =
    Directive::new("override_charset", PLACES_AND_IF, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("override_charset on | off;")
        .text(
            "Whether `charset` concerns answers of backends that tell their charset, too: they are \
             recoded from it where that is another one.",
        )
        .example("override_charset on;");

/// `charset_types`.
pub static CHARSET_TYPES: Directive<Vec<String>> = Directive::new(
    "charset_types",
    PLACES,
    type_list::read,
)
.takes(Arity::AtLeast(1))
.many()
.syntax("charset_types TYPE ...;")
.text(
    "Answers of which media types tell a charset, besides text/html, which always does. `*` \
             stands for any type. Unless set: text/xml, text/plain, text/vnd.wap.wml, \
             application/javascript and application/rss+xml.",
)
.example("charset_types text/css text/plain;");

/// `charset_map`: the names of the two charsets.
pub static CHARSET_MAP: Directive<(String, String)> =
    Directive::new("charset_map", &[HTTP], |args| {
        Ok((args.str(0).into_owned(), args.str(1).into_owned()))
    })
    .takes(Arity::Exactly(2))
    .many()
    .opens(Opens::Rows)
    .syntax("charset_map CHARSET1 CHARSET2 { ... }")
    .text(
        "A table by which answers are recoded from CHARSET1 to CHARSET2 and back. Each row has \
         the codes of a character in both, in hexadecimal digits; in CHARSET2, where that is \
         utf-8, those of all its bytes. Bytes below 80 stay as they are unless a row says \
         otherwise, others without a row become `?`, and characters of utf-8 without a row become \
         references such as `&#1078;`.",
    )
    .example("charset_map koi8-r utf-8 {\n    C0 D18E;\n    C1 D0B0;\n}");

fn read_charset(args: &Args<'_>) -> Result<Option<config::Template>, Invalid> {
    match args.word(0).bytes() {
        b"off" => Ok(None),
        _ => read_name(args).map(Some),
    }
}

fn read_name(args: &Args<'_>) -> Result<config::Template, Invalid> {
    read::template(args)
}

/// The charsets that the configuration names, and the tables between them; names in lower case.
#[derive(Default)]
struct Maps {
    tables: HashMap<(Vec<u8>, Vec<u8>), Rc<Table>>,
    /// Those that a backend may ask for.
    names: HashSet<Vec<u8>>,
}

impl Maps {
    fn table(&self, from: &[u8], to: &[u8]) -> Option<&Rc<Table>> {
        self.tables.get(&(from.to_ascii_lowercase(), to.to_ascii_lowercase()))
    }
}

fn read_maps(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let mut maps = Maps::default();
    for ((from, to), rows, place) in scope.row_blocks(&CHARSET_MAP) {
        let key = (from.to_ascii_lowercase().into_bytes(), to.to_ascii_lowercase().into_bytes());
        let back = (key.1.clone(), key.0.clone());
        let mistake = if key == back {
            Some(format!("\"charset_map\" between the same charsets \"{from}\" and \"{to}\""))
        } else if key.0 == b"utf-8" {
            let rule = "should be given in the second column";
            Some(format!("\"charset_map\" with \"utf-8\" charset {rule}"))
        } else if maps.tables.contains_key(&key) {
            Some(format!("duplicate \"charset_map\" between \"{from}\" and \"{to}\""))
        } else {
            None
        };
        if let Some(mistake) = mistake {
            scope.error(place, mistake);
            continue;
        }
        let mut table = Rows::new(key.1 == b"utf-8");
        // A row that opens a block is reported already.
        for row in rows.iter().filter(|row| row.block.is_none()) {
            if let Err(invalid) = table.row(row) {
                scope.refuse(row, invalid);
            }
        }
        let (there, other) = table.tables();
        maps.names.extend([key.0.clone(), key.1.clone()]);
        maps.tables.insert(key, Rc::new(there));
        maps.tables.insert(back, Rc::new(other));
    }
    *c.state::<Rc<Maps>>() = Rc::new(maps);
}

/// The charset of the client's answer: what is included into it is recoded to this one.
#[derive(Default)]
struct Main(OnceCell<Vec<u8>>);

struct Charset {
    name: Option<Template>,
    source: Option<Template>,
    overrides: bool,
    types: TypeList,
    maps: Rc<Maps>,
    /// Bytes of a file that are read at a time.
    read: usize,
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let name = scope.get(&CHARSET);
    let source = scope.find_spanned(&SOURCE_CHARSET);
    let overrides = scope.get(&OVERRIDE_CHARSET);
    let mut lines = scope.all(&CHARSET_TYPES);
    if lines.is_empty() {
        lines.push(TYPES.into_iter().map(str::to_owned).collect());
    }
    let maps = c.state::<Rc<Maps>>().clone();
    if let Some((source, span)) = &source
        && let (Some(from), Some(to)) =
            (source.constant(), name.as_ref().and_then(|name| name.constant()))
        && !from.eq_ignore_ascii_case(to)
        && maps.table(from, to).is_none()
    {
        let (from, to) = (Bytes(from), Bytes(to));
        let reason = format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
        scope.error(*span, reason);
        return;
    }
    if name.is_none() && source.is_none() && maps.tables.is_empty() {
        return;
    }
    builder.filter(Charset {
        name: name.map(|name| c.template(&name)),
        source: source.map(|(source, _)| c.template(&source)),
        overrides,
        types: TypeList::compile(lines),
        maps,
        read: output::block_size(scope),
    });
}

impl Charset {
    /// The charset that the answer is to have; `None`: whatever it has.
    fn wanted(&self, x: &mut Exchange, told: Option<Span>) -> Option<Span> {
        if !x.is_main() {
            let main = x.peek_lasting::<Main>()?;
            let name = main.0.get()?;
            return Some(x.arena.push(name));
        }
        if let Some(name) = x.response.override_charset.filter(|name| !name.is_empty()) {
            let text = x.text(name);
            if self.maps.names.contains(&text.to_ascii_lowercase()) {
                return Some(name);
            }
            let text = Bytes(text);
            x.log_error(Level::Error, format_args!("unknown charset \"{text}\" to override"));
            return None;
        }
        let name = self.name.as_ref()?;
        let concerned = match told {
            Some(_) => self.overrides,
            None => self.types.has(x),
        };
        concerned.then(|| name.value(x))
    }

    /// Recodes the body; false when there is no table for it.
    fn recode(&self, x: &mut Exchange, from: Span, to: Span) -> bool {
        let Some(table) = self.maps.table(x.text(from), x.text(to)).cloned() else {
            let (from, to) = (Bytes(x.text(from)), Bytes(x.text(to)));
            let reason = "no \"charset_map\" between the charsets";
            x.log_error(Level::Error, format_args!("{reason} \"{from}\" and \"{to}\""));
            return false;
        };
        if !table.keeps_length() {
            x.response.length = None;
        }
        if let body @ (Body::Whole(_) | Body::Stream(_)) = std::mem::take(&mut x.response.body) {
            x.response.body = Body::Stream(Box::new(Recoded::new(body, table, self.read)));
        }
        true
    }
}

impl Filter for Charset {
    fn apply(&self, x: &mut Exchange) {
        let Some(kind) = x.response.content_type.filter(|kind| !kind.is_empty()) else { return };
        let (kind, told) = match (x.response.charset, split(x.text(kind))) {
            (Some(charset), _) => (kind, Some(charset)),
            (None, Some((end, from, to))) => (kind.part(0, end), Some(kind.part(from, to))),
            (None, None) => (kind, None),
        };
        if let Some(name) = self.settle(x, told) {
            x.response.content_type = Some(kind);
            x.response.charset =
                (!matches!(x.response.status, 301 | 302) && is_word(x, name)).then_some(name);
        }
        if x.is_main() {
            let name = x.response.charset.or(told).map(|name| x.text(name).to_vec());
            if let Some(name) = name {
                // A request whose filters are applied twice was answered with an error.
                let _ = x.lasting::<Main>().0.set(name);
            }
        }
    }
}

impl Charset {
    /// Recodes what has another charset than it should have; the name that it is to tell, when
    /// that is the location's business.
    fn settle(&self, x: &mut Exchange, told: Option<Span>) -> Option<Span> {
        let name = self.wanted(x, told)?;
        let source = told.or_else(|| self.source.as_ref().map(|source| source.value(x)));
        let Some(source) = source else { return Some(name).filter(|_| x.is_main()) };
        if !x.text(source).eq_ignore_ascii_case(x.text(name)) {
            let coding = x.response.headers.value(Known::ContentEncoding);
            if matches!(x.response.body, Body::Tunnel(_))
                || coding.is_some_and(|coding| !coding.is_empty())
                || !self.recode(x, source, name)
            {
                return None;
            }
        }
        Some(name).filter(|_| x.is_main())
    }
}

/// Whether a variable's value can stand in a field without breaking it (RFC 9110 section 5.6.2).
fn is_word(x: &Exchange, name: Span) -> bool {
    let text = x.text(name);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic())
}

/// A Content-Type that tells a charset: where the type ends, and where the charset's name begins
/// and ends, without quotes.
fn split(kind: &[u8]) -> Option<(usize, usize, usize)> {
    const NAME: &[u8] = b"charset=";
    for at in memchr::memchr_iter(b';', kind) {
        let parameter = kind[at + 1..].trim_ascii_start();
        if !parameter.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            continue;
        }
        let mut from = kind.len() - parameter.len() + NAME.len();
        let mut to = kind.len();
        from += usize::from(kind.get(from) == Some(&b'"'));
        to -= usize::from(to > from && kind[to - 1] == b'"');
        return Some((at, from, to));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_tell_a_charset() {
        let check = |kind: &str, expected: Option<(&str, &str)>| {
            let found =
                split(kind.as_bytes()).map(|(end, from, to)| (&kind[..end], &kind[from..to]));
            assert_eq!(found, expected, "{kind}");
        };
        check("text/html", None);
        check("text/html;", None);
        check("text/html; level=1", None);
        check("text/html; charset=utf-8", Some(("text/html", "utf-8")));
        check("text/html;CHARSET=\"utf-8\"", Some(("text/html", "utf-8")));
        check("text/html; a=b; charset=x", Some(("text/html; a=b", "x")));
        check("text/html; charset=", Some(("text/html", "")));
        check("text/html; charset=\"", Some(("text/html", "")));
    }
}
