//! `limit_rate`: answers leave at their rate. Bounds are from below only: a busy machine makes
//! nothing faster.

use std::time::{Duration, Instant};
use testkit::{Answer, Backend, Client, Config, Server};

/// Bytes of every body here.
const LENGTH: usize = 50_000;

/// A server with a file of `LENGTH` bytes and these directives.
fn server(directives: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; {directives}"))
            .file("html/file", "x".repeat(LENGTH))
            .file("html/short", "short"),
    )
}

/// Asks for all targets at once, so that their waits pass together.
fn ask<'t>(server: &Server, targets: &[&'t str]) -> Vec<(&'t str, Client, Instant)> {
    let ask = |target: &&'t str| {
        let begin = Instant::now();
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        (*target, client, begin)
    };
    targets.iter().map(ask).collect()
}

/// Each answer is whole and takes the one whole second at least that follows the first.
#[track_caller]
fn check_slow(server: &Server, targets: &[&str]) {
    for (target, mut client, begin) in ask(server, targets) {
        let body = client.read_response().expect(200).body;
        assert!(body.len() == LENGTH && body.iter().all(|byte| *byte == b'x'), "{target}");
        // The clock of the server may be behind when it is asked, were it busy.
        assert!(begin.elapsed() >= Duration::from_millis(500), "{target}: {:?}", begin.elapsed());
    }
}

#[test]
fn limit_rate_holds_for_files_chunks_and_variables() {
    let server = server(
        "limit_rate 30000;
         location /memory/ { sendfile off; alias %%DIR%%/html/; }
         location /chunked/ { sub_filter_types *; sub_filter none none; alias %%DIR%%/html/; }
         location /kernel/ { sendfile on; alias %%DIR%%/html/; }
         location /variable/ { limit_rate $arg_rate; alias %%DIR%%/html/; }
         location /if/ { limit_rate 0; alias %%DIR%%/html/; if ($arg_slow) { limit_rate 30000; } }
         location /set/ { limit_rate 0; set $limit_rate 29k; alias %%DIR%%/html/; }",
    );
    check_slow(
        &server,
        &[
            "/memory/file",
            "/chunked/file",
            "/kernel/file",
            "/variable/file?rate=29k",
            "/if/file?slow=1",
            "/set/file",
        ],
    );
    assert_eq!(server.get("/short").expect(200).text(), "short");
}

#[test]
fn answers_of_a_second_go_in_pieces_of_their_rate() {
    // Three seconds begin: 20000 bytes with the head, 20000, and the rest.
    let server = server("limit_rate 20000;");
    let begin = Instant::now();
    assert_eq!(server.get("/file").expect(200).body.len(), LENGTH);
    assert!(begin.elapsed() >= Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[test]
fn limit_rate_after_leaves_the_beginning_alone() {
    // With one byte per second whatever is not free never comes within a test's time.
    let server = server(
        "limit_rate 1;
         location /after/ { limit_rate_after 60000; alias %%DIR%%/html/; }
         location /variable/ { limit_rate_after $arg_after; alias %%DIR%%/html/; }
         location /off/ { limit_rate 0; alias %%DIR%%/html/; }
         location /set/ { set $limit_rate 0; alias %%DIR%%/html/; }",
    );
    for target in ["/after/file", "/variable/file?after=60000", "/off/file", "/set/file"] {
        assert_eq!(server.get(target).expect(200).body.len(), LENGTH, "{target}");
    }
    // Requests of one connection count for themselves.
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/after/file").expect(200).body.len(), LENGTH);
    }
}

#[test]
fn limit_rate_after_ends() {
    let server = server("limit_rate 10000; limit_rate_after 30000;");
    check_slow(&server, &["/file"]);
}

#[test]
fn backends_limit_their_answers() {
    let backend = Backend::with(|request| {
        let rate = request.target.rsplit('/').next().unwrap_or_default();
        Answer::text("x".repeat(LENGTH)).header("X-Accel-Limit-Rate", rate)
    });
    let server = Server::start(
        Config::server(
            "location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /one/ { limit_rate 1; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /ignored/ { proxy_ignore_headers X-Accel-Limit-Rate;
                                  proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    check_slow(&server, &["/30000", "/one/30000"]);
    // Not in a test's time, were it obeyed.
    let response = server.get("/ignored/1").expect(200);
    assert_eq!((response.body.len(), response.header("X-Accel-Limit-Rate")), (LENGTH, None));
    assert_eq!(server.get("/one/0").expect(200).body.len(), LENGTH);
}

#[test]
fn the_variable_tells_the_limit() {
    let server = server(
        "location /unset { return 200 \"rate $limit_rate\"; }
         location /set { set $limit_rate 64k; return 200 \"rate $limit_rate\"; }
         location /bad { set $limit_rate fast; return 200 \"rate $limit_rate\"; }
         location /size { limit_rate $arg_rate; return 200 x; }",
    );
    assert_eq!(server.get("/unset").text(), "rate 0");
    assert_eq!(server.get("/set").text(), "rate 65536");
    assert_eq!(server.get("/bad").text(), "rate 0");
    server.wait_for_log("invalid $limit_rate \"fast\"");
    assert_eq!(server.get("/size?rate=fast").text(), "x");
    server.wait_for_log("invalid size \"fast\"");
}

#[test]
fn limits_that_are_none_are_refused() {
    for name in ["limit_rate", "limit_rate_after"] {
        let outcome = Server::check(Config::server(&format!("{name} fast;"))).expect(1);
        let words = format!("\"{name}\" directive invalid value in ");
        assert!(outcome.stderr.contains(&words), "{}", outcome.stderr);
    }
}
