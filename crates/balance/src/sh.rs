//! An address decides, with the tables and the arithmetic of IPVS: `sh` and `dh`.
//!
//! A table of 256 slots is filled with the peers in their order: for `sh` (source hashing) each
//! takes as many slots in a row as its weight says, for `dh` (destination hashing) each takes one,
//! and so on round after round. The address, its words folded together, is multiplied by
//! `0x61c88647`, and the upper eight bits are the slot (`ip_vs_sh_hashkey`, `ip_vs_dh_hashkey` and
//! `hash_32` of Linux).
//!
//! When that peer cannot be used the slots behind it are looked at in turn (IPVS does so with the
//! flag `sh-fallback`; without it, it would refuse), and then the request takes its turn like any
//! other.

use crate::ask::Turn;
use crate::index::{Roll, Table};
use crate::method::{Method, USUAL};
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// By the source.
pub static METHOD: Method = Method {
    name: "sh",
    about: "The client's address decides by a table of 256 slots, as in IPVS.",
    table: |roll| fill(roll, |weight| weight),
    ..ADDRESSED
};

/// By the destination.
pub static DESTINATION: Method = Method {
    name: "dh",
    about: "The address that the client came to decides by a table of 256 slots, as in IPVS.",
    table: |roll| fill(roll, |_| 1),
    ..ADDRESSED
};

const ADDRESSED: Method =
    Method { pick, settle: round_robin::settle, rebuild: round_robin::rebuild, ..USUAL };

const SLOTS: u32 = 256;

/// `GOLDEN_RATIO_32` of Linux.
const GOLDEN_RATIO: u32 = 0x61c8_8647;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let Some(Table::Lots(lots)) = turn.table.filter(|_| !turn.key.is_empty()) else {
        return round_robin::pick(state, turn, tried);
    };
    let hash = turn.key.hash.wrapping_mul(GOLDEN_RATIO) >> 24;
    // The first look is at the slot itself; from then on Linux adds the hash once more.
    let slots = std::iter::once(hash).chain((0..SLOTS).map(|n| (n + hash + hash) % SLOTS));
    slots
        .filter_map(|slot| lots.get(slot as usize).copied())
        .find(|peer| state.admits(*peer, turn, tried))
        .or_else(|| round_robin::pick(state, turn, tried))
}

fn fill(roll: &Roll<'_>, slots_of: fn(u32) -> u32) -> Table {
    let members: Vec<(PeerIndex, u32)> = (roll.first..)
        .zip(roll.weights)
        .filter(|(_, weight)| **weight > 0)
        .map(|(peer, weight)| (peer, slots_of(*weight).min(SLOTS)))
        .collect();
    let round = members.iter().flat_map(|(peer, slots)| (0..*slots).map(|_| *peer));
    Table::Lots(round.cycle().take(SLOTS as usize).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Index, Key, Memory, PeerOptions};

    fn pick_for(method: &'static Method, down: Option<u32>, client: [u8; 4]) -> Option<PeerIndex> {
        let options = [1, 2, 5].map(|weight| PeerOptions { weight, ..PeerOptions::default() });
        let mut memory = Memory::new(method, &options, &[]);
        let members = memory.state().members();
        let index = Index::new(method, &members, &|_| "");
        let mut state = memory.state();
        if let Some(down) = down {
            state.set_down(down, true);
        }
        let ask = Ask { key: Key::folded(&client, 0), index: Some(&index), ..Ask::at(1) };
        state.pick(&ask, &mut Tried::new())
    }

    #[test]
    fn slots_by_the_arithmetic_of_linux() {
        // Worked out apart: 0xc0000201 * 0x61c88647 modulo 2^32 is 0x32d51447, slot 0x32 = 50.
        // A round of sh has eight slots: 50 % 8 = 2 is the second peer's.
        assert_eq!(pick_for(&METHOD, None, [192, 0, 2, 1]), Some(1));
        // A round of dh has three: 50 % 3 = 2 is the third one's.
        assert_eq!(pick_for(&DESTINATION, None, [192, 0, 2, 1]), Some(2));
        // Without it: the slots from 2 * 50 on, and 100 % 8 = 4 is the third one's.
        assert_eq!(pick_for(&METHOD, Some(1), [192, 0, 2, 1]), Some(2));
    }

    #[test]
    fn words_of_an_address_are_folded() {
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(Key::folded(&v6, 0).hash, 0x2001_0db9);
        assert_eq!(Key::folded(&[10, 0, 0, 1], 80).hash, 0x0a00_0051);
        assert!(!Key::folded(&[0; 4], 0).is_empty());
    }
}
