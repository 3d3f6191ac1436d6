//! `limit_conn`: how many requests are under way.

use testkit::{Answer, Backend, Config, Gate, Server, kill};

/// A server whose location `/slow/` answers when the gate opens, and that limits by the first
/// argument.
fn config(backend: &Backend, inside: &str) -> Config {
    Config::http(&format!(
        "error_log %%DIR%%/error.log info;
         log_format status '$request_uri=$status $limit_conn_status';
         access_log %%DIR%%/logs/status.log status;
         limit_conn_zone $arg_k zone=one:1m;
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             {inside}
             location / {{ proxy_pass http://127.0.0.1:%%BACKEND%%; }}
         }}"
    ))
    .with("BACKEND", backend.port())
}

fn slow(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::with(move |request| match request.target.starts_with("/slow") {
        true => Answer::text("late").after_gate(&gate),
        false => Answer::text("now"),
    })
}

#[test]
fn requests_beyond_the_limit_are_refused_until_one_ends() {
    let gate = Gate::new();
    let backend = slow(&gate);
    let server = Server::start(config(
        &backend,
        "limit_conn one 1; limit_conn_log_level notice;
         location /status { limit_conn_status 429; proxy_pass http://127.0.0.1:%%BACKEND%%; }
         location /dry { limit_conn_dry_run on; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
    ));
    let mut first = server.connect();
    first.send("GET /slow?k=a HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_requests(1);
    assert_eq!(server.get("/x?k=a").status, 503);
    assert_eq!(server.get("/status?k=a").status, 429);
    assert_eq!(server.get("/dry?k=a").status, 200);
    assert_eq!(server.get("/x?k=b").status, 200);
    assert_eq!(server.get("/x").status, 200);
    gate.open();
    assert_eq!(first.read_response().status, 200);
    // The connection is idle now, and does not count.
    assert_eq!(server.get("/last?k=a").status, 200);
    server.wait_for_line("logs/status.log", "/last?k=a=200 PASSED");
    let log = server.read("logs/status.log");
    for line in [
        "/x?k=a=503 REJECTED\n",
        "/status?k=a=429 REJECTED\n",
        "/dry?k=a=200 REJECTED_DRY_RUN\n",
        "/x?k=b=200 PASSED\n",
        "/x=200 -\n",
        "/slow?k=a=200 PASSED\n",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
    let refused = server.wait_for_log("limiting connections by zone \"one\", client: 127.0.0.1");
    assert!(refused.contains("[notice]"), "{refused}");
    server.wait_for_log("limiting connections, dry run, by zone \"one\"");
}

#[test]
fn workers_count_together_and_a_dead_one_counts_no_more() {
    let gate = Gate::new();
    let backend = slow(&gate);
    let mut server =
        Server::start(config(&backend, "limit_conn one 1;").main("worker_processes 2;"));
    server.expect_alerts();
    let mut first = server.connect();
    first.send("GET /slow?k=a HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_requests(1);
    for _ in 0..6 {
        assert_eq!(server.get("/x?k=a").status, 503);
    }
    for worker in server.workers() {
        kill(worker);
    }
    server.wait_until("the limit forgets dead workers", || {
        let mut client = server.connect();
        client.send("GET /x?k=a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.try_read_response().is_ok_and(|response| response.status == 200)
    });
    gate.open();
}

#[test]
fn a_redirected_request_counts_once_and_a_reload_forgets_nothing() {
    let gate = Gate::new();
    let backend = slow(&gate);
    let server = Server::start(config(
        &backend,
        "limit_conn one 1;
         location = /hop { error_page 404 = /slow; alias %%DIR%%/none; }",
    ));
    let mut first = server.connect();
    first.send("GET /hop?k=a HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_requests(1);
    server.reload();
    assert_eq!(server.get("/x?k=a").status, 503);
    gate.open();
    assert_eq!(first.read_response().text(), "late");
    server.wait_until("the old worker gives its count back to the new one", || {
        server.get("/x?k=a").status == 200
    });
}
