//! Session tickets: what a server must remember of a session, sealed and given to the client
//! (RFC 8446 section 4.6.1, RFC 5077).
//!
//! The keys are those of `ssl_session_ticket_key`, or made of one secret that the process has
//! from its first configuration on. Workers are forked with it and a reload keeps it, so each of
//! them opens the tickets of all others; a new key for each period bounds what one key seals.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

/// Bytes of the name that says which key sealed a ticket.
const NAME: usize = 16;
/// Bytes of the nonce, behind the name.
const NONCE: usize = 12;

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum Keys {
    /// The contents of key files, 48 or 80 bytes each. The first one seals, all of them open.
    Given(Vec<Vec<u8>>),
    /// The process's own secret.
    Own,
}

/// Seals and opens the tickets of one server.
pub(super) struct Tickets {
    keys: Keys,
    /// Sessions of another server, with other rules, are not ours.
    context: Vec<u8>,
    lifetime_s: u32,
    /// The key that was used last: it is made of its secret once and not for each ticket.
    last: Mutex<Option<Arc<Key>>>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tickets").field("lifetime_s", &self.lifetime_s).finish_non_exhaustive()
    }
}

/// The secret of this process and of those it forks, and when it was made.
fn secret() -> &'static ([u8; 32], u64) {
    static SECRET: OnceLock<([u8; 32], u64)> = OnceLock::new();
    SECRET.get_or_init(|| {
        let mut secret = [0; 32];
        // Without randomness there are no keys at all, for anything.
        rand::fill(&mut secret).expect("the system gives random numbers");
        (secret, now())
    })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

struct Key {
    name: [u8; NAME],
    seal: RandomizedNonceKey,
}

/// A key made of a secret and what it is for.
fn key(name: [u8; NAME], secret: &[u8], purpose: &[u8]) -> Option<Key> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose);
    let seal = RandomizedNonceKey::new(&AES_256_GCM, tag.as_ref()).ok()?;
    Some(Key { name, seal })
}

impl Tickets {
    pub(super) fn new(keys: Keys, context: Vec<u8>, lifetime_s: u32) -> Arc<Tickets> {
        if let Keys::Own = keys {
            // Now, in the master, and not after the fork.
            secret();
        }
        Arc::new(Tickets { keys, context, lifetime_s, last: Mutex::new(None) })
    }

    /// The key of this name, which `make` makes of its secret.
    fn named(
        &self,
        name: [u8; NAME],
        make: impl FnOnce([u8; NAME]) -> Option<Key>,
    ) -> Option<Arc<Key>> {
        // Nothing panics while the lock is held, and a worker has one thread.
        let mut last = self.last.lock().ok()?;
        if let Some(known) = &*last
            && known.name == name
        {
            return Some(known.clone());
        }
        let key = Arc::new(make(name)?);
        *last = Some(key.clone());
        Some(key)
    }

    /// The key of one period of the process's secret.
    fn of_period(&self, period: u64) -> Option<Arc<Key>> {
        let mut name = [0; NAME];
        name[8..].copy_from_slice(&period.to_be_bytes());
        self.named(name, |name| key(name, &secret().0, &name))
    }

    fn period(&self) -> u64 {
        now().saturating_sub(secret().1) / u64::from(self.lifetime_s.max(1))
    }

    /// The key of a file; of two files with one name it is the first that counts.
    fn given(&self, bytes: &[u8]) -> Option<Arc<Key>> {
        let (name, secret) = bytes.split_first_chunk::<NAME>()?;
        self.named(*name, |name| key(name, secret, b"ticket"))
    }

    fn sealing(&self) -> Option<Arc<Key>> {
        match &self.keys {
            Keys::Given(all) => self.given(all.first()?),
            Keys::Own => self.of_period(self.period()),
        }
    }

    fn opening(&self, name: &[u8]) -> Option<Arc<Key>> {
        match &self.keys {
            Keys::Given(all) => {
                all.iter().find(|one| one.starts_with(name)).and_then(|one| self.given(one))
            }
            Keys::Own => {
                let period = u64::from_be_bytes(name.get(8..)?.try_into().ok()?);
                let age = self.period().checked_sub(period)?;
                if age <= 1 { self.of_period(period) } else { None }
            }
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_s
    }

    /// Name, nonce, then sealed: the time and the session.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.sealing()?;
        let mut sealed = now().to_be_bytes().to_vec();
        sealed.extend_from_slice(plain);
        let context = Aad::from(&self.context);
        let nonce = key.seal.seal_in_place_append_tag(context, &mut sealed).ok()?;
        Some([&key.name, &nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let key = self.opening(name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = key.seal.open_in_place(nonce, Aad::from(&self.context), &mut sealed).ok()?;
        let (sealed_at, plain) = plain.split_first_chunk::<8>()?;
        let age = now().saturating_sub(u64::from_be_bytes(*sealed_at));
        (age <= u64::from(self.lifetime_s)).then(|| plain.to_vec())
    }
}

/// Reads a key file.
///
/// # Errors
/// nginx's words.
pub fn read_key(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let errno = system::errno::Errno::from(&error);
        format!("open() \"{shown}\" failed ({errno})")
    })?;
    match bytes.len() {
        48 | 80 => Ok(bytes),
        _ => Err(format!("\"{shown}\" must be 48 or 80 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_opened_by_those_who_have_the_key() {
        let given = |fills: &[u8]| Keys::Given(fills.iter().map(|fill| vec![*fill; 48]).collect());
        let of = |keys, context: &[u8]| Tickets::new(keys, context.to_vec(), 300);
        let ticket = of(given(&[1]), b"a").encrypt(b"session").unwrap();
        let check = |keys, context, expected: Option<&[u8]>| {
            assert_eq!(of(keys, context).decrypt(&ticket).as_deref(), expected);
        };
        check(given(&[1]), b"a", Some(b"session"));
        check(given(&[2, 1]), b"a", Some(b"session"));
        check(given(&[2]), b"a", None);
        check(given(&[1]), b"b", None);
        check(Keys::Own, b"a", None);
        let own = of(Keys::Own, b"a").encrypt(b"session").unwrap();
        assert_eq!(of(Keys::Own, b"a").decrypt(&own).unwrap(), b"session");
        for n in 0..own.len() {
            assert!(of(Keys::Own, b"a").decrypt(&own[..n]).is_none());
        }
        assert!(ticket.starts_with(&[1; NAME]), "the key's name stands in front");
    }
}
