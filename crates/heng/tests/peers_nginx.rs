//! A real nginx beside us: the same configurations, the same requests, the same answers.
//!
//! What differs by design is taken out of the comparison: `Server`, `Date`, the entity tag's
//! time, and the name of the product in error pages. nginx also plays the backend here.
//!
//! Needs: nginx.

use testkit::{Answer, Backend, Config, Server};

const NGINX: &str = "/usr/sbin/nginx";

/// The two programs with the same configuration.
fn pair(config: Config) -> [Server; 2] {
    [config.clone().program(NGINX), config].map(Server::start)
}

/// What a server answers up to the end of the connection, without what may differ: the header
/// lines in alphabetical order, since clients must not mind it.
fn answer(server: &Server, request: &str) -> String {
    let mut client = server.connect();
    // A request that is refused may not be read to its end.
    let _ = client.try_send(request);
    let text = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    let text = text.replace(&server.port(0).to_string(), "PORT");
    let mut parts = Vec::new();
    for part in text.split("\r\n\r\n") {
        let mut lines: Vec<&str> = part.split("\r\n").filter(|line| !may_differ(line)).collect();
        // The length of an error page depends on the product's name in it.
        if text.contains("<hr><center>") {
            lines.retain(|line| !line.starts_with("Content-Length: "));
        }
        lines.sort_unstable();
        parts.push(lines.join("\n"));
    }
    parts.join("\n\n")
}

/// True for lines that name the product or a time.
fn may_differ(line: &str) -> bool {
    let names = ["Server: ", "Date: ", "ETag: ", "Last-Modified: ", "<hr><center>"];
    names.iter().any(|name| line.starts_with(name))
}

/// Sends each request to both and compares.
#[track_caller]
fn same(config: Config, requests: &[&str]) {
    let [theirs, ours] = pair(config);
    for request in requests {
        let (expected, found) = (answer(&theirs, request), answer(&ours, request));
        assert_eq!(found, expected, "{request:?}: ours on the left, nginx's on the right");
    }
}

/// A GET of each path, over HTTP/1.1 and closing.
fn gets(paths: &[&str]) -> Vec<String> {
    let get = |path: &&str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    paths.iter().map(get).collect()
}

#[track_caller]
fn same_gets(config: Config, paths: &[&str]) {
    let requests = gets(paths);
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    same(config, &requests);
}

#[test]
fn paths_are_normalised_alike() {
    same_gets(
        Config::server("location / { return 200 $uri|$args|$request_uri; }"),
        &[
            "/",
            "/a/./b",
            "/a/../b",
            "/a/b/..",
            "//a//b",
            "/%41%2f%2e%2e/b",
            "/a%20b",
            "/a+b",
            "/a?b?c",
            "/?a&b=",
            "/a%3Fb?c",
            "/a%00",
            "/a%zz",
            "/..",
            "/a/../../b",
            "/.a/..b",
            "/a/.../b",
            "/a#b",
            "/a\\b",
            "/%",
            "/a%2",
            "/a;b=c/d",
            "/~a",
            "/a%25%25",
            "/\u{fc}",
            "/a/%2e%2e",
            "/a/%2e%2e%2fb",
            "/a/b/../../",
            "/./",
            "/..a/",
            "/a/..b/..",
        ],
    );
}

#[test]
fn locations_are_chosen_alike() {
    same_gets(
        Config::server(
            "location / { return 200 root; }
             location = / { return 200 exact; }
             location /a { return 200 a; location /a/n { return 200 nested; } }
             location /a/ { return 200 slash; }
             location ^~ /a/b { return 200 firm; }
             location ~ ^/a/(.)x { return 200 regex-$1; }
             location ~* X$ { return 200 insensitive; }
             location ~ \\.(gif|png)$ { return 301 /image.$1?$args; }
             error_page 404 = @none; location /404 { return 404; }
             location @none { return 200 named:$uri; }",
        ),
        &[
            "/",
            "/b",
            "/a",
            "/ab",
            "/a/",
            "/a/b",
            "/a/bx",
            "/a/cx",
            "/bX",
            "/bx",
            "/x.gif?q=1",
            "/a/x.png",
            "/404",
            "/a/n",
            "/an",
        ],
    );
}

#[test]
fn framing_and_versions_are_answered_alike() {
    same(
        Config::server(
            "lingering_timeout 100ms;
             location / { return 200 ok; } location /404 { return 404; }
             location /big { client_max_body_size 3; return 200 big; }",
        ),
        &[
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            "GET /404 HTTP/1.0\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\nConnection: close\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
            "GET http://b/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\nConnection: close\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            "POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /\r\n",
            "GET / \r\n",
            "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        ],
    );
}

#[test]
fn redirects_and_error_pages_are_alike() {
    let inside = "server_name own.test;
         location /301 { return 301 /there; }
         location /302 { return 302 http://x/; }
         location /303 { return 303 /y; }
         location /307 { return 307 /y; }
         location /308 { return 308 /y; }
         location /text { return 200 \"text $arg_a\"; default_type x/y; }
         location /empty { return 200 \"\"; }
         location /201 { return 201 made; }
         location /204 { return 204; }
         location /299 { return 299 odd; }
         location /page { error_page 404 /other; return 404; }
         location /changed { error_page 404 =202 /other; return 404; }
         location /taken { error_page 404 = /other; return 404; }
         location /outside { error_page 404 http://x/y; return 404; }
         location /other { return 200 other; }";
    let mut paths: Vec<String> = ["/301", "/302", "/303", "/307", "/308", "/text?a=b", "/empty"]
        .iter()
        .chain(&["/201", "/204", "/299", "/page", "/changed", "/taken", "/outside"])
        .map(|path| path.to_string())
        .collect();
    let mut statuses = String::new();
    for status in [400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 416] {
        statuses.push_str(&format!("location /s{status} {{ return {status}; }} "));
        paths.push(format!("/s{status}"));
    }
    for status in [418, 421, 429, 500, 501, 502, 503, 504, 505, 507, 599] {
        statuses.push_str(&format!("location /s{status} {{ return {status}; }} "));
        paths.push(format!("/s{status}"));
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    same_gets(Config::server(&format!("{inside} {statuses}")), &paths);
}

#[test]
fn files_are_served_alike() {
    let config = Config::server(
        "root %%DIR%%/html; types { text/html html; text/plain txt; }
         location /alias { alias %%DIR%%/html/; }
         location /index/ { index none b.txt; alias %%DIR%%/html/dir/; }",
    )
    .file("html/index.html", "index")
    .file("html/a.txt", "0123456789")
    .file("html/dir/b.txt", "b");
    let mut requests = gets(&[
        "/",
        "/a.txt",
        "/none",
        "/dir",
        "/dir/",
        "/dir?x=y",
        "/alias/a.txt",
        "/alias/",
        "/index/",
        "/a.txt/",
        "/a.txt/b",
        "/dir/../a.txt",
    ]);
    for range in ["bytes=0-3", "bytes=-3", "bytes=5-", "bytes=50-", "bytes=3-1", "bytes=", "b=1-2"]
    {
        requests.push(format!(
            "GET /a.txt HTTP/1.1\r\nHost: localhost\r\nRange: {range}\r\nConnection: close\r\n\r\n"
        ));
    }
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        requests.push(format!(
            "{method} /a.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ));
    }
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    same(config, &requests);
}

#[test]
fn backends_are_asked_alike() {
    let backend = Backend::with(|request| {
        // The version and the connection are ours to choose: newer nginx keeps connections too.
        let text = request.text().replace("HTTP/1.0", "HTTP/1.1");
        Answer::text(text).header("Content-Type", "text/plain")
    });
    let directives = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
    let config = Config::server(&format!(
        "{directives}
         location / {{ proxy_pass http://127.0.0.1:%%BACKEND%%; }}
         location /slash/ {{ proxy_pass http://127.0.0.1:%%BACKEND%%/; }}
         location /path/ {{ proxy_pass http://127.0.0.1:%%BACKEND%%/x%20y/; }}
         location ~ ^/regex/(.*) {{ proxy_pass http://127.0.0.1:%%BACKEND%%/r/$1; }}
         location /host/ {{ {directives} proxy_set_header Host $host;
                            proxy_set_header X-F $proxy_add_x_forwarded_for;
                            proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
    ))
    .with("BACKEND", backend.port());
    let mut requests = gets(&[
        "/",
        "/a%20b?c%20d",
        "/a//b/../c",
        "/slash/a%2fb",
        "/slash/a/../b?c",
        "/path/%7e",
        "/path/a b",
        "/regex/a%20b?c",
        "/regex/",
        "/host/x",
    ]);
    requests.push(
        "POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nX-A: b\r\nx-A: c\r\n\
         Accept-Encoding: gzip\r\nCookie: a=b\r\nCookie: c=d\r\nConnection: close\r\n\r\nabc"
            .to_string(),
    );
    requests.push(
        "PUT /p HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTE: x\r\n\
         Connection: close\r\nX-Hop: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            .to_string(),
    );
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    same(config, &requests);
}

#[test]
fn mistakes_are_told_alike() {
    for text in [
        "events {} no_such;",
        "events {} http { listen 80; }",
        "events {} pid;",
        "events {} pid a; pid b;",
        "events {} http { sendfile maybe; }",
        "events {} http { server { listen x:y; } }",
        "events {} http { server { location / { root a; root b; } } }",
        "events {} http { server {",
        "events {} }",
        "events {} http { keepalive_timeout x; }",
        "events {} http { client_max_body_size -1; }",
        "events {} worker_processes x;",
        "events { worker_connections x; }",
        "events { use none; }",
        "events {} error_log x none;",
        "events {} http { server { return 99999; } }",
        "events {} http { upstream u { server 127.0.0.1:1 backup; } }",
    ] {
        let first = |config: Config| {
            let outcome = Server::check(config).expect(1);
            let line = outcome.stderr.lines().next().unwrap_or_default().to_string();
            let message = line.split_once("] ").map_or(line.clone(), |(_, rest)| rest.to_string());
            // The directory of the test differs.
            match message.rsplit_once("/nginx.conf") {
                Some((before, after)) => {
                    let words = before.rsplit_once(' ').map_or(before, |(words, _)| words);
                    format!("{words} nginx.conf{after}")
                }
                None => message,
            }
        };
        let expected = first(Config::new(text).program(NGINX));
        assert_eq!(first(Config::new(text)), expected, "{text:?}");
    }
}

#[test]
fn nginx_is_a_backend_like_any_other() {
    let nginx = Server::start(
        Config::server("root %%DIR%%/html; location /count { return 200 $connection_requests; }")
            .program(NGINX)
            .file("html/large", vec![b'x'; 5 << 20]),
    );
    let server = Server::start(
        Config::http(
            "upstream u { server 127.0.0.1:%%NGINX%%; keepalive 4; }
             server { listen 127.0.0.1:%%PORT_0%%;
                 location / { proxy_http_version 1.1; proxy_set_header Connection \"\";
                              proxy_pass http://u; } }",
        )
        .with("NGINX", nginx.port(0)),
    );
    let mut client = server.connect();
    let counts: Vec<String> = (0..3).map(|_| client.get("/count").text()).collect();
    assert_eq!(counts, ["1", "2", "3"]);
    assert_eq!(client.get("/large").expect(200).body.len(), 5 << 20);
    let part = client.request("GET", "/large", &[("Host", "a"), ("Range", "bytes=0-9")], b"");
    assert_eq!(part.expect(206).header("Content-Range"), Some("bytes 0-9/5242880"));
    assert_eq!(client.get("/none").status, 404);
}
