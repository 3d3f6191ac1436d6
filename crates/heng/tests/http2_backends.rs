//! HTTP/2 towards backends: `proxy_http_version 2` and `grpc_pass`, against another server of the
//! same configuration that speaks HTTP/2.

use testkit::frames::{END_STREAM, kind, request_block};
use testkit::{Backend, Config, Frame, FrameClient, Server};

/// A server whose `location /` has these lines, with a server behind it on `%%PORT_1%%` that speaks
/// HTTP/2 and tells what it was asked.
fn pair(front: &str, back: &str) -> Server {
    Server::start(
        Config::http(&format!(
            "error_log %%DIR%%/error.log info;
             upstream u {{ server 127.0.0.1:%%PORT_1%%; keepalive 4; }}
             server {{ listen 127.0.0.1:%%PORT_0%%; http2 on; client_max_body_size 0;
                       location / {{ {front} }} }}
             server {{ listen 127.0.0.1:%%PORT_1%%; http2 on; client_max_body_size 0;
                       add_header X-Connection $connection; {back} }}"
        ))
        .file("f", [b'x'; 300_000]),
    )
}

const TELL: &str = "location / {
    return 200 \"$request_method $request_uri $server_protocol $host $http_x $http_te\";
}";

#[test]
fn proxy_http_version_2_speaks_http_2() {
    let server = pair("proxy_http_version 2; proxy_pass http://u;", TELL);
    for _ in 0..3 {
        let answer = server.get("/a?b");
        assert_eq!((answer.status, answer.text()), (200, "GET /a?b HTTP/2.0 u  ".to_owned()));
    }
    // Connections are kept: one served all of them.
    let connection = |path: &str| server.get(path).header("x-connection").map(str::to_owned);
    assert_eq!(connection("/"), connection("/"));
}

#[test]
fn fields_set_and_hosts_reach_an_http_2_backend() {
    let server = pair(
        "proxy_http_version 2; proxy_set_header X $uri; proxy_set_header Host other.example;
         proxy_pass http://u;",
        TELL,
    );
    assert_eq!(server.get("/p").text(), "GET /p HTTP/2.0 other.example /p ");
}

#[test]
fn large_bodies_pass_both_ways() {
    let server = pair(
        "proxy_http_version 2; proxy_pass http://u;",
        "root %%DIR%%; location /up { return 200 \"$request_length\"; }",
    );
    assert_eq!(server.get("/f").body.len(), 300_000);
    assert_eq!(server.get("/f").body.len(), 300_000);
    let mut client = server.connect();
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    client.send(vec![b'y'; 200_000]);
    assert_eq!(client.read_response().status, 200);
    assert_eq!(server.get("/nothing").status, 404);
    let head = server.exchange("HEAD /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.contains("Content-Length: 300000\r\n"), "{head}");
}

#[test]
fn a_backend_that_does_not_speak_http_2_is_a_bad_gateway() {
    let backend = Backend::with(|_| testkit::Answer::text("HTTP/1"));
    let server = Server::start(
        Config::server(
            "proxy_http_version 2; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    assert_eq!(server.get("/").status, 502);
}

#[test]
fn calls_pass_with_their_trailers() {
    let server = pair(
        "grpc_pass grpc://127.0.0.1:%%PORT_1%%; grpc_set_header X set;",
        "location / { add_trailer grpc-status 0; add_header X-Seen \"$http_x $http_te $host\";
                      root %%DIR%%; }",
    );
    let mut client = FrameClient::connect(server.port(0));
    let id = client.request(&request_block("GET", "/f", &[("te", "trailers")]), END_STREAM);
    let answer = client.answer(id);
    assert_eq!((answer.status(), answer.body().len()), (200, 300_000));
    let last = answer.frames.last().expect("an answer has frames");
    assert_eq!((last.kind, last.flags & END_STREAM), (kind::HEADERS, END_STREAM));
    assert!(last.payload.windows(4).any(|part| part == b"grpc") || last.payload.len() > 5);
    let seen = server.get("/f").header("x-seen").map(str::to_owned);
    assert_eq!(seen.as_deref(), Some("set  127.0.0.1"));
}

/// The request of a call goes on after the head of its answer.
#[test]
fn a_call_flows_both_ways_at_once() {
    let backend = Backend::script(|talk| {
        let mut server = Bare::accept(talk);
        let id = server.head();
        server.send(Frame::new(kind::HEADERS, 4, id, [0x88]));
        loop {
            let data = server.data();
            let end = data.flags & END_STREAM;
            server.send(Frame::new(kind::DATA, end, id, data.payload));
            if end != 0 {
                return;
            }
        }
    });
    let server = Server::start(
        Config::server("http2 on; location / { grpc_pass 127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut client = FrameClient::connect(server.port(0));
    let id = client.request(&request_block("POST", "/", &[]), 0);
    for word in ["one", "two", "three"] {
        client.send(Frame::new(kind::DATA, 0, id, word));
        assert_eq!(client.read_kind(kind::DATA).payload, word.as_bytes());
    }
    client.send(Frame::new(kind::DATA, END_STREAM, id, []));
    assert_eq!(client.answer(id).reset(), None);
}

/// A server of frames, as scripted as they come.
struct Bare<'a> {
    talk: &'a mut testkit::Conversation,
}

impl<'a> Bare<'a> {
    fn accept(talk: &'a mut testkit::Conversation) -> Bare<'a> {
        talk.read_exactly(24).expect("a preface");
        let mut bare = Bare { talk };
        bare.send(Frame::new(kind::SETTINGS, 0, 0, []));
        bare
    }

    fn send(&mut self, frame: Frame) {
        self.talk.send(frame.bytes());
    }

    fn read(&mut self) -> Frame {
        let head = self.talk.read_exactly(9).expect("a frame's head");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = match length {
            0 => Vec::new(),
            _ => self.talk.read_exactly(length).expect("a frame's payload"),
        };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Frame { kind: head[3], flags: head[4], stream, payload }
    }

    /// Waits for a request; its stream.
    fn head(&mut self) -> u32 {
        loop {
            let frame = self.read();
            if frame.kind == kind::HEADERS {
                return frame.stream;
            }
        }
    }

    /// Waits for a part of a body.
    fn data(&mut self) -> Frame {
        loop {
            let frame = self.read();
            if frame.kind == kind::DATA {
                return frame;
            }
        }
    }
}

/// Settings of `grpc_pass` do what those of `proxy_pass` do.
#[test]
fn settings_of_calls() {
    let silent = Backend::script(|talk| {
        let _ = talk.read_to_end();
    });
    let start = |lines: &str| {
        Server::start(
            Config::server(&format!(
                "error_log %%DIR%%/error.log info; location / {{ {lines} \
                 grpc_pass 127.0.0.1:%%BACKEND%%; }} location /page {{ return 200 page; }}"
            ))
            .with("BACKEND", silent.port()),
        )
    };
    let server = start("grpc_read_timeout 50ms;");
    assert_eq!(server.get("/").status, 504);
    let url = format!("upstream: \"grpc://127.0.0.1:{}", silent.port());
    assert!(server.error_log().contains(&url), "{}", server.error_log());
    let said = Server::check(Config::server("location / { grpc_pass grpcs://127.0.0.1:1; }"));
    said.expect(1).says("TLS to gRPC servers is not available");
}

#[test]
fn fields_of_answers_to_calls() {
    let back = "add_header X-Secret a; add_header X-Plain b; location / { return 404 gone; }";
    let front = "grpc_pass u; grpc_hide_header X-Secret; grpc_pass_header Server;";
    let server = pair(front, "location / { add_header X-Secret a; return 200 b; }");
    let answer = server.get("/");
    assert_eq!((answer.status, answer.header("x-secret")), (200, None));
    let front = "grpc_pass u; grpc_intercept_errors on; error_page 404 = /own;";
    let server = pair(front, back);
    assert_eq!(server.get("/").status, 404);
    let front = "grpc_pass u; grpc_buffer_size 1k;";
    let long = format!("location / {{ add_header X-Long {}; return 200; }}", "x".repeat(2000));
    assert_eq!(pair(front, &long).get("/").status, 502);
}
