//! Master and workers: what the directives of the main level do to processes, and what signals
//! do to all of them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use system::process::Pid;
use system::signals;
use testkit::{Client, Config, Server, Signal, kill, until};

/// A server that answers 204, with lines at the main level and everything in its error log.
fn serving(main: &str) -> Config {
    Config::server("location / { return 204; }").main(main).main("error_log error.log notice;")
}

/// A file of /proc about a process.
fn proc(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

/// Where a link of /proc about a process points.
fn proc_link(pid: u32, name: &str) -> String {
    let target = fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
    target.to_string_lossy().into_owned()
}

/// The words behind `key` in a file of /proc with lines like `Uid: 0 0 0 0`.
fn row(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What ps shows for a process.
fn title(pid: u32) -> String {
    proc(pid, "cmdline").trim_end_matches('\0').to_owned()
}

#[test]
fn worker_processes_sets_their_number() {
    let server = Server::start(serving("worker_processes 3;").called("nginx"));
    let workers = server.wait_workers(3);
    assert!(title(server.pid()).starts_with("nginx: master process /"), "{}", title(server.pid()));
    for worker in workers {
        assert_eq!(title(worker), "nginx: worker process");
    }
    server.get("/").expect(204);
}

#[test]
fn one_worker_per_processor_with_auto() {
    let processors = fs::read_to_string("/proc/stat").unwrap();
    let processors = processors.lines().filter(|line| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let server = Server::start(serving("worker_processes auto;"));
    server.wait_workers(processors.count());
}

#[test]
fn a_daemon_leaves_its_terminal() {
    let mut server = Server::start(serving("daemon on;").called("nginx"));
    let pid = server.pid();
    for stream in ["fd/0", "fd/1"] {
        assert_eq!(proc_link(pid, stream), "/dev/null");
    }
    // Field 6 of proc_pid_stat(5) is the session: the daemon leads one of its own.
    let stat = proc(pid, "stat");
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    assert_eq!(behind_name.split(' ').nth(3), Some(pid.to_string().as_str()));
    assert!(proc_link(pid, "fd/2").ends_with("/error.log"));
    server.get("/").expect(204);
    assert_eq!(server.stop().code, Some(0));
    assert!(!server.path("nginx.pid").exists());
}

#[test]
fn one_process_does_everything_without_a_master() {
    let mut server = Server::start(serving("master_process off;"));
    assert_eq!(server.workers(), []);
    server.get("/").expect(204);
    server.signal(Signal::HUP);
    server.wait_for_log("reconfiguring");
    server.get("/").expect(204);
    server.signal(Signal::USR1);
    server.wait_for_log("reopening logs");
    assert_eq!(server.quit().code, Some(0));
    assert!(server.error_log().contains("gracefully shutting down"));
    assert!(!server.path("nginx.pid").exists());
}

#[test]
fn the_pid_file_stands_where_it_is_told_and_goes_in_the_end() {
    let mut server = Server::start(serving("pid %%DIR%%/logs/other.pid;"));
    let text = server.read("logs/other.pid");
    assert_eq!(text, format!("{}\n", server.pid()));
    assert!(title(server.pid()).contains("master process"));
    assert_eq!(server.quit().code, Some(0));
    assert!(!server.path("logs/other.pid").exists());
}

#[test]
fn a_pid_file_that_cannot_be_written_refuses_the_start() {
    let outcome = Server::run(serving("pid /nowhere/at/all.pid;")).expect(1);
    let expected = "[emerg] open() \"/nowhere/at/all.pid\" failed (2: No such file or directory)";
    assert!(outcome.stderr.contains(expected), "{outcome}");
}

#[test]
fn workers_run_as_the_user_that_is_told() {
    let nobody = fs::read_to_string("/etc/passwd").unwrap();
    let nobody = nobody.lines().find_map(|line| line.strip_prefix("nobody:x:")).unwrap();
    let uid = nobody.split(':').next().unwrap().to_owned();
    let own = row(&proc(std::process::id(), "status"), "Uid");
    let group = if fs::read_to_string("/etc/group").unwrap().contains("\nnogroup:") {
        "nogroup"
    } else {
        "nobody"
    };
    let server = Server::start(serving(&format!("user nobody {group};")));
    let worker = server.wait_workers(1)[0];
    let found = row(&proc(worker, "status"), "Uid");
    if own.starts_with("0 ") {
        assert_eq!(found, [uid.as_str(); 4].join(" "));
        assert_eq!(row(&proc(server.pid(), "status"), "Uid"), "0 0 0 0");
    } else {
        assert_eq!(found, own);
        server.wait_for_log("the \"user\" directive makes sense only if the master process runs");
    }
}

#[test]
fn workers_get_their_limits_priority_processor_and_directory() {
    let main = "worker_rlimit_nofile 123; worker_rlimit_core 4k; worker_priority 5;
                worker_cpu_affinity 1; working_directory %%DIR%%/html;";
    let server = Server::start(serving(main));
    let worker = server.wait_workers(1)[0];
    let limits = proc(worker, "limits");
    assert_eq!(row(&limits, "Max open files"), "123 123 files");
    assert_eq!(row(&limits, "Max core file size"), "4096 4096 bytes");
    assert_eq!(row(&proc(worker, "status"), "Cpus_allowed_list"), "0");
    assert!(proc_link(worker, "cwd").ends_with("/html"));
    // proc_pid_stat(5): field 19 is the nice value, the 17th behind the name.
    let stat = proc(worker, "stat");
    assert_eq!(stat.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("5"));
    server.wait_for_log("sched_setaffinity(): using cpu #0");
}

#[test]
fn workers_that_cannot_run_refuse_the_start() {
    for daemon in ["on", "off"] {
        let config = serving("working_directory /nowhere/at/all; daemon %%DAEMON%%;");
        let outcome = Server::run(config.with("DAEMON", daemon)).expect(1);
        let reason = "chdir(\"/nowhere/at/all\") failed (2: No such file or directory)";
        assert!(outcome.stderr.contains(reason), "{outcome}");
        assert!(outcome.stderr.contains("exited with fatal code 2 and cannot be respawned"));
    }
}

#[test]
fn a_worker_that_cannot_run_after_a_reload_is_not_started_for_ever() {
    let mut server = Server::start(serving(""));
    server.expect_alerts();
    let text = server.read("nginx.conf");
    server.write("nginx.conf", format!("working_directory /nowhere/at/all; {text}"));
    server.signal(Signal::HUP);
    server.wait_for_log("exited with fatal code 2 and cannot be respawned");
    server.write("nginx.conf", text);
    server.reload();
    server.get("/").expect(204);
    assert_eq!(server.error_log().matches("start worker process ").count(), 3);
}

#[test]
fn the_event_method_is_chosen() {
    for method in ["select", "poll"] {
        let config = Config::new(
            "error_log error.log notice; events { use %%METHOD%%; }
             http { server { listen 127.0.0.1:%%PORT_0%%; return 204; } }",
        );
        let server = Server::start(config.with("METHOD", method));
        server.get("/").expect(204);
        server.wait_for_log(&format!("using the \"{method}\" event method"));
    }
}

#[test]
fn worker_connections_limits_a_worker() {
    let config = Config::new(
        "error_log error.log notice; events { worker_connections 3; }
         http { server { listen 127.0.0.1:%%PORT_0%%; return 204; } }",
    );
    let mut server = Server::start(config);
    server.expect_alerts();
    // None of them sends anything, so none of them is idle between two requests.
    let silent: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    server.wait_for_log("[alert] ");
    server.wait_for_log("3 worker_connections are not enough");
    drop(silent);
    server.get("/").expect(204);
}

#[test]
fn multi_accept_takes_all_that_wait() {
    // Each client has sent its request before the worker looks: one that takes a single client
    // at a time never has two of them, one that takes all has more than it may. (io_uring looks
    // at a new client only when it looks for the next one, too.)
    let all = Config::new(
        "events { use epoll; worker_connections 2; multi_accept on; }
         http { server { listen 127.0.0.1:%%PORT_0%%; return 204; } }",
    );
    let one = Config::new(
        "events { use epoll; worker_connections 2; }
         http { server { listen 127.0.0.1:%%PORT_0%%; return 204; } }",
    );
    for (config, at_once) in [(all, true), (one, false)] {
        let mut server = Server::start(config);
        server.expect_alerts();
        let worker = server.wait_workers(1)[0];
        send(worker, STOP);
        let mut clients: Vec<Client> = (0..6).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.0\r\n\r\n");
        }
        send(worker, CONT);
        for client in &mut clients {
            assert!(client.read_to_end().starts_with(b"HTTP/1.1 204"));
        }
        let refused = server.error_log().contains("2 worker_connections are not enough");
        assert_eq!(refused, at_once, "{}", server.error_log());
    }
}

/// Sends a signal to a process by its number, as `kill(1)` does.
fn send(pid: u32, signal: signals::Signal) {
    signals::send(Pid(pid as i32), signal).expect("the process is there");
}

const STOP: signals::Signal = signals::Signal(19);
const CONT: signals::Signal = signals::Signal(18);

#[test]
fn a_killed_worker_is_replaced_and_the_others_keep_their_connections() {
    let mut server = Server::start(serving("worker_processes 2;"));
    server.expect_alerts();
    let workers = server.wait_workers(2);
    // Clients of both workers; which is whose shows when one dies.
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..80 {
        let mut client = server.connect();
        client.get("/").expect(204);
        clients.push(client);
    }
    kill(workers[0]);
    server.wait_for_log(&format!("worker process {} exited on signal 9", workers[0]));
    let replaced = || server.workers().len() == 2 && !server.workers().contains(&workers[0]);
    assert!(until(replaced), "{}", server.shown_log());
    let alive = clients
        .iter_mut()
        .filter_map(|client| {
            client.try_send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
            client.try_read_response().ok()
        })
        .count();
    assert!(alive > 0, "the other worker lost its connections");
    assert!(alive < 80, "no connection was the killed worker's");
    server.get("/").expect(204);
}

#[test]
fn quit_finishes_what_is_open_and_term_does_not() {
    for (signal, finished) in [(Signal::QUIT, true), (Signal::TERM, false)] {
        let mut server = Server::start(serving(""));
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\n");
        client.wait_until_read();
        server.signal(signal);
        if finished {
            server.wait_for_log("gracefully shutting down");
            client.send("Host: x\r\n\r\n");
            client.read_response().expect(204);
        }
        assert_eq!(server.wait_exit().code, Some(0));
        assert!(client.read_to_end().is_empty());
        let log = server.error_log();
        assert_eq!(log.matches("exited with code 0").count(), 1, "{log}");
    }
}

#[test]
fn a_worker_that_does_not_finish_in_time_is_cut_off() {
    let mut server = Server::start(serving("worker_shutdown_timeout 50ms;"));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\n");
    client.wait_until_read();
    assert_eq!(server.quit().code, Some(0));
    assert!(client.read_to_end().is_empty());
}

#[test]
fn a_reload_brings_what_changed_and_keeps_the_rest() {
    let mut server = Server::start(
        Config::http(
            "server { listen 127.0.0.1:%%PORT_0%%; return 204; }
             server { listen 127.0.0.1:%%PORT_1%%; return 204; }",
        )
        .main("error_log error.log notice; worker_processes 2;"),
    );
    let old = server.wait_workers(2);
    server.reconfigure(
        Config::http(
            "server { listen 127.0.0.1:%%PORT_0%%; return 202; }
             server { listen 127.0.0.1:%%PORT_2%%; return 202; }",
        )
        .main("error_log error.log notice; worker_processes 3;"),
    );
    server.reload();
    server.connect_to(0).get("/").expect(202);
    server.connect_to(2).get("/").expect(202);
    let gone = || Client::try_connect(server.port(1)).is_err();
    assert!(until(gone), "an address that is not listened on any more accepts");
    let new = server.wait_workers(3);
    assert!(old.iter().all(|pid| !new.contains(pid)));
    for pid in old {
        server.wait_for_log(&format!("worker process {pid} exited with code 0"));
    }
}

#[test]
fn a_broken_configuration_leaves_the_old_one_running() {
    let server = Server::start(serving(""));
    let workers = server.wait_workers(1);
    let old_text = server.read("nginx.conf");
    server.write("nginx.conf", "events {}\nfoo;\nhttp {");
    server.signal(Signal::HUP);
    let line = server.wait_for_log("unknown directive \"foo\"");
    assert!(line.contains("[emerg] ") && line.ends_with("nginx.conf:2"), "{line}");
    server.wait_for_log("unexpected end of file, expecting \"}\"");
    server.get("/").expect(204);
    assert_eq!(server.workers(), workers);
    // An address that is in use by somebody else is as bad, and is found out after two seconds.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("server {{ listen {}; }} server {{", taken.local_addr().unwrap());
    server.write("nginx.conf", old_text.replacen("server {", &more, 1));
    server.signal(Signal::HUP);
    server.wait_for_log("still could not bind()");
    server.get("/").expect(204);
    assert_eq!(server.workers(), workers);
    server.write("nginx.conf", old_text);
    server.reload();
    server.get("/").expect(204);
}

#[test]
fn a_taken_address_refuses_the_start_after_some_tries() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config::http("server { listen %%TAKEN%%; }").with("TAKEN", address);
    let outcome = Server::run(config).expect(1);
    let line = format!("[emerg] bind() to {address} failed (98: Address already in use)");
    assert_eq!(outcome.stderr.matches(&line).count(), 5, "{outcome}");
    assert!(outcome.stderr.contains("[emerg] still could not bind()"), "{outcome}");
}

#[test]
fn unix_sockets_are_removed_in_the_end_and_by_a_reload() {
    let both = "server { listen unix:%%DIR%%/a.sock; listen unix:%%DIR%%/b.sock; return 204; }";
    let mut server = Server::start(Config::http(both));
    Client::connect(server.path("a.sock")).get("/").expect(204);
    server.reconfigure(Config::http("server { listen unix:%%DIR%%/a.sock; return 204; }"));
    server.reload();
    assert!(server.path("a.sock").exists() && !server.path("b.sock").exists());
    assert_eq!(server.quit().code, Some(0));
    assert!(!server.path("a.sock").exists());
}

#[test]
fn an_upgrade_hands_the_sockets_to_the_new_program() {
    let config = "server { listen 127.0.0.1:%%PORT_0%%; listen unix:%%DIR%%/a.sock; return 204; }";
    let config = Config::http(config).main("error_log error.log notice;");
    let mut server = Server::start(config);
    let mut client = server.connect();
    client.get("/").expect(204);
    let old = server.upgrade();
    assert_eq!(server.read("nginx.pid.oldbin"), format!("{old}\n"));
    server.wait_for_log("using inherited sockets from \"");
    client.get("/").expect(204);
    // A second one has to wait until one of the two is gone.
    send(old, signals::Signal::USR2);
    server.wait_for_log("the changing binary signal is ignored");
    send(old, signals::Signal::QUIT);
    assert!(until(|| !server.path("nginx.pid.oldbin").exists()), "{}", server.shown_log());
    server.get("/").expect(204);
    Client::connect(server.path("a.sock")).get("/").expect(204);
    server.signal(Signal::QUIT);
    assert!(until(|| !server.path("nginx.pid").exists()), "{}", server.shown_log());
    assert!(until(|| !server.path("a.sock").exists()));
}

#[test]
fn the_old_program_comes_back_when_the_new_one_dies() {
    let mut server = Server::start(serving("").called("nginx"));
    let pid = server.pid();
    server.write("broken", "#!/bin/sh\nexit 7\n");
    replace_program(&server, "broken");
    server.signal(Signal::USR2);
    server.wait_for_log("new binary process");
    server.wait_for_log("exited with code 7");
    assert!(until(|| server.read("nginx.pid") == format!("{pid}\n")), "{}", server.shown_log());
    assert!(!server.path("nginx.pid.oldbin").exists());
    server.get("/").expect(204);
    assert_eq!(server.quit().code, Some(0));
}

/// Puts a script of the test's directory in the place of the program.
fn replace_program(server: &Server, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = server.path(script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(path, server.path("nginx")).unwrap();
}

#[test]
fn env_decides_what_the_environment_keeps() {
    let main = "env KEPT; env GIVEN=a=b; env ABSENT;";
    let config = serving(main).called("nginx");
    let config = config.environment("KEPT", "1").environment("LOST", "1").environment("TZ", "UTC");
    let server = Server::start(config);
    let script = "#!/bin/sh\nexport -p > \"${2}draft\" && mv \"${2}draft\" \"${2}environment\"\n";
    server.write("tell", script);
    replace_program(&server, "tell");
    server.signal(Signal::USR2);
    assert!(until(|| server.path("environment").exists()), "{}", server.shown_log());
    let text = server.read("environment");
    let has = |row: &str| text.lines().any(|line| line == format!("export {row}"));
    assert!(has("KEPT='1'") && has("GIVEN='a=b'") && has("TZ='UTC'"), "{text}");
    assert!(!text.contains("LOST") && !text.contains("ABSENT"), "{text}");
}

#[test]
fn winch_stops_the_workers_of_a_daemon_and_hup_brings_them_back() {
    let mut server = Server::start(serving("daemon on; worker_processes 2;"));
    let workers = server.wait_workers(2);
    server.signal(Signal::WINCH);
    server.wait_workers(0);
    server.wait_for_log("stop accepting connections");
    server.signal(Signal::HUP);
    let new = server.wait_workers(2);
    assert!(workers.iter().all(|pid| !new.contains(pid)));
    server.get("/").expect(204);
    assert_eq!(server.quit().code, Some(0));
}

#[test]
fn workers_ignore_what_is_meant_for_the_master() {
    let server = Server::start(serving(""));
    let worker = server.wait_workers(1)[0];
    for (signal, number) in
        [(signals::Signal::HUP, 1), (signals::Signal::USR2, 12), (signals::Signal::WINCH, 28)]
    {
        send(worker, signal);
        server.wait_for_log(&format!("signal {number} (SIG"));
    }
    assert_eq!(server.error_log().matches(", ignoring").count(), 3);
    assert_eq!(server.workers(), [worker]);
    server.get("/").expect(204);
}

#[test]
fn workers_serve_on_when_their_master_is_killed() {
    let mut server = Server::start(serving(""));
    let worker = server.wait_workers(1)[0];
    kill(server.pid());
    server.wait_exit();
    server.get("/").expect(204);
    send(worker, signals::Signal::QUIT);
    let gone = || Client::try_connect(server.port(0)).is_err();
    assert!(until(gone), "{}", server.shown_log());
}

/// Clients that ask again and again over kept connections while `meanwhile` runs; any that is
/// refused or cut off fails the test. How many connections they needed, and how many requests.
fn busy_clients(port: u16, meanwhile: impl FnOnce()) -> (usize, usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let ask = move |stop: Arc<AtomicBool>| {
        let mut client = Client::connect(port);
        let (mut connections, mut requests) = (1, 0);
        while !stop.load(Relaxed) {
            let response = client.get("/").expect(204);
            requests += 1;
            if response.header("Connection") == Some("close") {
                client = Client::connect(port);
                connections += 1;
            }
        }
        (connections, requests)
    };
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || ask(stop))
        })
        .collect();
    meanwhile();
    stop.store(true, Relaxed);
    let done = clients.into_iter().map(|client| client.join().expect("a client lost nothing"));
    done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[test]
fn reloads_cost_busy_connections_nothing() {
    let server = Server::start(serving("worker_processes 2;"));
    let (connections, requests) = busy_clients(server.port(0), || {
        for _ in 0..10 {
            server.reload();
        }
    });
    // The reloads were noticed: connections moved to new workers.
    assert!(connections > 8 && requests > connections, "{connections}, {requests}");
}

#[test]
fn an_upgrade_costs_busy_connections_nothing() {
    let mut server = Server::start(serving("worker_processes 2;"));
    let (connections, requests) = busy_clients(server.port(0), || {
        for _ in 0..2 {
            let old = server.upgrade();
            send(old, signals::Signal::QUIT);
            let left = || !server.path("nginx.pid.oldbin").exists();
            assert!(until(left), "{}", server.shown_log());
        }
    });
    assert!(connections > 8 && requests > connections, "{connections}, {requests}");
}

#[test]
fn the_master_does_not_grow_with_reloads() {
    let server = Server::start(serving(""));
    let resident_kib = || -> u64 {
        let status = proc(server.pid(), "status");
        row(&status, "VmRSS").split(' ').next().unwrap().parse().unwrap()
    };
    let reload = |count: usize| {
        for _ in 0..count {
            server.reload();
        }
    };
    reload(20);
    let before = resident_kib();
    reload(60);
    let after = resident_kib();
    assert!(after <= before + 128, "from {before} to {after} KiB");
}

#[test]
fn idle_connections_spread_over_workers() {
    let server = Server::start(serving("worker_processes 4;"));
    let workers = server.wait_workers(4);
    let sockets = |pid: u32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let shares_of = |count: usize| -> Vec<usize> {
        let before: Vec<usize> = workers.iter().map(|pid| sockets(*pid)).collect();
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..count {
            let mut client = server.connect();
            client.get("/").expect(204);
            clients.push(client);
        }
        workers.iter().zip(before).map(|(pid, before)| sockets(*pid) - before).collect()
    };
    // On a busy machine the scheduler may keep workers from their turn; without turns one worker
    // takes nearly all, every time.
    let mut seen = Vec::new();
    let even = (0..4).any(|_| {
        let shares = shares_of(400);
        let even = shares.iter().all(|share| (60..=140).contains(share));
        let none_left = || workers.iter().map(|pid| sockets(*pid)).sum::<usize>() == 4;
        seen.push(shares);
        assert!(even || until(none_left), "connections stay open");
        even
    });
    assert!(even, "{seen:?}");
}
