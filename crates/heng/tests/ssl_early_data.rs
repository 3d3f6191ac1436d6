//! Requests in a client's first message (`ssl_early_data`), and copies of such messages.

use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::tls::{Identity, TlsClient, TlsConnection};
use testkit::{Answer, Backend, Config, Server};

const REQUEST: &[u8] =
    b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";

/// A server of TLS with `inside`, in front of a backend.
fn server(inside: &str, backend: &Backend) -> Server {
    let own = Identity::own("a.example");
    let text = format!(
        "server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name a.example;
             ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key; {inside}
             location / {{ proxy_pass http://127.0.0.1:%%BACKEND%%;
                 proxy_set_header Early-Data $ssl_early_data; }}
             location /told {{
                 return 200 \"early=$ssl_early_data resumed=$ssl_session_reused\"; }} }}"
    );
    let config = Config::http(&text)
        .main("error_log %%DIR%%/error.log info; worker_processes 4;")
        .with("BACKEND", backend.port())
        .file("a.crt", &own.certificate)
        .file("a.key", &own.key);
    Server::start(config)
}

/// Has a session to come again with.
fn acquainted(server: &Server) -> TlsClient {
    let client = TlsClient::new("a.example");
    let answer = client.get(server.port(0), "/told").expect("an answer");
    assert!(answer.ends_with("early= resumed=."), "{answer}");
    client
}

fn send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", server.port(0))).expect("a connection");
    socket.write_all(bytes).expect("sent");
    socket
}

fn rest(mut connection: TlsConnection) -> String {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn requests_may_come_before_the_handshake_is_over() {
    let backend = Backend::with(|request| match request.header("Early-Data") {
        Some("1") => Answer::status(425),
        _ => Answer::text("b"),
    });
    let server = server("ssl_early_data on;", &backend);
    let client = acquainted(&server);
    let (state, flight) = client.first_flight(REQUEST).expect("early data is allowed");
    let socket = send(&server, &flight);
    // The backend has the whole request although the client said nothing more.
    backend.wait_requests(1);
    let request = backend.last_request();
    assert_eq!((request.header("Early-Data"), &request.body[..]), (Some("1"), &b"abc"[..]));
    let connection = client.go_on(state, socket).expect("a handshake");
    assert!(connection.state().is_early_data_accepted());
    let answer = rest(connection);
    // Too early: the client is to ask again, as it does here.
    assert!(answer.starts_with("HTTP/1.1 425 "), "{answer}");
    // What comes after the handshake is not early any more.
    let answer = client.get(server.port(0), "/told").unwrap();
    assert!(answer.ends_with("early= resumed=r"), "{answer}");
    assert!(client.get(server.port(0), "/x").unwrap().ends_with('b'));
    assert_eq!(backend.last_request().header("Early-Data"), None);
}

#[test]
fn a_request_may_begin_early_and_end_late() {
    let backend = Backend::named("b");
    let server = server("ssl_early_data on;", &backend);
    let client = acquainted(&server);
    let (early, late) = REQUEST.split_at(REQUEST.len() - 20);
    let (state, flight) = client.first_flight(early).expect("early data is allowed");
    let socket = send(&server, &flight);
    let mut connection = client.go_on(state, socket).expect("a handshake");
    assert!(connection.state().is_early_data_accepted());
    connection.write_all(late).unwrap();
    assert!(rest(connection).starts_with("HTTP/1.1 200 "));
    assert_eq!(backend.last_request().body, b"abc");
    assert_eq!(backend.last_request().header("Early-Data"), None);
}

#[test]
fn copies_are_not_heard_by_any_worker() {
    let backend = Backend::named("b");
    let server = server("ssl_early_data on; ssl_session_cache shared:own:1m;", &backend);
    let client = acquainted(&server);
    let (state, flight) = client.first_flight(REQUEST).expect("early data is allowed");
    // The same bytes to all four workers at once, and later again.
    let mut sockets: Vec<TcpStream> = (0..16).map(|_| send(&server, &flight)).collect();
    backend.wait_requests(1);
    let mut answers = Vec::new();
    for socket in &mut sockets {
        // Each gets the server's first message, which tells whether the session was taken up.
        let mut first = [0; 4096];
        let n = socket.read(&mut first).expect("the server's part of a handshake");
        answers.push(n);
    }
    sockets.extend((0..4).map(|_| send(&server, &flight)));
    server.reload();
    for _ in 0..8 {
        let mut socket = send(&server, &flight);
        let mut first = [0; 4096];
        assert_ne!(socket.read(&mut first).expect("the server's part of a handshake"), 0);
    }
    assert_eq!(backend.request_count(), 1, "{answers:?}");
    // One of the sixteen was the first: only there the session was taken up, without showing a
    // certificate, which makes the message short.
    let (least, most) = (answers.iter().min().unwrap(), answers.iter().max().unwrap());
    let short = answers.iter().filter(|n| *n < &((least + most) / 2)).count();
    assert_eq!(short, 1, "{answers:?}");
    drop(state);
}

#[test]
fn early_data_is_allowed_only_where_it_is_wanted() {
    let backend = Backend::named("b");
    for inside in ["", "ssl_session_cache shared:own:1m; ssl_session_tickets off;"] {
        let server = server(inside, &backend);
        let client = acquainted(&server);
        assert!(client.first_flight(REQUEST).is_none());
        assert!(client.get(server.port(0), "/told").unwrap().ends_with("early= resumed=r"));
    }
    assert_eq!(backend.request_count(), 0);
}

#[test]
fn a_server_that_no_longer_wants_it_passes_it_over() {
    let backend = Backend::named("b");
    let inside = "ssl_session_cache shared:own:1m; ssl_early_data on;";
    let mut server = server(inside, &backend);
    let client = acquainted(&server);
    let (state, flight) = client.first_flight(REQUEST).expect("early data is allowed");
    let own = Identity::own("a.example");
    let config = Config::http(
        "server { listen 127.0.0.1:%%PORT_0%% ssl; server_name a.example;
             ssl_certificate %%DIR%%/b.crt; ssl_certificate_key %%DIR%%/b.key;
             ssl_session_cache shared:own:1m;
             location /told { return 200 \"early=$ssl_early_data\"; } }",
    );
    let config = config
        .main("error_log %%DIR%%/error.log info; worker_processes 4;")
        .file("b.crt", &own.certificate)
        .file("b.key", &own.key);
    server.reconfigure(config);
    server.reload();
    let socket = send(&server, &flight);
    let mut connection = client.go_on(state, socket).expect("a handshake");
    assert!(!connection.state().is_early_data_accepted());
    assert!(connection.get("/told").unwrap().ends_with("early="));
    assert_eq!(backend.request_count(), 0);
}
