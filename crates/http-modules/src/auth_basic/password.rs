//! Compares a password with what a password file has for it, in the formats of Apache's htpasswd
//! and of crypt(3).

use md5::Md5;
use sha1::{Digest, Sha1};

use super::{bcrypt, des, sha_crypt, yescrypt};
use http::credentials::decode;

/// Whether `given` is the password that `stored` was made from. A format that nobody knows
/// matches nothing.
pub(super) fn matches(given: &[u8], stored: &[u8]) -> bool {
    // A password ends at a NUL byte, as in C.
    let given = given.split(|byte| *byte == 0).next().unwrap_or_default();
    if let Some(plain) = stored.strip_prefix(b"{PLAIN}") {
        return same(given, plain);
    }
    if let Some(encoded) = stored.strip_prefix(b"{SSHA}") {
        return salted_sha1(given, encoded);
    }
    if let Some(encoded) = stored.strip_prefix(b"{SHA}") {
        let digest = Sha1::digest(given);
        return decode(encoded).is_some_and(|known| same(&digest, &known));
    }
    let Some(rest) = stored.strip_prefix(b"$") else { return des::matches(given, stored) };
    let mut parts = rest.splitn(2, |byte| *byte == b'$');
    let (kind, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match kind {
        b"apr1" => md5_crypt(b"$apr1$", given, rest),
        b"1" => md5_crypt(b"$1$", given, rest),
        b"5" => sha_crypt::matches_256(given, rest),
        b"6" => sha_crypt::matches_512(given, rest),
        b"2a" | b"2b" | b"2y" => bcrypt::matches(given, rest),
        b"y" => yescrypt::matches(given, stored),
        _ => false,
    }
}

/// Compares without telling by the time it takes how much is equal.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}

/// base64(SHA1(password salt) salt)
fn salted_sha1(given: &[u8], encoded: &[u8]) -> bool {
    const DIGEST: usize = 20;
    let Some(known) = decode(encoded).filter(|known| known.len() >= DIGEST) else { return false };
    let (digest, salt) = known.split_at(DIGEST);
    let found = Sha1::new().chain_update(given).chain_update(salt).finalize();
    same(&found, digest)
}

/// The alphabet of crypt(3), six bits per character, the lowest first.
pub(super) const ALPHABET: &[u8; 64] =
    b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Appends `count` characters for the bytes, which are the high, the middle and the low one.
pub(super) fn encode([high, middle, low]: [u8; 3], count: usize, out: &mut Vec<u8>) {
    let bits = u32::from(high) << 16 | u32::from(middle) << 8 | u32::from(low);
    out.extend((0..count).map(|n| ALPHABET[(bits >> (6 * n)) as usize & 63]));
}

/// Splits `SALT$HASH`; salts are cut after `longest` characters.
pub(super) fn split_salt(rest: &[u8], longest: usize) -> Option<(&[u8], &[u8])> {
    let dollar = rest.iter().position(|byte| *byte == b'$')?;
    Some((&rest[..dollar.min(longest)], &rest[dollar + 1..]))
}

/// Poul-Henning Kamp's MD5 crypt, of which Apache's differs by its name only.
fn md5_crypt(magic: &[u8], key: &[u8], rest: &[u8]) -> bool {
    let Some((salt, known)) = split_salt(rest, 8) else { return false };
    let inner = Md5::new().chain_update(key).chain_update(salt).chain_update(key).finalize();
    let mut outer = Md5::new().chain_update(key).chain_update(magic).chain_update(salt);
    for part in (0..key.len()).step_by(16) {
        outer.update(&inner[..(key.len() - part).min(16)]);
    }
    let mut bits = key.len();
    while bits > 0 {
        // The first byte of the password, or a zero: so it has been since 1994.
        if bits & 1 == 1 {
            outer.update([0])
        } else {
            outer.update(&key[..1])
        }
        bits >>= 1;
    }
    let mut state = outer.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        if round & 1 == 1 {
            next.update(key)
        } else {
            next.update(state)
        }
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(key);
        }
        if round & 1 == 1 {
            next.update(state)
        } else {
            next.update(key)
        }
        state = next.finalize();
    }
    let mut text = Vec::with_capacity(22);
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        encode([state[a], state[b], state[c]], 4, &mut text);
    }
    encode([0, 0, state[11]], 2, &mut text);
    same(&text, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every format, made by other programs: openssl passwd, htpasswd, perl's crypt.
    #[test]
    fn formats() {
        for (password, stored) in [
            ("password", "{PLAIN}password"),
            ("", "{PLAIN}"),
            ("password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
            ("password", "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0"),
            ("password", "$apr1$salt$Xxd1irWT9ycqoYxGFn4cb."),
            ("a much longer password than before", "$apr1$abcdefgh$BldMWcIVrx3zI11fR.afa1"),
            ("password", "$1$salt$qJH7.N4xYta3aEG/dfqo/0"),
            ("", "$1$$qRPK7m23GJusamGpoGLby/"),
            ("a-very-much-longer-text-to-encrypt", "$1$saltsalt$pQGzgp9I77Osa4C6jBKrW."),
            ("Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
            ("", "$5$salt$HrcUzzoef72uxM/YhTU5BAi419Fblqlq//zyM.rIOG0"),
            (
                "Hello world!",
                "$5$rounds=1000$saltstringsaltst$cSv7nWzgUjd5.cVg4yn64CGOTkcQ\
                 l1wXTNvW1OSLbZ0",
            ),
            (
                "Hello world!",
                "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnI\
                 FNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            ),
            (
                "a-very-much-longer-text-to-encrypt. longer than any of the b\
                 locks that these functions have, by far, yes",
                "$6$rounds=1400$anotherlongsalts$WUGetbR2b0dz9iUv.eGJbaCTAA6H\
                 WxKg2nxMN9BD/418rPyvuvB5G9y.OY9hM.fUy8HpdkBlyyfXzjkMCKDRz0",
            ),
            ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
            ("password", "$2y$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm"),
            ("passwor", "sam2NQznYLzQI"),
            ("x", "/.FLrgH5bs.aI"),
        ] {
            assert!(matches(password.as_bytes(), stored.as_bytes()), "{stored}");
            let wrong = format!("{password}x");
            assert!(!matches(wrong.as_bytes(), stored.as_bytes()), "{stored} with {wrong}");
            if !password.is_empty() {
                assert!(!matches(&password.as_bytes()[1..], stored.as_bytes()), "{stored} cut");
            }
            let cut = &stored.as_bytes()[..stored.len() - 2];
            assert!(!matches(password.as_bytes(), cut), "{stored} cut");
        }
    }

    /// DES looks at eight characters, bcrypt at seventy-two bytes.
    #[test]
    fn old_formats_ignore_the_end_of_long_passwords() {
        assert!(matches(b"longer than eight", b"ZzLkyOkBTeqXA"));
        assert!(matches(b"longer t", b"ZzLkyOkBTeqXA"));
        let stored = b"$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i";
        assert!(matches(&[b'x'; 200], stored));
        assert!(!matches(&[b'x'; 71], stored));
    }

    #[test]
    fn broken_lines_match_nothing() {
        for stored in [
            "",
            "x",
            "$",
            "$1",
            "$1$",
            "$1$salt",
            "$1$salt$",
            "$apr1$",
            "$apr1$$",
            "$2y$",
            "$2y$05$",
            "$2y$xx$",
            "$2y$99$abcdefghijklmnopqrstuu5Lo0g67CiD3M4RpN1BmBb4Crp5w7dbK",
            "$5$",
            "$5$rounds=",
            "$5$rounds=x$salt$",
            "$6$",
            "$6$salt$",
            "$7$",
            "{SHA}",
            "{SHA}Zm9vCg==",
            "{SHA}_____Mm5Pz8GgiULbPgzG37mj9g=",
            "{SSHA}",
            "{SSHA}Zm9vCg==",
            "{SSHA}_____wQadOA1e+/f+T+H3eCQQhRzYWx0",
            "\u{e9}\u{e9}abcdefghijk",
        ] {
            for password in ["", "1", "password"] {
                assert!(!matches(password.as_bytes(), stored.as_bytes()), "{stored:?}");
            }
        }
    }
}
