//! What the `listen` directives of all engines have in common: the address with its range of
//! ports, and the options of its socket.

use config::{Invalid, read};
use system::socket::{Address, Keepalive, ListenOptions};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address, with the first port of a range.
    pub address: Address,
    /// The last port of the range; 0 for a unix socket.
    pub last_port: u16,
}

impl Place {
    /// Reads `80`, `*:80`, `1.2.3.4`, `1.2.3.4:80`, `[::]:80`, `localhost:80-82`, `unix:/path`;
    /// the port is `default_port` where there is none.
    ///
    /// # Errors
    /// nginx's words. An engine without a default port has none: `no port`.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Place, String> {
        let place = |(address, last_port)| Place { address, last_port };
        parse_address(text, default_port).map(place)
    }

    /// The addresses of each port of the range.
    pub fn each(&self) -> Vec<Address> {
        let Address::Inet(first) = &self.address else { return vec![self.address.clone()] };
        let of_port = |port| Address::Inet((first.ip(), port).into());
        (first.port()..=self.last_port).map(of_port).collect()
    }
}

/// A port, or a range of them: `8000-8010`.
fn parse_ports(digits: &str) -> Option<(u16, u16)> {
    let one = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match digits.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (one(first)?, one(last)?);
            (first <= last).then_some((first, last))
        }
        None => one(digits).map(|port| (port, port)),
    }
}

fn parse_address(text: &str, default_port: Option<u16>) -> Result<(Address, u16), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(format!(
                "no path in the unix domain socket in \"{text}\" of the \"listen\" directive"
            ));
        }
        return Ok((Address::Unix(path.into()), 0));
    }
    let of_listen = |reason: &str| format!("{reason} in \"{text}\" of the \"listen\" directive");
    let ports = |digits: &str| parse_ports(digits).ok_or_else(|| of_listen("invalid port"));
    let digits_only = |b: u8| b.is_ascii_digit() || b == b'-';
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(digits_only) {
        let (first, last) = ports(text)?;
        return Ok((Address::any_v4(first), last));
    }
    let (host, (port, last)) = match text.rsplit_once(':') {
        Some((host, digits)) if !digits.contains(']') => (host, ports(digits)?),
        _ => {
            let port = default_port.ok_or_else(|| of_listen("no port"))?;
            (text, (port, port))
        }
    };
    if host == "*" {
        return Ok((Address::any_v4(port), last));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let ip: std::net::Ipv6Addr =
            inner.parse().map_err(|_| of_listen("invalid IPv6 address"))?;
        return Ok((Address::Inet((ip, port).into()), last));
    }
    if let Ok(ip) = host.parse::<std::net::Ipv4Addr>() {
        return Ok((Address::Inet((ip, port).into()), last));
    }
    if host.is_empty() {
        return Err(of_listen("no host"));
    }
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, port)).ok();
    let first = found.and_then(|mut all| all.next());
    first.map(|first| (Address::Inet(first), last)).ok_or_else(|| of_listen("host not found"))
}

/// Reads one parameter of `listen` that is an option of the socket; false when it is none. `text`
/// is the address as written. Each of them implies a socket of its own, as nginx's `bind` does.
///
/// # Errors
/// nginx's words for a value that is none.
pub fn socket_option(
    options: &mut ListenOptions,
    address: &Address,
    text: &str,
    word: &str,
) -> Result<bool, Invalid> {
    let invalid = |what: &str| Invalid::new(format!("invalid {what} \"{word}\""));
    let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
    match (name, value) {
        ("bind", None) => {}
        ("reuseport", None) => options.reuseport = true,
        ("deferred", None) => options.deferred = true,
        ("backlog", Some(n)) => {
            options.backlog =
                n.parse().ok().filter(|n| *n != 0).ok_or_else(|| invalid("backlog"))?;
        }
        ("fastopen", Some(n)) => {
            options.fastopen = Some(n.parse().map_err(|_| invalid("fastopen"))?);
        }
        ("rcvbuf", Some(size)) => {
            options.rcvbuf = Some(bytes(size).ok_or_else(|| invalid("rcvbuf"))?);
        }
        ("sndbuf", Some(size)) => {
            options.sndbuf = Some(bytes(size).ok_or_else(|| invalid("sndbuf"))?);
        }
        ("ipv6only", Some(value)) => {
            let is_v6 = matches!(address, Address::Inet(a) if a.is_ipv6());
            if !is_v6 {
                let reason = format!("ipv6only is not supported on addr \"{text}\"");
                return Err(Invalid::new(reason));
            }
            options.ipv6only = match value {
                "on" => true,
                "off" => false,
                _ => {
                    return Err(Invalid::new(format!("invalid ipv6only flags \"{value}\"")));
                }
            };
        }
        ("so_keepalive", Some(value)) => {
            options.keepalive = keepalive(value)
                .ok_or_else(|| Invalid::new(format!("invalid so_keepalive value: \"{value}\"")))?;
        }
        _ => return Ok(false),
    }
    options.bind = true;
    Ok(true)
}

fn bytes(size: &str) -> Option<u32> {
    read::parse_size(size.as_bytes()).and_then(|n| u32::try_from(n).ok())
}

fn keepalive(value: &str) -> Option<Keepalive> {
    match value {
        "on" => {
            return Some(Keepalive::On { idle_s: None, interval_s: None, count: None });
        }
        "off" => return Some(Keepalive::Off),
        _ => {}
    }
    let mut parts = value.split(':');
    let mut seconds = || -> Option<Option<u32>> {
        match parts.next()? {
            "" => Some(None),
            text => {
                read::parse_time_s(text.as_bytes()).and_then(|s| u32::try_from(s).ok()).map(Some)
            }
        }
    };
    let (idle_s, interval_s) = (seconds()?, seconds()?);
    let count = match parts.next()? {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    let empty = idle_s.is_none() && interval_s.is_none() && count.is_none();
    if parts.next().is_some() || empty {
        return None;
    }
    Some(Keepalive::On { idle_s, interval_s, count })
}
