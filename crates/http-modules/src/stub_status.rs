//! Counts of connections and requests over all workers (nginx: ngx_http_stub_status_module).

use config::{AnyDirective, Arity, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Content, Exchange, LocationBuilder, Module, Step, Verdict};
use net::{Chunk, Data};
use session::contexts::{LOCATION, SERVER};
use session::counters::{self, Totals};
use session::text::Span;
use session::variables::Builtin;
use wire::http1::Method;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: VARIABLES,
    location: Some(attach),
    ..Module::new("http_stub_status", "Counts of connections and requests.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&STUB_STATUS];

/// `stub_status`.
pub static STUB_STATUS: Directive<()> =
    Directive::new("stub_status", &[SERVER, LOCATION], read::nothing)
        .takes(Arity::Between(0, 1))
        .syntax("stub_status;")
        .text(
            "Answers GET and HEAD with counts of connections and requests as text, over all \
             workers: connections open now; accepted, served, and requests since the start; \
             requests being read, being answered, and connections that wait for one.",
        )
        .example("location = /status { stub_status; allow 127.0.0.1; deny all; }");

static VARIABLES: &[Builtin<Exchange>] = &[
    Builtin::volatile("connections_active", |x| tell(x, |t| t.active), "Connections open now."),
    Builtin::volatile("connections_reading", |x| tell(x, |t| t.reading), "Requests being read."),
    Builtin::volatile(
        "connections_writing",
        |x| tell(x, |t| t.writing),
        "Requests being answered.",
    ),
    Builtin::volatile(
        "connections_waiting",
        |x| tell(x, |t| t.waiting),
        "Connections that wait for a request.",
    ),
];

fn tell(x: &mut Exchange, which: fn(&Totals) -> u64) -> Option<Span> {
    Some(x.arena.number(which(&counters::totals())))
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    if scope.has_local(&STUB_STATUS) {
        builder.handler(StubStatus);
    }
}

struct StubStatus;

impl Content for StubStatus {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if !matches!(x.request.method, Method::Get | Method::Head) {
            return Step::Now(Verdict::Status(405));
        }
        let now = counters::totals();
        let text = format!(
            "Active connections: {} \nserver accepts handled requests\n {} {} {} \n\
             Reading: {} Writing: {} Waiting: {} \n",
            now.active,
            now.accepted,
            now.handled,
            now.requests,
            now.reading,
            now.writing,
            now.waiting
        );
        answer_text(x, b"text/plain", text.as_bytes())
    }
}

/// Answers with a text made for this request.
pub(crate) fn answer_text<'a>(x: &mut Exchange, media_type: &[u8], text: &[u8]) -> Step<'a> {
    x.response.content_type = Some(x.arena.push(media_type));
    let response = &mut x.response;
    response.status = 200;
    response.length = Some(text.len() as u64);
    response.body = Body::Whole(Data::Memory(Chunk::copy_of(text)));
    Step::Now(Verdict::Answer)
}
