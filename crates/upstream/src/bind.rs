//! `proxy_bind`: the local address that connections to backends come from.

use std::net::{IpAddr, SocketAddr};

use config::{Args, Arity, Context, Directive, Invalid, read};
use session::contexts::{HTTP, LOCATION, SERVER, STREAM, STREAM_SERVER};
use system::socket::Address;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION, STREAM, STREAM_SERVER];

/// `proxy_bind`; nothing for `off`.
pub static PROXY_BIND: Directive<Option<Bind>> = Directive::new("proxy_bind", PLACES, read_bind)
    .takes(Arity::Between(1, 2))
    .syntax("proxy_bind ADDRESS [transparent] | off;")
    .text(
        "The local address, with or without a port, that connections to backends come from. \
         With `transparent` it may be foreign, such as the client's own; the machine's routes \
         must bring the answers back. `off` undoes what an outer level says.",
    )
    .example("proxy_bind 127.0.0.1;");

/// One `proxy_bind`.
#[derive(Clone, Debug)]
pub struct Bind {
    /// The address, which may hold variables.
    pub address: config::Template,
    /// It may be foreign.
    pub transparent: bool,
}

/// Reads `proxy_bind` and its kin.
///
/// # Errors
/// What is no address.
pub fn read_bind(args: &Args<'_>) -> Result<Option<Bind>, Invalid> {
    if args.len() == 1 && args.word(0).bytes() == b"off" {
        return Ok(None);
    }
    let transparent = match args.len() {
        1 => false,
        _ if args.word(1).bytes() == b"transparent" => true,
        _ => return Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(1))).at(1)),
    };
    let address = read::template_at(args, 0)?;
    if address.constant().is_some() && local_address(&args.str(0)).is_none() {
        return Err(Invalid::new(format!("invalid address \"{}\"", args.str(0))).at(0));
    }
    Ok(Some(Bind { address, transparent }))
}

/// An address to come from: an IP, with or without a port.
pub fn local_address(text: &str) -> Option<Address> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(Address::Inet(SocketAddr::new(ip, 0)));
    }
    text.parse::<SocketAddr>().ok().map(Address::Inet)
}
