//! `grpc_pass`: hands gRPC calls to servers (nginx: ngx_http_grpc_module).
//!
//! A call is a request over HTTP/2 whose body and answer flow at the same time and whose outcome
//! stands in trailers; all of that is what `proxy_pass` with `proxy_http_version 2` does when
//! nothing is buffered.

use config::{AnyDirective, Context, Scope};
use http::compile::Compiler;
use http::{LocationBuilder, Module};
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT, LOCATION};
use session::tls::towards;

use crate::parameters;
use crate::proxy::family::{Secure, family};
use crate::proxy::pass_calls;

family!(
    "grpc",
    "a server",
    secure: Some(Secure { scheme: "grpcs://", towards: &towards::GRPC }),
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
    Directive::new("grpc_pass", PASS_PLACES, read::template)
        .syntax("grpc_pass [grpc:// | grpcs://]ADDRESS;")
        .text(
            "Passes calls to the server at ADDRESS: a host with a port, `unix:PATH`, or the name \
             of a group. `grpcs://` means over TLS (see `grpc_ssl_verify`), `grpc://` or nothing \
             without. It may hold variables.",
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

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let Some((address, place)) = parameters::pass(scope, &GRPC_PASS) else { return };
    if let Err(reason) = pass_calls(c, scope, builder, &FAMILY, &address, &GRPC_SET_HEADER) {
        scope.error(place, reason);
    }
}
