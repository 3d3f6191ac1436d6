//! What comes ahead of an answer and behind it: early hints, trailers, copies, `post_action`.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use testkit::{Answer, Backend, Config, Gate, Server};

const HINTS: &[u8] =
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nServer: b\r\nConnection: x\r\n\r\n";

#[test]
fn early_hints_are_passed_where_that_is_wanted() {
    let gate = Arc::new(Gate::new());
    let wait = gate.clone();
    let backend = Backend::with(move |request| {
        let answer = Answer::text("done").header("X-Last", "yes").interim(HINTS);
        match request.target.as_str() {
            "/wait" => answer.pause_at(HINTS.len(), &wait),
            _ => answer,
        }
    });
    let server = Server::start(
        Config::server(
            "location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /hints { early_hints '' 0 $arg_on; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /wait { early_hints 1; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let ask = |path: &str, version: &str| {
        server.exchange(format!(
            "GET {path} HTTP/1.{version}\r\nHost: a\r\nConnection: close\r\n\r\n"
        ))
    };
    let text = ask("/hints?on=1", "1");
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(text.starts_with(hints) && text.ends_with("done"), "{text}");
    assert_eq!(text.matches("Link:").count(), 1, "{text}");
    for text in [ask("/", "1"), ask("/hints?on=0", "1"), ask("/hints?on=1", "0")] {
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && !text.contains("Link"), "{text}");
    }
    // They go before the answer is there.
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_exactly(24), b"HTTP/1.1 103 Early Hints");
    gate.open();
}

#[test]
fn trailers_are_passed_where_that_is_wanted() {
    let backend = Backend::with(|request| {
        let body = "4\r\nbody\r\n0\r\n";
        let trailers = match request.target.as_str() {
            "/bad" => "X Y: 1\r\n\r\n",
            "/none" => "\r\n",
            _ => "X-Sum: 12\r\nX-Secret: 1\r\n\r\n",
        };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        Answer::raw(format!("{head}{body}{trailers}"))
    });
    let server = Server::start(
        Config::http(
            "log_format sums '$uri $upstream_trailer_x_sum $sent_trailer_x_sum';
             server { listen 127.0.0.1:%%PORT_0%%; access_log sums.log sums;
                      location / { proxy_pass_trailers on; proxy_hide_header X-Secret;
                                   proxy_pass http://127.0.0.1:%%BACKEND%%; }
                      location /off { proxy_pass http://127.0.0.1:%%BACKEND%%; } }",
        )
        .with("BACKEND", backend.port()),
    );
    let ask = |path: &str| {
        server.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    };
    let text = ask("/");
    assert!(text.ends_with("4\r\nbody\r\n0\r\nX-Sum: 12\r\n\r\n"), "{text}");
    assert!(ask("/off").ends_with("4\r\nbody\r\n0\r\n\r\n"));
    assert!(ask("/none").ends_with("4\r\nbody\r\n0\r\n\r\n"));
    assert!(ask("/bad").ends_with("4\r\nbody\r\n"));
    server.wait_for_line("sums.log", "/bad");
    assert_eq!(server.read("sums.log"), "/ 12 12\n/off 12 -\n/none - -\n/bad - -\n");
}

#[test]
fn answers_are_kept_as_files() {
    let backend = Backend::with(|request| {
        let changed = "Sun, 06 Nov 1994 08:49:37 GMT";
        match request.target.as_str() {
            "/lost" => Answer::text("no").with_status(404, "Not Found"),
            "/cut" => Answer::text("0123456789").cut_after(5),
            "/empty" => Answer::text(""),
            "/long" => Answer::text("x".repeat(300_000)).chunked(),
            other => Answer::text(format!("text of {other}")).header("Last-Modified", changed),
        }
    });
    let server = Server::start(
        Config::server(
            "location / { root %%DIR%%/kept; error_page 404 = @fetch; log_not_found off; }
             location @fetch { root %%DIR%%/kept; proxy_store on;
                               proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /named/ { proxy_store %%DIR%%/kept/$arg_name;
                                proxy_store_access user:rw group:r all:r;
                                proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /off { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let path = "/deep/folder/a";
    assert_eq!(server.get(path).expect(200).text(), "text of /deep/folder/a");
    let kept = server.path("kept/deep/folder/a");
    server.wait_until("the file is there", || kept.exists());
    let data = std::fs::metadata(&kept).expect("a file");
    assert_eq!(data.permissions().mode() & 0o777, 0o600);
    let changed = data.modified().expect("a time").duration_since(std::time::UNIX_EPOCH);
    assert_eq!(changed.expect("after 1970").as_secs(), 784_111_777);
    let folder = std::fs::metadata(server.path("kept/deep")).expect("a folder");
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let asked = backend.request_count();
    assert_eq!(server.get(path).expect(200).text(), "text of /deep/folder/a");
    assert_eq!(backend.request_count(), asked);

    assert_eq!(server.get("/long").expect(200).body.len(), 300_000);
    assert_eq!(std::fs::read(server.path("kept/long")).expect("a file").len(), 300_000);
    server.get("/named/x?name=b").expect(200);
    let mode = std::fs::metadata(server.path("kept/b")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(server.get("/empty").expect(200).text(), "");
    assert!(server.path("kept/empty").exists());
    server.get("/lost").expect(404);
    let mut client = server.connect();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_to_end();
    server.get("/off").expect(200);
    for name in ["lost", "cut", "off", "named"] {
        assert!(!server.path(&format!("kept/{name}")).exists(), "{name}");
    }
}

#[test]
fn requests_go_once_more_when_their_answer_was_sent() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/content" => Answer::text("content").header("Content-Type", "a/b"),
        _ => Answer::text("nobody sees this"),
    });
    let server = Server::start(
        Config::http(
            "log_format all '$request_uri $status $body_bytes_sent';
             server { listen 127.0.0.1:%%PORT_0%%; access_log all.log all;
                      location /content { post_action @count;
                                          proxy_pass http://127.0.0.1:%%BACKEND%%; }
                      location /named { post_action /count?x; return 204; }
                      location /close { post_action @count; return 444; }
                      location = /count { proxy_set_header X-Told '$status';
                                        proxy_pass http://127.0.0.1:%%BACKEND%%; }
                      location ~ ^/count.x { proxy_set_header X-Told '$status';
                                        proxy_pass http://127.0.0.1:%%BACKEND%%; }
                      location @count { internal;
                          proxy_set_header X-Told '$status $body_bytes_sent $request_completion';
                          proxy_pass http://127.0.0.1:%%BACKEND%%; } }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    assert_eq!(client.get("/content").expect(200).text(), "content");
    backend.wait_requests(2);
    assert_eq!(backend.last_request().header("X-Told"), Some("200 7 OK"));
    client.get("/named").expect(204);
    backend.wait_requests(3);
    assert_eq!(backend.last_request().header("X-Told"), Some("204"));
    client.send("GET /close HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed();
    backend.wait_requests(4);
    assert_eq!(backend.last_request().header("X-Told"), Some("444 0"));
    server.wait_for_line("all.log", "/close");
    assert_eq!(server.read("all.log"), "/content 200 7\n/named 204 0\n/close 444 0\n");
}

#[test]
fn what_came_before_an_answer_broke_off_is_sent() {
    let backend = Backend::with(|_| Answer::text("x".repeat(1_000_000)).cut_after(900_000));
    let server = Server::start(
        Config::http(
            "server { listen 127.0.0.1:%%PORT_0%% sndbuf=8k;
                      location / { proxy_pass http://127.0.0.1:%%BACKEND%%; } }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // The backend has closed long before the client reads.
    server.wait_for_log("upstream prematurely closed connection while reading upstream");
    let text = client.read_to_end();
    assert_eq!(text.iter().filter(|byte| **byte == b'x').count(), 900_000);
}
