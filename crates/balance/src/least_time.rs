//! The peer that is expected to answer first, pick by pick as nginx's `least_time`.
//!
//! What is expected of a peer is its average time, taken up to the next 20 milliseconds so that
//! peers of about the same speed take turns, times the requests that it has and the new one, in
//! proportion to its weight. Beyond five seconds all times are alike and only the load counts.
//! The time of a peer that was left alone halves with every `fail_timeout`, so that it is tried
//! again. With `inflight` the average over the requests under way counts when it is worse.
//!
//! The tier is walked, up to [`SCANNED`] peers; of a larger one [`DRAWN`] are drawn, which stand in
//! round robin besides, for requests that drew none that can be used.

use crate::ask::Turn;
use crate::method::{Method, USUAL};
use crate::peer::Peer;
use crate::round_robin;
use crate::slow_start::{growth, weight_in_parts};
use crate::state::{PeerIndex, State};
use crate::times::{Times, Timing, Until};
use crate::tried::Tried;

/// By the time until the head of the answer.
pub static HEADER: Method = Method {
    name: "least_time header",
    about: "The peer whose answers begin soonest is next, considering the requests under way.",
    timing: Some(Timing { until: Until::Header, inflight: false }),
    draws: true,
    slow_start: true,
    pick,
    settle,
    rebuild,
    ..USUAL
};

/// By the time until the end of the answer.
pub static LAST_BYTE: Method = Method {
    name: "least_time last_byte",
    about: "The peer whose answers end soonest is next, considering the requests under way.",
    timing: Some(Timing { until: Until::LastByte, inflight: false }),
    draws: true,
    slow_start: true,
    pick,
    settle,
    rebuild,
    ..USUAL
};

/// By the time until the head, of requests under way too.
pub static HEADER_INFLIGHT: Method = Method {
    name: "least_time header inflight",
    about: "As `least_time header`; answers that are waited for count too.",
    timing: Some(Timing { until: Until::Header, inflight: true }),
    draws: true,
    slow_start: true,
    pick,
    settle,
    rebuild,
    ..USUAL
};

/// By the time until the end, of requests under way too.
pub static LAST_BYTE_INFLIGHT: Method = Method {
    name: "least_time last_byte inflight",
    about: "As `least_time last_byte`; answers that are waited for count too.",
    timing: Some(Timing { until: Until::LastByte, inflight: true }),
    draws: true,
    slow_start: true,
    pick,
    settle,
    rebuild,
    ..USUAL
};

/// Tiers up to this size are walked.
const SCANNED: u32 = 256;

/// So many peers of a larger tier are drawn for a pick.
const DRAWN: u32 = 32;

/// Times beyond this are equally bad.
const WORST_MS: u64 = 5_000;

/// Times within one such step are equally good.
const STEP_MS: u64 = 20;

/// How finely times are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// In steps, up to a limit.
    Rough,
    /// By the millisecond.
    Exact,
}

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    pick_by(state, turn, tried, Expectation::Rough)
}

pub(crate) fn pick_by(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &mut Tried,
    how: Expectation,
) -> Option<PeerIndex> {
    let tier = &state.head.tiers[turn.tier];
    let (first, count) = (tier.first, tier.count);
    let all = first..first + count;
    if count <= SCANNED {
        return among(state, turn, tried, how, all);
    }
    let drawn = |n| first + turn.draw(n, count.into()) as u32;
    among(state, turn, tried, how, (0..DRAWN).map(drawn))
        .or_else(|| round_robin::pick(state, turn, tried))
}

pub(crate) fn settle(state: &mut State<'_>, peer: PeerIndex) {
    if state.head.tiers[state.tier_of(peer)].count > SCANNED {
        round_robin::settle(state, peer);
    }
}

pub(crate) fn rebuild(state: &mut State<'_>, tier: usize) {
    if state.head.tiers[tier].count > SCANNED {
        round_robin::rebuild(state, tier);
    }
}

fn among(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    how: Expectation,
    candidates: impl Iterator<Item = PeerIndex> + Clone,
) -> Option<PeerIndex> {
    let mut best: Option<(PeerIndex, u64)> = None;
    let mut many = false;
    let mut passed = 0;
    for (nth, index) in candidates.clone().enumerate() {
        if tried.contains(index) || !state.peers[index as usize].is_usable(turn.now) {
            continue;
        }
        state.times[index as usize].look(turn.now_ms);
        let eta = state.eta(index, turn, how);
        let Some((leader, least)) = best else {
            best = Some((index, eta));
            passed = nth;
            continue;
        };
        let [weight, other] = [leader, index].map(|peer| state.weight_now(peer));
        match (eta * weight).cmp(&(least * other)) {
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
    Some(round(state, turn, tried, how, (leader, least), candidates.skip(passed)))
}

/// A round of smooth weighted round robin among those of whom the same is expected, from the
/// first of them on.
fn round(
    state: &mut State<'_>,
    turn: &Turn<'_>,
    tried: &Tried,
    how: Expectation,
    (mut best, least): (PeerIndex, u64),
    candidates: impl Iterator<Item = PeerIndex>,
) -> PeerIndex {
    let mut total = 0;
    for index in candidates {
        let equal =
            state.eta(index, turn, how) * state.weight_now(best) == least * state.weight_now(index);
        let peer = &mut state.peers[index as usize];
        if !equal || tried.contains(index) || !peer.is_usable(turn.now) {
            continue;
        }
        let growth = growth(peer, &mut state.times[index as usize], turn.now_ms);
        total += growth;
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

impl State<'_> {
    fn eta(&self, peer: PeerIndex, turn: &Turn<'_>, how: Expectation) -> u64 {
        let until = self.method().timing.map_or(Until::LastByte, |timing| timing.until);
        let (peer, times) = (&self.peers[peer as usize], &self.times[peer as usize]);
        match how {
            Expectation::Rough => eta(peer, times, until, turn.now),
            Expectation::Exact => {
                (expected(peer, times, until, turn.now) + 1).min(1 << 40)
                    * (1 + u64::from(peer.conns))
            }
        }
    }

    fn weight_now(&self, peer: PeerIndex) -> u64 {
        let (peer, times) = (&self.peers[peer as usize], &self.times[peer as usize]);
        weight_in_parts(peer, times, self.head.clock_ms)
    }
}

/// What is expected of a peer, in milliseconds, times its requests.
pub(crate) fn eta(peer: &Peer, times: &Times, until: Until, now: u64) -> u64 {
    let expected = expected(peer, times, until, now);
    let rough = match expected > WORST_MS {
        true => WORST_MS,
        false => expected + STEP_MS - expected % STEP_MS,
    };
    rough * (1 + u64::from(peer.conns))
}

/// The time of a peer's answer, in milliseconds.
fn expected(peer: &Peer, times: &Times, until: Until, now: u64) -> u64 {
    let mut expected = match until {
        Until::Header => u64::from(times.header_ms),
        Until::LastByte => u64::from(times.total_ms),
    };
    let alone = now.saturating_sub(peer.checked);
    if alone > u64::from(peer.fail_timeout) {
        let halves = alone / (u64::from(peer.fail_timeout) + 1);
        expected = expected.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0);
    }
    match times.inflight {
        0 => expected,
        _ => expected.max(times.inflight_ms.into()),
    }
}
