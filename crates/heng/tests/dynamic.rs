//! Groups whose members change while the program runs: `server NAME resolve`, and what a zone
//! keeps over a reload.

use testkit::{Answer, Backend, Config, NameServer, Server, kill, until};

/// A server whose group is the hosts of `a.test`, at the backend's port.
fn config(names: &NameServer, port: u16, group: &str) -> Config {
    let config = Config::http(&format!(
        "resolver 127.0.0.1:%%DNS%% valid=1s ipv6=off;
         resolver_timeout 1s;
         upstream u {{ {group} }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location / {{
                 proxy_pass http://u;
                 add_header X-Asked $upstream_addr always;
             }}
         }}"
    ));
    config.with("DNS", names.port()).with("BACKEND", port)
}

/// Whom some requests were passed to, each address once.
fn asked(server: &Server) -> Vec<String> {
    let ask = |_| server.get("/").header("X-Asked").unwrap_or_default().to_owned();
    let mut asked: Vec<String> = (0..8).map(ask).collect();
    asked.sort();
    asked.dedup();
    asked
}

/// Waits until requests go to exactly these hosts.
#[track_caller]
fn wait_for(server: &Server, hosts: &[&str], port: u16) {
    let mut expected: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    expected.sort();
    let reached = until(|| asked(server) == expected);
    assert!(reached, "{:?}, not {expected:?}{}", asked(server), server.shown_log());
}

#[test]
fn servers_follow_their_name_while_workers_run() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    let port = backend.port();
    // Only one of them answers; the rest refuse, which costs a try.
    names.set("a.test", "A", &["127.0.0.1"]);
    let group = "zone u 64k; server a.test:%%BACKEND%% resolve max_fails=0;";
    let server = Server::start(config(&names, port, group).main("worker_processes 2;"));
    wait_for(&server, &["127.0.0.1"], port);
    let all = |server: &Server| {
        let response = server.get("/");
        let asked = response.header("X-Asked").unwrap_or_default();
        let mut asked: Vec<String> = asked.split(", ").map(str::to_owned).collect();
        asked.sort();
        asked
    };
    names.set("a.test", "A", &["127.0.0.2", "127.0.0.3"]);
    let expected = [format!("127.0.0.2:{port}"), format!("127.0.0.3:{port}")];
    assert!(until(|| all(&server) == expected), "{:?}", all(&server));
    // A name that is gone has no servers; one whose DNS fails keeps those it had.
    names.fail("a.test", 3);
    assert!(until(|| all(&server) == ["u"]), "{:?}", all(&server));
    server.wait_for_log("a.test could not be resolved (3: Host not found)");
    names.set("a.test", "A", &["127.0.0.1"]);
    wait_for(&server, &["127.0.0.1"], port);
    names.fail("a.test", 2);
    server.wait_for_log("a.test could not be resolved (2: Server failure)");
    assert_eq!(server.get("/").expect(200).text(), "here");
}

#[test]
fn services_bring_ports_and_backups() {
    let (names, backend, second) =
        (NameServer::new(), Backend::named("first"), Backend::named("second"));
    let (one, other) = (backend.port(), second.port());
    names.set("a.test", "A", &["127.0.0.1"]);
    names.set(
        "_web._tcp.s.test",
        "SRV",
        &[&format!("1 5 {one} a.test"), &format!("2 5 {other} a.test"), "1 1 9 gone.test"],
    );
    let group = "zone u 64k; server s.test resolve service=web;";
    let server = Server::start(config(&names, one, group));
    wait_for(&server, &["127.0.0.1"], one);
    server.wait_for_log(
        "gone.test could not be resolved (3: Host not found) while resolving service web of s.test",
    );
    names.set("_web._tcp.s.test", "SRV", &["1 5 9 a.test", &format!("2 5 {other} a.test")]);
    let text = || server.get("/").text().to_string();
    assert!(until(|| text() == "second"), "{}{}", text(), server.shown_log());
    names.fail("_web._tcp.s.test", 2);
    server.wait_for_log("service web of s.test could not be resolved (2: Server failure)");
}

#[test]
fn resolved_servers_live_on_over_a_reload() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.set("a.test", "A", &["127.0.0.1"]);
    let group = "zone u 64k; server a.test:%%BACKEND%% resolve;";
    let server = Server::start(config(&names, backend.port(), group));
    wait_for(&server, &["127.0.0.1"], backend.port());
    names.fail("a.test", 2);
    server.reload();
    for _ in 0..20 {
        server.get("/").expect(200);
    }
}

#[test]
fn failures_outlive_a_reload_and_new_servers_come() {
    let (names, good, bad) = (NameServer::new(), Backend::named("good"), Backend::refusing());
    let lines = |more: &str| {
        let group = format!(
            "zone u 64k; server 127.0.0.1:%%BACKEND%%; {more}
             server 127.0.0.1:%%BAD%% fail_timeout=1h;"
        );
        config(&names, good.port(), &group).with("BAD", bad.port())
    };
    let mut server = Server::start(lines(""));
    let failed = format!("127.0.0.1:{}", bad.port());
    assert!(until(|| server.get("/").header("X-Asked").is_some_and(|a| a.contains(&failed))));
    // It rests now, and a reload does not wake it.
    server.reload();
    wait_for(&server, &["127.0.0.1"], good.port());
    let third = Backend::named("third");
    server.reconfigure(lines("server 127.0.0.1:%%THIRD%%;").with("THIRD", third.port()));
    server.reload();
    let texts = |server: &Server| {
        let mut texts: Vec<_> = (0..8).map(|_| server.get("/").text().to_string()).collect();
        texts.sort();
        texts.dedup();
        texts
    };
    assert!(until(|| texts(&server) == ["good", "third"]), "{:?}", texts(&server));
    assert!(asked(&server).iter().all(|asked| !asked.contains(&failed)));
}

#[test]
fn requests_under_way_are_counted_over_a_reload() {
    let gate = testkit::Gate::new();
    let pass = gate.clone();
    let backend = Backend::with(move |_| {
        pass.pass();
        Answer::text("x")
    });
    let names = NameServer::new();
    let group = "zone u 64k; server 127.0.0.1:%%BACKEND%% max_conns=1;";
    let mut server = Server::start(config(&names, backend.port(), group));
    let mut waiting = server.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(until(|| backend.requests().len() == 1));
    server.reload();
    server.get("/").expect(502);
    // The worker that holds the request is killed: what it had under way is taken back.
    server.expect_alerts();
    let old = server.workers();
    old.iter().for_each(|worker| kill(*worker));
    gate.open();
    assert!(until(|| server.get("/").status == 200), "{}", server.shown_log());
}

#[test]
fn bad_lines_are_refused() {
    let check = |group: &str, expected: &str| {
        let outcome = Server::check(Config::http(&format!("upstream u {{ {group} }}")));
        assert!(outcome.stderr.contains(expected), "{group}: {}", outcome.stderr);
    };
    check(
        "server a.test resolve;",
        "resolving names at run time requires upstream \"u\" to be in shared memory",
    );
    check(
        "zone u 64k; server a.test resolve;",
        "no resolver defined to resolve names at run time in upstream \"u\"",
    );
    check("server a.test service=;", "service is empty");
    check("server a.test service=x;", "service upstream \"a.test\" requires \"resolve\" parameter");
    check(
        "server a.test:80 resolve service=x;",
        "service upstream \"a.test:80\" may not have port",
    );
    check(
        "server 127.0.0.1 resolve service=x;",
        "service upstream \"127.0.0.1\" requires domain name",
    );
}

#[test]
fn members_come_and_go_without_a_failed_request() {
    let names = NameServer::new();
    names.set("a.test", "A", &["127.0.0.2"]);
    names.set_ttl(0);
    let server = Server::start(
        Config::http(
            "resolver 127.0.0.1:%%DNS%% ipv6=off;
             upstream u { zone u 64k; server a.test:%%PORT_1%% resolve; }
             server {
                 listen 127.0.0.1:%%PORT_0%%;
                 location / { proxy_pass http://u; }
             }
             server {
                 listen 127.0.0.2:%%PORT_1%%;
                 listen 127.0.0.3:%%PORT_1%%;
                 location / { return 200 $server_addr; }
             }",
        )
        .main("worker_processes 2;")
        .with("DNS", names.port()),
    );
    assert!(until(|| server.get("/").status == 200), "{}", server.shown_log());
    let port = server.port(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (asked, bad) = std::thread::scope(|scope| {
        let load = |_| {
            scope.spawn(|| {
                let (mut asked, mut bad) = (0, 0);
                let mut client = testkit::Client::connect(port);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let response = client.get("/");
                    asked += 1;
                    bad += u32::from(response.status != 200);
                    if asked % 50 == 0 {
                        client = testkit::Client::connect(port);
                    }
                }
                (asked, bad)
            })
        };
        let threads: Vec<_> = (0..2).map(load).collect();
        for (addresses, name) in [
            (&["127.0.0.3"][..], "127.0.0.3"),
            (&["127.0.0.2", "127.0.0.3"], "127.0.0.2"),
            (&["127.0.0.2"], "127.0.0.2"),
        ] {
            names.set("a.test", "A", addresses);
            let questions = names.questions().len();
            assert!(until(|| names.questions().len() >= questions + 2));
            assert!(until(|| server.get("/").text() == name));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let ended = threads.into_iter().map(|thread| thread.join().expect("a client"));
        ended.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    });
    assert!(asked > 100 && bad == 0, "{bad} of {asked} failed{}", server.shown_log());
}

#[test]
fn nothing_stays_counted_over_many_reloads() {
    let backend = Backend::named("here");
    let server = Server::start(
        Config::http(
            "upstream u { zone u 64k; server 127.0.0.1:%%BACKEND%%; }
             server {
                 listen 127.0.0.1:%%PORT_0%%;
                 location /api { api; }
                 location / { proxy_pass http://u; }
             }",
        )
        .with("BACKEND", backend.port()),
    );
    for _ in 0..20 {
        (0..5).for_each(|_| drop(server.get("/").expect(200)));
        server.reload();
    }
    let shown = |text: &str| {
        let shown = server.get("/api/9/http/upstreams/u");
        shown.text().contains(text)
    };
    assert!(until(|| shown("\"active\":0")), "{}", server.get("/api/9/http/upstreams/u").text());
    assert!(shown("\"requests\":100"), "{}", server.get("/api/9/http/upstreams/u").text());
}

#[test]
fn names_are_followed_on_when_the_keeper_was_killed() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    let port = backend.port();
    names.set("a.test", "A", &["127.0.0.2"]);
    let group = "zone u 64k; server a.test:%%BACKEND%% resolve max_fails=0;";
    let config = config(&names, port, group).main("error_log %%DIR%%/notices.log notice;");
    let mut server = Server::start(config);
    let line = server.wait_for_line("notices.log", "start keeper process ");
    let keeper = line.rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    assert!(until(|| server.get("/").header("X-Asked") == Some(&format!("127.0.0.2:{port}"))));
    server.expect_alerts();
    kill(keeper);
    names.set("a.test", "A", &["127.0.0.1"]);
    assert!(until(|| server.get("/").status == 200), "{}", server.shown_log());
}
