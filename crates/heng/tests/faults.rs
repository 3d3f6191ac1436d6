//! What goes wrong around the program: workers that are killed, descriptors and rights that are
//! missing, addresses that are taken. What else runs is untouched, and one line says why.

mod load;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use load::{Load, telling_workers, worker_of};
use testkit::{Answer, Backend, Client, Config, Gate, Outcome, Server, kill, sockets_of, until};

/// Clients with the worker that holds their connection.
fn clients_of(server: &Server, count: usize) -> BTreeMap<u32, Vec<Client>> {
    let mut held: BTreeMap<u32, Vec<Client>> = BTreeMap::new();
    for _ in 0..count {
        let mut client = server.connect();
        let worker = worker_of(&client.get("/").expect(200));
        held.entry(worker).or_default().push(client);
    }
    held
}

#[test]
fn a_killed_worker_costs_its_own_open_requests_and_nothing_else() {
    let gate = Gate::new();
    let held_back = gate.clone();
    let backend = Backend::with(move |_| Answer::text("late").after_gate(&held_back));
    let config = "add_header X-Worker $pid always;
                  location / { return 200 now; }
                  location /late { proxy_pass http://127.0.0.1:%%BACKEND%%; }";
    let config = Config::server(config).with("BACKEND", backend.port());
    let mut server = Server::start(config.main("worker_processes 3; error_log error.log notice;"));
    server.expect_alerts();
    let workers = server.wait_workers(3);
    let mut clients = clients_of(&server, 60);
    assert_eq!(clients.len(), 3, "{:?} hold connections", clients.keys());
    // One connection of each worker waits for an answer.
    for clients in clients.values_mut() {
        clients[0].send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_arrived(3);
    let victim = workers[1];
    let start = Instant::now();
    kill(victim);
    let newcomer = || server.workers().into_iter().find(|pid| !workers.contains(pid));
    server.wait_until("a new worker", || newcomer().is_some());
    let replaced = start.elapsed();
    assert!(replaced < Duration::from_secs(1), "replaced after {replaced:?}");
    gate.open();
    for (worker, clients) in &mut clients {
        if *worker == victim {
            for client in clients {
                // Ended with a reset or in order: what the kernel does for a process that is gone.
                assert!(client.try_read_response().is_err());
            }
            continue;
        }
        assert_eq!(clients[0].read_response().expect(200).text(), "late");
        for client in clients {
            assert_eq!(worker_of(&client.get("/").expect(200)), *worker);
        }
    }
    // The new worker takes its part.
    let newcomer = newcomer().unwrap_or_default();
    let serves = || worker_of(&server.get("/").expect(200)) == newcomer;
    server.wait_until("an answer of the new worker", serves);
}

#[test]
fn killing_worker_after_worker_loses_no_connection_of_the_others() {
    let mut server = Server::start(telling_workers("worker_processes 2;"));
    server.expect_alerts();
    for _ in 0..5 {
        let workers = server.wait_workers(2);
        let mut clients = clients_of(&server, 16);
        let victim = workers[0];
        kill(victim);
        server.wait_for_log(&format!("worker process {victim} exited on signal 9"));
        for (worker, clients) in clients.iter_mut().filter(|(worker, _)| **worker != victim) {
            for client in clients {
                assert_eq!(worker_of(&client.get("/").expect(200)), *worker);
            }
        }
        let replaced = || server.workers().iter().filter(|pid| !workers.contains(pid)).count() == 1;
        server.wait_until("the successor", replaced);
    }
    server.get("/").expect(200);
}

#[test]
fn connections_that_come_all_at_once_are_shared_too() {
    let server = Server::start(telling_workers("worker_processes 4;"));
    server.wait_workers(4);
    let load = Load::start(server.port(0), 4);
    load.wait_answers();
    load.stop().expect_no_losses(&server);
    let mut clients: Vec<Client> = (0..400).map(|_| server.connect()).collect();
    let mut held: BTreeMap<u32, usize> = BTreeMap::new();
    for client in &mut clients {
        *held.entry(worker_of(&client.get("/").expect(200))).or_default() += 1;
    }
    assert_eq!(held.len(), 4, "{held:?}");
    assert!(held.values().all(|count| (60..=140).contains(count)), "{held:?}");
}

#[test]
fn a_worker_without_descriptors_keeps_what_it_has() {
    let config = Config::new(
        "worker_rlimit_nofile 24; error_log error.log notice;
         events { worker_connections 1000; }
         http { server { listen 127.0.0.1:%%PORT_0%%; return 200 ok; } }",
    );
    let server = Server::start(config);
    let worker = server.wait_workers(1)[0];
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\n");
    client.wait_until_read();
    // The worker makes room by closing idle connections, oldest first, but not those in use.
    let mut silent: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    let line = server.wait_for_log("accept4() failed");
    assert!(line.contains("[crit] ") && line.ends_with("(24: Too many open files)"), "{line}");
    client.send("Host: a\r\n\r\n");
    client.read_response().expect(200);
    let newest = silent.pop().map(|mut client| client.get("/"));
    assert_eq!(newest.map(|response| response.status), Some(200));
    drop(silent);
    server.get("/").expect(200);
    assert_eq!(server.workers(), [worker]);
    // It pauses after each failure instead of trying again and again.
    let tries = server.error_log().matches("accept4() failed").count();
    assert!(tries <= 20, "{tries} tries");
}

/// A script that runs the program under test after `preparation`, and stands in its place.
fn prepared(preparation: &str) -> String {
    format!("#!/bin/sh\n{preparation} \"{}\" \"$@\"\n", testkit::binary().display())
}

/// Runs the program with a configuration, through a script that prepares its surroundings.
fn run_prepared(config: Config, preparation: &str) -> Outcome {
    let script = prepared(preparation);
    let name = format!("heng-prepared-{}-{}", std::process::id(), preparation.len());
    let path = std::env::temp_dir().join(name);
    write_script(&path, &script);
    let outcome = Server::run(config.program(&path));
    let _ = fs::remove_file(path);
    outcome
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).expect("a temporary directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

/// Many addresses to listen on.
fn many_listeners(count: usize) -> String {
    (1..=count).map(|n| format!("listen 127.0.0.1:%%PORT_{n}%%; ")).collect()
}

#[test]
fn a_start_without_descriptors_says_so() {
    let listeners = many_listeners(30);
    let config = Config::http(&format!("server {{ {listeners} return 204; }}"));
    let outcome = run_prepared(config, "ulimit -n 20; exec").expect(1);
    assert_eq!(outcome.stderr.matches("[emerg]").count(), 1, "{outcome}");
    assert!(outcome.stderr.contains(" failed (24: Too many open files)"), "{outcome}");
}

#[test]
fn a_reload_without_descriptors_leaves_the_old_configuration() {
    let script = prepared("ulimit -n 24; exec");
    let path = std::env::temp_dir().join(format!("heng-few-{}", std::process::id()));
    write_script(&path, &script);
    let config = telling_workers("worker_processes 1;");
    let mut server = Server::start(config.clone().program(&path));
    let workers = server.wait_workers(1);
    let open = sockets_of(server.pid());
    let listeners = many_listeners(40);
    server.reconfigure(Config::http(&format!("server {{ {listeners} return 204; }}")));
    server.signal(testkit::Signal::HUP);
    let line = server.wait_for_log("[emerg]");
    assert!(line.ends_with(" failed (24: Too many open files)"), "{line}");
    assert_eq!(worker_of(&server.get("/").expect(200)), workers[0]);
    assert!(until(|| sockets_of(server.pid()) == open), "sockets stay open");
    server.reconfigure(config.program(&path));
    server.reload();
    server.get("/").expect(200);
    let _ = fs::remove_file(path);
}

#[test]
fn what_cannot_be_opened_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("an address");
    let server = |text: &str| Config::http(&format!("server {{ {text} }}"));
    for (config, expected) in [
        (Config::new("events {}").main("evnts {}"), "unknown directive \"evnts\" in "),
        (Config::new("events {}\nhttp {\n"), "unexpected end of file, expecting \"}\" in "),
        (
            server("listen 192.0.2.1:8080;"),
            "bind() to 192.0.2.1:8080 failed (99: Cannot assign requested address)",
        ),
        (
            server("listen unix:/nowhere/at/all.sock;"),
            "bind() to unix:/nowhere/at/all.sock failed (2: No such file or directory)",
        ),
        (
            server("listen 127.0.0.1:%%PORT_0%%; access_log /nowhere/at/all.log;"),
            "open() \"/nowhere/at/all.log\" failed (2: No such file or directory)",
        ),
        (
            server("listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://no.invalid; }"),
            "host not found in upstream \"no.invalid\" in ",
        ),
    ] {
        let outcome = Server::run(config).expect(1);
        assert_eq!(outcome.stderr.matches("[emerg]").count(), 1, "{outcome}");
        assert!(outcome.stderr.contains(expected), "{expected}: {outcome}");
    }
    let outcome = Server::run(server(&format!("listen {taken};"))).expect(1);
    let line = format!("bind() to {taken} failed (98: Address already in use)");
    assert!(outcome.stderr.contains(&line), "{outcome}");
}

#[test]
fn without_permission_nothing_starts_and_the_reason_is_said() {
    let own = fs::metadata("/proc/self").map(|about| about.uid());
    let config = Config::http("server { listen 127.0.0.1:%%PORT_0%%; return 204; }");
    let outcome = match own.expect("proc(5) is mounted") {
        // The test's directory is closed to everybody but root.
        0 => run_prepared(config, "exec setpriv --reuid 65534 --clear-groups"),
        _ => run_prepared(config, "chmod 0 \"$2nginx.conf\"; exec"),
    };
    let outcome = outcome.expect(1);
    assert_eq!(outcome.stderr.matches("[emerg]").count(), 1, "{outcome}");
    assert!(outcome.stderr.contains("nginx.conf\" failed (13: Permission denied)"), "{outcome}");
}
