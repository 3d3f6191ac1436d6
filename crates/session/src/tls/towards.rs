//! The directives of TLS towards servers, under the name of each way to pass on.
//!
//! nginx has the same ones once per protocol (`proxy_ssl_verify`, `grpc_ssl_verify`).
//! `towards!` declares them for one; [`Towards`] lets them be compiled without knowing whose they
//! are.

use config::{AnyDirective, Arity, Context, Directive, read};
use net::tls::Protocols;

use super::directives::{
    CertificateCache, read_certificate_cache, read_conf_command, read_protocols,
};
use crate::contexts::{HTTP, LOCATION, SERVER, STREAM, STREAM_SERVER};

/// Where the directives of one way to pass on are found.
pub struct Towards {
    /// `proxy`, as their names begin.
    pub(super) family: &'static str,
    pub(super) certificate: &'static Directive<config::Template>,
    pub(super) certificate_cache: &'static Directive<Option<CertificateCache>>,
    pub(super) certificate_key: &'static Directive<config::Template>,
    pub(super) ciphers: &'static Directive<String>,
    pub(super) conf_command: &'static Directive<(String, String)>,
    pub(super) crl: &'static Directive<String>,
    pub(super) key_log: &'static Directive<String>,
    pub(super) name: &'static Directive<config::Template>,
    pub(super) password_file: &'static Directive<String>,
    pub(super) protocols: &'static Directive<Protocols>,
    pub(super) server_name: &'static Directive<bool>,
    pub(super) session_reuse: &'static Directive<bool>,
    pub(super) trusted_certificate: &'static Directive<String>,
    pub(super) verify: &'static Directive<bool>,
    pub(super) verify_depth: &'static Directive<u64>,
}

/// `proxy_ssl_...`
pub static PROXY: Towards = proxy::TOWARDS;
/// The directives of `proxy_ssl_...`
pub static PROXY_DIRECTIVES: &[&dyn AnyDirective] = proxy::ALL;
/// `grpc_ssl_...`
pub static GRPC: Towards = grpc::TOWARDS;
/// The directives of `grpc_ssl_...`
pub static GRPC_DIRECTIVES: &[&dyn AnyDirective] = grpc::ALL;
/// `uwsgi_ssl_...`
pub static UWSGI: Towards = uwsgi::TOWARDS;
/// The directives of `uwsgi_ssl_...`
pub static UWSGI_DIRECTIVES: &[&dyn AnyDirective] = uwsgi::ALL;

/// Declares the directives whose names begin with `$name`, as [`Towards`] and as a list.
macro_rules! towards {
    ($name:literal, $places:expr) => {
        use super::*;

        const PLACES: &[Context] = $places;

        pub(super) const ALL: &[&dyn AnyDirective] = &[
            &CERTIFICATE,
            &CERTIFICATE_CACHE,
            &CERTIFICATE_KEY,
            &CIPHERS,
            &CONF_COMMAND,
            &CRL,
            &KEY_LOG,
            &NAME,
            &PASSWORD_FILE,
            &PROTOCOLS,
            &SERVER_NAME,
            &SESSION_REUSE,
            &TRUSTED_CERTIFICATE,
            &VERIFY,
            &VERIFY_DEPTH,
        ];

        pub(super) const TOWARDS: Towards = Towards {
            family: $name,
            certificate: &CERTIFICATE,
            certificate_cache: &CERTIFICATE_CACHE,
            certificate_key: &CERTIFICATE_KEY,
            ciphers: &CIPHERS,
            conf_command: &CONF_COMMAND,
            crl: &CRL,
            key_log: &KEY_LOG,
            name: &NAME,
            password_file: &PASSWORD_FILE,
            protocols: &PROTOCOLS,
            server_name: &SERVER_NAME,
            session_reuse: &SESSION_REUSE,
            trusted_certificate: &TRUSTED_CERTIFICATE,
            verify: &VERIFY,
            verify_depth: &VERIFY_DEPTH,
        };

        static CERTIFICATE: Directive<config::Template> =
            Directive::new(concat!($name, "_ssl_certificate"), PLACES, read::template)
                .syntax(concat!($name, "_ssl_certificate FILE;"))
                .text(
                    "A file with the certificate that servers are shown when they ask for one, in \
                     PEM form. With variables it is read for each new connection; an empty name \
                     shows none. `data:` in front means that the certificate itself follows.",
                )
                .example(concat!($name, "_ssl_certificate /etc/ssl/proxy.crt;"));

        static CERTIFICATE_CACHE: Directive<Option<CertificateCache>> = Directive::new(
            concat!($name, "_ssl_certificate_cache"),
            PLACES,
            read_certificate_cache,
        )
        .takes(Arity::Between(1, 3))
        .default("off")
        .syntax(concat!(
            $name,
            "_ssl_certificate_cache off;\n",
            $name,
            "_ssl_certificate_cache max=N [inactive=TIME] [valid=TIME];"
        ))
        .text(concat!(
            "Keeps certificates and keys of `",
            $name,
            "_ssl_certificate` whose names hold variables in memory of each worker; see \
             `ssl_certificate_cache`."
        ))
        .example(concat!($name, "_ssl_certificate_cache max=1000 inactive=20s valid=1m;"));

        static CERTIFICATE_KEY: Directive<config::Template> =
            Directive::new(concat!($name, "_ssl_certificate_key"), PLACES, read::template)
                .syntax(concat!($name, "_ssl_certificate_key FILE;"))
                .text(concat!(
                    "A file with the secret key that belongs to `",
                    $name,
                    "_ssl_certificate`."
                ))
                .example(concat!($name, "_ssl_certificate_key /etc/ssl/proxy.key;"));

        static CIPHERS: Directive<String> =
            Directive::new(concat!($name, "_ssl_ciphers"), PLACES, read::text)
                .default("DEFAULT")
                .syntax(concat!($name, "_ssl_ciphers LIST;"))
                .text("The ciphers of TLS 1.2 that servers are offered; see `ssl_ciphers`.")
                .example(concat!($name, "_ssl_ciphers ECDHE+AESGCM;"));

        static CONF_COMMAND: Directive<(String, String)> =
            Directive::new(concat!($name, "_ssl_conf_command"), PLACES, read_conf_command)
                .takes(Arity::Exactly(2))
                .many()
                .syntax(concat!($name, "_ssl_conf_command NAME VALUE;"))
                .text(concat!(
                    "A command of OpenSSL's configuration, as in `ssl_conf_command`; also \
                     `Certificate` and `PrivateKey`, which replace what `",
                    $name,
                    "_ssl_certificate` and its key say."
                ))
                .example(concat!($name, "_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"));

        static CRL: Directive<String> =
            Directive::new(concat!($name, "_ssl_crl"), PLACES, read::text)
                .syntax(concat!($name, "_ssl_crl FILE;"))
                .text(concat!(
                    "A file with revocation lists in PEM form, for `",
                    $name,
                    "_ssl_verify`; see `ssl_crl`."
                ))
                .example(concat!($name, "_ssl_crl /etc/ssl/revoked.crl;"));

        static KEY_LOG: Directive<String> =
            Directive::new(concat!($name, "_ssl_key_log"), PLACES, read::text)
                .syntax(concat!($name, "_ssl_key_log FILE;"))
                .text("Appends the secrets of connections to servers to a file; see `ssl_key_log`.")
                .example(concat!($name, "_ssl_key_log /tmp/keys.log;"));

        static NAME: Directive<config::Template> =
            Directive::new(concat!($name, "_ssl_name"), PLACES, read::template)
                .syntax(concat!($name, "_ssl_name NAME;"))
                .text(concat!(
                    "The name that a server's certificate must have, and that is sent to it where \
                     `",
                    $name,
                    "_ssl_server_name` says so. Without it the host in `",
                    $name,
                    "_pass`."
                ))
                .example(concat!($name, "_ssl_name backend.example.com;"));

        static PASSWORD_FILE: Directive<String> =
            Directive::new(concat!($name, "_ssl_password_file"), PLACES, read::text)
                .syntax(concat!($name, "_ssl_password_file FILE;"))
                .text("A file with passwords for an encrypted key, one in each line.")
                .example(concat!($name, "_ssl_password_file /etc/ssl/passwords;"));

        static PROTOCOLS: Directive<Protocols> =
            Directive::new(concat!($name, "_ssl_protocols"), PLACES, read_protocols)
                .takes(Arity::AtLeast(1))
                .default("TLSv1.2 TLSv1.3")
                .syntax(concat!($name, "_ssl_protocols [TLSv1.2] [TLSv1.3];"))
                .text("The versions of the protocol that servers are offered; see `ssl_protocols`.")
                .example(concat!($name, "_ssl_protocols TLSv1.3;"));

        static SERVER_NAME: Directive<bool> =
            Directive::new(concat!($name, "_ssl_server_name"), PLACES, read::flag)
                .takes(Arity::Flag)
                .default("off")
                .syntax(concat!($name, "_ssl_server_name on | off;"))
                .text("Whether servers are told which name is wanted (SNI).")
                .example(concat!($name, "_ssl_server_name on;"));

        static SESSION_REUSE: Directive<bool> =
            Directive::new(concat!($name, "_ssl_session_reuse"), PLACES, read::flag)
                .takes(Arity::Flag)
                .default("on")
                .syntax(concat!($name, "_ssl_session_reuse on | off;"))
                .text(
                    "Whether new connections take up earlier sessions, which saves most of the \
                     work.",
                )
                .example(concat!($name, "_ssl_session_reuse off;"));

        static TRUSTED_CERTIFICATE: Directive<String> =
            Directive::new(concat!($name, "_ssl_trusted_certificate"), PLACES, read::text)
                .syntax(concat!($name, "_ssl_trusted_certificate FILE;"))
                .text(concat!(
                    "A file with certificates of authorities in PEM form, for `",
                    $name,
                    "_ssl_verify`."
                ))
                .example(concat!($name, "_ssl_trusted_certificate /etc/ssl/authorities.crt;"));

        static VERIFY: Directive<bool> =
            Directive::new(concat!($name, "_ssl_verify"), PLACES, read::flag)
                .takes(Arity::Flag)
                .default("off")
                .syntax(concat!($name, "_ssl_verify on | off;"))
                .text(concat!(
                    "Whether a server's certificate must come from an authority of `",
                    $name,
                    "_ssl_trusted_certificate` and have the name that is wanted. Without it the \
                     traffic is encrypted, but may go to anyone."
                ))
                .example(concat!($name, "_ssl_verify on;"));

        static VERIFY_DEPTH: Directive<u64> =
            Directive::new(concat!($name, "_ssl_verify_depth"), PLACES, read::number)
                .default("1")
                .syntax(concat!($name, "_ssl_verify_depth N;"))
                .text(
                    "How many intermediate certificates may stand between a server's and its \
                     authority's.",
                )
                .example(concat!($name, "_ssl_verify_depth 2;"));
    };
}

mod proxy {
    towards!("proxy", &[HTTP, SERVER, LOCATION, STREAM, STREAM_SERVER]);
}

mod grpc {
    towards!("grpc", &[HTTP, SERVER, LOCATION]);
}

mod uwsgi {
    towards!("uwsgi", &[HTTP, SERVER, LOCATION]);
}
