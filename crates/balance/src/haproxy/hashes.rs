//! What HAProxy makes of a text or an address before it looks for a peer (`hash-type`).

use crate::ask::Key;

/// A function of `hash-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Function {
    /// That of the database library sdbm.
    #[default]
    Sdbm,
    /// Bernstein's, by 33 and addition.
    Djb2,
    /// Wang Tong's, of two halves that turn.
    Wt6,
    /// CRC32 (IEEE 802.3).
    Crc32,
    /// The text is a decimal number already.
    None,
}

/// How keys are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashing {
    /// The function for texts.
    pub function: Function,
    /// Whether the result is mixed once more.
    pub avalanche: bool,
}

impl Hashing {
    /// The key of a text; an empty one is a key too.
    pub fn text(self, bytes: &[u8]) -> Key {
        let hash = match self.function {
            Function::Sdbm => bytes.iter().fold(0, |hash: u32, byte| {
                u32::from(*byte).wrapping_add(hash << 6).wrapping_add(hash << 16).wrapping_sub(hash)
            }),
            Function::Djb2 => bytes.iter().fold(5381, |hash: u32, byte| {
                (hash << 5).wrapping_add(hash).wrapping_add((*byte).into())
            }),
            Function::Wt6 => wt6(bytes),
            Function::Crc32 => crc32fast::hash(bytes),
            Function::None => decimal(bytes),
        };
        Key { hash: self.finish(hash), len: (bytes.len() as u32).max(1) }
    }

    /// The key of an address whose words were folded together ([`Key::folded`]).
    pub fn address(self, folded: Key) -> Key {
        Key { hash: self.finish(folded.hash), ..folded }
    }

    fn finish(self, hash: u32) -> u32 {
        if self.avalanche { avalanche(hash) } else { hash }
    }
}

fn wt6(bytes: &[u8]) -> u32 {
    let (mut one, mut two) = (0xa53c_965a_u32, 0x5ca6_953a_u32);
    let (mut left, mut right) = (6, 18);
    for &byte in bytes {
        one = !(one ^ u32::from(byte));
        two = !two.wrapping_add(byte.into());
        (one, two) = (two.rotate_left(left), one.rotate_left(right));
        let steps = (one >> 16 ^ two) & 0xffff;
        (left, right) = (steps & 0x1f, steps >> 11);
    }
    one ^ two
}

/// The low half of a number in digits, up to the first byte that is none.
fn decimal(bytes: &[u8]) -> u32 {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits
        .fold(0, |number: u32, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')))
}

/// Jenkins's mixing of an integer, times a factor that spreads the results.
pub(crate) fn avalanche(seed: u32) -> u32 {
    let mut a = seed;
    a = a.wrapping_add(0x7ed5_5d16).wrapping_add(a << 12);
    a = (a ^ 0xc761_c23c) ^ (a >> 19);
    a = a.wrapping_add(0x1656_67b1).wrapping_add(a << 5);
    a = a.wrapping_add(0xd3a2_646c) ^ (a << 9);
    a = a.wrapping_add(0xfd70_46c5).wrapping_add(a << 3);
    a = (a ^ 0xb55a_4f09) ^ (a >> 16);
    a.wrapping_mul(3_221_225_473)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_at_the_first_other_byte() {
        let number = Hashing { function: Function::None, avalanche: false };
        assert_eq!(number.text(b"1207x9").hash, 1207);
        assert_eq!(number.text(b"").hash, 0);
        assert!(!number.text(b"").is_empty());
    }
}
