//! Putting an answer on the wire: the head in nginx's order, the body with its framing.

use crate::body::Body;
use crate::exchange::{Exchange, Persistence};
use crate::http2;
use crate::pace::Pace;
use crate::settings::Tokens;
use net::{Block, Data, OutQueue};
use session::log::Level;
use session::text::{Span, push_number};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use system::errno::Errno;
use wire::http1::{Known, Method, Version, status};

/// Bytes queued beyond which no more is pulled from a body before some are sent.
const HIGH_WATER: u64 = 128 * 1024;

/// How sending an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendEnd {
    /// All of it was sent.
    Complete,
    /// The client is gone, or took nothing for too long.
    ClientLost,
    /// The body broke off: the connection must close to tell the client so.
    Truncated,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// No body follows the head.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
    /// All until the connection closes.
    UntilClose,
    /// Frames, which know their end themselves (HTTP/2).
    Frames,
}

/// Sends the answer.
pub(crate) async fn send(x: &mut Exchange) -> SendEnd {
    let mut out = begin(x);
    let coding = coding(x);
    x.sent.chunked = coding == Coding::Chunked;
    let mut body = std::mem::take(&mut x.response.body);
    if coding == Coding::None && !matches!(body, Body::Tunnel(_)) {
        body = Body::Empty;
    }
    let mut left = length_of(coding);
    let pace = if matches!(body, Body::Tunnel(_)) { None } else { Pace::of(x) };
    if let Some(stream) = x.stream.clone() {
        if let Body::Tunnel(_) = body {
            // A stream cannot become something else.
            return SendEnd::Truncated;
        }
        let ends = matches!(coding, Coding::None | Coding::Length(0));
        stream.send_head(&http2::head(x), x.location.settings.http2_chunk, ends);
        if ends {
            body = Body::Empty;
        }
    } else if x.request.version >= Version::HTTP_10 {
        let whole = small_body(&body, left).filter(|_| pace.is_none());
        if whole.is_some() {
            left = 0;
        }
        let text = head(x, coding, whole.unwrap_or_default());
        if left == 0 && matches!(coding, Coding::Length(_)) {
            body = Body::Empty;
        }
        let ends = left == 0 && matches!(coding, Coding::Length(_) | Coding::None);
        let is_all = ends && matches!(body, Body::Empty) && pace.is_none() && out.is_empty();
        if is_all {
            // Nothing follows: what leaves at once needs no buffer.
            let mut text = Some(text);
            let sent = poll_fn(|cx| Poll::Ready(send_text(cx, x, &mut out, text.take()))).await;
            if let Err(error) = sent {
                return lost(x, &error);
            }
            if out.is_empty() {
                x.sent.head = true;
                x.timer().clear();
                x.sent.complete = true;
                return SendEnd::Complete;
            }
        } else {
            out.push(Block::copy_of(&text));
            keep_scratch(text);
        }
    }
    x.sent.head = true;
    x.timer().clear();
    if let Body::Tunnel(tunnel) = body {
        return send_tunnel(x, out, tunnel).await;
    }
    let mut sender = Sender { out, pace: None, body, coding, left, ended: false, is_broken: false };
    if let Some(mut pace) = pace {
        sender.out.take().for_each(|head| pace.hold(head));
        sender.pace = Some(pace);
    }
    sender.take_pipes(x);
    let end = poll_fn(|cx| match sender.poll(cx, x) {
        Poll::Pending if x.connection.worker.is_aborted() => Poll::Ready(SendEnd::ClientLost),
        polled => polled,
    })
    .await;
    x.sent.complete = end == SendEnd::Complete;
    end
}

/// The queue, with what was to be sent before.
fn begin(x: &mut Exchange) -> OutQueue {
    let mut out = OutQueue::new();
    if let Some(rest) = x.unsent.take() {
        x.sent.head_bytes += rest.len() as u64;
        out.push(rest);
    }
    out
}

/// Sends a text that nothing follows; what does not leave at once waits in `out`.
fn send_text(
    cx: &mut Context<'_>,
    x: &mut Exchange,
    out: &mut OutQueue,
    text: Option<Vec<u8>>,
) -> io::Result<()> {
    let Some(text) = text else { return Ok(()) };
    let outcome = out.send(cx, &x.connection.stream, &text);
    x.sent.bytes += out.sent();
    keep_scratch(text);
    outcome
}

async fn send_tunnel(x: &mut Exchange, mut out: OutQueue, tunnel: crate::body::Tunnel) -> SendEnd {
    x.persistence = Persistence::Close;
    if x.location.settings.tcp_nodelay {
        x.connection.send_at_once();
    }
    let flushed = poll_fn(|cx| flush(cx, x, &mut out)).await;
    if flushed.is_err() {
        return SendEnd::ClientLost;
    }
    x.sent.bytes += tunnel(x.connection.clone()).await;
    SendEnd::Complete
}

fn length_of(coding: Coding) -> u64 {
    match coding {
        Coding::Length(length) => length,
        _ => 0,
    }
}

/// Decides the framing, and with it whether the connection may go on.
fn coding(x: &mut Exchange) -> Coding {
    let response = &x.response;
    let bodiless = matches!(response.status, 100..=199 | 204 | 304);
    if bodiless || x.request.method == Method::Head {
        if bodiless {
            x.response.length = None;
        }
        if x.response.status == 204 {
            x.response.content_type = None;
            x.response.last_modified = None;
        }
        return Coding::None;
    }
    match response.length {
        Some(length) => Coding::Length(length),
        None if x.stream.is_some() && !matches!(response.body, Body::Empty) => Coding::Frames,
        None if matches!(response.body, Body::Empty) => {
            x.response.length = Some(0);
            Coding::Length(0)
        }
        None if x.request.version >= Version::HTTP_11 && x.location.settings.chunked => {
            Coding::Chunked
        }
        None => {
            x.persistence = Persistence::Close;
            Coding::UntilClose
        }
    }
}

/// A body that is copied behind its head, so that both leave with one plain write: cheaper than
/// a gathering one up to this size.
const JOINED: u64 = 2048;

/// The bytes of a body that is whole, in memory, of the announced length and small.
fn small_body(body: &Body, announced: u64) -> Option<&[u8]> {
    match body {
        Body::Whole(Data::File(_)) => None,
        Body::Whole(data) if data.len() == announced && announced <= JOINED => Some(data.bytes()),
        _ => None,
    }
}

/// Writes the head, and `body` behind it: nginx's own fields first, in nginx's order, then the
/// rest. The text is given back by [`keep_scratch`].
fn head(x: &mut Exchange, coding: Coding, body: &[u8]) -> Vec<u8> {
    let place = x.response.location.map(|place| absolute(x, place));
    let response = &x.response;
    let settings = &x.location.settings;
    let mut line = HeadWriter { out: scratch() };
    line.out.clear();
    line.raw(b"HTTP/1.1 ");
    match response.status_line {
        Some(text) => line.raw(x.arena.text(text)),
        None => match status::status_text(response.status) {
            None => {
                push_number(&mut line.out, u64::from(response.status));
                line.raw(b" ");
            }
            Some(text) => line.raw(text.as_bytes()),
        },
    }
    line.raw(b"\r\n");
    let identity = system::identity::identity();
    if response.headers.find(Known::Server).is_none() {
        let server =
            if settings.tokens == Tokens::Off { identity.program } else { identity.server };
        line.field(b"Server", server.as_bytes());
    }
    if response.headers.find(Known::Date).is_none() {
        line.field(b"Date", &session::clock::http_date());
    }
    if let Some(kind) = response.content_type {
        line.raw(b"Content-Type: ");
        line.raw(x.arena.text(kind));
        if let Some(charset) = response.charset {
            line.raw(b"; charset=");
            line.raw(x.arena.text(charset));
        }
        line.raw(b"\r\n");
    }
    if let Some(length) = response.length {
        line.raw(b"Content-Length: ");
        push_number(&mut line.out, length);
        line.raw(b"\r\n");
    }
    if let Some(changed) = response.last_modified {
        line.field(b"Last-Modified", &wire::http1::date::format(changed as i64));
    }
    if let Some(place) = place {
        line.field(b"Location", x.arena.text(place));
    }
    if coding == Coding::Chunked {
        line.raw(b"Transfer-Encoding: chunked\r\n");
    }
    connection_fields(x, &mut line);
    for field in response.headers.iter() {
        line.field(field.name(&x.arena), x.arena.text(field.value));
    }
    line.raw(b"\r\n");
    let length = line.out.len() as u64;
    line.raw(body);
    x.sent.head_bytes += length;
    line.out
}

fn connection_fields(x: &Exchange, line: &mut HeadWriter) {
    if x.response.status == 101 {
        line.raw(b"Connection: upgrade\r\n");
        return;
    }
    if x.persistence == Persistence::Close {
        line.raw(b"Connection: close\r\n");
        return;
    }
    line.raw(b"Connection: keep-alive\r\n");
    if let Some(seconds) = x.location.settings.keepalive.header_s {
        line.raw(b"Keep-Alive: timeout=");
        push_number(&mut line.out, seconds);
        line.raw(b"\r\n");
    }
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn scratch() -> Vec<u8> {
    SCRATCH.with_borrow_mut(std::mem::take)
}

fn keep_scratch(bytes: Vec<u8>) {
    SCRATCH.with_borrow_mut(|kept| *kept = bytes);
}

struct HeadWriter {
    out: Vec<u8>,
}

impl HeadWriter {
    fn raw(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.raw(name);
        self.raw(b": ");
        self.raw(value);
        self.raw(b"\r\n");
    }
}

/// A path becomes a full URL, as `absolute_redirect` and its kin say.
pub(crate) fn absolute(x: &mut Exchange, place: Span) -> Span {
    let settings = &x.location.settings;
    if !x.text(place).starts_with(b"/") || !settings.absolute_redirect {
        return place;
    }
    let by_name = settings.server_name_in_redirect;
    let with_port = settings.port_in_redirect;
    let local = x.connection.local();
    let (scheme, usual): (&[u8], u16) = match x.tls() {
        None => (b"http://", 80),
        Some(_) => (b"https://", 443),
    };
    let mut url = scheme.to_vec();
    if by_name && !x.site.name.is_empty() {
        url.extend_from_slice(&x.site.name);
    } else if !x.request.host.is_empty() {
        url.extend_from_slice(x.text(x.request.host));
    } else if let Some(address) = local {
        let ip = address.ip();
        let text = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        url.extend_from_slice(text.as_bytes());
    }
    let port = local.map(|address| address.port());
    if let Some(port) = port.filter(|port| *port != usual && with_port) {
        url.push(b':');
        push_number(&mut url, u64::from(port));
    }
    url.extend_from_slice(x.text(place));
    x.arena.push(&url)
}

/// Hands what is queued to the request's stream; `ends` holds the trailers when nothing follows.
fn hand_over(
    cx: &mut Context<'_>,
    x: &mut Exchange,
    out: &mut OutQueue,
    ends: Option<Option<Vec<u8>>>,
    drains: bool,
) -> Poll<io::Result<()>> {
    let Some(stream) = x.stream.clone() else { return flush(cx, x, out) };
    let mut handed = stream.poll_send(cx, out, ends);
    if drains && let Poll::Ready(Ok(())) = handed {
        handed = stream.poll_drained(cx);
    }
    if handed.is_ready() {
        stream.timer.clear();
        return handed;
    }
    if stream.made_progress() || stream.timer.deadline().is_none() {
        stream.timer.set(net::now().saturating_add(x.location.settings.send_timeout_ms));
    }
    ready!(stream.timer.poll_expired(cx));
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

/// Writes what is queued; the client has `send_timeout` for each step.
fn flush(cx: &mut Context<'_>, x: &mut Exchange, out: &mut OutQueue) -> Poll<io::Result<()>> {
    let before = out.sent();
    let connection = x.connection.clone();
    let flushed = out.poll_flush(cx, &connection.stream);
    let wrote = out.sent() - before;
    x.sent.bytes += wrote;
    if flushed.is_ready() {
        connection.timer.clear();
        return flushed;
    }
    if wrote > 0 || connection.timer.deadline().is_none() {
        connection.timer.set(net::now().saturating_add(x.location.settings.send_timeout_ms));
    }
    ready!(connection.timer.poll_expired(cx));
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

/// An answer on its way.
struct Sender {
    out: OutQueue,
    /// What holds back output that goes to `out` later; `None`: no limit.
    pace: Option<Box<Pace>>,
    body: Body,
    coding: Coding,
    /// Bytes of a body of known length still to come.
    left: u64,
    ended: bool,
    /// The body broke off: the end is not told.
    is_broken: bool,
}

impl Sender {
    /// Large bodies go from socket to socket where nothing is done to them on the way.
    fn take_pipes(&mut self, x: &Exchange) {
        let is_plain = x.stream.is_none() && x.tls().is_none() && self.pace.is_none();
        if let (Body::Stream(body), Coding::Length(length)) = (&mut self.body, self.coding)
            && length >= net::splice::WORTHWHILE
            && is_plain
        {
            body.take_pipes();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, x: &mut Exchange) -> Poll<SendEnd> {
        loop {
            let mut waiting = false;
            while !self.ended && self.waiting_bytes() < HIGH_WATER {
                match self.body.poll_pull(cx, x) {
                    Poll::Ready(Ok(Some(piece))) => {
                        self.queue(piece.data);
                        if piece.flush {
                            break;
                        }
                    }
                    Poll::Ready(Ok(None)) => self.finish(x),
                    Poll::Ready(Err(_)) => {
                        // What came before is sent all the same.
                        self.ended = true;
                        self.is_broken = true;
                    }
                    Poll::Pending => {
                        waiting = true;
                        if x.location.settings.tcp_nodelay {
                            x.connection.send_at_once();
                        }
                        break;
                    }
                }
            }
            if self.waiting_bytes() == 0 && self.out.is_empty() && self.ended && x.stream.is_none()
            {
                return Poll::Ready(self.verdict(x));
            }
            if let Some(pace) = &mut self.pace
                && self.out.is_empty()
                && pace.poll_release(cx, &mut self.out).is_pending()
            {
                self.body.poll_ahead(cx, x);
                return Poll::Pending;
            }
            let flushed = match x.stream.is_none() {
                true => flush(cx, x, &mut self.out),
                false => {
                    let ends = self.ends_stream(x);
                    let drains = self.is_broken && self.waiting_bytes() == self.out.len_bytes();
                    hand_over(cx, x, &mut self.out, ends, drains)
                }
            };
            match flushed {
                Poll::Ready(Ok(())) if self.waiting_bytes() > 0 => {}
                Poll::Ready(Ok(())) if self.ended => return Poll::Ready(self.verdict(x)),
                Poll::Ready(Ok(())) if waiting => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(lost(x, &error)),
                Poll::Pending => {
                    self.body.poll_ahead(cx, x);
                    return Poll::Pending;
                }
            }
        }
    }

    /// The trailers, when nothing but them follows what `out` holds.
    fn ends_stream(&self, x: &Exchange) -> Option<Option<Vec<u8>>> {
        let held = self.pace.as_ref().map_or(0, |pace| pace.held_bytes());
        // A body that broke off does not end.
        let is_whole = self.ended && self.left == 0 && !self.is_broken;
        (is_whole && held == 0).then(|| http2::trailers(x))
    }

    /// Bytes of output that did not leave yet.
    #[inline]
    fn waiting_bytes(&self) -> u64 {
        self.out.len_bytes() + self.pace.as_ref().map_or(0, |pace| pace.held_bytes())
    }

    #[inline]
    fn push(&mut self, data: Data) {
        match &mut self.pace {
            None => self.out.push(data),
            Some(pace) => pace.hold(data),
        }
    }

    fn queue(&mut self, data: Data) {
        let length = data.len();
        if length == 0 {
            return;
        }
        match self.coding {
            Coding::Chunked => {
                let mut size = [0u8; 20];
                self.push(Block::copy_of(chunk_head(&mut size, length)).into());
                self.push(data);
                self.push(Data::from(&b"\r\n"[..]));
            }
            Coding::Length(_) => {
                // More than was announced would be read as the next answer.
                self.left = self.left.saturating_sub(length);
                self.push(data);
            }
            Coding::UntilClose | Coding::Frames => self.push(data),
            Coding::None => {}
        }
    }

    fn finish(&mut self, x: &mut Exchange) {
        self.ended = true;
        if self.coding != Coding::Chunked {
            return;
        }
        let mut end = Vec::with_capacity(16);
        end.extend_from_slice(b"0\r\n");
        for field in x.response.trailers.iter() {
            end.extend_from_slice(field.name(&x.arena));
            end.extend_from_slice(b": ");
            end.extend_from_slice(x.arena.text(field.value));
            end.extend_from_slice(b"\r\n");
        }
        end.extend_from_slice(b"\r\n");
        self.push(Data::from(end));
    }

    fn verdict(&self, x: &mut Exchange) -> SendEnd {
        match self.left {
            0 if !self.is_broken => SendEnd::Complete,
            _ => {
                x.persistence = Persistence::Close;
                SendEnd::Truncated
            }
        }
    }
}

fn lost(x: &mut Exchange, error: &io::Error) -> SendEnd {
    if error.kind() == io::ErrorKind::TimedOut {
        let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
        let doing = "while sending response to client";
        x.log_error(Level::Info, format_args!("client timed out ({errno}) {doing}"));
        x.sent.timed_out = true;
    } else if x.stream.is_none() {
        // What becomes of streams is told where their frames are read.
        let text = Errno::from(error);
        x.log_error(Level::Info, format_args!("send() failed ({text})"));
    }
    SendEnd::ClientLost
}

/// `1F\r\n`: the size of a chunk.
fn chunk_head(buffer: &mut [u8; 20], length: u64) -> &[u8] {
    use std::io::Write;
    let size = buffer.len();
    let mut rest = &mut buffer[..];
    // Sixteen digits and a line end fit in the buffer.
    let _ = write!(rest, "{length:x}\r\n");
    let used = size - rest.len();
    &buffer[..used]
}
