//! TLS, to clients and to servers, for every engine: a [`Session`] that a [`Stream`] is given by a
//! handshake, after which it reads and writes as before (rustls computes, nothing here waits but
//! on the stream).
//!
//! What configurations and logs see has OpenSSL's names and words, as people and tools know them.
//! What is left out: everything before TLS 1.2, and what TLS 1.3 has no longer, such as
//! renegotiation, compression and ciphers without forward secrecy.
//!
//! Read next: `session.rs` for the way of the bytes, `handshake.rs` for their beginning,
//! `check.rs` for whom to believe.
//!
//! [`Stream`]: crate::Stream

mod check;
mod client;
mod der;
mod handshake;
mod key_log;
mod load;
mod names;
pub mod ocsp;
mod pem;
mod server;
mod session;
#[cfg(test)]
mod tests;
mod tickets;
mod x509;

pub use check::{Fault, Purpose, Trust, is_for_host, issuer};
pub use client::{Client, server_name};
pub use handshake::{Choice, Failure, Reason, accept, connect, is_hello};
pub use key_log::key_log;
pub use load::{authorities, certified, chain, passwords, revocations};
pub use pem::base64;
pub use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
pub use rustls::sign::CertifiedKey;
pub use rustls::{ClientConfig, KeyLog, ServerConfig, SupportedProtocolVersion};
pub use server::{Server, Shown, Staple, with_certificates};
pub use session::{Hello, Session};
pub use tickets::{Keys, read_key};
pub use x509::{Certificate, RevocationList, mark};

/// Which versions are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protocols {
    pub tls12: bool,
    pub tls13: bool,
}

impl Protocols {
    /// All there are.
    pub const ALL: Protocols = Protocols { tls12: true, tls13: true };

    fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let tls13 = self.tls13.then_some(&rustls::version::TLS13);
        let tls12 = self.tls12.then_some(&rustls::version::TLS12);
        tls13.into_iter().chain(tls12).collect()
    }
}

/// Protocols and algorithms, by OpenSSL's names.
#[derive(Clone, Debug)]
pub struct Algorithms {
    pub protocols: Protocols,
    /// `ssl_ciphers`: for TLS 1.2.
    pub ciphers: String,
    /// `Ciphersuites`: for TLS 1.3; all of them without.
    pub suites: Option<String>,
    /// `ssl_ecdh_curve`.
    pub groups: String,
}
