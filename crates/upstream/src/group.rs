//! A group: what the configuration says of it, and what is going on in it.
//!
//! The description never changes. The live part is the balancing state, which is this worker's
//! own or lies in a zone (`home.rs`), and the idle connections, which are always its own.
//! Compiling happens in the master, before the fork, and touches neither the event loop nor a
//! descriptor: the reaper of idle connections starts with the first of them.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use balance::{Ask, Health, Index, Members, Memory, PeerIndex, PeerOptions, Tried};
use net::{Stream, Timer};
use session::budget::Permit;
use session::variables::Template;
use system::socket::Address;

use crate::attempts::{Attempts, KIND_SHIFT};
use crate::guard::{Retries, RetryPlace};
use crate::health::Verdicts;
use crate::home::Home;
use crate::marks::{Watch, Watched};
use crate::membership::{ZonePlace, options};
use crate::methods::{Choice, KeySource};
use crate::pool::Pool;
use crate::queue::Queue;
use crate::shared::Carriers;
use crate::timeline::What;

/// How long a peak of concurrency is remembered, at least.
const PEAK_WINDOW_MS: u64 = 1_000;

/// How often a pick looks again when the membership changed meanwhile.
const INDEX_TRIES: u32 = 3;

/// One address of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As `$upstream_addr` prints it.
    pub name: Box<str>,
    /// As the configuration wrote it.
    pub server: Box<str>,
    /// The name by which clients are bound to it, if the configuration gives one.
    pub route: Option<Box<str>>,
    /// Where to connect.
    pub address: Address,
    /// Its number for as long as the group lives, over reloads.
    pub id: u64,
    /// It left the group; requests that went to it before may still be under way.
    pub is_gone: bool,
    /// The first peer with this address: peers of one address share idle connections.
    pub(crate) lane: u32,
    /// Which of the group's changes made it what it is.
    pub(crate) version: u64,
}

/// The peers of a group by their places, as this process knows them.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// The state's generation that it is true for.
    pub(crate) generation: u32,
    pub(crate) peers: Vec<Rc<Peer>>,
}

impl Peer {
    pub(crate) fn of(member: &Member, place: PeerIndex) -> Peer {
        Peer {
            name: member.address.to_string().into(),
            server: member.server.clone(),
            route: member.route.clone(),
            address: member.address.clone(),
            id: place.into(),
            is_gone: false,
            lane: place,
            version: 0,
        }
    }

    /// Nobody.
    pub(crate) fn nobody() -> Peer {
        Peer {
            name: Box::default(),
            server: Box::default(),
            route: None,
            address: Address::any_v4(0),
            id: u64::MAX,
            is_gone: true,
            lane: 0,
            version: 0,
        }
    }
}

impl Roster {
    pub(crate) fn peer(&self, place: PeerIndex) -> Rc<Peer> {
        match self.peers.get(place as usize) {
            Some(peer) => peer.clone(),
            None => Rc::new(Peer::nobody()),
        }
    }
}

/// Lets peers of one address share a lane: the place of the first of them.
pub(crate) fn with_lanes(mut peers: Vec<Rc<Peer>>) -> Vec<Rc<Peer>> {
    let mut lanes: HashMap<Address, PeerIndex> = HashMap::new();
    for (place, peer) in (0..).zip(&mut peers) {
        if peer.is_gone {
            continue;
        }
        let lane = *lanes.entry(peer.address.clone()).or_insert(place);
        if peer.lane != lane {
            *peer = Rc::new(Peer { lane, ..(**peer).clone() });
        }
    }
    peers
}

/// What a group is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the configuration calls it; logged when no peer is left.
    pub name: Box<str>,
    /// The algorithm and what it goes by.
    pub choice: Choice,
    /// Primary peers, in order.
    pub primaries: Vec<Member>,
    /// Backup peers, in order.
    pub backups: Vec<Member>,
    /// Which connections are kept.
    pub keepalive: Keepalive,
}

/// One peer of [`Settings`].
#[derive(Clone, Debug)]
pub struct Member {
    /// As the configuration wrote it.
    pub server: Box<str>,
    /// The name by which clients are bound to it, if the configuration gives one.
    pub route: Option<Box<str>>,
    /// Where to connect.
    pub address: Address,
    /// Weight and limits. `fail_timeout` is in seconds.
    pub options: PeerOptions,
}

impl Member {
    /// A member with the usual options.
    pub fn new(server: &str, address: Address) -> Member {
        Member { server: server.into(), route: None, address, options: PeerOptions::default() }
    }
}

/// Which idle connections a group keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections kept by each worker; 0 keeps none.
    pub connections: u32,
    /// Requests may share a connection where the protocol lets them.
    pub shares: bool,
    /// A connection is used again only by the location that made it.
    pub local: bool,
    /// Requests after which a connection is closed.
    pub requests: u64,
    /// Age after which a connection is closed once it is idle.
    pub time_ms: u64,
    /// Time for which a connection stays idle.
    pub timeout_ms: u64,
}

impl Keepalive {
    /// What holds for an `upstream` block without any of the directives (nginx 1.29.7 and later).
    pub const DEFAULT: Keepalive = Keepalive {
        connections: 32,
        shares: true,
        local: true,
        requests: 1000,
        time_ms: 3_600_000,
        timeout_ms: 60_000,
    };

    /// Nothing is kept: what holds for a group that a URL implies.
    pub const OFF: Keepalive = Keepalive { connections: 0, ..Keepalive::DEFAULT };
}

/// A group of peers, as one worker sees it.
pub struct Group {
    name: Box<str>,
    pub(crate) roster: RefCell<Roster>,
    /// What the configuration says of its members.
    pub(crate) wanted: [Box<[Member]>; 2],
    /// The zone, if it has one.
    pub(crate) zone: OnceCell<ZonePlace>,
    /// The names that are looked up while the program runs.
    pub(crate) names: OnceCell<crate::names::Names>,
    /// The file that changes are written to.
    pub(crate) state: OnceCell<std::path::PathBuf>,
    choice: Choice,
    /// The key's template once the engine compiled it.
    key: OnceCell<Template>,
    /// What the engine above keeps with the group.
    extra: OnceCell<Box<dyn Any>>,
    keepalive: Keepalive,
    queue: Queue,
    retries: Retries,
    verdicts: Verdicts,
    /// Connections that may have to end with their peer; nothing where none has to.
    pub(crate) watched: Option<Rc<Watched>>,
    live: RefCell<Live>,
}

/// What changes while requests pass.
pub(crate) struct Live {
    pub(crate) home: Home,
    pub(crate) load: Load,
    pub(crate) index: Option<Index>,
    pub(crate) pool: Pool<Idle>,
    pub(crate) carriers: Carriers,
    reaper: Option<Reaper>,
    pub(crate) retired: bool,
}

/// The task that closes idle connections.
struct Reaper {
    timer: Timer,
    /// Known once the task ran.
    waker: Option<Waker>,
}

/// A connection that nobody uses.
pub(crate) struct Idle {
    pub(crate) stream: Stream,
    pub(crate) requests: u64,
    pub(crate) born_ms: u64,
    pub(crate) owner: usize,
    /// One of the worker's connections, kept or in use.
    pub(crate) permit: Permit,
    /// Its peer's marks may end it.
    pub(crate) watch: Option<Watch>,
}

impl Idle {
    /// Whether the peer said nothing: neither bytes, which nobody asked for, nor a farewell.
    /// While it is true, `cx` is woken when that changes.
    fn is_quiet(&self, cx: &mut Context<'_>) -> bool {
        // No system call unless the loop saw something.
        self.stream.poll_read(cx, &mut [0; 1]).is_pending()
    }
}

/// Requests under way, and how many there were at once lately.
#[derive(Debug, Default)]
pub(crate) struct Load {
    now: u32,
    /// The most in this window and in the last one.
    peaks: [u32; 2],
    window_ends_ms: u64,
}

impl Load {
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.now += 1;
        self.roll(now_ms);
        self.peaks[0] = self.peaks[0].max(self.now);
    }

    pub(crate) fn end(&mut self) {
        self.now = self.now.saturating_sub(1);
    }

    fn roll(&mut self, now_ms: u64) {
        if now_ms >= self.window_ends_ms {
            let idle = now_ms >= self.window_ends_ms + PEAK_WINDOW_MS;
            self.peaks = [self.now, if idle { 0 } else { self.peaks[0] }];
            self.window_ends_ms = now_ms + PEAK_WINDOW_MS;
        }
    }

    fn peak(&mut self, now_ms: u64) -> u32 {
        self.roll(now_ms);
        self.peaks[0].max(self.peaks[1])
    }
}

impl Group {
    /// A group with a fresh state.
    pub fn new(settings: Settings) -> Rc<Group> {
        let wanted: [Box<[Member]>; 2] = [settings.primaries.into(), settings.backups.into()];
        let (primaries, backups) = (options(&wanted[0]), options(&wanted[1]));
        let peers: Vec<Rc<Peer>> = (0..)
            .zip(wanted.iter().flatten())
            .map(|(index, member)| Rc::new(Peer::of(member, index)))
            .collect();
        let peers = with_lanes(peers);
        let mut memory = Memory::new(settings.choice.method, &primaries, &backups);
        settings.choice.apply(&mut memory.state());
        let live = Live {
            home: Home::Own(Box::new(memory)),
            load: Load::default(),
            index: None,
            pool: Pool::new(peers.len()),
            carriers: Carriers::default(),
            reaper: None,
            retired: false,
        };
        let queue = Queue::new(settings.choice.queue);
        let retries = Retries::new(settings.choice.budget, settings.choice.breaker);
        let watched = settings.choice.marks.matter().then(Rc::default);
        Rc::new(Group {
            queue,
            retries,
            verdicts: Verdicts::default(),
            watched,
            name: settings.name,
            roster: RefCell::new(Roster { generation: 0, peers }),
            wanted,
            zone: OnceCell::new(),
            names: OnceCell::new(),
            state: OnceCell::new(),
            choice: settings.choice,
            key: OnceCell::new(),
            extra: OnceCell::new(),
            keepalive: settings.keepalive,
            live: RefCell::new(live),
        })
    }

    /// How the configuration calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All places with their peers, primaries first; some may be gone.
    pub fn peers(&self) -> Vec<Rc<Peer>> {
        self.refresh();
        self.roster.borrow().peers.clone()
    }

    /// The peer of an index that a pick gave.
    pub fn peer(&self, index: PeerIndex) -> Rc<Peer> {
        self.roster.borrow().peer(index)
    }

    /// Changes when the members do, as far as this process knows them.
    pub fn generation(&self) -> u32 {
        self.roster.borrow().generation
    }

    /// The algorithm and what it goes by.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The template of the key, when requests are balanced by one and it is compiled.
    pub fn key(&self) -> Option<&Template> {
        self.key.get()
    }

    /// Keeps something of the engine above with the group: once, while compiling.
    pub fn set_extra(&self, extra: Box<dyn Any>) {
        // A group belongs to one engine, which compiles it once.
        let _ = self.extra.set(extra);
    }

    /// What [`Group::set_extra`] was given, if it is a `T`.
    pub fn extra<T: 'static>(&self) -> Option<&T> {
        self.extra.get()?.downcast_ref()
    }

    /// Requests of this worker that wait for a peer.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// A request is given to its first peer.
    #[inline]
    pub(crate) fn retry_begun(&self) {
        if self.retries.is_on() {
            self.with_retries(Retries::begun);
        }
    }

    /// Whether a request may be tried again, which is counted then. `is_retrying`: it was before.
    pub(crate) fn take_retry(&self, is_retrying: bool) -> bool {
        let take = |retries: &Retries, counts: RetryPlace<'_>| retries.take(counts, is_retrying);
        !self.retries.is_on() || self.with_retries(take)
    }

    /// A request that was tried again is over.
    pub(crate) fn retry_over(&self) {
        if self.retries.is_on() {
            self.with_retries(Retries::over);
        }
    }

    fn with_retries<R>(&self, work: impl FnOnce(&Retries, RetryPlace<'_>) -> R) -> R {
        let live = self.live.borrow();
        let counts = live.home.shared().and_then(|shared| shared.retries());
        work(&self.retries, counts.unwrap_or_else(|| self.retries.own()))
    }

    pub(crate) fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Whether a peer could be used if it were not full.
    pub(crate) fn is_busy(&self) -> bool {
        self.live.borrow_mut().home.is_busy()
    }

    /// Counts one more that waits, over all workers; `false` when there are `most` already.
    pub(crate) fn count_waiting(&self, most: u32) -> bool {
        let mut live = self.live.borrow_mut();
        match live.home.waiting() {
            Some(waiting) => waiting.enter(most),
            None => (self.queue.len() as u64) < u64::from(most),
        }
    }

    /// One that waited waits no more.
    pub(crate) fn uncount_waiting(&self) {
        if let Some(waiting) = self.live.borrow_mut().home.waiting() {
            waiting.leave();
        }
    }

    /// Begins a request: nothing is tried yet.
    pub fn begin(self: &Rc<Group>) -> Attempts {
        Attempts::new(self.clone())
    }

    /// Idle connections at the moment.
    pub fn idle(&self) -> usize {
        self.live.borrow().pool.len()
    }

    /// Requests under way at a peer: from this worker, or from all when the group has a zone.
    pub fn conns(&self, peer: PeerIndex) -> u32 {
        self.live.borrow_mut().home.conns(peer)
    }

    /// Says which worker this process is, from 0: for a fresh worker, before its first request.
    /// A worker that replaces another one has its number.
    pub fn enter_worker(&self, worker: usize) {
        self.live.borrow_mut().home.enter_worker(worker);
    }

    /// Whether its state lies in a zone, for all workers.
    pub fn is_shared(&self) -> bool {
        self.zone.get().is_some()
    }

    /// The peers that active checks may look at.
    pub(crate) fn checkable(&self) -> std::ops::Range<PeerIndex> {
        self.refresh();
        0..self.roster.borrow().peers.len() as PeerIndex
    }

    /// Where a peer is, while it belongs to the group.
    pub(crate) fn address_of(&self, peer: PeerIndex) -> Option<Address> {
        self.refresh();
        let peer = self.peer(peer);
        (!peer.is_gone).then(|| peer.address.clone())
    }

    /// What active checks say of a peer.
    pub fn health(&self, peer: PeerIndex) -> Health {
        self.live.borrow_mut().home.health(peer)
    }

    /// Says what active checks found.
    pub fn set_health(&self, peer: PeerIndex, health: Health) {
        self.live.borrow_mut().home.set_health(peer, health, net::now());
    }

    /// Notes what happened to a peer, where there is room for that.
    pub(crate) fn note(&self, peer: PeerIndex, what: What, reason: &str) {
        self.live.borrow().home.note(peer, what, reason);
    }

    /// Counts a check.
    pub(crate) fn count_check(&self, peer: PeerIndex, passed: bool) {
        self.live.borrow_mut().home.checked(peer, passed);
    }

    /// Lets no requests through to peers that no check has found well yet. `persistent`: those
    /// that were well before a reload are taken for well.
    pub(crate) fn await_checks(&self, persistent: bool) {
        let peers = self.checkable();
        let mut live = self.live.borrow_mut();
        for peer in peers {
            let known = live.home.was_checked(peer) && persistent;
            if !known && live.home.health(peer) == Health::Well {
                live.home.set_health(peer, Health::Awaited, 0);
            }
        }
    }

    /// Takes back what a worker had under way when it died. For the master.
    pub fn worker_died(&self, worker: usize) {
        self.live.borrow_mut().home.worker_died(worker);
    }

    /// The worker retires: idle connections are closed and no more are kept. Requests under way
    /// go on, and new ones still find their peers.
    pub fn retire(&self) {
        let mut live = self.live.borrow_mut();
        live.retired = true;
        live.pool.retain(|_, _| false);
        let carriers = live.carriers.all();
        drop(live);
        carriers.iter().for_each(|carrier| carrier.retire());
    }

    /// Whether requests may share a connection.
    pub(crate) fn shares(&self) -> bool {
        self.keepalive.shares
    }

    pub(crate) fn keepalive(&self) -> &Keepalive {
        &self.keepalive
    }

    /// Whether a connection of one owner may be used by another.
    pub(crate) fn may_use(&self, of: usize, owner: usize) -> bool {
        match self.keepalive.local {
            true => of == owner,
            false => (of ^ owner) >> KIND_SHIFT == 0,
        }
    }

    pub(crate) fn live(&self) -> std::cell::RefMut<'_, Live> {
        self.live.borrow_mut()
    }

    /// Chooses a peer. Works out the algorithm's index when there is none or it is out of date.
    pub(crate) fn pick(&self, ask: &Ask<'_>, tried: &mut Tried) -> Option<PeerIndex> {
        let live = &mut *self.live.borrow_mut();
        let found = self.pick_from(live, ask, tried);
        self.refresh_after(live);
        found
    }

    fn pick_from(&self, live: &mut Live, ask: &Ask<'_>, tried: &mut Tried) -> Option<PeerIndex> {
        if !self.choice.method.has_index() {
            return live.home.pick(ask, tried);
        }
        let mut members = None;
        for _ in 0..INDEX_TRIES {
            if let Some(members) = members.take() {
                self.refresh_after(live);
                live.index = Some(self.index_of(&members));
            }
            match live.home.pick_indexed(ask, tried, live.index.as_ref()) {
                Ok(found) => return found,
                Err(outdated) => members = Some(outdated),
            }
        }
        // The membership changes faster than it can be worked out: take turns meanwhile.
        live.home.pick(ask, tried)
    }

    fn index_of(&self, members: &Members) -> Index {
        let roster = self.roster.borrow();
        let name = |peer: PeerIndex| {
            let peer = roster.peers.get(peer as usize);
            peer.map_or("", |peer| &*peer.server)
        };
        Index::new(self.choice.method, members, &name)
    }

    pub(crate) fn compile_key(&self, compile: &mut dyn FnMut(&config::Template) -> Template) {
        if let KeySource::Text(source) = &self.choice.key {
            let _ = self.key.set(compile(source));
        }
    }

    /// The newest quiet connection to `peer` that `owner` may use.
    pub(crate) fn take_idle(
        &self,
        cx: &mut Context<'_>,
        peer: PeerIndex,
        owner: usize,
    ) -> Option<Idle> {
        let lane = self.peer(peer).lane;
        let fits = |idle: &Idle| self.may_use(idle.owner, owner);
        let mut live = self.live.borrow_mut();
        loop {
            let idle = live.pool.take(lane, fits)?;
            if idle.is_quiet(cx) {
                return Some(idle);
            }
        }
    }

    /// Keeps a connection, unless it is spent or there is no room.
    pub(crate) fn keep_idle(self: &Rc<Group>, peer: PeerIndex, idle: Idle) {
        let keep = &self.keepalive;
        let now_ms = net::now();
        let mut live = self.live.borrow_mut();
        let spent =
            idle.requests >= keep.requests || now_ms.saturating_sub(idle.born_ms) > keep.time_ms;
        if keep.connections == 0 || spent || live.retired {
            return;
        }
        let reaper = live.reaper.get_or_insert_with(|| spawn_reaper(self));
        if let Some(waker) = &reaper.waker
            && !idle.is_quiet(&mut Context::from_waker(waker))
        {
            return;
        }
        let peer = self.peer(peer);
        if peer.is_gone {
            return;
        }
        live.pool.put(peer.lane, now_ms, idle);
        live.trim(keep, now_ms);
        live.schedule(keep);
    }

    fn reap(&self, cx: &mut Context<'_>) {
        let keep = &self.keepalive;
        let now_ms = net::now();
        let mut live = self.live.borrow_mut();
        live.pool.retain(|since_ms, idle| {
            now_ms.saturating_sub(since_ms) < keep.timeout_ms && idle.is_quiet(cx)
        });
        live.trim(keep, now_ms);
        if let Some(reaper) = &mut live.reaper {
            reaper.waker = Some(cx.waker().clone());
            reaper.timer.clear();
        }
        live.schedule(keep);
        // A deadline that passed meanwhile is due now: once more round the loop.
        if let Some(reaper) = &live.reaper
            && reaper.timer.poll_expired(cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
    }
}

impl Live {
    /// Closes the oldest idle connections beyond what may stay.
    ///
    /// `keepalive N` bounds what lies idle. When more than N requests are under way at once,
    /// their connections come back in bursts, and closing the surplus would mean opening it
    /// again a moment later; so as many may stay as there were requests at once lately.
    fn trim(&mut self, keep: &Keepalive, now_ms: u64) {
        let room = keep.connections.max(self.load.peak(now_ms)) as usize;
        while self.pool.len() > room {
            self.pool.take_oldest();
        }
    }

    /// Makes sure that the reaper comes in time for the oldest connection, and for the surplus.
    fn schedule(&mut self, keep: &Keepalive) {
        let (Some(reaper), Some(since_ms)) = (&self.reaper, self.pool.oldest_since_ms()) else {
            return;
        };
        let mut due_ms = since_ms.saturating_add(keep.timeout_ms);
        if self.pool.len() > keep.connections as usize {
            due_ms = due_ms.min(self.load.window_ends_ms);
        }
        // It comes early when the oldest one was taken meanwhile: that costs one look.
        if reaper.timer.deadline().is_none_or(|set_ms| due_ms < set_ms) {
            reaper.timer.set(due_ms);
        }
    }
}

/// Starts the one task per group that watches its idle connections: it is woken when one of
/// them is readable, and by a timer. It ends with the group.
fn spawn_reaper(group: &Rc<Group>) -> Reaper {
    let group = Rc::downgrade(group);
    net::spawn(std::future::poll_fn(move |cx| match group.upgrade() {
        Some(group) => {
            group.reap(cx);
            Poll::Pending
        }
        None => Poll::Ready(()),
    }));
    Reaper { timer: Timer::new(), waker: None }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(Reaper { waker: Some(waker), .. }) = &self.live.get_mut().reaper {
            waker.wake_by_ref();
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peers = &self.roster.borrow().peers;
        out.debug_struct("Group").field("name", &self.name).field("peers", peers).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_forgotten_after_two_windows() {
        let mut load = Load::default();
        (0..5).for_each(|_| load.begin(10_000));
        (0..4).for_each(|_| load.end());
        assert_eq!(load.peak(10_999), 5);
        assert_eq!(load.peak(11_000), 5, "the last window counts");
        assert_eq!(load.peak(12_000), 1, "what is under way counts");
        load.end();
        assert_eq!(load.peak(20_000), 0);
    }
}
