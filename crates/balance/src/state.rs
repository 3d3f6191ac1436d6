//! The state of a group: its memory, its two tiers, the events that change it.
//!
//! A group has primary peers and backup peers; the backups are asked when no primary is usable.
//! Peers are numbered through: the primaries first, then the backups. Everything is arrays of
//! plain structs whose lengths are known at creation and that hold indices instead of pointers,
//! so [`State`] can borrow them from the heap ([`Memory`]) or from a zone that processes share
//! under a lock.

use crate::ask::{Ask, Turn};
use crate::checks::Checks;
use crate::haproxy::turns::{Spot, Wheel};
use crate::heap::Slot;
use crate::index::Members;
use crate::method::{self, METHODS, Method};
use crate::outlier::{Ejections, Record};
use crate::peer::{Peer, PeerOptions, Verdict};
use crate::round_robin;
use crate::times::Times;
use crate::tried::Tried;

/// The number of a peer within its group: primaries first, then backups.
pub type PeerIndex = u32;

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
        /// Requests under way at all its peers.
        pub(crate) conns: u32,
        /// The sum of the weights of all its peers, whatever their state.
        pub(crate) weight: u64,
        /// The sum of the weights of those that are in.
        pub(crate) weight_in: u64,
    }
}

impl Head {
    /// How many peers there is room for, in both tiers.
    #[cfg(feature = "zone")]
    pub(crate) fn room(&self) -> usize {
        self.room as usize
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
        pub(crate) wheels: [Wheel; 2],
        /// The latest millisecond that any caller told.
        pub(crate) clock_ms: u64,
        pub(crate) ejections: Ejections,
        /// The place of the method in its list.
        pub(crate) method: u32,
        /// The peers of both tiers that are neither down nor draining.
        pub(crate) up: u32,
        /// Counts changes of membership and weights.
        pub(crate) generation: u32,
        /// The peers that there is room for: those of the first tier end where the second begins.
        pub(crate) room: u32,
        /// The peers that there are.
        pub(crate) members: u32,
        /// How much more than its share a peer may have under way, in hundredths of the share;
        /// 0 is without a bound.
        pub(crate) factor: u32,
        /// The most requests under way at all peers together; 0 is no limit.
        pub(crate) most_requests: u32,
        /// Counts the marks of peers that may end what is under way.
        pub(crate) marks: u32,
        /// How often a primary came up that sends clients of backups away.
        pub(crate) ups: u32,
        pub(crate) unused: u32,
    }
}

/// A group's state on the heap.
#[derive(Clone, Debug)]
pub struct Memory {
    pub(crate) head: Head,
    pub(crate) peers: Box<[Peer]>,
    times: Box<[Times]>,
    checks: Box<[Checks]>,
    records: Box<[Record]>,
    spots: Box<[Spot]>,
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
    pub(crate) times: &'a mut [Times],
    pub(crate) checks: &'a mut [Checks],
    pub(crate) records: &'a mut [Record],
    pub(crate) spots: &'a mut [Spot],
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
        Memory::with_room(method, primaries, backups, [0; 2])
    }

    /// As [`Memory::new`], with room for at least `room` peers in each tier.
    ///
    /// # Panics
    /// When there is room for 2^31 peers or more.
    pub fn with_room(
        method: &Method,
        primaries: &[PeerOptions],
        backups: &[PeerOptions],
        room: [usize; 2],
    ) -> Memory {
        let room = [room[0].max(primaries.len()), room[1].max(backups.len())];
        let count = room[0].saturating_add(room[1]);
        assert!(count < 1 << 31, "a group of {count} peers");
        let tier = |first: usize, count: usize| Tier {
            first: first as u32,
            count: count as u32,
            ..Tier::default()
        };
        let mut memory = Memory {
            head: Head {
                tiers: [tier(0, primaries.len()), tier(room[0], backups.len())],
                method: method::place(method) as u32,
                up: primaries.iter().chain(backups).filter(|peer| !peer.down && !peer.drain).count()
                    as u32,
                room: count as u32,
                members: (primaries.len() + backups.len()) as u32,
                ..Head::default()
            },
            peers: padded(primaries, room[0]).chain(padded(backups, room[1])).collect(),
            times: vec![Times::default(); count].into(),
            checks: vec![Checks::default(); count].into(),
            records: vec![Record::default(); count].into(),
            spots: vec![Spot::default(); count].into(),
            positions: vec![0; count].into(),
            slots: vec![Slot::default(); count].into(),
            classes: vec![Class::default(); count].into(),
            recovering: vec![0; count].into(),
            resting: vec![0; count].into(),
        };
        let mut state = memory.state();
        (0..2).for_each(|tier| state.rebuild(tier));
        memory
    }

    /// Borrows it for picks and events.
    #[inline]
    pub fn state(&mut self) -> State<'_> {
        State {
            head: &mut self.head,
            peers: &mut self.peers,
            times: &mut self.times,
            checks: &mut self.checks,
            records: &mut self.records,
            spots: &mut self.spots,
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

/// The peers of a tier, and behind them the vacant places up to its room.
fn padded(peers: &[PeerOptions], room: usize) -> impl Iterator<Item = Peer> {
    let vacant = std::iter::repeat_n(Peer::VACANT, room - peers.len());
    peers.iter().map(Peer::new).chain(vacant)
}

impl State<'_> {
    /// Chooses a peer for a request and counts the request as under way at it.
    ///
    /// Peers in `tried` are left out, and the chosen one is added to it. Primaries come first;
    /// the first time that none of them is usable the request goes over to the backups for good.
    /// `None` means that there is no live peer.
    ///
    /// A pick must be followed by one [`State::done`] or [`State::failed`].
    pub fn pick(&mut self, ask: &Ask<'_>, tried: &mut Tried) -> Option<PeerIndex> {
        self.head.clock = self.head.clock.max(ask.now);
        self.head.clock_ms = self.head.clock_ms.max(ask.now_ms);
        if self.is_at_limit() {
            return None;
        }
        if self.is_single() {
            let peer = &mut self.peers[0];
            let bound = ask.bound.contains(&0) && !peer.is_barred() && !peer.is_full();
            if peer.is_shut() && !bound {
                return None;
            }
            peer.conns += 1;
            self.head.tiers[0].conns += 1;
            self.time_begins(0, ask.now_ms);
            return Some(0);
        }
        self.take_back();
        while (tried.tier as usize) < self.head.tiers.len() {
            if let Some(index) = self.pick_in(tried.tier as usize, ask, tried) {
                let tier = tried.tier as usize;
                self.peers[index as usize].picked(self.head.clock);
                self.head.tiers[tier].conns += 1;
                (self.method().settle)(self, index);
                self.time_begins(index, ask.now_ms);
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

    fn pick_in(&mut self, tier: usize, ask: &Ask<'_>, tried: &mut Tried) -> Option<PeerIndex> {
        let method = self.method();
        let turn = Turn {
            tier,
            now: self.head.clock,
            now_ms: self.head.clock_ms,
            random: ask.random,
            key: ask.key,
            table: ask
                .index
                .filter(|index| index.generation() == self.head.generation)
                .map(|index| index.tier(tier)),
        };
        let members = self.head.tiers[tier].members();
        let bound = ask.bound.iter().copied().find(|peer| {
            let usable = |peer: &Peer| peer.is_usable_when_bound(turn.now);
            members.contains(peer)
                && !tried.contains(*peer)
                && self.peers.get(*peer as usize).is_some_and(usable)
        });
        match bound {
            Some(peer) => {
                (method.bind)(self, &turn, tried, peer);
                Some(peer)
            }
            None => (method.pick)(self, &turn, tried),
        }
    }

    /// Tells the time to events that have none of their own, in milliseconds.
    pub fn tell_time(&mut self, now_ms: u64) {
        self.head.clock_ms = self.head.clock_ms.max(now_ms);
    }

    /// A request at `peer` ended, and not by the peer's fault.
    pub fn done(&mut self, peer: PeerIndex) {
        if let Some(index) = self.known(peer) {
            if self.is_single() {
                self.peers[0].fails = 0;
            }
            self.uncount(peer);
            if self.peers[index].done() {
                self.start_slowly(peer);
                self.note_outage(peer);
            }
            self.bound_timed(peer);
            (self.method().settle)(self, peer);
        }
    }

    /// A request that is still under way at `peer` shows that it works: sessions that last for
    /// hours do not keep others from a peer that has recovered.
    pub fn proved(&mut self, peer: PeerIndex) {
        if let Some(index) = self.known(peer)
            && self.peers[index].proved()
        {
            self.start_slowly(peer);
            self.note_outage(peer);
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
        self.uncount(peer);
        let verdict = self.peers[index].failed(self.head.clock);
        self.note_outage(peer);
        self.bound_timed(peer);
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
            self.rebuild(tier);
        }
    }

    /// Takes `peer` out of the rotation, or back into it. Requests under way go on.
    pub fn set_down(&mut self, peer: PeerIndex, down: bool) {
        self.stand(peer, down, false);
    }

    /// Leaves `peer` to the clients that are bound to it, or takes it back into the rotation.
    pub fn set_draining(&mut self, peer: PeerIndex, draining: bool) {
        self.stand(peer, false, draining);
    }

    fn stand(&mut self, peer: PeerIndex, down: bool, draining: bool) {
        self.change(peer, |peer| peer.stand(down, draining));
    }

    /// Changes what keeps a peer out or in.
    pub(crate) fn change(&mut self, peer: PeerIndex, change: impl FnOnce(&mut Peer)) {
        let Some(index) = self.known(peer) else { return };
        let before = self.peers[index];
        change(&mut self.peers[index]);
        self.note_outage(peer);
        self.note_marks(peer, before.is_in(), before.is_marked_down());
        let tier = self.tier_of(peer);
        let weight_in = &mut self.head.tiers[tier].weight_in;
        match (before.is_in(), self.peers[index].is_in()) {
            (true, false) => {
                self.head.up -= 1;
                *weight_in = weight_in.saturating_sub(before.weight.into());
            }
            (false, true) => {
                self.head.up += 1;
                *weight_in += u64::from(self.peers[index].weight);
                self.start_slowly(peer);
            }
            _ => return,
        }
        if self.method().of_those_in {
            self.touch();
        }
        (self.method().settle)(self, peer);
    }

    /// Lets at most so many requests be under way at all peers together; 0 is no limit.
    pub fn set_most_requests(&mut self, most: u32) {
        self.head.most_requests = most;
    }

    /// Whether as many requests are under way as may be.
    pub fn is_at_limit(&self) -> bool {
        let most = u64::from(self.head.most_requests);
        let conns = |tier: usize| u64::from(self.head.tiers[tier].conns);
        most != 0 && conns(0) + conns(1) >= most
    }

    /// Bounds what a peer may have under way to so many hundredths of its share; 0 does not.
    /// Algorithms that go by a key keep to it.
    pub fn set_factor(&mut self, hundredths: u32) {
        self.head.factor = hundredths;
    }

    /// As [`State::repair`], and takes the loads from `conns`, for callers that count them on
    /// their own as well.
    pub fn repair_with(&mut self, conns: impl Fn(PeerIndex) -> u32) {
        for (peer, record) in (0..).zip(self.peers.iter_mut()) {
            record.conns = conns(peer);
        }
        self.repair();
    }

    /// Builds everything but the peers' own records afresh. For a state whose last holder died
    /// in the middle of an event: the turns start anew, loads and failures stay.
    pub fn repair(&mut self) {
        self.peers.iter_mut().for_each(Peer::reset);
        self.head.up = self.peers.iter().filter(|peer| peer.is_in()).count() as u32;
        for tier in 0..2 {
            let Tier { first, count, .. } = self.head.tiers[tier];
            let conns =
                self.peers[first as usize..][..count as usize].iter().map(Peer::conns).sum();
            self.head.tiers[tier] = Tier { first, count, conns, ..Tier::default() };
            self.head.wheels[tier] = Wheel::default();
            self.rebuild(tier);
        }
        (0..self.peers.len()).for_each(|peer| self.bound_timed(peer as PeerIndex));
    }

    /// Whether a peer would be usable if it had fewer requests.
    pub fn is_busy(&self) -> bool {
        let busy =
            |peer: &Peer| peer.is_in() && peer.is_full() && !peer.is_resting(self.head.clock);
        self.is_at_limit() || self.head.up > 0 && self.peers.iter().any(busy)
    }

    /// How often a request may try at most: the peers of both tiers that are neither down nor
    /// draining.
    pub fn tries(&self) -> u32 {
        self.head.up
    }

    /// The peers with their loads and failures, for statistics.
    pub fn peers(&self) -> &[Peer] {
        self.peers
    }

    /// The peers' times, for statistics. Zeroes unless the algorithm measures them.
    pub fn times(&self) -> &[Times] {
        self.times
    }

    /// Changes whenever an [`crate::Index`] must be made anew.
    pub fn generation(&self) -> u32 {
        self.head.generation
    }

    /// What an [`crate::Index`] is made of.
    pub fn members(&self) -> Members {
        let weights = |tier: usize| {
            let Tier { first, count, .. } = self.head.tiers[tier];
            let peers = &self.peers[first as usize..][..count as usize];
            peers.iter().map(|peer| peer.weight).collect()
        };
        let is_in = |tier: usize| {
            let Tier { first, count, .. } = self.head.tiers[tier];
            let peers = &self.peers[first as usize..][..count as usize];
            peers.iter().map(Peer::is_in).collect()
        };
        Members {
            generation: self.head.generation,
            firsts: [0, 1].map(|tier: usize| self.head.tiers[tier].first),
            tiers: [weights(0), weights(1)],
            is_in: [is_in(0), is_in(1)],
        }
    }

    /// Whether the group is one primary without any backup.
    pub fn is_single(&self) -> bool {
        self.head.members == 1 && self.head.tiers[0].count == 1 && !self.peers[0].is_vacant()
    }

    pub(crate) fn tier_of(&self, peer: PeerIndex) -> usize {
        usize::from(peer >= self.head.tiers[1].first)
    }

    /// Whether `peer` may be chosen: it is usable, was not tried, and has no more than its share.
    pub(crate) fn admits(&self, peer: PeerIndex, turn: &Turn<'_>, tried: &Tried) -> bool {
        let has_share = |peer: &Peer| self.has_share_left(peer, turn.tier);
        self.peers.get(peer as usize).is_some_and(has_share) && self.is_open(peer, turn, tried)
    }

    /// Whether `peer` is usable and was not tried.
    pub(crate) fn is_open(&self, peer: PeerIndex, turn: &Turn<'_>, tried: &Tried) -> bool {
        let usable = |peer: &Peer| peer.is_usable(turn.now);
        self.peers.get(peer as usize).is_some_and(usable) && !tried.contains(peer)
    }

    /// The share of a peer is that of its weight in all requests, the new one included, times
    /// the factor, and at least one request.
    fn has_share_left(&self, peer: &Peer, tier: usize) -> bool {
        if self.head.factor == 0 {
            return true;
        }
        let Tier { conns, weight, .. } = self.head.tiers[tier];
        let requests = (u128::from(conns) + 1) * u128::from(self.head.factor);
        let share = requests * u128::from(peer.weight);
        u128::from(peer.conns) * u128::from(weight) * 100 < share
    }

    fn uncount(&mut self, peer: PeerIndex) {
        if self.peers[peer as usize].conns > 0 {
            let tier = self.tier_of(peer);
            let conns = &mut self.head.tiers[tier].conns;
            *conns = conns.saturating_sub(1);
        }
    }

    /// After a change of membership or weights.
    pub(crate) fn rebuild(&mut self, tier: usize) {
        let members = self.head.tiers[tier].members();
        let peers = &self.peers[members.start as usize..members.end as usize];
        self.head.tiers[tier].weight = peers.iter().map(|peer| u64::from(peer.weight)).sum();
        let weights_in =
            peers.iter().filter(|peer| peer.is_in()).map(|peer| u64::from(peer.weight));
        self.head.tiers[tier].weight_in = weights_in.sum();
        self.head.generation = self.head.generation.wrapping_add(1);
        (self.method().rebuild)(self, tier);
    }

    pub(crate) fn method(&self) -> &'static Method {
        METHODS.get(self.head.method as usize).copied().unwrap_or(&round_robin::METHOD)
    }

    pub(crate) fn known(&self, peer: PeerIndex) -> Option<usize> {
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
            assert_eq!(state.pick(&Ask::at(now), &mut Tried::new()), Some(0));
            assert_eq!(state.failed(0, now), Verdict::Usable);
            assert_eq!(state.peers()[0].fails(), 0);
        }
    }

    #[test]
    fn a_single_peer_keeps_its_limits() {
        let one = PeerOptions { max_conns: 1, ..PeerOptions::default() };
        let mut memory = Memory::new(&round_robin::METHOD, &[one], &[]);
        let mut state = memory.state();
        assert_eq!(state.pick(&Ask::at(0), &mut Tried::new()), Some(0));
        assert_eq!(state.pick(&Ask::at(0), &mut Tried::new()), None);
        state.done(0);
        state.set_down(0, true);
        assert_eq!(state.pick(&Ask::at(0), &mut Tried::new()), None);
    }

    #[test]
    fn backups_are_asked_last_and_for_good() {
        for method in METHODS {
            let mut memory = Memory::new(method, &options(&[1, 1]), &options(&[1]));
            let mut state = memory.state();
            let mut tried = Tried::new();
            let order: Vec<_> = (0..3)
                .map(|_| {
                    let peer = state.pick(&Ask::at(100), &mut tried).expect("a peer");
                    state.failed(peer, 100);
                    peer
                })
                .collect();
            assert_eq!(order, [0, 1, 2], "{}", method.name);
            assert_eq!(state.pick(&Ask::at(100), &mut tried), None);
            // The primaries live again, but this request stays with the backups.
            assert_eq!(state.pick(&Ask::at(200), &mut tried), None);
            assert!(matches!(state.pick(&Ask::at(200), &mut Tried::new()), Some(0 | 1)));
        }
    }

    #[test]
    fn one_primary_with_a_backup_is_blamed() {
        let mut memory = Memory::new(&round_robin::METHOD, &options(&[1]), &options(&[1]));
        let mut state = memory.state();
        assert_eq!(state.tries(), 2);
        assert_eq!(state.pick(&Ask::at(100), &mut Tried::new()), Some(0));
        assert_eq!(state.failed(0, 100), Verdict::Disabled);
        assert_eq!(state.pick(&Ask::at(100), &mut Tried::new()), Some(1));
    }

    #[test]
    fn repairing_keeps_loads_and_failures() {
        for count in [3, 60] {
            let mut memory = Memory::new(&round_robin::METHOD, &options(&vec![2; count]), &[]);
            let mut state = memory.state();
            for _ in 0..5 {
                state.pick(&Ask::at(100), &mut Tried::new());
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
            let next = state.pick(&Ask::at(100), &mut Tried::new());
            assert_eq!(next, Some(0), "the turns start anew");
            let mut seen: Vec<_> = (0..count * 2)
                .filter_map(|_| state.pick(&Ask::at(101), &mut Tried::new()))
                .collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), count - 1, "all but the resting one take turns");
        }
    }

    #[test]
    fn all_requests_together_are_bounded() {
        for count in [1, 3] {
            let mut memory = Memory::new(&round_robin::METHOD, &options(&vec![1; count]), &[]);
            let mut state = memory.state();
            state.set_most_requests(2);
            let pick = |state: &mut State<'_>| state.pick(&Ask::at(1), &mut Tried::new());
            let first = pick(&mut state).expect("a peer");
            assert!(pick(&mut state).is_some());
            assert_eq!((pick(&mut state), state.is_busy()), (None, true));
            state.done(first);
            assert!(pick(&mut state).is_some());
        }
    }

    #[test]
    fn strange_calls_do_nothing() {
        let mut memory = Memory::new(&least_conn::METHOD, &[], &[]);
        let mut state = memory.state();
        assert_eq!(state.pick(&Ask::at(0), &mut Tried::new()), None);
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
        assert_eq!(size_of::<Tier>(), 64);
        assert_eq!(size_of::<Spot>(), 48);
        assert_eq!(size_of::<Head>(), 8 + 80 + 2 * 64 + 2 * size_of::<Wheel>() + 40);
    }
}
