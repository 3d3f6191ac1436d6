//! The state of a group: its memory, its two tiers, the events that change it.
//!
//! A group has primary peers and backup peers; the backups are asked when no primary is usable.
//! Peers are numbered through: the primaries first, then the backups. Everything is arrays of
//! plain structs whose lengths are known at creation and that hold indices instead of pointers,
//! so [`State`] can borrow them from the heap ([`Memory`]) or from a zone that processes share
//! under a lock.

use crate::heap::Slot;
use crate::method::{self, METHODS, Method};
use crate::peer::{Peer, PeerOptions, Verdict};
use crate::round_robin;
use crate::tried::Tried;

/// The number of a peer within its group: primaries first, then backups.
pub type PeerIndex = u32;

/// What an algorithm may base a choice on, besides the state.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The time, in the unit of `fail_timeout`.
    pub now: u64,
    /// Fresh random bits for algorithms that draw.
    pub random: u64,
    /// The hash of whatever the request is balanced by, for algorithms that map keys to peers.
    pub key: u64,
}

plain! {
    /// One of the two sets of peers.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Tier {
        /// Rounds that the tier went through: every heap member's account grew once in each.
        pub(crate) rounds: i64,
        /// The sum of the weights of all heap members.
        pub(crate) total: i64,
        /// No resting peer can become usable before this moment passed.
        pub(crate) earliest: u64,
        pub(crate) first: u32,
        pub(crate) count: u32,
        /// Classes in use, from `first` on in the array of classes.
        pub(crate) classes: u32,
        /// Peers that recover, from `first` on in the array `recovering`.
        pub(crate) recovering: u32,
        /// Peers that rest, from `first` on in the array `resting`.
        pub(crate) resting: u32,
        pub(crate) unused: u32,
    }
}

impl Head {
    /// The peers of both tiers. Added without overflow: a shared state may hold anything.
    #[cfg(feature = "zone")]
    pub(crate) fn count(&self) -> usize {
        self.tiers[0].count as usize + self.tiers[1].count as usize
    }
}

impl Tier {
    pub(crate) fn members(&self) -> std::ops::Range<PeerIndex> {
        self.first..self.first + self.count
    }
}

plain! {
    /// The members of a tier that share one weight: a stretch of the slots.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Class {
        pub(crate) weight: u32,
        /// Where its slots begin.
        pub(crate) start: u32,
        /// How many of them are a heap at the moment.
        pub(crate) len: u32,
        pub(crate) unused: u32,
    }
}

plain! {
    /// What belongs to the group as a whole.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Head {
        /// The latest moment that any caller told; the processes that share a state need not agree
        /// on the time to the tick.
        pub(crate) clock: u64,
        pub(crate) tiers: [Tier; 2],
        /// The place of the method in its list.
        pub(crate) method: u32,
        /// The peers of both tiers that are not down.
        pub(crate) up: u32,
    }
}

/// A group's state on the heap.
#[derive(Clone, Debug)]
pub struct Memory {
    pub(crate) head: Head,
    pub(crate) peers: Box<[Peer]>,
    positions: Box<[u32]>,
    slots: Box<[Slot]>,
    classes: Box<[Class]>,
    recovering: Box<[PeerIndex]>,
    resting: Box<[PeerIndex]>,
}

/// A group's state, borrowed from wherever it lies. The events and the picks are here.
#[derive(Debug)]
pub struct State<'a> {
    pub(crate) head: &'a mut Head,
    pub(crate) peers: &'a mut [Peer],
    /// By peer: its offset in the structure that `Peer::place` names.
    pub(crate) positions: &'a mut [u32],
    pub(crate) slots: &'a mut [Slot],
    pub(crate) classes: &'a mut [Class],
    pub(crate) recovering: &'a mut [PeerIndex],
    pub(crate) resting: &'a mut [PeerIndex],
}

impl Memory {
    /// The state of a fresh group.
    ///
    /// # Panics
    /// When the two lists together hold 2^31 peers or more.
    pub fn new(method: &Method, primaries: &[PeerOptions], backups: &[PeerOptions]) -> Memory {
        let count = primaries.len() + backups.len();
        assert!(count < 1 << 31, "a group of {count} peers");
        let tier = |first: usize, count: usize| Tier {
            first: first as u32,
            count: count as u32,
            ..Tier::default()
        };
        let mut memory = Memory {
            head: Head {
                tiers: [tier(0, primaries.len()), tier(primaries.len(), backups.len())],
                method: method::place(method) as u32,
                up: primaries.iter().chain(backups).filter(|peer| !peer.down).count() as u32,
                ..Head::default()
            },
            peers: primaries.iter().chain(backups).map(Peer::new).collect(),
            positions: vec![0; count].into(),
            slots: vec![Slot::default(); count].into(),
            classes: vec![Class::default(); count].into(),
            recovering: vec![0; count].into(),
            resting: vec![0; count].into(),
        };
        let mut state = memory.state();
        (0..2).for_each(|tier| (state.method().rebuild)(&mut state, tier));
        memory
    }

    /// Borrows it for picks and events.
    #[inline]
    pub fn state(&mut self) -> State<'_> {
        State {
            head: &mut self.head,
            peers: &mut self.peers,
            positions: &mut self.positions,
            slots: &mut self.slots,
            classes: &mut self.classes,
            recovering: &mut self.recovering,
            resting: &mut self.resting,
        }
    }

    /// The peers with their loads and failures, for statistics.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }
}

impl State<'_> {
    /// Chooses a peer for a request and counts the request as under way at it.
    ///
    /// `now` has the unit of `fail_timeout`, `random` is fresh random bits and `key` the hash of
    /// what the request is balanced by; an algorithm uses what it needs. Peers in `tried` are
    /// left out, and the chosen one is added to it. Primaries come first; the first time that
    /// none of them is usable the request goes over to the backups for good. `None` means that
    /// there is no live peer.
    ///
    /// A pick must be followed by one [`State::done`] or [`State::failed`].
    pub fn pick(
        &mut self,
        now: u64,
        random: u64,
        key: u64,
        tried: &mut Tried,
    ) -> Option<PeerIndex> {
        self.head.clock = self.head.clock.max(now);
        if self.is_single() {
            let peer = &mut self.peers[0];
            if peer.is_shut() {
                return None;
            }
            peer.conns += 1;
            return Some(0);
        }
        let ask = Ask { now: self.head.clock, random, key };
        let method = self.method();
        while (tried.tier as usize) < self.head.tiers.len() {
            if let Some(index) = (method.pick)(self, tried.tier as usize, &ask, tried) {
                self.peers[index as usize].picked(ask.now);
                (method.settle)(self, index);
                tried.push(index);
                return Some(index);
            }
            if tried.tier == 1 || self.head.tiers[1].count == 0 {
                return None;
            }
            tried.tier = 1;
        }
        None
    }

    /// A request at `peer` ended, and not by the peer's fault.
    pub fn done(&mut self, peer: PeerIndex) {
        if let Some(index) = self.known(peer) {
            if self.is_single() {
                self.peers[0].fails = 0;
            }
            self.peers[index].done();
            (self.method().settle)(self, peer);
        }
    }

    /// A request at `peer` ended at `now` by the peer's fault. The only peer of a group is never
    /// blamed: there is nowhere else to go.
    pub fn failed(&mut self, peer: PeerIndex, now: u64) -> Verdict {
        let Some(index) = self.known(peer) else { return Verdict::Usable };
        if self.is_single() {
            self.done(peer);
            return Verdict::Usable;
        }
        self.head.clock = self.head.clock.max(now);
        let verdict = self.peers[index].failed(self.head.clock);
        (self.method().settle)(self, peer);
        verdict
    }

    /// Gives `peer` another share, at once and in full.
    pub fn set_weight(&mut self, peer: PeerIndex, weight: u32) {
        let Some(index) = self.known(peer) else { return };
        let tier = self.tier_of(peer);
        let weight = weight.max(1);
        if self.peers[index].weight != weight {
            // Rebuilding reads the accounts by the weights of the old classes.
            self.peers[index].weight = weight;
            self.peers[index].effective = weight;
            (self.method().rebuild)(self, tier);
        }
    }

    /// Takes `peer` out of the rotation, or back into it. Requests under way go on.
    pub fn set_down(&mut self, peer: PeerIndex, down: bool) {
        if let Some(index) = self.known(peer) {
            match (self.peers[index].is_down(), down) {
                (false, true) => self.head.up -= 1,
                (true, false) => self.head.up += 1,
                _ => return,
            }
            self.peers[index].down = u8::from(down);
            (self.method().settle)(self, peer);
        }
    }

    /// Builds everything but the peers' own records afresh. For a state whose last holder died
    /// in the middle of an event: the turns start anew, loads and failures stay.
    pub fn repair(&mut self) {
        self.peers.iter_mut().for_each(Peer::reset);
        self.head.up = self.peers.iter().filter(|peer| !peer.is_down()).count() as u32;
        for tier in 0..2 {
            let Tier { first, count, .. } = self.head.tiers[tier];
            self.head.tiers[tier] = Tier { first, count, ..Tier::default() };
            (self.method().rebuild)(self, tier);
        }
    }

    /// How often a request may try at most: the peers of both tiers that are not down.
    pub fn tries(&self) -> u32 {
        self.head.up
    }

    /// The peers with their loads and failures, for statistics.
    pub fn peers(&self) -> &[Peer] {
        self.peers
    }

    /// Whether the group is one primary without any backup.
    pub fn is_single(&self) -> bool {
        self.peers.len() == 1 && self.head.tiers[0].count == 1
    }

    pub(crate) fn tier_of(&self, peer: PeerIndex) -> usize {
        usize::from(peer >= self.head.tiers[1].first)
    }

    fn method(&self) -> &'static Method {
        METHODS.get(self.head.method as usize).copied().unwrap_or(&round_robin::METHOD)
    }

    fn known(&self, peer: PeerIndex) -> Option<usize> {
        ((peer as usize) < self.peers.len()).then_some(peer as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::least_conn;

    fn options(weights: &[u32]) -> Vec<PeerOptions> {
        weights.iter().map(|&weight| PeerOptions { weight, ..PeerOptions::default() }).collect()
    }

    #[test]
    fn a_single_peer_is_never_blamed() {
        let mut memory = Memory::new(&round_robin::METHOD, &options(&[1]), &[]);
        let mut state = memory.state();
        for now in 0..5 {
            assert_eq!(state.pick(now, 0, 0, &mut Tried::new()), Some(0));
            assert_eq!(state.failed(0, now), Verdict::Usable);
            assert_eq!(state.peers()[0].fails(), 0);
        }
    }

    #[test]
    fn a_single_peer_keeps_its_limits() {
        let one = PeerOptions { max_conns: 1, ..PeerOptions::default() };
        let mut memory = Memory::new(&round_robin::METHOD, &[one], &[]);
        let mut state = memory.state();
        assert_eq!(state.pick(0, 0, 0, &mut Tried::new()), Some(0));
        assert_eq!(state.pick(0, 0, 0, &mut Tried::new()), None);
        state.done(0);
        state.set_down(0, true);
        assert_eq!(state.pick(0, 0, 0, &mut Tried::new()), None);
    }

    #[test]
    fn backups_are_asked_last_and_for_good() {
        for method in METHODS {
            let mut memory = Memory::new(method, &options(&[1, 1]), &options(&[1]));
            let mut state = memory.state();
            let mut tried = Tried::new();
            let order: Vec<_> = (0..3)
                .map(|_| {
                    let peer = state.pick(100, 0, 0, &mut tried).expect("a peer");
                    state.failed(peer, 100);
                    peer
                })
                .collect();
            assert_eq!(order, [0, 1, 2], "{}", method.name);
            assert_eq!(state.pick(100, 0, 0, &mut tried), None);
            // The primaries live again, but this request stays with the backups.
            assert_eq!(state.pick(200, 0, 0, &mut tried), None);
            assert!(matches!(state.pick(200, 0, 0, &mut Tried::new()), Some(0 | 1)));
        }
    }

    #[test]
    fn one_primary_with_a_backup_is_blamed() {
        let mut memory = Memory::new(&round_robin::METHOD, &options(&[1]), &options(&[1]));
        let mut state = memory.state();
        assert_eq!(state.tries(), 2);
        assert_eq!(state.pick(100, 0, 0, &mut Tried::new()), Some(0));
        assert_eq!(state.failed(0, 100), Verdict::Disabled);
        assert_eq!(state.pick(100, 0, 0, &mut Tried::new()), Some(1));
    }

    #[test]
    fn repairing_keeps_loads_and_failures() {
        for count in [3, 60] {
            let mut memory = Memory::new(&round_robin::METHOD, &options(&vec![2; count]), &[]);
            let mut state = memory.state();
            for _ in 0..5 {
                state.pick(100, 0, 0, &mut Tried::new());
            }
            state.failed(1, 100);
            // As if the process had died while it moved things.
            state.slots.iter_mut().for_each(|slot| slot.key = 7);
            state.positions.iter_mut().for_each(|position| *position = 0);
            state.head.tiers[0].recovering = 9;
            state.head.up = 0;
            state.repair();
            assert_eq!(state.tries(), count as u32);
            assert_eq!((state.peers()[1].fails(), state.peers()[2].conns()), (1, 1));
            let next = state.pick(100, 0, 0, &mut Tried::new());
            assert_eq!(next, Some(0), "the turns start anew");
            let mut seen: Vec<_> =
                (0..count * 2).filter_map(|_| state.pick(101, 0, 0, &mut Tried::new())).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), count - 1, "all but the resting one take turns");
        }
    }

    #[test]
    fn strange_calls_do_nothing() {
        let mut memory = Memory::new(&least_conn::METHOD, &[], &[]);
        let mut state = memory.state();
        assert_eq!(state.pick(0, 0, 0, &mut Tried::new()), None);
        state.done(7);
        state.set_weight(7, 7);
        state.set_down(7, true);
        assert_eq!(state.failed(7, 0), Verdict::Usable);
    }

    #[test]
    fn the_state_is_pointer_free_and_padded_by_hand() {
        // What lies in shared memory must not depend on what the compiler leaves between fields.
        assert_eq!(size_of::<Slot>(), 16);
        assert_eq!(size_of::<Class>(), 16);
        assert_eq!(size_of::<Tier>(), 48);
        assert_eq!(size_of::<Head>(), 8 + 2 * 48 + 8);
    }
}
