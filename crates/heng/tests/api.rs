//! The runtime API: what it shows, how it changes groups, who may; and the same counts for
//! Prometheus.

use testkit::{Backend, Config, NameServer, Response, Server, until};

/// A server with an API for writing at /api and a group `u` that requests go to.
fn config(group: &str) -> Config {
    Config::http(&format!(
        "upstream u {{ {group} }}
         upstream fixed {{ server 127.0.0.1:1; }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location /api {{ api write=on; allow 127.0.0.1; deny all; }}
             location /look/ {{ api; }}
             location = /metrics {{ prometheus; }}
             location / {{ proxy_pass http://u; }}
         }}"
    ))
    .main("worker_processes 2;")
}

fn ask(server: &Server, method: &str, path: &str, body: &str) -> Response {
    let mut client = server.connect();
    let length = body.len();
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    client.read_response()
}

#[track_caller]
fn check(server: &Server, method: &str, path: &str, body: &str, status: u16, expected: &[&str]) {
    let response = ask(server, method, path, body);
    let text = response.text().to_string();
    assert_eq!(response.status, status, "{method} {path}: {text}");
    for part in expected {
        assert!(text.contains(part), "{method} {path}: no {part} in {text}");
    }
}

#[test]
fn the_tree_is_that_of_plus() {
    let backend = Backend::named("here");
    let server = Server::start(
        config("zone u 64k; server 127.0.0.1:%%BACKEND%% weight=3 max_conns=7;")
            .with("BACKEND", backend.port()),
    );
    (0..4).for_each(|_| drop(server.get("/").expect(200)));
    let get = |path: &str, expected: &[&str]| check(&server, "GET", path, "", 200, expected);
    get("/api", &["[1,2,3,4,5,6,7,8,9]"]);
    get("/api/9/", &["\"nginx\"", "\"http\""]);
    get("/api/9/nginx", &["\"version\":\"", "\"ppid\":", "\"timestamp\":\"20"]);
    get("/api/9/processes", &["{\"respawned\":0}"]);
    get("/api/9/connections", &["\"accepted\":", "\"dropped\":0", "\"active\":", "\"idle\":"]);
    get("/api/9/http/requests", &["\"current\":", "\"total\":"]);
    get(
        "/api/9/http/upstreams/u",
        &[
            "\"state\":\"up\"",
            "\"requests\":4",
            "\"2xx\":4",
            "\"total\":4",
            "\"weight\":3",
            "\"max_conns\":7",
            "\"zone\":\"u\"",
            "\"active\":0",
            "\"selected\":\"20",
        ],
    );
    let all = server.get("/look/9/http/upstreams").text().to_string();
    assert!(all.contains("\"u\":{") && !all.contains("fixed"), "{all}");
    get("/api/9/http/upstreams/?fields=zone", &["{\"u\":{\"zone\":\"u\"}}"]);
    get(
        "/api/9/http/upstreams/u/servers",
        &["\"fail_timeout\":\"10s\"", "\"slow_start\":\"0s\"", "\"backup\":false"],
    );
    let missing = |path: &str, status: u16, code: &str| {
        check(&server, "GET", path, "", status, &[&format!("\"code\":\"{code}\""), "request_id"]);
    };
    missing("/api/10/nginx", 404, "UnknownVersion");
    missing("/api/9/nothing", 404, "PathNotFound");
    missing("/api/9/http/upstreams/v", 404, "UpstreamNotFound");
    missing("/api/9/http/upstreams/fixed", 400, "UpstreamStatic");
    missing("/api/9/http/upstreams/u/servers/x", 400, "UpstreamBadServerId");
    missing("/api/9/http/upstreams/u/servers/77", 404, "UpstreamServerNotFound");
    check(&server, "DELETE", "/api/9/http/upstreams/u", "", 204, &[]);
    get("/api/9/http/upstreams/u", &["\"requests\":0", "\"2xx\":0"]);
}

/// Who answered some requests, each name once.
fn names(server: &Server) -> Vec<String> {
    let mut names: Vec<String> = (0..10).map(|_| server.get("/").text().to_string()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn servers_are_added_changed_and_removed_in_all_workers() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let first = "zone u 64k; server 127.0.0.1:%%BACKEND%%;";
    let server = Server::start(config(first).with("BACKEND", one.port()));
    let servers = "/api/9/http/upstreams/u/servers";
    let added = format!("{{\"server\":\"127.0.0.1:{}\",\"weight\":2}}", two.port());
    let response = ask(&server, "POST", servers, &added).expect(201);
    let place = response.header("Location").unwrap_or_default().to_owned();
    assert!(place.ends_with("/api/9/http/upstreams/u/servers/1"), "{place}");
    check(&server, "POST", servers, &added, 409, &["EntryExists"]);
    assert_eq!(names(&server), ["one", "two"]);
    let second = format!("{servers}/1");
    check(&server, "PATCH", &second, "{\"down\":true}", 200, &["\"down\":true"]);
    assert_eq!(names(&server), ["one"]);
    check(&server, "PATCH", &second, "{\"down\":false,\"weight\":5}", 200, &["\"weight\":5"]);
    assert_eq!(names(&server), ["one", "two"]);
    // Changes outlive a reload, also those of servers that the configuration names.
    check(&server, "PATCH", &format!("{servers}/0"), "{\"drain\":true}", 200, &["\"drain\":true"]);
    server.reload();
    assert_eq!(names(&server), ["two"]);
    check(&server, "GET", &second, "", 200, &["\"weight\":5"]);
    check(&server, "PATCH", &format!("{servers}/0"), "{\"drain\":false}", 200, &[]);
    check(&server, "DELETE", &second, "", 200, &[&format!("127.0.0.1:{}", one.port())]);
    assert_eq!(names(&server), ["one"]);
    check(&server, "DELETE", &second, "", 404, &["UpstreamServerNotFound"]);
}

#[test]
fn bad_changes_are_refused_and_change_nothing() {
    let one = Backend::named("one");
    let server = Server::start(
        config("zone u 64k; server 127.0.0.1:%%BACKEND%%;").with("BACKEND", one.port()),
    );
    let servers = "/api/9/http/upstreams/u/servers";
    for (body, status, code) in [
        ("", 415, "JsonError"),
        ("{", 415, "JsonError"),
        ("[]", 415, "JsonError"),
        ("{}", 400, "UpstreamConfFormatError"),
        ("{\"server\":7}", 400, "UpstreamConfFormatError"),
        ("{\"server\":\"127.0.0.2:8;\"}", 400, "UpstreamConfFormatError"),
        ("{\"server\":\"127.0.0.2:x\"}", 400, "UpstreamBadAddress"),
        ("{\"server\":\"a.test\"}", 400, "UpstreamConfNoResolver"),
        ("{\"server\":\"127.0.0.2\",\"weight\":0}", 400, "UpstreamConfFormatError"),
        ("{\"server\":\"127.0.0.2\",\"wait\":1}", 400, "UpstreamConfFormatError"),
        ("{\"server\":\"127.0.0.2\",\"fail_timeout\":\"x\"}", 400, "UpstreamConfFormatError"),
        ("{\"server\":\"127.0.0.2\",\"route\":\"a b\"}", 400, "UpstreamConfFormatError"),
    ] {
        check(&server, "POST", servers, body, status, &[code]);
    }
    let first = format!("{servers}/0");
    check(&server, "PATCH", &first, "{\"server\":\"127.0.0.1:1\"}", 400, &["cannot be changed"]);
    check(&server, "PATCH", &first, "{\"backup\":true}", 400, &["cannot be changed"]);
    check(&server, "PATCH", servers, "{}", 405, &["MethodDisabled"]);
    check(&server, "POST", "/look/9/http/upstreams/u/servers", "{}", 405, &["MethodDisabled"]);
    check(&server, "DELETE", "/api/9/nginx", "", 405, &["MethodDisabled"]);
    assert_eq!(ask(&server, "POST", servers, &"x".repeat(100_000)).status, 413);
    assert_eq!(names(&server), ["one"]);
}

#[test]
fn there_is_room_for_many_and_no_more() {
    let server = Server::start(config("zone u 64k; server 127.0.0.1:1;"));
    let servers = "/api/9/http/upstreams/u/servers";
    let add = |n: u32| {
        let body = format!("{{\"server\":\"127.0.1.{n}:1\"}}");
        ask(&server, "POST", servers, &body).status
    };
    let added = (1..100).take_while(|n| add(*n) == 201).count();
    assert!((40..64).contains(&added), "{added}");
    check(&server, "POST", servers, "{\"server\":\"127.0.2.1:1\"}", 507, &["UpstreamOutOfMemory"]);
    check(&server, "DELETE", &format!("{servers}/5"), "", 200, &[]);
    check(&server, "POST", servers, "{\"server\":\"127.0.2.1:1\"}", 201, &[]);
}

#[test]
fn who_may_write_must_be_said() {
    let check = |inside: &str, is_fine: bool| {
        let outcome = Server::check(Config::server(&format!("location /api {{ {inside} }}")));
        let refused = outcome.stderr.contains("\"api write=on\" requires that the location says");
        assert_eq!(!refused, is_fine, "{inside}: {}", outcome.stderr);
    };
    check("api;", true);
    check("api write=off;", true);
    check("api write=on;", false);
    check("api write=on; allow 127.0.0.1; deny all;", true);
    check("api write=on; auth_basic x; auth_basic_user_file y;", true);
    check("api write=on; auth_basic off;", false);
    let outcome = Server::check(Config::server("location /api { api read=on; }"));
    assert!(outcome.stderr.contains("invalid parameter \"read=on\""), "{}", outcome.stderr);
}

#[test]
fn changes_outlive_the_program_in_a_file() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let mut server = Server::start(config("zone u 64k; state %%DIR%%/servers.conf;"));
    server.get("/").expect(502);
    let servers = "/api/9/http/upstreams/u/servers";
    for backend in [&one, &two] {
        let body = format!("{{\"server\":\"127.0.0.1:{}\",\"max_fails\":4}}", backend.port());
        check(&server, "POST", servers, &body, 201, &[]);
    }
    assert_eq!(names(&server), ["one", "two"]);
    check(&server, "PATCH", &format!("{servers}/1"), "{\"down\":true}", 200, &[]);
    let kept = server.read("servers.conf");
    let lines = format!(
        "server 127.0.0.1:{} weight=1 max_conns=0 max_fails=4 fail_timeout=10s;\n\
         server 127.0.0.1:{} weight=1 max_conns=0 max_fails=4 fail_timeout=10s down;\n",
        one.port(),
        two.port()
    );
    assert_eq!(kept, lines);
    server.reload();
    assert_eq!(names(&server), ["one"]);
    server.quit();
    // Another program reads what this one wrote.
    let again = Server::start(
        config("zone u 64k; state servers.conf;").file("servers.conf", kept.as_bytes()),
    );
    assert_eq!(names(&again), ["one"]);
    check(&again, "DELETE", &format!("{servers}/0"), "", 200, &["\"down\":true"]);
    assert_eq!(again.read("servers.conf").lines().count(), 1);
}

#[test]
fn state_needs_a_zone_and_stands_alone() {
    let check = |group: &str, expected: &str| {
        let config = Config::http(&format!("upstream u {{ {group} }}"));
        let outcome = Server::check(config.file("bad", "server nothing"));
        assert!(outcome.stderr.contains(expected), "{group}: {}", outcome.stderr);
    };
    check("state x;", "\"state\" requires a \"zone\" in upstream \"u\"");
    check("zone u 64k; state x; server 127.0.0.1;", "\"state\" cannot stand beside \"server\"");
    check("zone u 64k; state bad;", "invalid line \"server nothing\" in state file");
}

#[test]
fn an_unknown_name_need_not_stop_the_start() {
    let group = "zone u 64k; server 127.0.0.1:%%BACKEND%%; server no-such-host.invalid;";
    let backend = Backend::named("here");
    let lines = |flag: &str| {
        Config::http(&format!(
            "{flag} resolver 127.0.0.1:%%PORT_1%%;
             upstream u {{ {group} }}
             server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u; }} }}"
        ))
        .with("BACKEND", backend.port())
    };
    let outcome = Server::check(lines(""));
    assert!(outcome.stderr.contains("[emerg] host not found in upstream"), "{}", outcome.stderr);
    let server = Server::start(lines("upstream_start_unresolved on;"));
    assert_eq!(server.get("/").expect(200).text(), "here");
}

#[test]
fn counts_for_prometheus() {
    let backend = Backend::named("here");
    let server = Server::start(
        config("zone u 64k; server 127.0.0.1:%%BACKEND%%;").with("BACKEND", backend.port()),
    );
    (0..3).for_each(|_| drop(server.get("/").expect(200)));
    let labels =
        format!("engine=\"http\",upstream=\"u\",server=\"127.0.0.1:{}\",id=\"0\"", backend.port());
    let response = server.get("/metrics").expect(200);
    assert_eq!(response.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text().to_string();
    for line in [
        "# TYPE heng_http_requests_total counter",
        "heng_http_requests_total 4",
        "# TYPE heng_connections_writing gauge",
        &format!("heng_upstream_requests_total{{{labels}}} 3"),
        &format!("heng_upstream_responses_total{{{labels},class=\"2xx\"}} 3"),
        &format!("heng_upstream_up{{{labels}}} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    let asks = until(|| server.get("/metrics").text().contains("heng_connections_waiting 0"));
    assert!(asks);
    let denied = ask(&server, "POST", "/metrics", "");
    assert_eq!(denied.status, 405);
}

#[test]
fn decisions_of_limits_are_counted() {
    let server = Server::start(Config::http(
        "limit_req_zone $arg_key zone=slow:64k rate=1r/m;
         limit_conn_zone $arg_key zone=few:64k;
         server {
             listen 127.0.0.1:%%PORT_0%%;
             location /api { api; }
             location / { limit_req zone=slow; limit_conn few 1; empty_gif; }
         }",
    ));
    for status in [200, 503, 503] {
        server.get("/?key=a").expect(status);
    }
    let check = |path: &str, expected: &str| {
        assert_eq!(server.get(path).expect(200).text().trim_end(), expected, "{path}");
    };
    check(
        "/api/9/http/limit_reqs",
        "{\"slow\":{\"delayed\":0,\"delayed_dry_run\":0,\"passed\":1,\"rejected\":2,\
         \"rejected_dry_run\":0}}",
    );
    check(
        "/api/9/http/limit_conns",
        "{\"few\":{\"passed\":1,\"rejected\":0,\"rejected_dry_run\":0}}",
    );
}

#[test]
fn groups_of_stream_are_changed_too() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let server = Server::start(
        Config::new(
            "events {}
             stream {
                 upstream s { zone s 64k; server 127.0.0.1:%%BACKEND%%; }
                 server { listen 127.0.0.1:%%PORT_1%%; proxy_pass s; }
             }
             http {
                 server {
                     listen 127.0.0.1:%%PORT_0%%;
                     location /api { api write=on; allow 127.0.0.1; deny all; }
                 }
             }",
        )
        .with("BACKEND", one.port()),
    );
    assert_eq!(server.connect_to(1).get("/").text(), "one");
    let group = "/api/9/stream/upstreams/s";
    check(&server, "GET", group, "", 200, &["\"connections\":1", "\"zone\":\"s\""]);
    let servers = format!("{group}/servers");
    check(&server, "POST", &servers, "{\"server\":\"127.0.0.1\"}", 400, &["no port in server"]);
    let added = format!("{{\"server\":\"127.0.0.1:{}\"}}", two.port());
    check(&server, "POST", &servers, &added, 201, &["\"id\":1"]);
    check(&server, "PATCH", &format!("{servers}/0"), "{\"down\":true}", 200, &[]);
    assert_eq!(server.connect_to(1).get("/").text(), "two");
    check(&server, "GET", "/api/9/http/upstreams", "", 200, &["{}"]);
}

#[test]
fn resolvers_are_counted() {
    let names = NameServer::new();
    names.set("a.test", "A", &["127.0.0.1"]);
    let server = Server::start(
        Config::server(
            "resolver 127.0.0.1:%%DNS%% ipv6=off status_zone=dns;
             location /api { api; }
             location / { proxy_pass http://$arg_host:%%PORT_0%%/api; }",
        )
        .with("DNS", names.port()),
    );
    server.get("/?host=a.test").expect(200);
    server.get("/?host=a.test").expect(200);
    server.get("/?host=gone.test").expect(502);
    check(
        &server,
        "GET",
        "/api/9/resolvers",
        "",
        200,
        &["\"dns\":{", "\"name\":3", "\"noerror\":2", "\"nxdomain\":1", "\"timedout\":0"],
    );
}
