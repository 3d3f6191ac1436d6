//! Certificates, keys and revocation lists from files or from the configuration itself
//! (`data:...`). What goes wrong is told in OpenSSL's words, as nginx passes them on.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::pbkdf2;
use md5::{Digest, Md5};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::{CertifiedKey, SigningKey};

use super::der::{Reader, tag};
use super::pem;
use super::x509::{Certificate, RevocationList};

/// Why something could not be loaded, in words that nginx would use.
type Reason = String;

const NO_START: &str = "error:0480006C:PEM routines::no start line";

/// The text of `source`: of a file, whose path is relative to `prefix`, or behind `data:`.
fn text(source: &str, prefix: &Path) -> Result<Vec<u8>, Reason> {
    if let Some(data) = source.strip_prefix("data:") {
        return Ok(data.as_bytes().to_vec());
    }
    let path = prefix.join(source);
    std::fs::read(&path).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(0);
        let words = error.to_string();
        let words = words.split(" (os error").next().unwrap_or_default().to_owned();
        format!(
            "BIO_new_file() failed (SSL: error:{:08X}:system library::{words}:calling fopen({}, \
             r) error:10000080:BIO routines::no such file)",
            0x8000_0000_u32 | errno as u32,
            path.display()
        )
    })
}

/// The certificates of a file, in its order.
fn list(source: &str, prefix: &Path) -> Result<Vec<Certificate>, Reason> {
    let failed = |why: &str| format!("PEM_read_bio_X509_AUX() failed (SSL: {why})");
    let text = text(source, prefix)?;
    let mut found = Vec::new();
    for section in pem::sections(&text) {
        let broken = || failed("error:04800064:PEM routines::bad base64 decode");
        let section = section.map_err(|()| broken())?;
        if matches!(section.label, "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE") {
            let wrong = || failed("error:0688010A:asn1 encoding routines::nested asn1 error");
            found.push(Certificate::read(&section.bytes).ok_or_else(wrong)?);
        }
    }
    if found.is_empty() {
        return Err(failed(&format!("{NO_START}:Expecting: TRUSTED CERTIFICATE")));
    }
    Ok(found)
}

/// A chain of certificates, leaf first.
///
/// # Errors
/// `cannot load certificate ...`.
pub fn chain(source: &str, prefix: &Path) -> Result<Vec<Certificate>, Reason> {
    list(source, prefix)
        .map_err(|why| format!("cannot load certificate \"{}\": {why}", shown(source, prefix)))
}

/// Certificates to trust.
///
/// # Errors
/// nginx's words.
pub fn authorities(source: &str, prefix: &Path) -> Result<Vec<Certificate>, Reason> {
    list(source, prefix)
        .map_err(|why| format!("cannot load certificate \"{}\": {why}", shown(source, prefix)))
}

/// Revocation lists.
///
/// # Errors
/// nginx's words.
pub fn revocations(source: &str, prefix: &Path) -> Result<Vec<RevocationList>, Reason> {
    let failed = |why: &str| format!("cannot load CRL \"{}\": {why}", shown(source, prefix));
    let text = text(source, prefix).map_err(|why| failed(&why))?;
    let sections = pem::sections(&text);
    let lists = sections.filter_map(|section| match section {
        Ok(section) if section.label == "X509 CRL" => Some(RevocationList::read(&section.bytes)),
        Ok(_) => None,
        Err(()) => Some(None),
    });
    match lists.collect::<Option<Vec<_>>>() {
        Some(lists) if !lists.is_empty() => Ok(lists),
        _ => Err(failed(&format!("PEM_read_bio_X509_CRL() failed (SSL: {NO_START}:X509 CRL)"))),
    }
}

/// A chain with its key, which must belong to the first certificate.
///
/// # Errors
/// nginx's words.
pub fn certified(
    certificate: &str,
    key: &str,
    passwords: &[Vec<u8>],
    prefix: &Path,
) -> Result<Arc<CertifiedKey>, Reason> {
    let chain = chain(certificate, prefix)?;
    let signing = signing_key(key, passwords, prefix)
        .map_err(|why| format!("cannot load certificate key \"{}\": {why}", shown(key, prefix)))?;
    let leaf = chain.first().map(Certificate::key);
    let own = signing.public_key();
    let own = own.as_ref().map(|own| own.as_ref());
    let same = match (leaf, own) {
        (Some((algorithm, bits)), Some(own)) => is_key(own, algorithm, bits),
        _ => true,
    };
    if !same {
        return Err(format!(
            "SSL_CTX_use_PrivateKey(\"{}\") failed (SSL: error:05800074:x509 certificate \
             routines::key values mismatch)",
            shown(key, prefix)
        ));
    }
    let chain = chain.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
    Ok(Arc::new(CertifiedKey::new(chain, signing)))
}

/// Whether a SubjectPublicKeyInfo is of this algorithm and has these bits.
fn is_key(info: &[u8], algorithm: &[u8], bits: &[u8]) -> bool {
    let read = || -> super::der::Result<bool> {
        let mut info = Reader::new(info).sequence()?;
        Ok(info.expect(tag::SEQUENCE)? == algorithm && info.bits()? == bits)
    };
    read().unwrap_or(false)
}

fn shown(source: &str, prefix: &Path) -> String {
    match source.starts_with("data:") {
        true => source.to_owned(),
        false => prefix.join(source).display().to_string(),
    }
}

fn signing_key(
    source: &str,
    passwords: &[Vec<u8>],
    prefix: &Path,
) -> Result<Arc<dyn SigningKey>, Reason> {
    let failed = |why: &str| format!("PEM_read_bio_PrivateKey() failed (SSL: {why})");
    if source.starts_with("engine:") {
        return Err("loading \"engine:...\" certificate keys is not supported".into());
    }
    if source.starts_with("store:") {
        return Err("loading \"store:...\" certificate keys is not supported".into());
    }
    let text = text(source, prefix)?;
    let unsupported = || failed("error:1E08010C:DECODER routines::unsupported");
    for section in pem::sections(&text) {
        let section = section.map_err(|()| unsupported())?;
        let cipher = section.headers.iter().find(|(name, _)| *name == "DEK-Info");
        let is_encrypted = cipher.is_some() || section.label == "ENCRYPTED PRIVATE KEY";
        let is_key = |der: Vec<u8>| -> Option<Arc<dyn SigningKey>> {
            any_supported_type(&typed(section.label, der)?).ok()
        };
        if !section.label.ends_with("PRIVATE KEY") {
            continue;
        }
        if !is_encrypted {
            return is_key(section.bytes.clone()).ok_or_else(unsupported);
        }
        let decrypted = passwords.iter().find_map(|password| {
            let der = match cipher {
                Some((_, cipher)) => decrypt_traditional(&section.bytes, cipher, password),
                None => decrypt_pkcs8(&section.bytes, password),
            };
            is_key(der?)
        });
        return decrypted.ok_or_else(|| {
            failed("error:11800074:PKCS12 routines::pkcs12 cipherfinal error: bad decrypt")
        });
    }
    Err(unsupported())
}

fn typed(label: &str, der: Vec<u8>) -> Option<PrivateKeyDer<'static>> {
    Some(match label {
        "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => PrivatePkcs8KeyDer::from(der).into(),
        "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der).into(),
        "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der).into(),
        _ => return None,
    })
}

fn decrypt(algorithm: &'static Algorithm, key: &[u8], iv: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let key = UnboundCipherKey::new(algorithm, key).ok()?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
    let iv: [u8; 16] = iv.try_into().ok()?;
    let mut bytes = bytes.to_vec();
    let plain = key.decrypt(&mut bytes, DecryptionContext::Iv128(iv.into())).ok()?;
    Some(plain.to_vec())
}

/// PBES2 of PBKDF2 and AES in CBC mode (RFC 8018 section 6.2), which is what OpenSSL 3 writes.
fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
    const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
    let read = || -> super::der::Result<Option<Vec<u8>>> {
        let mut all = Reader::new(der).sequence()?;
        let mut scheme = all.sequence()?;
        let encrypted = all.expect(tag::OCTET_STRING)?;
        if scheme.expect(tag::OBJECT)? != PBES2 {
            return Ok(None);
        }
        let mut parameters = scheme.sequence()?;
        let mut derivation = parameters.sequence()?;
        if derivation.expect(tag::OBJECT)? != PBKDF2 {
            return Ok(None);
        }
        let mut derivation = derivation.sequence()?;
        let salt = derivation.expect(tag::OCTET_STRING)?;
        let rounds = derivation.expect(tag::INTEGER)?;
        let rounds = rounds.iter().fold(0_u32, |n, &byte| n << 8 | u32::from(byte));
        derivation.optional(tag::INTEGER)?;
        let function = match derivation.optional(tag::SEQUENCE)? {
            None => pbkdf2::PBKDF2_HMAC_SHA1,
            Some(value) => match Reader::new(value.content).expect(tag::OBJECT)?.last() {
                Some(7) => pbkdf2::PBKDF2_HMAC_SHA1,
                Some(9) => pbkdf2::PBKDF2_HMAC_SHA256,
                Some(10) => pbkdf2::PBKDF2_HMAC_SHA384,
                Some(11) => pbkdf2::PBKDF2_HMAC_SHA512,
                _ => return Ok(None),
            },
        };
        let mut cipher = parameters.sequence()?;
        // The objects of AES in CBC mode differ in their last number (RFC 3565 section 4.1).
        let (algorithm, length) = match cipher.expect(tag::OBJECT)? {
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2] => (&AES_128, 16),
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 22] => (&AES_192, 24),
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42] => (&AES_256, 32),
            _ => return Ok(None),
        };
        let iv = cipher.expect(tag::OCTET_STRING)?;
        let Some(rounds) = rounds.try_into().ok() else { return Ok(None) };
        let mut key = [0; 32];
        pbkdf2::derive(function, rounds, salt, password, &mut key[..length]);
        Ok(decrypt(algorithm, &key[..length], iv, encrypted))
    };
    read().ok().flatten()
}

/// The older form, in which the cipher stands above the base64: the key is made of the password
/// and the first half of the initial vector by one round of MD5 (EVP_BytesToKey(3)).
fn decrypt_traditional(der: &[u8], cipher: &str, password: &[u8]) -> Option<Vec<u8>> {
    let (name, iv) = cipher.split_once(',')?;
    let (algorithm, length) = match name {
        "AES-128-CBC" => (&AES_128, 16),
        "AES-192-CBC" => (&AES_192, 24),
        "AES-256-CBC" => (&AES_256, 32),
        _ => return None,
    };
    let digits = |i: usize| u8::from_str_radix(iv.get(i..i + 2)?, 16).ok();
    let iv: Vec<u8> = (0..iv.len()).step_by(2).map(digits).collect::<Option<_>>()?;
    let mut key: Vec<u8> = Vec::new();
    while key.len() < length {
        let mut hash = Md5::new();
        hash.update(key.len().checked_sub(16).map_or(&[][..], |at| &key[at..]));
        hash.update(password);
        hash.update(iv.get(..8)?);
        key.extend_from_slice(&hash.finalize());
    }
    decrypt(algorithm, &key[..length], &iv, der)
}

/// The passwords of a file, one per line.
///
/// # Errors
/// nginx's words.
pub fn passwords(path: &Path) -> Result<Vec<Vec<u8>>, Reason> {
    let text = std::fs::read(path).map_err(|error| {
        let errno = system::errno::Errno::from(&error);
        format!("open() \"{}\" failed ({errno})", path.display())
    })?;
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}
