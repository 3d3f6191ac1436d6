//! Connections that begin with a header of the PROXY protocol.

use testkit::{Client, Config, Server};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5678 81\r\n";
const SHOWN: &str = "192.0.2.7:5678 198.51.100.1:81 127.0.0.1";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server that shows who is announced, and whom it takes for the client.
fn server(inside: &str) -> Server {
    Server::start(
        Config::http(&format!(
            "{inside}
             server {{ listen 127.0.0.1:%%PORT_0%% proxy_protocol;
                 location / {{
                     return 200 '$proxy_protocol_addr:$proxy_protocol_port \
                                 $proxy_protocol_server_addr:$proxy_protocol_server_port \
                                 $remote_addr'; }}
                 location /port {{ return 200 $remote_addr:$remote_port; }}
                 location /tls {{
                     return 200 '$proxy_protocol_tlv_alpn $proxy_protocol_tlv_0xea \
                                 $proxy_protocol_tlv_ssl_verify $proxy_protocol_tlv_ssl_cn'; }}
                 location /unknown {{ return 200 '[$proxy_protocol_tlv_nothing]'; }} }}"
        ))
        .main("error_log %%DIR%%/error.log info;"),
    )
}

/// A header of version 2.
fn v2(first: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut all = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    all.extend([first, kind]);
    all.extend((body.len() as u16).to_be_bytes());
    all.extend(body);
    all
}

const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x16, 0x2e, 0, 81];

#[test]
fn both_versions_are_understood_however_they_come() {
    let server = server("");
    let mut v6 = [0; 36];
    (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
    for (header, expected) in [
        (V1.to_vec(), SHOWN),
        (b"PROXY TCP6 2001:Db8::1 ::2 1 65535\r\n".to_vec(), "2001:Db8::1:1 ::2:65535 127.0.0.1"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 0 1\r\n".to_vec(), "192.0.2.7: 192.0.2.8:1 127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), ": : 127.0.0.1"),
        (b"PROXY UNKNOWN ::1 ::1 1 1\r\n".to_vec(), ": : 127.0.0.1"),
        (v2(0x21, 0x11, V4), SHOWN),
        (v2(0x21, 0x21, &v6), "::1:3 ::2:4 127.0.0.1"),
        (v2(0x21, 0x31, &[b'x'; 216]), ": : 127.0.0.1"),
        (v2(0x20, 0x00, b""), ": : 127.0.0.1"),
        (v2(0x21, 0x11, &[V4, &[4, 0x0f, 0], &[0; 0xf00]].concat()), SHOWN),
    ] {
        // Together with two requests, in a packet of its own, and byte by byte.
        let mut client = server.connect();
        client.send([&header, REQUEST, REQUEST].concat());
        for _ in 0..2 {
            assert_eq!(client.read_response().expect(200).text(), expected);
        }
        let mut client = server.connect();
        client.send(&header);
        client.wait_until_read();
        assert_eq!(client.get("/").expect(200).text(), expected);
        assert_eq!(client.get("/").expect(200).text(), expected);
        if header.len() < 300 {
            let mut client = server.connect();
            client.send_slowly(&header);
            client.send_slowly(REQUEST);
            assert_eq!(client.read_response().expect(200).text(), expected);
        }
    }
}

#[test]
fn what_is_no_header_is_told_and_closed() {
    let server = server("");
    for (bytes, message) in [
        (&b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"[..], "broken header: \"GET /first HTTP/1.1\""),
        (b"\x16\x03\x01", r#"broken header: "\x16\x03\x01""#),
        (b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", "broken header: \"PROXY TCP5 "),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", "broken header: \"PROXY TCP4 1.1.1.1 "),
        (&[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(), "broken header: \"PROXY UNKNOWN xxx"),
        (&v2(0x21, 0x11, &[0; 4096]), "header is too large"),
        (&v2(0x31, 0x11, V4), "unknown PROXY protocol version: 3"),
        (&v2(0x21, 0x11, &V4[1..]), "broken header: \"\""),
    ] {
        let mut client = server.connect();
        client.send(bytes);
        assert!(client.is_reset() || client.read_to_end().is_empty(), "{message}");
        let line = server.wait_for_log(message);
        assert!(line.contains("[error]"), "{line}");
        let end = format!(
            " while reading PROXY protocol, client: 127.0.0.1, server: 127.0.0.1:{}",
            server.port(0)
        );
        assert!(line.contains(&end), "{line}");
    }
    // A client that leaves in the middle of one.
    let mut client = server.connect();
    client.send("PROXY TCP6");
    client.half_close();
    client.expect_closed();
    server.wait_for_log("broken header: \"PROXY TCP6\" while reading PROXY protocol");
    let client = server.connect();
    client.half_close();
    server.wait_for_log("client closed connection while reading PROXY protocol");
}

#[test]
fn client_header_timeout_ends_waiting_for_the_header() {
    let server = server("client_header_timeout 300ms;");
    for begun in ["", "PROXY TCP4 "] {
        let mut client = server.connect();
        client.send(begun);
        client.expect_closed();
    }
    let all = "client timed out (110: Connection timed out) while reading PROXY protocol";
    server.wait_until("both are told", || server.error_log().matches(all).count() == 2);
}

#[test]
fn any_server_of_an_address_asks_for_the_header() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%%; server_name a; return 200 $proxy_protocol_addr; }
         server { listen 127.0.0.1:%%PORT_0%% proxy_protocol; server_name b; return 204; }
         server { listen 127.0.0.1:%%PORT_1%%; return 200 '[$proxy_protocol_addr]'; }",
    ));
    let mut client = server.connect();
    client.send(V1);
    let answer = client.request("GET", "/", &[("Host", "a")], b"");
    assert_eq!(answer.expect(200).text(), "192.0.2.7");
    assert_eq!(server.connect_to(1).get("/").expect(200).text(), "[]");
}

#[test]
fn a_unix_socket_asks_for_the_header() {
    let server = Server::start(Config::http(
        "server { listen unix:%%DIR%%/socket proxy_protocol; set_real_ip_from unix:;
                  real_ip_header proxy_protocol; return 200 $remote_addr:$remote_port; }",
    ));
    let mut client = Client::connect(server.path("socket"));
    client.send(V1);
    assert_eq!(client.get("/").expect(200).text(), "192.0.2.7:5678");
}

#[test]
fn trusted_proxies_name_the_client() {
    let header = "real_ip_header proxy_protocol;";
    for (rules, from_header, without) in [
        (format!("set_real_ip_from 127.0.0.1; {header}"), "192.0.2.7:5678", "127.0.0.1:PORT"),
        (format!("set_real_ip_from 10.0.0.1; {header}"), "127.0.0.1:PORT", "127.0.0.1:PORT"),
        (header.to_string(), "127.0.0.1:PORT", "127.0.0.1:PORT"),
        ("set_real_ip_from 127.0.0.1;".to_string(), "127.0.0.1:PORT", "127.0.0.1:PORT"),
    ] {
        let server = server(&rules);
        for (bytes, expected) in [(V1, from_header), (b"PROXY UNKNOWN\r\n", without)] {
            let mut client = server.connect();
            client.send(bytes);
            let port = client.local_address().port().to_string();
            let text = client.get("/port").expect(200).text().replace(&port, "PORT");
            assert_eq!(text, expected, "{rules}");
        }
    }
}

#[test]
fn extensions_of_version_2_are_variables() {
    let server = server("");
    let tls = [0x20, 0, 12, 7, 0, 0, 0, 2, 0x22, 0, 4, b'c', b'e', b'r', b't'];
    let all = [V4, &[1, 0, 2, b'h', b'2', 0xea, 0, 1, b'x'], &tls].concat();
    let mut client = server.connect();
    client.send(v2(0x21, 0x11, &all));
    assert_eq!(client.get("/tls").expect(200).text(), "h2 x 2 cert");
    assert_eq!(client.get("/unknown").expect(200).text(), "[]");
    let line = server.wait_for_log("unknown PROXY protocol TLV \"nothing\"");
    assert!(line.contains("[error]"), "{line}");
    let mut client = server.connect();
    client.send(v2(0x21, 0x11, &[V4, &[1, 0, 9]].concat()));
    assert_eq!(client.get("/tls").expect(200).text(), "   ");
    server.wait_for_log("broken PROXY protocol TLV");
    let mut client = server.connect();
    client.send(V1);
    assert_eq!(client.get("/tls").expect(200).text(), "   ");
}
