//! Settings that FastCGI, SCGI, uwsgi and memcached have in common with `proxy_pass`.

use crate::programs::{FAMILIES, program, read, record};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::{Backend, Config, Gate, Server, Socket, options_of, sockets, steady, until};

const ALL: [&str; 4] = ["fastcgi", "scgi", "uwsgi", "memcached"];

fn server(family: &str, port: u16, lines: &str) -> Server {
    let key = "set $memcached_key k;";
    let lines = format!("{key} location / {{ {lines} FAMILY_pass 127.0.0.1:%%BACKEND%%; }}");
    Server::start(Config::server(&lines.replace("FAMILY", family)).with("BACKEND", port))
}

/// A peer that takes what it is sent and says nothing.
fn silent() -> Backend {
    Backend::script(|conversation| {
        conversation.read_to_end();
    })
}

#[test]
fn peers_that_are_too_slow() {
    let unreachable = Backend::unreachable();
    let silent = silent();
    for family in ALL {
        let limit = "FAMILY_connect_timeout 100ms;";
        server(family, unreachable.port(), limit).get("/").expect(504);
        let limited = server(family, silent.port(), "FAMILY_read_timeout 100ms;");
        limited.get("/").expect(504);
        limited.wait_for_log("while reading response header from upstream");
    }
}

#[test]
fn peers_that_do_not_read() {
    for family in FAMILIES {
        let gate = Gate::new();
        let held = gate.clone();
        let backend = Backend::script(move |conversation| {
            let _ = conversation.read_some();
            conversation.wait(&held);
        });
        let limits = "FAMILY_send_timeout 100ms; client_max_body_size 0;";
        let server = server(family, backend.port(), limits);
        let answer = server.connect().post("/", vec![b'x'; 32 << 20]);
        assert_eq!(answer.status, 504, "{family}");
        server.wait_for_log("while sending request to upstream");
        gate.open();
    }
}

#[test]
fn how_many_peers_are_asked_and_for_how_long() {
    let silent = silent();
    let closing = Backend::script(|conversation| {
        let _ = conversation.read_some();
    });
    for family in ALL {
        let good = match family {
            "memcached" => Backend::script(|conversation| {
                while conversation.read_some().is_ok() {
                    conversation.send("VALUE k 0 4\r\ngood\r\nEND\r\n");
                }
            }),
            _ => program(family, |_| "A: b\n\ngood".into()),
        };
        let text =
            "upstream slow { server 127.0.0.1:%%SILENT%%; server 127.0.0.1:%%GOOD%% backup; }
             upstream lost { server 127.0.0.1:%%CLOSING%%; server 127.0.0.1:%%GOOD%% backup; }
             server { listen 127.0.0.1:%%PORT_0%%; set $memcached_key k;
                 FAMILY_read_timeout 500ms;
                 location /slow { FAMILY_pass slow; }
                 location /late { FAMILY_next_upstream_timeout 50ms; FAMILY_pass slow; }
                 location /lost { FAMILY_pass lost; }
                 location /once { FAMILY_next_upstream_tries 1; FAMILY_pass lost; }
                 location /off { FAMILY_next_upstream off; FAMILY_pass lost; } }";
        // A server for each: a peer that failed is not asked again for a while.
        let get = |path: &str| {
            let server = Server::start(
                Config::http(&text.replace("FAMILY", family))
                    .with("SILENT", silent.port())
                    .with("CLOSING", closing.port())
                    .with("GOOD", good.port()),
            );
            server.get(path)
        };
        assert_eq!(get("/slow").expect(200).text(), "good", "{family}");
        get("/late").expect(504);
        assert_eq!(get("/lost").expect(200).text(), "good", "{family}");
        get("/once").expect(502);
        get("/off").expect(502);
    }
}

#[test]
fn connections_have_their_options() {
    for family in ALL {
        let probed = |line: &str| {
            let backend = silent();
            let server = server(family, backend.port(), line);
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            backend.wait_open_connections(1);
            let side = sockets(backend.port()).into_iter().find(|socket| {
                socket.remote_port == backend.port() && socket.state == Socket::ESTABLISHED
            });
            let side = side.expect("the connection to the backend");
            let found = server.workers().into_iter().find_map(|pid| options_of(pid, side.inode));
            found.expect("a worker holds the connection")
        };
        assert!(probed("FAMILY_socket_keepalive on;").keepalive, "{family}");
        assert!(!probed("").keepalive, "{family}");
        if family != "memcached" {
            let sized = probed("FAMILY_socket_rcvbuf 20k; FAMILY_socket_sndbuf 30k;");
            // The kernel keeps twice of what was asked for.
            let sizes = (sized.receive_buffer, sized.send_buffer);
            assert_eq!(sizes, (2 * 20 * 1024, 2 * 30 * 1024), "{family}");
        }
        let from = Arc::new(std::sync::Mutex::new(None));
        let seen = from.clone();
        let backend = Backend::script(move |conversation| {
            *seen.lock().expect("no panic") = conversation.from;
        });
        let server = server(family, backend.port(), "FAMILY_bind 127.0.0.3;");
        server.get("/").expect(502);
        let from = from.lock().expect("no panic").expect("a connection");
        assert_eq!(from.ip().to_string(), "127.0.0.3", "{family}");
    }
}

#[test]
fn parts_of_answers_that_do_not_offer_them() {
    for family in FAMILIES {
        let backend = program(family, |_| "Content-Length: 10\nETag: \"a\"\n\n0123456789".into());
        let get = |line: &str| {
            let server = server(family, backend.port(), line);
            let fields = [("Host", "a"), ("Range", "bytes=4-6")];
            server.connect().request("GET", "/", &fields, b"").text()
        };
        assert_eq!(get("FAMILY_force_ranges on;"), "456", "{family}");
        assert_eq!(get(""), "0123456789", "{family}");
    }
}

#[test]
fn requests_that_go_on_without_their_client() {
    for family in FAMILIES {
        let gate = Gate::new();
        let held = gate.clone();
        let backend = Backend::script(move |conversation| {
            if read(family, conversation).is_err() {
                return;
            }
            conversation.wait(&held);
            match family {
                "fastcgi" => {
                    let text = record(6, b"A: b\n\ntext");
                    conversation.send([text, record(6, b""), record(3, &[0; 8])].concat())
                }
                _ => conversation.send("A: b\n\ntext"),
            };
        });
        let server = server(family, backend.port(), "FAMILY_ignore_client_abort on;");
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        gate.wait_arrived(1);
        client.reset();
        assert_eq!(steady(Duration::from_millis(100), || backend.open_connections()), 1);
        gate.open();
        server.wait_for_access("\"GET / HTTP/1.1\" 200 ");
    }
}

#[test]
fn answers_are_read_at_a_rate() {
    const LENGTH: usize = 60_000;
    let begin = Instant::now();
    let mut running = Vec::new();
    for family in FAMILIES {
        let backend = program(family, |_| [&b"A: b\n\n"[..], &b"x".repeat(LENGTH)].concat());
        let server = server(family, backend.port(), "FAMILY_limit_rate 20000;");
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        running.push((client, server, backend));
    }
    // All at once, so that their waits pass together.
    for (client, _, _) in &mut running {
        assert_eq!(client.read_response().expect(200).body.len(), LENGTH);
        assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    }
}

#[test]
fn answers_go_to_files_where_that_is_allowed() {
    /// More than the sockets of two connections hold.
    const LARGE: usize = 48 << 20;
    for family in FAMILIES {
        let get = |lines: &str, is_held: bool| {
            let body = b"x".repeat(LARGE);
            let backend = program(family, move |_| [&b"A: b\n\n"[..], &body].concat());
            let server = server(family, backend.port(), lines);
            let mut client = server.connect();
            client.stream().shrink_receive_buffer(16 << 10).expect("an option of a socket");
            client.send("GET / HTTP/1.0\r\n\r\n");
            backend.wait_open_connections(1);
            let open = || backend.open_connections();
            match is_held {
                true => assert_eq!(steady(Duration::from_millis(300), open), 1, "{family} {lines}"),
                false => assert!(until(|| open() == 0), "{family} {lines}"),
            }
            client.stream().shrink_receive_buffer(4 << 20).expect("an option of a socket");
            assert_eq!(client.read_response().body.len(), LARGE, "{family} {lines}");
            server
        };
        let server = get("FAMILY_temp_path %%DIR%%/spilled 1;", false);
        assert!(server.path("spilled").is_dir(), "{family}");
        get("FAMILY_max_temp_file_size 0;", true);
        get("FAMILY_max_temp_file_size 0; FAMILY_buffers 50 1m;", false);
    }
}

#[test]
fn buffers_must_fit_together() {
    for family in FAMILIES {
        let check = |lines: &str, words: &str| {
            let lines = lines.replace("FAMILY", family);
            let outcome = Server::check(Config::http(&format!(
                "{lines} server {{ location / {{ {family}_pass 127.0.0.1:1; }} }}"
            )));
            let words = words.replace("FAMILY", family);
            assert!(outcome.expect(1).stderr.contains(&words), "{lines}");
        };
        check("FAMILY_buffers 1 4k;", "there must be at least 2 \"FAMILY_buffers\"");
        check(
            "FAMILY_busy_buffers_size 1k;",
            "\"FAMILY_busy_buffers_size\" must be equal to or greater than the maximum",
        );
        check(
            "FAMILY_buffers 4 4k; FAMILY_busy_buffers_size 16k;",
            "\"FAMILY_busy_buffers_size\" must be less than the size of all \"FAMILY_buffers\"",
        );
    }
}
