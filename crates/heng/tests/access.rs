//! `allow`, `deny`, `auth_basic`, `auth_delay`, and how they combine.

use std::time::{Duration, Instant};
use testkit::{Config, Peer, Response, Server, has_ipv6};

/// `ann` has the password `secret`.
fn serving(inside: &str) -> Server {
    let server = Server::start(
        Config::server(&format!("auth_basic_user_file htpasswd; {inside}"))
            .main("error_log %%DIR%%/error.log info;")
            .file(
                "htpasswd",
                "# users\nann:{PLAIN}secret\nbob:$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.\n",
            ),
    );
    server.write("html/index.html", "inside");
    server
}

const ANN: &str = "Basic YW5uOnNlY3JldA==";
const WRONG: &str = "Basic YW5uOndyb25n";
const BOB: &str = "Basic Ym9iOnBhc3N3b3Jk";

fn with(server: &Server, path: &str, authorization: &str) -> Response {
    let headers = [("Host", "a"), ("Authorization", authorization)];
    server.connect().request("GET", path, &headers, b"")
}

#[test]
fn the_first_rule_about_a_client_decides() {
    let server = serving(
        "location / { deny 127.0.0.2; allow 127.0.0.0/8; deny all; }
         location /none/ { alias %%DIR%%/html/; deny all;
             location /none/own/ { alias %%DIR%%/html/; allow all; } }
         location /other/ { alias %%DIR%%/html/; deny 10.0.0.0/8; deny unix:; }",
    );
    assert_eq!(server.get("/").text(), "inside");
    assert_eq!(server.get("/none/").status, 403);
    assert_eq!(server.get("/none/own/").status, 200);
    assert_eq!(server.get("/other/").status, 200);
    let line = server.wait_for_log("access forbidden by rule, client: 127.0.0.1");
    assert!(line.contains("[error]") && line.contains("\"GET /none/ HTTP/1.1\""), "{line}");
}

#[test]
fn ipv6_and_unix_clients_have_rules_too() {
    let listen = if has_ipv6() { "listen [::1]:%%PORT_0%%;" } else { "" };
    let server = Server::start(Config::http(&format!(
        "server {{
             listen 127.0.0.1:%%PORT_0%%; {listen} listen unix:%%DIR%%/socket;
             location / {{ allow unix:; deny all; }}
             location /six/ {{ alias %%DIR%%/html/; deny ::1; allow all; }}
         }}"
    )));
    server.write("html/index.html", "inside");
    let ask = |peer: Peer, path: &str| testkit::Client::connect(peer).get(path).status;
    assert_eq!(ask(Peer::from(server.path("socket")), "/"), 200);
    assert_eq!(server.get("/").status, 403);
    assert_eq!(server.get("/six/").status, 200);
    if has_ipv6() {
        let address = std::net::SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], server.port(0)));
        assert_eq!(ask(Peer::from(address), "/six/"), 403);
    }
}

#[test]
fn a_password_is_asked_for() {
    let server = serving(
        "auth_basic \"for $host\";
         location / { }
         location /off/ { alias %%DIR%%/html/; auth_basic off; }
         location /var/ { alias %%DIR%%/html/; auth_basic_user_file $arg_f; }",
    );
    let refused = server.get("/").expect(401);
    assert_eq!(refused.header("WWW-Authenticate"), Some("Basic realm=\"for localhost\""));
    assert!(refused.text().contains("401 Authorization Required"), "{}", refused.text());
    server.wait_for_log("no user/password was provided for basic authentication");
    for (authorization, status) in [
        (ANN, 200),
        (BOB, 200),
        (WRONG, 401),
        ("Basic ZXZlOng=", 401),
        ("Basic Ong=", 401),
        ("Basic !", 401),
        ("Bearer YW5uOnNlY3JldA==", 401),
    ] {
        assert_eq!(with(&server, "/", authorization).status, status, "{authorization}");
    }
    server.wait_for_log("user \"ann\": password mismatch, client: ");
    let path = server.path("htpasswd");
    server.wait_for_log(&format!("user \"eve\" was not found in \"{}\"", path.display()));
    assert_eq!(server.get("/off/").status, 200);
    assert_eq!(with(&server, "/var/?f=htpasswd", ANN).status, 200);
    assert_eq!(with(&server, "/var/?f=missing", ANN).status, 403);
    assert_eq!(with(&server, "/var/", ANN).status, 500);
    server.wait_for_log("missing\" failed (2: No such file or directory)");
}

#[test]
fn the_file_is_read_for_each_request() {
    let server = serving("auth_basic x; location / { }");
    assert_eq!(with(&server, "/", "Basic bmV3OnB3").status, 401);
    server.write("htpasswd", "new:{PLAIN}pw\n");
    assert_eq!(with(&server, "/", "Basic bmV3OnB3").status, 200);
    assert_eq!(with(&server, "/", ANN).status, 401);
}

#[test]
fn satisfy_says_whether_one_check_is_enough() {
    let server = serving(
        "auth_basic x;
         location / { satisfy all; allow all; }
         location /deny/ { alias %%DIR%%/html/; satisfy all; deny all; }
         location /any/ { alias %%DIR%%/html/; satisfy any; allow all; }
         location /none/ { alias %%DIR%%/html/; satisfy any; deny all; }
         location /silent/ { alias %%DIR%%/html/; satisfy any; allow 10.0.0.1; }
         location /off/ { alias %%DIR%%/html/; satisfy any; auth_basic off; deny all; }",
    );
    for (path, without, with_password) in [
        ("/", 401, 200),
        ("/deny/", 403, 403),
        ("/any/", 200, 200),
        ("/none/", 401, 200),
        // A client that no rule is about is neither allowed nor denied by the rules.
        ("/silent/", 401, 200),
        ("/off/", 403, 403),
    ] {
        assert_eq!(server.get(path).status, without, "{path} without a password");
        assert_eq!(with(&server, path, ANN).status, with_password, "{path} with a password");
    }
    assert_eq!(with(&server, "/none/", ANN).header("WWW-Authenticate"), None);
    server.wait_for_log("access forbidden by rule, client: 127.0.0.1");
    assert_eq!(server.error_log().matches("access forbidden by rule").count(), 4);
}

#[test]
fn auth_delay_holds_refusals_back() {
    let server = serving(
        "auth_basic x; auth_delay 200ms; location / { satisfy any; deny all; }
        location /all/ { alias %%DIR%%/html/; }",
    );
    for path in ["/", "/all/"] {
        let begin = Instant::now();
        assert_eq!(with(&server, path, WRONG).status, 401);
        assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
    }
    server.wait_for_log("delaying unauthorized request, client: ");
    assert_eq!(with(&server, "/", ANN).status, 200);
    assert_eq!(server.error_log().matches("delaying unauthorized request").count(), 2);
}
