//! yescrypt, `$y$`: what Debian and others make since 2021 (crypt(5)).

use yescrypt::{Params, PasswordVerifier, Yescrypt};

/// Most memory that one comparison may take: four times that of the costliest default.
const MEMORY: u128 = 64 << 20;
/// Most lanes, each of which takes the time of one.
const LANES: u32 = 16;
/// Longest text of parameters: further ones only make it slower, and nobody sets them.
const PARAMETERS: usize = 6;

/// Whether `given` is the password of `stored`, the whole of it. Takes some ten milliseconds.
pub(super) fn matches(given: &[u8], stored: &[u8]) -> bool {
    let Ok(stored) = std::str::from_utf8(stored) else { return false };
    let parameters = stored.split('$').nth(2).filter(|text| text.len() <= PARAMETERS);
    let Some(Ok(parameters)) = parameters.map(str::parse::<Params>) else { return false };
    let memory = 128 * u128::from(parameters.n()) * u128::from(parameters.r());
    memory <= MEMORY
        && (1..=LANES).contains(&parameters.p())
        && Yescrypt::default().verify_password(given, stored).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with libxcrypt.
    #[test]
    fn passwords() {
        for (given, stored) in [
            (
                "password",
                "$y$j75$F5Jx5fExrKuPp53xLKQ..1$6Ttv8PR0mzms/.RLVEgTO2JmLY0FDC7Cfd.UUAxsEO8",
            ),
            (
                "password",
                "$y$jD5.7$LdJMENpBABJJ3hIHjB1Bi.$AU3E7mHgY/4noNZVomnAoxAD7N4Um27x9yY9vbb7uP4",
            ),
        ] {
            assert!(matches(given.as_bytes(), stored.as_bytes()), "{stored}");
            assert!(!matches(b"Password", stored.as_bytes()), "{stored}");
            assert!(!matches(b"", stored.as_bytes()), "{stored}");
        }
        let stored = b"$y$j75$abcdefgh$IqCE40HjguzD9teJfhfD.C.mDqWjV4utYxn0fStY3w5";
        assert!(matches(b"\xff\xfe", stored));
    }

    #[test]
    fn what_would_take_too_much_matches_nothing() {
        for stored in
            ["$y$", "$y$j", "$y$jzz$a$b", "$y$jTTTTTTTTT$a$b", "$y$j75$", "$y$j75$a", "$y$j75$a$"]
        {
            assert!(!matches(b"password", stored.as_bytes()), "{stored}");
        }
        // Every pair of parameters, with those that stand for gigabytes.
        let alphabet = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for n in alphabet.iter().skip(20) {
            let stored = format!("$y$j{}z$abcdefgh$x", char::from(*n));
            assert!(!matches(b"password", stored.as_bytes()), "{stored}");
        }
    }
}
