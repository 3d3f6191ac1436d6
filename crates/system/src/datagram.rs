//! Datagram sockets (`udp(7)`, `unix(7)`): many packets per call, the local address that a packet
//! came to, and replies that leave from that address (`IP_PKTINFO`, `IPV6_PKTINFO`). Packets that
//! were meant for others say for whom (`IP_ORIGDSTADDR`, `IPV6_ORIGDSTADDR`).
//!
//! Every socket made here is non-blocking and closed by exec.

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::net::{self as sys, SocketFlags, SocketType};

use crate::socket::{Address, Named, SocketError, bind_before_connect};

/// The longest packet that IP carries.
pub const LONGEST: usize = 65_535;
/// Packets taken by one call at most.
pub const AT_ONCE: usize = 16;
/// Room for the ancillary data of one packet: an `in6_pktinfo` and its header.
const CONTROL: usize = 64;

/// A packet in a [`Batch`].
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'b> {
    pub bytes: &'b [u8],
    /// Who sent it; an empty path for a unix socket without a name.
    pub peer: &'b Address,
    /// The address that it came to, if the socket was asked to tell. The port is 0 unless the
    /// socket takes packets that were meant for others: then it may be any.
    pub local: Option<SocketAddr>,
    /// It was longer than the room for it.
    pub is_cut: bool,
}

struct Received {
    length: usize,
    peer: Address,
    local: Option<SocketAddr>,
    is_cut: bool,
}

/// Room for the packets of one call. Its memory is untouched until packets need it.
pub struct Batch {
    bytes: Box<[u8]>,
    received: Vec<Received>,
    call: Box<Call>,
}

/// What the kernel is given: not made anew for each call, since it is some kilobytes.
struct Call {
    headers: [libc::mmsghdr; AT_ONCE],
    slices: [libc::iovec; AT_ONCE],
    names: [libc::sockaddr_storage; AT_ONCE],
    controls: [Control; AT_ONCE],
}

impl Default for Batch {
    fn default() -> Batch {
        // SAFETY: these are plain C structures, for which all zeroes is a value.
        let (headers, slices, names) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let controls = [Control([0; CONTROL]); AT_ONCE];
        Batch {
            bytes: vec![0; AT_ONCE * LONGEST].into(),
            received: Vec::with_capacity(AT_ONCE),
            call: Box::new(Call { headers, slices, names, controls }),
        }
    }
}

impl Batch {
    /// The packets of the last call.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        self.received.iter().zip(self.bytes.chunks(LONGEST)).map(|(received, room)| Packet {
            bytes: room.get(..received.length).unwrap_or_default(),
            peer: &received.peer,
            local: received.local,
            is_cut: received.is_cut,
        })
    }

    /// Takes what waits, up to `most` packets and [`AT_ONCE`], and says how many.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits; others as `recvmmsg(2)`: an ICMP error of an earlier
    /// packet concerns that one only.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.received.clear();
        let most = most.clamp(1, AT_ONCE);
        let Call { headers, slices, names, controls } = &mut *self.call;
        for (i, room) in self.bytes.chunks_mut(LONGEST).enumerate().take(most) {
            slices[i].iov_base = room.as_mut_ptr().cast();
            slices[i].iov_len = room.len();
            // A peer without a name leaves it as it is.
            names[i].ss_family = 0;
            let header = &mut headers[i].msg_hdr;
            header.msg_name = (&raw mut names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut slices[i];
            header.msg_iovlen = 1;
            header.msg_control = controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
            header.msg_flags = 0;
        }
        // SAFETY: every header points to its own slice, name and control room, with their
        // lengths, and all of these outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                most as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = (count as usize).min(most);
        for (header, name) in headers.iter().zip(names.iter()).take(count) {
            self.received.push(Received {
                length: (header.msg_len as usize).min(LONGEST),
                peer: address_of(name, header.msg_hdr.msg_namelen as usize),
                local: local_of(&header.msg_hdr),
                is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            });
        }
        Ok(count)
    }
}

/// Control messages begin at the alignment of their header.
#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Lets the kernel tell with each packet which local address it came to: a socket that is bound
/// to a wildcard address cannot know otherwise.
pub(crate) fn tell_local_addresses(
    socket: BorrowedFd<'_>,
    address: &Address,
) -> Result<(), SocketError> {
    let (level, name, call) = match address.ip() {
        Some(IpAddr::V4(_)) => (libc::IPPROTO_IP, libc::IP_PKTINFO, "setsockopt(IP_PKTINFO)"),
        Some(IpAddr::V6(_)) => {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, "setsockopt(IPV6_RECVPKTINFO)")
        }
        None => return Ok(()),
    };
    crate::socket::set_integer(socket, level, name, 1, call)
}

/// Lets the kernel tell with each packet for which address and port it was meant: a transparent
/// socket gets those of others too.
pub(crate) fn tell_destinations(
    socket: BorrowedFd<'_>,
    address: &Address,
) -> Result<(), SocketError> {
    let (level, name, call) = match address.ip() {
        Some(IpAddr::V4(_)) => {
            (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR, "setsockopt(IP_RECVORIGDSTADDR)")
        }
        Some(IpAddr::V6(_)) => {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR, "setsockopt(IPV6_RECVORIGDSTADDR)")
        }
        None => return Ok(()),
    };
    crate::socket::set_integer(socket, level, name, 1, call)
}

/// Makes a datagram socket whose packets leave from `local`, which may be foreign and which
/// others may have bound too. Needs `CAP_NET_RAW`. It is not meant to be read: its room for
/// packets that come is the least that the kernel gives.
///
/// # Errors
/// The call that failed and the kernel's reason.
pub fn sender(local: SocketAddr) -> Result<OwnedFd, SocketError> {
    let local = Address::Inet(local);
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = sys::socket_with(local.family(), SocketType::DGRAM, flags, None);
    let socket = socket.named("socket")?;
    sys::sockopt::set_socket_reuseaddr(&socket, true).named("setsockopt(SO_REUSEADDR)")?;
    crate::socket::set_receive_buffer(socket.as_fd(), 1)?;
    bind_before_connect(socket.as_fd(), &local, true)?;
    Ok(socket)
}

/// Sends one packet to a peer, from a local address where one is given.
///
/// # Errors
/// As `sendmsg(2)`; `WouldBlock` when the socket is full.
pub fn send_to(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    peer: &Address,
    local: Option<IpAddr>,
) -> io::Result<usize> {
    let Some((mut name, length)) = storage_of(peer) else {
        return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    };
    let mut slice =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL]);
    // SAFETY: msghdr is a plain C structure, for which all zeroes is a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = length;
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    if let Some(local) = local {
        let used = write_local(&mut control, local);
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = used;
    }
    // SAFETY: the header points to a name, a slice and control data that outlive the call; the
    // slice is only read.
    let sent = unsafe {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        libc::sendmsg(socket.as_raw_fd(), &raw const header, flags)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Makes a datagram socket whose packets go to `peer` and come from it. `local` and `transparent`
/// as in [`crate::socket::connect_start`].
pub fn connect(
    peer: &Address,
    local: Option<&Address>,
    transparent: bool,
) -> Result<OwnedFd, SocketError> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = sys::socket_with(peer.family(), SocketType::DGRAM, flags, None).named("socket")?;
    if let Some(local) = local {
        bind_before_connect(socket.as_fd(), local, transparent)?;
    } else if peer.is_unix() {
        // Without a name of its own the peer could not answer: the kernel makes one up.
        bind_anonymously(socket.as_fd()).named("bind")?;
    }
    let address = peer.to_kernel().named("connect")?;
    sys::connect(&socket, &address).named("connect")?;
    Ok(socket)
}

/// Binds to a name in the abstract namespace that the kernel chooses (`unix(7)`, autobind).
fn bind_anonymously(socket: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let family = libc::AF_UNIX as libc::sa_family_t;
    // SAFETY: the pointer and the length describe `family`, which is all that autobind takes.
    let outcome = unsafe {
        let length = size_of::<libc::sa_family_t>() as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const family).cast(), length)
    };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL))
}

fn address_of(name: &libc::sockaddr_storage, length: usize) -> Address {
    let raw: *const libc::sockaddr_storage = name;
    match i32::from(name.ss_family) {
        libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family says that it is a sockaddr_in, and a storage has room for any.
            let v4 = unsafe { &*raw.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Address::Inet(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for a sockaddr_in6.
            let v6 = unsafe { &*raw.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            let address = SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id);
            Address::Inet(address.into())
        }
        _ => {
            let start = size_of::<libc::sa_family_t>();
            let length = length.clamp(start, size_of::<libc::sockaddr_un>());
            // SAFETY: a storage is longer than a sockaddr_un, and initialised to its end.
            let bytes = unsafe { std::slice::from_raw_parts(raw.cast::<u8>(), length) };
            let path = &bytes[start..];
            // A name in the abstract namespace begins with a zero and ends with its length.
            let end = match path {
                [0, ..] => path.len(),
                _ => path.iter().position(|byte| *byte == 0).unwrap_or(path.len()),
            };
            Address::Unix(PathBuf::from(std::ffi::OsString::from_vec(path[..end].to_vec())))
        }
    }
}

fn storage_of(address: &Address) -> Option<(libc::sockaddr_storage, libc::socklen_t)> {
    // SAFETY: a plain C structure, for which all zeroes is a value.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    let raw = &raw mut name;
    let length = match address {
        Address::Inet(SocketAddr::V4(v4)) => {
            // SAFETY: a storage has the size and alignment for any socket address.
            let to = unsafe { &mut *raw.cast::<libc::sockaddr_in>() };
            to.sin_family = libc::AF_INET as libc::sa_family_t;
            to.sin_port = v4.port().to_be();
            to.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            size_of::<libc::sockaddr_in>()
        }
        Address::Inet(SocketAddr::V6(v6)) => {
            // SAFETY: as above.
            let to = unsafe { &mut *raw.cast::<libc::sockaddr_in6>() };
            to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            to.sin6_port = v6.port().to_be();
            to.sin6_addr.s6_addr = v6.ip().octets();
            to.sin6_flowinfo = v6.flowinfo();
            to.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
        Address::Unix(path) => {
            // SAFETY: as above.
            let to = unsafe { &mut *raw.cast::<libc::sockaddr_un>() };
            to.sun_family = libc::AF_UNIX as libc::sa_family_t;
            let path = path.as_os_str().as_bytes();
            if path.is_empty() || path.len() >= to.sun_path.len() {
                return None;
            }
            for (to, from) in to.sun_path.iter_mut().zip(path) {
                *to = *from as libc::c_char;
            }
            let end = usize::from(path[0] != 0);
            size_of::<libc::sa_family_t>() + path.len() + end
        }
    };
    Some((name, length as libc::socklen_t))
}

/// The local address in the control messages of a packet that was received.
fn local_of(header: &libc::msghdr) -> Option<SocketAddr> {
    // SAFETY: the kernel filled the control room of the header and set its length, and the room
    // outlives the header's use here. The macros walk inside that length.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            let message = &*at;
            let data = libc::CMSG_DATA(at);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let ip = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    return Some(SocketAddr::new(ip.into(), 0));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(SocketAddr::new(Ipv6Addr::from(info.ipi6_addr.s6_addr).into(), 0));
                }
                (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => {
                    let to = data.cast::<libc::sockaddr_in>().read_unaligned();
                    let ip = Ipv4Addr::from(u32::from_be(to.sin_addr.s_addr));
                    return Some(SocketAddr::new(ip.into(), u16::from_be(to.sin_port)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    let to = data.cast::<libc::sockaddr_in6>().read_unaligned();
                    let ip = Ipv6Addr::from(to.sin6_addr.s6_addr);
                    return Some(SocketAddr::new(ip.into(), u16::from_be(to.sin6_port)));
                }
                _ => at = libc::CMSG_NXTHDR(header, at),
            }
        }
    }
    None
}

/// Writes the control message that makes a packet leave from `local`; its length.
fn write_local(control: &mut Control, local: IpAddr) -> usize {
    let (level, kind, size) = match local {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>()),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>()),
    };
    let start = control.0.as_mut_ptr();
    // SAFETY: the room is aligned for the header and larger than the header and the longer of the
    // two structures together (a test holds that), which are written unaligned behind it.
    unsafe {
        let header = start.cast::<libc::cmsghdr>();
        let mut head = MaybeUninit::<libc::cmsghdr>::zeroed().assume_init();
        head.cmsg_level = level;
        head.cmsg_type = kind;
        head.cmsg_len = libc::CMSG_LEN(size as u32) as usize;
        header.write(head);
        let data = libc::CMSG_DATA(header);
        match local {
            IpAddr::V4(ip) => {
                let mut info: libc::in_pktinfo = zeroed();
                info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
                data.cast::<libc::in_pktinfo>().write_unaligned(info);
            }
            IpAddr::V6(ip) => {
                let mut info: libc::in6_pktinfo = zeroed();
                info.ipi6_addr.s6_addr = ip.octets();
                data.cast::<libc::in6_pktinfo>().write_unaligned(info);
            }
        }
        libc::CMSG_SPACE(size as u32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{ListenOptions, Transport, listen, local_address};

    fn bound(text: &str) -> (OwnedFd, Address) {
        let options = ListenOptions { transport: Transport::Datagram, ..Default::default() };
        let socket = listen(&Address::parse(text).unwrap(), &options).unwrap();
        let address = local_address(socket.as_fd()).unwrap();
        (socket, address)
    }

    #[test]
    fn control_messages_fit() {
        for size in [size_of::<libc::in6_pktinfo>(), size_of::<libc::sockaddr_in6>()] {
            // SAFETY: this computes a length.
            let most = unsafe { libc::CMSG_SPACE(size as u32) };
            assert!(most as usize <= CONTROL);
        }
    }

    #[test]
    fn packets_come_in_batches_and_answers_leave_from_where_they_came_to() {
        for (wildcard, host) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "[::1]")] {
            let (server, address) = bound(wildcard);
            let target = Address::parse(&format!("{host}:{}", address.port().unwrap())).unwrap();
            let Ok(client) = connect(&target, None, false) else { continue };
            for packet in ["one", "", "three"] {
                crate::socket::send(client.as_fd(), packet.as_bytes()).unwrap();
            }
            let mut batch = Batch::default();
            assert_eq!(batch.receive(server.as_fd(), AT_ONCE).unwrap(), 3, "{wildcard}");
            let packets: Vec<Packet<'_>> = batch.packets().collect();
            let texts: Vec<&[u8]> = packets.iter().map(|packet| packet.bytes).collect();
            assert_eq!(texts, [&b"one"[..], b"", b"three"]);
            assert_eq!(
                packets[0].local.map(|local| (local.ip(), local.port())),
                Some((target.ip().unwrap(), 0))
            );
            let peer = packets[0].peer;
            assert_eq!(*peer, local_address(client.as_fd()).unwrap());
            let local = packets[0].local.map(|local| local.ip());
            send_to(server.as_fd(), b"answer", peer, local).unwrap();
            // The client's socket is connected: an answer from elsewhere would not reach it.
            let mut buffer = [0; 16];
            assert_eq!(crate::socket::receive(client.as_fd(), &mut buffer).unwrap(), 6);
            let nothing = batch.receive(server.as_fd(), AT_ONCE).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(batch.packets().count(), 0);
        }
    }

    #[test]
    fn unix_sockets_answer_each_other() {
        let path = std::env::temp_dir().join(format!("heng-datagram-{}", std::process::id()));
        let (server, address) = bound(&format!("unix:{}", path.display()));
        let client = connect(&address, None, false).unwrap();
        crate::socket::send(client.as_fd(), b"hello").unwrap();
        let mut batch = Batch::default();
        assert_eq!(batch.receive(server.as_fd(), AT_ONCE).unwrap(), 1);
        let packet = batch.packets().next().unwrap();
        assert_eq!(packet.bytes, b"hello");
        send_to(server.as_fd(), b"you too", packet.peer, None).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(crate::socket::receive(client.as_fd(), &mut buffer).unwrap(), 7);
        std::fs::remove_file(path).unwrap();
    }
}
