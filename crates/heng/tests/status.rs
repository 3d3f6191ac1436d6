//! What the program tells of itself: `stub_status`.

use testkit::{Answer, Backend, Config, Gate, Server, kill, until};

/// The numbers of a `stub_status` text, in its order.
fn numbers(text: &str) -> Vec<u64> {
    text.split(' ').filter_map(|word| word.trim().parse().ok()).collect()
}

const STATUS: &str = "location = /status { stub_status; } location / { return 200 x; }";

#[test]
fn stub_status_counts_over_all_workers_and_reloads() {
    let mut server = Server::start(Config::server(STATUS).main("worker_processes 2;"));
    let text = server.get("/status").expect(200).text().to_string();
    assert_eq!(
        text,
        "Active connections: 1 \nserver accepts handled requests\n 1 1 1 \n\
         Reading: 0 Writing: 1 Waiting: 0 \n"
    );
    assert_eq!(server.get("/status").header("Content-Type"), Some("text/plain"));
    let mut waiting = server.connect();
    waiting.get("/");
    let mut reading = server.connect();
    reading.send("GET / HTTP/1.1\r\n");
    let shows = |expected: [u64; 4], server: &Server| {
        let found = numbers(&server.get("/status").text());
        [found[0], found[4], found[5], found[6]] == expected
    };
    assert!(until(|| shows([3, 1, 1, 1], &server)), "{}", server.get("/status").text());
    drop((waiting, reading));
    assert!(until(|| shows([1, 0, 1, 0], &server)), "{}", server.get("/status").text());
    let before = numbers(&server.get("/status").text());
    assert_eq!(before[1], before[2], "all that were accepted were served");
    server.reconfigure(Config::server(STATUS).main("worker_processes 1;"));
    server.reload();
    let after = numbers(&server.get("/status").text());
    assert!(after[3] > before[3], "{before:?} {after:?}");
    assert!(until(|| shows([1, 0, 1, 0], &server)), "{}", server.get("/status").text());
}

#[test]
fn what_a_killed_worker_had_under_way_is_not_counted() {
    let gate = Gate::new();
    let pass = gate.clone();
    let backend = Backend::with(move |_| {
        pass.pass();
        Answer::text("x")
    });
    let config = Config::server(
        "location = /status { stub_status; }
         location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
    );
    let mut server = Server::start(config.with("BACKEND", backend.port()));
    server.expect_alerts();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(until(|| backend.requests().len() == 1), "the backend is asked");
    assert_eq!(numbers(&server.get("/status").text())[0], 2);
    let old = server.workers()[0];
    kill(old);
    assert!(until(|| server.workers().iter().any(|worker| *worker != old)), "it is replaced");
    let shown = until(|| {
        let found = numbers(&server.get("/status").text());
        found[0] == 1 && found[5] == 1 && found[3] >= 3
    });
    assert!(shown, "{}", server.get("/status").text());
    gate.open();
}

#[test]
fn stub_status_answers_get_and_head_only() {
    let server = Server::start(Config::server(STATUS));
    let answer = server.exchange("POST /status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[test]
fn counts_are_variables() {
    let server = Server::start(Config::server(
        "location / {
             return 200 \"$connections_active $connections_reading $connections_writing \
                         $connections_waiting\";
         }",
    ));
    assert_eq!(server.get("/").expect(200).text(), "1 0 1 0");
}
