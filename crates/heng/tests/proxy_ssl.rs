//! TLS towards backends: `proxy_pass https://` and what its certificates must be.

use testkit::tls::{Identity, parameters};
use testkit::{Config, Server};

/// A server that speaks TLS at port 1, which tells what it sees, and one at port 0 that passes
/// requests on to it.
fn config(backend: &str, proxy: &str) -> Config {
    let root = Identity::authority("root");
    let middle = root.issue_authority("middle");
    let (leaf, deep, mine) =
        (root.issue("b.example"), middle.issue("b.example"), Identity::own("me"));
    let text = format!(
        "server {{ listen 127.0.0.1:%%PORT_1%% ssl;
             ssl_certificate %%DIR%%/leaf.crt; ssl_certificate_key %%DIR%%/leaf.key;
             ssl_verify_client optional_no_ca; {backend}
             return 200 '$ssl_protocol $ssl_cipher $ssl_session_reused [$ssl_server_name] \
                         $ssl_client_s_dn $connection_requests $host'; }}
         server {{ listen 127.0.0.1:%%PORT_0%%;
             proxy_http_version 1.1; proxy_set_header Connection '';
             {proxy}
             location / {{ proxy_pass https://127.0.0.1:%%PORT_1%%; }}
             location /variable/ {{ proxy_pass https://127.0.0.1:%%PORT_1%%$uri; }} }}"
    );
    Config::http(&text)
        .main("error_log %%DIR%%/error.log info;")
        .file("root.crt", &root.certificate)
        .file("leaf.crt", &leaf.certificate)
        .file("leaf.key", &leaf.key)
        .file("deep.crt", format!("{}{}", deep.certificate, middle.certificate))
        .file("deep.key", &deep.key)
        .file("me.crt", &mine.certificate)
        .file("me.key", &mine.key)
        .file("root.crl", root.revokes(77))
}

#[track_caller]
fn check(backend: &str, proxy: &str, expected: &str) {
    let server = Server::start(config(backend, proxy));
    for path in ["/", "/variable/"] {
        let text = server.get(path).expect(200).text();
        assert!(text.contains(expected), "{proxy}: {text}");
    }
}

#[test]
fn what_is_said_to_backends_can_be_chosen() {
    check("", "", "TLSv1.3 TLS_AES_256_GCM_SHA384 . []");
    check("", "proxy_ssl_protocols TLSv1.2;", "TLSv1.2 ECDHE-ECDSA-AES256");
    let tls12 = "proxy_ssl_protocols TLSv1.2;";
    check("", &format!("{tls12} proxy_ssl_ciphers CHACHA20;"), "ECDHE-ECDSA-CHACHA20-POLY1305");
    let suite = "proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;";
    check("", suite, "TLS_AES_128_GCM_SHA256");
    check("", "proxy_ssl_server_name on; proxy_ssl_name b.example;", "[b.example]");
    check("", "proxy_ssl_name b.example;", "[]");
    let mine = "proxy_ssl_certificate %%DIR%%/me.crt; proxy_ssl_certificate_key %%DIR%%/me.key;";
    check("", mine, "CN=me ");
    let variable = "set $who me; proxy_ssl_certificate %%DIR%%/$who.crt; \
                    proxy_ssl_certificate_key %%DIR%%/$who.key;";
    check("", variable, "CN=me ");
}

#[test]
fn sessions_are_taken_up_again() {
    for (line, expected) in [("", " r "), ("proxy_ssl_session_reuse off;", " . ")] {
        let proxy = format!("{line} proxy_set_header Connection close;");
        let server = Server::start(config("", &proxy).globals("worker_processes 1;"));
        server.get("/").expect(200);
        let text = server.get("/").expect(200).text();
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn connections_are_kept_apart_by_name() {
    let proxy = "proxy_ssl_server_name on; proxy_ssl_name $arg_name;";
    let group = "upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 8; }";
    let text = config("", proxy);
    drop(text);
    let own = Identity::own("b");
    let config = Config::http(&format!(
        "{group} server {{ listen 127.0.0.1:%%PORT_1%% ssl; ssl_certificate %%DIR%%/b.crt;
             ssl_certificate_key %%DIR%%/b.key;
             return 200 '$ssl_server_name $connection_requests'; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; {proxy} proxy_http_version 1.1;
             proxy_set_header Connection ''; location / {{ proxy_pass https://u; }} }}"
    ))
    .globals("worker_processes 1;")
    .file("b.crt", &own.certificate)
    .file("b.key", &own.key);
    let server = Server::start(config);
    let mut client = server.connect();
    for (path, expected) in [
        ("/?name=one", "one 1"),
        ("/?name=one", "one 2"),
        ("/?name=two", "two 1"),
        ("/?name=one", "one 3"),
        ("/?name=two", "two 2"),
    ] {
        assert_eq!(client.get(path).expect(200).text(), expected);
    }
}

#[test]
fn certificates_of_backends_are_checked() {
    let check = |backend: &str, proxy: &str, expected: Result<(), &str>| {
        let server = Server::start(config(backend, proxy));
        match expected {
            Ok(()) => drop(server.get("/").expect(200)),
            Err(message) => {
                server.get("/").expect(502);
                server.wait_for_log(message);
            }
        }
    };
    let verify = "proxy_ssl_verify on; proxy_ssl_trusted_certificate %%DIR%%/root.crt;";
    let named = format!("{verify} proxy_ssl_name b.example;");
    check("", &named, Ok(()));
    check("", verify, Err("upstream SSL certificate does not match \"127.0.0.1\""));
    let stranger = "proxy_ssl_verify on; proxy_ssl_trusted_certificate %%DIR%%/me.crt; \
                    proxy_ssl_name b.example;";
    let reason = "upstream SSL certificate verify error: (21:unable to verify the first \
                  certificate) while SSL handshaking to upstream";
    check("", stranger, Err(reason));
    check("", &format!("{named} proxy_ssl_crl %%DIR%%/root.crl;"), Ok(()));
    let other = Identity::authority("other");
    let server = Server::start(
        config("", &format!("{named} proxy_ssl_crl %%DIR%%/root.crl;"))
            .file("root.crl", other.revokes(77)),
    );
    server.get("/").expect(502);
    server.wait_for_log("(3:unable to get certificate CRL)");
}

#[test]
fn chains_are_as_long_as_they_may_be() {
    for (depth, status) in [(0, 502), (1, 200)] {
        let text = format!(
            "server {{ listen 127.0.0.1:%%PORT_1%% ssl; ssl_certificate %%DIR%%/deep.crt;
                 ssl_certificate_key %%DIR%%/deep.key; return 200; }}
             server {{ listen 127.0.0.1:%%PORT_0%%; proxy_ssl_verify on;
                 proxy_ssl_trusted_certificate %%DIR%%/root.crt; proxy_ssl_name b.example;
                 proxy_ssl_verify_depth {depth};
                 location / {{ proxy_pass https://127.0.0.1:%%PORT_1%%; }} }}"
        );
        let root = Identity::authority("root");
        let middle = root.issue_authority("middle");
        let deep = Identity::made(parameters("b.example", false), Some(&middle));
        let config = Config::http(&text)
            .file("root.crt", &root.certificate)
            .file("deep.crt", format!("{}{}", deep.certificate, middle.certificate))
            .file("deep.key", &deep.key);
        Server::start(config).get("/").expect(status);
    }
}

#[test]
fn keys_may_be_encrypted_and_secrets_logged() {
    let mine = Identity::own("me");
    let plain = Server::start(config("", "").file("plain.key", &mine.key));
    let made = std::process::Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-128-cbc", "-passout", "pass:secret", "-in"])
        .arg(plain.path("plain.key"))
        .output()
        .expect("openssl");
    let proxy = "proxy_ssl_certificate %%DIR%%/me.crt; proxy_ssl_certificate_key %%DIR%%/me.key;
                 proxy_ssl_password_file %%DIR%%/passwords; proxy_ssl_key_log %%DIR%%/keys.log;";
    let config = config("", proxy)
        .file("me.crt", &mine.certificate)
        .file("me.key", &made.stdout)
        .file("passwords", "secret\n");
    let server = Server::start(config);
    assert!(server.get("/").expect(200).text().contains("CN=me "));
    assert!(server.read("keys.log").contains("SERVER_TRAFFIC_SECRET_0 "));
}

#[test]
fn backends_without_tls_are_failures() {
    let config = Config::http(
        "server { listen 127.0.0.1:%%PORT_1%%; return 200; }
         server { listen 127.0.0.1:%%PORT_0%%;
             location / { proxy_pass https://127.0.0.1:%%PORT_1%%; } }",
    );
    let server = Server::start(config);
    server.get("/").expect(502);
    server
        .wait_for_log("SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version");
}

#[test]
fn mistakes_are_told_in_nginxs_words() {
    let check = |proxy: &str, expected: &str| {
        let refused = Server::check(config("", proxy));
        assert!(refused.stderr.contains(expected), "{proxy}: {}", refused.stderr);
    };
    check("proxy_ssl_verify on;", "no proxy_ssl_trusted_certificate for proxy_ssl_verify");
    let certificate = "proxy_ssl_certificate %%DIR%%/me.crt;";
    check(certificate, "no \"proxy_ssl_certificate_key\" is defined for certificate \"");
    let key = format!("{certificate} proxy_ssl_certificate_key %%DIR%%/leaf.key;");
    check(&key, "key values mismatch");
    check("proxy_ssl_ciphers none;", "no cipher match");
}

#[test]
fn backends_are_checked_over_tls_too() {
    let own = Identity::own("b.example");
    let config = Config::http(
        "upstream u { zone u 256k; server 127.0.0.1:%%PORT_1%%; }
         server { listen 127.0.0.1:%%PORT_1%% ssl; ssl_certificate %%DIR%%/b.crt;
             ssl_certificate_key %%DIR%%/b.key; return 200; }
         server { listen 127.0.0.1:%%PORT_0%%;
             location / { proxy_pass https://u; proxy_ssl_verify on; proxy_ssl_name b.example;
                 proxy_ssl_trusted_certificate %%DIR%%/b.crt;
                 health_check mandatory interval=100ms; } }",
    )
    .file("b.crt", &own.certificate)
    .file("b.key", &own.key);
    let server = Server::start(config);
    server.wait_until("the check has passed", || server.get("/").status == 200);
}
