//! Where a `server` line or a URL points: host, port, and the addresses behind a name.
//!
//! The grammar and the words of its errors are those of nginx's `ngx_parse_url`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use system::socket::Address;

/// The longest path of a unix socket: `sun_path` less the closing zero (unix(7)).
const PATH_MAX: usize = 107;

/// The host of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A name to look up.
    Name(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// A host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host as it was written, with the brackets of an IPv6 address. For a unix socket the
    /// path alone.
    pub text: String,
    /// What it means.
    pub host: Host,
    /// The port, if one was written. A unix socket has none.
    pub port: Option<u16>,
}

/// Looks up the addresses of a host name, in the order of preference; none when there is no such
/// host. A trait, so that compiling a configuration can be tested without a network.
pub trait Names {
    /// The addresses of `host`.
    fn addresses(&self, host: &str) -> Vec<IpAddr>;
}

impl Target {
    /// Reads `HOST`, `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// nginx's words, to be followed by ` in upstream "..."`.
    pub fn parse(text: &str) -> Result<Target, &'static str> {
        if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:")) {
            return parse_unix(&text[5..]);
        }
        if text.starts_with('[') {
            return parse_v6(text);
        }
        if text.contains(['/', '?']) {
            return Err("invalid host");
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        if host.is_empty() {
            return Err("no host");
        }
        let meaning = match host.parse::<Ipv4Addr>() {
            Ok(ip) => Host::Ip(ip.into()),
            Err(_) => Host::Name(host.to_owned()),
        };
        Ok(Target { text: host.to_owned(), host: meaning, port })
    }

    /// All addresses of the target, with `default_port` where it names none.
    ///
    /// # Errors
    /// nginx's words when a name has no address.
    pub fn resolve(
        &self,
        names: &dyn Names,
        default_port: u16,
    ) -> Result<Vec<Address>, &'static str> {
        let port = self.port.unwrap_or(default_port);
        let found = match &self.host {
            Host::Unix(path) => return Ok(vec![Address::Unix(path.clone())]),
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => names.addresses(name),
        };
        if found.is_empty() {
            return Err("host not found");
        }
        Ok(found.into_iter().map(|ip| Address::Inet(SocketAddr::new(ip, port))).collect())
    }
}

fn parse_unix(path: &str) -> Result<Target, &'static str> {
    match path.len() {
        0 => Err("no path in the unix domain socket"),
        1..=PATH_MAX => {
            let host = Host::Unix(PathBuf::from(path));
            Ok(Target { text: path.to_owned(), host, port: None })
        }
        _ => Err("too long path in the unix domain socket"),
    }
}

fn parse_v6(text: &str) -> Result<Target, &'static str> {
    let (host, rest) = text[1..].split_once(']').ok_or("invalid host")?;
    let port = match rest.strip_prefix(':') {
        _ if rest.contains('/') => return Err("invalid host"),
        Some(port) => Some(parse_port(port)?),
        None if rest.is_empty() => None,
        None => return Err("invalid host"),
    };
    if host.is_empty() {
        return Err("no host");
    }
    let ip: Ipv6Addr = host.parse().map_err(|_| "invalid IPv6 address")?;
    Ok(Target { text: format!("[{host}]"), host: Host::Ip(ip.into()), port })
}

/// Digits only: a sign is no part of a port.
fn parse_port(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err("invalid port"),
    }
}

/// The system's resolver, asked as nginx asks it: address families of which the machine has no
/// address besides loopback are left out (`AI_ADDRCONFIG`, getaddrinfo(3)). It blocks; it is for
/// the start only.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let Ok(found) = (host, 0).to_socket_addrs() else { return Vec::new() };
        let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        narrow(found, has_v4(), has_v6())
    }
}

/// What glibc does for `AI_ADDRCONFIG`: only a machine with addresses of exactly one family
/// narrows its answers.
fn narrow(found: Vec<IpAddr>, v4: bool, v6: bool) -> Vec<IpAddr> {
    if v4 == v6 {
        return found;
    }
    found.into_iter().filter(|ip| ip.is_ipv4() == v4).collect()
}

/// `/proc/net/if_inet6` has one line per address, which begins with 32 hexadecimal digits.
fn has_v6() -> bool {
    const LOOPBACK: &str = "00000000000000000000000000000001";
    fs::read_to_string("/proc/net/if_inet6")
        .is_ok_and(|text| text.lines().any(|line| !line.starts_with(LOOPBACK)))
}

/// `/proc/net/fib_trie` lists addresses and, below each, what it is; our own are `host LOCAL`.
fn has_v4() -> bool {
    fs::read_to_string("/proc/net/fib_trie").is_ok_and(|text| has_local_v4(&text))
}

fn has_local_v4(trie: &str) -> bool {
    let mut address = None;
    for line in trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            address = leaf.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("host LOCAL")
            && address.is_some_and(|address| address != Ipv4Addr::LOCALHOST)
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hosts;

    impl Names for Hosts {
        fn addresses(&self, host: &str) -> Vec<IpAddr> {
            match host {
                "two" => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
                _ => Vec::new(),
            }
        }
    }

    fn check(text: &str, expected: Result<&str, &str>) {
        let found = Target::parse(text).and_then(|target| target.resolve(&Hosts, 80));
        let found = found.map(|addresses| {
            addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn targets() {
        check("127.0.0.1", Ok("127.0.0.1:80"));
        check("127.0.0.1:8080", Ok("127.0.0.1:8080"));
        check("[::1]", Ok("[::1]:80"));
        check("[::1]:8080", Ok("[::1]:8080"));
        check("two:1", Ok("[::1]:1 127.0.0.1:1"));
        check("unix:/run/a:b.sock", Ok("unix:/run/a:b.sock"));
        check("UNIX:/run/x", Ok("unix:/run/x"));
        check("three", Err("host not found"));
        check("", Err("no host"));
        check(":80", Err("no host"));
        check("[]:80", Err("no host"));
        check("unix:", Err("no path in the unix domain socket"));
        check(
            &format!("unix:/{}", "x".repeat(107)),
            Err("too long path in the unix domain socket"),
        );
        for port in ["", "0", "65536", "x", "+1", "-1", "80/", "1:2"] {
            let error = if port.contains('/') { "invalid host" } else { "invalid port" };
            check(&format!("127.0.0.1:{port}"), Err(error));
        }
        for host in ["a/b", "a?b", "[::1", "[::1]x", "[::1]/x"] {
            check(host, Err("invalid host"));
        }
        check("[1.2.3.4]", Err("invalid IPv6 address"));
    }

    #[test]
    fn answers_are_narrowed_to_the_families_that_the_machine_has() {
        let both = Hosts.addresses("two");
        assert_eq!(narrow(both.clone(), true, true), both);
        assert_eq!(narrow(both.clone(), false, false), both);
        assert_eq!(narrow(both.clone(), true, false), both[1..]);
        assert_eq!(narrow(both.clone(), false, true), both[..1]);
    }

    #[test]
    fn local_addresses_are_found_in_the_trie() {
        let lo = "Main:\n  +-- 127.0.0.0/8 2 0 2\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert!(!has_local_v4(lo));
        let other = "     |-- 10.0.0.0\n        /24 link UNICAST\n";
        assert!(!has_local_v4(other));
        let own = "     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert!(has_local_v4(&format!("{lo}{other}{own}")));
    }

    #[test]
    fn localhost_has_an_address() {
        assert!(SystemNames.addresses("localhost").iter().any(IpAddr::is_loopback));
        assert!(SystemNames.addresses("no-such-host.invalid").is_empty());
    }
}
