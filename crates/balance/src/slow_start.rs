//! `slow_start`: the share of a peer that comes back grows from nothing to its full weight.
//!
//! It begins when a peer passes its trial after failures, and when an operator or its checks take
//! it back. Weights are whole numbers; what a growing one leaves over is kept as a credit, so that
//! a peer gets a tenth of its share after a tenth of the time, and so on.

use crate::PeerIndex;
use crate::peer::Peer;
use crate::state::State;
use crate::times::Times;

/// How many parts a unit of weight has.
pub(crate) const PARTS: u64 = 1000;

impl State<'_> {
    /// `peer` is back.
    pub(crate) fn start_slowly(&mut self, peer: PeerIndex) {
        if self.peers[peer as usize].slow_start_ms != 0 && self.method().slow_start {
            let times = &mut self.times[peer as usize];
            times.started_ms = self.head.clock_ms.max(1);
            times.credit = 0;
        }
    }

    /// Whether a peer has not reached its full share.
    pub(crate) fn is_starting(&self, peer: PeerIndex) -> bool {
        is_starting(&self.peers[peer as usize], &self.times[peer as usize], self.head.clock_ms)
    }
}

fn is_starting(peer: &Peer, times: &Times, now_ms: u64) -> bool {
    peer.slow_start_ms != 0
        && times.started_ms != 0
        && now_ms.saturating_sub(times.started_ms) < u64::from(peer.slow_start_ms)
}

/// By how much a peer's account grows in a round.
pub(crate) fn growth(peer: &Peer, times: &mut Times, now_ms: u64) -> i64 {
    if !is_starting(peer, times, now_ms) {
        return i64::from(peer.effective);
    }
    let passed = now_ms.saturating_sub(times.started_ms);
    let parts = u64::from(peer.effective) * PARTS * passed / u64::from(peer.slow_start_ms);
    let credit = u64::from(times.credit) + parts;
    times.credit = (credit % PARTS) as u32;
    (credit / PARTS) as i64
}

/// The weight of a peer at the moment, in parts; at least one.
pub(crate) fn weight_in_parts(peer: &Peer, times: &Times, now_ms: u64) -> u64 {
    let full = u64::from(peer.weight) * PARTS;
    if !is_starting(peer, times, now_ms) {
        return full;
    }
    let passed = now_ms.saturating_sub(times.started_ms);
    (full * passed / u64::from(peer.slow_start_ms)).max(1)
}

#[cfg(test)]
mod tests {
    use crate::{Ask, Memory, Method, PeerOptions, Tried, least_conn, round_robin};

    /// How many of 1,000 requests within each tenth of the ramp come to the first peer.
    fn ramp(method: &Method, count: u32) -> Vec<u32> {
        let options = PeerOptions { slow_start_ms: 10_000, ..PeerOptions::default() };
        let mut memory = Memory::new(method, &vec![options; count as usize], &[]);
        memory.state().pick(&Ask { now: 1, now_ms: 1_000, ..Ask::default() }, &mut Tried::new());
        let mut state = memory.state();
        state.done(0);
        state.set_down(0, true);
        state.set_down(0, false);
        let mut shares = Vec::new();
        for tenth in 0..11 {
            let mut share = 0;
            for request in 0..1_000 {
                let now_ms = 1_000 + tenth * 1_000 + request;
                let ask = Ask { now: now_ms / 1_000, now_ms, ..Ask::default() };
                let peer = state.pick(&ask, &mut Tried::new()).expect("a peer");
                state.done(peer);
                share += u32::from(peer == 0);
            }
            shares.push(share);
        }
        shares
    }

    #[test]
    fn shares_grow() {
        for method in [&round_robin::METHOD, &least_conn::METHOD] {
            let shares = ramp(method, 2);
            for (tenth, share) in shares.iter().enumerate().take(10) {
                let expected = 500.0 * (tenth as f64 + 0.5) / 10.0;
                assert!((f64::from(*share) - expected).abs() < 5.0, "{shares:?}");
            }
            assert_eq!(shares[10], 500);
        }
    }

    #[test]
    fn shares_grow_in_a_large_tier() {
        let shares = ramp(&round_robin::METHOD, 50);
        assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]), "{shares:?}");
        assert!(shares[0] <= 2 && shares[10] == 20, "{shares:?}");
    }

    #[test]
    fn a_peer_that_passed_its_trial_starts_slowly() {
        let options = PeerOptions { slow_start_ms: 10_000, ..PeerOptions::default() };
        let mut memory = Memory::new(&round_robin::METHOD, &[options; 2], &[]);
        let mut state = memory.state();
        let at = |now| Ask::at(now);
        assert_eq!(state.pick(&at(1), &mut Tried::new()), Some(0));
        state.failed(0, 1);
        // Until its trial.
        while state.pick(&at(20), &mut Tried::new()) != Some(0) {
            state.done(1);
        }
        state.done(0);
        let next: Vec<_> = (0..8)
            .filter_map(|_| state.pick(&at(20), &mut Tried::new()).inspect(|p| state.done(*p)))
            .collect();
        assert_eq!(next, [1; 8]);
    }
}
