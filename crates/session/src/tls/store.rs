//! Sessions in a zone that all workers share (`ssl_session_cache shared:`).
//!
//! An entry's key is the session's id, its values are the first of the cells that hold the
//! session and the second in which it expires. What was not used for the longest time makes room.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use net::tls::StoresServerSessions;

use crate::table::{Entries, Table};
use crate::zones::{Kind, NamedZone};

/// Zones of sessions.
pub(super) static KIND: Kind = Kind {
    directive: "ssl_session_cache",
    title: "ssl_session_cache",
    prepare: Table::prepare,
    migrate: None,
};

/// 32-bit words of a cell behind the number of the next one.
const WORDS: usize = 15;
/// Longer sessions are not kept: they hold long chains of certificates.
const LONGEST: usize = 16 << 10;

thread_local! {
    /// The zones of stores that have not been used yet. rustls wants what it holds to be ready
    /// for threads, which zones of a configuration are not and need not be.
    static ZONES: RefCell<HashMap<u64, Rc<NamedZone>>> = RefCell::default();
}

/// A store of sessions.
#[derive(Debug)]
pub(super) struct Store {
    number: u64,
    lifetime_s: u64,
    table: OnceLock<Opened>,
}

struct Opened {
    table: Table,
    zone: Box<str>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.zone)
    }
}

impl Store {
    pub(super) fn new(zone: Rc<NamedZone>, lifetime_s: u64) -> Arc<Store> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        ZONES.with_borrow_mut(|zones| zones.insert(number, zone));
        Arc::new(Store { number, lifetime_s, table: OnceLock::new() })
    }

    /// The table, once the zone has its memory.
    fn opened(&self) -> Option<&Opened> {
        if self.table.get().is_none() {
            let zone = ZONES.with_borrow(|zones| zones.get(&self.number).cloned())?;
            let table = Table::new(zone.memory()?).ok()?;
            // Nobody else sets it: there is one thread.
            let _ = self.table.set(Opened { table, zone: zone.name().into() });
        }
        self.table.get()
    }

    fn look_up(&self, id: &[u8], remove: bool) -> Option<Vec<u8>> {
        let Opened { table, zone } = self.opened()?;
        let hash = table.hash(id);
        let mut entries = table.lock(hash, zone);
        let at = entries.find(hash, id)?;
        let is_fresh = entries.value(at, 1) > now_s();
        let session = is_fresh.then(|| read(&entries, entries.value(at, 0)));
        if remove || !is_fresh {
            drop_session(&mut entries, at);
        }
        session
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // At the end of a thread the list may be gone before.
        let _ = ZONES.try_with(|zones| zones.borrow_mut().remove(&self.number));
    }
}

impl StoresServerSessions for Store {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        if session.len() > LONGEST {
            return false;
        }
        let Some(Opened { table, zone }) = self.opened() else { return false };
        let hash = table.hash(&id);
        let mut entries = table.lock(hash, zone);
        if let Some(at) = entries.find(hash, &id) {
            drop_session(&mut entries, at);
        }
        let begun = loop {
            match write(&mut entries, &session) {
                Some(cells) => break cells,
                None => match entries.oldest() {
                    Some(oldest) => drop_session(&mut entries, oldest),
                    None => return false,
                },
            }
        };
        loop {
            if let Some(at) = entries.insert(hash, &id) {
                entries.set_value(at, 0, begun);
                entries.set_value(at, 1, now_s() + self.lifetime_s);
                return true;
            }
            let Some(oldest) = entries.oldest() else {
                give_back(&mut entries, begun);
                return false;
            };
            drop_session(&mut entries, oldest);
        }
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.look_up(id, false)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.look_up(id, true)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

fn now_s() -> u64 {
    net::wall().0
}

/// The first cell and the length in one number.
fn place(cell: u32, length: usize) -> u64 {
    u64::from(cell) << 32 | length as u64
}

/// Writes a session to cells; `None` when there are not enough.
fn write(entries: &mut Entries<'_>, session: &[u8]) -> Option<u64> {
    let mut first = 0;
    // From the last piece to the first, so that each knows the next one.
    for piece in session.chunks(WORDS * 4).rev() {
        let Some(cell) = entries.take() else {
            give_back(entries, place(first, 0));
            return None;
        };
        entries.set(cell, 0, first);
        for (n, word) in piece.chunks(4).enumerate() {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            entries.set(cell, n + 1, u32::from_le_bytes(bytes));
        }
        first = cell;
    }
    Some(place(first, session.len()))
}

fn read(entries: &Entries<'_>, begun: u64) -> Vec<u8> {
    let length = (begun & u64::from(u32::MAX)) as usize;
    let mut cell = (begun >> 32) as u32;
    let mut session = Vec::with_capacity(length + 4);
    while cell != 0 && session.len() < length {
        for n in 1..=WORDS {
            session.extend_from_slice(&entries.get(cell, n).to_le_bytes());
        }
        cell = entries.get(cell, 0);
    }
    session.truncate(length);
    session
}

fn give_back(entries: &mut Entries<'_>, begun: u64) {
    let mut cell = (begun >> 32) as u32;
    while cell != 0 {
        let next = entries.get(cell, 0);
        entries.give_back(cell);
        cell = next;
    }
}

fn drop_session(entries: &mut Entries<'_>, at: u32) {
    give_back(entries, entries.value(at, 0));
    entries.remove(at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::Zones;

    #[test]
    fn the_oldest_sessions_make_room() {
        let zones = Zones::default();
        let zone = zones.declare("tls", 8 * 4096, &KIND).unwrap();
        let store = Store::new(zone, 300);
        assert!(!store.put(vec![1], vec![1]), "there is no memory yet");
        zones.open(None).unwrap();
        let session = |n: u16| n.to_be_bytes().repeat(300 + usize::from(n));
        for n in 0..100_u16 {
            assert!(store.put(vec![n as u8; 32], session(n)));
            assert_eq!(store.get(&[n as u8; 32]), Some(session(n)));
        }
        assert_eq!(store.get(&[0; 32]), None);
        assert_eq!(store.take(&[99; 32]), Some(session(99)));
        assert_eq!(store.get(&[99; 32]), None);
        assert!(!store.put(vec![1; 32], vec![0; LONGEST + 1]));
        // What was taken or pushed out leaves all its cells: this goes on for ever.
        for n in 0..5_000_u16 {
            assert!(store.put(n.to_be_bytes().to_vec(), session(n % 200)));
        }
    }

    #[test]
    fn sessions_expire() {
        let zones = Zones::default();
        let zone = zones.declare("tls", 8 * 4096, &KIND).unwrap();
        zones.open(None).unwrap();
        let store = Store::new(zone, 0);
        assert!(store.put(vec![1], vec![1]));
        assert_eq!(store.get(&[1]), None);
    }
}
