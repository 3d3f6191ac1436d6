//! `uwsgi_pass`: hands a request to a program by the uwsgi protocol
//! (nginx: ngx_http_uwsgi_module).

use config::{AnyDirective, Args, Context, Invalid, Scope};
use http::compile::Compiler;
use http::{LocationBuilder, Module};
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT, LOCATION};
use session::tls::towards;

use crate::parameters::{self, Line};
use crate::proxy::family::{Secure, family};
use crate::proxy::gateway::{Gateway, Protocol};
use crate::proxy::pass_by_gateway;

family!(
    "uwsgi",
    "a program",
    secure: Some(Secure { scheme: "suwsgi://", towards: &towards::UWSGI }),
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
        "http_uwsgi",
        "Passes requests to programs by the uwsgi protocol. What the settings do is what those of \
         `proxy_pass` do that are called alike.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &UWSGI_PASS,
    &UWSGI_PARAM,
    &UWSGI_MODIFIER1,
    &UWSGI_MODIFIER2,
    &UWSGI_STRING,
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

/// `uwsgi_pass`.
pub static UWSGI_PASS: Directive<config::Template> =
    Directive::new("uwsgi_pass", PASS_PLACES, read::template)
        .syntax("uwsgi_pass [uwsgi:// | suwsgi://]ADDRESS;")
        .text(
            "Passes requests to the program at ADDRESS: a host with a port, `unix:PATH`, or the \
             name of a group. `suwsgi://` means over TLS (see `uwsgi_ssl_verify`), `uwsgi://` or \
             nothing without. It may hold variables.",
        )
        .example(
            "location / { uwsgi_param REQUEST_METHOD $request_method; uwsgi_pass 127.0.0.1:9000; }",
        );

/// `uwsgi_param`.
pub static UWSGI_PARAM: Directive<Line> =
    Directive::new("uwsgi_param", PLACES, parameters::read_line)
        .takes(Arity::Between(2, 3))
        .many()
        .syntax("uwsgi_param NAME VALUE [if_not_empty];")
        .text(
            "What the program is told about the request; with `if_not_empty` only what is not \
             empty. The client's fields are told as `HTTP_NAME` unless a parameter has that name. \
             A level with lines of its own does not inherit others.",
        )
        .example("uwsgi_param REQUEST_METHOD $request_method;");

/// `uwsgi_modifier1`.
pub static UWSGI_MODIFIER1: Directive<u8> =
    Directive::new("uwsgi_modifier1", PLACES, read_modifier)
        .default("0")
        .syntax("uwsgi_modifier1 NUMBER;")
        .text("The first modifier of requests, from 0 to 255: which plugin of uWSGI serves them.")
        .example("uwsgi_modifier1 5;");

/// `uwsgi_modifier2`.
pub static UWSGI_MODIFIER2: Directive<u8> =
    Directive::new("uwsgi_modifier2", PLACES, read_modifier)
        .default("0")
        .syntax("uwsgi_modifier2 NUMBER;")
        .text("The second modifier of requests, from 0 to 255.")
        .example("uwsgi_modifier2 1;");

/// `uwsgi_string`.
pub static UWSGI_STRING: Directive<Vec<u8>> = Directive::new("uwsgi_string", PLACES, read::bytes)
    .syntax("uwsgi_string TEXT;")
    .text("What stands as it is behind the parameters of requests, for some modifiers.")
    .example("uwsgi_string \"print('hello')\";");

fn read_modifier(args: &Args<'_>) -> Result<u8, Invalid> {
    let number = read::number(args)?;
    u8::try_from(number).map_err(|_| Invalid::new("value must be between 0 and 255").at(0))
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let Some((address, place)) = parameters::pass(scope, &UWSGI_PASS) else { return };
    let parameters = parameters::compile(c, scope, &UWSGI_PARAM, &FAMILY);
    let modifiers = (scope.get(&UWSGI_MODIFIER1), scope.get(&UWSGI_MODIFIER2));
    let text = scope.find(&UWSGI_STRING).unwrap_or_default().into();
    let gateway = Gateway { protocol: Protocol::Uwsgi { modifiers, text }, parameters };
    if let Err(reason) = pass_by_gateway(c, scope, builder, &FAMILY, &address, gateway) {
        scope.error(place, reason);
    }
}
