//! The charset that Content-Type tells (nginx: ngx_http_charset_filter_module).
//!
//! Bodies pass as they are: a source in another charset is refused, since nothing here recodes.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::{Exchange, Filter, LocationBuilder, Module};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Template;

use crate::type_list::{self, TypeList};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];
const PLACES_AND_IF: &[Context] = &[HTTP, SERVER, LOCATION, IF_LOCATION];

/// The media types that tell a charset unless `charset_types` says otherwise.
const TYPES: [&str; 5] =
    ["text/xml", "text/plain", "text/vnd.wap.wml", "application/javascript", "application/rss+xml"];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_charset",
        "Tells clients in Content-Type which charset an answer is in. Answers are not recoded from \
         one charset to another.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&CHARSET, &SOURCE_CHARSET, &OVERRIDE_CHARSET, &CHARSET_TYPES];

/// `charset`; `None` is `off`.
pub static CHARSET: Directive<Option<config::Template>> =
    Directive::new("charset", PLACES_AND_IF, read_charset)
        .default("off")
        .syntax("charset CHARSET | off;")
        .text(
            "Appends `; charset=CHARSET` to the Content-Type of answers that do not tell theirs. \
             CHARSET may be a variable; an empty one appends nothing. Redirects with 301 and 302 \
             tell none.",
        )
        .example("charset utf-8;");

/// `source_charset`.
pub static SOURCE_CHARSET: Directive<config::Template> =
    Directive::new("source_charset", PLACES_AND_IF, read_name)
        .syntax("source_charset CHARSET;")
        .text(
            "The charset in which answers are that do not tell theirs. One that differs from \
             `charset` is a mistake, for nothing recodes; one that differs by way of a variable \
             leaves the answer without a charset and is logged.",
        )
        .example("source_charset utf-8;");

/// `override_charset`.
pub static OVERRIDE_CHARSET: Directive<bool> =
    Directive::new("override_charset", PLACES_AND_IF, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("override_charset on | off;")
        .text(
            "Whether `charset` concerns answers of backends that tell their charset, too: the same \
             name is then written as `charset` writes it, and a different one stays and is logged.",
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

fn read_charset(args: &Args<'_>) -> Result<Option<config::Template>, Invalid> {
    match args.word(0).bytes() {
        b"off" => Ok(None),
        _ => read_name(args).map(Some),
    }
}

fn read_name(args: &Args<'_>) -> Result<config::Template, Invalid> {
    read::template(args)
}

struct Charset {
    name: Template,
    source: Option<Template>,
    overrides: bool,
    types: TypeList,
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let name = scope.get(&CHARSET);
    let source = scope.find_spanned(&SOURCE_CHARSET);
    let overrides = scope.get(&OVERRIDE_CHARSET);
    let mut lines = scope.all(&CHARSET_TYPES);
    if lines.is_empty() {
        lines.push(TYPES.into_iter().map(str::to_owned).collect());
    }
    let Some(name) = name else { return };
    if let Some((source, span)) = &source
        && let (Some(from), Some(to)) = (source.constant(), name.constant())
        && !from.eq_ignore_ascii_case(to)
    {
        let (from, to) = (Bytes(from), Bytes(to));
        let reason = format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
        scope.error(*span, reason);
        return;
    }
    builder.filter(Charset {
        name: c.template(&name),
        source: source.map(|(source, _)| c.template(&source)),
        overrides,
        types: TypeList::compile(lines),
    });
}

impl Filter for Charset {
    fn apply(&self, x: &mut Exchange) {
        let Some(kind) = x.response.content_type.filter(|kind| !kind.is_empty()) else { return };
        let (kind, told) = match (x.response.charset, split(x.text(kind))) {
            (Some(charset), _) => (kind, Some(charset)),
            (None, Some((end, from, to))) => (kind.part(0, end), Some(kind.part(from, to))),
            (None, None) => (kind, None),
        };
        let concerned = match told {
            Some(_) => self.overrides,
            None => self.types.has(x),
        };
        if !concerned {
            return;
        }
        let name = self.name.value(x);
        let source = told.or_else(|| self.source.as_ref().map(|source| source.value(x)));
        if let Some(source) = source
            && !x.text(source).eq_ignore_ascii_case(x.text(name))
        {
            let (from, to) = (Bytes(x.text(source)), Bytes(x.text(name)));
            let reason =
                format_args!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"");
            x.log_error(Level::Error, reason);
            return;
        }
        x.response.content_type = Some(kind);
        x.response.charset =
            (!matches!(x.response.status, 301 | 302) && is_word(x, name)).then_some(name);
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
