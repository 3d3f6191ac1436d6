//! Requests that pass only when another request says so.

use testkit::{Answer, Backend, Config, Gate, Server};

/// Answers with the status that `X-Status` asks for, 204 without.
fn judge() -> Backend {
    Backend::with(|request| {
        let status = request.header("X-Status").and_then(|text| text.parse().ok());
        Answer::status(status.unwrap_or(204))
            .header("WWW-Authenticate", "Basic realm=\"judge\"")
            .header("X-User", "eva")
    })
}

fn ask(server: &Server, path: &str, fields: &[(&str, &str)]) -> testkit::Response {
    let mut all = vec![("Host", "localhost")];
    all.extend_from_slice(fields);
    server.connect().request("GET", path, &all, b"")
}

#[test]
fn the_status_of_the_answer_decides() {
    let judge = judge();
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html;
             location / { auth_request /auth; }
             location /off/ { auth_request off; alias %%DIR%%/html/; }
             location = /auth { internal; proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port())
        .file("html/x", "content"),
    );
    for (status, expected) in [
        ("200", 200),
        ("201", 200),
        ("204", 200),
        ("299", 200),
        ("401", 401),
        ("403", 403),
        ("302", 500),
        ("404", 500),
        ("503", 500),
    ] {
        let answer = ask(&server, "/x", &[("X-Status", status)]).expect(expected);
        let challenge = answer.header("WWW-Authenticate");
        assert_eq!(challenge, (status == "401").then_some("Basic realm=\"judge\""), "{status}");
        assert_eq!(answer.text() == "content", expected == 200, "{status}");
    }
    for status in ["302", "404", "503"] {
        let line = server.wait_for_log(&format!(
            "auth request unexpected status: {status} while sending to client, client: 127.0.0.1"
        ));
        assert!(line.contains("[error]"), "{line}");
    }
    ask(&server, "/off/x", &[("X-Status", "403")]).expect(200);
    ask(&server, "/auth", &[]).expect(404);
    assert_eq!(judge.request_count(), 9);
}

#[test]
fn the_location_asked_may_answer_by_itself() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; error_page 403 /denied; error_page 404 =204 /missing;
             location /x { auth_request /yes; }
             location /no { auth_request /never; }
             location /page { auth_request /lost; }
             location /close { auth_request /quit; }
             location /yes { return 200 'a body that nobody sees'; }
             location /never { return 403; }
             location /quit { return 444; }
             location /denied { return 200 'page for $request_uri'; }
             location /missing { return 200; }",
        )
        .file("html/x", "content")
        .file("html/page", "content"),
    );
    assert_eq!(server.get("/x").expect(200).text(), "content");
    // Errors of the location asked have their pages there, so this one is a 403 all the same.
    assert_eq!(server.get("/no").expect(403).text(), "page for /no");
    server.get("/page").expect(200);
    let mut client = server.connect();
    client.send("GET /close HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed();
}

#[test]
fn variables_are_set_from_the_answer() {
    let judge = judge();
    let backend = Backend::with(|request| {
        Answer::text(request.header("X-User").unwrap_or("nobody").to_string())
    });
    let server = Server::start(
        Config::server(
            "auth_request /auth; auth_request_set $user $upstream_http_x_user;
             location / { proxy_set_header X-User $user;
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /several {
                 auth_request_set $status_of_judge $upstream_status;
                 auth_request_set $text '$status_of_judge at $uri';
                 proxy_set_header X-User '$text,$user'; add_header X-Text $text always;
                 proxy_pass http://127.0.0.1:%%BACKEND%%;
             }
             location = /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }
             location /open { auth_request off; proxy_set_header X-User 'x$user';
                              proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port())
        .with("JUDGE", judge.port()),
    );
    assert_eq!(server.get("/").expect(200).text(), "eva");
    assert_eq!(server.get("/several").expect(200).text(), "204 at /auth,");
    assert_eq!(server.get("/open").expect(200).text(), "x");
    // They are set when the request is denied, too.
    let answer = ask(&server, "/several", &[("X-Status", "403")]).expect(403);
    assert_eq!(answer.header("X-Text"), Some("403 at /auth"));
}

#[test]
fn the_request_made_has_the_clients_fields_and_no_body() {
    let judge = judge();
    let backend = Backend::with(|request| Answer::text(request.body_text()));
    let server = Server::start(
        Config::server(
            "location ~ ^/(?<who>[a-z]+)/ {
                 auth_request /auth?none; proxy_pass http://127.0.0.1:%%BACKEND%%;
             }
             location /auth {
                 proxy_set_header X-Seen '$request_method $request_uri $uri $args,$who';
                 proxy_set_header X-Address '$remote_addr:$remote_port';
                 proxy_pass http://127.0.0.1:%%JUDGE%%;
             }",
        )
        .with("BACKEND", backend.port())
        .with("JUDGE", judge.port()),
    );
    let mut client = server.connect();
    let fields = [("Host", "a"), ("X-One", "1"), ("Content-Length", "4")];
    assert_eq!(client.request("POST", "/eva/x?q=1", &fields, b"body").expect(200).text(), "body");
    let asked = judge.last_request();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/auth%3Fnone"));
    assert_eq!(asked.header("X-One"), Some("1"));
    assert_eq!(asked.header("X-Seen"), Some("POST /eva/x?q=1 /auth?none ,eva"));
    assert_eq!(asked.header("X-Address"), Some(client.local_address().to_string().as_str()));
    assert_eq!((asked.header("Content-Length"), asked.header("Transfer-Encoding")), (None, None));
    assert!(asked.body.is_empty());
    // The connection serves the next request, whose body comes in chunks.
    client.send("POST /eva/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nparts\r\n0\r\n\r\n");
    assert_eq!(client.read_response().expect(200).text(), "parts");
    assert!(judge.last_request().body.is_empty());
}

#[test]
fn the_judges_connection_is_used_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let judge = Backend::with(move |request| match request.target.as_str() {
        "/length" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwords"),
        "/chunks" => Answer::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\n\r\n",
        ),
        _ => Answer::text("words that come late").pause_at(5, &held),
    });
    let server = Server::start(
        Config::http(
            "upstream judge { server 127.0.0.1:%%JUDGE%%; keepalive 4; }
             server {
                 listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html; proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 location /a { auth_request /length; }
                 location /b { auth_request /chunks; }
                 location /c { auth_request /late; }
                 location /length { proxy_pass http://judge; }
                 location /chunks { proxy_pass http://judge; }
                 location /late { proxy_pass http://judge; }
             }",
        )
        .with("JUDGE", judge.port())
        .file("html/a", "content")
        .file("html/b", "content")
        .file("html/c", "content"),
    );
    for path in ["/a", "/b", "/a", "/b"] {
        server.get(path).expect(200);
    }
    assert_eq!((judge.request_count(), judge.connections()), (4, 1));
    // A body that is not there yet is not waited for, and read behind the client's back.
    server.get("/c").expect(200);
    assert_eq!((gate.is_open(), judge.connections()), (false, 1));
    gate.open();
    server.wait_until("the connection is used again", || {
        let before = judge.connections();
        server.get("/a").expect(200);
        judge.connections() == before
    });
}

#[test]
fn a_client_need_not_wait_for_the_judges_last_words() {
    let gate = Gate::new();
    let held = gate.clone();
    let judge = Backend::with(move |_| Answer::text("slow words").pause_at(4, &held));
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; location / { auth_request /auth; }
             location /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port())
        .file("html/x", "content"),
    );
    let mut client = server.connect();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_response().expect(200).text(), "content");
    client.expect_closed();
    gate.open();
}

#[test]
fn a_body_is_invited_only_for_requests_that_pass() {
    let judge = judge();
    let backend = Backend::with(|request| Answer::text(request.body_text()));
    let server = Server::start(
        Config::server(
            "location / { auth_request /auth; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("BACKEND", backend.port())
        .with("JUDGE", judge.port()),
    );
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
    let mut client = server.connect();
    client.send(format!("{head}\r\n"));
    client.read_response().expect(100);
    client.send("body");
    assert_eq!(client.read_response().expect(200).text(), "body");
    let mut client = server.connect();
    client.send(format!("{head}X-Status: 403\r\n\r\n"));
    client.read_response().expect(403);
}

#[test]
fn a_client_that_leaves_ends_the_check() {
    let judge = Backend::with(|_| Answer::silence());
    let server = Server::start(
        Config::server(
            "location / { auth_request /auth; }
             location /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    judge.wait_requests(1);
    drop(client);
    judge.wait_open_connections(0);
    server.wait_for_access("\"GET / HTTP/1.1\" 499 0");
}

#[test]
fn a_judge_that_is_gone_is_an_error() {
    let judge = Backend::refusing();
    let server = Server::start(
        Config::server(
            "location / { auth_request /auth; }
             location /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port()),
    );
    server.get("/x").expect(500);
    let line = server.wait_for_log("connect() failed");
    assert!(line.contains(", request: \"GET /x HTTP/1.1\", subrequest: \"/auth\", "), "{line}");
    server.wait_for_log("auth request unexpected status: 502");
}

#[test]
fn an_internal_redirect_is_checked_anew() {
    let judge = judge();
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; auth_request /auth;
             location /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port())
        .file("html/index.html", "content"),
    );
    assert_eq!(server.get("/").expect(200).text(), "content");
    assert_eq!(judge.request_count(), 2);
}

#[test]
fn an_error_page_keeps_the_challenge() {
    let judge = judge();
    let server = Server::start(
        Config::server(
            "location / { auth_request /auth; error_page 401 /login; error_page 403 /login; }
             location /named { auth_request /auth; error_page 401 = @login; }
             location /away { auth_request /auth; error_page 401 http://login.test/; }
             location /login { return 200 'who are you?'; }
             location @login { return 200 named; }
             location = /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port()),
    );
    for (path, status, expected) in [("/", 401, "who are you?"), ("/named", 200, "named")] {
        let answer = ask(&server, path, &[("X-Status", "401")]).expect(status);
        assert_eq!(answer.text(), expected);
        assert_eq!(answer.headers_named("WWW-Authenticate"), ["Basic realm=\"judge\""], "{path}");
    }
    let answer = ask(&server, "/away", &[("X-Status", "401")]).expect(302);
    assert_eq!(answer.header("Location"), Some("http://login.test/"));
    assert!(answer.header("WWW-Authenticate").is_some());
    let answer = ask(&server, "/", &[("X-Status", "403")]).expect(403);
    assert_eq!(answer.header("WWW-Authenticate"), None);
}

#[test]
fn challenges_pass_though_they_are_hidden_or_several() {
    let judge = Backend::with(|_| {
        Answer::status(401)
            .header("WWW-Authenticate", "Basic realm=\"a\"")
            .header("WWW-Authenticate", "Bearer")
    });
    let server = Server::start(
        Config::server(
            "location / { auth_request /auth; }
             location /hidden { auth_request /hides; }
             location /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }
             location /hides { proxy_hide_header WWW-Authenticate;
                               proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port()),
    );
    for path in ["/", "/hidden"] {
        let answer = server.get(path).expect(401);
        assert_eq!(
            answer.headers_named("WWW-Authenticate"),
            ["Basic realm=\"a\"", "Bearer"],
            "{path}"
        );
    }
}

#[test]
fn satisfy_any_needs_one_check_that_passes() {
    let judge = judge();
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; satisfy any; auth_request /auth;
             location = /auth { proxy_pass http://127.0.0.1:%%JUDGE%%; }",
        )
        .with("JUDGE", judge.port())
        .file("html/x", "content"),
    );
    ask(&server, "/x", &[]).expect(200);
    ask(&server, "/x", &[("X-Status", "403")]).expect(403);
    assert!(server.wait_for_log("access forbidden by rule").contains("[error]"));
    let answer = ask(&server, "/x", &[("X-Status", "401")]).expect(401);
    assert!(answer.header("WWW-Authenticate").is_some());
}

#[test]
fn the_request_made_is_logged_on_demand() {
    let server = Server::start(
        Config::http(
            "log_format f '$uri $status $request_uri';
             server {
                 listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html;
                 access_log %%DIR%%/logs/access.log f;
                 location / { auth_request /quiet; }
                 location /loud/ { auth_request /told; alias %%DIR%%/html/; }
                 location /quiet { return 204; }
                 location /told { log_subrequest on; return 204; }
             }",
        )
        .file("html/x", "content"),
    );
    let mut client = server.connect();
    client.get("/x").expect(200);
    client.get("/loud/x").expect(200);
    server.wait_for_access("/loud/x 200");
    assert_eq!(server.access_log(), "/x 200 /x\n/told 204 /loud/x\n/loud/x 200 /loud/x\n");
}

#[test]
fn faults_in_the_configuration() {
    let refused = |inside: &str, message: &str| {
        let outcome = Server::check(Config::server(inside));
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert_eq!(outcome.code, Some(1));
    };
    refused("auth_request_set user x;", "[emerg] invalid variable name \"user\" in ");
    refused("auth_request_set $uri x;", "[emerg] the duplicate \"uri\" variable in ");
    refused("auth_request_set $user $nobody;", "unknown \"nobody\" variable");
    refused("auth_request /a; auth_request off;", "\"auth_request\" directive is duplicate in ");
    refused("auth_request;", "invalid number of arguments in \"auth_request\" directive in ");
}
