//! The way to a peer: pick, connect, and again with the next one.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use net::{ConnectOptions, Datagrams};
use session::budget::{self, Permit};
use session::log::Level;
use system::errno::Errno;
use system::socket::{Address, SocketError};
use upstream::{
    Attempts, ConnectError, ConnectFailure, Connecting, Lease, Moment, NoPeer, Outcome, PeerIndex,
    Verdict,
};
use wire::proxy_protocol::{Carrier, Ends, write_binary, write_line};

use super::directives::Header;
use super::settings::Settings;
use crate::journey::{BAD_GATEWAY, INTERNAL_ERROR};
use crate::session::Session;

/// A connection to a peer.
pub(super) async fn connection(
    s: &mut Session,
    settings: &Settings,
    attempts: &mut Attempts,
) -> Result<Lease, u16> {
    let how = settings.connecting(s);
    attempts.limit_tries(settings.next_tries);
    loop {
        let peer = pick(s, attempts)?;
        match attempts.connect(peer, &how).await {
            Ok(lease) if settings.ssl.is_none() => return Ok(lease),
            Ok(lease) => {
                // Boxed: the futures of all other sessions would have room for it too.
                let secured = secure(s, settings, attempts, &lease, how.timeout_ms);
                match Box::pin(secured).await {
                    true => return Ok(lease),
                    false => may_go_on(s, settings, attempts)?,
                }
            }
            Err(error) => next(s, settings, attempts, error)?,
        }
    }
}

/// Secures a connection where it is to be. False: the log knows why it must not be used.
async fn secure(
    s: &mut Session,
    settings: &Settings,
    attempts: &Attempts,
    lease: &Lease,
    timeout_ms: u64,
) -> bool {
    let Some(ssl) = &settings.ssl else { return true };
    let peer = attempts.peer().map_or_else(String::new, |peer| peer.name.to_string());
    let host = attempts.group().name().to_owned();
    let header = header(s, settings.header);
    if !header.is_empty()
        && let Err(error) = lease.stream().write_all(&header).await
    {
        s.log_errno(Level::Error, (&error).into(), format_args!("send() failed"));
        return false;
    }
    s.doing = "SSL handshaking to upstream";
    let shaken = net::timeout(timeout_ms, ssl.secure(s, lease.stream(), &host, &peer)).await;
    match shaken {
        Some(Ok(())) => return true,
        Some(Err(insecure)) => s.log_error(Level::Error, format_args!("{insecure}")),
        None => {
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            s.log_errno(Level::Error, errno, format_args!("upstream timed out"));
        }
    }
    false
}

/// A socket for packets to a peer. That it is there nobody knows before it answers.
pub(super) fn packets(
    s: &mut Session,
    settings: &Settings,
    attempts: &mut Attempts,
) -> Result<(Datagrams, Permit), u16> {
    let how = settings.connecting(s);
    attempts.limit_tries(settings.next_tries);
    loop {
        pick(s, attempts)?;
        let Some(permit) = budget::acquire() else {
            let limit = budget::limit();
            let message = format_args!("{limit} worker_connections are not enough");
            s.log_error(Level::Alert, message);
            return Err(INTERNAL_ERROR);
        };
        match socket(attempts, &how) {
            Ok(socket) => return Ok((socket, permit)),
            Err(error) => {
                let peer = attempts.peer();
                let name = peer.as_deref().map_or("", |peer| &peer.name);
                let message = format_args!("{}() to {name} failed", error.call);
                s.log_errno(Level::Crit, error.errno, message);
                if error.call != "connect" {
                    return Err(INTERNAL_ERROR);
                }
                may_go_on(s, settings, attempts)?;
            }
        }
    }
}

fn socket(attempts: &Attempts, how: &Connecting) -> Result<Datagrams, SocketError> {
    // A peer was picked just now.
    let nobody = SocketError { call: "connect", errno: Errno(0) };
    let peer = attempts.peer().ok_or(nobody)?;
    let options: &ConnectOptions = &how.options;
    Datagrams::connect(&peer.address, options)
}

/// Picks the next peer, which the logs then show.
fn pick(s: &mut Session, attempts: &mut Attempts) -> Result<PeerIndex, u16> {
    s.doing = "connecting to upstream";
    let picked = attempts.pick();
    let name = match (picked, attempts.peer()) {
        (Ok(_), Some(peer)) => s.arena.push(peer.name.as_bytes()),
        _ => s.arena.push(attempts.group().name().as_bytes()),
    };
    if let Some(upstream) = &mut s.upstream {
        upstream.begin(name);
    }
    picked.map_err(|NoPeer| {
        s.log_error(Level::Error, format_args!("no live upstreams"));
        BAD_GATEWAY
    })
}

/// After a failure to connect: whether the next peer may be tried.
fn next(
    s: &mut Session,
    settings: &Settings,
    attempts: &mut Attempts,
    error: ConnectError,
) -> Result<(), u16> {
    let peer = attempts.peer();
    let name = peer.as_deref().map_or("", |peer| &peer.name);
    let message = error.message(name);
    s.log_errno(error.level(), error.errno, format_args!("{message}"));
    match error.kind {
        ConnectFailure::Ours | ConnectFailure::Exhausted => Err(INTERNAL_ERROR),
        ConnectFailure::Refused | ConnectFailure::Timeout => may_go_on(s, settings, attempts),
    }
}

fn may_go_on(s: &Session, settings: &Settings, attempts: &mut Attempts) -> Result<(), u16> {
    failed(s, attempts);
    let waited = net::now().saturating_sub(attempts.begun_ms());
    let too_late = settings.next_timeout_ms > 0 && waited >= settings.next_timeout_ms;
    let may = attempts.tries_left() > 0 && settings.next && !too_late;
    if !may || !attempts.take_retry() {
        return Err(BAD_GATEWAY);
    }
    Ok(())
}

/// The peer has failed: it may rest for a while.
pub(super) fn failed(s: &Session, attempts: &mut Attempts) {
    if attempts.done(Outcome::Failed) == Verdict::Disabled {
        s.log_error(Level::Warn, format_args!("upstream server temporarily disabled"));
    }
}

/// The session is over, and its peer did well.
pub(super) fn done(s: &Session, attempts: &mut Attempts) {
    if let Some(answered_ms) = s.counts.answered_ms.get() {
        attempts.reached_at(Moment::FirstByte, answered_ms);
    }
    attempts.done(Outcome::Ok);
}

/// The connection stands: logs and measurements learn of it.
pub(super) fn connected(s: &mut Session, attempts: &mut Attempts, socket: BorrowedFd<'_>) {
    let local = || system::socket::local_address(socket).ok();
    if s.log().enabled(Level::Info)
        && let (Some(peer), Some(local)) = (attempts.peer(), local())
    {
        let udp = if s.is_udp() { "udp " } else { "" };
        s.log_plainly(format_args!("{udp}proxy {local} connected to {}", peer.name));
    }
    attempts.proved();
    attempts.answered();
    if let Some(last) = s.upstream.as_mut().and_then(|upstream| upstream.attempts.last_mut()) {
        last.connect_ms = Some(net::now().saturating_sub(last.begun_ms));
    }
    s.doing = "proxying connection";
}

/// The header of the PROXY protocol that tells of the session's client.
pub(super) fn header(s: &Session, header: Header) -> Vec<u8> {
    let ends = || {
        let destination: SocketAddr = match s.local()? {
            Address::Inet(address) => *address,
            Address::Unix(_) => return None,
        };
        Some(Ends { source: s.client_address()?, destination })
    };
    let mut out = Vec::new();
    match header {
        Header::None => {}
        Header::Line => write_line(ends(), &mut out),
        Header::Binary => {
            let carrier = if s.is_udp() { Carrier::Datagram } else { Carrier::Stream };
            write_binary(ends(), carrier, &[], &mut out);
        }
    }
    out
}
