//! Ways to choose a server for sessions of `stream`.

use std::time::{Duration, Instant};
use testkit::{Backend, Config, Server, clearly_slower, linger};

/// A backend that says its name and goes on when the client closes.
fn named(name: &'static str) -> Backend {
    Backend::script(move |conversation| {
        conversation.send(name);
        conversation.read_to_end();
    })
}

/// As [`named`], after so much time.
fn slow(name: &'static str, time: Duration) -> Backend {
    Backend::script(move |conversation| {
        linger(time);
        conversation.send(name);
        conversation.read_to_end();
    })
}

fn start(group: &str, backends: &[Backend]) -> Server {
    let rows: String =
        backends.iter().map(|backend| format!("server 127.0.0.1:{};", backend.port())).collect();
    Server::start(Config::stream(&format!(
        "upstream u {{ {group} {rows} }}
         server {{ listen 127.0.0.1:%%PORT_0%%; proxy_pass u; }}"
    )))
}

/// The names of those who served so many sessions, one after another.
fn served(server: &Server, count: usize) -> String {
    (0..count).map(|_| session(server)).collect()
}

/// The name of the one who served a session.
fn session(server: &Server) -> String {
    let mut client = server.connect();
    let name = client.read_exactly(1);
    client.half_close();
    client.expect_closed();
    String::from_utf8_lossy(&name).into_owned()
}

/// Who serves ten sessions, one after another, when the server a is clearly slower than b.
fn with_a_slow_one(method: &str) -> String {
    clearly_slower(|time| {
        let backends = [slow("a", time), named("b")];
        let server = start(method, &backends);
        let mut longest = Duration::ZERO;
        let mut serve = |_| {
            let begun = Instant::now();
            let name = session(&server);
            if name == "b" {
                longest = longest.max(begun.elapsed());
            }
            name
        };
        let order = (0..10).map(&mut serve).collect();
        (longest, order)
    })
}

/// Who serves four sessions, one after another, when a takes longer to say something, and a
/// connection to either of them is made within `step`.
fn with_one_that_connects_as_quickly(method: &str, step: Duration) -> String {
    clearly_slower(|time| {
        let backends = [slow("a", time), named("b")];
        let server = Server::start(Config::stream(&format!(
            "log_format times $upstream_connect_time; access_log %%DIR%%/logs/times times;
             upstream u {{ {method} server 127.0.0.1:{}; server 127.0.0.1:{}; }}
             server {{ listen 127.0.0.1:%%PORT_0%%; proxy_pass u; }}",
            backends[0].port(),
            backends[1].port(),
        )));
        let order = served(&server, 4);
        let times = || server.read("logs/times");
        server.wait_until("all are logged", || times().lines().count() == 4);
        let within = |line: &str| line.parse::<f64>().expect("seconds") < step.as_secs_f64();
        let all_are = times().lines().all(within);
        (if all_are { Duration::ZERO } else { time }, order)
    })
}

#[test]
fn hash_keeps_a_client_with_its_server() {
    for method in ["hash $remote_addr;", "hash $remote_addr consistent;"] {
        let backends = [named("a"), named("b"), named("c")];
        let order = served(&start(method, &backends), 6);
        assert_eq!(order, order[..1].repeat(6), "{method}");
    }
}

#[test]
fn random_does_not_take_turns() {
    for method in ["random;", "random two;", "random two least_time=last_byte;"] {
        let backends = [named("a"), named("b")];
        let order = served(&start(method, &backends), 40);
        assert_ne!(order, "ab".repeat(20), "{method}");
        assert!(order.contains('a') && order.contains('b'), "{method} {order}");
    }
}

#[test]
fn the_fewest_sessions_win() {
    for (method, idle) in [("least_conn;", "abab"), ("wlc;", "aaaa"), ("sed;", "aaaa")] {
        let backends = [named("a"), named("b")];
        let server = start(method, &backends);
        assert_eq!(served(&server, 4), idle, "{method}");
        let mut holding = server.connect();
        assert_eq!(holding.read_exactly(1), b"a", "{method}");
        assert_eq!(served(&server, 3), "bbb", "{method}");
    }
}

#[test]
fn least_time_prefers_the_quick() {
    for method in [
        "least_time first_byte;",
        "least_time last_byte;",
        "least_time first_byte inflight;",
        "fair;",
    ] {
        let order = with_a_slow_one(method);
        assert_eq!(order.matches('a').count(), 1, "{method} {order}");
    }
    // Times within 20 ms are equally good.
    let step = Duration::from_millis(20);
    assert_eq!(with_one_that_connects_as_quickly("least_time connect;", step), "abab");
}

#[test]
fn what_is_for_requests_is_refused() {
    let check = |group: &str, expected: &str| {
        let outcome = Server::check(Config::stream(&format!("upstream u {{ {group} }}")));
        assert!(outcome.stderr.contains(expected), "{group}: {}", outcome.stderr);
    };
    check("server 127.0.0.1:1 drain;", "invalid parameter \"drain\"");
    check("server 127.0.0.1:1 route=a;", "invalid parameter \"route\"");
    check("least_time header; server 127.0.0.1:1;", "invalid value \"header\"");
    let misplaced = "directive is not allowed here";
    check("ip_hash; server 127.0.0.1:1;", misplaced);
    check("queue 1; server 127.0.0.1:1;", misplaced);
    check("sticky cookie a; server 127.0.0.1:1;", misplaced);
}
