//! What several checks of one group say of each server: all of them must pass.
//!
//! The checks of a group run in one process, so this is kept there and not in the zone.

use std::cell::RefCell;
use std::collections::HashMap;

use balance::PeerIndex;
use smallvec::SmallVec;

use super::Health;

/// What each check says of a peer.
type OfPeer = SmallVec<[(usize, Health); 1]>;

/// The verdicts of the checks of a group.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(RefCell<HashMap<PeerIndex, OfPeer>>);

impl Verdicts {
    /// A check says this of a peer from now on; what all of them say together.
    pub(crate) fn join(&self, check: usize, peer: PeerIndex, health: Health) -> Health {
        let mut all = self.0.borrow_mut();
        let verdicts = all.entry(peer).or_default();
        match verdicts.iter_mut().find(|(of, _)| *of == check) {
            Some((_, known)) => *known = health,
            None => verdicts.push((check, health)),
        }
        let says = |wanted: Health| verdicts.iter().any(|(_, health)| *health == wanted);
        match () {
            () if says(Health::Ill) => Health::Ill,
            () if says(Health::Awaited) => Health::Awaited,
            () => Health::Well,
        }
    }

    /// A check looks at a peer no more.
    pub(crate) fn leave(&self, check: usize, peer: PeerIndex) {
        let mut all = self.0.borrow_mut();
        if let Some(verdicts) = all.get_mut(&peer) {
            verdicts.retain(|(of, _)| *of != check);
            if verdicts.is_empty() {
                all.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_enough_and_all_must_pass() {
        let verdicts = Verdicts::default();
        assert_eq!(verdicts.join(1, 0, Health::Well), Health::Well);
        assert_eq!(verdicts.join(2, 0, Health::Ill), Health::Ill);
        assert_eq!(verdicts.join(1, 0, Health::Ill), Health::Ill);
        assert_eq!(verdicts.join(1, 0, Health::Well), Health::Ill, "the other one still fails");
        assert_eq!(verdicts.join(1, 1, Health::Well), Health::Well, "another peer");
        assert_eq!(verdicts.join(2, 0, Health::Awaited), Health::Awaited);
        verdicts.leave(2, 0);
        assert_eq!(verdicts.join(1, 0, Health::Well), Health::Well);
    }
}
