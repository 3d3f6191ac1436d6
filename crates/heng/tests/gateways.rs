//! Requests passed to programs by FastCGI, SCGI and uwsgi.

mod programs;
#[path = "gateways/settings.rs"]
mod settings;

use programs::{Asked, FAMILIES, program, read, record};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::{Backend, Config, Gate, Server};

/// A server with `lines`, in which FAMILY stands for the protocol.
fn server(family: &str, backend: &Backend, lines: &str) -> Server {
    let port = backend.port();
    Server::start(
        Config::server(&lines.replace("FAMILY", family)).with("BACKEND", port).file("html/x", "x"),
    )
}

/// Shows what a program was asked.
fn shown(asked: &Asked) -> Vec<u8> {
    let list: Vec<String> =
        asked.list.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    format!("Content-Type: a/b\nX-List: {}\n\n{body}", list.join(";")).into_bytes()
}

#[test]
fn programs_are_told_what_the_configuration_says() {
    for family in FAMILIES {
        let backend = program(family, shown);
        let server = server(
            family,
            &backend,
            "FAMILY_param URI $uri; FAMILY_param EMPTY ''; FAMILY_param ARG $arg_a if_not_empty;
             FAMILY_param HTTP_X_ONE one; FAMILY_param HTTP_X_TWO '';
             FAMILY_param CONTENT_LENGTH $content_length if_not_empty;
             location / { FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /none { FAMILY_pass_request_headers off; FAMILY_pass_request_body off;
                              FAMILY_param A b; FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /if { if ($arg_a) { set $b c; } FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /variable { FAMILY_pass $arg_to; }",
        );
        // SCGI tells the length first, in any case.
        let strip = |list: &str| list.replacen("CONTENT_LENGTH=0;", "", 1);
        let mut client = server.connect();
        let fields = [("Host", "h"), ("X-One", "1"), ("X-Two", "2"), ("Cookie", "a"), ("X-A", "b")];
        let more = [&fields[..], &[("Cookie", "c"), ("X-A", "d"), ("Proxy", "evil")]].concat();
        let answer = client.request("GET", "/p?a=q", &more, b"").expect(200);
        assert_eq!(answer.header("Content-Type"), Some("a/b"), "{family}");
        let list = strip(answer.header("X-List").unwrap_or_default());
        let expected =
            "URI=/p;EMPTY=;ARG=q;HTTP_X_ONE=one;HTTP_HOST=h;HTTP_COOKIE=a; c;HTTP_X_A=b, d";
        assert_eq!(list, expected, "{family}");
        let answer = client.post("/p", "body").expect(200);
        assert_eq!(answer.text(), "body", "{family}");
        assert!(answer.header("X-List").unwrap_or_default().contains("CONTENT_LENGTH=4"));
        let answer = client.post("/none", "body").expect(200);
        assert_eq!(strip(answer.header("X-List").unwrap_or_default()), "A=b", "{family}");
        assert_eq!(answer.text(), "", "{family}");
        assert!(client.get("/if?a=1").expect(200).header("X-List").is_some(), "{family}");
        let to = format!("/variable?to=127.0.0.1:{}", backend.port());
        assert!(client.get(&to).expect(200).header("X-List").is_some());
        client.get("/variable?to=localhost").expect(500);
        server.wait_for_log("no port in upstream \"localhost\"");
    }
}

#[test]
fn answers_in_the_manner_of_cgi() {
    for family in FAMILIES {
        let backend = program(family, |asked| match asked.get("URI").unwrap_or_default() {
            "/status" => "Status: 404 Not here\r\nX-A: b\r\n\r\nno".into(),
            "/location" => "Location: /there\n\n".into(),
            "/length" => "Content-Length: 4\n\nfour".into(),
            "/more" => "Content-Length: 4\n\nfour and more".into(),
            "/less" => "Content-Length: 9\n\nfour".into(),
            "/bad" => "Status: none\n\n".into(),
            "/name" => "X Y: b\n\n".into(),
            "/none" => "".into(),
            "/big" => format!("X-A: {}\n\n", "b".repeat(5000)).into(),
            "/long" => ["A: b\n\n".as_bytes(), &b"x".repeat(200_000)].concat(),
            _ => "Content-Type: a/b\n\ntext".into(),
        });
        let server = server(
            family,
            &backend,
            "location / { FAMILY_param URI $uri; FAMILY_pass 127.0.0.1:%%BACKEND%%; }",
        );
        let get = |path: &str| server.get(path);
        let answer = get("/status").expect(404);
        assert_eq!((answer.text().as_str(), answer.header("X-A")), ("no", Some("b")), "{family}");
        assert_eq!(get("/location").expect(302).header("Location"), Some("/there"), "{family}");
        assert_eq!(get("/length").expect(200).header("Content-Length"), Some("4"), "{family}");
        assert_eq!(get("/more").expect(200).text(), "four", "{family}");
        assert_eq!(get("/long").expect(200).body.len(), 200_000, "{family}");
        let mut client = server.connect();
        client.send("GET /less HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.read_to_end().ends_with(b"four"), "{family}");
        for path in ["/bad", "/name", "/none", "/big"] {
            get(path).expect(502);
        }
        server.wait_for_log("upstream sent invalid status \"none\"");
        server.wait_for_log("upstream sent too big header");
        server.wait_for_log(&format!("upstream: \"{family}://127.0.0.1:"));
        let head = server.exchange("HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(head.contains("a/b") && head.ends_with("\r\n\r\n"), "{family}: {head}");
    }
}

#[test]
fn settings_are_those_of_each_protocol() {
    for family in FAMILIES {
        let backend = program(family, |_| {
            let fields = "X-Hidden: 1\nX-Accel-Charset: none\nX-Accel-Redirect: /other\n";
            format!("Status: 418 Tea\n{fields}X-Long: {}\n\ntext", "x".repeat(3000)).into()
        });
        let lines = "location / { FAMILY_ignore_headers X-Accel-Redirect X-Accel-Charset;
                         FAMILY_hide_header X-Hidden; FAMILY_pass_header X-Accel-Charset;
                         FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /redirected { FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /other { return 200 other; }
             location /small { FAMILY_buffer_size 2k; FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /caught { error_page 418 /page; FAMILY_intercept_errors on;
                                FAMILY_ignore_headers X-Accel-Redirect;
                                FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /page { return 200 page; }
             location /bound { FAMILY_bind 127.0.0.3; FAMILY_pass 127.0.0.1:%%BACKEND%%; }";
        let server = server(family, &backend, lines);
        let answer = server.get("/").expect(418);
        assert_eq!(answer.header("X-Hidden"), None, "{family}");
        assert_eq!(answer.header("X-Accel-Charset"), Some("none"), "{family}");
        assert_eq!(server.get("/redirected").expect(200).text(), "other", "{family}");
        server.get("/small").expect(502);
        assert_eq!(server.get("/caught").expect(418).text(), "page", "{family}");
        assert_eq!(server.get("/bound").expect(200).text(), "other", "{family}");
    }
}

#[test]
fn programs_that_fail_give_way_to_others() {
    for family in FAMILIES {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let silent = Backend::script(move |conversation| {
            count.fetch_add(1, Ordering::SeqCst);
            if read(family, conversation).is_ok() {
                conversation.read_to_end();
            }
        });
        let bad = program(family, |_| "Status: bad\n\n".into());
        let good = program(family, |_| "A: b\n\ngood".into());
        let text =
            "upstream slow { server 127.0.0.1:%%SILENT%%; server 127.0.0.1:%%GOOD%% backup; }
             upstream wrong { server 127.0.0.1:%%BAD%%; server 127.0.0.1:%%GOOD%% backup; }
             server { listen 127.0.0.1:%%PORT_0%%;
                 FAMILY_read_timeout 100ms;
                 location /slow { FAMILY_pass slow; }
                 location /once { FAMILY_next_upstream_tries 1; FAMILY_pass slow; }
                 location /late { FAMILY_next_upstream_timeout 50ms; FAMILY_pass slow; }
                 location /wrong { FAMILY_pass wrong; }
                 location /next { FAMILY_next_upstream invalid_header; FAMILY_pass wrong; } }";
        let server = Server::start(
            Config::http(&text.replace("FAMILY", family))
                .with("SILENT", silent.port())
                .with("BAD", bad.port())
                .with("GOOD", good.port()),
        );
        assert_eq!(server.get("/slow").expect(200).text(), "good", "{family}");
        server.get("/wrong").expect(502);
        assert_eq!(server.get("/next").expect(200).text(), "good", "{family}");
    }
}

#[test]
fn answers_are_buffered_and_kept_as_proxied_ones_are() {
    for family in FAMILIES {
        let gate = Arc::new(Gate::new());
        let wait = gate.clone();
        let backend = Backend::script(move |conversation| {
            let Ok(asked) = read(family, conversation) else { return };
            let wrap = |text: &[u8]| match family {
                "fastcgi" => record(6, text),
                _ => text.to_vec(),
            };
            conversation.send(wrap(b"A: b\n\nfirst "));
            if asked.get("WAIT").is_some() {
                conversation.wait(&wait);
            }
            conversation.send(wrap(b"second"));
            if family == "fastcgi" {
                conversation.send([record(6, b""), record(3, &[0; 8])].concat());
            }
        });
        let server = server(
            family,
            &backend,
            "location / { root %%DIR%%/kept; FAMILY_store on; FAMILY_store_access all:r;
                          FAMILY_pass 127.0.0.1:%%BACKEND%%; }
             location /wait { FAMILY_buffering off; FAMILY_param WAIT 1;
                              FAMILY_pass 127.0.0.1:%%BACKEND%%; }",
        );
        assert_eq!(server.get("/a").expect(200).text(), "first second", "{family}");
        let kept = server.path("kept/a");
        assert_eq!(std::fs::read(&kept).expect("a file"), b"first second", "{family}");
        let mut client = server.connect();
        client.send("GET /wait HTTP/1.0\r\n\r\n");
        client.read_head();
        assert_eq!(client.read_exactly(6), b"first ", "{family}");
        gate.open();
        assert_eq!(client.read_to_end(), b"second", "{family}");
    }
}

#[test]
fn bodies_are_passed_as_they_come() {
    for family in FAMILIES {
        let gate = Arc::new(Gate::new());
        let seen = gate.clone();
        let backend = Backend::script(move |conversation| {
            if conversation.read_some().is_err() {
                return;
            }
            // The head is here while the client has not sent its body.
            seen.open();
            conversation.read_some().ok();
        });
        let server = server(
            family,
            &backend,
            "location / { FAMILY_request_buffering off; FAMILY_pass 127.0.0.1:%%BACKEND%%; }",
        );
        let mut client = server.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo");
        assert!(gate.pass(), "{family}");
        client.send("dy");
        client.read_response().expect(502);
    }
}

#[test]
fn fastcgi_splits_paths_and_keeps_connections() {
    let backend = program("fastcgi", |asked| {
        let of = |name: &str| asked.get(name).unwrap_or("-").to_owned();
        format!("A: b\n\n{} {} {}", of("NAME"), of("INFO"), asked.connection).into()
    });
    let text = "upstream u { server 127.0.0.1:%%BACKEND%%; keepalive 2; }
         server { listen 127.0.0.1:%%PORT_0%%;
             fastcgi_param NAME $fastcgi_script_name; fastcgi_param INFO $fastcgi_path_info;
             location / { fastcgi_index index.php; fastcgi_pass u; }
             location /split/ { fastcgi_split_path_info ^(.+\\.php)(/.+)$; fastcgi_pass u; }
             location /kept { fastcgi_keep_conn on; fastcgi_pass u; } }";
    let server = Server::start(Config::http(text).with("BACKEND", backend.port()));
    let mut client = server.connect();
    assert_eq!(client.get("/a/").text(), "/a/index.php  1");
    assert_eq!(client.get("/a").text(), "/a  2");
    assert_eq!(client.get("/split/x.php/more").text(), "/split/x.php /more 3");
    assert_eq!(client.get("/split/x").text(), "/split/x  4");
    assert_eq!(client.get("/kept").text(), "/kept  5");
    assert_eq!(client.get("/kept").text(), "/kept  5");
    let outcome = Server::check(Config::server("fastcgi_split_path_info a;")).expect(1);
    assert!(outcome.stderr.contains("pattern \"a\" must have 2 captures in"), "{}", outcome.stderr);
}

#[test]
fn fastcgi_programs_complain_into_the_error_log() {
    let backend = Backend::script(|conversation| {
        if read("fastcgi", conversation).is_ok() {
            conversation.send(record(7, b"PHP Fatal error: oops.\n"));
            conversation.send([record(6, b"A: b\n\ntext"), record(6, b"")].concat());
            conversation.send([record(7, b"later"), record(3, &[0; 8])].concat());
        }
    });
    let server = server(
        "fastcgi",
        &backend,
        "location / { fastcgi_pass 127.0.0.1:%%BACKEND%%; }
         location /caught { fastcgi_catch_stderr Fatal; fastcgi_pass 127.0.0.1:%%BACKEND%%; }",
    );
    assert_eq!(server.get("/").expect(200).text(), "text");
    server.wait_for_log("FastCGI sent in stderr: \"PHP Fatal error: oops\" while reading response");
    server.get("/caught").expect(502);
}

#[test]
fn uwsgi_has_modifiers_and_a_scheme() {
    let backend = program("uwsgi", |asked| {
        format!("HTTP/1.1 201 Made\r\nA: b\r\n\r\n{:?}", asked.marks).into()
    });
    let server = server(
        "uwsgi",
        &backend,
        "location / { uwsgi_pass uwsgi://127.0.0.1:%%BACKEND%%; }
         location /m { uwsgi_modifier1 5; uwsgi_modifier2 7; uwsgi_pass 127.0.0.1:%%BACKEND%%; }",
    );
    assert_eq!(server.get("/").expect(201).text(), "(0, 0)");
    assert_eq!(server.get("/m").expect(201).text(), "(5, 7)");
    let seen = Backend::script(|conversation| {
        let packet = conversation.read_some().unwrap_or_default();
        conversation.send(format!("A: b\n\n{packet:?}"));
    });
    let text = format!("location / {{ uwsgi_string ab; uwsgi_pass 127.0.0.1:{}; }}", seen.port());
    let server = Server::start(Config::server(&format!("uwsgi_pass_request_headers off; {text}")));
    assert_eq!(server.get("/").expect(200).text(), "[0, 2, 0, 0, 97, 98]");
    let outcome = Server::check(Config::server("uwsgi_modifier1 256;")).expect(1);
    assert!(outcome.stderr.contains("value must be between 0 and 255"), "{}", outcome.stderr);
}
