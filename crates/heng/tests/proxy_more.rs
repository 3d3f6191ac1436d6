//! Proxying, continued: where connections come from, how fast answers are read, and the cookies
//! of backends.

use std::time::{Duration, Instant};
use testkit::{Answer, Backend, Config, Server};

/// A server that asks itself: what the inner location answers is what the backend saw.
fn who(directives: &str) -> Server {
    Server::start(Config::server(&format!(
        "location / {{ {directives} proxy_pass http://127.0.0.1:%%PORT_0%%/who/; }}
         location /who/ {{ return 200 $remote_addr; }}"
    )))
}

#[test]
fn proxy_bind_says_where_connections_come_from() {
    assert_eq!(who("").get("/").expect(200).text(), "127.0.0.1");
    assert_eq!(who("proxy_bind 127.0.0.2;").get("/").expect(200).text(), "127.0.0.2");
    let server = who("proxy_bind 127.0.0.$arg_last;");
    assert_eq!(server.get("/?last=3").expect(200).text(), "127.0.0.3");
    assert_eq!(server.get("/?last=4").expect(200).text(), "127.0.0.4");
}

#[test]
fn proxy_bind_off_undoes_the_outer_level() {
    let server = Server::start(Config::server(
        "proxy_bind 127.0.0.2;
         location /bound { proxy_pass http://127.0.0.1:%%PORT_0%%/who; }
         location /off { proxy_bind off; proxy_pass http://127.0.0.1:%%PORT_0%%/who; }
         location /who { return 200 $remote_addr; }",
    ));
    assert_eq!(server.get("/bound").expect(200).text(), "127.0.0.2");
    assert_eq!(server.get("/off").expect(200).text(), "127.0.0.1");
}

#[test]
fn proxy_limit_rate_slows_the_reading_of_answers() {
    const LENGTH: usize = 60_000;
    let backend = Backend::with(|_| Answer::text("x".repeat(LENGTH)));
    let server = Server::start(
        Config::server(
            "location /fixed { proxy_limit_rate 20000; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location / { proxy_limit_rate $arg_rate; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    // All at once, so that their waits pass together.
    let begin = Instant::now();
    let mut clients: Vec<_> = ["/fixed", "/?rate=20000"]
        .into_iter()
        .map(|target| {
            let mut client = server.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.read_response().expect(200).body.len(), LENGTH);
        // One second's bytes at once, those of two more seconds later, less what a last read
        // may take too much.
        assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    }
}
