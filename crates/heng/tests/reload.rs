//! Reloads under load: what they cost clients, and what they leave behind in the master.

mod load;

use std::fs;
use std::time::{Duration, Instant};

use load::{Load, SPARED, telling_workers, worker_of};
use testkit::{Client, Config, Server, Signal, sockets_of, steady, until};

/// True when there is time for the whole measure instead of a short one.
fn long() -> bool {
    std::env::var("HENG_LONG_TESTS").is_ok_and(|value| value == "1")
}

#[test]
fn reloading_twice_a_second_loses_no_request_of_50_busy_connections() {
    let server = Server::start(telling_workers("worker_processes 2;"));
    let load = Load::start(server.port(0), 50);
    load.wait_answers();
    let reloads = if long() { 120 } else { 12 };
    let start = Instant::now();
    for reload in 0..reloads {
        let due = Duration::from_millis(500) * reload;
        let _ = until(|| start.elapsed() >= due);
        server.reload();
    }
    load.wait_answers();
    let seen = load.stop();
    seen.expect_no_losses(&server);
    // Each reload was felt: all generations answered, and connections moved from one to the next.
    assert!(seen.answers.len() as u32 > reloads, "{} workers answered", seen.answers.len());
    assert!(seen.farewells >= u64::from(reloads) * 10, "{} farewells", seen.farewells);
    eprintln!("{} answers, {} connections", seen.total(), seen.connections);
}

#[test]
fn a_connection_that_falls_silent_is_spared_for_two_seconds() {
    let server = Server::start(telling_workers("worker_processes 1;"));
    let old = server.wait_workers(1)[0];
    let mut talker = server.connect();
    assert_eq!(worker_of(&talker.get("/")), old);
    let mut silent = server.connect();
    let silent_since = Instant::now();
    assert_eq!(worker_of(&silent.get("/")), old);
    // One that has not said anything yet may be about to.
    let mut fresh = server.connect();
    server.reload();
    let response = talker.get("/").expect(200);
    assert_eq!(response.header("Connection"), Some("close"));
    assert_eq!(worker_of(&response), old);
    talker.expect_closed();
    assert_eq!(worker_of(&fresh.get("/").expect(200)), old);
    fresh.expect_closed();
    silent.expect_closed();
    let quiet = silent_since.elapsed();
    assert!(quiet >= SPARED - Duration::from_millis(50), "closed after {quiet:?}");
    server.wait_for_log(&format!("worker process {old} exited with code 0"));
}

#[test]
fn a_request_under_way_is_finished_by_the_worker_that_took_it() {
    let gate = testkit::Gate::new();
    let held = gate.clone();
    let backend = testkit::Backend::with(move |_| testkit::Answer::text("late").after_gate(&held));
    let config = "location / { return 200 now; }
                  location /late { proxy_pass http://127.0.0.1:%%BACKEND%%; }";
    let server = Server::start(
        Config::server(config).main("error_log error.log notice;").with("BACKEND", backend.port()),
    );
    let old = server.wait_workers(1)[0];
    let mut waiting = server.connect();
    waiting.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    let mut half = server.connect();
    half.send("GET / HTTP/1.1\r\n");
    half.wait_until_read();
    for _ in 0..3 {
        server.reload();
    }
    half.send("Host: a\r\n\r\n");
    assert_eq!(half.read_response().expect(200).text(), "now");
    gate.open();
    let response = waiting.read_response().expect(200);
    assert_eq!((response.text(), response.header("Connection")), ("late".into(), Some("close")));
    waiting.expect_closed();
    server.wait_for_log(&format!("worker process {old} exited with code 0"));
}

#[test]
fn what_waits_in_a_queue_that_a_reload_gives_up_is_answered() {
    let mut server = Server::start(
        Config::http(
            "server { listen 127.0.0.1:%%PORT_0%%; return 200 zero; }
             server { listen 127.0.0.1:%%PORT_1%%; return 200 one; }",
        )
        .main("worker_processes 1;"),
    );
    let worker = server.wait_workers(1)[0];
    // While the worker stands still its queue fills.
    testkit::signal(worker, Signal::STOP);
    let mut queued: Vec<Client> = (0..20).map(|_| server.connect_to(1)).collect();
    for client in &mut queued {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    server.reconfigure(Config::http("server { listen 127.0.0.1:%%PORT_0%%; return 200 new; }"));
    server.signal(Signal::HUP);
    let replaced = until(|| server.workers().iter().any(|pid| *pid != worker));
    assert!(replaced, "{}", server.shown_log());
    testkit::signal(worker, Signal::CONT);
    for client in &mut queued {
        assert_eq!(client.read_response().expect(200).text(), "one");
    }
    assert!(until(|| Client::try_connect(server.port(1)).is_err()));
    assert_eq!(server.get("/").text(), "new");
}

/// What a configuration has on disk when somebody makes a mistake, and what is logged.
const MISTAKES: &[(&str, &[&str])] = &[
    (
        "events {}\nhttp {\n    servr { listen 1; }\n}\n",
        &["[emerg] ", "unknown directive \"servr\" in ", "nginx.conf:3"],
    ),
    (
        "events {} http { server { listen 127.0.0.1:%%PORT_0%%; return 200\n",
        &["[emerg] ", "unexpected end of file, expecting \";\" or \"}\" in ", "nginx.conf:2"],
    ),
    (
        "events {} http { include missing.conf; }",
        &["[emerg] ", "missing.conf\" failed (2: No such file or directory)", "nginx.conf:1"],
    ),
    (
        "error_log /nowhere/at/all.log;\nevents {}\n",
        &["[emerg] ", "open() \"/nowhere/at/all.log\" failed (2: No such file or directory)"],
    ),
    (
        "events {} http { server { listen 192.0.2.1:80; } }",
        &["[emerg] ", "bind() to 192.0.2.1:80 failed (99: Cannot assign requested address)"],
    ),
    (
        "events {} http { server { listen unix:%%DIR%%/no/such.sock; } }",
        &["[emerg] ", "/no/such.sock failed (2: No such file or directory)"],
    ),
];

#[test]
fn a_mistake_leaves_the_running_instance_untouched() {
    let mut server = Server::start(telling_workers("worker_processes 2;"));
    let good = telling_workers("worker_processes 2;");
    let workers = server.wait_workers(2);
    let descriptors = sockets_of(server.pid());
    let mut client = server.connect();
    let worker = worker_of(&client.get("/"));
    for (text, said) in MISTAKES {
        let before = server.error_log().len();
        server.reconfigure(Config::new(text));
        server.signal(Signal::HUP);
        let line = || {
            let log = server.error_log();
            let line = log[before..].lines().find(|line| line.contains(said[0]));
            line.map(str::to_owned).filter(|_| log.ends_with('\n'))
        };
        server.wait_until("a refused configuration is logged", || line().is_some());
        let line = line().unwrap_or_default();
        assert!(said.iter().all(|part| line.contains(part)), "{text}: {line}");
        let response = client.get("/").expect(200);
        assert_eq!(
            (worker_of(&response), response.header("Connection")),
            (worker, Some("keep-alive"))
        );
        assert_eq!(server.workers(), workers);
        assert_eq!(sockets_of(server.pid()), descriptors, "{text}");
    }
    server.reconfigure(good);
    server.reload();
    assert!(!workers.contains(&worker_of(&server.get("/").expect(200))));
}

/// Resident memory of a process in KiB, of which file pages are not part.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("a line about memory")
}

fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn the_master_is_the_same_after_a_thousand_reloads() {
    let config = "upstream a { server 127.0.0.1:1; server 127.0.0.1:2 backup; zone a 64k; }
                  server {
                      listen 127.0.0.1:%%PORT_0%%; server_name a *.b ~^(?<c>.*)$;
                      location / { return 200 $pid; }
                      location ~ ^/(x|y) { proxy_pass http://a; proxy_set_header X $c; }
                  }";
    let config = Config::http(config).main("worker_processes 1; error_log error.log notice;");
    let mut server = Server::start(config);
    let master = server.pid();
    let mut worker = server.wait_workers(1)[0];
    let mut reload = |times: usize| {
        for _ in 0..times {
            server.signal(Signal::HUP);
            let next = || server.workers().into_iter().find(|pid| *pid != worker);
            server.wait_until("a worker of the next generation", || next().is_some());
            let newest = next().unwrap_or_default();
            // Only then: a worker that lives on makes the next look ambiguous.
            let gone = || !fs::exists(format!("/proc/{worker}")).unwrap_or(true);
            server.wait_until("the end of the old worker", gone);
            worker = newest;
        }
        // The last worker's channel may be open for a moment longer than the worker is there.
        let descriptors = steady(Duration::from_millis(100), || open_descriptors(master));
        (resident_kib(master), descriptors)
    };
    let (early_kib, early_descriptors) = reload(100);
    let times = if long() { 900 } else { 400 };
    let (late_kib, late_descriptors) = reload(times);
    assert_eq!(early_descriptors, late_descriptors);
    // An allocator takes some hundred reloads until its pieces fit; then nothing grows any more.
    let limit = early_kib + 128;
    assert!(late_kib <= limit, "{early_kib} KiB became {late_kib} KiB after {times} reloads");
    server.get("/").expect(200);
    assert_eq!(server.quit().code, Some(0));
    eprintln!("{early_kib} KiB, then {late_kib} KiB");
}
