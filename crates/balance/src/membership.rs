//! Peers that come and go while requests are under way.
//!
//! A peer keeps its number for as long as it is in the group, and its number is not given to
//! another one before its last request ended. So whoever holds a number may go on to use it: a
//! request that ends at a peer that left is counted there and nowhere else.
//!
//! Places of peers that left stay behind as vacant ones, which no algorithm chooses; at the end of
//! a tier they are given back. A newcomer takes the first place that is vacant.

use crate::checks::Checks;
use crate::method::{self, Method};
use crate::outlier::Record;
use crate::peer::{Peer, PeerOptions};
use crate::state::{PeerIndex, State};
use crate::times::Times;

/// The tiers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Asked first.
    Primary,
    /// Asked when no primary is usable.
    Backup,
}

impl State<'_> {
    /// Takes a new peer in. `None` when its tier has no room.
    pub fn admit(&mut self, tier: Tier, options: &PeerOptions) -> Option<PeerIndex> {
        self.admit_each([(tier, *options)]).pop().flatten()
    }

    /// Takes new peers in: the indexes are built once for all of them. For each its place, `None`
    /// when its tier has no room.
    pub fn admit_each(
        &mut self,
        newcomers: impl IntoIterator<Item = (Tier, PeerOptions)>,
    ) -> Vec<Option<PeerIndex>> {
        let mut looked_up_to = [0; 2];
        let mut has_changed = [false; 2];
        let places = newcomers
            .into_iter()
            .map(|(tier, options)| {
                let tier = tier as usize;
                let place = self.take_in(tier, &options, &mut looked_up_to[tier]);
                has_changed[tier] |= place.is_some();
                place
            })
            .collect();
        self.rebuild_those(has_changed);
        places
    }

    /// Lets a peer go. Requests under way at it go on; it gets no new ones.
    pub fn dismiss(&mut self, peer: PeerIndex) {
        self.dismiss_each([peer]);
    }

    /// Lets peers go: the indexes are built once for all of them.
    pub fn dismiss_each(&mut self, peers: impl IntoIterator<Item = PeerIndex>) {
        let mut has_changed = [false; 2];
        for peer in peers {
            has_changed[self.tier_of(peer)] |= self.let_go(peer);
        }
        self.rebuild_those(has_changed);
    }

    fn rebuild_those(&mut self, tiers: [bool; 2]) {
        (0..2).filter(|tier| tiers[*tier]).for_each(|tier| self.rebuild(tier));
    }

    /// A peer takes the first vacant place at an offset of `from` or behind, which moves on.
    fn take_in(
        &mut self,
        tier: usize,
        options: &PeerOptions,
        from: &mut PeerIndex,
    ) -> Option<PeerIndex> {
        let end = match tier {
            0 => self.head.tiers[1].first,
            _ => self.head.room.min(self.peers.len() as u32),
        };
        let first = self.head.tiers[tier].first;
        let free = |peer: &Peer| peer.is_vacant() && peer.conns == 0;
        let places = self.peers.get((first + *from) as usize..end as usize)?;
        let offset = *from + places.iter().position(free)? as PeerIndex;
        *from = offset + 1;
        let place = (first + offset) as usize;
        self.peers[place] = Peer::new(options);
        self.times[place] = Times::default();
        // Who was at the place before may still have something under way.
        let downs = self.checks[place].downs;
        self.checks[place] = Checks { downs, ..Checks::default() };
        self.records[place] = Record::default();
        let count = &mut self.head.tiers[tier].count;
        *count = (*count).max(offset + 1);
        self.head.members += 1;
        self.head.up += u32::from(self.peers[place].is_in());
        Some(place as PeerIndex)
    }

    /// Whether there was such a peer.
    fn let_go(&mut self, peer: PeerIndex) -> bool {
        let Some(index) = self.known(peer) else { return false };
        if self.peers[index].is_vacant() {
            return false;
        }
        let tier = self.tier_of(peer);
        // Out of every index first, while its class is still that of its weight.
        self.set_down(peer, true);
        self.head.tiers[tier].conns =
            self.head.tiers[tier].conns.saturating_sub(self.peers[index].conns);
        self.peers[index].leave();
        self.head.members = self.head.members.saturating_sub(1);
        let first = self.head.tiers[tier].first;
        while let Some(last) = self.head.tiers[tier].count.checked_sub(1) {
            if !self.peers[(first + last) as usize].is_vacant() {
                break;
            }
            self.head.tiers[tier].count = last;
        }
        true
    }

    /// Gives a peer other options; its loads and failures stay.
    pub fn reconfigure(&mut self, peer: PeerIndex, options: &PeerOptions) {
        let Some(index) = self.known(peer) else { return };
        if self.peers[index].is_vacant() || self.peers[index].options() == *options {
            return;
        }
        let tier = self.tier_of(peer);
        let weight = self.peers[index].weight;
        self.change(peer, |peer| peer.reconfigure(options));
        match self.peers[index].weight == weight {
            // What follows from the weights stays.
            true => (self.method().settle)(self, peer),
            false => self.rebuild(tier),
        }
    }

    /// Whether it is memory that nobody has used yet.
    pub fn is_void(&self) -> bool {
        self.head.room == 0
    }

    /// How many places there are, vacant ones included.
    pub fn places(&self) -> PeerIndex {
        self.peers.len() as PeerIndex
    }

    /// Whether a peer stands at a place.
    pub fn is_taken(&self, place: PeerIndex) -> bool {
        self.peers.get(place as usize).is_some_and(|peer| !peer.is_vacant())
    }

    /// The configured share of a peer.
    pub fn weight(&self, peer: PeerIndex) -> u32 {
        self.peers.get(peer as usize).map_or(0, Peer::weight)
    }

    /// Something of the membership changed that the state does not hold.
    pub fn touch(&mut self) {
        self.head.generation = self.head.generation.wrapping_add(1);
    }

    /// Chooses by another algorithm from now on. The turns start anew; loads and failures stay.
    pub fn set_method(&mut self, method: &Method) {
        let place = method::place(method) as u32;
        if self.head.method != place {
            self.head.method = place;
            self.repair();
        }
    }

    /// Which tier a peer is in.
    pub fn tier(&self, peer: PeerIndex) -> Tier {
        match self.tier_of(peer) {
            0 => Tier::Primary,
            _ => Tier::Backup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Index, Key, METHODS, Memory, Tried};

    fn weight(weight: u32) -> PeerOptions {
        PeerOptions { weight, ..PeerOptions::default() }
    }

    /// The peers of some picks with different keys, each of which ends at once.
    fn picks(memory: &mut Memory, method: &'static crate::Method, count: u64) -> Vec<PeerIndex> {
        const NAMES: [&str; 64] = ["n"; 64];
        let members = memory.state().members();
        let index = Index::new(method, &members, &|peer| NAMES[peer as usize]);
        (0..count)
            .filter_map(|n| {
                let key = Key::text(&n.to_le_bytes());
                let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let ask = Ask { key, random, index: Some(&index), ..Ask::at(100) };
                let mut state = memory.state();
                let peer = state.pick(&ask, &mut Tried::new())?;
                state.done(peer);
                Some(peer)
            })
            .collect()
    }

    #[test]
    fn peers_come_and_go_under_every_algorithm() {
        for method in METHODS {
            let mut memory = Memory::with_room(method, &[weight(1)], &[], [40, 3]);
            assert_eq!(picks(&mut memory, method, 5), [0; 5], "{}", method.name);
            for n in 1..40 {
                assert_eq!(memory.state().admit(Tier::Primary, &weight(1 + n % 3)), Some(n));
            }
            assert_eq!(memory.state().admit(Tier::Primary, &weight(1)), None, "no room");
            assert_eq!(memory.state().tries(), 40);
            picks(&mut memory, method, 100);
            for n in (0..40).filter(|n| n % 4 != 1) {
                memory.state().dismiss(n);
            }
            assert_eq!(memory.state().tries(), 10, "{}", method.name);
            let left = picks(&mut memory, method, 300);
            assert_eq!(left.len(), 300, "{}", method.name);
            assert!(left.iter().all(|peer| peer % 4 == 1), "{}: {left:?}", method.name);
            // The last of them, then none, then a backup.
            (0..40).filter(|n| *n != 5).for_each(|n| memory.state().dismiss(n));
            assert_eq!(picks(&mut memory, method, 3), [5; 3], "{}", method.name);
            memory.state().dismiss(5);
            assert_eq!(picks(&mut memory, method, 3), [], "{}", method.name);
            assert_eq!(memory.state().admit(Tier::Backup, &weight(1)), Some(40));
            if method.backup {
                assert_eq!(picks(&mut memory, method, 3), [40; 3], "{}", method.name);
            }
            assert_eq!(memory.state().admit(Tier::Primary, &weight(1)), Some(0));
            assert_eq!(picks(&mut memory, method, 3), [0; 3], "{}", method.name);
        }
    }

    #[test]
    fn a_number_is_not_given_away_while_requests_use_it() {
        let method = &crate::round_robin::METHOD;
        let mut memory = Memory::with_room(method, &[weight(1), weight(1)], &[], [4, 0]);
        let mut state = memory.state();
        let busy = state.pick(&Ask::at(1), &mut Tried::new()).expect("a peer");
        state.dismiss(busy);
        assert_eq!((busy, state.admit(Tier::Primary, &weight(1))), (0, Some(2)));
        assert_eq!(state.peers()[0].conns(), 1);
        state.done(busy);
        assert_eq!(state.peers()[0].conns(), 0);
        assert_eq!(state.admit(Tier::Primary, &weight(1)), Some(0));
        assert_eq!(state.tries(), 3);
    }

    #[test]
    fn options_change_and_failures_stay() {
        let method = &crate::round_robin::METHOD;
        let options = PeerOptions { max_fails: 5, ..weight(1) };
        let mut memory = Memory::with_room(method, &[options, weight(1)], &[], [4, 0]);
        let mut state = memory.state();
        assert_eq!(state.pick(&Ask::at(1), &mut Tried::new()), Some(0));
        state.failed(0, 1);
        state.reconfigure(0, &PeerOptions { max_conns: 7, weight: 3, ..options });
        let peer = state.peers()[0];
        assert_eq!((peer.fails(), peer.max_conns(), peer.weight()), (1, 7, 3));
        state.reconfigure(0, &PeerOptions { down: true, ..options });
        assert_eq!(state.tries(), 1);
        assert_eq!(
            (state.tier(0), state.tier(3), state.tier(4)),
            (Tier::Primary, Tier::Primary, Tier::Backup)
        );
    }
}
