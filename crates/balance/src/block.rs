//! A group's state as one value of fixed size, for memory that processes share.
//!
//! The arrays are as long as the kind of block says; the group uses the beginning of each. Memory
//! of a zone that nobody touches costs nothing, so a block may be far larger than its group.

use crate::checks::Checks;
use crate::haproxy::turns::Spot;
use crate::heap::Slot;
use crate::outlier::Record;
use crate::peer::Peer;
use crate::state::{Class, Head, Memory, PeerIndex, State};
use crate::times::Times;

/// A state of fixed size. All zeroes are a group without peers.
pub trait Block: system::shared::Plain {
    /// The most peers, of both tiers together.
    const ROOM: usize;

    /// Begins with a copy of `memory`. `false`, and no change, when it does not fit.
    fn load(&mut self, memory: &mut Memory) -> bool;

    /// Borrows it for picks and events.
    fn state(&mut self) -> State<'_>;
}

macro_rules! blocks {
    ($($(#[$note:meta])* $name:ident: $room:literal,)*) => {$(
        plain! {
            $(#[$note])*
            pub struct $name {
                head: Head,
                peers: [Peer; $room],
                times: [Times; $room],
                checks: [Checks; $room],
                records: [Record; $room],
                spots: [Spot; $room],
                positions: [u32; $room],
                slots: [Slot; $room],
                classes: [Class; $room],
                recovering: [PeerIndex; $room],
                resting: [PeerIndex; $room],
            }
        }

        impl Block for $name {
            const ROOM: usize = $room;

            fn load(&mut self, memory: &mut Memory) -> bool {
                let from = memory.state();
                let count = from.peers.len();
                if count > Self::ROOM {
                    return false;
                }
                self.head = *from.head;
                self.peers[..count].copy_from_slice(from.peers);
                self.times[..count].copy_from_slice(from.times);
                self.checks[..count].copy_from_slice(from.checks);
                self.records[..count].copy_from_slice(from.records);
                self.spots[..count].copy_from_slice(from.spots);
                self.positions[..count].copy_from_slice(from.positions);
                self.slots[..count].copy_from_slice(from.slots);
                self.classes[..count].copy_from_slice(from.classes);
                self.recovering[..count].copy_from_slice(from.recovering);
                self.resting[..count].copy_from_slice(from.resting);
                true
            }

            #[inline]
            fn state(&mut self) -> State<'_> {
                let count = self.head.room().min(Self::ROOM);
                State {
                    head: &mut self.head,
                    peers: &mut self.peers[..count],
                    times: &mut self.times[..count],
                    checks: &mut self.checks[..count],
                    records: &mut self.records[..count],
                    spots: &mut self.spots[..count],
                    positions: &mut self.positions[..count],
                    slots: &mut self.slots[..count],
                    classes: &mut self.classes[..count],
                    recovering: &mut self.recovering[..count],
                    resting: &mut self.resting[..count],
                }
            }
        }
    )*};
}

blocks! {
    /// Room for 64 peers.
    Block64: 64,
    /// Room for 1,024 peers.
    Block1k: 1024,
    /// Room for 16,384 peers.
    Block16k: 16384,
    /// Room for 131,072 peers.
    Block128k: 131072,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, PeerOptions, Tried, round_robin};
    use std::sync::Arc;
    use system::shared::{Guarded, Zone};

    fn memory(count: usize) -> Memory {
        Memory::new(&round_robin::METHOD, &vec![PeerOptions::default(); count], &[])
    }

    #[test]
    fn a_block_goes_on_where_the_memory_was() {
        let mut plain = memory(40);
        let mut tried = Tried::new();
        (0..7).for_each(|_| assert!(plain.state().pick(&Ask::at(1), &mut tried).is_some()));
        let zone = Arc::new(Zone::new(size_of::<Guarded<Block64>>() + 256).expect("memory"));
        let view = zone.view::<Guarded<Block64>, u8>().expect("room");
        let mut block = view.header().lock().or_repair(|_| panic!("nobody died"));
        assert_eq!(block.state().pick(&Ask::at(1), &mut Tried::new()), None);
        assert!(!block.load(&mut memory(65)));
        assert!(block.load(&mut plain));
        for _ in 0..100 {
            let wanted = plain.state().pick(&Ask::at(2), &mut Tried::new());
            assert_eq!(block.state().pick(&Ask::at(2), &mut Tried::new()), wanted);
        }
    }
}
