//! HTTP/2 with clients: its directives, and how requests are read and answered.

use testkit::frames::{END_HEADERS, END_STREAM, block, get_block, kind, request_block};
use testkit::{Answer, Backend, Config, Frame, FrameClient, Gate, Server};

/// A server that speaks HTTP/2, with these directives.
fn http2(inside: &str) -> Config {
    Config::server(&format!("error_log %%DIR%%/error.log info; http2 on; {inside}"))
}

const ECHO: &str = "location / {
    return 200 \"$request_method $request_uri $server_protocol $http2 $host $http_cookie $args\";
}";

#[test]
fn a_request_by_prior_knowledge() {
    let server = Server::start(http2(ECHO));
    let mut client = FrameClient::connect(server.port(0));
    let answer = client.get("/a?b=c");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.body(), b"GET /a?b=c HTTP/2.0 h2c localhost  b=c");
    // The same connection again, and HTTP/1 on the same address.
    assert_eq!(client.get("/x").status(), 200);
    assert!(server.get("/y").text().starts_with("GET /y HTTP/1.1  "));
    server.wait_for_access("\"GET /a?b=c HTTP/2.0\" 200");
}

#[test]
fn without_the_directive_the_preface_is_no_request() {
    let server = Server::start(Config::server(ECHO));
    let mut client = FrameClient::bare(server.port(0));
    client.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.read_close();
}

#[test]
fn listen_http2_is_the_older_way() {
    let config = Config::http(
        "server { listen 127.0.0.1:%%PORT_0%% http2; location / { return 200 old; } }",
    );
    let server = Server::start(config.clone());
    assert_eq!(FrameClient::connect(server.port(0)).get("/").body(), b"old");
    let said = Server::check(config).expect(0).stderr;
    assert!(said.contains("the \"listen ... http2\" directive is deprecated"), "{said}");
}

#[test]
fn obsolete_directives_are_warned_of() {
    let rows = [
        ("http2_max_requests 1;", "use the \"keepalive_requests\" directive instead"),
        ("http2_max_field_size 1k;", "use the \"large_client_header_buffers\" directive instead"),
        ("http2_max_header_size 1k;", "use the \"large_client_header_buffers\" directive instead"),
        ("http2_recv_timeout 1s;", "use the \"client_header_timeout\" directive instead"),
        ("http2_idle_timeout 1s;", "use the \"keepalive_timeout\" directive instead"),
        ("http2_max_concurrent_pushes 1;", "directive is obsolete, ignored"),
        ("http2_push /a;", "directive is obsolete, ignored"),
        ("http2_push_preload on;", "directive is obsolete, ignored"),
    ];
    for (line, warning) in rows {
        let said = Server::check(http2(line)).expect(0).stderr;
        assert!(said.contains(warning), "{line}: {said}");
    }
    Server::check(http2("http2_chunk_size 0;")).expect(1).says("chunk size cannot be zero");
}

#[test]
fn a_server_that_does_not_speak_it_is_misdirected() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; server_name a; http2 on; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name b; location / { return 200 b; } }",
    ));
    let mut client = FrameClient::connect(server.port(0));
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "b")];
    let id = client.request(&block(&fields), END_STREAM);
    assert_eq!(client.answer(id).status(), 421);
}

#[test]
fn frames_are_as_long_as_the_chunk_size() {
    let server = Server::start(
        http2("root %%DIR%%; http2_chunk_size 1k; location /b/ { http2_chunk_size 3000; }")
            .file("a/f", [b'x'; 10_000])
            .file("b/f", [b'x'; 10_000]),
    );
    let mut client = FrameClient::connect(server.port(0));
    for (path, expected) in [("/a/f", 1024), ("/b/f", 3000)] {
        let answer = client.get(path);
        let data = answer.frames.iter().filter(|frame| frame.kind == kind::DATA);
        assert_eq!(data.map(|frame| frame.payload.len()).max(), Some(expected));
        assert_eq!(answer.body().len(), 10_000);
    }
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let gate = Gate::new();
    let passing = gate.clone();
    let backend = Backend::with(move |_| {
        passing.pass();
        Answer::text("late")
    });
    let server = Server::start(
        http2(
            "http2_max_concurrent_streams 2;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    let settings = client.read_kind(kind::SETTINGS).payload;
    assert!(settings.chunks(6).any(|row| row == [0, 3, 0, 0, 0, 2]), "{settings:?}");
    let first = client.request(&get_block("/", &[]), END_STREAM);
    let second = client.request(&get_block("/", &[]), END_STREAM);
    let third = client.request(&get_block("/", &[]), END_STREAM);
    assert_eq!(client.answer(third).reset(), Some(7));
    gate.open();
    assert_eq!(client.answer(first).body(), b"late");
    // The other one may have been answered before the first was read to its end.
    let _ = second;
    server.wait_for_log("concurrent streams exceeded 2");
}

#[test]
fn the_window_for_bodies_is_the_preread_size() {
    let server = Server::start(http2("http2_body_preread_size 1000; location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    let settings = client.read_kind(kind::SETTINGS).payload;
    assert!(settings.chunks(6).any(|row| row == [0, 4, 0, 0, 3, 232]), "{settings:?}");
}

/// Bodies in both directions, of every size around the windows, buffered and not.
#[test]
fn bodies_pass_in_both_directions() {
    let backend = Backend::with(|request| {
        Answer::text(request.body.iter().rev().copied().collect::<Vec<u8>>())
    });
    let server = Server::start(
        http2(
            "client_max_body_size 0;
             location /whole { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /parts {
                 proxy_request_buffering off; proxy_buffering off; proxy_http_version 1.1;
                 proxy_pass http://127.0.0.1:%%BACKEND%%;
             }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    for size in [0, 1, 16_384, 65_535] {
        let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let length = size.to_string();
        for path in ["/whole", "/parts"] {
            for more in [&[][..], &[("content-length", &*length)]] {
                let id = client.request(&request_block("POST", path, more), 0);
                for part in body.chunks(10_000) {
                    client.send(Frame::new(kind::DATA, 0, id, part));
                }
                client.send(Frame::new(kind::DATA, END_STREAM, id, []));
                let answer = client.answer(id);
                assert_eq!(answer.status(), 200, "{path} {size} {more:?}");
                assert!(answer.body().iter().rev().eq(&body), "{path} {size} {more:?}");
            }
        }
    }
}

/// RFC 9113 section 8.1.1: a length that is not kept.
#[test]
fn lengths_that_are_not_kept_are_refused() {
    let backend = Backend::with(|_| Answer::text("never"));
    let server = Server::start(
        http2("location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    for (length, body) in [("5", &b"1234"[..]), ("3", b"1234"), ("4", b"")] {
        let answer = client.post("/", &[("content-length", length)], body);
        assert_eq!(answer.status(), 400, "{length} {body:?}");
    }
    assert_eq!(backend.request_count(), 0);
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let backend = Backend::with(|_| Answer::text("fits"));
    let server = Server::start(
        http2("client_max_body_size 10; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    assert_eq!(client.post("/", &[("content-length", "11")], &[b'x'; 11]).status(), 413);
    assert_eq!(client.post("/", &[], &[b'x'; 11]).status(), 413);
    assert_eq!(client.post("/", &[], &[b'x'; 10]).status(), 200);
}

/// RFC 9113 sections 8.2 and 8.3, RFC 9113 section 10.3.
#[test]
fn malformed_requests_are_refused_and_others_go_on() {
    let server = Server::start(http2(ECHO));
    let mut client = FrameClient::connect(server.port(0));
    let usual = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let with = |more: &[(&'static str, &'static str)]| block(&[&usual[..], more].concat());
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("upper-case name", with(&[("X-Upper", "a")])),
        ("space in a name", with(&[("a b", "c")])),
        ("NUL in a value", with(&[("a", "b\0")])),
        ("CR in a value", with(&[("a", "b\rc")])),
        ("LF in a value", with(&[("a", "b\nc: d")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te", with(&[("te", "gzip")])),
        ("two te", with(&[("te", "trailers"), ("te", "trailers")])),
        ("pseudo after a field", block(&[&usual[..3], &[("a", "b"), usual[3]]].concat())),
        ("unknown pseudo", with(&[(":status", "200")])),
        ("two methods", with(&[(":method", "GET")])),
        ("two paths", with(&[(":path", "/")])),
        ("no method", block(&usual[1..])),
        ("no scheme", block(&[usual[0], usual[2], usual[3]])),
        ("no path", block(&[usual[0], usual[1], usual[3]])),
        ("no host", block(&usual[..3])),
        ("empty path", block(&[usual[0], usual[1], (":path", ""), usual[3]])),
        ("path without slash", block(&[usual[0], usual[1], (":path", "a"), usual[3]])),
        ("space in the path", block(&[usual[0], usual[1], (":path", "/a b"), usual[3]])),
        ("bad method", block(&[(":method", "GE T"), usual[1], usual[2], usual[3]])),
        ("bad scheme", block(&[usual[0], (":scheme", "1h"), usual[2], usual[3]])),
        ("bad authority", block(&[usual[0], usual[1], usual[2], (":authority", "a/b")])),
        ("other host", with(&[("host", "b")])),
        ("two hosts", with(&[("host", "a"), ("host", "a")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "0")])),
        ("signed length", with(&[("content-length", "+0")])),
    ];
    for (name, block) in rows {
        let id = client.request(&block, END_STREAM);
        assert_eq!(client.answer(id).status(), 400, "{name}");
    }
    for (method, status) in [("TRACE", 405), ("CONNECT", 405)] {
        let id = client.request(&request_block(method, "/", &[]), END_STREAM);
        assert_eq!(client.answer(id).status(), status, "{method}");
    }
    let id = client.request(&with(&[("te", "trailers"), ("host", "a")]), END_STREAM);
    assert_eq!(client.answer(id).status(), 200);
}

#[test]
fn cookies_in_pieces_are_one_field() {
    let server = Server::start(http2(ECHO));
    let mut client = FrameClient::connect(server.port(0));
    let cookies = [("cookie", "a=b"), ("cookie", "c=d; e=f"), ("cookie", "g=h")];
    let id = client.request(&get_block("/", &cookies), END_STREAM);
    let body = client.answer(id).body();
    assert_eq!(body, b"GET / HTTP/2.0 h2c localhost a=b; c=d; e=f; g=h ");
}

#[test]
fn header_lists_have_the_limits_of_http_1() {
    let server = Server::start(http2(
        "large_client_header_buffers 2 1k; max_headers 5; location / { return 200; }",
    ));
    let long = "x".repeat(1100);
    let half = "x".repeat(900);
    let mut client = FrameClient::connect(server.port(0));
    client.request(&get_block("/", &[("a", &long)]), END_STREAM);
    assert_eq!(client.read_go_away(), 11);
    let mut client = FrameClient::connect(server.port(0));
    client.request(&get_block("/", &[("a", &half), ("b", &half), ("c", &half)]), END_STREAM);
    assert_eq!(client.read_go_away(), 11);
    let mut client = FrameClient::connect(server.port(0));
    let six = [("a", "b"); 6];
    let id = client.request(&get_block("/", &six), END_STREAM);
    assert_eq!(client.answer(id).status(), 400);
    let id = client.request(&get_block("/", &six[..4]), END_STREAM);
    assert_eq!(client.answer(id).status(), 200);
}

/// A long header list in CONTINUATION frames, and trailers that are taken and dropped.
#[test]
fn blocks_in_parts_and_trailers() {
    let backend = Backend::with(|request| Answer::text(format!("{}", request.body.len())));
    let server = Server::start(
        http2("location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    let block_ = get_block("/", &[("a", &"b".repeat(500))]);
    client.send(Frame::new(kind::HEADERS, END_STREAM, 1, &block_[..1]));
    client.send(Frame::new(kind::CONTINUATION, 0, 1, &block_[1..200]));
    client.send(Frame::new(kind::CONTINUATION, END_HEADERS, 1, &block_[200..]));
    assert_eq!(client.answer(1).body(), b"0");
    client.send(Frame::new(kind::HEADERS, END_HEADERS, 3, request_block("POST", "/", &[])));
    client.send(Frame::new(kind::DATA, 0, 3, "abc"));
    let trailers = block(&[("checksum", "1")]);
    client.send(Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 3, trailers));
    assert_eq!(client.answer(3).body(), b"3");
}

/// Trailers of a backend reach the client.
#[test]
fn trailers_of_an_answer() {
    let server = Server::start(
        http2("root %%DIR%%; location / { add_trailer X-Sum $uri; }").file("f", "content"),
    );
    let mut client = FrameClient::connect(server.port(0));
    let answer = client.get("/f");
    let heads = answer.frames.iter().filter(|frame| frame.kind == kind::HEADERS);
    let ends: Vec<bool> = heads.map(|frame| frame.flags & END_STREAM != 0).collect();
    assert_eq!((ends, answer.body()), (vec![false, true], b"content".to_vec()));
}

/// No more is sent than the client's windows allow, and streams have their turns.
#[test]
fn windows_hold_answers_back_and_streams_take_turns() {
    let server = Server::start(http2("root %%DIR%%;").file("f", [b'x'; 100_000]));
    let mut client = FrameClient::connect(server.port(0));
    let first = client.request(&get_block("/f", &[]), END_STREAM);
    let second = client.request(&get_block("/f", &[]), END_STREAM);
    let (mut of_first, mut of_second) = (0, 0);
    while of_first + of_second < 65_535 {
        let frame = client.read();
        if frame.kind == kind::DATA && frame.stream == first {
            of_first += frame.payload.len();
        } else if frame.kind == kind::DATA && frame.stream == second {
            of_second += frame.payload.len();
        }
    }
    assert_eq!(of_first + of_second, 65_535);
    assert!(of_first >= 16_384 && of_second >= 16_384, "{of_first} {of_second}");
    client.send(Frame::new(kind::PING, 0, 0, *b"anything"));
    assert_eq!(client.read().payload, b"anything", "not a byte beyond the window");
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let server =
        Server::start(http2("root %%DIR%%; send_timeout 50ms;").file("f", [b'x'; 100_000]));
    let mut client = FrameClient::connect(server.port(0));
    client.request(&get_block("/f", &[]), END_STREAM);
    assert_eq!(client.read_kind(kind::RESET).code(), Some(1));
    server.wait_for_log("client timed out");
}

#[test]
fn a_body_that_pauses_is_given_up() {
    let backend = Backend::with(|_| Answer::text("never"));
    let server = Server::start(
        http2("client_body_timeout 50ms; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    client.request(&request_block("POST", "/", &[]), 0);
    client.read_kind(kind::RESET);
    server.wait_for_access("\" 408 ");
}

/// An answer may come before the request's end; the rest of it is not wanted then.
#[test]
fn an_answer_before_the_body_resets_without_error() {
    let server = Server::start(http2("location / { return 200 early; }"));
    let mut client = FrameClient::connect(server.port(0));
    let id = client.request(&request_block("POST", "/", &[]), 0);
    assert_eq!(client.answer(id).body(), b"early");
    assert_eq!(client.read_kind(kind::RESET).code(), Some(0));
    client.send(Frame::new(kind::DATA, 0, id, "late"));
    assert_eq!(client.get("/").body(), b"early");
}

#[test]
fn return_444_resets_the_stream_only() {
    let server = Server::start(http2("location /no { return 444; } location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    assert!(client.get("/no").reset().is_some());
    assert_eq!(client.get("/").status(), 200);
}

/// A client that gives a request up lets go of the backend.
#[test]
fn a_canceled_stream_leaves_its_backend() {
    let gate = Gate::new();
    let passing = gate.clone();
    let backend = Backend::with(move |_| {
        passing.pass();
        Answer::text("late")
    });
    let server = Server::start(
        http2("location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    let id = client.request(&get_block("/", &[]), END_STREAM);
    gate.wait_arrived(1);
    client.send(Frame::new(kind::RESET, 0, id, [0, 0, 0, 8]));
    server.wait_for_access("\" 499 ");
    server.wait_for_log(&format!("client canceled stream {id}"));
    gate.open();
}

#[test]
fn connections_end_by_count_age_and_silence() {
    let server = Server::start(http2("keepalive_requests 2; location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    assert_eq!(client.get("/").status(), 200);
    client.request(&get_block("/", &[]), END_STREAM);
    assert_eq!(client.read_go_away(), 0);
    client.read_close();
    let server = Server::start(http2("keepalive_timeout 500ms; location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(client.read_go_away(), 0);
    let server = Server::start(http2("keepalive_time 1ms; location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    let is_over = (0..10_000).any(|_| {
        client.request(&get_block("/", &[]), END_STREAM);
        loop {
            match client.read() {
                frame if frame.kind == kind::GO_AWAY => return true,
                frame if frame.kind == kind::HEADERS => return false,
                _ => {}
            }
        }
    });
    assert!(is_over);
}

#[test]
fn half_a_frame_times_out() {
    let server = Server::start(http2("client_header_timeout 50ms; location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    client.send_bytes(&[0, 0, 9]);
    client.read_go_away();
    server.wait_for_log("client timed out");
}

/// A worker that leaves finishes what it began and takes nothing new.
#[test]
fn a_reload_says_goodbye() {
    let gate = Gate::new();
    let passing = gate.clone();
    let backend = Backend::with(move |_| {
        passing.pass();
        Answer::text("whole")
    });
    let server = Server::start(
        http2("location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    let id = client.request(&get_block("/", &[]), END_STREAM);
    gate.wait_arrived(1);
    server.reload();
    assert_eq!(client.read_go_away(), 0);
    gate.open();
    assert_eq!(client.answer(id).body(), b"whole");
    client.read_close();
}

#[test]
fn an_idle_connection_is_told_at_the_end() {
    let mut server = Server::start(http2("location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    assert_eq!(client.get("/").status(), 200);
    server.signal(testkit::Signal::QUIT);
    assert_eq!(client.read_go_away(), 0);
    drop(client);
    server.wait_exit();
}

/// What floods cost: each is noticed and ends with its connection. The limits are in
/// `wire::http2::connection`, where each has a test of its own.
fn flood(make: impl Fn(u32) -> Vec<u8>, most: u32) {
    let server = Server::start(http2("location / { return 200; }"));
    let mut client = FrameClient::connect(server.port(0));
    let mut reader = client.stream().try_clone().expect("a socket can be cloned");
    let sink = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while std::io::Read::read(&mut reader, &mut buffer).is_ok_and(|n| n > 0) {}
    });
    for first in (0..most).step_by(1000) {
        let frames: Vec<u8> = (first..first + 1000).flat_map(&make).collect();
        if client.try_send_bytes(&frames).is_err() {
            break;
        }
    }
    // A server that has closed drops what comes for a while; the log tells.
    let _ = client.stream().shutdown(std::net::Shutdown::Both);
    sink.join().expect("the reader ends");
    server.wait_for_log("http2 flood detected");
    assert_eq!(FrameClient::connect(server.port(0)).get("/").status(), 200);
}

#[test]
fn rapid_resets_end_the_connection() {
    let request = get_block("/", &[]);
    flood(
        |i| {
            let head = Frame::new(kind::HEADERS, END_HEADERS, 2 * i + 1, &*request).bytes();
            [head, Frame::new(kind::RESET, 0, 2 * i + 1, [0, 0, 0, 8]).bytes()].concat()
        },
        2_000,
    );
}

#[test]
fn too_many_pings_end_the_connection() {
    let ping = Frame::new(kind::PING, 0, 0, [0; 8]).bytes();
    flood(|_| ping.clone(), 400_000);
}

#[test]
fn post_action_follows_a_stream_too() {
    let backend = Backend::with(|_| Answer::text("counted"));
    let server = Server::start(
        http2(
            "location /content { post_action @count; return 200 done; }
             location @count { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    assert_eq!(client.get("/content").body(), b"done");
    backend.wait_requests(1);
    server.wait_for_access("\"GET /content HTTP/2.0\" 200");
}
