//! A TLS 1.3 client on rustls, apart from heng's own TLS, and the load `handshakes`.
//!
//! It offers one cipher suite and one group, so that every server does the same work, and trusts
//! every certificate, since what is measured is on the other side.
//!
//! `handshakes ADDRESS resume=yes|no` connects, shakes hands, waits for the first ticket and
//! closes. With `resume` each handshake spends a ticket of an earlier one; a full handshake then
//! counts as failed, but for the first ones. With `no` a resumed one does.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use net::{Address, Block, ConnectOptions, Stream, connect};
use rustls::client::Tls13ClientSessionValue;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup};
use rustls::{Error, SignatureScheme};

use crate::load::{Counts, Failure, Orders, run};

/// What one call takes from the socket.
const AT_ONCE: usize = 16 << 10;
/// A handshake that takes longer, in milliseconds, has failed.
const PATIENCE_MS: u64 = 5000;
/// So many tickets are kept.
const TICKETS: usize = 256;

/// Whether tickets are spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sessions {
    Full,
    Resumed,
}

/// What a client offers: one suite, one group, these protocols.
pub(crate) fn config(sessions: Sessions, protocols: &[&str]) -> Result<Arc<ClientConfig>, Failure> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = match sessions {
        Sessions::Full => Resumption::disabled(),
        Sessions::Resumed => Resumption::store(Arc::new(Tickets::default())),
    };
    Ok(Arc::new(config))
}

/// A connection with TLS.
pub(crate) struct Secure {
    stream: Stream,
    tls: RefCell<ClientConnection>,
    /// Bytes from the socket that are not decrypted yet, and how many of them are.
    left: RefCell<Option<(Block, usize)>>,
}

impl Secure {
    /// Connects and shakes hands; the last message of the client has been sent.
    pub(crate) async fn connect(address: &Address, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("bench").map_err(io::Error::other)?;
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let stream =
            connect(address, &ConnectOptions::default()).await.map_err(io::Error::other)?;
        let secure = Secure { stream, tls: RefCell::new(tls), left: RefCell::new(None) };
        loop {
            secure.flush().await?;
            if !secure.tls.borrow().is_handshaking() {
                return Ok(secure);
            }
            secure.receive().await?;
        }
    }

    /// Decrypts what is left of an earlier call, or takes some bytes from the socket.
    async fn receive(&self) -> io::Result<()> {
        if self.left.borrow().is_none() {
            let block = poll_fn(|cx| self.stream.poll_lend(cx, AT_ONCE)).await?;
            if block.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.left.replace(Some((block, 0)));
        }
        let Some((block, mut taken)) = self.left.take() else { return Ok(()) };
        let mut tls = self.tls.borrow_mut();
        while taken < block.len() {
            taken += tls.read_tls(&mut &block.filled()[taken..])?;
            // rustls holds no more than a record of what nobody has read.
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 {
                break;
            }
        }
        if taken < block.len() {
            self.left.replace(Some((block, taken)));
        }
        Ok(())
    }

    async fn flush(&self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.tls.borrow().wants_write() {
            self.tls.borrow_mut().write_tls(&mut bytes)?;
        }
        self.stream.write_all(&bytes).await
    }

    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        // rustls takes no more than its buffer holds.
        while !bytes.is_empty() {
            let taken = self.tls.borrow_mut().writer().write(bytes)?;
            self.flush().await?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// At least one byte of what the server sent.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let outcome = self.tls.borrow_mut().reader().read(buffer);
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.receive().await?,
                outcome => return outcome,
            }
        }
    }

    fn is_resumed(&self) -> bool {
        self.tls.borrow().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Closes without waiting and without leaving a port behind.
    pub(crate) fn abort(self) {
        let _ = self.stream.reset_on_close();
    }
}

/// The load.
pub(crate) async fn handshakes(orders: &Orders) -> Result<(), Failure> {
    let address = orders.address()?;
    let sessions = match orders.text("resume") {
        Some("yes") => Sessions::Resumed,
        _ => Sessions::Full,
    };
    let config = config(sessions, &[])?;
    run(orders, |_, counts| shake(address.clone(), config.clone(), sessions, counts)).await
}

async fn shake(
    address: Address,
    config: Arc<ClientConfig>,
    sessions: Sessions,
    counts: Rc<Counts>,
) {
    // The first handshake of a task may find no ticket yet.
    let mut expected = false;
    while !counts.is_over() {
        let start = net::precise_now_us();
        let one = async {
            let secure = Secure::connect(&address, config.clone()).await?;
            // Tickets come in a flight of their own, after the client's last message.
            secure.receive().await?;
            let resumed = secure.is_resumed();
            secure.abort();
            io::Result::Ok(resumed)
        };
        match net::timeout(PATIENCE_MS, one).await {
            Some(Ok(resumed)) if resumed == (sessions == Sessions::Resumed) => counts.done(start),
            Some(Ok(_)) if !expected => {}
            Some(Ok(resumed)) => counts.failed(format!("a handshake that is resumed: {resumed}")),
            Some(Err(error)) => counts.failed(error),
            None => counts.failed("a handshake took too long"),
        }
        expected = true;
    }
}

/// Tickets, each given away once.
#[derive(Default)]
struct Tickets {
    kept: Mutex<Vec<Tls13ClientSessionValue>>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Tickets")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < TICKETS {
            kept.push(value);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// Trusts whoever answers.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }
}
