//! TLS (nginx: ngx_http_ssl_module): towards clients, with the variables that tell of a handshake
//! and of a client's certificate, and towards the servers of each family.
//!
//! Directives and variables are those of `session::tls`, which `stream` has too; the handshake
//! belongs to the engine: see `tls` of crate `http`.

use http::{Exchange, Module};
use session::text::Span;
use session::tls::directives::SSL_EARLY_DATA;
use session::tls::towards;
use session::tls::variables::Rows;
use session::variables::Builtin;

/// The feature.
pub static MODULE: Module = Module {
    directives: session::tls::DIRECTIVES,
    variables: Rows::<Exchange>::TABLE,
    ..Module::new(
        "http_ssl",
        "Speaks TLS with clients, on addresses whose `listen` says `ssl`. TLS 1.2 and 1.3 with \
         ciphers that have forward secrecy, certificates by the name that a client asks for, \
         certificates of clients.",
    )
};

/// Requests before the end of a handshake, which only HTTP has.
pub static EARLY: Module = Module {
    directives: &[&SSL_EARLY_DATA],
    variables: &[Builtin::volatile(
        "ssl_early_data",
        early_data,
        "`1` for a request that came before the handshake was over and may be a copy; else empty.",
    )],
    ..Module::new(
        "http_ssl_early_data",
        "Takes requests of clients that come again in their first message (0-RTT).",
    )
};

fn early_data(x: &mut Exchange) -> Option<Span> {
    x.tls()?.is_early().then(|| x.arena.push(b"1"))
}

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
