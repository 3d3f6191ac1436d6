//! `client_body_early_read`: the request's body is taken in before anything looks at the request
//! (nginx: ngx_http_read_early_body), so that `$request_body` may decide what happens to it.

use config::{AnyDirective, Arity, Directive, Scope, read};
use http::compile::Compiler;
use http::request_body::BodyError;
use http::{Exchange, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use session::contexts::{HTTP, SERVER};
use session::log::Level;
use session::variables::Template;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_early_read", "Takes bodies in before a location is chosen.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&CLIENT_BODY_EARLY_READ];

static CLIENT_BODY_EARLY_READ: Directive<Vec<config::Template>> =
    Directive::new("client_body_early_read", &[HTTP, SERVER], |args| {
        (0..args.len()).map(|i| read::template_at(args, i)).collect()
    })
    .takes(Arity::AtLeast(1))
    .syntax("client_body_early_read TEXT ...;")
    .text(
        "Takes the request's body in before a location is chosen when one of the texts, which \
         hold variables, is neither empty nor `0`. `$request_body` can then be used everywhere. \
         What the server itself says about bodies holds: `client_max_body_size` and the like.",
    )
    .example("client_body_early_read $is_json;");

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    if scope.context() != SERVER {
        return;
    }
    if let Some(texts) = scope.find(&CLIENT_BODY_EARLY_READ) {
        builder.guard(EarlyRead { texts: texts.iter().map(|text| c.template(text)).collect() });
    }
}

/// Stands in front of the server's rewrites.
struct EarlyRead {
    texts: Vec<Template>,
}

impl Guard for EarlyRead {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        let is_wanted = |text: &Template, x: &mut Exchange| {
            let value = text.value(x);
            !matches!(x.text(value), b"" | b"0")
        };
        if !x.is_main()
            || !x.body.exists()
            || x.body.stored.is_some()
            || !self.texts.iter().any(|text| is_wanted(text, x))
        {
            return Step::Now(Verdict::Next);
        }
        let max = x.location.settings.body_max;
        if let Some(length) = x.body.declared().filter(|length| max > 0 && *length > max) {
            let message = format_args!("client intended to send too large body: {length} bytes");
            x.log_error(Level::Error, message);
            return Step::Now(Verdict::Status(413));
        }
        Step::Later(Box::pin(async {
            match x.read_body().await {
                Ok(()) => Verdict::Next,
                Err(BodyError::Closed) => Verdict::Status(499),
                Err(error) => Verdict::Status(error.status()),
            }
        }))
    }
}
