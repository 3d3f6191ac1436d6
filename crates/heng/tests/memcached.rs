//! Answers from memcached.

use testkit::{Backend, Config, Server};

/// A memcached with one answer per key.
fn memcached() -> Backend {
    Backend::script(|conversation| {
        let mut line = Vec::new();
        while let Ok(byte) = conversation.read_exactly(1) {
            line.extend(byte);
            if !line.ends_with(b"\r\n") {
                continue;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            let key = text.trim_end().strip_prefix("get ").unwrap_or_default();
            match key {
                "/a" => conversation.send("VALUE /a 0 5\r\nhello\r\nEND\r\n"),
                "/packed" => conversation.send("VALUE /packed 2 3\r\nabc\r\nEND\r\n"),
                "/sp%20ace" => conversation.send("VALUE /sp%20ace 0 1\r\n1\r\nEND\r\n"),
                "/count" => conversation
                    .send(format!("VALUE /count 0 1\r\n{}\r\nEND\r\n", conversation.number)),
                "/bad" => conversation.send("ERROR\r\n"),
                "/long" => conversation.send(format!("VALUE /long 0 5\r\n{}", "x".repeat(20))),
                _ => conversation.send("END\r\n"),
            };
            line.clear();
        }
    })
}

#[test]
fn items_are_answers() {
    let backend = memcached();
    let server = Server::start(
        Config::http(
            "upstream m { server 127.0.0.1:%%BACKEND%%; }
             upstream two { server 127.0.0.1:%%BACKEND%%; server 127.0.0.1:%%BACKEND%% backup; }
             server { listen 127.0.0.1:%%PORT_0%%; default_type text/html;
                 set $memcached_key $uri;
                 location / { memcached_pass m; }
                 location /packed { memcached_gzip_flag 2; memcached_pass m; }
                 location /lost { error_page 404 = @made; memcached_pass m; }
                 location @made { return 200 made; }
                 location /none { set $memcached_key ''; memcached_pass m; }
                 location /small { memcached_buffer_size 1k; memcached_pass m; }
                 location /next { memcached_next_upstream not_found; memcached_pass two; } }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    let answer = client.get("/a").expect(200);
    assert_eq!((answer.text().as_str(), answer.header("Content-Length")), ("hello", Some("5")));
    assert_eq!(answer.header("Content-Type"), Some("text/html"));
    assert_eq!(client.get("/packed").expect(200).header("Content-Encoding"), Some("gzip"));
    assert_eq!(client.get("/sp%20ace").expect(200).text(), "1");
    assert_eq!(client.get("/lost").expect(200).text(), "made");
    client.get("/gone").expect(404);
    client.get("/bad").expect(502);
    client.post("/a", "x").expect(405);
    server.get("/none").expect(500);
    server.wait_for_log("the \"$memcached_key\" variable is not set");
    // Connections are used again.
    let first = client.get("/count").expect(200).text();
    assert_eq!(client.get("/count").expect(200).text(), first);
    // What follows an item is not what was announced: the item is good, the connection is not.
    assert_eq!(client.get("/long").expect(200).text(), "xxxxx");
    assert_ne!(client.get("/count").expect(200).text(), first);
    client.get("/next").expect(404);
}
