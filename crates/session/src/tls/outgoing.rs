//! TLS towards servers that requests and sessions are passed on to (`proxy_ssl_...` and its kin,
//! see [`super::towards`]), for every engine.
//!
//! A handshake proves only that the server has the key of what it shows. Where
//! `proxy_ssl_verify` asks for more, it is checked before the first byte is sent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use config::{Scope, Span};
use net::Stream;
use net::tls::{
    Algorithms, CertifiedKey, Client, ClientConfig, Failure, Fault, Trust, is_for_host,
};

use super::{Command, Dynamic, Towards};
use crate::variables::{Subject, Template};

/// The cheapest group first: its share is sent at once, the others at the server's wish.
const GROUPS: &str = "X25519:prime256v1:secp384r1:X25519MLKEM768";

/// Configurations that are kept for names and peers; more are made anew each time.
const MOST: usize = 1024;

/// How connections to servers are secured.
pub struct Outgoing {
    client: Client,
    name: Option<Template>,
    /// Protocols that are offered in place of the client's own, worked out per conversation.
    alpn: Vec<Template>,
    dynamic: Option<Dynamic>,
    verifies: bool,
    trust: Rc<Trust>,
    /// One for each peer and name, so that sessions go back to where they come from.
    configs: RefCell<HashMap<PeerAndName, Arc<ClientConfig>>>,
}

type PeerAndName = (Box<str>, Box<str>);

/// Why a connection is not secure.
#[derive(Debug)]
pub enum Insecure {
    /// The handshake failed.
    Handshake(Failure),
    /// The server's certificate does not come from an authority that is trusted.
    Untrusted(Fault),
    /// It showed none.
    NoCertificate,
    /// Its certificate is for another name.
    WrongName(String),
    /// Ours could not be loaded.
    Ours(String),
}

impl fmt::Display for Insecure {
    /// nginx's words.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Insecure::Handshake(failure) => failure.fmt(out),
            Insecure::Untrusted(Fault { number, text }) => {
                write!(out, "upstream SSL certificate verify error: ({number}:{text})")
            }
            Insecure::NoCertificate => out.write_str("upstream sent no SSL certificate"),
            Insecure::WrongName(name) => {
                write!(out, "upstream SSL certificate does not match \"{name}\"")
            }
            Insecure::Ours(reason) => out.write_str(reason),
        }
    }
}

impl Outgoing {
    /// Compiles what `towards` says at a level. Faults go to the scope.
    pub fn compile(
        scope: &Scope<'_>,
        towards: &Towards,
        alpn: Vec<Vec<u8>>,
        template: &mut dyn FnMut(&config::Template) -> Template,
    ) -> Option<Outgoing> {
        match Outgoing::try_compile(scope, towards, alpn, template) {
            Ok(outgoing) => Some(outgoing),
            Err((reason, span)) => {
                scope.error(span, reason);
                None
            }
        }
    }

    fn try_compile(
        scope: &Scope<'_>,
        towards: &Towards,
        alpn: Vec<Vec<u8>>,
        template: &mut dyn FnMut(&config::Template) -> Template,
    ) -> Result<Outgoing, super::Fault> {
        let prefix = scope.tree().conf_prefix.clone();
        let nowhere = |reason: String| (reason, None);
        let commands: Vec<Command> = scope
            .all(towards.conf_command)
            .iter()
            .filter_map(|(name, value)| Command::of(name, value))
            .collect();
        let mut algorithms = Algorithms {
            protocols: scope.get(towards.protocols),
            ciphers: scope.get(towards.ciphers),
            suites: None,
            groups: GROUPS.to_owned(),
        };
        commands.iter().for_each(|command| command.clone().apply(&mut algorithms));
        let (certificate, dynamic) = certificate(scope, towards, &prefix, &commands, template)?;
        let verifies = scope.get(towards.verify);
        let depth = usize::try_from(scope.get(towards.verify_depth)).unwrap_or(usize::MAX);
        let mut trust = Trust { depth, ..Trust::default() };
        let trusted = scope.find(towards.trusted_certificate);
        let revoked = scope.find(towards.crl);
        if verifies {
            let Some(file) = trusted.filter(|file| !file.is_empty()) else {
                let name = towards.family;
                let reason = format!("no {name}_ssl_trusted_certificate for {name}_ssl_verify");
                return Err(nowhere(reason));
            };
            trust.authorities = net::tls::authorities(&file, &prefix).map_err(nowhere)?;
            if let Some(file) = revoked.filter(|file| !file.is_empty()) {
                trust.revocations = net::tls::revocations(&file, &prefix).map_err(nowhere)?;
            }
        }
        let key_log = match scope.find_spanned(towards.key_log) {
            None => None,
            Some((file, span)) => {
                let log = net::tls::key_log(&prefix.join(file));
                Some(log.map_err(|reason| (reason, Some(span)))?)
            }
        };
        let client = Client {
            algorithms,
            certificate,
            names_server: scope.get(towards.server_name),
            resumes: scope.get(towards.session_reuse),
            alpn,
            key_log,
        };
        // What cannot be made now could not be made later either.
        client.compile().map_err(nowhere)?;
        Ok(Outgoing {
            client,
            name: scope.find(towards.name).map(|source| template(&source)),
            alpn: Vec::new(),
            dynamic,
            verifies,
            trust: Rc::new(trust),
            configs: RefCell::default(),
        })
    }

    /// Offers protocols above TLS that are known per conversation; empty ones are left out.
    #[must_use]
    pub fn offering(self, protocols: Vec<Template>) -> Outgoing {
        Outgoing { alpn: protocols, ..self }
    }

    /// Whether connections of different conversations are of different kinds.
    pub fn varies(&self) -> bool {
        self.dynamic.is_some()
            || self.name.as_ref().is_some_and(|name| name.as_constant().is_none())
    }

    /// What tells connections of this conversation from those of others: name and certificate.
    pub fn identity<X: Subject>(&self, x: &mut X) -> String {
        let mut identity = String::new();
        if let Some(name) = &self.name {
            let value = name.value(x);
            identity.push_str(&String::from_utf8_lossy(x.arena().text(value)));
        }
        if let Some(dynamic) = &self.dynamic {
            identity.push('\n');
            identity.push_str(&dynamic.names(x));
        }
        identity
    }

    /// Shakes hands with the peer `peer` over a fresh connection. `host` is the host in
    /// `proxy_pass`, with or without a port.
    ///
    /// # Errors
    /// Why the connection must not be used.
    pub async fn secure<X: Subject>(
        &self,
        x: &mut X,
        stream: &Stream,
        host: &str,
        peer: &str,
    ) -> Result<(), Insecure> {
        let name = match &self.name {
            None => host.to_owned(),
            Some(name) => {
                let value = name.value(x);
                String::from_utf8_lossy(x.arena().text(value)).into_owned()
            }
        };
        let name = without_port(&name);
        let config = self.config(x, name, peer)?;
        let shaken = net::tls::connect(stream, config, net::tls::server_name(name)).await;
        shaken.map_err(Insecure::Handshake)?;
        self.verify(stream, name)
    }

    /// As [`Outgoing::secure`], outside of a conversation: for one that does not vary.
    ///
    /// # Errors
    /// Why the connection must not be used.
    pub async fn secure_alone(
        &self,
        stream: &Stream,
        host: &str,
        peer: &str,
    ) -> Result<(), Insecure> {
        let own = self.name.as_ref().and_then(Template::as_constant);
        let name = own.map_or_else(|| host.into(), String::from_utf8_lossy);
        let name = without_port(&name);
        let key = (Box::from(peer), Box::from(name));
        let config = self.kept_config(key, || self.client.clone())?;
        let shaken = net::tls::connect(stream, config, net::tls::server_name(name)).await;
        shaken.map_err(Insecure::Handshake)?;
        self.verify(stream, name)
    }

    fn verify(&self, stream: &Stream, name: &str) -> Result<(), Insecure> {
        if !self.verifies {
            return Ok(());
        }
        let Some(session) = stream.tls() else { return Err(Insecure::NoCertificate) };
        match session.verdict(&self.trust, net::wall().0 as i64) {
            None => return Err(Insecure::NoCertificate),
            Some(Err(fault)) => return Err(Insecure::Untrusted(fault)),
            Some(Ok(())) => {}
        }
        match session.certificate() {
            Some(certificate) if is_for_host(&certificate, name) => Ok(()),
            _ => Err(Insecure::WrongName(name.to_owned())),
        }
    }

    fn config<X: Subject>(
        &self,
        x: &mut X,
        name: &str,
        peer: &str,
    ) -> Result<Arc<ClientConfig>, Insecure> {
        let offered = self.offered(x);
        let client = || match offered.is_empty() {
            true => self.client.clone(),
            false => Client { alpn: offered.clone(), ..self.client.clone() },
        };
        if let Some(dynamic) = &self.dynamic {
            let certificates = dynamic.load(x).map_err(Insecure::Ours)?;
            let certificate = certificates.into_iter().next();
            return Client { certificate, ..client() }.compile().map_err(Insecure::Ours);
        }
        let key = match offered.is_empty() {
            true => (Box::from(peer), Box::from(name)),
            false => (Box::from(peer), format!("{name}\n{offered:?}").into()),
        };
        self.kept_config(key, client)
    }

    /// The configuration that is kept for a peer and a name.
    fn kept_config(
        &self,
        key: PeerAndName,
        client: impl FnOnce() -> Client,
    ) -> Result<Arc<ClientConfig>, Insecure> {
        let mut configs = self.configs.borrow_mut();
        if let Some(config) = configs.get(&key) {
            return Ok(config.clone());
        }
        let config = client().compile().map_err(Insecure::Ours)?;
        if configs.len() < MOST {
            configs.insert(key, config.clone());
        }
        Ok(config)
    }
}

impl Outgoing {
    /// The protocols that are offered in this conversation.
    fn offered<X: Subject>(&self, x: &mut X) -> Vec<Vec<u8>> {
        let mut offered = Vec::new();
        for protocol in &self.alpn {
            let value = protocol.value(x);
            let value = x.arena().text(value);
            if (1..=255).contains(&value.len()) {
                offered.push(value.to_vec());
            }
        }
        offered
    }
}

/// A certificate to show: known now, or per connection only.
type Shown = (Option<Arc<CertifiedKey>>, Option<Dynamic>);

fn certificate(
    scope: &Scope<'_>,
    towards: &Towards,
    prefix: &Path,
    commands: &[Command],
    template: &mut dyn FnMut(&config::Template) -> Template,
) -> Result<Shown, super::Fault> {
    let nowhere = |reason: String| (reason, None::<Span>);
    let passwords = match scope.find_spanned(towards.password_file) {
        None => Vec::new(),
        Some((file, span)) => {
            let read = net::tls::passwords(&prefix.join(file));
            read.map_err(|reason| (reason, Some(span)))?
        }
    };
    let given = scope.find(towards.certificate);
    let key = scope.find(towards.certificate_key);
    let cache = scope.get(towards.certificate_cache);
    let by_command = |pick: fn(&Command) -> Option<&String>| commands.iter().rev().find_map(pick);
    let replaced = by_command(|command| match command {
        Command::Certificate(file) => Some(file),
        _ => None,
    });
    if let Some(certificate) = replaced {
        let key = by_command(|command| match command {
            Command::Key(file) => Some(file),
            _ => None,
        });
        let key = key.unwrap_or(certificate);
        let loaded = net::tls::certified(certificate, key, &passwords, prefix);
        return Ok((Some(loaded.map_err(nowhere)?), None));
    }
    let Some(certificate) = given.filter(|given| given.constant() != Some(b"")) else {
        return Ok((None, None));
    };
    let Some(key) = key else {
        let shown = super::shown(&certificate);
        let key = format!("{}_ssl_certificate_key", towards.family);
        let reason = format!("no \"{key}\" is defined for certificate \"{shown}\"");
        return Err(nowhere(reason));
    };
    if certificate.is_constant() && key.is_constant() {
        let (certificate, key) = (super::text(&certificate), super::text(&key));
        let loaded = net::tls::certified(&certificate, &key, &passwords, prefix);
        return Ok((Some(loaded.map_err(nowhere)?), None));
    }
    let pair = (template(&certificate), template(&key));
    Ok((None, Some(Dynamic::new(vec![pair], passwords, prefix.to_owned(), cache))))
}

/// `host:port` without the port.
fn without_port(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => name.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_part_of_names() {
        let check = |name, expected| assert_eq!(without_port(name), expected);
        check("a.example", "a.example");
        check("a.example:8443", "a.example");
        check("[::1]:8443", "::1");
        check("[::1]", "::1");
        check("127.0.0.1:1", "127.0.0.1");
        check("", "");
    }
}
