//! Where a group's balancing state lies: in this worker's memory, or in a zone for all workers.
//!
//! In a zone the state is behind one lock per group, which survives the death of its holder.
//! Besides, each worker counts there what it has under way at each peer, so that the master can
//! take back what a worker that died left counted.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use balance::outlier::{Grade, Sign};
use balance::{
    Ask, Block, Block1k, Block16k, Block64, Block128k, Health, Index, Marks, Members, Memory,
    PeerIndex, State, Took, Tried, Verdict,
};
use session::log::{Level, Log, no_context};
use system::shared::{Guarded, View, Zone};

use crate::book::{Book, Count};
use crate::guard::RetryPlace;
use crate::timeline::What;

/// Workers whose requests under way are counted apart. More than these share one count.
const WORKERS: usize = 128;
/// Counts beside those of the peers: requests that wait, in all workers and in each; what was
/// spent of the retry budget; requests that are being tried again, in all workers and in each.
const BESIDE: usize = 2 * (WORKERS + 2) + 1;

/// The state of a group.
pub(crate) enum Home {
    Own(Box<Memory>),
    Zone(Shared),
}

/// The state in a zone.
pub(crate) struct Shared {
    zone: Box<str>,
    block: AnyBlock,
    /// Who the peers are, and what requests did there.
    pub(crate) book: Book,
    /// How many peers there is room for.
    peers: usize,
    /// The state's generation when it was looked at last.
    seen: Cell<u32>,
    /// Which worker this is; none of those that are counted apart until it is known.
    worker: usize,
}

/// A zone with a block of the size that the group needs.
enum AnyBlock {
    Room64(View<Guarded<Block64>, AtomicU32>),
    Room1k(View<Guarded<Block1k>, AtomicU32>),
    Room16k(View<Guarded<Block16k>, AtomicU32>),
    Room128k(View<Guarded<Block128k>, AtomicU32>),
}

impl Home {
    /// The state in a zone, if it is there.
    pub(crate) fn shared(&self) -> Option<&Shared> {
        match self {
            Home::Own(_) => None,
            Home::Zone(shared) => Some(shared),
        }
    }

    /// The state's generation when it was looked at last; `None` for a state of its own, whose
    /// members stay.
    #[inline]
    pub(crate) fn seen(&self) -> Option<u32> {
        self.shared().map(|shared| shared.seen.get())
    }

    /// Says which worker this process is. Nothing for a state of its own.
    pub(crate) fn enter_worker(&mut self, worker: usize) {
        let Home::Zone(shared) = self else { return };
        // Workers of two configurations may share the memory: a number is theirs alone only
        // among all that live.
        shared.worker = session::counters::row().unwrap_or(worker);
        if session::counters::row().is_some() {
            shared.take_back(shared.worker);
        }
    }

    /// Takes back the requests that a worker had under way when it died.
    pub(crate) fn worker_died(&mut self, worker: usize) {
        let Home::Zone(shared) = self else { return };
        match session::counters::dead_rows() {
            Some(dead) => dead.into_iter().for_each(|row| shared.take_back(row)),
            None => shared.take_back(worker),
        }
    }

    /// Chooses a peer: see [`State::pick`].
    #[inline]
    pub(crate) fn pick(&mut self, ask: &Ask<'_>, tried: &mut Tried) -> Option<PeerIndex> {
        match self {
            Home::Own(memory) => memory.state().pick(ask, tried),
            Home::Zone(shared) => shared.with(|state| {
                let peer = state.pick(ask, tried)?;
                shared.picked(peer);
                Some(peer)
            }),
        }
    }

    /// As [`Home::pick`], by `index`.
    ///
    /// # Errors
    /// There is no index, or it is out of date: the members to make it of.
    pub(crate) fn pick_indexed(
        &mut self,
        ask: &Ask<'_>,
        tried: &mut Tried,
        index: Option<&Index>,
    ) -> Result<Option<PeerIndex>, Members> {
        let ask = Ask { index, ..*ask };
        let mut work = |state: &mut State<'_>| {
            if index.is_none_or(|index| index.generation() != state.generation()) {
                return Err(state.members());
            }
            Ok(state.pick(&ask, tried))
        };
        match self {
            Home::Own(memory) => work(&mut memory.state()),
            Home::Zone(shared) => shared.with(|state| {
                let found = work(state);
                if let Ok(Some(peer)) = found {
                    shared.picked(peer);
                }
                found
            }),
        }
    }

    /// The head of an answer is there: see [`State::answered`].
    pub(crate) fn answered(&mut self, peer: PeerIndex, header_ms: u32, now_ms: u64) {
        self.look(|state| state.answered(peer, header_ms, now_ms));
    }

    /// A peer works: see [`State::proved`].
    pub(crate) fn proved(&mut self, peer: PeerIndex) {
        match self {
            Home::Own(memory) => memory.state().proved(peer),
            Home::Zone(shared) => {
                shared.with(|state| shared.noting(peer, state, |state| state.proved(peer)));
            }
        }
    }

    /// A request at a peer ended; `failed` when it was the peer's fault. `took` says how long it
    /// took, if the algorithm wants to know.
    #[inline]
    pub(crate) fn end(
        &mut self,
        peer: PeerIndex,
        failed: bool,
        took: Option<Took>,
        now_ms: u64,
    ) -> Verdict {
        let work = |state: &mut State<'_>| {
            if let Some(took) = took {
                state.took(peer, took, now_ms);
            }
            if failed {
                return state.failed(peer, now_ms / 1000);
            }
            state.done(peer);
            Verdict::Usable
        };
        match self {
            Home::Own(memory) => work(&mut memory.state()),
            Home::Zone(shared) => {
                let verdict = shared.with(|state| {
                    shared.count(peer, |cell| cell.saturating_sub(1));
                    shared.noting(peer, state, work)
                });
                if failed {
                    shared.tell(peer, Count::Fails, 0, 1);
                }
                if verdict == Verdict::Disabled {
                    shared.tell(peer, Count::Unavailable, 0, 1);
                }
                verdict
            }
        }
    }

    /// Judges how a request ended: see [`State::judge`].
    pub(crate) fn judge(
        &mut self,
        peer: PeerIndex,
        grade: Grade,
        now_ms: u64,
    ) -> Vec<(PeerIndex, Sign)> {
        self.look(|state| state.judge(peer, grade, now_ms))
    }

    /// Whether a peer could be used if it were not full: see [`State::is_busy`].
    pub(crate) fn is_busy(&mut self) -> bool {
        self.look(|state| state.is_busy())
    }

    /// The count of requests that wait in all workers; `None` for a state of its own.
    pub(crate) fn waiting(&mut self) -> Option<WaitingCount<'_>> {
        match self {
            Home::Own(_) => None,
            Home::Zone(shared) => shared.waiting(shared.worker),
        }
    }

    /// See [`State::tries`].
    pub(crate) fn tries(&mut self) -> u32 {
        self.look(|state| state.tries())
    }

    /// What active checks say of a peer.
    pub(crate) fn health(&mut self, peer: PeerIndex) -> Health {
        self.look(|state| state.peers().get(peer as usize).map_or(Health::Well, |p| p.health()))
    }

    /// Whether active checks looked at a peer before.
    pub(crate) fn was_checked(&mut self, peer: PeerIndex) -> bool {
        self.look(|state| state.checks().get(peer as usize).is_some_and(|c| c.made > 0))
    }

    /// See [`State::set_health`].
    pub(crate) fn set_health(&mut self, peer: PeerIndex, health: Health, now_ms: u64) {
        self.look(|state| {
            state.tell_time(now_ms);
            state.set_health(peer, health);
        });
    }

    /// Notes what happened to a peer, where there is room for that.
    pub(crate) fn note(&self, peer: PeerIndex, what: What, reason: &str) {
        if let Some(shared) = self.shared() {
            shared.with(|_| shared.book.note(peer, what, reason));
        }
    }

    /// See [`State::checked`].
    pub(crate) fn checked(&mut self, peer: PeerIndex, passed: bool) {
        self.look(|state| state.checked(peer, passed));
    }

    /// Requests under way at a peer.
    pub(crate) fn conns(&mut self, peer: PeerIndex) -> u32 {
        self.look(|state| state.peers().get(peer as usize).map_or(0, balance::Peer::conns))
    }

    /// See [`State::marks`].
    pub(crate) fn marks(&mut self, now_ms: u64) -> u32 {
        self.look(|state| state.marks(now_ms))
    }

    /// See [`State::marks_of`].
    pub(crate) fn marks_of(&mut self, peer: PeerIndex) -> Marks {
        self.look(|state| state.marks_of(peer))
    }

    /// Whether what began with these counts has to end already.
    pub(crate) fn is_marked_since(&mut self, peer: PeerIndex, then: Marks) -> bool {
        self.look(|state| state.mark_since(peer, then).is_some())
    }

    /// Works on the state.
    pub(crate) fn look<R>(&mut self, work: impl FnOnce(&mut State<'_>) -> R) -> R {
        match self {
            Home::Own(memory) => work(&mut memory.state()),
            Home::Zone(shared) => shared.with(work),
        }
    }
}

/// How much memory a group takes: in few steps, so that it mostly stays the same over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Room64,
    Room1k,
    Room16k,
    Room128k,
}

impl Class {
    /// The least that has room for `peers`, and for more of them in a larger zone: about one
    /// for each kilobyte of `zone_bytes`. `None` for more peers than any has room for.
    pub(crate) fn of(peers: usize, zone_bytes: u64) -> Option<Class> {
        let all = [Class::Room64, Class::Room1k, Class::Room16k, Class::Room128k];
        let wanted = match zone_bytes {
            0..0x10_0000 => Class::Room64,
            0x10_0000..0x100_0000 => Class::Room1k,
            0x100_0000..0x1000_0000 => Class::Room16k,
            _ => Class::Room128k,
        };
        all.into_iter().find(|class| class.room() >= peers.max(wanted.room()))
    }

    /// The most peers, of both tiers together.
    pub(crate) fn room(self) -> usize {
        match self {
            Class::Room64 => Block64::ROOM,
            Class::Room1k => Block1k::ROOM,
            Class::Room16k => Block16k::ROOM,
            Class::Room128k => Block128k::ROOM,
        }
    }

    /// Bytes of a zone for the state.
    pub(crate) fn state_bytes(self) -> usize {
        let block = match self {
            Class::Room64 => size_of::<Guarded<Block64>>(),
            Class::Room1k => size_of::<Guarded<Block1k>>(),
            Class::Room16k => size_of::<Guarded<Block16k>>(),
            Class::Room128k => size_of::<Guarded<Block128k>>(),
        };
        let counters = (WORKERS + 1) * self.room() + BESIDE;
        block + counters * size_of::<AtomicU32>() + 256
    }

    /// Bytes of a zone for the book.
    pub(crate) fn book_bytes(self) -> usize {
        Book::bytes(self.room())
    }
}

fn attach<B: Block>(
    zone: &Arc<Zone>,
    fresh: &mut dyn FnMut() -> Memory,
) -> Option<View<Guarded<B>, AtomicU32>> {
    let view = zone.view::<Guarded<B>, AtomicU32>().ok()?;
    {
        let mut held = view.header().lock().or_repair(|block| block.state().repair());
        if held.state().is_void() && !held.load(&mut fresh()) {
            return None;
        }
    }
    Some(view)
}

impl Shared {
    /// The state and the book in two zones of that class. In fresh memory the state begins as
    /// what `fresh` makes. `None` when the memory holds something else.
    pub(crate) fn attach(
        name: &str,
        class: Class,
        state: &Arc<Zone>,
        book: &Arc<Zone>,
        fresh: &mut dyn FnMut() -> Memory,
    ) -> Option<Shared> {
        let block = match class {
            Class::Room64 => AnyBlock::Room64(attach(state, fresh)?),
            Class::Room1k => AnyBlock::Room1k(attach(state, fresh)?),
            Class::Room16k => AnyBlock::Room16k(attach(state, fresh)?),
            Class::Room128k => AnyBlock::Room128k(attach(state, fresh)?),
        };
        let (zone, peers) = (name.into(), class.room());
        let book = Book::open(book, peers)?;
        Some(Shared { zone, block, book, peers, seen: Cell::new(0), worker: WORKERS })
    }

    /// A request was given to a peer. Under the lock.
    fn picked(&self, peer: PeerIndex) {
        self.count(peer, |cell| cell.wrapping_add(1));
        self.tell(peer, Count::Requests, 0, 1);
        let (seconds, ms) = net::wall();
        self.book.selected(self.worker, peer, seconds * 1000 + u64::from(ms));
    }

    /// Does something that may take a peer out for its failures, or take it back: then it is
    /// noted. Under the lock.
    fn noting<R>(
        &self,
        peer: PeerIndex,
        state: &mut State<'_>,
        work: impl FnOnce(&mut State<'_>) -> R,
    ) -> R {
        let has_failed = |state: &State<'_>| {
            state.peers().get(peer as usize).is_some_and(balance::Peer::has_failed)
        };
        let before = has_failed(state);
        let done = work(state);
        match (before, has_failed(state)) {
            (false, true) => {
                let options = state.peers()[peer as usize].options();
                let (fails, seconds) = (options.max_fails, options.fail_timeout);
                let reason = format!("{fails} failed within {seconds} s");
                self.book.note(peer, What::Unavailable, &reason);
            }
            (true, false) => self.book.note(peer, What::Recovered, "a request was answered"),
            _ => {}
        }
        done
    }

    /// Counts what a request did at a peer.
    #[inline]
    pub(crate) fn tell(&self, peer: PeerIndex, what: Count, offset: usize, by: u64) {
        self.book.add(self.worker, peer, what, offset, by);
    }

    /// Takes back what a worker had under way.
    fn take_back(&self, worker: usize) {
        if worker >= WORKERS {
            return;
        }
        for peer in 0..self.peers as PeerIndex {
            let Some(cell) = self.cell(worker, peer) else { return };
            if cell.load(Ordering::Relaxed) > 0 {
                let left = cell.swap(0, Ordering::Relaxed);
                self.with(|state| (0..left).for_each(|_| state.done(peer)));
            }
        }
        if let Some(WaitingCount { total, own }) = self.waiting(worker) {
            total.fetch_sub(own.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        if let Some(RetryPlace { at_once, of_worker: Some(own), .. }) = self.retries_of(worker) {
            at_once.fetch_sub(own.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut State<'_>) -> R) -> R {
        let seen = &self.seen;
        let work = |state: &mut State<'_>| {
            let done = work(state);
            seen.set(state.generation());
            done
        };
        match &self.block {
            AnyBlock::Room64(view) => self.locked(view.header(), work),
            AnyBlock::Room1k(view) => self.locked(view.header(), work),
            AnyBlock::Room16k(view) => self.locked(view.header(), work),
            AnyBlock::Room128k(view) => self.locked(view.header(), work),
        }
    }

    fn locked<B: Block, R>(&self, block: &Guarded<B>, work: impl FnOnce(&mut State<'_>) -> R) -> R {
        let mut held = block.lock().or_repair(|block| {
            // Whoever died may have counted a request here or there only. What it has in its own
            // count is taken back when the master hears of its death.
            block.state().repair_with(|peer| {
                let counts = (0..=WORKERS).filter_map(|worker| self.cell(worker, peer));
                counts.map(|cell| cell.load(Ordering::Relaxed)).sum()
            });
            let zone = &self.zone;
            let message =
                format_args!("zone \"{zone}\": a process died inside, its turns start anew");
            Log::process().write(Level::Alert, None, message, &no_context);
        });
        work(&mut held.state())
    }

    /// What a worker has under way at a peer; all that are beyond the last one share a count.
    fn cell(&self, worker: usize, peer: PeerIndex) -> Option<&AtomicU32> {
        self.cells().get(worker.min(WORKERS) * self.peers + peer as usize)
    }

    /// Each worker's count for each peer; behind them how many requests wait, in all workers and
    /// in each.
    fn cells(&self) -> &[AtomicU32] {
        match &self.block {
            AnyBlock::Room64(view) => view.cells(),
            AnyBlock::Room1k(view) => view.cells(),
            AnyBlock::Room16k(view) => view.cells(),
            AnyBlock::Room128k(view) => view.cells(),
        }
    }

    /// How many requests wait for a peer.
    fn waiting(&self, worker: usize) -> Option<WaitingCount<'_>> {
        let cells = self.cells().get((WORKERS + 1) * self.peers..)?;
        Some(WaitingCount { total: cells.first()?, own: cells.get(1 + worker.min(WORKERS))? })
    }

    /// The retries of all workers.
    pub(crate) fn retries(&self) -> Option<RetryPlace<'_>> {
        self.retries_of(self.worker)
    }

    fn retries_of(&self, worker: usize) -> Option<RetryPlace<'_>> {
        let cells = self.cells().get((WORKERS + 1) * self.peers + WORKERS + 2..)?;
        let [spent, at_once, of_workers @ ..] = cells else { return None };
        Some(RetryPlace { spent, at_once, of_worker: of_workers.get(worker.min(WORKERS)) })
    }

    /// Changes this worker's count. Under the lock, since some workers may share one.
    fn count(&self, peer: PeerIndex, change: impl FnOnce(u32) -> u32) {
        if let Some(cell) = self.cell(self.worker, peer) {
            cell.store(change(cell.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }
}

/// How many requests wait for a peer, in all workers and in this one.
pub(crate) struct WaitingCount<'a> {
    total: &'a AtomicU32,
    own: &'a AtomicU32,
}

impl WaitingCount<'_> {
    /// One more, unless there are `most`.
    pub(crate) fn enter(&self, most: u32) -> bool {
        let more = |total| (total < most).then_some(total + 1);
        let entered = self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if entered {
            self.own.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// One less.
    pub(crate) fn leave(&self) {
        self.own.fetch_sub(1, Ordering::Relaxed);
        self.total.fetch_sub(1, Ordering::Relaxed);
    }
}
