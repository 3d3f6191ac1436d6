//! The kernel's view of TCP sockets: what no client can see. It is asked for the socket that is
//! meant where that can be named; the tables in /proc/net take long with many connections.

use crate::diag;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

/// One TCP socket of this machine, as a row of `/proc/net/tcp` or `tcp6` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The port on its own side.
    pub port: u16,
    /// The port on the other side; 0 for a listener.
    pub remote_port: u16,
    /// True for a row of `tcp6`.
    pub ipv6: bool,
    /// The state's number: 1 established, 3 half open, 10 listening.
    pub state: u8,
    /// Bytes that were sent and are not acknowledged.
    pub sending: u64,
    /// Bytes that came and are not read; for a listener, connections not accepted.
    pub receiving: u64,
    /// The running timer: 0 none, 1 retransmission, 2 keep-alive.
    pub timer: u8,
    /// The inode, as in the descriptor's link; 0 while the connection has no descriptor.
    pub inode: u64,
}

impl Socket {
    /// The state of established connections.
    pub const ESTABLISHED: u8 = 1;
    /// The state of connections whose handshake is not complete.
    pub const HALF_OPEN: u8 = 3;
    /// The state of connections that are over on both sides, kept for packets that are late.
    pub const OVER: u8 = 6;
    /// The state of listeners.
    pub const LISTENING: u8 = 10;
}

/// The socket of this machine between these two addresses; None once it is gone.
pub(crate) fn connection(local: SocketAddr, remote: SocketAddr) -> Option<Socket> {
    diag::connection(local, remote).unwrap_or_else(|| {
        let mut all = table(local.port()).into_iter();
        all.find(|socket| (socket.port, socket.remote_port) == (local.port(), remote.port()))
    })
}

/// The listeners on a port.
pub fn listeners(port: u16) -> Vec<Socket> {
    let all = diag::all(1 << Socket::LISTENING).unwrap_or_else(|| table(port)).into_iter();
    all.filter(|socket| socket.state == Socket::LISTENING && socket.port == port).collect()
}

/// All sockets with this port on either side, but those that wait for their time to be over.
pub fn sockets(port: u16) -> Vec<Socket> {
    let all = diag::all(!(1 << Socket::OVER)).unwrap_or_else(|| table(port)).into_iter();
    let has_it = |socket: &Socket| socket.port == port || socket.remote_port == port;
    all.filter(|socket| has_it(socket) && socket.state != Socket::OVER).collect()
}

/// The rows of the tables in /proc/net with this port on either side.
pub(crate) fn table(port: u16) -> Vec<Socket> {
    // The tables may have thousands of rows: only those with the port are taken apart.
    let needle = format!(":{port:04X} ");
    let mut found = Vec::new();
    for (path, ipv6) in [("/proc/net/tcp", false), ("/proc/net/tcp6", true)] {
        let table = fs::read_to_string(path).unwrap_or_default();
        let mut seen = usize::MAX;
        for (at, _) in table.match_indices(&needle) {
            let start = table[..at].rfind('\n').map_or(0, |end| end + 1);
            // A row may hold the port twice.
            if start != seen {
                seen = start;
                found.extend(row(table[start..].lines().next().unwrap_or_default(), ipv6));
            }
        }
    }
    found
}

/// Takes `sl local remote st tx:rx tr:when retrnsmt uid timeout inode ...` apart.
fn row(line: &str, ipv6: bool) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, state, queues, timer, _, _, _, inode, ..] = words[..] else {
        return None;
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let (sending, receiving) = queues.split_once(':')?;
    Some(Socket {
        port: port(local)?,
        remote_port: port(remote)?,
        ipv6,
        state: hex(state)?.try_into().ok()?,
        sending: hex(sending)?,
        receiving: hex(receiving)?,
        timer: hex(timer.split(':').next()?)?.try_into().ok()?,
        inode: inode.parse().ok()?,
    })
}

/// Options of a socket that belongs to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// TCP_NODELAY: small pieces are sent at once.
    pub nodelay: bool,
    /// SO_KEEPALIVE: an idle connection is probed.
    pub keepalive: bool,
    /// TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT: when, how often and how many times; times in
    /// seconds.
    pub probes: (u64, u64, u32),
    /// SO_RCVBUF in bytes, of which the kernel takes half for itself.
    pub receive_buffer: usize,
    /// SO_SNDBUF, the same.
    pub send_buffer: usize,
}

/// Reads the options of a socket of process `pid` through a duplicate of its descriptor; None
/// when the process has no such socket or this user may not look.
pub fn options_of(pid: u32, inode: u64) -> Option<SocketOptions> {
    let link = format!("socket:[{inode}]");
    let descriptor = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        (target.to_string_lossy() == link).then_some(number)
    })?;
    let process = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
    let socket = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()?;
    Some(SocketOptions {
        nodelay: sockopt::tcp_nodelay(&socket).ok()?,
        keepalive: sockopt::socket_keepalive(&socket).ok()?,
        probes: (
            sockopt::tcp_keepidle(&socket).ok()?.as_secs(),
            sockopt::tcp_keepintvl(&socket).ok()?.as_secs(),
            sockopt::tcp_keepcnt(&socket).ok()?,
        ),
        receive_buffer: sockopt::socket_recv_buffer_size(&socket).ok()?,
        send_buffer: sockopt::socket_send_buffer_size(&socket).ok()?,
    })
}

/// The inodes of all sockets that a process has open.
pub fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|target| {
            let target = target.to_string_lossy().into_owned();
            target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn listeners_and_connections_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let found = sockets(port);
        let listening = found.iter().find(|socket| socket.state == Socket::LISTENING).unwrap();
        assert_eq!((listening.port, listening.remote_port, listening.receiving), (port, 0, 1));
        let ours = client.local_addr().unwrap().port();
        let connected = found.iter().find(|socket| socket.port == ours).unwrap();
        assert_eq!((connected.remote_port, connected.state), (port, Socket::ESTABLISHED));
        let own = sockets_of(std::process::id());
        assert!(own.contains(&listening.inode) && own.contains(&connected.inode));
        client.set_nodelay(true).unwrap();
        let options = options_of(std::process::id(), connected.inode).unwrap();
        assert!(options.nodelay && !options.keepalive, "{options:?}");
    }
}
