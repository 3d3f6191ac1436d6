//! The charset that Content-Type tells.

use testkit::{Answer, Backend, Config, Server};

/// The Content-Type of an answer to `target`.
#[track_caller]
fn check(server: &Server, target: &str, expected: &str) {
    let response = server.get(target);
    assert_eq!(response.header("Content-Type"), Some(expected), "{target}");
}

#[test]
fn charset_is_appended_to_texts() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; charset utf-8; types { text/plain txt; image/png png; }
             location /html { default_type text/html; return 200 x; }
             location /json { default_type application/json; return 200 x; }
             location /script { default_type application/javascript; return 200 x; }
             location /own { default_type \"text/html; charset=koi8-r\"; return 200 x; }
             location /moved { return 301 /html; }
             location /other { return 307 /html; }
             location /off { charset off; default_type text/html; return 200 x; }
             location /inner { charset koi8-r; default_type text/html; return 200 x; }
             location /variable { charset $arg_c; default_type text/html; return 200 x; }
             location /if { default_type text/html; if ($arg_c) { charset x-if; return 200 x; }
                            return 200 x; }",
        )
        .file("html/a.txt", "text")
        .file("html/a.png", "image"),
    );
    check(&server, "/a.txt", "text/plain; charset=utf-8");
    check(&server, "/a.png", "image/png");
    check(&server, "/html", "text/html; charset=utf-8");
    check(&server, "/json", "application/json");
    check(&server, "/script", "application/javascript; charset=utf-8");
    check(&server, "/own", "text/html; charset=koi8-r");
    check(&server, "/moved", "text/html");
    check(&server, "/other", "text/html; charset=utf-8");
    check(&server, "/none", "text/html; charset=utf-8");
    check(&server, "/off", "text/html");
    check(&server, "/inner", "text/html; charset=koi8-r");
    check(&server, "/variable?c=x-y", "text/html; charset=x-y");
    check(&server, "/variable", "text/html");
    check(&server, "/if?c=1", "text/html; charset=x-if");
    check(&server, "/if", "text/html; charset=utf-8");
}

#[test]
fn charset_types_chooses_types() {
    let server = Server::start(Config::server(
        "charset utf-8; charset_types application/json;
         location /html { default_type text/html; return 200 x; }
         location /plain { default_type text/plain; return 200 x; }
         location /json { default_type application/json; return 200 x; }
         location /any { charset_types *; default_type a/b; return 200 x; }",
    ));
    check(&server, "/html", "text/html; charset=utf-8");
    check(&server, "/plain", "text/plain");
    check(&server, "/json", "application/json; charset=utf-8");
    check(&server, "/any", "a/b; charset=utf-8");
}

#[test]
fn override_charset_concerns_backends() {
    let backend = Backend::with(|request| {
        let charset = request.target.rsplit('/').next().unwrap_or_default();
        Answer::text("x").header("Content-Type", &format!("text/html; charset={charset}"))
    });
    let server = Server::start(
        Config::server(
            "charset UTF-8;
             location / { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             location /over/ { override_charset on; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    check(&server, "/utf-8", "text/html; charset=utf-8");
    check(&server, "/over/utf-8", "text/html; charset=UTF-8");
    check(&server, "/over/koi8-r", "text/html; charset=koi8-r");
    server.wait_for_log("no \"charset_map\" between the charsets \"koi8-r\" and \"UTF-8\"");
}

#[test]
fn source_charset_is_the_charset_or_a_mistake() {
    let server = Server::start(Config::server(
        "charset utf-8; source_charset UTF-8; default_type text/html;
         location /same { return 200 x; }
         location /variable { source_charset $arg_c; return 200 x; }",
    ));
    check(&server, "/same", "text/html; charset=utf-8");
    check(&server, "/variable?c=Utf-8", "text/html; charset=utf-8");
    check(&server, "/variable?c=koi8-r", "text/html");
    server.wait_for_log("no \"charset_map\" between the charsets \"koi8-r\" and \"utf-8\"");
    let outcome = Server::check(Config::server("charset utf-8; source_charset koi8-r;")).expect(1);
    let words = "no \"charset_map\" between the charsets \"koi8-r\" and \"utf-8\" in ";
    assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
}
