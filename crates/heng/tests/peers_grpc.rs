//! gRPC as its own library speaks it: calls of all four kinds through `grpc_pass`, to a service
//! and from a client of grpcio.
//!
//! Needs: python3, pip:grpcio.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use testkit::tls::Identity;
use testkit::{Config, Server};

/// The Python that `cargo xtask test --peers` puts packages into.
fn python() -> Command {
    let mut command =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers/python/bin/python"));
    // What it would tell about forks and proxies is nobody's business here.
    command.env("GRPC_VERBOSITY", "NONE").env_remove("http_proxy").env_remove("https_proxy");
    command
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/grpc").join(name)
}

/// The service; it ends with this value.
struct Service {
    child: Child,
    plain: u16,
    secure: u16,
}

impl Service {
    fn start(identity: &Identity) -> Service {
        let mut child = python()
            .arg(script("service.py"))
            .env("KEY", &identity.key)
            .env("CERTIFICATE", &identity.certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("its ports");
        let mut ports = line.split_whitespace().map(|port| port.parse().expect("a port"));
        let mut port = || ports.next().expect("a port");
        Service { plain: port(), secure: port(), child }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ends by itself when its input does; nothing is to stay behind a failed test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes all calls at the port of a server; with the certificate of one, over TLS.
#[track_caller]
fn call(port: u16, identity: Option<&Identity>) {
    let mut command = python();
    command.arg(script("client.py")).arg(port.to_string());
    command.envs(identity.map(|identity| ("CERTIFICATE", &identity.certificate)));
    let output = command.output().expect("the client runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.trim() == "ok", "{text}{error}");
}

#[test]
fn calls_of_all_kinds_pass() {
    let identity = Identity::own("localhost");
    let service = Service::start(&identity);
    let server = Server::start(
        Config::http(
            "upstream u { server 127.0.0.1:%%PLAIN%%; }
             server { listen 127.0.0.1:%%PORT_0%%; http2 on; client_max_body_size 0;
                      location / { grpc_pass grpc://u; } }",
        )
        .with("PLAIN", service.plain),
    );
    call(server.port(0), None);
}

#[test]
fn calls_of_all_kinds_pass_over_tls() {
    let identity = Identity::own("localhost");
    let service = Service::start(&identity);
    let server = Server::start(
        Config::http(
            "ssl_certificate cert.pem; ssl_certificate_key cert.key;
             grpc_ssl_verify on; grpc_ssl_trusted_certificate cert.pem;
             grpc_ssl_name localhost; grpc_ssl_server_name on;
             upstream u { server 127.0.0.1:%%SECURE%%; }
             server { listen 127.0.0.1:%%PORT_0%% ssl; http2 on; client_max_body_size 0;
                      location / { grpc_pass grpcs://u; } }",
        )
        .with("SECURE", service.secure)
        .file("cert.pem", &identity.certificate)
        .file("cert.key", &identity.key),
    );
    call(server.port(0), Some(&identity));
}

/// What the proxy answers in place of a service is an outcome that clients understand.
#[test]
fn a_service_that_is_not_there_is_unavailable() {
    let refusing = testkit::Backend::refusing();
    let server = Server::start(
        Config::server("http2 on; location / { grpc_pass 127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", refusing.port()),
    );
    let code = format!(
        "import grpc
channel = grpc.insecure_channel('127.0.0.1:{}')
try:
    channel.unary_unary('/test.Test/Unary')(b'', timeout=10)
except grpc.RpcError as error:
    print(error.code())",
        server.port(0)
    );
    let output = python().args(["-c", &code]).output().expect("the client runs");
    // 502 means that (the mapping of HTTP statuses in gRPC's own documents).
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "StatusCode.UNAVAILABLE");
}
