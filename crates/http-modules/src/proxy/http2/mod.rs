//! HTTP/2 with a backend (`proxy_http_version 2`, `grpc_pass`): many requests on one connection.
//!
//! ```text
//! request A ─► Carried ─┐             ┌─► inbox of A, within its window
//! request B ─► Carried ─┼─► Session ──┼─► inbox of B
//! request C ─► Carried ─┘   (a task)  └─► inbox of C
//! ```
//!
//! A [`Session`] is a connection and the task that alone reads and writes it. Each request that it
//! carries has a [`Carried`]: its head as lines of HTTP/1, its body, and what has come of its
//! answer. Which connection carries which request is the group's business ([`upstream::Shared`]):
//! requests that come together wait for one connection rather than make one each, and a connection
//! without a request is kept as `keepalive` says.
//!
//! What a backend can make us hold: for each of at most [`session::STREAMS`] requests its window,
//! [`side::WINDOW`] bytes, and [`side::EXTRA`] bytes more for all that read fast; of a
//! connection [`session::OUT_HIGH`] of frames, and what the codec holds. Nothing is read while
//! more waits to be sent. Windows open as the client takes the answer, or as it goes to a file: a
//! slow client holds back its own answer and no other.

mod carried;
mod dialogue;
mod head;
mod session;
mod side;

pub(super) use carried::{Carried, Part};
pub(super) use side::Trouble;

use super::attempt::{Cause, Context, connect};
use super::pass::Call;
use super::request::{self, Head};
use super::settings::Settings;
use ::session::log::Level;
use http::Exchange;
use http::request_body::Stored;
use session::Session;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use system::errno::Errno;
use upstream::{Attempts, Awaited, Carrier, Connecting, Making, PeerIndex, Shared};
use wire::http2::hpack;

/// Begins the request on a connection that others use as well.
pub(super) async fn carry(
    context: &Context<'_>,
    how: &Connecting,
    x: &mut Exchange,
    call: &Call,
    attempts: &mut Attempts,
    peer: PeerIndex,
    head: &Head,
) -> Result<Carried, Cause> {
    let fresh = attempts.take_stale();
    let making = match attempts.share(peer, how.owner, fresh) {
        Shared::Found(carrier) => {
            match begin_on(carrier, call, head, trailers(context.settings, x), !fresh) {
                Some(carried) => return Ok(carried),
                None => Err(None),
            }
        }
        Shared::Awaited(awaited) => Err(Some(awaited)),
        Shared::Make(making) => Ok(making),
    };
    // Boxed, so that the future of a request that finds a connection stays small.
    Box::pin(wait_or_make(context, how, x, call, attempts, peer, head, making, !fresh)).await
}

/// The fields behind the request's body, as a header list.
pub(super) fn trailers(settings: &Settings, x: &Exchange) -> Option<Vec<u8>> {
    if x.body.trailers.is_empty() {
        return None;
    }
    let mut block = Vec::new();
    for field in request::trailers(settings, x) {
        hpack::encode(&mut block, field.name(&x.arena), x.text(field.value));
    }
    Some(block).filter(|block| !block.is_empty())
}

/// Begins the request on a carrier, unless that has just closed.
fn begin_on(
    carrier: Rc<dyn Carrier>,
    call: &Call,
    head: &Head,
    trailers: Option<Vec<u8>>,
    may_repeat: bool,
) -> Option<Carried> {
    let session = carrier.as_any().downcast::<Session>().ok()?;
    begin(&session, call, head, trailers, may_repeat)
}

fn begin(
    session: &Rc<Session>,
    call: &Call,
    head: &Head,
    trailers: Option<Vec<u8>>,
    may_repeat: bool,
) -> Option<Carried> {
    let is_empty = call.data.as_ref().is_none_or(Stored::is_empty) && !call.streamed;
    let is_bare = is_empty && trailers.is_none();
    let carried = session.begin(head, is_bare, call.resolved.secure, may_repeat)?;
    if !is_bare {
        if let Some(data) = &call.data {
            carried.push(data.data());
        }
        if !call.streamed {
            carried.end(trailers);
        }
    }
    Some(carried)
}

/// Waits for the connection that another request makes, or makes one.
#[expect(clippy::too_many_arguments, reason = "the parameters of an attempt, and what was found")]
async fn wait_or_make(
    context: &Context<'_>,
    how: &Connecting,
    x: &mut Exchange,
    call: &Call,
    attempts: &mut Attempts,
    peer: PeerIndex,
    head: &Head,
    mut found: Result<Making, Option<Awaited>>,
    may_repeat: bool,
) -> Result<Carried, Cause> {
    let began = net::now();
    let mut stood = true;
    let making = loop {
        match found {
            Ok(making) => break making,
            Err(Some(awaited)) => stood = wait(context, how, x, awaited, began).await?,
            Err(None) => {}
        }
        found = match stood {
            // Whoever waited for one in vain makes one of its own: all at once, not by turns.
            false => Ok(attempts.make(peer, how.owner)),
            true => match attempts.share(peer, how.owner, false) {
                Shared::Make(making) => Ok(making),
                Shared::Awaited(awaited) => Err(Some(awaited)),
                Shared::Found(carrier) => {
                    match begin_on(carrier, call, head, trailers(context.settings, x), may_repeat) {
                        Some(carried) => return Ok(carried),
                        None => Ok(attempts.make(peer, how.owner)),
                    }
                }
            },
        };
    };
    let spent = net::now().saturating_sub(began);
    let shorter;
    let how = match spent {
        0 => how,
        _ => {
            let timeout_ms = how.timeout_ms.saturating_sub(spent).max(1);
            shorter = Connecting { timeout_ms, ..how.clone() };
            &shorter
        }
    };
    let lease = connect(context, how, x, attempts, peer, call.resolved.secure).await?;
    let session = Session::start(lease, making, context.settings.buffers.head);
    // A new connection takes one.
    begin(&session, call, head, trailers(context.settings, x), may_repeat).ok_or(Cause::Failed)
}

/// Waits for a connection within the time to connect, unless the client leaves. True when it
/// stands.
async fn wait(
    context: &Context<'_>,
    how: &Connecting,
    x: &mut Exchange,
    mut awaited: Awaited,
    began: u64,
) -> Result<bool, Cause> {
    let watched = !context.settings.ignore_client_abort && !x.background;
    let side = x.side();
    let left = how.timeout_ms.saturating_sub(net::now().saturating_sub(began));
    let outcome = {
        let mut waiting = pin!(net::timeout(left, poll_fn(|cx| awaited.poll(cx))));
        poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
            Poll::Pending if watched && side.poll_gone(cx).is_ready() => {
                Poll::Ready(Err(Cause::ClientGone))
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    };
    match outcome {
        Ok(Some(stood)) => Ok(stood),
        Ok(None) => {
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            let doing = "while connecting to upstream";
            context.log(x, Level::Error, format_args!("upstream timed out ({errno}) {doing}"));
            Err(Cause::Timeout)
        }
        Err(cause) => {
            let message = "client prematurely closed connection, so upstream connection is closed \
                           too while connecting to upstream";
            context.log(x, Level::Info, format_args!("{message}"));
            Err(cause)
        }
    }
}
