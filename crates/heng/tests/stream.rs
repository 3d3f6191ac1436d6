//! TCP sessions of `stream`: passing them on, balancing, limits of time and speed, and their logs.

use std::time::{Duration, Instant};

use testkit::{Backend, Client, Config, Server, has_ipv6};

/// A backend that sends back what it gets, with its name in front of each piece.
fn echo(name: &'static str) -> Backend {
    Backend::script(move |conversation| {
        while let Ok(bytes) = conversation.read_some() {
            if bytes.is_empty() {
                break;
            }
            conversation.send([name.as_bytes(), &bytes].concat());
        }
    })
}

/// A backend that collects what it gets to the end, and then answers.
fn collector(answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Backend {
    Backend::script(move |conversation| {
        let all = conversation.read_to_end();
        conversation.send(answer(&all));
    })
}

fn ask(client: &mut Client, text: &str, expected: &str) {
    client.send(text);
    let answer = client.read_exactly(expected.len());
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}

#[test]
fn bytes_go_both_ways_and_the_end_too() {
    let backend = echo("a");
    let server = Server::start(
        Config::stream(
            "log_format all '$status $bytes_received $bytes_sent $upstream_addr \
                             $upstream_bytes_sent $upstream_bytes_received $protocol';
             access_log %%DIR%%/logs/access.log all;
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .main("error_log %%DIR%%/error.log info;")
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    ask(&mut client, "one", "aone");
    ask(&mut client, "two", "atwo");
    let from = client.local_address();
    client.half_close();
    client.expect_closed();
    let port = backend.port();
    let line = server.wait_for_access("200");
    assert_eq!(line.trim(), format!("200 6 8 127.0.0.1:{port} 6 8 TCP"));
    let log = server.wait_for_log("client disconnected");
    assert!(log.contains("bytes from/to client:6/8, bytes from/to upstream:8/6"), "{log}");
    server.wait_for_log(&format!("client {from} connected to 127.0.0.1:{}", server.port(0)));
    server.wait_for_log(&format!("connected to 127.0.0.1:{port}"));
}

#[test]
fn large_transfers_arrive_whole_to_slow_clients_too() {
    let body: Vec<u8> = (0..12_000_000_u32).map(|i| ((i * 31) >> 8) as u8).collect();
    let sent = body.clone();
    let backend = Backend::script(move |conversation| {
        conversation.send(&sent);
    });
    let server = Server::start(
        Config::stream("server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%BACKEND%%; }")
            .with("BACKEND", backend.port()),
    );
    let mut quick = server.connect();
    let mut slow = server.connect();
    assert!(slow.read_exactly(100_000) == body[..100_000]);
    assert!(quick.read_to_end() == body);
    assert!(slow.read_to_end() == body[100_000..]);
}

#[test]
fn groups_balance_and_leave_out_who_is_not_there() {
    let (one, two) = (echo("1"), echo("2"));
    let server = Server::start(
        Config::stream(
            "upstream both { server 127.0.0.1:%%ONE%%; server 127.0.0.1:%%TWO%%; }
             upstream heavy { server 127.0.0.1:%%ONE%% weight=2; server 127.0.0.1:%%TWO%%; }
             upstream gone { server 127.0.0.1:%%GONE%%; server 127.0.0.1:%%TWO%%; }
             upstream other { server 127.0.0.1:%%GONE%%; server 127.0.0.1:%%TWO%%; }
             log_format way '$upstream_addr $upstream_bytes_received $upstream_connect_time \
                             $upstream_first_byte_time $upstream_session_time';
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass both; }
             server { listen 127.0.0.1:%%PORT_1%%; proxy_pass heavy; }
             server { listen 127.0.0.1:%%PORT_2%%; proxy_pass gone;
                 access_log %%DIR%%/logs/access.log way; }
             server { listen 127.0.0.1:%%PORT_3%%; proxy_pass other; proxy_next_upstream off; }",
        )
        .main("error_log %%DIR%%/error.log warn;")
        .with("ONE", one.port())
        .with("TWO", two.port())
        .with("GONE", Backend::refusing().port()),
    );
    let answers = |n: usize, count: usize| -> String {
        let answer = |_| {
            let mut client = server.connect_to(n);
            client.send("x");
            let answer = String::from_utf8_lossy(&client.read_exactly(2)).into_owned();
            answer.trim_end_matches('x').to_owned()
        };
        (0..count).map(answer).collect()
    };
    assert_eq!(answers(0, 4), "1212");
    assert_eq!(answers(1, 3), "121");
    assert_eq!(answers(2, 2), "22");
    let line = server.wait_for_access(", ");
    let fields: Vec<&str> = line.split(", ").collect();
    assert_eq!(fields.len(), 6, "two ways have two values each: {line}");
    server.wait_for_log("connect() failed");
    server.wait_for_log("upstream server temporarily disabled");
    // The first server of a group where nobody has failed yet, and no second try.
    assert_eq!(server.connect_to(3).read_to_end(), b"");
}

#[test]
fn tries_are_limited_in_number_and_time() {
    let good = echo("g");
    let refusing: Vec<u16> = (0..3).map(|_| Backend::refusing().port()).collect();
    let hole = Backend::unreachable();
    let config = |line: &str, first: &str| {
        Config::stream(&format!(
            "upstream u {{ {first} server 127.0.0.1:%%GOOD%% backup; }}
             proxy_connect_timeout 100ms;
             server {{ listen 127.0.0.1:%%PORT_0%%; proxy_pass u; {line} }}"
        ))
        .with("GOOD", good.port())
    };
    let gone: String = refusing.iter().map(|port| format!("server 127.0.0.1:{port};")).collect();
    let hole = format!("server 127.0.0.1:{};", hole.port());
    for (line, first, expected) in [
        ("", &gone, "gx"),
        ("proxy_next_upstream_tries 4;", &gone, "gx"),
        ("proxy_next_upstream_tries 3;", &gone, ""),
        ("proxy_next_upstream off;", &gone, ""),
        ("", &hole, "gx"),
        ("proxy_next_upstream_timeout 10ms;", &hole, ""),
    ] {
        let server = Server::start(config(line, first));
        let mut client = server.connect();
        // It may be closed already.
        let _ = client.try_send("x");
        let answer = match expected {
            "" => client.read_to_end(),
            _ => client.read_exactly(expected.len()),
        };
        assert_eq!(String::from_utf8_lossy(&answer), expected, "{line} {first}");
    }
}

#[test]
fn silence_ends_a_session() {
    let backend = echo("a");
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%%; proxy_timeout 1s;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .main("error_log %%DIR%%/error.log info;")
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    ask(&mut client, "x", "ax");
    client.expect_closed();
    let line = server.wait_for_log("connection timed out");
    assert!(line.contains("(110: Connection timed out) while proxying connection"), "{line}");
    assert!(line.contains(", bytes from/to client:1/2, bytes from/to upstream:2/1"), "{line}");
}

#[test]
fn rates_hold_back_both_directions() {
    let backend = collector(|all| all.to_vec());
    let server = Server::start(
        Config::stream(
            "map $server_port $rate { default 0; %%PORT_3%% 10k; }
             proxy_half_close on;
             server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_1%%; proxy_pass 127.0.0.1:%%BACKEND%%;
                 proxy_upload_rate 10k; }
             server { listen 127.0.0.1:%%PORT_2%%; proxy_pass 127.0.0.1:%%BACKEND%%;
                 proxy_download_rate 10k; }
             server { listen 127.0.0.1:%%PORT_3%%; proxy_pass 127.0.0.1:%%BACKEND%%;
                 proxy_upload_rate $rate; proxy_download_rate 0; }",
        )
        .with("BACKEND", backend.port()),
    );
    let body = vec![b'x'; 15_000];
    for (port, is_slow) in [(0, false), (1, true), (2, true), (3, true)] {
        let begun = Instant::now();
        let mut client = server.connect_to(port);
        client.send(&body);
        client.half_close();
        assert_eq!(client.read_to_end().len(), body.len());
        let elapsed = begun.elapsed();
        // The first 10k take a second that nothing else is moved in.
        assert_eq!(elapsed > Duration::from_millis(900), is_slow, "{port}: {elapsed:?}");
    }
}

#[test]
fn half_closed_connections_go_on_where_they_may() {
    let backend = collector(|all| format!("{} bytes", all.len()).into_bytes());
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%BACKEND%%;
                 proxy_half_close on; }
             server { listen 127.0.0.1:%%PORT_1%%; proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    for (port, expected) in [(0, &b"5 bytes"[..]), (1, b"")] {
        let mut client = server.connect_to(port);
        client.send("12345");
        client.half_close();
        assert_eq!(client.read_to_end(), expected, "{port}");
    }
}

#[test]
fn variables_say_where_to_go() {
    let (one, two) = (echo("1"), echo("2"));
    let server = Server::start(
        Config::stream(
            "upstream group { server 127.0.0.1:%%ONE%%; }
             map $server_port $to {
                 %%PORT_0%% group; %%PORT_1%% 127.0.0.1:%%TWO%%; %%PORT_2%% 127.0.0.1;
                 %%PORT_3%% unknown.name:1; }
             server { listen 127.0.0.1:%%PORT_0%%; listen 127.0.0.1:%%PORT_1%%;
                 listen 127.0.0.1:%%PORT_2%%; listen 127.0.0.1:%%PORT_3%%; proxy_pass $to; }",
        )
        .with("ONE", one.port())
        .with("TWO", two.port()),
    );
    ask(&mut server.connect_to(0), "x", "1x");
    ask(&mut server.connect_to(1), "x", "2x");
    assert_eq!(server.connect_to(2).read_to_end(), b"");
    server.wait_for_log("no port in upstream \"127.0.0.1\"");
    assert_eq!(server.connect_to(3).read_to_end(), b"");
    server.wait_for_log("no resolver defined to resolve unknown.name");
}

#[test]
fn unix_sockets_on_both_sides() {
    let server = Server::start(Config::stream(
        "server { listen unix:%%DIR%%/in.sock; proxy_pass unix:%%DIR%%/out.sock; }
         server { listen unix:%%DIR%%/out.sock; return '$remote_addr $server_addr'; }",
    ));
    let mut client = Client::connect(server.path("in.sock"));
    let expected = format!("unix: unix:{}", server.path("out.sock").display());
    assert_eq!(String::from_utf8_lossy(&client.read_to_end()), expected);
}

#[test]
fn where_connections_to_backends_come_from() {
    let server = Server::start(Config::stream(
        "server { listen 127.0.0.1:%%PORT_0%%; return '$remote_addr'; }
         server { listen 127.0.0.1:%%PORT_1%%; proxy_pass 127.0.0.1:%%PORT_0%%;
             proxy_bind 127.0.0.7; }
         server { listen 127.0.0.1:%%PORT_2%%; proxy_pass 127.0.0.1:%%PORT_0%%;
             set $from 127.0.0.8; proxy_bind $from; }
         server { listen 127.0.0.1:%%PORT_3%%; proxy_pass 127.0.0.1:%%PORT_0%%; }",
    ));
    for (port, expected) in [(1, "127.0.0.7"), (2, "127.0.0.8"), (3, "127.0.0.1")] {
        let answer = server.connect_to(port).read_to_end();
        assert_eq!(String::from_utf8_lossy(&answer), expected, "{port}");
    }
}

#[test]
fn sockets_have_the_options_of_their_server() {
    let backend = echo("a");
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_1%% so_keepalive=on; tcp_nodelay off;
                 proxy_pass 127.0.0.1:%%BACKEND%%; proxy_socket_keepalive on;
                 proxy_socket_rcvbuf 20k; proxy_socket_sndbuf 30k; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut plain = server.connect_to(0);
    let mut special = server.connect_to(1);
    for client in [&mut plain, &mut special] {
        // One small write cannot wait for an acknowledgement, and needs no option.
        ask(client, "x", "ax");
        ask(client, "y", "ay");
    }
    let (plain_side, special_side) = (server.options_of(&plain), server.options_of(&special));
    assert!(plain_side.nodelay && !plain_side.keepalive, "{plain_side:?}");
    assert!(!special_side.nodelay && special_side.keepalive, "{special_side:?}");
    let towards: Vec<_> = server.options_towards(backend.port());
    assert!(towards.iter().any(|side| side.nodelay && !side.keepalive), "{towards:?}");
    let special = towards.iter().find(|side| side.keepalive).expect("one has keepalive");
    assert!(!special.nodelay, "{special:?}");
    assert_eq!((special.receive_buffer, special.send_buffer), (40 << 10, 60 << 10));
}

#[test]
fn a_reload_leaves_sessions_alone_until_their_time_is_up() {
    let backend = echo("a");
    let config = |line: &str| {
        Config::stream("server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%BACKEND%%; }")
            .main(line)
            .with("BACKEND", backend.port())
    };
    let mut server = Server::start(config(""));
    let mut client = server.connect();
    ask(&mut client, "before", "abefore");
    server.reload();
    ask(&mut client, "after", "aafter");
    ask(&mut server.connect(), "new", "anew");
    drop(client);
    let mut limited = Server::start(config("worker_shutdown_timeout 50ms;"));
    let mut client = limited.connect();
    ask(&mut client, "before", "abefore");
    limited.reload();
    client.expect_closed();
    server.quit();
    limited.quit();
}

#[test]
fn addresses_and_ports_are_taken_as_they_are_written() {
    let v6 = if has_ipv6() { "listen [::1]:%%PORT_2%% ipv6only=on;" } else { "" };
    let server = Server::start(Config::stream(&format!(
        "server {{ listen %%PORT_0%%; return any:$server_addr; }}
         server {{ listen 127.0.0.2:%%PORT_0%%; return second; }}
         server {{ listen 127.0.0.1:%%PORT_1%% backlog=7; {v6} return $remote_port:$server_port; }}"
    )));
    assert_eq!(server.connect().read_to_end(), b"any:127.0.0.1");
    let to: std::net::SocketAddr = ([127, 0, 0, 2], server.port(0)).into();
    assert_eq!(Client::connect(to).read_to_end(), b"second");
    let mut client = server.connect_to(1);
    let expected = format!("{}:{}", client.local_address().port(), server.port(1));
    assert_eq!(String::from_utf8_lossy(&client.read_to_end()), expected);
}

#[test]
fn mistakes_are_told_in_the_words_of_nginx() {
    for (inside, expected) in [
        ("server { return x; }", "no \"listen\" is defined for server in"),
        ("server { listen 127.0.0.1; }", "no port in \"127.0.0.1\" of the \"listen\" directive"),
        (
            "server { listen %%PORT_0%%; proxy_pass 127.0.0.1; }",
            "no port in upstream \"127.0.0.1\"",
        ),
        (
            "server { listen %%PORT_0%%; proxy_pass no-such-host.invalid:1; }",
            "host not found in upstream \"no-such-host.invalid\"",
        ),
        (
            "upstream u { server 127.0.0.1; } server { listen %%PORT_0%%; proxy_pass u; }",
            "no port in upstream \"127.0.0.1\"",
        ),
        (
            "upstream u { server 127.0.0.1:1; keepalive 4; }",
            "\"keepalive\" directive is not allowed here",
        ),
        ("server { listen %%PORT_0%%; listen %%PORT_0%%; return x; }", "a duplicate listen"),
        ("server { listen %%PORT_0%%; return $nothing; }", "unknown \"nothing\" variable"),
        (
            "server { listen %%PORT_0%%; access_log %%DIR%%/a.log; return x; }",
            "log format is not specified",
        ),
        ("geo $x { proxy 127.0.0.1; }", "invalid network \"proxy\""),
        ("server { listen %%PORT_0%%; proxy_upload_rate x; }", "directive invalid value"),
        ("server { listen %%PORT_0%% udp backlog=5; return x; }", "is incompatible with \"udp\""),
    ] {
        let outcome = Server::check(Config::stream(inside));
        assert!(!outcome.success(), "{inside}");
        outcome.says(expected);
    }
}

#[test]
fn old_names_of_the_buffer_still_work_and_say_so() {
    let backend = echo("a");
    for (line, name) in [
        ("proxy_buffer_size 1k;", ""),
        ("proxy_downstream_buffer 1k;", "proxy_downstream_buffer"),
        ("proxy_upstream_buffer 1k;", "proxy_upstream_buffer"),
    ] {
        let config = Config::stream(&format!(
            "server {{ listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%BACKEND%%; {line}
                 proxy_download_rate 4k; }}"
        ))
        .with("BACKEND", backend.port());
        if !name.is_empty() {
            let warning = format!("the \"{name}\" directive is deprecated");
            Server::check(config.clone()).expect(0).says(&warning);
        }
        let server = Server::start(config);
        let mut client = server.connect();
        // A read takes a buffer at most, and is followed by the time that it is worth: a
        // kilobyte takes a quarter of a second. Without the line four of them come at once.
        client.send([b'x'; 6000]);
        let begun = Instant::now();
        client.read_exactly(1025);
        assert!(begun.elapsed() > Duration::from_millis(200), "{line} {:?}", begun.elapsed());
    }
}
