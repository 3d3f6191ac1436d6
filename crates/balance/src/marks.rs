//! Marks: a peer goes down or comes up again, and whoever has something under way may have to end
//! it (HAProxy: `on-marked-down`, `on-marked-up`). Here marks are only counted; whoever holds
//! connections compares the counts of then and now.

use crate::PeerIndex;
use crate::checks::Health;
use crate::state::State;

/// The counts that concern what is under way at a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// How often it was marked down. Stays the same unless its options say that this matters.
    pub downs: u32,
    /// How often a primary came up that sends the clients of backups away; 0 for a primary.
    pub ups: u32,
}

/// Why something that is under way at a peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An operator, or the configuration, took it out.
    Stopped,
    /// It left the group.
    Left,
    /// It failed its checks.
    Ill,
    /// It did worse than others.
    Ejected,
    /// It was down, and is up already.
    Passed,
    /// It is a backup, and a primary is up again.
    PrimaryUp,
}

impl State<'_> {
    /// Changes whenever any peer's [`Marks`] do. Those who come back by time alone are taken back
    /// first.
    pub fn marks(&mut self, now_ms: u64) -> u32 {
        self.head.clock_ms = self.head.clock_ms.max(now_ms);
        self.take_back();
        self.head.marks
    }

    /// The counts for what begins at a peer now. A peer that is down counts as marked after that.
    pub fn marks_of(&self, peer: PeerIndex) -> Marks {
        let Some(found) = self.peers.get(peer as usize) else { return Marks::default() };
        let is_late = found.ends_when_down() && found.is_marked_down();
        let Marks { downs, ups } = self.marks_at(peer);
        Marks { downs: downs.wrapping_sub(u32::from(is_late)), ups }
    }

    /// Why what began with `then` at a peer has to end, if it has.
    pub fn mark_since(&self, peer: PeerIndex, then: Marks) -> Option<Mark> {
        let now = self.marks_at(peer);
        let found = self.peers.get(peer as usize)?;
        if now.downs != then.downs {
            return Some(match found.health() {
                _ if found.is_vacant() => Mark::Left,
                _ if found.is_down() => Mark::Stopped,
                Health::Ill => Mark::Ill,
                _ if found.is_ejected() => Mark::Ejected,
                _ => Mark::Passed,
            });
        }
        (now.ups != then.ups).then_some(Mark::PrimaryUp)
    }

    fn marks_at(&self, peer: PeerIndex) -> Marks {
        let downs = self.checks.get(peer as usize).map_or(0, |checks| checks.downs);
        let ups = if self.tier_of(peer) == 0 { 0 } else { self.head.ups };
        Marks { downs, ups }
    }

    /// Counts what a change of a peer means, which was in or down before.
    pub(crate) fn note_marks(&mut self, peer: PeerIndex, was_in: bool, was_down: bool) {
        let now = &self.peers[peer as usize];
        let is_up = !was_in && now.is_in() && now.ends_backups_when_up();
        let (is_up, is_backup) = (is_up, self.tier_of(peer) != 0);
        let is_down = !was_down && now.is_marked_down() && now.ends_when_down();
        if is_down {
            let downs = &mut self.checks[peer as usize].downs;
            *downs = downs.wrapping_add(1);
        }
        let is_up = is_up && !is_backup;
        self.head.ups = self.head.ups.wrapping_add(u32::from(is_up));
        self.head.marks = self.head.marks.wrapping_add(u32::from(is_up || is_down));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Memory, PeerOptions, Tier, Tried, round_robin};

    const BOTH: PeerOptions = PeerOptions {
        weight: 1,
        max_fails: 1,
        fail_timeout: 10,
        max_conns: 0,
        down: false,
        drain: false,
        slow_start_ms: 0,
        ends_when_down: true,
        ends_backups_when_up: true,
    };

    #[test]
    fn going_down_is_a_mark_however_it_comes() {
        let plain = PeerOptions::default();
        let mut memory = Memory::new(&round_robin::METHOD, &[BOTH, plain, BOTH], &[]);
        let mut state = memory.state();
        let then: Vec<Marks> = (0..3).map(|peer| state.marks_of(peer)).collect();
        let count = state.marks(0);
        state.set_health(0, Health::Ill);
        assert_eq!(state.mark_since(0, then[0]), Some(Mark::Ill));
        assert_ne!(state.marks(0), count);
        state.set_down(0, true);
        assert_eq!(state.mark_since(0, then[0]), Some(Mark::Stopped));
        state.set_down(0, false);
        state.set_health(0, Health::Well);
        assert_eq!(state.mark_since(0, then[0]), Some(Mark::Passed), "though it is over");
        let later = state.marks_of(0);
        assert_eq!(state.mark_since(0, later), None);
        state.set_draining(0, true);
        assert_eq!(state.mark_since(0, later), None, "draining ends nothing");
        state.set_down(1, true);
        assert_eq!(state.mark_since(1, then[1]), None, "nobody asked for it");
        state.dismiss(2);
        assert_eq!(state.mark_since(2, then[2]), Some(Mark::Left));
        state.admit(Tier::Primary, &BOTH);
        assert_eq!(state.mark_since(2, then[2]), Some(Mark::Passed), "another one at its place");
    }

    #[test]
    fn what_begins_at_a_peer_that_is_down_ends() {
        let mut memory = Memory::new(&round_robin::METHOD, &[BOTH, BOTH], &[]);
        let mut state = memory.state();
        state.pick(&Ask::at(1), &mut Tried::new());
        state.set_down(0, true);
        let then = state.marks_of(0);
        assert_eq!(state.mark_since(0, then), Some(Mark::Stopped));
    }

    #[test]
    fn a_primary_that_is_up_again_ends_what_backups_do() {
        let mut memory = Memory::new(&round_robin::METHOD, &[BOTH], &[BOTH]);
        let mut state = memory.state();
        state.set_health(0, Health::Ill);
        let (primary, backup) = (state.marks_of(0), state.marks_of(1));
        assert_eq!(state.mark_since(1, backup), None);
        state.set_health(0, Health::Well);
        assert_eq!(state.mark_since(1, backup), Some(Mark::PrimaryUp));
        assert_eq!(state.mark_since(0, primary), Some(Mark::Passed));
        // A backup's own mark says nothing of others.
        let backup = state.marks_of(1);
        state.set_down(1, true);
        state.set_down(1, false);
        assert_eq!(state.mark_since(1, backup), Some(Mark::Passed));
    }
}
