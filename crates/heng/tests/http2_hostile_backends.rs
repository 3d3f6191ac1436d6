//! Backends of HTTP/2 that break the protocol, or flood: the client gets an answer, the connection
//! goes, and what is held meanwhile is bounded (`proxy/http2/mod.rs` says by what).

use std::time::Duration;
use testkit::frames::{END_HEADERS, END_STREAM, block, kind};
use testkit::{Backend, Config, Frame, FrameServer, Server};

/// Longer than any machine takes for what is read here, and shorter than a test may take.
const UNLIMITED: Duration = Duration::from_secs(100);

/// The status that a client gets when a backend behaves like this; the backend ends when its
/// connection is closed. Another server of the program answers afterwards.
///
/// There is as good as no time limit, so that what is found out is so by what was sent, however
/// long it takes to read it.
#[track_caller]
fn status_of(behave: impl Fn(&mut FrameServer<'_>, u32) + Send + Sync + 'static) -> u16 {
    status_within("proxy_read_timeout 1h;", behave)
}

#[track_caller]
fn status_within(
    limit: &str,
    behave: impl Fn(&mut FrameServer<'_>, u32) + Send + Sync + 'static,
) -> u16 {
    let backend = Backend::script(move |talk| {
        let mut server = FrameServer::accept(talk);
        let id = server.head();
        behave(&mut server, id);
        // Until it closes.
        let _ = server.talk.read_to_end();
    });
    let server = Server::start(
        Config::server(&format!(
            "location / {{ proxy_http_version 2; {limit}
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }}
             location /well {{ return 200 well; }}"
        ))
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.set_timeout(UNLIMITED);
    let status = client.get("/").status;
    backend.wait_open_connections(0);
    assert_eq!(server.get("/well").text(), "well");
    status
}

/// Sends the same until the connection is closed, reading nothing.
fn flood(frame: Frame) -> impl Fn(&mut FrameServer<'_>, u32) + Send + Sync + 'static {
    let many: Vec<u8> = frame.bytes().repeat(1000);
    move |server, _| while server.talk.send(&many) {}
}

fn ok(stream: u32) -> Frame {
    Frame::new(kind::HEADERS, END_HEADERS, stream, block(&[(":status", "200")]))
}

#[test]
fn header_blocks_without_end() {
    let begun = |stream| Frame::new(kind::HEADERS, 0, stream, block(&[(":status", "200")]));
    // Without a byte, each.
    let empty = status_of(move |server, id| {
        server.send(begun(id));
        let many = Frame::new(kind::CONTINUATION, 0, id, []).bytes().repeat(100);
        while server.talk.send(&many) {}
    });
    assert_eq!(empty, 502);
    // A field that never ends.
    let long = status_of(move |server, id| {
        server.send(begun(id));
        server.send(Frame::new(kind::CONTINUATION, 0, id, [0, 127, 255, 255, 255, 127]));
        let many = Frame::new(kind::CONTINUATION, 0, id, [b'a'; 1000]).bytes();
        while server.talk.send(&many) {}
    });
    assert_eq!(long, 502);
    // Fields that never end.
    let fields = status_of(move |server, id| {
        server.send(begun(id));
        let many = Frame::new(kind::CONTINUATION, 0, id, block(&[("a", "b")]).repeat(200)).bytes();
        while server.talk.send(&many) {}
    });
    assert_eq!(fields, 502);
    // One entry of the table, again and again: few bytes that mean many.
    let bomb = status_of(move |server, id| {
        let mut text = block(&[(":status", "200")]);
        let value = "v".repeat(3000);
        let mut entry = block(&[("a", value.as_str())]);
        // Kept in the table, where it is the newest: 62.
        entry[0] = 0x40;
        text.extend(entry);
        text.extend([0xbe; 10_000]);
        server.send(Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, id, text));
    });
    assert_eq!(bomb, 502);
}

#[test]
fn control_frames_without_end() {
    // Who reads no answers is read no further; who does overdraws its account.
    let in_vain = |frame| {
        let status = status_within("proxy_read_timeout 2s;", flood(frame));
        assert!([502, 504].contains(&status), "{status}");
    };
    in_vain(Frame::new(kind::PING, 0, 0, [0; 8]));
    in_vain(Frame::new(kind::SETTINGS, 0, 0, []));
    assert_eq!(status_of(flood(Frame::new(kind::WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]))), 502);
    assert_eq!(status_of(flood(Frame::new(kind::PRIORITY, 0, 1, [0; 5]))), 502);
    assert_eq!(status_of(flood(Frame::new(99, 0, 0, [0; 100]))), 502);
    assert_eq!(status_of(flood(Frame::new(kind::RESET, 0, 1, [0, 0, 0, 2]))), 502);
}

#[test]
fn interim_answers_without_end() {
    let hint = block(&[(":status", "103"), ("link", "</a>; rel=preload")]);
    assert_eq!(status_of(flood(Frame::new(kind::HEADERS, END_HEADERS, 1, hint))), 502);
}

#[test]
fn windows_that_overflow() {
    let most = [127, 255, 255, 255];
    assert_eq!(status_of(flood(Frame::new(kind::WINDOW_UPDATE, 0, 0, most))), 502);
    assert_eq!(status_of(flood(Frame::new(kind::WINDOW_UPDATE, 0, 1, most))), 502);
    assert_eq!(status_of(flood(Frame::new(kind::WINDOW_UPDATE, 0, 1, [0; 4]))), 502);
    let settings = Frame::new(kind::SETTINGS, 0, 0, [0, 4, 255, 255, 255, 255]);
    assert_eq!(status_of(move |server, _| server.send(settings.clone())), 502);
}

#[test]
fn frames_that_do_not_belong() {
    let check = |frame: Frame| {
        let shown = format!("{frame:?}");
        let status = status_of(move |server, _| server.send(frame.clone()));
        assert_eq!(status, 502, "{shown}");
    };
    // Longer than was announced (section 4.2), on streams that are none (5.1.1), PUSH_PROMISE that
    // was turned off (6.6), DATA before a head (8.1), and lengths that are wrong (6).
    check(Frame::new(kind::DATA, 0, 1, vec![0; 16_385]));
    check(Frame::new(kind::HEADERS, END_HEADERS, 3, block(&[(":status", "200")])));
    check(Frame::new(kind::HEADERS, END_HEADERS, 2, block(&[(":status", "200")])));
    check(Frame::new(kind::DATA, 0, 5, "x"));
    check(Frame::new(5, END_HEADERS, 1, [0, 0, 0, 2, 0x82]));
    check(Frame::new(kind::DATA, 0, 1, "x"));
    check(Frame::new(kind::PING, 0, 0, [0; 7]));
    check(Frame::new(kind::SETTINGS, 0, 0, [0; 5]));
    check(Frame::new(kind::SETTINGS, 1, 0, [0; 6]));
    check(Frame::new(kind::SETTINGS, 0, 1, []));
    check(Frame::new(kind::GO_AWAY, 0, 0, [0; 7]));
    check(Frame::new(kind::GO_AWAY, 0, 1, [0; 8]));
    check(Frame::new(kind::CONTINUATION, END_HEADERS, 1, block(&[(":status", "200")])));
    // Heads that are none (section 8.3.2).
    let head = |fields: &[(&str, &str)]| {
        check(Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, block(fields)));
    };
    head(&[]);
    head(&[("a", "b")]);
    head(&[(":status", "20")]);
    head(&[(":status", "200"), (":status", "200")]);
    head(&[(":status", "200"), (":path", "/")]);
    head(&[("a", "b"), (":status", "200")]);
    head(&[(":status", "101")]);
    head(&[(":status", "103")]);
    head(&[(":status", "200"), ("Upper", "a")]);
    head(&[(":status", "200"), ("a", "b\nc")]);
    head(&[(":status", "200"), ("content-length", "3")]);
}

/// More of a body than the window lets through.
#[test]
fn data_beyond_the_window() {
    let backend = Backend::script(|talk| {
        let mut server = FrameServer::accept(talk);
        let id = server.head();
        server.send(ok(id));
        let many = Frame::new(kind::DATA, 0, id, vec![b'x'; 16_384]).bytes();
        while server.talk.send(&many) {}
    });
    let server = Server::start(
        Config::server(
            "error_log %%DIR%%/error.log info;
             location / { proxy_http_version 2; proxy_buffering off;
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    // The client reads nothing.
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for_log("upstream violated flow control for stream 1");
    backend.wait_open_connections(0);
}
