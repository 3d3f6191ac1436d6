//! Files: where they are looked for, what is said about them, which parts are sent.

use testkit::{Config, Response, Server};

fn files(inside: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; {inside}"))
            .file("html/index.html", "the index")
            .file("html/a.txt", "0123456789")
            .file("html/empty.txt", "")
            .file("html/dir/index.html", "dir index")
            .file("html/dir/second.htm", "second")
            .file("html/bare/x", "x")
            .file("html/with space.html", "space")
            .file("other/b.txt", "other b"),
    )
}

/// Gets `path` with one more field.
fn get_with(server: &Server, path: &str, field: (&str, &str)) -> Response {
    server.connect().request("GET", path, &[("Host", "a"), field], b"")
}

#[test]
fn files_are_served_with_their_facts() {
    let server = files("");
    let response = server.get("/a.txt").expect(200);
    assert_eq!(response.text(), "0123456789");
    assert_eq!(response.header("Content-Length"), Some("10"));
    assert_eq!(response.header("Accept-Ranges"), Some("bytes"));
    assert!(response.header("Last-Modified").is_some_and(|date| date.ends_with(" GMT")));
    assert!(response.header("ETag").is_some_and(|tag| tag.ends_with("-a\"")), "size in hex");
    assert_eq!(server.get("/empty.txt").expect(200).header("Content-Length"), Some("0"));
    assert_eq!(server.get("/with%20space.html").expect(200).text(), "space");
    assert_eq!(server.get("/dir/../a.txt?x").expect(200).text(), "0123456789");
}

#[test]
fn what_is_missing_or_forbidden_is_told_and_logged() {
    let server = files("location /quiet/ { log_not_found off; }");
    assert_eq!(server.get("/none").status, 404);
    let line = server.wait_for_log("/html/none\" failed (2: No such file or directory)");
    assert!(line.contains("[error]") && line.contains("open() \""), "{line}");
    assert_eq!(server.get("/bare/").status, 403);
    server.wait_for_log("directory index of \"");
    assert_eq!(server.get("/a.txt/").status, 404);
    server.get("/quiet/none").expect(404);
    assert!(!server.error_log().contains("/quiet/none"), "{}", server.error_log());
}

#[test]
fn methods_that_change_things_are_not_allowed() {
    let server = files("");
    for method in ["POST", "PUT", "DELETE"] {
        let fields = [("Host", "a"), ("Content-Length", "0")];
        let response = server.connect().request(method, "/a.txt", &fields, b"");
        assert_eq!(response.status, 405, "{method}");
    }
}

#[test]
fn index_names_are_tried_in_order() {
    let server = files(
        "location / { }
         location /dir/ { index none.html second.htm index.html; }
         location /bare/ { index /a.txt; }",
    );
    assert_eq!(server.get("/").text(), "the index");
    assert_eq!(server.get("/dir/").text(), "second");
    assert_eq!(server.get("/bare/").text(), "0123456789");
}

#[test]
fn directories_without_a_slash_are_redirected() {
    let server = files("");
    let response = server.get("/dir?x=1").expect(301);
    let expected = format!("http://localhost:{}/dir/?x=1", server.port(0));
    assert_eq!(response.header("Location"), Some(expected.as_str()));
}

#[test]
fn root_and_alias_map_paths() {
    let server = files(
        "location /deep/ { root %%DIR%%/other; }
         location /b.txt { root %%DIR%%/other; }
         location /alias/ { alias %%DIR%%/other/; }
         location /bare-alias { alias %%DIR%%/other; }
         location ~ ^/regex/(.+)$ { alias %%DIR%%/other/$1; }
         location = /exact { alias %%DIR%%/html/a.txt; }
         location /user/ { root %%DIR%%/$arg_dir; }",
    );
    assert_eq!(server.get("/b.txt").expect(200).text(), "other b");
    assert_eq!(server.get("/alias/b.txt").expect(200).text(), "other b");
    assert_eq!(server.get("/regex/b.txt").expect(200).text(), "other b");
    assert_eq!(server.get("/exact").expect(200).text(), "0123456789");
    assert_eq!(server.get("/deep/b.txt").status, 404);
    assert_eq!(server.get("/user/none?dir=html").status, 404);
}

#[test]
fn an_alias_is_not_left_by_dots() {
    // The location has no slash at its end but its alias has: `/i../` must not climb.
    let server = files("location /i { alias %%DIR%%/html/dir/; }");
    for path in ["/i../a.txt", "/i/../a.txt/..%2f..%2fnginx.conf", "/i..%2fa.txt"] {
        let response = server.get(path);
        assert_ne!(response.text(), "0123456789", "{path}");
    }
}

#[test]
fn types_and_default_type_name_the_content() {
    let server = files(
        "default_type application/x-default;
         location / { types { text/x-plain txt; text/x-page html HTM; } }
         location /other { alias %%DIR%%/html/; default_type text/x-own; types { } }",
    );
    let kind = |path: &str| {
        let response = server.get(path).expect(200);
        response.header("Content-Type").unwrap_or_default().to_string()
    };
    assert_eq!(kind("/a.txt"), "text/x-plain");
    assert_eq!(kind("/index.html"), "text/x-page");
    assert_eq!(kind("/dir/second.htm"), "text/x-page");
    assert_eq!(kind("/bare/x"), "application/x-default");
    assert_eq!(kind("/other/a.txt"), "text/x-own");
}

#[test]
fn conditions_are_honoured() {
    let server = files("");
    let first = server.get("/a.txt").expect(200);
    let tag = first.header("ETag").unwrap_or_default().to_string();
    let date = first.header("Last-Modified").unwrap_or_default().to_string();
    let check = |field: (&str, &str), status: u16| {
        let response = get_with(&server, "/a.txt", field);
        assert_eq!(response.status, status, "{field:?}");
        if status == 304 {
            assert_eq!(response.header("ETag"), Some(tag.as_str()));
            assert_eq!(response.header("Content-Length"), None);
        }
    };
    check(("If-None-Match", &tag), 304);
    check(("If-None-Match", &format!("W/{tag}")), 304);
    check(("If-None-Match", &format!("\"x\", {tag}")), 304);
    check(("If-None-Match", "*"), 304);
    check(("If-None-Match", "\"x\""), 200);
    check(("If-Match", &tag), 200);
    check(("If-Match", "\"x\""), 412);
    check(("If-Match", "*"), 200);
    check(("If-Modified-Since", &date), 304);
    check(("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"), 200);
    check(("If-Unmodified-Since", &date), 200);
    check(("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"), 412);
}

#[test]
fn if_modified_since_and_etag_can_be_changed() {
    let server = files(
        "location /before { alias %%DIR%%/html/; if_modified_since before; }
         location /off { alias %%DIR%%/html/; if_modified_since off; }
         location /untagged { alias %%DIR%%/html/; etag off; }",
    );
    let later = ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT");
    assert_eq!(get_with(&server, "/before/a.txt", later).status, 304);
    assert_eq!(get_with(&server, "/a.txt", later).status, 200);
    let date = server.get("/a.txt").header("Last-Modified").unwrap_or_default().to_string();
    let exact = ("If-Modified-Since", date.as_str());
    assert_eq!(get_with(&server, "/a.txt", exact).status, 304);
    assert_eq!(get_with(&server, "/off/a.txt", exact).status, 200);
    assert_eq!(server.get("/untagged/a.txt").header("ETag"), None);
}

#[test]
fn ranges_select_parts() {
    let server = files("");
    let check = |range: &str, status: u16, content_range: Option<&str>, text: &str| {
        let response = get_with(&server, "/a.txt", ("Range", range));
        assert_eq!(response.status, status, "{range}");
        assert_eq!(response.header("Content-Range"), content_range, "{range}");
        if status < 400 {
            assert_eq!(response.text(), text, "{range}");
        }
    };
    check("bytes=0-3", 206, Some("bytes 0-3/10"), "0123");
    check("bytes=7-", 206, Some("bytes 7-9/10"), "789");
    check("bytes=-2", 206, Some("bytes 8-9/10"), "89");
    check("bytes=5-500", 206, Some("bytes 5-9/10"), "56789");
    check("bytes=-500", 206, Some("bytes 0-9/10"), "0123456789");
    check("bytes=10-", 416, Some("bytes */10"), "");
    check("bytes=x", 416, Some("bytes */10"), "");
    check("lines=0-3", 200, None, "0123456789");
}

#[test]
fn several_ranges_come_in_parts() {
    let server = files("types { text/x-plain txt; }");
    let response = get_with(&server, "/a.txt", ("Range", "bytes=0-1, 4-5"));
    assert_eq!(response.status, 206);
    let kind = response.header("Content-Type").unwrap_or_default();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_default();
    assert!(!boundary.is_empty(), "{kind}");
    let part = |range: &str, text: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/x-plain\r\nContent-Range: bytes {range}/10\
             \r\n\r\n{text}"
        )
    };
    let expected = part("0-1", "01") + &part("4-5", "45") + &format!("\r\n--{boundary}--\r\n");
    assert_eq!(response.text(), expected);
}

#[test]
fn if_range_guards_a_range() {
    let server = files("");
    let tag = server.get("/a.txt").header("ETag").unwrap_or_default().to_string();
    let status = |condition: &str| {
        let fields = [("Host", "a"), ("Range", "bytes=0-3"), ("If-Range", condition)];
        server.connect().request("GET", "/a.txt", &fields, b"").status
    };
    assert_eq!(status(&tag), 206);
    assert_eq!(status("\"x\""), 200);
    assert_eq!(status("Thu, 01 Jan 1970 00:00:00 GMT"), 200);
}

#[test]
fn max_ranges_limits_parts() {
    let server = files(
        "location /none { alias %%DIR%%/html/; max_ranges 0; }
         location /one { alias %%DIR%%/html/; max_ranges 1; }",
    );
    let two = ("Range", "bytes=0-1,4-5");
    assert_eq!(get_with(&server, "/a.txt", two).status, 206);
    assert_eq!(get_with(&server, "/one/a.txt", two).status, 200);
    assert_eq!(get_with(&server, "/one/a.txt", ("Range", "bytes=0-1")).status, 206);
    assert_eq!(get_with(&server, "/none/a.txt", ("Range", "bytes=0-1")).status, 200);
}

#[test]
fn large_files_arrive_whole() {
    let block: Vec<u8> = (0..=255u8).collect();
    let large = block.repeat(16 << 10);
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html;
             location /on/ { alias %%DIR%%/html/; sendfile on; sendfile_max_chunk 64k; }
             location /off/ { alias %%DIR%%/html/; sendfile off; output_buffers 2 8k; }",
        )
        .file("html/large", &large),
    );
    let mut client = server.connect();
    for path in ["/on/large", "/off/large"] {
        assert!(client.get(path).expect(200).body == large, "{path} differs");
    }
}

#[test]
fn add_header_adds_to_good_answers_or_all() {
    let server = files(
        "add_header X-Good $uri; add_header X-All a always; add_header X-Empty $arg_none;
         location /own/ { alias %%DIR%%/html/; add_header X-Own 1; }
         location /404 { return 404; }",
    );
    let response = server.get("/a.txt").expect(200);
    assert_eq!(response.header("X-Good"), Some("/a.txt"));
    assert_eq!(response.header("X-All"), Some("a"));
    assert_eq!(response.header("X-Empty"), None);
    let response = server.get("/404").expect(404);
    assert_eq!((response.header("X-Good"), response.header("X-All")), (None, Some("a")));
    // A level with its own list has that list alone.
    let response = server.get("/own/a.txt").expect(200);
    assert_eq!((response.header("X-Own"), response.header("X-All")), (Some("1"), None));
}

#[test]
fn expires_dates_answers() {
    let server = files(
        "location /hour/ { alias %%DIR%%/html/; expires 1h; }
         location /never/ { alias %%DIR%%/html/; expires -1; }
         location /epoch/ { alias %%DIR%%/html/; expires epoch; }",
    );
    let cache = |path: &str| {
        let response = server.get(path).expect(200);
        assert!(response.header("Expires").is_some(), "{path}");
        response.header("Cache-Control").unwrap_or_default().to_string()
    };
    assert_eq!(cache("/hour/a.txt"), "max-age=3600");
    assert_eq!(cache("/never/a.txt"), "no-cache");
    assert_eq!(cache("/epoch/a.txt"), "no-cache");
}

#[test]
fn add_header_inherit_merges_or_forgets() {
    let server = files(
        "add_header X-A outer;
         location /merge/ { alias %%DIR%%/html/; add_header X-B own; add_header_inherit merge; }
         location /off/ { alias %%DIR%%/html/; add_header_inherit off; }",
    );
    let seen = |path: &str| {
        let response = server.get(path).expect(200);
        (response.header("X-A").is_some(), response.header("X-B").is_some())
    };
    assert_eq!(seen("/a.txt"), (true, false));
    assert_eq!(seen("/merge/a.txt"), (true, true));
    assert_eq!(seen("/off/a.txt"), (false, false));
}

#[test]
fn add_trailer_follows_chunked_bodies() {
    let backend = testkit::Backend::with(|_| testkit::Answer::text("abc").chunked());
    let server = Server::start(
        Config::server(
            "proxy_http_version 1.1; add_trailer X-Sum $upstream_status always;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /merge { add_trailer X-Own own; add_trailer_inherit merge;
                               proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /own { add_trailer X-Own own; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let trailers = |path: &str| {
        let response = server.get(path).expect(200);
        let names: Vec<String> = response.trailers.into_iter().map(|(name, _)| name).collect();
        names.join(",")
    };
    assert_eq!(trailers("/"), "X-Sum");
    assert_eq!(trailers("/own"), "X-Own");
    let merged = trailers("/merge");
    assert!(merged.contains("X-Sum") && merged.contains("X-Own"), "{merged}");
}
