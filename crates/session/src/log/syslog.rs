//! Lines to a syslog daemon, over a unix datagram socket or UDP (RFC 3164; nginx: "Logging to
//! syslog").
//!
//! Sending never waits. A line that the socket does not take at once is lost, as every line is
//! while the daemon is away; each new line tries again.

use std::cell::{Cell, RefCell};
use std::io;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::{LINE_LIMIT, Level, Log};
use crate::clock;
use system::driver;
use system::errno::Errno;

/// Names of facilities; the place in the list is the number (RFC 3164 section 4.1.1). nginx calls
/// the last ones before local0 as here.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const LOCAL7: u8 = 23;

/// Names of severities; the place in the list is the number.
const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];
const INFO: u8 = 6;

const PORT: u16 = 514;
const TAG_LIMIT: usize = 32;
/// The longest head: `<255>Jan 01 00:00:00 HOST TAG: `.
pub(super) const HEAD_LIMIT: usize = 21 + 256 + TAG_LIMIT + 2;
/// A daemon that is away is reported once in so many seconds.
const COMPLAIN_EVERY: u64 = 60;

/// `syslog:server=...` as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogText {
    /// As written, for messages.
    pub name: String,
    /// Where it is.
    pub address: SyslogAddress,
    /// 0 to 23.
    pub facility: u8,
    /// 0 to 7; used by access logs, error lines carry their own.
    pub severity: u8,
    /// `None` for the program's name.
    pub tag: Option<String>,
    /// False with `nohostname`.
    pub with_host: bool,
}

/// Where a syslog daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A unix datagram socket.
    Unix(PathBuf),
    /// A UDP port.
    Udp(SocketAddr),
}

impl SyslogText {
    /// Reads what follows `syslog:`, looking up the server's name when it is one.
    ///
    /// # Errors
    /// nginx's words.
    pub fn parse(text: &str) -> Result<SyslogText, String> {
        let (mut server, mut facility, mut severity) = (None, None, None);
        let (mut tag, mut with_host) = (None, true);
        for parameter in text.split(',') {
            let unknown = || format!("unknown syslog parameter \"{parameter}\"");
            if parameter == "nohostname" {
                with_host = false;
                continue;
            }
            let (key, value) = parameter.split_once('=').ok_or_else(unknown)?;
            let taken = match key {
                "server" => server.is_some(),
                "facility" => facility.is_some(),
                "severity" => severity.is_some(),
                "tag" => tag.is_some(),
                _ => return Err(unknown()),
            };
            if taken {
                return Err(format!("duplicate syslog \"{key}\""));
            }
            match key {
                "server" => {
                    let wrong = |why| format!("{why} in syslog server \"{value}\"");
                    server = Some((value.to_owned(), address(value).map_err(wrong)?));
                }
                "facility" => facility = Some(index_of(&FACILITIES, value, key)?),
                "severity" => severity = Some(index_of(&SEVERITIES, value, key)?),
                _ => tag = Some(checked_tag(value)?),
            }
        }
        let (name, address) = server.ok_or("no syslog server specified")?;
        let (facility, severity) = (facility.unwrap_or(LOCAL7), severity.unwrap_or(INFO));
        Ok(SyslogText { name, address, facility, severity, tag, with_host })
    }
}

fn index_of(names: &[&str], name: &str, what: &str) -> Result<u8, String> {
    let found = names.iter().position(|known| *known == name);
    found.map(|at| at as u8).ok_or_else(|| format!("unknown syslog {what} \"{name}\""))
}

fn checked_tag(tag: &str) -> Result<String, String> {
    if tag.len() > TAG_LIMIT {
        return Err("syslog tag length exceeds 32".to_owned());
    }
    if !tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let only = "syslog \"tag\" only allows alphanumeric characters and underscore";
        return Err(only.to_owned());
    }
    Ok(tag.to_owned())
}

fn address(text: &str) -> Result<SyslogAddress, &'static str> {
    /// `sun_path` holds 108 bytes, the last one zero.
    const PATH_LIMIT: usize = 107;
    if let Some((scheme, path)) = text.split_at_checked(5)
        && scheme.eq_ignore_ascii_case("unix:")
    {
        return match path.len() {
            0 => Err("no path in the unix domain socket"),
            1..=PATH_LIMIT => Ok(SyslogAddress::Unix(path.into())),
            _ => Err("too long path in the unix domain socket"),
        };
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("invalid host")?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port_number(port)?,
            None if rest.is_empty() => PORT,
            None => return Err("invalid host"),
        };
        let host: Ipv6Addr = host.parse().map_err(|_| "invalid IPv6 address")?;
        return Ok(SyslogAddress::Udp(SocketAddr::new(IpAddr::V6(host), port)));
    }
    if text.contains(['/', '?']) {
        return Err("invalid host");
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port_number(port)?),
        None => (text, PORT),
    };
    if host.is_empty() {
        return Err("no host");
    }
    if let Ok(host) = host.parse() {
        return Ok(SyslogAddress::Udp(SocketAddr::new(IpAddr::V4(host), port)));
    }
    let mut found = (host, port).to_socket_addrs().map_err(|_| "host not found")?;
    found.next().map(SyslogAddress::Udp).ok_or("host not found")
}

fn port_number(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(port @ 1..) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err("invalid port"),
    }
}

/// A syslog daemon as a process talks to it.
pub struct Syslog {
    about: SyslogText,
    /// ` HOST TAG: `, what stands between time and line.
    middle: Vec<u8>,
    connection: RefCell<Connection>,
    /// Wall second of the last report about this daemon.
    complained: Cell<u64>,
}

/// Socket and line under way; borrowed while sending, so that a report about the failure does
/// not come back here.
struct Connection {
    socket: Option<Socket>,
    packet: Vec<u8>,
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Syslog {
    /// A daemon that is not connected yet. `program` is the tag unless one is configured.
    pub fn new(about: SyslogText, program: &str) -> Syslog {
        let mut middle = b" ".to_vec();
        if about.with_host {
            middle.extend_from_slice(system::host::name().as_bytes());
            middle.push(b' ');
        }
        middle.extend_from_slice(about.tag.as_deref().unwrap_or(program).as_bytes());
        middle.extend_from_slice(b": ");
        let connection = RefCell::new(Connection { socket: None, packet: Vec::new() });
        Syslog { about, middle, connection, complained: Cell::new(0) }
    }

    /// Sends a line of the error log, without its newline, with the severity of `level`.
    pub fn send_error(&self, level: Level, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.send(level as u8, |packet| packet.extend_from_slice(line));
    }

    /// Sends what `write_line` appends, with the configured severity (access log).
    pub fn send_line(&self, write_line: impl FnOnce(&mut Vec<u8>)) {
        self.send(self.about.severity, write_line);
    }

    fn send(&self, severity: u8, write_line: impl FnOnce(&mut Vec<u8>)) {
        let Ok(mut connection) = self.connection.try_borrow_mut() else {
            return;
        };
        let Connection { socket, packet } = &mut *connection;
        packet.clear();
        let _ = write!(packet, "<{}>", self.about.facility * 8 + severity);
        packet.extend_from_slice(&clock::syslog());
        packet.extend_from_slice(&self.middle);
        write_line(packet);
        packet.truncate(LINE_LIMIT + HEAD_LIMIT);
        if let Err((call, error)) = self.transmit(socket, packet) {
            *socket = None;
            self.report(call, error);
        }
    }

    fn transmit(
        &self,
        socket: &mut Option<Socket>,
        packet: &[u8],
    ) -> Result<(), (&'static str, io::Error)> {
        if socket.is_none() {
            *socket = Some(self.connect().map_err(|error| ("connect()", error))?);
        }
        let sent = match socket {
            Some(Socket::Unix(socket)) => socket.send(packet),
            Some(Socket::Udp(socket)) => socket.send(packet),
            // It was connected above.
            None => return Ok(()),
        };
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(("send()", error)),
            _ => Ok(()),
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        match &self.about.address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Socket::Unix(socket))
            }
            SyslogAddress::Udp(address) => {
                let any = match address {
                    SocketAddr::V4(_) => "0.0.0.0:0",
                    SocketAddr::V6(_) => "[::]:0",
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Socket::Udp(socket))
            }
        }
    }

    fn report(&self, call: &str, error: io::Error) {
        let (now, _) = driver::wall();
        if now < self.complained.get() + COMPLAIN_EVERY {
            return;
        }
        self.complained.set(now);
        let server = &self.about.name;
        let message = format_args!("{call} failed");
        Log::process().fail(Level::Alert, Errno::from(error), None, message, &|out| {
            let _ = write!(out, " while logging to syslog, server: {server}");
        });
    }
}
