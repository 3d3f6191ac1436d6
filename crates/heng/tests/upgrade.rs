//! Changing the program under load (USR2): nobody loses a request, and a new program that fails
//! leaves the old one as it was.

mod load;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use load::{Load, telling_workers, worker_of};
use testkit::{Client, Server, Signal, exists, signal, until};

fn started() -> Server {
    Server::start(telling_workers("worker_processes 2; daemon on;").called("nginx"))
}

/// True while a process runs or has not been waited for.
fn is_there(pid: u32) -> bool {
    exists(format!("/proc/{pid}").as_ref())
}

#[test]
fn an_upgrade_loses_no_request_of_50_busy_connections() {
    let mut server = started();
    let load = Load::start(server.port(0), 50);
    load.wait_answers();
    for round in 0..2 {
        let old_workers = server.wait_workers(2);
        let old = server.upgrade();
        assert_eq!(server.read("nginx.pid.oldbin"), format!("{old}\n"));
        server.wait_workers(2);
        load.wait_answers();
        // Both programs serve now; the old one's workers leave at its administrator's word.
        if round == 0 {
            signal(old, Signal::WINCH);
            let left = || server.workers_of(old).is_empty();
            server.wait_until("the end of the old workers", left);
            assert!(is_there(old));
        }
        signal(old, Signal::QUIT);
        server.wait_until("the end of the old master", || !is_there(old));
        server.wait_until("the end of .oldbin", || !server.path("nginx.pid.oldbin").exists());
        load.wait_moved(&old_workers);
    }
    let seen = load.stop();
    seen.expect_no_losses(&server);
    assert!(seen.answers.len() >= 6, "only {:?} answered", seen.answers);
    assert!(seen.farewells >= 100, "{} farewells", seen.farewells);
}

#[test]
fn going_back_to_the_old_program_loses_no_request() {
    let mut server = started();
    let load = Load::start(server.port(0), 20);
    let old = server.upgrade();
    let new = server.pid();
    let new_workers = server.wait_workers(2);
    signal(old, Signal::WINCH);
    server.wait_until("the end of the old workers", || server.workers_of(old).is_empty());
    load.wait_answers();
    // The old master reads its configuration anew, and the new program leaves.
    signal(old, Signal::HUP);
    server.wait_until("workers of the old program", || server.workers_of(old).len() == 2);
    signal(new, Signal::QUIT);
    server.wait_until("the end of the new master", || !is_there(new));
    let back = || server.read("nginx.pid") == format!("{old}\n");
    server.wait_until("the old pid file", back);
    assert!(!server.path("nginx.pid.oldbin").exists());
    load.wait_moved(&new_workers);
    load.stop().expect_no_losses(&server);
    server.reload();
    server.get("/").expect(200);
}

/// Puts a script in the place of the program, for the next upgrade.
fn replace_program(server: &Server, script: &str) {
    server.write("script", script);
    let script = server.path("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("our own file");
    fs::rename(script, server.path("nginx")).expect("our own directory");
}

#[test]
fn a_new_program_that_fails_leaves_the_old_one_serving() {
    let mut server = started();
    server.expect_alerts();
    let (master, workers) = (server.pid(), server.wait_workers(2));
    let mut client = server.connect();
    let worker = worker_of(&client.get("/"));
    let load = Load::start(server.port(0), 20);
    for (script, said) in [
        ("#!/bin/sh\nexit 1\n", "exited with code 1"),
        ("#!/bin/sh\nkill -9 $$\n", "exited on signal 9"),
        ("#!/nowhere/at/all\n", "execve() failed while executing new binary process"),
    ] {
        replace_program(&server, script);
        server.signal(Signal::USR2);
        server.wait_for_log(said);
        let restored = || server.read("nginx.pid") == format!("{master}\n");
        server.wait_until("the old pid file", restored);
        assert!(!server.path("nginx.pid.oldbin").exists());
        assert_eq!(worker_of(&client.get("/").expect(200)), worker);
        assert_eq!(server.workers(), workers);
        load.wait_answers();
    }
    let seen = load.stop();
    seen.expect_no_losses(&server);
    assert_eq!(seen.farewells, 0);
    server.reload();
    server.get("/").expect(200);
}

#[test]
fn a_new_program_that_refuses_the_configuration_leaves_the_old_one_serving() {
    let server = started();
    let (master, workers) = (server.pid(), server.wait_workers(2));
    let text = server.read("nginx.conf");
    server.write("nginx.conf", text.replacen("http {", "http { nonsense on;", 1));
    server.signal(Signal::USR2);
    server.wait_for_log("unknown directive \"nonsense\"");
    server.wait_for_log("exited with code 1");
    let restored = || server.read("nginx.pid") == format!("{master}\n");
    server.wait_until("the old pid file", restored);
    assert_eq!(server.workers(), workers);
    server.get("/").expect(200);
    // Nothing is lost for the next try.
    server.write("nginx.conf", text);
    server.signal(Signal::USR2);
    let upgraded = || server.pid() != master && server.workers().len() == 2;
    server.wait_until("the new program", upgraded);
    signal(master, Signal::QUIT);
    server.wait_until("the end of the old master", || !is_there(master));
    let mut client = Client::connect(server.port(0));
    assert!(!workers.contains(&worker_of(&client.get("/").expect(200))));
    server.signal(Signal::QUIT);
    assert!(until(|| !server.path("nginx.pid").exists()), "{}", server.shown_log());
}
