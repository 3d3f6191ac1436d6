//! Where a group's balancing state lies: in this worker's memory, or in a zone for all workers.
//!
//! In a zone the state is behind one lock per group, which survives the death of its holder.
//! Besides, each worker counts there what it has under way at each peer, so that the master can
//! take back what a worker that died left counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use balance::{
    Ask, Block, Block1k, Block16k, Block64, Block128k, Health, Index, Members, Memory, PeerIndex,
    State, Took, Tried, Verdict,
};
use session::log::{Level, Log, no_context};
use system::shared::{Guarded, View, Zone};

/// Workers whose requests under way are counted apart. More than these share one count.
const WORKERS: usize = 128;

/// The state of a group.
pub(crate) enum Home {
    Own(Memory),
    Zone(Shared),
}

/// The state in a zone.
pub(crate) struct Shared {
    zone: Box<str>,
    block: AnyBlock,
    peers: usize,
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
    /// Moves the state to a fresh zone. Nothing changes when it is in one already.
    ///
    /// # Errors
    /// What to tell the user: the system has no such memory, or the group is too large.
    pub(crate) fn share(&mut self, zone: &str) -> Result<(), String> {
        let Home::Own(memory) = self else { return Ok(()) };
        let peers = memory.peers().len();
        let fits = |room| peers <= room;
        let block = match () {
            () if fits(Block64::ROOM) => AnyBlock::Room64(open(memory)?),
            () if fits(Block1k::ROOM) => AnyBlock::Room1k(open(memory)?),
            () if fits(Block16k::ROOM) => AnyBlock::Room16k(open(memory)?),
            () if fits(Block128k::ROOM) => AnyBlock::Room128k(open(memory)?),
            () => return Err(format!("zone \"{zone}\" is too small")),
        };
        *self = Home::Zone(Shared { zone: zone.into(), block, peers, worker: WORKERS });
        Ok(())
    }

    /// Says which worker this process is. Nothing for a state of its own.
    pub(crate) fn enter_worker(&mut self, worker: usize) {
        if let Home::Zone(shared) = self {
            shared.worker = worker;
        }
    }

    /// Takes back the requests that a worker had under way when it died.
    pub(crate) fn worker_died(&mut self, worker: usize) {
        let Home::Zone(shared) = self else { return };
        if worker >= WORKERS {
            return;
        }
        for peer in 0..shared.peers as PeerIndex {
            let Some(cell) = shared.cell(worker, peer) else { return };
            let left = cell.swap(0, Ordering::Relaxed);
            if left > 0 {
                shared.with(|state| (0..left).for_each(|_| state.done(peer)));
            }
        }
        if let Some(WaitingCount { total, own }) = shared.waiting(worker) {
            total.fetch_sub(own.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Chooses a peer: see [`State::pick`].
    #[inline]
    pub(crate) fn pick(&mut self, ask: &Ask<'_>, tried: &mut Tried) -> Option<PeerIndex> {
        match self {
            Home::Own(memory) => memory.state().pick(ask, tried),
            Home::Zone(shared) => shared.with(|state| {
                let peer = state.pick(ask, tried)?;
                shared.count(peer, |cell| cell.wrapping_add(1));
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
                    shared.count(peer, |cell| cell.wrapping_add(1));
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
        self.look(|state| state.proved(peer));
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
            Home::Zone(shared) => shared.with(|state| {
                shared.count(peer, |cell| cell.saturating_sub(1));
                work(state)
            }),
        }
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

    /// Whether it lies in a zone.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Home::Zone(_))
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
    pub(crate) fn set_health(&mut self, peer: PeerIndex, health: Health) {
        self.look(|state| state.set_health(peer, health));
    }

    /// See [`State::checked`].
    pub(crate) fn checked(&mut self, peer: PeerIndex, passed: bool) {
        self.look(|state| state.checked(peer, passed));
    }

    /// Requests under way at a peer.
    pub(crate) fn conns(&mut self, peer: PeerIndex) -> u32 {
        self.look(|state| state.peers().get(peer as usize).map_or(0, balance::Peer::conns))
    }

    fn look<R>(&mut self, work: impl FnOnce(&mut State<'_>) -> R) -> R {
        match self {
            Home::Own(memory) => work(&mut memory.state()),
            Home::Zone(shared) => shared.with(work),
        }
    }
}

fn open<B: Block>(memory: &mut Memory) -> Result<View<Guarded<B>, AtomicU32>, String> {
    let counters = (WORKERS + 1) * memory.peers().len() + WORKERS + 2;
    let length = size_of::<Guarded<B>>() + counters * size_of::<AtomicU32>() + 256;
    let zone = Zone::new(length).map_err(|error| format!("mmap() of {length} bytes: {error}"))?;
    let view = Arc::new(zone).view::<Guarded<B>, AtomicU32>().map_err(|error| error.to_string())?;
    // The zone is fresh, so nobody else can hold its lock or have died with it.
    view.header().lock().or_repair(|_| {}).load(memory);
    Ok(view)
}

impl Shared {
    fn with<R>(&self, work: impl FnOnce(&mut State<'_>) -> R) -> R {
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
