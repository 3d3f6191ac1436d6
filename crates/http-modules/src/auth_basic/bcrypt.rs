//! bcrypt (`$2y$`): passwords made expensive by Blowfish's key schedule (Provos and Mazieres,
//! "A Future-Adaptable Password Scheme", 1999).

use blowfish::Blowfish;

use super::password::same;

/// The alphabet of bcrypt's own base64.
const ALPHABET: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// A key has no more bytes than this, the NUL byte at its end included.
const LONGEST_KEY: usize = 72;
const SALT_CHARACTERS: usize = 22;
const HASH_BYTES: usize = 23;

/// Whether `key` hashes to what stands behind `$2y$`: `COST$SALT_AND_HASH`.
pub(super) fn matches(key: &[u8], rest: &[u8]) -> bool {
    let Some((cost, salt, known)) = parse(rest) else { return false };
    let mut key: Vec<u8> = key.iter().copied().chain([0]).collect();
    key.truncate(LONGEST_KEY);
    let found = hash(&key, &salt, cost);
    same(&found, &known)
}

fn parse(rest: &[u8]) -> Option<(u32, Vec<u8>, Vec<u8>)> {
    let [tens @ b'0'..=b'3', ones @ b'0'..=b'9', b'$', text @ ..] = rest else { return None };
    let cost = u32::from(tens - b'0') * 10 + u32::from(ones - b'0');
    let (salt, hash) = text.split_at_checked(SALT_CHARACTERS)?;
    let (mut salt, hash) = (decode(salt)?, decode(hash)?);
    salt.truncate(16);
    let is_whole = salt.len() == 16 && hash.len() == HASH_BYTES;
    (is_whole && (4..=31).contains(&cost)).then_some((cost, salt, hash))
}

fn hash(key: &[u8], salt: &[u8], cost: u32) -> [u8; HASH_BYTES] {
    let mut state: Blowfish = Blowfish::bc_init_state();
    state.salted_expand_key(salt, key);
    for _ in 0..1_u32 << cost {
        state.bc_expand_key(key);
        state.bc_expand_key(salt);
    }
    let mut out = [0; HASH_BYTES + 1];
    for (pair, place) in b"OrpheanBeholderScryDoubt".chunks(8).zip(out.chunks_mut(8)) {
        let word =
            |at: usize| u32::from_be_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
        let mut block = [word(0), word(4)];
        for _ in 0..64 {
            block = state.bc_encrypt(block);
        }
        place[..4].copy_from_slice(&block[0].to_be_bytes());
        place[4..].copy_from_slice(&block[1].to_be_bytes());
    }
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&out[..HASH_BYTES]);
    hash
}

/// Six bits per character, the highest first.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text {
        let value = ALPHABET.iter().position(|known| known == byte)?;
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}
