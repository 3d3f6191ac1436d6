//! How long a peer's answers take, as nginx's `least_time` counts it.
//!
//! Averages move by a twentieth of each answer's distance. For requests under way the time that
//! they have spent so far is kept as one sum, so that no list of them is needed: it grows by the
//! time that passes, times their number, and an answer takes its own time out of it.

use crate::PeerIndex;
use crate::state::State;

/// What an algorithm measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Which moment of an answer counts.
    pub until: Until,
    /// Requests under way count too.
    pub inflight: bool,
}

/// A moment of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its head is there. (stream: the first byte)
    Header,
    /// All of it is there.
    LastByte,
}

/// How long one request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// Milliseconds until the head was there, if ever.
    pub header_ms: Option<u32>,
    /// Milliseconds until the end.
    pub total_ms: u32,
    /// The peer failed, or its answer was not taken: only successes count, or else a peer that
    /// fails quickly would be preferred.
    pub failed: bool,
}

plain! {
    /// The times of one peer.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Times {
        /// Milliseconds spent so far by the requests under way, at `changed_ms`.
        pub(crate) spent_ms: u64,
        /// When the number of requests under way changed last.
        pub(crate) changed_ms: u64,
        /// When a slow start began.
        pub(crate) started_ms: u64,
        pub(crate) header_ms: u32,
        pub(crate) total_ms: u32,
        /// The average over the requests under way.
        pub(crate) inflight_ms: u32,
        pub(crate) inflight: u32,
        /// What a slow start has to give, in thousandths of a unit of weight.
        pub(crate) credit: u32,
        pub(crate) unused: u32,
        /// The account of the turns that the peers of one server on a ring take.
        pub(crate) current: i64,
    }
}

/// nginx's moving average; the first value is taken as it is.
pub(crate) fn average(average: &mut u32, value: u64) {
    let before = u64::from(*average);
    let after = if before == 0 { value } else { (10 + value + 19 * before) / 20 };
    *average = u32::try_from(after).unwrap_or(u32::MAX);
}

impl Times {
    /// Averages of answers in milliseconds: heads, and whole ones. 0 before the first.
    pub fn averages_ms(&self) -> (u32, u32) {
        (self.header_ms, self.total_ms)
    }

    fn begin(&mut self, now_ms: u64) {
        if self.inflight > 0 {
            self.spend(now_ms);
        }
        self.changed_ms = now_ms;
        self.inflight += 1;
    }

    fn end(&mut self, took_ms: u32, now_ms: u64) {
        if self.inflight <= 1 {
            self.spent_ms = 0;
        } else {
            self.spend(now_ms);
            self.spent_ms = self.spent_ms.saturating_sub(took_ms.into());
            self.changed_ms = now_ms;
        }
        self.inflight = self.inflight.saturating_sub(1);
    }

    fn spend(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.changed_ms);
        self.spent_ms = self.spent_ms.saturating_add(passed * u64::from(self.inflight));
    }

    /// Looks at the requests under way.
    pub(crate) fn look(&mut self, now_ms: u64) {
        if self.inflight > 0 {
            let passed = now_ms.saturating_sub(self.changed_ms);
            let mean = self.spent_ms / u64::from(self.inflight) + passed;
            average(&mut self.inflight_ms, mean);
        }
    }
}

impl State<'_> {
    /// The head of an answer of `peer` is there, `header_ms` after the request was given to it.
    /// Only algorithms with a [`Timing`] want to know.
    pub fn answered(&mut self, peer: PeerIndex, header_ms: u32, now_ms: u64) {
        if let Some(Timing { until: Until::Header, inflight: true }) = self.method().timing
            && let Some(times) = self.times.get_mut(peer as usize)
        {
            average(&mut times.header_ms, header_ms.into());
            times.end(header_ms, now_ms);
        }
    }

    /// A request at `peer` is over. To be told before [`State::done`] or [`State::failed`]; only
    /// algorithms with a [`Timing`] want to know.
    pub fn took(&mut self, peer: PeerIndex, took: Took, now_ms: u64) {
        let Some(timing) = self.method().timing else { return };
        let Some(times) = self.times.get_mut(peer as usize) else { return };
        // With the head the request was taken off already.
        let told = timing.inflight && timing.until == Until::Header && took.header_ms.is_some();
        if timing.inflight && !told {
            times.end(took.total_ms, now_ms);
        }
        let (false, Some(header_ms)) = (took.failed, took.header_ms) else { return };
        average(&mut times.total_ms, took.total_ms.into());
        if !told {
            average(&mut times.header_ms, header_ms.into());
        }
    }

    /// A request was given to `peer`.
    pub(crate) fn time_begins(&mut self, peer: PeerIndex, now_ms: u64) {
        if self.method().timing.is_some_and(|timing| timing.inflight) {
            self.times[peer as usize].begin(now_ms);
        }
    }

    /// There are never more requests to be timed than there are requests: after the death of a
    /// worker some will not be heard of again.
    pub(crate) fn bound_timed(&mut self, peer: PeerIndex) {
        let conns = self.peers[peer as usize].conns;
        let times = &mut self.times[peer as usize];
        if times.inflight > conns {
            times.inflight = conns;
            times.spent_ms = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_move_by_a_twentieth() {
        let mut mean = 0;
        average(&mut mean, 100);
        assert_eq!(mean, 100);
        average(&mut mean, 200);
        assert_eq!(mean, 105);
        average(&mut mean, 0);
        assert_eq!(mean, 100);
    }

    #[test]
    fn the_time_under_way_is_one_sum() {
        let mut times = Times::default();
        times.begin(1_000);
        times.begin(1_100);
        times.look(1_300);
        // One waits for 300, the other for 200.
        assert_eq!(times.inflight_ms, 250);
        times.end(300, 1_300);
        assert_eq!((times.inflight, times.spent_ms), (1, 200));
        times.end(400, 1_500);
        assert_eq!((times.inflight, times.spent_ms), (0, 0));
        times.end(1, 1_500);
        assert_eq!(times.inflight, 0, "an event too many does not wrap");
    }
}
