//! `limit_req`: the rate of requests.

use testkit::{Config, Server, Signal};

/// One address, one request per minute.
const ZONE: &str = "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;";

fn config(http: &str, inside: &str) -> Config {
    Config::http(&format!(
        "log_format status '$request_uri=$status $limit_req_status';
         access_log %%DIR%%/logs/status.log status;
         error_log %%DIR%%/error.log info;
         {ZONE} {http}
         server {{ listen 127.0.0.1:%%PORT_0%%; {inside} }}"
    ))
}

#[test]
fn requests_beyond_the_rate_are_refused_and_logged() {
    let server = Server::start(config(
        "limit_req_log_level warn;",
        "limit_req zone=one;
         location / { return 200 ok; }
         location /limited/ { root %%DIR%%; }
         location /status/ { limit_req_status 429; root %%DIR%%; }
         location /dry/ { limit_req_dry_run on; root %%DIR%%; }",
    ));
    server.write("limited/a", "a");
    server.write("status/a", "b");
    server.write("dry/a", "c");
    // What answers before limits are looked at is not counted.
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/limited/a").status, 200);
    assert_eq!(server.get("/limited/a").status, 503);
    assert_eq!(server.get("/status/a").status, 429);
    assert_eq!(server.get("/dry/a").status, 200);
    server.wait_for_line("logs/status.log", "/dry/a");
    let log = server.read("logs/status.log");
    for line in [
        "/=200 -\n",
        "/limited/a=200 PASSED\n",
        "/limited/a=503 REJECTED\n",
        "/status/a=429 REJECTED\n",
        "/dry/a=200 REJECTED_DRY_RUN\n",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
    let dry = server.wait_for_log("limiting requests, dry run, excess: ");
    assert!(dry.contains("[warn]"), "{dry}");
    let refused = server.wait_for_log(" limiting requests, excess: ");
    let context = "by zone \"one\", client: 127.0.0.1, server: , request: \"GET /limited/a ";
    assert!(refused.contains(context), "{refused}");
}

#[test]
fn a_burst_is_delayed_but_not_with_nodelay() {
    let server = Server::start(Config::http(
        "error_log %%DIR%%/error.log info;
         limit_req_zone $uri zone=fast:1m rate=2r/s;
         limit_req_zone $uri zone=slow:1m rate=1r/m;
         add_header X-Status $limit_req_status always;
         server {
             listen 127.0.0.1:%%PORT_0%%;
             location /late/ { limit_req zone=fast burst=5; alias %%DIR%%/; }
             location /now/ { limit_req zone=slow burst=2 nodelay; alias %%DIR%%/; }
             location /some/ { limit_req zone=slow burst=2 delay=1; limit_req_dry_run on;
                 alias %%DIR%%/; }
         }",
    ));
    server.write("a", "a");
    let mut client = server.connect();
    let mut check = |path: &str, expected: &[&str]| {
        for (n, status) in expected.iter().enumerate() {
            let response = client.get(path);
            assert_eq!(response.header("X-Status"), Some(*status), "{path} {n}");
        }
    };
    check("/late/a", &["PASSED", "DELAYED", "DELAYED"]);
    check("/now/a", &["PASSED", "PASSED", "PASSED", "REJECTED"]);
    check("/some/a", &["PASSED", "PASSED", "DELAYED_DRY_RUN", "REJECTED_DRY_RUN"]);
    let dry = server.wait_for_log("delaying request, dry run, excess: 2.000, by zone \"slow\"");
    assert!(dry.contains("[warn]"), "{dry}");
    server.wait_for_log("delaying request, excess: ");
}

#[test]
fn a_client_that_leaves_while_it_waits_is_logged() {
    let server = Server::start(config("", "limit_req zone=one burst=5; location / { root .; }"));
    server.get("/first");
    let mut client = server.connect();
    client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for_log("delaying request");
    drop(client);
    server.wait_for_line("logs/status.log", "/second=499 DELAYED");
}

#[test]
fn a_redirected_request_is_counted_once() {
    let server = Server::start(config(
        "",
        "limit_req zone=one; error_page 404 /page; location / { root %%DIR%%; }
         location = /page { alias %%DIR%%/page; }",
    ));
    server.write("page", "found");
    assert_eq!(server.get("/missing").text(), "found");
    assert_eq!(server.get("/missing").status, 503);
}

#[test]
fn workers_and_generations_share_a_zone() {
    let server = Server::start(
        config("", "limit_req zone=one; location / { root %%DIR%%; }").main("worker_processes 2;"),
    );
    server.write("a", "a");
    let passed = (0..8).filter(|_| server.get("/a").status == 200).count();
    assert_eq!(passed, 1);
    server.reload();
    assert_eq!(server.get("/a").status, 503);
}

#[test]
fn a_changed_key_is_refused_at_a_reload() {
    let mut server = Server::start(config("", "limit_req zone=one; location / { root .; }"));
    server.get("/");
    server.reconfigure(Config::http(
        "limit_req_zone $uri zone=one:1m rate=1r/m;
         server { listen 127.0.0.1:%%PORT_0%%; limit_req zone=one; }",
    ));
    server.signal(Signal::HUP);
    server.wait_for_log(
        "limit_req \"one\" uses the \"$uri\" key while previously it used the \
         \"$binary_remote_addr\" key",
    );
    // What was there before goes on.
    assert_eq!(server.get("/").status, 503);
}

#[test]
fn an_undeclared_zone_is_refused() {
    let refused = Server::check(Config::server("limit_req zone=none; location / { return 200; }"));
    refused.expect(1).says("[emerg] zero size shared memory zone \"none\"");
}
