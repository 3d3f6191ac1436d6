//! Smooth weighted round robin, pick by pick as nginx's.
//!
//! nginx goes through all peers in each pick: every usable, untried peer's account grows by its
//! effective weight, the largest account wins (the first of equals) and pays the sum of what was
//! handed out; an effective weight below the configured one grows by one. That costs a scan per
//! pick, which is what a small tier still does here, because for a few peers nothing is faster.
//!
//! A larger tier is kept in three indexes, and each peer is in at most one of them:
//!
//! ```text
//!             failed                   grown to its weight
//!   heap ------------------> recovering ------------------> heap
//!    |  \                        |
//!    |   `-- max_fails reached --+--> resting --- fail_timeout passed --> recovering or heap
//!    `------ down, or full ------'--> out ------- event ----------------> any of the others
//! ```
//!
//! - A heap for each distinct weight, of the peers whose effective weight is the configured one.
//!   A round ages all of them alike, so only the tier's count of rounds is touched (`heap.rs`).
//! - The recovering ones, whose growth differs, are few and not for long; a pick walks them. Of
//!   more than [`RECOVERING`] at a time the further ones have their full weight at once.
//! - The resting ones take no part until their time comes; their accounts stand still.
//!
//! What a request tried already takes no part in its further picks: such peers' keys are lowered
//! by what the round added to them.
//!
//! A pick costs the number of distinct weights, plus the recovering and the tried peers, plus
//! the depth of one heap.

use std::collections::BTreeMap;

use crate::ask::Turn;
use crate::heap::{Heap, Slot};
use crate::method::{Method, USUAL};
use crate::peer::Place;
use crate::slow_start::growth;
use crate::state::{Class, PeerIndex, State, Tier};
use crate::tried::Tried;

/// Round robin by weight.
pub static METHOD: Method = Method {
    name: "round_robin",
    about: "Peers take turns in proportion to their weights, evenly interleaved.",
    slow_start: true,
    pick,
    bind,
    settle,
    rebuild,
    ..USUAL
};

/// Tiers up to this size are scanned. Measured with `examples/pick.rs`; at most 64, the width of
/// a [`Tried::mask`].
const SCANNED: u32 = 24;

/// So many peers may be recovering at a time.
const RECOVERING: u32 = 512;

/// The heaps' keys are rebased before a round's growth of them could overflow.
const ROUNDS_LIMIT: i64 = 1 << 30;

/// One round. The other algorithms come here when they have no choice of their own.
pub(crate) fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    round(state, turn, tried, None)
}

/// A bound request takes part in the round, and its peer pays. A peer that is far behind already
/// does not: one request in a row is booked (nginx's `low_limit`).
fn bind(state: &mut State<'_>, turn: &Turn<'_>, tried: &Tried, peer: PeerIndex) {
    let others: i64 = state.head.tiers[turn.tier].weight as i64;
    let subject = &state.peers[peer as usize];
    if state.account(peer) > i64::from(subject.weight) - others {
        round(state, turn, tried, Some(peer));
    }
}

fn round(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    bound: Option<PeerIndex>,
) -> Option<PeerIndex> {
    let tier = turn.tier;
    if !state.is_indexed(tier) {
        return scan(state, turn, tried, bound);
    }
    state.admit_rested(tier);
    state.begin_round(tier);
    let mut round = Round { total: state.head.tiers[tier].total, ..Round::default() };
    if !tried.is_empty() {
        state.freeze(tier, tried, &mut round);
    }
    state.ask_heaps(tier, &mut round);
    state.ask_recovering(tier, &mut round);
    let paying = bound.or(round.best);
    if let Some(paying) = paying {
        state.charge(paying, round.total);
    }
    state.finish_recovered(tier);
    if !tried.is_empty() {
        state.thaw(tier, tried);
    }
    paying
}

/// nginx's own loop.
fn scan(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    bound: Option<PeerIndex>,
) -> Option<PeerIndex> {
    let Tier { first, count, .. } = state.head.tiers[turn.tier];
    let mask = tried.mask(first);
    let mut total = 0;
    let mut best: Option<(usize, i64)> = None;
    let peers = &mut state.peers[first as usize..][..count as usize];
    let times = &mut state.times[first as usize..][..count as usize];
    for (offset, (peer, times)) in peers.iter_mut().zip(times).enumerate() {
        let is_tried = match offset {
            0..64 => mask >> offset & 1 == 1,
            _ => tried.contains(first + offset as u32),
        };
        if is_tried || !peer.is_usable(turn.now) {
            continue;
        }
        let growth = growth(peer, times, turn.now_ms);
        peer.current = peer.current.wrapping_add(growth);
        total += growth;
        if peer.effective < peer.weight {
            peer.effective += 1;
        }
        if best.is_none_or(|(_, most)| peer.current > most) {
            best = Some((offset, peer.current));
        }
    }
    let paying = bound.or(best.map(|(offset, _)| first + offset as u32))?;
    let peer = &mut state.peers[paying as usize];
    peer.current = peer.current.wrapping_sub(total);
    Some(paying)
}

/// Moves `peer` to the index where its health, load and weight want it.
pub(crate) fn settle(state: &mut State<'_>, peer: PeerIndex) {
    let tier = state.tier_of(peer);
    if !state.is_indexed(tier) {
        return;
    }
    let subject = &state.peers[peer as usize];
    let wanted = if subject.is_shut() {
        Place::Out
    } else if subject.is_resting(state.head.clock) {
        Place::Resting
    } else if subject.effective < subject.weight || state.is_starting(peer) {
        let is_listed = subject.place() == Place::Recovering;
        if is_listed || state.head.tiers[tier].recovering < RECOVERING {
            Place::Recovering
        } else {
            state.peers[peer as usize].effective = state.peers[peer as usize].weight;
            Place::Heap
        }
    } else {
        Place::Heap
    };
    if state.peers[peer as usize].place() != wanted {
        state.take_out(tier, peer);
        state.put_in(tier, peer, wanted);
    }
}

pub(crate) fn rebuild(state: &mut State<'_>, tier: usize) {
    let range = state.head.tiers[tier].members();
    if state.head.tiers[tier].count <= SCANNED {
        return;
    }
    range.clone().for_each(|peer| state.take_out(tier, peer));
    let mut sizes = BTreeMap::<u32, u32>::new();
    for peer in &state.peers[range.start as usize..range.end as usize] {
        *sizes.entry(peer.weight).or_default() += 1;
    }
    let mut start = range.start;
    for (class, (&weight, &size)) in sizes.iter().enumerate() {
        state.classes[range.start as usize + class] = Class { weight, start, ..Class::default() };
        start += size;
    }
    state.head.tiers[tier].classes = sizes.len() as u32;
    for peer in range {
        let subject = &mut state.peers[peer as usize];
        subject.class = sizes.range(..subject.weight).count() as u32;
        settle(state, peer);
    }
}

/// What one round found so far.
#[derive(Default)]
struct Round {
    /// The sum of the effective weights of all who take part.
    total: i64,
    best: Option<PeerIndex>,
    /// The best one's account.
    most: i64,
}

impl Round {
    fn offer(&mut self, peer: PeerIndex, current: i64) {
        let better = match self.best {
            None => true,
            Some(best) => current > self.most || (current == self.most && peer < best),
        };
        if better {
            self.best = Some(peer);
            self.most = current;
        }
    }
}

impl State<'_> {
    /// Whether a tier is kept in heaps and lists: it is large, and its method keeps them.
    fn is_indexed(&self, tier: usize) -> bool {
        self.head.tiers[tier].count > SCANNED && self.head.tiers[tier].classes > 0
    }

    /// What a peer has to spend.
    fn account(&self, peer: PeerIndex) -> i64 {
        let subject = &self.peers[peer as usize];
        if subject.place() != Place::Heap {
            return subject.current;
        }
        let Class { weight, start, .. } = self.classes[self.class_of(peer)];
        let slot = self.slots[(start + self.positions[peer as usize]) as usize];
        let rounds = self.head.tiers[self.tier_of(peer)].rounds;
        slot.key.wrapping_add(rounds * i64::from(weight))
    }

    /// Brings back the peers whose `fail_timeout` passed.
    pub(crate) fn admit_rested(&mut self, tier: usize) {
        let Tier { resting, earliest, first, .. } = self.head.tiers[tier];
        if resting == 0 || self.head.clock <= earliest {
            return;
        }
        let mut next = u64::MAX;
        // Backwards, because whoever leaves is replaced by the last one.
        for at in (first..first + resting).rev() {
            let peer = self.resting[at as usize];
            (self.method().settle)(self, peer);
            let subject = &self.peers[peer as usize];
            if subject.place() == Place::Resting {
                next = next.min(subject.rests_until());
            }
        }
        self.head.tiers[tier].earliest = next;
    }

    fn begin_round(&mut self, tier: usize) {
        if self.head.tiers[tier].rounds >= ROUNDS_LIMIT {
            self.rebase(tier);
        }
        self.head.tiers[tier].rounds += 1;
    }

    /// Writes the growth of all rounds so far into the keys. The order stays as it is.
    fn rebase(&mut self, tier: usize) {
        let Tier { rounds, first, classes, .. } = self.head.tiers[tier];
        for class in &self.classes[first as usize..][..classes as usize] {
            for slot in &mut self.slots[class.start as usize..][..class.len as usize] {
                slot.key = slot.key.wrapping_add(rounds * i64::from(class.weight));
            }
        }
        self.head.tiers[tier].rounds = 0;
    }

    /// Takes the tried peers out of the round that has begun: what it added to their accounts
    /// is taken back.
    fn freeze(&mut self, tier: usize, tried: &Tried, round: &mut Round) {
        let members = self.head.tiers[tier].members();
        for peer in tried.iter().filter(|peer| members.contains(peer)) {
            let subject = &mut self.peers[peer as usize];
            subject.frozen = 1;
            if subject.place() == Place::Heap {
                let weight = i64::from(subject.weight);
                round.total -= weight;
                self.lower(peer, weight);
            }
        }
    }

    /// Ends what [`State::freeze`] began.
    fn thaw(&mut self, tier: usize, tried: &Tried) {
        let members = self.head.tiers[tier].members();
        for peer in tried.iter().filter(|peer| members.contains(peer)) {
            self.peers[peer as usize].frozen = 0;
            if self.peers[peer as usize].place() == Place::Aside {
                settle(self, peer);
            }
        }
    }

    /// The best of each heap. A frozen peer can be on top, after many other peers left; it then
    /// steps aside until the pick is over.
    fn ask_heaps(&mut self, tier: usize, round: &mut Round) {
        let Tier { rounds, first, classes, .. } = self.head.tiers[tier];
        for class in first..first + classes {
            while let Class { weight, start, len: 1.., .. } = self.classes[class as usize] {
                let top = self.slots[start as usize];
                if self.peers[top.peer as usize].frozen == 0 {
                    round.offer(top.peer, top.key.wrapping_add(rounds * i64::from(weight)));
                    break;
                }
                self.take_out(tier, top.peer);
                self.peers[top.peer as usize].set_place(Place::Aside);
            }
        }
    }

    fn ask_recovering(&mut self, tier: usize, round: &mut Round) {
        let Tier { recovering, first, .. } = self.head.tiers[tier];
        for &index in &self.recovering[first as usize..][..recovering as usize] {
            let peer = &mut self.peers[index as usize];
            if peer.frozen == 0 {
                let growth = growth(peer, &mut self.times[index as usize], self.head.clock_ms);
                peer.current = peer.current.wrapping_add(growth);
                round.total += growth;
                peer.effective = peer.weight.min(peer.effective + 1);
                round.offer(index, peer.current);
            }
        }
    }

    /// The winner pays for the round.
    fn charge(&mut self, peer: PeerIndex, total: i64) {
        let subject = &mut self.peers[peer as usize];
        if subject.place() == Place::Heap {
            self.lower(peer, total);
        } else {
            subject.current = subject.current.wrapping_sub(total);
        }
    }

    /// Moves those that reached their full weight in this round to their heap.
    fn finish_recovered(&mut self, tier: usize) {
        let Tier { recovering, first, .. } = self.head.tiers[tier];
        for at in (first..first + recovering).rev() {
            let peer = self.recovering[at as usize];
            if self.peers[peer as usize].effective >= self.peers[peer as usize].weight {
                settle(self, peer);
            }
        }
    }

    /// Lowers the key of a heap member.
    fn lower(&mut self, peer: PeerIndex, by: i64) {
        let at = self.positions[peer as usize] as usize;
        let mut heap = self.heap_of(peer);
        heap.slots[at].key = heap.slots[at].key.wrapping_sub(by);
        heap.sink(at);
    }

    pub(crate) fn class_of(&self, peer: PeerIndex) -> usize {
        let tier = &self.head.tiers[self.tier_of(peer)];
        (tier.first + self.peers[peer as usize].class) as usize
    }

    pub(crate) fn heap_of(&mut self, peer: PeerIndex) -> Heap<'_> {
        let Class { start, len, .. } = self.classes[self.class_of(peer)];
        Heap { slots: &mut self.slots[start as usize..][..len as usize], positions: self.positions }
    }

    /// Takes `peer` out of its index, with its account.
    pub(crate) fn take_out(&mut self, tier: usize, peer: PeerIndex) {
        let index = peer as usize;
        let at = self.positions[index];
        let first = self.head.tiers[tier].first;
        match self.peers[index].place() {
            Place::Out | Place::Aside | Place::Wheel => {}
            Place::Heap => {
                let mut heap = self.heap_of(peer);
                let key = heap.slots[at as usize].key;
                heap.remove(at as usize);
                let class = self.class_of(peer);
                self.classes[class].len -= 1;
                let weight = i64::from(self.classes[class].weight);
                let tier = &mut self.head.tiers[tier];
                tier.total -= weight;
                self.peers[index].current = key.wrapping_add(tier.rounds * weight);
            }
            Place::Recovering => {
                let len = &mut self.head.tiers[tier].recovering;
                unlist(self.recovering, self.positions, first, len, at);
            }
            Place::Resting => {
                let len = &mut self.head.tiers[tier].resting;
                unlist(self.resting, self.positions, first, len, at);
            }
        }
        self.peers[index].set_place(Place::Out);
    }

    /// Puts a peer that is in no index into that of `place`.
    pub(crate) fn put_in(&mut self, tier: usize, peer: PeerIndex, place: Place) {
        let index = peer as usize;
        let first = self.head.tiers[tier].first;
        match place {
            Place::Out | Place::Aside | Place::Wheel => {}
            Place::Heap => {
                let class = self.class_of(peer);
                let Class { weight, start, len, .. } = self.classes[class];
                let tier = &mut self.head.tiers[tier];
                let weight = i64::from(weight);
                tier.total += weight;
                let key = self.peers[index].current.wrapping_sub(tier.rounds * weight);
                self.slots[(start + len) as usize] = Slot { key, peer, stamp: 0 };
                self.classes[class].len += 1;
                self.heap_of(peer).added();
            }
            Place::Recovering => {
                let len = &mut self.head.tiers[tier].recovering;
                list(self.recovering, self.positions, first, len, peer);
            }
            Place::Resting => {
                let until = self.peers[index].rests_until();
                let tier = &mut self.head.tiers[tier];
                tier.earliest = if tier.resting == 0 { until } else { tier.earliest.min(until) };
                list(self.resting, self.positions, first, &mut tier.resting, peer);
            }
        }
        self.peers[index].set_place(place);
    }
}

/// Appends `peer` to the list that begins at `first` and has `len` members.
fn list(list: &mut [PeerIndex], at: &mut [u32], first: u32, len: &mut u32, peer: PeerIndex) {
    list[(first + *len) as usize] = peer;
    at[peer as usize] = *len;
    *len += 1;
}

/// Removes the member at offset `gone`; the last one takes its place.
fn unlist(list: &mut [PeerIndex], at: &mut [u32], first: u32, len: &mut u32, gone: u32) {
    *len -= 1;
    let last = list[(first + *len) as usize];
    list[(first + gone) as usize] = last;
    at[last as usize] = gone;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Memory, PeerOptions};

    fn check(weights: &[u32], expected: &str) {
        let options: Vec<_> = weights
            .iter()
            .map(|&weight| PeerOptions { weight, ..PeerOptions::default() })
            .collect();
        let mut memory = Memory::new(&METHOD, &options, &[]);
        let order: String = expected
            .chars()
            .map(|_| {
                let mut state = memory.state();
                let peer = state.pick(&Ask::at(100), &mut Tried::new()).expect("a peer");
                state.done(peer);
                char::from(b'a' + peer as u8)
            })
            .collect();
        assert_eq!(order, expected, "{weights:?}");
    }

    #[test]
    fn sequences_of_nginx() {
        check(&[5, 1, 1], "aabacaaaabacaa");
        check(&[1, 1, 1], "abcabc");
        check(&[2, 1], "abaaba");
        check(&[3, 2], "ababaababa");
        check(&[1, 2, 3], "cbacbc");
        check(&[7], "aaa");
    }
}
