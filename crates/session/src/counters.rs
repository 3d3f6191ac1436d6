//! How many connections and requests there were and are, over all workers: what `stub_status`,
//! the API and `prometheus` tell.
//!
//! Every worker writes cells of its own in memory that all share, with plain stores and no lock;
//! who wants to know adds them up. A cell belongs to a process until that is gone: what it had
//! counted stays, what it had under way does not. The memory lives as long as the program, over
//! reloads.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use std::sync::Arc;
use system::shared::{View, Zone, is_dead, own_mark};

/// Processes that are counted apart: workers of all generations that still live. One more is not
/// counted.
const WORKERS: usize = 1024;

/// Names under which something is counted; further ones are not.
const NAMES: usize = 64;
/// Counts of a name.
pub const COUNTS: usize = 15;

system::plain! {
    struct Head {
        /// Workers that died and were replaced.
        respawned: AtomicU64,
        named: [Named; NAMES],
    }

    /// Counts under a name. They are written seldom, so all processes share them.
    struct Named {
        /// The hash of the name; 0 for none.
        name: AtomicU64,
        counts: [AtomicU64; COUNTS],
    }

    /// What one process counts. Two lines of the processor's cache, shared with no other process.
    struct Row {
        /// The mark of the process; 0 for nobody.
        owner: AtomicU64,
        accepted: AtomicU64,
        handled: AtomicU64,
        requests: AtomicU64,
        active: AtomicU64,
        reading: AtomicU64,
        writing: AtomicU64,
        waiting: AtomicU64,
        unused: [u64; 8],
    }
}

/// The sums over all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Those of them that were served rather than dropped for want of room.
    pub handled: u64,
    /// Requests begun since the start.
    pub requests: u64,
    /// Connections with clients that are open.
    pub active: u64,
    /// Requests whose head is being read.
    pub reading: u64,
    /// Requests that are being answered.
    pub writing: u64,
    /// Connections that wait for a request.
    pub waiting: u64,
    /// Workers that died and were replaced.
    pub respawned: u64,
}

static MEMORY: OnceLock<View<Head, Row>> = OnceLock::new();

thread_local! {
    static ROW: Cell<Option<&'static Row>> = const { Cell::new(None) };
}

/// Maps the memory: in the master, before it forks. Without it nothing is counted.
///
/// # Errors
/// As `mmap(2)`.
pub fn prepare() -> std::io::Result<()> {
    if MEMORY.get().is_none() {
        let length = size_of::<Head>() + WORKERS * size_of::<Row>() + 512;
        let zone = Arc::new(Zone::new(length)?);
        if let Ok(view) = zone.view::<Head, Row>() {
            // Nobody else prepares: there is one thread.
            let _ = MEMORY.set(view);
        }
    }
    Ok(())
}

/// Takes a row for this process: at the beginning of a worker.
pub fn enter() {
    let Some(view) = MEMORY.get() else { return };
    let own = own_mark();
    let taken = view.cells().iter().find(|row| {
        let owner = row.owner.load(Ordering::Relaxed);
        let free = owner == 0 || owner == own || is_dead(owner);
        let take = || row.owner.compare_exchange(owner, own, Ordering::AcqRel, Ordering::Relaxed);
        // Only a free row may change hands.
        free && take().is_ok()
    });
    if let Some(row) = taken {
        for gauge in [&row.active, &row.reading, &row.writing, &row.waiting] {
            gauge.store(0, Ordering::Relaxed);
        }
    }
    ROW.set(taken);
}

/// The counts under a name; `None` when nothing is counted, or there are too many names.
pub fn named(name: &str) -> Option<&'static [AtomicU64; COUNTS]> {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let hash = hasher.finish().max(1);
    let found = MEMORY.get()?.header().named.iter().find(|named| {
        let taken = named.name.compare_exchange(0, hash, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(hash)
    });
    found.map(|named| &named.counts)
}

/// The number of this process's row: no other process that lives has it. `None` when nothing is
/// counted.
pub fn row() -> Option<usize> {
    let (view, row) = (MEMORY.get()?, ROW.get()?);
    view.cells().iter().position(|other| std::ptr::eq(other, row))
}

/// The rows of processes that are gone; `None` when nothing is counted.
pub fn dead_rows() -> Option<Vec<usize>> {
    let view = MEMORY.get()?;
    let owners = view.cells().iter().map(|row| row.owner.load(Ordering::Relaxed));
    let used = owners.take_while(|owner| *owner != 0).enumerate();
    Some(used.filter(|(_, owner)| is_dead(*owner)).map(|(row, _)| row).collect())
}

/// Tells that a worker died and is replaced: for the master.
pub fn respawned() {
    if let Some(view) = MEMORY.get() {
        view.header().respawned.fetch_add(1, Ordering::Relaxed);
    }
}

/// The sums at this moment.
pub fn totals() -> Totals {
    let Some(view) = MEMORY.get() else { return Totals::default() };
    let respawned = view.header().respawned.load(Ordering::Relaxed);
    let mut sums = Totals { respawned, ..Totals::default() };
    // Rows are taken from the first on, so none is in use behind one that never was.
    for row in view.cells() {
        let owner = row.owner.load(Ordering::Acquire);
        if owner == 0 {
            break;
        }
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        sums.accepted += read(&row.accepted);
        sums.handled += read(&row.handled);
        sums.requests += read(&row.requests);
        let under_way = read(&row.active) + read(&row.waiting) + read(&row.writing);
        if under_way > 0 && !is_dead(owner) {
            sums.active += read(&row.active);
            sums.reading += read(&row.reading);
            sums.writing += read(&row.writing);
            sums.waiting += read(&row.waiting);
        }
    }
    sums
}

#[inline]
fn add(cell: fn(&Row) -> &AtomicU64, by: i64) {
    if let Some(row) = ROW.get() {
        let cell = cell(row);
        // Nobody else writes it.
        let now = cell.load(Ordering::Relaxed);
        cell.store(now.wrapping_add_signed(by), Ordering::Relaxed);
    }
}

/// A connection was accepted.
#[inline]
pub fn accepted() {
    add(|row| &row.accepted, 1);
}

/// A connection with a client, as long as it lives.
#[derive(Debug)]
pub struct Active(());

impl Active {
    /// One more, which is served.
    #[inline]
    #[expect(clippy::new_without_default, reason = "it counts")]
    pub fn new() -> Active {
        add(|row| &row.handled, 1);
        add(|row| &row.active, 1);
        Active(())
    }
}

impl Drop for Active {
    #[inline]
    fn drop(&mut self) {
        add(|row| &row.active, -1);
    }
}

/// A connection begins to wait for a request.
#[inline]
pub fn waits() {
    add(|row| &row.waiting, 1);
}

/// A connection waits no longer.
#[inline]
pub fn waits_no_longer() {
    add(|row| &row.waiting, -1);
}

/// A request, from its first byte to its end.
#[derive(Debug)]
pub struct Counted {
    is_written: bool,
}

impl Counted {
    /// The head of a request is being read.
    #[inline]
    pub fn reading() -> Counted {
        add(|row| &row.reading, 1);
        Counted { is_written: false }
    }

    /// The head is there, or what should have been one: from now on it is answered, and counts.
    #[inline]
    pub fn write(&mut self) {
        if !self.is_written {
            self.is_written = true;
            add(|row| &row.reading, -1);
            add(|row| &row.writing, 1);
            add(|row| &row.requests, 1);
        }
    }
}

impl Drop for Counted {
    #[inline]
    fn drop(&mut self) {
        match self.is_written {
            true => add(|row| &row.writing, -1),
            false => add(|row| &row.reading, -1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_comes_and_goes() {
        prepare().unwrap();
        enter();
        let before = totals();
        accepted();
        let active = Active::new();
        let mut request = Counted::reading();
        assert_eq!((totals().reading, totals().writing), (before.reading + 1, before.writing));
        request.write();
        request.write();
        waits();
        let now = totals();
        assert_eq!((now.requests, now.writing), (before.requests + 1, before.writing + 1));
        assert_eq!((now.accepted, now.active), (before.accepted + 1, before.active + 1));
        assert_eq!((now.waiting, now.reading), (before.waiting + 1, before.reading));
        waits_no_longer();
        drop((active, request));
        let after = totals();
        assert_eq!((after.active, after.writing, after.waiting), (0, 0, 0));
        assert_eq!((after.handled, after.requests), (before.handled + 1, before.requests + 1));
    }

    #[test]
    fn counts_have_names() {
        prepare().unwrap();
        named("a").unwrap()[3].fetch_add(5, Ordering::Relaxed);
        named("b").unwrap()[3].fetch_add(1, Ordering::Relaxed);
        assert_eq!(named("a").unwrap()[3].load(Ordering::Relaxed), 5);
    }
}
