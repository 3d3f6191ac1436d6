//! TLS towards gRPC servers and uwsgi programs: `grpc_pass grpcs://`, `uwsgi_pass suwsgi://`, and
//! the settings that both share with `proxy_pass https://`.

use testkit::tls::Identity;
use testkit::{Config, Server};

/// What a server tells of a connection, as gRPC's answers (a field) and uwsgi's (a page) show it.
const TOLD: &str = "$ssl_protocol $ssl_cipher $ssl_session_reused [$ssl_server_name] \
                    $ssl_client_s_dn";

/// The files of all tests here.
fn with_files(config: Config) -> Config {
    let root = Identity::authority("root");
    let middle = root.issue_authority("middle");
    let (leaf, deep) = (root.issue("b.example"), middle.issue("b.example"));
    let (mine, other) = (Identity::own("me"), Identity::authority("other"));
    config
        .globals("worker_processes 1;")
        .main("error_log %%DIR%%/error.log info;")
        .file("root.crt", &root.certificate)
        .file("leaf.crt", &leaf.certificate)
        .file("leaf.key", &leaf.key)
        .file("deep.crt", format!("{}{}", deep.certificate, middle.certificate))
        .file("deep.key", &deep.key)
        .file("me.crt", &mine.certificate)
        .file("me.key", &mine.key)
        .file("root.crl", root.revokes(77))
        .file("other.crl", other.revokes(77))
}

/// A server that takes calls over TLS at port 1, with the certificate `leaf` or `deep`, and one
/// that passes them on with `lines`.
fn calls(leaf: &str, lines: &str) -> Config {
    with_files(Config::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT_1%% ssl; http2 on;
             ssl_certificate %%DIR%%/{leaf}.crt; ssl_certificate_key %%DIR%%/{leaf}.key;
             ssl_verify_client optional_no_ca;
             return 200 '$server_protocol $ssl_alpn_protocol $scheme {TOLD}'; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; {lines}
             location / {{ grpc_pass grpcs://127.0.0.1:%%PORT_1%%; }}
             location /variable/ {{ set $to GRPCS://127.0.0.1:%%PORT_1%%; grpc_pass $to; }} }}"
    )))
}

/// The same for uwsgi. A program's answer begins as one of HTTP does, and heads of requests are
/// few bytes that no HTTP server understands: the handshake is told by the log of the server.
fn programs(leaf: &str, lines: &str) -> Config {
    with_files(Config::http(&format!(
        "log_format told escape=none '{TOLD}';
         server {{ listen 127.0.0.1:%%PORT_1%% ssl;
             ssl_certificate %%DIR%%/{leaf}.crt; ssl_certificate_key %%DIR%%/{leaf}.key;
             ssl_verify_client optional_no_ca; access_log %%DIR%%/told.log told; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; uwsgi_param A b; {lines}
             location / {{ uwsgi_pass suwsgi://127.0.0.1:%%PORT_1%%; }}
             location /variable/ {{ set $to suwsgi://127.0.0.1:%%PORT_1%%; uwsgi_pass $to; }} }}"
    )))
}

#[track_caller]
fn check_calls(lines: &str, expected: &str) {
    let server = Server::start(calls("leaf", lines));
    for path in ["/", "/variable/"] {
        let text = server.get(path).expect(200).text();
        assert!(text.contains(expected), "{lines}: {text}");
    }
}

#[track_caller]
fn check_programs(lines: &str, expected: &str) {
    for path in ["/", "/variable/"] {
        let server = Server::start(programs("leaf", lines));
        // What is not HTTP is a bad request, which is no answer of a program with a status.
        server.get(path);
        server.wait_for_line("told.log", expected);
    }
}

/// Checks settings under the name of each family.
#[track_caller]
fn check(lines: &str, expected: &str) {
    check_calls(&lines.replace("%%", "grpc").replace("DIR", "%%DIR%%"), expected);
    check_programs(&lines.replace("%%", "uwsgi").replace("DIR", "%%DIR%%"), expected);
}

#[test]
fn calls_go_over_http_2_above_tls() {
    check_calls("", "HTTP/2.0 h2 https TLSv1.3");
}

#[test]
fn what_is_said_to_servers_can_be_chosen() {
    check("", "TLSv1.3 TLS_AES_256_GCM_SHA384 . []");
    check("%%_ssl_protocols TLSv1.2;", "TLSv1.2 ECDHE-ECDSA-AES256");
    check("%%_ssl_protocols TLSv1.2; %%_ssl_ciphers CHACHA20;", "ECDHE-ECDSA-CHACHA20-POLY1305");
    let suite = "%%_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;";
    check(suite, "TLS_AES_128_GCM_SHA256");
    check("%%_ssl_server_name on; %%_ssl_name b.example;", "[b.example]");
    check("%%_ssl_name b.example;", "[]");
    check("%%_ssl_certificate DIR/me.crt; %%_ssl_certificate_key DIR/me.key;", "CN=me");
    let variable = "set $who me; %%_ssl_certificate DIR/$who.crt; \
                    %%_ssl_certificate_key DIR/$who.key;";
    check(variable, "CN=me");
}

/// The same for `proxy_pass`.
fn requests(leaf: &str, lines: &str) -> Config {
    with_files(Config::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT_1%% ssl; keepalive_timeout 0;
             ssl_certificate %%DIR%%/{leaf}.crt; ssl_certificate_key %%DIR%%/{leaf}.key;
             ssl_verify_client optional_no_ca; return 200 '{TOLD}'; }}
         server {{ listen 127.0.0.1:%%PORT_0%%; {lines}
             location / {{ proxy_pass https://127.0.0.1:%%PORT_1%%; }} }}"
    )))
}

#[test]
fn certificates_named_by_variables_may_be_kept() {
    let other = Identity::own("other");
    for (cache, expected) in [
        ("", "CN=other"),
        ("%%_ssl_certificate_cache off;", "CN=other"),
        ("%%_ssl_certificate_cache max=2 valid=1h inactive=1h;", "CN=me"),
    ] {
        for (family, make) in
            [("proxy", requests as fn(&str, &str) -> Config), ("grpc", calls), ("uwsgi", programs)]
        {
            let lines = format!(
                "set $who me; {cache} %%_ssl_certificate DIR/$who.crt;
                 %%_ssl_certificate_key DIR/$who.key; %%_ssl_session_reuse off;"
            );
            let lines = lines.replace("%%", family).replace("DIR", "%%DIR%%");
            let server = Server::start(make("leaf", &lines));
            let told = |n: usize| match family {
                "uwsgi" => {
                    server.get("/");
                    server.wait_until("a line", || server.read("told.log").lines().count() == n);
                    server.read("told.log").lines().last().unwrap_or_default().to_owned()
                }
                _ => server.get("/").expect(200).text(),
            };
            assert!(told(1).ends_with("CN=me"));
            server.write("me.crt", &other.certificate);
            server.write("me.key", &other.key);
            let text = told(2);
            assert!(text.ends_with(expected), "{family} {cache}: {text}");
        }
    }
    let check = |line: &str, message: &str| {
        Server::check(Config::server(line)).expect(1).says(message);
    };
    let missing = "\"grpc_ssl_certificate_cache\" must have the \"max\" parameter";
    check("grpc_ssl_certificate_cache valid=1h;", missing);
    check("uwsgi_ssl_certificate_cache max=0;", "invalid parameter \"max=0\"");
}

#[test]
fn sessions_are_taken_up_again() {
    for (line, expected) in [("", " r "), ("grpc_ssl_session_reuse off;", " . ")] {
        let server = Server::start(calls("leaf", line));
        server.get("/").expect(200);
        let text = server.get("/").expect(200).text();
        assert!(text.contains(expected), "{line}: {text}");
    }
    for (line, expected) in [("", " r "), ("uwsgi_ssl_session_reuse off;", " . ")] {
        let server = Server::start(programs("leaf", line));
        server.get("/");
        server.get("/");
        server.wait_until("two lines", || server.read("told.log").lines().count() == 2);
        let told = server.read("told.log");
        let last = told.lines().last().unwrap_or_default();
        assert!(last.contains(expected), "{line}: {told}");
    }
}

/// Checks whether a server with the certificate `leaf` is spoken to; otherwise the message.
#[track_caller]
fn check_trust(leaf: &str, lines: &str, expected: Result<(), &str>) {
    let named = |name: &str| lines.replace("%%", name).replace("DIR", "%%DIR%%");
    let grpc = Server::start(calls(leaf, &named("grpc")));
    let uwsgi = Server::start(programs(leaf, &named("uwsgi")));
    uwsgi.get("/");
    match expected {
        Ok(()) => {
            grpc.get("/").expect(200);
            uwsgi.wait_for_line("told.log", "TLSv1.3");
        }
        Err(message) => {
            grpc.get("/").expect(502);
            grpc.wait_for_log(message);
            grpc.wait_for_log("upstream: \"grpcs://127.0.0.1:");
            uwsgi.wait_for_log(message);
            uwsgi.wait_for_log("upstream: \"suwsgi://127.0.0.1:");
        }
    }
}

#[test]
fn certificates_of_servers_are_checked() {
    let verify = "%%_ssl_verify on; %%_ssl_trusted_certificate DIR/root.crt;";
    let named = format!("{verify} %%_ssl_name b.example;");
    check_trust("leaf", &named, Ok(()));
    check_trust("leaf", verify, Err("certificate does not match \"127.0.0.1\""));
    let stranger = "%%_ssl_verify on; %%_ssl_trusted_certificate DIR/me.crt;";
    check_trust("leaf", stranger, Err("upstream SSL certificate verify error: (21:"));
    check_trust("leaf", &format!("{named} %%_ssl_crl DIR/root.crl;"), Ok(()));
    let unknown = format!("{named} %%_ssl_crl DIR/other.crl;");
    check_trust("leaf", &unknown, Err("(3:unable to get certificate CRL)"));
    check_trust("deep", &named, Ok(()));
    let shallow = format!("{named} %%_ssl_verify_depth 0;");
    check_trust("deep", &shallow, Err("(22:certificate chain too long)"));
}

#[test]
fn keys_may_be_encrypted_and_secrets_logged() {
    let mine = Identity::own("me");
    let plain = Server::start(with_files(Config::server("")).file("plain.key", &mine.key));
    let made = std::process::Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-128-cbc", "-passout", "pass:secret", "-in"])
        .arg(plain.path("plain.key"))
        .output()
        .expect("openssl");
    for family in ["grpc", "uwsgi"] {
        let lines = format!(
            "{family}_ssl_key_log %%DIR%%/keys; {family}_ssl_certificate %%DIR%%/me.crt;
             {family}_ssl_certificate_key %%DIR%%/me.key;
             {family}_ssl_password_file %%DIR%%/passwords;"
        );
        let make = if family == "grpc" { calls } else { programs };
        let server = Server::start(
            make("leaf", &lines)
                .file("me.crt", &mine.certificate)
                .file("me.key", &made.stdout)
                .file("passwords", "secret\n"),
        );
        let answer = server.get("/");
        match family {
            "grpc" => assert!(answer.expect(200).text().ends_with("CN=me")),
            _ => drop(server.wait_for_line("told.log", "CN=me")),
        }
        assert!(server.read("keys").contains("SERVER_TRAFFIC_SECRET_0 "));
    }
}

#[test]
fn faults_in_configurations_name_the_family() {
    for (family, scheme) in [("grpc", "grpcs"), ("uwsgi", "suwsgi")] {
        let check = |lines: &str, message: &str| {
            let text = format!("location / {{ {lines} {family}_pass {scheme}://127.0.0.1:1; }}");
            let said = Server::check(with_files(Config::server(&text)));
            said.expect(1).says(message);
        };
        let missing = format!("no {family}_ssl_trusted_certificate for {family}_ssl_verify");
        check(&format!("{family}_ssl_verify on;"), &missing);
        let missing = format!("no \"{family}_ssl_certificate_key\" is defined for certificate");
        check(&format!("{family}_ssl_certificate %%DIR%%/me.crt;"), &missing);
        let text = format!("location / {{ {family}_pass {scheme}://127.0.0.1; }}");
        let said = Server::check(Config::server(&text));
        said.expect(1).says("no port in upstream \"127.0.0.1\"");
        // Without TLS nobody asks for authorities.
        let text = format!("location / {{ {family}_ssl_verify on; {family}_pass 127.0.0.1:1; }}");
        Server::check(Config::server(&text)).expect(0);
    }
}
