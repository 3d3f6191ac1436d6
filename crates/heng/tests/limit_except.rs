//! Parts of locations for some methods only.

use testkit::{Answer, Backend, Client, Config, Response, Server};

fn ask(client: &mut Client, method: &str, path: &str) -> Response {
    client.request(method, path, &[("Host", "a"), ("Content-Length", "0")], b"")
}

#[test]
fn other_methods_meet_other_rules() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html;
             location / { limit_except GET { deny all; } }
             location /post/ { limit_except get Post { deny all; } return 200 ok; }
             location /none/ { deny all; limit_except HEAD { allow all; } }",
        )
        .file("html/a.html", "text")
        .file("html/none/a.html", "text"),
    );
    let status = |method: &str, path: &str| ask(&mut server.connect(), method, path).status;
    assert_eq!(status("GET", "/a.html"), 200);
    assert_eq!(status("HEAD", "/a.html"), 200);
    assert_eq!(status("POST", "/a.html"), 403);
    assert_eq!(status("PURGE", "/a.html"), 403);
    assert_eq!(status("POST", "/post/"), 200);
    assert_eq!(status("PUT", "/post/"), 403);
    assert_eq!(status("HEAD", "/none/a.html"), 403);
    assert_eq!(status("GET", "/none/a.html"), 200);
}

#[test]
fn the_rewrites_of_the_location_are_not_for_them() {
    // As nginx has it: what the others get is a location of its own.
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html;
             location / { limit_except GET { allow all; } return 200 $uri; }
             location @named { limit_except GET { deny all; } return 200 named; }
             location /to/ { error_page 418 = @named; return 418; }",
        )
        .file("html/a.html", "text"),
    );
    assert_eq!(server.get("/a.html").text(), "/a.html");
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "OPTIONS", "/a.html").status, 405);
    assert_eq!(server.get("/to/").text(), "named");
    assert_eq!(ask(&mut server.connect(), "DELETE", "/to/").status, 403);
}

#[test]
fn they_are_proxied_like_the_others_or_elsewhere() {
    let one = Backend::with(|request| Answer::text(format!("one {}", request.target)));
    let other = Backend::with(|request| Answer::text(format!("other {}", request.target)));
    let server = Server::start(
        Config::server(
            "location /same/ { proxy_pass http://127.0.0.1:%%ONE%%/in/;
                 limit_except GET { allow all; } }
             location /else/ { proxy_pass http://127.0.0.1:%%ONE%%/in/;
                 limit_except GET { proxy_pass http://127.0.0.1:%%OTHER%%; } }",
        )
        .with("ONE", one.port())
        .with("OTHER", other.port()),
    );
    let text = |method: &str, path: &str| ask(&mut server.connect(), method, path).text();
    assert_eq!(text("GET", "/same/a"), "one /in/a");
    assert_eq!(text("PUT", "/same/a"), "one /in/a");
    assert_eq!(text("GET", "/else/a"), "one /in/a");
    assert_eq!(text("PUT", "/else/a"), "other /else/a");
}

#[test]
fn faults_are_named() {
    let check = |inside: &str, message: &str| {
        let outcome = Server::check(Config::server(inside));
        assert!(outcome.stderr.contains(message), "{inside}: {}", outcome.stderr);
    };
    check("location / { limit_except BREW { } }", "invalid method \"BREW\"");
    check(
        "location / { limit_except GET { } limit_except POST { } }",
        "\"limit_except\" directive is duplicate",
    );
    check(
        "location / { limit_except GET { return 200; } }",
        "\"return\" directive is not allowed here",
    );
    check(
        "location / { limit_except GET { proxy_pass http://127.0.0.1/a; } }",
        "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside \
         named location, or inside \"if\" statement, or inside \"limit_except\" block",
    );
}
