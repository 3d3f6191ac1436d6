//! What OpenSSL's own programs and scanners of TLS find: a responder and a client of OCSP, early
//! data, Mozilla's recommendations, known weaknesses. Nothing here leaves the machine.
//!
//! Needs: openssl, testssl, python3, pip:sslyze.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use testkit::ocsp::{Answers, responder};
use testkit::tls::rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose, SerialNumber};
use testkit::tls::{Identity, parameters};
use testkit::{Backend, Config, Port, Server};

/// A certificate for `localhost` as authorities issue them today: of 90 days, with the address of
/// a responder.
fn leaf(root: &Identity, url: &str) -> Identity {
    let mut leaf = parameters("localhost", false);
    let now = SystemTime::now();
    leaf.not_before = (now - Duration::from_secs(3600)).into();
    leaf.not_after = (now + Duration::from_secs(80 * 86_400)).into();
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.serial_number = Some(SerialNumber::from(0x1234_5678_9abc));
    leaf.custom_extensions.push(responder(url));
    Identity::made(leaf, Some(root))
}

/// A server that shows `leaf`, with `inside`.
fn server(inside: &str, root: &Identity, leaf: &Identity) -> Config {
    let text = format!(
        "server {{ listen 127.0.0.1:%%PORT_0%% ssl; http2 on; server_name localhost;
             ssl_certificate %%DIR%%/leaf.crt; ssl_certificate_key %%DIR%%/leaf.key;
             {inside} return 200 hello; }}"
    );
    Config::http(&text)
        .main("error_log %%DIR%%/error.log error; worker_processes 2;")
        .file("leaf.crt", format!("{}{}", leaf.certificate, root.certificate))
        .file("leaf.key", &leaf.key)
        .file("root.crt", &root.certificate)
        .file("root.key", &root.key)
}

/// A server with the defaults and a staple.
fn scanned(inside: &str) -> (Server, Backend) {
    let root = Identity::authority("root");
    let answers = Answers::by(&root);
    let backend = Backend::with(move |request| answers.to_request(request));
    let leaf = leaf(&root, &format!("http://127.0.0.1:{}/", backend.port()));
    let server = Server::start(server(&format!("ssl_stapling on; {inside}"), &root, &leaf));
    server.wait_until("a staple", || status(&server).contains("OCSP Response Status: successful"));
    (server, backend)
}

/// Runs a program to its end: what it said, and whether it calls that a success.
fn run(program: &str, arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot run: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// What OpenSSL's client sees, the staple among it.
fn status(server: &Server) -> String {
    let to = format!("127.0.0.1:{}", server.port(0));
    let usual = ["s_client", "-connect", &to, "-servername", "localhost", "-status"];
    run("openssl", &usual).0
}

/// A program that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_responder_of_openssl_is_understood() {
    let port = Port::reserve();
    let root = Identity::authority("root");
    let leaf = leaf(&root, &format!("http://127.0.0.1:{port}/"));
    for (state, expected) in [
        ("V\t400101000000Z\t", "Cert Status: good"),
        ("R\t400101000000Z\t250101000000Z", "no response sent"),
    ] {
        for names_itself in [&[][..], &["-resp_key_id"]] {
            let index = format!("{state}\t123456789ABC\tunknown\t/CN=localhost\n");
            let config = server("ssl_stapling on; ssl_stapling_verify on;", &root, &leaf);
            // Until the responder is there the server asks in vain.
            let server = Server::start(config.file("index", index));
            let path = |name: &str| server.path(name).display().to_string();
            let mut openssl = Command::new("openssl");
            openssl.args(["ocsp", "-port", &port.to_string(), "-index", &path("index")]);
            openssl.args(["-CA", &path("root.crt"), "-rsigner", &path("root.crt")]);
            openssl.args(["-rkey", &path("root.key"), "-ndays", "1"]).args(names_itself);
            openssl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut openssl = Running(openssl.spawn().expect("openssl runs"));
            let said = openssl.0.stdout.take().expect("its output");
            let mut line = String::new();
            BufReader::new(said).read_line(&mut line).expect("a line");
            assert!(line.starts_with("ACCEPT"), "{line}");
            server.reload();
            match state.starts_with('V') {
                true => server.wait_until(expected, || status(&server).contains(expected)),
                false => {
                    server.wait_for_log("certificate status \"revoked\" in the OCSP response");
                    let status = status(&server);
                    assert!(status.contains(expected), "{status}");
                }
            }
        }
    }
}

#[test]
fn openssl_sends_early_data_once() {
    let root = Identity::authority("root");
    let leaf = leaf(&root, "http://127.0.0.1:1/");
    let inside = "ssl_early_data on; add_header X-Early \"[$ssl_early_data]\";";
    let server = Server::start(server(inside, &root, &leaf));
    let path = |name: &str| server.path(name).display().to_string();
    server.write("early", "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let to = format!("127.0.0.1:{}", server.port(0));
    let session = path("session");
    let client = |more: &[&str]| {
        let usual = ["s_client", "-connect", &to, "-servername", "localhost", "-ign_eof"];
        run("openssl", &[&usual[..], more].concat()).0
    };
    // A first request, so that the session has come when the server closes.
    let mut first = Command::new("openssl");
    first.args(["s_client", "-connect", &to, "-servername", "localhost", "-ign_eof", "-sess_out"]);
    first.arg(&session).stdin(std::fs::File::open(path("early")).expect("the request"));
    let first = first.output().expect("openssl runs");
    let first = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(first.contains("X-Early: []"), "{first}");
    assert!(first.contains("Max Early Data: 16384"), "{first}");
    let again = ["-sess_in", &session, "-early_data", &path("early")];
    let accepted = client(&again);
    assert!(accepted.contains("Early data was accepted"), "{accepted}");
    assert!(accepted.contains("X-Early: [1]"), "{accepted}");
}

#[test]
fn mozillas_recommendations_hold() {
    let (server, _backend) = scanned("");
    let sslyze = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers/python/bin/sslyze");
    let root = server.path("root.crt").display().to_string();
    let to = format!("localhost:{}", server.port(0));
    let usual = ["--mozilla_config=intermediate", "--certinfo_ca_file", &root, &to];
    let (text, success) = run(sslyze, &usual);
    assert!(success && text.contains("OK - Compliant."), "{text}");
    assert!(!text.contains("VULNERABLE -"), "{text}");
}

/// What testssl.sh finds in some of its chapters that is worse than `LOW`, less what is said of
/// this machine's own OpenSSL.
fn findings(server: &Server, chapters: &[&str]) -> Vec<String> {
    let report = server.path("report.csv").display().to_string();
    let root = server.path("root.crt").display().to_string();
    let to = format!("localhost:{}", server.port(0));
    let usual = ["--quiet", "--warnings", "off", "--color", "0", "--nodns", "none"];
    let mine = ["--ip", "127.0.0.1", "--add-ca", &root, "--csvfile", &report, &to];
    let (text, _) = run("testssl", &[&usual[..], chapters, &mine].concat());
    let report = server.read("report.csv");
    let lines: Vec<&str> = report.lines().skip(1).collect();
    assert!(lines.len() > 20, "it looked at little: {text}");
    // "id","fqdn/ip","port","severity","finding","cve","cwe"
    let severity = |line: &str| line.split("\",\"").nth(3).unwrap_or_default().to_owned();
    let bad = |line: &&str| ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&&*severity(line));
    lines.into_iter().filter(bad).map(|line| line.replace('"', "")).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn testssl_finds_no_weak_protocol_or_cipher() {
    let (server, _backend) = scanned("ssl_prefer_server_ciphers on;");
    assert_eq!(findings(&server, &["-p", "-s", "-f", "-P"]), NONE);
}

#[test]
fn testssl_finds_nothing_wrong_with_certificate_and_sessions() {
    let (server, _backend) = scanned("");
    assert_eq!(findings(&server, &["-S"]), NONE);
}

#[test]
fn testssl_finds_no_vulnerability() {
    let (server, _backend) = scanned("");
    assert_eq!(findings(&server, &["-U"]), NONE);
}
