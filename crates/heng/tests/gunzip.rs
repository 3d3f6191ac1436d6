//! Answers that are compressed already: unpacked for those who do not accept them, and files that
//! were compressed beforehand.

use testkit::{Answer, Backend, Config, Gate, Server};
use zlib_rs::{Deflate, DeflateFlush, Status};

const TEXT: &str = "some text that is longer than twenty bytes and has some text twice";

fn pack(text: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(6, true, 15 + 16);
    let mut out = vec![0; text.len() + 100];
    let status = deflate.compress(text, &mut out, DeflateFlush::Finish);
    assert_eq!(status, Ok(Status::StreamEnd));
    out.truncate(deflate.total_out() as usize);
    out
}

fn packed_answer(body: Vec<u8>) -> Answer {
    Answer::text(body).header("Content-Type", "text/html").header("Content-Encoding", "gzip")
}

/// A server that unpacks what the backend sends.
fn unpacking(backend: &Backend, lines: &str) -> Server {
    Server::start(
        Config::server(&format!(
            "{lines} location / {{ proxy_pass http://127.0.0.1:%%BACKEND%%; }}
             location /off/ {{ gunzip off; proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
        ))
        .with("BACKEND", backend.port()),
    )
}

const ACCEPTING: &[(&str, &str)] = &[("Host", "localhost"), ("Accept-Encoding", "gzip")];

#[test]
fn answers_are_unpacked_for_those_who_do_not_accept_them() {
    let backend = Backend::with(|_| packed_answer(pack(TEXT.as_bytes())).header("ETag", "\"a\""));
    let server = unpacking(&backend, "gunzip on; gzip_vary on; gzip_disable bad;");
    let plain = server.get("/").expect(200);
    assert_eq!(plain.text(), TEXT);
    assert_eq!(plain.header("ETag"), Some("W/\"a\""));
    assert_eq!(plain.header("Vary"), Some("Accept-Encoding"));
    for name in ["Content-Encoding", "Content-Length"] {
        assert_eq!(plain.header(name), None, "{name}");
    }
    let mut client = server.connect();
    let packed = client.request("GET", "/", ACCEPTING, b"").expect(200);
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert_eq!(packed.header("Vary"), Some("Accept-Encoding"));
    assert!(packed.body == pack(TEXT.as_bytes()));
    let fields = [ACCEPTING, &[("User-Agent", "bad")]].concat();
    assert_eq!(client.request("GET", "/", &fields, b"").expect(200).text(), TEXT);
    let passed = client.get("/off/").expect(200);
    assert_eq!(passed.header("Content-Encoding"), Some("gzip"));
    assert_eq!(passed.header("Vary"), None);
}

#[test]
fn blocks_members_and_damage() {
    let long = "0123456789".repeat(300_000);
    let backend = Backend::with({
        let long = long.clone();
        move |request| {
            let packed = pack(long.as_bytes());
            packed_answer(match request.target.as_str() {
                "/two" => [pack(b"one "), pack(b"two")].concat(),
                "/short" => packed[..packed.len() / 2].to_vec(),
                "/damaged" => b"this is no compressed text".to_vec(),
                "/empty" => pack(b""),
                _ => packed,
            })
        }
    });
    let server = unpacking(&backend, "gunzip on; gunzip_buffers 2 1k;");
    let mut client = server.connect();
    let response = client.get("/long").expect(200);
    assert!(response.text() == long, "{} bytes", response.body.len());
    let head = response.head().len();
    assert!(response.raw[head..].starts_with(b"400\r\n"), "{:?}", &response.raw[head..][..8]);
    assert_eq!(client.get("/two").expect(200).text(), "one two");
    assert_eq!(client.get("/empty").expect(200).text(), "");
    // A broken answer ends without its last chunk.
    for (path, message) in
        [("/short", "the compressed answer ends too early"), ("/damaged", "inflate() failed")]
    {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!client.read_to_end().ends_with(b"\r\n0\r\n\r\n"), "{path}");
        server.wait_for_log(message);
    }
}

#[test]
fn what_is_there_does_not_wait() {
    let mut deflate = Deflate::new(6, true, 15 + 16);
    let mut body = vec![0; 1000];
    let status = deflate.compress(b"first", &mut body, DeflateFlush::SyncFlush);
    assert!(status.is_ok());
    let first = deflate.total_out() as usize;
    let status = deflate.compress(b" second", &mut body[first..], DeflateFlush::Finish);
    assert_eq!(status, Ok(Status::StreamEnd));
    body.truncate(deflate.total_out() as usize);
    let gate = Gate::new();
    let backend = Backend::with({
        let gate = gate.clone();
        move |_| packed_answer(body.clone()).pause_at(first, &gate)
    });
    let server = unpacking(&backend, "gunzip on; proxy_buffering off;");
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_head().header("Content-Encoding"), None);
    assert_eq!(client.read_exactly(10), b"5\r\nfirst\r\n");
    gate.open();
    assert_eq!(client.read_exactly(17), b"7\r\n second\r\n0\r\n\r\n");
}

#[test]
fn files_that_were_compressed_beforehand() {
    let packed = pack(TEXT.as_bytes());
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; types { text/css css; } gzip_static on;
             location /vary/ { alias %%DIR%%/html/; gzip_vary on; }
             location /always/ { alias %%DIR%%/html/; gzip_static always; }
             location /unpacked/ { alias %%DIR%%/html/; gzip_static always; gunzip on; }
             location /off/ { alias %%DIR%%/html/; gzip_static off; }",
        )
        .file("html/a.css", "plain")
        .file("html/a.css.gz", &packed)
        .file("html/b.css", "plain")
        .file("html/c.css.gz", &packed),
    );
    let mut client = server.connect();
    let mut check = |path: &str, accepts: bool, expected: &str, varies: bool| {
        let fields = if accepts { ACCEPTING } else { &ACCEPTING[..1] };
        let response = client.request("GET", path, fields, b"");
        let found = match response.header("Content-Encoding") {
            Some("gzip") if response.body == packed => "packed".to_string(),
            None if response.status == 200 => response.text(),
            _ => response.status.to_string(),
        };
        assert_eq!(found, expected, "{path} {accepts}");
        assert_eq!(response.header("Vary").is_some(), varies, "{path} {accepts}");
        if response.status == 200 {
            assert_eq!(response.header("Content-Type"), Some("text/css"));
        }
    };
    check("/a.css", true, "packed", false);
    check("/a.css", false, "plain", false);
    check("/b.css", true, "plain", false);
    check("/c.css", true, "packed", false);
    check("/c.css", false, "404", false);
    check("/vary/a.css", true, "packed", true);
    check("/vary/a.css", false, "plain", true);
    check("/vary/b.css", false, "plain", false);
    check("/always/a.css", false, "packed", false);
    check("/unpacked/a.css", false, TEXT, false);
    check("/unpacked/a.css", true, "packed", false);
    check("/off/a.css", true, "plain", false);
    let length = packed.len().to_string();
    let head = client.request("HEAD", "/a.css", ACCEPTING, b"").expect(200);
    assert_eq!(head.header("Content-Length"), Some(length.as_str()));
    let fields = [ACCEPTING, &[("Range", "bytes=0-1")]].concat();
    assert_eq!(client.request("GET", "/a.css", &fields, b"").expect(206).body, packed[..2]);
}
