//! What nobody should send: changes that make no sense, cookies and routes that are forged, zones
//! of impossible sizes. Each has a clear answer, and what was there before stays as it was.

use testkit::{Backend, Config, Server};

/// Two servers, of whom clients are bound to one by cookie and by route, and an API.
fn start(backends: &[Backend; 2]) -> Server {
    let [a, b] = backends.each_ref().map(Backend::port);
    Server::start(Config::http(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{a}; server 127.0.0.1:{b};
             sticky cookie who; }}
         upstream v {{ zone v 64k; server 127.0.0.1:{a} route=ra; server 127.0.0.1:{b} route=rb;
             sticky route $arg_r $cookie_r; }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location / {{ proxy_pass http://u; }}
             location /v {{ proxy_pass http://v; }}
             location /api {{ api write=on; allow 127.0.0.1; deny all; }}
         }}"
    )))
}

fn send(server: &Server, head: &str, body: &[u8]) -> (u16, String) {
    let mut client = server.connect();
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.send([head.as_bytes(), body].concat());
    let response = client.read_response();
    let text = response.text().to_string();
    (response.status, text)
}

/// The servers as the API describes them.
fn servers(server: &Server) -> String {
    send(server, "GET /api/9/http/upstreams/u/servers", b"").1
}

#[test]
fn bad_requests_to_the_api_are_told_what_is_wrong() {
    let backends = ["a", "b"].map(Backend::named);
    let server = start(&backends);
    let before = servers(&server);
    const GROUP: &str = "/api/9/http/upstreams/u";
    let deep = "[".repeat(60_000);
    let many = format!("{{\"route\":\"{}\"}}", "r".repeat(33));
    let rows: &[(&str, &str, &[u8], u16, &str)] = &[
        ("GET", "/servers/18446744073709551616", b"", 400, "UpstreamBadServerId"),
        ("GET", "/servers/-1", b"", 400, "UpstreamBadServerId"),
        ("GET", "/servers/0x0", b"", 400, "UpstreamBadServerId"),
        ("GET", "/servers/%30%00", b"", 400, "Bad Request"),
        ("GET", "/servers/4294967296", b"", 404, "UpstreamServerNotFound"),
        ("GET", "/servers/0/weight", b"", 404, "PathNotFound"),
        ("GET", "/peers", b"", 404, "PathNotFound"),
        ("PUT", "/servers/0", b"{\"down\":true}", 405, "MethodDisabled"),
        ("OPTIONS", "/servers/0", b"", 405, "MethodDisabled"),
        ("POST", "/servers/0", b"{\"down\":true}", 405, "MethodDisabled"),
        ("PATCH", "", b"{\"down\":true}", 405, "MethodDisabled"),
        ("DELETE", "/servers", b"", 405, "MethodDisabled"),
        ("DELETE", "/servers/99", b"", 404, "UpstreamServerNotFound"),
        ("PATCH", "/servers/99", b"{\"down\":true}", 404, "UpstreamServerNotFound"),
        ("PATCH", "/servers/0", b"", 415, "JsonError"),
        ("PATCH", "/servers/0", b"\xef\xbb\xbf{\"down\":true}", 415, "JsonError"),
        ("PATCH", "/servers/0", b"{\"down\":true}{\"down\":true}", 415, "JsonError"),
        ("PATCH", "/servers/0", b"{\"down\":\"\xff\xfe\"}", 415, "JsonError"),
        ("PATCH", "/servers/0", deep.as_bytes(), 415, "JsonError"),
        ("PATCH", "/servers/0", b"{\"weight\":1e400}", 415, "JsonError"),
        ("PATCH", "/servers/0", b"null", 415, "JsonError"),
        ("PATCH", "/servers/0", b"{\"down\":1}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"down\":null}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"weight\":-1}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"weight\":1.5}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"weight\":4294967296}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"max_conns\":\"9\"}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"fail_timeout\":\"-1s\"}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"slow_start\":[]}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"id\":7}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"weight\":9,\"id\":7}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", b"{\"route\":\"a;b\"}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/servers/0", many.as_bytes(), 400, "UpstreamConfFormatError"),
        ("POST", "/servers", b"{\"server\":\"\"}", 400, "UpstreamConfFormatError"),
        ("POST", "/servers", b"{\"server\":\"127.0.0.1:0\"}", 400, "UpstreamBadAddress"),
        ("POST", "/servers", b"{\"server\":\"127.0.0.1:65536\"}", 400, "UpstreamBadAddress"),
        ("POST", "/servers", b"{\"server\":\"[::1\"}", 400, "UpstreamBadAddress"),
        ("POST", "/servers", b"{\"server\":\"127.0.0.1:1\\n\"}", 400, "UpstreamConfFormatError"),
        ("POST", "/servers", b"{\"server\":\"a.test:80\"}", 400, "UpstreamConfNoResolver"),
    ];
    for (method, path, body, status, code) in rows {
        let (found, text) = send(&server, &format!("{method} {GROUP}{path}"), body);
        let said = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert_eq!(found, *status, "{method} {path} {said}: {text}");
        assert!(text.contains(code), "{method} {path} {said}: no {code} in {text}");
        let is_json = text.starts_with("{\"error\":{");
        assert!(is_json || *code == "Bad Request", "{method} {path} {said}: {text}");
    }
    assert_eq!(servers(&server), before, "nothing has changed");
    let found: String = (0..4).map(|_| server.get("/").expect(200).text()).collect();
    assert_eq!(found, "abab");
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}

#[test]
fn forged_cookies_and_routes_bind_to_nobody() {
    let backends = ["a", "b"].map(Backend::named);
    let server = start(&backends);
    let good = server.get("/").expect(200);
    let cookie = good.header("Set-Cookie").unwrap_or_default();
    let value = cookie.split([';', '=']).nth(1).unwrap_or_default().to_owned();
    assert_eq!((good.text(), value.len()), ("a".into(), 32), "{cookie}");
    let long = "f".repeat(4_000);
    let cut = &value[..31];
    let upper = value.to_ascii_uppercase();
    let more = format!("{value}0");
    let forged = ["", "0", "ra", cut, &upper, &more, &long, "\x7f\u{e9}", "../../etc", "'; --"];
    for forged in forged {
        let mut seen: Vec<String> = (0..4)
            .map(|_| {
                let mut client = server.connect();
                let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: who=";
                client.send([head.as_bytes(), forged.as_bytes(), b"\r\n\r\n"].concat());
                let response = client.read_response().expect(200);
                assert!(response.header("Set-Cookie").is_some(), "{forged:?} is bound anew");
                response.text().to_string()
            })
            .collect();
        seen.sort();
        assert_eq!(seen, ["a", "a", "b", "b"], "{forged:?}: they take turns");
    }
    for route in ["", "rc", "ra%00", "RA", "ra.rb", &long] {
        let mut seen: Vec<String> = (0..4)
            .map(|_| server.get(&format!("/v?r={route}")).expect(200).text().to_string())
            .collect();
        seen.sort();
        assert_eq!(seen, ["a", "a", "b", "b"], "{route:?}");
    }
    // A true one binds, whatever stands beside it.
    for _ in 0..3 {
        assert_eq!(server.get("/v?r=rb").expect(200).text(), "b");
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; who={value}; y\r\n\r\n"));
        assert_eq!(client.read_response().expect(200).text(), "a");
    }
}

#[test]
fn impossible_zones_are_refused_by_name() {
    for (zone, expected) in [
        ("zone u 1x;", "invalid zone size \"1x\""),
        ("zone u -1;", "invalid zone size \"-1\""),
        ("zone u 1k;", "zone \"u\" is too small"),
        ("zone u 0;", "zone \"u\" is too small"),
        ("zone u 99999999999999999999g;", "invalid zone size"),
        ("zone u;", "zero size shared memory zone \"u\""),
    ] {
        let config = Config::http(&format!("upstream u {{ {zone} server 127.0.0.1:1; }}"));
        let outcome = Server::check(config);
        assert!(outcome.stderr.contains("[emerg]"), "{zone}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{zone}: {}", outcome.stderr);
    }
}
