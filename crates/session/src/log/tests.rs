//! Tests of the error log and of what it shares with the access log: lines, files, syslog, and
//! when buffers are written.

use super::*;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;
use system::driver;

/// A directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("session-log-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn log(&self, level: Level) -> (Log, LogFiles) {
        let files = LogFiles::new(&self.0);
        let log = Log::to_file(files.file(Path::new("e.log")), level);
        files.open().unwrap();
        (log, files)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A line without its date and process, which differ from run to run.
fn steady(line: &str) -> String {
    let pid = std::process::id();
    let (date, rest) = line.split_at(19);
    assert!(date.bytes().all(|byte| byte.is_ascii_digit() || b"/ :".contains(&byte)), "{date}");
    rest.replacen(&format!(" {pid}#{pid}: "), " PID ", 1)
}

#[test]
fn lines_look_like_nginxs() {
    let scratch = Scratch::new("lines");
    let (log, _files) = scratch.log(Level::Info);
    let context = |out: &mut Vec<u8>| out.extend_from_slice(b", client: 127.0.0.1");
    let mut seen = 0;
    let mut check = |write: &dyn Fn(), expected: &str| {
        write();
        let text = scratch.text("e.log");
        let new = &text[seen..];
        let found = if new.is_empty() { String::new() } else { steady(new) };
        assert_eq!(found, expected);
        seen = text.len();
    };
    check(
        &|| crate::log!(log, Level::Error, Some(7), &context, "no live {}", "upstreams"),
        " [error] PID *7 no live upstreams, client: 127.0.0.1\n",
    );
    check(
        &|| crate::log!(log, Level::Notice, None, &no_context, "reconfiguring"),
        " [notice] PID reconfiguring\n",
    );
    check(&|| crate::log!(log, Level::Debug, None, &context, "dropped"), "");
    check(
        &|| crate::log_errno!(log, Level::Crit, Errno(111), Some(1), &context, "connect() failed"),
        " [crit] PID *1 connect() failed (111: Connection refused), client: 127.0.0.1\n",
    );
    check(
        &|| {
            crate::log!(
                log,
                Level::Emerg,
                None,
                &no_context,
                "a\tb\nc\x1b[m{}",
                Bytes(b"\xe9\xc3\xa9")
            )
        },
        " [emerg] PID a\tb\\x0Ac\\x1B[m\\xE9\u{e9}\n",
    );
}

#[test]
fn long_lines_are_cut_and_keep_their_error_number() {
    let scratch = Scratch::new("long");
    let (log, _files) = scratch.log(Level::Error);
    let long = "x".repeat(5000);
    log.write(Level::Error, None, format_args!("{long}"), &no_context);
    log.fail(Level::Error, Errno(2), None, format_args!("{long}"), &no_context);
    let text = scratch.text("e.log");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines[0].len(), LINE_LIMIT);
    assert!(lines[1].len() <= LINE_LIMIT);
    assert!(lines[1].ends_with("x... (2: No such file or directory)\n"), "{}", lines[1]);
}

#[test]
fn a_context_may_log() {
    let scratch = Scratch::new("nested");
    let (log, _files) = scratch.log(Level::Error);
    log.write(Level::Error, None, format_args!("outer"), &|out| {
        log.write(Level::Error, None, format_args!("inner"), &no_context);
        out.extend_from_slice(b", after");
    });
    let text = scratch.text("e.log");
    let lines: Vec<String> = text.lines().map(steady).collect();
    assert_eq!(lines, [" [error] PID inner", " [error] PID outer, after"]);
}

#[test]
fn each_target_has_its_level() {
    let scratch = Scratch::new("levels");
    let files = LogFiles::new(&scratch.0);
    let target =
        |name: &str, level| Target { level, sink: Sink::File(files.file(Path::new(name))) };
    let log = Log::of_targets(vec![target("few", Level::Crit), target("many", Level::Info)]);
    files.open().unwrap();
    for level in [Level::Debug, Level::Info, Level::Crit, Level::Emerg] {
        log.write(level, None, format_args!("{}", level.name()), &no_context);
    }
    let said = |name: &str| -> Vec<String> {
        let text = scratch.text(name);
        text.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(said("few"), ["crit", "emerg"]);
    assert_eq!(said("many"), ["info", "crit", "emerg"]);
    assert!(log.enabled(Level::Info) && !log.enabled(Level::Debug));
    assert!(!Log::silent().enabled(Level::Emerg));
}

#[test]
fn configured_logs_replace_those_around_them() {
    const TEXT: &str = "error_log main.log; error_log all.log debug; \
        http { server { error_log stderr; error_log s.log warn; location / { } } }";
    static BLOCKS: &[&dyn config::AnyDirective] = &[&HTTP_BLOCK, &SERVER_BLOCK, &LOCATION_BLOCK];
    static HTTP_BLOCK: config::Directive<()> = block("http", &[config::MAIN], HTTP);
    static SERVER_BLOCK: config::Directive<()> = block("server", &[HTTP], SERVER);
    static LOCATION_BLOCK: config::Directive<()> = block("location", &[SERVER], LOCATION);
    use crate::contexts::{HTTP, LOCATION, SERVER};
    const fn block(
        name: &'static str,
        contexts: &'static [config::Context],
        inner: config::Context,
    ) -> config::Directive<()> {
        config::Directive::new(name, contexts, |_| Ok(()))
            .takes(config::Arity::Any)
            .opens(config::Opens::Context(inner))
    }
    let registry = config::Registry::new(&[BLOCKS, DIRECTIVES]);
    let sources = config::MemoryFiles::new().with("/x.conf", TEXT);
    let (tree, problems) =
        config::load(&sources, Path::new("/x.conf"), Path::new("/"), &[], &registry);
    assert_eq!(problems, []);
    let sink = config::Sink::new();
    let root = config::Scope::root(&tree, &registry, &sink);
    let files = LogFiles::new(Path::new("/prefix"));
    let shown = |log: &Log| -> Vec<String> {
        let of = |target: &Target| match &target.sink {
            Sink::File(file) => format!("{} {}", file.path().display(), target.level.name()),
            _ => "other".to_owned(),
        };
        log.inner.targets.iter().map(of).collect()
    };
    let main = compile_main(&root, &files, Path::new("e.log"));
    assert_eq!(shown(&main), ["/prefix/main.log error", "/prefix/all.log debug"]);
    let http = root.blocks(&HTTP_BLOCK).remove(0).1;
    let of_http = compile(&http, &files);
    assert_eq!(shown(&of_http), shown(&main));
    let server = http.blocks(&SERVER_BLOCK).remove(0).1;
    let of_server = compile(&server, &files);
    assert_eq!(shown(&of_server), [" error", "/prefix/s.log warn"]);
    let location = server.blocks(&LOCATION_BLOCK).remove(0).1;
    assert_eq!(shown(&compile(&location, &files)), shown(&of_server));
    let of_location = compile(&location, &files);
    assert!(Rc::ptr_eq(&of_location.inner, &of_server.inner), "one log, not two alike");
    let files = LogFiles::new(Path::new("/prefix"));
    let bare = compile_main(&location, &files, Path::new("e.log"));
    assert_eq!(shown(&bare), ["/prefix/e.log error"]);
}

#[test]
fn files_are_shared_by_path_and_reopened_under_it() {
    let scratch = Scratch::new("reopen");
    let (log, files) = scratch.log(Level::Error);
    assert!(Rc::ptr_eq(&files.file(Path::new("e.log")), &files.file(&scratch.path("e.log"))));
    crate::log!(log, Level::Error, None, &no_context, "before");
    fs::rename(scratch.path("e.log"), scratch.path("old.log")).unwrap();
    crate::log!(log, Level::Error, None, &no_context, "between");
    files.reopen(None, &log);
    crate::log!(log, Level::Error, None, &no_context, "after");
    assert_eq!(scratch.text("old.log").lines().count(), 2);
    assert!(scratch.text("e.log").ends_with("after\n"));
    // A directory in the way: the old file stays in use.
    fs::rename(scratch.path("e.log"), scratch.path("old.log")).unwrap();
    fs::create_dir(scratch.path("e.log")).unwrap();
    files.reopen(None, &log);
    let text = scratch.text("old.log");
    let expected = format!(
        " [emerg] PID open() \"{}\" failed (21: Is a directory)",
        scratch.path("e.log").display()
    );
    assert_eq!(steady(text.lines().last().unwrap()), expected);
}

#[test]
fn a_missing_directory_is_said_in_nginxs_words() {
    let files = LogFiles::new(Path::new("/nonexistent"));
    files.file(Path::new("logs/a.log"));
    let error = files.open().unwrap_err();
    let expected = "open() \"/nonexistent/logs/a.log\" failed (2: No such file or directory)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn reopened_files_belong_to_the_workers() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    if !system::process::is_superuser() {
        return;
    }
    let scratch = Scratch::new("owner");
    let (log, files) = scratch.log(Level::Error);
    fs::set_permissions(scratch.path("e.log"), fs::Permissions::from_mode(0o044)).unwrap();
    files.reopen(Some(65534), &log);
    let about = fs::metadata(scratch.path("e.log")).unwrap();
    assert_eq!((about.uid(), about.mode() & 0o777), (65534, 0o644));
}

fn syslog(text: &str) -> Syslog {
    Syslog::new(SyslogText::parse(text).unwrap(), "nginx")
}

/// A packet with `TIME` for its time and `HOST` for this machine's name.
fn steady_packet(packet: &[u8]) -> String {
    let text = String::from_utf8(packet.to_vec()).unwrap();
    let (priority, rest) = text.split_at(text.find('>').unwrap() + 1);
    let rest = rest[15..].replacen(&system::host::name(), "HOST", 1);
    format!("{priority}TIME{rest}")
}

#[test]
fn syslog_packets_look_like_nginxs() {
    let scratch = Scratch::new("syslog");
    let path = scratch.path("s");
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let check = |parameters: &str, send: &dyn Fn(&Syslog), expected: &str| {
        send(&syslog(&format!("server=unix:{}{parameters}", path.display())));
        let mut packet = [0; 4096];
        let length = daemon.recv(&mut packet).unwrap();
        assert_eq!(steady_packet(&packet[..length]), expected);
    };
    let line = |syslog: &Syslog| syslog.send_line(|out| out.extend_from_slice(b"line"));
    check("", &line, "<190>TIME HOST nginx: line");
    check(",facility=user,severity=warn,tag=T_1", &line, "<12>TIME HOST T_1: line");
    check(",nohostname", &line, "<190>TIME nginx: line");
    let error = |syslog: &Syslog| syslog.send_error(Level::Crit, b"2026 [crit] 1#1: text\n");
    check(",severity=debug", &error, "<186>TIME HOST nginx: 2026 [crit] 1#1: text");
    let long = |syslog: &Syslog| syslog.send_line(|out| out.extend_from_slice(&[b'x'; 9000]));
    send_long(&daemon, &path, long);
}

fn send_long(daemon: &UnixDatagram, path: &Path, send: impl Fn(&Syslog)) {
    send(&syslog(&format!("server=unix:{}", path.display())));
    let mut packet = [0; 16384];
    assert_eq!(daemon.recv(&mut packet).unwrap(), LINE_LIMIT + syslog::HEAD_LIMIT);
}

#[test]
fn syslog_over_udp() {
    let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
    daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let port = daemon.local_addr().unwrap().port();
    let about = SyslogText::parse(&format!("server=127.0.0.1:{port}")).unwrap();
    let sink = Sink::Syslog(Rc::new(Syslog::new(about, "heng")));
    let log = Log::of_targets(vec![Target { level: Level::Error, sink }]);
    crate::log!(log, Level::Error, Some(3), &no_context, "text");
    let mut packet = [0; 4096];
    let length = daemon.recv(&mut packet).unwrap();
    let text = steady_packet(&packet[..length]);
    let (head, line) = text.split_at("<187>TIME HOST heng: ".len());
    assert_eq!((head, steady(line).as_str()), ("<187>TIME HOST heng: ", " [error] PID *3 text"));
}

#[test]
fn a_lost_daemon_is_reported_once_and_found_again() {
    let scratch = Scratch::new("lost");
    let (report, _files) = scratch.log(Level::Error);
    report.set_process();
    let path = scratch.path("s");
    let syslog = syslog(&format!("server=unix:{}", path.display()));
    let line = || syslog.send_line(|out| out.push(b'x'));
    line();
    line();
    let text = scratch.text("e.log");
    let server = path.display();
    let expected = format!(
        " [alert] PID connect() failed (2: No such file or directory) \
         while logging to syslog, server: unix:{server}\n"
    );
    assert_eq!(steady(&text), expected);
    for _ in 0..2 {
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The first line after the daemon went away is lost, as the socket dies with it.
        line();
        line();
        assert!(daemon.recv(&mut [0; 100]).unwrap() > 0);
        drop(daemon);
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(scratch.text("e.log").lines().count(), 1);
}

#[test]
fn a_full_socket_does_not_block() {
    let scratch = Scratch::new("full");
    let path = scratch.path("s");
    let daemon = UnixDatagram::bind(&path).unwrap();
    let syslog = syslog(&format!("server=unix:{}", path.display()));
    for _ in 0..10_000 {
        syslog.send_line(|out| out.push(b'x'));
    }
    assert!(daemon.recv(&mut [0; 100]).unwrap() > 0);
}

/// Runs a piece of a worker's life with a flusher, on a driver of this test's own thread.
fn with_flusher(life: impl Future<Output = ()>) {
    driver::start(driver::Settings::default()).unwrap();
    driver::spawn(flusher());
    driver::block_on(life);
    driver::stop().unwrap();
}

fn lines_of(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

fn opened(scratch: &Scratch, buffering: Option<Buffering>) -> Rc<LogFile> {
    let files = LogFiles::new(&scratch.0);
    let file = files.file(Path::new("a.log"));
    if let Some(buffering) = buffering {
        file.set_buffering(buffering).unwrap();
    }
    files.open().unwrap();
    file
}

#[test]
fn lines_of_one_turn_are_written_together_when_it_ends() {
    let scratch = Scratch::new("turn");
    let path = scratch.path("a.log");
    let file = opened(&scratch, None);
    let line = |out: &mut Vec<u8>| out.extend_from_slice(b"line\n");
    file.add_line(line);
    assert_eq!(lines_of(&path), 1, "without a flusher at once");
    with_flusher(async {
        driver::yield_now().await;
        file.add_line(line);
        file.add_line(line);
        assert_eq!(lines_of(&path), 1, "not before the turn ends");
        driver::yield_now().await;
        assert_eq!(lines_of(&path), 3, "after it");
        file.add_line(|out| out.resize(out.len() + (64 << 10), b'x'));
        file.add_line(line);
        assert!(fs::metadata(&path).unwrap().len() > 64 << 10, "no turn holds more than so much");
        file.add_line(line);
    });
    assert!(scratch.text("a.log").ends_with("xline\nline\n"), "complete at the end of the loop");
    file.add_line(line);
    assert!(scratch.text("a.log").ends_with("xline\nline\nline\n"), "and after it at once");
}

#[test]
fn buffers_are_written_when_full_or_old() {
    let scratch = Scratch::new("buffer");
    let path = scratch.path("a.log");
    let file = opened(&scratch, Some(Buffering { size: 16, flush_ms: Some(20), gzip: None }));
    let size = || fs::metadata(&path).unwrap().len();
    let add = |bytes: usize| file.add_line(|out| out.resize(out.len() + bytes, b'\n'));
    with_flusher(async {
        driver::yield_now().await;
        add(6);
        add(10);
        driver::yield_now().await;
        assert_eq!(size(), 0, "exactly full is not too full");
        add(5);
        assert_eq!(size(), 16, "what does not fit drives out what is there");
        add(17);
        assert_eq!(size(), 38, "what never fits is written through");
        add(3);
        let (begun, timer) = (driver::now(), driver::Timer::new());
        while size() == 38 {
            assert!(driver::now() < begun + 10_000, "an old buffer was not written");
            timer.set(driver::now() + 1);
            std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        }
        assert!(driver::now() >= begun + 20, "written too early");
        assert_eq!(size(), 41);
        add(4);
    });
    assert_eq!(size(), 45, "complete at the end of the loop");
    add(2);
    assert_eq!(size(), 45);
    flush_all();
    assert_eq!(size(), 47);
}

#[test]
fn a_buffer_without_a_time_waits_for_the_end() {
    let scratch = Scratch::new("patient");
    let path = scratch.path("a.log");
    let file = opened(&scratch, Some(Buffering { size: 100, flush_ms: None, gzip: None }));
    let conflict = Buffering { size: 101, flush_ms: None, gzip: None };
    assert!(file.set_buffering(conflict).is_err());
    with_flusher(async {
        for _ in 0..10 {
            file.add_line(|out| out.push(b'\n'));
            driver::yield_now().await;
        }
        assert_eq!(lines_of(&path), 0);
    });
    assert_eq!(lines_of(&path), 10);
    file.add_line(|out| out.push(b'\n'));
    drop(file);
    assert_eq!(lines_of(&path), 10, "still in the queue of this process");
    flush_all();
    assert_eq!(lines_of(&path), 11);
}

#[test]
fn pipes_get_whole_lines_that_do_not_mix() {
    let check = |lengths: &[usize], expected: &[usize]| {
        let mut lines = Vec::new();
        for length in lengths {
            lines.resize(lines.len() + length - 1, b'x');
            lines.push(b'\n');
        }
        let found: Vec<usize> = file::pieces(&lines).map(<[u8]>::len).collect();
        assert_eq!(found, expected);
    };
    check(&[], &[]);
    check(&[10, 20], &[30]);
    check(&[4096, 1], &[4096, 1]);
    check(&[4000, 96, 97], &[4096, 97]);
    check(&[4000, 97], &[4000, 97]);
    check(&[5000, 10], &[5000, 10]);
    check(&[10, 5000, 10], &[10, 5000, 10]);
}

#[test]
fn a_file_that_cannot_be_written_is_reported_once() {
    let scratch = Scratch::new("full-disk");
    let (report, _files) = scratch.log(Level::Error);
    report.set_process();
    let files = LogFiles::new(Path::new("/"));
    let full = files.file(Path::new("/dev/full"));
    files.open().unwrap();
    full.add_line(|out| out.extend_from_slice(b"a\n"));
    full.add_line(|out| out.extend_from_slice(b"b\n"));
    let expected = " [alert] PID write() to \"/dev/full\" failed (28: No space left on device)\n";
    assert_eq!(steady(&scratch.text("e.log")), expected);
}

#[test]
fn messages_may_also_go_to_the_terminal() {
    // What reaches descriptor 2 is seen from another process: this one shares it with the
    // test's own output.
    let Ok(own) = std::env::current_exe() else { return };
    if std::env::var_os("MIRROR_TEST").is_some() {
        let scratch = Scratch::new("mirror");
        let (log, _files) = scratch.log(Level::Notice);
        mirror_to_stderr(Some("nginx"));
        log.fail(Level::Emerg, Errno(13), None, format_args!("open() \"/p\""), &no_context);
        log.write(Level::Notice, None, format_args!("quiet"), &no_context);
        mirror_to_stderr(None);
        log.write(Level::Emerg, None, format_args!("detached"), &no_context);
        Log::stderr("nginx").write(Level::Warn, None, format_args!("alone"), &no_context);
        Log::early("nginx", Path::new("/nonexistent/e"));
        return;
    }
    let name = "log::tests::messages_may_also_go_to_the_terminal";
    let output = std::process::Command::new(own)
        .args(["--exact", name, "--nocapture"])
        .env("MIRROR_TEST", "1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "nginx: [emerg] open() \"/p\" (13: Permission denied)\n\
        nginx: [warn] alone\n\
        nginx: [alert] could not open error log file: \
        open() \"/nonexistent/e\" failed (2: No such file or directory)\n";
    assert_eq!(said, expected);
}
