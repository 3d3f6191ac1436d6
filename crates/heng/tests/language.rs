//! The configuration language: what is accepted, and how what is not is told.

use testkit::{Config, Outcome, Server};

/// Checks a whole configuration that is wrong: every message must be there, with its line.
#[track_caller]
fn refused(text: &str, messages: &[&str]) -> Outcome {
    let outcome = Server::check(Config::new(text)).expect(1);
    for message in messages {
        let found =
            outcome.stderr.lines().any(|line| line.contains("[emerg] ") && line.contains(message));
        assert!(found, "{text:?} lacks {message:?}: {outcome}");
    }
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains(": configuration file ") && last.ends_with("nginx.conf test failed"),
        "{outcome}"
    );
    outcome
}

/// Checks a whole configuration that is right.
#[track_caller]
fn accepted(text: &str) {
    let outcome = Server::check(Config::new(text)).expect(0);
    assert!(outcome.stderr.contains("syntax is ok\n"), "{outcome}");
    assert!(outcome.stderr.contains("test is successful\n"), "{outcome}");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn words_quotes_escapes_and_comments_are_read() {
    let server = Server::start(Config::server(
        "# a comment; with { everything }
         location /quotes { return 200 \"double 'single' \\\"escaped\\\" ; { } # no comment\"; }
         location '/sin gle' { return 200 'single \"double\"'; }
         location /escape { return 200 a\\ b\\;c; }
         location /lines { return 200 \"one\\ttab\\nline\"; }
         location /variable { return 200 ${arg_x}y$arg_x; }
         location\n/split\n{\nreturn\n200\nsplit\n;\n}",
    ));
    let mut client = server.connect();
    for (path, text) in [
        ("/quotes", "double 'single' \"escaped\" ; { } # no comment"),
        ("/sin%20gle", "single \"double\""),
        ("/escape", "a\\ b\\;c"),
        ("/lines", "one\ttab\nline"),
        ("/variable?x=1", "1y1"),
        ("/split", "split"),
    ] {
        assert_eq!(client.get(path).text(), text, "{path}");
    }
}

#[test]
fn includes_take_files_and_patterns() {
    let server = Server::start(
        Config::new("events {} http { include conf.d/*.conf; include one.conf; }")
            .file(
                "conf.d/a.conf",
                "server { listen 127.0.0.1:%%PORT_0%%; include locations.conf; }",
            )
            .file("conf.d/b.conf", "server { listen 127.0.0.1:%%PORT_1%%; return 200 b; }")
            .file("conf.d/c.txt", "this is not read")
            .file("locations.conf", "location / { return 200 a; }")
            .file("one.conf", "include none/*.conf;"),
    );
    assert_eq!(server.get("/").text(), "a");
    assert_eq!(server.connect_to(1).get("/").text(), "b");
}

#[test]
fn mistakes_in_included_files_name_these() {
    let outcome = Server::check(
        Config::new("events {}\nhttp { include conf.d/*.conf; }")
            .file("conf.d/a.conf", "\n\nserver { no_such; }"),
    )
    .expect(1);
    assert!(outcome.stderr.contains("unknown directive \"no_such\" in "), "{outcome}");
    assert!(outcome.stderr.contains("/conf.d/a.conf:3"), "{outcome}");
    let outcome = Server::check(Config::new("events {}\ninclude missing.conf;")).expect(1);
    assert!(outcome.stderr.contains("[emerg] "), "{outcome}");
    assert!(
        outcome.stderr.contains("/missing.conf\" failed (2: No such file or directory) in "),
        "{outcome}"
    );
    assert!(outcome.stderr.contains("/nginx.conf:2"), "{outcome}");
}

#[test]
fn mistakes_of_the_grammar_are_told() {
    refused("events {} http { server {", &["unexpected end of file, expecting \"}\" in "]);
    refused("events {} pid x", &["unexpected end of file, expecting \";\" or \"}\" in "]);
    refused("events {} }", &["unexpected \"}\" in "]);
    refused("events {} ;", &["unexpected \";\" in "]);
    refused("events {} http { { } }", &["unexpected \"{\" in "]);
    refused("events {} http { server }", &["unexpected \"}\" in "]);
    refused("events;", &["directive \"events\" has no opening \"{\" in "]);
    refused("pid x { } events {}", &["directive \"pid\" is not terminated by \";\" in "]);
    refused("events {} error_log \"x\"y;", &["unexpected \"y\" in "]);
    refused("events {} pid \"never closed;", &["unexpected end of file"]);
}

#[test]
fn mistakes_of_names_and_places_are_told() {
    refused("events {} no_such 1;", &["unknown directive \"no_such\" in "]);
    refused("events {} listen 80;", &["\"listen\" directive is not allowed here in "]);
    refused(
        "events {} http { server { worker_processes 1; } }",
        &["\"worker_processes\" directive is not allowed here in "],
    );
    refused(
        "events {} http { server { location / { server { } } } }",
        &["\"server\" directive is not allowed here in "],
    );
    refused("events {} pid;", &["invalid number of arguments in \"pid\" directive in "]);
    refused("events {} pid a b;", &["invalid number of arguments in \"pid\" directive in "]);
    refused("events {} pid a; pid b;", &["\"pid\" directive is duplicate in "]);
    refused("events {} http {} http {}", &["\"http\" directive is duplicate in "]);
    refused("http {}", &["no \"events\" section in configuration"]);
}

#[test]
fn mistakes_of_values_are_told() {
    for (inside, message) in [
        (
            "sendfile yes;",
            "invalid value \"yes\" in \"sendfile\" directive, it must be \"on\" or \"off\" in ",
        ),
        ("keepalive_timeout never;", "\"keepalive_timeout\" directive invalid value in "),
        ("client_max_body_size 1x;", "\"client_max_body_size\" directive invalid value in "),
        ("keepalive_requests many;", "\"keepalive_requests\" directive invalid number in "),
        (
            "server { listen 127.0.0.1:99999; }",
            "invalid port in \"127.0.0.1:99999\" of the \"listen\" directive in ",
        ),
        ("server { listen 127.0.0.1 nonsense; }", "invalid parameter \"nonsense\" in "),
        (
            "server { location ~ ( { } }",
            "pcre2_compile() failed: missing closing parenthesis in \"(\" in ",
        ),
        ("server { return 200 $no_such_variable; }", "unknown \"no_such_variable\" variable"),
        ("server { error_page 200 /x; }", "value \"200\" must be between 300 and 599 in "),
        ("server { location /a { } location /a { } }", "duplicate location \"/a\" in "),
        (
            "server { location /a { location /b { } } }",
            "location \"/b\" is outside location \"/a\" in ",
        ),
        (
            "server { location / { root a; alias b; } }",
            "\"alias\" directive is duplicate, \"root\" directive was specified earlier in ",
        ),
        ("upstream u { } ", "no servers are inside upstream in "),
        ("upstream u { server 127.0.0.1:1 weight=x; }", "invalid parameter \"weight=x\" in "),
        (
            "upstream u { server 127.0.0.1:1; } upstream u { server 127.0.0.1:2; }",
            "duplicate upstream \"u\" in ",
        ),
        ("server { location / { proxy_pass none; } }", "invalid URL prefix in "),
        (
            "server { location / { proxy_pass http://no.such.host.invalid; } }",
            "host not found in upstream \"no.such.host.invalid\" in ",
        ),
        ("log_format a b; log_format a c;", "duplicate \"log_format\" name \"a\" in "),
        ("access_log logs/x none;", "unknown log format \"none\" in "),
    ] {
        refused(&format!("events {{}} http {{ {inside} }}"), &[message]);
    }
}

#[test]
fn all_mistakes_of_a_run_are_told_in_order() {
    let outcome = refused(
        "events {}\nno_such_one 1;\nhttp {\n  sendfile yes;\n  server {\n    no_such_two;\n  }\n}",
        &[
            "unknown directive \"no_such_one\" in ",
            "invalid value \"yes\" in \"sendfile\" directive",
            "unknown directive \"no_such_two\" in ",
        ],
    );
    let lines: Vec<&str> = ["nginx.conf:2", "nginx.conf:4", "nginx.conf:6"].to_vec();
    let positions: Vec<_> = lines.iter().map(|line| outcome.stderr.find(line)).collect();
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "{positions:?}: {outcome}");
}

#[test]
fn no_caret_is_drawn_off_the_terminal() {
    let outcome = refused("events {}\nsendfil on;", &["unknown directive \"sendfil\" in "]);
    for line in outcome.stderr.lines() {
        assert!(line.contains("[emerg]") || line.ends_with("test failed"), "{outcome}");
    }
}

#[test]
fn sizes_times_and_switches_are_read() {
    for directive in [
        "client_max_body_size 1;",
        "client_max_body_size 1k;",
        "client_max_body_size 1M;",
        "client_max_body_size 2g;",
        "keepalive_timeout 1;",
        "keepalive_timeout 1m30s;",
        "keepalive_timeout 1h 2h;",
        "send_timeout 500ms;",
        "send_timeout 3w;",
        "send_timeout \"1d 2h\";",
        "sendfile On;",
        "sendfile OFF;",
    ] {
        accepted(&format!("events {{}} http {{ {directive} }}"));
    }
    for directive in
        ["send_timeout 1x;", "send_timeout 1s1h;", "client_max_body_size -1;", "send_timeout ;"]
    {
        refused(&format!("events {{}} http {{ {directive} }}"), &["\""]);
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_trouble() {
    accepted("events {}\r\nhttp {\r\n  sendfile on;\r\n}\r\n");
}

#[test]
fn inner_levels_inherit_and_replace() {
    let server = Server::start(Config::http(
        "default_type a/http; add_header X-A http;
         server { listen 127.0.0.1:%%PORT_0%%; default_type a/server;
             location /inherits { return 200 x; }
             location /own { default_type a/own; add_header X-B own; return 200 x; }
             location /outer/ { default_type a/outer;
                 location /outer/inner { return 200 x; } }
         }",
    ));
    let mut client = server.connect();
    for (path, kind, a, b) in [
        ("/inherits", "a/server", Some("http"), None),
        ("/own", "a/own", None, Some("own")),
        ("/outer/inner", "a/outer", Some("http"), None),
    ] {
        let response = client.get(path).expect(200);
        assert_eq!(response.header("Content-Type"), Some(kind), "{path}");
        assert_eq!((response.header("X-A"), response.header("X-B")), (a, b), "{path}");
    }
}

#[test]
fn proxy_busy_buffers_size_must_leave_a_buffer_free() {
    let http = |size: &str| {
        format!(
            "events {{}} http {{ proxy_buffers 4 4k; proxy_buffer_size 4k;
                 proxy_busy_buffers_size {size};
                 server {{ location / {{ proxy_pass http://127.0.0.1:1; }} }} }}"
        )
    };
    accepted(&http("12k"));
    let rule = "\"proxy_busy_buffers_size\" must be ";
    refused(
        &http("16k"),
        &[&format!("{rule}less than the size of all \"proxy_buffers\" minus one buffer in ")],
    );
    refused(
        &http("2k"),
        &[&format!(
            "{rule}equal to or greater than the maximum of the value of \"proxy_buffer_size\" \
             and one of the \"proxy_buffers\" in "
        )],
    );
}
