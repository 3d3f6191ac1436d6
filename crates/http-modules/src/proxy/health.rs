//! `health_check` of a location that passes requests on: the group's servers are asked by the
//! keeper whether they are well. The checks themselves are in crate `upstream`.

use super::directives::{PROXY_PASS, PROXY_SET_HEADER};
use super::family::Family;
use super::target::Target;
use crate::grpc::{GRPC_PASS, GRPC_SET_HEADER};
use config::Scope;
use http::{Compiler, LocationBuilder, Module};
use session::tls::Outgoing;
use system::identity::identity;
use upstream::health::{self, HEALTH_CHECK, Kind, Patience, Place};

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
        && !scope.has_local(&GRPC_PASS)
    {
        let reason =
            "\"health_check\" requires \"proxy_pass\" or \"grpc_pass\" in the same location";
        scope.error(span, reason);
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
    let name = family.name;
    let Target::Fixed(fixed) = target else {
        let reason = format!("\"health_check\" requires a \"{name}_pass\" without variables");
        scope.error(span, reason);
        return;
    };
    let is_grpc = name == "grpc";
    let reason = match line.kind {
        Kind::Grpc if !is_grpc => Some("\"type=grpc\" requires \"grpc_pass\""),
        Kind::Native if is_grpc => Some("\"health_check\" of \"grpc_pass\" requires \"type=grpc\""),
        _ => None,
    };
    if let Some(reason) = reason {
        scope.error(span, reason);
        return;
    }
    let alpn = if is_grpc { vec![b"h2".to_vec()] } else { Vec::new() };
    let set = scope.all(if is_grpc { &GRPC_SET_HEADER } else { &PROXY_SET_HEADER });
    let secure = family.secure.as_ref().filter(|_| fixed.secure).and_then(|secure| {
        Outgoing::compile(scope, secure.towards, alpn, &mut |source| c.template(source))
    });
    let host = String::from_utf8_lossy(&fixed.host);
    let secure = secure.map(|outgoing| (outgoing, Box::from(&*host)));
    let place = Place {
        group: fixed.group.clone(),
        fields: &fields(&set, &fixed.host),
        patience: Patience {
            connect_ms: scope.get(family.connect_timeout),
            talk_ms: scope.get(family.read_timeout),
        },
        log: log.clone(),
        secure,
    };
    if let Some(check) = health::compile(scope, line, span, place) {
        c.follow(check);
    }
}

/// The fields of the check's request: what `proxy_set_header` says without variables, a host, and
/// who asks.
fn fields(set: &[(Vec<u8>, config::Template)], host: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut write = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    let is = |name: &[u8], wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let mut seen = (false, false);
    for (name, value) in set {
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
