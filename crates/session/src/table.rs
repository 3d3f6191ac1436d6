//! Values by key in a zone: a hash table and a list from the newest to the oldest entry, in
//! memory of a fixed size that all workers share.
//!
//! A zone is cut into shards, each with a lock, a table and a list of its own, so that workers
//! seldom wait for one another. A shard is an array of cells of 64 bytes which refer to one
//! another by number; an entry takes one, and more when its key is long. Where a cell is changed
//! its shard is locked; the atomics are for the compiler's peace only and cost nothing.
//!
//! When a process dies inside a lock, the next one empties that shard. What the values mean is
//! for `limit_req` and `limit_conn` to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;
use system::shared::{Guarded, Held, View, Zone, ZoneError};

use crate::log::{Level, Log, no_context};

/// Shards of a large zone.
const SHARDS: usize = 64;
/// Cells that make it worth having one more shard.
const SHARD_CELLS: usize = 4096;
/// Decisions that a table counts.
pub const TALLIES: usize = 5;
/// 32-bit words in a cell.
const WORDS: usize = 16;

system::plain! {
    /// What stands at the start of the zone.
    struct Header {
        /// The hash function's secret; zeroes until the first use.
        secret: [AtomicU64; 2],
        /// How often requests met with each decision; which is which, says the table's user.
        tallies: [AtomicU64; TALLIES],
        shards: [Guarded<Shard>; SHARDS],
    }

    /// The state of one shard. Cells are counted from 1; 0 is none.
    struct Shard {
        newest: u32,
        oldest: u32,
        /// The first of the cells that were given back, linked by their first word.
        free: u32,
        /// How many cells were ever in use.
        fresh: u32,
        /// Counts entries, so that a reference to one that is gone is found out.
        serial: u32,
        entries: u32,
    }

    struct Cell {
        words: [AtomicU32; WORDS],
    }
}

/// The words of an entry's first cell.
mod word {
    pub(super) const HASH: usize = 0;
    pub(super) const LENGTH: usize = 1;
    /// The next entry of the same bucket.
    pub(super) const CHAIN: usize = 2;
    pub(super) const NEWER: usize = 3;
    pub(super) const OLDER: usize = 4;
    /// The cell with the rest of the key.
    pub(super) const REST: usize = 5;
    pub(super) const SERIAL: usize = 6;
    /// Two numbers of 64 bits.
    pub(super) const VALUES: usize = 7;
    pub(super) const KEY: usize = 11;
}

/// Bytes of the key in an entry's first cell.
const INLINE: usize = (WORDS - word::KEY) * 4;
/// Bytes of the key in each further one; its first word leads to the next.
const MORE: usize = (WORDS - 1) * 4;
/// Buckets in a cell.
const BUCKETS: usize = WORDS;

/// A table in a zone. Cheap to clone.
#[derive(Clone)]
pub struct Table {
    view: View<Header, Cell>,
    shards: usize,
    /// Cells of one shard: those with buckets, then those for entries.
    bucket_cells: usize,
    entry_cells: usize,
}

/// A reference to an entry that outlives the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    hash: u64,
    cell: u32,
    serial: u32,
}

impl Table {
    /// Makes a fresh zone ready. The master does so, before it forks: two processes must not draw
    /// the hash function's secret at the same time.
    ///
    /// # Errors
    /// The zone is too small.
    pub fn prepare(zone: &Arc<Zone>) -> Result<(), ZoneError> {
        Table::new(zone).map(drop)
    }

    /// The table in `zone`, which is empty at the first use.
    ///
    /// # Errors
    /// The zone is too small or holds something else.
    pub fn new(zone: &Arc<Zone>) -> Result<Table, ZoneError> {
        let view = zone.view::<Header, Cell>()?;
        let cells = view.cells().len();
        let shards = (cells / SHARD_CELLS).clamp(1, SHARDS);
        let each = cells / shards;
        // One bucket for each entry.
        let bucket_cells = each.div_ceil(BUCKETS + 1).max(1);
        let entry_cells = each.saturating_sub(bucket_cells);
        let table = Table { view, shards, bucket_cells, entry_cells };
        table.begin();
        Ok(table)
    }

    /// Draws the hash function's secret at the first use.
    fn begin(&self) {
        let [first, second] = &self.view.header().secret;
        if first.load(Ordering::Relaxed) == 0 {
            second.store(crate::random::u64(), Ordering::Relaxed);
            first.store(crate::random::u64() | 1, Ordering::Relaxed);
        }
    }

    /// Counts a decision.
    #[inline]
    pub fn tally(&self, decision: usize) {
        if let Some(tally) = self.view.header().tallies.get(decision) {
            tally.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each decision was counted.
    pub fn tallies(&self) -> [u64; TALLIES] {
        std::array::from_fn(|at| self.view.header().tallies[at].load(Ordering::Relaxed))
    }

    /// The hash of a key in this table.
    pub fn hash(&self, key: &[u8]) -> u64 {
        let [first, second] = &self.view.header().secret;
        let (first, second) = (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write(key);
        hasher.finish()
    }

    /// Locks the shard of a hash. `zone` is its name, for the message about a process that died
    /// inside; the shard is empty then.
    pub fn lock(&self, hash: u64, zone: &str) -> Entries<'_> {
        self.lock_shard((hash >> 32) as usize % self.shards, zone)
    }

    /// Locks each shard in turn.
    pub fn each_shard(&self, zone: &str, mut work: impl FnMut(&mut Entries<'_>)) {
        for number in 0..self.shards {
            work(&mut self.lock_shard(number, zone));
        }
    }

    fn lock_shard(&self, number: usize, zone: &str) -> Entries<'_> {
        let each = self.bucket_cells + self.entry_cells;
        let cells = &self.view.cells()[number * each..(number + 1) * each];
        let (buckets, cells) = cells.split_at(self.bucket_cells);
        let guarded = &self.view.header().shards[number];
        let shard = guarded.lock().or_repair(|shard| {
            reset(shard, buckets);
            let message =
                format_args!("zone \"{zone}\": a process died inside, its entries start anew");
            Log::process().write(Level::Alert, None, message, &no_context);
        });
        Entries { shard, buckets, cells }
    }
}

/// Empties a shard whose links cannot be trusted. The serial number goes on, so that references
/// to what was there are found out.
fn reset(shard: &mut Shard, buckets: &[Cell]) {
    for cell in buckets {
        cell.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
    *shard = Shard {
        newest: 0,
        oldest: 0,
        free: 0,
        fresh: 0,
        serial: shard.serial.wrapping_add(1),
        entries: 0,
    };
}

/// The entries of one shard while it is locked. Numbers of entries and cells are valid as long
/// as nothing is removed.
pub struct Entries<'t> {
    shard: Held<'t, Shard>,
    buckets: &'t [Cell],
    cells: &'t [Cell],
}

impl Entries<'_> {
    /// How many entries the shard has.
    pub fn len(&self) -> usize {
        self.shard.entries as usize
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.shard.entries == 0
    }

    /// The entry of `key`.
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let short = hash as u32;
        let mut at = self.bucket(short).load(Ordering::Relaxed);
        while at != 0 {
            if self.get(at, word::HASH) == short && self.has_key(at, key) {
                return Some(at);
            }
            at = self.get(at, word::CHAIN);
        }
        None
    }

    /// Adds an entry, the newest one, with values of zero. The key must not be there. `None`
    /// when there is no room.
    pub fn insert(&mut self, hash: u64, key: &[u8]) -> Option<u32> {
        let at = self.take_key(key)?;
        let shard = &mut *self.shard;
        shard.serial = shard.serial.wrapping_add(1);
        shard.entries += 1;
        let serial = shard.serial;
        let short = hash as u32;
        let first = self.bucket(short).load(Ordering::Relaxed);
        self.set(at, word::HASH, short);
        self.set(at, word::LENGTH, key.len() as u32);
        self.set(at, word::CHAIN, first);
        self.set(at, word::SERIAL, serial);
        self.set_value(at, 0, 0);
        self.set_value(at, 1, 0);
        self.bucket(short).store(at, Ordering::Relaxed);
        self.link_newest(at);
        Some(at)
    }

    /// Makes an entry the newest one.
    pub fn touch(&mut self, at: u32) {
        if self.shard.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    /// The entry that was not touched for the longest time.
    pub fn oldest(&self) -> Option<u32> {
        Some(self.shard.oldest).filter(|at| *at != 0)
    }

    /// The next newer entry.
    pub fn newer(&self, at: u32) -> Option<u32> {
        Some(self.get(at, word::NEWER)).filter(|at| *at != 0)
    }

    /// Removes an entry.
    pub fn remove(&mut self, at: u32) {
        let bucket = self.bucket(self.get(at, word::HASH));
        let after = self.get(at, word::CHAIN);
        let mut link = bucket.load(Ordering::Relaxed);
        if link == at {
            bucket.store(after, Ordering::Relaxed);
        }
        while link != at && link != 0 {
            let next = self.get(link, word::CHAIN);
            if next == at {
                self.set(link, word::CHAIN, after);
            }
            link = next;
        }
        self.unlink(at);
        self.shard.entries -= 1;
        // A reference must not take what comes next for this entry.
        self.set(at, word::SERIAL, 0);
        let mut rest = self.get(at, word::REST);
        self.give_back(at);
        while rest != 0 {
            let next = self.get(rest, 0);
            self.give_back(rest);
            rest = next;
        }
    }

    /// Value 0 or 1 of an entry.
    pub fn value(&self, at: u32, n: usize) -> u64 {
        let low = self.get(at, word::VALUES + 2 * n);
        let high = self.get(at, word::VALUES + 2 * n + 1);
        u64::from(high) << 32 | u64::from(low)
    }

    /// Sets value 0 or 1 of an entry.
    pub fn set_value(&mut self, at: u32, n: usize, value: u64) {
        self.set(at, word::VALUES + 2 * n, value as u32);
        self.set(at, word::VALUES + 2 * n + 1, (value >> 32) as u32);
    }

    /// A reference to an entry that may be kept beyond the lock; see [`Entries::resolve`].
    pub fn reference(&self, at: u32, hash: u64) -> Reference {
        Reference { hash, cell: at, serial: self.get(at, word::SERIAL) }
    }

    /// The entry of a reference, unless it is gone.
    pub fn resolve(&self, reference: Reference) -> Option<u32> {
        let Reference { hash, cell, serial } = reference;
        let alive = cell != 0
            && cell <= self.shard.fresh
            && self.get(cell, word::SERIAL) == serial
            && self.get(cell, word::HASH) == hash as u32;
        alive.then_some(cell)
    }

    /// Appends the key of an entry to `out`.
    pub fn key(&self, at: u32, out: &mut Vec<u8>) {
        let end = out.len() + self.get(at, word::LENGTH) as usize;
        let mut from = word::KEY;
        let mut cell = at;
        let mut next = self.get(at, word::REST);
        while cell != 0 && out.len() < end {
            for n in from..WORDS {
                out.extend_from_slice(&self.get(cell, n).to_le_bytes());
            }
            cell = next;
            from = 1;
            next = if cell == 0 { 0 } else { self.get(cell, 0) };
        }
        out.truncate(end);
    }

    /// A cell for the feature's own use; it belongs to no entry. `None` when there is no room.
    pub fn take(&mut self) -> Option<u32> {
        let shard = &mut *self.shard;
        if shard.free != 0 {
            let at = shard.free;
            self.shard.free = self.get(at, 0);
            return Some(at);
        }
        if shard.fresh as usize == self.cells.len() {
            return None;
        }
        shard.fresh += 1;
        let at = shard.fresh;
        // It may hold an entry from before a process died inside.
        self.set(at, word::SERIAL, 0);
        Some(at)
    }

    /// Gives a cell back.
    pub fn give_back(&mut self, at: u32) {
        self.set(at, 0, self.shard.free);
        // Words of keys must not look like an entry's serial number.
        self.set(at, word::SERIAL, 0);
        self.shard.free = at;
    }

    /// A word of a cell.
    pub fn get(&self, at: u32, n: usize) -> u32 {
        // Cells are counted from 1, and every number in a shard was given out by it.
        self.cells[at as usize - 1].words[n].load(Ordering::Relaxed)
    }

    /// Sets a word of a cell.
    pub fn set(&mut self, at: u32, n: usize, value: u32) {
        self.cells[at as usize - 1].words[n].store(value, Ordering::Relaxed);
    }

    fn bucket(&self, hash: u32) -> &AtomicU32 {
        let n = hash as usize % (self.buckets.len() * BUCKETS);
        &self.buckets[n / BUCKETS].words[n % BUCKETS]
    }

    /// Cells with the key in them, linked.
    fn take_key(&mut self, key: &[u8]) -> Option<u32> {
        let at = self.take()?;
        self.set(at, word::REST, 0);
        let (inline, mut rest) = key.split_at(key.len().min(INLINE));
        self.write(at, word::KEY, inline);
        let (mut last, mut link) = (at, word::REST);
        while !rest.is_empty() {
            let Some(cell) = self.take() else {
                self.give_back_key(at);
                return None;
            };
            let (part, after) = rest.split_at(rest.len().min(MORE));
            self.set(cell, 0, 0);
            self.write(cell, 1, part);
            self.set(last, link, cell);
            (last, link, rest) = (cell, 0, after);
        }
        Some(at)
    }

    fn give_back_key(&mut self, at: u32) {
        let mut rest = self.get(at, word::REST);
        self.give_back(at);
        while rest != 0 {
            let next = self.get(rest, 0);
            self.give_back(rest);
            rest = next;
        }
    }

    /// Writes bytes into the words of a cell from word `from` on; the last one is filled up with
    /// zeroes.
    fn write(&mut self, at: u32, from: usize, bytes: &[u8]) {
        for (n, part) in bytes.chunks(4).enumerate() {
            self.set(at, from + n, le_word(part));
        }
    }

    fn has_key(&self, at: u32, key: &[u8]) -> bool {
        if self.get(at, word::LENGTH) as usize != key.len() {
            return false;
        }
        let (inline, mut rest) = key.split_at(key.len().min(INLINE));
        if !self.holds(at, word::KEY, inline) {
            return false;
        }
        let mut cell = self.get(at, word::REST);
        while !rest.is_empty() && cell != 0 {
            let (part, after) = rest.split_at(rest.len().min(MORE));
            if !self.holds(cell, 1, part) {
                return false;
            }
            rest = after;
            cell = self.get(cell, 0);
        }
        rest.is_empty()
    }

    fn holds(&self, at: u32, from: usize, bytes: &[u8]) -> bool {
        bytes.chunks(4).enumerate().all(|(n, part)| self.get(at, from + n) == le_word(part))
    }

    fn link_newest(&mut self, at: u32) {
        let newest = self.shard.newest;
        self.set(at, word::NEWER, 0);
        self.set(at, word::OLDER, newest);
        match newest {
            0 => self.shard.oldest = at,
            newest => self.set(newest, word::NEWER, at),
        }
        self.shard.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.get(at, word::NEWER), self.get(at, word::OLDER));
        match newer {
            0 => self.shard.newest = older,
            newer => self.set(newer, word::OLDER, older),
        }
        match older {
            0 => self.shard.oldest = newer,
            older => self.set(older, word::NEWER, newer),
        }
    }
}

impl Reference {
    /// The hash of the entry's key, which says where to lock.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

fn le_word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(size: usize) -> Table {
        Table::new(&Arc::new(Zone::new(size).unwrap())).unwrap()
    }

    fn key(n: usize) -> Vec<u8> {
        // Lengths on both sides of every limit.
        let lengths = [0, 1, 3, 4, 19, 20, 21, 79, 80, 81, 140, 200, 1000];
        let mut key = vec![b'k'; lengths[n % lengths.len()]];
        key.extend_from_slice(n.to_string().as_bytes());
        key
    }

    #[test]
    fn a_table_agrees_with_a_model() {
        let table = table(64 * 1024);
        let mut model: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut seed = 7_u64;
        for turn in 0..20_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = key((seed >> 33) as usize % 300);
            let hash = table.hash(&key);
            let mut entries = table.lock(hash, "z");
            let found = entries.find(hash, &key);
            let at_model = model.iter().position(|(known, _)| *known == key);
            assert_eq!(found.is_some(), at_model.is_some(), "turn {turn}");
            match (found, at_model) {
                (Some(at), Some(n)) if seed & 1 == 0 => {
                    assert_eq!(entries.value(at, 1), model[n].1);
                    entries.remove(at);
                    model.remove(n);
                }
                (Some(at), Some(n)) => {
                    entries.touch(at);
                    let one = model.remove(n);
                    model.push(one);
                }
                _ => loop {
                    if let Some(at) = entries.insert(hash, &key) {
                        entries.set_value(at, 1, seed);
                        model.push((key, seed));
                        break;
                    }
                    let oldest = entries.oldest().unwrap();
                    let mut text = Vec::new();
                    entries.key(oldest, &mut text);
                    assert_eq!(text, model[0].0, "turn {turn}");
                    entries.remove(oldest);
                    model.remove(0);
                },
            }
            assert_eq!(entries.len(), model.len());
        }
        // From the oldest to the newest, as the model has them.
        table.each_shard("z", |entries| {
            let mut at = entries.oldest();
            for (key, value) in &model {
                let mut text = Vec::new();
                entries.key(at.unwrap(), &mut text);
                assert_eq!((&text, entries.value(at.unwrap(), 1)), (key, *value));
                at = entries.newer(at.unwrap());
            }
            assert_eq!(at, None);
        });
    }

    #[test]
    fn a_key_that_does_not_fit_takes_nothing() {
        let table = table(32 * 1024);
        let long = vec![b'x'; 65_535];
        let hash = table.hash(&long);
        let mut entries = table.lock(hash, "z");
        assert_eq!(entries.insert(hash, &long), None);
        let mut count = 0_u32;
        while entries.insert(hash, &count.to_le_bytes()).is_some() {
            count += 1;
        }
        assert!(count > 400, "{count}");
        assert_eq!(entries.insert(hash, &long), None);
        assert_eq!(entries.len(), count as usize);
    }

    #[test]
    fn a_megabyte_holds_as_many_addresses_as_nginx_promises() {
        let table = table(1 << 20);
        let mut count = 0_u32;
        loop {
            let key = count.to_be_bytes();
            let hash = table.hash(&key);
            if table.lock(hash, "z").insert(hash, &key).is_none() {
                break;
            }
            count += 1;
        }
        assert!(count > 14_000, "{count}");
    }

    #[test]
    fn references_find_out_what_is_gone() {
        let table = table(32 * 1024);
        let hash = table.hash(b"a");
        let mut entries = table.lock(hash, "z");
        let at = entries.insert(hash, b"a").unwrap();
        let reference = entries.reference(at, hash);
        assert_eq!(entries.resolve(reference), Some(at));
        entries.remove(at);
        assert_eq!(entries.resolve(reference), None);
        let again = entries.insert(hash, b"a").unwrap();
        assert_eq!((again, entries.resolve(reference)), (at, None));
    }
}
