//! What the configuration says about passing sessions on.

use config::Scope;
use session::log::{Bytes, Level};
use session::tls::{Outgoing, towards};
use session::variables::Template;
use system::socket::Keepalive;
use upstream::{Connecting, bind};

use super::directives::{self as d, Header};
use crate::compile::Compiler;
use crate::session::Session;

/// The settings of one server.
pub(super) struct Settings {
    pub(super) timeout_ms: u64,
    pub(super) buffer: usize,
    pub(super) header: Header,
    pub(super) half_close: bool,
    /// Packets of a client after which it gets a new session; 0 is no limit.
    pub(super) requests: u64,
    /// Packets that answer each of these; any number when nothing is said.
    pub(super) responses: Option<u64>,
    pub(super) next: bool,
    pub(super) next_tries: u32,
    pub(super) next_timeout_ms: u64,
    /// How connections are secured, where they are.
    pub(super) ssl: Option<Outgoing>,
    /// Small writes go out at once, on both sides.
    pub(super) nodelay: bool,
    connecting: Connecting,
    /// `proxy_bind` with variables.
    bind: Option<Template>,
    upload_rate: Template,
    download_rate: Template,
}

impl Settings {
    pub(super) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>, nodelay: bool) -> Settings {
        let mut connecting = Connecting {
            timeout_ms: scope.get(&d::PROXY_CONNECT_TIMEOUT),
            ..Connecting::default()
        };
        let options = &mut connecting.options;
        // Above TLS several small records may follow each other from the beginning. Otherwise
        // the tunnel sets it when it matters.
        options.nodelay = nodelay && scope.get(&d::PROXY_SSL);
        if scope.get(&d::PROXY_SOCKET_KEEPALIVE) {
            options.keepalive = Keepalive::On { idle_s: None, interval_s: None, count: None };
        }
        let size = |bytes: u64| u32::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        options.receive_buffer = size(scope.get(&d::PROXY_SOCKET_RCVBUF));
        options.send_buffer = size(scope.get(&d::PROXY_SOCKET_SNDBUF));
        let bind = scope.find(&bind::PROXY_BIND).flatten().and_then(|bind| {
            options.transparent = bind.transparent;
            if let Some(text) = bind.address.constant() {
                options.local = bind::local_address(&String::from_utf8_lossy(text));
                return None;
            }
            Some(c.template(&bind.address))
        });
        let old = [&d::PROXY_DOWNSTREAM_BUFFER, &d::PROXY_UPSTREAM_BUFFER];
        let old = old.into_iter().filter_map(|old| scope.find(old)).next_back();
        let buffer = old.unwrap_or_else(|| scope.get(&d::PROXY_BUFFER_SIZE));
        let tries = scope.get(&d::PROXY_NEXT_UPSTREAM_TRIES);
        Settings {
            timeout_ms: scope.get(&d::PROXY_TIMEOUT),
            buffer: buffer.clamp(1, 1 << 24) as usize,
            header: scope.get(&d::PROXY_PROTOCOL),
            half_close: scope.get(&d::PROXY_HALF_CLOSE),
            requests: scope.get(&d::PROXY_REQUESTS),
            responses: scope.find(&d::PROXY_RESPONSES).flatten(),
            next: scope.get(&d::PROXY_NEXT_UPSTREAM),
            next_tries: u32::try_from(tries).unwrap_or(u32::MAX),
            next_timeout_ms: scope.get(&d::PROXY_NEXT_UPSTREAM_TIMEOUT),
            ssl: ssl(c, scope),
            nodelay,
            connecting,
            bind,
            upload_rate: c.template(&scope.get(&d::PROXY_UPLOAD_RATE)),
            download_rate: c.template(&scope.get(&d::PROXY_DOWNLOAD_RATE)),
        }
    }

    /// How to connect for this session.
    pub(super) fn connecting(&self, s: &mut Session) -> Connecting {
        let mut connecting = self.connecting.clone();
        let Some(bind) = &self.bind else { return connecting };
        let value = bind.value(s);
        let text = String::from_utf8_lossy(s.text(value)).into_owned();
        connecting.options.local = bind::local_address(&text);
        if connecting.options.local.is_none() && !text.is_empty() {
            s.log_error(Level::Error, format_args!("invalid local address \"{text}\""));
        }
        connecting
    }

    /// Bytes per second that are read from the client and from the backend; 0 is no limit.
    pub(super) fn rates(&self, s: &mut Session) -> (u64, u64) {
        (rate(&self.upload_rate, s), rate(&self.download_rate, s))
    }
}

pub(super) fn ssl(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Option<Outgoing> {
    let protocols = scope.find(&d::PROXY_SSL_ALPN).unwrap_or_default();
    if !scope.get(&d::PROXY_SSL) {
        return None;
    }
    let outgoing =
        Outgoing::compile(scope, &towards::PROXY, Vec::new(), &mut |source| c.template(source))?;
    Some(outgoing.offering(protocols.iter().map(|source| c.template(source)).collect()))
}

fn rate(template: &Template, s: &mut Session) -> u64 {
    if let Some(text) = template.as_constant() {
        return config::read::parse_size(text).unwrap_or(0);
    }
    let value = template.value(s);
    let text = s.text(value);
    if text.is_empty() {
        return 0;
    }
    config::read::parse_size(text).unwrap_or_else(|| {
        let text = Bytes(text);
        s.log_error(Level::Error, format_args!("invalid size \"{text}\""));
        0
    })
}
