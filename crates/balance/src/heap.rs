//! The heap of one class: the peers of one tier that have the same effective weight.
//!
//! In a round every member's account grows by the same weight, so their order does not change
//! and nothing needs to be touched: a slot keeps `current - rounds * weight`, with the rounds
//! counted by the tier. Only the chosen peer's slot moves. Of equal accounts the lower index
//! comes first, which is what nginx's loop with its strict comparison does.

use crate::PeerIndex;

/// Children of a node: four slots are one cache line, and the heap is half as deep as with two.
const ARITY: usize = 4;

plain! {
    /// One member of a class.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Slot {
        /// The account less what the rounds so far would have added to it.
        pub(crate) key: i64,
        pub(crate) peer: PeerIndex,
        /// Of equal keys the smaller one comes first. 0 in the round robin.
        pub(crate) stamp: u32,
    }
}

impl Slot {
    fn before(&self, other: &Slot) -> bool {
        (other.key, self.stamp, self.peer) < (self.key, other.stamp, other.peer)
    }
}

/// The members in use of one class, and where each peer's slot is.
pub(crate) struct Heap<'a> {
    pub(crate) slots: &'a mut [Slot],
    pub(crate) positions: &'a mut [u32],
}

impl Heap<'_> {
    /// Takes the last slot, which the caller just filled, to its place.
    pub(crate) fn added(&mut self) {
        self.rise(self.slots.len() - 1);
    }

    /// Overwrites the slot at `at` with the last one. The caller drops the last one then.
    pub(crate) fn remove(&mut self, at: usize) {
        let last = self.slots.len() - 1;
        if at == last {
            return;
        }
        let moved = self.slots[last];
        let goes_up = moved.before(&self.slots[at]);
        self.slots[at] = moved;
        if goes_up {
            self.rise(at);
        } else {
            self.sink_within(at, last);
        }
    }

    /// Gives the slot at `at` another key.
    pub(crate) fn change(&mut self, at: usize, key: i64) {
        let before = self.slots[at];
        self.slots[at].key = key;
        if self.slots[at].before(&before) {
            self.rise(at);
        } else {
            self.sink(at);
        }
    }

    /// Restores the order after the key at `at` became smaller, or its stamp larger.
    pub(crate) fn sink(&mut self, at: usize) {
        self.sink_within(at, self.slots.len());
    }

    fn rise(&mut self, mut at: usize) {
        let slot = self.slots[at];
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if !slot.before(&self.slots[parent]) {
                break;
            }
            self.put(at, self.slots[parent]);
            at = parent;
        }
        self.put(at, slot);
    }

    fn sink_within(&mut self, mut at: usize, len: usize) {
        let slots = &mut self.slots[..len];
        let slot = slots[at];
        loop {
            let first = at * ARITY + 1;
            let Some(children) = slots.get(first..len.min(first + ARITY)) else { break };
            let mut best = slot;
            let mut best_at = at;
            for (offset, child) in children.iter().enumerate() {
                if child.before(&best) {
                    best = *child;
                    best_at = first + offset;
                }
            }
            if best_at == at {
                break;
            }
            slots[at] = best;
            self.positions[best.peer as usize] = at as u32;
            at = best_at;
        }
        slots[at] = slot;
        self.positions[slot.peer as usize] = at as u32;
    }

    fn put(&mut self, at: usize, slot: Slot) {
        self.slots[at] = slot;
        self.positions[slot.peer as usize] = at as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_order(heap: &Heap<'_>) {
        for (at, slot) in heap.slots.iter().enumerate() {
            assert_eq!(heap.positions[slot.peer as usize] as usize, at);
            assert!(at == 0 || !slot.before(&heap.slots[(at - 1) / ARITY]));
        }
    }

    proptest! {
        #[test]
        fn stays_ordered(keys in prop::collection::vec(-50i64..50, 1..60), picks in 0usize..200) {
            let n = keys.len();
            let mut slots = vec![Slot::default(); n];
            let mut positions = vec![0; n];
            for (peer, &key) in keys.iter().enumerate() {
                slots[peer] = Slot { key, peer: peer as u32, stamp: 0 };
                let mut heap = Heap { slots: &mut slots[..=peer], positions: &mut positions };
                heap.added();
                check_order(&heap);
            }
            let at = picks % n;
            let mut heap = Heap { slots: &mut slots, positions: &mut positions };
            heap.slots[at].key -= picks as i64;
            heap.sink(at);
            check_order(&heap);
            heap.remove(at);
            check_order(&Heap { slots: &mut slots[..n - 1], positions: &mut positions });
        }
    }
}
