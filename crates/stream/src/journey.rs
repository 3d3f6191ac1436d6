//! The journey of a session, from top to bottom.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use net::{Block, Held};
use session::log::Level;

use crate::client::Client;
use crate::module::{Look, Stage, Verdict};
use crate::proxy;
use crate::proxy_protocol;
use crate::session::Session;
use crate::ssl;
use crate::worker::Worker;

/// The session went well, as far as we are concerned.
pub const OK: u16 = 200;
/// The client did not speak as it must.
pub const BAD_REQUEST: u16 = 400;
/// Our own fault.
pub const INTERNAL_ERROR: u16 = 500;
/// No backend could be reached.
pub const BAD_GATEWAY: u16 = 502;

/// Leads a session through its phases, and tells the loggers how it went. `held` is let go of at
/// the end.
///
/// Not an `async fn`, which would have room for the session twice: here all of it happens in the
/// place that it was moved to.
#[expect(clippy::manual_async_fn, reason = "an async fn has its arguments twice")]
pub(crate) fn run(
    mut session: Session,
    worker: Rc<Worker>,
    held: Option<Held>,
) -> impl Future<Output = ()> {
    async move {
        let (s, _held) = (&mut session, &held);
        let udp = if s.is_udp() { "udp " } else { "" };
        s.log_plainly(format_args!("{udp}client {} connected to {}", s.peer, s.endpoint.address));
        // Nothing when the worker's time is over before.
        let status = {
            let mut phases = pin!(phases(s));
            poll_fn(|cx| match worker.is_aborted() {
                true => Poll::Ready(None),
                false => phases.as_mut().poll(cx).map(Some),
            })
            .await
        };
        s.status = status.unwrap_or_else(|| {
            s.log_error(Level::Info, format_args!("shutdown timeout"));
            proxy::close_books(s);
            OK
        });
        let server = s.server.clone();
        for logger in &server.loggers {
            logger(s);
        }
    }
}

/// The status with which the session ends. What only some sessions go through is boxed: it would
/// make the future of all of them many times larger.
async fn phases(s: &mut Session) -> u16 {
    if s.served.proxy_protocol
        && let Err(status) = Box::pin(proxy_protocol::read(s)).await
    {
        return status;
    }
    for stage in [Stage::PostAccept, Stage::Preaccess, Stage::Access] {
        let server = s.server.clone();
        for check in server.checks.iter().filter(|check| check.stage() == stage) {
            if let Verdict::End(status) = check.check(s).verdict().await {
                return status;
            }
        }
    }
    if s.served.ssl
        && let Err(status) = Box::pin(ssl::handshake(s)).await
    {
        return status;
    }
    if !s.server.prereads.is_empty()
        && !s.is_udp()
        && let Err(status) = Box::pin(preread(s)).await
    {
        return status;
    }
    s.doing = "";
    let server = s.server.clone();
    if server.settings.tcp_nodelay
        && !s.peer.is_unix()
        && (s.served.ssl || !server.content.as_ref().is_some_and(|one| one.sends_at_once()))
        && let Some(stream) = s.client.connection()
    {
        // A connection that is broken already is found to be so by its next use.
        let _ = stream.set_nodelay(true);
    }
    match &server.content {
        Some(content) => content.serve(s).await,
        None => INTERNAL_ERROR,
    }
}

/// Shows the first bytes of a connection to those who want to see them. They stay in
/// [`Session::ahead`].
async fn preread(s: &mut Session) -> Result<(), u16> {
    let server = s.server.clone();
    s.doing = "prereading client data";
    let deadline = net::now().saturating_add(server.settings.preread_timeout_ms);
    for preread in &server.prereads {
        loop {
            let came = s.ahead.take();
            let look = preread.look(s, came.as_ref().map_or(&[], Block::filled));
            s.ahead = came;
            match look {
                Look::More => read_more(s, server.settings.preread_buffer, deadline).await?,
                Look::Declined => break,
                Look::Done => return Ok(()),
                Look::End(status) => return Err(status),
            }
        }
    }
    Ok(())
}

/// Reads some more of what is looked at.
async fn read_more(s: &mut Session, room: usize, deadline: u64) -> Result<(), u16> {
    let mut block = match s.ahead.take() {
        Some(block) => block,
        None => Block::lend(room),
    };
    if block.len() >= room {
        s.log_error(Level::Error, format_args!("preread buffer full"));
        return Err(BAD_REQUEST);
    }
    let Client::Connection(Some(stream)) = &s.client else { return Err(INTERNAL_ERROR) };
    let read = poll_fn(|cx| {
        let free = room - block.len();
        let spare = block.spare();
        let free = free.min(spare.len());
        stream.poll_read(cx, &mut spare[..free])
    });
    match within(deadline, read).await {
        Some(Ok(n @ 1..)) => {
            block.advance(n);
            s.ahead = Some(block);
            Ok(())
        }
        // nginx takes silence, the end and an error for a session that is over.
        Some(Ok(0)) | None => Err(OK),
        Some(Err(error)) => {
            let message = format_args!("recv() failed");
            s.log_errno(Level::Info, (&error).into(), message);
            Err(OK)
        }
    }
}

/// What a read gave until a time of the loop's clock.
pub(crate) async fn within(
    deadline: u64,
    read: impl Future<Output = io::Result<usize>>,
) -> Option<io::Result<usize>> {
    net::timeout(deadline.saturating_sub(net::now()), read).await
}
