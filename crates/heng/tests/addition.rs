//! Answers of other locations before and after a body.

use testkit::{Answer, Backend, Config, Server};

#[test]
fn bodies_stand_between_others() {
    let backend = Backend::with(|request| Answer::text(format!("<{}>", request.target)));
    let server = Server::start(
        Config::server(
            "default_type text/html; add_before_body /before;
             location / { return 200 body; }
             location /both { add_after_body /after; return 200 body; }
             location /only { add_before_body ''; add_after_body /after; return 200 body; }
             location /types { default_type text/css; addition_types text/css; return 200 css; }
             location /other { default_type text/css; return 200 css; }
             location /error { return 202 body; }
             location /empty { return 200 ''; }
             location /lost { add_before_body /nothing; return 200 body; }
             location /nothing { return 404 none; }
             location /proxied { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /before { add_before_body /after; return 200 'before $uri '; }
             location /after { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    for (path, expected) in [
        ("/", "before /before body"),
        ("/both", "before /before body</after>"),
        ("/only", "body</after>"),
        ("/types", "before /before css"),
        ("/other", "css"),
        ("/empty", "before /before "),
        ("/lost", "nonebody"),
    ] {
        let answer = client.get(path).expect(200);
        assert_eq!(answer.text(), expected, "{path}");
    }
    assert_eq!(client.get("/error").expect(202).text(), "body");
    // Its type is text/plain, which is not added to.
    assert_eq!(client.get("/proxied").expect(200).text(), "</proxied>");
}

#[test]
fn heads_say_that_the_body_is_longer() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; add_after_body /after; location /after { return 200 after; }",
        )
        .file("html/a.html", "a"),
    );
    let answer = server.get("/a.html");
    assert_eq!(answer.text(), "aafter");
    assert_eq!(answer.header("Content-Length"), None);
    assert_eq!(answer.header("Accept-Ranges"), None);
    assert!(answer.header("ETag").is_some_and(|tag| tag.starts_with("W/")));
    let head = server.exchange("HEAD /a.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n") && !head.contains("after"), "{head}");
}
