//! Several requests at once on one connection to a backend that speaks HTTP/2.

use std::sync::{Arc, Mutex};
use testkit::frames::{END_HEADERS, END_STREAM, block, kind, request_block};
use testkit::{Backend, Client, Config, Frame, FrameClient, FrameServer, Gate, Server};

const MAX_CONCURRENT_STREAMS: u16 = 3;
const CANCEL: u32 = 8;
const REFUSED_STREAM: u32 = 7;

/// A server that hands everything to `backend` over HTTP/2; `group` are lines of its group,
/// `lines` of its location.
fn before(backend: &Backend, group: &str, lines: &str) -> Server {
    Server::start(
        Config::http(&format!(
            "error_log %%DIR%%/error.log info;
             upstream u {{ server 127.0.0.1:%%BACKEND%%; {group} }}
             server {{ listen 127.0.0.1:%%PORT_0%%; http2 on; client_max_body_size 0;
                       location / {{ proxy_http_version 2; {lines} proxy_pass http://u; }} }}"
        ))
        .with("BACKEND", backend.port()),
    )
}

/// Clients that have asked for `/` and wait.
fn asking(server: &Server, count: usize) -> Vec<Client> {
    let ask = || {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    std::iter::repeat_with(ask).take(count).collect()
}

fn head(stream: u32) -> Frame {
    Frame::new(kind::HEADERS, END_HEADERS, stream, block(&[(":status", "200")]))
}

fn reset(stream: u32, code: u32) -> Frame {
    Frame::new(kind::RESET, 0, stream, code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Frame {
    Frame::new(kind::GO_AWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A backend that answers each request at once, with the number of its connection.
fn prompt() -> Backend {
    Backend::script(|talk| {
        let number = talk.number.to_string();
        let mut server = FrameServer::accept(talk);
        while let Some(id) = server.try_head() {
            server.answer(id, &number);
        }
    })
}

#[test]
fn requests_that_come_together_share_a_connection() {
    let backend = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        let ids: Vec<u32> = (0..20).map(|_| server.head()).collect();
        // The last one first: nobody waits for anybody.
        ids.iter().rev().for_each(|id| server.answer(*id, "shared"));
        let _ = server.try_read_kind(kind::GO_AWAY);
    });
    for lines in ["", "proxy_buffering off;"] {
        let before_this = backend.connections();
        let server = before(&backend, "", lines);
        for mut client in asking(&server, 20) {
            assert_eq!(client.read_response().text(), "shared");
        }
        assert_eq!(backend.connections() - before_this, 1);
    }
}

/// Groups that a URL implies keep no connection, but share what is under way.
#[test]
fn a_url_shares_connections_that_are_in_use() {
    let backend = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        let ids: Vec<u32> = (0..5).map(|_| server.head()).collect();
        ids.iter().for_each(|id| server.answer(*id, "shared"));
        assert!(server.try_read_kind(kind::HEADERS).is_none(), "it is closed after the last");
    });
    let server = Server::start(
        Config::server("location / { grpc_pass grpc://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    for round in 1..=2 {
        for mut client in asking(&server, 5) {
            assert_eq!(client.read_response().text(), "shared");
        }
        assert_eq!(backend.connections(), round);
    }
}

/// `keepalive 0`: no request uses a connection of another.
#[test]
fn a_group_without_keepalive_shares_nothing() {
    let backend = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        let id = server.head();
        server.answer(id, "alone");
        assert_eq!(server.try_head(), None);
    });
    let server = before(&backend, "keepalive 0;", "");
    for mut client in asking(&server, 3) {
        assert_eq!(client.read_response().text(), "alone");
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn no_more_requests_at_once_than_the_backend_takes() {
    let gate = Gate::new();
    let full = gate.clone();
    let backend = Backend::script(move |talk| {
        let mut server = FrameServer::accept_with(talk, &[(MAX_CONCURRENT_STREAMS, 2)]);
        let ids = [server.head(), server.head()];
        full.pass();
        // Nothing is to come before one of them has an answer.
        server.send(Frame::new(kind::PING, 0, 0, [7; 8]));
        loop {
            let frame = server.try_read().expect("an answer to PING");
            match frame.kind {
                kind::PING => break,
                kind => assert_ne!(kind, kind::HEADERS),
            }
        }
        ids.iter().for_each(|id| server.answer(*id, "two"));
        let _ = server.try_read_kind(kind::GO_AWAY);
    });
    let server = before(&backend, "", "");
    let mut clients = asking(&server, 6);
    gate.wait_arrived(3);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "two");
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn requests_one_after_another_use_one_connection() {
    let backend = prompt();
    let server = before(&backend, "", "");
    for _ in 0..5 {
        assert_eq!(server.get("/").text(), "1");
    }
    // After so many requests it is closed.
    let backend = prompt();
    let server = before(&backend, "keepalive_requests 2;", "");
    let texts: Vec<String> = (0..5).map(|_| server.get("/").text()).collect();
    assert_eq!(texts, ["1", "1", "2", "2", "3"]);
}

#[test]
fn a_connection_rests_as_long_as_it_may() {
    let backend = prompt();
    let server = before(&backend, "keepalive_timeout 50ms;", "");
    assert_eq!(server.get("/").text(), "1");
    backend.wait_open_connections(0);
    assert_eq!(server.get("/").text(), "2");
    let backend = prompt();
    let server = before(&backend, "keepalive_time 1ms;", "");
    server.wait_until("another connection", || server.get("/").text() != "1");
}

/// A backend may say things to a connection that has no request.
#[test]
fn a_resting_connection_listens() {
    let backend = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        while let Some(id) = server.try_head() {
            server.answer(id, "one");
            server.send(Frame::new(kind::PING, 0, 0, [1; 8]));
            let pong = server.try_read_kind(kind::PING).expect("an answer");
            assert_eq!((pong.flags, pong.payload), (1, vec![1; 8]));
        }
    });
    let server = before(&backend, "", "");
    for _ in 0..3 {
        assert_eq!(server.get("/").text(), "one");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_client_that_leaves_resets_its_request_only() {
    let gate = Gate::new();
    let left = gate.clone();
    let backend = Backend::script(move |talk| {
        let mut server = FrameServer::accept(talk);
        let (first, second) = (server.head(), server.head());
        left.pass();
        let frame = server.read_kind(kind::RESET);
        assert_eq!(frame.code(), Some(CANCEL));
        let stays = if frame.stream == first { second } else { first };
        server.answer(stays, "stays");
        let third = server.head();
        server.answer(third, "later");
        let _ = server.try_read_kind(kind::GO_AWAY);
    });
    let server = before(&backend, "", "");
    let mut clients = asking(&server, 2);
    gate.wait_arrived(1);
    drop(clients.pop());
    gate.open();
    assert_eq!(clients[0].read_response().text(), "stays");
    assert_eq!(server.get("/").text(), "later");
    assert_eq!(backend.connections(), 1);
}

/// One client takes nothing of its answer; the other one gets its own all the same, and the
/// backend may not send more than the window.
#[test]
fn a_slow_client_holds_back_its_own_answer_only() {
    let window = Arc::new(Mutex::new(0));
    let total = window.clone();
    let backend = Backend::script(move |talk| {
        let mut server = FrameServer::accept(talk);
        let (first, second) = (server.head(), server.head());
        server.send(head(first));
        // As much as comes without a window's growing: the usual one, and twice as much.
        let mut room: i64 = 128 * 1024;
        let mut sent = 0;
        while room >= 16384 {
            server.send(Frame::new(kind::DATA, 0, first, vec![b'x'; 16384]));
            server.send(Frame::new(kind::PING, 0, 0, [1; 8]));
            (room, sent) = (room - 16384, sent + 16384);
            loop {
                let frame = server.try_read().expect("an answer to PING");
                match frame.kind {
                    kind::PING => break,
                    kind::WINDOW_UPDATE if frame.stream == first => {
                        room += i64::from(frame.code().expect("a window"));
                    }
                    _ => {}
                }
            }
        }
        *total.lock().expect("a number") = sent;
        server.answer(second, "quick");
        let _ = server.try_read_kind(kind::GO_AWAY);
    });
    let server = before(&backend, "", "proxy_buffering off;");
    let mut slow = FrameClient::connect(server.port(0));
    slow.request(&request_block("GET", "/", &[]), END_STREAM);
    let mut quick = FrameClient::connect(server.port(0));
    let answer = quick.get("/");
    assert_eq!(answer.body(), b"quick");
    // The client's own window, what waits for it, and the backend's.
    let sent = *window.lock().expect("a number");
    assert!(sent <= 1024 * 1024, "{sent}");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn what_a_leaving_backend_did_not_look_at_goes_elsewhere() {
    let backend = Backend::script(|talk| {
        let number = talk.number;
        let mut server = FrameServer::accept(talk);
        if number > 1 {
            while let Some(id) = server.try_head() {
                server.answer(id, "second");
            }
            return;
        }
        let ids = [server.head(), server.head(), server.head()];
        server.send(go_away(ids[0], 0));
        server.answer(ids[0], "first");
        assert_eq!(server.try_head(), None, "it takes no more");
    });
    let server = before(&backend, "", "");
    // Methods that are not repeated otherwise.
    let mut clients: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = server.connect();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
            client
        })
        .collect();
    let mut texts: Vec<String> = clients.iter_mut().map(|c| c.read_response().text()).collect();
    texts.sort();
    assert_eq!(texts, ["first", "second", "second"]);
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_refused_request_is_asked_again() {
    let backend = Backend::script(|talk| {
        let number = talk.number;
        let mut server = FrameServer::accept(talk);
        let id = server.head();
        match number {
            1 => server.send(reset(id, REFUSED_STREAM)),
            _ => server.answer(id, "taken"),
        }
        let _ = server.try_read_kind(kind::GO_AWAY);
    });
    let server = before(&backend, "", "");
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(client.read_response().text(), "taken");
    // Who refuses for ever is not asked for ever.
    let backend = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        let id = server.head();
        server.send(reset(id, REFUSED_STREAM));
        let _ = server.try_read_kind(kind::GO_AWAY);
    });
    let server = before(&backend, "", "");
    assert_eq!(server.get("/").status, 502);
    assert_eq!(backend.connections(), 2);
}

/// The other requests of a connection that breaks go to the next server of the group.
#[test]
fn a_connection_that_breaks_fails_each_of_its_requests() {
    let bad = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        let _ = (server.head(), server.head());
    });
    let good = prompt();
    let server = Server::start(
        Config::http(
            "upstream u { server 127.0.0.1:%%BAD%% max_fails=2 fail_timeout=1h;
                          server 127.0.0.1:%%GOOD%% backup; }
             server { listen 127.0.0.1:%%PORT_0%%;
                      location / { proxy_http_version 2; proxy_pass http://u; } }",
        )
        .with("BAD", bad.port())
        .with("GOOD", good.port()),
    );
    for mut client in asking(&server, 2) {
        assert_eq!(client.read_response().text(), "1");
    }
    // Both counted: the server is out, and is not asked again.
    assert_eq!(server.get("/").text(), "1");
    assert_eq!(bad.connections(), 1);
}

#[test]
fn an_answer_breaks_off_with_its_backend() {
    let check = |last: fn(u32) -> Vec<Frame>| {
        let backend = Backend::script(move |talk| {
            let mut server = FrameServer::accept(talk);
            let id = server.head();
            let mut frames = vec![head(id), Frame::new(kind::DATA, 0, id, "part")];
            frames.extend(last(id));
            server.send_all(&frames);
            let _ = server.try_read_kind(kind::GO_AWAY);
        });
        let server = before(&backend, "", "proxy_buffering off;");
        let answer = FrameClient::connect(server.port(0)).get("/");
        assert_eq!((answer.status(), answer.body()), (200, b"part".to_vec()));
        assert!(answer.reset().is_some(), "{answer:?}");
    };
    check(|id| vec![reset(id, CANCEL)]);
    check(|_| vec![go_away(0, 5)]);
    check(|id| vec![Frame::new(kind::HEADERS, END_HEADERS, id, block(&[("a", "b")]))]);
    check(|id| vec![Frame::new(kind::HEADERS, 5, id, block(&[(":status", "200")]))]);
    check(|id| vec![Frame::new(kind::DATA, 8, id, [200, 0])]);
}

/// An answer that is complete, and then taken back while the request is not: NO_ERROR only means
/// that no more of the request is wanted (RFC 9113 section 8.1).
#[test]
fn a_complete_answer_is_taken_back_by_an_error_only() {
    let check = |codes: &'static [u32], is_whole: bool| {
        let backend = Backend::script(move |talk| {
            let mut server = FrameServer::accept(talk);
            let id = server.head();
            let trailers = block(&[("grpc-status", "0")]);
            let mut frames = vec![
                head(id),
                Frame::new(kind::DATA, 0, id, "all"),
                Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, id, trailers),
            ];
            frames.extend(codes.iter().map(|code| reset(id, *code)));
            server.send_all(&frames);
            let _ = server.try_read_kind(kind::GO_AWAY);
        });
        let server = Server::start(
            Config::server("http2 on; location / { grpc_pass 127.0.0.1:%%BACKEND%%; }")
                .with("BACKEND", backend.port()),
        );
        let mut client = FrameClient::connect(server.port(0));
        let id = client.request(&request_block("POST", "/", &[]), 0);
        let answer = client.answer(id);
        let trailers = answer.frames.iter().filter(|frame| frame.kind == kind::HEADERS).count() - 1;
        assert_eq!((answer.status(), trailers), (200, usize::from(is_whole)));
    };
    check(&[0], true);
    check(&[CANCEL], false);
    check(&[0, 0], false);
}

/// All requests that wait for a connection learn that there is none.
#[test]
fn who_waits_for_a_connection_in_vain_is_told() {
    let refusing = Backend::refusing();
    let server = before(&refusing, "", "");
    for mut client in asking(&server, 5) {
        assert_eq!(client.read_response().status, 502);
    }
    let backend = Backend::unreachable();
    let server = Server::start(
        Config::http(
            "upstream u { server 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_0%%;
                      location / { proxy_http_version 2; proxy_connect_timeout 100ms;
                                   proxy_pass http://u; } }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut statuses: Vec<u16> =
        asking(&server, 5).iter_mut().map(|client| client.read_response().status).collect();
    statuses.sort_unstable();
    // The first failure takes the server out, or does not: it is the only one.
    assert_eq!(statuses, [504; 5]);
}
