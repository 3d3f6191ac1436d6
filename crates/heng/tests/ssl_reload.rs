//! TLS over reloads and among workers: sessions, keys of tickets, what is thought of clients; and
//! certificates of several kinds, also those that stand in the configuration itself.

use testkit::tls::rustls::crypto::CryptoProvider;
use testkit::tls::rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use testkit::tls::rustls::version::TLS12;
use testkit::tls::{Identity, Speaks, TlsClient, parameters, rcgen};
use testkit::{Config, Server};

/// A server of four workers with `inside` that shows `own`.
fn config(own: &Identity, inside: &str) -> Config {
    let text = format!(
        "server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name a.example;
             ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key; {inside}
             return 200 'reused=$ssl_session_reused verify=$ssl_client_verify $ssl_cipher'; }}"
    );
    Config::http(&text)
        .main("error_log %%DIR%%/error.log info; worker_processes 4;")
        .file("a.crt", &own.certificate)
        .file("a.key", &own.key)
}

fn get(server: &Server, client: &TlsClient) -> String {
    client.get(server.port(0), "/").expect("an answer")
}

#[test]
fn sessions_are_taken_up_by_all_workers_and_over_reloads() {
    let own = Identity::own("a.example");
    for inside in ["", "ssl_session_tickets off; ssl_session_cache shared:s:1m;"] {
        let server = Server::start(config(&own, inside));
        for client in [TlsClient::new("a.example"), TlsClient::tls12("a.example")] {
            assert!(get(&server, &client).contains("reused=. "));
            for round in 0..3 {
                for _ in 0..12 {
                    let text = get(&server, &client);
                    assert!(text.contains("reused=r "), "{inside} {round}: {text}");
                }
                server.reload();
            }
        }
    }
}

#[test]
fn keys_of_tickets_are_replaced_step_by_step() {
    let own = Identity::own("a.example");
    let keys = |list: &[u8]| {
        let lines = list.iter().map(|n| format!("ssl_session_ticket_key %%DIR%%/{n}.key; "));
        let all = config(&own, &lines.collect::<String>());
        list.iter().fold(all, |all, n| all.file(&format!("{n}.key"), [*n; 80]))
    };
    let mut server = Server::start(keys(&[1]));
    let client = || {
        let client = TlsClient::new("a.example");
        get(&server, &client);
        client
    };
    let (first, second, third) = (client(), client(), client());
    server.reconfigure(keys(&[1, 2]));
    server.reload();
    assert!(get(&server, &first).contains("reused=r "));
    // The new key seals, the old one still opens.
    server.reconfigure(keys(&[2, 1]));
    server.reload();
    assert!(get(&server, &second).contains("reused=r "));
    server.reconfigure(keys(&[3, 2]));
    server.reload();
    assert!(get(&server, &third).contains("reused=. "), "nobody knows the first key any more");
    assert!(get(&server, &second).contains("reused=r "), "it had a ticket of the second key");
}

#[test]
fn resumed_sessions_are_judged_by_the_rules_of_today() {
    let (own, root) = (Identity::own("a.example"), Identity::authority("root"));
    let mut numbered = parameters("client", false);
    numbered.serial_number = Some(rcgen::SerialNumber::from(77));
    let shown = Identity::made(numbered, Some(&root));
    let list = root.revokes(77);
    let asks = "ssl_verify_client on; ssl_client_certificate %%DIR%%/root.crt;";
    let files = |config: Config| config.file("root.crt", &root.certificate).file("crl", &list);
    let mut server = Server::start(files(config(&own, asks)));
    let client = TlsClient::showing("a.example", &shown);
    assert!(get(&server, &client).contains("reused=. verify=SUCCESS"));
    assert!(get(&server, &client).contains("reused=r verify=SUCCESS"));
    let asks = format!("{asks} ssl_crl %%DIR%%/crl;");
    server.reconfigure(files(config(&own, &asks)));
    server.reload();
    let mut connection = client.connect(server.port(0)).unwrap();
    assert!(connection.is_resumed());
    let answer = connection.get("/").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    server.wait_for_log("client SSL certificate verify error: (23:certificate revoked)");
}

/// A client of TLS 1.2 whose suites want a key of one kind.
fn wanting_rsa(rsa: bool) -> TlsClient {
    let suite = match rsa {
        true => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        false => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    };
    let provider = CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
    TlsClient::that("a.example", Speaks { provider, versions: &[&TLS12], ..Speaks::default() })
}

#[test]
fn certificates_of_two_kinds_stand_side_by_side() {
    let own = Identity::own("a.example");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let rsa = parameters("a.example", false).self_signed(&key).expect("a certificate").pem();
    let lines = "ssl_certificate %%DIR%%/rsa.crt; ssl_certificate_key %%DIR%%/rsa.key;";
    for (inside, with_rsa) in [(lines, true), ("", false)] {
        let config =
            config(&own, inside).file("rsa.crt", &rsa).file("rsa.key", key.serialize_pem());
        let server = Server::start(config);
        assert!(get(&server, &wanting_rsa(false)).ends_with(" ECDHE-ECDSA-AES128-GCM-SHA256"));
        match with_rsa {
            true => {
                let text = get(&server, &wanting_rsa(true));
                assert!(text.ends_with(" ECDHE-RSA-AES128-GCM-SHA256"), "{text}");
            }
            false => assert!(wanting_rsa(true).get(server.port(0), "/").is_err()),
        }
    }
}

#[test]
fn certificates_may_stand_in_the_configuration() {
    let (a, b) = (Identity::own("a.example"), Identity::own("b.example"));
    let text = format!(
        "map $ssl_server_name $certificate {{ default \"{}\"; }}
         map $ssl_server_name $key {{ default \"{}\"; }}
         server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name a.example;
             ssl_certificate \"data:{}\"; ssl_certificate_key \"data:{}\"; return 200 a; }}
         server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name b.example;
             ssl_certificate data:$certificate; ssl_certificate_key data:$key; return 200 b; }}",
        b.certificate, b.key, a.certificate, a.key
    );
    let server = Server::start(Config::http(&text).main("error_log %%DIR%%/error.log info;"));
    for (name, identity, expected) in [("a.example", &a, "\r\na"), ("b.example", &b, "\r\nb")] {
        let mut connection = TlsClient::new(name).connect(server.port(0)).unwrap();
        assert_eq!(connection.certificate(), testkit::ocsp::der(identity));
        assert!(connection.get("/").unwrap().ends_with(expected));
    }
}
