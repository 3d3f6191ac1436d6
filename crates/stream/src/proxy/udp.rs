//! UDP sessions: packets both ways until all answers came, or silence ends it.
//!
//! A packet is sent on as it is or not at all. Over a rate nothing waits: packets of the client
//! are dropped, as a network drops them; those of the backend wait in its socket.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use net::{Datagrams, Timer};
use session::log::Level;
use system::errno::Errno;
use upstream::{Attempts, Group, Mark, Outcome};

use super::connect::{self, connected};
use super::settings::Settings;
use super::tcp::{marked, note_traffic};
use crate::client::{Client, Packets};
use crate::journey::{BAD_GATEWAY, INTERNAL_ERROR, OK};
use crate::packets::{Entry, with_batch};
use crate::session::Session;
use crate::upstreams;

/// How long a session goes on at most without packets when its worker takes no more of them.
const CLOSING_MS: u64 = 2_000;

/// Serves a session with a peer of the group.
pub(super) async fn serve(s: &mut Session, settings: &Settings, group: &Rc<Group>) -> u16 {
    let mut attempts = upstreams::begin(s, group);
    let (socket, _permit) = match connect::packets(s, settings, &mut attempts) {
        Ok(connected) => connected,
        Err(status) => return status,
    };
    connected(s, &mut attempts, socket.as_fd());
    let rates = settings.rates(s);
    let header = connect::header(s, settings.header);
    let mut exchange = Exchange {
        settings,
        header: Some(header).filter(|header| !header.is_empty()),
        requests: 0,
        responses: 0,
        idle: Timer::new(),
        upload: Pace::new(rates.0),
        download: Pace::new(rates.1),
    };
    exchange.idle.set(net::now().saturating_add(settings.timeout_ms));
    let end = {
        let session: &Session = s;
        let Client::Packets(client) = &session.client else { return INTERNAL_ERROR };
        let watch = attempts.watch();
        poll_fn(|cx| match watch.as_ref().map(|watch| watch.poll_marked(cx)) {
            Some(Poll::Ready(mark)) => Poll::Ready(End::Marked(mark)),
            _ => exchange.poll(cx, session, client, &socket),
        })
        .await
    };
    note_traffic(s);
    exchange.ended(s, &mut attempts, end)
}

/// How an exchange of packets ended.
enum End {
    /// All answers came.
    Done,
    /// Silence.
    TimedOut,
    /// The worker takes no more packets.
    Closing,
    /// The peer was marked, and its sessions end with that.
    Marked(Mark),
    /// The peer is not there.
    Failed(io::Error),
    /// The peer could not be sent to.
    Unsent(io::Error),
}

struct Exchange<'a> {
    settings: &'a Settings,
    /// Goes before the first packet, in the same one.
    header: Option<Vec<u8>>,
    requests: u64,
    responses: u64,
    idle: Timer,
    upload: Option<Pace>,
    download: Option<Pace>,
}

impl Exchange<'_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        s: &Session,
        client: &Packets,
        socket: &Datagrams,
    ) -> Poll<End> {
        let before = self.requests + self.responses;
        if let Poll::Ready(end) = self.poll_requests(cx, s, client, socket) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = self.poll_responses(cx, s, client, socket) {
            return Poll::Ready(end);
        }
        if self.is_over(s) {
            return Poll::Ready(End::Done);
        }
        let is_delayed = [&self.upload, &self.download].into_iter().flatten().any(Pace::is_delayed);
        let now = net::now();
        if client.inbox.is_closing() {
            // Others get the client's packets; answers may still be on their way.
            let limit = now.saturating_add(CLOSING_MS);
            self.idle.set(self.idle.deadline().map_or(limit, |at| at.min(limit)));
            return self.idle.poll_expired(cx).map(|()| End::Closing);
        }
        if is_delayed {
            self.idle.clear();
            return Poll::Pending;
        }
        if self.requests + self.responses != before || self.idle.deadline().is_none() {
            self.idle.set(now.saturating_add(self.settings.timeout_ms));
        }
        self.idle.poll_expired(cx).map(|()| End::TimedOut)
    }

    /// Sends on what came from the client.
    fn poll_requests(
        &mut self,
        cx: &mut Context<'_>,
        s: &Session,
        client: &Packets,
        socket: &Datagrams,
    ) -> Poll<End> {
        loop {
            let may_go = self.upload.as_ref().is_none_or(|pace| pace.poll(cx).is_ready());
            let header = &mut self.header;
            let sent = client.inbox.poll_front(cx, |cx, packet| {
                if !may_go {
                    return Poll::Ready(None);
                }
                let outcome = match header.as_mut() {
                    None => socket.poll_send(cx, packet),
                    Some(header) => {
                        let whole = [header.as_slice(), packet].concat();
                        socket.poll_send(cx, &whole)
                    }
                };
                outcome.map(|outcome| Some(outcome.map(|n| (packet.len() as u64, n as u64))))
            });
            let Poll::Ready(Poll::Ready(sent)) = sent else { return Poll::Pending };
            client.inbox.pop();
            match sent {
                // Too fast: lost.
                None => continue,
                Some(Ok((length, sent))) => {
                    self.header = None;
                    self.requests += 1;
                    s.counts.from_first.set(s.counts.from_first.get() + length);
                    s.counts.to_second.set(s.counts.to_second.get() + sent);
                    if let Some(pace) = &mut self.upload {
                        pace.wait_for(length);
                    }
                }
                Some(Err(error)) => return Poll::Ready(End::Unsent(error)),
            }
            if self.is_over(s) {
                return Poll::Ready(End::Done);
            }
        }
    }

    /// Sends back what came from the peer.
    fn poll_responses(
        &mut self,
        cx: &mut Context<'_>,
        s: &Session,
        client: &Packets,
        socket: &Datagrams,
    ) -> Poll<End> {
        loop {
            if let Some(pace) = &self.download
                && pace.poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            let most = if self.download.is_some() { 1 } else { self.missing() };
            let received = with_batch(|batch| {
                let received = socket.poll_receive(cx, batch, most);
                if let Poll::Ready(Ok(_)) = received {
                    for packet in batch.packets() {
                        self.respond(s, client, packet.bytes);
                    }
                }
                received
            });
            match received {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error)),
            }
            if self.is_over(s) {
                return Poll::Ready(End::Done);
            }
        }
    }

    fn respond(&mut self, s: &Session, client: &Packets, packet: &[u8]) {
        let counts = &s.counts;
        counts.answered_ms.set(counts.answered_ms.get().or(Some(net::now())));
        counts.from_second.set(counts.from_second.get() + packet.len() as u64);
        self.responses += 1;
        match client.send(packet) {
            Ok(sent) => counts.to_first.set(counts.to_first.get() + sent as u64),
            Err(error) => {
                let message = format_args!("sendmsg() failed");
                s.log_while(Level::Info, (&error).into(), message, "sending to client");
            }
        }
        if let Some(pace) = &mut self.download {
            pace.wait_for(packet.len() as u64);
        }
    }

    /// True when the session had all that it is to have. A client that sent all its packets
    /// begins a new session with the next one.
    fn is_over(&self, s: &Session) -> bool {
        if self.settings.requests > 0 {
            if self.requests < self.settings.requests {
                return false;
            }
            if let Some(entry) = s.state::<Entry>() {
                entry.leave();
            }
        }
        self.settings.responses.is_some() && self.is_answered()
    }

    /// True unless answers are missing.
    fn is_answered(&self) -> bool {
        let expected = self.settings.responses.map(|each| each.saturating_mul(self.requests));
        expected.is_none_or(|expected| self.responses >= expected)
    }

    /// How many packets may come at once. One that is not expected may come too.
    fn missing(&self) -> usize {
        let most = net::datagram::AT_ONCE;
        let Some(each) = self.settings.responses else { return most };
        let missing = each.saturating_mul(self.requests).saturating_sub(self.responses);
        usize::try_from(missing).unwrap_or(most).clamp(1, most)
    }

    /// Tells the logs, and says how the session went.
    fn ended(&self, s: &mut Session, attempts: &mut Attempts, end: End) -> u16 {
        match end {
            End::Done => self.log_end(s, "udp done"),
            End::TimedOut if self.is_answered() => self.log_end(s, "udp timed out"),
            End::Closing => s.log_plainly(format_args!("disconnected on shutdown")),
            End::Marked(mark) => {
                attempts.done(Outcome::NotCounted);
                marked(s, mark);
                return BAD_GATEWAY;
            }
            End::TimedOut => {
                let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
                s.log_errno(Level::Error, errno, format_args!("upstream timed out"));
                connect::failed(s, attempts);
                return BAD_GATEWAY;
            }
            End::Failed(error) => {
                let message = format_args!("recv() failed");
                s.log_while(Level::Error, (&error).into(), message, "reading from upstream");
                connect::failed(s, attempts);
                return BAD_GATEWAY;
            }
            End::Unsent(error) => {
                let message = format_args!("send() failed");
                s.log_while(Level::Error, (&error).into(), message, "sending to upstream");
                connect::failed(s, attempts);
                return BAD_GATEWAY;
            }
        }
        connect::done(s, attempts);
        OK
    }

    fn log_end(&self, s: &Session, how: &str) {
        let counts = &s.counts;
        s.log_plainly(format_args!(
            "{how}, packets from/to client:{}/{}, bytes from/to client:{}/{}, bytes from/to \
             upstream:{}/{}",
            self.requests,
            self.responses,
            counts.from_first.get(),
            counts.to_first.get(),
            counts.from_second.get(),
            counts.to_second.get()
        ));
    }
}

/// A limit of bytes per second.
struct Pace {
    rate: u64,
    begun_ms: u64,
    moved: u64,
    timer: Timer,
}

impl Pace {
    fn new(rate: u64) -> Option<Pace> {
        let begun_ms = net::now();
        (rate > 0).then(|| Pace { rate, begun_ms, moved: 0, timer: Timer::new() })
    }

    fn is_delayed(&self) -> bool {
        self.timer.deadline().is_some()
    }

    /// Ready when a packet may move.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_delayed() {
            std::task::ready!(self.timer.poll_expired(cx));
            self.timer.clear();
        }
        let elapsed = net::now().saturating_sub(self.begun_ms);
        let granted = self.rate.saturating_mul(elapsed / 1000 + 1);
        if granted > self.moved {
            return Poll::Ready(());
        }
        let wait_ms = (self.moved - granted).saturating_mul(1000) / self.rate + 1;
        self.timer.set(net::now().saturating_add(wait_ms));
        self.timer.poll_expired(cx)
    }

    /// A packet moved: nothing more does for the time that it is worth.
    fn wait_for(&mut self, bytes: u64) {
        self.moved += bytes;
        let delay = bytes.saturating_mul(1000) / self.rate;
        if delay > 0 {
            self.timer.set(net::now().saturating_add(delay));
        }
    }
}
