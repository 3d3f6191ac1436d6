//! How long a client's connection lives: keep-alive, pipelining, time limits, the end.

use std::time::{Duration, Instant};
use testkit::{Backend, Client, Config, Gate, ReadError, Server};

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
fn tcp_nodelay_is_set_unless_off() {
    let server = Server::start(Config::server(
        "location /on { return 200 x; } location /off { tcp_nodelay off; return 200 x; }",
    ));
    let nodelay = |path: &str| {
        let mut client = server.connect();
        client.get(path).expect(200);
        server.options_of(&client).nodelay
    };
    assert!(nodelay("/on"));
    assert!(!nodelay("/off"));
}

#[test]
fn keepalive_disable_knows_browsers() {
    let browser = "Mozilla/5.0 (Macintosh; U; PPC Mac OS X; en) AppleWebKit/125 Safari/125";
    let kept = |directive: &str, method: &str, browser: &str| {
        let server =
            Server::start(Config::server(&format!("location / {{ {directive} return 200 x; }}")));
        let fields = [("Host", "a"), ("User-Agent", browser), ("Content-Length", "0")];
        let response = server.connect().request(method, "/", &fields, b"").expect(200);
        response.header("Connection") == Some("keep-alive")
    };
    assert!(kept("", "GET", browser));
    assert!(!kept("keepalive_disable safari;", "GET", browser));
    let old = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)";
    assert!(!kept("", "POST", old));
    assert!(kept("", "GET", old));
    assert!(kept("keepalive_disable none;", "POST", old));
}

#[test]
fn keepalive_min_timeout_spares_idle_connections_on_reload() {
    let server = Server::start(Config::server(
        "location / { keepalive_min_timeout 1h; return 200 x; }
         location /usual { return 200 x; }",
    ));
    let (mut spared, mut usual) = (server.connect(), server.connect());
    spared.get("/").expect(200);
    usual.get("/usual").expect(200);
    server.reload();
    usual.expect_closed();
    // The old worker answers once more, and says that this was the last time.
    let response = spared.get("/").expect(200);
    assert_eq!(response.header("Connection"), Some("close"));
    spared.expect_closed();
}

/// Sends the head of an upload that is refused, reads the refusal, and leaves the body unsent.
fn refused_upload(directives: &str) -> (Server, Client) {
    let server = Server::start(Config::server(&format!(
        "client_max_body_size 1k; location / {{ {directives} return 200 ok; }}"
    )));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nstart");
    client.read_response().expect(413);
    (server, client)
}

/// How long the server keeps its side of a connection.
fn time_until_gone(server: &Server, mut client: Client, goes_on_sending: bool) -> Duration {
    let start = Instant::now();
    server.wait_until("the server lets go of the connection", || {
        // A connection that nobody holds any more has no inode.
        let held = client.other_side().is_some_and(|side| side.inode != 0);
        !held || goes_on_sending && client.try_send(b"more").is_err()
    });
    start.elapsed()
}

#[test]
fn lingering_close_off_ends_at_once() {
    let (server, client) = refused_upload("lingering_close off;");
    let time = time_until_gone(&server, client, false);
    assert!(time < Duration::from_secs(3), "{time:?}");
    // By default the server waits some seconds for the client to end.
    let (server, client) = refused_upload("");
    let mut looks = 0;
    server.wait_until("ten looks", || {
        looks += 1;
        looks == 10
    });
    assert!(client.other_side().is_some_and(|side| side.inode != 0), "did not linger");
}

#[test]
fn lingering_timeout_ends_silent_clients() {
    let (server, client) = refused_upload("lingering_timeout 200ms;");
    let time = time_until_gone(&server, client, false);
    assert!(time >= Duration::from_millis(150) && time < Duration::from_secs(3), "{time:?}");
}

#[test]
fn lingering_time_ends_busy_clients() {
    let (server, client) = refused_upload("lingering_time 1s;");
    let time = time_until_gone(&server, client, true);
    assert!(time < Duration::from_secs(4), "{time:?}");
}

#[test]
fn reset_timedout_connection_resets() {
    let reset = |directive: &str| {
        let server = Server::start(Config::server(&format!(
            "client_header_timeout 100ms; {directive} return 200 ok;"
        )));
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost:");
        client.is_reset()
    };
    assert!(reset("reset_timedout_connection on;"));
    assert!(!reset(""));
}

#[test]
fn chunked_transfer_encoding_off_ends_bodies_by_closing() {
    let backend = Backend::with(|_| testkit::Answer::text("abc").chunked());
    let server = Server::start(
        Config::server(
            "location / { chunked_transfer_encoding off; proxy_http_version 1.1;
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let response = server.get("/").expect(200);
    assert_eq!(response.header("Transfer-Encoding"), None);
    assert_eq!(response.header("Connection"), Some("close"));
    assert_eq!(response.text(), "abc");
}

#[test]
fn msie_padding_makes_error_pages_longer() {
    let length = |directive: &str| {
        let server =
            Server::start(Config::server(&format!("location / {{ {directive} return 404; }}")));
        let fields = [("Host", "a"), ("User-Agent", "Mozilla/4.0 (compatible; MSIE 8.0)")];
        server.connect().request("GET", "/", &fields, b"").expect(404).body.len()
    };
    let (padded, plain) = (length(""), length("msie_padding off;"));
    assert!(padded > 512 && plain < 300, "{padded} and {plain} bytes");
}

#[test]
fn tcp_nopush_sends_head_and_file_together() {
    let server = Server::start(
        Config::server("tcp_nopush on; sendfile on; root %%DIR%%/html;")
            .file("html/file", vec![b'x'; 300_000]),
    );
    let mut client = server.connect();
    // Without it, the head alone is in the first segment nearly every time.
    for _ in 0..50 {
        client.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
        let first = client.try_read_some().expect("an answer");
        assert!(!first.ends_with(b"\r\n\r\n"), "the head came alone");
        let head = first.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        client.read_exactly(300_000 - (first.len() - head - 4));
    }
}
