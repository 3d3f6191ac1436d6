//! What a zone holds beside a group's balancing state: who stands at which place, and what
//! requests did there.
//!
//! Records are written and read under the lock of the state. Statistics are counted by each worker
//! in lines of its own and added up by whoever asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use balance::PeerIndex;
use system::shared::{View, Zone};

use crate::records::{self, LINES, Line, Origin, Record};
use crate::timeline::{self, Event, What};

system::plain! {
    struct Head {
        /// The number of the next peer.
        next_id: AtomicU64,
        /// Counts changes of records.
        version: AtomicU64,
    }
}

/// Workers whose statistics are counted apart; further ones share the last row. Fewer in a large
/// group, whose peers are seldom the same at the same time.
const fn rows(room: usize) -> usize {
    if room > 2048 { 4 } else { 32 }
}

/// Lines of one worker's statistics of one peer.
const STATS: usize = 2;

/// The book of one group.
pub(crate) struct Book {
    view: View<Head, Line>,
    room: usize,
}

/// What requests did at a peer, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests that were given to it.
    pub requests: u64,
    /// Answers by class, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Bytes sent to it and received from it.
    pub sent: u64,
    pub received: u64,
    /// Attempts that failed.
    pub fails: u64,
    /// How often its failures took it out.
    pub unavailable: u64,
    /// When it was chosen last, in milliseconds since 1970; 0 for never.
    pub selected: u64,
    /// The sums of the milliseconds to the heads and to the ends of its answers.
    pub header_ms: u64,
    pub response_ms: u64,
}

/// What is counted, by its place in a worker's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Requests = 0,
    /// Of 1xx; those of the other classes follow.
    Responses = 1,
    Sent = 6,
    Received = 7,
    Fails = 8,
    Unavailable = 9,
    HeaderMs = 10,
    ResponseMs = 11,
    Selected = 12,
}

impl Book {
    /// Bytes of memory for so many peers.
    pub(crate) fn bytes(room: usize) -> usize {
        let lines = room * (LINES + rows(room) * STATS + timeline::LINES);
        lines * size_of::<Line>() + size_of::<Head>() + 256
    }

    /// The book in a zone of that many bytes; `None` when it holds something else.
    pub(crate) fn open(zone: &Arc<Zone>, room: usize) -> Option<Book> {
        let view = zone.view::<Head, Line>().ok()?;
        let lines = room * (LINES + rows(room) * STATS + timeline::LINES);
        (view.cells().len() >= lines).then_some(Book { view, room })
    }

    /// A number that no peer of the group had.
    pub(crate) fn next_id(&self) -> u64 {
        self.view.header().next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn lines(&self, place: PeerIndex) -> &[Line] {
        let at = place as usize * LINES;
        match (place as usize) < self.room {
            true => &self.view.cells()[at..at + LINES],
            false => &[],
        }
    }

    /// Who stands at a place. Under the lock.
    pub(crate) fn read(&self, place: PeerIndex) -> Option<Record> {
        records::load(self.lines(place))
    }

    /// The number of who stands at a place. Under the lock.
    pub(crate) fn id(&self, place: PeerIndex) -> Option<u64> {
        records::id(self.lines(place))
    }

    /// Where the one at a place comes from, and its line. Under the lock.
    pub(crate) fn origin(&self, place: PeerIndex) -> Option<(Origin, u64)> {
        records::origin(self.lines(place))
    }

    /// The version of the record at a place. Under the lock.
    pub(crate) fn version(&self, place: PeerIndex) -> Option<u64> {
        records::version(self.lines(place))
    }

    /// Writes who stands at a place from now on. Under the lock.
    pub(crate) fn write(&self, place: PeerIndex, record: Record) {
        let version = self.view.header().version.fetch_add(1, Ordering::Relaxed) + 1;
        records::store(self.lines(place), &Record { version, ..record });
    }

    /// Nobody stands at a place any more. Under the lock.
    pub(crate) fn clear(&self, place: PeerIndex) {
        records::clear(self.lines(place));
    }

    fn counts(&self, row: usize, place: PeerIndex) -> &[Line] {
        let row = row.min(rows(self.room) - 1);
        let at = self.room * LINES + (row * self.room + place as usize) * STATS;
        match (place as usize) < self.room {
            true => &self.view.cells()[at..at + STATS],
            false => &[],
        }
    }

    #[inline]
    fn count(&self, row: usize, place: PeerIndex, at: usize) -> Option<&AtomicU64> {
        self.counts(row, place).get(at / 8).map(|line| &line.words[at % 8])
    }

    /// Counts for a worker.
    #[inline]
    pub(crate) fn add(&self, row: usize, place: PeerIndex, what: Count, offset: usize, by: u64) {
        if let Some(count) = self.count(row, place, what as usize + offset) {
            count.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Notes the latest moment.
    #[inline]
    pub(crate) fn selected(&self, row: usize, place: PeerIndex, when_ms: u64) {
        if let Some(cell) = self.count(row, place, Count::Selected as usize) {
            cell.store(when_ms, Ordering::Relaxed);
        }
    }

    /// Forgets what was counted for a place: somebody else stands there now.
    pub(crate) fn forget(&self, place: PeerIndex) {
        for row in 0..rows(self.room) {
            let words = self.counts(row, place).iter().flat_map(|line| &line.words);
            words.for_each(|count| count.store(0, Ordering::Relaxed));
        }
    }

    fn events_at(&self, place: PeerIndex) -> &[Line] {
        let behind = self.room * (LINES + rows(self.room) * STATS);
        let at = behind + place as usize * timeline::LINES;
        match (place as usize) < self.room {
            true => &self.view.cells()[at..at + timeline::LINES],
            false => &[],
        }
    }

    /// Notes what happened to the peer at a place. Under the lock.
    pub(crate) fn note(&self, place: PeerIndex, what: What, reason: &str) {
        let (seconds, ms) = net::wall();
        timeline::note(self.events_at(place), seconds * 1000 + u64::from(ms), what, reason);
    }

    /// What happened to the peer at a place, the oldest first. Under the lock.
    pub(crate) fn events(&self, place: PeerIndex) -> Vec<Event> {
        timeline::read(self.events_at(place))
    }

    /// Forgets what happened: somebody else stands there now. Under the lock.
    pub(crate) fn forget_events(&self, place: PeerIndex) {
        timeline::clear(self.events_at(place));
    }

    /// The sums for a place.
    pub(crate) fn statistics(&self, place: PeerIndex) -> Statistics {
        let mut sums = [0u64; 12];
        let mut selected = 0;
        for row in 0..rows(self.room) {
            let words = self.counts(row, place).iter().flat_map(|line| &line.words);
            for (at, count) in words.enumerate() {
                let count = count.load(Ordering::Relaxed);
                match sums.get_mut(at) {
                    Some(sum) => *sum += count,
                    None if at == Count::Selected as usize => selected = count.max(selected),
                    None => {}
                }
            }
        }
        let sum = |what: Count| sums[what as usize];
        Statistics {
            requests: sum(Count::Requests),
            responses: [sums[1], sums[2], sums[3], sums[4], sums[5]],
            sent: sum(Count::Sent),
            received: sum(Count::Received),
            fails: sum(Count::Fails),
            unavailable: sum(Count::Unavailable),
            selected,
            header_ms: sum(Count::HeaderMs),
            response_ms: sum(Count::ResponseMs),
        }
    }
}
