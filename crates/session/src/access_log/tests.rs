//! Tests of compiled access logs, from a configuration to bytes in files.

use super::*;
use crate::contexts::{HTTP, LOCATION, SERVER};
use crate::regex::Captures;
use crate::text::Arena;
use crate::variables::{Builtin, Cells};
use config::{AnyDirective, Arity, Context, Directive, MAIN, Opens};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// A conversation whose variables are fixed texts.
struct Talk {
    arena: Arena,
    cells: Cells,
    variables: Rc<Variables<Talk>>,
    root: Option<PathBuf>,
    failures: Vec<String>,
}

static BUILTINS: &[Builtin<Talk>] = &[
    Builtin::kept("remote_addr", |x| Some(x.arena.push(b"127.0.0.1")), ""),
    Builtin::kept("remote_user", |_| None, ""),
    Builtin::volatile("time_local", |x| Some(x.arena.push(b"06/Nov/1994:08:49:37 +0000")), ""),
    Builtin::kept("request", |x| Some(x.arena.push(b"GET /\"\xe9 HTTP/1.1")), ""),
    Builtin::kept("status", |x| Some(x.arena.number(200)), ""),
    Builtin::kept("body_bytes_sent", |x| Some(x.arena.number(0)), ""),
    Builtin::kept("host", |x| Some(x.arena.push(b"example.org")), ""),
    Builtin::kept("empty", |_| Some(Span::EMPTY), ""),
    Builtin::kept("zero", |x| Some(x.arena.push(b"0")), ""),
    Builtin::family("http_", |_, _| None, ""),
];

impl Subject for Talk {
    fn arena(&self) -> &Arena {
        &self.arena
    }
    fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }
    fn variables(&self) -> Rc<Variables<Talk>> {
        self.variables.clone()
    }
    fn cells(&mut self) -> &mut Cells {
        &mut self.cells
    }
    fn capture(&mut self, _: u8) -> Option<Span> {
        None
    }
    fn set_captures(&mut self, _: Captures) {}
    fn complain(&mut self, _: Level, message: fmt::Arguments<'_>) {
        self.failures.push(message.to_string());
    }
}

impl Logged for Talk {
    fn log_root(&mut self) -> Option<Span> {
        let root = self.root.as_ref()?;
        Some(self.arena.push(root.as_os_str().as_bytes()))
    }
    fn log_failure(&mut self, level: Level, errno: Errno, message: fmt::Arguments<'_>) {
        self.failures.push(format!("[{}] {message} ({errno})", level.name()));
    }
}

static BLOCKS: &[&dyn AnyDirective] = &[&HTTP_BLOCK, &SERVER_BLOCK, &LOCATION_BLOCK];
static HTTP_BLOCK: Directive<()> = block("http", &[MAIN], HTTP);
static SERVER_BLOCK: Directive<()> = block("server", &[HTTP], SERVER);
static LOCATION_BLOCK: Directive<()> = block("location", &[SERVER], LOCATION);

const fn block(name: &'static str, contexts: &'static [Context], inner: Context) -> Directive<()> {
    Directive::new(name, contexts, |_| Ok(())).takes(Arity::Any).opens(Opens::Context(inner))
}

/// What a configuration compiles to, in a directory of its own.
struct Compiled {
    directory: PathBuf,
    files: LogFiles,
    variables: Rc<Variables<Talk>>,
    http: Rc<AccessLogs>,
    server: Rc<AccessLogs>,
    location: Rc<AccessLogs>,
    faults: Vec<String>,
}

/// Compiles `http { HTTP server { SERVER location / { LOCATION } } }`.
fn compiled(name: &str, [http, server, location]: [&str; 3]) -> Compiled {
    let directory =
        std::env::temp_dir().join(format!("session-access-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!("http {{ {http} server {{ {server} location / {{ {location} }} }} }}");
    let registry = config::Registry::new(&[BLOCKS, DIRECTIVES]);
    let sources = config::MemoryFiles::new().with("/x.conf", text);
    let (tree, problems) =
        config::load(&sources, Path::new("/x.conf"), Path::new("/"), &[], &registry);
    let sink = config::Sink::new();
    let root = config::Scope::root(&tree, &registry, &sink);
    let files = LogFiles::new(&directory);
    let mut variables = Variables::new(&[BUILTINS]);
    let http = root.blocks(&HTTP_BLOCK).remove(0).1;
    let server = http.blocks(&SERVER_BLOCK).remove(0).1;
    let location = server.blocks(&LOCATION_BLOCK).remove(0).1;
    let formats = Formats::new(&http, &mut variables);
    let [http, server, location] =
        [http, server, location].map(|scope| formats.compile(&scope, &files, &mut variables));
    let mut faults: Vec<String> = problems.into_iter().map(|fault| fault.message).collect();
    faults.extend(sink.take().into_iter().map(|fault| fault.message));
    faults.extend(variables.unknown().iter().map(|name| format!("unknown \"{name}\" variable")));
    let variables = Rc::new(variables);
    Compiled { directory, files, variables, http, server, location, faults }
}

impl Compiled {
    fn talk(&self) -> Talk {
        Talk {
            arena: Arena::new(),
            cells: Cells::new(self.variables.len()),
            variables: self.variables.clone(),
            root: None,
            failures: Vec::new(),
        }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn lines_follow_their_format() {
    let check = |name: &str, http: &str, expected: &str| {
        let compiled = compiled(name, [http, "", ""]);
        assert_eq!(compiled.faults, [""; 0]);
        std::fs::create_dir_all(compiled.directory.join("logs")).unwrap();
        compiled.files.open().unwrap();
        compiled.location.write(&mut compiled.talk());
        let all =
            compiled.text("a.log") + &compiled.text("b.log") + &compiled.text("logs/access.log");
        assert_eq!(all, expected, "{http}");
    };
    const COMBINED_LINE: &str = "127.0.0.1 - - [06/Nov/1994:08:49:37 +0000] \
        \"GET /\\x22\\xE9 HTTP/1.1\" 200 0 \"-\" \"-\"\n";
    check("none", "", COMBINED_LINE);
    check("one", "access_log a.log;", COMBINED_LINE);
    check("off", "access_log off;", "");
    check("off-wins", "access_log off; access_log a.log;", "");
    check(
        "two",
        "log_format f '$status|$http_x|$empty|$remote_user'; access_log a.log f; \
         access_log b.log combined;",
        &format!("200|-||-\n{COMBINED_LINE}"),
    );
    check(
        "json",
        "log_format f escape=json '{\"r\":\"$host\\\"$http_x\"}'; access_log a.log f;",
        "{\"r\":\"example.org\"\"}\n",
    );
    check("unescaped", "log_format f escape=none '$zero$http_x.'; access_log a.log f;", "0.\n");
    check("empty", "log_format f escape=none; access_log a.log f;", "\n");
    check(
        "conditions",
        "log_format f x; access_log a.log f if=$zero; access_log a.log f if=$http_x; \
         access_log a.log f if=; access_log a.log f if=0; access_log a.log f if=0$zero; \
         access_log b.log f if=$host;",
        "x\nx\n",
    );
}

#[test]
fn inner_levels_replace_outer_ones() {
    let check = |name: &str, blocks: [&str; 3], expected: [usize; 3]| {
        let compiled = compiled(name, blocks);
        assert_eq!(compiled.faults, [""; 0]);
        let found = [&compiled.http, &compiled.server, &compiled.location];
        assert_eq!(found.map(|logs| logs.logs.len()), expected, "{blocks:?}");
        compiled
    };
    let all = check("inherited", ["access_log a; access_log b;", "", ""], [2, 2, 2]);
    assert!(Rc::ptr_eq(&all.http, &all.location), "one list, not two alike");
    check("replaced", ["access_log a; access_log b;", "access_log c;", ""], [2, 1, 1]);
    let off = check("off-inside", ["access_log a;", "", "access_log off;"], [1, 1, 0]);
    assert!(off.location.is_off() && !off.http.is_off());
    check("on-inside", ["access_log off;", "", "access_log a;"], [0, 0, 1]);
    let default = check("default", ["", "", "access_log a;"], [1, 1, 1]);
    assert!(Rc::ptr_eq(&default.http, &default.server));
}

#[test]
fn faults_are_nginxs() {
    let check = |name: &str, http: &str, expected: &[&str]| {
        assert_eq!(compiled(name, [http, "", ""]).faults, expected, "{http}");
    };
    check("unknown", "access_log a foo;", &["unknown log format \"foo\""]);
    check("twice", "log_format a x; log_format a y;", &["duplicate \"log_format\" name \"a\""]);
    check("taken", "log_format combined x;", &["duplicate \"log_format\" name \"combined\""]);
    check(
        "variable",
        "log_format a '$nosuch$1';",
        &["unknown \"nosuch\" variable", "unknown \"1\" variable"],
    );
    check("condition", "access_log a combined if=$nosuch;", &["unknown \"nosuch\" variable"]);
    check("path", "access_log a$nosuch;", &["unknown \"nosuch\" variable"]);
    check(
        "conflict",
        "access_log a combined buffer=1k; access_log a combined buffer=2k;",
        &["access_log \"a\" already defined with conflicting parameters"],
    );
    check("shared", "access_log a combined buffer=1k; access_log a combined;", &[]);
}

#[test]
fn a_path_with_variables_is_opened_for_each_line() {
    let format = "log_format f $status;";
    let relative = format!("{format} access_log $host.log f; access_log logs/x$zero f;");
    let compiled = compiled("path", [&relative, "", ""]);
    assert_eq!(compiled.faults, [""; 0]);
    compiled.files.open().unwrap();
    let mut talk = compiled.talk();
    compiled.http.write(&mut talk);
    compiled.http.write(&mut talk);
    assert_eq!(compiled.text("example.org.log"), "200\n200\n");
    let failed = format!(
        "[crit] open() \"{}/logs/x0\" failed (2: No such file or directory)",
        compiled.directory.display()
    );
    assert_eq!(talk.failures, [failed.as_str(), failed.as_str()]);

    let mut talk = compiled.talk();
    talk.root = Some("/nonexistent".into());
    compiled.http.write(&mut talk);
    talk.root = Some("/dev/null".into());
    compiled.http.write(&mut talk);
    let failures = [
        "[error] testing \"/nonexistent\" existence failed (2: No such file or directory)",
        "[error] testing \"/dev/null\" existence failed (20: Not a directory)",
    ];
    let expected = [failures[0], failures[0], failures[1], failures[1]];
    assert_eq!(talk.failures, expected);
    talk.root = Some("/".into());
    compiled.http.write(&mut talk);
    assert_eq!(compiled.text("example.org.log"), "200\n200\n200\n");
}

#[test]
fn a_rooted_path_is_not_below_the_prefix() {
    let compiled = compiled("rooted", ["access_log /dev/full$empty;", "", ""]);
    let mut talk = compiled.talk();
    compiled.http.write(&mut talk);
    let expected = "[alert] write() to \"/dev/full\" failed (28: No space left on device)";
    assert_eq!(talk.failures, [expected]);
}

#[test]
fn lines_go_to_syslog() {
    use std::os::unix::net::UnixDatagram;
    let socket = std::env::temp_dir().join(format!("session-access-{}.sock", std::process::id()));
    let daemon = UnixDatagram::bind(&socket).unwrap();
    let text = format!(
        "log_format f $status; access_log syslog:server=unix:{},severity=crit,nohostname f;",
        socket.display()
    );
    let compiled = compiled("syslog", [&text, "", ""]);
    compiled.http.write(&mut compiled.talk());
    let mut packet = [0; 100];
    daemon.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let length = daemon.recv(&mut packet).unwrap();
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(&packet[..5], b"<186>");
    assert_eq!(&packet[20..length], b" heng: 200");
}

#[test]
fn buffered_lines_wait() {
    let text = "log_format f $status; access_log a.log f buffer=9;";
    let compiled = compiled("buffered", [text, "", ""]);
    compiled.files.open().unwrap();
    let mut talk = compiled.talk();
    for expected in ["", "", "200\n200\n"] {
        compiled.http.write(&mut talk);
        assert_eq!(compiled.text("a.log"), expected);
    }
    compiled.files.flush();
    assert_eq!(compiled.text("a.log"), "200\n200\n200\n");
}
