//! Conditional requests: 304 Not Modified and 412 Precondition Failed (RFC 9110 section 13;
//! nginx: ngx_http_not_modified_filter_module, whose order of evaluation this follows).

use config::{AnyDirective, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Exchange, Filter, LocationBuilder, Module};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::text::Span;
use wire::http1::etag::{Comparison, matches};
use wire::http1::{Known, date};

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_not_modified",
        "Spares clients what they have already: If-None-Match and If-Modified-Since are answered \
         with 304, a condition in If-Match or If-Unmodified-Since that fails with 412.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&IF_MODIFIED_SINCE];

/// How `If-Modified-Since` is compared with the time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The field is not looked at.
    Off,
    /// Only the very time counts as unchanged.
    Exact,
    /// Any time that is not before the last change counts.
    Before,
}

/// `if_modified_since`.
pub static IF_MODIFIED_SINCE: Directive<Since> =
    Directive::new("if_modified_since", &[HTTP, SERVER, LOCATION], |args| {
        read::enumeration(
            args,
            &[("off", Since::Off), ("exact", Since::Exact), ("before", Since::Before)],
        )
    })
    .default("exact")
    .syntax("if_modified_since off | exact | before;")
    .text(
        "When the time in If-Modified-Since means that the client's copy is good: if it is the \
         very time of the last change (`exact`), if it is that or a later one (`before`), or \
         never (`off`).",
    )
    .example("if_modified_since before;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    builder.filter(NotModified { since: scope.get(&IF_MODIFIED_SINCE) });
}

struct NotModified {
    since: Since,
}

/// The conditions of a request.
#[derive(Default)]
struct Conditions {
    modified_since: Option<Span>,
    unmodified_since: Option<Span>,
    matching: Option<Span>,
    none_matching: Option<Span>,
}

/// What they lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Send,
    NotModified,
    Failed,
}

impl Filter for NotModified {
    fn apply(&self, x: &mut Exchange) {
        // A backend has judged the conditions itself.
        if x.response.status != 200 || x.response.proxied || !x.is_main() {
            return;
        }
        let Some(conditions) = Conditions::of(x) else { return };
        match conditions.outcome(x, self.since) {
            Outcome::Send => {}
            Outcome::NotModified => not_modified(x),
            Outcome::Failed => {
                x.response.reset();
                x.refused = Some(412);
            }
        }
    }
}

impl Conditions {
    fn of(x: &Exchange) -> Option<Conditions> {
        let mut found = Conditions::default();
        let mut any = false;
        for field in x.request.headers.iter() {
            let place = match field.known {
                Known::IfModifiedSince => &mut found.modified_since,
                Known::IfUnmodifiedSince => &mut found.unmodified_since,
                Known::IfMatch => &mut found.matching,
                Known::IfNoneMatch => &mut found.none_matching,
                _ => continue,
            };
            *place = Some(field.value);
            any = true;
        }
        any.then_some(found)
    }

    fn outcome(&self, x: &Exchange, since: Since) -> Outcome {
        let changed = last_modified(x);
        let etag = x.response.headers.value(Known::Etag).map(|tag| x.text(tag));
        let time = |span: Span| date::parse(x.text(span));
        if let Some(span) = self.unmodified_since
            && changed.is_none_or(|changed| time(span).is_none_or(|time| time < changed))
        {
            return Outcome::Failed;
        }
        if let Some(list) = self.matching
            && !matches(x.text(list), etag, Comparison::Strong)
        {
            return Outcome::Failed;
        }
        let is_modified = self.modified_since.map(|span| match (changed, time(span)) {
            (Some(changed), Some(time)) => match since {
                Since::Off => true,
                Since::Exact => time != changed,
                Since::Before => time < changed,
            },
            _ => true,
        });
        let is_other =
            self.none_matching.map(|list| !matches(x.text(list), etag, Comparison::Weak));
        match (is_modified, is_other) {
            (None, None) | (Some(true), _) | (_, Some(true)) => Outcome::Send,
            _ => Outcome::NotModified,
        }
    }
}

fn not_modified(x: &mut Exchange) {
    let response = &mut x.response;
    response.status = 304;
    response.status_line = None;
    response.content_type = None;
    response.charset = None;
    response.length = None;
    response.allow_ranges = false;
    response
        .headers
        .retain(|field| !matches!(field.known, Known::ContentEncoding | Known::AcceptRanges));
    response.body = Body::Empty;
}

/// When the content of the answer was changed last, in seconds since the epoch.
pub(crate) fn last_modified(x: &Exchange) -> Option<i64> {
    match x.response.last_modified {
        Some(time) => Some(time as i64),
        None => date::parse(x.text(x.response.headers.value(Known::LastModified)?)),
    }
}
