//! The client's answer, made of a backend's.

use super::attempt::{Answer, Context, Way};
use super::body::UpstreamBody;
use super::pass::record_end;
use super::settings::Settings;
use crate::upstreams;
use http::headers::{Field, Headers};
use http::{Body, Exchange, Verdict};
use net::relay::{Closing, RelaySettings, relay};
use net::{Chunk, Data, OutQueue};
use session::log::Level;
use session::text::Span;
use std::rc::Rc;
use upstream::{Attempts, Outcome};
use wire::http1::{Known, ResponseFraming};

/// Fills `x.response` from the answer, or redirects as the answer or `error_page` demand.
pub(super) fn respond(
    settings: &Rc<Settings>,
    x: &mut Exchange,
    context: &Context<'_>,
    mut answer: Answer,
    mut attempts: Attempts,
    started: u64,
) -> Verdict {
    let status = answer.status();
    x.upstream_log().headers = std::mem::take(&mut answer.headers);
    upstreams::answered(x, &mut attempts);
    if settings.obey_limit_rate
        && let Some(value) = received(x, Known::XAccelLimitRate)
        && let Some(rate) = config::read::parse_number(x.text(value))
    {
        x.rate = Some(rate);
    }
    if settings.obey_redirect
        && let Some(place) = received(x, Known::XAccelRedirect)
    {
        let headers = x.upstream_log().headers.clone();
        settle_unread(x, answer, attempts, started);
        return accel_redirect(settings, x, &headers, place);
    }
    let intercepted = settings.intercept_errors && status >= 300;
    if intercepted && x.location.error_pages.iter().any(|page| page.handles(status)) {
        let headers = x.upstream_log().headers.clone();
        settle_unread(x, answer, attempts, started);
        if status == 401 {
            for field in headers.all(Known::WwwAuthenticate) {
                x.response.headers.push(field);
            }
        }
        return Verdict::Status(status);
    }
    if settings.is_memcached && status == 404 {
        settle_unread(x, answer, attempts, started);
        return Verdict::Status(404);
    }
    fields(settings, x, &answer);
    if settings.is_memcached {
        x.response.content_type = crate::media_type::of(x);
    }
    if status == 101 && answer.upgrade {
        tunnel(settings, x, answer, attempts, started);
        return Verdict::Answer;
    }
    body(settings, x, context, answer, attempts, started);
    if let Some(store) = &settings.store
        && status == 200
    {
        store.keep(settings, x);
    }
    Verdict::Answer
}

/// Makes the answer's body the client's: as a whole when all of it is there, else piece by piece.
fn body(
    settings: &Rc<Settings>,
    x: &mut Exchange,
    context: &Context<'_>,
    answer: Answer,
    mut attempts: Attempts,
    started: u64,
) {
    x.response.length = match answer.framing {
        ResponseFraming::Length(length) => Some(length),
        ResponseFraming::None => declared(x),
        ResponseFraming::Chunked | ResponseFraming::UntilClose => None,
    };
    match whole(x, &answer) {
        Some(data) => {
            x.response.body = data.map_or(Body::Empty, Body::Whole);
            if answer.keeps && answer.sent_whole && answer.is_over() {
                answer.way.keep();
            }
            attempts.done(Outcome::Ok);
            record_end(x, started, None);
        }
        None => {
            let buffering = settings.buffers.on && !forbids_buffering(settings, x);
            let mut buffers = settings.buffers.clone();
            buffers.on = buffering;
            let read_ms = settings.read_timeout_ms;
            let rate = if buffering { settings.rate(x) } else { None };
            let url = context.url(x);
            let body = UpstreamBody::new(
                answer,
                attempts,
                buffers,
                read_ms,
                started,
                url,
                settings.clone(),
            )
            .limited_to(rate);
            x.response.body = Body::Stream(Box::new(body));
        }
    }
}

/// The answer's field of that name.
fn received(x: &Exchange, known: Known) -> Option<Span> {
    x.upstream.as_ref()?.headers.value(known)
}

/// The length that a bodiless answer (to HEAD, 304) speaks of.
fn declared(x: &Exchange) -> Option<u64> {
    let value = received(x, Known::ContentLength)?;
    wire::http1::content_length(x.text(value))
}

fn forbids_buffering(settings: &Settings, x: &Exchange) -> bool {
    settings.obey_buffering
        && received(x, Known::XAccelBuffering)
            .is_some_and(|value| x.text(value).eq_ignore_ascii_case(b"no"))
}

/// The body, when all of it came with the head: `Some(None)` is an empty one.
fn whole(x: &mut Exchange, answer: &Answer) -> Option<Option<Data>> {
    if let Way::Shared(carried) = &answer.way {
        return match answer.framing {
            ResponseFraming::None => Some(None),
            ResponseFraming::Length(length) => {
                let data = carried.take_whole(length)?;
                if let Some(attempt) = x.upstream_log().last() {
                    attempt.response_length = length;
                }
                Some(data.map(Data::from))
            }
            ResponseFraming::Chunked | ResponseFraming::UntilClose => None,
        };
    }
    let have = answer.rest.as_ref().map_or(0, |rest| rest.len()) as u64;
    if answer.keeps && !answer.is_over() && answer.framing != ResponseFraming::None {
        // The connection can be used again when the rest was read.
        return None;
    }
    match answer.framing {
        ResponseFraming::None | ResponseFraming::Length(0) if have == 0 => Some(None),
        ResponseFraming::Length(length) if length == have => {
            if let Some(attempt) = x.upstream_log().last() {
                attempt.response_length = length;
            }
            Some(answer.rest.clone().map(Data::from))
        }
        _ => None,
    }
}

/// Copies status and fields, without those that are hidden or that concern one connection only.
fn fields(settings: &Settings, x: &mut Exchange, answer: &Answer) {
    let line = &answer.line;
    x.response.status = line.status;
    x.response.status_line = Some(Span::new(answer.base + line.text.at, line.text.len));
    x.response.proxied = true;
    x.response.allow_ranges = settings.force_ranges;
    if settings.obey_charset {
        x.response.override_charset = received(x, Known::XAccelCharset);
    }
    let nth = |x: &Exchange, i: usize| x.upstream.as_ref()?.headers.get(i);
    let mut i = 0;
    while let Some(field) = nth(x, i) {
        i += 1;
        if !settings.hide.hides(field.known, field.name(&x.arena)) {
            copy(settings, x, field, line.status);
        }
    }
}

fn copy(settings: &Settings, x: &mut Exchange, field: Field, status: u16) {
    match field.known {
        // Framing and persistence are our own business with the client.
        Known::Connection
        | Known::KeepAlive
        | Known::TransferEncoding
        | Known::ContentLength
        | Known::ProxyConnection
        | Known::Trailer => {}
        // Offered by the filter that cuts.
        Known::AcceptRanges if settings.force_ranges => {}
        Known::Upgrade if status != 101 => {}
        Known::ContentType => x.response.content_type = Some(field.value),
        Known::Location => {
            // Only what was rewritten is made absolute by the sender.
            match settings.redirects.apply(x, field.value) {
                Some(place) => x.response.location = Some(place),
                None => x.response.headers.push(field),
            }
        }
        Known::SetCookie => {
            let value = settings.cookies.apply(x, field.value).unwrap_or(field.value);
            x.response.headers.push(Field { value, ..field });
        }
        Known::Refresh => {
            let place = settings.redirects.apply_to_refresh(x, field.value);
            x.response.headers.push(Field { value: place.unwrap_or(field.value), ..field });
        }
        _ => x.response.headers.push(field),
    }
}

/// The answer's body is not wanted. Its connection can be used again only when there is none.
fn settle_unread(x: &mut Exchange, answer: Answer, mut attempts: Attempts, started: u64) {
    if whole(x, &answer).is_some() && answer.keeps && answer.sent_whole && answer.is_over() {
        answer.way.keep();
    }
    attempts.done(Outcome::Ok);
    record_end(x, started, None);
}

/// `X-Accel-Redirect`: the backend leaves the answer to another location.
fn accel_redirect(
    settings: &Settings,
    x: &mut Exchange,
    headers: &Headers,
    place: Span,
) -> Verdict {
    const CARRIED: [Known; 7] = [
        Known::ContentType,
        Known::SetCookie,
        Known::ContentDisposition,
        Known::CacheControl,
        Known::Expires,
        Known::AcceptRanges,
        Known::ContentLanguage,
    ];
    let mut carried: Vec<Field> =
        headers.iter().filter(|field| CARRIED.contains(&field.known)).copied().collect();
    for field in carried.iter_mut().filter(|field| field.known == Known::SetCookie) {
        field.value = settings.cookies.apply(x, field.value).unwrap_or(field.value);
    }
    // That which binds the client to its server.
    carried.extend(x.response.headers.all(Known::SetCookie));
    x.carry(carried);
    let text = x.text(place).to_vec();
    if text.starts_with(b"@") {
        return Verdict::Named(String::from_utf8_lossy(&text).into());
    }
    let mut path = Vec::new();
    match wire::http1::target::split_internal(&text, &mut path) {
        Some(args) => {
            x.become_get();
            let uri = x.arena.push(&path);
            let args = x.arena.push(args.unwrap_or_default());
            Verdict::Internal { uri, args }
        }
        None => {
            let shown = session::log::Bytes(&text);
            x.log_error(Level::Error, format_args!("unsafe URI \"{shown}\" was detected"));
            Verdict::Status(404)
        }
    }
}

/// 101: from here on bytes are relayed both ways (RFC 9110 section 7.8).
fn tunnel(
    settings: &Settings,
    x: &mut Exchange,
    answer: Answer,
    mut attempts: Attempts,
    started: u64,
) {
    let relaying = RelaySettings {
        buffer: settings.buffers.step,
        idle_ms: Some(settings.read_timeout_ms),
        closing: Closing::Together,
    };
    record_end(x, started, None);
    let rest: Option<Chunk> = answer.rest;
    // Nobody switches protocols on a connection that others use.
    let Way::Own(lease) = answer.way else { return };
    let (stream, permit, watch) = lease.into_stream();
    x.response.body = Body::Tunnel(Box::new(move |connection| {
        Box::pin(async move {
            let (mut to_server, mut to_client) = (OutQueue::new(), OutQueue::new());
            if let Some(left) = connection.take_leftover() {
                to_server.push(left);
            }
            if let Some(rest) = rest {
                to_client.push(rest);
            }
            let ending = |_, _| {};
            let client = &connection.stream;
            let relayed = relay(client, &stream, to_server, to_client, &relaying, ending).await;
            attempts.done(Outcome::Ok);
            drop((permit, watch));
            relayed.to_first
        })
    }));
}
