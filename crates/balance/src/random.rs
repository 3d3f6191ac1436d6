//! Chance decides, in proportion to the weights, as in nginx's `random`.
//!
//! With `two`, two peers are drawn and the one with less to do is taken (the power of two
//! choices, Mitzenmacher 1996): fewest requests under way in proportion to the weight, or the
//! least time as `least_time` expects it. A peer that cannot be used is drawn again; after twenty
//! such draws the request takes its turn like any other.

use crate::ask::Turn;
use crate::index::{Sums, Table};
use crate::ip_hash::TRIES;
use crate::least_time::eta;
use crate::method::{Method, USUAL};
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::times::{Timing, Until};
use crate::tried::Tried;

/// One draw.
pub static METHOD: Method = Method {
    name: "random",
    about: "Chance decides, in proportion to the weights.",
    pick,
    ..DRAWN
};

/// The one of two with fewer requests under way.
pub static TWO: Method = Method {
    name: "random two",
    about: "Of two peers that are drawn, the one with fewer requests under way is next.",
    pick: pick_two,
    ..DRAWN
};

/// The one of two whose answers begin sooner.
pub static TWO_BY_HEADER: Method = Method {
    name: "random two least_time=header",
    about: "Of two peers that are drawn, the one whose answers begin sooner is next.",
    timing: Some(Timing { until: Until::Header, inflight: false }),
    pick: pick_two,
    ..DRAWN
};

/// The one of two whose answers end sooner.
pub static TWO_BY_LAST_BYTE: Method = Method {
    name: "random two least_time=last_byte",
    about: "Of two peers that are drawn, the one whose answers end sooner is next.",
    timing: Some(Timing { until: Until::LastByte, inflight: false }),
    pick: pick_two,
    ..DRAWN
};

const DRAWN: Method = Method {
    backup: false,
    draws: true,
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    table: Sums::table,
    ..USUAL
};

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    draw(state, turn, tried, PeerIndex::MAX).or_else(|| round_robin::pick(state, turn, tried))
}

fn pick_two(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let drawn = draw(state, turn, tried, PeerIndex::MAX);
    let Some(first) = drawn else { return round_robin::pick(state, turn, tried) };
    let Some(second) = draw(state, turn, tried, first) else {
        return round_robin::pick(state, turn, tried);
    };
    let load = |index: PeerIndex| match state.method().timing {
        None => u64::from(state.peers[index as usize].conns),
        Some(timing) => {
            let (peer, times) = (&state.peers[index as usize], &state.times[index as usize]);
            eta(peer, times, timing.until, turn.now)
        }
    };
    let weight = |index: PeerIndex| u64::from(state.peers[index as usize].weight);
    let second_is_worse = load(second) * weight(first) > load(first) * weight(second);
    Some(if second_is_worse { first } else { second })
}

/// A usable peer other than `except`; `None` when there are too few to draw from, or after too
/// many draws.
fn draw(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &mut Tried,
    except: PeerIndex,
) -> Option<PeerIndex> {
    let enough = state.head.tiers[turn.tier].count > 1;
    let Some(Table::Sums(sums)) = turn.table.filter(|_| enough) else { return None };
    while tried.walk.tries <= TRIES && sums.total() > 0 {
        tried.walk.again = tried.walk.again.wrapping_add(1);
        let peer = sums.at(turn.draw(tried.walk.again, sums.total()));
        if peer != except && state.admits(peer, turn, tried) {
            return Some(peer);
        }
        tried.walk.tries += 1;
    }
    None
}
