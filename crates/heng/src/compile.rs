//! From a configuration's text to the snapshot that master and workers live by.
//!
//! [`compile`] is the one pure function behind `-t`, start, reload and tests: it reads files
//! through a trait, opens nothing, and returns what it made together with everything that is
//! wrong. Opening what a snapshot needs is `open.rs`.

use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use config::{Block, Diagnostic, Node, Scope, Sink, Tree, in_order, refuses};
use session::access::Clients;
use session::log::{self, Log, LogFiles};
use session::network::Network;
use session::zones::Zones;
use system::driver;
use system::process::{self, Account, Keep};

use crate::directives::{self as d, Affinity, Debugged, EnvironmentEntry, UserNames, WorkerCount};
use crate::engines::{Engine, Surroundings, Wanted};
use crate::modules;
use crate::paths::{self, Places};

/// The settings of the main and `events` levels.
#[derive(Clone, Debug)]
pub struct Core {
    pub daemon: bool,
    /// Off: one process does everything.
    pub master_process: bool,
    pub workers: usize,
    /// Whom workers run as; nothing when the master may not change users.
    pub account: Option<Account>,
    /// Absolute.
    pub pid_file: PathBuf,
    pub affinity: Option<Affinity>,
    pub priority: i32,
    pub descriptor_limit: Option<u64>,
    /// Sockets are bound to foreign addresses (`proxy_bind ... transparent`, `listen ... udp
    /// transparent`).
    pub keep: Keep,
    pub core_limit: Option<u64>,
    pub shutdown_timeout_ms: Option<u64>,
    pub working_directory: Option<PathBuf>,
    pub environment: Vec<EnvironmentEntry>,
    /// Per worker.
    pub connections: u64,
    /// Of one look at the kernel.
    pub events: usize,
    pub event_method: driver::Kind,
    pub multi_accept: bool,
    /// Whose connections are logged in every detail.
    pub debugged: Vec<Clients>,
}

/// One configuration, ready to be opened and served. Freed with its generation.
pub struct Snapshot {
    pub core: Core,
    pub files: LogFiles,
    /// The log of the main level.
    pub log: Log,
    /// Named zones of shared memory; those of the same name live on in the next snapshot.
    pub zones: Zones,
    pub engines: Vec<Rc<dyn Engine>>,
}

impl Snapshot {
    /// Whether a keeper is needed: the process that looks after what workers share.
    pub fn wants_keeper(&self) -> bool {
        self.engines.iter().any(|engine| engine.wants_keeper())
    }

    /// All sockets that must be open, each address once.
    pub fn listeners(&self) -> Vec<Wanted> {
        self.engines.iter().flat_map(|engine| engine.listeners()).collect()
    }
}

/// What [`compile`] returns.
pub struct Compilation {
    /// Needed to print the diagnostics, and for `-T`.
    pub tree: Tree,
    /// Findings in the text, in the order in which nginx would meet them.
    pub diagnostics: Vec<Diagnostic>,
    /// Findings that nginx makes only when it has read everything.
    pub late: Vec<Diagnostic>,
    /// Nothing when the configuration is refused.
    pub snapshot: Option<Snapshot>,
}

impl Compilation {
    /// Whether the text as such is fine: nginx's `syntax is ok`.
    pub fn syntax_is_ok(&self) -> bool {
        !refuses(&self.diagnostics)
    }
}

/// Compiles a configuration. `error_log` is where errors go without an `error_log` directive.
pub fn compile(
    files: &dyn config::Files,
    places: &Places,
    globals: &[String],
    error_log: &Path,
) -> Compilation {
    let registry = modules::registry();
    let main = places.configuration_under_prefix();
    let (tree, mut diagnostics) = config::load(files, main, &places.prefix, globals, &registry);
    // Compiling a tree with faults would report their consequences as faults of their own, but
    // finds more of them; a fault that both find is reported once.
    let (sink, late) = (Sink::new(), Sink::new());
    let snapshot = compile_tree(&Scope::root(&tree, &registry, &sink), &late, places, error_log);
    diagnostics.extend(sink.take());
    let diagnostics = in_order(&tree, diagnostics);
    // What is missing in a text that could not be read says nothing.
    let late = if refuses(&diagnostics) { Vec::new() } else { late.take() };
    let refused = refuses(&diagnostics) || refuses(&late);
    let snapshot = snapshot.filter(|_| !refused);
    Compilation { tree, diagnostics, late, snapshot }
}

fn compile_tree(
    root: &Scope<'_>,
    late: &Sink,
    places: &Places,
    error_log: &Path,
) -> Option<Snapshot> {
    let files = LogFiles::new(&places.prefix);
    let log = log::compile_main(root, &files, error_log);
    let core = compile_core(root, late, places)?;
    let zones = Zones::default();
    let engines = modules::ENGINES
        .iter()
        .filter_map(|compile| {
            let prefix = &places.prefix;
            compile(root, Surroundings { prefix, logs: &files, log: &log, zones: &zones })
        })
        .collect();
    for fault in zones.faults() {
        late.error(None, fault);
    }
    Some(Snapshot { core, files, log, zones, engines })
}

fn compile_core(root: &Scope<'_>, late: &Sink, places: &Places) -> Option<Core> {
    read_moot(root);
    let account = compile_account(root, late);
    let workers = match root.get(&d::WORKER_PROCESSES) {
        WorkerCount::Auto => process::processor_count(),
        WorkerCount::Exactly(count) => count as usize,
    };
    let affinity = root.find(&d::WORKER_CPU_AFFINITY);
    if let Some(Affinity::Masks(masks)) = &affinity
        && masks.len() != 1
        && masks.len() != workers
    {
        late.warn(
            None,
            "the number of \"worker_processes\" is not equal to the number of \
             \"worker_cpu_affinity\" masks, using last mask for remaining worker processes",
        );
    }
    let pid_file = root.find(&d::PID).map_or_else(paths::default_pid_file, PathBuf::from);
    let blocks = root.blocks(&d::EVENTS_BLOCK);
    let Some((_, events)) = blocks.first() else {
        // One that is there but refused was reported already.
        if !root.has_local(&d::EVENTS_BLOCK) {
            late.error(None, "no \"events\" section in configuration");
        }
        return None;
    };
    read_moot_events(events);
    Some(Core {
        daemon: root.get(&d::DAEMON),
        master_process: root.get(&d::MASTER_PROCESS),
        workers,
        account,
        pid_file: places.prefix.join(pid_file),
        affinity,
        priority: root.get(&d::WORKER_PRIORITY),
        descriptor_limit: root.find(&d::WORKER_RLIMIT_NOFILE),
        keep: kept_rights(&root.tree().root),
        core_limit: root.find(&d::WORKER_RLIMIT_CORE),
        shutdown_timeout_ms: root.find(&d::WORKER_SHUTDOWN_TIMEOUT).filter(|&ms| ms > 0),
        working_directory: root.find(&d::WORKING_DIRECTORY).map(PathBuf::from),
        environment: root.all_local(&d::ENV),
        connections: events.get(&d::WORKER_CONNECTIONS),
        events: events.get(&d::EPOLL_EVENTS).clamp(1, MOST_EVENTS) as usize,
        event_method: events.get(&d::USE),
        multi_accept: events.get(&d::MULTI_ACCEPT),
        debugged: compile_debugged(events),
    })
}

/// More events than this at a time nobody has any use for.
const MOST_EVENTS: u64 = 65_536;

/// Looks up the names among the clients of `debug_connection`.
fn compile_debugged(events: &Scope<'_>) -> Vec<Clients> {
    let mut found = Vec::new();
    for (debugged, span) in events.nodes_local(&d::DEBUG_CONNECTION) {
        match debugged {
            Debugged::Clients(clients) => found.push(clients),
            Debugged::Name(name) => match (&*name, 0).to_socket_addrs() {
                Ok(addresses) => found
                    .extend(addresses.map(|address| Clients::Network(Network::of(address.ip())))),
                Err(_) => {
                    let message = format!("host not found in debug_connection \"{name}\"");
                    events.error(span, message);
                }
            },
        }
    }
    found
}

/// What workers must go on to be able to do: a directive such as `proxy_bind` may ask for foreign
/// addresses, whatever engine it is for, and answers to packets that were meant for others leave
/// from these and their ports.
fn kept_rights(block: &Block) -> Keep {
    let needs = |node: &Node| {
        let says = |what: &[u8]| node.args.iter().skip(1).any(|word| word.bytes() == what);
        let inside = node.block.as_ref().map_or(Keep::Nothing, kept_rights);
        match node.name.bytes() {
            b"listen" if says(b"udp") && says(b"transparent") => Keep::ForeignPorts,
            name if name.ends_with(b"_bind") && says(b"transparent") => Keep::ForeignAddresses,
            _ => inside,
        }
    };
    block.nodes.iter().map(needs).max().unwrap_or(Keep::Nothing)
}

/// Directives that change nothing here are looked at all the same, so that the test which finds
/// directives that nobody reads stays sharp.
fn read_moot(root: &Scope<'_>) {
    root.find(&d::LOCK_FILE);
    root.find(&d::TIMER_RESOLUTION);
    root.find(&d::PCRE_JIT);
}

fn read_moot_events(events: &Scope<'_>) {
    events.find(&d::ACCEPT_MUTEX);
    events.find(&d::ACCEPT_MUTEX_DELAY);
    events.find(&d::WORKER_AIO_REQUESTS);
}

/// Looks up the user of workers. Without `user` it is nobody, with nobody's group whatever its
/// name is on this system.
fn compile_account(root: &Scope<'_>, late: &Sink) -> Option<Account> {
    let Some((names, span)) = root.find_spanned(&d::USER) else {
        return default_account(late);
    };
    if !process::is_superuser() {
        root.warn(
            span,
            "the \"user\" directive makes sense only if the master process runs with \
             super-user privileges, ignored",
        );
        return None;
    }
    let UserNames { user: name, group } = names;
    let group = group.unwrap_or_else(|| name.clone());
    let Ok(Some((user, _))) = process::find_user(&name) else {
        root.error(span, format!("getpwnam(\"{name}\") failed"));
        return None;
    };
    let Ok(Some(group)) = process::find_group(&group) else {
        root.error(span, format!("getgrnam(\"{group}\") failed"));
        return None;
    };
    Some(Account { name, user, group })
}

fn default_account(late: &Sink) -> Option<Account> {
    const NAME: &str = "nobody";
    if !process::is_superuser() {
        return None;
    }
    let Ok(Some((user, own_group))) = process::find_user(NAME) else {
        late.error(None, format!("getpwnam(\"{NAME}\") failed"));
        return None;
    };
    let group = match process::find_group("nogroup") {
        Ok(Some(group)) => group,
        _ => own_group,
    };
    Some(Account { name: NAME.to_owned(), user, group })
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::MemoryFiles;

    fn compiled(text: &str) -> Compilation {
        let places = Places { prefix: "/p/".into(), configuration: "/p/x.conf".into() };
        let files = MemoryFiles::new().with("/p/x.conf", text);
        compile(&files, &places, &[], Path::new("stderr"))
    }

    fn findings(text: &str) -> Vec<String> {
        let Compilation { tree, diagnostics, late, snapshot } = compiled(text);
        let refused = refuses(&diagnostics) || refuses(&late);
        assert_eq!(snapshot.is_none(), refused, "{text}");
        diagnostics.iter().chain(&late).map(|finding| finding.first_line(&tree)).collect()
    }

    #[test]
    fn findings_have_nginx_words() {
        for (text, expected) in [
            ("events {}", &[] as &[&str]),
            ("", &["no \"events\" section in configuration"]),
            ("foo;", &["unknown directive \"foo\" in /p/x.conf:1"]),
            ("foo; events {}", &["unknown directive \"foo\" in /p/x.conf:1"]),
            ("events {}\nevents {}", &["\"events\" directive is duplicate in /p/x.conf:2"]),
            ("events { use x; }", &["invalid event type \"x\" in /p/x.conf:1"]),
            (
                "worker_cpu_affinity 01 10; events {}",
                &["the number of \"worker_processes\" is not equal to the number of \
                  \"worker_cpu_affinity\" masks, using last mask for remaining worker processes"],
            ),
            (
                "worker_processes 2; worker_cpu_affinity 01 10; events { worker_connections x; }",
                &["invalid number \"x\" in /p/x.conf:1"],
            ),
        ] {
            assert_eq!(findings(text), expected, "{text}");
        }
    }

    #[test]
    fn every_directive_is_read() {
        let registry = modules::registry();
        let text = "daemon on; master_process on; worker_processes 2; worker_cpu_affinity auto;
            worker_priority 1; worker_rlimit_nofile 99; worker_rlimit_core 1m;
            worker_shutdown_timeout 1s; working_directory /; user root; pid x; lock_file x;
            env A; timer_resolution 1s; pcre_jit on; error_log stderr;
            events { worker_connections 9; use poll; multi_accept on; accept_mutex on;
                     accept_mutex_delay 1s; debug_connection 10.0.0.0/8;
                     worker_aio_requests 2; epoll_events 7; }";
        let files = MemoryFiles::new().with("/p/x.conf", text);
        let places = Places { prefix: "/p/".into(), configuration: "/p/x.conf".into() };
        let (tree, found) =
            config::load(&files, &places.configuration, &places.prefix, &[], &registry);
        assert_eq!(found, Vec::new());
        let (sink, late) = (Sink::new(), Sink::new());
        let root = Scope::root(&tree, &registry, &sink);
        assert!(compile_tree(&root, &late, &places, Path::new("stderr")).is_some());
        assert_eq!(sink.unread(&registry), Vec::<&str>::new());
        let absent = sink.absent(&registry);
        for directive in d::CORE.iter().chain(d::EVENTS_DIRECTIVES) {
            assert!(!absent.contains(&directive.spec().name), "{}", directive.spec().name);
        }
    }

    #[test]
    fn the_core_holds_what_was_written() {
        let snapshot = compiled(
            "worker_processes 3; pid run/x.pid; env A=b; daemon off; worker_shutdown_timeout 2s;
             events { worker_connections 7; multi_accept on; use poll; epoll_events 5; }",
        )
        .snapshot
        .unwrap();
        let core = &snapshot.core;
        assert_eq!(core.workers, 3);
        assert_eq!(core.pid_file, Path::new("/p/run/x.pid"));
        assert_eq!((core.connections, core.multi_accept, core.daemon), (7, true, false));
        assert_eq!(core.shutdown_timeout_ms, Some(2000));
        assert_eq!((core.event_method, core.events), (driver::Kind::Poll, 5));
        assert!(snapshot.listeners().is_empty());
    }
}
