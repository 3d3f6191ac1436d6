//! What keeps trouble small: `outlier_detection`, `retry_budget`, `circuit_breaker`.

use testkit::{Answer, Backend, Config, Gate, Server};

fn start(group: &str, location: &str, backends: &[&Backend]) -> Server {
    let rows: String = backends
        .iter()
        .map(|backend| format!("server 127.0.0.1:{} max_fails=0;", backend.port()))
        .collect();
    let config = Config::http(&format!(
        "upstream u {{ {group} {rows} }}
         server {{ listen 127.0.0.1:%%PORT_0%%;
             location / {{ {location} proxy_pass http://u; }} }}"
    ));
    Server::start(config.main("error_log %%DIR%%/error.log warn;"))
}

fn sequence(server: &Server, count: usize) -> String {
    let mut client = server.connect();
    (0..count).map(|_| client.get("/").text().chars().next().unwrap_or('-')).collect()
}

/// A backend that answers 503 with this body.
fn sick(name: &'static str) -> Backend {
    Backend::with(move |_| Answer::text(name).with_status(503, "Service Unavailable"))
}

#[test]
fn answers_of_5xx_in_a_row_eject_a_server() {
    let (a, b) = (sick("a"), Backend::named("b"));
    let group = "outlier_detection consecutive_5xx=3 consecutive_errors=0;";
    let server = start(group, "", &[&a, &b]);
    assert_eq!(sequence(&server, 10), "abababbbbb");
    let line = server.wait_for_log("is ejected");
    let expected = format!("upstream server 127.0.0.1:{} of \"u\"", a.port());
    assert!(line.contains(&expected), "{line}");
    assert!(line.contains("after consecutive answers of 5xx"), "{line}");
}

#[test]
fn failures_in_a_row_eject_a_server() {
    let (a, b) = (Backend::refusing(), Backend::named("b"));
    let group = "outlier_detection consecutive_5xx=0 consecutive_errors=2;";
    let server = start(group, "", &[&a, &b]);
    assert_eq!(sequence(&server, 10), "b".repeat(10));
    server.wait_for_log("is ejected after consecutive failures");
    assert_eq!(server.error_log().matches("connect() failed").count(), 2);
}

#[test]
fn an_ejected_server_returns() {
    let (a, b) = (sick("a"), Backend::named("b"));
    let group = "outlier_detection consecutive_5xx=1 base_ejection_time=1s;";
    let server = start(group, "", &[&a, &b]);
    assert_eq!(sequence(&server, 4), "abbb");
    server.wait_until("it is tried again", || {
        sequence(&server, 1);
        a.request_count() > 1
    });
}

#[test]
fn a_success_rate_below_the_others_ejects_a_server() {
    let good = [Backend::named("b"), Backend::named("c"), Backend::named("d")];
    let bad = sick("a");
    let group = "outlier_detection consecutive_5xx=0 consecutive_errors=0 success_rate=1.5
                     interval=100ms request_volume=3 minimum_hosts=4;";
    let server = start(group, "", &[&bad, &good[0], &good[1], &good[2]]);
    server.wait_until("it is ejected", || {
        sequence(&server, 8);
        server.error_log().contains("is ejected after a success rate far below that of others")
    });
    assert!(!sequence(&server, 9).contains('a'));
}

#[test]
fn the_part_that_may_be_ejected_is_bounded() {
    let backends = [sick("a"), sick("b"), Backend::named("c"), Backend::named("d")];
    let all: Vec<&Backend> = backends.iter().collect();
    let rules = "outlier_detection consecutive_5xx=1";
    let server = start(&format!("{rules};"), "", &all);
    sequence(&server, 8);
    assert!(sequence(&server, 6).contains('b'), "one of four is more than ten in a hundred");
    let server = start(&format!("{rules} max_ejection_percent=50;"), "", &all);
    sequence(&server, 8);
    assert_eq!(sequence(&server, 6).matches(['a', 'b']).count(), 0);
}

#[test]
fn a_budget_bounds_retries() {
    let (a, b) = (Backend::with(|_| Answer::close()), Backend::named("b"));
    let server = start("retry_budget 0 burst=2;", "", &[&a, &b]);
    let mut statuses: Vec<u16> = (0..8).map(|_| server.get("/").status).collect();
    statuses.sort_unstable();
    // Four of eight meet the bad one first, and two of these may be tried again.
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 502, 502]);
    let server = start("", "", &[&a, &b]);
    assert!((0..8).all(|_| server.get("/").status == 200));
}

#[test]
fn a_zone_gives_all_workers_one_budget() {
    let (a, b) = (Backend::with(|_| Answer::close()), Backend::named("b"));
    let rows: String = [&a, &b]
        .map(|backend| format!("server 127.0.0.1:{} max_fails=0;", backend.port()))
        .concat();
    let config = Config::http(&format!(
        "upstream u {{ zone u 64k; retry_budget 0 burst=3; {rows} }}
         server {{ listen 127.0.0.1:%%PORT_0%%; add_header X-Worker $pid always;
             location / {{ proxy_pass http://u; }} }}"
    ));
    let server = Server::start(config.main("worker_processes 2;"));
    let responses: Vec<_> = (0..20).map(|_| server.get("/")).collect();
    let workers = responses.iter().filter_map(|r| r.header("X-Worker").map(str::to_owned));
    assert_eq!(workers.collect::<std::collections::BTreeSet<_>>().len(), 2);
    // Ten of twenty meet the bad one first.
    assert_eq!(responses.iter().filter(|response| response.status == 502).count(), 7);
}

#[test]
fn requests_under_way_are_bounded() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Backend::with(move |_| Answer::text("a").after_gate(&held));
    let server = start("circuit_breaker max_requests=2;", "", &[&a]);
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_arrived(2);
    server.get("/").expect(502);
    gate.open();
    for client in &mut clients {
        client.read_response().expect(200);
    }
    server.get("/").expect(200);
}

#[test]
fn retries_under_way_are_bounded() {
    let gate = Gate::new();
    let held = gate.clone();
    let bad = Backend::with(|_| Answer::close());
    let slow = Backend::with(move |request| match request.target.as_str() {
        "/hold" => Answer::text("b").after_gate(&held),
        _ => Answer::text("b"),
    });
    let server = start("circuit_breaker max_retries=1;", "", &[&bad, &slow]);
    // The first request meets the bad one, and its retry is held.
    let mut first = server.connect();
    first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    let statuses: Vec<u16> = (0..4).map(|_| server.get("/").status).collect();
    assert!(statuses.contains(&502), "{statuses:?}");
    gate.open();
    first.read_response().expect(200);
    assert!((0..4).all(|_| server.get("/").status == 200));
}
