//! TLS of `stream`: towards clients, towards backends, and what is told of it.

use std::io::Read;

use testkit::tls::{Identity, TlsClient, TlsConnection};
use testkit::{Config, Server};

/// A server with the certificates of `a.example` and of `b.example`, and the authority of both.
fn start(inside: &str) -> (Server, Identity) {
    let authority = Identity::authority("authority");
    let (a, b) = (authority.issue("a.example"), authority.issue("b.example"));
    let config = Config::stream(inside)
        .main("error_log %%DIR%%/error.log info;")
        .file("a.crt", &a.certificate)
        .file("a.key", &a.key)
        .file("b.crt", &b.certificate)
        .file("b.key", &b.key)
        .file("authority.crt", &authority.certificate);
    (Server::start(config), authority)
}

const CERTIFICATES: &str = "ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key;";

fn read(connection: std::io::Result<TlsConnection>) -> String {
    let mut text = String::new();
    // A handshake that is refused shows in the first read.
    let _ = connection.and_then(|mut connection| connection.read_to_string(&mut text));
    text
}

#[test]
fn clients_are_served_by_the_name_that_they_ask_for() {
    let (server, _) = start(&format!(
        "{CERTIFICATES}
         server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name a.example;
             return 'a $ssl_server_name $ssl_protocol $ssl_session_reused $ssl_client_verify'; }}
         server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name b.example;
             ssl_certificate %%DIR%%/b.crt; ssl_certificate_key %%DIR%%/b.key; return 'b'; }}
         server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name no.example;
             ssl_reject_handshake on; return 'no'; }}"
    ));
    let port = server.port(0);
    let ask = |name: &str| read(TlsClient::new(name).connect(port));
    assert_eq!(ask("a.example"), "a a.example TLSv1.3 . NONE");
    assert_eq!(ask("b.example"), "b");
    assert_eq!(ask("else.example"), "a else.example TLSv1.3 . NONE");
    assert_eq!(ask("no.example"), "");
    server.wait_for_log("handshake rejected while SSL handshaking, client: 127.0.0.1");
    let shown = |name| TlsClient::new(name).connect(port).expect("a connection").certificate();
    assert_ne!(shown("a.example"), shown("b.example"));
}

#[test]
fn protocols_above_tls_are_agreed_on() {
    let (server, _) = start(&format!(
        "{CERTIFICATES}
         server {{ listen 127.0.0.1:%%PORT_0%% ssl; ssl_alpn one two;
             return 'got:$ssl_alpn_protocol'; }}
         server {{ listen 127.0.0.1:%%PORT_1%%; proxy_ssl on; proxy_ssl_alpn two;
             proxy_pass 127.0.0.1:%%PORT_0%%; }}
         server {{ listen 127.0.0.1:%%PORT_2%%; proxy_ssl on; set $unset ''; set $one one;
             proxy_ssl_alpn $unset $one; proxy_pass 127.0.0.1:%%PORT_0%%; }}
         server {{ listen 127.0.0.1:%%PORT_3%%; proxy_ssl on; proxy_ssl_alpn three;
             proxy_pass 127.0.0.1:%%PORT_0%%; }}"
    ));
    let told = |port| String::from_utf8_lossy(&server.connect_to(port).read_to_end()).into_owned();
    assert_eq!(told(1), "got:two");
    assert_eq!(told(2), "got:one");
    assert_eq!(told(3), "");
}

#[test]
fn backends_are_spoken_to_in_tls_and_judged() {
    let (server, _) = start(&format!(
        "{CERTIFICATES}
         server {{ listen 127.0.0.1:%%PORT_0%% ssl proxy_protocol;
             return '$ssl_server_name $proxy_protocol_addr'; }}
         proxy_ssl on; proxy_protocol on; proxy_ssl_server_name on;
         proxy_ssl_trusted_certificate %%DIR%%/authority.crt;
         server {{ listen 127.0.0.1:%%PORT_1%%; proxy_pass 127.0.0.1:%%PORT_0%%;
             proxy_ssl_verify on; proxy_ssl_name a.example; }}
         server {{ listen 127.0.0.1:%%PORT_2%%; proxy_pass 127.0.0.1:%%PORT_0%%;
             proxy_ssl_verify on; proxy_ssl_name c.example; }}
         server {{ listen 127.0.0.1:%%PORT_3%%; proxy_pass 127.0.0.1:%%PORT_0%%; proxy_ssl off; }}"
    ));
    assert_eq!(server.connect_to(1).read_to_end(), b"a.example 127.0.0.1");
    assert_eq!(server.connect_to(2).read_to_end(), b"");
    let line = server.wait_for_log("upstream SSL certificate does not match \"c.example\"");
    assert!(line.contains("while SSL handshaking to upstream"), "{line}");
    let mut plain = server.connect_to(3);
    plain.send("no hello at all");
    plain.read_to_end();
    server.wait_for_log("SSL_do_handshake() failed");
}

#[test]
fn large_transfers_go_through_tls_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| ((i * 31) >> 8) as u8).collect();
    let sent = body.clone();
    let backend = testkit::Backend::script(move |conversation| {
        conversation.send(&sent);
    });
    let authority = Identity::own("a.example");
    let server = Server::start(
        Config::stream(&format!(
            "{CERTIFICATES}
             server {{ listen 127.0.0.1:%%PORT_0%% ssl; proxy_pass 127.0.0.1:%%BACKEND%%; }}
             server {{ listen 127.0.0.1:%%PORT_1%%; proxy_ssl on;
                 proxy_pass 127.0.0.1:%%PORT_0%%; }}"
        ))
        .with("BACKEND", backend.port())
        .file("a.crt", &authority.certificate)
        .file("a.key", &authority.key),
    );
    assert!(server.connect_to(1).read_to_end() == body);
}

#[test]
fn certificates_of_clients_decide_and_time_is_limited() {
    let (server, authority) = start(&format!(
        "{CERTIFICATES}
         log_format verdict '$status $ssl_client_verify $ssl_client_s_dn';
         access_log %%DIR%%/logs/access.log verdict;
         server {{ listen 127.0.0.1:%%PORT_0%% ssl; ssl_verify_client on;
             ssl_client_certificate %%DIR%%/authority.crt; return 'hello $ssl_client_s_dn'; }}
         server {{ listen 127.0.0.1:%%PORT_1%% ssl; ssl_handshake_timeout 50ms; return x; }}"
    ));
    let port = server.port(0);
    assert_eq!(read(TlsClient::new("a.example").connect(port)), "");
    server.wait_for_log("client sent no required SSL certificate");
    server.wait_for_access("500 NONE");
    let stranger = Identity::own("stranger");
    assert_eq!(read(TlsClient::showing("a.example", &stranger).connect(port)), "");
    server.wait_for_log("client SSL certificate verify error: (18:");
    let known = authority.issue("known");
    assert_eq!(read(TlsClient::showing("a.example", &known).connect(port)), "hello CN=known");
    server.wait_for_access("200 SUCCESS CN=known");
    server.connect_to(1).expect_closed();
    server.wait_for_log("SSL handshake timed out (110: Connection timed out)");
}

#[test]
fn tls_without_a_certificate_is_refused() {
    let inside = "server { listen 127.0.0.1:%%PORT_0%% ssl; return x; }";
    Server::check(Config::stream(inside))
        .says("no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in");
}
