//! Sockets as the kernel tells them over netlink (sock_diag(7)). A look at one of them costs the
//! same however many connections this machine has; the tables in /proc would be written out whole,
//! and tell some twice and others not at all while connections come and go.

use crate::sockets::Socket;
use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// The length of a message's head, `struct nlmsghdr`.
const HEAD: usize = 16;
/// The length of `struct inet_diag_msg`, which describes a socket.
const DESCRIPTION: usize = 72;
/// Types of messages: an error, the end of a list, a question or an answer of this kind.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
/// Flags of a question, and those that ask for a list.
const REQUEST: u16 = 1;
const LIST: u16 = 0x300;
/// The protocol's number.
const TCP: u8 = 6;
/// The errors for a socket that is not there.
const NOT_THERE: i32 = 2;

/// The socket between these two addresses, `Some(None)` when there is none; `None` where the
/// kernel does not tell.
pub(crate) fn connection(local: SocketAddr, remote: SocketAddr) -> Option<Option<Socket>> {
    let diag = open()?;
    let mut id = [0; 48];
    let place = |at: usize, port_at: usize, address: SocketAddr, id: &mut [u8; 48]| {
        id[port_at..port_at + 2].copy_from_slice(&address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => id[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[at..at + 16].copy_from_slice(&ip.octets()),
        }
    };
    place(4, 0, local, &mut id);
    place(20, 2, remote, &mut id);
    // No cookie is known.
    id[40..].fill(0xff);
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    ask(&diag, family, REQUEST, u32::MAX, &id)?;
    let mut block = [0; 8192];
    let (length, _) = rustix::net::recv(&diag, &mut block[..], RecvFlags::empty()).ok()?;
    let (kind, message, _) = message(&block[..length])?;
    match kind {
        BY_FAMILY => {
            let found = describe(message)?;
            // A listener is found where there is no connection.
            Some(Some(found).filter(|found| found.remote_port == remote.port()))
        }
        ERROR => {
            let number = i32::from_ne_bytes(message.get(..4)?.try_into().ok()?);
            (number == -NOT_THERE).then_some(None)
        }
        _ => None,
    }
}

/// All sockets that are in one of these states, each a bit; `None` where the kernel does not tell.
pub(crate) fn all(states: u32) -> Option<Vec<Socket>> {
    let diag = open()?;
    let mut found = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        ask(&diag, family, REQUEST | LIST, states, &[0; 48])?;
        let mut block = [0; 1 << 16];
        'list: loop {
            let (length, _) = rustix::net::recv(&diag, &mut block[..], RecvFlags::empty()).ok()?;
            let mut rest = &block[..length];
            while let Some((kind, message, behind)) = message(rest) {
                match kind {
                    BY_FAMILY => found.push(describe(message)?),
                    DONE => break 'list,
                    _ => return None,
                }
                rest = behind;
            }
        }
    }
    Some(found)
}

fn open() -> Option<OwnedFd> {
    let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(SOCK_DIAG)).ok()
}

/// Sends `struct inet_diag_req_v2` with a set of states and `struct inet_diag_sockid`.
fn ask(
    diag: &OwnedFd,
    family: AddressFamily,
    flags: u16,
    states: u32,
    id: &[u8; 48],
) -> Option<()> {
    let family = u8::try_from(family.as_raw()).ok()?;
    let mut question = Vec::new();
    question.extend((HEAD as u32 + 8 + 48).to_ne_bytes());
    question.extend(BY_FAMILY.to_ne_bytes());
    question.extend(flags.to_ne_bytes());
    // Neither a sequence number nor a sender's address.
    question.extend([0; 8]);
    question.extend([family, TCP, 0, 0]);
    question.extend(states.to_ne_bytes());
    question.extend(id);
    let sent = rustix::net::send(diag, &question, SendFlags::empty()).ok()?;
    (sent == question.len()).then_some(())
}

/// The type and the content of the first message of `block`, and what follows it.
fn message(block: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(block.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(block.get(4..6)?.try_into().ok()?);
    let behind = block.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, block.get(HEAD..length)?, behind))
}

/// Takes `struct inet_diag_msg` apart.
fn describe(message: &[u8]) -> Option<Socket> {
    let message: &[u8; DESCRIPTION] = message.get(..DESCRIPTION)?.try_into().ok()?;
    let word = |at: usize| {
        let bytes = [message[at], message[at + 1], message[at + 2], message[at + 3]];
        u64::from(u32::from_ne_bytes(bytes))
    };
    let port = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    Some(Socket {
        ipv6: u32::from(message[0]) == u32::from(AddressFamily::INET6.as_raw()),
        state: message[1],
        timer: message[2],
        port: port(4),
        remote_port: port(6),
        receiving: word(56),
        sending: word(60),
        inode: word(68),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::table;
    use crate::wait::until;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_told_as_the_table_tells_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(there).unwrap();
        let here = client.local_addr().unwrap();
        let (accepted, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let Some(found) = connection(there, here) else { return };
        let is_it = |socket: &Socket| socket.port == there.port();
        // It may be left out when other connections come and go.
        assert!(until(|| table(here.port()).into_iter().find(is_it) == found), "{found:?}");
        assert_eq!(found.map(|socket| socket.receiving), Some(5));
        // Nobody is there, though somebody listens.
        let nobody = SocketAddr::new(here.ip(), 1);
        assert_eq!(connection(there, nobody), Some(None));
        let listening = all(1 << Socket::LISTENING).unwrap();
        let own = listening.iter().find(|socket| socket.port == there.port()).unwrap();
        assert_eq!((own.state, own.remote_port, own.ipv6), (Socket::LISTENING, 0, false));
        drop((accepted, listener));
    }
}
