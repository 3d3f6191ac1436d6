//! What we say in handshakes with servers that we connect to (`proxy_ssl_...`).
//!
//! The handshake proves that the server has the key of what it shows. Whether that certificate
//! is good is asked afterwards, with `check.rs`, before the first request is sent.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, KeyLog, SignatureScheme};

use super::Algorithms;
use super::server::{verify_tls12, verify_tls13};

/// Sessions that are kept for one server: OpenSSL keeps one, TLS 1.3 wants a new ticket each time.
const SESSIONS: usize = 8;

/// A client's side of handshakes, to be made a [`ClientConfig`] by [`Client::compile`].
#[derive(Clone)]
pub struct Client {
    pub algorithms: Algorithms,
    /// Shown when the server asks.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// Say which name is wanted (SNI).
    pub names_server: bool,
    /// Resume earlier sessions.
    pub resumes: bool,
    /// Protocols above TLS (ALPN).
    pub alpn: Vec<Vec<u8>>,
    pub key_log: Option<Arc<dyn KeyLog>>,
}

impl Client {
    /// Makes a configuration with sessions of its own: one for each server that shares none.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn compile(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = self.algorithms.provider()?;
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.algorithms.protocols.versions())
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Witness { algorithms }));
        let shown = Shown(self.certificate.clone());
        let mut config = builder.with_client_cert_resolver(Arc::new(shown));
        config.enable_sni = self.names_server;
        config.alpn_protocols = self.alpn.clone();
        config.resumption = match self.resumes {
            true => Resumption::in_memory_sessions(SESSIONS),
            false => Resumption::disabled(),
        };
        if let Some(log) = &self.key_log {
            config.key_log = log.clone();
        }
        Ok(Arc::new(config))
    }
}

/// A name for rustls, which wants one even where it is not sent: any text that is no name of a
/// host stands for "the server", of whom each configuration has one.
pub fn server_name(name: &str) -> ServerName<'static> {
    let anyone = || ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
    ServerName::try_from(name.to_owned()).unwrap_or_else(|_| anyone())
}

/// The certificate that we show, whatever the server would like.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// Believes whoever has the key of what it shows.
struct Witness {
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Witness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Witness")
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
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
