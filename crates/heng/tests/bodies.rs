//! Request bodies: limits, buffers, files, `Expect`, and filters that change answers.

use testkit::{Answer, Backend, Config, Gate, Server};

fn proxy(directives: &str, backend: &Backend) -> Server {
    Server::start(
        Config::server(&format!(
            "{directives} location / {{ proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
        ))
        .with("BACKEND", backend.port()),
    )
}

#[test]
fn client_max_body_size_refuses_larger_bodies() {
    let backend = Backend::named("backend");
    let server = proxy("client_max_body_size 1k;", &backend);
    server.connect().post("/", vec![b'x'; 1024]).expect(200);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    assert!(client.read_response().expect(413).text().contains("Request Entity Too Large"));
    server.wait_for_log("client intended to send too large body: 1025 bytes");
    // Chunks are counted as they come.
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n");
    client.send(vec![b'x'; 1024]);
    client.send("\r\n1\r\nx\r\n0\r\n\r\n");
    client.read_response().expect(413);
    server.wait_for_log("client intended to send too large chunked body");
    assert_eq!(backend.request_count(), 1);

    let server = proxy("client_max_body_size 0;", &backend);
    server.connect().post("/", vec![b'x'; 3 << 20]).expect(200);
    assert_eq!(backend.last_request().body.len(), 3 << 20);
}

#[test]
fn the_default_limit_is_one_megabyte() {
    let backend = Backend::named("backend");
    let server = proxy("", &backend);
    server.connect().post("/", vec![b'x'; 1 << 20]).expect(200);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n");
    client.read_response().expect(413);
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let backend = Backend::named("backend");
    let server = proxy("client_max_body_size 1k;", &backend);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    client.read_response().expect(100);
    client.send("abc");
    client.read_response().expect(200);
    assert_eq!(backend.last_request().body, b"abc");
    assert_eq!(backend.last_request().header("Expect"), None);
    // Whoever is refused is not asked for the body.
    let mut client = server.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n");
    client.read_response().expect(413);
}

#[test]
fn bodies_larger_than_their_buffer_go_to_files() {
    let backend = Backend::with(|request| {
        let file = request.header("X-File").unwrap_or("none").to_string();
        Answer::text(format!("{} {file}", request.body.len()))
    });
    let server = Server::start(
        Config::server(
            "client_body_buffer_size 8k; client_body_temp_path %%DIR%%/spool 1 2;
             location / { proxy_set_header X-File $request_body_file;
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /kept { client_body_in_file_only on;
                              proxy_set_header X-File $request_body_file;
                              proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /clean { client_body_in_file_only clean;
                               proxy_set_header X-File $request_body_file;
                               proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    assert_eq!(client.post("/", vec![b'x'; 1000]).text(), "1000 none");
    // More than this buffer, less than the one that is there by default.
    let text = client.post("/", vec![b'x'; 12_000]).text();
    let spool = format!("12000 {}/spool/", server.path("").display()).replace("//", "/");
    assert!(text.starts_with(&spool), "{text} against {spool}");
    let kept = client.post("/kept", "abc").text();
    let path = kept.strip_prefix("3 ").unwrap_or_default();
    assert_eq!(std::fs::read(path).unwrap_or_default(), b"abc", "{kept}");
    let clean = client.post("/clean", "abc").text();
    let path = clean.strip_prefix("3 ").unwrap_or_default().to_string();
    assert!(path.contains("/spool/"), "{clean}");
    server.wait_until("the file is removed", || !std::path::Path::new(&path).exists());
}

#[test]
fn request_body_is_a_variable_when_it_is_in_memory() {
    let backend = Backend::with(|request| {
        Answer::text(request.header("X-Body").unwrap_or("none").to_string())
    });
    let server = Server::start(
        Config::server(
            "client_body_in_single_buffer on;
             location / { proxy_set_header X-Body $request_body;
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    assert_eq!(client.post("/", "a=1&b=2").text(), "a=1&b=2");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    client.wait_until_read();
    client.send("def");
    assert_eq!(client.read_response().text(), "abcdef");
}

#[test]
fn sub_filter_replaces_text_wherever_it_is_cut() {
    let gates = [Gate::new(), Gate::new()];
    let held = gates.clone();
    let backend = Backend::with(move |_| {
        let body = "one needle, two nee";
        Answer::text(format!("{body}dle, no nee dle, needle"))
            .header("Content-Type", "text/html")
            .chunked()
            .pause_at(7, &held[0])
            .pause_at(body.len(), &held[1])
    });
    let server = proxy(
        "proxy_http_version 1.1; proxy_buffering off;
         sub_filter needle 'pin'; sub_filter_once off;",
        &backend,
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for (number, gate) in gates.iter().enumerate() {
        gate.wait_arrived(number.min(1));
        gate.open();
    }
    let response = client.read_response().expect(200);
    assert_eq!(response.text(), "one pin, two pin, no nee dle, pin");
    assert_eq!(response.header("Content-Length"), None);
}

#[test]
fn sub_filter_minds_types_case_and_count() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; types { text/html html; text/plain txt; }
             location / { sub_filter A [$arg_x]; }
             location /types/ { alias %%DIR%%/html/; sub_filter a b; sub_filter_types text/plain; }
             location /all/ { alias %%DIR%%/html/; sub_filter a b; sub_filter c '';
                              sub_filter_once off; sub_filter_last_modified on; }",
        )
        .file("html/x.html", "abcabc")
        .file("html/x.txt", "abcabc"),
    );
    let text = |path: &str| server.get(path).expect(200).text();
    assert_eq!(text("/x.html?x=1"), "[1]bcabc");
    assert_eq!(text("/x.txt"), "abcabc");
    assert_eq!(text("/types/x.txt"), "bbcabc");
    assert_eq!(text("/all/x.html"), "bbbb");
    assert_eq!(server.get("/x.html").header("Last-Modified"), None);
    assert!(server.get("/all/x.html").header("Last-Modified").is_some());
}

#[test]
fn sub_filter_survives_a_slow_client() {
    let size = 8 << 20;
    let backend = Backend::with(move |_| {
        Answer::text("0123456789abcdef".repeat(size / 16)).header("Content-Type", "text/html")
    });
    let server = proxy("sub_filter 9a 'XX'; sub_filter_once off;", &backend);
    let mut client = server.connect();
    client.stream().shrink_receive_buffer(8 << 10).unwrap();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_requests(1);
    client.stream().shrink_receive_buffer(4 << 20).unwrap();
    let response = client.read_response().expect(200);
    assert_eq!(response.body.len(), size);
    assert!(response.text() == "012345678XXbcdef".repeat(size / 16));
}

#[test]
fn auth_request_lets_pass_or_denies() {
    let auth = Backend::with(|request| match request.header("X-Key") {
        Some("good") => Answer::status(204).header("X-User", "eva"),
        Some("none") => Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Some("broken") => Answer::status(500),
        _ => Answer::status(403),
    });
    let backend = Backend::with(|request| {
        let user = request.header("X-User").unwrap_or("nobody");
        Answer::text(format!("{user}:{}", request.body_text()))
    });
    let server = Server::start(
        Config::server(
            "location / {
                 auth_request /auth; auth_request_set $user $upstream_http_x_user;
                 proxy_set_header X-User $user; proxy_pass http://127.0.0.1:%%BACKEND%%;
             }
             location = /auth {
                 internal; proxy_pass_request_body off; proxy_set_header Content-Length \"\";
                 proxy_pass http://127.0.0.1:%%AUTH%%;
             }
             location /open { auth_request off; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port())
        .with("AUTH", auth.port()),
    );
    let ask = |path: &str, key: &str| {
        let fields = [("Host", "a"), ("X-Key", key), ("Content-Length", "4")];
        server.connect().request("POST", path, &fields, b"body")
    };
    assert_eq!(ask("/", "good").expect(200).text(), "eva:body");
    ask("/", "bad").expect(403);
    let denied = ask("/", "none").expect(401);
    assert_eq!(denied.header("WWW-Authenticate"), Some("Basic realm=\"x\""));
    ask("/", "broken").expect(500);
    assert_eq!(ask("/open", "bad").expect(200).text(), "nobody:body");
    ask("/auth", "good").expect(404);
    assert_eq!(backend.request_count(), 2);
    assert!(auth.requests().iter().all(|request| request.body.is_empty()));
}

#[test]
fn an_answer_may_start_before_the_upload_ends() {
    let backend = Backend::with_heads(|_| Answer::text("early").then_close());
    let server = proxy(
        "proxy_http_version 1.1; proxy_request_buffering off; client_max_body_size 0;",
        &backend,
    );
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nstart");
    assert_eq!(client.read_response().expect(200).text(), "early");
}
