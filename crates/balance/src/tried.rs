//! What one request remembers between its picks: whom it tried, and in which tier it is.

use crate::PeerIndex;

const INLINE: usize = 7;

/// The peers that one request has been given so far. It allocates only past seven of them.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// The tier in which the next pick begins. Once a request went on to the backup peers it
    /// does not come back, as in nginx.
    pub(crate) tier: u8,
    len: u8,
    inline: [PeerIndex; INLINE],
    spilled: Vec<PeerIndex>,
    pub(crate) walk: Walk,
}

/// How far an algorithm that walks from its first choice to others has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    /// Where it is.
    pub(crate) hash: u64,
    /// How often it went on.
    pub(crate) again: u32,
    /// How many choices could not be used.
    pub(crate) tries: u32,
    pub(crate) begun: bool,
}

impl Walk {
    pub(crate) fn begin(&mut self, hash: u64) {
        self.begun = true;
        self.hash = hash;
    }
}

impl Tried {
    /// Nobody was tried yet.
    pub fn new() -> Tried {
        Tried::default()
    }

    /// How many peers were tried, in either tier.
    pub fn len(&self) -> usize {
        self.len as usize + self.spilled.len()
    }

    /// Whether the next pick is the request's first.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The peers in the order of their picks.
    pub fn iter(&self) -> impl Iterator<Item = PeerIndex> + '_ {
        self.inline[..self.len as usize].iter().chain(&self.spilled).copied()
    }

    /// Whether `peer` was tried.
    pub fn contains(&self, peer: PeerIndex) -> bool {
        self.iter().any(|tried| tried == peer)
    }

    /// Lets `peer` be picked once more: the last attempt did not reach it. An algorithm that
    /// walks begins anew.
    pub fn forget(&mut self, peer: PeerIndex) {
        self.walk = Walk::default();
        if let Some(at) = self.spilled.iter().rposition(|&tried| tried == peer) {
            self.spilled.remove(at);
        } else if let Some(at) = self.inline[..self.len as usize].iter().position(|&t| t == peer) {
            let next = (!self.spilled.is_empty()).then(|| self.spilled.remove(0));
            self.inline.copy_within(at + 1.., at);
            match next {
                Some(next) => self.inline[INLINE - 1] = next,
                None => self.len -= 1,
            }
        }
    }

    pub(crate) fn push(&mut self, peer: PeerIndex) {
        if (self.len as usize) < INLINE {
            self.inline[self.len as usize] = peer;
            self.len += 1;
        } else {
            self.spilled.push(peer);
        }
    }

    /// The tried peers of `first..first + 64` as bits.
    pub(crate) fn mask(&self, first: PeerIndex) -> u64 {
        if self.is_empty() {
            return 0;
        }
        self.iter()
            .filter_map(|peer| peer.checked_sub(first))
            .filter(|&offset| offset < 64)
            .fold(0, |mask, offset| mask | 1 << offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_past_its_inline_room() {
        let mut tried = Tried::new();
        assert!(tried.is_empty());
        let wanted: Vec<PeerIndex> = (0..20).map(|n| n * 3).collect();
        wanted.iter().for_each(|&peer| tried.push(peer));
        assert_eq!(tried.iter().collect::<Vec<_>>(), wanted);
        assert_eq!(tried.len(), 20);
        assert!(tried.contains(57) && !tried.contains(58));
    }

    #[test]
    fn forgets_one() {
        for (count, gone) in [(1, 0), (5, 2), (7, 6), (9, 0), (9, 8), (9, 7)] {
            let mut tried = Tried::new();
            (0..count).for_each(|peer| tried.push(peer));
            tried.forget(gone);
            let wanted: Vec<_> = (0..count).filter(|&peer| peer != gone).collect();
            assert_eq!(tried.iter().collect::<Vec<_>>(), wanted, "{gone} of {count}");
            tried.forget(gone);
            assert_eq!(tried.len(), wanted.len());
            tried.push(77);
            assert_eq!(tried.iter().last(), Some(77));
        }
    }

    #[test]
    fn masks_are_relative_to_a_tier() {
        let mut tried = Tried::new();
        [2, 5, 63, 64, 70].into_iter().for_each(|peer| tried.push(peer));
        assert_eq!(tried.mask(0), 1 << 2 | 1 << 5 | 1 << 63);
        assert_eq!(tried.mask(5), 1 | 1 << 58 | 1 << 59);
    }
}
