//! The peer that is expected to answer first, pick by pick as nginx's `least_time`.
//!
//! What is expected of a peer is its average time, taken up to the next 20 milliseconds so that
//! peers of about the same speed take turns, times the requests that it has and the new one, in
//! proportion to its weight. Beyond five seconds all times are alike and only the load counts.
//! The time of a peer that was left alone halves with every `fail_timeout`, so that it is tried
//! again. With `inflight` the average over the requests under way counts when it is worse.
//!
//! The tier is walked, up to [`SCANNED`] peers; of a larger one as many are drawn.

use crate::ask::Turn;
use crate::method::{Method, USUAL};
use crate::peer::Peer;
use crate::state::{PeerIndex, State};
use crate::times::{Times, Timing, Until};
use crate::tried::Tried;

/// By the time until the head of the answer.
pub static HEADER: Method = Method {
    name: "least_time header",
    about: "The peer whose answers begin soonest is next, considering the requests under way.",
    timing: Some(Timing { until: Until::Header, inflight: false }),
    draws: true,
    pick,
    ..USUAL
};

/// By the time until the end of the answer.
pub static LAST_BYTE: Method = Method {
    name: "least_time last_byte",
    about: "The peer whose answers end soonest is next, considering the requests under way.",
    timing: Some(Timing { until: Until::LastByte, inflight: false }),
    draws: true,
    pick,
    ..USUAL
};

/// By the time until the head, of requests under way too.
pub static HEADER_INFLIGHT: Method = Method {
    name: "least_time header inflight",
    about: "As `least_time header`; answers that are waited for count too.",
    timing: Some(Timing { until: Until::Header, inflight: true }),
    draws: true,
    pick,
    ..USUAL
};

/// By the time until the end, of requests under way too.
pub static LAST_BYTE_INFLIGHT: Method = Method {
    name: "least_time last_byte inflight",
    about: "As `least_time last_byte`; answers that are waited for count too.",
    timing: Some(Timing { until: Until::LastByte, inflight: true }),
    draws: true,
    pick,
    ..USUAL
};

/// So many peers are looked at in a pick.
const SCANNED: u32 = 256;

/// Times beyond this are equally bad.
const WORST_MS: u64 = 5_000;

/// Times within one such step are equally good.
const STEP_MS: u64 = 20;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let tier = &state.head.tiers[turn.tier];
    let (first, count) = (tier.first, tier.count);
    if count > SCANNED {
        let drawn = |n| first + turn.draw(n, count.into()) as u32;
        return among(state, turn, tried, (0..SCANNED).map(drawn));
    }
    among(state, turn, tried, first..first + count)
}

fn among(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    candidates: impl Iterator<Item = PeerIndex> + Clone,
) -> Option<PeerIndex> {
    let mut best: Option<(PeerIndex, u64)> = None;
    let mut many = false;
    let until = until(state);
    let mut passed = 0;
    for (nth, index) in candidates.clone().enumerate() {
        if tried.contains(index) || !state.peers[index as usize].is_usable(turn.now) {
            continue;
        }
        state.times[index as usize].look(turn.now_ms);
        let (peer, times) = (&state.peers[index as usize], &state.times[index as usize]);
        let eta = eta(peer, times, until, turn.now);
        let Some((leader, least)) = best else {
            best = Some((index, eta));
            passed = nth;
            continue;
        };
        let weight = state.peers[leader as usize].weight;
        match (eta * u64::from(weight)).cmp(&(least * u64::from(peer.weight))) {
            std::cmp::Ordering::Less => {
                best = Some((index, eta));
                many = false;
                passed = nth;
            }
            std::cmp::Ordering::Equal => many |= index != leader,
            std::cmp::Ordering::Greater => {}
        }
    }
    let (leader, least) = best?;
    if !many {
        return Some(leader);
    }
    Some(round(state, turn, tried, (leader, least), candidates.skip(passed)))
}

/// A round of smooth weighted round robin among those of whom the same is expected, from the
/// first of them on.
fn round(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    (mut best, least): (PeerIndex, u64),
    candidates: impl Iterator<Item = PeerIndex>,
) -> PeerIndex {
    let mut total = 0;
    let until = until(state);
    for index in candidates {
        let peer = &state.peers[index as usize];
        let eta = eta(peer, &state.times[index as usize], until, turn.now);
        let leader = &state.peers[best as usize];
        let equal = eta * u64::from(leader.weight) == least * u64::from(peer.weight);
        if !equal || tried.contains(index) || !peer.is_usable(turn.now) {
            continue;
        }
        let growth = i64::from(peer.effective);
        total += growth;
        let peer = &mut state.peers[index as usize];
        peer.current = peer.current.wrapping_add(growth);
        peer.effective = peer.weight.min(peer.effective + 1);
        if peer.current > state.peers[best as usize].current {
            best = index;
        }
    }
    let paying = &mut state.peers[best as usize];
    paying.current = paying.current.wrapping_sub(total);
    best
}

fn until(state: &State<'_>) -> Until {
    state.method().timing.map_or(Until::LastByte, |timing| timing.until)
}

/// What is expected of a peer, in milliseconds, times its requests.
pub(crate) fn eta(peer: &Peer, times: &Times, until: Until, now: u64) -> u64 {
    let mut expected = match until {
        Until::Header => u64::from(times.header_ms),
        Until::LastByte => u64::from(times.total_ms),
    };
    let alone = now.saturating_sub(peer.checked);
    if alone > u64::from(peer.fail_timeout) {
        let halves = alone / (u64::from(peer.fail_timeout) + 1);
        expected = expected.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0);
    }
    if times.inflight > 0 {
        expected = expected.max(times.inflight_ms.into());
    }
    expected = match expected > WORST_MS {
        true => WORST_MS,
        false => expected + STEP_MS - expected % STEP_MS,
    };
    expected * (1 + u64::from(peer.conns))
}
