//! Replacing texts in answers (nginx: ngx_http_sub_filter_module).
//!
//! This file has the directives and what becomes of the answer's head; `search` finds texts in a
//! stream, `body` replaces them while the body passes.

mod body;
mod search;

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::{Body, Exchange, Filter, LocationBuilder, Module};
use net::Chunk;
use session::contexts::{HTTP, LOCATION, SERVER};
use session::variables::Template;
use std::rc::Rc;
use wire::http1::Known;

use crate::output;
use crate::type_list::{self, TypeList};
use body::{Replaced, Replacements};
use search::{MOST, Patterns};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_sub",
        "Replaces texts in the bodies of answers while they pass, whoever made them. Compressed \
         answers are not looked into: ask backends for plain ones with \
         `proxy_set_header Accept-Encoding \"\"`.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&SUB_FILTER, &SUB_FILTER_TYPES, &SUB_FILTER_ONCE, &SUB_FILTER_LAST_MODIFIED];

/// `sub_filter`, see [`Line`].
pub static SUB_FILTER: Directive<Line> = Directive::new("sub_filter", PLACES, read_line)
    .takes(Arity::Exactly(2))
    .many()
    .syntax("sub_filter TEXT REPLACEMENT;")
    .text(
        "Replaces TEXT, in any case of its letters, by REPLACEMENT. Both may hold variables. With \
         several lines all texts are looked for at once: the leftmost match is replaced, and of \
         texts that begin at the same place the one whose line comes first. Replacements are not \
         searched again. A level with lines of its own does not inherit others. An answer that is \
         searched is sent without Content-Length and cannot be asked for in parts.",
    )
    .example("sub_filter http://backend.internal/ https://$host/;");

/// `sub_filter_types`.
pub static SUB_FILTER_TYPES: Directive<Vec<String>> =
    Directive::new("sub_filter_types", PLACES, type_list::read)
        .takes(Arity::AtLeast(1))
        .many()
        .default("text/html")
        .syntax("sub_filter_types TYPE ...;")
        .text(
            "Answers of which media types are searched, besides text/html, which always is. `*` \
             stands for any type.",
        )
        .example("sub_filter_types text/css application/json;");

/// `sub_filter_once`.
pub static SUB_FILTER_ONCE: Directive<bool> = Directive::new("sub_filter_once", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("on")
    .syntax("sub_filter_once on | off;")
    .text("Whether each text is replaced at its first appearance only, or everywhere.")
    .example("sub_filter_once off;");

/// `sub_filter_last_modified`.
pub static SUB_FILTER_LAST_MODIFIED: Directive<bool> =
    Directive::new("sub_filter_last_modified", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("sub_filter_last_modified on | off;")
        .text(
            "Whether searched answers keep Last-Modified, and ETag in its weak form, so that \
             clients may cache them. Leave it off where replacements change on their own.",
        )
        .example("sub_filter_last_modified on;");

/// `sub_filter` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is looked for.
    pub text: config::Template,
    /// What stands in its place.
    pub replacement: config::Template,
}

fn read_line(args: &Args<'_>) -> Result<Line, Invalid> {
    if args.word(0).bytes().is_empty() {
        return Err(Invalid::new("empty search pattern").at(0));
    }
    Ok(Line { text: read::template_at(args, 0)?, replacement: read::template_at(args, 1)? })
}

/// A text and its replacement.
struct Pair {
    text: Template,
    replacement: Template,
    /// The replacement, when it is always the same.
    constant: Option<Chunk>,
}

/// The texts of a level.
enum Texts {
    /// The same for each request.
    Fixed { patterns: Rc<Patterns>, places: Rc<[usize]> },
    /// Some have variables.
    Computed,
}

struct SubFilter {
    pairs: Rc<[Pair]>,
    texts: Texts,
    types: TypeList,
    once: bool,
    keeps_age: bool,
    block: usize,
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let lines = scope.nodes(&SUB_FILTER);
    let types = TypeList::compile(scope.all(&SUB_FILTER_TYPES));
    let once = scope.get(&SUB_FILTER_ONCE);
    let keeps_age = scope.get(&SUB_FILTER_LAST_MODIFIED);
    if let Some((_, place)) = lines.get(MOST) {
        scope.error(*place, format!("number of search patterns exceeds {MOST}"));
        return;
    }
    if lines.is_empty() {
        return;
    }
    let pairs: Rc<[Pair]> = lines.into_iter().map(|(line, _)| Pair::compile(c, &line)).collect();
    let constants: Option<Vec<Vec<u8>>> =
        pairs.iter().map(|pair| pair.text.as_constant().map(<[u8]>::to_vec)).collect();
    let texts = match constants {
        Some(texts) => Texts::Fixed {
            patterns: Rc::new(Patterns::new(&texts)),
            places: (0..texts.len()).collect(),
        },
        None => Texts::Computed,
    };
    let block = output::block_size(scope);
    builder.filter(SubFilter { pairs, texts, types, once, keeps_age, block });
}

impl Pair {
    fn compile(c: &mut Compiler<'_>, line: &Line) -> Pair {
        let replacement = c.template(&line.replacement);
        let constant = replacement.as_constant().map(Chunk::copy_of);
        Pair { text: c.template(&line.text), replacement, constant }
    }
}

impl SubFilter {
    /// The texts to look for in the answer at hand; `None` when all of them are empty.
    fn texts(&self, x: &mut Exchange) -> Option<(Rc<Patterns>, Rc<[usize]>)> {
        if let Texts::Fixed { patterns, places } = &self.texts {
            return Some((patterns.clone(), places.clone()));
        }
        let mut texts = Vec::with_capacity(self.pairs.len());
        let mut places = Vec::with_capacity(self.pairs.len());
        for (place, pair) in self.pairs.iter().enumerate() {
            let span = pair.text.value(x);
            if !span.is_empty() {
                texts.push(x.text(span).to_vec());
                places.push(place);
            }
        }
        match texts.is_empty() {
            true => None,
            false => Some((Rc::new(Patterns::new(&texts)), places.into())),
        }
    }

    /// The answer will have another length and other bytes than its head says so far.
    fn adapt_head(&self, x: &mut Exchange) {
        let response = &mut x.response;
        response.length = None;
        response.allow_ranges = false;
        response.headers.remove(Known::AcceptRanges);
        if self.keeps_age {
            weaken_etag(x);
            return;
        }
        response.last_modified = None;
        response.headers.remove(Known::LastModified);
        response.headers.remove(Known::Etag);
    }
}

impl Filter for SubFilter {
    fn apply(&self, x: &mut Exchange) {
        if matches!(x.response.body, Body::Tunnel(_))
            || x.response.length == Some(0)
            || !self.types.has(x)
        {
            return;
        }
        let Some((patterns, places)) = self.texts(x) else { return };
        if x.is_main() {
            self.adapt_head(x);
        }
        let body = match std::mem::take(&mut x.response.body) {
            Body::Empty => return,
            body => Body::Stream(Box::new(output::Reader::new(body, self.block))),
        };
        let pairs = self.pairs.clone();
        let replacements = Replacements { patterns, places, pairs, once: self.once };
        x.response.body = Body::Stream(Box::new(Replaced::new(body, replacements)));
    }
}

/// Makes the answer's ETag a weak one: the body is equivalent to the one it named, not equal
/// (RFC 9110 section 8.8.1). What is no entity tag is removed.
pub(crate) fn weaken_etag(x: &mut Exchange) {
    let Some(tag) = x.response.headers.value(Known::Etag) else { return };
    match x.text(tag) {
        [b'W', b'/', _, ..] => {}
        [b'"', ..] => {
            let mark = x.arena.mark();
            x.arena.push(b"W/");
            x.arena.copy(tag);
            let weak = x.arena.since(mark);
            x.response.headers.set_known(Known::Etag, weak);
        }
        _ => x.response.headers.remove(Known::Etag),
    }
}
