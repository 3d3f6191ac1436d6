//! The client's address behind trusted proxies (nginx: ngx_http_realip_module).
//!
//! A trusted proxy says in a field of the request whom it speaks for. From then on that address is
//! the client's, for everything: variables, logs, limits and access checks.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::variables::address_text;
use http::{Exchange, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::forwarded::Search;
use session::network::Networks;
use session::real_ip::{self, Lookups};
use session::text::Span;
use session::variables::Builtin;
use std::net::SocketAddr;
use std::rc::Rc;
use upstream::target::{Names, SystemNames};
use wire::http1::Known;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: VARIABLES,
    location: Some(attach),
    ..Module::new(
        "http_realip",
        "Takes the client's address from a field that trusted proxies set. Variables, logs, limits \
         and access checks then mean that address.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] =
    &[&real_ip::SET_REAL_IP_FROM, &REAL_IP_HEADER, &REAL_IP_RECURSIVE];

static VARIABLES: &[Builtin<Exchange>] = &[
    Builtin::volatile("realip_remote_addr", remote_addr, "The address that connected."),
    Builtin::volatile("realip_remote_port", remote_port, "The port that connected."),
];

/// `real_ip_header`.
pub static REAL_IP_HEADER: Directive<Source> =
    Directive::new("real_ip_header", PLACES, read_source)
        .default("X-Real-IP")
        .syntax("real_ip_header FIELD | proxy_protocol;")
        .text(
            "The field of the request in which a trusted proxy names its client, as an address \
             with or without a port. Of several addresses in it the last one counts; of several \
             fields X-Forwarded-For the last one, of other fields the first. With `proxy_protocol` \
             the client is the one whom the connection's header of the PROXY protocol names; see \
             `listen`.",
        )
        .example("real_ip_header X-Forwarded-For;");

/// `real_ip_recursive`.
pub static REAL_IP_RECURSIVE: Directive<bool> =
    Directive::new("real_ip_recursive", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("real_ip_recursive on | off;")
        .text(
            "Whether to go on while the address found is itself one of a trusted proxy: the last \
             address in the field that is not trusted counts then.",
        )
        .example("real_ip_recursive on;");

/// Where the address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field whose name means something to us; of `X-Forwarded-For` all of them count.
    Known(Known),
    /// Another field, its name in lower case.
    Field(Box<[u8]>),
    /// What the connection's first bytes said (`listen ... proxy_protocol`).
    ProxyProtocol,
}

fn read_source(args: &Args<'_>) -> Result<Source, Invalid> {
    let name = args.word(0).bytes();
    if name == b"proxy_protocol" {
        return Ok(Source::ProxyProtocol);
    }
    Ok(match Known::of(name) {
        Known::Other => Source::Field(name.to_ascii_lowercase().into()),
        known => Source::Known(known),
    })
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let lookups = c.state::<Lookups>();
    let trusted = real_ip::compile(scope, lookups, |name| SystemNames.addresses(name));
    let source = scope.get(&REAL_IP_HEADER);
    let recursive = scope.get(&REAL_IP_RECURSIVE);
    if trusted.is_empty() {
        return;
    }
    let rules = Rc::new(Rules { trusted, source, recursive });
    if scope.context() == SERVER {
        // The server's rewrites see the address already.
        builder.guard(RealIp { rules: rules.clone(), stage: Stage::Rewrite });
    }
    builder.guard(RealIp { rules, stage: Stage::Limit });
}

struct Rules {
    trusted: Networks,
    source: Source,
    recursive: bool,
}

struct RealIp {
    rules: Rc<Rules>,
    stage: Stage,
}

impl Guard for RealIp {
    fn stage(&self) -> Stage {
        self.stage
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        // Once it is known it stays, whatever locations come.
        if !x.has_other_client() {
            let client = self.rules.client(x);
            x.set_client(client);
        }
        Step::Now(Verdict::Next)
    }
}

impl Rules {
    /// The address that is said to be the client's, if the word of the peer counts.
    fn client(&self, x: &Exchange) -> Option<SocketAddr> {
        let headers = &x.request.headers;
        let peer = x.connection.peer();
        let first = match &self.source {
            Source::ProxyProtocol => {
                // One proxy speaks, for one client: there is no way to go on.
                let trusted = self.trusted.has(peer.map(|address| address.ip()));
                let announced = x.connection.announced().filter(|_| trusted)?;
                return Some(announced.source());
            }
            Source::Known(Known::XForwardedFor) => {
                let mut search = Search::new(&self.trusted, self.recursive, peer);
                for field in headers.iter().rev().filter(|f| f.known == Known::XForwardedFor) {
                    if !search.look_into(x.text(field.value)) {
                        break;
                    }
                }
                return search.found();
            }
            Source::Known(known) => headers.value(*known),
            Source::Field(name) => headers.named(&x.arena, name).map(|field| field.value),
        };
        let mut search = Search::new(&self.trusted, self.recursive, peer);
        search.look_into(x.text(first?));
        search.found()
    }
}

fn remote_addr(x: &mut Exchange) -> Option<Span> {
    let peer = x.connection.peer();
    Some(address_text(x, peer))
}

fn remote_port(x: &mut Exchange) -> Option<Span> {
    match x.connection.peer() {
        Some(peer) => Some(x.arena.number(u64::from(peer.port()))),
        None => Some(Span::EMPTY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        assert_eq!(REAL_IP_HEADER.read_text("x-real-ip"), Ok(Source::Known(Known::XRealIp)));
        assert_eq!(REAL_IP_HEADER.read_text("X-Mine"), Ok(Source::Field((*b"x-mine").into())));
        assert_eq!(REAL_IP_HEADER.read_text("proxy_protocol"), Ok(Source::ProxyProtocol));
    }
}
