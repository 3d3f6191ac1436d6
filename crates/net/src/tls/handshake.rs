//! The beginning of a connection: both sides agree on keys, and the stream gets its [`Session`].

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, Error, InvalidMessage,
    PeerIncompatible, PeerMisbehaved, ServerConfig, ServerConnection,
};

use crate::buffer::{Block, Chunk};
use crate::stream::{Push, Stream};

use super::session::{self, Hello, Session, feed, poll_flush};

/// Bytes that are received at a time: most first messages fit.
const RECEIVE: usize = 4 << 10;

/// Why there is no session.
#[derive(Debug)]
pub enum Failure {
    /// The peer closed the connection.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// The two cannot agree, or one of them did what it must not.
    Protocol(Error),
    /// We refused on purpose (`ssl_reject_handshake`).
    Rejected,
    /// We have no certificate for this client; the log knows why.
    NoCertificate,
}

/// What is done with a client, by its first message.
pub enum Choice {
    /// Go on with this configuration.
    Serve(Arc<ServerConfig>),
    /// Refuse by the alert `unrecognized_name`.
    Reject,
    /// Refuse by the alert `internal_error`.
    Fail,
}

/// True when these first bytes of a connection are those of TLS (or of its ancestor), not of a
/// protocol in plain text.
pub fn is_hello(first: u8) -> bool {
    first == 0x16 || first & 0x80 != 0
}

/// Serves a client: `came` holds what was received already, `choose` says how to go on once the
/// client's first message is there.
///
/// # Errors
/// Why there is no session. The client was told, as far as it listens.
pub async fn accept(
    stream: &Stream,
    came: Option<Chunk>,
    choose: impl FnOnce(&Hello) -> Choice,
) -> Result<(), Failure> {
    let mut acceptor = Acceptor::default();
    let mut input = came.unwrap_or_else(|| Block::lend(1).freeze());
    let accepted = loop {
        if input.is_empty() {
            input = receive(stream).await?;
        }
        let mut rest: &[u8] = &input;
        let before = rest.len();
        // Memory cannot fail to be read; rustls limits how much it takes.
        acceptor.read_tls(&mut rest).map_err(Failure::Broken)?;
        let taken = before - rest.len();
        input.advance(taken);
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) if taken == 0 => {
                return Err(Failure::Protocol(Error::InvalidMessage(
                    InvalidMessage::MessageTooLarge,
                )));
            }
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                // Writing to memory cannot fail.
                let _ = alert.write_all(&mut bytes);
                tell(stream, &bytes).await;
                return Err(Failure::Protocol(error));
            }
        }
    };
    let mut hello = Box::new(Hello::of(&accepted.client_hello()));
    let config = match choose(&hello) {
        Choice::Serve(config) => config,
        Choice::Reject => {
            tell(stream, &alert(AlertDescription::UnrecognisedName)).await;
            return Err(Failure::Rejected);
        }
        Choice::Fail => {
            tell(stream, &alert(AlertDescription::InternalError)).await;
            return Err(Failure::NoCertificate);
        }
    };
    let mut state = match accepted.into_connection(config) {
        Ok(state) => state,
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            let _ = alert.write_all(&mut bytes);
            tell(stream, &bytes).await;
            return Err(Failure::Protocol(error));
        }
    };
    hello.session_id = session_id(&mut state);
    finish(stream, Connection::Server(state), input, Some(hello)).await
}

/// The id of the session: a random one, which goes into its tickets and so comes back when it is
/// resumed. TLS 1.3 has none of its own.
fn session_id(state: &mut ServerConnection) -> [u8; 32] {
    let mut id = [0; 32];
    match state.received_resumption_data().and_then(|known| known.try_into().ok()) {
        Some(known) => id = known,
        // The system gives random numbers, or there would be no handshake.
        None => drop(aws_lc_rs::rand::fill(&mut id)),
    }
    state.set_resumption_data(&id);
    id
}

/// Speaks to a server whose name is `name`.
///
/// # Errors
/// Why there is no session.
pub async fn connect(
    stream: &Stream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(), Failure> {
    let state = ClientConnection::new(config, name).map_err(Failure::Protocol)?;
    finish(stream, Connection::Client(state), Block::lend(1).freeze(), None).await
}

/// Exchanges messages until both sides are ready for data, or early data is there.
async fn finish(
    stream: &Stream,
    mut state: Connection,
    mut input: Chunk,
    hello: Option<Box<Hello>>,
) -> Result<(), Failure> {
    let mut early = None;
    loop {
        // Early data may have come with the first message, and be with rustls already.
        let taken = state.process_new_packets().map(drop);
        if let Err(error) = taken.and_then(|()| feed(&mut state, &mut input)) {
            // The alert that says so; a peer that is gone need not hear it.
            let _ = flush(stream, &mut state).await;
            return Err(Failure::Protocol(error));
        }
        flush(stream, &mut state).await.map_err(Failure::Broken)?;
        if !state.is_handshaking() {
            break;
        }
        early = session::early(&mut state);
        if early.is_some() {
            // The rest of the handshake goes on as the session is read.
            break;
        }
        if input.is_empty() {
            input = receive(stream).await?;
        }
    }
    stream.secure(Session::new(state, Some(input), early, hello));
    Ok(())
}

async fn flush(stream: &Stream, state: &mut Connection) -> io::Result<()> {
    poll_fn(|cx| poll_flush(state, stream, cx, Push::Now)).await
}

async fn receive(stream: &Stream) -> Result<Chunk, Failure> {
    match poll_fn(|cx| stream.poll_lend_plain(cx, RECEIVE, usize::MAX)).await {
        Ok(block) if block.is_empty() => Err(Failure::Closed),
        Ok(block) => Ok(block.freeze()),
        Err(error) => Err(Failure::Broken(error)),
    }
}

/// Writes an alert; it does not matter whether it arrives.
async fn tell(stream: &Stream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
}

/// A fatal alert in a record of its own (RFC 8446 section 6).
fn alert(description: AlertDescription) -> [u8; 7] {
    [0x15, 3, 3, 0, 2, 2, u8::from(description)]
}

impl fmt::Display for Failure {
    /// nginx's words, with OpenSSL's reason behind them.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Closed => out.write_str("peer closed connection in SSL handshake"),
            Failure::Broken(error) => {
                let errno = system::errno::Errno::from(error);
                write!(out, "peer closed connection in SSL handshake ({errno})")
            }
            Failure::Rejected => out.write_str("handshake rejected"),
            Failure::NoCertificate => out.write_str(
                "SSL_do_handshake() failed (SSL: error:0A000179:SSL routines::cert cb error)",
            ),
            Failure::Protocol(error) => {
                write!(out, "SSL_do_handshake() failed (SSL: {})", Reason(error))
            }
        }
    }
}

/// An error of rustls in OpenSSL's words, as far as it has some.
pub struct Reason<'a>(pub &'a Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, text) = match self.0 {
            Error::AlertReceived(alert) => {
                let number = u8::from(*alert);
                let text = alert_name(*alert);
                return write!(
                    out,
                    "error:{:08X}:SSL routines::{text}:SSL alert number {number}",
                    0x0A00_0000 + 1000 + u32::from(number)
                );
            }
            Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion)
            | Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                (0x10B, "wrong version number")
            }
            Error::InvalidMessage(_) => (0x89, "decode error"),
            Error::PeerIncompatible(why) => match why {
                PeerIncompatible::NoCipherSuitesInCommon => (0xC1, "no shared cipher"),
                PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::NoEcPointFormatsInCommon => (0x65, "no suitable key share"),
                PeerIncompatible::NoSignatureSchemesInCommon => {
                    (0x76, "no suitable signature algorithm")
                }
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
                    (0x102, "unsupported protocol")
                }
                _ => (0xC1, "no shared cipher"),
            },
            Error::PeerMisbehaved(
                PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported,
            ) => (0x175, "inappropriate fallback"),
            Error::NoApplicationProtocol => (0xEB, "no application protocol"),
            Error::DecryptError => (0x119, "decryption failed or bad record mac"),
            Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
                (0xF4, "unexpected message")
            }
            Error::PeerSentOversizedRecord => (0xC6, "packet length too long"),
            Error::General(_) => (0xC1, "no shared cipher"),
            other => return write!(out, "error:0A000000:SSL routines::{other}"),
        };
        write!(out, "error:{:08X}:SSL routines::{text}", 0x0A00_0000 + number)
    }
}

fn alert_name(alert: AlertDescription) -> String {
    let name = match alert {
        AlertDescription::HandshakeFailure => "sslv3 alert handshake failure",
        AlertDescription::NoCertificate => "sslv3 alert no certificate",
        AlertDescription::BadCertificate => "sslv3 alert bad certificate",
        AlertDescription::UnsupportedCertificate => "sslv3 alert unsupported certificate",
        AlertDescription::CertificateRevoked => "sslv3 alert certificate revoked",
        AlertDescription::CertificateExpired => "sslv3 alert certificate expired",
        AlertDescription::CertificateUnknown => "sslv3 alert certificate unknown",
        AlertDescription::IllegalParameter => "sslv3 alert illegal parameter",
        AlertDescription::UnexpectedMessage => "sslv3 alert unexpected message",
        AlertDescription::UnknownCA => "tlsv1 alert unknown ca",
        AlertDescription::AccessDenied => "tlsv1 alert access denied",
        AlertDescription::DecodeError => "tlsv1 alert decode error",
        AlertDescription::DecryptError => "tlsv1 alert decrypt error",
        AlertDescription::ProtocolVersion => "tlsv1 alert protocol version",
        AlertDescription::InsufficientSecurity => "tlsv1 alert insufficient security",
        AlertDescription::InternalError => "tlsv1 alert internal error",
        AlertDescription::UserCanceled => "tlsv1 alert user cancelled",
        AlertDescription::NoRenegotiation => "tlsv1 alert no renegotiation",
        AlertDescription::UnrecognisedName => "tlsv1 unrecognized name",
        AlertDescription::NoApplicationProtocol => "tlsv1 alert no application protocol",
        AlertDescription::CertificateRequired => "tlsv13 alert certificate required",
        _ => return format!("ssl alert {}", u8::from(alert)),
    };
    name.to_owned()
}
