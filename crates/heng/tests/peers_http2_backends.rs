//! HTTP/2 to a real nginx, with h2load and curl in front: nothing is lost, and connections are few.
//!
//! Needs: nginx, h2load, curl.

use std::process::{Child, Command};
use testkit::{Config, Server};

/// nginx, and us before it.
fn pair(lines: &str) -> (Server, Server) {
    let nginx = Server::start(
        Config::http(
            "keepalive_requests 1000000; client_max_body_size 0;
             server { listen 127.0.0.1:%%PORT_0%% http2; root %%DIR%%/html;
                      location /up { dav_methods PUT; create_full_put_path on; } }
             server { listen 127.0.0.1:%%PORT_1%%; location / { stub_status; } }",
        )
        .program("/usr/sbin/nginx")
        .file("html/small", "0123456789")
        .file("html/large", vec![b'l'; 3 << 20]),
    );
    let server = Server::start(
        Config::http(&format!(
            "keepalive_requests 1000000; client_max_body_size 0;
             upstream u {{ server 127.0.0.1:%%NGINX%%; keepalive_requests 1000000; }}
             server {{ listen 127.0.0.1:%%PORT_0%%; http2 on;
                       location / {{ proxy_http_version 2; {lines} proxy_pass http://u; }} }}"
        ))
        .with("NGINX", nginx.port(0)),
    );
    (nginx, server)
}

/// Connections that nginx has accepted for us.
fn accepted(nginx: &Server) -> u64 {
    let text = testkit::get(nginx.port(1), "/").text();
    let line = text.lines().nth(2).unwrap_or_default().trim().to_owned();
    let accepted: u64 = line.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    // The one that asked, and the one by which the start was awaited, if any.
    accepted
}

#[track_caller]
fn load(server: &Server, path: &str, requests: u32, at_once: u32) {
    let (requests_text, at_once) = (requests.to_string(), at_once.to_string());
    let url = format!("http://127.0.0.1:{}{path}", server.port(0));
    let arguments = ["-n", &requests_text, "-c", "4", "-m", &at_once, &url];
    let output = Command::new("h2load").args(arguments).output().expect("h2load runs");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains(&format!("{requests} succeeded, 0 failed, 0 errored")), "{report}");
    assert!(report.contains(&format!("status codes: {requests} 2xx")), "{report}");
}

#[test]
fn many_requests_take_few_connections() {
    for lines in ["", "proxy_buffering off;"] {
        let (nginx, server) = pair(lines);
        let before = accepted(&nginx);
        load(&server, "/small", 4_000, 25);
        load(&server, "/large", 20, 5);
        // A hundred at once fit on one; the answer to each look is one more.
        let made = accepted(&nginx) - before;
        assert!(made <= 3, "{made}");
    }
}

#[test]
fn uploads_reach_nginx() {
    let (nginx, server) = pair("proxy_request_buffering off;");
    server.write("upload", vec![b'u'; 7 << 20]);
    let file = server.path("upload").display().to_string();
    let clients: Vec<Child> = (0..5)
        .map(|n| {
            let url = format!("http://127.0.0.1:{}/up/{n}", server.port(0));
            let usual = ["-sS", "--fail", "--max-time", "60", "--http2-prior-knowledge"];
            let mut curl = Command::new("curl");
            curl.args(usual).args(["-T", &file, &url]).spawn().expect("curl runs")
        })
        .collect();
    for mut client in clients {
        assert!(client.wait().expect("curl ends").success());
    }
    for n in 0..5 {
        assert_eq!(nginx.read(&format!("html/up/{n}")).len(), 7 << 20);
    }
}
