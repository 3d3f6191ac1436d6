//! TLS for tests: certificates made on the spot, and a client that tells what was negotiated.

use crate::wait::patience;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};

pub use rcgen;
pub use rustls;

/// A certificate with its key.
pub struct Identity {
    /// In PEM form.
    pub certificate: String,
    /// In PEM form.
    pub key: String,
    /// To sign with.
    pub issuer: Issuer<'static, KeyPair>,
}

impl Identity {
    /// One that signed itself.
    pub fn own(name: &str) -> Identity {
        Identity::made(parameters(name, false), None)
    }

    /// An authority that signed itself.
    pub fn authority(name: &str) -> Identity {
        Identity::made(parameters(name, true), None)
    }

    /// One that this authority signed.
    pub fn issue(&self, name: &str) -> Identity {
        Identity::made(parameters(name, false), Some(self))
    }

    /// An authority below this one.
    pub fn issue_authority(&self, name: &str) -> Identity {
        Identity::made(parameters(name, true), Some(self))
    }

    /// This authority's list of revoked certificates, with one serial number, in PEM.
    pub fn revokes(&self, serial: u64) -> String {
        let year = |n| rcgen::date_time_ymd(n, 1, 1);
        let list = rcgen::CertificateRevocationListParams {
            this_update: year(2020),
            next_update: year(2090),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: rcgen::SerialNumber::from(serial),
                revocation_time: year(2021),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).expect("a list that can be signed");
        signed.pem().expect("a list in PEM")
    }

    /// One of these parameters, signed by `by` or by itself.
    pub fn made(parameters: CertificateParams, by: Option<&Identity>) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = match by {
            None => parameters.self_signed(&key),
            Some(by) => parameters.signed_by(&key, &by.issuer),
        };
        let certificate = certificate.expect("a certificate").pem();
        let pem = key.serialize_pem();
        Identity { certificate, key: pem, issuer: Issuer::new(parameters, key) }
    }
}

/// The parameters of a certificate for a name.
pub fn parameters(name: &str, is_authority: bool) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    if is_authority {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    parameters
}

/// A client of TLS. Sessions are taken up again as long as it lives.
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: String,
    staple: Arc<Mutex<Vec<u8>>>,
}

/// What a client speaks.
pub struct Speaks<'a> {
    pub versions: &'a [&'static SupportedProtocolVersion],
    pub provider: CryptoProvider,
    pub shows: Option<&'a Identity>,
    pub alpn: &'a [&'a str],
}

impl Default for Speaks<'_> {
    fn default() -> Self {
        let versions = rustls::ALL_VERSIONS;
        Speaks { versions, provider: aws_lc_rs::default_provider(), shows: None, alpn: &[] }
    }
}

impl TlsClient {
    /// A client that speaks everything and wants `name`.
    pub fn new(name: &str) -> TlsClient {
        TlsClient::that(name, Speaks::default())
    }

    /// A client of TLS 1.2.
    pub fn tls12(name: &str) -> TlsClient {
        let versions = &[&rustls::version::TLS12];
        TlsClient::that(name, Speaks { versions, ..Speaks::default() })
    }

    /// A client that shows a certificate.
    pub fn showing(name: &str, identity: &Identity) -> TlsClient {
        TlsClient::that(name, Speaks { shows: Some(identity), ..Speaks::default() })
    }

    pub fn that(name: &str, speaks: Speaks<'_>) -> TlsClient {
        let staple = Arc::new(Mutex::new(Vec::new()));
        let anyone = Anyone { staple: staple.clone(), provider: aws_lc_rs::default_provider() };
        let builder = ClientConfig::builder_with_provider(Arc::new(speaks.provider))
            .with_protocol_versions(speaks.versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anyone));
        let mut config = match speaks.shows {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a certificate")
            }
        };
        config.enable_early_data = true;
        config.alpn_protocols = speaks.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsClient { config: Arc::new(config), name: name.to_owned(), staple }
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// What rustls says.
    pub fn connect(&self, port: u16) -> io::Result<TlsConnection> {
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        let state = ClientConnection::new(self.config.clone(), name).expect("a connection");
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(patience()))?;
        let mut stream = StreamOwned::new(state, socket.try_clone()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut socket)?;
        }
        Ok(TlsConnection { stream, name: self.name.clone() })
    }

    /// The first message of a client that comes again, and `early` right behind it: as bytes, to
    /// be sent as often as one likes. None when the last session does not allow early data.
    pub fn first_flight(&self, early: &[u8]) -> Option<(ClientConnection, Vec<u8>)> {
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        let mut state = ClientConnection::new(self.config.clone(), name).expect("a connection");
        let written = state.early_data()?.write(early).expect("early data");
        assert_eq!(written, early.len(), "there is room for it");
        let mut bytes = Vec::new();
        while state.wants_write() {
            state.write_tls(&mut bytes).expect("memory");
        }
        Some((state, bytes))
    }

    /// Goes on with a connection whose first message was sent over `socket`.
    ///
    /// # Errors
    /// What rustls says.
    pub fn go_on(&self, state: ClientConnection, socket: TcpStream) -> io::Result<TlsConnection> {
        socket.set_read_timeout(Some(patience()))?;
        let mut stream = StreamOwned::new(state, socket.try_clone()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut &socket)?;
        }
        Ok(TlsConnection { stream, name: self.name.clone() })
    }

    /// One request on a connection of its own: head and body as they came.
    ///
    /// # Errors
    /// What rustls says.
    pub fn get(&self, port: u16, path: &str) -> io::Result<String> {
        self.connect(port)?.get(path)
    }

    /// The OCSP response that the last server showed.
    pub fn staple(&self) -> Vec<u8> {
        self.staple.lock().expect("one thread").clone()
    }
}

/// A connection after its handshake.
pub struct TlsConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    name: String,
}

impl TlsConnection {
    /// A request, its answer up to the end of the connection.
    ///
    /// # Errors
    /// What rustls says.
    pub fn get(&mut self, path: &str) -> io::Result<String> {
        let name = self.name.clone();
        write!(self, "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The common name of the server's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        let shown = self.stream.conn.peer_certificates().unwrap_or_default();
        shown.first().map(|one| one.to_vec()).unwrap_or_default()
    }

    /// Whether an earlier session was taken up.
    pub fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The state of the protocol.
    pub fn state(&self) -> &ClientConnection {
        &self.stream.conn
    }
}

impl Read for TlsConnection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for TlsConnection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Believes anyone.
#[derive(Debug)]
struct Anyone {
    staple: Arc<Mutex<Vec<u8>>>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.staple.lock().expect("one thread") = staple.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
