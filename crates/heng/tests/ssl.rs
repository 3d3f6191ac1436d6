//! TLS towards clients: certificates, what is negotiated, sessions, clients' certificates.

use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::tls::rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use testkit::tls::rustls::version::{TLS12, TLS13};
use testkit::tls::{Identity, Speaks, TlsClient, parameters, rcgen};
use testkit::{Config, Server};

/// A server block of TLS with `inside`, and the files `a.crt` and `a.key`.
fn config(inside: &str) -> Config {
    let own = Identity::own("a.example");
    let text = format!(
        "server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name a.example;
             ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key; {inside}
             location / {{
                 return 200 '$ssl_protocol $ssl_cipher $ssl_curve $ssl_session_reused $scheme \
                             $https'; }}
             location /verify {{ return 200 $ssl_client_verify; }} }}"
    );
    Config::http(&text)
        .main("error_log %%DIR%%/error.log info;")
        .file("a.crt", &own.certificate)
        .file("a.key", &own.key)
}

/// The last line of an answer.
fn body(answer: std::io::Result<String>) -> String {
    let answer = answer.expect("an answer");
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn requests_and_answers_of_any_size() {
    let big = "0123456789abcdef".repeat(200_000);
    let inside = "location /files { root %%DIR%%; } \
                  location /echo { proxy_pass http://127.0.0.1:%%PORT_0%%/files/big; \
                      proxy_buffering off; }";
    let server = Server::start(config("").file("files/big", &big));
    drop(server);
    let plain = "server { listen 127.0.0.1:%%PORT_1%%; root %%DIR%%; }";
    let inside = inside.replace("%%PORT_0%%", "%%PORT_1%%");
    let own = Identity::own("a.example");
    let text = format!(
        "{plain} server {{ listen 127.0.0.1:%%PORT_0%% ssl; ssl_certificate %%DIR%%/a.crt;
             ssl_certificate_key %%DIR%%/a.key; {inside} }}"
    );
    let config = Config::http(&text)
        .file("a.crt", &own.certificate)
        .file("a.key", &own.key)
        .file("files/big", &big);
    let server = Server::start(config);
    for client in [TlsClient::new("a.example"), TlsClient::tls12("a.example")] {
        for path in ["/files/big", "/echo"] {
            let answer = client.get(server.port(0), path).unwrap();
            assert!(answer.ends_with(&big), "{path}: {}", answer.len());
        }
    }
}

#[test]
fn what_is_negotiated_is_told() {
    let server = Server::start(config(""));
    let port = server.port(0);
    assert_eq!(
        body(TlsClient::new("a.example").get(port, "/")),
        "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519 . https on"
    );
    let answer = body(TlsClient::tls12("a.example").get(port, "/"));
    assert!(answer.starts_with("TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384 X25519 ."), "{answer}");
}

#[test]
fn plain_requests_are_told_so() {
    let server = Server::start(config(""));
    let answer = server.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("The plain HTTP request was sent to HTTPS port"), "{answer}");
    server.wait_for_log("client sent plain HTTP request to HTTPS port");
    let server =
        Server::start(config("error_page 497 =200 /sent; location /sent { return 200 s; }"));
    assert!(server.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn versions_and_ciphers_can_be_chosen() {
    let check = |inside: &str, tls12: Option<&str>, tls13: Option<&str>| {
        let server = Server::start(config(inside));
        for (version, expected) in [(&TLS12, tls12), (&TLS13, tls13)] {
            let speaks = Speaks { versions: &[version], ..Speaks::default() };
            let answer = TlsClient::that("a.example", speaks).get(server.port(0), "/");
            match expected {
                None => assert!(answer.is_err(), "{inside}"),
                Some(expected) => {
                    let answer = body(answer);
                    assert!(answer.contains(expected), "{inside}: {answer}");
                }
            }
        }
    };
    let (tls12, tls13) = (Some("TLSv1.2 ECDHE-ECDSA-AES256"), Some("TLS_AES_256_GCM_SHA384"));
    check("", tls12, tls13);
    check("ssl_protocols TLSv1.2;", tls12, None);
    check("ssl_protocols TLSv1.3;", None, tls13);
    check("ssl_ciphers CHACHA20;", Some("ECDHE-ECDSA-CHACHA20-POLY1305"), tls13);
    check("ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;", tls12, Some("TLS_AES_128"));
    check("ssl_conf_command MinProtocol TLSv1.3;", None, tls13);
    check("ssl_ecdh_curve X25519MLKEM768;", None, Some("X25519MLKEM768"));
    check("ssl_ecdh_curve secp384r1;", Some("secp384r1"), Some("secp384r1"));
}

#[test]
fn the_servers_order_may_count() {
    let suites = vec![
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ];
    for (inside, expected) in [("", "AES128"), ("ssl_prefer_server_ciphers on;", "AES256")] {
        let server = Server::start(config(inside));
        let provider = testkit::tls::rustls::crypto::CryptoProvider {
            cipher_suites: suites.clone(),
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        };
        let client = TlsClient::that(
            "a.example",
            Speaks { provider, versions: &[&TLS12], ..Speaks::default() },
        );
        assert!(body(client.get(server.port(0), "/")).contains(expected), "{inside}");
    }
}

#[test]
fn names_lead_to_certificates() {
    let (a, b, other) =
        (Identity::own("a.example"), Identity::own("b.example"), Identity::own("*"));
    let server = Server::start(
        Config::http(
            "ssl_certificate %%DIR%%/other.crt; ssl_certificate_key %%DIR%%/other.key;
             server { listen 127.0.0.1:%%PORT_0%% ssl default_server; ssl_reject_handshake on; }
             server { listen 127.0.0.1:%%PORT_0%% ssl; server_name a.example;
                 ssl_certificate %%DIR%%/a.example.crt; ssl_certificate_key %%DIR%%/a.example.key;
                 return 200 a; }
             server { listen 127.0.0.1:%%PORT_0%% ssl; server_name ~^b\\.;
                 ssl_certificate %%DIR%%/$ssl_server_name.crt;
                 ssl_certificate_key %%DIR%%/$ssl_server_name.key;
                 ssl_certificate_cache max=4 valid=1h inactive=1h;
                 return 200 b; }
             server { listen 127.0.0.1:%%PORT_0%% ssl; server_name c.example; return 200 c; }",
        )
        .file("a.example.crt", &a.certificate)
        .file("a.example.key", &a.key)
        .file("b.example.crt", &b.certificate)
        .file("b.example.key", &b.key)
        .file("other.crt", &other.certificate)
        .file("other.key", &other.key),
    );
    let port = server.port(0);
    let is_shown = |name: &str, identity: &Identity| {
        let mut connection = TlsClient::new(name).connect(port).unwrap();
        let shown = String::from_utf8_lossy(&connection.certificate()).into_owned();
        let common = identity.issuer.key().public_key_raw().to_vec();
        let der = connection.certificate();
        assert!(der.windows(common.len()).any(|part| part == common), "{name}: {shown}");
        connection.get("/").unwrap()
    };
    assert!(is_shown("a.example", &a).ends_with("\r\n\r\na"));
    assert!(is_shown("b.example", &b).ends_with("\r\n\r\nb"));
    assert!(is_shown("c.example", &other).ends_with("\r\n\r\nc"));
    assert!(TlsClient::new("d.example").connect(port).is_err());
    // The cache has it, though the files are gone; those of other names are not there.
    std::fs::remove_file(server.path("b.example.crt")).unwrap();
    assert!(is_shown("b.example", &b).ends_with("\r\n\r\nb"));
    assert!(TlsClient::new("b.nowhere").connect(port).is_err());
    server.wait_for_log("cannot load certificate");
}

#[test]
fn sessions_are_taken_up_again() {
    let resumes = |server: &Server, client: &TlsClient| {
        body(client.get(server.port(0), "/"));
        body(client.get(server.port(0), "/")).split(' ').nth(3) == Some("r")
    };
    let clients = || [TlsClient::new("a.example"), TlsClient::tls12("a.example")];
    for (inside, expected) in [
        ("", true),
        ("ssl_session_tickets off;", false),
        ("ssl_session_tickets off; ssl_session_cache shared:s:1m;", true),
        ("ssl_session_tickets off; ssl_session_cache builtin:100;", true),
    ] {
        // One worker: what is builtin is not shared.
        let server = Server::start(config(inside).globals("worker_processes 1;"));
        for client in clients() {
            assert_eq!(resumes(&server, &client), expected, "{inside}");
        }
    }
    let server = Server::start(config("ssl_session_timeout 1s;"));
    for client in clients() {
        body(client.get(server.port(0), "/"));
        let begun = std::time::Instant::now();
        // Times of sessions are whole seconds.
        server.wait_until("two seconds", || begun.elapsed().as_millis() > 2100);
        let text = body(client.get(server.port(0), "/"));
        assert_eq!(text.split(' ').nth(3), Some("."), "{text}");
    }
}

#[test]
fn tickets_of_other_servers_with_the_same_key_are_taken() {
    let keys = |first: u8, second: u8| {
        let line = "ssl_session_ticket_key %%DIR%%/1.key; ssl_session_ticket_key %%DIR%%/2.key;";
        config(line).file("1.key", [first; 48]).file("2.key", [second; 80])
    };
    let own = Identity::own("a.example");
    let same = |config: Config| config.file("a.crt", &own.certificate).file("a.key", &own.key);
    let client = TlsClient::new("a.example");
    let first = Server::start(same(keys(1, 2)));
    body(client.get(first.port(0), "/"));
    // The first one's key is the second one's second.
    let second = Server::start(same(keys(3, 1)).file("2.key", [1; 48]));
    assert!(body(client.get(second.port(0), "/")).contains(" r "));
    let third = Server::start(same(keys(5, 6)));
    assert!(body(client.get(third.port(0), "/")).contains(" . "));
}

#[test]
fn certificates_of_clients_are_asked_for_and_checked() {
    let root = Identity::authority("root");
    let middle = root.issue_authority("middle");
    let (good, deep, stranger) =
        (root.issue("good"), middle.issue("deep"), Identity::own("stranger"));
    let chain = Identity {
        certificate: format!("{}{}", deep.certificate, middle.certificate),
        key: deep.key.clone(),
        issuer: deep.issuer,
    };
    let revoked = root.issue("revoked");
    let list = root.revokes(77);
    drop(revoked);
    let mut numbered = parameters("revoked", false);
    numbered.serial_number = Some(rcgen::SerialNumber::from(77));
    let revoked = Identity::made(numbered, Some(&root));
    let check = |inside: &str, shows: Option<&Identity>, expected: &str| {
        let config = config(inside).file("root.crt", &root.certificate).file("root.crl", &list);
        let server = Server::start(config);
        let client = match shows {
            None => TlsClient::new("a.example"),
            Some(identity) => TlsClient::showing("a.example", identity),
        };
        let answer = client.get(server.port(0), "/verify").unwrap();
        assert!(answer.contains(expected), "{inside}: {answer}");
    };
    let on = "ssl_verify_client on; ssl_client_certificate %%DIR%%/root.crt;";
    let optional = "ssl_verify_client optional; ssl_trusted_certificate %%DIR%%/root.crt;";
    check("", Some(&good), "\r\n\r\nNONE");
    check(on, Some(&good), "\r\n\r\nSUCCESS");
    check(on, None, "400 No required SSL certificate was sent");
    check(on, Some(&stranger), "400 The SSL certificate error");
    check(optional, None, "\r\n\r\nNONE");
    check(optional, Some(&good), "\r\n\r\nSUCCESS");
    check(optional, Some(&stranger), "400 The SSL certificate error");
    let no_ca = "ssl_verify_client optional_no_ca;";
    check(no_ca, Some(&stranger), "\r\n\r\nFAILED:self-signed certificate");
    check(&format!("{on} ssl_verify_depth 0;"), Some(&chain), "400 The SSL certificate error");
    check(&format!("{on} ssl_verify_depth 1;"), Some(&chain), "\r\n\r\nSUCCESS");
    let list = format!("{on} ssl_crl %%DIR%%/root.crl;");
    check(&list, Some(&good), "\r\n\r\nSUCCESS");
    check(&list, Some(&revoked), "400 The SSL certificate error");
    check(on, Some(&revoked), "\r\n\r\nSUCCESS");
}

#[test]
fn a_response_of_ocsp_is_shown() {
    // One that says `unauthorized` is the shortest.
    let response = b"\x30\x03\x0a\x01\x06";
    let file = "ssl_stapling_file %%DIR%%/o.der;";
    for (inside, expected) in [("ssl_stapling on;", &response[..]), ("", b"")] {
        let config = config(&format!("{inside} {file}")).file("o.der", response);
        let server = Server::start(config);
        let client = TlsClient::new("a.example");
        body(client.get(server.port(0), "/"));
        assert_eq!(client.staple(), expected);
    }
    let config = config(&format!("ssl_stapling on; {file}")).file("o.der", b"response");
    Server::check(config).expect(1).says("d2i_OCSP_RESPONSE_bio(\"");
}

#[test]
fn records_are_as_large_as_they_may_be() {
    for (inside, most) in [("", 16 << 10), ("ssl_buffer_size 2k;", 2 << 10)] {
        let location = format!("{inside} location /files {{ root %%DIR%%; }}");
        let server = Server::start(config(&location).file("files/big", vec![b'x'; 100_000]));
        // What goes over the wire: records begin with five bytes that tell their length.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = server.port(0);
        let seen = std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut into));
            let mut all = Vec::new();
            let (mut server, mut client) = (server, client);
            let mut piece = [0; 4096];
            while let Ok(n) = server.read(&mut piece) {
                if n == 0 || client.write_all(&piece[..n]).is_err() {
                    break;
                }
                all.extend_from_slice(&piece[..n]);
            }
            all
        });
        let answer = TlsClient::new("a.example").get(port, "/files/big").unwrap();
        assert!(answer.ends_with("xxx"));
        let bytes = seen.join().unwrap();
        let (mut at, mut largest) = (0, 0);
        while at + 5 <= bytes.len() {
            let length = usize::from(bytes[at + 3]) << 8 | usize::from(bytes[at + 4]);
            largest = largest.max(length);
            at += 5 + length;
        }
        // The tag and the type of the content come on top.
        assert!((most..=most + 32).contains(&largest), "{inside}: {largest}");
    }
}

#[test]
fn keys_may_be_encrypted() {
    // Made by: openssl ecparam -name prime256v1 -genkey | openssl pkcs8 -topk8 -passout pass:secret
    let plain = Identity::own("a.example");
    let directory = Server::start(config("").file("plain.key", &plain.key));
    let made = std::process::Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret", "-in"])
        .arg(directory.path("plain.key"))
        .output()
        .expect("openssl");
    let key = String::from_utf8(made.stdout).unwrap();
    assert!(key.contains("ENCRYPTED"), "{key}");
    let config = |passwords: &str| {
        config("ssl_password_file %%DIR%%/passwords;")
            .file("a.crt", &plain.certificate)
            .file("a.key", &key)
            .file("passwords", passwords)
    };
    let server = Server::start(config("wrong\nsecret\n"));
    body(TlsClient::new("a.example").get(server.port(0), "/"));
    let refused = Server::check(config("wrong\n"));
    assert!(refused.stderr.contains("cannot load certificate key"), "{}", refused.stderr);
}

#[test]
fn secrets_are_logged_for_debugging() {
    let server = Server::start(config("ssl_key_log %%DIR%%/keys.log;"));
    body(TlsClient::new("a.example").get(server.port(0), "/"));
    assert!(server.read("keys.log").contains("CLIENT_TRAFFIC_SECRET_0 "));
}

#[test]
fn a_reload_brings_new_certificates_and_keeps_sessions() {
    // However long the reload takes.
    let mut server = Server::start(config("keepalive_min_timeout 1h;"));
    let client = TlsClient::new("a.example");
    let before = client.connect(server.port(0)).unwrap().certificate();
    let mut kept = client.connect(server.port(0)).unwrap();
    server.reconfigure(config(""));
    server.reload();
    let fresh = TlsClient::new("a.example").connect(server.port(0)).unwrap();
    assert_ne!(fresh.certificate(), before);
    assert!(kept.get("/").unwrap().ends_with(" on"));
}

#[test]
fn mistakes_are_told_in_nginxs_words() {
    let check = |inside: &str, expected: &str| {
        let own = Identity::own("a");
        let config =
            Config::http(&format!("server {{ listen 127.0.0.1:%%PORT_0%% ssl; {inside} }}"))
                .file("a.crt", &own.certificate)
                .file("a.key", &own.key)
                .file("b.key", Identity::own("b").key);
        let refused = Server::check(config);
        assert!(refused.stderr.contains(expected), "{inside}: {}", refused.stderr);
    };
    let certificate = "ssl_certificate %%DIR%%/a.crt;";
    check("", "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in ");
    check(certificate, "no \"ssl_certificate_key\" is defined for certificate \"");
    let key = |file: &str| format!("{certificate} ssl_certificate_key %%DIR%%/{file};");
    check(&key("c.key"), "cannot load certificate key \"");
    check(&key("b.key"), "key values mismatch");
    check("ssl_certificate c; ssl_certificate_key c;", "cannot load certificate \"");
    let good = key("a.key");
    check(&format!("{good} ssl_protocols TLSv1;"), "\"TLSv1\" is not supported");
    check(&format!("{good} ssl_ciphers RC4;"), "no cipher match");
    check(&format!("{good} ssl_ecdh_curve x;"), "SSL_CTX_set1_curves_list(\"x\") failed");
    check(&format!("{good} ssl_conf_command A b;"), "SSL_CONF_cmd(\"A\", \"b\") failed");
    check(
        &format!("{good} ssl_verify_client on;"),
        "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
    );
}
