//! The variables of TLS towards clients, for the conversations of every engine.

use std::marker::PhantomData;
use std::rc::Rc;

use net::tls::{Certificate, Session, Trust};

use crate::text::Span;
use crate::variables::{Builtin, Subject};

/// A conversation that may go through TLS.
pub trait Secured: Subject {
    /// The connection's TLS, if it has any.
    fn tls(&self) -> Option<&Session>;
    /// The name that the client asks for while the handshake goes on.
    fn asked_name(&mut self) -> Option<Span>;
    /// Whom clients' certificates must come from.
    fn trust(&self) -> Rc<Trust>;
}

type Found = Option<Span>;

/// The rows of an engine whose conversations are `X`.
pub struct Rows<X>(PhantomData<X>);

impl<X: Secured> Rows<X> {
    /// The table.
    pub const TABLE: &'static [Builtin<X>] = &[
        Builtin::volatile("ssl_alpn_protocol", alpn, "The protocol above TLS that was agreed on."),
        Builtin::volatile("ssl_cipher", cipher, "The cipher suite, by OpenSSL's name."),
        Builtin::volatile("ssl_ciphers", ciphers, "The suites that the client offered."),
        Builtin::volatile(
            "ssl_client_cert",
            client_cert,
            "The client's certificate in PEM form, its further lines begun with a tab.",
        ),
        Builtin::volatile(
            "ssl_client_escaped_cert",
            client_escaped,
            "The client's certificate in PEM form, escaped as in URLs.",
        ),
        Builtin::volatile(
            "ssl_client_fingerprint",
            client_fingerprint,
            "SHA-1 of the client's certificate.",
        ),
        Builtin::volatile(
            "ssl_client_i_dn",
            client_issuer,
            "The issuer in the client's certificate (RFC 2253).",
        ),
        Builtin::volatile(
            "ssl_client_i_dn_legacy",
            client_issuer_legacy,
            "The issuer in the client's certificate, with slashes.",
        ),
        Builtin::volatile(
            "ssl_client_raw_cert",
            client_raw,
            "The client's certificate in PEM form.",
        ),
        Builtin::volatile(
            "ssl_client_s_dn",
            client_subject,
            "The subject in the client's certificate (RFC 2253).",
        ),
        Builtin::volatile(
            "ssl_client_s_dn_legacy",
            client_subject_legacy,
            "The subject in the client's certificate, with slashes.",
        ),
        Builtin::volatile(
            "ssl_client_serial",
            client_serial,
            "The serial number of the client's certificate.",
        ),
        Builtin::volatile("ssl_client_v_end", client_end, "When the client's certificate ends."),
        Builtin::volatile(
            "ssl_client_v_remain",
            client_remain,
            "Days until the client's certificate ends.",
        ),
        Builtin::volatile(
            "ssl_client_v_start",
            client_start,
            "When the client's certificate begins.",
        ),
        Builtin::volatile(
            "ssl_client_verify",
            client_verify,
            "`SUCCESS`, `FAILED:` and why, or `NONE` without a certificate.",
        ),
        Builtin::volatile("ssl_curve", curve, "The group in which keys were exchanged."),
        Builtin::volatile("ssl_curves", curves, "The groups that the client offered."),
        Builtin::volatile("ssl_protocol", protocol, "`TLSv1.2` or `TLSv1.3`."),
        Builtin::volatile(
            "ssl_server_name",
            server_name,
            "The name that the client asked for (SNI).",
        ),
        Builtin::volatile(
            "ssl_session_id",
            session_id,
            "The id of the session, in hexadecimal digits; it stays when the session is taken up \
             again.",
        ),
        Builtin::volatile(
            "ssl_session_reused",
            session_reused,
            "`r` when a session was taken up again, else `.`.",
        ),
        Builtin::volatile("ssl_sigalgs", schemes, "The signature schemes that the client offered."),
    ];
}

/// A text of the session.
fn of_session<X: Secured>(x: &mut X, get: impl FnOnce(&Session) -> Option<String>) -> Found {
    let text = get(x.tls()?)?;
    Some(x.arena_mut().push(text.as_bytes()))
}

/// A text of the client's certificate.
fn of_certificate<X: Secured>(x: &mut X, get: impl FnOnce(&Certificate) -> String) -> Found {
    of_session(x, |session| session.certificate().map(|one| get(&one)))
}

fn alpn<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| String::from_utf8(session.alpn()?).ok())
}

fn cipher<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| Some(session.cipher()))
}

fn ciphers<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| Some(session.ciphers()))
}

fn curve<X: Secured>(x: &mut X) -> Found {
    of_session(x, Session::curve)
}

fn curves<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| Some(session.curves()))
}

fn schemes<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| Some(session.schemes()))
}

fn protocol<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| Some(session.protocol().to_owned()))
}

fn server_name<X: Secured>(x: &mut X) -> Found {
    if let Some(name) = x.asked_name() {
        return Some(name);
    }
    of_session(x, |session| session.server_name().map(str::to_owned))
}

fn session_id<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| Some(session.id_text()))
}

fn session_reused<X: Secured>(x: &mut X) -> Found {
    of_session(x, |session| Some(if session.is_resumed() { "r" } else { "." }.to_owned()))
}

fn client_verify<X: Secured>(x: &mut X) -> Found {
    let trust = x.trust();
    let now = net::wall().0 as i64;
    of_session(x, |session| {
        Some(match session.verdict(&trust, now) {
            None => "NONE".to_owned(),
            Some(Ok(())) => match session.asked(&trust) {
                Some(Err(refused)) => format!("FAILED:{refused}"),
                _ => "SUCCESS".to_owned(),
            },
            Some(Err(fault)) => format!("FAILED:{}", fault.text),
        })
    })
}

fn client_raw<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::pem)
}

fn client_cert<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, |one| one.pem().trim_end().replace('\n', "\n\t"))
}

fn client_escaped<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, |one| {
        let mut escaped = String::new();
        for byte in one.pem().bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    escaped.push(char::from(byte));
                }
                _ => escaped.push_str(&format!("%{byte:02X}")),
            }
        }
        escaped
    })
}

fn client_fingerprint<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::fingerprint)
}

fn client_subject<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::subject_text)
}

fn client_issuer<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::issuer_text)
}

fn client_subject_legacy<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::subject_line)
}

fn client_issuer_legacy<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::issuer_line)
}

fn client_serial<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::serial_text)
}

fn client_start<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::begins)
}

fn client_end<X: Secured>(x: &mut X) -> Found {
    of_certificate(x, Certificate::ends)
}

fn client_remain<X: Secured>(x: &mut X) -> Found {
    let now = net::wall().0 as i64;
    of_certificate(x, |one| one.days_left(now).to_string())
}
