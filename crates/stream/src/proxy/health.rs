//! `health_check` of a server that passes sessions on: the group's servers are asked by the keeper
//! whether they are well. The checks themselves are in crate `upstream`.

use config::{AnyDirective, Directive, Scope, read};
use session::contexts::{STREAM, STREAM_SERVER};
use upstream::health::{self, HEALTH_CHECK, Patience, Place};

use super::directives::{PROXY_CONNECT_TIMEOUT, PROXY_PASS};
use super::target::Target;
use crate::compile::Compiler;
use crate::module::Module;
use crate::server::ServerBuilder;

/// The module. Where a check goes is known when `proxy_pass` is compiled: see [`attach`].
pub(crate) static MODULE: Module = Module {
    directives: DIRECTIVES,
    server: Some(complain),
    ..Module::new(
        "stream_upstream_hc",
        "Asks servers of groups whether they are well: `health_check` and `match`, which are \
         described for http.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&HEALTH_CHECK_TIMEOUT];

/// `health_check_timeout`.
static HEALTH_CHECK_TIMEOUT: Directive<u64> =
    Directive::new("health_check_timeout", &[STREAM, STREAM_SERVER], read::time_ms)
        .default("5s")
        .syntax("health_check_timeout TIME;")
        .text("How long a server may take for a check, besides the time to connect.")
        .example("health_check_timeout 1s;");

/// A check needs something to check.
fn complain(_: &mut Compiler<'_>, scope: &Scope<'_>, _: &mut ServerBuilder) {
    if let Some((_, span)) = scope.local_spanned(&HEALTH_CHECK)
        && !scope.has_local(&PROXY_PASS)
    {
        scope.error(span, "\"health_check\" requires \"proxy_pass\" in the same server");
    }
}

/// Compiles the check of a server whose `proxy_pass` means `target`.
pub(super) fn attach(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    builder: &ServerBuilder,
    target: &Target,
) {
    let Some((line, span)) = scope.local_spanned(&HEALTH_CHECK) else { return };
    let Target::Fixed(group) = target else {
        scope.error(span, "\"health_check\" requires a \"proxy_pass\" without variables");
        return;
    };
    let place = Place {
        group: group.clone(),
        fields: b"",
        patience: Patience {
            connect_ms: scope.get(&PROXY_CONNECT_TIMEOUT),
            talk_ms: scope.get(&HEALTH_CHECK_TIMEOUT),
        },
        log: builder.server.error_log.clone(),
        secure: super::settings::ssl(c, scope).map(|outgoing| (outgoing, Box::from(group.name()))),
    };
    if let Some(check) = health::compile(scope, line, span, place) {
        c.follow(check);
    }
}
