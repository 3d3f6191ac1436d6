//! TLS towards clients as a `server` block configures it, for every engine.
//!
//! `directives` declares, this file compiles: certificates and keys are read here, in the master,
//! so a fault shows before anything is put to use, and workers need no right to read them.
//! `store` keeps sessions in a zone, `dynamic` loads certificates whose names hold variables,
//! `stapling` and `revocation` ask whether certificates were revoked: ours, and clients'.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use config::{Part, Scope, Span};
use net::tls::{
    Algorithms, Certificate, KeyLog, Keys, Protocols, Server, ServerConfig,
    ServerSessionMemoryCache, Session, StoresServerSessions, Trust,
};

use crate::contexts::{HTTP, SERVER};
use crate::lifecycle::Lifecycle;
use crate::variables::Template;
use crate::zones::Zones;

pub mod directives;
mod dynamic;
pub mod outgoing;
mod responder;
pub mod revocation;
mod stapling;
mod store;
pub mod towards;
pub mod variables;

use directives as d;
pub use directives::{DIRECTIVES, Verify};
pub use dynamic::Dynamic;
pub use outgoing::{Insecure, Outgoing};
pub use responder::LookUp;
pub use revocation::Revocation;
pub use towards::Towards;

/// A server's TLS.
pub struct ServerTls {
    /// What handshakes go by; none when there is no certificate.
    pub config: Option<Arc<ServerConfig>>,
    /// Certificates that are known per connection only.
    pub dynamic: Option<Dynamic>,
    /// Whether certificates are configured, of whatever kind.
    pub has_certificates: bool,
    /// Refuse every client.
    pub rejects: bool,
    /// What is done about clients' certificates.
    pub verify: Verify,
    /// Whom clients' certificates must come from.
    pub trust: Rc<Trust>,
    /// How it is asked whether clients' certificates were revoked, if it is.
    pub revocation: Option<Revocation>,
    /// What follows the answers about the server's own certificates, for the engine to let follow
    /// the lives of workers.
    pub staplers: Vec<Rc<dyn Lifecycle>>,
}

/// What compiling needs besides the scope.
pub struct How<'c> {
    pub zones: &'c Zones,
    /// Protocols above TLS, the preferred ones first.
    pub alpn: Vec<Vec<u8>>,
    /// How names of responders become addresses.
    pub look_up: LookUp,
    /// Compiles a template for the engine's conversations.
    pub template: &'c mut dyn FnMut(&config::Template) -> Template,
}

/// Why a server has no TLS. Logged as nginx does, where it names no line without one.
type Fault = (String, Option<Span>);

/// Compiles a server's TLS. Faults go to the scope.
pub fn compile(scope: &Scope<'_>, how: How<'_>) -> ServerTls {
    let rejects = scope.get(&d::SSL_REJECT_HANDSHAKE);
    let has_certificates = !scope.nodes(&d::SSL_CERTIFICATE).is_empty();
    let mut tls = ServerTls {
        config: None,
        dynamic: None,
        has_certificates,
        rejects,
        verify: scope.get(&d::SSL_VERIFY_CLIENT),
        trust: Rc::default(),
        revocation: None,
        staplers: Vec::new(),
    };
    if !has_certificates && !rejects {
        // nginx looks no further either.
        return tls;
    }
    if let Err((reason, span)) = fill(&mut tls, scope, how) {
        scope.error(span, reason);
    }
    tls
}

fn fill(tls: &mut ServerTls, scope: &Scope<'_>, how: How<'_>) -> Result<(), Fault> {
    let prefix = scope.tree().conf_prefix.clone();
    let nowhere = |reason: String| (reason, None);
    let passwords = match scope.find_spanned(&d::SSL_PASSWORD_FILE) {
        None => Vec::new(),
        Some((path, span)) => {
            let read = net::tls::passwords(&prefix.join(path));
            read.map_err(|reason| (reason, Some(span)))?
        }
    };
    let cache = scope.get(&d::SSL_CERTIFICATE_CACHE);
    scope.find(&d::SSL_DHPARAM);
    let pairs = pairs(scope)?;
    let is_constant =
        |(one, key): &(config::Template, config::Template)| one.is_constant() && key.is_constant();
    let mut certificates = Vec::new();
    let mut names = Vec::new();
    if pairs.iter().all(is_constant) {
        for (certificate, key) in &pairs {
            let (certificate, key) = (text(certificate), text(key));
            let loaded = net::tls::certified(&certificate, &key, &passwords, &prefix);
            certificates.push((loaded.map_err(nowhere)?, certificate));
        }
    } else {
        let compiled = pairs
            .iter()
            .map(|(certificate, key)| ((how.template)(certificate), (how.template)(key)));
        names = pairs.iter().map(|(certificate, _)| shown(certificate)).collect();
        tls.dynamic = Some(Dynamic::new(compiled.collect(), passwords, prefix.clone(), cache));
    }
    let depth = usize::try_from(scope.get(&d::SSL_VERIFY_DEPTH)).unwrap_or(usize::MAX);
    let (trust, hints) = trust(scope, &prefix, tls.verify, depth)?;
    tls.trust = Rc::new(trust);
    let certificates = stapling::compile(tls, scope, &how, certificates)?;
    tls.revocation = revocation::compile(scope, &how, tls.verify)?;
    let early_data = takes_early_data(scope);
    let server = Server {
        algorithms: algorithms(scope)?,
        prefers_own: scope.get(&d::SSL_PREFER_SERVER_CIPHERS) || prefers_own(scope),
        certificates,
        names,
        alpn: how.alpn,
        asks: (tls.verify != Verify::Off).then_some(hints),
        record: record(scope),
        tickets: tickets(scope, &prefix)?.filter(|_| !early_data),
        store: store(scope, how.zones, early_data)?,
        lifetime_s: scope.get(&d::SSL_SESSION_TIMEOUT).min(u64::from(u32::MAX)) as u32,
        key_log: key_log(scope, &prefix)?,
        early_bytes: if early_data { EARLY_BYTES } else { 0 },
    };
    if tls.has_certificates {
        tls.config = Some(server.compile().map_err(nowhere)?);
    }
    Ok(())
}

fn text(template: &config::Template) -> String {
    String::from_utf8_lossy(template.constant().unwrap_or_default()).into_owned()
}

/// As written.
fn shown(template: &config::Template) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Part::Variable(name) => format!("${name}"),
        Part::Capture(n) => format!("${n}"),
    };
    template.parts.iter().map(part).collect()
}

/// Certificates with their keys.
fn pairs(scope: &Scope<'_>) -> Result<Vec<(config::Template, config::Template)>, Fault> {
    let certificates = scope.all(&d::SSL_CERTIFICATE);
    let keys = scope.all(&d::SSL_CERTIFICATE_KEY);
    match certificates.last() {
        Some(last) if keys.len() < certificates.len() => {
            let shown = shown(last);
            let reason =
                format!("no \"ssl_certificate_key\" is defined for certificate \"{shown}\"");
            Err((reason, None))
        }
        _ => Ok(certificates.into_iter().zip(keys).collect()),
    }
}

/// Whom to trust, and the names that clients are told.
fn trust(
    scope: &Scope<'_>,
    prefix: &Path,
    verify: Verify,
    depth: usize,
) -> Result<(Trust, Vec<Vec<u8>>), Fault> {
    let nowhere = |reason: String| (reason, None);
    let load = |file: Option<String>| match file.filter(|file| !file.is_empty()) {
        None => Ok(Vec::new()),
        Some(file) => net::tls::authorities(&file, prefix).map_err(nowhere),
    };
    let file = scope.find(&d::SSL_CLIENT_CERTIFICATE);
    let trusted = scope.find(&d::SSL_TRUSTED_CERTIFICATE);
    let has_none = |file: &Option<String>| file.as_ref().is_none_or(String::is_empty);
    let wants_some = matches!(verify, Verify::On | Verify::Optional);
    if wants_some && has_none(&file) && has_none(&trusted) {
        let reason = "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
        return Err(nowhere(reason.to_owned()));
    }
    let mut authorities = if verify == Verify::Off { Vec::new() } else { load(file)? };
    let mut names: Vec<Vec<u8>> = Vec::new();
    for name in authorities.iter().map(Certificate::name) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_vec());
        }
    }
    authorities.extend(load(trusted)?);
    let revocations = match scope.find(&d::SSL_CRL).filter(|file| !file.is_empty()) {
        None => Vec::new(),
        Some(file) => net::tls::revocations(&file, prefix).map_err(nowhere)?,
    };
    Ok((Trust { authorities, revocations, depth }, names))
}

/// Versions and algorithms, as directives and OpenSSL's commands say.
fn algorithms(scope: &Scope<'_>) -> Result<Algorithms, Fault> {
    let mut algorithms = Algorithms {
        protocols: scope.get(&d::SSL_PROTOCOLS),
        ciphers: scope.get(&d::SSL_CIPHERS),
        suites: None,
        groups: scope.get(&d::SSL_ECDH_CURVE),
    };
    for command in commands(scope) {
        command.apply(&mut algorithms);
    }
    if algorithms.protocols == Protocols::default() {
        return Err(("no protocols are left by \"ssl_conf_command\"".to_owned(), None));
    }
    Ok(algorithms)
}

fn commands(scope: &Scope<'_>) -> Vec<Command> {
    let lines = scope.all(&d::SSL_CONF_COMMAND);
    lines.iter().filter_map(|(name, value)| Command::of(name, value)).collect()
}

fn prefers_own(scope: &Scope<'_>) -> bool {
    commands(scope).iter().any(|command| matches!(command, Command::PrefersOwn))
}

fn record(scope: &Scope<'_>) -> usize {
    match scope.context() == HTTP || scope.context() == SERVER {
        true => scope.get(&d::SSL_BUFFER_SIZE).min(16 << 10) as usize,
        false => 16 << 10,
    }
}

fn tickets(scope: &Scope<'_>, prefix: &Path) -> Result<Option<Keys>, Fault> {
    let on = scope.get(&d::SSL_SESSION_TICKETS)
        && !commands(scope).iter().any(|command| matches!(command, Command::NoTickets));
    let mut keys = Vec::new();
    for (file, span) in scope.nodes(&d::SSL_SESSION_TICKET_KEY) {
        let read = net::tls::read_key(&prefix.join(file));
        keys.push(read.map_err(|reason| (reason, Some(span)))?);
    }
    Ok(match (on, keys.is_empty()) {
        (false, _) => None,
        (true, true) => Some(Keys::Own),
        (true, false) => Some(Keys::Given(keys)),
    })
}

/// Early data of a connection (nginx's measure).
const EARLY_BYTES: u32 = 16 << 10;
/// The zone of sessions that servers with early data share where `ssl_session_cache` names none.
const EARLY_ZONE: (&str, usize) = ("ssl_early_data", 4 << 20);

fn takes_early_data(scope: &Scope<'_>) -> bool {
    let is_http = scope.context() == HTTP || scope.context() == SERVER;
    is_http && scope.get(&d::SSL_EARLY_DATA)
}

fn store(
    scope: &Scope<'_>,
    zones: &Zones,
    early_data: bool,
) -> Result<Option<Arc<dyn StoresServerSessions>>, Fault> {
    let (cache, span) = scope.get_spanned(&d::SSL_SESSION_CACHE);
    let own = early_data.then(|| (EARLY_ZONE.0.to_owned(), EARLY_ZONE.1));
    if let Some((name, size)) = &cache.shared.or(own) {
        let zone = zones.declare(name, *size, &store::KIND).map_err(|reason| (reason, span))?;
        let lifetime_s = scope.get(&d::SSL_SESSION_TIMEOUT);
        return Ok(Some(store::Store::new(zone, lifetime_s)));
    }
    Ok(match cache.builtin {
        0 => None,
        size => Some(ServerSessionMemoryCache::new(size)),
    })
}

fn key_log(scope: &Scope<'_>, prefix: &Path) -> Result<Option<Arc<dyn KeyLog>>, Fault> {
    let Some((file, span)) = scope.find_spanned(&d::SSL_KEY_LOG) else { return Ok(None) };
    let path: PathBuf = prefix.join(file);
    net::tls::key_log(&path).map(Some).map_err(|reason| (reason, Some(span)))
}

/// A command of OpenSSL's configuration (SSL_CONF_cmd(3)) that means something here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Suites of TLS 1.3.
    Suites(String),
    /// Ciphers of TLS 1.2.
    Ciphers(String),
    Groups(String),
    /// The only versions there are.
    Protocols(Protocols),
    /// The versions that stay.
    Within(Protocols),
    /// The server's order counts.
    PrefersOwn,
    NoTickets,
    Nothing,
    /// A certificate in place of another one.
    Certificate(String),
    /// Its key.
    Key(String),
}

impl ServerTls {
    /// Asks whether the client's certificate was revoked, where that is wanted and the certificate
    /// is good otherwise; [`ServerTls::judge`] knows the answer from then on. `complain` logs what
    /// is wrong with the client's certificates.
    pub async fn ask(&self, session: &Session, complain: &dyn Fn(&str)) {
        let Some(revocation) = &self.revocation else { return };
        if session.verdict(&self.trust, net::wall().0 as i64) == Some(Ok(())) {
            let outcome = revocation.ask(session, &self.trust, complain).await;
            session.keep_asked(&self.trust, outcome);
        }
    }

    /// Whether the client's certificate, or that it has none, is good enough.
    ///
    /// # Errors
    /// Why not, in nginx's words.
    pub fn judge(&self, session: &Session) -> Result<(), Unfit> {
        if self.verify == Verify::Off {
            return Ok(());
        }
        match session.verdict(&self.trust, net::wall().0 as i64) {
            Some(Err(fault)) if self.verify != Verify::OptionalNoCa || !fault.is_about_trust() => {
                let (number, text) = (fault.number, fault.text);
                Err(Unfit::Bad(format!("client SSL certificate verify error: ({number}:{text})")))
            }
            None if self.verify == Verify::On => Err(Unfit::Missing),
            Some(Ok(())) if self.revocation.is_some() => match session.asked(&self.trust) {
                Some(Ok(())) => Ok(()),
                Some(Err(refused)) => {
                    Err(Unfit::Bad(format!("client SSL certificate verify error: {refused}")))
                }
                // The handshake was for another server, which asked nobody.
                None => Err(Unfit::Elsewhere),
            },
            _ => Ok(()),
        }
    }
}

/// What is wrong with a client's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// What to log.
    Bad(String),
    Missing,
    /// Nobody was asked whether it was revoked, since the handshake was for another server.
    Elsewhere,
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Unfit::Bad(text) => text,
            Unfit::Missing => "client sent no required SSL certificate",
            Unfit::Elsewhere => {
                "client attempted to request the server name different from the one that was \
                 negotiated"
            }
        })
    }
}

impl Command {
    /// The command of that name, in any case of letters.
    pub fn of(name: &str, value: &str) -> Option<Command> {
        Some(match name.to_ascii_lowercase().as_str() {
            "ciphersuites" => Command::Suites(value.to_owned()),
            "cipherstring" => Command::Ciphers(value.to_owned()),
            "groups" | "curves" => Command::Groups(value.to_owned()),
            "certificate" => Command::Certificate(value.to_owned()),
            "privatekey" => Command::Key(value.to_owned()),
            "minprotocol" => Command::Within(match value {
                "TLSv1.3" => Protocols { tls12: false, tls13: true },
                "None" | "SSLv3" | "TLSv1" | "TLSv1.1" | "TLSv1.2" => Protocols::ALL,
                _ => return None,
            }),
            "maxprotocol" => Command::Within(match value {
                "TLSv1.2" => Protocols { tls12: true, tls13: false },
                "TLSv1.3" | "None" => Protocols::ALL,
                _ => return None,
            }),
            "protocol" => protocols(value)?,
            "options" => options(value)?,
            _ => return None,
        })
    }

    /// Lets it replace what was said before.
    pub fn apply(self, algorithms: &mut Algorithms) {
        match self {
            Command::Suites(list) => algorithms.suites = Some(list),
            Command::Ciphers(list) => algorithms.ciphers = list,
            Command::Groups(list) => algorithms.groups = list,
            Command::Protocols(protocols) => algorithms.protocols = protocols,
            Command::Within(protocols) => {
                algorithms.protocols.tls12 &= protocols.tls12;
                algorithms.protocols.tls13 &= protocols.tls13;
            }
            Command::PrefersOwn
            | Command::NoTickets
            | Command::Nothing
            | Command::Certificate(_)
            | Command::Key(_) => {}
        }
    }
}

/// `ALL,-TLSv1.3`
fn protocols(value: &str) -> Option<Command> {
    let mut all = Protocols::default();
    for word in value.split(',').map(str::trim) {
        let (on, name) = match word.strip_prefix('-') {
            Some(name) => (false, name),
            None => (true, word.strip_prefix('+').unwrap_or(word)),
        };
        match (name, Protocols::of(name)) {
            ("ALL", _) => all = if on { Protocols::ALL } else { Protocols::default() },
            (_, Ok(one)) => {
                all.tls12 = if one.tls12 { on } else { all.tls12 };
                all.tls13 = if one.tls13 { on } else { all.tls13 };
            }
            // Older ones may be turned off.
            (_, Err(Some(_))) if !on => {}
            _ => return None,
        }
    }
    Some(Command::Protocols(all))
}

/// One of a few words of `Options`.
fn options(value: &str) -> Option<Command> {
    Some(match value {
        "ServerPreference" | "PrioritizeChaCha" => Command::PrefersOwn,
        "-SessionTicket" => Command::NoTickets,
        "SessionTicket" | "-ServerPreference" | "-PrioritizeChaCha" => Command::Nothing,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_openssl() {
        let tls = |tls12, tls13| Protocols { tls12, tls13 };
        let check = |name, value, expected| assert_eq!(Command::of(name, value), expected);
        check("ciphersuites", "a:b", Some(Command::Suites("a:b".into())));
        check("Groups", "X25519", Some(Command::Groups("X25519".into())));
        check("MinProtocol", "TLSv1.3", Some(Command::Within(tls(false, true))));
        check("MaxProtocol", "TLSv1.2", Some(Command::Within(tls(true, false))));
        check("Protocol", "-SSLv3,TLSv1.2", Some(Command::Protocols(tls(true, false))));
        check("Protocol", "ALL,-TLSv1.2", Some(Command::Protocols(tls(false, true))));
        check("Protocol", "TLSv1", None);
        check("Options", "PrioritizeChaCha", Some(Command::PrefersOwn));
        check("Options", "NoSuchOption", None);
        check("NoSuchCommand", "x", None);
    }
}
