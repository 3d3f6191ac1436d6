//! SHA-crypt (`$5$`, `$6$`): passwords hashed many times with SHA-256 or SHA-512 (Ulrich Drepper,
//! "Unix crypt using SHA-256 and SHA-512", 2007; crypt(5)).

use sha2::{Digest, Sha256, Sha512};

use super::password::{encode, same, split_salt};

const USUAL_ROUNDS: u32 = 5_000;
const LEAST_ROUNDS: u32 = 1_000;
const MOST_ROUNDS: u32 = 999_999_999;
const LONGEST_SALT: usize = 16;

/// Whether `key` hashes to what stands behind `$5$`.
pub(super) fn matches_256(key: &[u8], rest: &[u8]) -> bool {
    matches::<Sha256>(key, rest, |hash, out| {
        for n in 0..10 {
            // The bytes of each group lie ten apart; the groups take turns in where they begin.
            let group = [n, n + 10, n + 20];
            let [a, b, c] = rotated(group, 3 - n % 3);
            encode([hash[a], hash[b], hash[c]], 4, out);
        }
        encode([0, hash[31], hash[30]], 3, out);
    })
}

/// Whether `key` hashes to what stands behind `$6$`.
pub(super) fn matches_512(key: &[u8], rest: &[u8]) -> bool {
    matches::<Sha512>(key, rest, |hash, out| {
        for n in 0..21 {
            let group = [n, n + 21, n + 42];
            let [a, b, c] = rotated(group, n);
            encode([hash[a], hash[b], hash[c]], 4, out);
        }
        encode([0, 0, hash[63]], 2, out);
    })
}

/// The numbers of a group, beginning with the one at `shift`.
fn rotated(group: [usize; 3], shift: usize) -> [usize; 3] {
    [group[shift % 3], group[(shift + 1) % 3], group[(shift + 2) % 3]]
}

fn matches<D: Digest>(key: &[u8], rest: &[u8], text: impl Fn(&[u8], &mut Vec<u8>)) -> bool {
    let Some((rounds, rest)) = split_rounds(rest) else { return false };
    let Some((salt, known)) = split_salt(rest, LONGEST_SALT) else { return false };
    let hash = hash::<D>(key, salt, rounds);
    let mut found = Vec::with_capacity(86);
    text(&hash, &mut found);
    same(&found, known)
}

/// `rounds=NUMBER$` in front of the salt.
fn split_rounds(rest: &[u8]) -> Option<(u32, &[u8])> {
    let Some(rest) = rest.strip_prefix(b"rounds=") else { return Some((USUAL_ROUNDS, rest)) };
    let dollar = rest.iter().position(|byte| *byte == b'$')?;
    let number = config::read::parse_number(&rest[..dollar])?;
    let rounds = number.clamp(LEAST_ROUNDS.into(), MOST_ROUNDS.into()) as u32;
    Some((rounds, &rest[dollar + 1..]))
}

/// The numbers are those of the steps in the specification.
fn hash<D: Digest>(key: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    // 4 to 8
    let b = D::new().chain_update(key).chain_update(salt).chain_update(key).finalize();
    // 1 to 3, 9 to 12
    let mut a = D::new().chain_update(key).chain_update(salt);
    a.update(repeated(&b, key.len()));
    let mut bits = key.len();
    while bits > 0 {
        if bits & 1 == 1 {
            a.update(&b)
        } else {
            a.update(key)
        }
        bits >>= 1;
    }
    let mut state = a.finalize();
    // 13 to 16
    let mut dp = D::new();
    for _ in 0..key.len() {
        dp.update(key);
    }
    let p = repeated(&dp.finalize(), key.len());
    // 17 to 20
    let mut ds = D::new();
    for _ in 0..16 + usize::from(state[0]) {
        ds.update(salt);
    }
    let s = repeated(&ds.finalize(), salt.len());
    // 21
    for round in 0..rounds {
        let mut c = D::new();
        if round & 1 == 1 {
            c.update(&p)
        } else {
            c.update(&state)
        }
        if round % 3 != 0 {
            c.update(&s);
        }
        if round % 7 != 0 {
            c.update(&p);
        }
        if round & 1 == 1 {
            c.update(&state)
        } else {
            c.update(&p)
        }
        state = c.finalize();
    }
    state.to_vec()
}

fn repeated(block: &[u8], length: usize) -> Vec<u8> {
    block.iter().copied().cycle().take(length).collect()
}
