//! What says that our own certificates were not revoked (`ssl_stapling`): the keeper asks their
//! responders again and again, and writes what they say into zones from which all workers read.
//!
//! A worker never waits for an answer, nor for another process: in a handshake it looks at one
//! number, and only when that has changed, once per refresh, it copies the bytes.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use config::Scope;
use net::tls::ocsp::{Question, Signer, Status, is_response};
use net::tls::{Certificate, CertifiedKey, Shown, Staple, Trust};
use system::shared::{Guarded, Held, View, Zone, ZoneError};

use super::responder::{Asking, LONGEST, LookUp, Responder};
use super::{Fault, How, ServerTls, directives as d};
use crate::lifecycle::Lifecycle;
use crate::log::Log;
use crate::zones::{Kind, NamedZone, Zones};

/// Zones of answers, one for each certificate and responder.
static KIND: Kind =
    Kind { directive: "ssl_stapling", title: "ssl_stapling", prepare, migrate: None };

/// Bytes of a zone: its two headers and the longest answer.
const SIZE: usize = 4096 + LONGEST;

/// Seconds between a question that failed and the next one, while there is an answer (nginx: 5
/// minutes). Without one the first tries follow sooner.
const BACK_OFF_S: u64 = 300;
const FIRST_BACK_OFF_S: u64 = 5;
/// Seconds for which an answer is not asked for again, whatever it says itself.
const FRESH_S: u64 = 3_600;
/// Seconds before the end of an answer at which the next one is to be there.
const MARGIN_S: u64 = 300;

system::plain! {
    struct Header {
        /// Changes with each answer.
        turn: AtomicU64,
        answer: Guarded<Answer>,
    }

    /// What the cells hold. Times are in seconds since 1970.
    struct Answer {
        /// Bytes; 0 while there is none.
        length: u64,
        valid_until: u64,
        /// When to ask again.
        due: u64,
    }
}

fn prepare(zone: &Arc<Zone>) -> Result<(), ZoneError> {
    zone.view::<Header, AtomicU64>().map(drop)
}

/// The place of one certificate's answer, as a process sees it.
pub(super) struct Place {
    /// Known once the configuration is put to use.
    view: OnceLock<View<Header, AtomicU64>>,
    /// The last answer that this process has read.
    read: Mutex<Option<Read>>,
}

struct Read {
    turn: u64,
    valid_until: u64,
    key: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Staple for Place {
    fn current(&self, plain: &Arc<CertifiedKey>) -> Arc<CertifiedKey> {
        let Some(view) = self.view.get() else { return plain.clone() };
        let turn = view.header().turn.load(Ordering::Acquire);
        if turn == 0 {
            return plain.clone();
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read.take().filter(|known| known.turn == turn);
        let known = read.insert(known.unwrap_or_else(|| Read::new(view, turn, plain)));
        let key = if known.valid_until >= net::wall().0 { &known.key } else { plain };
        key.clone()
    }
}

impl Read {
    fn new(view: &View<Header, AtomicU64>, turn: u64, plain: &Arc<CertifiedKey>) -> Read {
        let answer = lock(view);
        let length = usize::try_from(answer.length).unwrap_or(0);
        let words = view.cells().iter().map(|cell| cell.load(Ordering::Relaxed));
        let mut bytes: Vec<u8> =
            words.take(length.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        let mut key = CertifiedKey::clone(plain);
        key.ocsp = Some(bytes).filter(|bytes| !bytes.is_empty());
        Read { turn, valid_until: answer.valid_until, key: Arc::new(key) }
    }
}

/// The answer; where a process died over it there is none.
fn lock(view: &View<Header, AtomicU64>) -> Held<'_, Answer> {
    view.header().answer.lock().or_repair(|answer| {
        *answer = Answer { length: 0, valid_until: 0, due: 0 };
    })
}

impl Place {
    /// Until when the present answer holds, and when the next one is due.
    fn times(&self) -> (u64, u64) {
        let Some(view) = self.view.get() else { return (0, 0) };
        let answer = lock(view);
        (answer.valid_until, answer.due)
    }

    fn put(&self, bytes: &[u8], valid_until: u64, due: u64) {
        let Some(view) = self.view.get() else { return };
        let mut answer = lock(view);
        if bytes.len() > view.cells().len() * 8 {
            return;
        }
        for (cell, eight) in view.cells().iter().zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            cell.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        *answer = Answer { length: bytes.len() as u64, valid_until, due };
        // Readers who see the new number wait for the lock.
        view.header().turn.fetch_add(1, Ordering::Release);
    }

    fn put_off(&self, due: u64) {
        if let Some(view) = self.view.get() {
            lock(view).due = due;
        }
    }
}

/// A server's certificates with what is shown beside them: the response of `ssl_stapling_file`, or
/// what responders say, whose followers go to `tls`. Each comes with the name of its file.
pub(super) fn compile(
    tls: &mut ServerTls,
    scope: &Scope<'_>,
    how: &How<'_>,
    certificates: Vec<(Arc<CertifiedKey>, String)>,
) -> Result<Vec<Shown>, Fault> {
    let (file, responder) =
        (scope.find_spanned(&d::SSL_STAPLING_FILE), scope.find(&d::SSL_STAPLING_RESPONDER));
    let verifies = scope.get(&d::SSL_STAPLING_VERIFY);
    if !scope.get(&d::SSL_STAPLING) {
        return Ok(certificates.into_iter().map(|(key, _)| key.into()).collect());
    }
    let prefix = scope.tree().conf_prefix.clone();
    if let Some((file, span)) = file.filter(|(file, _)| !file.is_empty()) {
        let response = read_response(&prefix.join(file)).map_err(|why| (why, Some(span)))?;
        let with_response = |(key, _): (Arc<CertifiedKey>, String)| {
            let mut key = CertifiedKey::clone(&key);
            key.ocsp = Some(response.clone());
            Shown::from(Arc::new(key))
        };
        return Ok(certificates.into_iter().map(with_response).collect());
    }
    let settings = Settings {
        responder: responder.as_deref().filter(|url| !url.is_empty()),
        verifies,
        authorities: &tls.trust.authorities,
        look_up: &how.look_up,
        zones: how.zones,
    };
    let mut shown = Vec::new();
    for (key, file) in certificates {
        let chain: Vec<_> = key.cert.iter().filter_map(|one| Certificate::read(one)).collect();
        let name = match file.starts_with("data:") {
            true => file,
            false => prefix.join(file).display().to_string(),
        };
        let staple = match Stapler::new(&chain, &name, &settings) {
            Ok(stapler) => {
                let stapler = Rc::new(stapler);
                tls.staplers.push(Rc::new(Following(stapler.clone())));
                Some(stapler.place() as Arc<dyn Staple>)
            }
            Err(warning) => {
                scope.warn(None, warning);
                None
            }
        };
        shown.push(Shown { key, staple });
    }
    Ok(shown)
}

fn read_response(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    match std::fs::read(path) {
        Ok(response) if is_response(&response) => Ok(response),
        Ok(_) => Err(format!(
            "d2i_OCSP_RESPONSE_bio(\"{shown}\") failed (SSL: error:0688010A:asn1 encoding \
             routines::nested asn1 error)"
        )),
        Err(error) => {
            let errno = system::errno::Errno::from(&error);
            Err(format!("BIO_new_file(\"{shown}\") failed ({errno})"))
        }
    }
}

/// What `ssl_stapling` and its kin say about a server's certificates.
pub(super) struct Settings<'a> {
    /// `ssl_stapling_responder`.
    pub(super) responder: Option<&'a str>,
    /// `ssl_stapling_verify`.
    pub(super) verifies: bool,
    /// Authorities of the server, of which some may be issuers.
    pub(super) authorities: &'a [Certificate],
    pub(super) look_up: &'a LookUp,
    pub(super) zones: &'a Zones,
}

/// Follows the answers for one certificate.
pub(super) struct Stapler {
    question: Question,
    /// Certificates at hand that may have signed an answer.
    ours: Vec<Certificate>,
    /// Who else must have signed it; anyone may without.
    trust: Option<Trust>,
    responder: Responder,
    look_up: LookUp,
    /// The certificate's file.
    name: Box<str>,
    zone: Rc<NamedZone>,
    place: Arc<Place>,
    ended: Cell<bool>,
}

impl Stapler {
    /// For a certificate, its own first in `chain`. `name` is its file.
    ///
    /// # Errors
    /// The warning: why it cannot be done.
    pub(super) fn new(
        chain: &[Certificate],
        name: &str,
        settings: &Settings<'_>,
    ) -> Result<Stapler, String> {
        let ignored = |why: String| format!("\"ssl_stapling\" ignored, {why} \"{name}\"");
        let now = net::wall().0 as i64;
        let [leaf, ours @ ..] = chain else {
            return Err(ignored("no certificate in".to_owned()));
        };
        let issuer = net::tls::issuer(ours, leaf, now)
            .or_else(|| net::tls::issuer(settings.authorities, leaf, now));
        let Some(issuer) = issuer else {
            return Err(ignored("issuer certificate not found for certificate".to_owned()));
        };
        let Some(url) = settings.responder.or(leaf.responder()) else {
            return Err(ignored("no OCSP responder URL in the certificate".to_owned()));
        };
        let responder = Responder::new(url, settings.look_up).map_err(|bad| {
            let what = bad.text(url);
            ignored(format!("{what} in the certificate"))
        })?;
        let question = Question { certificate: leaf.clone(), issuer: issuer.clone() };
        let trust = settings.verifies.then(|| Trust {
            authorities: settings.authorities.to_vec(),
            revocations: Vec::new(),
            depth: usize::MAX,
        });
        // Answers that were checked in another way, or come from elsewhere, are not the same.
        let kin: Vec<&[u8]> =
            trust.iter().flat_map(|t| t.authorities.iter()).map(|c| c.der()).collect();
        let mark = net::tls::mark(&[leaf.der(), issuer.der(), url.as_bytes(), &kin.concat()]);
        let zone = settings.zones.declare(&format!("ssl_stapling {mark}"), SIZE, &KIND)?;
        Ok(Stapler {
            question,
            ours: ours.to_vec(),
            trust,
            responder,
            look_up: settings.look_up.clone(),
            name: name.into(),
            zone,
            place: Arc::new(Place { view: OnceLock::new(), read: Mutex::default() }),
            ended: Cell::new(false),
        })
    }

    /// What handshakes look at.
    pub(super) fn place(&self) -> Arc<Place> {
        self.place.clone()
    }

    /// Asks whenever it is time.
    async fn follow(&self) {
        // A fresh configuration need not wait out what went wrong before.
        let (valid_until, due) = self.place.times();
        let mut due = if valid_until < net::wall().0 { 0 } else { due };
        let mut failures = 0;
        while !self.ended.get() {
            let now = net::wall().0;
            if now < due {
                // The clock may be set meanwhile.
                net::sleep((due - now).min(60) * 1000).await;
                continue;
            }
            due = match self.ask().await {
                Some((answer, next_update)) => {
                    failures = 0;
                    let now = net::wall().0;
                    let valid_until = next_update.unwrap_or(u64::MAX);
                    let due = now + fresh_for(valid_until.saturating_sub(now));
                    self.place.put(&answer, valid_until, due);
                    due
                }
                None => {
                    let (valid_until, _) = self.place.times();
                    let now = net::wall().0;
                    let has_one = valid_until >= now;
                    let pause = if has_one { BACK_OFF_S } else { back_off(failures) };
                    failures += 1;
                    self.place.put_off(now + pause);
                    now + pause
                }
            };
        }
    }

    /// An answer that says that all is well, and when it ends. What goes wrong is logged.
    async fn ask(&self) -> Option<(Vec<u8>, Option<u64>)> {
        let log = Log::process();
        let asking = Asking { question: &self.question, name: Some(&self.name), log: &log };
        let bytes = self.responder.ask(&asking, &self.look_up).await?;
        let signer = match &self.trust {
            None => Signer::Any(&self.ours),
            Some(trust) => Signer::Trusted(&self.ours, trust),
        };
        let complain = |reason: &dyn std::fmt::Display| {
            self.responder.complain(&asking, None, format_args!("{reason}"));
        };
        match self.question.read(&bytes, signer, net::wall().0 as i64) {
            Ok(answer) if answer.status == Status::Good => {
                Some((bytes, answer.next_update.map(|time| time.max(0) as u64)))
            }
            Ok(answer) => {
                let status = answer.status;
                complain(&format_args!("certificate status \"{status}\" in the OCSP response"));
                None
            }
            Err(refusal) => {
                complain(&refusal);
                None
            }
        }
    }
}

/// Seconds until the next question, when an answer holds for so many.
fn fresh_for(valid_s: u64) -> u64 {
    match valid_s {
        0..=600 => (valid_s / 2).max(5),
        _ => (valid_s - MARGIN_S).min(FRESH_S),
    }
}

/// Seconds until the next question, when so many have failed in a row.
fn back_off(failures: u32) -> u64 {
    (FIRST_BACK_OFF_S << failures.min(10)).min(BACK_OFF_S)
}

/// A stapler as the engines know it.
pub(super) struct Following(pub(super) Rc<Stapler>);

thread_local! {
    /// Certificates that this process asks for: servers may share one.
    static FOLLOWED: RefCell<HashSet<Box<str>>> = RefCell::default();
}

impl Lifecycle for Following {
    fn opened(&self) {
        let view = self.0.zone.memory().and_then(|memory| memory.view().ok());
        if let Some(view) = view {
            // Told once for each configuration.
            let _ = self.0.place.view.set(view);
        }
    }

    fn worker_began(&self, _: usize) {}

    fn worker_ends(&self) {
        self.0.ended.set(true);
    }

    fn worker_died(&self, _: usize) {}

    fn wants_keeper(&self) -> bool {
        true
    }

    fn keeper_began(&self) {
        let is_first =
            FOLLOWED.with_borrow_mut(|followed| followed.insert(self.0.zone.name().into()));
        if is_first {
            let stapler = self.0.clone();
            net::spawn(async move { stapler.follow().await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between_questions() {
        let check = |valid_s, expected| assert_eq!(fresh_for(valid_s), expected, "{valid_s}");
        check(0, 5);
        check(60, 30);
        check(600, 300);
        check(1_000, 700);
        check(86_400, 3_600);
        check(u64::MAX - 2_000_000_000, 3_600);
        let pauses: Vec<u64> = (0..8).map(back_off).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off(u32::MAX), 300);
    }
}
