//! HTTP/2 towards backends: `proxy_http_version 2` and `grpc_pass`, against another server of the
//! same configuration that speaks HTTP/2.

use testkit::frames::{END_STREAM, kind, request_block};
use testkit::{Backend, Config, Frame, FrameClient, FrameServer, Server};

/// A server whose `location /` has these lines, with a server behind it on `%%PORT_1%%` that speaks
/// HTTP/2 and tells what it was asked.
fn pair(front: &str, back: &str) -> Server {
    Server::start(
        Config::http(&format!(
            "error_log %%DIR%%/error.log info;
             upstream u {{ server 127.0.0.1:%%PORT_1%%; keepalive 4; }}
             server {{ listen 127.0.0.1:%%PORT_0%%; http2 on; client_max_body_size 0;
                       location / {{ {front} }} }}
             server {{ listen 127.0.0.1:%%PORT_1%%; http2 on; client_max_body_size 0;
                       add_header X-Connection $connection; {back} }}"
        ))
        .file("f", [b'x'; 300_000]),
    )
}

const TELL: &str = "location / {
    return 200 \"$request_method $request_uri $server_protocol $host $http_x $http_te\";
}";

#[test]
fn proxy_http_version_2_speaks_http_2() {
    let server = pair("proxy_http_version 2; proxy_pass http://u;", TELL);
    for _ in 0..3 {
        let answer = server.get("/a?b");
        assert_eq!((answer.status, answer.text()), (200, "GET /a?b HTTP/2.0 u  ".to_owned()));
    }
    // Connections are kept: one served all of them.
    let connection = |path: &str| server.get(path).header("x-connection").map(str::to_owned);
    assert_eq!(connection("/"), connection("/"));
}

#[test]
fn fields_set_and_hosts_reach_an_http_2_backend() {
    let server = pair(
        "proxy_http_version 2; proxy_set_header X $uri; proxy_set_header Host other.example;
         proxy_pass http://u;",
        TELL,
    );
    assert_eq!(server.get("/p").text(), "GET /p HTTP/2.0 other.example /p ");
}

#[test]
fn large_bodies_pass_both_ways() {
    let server = pair(
        "proxy_http_version 2; proxy_pass http://u;",
        "root %%DIR%%; location /up { return 200 \"$request_length\"; }",
    );
    assert_eq!(server.get("/f").body.len(), 300_000);
    assert_eq!(server.get("/f").body.len(), 300_000);
    let mut client = server.connect();
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    client.send(vec![b'y'; 200_000]);
    assert_eq!(client.read_response().status, 200);
    assert_eq!(server.get("/nothing").status, 404);
    let head = server.exchange("HEAD /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.contains("Content-Length: 300000\r\n"), "{head}");
}

#[test]
fn a_backend_that_does_not_speak_http_2_is_a_bad_gateway() {
    let backend = Backend::with(|_| testkit::Answer::text("HTTP/1"));
    let server = Server::start(
        Config::server(
            "proxy_http_version 2; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    assert_eq!(server.get("/").status, 502);
}

#[test]
fn calls_pass_with_their_trailers() {
    let server = pair(
        "grpc_pass grpc://127.0.0.1:%%PORT_1%%; grpc_set_header X set;",
        "location / { add_trailer grpc-status 0; add_header X-Seen \"$http_x $http_te $host\";
                      root %%DIR%%; }",
    );
    let mut client = FrameClient::connect(server.port(0));
    let id = client.request(&request_block("GET", "/f", &[("te", "trailers")]), END_STREAM);
    let answer = client.answer(id);
    assert_eq!((answer.status(), answer.body().len()), (200, 300_000));
    let last = answer.frames.last().expect("an answer has frames");
    assert_eq!((last.kind, last.flags & END_STREAM), (kind::HEADERS, END_STREAM));
    assert!(last.payload.windows(4).any(|part| part == b"grpc") || last.payload.len() > 5);
    let seen = server.get("/f").header("x-seen").map(str::to_owned);
    assert_eq!(seen.as_deref(), Some("set  127.0.0.1"));
}

/// The request of a call goes on after the head of its answer.
#[test]
fn a_call_flows_both_ways_at_once() {
    let backend = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        let id = server.head();
        server.send(Frame::new(kind::HEADERS, 4, id, [0x88]));
        loop {
            let data = server.data();
            let end = data.flags & END_STREAM;
            server.send(Frame::new(kind::DATA, end, id, data.payload));
            if end != 0 {
                return;
            }
        }
    });
    let server = Server::start(
        Config::server("http2 on; location / { grpc_pass 127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    let id = client.request(&request_block("POST", "/", &[]), 0);
    for word in ["one", "two", "three"] {
        client.send(Frame::new(kind::DATA, 0, id, word));
        assert_eq!(client.read_kind(kind::DATA).payload, word.as_bytes());
    }
    client.send(Frame::new(kind::DATA, END_STREAM, id, []));
    assert_eq!(client.answer(id).reset(), None);
}

/// Settings of `grpc_pass` do what those of `proxy_pass` do.
#[test]
fn settings_of_calls() {
    let silent = Backend::script(|talk| {
        let _ = talk.read_to_end();
    });
    let start = |lines: &str| {
        Server::start(
            Config::server(&format!(
                "error_log %%DIR%%/error.log info; location / {{ {lines} \
                 grpc_pass 127.0.0.1:%%BACKEND%%; }} location /page {{ return 200 page; }}"
            ))
            .with("BACKEND", silent.port()),
        )
    };
    let server = start("grpc_read_timeout 50ms;");
    assert_eq!(server.get("/").status, 504);
    let url = format!("upstream: \"grpc://127.0.0.1:{}", silent.port());
    assert!(server.error_log().contains(&url), "{}", server.error_log());
}

#[test]
fn fields_of_answers_to_calls() {
    let back = "location / { return 404 gone; }";
    let front = "grpc_pass u; grpc_hide_header X-Secret; grpc_pass_header X-Accel-Expires;";
    let server = pair(
        front,
        "location / { add_header X-Secret a; add_header X-Accel-Expires 0; return 200 b; }",
    );
    let answer = server.get("/");
    assert_eq!((answer.status, answer.header("x-secret")), (200, None));
    assert_eq!(answer.header("x-accel-expires"), Some("0"));
    let front = "grpc_pass u; grpc_intercept_errors on; error_page 404 =200 @own;";
    let server = pair(&format!("{front} }} location @own {{ return 200 own;"), back);
    assert_eq!(server.get("/").text(), "own");
    let front = "grpc_pass u; grpc_ignore_headers X-Accel-Redirect; } location /in { return 403;";
    let server = pair(front, "location / { add_header X-Accel-Redirect /in; return 200 b; }");
    assert_eq!(server.get("/").text(), "b");
    let front = "grpc_pass u; grpc_buffer_size 1k;";
    let long = format!("location / {{ add_header X-Long {}; return 200; }}", "x".repeat(2000));
    assert_eq!(pair(front, &long).get("/").status, 502);
}

/// A group of which the first server (always asked first) answers badly.
#[test]
fn calls_go_to_the_next_server() {
    let start = |lines: &str, first: &str| {
        Server::start(Config::http(&format!(
            "error_log %%DIR%%/error.log info;
             upstream g {{ server 127.0.0.1:%%PORT_1%% weight=100 max_fails=0;
                           server 127.0.0.1:%%PORT_2%%; }}
             server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ {lines} grpc_pass g; }} }}
             server {{ listen 127.0.0.1:%%PORT_1%%; http2 on; {first} }}
             server {{ listen 127.0.0.1:%%PORT_2%%; http2 on;
                       location / {{ return 200 second; }} }}"
        )))
    };
    let bad = "location / { return 500; }";
    assert_eq!(start("", bad).get("/").status, 500);
    assert_eq!(start("grpc_next_upstream http_500;", bad).get("/").text(), "second");
    let tries = "grpc_next_upstream http_500; grpc_next_upstream_tries 1;";
    assert_eq!(start(tries, bad).get("/").status, 500);
}

#[test]
fn a_silent_server_is_followed_by_another_in_time_only() {
    let start = |lines: &str, silent: u16| {
        Server::start(
            Config::http(&format!(
                "upstream g {{ server 127.0.0.1:%%SILENT%% weight=100 max_fails=0;
                               server 127.0.0.1:%%PORT_1%%; }}
                 server {{ listen 127.0.0.1:%%PORT_0%%;
                           location / {{ grpc_read_timeout 150ms; {lines} grpc_pass g; }} }}
                 server {{ listen 127.0.0.1:%%PORT_1%%; http2 on;
                           location / {{ return 200 second; }} }}"
            ))
            .with("SILENT", silent),
        )
    };
    let silent = Backend::script(|talk| {
        let _ = talk.read_to_end();
    });
    assert_eq!(start("", silent.port()).get("/").text(), "second");
    let late = "grpc_next_upstream_timeout 50ms;";
    assert_eq!(start(late, silent.port()).get("/").status, 504);
}

#[test]
fn calls_come_from_where_they_are_told_to() {
    let server =
        pair("grpc_pass u; grpc_bind 127.0.0.3;", "location / { return 200 $remote_addr; }");
    assert_eq!(server.get("/").text(), "127.0.0.3");
}

#[test]
fn a_server_that_does_not_accept_is_given_up() {
    let backend = Backend::unreachable();
    let server = Server::start(
        Config::server(
            "location / { grpc_connect_timeout 50ms; grpc_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    assert_eq!(server.get("/").status, 504);
}

/// Windows are open, but the server reads nothing.
#[test]
fn a_server_that_takes_nothing_is_given_up() {
    let gate = testkit::Gate::new();
    let waiting = gate.clone();
    let backend = Backend::script(move |talk| {
        let mut server = FrameServer::accept(talk);
        server.send(Frame::new(kind::SETTINGS, 0, 0, [0, 4, 127, 255, 255, 255]));
        server.send(Frame::new(kind::WINDOW_UPDATE, 0, 0, [127, 0, 0, 0]));
        waiting.pass();
    });
    let server = Server::start(
        Config::server(
            "client_max_body_size 0; location / {
                 grpc_send_timeout 50ms; grpc_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n");
    let _ = client.try_send(vec![b'x'; 30_000_000]);
    assert_eq!(client.read_response().status, 504);
    gate.open();
}

#[test]
fn sockets_to_servers_are_as_told() {
    let gate = testkit::Gate::new();
    let waiting = gate.clone();
    let backend = Backend::script(move |talk| {
        let mut server = FrameServer::accept(talk);
        server.head();
        waiting.pass();
    });
    let server = Server::start(
        Config::server(
            "location / { grpc_socket_rcvbuf 20k; grpc_socket_sndbuf 30k;
                          grpc_socket_keepalive on; grpc_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    let options = server.options_towards(backend.port());
    let options = options.first().expect("a connection to the server");
    assert!(options.keepalive);
    // The kernel keeps twice of what was asked for.
    assert_eq!((options.receive_buffer, options.send_buffer), (2 * 20 * 1024, 2 * 30 * 1024));
    gate.open();
}
