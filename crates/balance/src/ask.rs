//! What one pick is based on, besides the state: the time, chance, the request's key, and the
//! peers that its client is bound to.

use crate::PeerIndex;
use crate::index::{Index, Table};

/// What a caller tells of a request that wants a peer.
///
/// An algorithm uses what it needs. Without an [`Index`] an algorithm that needs one takes turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// The time, in the unit of `fail_timeout`.
    pub now: u64,
    /// The time in milliseconds, on any scale that does not go back. For algorithms that measure
    /// and for slow starts.
    pub now_ms: u64,
    /// Fresh random bits.
    pub random: u64,
    /// What the request is balanced by.
    pub key: Key,
    /// The peers that its client is bound to, the best first. The first usable one is chosen
    /// whatever the algorithm says; peers that drain count as usable.
    pub bound: &'a [PeerIndex],
    /// What the algorithm has worked out of the group's membership.
    pub index: Option<&'a Index>,
}

impl Ask<'_> {
    /// A request about which nothing is known but the time.
    pub fn at(now: u64) -> Ask<'static> {
        Ask { now, now_ms: now.saturating_mul(1000), ..Ask::default() }
    }
}

/// What a request is balanced by, as small numbers: no bytes are kept, whatever their length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub(crate) hash: u32,
    pub(crate) len: u32,
}

/// The modulus and the factor of nginx's `ip_hash`.
pub(crate) const CLIENTS: u32 = 6271;
const FACTOR: u32 = 113;

impl Key {
    /// A text: the CRC32 (IEEE 802.3) of the bytes, and how many they are. An empty text is no key.
    pub fn text(bytes: &[u8]) -> Key {
        Key { hash: crc32fast::hash(bytes), len: bytes.len() as u32 }
    }

    /// A client, by the octets of its address that count, for `ip_hash`. Mixing the octets into
    /// a hash is, with the modulus, one multiplication and one addition whatever they are.
    pub fn client(octets: &[u8]) -> Key {
        let mix = |hash: u32, octet: &u8| (hash * FACTOR + u32::from(*octet)) % CLIENTS;
        Key { hash: octets.iter().fold(0, mix), len: octets.len() as u32 }
    }

    /// An address as IPVS hashes it: its words of four octets are folded together, and the port
    /// is added.
    pub fn folded(octets: &[u8], port: u16) -> Key {
        let words = octets
            .chunks(4)
            .map(|part| part.iter().fold(0, |word: u32, octet| word << 8 | u32::from(*octet)));
        let folded = words.fold(0, |folded, word| folded ^ word);
        Key { hash: folded.wrapping_add(port.into()), len: octets.len() as u32 }
    }

    /// Whether there is nothing to balance by.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The hash of a client mixed into `before`.
    pub(crate) fn mixed_into(self, before: u32) -> u32 {
        let power = (0..self.len).fold(1, |power, _| power * FACTOR % CLIENTS);
        (before % CLIENTS * power + self.hash) % CLIENTS
    }

    /// The CRC32 of `prefix` followed by the text.
    pub(crate) fn after(self, prefix: &[u8]) -> u32 {
        if prefix.is_empty() {
            return self.hash;
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(prefix);
        let rest = crc32fast::Hasher::new_with_initial_len(self.hash, self.len.into());
        crc.combine(&rest);
        crc.finalize()
    }

    /// 64 well mixed bits.
    pub(crate) fn wide(self) -> u64 {
        mix(u64::from(self.len) << 32 | u64::from(self.hash))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on
/// every bit of `seed`.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// One pick within one tier, as an algorithm sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) tier: usize,
    pub(crate) now: u64,
    pub(crate) now_ms: u64,
    pub(crate) random: u64,
    pub(crate) key: Key,
    pub(crate) table: Option<&'a Table>,
}

impl Turn<'_> {
    /// The `n`th number drawn for this pick, below `end`, which is not 0.
    pub(crate) fn draw(&self, n: u32, end: u64) -> u64 {
        let bits = mix(self.random.wrapping_add(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        // The high half of a product is even enough for any number of peers (Lemire 2019).
        ((u128::from(bits) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_combined_with_what_is_known_of_the_text() {
        for (prefix, text) in [("", "abc"), ("1", "abc"), ("17", ""), ("20", "a longer text")] {
            let both = format!("{prefix}{text}");
            let expected = crc32fast::hash(both.as_bytes());
            assert_eq!(Key::text(text.as_bytes()).after(prefix.as_bytes()), expected, "{both}");
        }
    }

    #[test]
    fn clients_are_mixed_as_octet_by_octet() {
        for octets in [&[127, 0, 0][..], &[255; 16], &[10, 1, 200]] {
            let mut hash = 89;
            for _ in 0..5 {
                let before = hash;
                for &octet in octets {
                    hash = (hash * 113 + u32::from(octet)) % 6271;
                }
                assert_eq!(Key::client(octets).mixed_into(before), hash, "{octets:?}");
            }
        }
    }

    #[test]
    fn draws_differ_and_stay_below_their_end() {
        let turn = Turn { tier: 0, now: 0, now_ms: 0, random: 7, key: Key::default(), table: None };
        let drawn: std::collections::BTreeSet<u64> = (0..100).map(|n| turn.draw(n, 10)).collect();
        assert_eq!(drawn, (0..10).collect());
    }
}
