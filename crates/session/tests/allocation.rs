//! Writing logs allocates nothing once a worker has warmed up.

use config::{AnyDirective, Arity, Directive, MAIN, Opens};
use session::access_log::{self, AccessLogs, Formats, Logged};
use session::contexts::HTTP;
use session::log::{self, Level, Log, LogFiles};
use session::regex::Captures;
use session::text::{Arena, Span};
use session::variables::{Builtin, Cells, Subject, Variables};
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use system::allocation::{Counting, count};
use system::driver;
use system::errno::Errno;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Talk {
    arena: Arena,
    cells: Cells,
    variables: Rc<Variables<Talk>>,
    root: Span,
}

static BUILTINS: &[Builtin<Talk>] = &[
    Builtin::kept("remote_addr", |x| Some(x.arena.push(b"127.0.0.1")), ""),
    Builtin::kept("remote_user", |_| None, ""),
    Builtin::volatile("time_local", |x| Some(x.arena.push(&session::clock::time_local())), ""),
    Builtin::kept("request", |x| Some(x.arena.push(b"GET /\"\xe9 HTTP/1.1")), ""),
    Builtin::kept("status", |x| Some(x.arena.number(200)), ""),
    Builtin::kept("body_bytes_sent", |x| Some(x.arena.number(0)), ""),
    Builtin::family("http_", |x, name| Some(x.arena.push(name.as_bytes())), ""),
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
        panic!("{message}");
    }
}

impl Logged for Talk {
    fn log_root(&mut self) -> Option<Span> {
        Some(self.root)
    }
    fn log_failure(&mut self, _: Level, _: Errno, message: fmt::Arguments<'_>) {
        panic!("{message}");
    }
}

static BLOCKS: &[&dyn AnyDirective] = &[&HTTP_BLOCK];
static HTTP_BLOCK: Directive<()> =
    Directive::new("http", &[MAIN], |_| Ok(())).takes(Arity::None).opens(Opens::Context(HTTP));

/// Compiles the `access_log` lines of an http block.
fn compiled(text: &str, files: &LogFiles) -> (Rc<AccessLogs>, Rc<Variables<Talk>>) {
    let registry = config::Registry::new(&[BLOCKS, access_log::DIRECTIVES]);
    let sources = config::MemoryFiles::new().with("/x.conf", format!("http {{ {text} }}"));
    let (tree, problems) =
        config::load(&sources, Path::new("/x.conf"), Path::new("/"), &[], &registry);
    assert_eq!(problems, []);
    let sink = config::Sink::new();
    let root = config::Scope::root(&tree, &registry, &sink);
    let http = root.blocks(&HTTP_BLOCK).remove(0).1;
    let mut variables = Variables::new(&[BUILTINS]);
    let logs = Formats::new(&http, &mut variables).compile(&http, files, &mut variables);
    assert_eq!(sink.take(), []);
    (logs, Rc::new(variables))
}

/// One request: its text and cells come from pools in a worker, so they are reused here.
fn request(logs: &AccessLogs, talk: &mut Talk) {
    talk.cells.clear();
    logs.write(talk);
}

#[test]
fn logging_allocates_nothing() {
    let directory = std::env::temp_dir().join(format!("session-allocation-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let files = LogFiles::new(&directory);
    let text = "log_format j escape=json '{\"r\":\"$request\",\"a\":\"$http_user_agent\"}'; \
        access_log a.log; access_log b.log j buffer=1k flush=1h if=$status; \
        open_log_file_cache max=10; access_log $status.log j; \
        access_log syslog:server=unix:/nonexistent/socket;";
    let (logs, variables) = compiled(text, &files);
    let errors = Log::to_file(files.file(Path::new("e.log")), Level::Error);
    errors.set_process();
    files.open().unwrap();

    driver::start(driver::Settings::default()).unwrap();
    driver::spawn(log::flusher());
    let (warming_up, allocated) = driver::block_on(async {
        let (mut warming_up, mut allocated) = (0, 0);
        // The first rounds warm up: buffers grow to their size, and the loss of the syslog
        // daemon is reported.
        for round in 0..20 {
            let mut arena = Arena::new();
            let root = arena.push(b"/");
            let cells = Cells::new(variables.len());
            let mut talk = Talk { arena, cells, variables: variables.clone(), root };
            let before = count();
            for _ in 0..3 {
                request(&logs, &mut talk);
            }
            errors.write(Level::Error, Some(1), format_args!("round {round}"), &|out| {
                out.extend_from_slice(b", client: 127.0.0.1");
            });
            driver::yield_now().await;
            match round {
                0..10 => warming_up += count() - before,
                _ => allocated += count() - before,
            }
        }
        (warming_up, allocated)
    });
    assert!(warming_up > 0, "the counter works");
    assert_eq!(allocated, 0);

    let lines = |name: &str| {
        let bytes = std::fs::read(directory.join(name)).unwrap();
        bytes.iter().filter(|&&byte| byte == b'\n').count()
    };
    assert_eq!((lines("a.log"), lines("b.log"), lines("200.log")), (60, 60, 60));
    assert_eq!(lines("e.log"), 21, "one per round, and one about the syslog daemon");
    std::fs::remove_dir_all(directory).unwrap();
}
