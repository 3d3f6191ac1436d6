//! From `upstream` blocks to groups, and the groups that URLs imply.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use balance::{Method, Tier};
use config::{Scope, Span};
use session::contexts::{STREAM, STREAM_UPSTREAM};
use session::log::LogFiles;
use session::variables::Template;
use session::zones::Zones;
use system::socket::Address;

use crate::directives::{
    BLOCK, KEEPALIVE, KEEPALIVE_REQUESTS, KEEPALIVE_TIME, KEEPALIVE_TIMEOUT, SERVER,
    START_UNRESOLVED, STREAM_BLOCK, Server, ZONE, ZoneLine,
};
use crate::group::{Group, Keepalive, Member, Settings};
use crate::marks::Endings;
use crate::methods::{self, Choice};
use crate::names::NameLine;
use crate::resolver::Resolvers;
use crate::state::STATE;
use crate::target::{Host, Names, Target};

/// The port of a `server` line that names none.
const DEFAULT_PORT: u16 = 80;

/// What compiling needs besides the configuration.
pub struct Surroundings<'a> {
    /// Looks up names at the start.
    pub names: &'a dyn Names,
    /// Where memory is asked for.
    pub zones: &'a Zones,
    /// Those who look up names while the program runs.
    pub resolvers: &'a Resolvers,
    /// Relative paths start where those of logs do.
    pub logs: &'a LogFiles,
}

/// All groups of a configuration, found by name.
#[derive(Debug, Default)]
pub struct Groups {
    /// By name in lower case: names are compared without case, as in nginx.
    named: HashMap<String, Rc<Group>>,
    /// Made for URLs that name no group; by host and port.
    implied: HashMap<(String, Option<u16>), Rc<Group>>,
}

impl Groups {
    /// Compiles every `upstream` block of an `http` or `stream` block. What is wrong goes to the
    /// scope's sink; such a block makes no group.
    pub fn compile(http: &Scope<'_>, surroundings: &Surroundings<'_>) -> Groups {
        let names = surroundings.names;
        let mut groups = Groups::default();
        let mut sizes = Sizes::default();
        let block = if http.context() == STREAM { &STREAM_BLOCK } else { &BLOCK };
        for (name, scope) in http.blocks(block) {
            let key = name.to_ascii_lowercase();
            let state = compile_state(&scope, surroundings);
            let settings = compile_block(&name, &scope, names, state.as_ref());
            match groups.named.entry(key) {
                Entry::Occupied(_) => {
                    scope.error(scope.span(), format!("duplicate upstream \"{name}\""));
                }
                Entry::Vacant(place) => {
                    let group = place.insert(Group::new(settings));
                    sizes.declare(group, &scope, surroundings.zones);
                    compile_names(group, &scope, surroundings);
                    keep_state(group, &scope, state);
                }
            }
        }
        sizes.check(http);
        groups
    }

    /// Compiles the templates that requests are balanced by.
    pub fn compile_keys(&self, compile: &mut dyn FnMut(&config::Template) -> Template) {
        self.named.values().for_each(|group| group.compile_key(compile));
    }

    /// The group of an `upstream` block.
    pub fn named(&self, name: &str) -> Option<&Rc<Group>> {
        self.named.get(&name.to_ascii_lowercase())
    }

    /// The group that [`Groups::locate`] would find without making one.
    pub fn known(&self, target: &Target, default_port: u16) -> Option<&Rc<Group>> {
        let named = self.named(&target.text).filter(|_| target.port.is_none());
        named.or_else(|| self.implied.get(&implied_key(target, default_port)))
    }

    /// The groups of `upstream` blocks, in no particular order.
    pub fn all_named(&self) -> impl Iterator<Item = &Rc<Group>> {
        self.named.values()
    }

    /// All groups, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Group>> {
        self.named.values().chain(self.implied.values())
    }

    /// The group that a URL means: that of its host's name, or one made of the addresses of its
    /// host, with `default_port` where it names none. URLs with the same host and port share a
    /// group.
    ///
    /// # Errors
    /// nginx's words, without the place.
    pub fn locate(
        &mut self,
        target: &Target,
        default_port: u16,
        names: &dyn Names,
    ) -> Result<Rc<Group>, String> {
        if !matches!(target.host, Host::Unix(_))
            && let Some(group) = self.named(&target.text)
        {
            return match target.port {
                None => Ok(group.clone()),
                Some(port) => Err(format!("upstream \"{}\" may not have port {port}", target.text)),
            };
        }
        let key = implied_key(target, default_port);
        if let Some(group) = self.implied.get(&key) {
            return Ok(group.clone());
        }
        let addresses = target
            .resolve(names, default_port)
            .map_err(|error| format!("{error} in upstream \"{}\"", target.text))?;
        let group = implied(&target.text, addresses);
        self.implied.insert(key, group.clone());
        Ok(group)
    }
}

/// A group that no block describes: all of a host's addresses, by turns.
pub fn implied(name: &str, addresses: Vec<Address>) -> Rc<Group> {
    Group::new(Settings {
        name: name.into(),
        choice: Choice::default(),
        primaries: addresses.into_iter().map(|address| Member::new(name, address)).collect(),
        backups: Vec::new(),
        keepalive: Keepalive::OFF,
    })
}

/// Under what a group made for a URL is found: host and port.
fn implied_key(target: &Target, default_port: u16) -> (String, Option<u16>) {
    let port = match target.host {
        Host::Unix(_) => None,
        _ => Some(target.port.unwrap_or(default_port)),
    };
    (target.text.to_ascii_lowercase(), port)
}

/// The sizes of the zones by name, 0 until one is given.
#[derive(Default)]
struct Sizes(BTreeMap<String, u64>);

impl Sizes {
    /// Asks for the group's zone, if it names one.
    fn declare(&mut self, group: &Group, scope: &Scope<'_>, zones: &Zones) {
        let Some((ZoneLine { name, size }, span)) = scope.local_spanned(&ZONE) else { return };
        let declared = self.0.entry(name.clone()).or_default();
        let size = size.unwrap_or(*declared);
        if *declared != 0 && size != *declared {
            let message = format!(
                "the size {size} of shared memory zone \"{name}\" \
                 conflicts with already declared size {declared}"
            );
            scope.error(span, message);
            return;
        }
        *declared = size;
        let engine = scope.context().id;
        if let Err(message) = group.declare(zones, engine, &name, size) {
            scope.error(span, message);
        }
    }

    /// Every zone must have got a size from one of its groups.
    fn check(&self, http: &Scope<'_>) {
        for (name, _) in self.0.iter().filter(|(_, size)| **size == 0) {
            http.error(None, format!("zero size shared memory zone \"{name}\""));
        }
    }
}

/// The file that takes the place of `server` lines, and what it holds.
struct StateFile {
    path: PathBuf,
    span: Span,
    servers: Vec<Server>,
}

fn compile_state(scope: &Scope<'_>, surroundings: &Surroundings<'_>) -> Option<StateFile> {
    let (path, span) = scope.local_spanned(&STATE)?;
    if scope.has_local(&SERVER) {
        scope.error(span, "\"state\" cannot stand beside \"server\"");
    }
    let path = surroundings.logs.absolute(Path::new(&path));
    let servers = crate::state::load(&path).unwrap_or_else(|reason| {
        scope.error(span, reason);
        Vec::new()
    });
    Some(StateFile { path, span, servers })
}

/// Lets changes of the group go to its file.
fn keep_state(group: &Group, scope: &Scope<'_>, state: Option<StateFile>) {
    let Some(StateFile { path, span, .. }) = state else { return };
    if !group.is_shared() {
        let name = group.name();
        scope.error(span, format!("\"state\" requires a \"zone\" in upstream \"{name}\""));
    }
    let _ = group.state.set(path);
}

fn compile_block(
    name: &str,
    scope: &Scope<'_>,
    names: &dyn Names,
    state: Option<&StateFile>,
) -> Settings {
    let mut servers = scope.nodes_local(&SERVER);
    let marks = Endings::compile(scope);
    if let Some(StateFile { span, servers: kept, .. }) = state {
        servers = kept.iter().map(|server| (server.clone(), *span)).collect();
    } else if !scope.has_local(&SERVER) {
        scope.error(scope.close(), "no servers are inside upstream");
    } else if !servers.is_empty() && servers.iter().all(|(server, _)| server.backup) {
        scope.error(scope.span(), format!("no servers in upstream \"{name}\""));
    }
    for (server, _) in &mut servers {
        server.options = marks.on(server.options);
    }
    let (mut choice, chosen_at) = methods::compile(scope);
    choice.marks = marks.with(servers.iter().map(|(server, _)| &server.options));
    let mut settings = Settings {
        name: name.into(),
        choice,
        primaries: Vec::new(),
        backups: Vec::new(),
        keepalive: compile_keepalive(scope),
    };
    for (server, span) in servers {
        // nginx looks at each line as it reads it: lines before the method may name backups.
        let later = chosen_at.is_some_and(|at| (at.line, at.start) < (span.line, span.start));
        if let Some(parameter) = unsupported(settings.choice.method, &server, later) {
            let reason = "balancing method does not support parameter";
            scope.error(span, format!("{reason} \"{parameter}\""));
        }
        if scope.context() == STREAM_UPSTREAM && (server.route.is_some() || server.options.drain) {
            // Sessions of streams are bound to nobody.
            let parameter = if server.options.drain { "drain" } else { "route" };
            scope.error(span, format!("invalid parameter \"{parameter}\""));
        }
        if server.resolve {
            continue;
        }
        let backup = server.backup;
        let members = resolve(server, span, scope, names);
        let tier = if backup { &mut settings.backups } else { &mut settings.primaries };
        tier.extend(members);
    }
    settings
}

/// The parameter of a server that the method cannot honour; `later`: the line stands behind it.
fn unsupported(method: &Method, server: &Server, later: bool) -> Option<&'static str> {
    let starts_slowly = server.options.slow_start_ms != 0;
    match () {
        () if server.backup && !method.backup && later => Some("backup"),
        () if starts_slowly && !method.slow_start => Some("slow_start"),
        () => None,
    }
}

/// The lines of a group whose names are looked up while the program runs.
fn compile_names(group: &Group, scope: &Scope<'_>, surroundings: &Surroundings<'_>) {
    let look_up = surroundings.resolvers.look_up(scope, surroundings.names);
    let takes_backups = group.choice().method.backup;
    let mut lines = Vec::new();
    for (server, _) in scope.nodes_local(&SERVER) {
        let Server { text, target, options, backup, route, resolve, service } = server;
        let options = group.choice().marks.on(options);
        // A name that was unknown at the start may become known.
        let is_missed = || {
            let is_name = matches!(target.host, Host::Name(_));
            let found = || target.resolve(surroundings.names, DEFAULT_PORT);
            scope.get(&START_UNRESOLVED) && is_name && found().is_err()
        };
        if !resolve && !is_missed() {
            continue;
        }
        let tier = if backup { Tier::Backup } else { Tier::Primary };
        lines.push(Rc::new(NameLine {
            hash: NameLine::hash_of(&text, service.as_deref(), tier),
            name: target.text,
            service,
            port: target.port.unwrap_or(DEFAULT_PORT),
            server: text.into(),
            route,
            options,
            tier,
            takes_backups,
        }));
    }
    if lines.is_empty() {
        return;
    }
    let name = group.name();
    if !group.is_shared() {
        let reason = format!(
            "resolving names at run time requires upstream \"{name}\" to be in shared memory"
        );
        scope.error(scope.span(), reason);
    } else if look_up.resolver.is_none() {
        let reason =
            format!("no resolver defined to resolve names at run time in upstream \"{name}\"");
        scope.error(scope.span(), reason);
    }
    let _ = group.names.set(crate::names::Names { lines, look_up });
}

/// One member per address of a server.
fn resolve(server: Server, span: Span, scope: &Scope<'_>, names: &dyn Names) -> Vec<Member> {
    let has_port = server.target.port.is_some() || matches!(server.target.host, Host::Unix(_));
    if scope.context() == STREAM_UPSTREAM && !has_port {
        scope.error(span, format!("no port in upstream \"{}\"", server.text));
        return Vec::new();
    }
    let addresses = server.target.resolve(names, DEFAULT_PORT).unwrap_or_else(|error| {
        let reason = format!("{error} in upstream \"{}\"", server.text);
        match scope.get(&START_UNRESOLVED) {
            true => scope.warn(span, reason),
            false => scope.error(span, reason),
        }
        Vec::new()
    });
    let member = |address| Member {
        server: server.text.as_str().into(),
        route: server.route.clone(),
        address,
        options: server.options,
    };
    addresses.into_iter().map(member).collect()
}

fn compile_keepalive(scope: &Scope<'_>) -> Keepalive {
    if scope.context() == STREAM_UPSTREAM {
        // A session has its connection for itself.
        return Keepalive::OFF;
    }
    let kept = scope.get(&KEEPALIVE);
    Keepalive {
        connections: kept.connections,
        shares: kept.connections > 0,
        local: kept.local,
        requests: scope.get(&KEEPALIVE_REQUESTS),
        time_ms: scope.get(&KEEPALIVE_TIME),
        timeout_ms: scope.get(&KEEPALIVE_TIMEOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{AnyDirective, Arity, Directive, MAIN, MemoryFiles, Opens, Registry, Sink, read};
    use session::contexts::HTTP;
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;

    static HTTP_BLOCK: Directive<()> = Directive::new("http", &[MAIN], read::nothing)
        .takes(Arity::None)
        .opens(Opens::Context(HTTP))
        .syntax("http { ... }")
        .text("For the tests.")
        .example("http { }");
    static TABLES: &[&dyn AnyDirective] = &[&HTTP_BLOCK];

    struct Hosts;

    impl Names for Hosts {
        fn addresses(&self, host: &str) -> Vec<IpAddr> {
            match host {
                "two" => vec![Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into()],
                _ => Vec::new(),
            }
        }
    }

    fn registry() -> Registry {
        Registry::new(&[TABLES, crate::DIRECTIVES])
    }

    /// The groups of the inside of an `http` block, or the first lines of what is wrong.
    fn compile(inside: &str) -> Result<Groups, Vec<String>> {
        let files = MemoryFiles::new().with("/x.conf", format!("http {{\n{inside}\n}}\n"));
        let registry = registry();
        let root = Path::new("/");
        let (tree, mut found) = config::load(&files, Path::new("/x.conf"), root, &[], &registry);
        let sink = Sink::new();
        let scope = Scope::root(&tree, &registry, &sink);
        let mut groups = Groups::default();
        for ((), http) in scope.blocks(&HTTP_BLOCK) {
            let (zones, resolvers) = (Zones::default(), Resolvers::default());
            let logs = LogFiles::new(Path::new("/"));
            let surroundings =
                Surroundings { names: &Hosts, zones: &zones, resolvers: &resolvers, logs: &logs };
            groups = Groups::compile(&http, &surroundings);
        }
        found.extend(sink.take());
        let found = config::in_order(&tree, found);
        if found.is_empty() {
            return Ok(groups);
        }
        Err(found.iter().map(|d| format!("[{}] {}", d.level.name(), d.first_line(&tree))).collect())
    }

    fn refused(inside: &str, expected: &[&str]) {
        assert_eq!(
            compile(inside).map(|_| ()),
            Err(expected.iter().map(|s| s.to_string()).collect())
        );
    }

    #[test]
    fn the_tables_are_sound() {
        assert_eq!(registry().faults(), Vec::<String>::new());
    }

    #[test]
    fn peers_are_primaries_then_backups() {
        let groups = compile(
            "upstream U { server two:8080 backup; server 127.0.0.1; server unix:/s; \
             server [::1]:1; }",
        )
        .expect("a good configuration");
        let group = groups.named("u").expect("the group");
        let peers = group.peers();
        let names: Vec<&str> = peers.iter().map(|peer| &*peer.name).collect();
        assert_eq!(names, ["127.0.0.1:80", "unix:/s", "[::1]:1", "10.0.0.1:8080", "10.0.0.2:8080"]);
        assert_eq!(&*group.peers()[4].server, "two:8080");
        assert_eq!(group.name(), "U");
    }

    #[test]
    fn refusals_in_the_words_of_nginx() {
        refused("upstream u {\n}", &["[emerg] no servers are inside upstream in /x.conf:3"]);
        refused(
            "upstream u {\nserver a:1;\n}",
            &["[emerg] host not found in upstream \"a:1\" in /x.conf:3"],
        );
        refused(
            "upstream u {\n\nserver two backup; }",
            &["[emerg] no servers in upstream \"u\" in /x.conf:2"],
        );
        refused(
            "upstream u { server two; }\nupstream U { server two; }",
            &["[emerg] duplicate upstream \"U\" in /x.conf:3"],
        );
        refused(
            "upstream u { server two weight=0; }",
            &["[emerg] invalid parameter \"weight=0\" in /x.conf:2"],
        );
        refused(
            "upstream u { server two; keepalive 1; keepalive 2; }",
            &["[emerg] \"keepalive\" directive is duplicate in /x.conf:2"],
        );
        refused(
            "upstream u { server two; least_conn; least_conn; }",
            &["[warn] load balancing method redefined in /x.conf:2"],
        );
        refused(
            "upstream u { server two; zone '' 1m; }\nupstream v { server two; zone z 1x; }",
            &[
                "[emerg] invalid zone name \"\" in /x.conf:2",
                "[emerg] invalid zone size \"1x\" in /x.conf:3",
            ],
        );
        refused(
            "upstream u { server two; zone z 32767; }",
            &["[emerg] zone \"z\" is too small in /x.conf:2"],
        );
        refused(
            "upstream u { server two; zone z; }",
            &["[emerg] zero size shared memory zone \"z\""],
        );
        refused(
            "upstream u { server two; zone z 1m; }\nupstream v { server two; zone z 64k; }",
            &["[emerg] the size 65536 of shared memory zone \"z\" \
               conflicts with already declared size 1048576 in /x.conf:3"],
        );
        refused(
            "upstream u { server two; keepalive_timeout x; keepalive_requests 1s; }",
            &[
                "[emerg] \"keepalive_timeout\" directive invalid value in /x.conf:2",
                "[emerg] \"keepalive_requests\" directive invalid number in /x.conf:2",
            ],
        );
    }

    #[test]
    fn groups_may_share_a_zone() {
        let inside = "upstream u { server two; zone z; }\nupstream v { server two; zone z 64k; }";
        let groups = compile(inside).expect("a good configuration");
        for name in ["u", "v"] {
            let group = groups.named(name).expect("the group");
            assert_eq!(group.begin().pick(), Ok(0), "each group takes its own turns");
        }
    }

    #[test]
    fn urls_mean_groups() {
        let mut groups = compile("upstream u { server two; }").expect("a good configuration");
        let mut check = |text: &str, expected: Result<&str, &str>| {
            let target = Target::parse(text).expect("a target");
            let found = groups.locate(&target, 80, &Hosts);
            let found = found.map(|group| {
                let peers = group.peers();
                let names: Vec<&str> = peers.iter().map(|peer| &*peer.name).collect();
                format!("{} {}", group.name(), names.join(" "))
            });
            assert_eq!(found.as_deref().map_err(|e| &**e), expected, "{text}");
        };
        check("U", Ok("u 10.0.0.1:80 10.0.0.2:80"));
        check("u:80", Err("upstream \"u\" may not have port 80"));
        check("two", Ok("two 10.0.0.1:80 10.0.0.2:80"));
        check("two:81", Ok("two 10.0.0.1:81 10.0.0.2:81"));
        check("[::1]", Ok("[::1] [::1]:80"));
        check("unix:/s", Ok("/s unix:/s"));
        check("gone", Err("host not found in upstream \"gone\""));
        let target = Target::parse("two:80").expect("a target");
        let first = groups.locate(&target, 80, &Hosts).expect("a group");
        let plain = Target::parse("two").expect("a target");
        assert!(Rc::ptr_eq(&first, &groups.locate(&plain, 80, &Hosts).expect("a group")));
        assert!(!Rc::ptr_eq(&first, &groups.locate(&plain, 443, &Hosts).expect("a group")));
        assert_eq!(groups.iter().count(), 6);
    }
}
