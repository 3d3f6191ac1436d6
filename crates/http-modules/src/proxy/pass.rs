//! One request's way through a group: ask a peer, and the next one when that makes sense.

use super::attempt::{self, Cause};
use super::directives::next;
use super::request::{self, BodyFraming};
use super::settings::{Settings, Speech};
use super::target::Place;
use super::{response, target};
use crate::upstreams;
use http::request_body::{BodyError, Stored};
use http::{Exchange, Verdict};
use net::Chunk;
use session::log::Level;
use session::text::Span;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use upstream::{Attempts, NotServed, Outcome, PeerIndex, Verdict as PeerVerdict};
use wire::http1::Method;

/// Asks the group until a peer answers; the verdict goes back to the journey.
pub(super) async fn pass(settings: &Rc<Settings>, x: &mut Exchange) -> Verdict {
    let resolved = match target::resolve(x, &settings.target) {
        Ok(Place::Group(resolved)) => resolved,
        Ok(Place::Name(named)) => {
            x.upstream_log().place = Some(named.names());
            let watched = !settings.ignore_client_abort && !x.background;
            let looked_up = target::look_up(x, &settings.target, watched, named);
            // Boxed, so that the future of a request to a known group stays small.
            match Box::pin(looked_up).await {
                Ok(resolved) => resolved,
                Err(verdict) => return verdict,
            }
        }
        Err(status) => return Verdict::Status(status),
    };
    x.upstream_log().place = Some((resolved.host, resolved.port));
    let body = match prepare_body(settings, x).await {
        Ok(body) => body,
        Err(error) => return body_lost(x, error),
    };
    x.upstream_log().url = None;
    let mut call = Call {
        framing: body.framing,
        data: body.data,
        streamed: body.streamed,
        sent: false,
        resolved,
    };
    let verdict = ask(settings, x, &mut call).await;
    if let Some(log) = &mut x.upstream {
        log.url = None;
    }
    verdict
}

/// What stays the same over all attempts.
pub(super) struct Call {
    pub(super) framing: BodyFraming,
    /// The body, when it is known before anyone is asked.
    pub(super) data: Option<Stored>,
    /// The body comes from the client while it is sent.
    pub(super) streamed: bool,
    /// A peer was sent a part of the request.
    pub(super) sent: bool,
    pub(super) resolved: target::Resolved,
}

struct Prepared {
    framing: BodyFraming,
    data: Option<Stored>,
    streamed: bool,
}

async fn prepare_body(settings: &Settings, x: &mut Exchange) -> Result<Prepared, BodyError> {
    if settings.body.is_none() && !x.body.exists() {
        x.invite();
        return Ok(Prepared { framing: BodyFraming::None, data: None, streamed: false });
    }
    // Boxed, so that the future of a request without a body stays small.
    Box::pin(prepare_some_body(settings, x)).await
}

async fn prepare_some_body(settings: &Settings, x: &mut Exchange) -> Result<Prepared, BodyError> {
    if let Some(template) = &settings.body {
        if settings.request_buffering {
            x.read_body().await?;
        }
        let value = template.value(x);
        let text = Stored::Memory(Chunk::copy_of(x.text(value)));
        let framing = BodyFraming::Length(text.len());
        return Ok(Prepared { framing, data: Some(text), streamed: false });
    }
    if !settings.pass_body {
        x.read_body().await?;
        return Ok(Prepared { framing: BodyFraming::None, data: None, streamed: false });
    }
    let passes_trailers = settings.passes_request_trailers();
    if passes_trailers {
        x.keep_trailers();
    }
    // HTTP/1.0 has no chunks: the length must be known first.
    let whole = settings.request_buffering || (x.body.is_chunked() && !settings.may_stream());
    if !whole && x.body.stored.is_none() {
        let begun = x.read_available().await?;
        if x.body.stored.is_none() {
            let framing = match x.body.declared() {
                Some(length) => BodyFraming::Length(length),
                None => BodyFraming::Chunked,
            };
            let data = begun.map(Stored::Memory);
            return Ok(Prepared { framing, data, streamed: true });
        }
    }
    x.read_body().await?;
    let data = x.body.stored.clone();
    let length = data.as_ref().map_or(0, Stored::len);
    // HTTP/1 knows no fields behind a body of announced length.
    let chunks = passes_trailers && !settings.speech.is_http2() && !x.body.trailers.is_empty();
    let framing = if chunks { BodyFraming::Chunked } else { BodyFraming::Length(length) };
    Ok(Prepared { framing, data, streamed: false })
}

/// The client closed: nobody waits for an answer. Logged as 499.
pub(super) fn client_gone(x: &mut Exchange) -> Verdict {
    x.response.status = 499;
    x.sent.logged_status = Some(499);
    Verdict::Close
}

/// The client's body could not be read.
fn body_lost(x: &mut Exchange, error: BodyError) -> Verdict {
    match error {
        BodyError::Closed => client_gone(x),
        error => Verdict::Status(error.status()),
    }
}

async fn ask(settings: &Rc<Settings>, x: &mut Exchange, call: &mut Call) -> Verdict {
    let mut attempts = upstreams::begin(x, &call.resolved.group);
    attempts.limit_tries(settings.next_tries);
    loop {
        let mut picked = attempts.pick().ok();
        if picked.is_none() && attempts.may_wait() {
            // Boxed, so that the future of a request that need not wait stays small.
            picked = match Box::pin(wait(settings, x, &mut attempts)).await {
                Ok(picked) => picked,
                Err(ClientGone) => return client_gone(x),
            };
        }
        let Some(peer) = picked else {
            return no_peers(settings, x, &attempts, &call.resolved);
        };
        upstreams::chosen(x, &call.resolved.group, peer);
        let name = x.arena.push(attempts.group().peer(peer).name.as_bytes());
        x.upstream_log().begin(name);
        let Some(head) = head(settings, x, call) else { return Verdict::Status(500) };
        let started = net::now();
        let (target, scheme) = (head.target, settings.family.scheme(call.resolved.secure));
        let context = attempt::Context { settings, started, name, target, scheme };
        match attempt::attempt(&context, x, call, &mut attempts, peer, head).await {
            Ok(answer) => {
                let status = answer.status();
                let bit = next::of_status(status);
                let worth = bit != 0 && attempts.tries_left() > 1;
                if worth && may_repeat(settings, x, call, &mut attempts, bit) {
                    record_end(x, started, Some(status));
                    finish(x, &context, &mut attempts, blame(bit));
                    continue;
                }
                return response::respond(settings, x, &context, answer, attempts, started);
            }
            Err(Cause::ClientGone) => {
                record_end(x, started, None);
                return client_gone(x);
            }
            Err(Cause::ClientBody(error)) => {
                record_end(x, started, None);
                return body_lost(x, error);
            }
            Err(Cause::Ours) => {
                record_end(x, started, Some(500));
                return Verdict::Status(500);
            }
            Err(Cause::Stale) => {
                // A kept connection that the peer had closed says nothing about the peer.
                x.upstream_log().attempts.pop();
                finish(x, &context, &mut attempts, Outcome::Stale);
            }
            Err(cause) => {
                let (bit, status) = match cause {
                    Cause::Timeout => (next::TIMEOUT, 504),
                    Cause::InvalidHead => (next::INVALID_HEADER, 502),
                    _ => (next::ERROR, 502),
                };
                record_end(x, started, Some(status));
                finish(x, &context, &mut attempts, Outcome::Failed);
                let left = attempts.tries_left() > 0;
                // What nobody looked at may go on, whatever it asks for.
                let unserved = cause == Cause::Unserved && !(call.sent && call.streamed);
                if !left || !(unserved || may_repeat(settings, x, call, &mut attempts, bit)) {
                    return Verdict::Status(status);
                }
            }
        }
    }
}

/// The client closed its connection.
struct ClientGone;

/// Waits until a peer has room, unless the client leaves.
async fn wait(
    settings: &Settings,
    x: &mut Exchange,
    attempts: &mut Attempts,
) -> Result<Option<PeerIndex>, ClientGone> {
    let watched = !settings.ignore_client_abort && !x.background;
    let side = x.side();
    let outcome = {
        let mut waiting = pin!(attempts.wait());
        poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if watched && side.poll_gone(cx).is_ready() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    };
    let reason = match outcome {
        None => return Err(ClientGone),
        Some(Ok(peer)) => return Ok(Some(peer)),
        Some(Err(NotServed::NoPeer)) => return Ok(None),
        Some(Err(NotServed::Full)) => "upstream queue is full",
        Some(Err(NotServed::TimedOut)) => "upstream queue timed out",
    };
    x.log_error(Level::Error, format_args!("{reason} while connecting to upstream"));
    Ok(None)
}

/// How the request begins, in the protocol of the backend; `None`: it cannot be sent.
fn head(settings: &Settings, x: &mut Exchange, call: &Call) -> Option<request::Head> {
    match &settings.speech {
        Speech::Http(plan) => Some(request::head(settings, plan, x, &call.resolved, call.framing)),
        Speech::Other(gateway) => gateway.head(x, call.framing),
    }
}

/// 403 and 404 are no fault of the peer.
fn blame(bit: u32) -> Outcome {
    match bit {
        next::HTTP_403 | next::HTTP_404 => Outcome::NotCounted,
        _ => Outcome::Failed,
    }
}

/// Whether `proxy_next_upstream` lets the request go to another peer for that reason.
fn may_repeat(
    settings: &Settings,
    x: &Exchange,
    call: &Call,
    attempts: &mut Attempts,
    bit: u32,
) -> bool {
    let unsafe_method = matches!(x.request.method, Method::Post | Method::Lock | Method::Patch);
    let needed = match call.sent && unsafe_method {
        true => bit | next::NON_IDEMPOTENT,
        false => bit,
    };
    let spent = net::now().saturating_sub(attempts.begun_ms());
    let in_time = settings.next_timeout_ms == 0 || spent < settings.next_timeout_ms;
    let may = settings.next & needed == needed && !(call.sent && call.streamed) && in_time;
    may && attempts.take_retry()
}

fn no_peers(
    settings: &Settings,
    x: &mut Exchange,
    attempts: &Attempts,
    to: &target::Resolved,
) -> Verdict {
    let name = x.arena.push(attempts.group().name().as_bytes());
    let log = x.upstream_log();
    log.begin(name).status = Some(502);
    let path = match &settings.speech {
        Speech::Http(_) => to.path.unwrap_or_else(|| target::kept(x)),
        Speech::Other(_) => Span::EMPTY,
    };
    let mark = x.arena.mark();
    x.arena.push(settings.family.scheme(to.secure).as_bytes());
    x.arena.copy(name);
    x.arena.copy(path);
    let url = x.arena.since(mark);
    x.upstream_log().url = Some(url);
    x.log_error(Level::Error, format_args!("no live upstreams while connecting to upstream"));
    Verdict::Status(502)
}

/// Completes the record of the attempt under way.
pub(super) fn record_end(x: &mut Exchange, started: u64, status: Option<u16>) {
    let elapsed = net::now().saturating_sub(started);
    if let Some(attempt) = x.upstream_log().last() {
        attempt.response_ms = Some(elapsed);
        attempt.status = status.or(attempt.status);
    }
}

/// Reports to the balancer, and tells the log when a peer was taken out.
fn finish(
    x: &mut Exchange,
    context: &attempt::Context<'_>,
    attempts: &mut Attempts,
    outcome: Outcome,
) {
    if attempts.done(outcome) == PeerVerdict::Disabled {
        let doing = context.doing(x);
        let message = format_args!("upstream server temporarily disabled while {doing}");
        context.log(x, Level::Warn, message);
    }
}
