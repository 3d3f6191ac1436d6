//! `set_real_ip_from`: the proxies whose word about their clients counts (nginx:
//! ngx_http_realip_module, ngx_stream_realip_module). What they say, and how, is each engine's.

use std::collections::HashMap;
use std::net::IpAddr;

use config::{AnyDirective, Args, Context, Directive, Invalid, Scope};

use crate::contexts::{HTTP, LOCATION, SERVER, STREAM, STREAM_SERVER};
use crate::network::{Network, Networks};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION, STREAM, STREAM_SERVER];

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&SET_REAL_IP_FROM];

/// `set_real_ip_from`.
pub static SET_REAL_IP_FROM: Directive<Trusted> =
    Directive::new("set_real_ip_from", PLACES, read_trusted)
        .many()
        .syntax("set_real_ip_from ADDRESS | NETWORK | NAME | unix:;")
        .text(
            "Trusts what a proxy says about its client: an address, all addresses of a network \
             such as 10.0.0.0/8, those of a host name when the configuration is read, or all that \
             connect to a unix socket. A level with lines of its own does not inherit others. In \
             http the proxy speaks in the field that `real_ip_header` names, in stream by the \
             PROXY protocol; see `listen`.",
        )
        .example("set_real_ip_from 192.168.0.0/16;");

/// Whom a line of `set_real_ip_from` trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// A network or an address.
    Network(Network),
    /// Unix sockets.
    Unix,
    /// The addresses of a host.
    Name(String),
}

fn read_trusted(args: &Args<'_>) -> Result<Trusted, Invalid> {
    let text = args.str(0);
    if text == "unix:" {
        return Ok(Trusted::Unix);
    }
    let Some(parsed) = Network::parse(&text) else {
        return Ok(Trusted::Name(text.into_owned()));
    };
    if parsed.has_low_bits {
        args.warn(Invalid::new(format!("low address bits of {text} are meaningless")).at(0));
    }
    Ok(Trusted::Network(parsed.network))
}

/// Addresses of host names, asked for once however many levels inherit the line.
#[derive(Default)]
pub struct Lookups(HashMap<String, Vec<IpAddr>>);

/// The proxies that a level trusts; none when it has no line. `lookup` finds the addresses of a
/// host, none when there is no such host. Faults go to the scope.
pub fn compile(
    scope: &Scope<'_>,
    lookups: &mut Lookups,
    lookup: impl Fn(&str) -> Vec<IpAddr>,
) -> Networks {
    let mut trusted = Networks::default();
    for (line, place) in scope.nodes(&SET_REAL_IP_FROM) {
        match line {
            Trusted::Network(network) => trusted.add(network),
            Trusted::Unix => trusted.add_unix(),
            Trusted::Name(name) => {
                let found = lookups.0.entry(name.clone()).or_insert_with(|| lookup(&name));
                if found.is_empty() {
                    let message = format!("host not found in set_real_ip_from \"{name}\"");
                    scope.error(place, message);
                }
                found.iter().for_each(|address| trusted.add(Network::of(*address)));
            }
        }
    }
    trusted
}
