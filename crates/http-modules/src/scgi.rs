//! `scgi_pass`: hands a request to a program by SCGI (nginx: ngx_http_scgi_module).

use config::{AnyDirective, Context, Scope};
use http::compile::Compiler;
use http::{LocationBuilder, Module};
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT, LOCATION};

use crate::parameters::{self, Line};
use crate::proxy::family::family;
use crate::proxy::gateway::{Gateway, Protocol};
use crate::proxy::pass_by_gateway;

family!(
    "scgi",
    "a program",
    secure: None,
    next: "error | timeout | invalid_header | http_500 | http_503 | http_403 | http_404 | \
           http_429 | non_idempotent | off ...",
    next::NAMES
);

const PASS_PLACES: &[Context] = &[LOCATION, IF_LOCATION, LIMIT_EXCEPT];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_scgi",
        "Passes requests to programs by SCGI. What the settings do is what those of `proxy_pass` \
         do that are called alike.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &SCGI_PASS,
    &SCGI_PARAM,
    &CONNECT_TIMEOUT,
    &SEND_TIMEOUT,
    &READ_TIMEOUT,
    &NEXT_UPSTREAM,
    &NEXT_UPSTREAM_TRIES,
    &NEXT_UPSTREAM_TIMEOUT,
    &SOCKET_KEEPALIVE,
    &SOCKET_RCVBUF,
    &SOCKET_SNDBUF,
    &FORCE_RANGES,
    &BIND,
    &BUFFER_SIZE,
    &PASS_REQUEST_HEADERS,
    &PASS_REQUEST_BODY,
    &REQUEST_BUFFERING,
    &INTERCEPT_ERRORS,
    &IGNORE_CLIENT_ABORT,
    &LIMIT_RATE,
    &HIDE_HEADER,
    &PASS_HEADER,
    &IGNORE_HEADERS,
    &BUFFERING,
    &BUFFERS,
    &BUSY_BUFFERS_SIZE,
    &MAX_TEMP_FILE_SIZE,
    &TEMP_FILE_WRITE_SIZE,
    &TEMP_PATH,
    &STORE,
    &STORE_ACCESS,
];

/// `scgi_pass`.
pub static SCGI_PASS: Directive<config::Template> =
    Directive::new("scgi_pass", PASS_PLACES, read::template)
        .syntax("scgi_pass ADDRESS;")
        .text(
            "Passes requests to the program at ADDRESS: a host with a port, `unix:PATH`, or the \
             name of a group. It may hold variables.",
        )
        .example(
            "location / { scgi_param REQUEST_METHOD $request_method; scgi_pass 127.0.0.1:9000; }",
        );

/// `scgi_param`.
pub static SCGI_PARAM: Directive<Line> =
    Directive::new("scgi_param", PLACES, parameters::read_line)
        .takes(Arity::Between(2, 3))
        .many()
        .syntax("scgi_param NAME VALUE [if_not_empty];")
        .text(
            "What the program is told about the request; with `if_not_empty` only what is not \
             empty. The length of the body is told in any case, and the client's fields are as \
             `HTTP_NAME` unless a parameter has that name. A level with lines of its own does not \
             inherit others.",
        )
        .example("scgi_param SCGI 1;");

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let Some((address, place)) = parameters::pass(scope, &SCGI_PASS) else { return };
    let parameters = parameters::compile(c, scope, &SCGI_PARAM, &FAMILY);
    let gateway = Gateway { protocol: Protocol::Scgi, parameters };
    if let Err(reason) = pass_by_gateway(c, scope, builder, &FAMILY, &address, gateway) {
        scope.error(place, reason);
    }
}
