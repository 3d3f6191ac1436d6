//! `memcached_pass`: answers from memcached (nginx: ngx_http_memcached_module).

use config::{AnyDirective, Context, Scope};
use http::compile::Compiler;
use http::{LocationBuilder, Module};
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT, LOCATION};

use crate::parameters;
use crate::proxy::family::family;
use crate::proxy::gateway::{Gateway, Parameters, Protocol};
use crate::proxy::pass_by_gateway;

family!(
    "memcached",
    "memcached",
    secure: None,
    next: "error | timeout | invalid_response | not_found | off ...",
    NEXT
);

/// Words of `memcached_next_upstream`.
const NEXT: &[(&str, u32)] = &[
    ("error", next::ERROR),
    ("timeout", next::TIMEOUT),
    ("invalid_response", next::INVALID_HEADER),
    ("not_found", next::HTTP_404),
    ("off", next::OFF),
];

const PASS_PLACES: &[Context] = &[LOCATION, IF_LOCATION, LIMIT_EXCEPT];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_memcached",
        "Answers with items of memcached. What the settings do is what those of `proxy_pass` do \
         that are called alike.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &MEMCACHED_PASS,
    &MEMCACHED_GZIP_FLAG,
    &CONNECT_TIMEOUT,
    &SEND_TIMEOUT,
    &READ_TIMEOUT,
    &NEXT_UPSTREAM,
    &NEXT_UPSTREAM_TRIES,
    &NEXT_UPSTREAM_TIMEOUT,
    &SOCKET_KEEPALIVE,
    &BIND,
    &BUFFER_SIZE,
];

/// `memcached_pass`.
pub static MEMCACHED_PASS: Directive<config::Template> =
    Directive::new("memcached_pass", PASS_PLACES, read::template)
        .syntax("memcached_pass ADDRESS;")
        .text(
            "Answers GET and HEAD with the item that `$memcached_key` names, which `set` must \
             set, from the memcached at ADDRESS: a host with a port, `unix:PATH`, or the name of a \
             group. It may hold variables. An item that is not there is 404, which `error_page` \
             can lead to whoever makes it.",
        )
        .example("set $memcached_key $uri; memcached_pass 127.0.0.1:11211;");

/// `memcached_gzip_flag`.
pub static MEMCACHED_GZIP_FLAG: Directive<u64> =
    Directive::new("memcached_gzip_flag", PLACES, read::number)
        .syntax("memcached_gzip_flag FLAG;")
        .text(
            "The bit of an item's flags that says that it is compressed: the answer then has \
             `Content-Encoding: gzip`.",
        )
        .example("memcached_gzip_flag 2;");

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let flag = scope.find(&MEMCACHED_GZIP_FLAG).unwrap_or(0);
    let Some((address, place)) = parameters::pass(scope, &MEMCACHED_PASS) else { return };
    let key = match c.variables.assignable("memcached_key") {
        Ok(key) => key,
        Err(reason) => return scope.error(place, reason),
    };
    let protocol = Protocol::Memcached { key, gzip_flag: u32::try_from(flag).unwrap_or(u32::MAX) };
    let gateway = Gateway { protocol, parameters: Parameters::default() };
    if let Err(reason) = pass_by_gateway(c, scope, builder, &FAMILY, &address, gateway) {
        scope.error(place, reason);
    }
}
