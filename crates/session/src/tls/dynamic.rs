//! Certificates whose names hold variables: read when a client connects, and kept for a while
//! where `ssl_certificate_cache` says so.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use net::tls::CertifiedKey;

use super::directives::CertificateCache;
use crate::text::Span;
use crate::variables::{Subject, Template};

/// Certificates of a server, or the one that is shown to another server.
pub struct Dynamic {
    /// Certificate and key.
    pairs: Vec<(Template, Template)>,
    passwords: Vec<Vec<u8>>,
    prefix: PathBuf,
    cache: Option<CertificateCache>,
    kept: RefCell<HashMap<(String, String), Kept>>,
    /// Counts uses, for which seconds are too coarse.
    uses: Cell<u64>,
}

/// What was loaded, and when.
struct Kept {
    certificate: Arc<CertifiedKey>,
    loaded_s: u64,
    used_s: u64,
    /// The number of the last use.
    use_number: u64,
    /// When the files were changed last.
    changed: [Option<SystemTime>; 2],
}

impl Dynamic {
    pub fn new(
        pairs: Vec<(Template, Template)>,
        passwords: Vec<Vec<u8>>,
        prefix: PathBuf,
        cache: Option<CertificateCache>,
    ) -> Dynamic {
        Dynamic { pairs, passwords, prefix, cache, kept: RefCell::default(), uses: Cell::new(0) }
    }

    /// The certificates for a conversation.
    ///
    /// # Errors
    /// What to log: why one could not be loaded.
    pub fn load<X: Subject>(&self, x: &mut X) -> Result<Vec<Arc<CertifiedKey>>, String> {
        let mut certificates = Vec::with_capacity(self.pairs.len());
        for (certificate, key) in &self.pairs {
            let text =
                |x: &mut X, span: Span| String::from_utf8_lossy(x.arena().text(span)).into_owned();
            let value = certificate.value(x);
            let certificate = text(x, value);
            let value = key.value(x);
            let key = text(x, value);
            if certificate.is_empty() {
                continue;
            }
            certificates.push(self.one(certificate, key)?);
        }
        Ok(certificates)
    }

    /// The names of the certificates for a conversation.
    pub fn names<X: Subject>(&self, x: &mut X) -> String {
        let mut names = String::new();
        for (certificate, _) in &self.pairs {
            let value = certificate.value(x);
            names.push_str(&String::from_utf8_lossy(x.arena().text(value)));
            names.push('\n');
        }
        names
    }

    fn one(&self, certificate: String, key: String) -> Result<Arc<CertifiedKey>, String> {
        let now_s = net::wall().0;
        let Some(cache) = self.cache else { return self.read(&certificate, &key) };
        let use_number = self.uses.get() + 1;
        self.uses.set(use_number);
        let mut kept = self.kept.borrow_mut();
        kept.retain(|_, one| now_s.saturating_sub(one.used_s) <= cache.inactive_s);
        let name = (certificate, key);
        let changed = [changed(&self.prefix, &name.0), changed(&self.prefix, &name.1)];
        if let Some(one) = kept.get_mut(&name) {
            let is_valid = now_s.saturating_sub(one.loaded_s) <= cache.valid_s;
            if is_valid || one.changed == changed && changed.iter().all(Option::is_some) {
                if !is_valid {
                    one.loaded_s = now_s;
                }
                one.used_s = now_s;
                one.use_number = use_number;
                return Ok(one.certificate.clone());
            }
        }
        let certificate = self.read(&name.0, &name.1)?;
        if kept.len() >= cache.most && !kept.contains_key(&name) {
            let oldest = kept.iter().min_by_key(|(_, one)| one.use_number);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                kept.remove(&oldest);
            }
        }
        let one = Kept {
            certificate: certificate.clone(),
            loaded_s: now_s,
            used_s: now_s,
            use_number,
            changed,
        };
        kept.insert(name, one);
        Ok(certificate)
    }

    fn read(&self, certificate: &str, key: &str) -> Result<Arc<CertifiedKey>, String> {
        net::tls::certified(certificate, key, &self.passwords, &self.prefix)
    }
}

fn changed(prefix: &Path, file: &str) -> Option<SystemTime> {
    std::fs::metadata(prefix.join(file)).ok()?.modified().ok()
}
