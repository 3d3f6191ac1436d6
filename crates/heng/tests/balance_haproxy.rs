//! `balance` and `hash_type`: HAProxy's choices. The expected ones are those of recorded runs of
//! HAProxy (`crates/balance/tests/recorded/haproxy.txt`).

use testkit::{Answer, Backend, Config, Gate, Server};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A server whose group has these rows and a backend of each weight: a, b, ...
fn start(group: &str, weights: &[u32]) -> (Server, Vec<Backend>) {
    let backends: Vec<Backend> =
        NAMES[..weights.len()].iter().map(|name| Backend::named(name)).collect();
    let row = |(backend, weight): (&Backend, &u32)| {
        format!("server 127.0.0.1:{} weight={weight};", backend.port())
    };
    let rows: String = backends.iter().zip(weights).map(row).collect();
    let server = Server::start(Config::http(&format!(
        "set_real_ip_from 127.0.0.1; real_ip_header X-Client;
         upstream u {{ {group} {rows} }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u; }} }}"
    )));
    (server, backends)
}

/// Who answers for each path.
fn owners<T: AsRef<str>>(server: &Server, paths: &[T]) -> String {
    let mut client = server.connect();
    paths.iter().map(|path| client.get(path.as_ref()).expect(200).text()).collect()
}

/// Who answers when a field has each of the values.
fn owners_by(server: &Server, field: &str, values: &[&str]) -> String {
    let mut client = server.connect();
    let ask = |value: &&str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{field}: {value}\r\n\r\n"));
        client.read_response().expect(200).text()
    };
    values.iter().map(ask).collect()
}

#[test]
fn turns_are_those_of_haproxy() {
    let check = |method: &str, weights: &[u32], expected: &str| {
        let (server, _backends) = start(method, weights);
        assert_eq!(owners(&server, &vec!["/"; expected.len()]), expected, "{method}");
    };
    check("balance roundrobin;", &[5, 1, 1], "aaabaacaaabaac");
    check("balance static-rr;", &[6, 9, 3], "ababbcababbcab");
}

/// Keys of the recording.
const WORDS: [&str; 10] =
    ["jzde8g", "d6ncf1", "epf91d/", "od", "zdoc9is0j8", "/t", "lg/mxg9e/", "n", "81u33xtp", "pf/"];

#[test]
fn keys_go_where_haproxy_sends_them() {
    let check = |method: &str, weights: &[u32], paths: &[String], expected: &str| {
        let (server, _backends) = start(method, weights);
        assert_eq!(owners(&server, paths), expected, "{method}");
    };
    let with = |format: &dyn Fn(&str) -> String| -> Vec<String> {
        WORDS.iter().map(|word| format(word)).collect()
    };
    let parameters = with(&|word| format!("/?x=1&k={word}&y"));
    check("balance url_param k;", &[1; 3], &parameters, "cbabbbaccc");
    check("balance hash $arg_k;", &[1; 3], &parameters, "cbabbbaccc");
    let ring = "balance url_param k; hash_type consistent sdbm;";
    check(ring, &[5, 1, 2, 9], &parameters[..7], "ddcdddb");
    // What is cut off does not count.
    let (server, _backends) = start("balance uri depth 1;", &[1; 4]);
    let found = owners(&server, &["/one/a", "/one/b?c", "/one", "/two/a", "/two", "/two/c"]);
    assert_eq!(
        (found[..1].repeat(3), found[3..4].repeat(3)),
        (found[..3].into(), found[3..].into())
    );
}

#[test]
fn addresses_and_fields_are_keys() {
    let (server, _backends) = start("balance source;", &[5, 1, 2, 9]);
    let clients = [
        "83.243.39.102",
        "167.13.19.211",
        "138.25.94.150",
        "15.233.130.55",
        "10.23.112.108",
        "18.62.24.142",
        "109.16.212.145",
    ];
    assert_eq!(owners_by(&server, "X-Client", &clients), "cbdcdca");
    let (server, _backends) = start("balance hdr(X-Key);", &[1; 3]);
    assert_eq!(owners_by(&server, "X-Key", &WORDS), "cbabbbaccc");
    assert_eq!(owners_by(&server, "X-Other", &["1", "2", "3"]), "abc", "they take turns");
    let (server, _backends) = start("balance hdr(X-Key) use_domain_only;", &[1; 3]);
    assert_eq!(owners_by(&server, "X-Key", &["od", "www.od.org", "od.com"]), "bbb");
}

#[test]
fn who_is_down_is_not_on_the_map() {
    let backends: Vec<Backend> = NAMES.iter().map(|name| Backend::named(name)).collect();
    let row = |backend: &Backend| format!("server 127.0.0.1:{};", backend.port());
    let rows: String = backends.iter().map(row).collect();
    let server = Server::start(Config::http(&format!(
        "upstream u {{ zone u 64k; balance url_param k; {rows} }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location / {{ proxy_pass http://u; }}
             location /api {{ api write=on; allow 127.0.0.1; deny all; }}
         }}"
    )));
    let paths: Vec<String> = (0..60).map(|n| format!("/?k=key{n}")).collect();
    let before = owners(&server, &paths);
    let set = |down: bool| {
        let mut client = server.connect();
        let body = format!("{{\"down\":{down}}}");
        let length = body.len();
        client.send(format!(
            "PATCH /api/9/http/upstreams/u/servers/1 HTTP/1.1\r\nHost: h\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ));
        client.read_response().expect(200);
    };
    set(true);
    let without = owners(&server, &paths);
    assert!(before.contains('b') && !without.contains('b'), "{before} {without}");
    // The map is shorter now, so that keys of others move too.
    let moved = before.chars().zip(without.chars()).filter(|(old, new)| old != new).count();
    assert!(moved > before.matches('b').count(), "{before} {without}");
    set(false);
    assert_eq!(owners(&server, &paths), before);
}

#[test]
fn leastconn_takes_turns_among_equals() {
    let gate = Gate::new();
    let held = gate.clone();
    let slow = Backend::with(move |request| match request.target.contains("hold") {
        true => Answer::text("a").after_gate(&held),
        false => Answer::text("a"),
    });
    let (b, c) = (Backend::named("b"), Backend::named("c"));
    let ports = [slow.port(), b.port(), c.port()];
    let rows: String = ports.iter().map(|port| format!("server 127.0.0.1:{port};")).collect();
    let server = Server::start(Config::http(&format!(
        "upstream u {{ balance leastconn; {rows} }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u; }} }}"
    )));
    assert_eq!(owners(&server, &["/"; 3]), "abc");
    let mut first = server.connect();
    first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    assert_eq!(owners(&server, &["/"; 4]), "bcbc");
    gate.open();
    assert_eq!(first.read_response().text(), "a");
}

#[test]
fn hash_balance_factor_keeps_a_popular_key_in_bounds() {
    let gates: Vec<Gate> = (0..4).map(|_| Gate::new()).collect();
    let backends: Vec<Backend> = gates
        .iter()
        .zip(NAMES)
        .map(|(gate, name)| {
            let gate = gate.clone();
            Backend::with(move |_| Answer::text(name).after_gate(&gate))
        })
        .collect();
    let row = |backend: &Backend| format!("server 127.0.0.1:{};", backend.port());
    let rows: String = backends.iter().map(row).collect();
    let server = Server::start(Config::http(&format!(
        "upstream u {{
             balance url_param k; hash_type consistent; hash_balance_factor 125; {rows}
         }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u; }} }}"
    )));
    let mut clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = server.connect();
            client.send("GET /?k=popular HTTP/1.1\r\nHost: h\r\n\r\n");
            let asked = || backends.iter().map(Backend::request_count).sum::<usize>();
            assert!(testkit::until(|| asked() > n));
            client
        })
        .collect();
    // Ten slots for eight requests: none has more than three.
    let counts: Vec<usize> = backends.iter().map(Backend::request_count).collect();
    assert!(counts.iter().all(|count| *count <= 3), "{counts:?}");
    gates.iter().for_each(Gate::open);
    clients.iter_mut().for_each(|client| drop(client.read_response().expect(200)));
}

#[test]
fn what_cannot_be_is_refused() {
    let check = |group: &str, expected: &str| {
        let config = Config::http(&format!("upstream u {{ {group} server 127.0.0.1:1; }}"));
        let outcome = Server::check(config);
        assert!(outcome.stderr.contains(expected), "{group}: {}", outcome.stderr);
    };
    check("balance uri; hash_type consistent;", "test is successful");
    check("balance nothing;", "invalid method \"nothing\"");
    check("balance first;", "\"first\" works with \"max_conns\" only");
    check("balance rdp-cookie;", "invalid method \"rdp-cookie\"");
    check("balance roundrobin; hash_type consistent;", "\"hash_type\" works with a \"balance\"");
    check("hash $uri; hash_type consistent;", "\"hash_type\" works with a \"balance\"");
    let factor = "\"hash_balance_factor\" works with \"hash_type consistent\" only";
    check("balance uri; hash_balance_factor 150;", factor);
    check("balance uri; least_conn;", "load balancing method redefined");
}

#[test]
fn sessions_of_streams_are_balanced_too() {
    let backends: Vec<Backend> = NAMES[..3].iter().map(|name| Backend::named(name)).collect();
    let row = |backend: &Backend| format!("server 127.0.0.1:{};", backend.port());
    let rows: String = backends.iter().map(row).collect();
    let start = |method: &str| {
        Server::start(Config::stream(&format!(
            "upstream u {{ {method} {rows} }}
             server {{ listen 127.0.0.1:%%PORT_0%%; rdp_preread on; proxy_pass u; }}"
        )))
    };
    let server = start("balance leastconn;");
    let found: String = (0..3).map(|_| server.get("/").expect(200).text()).collect();
    assert_eq!(found, "abc");
    let server = start("balance source; hash_type consistent;");
    let found: String = (0..3).map(|_| server.get("/").expect(200).text()).collect();
    assert_eq!(found, found[..1].repeat(3));
    // Without a cookie they take turns.
    let server = start("balance rdp-cookie(mstshash);");
    let found: String = (0..3).map(|_| server.get("/").expect(200).text()).collect();
    assert_eq!(found, "abc");
}
