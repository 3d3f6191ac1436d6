//! `proxy_redirect`: rewrites places that backends name into places that clients can reach.

use super::directives::{self as d, Redirect};
use super::target::Target;
use config::Scope;
use http::location::Pattern;
use http::{Compiler, Exchange};
use session::regex::Case;
use session::text::Span;
use session::variables::Template;

/// The rules of one location, tried in order.
#[derive(Default)]
pub(super) struct Redirects {
    rules: Vec<Rule>,
}

enum Rule {
    /// A beginning, and what replaces it.
    Text(Template, Template),
    /// A pattern, and what replaces the whole.
    Pattern(Pattern, Template),
    /// The URL of a `proxy_pass` with variables gives no default.
    Never,
}

impl Redirects {
    pub(super) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>, target: &Target) -> Redirects {
        let mut redirects = Redirects::default();
        let mut nodes: Vec<_> =
            scope.nodes(&d::PROXY_REDIRECT).into_iter().map(|(r, span)| (r, Some(span))).collect();
        if nodes.is_empty() {
            nodes.push((Redirect::Default, None));
        }
        for (redirect, span) in nodes {
            let rule = match redirect {
                Redirect::Off => return Redirects::default(),
                Redirect::Default => match default(target) {
                    Some(rule) => Ok(rule),
                    None if span.is_some() => Err(
                        "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive \
                         with variables"
                            .to_owned(),
                    ),
                    None => Ok(Rule::Never),
                },
                Redirect::Text(from, to) => Ok(Rule::Text(c.template(&from), c.template(&to))),
                Redirect::Pattern(pattern, ignored, to) => {
                    let case = if ignored { Case::Ignored } else { Case::Sensitive };
                    c.pattern(&pattern, case).map(|p| Rule::Pattern(p, c.template(&to)))
                }
            };
            match rule {
                Ok(rule) => redirects.rules.push(rule),
                Err(reason) => scope.error(span, reason),
            }
        }
        redirects
    }

    /// The place that the client is told in place of `value`; `None` when no rule applies.
    pub(super) fn apply(&self, x: &mut Exchange, value: Span) -> Option<Span> {
        for rule in &self.rules {
            match rule {
                Rule::Text(from, to) => {
                    let from = from.value(x);
                    let length = from.len as usize;
                    if !x.text(value).starts_with(x.text(from)) {
                        continue;
                    }
                    let to = to.value(x);
                    let mark = x.arena.mark();
                    x.arena.copy(to);
                    x.arena.copy(value.after(length));
                    return Some(x.arena.since(mark));
                }
                Rule::Pattern(pattern, to) => {
                    if let Ok(true) = pattern.matches(x, value) {
                        return Some(to.value(x));
                    }
                }
                Rule::Never => {}
            }
        }
        None
    }

    /// The same for a Refresh: only what follows `url=` is a place.
    pub(super) fn apply_to_refresh(&self, x: &mut Exchange, value: Span) -> Option<Span> {
        let text = x.text(value);
        let at = text.windows(4).position(|part| part.eq_ignore_ascii_case(b"url="))? + 4;
        let place = self.apply(x, value.after(at))?;
        let mark = x.arena.mark();
        x.arena.copy(value.part(0, at));
        x.arena.copy(place);
        Some(x.arena.since(mark))
    }
}

/// The URL of `proxy_pass` becomes the location's name.
fn default(target: &Target) -> Option<Rule> {
    let Target::Fixed(fixed) = target else { return None };
    let from = Template::constant(&fixed.url);
    let to = Template::constant(match &fixed.path {
        Some(_) => &fixed.name,
        None => b"/",
    });
    if fixed.path.is_none() {
        let mut url = fixed.url.to_vec();
        url.push(b'/');
        return Some(Rule::Text(Template::constant(&url), to));
    }
    Some(Rule::Text(from, to))
}
