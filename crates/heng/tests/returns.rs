//! `return`: statuses, texts and redirects that come from the configuration alone.

use testkit::{Config, Server};

fn serving(inside: &str) -> Server {
    Server::start(Config::server(inside))
}

#[test]
fn a_text_is_the_body() {
    let server = serving(
        "default_type text/x-default; types { text/x-kind kind; }
         location /plain { return 200 hello; }
         location /quoted { return 201 \"two words; $request_method\\n\"; }
         location /empty { return 200; }
         location /empty-text { return 200 \"\"; }
         location /a.kind { return 200 kind; }
         location /error { return 404 own; }
         location /odd { return 299 odd; }
         location /untyped { default_type \"\"; return 200 x; }",
    );
    let check = |path: &str, status: u16, kind: Option<&str>, text: &str| {
        let response = server.get(path).expect(status);
        assert_eq!(response.text(), text, "{path}");
        assert_eq!(response.header("Content-Type"), kind, "{path}");
        assert_eq!(response.header("Content-Length"), Some(&*text.len().to_string()), "{path}");
        assert_eq!(response.header("Accept-Ranges"), None, "{path}");
    };
    let default = Some("text/x-default");
    check("/plain", 200, default, "hello");
    check("/quoted", 201, default, "two words; GET\n");
    check("/empty", 200, default, "");
    check("/empty-text", 200, default, "");
    check("/a.kind", 200, Some("text/x-kind"), "kind");
    check("/error", 404, default, "own");
    check("/odd", 299, default, "odd");
    check("/untyped", 200, None, "x");
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let server = serving("return 200 hello;");
    let mut client = server.connect();
    let response = client.request("HEAD", "/", &[("Host", "a")], b"").expect(200);
    assert_eq!(response.header("Content-Length"), Some("5"));
    // The next answer begins right behind the head.
    assert_eq!(client.get("/").expect(200).text(), "hello");
}

#[test]
fn statuses_without_content_have_no_content() {
    let server = serving("location /204 { return 204; } location /304 { return 304; }");
    let mut client = server.connect();
    for (path, status) in [("/204", 204), ("/304", 304)] {
        let response = client.get(path).expect(status);
        assert_eq!(response.header("Content-Length"), None, "{path}");
        assert_eq!(response.body, b"", "{path}");
    }
    assert_eq!(client.get("/204").expect(204).header("Content-Type"), None);
}

#[test]
fn redirects_name_a_place() {
    let server = serving(
        "location /301 { return 301 /new?a=b; }
         location /302 { return 302 /new$is_args$args; }
         location /303 { return 303 http://other.test/$arg_x; }
         location /307 { return 307 https://other.test; }
         location /308 { return 308 relative; }
         location /only { return http://only.test/; }
         location /scheme { return $scheme://scheme.test$request_uri; }",
    );
    let here = format!("http://localhost:{}", server.port(0));
    let check = |path: &str, status: u16, place: &str| {
        let response = server.get(path).expect(status);
        assert_eq!(response.header("Location"), Some(place), "{path}");
        assert_eq!(response.header("Content-Type"), Some("text/html"), "{path}");
        assert!(response.text().contains(&format!("<h1>{status} ")), "{}", response.text());
    };
    check("/301", 301, &format!("{here}/new?a=b"));
    check("/302?c=d", 302, &format!("{here}/new?c=d"));
    check("/303?x=%20y", 303, "http://other.test/%20y");
    check("/307", 307, "https://other.test");
    check("/308", 308, "relative");
    check("/only", 302, "http://only.test/");
    check("/scheme?q", 302, "http://scheme.test/scheme?q");
}

#[test]
fn a_line_break_does_not_get_into_a_redirect() {
    let server = serving("location / { return 301 http://other.test$uri; }");
    let response = server.get("/a%0d%0aX-Evil:%20yes").expect(400);
    assert_eq!(response.header("X-Evil"), None);
    server.wait_for_log("line break in \"Location\"");
}

#[test]
fn status_444_closes_without_a_word() {
    let server = serving(
        "location / { return 200 ok; } location /close { return 444; }
         location /say { return 444 said; }",
    );
    let mut client = server.connect();
    assert_eq!(client.get("/").expect(200).text(), "ok");
    client.send("GET /close HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed();
    server.wait_for_access("\"GET /close HTTP/1.1\" 444 0");
    assert_eq!(server.get("/say").expect(444).text(), "said");
}

#[test]
fn errors_without_a_text_have_pages() {
    let server = serving(
        "error_page 403 /page; error_page 410 =200 /page; error_page 503 @named;
         location = /page { return 200 \"page of $request_uri\"; }
         location @named { return 502 named; }
         location /403 { return 403; }
         location /410 { return 410; }
         location /503 { return 503; }
         location /text { return 403 text; }
         location /418 { return 418; }
         location /500 { return 500; }",
    );
    assert_eq!(server.get("/403").expect(403).text(), "page of /403");
    assert_eq!(server.get("/410").expect(200).text(), "page of /410");
    assert_eq!(server.get("/503").expect(503).text(), "named");
    assert_eq!(server.get("/text").expect(403).text(), "text");
    assert_eq!(server.get("/418").expect(418).text(), "");
    let response = server.get("/500").expect(500);
    assert!(response.text().contains("<h1>500 Internal Server Error</h1>"));
    assert_eq!(response.header("Connection"), Some("close"));
}

#[test]
fn a_server_returns_before_a_location_is_looked_for() {
    let server =
        serving("return 200 server; return 200 second; location / { return 200 location; }");
    assert_eq!(server.get("/").expect(200).text(), "server");
}

#[test]
fn a_location_returns_for_itself_only() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html;
             location /a/ { return 200 outer; location /a/b/ { } }",
        )
        .file("html/a/b/file", "file"),
    );
    assert_eq!(server.get("/a/x").expect(200).text(), "outer");
    assert_eq!(server.get("/a/b/file").expect(200).text(), "file");
}

#[test]
fn a_body_that_nobody_wants_is_passed_over() {
    let server = serving("return 200 \"$request_method $uri\";");
    let mut client = server.connect();
    assert_eq!(client.post("/one", "some bytes").expect(200).text(), "POST /one");
    assert_eq!(client.get("/two").expect(200).text(), "GET /two");
}

#[test]
fn small_statuses_have_three_digits() {
    let server = serving("location /0 { return 0 x; } location /99 { return 99 x; }");
    for (path, status) in [("/0", "000"), ("/99", "099")] {
        let answer = server.exchange(format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} \r\n")), "{answer}");
    }
}

#[test]
fn bad_codes_are_refused() {
    let check = |arguments: &str, message: &str| {
        let outcome = Server::check(Config::server(&format!("return {arguments};"))).expect(1);
        assert!(outcome.stderr.contains(message), "{arguments}: {}", outcome.stderr);
    };
    check("1000", "[emerg] invalid return code \"1000\" in ");
    check("/path", "[emerg] invalid return code \"/path\" in ");
    check("200 a b", "[emerg] invalid number of arguments in \"return\" directive in ");
    check("200 $nothing", "[emerg] unknown \"nothing\" variable");
}
