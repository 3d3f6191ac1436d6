//! Certificates and revocation lists (RFC 5280): what is read of them, and the texts that
//! OpenSSL makes of it, which `$ssl_client_...` show.
//!
//! Nothing is verified here; see `check.rs`.

use std::ops::Range;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::SignatureVerificationAlgorithm;

use super::der::{self, Malformed, Reader, Value, tag};

/// A certificate, read.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    signed: Signed,
    serial: Range<usize>,
    issuer: Range<usize>,
    subject: Range<usize>,
    key: PublicKey,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) extensions: Extensions,
}

/// What is signed, how, and the signature: certificates and revocation lists are built alike.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    body: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
}

#[derive(Clone, Debug)]
struct PublicKey {
    whole: Range<usize>,
    algorithm: Range<usize>,
    bits: Range<usize>,
}

/// The extensions that matter for checking a chain (RFC 5280 section 4.2.1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions {
    /// Basic constraints: present, and whether they say CA.
    pub(crate) is_ca: Option<bool>,
    /// How many intermediate certificates may follow.
    pub(crate) path_length: Option<u64>,
    /// Bits of key usage, the first one highest.
    pub(crate) usage: Option<u16>,
    /// Extended key usage, as objects.
    pub(crate) purposes: Option<Vec<Vec<u8>>>,
    /// Names of hosts.
    pub(crate) names: Vec<Box<str>>,
    /// Addresses, as 4 or 16 bytes.
    pub(crate) addresses: Vec<Vec<u8>>,
    /// Where to ask whether it was revoked: the first URL of an OCSP responder.
    pub(crate) responder: Option<Box<str>>,
    /// One that must be understood, and is not.
    pub(crate) unknown_critical: bool,
}

/// Bits of key usage.
pub(crate) mod usage {
    pub(crate) const DIGITAL_SIGNATURE: u16 = 1 << 15;
    pub(crate) const KEY_ENCIPHERMENT: u16 = 1 << 13;
    pub(crate) const KEY_AGREEMENT: u16 = 1 << 11;
    pub(crate) const CERT_SIGN: u16 = 1 << 10;
    pub(crate) const CRL_SIGN: u16 = 1 << 9;
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// Authority information access, and OCSP among its methods (RFC 5280 section 4.2.2.1).
const AUTHORITY_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
const ACCESS_BY_OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];

/// A text that stands for these bytes and no others: the beginning of their SHA-256.
pub fn mark(parts: &[&[u8]]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where `part`, a piece of `whole`, lies in it.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}

impl Signed {
    /// Splits a signed object; the second is a reader of what is signed.
    pub(super) fn read(der: &[u8]) -> der::Result<(Signed, Reader<'_>)> {
        let mut outer = Reader::new(der);
        let mut all = outer.sequence()?;
        if !outer.is_empty() {
            return Err(Malformed);
        }
        let body = all.next()?;
        let algorithm = all.expect(tag::SEQUENCE)?;
        let signature = all.bits()?;
        if body.tag != tag::SEQUENCE {
            return Err(Malformed);
        }
        let signed = Signed {
            body: place(der, body.whole),
            algorithm: place(der, algorithm),
            signature: place(der, signature),
        };
        Ok((signed, Reader::new(body.content)))
    }

    /// Whether the key of `issuer` made the signature.
    pub(super) fn is_by(&self, der: &[u8], issuer: &Certificate) -> bool {
        let algorithm = &der[self.algorithm.clone()];
        let (key_algorithm, key) = issuer.key();
        algorithms().iter().any(|known| {
            known.signature_alg_id().as_ref() == algorithm
                && known.public_key_alg_id().as_ref() == key_algorithm
                && known
                    .verify_signature(key, &der[self.body.clone()], &der[self.signature.clone()])
                    .is_ok()
        })
    }
}

fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    static PROVIDER: LazyLock<CryptoProvider> =
        LazyLock::new(rustls::crypto::aws_lc_rs::default_provider);
    PROVIDER.signature_verification_algorithms.all
}

impl Certificate {
    /// Reads a certificate; `None` when it is none.
    pub fn read(der: &[u8]) -> Option<Certificate> {
        Certificate::parse(der).ok()
    }

    fn parse(der: &[u8]) -> der::Result<Certificate> {
        let (signed, mut body) = Signed::read(der)?;
        body.optional(tag::context(0))?;
        let serial = body.expect(tag::INTEGER)?;
        body.sequence()?;
        let issuer = body.expect(tag::SEQUENCE)?;
        let mut validity = body.sequence()?;
        let (not_before, not_after) = (der::time(validity.next()?)?, der::time(validity.next()?)?);
        let subject = body.expect(tag::SEQUENCE)?;
        let info = body.next()?;
        let mut key = Reader::new(info.whole).sequence()?;
        let algorithm = key.expect(tag::SEQUENCE)?;
        let bits = key.bits()?;
        body.optional(tag::implicit(1))?;
        body.optional(tag::implicit(2))?;
        let mut extensions = Extensions::default();
        if let Some(list) = body.optional(tag::context(3))? {
            let mut list = Reader::new(list.content).sequence()?;
            while !list.is_empty() {
                extensions.read(list.sequence()?)?;
            }
        }
        Ok(Certificate {
            signed,
            serial: place(der, serial),
            issuer: place(der, issuer),
            subject: place(der, subject),
            key: PublicKey {
                whole: place(der, info.whole),
                algorithm: place(der, algorithm),
                bits: place(der, bits),
            },
            not_before,
            not_after,
            extensions,
            der: der.to_vec(),
        })
    }

    /// The bytes it was read from.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject as a whole value in DER.
    pub fn name(&self) -> &[u8] {
        let start = self.subject.start;
        // The tag and the length stand in front: the length decides how many bytes that is.
        let header = match self.subject.len() {
            0..=0x7f => 2,
            0x80..=0xff => 3,
            _ => 4,
        };
        &self.der[start.saturating_sub(header)..self.subject.end]
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.der[self.subject.clone()]
    }

    pub(crate) fn issuer(&self) -> &[u8] {
        &self.der[self.issuer.clone()]
    }

    pub(crate) fn serial(&self) -> &[u8] {
        &self.der[self.serial.clone()]
    }

    /// Algorithm and bits of the public key, for a [`SignatureVerificationAlgorithm`].
    pub(crate) fn key(&self) -> (&[u8], &[u8]) {
        (&self.der[self.key.algorithm.clone()], &self.der[self.key.bits.clone()])
    }

    /// The public key as a SubjectPublicKeyInfo.
    pub(crate) fn key_info(&self) -> &[u8] {
        &self.der[self.key.whole.clone()]
    }

    /// Whether it names itself as its issuer.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject() == self.issuer()
    }

    /// Whether the key of `issuer` signed it.
    pub(crate) fn is_signed_by(&self, issuer: &Certificate) -> bool {
        self.signed.is_by(&self.der, issuer)
    }

    /// Whether it may sign certificates. Without the extension that is for the first version
    /// only, which knows none; OpenSSL also takes a self-issued one for a CA.
    pub(crate) fn may_issue(&self) -> bool {
        let allowed = self.extensions.usage.is_none_or(|usage| usage & usage::CERT_SIGN != 0);
        allowed && self.extensions.is_ca.unwrap_or_else(|| self.is_self_issued())
    }

    /// The common names of the subject.
    pub(crate) fn common_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for_each_attribute(self.subject(), |object, value, _| {
            if object == COMMON_NAME {
                names.push(String::from_utf8_lossy(&utf8(value)).into_owned());
            }
        });
        names
    }

    /// The subject, last part first (RFC 2253).
    pub fn subject_text(&self) -> String {
        reversed(self.subject())
    }

    /// The issuer, last part first (RFC 2253).
    pub fn issuer_text(&self) -> String {
        reversed(self.issuer())
    }

    /// The subject as `/C=DE/CN=x` (`X509_NAME_oneline`).
    pub fn subject_line(&self) -> String {
        slashed(self.subject())
    }

    /// The issuer as `/C=DE/CN=x`.
    pub fn issuer_line(&self) -> String {
        slashed(self.issuer())
    }

    /// The serial number in hexadecimal digits.
    pub fn serial_text(&self) -> String {
        let serial = match self.serial() {
            [0, rest @ ..] if !rest.is_empty() => rest,
            serial => serial,
        };
        serial.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// SHA-1 of the whole certificate in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &self.der);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first second of its life, as `Nov 21 12:30:00 2026 GMT`.
    pub fn begins(&self) -> String {
        date(self.not_before)
    }

    /// The last second of its life.
    pub fn ends(&self) -> String {
        date(self.not_after)
    }

    /// Whole days until it ends; 0 when that is over.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after - now).max(0) / 86_400
    }

    /// Where it says that one may ask whether it was revoked: a URL of an OCSP responder.
    pub fn responder(&self) -> Option<&str> {
        self.extensions.responder.as_deref()
    }

    /// As a PEM section.
    pub fn pem(&self) -> String {
        super::pem::write_certificate(&self.der)
    }
}

impl Extensions {
    fn read(&mut self, mut one: Reader<'_>) -> der::Result<()> {
        let object = one.expect(tag::OBJECT)?;
        let critical = one.optional(tag::BOOLEAN)?.is_some_and(|value| value.content != [0]);
        let mut inner = Reader::new(one.expect(tag::OCTET_STRING)?);
        match object {
            [0x55, 0x1d, 19] => {
                let mut constraints = inner.sequence()?;
                let is_ca = constraints.optional(tag::BOOLEAN)?;
                self.is_ca = Some(is_ca.is_some_and(|value| value.content != [0]));
                let length = constraints.optional(tag::INTEGER)?;
                self.path_length = length.map(|value| number(value.content));
            }
            [0x55, 0x1d, 15] => {
                let bits = inner.expect(tag::BIT_STRING)?.get(1..).ok_or(Malformed)?;
                let byte = |i: usize| u16::from(bits.get(i).copied().unwrap_or(0));
                self.usage = Some(byte(0) << 8 | byte(1));
            }
            [0x55, 0x1d, 37] => {
                let mut list = inner.sequence()?;
                let mut purposes = Vec::new();
                while !list.is_empty() {
                    purposes.push(list.expect(tag::OBJECT)?.to_vec());
                }
                self.purposes = Some(purposes);
            }
            [0x55, 0x1d, 17] => self.alternative_names(inner.sequence()?)?,
            AUTHORITY_ACCESS => self.responder = responder(inner.sequence()?)?,
            // Key identifiers, policies, distribution points: nothing follows from them here.
            [0x55, 0x1d, 14 | 18 | 31 | 32 | 35] => {}
            _ => self.unknown_critical |= critical,
        }
        Ok(())
    }

    fn alternative_names(&mut self, mut list: Reader<'_>) -> der::Result<()> {
        while !list.is_empty() {
            let name = list.next()?;
            if name.tag == tag::implicit(2)
                && let Ok(text) = std::str::from_utf8(name.content)
            {
                self.names.push(text.into());
            } else if name.tag == tag::implicit(7) {
                self.addresses.push(name.content.to_vec());
            }
        }
        Ok(())
    }
}

/// The first URL of an OCSP responder.
fn responder(mut list: Reader<'_>) -> der::Result<Option<Box<str>>> {
    while !list.is_empty() {
        let mut one = list.sequence()?;
        let (method, place) = (one.expect(tag::OBJECT)?, one.next()?);
        if method == ACCESS_BY_OCSP
            && place.tag == tag::implicit(6)
            && let Ok(url) = std::str::from_utf8(place.content)
        {
            return Ok(Some(url.into()));
        }
    }
    Ok(None)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n: u64, &byte| n.saturating_mul(256).saturating_add(byte.into()))
}

/// A list of certificates that are no longer good (RFC 5280 section 5).
#[derive(Debug)]
pub struct RevocationList {
    der: Vec<u8>,
    signed: Signed,
    issuer: Range<usize>,
    pub(crate) this_update: i64,
    pub(crate) next_update: Option<i64>,
    /// Serial numbers, sorted.
    revoked: Vec<Vec<u8>>,
}

impl RevocationList {
    /// Reads a list; `None` when it is none.
    pub fn read(der: &[u8]) -> Option<RevocationList> {
        RevocationList::parse(der).ok()
    }

    fn parse(der: &[u8]) -> der::Result<RevocationList> {
        let (signed, mut body) = Signed::read(der)?;
        body.optional(tag::INTEGER)?;
        body.sequence()?;
        let issuer = body.expect(tag::SEQUENCE)?;
        let this_update = der::time(body.next()?)?;
        let mut next_update = None;
        for tag in [tag::UTC_TIME, tag::GENERALIZED_TIME] {
            if let Some(value) = body.optional(tag)? {
                next_update = Some(der::time(value)?);
            }
        }
        let mut revoked = Vec::new();
        if let Some(list) = body.optional(tag::SEQUENCE)? {
            let mut list = Reader::new(list.content);
            while !list.is_empty() {
                revoked.push(list.sequence()?.expect(tag::INTEGER)?.to_vec());
            }
        }
        revoked.sort_unstable();
        Ok(RevocationList {
            issuer: place(der, issuer),
            signed,
            this_update,
            next_update,
            revoked,
            der: der.to_vec(),
        })
    }

    pub(crate) fn issuer(&self) -> &[u8] {
        &self.der[self.issuer.clone()]
    }

    pub(crate) fn is_signed_by(&self, issuer: &Certificate) -> bool {
        self.signed.is_by(&self.der, issuer)
    }

    pub(crate) fn revokes(&self, serial: &[u8]) -> bool {
        self.revoked.binary_search_by(|one| one.as_slice().cmp(serial)).is_ok()
    }
}

/// Calls `visit` with object, value and the number of the set (RDN) of each part of a name.
fn for_each_attribute<'a>(name: &'a [u8], mut visit: impl FnMut(&'a [u8], Value<'a>, usize)) {
    let mut sets = Reader::new(name);
    for n in 0.. {
        let Ok(set) = sets.expect(tag::SET) else { return };
        let mut set = Reader::new(set);
        while let Ok(mut part) = set.sequence() {
            let (Ok(object), Ok(value)) = (part.expect(tag::OBJECT), part.next()) else { return };
            visit(object, value, n);
        }
    }
}

/// A string value in UTF-8.
fn utf8(value: Value<'_>) -> Vec<u8> {
    match value.tag {
        // BMPString, two bytes per letter.
        0x1e => {
            let units = value.content.chunks(2);
            let letters = units.map(|two| two.iter().fold(0, |n, &byte| n << 8 | u16::from(byte)));
            String::from_utf16_lossy(&letters.collect::<Vec<_>>()).into_bytes()
        }
        // T61String, which everybody takes for Latin-1.
        0x14 => value.content.iter().map(|&byte| char::from(byte)).collect::<String>().into_bytes(),
        _ => value.content.to_vec(),
    }
}

/// The short name of an attribute's type, as OpenSSL has it.
fn short_name(object: &[u8]) -> Option<&'static str> {
    Some(match object {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 13] => "description",
        [0x55, 4, 15] => "businessCategory",
        [0x55, 4, 17] => "postalCode",
        [0x55, 4, 41] => "name",
        [0x55, 4, 42] => "GN",
        [0x55, 4, 43] => "initials",
        [0x55, 4, 44] => "generationQualifier",
        [0x55, 4, 46] => "dnQualifier",
        [0x55, 4, 65] => "pseudonym",
        [0x55, 4, 97] => "organizationIdentifier",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2] => "unstructuredName",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        _ => return None,
    })
}

/// An object in digits and dots.
fn dotted(object: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0_u64;
    for &byte in object {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.extend([first, number - first * 40]);
            } else {
                numbers.push(number);
            }
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

fn reversed(name: &[u8]) -> String {
    let mut sets: Vec<(usize, String)> = Vec::new();
    for_each_attribute(name, |object, value, n| {
        let text = match short_name(object) {
            Some(name) => format!("{name}={}", escaped(&utf8(value))),
            None => {
                let hex: String = value.whole.iter().map(|byte| format!("{byte:02X}")).collect();
                format!("{}=#{hex}", dotted(object))
            }
        };
        match sets.last_mut() {
            Some((last, parts)) if *last == n => *parts = format!("{text}+{parts}"),
            _ => sets.push((n, text)),
        }
    });
    sets.into_iter().rev().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// RFC 2253 section 2.4, with everything beyond ASCII as bytes in hexadecimal digits.
fn escaped(text: &[u8]) -> String {
    let mut out = String::new();
    for (i, &byte) in text.iter().enumerate() {
        let at_end = i == 0 || i + 1 == text.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.push('\\'),
            b' ' if at_end => out.push('\\'),
            b'#' if i == 0 => out.push('\\'),
            0x20..0x7f => {}
            _ => {
                out.push_str(&format!("\\{byte:02X}"));
                continue;
            }
        }
        out.push(char::from(byte));
    }
    out
}

fn slashed(name: &[u8]) -> String {
    let mut out = String::new();
    for_each_attribute(name, |object, value, _| {
        let name = short_name(object).map_or_else(|| dotted(object), str::to_owned);
        out.push_str(&format!("/{name}="));
        for &byte in value.content {
            match byte {
                0x20..0x7f => out.push(char::from(byte)),
                _ => out.push_str(&format!("\\x{byte:02X}")),
            }
        }
    });
    out
}

/// `ASN1_TIME_print`: the day is padded with a space.
fn date(seconds: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // The inverse of `der::days`: years begin in March.
    let days = seconds.div_euclid(86_400) + 719_468;
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let (month, next) = if march < 10 { (march + 2, 0) } else { (march - 10, 1) };
    let year = days.div_euclid(146_097) * 400 + year_of_era + next;
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let month = MONTHS[month as usize % 12];
    format!("{month} {day:2} {hour:02}:{minute:02}:{second:02} {year} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_openssl_does() {
        assert_eq!(date(1_795_264_200), "Nov 21 12:30:00 2026 GMT");
        assert_eq!(date(951_825_600), "Feb 29 12:00:00 2000 GMT");
        assert_eq!(date(0), "Jan  1 00:00:00 1970 GMT");
    }

    /// A name of parts, each a set of its own.
    fn name(parts: &[(&[u8], &[u8])]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let mut out = vec![tag, content.len() as u8];
            out.extend_from_slice(content);
            out
        };
        let part = |(object, text): &(&[u8], &[u8])| {
            let inner = [wrap(tag::OBJECT, object), wrap(0x0c, text)].concat();
            wrap(tag::SET, &wrap(tag::SEQUENCE, &inner))
        };
        parts.iter().flat_map(part).collect()
    }

    #[test]
    fn names_in_both_forms() {
        let name = name(&[
            (&[0x55, 4, 6], b"DE"),
            (&[0x55, 4, 10], b" a, \"b\"#"),
            (&[0x2b, 6, 1], b"x"),
            (&[0x55, 4, 3], "h\u{f6}st".as_bytes()),
        ]);
        assert_eq!(reversed(&name), "CN=h\\C3\\B6st,1.3.6.1=#0C0178,O=\\ a\\, \\\"b\\\"#,C=DE");
        assert_eq!(slashed(&name), "/C=DE/O= a, \"b\"#/1.3.6.1=x/CN=h\\xC3\\xB6st");
    }
}
