//! Active checks in `stream`: over TCP with bytes, over UDP with packets.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::{Backend, Client, Config, Server};

/// A backend that says its name, and to `PING` what the switch allows.
fn switched(name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(true));
    let shown = on.clone();
    let backend = Backend::script(move |talk| {
        let asked = talk.read_some().unwrap_or_default();
        match asked.as_slice() {
            b"PING\r\n" if shown.load(Ordering::SeqCst) => drop(talk.send("+PONG\r\n")),
            b"PING\r\n" => drop(talk.send("-ERR\r\n")),
            _ => drop(talk.send(name)),
        }
    });
    (backend, on)
}

/// Who answers six sessions, without repetitions.
fn who(server: &Server) -> String {
    let mut seen: Vec<String> = (0..6)
        .map(|_| {
            let mut client = Client::connect(server.port(0));
            client.send("who?");
            String::from_utf8_lossy(&client.read_to_end()).into_owned()
        })
        .collect();
    seen.sort();
    seen.dedup();
    seen.concat()
}

#[test]
fn who_is_ill_gets_no_sessions() {
    let ((a, on), (b, _)) = (switched("a"), switched("b"));
    let server = Server::start(
        Config::stream(
            "upstream u { zone u 64k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; }
             match pong { send \"PING\\r\\n\"; expect ~ PONG; }
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass u;
                 health_check interval=30ms match=pong; }",
        )
        .with("A", a.port())
        .with("B", b.port()),
    );
    server.wait_until("both", || who(&server) == "ab");
    on.store(false, Ordering::SeqCst);
    server.wait_until("one", || who(&server) == "b");
    on.store(true, Ordering::SeqCst);
    server.wait_until("both again", || who(&server) == "ab");
}

#[test]
fn a_silent_server_is_ill_after_the_timeout() {
    let silent = Backend::script(|talk| drop(talk.read_to_end()));
    let server = Server::start(
        Config::stream(
            "upstream u { zone u 64k; server 127.0.0.1:%%A%%; }
             match pong { send PING; expect PONG; }
             health_check_timeout 100ms;
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass u;
                 health_check interval=30ms match=pong; }",
        )
        .main("error_log %%DIR%%/error.log warn;")
        .with("A", silent.port()),
    );
    let log = server.wait_for_log("peer is unhealthy");
    assert!(log.contains("while waiting for an answer: timed out"), "{log}");
}

#[test]
fn packets_are_sent_and_expected() {
    let backend = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = backend.local_addr().expect("an address").port();
    let right = Arc::new(AtomicBool::new(false));
    let switch = right.clone();
    backend.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    std::thread::spawn(move || {
        let mut packet = [0; 100];
        while let Ok((length, from)) = backend.recv_from(&mut packet) {
            let known = switch.load(Ordering::SeqCst) && &packet[..length] == b"ask";
            let answer: &[u8] = if known { b"well" } else { b"ill" };
            let _ = backend.send_to(answer, from);
        }
    });
    let server = Server::start(
        Config::stream(
            "upstream u { zone u 64k; server 127.0.0.1:%%A%%; }
             match m { send ask; expect well; }
             health_check_timeout 200ms;
             server { listen 127.0.0.1:%%PORT_0%% udp; proxy_pass u;
                 health_check udp interval=30ms match=m; }",
        )
        .main("error_log %%DIR%%/error.log notice;")
        .with("A", port),
    );
    server.wait_for_log("peer is unhealthy");
    right.store(true, Ordering::SeqCst);
    server.wait_for_log("peer is healthy");
}

#[test]
fn a_refused_packet_is_ill_and_silence_is_not() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let gone = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = |socket: &UdpSocket| socket.local_addr().expect("an address").port();
    let ports = (port(&silent), port(&gone));
    drop(gone);
    let server = Server::start(
        Config::stream(
            "upstream u { zone u 64k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; }
             match m { send ask; }
             health_check_timeout 200ms;
             server { listen 127.0.0.1:%%PORT_0%% udp; proxy_pass u;
                 health_check udp interval=30ms mandatory match=m; }",
        )
        .main("error_log %%DIR%%/error.log notice;")
        .with("A", ports.0)
        .with("B", ports.1),
    );
    let said =
        |what: &str, port: u16| format!("{what}, health check \"m\" of peer 127.0.0.1:{port}");
    server.wait_for_log(&said("peer is healthy", ports.0));
    let log = server.wait_for_log("peer is unhealthy");
    assert!(log.contains(&format!("of peer 127.0.0.1:{}", ports.1)), "{log}");
}

#[test]
fn faults_of_the_configuration() {
    for (check, expected) in [
        ("health_check udp;", "\"udp\" requires a \"match\" with \"send\""),
        ("health_check keepalive_time=1m;", "are for checks over HTTP"),
        ("health_check udp type=tcp;", "\"udp\" has no \"type\""),
        ("health_check match=web;", "is about an HTTP answer, and none is asked for"),
    ] {
        let text = format!(
            "upstream u {{ zone u 64k; server 127.0.0.1:1; }} match web {{ status 200; }}
             server {{ listen 127.0.0.1:%%PORT_0%%; proxy_pass u; {check} }}"
        );
        let outcome = Server::check(Config::stream(&text));
        assert!(outcome.stderr.contains(expected), "{expected}: {}", outcome.stderr);
    }
}
