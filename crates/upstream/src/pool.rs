//! Connections that nobody uses at the moment, newest first.
//!
//! The structure is pure: it holds values of any type, knows neither sockets nor a clock, and
//! allocates only while it grows. Every entry is in two lists: that of its peer, from which a
//! request takes the newest fitting one, and that of all, from whose old end they are evicted.

const NONE: u32 = u32::MAX;

/// The neighbours of an entry in one list.
#[derive(Clone, Copy, Debug)]
struct Links {
    newer: u32,
    older: u32,
}

/// Both ends of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    newest: u32,
    oldest: u32,
}

#[derive(Debug)]
struct Entry<T> {
    value: Option<T>,
    peer: u32,
    since_ms: u64,
    all: Links,
    same: Links,
}

/// The idle connections of a group.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    entries: Vec<Entry<T>>,
    /// Free entries are chained through `all.older`.
    free: u32,
    all: Ends,
    peers: Box<[Ends]>,
    len: usize,
}

const UNLINKED: Links = Links { newer: NONE, older: NONE };
const EMPTY: Ends = Ends { newest: NONE, oldest: NONE };

impl<T> Pool<T> {
    /// An empty pool for peers `0..peers`.
    pub(crate) fn new(peers: usize) -> Pool<T> {
        let peers = vec![EMPTY; peers].into();
        Pool { entries: Vec::new(), free: NONE, all: EMPTY, peers, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// When the oldest one was put in.
    pub(crate) fn oldest_since_ms(&self) -> Option<u64> {
        self.entries.get(self.all.oldest as usize).map(|entry| entry.since_ms)
    }

    /// Puts a connection of `peer` in, as the newest one.
    pub(crate) fn put(&mut self, peer: u32, since_ms: u64, value: T) {
        let entry = Entry { value: Some(value), peer, since_ms, all: UNLINKED, same: UNLINKED };
        let at = if self.free == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.entries[at as usize].all.older;
            self.entries[at as usize] = entry;
            at
        };
        link(&mut self.entries, &mut self.all, at, |entry| &mut entry.all);
        link(&mut self.entries, &mut self.peers[peer as usize], at, |entry| &mut entry.same);
        self.len += 1;
    }

    /// Takes the newest connection of `peer` that fits.
    pub(crate) fn take(&mut self, peer: u32, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut at = self.peers[peer as usize].newest;
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.value.as_ref().is_some_and(&fits) {
                return self.remove(at);
            }
            at = entry.same.older;
        }
        None
    }

    /// Makes room for peers up to `peers`.
    pub(crate) fn widen(&mut self, peers: usize) {
        if peers > self.peers.len() {
            let mut wider = std::mem::take(&mut self.peers).into_vec();
            wider.resize(peers, EMPTY);
            self.peers = wider.into();
        }
    }

    /// Takes out the one that was put in first.
    pub(crate) fn take_oldest(&mut self) -> Option<T> {
        self.remove(self.all.oldest)
    }

    /// Drops all for which `stays` says no. Oldest first.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(u64, &mut T) -> bool) {
        let mut at = self.all.oldest;
        while let Some(entry) = self.entries.get_mut(at as usize) {
            let next = entry.all.newer;
            let since_ms = entry.since_ms;
            if entry.value.as_mut().is_some_and(|value| !stays(since_ms, value)) {
                self.remove(at);
            }
            at = next;
        }
    }

    fn remove(&mut self, at: u32) -> Option<T> {
        let entry = self.entries.get_mut(at as usize)?;
        let value = entry.value.take()?;
        let peer = entry.peer as usize;
        unlink(&mut self.entries, &mut self.all, at, |entry| &mut entry.all);
        unlink(&mut self.entries, &mut self.peers[peer], at, |entry| &mut entry.same);
        self.entries[at as usize].all.older = self.free;
        self.free = at;
        self.len -= 1;
        Some(value)
    }
}

fn link<T>(
    entries: &mut [Entry<T>],
    ends: &mut Ends,
    at: u32,
    links: fn(&mut Entry<T>) -> &mut Links,
) {
    *links(&mut entries[at as usize]) = Links { newer: NONE, older: ends.newest };
    match entries.get_mut(ends.newest as usize) {
        Some(second) => links(second).newer = at,
        None => ends.oldest = at,
    }
    ends.newest = at;
}

fn unlink<T>(
    entries: &mut [Entry<T>],
    ends: &mut Ends,
    at: u32,
    links: fn(&mut Entry<T>) -> &mut Links,
) {
    let Links { newer, older } = *links(&mut entries[at as usize]);
    match entries.get_mut(newer as usize) {
        Some(entry) => links(entry).older = older,
        None => ends.newest = older,
    }
    match entries.get_mut(older as usize) {
        Some(entry) => links(entry).newer = newer,
        None => ends.oldest = newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_per_peer_and_oldest_first_out() {
        let mut pool = Pool::new(2);
        for (peer, value) in [(0, "a"), (1, "b"), (0, "c"), (1, "d"), (0, "e")] {
            pool.put(peer, value.as_bytes()[0].into(), value);
        }
        assert_eq!(pool.take(0, |_| true), Some("e"));
        assert_eq!(pool.take(0, |&value| value != "c"), Some("a"));
        assert_eq!(pool.take(0, |&value| value != "c"), None);
        assert_eq!(pool.oldest_since_ms(), Some(b'b'.into()));
        assert_eq!(pool.take_oldest(), Some("b"));
        pool.retain(|since_ms, value| (since_ms, *value) != (b'd'.into(), "d"));
        assert_eq!(pool.len(), 1);
        assert_eq!(pool.take_oldest(), Some("c"));
        assert_eq!((pool.take_oldest(), pool.oldest_since_ms(), pool.len()), (None, None, 0));
    }

    #[test]
    fn agrees_with_a_plain_list() {
        // A fixed pseudo-random walk over puts and all kinds of takes, against a vector.
        let mut pool = Pool::new(3);
        let mut list: Vec<(u32, u32)> = Vec::new();
        let mut random = 1u32;
        for value in 0..5_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (peer, odd) = (random >> 8 & 3, random >> 16 & 1);
            match random >> 24 & 3 {
                0 | 1 if peer < 3 => {
                    pool.put(peer, value.into(), value);
                    list.push((peer, value));
                }
                2 if peer < 3 => {
                    let fits = |value: &u32| value & 1 == odd;
                    let at = list.iter().rposition(|(of, value)| *of == peer && fits(value));
                    assert_eq!(pool.take(peer, fits), at.map(|at| list.remove(at).1));
                }
                3 if odd == 1 => {
                    pool.retain(|_, value| *value % 5 != 0);
                    list.retain(|(_, value)| value % 5 != 0);
                }
                _ => {
                    let first = (!list.is_empty()).then(|| list.remove(0).1);
                    assert_eq!(pool.take_oldest(), first);
                }
            }
            assert_eq!(pool.len(), list.len());
            assert_eq!(pool.oldest_since_ms(), list.first().map(|(_, value)| (*value).into()));
        }
        assert!(pool.entries.len() < 400, "entries are reused");
    }
}
