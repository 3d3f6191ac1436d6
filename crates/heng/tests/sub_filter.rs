//! Replacing texts in answers, and what that costs while a client is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::{Answer, Backend, Client, Config, Gate, Server, reaches};

/// Asks for `/`, or another path, with the text to search as an argument.
fn check(server: &Server, rows: &[(&str, &str)]) {
    let mut client = server.connect();
    for (path, expected) in rows {
        assert_eq!(client.get(path).expect(200).text(), *expected, "{path}");
    }
}

#[test]
fn texts_are_replaced_in_what_the_configuration_answers() {
    let server = Server::start(Config::server(
        "sub_filter_types *; sub_filter foo bar;
         location / { return 200 $arg_b; }
         location /many { sub_filter_once off; return 200 $arg_b; }
         location /several {
             sub_filter one 1; sub_filter Two 2; sub_filter_once off; return 200 $arg_b;
         }
         location /once { sub_filter one 1; sub_filter two 2; return 200 $arg_b; }
         location /chain { sub_filter a b; sub_filter b c; return 200 $arg_b; }
         location /remove { sub_filter x ''; sub_filter_once off; return 200 $arg_b; }
         location /text { sub_filter X$arg_a ($arg_a); return 200 $arg_b; }
         location /dynamic { sub_filter $arg_a -; sub_filter b c; return 200 $arg_b; }
         location /off { sub_filter $arg_none x; return 200 $arg_b; }",
    ));
    check(
        &server,
        &[
            ("/?b=foofoo", "barfoo"),
            ("/?b=xFOOx", "xbarx"),
            ("/?b=fo", "fo"),
            ("/many?b=foofoofo", "barbarfo"),
            ("/several?b=twoonetwo,onetw", "212,1tw"),
            ("/once?b=twoonetwoone", "21twoone"),
            ("/chain?b=ab", "bc"),
            ("/remove?b=xaxxbx", "ab"),
            ("/text?a=Foo&b=xfoo.", "(Foo)."),
            ("/dynamic?a=ab&b=abab", "-ac"),
            // A text without a letter looks for nothing; so does a level where all are empty.
            ("/dynamic?b=abab", "acab"),
            ("/off?b=foo", "foo"),
        ],
    );
}

#[test]
fn replacements_of_every_size() {
    let long = "l".repeat(3000);
    let run = "r".repeat(40_000);
    let server = Server::start(
        Config::server(&format!(
            "root %%DIR%%/html; sub_filter_once off; default_type text/html;
             sub_filter <long> {long}; sub_filter <short> s; sub_filter <none> '';"
        ))
        .file("html/mixed", format!("<long>{run}<short>x<none>{run}<none><short><long>"))
        .file("html/plain", &run)
        .file("html/full", "<short>".repeat(20_000))
        .file("html/empty", ""),
    );
    check(
        &server,
        &[
            ("/mixed", &format!("{long}{run}sx{run}s{long}")),
            ("/plain", &run),
            ("/full", &"s".repeat(20_000)),
            ("/empty", ""),
        ],
    );
    // Short runs are sent together, not one chunk each.
    let raw = server.get("/full").raw.len();
    assert!(raw < 20_000 + 1_000, "{raw} bytes");
}

#[test]
fn only_answers_of_the_listed_types_are_searched() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; types { text/html html; text/plain txt; TEXT/css css; }
             default_type ''; sub_filter a b;
             location /listed/ { alias %%DIR%%/html/; sub_filter_types Text/Plain;
                                 sub_filter_types text/css; }
             location /any/ { alias %%DIR%%/html/; sub_filter_types text/plain *; }",
        )
        .file("html/x.html", "a")
        .file("html/x.txt", "a")
        .file("html/x.css", "a")
        .file("html/x", "a"),
    );
    check(
        &server,
        &[
            ("/x.html", "b"),
            ("/x.txt", "a"),
            ("/x", "a"),
            ("/listed/x.html", "b"),
            ("/listed/x.txt", "b"),
            ("/listed/x.css", "b"),
            ("/listed/x", "a"),
            ("/any/x.css", "b"),
            ("/any/x", "b"),
        ],
    );
}

#[test]
fn a_charset_is_no_part_of_the_type() {
    let backend = Backend::with(|request| {
        let kind = request.target.strip_prefix("/?").unwrap_or_default();
        Answer::text("a").header("Content-Type", &kind.replace('_', " "))
    });
    let server = Server::start(
        Config::server("sub_filter a b; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    check(
        &server,
        &[("/?text/html;_charset=utf-8", "b"), ("/?Text/HTML", "b"), ("/?text/htmlx", "a")],
    );
    let answer = server.get("/?text/html;_charset=utf-8");
    assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
}

#[test]
fn inner_lines_replace_outer_ones() {
    let server = Server::start(Config::http(
        "default_type text/html; sub_filter a 1; sub_filter b 2;
         server { listen 127.0.0.1:%%PORT_0%%;
             location / { return 200 abc; }
             location /inner { sub_filter c 3; return 200 abc; } }",
    ));
    check(&server, &[("/", "12c"), ("/inner", "ab3")]);
}

#[test]
fn the_head_says_nothing_that_no_longer_holds() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; sub_filter a b;
             location /kept/ { alias %%DIR%%/html/; sub_filter_last_modified on; }",
        )
        .file("html/x.html", "aa")
        .file("html/x.txt", "aa"),
    );
    let absent = |path: &str, names: &[&str]| {
        let answer = server.get(path).expect(200);
        for name in names {
            assert_eq!(answer.header(name), None, "{path} {name}");
        }
        answer
    };
    let answer = absent("/x.html", &["Content-Length", "Accept-Ranges", "Last-Modified", "ETag"]);
    assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
    let answer = absent("/kept/x.html", &["Content-Length", "Accept-Ranges"]);
    assert!(answer.header("Last-Modified").is_some());
    let etag = answer.header("ETag").unwrap_or_default();
    let plain = server.get("/x.txt").expect(200);
    assert_eq!(etag, format!("W/{}", plain.header("ETag").unwrap_or_default()));
    assert_eq!(plain.header("Content-Length"), Some("2"));

    let mut client = server.connect();
    let head = client.request("HEAD", "/x.html", &[("Host", "a")], b"").expect(200);
    assert_eq!(head.header("Content-Length"), None);
    let part = [("Host", "a"), ("Range", "bytes=0-0")];
    assert_eq!(client.request("GET", "/x.html", &part, b"").expect(200).text(), "ba");
    // The copy that a client made of a searched answer is still good.
    let known = [("Host", "a"), ("If-None-Match", etag)];
    client.request("GET", "/kept/x.html", &known, b"").expect(304);
}

#[test]
fn etags_of_backends_become_weak_or_go() {
    let backend = Backend::with(|request| {
        let etag = request.header("X-Tag").unwrap_or_default().to_string();
        Answer::text("a").header("Content-Type", "text/html").header("ETag", &etag)
    });
    let server = Server::start(
        Config::server(
            "sub_filter a b; sub_filter_last_modified on;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    for (tag, expected) in
        [("\"x\"", Some("W/\"x\"")), ("W/\"x\"", Some("W/\"x\"")), ("x", None), ("W/", None)]
    {
        let answer = server.connect().request("GET", "/", &[("Host", "a"), ("X-Tag", tag)], b"");
        assert_eq!(answer.expect(200).header("ETag"), expected, "{tag}");
    }
}

#[test]
fn an_old_client_reads_to_the_end_of_the_connection() {
    let server = Server::start(Config::server(
        "default_type text/html; sub_filter a bcd; sub_filter_once off; return 200 xaxa;",
    ));
    let answer = server.exchange("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nxbcdxbcd"), "{answer}");
    assert!(!answer.contains("Content-Length"), "{answer}");
}

#[test]
fn errors_and_error_pages_are_searched_too() {
    let server = Server::start(Config::server("sub_filter '404 Not Found' 'No Such Thing';"));
    let answer = server.get("/missing").expect(404);
    assert!(answer.text().contains("<title>No Such Thing</title>"), "{}", answer.text());
}

#[test]
fn a_text_that_is_cut_into_pieces_is_found_and_what_may_pass_is_not_held() {
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let doors = gates.clone();
    let backend = Backend::with(move |_| {
        Answer::text("one needle, two neexyz, nee")
            .header("Content-Type", "text/html")
            .chunked()
            .pause_at("one nee".len(), &doors[0])
            .pause_at("one needle, two nee".len(), &doors[1])
            .pause_at("one needle, two neexyz, nee".len(), &doors[2])
    });
    let server = Server::start(
        Config::server(
            "proxy_buffering off; proxy_http_version 1.1;
             sub_filter needle PIN; sub_filter_once off;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.read_head().expect(200);
    // Everything up to the beginning of a possible match is here before the backend goes on.
    let mut received = Vec::new();
    for (step, expected) in ["one ", "one PIN, two ", "one PIN, two neexyz, "].iter().enumerate() {
        while content(&received).len() < expected.len() {
            received.extend(client.try_read_some().unwrap());
        }
        assert_eq!(content(&received), *expected);
        gates[step].open();
    }
    received.extend(client.read_to_end());
    assert_eq!(content(&received), "one PIN, two neexyz, nee");
}

/// What the chunks say that have come so far, the last one perhaps in part.
fn content(mut chunks: &[u8]) -> String {
    let mut text = Vec::new();
    while let Some(at) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&chunks[..at]);
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("size {size:?}"));
        let rest = &chunks[at + 2..];
        text.extend_from_slice(&rest[..size.min(rest.len())]);
        chunks = rest.get(size + 2..).unwrap_or_default();
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_backend_that_breaks_off_is_not_covered_up() {
    let backend = Backend::with(|_| {
        Answer::text("a needle and a nee").header("Content-Type", "text/html").cut_after(10)
    });
    let server = Server::start(
        Config::server(
            "sub_filter needle PIN; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().expect(200);
    let rest = String::from_utf8(client.read_to_end()).unwrap();
    assert!(rest.contains("a PIN a"), "{rest}");
    assert!(!rest.contains("0\r\n\r\n"), "{rest}");
}

/// More than the sockets of two connections hold, in lines that all have a match.
const LINES: usize = 3 << 20;
const LINE: &[u8] = b"needle 012345678\n";

/// Memory of a process that is no file's, in KiB: pages of the program itself do not count.
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("a size")
}

/// Reads the body of a chunked answer that was asked for with HTTP/1.0, checking each line.
fn check_lines(client: &mut Client) {
    const EXPECTED: &[u8] = b"pin 012345678\n";
    let mut rest: Vec<u8> = Vec::new();
    let mut lines = 0;
    while let Ok(bytes) = client.try_read_some() {
        rest.extend_from_slice(&bytes);
        let whole = rest.len() / EXPECTED.len();
        let (done, _) = rest.split_at(whole * EXPECTED.len());
        assert!(done.chunks(EXPECTED.len()).all(|line| line == EXPECTED), "at line {lines}");
        lines += whole;
        rest.drain(..whole * EXPECTED.len());
    }
    assert_eq!((lines, rest.len()), (LINES, 0));
}

#[test]
fn a_slow_client_holds_neither_the_backend_nor_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let backend = Backend::script(move |conversation| {
        if conversation.read_request().is_err() {
            return;
        }
        conversation.send("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n");
        let block = LINE.repeat(4096);
        while count.load(Ordering::SeqCst) < LINES * LINE.len() && conversation.send(&block) {
            count.fetch_add(block.len(), Ordering::SeqCst);
        }
    });
    let server = Server::start(
        Config::server(
            "sub_filter needle pin; sub_filter_once off; sub_filter never 'x';
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let worker = server.wait_workers(1)[0];
    let before = memory_kib(worker);
    let mut client = server.connect();
    client.stream().shrink_receive_buffer(16 << 10).unwrap();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    client.read_head().expect(200);
    // The client reads no more, and yet the backend gets rid of everything.
    let sent = || sent.load(Ordering::SeqCst);
    let all = LINES * LINE.len();
    assert!(reaches(all, sent), "{} of {all} bytes{}", sent(), server.shown_log());
    backend.wait_open_connections(0);
    let held = memory_kib(worker);
    client.stream().shrink_receive_buffer(4 << 20).unwrap();
    check_lines(&mut client);
    assert!(held < before + 2048, "{before} KiB grew to {held} KiB");
}

#[test]
fn faults_in_the_configuration() {
    let refused = |inside: &str, message: &str| {
        let outcome = Server::check(Config::server(inside));
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert_eq!(outcome.code, Some(1));
    };
    refused("sub_filter '' x;", "[emerg] empty search pattern in ");
    refused(&"sub_filter a b;\n".repeat(256), "[emerg] number of search patterns exceeds 255 in ");
    refused("sub_filter a;", "invalid number of arguments in \"sub_filter\" directive");
    refused("sub_filter a $nobody;", "unknown \"nobody\" variable");
    let outcome = Server::check(Config::server("sub_filter_types text/html a/b a/b;"));
    assert!(outcome.stderr.contains("[warn] duplicate MIME type \"text/html\" in"));
    assert!(outcome.stderr.contains("[warn] duplicate MIME type \"a/b\" in"));
    assert_eq!(outcome.code, Some(0));
}
