//! Bodies that are taken in before a location is chosen.

use testkit::{Config, Server};

#[test]
fn a_body_decides_what_happens() {
    let server = Server::start(Config::http(
        "map $http_content_type $is_text { text/plain 1; }
         server { listen 127.0.0.1:%%PORT_0%%; client_max_body_size 20;
             client_body_early_read '' $is_text;
             if ($request_body = secret) { return 403; }
             location / { return 200 <$request_body>; } }",
    ));
    let ask = |kind: &str, body: &str| {
        let length = body.len().to_string();
        let fields = [("Host", "a"), ("Content-Type", kind), ("Content-Length", &*length)];
        server.connect().request("POST", "/", &fields, body.as_bytes())
    };
    assert_eq!(ask("text/plain", "hello").expect(200).text(), "<hello>");
    ask("text/plain", "secret").expect(403);
    assert_eq!(ask("text/html", "secret").expect(200).text(), "<>");
    ask("text/plain", "more than twenty bytes").expect(413);
    server.wait_for_log("client intended to send too large body: 22 bytes");
    // In chunks its length is known only when it is there.
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nConnection: close\r\n\
                   Transfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n";
    assert!(server.exchange(chunked).starts_with("HTTP/1.1 403"));
}
