//! Compressed answers: who gets them, what becomes of their heads, and that their bodies are
//! what they were.

use testkit::{Answer, Backend, Client, Config, Gate, Response, Server};
use zlib_rs::{Inflate, InflateFlush, Status};

const TEXT: &str = "some text that is longer than twenty bytes and has some text twice";

/// Asks for `path` with further fields; Accept-Encoding is gzip.
fn ask(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut all = vec![("Host", "localhost"), ("Accept-Encoding", "gzip")];
    all.extend_from_slice(fields);
    client.request("GET", path, &all, b"")
}

/// What a compressed body, or as much of it as there is, was before; panics when it is none.
#[track_caller]
fn unpack(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut inflate = Inflate::new(true, 15 + 16);
    let mut out = vec![0; 4 << 20];
    let status = inflate.decompress(bytes, &mut out, InflateFlush::SyncFlush).expect("gzip");
    out.truncate(inflate.total_out() as usize);
    (out, status == Status::StreamEnd)
}

#[track_caller]
fn expect_packed(response: &Response, text: &[u8]) {
    assert_eq!(response.header("Content-Encoding"), Some("gzip"), "{}", response.head());
    let (found, ended) = unpack(&response.body);
    assert!(ended, "the compressed body does not end");
    assert!(found == text, "{} bytes in place of {}", found.len(), text.len());
}

/// A path, the fields of the request, and whether the answer is packed.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

/// For each path and further fields whether the answer is compressed.
#[track_caller]
fn check(server: &Server, rows: &[Row<'_>]) {
    let mut client = server.connect();
    for (path, fields, packed) in rows {
        let response = ask(&mut client, path, fields);
        let coding = response.header("Content-Encoding");
        assert_eq!(coding == Some("gzip"), *packed, "{path} {fields:?}\n{}", response.head());
    }
}

/// Bytes that compress, but not to nothing.
fn prose(length: usize) -> Vec<u8> {
    let mut state = 7u32;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{:x} ", state >> 20)
    });
    let mut text: Vec<u8> = words.take(length / 3).flat_map(String::into_bytes).collect();
    text.truncate(length);
    text
}

#[test]
fn files_are_compressed_for_those_who_accept_it() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; default_type text/html; gzip on; location /off/ {
                            gzip off; alias %%DIR%%/html/; }
                        location /if { if ($arg_z) { gzip off; } return 200 '%%TEXT%%'; }",
        )
        .with("TEXT", TEXT)
        .file("html/page", TEXT),
    );
    let plain = server.get("/page").expect(200);
    assert_eq!((plain.text().as_str(), plain.header("Content-Encoding")), (TEXT, None));
    let tag = plain.header("ETag").expect("a tag");
    let mut client = server.connect();
    let packed = ask(&mut client, "/page", &[]).expect(200);
    expect_packed(&packed, TEXT.as_bytes());
    assert_eq!(packed.header("ETag"), Some(format!("W/{tag}").as_str()));
    assert_eq!(packed.header("Transfer-Encoding"), Some("chunked"));
    for name in ["Content-Length", "Accept-Ranges", "Vary"] {
        assert_eq!(packed.header(name), None, "{name}");
    }
    let whole = ask(&mut client, "/page", &[("Range", "bytes=0-3")]).expect(200);
    expect_packed(&whole, TEXT.as_bytes());
    let fields = [("Host", "localhost"), ("Accept-Encoding", "gzip")];
    let head = client.request("HEAD", "/page", &fields, b"").expect(200);
    assert_eq!(head.header("Content-Encoding"), Some("gzip"));
    let weak = format!("W/{tag}");
    let unchanged = ask(&mut client, "/page", &[("If-None-Match", &weak)]).expect(304);
    assert_eq!(unchanged.header("Content-Encoding"), None);
    check(
        &server,
        &[
            ("/off/page", &[], false),
            ("/if", &[], true),
            ("/if?z=1", &[], false),
            // Other statuses pass as they are.
            ("/none", &[], true),
            ("/page/", &[], true),
        ],
    );
}

#[test]
fn bodies_of_every_size_survive() {
    let sizes = [20, 8191, 8192, 100_000, 1_500_000];
    let mut config = Config::server(
        "root %%DIR%%/html; default_type text/html; gzip on; output_buffers 1 5k;
         location /small/ { alias %%DIR%%/html/; gzip_buffers 4 512; }",
    )
    .file("html/zeros", vec![0; 3_000_000]);
    for size in sizes {
        config = config.file(&format!("html/{size}"), prose(size));
    }
    let server = Server::start(config);
    let mut client = server.connect();
    for size in sizes {
        for path in [format!("/{size}"), format!("/small/{size}")] {
            expect_packed(&ask(&mut client, &path, &[]).expect(200), &prose(size));
        }
    }
    expect_packed(&ask(&mut client, "/zeros", &[]).expect(200), &vec![0; 3_000_000]);
}

#[test]
fn blocks_have_the_size_that_is_set() {
    let server = Server::start(
        Config::server("root %%DIR%%/html; default_type text/html; gzip on; gzip_buffers 4 1k;")
            .file("html/page", prose(50_000)),
    );
    let response = ask(&mut server.connect(), "/page", &[]).expect(200);
    let head = response.head().len();
    assert!(response.raw[head..].starts_with(b"400\r\n"), "{:?}", &response.raw[head..][..8]);
}

#[test]
fn types_and_lengths() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; types { text/html html; text/css css; text/plain txt; }
             gzip on; gzip_types text/css; gzip_min_length 30;
             location /any/ { alias %%DIR%%/html/; gzip_types *; gzip_min_length 0; }",
        )
        .file("html/a.html", "x".repeat(30))
        .file("html/a.css", "x".repeat(30))
        .file("html/a.txt", "x".repeat(30))
        .file("html/b.css", "x".repeat(29)),
    );
    check(
        &server,
        &[
            ("/a.html", &[], true),
            ("/a.css", &[], true),
            ("/a.txt", &[], false),
            ("/b.css", &[], false),
            ("/any/a.txt", &[], true),
            ("/any/b.css", &[], true),
        ],
    );
}

#[test]
fn more_effort_makes_less() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; default_type text/html; gzip on;
             location /best/ { alias %%DIR%%/html/; gzip_comp_level 9; }",
        )
        .file("html/page", prose(200_000)),
    );
    let mut client = server.connect();
    let fast = ask(&mut client, "/page", &[]).expect(200).body;
    let best = ask(&mut client, "/best/page", &[]).expect(200).body;
    assert!(best.len() < fast.len(), "{} and {}", best.len(), fast.len());
    for level in ["0", "10"] {
        let config = Config::server(&format!("gzip_comp_level {level};"));
        assert!(Server::check(config).expect(1).stderr.contains("must be"), "{level}");
    }
}

#[test]
fn versions() {
    let server = Server::start(
        Config::server(
            "default_type text/html; gzip on; location / { return 200 '%%TEXT%%'; }
             location /old { gzip_http_version 1.0; return 200 '%%TEXT%%'; }",
        )
        .with("TEXT", TEXT),
    );
    let old = |path: &str| {
        let request = format!("GET {path} HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        let mut client = server.connect();
        client.send(request);
        client.read_response().expect(200)
    };
    assert_eq!(old("/").text(), TEXT);
    let packed = old("/old");
    expect_packed(&packed, TEXT.as_bytes());
    // Without chunks the end of the connection is the end of the body.
    assert_eq!(packed.header("Connection"), Some("close"));
}

#[test]
fn caches_are_told() {
    let server = Server::start(
        Config::server(
            "default_type text/html; gzip on; gzip_vary on;
             location / { return 200 '%%TEXT%%'; }
             location /short { return 200 -; }
             location /off { gzip off; return 200 '%%TEXT%%'; }",
        )
        .with("TEXT", TEXT),
    );
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "/", &[]).header("Vary"), Some("Accept-Encoding"));
    assert_eq!(client.get("/").header("Vary"), Some("Accept-Encoding"));
    assert_eq!(client.get("/short").header("Vary"), None);
    assert_eq!(client.get("/off").header("Vary"), None);
}

#[test]
fn clients_that_cannot_unpack() {
    let server = Server::start(
        Config::server(
            "default_type text/html; gzip on; gzip_disable msie6 'old ?browser'; gzip_disable x$;
             location / { return 200 '%%TEXT%%'; }
             location /others { gzip_disable y; return 200 '%%TEXT%%'; }",
        )
        .with("TEXT", TEXT),
    );
    check(
        &server,
        &[
            ("/", &[], true),
            ("/", &[("User-Agent", "Some Browser")], true),
            ("/", &[("User-Agent", "An OldBrowser/1")], false),
            ("/", &[("User-Agent", "box")], false),
            ("/", &[("User-Agent", "Mozilla/4.0 (compatible; MSIE 6.0; Windows)")], false),
            ("/", &[("User-Agent", "Mozilla/4.0 (compatible; MSIE 6.0; SV1)")], true),
            ("/others", &[("User-Agent", "box")], true),
            ("/others", &[("User-Agent", "Y")], false),
        ],
    );
    let outcome = Server::check(Config::server("gzip_disable '(';")).expect(1);
    assert!(outcome.stderr.contains("pcre2_compile() failed"), "{}", outcome.stderr);
}

#[test]
fn answers_for_proxies() {
    let backend = Backend::with(|request| {
        let answer = Answer::text(TEXT).header("Content-Type", "text/html");
        match request.target.split_once('?') {
            Some((_, field)) => {
                let (name, value) = field.split_once('=').expect("a field");
                answer.header(name, &value.replace('_', " "))
            }
            None => answer,
        }
    });
    let mut text = String::from("gzip on; location /default/ { proxy_pass http://back; }");
    let words = ["off", "expired", "no-cache", "no-store", "private", "no_last_modified"];
    for word in words.into_iter().chain(["no_etag", "auth", "any"]) {
        text.push_str(&format!(
            "location /{word}/ {{ gzip_proxied {word}; proxy_pass http://back; }}"
        ));
    }
    text.push_str("location /two/ { gzip_proxied expired private; proxy_pass http://back; }");
    let server = Server::start(Config::http(&format!(
        "upstream back {{ server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; {text} }}",
        backend.port()
    )));
    let via: &[(&str, &str)] = &[("Via", "1.1 proxy")];
    let past = "Expires=Thu,_01_Jan_1970_00:00:01_GMT";
    let later = "Expires=Thu,_01_Jan_2099_00:00:01_GMT";
    let changed = "Last-Modified=Thu,_01_Jan_1970_00:00:01_GMT";
    let mut client = server.connect();
    let mut check = |place: &str, field: &str, fields: &[(&str, &str)], expected: bool| {
        let response = ask(&mut client, &format!("/{place}/?{field}"), fields).expect(200);
        let packed = response.header("Content-Encoding").is_some();
        assert_eq!(packed, expected, "{place} {field} {fields:?}");
    };
    let plain = "X-A=b";
    check("default", plain, &[], true);
    check("default", plain, via, false);
    check("off", plain, &[], true);
    check("off", plain, via, false);
    check("any", later, via, true);
    for (field, word) in [
        (past, "expired"),
        ("Cache-Control=no-cache", "no-cache"),
        ("Cache-Control=max-age=0,_no-store", "no-store"),
        ("Cache-Control=private", "private"),
    ] {
        check(word, field, via, true);
        check(word, later, via, false);
        check(word, "Cache-Control=max-age=1", via, false);
        check("no_etag", field, via, false);
    }
    check("no_last_modified", plain, via, true);
    check("no_last_modified", changed, via, false);
    check("no_etag", plain, via, true);
    check("no_etag", "ETag=\"a\"", via, false);
    check("auth", later, via, false);
    check("auth", later, &[("Via", "1.1 a"), ("Authorization", "Basic YTph")], true);
    check("two", past, via, true);
    check("two", "Cache-Control=private", via, true);
    check("two", "Cache-Control=no-store", via, false);
}

#[test]
fn what_is_compressed_already_passes() {
    let backend = Backend::with(|_| {
        Answer::text(TEXT).header("Content-Type", "text/html").header("Content-Encoding", "br")
    });
    let server = Server::start(
        Config::server("gzip on; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let response = ask(&mut server.connect(), "/", &[]).expect(200);
    assert_eq!(response.headers_named("Content-Encoding"), ["br"]);
    assert_eq!(response.text(), TEXT);
}

#[test]
fn what_must_not_wait_is_flushed() {
    let gate = Gate::new();
    let backend = Backend::with({
        let gate = gate.clone();
        move |_| Answer::text(TEXT).header("Content-Type", "text/html").pause_at(10, &gate)
    });
    let server = Server::start(
        Config::server(
            "gzip on; proxy_buffering off; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(client.read_head().header("Content-Encoding"), Some("gzip"));
    let mut received = Vec::new();
    // A flush may come in several chunks, and ends in the mark of an empty block.
    while !received.ends_with(b"\0\0\xff\xff\r\n") {
        received.extend(client.try_read_some().expect("the first part"));
    }
    gate.open();
    let mut packed = chunks(&received);
    assert_eq!(unpack(&packed), (TEXT.as_bytes()[..10].to_vec(), false));
    received.clear();
    while !received.ends_with(b"\r\n0\r\n\r\n") {
        received.extend(client.try_read_some().expect("the rest"));
    }
    packed.extend(chunks(&received));
    assert_eq!(unpack(&packed), (TEXT.as_bytes().to_vec(), true));
}

/// The data of whole chunks.
fn chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(at) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        data.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + size + 4..];
    }
    data
}

#[test]
fn the_ratio_is_logged() {
    let server = Server::start(
        Config::http(
            "log_format r '$uri $gzip_ratio'; access_log %%DIR%%/ratio.log r; gzip on;
             default_type text/html;
             server { listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html; }",
        )
        .file("html/page", "x".repeat(10_000))
        .file("html/plain", "x".repeat(10_000)),
    );
    let mut client = server.connect();
    let packed = ask(&mut client, "/page", &[]).expect(200).body.len();
    client.get("/plain").expect(200);
    let hundredths = (10_000_000 / packed + 5) / 10;
    let expected = format!("/page {}.{:02}", hundredths / 100, hundredths % 100);
    server.wait_for_line("ratio.log", &expected);
    server.wait_for_line("ratio.log", "/plain -");
}
