//! What an algorithm works out of a group's membership and weights alone, ahead of any pick:
//! sums, rings, tables.
//!
//! An index is not part of the state. It follows from the state's generation, every process that
//! shares a state works it out for itself, and all come to the same. It is made when a group is,
//! and anew when [`State::generation`](crate::State::generation) has moved on:
//!
//! ```
//! use balance::{Ask, Index, Key, Memory, PeerOptions, Tried};
//! let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
//! let method = &balance::hash::CONSISTENT;
//! let mut memory = Memory::new(method, &[PeerOptions::default(); 3], &[]);
//! let mut index = Index::new(method, &memory.state().members(), &|peer| names[peer as usize]);
//! if index.generation() != memory.state().generation() {
//!     index = Index::new(method, &memory.state().members(), &|peer| names[peer as usize]);
//! }
//! let ask = Ask { key: Key::text(b"/a"), index: Some(&index), ..Ask::at(100) };
//! let peer = memory.state().pick(&ask, &mut Tried::new());
//! assert_eq!(peer, memory.state().pick(&ask, &mut Tried::new()));
//! ```

use crate::method::Method;
use crate::{PeerIndex, haproxy, hash, maglev, rendezvous};

/// Who is in a group at one moment.
#[derive(Clone, Debug, Default)]
pub struct Members {
    pub(crate) generation: u32,
    /// Where the tiers begin.
    pub(crate) firsts: [PeerIndex; 2],
    /// The weights of both tiers' peers.
    pub(crate) tiers: [Vec<u32>; 2],
    /// Which of them are in: neither down, nor draining, nor ill.
    pub(crate) is_in: [Vec<bool>; 2],
}

/// The members of one tier.
pub(crate) struct Roll<'a> {
    /// The first peer.
    pub(crate) first: PeerIndex,
    pub(crate) weights: &'a [u32],
    /// Whether it is in, for methods whose index is of those that are in.
    pub(crate) is_in: &'a [bool],
    /// What the configuration calls a peer. Peers of one name are one server.
    pub(crate) name: &'a dyn Fn(PeerIndex) -> &'a str,
}

/// What was worked out for one group.
#[derive(Clone, Debug)]
pub struct Index {
    generation: u32,
    tiers: [Table; 2],
}

/// What was worked out for one tier.
#[derive(Clone, Debug, Default)]
pub(crate) enum Table {
    #[default]
    None,
    Sums(Sums),
    /// For each slot its peer.
    Lots(Box<[PeerIndex]>),
    Ring(hash::Ring),
    Points(haproxy::ring::Points),
    Maglev(maglev::Slots),
    Rendezvous(rendezvous::Seeds),
}

impl Index {
    /// Works it out. `name` gives what the configuration calls a peer: it decides where the peer
    /// is found by consistent hashing, so it should stay what it is when others come and go.
    pub fn new<'a>(
        method: &Method,
        members: &'a Members,
        name: &'a dyn Fn(PeerIndex) -> &'a str,
    ) -> Index {
        let table = |tier: usize| {
            let (first, weights) = (members.firsts[tier], &members.tiers[tier]);
            (method.table)(&Roll { first, weights, is_in: &members.is_in[tier], name })
        };
        Index { generation: members.generation, tiers: [table(0), table(1)] }
    }

    /// The generation of the members that it was made of.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn tier(&self, tier: usize) -> &Table {
        &self.tiers[tier]
    }
}

/// For each peer the sum of the weights before it, and of all.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    first: PeerIndex,
    before: Box<[u64]>,
    total: u64,
}

impl Sums {
    pub(crate) fn table(roll: &Roll<'_>) -> Table {
        let mut total = 0;
        let sum = |weight: &u32| {
            total += u64::from(*weight);
            total - u64::from(*weight)
        };
        let before = roll.weights.iter().map(sum).collect();
        Table::Sums(Sums { first: roll.first, before, total })
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The peer whose share of the line from 0 to the total covers `point`.
    pub(crate) fn at(&self, point: u64) -> PeerIndex {
        let after = self.before.partition_point(|before| *before <= point);
        self.first + after.saturating_sub(1) as PeerIndex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_a_line_belong_to_peers_by_weight() {
        let weights = [2, 1, 3];
        let roll = Roll { first: 5, weights: &weights, is_in: &[true; 3], name: &|_| "" };
        let Table::Sums(sums) = Sums::table(&roll) else { panic!("sums") };
        assert_eq!(sums.total(), 6);
        let found: Vec<_> = (0..6).map(|point| sums.at(point)).collect();
        assert_eq!(found, [5, 5, 6, 7, 7, 7]);
    }
}
