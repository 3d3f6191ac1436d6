//! One request's way to a peer: pick, connect, report, and again.
//!
//! ```text
//!           pick              connect            done(Ok)
//!   begin --------> a peer -----------> a lease -----------> over
//!     ^                |                   |
//!     `----------------+-- done(Failed) ---'   while tries_left() > 0
//! ```
//!
//! The order is nginx's: each pick is followed by one `done`, and dropping the attempts reports
//! what is open. The caller decides what counts as a failure and whether to go on.

use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use balance::outlier::Grade;
use balance::{Ask, Key, PeerIndex, Took, Tried, Verdict};
use net::{ConnectOptions, Stream};
use rustix::io::Errno as sys;
use session::budget::{self, Permit};
use session::log::Level;
use smallvec::SmallVec;
use system::errno::Errno;
use system::socket::SocketError;

use crate::book::Count;
use crate::group::{Group, Idle};
use crate::marks::Watch;
use crate::methods::Moment;
use crate::shared::{Making, Shared};

/// The picks of one request.
pub struct Attempts {
    group: Rc<Group>,
    tried: Tried,
    current: Option<PeerIndex>,
    tries: u32,
    begun_ms: u64,
    /// The last attempt found a kept connection stale: the next one makes its own.
    fresh: bool,
    key: Key,
    /// The peers that the client is bound to.
    bound: SmallVec<[PeerIndex; 2]>,
    /// When the open attempt began, and how long it took to the head of its answer.
    picked_ms: u64,
    header_ms: Option<u32>,
    /// The open attempt got an answer, which counts.
    has_answer: bool,
    when_answered: Option<Box<dyn FnOnce()>>,
    /// That of the open attempt's answer.
    status: Option<u16>,
    /// The request was given to another peer after a failure.
    is_retrying: bool,
}

/// Nobody is left to ask: nginx says `no live upstreams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPeer;

/// How an attempt ended, as far as the peer is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer answered.
    Ok,
    /// It is the peer's fault, and counts towards `max_fails`.
    Failed,
    /// It ended without an answer, and not by the peer's fault: the client went away, or the
    /// answer is one that `proxy_next_upstream` passes on without blame (403, 404).
    NotCounted,
    /// A kept connection turned out to be closed by the peer. Nobody is blamed, the try is given
    /// back, the same peer may be picked again, and the next connection is a new one.
    Stale,
}

/// The bits of an owner from here on tell kinds of connections apart, which locations never
/// share: 0 is the plain one.
pub const KIND_SHIFT: u32 = 48;

/// What a new connection needs to know.
#[derive(Clone, Debug, Default)]
pub struct Connecting {
    /// How long the peer may take, in milliseconds.
    pub timeout_ms: u64,
    /// Whose connection it is: with `keepalive ... local`, which is the default, a location uses
    /// only the connections that it made. Any number that tells locations apart.
    pub owner: usize,
    /// Socket options and the local address. A kept connection has them already: locations that
    /// differ in them must not share connections.
    pub options: ConnectOptions,
}

/// Whose side a failure to connect was on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The peer, or the way to it, refused.
    Refused,
    /// The peer did not answer within `timeout_ms`.
    Timeout,
    /// We have no descriptor, memory or such a local address. Another peer would not help.
    Ours,
    /// `worker_connections` are in use. Another peer would not help.
    Exhausted,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// Whose side it was on.
    pub kind: ConnectFailure,
    /// The call as nginx names it, without parentheses.
    pub call: &'static str,
    /// What the kernel said; `ETIMEDOUT` for our own limit.
    pub errno: Errno,
    /// Whether the call itself failed, rather than the connection later.
    pub at_once: bool,
}

/// A connection that a request holds. Dropping it closes it.
pub struct Lease {
    idle: Idle,
    group: Rc<Group>,
    peer: PeerIndex,
    reused: bool,
}

impl Attempts {
    pub(crate) fn new(group: Rc<Group>) -> Attempts {
        let tries = group.live().home.tries();
        let begun_ms = net::now();
        Attempts {
            group,
            tried: Tried::new(),
            current: None,
            tries,
            begun_ms,
            fresh: false,
            key: Key::default(),
            bound: SmallVec::new(),
            picked_ms: begun_ms,
            header_ms: None,
            has_answer: false,
            when_answered: None,
            status: None,
            is_retrying: false,
        }
    }

    /// Chooses the next peer. An attempt that is still open ends as [`Outcome::NotCounted`].
    ///
    /// # Errors
    /// [`NoPeer`] when every peer was tried, rests, is full or is down.
    pub fn pick(&mut self) -> Result<PeerIndex, NoPeer> {
        self.done(Outcome::NotCounted);
        // Nobody overtakes those who wait.
        if self.group.queue().is_occupied() && self.is_fresh() {
            return Err(NoPeer);
        }
        self.pick_first()
    }

    /// Whether no peer was tried yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.tried.is_empty() && self.current.is_none()
    }

    /// Picks for a request that stands in front of all that wait.
    pub(crate) fn pick_first(&mut self) -> Result<PeerIndex, NoPeer> {
        let now_ms = net::now();
        let ask = Ask {
            now: now_ms / 1000,
            now_ms,
            random: if self.group.choice().method.draws { session::random::u64() } else { 0 },
            key: self.key,
            bound: &self.bound,
            index: None,
        };
        let is_first = self.tried.is_empty();
        let peer = self.group.pick(&ask, &mut self.tried).ok_or(NoPeer)?;
        if is_first {
            self.group.retry_begun();
        }
        self.group.live().load.begin(now_ms);
        self.current = Some(peer);
        self.picked_ms = now_ms;
        self.header_ms = None;
        self.status = None;
        Ok(peer)
    }

    /// Whether the request may be tried again, as far as `retry_budget` and `circuit_breaker` are
    /// concerned. A retry that may be made is counted: ask when nothing else speaks against it.
    pub fn take_retry(&mut self) -> bool {
        let may = self.group.take_retry(self.is_retrying);
        self.is_retrying |= may;
        may
    }

    /// What the request is balanced by: before the first pick.
    pub fn set_key(&mut self, key: Key) {
        self.key = key;
    }

    /// The peers that the client is bound to, the best first: before the first pick.
    pub fn bind(&mut self, peers: &[PeerIndex]) {
        self.bound = SmallVec::from_slice(peers);
    }

    /// The open attempt's connection stands, which is all that sessions ask of a peer: one that
    /// failed before has recovered.
    pub fn proved(&mut self) {
        if let Some(peer) = self.current {
            self.group.live().home.proved(peer);
        }
    }

    /// The head of the answer of the open attempt is there (stream: the connection, or the first
    /// byte). Only algorithms that measure want to know.
    pub fn answered(&mut self) {
        self.reached_at(Moment::Head, net::now());
    }

    /// As [`Attempts::answered`], for any moment, at `now_ms` of the loop's clock: that by which
    /// the group's algorithm measures counts.
    pub fn reached_at(&mut self, moment: Moment, now_ms: u64) {
        let choice = self.group.choice();
        let wanted = choice.method.timing.is_some() && choice.moment == moment;
        let (Some(peer), true, None) = (self.current, wanted, self.header_ms) else { return };
        let header_ms = elapsed_ms(self.picked_ms, now_ms);
        self.header_ms = Some(header_ms);
        self.group.live().home.answered(peer, header_ms, now_ms);
    }

    /// The open attempt got an answer: its status, and the bytes that went both ways so far.
    pub fn tell_answer(&mut self, status: u16, sent: u64, received: u64) {
        let Some(peer) = self.current else { return };
        self.status = Some(status);
        let live = self.group.live();
        let Some(shared) = live.home.shared() else { return };
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        shared.tell(peer, Count::Responses, class, 1);
        shared.tell(peer, Count::Sent, 0, sent);
        shared.tell(peer, Count::Received, 0, received);
        let header_ms = elapsed_ms(self.picked_ms, net::now());
        shared.tell(peer, Count::HeaderMs, 0, header_ms.into());
        self.has_answer = true;
    }

    /// More bytes of the answer came.
    pub fn tell_received(&self, bytes: u64) {
        if let Some(peer) = self.current
            && let Some(shared) = self.group.live().home.shared()
        {
            shared.tell(peer, Count::Received, 0, bytes);
        }
    }

    /// Does `work` when the open attempt ends with an answer that was taken, whole or not.
    pub fn when_answered(&mut self, work: Box<dyn FnOnce()>) {
        self.when_answered = Some(work);
    }

    /// The number of the peer of the open attempt.
    pub fn current(&self) -> Option<PeerIndex> {
        self.current
    }

    /// The group that is asked.
    pub fn group(&self) -> &Rc<Group> {
        &self.group
    }

    /// The peer of the open attempt.
    pub fn peer(&self) -> Option<Rc<crate::group::Peer>> {
        self.current.map(|peer| self.group.peer(peer))
    }

    /// How many further picks make sense, the open attempt included: the peers that are not
    /// down, less the tries that ended. 0 after the only peer of a group was tried.
    pub fn tries_left(&self) -> u32 {
        self.tries
    }

    /// At most so many tries from now on (`proxy_next_upstream_tries`; 0 is no limit).
    pub fn limit_tries(&mut self, most: u32) {
        if most != 0 {
            self.tries = self.tries.min(most);
        }
    }

    /// When the request began, in milliseconds of the loop's clock (`proxy_next_upstream_timeout`
    /// counts from here).
    pub fn begun_ms(&self) -> u64 {
        self.begun_ms
    }

    /// A kept connection to `peer`, if there is one. Never waits and never asks the kernel,
    /// unless the loop saw something happen on the connection.
    pub fn take_kept(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerIndex,
        owner: usize,
    ) -> Option<Lease> {
        if self.fresh {
            return None;
        }
        let mut idle = self.group.take_idle(cx, peer, owner)?;
        idle.requests += 1;
        Some(Lease { idle, group: self.group.clone(), peer, reused: true })
    }

    /// How to come by a connection to `peer` that carries other requests as well. `fresh`: not
    /// one that stands already, as after an attempt that was [`Outcome::Stale`].
    pub fn share(&mut self, peer: PeerIndex, owner: usize, fresh: bool) -> Shared {
        let lane = self.group.peer(peer).lane;
        self.group.share_connection(lane, owner, fresh)
    }

    /// Makes a connection that carries several requests, for which no other request waits.
    pub fn make(&mut self, peer: PeerIndex, owner: usize) -> Making {
        let lane = self.group.peer(peer).lane;
        self.group.make_carrier(lane, owner)
    }

    /// Whether the last attempt was [`Outcome::Stale`]; it is forgotten.
    pub fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// A connection to `peer`: a kept one, or a new one.
    ///
    /// # Errors
    /// Why no new connection could be made. The attempt stays open: say `done`.
    pub async fn connect(
        &mut self,
        peer: PeerIndex,
        how: &Connecting,
    ) -> Result<Lease, ConnectError> {
        let kept = poll_fn(|cx| Poll::Ready(self.take_kept(cx, peer, how.owner))).await;
        if let Some(lease) = kept {
            return Ok(lease);
        }
        self.fresh = false;
        let Some(permit) = budget::acquire() else { return Err(ConnectError::exhausted()) };
        let peer_named = self.group.peer(peer);
        let address = &peer_named.address;
        let connected = net::timeout(how.timeout_ms, net::connect(address, &how.options)).await;
        let stream = match connected {
            None => return Err(ConnectError::timeout()),
            Some(Err(error)) => return Err(ConnectError::new(error, address.is_unix())),
            Some(Ok(stream)) => stream,
        };
        let owner = how.owner;
        let watch = self.group.watch(peer, Some(stream.handle()));
        let (born_ms, requests) = (net::now(), 1);
        let idle = Idle { stream, requests, born_ms, owner, permit, watch };
        Ok(Lease { idle, group: self.group.clone(), peer, reused: false })
    }

    /// Watches the marks of the peer of the open attempt, for what has no connection. Nothing
    /// unless the group asks for it.
    pub fn watch(&self) -> Option<Watch> {
        self.group.watch(self.current?, None)
    }

    /// Ends the open attempt, if there is one. [`Verdict::Disabled`] when the failure took the
    /// peer out, which nginx logs as `upstream server temporarily disabled`.
    pub fn done(&mut self, outcome: Outcome) -> Verdict {
        let Some(peer) = self.current.take() else { return Verdict::Usable };
        if let Some(work) = self.when_answered.take()
            && outcome != Outcome::Failed
        {
            work();
        }
        let failed = outcome == Outcome::Failed;
        let now_ms = net::now();
        if self.group.choice().rules.is_some()
            && let Some(grade) = self.grade(outcome)
        {
            self.group.judge(peer, grade, now_ms);
        }
        let mut live = self.group.live();
        live.load.end();
        let took = self.group.choice().method.timing.map(|_| Took {
            header_ms: self.header_ms,
            total_ms: elapsed_ms(self.picked_ms, now_ms),
            failed: outcome != Outcome::Ok,
        });
        if std::mem::take(&mut self.has_answer)
            && let Some(shared) = live.home.shared()
        {
            let total_ms = elapsed_ms(self.picked_ms, now_ms);
            shared.tell(peer, Count::ResponseMs, 0, total_ms.into());
        }
        let verdict = live.home.end(peer, failed, took, now_ms);
        match outcome {
            Outcome::Stale => {
                self.tried.forget(peer);
                self.fresh = true;
            }
            _ => self.tries = self.tries.saturating_sub(1),
        }
        drop(live);
        if self.group.queue().is_open() {
            self.group.queue().wake_first();
        }
        verdict
    }
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tried, current) = (&self.tried, &self.current);
        let mut out = out.debug_struct("Attempts");
        out.field("group", &self.group).field("tried", tried).field("current", current).finish()
    }
}

fn elapsed_ms(from_ms: u64, to_ms: u64) -> u32 {
    u32::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(u32::MAX)
}

impl Attempts {
    /// What the end of the open attempt says of the peer, if anything.
    fn grade(&self, outcome: Outcome) -> Option<Grade> {
        match (outcome, self.status) {
            (Outcome::Stale, _) | (Outcome::NotCounted, None) => None,
            (_, Some(500..)) => Some(Grade::ServerError),
            (Outcome::Failed, _) => Some(Grade::Failed),
            (Outcome::Ok | Outcome::NotCounted, _) => Some(Grade::Good),
        }
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        self.done(Outcome::NotCounted);
        if self.is_retrying {
            self.group.retry_over();
        }
    }
}

impl ConnectError {
    /// nginx's words for it, to which the log adds the error number. `peer` is the peer's name.
    pub fn message(&self, peer: &str) -> Cow<'static, str> {
        match self.kind {
            ConnectFailure::Timeout => "upstream timed out".into(),
            ConnectFailure::Exhausted => {
                format!("{} worker_connections are not enough", budget::limit()).into()
            }
            ConnectFailure::Refused if self.at_once => {
                format!("{}() to {peer} failed", self.call).into()
            }
            _ if self.call.ends_with(')') => format!("{} failed", self.call).into(),
            _ => format!("{}() failed", self.call).into(),
        }
    }

    /// How bad it is in the error log: what the network does is an error, what we should not
    /// have met is more (`ngx_event_connect_peer`, `ngx_connection_error`).
    pub fn level(&self) -> Level {
        let usual = [
            sys::TIMEDOUT,
            sys::CONNREFUSED,
            sys::CONNRESET,
            sys::NETDOWN,
            sys::NETUNREACH,
            sys::HOSTDOWN,
            sys::HOSTUNREACH,
        ];
        let full_queue = self.at_once && self.errno == sys::AGAIN.into();
        if full_queue || usual.iter().any(|&code| self.errno == code.into()) {
            Level::Error
        } else if self.at_once {
            Level::Crit
        } else {
            Level::Alert
        }
    }

    fn exhausted() -> ConnectError {
        ConnectError {
            kind: ConnectFailure::Exhausted,
            call: "connect",
            errno: sys::MFILE.into(),
            at_once: false,
        }
    }

    fn timeout() -> ConnectError {
        ConnectError {
            kind: ConnectFailure::Timeout,
            call: "connect",
            errno: sys::TIMEDOUT.into(),
            at_once: false,
        }
    }

    fn new(error: SocketError, unix: bool) -> ConnectError {
        let refused = error.call == "connect";
        ConnectError {
            kind: if refused { ConnectFailure::Refused } else { ConnectFailure::Ours },
            call: error.call,
            errno: error.errno,
            // A unix socket answers in the call. Internet addresses answer later, unless there
            // is no way to them at all.
            at_once: refused && (unix || is_unreachable(error.errno)),
        }
    }
}

/// What `connect(2)` says at once, because there is no way to the address.
fn is_unreachable(errno: Errno) -> bool {
    [sys::NETUNREACH, sys::NETDOWN, sys::ADDRNOTAVAIL, sys::ACCESS, sys::PERM, sys::INVAL]
        .iter()
        .any(|&code| Errno::from(code) == errno)
}

impl Lease {
    /// The connection.
    pub fn stream(&self) -> &Stream {
        &self.idle.stream
    }

    /// Whether an earlier request used it: a failure before the first byte of the answer is
    /// then likely to be the peer's closing it.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// How many requests it has served, this one included.
    pub fn requests(&self) -> u64 {
        self.idle.requests
    }

    /// When it was made, in milliseconds of the loop's clock.
    pub fn born_ms(&self) -> u64 {
        self.idle.born_ms
    }

    /// Gives the connection back for further requests. Only for one whose answer was read to
    /// its end and whose request was sent whole.
    pub fn keep(self) {
        self.group.keep_idle(self.peer, self.idle);
    }

    /// Takes the connection out of the group's hands, for upgrades. It ends when its peer's marks
    /// say so for as long as the watch lives.
    pub fn into_stream(self) -> (Stream, Permit, Option<Watch>) {
        (self.idle.stream, self.idle.permit, self.idle.watch)
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Lease").field("peer", &self.peer).field("reused", &self.reused).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_the_words_of_nginx() {
        let check = |call, errno: sys, unix, level, message| {
            let error = ConnectError::new(SocketError { call, errno: errno.into() }, unix);
            assert_eq!((error.level(), &*error.message("PEER")), (level, message), "{error:?}");
        };
        check("connect", sys::CONNREFUSED, false, Level::Error, "connect() failed");
        check("connect", sys::NETUNREACH, false, Level::Error, "connect() to PEER failed");
        check("connect", sys::CONNREFUSED, true, Level::Error, "connect() to PEER failed");
        check("connect", sys::AGAIN, true, Level::Error, "connect() to PEER failed");
        check("connect", sys::NOENT, true, Level::Crit, "connect() to PEER failed");
        check("socket", sys::MFILE, false, Level::Alert, "socket() failed");
        let option = "setsockopt(TCP_NODELAY)";
        check(option, sys::INVAL, false, Level::Alert, "setsockopt(TCP_NODELAY) failed");
        let timeout = ConnectError::timeout();
        assert_eq!((timeout.level(), &*timeout.message("")), (Level::Error, "upstream timed out"));
    }
}
