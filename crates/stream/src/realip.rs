//! The client's address behind trusted proxies (nginx: ngx_stream_realip_module): the one that
//! the header of the PROXY protocol names, for everything that follows.

use config::Scope;
use session::network::Networks;
use session::real_ip::{self, Lookups};
use session::text::Span;
use session::variables::Builtin;
use system::socket::Address;
use upstream::{Names, SystemNames};

use crate::compile::Compiler;
use crate::module::{Check, Module, Stage, Step, Verdict};
use crate::server::ServerBuilder;
use crate::session::Session;
use crate::variables::{address_text, port_text};

/// The feature.
pub(crate) static MODULE: Module = Module {
    variables: &[
        Builtin::volatile("realip_remote_addr", remote_addr, "The address that connected."),
        Builtin::volatile("realip_remote_port", remote_port, "The port that connected."),
    ],
    server: Some(attach),
    ..Module::new(
        "stream_realip",
        "Takes the client's address from the header of the PROXY protocol that trusted proxies \
         send: `set_real_ip_from`, which is described for http. Variables, logs, limits and \
         access checks then mean that address.",
    )
};

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    let lookups = c.state::<Lookups>();
    let trusted = real_ip::compile(scope, lookups, |name| SystemNames.addresses(name));
    if !trusted.is_empty() {
        builder.check(RealIp { trusted });
    }
}

struct RealIp {
    trusted: Networks,
}

impl Check for RealIp {
    fn stage(&self) -> Stage {
        Stage::PostAccept
    }

    fn check<'a>(&'a self, s: &'a mut Session) -> Step<'a> {
        if let Some(announced) = &s.announced
            && self.trusted.has(s.peer.ip())
        {
            s.real_client = Some(announced.source());
        }
        Step::Now(Verdict::Next)
    }
}

fn peer(s: &Session) -> Option<std::net::SocketAddr> {
    match &s.peer {
        Address::Inet(address) => Some(*address),
        Address::Unix(_) => None,
    }
}

fn remote_addr(s: &mut Session) -> Option<Span> {
    let peer = peer(s);
    Some(address_text(s, peer))
}

fn remote_port(s: &mut Session) -> Option<Span> {
    let peer = peer(s);
    Some(port_text(s, peer))
}
