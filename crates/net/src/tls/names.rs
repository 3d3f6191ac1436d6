//! OpenSSL's names for what is negotiated, and the lists of them that configurations hold.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, ALL_KX_GROUPS};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme, SupportedCipherSuite};

use super::Protocols;

/// The suites of TLS 1.3 and, behind them, of TLS 1.2, in OpenSSL's order of preference.
const SUITES: [(CipherSuite, &str, &[&str]); 9] = [
    (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", &[]),
    (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256", &[]),
    (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", &[]),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        &["aECDSA", "ECDSA", "AES256", "AES", "AESGCM", "SHA384"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        &["aRSA", "AES256", "AES", "AESGCM", "SHA384"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        &["aECDSA", "ECDSA", "CHACHA20"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        &["aRSA", "CHACHA20"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        &["aECDSA", "ECDSA", "AES128", "AES", "AESGCM", "SHA256"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        &["aRSA", "AES128", "AES", "AESGCM", "SHA256"],
    ),
];
const OF_TLS13: usize = 3;
/// Words that mean all suites of TLS 1.2 there are: each is ECDHE with an AEAD cipher.
const ALL: [&str; 13] = [
    "ALL",
    "DEFAULT",
    "COMPLEMENTOFDEFAULT",
    "HIGH",
    "TLSv1.2",
    "ECDHE",
    "EECDH",
    "kECDHE",
    "kEECDH",
    "ECDH",
    "kECDH",
    "AEAD",
    "FIPS",
];

/// OpenSSL's name of a suite.
pub(crate) fn suite(suite: CipherSuite) -> String {
    let known = SUITES.iter().find(|(one, _, _)| *one == suite);
    known.map_or_else(|| format!("0x{:04x}", u16::from(suite)), |(_, name, _)| (*name).to_owned())
}

fn supported(suite: CipherSuite) -> Option<SupportedCipherSuite> {
    ALL_CIPHER_SUITES.iter().copied().find(|one| one.suite() == suite)
}

/// The suites of TLS 1.2 that a list in OpenSSL's language selects, in its order
/// (openssl-ciphers(1)). `None`: none of them.
pub(crate) fn suites_of_tls12(list: &str) -> Option<Vec<SupportedCipherSuite>> {
    let all = &SUITES[OF_TLS13..];
    let mut chosen: Vec<usize> = Vec::new();
    let mut killed: Vec<usize> = Vec::new();
    for word in list.split([':', ',', ' ', ';']).filter(|word| !word.is_empty()) {
        let (operator, names) = match word.as_bytes()[0] {
            operator @ (b'!' | b'-' | b'+') => (operator, &word[1..]),
            // @STRENGTH and @SECLEVEL: all of these suites are strong, and in that order.
            b'@' => continue,
            _ => (0, word),
        };
        let meant: Vec<usize> = (0..all.len())
            .filter(|&i| names.split('+').all(|name| is_meant(name, all[i].1, all[i].2)))
            .collect();
        match operator {
            b'!' => {
                chosen.retain(|i| !meant.contains(i));
                killed.extend(meant);
            }
            b'-' => chosen.retain(|i| !meant.contains(i)),
            b'+' => {
                let (last, first): (Vec<_>, Vec<_>) =
                    chosen.iter().copied().partition(|i| meant.contains(i));
                chosen = [first, last].concat();
            }
            _ => {
                let fresh = |i: &usize| !chosen.contains(i) && !killed.contains(i);
                let fresh: Vec<usize> = meant.into_iter().filter(fresh).collect();
                chosen.extend(fresh);
            }
        }
    }
    let suites: Vec<_> = chosen.into_iter().filter_map(|i| supported(all[i].0)).collect();
    (!suites.is_empty()).then_some(suites)
}

fn is_meant(word: &str, name: &str, properties: &[&str]) -> bool {
    let same = |one: &&str| *one == word;
    word == name || ALL.iter().any(same) || properties.iter().any(same)
}

/// The suites of TLS 1.3 of a list of names. `None` when one is unknown or there are none.
pub(crate) fn suites_of_tls13(list: &str) -> Option<Vec<SupportedCipherSuite>> {
    let mut suites = Vec::new();
    for word in list.split(':') {
        let (suite, _, _) = SUITES[..OF_TLS13].iter().find(|(_, name, _)| *name == word)?;
        suites.extend(supported(*suite));
    }
    (!suites.is_empty()).then_some(suites)
}

/// All suites of TLS 1.3.
pub(crate) fn all_of_tls13() -> Vec<SupportedCipherSuite> {
    SUITES[..OF_TLS13].iter().filter_map(|(suite, _, _)| supported(*suite)).collect()
}

/// What is safe against quantum computers comes first.
const AUTO: &str = "X25519MLKEM768:X25519:prime256v1:secp384r1";

/// The groups (curves) of a list of names; `None` when one of them is unknown.
pub(crate) fn groups(list: &str) -> Option<Vec<&'static dyn SupportedKxGroup>> {
    let list = if list == "auto" { AUTO } else { list };
    list.split(':')
        .map(|word| {
            let wanted = group_of(word)?;
            ALL_KX_GROUPS.iter().copied().find(|group| group.name() == wanted)
        })
        .collect()
}

fn group_of(name: &str) -> Option<NamedGroup> {
    Some(match name.to_ascii_lowercase().as_str() {
        "x25519" => NamedGroup::X25519,
        "prime256v1" | "p-256" | "secp256r1" => NamedGroup::secp256r1,
        "secp384r1" | "p-384" => NamedGroup::secp384r1,
        "x25519mlkem768" => NamedGroup::X25519MLKEM768,
        "secp256r1mlkem768" => NamedGroup::secp256r1MLKEM768,
        _ => return None,
    })
}

/// OpenSSL's name of a group.
pub(crate) fn group(group: NamedGroup) -> String {
    match group {
        NamedGroup::X25519 => "X25519".into(),
        NamedGroup::X448 => "X448".into(),
        NamedGroup::secp256r1 => "prime256v1".into(),
        NamedGroup::secp384r1 => "secp384r1".into(),
        NamedGroup::secp521r1 => "secp521r1".into(),
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768".into(),
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768".into(),
        NamedGroup::FFDHE2048 => "ffdhe2048".into(),
        NamedGroup::FFDHE3072 => "ffdhe3072".into(),
        NamedGroup::FFDHE4096 => "ffdhe4096".into(),
        other => format!("0x{:04x}", u16::from(other)),
    }
}

/// The name of a signature scheme in RFC 8446, which OpenSSL uses too.
pub(crate) fn scheme(scheme: SignatureScheme) -> String {
    match scheme {
        SignatureScheme::RSA_PKCS1_SHA256 => "rsa_pkcs1_sha256".into(),
        SignatureScheme::RSA_PKCS1_SHA384 => "rsa_pkcs1_sha384".into(),
        SignatureScheme::RSA_PKCS1_SHA512 => "rsa_pkcs1_sha512".into(),
        SignatureScheme::RSA_PSS_SHA256 => "rsa_pss_rsae_sha256".into(),
        SignatureScheme::RSA_PSS_SHA384 => "rsa_pss_rsae_sha384".into(),
        SignatureScheme::RSA_PSS_SHA512 => "rsa_pss_rsae_sha512".into(),
        SignatureScheme::ECDSA_NISTP256_SHA256 => "ecdsa_secp256r1_sha256".into(),
        SignatureScheme::ECDSA_NISTP384_SHA384 => "ecdsa_secp384r1_sha384".into(),
        SignatureScheme::ECDSA_NISTP521_SHA512 => "ecdsa_secp521r1_sha512".into(),
        SignatureScheme::ED25519 => "ed25519".into(),
        SignatureScheme::ED448 => "ed448".into(),
        other => format!("0x{:04x}", u16::from(other)),
    }
}

/// OpenSSL's name of a protocol.
pub(crate) fn protocol(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

impl Protocols {
    /// The protocol of that name in configurations; an error for those that are unsafe by now.
    ///
    /// # Errors
    /// The reason, for a protocol that exists and is not spoken here; `None` for other words.
    pub fn of(name: &str) -> Result<Protocols, Option<String>> {
        match name {
            "TLSv1.2" => Ok(Protocols { tls12: true, tls13: false }),
            "TLSv1.3" => Ok(Protocols { tls12: false, tls13: true }),
            "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => {
                Err(Some(format!("\"{name}\" is not supported: only TLSv1.2 and TLSv1.3 are")))
            }
            _ => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(suites: Option<Vec<SupportedCipherSuite>>) -> String {
        let suites = suites.unwrap_or_default();
        suites.iter().map(|one| suite(one.suite())).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lists_of_ciphers() {
        let check = |list: &str, expected: &str| {
            assert_eq!(names(suites_of_tls12(list)), expected, "{list}");
        };
        let all = "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384 \
                   ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-CHACHA20-POLY1305 \
                   ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256";
        check("HIGH:!aNULL:!MD5", all);
        check("DEFAULT", all);
        check("EECDH+aRSA+AESGCM", "ECDHE-RSA-AES256-GCM-SHA384 ECDHE-RSA-AES128-GCM-SHA256");
        check(
            "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:CHACHA20:!ECDSA",
            "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-CHACHA20-POLY1305",
        );
        check(
            "AES256:AES128:+AES256:-aRSA",
            "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-AES256-GCM-SHA384",
        );
        check("!AES:ALL:!CHACHA20", "");
        check("RC4-MD5", "");
    }

    #[test]
    fn suites_and_groups_by_name() {
        let both = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
        assert_eq!(names(suites_of_tls13(both)), both.replace(':', " "));
        assert!(suites_of_tls13("TLS_AES_128_GCM_SHA256:x").is_none());
        assert!(suites_of_tls13("").is_none());
        let shown = |list| {
            let groups: Option<Vec<String>> =
                groups(list).map(|list| list.iter().map(|one| group(one.name())).collect());
            groups.map(|names| names.join(" "))
        };
        assert_eq!(shown("P-256:X25519MLKEM768").as_deref(), Some("prime256v1 X25519MLKEM768"));
        assert_eq!(shown("secp384r1:no"), None);
        assert!(shown("auto").is_some_and(|names| names.contains("X25519")));
    }
}
