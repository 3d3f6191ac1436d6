//! TLS towards clients (nginx: ngx_http_ssl_module): its directives, and the variables that tell
//! of a connection's handshake and of the client's certificate.
//!
//! The handshake itself belongs to the engine: see `tls` of crate `http`.

use http::{Exchange, Module};
use net::tls::{Certificate, Session};
use session::text::Span;
use session::tls::towards;
use session::variables::Builtin;

/// The feature.
pub static MODULE: Module = Module {
    directives: session::tls::DIRECTIVES,
    variables: VARIABLES,
    ..Module::new(
        "http_ssl",
        "Speaks TLS with clients, on addresses whose `listen` says `ssl`. TLS 1.2 and 1.3 with \
         ciphers that have forward secrecy, certificates by the name that a client asks for, \
         certificates of clients.",
    )
};

/// The feature of `proxy_pass https://`.
pub static PROXY: Module = Module {
    directives: towards::PROXY_DIRECTIVES,
    ..Module::new(
        "http_proxy_ssl",
        "Speaks TLS with the servers that `proxy_pass https://` names, and checks their \
         certificates where it is told to.",
    )
};

/// The feature of `grpc_pass grpcs://`.
pub static GRPC: Module = Module {
    directives: towards::GRPC_DIRECTIVES,
    ..Module::new(
        "http_grpc_ssl",
        "Speaks TLS with the servers that `grpc_pass grpcs://` names, as with `proxy_pass \
         https://`.",
    )
};

/// The feature of `uwsgi_pass suwsgi://`.
pub static UWSGI: Module = Module {
    directives: towards::UWSGI_DIRECTIVES,
    ..Module::new(
        "http_uwsgi_ssl",
        "Speaks TLS with the programs that `uwsgi_pass suwsgi://` names, as with `proxy_pass \
         https://`.",
    )
};

type X = Exchange;
type Found = Option<Span>;

static VARIABLES: &[Builtin<Exchange>] = &[
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
    Builtin::volatile("ssl_client_raw_cert", client_raw, "The client's certificate in PEM form."),
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
    Builtin::volatile("ssl_client_v_start", client_start, "When the client's certificate begins."),
    Builtin::volatile(
        "ssl_client_verify",
        client_verify,
        "`SUCCESS`, `FAILED:` and why, or `NONE` without a certificate.",
    ),
    Builtin::volatile("ssl_curve", curve, "The group in which keys were exchanged."),
    Builtin::volatile("ssl_curves", curves, "The groups that the client offered."),
    Builtin::volatile("ssl_protocol", protocol, "`TLSv1.2` or `TLSv1.3`."),
    Builtin::volatile("ssl_server_name", server_name, "The name that the client asked for (SNI)."),
    Builtin::volatile(
        "ssl_session_id",
        session_id,
        "The session's id in hexadecimal digits; it stays when the session is taken up again.",
    ),
    Builtin::volatile(
        "ssl_session_reused",
        session_reused,
        "`r` when a session was taken up again, else `.`.",
    ),
    Builtin::volatile("ssl_sigalgs", schemes, "The signature schemes that the client offered."),
];

/// A text of the session.
fn of_session(x: &mut X, get: impl FnOnce(&Session) -> Option<String>) -> Found {
    let connection = x.connection.clone();
    let text = get(connection.stream.tls()?)?;
    Some(x.arena.push(text.as_bytes()))
}

/// A text of the client's certificate.
fn of_certificate(x: &mut X, get: impl FnOnce(&Certificate) -> String) -> Found {
    of_session(x, |session| session.certificate().map(|one| get(&one)))
}

fn alpn(x: &mut X) -> Found {
    of_session(x, |session| String::from_utf8(session.alpn()?).ok())
}

fn cipher(x: &mut X) -> Found {
    of_session(x, |session| Some(session.cipher()))
}

fn ciphers(x: &mut X) -> Found {
    of_session(x, |session| Some(session.ciphers()))
}

fn curve(x: &mut X) -> Found {
    of_session(x, Session::curve)
}

fn curves(x: &mut X) -> Found {
    of_session(x, |session| Some(session.curves()))
}

fn schemes(x: &mut X) -> Found {
    of_session(x, |session| Some(session.schemes()))
}

fn protocol(x: &mut X) -> Found {
    of_session(x, |session| Some(session.protocol().to_owned()))
}

fn server_name(x: &mut X) -> Found {
    x.tls_server_name()
}

fn session_id(x: &mut X) -> Found {
    of_session(x, |session| Some(session.id_text()))
}

fn session_reused(x: &mut X) -> Found {
    of_session(x, |session| Some(if session.is_resumed() { "r" } else { "." }.to_owned()))
}

fn client_verify(x: &mut X) -> Found {
    x.tls_verdict()
}

fn client_raw(x: &mut X) -> Found {
    of_certificate(x, Certificate::pem)
}

fn client_cert(x: &mut X) -> Found {
    of_certificate(x, |one| one.pem().trim_end().replace('\n', "\n\t"))
}

fn client_escaped(x: &mut X) -> Found {
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

fn client_fingerprint(x: &mut X) -> Found {
    of_certificate(x, Certificate::fingerprint)
}

fn client_subject(x: &mut X) -> Found {
    of_certificate(x, Certificate::subject_text)
}

fn client_issuer(x: &mut X) -> Found {
    of_certificate(x, Certificate::issuer_text)
}

fn client_subject_legacy(x: &mut X) -> Found {
    of_certificate(x, Certificate::subject_line)
}

fn client_issuer_legacy(x: &mut X) -> Found {
    of_certificate(x, Certificate::issuer_line)
}

fn client_serial(x: &mut X) -> Found {
    of_certificate(x, Certificate::serial_text)
}

fn client_start(x: &mut X) -> Found {
    of_certificate(x, Certificate::begins)
}

fn client_end(x: &mut X) -> Found {
    of_certificate(x, Certificate::ends)
}

fn client_remain(x: &mut X) -> Found {
    let now = net::wall().0 as i64;
    of_certificate(x, |one| one.days_left(now).to_string())
}
