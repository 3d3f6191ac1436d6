//! Real clients of HTTP/2: curl, nghttp and h2load see what they expect.
//!
//! Needs: curl, nghttp, h2load.

use std::process::Command;
use testkit::{Answer, Backend, Config, Server};

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot run: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    text
}

fn server() -> (Server, Backend) {
    let backend =
        Backend::with(|request| Answer::text(format!("{} {}", request.method, request.body.len())));
    let server = Server::start(
        Config::server(
            "http2 on; root %%DIR%%/html; client_max_body_size 20m; keepalive_requests 100000;
             location /api { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /stream { proxy_request_buffering off;
                                proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port())
        .file("html/file", "0123456789")
        .file("html/large", vec![b'l'; 5 << 20]),
    );
    (server, backend)
}

#[test]
fn curl_speaks_http_2() {
    let (server, _backend) = server();
    let base = format!("http://127.0.0.1:{}", server.port(0));
    let url = |path: &str| format!("{base}{path}");
    let curl = |arguments: &[&str]| {
        let usual = ["-sS", "--max-time", "20", "--http2-prior-knowledge"];
        run("curl", &[&usual[..], arguments].concat())
    };
    assert_eq!(curl(&[&url("/file")]), "0123456789");
    assert_eq!(curl(&["-w", "%{http_version}", "-o", "/dev/null", &url("/file")]), "2");
    assert_eq!(curl(&[&url("/large")]).len(), 5 << 20);
    assert_eq!(curl(&["-r", "2-3", &url("/file")]), "23");
    server.write("upload", vec![b'x'; 5 << 20]);
    let upload = server.path("upload").display().to_string();
    assert_eq!(curl(&["-T", &upload, &url("/api")]), "PUT 5242880");
    assert_eq!(curl(&["-T", &upload, &url("/stream")]), "PUT 5242880");
}

#[test]
fn nghttp_gets_many_at_once() {
    let (server, _backend) = server();
    let url = format!("http://127.0.0.1:{}/large", server.port(0));
    let report = run("nghttp", &["-nas", "-m", "10", &url]);
    assert_eq!(report.matches(" 200 ").count(), 10, "{report}");
}

#[test]
fn h2load_loses_nothing() {
    let (server, _backend) = server();
    let url = format!("http://127.0.0.1:{}/file", server.port(0));
    let report = run("h2load", &["-n", "5000", "-c", "10", "-m", "50", &url]);
    assert!(report.contains("5000 succeeded, 0 failed"), "{report}");
}
