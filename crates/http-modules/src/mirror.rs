//! Copies of requests whose answers nobody sees (nginx: ngx_http_mirror_module).
//!
//! A copy runs in a task of its own: neither the answer to the client nor the next request on its
//! connection waits for it.

use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use http::compile::Compiler;
use http::journey::{log_subrequest, subrequest};
use http::request_body::{BodyError, RequestBody};
use http::{Exchange, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use session::contexts::{HTTP, LOCATION, SERVER};

use crate::unread::Unread;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_mirror",
        "Sends copies of requests to other locations and drops the answers, so that a new version \
         of a service can be tried with real requests.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&MIRROR, &MIRROR_REQUEST_BODY];

/// `mirror`; `None` for `off`.
pub static MIRROR: Directive<Option<String>> = Directive::new("mirror", PLACES, |args| {
    let uri = read::text(args)?;
    Ok(Some(uri).filter(|uri| uri != "off"))
})
.many()
.syntax("mirror URI | off;")
.text(
    "Sends a copy of each request, with its method, fields and query, to URI within this server, \
     usually a location that is `internal` and proxies. The answer is dropped. Several lines make \
     several copies. `off` takes back what an outer level says; a level with lines of its own does \
     not inherit others.",
)
.example("mirror /mirror;");

/// `mirror_request_body`.
pub static MIRROR_REQUEST_BODY: Directive<bool> =
    Directive::new("mirror_request_body", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("on")
        .syntax("mirror_request_body on | off;")
        .text(
            "Whether copies have the request's body. The body is then taken in whole before the \
             request goes on, whatever `proxy_request_buffering` says.",
        )
        .example("mirror_request_body off;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let lines = scope.nodes(&MIRROR);
    let with_body = scope.get(&MIRROR_REQUEST_BODY);
    let is_off = lines.iter().any(|(uri, _)| uri.is_none());
    if is_off && let Some((_, place)) = lines.get(1) {
        scope.error(*place, "\"mirror\" directive is duplicate");
        return;
    }
    let uris: Vec<Box<[u8]>> =
        lines.into_iter().filter_map(|(uri, _)| uri).map(|uri| uri.into_bytes().into()).collect();
    if !uris.is_empty() {
        builder.guard(Mirror { uris, with_body });
    }
}

struct Mirror {
    uris: Vec<Box<[u8]>>,
    with_body: bool,
}

impl Guard for Mirror {
    fn stage(&self) -> Stage {
        Stage::Prepare
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if !x.is_main() {
            return Step::Now(Verdict::Next);
        }
        if !self.with_body || !x.body.exists() || x.body.stored.is_some() {
            self.send(x);
            return Step::Now(Verdict::Next);
        }
        Step::Later(Box::pin(async {
            match x.read_body().await {
                Ok(()) => {
                    self.send(x);
                    Verdict::Next
                }
                Err(BodyError::Closed) => {
                    // Nobody waits for an answer.
                    x.response.status = 499;
                    x.sent.logged_status = Some(499);
                    Verdict::Close
                }
                Err(error) => Verdict::Status(error.status()),
            }
        }))
    }
}

impl Mirror {
    fn send(&self, x: &mut Exchange) {
        for uri in &self.uris {
            let args = x.text(x.request.args).to_vec();
            let mut copy = x.subrequest(uri, &args);
            copy.request.method = x.request.method;
            copy.request.method_text = x.request.method_text;
            copy.background = true;
            if self.with_body {
                copy.body = x.body.copy_stored().unwrap_or_else(RequestBody::absent);
            }
            net::spawn(async move {
                let mut copy = subrequest(copy).await;
                Unread::of(&mut copy).drop_rest(&mut copy).await;
                log_subrequest(&mut copy);
            });
        }
    }
}
