//! Every kernel interface that `use` names serves alike, and io_uring gives way to epoll where it
//! is forbidden.
//!
//! `cargo xtask test --driver NAME` runs all the other tests on one of them.

use std::io::{Read, Write};

use testkit::tls::{Identity, TlsClient, TlsConnection};
use testkit::{Answer, Backend, Client, Config, Server, Signal};

/// Runs a test on each interface that completes or reports in a way of its own.
fn on_each(test: impl Fn(&str)) {
    for driver in ["epoll", "io_uring", "poll"] {
        test(driver);
    }
}

/// A server on `driver` that passes everything on.
fn proxy(driver: &str, directives: &str, backend: &Backend) -> Server {
    let server = Server::start(
        Config::new(
            "error_log error.log notice; worker_processes 1; events { use %%DRIVER%%; }
             http {
                 access_log access.log;
                 upstream backend { server 127.0.0.1:%%BACKEND%%; keepalive 4; }
                 server {
                     listen 127.0.0.1:%%PORT_0%%;
                     proxy_http_version 1.1;
                     proxy_set_header Connection '';
                     %%DIRECTIVES%%
                     location / { proxy_pass http://backend; }
                     location /files/ { root %%DIR%%; }
                 }
             }",
        )
        .with("DRIVER", driver)
        .with("DIRECTIVES", directives)
        .with("BACKEND", backend.port())
        .file("files/big", body(3 << 20)),
    );
    server.wait_for_log(&format!("using the \"{driver}\" event method"));
    server
}

/// Bytes that differ from their neighbours.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) ^ (i >> 8)) as u8).collect()
}

fn expect_driver(server: &Server) {
    let log = server.error_log();
    assert!(!log.contains("is not available"), "{log}");
}

#[test]
fn connections_are_kept_and_requests_in_a_row_are_answered() {
    on_each(|driver| {
        let backend = Backend::with(|request| Answer::text(request.target.clone()));
        let server = proxy(driver, "", &backend);
        let mut client = server.connect();
        for n in 0..20 {
            let target = format!("/{n}");
            let response = client.request("GET", &target, &[("Host", "a")], b"").expect(200);
            assert_eq!(response.text(), target);
        }
        // Several at once: what was received beyond the first one is not lost.
        let rows: String =
            (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        client.send(&rows);
        for n in 0..50 {
            assert_eq!(client.read_response().expect(200).text(), format!("/{n}"));
        }
        assert_eq!(backend.connections(), 1, "{driver}");
        expect_driver(&server);
    });
}

#[test]
fn bodies_of_all_sizes_pass_both_ways() {
    on_each(|driver| {
        let backend = Backend::with(|request| Answer::text(request.body.clone()));
        let server = proxy(driver, "client_max_body_size 0;", &backend);
        let mut client = server.connect();
        for length in [1, 4095, 4096, 4097, 20_000, 300_000, 3 << 20] {
            let sent = body(length);
            let stated = length.to_string();
            let fields = [("Host", "a"), ("Content-Length", stated.as_str())];
            let response = client.request("POST", "/", &fields, &sent).expect(200);
            assert!(response.body == sent, "{driver}, {length}");
        }
        let response = server.get("/files/big").expect(200);
        assert!(response.body == body(3 << 20), "{driver}");
    });
}

/// Sends a request with a body on a connection that stays open; gives the answer's body.
fn exchange(client: &mut TlsConnection, path: &str, body: &[u8]) -> Vec<u8> {
    write!(client, "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())
        .and_then(|()| client.write_all(body))
        .and_then(|()| client.flush())
        .expect("the server reads");
    let mut answer = Vec::new();
    let mut head = 0;
    while head == 0 || answer.len() < head + body.len() {
        let mut room = [0; 16 << 10];
        let n = client.read(&mut room).expect("the whole answer");
        assert!(n > 0, "the connection ended after {} bytes", answer.len());
        answer.extend_from_slice(&room[..n]);
        if head == 0 {
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
            head = end.map_or(0, |end| end + 4);
        }
    }
    answer.split_off(head)
}

/// TLS may hold the last bytes back when a small write is still on its way: a head that is longer
/// than the backend's leaves such a small rest after the first 128 KiB.
#[test]
fn bodies_of_all_sizes_pass_through_tls() {
    let own = Identity::own("a.example");
    on_each(|driver| {
        let backend = Backend::with(|request| Answer::text(request.body.clone()));
        let inside = "ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key;
             client_body_buffer_size 1m; client_max_body_size 0;
             add_header X-Padding 0123456789012345678901234567890123456789012345678901234567890;
             location";
        let text = format!(
            "error_log error.log notice; events {{ use {driver}; }}
             http {{
                 server {{ listen 127.0.0.1:%%PORT_0%% ssl; {inside} / {{
                     proxy_pass http://127.0.0.1:%%BACKEND%%; }}
                     location /twice {{ proxy_pass https://127.0.0.1:%%PORT_1%%; }} }}
                 server {{ listen 127.0.0.1:%%PORT_1%% ssl; {inside} / {{
                     proxy_pass http://127.0.0.1:%%BACKEND%%; }} }}
             }}"
        );
        let config = Config::new(&text)
            .with("BACKEND", backend.port())
            .file("a.crt", &own.certificate)
            .file("a.key", &own.key);
        let server = Server::start(config);
        server.wait_for_log(&format!("using the \"{driver}\" event method"));
        let mut client = TlsClient::new("a.example").connect(server.port(0)).expect("TLS");
        for length in (60_000..280_000).step_by(9_973) {
            for path in ["/once", "/twice"] {
                let answer = exchange(&mut client, path, &body(length));
                assert!(answer == body(length), "{driver}, {path}, {length}");
            }
        }
        expect_driver(&server);
    });
}

#[test]
fn a_slow_reader_gets_all_and_is_waited_for() {
    on_each(|driver| {
        let backend = Backend::named("unused");
        let mut server = proxy(driver, "", &backend);
        let mut client = server.connect();
        client.send("GET /files/big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.read_head().status, 200);
        // The worker retires with the answer half sent.
        server.signal(Signal::QUIT);
        assert!(client.read_to_end() == body(3 << 20), "{driver}");
        server.wait_exit();
    });
}

#[test]
fn a_client_that_leaves_is_noticed_while_the_backend_thinks() {
    on_each(|driver| {
        let backend = Backend::with(|_| Answer::silence());
        let server = proxy(driver, "", &backend);
        for pipelined in [false, true] {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            if pipelined {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            backend.wait_requests(1 + usize::from(pipelined));
            drop(client);
            backend.wait_open_connections(0);
        }
    });
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_its_end() {
    on_each(|driver| {
        let backend = Backend::with(|_| Answer::upgrade("websocket"));
        let server = proxy(
            driver,
            "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
            &backend,
        );
        let mut client = server.connect();
        let fields = [("Host", "a"), ("Upgrade", "websocket"), ("Connection", "upgrade")];
        client.request("GET", "/", &fields, b"").expect(101);
        for length in [1, 10_000, 100_000] {
            let sent = body(length);
            client.send(&sent);
            assert!(client.read_exactly(length) == sent, "{driver}, {length}");
        }
        client.half_close();
        client.expect_closed();
        backend.wait_open_connections(0);
    });
}

#[test]
fn a_kept_connection_that_the_backend_closed_is_not_used() {
    on_each(|driver| {
        let backend = Backend::named("backend");
        let server = proxy(driver, "proxy_next_upstream off;", &backend);
        for _ in 0..5 {
            server.get("/").expect(200);
            backend.close_connections();
            backend.wait_open_connections(0);
        }
        assert_eq!(backend.connections(), 5, "{driver}");
    });
}

#[test]
fn io_uring_gives_way_to_epoll_where_it_is_forbidden() {
    // In a thread of its own, for the denial holds for ever.
    std::thread::spawn(|| {
        system::sandbox::deny_io_uring().expect("seccomp filters");
        let backend = Backend::named("backend");
        for master in ["on", "off"] {
            let server = Server::start(
                Config::new(
                    "error_log error.log notice; master_process %%MASTER%%;
                     events { use io_uring; }
                     http {
                         server {
                             listen 127.0.0.1:%%PORT_0%%;
                             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
                         }
                     }",
                )
                .with("MASTER", master)
                .with("BACKEND", backend.port()),
            );
            server.wait_for_log(
                "io_uring is not available, using epoll instead (1: Operation not permitted)",
            );
            let mut client = Client::connect(server.port(0));
            for _ in 0..3 {
                let answer = client.request("GET", "/", &[("Host", "a")], b"").expect(200);
                assert_eq!(answer.text(), "backend");
            }
        }
    })
    .join()
    .unwrap();
}
