//! From the `http` block of a checked configuration to what a worker serves from.
//!
//! Pure but for name lookups of `listen`: files are opened later, when the configuration is put
//! to use. Faults go to the scope's diagnostics; compiling goes on to find more of them.

use crate::directives::{self as d, LocationName, TempPath};
use crate::error_page::ErrorPage;
use crate::exchange::Exchange;
use crate::http::{Endpoint, Http, Served};
use crate::http2;
use crate::limit_except::LimitExcept;
use crate::listen::Listen;
use crate::location::{Location, LocationBuilder, Locations, Matching, Pattern};
use crate::module::Module;
use crate::moot;
use crate::settings::{Alias, HeadLimits, Settings, Types};
use crate::site::{Name, Site, Sites};
use crate::temp::TempFolder;
use crate::tls;
use config::{Scope, Span};
use session::lifecycle::Lifecycle;
use session::log::LogFiles;
use session::regex::Case;
use session::variables::{Template, Variables};
use session::zones::Zones;
use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use system::socket::{Address, ListenOptions};

/// What compiling needs besides the configuration itself.
pub struct Surroundings<'c> {
    /// The features, in the order in which they run.
    pub modules: &'c [&'static Module],
    /// Relative paths of files start here (`-p`).
    pub prefix: &'c Path,
    /// Log files, opened once however often they are named.
    pub logs: &'c LogFiles,
    /// Named zones of shared memory.
    pub zones: &'c Zones,
}

/// The state of compiling one `http` block; modules keep theirs in it too.
pub struct Compiler<'c> {
    /// The features, in the order in which they run.
    modules: &'c [&'static Module],
    /// Relative paths of files start here.
    pub prefix: &'c Path,
    /// Log files.
    pub logs: &'c LogFiles,
    /// Named zones of shared memory, mapped when the configuration is put to use.
    pub zones: &'c Zones,
    /// The table of variables, growing as templates name them.
    pub variables: Variables<Exchange>,
    states: Vec<Box<dyn Any>>,
    types: HashMap<Span, Rc<Types>>,
    default_types: Option<Rc<Types>>,
    temp_folders: Vec<Rc<TempFolder>>,
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

    /// `path`, below the prefix unless it is absolute.
    pub fn full_path(&self, path: &str) -> PathBuf {
        self.prefix.join(path)
    }

    /// A pattern whose named groups become variables.
    ///
    /// # Errors
    /// What PCRE2 says, or that a group's name is taken.
    pub fn pattern(&mut self, pattern: &str, case: Case) -> Result<Pattern, String> {
        Pattern::compile(pattern, case, &mut self.variables)
    }

    /// `root` or `alias` of a level, whichever stands nearer, as a template of an absolute path.
    pub(crate) fn root(&mut self, scope: &Scope<'_>) -> (Template, Option<Alias>) {
        let (mut source, alias) = nearest_root(scope);
        if alias.is_none()
            && let Some(config::Part::Text(text)) = source.parts.last_mut()
        {
            while text.len() > 1 && text.last() == Some(&b'/') {
                text.pop();
            }
        }
        let relative = match source.parts.first() {
            Some(config::Part::Text(text)) => !text.starts_with(b"/"),
            Some(_) => false,
            None => true,
        };
        if relative {
            let mut prefix = self.prefix.as_os_str().as_encoded_bytes().to_vec();
            if !prefix.ends_with(b"/") {
                prefix.push(b'/');
            }
            match source.parts.first_mut() {
                Some(config::Part::Text(text)) => {
                    prefix.append(text);
                    *text = prefix;
                }
                _ => source.parts.insert(0, config::Part::Text(prefix)),
            }
        }
        (self.template(&source), alias)
    }

    pub(crate) fn types(&mut self, scope: &Scope<'_>) -> Rc<Types> {
        let rows = scope.rows(&d::TYPES);
        let Some(span) = rows.first().map(|row| row.span) else {
            if scope.find(&d::TYPES).is_some() {
                // An empty block: no extension has a type.
                return Rc::default();
            }
            return self.default_types.get_or_insert_with(default_types).clone();
        };
        if let Some(types) = self.types.get(&span) {
            return types.clone();
        }
        let mut types = Types::default();
        for row in rows {
            for extension in &row.args {
                let key = extension.bytes().to_ascii_lowercase();
                types.by_extension.insert(key.into(), row.name.bytes().into());
            }
        }
        let types = Rc::new(types);
        self.types.insert(span, types.clone());
        types
    }

    /// Compiles the block of an `if` inside the location that `outer` builds: a location of its
    /// own, which nothing but the rewrites of `outer` chooses.
    pub fn anonymous_location(&mut self, scope: &Scope<'_>, outer: &Location) -> Location {
        compile_location(self, scope, outer.name.clone(), Matching::Unnamed)
    }

    /// Lets `lifecycle` follow the lives of the workers.
    pub fn follow(&mut self, lifecycle: Rc<dyn Lifecycle>) {
        self.lifecycles.push(lifecycle);
    }

    /// The folder for temporary files at `path`, shared by all that name it.
    pub fn temp_folder(&mut self, path: TempPath) -> Rc<TempFolder> {
        let full = self.full_path(&path.path);
        if let Some(folder) = self.temp_folders.iter().find(|folder| folder.path() == full) {
            return folder.clone();
        }
        let folder = Rc::new(TempFolder::new(full, &path));
        self.temp_folders.push(folder.clone());
        folder
    }
}

/// Both in one block: nginx names the later one.
fn refuse_both(scope: &Scope<'_>, root: Span, alias: Span) {
    let alias_is_later = (alias.file.0, alias.start) > (root.file.0, root.start);
    let (later, earlier, span) = match alias_is_later {
        true => ("alias", "root", alias),
        false => ("root", "alias", root),
    };
    let reason = format!(
        "\"{later}\" directive is duplicate, \"{earlier}\" directive was specified earlier"
    );
    scope.error(span, reason);
}

/// The nearest `root` or `alias`. An alias that comes from further out still stands for the name
/// of the location that holds it.
fn nearest_root(scope: &Scope<'_>) -> (config::Template, Option<Alias>) {
    let mut level = Some(scope.clone());
    while let Some(here) = level {
        if let Some((alias, alias_span)) = here.local_spanned(&d::ALIAS) {
            if let Some((_, root_span)) = here.local_spanned(&d::ROOT) {
                refuse_both(&here, root_span, alias_span);
            }
            let name = here.node().and_then(|node| d::LOCATION_BLOCK.read_node(node).ok());
            let alias_of = match name {
                Some(LocationName::Regex(..)) => Alias::Whole,
                Some(LocationName::Named(name)) => Alias::Prefix(name.len() + 1),
                Some(name) => Alias::Prefix(shown(&name).len()),
                None => Alias::Prefix(0),
            };
            return (alias, Some(alias_of));
        }
        if let Some(root) = here.local(&d::ROOT) {
            return (root, None);
        }
        level = here.parent();
    }
    (scope.get(&d::ROOT), None)
}

fn default_types() -> Rc<Types> {
    let mut types = Types::default();
    let rows: [(&[u8], &[u8]); 3] =
        [(b"html", b"text/html"), (b"gif", b"image/gif"), (b"jpg", b"image/jpeg")];
    for (extension, name) in rows {
        types.by_extension.insert(extension.into(), name.into());
    }
    Rc::new(types)
}

/// Compiles the `http` block of the main level; `None` when there is none. Faults are in the
/// scope's diagnostics: the caller uses the result only when there are none that refuse.
pub fn compile(main: &Scope<'_>, surroundings: Surroundings<'_>) -> Option<Http> {
    let (_, scope) = main.blocks(&d::HTTP_BLOCK).into_iter().next()?;
    let mut builtins = vec![crate::variables::BUILTINS];
    builtins.extend(surroundings.modules.iter().map(|module| module.variables));
    let mut c = Compiler {
        modules: surroundings.modules,
        prefix: surroundings.prefix,
        logs: surroundings.logs,
        zones: surroundings.zones,
        variables: Variables::new(&builtins),
        states: Vec::new(),
        types: HashMap::new(),
        default_types: None,
        temp_folders: Vec::new(),
        lifecycles: Vec::new(),
    };
    let error_log = session::log::compile(&scope, c.logs);
    moot::read_all(&scope);
    for module in c.modules {
        if let Some(http) = module.http {
            http(&mut c, &scope);
        }
    }
    let mut table = Addresses::default();
    let mut sites = Vec::new();
    for (_, server) in scope.blocks(&d::SERVER_BLOCK) {
        let site = compile_server(&mut c, &server, &mut table);
        sites.push(site);
    }
    table.check_certificates(&scope);
    for name in c.variables.unknown() {
        scope.error(None, format!("unknown \"{name}\" variable"));
    }
    Some(Http {
        listeners: table.endpoints(),
        sites,
        temp_folders: c.temp_folders,
        lifecycles: c.lifecycles,
        variables: Rc::new(c.variables),
        error_log,
    })
}

fn compile_server(c: &mut Compiler<'_>, scope: &Scope<'_>, table: &mut Addresses) -> Rc<Site> {
    let listens = match scope.nodes(&d::LISTEN) {
        listens if listens.is_empty() => vec![(default_listen(), scope.span())],
        listens => {
            let ports = |(listen, span): (Listen, Span)| {
                listen.each().into_iter().map(move |one| (one, span))
            };
            listens.into_iter().flat_map(ports).collect()
        }
    };
    let names = server_names(c, scope);
    let first = names.first().map_or(Box::default(), |(text, _, _)| shown_name(text));
    let root = compile_location(c, scope, Box::default(), Matching::Unnamed);
    let http2 = http2::Settings::compile(scope);
    warn_of_old_ways(scope, &listens);
    let speaks_http2 = http2.enabled || listens.iter().any(|(listen, _)| listen.http2);
    let tls = tls::compile(c, scope, alpn(speaks_http2));
    let head = HeadLimits::compile(scope);
    let site = Rc::new(Site { name: first, head, root: Rc::new(root), http2, tls });
    table.server(scope, &listens, &site);
    for (text, name, span) in names {
        let Some(name) = name else { continue };
        table.name(scope, &listens, &text, name, &site, span);
    }
    site
}

/// What `$server_name` shows of a name: no leading dot, and lower case unless it is a pattern.
fn shown_name(text: &str) -> Box<[u8]> {
    match text.starts_with('~') {
        true => text.as_bytes().into(),
        false => text.strip_prefix('.').unwrap_or(text).to_ascii_lowercase().into_bytes().into(),
    }
}

/// What a server speaks above TLS.
fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let names = ["h2", "http/1.1", "http/1.0", "http/0.9"];
    let names = &names[usize::from(!http2)..];
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// `listen ... http2`, which `http2 on` has replaced.
fn warn_of_old_ways(scope: &Scope<'_>, listens: &[(Listen, Span)]) {
    for (_, span) in listens.iter().filter(|(listen, _)| listen.http2) {
        let text = "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive \
                    instead";
        scope.warn(*span, text);
    }
}

fn default_listen() -> Listen {
    // nginx listens on port 8000 when it may not open port 80.
    let port = if system::process::is_superuser() { 80 } else { 8000 };
    Listen {
        address: Address::any_v4(port),
        last_port: port,
        text: format!("*:{port}"),
        options: ListenOptions::default(),
        has_options: false,
        default_server: false,
        proxy_protocol: false,
        http2: false,
        tls: false,
    }
}

type NamedText = (String, Option<NameSource>, Span);

/// A name that can be added to the sites of several addresses.
#[derive(Clone)]
enum NameSource {
    Exact(Box<[u8]>),
    Head(Box<[u8]>),
    Dotted(Box<[u8]>),
    Tail(Box<[u8]>),
    Regex(Rc<Pattern>),
}

fn server_names(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Vec<NamedText> {
    let mut names = Vec::new();
    let mut nodes = scope.nodes(&d::SERVER_NAME);
    if nodes.is_empty() {
        nodes.push((vec![String::new()], scope.span()));
    }
    for (words, span) in nodes {
        for text in words {
            match server_name(c, &text) {
                Ok(name) => names.push((text, Some(name), span)),
                Err(reason) => {
                    scope.error(span, reason);
                    names.push((text, None, span));
                }
            }
        }
    }
    names
}

fn server_name(c: &mut Compiler<'_>, text: &str) -> Result<NameSource, String> {
    if let Some(pattern) = text.strip_prefix('~') {
        if pattern.is_empty() {
            return Err(format!("empty regex in server name \"{text}\""));
        }
        // Hosts are in lower case: a pattern with capital letters would never match.
        let case = match pattern.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Case::Ignored,
            false => Case::Sensitive,
        };
        return Ok(NameSource::Regex(Rc::new(c.pattern(pattern, case)?)));
    }
    let lower = text.to_ascii_lowercase();
    let lower = match lower.as_str() {
        "$hostname" => system::host::name().to_ascii_lowercase(),
        _ => lower,
    };
    let invalid = || Err(format!("invalid server name or wildcard \"{text}\""));
    let name = lower.as_bytes();
    let whole = |part: &[u8]| {
        !part.is_empty() && !part.contains(&b'*') && !part.windows(2).any(|two| two == b"..")
    };
    if let Some(rest) = name.strip_prefix(b"*") {
        return match rest {
            [b'.', tail @ ..] if whole(tail) => Ok(NameSource::Head(rest.into())),
            _ => invalid(),
        };
    }
    if let Some(rest) = name.strip_prefix(b".") {
        return if whole(rest) { Ok(NameSource::Dotted(name.into())) } else { invalid() };
    }
    if let Some(rest) = name.strip_suffix(b"*") {
        return match rest {
            [head @ .., b'.'] if whole(head) => Ok(NameSource::Tail(rest.into())),
            _ => invalid(),
        };
    }
    if name.is_empty() || whole(name) { Ok(NameSource::Exact(name.into())) } else { invalid() }
}

/// Compiles one level: the server's own, or a location with all that is in it.
pub(crate) fn compile_location(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    name: Box<[u8]>,
    matching: Matching,
) -> Location {
    let settings = Settings::compile(c, scope);
    let error_pages = ErrorPage::compile(c, scope);
    let error_log = session::log::compile(scope, c.logs);
    let location = Location::new(name, matching, settings, error_pages, error_log);
    let mut builder = LocationBuilder { location, has_handler: false };
    for module in c.modules {
        if let Some(attach) = module.location {
            attach(c, scope, &mut builder);
        }
    }
    let by_name = matches!(
        builder.location.matching,
        Matching::Prefix | Matching::PrefixFinal | Matching::Exact
    );
    builder.location.auto_redirect =
        builder.has_handler && by_name && builder.location.name.ends_with(b"/");
    let mut inner = Locations::default();
    for (name, nested) in scope.blocks(&d::LOCATION_BLOCK) {
        if let Some(location) = nested_location(c, &builder.location, &nested, &name) {
            let shown = shown(&name);
            if !inner.add(location) {
                nested.error(nested.span(), format!("duplicate location \"{shown}\""));
            }
        }
    }
    inner.link();
    builder.location.inner = inner;
    builder.location.limit_except = LimitExcept::compile(c, scope, &builder.location);
    builder.finish()
}

fn shown(name: &LocationName) -> String {
    match name {
        LocationName::Prefix(n) | LocationName::PrefixFinal(n) | LocationName::Exact(n) => {
            n.clone()
        }
        LocationName::Regex(pattern, _) => pattern.clone(),
        LocationName::Named(n) => format!("@{n}"),
    }
}

fn nested_location(
    c: &mut Compiler<'_>,
    outer: &Location,
    scope: &Scope<'_>,
    name: &LocationName,
) -> Option<Location> {
    let refuse = |reason: String| {
        scope.error(scope.span(), reason);
        None
    };
    let outer_name = String::from_utf8_lossy(&outer.name).into_owned();
    let text = shown(name);
    match outer.matching {
        Matching::Exact => {
            return refuse(format!(
                "location \"{text}\" cannot be inside the exact location \"{outer_name}\""
            ));
        }
        Matching::Named => {
            return refuse(format!(
                "location \"{text}\" cannot be inside the named location \"@{outer_name}\""
            ));
        }
        _ => {}
    }
    let is_top = matches!(outer.matching, Matching::Unnamed);
    let prefixed = matches!(outer.matching, Matching::Prefix | Matching::PrefixFinal);
    let inside = |n: &str| !prefixed || n.as_bytes().starts_with(&outer.name);
    let (bytes, matching) = match name {
        LocationName::Prefix(n) | LocationName::PrefixFinal(n) | LocationName::Exact(n)
            if !inside(n) =>
        {
            return refuse(format!("location \"{text}\" is outside location \"{outer_name}\""));
        }
        LocationName::Prefix(n) => (n.clone(), Matching::Prefix),
        LocationName::PrefixFinal(n) => (n.clone(), Matching::PrefixFinal),
        LocationName::Exact(n) => (n.clone(), Matching::Exact),
        LocationName::Named(_) if !is_top => {
            return refuse(format!("named location \"{text}\" can be on the server level only"));
        }
        LocationName::Named(n) => (n.clone(), Matching::Named),
        LocationName::Regex(pattern, ignored) => {
            let case = if *ignored { Case::Ignored } else { Case::Sensitive };
            match c.pattern(pattern, case) {
                Ok(compiled) => (pattern.clone(), Matching::Regex(Box::new(compiled))),
                Err(reason) => return refuse(reason),
            }
        }
    };
    Some(compile_location(c, scope, bytes.into_bytes().into(), matching))
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
    http2: bool,
    http2_listen: bool,
    tls: bool,
    /// With the places of their blocks.
    servers: Vec<(Rc<Site>, Span)>,
    last_site: Option<Rc<Site>>,
    sites: Sites,
}

impl Addresses {
    fn server(&mut self, scope: &Scope<'_>, listens: &[(Listen, Span)], site: &Rc<Site>) {
        for (listen, span) in listens {
            let at = self.list.iter().position(|entry| entry.address == listen.address);
            let entry = match at {
                Some(at) => &mut self.list[at],
                None => {
                    self.list.push(Entry {
                        address: listen.address.clone(),
                        options: listen.options.clone(),
                        has_options: false,
                        has_default: false,
                        proxy_protocol: false,
                        http2: false,
                        http2_listen: false,
                        tls: false,
                        servers: Vec::new(),
                        last_site: None,
                        sites: Sites::default(),
                    });
                    // An entry was pushed just now.
                    self.list.last_mut().expect("just pushed")
                }
            };
            entry.listen(scope, listen, *span, site);
        }
    }

    fn name(
        &mut self,
        scope: &Scope<'_>,
        listens: &[(Listen, Span)],
        text: &str,
        name: NameSource,
        site: &Rc<Site>,
        _span: Span,
    ) {
        for (listen, _) in listens {
            let Some(entry) = self.list.iter_mut().find(|e| e.address == listen.address) else {
                continue;
            };
            let name = match name.clone() {
                NameSource::Exact(n) => Name::Exact(n),
                NameSource::Head(n) => Name::Head(n),
                NameSource::Dotted(n) => Name::Dotted(n),
                NameSource::Tail(n) => Name::Tail(n),
                NameSource::Regex(pattern) => Name::Regex(pattern),
            };
            if !entry.sites.add(name, site) {
                let address = &entry.address;
                scope.warn(
                    None,
                    format!("conflicting server name \"{text}\" on {address}, ignored"),
                );
            }
        }
    }

    /// Each address of TLS needs a certificate for those who name no server, unless they are
    /// refused; then each other server needs one.
    fn check_certificates(&self, scope: &Scope<'_>) {
        for entry in self.list.iter().filter(|entry| entry.tls) {
            let Some(default) = entry.sites.default_site() else { continue };
            if default.tls.has_certificates {
                continue;
            }
            let is_default = |site: &Rc<Site>| Rc::ptr_eq(site, default);
            let lacks = |(site, _): &&(Rc<Site>, Span)| match default.tls.rejects {
                true => !site.tls.has_certificates && !site.tls.rejects,
                false => is_default(site),
            };
            if let Some((_, span)) = entry.servers.iter().find(lacks) {
                let reason =
                    "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
                scope.error(*span, reason);
            }
        }
    }

    /// The sockets to open: an address without options of its own shares the socket of the
    /// wildcard address of its port, where there is one.
    fn endpoints(self) -> Vec<Rc<Endpoint>> {
        let wildcards: Vec<Address> =
            self.list.iter().map(|e| e.address.clone()).filter(Address::is_wildcard).collect();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut sharing = Vec::new();
        for entry in self.list {
            let wildcard = wildcards.iter().find(|w| covers(w, &entry.address)).cloned();
            let served = Rc::new(Served {
                sites: entry.sites,
                address: entry.address.clone(),
                proxy_protocol: entry.proxy_protocol,
                http2: entry.http2,
                http2_listen: entry.http2_listen,
                tls: entry.tls,
            });
            match wildcard {
                Some(wildcard) if !entry.options.bind => sharing.push((wildcard, served)),
                _ => endpoints.push(Endpoint {
                    address: entry.address.clone(),
                    options: entry.options,
                    served: vec![(entry.address, served)],
                }),
            }
        }
        for (wildcard, served) in sharing {
            if let Some(endpoint) = endpoints.iter_mut().find(|e| e.address == wildcard) {
                endpoint.served.insert(0, (served.address.clone(), served));
            }
        }
        endpoints.into_iter().map(Rc::new).collect()
    }
}

/// True when a socket bound to `wildcard` also gets connections for `address`.
fn covers(wildcard: &Address, address: &Address) -> bool {
    let (Address::Inet(w), Address::Inet(a)) = (wildcard, address) else { return false };
    w != a && w.port() == a.port() && w.is_ipv4() == a.is_ipv4()
}

impl Entry {
    fn listen(&mut self, scope: &Scope<'_>, listen: &Listen, span: Span, site: &Rc<Site>) {
        let address = &self.address;
        if self.last_site.as_ref().is_some_and(|last| Rc::ptr_eq(last, site)) {
            scope.error(span, format!("a duplicate listen {}", listen.text));
            return;
        }
        self.last_site = Some(site.clone());
        self.servers.push((site.clone(), scope.span()));
        self.proxy_protocol |= listen.proxy_protocol;
        self.http2_listen |= listen.http2;
        self.http2 |= listen.http2 || site.http2.enabled;
        self.tls |= listen.tls;
        if listen.has_options {
            if self.has_options {
                scope.error(span, format!("duplicate listen options for {address}"));
                return;
            }
            self.options = listen.options.clone();
            self.has_options = true;
        }
        if listen.default_server {
            if self.has_default {
                scope.error(span, format!("a duplicate default server for {address}"));
                return;
            }
            self.has_default = true;
            self.sites.set_default(site.clone());
        } else if self.sites.default_site().is_none() {
            self.sites.set_default(site.clone());
        }
    }
}
