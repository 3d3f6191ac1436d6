//! `grpc_pass`: hands gRPC calls to servers (nginx: ngx_http_grpc_module).
//!
//! A call is a request over HTTP/2 whose body and answer flow at the same time and whose outcome
//! stands in trailers; all of that is what `proxy_pass` with `proxy_http_version 2` does when
//! nothing is buffered.

use config::{AnyDirective, Args, Context, Invalid, Scope};
use http::compile::Compiler;
use http::{LocationBuilder, Module};
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT, LOCATION};

use crate::parameters;
use crate::proxy::family::family;
use crate::proxy::pass_calls;

family!(
    "grpc",
    "a server",
    next: "error | timeout | invalid_header | http_500 | http_502 | http_503 | http_504 | \
           http_403 | http_404 | http_429 | non_idempotent | off ...",
    next::NAMES
);

const PASS_PLACES: &[Context] = &[LOCATION, IF_LOCATION, LIMIT_EXCEPT];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_grpc",
        "Passes gRPC calls to servers, over HTTP/2. What the settings do is what those of \
         `proxy_pass` do that are called alike; nothing of a call is buffered.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &GRPC_PASS,
    &GRPC_SET_HEADER,
    &CONNECT_TIMEOUT,
    &SEND_TIMEOUT,
    &READ_TIMEOUT,
    &NEXT_UPSTREAM,
    &NEXT_UPSTREAM_TRIES,
    &NEXT_UPSTREAM_TIMEOUT,
    &SOCKET_KEEPALIVE,
    &SOCKET_RCVBUF,
    &SOCKET_SNDBUF,
    &BIND,
    &BUFFER_SIZE,
    &INTERCEPT_ERRORS,
    &HIDE_HEADER,
    &PASS_HEADER,
    &IGNORE_HEADERS,
];

/// `grpc_pass`.
pub static GRPC_PASS: Directive<config::Template> =
    Directive::new("grpc_pass", PASS_PLACES, read_pass)
        .syntax("grpc_pass ADDRESS;")
        .text(
            "Passes calls to the server at ADDRESS, with or without `grpc://` before it: a host \
             with a port, `unix:PATH`, or the name of a group. It may hold variables.",
        )
        .example("location / { grpc_pass grpc://127.0.0.1:50051; }");

/// `grpc_set_header`.
pub static GRPC_SET_HEADER: Directive<(Vec<u8>, config::Template)> =
    Directive::new("grpc_set_header", PLACES, crate::proxy::read_set_header)
        .takes(Arity::Exactly(2))
        .many()
        .syntax("grpc_set_header FIELD VALUE;")
        .text(
            "A field of the request to the server, in place of the client's of that name; with \
             an empty value there is none. A level with lines of its own does not inherit others.",
        )
        .example("grpc_set_header X-Real-IP $remote_addr;");

/// An address without its scheme.
fn read_pass(args: &Args<'_>) -> Result<config::Template, Invalid> {
    let mut address = read::template(args)?;
    if let Some(config::Part::Text(text)) = address.parts.first_mut() {
        if text.starts_with(b"grpcs://") {
            return Err(Invalid::new("TLS to gRPC servers is not available").at(0));
        }
        if let Some(rest) = text.strip_prefix(b"grpc://") {
            *text = rest.to_vec();
        }
    }
    Ok(address)
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let Some((address, place)) = parameters::pass(scope, &GRPC_PASS) else { return };
    if let Err(reason) = pass_calls(c, scope, builder, &FAMILY, &address, &GRPC_SET_HEADER) {
        scope.error(place, reason);
    }
}
