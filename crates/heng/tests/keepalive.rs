//! How long a client's connection lives: keep-alive, pipelining, time limits, the end.

use std::time::{Duration, Instant};
use testkit::{Backend, Config, Gate, ReadError, Server};

#[test]
fn connections_stay_unless_a_side_wants_to_close() {
    let server = Server::start(Config::server("location / { return 200 ok; }"));
    let kept = |request: &str| {
        let mut client = server.connect();
        client.send(request);
        let response = client.read_response().expect(200);
        let announced = response.header("Connection").unwrap_or("").to_string();
        client.send("GET / HTTP/1.0\r\n\r\n");
        (announced, client.try_read_response().is_ok())
    };
    let answer = |text: &str, stays| (text.to_string(), stays);
    assert_eq!(kept("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), answer("keep-alive", true));
    assert_eq!(
        kept("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        answer("close", false)
    );
    assert_eq!(kept("GET / HTTP/1.0\r\n\r\n"), answer("close", false));
    assert_eq!(
        kept("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        answer("keep-alive", true)
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::with(move |request| {
        let answer = testkit::Answer::text(request.target.clone());
        if request.target == "/slow" { answer.after_gate(&held) } else { answer }
    });
    let server = Server::start(
        Config::server(
            "location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /fast { return 200 fast; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    let paths = ["/slow", "/fast", "/a", "/fast", "/b"];
    let request = |path: &&str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(paths.iter().map(request).collect::<String>());
    gate.wait_arrived(1);
    gate.open();
    let texts: Vec<String> = paths.iter().map(|_| client.read_response().text()).collect();
    assert_eq!(texts, ["/slow", "fast", "/a", "fast", "/b"]);
}

#[test]
fn many_pipelined_requests_fit() {
    let server = Server::start(Config::server("location / { return 200 $request_uri; }"));
    let mut client = server.connect();
    let requests: String =
        (0..500).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests);
    for n in 0..500 {
        assert_eq!(client.read_response().text(), format!("/{n}"));
    }
}

#[test]
fn keepalive_requests_limits_a_connection() {
    let server =
        Server::start(Config::server("keepalive_requests 3; location / { return 200 ok; }"));
    let mut client = server.connect();
    let announced: Vec<_> = (0..3)
        .map(|_| client.get("/").header("Connection").map(str::to_string).unwrap_or_default())
        .collect();
    assert_eq!(announced, ["keep-alive", "keep-alive", "close"]);
    client.expect_closed();
}

#[test]
fn keepalive_timeout_closes_idle_connections() {
    let server = Server::start(Config::server(
        "location / { keepalive_timeout 200ms 17s; return 200 ok; }
         location /off { keepalive_timeout 0; return 200 ok; }",
    ));
    let mut client = server.connect();
    let before = Instant::now();
    let response = client.get("/").expect(200);
    assert_eq!(response.header("Keep-Alive"), Some("timeout=17"));
    client.expect_closed();
    let idle = before.elapsed();
    assert!(idle >= Duration::from_millis(190), "closed after {idle:?}");
    let mut client = server.connect();
    assert_eq!(client.get("/off").header("Connection"), Some("close"));
    client.expect_closed();
}

#[test]
fn keepalive_time_ends_old_connections() {
    let server =
        Server::start(Config::server("keepalive_time 200ms; location / { return 200 ok; }"));
    let mut client = server.connect();
    let start = Instant::now();
    let mut closing = false;
    server.wait_until("the connection grows too old", || {
        let announced = client.get("/").header("Connection").map(str::to_string);
        closing = announced.as_deref() == Some("close");
        closing
    });
    assert!(start.elapsed() >= Duration::from_millis(190), "after {:?}", start.elapsed());
    client.expect_closed();
}

#[test]
fn client_header_timeout_ends_slow_heads() {
    let server = Server::start(
        Config::server("client_header_timeout 200ms; return 200 ok;")
            .main("error_log %%DIR%%/error.log info;"),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost:");
    client.expect_closed();
    let line = server.wait_for_log("client timed out");
    assert!(line.contains("while reading client request headers"), "{line}");
    // A connection that says nothing ends as well.
    server.connect().expect_closed();
    server.wait_for_log("while waiting for request");
}

#[test]
fn client_body_timeout_ends_slow_bodies() {
    let backend = Backend::named("backend");
    let server = Server::start(
        Config::server(
            "client_body_timeout 200ms;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let response = client.try_read_response();
    // nginx answers 408; what matters is that the connection ends and the backend is spared.
    if let Ok(response) = response {
        assert_eq!(response.status, 408);
    }
    client.expect_closed();
    assert_eq!(backend.request_count(), 0);
    server.wait_for_access(" 408 ");
}

#[test]
fn send_timeout_ends_readers_that_stall() {
    let server = Server::start(
        Config::server("send_timeout 200ms; root %%DIR%%/html;")
            .main("error_log %%DIR%%/error.log info;")
            .file("html/large", vec![b'x'; 32 << 20]),
    );
    let mut client = server.connect();
    client.stream().shrink_receive_buffer(4096).unwrap();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = server.wait_for_log("client timed out");
    assert!(line.contains("while sending response to client"), "{line}");
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let server = Server::start(Config::server("return 200 ok;"));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.half_close();
    assert_eq!(client.read_response().text(), "ok");
    client.expect_closed();
}

#[test]
fn lingering_close_lets_a_refused_upload_read_its_answer() {
    let server = Server::start(Config::server(
        "client_max_body_size 1k; lingering_time 2s; lingering_timeout 1s;
         location /upload { return 200 ok; }",
    ));
    let mut client = server.connect();
    let body = vec![b'x'; 1 << 20];
    client.send(format!(
        "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    // More than socket buffers hold: a server that closes at once would reset the connection
    // and the answer with it.
    let _ = client.try_send(&body);
    assert_eq!(client.read_response().status, 413);
}

#[test]
fn http_0_9_is_answered_without_a_head() {
    let server = Server::start(Config::server("return 200 ok;"));
    assert_eq!(server.exchange("GET /\r\n"), "ok");
}

#[test]
fn head_requests_have_no_body() {
    let server = Server::start(
        Config::server("location / { root %%DIR%%/html; } location /text { return 200 text; }")
            .file("html/file", "12345"),
    );
    let mut client = server.connect();
    for (path, length) in [("/file", "5"), ("/text", "4")] {
        let response = client.request("HEAD", path, &[("Host", "a")], b"").expect(200);
        assert_eq!(response.header("Content-Length"), Some(length), "{path}");
    }
    assert_eq!(client.get("/text").text(), "text");
}

#[test]
fn empty_lines_between_requests_are_skipped() {
    let server = Server::start(Config::server("return 200 ok;"));
    let mut client = server.connect();
    client.send("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_response().expect(200);
    client.read_response().expect(200);
}

#[test]
fn an_aborted_request_leaves_nothing_behind() {
    let backend = Backend::with(|_| testkit::Answer::silence());
    let server = Server::start(
        Config::server("location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_requests(1);
    client.reset();
    backend.wait_open_connections(0);
    server.wait_for_access(" 499 ");
}

#[test]
fn a_connection_that_closes_early_gets_no_stray_bytes() {
    let server = Server::start(Config::server("return 200 ok;"));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHo");
    client.half_close();
    assert_eq!(client.try_read_response().unwrap_err(), ReadError::Closed);
}

#[test]
fn server_tokens_says_how_much_the_server_tells() {
    let server = Server::start(Config::server(
        "location / { return 404; } location /short { server_tokens off; return 404; }",
    ));
    let mut client = server.connect();
    let long = client.get("/");
    let short = client.get("/short");
    let name = |response: &testkit::Response| response.header("Server").unwrap_or("").to_string();
    assert!(name(&long).contains('/'), "{}", name(&long));
    assert_eq!(name(&short), name(&long).split('/').next().unwrap_or_default());
    assert!(long.text().contains(&name(&long)));
    assert!(!short.text().contains(&name(&long)));
}

#[test]
fn tcp_nodelay_and_tcp_nopush_keep_answers_whole() {
    let server = Server::start(
        Config::server(
            "location /a { tcp_nodelay off; root %%DIR%%/html; }
             location /b { tcp_nopush on; sendfile on; root %%DIR%%/html; }",
        )
        .file("html/a", "a".repeat(100_000))
        .file("html/b", "b".repeat(100_000)),
    );
    let mut client = server.connect();
    for path in ["/a", "/b", "/a"] {
        assert_eq!(client.get(path).expect(200).body.len(), 100_000, "{path}");
    }
}
