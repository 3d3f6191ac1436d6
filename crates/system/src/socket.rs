//! Sockets: addresses, listeners, connections, options. What is particular about datagrams is in
//! `datagram.rs`.
//!
//! Every socket made here is non-blocking and closed by exec. Waiting is the driver's work;
//! retrying a failed `bind` is the caller's, because nginx retries over all listeners at once.
//! Shapes and option names follow `ip(7)`, `tcp(7)`, `unix(7)` and nginx's `listen` directive.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    self as sys, AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};

use crate::datagram;
use crate::errno::Errno;

/// Where a socket listens, comes from or goes to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Address {
    /// IPv4 or IPv6 address and port.
    Inet(SocketAddr),
    /// A path in the file system. Empty for a peer that bound no path (most clients).
    Unix(PathBuf),
}

impl Address {
    /// Reads `127.0.0.1:80`, `[::1]:80` or `unix:/path`; the forms that `Display` prints.
    /// Names, lone ports and `*` belong to the directives that allow them.
    pub fn parse(text: &str) -> Option<Address> {
        match text.strip_prefix("unix:") {
            Some("") => None,
            Some(path) => Some(Address::Unix(PathBuf::from(path))),
            None => text.parse().ok().map(Address::Inet),
        }
    }

    /// The port, or nothing for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Inet(address) => Some(address.port()),
            Address::Unix(_) => None,
        }
    }

    /// The internet address, or nothing for a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Inet(address) => Some(address.ip()),
            Address::Unix(_) => None,
        }
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Address::Unix(_))
    }

    /// Whether it stands for every local address (`0.0.0.0` or `::`).
    pub fn is_wildcard(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// `0.0.0.0:PORT`.
    pub fn any_v4(port: u16) -> Address {
        Address::Inet((Ipv4Addr::UNSPECIFIED, port).into())
    }

    /// `[::]:PORT`.
    pub fn any_v6(port: u16) -> Address {
        Address::Inet((Ipv6Addr::UNSPECIFIED, port).into())
    }

    pub(crate) fn family(&self) -> AddressFamily {
        match self {
            Address::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
            Address::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
            Address::Unix(_) => AddressFamily::UNIX,
        }
    }

    fn from_kernel(any: SocketAddrAny) -> Address {
        if let Ok(address) = SocketAddr::try_from(any.clone()) {
            return Address::Inet(address);
        }
        let unix = SocketAddrUnix::try_from(any).ok();
        let path = unix.as_ref().and_then(SocketAddrUnix::path_bytes).unwrap_or_default();
        Address::Unix(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
    }

    pub(crate) fn to_kernel(&self) -> rustix::io::Result<SocketAddrAny> {
        match self {
            Address::Inet(address) => Ok((*address).into()),
            Address::Unix(path) => SocketAddrUnix::new(path.as_path()).map(Into::into),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(SocketAddr::V4(address)) => address.fmt(out),
            // The scope of a link-local address is not printed, as in nginx.
            Address::Inet(SocketAddr::V6(address)) => {
                write!(out, "[{}]:{}", address.ip(), address.port())
            }
            Address::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Inet(address)
    }
}

/// A socket call that failed: prints `bind() failed (98: Address already in use)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketError {
    /// The call as nginx names it, without its parentheses: `bind`, `setsockopt(SO_REUSEPORT)`.
    pub call: &'static str,
    /// What the kernel said.
    pub errno: Errno,
}

impl SocketError {
    /// Another process, or an older generation, holds the address.
    pub fn is_address_in_use(&self) -> bool {
        self.errno.0 == libc::EADDRINUSE
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parentheses = if self.call.ends_with(')') { "" } else { "()" };
        write!(out, "{}{parentheses} failed ({})", self.call, self.errno)
    }
}

impl std::error::Error for SocketError {}

pub(crate) trait Named<T> {
    fn named(self, call: &'static str) -> Result<T, SocketError>;
}

impl<T> Named<T> for rustix::io::Result<T> {
    fn named(self, call: &'static str) -> Result<T, SocketError> {
        self.map_err(|error| SocketError { call, errno: error.into() })
    }
}

/// TCP keepalive probes (`so_keepalive=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keepalive {
    /// The system's setting is left alone.
    #[default]
    System,
    /// `so_keepalive=off`.
    Off,
    /// `so_keepalive=on` or `idle:interval:count`; an absent part keeps the system's value.
    On { idle_s: Option<u32>, interval_s: Option<u32>, count: Option<u32> },
}

/// What a socket carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Transport {
    /// Connections: TCP, or a unix stream socket.
    #[default]
    Stream,
    /// Packets: UDP, or a unix datagram socket.
    Datagram,
}

/// What `listen` may ask of a socket. The default is nginx's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenOptions {
    pub transport: Transport,
    /// Length of the accept queue; 511 unless told.
    pub backlog: i32,
    /// One socket per worker, the kernel spreads connections (`SO_REUSEPORT`).
    pub reuseport: bool,
    pub keepalive: Keepalive,
    /// Wake the worker only when the first bytes are there (`TCP_DEFER_ACCEPT`).
    pub deferred: bool,
    /// An own `bind` although a wildcard address of the same port is listened on.
    pub bind: bool,
    /// `SO_RCVBUF` in bytes.
    pub rcvbuf: Option<u32>,
    /// `SO_SNDBUF` in bytes.
    pub sndbuf: Option<u32>,
    /// An IPv6 wildcard does not take IPv4 connections. On in nginx since 1.3.4.
    pub ipv6only: bool,
    /// Length of the queue of `TCP_FASTOPEN`.
    pub fastopen: Option<u32>,
    /// Connections that were meant for other addresses are taken too (`IP_TRANSPARENT`).
    pub transparent: bool,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            transport: Transport::Stream,
            backlog: 511,
            reuseport: false,
            keepalive: Keepalive::System,
            deferred: false,
            bind: false,
            rcvbuf: None,
            sndbuf: None,
            ipv6only: true,
            fastopen: None,
            transparent: false,
        }
    }
}

/// Makes, binds and opens a listener. A unix socket's file gets mode 0666, as in nginx, and is
/// removed again when a later step fails. Every option must succeed.
pub fn listen(address: &Address, options: &ListenOptions) -> Result<OwnedFd, SocketError> {
    let mut refused = None;
    let socket = listen_leniently(address, options, &mut |error| {
        refused.get_or_insert(error);
    })?;
    match refused {
        None => Ok(socket),
        Some(error) => {
            remove_unix_file(address);
            Err(error)
        }
    }
}

/// As [`listen`], but tells of options that the kernel refuses, and listens without them, as
/// nginx does for buffer sizes, keepalive, fast open and deferred accepting.
pub fn listen_leniently(
    address: &Address,
    options: &ListenOptions,
    complain: &mut dyn FnMut(SocketError),
) -> Result<OwnedFd, SocketError> {
    let socket = new_socket(address, options.transport)?;
    sockopt::set_socket_reuseaddr(&socket, true).named("setsockopt(SO_REUSEADDR)")?;
    if options.reuseport && !address.is_unix() {
        sockopt::set_socket_reuseport(&socket, true).named("setsockopt(SO_REUSEPORT)")?;
    }
    if address.family() == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, options.ipv6only).named("setsockopt(IPV6_V6ONLY)")?;
    }
    if options.transparent {
        set_transparent(socket.as_fd(), address)?;
    }
    match options.transport {
        Transport::Stream => {}
        Transport::Datagram if options.transparent => {
            datagram::tell_destinations(socket.as_fd(), address)?;
        }
        Transport::Datagram if address.is_wildcard() => {
            datagram::tell_local_addresses(socket.as_fd(), address)?;
        }
        Transport::Datagram => {}
    }
    // Buffer sizes must stand before listen(): accepted sockets inherit the window scale.
    set_buffers(socket.as_fd(), options, complain);
    sys::bind(&socket, &address.to_kernel().named("bind")?).named("bind")?;
    if let Address::Unix(path) = address
        && let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(0o666))
    {
        remove_unix_file(address);
        return Err(SocketError { call: "chmod", errno: error.into() });
    }
    if options.transport == Transport::Datagram {
        return Ok(socket);
    }
    sys::listen(&socket, options.backlog).named("listen").inspect_err(|_| {
        remove_unix_file(address);
    })?;
    set_behaviour(socket.as_fd(), address, options, complain);
    Ok(socket)
}

/// Applies options to a listener that is open already: one kept over a reload, or one inherited
/// by a binary upgrade. Also moves the backlog. Refused options are told and ignored.
pub fn reconfigure_listener(
    listener: BorrowedFd<'_>,
    address: &Address,
    options: &ListenOptions,
    complain: &mut dyn FnMut(SocketError),
) {
    set_buffers(listener, options, complain);
    let mut attempt = |outcome: Result<(), SocketError>| outcome.unwrap_or_else(&mut *complain);
    if !address.is_unix() && options.reuseport {
        let on = sockopt::set_socket_reuseport(listener, true);
        attempt(on.named("setsockopt(SO_REUSEPORT)"));
    }
    if options.transport == Transport::Datagram {
        return;
    }
    attempt(sys::listen(listener, options.backlog).named("listen"));
    set_behaviour(listener, address, options, complain);
}

fn set_buffers(
    socket: BorrowedFd<'_>,
    options: &ListenOptions,
    complain: &mut dyn FnMut(SocketError),
) {
    if let Some(bytes) = options.rcvbuf {
        set_receive_buffer(socket, bytes).unwrap_or_else(&mut *complain);
    }
    if let Some(bytes) = options.sndbuf {
        set_send_buffer(socket, bytes).unwrap_or_else(&mut *complain);
    }
}

fn set_behaviour(
    socket: BorrowedFd<'_>,
    address: &Address,
    options: &ListenOptions,
    complain: &mut dyn FnMut(SocketError),
) {
    if address.is_unix() {
        return;
    }
    set_keepalive(socket, options.keepalive).unwrap_or_else(&mut *complain);
    if let Some(queue) = options.fastopen {
        set_tcp(socket, libc::TCP_FASTOPEN, queue as i32, "setsockopt(TCP_FASTOPEN)")
            .unwrap_or_else(&mut *complain);
    }
    let wait_s = i32::from(options.deferred);
    set_tcp(socket, libc::TCP_DEFER_ACCEPT, wait_s, "setsockopt(TCP_DEFER_ACCEPT)")
        .unwrap_or_else(&mut *complain);
}

fn remove_unix_file(address: &Address) {
    if let Address::Unix(path) = address {
        // Best effort: the error that led here is the one to report.
        let _ = std::fs::remove_file(path);
    }
}

/// Takes over a listener that was inherited by number over exec, and says where it listens.
/// Fails when the number is neither a listening stream socket nor a datagram socket. The
/// descriptor gets `FD_CLOEXEC`
/// and `O_NONBLOCK` back.
///
/// Call it once per number, at start, before anything else can own the number.
pub fn adopt_listener(number: RawFd) -> io::Result<(OwnedFd, Address, Transport)> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is only asked questions here; a closed one answers EBADF. The
    // borrow ends before ownership is taken.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let transport = match sockopt::socket_type(borrowed)? {
        SocketType::DGRAM => Transport::Datagram,
        _ if sockopt::socket_acceptconn(borrowed)? => Transport::Stream,
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    let address = local_address(borrowed)?;
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(borrowed, true)?;
    // SAFETY: the number is an open socket (asked above), it came from the environment of this
    // program's start, and nothing else in this process owns it.
    Ok((unsafe { OwnedFd::from_raw_fd(number) }, address, transport))
}

/// Takes one connection from a listener's queue, with its peer.
/// `WouldBlock` when there is none; `EMFILE`, `ECONNABORTED` and others as `accept4(2)` says.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = sys::acceptfrom_with(listener, flags)?;
    let peer = peer.map_or_else(|| Address::Unix(PathBuf::new()), Address::from_kernel);
    Ok((socket, peer))
}

/// Begins a connection. `true` when it stands already (usual for unix sockets); else the socket
/// becomes writable when it is decided, and `take_error` tells how.
///
/// `local` is the address to come from (port 0: the kernel chooses late, so that one port can
/// serve many destinations); `transparent` allows a foreign one and needs `CAP_NET_RAW`.
/// `prepare` sets options while nobody knows of the socket: with its first packet it tells what
/// its receive buffer allows for (tcp(7), "window scaling").
pub fn connect_start(
    peer: &Address,
    local: Option<&Address>,
    transparent: bool,
    prepare: impl FnOnce(BorrowedFd<'_>) -> Result<(), SocketError>,
) -> Result<(OwnedFd, bool), SocketError> {
    let socket = new_socket(peer, Transport::Stream)?;
    prepare(socket.as_fd())?;
    if let Some(local) = local {
        bind_before_connect(socket.as_fd(), local, transparent)?;
    }
    match sys::connect(&socket, &peer.to_kernel().named("connect")?) {
        Ok(()) => Ok((socket, true)),
        Err(rustix::io::Errno::INPROGRESS) => Ok((socket, false)),
        Err(error) => Err(error).named("connect"),
    }
}

pub(crate) fn bind_before_connect(
    socket: BorrowedFd<'_>,
    local: &Address,
    transparent: bool,
) -> Result<(), SocketError> {
    if transparent {
        set_transparent(socket, local)?;
    }
    if local.port() == Some(0) {
        let call = "setsockopt(IP_BIND_ADDRESS_NO_PORT)";
        set_integer(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1, call)?;
    }
    sys::bind(socket, &local.to_kernel().named("bind")?).named("bind")
}

fn set_transparent(socket: BorrowedFd<'_>, address: &Address) -> Result<(), SocketError> {
    let (level, name, call) = match address.family() {
        AddressFamily::INET6 => {
            (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, "setsockopt(IPV6_TRANSPARENT)")
        }
        _ => (libc::IPPROTO_IP, libc::IP_TRANSPARENT, "setsockopt(IP_TRANSPARENT)"),
    };
    set_integer(socket, level, name, 1, call)
}

fn new_socket(address: &Address, transport: Transport) -> Result<OwnedFd, SocketError> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let kind = match transport {
        Transport::Stream => SocketType::STREAM,
        Transport::Datagram => SocketType::DGRAM,
    };
    sys::socket_with(address.family(), kind, flags, None).named("socket")
}

/// Reads what is there; 0 is the end of the stream, `WouldBlock` means nothing yet.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = sys::recv(socket, buffer, RecvFlags::empty())?;
    Ok(length)
}

/// Like [`receive`], and leaves the bytes in the queue.
pub fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = sys::recv(socket, buffer, RecvFlags::PEEK)?;
    Ok(length)
}

/// Sends what fits. Never raises SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(sys::send(socket, bytes, SendFlags::NOSIGNAL)?)
}

/// Sends several slices with one call; the process ignores SIGPIPE (see `signals`).
pub fn send_vectored(socket: BorrowedFd<'_>, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    Ok(rustix::io::writev(socket, slices)?)
}

/// Which direction [`shutdown`] closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Read,
    Write,
    Both,
}

/// Closes one direction of a connection, or both (`shutdown(2)`).
pub fn shutdown(socket: BorrowedFd<'_>, direction: Direction) -> io::Result<()> {
    let how = match direction {
        Direction::Read => sys::Shutdown::Read,
        Direction::Write => sys::Shutdown::Write,
        Direction::Both => sys::Shutdown::Both,
    };
    Ok(sys::shutdown(socket, how)?)
}

/// The error that a background event left on the socket (`SO_ERROR`), cleared by asking.
pub fn take_error(socket: BorrowedFd<'_>) -> io::Result<Option<Errno>> {
    Ok(sockopt::socket_error(socket)?.err().map(Errno::from))
}

/// Where the socket is bound (`getsockname(2)`).
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<Address> {
    Ok(Address::from_kernel(sys::getsockname(socket)?))
}

/// Whom the socket is connected to (`getpeername(2)`).
pub fn peer_address(socket: BorrowedFd<'_>) -> io::Result<Address> {
    let peer = sys::getpeername(socket)?;
    Ok(peer.map_or_else(|| Address::Unix(PathBuf::new()), Address::from_kernel))
}

/// Sends small writes at once (`TCP_NODELAY`). An error on a unix socket.
pub fn set_nodelay(socket: BorrowedFd<'_>, on: bool) -> Result<(), SocketError> {
    sockopt::set_tcp_nodelay(socket, on).named("setsockopt(TCP_NODELAY)")
}

/// Collects writes until it is taken off again (`TCP_CORK`; nginx's `tcp_nopush`).
pub fn set_cork(socket: BorrowedFd<'_>, on: bool) -> Result<(), SocketError> {
    sockopt::set_tcp_cork(socket, on).named("setsockopt(TCP_CORK)")
}

/// Acknowledges at once (`TCP_QUICKACK`).
pub fn set_quickack(socket: BorrowedFd<'_>, on: bool) -> Result<(), SocketError> {
    sockopt::set_tcp_quickack(socket, on).named("setsockopt(TCP_QUICKACK)")
}

/// Applies a keepalive setting to a listener (its connections inherit it) or a connection.
pub fn set_keepalive(socket: BorrowedFd<'_>, keepalive: Keepalive) -> Result<(), SocketError> {
    let (idle_s, interval_s, count) = match keepalive {
        Keepalive::System => return Ok(()),
        Keepalive::Off => {
            return sockopt::set_socket_keepalive(socket, false).named("setsockopt(SO_KEEPALIVE)");
        }
        Keepalive::On { idle_s, interval_s, count } => (idle_s, interval_s, count),
    };
    sockopt::set_socket_keepalive(socket, true).named("setsockopt(SO_KEEPALIVE)")?;
    if let Some(seconds) = idle_s {
        set_tcp(socket, libc::TCP_KEEPIDLE, seconds as i32, "setsockopt(TCP_KEEPIDLE)")?;
    }
    if let Some(seconds) = interval_s {
        set_tcp(socket, libc::TCP_KEEPINTVL, seconds as i32, "setsockopt(TCP_KEEPINTVL)")?;
    }
    if let Some(count) = count {
        set_tcp(socket, libc::TCP_KEEPCNT, count as i32, "setsockopt(TCP_KEEPCNT)")?;
    }
    Ok(())
}

/// Lets further sockets of the same user bind to the same address (`SO_REUSEPORT`). Set after the
/// first one was bound, that one still conflicts with everybody else's.
pub fn set_reuseport(socket: BorrowedFd<'_>) -> Result<(), SocketError> {
    sockopt::set_socket_reuseport(socket, true).named("setsockopt(SO_REUSEPORT)")
}

/// `SO_RCVBUF` in bytes; the kernel doubles it.
pub fn set_receive_buffer(socket: BorrowedFd<'_>, bytes: u32) -> Result<(), SocketError> {
    sockopt::set_socket_recv_buffer_size(socket, bytes as usize).named("setsockopt(SO_RCVBUF)")
}

/// `SO_SNDBUF` in bytes; the kernel doubles it.
pub fn set_send_buffer(socket: BorrowedFd<'_>, bytes: u32) -> Result<(), SocketError> {
    sockopt::set_socket_send_buffer_size(socket, bytes as usize).named("setsockopt(SO_SNDBUF)")
}

/// What a close does with unsent bytes: `Some(zero)` resets the connection (nginx's
/// `reset_timedout_connection`), `None` sends them in the background.
pub fn set_linger(socket: BorrowedFd<'_>, wait: Option<Duration>) -> Result<(), SocketError> {
    sockopt::set_socket_linger(socket, wait).named("setsockopt(SO_LINGER)")
}

/// Bytes at which an unread send queue counts as writable (`TCP_NOTSENT_LOWAT`).
pub fn set_notsent_low_water(socket: BorrowedFd<'_>, bytes: u32) -> Result<(), SocketError> {
    set_tcp(socket, libc::TCP_NOTSENT_LOWAT, bytes as i32, "setsockopt(TCP_NOTSENT_LOWAT)")
}

/// What the kernel knows about a connection: the fields behind `$tcpinfo_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpInfo {
    pub round_trip_us: u32,
    pub round_trip_variance_us: u32,
    pub send_window_segments: u32,
    pub receive_space_bytes: u32,
}

/// Asks `TCP_INFO`; an error for anything that is not TCP.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // SAFETY: tcp_info is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `info`, which outlives the call.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TcpInfo {
        round_trip_us: info.tcpi_rtt,
        round_trip_variance_us: info.tcpi_rttvar,
        send_window_segments: info.tcpi_snd_cwnd,
        receive_space_bytes: info.tcpi_rcv_space,
    })
}

fn set_tcp(
    socket: BorrowedFd<'_>,
    name: i32,
    value: i32,
    call: &'static str,
) -> Result<(), SocketError> {
    set_integer(socket, libc::IPPROTO_TCP, name, value, call)
}

pub(crate) fn set_integer(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: i32,
    call: &'static str,
) -> Result<(), SocketError> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if outcome == 0 { Ok(()) } else { Err(SocketError { call, errno: Errno::last() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn wait(socket: &OwnedFd, events: PollFlags) {
        let limit = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(socket, events)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "nothing happened within 30 s");
    }

    fn loopback() -> Address {
        Address::parse("127.0.0.1:0").unwrap()
    }

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("system-socket-{}-{name}", std::process::id()))
    }

    #[test]
    fn addresses_print_as_they_are_read() {
        for text in ["127.0.0.1:80", "[::1]:80", "[::]:443", "unix:/run/x.sock"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "80", "localhost:80", "unix:", "::1:80", "127.0.0.1", "1.2.3.4:99999"] {
            assert_eq!(Address::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_connection_carries_bytes_and_names_both_ends() {
        let listener = listen(&loopback(), &ListenOptions::default()).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (client, _) = connect_start(&address, None, false, |_| Ok(())).unwrap();
        wait(&client, PollFlags::OUT);
        assert_eq!(take_error(client.as_fd()).unwrap(), None);
        wait(&listener, PollFlags::IN);
        let (server, peer) = accept(listener.as_fd()).unwrap();
        assert_eq!(peer, local_address(client.as_fd()).unwrap());
        assert_eq!(peer_address(client.as_fd()).unwrap(), address);
        let slices = [io::IoSlice::new(b"he"), io::IoSlice::new(b"ng")];
        assert_eq!(send_vectored(client.as_fd(), &slices).unwrap(), 4);
        wait(&server, PollFlags::IN);
        let mut buffer = [0; 16];
        assert_eq!(peek(server.as_fd(), &mut buffer).unwrap(), 4);
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"heng");
        assert!(tcp_info(server.as_fd()).unwrap().send_window_segments > 0);
        shutdown(server.as_fd(), Direction::Write).unwrap();
        wait(&client, PollFlags::IN);
        assert_eq!(receive(client.as_fd(), &mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_refused_connection_leaves_its_error_on_the_socket() {
        let gone = {
            let listener = listen(&loopback(), &ListenOptions::default()).unwrap();
            local_address(listener.as_fd()).unwrap()
        };
        match connect_start(&gone, Some(&loopback()), false, |_| Ok(())) {
            Ok((socket, _)) => {
                wait(&socket, PollFlags::OUT);
                assert_eq!(take_error(socket.as_fd()).unwrap(), Some(Errno(libc::ECONNREFUSED)));
            }
            Err(error) => assert_eq!(error.errno, Errno(libc::ECONNREFUSED)),
        }
    }

    #[test]
    fn unix_listeners_have_a_file_that_all_may_write() {
        let path = temporary("all-may-write");
        let address = Address::Unix(path.clone());
        let listener = listen(&address, &ListenOptions::default()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o666);
        let (client, established) = connect_start(&address, None, false, |_| Ok(())).unwrap();
        assert!(established);
        let (_server, peer) = accept(listener.as_fd()).unwrap();
        assert_eq!(peer, Address::Unix(PathBuf::new()));
        assert_eq!(peer_address(client.as_fd()).unwrap(), address);
        let error = listen(&address, &ListenOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "bind() failed (98: Address already in use)");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_second_listener_needs_reuseport() {
        let shared = ListenOptions { reuseport: true, ..ListenOptions::default() };
        let first = listen(&loopback(), &shared).unwrap();
        let address = local_address(first.as_fd()).unwrap();
        let second = listen(&address, &shared).unwrap();
        assert_eq!(local_address(second.as_fd()).unwrap(), address);
        let error = listen(&address, &ListenOptions::default()).unwrap_err();
        assert!(error.is_address_in_use());
    }

    #[test]
    fn options_reach_the_kernel() {
        let options = ListenOptions {
            keepalive: Keepalive::On { idle_s: Some(7), interval_s: Some(3), count: Some(2) },
            deferred: true,
            rcvbuf: Some(32 * 1024),
            sndbuf: Some(48 * 1024),
            fastopen: Some(16),
            ..ListenOptions::default()
        };
        let socket = listen(&loopback(), &options).unwrap();
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(7));
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), Duration::from_secs(3));
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 2);
        assert_eq!(sockopt::socket_recv_buffer_size(&socket).unwrap(), 64 * 1024);
        assert_eq!(sockopt::socket_send_buffer_size(&socket).unwrap(), 96 * 1024);
        let address = local_address(socket.as_fd()).unwrap();
        let plain = ListenOptions { keepalive: Keepalive::Off, ..ListenOptions::default() };
        reconfigure_listener(socket.as_fd(), &address, &plain, &mut |error| panic!("{error}"));
        assert!(!sockopt::socket_keepalive(&socket).unwrap());
    }

    #[test]
    fn only_listening_sockets_are_adopted() {
        use std::os::fd::IntoRawFd;
        let listener = listen(&loopback(), &ListenOptions::default()).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        let (listener, found, _) = adopt_listener(listener.into_raw_fd()).unwrap();
        assert_eq!(found, address);
        let (client, _) = connect_start(&found, None, false, |_| Ok(())).unwrap();
        assert!(adopt_listener(client.as_raw_fd()).is_err());
        assert!(adopt_listener(-1).is_err());
        assert!(adopt_listener(999_999).is_err());
        drop(listener);
    }
}
