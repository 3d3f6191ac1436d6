//! Active checks: `health_check` and `match`. Who is ill gets no requests, and who is well again
//! gets them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use testkit::{Answer, Backend, Config, Conversation, Gate, Server, Signal};

/// A group of two, the first of them checked backend, and a location that checks it.
fn checked(check: &str, http: &str, first: &Backend, second: &Backend) -> Server {
    let text = format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; }}
         {http}
         server {{ listen 127.0.0.1:%%PORT_0%%;
             location / {{ proxy_pass http://u; proxy_set_header Host checked.example;
                 health_check interval=30ms {check}; }} }}"
    );
    let config = Config::http(&text).with("A", first.port()).with("B", second.port());
    Server::start(config.main("error_log %%DIR%%/error.log notice; worker_processes 2;"))
}

/// A backend that says its name, and whose `/health` has a status that can be set.
fn with_health(name: &'static str) -> (Backend, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let shown = status.clone();
    let backend = Backend::with(move |request| match request.target.as_str() {
        "/health" => Answer::status(shown.load(Ordering::SeqCst)).header("X-State", "calm"),
        _ => Answer::text(name),
    });
    (backend, status)
}

/// Who answers six requests, without repetitions.
fn who(server: &Server) -> String {
    let mut client = server.connect();
    let mut seen: Vec<String> = (0..6).map(|_| client.get("/").text()).collect();
    seen.sort();
    seen.dedup();
    seen.concat()
}

fn wait_for(server: &Server, expected: &str) {
    server.wait_until(&format!("answers of {expected:?} only"), || who(server) == expected);
}

#[test]
fn who_is_ill_gets_nothing_until_it_is_well() {
    let ((a, health), (b, _)) = (with_health("a"), with_health("b"));
    let server = checked("uri=/health", "", &a, &b);
    wait_for(&server, "ab");
    for _ in 0..2 {
        health.store(500, Ordering::SeqCst);
        wait_for(&server, "b");
        health.store(204, Ordering::SeqCst);
        wait_for(&server, "ab");
    }
    let log = server.error_log();
    let said = format!("of peer 127.0.0.1:{} in upstream \"u\"", a.port());
    for line in ["peer is unhealthy while checking HTTP status code: status 500", "peer is healthy"]
    {
        assert!(log.contains(line), "{log}");
    }
    assert!(log.contains(&said), "{log}");
}

#[test]
fn the_last_server_can_be_ill_too() {
    let ((a, first), (b, second)) = (with_health("a"), with_health("b"));
    let server = checked("uri=/health", "", &a, &b);
    first.store(503, Ordering::SeqCst);
    second.store(503, Ordering::SeqCst);
    server.wait_until("502", || server.get("/").status == 502);
    second.store(200, Ordering::SeqCst);
    wait_for(&server, "b");
}

#[test]
fn checks_ask_for_what_the_line_says() {
    let ((a, _), (b, _)) = (with_health("a"), with_health("b"));
    let server = checked("uri=/health keepalive_time=1h", "", &a, &b);
    a.wait_requests(5);
    let request = a.last_request();
    assert_eq!((&*request.method, &*request.target), ("GET", "/health"));
    assert_eq!(request.header("Host"), Some("checked.example"));
    assert_eq!(request.header("User-Agent"), Some("heng"));
    assert_eq!(a.connections(), 1, "one connection for all checks");
    drop(server);
    let (c, _) = with_health("c");
    let one = checked("uri=/health", "", &c, &b);
    c.wait_requests(3);
    assert!(c.connections() >= 3, "one connection for each check");
    assert_eq!(c.last_request().header("Connection"), Some("close"));
    drop(one);
}

#[test]
fn another_port_can_be_asked() {
    let ((a, _), (b, _), (watch, health)) = (with_health("a"), with_health("b"), with_health("w"));
    let check = format!("uri=/health port={}", watch.port());
    let server = checked(&check, "", &a, &b);
    wait_for(&server, "ab");
    health.store(500, Ordering::SeqCst);
    server.wait_until("502", || server.get("/").status == 502);
    assert!(a.requests().iter().all(|request| request.target == "/"));
}

#[test]
fn an_answer_must_match() {
    for (block, answer, good) in [
        ("status 200-204 301;", Answer::status(204), true),
        ("status 200-204 301;", Answer::status(302), false),
        ("status ! 500-599;", Answer::status(404), true),
        ("status ! 500-599;", Answer::status(503), false),
        ("header X-State;", Answer::text("").header("X-State", "calm"), true),
        ("header X-State;", Answer::text(""), false),
        ("header ! X-State;", Answer::text("").header("X-State", "calm"), false),
        ("header X-State = calm;", Answer::text("").header("X-State", "calm"), true),
        ("header X-State = calm;", Answer::text("").header("X-State", "wild"), false),
        ("header X-State ~ ^c;", Answer::status(500).header("X-State", "calm"), true),
        ("header X-State !~ ^w;", Answer::text("").header("X-State", "wild"), false),
        ("header X-State != wild;", Answer::text("").header("X-State", "calm"), true),
        (
            "status 200; require $upstream_http_x_state ${upstream_cookie_s};",
            Answer::text("").header("X-State", "calm").header("Set-Cookie", "s=1; Secure"),
            true,
        ),
        ("require $upstream_http_x_state;", Answer::text("").header("X-State", "0"), false),
        ("require $upstream_http_x_state;", Answer::status(404).header("X-State", "1"), true),
        ("require $upstream_cookie_s;", Answer::text("").header("X-State", "calm"), false),
        ("body ~ 'all.*well';", Answer::text("all is well"), true),
        ("body ~ 'all.*well';", Answer::text("all is ill"), false),
        ("body !~ ill;", Answer::text("all is ill").chunked(), false),
        ("body !~ ill;", Answer::text("all is well").until_close(), true),
    ] {
        let a = Backend::with(move |request| match request.target.as_str() {
            "/health" => answer.clone(),
            _ => Answer::text("a"),
        });
        let b = Backend::named("b");
        let matching = format!("match m {{ {block} }} match all {{ status 100-999; }}");
        // The second server passes whatever it says.
        let text = format!(
            "upstream u {{ zone u 64k; server 127.0.0.1:%%A%%; }}
             upstream v {{ zone v 64k; server 127.0.0.1:%%B%%; }}
             {matching}
             server {{ listen 127.0.0.1:%%PORT_0%%;
                 location / {{ proxy_pass http://u;
                     health_check interval=30ms uri=/health match=m; }}
                 location /b {{ proxy_pass http://v; health_check interval=30ms match=all; }} }}"
        );
        let server = Server::start(Config::http(&text).with("A", a.port()).with("B", b.port()));
        a.wait_requests(2);
        let expected = if good { 200 } else { 502 };
        server
            .wait_until(&format!("{expected} with {block}"), || server.get("/").status == expected);
        assert_eq!(server.get("/b").text(), "b");
    }
}

#[test]
fn so_many_failures_and_passes_in_a_row() {
    let count = Arc::new(AtomicU16::new(0));
    let counter = count.clone();
    // Two failures, a pass, and so on: never three in a row.
    let a = Backend::with(move |request| match request.target.as_str() {
        "/health" => match counter.fetch_add(1, Ordering::SeqCst) % 3 {
            2 => Answer::status(200),
            _ => Answer::status(500),
        },
        _ => Answer::text("a"),
    });
    let (b, health) = with_health("b");
    let server = checked("uri=/health fails=3", "", &a, &b);
    server.wait_until("twelve checks", || count.load(Ordering::SeqCst) >= 12);
    assert_eq!(who(&server), "ab");
    assert!(!server.error_log().contains("unhealthy"), "{}", server.error_log());
    drop(server);
    let server = checked("uri=/health passes=3", "", &a, &b);
    health.store(200, Ordering::SeqCst);
    wait_for(&server, "b");
    let before = count.load(Ordering::SeqCst);
    server.wait_until("twelve checks", || count.load(Ordering::SeqCst) >= before + 12);
    assert_eq!(who(&server), "b", "one pass is not enough");
}

#[test]
fn mandatory_checks_come_first() {
    let gate = Gate::new();
    let held = gate.clone();
    let a = Backend::with(move |request| match request.target.as_str() {
        "/health" => Answer::text("").after_gate(&held),
        _ => Answer::text("a"),
    });
    let (b, health) = with_health("b");
    health.store(500, Ordering::SeqCst);
    let server = checked("uri=/health mandatory", "", &a, &b);
    a.wait_requests(1);
    assert_eq!(server.get("/").status, 502);
    gate.open();
    wait_for(&server, "a");
}

/// A script that greets, and answers a client's first words with the second line.
fn speaker(greeting: &'static [u8], answer: &'static [u8]) -> Backend {
    Backend::script(move |talk: &mut Conversation| {
        talk.send(greeting);
        if talk.read_some().is_ok_and(|said| !said.is_empty()) && !answer.is_empty() {
            talk.send(answer);
        }
        talk.read_to_end();
    })
}

/// The health of a group of one backend that is no web server, as the log tells it.
fn verdict(check: &str, http: &str, backend: &Backend) -> bool {
    let text = format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:%%A%%; }} {http}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u;
             proxy_read_timeout 1s; health_check interval=30ms mandatory {check}; }} }}"
    );
    let server = Server::start(
        Config::http(&text).main("error_log %%DIR%%/error.log notice;").with("A", backend.port()),
    );
    let mut well = false;
    server.wait_until("a verdict", || {
        let log = server.error_log();
        well = log.contains("peer is healthy");
        well || log.contains("peer is unhealthy")
    });
    well
}

#[test]
fn bytes_are_sent_and_expected() {
    let matching = "match m { send \"PI\\x4eG\\r\\n\"; expect ~ \"P.NG\"; }
                    match first { send x; expect 220; }";
    for (check, greeting, answer, good) in [
        ("type=tcp", &b""[..], &b""[..], true),
        ("type=tcp match=m", b"", b"+PONG\r\n", true),
        ("type=tcp match=m", b"hello\r\n", b"", false),
        ("type=tcp match=first", b"22", b"0 welcome", true),
        ("type=tcp match=first", b"421 welcome", b"", false),
        ("type=redis", b"", b"+PONG\r\n", true),
        ("type=redis", b"", b"-LOADING\r\n", false),
        ("type=redis", b"+OK\r\n", b"", false),
        ("type=smtp", b"220 here\r\n", b"250 welcome\r\n", true),
        ("type=smtp", b"220 here\r\n", b"", false),
        ("type=mysql", b"\x06\0\0\0\x0a10.1\0", b"\x05\0\0\x02\xff\x15\x04no", true),
        ("type=mysql", b"\x06\0\0\0\x0a10.1\0", b"", false),
        ("type=mysql user=m", b"\x06\0\0\0\x0a10.1\0", b"\x05\0\0\x02\xff\x15\x04no", false),
        ("type=pgsql", b"", b"R\0\0\0\x08\0\0\0\x0a", true),
        ("type=pgsql", b"", b"", false),
        ("type=ssl_hello", b"", b"\x16\x03\x03\0\x50\x02\0\0\0", true),
        ("type=ssl_hello", b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
    ] {
        let backend = speaker(greeting, answer);
        assert_eq!(verdict(check, matching, &backend), good, "{check} {answer:?}");
    }
    let refusing = Backend::refusing();
    assert!(!verdict("type=tcp", "", &refusing), "nobody listens");
}

#[test]
fn a_keeper_that_dies_is_replaced() {
    let ((a, health), (b, _)) = (with_health("a"), with_health("b"));
    let mut server = checked("uri=/health", "", &a, &b);
    server.expect_alerts();
    a.wait_requests(1);
    let keeper = |server: &Server| {
        let log = server.error_log();
        let started = log.lines().rev().find_map(|line| line.split("start keeper process ").nth(1));
        started.and_then(|pid| pid.trim().parse::<i32>().ok())
    };
    let first = keeper(&server).expect("a keeper");
    testkit::signal(first as u32, Signal::KILL);
    server.wait_until("another keeper", || keeper(&server).is_some_and(|pid| pid != first));
    assert!(server.error_log().contains(&format!("keeper process {first} exited on signal 9")));
    health.store(500, Ordering::SeqCst);
    wait_for(&server, "b");
    // A reload has a new keeper, and the old one leaves.
    server.reload();
    health.store(200, Ordering::SeqCst);
    wait_for(&server, "ab");
}

#[test]
fn faults_of_the_configuration() {
    for (inside, location, expected) in [
        ("server 127.0.0.1:1;", "health_check;", "\"health_check\" requires a \"zone\""),
        ("zone u 64k; server 127.0.0.1:1;", "health_check match=gone;", "match \"gone\" not found"),
        (
            "zone u 64k; server 127.0.0.1:1;",
            "health_check fails=0;",
            "invalid parameter \"fails=0\"",
        ),
        (
            "zone u 64k; server 127.0.0.1:1;",
            "health_check persistent;",
            "\"persistent\" requires \"mandatory\"",
        ),
        (
            "zone u 64k; server 127.0.0.1:1;",
            "health_check match=bytes;",
            "\"send\" and \"expect\" require \"type=tcp\"",
        ),
        (
            "zone u 64k; server 127.0.0.1:1;",
            "health_check type=redis user=me;",
            "\"user\" requires",
        ),
        (
            "zone u 64k; server 127.0.0.1:1;",
            "health_check type=tcp keepalive_time=1m;",
            "\"uri\" and \"keepalive_time\" are for checks over HTTP",
        ),
    ] {
        let text = format!(
            "upstream u {{ {inside} }} match bytes {{ send x; }}
             server {{ listen 127.0.0.1:%%PORT_0%%;
                 location / {{ proxy_pass http://u; {location} }} }}"
        );
        let outcome = Server::check(Config::http(&text));
        assert!(outcome.stderr.contains(expected), "{expected}: {}", outcome.stderr);
    }
    for (variable, expected) in [
        ("$remote_addr", "\"$remote_addr\" says nothing of the answer to a check"),
        ("upstream_status", "invalid variable \"upstream_status\""),
    ] {
        let text = format!(
            "match m {{ require {variable}; }} upstream u {{ zone u 64k; server 127.0.0.1:1; }}
             server {{ listen 127.0.0.1:%%PORT_0%%;
                 location / {{ proxy_pass http://u; health_check match=m; }} }}"
        );
        let outcome = Server::check(Config::http(&text));
        assert!(outcome.stderr.contains(expected), "{expected}: {}", outcome.stderr);
    }
    let alone = "server { listen 127.0.0.1:%%PORT_0%%; location / { health_check; } }";
    let outcome = Server::check(Config::http(alone));
    assert!(outcome.stderr.contains("requires \"proxy_pass\""), "{}", outcome.stderr);
}
