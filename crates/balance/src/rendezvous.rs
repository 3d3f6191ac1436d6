//! A key decides by the highest bid (rendezvous hashing, Thaler and Ravishankar 1998).
//!
//! Each peer bids for each key; when one leaves, only its own keys move, each to whoever bid
//! next. Bids are weighted by `-weight / ln(x)` with x drawn from key and name, so that shares
//! follow the weights exactly (Wang and Ravishankar).
//!
//! Asking everybody costs as many steps as there are peers. In a group of more than [`ASKED`]
//! peers these are dealt by their names into [`HOUSES`]; the houses bid with the weight of all
//! their peers, and then those of the best house. Shares stay exact, and about twice as many keys
//! move as must: some of the others leave the house whose weight has changed.

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
const ASKED: usize = 512;

/// Houses of a larger group.
const HOUSES: usize = 128;

/// So many houses without any usable peer are passed by.
const PASSED: usize = 8;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let Some(Table::Rendezvous(seeds)) = turn.table.filter(|_| !turn.key.is_empty()) else {
        return round_robin::pick(state, turn, tried);
    };
    let best = seeds.best(turn.key.wide(), |peer| state.admits(peer, turn, tried));
    best.or_else(|| round_robin::pick(state, turn, tried))
}

/// Who bids, and with what: what its name comes to, and its weight.
#[derive(Clone, Copy, Debug)]
struct Bidder {
    peer: PeerIndex,
    seed: u64,
    weight: f64,
}

/// The bidders of one tier.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    /// The peers; in a large tier those of each house stand together.
    bidders: Box<[Bidder]>,
    /// All weights are the same, and bids need not be weighted.
    equal: bool,
    /// By house of a large tier: where its peers end, and their weight.
    houses: Box<[(usize, f64)]>,
}

impl Seeds {
    fn table(roll: &Roll<'_>) -> Table {
        let bidder = |(peer, weight): (PeerIndex, &u32)| {
            let seed = seed_of((roll.name)(peer));
            Bidder { peer, seed, weight: f64::from(*weight) }
        };
        let mut bidders: Vec<Bidder> = (roll.first..).zip(roll.weights).map(bidder).collect();
        let equal = roll.weights.windows(2).all(|pair| pair[0] == pair[1]);
        let mut houses = Vec::new();
        if bidders.len() > ASKED {
            let house_of = |bidder: &Bidder| mix(bidder.seed) as usize % HOUSES;
            bidders.sort_by_key(house_of);
            let mut from = 0;
            for house in 0..HOUSES {
                let end = bidders.partition_point(|bidder| house_of(bidder) <= house);
                let weight = bidders[from..end].iter().map(|bidder| bidder.weight).sum();
                houses.push((end, weight));
                from = end;
            }
        }
        Table::Rendezvous(Seeds { bidders: bidders.into(), equal, houses: houses.into() })
    }

    /// The best of those that are admitted.
    fn best(&self, key: u64, admits: impl Fn(PeerIndex) -> bool) -> Option<PeerIndex> {
        if self.houses.is_empty() {
            return best_of(&self.bidders, self.equal, key, &admits);
        }
        let mut bids = [f64::NEG_INFINITY; HOUSES];
        for (house, (bid, (_, weight))) in bids.iter_mut().zip(&self.houses).enumerate() {
            if *weight > 0.0 {
                *bid = weighted(*weight, drawn(house as u64, key));
            }
        }
        for _ in 0..PASSED {
            let best = (0..HOUSES).max_by(|a, b| bids[*a].total_cmp(&bids[*b]))?;
            let from = best.checked_sub(1).map_or(0, |before| self.houses[before].0);
            let peers = &self.bidders[from..self.houses[best].0];
            if let Some(peer) = best_of(peers, self.equal, key, &admits) {
                return Some(peer);
            }
            bids[best] = f64::NEG_INFINITY;
        }
        None
    }
}

fn best_of(
    bidders: &[Bidder],
    equal: bool,
    key: u64,
    admits: &impl Fn(PeerIndex) -> bool,
) -> Option<PeerIndex> {
    let mut best: Option<(PeerIndex, f64)> = None;
    for Bidder { peer, seed, weight } in bidders {
        let drawn = drawn(*seed, key);
        let bid = if equal { drawn } else { weighted(*weight, drawn) };
        if best.is_none_or(|(_, most)| bid > most) && admits(*peer) {
            best = Some((*peer, bid));
        }
    }
    best.map(|(peer, _)| peer)
}

/// A number between 0 and 1, neither of them included.
fn drawn(seed: u64, key: u64) -> f64 {
    // 53 bits are what a double holds; half a step keeps the logarithm below 0.
    ((mix(seed ^ mix(key)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn weighted(weight: f64, drawn: f64) -> f64 {
    -weight / drawn.ln()
}
