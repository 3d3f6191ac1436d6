//! A browser: Chromium loads a page over HTTP/2 and TLS, and the page tells what it met.
//!
//! Needs: chromium, python3.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use testkit::tls::Identity;
use testkit::{Config, Server};

/// No step of the page takes this long; it gives up by itself before.
const PATIENCE: Duration = Duration::from_secs(60);

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(name)
}

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The backend, its port, and what it prints from then on.
fn backend() -> (Running, u16, Receiver<String>) {
    let mut child = Command::new("python3")
        .args([file("backend.py"), file("page.html")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the backend starts");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    out.read_line(&mut line).expect("its port");
    let port = line.trim().parse().expect("a port");
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    (Running(child), port, told)
}

fn browser(server: &Server, url: &str) -> Running {
    let profile = server.path("profile");
    let child = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--disable-dev-shm-usage", "--ignore-certificate-errors"])
        .args(["--no-proxy-server", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium starts");
    Running(child)
}

#[test]
fn chromium_is_served() {
    let identity = Identity::own("localhost");
    let (_backend, port, told) = backend();
    let server = Server::start(
        Config::http(
            "error_log %%DIR%%/error.log info;
             ssl_certificate cert.pem; ssl_certificate_key cert.key;
             map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
             map $http_sec_fetch_mode $hints { navigate $http2; }
             types { text/css css; }
             upstream u { server 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_0%% ssl; http2 on; client_max_body_size 0;
                      proxy_set_header Upgrade $http_upgrade;
                      proxy_set_header Connection $connection_upgrade;
                      location / { early_hints $hints; proxy_pass http://u; }
                      location /api/ { proxy_pass http://u; proxy_buffering off;
                                       proxy_request_buffering off; }
                      location /static/ { alias %%DIR%%/static/; } }",
        )
        .with("BACKEND", port)
        .file("static/hinted.css", ":root { --hinted: yes; }")
        .file("static/small", [b's'; 100])
        .file("static/large", vec![b'l'; 1 << 20])
        .file("cert.pem", &identity.certificate)
        .file("cert.key", &identity.key),
    );
    let url = format!("https://localhost:{}/", server.port(0));
    let _browser = browser(&server, &url);
    let mut verdicts = Vec::new();
    loop {
        let verdict = told.recv_timeout(PATIENCE);
        match verdict.unwrap_or_else(|_| panic!("no more after {verdicts:?}")).as_str() {
            "end" => break,
            verdict => verdicts.push(verdict.to_owned()),
        }
    }
    assert_eq!(
        verdicts,
        [
            "protocol h2",
            "hints true",
            "style yes",
            &format!("resources {} h2", 50 * 100 + 10 * (1 << 20)),
            "upload true",
            "events 0,1,2",
            "socket hello",
            "aborted /api/after",
        ]
    );
}
