//! Proxying to one backend: what it is sent, what the client is given, and when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testkit::{
    Answer, Backend, Client, Config, Gate, Server, Socket, options_of, reaches, sockets, steady,
};

/// Makes an answer of a backend.
type Make = fn() -> Answer;

/// A server whose only location hands everything to `backend`, with more directives beside.
fn proxy(directives: &str, backend: &Backend) -> Server {
    Server::start(
        Config::server(&format!(
            "location / {{ {directives} proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
        ))
        .with("BACKEND", backend.port()),
    )
}

#[test]
fn requests_and_answers_pass_through() {
    let backend = Backend::with(|_| {
        Answer::text("made")
            .with_status(201, "Created Just Now")
            .header("Content-Type", "text/x-test")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .header("X-Odd-CASE", "kept")
    });
    let server = proxy("", &backend);
    let fields = [("Host", "example.test"), ("User-Agent", "t"), ("X-One", "1"), ("x-two", "2")];
    let response = server.connect().request("PUT", "/a%20b/../c?d=%20", &fields, b"").expect(201);
    assert_eq!(response.text(), "made");
    assert_eq!(response.header("Content-Type"), Some("text/x-test"));
    assert_eq!(response.headers_named("Set-Cookie"), ["a=1", "b=2"]);
    assert!(response.head().contains("\r\nX-Odd-CASE: kept\r\n"), "{}", response.head());
    assert_eq!(response.headers_named("Date").len(), 1);

    let request = backend.last_request();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PUT", "/a%20b/../c?d=%20"));
    let host = format!("127.0.0.1:{}", backend.port());
    assert_eq!(request.header("Host"), Some(host.as_str()));
    assert_eq!(request.header("X-One"), Some("1"));
    assert_eq!(request.header("x-two"), Some("2"));
    assert_eq!(request.header("User-Agent"), Some("t"));
}

#[test]
fn proxy_pass_replaces_the_uri_of_its_location() {
    let backend = Backend::with(|request| Answer::text(request.target.clone()));
    let server = Server::start(
        Config::server(
            "location /plain/ { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /slash/ { proxy_pass http://127.0.0.1:%%BACKEND%%/; }
             location /path/ { proxy_pass http://127.0.0.1:%%BACKEND%%/other/; }
             location /joined { proxy_pass http://127.0.0.1:%%BACKEND%%/other; }
             location = /exact { proxy_pass http://127.0.0.1:%%BACKEND%%/only; }
             location ~ ^/regex/(.*)$ { proxy_pass http://127.0.0.1:%%BACKEND%%/r/$1; }
             location /variable/ { proxy_pass http://127.0.0.1:%%BACKEND%%$request_uri; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    for (path, target) in [
        ("/plain/a?b", "/plain/a?b"),
        ("/plain/%7Ea//b", "/plain/%7Ea//b"),
        ("/slash/a?b", "/a?b"),
        ("/slash/", "/"),
        ("/slash/a%20b", "/a%20b"),
        ("/slash/x/../a", "/a"),
        ("/path/a", "/other/a"),
        ("/joined/a", "/other/a"),
        ("/joinedup", "/otherup"),
        ("/exact?x", "/only?x"),
        ("/regex/a", "/r/a"),
        ("/variable/%20a?b", "/variable/%20a?b"),
    ] {
        assert_eq!(client.get(path).text(), target, "{path}");
    }
}

#[test]
fn a_location_with_a_slash_redirects_the_name_without_it() {
    let backend = Backend::named("backend");
    let server = Server::start(
        Config::server("location /a/ { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let response = server.get("/a?b").expect(301);
    let expected = format!("http://localhost:{}/a/?b", server.port(0));
    assert_eq!(response.header("Location"), Some(expected.as_str()));
}

#[test]
fn proxy_set_header_changes_what_the_backend_sees() {
    let backend = Backend::named("backend");
    let server = proxy(
        "proxy_set_header Host $host:1; proxy_set_header X-Real-IP $remote_addr;
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
         proxy_set_header X-Gone \"\"; proxy_set_header X-New \"a $http_x_old b\";",
        &backend,
    );
    let fields = [
        ("Host", "example.test"),
        ("X-Gone", "1"),
        ("X-Old", "old"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("x-real-ip", "192.0.2.9"),
    ];
    server.connect().request("GET", "/", &fields, b"").expect(200);
    let request = backend.last_request();
    assert_eq!(request.headers_named("Host"), ["example.test:1"]);
    assert_eq!(request.headers_named("X-Real-IP"), ["127.0.0.1"]);
    assert_eq!(request.headers_named("X-Forwarded-For"), ["192.0.2.1, 127.0.0.1"]);
    assert_eq!(request.header("X-Gone"), None);
    assert_eq!(request.header("X-New"), Some("a old b"));
}

#[test]
fn hop_by_hop_fields_end_here() {
    let backend = Backend::with(|_| {
        Answer::text("x").header("Keep-Alive", "timeout=9").header("Upgrade", "foo")
    });
    let server = proxy("proxy_http_version 1.1;", &backend);
    let fields = [
        ("Host", "a"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("TE", "trailers"),
    ];
    let response = server.connect().request("GET", "/", &fields, b"").expect(200);
    let request = backend.last_request();
    assert_eq!(request.header("Keep-Alive"), None);
    assert_eq!(request.header("Upgrade"), None);
    assert_eq!(request.header("TE"), None);
    assert_eq!(request.header("X-Hop"), None, "named by Connection (RFC 9110 section 7.6.1)");
    assert_ne!(request.header("Connection"), Some("upgrade"));
    assert_ne!(response.header("Keep-Alive"), Some("timeout=9"));
}

#[test]
fn proxy_hide_header_and_proxy_pass_header_choose_fields() {
    let backend = Backend::with(|_| {
        Answer::text("x")
            .header("X-Secret", "1")
            .header("X-Accel-Foo", "2")
            .header("Server", "own")
            .header("X-Open", "3")
    });
    let server = proxy(
        "proxy_hide_header X-Secret; proxy_pass_header Server; proxy_pass_header X-Accel-Foo;",
        &backend,
    );
    let response = server.get("/").expect(200);
    assert_eq!(response.header("X-Secret"), None);
    assert_eq!(response.header("X-Open"), Some("3"));
    assert_eq!(response.headers_named("Server"), ["own"]);
    let server = proxy("", &backend);
    let response = server.get("/").expect(200);
    assert_eq!(response.header("X-Secret"), Some("1"));
    assert_ne!(response.header("Server"), Some("own"));
}

#[test]
fn proxy_http_version_is_spoken() {
    let backend = Backend::named("backend");
    for (version, line) in [("1.0", "GET / HTTP/1.0"), ("1.1", "GET / HTTP/1.1")] {
        let server = proxy(&format!("proxy_http_version {version};"), &backend);
        server.get("/").expect(200);
        assert!(backend.last_request().text().starts_with(line), "{version}");
    }
}

#[test]
fn proxy_redirect_rewrites_locations() {
    let backend = Backend::with(|request| {
        let port = request.header("Host").unwrap_or_default().to_string();
        let place = request.target.trim_start_matches("/?").replace("HOST", &port);
        Answer::status(302).header("Location", &place)
    });
    let location = |directives: &str, target: &str| {
        let server = Server::start(
            Config::server(&format!(
                "location /app/ {{ proxy_pass http://127.0.0.1:%%BACKEND%%/; {directives} }}"
            ))
            .with("BACKEND", backend.port()),
        );
        let response = server.get(&format!("/app/?{target}")).expect(302);
        let location = response.header("Location").unwrap_or_default().to_string();
        location.replace(&server.port(0).to_string(), "PORT")
    };
    let here = "http://localhost:PORT/app/x";
    assert_eq!(location("", "http://HOST/x"), here);
    assert_eq!(location("proxy_redirect default;", "http://HOST/x"), here);
    assert_eq!(location("proxy_redirect off;", "http://other.test/x"), "http://other.test/x");
    let changed = "proxy_redirect http://other.test/ http://new.test/;";
    assert_eq!(location(changed, "http://other.test/x"), "http://new.test/x");
    let regex = "proxy_redirect ~^http://([a-z]+)\\.test/(.*)$ /$1/$2;";
    assert_eq!(location(regex, "http://other.test/x"), "http://localhost:PORT/other/x");
}

#[test]
fn bodies_of_every_framing_pass() {
    let backend = Backend::with(|request| {
        let answer = Answer::text("0123456789".repeat(10_000));
        match request.target.as_str() {
            "/length" => answer,
            "/chunked" => answer.chunked(),
            "/close" => answer.until_close(),
            _ => Answer::text(""),
        }
    });
    let server = proxy("proxy_http_version 1.1;", &backend);
    let mut client = server.connect();
    for path in ["/length", "/chunked", "/close"] {
        let response = client.get(path).expect(200);
        assert_eq!(response.text(), "0123456789".repeat(10_000), "{path}");
    }
    assert_eq!(client.get("/empty").header("Content-Length"), Some("0"));
    let response = client.request("HEAD", "/length", &[("Host", "a")], b"");
    assert_eq!(response.header("Content-Length"), Some("100000"));
    // A client of HTTP/1.0 knows no chunks.
    let answer = server.exchange("GET /chunked HTTP/1.0\r\n\r\n");
    assert!(!answer.contains("chunked") && answer.ends_with("6789"), "{answer:.300}");
}

#[test]
fn statuses_without_bodies_pass() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/204" => Answer::status(204),
        "/304" => Answer::status(304).header("ETag", "\"x\""),
        _ => Answer::text("x"),
    });
    let server = proxy("", &backend);
    let mut client = server.connect();
    client.get("/204").expect(204);
    assert_eq!(client.get("/304").expect(304).header("ETag"), Some("\"x\""));
    assert_eq!(client.get("/").text(), "x");
}

#[test]
fn failures_of_the_backend_are_bad_gateways() {
    let answers: [(&str, Make); 7] = [
        ("nothing", Answer::close),
        ("a reset", Answer::reset),
        ("an unfinished head", || Answer::raw("HTTP/1.1 200 OK\r\nA: b\r\n").then_close()),
        ("a bad status", || Answer::raw("HTTP/1.1 abc OK\r\n\r\n").then_close()),
        ("a bad field", || Answer::raw("HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n").then_close()),
        ("two lengths", || {
            Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na")
                .then_close()
        }),
        ("length and chunks", || {
            Answer::raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
                 0\r\n\r\n",
            )
            .then_close()
        }),
    ];
    for (what, answer) in answers {
        let backend = Backend::with(move |_| answer());
        let server = proxy("proxy_http_version 1.1;", &backend);
        assert_eq!(server.get("/").status, 502, "{what}");
        server.wait_for_access(" 502 ");
        assert!(server.error_log().contains("upstream"), "{what}: {}", server.error_log());
    }
    let backend = Backend::refusing();
    let server = proxy("", &backend);
    assert_eq!(server.get("/").status, 502);
    let line = server.wait_for_log("[error]");
    assert!(
        line.contains("connect() failed (111: Connection refused) while connecting to upstream"),
        "{line}"
    );
    for part in [
        "client: 127.0.0.1, server: , request: \"GET / HTTP/1.1\", upstream: \"http://127.0.0.1:",
        "host: \"localhost\"",
    ] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn an_answer_cut_short_ends_the_connection() {
    let cut: [(&str, Make); 2] = [
        ("length", || Answer::text("x".repeat(100_000)).cut_after(50_000)),
        ("chunked", || Answer::text("x".repeat(100_000)).chunked().cut_after(50_000)),
    ];
    for (what, answer) in cut {
        let backend = Backend::with(move |_| answer());
        let server = proxy("proxy_http_version 1.1;", &backend);
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let error = client.try_read_response().expect_err(what);
        assert!(matches!(error, testkit::ReadError::Truncated(_)), "{what}: {error}");
    }
}

#[test]
fn answers_behind_the_answer_are_not_believed() {
    // A second response that nobody asked for must not reach the next request.
    let backend = Backend::with(|request| match request.target.as_str() {
        "/evil" => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevilHTTP/1.1 200 OK\r\n\
             Content-Length: 6\r\n\r\npoison",
        ),
        _ => Answer::text("clean"),
    });
    let server = Server::start(
        Config::http(
            "upstream u { server 127.0.0.1:%%BACKEND%%; keepalive 4; }
             server { listen 127.0.0.1:%%PORT_0%%;
                 location / { proxy_http_version 1.1; proxy_set_header Connection \"\";
                              proxy_pass http://u; } }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    assert_eq!(client.get("/evil").text(), "evil");
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "clean");
    }
}

#[test]
fn interim_answers_are_not_the_answer() {
    let backend = Backend::with(|_| Answer::text("final").interim("HTTP/1.1 100 Continue\r\n\r\n"));
    let server = proxy("proxy_http_version 1.1;", &backend);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut response = client.read_response();
    while response.status < 200 {
        response = client.read_response();
    }
    assert_eq!(response.expect(200).text(), "final");
}

#[test]
fn proxy_connect_timeout_gives_up_on_silence() {
    let backend = Backend::unreachable();
    let server = Server::start(
        Config::server(
            "location / { proxy_connect_timeout 200ms;
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    server.get("/").expect(504);
    let line = server.wait_for_log("upstream timed out (110: Connection timed out)");
    assert!(line.contains("while connecting to upstream"), "{line}");
}

#[test]
fn proxy_read_timeout_gives_up_on_silence() {
    let backend = Backend::with(|_| Answer::silence());
    let server = proxy("proxy_read_timeout 200ms;", &backend);
    assert!(server.get("/").expect(504).text().contains("504 Gateway Time-out"));
    let line = server.wait_for_log("upstream timed out (110: Connection timed out)");
    assert!(line.contains("while reading response header from upstream"), "{line}");
    backend.wait_open_connections(0);
}

#[test]
fn proxy_send_timeout_gives_up_on_a_backend_that_does_not_read() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::script(move |conversation| {
        let _ = conversation.read_head();
        conversation.wait(&held);
    });
    let server = proxy("proxy_send_timeout 200ms; client_max_body_size 0;", &backend);
    let response = server.connect().post("/", vec![b'x'; 32 << 20]);
    assert_eq!(response.status, 504);
    let line = server.wait_for_log("upstream timed out");
    assert!(line.contains("while sending request to upstream"), "{line}");
    gate.open();
}

#[test]
fn proxy_buffer_size_bounds_the_head() {
    let backend = Backend::with(|_| Answer::text("x").header("X-Long", &"v".repeat(20_000)));
    let server = proxy("proxy_buffer_size 32k; proxy_buffers 4 32k;", &backend);
    server.get("/").expect(200);
    let server = proxy("proxy_buffer_size 1k;", &backend);
    server.get("/").expect(502);
    server.wait_for_log("upstream sent too big header while reading response header from upstream");
}

/// More than the sockets of two connections hold.
const LARGE: usize = 48 << 20;

/// A download that the client asked for and does not read yet.
struct Download {
    backend: Backend,
    /// How many bytes of the body the backend got rid of.
    sent: Arc<AtomicUsize>,
    server: Server,
    client: Client,
}

/// Asks a server with these directives for a large answer.
fn download(directives: &str) -> Download {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let backend = Backend::script(move |conversation| {
        if conversation.read_request().is_err() {
            return;
        }
        conversation.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        let block = vec![b'x'; 1 << 16];
        while count.load(Ordering::SeqCst) < LARGE && conversation.send(&block) {
            count.fetch_add(block.len(), Ordering::SeqCst);
        }
        conversation.read_to_end();
    });
    let server = proxy(directives, &backend);
    let mut client = server.connect();
    client.stream().shrink_receive_buffer(16 << 10).unwrap();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    backend.wait_requests(1);
    Download { backend, sent, server, client }
}

impl Download {
    /// Checks whether the backend gets rid of everything while the client reads nothing, and
    /// that the client then gets all of it.
    #[track_caller]
    fn check_backend_is_held(mut self, expected: bool) {
        let sent = || self.sent.load(Ordering::SeqCst);
        if expected {
            let sent = steady(Duration::from_millis(400), sent);
            assert!(sent < LARGE, "the backend sent {sent} bytes");
        } else {
            assert!(reaches(LARGE, sent), "the backend sent {} bytes", sent());
        }
        self.client.stream().shrink_receive_buffer(4 << 20).unwrap();
        assert_eq!(self.client.read_response().body.len(), LARGE, "{}", self.server.shown_log());
        drop(self.backend);
    }
}

#[test]
fn a_slow_client_does_not_hold_the_backend() {
    download("").check_backend_is_held(false);
}

#[test]
fn proxy_max_temp_file_size_0_keeps_answers_off_the_disk() {
    download("proxy_max_temp_file_size 0;").check_backend_is_held(true);
}

#[test]
fn proxy_buffers_hold_an_answer_in_memory() {
    let directives = "proxy_max_temp_file_size 0; proxy_buffers 50 1m;";
    download(directives).check_backend_is_held(false);
}

#[test]
fn proxy_buffering_off_couples_backend_and_client() {
    download("proxy_buffering off;").check_backend_is_held(true);
}

#[test]
fn proxy_buffering_off_passes_pieces_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::with(move |_| Answer::text("abcdef").chunked().pause_at(3, &held));
    let server = proxy("proxy_http_version 1.1; proxy_buffering off;", &backend);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_exactly(8), b"3\r\nabc\r\n");
    gate.open();
    assert_eq!(client.read_exactly(13), b"3\r\ndef\r\n0\r\n\r\n");
}

#[test]
fn upgrades_tunnel_bytes_both_ways() {
    let backend = Backend::with(|_| Answer::upgrade("websocket"));
    let server = proxy(
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
         proxy_set_header Connection upgrade;",
        &backend,
    );
    let mut client = server.connect();
    let fields = [("Host", "a"), ("Upgrade", "websocket"), ("Connection", "upgrade")];
    let response = client.request("GET", "/", &fields, b"").expect(101);
    assert_eq!(response.header("Upgrade"), Some("websocket"));
    for message in ["one", "two"] {
        client.send(message);
        assert_eq!(client.read_exactly(3), message.as_bytes());
    }
    client.half_close();
    client.expect_closed();
    backend.wait_open_connections(0);
    server.wait_for_access(" 101 ");
}

#[test]
fn a_false_upgrade_opens_no_tunnel() {
    // The backend declines; what the client sends next is a request like any other.
    let backend = Backend::with(|request| Answer::text(request.target.clone()));
    let server = proxy(
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
         proxy_set_header Connection upgrade;",
        &backend,
    );
    let mut client = server.connect();
    let fields = [("Host", "a"), ("Upgrade", "websocket"), ("Connection", "upgrade")];
    assert_eq!(client.request("GET", "/one", &fields, b"").expect(200).text(), "/one");
    let answer = client.request("GET", "/two", &[("Host", "a")], b"").expect(200);
    assert_eq!(answer.text(), "/two");
}

#[test]
fn switching_protocols_unasked_is_an_error() {
    let backend = Backend::with(|_| Answer::upgrade("websocket"));
    let server = proxy("proxy_http_version 1.1;", &backend);
    assert_eq!(server.get("/").status, 502);
}

#[test]
fn proxy_intercept_errors_replaces_them() {
    let backend = Backend::with(|_| {
        Answer::text("theirs").with_status(404, "Not Found").header("WWW-Authenticate", "x")
    });
    let page = "error_page 404 /page; location = /page { return 200 ours; }";
    let server = |intercept: &str| {
        Server::start(
            Config::server(&format!(
                "{page} location / {{ {intercept} proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
            ))
            .with("BACKEND", backend.port()),
        )
    };
    assert_eq!(server("proxy_intercept_errors on;").get("/").expect(404).text(), "ours");
    assert_eq!(server("").get("/").expect(404).text(), "theirs");
}

#[test]
fn unix_backends_are_reached() {
    let path = std::env::temp_dir().join(format!("heng-proxy-{}.sock", std::process::id()));
    let backend = Backend::unix(&path, |request| Answer::text(request.target.clone()));
    let server = Server::start(
        Config::server(
            "location / { proxy_pass http://unix:%%SOCKET%%; }
             location /path/ { proxy_pass http://unix:%%SOCKET%%:/other/; }",
        )
        .with("SOCKET", path.display()),
    );
    assert_eq!(server.get("/x").expect(200).text(), "/x");
    assert_eq!(server.get("/path/x").expect(200).text(), "/other/x");
    assert_eq!(backend.requests()[0].header("Host"), Some("localhost"));
    drop(backend);
    let _ = std::fs::remove_file(path);
}

#[test]
fn proxy_request_buffering_off_streams_the_upload() {
    let backend = Backend::script(|conversation| {
        let Ok(mut request) = conversation.read_head() else { return };
        conversation.record(&request);
        if conversation.read_body(&mut request).is_ok() {
            // Before the answer, which is what the client waits for.
            conversation.record(&request);
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let server = proxy("proxy_http_version 1.1; proxy_request_buffering off;", &backend);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    // The head is there before the body is whole.
    backend.wait_requests(1);
    client.send("def");
    client.read_response().expect(200);
    assert_eq!(backend.last_request().body, b"abcdef");
}

#[test]
fn uploads_are_whole_before_a_backend_is_occupied() {
    let backend = Backend::named("backend");
    let server = proxy("client_body_buffer_size 1k;", &backend);
    let mut client = server.connect();
    let half = vec![b'x'; 100_000];
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 200_000));
    client.send(&half);
    client.wait_until_read();
    assert_eq!(backend.connections(), 0);
    client.send(&half);
    client.read_response().expect(200);
    assert_eq!(backend.last_request().body.len(), 200_000);
}

#[test]
fn chunked_uploads_get_a_length() {
    let backend = Backend::named("backend");
    let server = proxy("", &backend);
    let mut client = server.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    client.read_response().expect(200);
    let request = backend.last_request();
    assert_eq!(request.header("Content-Length"), Some("3"));
    assert_eq!(request.header("Transfer-Encoding"), None);
}

#[test]
fn proxy_method_and_what_is_passed_can_be_changed() {
    let send = |directives: &str| {
        let backend = Backend::named("backend");
        let server = proxy(directives, &backend);
        let fields = [("Host", "a"), ("X-Own", "1"), ("Content-Length", "3")];
        server.connect().request("POST", "/", &fields, b"abc").expect(200);
        backend.last_request()
    };
    let request = send("proxy_method PUT;");
    assert_eq!((request.method.as_str(), request.body_text().as_str()), ("PUT", "abc"));
    let request = send("proxy_pass_request_headers off;");
    assert_eq!((request.header("X-Own"), request.body_text().as_str()), (None, "abc"));
    let request = send("proxy_pass_request_body off;");
    assert_eq!((request.header("X-Own"), request.body_text().as_str()), (Some("1"), ""));
    let request = send("proxy_set_body \"<$request_method>\";");
    assert_eq!(request.body_text(), "<POST>");
    assert_eq!(request.header("Content-Length"), Some("6"));
}

#[test]
fn proxy_ignore_client_abort_lets_the_backend_finish() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::with(move |_| Answer::text("done").after_gate(&held));
    let server = proxy("proxy_ignore_client_abort on;", &backend);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    client.reset();
    // Another request is served in the meantime: the abort has been seen by then.
    let other = steady(Duration::from_millis(100), || backend.open_connections());
    assert_eq!(other, 1, "the backend was left");
    gate.open();
    server.wait_for_access("\"GET / HTTP/1.1\" 200 ");
}

#[test]
fn a_backend_that_falls_silent_in_its_answer_is_left_with_the_client() {
    let farewell = "so upstream connection is closed too while reading upstream";
    for (directives, is_left) in [("", true), ("proxy_ignore_client_abort on;", false)] {
        let gate = Gate::new();
        let held = gate.clone();
        let backend = Backend::with(move |request| match request.target.as_str() {
            "/other" => Answer::text("other"),
            _ => Answer::text("x".repeat(100_000)).pause_at(50_000, &held),
        });
        let server = proxy(&format!("error_log error.log info; {directives}"), &backend);
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_exactly(40_000);
        gate.wait_arrived(1);
        drop(client);
        if is_left {
            server.wait_for_log(farewell);
        } else {
            // Another request is served in the meantime.
            assert_eq!(server.get("/other").status, 200);
        }
        gate.open();
        server.wait_for_access("\"GET / HTTP/1.1\" 200 ");
        assert_eq!(server.read("error.log").contains(farewell), is_left);
    }
}

#[test]
fn x_accel_fields_steer_unless_ignored() {
    let backend = Backend::with(|_| {
        Answer::text("theirs")
            .header("X-Accel-Redirect", "/inside")
            .header("X-Accel-Expires", "1")
            .header("X-Own", "1")
    });
    let get = |directives: &str| {
        let server = Server::start(
            Config::server(&format!(
                "location / {{ {directives} proxy_pass http://127.0.0.1:%%BACKEND%%; }}
                 location /inside {{ internal; return 200 inside; }}"
            ))
            .with("BACKEND", backend.port()),
        );
        server.get("/").expect(200)
    };
    assert_eq!(get("").text(), "inside");
    let ignored = get("proxy_ignore_headers X-Accel-Redirect;");
    assert_eq!(ignored.text(), "theirs");
    assert_eq!(ignored.header("X-Accel-Redirect"), None);
}

#[test]
fn proxy_socket_keepalive_probes_the_backend() {
    let probed = |directive: &str| {
        let backend = Backend::with(|_| Answer::silence());
        let server = proxy(directive, &backend);
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        backend.wait_requests(1);
        let side = sockets(backend.port()).into_iter().find(|socket| {
            socket.remote_port == backend.port() && socket.state == Socket::ESTABLISHED
        });
        let side = side.expect("the connection to the backend");
        let found = server.workers().into_iter().find_map(|pid| options_of(pid, side.inode));
        found.expect("a worker holds the connection").keepalive
    };
    assert!(probed("proxy_socket_keepalive on;"));
    assert!(!probed(""));
}

#[test]
fn proxy_temp_path_takes_what_does_not_fit() {
    let mut download = download("proxy_temp_path %%DIR%%/spilled 1;");
    let spilled = download.server.path("spilled");
    let sent = || download.sent.load(Ordering::SeqCst);
    assert!(reaches(LARGE, sent), "the backend sent {} bytes", sent());
    assert!(spilled.is_dir(), "nothing was spilled");
    download.client.stream().shrink_receive_buffer(4 << 20).unwrap();
    assert_eq!(download.client.read_response().body.len(), LARGE);
}
