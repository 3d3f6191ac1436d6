//! Copies of requests, whose answers nobody sees.

use testkit::{Answer, Backend, Config, Gate, Server};

/// A server with a page, and a location `/copy` that hands on what it gets to `twin`.
fn server(inside: &str, twin: &Backend) -> Server {
    Server::start(
        Config::server(&format!(
            "root %%DIR%%/html; {inside}
             location /copy {{ internal; proxy_set_header X-Original $request_uri;
                               proxy_pass http://127.0.0.1:%%TWIN%%; }}"
        ))
        .with("TWIN", twin.port())
        .file("html/index.html", "page"),
    )
}

fn targets(twin: &Backend) -> Vec<String> {
    let mut targets: Vec<String> = twin.requests().into_iter().map(|r| r.target).collect();
    targets.sort();
    targets
}

#[test]
fn each_request_is_sent_to_each_place() {
    let twin = Backend::with(|_| Answer::status(500));
    let server = server(
        "location / { mirror /copy; }
         location /several { mirror /copy/1; mirror /copy/2; return 204; }
         location /off { mirror off; alias %%DIR%%/html/index.html; }
         location /within { mirror /copy/within; alias %%DIR%%/html/index.html;
                            location /within/off { mirror off;
                                                   alias %%DIR%%/html/index.html; } }",
        &twin,
    );
    assert_eq!(server.get("/index.html?a=b").expect(200).text(), "page");
    twin.wait_requests(1);
    let copy = twin.last_request();
    assert_eq!((copy.method.as_str(), copy.target.as_str()), ("GET", "/copy?a=b"));
    assert_eq!(copy.header("X-Original"), Some("/index.html?a=b"));

    server.get("/missing").expect(404);
    twin.wait_requests(2);
    server.get("/within").expect(200);
    twin.wait_requests(3);
    assert_eq!(targets(&twin), ["/copy", "/copy/within", "/copy?a=b"]);
    // An internal redirect passes by twice.
    server.get("/").expect(200);
    twin.wait_requests(5);
    // These have no copies, so the next ones to come are the last one's.
    server.get("/off").expect(200);
    server.get("/within/off").expect(200);
    server.connect().request("DELETE", "/index.html", &[("Host", "a")], b"").expect(405);
    twin.wait_requests(6);
    assert_eq!(twin.last_request().method, "DELETE");
}

#[test]
fn rewriting_answers_before_copies_are_made() {
    let twin = Backend::named("twin");
    let server = server(
        "location /answered { mirror /copy/1; mirror /copy/2; return 204; }
         location / { mirror /copy/1; mirror /copy/2; }",
        &twin,
    );
    server.get("/answered").expect(204);
    server.get("/index.html").expect(200);
    twin.wait_requests(2);
    assert_eq!(targets(&twin), ["/copy/1", "/copy/2"]);
}

#[test]
fn copies_have_the_body_of_the_request() {
    let twin = Backend::named("twin");
    let backend = Backend::with(Answer::echo);
    let server = Server::start(
        Config::server(
            "client_body_buffer_size 1k; client_max_body_size 1m;
             location / { mirror /copy; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /bare { mirror /copy; mirror_request_body off;
                              proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /copy { proxy_pass http://127.0.0.1:%%TWIN%%; }",
        )
        .with("TWIN", twin.port())
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    // In memory, in a file, and in chunks.
    for (number, length) in [3, 200_000].into_iter().enumerate() {
        let body = vec![b'x'; length];
        client.post("/", &body).expect(200);
        assert_eq!(backend.last_request().body, body);
        twin.wait_requests(number + 1);
        let copy = twin.last_request();
        assert_eq!((copy.method.as_str(), copy.body.len()), ("POST", length));
    }
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nparts\r\n0\r\n\r\n");
    client.read_response().expect(200);
    twin.wait_requests(3);
    assert_eq!(
        (twin.last_request().method.as_str(), twin.last_request().body_text()),
        ("PUT", "parts".to_string())
    );

    client.post("/bare", "body").expect(200);
    twin.wait_requests(4);
    let copy = twin.last_request();
    assert_eq!((copy.method.as_str(), copy.body.len()), ("POST", 0));
    assert_eq!(copy.header("Content-Length"), None);
    assert_eq!(backend.last_request().body, b"body");
    // A body that is too large is refused as ever, and not copied.
    client.post("/", vec![b'x'; (1 << 20) + 1]).expect(413);
    assert_eq!(twin.request_count(), 4);
}

#[test]
fn nobody_waits_for_a_copy() {
    let gate = Gate::new();
    let held = gate.clone();
    let twin = Backend::with(move |_| Answer::text("late").after_gate(&held));
    let server = server("location / { mirror /copy; }", &twin);
    // Neither the next request on the connection, nor the end of it.
    let mut client = server.connect();
    client.get("/index.html").expect(200);
    client.get("/index.html").expect(200);
    let fields = [("Host", "a"), ("Connection", "close")];
    client.request("GET", "/index.html", &fields, b"").expect(200);
    client.expect_closed();
    twin.wait_requests(3);
    assert_eq!(twin.open_connections(), 3);
    gate.open();
    twin.wait_open_connections(0);
}

#[test]
fn a_copy_goes_on_when_the_client_is_gone_and_when_the_server_stops() {
    let gate = Gate::new();
    let held = gate.clone();
    let twin = Backend::script(move |conversation| {
        if conversation.read_request().is_ok() {
            conversation.wait(&held);
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            conversation.read_to_end();
        }
    });
    let mut server = server(
        "location / { mirror /copy; }
         location /copy/told { log_subrequest on; proxy_pass http://127.0.0.1:%%TWIN%%; }
         location /told { mirror /copy/told; alias %%DIR%%/html/index.html; }",
        &twin,
    );
    let mut client = server.connect();
    client.get("/told").expect(200);
    twin.wait_requests(1);
    drop(client);
    server.signal(testkit::Signal::QUIT);
    gate.open();
    assert_eq!(server.wait_exit().code, Some(0));
    assert!(server.access_log().ends_with("\"GET /told HTTP/1.1\" 200 0 \"-\" \"-\"\n"));
    assert_eq!(server.access_log().lines().count(), 2);
}

#[test]
fn faults_in_the_configuration() {
    let refused = |inside: &str, message: &str| {
        let outcome = Server::check(Config::server(inside));
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert_eq!(outcome.code, Some(1));
    };
    refused("mirror off; mirror off;", "[emerg] \"mirror\" directive is duplicate in ");
    refused("mirror off; mirror /a;", "[emerg] \"mirror\" directive is duplicate in ");
    refused("mirror /a; mirror off;", "[emerg] \"mirror\" directive is duplicate in ");
    refused("mirror;", "invalid number of arguments in \"mirror\" directive in ");
}
