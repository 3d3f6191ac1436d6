//! Whether clients' certificates were revoked, asked of their responders when they come
//! (`ssl_ocsp`): after the handshake and the check of the chain, before the first request. Other
//! clients of the worker are served meanwhile.

use std::cell::OnceCell;
use std::rc::Rc;

use config::Scope;
use net::tls::ocsp::{Answer, Question, Signer, Status};
use net::tls::{Session, Trust};

use super::responder::{Asking, LookUp, Responder};
use super::{Fault, How, Verify, directives as d};
use crate::log::{Level, Log, no_context};
use crate::table::Table;
use crate::zones::{Kind, NamedZone};

/// Zones of answers (`ssl_ocsp_cache`).
pub(super) static KIND: Kind = Kind {
    directive: "ssl_ocsp_cache",
    title: "ssl_ocsp_cache",
    prepare: Table::prepare,
    migrate: None,
};

/// Seconds for which an answer is kept that has no end.
const ENDLESS_S: u64 = 3_600;

/// Which certificates of a client's chain are asked about; the authority's own never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Off,
    /// The client's own.
    Leaf,
    Chain,
}

/// How a server asks.
pub struct Revocation {
    pub(super) depth: Depth,
    /// Who is asked in place of those whom certificates name.
    pub(super) responder: Option<Responder>,
    pub(super) look_up: LookUp,
    pub(super) cache: Option<Cache>,
}

/// What `ssl_ocsp` and its kin say.
pub(super) fn compile(
    scope: &Scope<'_>,
    how: &How<'_>,
    verify: Verify,
) -> Result<Option<Revocation>, Fault> {
    let depth = scope.get(&d::SSL_OCSP);
    let url = scope.find(&d::SSL_OCSP_RESPONDER).filter(|url| !url.is_empty());
    let (cache, span) = scope.get_spanned(&d::SSL_OCSP_CACHE);
    let cache = match cache {
        None => None,
        Some((name, size)) => {
            let zone = how.zones.declare(&name, size, &KIND).map_err(|why| (why, span))?;
            Some(Cache { zone, table: OnceCell::new() })
        }
    };
    match (depth, verify) {
        (Depth::Off, _) | (_, Verify::Off) => return Ok(None),
        (_, Verify::OptionalNoCa) => {
            let why = "\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\"";
            return Err((why.to_owned(), None));
        }
        (_, Verify::On | Verify::Optional) => {}
    }
    let look_up = how.look_up.clone();
    let responder = match url {
        None => None,
        Some(url) => Some(
            Responder::new(&url, &look_up)
                .map_err(|bad| (format!("{} in \"ssl_ocsp_responder\"", bad.text(&url)), None))?,
        ),
    };
    Ok(Some(Revocation { depth, responder, look_up, cache }))
}

/// Why a certificate is not taken, in nginx's words.
pub type Refused = &'static str;

const FAILED: Refused = "certificate status request failed";
const REVOKED: Refused = "certificate revoked";
const UNKNOWN: Refused = "certificate status unknown";

impl Revocation {
    /// Asks about the certificates of a client whose chain `trust` found to be good. `complain`
    /// logs what is wrong with the client's own certificates.
    ///
    /// # Errors
    /// What to say of the client's certificate.
    pub async fn ask(
        &self,
        session: &Session,
        trust: &Trust,
        complain: &dyn Fn(&str),
    ) -> Result<(), Refused> {
        let chain = trust.chain(&session.certificates(), net::wall().0 as i64);
        let links = match self.depth {
            Depth::Off => 0,
            Depth::Leaf => 1,
            Depth::Chain => usize::MAX,
        };
        for pair in chain.windows(2).take(links) {
            let [certificate, issuer] = pair else { continue };
            let question = Question { certificate: certificate.clone(), issuer: issuer.clone() };
            match self.status(&question, trust, complain).await {
                Some(Status::Good) => {}
                Some(Status::Revoked) => return Err(REVOKED),
                Some(Status::Unknown) => return Err(UNKNOWN),
                None => return Err(FAILED),
            }
        }
        Ok(())
    }

    async fn status(
        &self,
        question: &Question,
        trust: &Trust,
        complain: &dyn Fn(&str),
    ) -> Option<Status> {
        let own;
        let responder = match &self.responder {
            Some(responder) => responder,
            None => {
                let Some(url) = question.certificate.responder() else {
                    complain("no OCSP responder URL in certificate");
                    return None;
                };
                match Responder::parse(url) {
                    Ok(responder) => own = responder,
                    Err(bad) => {
                        complain(&format!("{} in certificate", bad.text(url)));
                        return None;
                    }
                }
                &own
            }
        };
        let key = question.key();
        if let Some(known) = self.cache.as_ref().and_then(|cache| cache.find(&key)) {
            return Some(known);
        }
        let log = Log::process();
        let asking = Asking { question, name: None, log: &log };
        let bytes = responder.ask(&asking, &self.look_up).await?;
        let answer = question.read(&bytes, Signer::Trusted(&[], trust), net::wall().0 as i64);
        match answer {
            Ok(answer) => {
                if let Some(cache) = &self.cache {
                    cache.put(&key, answer);
                }
                Some(answer.status)
            }
            Err(refusal) => {
                responder.complain(&asking, None, format_args!("{refusal}"));
                None
            }
        }
    }
}

/// Answers that all workers share.
pub(super) struct Cache {
    pub(super) zone: Rc<NamedZone>,
    pub(super) table: OnceCell<Option<Table>>,
}

impl Cache {
    fn table(&self) -> Option<&Table> {
        let open = || self.zone.memory().and_then(|memory| Table::new(memory).ok());
        self.table.get_or_init(open).as_ref()
    }

    fn find(&self, key: &[u8]) -> Option<Status> {
        let table = self.table()?;
        let hash = table.hash(key);
        let mut entries = table.lock(hash, self.zone.name());
        let at = entries.find(hash, key)?;
        if entries.value(at, 1) <= net::wall().0 {
            entries.remove(at);
            return None;
        }
        Some(match entries.value(at, 0) {
            0 => Status::Good,
            1 => Status::Revoked,
            _ => Status::Unknown,
        })
    }

    fn put(&self, key: &[u8], answer: Answer) {
        let Some(table) = self.table() else { return };
        let now = net::wall().0;
        let valid_until = answer.next_update.map_or(now + ENDLESS_S, |time| time.max(0) as u64);
        if valid_until <= now {
            return;
        }
        let hash = table.hash(key);
        let mut entries = table.lock(hash, self.zone.name());
        let at = loop {
            if let Some(at) = entries.find(hash, key).or_else(|| entries.insert(hash, key)) {
                break at;
            }
            let Some(oldest) = entries.oldest() else {
                let message = format_args!(
                    "could not allocate new entry in OCSP cache \"{}\"",
                    self.zone.name()
                );
                Log::process().write(Level::Alert, None, message, &no_context);
                return;
            };
            entries.remove(oldest);
        };
        let status = match answer.status {
            Status::Good => 0,
            Status::Revoked => 1,
            Status::Unknown => 2,
        };
        entries.set_value(at, 0, status);
        entries.set_value(at, 1, valid_until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::Zones;

    #[test]
    fn answers_are_kept_for_as_long_as_they_hold() {
        let zones = Zones::default();
        let zone = zones.declare("ocsp", 8 * 4096, &KIND).unwrap();
        let cache = Cache { zone, table: OnceCell::new() };
        zones.open(None).unwrap();
        let now = net::wall().0 as i64;
        let answer = |status, next_update| Answer { status, this_update: now, next_update };
        let check = |key: &[u8], expected| assert_eq!(cache.find(key), expected, "{key:?}");
        cache.put(b"a", answer(Status::Good, Some(now + 100)));
        cache.put(b"b", answer(Status::Revoked, None));
        cache.put(b"c", answer(Status::Unknown, Some(now + 100)));
        cache.put(b"d", answer(Status::Good, Some(now - 1)));
        check(b"a", Some(Status::Good));
        check(b"b", Some(Status::Revoked));
        check(b"c", Some(Status::Unknown));
        check(b"d", None);
        cache.put(b"a", answer(Status::Revoked, Some(now + 100)));
        check(b"a", Some(Status::Revoked));
        // The oldest make room, for ever.
        for n in 0..5_000_u32 {
            cache.put(&n.to_be_bytes().repeat(15), answer(Status::Good, None));
        }
        check(&4_999_u32.to_be_bytes().repeat(15), Some(Status::Good));
        check(b"a", None);
    }
}
