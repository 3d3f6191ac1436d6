//! Asking whether a certificate was revoked, and understanding the answer (OCSP, RFC 6960).
//!
//! Bytes in, verdicts out: who is asked, over what, and when, is for others to say. The checks
//! are those that OpenSSL makes for nginx, in its words, but for one: without a list of trusted
//! signers it is the certificate's issuer, or whom the issuer named for it, who must have signed
//! (section 4.2.2.2).

use std::fmt;

use aws_lc_rs::digest::{self, Algorithm};

use super::check::{Purpose, Trust};
use super::der::{self, Malformed, Reader, tag};
use super::x509::{Certificate, Signed};

/// What is asked: whether `certificate` was revoked by `issuer`, who issued it.
#[derive(Clone, Debug)]
pub struct Question {
    pub certificate: Certificate,
    pub issuer: Certificate,
}

/// What a responder says of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Good,
    Revoked,
    /// The responder does not know it.
    Unknown,
}

impl fmt::Display for Status {
    /// OpenSSL's words.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Status::Good => "good",
            Status::Revoked => "revoked",
            Status::Unknown => "unknown",
        })
    }
}

/// An answer, and for how long it holds. Times are in seconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: Status,
    pub this_update: i64,
    /// There is newer information from then on; `None` when there always may be.
    pub next_update: Option<i64>,
}

/// Whose signature is good enough.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// Whoever's certificate is at hand or comes with the answer: the answer is only passed on,
    /// and who gets it checks it.
    Any(&'a [Certificate]),
    /// The issuer, one whom the issuer named for it, or one of these. The one whom the issuer
    /// named must lead to someone trusted.
    Trusted(&'a [Certificate], &'a Trust),
}

/// Why an answer is none, in nginx's and OpenSSL's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    Malformed,
    /// The responder refused to answer: `OCSPResponseStatus`.
    Unsuccessful(u8),
    NotBasic,
    SignerMissing,
    Signature,
    Untrusted(&'static str),
    NotAuthorized,
    /// It is about other certificates.
    NotFound,
    NotYetValid,
    Expired,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (call, number, text) = match self {
            Refusal::Malformed => ("d2i_OCSP_RESPONSE", 0x0688_010A, "nested asn1 error"),
            Refusal::Unsuccessful(status) => {
                let name = match status {
                    1 => "malformedrequest",
                    2 => "internalerror",
                    3 => "trylater",
                    5 => "sigrequired",
                    6 => "unauthorized",
                    _ => "(UNKNOWN)",
                };
                return write!(out, "OCSP response not successful ({status}: {name})");
            }
            Refusal::NotFound => {
                return out.write_str("certificate status not found in the OCSP response");
            }
            Refusal::NotBasic => ("OCSP_response_get1_basic", 0x1380_0068, "not basic response"),
            Refusal::SignerMissing => {
                ("OCSP_basic_verify", 0x1380_0076, "signer certificate not found")
            }
            Refusal::Signature => ("OCSP_basic_verify", 0x1380_0075, "signature failure"),
            Refusal::NotAuthorized => ("OCSP_basic_verify", 0x1380_0070, "root ca not trusted"),
            Refusal::Untrusted(fault) => {
                return write!(
                    out,
                    "OCSP_basic_verify() failed (SSL: error:13800065:OCSP routines::certificate \
                     verify error:Verify error: {fault})"
                );
            }
            Refusal::NotYetValid => ("OCSP_check_validity", 0x1380_007E, "status not yet valid"),
            Refusal::Expired => ("OCSP_check_validity", 0x1380_007D, "status expired"),
        };
        let routines = if number >> 23 == 39 { "OCSP" } else { "asn1 encoding" };
        write!(out, "{call}() failed (SSL: error:{number:08X}:{routines} routines::{text})")
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Refusal {
        Refusal::Malformed
    }
}

/// SHA-1 as an object: what everybody names certificates with (RFC 5019 section 2.1.1).
const SHA1: &[u8] = &[0x2b, 14, 3, 2, 26];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
const SHA512: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];
/// A response of the only kind there is.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// The purpose of those whom an issuer named to answer for it.
const SIGNS_ANSWERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
const ENUMERATED: u8 = 0x0a;
const NULL: &[u8] = &[5, 0];
/// Seconds by which clocks may differ (nginx's measure).
const LEEWAY_S: i64 = 300;

impl Question {
    /// The request in DER (section 4.1), without a nonce, so that answers made before fit.
    pub fn request(&self) -> Vec<u8> {
        let algorithm = wrap(tag::SEQUENCE, &[&wrap(tag::OBJECT, &[SHA1]), NULL]);
        let (name, key) = self.hashes(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        let id = wrap(
            tag::SEQUENCE,
            &[
                &algorithm,
                &wrap(tag::OCTET_STRING, &[name.as_ref()]),
                &wrap(tag::OCTET_STRING, &[key.as_ref()]),
                &wrap(tag::INTEGER, &[self.certificate.serial()]),
            ],
        );
        // Request, list of requests, what would be signed, the whole.
        (0..4).fold(id, |inner, _| wrap(tag::SEQUENCE, &[&inner]))
    }

    /// What stands for the certificate in a cache: the hashes of its issuer, and its number.
    pub fn key(&self) -> Vec<u8> {
        let (name, key) = self.hashes(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        [name.as_ref(), key.as_ref(), self.certificate.serial()].concat()
    }

    fn hashes(&self, algorithm: &'static Algorithm) -> (digest::Digest, digest::Digest) {
        let (_, key) = self.issuer.key();
        (digest::digest(algorithm, self.issuer.name()), digest::digest(algorithm, key))
    }

    /// Reads an answer in DER. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Why it says nothing of the certificate that can be believed.
    pub fn read(&self, answer: &[u8], signer: Signer<'_>, now: i64) -> Result<Answer, Refusal> {
        let basic = unwrap(answer)?;
        let (signed, body) = Signed::read(basic)?;
        let response = Body::read(body)?;
        let sent = certificates(basic)?;
        self.check_signer(&signed, basic, response.responder, &sent, signer, now)?;
        let answer = self.find(response.answers)?.ok_or(Refusal::NotFound)?;
        if answer.this_update > now + LEEWAY_S {
            return Err(Refusal::NotYetValid);
        }
        if answer.next_update.is_some_and(|next| next < now - LEEWAY_S) {
            return Err(Refusal::Expired);
        }
        Ok(answer)
    }

    fn check_signer(
        &self,
        signed: &Signed,
        basic: &[u8],
        responder: Responder<'_>,
        sent: &[Certificate],
        accepted: Signer<'_>,
        now: i64,
    ) -> Result<(), Refusal> {
        let (Signer::Any(ours) | Signer::Trusted(ours, _)) = accepted;
        let mut known = std::iter::once(&self.issuer).chain(ours);
        let at_hand = known.find(|one| responder.is(one));
        let signer = at_hand.or_else(|| sent.iter().find(|one| responder.is(one)));
        let signer = signer.ok_or(Refusal::SignerMissing)?;
        if !signed.is_by(basic, signer) {
            return Err(Refusal::Signature);
        }
        let Signer::Trusted(_, trust) = accepted else { return Ok(()) };
        if at_hand.is_some() || signer.der() == self.issuer.der() {
            return Ok(());
        }
        let mut chain = vec![signer.clone(), self.issuer.clone()];
        chain.extend(ours.iter().cloned());
        trust
            .check(&chain, Purpose::Responder, now)
            .map_err(|fault| Refusal::Untrusted(fault.text))?;
        let purposes = signer.extensions.purposes.as_deref().unwrap_or_default();
        let is_named = signer.issuer() == self.issuer.subject()
            && signer.is_signed_by(&self.issuer)
            && purposes.iter().any(|purpose| purpose == SIGNS_ANSWERS);
        if is_named { Ok(()) } else { Err(Refusal::NotAuthorized) }
    }

    /// The answer about our certificate, among those of a response.
    fn find(&self, mut answers: Reader<'_>) -> der::Result<Option<Answer>> {
        while !answers.is_empty() {
            let mut one = answers.sequence()?;
            let is_ours = self.is_named_by(one.sequence()?)?;
            let status = match one.next()?.tag {
                0x80 => Status::Good,
                0xa1 => Status::Revoked,
                0x82 => Status::Unknown,
                _ => return Err(Malformed),
            };
            let this_update = der::time(one.next()?)?;
            let next_update = match one.optional(tag::context(0))? {
                None => None,
                Some(time) => Some(der::time(Reader::new(time.content).next()?)?),
            };
            if is_ours {
                return Ok(Some(Answer { status, this_update, next_update }));
            }
        }
        Ok(None)
    }

    /// Whether a `CertID` is that of our certificate.
    fn is_named_by(&self, mut id: Reader<'_>) -> der::Result<bool> {
        let algorithm = match id.sequence()?.expect(tag::OBJECT)? {
            SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            SHA256 => &digest::SHA256,
            SHA384 => &digest::SHA384,
            SHA512 => &digest::SHA512,
            _ => return Ok(false),
        };
        let (name, key) = self.hashes(algorithm);
        Ok(id.expect(tag::OCTET_STRING)? == name.as_ref()
            && id.expect(tag::OCTET_STRING)? == key.as_ref()
            && id.expect(tag::INTEGER)? == self.certificate.serial())
    }
}

/// Whether these bytes are a response, of whatever contents (`d2i_OCSP_RESPONSE`).
pub fn is_response(der: &[u8]) -> bool {
    let read = || -> der::Result<()> {
        let mut outer = Reader::new(der);
        let mut response = outer.sequence()?;
        response.expect(ENUMERATED)?;
        response.optional(tag::context(0))?;
        if outer.is_empty() && response.is_empty() { Ok(()) } else { Err(Malformed) }
    };
    read().is_ok()
}

/// The `BasicOCSPResponse` inside a response.
fn unwrap(answer: &[u8]) -> Result<&[u8], Refusal> {
    let mut response = Reader::new(answer).sequence()?;
    match response.expect(ENUMERATED)? {
        [0] => {}
        [status] => return Err(Refusal::Unsuccessful(*status)),
        _ => return Err(Refusal::Malformed),
    }
    let bytes = response.optional(tag::context(0))?.ok_or(Refusal::NotBasic)?;
    let mut bytes = Reader::new(bytes.content).sequence()?;
    if bytes.expect(tag::OBJECT)? != BASIC {
        return Err(Refusal::NotBasic);
    }
    Ok(bytes.expect(tag::OCTET_STRING)?)
}

/// Certificates that came with a `BasicOCSPResponse`, behind its signature.
fn certificates(basic: &[u8]) -> der::Result<Vec<Certificate>> {
    let mut all = Reader::new(basic).sequence()?;
    for _ in 0..3 {
        all.next()?;
    }
    let mut found = Vec::new();
    if let Some(list) = all.optional(tag::context(0))? {
        let mut list = Reader::new(list.content).sequence()?;
        while !list.is_empty() {
            found.extend(Certificate::read(list.next()?.whole));
        }
    }
    Ok(found)
}

/// Who answers.
#[derive(Clone, Copy)]
enum Responder<'a> {
    /// By the content of its name.
    Name(&'a [u8]),
    /// By the SHA-1 of its public key.
    Key(&'a [u8]),
}

impl Responder<'_> {
    fn is(self, certificate: &Certificate) -> bool {
        match self {
            Responder::Name(name) => certificate.subject() == name,
            Responder::Key(hash) => {
                let (_, key) = certificate.key();
                digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key).as_ref() == hash
            }
        }
    }
}

/// `ResponseData`, as far as it matters.
struct Body<'a> {
    responder: Responder<'a>,
    answers: Reader<'a>,
}

impl<'a> Body<'a> {
    fn read(mut body: Reader<'a>) -> der::Result<Body<'a>> {
        body.optional(tag::context(0))?;
        let responder = body.next()?;
        let mut inner = Reader::new(responder.content);
        let responder = match responder.tag {
            tag if tag == tag::context(1) => Responder::Name(inner.expect(tag::SEQUENCE)?),
            tag if tag == tag::context(2) => Responder::Key(inner.expect(tag::OCTET_STRING)?),
            _ => return Err(Malformed),
        };
        // When it was made: no more is known from it than from the times of each answer.
        body.expect(tag::GENERALIZED_TIME)?;
        Ok(Body { responder, answers: body.sequence()? })
    }
}

/// A value in DER of these parts.
fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let bytes = (length as u64).to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests;
