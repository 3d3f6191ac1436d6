//! The features of `stream` that decide about sessions: access, limits, variables, the PROXY
//! protocol, first bytes, and where a session goes on.

use testkit::{Backend, Client, Config, Gate, Server};

/// A server that answers with `text`, and whatever else the configuration says.
fn answering(outside: &str, inside: &str, text: &str) -> Server {
    Server::start(
        Config::stream(&format!(
            "{outside}
             log_format status '$status $remote_addr $server_port';
             access_log %%DIR%%/logs/access.log status;
             server {{ listen 127.0.0.1:%%PORT_0%%; {inside} return '{text}'; }}"
        ))
        .main("error_log %%DIR%%/error.log info;"),
    )
}

fn answer(server: &Server) -> String {
    String::from_utf8_lossy(&server.connect().read_to_end()).into_owned()
}

/// The answer to a client that comes from another address of the loopback.
fn answer_to(server: &Server, from: [u8; 4]) -> String {
    let mut client = Client::connect_from(from, server.port(0));
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

#[test]
fn clients_are_let_in_by_their_address() {
    let server = answering("", "allow 127.0.0.1; deny all;", "in");
    assert_eq!(answer(&server), "in");
    assert_eq!(answer_to(&server, [127, 0, 0, 2]), "");
    server.wait_for_access("403 127.0.0.2");
    server.wait_for_log("access forbidden by rule");
    let server = answering("deny 127.0.0.2;", "", "in");
    assert_eq!(answer(&server), "in");
    assert_eq!(answer_to(&server, [127, 0, 0, 2]), "");
}

#[test]
fn sessions_are_limited_and_counted() {
    let gate = Gate::new();
    let opened = gate.clone();
    let backend = Backend::script(move |conversation| {
        conversation.send("in");
        conversation.wait(&opened);
    });
    let server = Server::start(
        Config::stream(
            "limit_conn_zone $remote_addr zone=one:1m;
             log_format limit '$status $limit_conn_status $server_port';
             access_log %%DIR%%/logs/access.log limit;
             limit_conn_log_level warn;
             server { listen 127.0.0.1:%%PORT_0%%; limit_conn one 1;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_1%%; limit_conn one 1; limit_conn_dry_run on;
                 return dry; }",
        )
        .main("error_log %%DIR%%/error.log warn;")
        .with("BACKEND", backend.port()),
    );
    let mut first = server.connect();
    assert_eq!(first.read_exactly(2), b"in");
    assert_eq!(answer(&server), "");
    server.wait_for_access("503 REJECTED ");
    let line = server.wait_for_log("limiting connections by zone \"one\"");
    assert!(line.contains("[warn]"), "{line}");
    assert_eq!(server.connect_to(1).read_to_end(), b"dry");
    server.wait_for_access("200 REJECTED_DRY_RUN");
    gate.open();
    first.expect_closed();
    server.wait_for_access("200 PASSED");
    assert_eq!(server.connect().read_exactly(2), b"in");
}

#[test]
fn variables_are_defined_as_in_http() {
    let server = answering(
        "map $remote_addr $mapped { default m; 127.0.0.2 two; volatile; }
         map_hash_max_size 100; map_hash_bucket_size 64;
         variables_hash_max_size 100; variables_hash_bucket_size 64;
         server_names_hash_max_size 100; server_names_hash_bucket_size 64;
         geo $there { default far; 127.0.0.2 near; }
         split_clients $remote_addr $split { * all; }",
        "set $own $mapped-$there; set $own [$own];",
        "$own $split $there",
    );
    assert_eq!(answer(&server), "[m-far] all far");
    assert_eq!(answer_to(&server, [127, 0, 0, 2]), "[two-near] all near");
}

#[test]
fn what_a_server_knows_of_itself() {
    let server = answering(
        "",
        "server_name A.example b.example;",
        "$server_name $protocol $hostname $pid $connection $bytes_received $bytes_sent $status \
         $nginx_version $msec $time_iso8601 $time_local $session_time",
    );
    let answer = answer(&server);
    let words: Vec<&str> = answer.split(' ').collect();
    assert_eq!(words[..2], ["a.example", "TCP"]);
    assert_eq!(words[3], server.workers()[0].to_string());
    assert_eq!(words[4..8], ["1", "0", "0", "000"]);
    assert!(words[9].contains('.') && words[10].contains('T'), "{answer}");
    assert!(words.last().is_some_and(|time| time.starts_with("0.")), "{answer}");
}

const V1: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 5678 81\r\n";

#[test]
fn a_proxy_in_front_tells_of_its_client() {
    let server = Server::start(
        Config::stream(
            "log_format who '$status $remote_addr $realip_remote_addr';
             access_log %%DIR%%/logs/access.log who;
             server { listen 127.0.0.1:%%PORT_0%% proxy_protocol; set_real_ip_from 127.0.0.1;
                 deny 192.0.2.9;
                 return '$proxy_protocol_addr:$proxy_protocol_port \
                         $proxy_protocol_server_addr:$proxy_protocol_server_port \
                         $remote_addr:$remote_port $realip_remote_addr'; }
             server { listen 127.0.0.1:%%PORT_1%% proxy_protocol; proxy_protocol_timeout 50ms;
                 return '$remote_addr $proxy_protocol_tlv_alpn'; }",
        )
        .main("error_log %%DIR%%/error.log info;"),
    );
    let told = |port: usize, header: &[u8]| {
        let mut client = server.connect_to(port);
        client.send(header);
        String::from_utf8_lossy(&client.read_to_end()).into_owned()
    };
    let expected = "192.0.2.7:5678 198.51.100.1:81 192.0.2.7:5678 127.0.0.1";
    assert_eq!(told(0, V1.as_bytes()), expected);
    assert_eq!(told(1, V1.as_bytes()), "127.0.0.1 ");
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11".to_vec();
    v2.extend([192, 0, 2, 7, 198, 51, 100, 1, 0x16, 0x2e, 0, 81, 1, 0, 2, b'h', b'2']);
    assert_eq!(told(0, &v2), expected);
    assert_eq!(told(1, &v2), "127.0.0.1 h2");
    assert_eq!(told(0, V1.replace(".7", ".9").as_bytes()), "");
    server.wait_for_access("403 192.0.2.9 127.0.0.1");
    assert_eq!(told(0, b"GET / HTTP/1.0\r\n\r\n"), "");
    let line = server.wait_for_log("broken header: \"GET / HTTP/1.0\"");
    assert!(line.contains("while reading PROXY protocol, client: 127.0.0.1"), "{line}");
    server.wait_for_access("400 127.0.0.1");
    server.connect_to(1).expect_closed();
    server.wait_for_log("client timed out");
}

#[test]
fn backends_are_told_who_the_client_is() {
    let server = Server::start(Config::stream(
        "server { listen 127.0.0.1:%%PORT_0%% proxy_protocol;
             return '$proxy_protocol_addr:$proxy_protocol_port'; }
         server { listen 127.0.0.1:%%PORT_1%%; proxy_pass 127.0.0.1:%%PORT_0%%;
             proxy_protocol on; }
         server { listen 127.0.0.1:%%PORT_2%%; proxy_pass 127.0.0.1:%%PORT_0%%;
             proxy_protocol v2; }",
    ));
    for port in [1, 2] {
        let mut client = server.connect_to(port);
        let expected = client.local_address().to_string();
        assert_eq!(String::from_utf8_lossy(&client.read_to_end()), expected, "{port}");
    }
}

/// The first message of a TLS client that asks for `name` and speaks `protocols`.
fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let mut extensions = Vec::new();
    if !name.is_empty() {
        let list = with_length(&[&[0][..], &with_length(name.as_bytes())].concat());
        extensions.extend([&[0, 0][..], &with_length(&list)].concat());
    }
    if !protocols.is_empty() {
        let one = |name: &&str| [&[name.len() as u8][..], name.as_bytes()].concat();
        let list: Vec<u8> = protocols.iter().flat_map(one).collect();
        extensions.extend([&[0, 16][..], &with_length(&with_length(&list))].concat());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(with_length(&extensions));
    let mut message = vec![1, 0];
    message.extend(with_length(&body));
    [&[22, 3, 1][..], &with_length(&message)].concat()
}

#[test]
fn what_tls_clients_want_is_read_and_passed_on() {
    let backend = Backend::script(|conversation| {
        let bytes = conversation.read_some().unwrap_or_default();
        conversation.send(format!("{} bytes", bytes.len()));
    });
    let server = Server::start(
        Config::stream(
            "log_format tls '$status $ssl_preread_server_name $ssl_preread_protocol \
                             $ssl_preread_alpn_protocols';
             access_log %%DIR%%/logs/access.log tls;
             ssl_preread on;
             server { listen 127.0.0.1:%%PORT_0%%; preread_timeout 100ms;
                 preread_buffer_size 200; proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_1%%; ssl_preread off;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_2%%; proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .main("error_log %%DIR%%/error.log info;")
        .with("BACKEND", backend.port()),
    );
    let first = hello("a.example", &["h2", "http/1.1"]);
    let told = |port: usize, bytes: &[u8]| {
        let mut client = server.connect_to(port);
        client.send(bytes);
        String::from_utf8_lossy(&client.read_to_end()).into_owned()
    };
    assert_eq!(told(0, &first), format!("{} bytes", first.len()));
    server.wait_for_access("200 a.example TLSv1.2 h2,http/1.1");
    let mut slow = server.connect_to(2);
    slow.send_pieces([&first[..10], &first[10..60]]);
    slow.send(&first[60..]);
    assert_eq!(slow.read_exactly(6).len(), 6);
    assert_eq!(told(0, b"plain text"), "10 bytes");
    server.wait_for_access("200 - - -");
    // Neither a hello nor its end: time is up, or the room is.
    assert_eq!(told(0, &first[..20]), "");
    let long = hello(&"x".repeat(300), &[]);
    assert_eq!(told(0, &long), "");
    server.wait_for_log("preread buffer full while prereading client data");
    server.wait_for_access("400 -");
    assert_eq!(told(1, &first[..20]), "20 bytes");
}

#[test]
fn the_name_of_a_tls_client_chooses_the_server() {
    let server = Server::start(Config::stream(
        "ssl_preread on;
         server { listen 127.0.0.1:%%PORT_0%%; return first; }
         server { listen 127.0.0.1:%%PORT_0%% default_server; return default; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name a.example; return exact; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name *.example; return below; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name www.*; return above; }
         server { listen 127.0.0.1:%%PORT_0%%; server_name '~^(?<word>x+)\\.org$';
             return $word-$server_name; }",
    ));
    for (name, expected) in [
        ("a.example", "exact"),
        ("A.Example", "exact"),
        ("b.a.example", "below"),
        ("www.other", "above"),
        ("xxx.org", "xxx-~^(?<word>x+)\\.org$"),
        ("else", "default"),
        ("", "default"),
    ] {
        let mut client = server.connect();
        client.send(hello(name, &[]));
        assert_eq!(String::from_utf8_lossy(&client.read_to_end()), expected, "{name}");
    }
}

#[test]
fn remote_desktop_clients_find_their_server_again() {
    let server = Server::start(Config::stream(
        "rdp_preread on;
         server { listen 127.0.0.1:%%PORT_0%%;
             return '[$rdp_cookie] [$rdp_cookie_mstshash] [$rdp_cookie_msts]'; }",
    ));
    let packet = |body: &[u8]| {
        let length = (11 + body.len()) as u8;
        [&[3, 0, 0, length, length - 5, 0xe0, 0, 0, 0, 0, 0][..], body].concat()
    };
    for (bytes, expected) in [
        (packet(b"Cookie: mstshash=alice\r\n\x01\0"), "[alice] [alice] []"),
        (
            packet(b"Cookie: msts=3640205228.15629.0000\r\n"),
            "[3640205228.15629.0000] [] [3640205228.15629.0000]",
        ),
        (packet(b""), "[] [] []"),
        (b"something else".to_vec(), "[] [] []"),
    ] {
        let mut client = server.connect();
        client.send(bytes);
        assert_eq!(String::from_utf8_lossy(&client.read_to_end()), expected);
    }
}

#[test]
fn connections_are_passed_to_other_listeners() {
    let server = Server::start(Config::new(
        "events {}
             http {
                 access_log off;
                 server { listen 127.0.0.1:%%PORT_0%%; server_name http;
                     location / { return 200 '$server_name $remote_port'; } }
             }
             stream {
                 map $server_port $to { default 127.0.0.1:%%PORT_2%%; }
                 server { listen 127.0.0.1:%%PORT_1%%; pass 127.0.0.1:%%PORT_0%%; }
                 server { listen 127.0.0.1:%%PORT_2%%; return 'second $server_port'; }
                 server { listen 127.0.0.1:%%PORT_3%%; pass $to; }
                 server { listen 127.0.0.1:%%PORT_4%%; ssl_preread on;
                     pass 127.0.0.1:%%PORT_0%%; }
                 server { listen 127.0.0.1:%%PORT_5%%; pass 127.0.0.1:1; }
             }",
    ));
    for port in [1, 4] {
        let mut client = server.connect_to(port);
        let expected = format!("http {}", client.local_address().port());
        assert_eq!(client.get("/").expect(200).text(), expected, "{port}");
        assert_eq!(client.get("/again").expect(200).text(), expected, "{port}");
    }
    let expected = format!("second {}", server.port(2));
    assert_eq!(String::from_utf8_lossy(&server.connect_to(3).read_to_end()), expected);
    assert_eq!(server.connect_to(5).read_to_end(), b"");
    server.wait_for_log("port not found for \"127.0.0.1:1\"");
}

#[test]
fn sessions_are_spread_by_key_and_by_load() {
    let name = |name: &'static str| {
        Backend::script(move |conversation| {
            conversation.send(name);
            conversation.read_to_end();
        })
    };
    let (one, two) = (name("1"), name("2"));
    let server = Server::start(
        Config::stream(
            "upstream by_key { zone keys 64k; hash $remote_addr consistent;
                 server 127.0.0.1:%%ONE%%; server 127.0.0.1:%%TWO%%; }
             upstream by_load { least_conn; server 127.0.0.1:%%ONE%%; server 127.0.0.1:%%TWO%%; }
             upstream by_chance { random two; server 127.0.0.1:%%ONE%%; }
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass by_key; }
             server { listen 127.0.0.1:%%PORT_1%%; proxy_pass by_load; }
             server { listen 127.0.0.1:%%PORT_2%%; proxy_pass by_chance; }",
        )
        .with("ONE", one.port())
        .with("TWO", two.port()),
    );
    let first = server.connect().read_exactly(1);
    for _ in 0..5 {
        assert_eq!(server.connect().read_exactly(1), first);
    }
    let mut kept = server.connect_to(1);
    let busy = kept.read_exactly(1);
    let mut other = server.connect_to(1);
    assert_ne!(other.read_exactly(1), busy);
    drop(other);
    server.wait_until("the other one is idle again", || {
        two.open_connections() + one.open_connections() == 1
    });
    assert_ne!(server.connect_to(1).read_exactly(1), busy);
    assert_eq!(server.connect_to(2).read_exactly(1), b"1");
}
