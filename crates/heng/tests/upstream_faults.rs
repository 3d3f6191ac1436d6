//! Servers of a group that are killed, frozen, slow, talk nonsense or come and go, under load: no
//! GET fails while a healthy one is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::{Answer, Backend, Client, Config, Gate, Server, Signal, kill, reaches, signal};

/// What a bad server does, by number.
const MISDEEDS: [fn() -> Answer; 7] = [
    || Answer::text("fine"),
    Answer::close,
    Answer::reset,
    || Answer::raw("\x16\x03\x01 what is this\r\n\r\n").then_close(),
    || Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello").then_close(),
    || Answer::raw("HTTP/1.1 200 OK\r\nContent-").then_close(),
    Answer::silence,
];

/// Ways to choose; the first ones are tried in a short run too.
const METHODS: &[&str] = &[
    "",
    "least_conn;",
    "hash $request_uri consistent;",
    "random two;",
    "balance roundrobin;",
    "balance uri; hash_type consistent;",
    "balance static-rr;",
    "balance leastconn;",
    "balance uri;",
    "hash $request_uri;",
    "hash $request_uri maglev;",
    "hash $request_uri rendezvous;",
    "hash $request_uri consistent; hash_balance_factor 150;",
    "ip_hash;",
    "random;",
    "least_time header;",
    "least_time last_byte inflight;",
    "fair;",
    "wlc;",
    "sed;",
    "nq;",
    "sh port;",
    "sticky cookie who;",
    "queue 10;",
];

fn is_long() -> bool {
    std::env::var("HENG_LONG_TESTS").is_ok_and(|value| value == "1")
}

/// A group whose servers have `limit` seconds for an answer.
fn group(method: &str, limit: u64, backends: &[&Backend]) -> Config {
    let rows: String = backends
        .iter()
        .map(|backend| format!("server 127.0.0.1:{} fail_timeout=1s;", backend.port()))
        .collect();
    Config::http(&format!(
        "upstream u {{ {method} zone u 128k; {rows} }}
         server {{ listen 127.0.0.1:%%PORT_0%%;
             proxy_read_timeout {limit}s; proxy_connect_timeout {limit}s;
             proxy_next_upstream error timeout invalid_header;
             location / {{ proxy_pass http://u; }} }}"
    ))
    .main("worker_processes 2;")
}

/// Clients that ask until they are told to stop; gives the statuses other than 200.
fn load(port: u16, clients: usize, during: impl FnOnce(&AtomicUsize)) -> Vec<u16> {
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..clients)
        .map(|number| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || {
                let mut bad = Vec::new();
                let mut client = Client::connect(port);
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    asked += 1;
                    let answer = client.get(&format!("/{number}?{asked}"));
                    served.fetch_add(1, Ordering::Relaxed);
                    if answer.status != 200 {
                        bad.push(answer.status);
                    }
                    if answer.header("Connection") == Some("close") {
                        client = Client::connect(port);
                    }
                }
                bad
            })
        })
        .collect();
    during(&served);
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().flat_map(|thread| thread.join().expect("no client fails")).collect()
}

/// Waits until so many more answers came.
fn more(served: &AtomicUsize, count: usize) {
    let wanted = served.load(Ordering::Relaxed) + count;
    assert!(reaches(wanted, || served.load(Ordering::Relaxed)), "answers stopped");
}

#[test]
fn no_get_fails_while_a_healthy_server_is_left() {
    let methods: &[&str] = if is_long() { METHODS } else { &METHODS[..6] };
    for method in methods {
        // A server that takes longer than the time limit is not healthy, be it because the
        // machine is slow: then all get more time.
        let limits = [1, 4];
        let stayed_healthy = |limit: &u64| ask_while_others_fail(method, *limit);
        assert!(limits.iter().any(stayed_healthy), "{method} no machine is that slow");
    }
}

/// Fails the test when a request fails while one server is well, one comes and goes and one is bad;
/// false when the first one was not well, that is, took more than `limit` seconds.
#[track_caller]
fn ask_while_others_fail(method: &str, limit: u64) -> bool {
    let deed = Arc::new(AtomicUsize::new(0));
    let own = deed.clone();
    let bad = Backend::with(move |_| MISDEEDS[own.load(Ordering::Relaxed)]());
    let mut flapping = Backend::named("flapping");
    let good = Backend::named("good");
    let server = Server::start(group(method, limit, &[&bad, &flapping, &good]));
    let failed = load(server.port(0), 4, |served| {
        for number in 0..MISDEEDS.len() {
            deed.store(number, Ordering::Relaxed);
            more(served, 60);
            flapping.down();
            more(served, 60);
            flapping.up();
            more(served, 60);
        }
    });
    let log = server.error_log();
    let good = format!("127.0.0.1:{}", good.port());
    let is_late = |line: &str| line.contains("upstream timed out") && line.contains(&good);
    if log.lines().any(is_late) {
        return false;
    }
    assert!(failed.is_empty(), "{method} {failed:?}: {log}");
    true
}

#[test]
fn a_frozen_server_costs_one_time_limit_and_comes_back() {
    let frozen =
        Server::start(Config::http("server { listen 127.0.0.1:%%PORT_0%%; return 200 frozen; }"));
    let good = Backend::named("good");
    let server = Server::start(Config::http(&format!(
        "upstream u {{ server 127.0.0.1:{} fail_timeout=1s; server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; proxy_read_timeout 1s;
             keepalive_requests 1000000; location / {{ proxy_pass http://u; }} }}",
        frozen.port(0),
        good.port(),
    )));
    assert_eq!(server.get("/").text(), "frozen");
    let processes: Vec<u32> = frozen.workers();
    processes.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let begin = Instant::now();
    let mut client = server.connect();
    while begin.elapsed() < Duration::from_millis(1_600) {
        assert_eq!(client.get("/").expect(200).text(), "good");
    }
    let elapsed = begin.elapsed().as_secs();
    processes.iter().for_each(|pid| signal(*pid, Signal::CONT));
    let limits = server.error_log().matches("upstream timed out").count() as u64;
    // It rests after a time limit, each of which takes a second, for another one at least.
    assert!((1..=elapsed.div_ceil(2)).contains(&limits), "{limits} time limits in {elapsed} s");
    server.wait_until("it is asked again", || client.get("/").text() == "frozen");
}

#[test]
fn a_server_that_fails_rests_and_returns_within_its_times() {
    let mut bad = Backend::named("bad");
    let good = Backend::named("good");
    let server = Server::start(Config::http(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{} max_fails=2 fail_timeout=2s;
             server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; keepalive_requests 1000000;
             location / {{ proxy_pass http://u; proxy_http_version 1.0;
                 add_header X-Asked $upstream_addr always; }} }}",
        bad.port(),
        good.port(),
    )));
    let mut client = server.connect();
    let address = format!("127.0.0.1:{}", bad.port());
    let mut asks = || {
        let response = client.get("/").expect(200);
        response.header("X-Asked").is_some_and(|asked| asked.contains(&address))
    };
    bad.down();
    // Two failures, and none more while it rests.
    let mut failing = Instant::now();
    for _ in 0..2 {
        let asked = (0..4).any(|_| {
            failing = Instant::now();
            asks()
        });
        assert!(asked, "it is not asked until it rests");
    }
    let failed = Instant::now();
    bad.up();
    let mut late = 0;
    loop {
        let is_late = failed.elapsed() > Duration::from_secs(3);
        if asks() {
            break;
        }
        late += usize::from(is_late);
        assert!(late < 4, "it does not return");
    }
    // Seconds are whole: two of them are more than one and at most three.
    let rested = failing.elapsed();
    assert!(rested >= Duration::from_secs(1), "it returned after {rested:?}");
    // It works, so it has its share again.
    assert_eq!((0..20).filter(|_| asks()).count(), 10);
}

#[test]
fn what_a_killed_worker_had_under_way_is_free_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::with(move |request| match request.target.as_str() {
        "/hold" => Answer::text("held").after_gate(&held),
        _ => Answer::text("free"),
    });
    let mut server = Server::start(
        Config::http(
            "upstream u { zone u 128k; server 127.0.0.1:%%A%% max_conns=2; }
             server { listen 127.0.0.1:%%PORT_0%%; add_header X-Worker $pid always;
                 location /pid { return 200 $pid; }
                 location / { proxy_pass http://u; } }",
        )
        .with("A", backend.port())
        .main("worker_processes 2;"),
    );
    server.expect_alerts();
    for round in 1..4 {
        server.wait_workers(2);
        // Both requests in one worker.
        let mut first = server.connect();
        let worker = first.get("/pid").expect(200).text();
        let mut second = loop {
            let mut client = server.connect();
            if client.get("/pid").expect(200).text() == worker {
                break client;
            }
        };
        first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
        second.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
        gate.wait_arrived(2 * round);
        server.get("/").expect(502);
        kill(worker.parse().expect("a process id"));
        server.wait_until("its requests are taken back", || server.get("/").status == 200);
        // Exactly its own: one more than two are still too many.
        server.wait_workers(2);
    }
    gate.open();
}

#[test]
fn limits_are_exact_after_many_reloads() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::with(move |request| match request.target.as_str() {
        "/hold" => Answer::text("held").after_gate(&held),
        _ => Answer::text("free"),
    });
    let server = Server::start(
        Config::http(
            "upstream u { zone u 128k; server 127.0.0.1:%%A%% max_conns=2; }
             server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://u; } }",
        )
        .with("A", backend.port()),
    );
    let mut holding = server.connect();
    holding.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    let failed = load(server.port(0), 1, |served| {
        for _ in 0..if is_long() { 100 } else { 20 } {
            server.reload();
            more(served, 5);
        }
    });
    assert!(failed.is_empty(), "{failed:?}");
    // One is held, so one more may come, and no third one.
    let mut second = server.connect();
    second.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(2);
    server.get("/").expect(502);
    gate.open();
    holding.read_response().expect(200);
    second.read_response().expect(200);
    server.get("/").expect(200);
}
