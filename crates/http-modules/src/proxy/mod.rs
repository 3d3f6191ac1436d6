//! `proxy_pass`: hands a request to a backend over HTTP/1 and its answer to the client
//! (nginx: ngx_http_proxy_module).
//!
//! `directives` declares, `target` says where to, `request` writes the backend's request from a
//! plan made at load time, `attempt` asks one peer, `pass` asks one after another, `response`
//! makes the client's answer of the backend's, `body` hands its body on under back-pressure.

mod attempt;
mod body;
mod cookies;
mod directives;
pub(crate) mod family;
pub(crate) mod gateway;
mod health;
mod http2;
mod pass;
mod redirect;
mod request;
mod response;
mod secure;
mod settings;
mod store;
mod target;
mod translate;
mod wrapping;

use config::Scope;
use http::location::Matching;
use http::{Compiler, Content, Exchange, LocationBuilder, Module, Step, Verdict};
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT};
use session::text::Span;
use session::variables::Builtin;
use settings::Settings;
use smallvec::SmallVec;
use std::rc::Rc;
use wire::http1::Method;

pub use health::MODULE as HEALTH_CHECK;

/// The module.
pub static MODULE: Module = Module {
    directives: directives::ALL,
    variables: VARIABLES,
    location: Some(attach),
    ..Module::new(
        "http_proxy",
        "Passes requests to other servers and their answers to the client. Requests are taken in \
         whole before a server is occupied, and answers are taken from it as fast as it gives \
         them, unless buffering is turned off.",
    )
};

static VARIABLES: &[Builtin<Exchange>] = &[
    Builtin::volatile("proxy_host", host, "Host and port that `proxy_pass` names."),
    Builtin::volatile("proxy_port", port, "The port that `proxy_pass` names, or the scheme's."),
    Builtin::volatile(
        "proxy_add_x_forwarded_for",
        add_x_forwarded_for,
        "The request's X-Forwarded-For with the client's address appended.",
    ),
];

fn host(x: &mut Exchange) -> Option<Span> {
    x.upstream.as_ref()?.place.map(|(host, _)| host)
}

fn port(x: &mut Exchange) -> Option<Span> {
    x.upstream.as_ref()?.place.map(|(_, port)| port)
}

fn add_x_forwarded_for(x: &mut Exchange) -> Option<Span> {
    let known = wire::http1::Known::XForwardedFor;
    let before: SmallVec<[Span; 2]> =
        x.request.headers.all(known).map(|field| field.value).collect();
    let client = x.client_text();
    if before.is_empty() {
        return Some(client);
    }
    let mark = x.arena.mark();
    for value in before {
        x.arena.copy(value);
        x.arena.push(b", ");
    }
    x.arena.copy(client);
    Some(x.arena.since(mark))
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let matching = &builder.location.matching;
    let mut may_have_path =
        matches!(matching, Matching::Prefix | Matching::PrefixFinal | Matching::Exact);
    let mut found = scope.local_spanned(&directives::PROXY_PASS);
    if found.is_none() && [IF_LOCATION, LIMIT_EXCEPT].contains(&scope.context()) {
        // An `if` or `limit_except` without a `proxy_pass` of its own takes that of its location,
        // path and all.
        may_have_path = true;
        found = scope.parent().and_then(|outer| outer.local_spanned(&directives::PROXY_PASS));
    }
    let Some((url, span)) = found else { return };
    match target::compile(c, scope, &url, &builder.location, may_have_path) {
        Ok(target) => {
            health::attach(c, scope, &family::PROXY, &builder.location.error_log, &target);
            let settings = Settings::of_http(c, scope, target);
            builder.handler(Proxy { settings: Rc::new(settings) });
        }
        Err(reason) => scope.error(span, reason),
    }
}

struct Proxy {
    settings: Rc<Settings>,
}

impl Content for Proxy {
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        if self.settings.is_memcached && !matches!(x.request.method, Method::Get | Method::Head) {
            return Step::Now(Verdict::Status(405));
        }
        Step::Later(Box::pin(pass::pass(&self.settings, x)))
    }
}

pub(crate) use directives::read_set_header;

/// Makes passing gRPC calls on the content of a location.
pub(crate) fn pass_calls(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    builder: &mut LocationBuilder,
    family: &'static family::Family,
    address: &config::Template,
    set_header: &config::Directive<(Vec<u8>, config::Template)>,
) -> Result<(), String> {
    let target = target::compile_address(c, scope, family, address)?;
    health::attach(c, scope, family, &builder.location.error_log, &target);
    let plan = request::Plan::of_calls(c, scope, set_header);
    let speech = settings::Speech::Http(plan);
    let settings = Settings::compile(c, scope, family, target, speech).flowing();
    builder.handler(Proxy { settings: Rc::new(settings) });
    Ok(())
}

/// Makes passing requests on in another protocol the content of a location.
pub(crate) fn pass_by_gateway(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    builder: &mut LocationBuilder,
    family: &'static family::Family,
    address: &config::Template,
    gateway: gateway::Gateway,
) -> Result<(), String> {
    let target = target::compile_address(c, scope, family, address)?;
    health::attach(c, scope, family, &builder.location.error_log, &target);
    let speech = settings::Speech::Other(gateway);
    let settings = Settings::compile(c, scope, family, target, speech);
    builder.handler(Proxy { settings: Rc::new(settings) });
    Ok(())
}
