//! The client's address as trusted proxies tell it.

use testkit::{Client, Config, Server};

/// A server that answers with what it takes the client to be, and with who connected.
fn server(inside: &str) -> Server {
    Server::start(Config::http(&format!(
        "{inside}
         server {{
             listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html;
             location / {{ return 200 '$remote_addr:$remote_port'; }}
         }}"
    )))
}

fn ask(server: &Server, path: &str, fields: &[(&str, &str)]) -> String {
    let mut all = vec![("Host", "localhost")];
    all.extend_from_slice(fields);
    server.connect().request("GET", path, &all, b"").expect(200).text()
}

/// Asks on a connection of its own; the connection's own port is shown as PORT.
fn shown(server: &Server, path: &str, fields: &[(&str, &str)]) -> String {
    let mut client = server.connect();
    let port = client.local_address().port().to_string();
    let mut all = vec![("Host", "localhost")];
    all.extend_from_slice(fields);
    client.request("GET", path, &all, b"").expect(200).text().replace(&port, "PORT")
}

#[test]
fn trusted_peers_are_believed() {
    let local = "127.0.0.1:PORT";
    for (inside, expected) in [
        ("", local),
        ("set_real_ip_from 127.0.0.1;", "192.0.2.1:"),
        ("set_real_ip_from 127.0.0.0/8;", "192.0.2.1:"),
        ("set_real_ip_from 0.0.0.0/0;", "192.0.2.1:"),
        ("set_real_ip_from 10.0.0.0/8; set_real_ip_from 127.0.0.1;", "192.0.2.1:"),
        ("set_real_ip_from localhost;", "192.0.2.1:"),
        ("set_real_ip_from 10.0.0.0/8;", local),
        ("set_real_ip_from ::/0;", local),
        ("set_real_ip_from unix:;", local),
    ] {
        let server = server(inside);
        assert_eq!(shown(&server, "/", &[("X-Real-IP", "192.0.2.1")]), expected, "{inside}");
        assert_eq!(shown(&server, "/", &[]), local, "{inside}");
    }
}

#[test]
fn the_field_may_hold_any_kind_of_address() {
    let server = server("set_real_ip_from 127.0.0.1;");
    for (value, expected) in [
        ("192.0.2.1", "192.0.2.1:"),
        ("192.0.2.1:81", "192.0.2.1:81"),
        ("2001:db8::1", "2001:db8::1:"),
        ("[2001:db8::1]:81", "2001:db8::1:81"),
        ("192.0.2.9, 192.0.2.1", "192.0.2.1:"),
        ("nobody", "127.0.0.1:PORT"),
        ("", "127.0.0.1:PORT"),
    ] {
        assert_eq!(shown(&server, "/", &[("X-Real-IP", value)]), expected, "{value}");
    }
    let twice = [("X-Real-IP", "192.0.2.1"), ("X-Real-IP", "192.0.2.2")];
    assert_eq!(shown(&server, "/", &twice), "192.0.2.1:");
}

#[test]
fn real_ip_header_names_the_field() {
    let server = server("set_real_ip_from 127.0.0.1; real_ip_header X-My-Client;");
    assert_eq!(
        ask(&server, "/", &[("X-Real-IP", "192.0.2.1"), ("x-my-CLIENT", "192.0.2.2")]),
        "192.0.2.2:"
    );
    let server = known("Forwarded");
    assert_eq!(ask(&server, "/", &[("Forwarded", "192.0.2.3")]), "192.0.2.3:");
}

fn known(field: &str) -> Server {
    server(&format!("set_real_ip_from 127.0.0.1; real_ip_header {field};"))
}

#[test]
fn real_ip_recursive_passes_over_trusted_addresses() {
    let rules = "set_real_ip_from 127.0.0.1; set_real_ip_from 10.0.1.0/24;
                 real_ip_header X-Forwarded-For;";
    let once = server(rules);
    let recursive = server(&format!("{rules} real_ip_recursive on;"));
    for (values, expected_once, expected) in [
        (&["10.0.0.1, 192.0.2.1"][..], "192.0.2.1:", "192.0.2.1:"),
        (&["192.0.2.1, 10.0.1.1"], "10.0.1.1:", "192.0.2.1:"),
        (&["10.0.1.1, 192.0.2.1, 127.0.0.1"], "127.0.0.1:", "192.0.2.1:"),
        (&["192.0.2.1", "127.0.0.1, 10.0.1.1"], "10.0.1.1:", "192.0.2.1:"),
        (&["10.0.1.1", "192.0.2.1", "127.0.0.1"], "127.0.0.1:", "192.0.2.1:"),
        (&["192.0.2.2", "192.0.2.1", "nobody"], "127.0.0.1:PORT", "127.0.0.1:PORT"),
    ] {
        let fields: Vec<(&str, &str)> =
            values.iter().map(|value| ("X-Forwarded-For", *value)).collect();
        assert_eq!(shown(&once, "/", &fields), expected_once, "{values:?}");
        assert_eq!(shown(&recursive, "/", &fields), expected, "{values:?} recursive");
    }
}

#[test]
fn levels_replace_and_locations_come_after_their_server() {
    let server = Server::start(
        Config::http(
            "set_real_ip_from 127.0.0.1;
             server {
                 listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html; add_header X-Client $remote_addr;
                 location /own { real_ip_header X-Own; alias %%DIR%%/html/index.html; }
                 location /none { set_real_ip_from 10.0.0.1; alias %%DIR%%/html/index.html; }
             }
             server {
                 listen 127.0.0.1:%%PORT_1%%; root %%DIR%%/html; add_header X-Client $remote_addr;
                 set_real_ip_from 10.0.0.1;
                 location /within { set_real_ip_from 127.0.0.1;
                                    alias %%DIR%%/html/index.html; }
             }
             server { listen 127.0.0.1:%%PORT_2%%; return 200 $remote_addr; }",
        )
        .file("html/index.html", "page"),
    );
    let ask = |port: usize, path: &str, fields: &[(&str, &str)]| {
        let mut all = vec![("Host", "localhost")];
        all.extend_from_slice(fields);
        let answer = server.connect_to(port).request("GET", path, &all, b"").expect(200);
        answer.header("X-Client").map_or_else(|| answer.text(), str::to_string)
    };
    let real = ("X-Real-IP", "192.0.2.1");
    let own = ("X-Own", "192.0.2.2");
    assert_eq!(ask(0, "/", &[real]), "192.0.2.1");
    // The server's own level has found an address: the location does not look for another.
    assert_eq!(ask(0, "/own", &[real, own]), "192.0.2.1");
    assert_eq!(ask(0, "/own", &[own]), "192.0.2.2");
    assert_eq!(ask(0, "/none", &[real]), "192.0.2.1");
    assert_eq!(ask(1, "/index.html", &[real]), "127.0.0.1");
    assert_eq!(ask(1, "/within", &[real]), "192.0.2.1");
    // The server's rewrites come after.
    assert_eq!(ask(2, "/", &[real]), "192.0.2.1");
}

#[test]
fn who_connected_can_still_be_told() {
    let server = Server::start(Config::http(
        "log_format f '$remote_addr $realip_remote_addr $realip_remote_port';
             set_real_ip_from 127.0.0.1;
             server { listen 127.0.0.1:%%PORT_0%%; access_log %%DIR%%/logs/access.log f;
                      location / { return 200 '$realip_remote_addr:$realip_remote_port'; }
                      location /missing { alias %%DIR%%/nothing; } }",
    ));
    assert_eq!(shown(&server, "/", &[("X-Real-IP", "192.0.2.1:1")]), "127.0.0.1:PORT");
    assert_eq!(shown(&server, "/", &[]), "127.0.0.1:PORT");
    server.wait_for_access("192.0.2.1 127.0.0.1 ");
    // The next request on a connection is another client's, perhaps.
    let mut client = server.connect();
    let fields = [("Host", "localhost"), ("X-Real-IP", "192.0.2.7")];
    client.request("GET", "/missing", &fields, b"").expect(404);
    client.get("/missing").expect(404);
    assert!(server.wait_for_log("client: 192.0.2.7, ").contains("GET /missing"));
    assert!(server.wait_for_log("client: 127.0.0.1, ").contains("GET /missing"));
}

#[test]
fn a_unix_socket_can_be_trusted() {
    let server = Server::start(Config::http(
        "set_real_ip_from unix:;
         server { listen unix:%%DIR%%/socket; listen 127.0.0.1:%%PORT_0%%;
                  return 200 '$remote_addr $realip_remote_addr $realip_remote_port.'; }",
    ));
    let path = server.path("socket");
    let ask = |fields: &[(&str, &str)]| {
        let mut client = Client::connect(path.clone());
        client.request("GET", "/", fields, b"").expect(200).text()
    };
    assert_eq!(ask(&[("Host", "a"), ("X-Real-IP", "192.0.2.1")]), "192.0.2.1 unix: .");
    assert_eq!(ask(&[("Host", "a")]), "unix: unix: .");
}

#[test]
fn faults_in_the_configuration() {
    let outcome = Server::check(Config::server("set_real_ip_from name.invalid;"));
    let message = "[emerg] host not found in set_real_ip_from \"name.invalid\" in ";
    assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    assert_eq!(outcome.code, Some(1));
    let outcome = Server::check(Config::server("set_real_ip_from 10.0.0.1/8;"));
    let message = "[warn] low address bits of 10.0.0.1/8 are meaningless in ";
    assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    assert_eq!(outcome.code, Some(0));
}
