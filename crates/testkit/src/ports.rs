//! Ports that belong to one test: reserved by the kernel, free to listen on.
//!
//! A reserved port is a socket bound without SO_REUSEADDR, so the kernel gives it to nobody else,
//! in this process or another; SO_REUSEADDR is set afterwards, so a server that sets it too (all
//! servers do) may bind and listen beside it. The kernel picks no such port for outgoing
//! connections either. A port on which nobody listens refuses connections, as a dead server does.

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// A TCP port, kept for its owner until dropped.
pub struct Port {
    number: u16,
    _holder: OwnedFd,
}

impl Port {
    /// Reserves a port that is free on every address of this machine, IPv4 and IPv6.
    pub fn reserve() -> Port {
        let holder = bind_any(AddressFamily::INET6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
            .or_else(|_| {
                bind_any(AddressFamily::INET, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
            })
            .unwrap_or_else(|error| panic!("cannot reserve a port: {error}"));
        let address = getsockname(&holder).expect("a bound socket has a name");
        let address = SocketAddr::try_from(address).expect("an internet socket's name");
        Port { number: address.port(), _holder: holder }
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(out)
    }
}

fn bind_any(family: AddressFamily, address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let holder = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if family == AddressFamily::INET6 {
        // Both families at once, whatever the system's bindv6only says.
        sockopt::set_ipv6_v6only(&holder, false)?;
    }
    bind(&holder, &address)?;
    sockopt::set_socket_reuseaddr(&holder, true)?;
    Ok(holder)
}

/// Listens on a port of the loopback with the shortest queue there is.
pub(crate) fn listen_without_queue(port: u16) -> OwnedFd {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let make = || {
        let listener =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        rustix::net::listen(&listener, 0)?;
        Ok::<_, rustix::io::Errno>(listener)
    };
    make().unwrap_or_else(|error| panic!("cannot listen on {port}: {error}"))
}

/// True when this machine has IPv6 on its loopback.
pub fn has_ipv6() -> bool {
    let Ok(probe) = socket(AddressFamily::INET6, SocketType::STREAM, None) else { return false };
    bind(&probe, &SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_reserved_port_refuses_until_somebody_listens() {
        let port = Port::reserve();
        let address = (Ipv4Addr::LOCALHOST, port.number());
        assert!(TcpStream::connect(address).is_err());
        let listener = TcpListener::bind(address).expect("its owner may listen");
        assert!(TcpStream::connect(address).is_ok());
        drop(listener);
        assert!(TcpListener::bind(address).is_ok(), "and again");
    }

    #[test]
    fn ports_are_distinct() {
        let ports: Vec<Port> = (0..200).map(|_| Port::reserve()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }
}
