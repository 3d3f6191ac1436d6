//! Parts of larger answers, and what error pages and added fields do to refusals.

use testkit::{Config, Response, Server};

/// 300,000 bytes, no block like another.
fn content() -> Vec<u8> {
    let lines = (0..30_000u32).map(|n| format!("{n:09}\n"));
    lines.collect::<String>().into_bytes()
}

fn serving(inside: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; {inside}")).file("html/large", content()),
    )
}

fn ask(server: &Server, method: &str, path: &str, range: &str) -> Response {
    server.connect().request(method, path, &[("Host", "a"), ("Range", range)], b"")
}

#[test]
fn a_part_of_a_large_file_is_exact() {
    let server = serving(
        "location /kernel/ { alias %%DIR%%/html/; sendfile on; }
         location /blocks/ { alias %%DIR%%/html/; sendfile off; output_buffers 1 4k; }",
    );
    let content = content();
    for path in ["/kernel/large", "/blocks/large"] {
        for (from, to) in [(0, 0), (4095, 4096), (1, 299_998), (200_000, 299_999)] {
            let response = ask(&server, "GET", path, &format!("bytes={from}-{to}"));
            assert_eq!(response.status, 206, "{path} {from}-{to}");
            assert!(response.body == content[from..=to], "{path} {from}-{to} differs");
            let length = (to - from + 1).to_string();
            assert_eq!(response.header("Content-Length"), Some(length.as_str()));
        }
    }
}

#[test]
fn parts_of_a_large_file_are_exact() {
    let server = serving(
        "types { } default_type text/x-own;
         location /kernel/ { alias %%DIR%%/html/; sendfile on; }
         location /blocks/ { alias %%DIR%%/html/; sendfile off; output_buffers 1 4k; }",
    );
    let content = content();
    for path in ["/kernel/large", "/blocks/large"] {
        let mut client = server.connect();
        let fields = [("Host", "a"), ("Range", "bytes=-10, 100-100099, 5-5")];
        let response = client.request("GET", path, &fields, b"").expect(206);
        let kind = response.header("Content-Type").unwrap_or_default();
        let boundary = kind.rsplit("boundary=").next().unwrap_or_default();
        let mut expected = Vec::new();
        for (from, to) in [(299_990, 299_999), (100, 100_099), (5, 5)] {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: text/x-own\r\n\
                 Content-Range: bytes {from}-{to}/300000\r\n\r\n"
            );
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&content[from..=to]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(response.body == expected, "{path} differs");
        assert_eq!(response.header("Content-Range"), None);
        // Its length was right: the connection goes on.
        assert_eq!(client.get(path).expect(200).body.len(), content.len());
    }
}

#[test]
fn a_head_request_tells_of_a_part() {
    let server = serving("");
    let response = ask(&server, "HEAD", "/large", "bytes=10-19");
    assert_eq!(response.status, 206);
    assert_eq!(response.header("Content-Length"), Some("10"));
    assert_eq!(response.header("Content-Range"), Some("bytes 10-19/300000"));
}

#[test]
fn answers_without_parts_do_not_offer_them() {
    let server = serving(
        "location /returned { return 200 text; }
         location /none/ { alias %%DIR%%/html/; max_ranges 0; }",
    );
    assert_eq!(server.get("/large").expect(200).header("Accept-Ranges"), Some("bytes"));
    assert_eq!(server.get("/none/large").expect(200).header("Accept-Ranges"), None);
    let response = ask(&server, "GET", "/returned", "bytes=0-1");
    assert_eq!((response.status, response.text().as_str()), (200, "text"));
    assert_eq!(ask(&server, "GET", "/missing", "bytes=0-1").status, 404);
}

#[test]
fn refusals_have_error_pages_and_fields() {
    let server = serving(
        "add_header X-Good 1; add_header X-All 1 always;
         error_page 416 /sorry; error_page 412 =418 /sorry;
         location = /sorry { return 200 sorry; add_header X-All 2 always; }
         location /plain/ { alias %%DIR%%/html/; error_page 404 /sorry; }",
    );
    let response = ask(&server, "GET", "/large", "bytes=300000-").expect(416);
    assert_eq!(response.text(), "sorry");
    assert_eq!(response.headers_named("X-All"), ["2"]);
    let response = ask(&server, "GET", "/plain/large", "bytes=300000-").expect(416);
    assert_eq!(response.header("Content-Range"), Some("bytes */300000"));
    assert_eq!((response.header("X-Good"), response.header("ETag")), (None, None));
    assert_eq!(response.headers_named("X-All"), ["1"]);
    let fields = [("Host", "a"), ("If-Match", "\"other\"")];
    let mut client = server.connect();
    let response = client.request("GET", "/large", &fields, b"").expect(418);
    assert_eq!(response.text(), "sorry");
    let response = client.request("GET", "/plain/large", &fields, b"").expect(412);
    assert_eq!((response.header("Last-Modified"), response.header("ETag")), (None, None));
    assert_eq!(client.get("/large").expect(200).body.len(), 300_000);
}
