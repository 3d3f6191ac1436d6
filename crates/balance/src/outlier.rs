//! Peers that do worse than others are ejected for a while (Envoy: outlier detection).
//!
//! Three signs: too many answers of 5xx in a row, too many failures in a row, and a share of good
//! answers that lies too far below the group's mean. An ejected peer gets no requests until its
//! time is over; each further ejection takes longer, up to a limit, and each while without one
//! makes up for one. At most a stated part of the group is ejected, and never its last usable peer.

use crate::PeerIndex;
use crate::state::State;

plain! {
    /// When peers are ejected. All zeroes: never.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Rules {
        /// How often success rates are compared.
        pub interval_ms: u64,
        /// For how long a peer is ejected the first time.
        pub base_ms: u64,
        /// For how long at most.
        pub most_ms: u64,
        /// So many answers of 5xx in a row; 0 is no rule. Failures count as such.
        pub consecutive_5xx: u32,
        /// So many failures in a row; 0 is no rule.
        pub consecutive_errors: u32,
        /// The most peers that are ejected at a time, in hundredths of the group; one always may.
        pub most_percent: u32,
        /// How far below the mean a success rate may lie, in thousandths of the standard
        /// deviation; 0 is no rule.
        pub deviation: u32,
        /// Requests that a peer must have had in the interval for its rate to count.
        pub volume: u32,
        /// Peers that must have had as many.
        pub peers: u32,
    }
}

plain! {
    /// What is known of one peer.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Record {
        ejected_until_ms: u64,
        returned_ms: u64,
        consecutive_5xx: u32,
        consecutive_errors: u32,
        /// In this interval.
        requests: u32,
        good: u32,
        /// Ejections that were not made up for.
        ejections: u32,
        unused: u32,
    }
}

plain! {
    /// What is known of a group.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Ejections {
        pub(crate) rules: Rules,
        /// No ejected peer returns before.
        next_return_ms: u64,
        interval_ends_ms: u64,
        ejected: u32,
        unused: u32,
    }
}

/// How a request ended, as far as this is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// With an answer below 500.
    Good,
    /// With an answer of 5xx.
    ServerError,
    /// Without an answer.
    Failed,
}

/// Why a peer was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// So many answers of 5xx in a row.
    Consecutive5xx,
    /// So many failures in a row.
    ConsecutiveErrors,
    /// Its share of good answers.
    SuccessRate,
}

impl Rules {
    /// Whether there is any.
    pub fn is_on(&self) -> bool {
        self.consecutive_5xx > 0 || self.consecutive_errors > 0 || self.deviation > 0
    }
}

impl State<'_> {
    /// Ejects by these rules from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.head.ejections.rules = rules;
    }

    /// Whether a peer is ejected.
    pub fn is_ejected(&self, peer: PeerIndex) -> bool {
        self.peers.get(peer as usize).is_some_and(crate::Peer::is_ejected)
    }

    /// A request at `peer` ended: to be told before [`State::done`] or [`State::failed`]. Gives
    /// the peers that are ejected now, and why.
    pub fn judge(&mut self, peer: PeerIndex, grade: Grade, now_ms: u64) -> Vec<(PeerIndex, Sign)> {
        let rules = self.head.ejections.rules;
        if !rules.is_on() || self.is_single() || self.records.get(peer as usize).is_none() {
            return Vec::new();
        }
        self.head.clock_ms = self.head.clock_ms.max(now_ms);
        let mut found = self.compare_rates(&rules);
        let record = &mut self.records[peer as usize];
        record.requests = record.requests.saturating_add(1);
        match grade {
            Grade::Good => {
                record.good = record.good.saturating_add(1);
                record.consecutive_5xx = 0;
                record.consecutive_errors = 0;
            }
            Grade::ServerError => {
                record.consecutive_5xx = record.consecutive_5xx.saturating_add(1);
                record.consecutive_errors = 0;
            }
            Grade::Failed => {
                record.consecutive_5xx = record.consecutive_5xx.saturating_add(1);
                record.consecutive_errors = record.consecutive_errors.saturating_add(1);
            }
        }
        let reached = |count: u32, limit: u32| limit > 0 && count >= limit;
        let sign = match () {
            () if reached(record.consecutive_errors, rules.consecutive_errors) => {
                Sign::ConsecutiveErrors
            }
            () if reached(record.consecutive_5xx, rules.consecutive_5xx) => Sign::Consecutive5xx,
            () => return found,
        };
        if self.eject(peer) {
            found.push((peer, sign));
        }
        found
    }

    /// Takes back those whose time is over. Cheap while nobody's is.
    pub(crate) fn take_back(&mut self) {
        let Ejections { ejected, next_return_ms, .. } = self.head.ejections;
        let now_ms = self.head.clock_ms;
        if ejected == 0 || now_ms < next_return_ms {
            return;
        }
        let mut next = u64::MAX;
        let mut left = 0;
        for peer in 0..self.peers.len() as PeerIndex {
            if !self.is_ejected(peer) {
                continue;
            }
            let record = &mut self.records[peer as usize];
            if record.ejected_until_ms > now_ms {
                next = next.min(record.ejected_until_ms);
                left += 1;
                continue;
            }
            record.returned_ms = now_ms;
            record.consecutive_5xx = 0;
            record.consecutive_errors = 0;
            self.change(peer, |peer| peer.set_ejected(false));
        }
        self.head.ejections.next_return_ms = next;
        self.head.ejections.ejected = left;
    }

    /// Whether there was room for it among the ejected.
    fn eject(&mut self, peer: PeerIndex) -> bool {
        let Ejections { rules, ejected, .. } = self.head.ejections;
        let most = (self.head.members * rules.most_percent.min(100) / 100).max(1);
        let is_last = self.head.up <= 1;
        if is_last || ejected >= most || !self.peers[peer as usize].is_in() {
            return false;
        }
        let now_ms = self.head.clock_ms;
        let base_ms = rules.base_ms.max(1);
        let record = &mut self.records[peer as usize];
        let made_up_for = now_ms.saturating_sub(record.returned_ms) / base_ms;
        let before = u64::from(record.ejections).saturating_sub(made_up_for);
        record.ejections = u32::try_from(before + 1).unwrap_or(u32::MAX);
        let time_ms = base_ms.saturating_mul(before + 1).min(rules.most_ms.max(base_ms));
        record.ejected_until_ms = now_ms.saturating_add(time_ms);
        let next = record.ejected_until_ms;
        let ejections = &mut self.head.ejections;
        ejections.next_return_ms =
            if ejections.ejected == 0 { next } else { ejections.next_return_ms.min(next) };
        ejections.ejected += 1;
        self.change(peer, |peer| peer.set_ejected(true));
        true
    }

    /// At the end of an interval: ejects those whose share of good answers is too small.
    fn compare_rates(&mut self, rules: &Rules) -> Vec<(PeerIndex, Sign)> {
        let now_ms = self.head.clock_ms;
        if rules.deviation == 0 || now_ms < self.head.ejections.interval_ends_ms {
            return Vec::new();
        }
        let first = self.head.ejections.interval_ends_ms == 0;
        self.head.ejections.interval_ends_ms = now_ms.saturating_add(rules.interval_ms.max(1));
        let mut rates = Vec::new();
        for (peer, record) in (0..).zip(self.records.iter_mut()) {
            if record.requests >= rules.volume.max(1) && !first {
                rates.push((peer, f64::from(record.good) / f64::from(record.requests)));
            }
            (record.requests, record.good) = (0, 0);
        }
        if rates.len() < rules.peers.max(2) as usize {
            return Vec::new();
        }
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let square = |rate: f64| (rate - mean) * (rate - mean);
        let deviation = (rates.iter().map(|(_, rate)| square(*rate)).sum::<f64>() / count).sqrt();
        let least = mean - deviation * f64::from(rules.deviation) / 1000.0;
        rates.retain(|(_, rate)| *rate < least);
        let mut found: Vec<PeerIndex> = rates.into_iter().map(|(peer, _)| peer).collect();
        found.retain(|peer| self.eject(*peer));
        found.into_iter().map(|peer| (peer, Sign::SuccessRate)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, METHODS, Memory, PeerOptions, Tried, round_robin};

    const RULES: Rules = Rules {
        interval_ms: 10_000,
        base_ms: 1_000,
        most_ms: 3_000,
        consecutive_5xx: 3,
        consecutive_errors: 2,
        most_percent: 50,
        deviation: 0,
        volume: 10,
        peers: 3,
    };

    fn group(count: usize, rules: Rules) -> Memory {
        let options = PeerOptions { max_fails: 0, ..PeerOptions::default() };
        let mut memory = Memory::new(&round_robin::METHOD, &vec![options; count], &[]);
        memory.state().set_rules(rules);
        memory
    }

    fn ejected(memory: &mut Memory) -> Vec<PeerIndex> {
        let count = memory.peers().len() as PeerIndex;
        let state = memory.state();
        (0..count).filter(|peer| state.is_ejected(*peer)).collect()
    }

    fn look(memory: &mut Memory, now_ms: u64) {
        let ask = Ask { now: now_ms / 1000, now_ms, ..Ask::default() };
        let mut state = memory.state();
        if let Some(peer) = state.pick(&ask, &mut Tried::new()) {
            state.done(peer);
        }
    }

    #[test]
    fn rows_of_errors() {
        let mut memory = group(4, RULES);
        let mut state = memory.state();
        for _ in 0..2 {
            assert_eq!(state.judge(1, Grade::ServerError, 100), []);
        }
        assert_eq!(state.judge(1, Grade::Good, 100), []);
        for _ in 0..2 {
            assert_eq!(state.judge(1, Grade::ServerError, 100), []);
        }
        assert_eq!(state.judge(1, Grade::ServerError, 100), [(1, Sign::Consecutive5xx)]);
        assert_eq!(state.judge(2, Grade::Failed, 100), []);
        assert_eq!(state.judge(2, Grade::Failed, 100), [(2, Sign::ConsecutiveErrors)]);
        // Half of the group is out.
        (0..9).for_each(|_| assert_eq!(state.judge(3, Grade::Failed, 100), []));
        assert_eq!(state.tries(), 2);
        assert_eq!(ejected(&mut memory), [1, 2]);
    }

    #[test]
    fn ejections_grow_and_end() {
        let mut memory = group(4, RULES);
        let mut now_ms = 50_000;
        for time_ms in [1_000, 2_000, 3_000, 3_000] {
            (0..2).for_each(|_| drop(memory.state().judge(1, Grade::Failed, now_ms)));
            look(&mut memory, now_ms + time_ms - 1);
            assert_eq!(ejected(&mut memory), [1], "{time_ms}");
            now_ms += time_ms;
            look(&mut memory, now_ms);
            assert_eq!(ejected(&mut memory), [], "{time_ms}");
        }
        // Four whiles without an ejection make up for all of them.
        now_ms += 4_000;
        (0..2).for_each(|_| drop(memory.state().judge(1, Grade::Failed, now_ms)));
        look(&mut memory, now_ms + 1_000);
        assert_eq!(ejected(&mut memory), []);
    }

    #[test]
    fn rates_far_below_the_mean() {
        let rules = Rules { deviation: 1_900, consecutive_5xx: 0, consecutive_errors: 0, ..RULES };
        let mut memory = group(10, rules);
        let mut state = memory.state();
        state.judge(0, Grade::Good, 1_000);
        for round in 0..20 {
            for peer in 0..10 {
                let bad = peer == 7 && round % 2 == 0 || round == peer;
                let grade = if bad { Grade::ServerError } else { Grade::Good };
                assert_eq!(state.judge(peer, grade, 2_000), []);
            }
        }
        assert_eq!(state.judge(0, Grade::Good, 11_000), [(7, Sign::SuccessRate)]);
        assert_eq!(ejected(&mut memory), [7]);
    }

    #[test]
    fn the_last_one_stays() {
        for method in METHODS {
            let mut memory = Memory::new(method, &[PeerOptions::default(); 2], &[]);
            let mut state = memory.state();
            state.set_rules(Rules { most_percent: 100, ..RULES });
            let ejected = |state: &mut State<'_>, peer| {
                (0..3).any(|_| !state.judge(peer, Grade::Failed, 1).is_empty())
            };
            assert!(ejected(&mut state, 0), "{}", method.name);
            assert!(!ejected(&mut state, 1), "{}", method.name);
            let ask = Ask { bound: &[0], ..Ask::at(0) };
            assert_eq!(state.pick(&ask, &mut Tried::new()), Some(1), "{}", method.name);
        }
        let mut memory = group(1, RULES);
        (0..9).for_each(|_| assert_eq!(memory.state().judge(0, Grade::Failed, 1), []));
        assert_eq!(memory.state().judge(5, Grade::Failed, 1), []);
    }
}
