//! Large answers asked for in parts.

use testkit::{Answer, Backend, Config, Request, Server};

/// A backend that serves parts of `text`.
fn parts(text: &'static str) -> Backend {
    Backend::with(move |request| {
        let path = request.target.as_str();
        let Some((begin, end)) = range(request) else { return Answer::text(text) };
        if begin >= text.len() {
            return Answer::status(416);
        }
        let end = end.min(text.len() - 1);
        let all = match path {
            "/unknown" => "*".to_owned(),
            _ => text.len().to_string(),
        };
        let place = match path {
            "/wrong" => format!("bytes 1-{end}/{all}"),
            _ => format!("bytes {begin}-{end}/{all}"),
        };
        let tag = match path {
            "/changing" => format!("\"{begin}\""),
            _ => "\"same\"".to_owned(),
        };
        let status = if path == "/late" && begin > 0 { 200 } else { 206 };
        Answer::text(&text[begin..=end])
            .with_status(status, "Partial Content")
            .header("Content-Range", &place)
            .header("ETag", &tag)
    })
}

fn range(request: &Request) -> Option<(usize, usize)> {
    let (begin, end) = request.header("Range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((begin.parse().ok()?, end.parse().ok()?))
}

fn server(backend: &Backend) -> Server {
    Server::start(
        Config::server(
            "slice 4; proxy_set_header Range $slice_range;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /sub { sub_filter 34 -; sub_filter_types *;
                             proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /off { slice 0; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /unused { proxy_set_header Range bytes=0-3;
                                proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    )
}

/// Asks for a range; the answer, and the ranges that the backend was asked for.
#[track_caller]
fn ask(backend: &Backend, server: &Server, ranges: &str, status: u16) -> (String, Vec<String>) {
    let before = backend.request_count();
    let mut fields = vec![("Host", "a")];
    if !ranges.is_empty() {
        fields.push(("Range", ranges));
    }
    let answer = server.connect().request("GET", "/a", &fields, b"").expect(status);
    let asked = backend.requests().split_off(before);
    let asked = asked.iter().map(|r| r.header("Range").unwrap_or("-").replace("bytes=", ""));
    (answer.text(), asked.collect())
}

#[test]
fn parts_make_a_whole() {
    let backend = parts("0123456789");
    let server = server(&backend);
    let all = ["0-3", "4-7", "8-11"].map(String::from).to_vec();
    assert_eq!(ask(&backend, &server, "", 200), ("0123456789".into(), all.clone()));
    // Only what is wanted is asked for.
    assert_eq!(ask(&backend, &server, "bytes=5-6", 206), ("56".into(), vec!["4-7".into()]));
    assert_eq!(ask(&backend, &server, "bytes=3-8", 206), ("345678".into(), all.clone()));
    assert_eq!(ask(&backend, &server, "bytes=9-", 206), ("9".into(), vec!["8-11".into()]));
    assert_eq!(ask(&backend, &server, "bytes=-3", 206).0, "789");
    assert_eq!(ask(&backend, &server, "bytes=0-1,4-5", 200).0, "0123456789");
    ask(&backend, &server, "bytes=20-", 416);
    let answer = server.get("/a");
    assert_eq!(answer.header("Content-Length"), Some("10"));
    assert_eq!(answer.header("Content-Range"), None);
    assert_eq!(answer.header("ETag"), Some("\"same\""));
    // What spans two parts is found.
    assert_eq!(server.get("/sub").expect(200).text(), "012-56789");
    assert_eq!(server.get("/off").expect(200).text(), "0123456789");
    assert_eq!(server.get("/unused").expect(206).text(), "0123");
}

#[test]
fn parts_that_do_not_fit_end_the_answer() {
    let backend = parts("0123456789");
    let server = server(&backend);
    server.get("/unknown").expect(502);
    server.wait_for_log("no complete length in slice response");
    server.get("/wrong").expect(502);
    server.wait_for_log("unexpected range in slice response: 1-4");
    for (path, message) in [
        ("/changing", "etag mismatch in slice response"),
        ("/late", "unexpected status code 200 in slice response"),
    ] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let text = String::from_utf8(client.read_to_end()).expect("a text");
        assert!(text.contains("Content-Length: 10\r\n") && text.ends_with("0123"), "{text}");
        server.wait_for_log(message);
    }
}
