//! Whether a chain of certificates leads to one that is trusted, told as OpenSSL tells it.
//!
//! rustls would check chains itself, but knows neither a depth limit nor OpenSSL's words, and
//! refuses what nginx's users have: a certificate that `openssl req -x509` made, which signs
//! itself and is a server's certificate as well as an authority, and names in the subject only.
//!
//! nginx lets OpenSSL go on after a fault and looks at what it found last. The order of the
//! steps here is OpenSSL's (`X509_verify_cert`), so that the last fault is the same:
//! building the chain, extensions, revocation, signatures and dates.

use std::net::IpAddr;

use super::x509::{Certificate, RevocationList, usage};

/// Whose chain is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// That of a client of ours.
    Client,
    /// That of a server that we connected to.
    Server,
    /// That of a responder which signs what it says of certificates (OCSP).
    Responder,
}

/// What is wrong with a chain: OpenSSL's number and words (`X509_V_ERR_...`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub number: u8,
    pub text: &'static str,
}

macro_rules! faults {
    ($($name:ident $number:literal $text:literal,)*) => {
        impl Fault {
            $(const $name: Fault = Fault { number: $number, text: $text };)*
        }
    };
}

faults! {
    NO_ISSUER 2 "unable to get issuer certificate",
    NO_REVOCATION_LIST 3 "unable to get certificate CRL",
    SIGNATURE 7 "certificate signature failure",
    LIST_SIGNATURE 8 "CRL signature failure",
    NOT_YET_VALID 9 "certificate is not yet valid",
    EXPIRED 10 "certificate has expired",
    LIST_NOT_YET_VALID 11 "CRL is not yet valid",
    LIST_EXPIRED 12 "CRL has expired",
    SELF_SIGNED 18 "self-signed certificate",
    SELF_SIGNED_IN_CHAIN 19 "self-signed certificate in certificate chain",
    NO_LOCAL_ISSUER 20 "unable to get local issuer certificate",
    UNVERIFIED_LEAF 21 "unable to verify the first certificate",
    TOO_LONG 22 "certificate chain too long",
    REVOKED 23 "certificate revoked",
    PATH_LENGTH 25 "path length constraint exceeded",
    PURPOSE 26 "unsuitable certificate purpose",
    CRITICAL 34 "unhandled critical extension",
    INVALID_AUTHORITY 79 "invalid CA certificate",
}

impl Fault {
    /// Whether it only says that the chain leads to nobody we know, which `optional_no_ca` lets
    /// pass.
    pub fn is_about_trust(self) -> bool {
        [
            Fault::SELF_SIGNED,
            Fault::SELF_SIGNED_IN_CHAIN,
            Fault::NO_LOCAL_ISSUER,
            Fault::UNVERIFIED_LEAF,
        ]
        .contains(&self)
    }
}

/// Whom to trust, and how far.
#[derive(Debug, Default)]
pub struct Trust {
    /// Certificates of authorities.
    pub authorities: Vec<Certificate>,
    /// With any of these, each certificate of a chain must have one that says it is good.
    pub revocations: Vec<RevocationList>,
    /// Intermediate certificates that may stand between a chain's ends.
    pub depth: usize,
}

/// A chain while it is built.
struct Chain<'a> {
    links: Vec<&'a Certificate>,
    /// How many of them the peer sent.
    sent: usize,
    /// The last one signed itself.
    ends: bool,
    /// The last one is an authority that we trust.
    is_trusted: bool,
}

impl Trust {
    /// Checks what a peer sent, its own certificate first. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The fault that OpenSSL would report in the end.
    pub fn check(&self, sent: &[Certificate], purpose: Purpose, now: i64) -> Result<(), Fault> {
        let [leaf, rest @ ..] = sent else { return Err(Fault::NO_ISSUER) };
        let chain = self.build(leaf, rest, now);
        let mut last = None;
        self.judge(&chain, &mut last);
        check_extensions(&chain.links, purpose, &mut last);
        if !self.revocations.is_empty() {
            self.check_revocation(&chain, now, &mut last);
        }
        verify(&chain, now, &mut last);
        last.map_or(Ok(()), Err)
    }

    /// The chain from what a peer sent to an authority, the peer's own certificate first.
    pub fn chain(&self, sent: &[Certificate], now: i64) -> Vec<Certificate> {
        let [leaf, rest @ ..] = sent else { return Vec::new() };
        self.build(leaf, rest, now).links.into_iter().cloned().collect()
    }

    fn build<'a>(&'a self, leaf: &'a Certificate, rest: &'a [Certificate], now: i64) -> Chain<'a> {
        let mut chain = Chain { links: vec![leaf], sent: 1, ends: false, is_trusted: false };
        let mut top = leaf;
        loop {
            chain.ends = top.is_self_issued() && top.is_signed_by(top);
            chain.is_trusted = self.authorities.iter().any(|one| one.der() == top.der());
            if chain.ends || chain.links.len() > self.depth.saturating_add(1) {
                return chain;
            }
            let ours = issuer(&self.authorities, top, now);
            // An authority follows on an authority: what the peer sent no longer counts.
            let theirs = if chain.is_trusted { None } else { issuer(rest, top, now) };
            let Some(next) = ours.or(theirs) else { return chain };
            if chain.links.iter().any(|link| link.der() == next.der()) {
                return chain;
            }
            if ours.is_none() {
                chain.sent += 1;
            }
            chain.links.push(next);
            top = next;
        }
    }

    /// What the chain's end means.
    fn judge(&self, chain: &Chain<'_>, last: &mut Option<Fault>) {
        let length = chain.links.len();
        if chain.ends && chain.is_trusted && length <= self.depth.saturating_add(2) {
            return;
        }
        *last = Some(match (chain.ends, length) {
            (true, 1) => Fault::SELF_SIGNED,
            (true, _) => Fault::SELF_SIGNED_IN_CHAIN,
            (false, _) if length > self.depth.saturating_add(1) => Fault::TOO_LONG,
            (false, _) if chain.sent < length => Fault::NO_ISSUER,
            (false, _) => Fault::NO_LOCAL_ISSUER,
        });
    }

    /// RFC 5280 section 6.3, for whole lists by the issuer itself.
    fn check_revocation(&self, chain: &Chain<'_>, now: i64, last: &mut Option<Fault>) {
        for (i, link) in chain.links.iter().enumerate() {
            let by_issuer = |list: &&RevocationList| list.issuer() == link.issuer();
            let lists = || self.revocations.iter().filter(by_issuer);
            let current = |list: &&RevocationList| list.next_update.is_none_or(|end| now <= end);
            let Some(list) = lists().find(current).or_else(|| lists().next()) else {
                *last = Some(Fault::NO_REVOCATION_LIST);
                continue;
            };
            let signer = chain.links.get(i + 1).copied().unwrap_or(link);
            let allowed = signer.extensions.usage.is_none_or(|bits| bits & usage::CRL_SIGN != 0);
            if list.this_update > now {
                *last = Some(Fault::LIST_NOT_YET_VALID);
            } else if !current(&list) {
                *last = Some(Fault::LIST_EXPIRED);
            }
            if signer.subject() != list.issuer() || !allowed || !list.is_signed_by(signer) {
                *last = Some(Fault::LIST_SIGNATURE);
            }
            if list.revokes(link.serial()) {
                *last = Some(Fault::REVOKED);
            }
        }
    }
}

/// Who issued `one`, among `all`: one that is valid now and whose key fits, where there is one;
/// else one of that name. `now` is in seconds since 1970.
pub fn issuer<'a>(all: &'a [Certificate], one: &Certificate, now: i64) -> Option<&'a Certificate> {
    let named = || all.iter().filter(|other| other.subject() == one.issuer());
    let is_valid = |other: &&Certificate| other.not_before <= now && now <= other.not_after;
    let fits = |other: &&Certificate| one.is_signed_by(other);
    named().filter(is_valid).find(fits).or_else(|| named().find(fits)).or_else(|| named().next())
}

fn check_extensions(links: &[&Certificate], purpose: Purpose, last: &mut Option<Fault>) {
    let mut intermediates = 0;
    for (i, link) in links.iter().enumerate() {
        let extensions = &link.extensions;
        if extensions.unknown_critical {
            *last = Some(Fault::CRITICAL);
        }
        if i > 0 {
            if !link.may_issue() {
                *last = Some(Fault::INVALID_AUTHORITY);
            }
            if extensions.path_length.is_some_and(|length| intermediates > length) {
                *last = Some(Fault::PATH_LENGTH);
            }
            if !link.is_self_issued() {
                intermediates += 1;
            }
        }
        if !is_for(link, purpose, i == 0) {
            *last = Some(Fault::PURPOSE);
        }
    }
}

/// Whether key usage and extended key usage allow the purpose (`check_purpose_ssl_...`).
fn is_for(link: &Certificate, purpose: Purpose, is_leaf: bool) -> bool {
    /// serverAuth and clientAuth differ in the last number (RFC 5280 section 4.2.1.12).
    const AUTHENTICATION: [u8; 7] = [0x2b, 6, 1, 5, 5, 7, 3];
    let (number, wanted) = match purpose {
        Purpose::Server => {
            (1, usage::DIGITAL_SIGNATURE | usage::KEY_ENCIPHERMENT | usage::KEY_AGREEMENT)
        }
        Purpose::Client => (2, usage::DIGITAL_SIGNATURE | usage::KEY_AGREEMENT),
        // Whom the issuer named for it is looked at elsewhere.
        Purpose::Responder => return true,
    };
    let is_meant = |object: &Vec<u8>| {
        object.split_last().is_some_and(|(last, rest)| *last == number && rest == AUTHENTICATION)
    };
    if let Some(purposes) = &link.extensions.purposes
        && !purposes.iter().any(is_meant)
    {
        return false;
    }
    !is_leaf || link.extensions.usage.is_none_or(|bits| bits & wanted != 0)
}

/// Signatures and dates from the top of the chain down to the peer's own certificate.
fn verify(chain: &Chain<'_>, now: i64, last: &mut Option<Fault>) {
    let links = &chain.links;
    if !chain.ends && links.len() == 1 {
        *last = Some(Fault::UNVERIFIED_LEAF);
    }
    for (i, link) in links.iter().enumerate().rev() {
        if let Some(issuer) = links.get(i + 1)
            && !link.is_signed_by(issuer)
        {
            *last = Some(Fault::SIGNATURE);
        }
        if now < link.not_before {
            *last = Some(Fault::NOT_YET_VALID);
        }
        if now > link.not_after {
            *last = Some(Fault::EXPIRED);
        }
    }
}

/// Whether a certificate is for a host: by its alternative names, and where it has none of
/// hosts by its common name (RFC 6125 section 6.4.4, as `X509_check_host`).
pub fn is_for_host(certificate: &Certificate, host: &str) -> bool {
    let names = &certificate.extensions.names;
    if let Ok(address) = host.parse::<IpAddr>() {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        if certificate.extensions.addresses.contains(&bytes) {
            return true;
        }
    }
    match names.is_empty() {
        true => certificate.common_names().iter().any(|name| matches_host(name, host)),
        false => names.iter().any(|name| matches_host(name, host)),
    }
}

/// An asterisk stands for one label, or a part of it, at the left of at least two others.
fn matches_host(pattern: &str, host: &str) -> bool {
    let pattern = pattern.trim_end_matches('.');
    let host = host.trim_end_matches('.');
    if pattern.is_empty() {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some((first, rest)), Some((label, of_host))) =
        (pattern.split_once('.'), host.split_once('.'))
    else {
        return false;
    };
    let Some((before, after)) = first.split_once('*') else { return false };
    let is_plain = |text: &str| !text.contains('*');
    is_plain(after)
        && is_plain(rest)
        && rest.contains('.')
        && rest.eq_ignore_ascii_case(of_host)
        && !label.is_empty()
        && !label.to_ascii_lowercase().starts_with("xn--")
        && label.len() >= before.len() + after.len()
        && label.get(..before.len()).is_some_and(|text| text.eq_ignore_ascii_case(before))
        && label
            .get(label.len() - after.len()..)
            .is_some_and(|text| text.eq_ignore_ascii_case(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_patterns() {
        let check = |pattern, host, expected| {
            assert_eq!(matches_host(pattern, host), expected, "{pattern} {host}");
        };
        check("a.example.com", "A.Example.Com", true);
        check("a.example.com", "a.example.com.", true);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "a.b.example.com", false);
        check("w*.example.com", "www.example.com", true);
        check("w*x.example.com", "www.example.com", false);
        check("*.com", "example.com", false);
        check("*", "localhost", false);
        check("a.*.example.com", "a.b.example.com", false);
        check("*.example.com", "xn--a.example.com", false);
        check("", "", false);
    }
}
