//! `health_check` of a location that passes requests on: the group's servers are asked by the
//! keeper whether they are well. The checks themselves are in crate `upstream`.

use super::directives::{PROXY_CONNECT_TIMEOUT, PROXY_PASS, PROXY_READ_TIMEOUT, PROXY_SET_HEADER};
use super::family::Family;
use super::target::Target;
use config::Scope;
use http::{Compiler, Lifecycle, LocationBuilder, Module};
use session::tls::Outgoing;
use std::rc::Rc;
use system::identity::identity;
use upstream::health::{self, Check, HEALTH_CHECK, Patience, Place};

/// The module. Where a check goes is known when `proxy_pass` is compiled: see [`attach`].
pub static MODULE: Module = Module {
    directives: health::DIRECTIVES,
    location: Some(complain),
    ..Module::new(
        "http_upstream_hc",
        "Asks servers of groups whether they are well, and keeps requests away from those that \
         are not.",
    )
};

/// A check needs something to check.
fn complain(_: &mut Compiler<'_>, scope: &Scope<'_>, _: &mut LocationBuilder) {
    if let Some((_, span)) = scope.local_spanned(&HEALTH_CHECK)
        && !scope.has_local(&PROXY_PASS)
    {
        scope.error(span, "\"health_check\" requires \"proxy_pass\" in the same location");
    }
}

/// Compiles the check of a location whose requests go to `target`.
pub(super) fn attach(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    family: &Family,
    log: &session::log::Log,
    target: &Target,
) {
    let Some((line, span)) = scope.local_spanned(&HEALTH_CHECK) else { return };
    let Target::Fixed(fixed) = target else {
        scope.error(span, "\"health_check\" requires a \"proxy_pass\" without variables");
        return;
    };
    let secure = family.secure.as_ref().filter(|_| fixed.secure).and_then(|secure| {
        Outgoing::compile(scope, secure.towards, Vec::new(), &mut |source| c.template(source))
    });
    let host = String::from_utf8_lossy(&fixed.host);
    let secure = secure.map(|outgoing| (outgoing, Box::from(&*host)));
    let place = Place {
        group: fixed.group.clone(),
        fields: &fields(scope, &fixed.host),
        patience: Patience {
            connect_ms: scope.get(&PROXY_CONNECT_TIMEOUT),
            talk_ms: scope.get(&PROXY_READ_TIMEOUT),
        },
        log: log.clone(),
        secure,
    };
    if let Some(check) = health::compile(scope, line, span, place) {
        c.follow(Rc::new(Follower(check)));
    }
}

/// The fields of the check's request: what `proxy_set_header` says without variables, a host, and
/// who asks.
fn fields(scope: &Scope<'_>, host: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut write = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    let set = scope.all(&PROXY_SET_HEADER);
    let is = |name: &[u8], wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let mut seen = (false, false);
    for (name, value) in &set {
        let Some(value) = value.constant().filter(|value| !value.is_empty()) else { continue };
        if is(name, "Connection") || is(name, "Content-Length") || is(name, "Transfer-Encoding") {
            continue;
        }
        seen = (seen.0 || is(name, "Host"), seen.1 || is(name, "User-Agent"));
        write(name, value);
    }
    if !seen.0 {
        write(b"Host", host);
    }
    if !seen.1 {
        write(b"User-Agent", identity().program.as_bytes());
    }
    out
}

struct Follower(Rc<Check>);

impl Lifecycle for Follower {
    fn opened(&self) {
        self.0.prepare();
    }

    fn worker_began(&self, _: usize) {}

    fn worker_ends(&self) {
        self.0.end();
    }

    fn worker_died(&self, _: usize) {}

    fn wants_keeper(&self) -> bool {
        true
    }

    fn keeper_began(&self) {
        self.0.begin();
    }
}
