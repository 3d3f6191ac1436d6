//! The server's harness against a real nginx: what it waits for is what such a program does.
//!
//! Needs: nginx.

use testkit::{Answer, Backend, Client, Config, Server, Signal, kill};

const NGINX: &str = "/usr/sbin/nginx";

fn nginx(inside: &str) -> Config {
    Config::server(inside).main("error_log %%DIR%%/error.log info;").program(NGINX)
}

#[test]
fn a_server_serves_and_logs() {
    let mut server = Server::start(nginx("location / { return 200 hi; }"));
    let mut client = server.connect();
    assert_eq!(client.get("/one").expect(200).text(), "hi");
    assert_eq!(client.get("/two").expect(200).text(), "hi");
    assert!(server.wait_for_access("/two").contains("\"GET /two HTTP/1.1\" 200 2"));
    assert_eq!(server.wait_workers(1).len(), 1);
    server.quit().expect(0);
    assert!(!server.pid_file().exists());
}

#[test]
fn a_proxy_reaches_a_backend() {
    let backend = Backend::with(Answer::echo);
    let server = Server::start(
        nginx("location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let text = server.get("/x").expect(200).text();
    assert!(text.starts_with("GET /x HTTP/1.0\r\n"), "{text}");
    let mut client = server.connect();
    client.send_slowly("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
    client.read_response().expect(200);
    assert_eq!(backend.last_request().body, b"ok");
}

#[test]
fn checks_and_failed_starts_tell_why() {
    let outcome = Server::check(nginx("no_such_directive on;")).expect(1);
    assert!(outcome.stderr.contains("unknown directive \"no_such_directive\""), "{outcome}");
    Server::check(nginx("")).expect(0).says("test is successful");
    let outcome = Server::try_start(nginx("listen;")).err().expect("a failed start");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("invalid number of arguments"), "{outcome}");
}

#[test]
fn reloads_and_upgrades_are_seen() {
    // nginx ignores USR2 while the process that started it lives, hence the daemon.
    let config = |inside: &str| nginx(inside).main("daemon on;");
    let mut server = Server::start(config("return 200 old;"));
    assert_eq!(server.get("/").text(), "old");
    server.reconfigure(config("return 200 new;"));
    server.reload();
    assert_eq!(server.get("/").text(), "new");

    let old = server.upgrade();
    assert_ne!(server.pid(), old);
    assert!(!server.wait_workers(1).is_empty());
    assert_eq!(server.get("/").text(), "new");
}

#[test]
fn a_daemon_is_followed() {
    let mut server = Server::start(nginx("return 204;").main("daemon on;"));
    server.get("/").expect(204);
    server.command(&["-s", "stop", "-g", &format!("pid {};", server.pid_file().display())]);
    server.wait_exit().expect(0);
}

#[test]
fn a_killed_worker_is_replaced() {
    let mut server = Server::start(nginx("return 204;").main("worker_processes 2;"));
    let before = server.wait_workers(2);
    kill(before[0]);
    server.expect_alerts();
    server.wait_for_log("exited on signal 9");
    let after = server.wait_workers(2);
    assert_eq!(after.iter().filter(|pid| before.contains(pid)).count(), 1);
}

#[test]
fn logs_are_reopened_and_unix_sockets_served() {
    let server = Server::start(nginx("listen unix:%%DIR%%/s.sock; return 200 $request_uri;"));
    let mut client = Client::connect(server.path("s.sock"));
    assert_eq!(client.get("/unix").text(), "/unix");
    server.wait_for_access("/unix");
    std::fs::rename(server.path("logs/access.log"), server.path("logs/moved")).unwrap();
    server.reopen(&["logs/access.log"]);
    // The master makes the new file; its worker turns to it a moment later.
    server.wait_until("a line in the new file", || {
        client.get("/again");
        server.access_log().contains("/again")
    });
    client.get("/last");
    server.wait_for_access("/last");
    assert!(!server.read("logs/moved").contains("/last"));
    server.signal(Signal::TERM);
}
