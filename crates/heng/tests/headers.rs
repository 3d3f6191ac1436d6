//! Fields that the configuration adds to answers, before and behind their bodies.

use testkit::{Answer, Backend, Config, Response, Server};

fn serving(inside: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; {inside}"))
            .file("html/a.txt", "0123456789")
            .file("html/in/a.txt", "inner"),
    )
}

/// Seconds since 1970 of an HTTP date, by way of the program under test: `expires` is compared
/// with the answer's own Date to the day and the second.
fn seconds(date: &str) -> i64 {
    wire_date(date).unwrap_or_else(|| panic!("no date: {date}"))
}

fn wire_date(date: &str) -> Option<i64> {
    let rest = date.get(5..)?.strip_suffix(" GMT")?;
    let mut parts = rest.split([' ', ':']);
    let mut number = || parts.next()?.parse::<i64>().ok();
    let day = number()?;
    let name = parts.next()?;
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(name)? as i64 / 3 + 1;
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (year, hour, minute, second) = (number()?, number()?, number()?, number()?);
    // Days since 1970 of a date of the Gregorian calendar whose year begins in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[test]
fn fields_are_added_in_order_and_as_written() {
    let server = serving(
        "add_header x-LOWER $uri; add_header X-Two 1; add_header X-Two 2;
         add_header cache-control private; add_header X-Empty \"\"; add_header X-None $arg_none;",
    );
    let response = server.get("/a.txt").expect(200);
    let head = response.head();
    assert!(head.contains("\r\nx-LOWER: /a.txt\r\nX-Two: 1\r\nX-Two: 2\r\n"), "{head}");
    assert!(head.contains("\r\ncache-control: private\r\n"), "{head}");
    assert!(!head.contains("X-Empty") && !head.contains("X-None"), "{head}");
}

#[test]
fn good_statuses_get_fields_and_others_on_demand() {
    let server = serving(
        "add_header X-Good 1; add_header X-All 1 always;
         location /200 { return 200; } location /201 { return 201; }
         location /202 { return 202; } location /204 { return 204; }
         location /301 { return 301 /; } location /302 { return 302 /; }
         location /303 { return 303 /; } location /304 { return 304; }
         location /307 { return 307 /; } location /308 { return 308 /; }
         location /400 { return 400; } location /500 { return 500; }",
    );
    for status in [200, 201, 202, 204, 301, 302, 303, 304, 307, 308, 400, 500] {
        let is_good = !matches!(status, 202 | 400 | 500);
        let response = server.get(&format!("/{status}/")).expect(status);
        assert_eq!(response.header("X-Good").is_some(), is_good, "{status}");
        assert_eq!(response.header("X-All"), Some("1"), "{status}");
    }
}

#[test]
fn validators_are_replaced_or_removed() {
    let server = serving(
        "location / { add_header ETag '\"own\"'; add_header Last-Modified $arg_date; }
         location /in/ { add_header ETag ''; add_header Last-Modified ''; }",
    );
    let date = "Mon, 28 Sep 1970 06:00:00 GMT";
    let response = server.get("/a.txt?date=Mon,%2028").expect(200);
    assert_eq!(response.headers_named("ETag"), ["\"own\""]);
    assert_eq!(response.headers_named("Last-Modified"), ["Mon,%2028"]);
    let response = server.get("/in/a.txt").expect(200);
    assert_eq!((response.header("ETag"), response.header("Last-Modified")), (None, None));
    // Ranges are judged by the field that the client has seen.
    let server = serving(&format!("add_header Last-Modified \"{date}\";"));
    let status = |condition: &str| {
        let fields = [("Host", "a"), ("Range", "bytes=0-3"), ("If-Range", condition)];
        server.connect().request("GET", "/a.txt", &fields, b"").status
    };
    assert_eq!(status(date), 206);
    assert_eq!(status("Mon, 28 Sep 1970 06:00:01 GMT"), 200);
}

#[test]
fn levels_inherit_as_they_are_told() {
    let server = serving(
        "add_header X-Outer 1;
         location / { }
         location /own/ { alias %%DIR%%/html/; add_header X-Own 1; }
         location /merge/ { alias %%DIR%%/html/; add_header_inherit merge; add_header X-Own 1;
             location /merge/in/ { alias %%DIR%%/html/; add_header X-Third 1; } }
         location /off/ { alias %%DIR%%/html/; add_header_inherit off; }",
    );
    let check = |path: &str, expected: &[&str]| {
        let response = server.get(path).expect(200);
        let names = ["X-Third", "X-Own", "X-Outer"];
        let found: Vec<&str> =
            names.into_iter().filter(|name| response.header(name).is_some()).collect();
        assert_eq!(found, expected, "{path}");
    };
    check("/a.txt", &["X-Outer"]);
    check("/own/a.txt", &["X-Own"]);
    check("/merge/a.txt", &["X-Own", "X-Outer"]);
    check("/merge/in/a.txt", &["X-Third", "X-Own", "X-Outer"]);
    check("/off/a.txt", &[]);
}

#[test]
fn a_line_break_does_not_get_into_a_field() {
    let server = serving("location / { add_header X-Path $uri; return 200 ok; }");
    let response = server.get("/a%0d%0aX-Evil:%20yes").expect(200);
    assert_eq!((response.header("X-Path"), response.header("X-Evil")), (None, None));
    server.wait_for_log("line break in \"X-Path\"");
}

#[test]
fn a_line_break_of_the_configuration_itself_is_kept() {
    let server = serving("location / { add_header X-Path $uri:\\n; return 204; }");
    let answer = server.exchange("GET /a HTTP/1.0\r\n\r\n");
    assert!(answer.contains("\r\nX-Path: /a:\n\r\n"), "{answer:?}");
}

#[test]
fn expires_counts_from_now() {
    let server = serving("location / { expires $arg_e; } location /in/ { expires 2h; }");
    let check = |path: &str, ahead: Option<i64>, control: &str| {
        let response = server.get(path).expect(200);
        assert_eq!(response.headers_named("Cache-Control"), [control], "{path}");
        let header = |name: &str| response.header(name).unwrap_or_default().to_string();
        if let Some(ahead) = ahead {
            let found = seconds(&header("Expires")) - seconds(&header("Date"));
            assert!((ahead - 1..=ahead + 1).contains(&found), "{path}: {found}");
        }
    };
    check("/in/a.txt", Some(7200), "max-age=7200");
    check("/a.txt?e=90s", Some(90), "max-age=90");
    check("/a.txt?e=0", Some(0), "max-age=0");
    check("/a.txt?e=-5", Some(-5), "no-cache");
    check("/a.txt?e=epoch", None, "no-cache");
    check("/a.txt?e=max", None, "max-age=315360000");
    for path in ["/a.txt?e=off", "/a.txt?e=nonsense", "/a.txt", "/a.txt?e=@25h"] {
        let response = server.get(path).expect(200);
        assert_eq!((response.header("Expires"), response.header("Cache-Control")), (None, None));
    }
    let response = server.get("/a.txt?e=@15h30m33s").expect(200);
    let until = response.header("Expires").unwrap_or_default();
    assert!(until.contains(":33 GMT"), "{until}");
    assert_eq!(server.get("/none?e=1h").expect(404).header("Expires"), None);
}

#[test]
fn expires_counts_from_the_last_change() {
    let backend = Backend::with(|_| {
        Answer::text("x")
            .header("Last-Modified", "Mon, 28 Sep 1970 06:00:00 GMT")
            .header("Cache-Control", "one")
            .header("Cache-Control", "two")
            .header("Expires", "0")
    });
    let server = Server::start(
        Config::server(
            "location / { expires modified 2048; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let response = server.get("/").expect(200);
    assert_eq!(response.headers_named("Expires"), ["Mon, 28 Sep 1970 06:34:08 GMT"]);
    assert_eq!(response.headers_named("Cache-Control"), ["no-cache"]);
}

#[test]
fn wrong_lines_are_refused() {
    let check = |inside: &str, message: &str| {
        let outcome = Server::check(Config::server(inside)).expect(1);
        assert!(outcome.stderr.contains(message), "{inside}: {}", outcome.stderr);
    };
    check("add_header A b c;", "[emerg] invalid parameter \"c\" in ");
    check("add_header A;", "[emerg] invalid number of arguments in \"add_header\" directive in ");
    check("add_header_inherit x;", "[emerg] invalid value \"x\" in ");
    check("expires soon;", "[emerg] \"expires\" directive invalid value in ");
    check("expires changed 1h;", "[emerg] \"expires\" directive invalid value in ");
    check("expires 1h; expires 2h;", "[emerg] \"expires\" directive is duplicate in ");
    check("expires @25h;", "daily time value must be less than 24 hours in ");
    check("expires modified @1h;", "daily time cannot be used with \"modified\" parameter in ");
}

fn trailers(response: &Response) -> Vec<String> {
    response.trailers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

#[test]
fn trailers_follow_a_chunked_body() {
    let server = serving(
        "add_trailer X-Path $uri; add_trailer X-All 1 always; add_trailer X-Empty $arg_none;
         add_trailer X-Sent $sent_http_accept_ranges;
         add_header X-Path head;
         location /204 { return 204; }
         location /plain/ { alias %%DIR%%/html/; chunked_transfer_encoding off; }",
    );
    let mut client = server.connect();
    let response = client.get("/a.txt").expect(200);
    assert_eq!(response.text(), "0123456789");
    assert_eq!(response.header("X-Path"), Some("head"));
    assert_eq!(response.header("Content-Length"), None);
    assert_eq!(trailers(&response), ["X-Path: /a.txt", "X-All: 1", "X-Sent: bytes"]);
    // A part has trailers like the whole.
    let response = client.request("GET", "/a.txt", &[("Host", "a"), ("Range", "bytes=2-3")], b"");
    assert_eq!((response.status, response.text().as_str()), (206, "23"));
    assert_eq!(trailers(&response), ["X-Path: /a.txt", "X-All: 1"]);
    assert_eq!(trailers(&client.get("/none").expect(404)), ["X-All: 1"]);
    assert_eq!(trailers(&client.get("/204").expect(204)), [""; 0]);
    assert_eq!(client.get("/plain/a.txt").expect(200).header("Content-Length"), Some("10"));
    let response = client.request("HEAD", "/a.txt", &[("Host", "a")], b"").expect(200);
    assert_eq!(response.header("Content-Length"), Some("10"));
    let answer = server.exchange("GET /a.txt HTTP/1.0\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\n0123456789"), "{answer}");
}

#[test]
fn trailers_inherit_as_they_are_told() {
    let server = serving(
        "add_trailer X-Outer 1;
         location /own/ { alias %%DIR%%/html/; add_trailer X-Own 1; }
         location /merge/ { alias %%DIR%%/html/; add_trailer_inherit merge; add_trailer X-Own 1; }
         location /off/ { alias %%DIR%%/html/; add_trailer_inherit off; }",
    );
    let check = |path: &str, expected: &[&str]| {
        assert_eq!(trailers(&server.get(path).expect(200)), expected, "{path}");
    };
    check("/a.txt", &["X-Outer: 1"]);
    check("/own/a.txt", &["X-Own: 1"]);
    check("/merge/a.txt", &["X-Own: 1", "X-Outer: 1"]);
    check("/off/a.txt", &[]);
}
