//! Clients that stay with their server: `sticky`, `route=`, `drain`.

use testkit::{Answer, Backend, Config, Response, Server};

/// A server whose group has backends a and b; `%%A%%` and `%%B%%` are their ports.
fn start(group: &str, location: &str, backends: &[Backend]) -> Server {
    Server::start(config(group, location, backends))
}

fn config(group: &str, location: &str, backends: &[Backend]) -> Config {
    let mut config = Config::http(&format!(
        "upstream u {{ {group} }}
         server {{ listen 127.0.0.1:%%PORT_0%%;
             location / {{ {location} proxy_pass http://u; }} }}"
    ));
    for (name, backend) in ["A", "B"].iter().zip(backends) {
        config = config.with(name, backend.port());
    }
    config
}

const SERVERS: &str = "server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%;";

fn two() -> [Backend; 2] {
    [Backend::named("a"), Backend::named("b")]
}

fn ask(server: &Server, path: &str, cookie: &str) -> Response {
    let fields = [("Host", "a"), ("Cookie", cookie)];
    server.connect().request("GET", path, &fields, b"")
}

/// Who answers to `count` requests with this cookie.
fn owners(server: &Server, cookie: &str, count: usize) -> String {
    (0..count).map(|_| ask(server, "/", cookie).text()).collect()
}

/// The first pair of the answer's cookie.
fn pair(answer: &Response) -> String {
    let cookie = answer.header("Set-Cookie").expect("a cookie");
    cookie.split(';').next().expect("a pair").to_owned()
}

#[test]
fn a_cookie_binds_a_client() {
    let backends = two();
    let server = start(&format!("{SERVERS} sticky cookie srv;"), "", &backends);
    let first = server.get("/");
    let cookie = pair(&first);
    // The MD5 hash of the address is the server's name.
    assert_eq!(cookie.len(), "srv=".len() + 32, "{cookie}");
    assert_eq!(first.text(), "a");
    assert_eq!(owners(&server, &cookie, 4), "aaaa");
    assert_eq!(owners(&server, &format!("x=1; {cookie}"), 2), "aa");
    // Forged cookies bind nobody.
    for forged in ["srv=", "srv=nobody", "srv=0123456789abcdef0123456789abcdef"] {
        assert_eq!(owners(&server, forged, 2).len(), 2, "{forged}");
    }
}

#[test]
fn the_cookie_has_its_attributes() {
    let backends = two();
    let attributes = "expires=1h domain=.example.com path=/p httponly secure samesite=Strict";
    let group = format!(
        "server 127.0.0.1:%%A%% route=one; server 127.0.0.1:%%B%% route=two;
         sticky cookie srv {attributes};"
    );
    let server = start(&group, "", &backends);
    let answer = server.get("/");
    let cookie = answer.header("Set-Cookie").expect("a cookie");
    let (front, back) = cookie.split_once("; max-age=3600").expect("an age");
    assert!(front.starts_with("srv=one; expires="), "{cookie}");
    assert!(front.ends_with(" GMT"), "{cookie}");
    let expected = "; domain=.example.com; httponly; secure; samesite=Strict; path=/p";
    assert_eq!(back, expected);
    let group = format!("{SERVERS} sticky cookie srv expires=max samesite=$arg_s;");
    let server = start(&group, "", &backends);
    let answer = server.get("/?s=lax");
    let cookie = answer.header("Set-Cookie").expect("a cookie");
    let expected = "; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000; samesite=lax";
    assert!(cookie.ends_with(expected), "{cookie}");
    let answer = server.get("/?s=often");
    assert!(answer.header("Set-Cookie").is_some_and(|c| c.ends_with("; samesite=strict")));
}

#[test]
fn an_indirect_cookie_is_between_us_and_the_client() {
    let backends = two();
    let group = format!("{SERVERS} sticky cookie srv indirect;");
    let server = start(&group, "", &backends);
    let cookie = pair(&server.get("/"));
    let answer = ask(&server, "/", &format!("own=1; {cookie}; other=2"));
    assert_eq!((answer.text().as_str(), answer.header("Set-Cookie")), ("a", None));
    assert_eq!(backends[0].last_request().header("Cookie"), Some("own=1; other=2"));
    ask(&server, "/", &cookie);
    assert_eq!(backends[0].last_request().header("Cookie"), None);
    // A cookie that names nobody is replaced.
    assert_ne!(pair(&ask(&server, "/", "srv=gone")), "srv=gone");
}

#[test]
fn a_client_whose_server_is_gone_is_bound_anew() {
    let mut backends = two();
    let server = start(&format!("{SERVERS} sticky cookie srv;"), "", &backends);
    let cookie = pair(&server.get("/"));
    assert_eq!(owners(&server, &cookie, 1), "a");
    backends[0].down();
    let answer = ask(&server, "/", &cookie);
    assert_eq!(answer.text(), "b");
    assert_eq!(answer.headers_named("Set-Cookie").len(), 1, "one cookie, of the last server");
    let new = pair(&answer);
    assert_ne!(new, cookie);
    assert_eq!(owners(&server, &new, 3), "bbb");
}

#[test]
fn routes_name_servers() {
    let backends = two();
    let group = "server 127.0.0.1:%%A%% route=one; server 127.0.0.1:%%B%% route=two;
                 sticky route $cookie_r $arg_r;";
    let server = start(group, "", &backends);
    assert_eq!(owners(&server, "r=two", 3), "bbb");
    assert_eq!(owners(&server, "r=one", 3), "aaa");
    let by_argument: String = (0..3).map(|_| server.get("/?r=two").text()).collect();
    assert_eq!(by_argument, "bbb");
    // The first variable that has a value decides.
    assert_eq!(ask(&server, "/?r=one", "r=two").text(), "b");
    let nobody = owners(&server, "r=three", 6);
    assert!(nobody.contains('a') && nobody.contains('b'), "{nobody}");
}

#[test]
fn a_draining_server_keeps_its_clients_only() {
    let backends = two();
    let group = "server 127.0.0.1:%%A%% route=one drain; server 127.0.0.1:%%B%% route=two;
                 sticky route $cookie_r;";
    let server = start(group, "", &backends);
    assert_eq!(owners(&server, "", 4), "bbbb");
    assert_eq!(owners(&server, "r=one", 3), "aaa");
}

#[test]
fn sessions_are_learned_from_answers() {
    let learning = |name: &'static str| {
        Backend::with(move |request| match request.target.as_str() {
            "/login" => Answer::text(name).header("Set-Cookie", &format!("sid=of-{name}")),
            _ => Answer::text(name),
        })
    };
    for header in ["", "header"] {
        let backends = [learning("a"), learning("b")];
        let group = format!(
            "{SERVERS} sticky learn create=$upstream_cookie_sid lookup=$cookie_sid
                 zone=sessions:1m {header};"
        );
        let server = start(&group, "", &backends);
        assert_eq!(server.get("/login").text(), "a");
        assert_eq!(owners(&server, "sid=of-a", 4), "aaaa");
        // A session that no answer made.
        let unknown = owners(&server, "sid=unknown", 6);
        assert!(unknown.contains('a') && unknown.contains('b'), "{unknown}");
    }
}

#[test]
fn sessions_survive_a_reload_and_are_shared_by_workers() {
    let backends = two();
    let group =
        format!("{SERVERS} sticky learn create=$cookie_sid lookup=$cookie_sid zone=sessions:1m;");
    let config = config(&group, "", &backends).main("worker_processes 3;");
    let server = Server::start(config);
    let owner = owners(&server, "sid=x", 1);
    assert_eq!(owners(&server, "sid=x", 10), owner.repeat(10));
    server.reload();
    assert_eq!(owners(&server, "sid=x", 10), owner.repeat(10));
}

#[test]
fn sessions_end() {
    let backends = two();
    let group = format!(
        "{SERVERS} sticky learn create=$cookie_sid lookup=$cookie_sid zone=sessions:1m
             timeout=100ms;"
    );
    let server = start(&group, "", &backends);
    let owner = owners(&server, "sid=x", 1);
    // It is bound to the other one as soon as its time is over between two requests.
    server.wait_until("the session ends", || {
        server.connect().expect_quiet(std::time::Duration::from_millis(150));
        owners(&server, "sid=x", 1) != owner
    });
}

#[test]
fn a_full_zone_forgets_the_oldest_session() {
    let backends = two();
    let group =
        format!("{SERVERS} sticky learn create=$cookie_sid lookup=$cookie_sid zone=sessions:32k;");
    let main = "error_log %%DIR%%/error.log warn;";
    let server = Server::start(config(&group, "", &backends).main(main));
    let mut owners = String::new();
    // There is room for fewer than five hundred.
    for n in 0..600 {
        owners += &ask(&server, "/", &format!("sid={n}")).text();
    }
    let recent: String =
        (590..600).map(|n| ask(&server, "/", &format!("sid={n}")).text()).collect();
    assert_eq!(recent, owners[590..]);
    assert!(server.error_log().contains(
        "could not allocate node in sticky session zone \"sessions\", expiring least recently \
         used session"
    ));
}

#[test]
fn a_zone_of_sessions_belongs_to_one_group() {
    let learn = "sticky learn create=$cookie_s lookup=$cookie_s zone=z:1m;";
    let config = Config::http(&format!(
        "upstream u {{ server 127.0.0.1:1; {learn} }}
         upstream v {{ server 127.0.0.1:1; {learn} }}"
    ));
    let outcome = Server::check(config);
    let expected = "sticky zone \"z\" is already used in upstream \"u\"";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}
