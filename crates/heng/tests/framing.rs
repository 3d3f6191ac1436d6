//! Where a request ends, and what is refused because two readers could disagree about it.
//!
//! Every shape of request smuggling known to us is sent over a connection of its own, with a
//! second request behind it: the answer is a refusal and the end of the connection, and the
//! backend sees nothing of either.

use testkit::{Backend, Config, Server};

/// A server that hands everything to a backend.
fn proxy(backend: &Backend) -> Server {
    Server::start(
        Config::server("location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    )
}

/// Sends each request and expects `status`, the end of the connection and an untouched backend.
#[track_caller]
fn refused(status: u16, requests: &[(&str, &str)]) {
    let backend = Backend::named("backend");
    let server = proxy(&backend);
    for (shape, request) in requests {
        let mut client = server.connect();
        // The server may close before it has read everything.
        let _ = client.try_send(request);
        let answer = client.read_to_end();
        let text = String::from_utf8_lossy(&answer);
        let line = text.lines().next().unwrap_or_default();
        assert!(line.contains(&format!(" {status} ")), "{shape}: answered {line:?}");
        assert_eq!(text.matches("HTTP/1.").count(), 1, "{shape}: answered twice: {text}");
        assert!(text.contains("Connection: close\r\n"), "{shape}: does not announce the end");
    }
    let reached = backend.requests();
    assert!(reached.is_empty(), "the backend received {:?}", reached[0].text());
}

/// A POST with these fields and this body, and a second request behind it.
macro_rules! post {
    ($fields:expr, $body:expr) => {
        concat!(
            "POST / HTTP/1.1\r\nHost: a\r\n",
            $fields,
            "\r\n",
            $body,
            "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        )
    };
}

#[test]
fn length_beside_transfer_encoding_is_refused() {
    refused(
        400,
        &[
            ("CL.TE", post!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
            ("TE.CL", post!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
            ("CL 0 and TE", post!("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "")),
        ],
    );
}

#[test]
fn ambiguous_lengths_are_refused() {
    refused(
        400,
        &[
            ("twice, different", post!("Content-Length: 1\r\nContent-Length: 2\r\n", "a")),
            ("twice, the same", post!("Content-Length: 1\r\nContent-Length: 1\r\n", "a")),
            ("comma", post!("Content-Length: 1, 1\r\n", "a")),
            ("empty", post!("Content-Length:\r\n", "")),
            ("blank", post!("Content-Length:  \t \r\n", "")),
            ("plus", post!("Content-Length: +1\r\n", "a")),
            ("minus", post!("Content-Length: -1\r\n", "a")),
            ("hexadecimal", post!("Content-Length: 0x1\r\n", "a")),
            ("inner space", post!("Content-Length: 1 0\r\n", "a")),
            ("letters", post!("Content-Length: 1a\r\n", "a")),
            ("point", post!("Content-Length: 1.0\r\n", "a")),
            ("overflow", post!("Content-Length: 18446744073709551617\r\n", "a")),
            ("overflow by one", post!("Content-Length: 9223372036854775808\r\n", "a")),
        ],
    );
}

#[test]
fn ambiguous_transfer_encodings_are_refused() {
    refused(
        400,
        &[
            ("empty", post!("Transfer-Encoding:\r\n", "0\r\n\r\n")),
            (
                "twice",
                post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ),
            ("chunked twice", post!("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
            ("chunked not last", post!("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
            ("with letters before it", post!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
            ("in quotes", post!("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")),
            ("with a parameter", post!("Transfer-Encoding: chunked;a=b\r\n", "0\r\n\r\n")),
            ("vertical tab", post!("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n")),
        ],
    );
    // A coding that is simply not ours is not implemented.
    refused(501, &[("another", post!("Transfer-Encoding: gzip\r\n", "0\r\n\r\n"))]);
}

#[test]
fn transfer_encoding_in_http_1_0_is_refused() {
    refused(
        400,
        &[(
            "TE on 1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )],
    );
}

#[test]
fn broken_chunks_are_refused() {
    macro_rules! chunked {
        ($body:expr) => {
            post!("Transfer-Encoding: chunked\r\n", $body)
        };
    }
    refused(
        400,
        &[
            ("no size", chunked!("\r\na\r\n0\r\n\r\n")),
            ("hexadecimal prefix", chunked!("0x1\r\na\r\n0\r\n\r\n")),
            ("negative", chunked!("-1\r\na\r\n0\r\n\r\n")),
            ("plus", chunked!("+1\r\na\r\n0\r\n\r\n")),
            ("leading space", chunked!(" 1\r\na\r\n0\r\n\r\n")),
            ("underscore", chunked!("1_0\r\na\r\n0\r\n\r\n")),
            ("overflow", chunked!("10000000000000001\r\na\r\n0\r\n\r\n")),
            ("line feed after the size", chunked!("1\na\r\n0\r\n\r\n")),
            ("carriage return after the size", chunked!("1\ra\r\n0\r\n\r\n")),
            ("data longer than its size", chunked!("1\r\nab\r\n0\r\n\r\n")),
            ("line feed after the data", chunked!("1\r\na\n0\r\n\r\n")),
            ("no line end after the data", chunked!("1\r\na0\r\n\r\n")),
            ("line feed in an extension", chunked!("1;a\nb\r\na\r\n0\r\n\r\n")),
            ("control in an extension", chunked!("1;a\x01\r\na\r\n0\r\n\r\n")),
            ("line feed after the last chunk", chunked!("0\n\r\n")),
            ("line feed at the end", chunked!("0\r\n\n")),
            ("trailer without colon", chunked!("0\r\nabc\r\n\r\n")),
            ("trailer with a space in its name", chunked!("0\r\na b: c\r\n\r\n")),
        ],
    );
}

#[test]
fn broken_fields_are_refused() {
    macro_rules! field {
        ($field:expr) => {
            concat!(
                "GET / HTTP/1.1\r\nHost: a\r\n",
                $field,
                "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            )
        };
    }
    refused(
        400,
        &[
            ("empty name", field!(": x")),
            ("no colon", field!("abc")),
            ("space before the colon", field!("Content-Length : 5")),
            ("tab before the colon", field!("Content-Length\t: 5")),
            ("folded", field!("X: a\r\n b")),
            ("folded with a tab", field!("X: a\r\n\tb")),
            ("NUL in the value", field!("X: a\0b")),
            ("NUL in the name", field!("X\0Y: a")),
            ("carriage return in the value", field!("X: a\rb")),
            ("carriage return in the name", field!("X\rY: a")),
        ],
    );
    refused(
        400,
        &[
            (
                "a space before the first field",
                "GET / HTTP/1.1\r\n Host: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("a bare carriage return as line end", "GET / HTTP/1.1\rHost: a\r\r\n\r\n"),
        ],
    );
}

#[test]
fn hosts_that_two_readers_may_take_apart_differently_are_refused() {
    refused(
        400,
        &[
            ("none", "GET / HTTP/1.1\r\n\r\n"),
            ("two", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("two, the same", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            (
                "two beside an absolute target",
                "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            ),
            ("slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            ("two dots", "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"),
            ("empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            ("control", "GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n"),
        ],
    );
}

#[test]
fn broken_request_lines_are_refused() {
    refused(
        400,
        &[
            ("no path", "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("lower-case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("version without a number", "GET / HTTP/1.\r\nHost: a\r\n\r\n"),
            ("other protocol", "GET / HTTTP/1.1\r\nHost: a\r\n\r\n"),
            ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("control in the target", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("words behind the version", "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n"),
        ],
    );
    refused(505, &[("a version to come", "GET / HTTP/2.0\r\nHost: a\r\n\r\n")]);
}

#[test]
fn well_framed_bodies_reach_the_backend() {
    let backend = Backend::named("backend");
    let server = proxy(&backend);
    let mut client = server.connect();
    let mut body = |fields: &str, body: &str| {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"));
        client.read_response().expect(200);
        backend.last_request().body_text()
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(body("Content-Length: 3\r\n", "abc"), "abc");
    assert_eq!(body("Content-Length:    03\r\n", "abc"), "abc");
    assert_eq!(body("content-length: 0\r\n", ""), "");
    assert_eq!(body(chunked, "3\r\nabc\r\n0\r\n\r\n"), "abc");
    assert_eq!(body("transfer-encoding: CHUNKED\r\n", "3\r\nabc\r\n0\r\n\r\n"), "abc");
    assert_eq!(
        body(chunked, "0003;a=b;c=\"d\"\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        "abc0123456789"
    );
    assert_eq!(body(chunked, "1\r\na\r\n0\r\nX-Trailer: y\r\n\r\n"), "a");
    // A body in front of nothing is no second request.
    assert_eq!(backend.request_count(), 7);
}

#[test]
fn a_get_may_have_a_body_that_is_no_request() {
    let backend = Backend::named("backend");
    let server = proxy(&backend);
    let mut client = server.connect();
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!(
        "GET /one HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}\
         GET /two HTTP/1.1\r\nHost: a\r\n\r\n",
        inner.len()
    ));
    client.read_response().expect(200);
    client.read_response().expect(200);
    let targets: Vec<String> = backend.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/one", "/two"]);
}

#[test]
fn a_body_that_nobody_wants_is_not_the_next_request() {
    let server = Server::start(Config::server("location / { return 200 $request_uri; }"));
    let mut client = server.connect();
    for fields in ["Content-Length: 26\r\n", "Transfer-Encoding: chunked\r\n"] {
        let body = if fields.starts_with('C') {
            "GET /smuggled HTTP/1.0\r\n\r\n".to_string()
        } else {
            "1a\r\nGET /smuggled HTTP/1.0\r\n\r\n\r\n0\r\n\r\n".to_string()
        };
        client.send(format!(
            "POST /one HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}\
             GET /two HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        assert_eq!(client.read_response().text(), "/one");
        assert_eq!(client.read_response().text(), "/two");
    }
}

#[test]
fn connect_is_not_allowed() {
    let backend = Backend::named("backend");
    let server = proxy(&backend);
    let answer = server.exchange("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 Not Allowed\r\n"), "{answer}");
    assert_eq!(backend.request_count(), 0);
}

#[test]
fn head_sizes_are_limited() {
    let server = Server::start(Config::server(
        "client_header_buffer_size 256; large_client_header_buffers 2 1k;
         location / { return 200 ok; }",
    ));
    let request = |target: usize, field: usize| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\nConnection: close\r\n\r\n",
            "t".repeat(target),
            "f".repeat(field)
        )
    };
    let status = |target, field| {
        let answer = server.exchange(request(target, field));
        answer.split(' ').nth(1).unwrap_or_default().to_string()
    };
    assert_eq!(status(10, 10), "200");
    assert_eq!(status(900, 10), "200");
    assert_eq!(status(10, 900), "200");
    assert_eq!(status(900, 900), "200");
    assert_eq!(status(1100, 10), "414");
    assert_eq!(status(10, 1100), "400");
}

#[test]
fn large_heads_work_when_allowed() {
    let backend = Backend::named("backend");
    let server = Server::start(
        Config::server(
            "large_client_header_buffers 4 64k;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let long = "v".repeat(60_000);
    let mut client = server.connect();
    client.request("GET", "/", &[("Host", "a"), ("X-Long", &long)], b"").expect(200);
    assert_eq!(backend.last_request().header("X-Long"), Some(long.as_str()));
}

#[test]
fn requests_may_arrive_in_any_pieces() {
    let backend = Backend::named("backend");
    let server = proxy(&backend);
    let mut client = server.connect();
    client.send_slowly("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
    client.read_response().expect(200);
    client.send_slowly("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_slowly("2;x\r\nok\r\n0\r\n\r\n");
    client.read_response().expect(200);
    let bodies: Vec<String> = backend.requests().iter().map(|r| r.body_text()).collect();
    assert_eq!(bodies, ["ok", "ok"]);
}

#[test]
fn fields_with_odd_names_are_ignored_or_refused() {
    let send = |directives: &str| {
        let backend = Backend::named("backend");
        let server = Server::start(
            Config::server(&format!(
                "{directives} location / {{ proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
            ))
            .with("BACKEND", backend.port()),
        );
        let fields = [("Host", "a"), ("x_under", "1"), ("x.dot", "2"), ("x-good", "3")];
        server.connect().request("GET", "/", &fields, b"").expect(200);
        let request = backend.last_request();
        let present = |name| u8::from(request.header(name).is_some());
        (present("x_under"), present("x.dot"), present("x-good"))
    };
    assert_eq!(send(""), (0, 0, 1));
    assert_eq!(send("underscores_in_headers on;"), (1, 0, 1));
    assert_eq!(send("ignore_invalid_headers off;"), (1, 1, 1));
}

#[test]
fn client_header_buffer_size_takes_heads_of_its_size() {
    // The larger buffers are of no use here: a line longer than one of them is refused.
    let server = Server::start(Config::server(
        "client_header_buffer_size 8k; large_client_header_buffers 1 512;
         location / { return 200 ok; }",
    ));
    server.get(&format!("/{}", "x".repeat(4000))).expect(200);
}

#[test]
fn max_headers_limits_the_number_of_fields() {
    let server = Server::start(Config::server("max_headers 5; location / { return 200 ok; }"));
    let status = |count: usize| {
        let fields: String = (1..count).map(|n| format!("X-{n}: y\r\n")).collect();
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.read_response().status
    };
    assert_eq!((status(5), status(6)), (200, 400));
}
