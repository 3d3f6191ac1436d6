//! Large answers, which go from socket to socket through pipes where that can be done.

use testkit::{Answer, Backend, Client, Config, Server};

const LENGTH: usize = 8 << 20;

/// Bytes of which no two neighbouring pages are alike.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i ^ (i >> 9) ^ (i >> 17)) as u8).collect()
}

fn backend() -> Backend {
    let body = pattern(LENGTH);
    Backend::with(move |request| match request.target.as_str() {
        "/cut" => Answer::text(body.clone()).cut_after(LENGTH / 2),
        "/chunked" => Answer::text(body.clone()).chunked(),
        _ => Answer::text(body.clone()),
    })
}

fn server(backend: &Backend, lines: &str) -> Server {
    let pass = "location / { proxy_pass http://127.0.0.1:%%BACKEND%%;";
    Server::start(Config::server(&format!("{pass} {lines} }}")).with("BACKEND", backend.port()))
}

/// How many ends of pipes the worker has open.
fn pipes(server: &Server) -> usize {
    let worker = server.workers()[0];
    let links = std::fs::read_dir(format!("/proc/{worker}/fd")).expect("the worker's descriptors");
    let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
}

fn ask(server: &Server, path: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

#[test]
fn a_large_answer_goes_through_a_pipe() {
    let backend = backend();
    let expected = pattern(LENGTH);
    for lines in ["", "proxy_buffering off;", "proxy_max_temp_file_size 0;"] {
        let server = server(&backend, lines);
        let before = pipes(&server);
        let mut client = ask(&server, "/");
        for _ in 0..2 {
            let response = client.read_response();
            assert!(response.body == expected, "{lines}: {} bytes", response.body.len());
            // The connection is still in step.
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        assert!(client.read_response().body == expected, "{lines}");
        assert!(pipes(&server) > before, "{lines}: nothing went through a pipe");
        // Chunks have to be taken off, so these bytes are seen.
        assert!(ask(&server, "/chunked").read_response().body == expected, "{lines}");
    }
}

#[test]
fn slow_clients_lose_nothing_and_hold_few_pipes() {
    let backend = backend();
    let expected = pattern(LENGTH);
    // The clients do not read until all of them were answered.
    let server = server(&backend, "send_timeout 1h;");
    let mut clients: Vec<Client> = (0..40).map(|_| ask(&server, "/")).collect();
    // Nobody has read anything when the backend has answered everybody.
    backend.wait_requests(40);
    assert!(ask(&server, "/").read_response().body == expected);
    // Both ends of those that may wait, of those that are kept, and of what a worker has anyway.
    assert!(pipes(&server) <= 2 * (16 + 8 + 4), "{} pipes", pipes(&server));
    for client in &mut clients {
        assert!(client.read_response().body == expected);
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_made_whole() {
    let backend = backend();
    let server = server(&backend, "");
    let mut client = ask(&server, "/cut");
    let head = client.read_response_to_head();
    assert_eq!(head.header("Content-Length"), Some(LENGTH.to_string().as_str()));
    let body = client.read_to_end();
    assert!(body.len() < LENGTH && pattern(LENGTH).starts_with(&body), "{} bytes", body.len());
    assert!(body.len() >= LENGTH / 4, "{} bytes", body.len());
    server.wait_for_line("error.log", "upstream prematurely closed connection");
}
