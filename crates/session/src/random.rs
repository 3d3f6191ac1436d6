//! Random numbers of a worker: for request ids, retries and choices, not for keys.
//!
//! The generator is seeded by the kernel on first use in a process; it notices a fork by the
//! process id, so that no two workers draw the same numbers.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<(u32, [u64; 2])> = const { Cell::new((0, [0; 2])) };
}

/// 64 random bits (xoroshiro128++, Blackman and Vigna 2019).
pub fn u64() -> u64 {
    let (owner, mut s) = STATE.get();
    let pid = std::process::id();
    if owner != pid {
        s = seed();
    }
    let out = s[0].wrapping_add(s[1]).rotate_left(17).wrapping_add(s[0]);
    let mixed = s[1] ^ s[0];
    let next = [s[0].rotate_left(49) ^ mixed ^ (mixed << 21), mixed.rotate_left(28)];
    STATE.set((pid, next));
    out
}

/// 128 random bits.
pub fn u128() -> u128 {
    u128::from(u64()) << 64 | u128::from(u64())
}

fn seed() -> [u64; 2] {
    let mut bytes = [0u8; 16];
    // Without the kernel's randomness, process and time still differ between workers.
    if system::process::random(&mut bytes).is_err() {
        let (seconds, ms) = net::wall();
        bytes[..8].copy_from_slice(&(seconds * 1000 + u64::from(ms)).to_ne_bytes());
        bytes[8..12].copy_from_slice(&std::process::id().to_ne_bytes());
    }
    let half = |at: usize| {
        let mut word = [0u8; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    // All zeros is the one state that the generator cannot leave.
    [half(0) | 1, half(8)]
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_differ() {
        let drawn: std::collections::HashSet<u64> = (0..1000).map(|_| super::u64()).collect();
        assert_eq!(drawn.len(), 1000);
    }
}
