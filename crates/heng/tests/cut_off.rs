//! What is cut off by `worker_shutdown_timeout` is logged all the same.

use std::net::UdpSocket;

use testkit::{Answer, Backend, Config, Gate, Server};

const LIMIT: &str = "worker_shutdown_timeout 50ms;";

#[test]
fn requests_that_are_cut_off_are_logged_as_nginx_does() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::script(move |talk| {
        let Ok(request) = talk.read_head() else { return };
        if request.target == "/part" {
            talk.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
        }
        talk.record(&request);
        talk.wait(&held);
    });
    let mut server = Server::start(
        Config::http(
            "log_format how '$uri $status $body_bytes_sent';
             access_log %%DIR%%/logs/access.log how;
             server { listen 127.0.0.1:%%PORT_0%%;
                 location / { proxy_pass http://127.0.0.1:%%B%%; proxy_buffering off; } }",
        )
        .main(LIMIT)
        .with("B", backend.port()),
    );
    let mut clients: Vec<_> = ["/none", "/part", "/up"]
        .into_iter()
        .map(|path| {
            let mut client = server.connect();
            let length = if path == "/up" { "Content-Length: 9\r\n" } else { "" };
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n"));
            client
        })
        .collect();
    clients[1].read_head();
    backend.wait_requests(2);
    clients[2].wait_until_read();
    assert_eq!(server.quit().code, Some(0));
    clients[0].expect_closed();
    let log = server.access_log();
    for line in ["/none 000 0\n", "/part 200 5\n", "/up 000 0\n"] {
        assert!(log.contains(line), "no {line:?} in {log:?}");
    }
    gate.open();
}

#[test]
fn sessions_that_are_cut_off_are_logged_as_nginx_does() {
    let backend = Backend::with(|_| Answer::text("never"));
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut server = Server::start(
        Config::stream(
            "log_format how '$protocol $status $bytes_received $upstream_bytes_sent';
             access_log %%DIR%%/logs/access.log how;
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%B%%;
                 proxy_half_close on; }
             server { listen 127.0.0.1:%%PORT_1%% udp; proxy_pass 127.0.0.1:%%U%%; }
             server { listen 127.0.0.1:%%PORT_2%%; ssl_preread on; preread_timeout 1h;
                 proxy_pass 127.0.0.1:%%B%%; }",
        )
        .main(&format!("{LIMIT} error_log %%DIR%%/error.log info;"))
        .with("B", backend.port())
        .with("U", silent.local_addr().expect("an address").port()),
    );
    let mut client = server.connect();
    client.send("hello");
    backend.wait_open_connections(1);
    let mut reading = server.connect_to(2);
    reading.send("\u{16}");
    reading.wait_until_read();
    let packets = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    packets.send_to(b"one", ("127.0.0.1", server.port(1))).expect("a packet can be sent");
    silent.recv(&mut [0; 10]).expect("a packet comes");
    assert_eq!(server.quit().code, Some(0));
    client.expect_closed();
    let log = server.access_log();
    for line in ["TCP 200 5 5\n", "UDP 200 3 3\n", "TCP 200 0 -\n"] {
        assert!(log.contains(line), "no {line:?} in {log:?}");
    }
    assert!(server.error_log().contains("shutdown timeout while proxying connection, client: "));
}
