//! TCP sessions: bytes both ways until one side, or silence, ends it.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use net::{Closing, OutQueue, Side, TunnelEnd, TunnelSettings, tunnel};
use session::log::Level;
use system::errno::Errno;
use upstream::{Group, Mark, Outcome};

use super::connect::{connected, connection, done, header};
use super::settings::Settings;
use crate::client::Client;
use crate::journey::{BAD_GATEWAY, INTERNAL_ERROR, OK};
use crate::session::Session;
use crate::upstreams;

/// Serves a session with a peer of the group.
pub(super) async fn serve(s: &mut Session, settings: &Settings, group: &Rc<Group>) -> u16 {
    let mut attempts = upstreams::begin(s, group);
    let lease = match connection(s, settings, &mut attempts).await {
        Ok(lease) => lease,
        Err(status) => return status,
    };
    connected(s, &mut attempts, lease.stream().as_fd());
    let to_unix = attempts.peer().is_some_and(|peer| peer.address.is_unix());
    let (stream, _permit, watch) = lease.into_stream();
    let mut to_second = OutQueue::new();
    // Below TLS it was sent before the handshake.
    let header = if settings.ssl.is_some() { Vec::new() } else { header(s, settings.header) };
    if !header.is_empty() {
        to_second.push(header);
    }
    if let Some(ahead) = s.ahead.take() {
        s.counts.from_first.set(ahead.len() as u64);
        to_second.push(ahead);
    }
    let (first_rate, second_rate) = settings.rates(s);
    let how = TunnelSettings {
        buffer: settings.buffer,
        idle_ms: settings.timeout_ms,
        closing: if settings.half_close { Closing::Apart } else { Closing::Together },
        first_rate,
        second_rate,
        splice: true,
        nodelay: [
            settings.nodelay && !s.served.ssl && !s.peer.is_unix(),
            settings.nodelay && settings.ssl.is_none() && !to_unix,
        ],
    };
    let counts = s.counts.clone();
    let end = {
        let Client::Connection(Some(client)) = &s.client else { return INTERNAL_ERROR };
        let session: &Session = s;
        let tell = |side, error: io::Error| broken(session, side, &error, Doing::Reading);
        let mut moving = pin!(tunnel(client, &stream, to_second, &how, &counts, tell));
        poll_fn(|cx| match watch.as_ref().map(|watch| watch.poll_marked(cx)) {
            Some(Poll::Ready(mark)) => Poll::Ready(Err(mark)),
            _ => moving.as_mut().poll(cx).map(Ok),
        })
        .await
    };
    note_traffic(s);
    match end {
        Ok(end) => {
            done(s, &mut attempts);
            ended(s, end);
            OK
        }
        Err(mark) => {
            attempts.done(Outcome::NotCounted);
            marked(s, mark);
            BAD_GATEWAY
        }
    }
}

/// The session ends because of what happened to its peer.
pub(super) fn marked(s: &Session, mark: Mark) {
    let reason = upstream::marks::reason(mark);
    s.log_error(Level::Warn, format_args!("session is closed, for its server {reason},"));
}

/// What the logs want to know about the bytes of the last way.
pub(super) fn note_traffic(s: &mut Session) {
    let counts = s.counts.clone();
    let Some(last) = s.upstream.as_mut().and_then(|upstream| upstream.attempts.last_mut()) else {
        return;
    };
    last.bytes_sent = counts.to_second.get();
    last.bytes_received = counts.from_second.get();
    let answered = counts.answered_ms.get();
    last.first_byte_ms = answered.map(|at| at.saturating_sub(last.begun_ms));
}

fn ended(s: &mut Session, end: TunnelEnd) {
    match end {
        TunnelEnd::Closed(side) => {
            let who = if side == Side::First { "client" } else { "upstream" };
            let counts = &s.counts;
            s.log_plainly(format_args!(
                "{who} disconnected, bytes from/to client:{}/{}, bytes from/to upstream:{}/{}",
                counts.from_first.get(),
                counts.to_first.get(),
                counts.from_second.get(),
                counts.to_second.get()
            ));
        }
        TunnelEnd::Idle => {
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            s.log_errno(Level::Info, errno, format_args!("connection timed out"));
        }
        TunnelEnd::Broken(side, error) => broken(s, side, &error, Doing::Writing),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Reading,
    Writing,
}

/// A connection broke. What the client does is its own affair.
fn broken(s: &Session, side: Side, error: &io::Error, doing: Doing) {
    let level = if side == Side::First { Level::Info } else { Level::Error };
    let (call, action) = match (doing, side) {
        (Doing::Reading, Side::First) => ("recv", "reading from client"),
        (Doing::Reading, Side::Second) => ("recv", "reading from upstream"),
        (Doing::Writing, Side::First) => ("send", "sending to client"),
        (Doing::Writing, Side::Second) => ("send", "sending to upstream"),
    };
    s.log_while(level, error.into(), format_args!("{call}() failed"), action);
}
