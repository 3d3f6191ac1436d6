//! Ways to choose a server other than by turns: keys, chance, time.

use std::time::{Duration, Instant};
use testkit::{Answer, Backend, Config, Gate, Server, clearly_slower, linger};

/// A server whose group has backends a, b, ... after the rows of `group`.
fn start(group: &str, backends: &[Backend]) -> Server {
    start_with(group, "proxy_pass http://u;", backends)
}

fn start_with(group: &str, location: &str, backends: &[Backend]) -> Server {
    let rows: String =
        backends.iter().map(|backend| format!("server 127.0.0.1:{};", backend.port())).collect();
    Server::start(Config::http(&format!(
        "upstream u {{ {group} {rows} }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ {location} }} }}"
    )))
}

fn named(count: usize) -> Vec<Backend> {
    ["a", "b", "c", "d"][..count].iter().map(|name| Backend::named(name)).collect()
}

/// Who answers for each of the keys.
fn owners(server: &Server, keys: &[String]) -> String {
    let mut client = server.connect();
    keys.iter().map(|key| client.get(&format!("/?k={key}")).text()).collect()
}

/// Who answers twelve requests in turn when the server a is clearly slower than b.
fn with_a_slow_one(group: &str) -> String {
    clearly_slower(|slow| {
        let a = Backend::with(move |_| {
            linger(slow);
            Answer::text("a")
        });
        let backends = [a, Backend::named("b")];
        let server = start(group, &backends);
        let mut client = server.connect();
        let mut longest = Duration::ZERO;
        let mut ask = |_| {
            let begun = Instant::now();
            let name = client.get("/").text();
            if name == "b" {
                longest = longest.max(begun.elapsed());
            }
            name
        };
        let order = (0..12).map(&mut ask).collect();
        (longest, order)
    })
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key{n}")).collect()
}

#[test]
fn hash_sends_a_key_where_nginx_does() {
    let backends = named(3);
    let server = start("hash $arg_k;", &backends);
    let keys = ["jzde8g", "epf91d/", "n", "n", "epf91d/", "jzde8g"].map(str::to_owned);
    assert_eq!(owners(&server, &keys), "abccba");
}

#[test]
fn requests_without_a_key_take_turns() {
    let backends = named(3);
    let server = start("hash $arg_k;", &backends);
    assert_eq!(owners(&server, &vec![String::new(); 6]), "abcabc");
}

#[test]
fn consistent_hashes_move_few_keys() {
    for method in ["consistent", "maglev", "rendezvous"] {
        let backends = named(4);
        let keys = keys(100);
        let all = start(&format!("hash $arg_k {method};"), &backends);
        let fewer = start(&format!("hash $arg_k {method};"), &backends[..3]);
        let (before, after) = (owners(&all, &keys), owners(&fewer, &keys));
        assert_eq!(owners(&all, &keys), before, "{method}: keys stay");
        let moved = before.chars().zip(after.chars()).filter(|(old, new)| old != new).count();
        let gone = before.matches('d').count();
        let others = if method == "maglev" { 10 } else { 0 };
        assert!((1..70).contains(&gone), "{method}: {before}");
        assert!((gone..=gone + others).contains(&moved), "{method}: {before} {after}");
    }
}

#[test]
fn hash_balance_factor_bounds_a_popular_key() {
    for method in ["", "consistent", "maglev", "rendezvous"] {
        let gate = Gate::new();
        let backends: Vec<Backend> = ["a", "b"]
            .map(|name| {
                let held = gate.clone();
                Backend::with(move |request| match request.target.contains("hold") {
                    true => Answer::text(name).after_gate(&held),
                    false => Answer::text(name),
                })
            })
            .into();
        let group = format!("hash key {method}; hash_balance_factor 100;");
        let server = start(&group, &backends);
        let owner = server.get("/").text();
        let mut first = server.connect();
        first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
        gate.wait_arrived(1);
        // Of two requests each server may have one.
        assert_ne!(server.get("/").text(), owner, "{group}");
        gate.open();
        assert_eq!(first.read_response().text(), owner, "{group}");
        assert_eq!(server.get("/").text(), owner, "{group}");
    }
}

#[test]
fn ip_hash_goes_by_the_network_of_the_client() {
    let backends = named(3);
    let location = "set_real_ip_from 127.0.0.1; real_ip_header X-Client; proxy_pass http://u;";
    let server = start_with("ip_hash;", location, &backends);
    let asked = |address: &str| {
        let fields = [("Host", "a"), ("X-Client", address)];
        server.connect().request("GET", "/", &fields, b"").text()
    };
    // As a real nginx sends them (see crate balance, tests/recorded).
    assert_eq!(asked("127.0.0.1"), asked("127.0.0.200"));
    let spread: String = (1..40).map(|n| asked(&format!("10.0.{n}.1"))).collect();
    assert!(["a", "b", "c"].iter().all(|name| spread.contains(name)), "{spread}");
    let again: String = (1..40).map(|n| asked(&format!("10.0.{n}.77"))).collect();
    assert_eq!(spread, again);
    assert_eq!(asked("2001:db8::1"), asked("2001:db8::1"));
}

#[test]
fn random_does_not_take_turns() {
    for method in ["random;", "random two;", "random two least_time=last_byte;"] {
        let backends = named(3);
        let server = start(method, &backends);
        let order = owners(&server, &keys(60));
        assert_ne!(order, "abc".repeat(20), "{method}");
        assert!(["a", "b", "c"].iter().all(|name| order.contains(name)), "{method} {order}");
    }
}

#[test]
fn random_two_prefers_the_idle() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Backend::with(move |request| match request.target.contains("hold") {
        true => Answer::text("a").after_gate(&held),
        false => Answer::text("a"),
    });
    let backends = [a, Backend::named("b")];
    let server = start("random two least_conn;", &backends);
    // Half of those who hold come to the first one, and stay.
    let mut clients = Vec::new();
    while backends[0].request_count() == 0 {
        let mut client = server.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
        clients.push(client);
        server.wait_until("it arrives", || {
            backends.iter().map(Backend::request_count).sum::<usize>() == clients.len()
        });
    }
    assert_eq!(owners(&server, &keys(20)), "b".repeat(20));
    gate.open();
}

#[test]
fn least_time_prefers_the_quick() {
    for method in [
        "least_time header;",
        "least_time last_byte;",
        "least_time header inflight;",
        "least_time last_byte inflight;",
    ] {
        let order = with_a_slow_one(method);
        assert_eq!(order.matches('a').count(), 1, "{method} {order}");
    }
}

#[test]
fn methods_that_go_by_keys_have_no_backups() {
    for method in ["hash $uri", "hash $uri consistent", "ip_hash", "random"] {
        let config = |order: &str| {
            Config::http(&format!("upstream u {{ {order} }} server {{ listen %%PORT_0%%; }}"))
        };
        let outcome = Server::check(config(&format!(
            "{method}; server 127.0.0.1:1; server 127.0.0.1:2 backup;"
        )));
        let expected = "balancing method does not support parameter \"backup\"";
        assert!(outcome.stderr.contains(expected), "{method}: {}", outcome.stderr);
        // nginx reads line by line, and so accepts it in this order.
        let outcome = Server::check(config(&format!(
            "server 127.0.0.1:1; server 127.0.0.1:2 backup; {method};"
        )));
        assert!(outcome.stderr.contains("test is successful"), "{method}: {}", outcome.stderr);
    }
}

/// A server whose first backend holds `/hold` until the gate opens, after one such request.
fn busy(group: &str, servers: [&str; 2]) -> (String, String) {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Backend::with(move |request| match request.target.contains("hold") {
        true => Answer::text("a").after_gate(&held),
        false => Answer::text("a"),
    });
    let b = Backend::named("b");
    let server = Server::start(Config::http(&format!(
        "upstream u {{ {group} server 127.0.0.1:{} {}; server 127.0.0.1:{} {}; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u; }} }}",
        a.port(),
        servers[0],
        b.port(),
        servers[1],
    )));
    let idle = owners(&server, &keys(4));
    let mut first = server.connect();
    first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    let busy = owners(&server, &keys(4));
    gate.open();
    assert_eq!(first.read_response().text(), "a", "{group}");
    (idle, busy)
}

#[test]
fn methods_of_ipvs_and_haproxy() {
    let check = |group: &str, servers: [&str; 2], idle: &str, while_busy: &str| {
        let found = busy(group, servers);
        assert_eq!(found, (idle.to_owned(), while_busy.to_owned()), "{group}");
    };
    // Of equals the first one, not each in turn.
    check("lc;", ["weight=9", ""], "aaaa", "bbbb");
    check("wlc;", ["weight=9", ""], "aaaa", "bbbb");
    // Two requests at weight 9 are still less than one at weight 1.
    check("sed;", ["weight=9", ""], "aaaa", "aaaa");
    check("nq;", ["weight=9", ""], "aaaa", "bbbb");
    check("first;", ["max_conns=2", ""], "aaaa", "aaaa");
    check("first;", ["max_conns=1", ""], "aaaa", "bbbb");
}

#[test]
fn first_needs_a_limit() {
    let config = Config::http("upstream u { first; server 127.0.0.1:1; }");
    let outcome = Server::check(config);
    let expected = "\"first\" works with \"max_conns\" only";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}

#[test]
fn fair_prefers_the_quick() {
    let order = with_a_slow_one("fair;");
    assert_eq!(order.matches('a').count(), 1, "{order}");
}

#[test]
fn a_server_that_comes_back_starts_slowly() {
    let mut a = Backend::named("a");
    let b = Backend::named("b");
    let server = Server::start(Config::http(&format!(
        "upstream u {{ server 127.0.0.1:{} fail_timeout=1s slow_start=1h; server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u; }} }}",
        a.port(),
        b.port(),
    )));
    assert_eq!(owners(&server, &keys(4)), "abab");
    a.down();
    assert_eq!(owners(&server, &keys(2)), "bb");
    a.up();
    let mut client = server.connect();
    server.wait_until("it passes its trial", || client.get("/").text() == "a");
    assert_eq!(owners(&server, &keys(10)), "b".repeat(10));
}

#[test]
fn keys_do_not_start_slowly() {
    let config = Config::http("upstream u { hash $uri; server 127.0.0.1:1 slow_start=1s; }");
    let outcome = Server::check(config);
    let expected = "balancing method does not support parameter \"slow_start\"";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}

#[test]
fn addresses_decide_as_in_ipvs() {
    let backends = named(3);
    let location = "set_real_ip_from 127.0.0.1; real_ip_header X-Client; proxy_pass http://u;";
    let server = start_with("sh;", location, &backends);
    let asked = |address: &str| {
        let fields = [("Host", "a"), ("X-Client", address)];
        server.connect().request("GET", "/", &fields, b"").text()
    };
    // 192.0.2.1 has slot 50 (see crate balance), and 50 % 3 is 2.
    assert_eq!(asked("192.0.2.1"), "c");
    let spread: String = (1..40).map(|n| asked(&format!("192.0.2.{n}"))).collect();
    assert!(["a", "b", "c"].iter().all(|name| spread.contains(name)), "{spread}");
    // Clients whose port counts are spread, those who came to one address are not.
    let by_port = start("sh port;", &backends);
    let spread: String = (0..40).map(|_| by_port.get("/").text()).collect();
    assert!(["a", "b", "c"].iter().all(|name| spread.contains(name)), "{spread}");
    let by_destination = start("dh;", &backends);
    let order: String = (0..6).map(|_| by_destination.get("/").text()).collect();
    assert_eq!(order, order[..1].repeat(6));
}
