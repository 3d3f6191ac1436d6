//! What a server says in handshakes: certificates, protocols, ciphers, tickets, and whether it
//! asks for a certificate.
//!
//! Asking never refuses: the handshake proves that the client has the key of what it shows, and
//! what the certificate is worth is judged later (`check.rs`), where it can be answered.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, KeyLog,
    ServerConfig, SignatureAlgorithm, SignatureScheme,
};

use super::tickets::{Keys, Tickets};
use super::x509::Certificate;
use super::{Algorithms, names};

/// A server's side of handshakes, to be made a [`ServerConfig`] by [`Server::compile`].
pub struct Server {
    pub algorithms: Algorithms,
    /// The server's order of ciphers counts, not the client's.
    pub prefers_own: bool,
    /// One of these is shown: which one depends on what the client understands.
    pub certificates: Vec<Shown>,
    /// What stands for certificates that are not known yet: their names.
    pub names: Vec<String>,
    /// Protocols above TLS, the preferred ones first (ALPN).
    pub alpn: Vec<Vec<u8>>,
    /// Ask the client for a certificate, which is to be issued by one of these, if there are any.
    pub asks: Option<Vec<Vec<u8>>>,
    /// Bytes of a record.
    pub record: usize,
    /// Tickets, unless they are turned off.
    pub tickets: Option<Keys>,
    /// Sessions that the server keeps itself.
    pub store: Option<Arc<dyn StoresServerSessions>>,
    /// Seconds for which a session may be resumed.
    pub lifetime_s: u32,
    pub key_log: Option<Arc<dyn KeyLog>>,
    /// Bytes that a client which takes a session up again may send before the handshake is over;
    /// 0 for none. Needs a store and no tickets: a session is then taken up once at most, so that
    /// a copy of what was sent is not heard (RFC 8446 section 8.1).
    pub early_bytes: u32,
}

/// A certificate that clients are shown.
#[derive(Clone, Debug)]
pub struct Shown {
    pub key: Arc<CertifiedKey>,
    /// What says that it was not revoked, where that changes with time.
    pub staple: Option<Arc<dyn Staple>>,
}

/// Adds what says now that a certificate was not revoked.
pub trait Staple: Send + Sync + fmt::Debug {
    /// The certificate as it is to be shown now. Called in handshakes: it never waits.
    fn current(&self, plain: &Arc<CertifiedKey>) -> Arc<CertifiedKey>;
}

impl From<Arc<CertifiedKey>> for Shown {
    fn from(key: Arc<CertifiedKey>) -> Shown {
        Shown { key, staple: None }
    }
}

impl Shown {
    fn current(&self) -> Arc<CertifiedKey> {
        match &self.staple {
            None => self.key.clone(),
            Some(staple) => staple.current(&self.key),
        }
    }
}

impl Server {
    /// Makes the configuration.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn compile(self) -> Result<Arc<ServerConfig>, String> {
        let context = self.context();
        let provider = self.algorithms.provider()?;
        let verifier = self.asks.map(|names| {
            let hints = names.into_iter().map(DistinguishedName::from).collect();
            let algorithms = provider.signature_verification_algorithms;
            Arc::new(Witness { hints, algorithms }) as Arc<dyn ClientCertVerifier>
        });
        let builder = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.algorithms.protocols.versions())
            .map_err(|error| error.to_string())?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates(self.certificates)));
        config.ignore_client_order = self.prefers_own;
        config.alpn_protocols = self.alpn;
        // A record's frame and its tag come on top.
        config.max_fragment_size = Some(self.record.clamp(512, 16 << 10) + 5);
        config.session_storage = match self.store {
            Some(store) => store,
            None => Arc::new(NoServerSessionStorage {}),
        };
        match self.tickets {
            Some(keys) => config.ticketer = Tickets::new(keys, context, self.lifetime_s),
            None if !config.session_storage.can_cache() => config.send_tls13_tickets = 0,
            None => {}
        }
        if self.early_bytes > 0 {
            debug_assert!(!config.ticketer.enabled() && config.session_storage.can_cache());
            config.max_early_data_size = self.early_bytes;
            config.send_half_rtt_data = true;
        }
        if let Some(log) = self.key_log {
            config.key_log = log;
        }
        Ok(Arc::new(config))
    }

    /// What tells this server's sessions from those of others (nginx: `session_id_context`).
    fn context(&self) -> Vec<u8> {
        let mut hash = digest::Context::new(&digest::SHA256);
        for certificate in self.certificates.iter().filter_map(|one| one.key.cert.first()) {
            hash.update(certificate);
        }
        for name in &self.names {
            hash.update(name.as_bytes());
            hash.update(&[0]);
        }
        for name in self.asks.iter().flatten() {
            hash.update(name);
        }
        hash.update(&[u8::from(self.asks.is_some())]);
        hash.finish().as_ref().to_vec()
    }
}

/// The same server with other certificates: for those that are known per connection only.
pub fn with_certificates(
    config: &ServerConfig,
    certificates: Vec<Arc<CertifiedKey>>,
) -> Arc<ServerConfig> {
    let mut config = config.clone();
    let certificates = certificates.into_iter().map(Shown::from).collect();
    config.cert_resolver = Arc::new(Certificates(certificates));
    Arc::new(config)
}

/// Chooses by what the client can verify, in its order.
#[derive(Debug)]
struct Certificates(Vec<Shown>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = self.0.as_slice() {
            return Some(only.current());
        }
        let suites = hello.cipher_suites();
        let fits = |one: &&Shown, scheme: SignatureScheme| {
            let key = &one.key.key;
            key.choose_scheme(&[scheme]).is_some()
                && suites.iter().any(|suite| may_use(*suite, key.algorithm()))
        };
        let schemes = hello.signature_schemes().iter();
        let mut found = schemes.filter_map(|scheme| self.0.iter().find(|one| fits(one, *scheme)));
        found.next().or(self.0.first()).map(Shown::current)
    }
}

/// Whether a suite of TLS 1.2 wants a key of this kind; those of TLS 1.3 take any.
fn may_use(suite: CipherSuite, algorithm: SignatureAlgorithm) -> bool {
    let name = names::suite(suite);
    match algorithm {
        _ if name.starts_with("TLS_") => true,
        SignatureAlgorithm::RSA => name.contains("-RSA-"),
        _ => name.contains("-ECDSA-"),
    }
}

/// Believes whoever has the key of what it shows.
struct Witness {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Witness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Witness")
    }
}

impl ClientCertVerifier for Witness {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn read(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    let bad = Error::InvalidCertificate(CertificateError::BadEncoding);
    Certificate::read(certificate).ok_or(bad)
}

/// Whether the key of `certificate` signed the handshake, in TLS 1.2. rustls's own function wants
/// a certificate of version 3.
pub(super) fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = read(certificate)?;
    let (kind, key) = certificate.key();
    let of_scheme = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    let mut fitting = of_scheme
        .flat_map(|(_, all)| all.iter())
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == kind);
    match fitting.any(|one| one.verify_signature(key, message, signed.signature()).is_ok()) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
    }
}

/// The same in TLS 1.3.
pub(super) fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = read(certificate)?;
    let key = SubjectPublicKeyInfoDer::from(key.key_info());
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}

impl Algorithms {
    /// rustls's algorithms, as far as these lists allow them.
    pub(super) fn provider(&self) -> Result<CryptoProvider, String> {
        let mut suites = match &self.suites {
            None => names::all_of_tls13(),
            Some(list) => names::suites_of_tls13(list).ok_or_else(|| {
                format!(
                    "SSL_CONF_cmd(\"Ciphersuites\", \"{list}\") failed (SSL: error:0A0000B9:SSL \
                     routines::no cipher match)"
                )
            })?,
        };
        suites.extend(names::suites_of_tls12(&self.ciphers).ok_or_else(|| {
            format!(
                "SSL_CTX_set_cipher_list(\"{}\") failed (SSL: error:0A0000B9:SSL routines::no \
                 cipher match)",
                self.ciphers
            )
        })?);
        let groups = names::groups(&self.groups).ok_or_else(|| {
            format!(
                "SSL_CTX_set1_curves_list(\"{}\") failed (SSL: error:0A0000F6:SSL routines::\
                 unsupported elliptic curve)",
                self.groups
            )
        })?;
        Ok(CryptoProvider { cipher_suites: suites, kx_groups: groups, ..default_provider() })
    }
}
