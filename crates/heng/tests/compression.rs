//! Brotli and Zstandard beside gzip: which coding a client gets, and files compressed beforehand.

use std::io::Read;
use testkit::{Config, Response, Server};

fn text() -> String {
    (0..4000u64).map(|at| format!("{} ", at * at * at % 1009)).collect()
}

fn serving(inside: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; {inside}"))
            .file("html/a.html", text())
            .file("html/a.css", text())
            .file("html/short.html", "ten bytes."),
    )
}

fn ask(server: &Server, path: &str, accepted: &str) -> Response {
    let fields = [("Host", "a"), ("Accept-Encoding", accepted)];
    server.connect().request("GET", path, &fields, b"").expect(200)
}

/// The coding of an answer; its body must be the text when it is unpacked.
#[track_caller]
fn coding(response: &Response) -> String {
    let coding = response.header("Content-Encoding").unwrap_or_default().to_owned();
    let mut unpacked = Vec::new();
    match &*coding {
        "br" => {
            let mut reader = brotli::Decompressor::new(&response.body[..], 4096);
            reader.read_to_end(&mut unpacked).unwrap();
        }
        "zstd" => {
            unpacked.reserve(100_000);
            zstd_safe::decompress(&mut unpacked, &response.body).unwrap();
        }
        // gunzip has tests of its own.
        "gzip" => return coding,
        _ => unpacked.clone_from(&response.body),
    }
    assert!(unpacked == text().into_bytes(), "{coding}");
    coding
}

#[test]
fn the_coding_that_weighs_most_is_chosen() {
    let server = serving("zstd on; brotli on; gzip on; gzip_vary on;");
    let check = |accepted: &str, expected: &str| {
        let response = ask(&server, "/a.html", accepted);
        assert_eq!(coding(&response), expected, "{accepted}");
        assert_eq!(response.header("Vary"), Some("Accept-Encoding"), "{accepted}");
        assert_eq!(response.header("Content-Length").is_none(), !expected.is_empty());
    };
    check("gzip, deflate, br, zstd", "zstd");
    check("gzip, deflate, br", "br");
    check("gzip", "gzip");
    check("gzip;q=1.0, br;q=0.5, zstd;q=0.9", "gzip");
    check("gzip;q=0.2, br;q=0.5, zstd;q=0.4", "br");
    check("zstd;q=0, br;q=0, gzip;q=0.001", "gzip");
    check("zstd;q=0, br;q=0", "");
    check("identity, *", "");
    check("", "");
    let server = serving("brotli on;");
    assert_eq!(coding(&ask(&server, "/a.html", "zstd, gzip, br;q=0.1")), "br");
    let server = serving("zstd on;");
    assert_eq!(coding(&ask(&server, "/a.html", "br, gzip, zstd;q=0.1")), "zstd");
}

#[test]
fn types_and_lengths_decide() {
    for (name, coding_name) in [("brotli", "br"), ("zstd", "zstd")] {
        let server = serving(&format!("{name} on; types {{ text/html html; text/css css; }}"));
        assert_eq!(coding(&ask(&server, "/a.html", coding_name)), coding_name);
        assert_eq!(coding(&ask(&server, "/a.css", coding_name)), "");
        assert_eq!(ask(&server, "/short.html", coding_name).header("Content-Encoding"), None);
        let server = serving(&format!(
            "{name} on; {name}_types text/css; {name}_min_length 5; {name}_buffers 4 4k;
             types {{ text/html html; text/css css; }}"
        ));
        assert_eq!(coding(&ask(&server, "/a.css", coding_name)), coding_name);
        let short = ask(&server, "/short.html", coding_name);
        assert_eq!(short.header("Content-Encoding"), Some(coding_name));
    }
}

#[test]
fn levels_make_answers_smaller() {
    let length = |inside: &str, name: &str| {
        let response = ask(&serving(inside), "/a.html", name);
        assert_eq!(coding(&response), name);
        response.body.len()
    };
    let default = length("brotli on;", "br");
    assert!(length("brotli on; brotli_comp_level 1;", "br") > default);
    assert!(length("brotli on; brotli_window 1k; brotli_comp_level 9;", "br") != default);
    let default = length("zstd on;", "zstd");
    assert_ne!(length("zstd on; zstd_comp_level 19;", "zstd"), default);
    for line in ["brotli_comp_level 12;", "zstd_comp_level 0;", "brotli_window 3k;"] {
        let outcome = Server::check(Config::http(line));
        assert!(!outcome.success(), "{line}");
    }
}

#[test]
fn ratios_are_logged() {
    let server = Server::start(
        Config::http(
            "log_format r '$uri b=$brotli_ratio z=$zstd_ratio i=$zstd_bytes_in \
             o=$zstd_bytes_out g=$gzip_ratio';
             access_log %%DIR%%/logs/access.log r; brotli on; zstd on;
             server { listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html; }",
        )
        .file("html/a.html", text()),
    );
    ask(&server, "/a.html", "br");
    let line = server.wait_for_access("/a.html");
    assert!(line.contains(" z=- i=- o=- g=-") && !line.contains("b=-"), "{line}");
    let response = ask(&server, "/a.html", "zstd");
    let expected = format!("i={} o={} g=-", text().len(), response.body.len());
    server.wait_for_access(&expected);
}

#[test]
fn files_compressed_beforehand_are_served() {
    let files = |config: Config| {
        let with = |config: Config, name: &str| config.file(&format!("html/b.html{name}"), name);
        let config = with(with(with(config, ".br"), ".zst"), ".gz");
        config.file("html/b.html", "plain")
    };
    let lines = "brotli_static on; zstd_static on; gzip_static on; gzip_vary on;";
    let server = Server::start(files(Config::server(&format!(
        "root %%DIR%%/html; location / {{ {lines} }}
         location /always/ {{ alias %%DIR%%/html/; brotli_static always; }}
         location /never/ {{ alias %%DIR%%/html/; zstd_static always; zstd off; }}"
    ))));
    let check = |path: &str, accepted: &str, expected: &str, coding: Option<&str>| {
        let response = ask(&server, path, accepted);
        assert_eq!(response.text(), expected, "{path} {accepted}");
        assert_eq!(response.header("Content-Encoding"), coding, "{path} {accepted}");
        assert_eq!(response.header("Content-Type"), Some("text/html"));
        response
    };
    check("/b.html", "gzip, br, zstd", ".zst", Some("zstd"));
    check("/b.html", "gzip, br", ".br", Some("br"));
    check("/b.html", "gzip", ".gz", Some("gzip"));
    check("/b.html", "br;q=0, zstd;q=0", "plain", None);
    let response = check("/b.html", "", "plain", None);
    assert_eq!(response.header("Vary"), Some("Accept-Encoding"));
    check("/always/b.html", "", ".br", Some("br"));
    check("/never/b.html", "", ".zst", Some("zstd"));
}

#[test]
fn a_vary_outlives_an_internal_redirect() {
    // The choice among files was made before the page of the error was looked for.
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; gzip_vary on;
             location / { gzip_static on; error_page 404 /e.html; }
             location /e.html { gzip_static off; }",
        )
        .file("html/x.gz", "packed")
        .file("html/e.html", "error"),
    );
    let fields = [("Host", "a")];
    let response = server.connect().request("GET", "/x", &fields, b"").expect(404);
    assert_eq!(response.text(), "error");
    assert_eq!(response.header("Vary"), Some("Accept-Encoding"));
}
