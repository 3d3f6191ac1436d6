//! Which server and which location answer a request, and what a URI is before they are looked up.

use testkit::{Config, Server};

/// Starts a server with `inside` and checks which text each path is answered with.
#[track_caller]
fn check(inside: &str, expected: &[(&str, &str)]) {
    let server = Server::start(Config::server(inside));
    let mut client = server.connect();
    for (path, text) in expected {
        let response = client.get(path);
        assert_eq!(response.text(), *text, "GET {path}: {}", response.status);
    }
}

#[test]
fn the_most_specific_location_wins() {
    check(
        "location / { return 200 root; }
         location = / { return 200 exact-root; }
         location /a { return 200 a; }
         location /a/b { return 200 ab; }
         location = /a/b { return 200 exact; }
         location ^~ /a/img { return 200 firm; }
         location ~ \\.PNG$ { return 200 case; }
         location ~* \\.png$ { return 200 any-case; }
         location ~ ^/a/x { return 200 never-second; }",
        &[
            ("/", "exact-root"),
            ("/other", "root"),
            ("/a", "a"),
            ("/abc", "a"),
            ("/a/b", "exact"),
            ("/a/b/", "ab"),
            ("/a/img/x.png", "firm"),
            ("/a/b.PNG", "case"),
            ("/a/b.png", "any-case"),
            ("/a/x.png", "any-case"),
            ("/a/x", "never-second"),
        ],
    );
}

#[test]
fn nested_locations_refine_their_parents() {
    check(
        "location / { return 200 root; }
         location /a/ {
             return 200 a;
             location /a/b/ { return 200 b; location ~ \\.x$ { return 200 x; } }
             location = /a/c { return 200 c; }
         }
         location ~ \\.x$ { return 200 outer; }",
        &[("/a/z", "a"), ("/a/b/z", "b"), ("/a/b/z.x", "x"), ("/a/c", "c"), ("/z.x", "outer")],
    );
}

#[test]
fn captures_of_a_location_are_variables() {
    check(
        "location ~ ^/u/(?<name>[a-z]+)/([0-9]+)$ { return 200 $name-$2; }
         location / { return 200 none; }",
        &[("/u/eva/17", "eva-17"), ("/u/eva/x", "none")],
    );
}

#[test]
fn uris_are_normalised_before_the_lookup() {
    check(
        "location / { return 200 $uri; }",
        &[
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/%61", "/a"),
            ("/a%2fb", "/a/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/..a/...", "/..a/..."),
            ("/a?b=../c", "/a"),
            ("/a%3fb", "/a?b"),
            ("/a%25", "/a%"),
        ],
    );
}

#[test]
fn paths_above_the_root_and_broken_escapes_are_refused() {
    let server = Server::start(Config::server("location / { return 200 $uri; }"));
    for path in ["/..", "/../a", "/a/../../b", "/%2e%2e/a", "/%", "/%4", "/%zz", "/a%00b"] {
        assert_eq!(server.get(path).status, 400, "{path}");
    }
}

#[test]
fn merge_slashes_joins_slashes_unless_off() {
    check("location / { return 200 $uri; }", &[("//a///b/", "/a/b/"), ("/a//../b", "/b")]);
    check(
        "merge_slashes off; location / { return 200 $uri; }",
        &[("//a///b/", "//a///b/"), ("/a//../b", "/a/b")],
    );
}

#[test]
fn request_uri_and_args_stay_as_sent() {
    check(
        "location / { return 200 $request_uri|$args|$is_args|$arg_b|$arg_none; }",
        &[("/x%20y/../z?a=1&b=2%20", "/x%20y/../z?a=1&b=2%20|a=1&b=2%20|?|2%20|"), ("/", "/||||")],
    );
}

#[test]
fn named_and_internal_locations_are_reached_from_inside_only() {
    let server = Server::start(Config::server(
        "location / { return 404; error_page 404 /inside; }
         location = /inside { internal; return 200 inside; }
         location /n { return 404; error_page 404 = @named; }
         location @named { return 200 named; }
         location @inside { return 200 never; }",
    ));
    assert_eq!(server.get("/x").expect(404).text(), "inside");
    assert_eq!(server.get("/n").expect(200).text(), "named");
    // Asked for from outside, it does not exist; the error page then is the built-in one.
    let response = server.get("/inside").expect(404);
    assert!(response.text().contains("404 Not Found"), "{}", response.text());
    // A name is no path.
    assert_eq!(server.get("/@inside").expect(404).text(), "inside");
}

#[test]
fn servers_are_chosen_by_name() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; server_name first.example; return 200 first; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name exact.example; return 200 exact; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name *.example; return 200 leading; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name *.b.example; return 200 longer; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name www.*; return 200 trailing; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name .both.test; return 200 both; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name ~^r(?<n>[0-9])\\.test$;
                  return 200 regex-$n; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name ~^r; return 200 second; }",
    ));
    let mut client = server.connect();
    for (host, expected) in [
        ("first.example", "first"),
        ("exact.example", "exact"),
        ("EXACT.example", "exact"),
        ("exact.example.", "exact"),
        ("exact.example:8080", "exact"),
        ("a.example", "leading"),
        ("a.b.example", "longer"),
        ("www.example", "leading"),
        ("www.other", "trailing"),
        ("both.test", "both"),
        ("sub.both.test", "both"),
        ("r7.test", "regex-7"),
        ("rx.test", "second"),
        ("nobody", "first"),
        ("127.0.0.1", "first"),
    ] {
        let response = client.request("GET", "/", &[("Host", host)], b"");
        assert_eq!(response.text(), expected, "{host}");
    }
}

#[test]
fn servers_are_chosen_by_address_first() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; return 200 zero; }
         server { listen 127.0.0.1:%%PORT_0%% default_server; server_name d; return 200 default; }
         server { listen 127.0.0.1:%%PORT_1%%; server_name x; return 200 one; }
         server { listen %%PORT_1%%; server_name x; return 200 any; }",
    ));
    let text = |n, host| server.connect_to(n).request("GET", "/", &[("Host", host)], b"").text();
    assert_eq!(text(0, "unknown"), "default");
    assert_eq!(text(1, "x"), "one");
    let other = std::net::SocketAddr::from(([127, 0, 0, 2], server.port(1)));
    let mut client = testkit::Client::connect(other);
    assert_eq!(client.get("/").text(), "any");
}

#[test]
fn an_empty_name_serves_requests_without_host() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; server_name a; return 200 a; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name b \"\"; return 200 b; }",
    ));
    assert!(server.exchange("GET / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nb"));
    assert!(server.exchange("GET / HTTP/1.0\r\nHost: x\r\n\r\n").ends_with("\r\n\r\na"));
}

#[test]
fn an_absolute_target_overrides_the_host_field() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; server_name a; return 200 a:$host:$uri; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name b; return 200 b:$host:$uri; }",
    ));
    let mut client = server.connect();
    let mut text =
        |target: &str| client.request("GET", target, &[("Host", "a")], b"").expect(200).text();
    assert_eq!(text("http://b/x"), "b:b:/x");
    assert_eq!(text("http://b"), "b:b:/");
    assert_eq!(text("HTTP://B:80/x?y"), "b:b:/x");
}

#[test]
fn return_answers_with_status_text_or_redirect() {
    let server = Server::start(Config::server(
        "location /text { return 201 \"made $arg_x\"; default_type text/css; }
         location /moved { return 301 /there?a=$arg_x; }
         location /found { return http://other.test/x; }
         location /temporary { return 307 https://other.test/; }
         location /empty { return 204; }
         location /gone { return 410; }
         location /shut { return 444; }",
    ));
    let mut client = server.connect();
    let made = client.get("/text?x=1").expect(201);
    assert_eq!((made.text().as_str(), made.header("Content-Type")), ("made 1", Some("text/css")));
    let moved = client.get("/moved?x=2").expect(301);
    let there = format!("http://localhost:{}/there?a=2", server.port(0));
    assert_eq!(moved.header("Location"), Some(there.as_str()));
    let found = client.get("/found").expect(302);
    assert_eq!(found.header("Location"), Some("http://other.test/x"));
    client.get("/temporary").expect(307);
    assert_eq!(client.get("/empty").expect(204).header("Content-Length"), None);
    assert!(client.get("/gone").expect(410).text().contains("<h1>410 Gone</h1>"));
    client.send("GET /shut HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed();
}

#[test]
fn redirects_name_the_server_as_told() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; server_name main.test second.test;
             location /a { return 301 /x; }
             location /relative { absolute_redirect off; return 301 /x; }
             location /portless { port_in_redirect off; return 301 /x; }
             location /named { server_name_in_redirect on; return 301 /x; }
         }",
    ));
    let port = server.port(0);
    let mut client = server.connect();
    let mut location = |path: &str| {
        let response = client.request("GET", path, &[("Host", "second.test")], b"").expect(301);
        response.header("Location").unwrap_or_default().to_string()
    };
    assert_eq!(location("/a"), format!("http://second.test:{port}/x"));
    assert_eq!(location("/relative"), "/x");
    assert_eq!(location("/portless"), "http://second.test/x");
    assert_eq!(location("/named"), format!("http://main.test:{port}/x"));
}

#[test]
fn error_pages_replace_errors() {
    let server = Server::start(Config::server(
        "error_page 404 /missing;
         error_page 410 =200 /missing;
         error_page 403 = /made;
         error_page 401 402 http://other.test/login;
         error_page 409 =303 http://other.test/see;
         location /404 { return 404; }
         location /410 { return 410; }
         location /403 { return 403; }
         location /401 { return 401; }
         location /402 { return 402; }
         location /409 { return 409; }
         location /500 { return 500; }
         location /missing { return 200 \"page of $request_uri\"; }
         location /made { return 201 made; }",
    ));
    let mut client = server.connect();
    let mut check = |path: &str, status: u16, text: &str, location: Option<&str>| {
        let response = client.get(path).expect(status);
        assert!(response.text().contains(text), "{path}: {}", response.text());
        assert_eq!(response.header("Location"), location, "{path}");
    };
    check("/404", 404, "page of /404", None);
    check("/410", 200, "page of /410", None);
    check("/403", 201, "made", None);
    check("/401", 302, "302 Found", Some("http://other.test/login"));
    check("/402", 302, "302 Found", Some("http://other.test/login"));
    check("/409", 303, "303 See Other", Some("http://other.test/see"));
    check("/500", 500, "<h1>500 Internal Server Error</h1>", None);
}

#[test]
fn error_pages_repeat_only_when_recursive() {
    let inside = "error_page 404 /second; error_page 403 /third;
         location /second { return 403; }
         location /third { return 200 third; }
         location / { return 404; }";
    let server = Server::start(Config::server(inside));
    let response = server.get("/").expect(403);
    assert!(response.text().contains("403 Forbidden"), "{}", response.text());
    let server = Server::start(Config::server(&format!("recursive_error_pages on; {inside}")));
    assert_eq!(server.get("/").expect(403).text(), "third");
}

#[test]
fn endless_internal_redirects_end_with_500() {
    let server = Server::start(Config::server(
        "recursive_error_pages on; error_page 404 /again; location / { return 404; }",
    ));
    assert_eq!(server.get("/").status, 500);
    server.wait_for_log("redirection cycle");
}
