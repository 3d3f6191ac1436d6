//! A responder of OCSP for tests: what it says of a certificate is the test's choice.
//!
//! The certificate's identification is echoed from the question, whatever it is; that ours are
//! right is for tests against a real responder to show.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CustomExtension, KeyPair, SigningKey};

use crate::answer::Answer;
use crate::message::Request;
use crate::tls::Identity;

/// What is said of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Good,
    Revoked,
    Unknown,
    /// `OCSPResponseStatus` other than success, such as 6 (unauthorized).
    Refuses(u8),
}

/// How answers are made.
pub struct Answers {
    says: Says,
    /// Seconds from now.
    this_update: i64,
    next_update: Option<i64>,
    /// Bytes of the signer's name in DER.
    name: Vec<u8>,
    key: KeyPair,
    /// The signer's certificate, if it goes along.
    shown: Vec<u8>,
}

impl Answers {
    /// By the certificate's own issuer, who need not show itself: good for an hour.
    pub fn by(signer: &Identity) -> Answers {
        Answers {
            says: Says::Good,
            this_update: -60,
            next_update: Some(3600),
            name: subject(&der(signer)),
            key: KeyPair::from_pem(&signer.key).expect("a key"),
            shown: Vec::new(),
        }
    }

    /// By somebody whose certificate goes along.
    pub fn showing(signer: &Identity) -> Answers {
        Answers { shown: der(signer), ..Answers::by(signer) }
    }

    /// With another verdict.
    #[must_use]
    pub fn saying(self, says: Says) -> Answers {
        Answers { says, ..self }
    }

    /// That ends so many seconds from now.
    #[must_use]
    pub fn until(self, seconds: i64) -> Answers {
        Answers { next_update: Some(seconds), ..self }
    }

    /// The whole response to a question in DER.
    pub fn to(&self, question: &[u8]) -> Vec<u8> {
        let status = match self.says {
            Says::Refuses(status) => return wrap(0x30, &[&[0x0a, 1, status]]),
            Says::Good => vec![0x80, 0],
            Says::Unknown => vec![0x82, 0],
            Says::Revoked => wrap(0xa1, &[&time(-100)]),
        };
        // Request, what would be signed, list of requests, the first one: its identification.
        let id = (0..4).fold(question, |outer, _| value(outer).0);
        let next = self.next_update.map(|next| wrap(0xa0, &[&time(next)])).unwrap_or_default();
        let single = wrap(0x30, &[id, &status, &time(self.this_update), &next]);
        let responder = wrap(0xa1, &[&self.name]);
        let body = wrap(0x30, &[&responder, &time(-60), &wrap(0x30, &[&single])]);
        let signature = self.key.sign(&body).expect("a signature");
        // ECDSA with SHA-256.
        let algorithm = wrap(0x30, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
        let signature = wrap(3, &[&[0], &signature]);
        let shown = match self.shown.is_empty() {
            true => Vec::new(),
            false => wrap(0xa0, &[&wrap(0x30, &[&self.shown])]),
        };
        let basic = wrap(0x30, &[&body, &algorithm, &signature, &shown]);
        let kind = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
        let bytes = wrap(0x30, &[&kind, &wrap(4, &[&basic])]);
        wrap(0x30, &[&[0x0a, 1, 0], &wrap(0xa0, &[&bytes])])
    }

    /// The answer of an HTTP server to a question in a URL.
    pub fn to_request(&self, request: &Request) -> Answer {
        let answer = Answer::text(self.to(&question_of(&request.target)));
        answer.header("Content-Type", "application/ocsp-response").then_close()
    }
}

/// The extension of a certificate that names its responder.
pub fn responder(url: &str) -> CustomExtension {
    let method = [6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1];
    let access = wrap(0x30, &[&method, &wrap(0x86, &[url.as_bytes()])]);
    let object = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    CustomExtension::from_oid_content(&object, wrap(0x30, &[&access]))
}

/// The question in a URL: base64, with some letters as `%XX`.
pub fn question_of(target: &str) -> Vec<u8> {
    let text = target.rsplit('/').next().unwrap_or_default();
    let text = text.replace("%2B", "+").replace("%2F", "/").replace("%3D", "");
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        let number = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(number);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// A certificate's bytes.
pub fn der(identity: &Identity) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM").to_vec()
}

/// The name of a certificate's owner, as a whole value.
fn subject(certificate: &[u8]) -> Vec<u8> {
    let (mut rest, _) = value(value(certificate).0);
    // Version, serial number, algorithm, issuer, validity: the sixth is the subject.
    for _ in 0..5 {
        rest = value(rest).1;
    }
    rest[..rest.len() - value(rest).1.len()].to_vec()
}

/// The content of the first value, and what follows it.
fn value(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, header) = match bytes[1] {
        long @ 0x81.. => {
            let n = usize::from(long & 0x7f);
            (bytes[2..2 + n].iter().fold(0, |all, &byte| all << 8 | usize::from(byte)), 2 + n)
        }
        short => (usize::from(short), 2),
    };
    bytes[header..].split_at(length)
}

fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ ..=0x7f => out.push(short as u8),
        long @ ..=0xff => out.extend([0x81, long as u8]),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    [out, content].concat()
}

/// A time, seconds from now.
fn time(from_now: i64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = now as i64 + from_now;
    let (mut year, mut day) = (1970, seconds.div_euclid(86_400));
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while day >= 365 + i64::from(is_leap(year)) {
        day -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + i64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let text = format!("{year}{month:02}{:02}{hour:02}{minute:02}{second:02}Z", day + 1);
    wrap(0x18, &[text.as_bytes()])
}
