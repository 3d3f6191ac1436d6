//! A key decides by the highest bid (rendezvous hashing, Thaler and Ravishankar 1998).
//!
//! Each peer bids for each key; when one leaves, only its own keys move, each to whoever bid
//! next. Bids are weighted by `-weight / ln(x)` with x drawn from key and name, so that shares
//! follow the weights exactly (Wang and Ravishankar).
//!
//! Asking everybody costs as many steps as there are peers. So keys are first dealt into 65,536
//! lots, and in a group of more than [`ASKED`] peers the best bidders of a lot are remembered
//! from the first time that it was asked for. When all of these cannot be used, the request takes
//! its turn like any other.

use std::cell::OnceCell;

use crate::ask::{Turn, mix};
use crate::index::{Roll, Table};
use crate::maglev::seed_of;
use crate::method::{Method, USUAL};
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// By the highest bid.
pub static METHOD: Method = Method {
    name: "hash rendezvous",
    about: "A key decides by the highest bid; when a peer leaves, only its keys move.",
    backup: false,
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    pick,
    table: Seeds::table,
    ..USUAL
};

/// Up to so many peers are asked in each pick.
const ASKED: usize = 64;

/// Lots that keys are dealt into.
const LOTS: u64 = 1 << 16;

/// How many bidders of a lot are remembered.
const RANKS: usize = 4;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let Some(Table::Rendezvous(seeds)) = turn.table.filter(|_| !turn.key.is_empty()) else {
        return round_robin::pick(state, turn, tried);
    };
    let lot = turn.key.wide() % LOTS;
    let best = match seeds.ranks.get(lot as usize) {
        Some(ranks) => {
            let ranks = ranks.get_or_init(|| seeds.best_of(lot));
            ranks.iter().copied().find(|peer| state.admits(*peer, turn, tried))
        }
        None => seeds.best(lot, |peer| state.admits(peer, turn, tried)),
    };
    best.or_else(|| round_robin::pick(state, turn, tried))
}

/// The bidders of one tier.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    first: PeerIndex,
    /// By peer: what its name comes to, and its weight.
    bidders: Box<[(u64, f64)]>,
    /// All weights are the same, and bids need not be weighted.
    equal: bool,
    /// By lot: the best bidders. Empty for a small tier.
    ranks: Box<[OnceCell<[PeerIndex; RANKS]>]>,
}

impl Seeds {
    fn table(roll: &Roll<'_>) -> Table {
        let bidder =
            |(peer, weight): (PeerIndex, &u32)| (seed_of((roll.name)(peer)), f64::from(*weight));
        let bidders = (roll.first..).zip(roll.weights).map(bidder).collect();
        let equal = roll.weights.windows(2).all(|pair| pair[0] == pair[1]);
        let mut seeds = Seeds { first: roll.first, bidders, equal, ranks: Box::default() };
        if seeds.bidders.len() > ASKED {
            seeds.ranks = vec![OnceCell::new(); LOTS as usize].into();
        }
        Table::Rendezvous(seeds)
    }

    /// What each peer bids for a lot.
    fn bids(&self, lot: u64) -> impl Iterator<Item = (PeerIndex, f64)> + '_ {
        let lot = mix(lot);
        (self.first..).zip(&self.bidders).map(move |(peer, (seed, weight))| {
            // 53 bits are what a double holds; half a step keeps the logarithm below 0.
            let drawn = (mix(seed ^ lot) >> 11) as f64 + 0.5;
            if self.equal {
                return (peer, drawn);
            }
            (peer, -weight / (drawn / (1u64 << 53) as f64).ln())
        })
    }

    fn best(&self, lot: u64, admits: impl Fn(PeerIndex) -> bool) -> Option<PeerIndex> {
        let mut best: Option<(PeerIndex, f64)> = None;
        for (peer, bid) in self.bids(lot) {
            if best.is_none_or(|(_, most)| bid > most) && admits(peer) {
                best = Some((peer, bid));
            }
        }
        best.map(|(peer, _)| peer)
    }

    fn best_of(&self, lot: u64) -> [PeerIndex; RANKS] {
        let mut ranks = [(self.first, f64::NEG_INFINITY); RANKS];
        for (peer, bid) in self.bids(lot) {
            if bid > ranks[RANKS - 1].1 {
                let at = ranks.partition_point(|(_, other)| *other >= bid);
                ranks[at..].rotate_right(1);
                ranks[at] = (peer, bid);
            }
        }
        ranks.map(|(peer, _)| peer)
    }
}
