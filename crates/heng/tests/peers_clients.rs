//! Real clients and a real balancer in front: curl, wrk and haproxy see what they expect.
//!
//! Needs: curl, wrk, haproxy.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use testkit::{Answer, Backend, Client, Config, Port, Server, until};

/// Runs curl and returns its output; fails the test when curl fails.
#[track_caller]
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output();
    let output = output.expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {error}");
    text
}

#[test]
fn curl_gets_posts_and_resumes() {
    let backend =
        Backend::with(|request| Answer::text(format!("{} {}", request.method, request.body.len())));
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; listen unix:%%DIR%%/own.sock; client_max_body_size 20m;
             location /api { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /moved { return 301 /file; }",
        )
        .with("BACKEND", backend.port())
        .file("html/file", "0123456789"),
    );
    let base = format!("http://127.0.0.1:{}", server.port(0));
    let url = |path: &str| format!("{base}{path}");
    assert_eq!(curl(&[&url("/file")]), "0123456789");
    assert_eq!(curl(&["-0", &url("/file")]), "0123456789");
    assert_eq!(curl(&["-C", "4", &url("/file")]), "456789");
    assert_eq!(curl(&["-r", "2-3", &url("/file")]), "23");
    assert_eq!(curl(&["-L", &url("/moved")]), "0123456789");
    assert_eq!(curl(&["-d", "a=b", &url("/api")]), "POST 3");
    let socket = server.path("own.sock").display().to_string();
    assert_eq!(curl(&["--unix-socket", &socket, "http://own/file"]), "0123456789");
    assert!(curl(&["-I", &url("/file")]).contains("Content-Length: 10\r\n"));
    // Over a megabyte curl asks with Expect first; without a length it sends chunks.
    server.write("upload", vec![b'x'; 5 << 20]);
    let upload = format!("@{}", server.path("upload").display());
    assert_eq!(curl(&["--data-binary", &upload, &url("/api")]), "POST 5242880");
    let chunked = ["-H", "Transfer-Encoding: chunked", "-T", &upload[1..], &url("/api")];
    assert_eq!(curl(&chunked), "PUT 5242880");
    // Many at once, over connections that are used again.
    let urls: Vec<String> = (0..50).map(|n| url(&format!("/file?{n}"))).collect();
    let mut arguments: Vec<&str> = vec!["--parallel"];
    arguments.extend(urls.iter().map(String::as_str));
    assert_eq!(curl(&arguments), "0123456789".repeat(50));
}

/// Runs wrk for some seconds and returns its report.
fn wrk(port: u16, connections: usize, seconds: usize) -> Child {
    Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg(format!("http://127.0.0.1:{port}/"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("wrk is installed")
}

#[track_caller]
fn report(wrk: Child) -> String {
    let output = wrk.wait_with_output().expect("wrk ends by itself");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn wrk_sees_no_error_under_load_and_reloads() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let server = Server::start(
        Config::http(
            "upstream u { zone u 128k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;
                          keepalive 32; }
             server { listen 127.0.0.1:%%PORT_0%%;
                 location / { proxy_http_version 1.1; proxy_set_header Connection \"\";
                              proxy_pass http://u; } }",
        )
        .main("worker_processes 2;")
        .with("A", backends[0].port())
        .with("B", backends[1].port()),
    );
    server.wait_workers(2);
    let load = wrk(server.port(0), 32, 4);
    for requests in 1..=4 {
        backends[0].wait_requests(requests * 200);
        server.reload();
    }
    let report = report(load);
    assert!(!report.contains("Socket errors"), "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
    assert!(report.contains("requests in"), "{report}");
    let [a, b] = backends.each_ref().map(Backend::request_count);
    assert!(a.abs_diff(b) <= a / 10, "{a} and {b} are not even");
}

/// haproxy with a configuration of its own; ended when dropped.
struct Haproxy(Child);

impl Haproxy {
    fn start(file: &Path) -> Haproxy {
        let haproxy =
            if Path::new("/usr/sbin/haproxy").exists() { "/usr/sbin/haproxy" } else { "haproxy" };
        let mut command = Command::new(haproxy);
        command.arg("-db").arg("-f").arg(file).stderr(Stdio::null());
        Haproxy(command.spawn().expect("haproxy is installed"))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It was started here; its end is all that is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_checks_and_uses_us_as_a_server() {
    let port = Port::reserve();
    let server = Server::start(Config::server(
        "location = /health { return 200 well; } location / { return 200 $http_x_from; }",
    ));
    server.write(
        "haproxy.cfg",
        format!(
            "defaults\n  mode http\n\
             \x20 timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
             frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n\
             backend b\n  option httpchk GET /health\n  http-request set-header X-From haproxy\n\
             \x20 server own 127.0.0.1:{} check inter 50ms\n",
            server.port(0)
        ),
    );
    let _haproxy = Haproxy::start(&server.path("haproxy.cfg"));
    let up = until(|| Client::try_connect(port.number()).is_ok());
    assert!(up, "haproxy does not listen");
    server.wait_for_access("GET /health");
    let mut client = Client::connect(port.number());
    for _ in 0..20 {
        assert_eq!(client.get("/").expect(200).text(), "haproxy");
    }
}
