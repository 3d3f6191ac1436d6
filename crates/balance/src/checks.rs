//! What active checks say of a peer: whether it is well, and how often it was asked.

use crate::PeerIndex;
use crate::state::State;

/// Whether a peer may be chosen as far as active checks are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It may; so may one that nobody checks.
    #[default]
    Well,
    /// It failed its checks.
    Ill,
    /// It must pass a check first.
    Awaited,
}

plain! {
    /// What the checks of one peer came to.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Checks {
        /// How often it was asked.
        pub made: u64,
        /// How often it was not well.
        pub failed: u64,
        /// How often it was taken out.
        pub taken_out: u32,
        /// Whether the last one passed.
        pub(crate) last_passed: u32,
        /// How often the peer was marked down, by whomever.
        pub(crate) downs: u32,
        pub(crate) unused: u32,
        /// Since when it is ill, ejected or out for its failures; 0 when it is not.
        pub(crate) out_since_ms: u64,
        /// For how long it was so before.
        pub(crate) out_ms: u64,
    }
}

impl Checks {
    /// Whether the last check passed; nothing before the first.
    pub fn last_passed(&self) -> Option<bool> {
        (self.made > 0).then_some(self.last_passed == 1)
    }
}

impl State<'_> {
    /// A check of `peer` ended.
    pub fn checked(&mut self, peer: PeerIndex, passed: bool) {
        let Some(checks) = self.checks.get_mut(peer as usize) else { return };
        checks.made = checks.made.saturating_add(1);
        checks.failed = checks.failed.saturating_add(u64::from(!passed));
        checks.last_passed = u32::from(passed);
    }

    /// Takes `peer` out of the rotation, bound clients included, or back into it, as its checks
    /// say. Requests under way go on.
    pub fn set_health(&mut self, peer: PeerIndex, health: Health) {
        let Some(found) = self.peers.get(peer as usize) else { return };
        let before = found.health();
        if before == health {
            return;
        }
        if health == Health::Ill {
            self.checks[peer as usize].taken_out += 1;
        }
        self.change(peer, |peer| peer.set_health(health));
    }

    /// For how many milliseconds a peer was ill, ejected or out for its failures until `now_ms`,
    /// and since when it is so now.
    pub fn downtime_ms(&self, peer: PeerIndex, now_ms: u64) -> (u64, Option<u64>) {
        let Some(checks) = self.checks.get(peer as usize) else { return (0, None) };
        match checks.out_since_ms {
            0 => (checks.out_ms, None),
            since => (checks.out_ms + now_ms.saturating_sub(since), Some(since)),
        }
    }

    /// Keeps account of the times in which a peer is out, after an event that may change it.
    pub(crate) fn note_outage(&mut self, peer: PeerIndex) {
        let now_ms = self.head.clock_ms.max(1);
        let subject = &self.peers[peer as usize];
        let is_out = subject.has_failed() || subject.is_unwell();
        let checks = &mut self.checks[peer as usize];
        match (checks.out_since_ms, is_out) {
            (0, true) => checks.out_since_ms = now_ms,
            (since, false) if since > 0 => {
                checks.out_ms += now_ms.saturating_sub(since);
                checks.out_since_ms = 0;
            }
            _ => {}
        }
    }

    /// What the checks of all peers came to.
    pub fn checks(&self) -> &[Checks] {
        self.checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::METHODS;
    use crate::{Ask, Memory, PeerOptions, Tried};

    #[test]
    fn who_is_ill_gets_nothing() {
        for method in METHODS {
            let options = [PeerOptions::default(); 2];
            let mut memory = Memory::new(method, &options, &[]);
            let mut state = memory.state();
            let picks = |state: &mut State<'_>| -> Vec<Option<PeerIndex>> {
                (0..4)
                    .map(|now| {
                        let picked = state.pick(&Ask::at(now), &mut Tried::new());
                        picked.inspect(|peer| state.done(*peer))
                    })
                    .collect()
            };
            state.set_health(0, Health::Ill);
            assert_eq!(
                (picks(&mut state), state.tries()),
                (vec![Some(1); 4], 1),
                "{}",
                method.name
            );
            state.set_health(1, Health::Awaited);
            assert_eq!(picks(&mut state), [None; 4], "{}", method.name);
            let bound = Ask { bound: &[1], ..Ask::at(9) };
            assert_eq!(state.pick(&bound, &mut Tried::new()), None, "{}", method.name);
            state.set_health(1, Health::Well);
            assert_eq!(picks(&mut state), [Some(1); 4], "{}", method.name);
            state.set_health(0, Health::Well);
            assert_eq!((state.tries(), state.checks()[0].taken_out), (2, 1));
            // What an operator says and what checks say are apart.
            state.set_down(1, true);
            state.set_health(1, Health::Ill);
            state.set_down(1, false);
            assert_eq!(picks(&mut state), [Some(0); 4], "{}", method.name);
        }
    }

    #[test]
    fn a_single_peer_can_be_ill() {
        let mut memory = Memory::new(METHODS[0], &[PeerOptions::default()], &[]);
        let mut state = memory.state();
        state.set_health(0, Health::Ill);
        assert_eq!(state.pick(&Ask::at(1), &mut Tried::new()), None);
        let bound = Ask { bound: &[0], ..Ask::at(1) };
        assert_eq!(state.pick(&bound, &mut Tried::new()), None);
        state.checked(0, false);
        state.checked(0, true);
        let checks = state.checks()[0];
        assert_eq!((checks.made, checks.failed, checks.last_passed()), (2, 1, Some(true)));
        assert_eq!(state.checked(9, true), ());
    }
}
