//! Connections that end when their server is marked down, or when a better one is up again:
//! `on_marked_down`, `on_marked_up`, for all servers of a group or for one.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::{Answer, Backend, Client, Config, Server, patience, until};

/// A backend whose sessions begin with its name and last; to `PING` it says what the switch
/// allows.
fn lasting(name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(true));
    let shown = on.clone();
    let backend = Backend::script(move |talk| {
        let asked = talk.read_some().unwrap_or_default();
        match asked.as_slice() {
            b"PING\r\n" if shown.load(Ordering::SeqCst) => drop(talk.send("+PONG\r\n")),
            b"PING\r\n" => drop(talk.send("-ERR\r\n")),
            _ => {
                talk.send(name);
                drop(talk.read_to_end());
            }
        }
    });
    (backend, on)
}

/// A session, and who serves it.
fn session(server: &Server) -> (Client, String) {
    let mut client = Client::connect(server.port(0));
    client.send("who?");
    let who = client.read_exactly(1);
    (client, String::from_utf8_lossy(&who).into_owned())
}

/// As many sessions as it takes to have `count` with a server, and all others.
fn sessions(server: &Server, of: &str, count: usize) -> (Vec<Client>, Vec<Client>) {
    let (mut wanted, mut others) = (Vec::new(), Vec::new());
    while wanted.len() < count {
        let (client, who) = session(server);
        if who == of { wanted.push(client) } else { others.push(client) }
    }
    (wanted, others)
}

#[track_caller]
fn expect_alive(clients: &mut [Client]) {
    for client in clients {
        client.expect_quiet(std::time::Duration::from_millis(1));
    }
}

const CHECKED: &str = "
    log_format how '$status $upstream_addr';
    access_log %%DIR%%/logs/access.log how;
    match pong { send \"PING\\r\\n\"; expect ~ PONG; }
    server { listen 127.0.0.1:%%PORT_0%%; proxy_pass u;
        health_check interval=30ms match=pong; }";

/// Two workers, a group that is checked, and what each server is told.
fn checked(group: &str, a: &Backend, b: &Backend) -> Server {
    let group = format!("upstream u {{ zone u 64k; {group} }} {CHECKED}");
    let config = Config::stream(&group)
        .main("worker_processes 2; error_log %%DIR%%/error.log warn;")
        .with("A", a.port())
        .with("B", b.port());
    Server::start(config)
}

#[test]
fn sessions_of_all_workers_end_when_checks_fail() {
    let ((a, on), (b, _)) = (lasting("a"), lasting("b"));
    let servers = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";
    let server = checked(&format!("{servers} on_marked_down shutdown_sessions;"), &a, &b);
    let (mut lost, mut others) = sessions(&server, "a", 12);
    on.store(false, Ordering::SeqCst);
    lost.iter_mut().for_each(Client::expect_closed);
    expect_alive(&mut others);
    let name = format!("127.0.0.1:{}", a.port());
    let log = server.wait_for_log("connections to it are closed");
    let expected = format!("upstream server {name} of \"u\" failed its checks: ");
    assert!(log.contains(&expected), "{log}");
    server.wait_for_log("session is closed, for its server failed its checks,");
    server.wait_for_access(&format!("502 {name}"));
    // Who comes now is served by the other one.
    assert_eq!(session(&server).1, "b");
}

#[test]
fn one_server_may_end_its_sessions_alone() {
    let ((a, a_on), (b, b_on)) = (lasting("a"), lasting("b"));
    let servers = "server 127.0.0.1:%%A%% on_marked_down=shutdown_sessions;
         server 127.0.0.1:%%B%%;";
    let server = checked(servers, &a, &b);
    let (mut lost, mut others) = sessions(&server, "a", 4);
    b_on.store(false, Ordering::SeqCst);
    server.wait_for_log(&format!("of peer 127.0.0.1:{}", b.port()));
    a_on.store(false, Ordering::SeqCst);
    lost.iter_mut().for_each(Client::expect_closed);
    expect_alive(&mut others);
}

/// A primary comes back, and the sessions of the backup end if the line says so.
fn backups_end(line: &str, parameter: &str) {
    let ((a, on), (b, _)) = (lasting("a"), lasting("b"));
    let servers = format!("server 127.0.0.1:%%A%% {parameter}; server 127.0.0.1:%%B%% backup;");
    let server = checked(&format!("{servers} {line}"), &a, &b);
    let mut kept = session(&server);
    assert_eq!(kept.1, "a");
    on.store(false, Ordering::SeqCst);
    server.wait_for_log("peer is unhealthy");
    let (mut lost, _) = sessions(&server, "b", 6);
    on.store(true, Ordering::SeqCst);
    lost.iter_mut().for_each(Client::expect_closed);
    expect_alive(std::slice::from_mut(&mut kept.0));
    server.wait_for_log("is a backup, and another server is up again: ");
    assert!(until(|| session(&server).1 == "a"));
}

#[test]
fn sessions_of_backups_end_when_a_server_is_up_again() {
    backups_end("on_marked_up shutdown_backup_sessions;", "");
    backups_end("", "on_marked_up=shutdown_backup_sessions");
}

/// An API beside a `stream` block.
const API: &str = "http { access_log off;
    server { listen 127.0.0.1:%%PORT_1%%;
        location /api { api write=on; allow 127.0.0.1; deny all; } } }";

#[track_caller]
fn change(server: &Server, engine: &str, id: u32, body: &str) {
    let mut client = server.connect_to(1);
    let (length, path) = (body.len(), format!("/api/9/{engine}/upstreams/u/servers/{id}"));
    client.send(format!(
        "PATCH {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    let answer = client.read_response();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn the_api_ends_sessions_even_when_it_takes_it_back_at_once() {
    let ((a, _), (b, _)) = (lasting("a"), lasting("b"));
    let server = Server::start(
        Config::stream(
            "upstream u { zone u 64k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;
                 on_marked_down shutdown_sessions; }
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass u; proxy_half_close on; }",
        )
        .main(&format!("worker_processes 2; error_log %%DIR%%/error.log warn; {API}"))
        .with("A", a.port())
        .with("B", b.port()),
    );
    let (mut lost, mut others) = sessions(&server, "a", 6);
    change(&server, "stream", 0, "{\"down\":true}");
    change(&server, "stream", 0, "{\"down\":false}");
    lost.iter_mut().for_each(Client::expect_closed);
    server.wait_for_log("\" was ");
    let (mut more, _) = sessions(&server, "a", 2);
    change(&server, "stream", 0, "{\"drain\":true}");
    expect_alive(&mut others);
    expect_alive(&mut more);
    change(&server, "stream", 0, "{\"down\":true}");
    more.iter_mut().for_each(Client::expect_closed);
    server.wait_for_log("\" was taken down: ");
}

#[test]
fn a_session_of_packets_ends_too_and_the_next_packet_finds_another_server() {
    let named = |name: &'static str| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            let mut packet = [0; 10];
            while let Ok((_, from)) = socket.recv_from(&mut packet) {
                let _ = socket.send_to(name.as_bytes(), from);
            }
        });
        port
    };
    let server = Server::start(
        Config::stream(
            "upstream u { zone u 64k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;
                 on_marked_down shutdown_sessions; }
             server { listen 127.0.0.1:%%PORT_0%% udp; proxy_pass u; }",
        )
        .main(API)
        .with("A", named("a"))
        .with("B", named("b")),
    );
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.connect(("127.0.0.1", server.port(0))).expect("the loopback is there");
    client.set_read_timeout(Some(patience())).expect("a limit of time");
    let ask = || {
        let mut packet = [0; 10];
        client.send(b"?").expect("a packet can be sent");
        let length = client.recv(&mut packet).ok()?;
        Some(String::from_utf8_lossy(&packet[..length]).into_owned())
    };
    let first = ask().expect("an answer");
    assert_eq!(ask().as_ref(), Some(&first), "a session stays with its server");
    change(&server, "stream", u32::from(first == "b"), "{\"down\":true}");
    // A question whose session ends before the answer comes gets none, and is asked again.
    client.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit of time");
    assert!(until(|| ask().is_some_and(|name| name != first)), "the session goes on");
}

#[test]
fn connections_of_http_end_with_an_ejection() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/bad" => Answer::status(500),
        "/chat" => Answer::upgrade("websocket"),
        _ => Answer::text("good"),
    });
    let spare = Backend::named("spare");
    let server = Server::start(
        Config::http(
            "upstream u { zone u 64k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%% backup;
                 on_marked_down shutdown_sessions;
                 outlier_detection consecutive_5xx=1; }
             server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://u;
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } }",
        )
        .main("error_log %%DIR%%/error.log warn;")
        .with("A", backend.port())
        .with("B", spare.port()),
    );
    let mut client = server.connect();
    let fields = [("Host", "a"), ("Upgrade", "websocket"), ("Connection", "upgrade")];
    client.request("GET", "/chat", &fields, b"").expect(101);
    client.send("hello");
    assert_eq!(client.read_exactly(5), b"hello");
    server.get("/").expect(200);
    backend.wait_open_connections(2);
    server.get("/bad").expect(500);
    client.expect_closed();
    backend.wait_open_connections(0);
    server.wait_for_log(" is ejected: ");
    assert_eq!(server.get("/").expect(200).text(), "spare");
}

#[test]
fn faults_of_the_lines() {
    for line in ["on_marked_down close;", "server 127.0.0.1:2 on_marked_up=shutdown_sessions;"] {
        let outcome = Server::check(Config::stream(&format!(
            "upstream u {{ server 127.0.0.1:1; {line} }}
             server {{ listen 127.0.0.1:%%PORT_0%%; proxy_pass u; }}"
        )));
        assert!(outcome.stderr.contains("invalid parameter \""), "{}", outcome.stderr);
    }
}
