//! Proxying, continued: where connections come from, how fast answers are read, and the cookies
//! of backends.

use std::time::{Duration, Instant};
use testkit::{Answer, Backend, Config, Server};

/// A server that asks itself: what the inner location answers is what the backend saw.
fn who(directives: &str) -> Server {
    Server::start(Config::server(&format!(
        "location / {{ {directives} proxy_pass http://127.0.0.1:%%PORT_0%%/who/; }}
         location /who/ {{ return 200 $remote_addr; }}"
    )))
}

#[test]
fn proxy_bind_says_where_connections_come_from() {
    assert_eq!(who("").get("/").expect(200).text(), "127.0.0.1");
    assert_eq!(who("proxy_bind 127.0.0.2;").get("/").expect(200).text(), "127.0.0.2");
    let server = who("proxy_bind 127.0.0.$arg_last;");
    assert_eq!(server.get("/?last=3").expect(200).text(), "127.0.0.3");
    assert_eq!(server.get("/?last=4").expect(200).text(), "127.0.0.4");
}

#[test]
fn proxy_bind_off_undoes_the_outer_level() {
    let server = Server::start(Config::server(
        "proxy_bind 127.0.0.2;
         location /bound { proxy_pass http://127.0.0.1:%%PORT_0%%/who; }
         location /off { proxy_bind off; proxy_pass http://127.0.0.1:%%PORT_0%%/who; }
         location /who { return 200 $remote_addr; }",
    ));
    assert_eq!(server.get("/bound").expect(200).text(), "127.0.0.2");
    assert_eq!(server.get("/off").expect(200).text(), "127.0.0.1");
}

#[test]
fn proxy_limit_rate_slows_the_reading_of_answers() {
    const LENGTH: usize = 60_000;
    let backend = Backend::with(|_| Answer::text("x".repeat(LENGTH)));
    let server = Server::start(
        Config::server(
            "location /fixed { proxy_limit_rate 20000; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location / { proxy_limit_rate $arg_rate; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    // All at once, so that their waits pass together.
    let begin = Instant::now();
    let mut clients: Vec<_> = ["/fixed", "/?rate=20000"]
        .into_iter()
        .map(|target| {
            let mut client = server.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.read_response().expect(200).body.len(), LENGTH);
        // One second's bytes at once, those of two more seconds later, less what a last read
        // may take too much.
        assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    }
}

/// What becomes of a backend's cookie under these directives.
fn cookie(directives: &str, cookie: &'static str) -> String {
    let backend = Backend::with(move |_| Answer::text("x").header("Set-Cookie", cookie));
    let server = Server::start(
        Config::server(&format!(
            "proxy_cookie_domain outer.test no.test;
             location / {{ {directives} proxy_pass http://127.0.0.1:%%BACKEND%%; }}"
        ))
        .with("BACKEND", backend.port()),
    );
    let response = server.get("/?new=new.test&flag=secure").expect(200);
    response.header("Set-Cookie").unwrap_or_default().to_owned()
}

#[test]
fn proxy_cookie_domain_replaces_domains() {
    let check = |directives: &str, given: &'static str, expected: &str| {
        assert_eq!(cookie(directives, given), expected, "{directives}");
    };
    let plain = "proxy_cookie_domain old.test new.test;";
    check(plain, "a=1; Domain=old.test; Path=/", "a=1; Domain=new.test; Path=/");
    check(plain, "a=1;domain = .OLD.test ;x", "a=1; domain=.new.test; x");
    check(plain, "a=1;Domain=very.old.test", "a=1;Domain=very.old.test");
    check(plain, "a=1;Domain", "a=1;Domain");
    check(plain, "a;Domain=old.test", "a;Domain=old.test");
    check(plain, "Domain=old.test", "Domain=old.test");
    check(plain, "a=1;Domain=outer.test", "a=1;Domain=outer.test");
    check(
        "proxy_cookie_domain .old.test .new.test;",
        "a=1;Domain=.old.test",
        "a=1; Domain=.new.test",
    );
    check("proxy_cookie_domain $arg_new b.test;", "a=1;Domain=new.test", "a=1; Domain=b.test");
    check("proxy_cookie_domain old.test $arg_new;", "a=1;Domain=old.test", "a=1; Domain=new.test");
    let pattern = "proxy_cookie_domain ~^([a-z]+)\\.old\\.test$ $1.new.test;";
    check(pattern, "a=1; domain=X.Old.test", "a=1; domain=X.new.test");
    let two = "proxy_cookie_domain a.test b.test; proxy_cookie_domain b.test c.test;";
    check(two, "a=1; domain=a.test", "a=1; domain=b.test");
    check(two, "a=1; domain=b.test", "a=1; domain=c.test");
    check("", "a=1; Domain=outer.test", "a=1; Domain=no.test");
    check("proxy_cookie_domain off;", "a=1; Domain=outer.test", "a=1; Domain=outer.test");
}

#[test]
fn proxy_cookie_path_replaces_beginnings_of_paths() {
    let check = |directives: &str, given: &'static str, expected: &str| {
        assert_eq!(cookie(directives, given), expected, "{directives}");
    };
    let plain = "proxy_cookie_path /app/ /;";
    check(plain, "a=1; Path=/app/x; Secure", "a=1; Path=/x; Secure");
    check(plain, "a=1; path=/App/x", "a=1; path=/App/x");
    check("proxy_cookie_path ~^/app(.*)$ /new$1;", "a=1; Path=/app/x", "a=1; Path=/new/x");
    check("proxy_cookie_path ~^/app /;", "a=1; Path=/APP/x", "a=1; Path=/APP/x");
    check("proxy_cookie_path ~*^/app /;", "a=1; Path=/APP/x", "a=1; Path=/");
    check("proxy_cookie_path off;", "a=1; Path=/app/", "a=1; Path=/app/");
}

#[test]
fn proxy_cookie_flags_adds_and_removes_flags() {
    let check = |flags: &str, given: &'static str, expected: &str| {
        assert_eq!(cookie(&format!("proxy_cookie_flags {flags};"), given), expected, "{flags}");
    };
    check("a secure httponly", "A=1; Path=/", "A=1; Path=/; Secure; HttpOnly");
    check("a secure httponly", "b=1; Path=/", "b=1; Path=/");
    check("a secure", "a=1; secure; x", "a=1; secure; x");
    check("a nosecure nohttponly", "a=1; Secure; HttpOnly; x=y", "a=1; x=y");
    check("a nosecure", "a=1;x", "a=1; x");
    check("a samesite=strict", "a=1", "a=1; SameSite=Strict");
    check("a samesite=lax", "a=1; samesite=none; x", "a=1; SameSite=Lax; x");
    check("a samesite=none", "a=1; samesite=none", "a=1; samesite=none");
    check("a nosamesite", "a=1; SameSite=Lax", "a=1");
    check("~^SESS secure", "session=1", "session=1; Secure");
    check("a $arg_flag", "a=1", "a=1; Secure");
    check("a $arg_none", "a=1;x", "a=1;x");
    check("$arg_flag secure", "secure=1", "secure=1; Secure");
    check("a secure; proxy_cookie_flags ~. httponly", "a=1", "a=1; Secure");
    check("off", "a=1", "a=1");
}

#[test]
fn cookies_are_rewritten_on_the_way_through_x_accel_redirect() {
    let backend = Backend::with(|_| {
        Answer::text("x").header("X-Accel-Redirect", "/inner").header("Set-Cookie", "a=1")
    });
    let server = Server::start(
        Config::server(
            "location / { proxy_cookie_flags a secure; proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /inner { internal; return 200 inner; }",
        )
        .with("BACKEND", backend.port()),
    );
    assert_eq!(server.get("/").expect(200).header("Set-Cookie"), Some("a=1; Secure"));
}

#[test]
fn mistakes_in_cookie_directives_are_told() {
    let refused = |directive: &str, words: &str| {
        let outcome = Server::check(Config::server(&format!(
            "location / {{ {directive} proxy_pass http://127.0.0.1:1; }}"
        )));
        assert!(outcome.expect(1).stderr.contains(words), "{directive}");
    };
    refused("proxy_cookie_domain on;", "invalid parameter \"on\" in ");
    refused("proxy_cookie_path on;", "invalid parameter \"on\" in ");
    refused("proxy_cookie_flags a;", "invalid parameter \"a\" in ");
    refused("proxy_cookie_domain ~( a;", "missing closing parenthesis");
    refused(
        "proxy_cookie_path off; proxy_cookie_path a b;",
        "\"proxy_cookie_path\" directive is duplicate in ",
    );
    refused(
        "proxy_cookie_flags a secure; proxy_cookie_flags off;",
        "\"proxy_cookie_flags\" directive is duplicate in ",
    );
    let config = "location / { proxy_cookie_flags a sekure; proxy_pass http://127.0.0.1:1; }";
    let warned = Server::check(Config::server(config)).expect(0).stderr;
    assert!(warned.contains("\"sekure\" is no flag of cookies"), "{warned}");
}
