//! From the `stream` block of a checked configuration to what a worker serves from.
//!
//! Pure but for name lookups of `listen`. Faults go to the scope's diagnostics; compiling goes on
//! to find more of them.

use std::any::Any;
use std::rc::Rc;

use config::{Scope, Span};
use session::contexts::STREAM;
use session::lifecycle::Lifecycle;
use session::log::LogFiles;
use session::names::Refused;
use session::pattern::Pattern;
use session::regex::Case;
use session::variables::{Template, Variables};
use session::zones::Zones;
use system::socket::{Address, ListenOptions};

use crate::directives as d;
use crate::listen::Listen;
use crate::module::Module;
use crate::served::{Endpoint, Served, Stream};
use crate::server::{Name, Server, ServerBuilder, Servers, Settings};
use crate::session::Session;
use crate::ssl;

/// What compiling needs besides the configuration itself.
pub struct Surroundings<'c> {
    /// The features, in the order in which they run.
    pub modules: &'c [&'static Module],
    /// Log files, opened once however often they are named.
    pub logs: &'c LogFiles,
    /// Named zones of shared memory.
    pub zones: &'c Zones,
}

/// The state of compiling one `stream` block; modules keep theirs in it too.
pub struct Compiler<'c> {
    modules: &'c [&'static Module],
    /// Log files.
    pub logs: &'c LogFiles,
    /// Named zones of shared memory.
    pub zones: &'c Zones,
    /// The table of variables, growing as templates name them.
    pub variables: Variables<Session>,
    states: Vec<Box<dyn Any>>,
    lifecycles: Vec<Rc<dyn Lifecycle>>,
}

impl Compiler<'_> {
    /// Compiles a template of the configuration.
    pub fn template(&mut self, source: &config::Template) -> Template {
        Template::compile(source, &mut self.variables)
    }

    /// A module's own state of type `T`, made when missing.
    pub fn state<T: Default + 'static>(&mut self) -> &mut T {
        let at = match self.states.iter().position(|state| state.is::<T>()) {
            Some(at) => at,
            None => {
                self.states.push(Box::new(T::default()));
                self.states.len() - 1
            }
        };
        // The position was found by type, or the state was just pushed with it.
        self.states[at].downcast_mut().expect("state of this type")
    }

    /// Lets `lifecycle` follow the lives of the workers.
    pub fn follow(&mut self, lifecycle: Rc<dyn Lifecycle>) {
        self.lifecycles.push(lifecycle);
    }
}

/// Compiles the `stream` block of the main level; `None` when there is none. Faults are in the
/// scope's diagnostics: the caller uses the result only when there are none that refuse.
pub fn compile(main: &Scope<'_>, surroundings: Surroundings<'_>) -> Option<Stream> {
    let (_, scope) = main.blocks(&d::STREAM_BLOCK).into_iter().next()?;
    let mut builtins = vec![crate::variables::BUILTINS];
    builtins.extend(surroundings.modules.iter().map(|module| module.variables));
    let mut c = Compiler {
        modules: surroundings.modules,
        logs: surroundings.logs,
        zones: surroundings.zones,
        variables: Variables::new(&builtins),
        states: Vec::new(),
        lifecycles: Vec::new(),
    };
    let error_log = session::log::compile(&scope, c.logs);
    read_moot(&scope);
    for module in c.modules {
        if let Some(stream) = module.stream {
            stream(&mut c, &scope);
        }
    }
    let mut addresses = Addresses::default();
    for (_, server) in scope.blocks(&d::SERVER_BLOCK) {
        compile_server(&mut c, &server, &mut addresses);
    }
    addresses.check_certificates(&scope);
    for name in c.variables.unknown() {
        scope.error(None, format!("unknown \"{name}\" variable"));
    }
    Some(Stream {
        listeners: addresses.endpoints(),
        lifecycles: c.lifecycles,
        variables: Rc::new(c.variables),
        error_log,
    })
}

/// Directives that change nothing here are read all the same, so that the test which looks for
/// directives that nobody reads stays sharp.
fn read_moot(scope: &Scope<'_>) {
    debug_assert!(scope.context() == STREAM);
    for directive in [
        &d::SERVER_NAMES_HASH_MAX_SIZE,
        &d::SERVER_NAMES_HASH_BUCKET_SIZE,
        &d::VARIABLES_HASH_MAX_SIZE,
        &d::VARIABLES_HASH_BUCKET_SIZE,
    ] {
        scope.get(directive);
    }
}

fn compile_server(c: &mut Compiler<'_>, scope: &Scope<'_>, addresses: &mut Addresses) {
    let listens = scope.nodes(&d::LISTEN);
    if !scope.has_local(&d::LISTEN) {
        let place = scope.tree().place(scope.span());
        scope.error(None, format!("no \"listen\" is defined for server in {place}"));
    }
    let names = server_names(c, scope);
    let first = names.first().map_or(Box::default(), |(text, _)| shown_name(text));
    let settings = Settings {
        preread_buffer: scope.get(&d::PREREAD_BUFFER_SIZE).clamp(1, 1 << 24) as usize,
        preread_timeout_ms: scope.get(&d::PREREAD_TIMEOUT),
        proxy_protocol_timeout_ms: scope.get(&d::PROXY_PROTOCOL_TIMEOUT),
        tcp_nodelay: scope.get(&d::TCP_NODELAY),
    };
    let ssl = ssl::Settings::compile(c, scope);
    let server = Server {
        name: first,
        settings,
        ssl,
        error_log: session::log::compile(scope, c.logs),
        checks: Vec::new(),
        prereads: Vec::new(),
        content: None,
        loggers: Vec::new(),
    };
    let mut builder = ServerBuilder { server };
    for module in c.modules {
        if let Some(attach) = module.server {
            attach(c, scope, &mut builder);
        }
    }
    let server = builder.finish();
    for (listen, span) in &listens {
        for address in listen.addresses() {
            addresses.server(scope, listen, address, *span, &server, &names);
        }
    }
}

/// What `$server_name` shows of a name: no leading dot, and lower case unless it is a pattern.
fn shown_name(text: &str) -> Box<[u8]> {
    match text.starts_with('~') {
        true => text.as_bytes().into(),
        false => text.strip_prefix('.').unwrap_or(text).to_ascii_lowercase().into_bytes().into(),
    }
}

fn server_names(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Vec<(String, Name)> {
    let mut names = Vec::new();
    for (words, span) in scope.nodes(&d::SERVER_NAME) {
        for text in words {
            match server_name(c, &text) {
                Ok(name) => names.push((text, name)),
                Err(reason) => scope.error(span, reason),
            }
        }
    }
    names
}

fn server_name(c: &mut Compiler<'_>, text: &str) -> Result<Name, String> {
    let Some(pattern) = text.strip_prefix('~') else {
        let lower = text.to_ascii_lowercase();
        let name = match lower.as_str() {
            "$hostname" => system::host::name().to_ascii_lowercase(),
            _ => lower,
        };
        let bad_start = name.starts_with('*') && (name.len() < 3 || !name.starts_with("*."));
        if bad_start || name == "." {
            return Err(format!("server name \"{text}\" is invalid"));
        }
        return Ok(Name::Text(name.into_bytes().into()));
    };
    if pattern.is_empty() {
        return Err(format!("empty regex in server name \"{text}\""));
    }
    // Names are looked for in lower case: a pattern with capital letters would never match.
    let case = match pattern.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Case::Ignored,
        false => Case::Sensitive,
    };
    Ok(Name::Regex(Rc::new(Pattern::compile(pattern, case, &mut c.variables)?)))
}

/// The `listen` addresses of all servers while they are collected.
#[derive(Default)]
struct Addresses {
    list: Vec<Entry>,
}

struct Entry {
    address: Address,
    options: ListenOptions,
    has_options: bool,
    has_default: bool,
    proxy_protocol: bool,
    /// Where an `ssl` stands, and in which server.
    ssl: Option<String>,
    last_server: Rc<Server>,
    servers: Servers,
}

impl Addresses {
    /// Enters a server at one of its addresses.
    fn server(
        &mut self,
        scope: &Scope<'_>,
        listen: &Listen,
        address: Address,
        span: Span,
        server: &Rc<Server>,
        names: &[(String, Name)],
    ) {
        let transport = listen.options.transport;
        let same =
            |entry: &&mut Entry| entry.address == address && entry.options.transport == transport;
        let entry = match self.list.iter_mut().find(same) {
            Some(entry) => {
                if !entry.join(scope, listen, span, server) {
                    return;
                }
                entry
            }
            None => {
                self.list.push(Entry {
                    address,
                    options: listen.options.clone(),
                    has_options: listen.has_options,
                    has_default: listen.default_server,
                    proxy_protocol: listen.proxy_protocol,
                    ssl: listen.ssl.then(|| scope.tree().place(scope.span())),
                    last_server: server.clone(),
                    servers: Servers::new(server.clone()),
                });
                // An entry was pushed just now.
                self.list.last_mut().expect("just pushed")
            }
        };
        let shown = entry.address.to_string();
        for (text, name) in names {
            match entry.servers.add(name.clone(), server) {
                Ok(()) => {}
                Err(Refused::Invalid) => {
                    scope.error(span, format!("invalid server name or wildcard \"{text}\""));
                }
                Err(Refused::Conflict) => {
                    let what = format!("conflicting server name \"{text}\" on {shown}, ignored");
                    scope.warn(None, what);
                }
            }
        }
    }

    /// Whoever speaks TLS needs a certificate.
    fn check_certificates(&self, scope: &Scope<'_>) {
        for entry in &self.list {
            let Some(place) = &entry.ssl else { continue };
            let tls = &entry.servers.default_server();
            if !tls.ssl.tls.has_certificates && !tls.ssl.tls.rejects {
                let what = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
                scope.error(None, format!("{what} in {place}"));
            }
        }
    }

    /// The sockets to open: an address without options of its own shares the socket of the
    /// wildcard address of its port, where there is one.
    fn endpoints(self) -> Vec<Rc<Endpoint>> {
        let is_wildcard = |entry: &&Entry| entry.address.is_wildcard();
        let key = |entry: &Entry| (entry.address.clone(), entry.options.transport);
        let wildcards: Vec<_> = self.list.iter().filter(is_wildcard).map(key).collect();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut sharing = Vec::new();
        for entry in self.list {
            let Entry { address, options, proxy_protocol, ssl, servers, .. } = entry;
            let served = Rc::new(Served { servers, proxy_protocol, ssl: ssl.is_some() });
            let wildcard = wildcards.iter().find(|(wildcard, transport)| {
                *transport == options.transport && covers(wildcard, &address)
            });
            match wildcard {
                Some(wildcard) if !options.bind => {
                    sharing.push((wildcard.clone(), address, served));
                }
                _ => {
                    let served = vec![(address.clone(), served)];
                    endpoints.push(Endpoint { address, options, served });
                }
            }
        }
        for ((wildcard, transport), address, served) in sharing {
            let same = |endpoint: &&mut Endpoint| {
                endpoint.address == wildcard && endpoint.options.transport == transport
            };
            if let Some(endpoint) = endpoints.iter_mut().find(same) {
                endpoint.served.insert(0, (address, served));
            }
        }
        endpoints.into_iter().map(Rc::new).collect()
    }
}

/// True when a socket bound to `wildcard` also gets what is for `address`.
fn covers(wildcard: &Address, address: &Address) -> bool {
    let (Address::Inet(w), Address::Inet(a)) = (wildcard, address) else { return false };
    w != a && w.port() == a.port() && w.is_ipv4() == a.is_ipv4()
}

impl Entry {
    /// One more server of the address; false when it may not be.
    fn join(
        &mut self,
        scope: &Scope<'_>,
        listen: &Listen,
        span: Span,
        server: &Rc<Server>,
    ) -> bool {
        let address = &self.address;
        if Rc::ptr_eq(&self.last_server, server) {
            scope.error(span, format!("a duplicate listen {}", listen.text));
            return false;
        }
        self.last_server = server.clone();
        self.proxy_protocol |= listen.proxy_protocol;
        if listen.ssl {
            self.ssl.get_or_insert_with(|| scope.tree().place(scope.span()));
        }
        if listen.has_options {
            if self.has_options {
                scope.error(span, format!("duplicate listen options for {address}"));
                return false;
            }
            self.options = listen.options.clone();
            self.has_options = true;
        }
        if listen.default_server {
            if self.has_default {
                scope.error(span, format!("a duplicate default server for {address}"));
                return false;
            }
            self.has_default = true;
            self.servers.set_default(server.clone());
        }
        true
    }
}
