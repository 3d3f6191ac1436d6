//! A key decides by a table that the peers fill in turns (Maglev, Eisenbud and others 2016).
//!
//! Each peer has its own order of all slots, made of its name; in rounds, each takes the next
//! slot of its order that is free, as often as its weight says. A pick is one look into the table,
//! the shares are as even as the table is large, and when a peer leaves, few other keys move.
//!
//! A peer that cannot be used makes the request look at the slot behind, where any other peer may
//! be; after twenty of those it takes its turn like any other.

use crate::ask::{Turn, mix};
use crate::index::{Roll, Table};
use crate::ip_hash::TRIES;
use crate::method::{Method, USUAL};
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// By a table.
pub static METHOD: Method = Method {
    name: "hash maglev",
    about: "A key decides by a table that all peers share evenly (Maglev).",
    backup: false,
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    pick,
    table: Slots::table,
    ..USUAL
};

/// Sizes of tables, primes: the first one that gives each peer a hundred slots or more.
const SIZES: [u32; 4] = [65_537, 655_373, 2_097_169, 16_777_259];
const SLOTS_EACH: u64 = 100;

/// Slots are passed by when peers are refused for their load.
const BOUNDED_TRIES: u32 = 1000;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let Some(Table::Maglev(Slots(slots))) = turn.table.filter(|_| !turn.key.is_empty()) else {
        return round_robin::pick(state, turn, tried);
    };
    if !tried.walk.begun {
        tried.walk.begin(turn.key.wide());
    }
    let most = if state.head.factor == 0 { TRIES } else { BOUNDED_TRIES };
    while tried.walk.tries <= most && !slots.is_empty() {
        let slot = tried.walk.hash % slots.len() as u64;
        let peer = slots[slot as usize];
        if state.admits(peer, turn, tried) {
            return Some(peer);
        }
        tried.walk.hash = slot + 1;
        tried.walk.tries += 1;
    }
    round_robin::pick(state, turn, tried)
}

/// The table of one tier.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Box<[PeerIndex]>);

/// A peer while the table is filled.
struct Filling {
    peer: PeerIndex,
    /// Its next slot, and from each to the one after.
    next: u32,
    skip: u32,
    /// What it is owed; a slot costs the largest weight.
    owed: u64,
    weight: u64,
}

impl Slots {
    fn table(roll: &Roll<'_>) -> Table {
        let wanted = roll.weights.len() as u64 * SLOTS_EACH;
        let size = *SIZES.iter().find(|size| u64::from(**size) >= wanted).unwrap_or(&SIZES[3]);
        let most = roll.weights.iter().copied().max().unwrap_or(1).max(1);
        let mut filling: Vec<Filling> = (roll.first..)
            .zip(roll.weights)
            .filter(|(_, weight)| **weight > 0)
            .map(|(peer, &weight)| {
                let seed = seed_of((roll.name)(peer));
                Filling {
                    peer,
                    next: (seed % u64::from(size)) as u32,
                    skip: (mix(seed) % u64::from(size - 1)) as u32 + 1,
                    owed: 0,
                    weight: weight.into(),
                }
            })
            .collect();
        if filling.is_empty() {
            return Table::Maglev(Slots(Box::default()));
        }
        const FREE: PeerIndex = PeerIndex::MAX;
        let mut slots = vec![FREE; size as usize];
        let mut left = size;
        while left > 0 {
            for own in &mut filling {
                own.owed += own.weight;
                if own.owed < u64::from(most) || left == 0 {
                    continue;
                }
                own.owed -= u64::from(most);
                // The skip and the prime size lead to every slot, and one is free.
                while slots[own.next as usize] != FREE {
                    own.advance(size);
                }
                slots[own.next as usize] = own.peer;
                own.advance(size);
                left -= 1;
            }
        }
        Table::Maglev(Slots(slots.into()))
    }
}

impl Filling {
    fn advance(&mut self, size: u32) {
        let next = u64::from(self.next) + u64::from(self.skip);
        self.next = (next % u64::from(size)) as u32;
    }
}

/// 64 bits that stand for a name.
pub(crate) fn seed_of(name: &str) -> u64 {
    let crc = u64::from(crc32fast::hash(name.as_bytes()));
    name.bytes().fold(mix(crc), |seed, byte| mix(seed ^ u64::from(byte)))
}
