//! The core variables of `stream` (nginx: ngx_stream_core_module, "Embedded Variables").

use std::net::{IpAddr, SocketAddr};

use session::log::Level;
use session::proxy_protocol::{NoValue, Side};
use session::text::Span;
use session::variables::Builtin;
use system::socket::Address;

use crate::session::Session;

type S = Session;
type Found = Option<Span>;

/// The table.
pub static BUILTINS: &[Builtin<Session>] = &[
    Builtin::volatile(
        "binary_remote_addr",
        binary_remote_addr,
        "The client's address, 4 or 16 bytes.",
    ),
    Builtin::volatile("bytes_received", bytes_received, "Bytes received from the client."),
    Builtin::volatile("bytes_sent", bytes_sent, "Bytes sent to the client."),
    Builtin::volatile("connection", connection, "Serial number of the session."),
    Builtin::volatile("hostname", hostname, "Name of the machine."),
    Builtin::volatile("msec", msec, "Seconds since the epoch with milliseconds."),
    Builtin::volatile("nginx_version", nginx_version, "Version of the program."),
    Builtin::volatile("pid", pid, "Process id of the worker."),
    Builtin::volatile("protocol", protocol, "`TCP` or `UDP`."),
    Builtin::volatile(
        "proxy_protocol_addr",
        |s| announced_address(s, Side::Client),
        "The client's address as the PROXY protocol tells it.",
    ),
    Builtin::volatile(
        "proxy_protocol_port",
        |s| announced_port(s, Side::Client),
        "The client's port as the PROXY protocol tells it.",
    ),
    Builtin::volatile(
        "proxy_protocol_server_addr",
        |s| announced_address(s, Side::Server),
        "The address that the client connected to, from the PROXY protocol.",
    ),
    Builtin::volatile(
        "proxy_protocol_server_port",
        |s| announced_port(s, Side::Server),
        "The port that the client connected to, from the PROXY protocol.",
    ),
    Builtin::family(
        "proxy_protocol_tlv_",
        extension,
        "The extension of that name, such as `alpn` or `0xea`, of the PROXY protocol.",
    ),
    Builtin::volatile("remote_addr", remote_addr, "The client's address."),
    Builtin::volatile("remote_port", remote_port, "The client's port."),
    Builtin::volatile("server_addr", server_addr, "The address that the session came to."),
    Builtin::volatile("server_name", server_name, "First name of the server."),
    Builtin::volatile("server_port", server_port, "The port that the session came to."),
    Builtin::volatile(
        "session_time",
        session_time,
        "Seconds since the session began, with milliseconds.",
    ),
    Builtin::volatile(
        "status",
        status,
        "How the session went: 200 well; 400 the client's data could not be understood; 403 \
         refused; 500 our own fault; 502 no backend could be reached; 503 limited.",
    ),
    Builtin::volatile("time_iso8601", time_iso8601, "Local time as in ISO 8601."),
    Builtin::volatile("time_local", time_local, "Local time in the Common Log Format."),
];

fn binary_remote_addr(s: &mut S) -> Found {
    Some(match s.client_address().map(|address| address.ip()) {
        Some(IpAddr::V4(ip)) => s.arena.push(&ip.octets()),
        Some(IpAddr::V6(ip)) => s.arena.push(&ip.octets()),
        None => s.arena.push(b"unix:"),
    })
}

fn bytes_received(s: &mut S) -> Found {
    let bytes = s.counts.from_first.get();
    Some(s.arena.number(bytes))
}

fn bytes_sent(s: &mut S) -> Found {
    let bytes = s.counts.to_first.get();
    Some(s.arena.number(bytes))
}

fn connection(s: &mut S) -> Found {
    let id = s.id;
    Some(s.arena.number(id))
}

fn hostname(s: &mut S) -> Found {
    Some(s.arena.push(system::host::name().as_bytes()))
}

/// Seconds with three digits after the point.
pub(crate) fn seconds(s: &mut S, ms: u64) -> Span {
    s.arena.format(format_args!("{}.{:03}", ms / 1000, ms % 1000))
}

fn protocol(s: &mut S) -> Found {
    let name: &[u8] = if s.is_udp() { b"UDP" } else { b"TCP" };
    Some(s.arena.push(name))
}

fn announced_address(s: &mut S, side: Side) -> Found {
    Some(s.announced.as_ref()?.address(side, &mut s.arena))
}

fn announced_port(s: &mut S, side: Side) -> Found {
    Some(s.announced.as_ref()?.port(side, &mut s.arena))
}

fn extension(s: &mut S, name: &str) -> Found {
    match s.announced.as_ref()?.extension(name, &mut s.arena) {
        Ok(value) => value,
        Err(NoValue::Broken) => {
            s.log_error(Level::Error, format_args!("broken PROXY protocol TLV"));
            None
        }
        Err(NoValue::NoSuchName) => {
            s.log_error(Level::Error, format_args!("unknown PROXY protocol TLV \"{name}\""));
            None
        }
    }
}

/// An address without its port; `unix:` for none.
pub(crate) fn address_text(s: &mut S, address: Option<SocketAddr>) -> Span {
    match address {
        Some(address) => s.arena.format(format_args!("{}", address.ip())),
        None => s.arena.push(b"unix:"),
    }
}

fn remote_addr(s: &mut S) -> Found {
    let address = s.client_address();
    Some(address_text(s, address))
}

/// A port; empty for none.
pub(crate) fn port_text(s: &mut S, address: Option<SocketAddr>) -> Span {
    match address.map(|address| address.port()) {
        Some(0) | None => Span::EMPTY,
        Some(port) => s.arena.number(u64::from(port)),
    }
}

fn remote_port(s: &mut S) -> Found {
    let address = s.client_address();
    Some(port_text(s, address))
}

fn local(s: &S) -> Option<SocketAddr> {
    match s.local() {
        Some(Address::Inet(address)) => Some(*address),
        _ => None,
    }
}

fn server_addr(s: &mut S) -> Found {
    if let Some(Address::Unix(path)) = s.local() {
        let text = format!("unix:{}", path.display());
        return Some(s.arena.push(text.as_bytes()));
    }
    let address = local(s);
    Some(address_text(s, address))
}

fn server_name(s: &mut S) -> Found {
    let server = s.server.clone();
    Some(s.arena.push(&server.name))
}

fn server_port(s: &mut S) -> Found {
    let address = local(s);
    Some(port_text(s, address))
}

fn session_time(s: &mut S) -> Found {
    let ms = net::now().saturating_sub(s.started_ms);
    Some(seconds(s, ms))
}

fn status(s: &mut S) -> Found {
    let status = s.status;
    Some(s.arena.format(format_args!("{status:03}")))
}

fn msec(s: &mut S) -> Found {
    Some(s.arena.push(&session::clock::msec()))
}

fn nginx_version(s: &mut S) -> Found {
    Some(s.arena.push(system::identity::identity().version.as_bytes()))
}

fn pid(s: &mut S) -> Found {
    Some(s.arena.number(u64::from(std::process::id())))
}

fn time_iso8601(s: &mut S) -> Found {
    Some(s.arena.push(&session::clock::time_iso8601()))
}

fn time_local(s: &mut S) -> Found {
    Some(s.arena.push(&session::clock::time_local()))
}
