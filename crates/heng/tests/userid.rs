//! Cookies by which browsers are told apart.

use testkit::{Config, Response, Server};

fn serving(inside: &str) -> Server {
    Server::start(Config::server(&format!(
        "add_header X-Got $uid_got; add_header X-Set $uid_set; {inside}
         location / {{ return 204; }}"
    )))
}

fn get(server: &Server, cookie: &str) -> Response {
    let fields = [("Host", "a"), ("Cookie", cookie)];
    server.connect().request("GET", "/", &fields, b"").expect(204)
}

/// The text of a fresh cookie and its attributes.
fn cookie(response: &Response) -> (String, String) {
    let line = response.header("Set-Cookie").expect("a cookie");
    let (pair, attributes) = line.split_once("; ").unwrap_or((line, ""));
    (pair.to_owned(), attributes.to_owned())
}

#[test]
fn clients_are_known_again() {
    let server = serving("userid on;");
    let first = server.get("/");
    let (mark, attributes) = cookie(&first);
    assert_eq!(attributes, "path=/");
    assert!(mark.starts_with("uid=fwAAA") && mark.ends_with("==") && mark.len() == 28, "{mark}");
    assert_eq!(first.header("X-Got"), None);
    let given = first.header("X-Set").unwrap();
    // The address of the server, as the number that it is in memory.
    let address = u32::from_ne_bytes([127, 0, 0, 1]);
    assert!(given.starts_with(&format!("uid={address:08X}")) && given.len() == 36, "{given}");
    let again = get(&server, &mark);
    assert_eq!(again.header("Set-Cookie"), None);
    assert_eq!((again.header("X-Got"), again.header("X-Set")), (Some(given), None));
    assert_ne!(cookie(&server.get("/")).0, mark);
}

#[test]
fn cookies_are_made_as_told() {
    let server = serving(
        "userid on; userid_name id; userid_domain example.org; userid_path /shop;
         userid_flags secure httponly samesite=lax; userid_p3p 'CP=\"A\"'; userid_service 258;
         userid_expires max;",
    );
    let response = server.get("/");
    let (mark, attributes) = cookie(&response);
    assert!(mark.starts_with("id=AAABA"), "{mark}");
    let expected = "expires=Thu, 31-Dec-37 23:55:55 GMT; domain=example.org; path=/shop; secure; \
                    httponly; samesite=lax";
    assert_eq!(attributes, expected);
    assert_eq!(response.header("P3P"), Some("CP=\"A\""));
    let server = serving("userid v1; userid_expires 1d;");
    let response = server.get("/");
    assert!(cookie(&response).1.starts_with("expires="), "{:?}", cookie(&response));
    let given = response.header("X-Set").unwrap();
    assert!(given.starts_with("uid=00000000") && given.ends_with("01"), "{given}");
}

#[test]
fn a_cookie_without_the_sign_is_sent_again() {
    let server = serving("userid on; userid_mark z;");
    let (mark, _) = cookie(&server.get("/"));
    assert!(mark.ends_with("z="), "{mark}");
    assert_eq!(get(&server, &mark).header("Set-Cookie"), None);
    let old = format!("{}==", &mark[..26]);
    assert_eq!(cookie(&get(&server, &old)).0, mark);
}

#[test]
fn marks_can_be_only_read_or_made_anew() {
    let server = serving("userid log;");
    assert_eq!(server.get("/").header("Set-Cookie"), None);
    let known = "a=b; uid=fwAAAWkgXx4AAAAAAwMDAg==";
    let response = get(&server, known);
    assert_eq!(response.header("X-Got").map(str::len), Some(36));
    assert_eq!(response.header("Set-Cookie"), None);
    let server = serving(
        "error_log %%DIR%%/error.log notice; userid on;
         if ($http_x_reset) { set $uid_reset $http_x_reset; }",
    );
    assert_eq!(get(&server, known).header("Set-Cookie"), None);
    let fields = [("Host", "a"), ("Cookie", known), ("X-Reset", "log")];
    let response = server.connect().request("GET", "/", &fields, b"");
    assert!(!known.contains(&cookie(&response).0));
    let got = response.header("X-Got").unwrap();
    server.wait_for_log(&format!("userid cookie \"{got}\" was reset"));
}

#[test]
fn what_is_no_mark_is_replaced() {
    let server = serving("userid on;");
    cookie(&get(&server, "uid=short"));
    server.wait_for_log("client sent too short userid cookie \"uid=short\"");
    cookie(&get(&server, "uid=!!!!!!!!!!!!!!!!!!!!!!!!"));
    server.wait_for_log("client sent invalid userid cookie \"uid=!!!!!!!!!!!!!!!!!!!!!!!!\"");
    cookie(&get(&server, "uid=AAAAAAAAAAAAAAAAAAAAAA=="));
}
