//! Groups of backends: who is chosen, who is left out, when the next one is tried.

use std::collections::BTreeMap;
use testkit::{Answer, Backend, Config, Gate, Server};

/// Backends named a, b, c, ...
fn named(count: usize) -> Vec<Backend> {
    ["a", "b", "c", "d"][..count].iter().map(|name| Backend::named(name)).collect()
}

/// A server with a group of these rows, in which `%%A%%` is the port of the first backend and so
/// on, and a location with more directives.
fn balance(group: &str, location: &str, backends: &[&Backend]) -> Server {
    balance_with(group, location, "", backends)
}

fn balance_with(group: &str, location: &str, main: &str, backends: &[&Backend]) -> Server {
    let mut config = Config::http(&format!(
        "upstream u {{ {group} }}
         server {{ listen 127.0.0.1:%%PORT_0%%;
             location / {{ {location} proxy_pass http://u; }} }}"
    ))
    .main(main);
    for (name, backend) in ["A", "B", "C", "D"].iter().zip(backends) {
        config = config.with(name, backend.port());
    }
    Server::start(config)
}

/// The bodies of `count` answers, joined.
fn sequence(server: &Server, count: usize) -> String {
    let mut client = server.connect();
    (0..count).map(|_| client.get("/").text()).collect()
}

#[test]
fn requests_go_round() {
    let backends = named(3);
    let [a, b, c] = &backends[..] else { panic!() };
    let group = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; server 127.0.0.1:%%C%%;";
    let server = balance(group, "", &[a, b, c]);
    assert_eq!(sequence(&server, 6), "abcabc");
}

#[test]
fn weights_are_interleaved_smoothly() {
    let backends = named(3);
    let [a, b, c] = &backends[..] else { panic!() };
    let group = "server 127.0.0.1:%%A%% weight=5; server 127.0.0.1:%%B%%;
                 server 127.0.0.1:%%C%%;";
    let server = balance(group, "", &[a, b, c]);
    assert_eq!(sequence(&server, 14), "aabacaaaabacaa");
}

#[test]
fn servers_that_are_down_get_nothing() {
    let backends = named(2);
    let group = "server 127.0.0.1:%%A%% down; server 127.0.0.1:%%B%%;";
    let server = balance(group, "", &[&backends[0], &backends[1]]);
    assert_eq!(sequence(&server, 3), "bbb");
}

#[test]
fn a_backup_serves_when_the_others_cannot() {
    let mut a = Backend::named("a");
    let b = Backend::named("b");
    let group = "server 127.0.0.1:%%A%% max_fails=1 fail_timeout=1s;
                 server 127.0.0.1:%%B%% backup;";
    let server = balance(group, "", &[&a, &b]);
    assert_eq!(sequence(&server, 2), "aa");
    a.down();
    assert_eq!(sequence(&server, 3), "bbb");
    a.up();
    let mut client = server.connect();
    server.wait_until("the first is tried again", || client.get("/").text() == "a");
}

#[test]
fn a_dead_server_is_left_out_after_max_fails() {
    let dead = Backend::refusing();
    let alive = Backend::named("b");
    let group = "server 127.0.0.1:%%A%% max_fails=2 fail_timeout=1h; server 127.0.0.1:%%B%%;";
    let main = "error_log %%DIR%%/error.log warn;";
    let server = balance_with(group, "", main, &[&dead, &alive]);
    assert_eq!(sequence(&server, 10), "b".repeat(10));
    let failures = server.error_log().matches("connect() failed").count();
    assert_eq!(failures, 2, "{}", server.error_log());
    assert!(server.error_log().contains("upstream server temporarily disabled"));
}

#[test]
fn max_fails_0_never_gives_a_server_up() {
    let dead = Backend::refusing();
    let alive = Backend::named("b");
    let group = "server 127.0.0.1:%%A%% max_fails=0; server 127.0.0.1:%%B%%;";
    let server = balance(group, "", &[&dead, &alive]);
    assert_eq!(sequence(&server, 6), "b".repeat(6));
    // In turn: the dead one, then the next; each request begins with the dead one's turn or not.
    let failures = server.error_log().matches("connect() failed").count();
    assert!(failures >= 3, "{failures}: {}", server.error_log());
}

#[test]
fn no_live_server_is_a_bad_gateway() {
    let (one, two) = (Backend::refusing(), Backend::refusing());
    let group = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
    let server = balance(group, "", &[&one, &two]);
    assert_eq!(server.get("/").status, 502);
    assert_eq!(server.get("/").status, 502);
    let line = server.wait_for_log("no live upstreams while connecting to upstream");
    assert!(line.contains("upstream: \"http://u/\""), "{line}");
}

#[test]
fn the_next_server_answers_for_a_failed_one() {
    let failures: [fn() -> Answer; 3] = [Answer::close, Answer::reset, || {
        Answer::raw("HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n").then_close()
    }];
    for failure in failures {
        let bad = Backend::with(move |_| failure());
        let good = Backend::named("good");
        let location = "proxy_http_version 1.1; proxy_next_upstream error timeout invalid_header;";
        let group = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
        let server = balance(group, location, &[&bad, &good]);
        assert_eq!(server.get("/").expect(200).text(), "good");
        assert_eq!(bad.request_count(), 1);
    }
}

#[test]
fn proxy_next_upstream_chooses_what_is_tried_again() {
    let check = |directives: &str, method: &str, status: u16| {
        let bad = Backend::with(|_| Answer::status(503));
        let good = Backend::named("good");
        let group = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
        let server = balance(group, directives, &[&bad, &good]);
        let fields = [("Host", "a"), ("Content-Length", "0")];
        let response = server.connect().request(method, "/", &fields, b"");
        assert_eq!(response.status, status, "{directives} {method}");
    };
    check("", "GET", 503);
    check("proxy_next_upstream http_503;", "GET", 200);
    check("proxy_next_upstream http_500 http_502;", "GET", 503);
    check("proxy_next_upstream off;", "GET", 503);
    // A request that may have had an effect is not repeated, unless told.
    check("proxy_next_upstream http_503;", "POST", 503);
    check("proxy_next_upstream http_503 non_idempotent;", "POST", 200);
}

#[test]
fn proxy_next_upstream_tries_and_timeout_limit_the_search() {
    let backends: Vec<Backend> = (0..3).map(|_| Backend::with(|_| Answer::close())).collect();
    let [a, b, c] = &backends[..] else { panic!() };
    let good = Backend::named("good");
    let group = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; server 127.0.0.1:%%C%%;
                 server 127.0.0.1:%%D%%;";
    let all = [a, b, c, &good];
    assert_eq!(balance(group, "", &all).get("/").status, 200);
    let server = balance(group, "proxy_next_upstream_tries 2;", &all);
    assert_eq!(server.get("/").status, 502);

    let silent = Backend::with(|_| Answer::silence());
    let limits = "proxy_read_timeout 300ms; proxy_next_upstream_timeout 100ms;";
    let group = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
    let server = balance(group, limits, &[&silent, &good]);
    assert_eq!(server.get("/").status, 504);
}

#[test]
fn nobody_uploads_twice() {
    let bad = Backend::with(|_| Answer::reset());
    let good = Backend::with(Answer::echo);
    let group = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
    let location = "client_body_buffer_size 1k; proxy_next_upstream error non_idempotent;";
    let server = balance(group, location, &[&bad, &good]);
    let body = "0123456789".repeat(50_000);
    let response = server.connect().request(
        "POST",
        "/",
        &[("Host", "a"), ("Content-Length", "500000")],
        body.as_bytes(),
    );
    assert!(response.expect(200).text().ends_with(&body));
    assert_eq!(bad.last_request().body_text(), body);
}

#[test]
fn max_conns_bounds_what_a_server_has_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Backend::with(move |_| Answer::text("a").after_gate(&held));
    let b = Backend::named("b");
    let group = "server 127.0.0.1:%%A%% max_conns=1 weight=100; server 127.0.0.1:%%B%%;";
    let server = balance(group, "", &[&a, &b]);
    let mut first = server.connect();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    assert_eq!(sequence(&server, 3), "bbb");
    gate.open();
    assert_eq!(first.read_response().text(), "a");
    assert_eq!(sequence(&server, 1), "a");
}

#[test]
fn keepalive_reuses_connections_up_to_its_limits() {
    let location = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
    let backend = Backend::named("a");
    let server = balance("server 127.0.0.1:%%A%%; keepalive 2;", location, &[&backend]);
    sequence(&server, 5);
    assert_eq!(backend.connections(), 1);

    let backend = Backend::named("a");
    let group = "server 127.0.0.1:%%A%%; keepalive 2; keepalive_requests 2;";
    let server = balance(group, location, &[&backend]);
    sequence(&server, 5);
    assert_eq!(backend.connections(), 3);

    let backend = Backend::named("a");
    let group = "server 127.0.0.1:%%A%%; keepalive 2; keepalive_timeout 100ms;";
    let server = balance(group, location, &[&backend]);
    sequence(&server, 1);
    assert_eq!(backend.connections(), 1);
    backend.wait_open_connections(0);

    let backend = Backend::named("a");
    let group = "server 127.0.0.1:%%A%%; keepalive 2; keepalive_time 100ms;";
    let server = balance(group, location, &[&backend]);
    server.wait_until("an old connection is given up", || {
        sequence(&server, 1);
        backend.connections() > 1
    });
}

#[test]
fn keepalive_bounds_the_idle_connections() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::with(move |_| Answer::text("a").after_gate(&held));
    let location = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
    let server = balance("server 127.0.0.1:%%A%%; keepalive 2;", location, &[&backend]);
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_arrived(5);
    gate.open();
    for client in &mut clients {
        client.read_response().expect(200);
    }
    backend.wait_open_connections(2);
}

#[test]
fn a_kept_connection_that_died_is_replaced() {
    let backend = Backend::named("a");
    let location = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
    let server = balance("server 127.0.0.1:%%A%%; keepalive 2;", location, &[&backend]);
    for _ in 0..5 {
        assert_eq!(sequence(&server, 1), "a");
        backend.close_connections();
    }
}

#[test]
fn a_zone_shares_the_turn_among_workers() {
    let backends = named(2);
    let group = "zone u 128k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
    let main = "worker_processes 3;";
    let server = balance_with(group, "", main, &[&backends[0], &backends[1]]);
    // Connections of their own may go to any worker; the turn is one all the same.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut last = String::new();
    for _ in 0..12 {
        let text = server.get("/").text();
        assert_ne!(text, last, "the turn is not shared");
        *counts.entry(text.clone()).or_default() += 1;
        last = text;
    }
    assert_eq!(counts["a"], 6);
}

#[test]
fn upstream_variables_tell_the_journey() {
    let bad = Backend::with(|_| Answer::status(503));
    let good = Backend::with(|_| Answer::text("12345").header("X-Own", "yes"));
    let server = Server::start(
        Config::http(
            "log_format up '$upstream_addr|$upstream_status|$upstream_response_length|\
             $upstream_http_x_own|$upstream_response_time|$upstream_connect_time|\
             $upstream_header_time|$upstream_bytes_sent|$upstream_bytes_received';
             access_log %%DIR%%/logs/access.log up;
             upstream u { server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; }
             server { listen 127.0.0.1:%%PORT_0%%;
                 location / { proxy_next_upstream http_503; proxy_pass http://u; } }",
        )
        .with("A", bad.port())
        .with("B", good.port()),
    );
    server.get("/").expect(200);
    let line = server.wait_for_access("|");
    let fields: Vec<&str> = line.split('|').collect();
    let addresses = format!("127.0.0.1:{}, 127.0.0.1:{}", bad.port(), good.port());
    assert_eq!(fields[..4], [addresses.as_str(), "503, 200", "0, 5", "yes"], "{line}");
    for times in &fields[4..7] {
        let parts: Vec<&str> = times.split(", ").collect();
        assert_eq!(parts.len(), 2, "{line}");
        assert!(parts.iter().all(|part| part.parse::<f64>().is_ok()), "{line}");
    }
    for bytes in &fields[7..] {
        assert!(bytes.split(", ").all(|part| part.parse::<u64>().is_ok_and(|n| n > 0)), "{line}");
    }
}

#[test]
fn least_conn_prefers_the_idle() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Backend::with(move |request| match request.target.as_str() {
        "/hold" => Answer::text("a").after_gate(&held),
        _ => Answer::text("a"),
    });
    let b = Backend::named("b");
    let group = "least_conn; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
    let server = balance(group, "", &[&a, &b]);
    let mut first = server.connect();
    first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    assert_eq!(sequence(&server, 4), "bbbb");
    gate.open();
    first.read_response().expect(200);
    let mixed = sequence(&server, 4);
    assert!(mixed.contains('a') && mixed.contains('b'), "{mixed}");
}
