//! The fields behind a request's body on their way to backends.

use std::sync::{Arc, Mutex};
use testkit::frames::{END_HEADERS, END_STREAM, block, kind, request_block};
use testkit::{Backend, Config, Frame, FrameClient, FrameServer, Server};

/// A backend of HTTP/1 that keeps what comes up to the end of a chunked body, and a server before
/// it with these lines.
fn recording(lines: &str) -> (Server, Backend, Arc<Mutex<String>>) {
    let heard = Arc::new(Mutex::new(String::new()));
    let told = heard.clone();
    let backend = Backend::script(move |talk| {
        let mut text = Vec::new();
        let is_over = |text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
            let is_chunked = text.contains("Transfer-Encoding: chunked");
            body.is_some_and(|body| match is_chunked {
                true => body.contains("0\r\n") && body.ends_with("\r\n\r\n"),
                false => body.len() == 4,
            })
        };
        while !is_over(&text) {
            match talk.read_some() {
                Ok(more) => text.extend(more),
                Err(_) => return,
            }
        }
        *told.lock().expect("a text") = String::from_utf8_lossy(&text).into_owned();
        talk.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let server = Server::start(
        Config::server(&format!(
            "location / {{ {lines} proxy_http_version 1.1; proxy_set_header X-Own set;
                           proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
        ))
        .with("BACKEND", backend.port()),
    );
    (server, backend, heard)
}

const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
    4\r\nbody\r\n0\r\nX-Sum: 7\r\nX-Own: false\r\nAuthorization: false\r\nHost: b\r\n\r\n";

#[test]
fn trailers_reach_backends_of_http_1_where_they_are_wanted() {
    for buffering in ["", "proxy_request_buffering off;"] {
        let (server, _backend, heard) = recording(&format!("proxy_pass_trailers on; {buffering}"));
        let mut client = server.connect();
        // In two parts, and a request behind them.
        let (first, second) = UPLOAD.split_at(UPLOAD.len() - 40);
        client.send(first);
        client.wait_until_read();
        client.send(format!("{second}GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.read_response().status, 200);
        let text = heard.lock().expect("a text").clone();
        assert!(text.ends_with("4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n"), "{text}");
        // Without the directive they are checked and dropped.
        let (server, _backend, heard) = recording(buffering);
        let mut client = server.connect();
        client.send(UPLOAD);
        assert_eq!(client.read_response().status, 200);
        let text = heard.lock().expect("a text").clone();
        assert!(text.contains("body") && !text.contains("X-Sum"), "{text}");
    }
}

#[test]
fn trailers_that_are_none_are_refused() {
    let (server, backend, _heard) = recording("proxy_pass_trailers on;");
    let mut client = server.connect();
    client.send(UPLOAD.replace("X-Sum:", "X Sum:"));
    assert_eq!(client.read_response().status, 400);
    let mut client = server.connect();
    let _ = client.try_send(UPLOAD.replace("X-Sum: 7", &format!("X-Sum: {}", "7".repeat(20_000))));
    assert_eq!(client.read_response().status, 400);
    assert_eq!(backend.connections(), 0);
}

/// A backend of HTTP/2 that answers with 200 when a header list ends the request, else with 204.
fn framed() -> (Backend, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let backend = Backend::script(move |talk| {
        let mut server = FrameServer::accept(talk);
        let id = server.head();
        let last = loop {
            let frame = server.try_read().expect("a frame");
            if frame.stream == id && frame.flags & END_STREAM != 0 {
                break frame;
            }
        };
        let status = if last.kind == kind::HEADERS { "200" } else { "204" };
        *told.lock().expect("bytes") = last.payload;
        let flags = END_HEADERS | END_STREAM;
        server.send(Frame::new(kind::HEADERS, flags, id, block(&[(":status", status)])));
        let _ = server.try_read_kind(kind::GO_AWAY);
    });
    (backend, heard)
}

/// Characters whose code is longer in Huffman's, so that they stand in a block as they are.
const NAME: &str = "~~~~";

#[test]
fn trailers_reach_backends_of_http_2() {
    for lines in [
        "grpc_pass grpc://127.0.0.1:%%BACKEND%%;",
        "proxy_http_version 2; proxy_pass http://127.0.0.1:%%BACKEND%%;",
        "proxy_http_version 2; proxy_request_buffering off; proxy_pass http://127.0.0.1:%%BACKEND%%;",
    ] {
        let (backend, heard) = framed();
        let server = Server::start(
            Config::server(&format!("http2 on; location / {{ {lines} }}"))
                .with("BACKEND", backend.port()),
        );
        let mut client = FrameClient::connect(server.port(0));
        let id = client.request(&request_block("POST", "/", &[]), 0);
        client.send(Frame::new(kind::DATA, 0, id, "body"));
        let trailers = block(&[(NAME, "~~~~~")]);
        client.send(Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, id, trailers));
        assert_eq!(client.answer(id).status(), 200, "{lines}");
        let block = heard.lock().expect("bytes").clone();
        assert!(block.windows(5).any(|part| part == b"~~~~~"), "{block:?}");
    }
}

/// From chunks to frames.
#[test]
fn trailers_change_their_protocol() {
    let (backend, heard) = framed();
    let server = Server::start(
        Config::server(
            "location / { proxy_http_version 2; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send(UPLOAD.replace("X-Sum", NAME));
    assert_eq!(client.read_response().status, 200);
    let block = heard.lock().expect("bytes").clone();
    assert!(block.windows(4).any(|part| part == NAME.as_bytes()), "{block:?}");
}

/// RFC 9113 sections 8.1 and 8.2.
#[test]
fn malformed_trailers_reset_the_stream() {
    let refusing = Backend::refusing();
    let server = Server::start(
        Config::server("http2 on; location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", refusing.port()),
    );
    let answer = |fields: (&str, &str)| {
        let mut client = FrameClient::connect(server.port(0));
        let id = client.request(&request_block("POST", "/", &[]), 0);
        client.send(Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, id, block(&[fields])));
        client.answer(id)
    };
    assert_eq!(answer(("fine", "a")).status(), 502);
    for fields in [(":path", "/"), ("Upper", "a"), ("connection", "a"), ("a", "b\nc")] {
        assert_eq!(answer(fields).reset(), Some(1), "{fields:?}");
    }
}
