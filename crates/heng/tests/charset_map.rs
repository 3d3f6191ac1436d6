//! Answers recoded from one charset to another.

use testkit::{Answer, Backend, Config, Server};

const MAPS: &str = "charset_map koi8-r utf-8 { C1 D0B0; C2 D0B1; 80 E282AC; }
                    charset_map one two { 61 62; e0 f0; }";

fn server(lines: &str) -> Config {
    Config::http(&format!(
        "{MAPS} server {{ listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html; {lines} }}"
    ))
}

#[test]
fn bodies_are_recoded_both_ways() {
    let server = Server::start(
        server(
            "location /to/ { charset utf-8; source_charset koi8-r; alias %%DIR%%/html/; }
             location /from/ { charset koi8-r; source_charset utf-8; alias %%DIR%%/html/; }
             location /bytes/ { charset two; source_charset one; alias %%DIR%%/html/; }
             location /back/ { charset one; source_charset two; alias %%DIR%%/html/; }
             location /variable/ { charset $arg_c; source_charset koi8-r; alias %%DIR%%/html/; }",
        )
        .file("html/koi.html", b"a\xc1\xc2\x80\xff")
        .file("html/utf.html", "aаб€ж".as_bytes())
        .file("html/one.html", b"abc\xe0\xf0")
        .file("html/long.html", b"\xc1".repeat(100_000)),
    );
    let check = |path: &str, kind: &str, expected: &[u8]| {
        let answer = server.get(path).expect(200);
        assert_eq!(answer.header("Content-Type"), Some(kind), "{path}");
        assert_eq!(answer.body, expected, "{path}");
    };
    check("/to/koi.html", "text/html; charset=utf-8", "aаб€?".as_bytes());
    check("/from/utf.html", "text/html; charset=koi8-r", b"a\xc1\xc2\x80&#1078;");
    check("/bytes/one.html", "text/html; charset=two", b"bbc\xf0?");
    check("/back/one.html", "text/html; charset=one", b"aac?\xe0");
    check("/to/long.html", "text/html; charset=utf-8", "а".repeat(100_000).as_bytes());
    check("/variable/koi.html?c=utf-8", "text/html; charset=utf-8", "aаб€?".as_bytes());
    assert_eq!(server.get("/to/koi.html").header("Content-Length"), None);
    assert_eq!(server.get("/bytes/one.html").header("Content-Length"), Some("5"));
}

#[test]
fn parts_of_recoded_files_are_served() {
    let server =
        Server::start(server("charset two; source_charset one;").file("html/a.html", "abcabcabc"));
    let ask = |ranges: &str| {
        let fields = [("Host", "a"), ("Range", ranges)];
        server.connect().request("GET", "/a.html", &fields, b"").expect(206).text()
    };
    assert_eq!(ask("bytes=2-4"), "cbb");
    let text = ask("bytes=0-0,5-6");
    assert!(
        text.contains("0-0/9\r\n\r\nb\r\n--") && text.contains("5-6/9\r\n\r\ncb\r\n--"),
        "{text}"
    );
    assert!(text.contains("Content-Type: text/html; charset=two\r\n"), "{text}");
}

#[test]
fn backends_choose_charsets() {
    let backend = Backend::with(|request| {
        let answer =
            Answer::text(&b"a\xc1"[..]).header("Content-Type", "text/html; charset=koi8-r");
        match request.target.as_str() {
            "/told" => answer.header("X-Accel-Charset", "utf-8"),
            "/packed" => answer.header("X-Accel-Charset", "utf-8").header("Content-Encoding", "x"),
            "/unknown" => answer.header("X-Accel-Charset", "none"),
            _ => answer,
        }
    });
    let server = Server::start(
        server(
            "location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /override { charset utf-8; override_charset on;
                                  proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /ignored { proxy_ignore_headers X-Accel-Charset;
                                 proxy_pass http://127.0.0.1:%%BACKEND%%/told; }",
        )
        .with("BACKEND", backend.port()),
    );
    let check = |path: &str, charset: &str, expected: &[u8]| {
        let answer = server.get(path).expect(200);
        let kind = format!("text/html; charset={charset}");
        assert_eq!(answer.header("Content-Type"), Some(kind.as_str()), "{path}");
        assert_eq!(answer.body, expected, "{path}");
    };
    check("/", "koi8-r", b"a\xc1");
    check("/told", "utf-8", "aа".as_bytes());
    check("/override", "utf-8", "aа".as_bytes());
    check("/ignored", "koi8-r", b"a\xc1");
    check("/packed", "koi8-r", b"a\xc1");
    check("/unknown", "koi8-r", b"a\xc1");
    server.wait_for_log("unknown charset \"none\" to override");
}

#[test]
fn what_is_included_has_the_charset_of_the_whole() {
    let server = Server::start(
        server(
            "charset utf-8; ssi on;
             location /koi/ { charset koi8-r; source_charset koi8-r; }",
        )
        .file("html/a.html", "а<!--#include virtual='/koi/b.html' -->")
        .file("html/koi/b.html", b"\xc2"),
    );
    assert_eq!(server.get("/a.html").text(), "аб");
    assert_eq!(server.get("/koi/b.html").body, b"\xc2");
}

#[test]
fn mistakes_in_tables_are_found() {
    let check = |lines: &str, words: &str| {
        let outcome = Server::check(Config::http(lines)).expect(1);
        assert!(outcome.stderr.contains(words), "{lines}: {}", outcome.stderr);
    };
    check("charset_map a A {}", "\"charset_map\" between the same charsets \"a\" and \"A\" in");
    check(
        "charset_map UTF-8 a {}",
        "\"charset_map\" with \"utf-8\" charset should be given in the second column in",
    );
    check(
        "charset_map a b {} charset_map b a {}",
        "duplicate \"charset_map\" between \"b\" and \"a\"",
    );
    check("charset_map a b { 1; }", "invalid parameters number in");
    check("charset_map a b { x 1; }", "invalid value \"x\" in");
    check("charset_map a b { 1 100; }", "invalid value \"100\" in");
    check("charset_map a utf-8 { 80 F09F9880; }", "invalid value \"F09F9880\" in");
    check("charset_map a utf-8 { 80 FF; }", "invalid value \"FF\" in");
}
