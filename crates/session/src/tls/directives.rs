//! The directives of a server's TLS, for every engine.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, read};
use net::tls::Protocols;

use super::revocation::Depth;
use crate::contexts::{HTTP, SERVER, STREAM, STREAM_SERVER};

const PLACES: &[Context] = &[HTTP, SERVER, STREAM, STREAM_SERVER];

/// The directives of this file that http and stream share.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[
    &SSL_BUFFER_SIZE,
    &SSL_CERTIFICATE,
    &SSL_CERTIFICATE_CACHE,
    &SSL_CERTIFICATE_KEY,
    &SSL_CIPHERS,
    &SSL_CLIENT_CERTIFICATE,
    &SSL_CONF_COMMAND,
    &SSL_CRL,
    &SSL_DHPARAM,
    &SSL_ECDH_CURVE,
    &SSL_KEY_LOG,
    &SSL_OCSP,
    &SSL_OCSP_CACHE,
    &SSL_OCSP_RESPONDER,
    &SSL_PASSWORD_FILE,
    &SSL_PREFER_SERVER_CIPHERS,
    &SSL_PROTOCOLS,
    &SSL_REJECT_HANDSHAKE,
    &SSL_SESSION_CACHE,
    &SSL_SESSION_TICKET_KEY,
    &SSL_SESSION_TICKETS,
    &SSL_SESSION_TIMEOUT,
    &SSL_STAPLING,
    &SSL_STAPLING_FILE,
    &SSL_STAPLING_RESPONDER,
    &SSL_STAPLING_VERIFY,
    &SSL_TRUSTED_CERTIFICATE,
    &SSL_VERIFY_CLIENT,
    &SSL_VERIFY_DEPTH,
];

/// `ssl_buffer_size`.
pub static SSL_BUFFER_SIZE: Directive<u64> =
    Directive::new("ssl_buffer_size", &[HTTP, SERVER], read::size)
        .default("16k")
        .syntax("ssl_buffer_size SIZE;")
        .text(
            "The size of the records that answers are sent in. A client can use a record only \
             when all of it is there, so small ones bring the first bytes sooner and large ones \
             cost less. At most 16k, which is the protocol's limit.",
        )
        .example("ssl_buffer_size 4k;");

/// `ssl_certificate`.
pub static SSL_CERTIFICATE: Directive<config::Template> =
    Directive::new("ssl_certificate", PLACES, read::template)
        .many()
        .syntax("ssl_certificate FILE;")
        .text(
            "A file with the server's certificate in PEM form, and behind it the intermediate \
             certificates up to one that clients trust. A relative path starts at the folder of \
             the configuration file. Several lines give certificates of several kinds, such as \
             RSA and ECDSA: each client is shown one that it understands. With variables the \
             file is read when a client connects, by the worker and with its rights; \
             `$ssl_server_name` is the name that the client asks for. `data:` in front means \
             that the certificate itself follows.",
        )
        .example("ssl_certificate /etc/ssl/example.com.crt;");

/// `ssl_certificate_cache`.
pub static SSL_CERTIFICATE_CACHE: Directive<Option<CertificateCache>> =
    Directive::new("ssl_certificate_cache", PLACES, read_certificate_cache)
        .takes(Arity::Between(1, 3))
        .default("off")
        .syntax(
            "ssl_certificate_cache off;\nssl_certificate_cache max=N [inactive=TIME] [valid=TIME];",
        )
        .text(
            "Keeps up to N certificates and keys whose names hold variables in memory of each \
             worker, so that files are not read for each client. One that was not used for \
             `inactive` (10 seconds) is dropped; one that is older than `valid` (60 seconds) is \
             read again if its file has changed.",
        )
        .example("ssl_certificate_cache max=1000 inactive=20s valid=1m;");

/// `ssl_certificate_key`.
pub static SSL_CERTIFICATE_KEY: Directive<config::Template> =
    Directive::new("ssl_certificate_key", PLACES, read::template)
        .many()
        .syntax("ssl_certificate_key FILE;")
        .text(
            "A file with the secret key that belongs to `ssl_certificate`, in PEM form; with \
             several certificates, one line for each in the same order. The master reads it, so \
             only root need have the right to. `data:` in front means that the key itself follows.",
        )
        .example("ssl_certificate_key /etc/ssl/example.com.key;");

/// `ssl_ciphers`.
pub static SSL_CIPHERS: Directive<String> = Directive::new("ssl_ciphers", PLACES, read::text)
    .default("HIGH:!aNULL:!MD5")
    .syntax("ssl_ciphers LIST;")
    .text(
        "The ciphers of TLS 1.2 in OpenSSL's language, most wanted first. There are six here, all \
         with forward secrecy and authenticated encryption; other names in the list are passed \
         over, and a list without any of the six is refused. For TLS 1.3 see `ssl_conf_command`.",
    )
    .example("ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;");

/// `ssl_client_certificate`.
pub static SSL_CLIENT_CERTIFICATE: Directive<String> =
    Directive::new("ssl_client_certificate", PLACES, read::text)
        .syntax("ssl_client_certificate FILE;")
        .text(
            "A file with certificates of authorities in PEM form. Clients' certificates are to be \
             issued by one of them; their names are told to clients. With `ssl_verify_client`.",
        )
        .example("ssl_client_certificate /etc/ssl/clients.crt;");

/// `ssl_conf_command`.
pub static SSL_CONF_COMMAND: Directive<(String, String)> =
    Directive::new("ssl_conf_command", PLACES, read_conf_command)
        .takes(Arity::Exactly(2))
        .many()
        .syntax("ssl_conf_command NAME VALUE;")
        .text(
            "A command of OpenSSL's configuration. Understood are `Ciphersuites` (those of \
             TLS 1.3), `CipherString`, `Groups` or `Curves`, `MinProtocol`, `MaxProtocol`, \
             `Protocol`, and of `Options` the words `PrioritizeChaCha`, `ServerPreference` and \
             `SessionTicket`. They replace what other directives say.",
        )
        .example("ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;");

/// `ssl_crl`.
pub static SSL_CRL: Directive<String> = Directive::new("ssl_crl", PLACES, read::text)
    .syntax("ssl_crl FILE;")
    .text(
        "A file with revocation lists in PEM form. Each certificate between a client's own and \
         the authority must then have a current list of its issuer that does not name it.",
    )
    .example("ssl_crl /etc/ssl/revoked.crl;");

/// `ssl_dhparam`.
pub static SSL_DHPARAM: Directive<String> = Directive::new("ssl_dhparam", PLACES, read::text)
    .syntax("ssl_dhparam FILE;")
    .text("Parameters for ciphers that exchange keys by DHE.")
    .example("ssl_dhparam /etc/ssl/dh.pem;")
    .moot("Keys are exchanged on elliptic curves only: there is no DHE cipher.");

/// `ssl_early_data`.
pub static SSL_EARLY_DATA: Directive<bool> =
    Directive::new("ssl_early_data", &[HTTP, SERVER], read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("ssl_early_data on | off;")
        .text(
            "Takes requests of clients that come again in their first message, before the \
             handshake is over (TLS 1.3, 0-RTT): up to 16 KiB. Somebody on the way may send such \
             a message a second time. Here a session is taken up once at most, by whichever \
             worker, so a copy is not heard as early data, but other machines that serve the same \
             name know nothing of it. Pass `$ssl_early_data` on in the field `Early-Data`, so that \
             an application can answer with 425 what must not happen twice (RFC 8470). Sessions \
             are then kept in the zone of `ssl_session_cache`, or in one of 4 MiB, instead of \
             tickets.",
        )
        .example("ssl_early_data on; proxy_set_header Early-Data $ssl_early_data;");

/// `ssl_ecdh_curve`.
pub static SSL_ECDH_CURVE: Directive<String> = Directive::new("ssl_ecdh_curve", PLACES, read::text)
    .default("auto")
    .syntax("ssl_ecdh_curve LIST;")
    .text(
        "The groups in which keys are exchanged, most wanted first, by OpenSSL's names and with \
         colons between them: X25519MLKEM768, X25519, prime256v1, secp384r1, SecP256r1MLKEM768. \
         `auto` takes the usual ones, the post-quantum hybrid first.",
    )
    .example("ssl_ecdh_curve X25519:prime256v1;");

/// `ssl_key_log`.
pub static SSL_KEY_LOG: Directive<String> = Directive::new("ssl_key_log", PLACES, read::text)
    .syntax("ssl_key_log FILE;")
    .text(
        "Appends the secrets of each connection to a file (NSS key log), with which programs such \
         as Wireshark decrypt what they recorded. For debugging only: whoever reads the file \
         reads the traffic.",
    )
    .example("ssl_key_log /tmp/keys.log;");

/// `ssl_ocsp`.
pub static SSL_OCSP: Directive<Depth> = Directive::new("ssl_ocsp", PLACES, read_depth)
    .default("off")
    .syntax("ssl_ocsp on | off | leaf;")
    .text(
        "Asks, by OCSP, whether clients' certificates were revoked, when their chain is good and \
         before their first request; `leaf` asks about the client's own only. Who is asked stands \
         in each certificate, unless `ssl_ocsp_responder` says otherwise. A client whose \
         certificate was revoked, or about which no answer is to be had, is refused as one with a \
         bad certificate, and `$ssl_client_verify` tells. Needs `ssl_verify_client` `on` or \
         `optional`, and a `resolver` for responders with names.",
    )
    .example("ssl_ocsp leaf;");

/// `ssl_ocsp_cache`.
pub static SSL_OCSP_CACHE: Directive<Option<(String, usize)>> =
    Directive::new("ssl_ocsp_cache", PLACES, read_ocsp_cache)
        .default("off")
        .syntax("ssl_ocsp_cache off | shared:NAME:SIZE;")
        .text(
            "Where answers about clients' certificates are kept until they end, for all workers. \
             Servers may share a zone, by its name.",
        )
        .example("ssl_ocsp_cache shared:ocsp:1m;");

/// `ssl_ocsp_responder`.
pub static SSL_OCSP_RESPONDER: Directive<String> =
    Directive::new("ssl_ocsp_responder", PLACES, read::text)
        .syntax("ssl_ocsp_responder URL;")
        .text(
            "Whom to ask about clients' certificates, in place of those whom they name. A URL \
             that begins with `http://`.",
        )
        .example("ssl_ocsp_responder http://ocsp.example.com/;");

/// `ssl_password_file`.
pub static SSL_PASSWORD_FILE: Directive<String> =
    Directive::new("ssl_password_file", PLACES, read::text)
        .syntax("ssl_password_file FILE;")
        .text("A file with passwords for encrypted keys, one in each line. They are tried in turn.")
        .example("ssl_password_file /etc/ssl/passwords;");

/// `ssl_prefer_server_ciphers`.
pub static SSL_PREFER_SERVER_CIPHERS: Directive<bool> =
    Directive::new("ssl_prefer_server_ciphers", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("ssl_prefer_server_ciphers on | off;")
        .text("Whether the server's order of ciphers counts rather than the client's.")
        .example("ssl_prefer_server_ciphers on;");

/// `ssl_protocols`.
pub static SSL_PROTOCOLS: Directive<Protocols> =
    Directive::new("ssl_protocols", PLACES, read_protocols)
        .takes(Arity::AtLeast(1))
        .default("TLSv1.2 TLSv1.3")
        .syntax("ssl_protocols [TLSv1.2] [TLSv1.3];")
        .text(
            "The versions of the protocol. Older ones are broken, and browsers have given them \
             up: clients that speak nothing newer are refused. In a list with newer ones they \
             draw a warning, a list of nothing else is an error.",
        )
        .example("ssl_protocols TLSv1.3;");

/// `ssl_reject_handshake`.
pub static SSL_REJECT_HANDSHAKE: Directive<bool> =
    Directive::new("ssl_reject_handshake", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("ssl_reject_handshake on | off;")
        .text(
            "Refuses clients in this server, with the alert `unrecognized_name`. In the default \
             server of an address: all who ask for a name that no server has.",
        )
        .example("ssl_reject_handshake on;");

/// `ssl_session_cache`.
pub static SSL_SESSION_CACHE: Directive<SessionCache> =
    Directive::new("ssl_session_cache", PLACES, read_session_cache)
        .takes(Arity::Between(1, 2))
        .default("none")
        .syntax("ssl_session_cache off | none | [builtin[:SIZE]] [shared:NAME:SIZE];")
        .text(
            "Where sessions are kept for clients that come again without a ticket: in a zone \
             that all workers share (a megabyte has room for about 2 500 sessions), in the memory \
             of each worker (SIZE sessions), or not at all.",
        )
        .example("ssl_session_cache shared:tls:10m;");

/// `ssl_session_ticket_key`.
pub static SSL_SESSION_TICKET_KEY: Directive<String> =
    Directive::new("ssl_session_ticket_key", PLACES, read::text)
        .many()
        .syntax("ssl_session_ticket_key FILE;")
        .text(
            "A file of 48 or 80 random bytes from which the key of session tickets is made, so \
             that several machines take each other's tickets. The first line's key makes tickets; \
             those of further lines are taken too, which lets keys be replaced step by step. \
             Without it keys are made by the master, changed regularly, and kept over a reload.",
        )
        .example("ssl_session_ticket_key current.key;");

/// `ssl_session_tickets`.
pub static SSL_SESSION_TICKETS: Directive<bool> =
    Directive::new("ssl_session_tickets", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("on")
        .syntax("ssl_session_tickets on | off;")
        .text(
            "Whether clients are given tickets, with which they take up a session again without \
             the server keeping anything (RFC 5077, RFC 8446).",
        )
        .example("ssl_session_tickets off;");

/// `ssl_session_timeout`.
pub static SSL_SESSION_TIMEOUT: Directive<u64> =
    Directive::new("ssl_session_timeout", PLACES, read::time_s)
        .default("5m")
        .syntax("ssl_session_timeout TIME;")
        .text("For how long a client may take up a session again.")
        .example("ssl_session_timeout 1h;");

/// `ssl_stapling`.
pub static SSL_STAPLING: Directive<bool> = Directive::new("ssl_stapling", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("ssl_stapling on | off;")
    .text(
        "Shows clients, with the server's certificate, what its OCSP responder says: that it \
             was not revoked. One process beside the workers asks, from the start on, about each \
             certificate whose name has no variables, an hour later again or before the answer \
             ends, and after a fault within five minutes; answers outlive a reload. The issuer's \
             certificate must stand behind the server's own, or among those of \
             `ssl_trusted_certificate`; a responder with a name wants a `resolver`. Without one \
             of these the configuration is taken with a warning, and nothing is shown.",
    )
    .example("ssl_stapling on;");

/// `ssl_stapling_file`.
pub static SSL_STAPLING_FILE: Directive<String> =
    Directive::new("ssl_stapling_file", PLACES, read::text)
        .syntax("ssl_stapling_file FILE;")
        .text(
            "A file with an OCSP response in DER form, which clients are shown with the \
             certificate in place of what a responder says. With `ssl_stapling`.",
        )
        .example("ssl_stapling_file /etc/ssl/example.com.ocsp;");

/// `ssl_stapling_responder`.
pub static SSL_STAPLING_RESPONDER: Directive<String> =
    Directive::new("ssl_stapling_responder", PLACES, read::text)
        .syntax("ssl_stapling_responder URL;")
        .text(
            "Whom to ask about the server's certificates, in place of those whom they name. A \
             URL that begins with `http://`.",
        )
        .example("ssl_stapling_responder http://ocsp.example.com/;");

/// `ssl_stapling_verify`.
pub static SSL_STAPLING_VERIFY: Directive<bool> =
    Directive::new("ssl_stapling_verify", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("ssl_stapling_verify on | off;")
        .text(
            "Whether an answer about the server's certificate is shown only if its signer may \
             give it: the certificate's issuer, another one behind the server's certificate, or \
             one whom the issuer named for it and who leads to one of \
             `ssl_trusted_certificate`. The signature itself is checked always.",
        )
        .example("ssl_stapling_verify on;");

/// `ssl_trusted_certificate`.
pub static SSL_TRUSTED_CERTIFICATE: Directive<String> =
    Directive::new("ssl_trusted_certificate", PLACES, read::text)
        .syntax("ssl_trusted_certificate FILE;")
        .text(
            "As `ssl_client_certificate`, but the names of these authorities are not told to \
             clients.",
        )
        .example("ssl_trusted_certificate /etc/ssl/authorities.crt;");

/// `ssl_verify_client`.
pub static SSL_VERIFY_CLIENT: Directive<Verify> =
    Directive::new("ssl_verify_client", PLACES, read_verify)
        .default("off")
        .syntax("ssl_verify_client on | off | optional | optional_no_ca;")
        .text(
            "Asks clients for a certificate: `on` refuses those without a good one (400, or the \
             `error_page` for 495 and 496), `optional` those with a bad one, `optional_no_ca` \
             lets also those pass whose issuer is unknown. `$ssl_client_verify` tells.",
        )
        .example("ssl_verify_client optional;");

/// `ssl_verify_depth`.
pub static SSL_VERIFY_DEPTH: Directive<u64> =
    Directive::new("ssl_verify_depth", PLACES, read::number)
        .default("1")
        .syntax("ssl_verify_depth N;")
        .text(
            "How many intermediate certificates may stand between a client's and its authority's.",
        )
        .example("ssl_verify_depth 2;");

/// What `ssl_certificate_cache` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateCache {
    /// Certificates with their keys.
    pub most: usize,
    pub inactive_s: u64,
    pub valid_s: u64,
}

/// What `ssl_session_cache` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionCache {
    /// Sessions in the memory of each worker.
    pub builtin: usize,
    /// Name and size of a zone.
    pub shared: Option<(String, usize)>,
}

/// What `ssl_verify_client` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    Off,
    On,
    Optional,
    OptionalNoCa,
}

fn read_depth(args: &Args<'_>) -> Result<Depth, Invalid> {
    read::enumeration(args, &[("off", Depth::Off), ("on", Depth::Chain), ("leaf", Depth::Leaf)])
}

fn read_ocsp_cache(args: &Args<'_>) -> Result<Option<(String, usize)>, Invalid> {
    let text = args.str(0);
    if text == "off" {
        return Ok(None);
    }
    let invalid = || Invalid::new(format!("invalid OCSP cache \"{text}\""));
    let rest = text.strip_prefix("shared:").ok_or_else(invalid)?;
    let (name, size) = rest.split_once(':').ok_or_else(invalid)?;
    let size = read::parse_size(size.as_bytes()).ok_or_else(invalid)?;
    let size = usize::try_from(size).map_err(|_| invalid())?;
    match (name.is_empty(), size < 8 * 4096) {
        (true, _) => Err(invalid()),
        (false, true) => Err(Invalid::new(format!("OCSP cache \"{text}\" is too small"))),
        (false, false) => Ok(Some((name.to_owned(), size))),
    }
}

fn read_verify(args: &Args<'_>) -> Result<Verify, Invalid> {
    let values = [
        ("off", Verify::Off),
        ("on", Verify::On),
        ("optional", Verify::Optional),
        ("optional_no_ca", Verify::OptionalNoCa),
    ];
    read::enumeration(args, &values)
}

/// Reads a list of protocols, for servers and for clients.
///
/// # Errors
/// nginx's words for what is no protocol; the reason for one that is not spoken.
pub fn read_protocols(args: &Args<'_>) -> Result<Protocols, Invalid> {
    let mut all = Protocols::default();
    let mut older = Vec::new();
    for (i, word) in args.words().iter().enumerate() {
        match Protocols::of(&word.str()) {
            Ok(one) => {
                all.tls12 |= one.tls12;
                all.tls13 |= one.tls13;
            }
            Err(Some(reason)) => older.push(Invalid::new(reason).at(i)),
            Err(None) => return Err(read::refuse(args, i, "value")),
        }
    }
    if all == Protocols::default()
        && let Some(first) = older.pop()
    {
        return Err(first);
    }
    // Lists from long ago name them all: what is left is safe, and nobody gets less than asked.
    older.into_iter().for_each(|one| args.warn(one));
    Ok(all)
}

/// Reads a command of OpenSSL's configuration.
///
/// # Errors
/// nginx's words for a command that does not exist here.
pub fn read_conf_command(args: &Args<'_>) -> Result<(String, String), Invalid> {
    let (name, value) = (args.str(0).into_owned(), args.str(1).into_owned());
    match super::Command::of(&name, &value) {
        Some(_) => Ok((name, value)),
        None => Err(Invalid::new(format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed")).at(0)),
    }
}

/// Reads `off` or `max=N [inactive=TIME] [valid=TIME]`.
///
/// # Errors
/// nginx's words for what is no parameter, and when there is no `max`.
pub fn read_certificate_cache(args: &Args<'_>) -> Result<Option<CertificateCache>, Invalid> {
    let mut cache = CertificateCache { most: 0, inactive_s: 10, valid_s: 60 };
    let mut off = false;
    for (i, word) in args.words().iter().enumerate() {
        let text = word.str();
        let invalid = || Invalid::new(format!("invalid parameter \"{text}\"")).at(i);
        let time = |text: &str| read::parse_time_s(text.as_bytes()).ok_or_else(invalid);
        match text.split_once('=') {
            None if text == "off" => off = true,
            Some(("max", n)) => {
                let most = n.parse().ok().filter(|most| *most > 0);
                // A certificate and its key are kept together, and count as two.
                cache.most = most.map(|most: usize| most.div_ceil(2)).ok_or_else(invalid)?;
            }
            Some(("inactive", text)) => cache.inactive_s = time(text)?,
            Some(("valid", text)) => cache.valid_s = time(text)?,
            _ => return Err(invalid()),
        }
    }
    match (off, cache.most) {
        (true, _) => Ok(None),
        (false, 0) => {
            let name = args.name();
            Err(Invalid::new(format!("\"{name}\" must have the \"max\" parameter")))
        }
        (false, _) => Ok(Some(cache)),
    }
}

fn read_session_cache(args: &Args<'_>) -> Result<SessionCache, Invalid> {
    let mut cache = SessionCache::default();
    for (i, word) in args.words().iter().enumerate() {
        let text = word.str();
        let invalid = || Invalid::new(format!("invalid session cache \"{text}\"")).at(i);
        match text.split_once(':') {
            None if matches!(&*text, "off" | "none") => {}
            None if text == "builtin" => cache.builtin = 20_480,
            Some(("builtin", n)) => cache.builtin = n.parse().map_err(|_| invalid())?,
            Some(("shared", rest)) => {
                let (name, size) = rest.split_once(':').ok_or_else(invalid)?;
                let size = read::parse_size(size.as_bytes()).ok_or_else(invalid)?;
                let size = usize::try_from(size).map_err(|_| invalid())?;
                if name.is_empty() {
                    return Err(invalid());
                }
                if size < 8 * 4096 {
                    let reason = format!("session cache \"{text}\" is too small");
                    return Err(Invalid::new(reason).at(i));
                }
                cache.shared = Some((name.to_owned(), size));
            }
            _ => return Err(invalid()),
        }
    }
    Ok(cache)
}
