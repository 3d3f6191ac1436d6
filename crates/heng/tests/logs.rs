//! What is written down: access logs, their formats and variables, and error logs.

use testkit::{Config, Server, Signal};

/// A server whose access log has this format.
fn logging(format: &str, inside: &str) -> Server {
    Server::start(Config::http(&format!(
        "log_format own {format};
         server {{ listen 127.0.0.1:%%PORT_0%%; server_name named.test;
             access_log %%DIR%%/logs/access.log own; {inside} }}"
    )))
}

#[test]
fn combined_is_the_default_format() {
    let server = Server::start(Config::server("location / { return 200 12345; }"));
    let fields = [("Host", "a"), ("Referer", "http://r/"), ("User-Agent", "t \"q\"")];
    server.connect().request("GET", "/x?y", &fields, b"").expect(200);
    let line = server.wait_for_access("/x?y");
    let (before, after) = line.split_once('[').unwrap_or_default();
    assert_eq!(before, "127.0.0.1 - - ");
    let (time, rest) = after.split_once("] ").unwrap_or_default();
    // 20/Nov/2026:12:00:00 +0000
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("00/") && shape.contains("/0000:00:00:00 "), "{time}");
    assert_eq!(rest, "\"GET /x?y HTTP/1.1\" 200 5 \"http://r/\" \"t \\x22q\\x22\"");
}

#[test]
fn variables_of_the_request_are_logged() {
    let format = "'$remote_addr|$remote_port|$server_addr|$server_port|$server_protocol|$scheme|\
                  $request_method|$request_uri|$uri|$args|$query_string|$host|$http_host|\
                  $http_x_own|$arg_a|$cookie_c|$content_length|$content_type|$server_name|\
                  $request|$status|$body_bytes_sent|$sent_http_x_sent|$sent_http_content_type|\
                  $request_length|$bytes_sent|$hostname|$nginx_version|$pid|$connection|\
                  $connection_requests|$pipe|$msec|$request_time|$time_iso8601|$time_local|\
                  $request_id|$is_args|$document_root|$request_filename|$request_completion|\
                  $remote_user|$binary_remote_addr|$https|$document_uri|$realpath_root'";
    let server =
        logging(format, "root %%DIR%%/html; location / { add_header X-Sent s; return 200 12345; }");
    let mut client = server.connect();
    let port = client.local_address().port().to_string();
    let fields = [
        ("Host", "Named.Test:81"),
        ("X-Own", "own"),
        ("Cookie", "b=1; c=two; d=3"),
        ("Content-Type", "x/y"),
        ("Authorization", "Basic ZXZhOnNlY3JldA=="),
    ];
    let response = client.request("GET", "/p%20q?a=1&b=2", &fields, b"").expect(200);
    let line = server.wait_for_access("Named.Test");
    let found: Vec<&str> = line.split('|').collect();
    let server_port = server.port(0).to_string();
    let expected = [
        "127.0.0.1",
        &port,
        "127.0.0.1",
        &server_port,
        "HTTP/1.1",
        "http",
        "GET",
        "/p%20q?a=1&b=2",
        "/p q",
        "a=1&b=2",
        "a=1&b=2",
        "named.test",
        "Named.Test:81",
        "own",
        "1",
        "two",
        "-",
        "x/y",
        "named.test",
        "GET /p%20q?a=1&b=2 HTTP/1.1",
        "200",
        "5",
        "s",
        "text/plain",
    ];
    assert_eq!(found[..expected.len()], expected, "{line}");
    let rest = &found[expected.len()..];
    assert_eq!(rest[1], response.raw.len().to_string(), "$bytes_sent");
    assert!(rest[0].parse::<usize>().is_ok_and(|length| length > 100), "$request_length");
    assert!(!rest[2].is_empty(), "$hostname");
    assert!(rest[3].chars().all(|c| c.is_ascii_digit() || c == '.'), "$nginx_version");
    assert!(server.workers().contains(&rest[4].parse().unwrap_or(0)), "$pid");
    assert!(rest[5].parse::<u64>().is_ok(), "$connection");
    assert_eq!(rest[6..8], ["1", "."], "$connection_requests, $pipe");
    assert!(rest[8].parse::<f64>().is_ok_and(|seconds| seconds > 1e9), "$msec");
    assert!(rest[9].parse::<f64>().is_ok_and(|seconds| seconds < 60.0), "$request_time");
    assert_eq!(rest[10].len(), "2026-11-20T12:00:00+00:00".len(), "$time_iso8601");
    assert_eq!(rest[12].len(), 32, "$request_id");
    assert_eq!(rest[13], "?");
    let root = server.path("html").display().to_string();
    assert_eq!(rest[14..16], [root.clone(), format!("{root}/p q")]);
    assert_eq!(rest[16..18], ["OK", "eva"]);
    assert_eq!(rest[18], "\\x7F\\x00\\x00\\x01");
    assert_eq!(rest[19..], ["", "/p q", &root], "$https, $document_uri, $realpath_root");
}

#[test]
fn escapes_are_chosen_by_the_format() {
    let check = |escape: &str, expected: &str| {
        let server =
            logging(&format!("{escape} '<$http_x>|$http_none'"), "location / { return 204; }");
        let fields = [("Host", "a"), ("X", "a\"b\\c\u{fc}\td")];
        server.connect().request("GET", "/", &fields, b"").expect(204);
        assert_eq!(server.wait_for_access("<"), expected, "{escape}");
    };
    check("", "<a\\x22b\\x5Cc\\xC3\\xBC\\x09d>|-");
    check("escape=default", "<a\\x22b\\x5Cc\\xC3\\xBC\\x09d>|-");
    check("escape=json", "<a\\\"b\\\\cü\\td>|");
    check("escape=none", "<a\"b\\cü\td>|");
}

#[test]
fn access_log_can_be_off_conditional_and_several() {
    let server = Server::start(Config::http(
        "log_format short $request_uri;
         access_log %%DIR%%/logs/access.log short;
         server { listen 127.0.0.1:%%PORT_0%%;
             location / { return 204; }
             location /off { access_log off; return 204; }
             location /if { access_log %%DIR%%/logs/if.log short if=$arg_log; return 204; }
             location /two {
                 access_log %%DIR%%/logs/one.log short;
                 access_log %%DIR%%/logs/two.log short;
                 return 204;
             }
         }",
    ));
    for path in ["/off", "/if?log=0", "/if?log=1", "/if", "/two", "/"] {
        server.get(path).expect(204);
    }
    server.wait_for_line("logs/access.log", "/");
    assert_eq!(server.access_log(), "/\n");
    assert_eq!(server.wait_for_line("logs/if.log", "/if"), "/if?log=1");
    assert_eq!(server.read("logs/if.log").lines().count(), 1);
    assert_eq!(server.wait_for_line("logs/one.log", "/two"), "/two");
    assert_eq!(server.wait_for_line("logs/two.log", "/two"), "/two");
}

#[test]
fn buffered_logs_are_flushed_in_time_and_at_the_end() {
    let config = |parameters: &str| {
        Config::http(&format!(
            "access_log %%DIR%%/logs/access.log combined {parameters};
             server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ return 204; }} }}"
        ))
    };
    let mut server = Server::start(config("buffer=64k"));
    server.get("/first").expect(204);
    server.get("/second").expect(204);
    assert_eq!(server.access_log(), "", "written at once");
    server.quit().expect(0);
    assert_eq!(server.access_log().lines().count(), 2);

    let server = Server::start(config("buffer=64k flush=100ms"));
    server.get("/first").expect(204);
    server.wait_for_access("/first");

    // A buffer that is full is written.
    let server = Server::start(config("buffer=256"));
    for _ in 0..4 {
        server.get("/first").expect(204);
    }
    server.wait_for_access("/first");
}

#[test]
fn log_paths_may_hold_variables() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html;
             access_log %%DIR%%/logs/$arg_name.log;
             location / { return 204; } }",
    ));
    server.get("/?name=eva").expect(204);
    server.get("/?name=bob").expect(204);
    assert!(server.wait_for_line("logs/eva.log", "eva").contains("name=eva"));
    server.wait_for_line("logs/bob.log", "bob");
}

#[test]
fn logs_are_reopened_on_usr1() {
    let server = Server::start(
        Config::server("location / { return 204; }").main("error_log %%DIR%%/error.log notice;"),
    );
    server.get("/before").expect(204);
    server.wait_for_access("/before");
    std::fs::rename(server.path("logs/access.log"), server.path("logs/old.log")).unwrap();
    server.reopen(&["logs/access.log"]);
    // The workers follow a moment after the master.
    server.wait_until("the workers write to the new file", || {
        server.get("/after").expect(204);
        server.access_log().contains("/after")
    });
    server.signal(Signal::TERM);
}

#[test]
fn error_log_levels_and_files_are_kept_apart() {
    let server = Server::start(Config::new(
        "error_log %%DIR%%/error.log notice;
         events {}
         http {
             server { listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html;
                 location /crit/ { error_log %%DIR%%/logs/crit.log crit; }
                 location /own/ { error_log %%DIR%%/logs/own.log error; }
                 location /two/ {
                     error_log %%DIR%%/logs/one.log error;
                     error_log %%DIR%%/logs/two.log error;
                 }
             }
         }",
    ));
    for path in ["/crit/x", "/own/x", "/two/x", "/x"] {
        server.get(path).expect(404);
    }
    server.wait_for_line("error.log", "/html/x\" failed");
    server.wait_for_line("logs/own.log", "/own/x");
    server.wait_for_line("logs/one.log", "/two/x");
    server.wait_for_line("logs/two.log", "/two/x");
    assert_eq!(server.read("logs/crit.log"), "");
    assert!(!server.error_log().contains("/own/x"), "{}", server.error_log());
    server.wait_for_log("[notice]");
}

#[test]
fn error_log_lines_have_their_shape() {
    let server = Server::start(Config::server("server_name own.test; root %%DIR%%/html;"));
    server.get("/none").expect(404);
    let line = server.wait_for_log("[error]");
    let worker = server.wait_workers(1)[0];
    // 2026/11/20 12:00:00 [error] PID#TID: *CONNECTION message, client: ...
    let (time, rest) = line.split_at("2026/11/20 12:00:00".len());
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000/00/00 00:00:00");
    assert!(rest.starts_with(&format!(" [error] {worker}#{worker}: *1 open() \"")), "{line}");
    assert!(
        rest.ends_with(
            ", client: 127.0.0.1, server: own.test, request: \"GET /none HTTP/1.1\", \
             host: \"localhost\""
        ),
        "{line}"
    );
}
