//! The client against the scripted backend: each is the other's proof.

use std::time::Duration;
use testkit::{Answer, Backend, Client, Gate, ReadError, get, until};

#[test]
fn a_named_backend_keeps_the_connection() {
    let backend = Backend::named("one");
    let mut client = Client::connect(backend.port());
    for _ in 0..3 {
        let response = client.get("/path").expect(200);
        assert_eq!(response.text(), "one");
        assert_eq!(response.header("x-backend"), Some("one"));
    }
    assert_eq!((backend.connections(), backend.request_count()), (1, 3));
    let request = backend.last_request();
    assert_eq!((request.connection, request.number), (1, 3));
    assert_eq!(request.target, "/path");
    assert_eq!(request.text(), "GET /path HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::with(|request| Answer::text(request.target.clone()));
    let mut client = Client::connect(backend.port());
    client.send("GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
    client.send("GET /3 HTTP/1.1\r\n\r\n");
    let bodies: Vec<String> = (0..3).map(|_| client.read_response().text()).collect();
    assert_eq!(bodies, ["/1", "/2", "/3"]);
    assert_eq!(backend.requests()[1].body, b"abc");
}

#[test]
fn bytes_sent_one_by_one_arrive() {
    let backend = Backend::with(Answer::echo);
    let mut client = Client::connect(backend.port());
    let request = "GET / HTTP/1.1\r\nX: y\r\n\r\n";
    client.send_slowly(request);
    assert_eq!(client.read_response().text(), request);
}

#[test]
fn chunked_requests_are_unframed() {
    let backend = Backend::named("one");
    let mut client = Client::connect(backend.port());
    client
        .send("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    client.read_response().expect(200);
    assert_eq!(backend.last_request().body_text(), "abc");
}

#[test]
fn answers_bend_as_told() {
    let check = |answer: fn() -> Answer, expected: &str| {
        let backend = Backend::with(move |_| answer());
        let mut client = Client::connect(backend.port());
        client.send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
        let bytes = client.read_to_end();
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    };
    let head = "HTTP/1.1 200 OK\r\n";
    check(|| Answer::raw("garbage"), "garbage");
    check(Answer::close, "");
    check(Answer::reset, "");
    check(
        || Answer::text("abc").chunked().header("A", "b"),
        &format!(
            "{head}Transfer-Encoding: chunked\r\nConnection: close\r\nA: b\r\n\r\n\
             3\r\nabc\r\n0\r\n\r\n"
        ),
    );
    check(
        || Answer::text("abcdef").cut_after(2),
        &format!("{head}Content-Length: 6\r\nConnection: close\r\n\r\nab"),
    );
    check(
        || Answer::text("abcdef").chunked().cut_after(2),
        &format!("{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nab"),
    );
    check(|| Answer::text("abc").until_close(), &format!("{head}Connection: close\r\n\r\nabc"));
    check(
        || Answer::status(204).interim("HTTP/1.1 103 Early Hints\r\n\r\n"),
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    );
    check(
        || Answer::status(503).header("Retry-After", "1"),
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\
         Retry-After: 1\r\n\r\n",
    );
}

#[test]
fn a_head_is_answered_without_a_body() {
    let backend = Backend::named("one");
    let mut client = Client::connect(backend.port());
    let response = client.request("HEAD", "/", &[], b"");
    assert_eq!(response.header("Content-Length"), Some("3"));
    assert_eq!(client.get("/").text(), "one");
}

#[test]
fn a_gate_holds_an_answer_and_a_body() {
    let (before, inside) = (Gate::new(), Gate::new());
    let (first, second) = (before.clone(), inside.clone());
    let backend =
        Backend::with(move |_| Answer::text("abcd").after_gate(&first).pause_at(2, &second));
    let mut client = Client::connect(backend.port());
    client.send("GET / HTTP/1.1\r\n\r\n");
    before.wait_arrived(1);
    client.expect_quiet(Duration::from_millis(20));
    before.open();
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_exactly(2), b"ab");
    client.expect_quiet(Duration::from_millis(20));
    inside.open();
    assert_eq!(client.read_exactly(2), b"cd");
}

#[test]
fn an_upgrade_echoes() {
    let backend = Backend::with(|_| Answer::upgrade("websocket"));
    let mut client = Client::connect(backend.port());
    let response = client.get("/").expect(101);
    assert_eq!(response.header("Upgrade"), Some("websocket"));
    client.send("ping");
    assert_eq!(client.read_exactly(4), b"ping");
    client.half_close();
    client.expect_closed();
}

#[test]
fn silence_lasts_until_the_client_leaves() {
    let backend = Backend::with(|_| Answer::silence());
    let mut client = Client::connect(backend.port());
    client.send("GET / HTTP/1.1\r\n\r\n");
    backend.wait_requests(1);
    client.expect_quiet(Duration::from_millis(20));
    client.reset();
    backend.wait_open_connections(0);
}

#[test]
fn a_backend_goes_down_and_comes_back() {
    let mut backend = Backend::named("one");
    let port = backend.port();
    let mut client = Client::connect(port);
    client.get("/").expect(200);
    backend.down();
    client.expect_closed();
    assert!(Client::try_connect(port).is_err());
    backend.up();
    assert_eq!(get(port, "/").text(), "one");
}

#[test]
fn heads_are_answered_before_bodies() {
    let backend = Backend::with_heads(|_| Answer::status(429).then_close());
    let mut client = Client::connect(backend.port());
    client.send("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
    assert_eq!(client.read_response().status, 429);
    assert_eq!(backend.request_count(), 1);
}

#[test]
fn a_script_plays_whole_connections() {
    let backend = Backend::script(|conversation| {
        let Ok(request) = conversation.read_request() else { return };
        conversation.send(format!("HTTP/1.1 200 OK\r\n\r\n{}", request.target));
    });
    assert_eq!(get(backend.port(), "/x").text(), "/x");
    assert!(until(|| backend.open_connections() == 0));
}

#[test]
fn unix_sockets_serve_too() {
    let path = std::env::temp_dir().join(format!("heng-test-{}.sock", std::process::id()));
    let backend = Backend::unix(&path, |_| Answer::text("local"));
    assert_eq!(Client::connect(backend.peer()).get("/").text(), "local");
    drop(backend);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn truncation_is_told_from_the_end() {
    let backend = Backend::with(|request| match request.number {
        1 => Answer::text("abcdef").cut_after(3),
        _ => Answer::close(),
    });
    let mut client = Client::connect(backend.port());
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(client.try_read_response(), Err(ReadError::Truncated(_))));
    assert_eq!(client.try_read_response().unwrap_err(), ReadError::Closed);
}

#[test]
fn an_unreachable_port_neither_accepts_nor_refuses() {
    let backend = Backend::unreachable();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], backend.port()));
    let limit = Duration::from_millis(100);
    let error = std::net::TcpStream::connect_timeout(&address, limit).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
