//! `rewrite`, `if`, `set`, `break`, `return` and `try_files`.

use testkit::{Answer, Backend, Client, Config, Server};

/// Starts a server with `inside` and checks which text each path is answered with.
#[track_caller]
fn check(inside: &str, expected: &[(&str, &str)]) {
    check_config(Config::server(inside), expected);
}

#[track_caller]
fn check_config(config: Config, expected: &[(&str, &str)]) {
    let server = Server::start(config);
    for (path, text) in expected {
        let response = server.get(path);
        assert_eq!(response.text(), *text, "GET {path}: {}", response.status);
    }
}

/// Starts a server with `inside` and checks status and Location of each path.
#[track_caller]
fn check_redirects(inside: &str, expected: &[(&str, u16, &str)]) {
    let server = Server::start(Config::server(inside));
    for (path, status, place) in expected {
        let response = server.get(path);
        let place = place.replace("%%HERE%%", &format!("http://localhost:{}", server.port(0)));
        let found = response.header("Location").unwrap_or_default().to_owned();
        assert_eq!((response.status, found), (*status, place), "GET {path}");
    }
}

/// Checks the last line that refuses the configuration.
#[track_caller]
fn refused(inside: &str, message: &str) {
    let outcome = Server::check(Config::server(inside));
    assert!(outcome.code != Some(0), "accepted: {inside}");
    assert!(outcome.stderr.contains(message), "{inside}\n{}\nnot: {message}", outcome.stderr);
}

#[test]
fn a_path_is_replaced() {
    check(
        "rewrite ^/server/(.*)$ /loc/$1;
         location /loc/ { return 200 \"$uri $args\"; }
         location /last/ { rewrite ^/last/(.+)$ /loc/$1 last; return 200 never; }
         location /break/ { rewrite ^/break/(.+)$ /loc/$1 break; return 200 never; }
         location /on/ { rewrite ^/on/(.+)$ /loc/$1; return 200 \"on $uri\"; }
         location /falls/ { rewrite ^/falls/ /loc/x; rewrite /x$ /loc/y; }
         location /query/ { rewrite ^/query/([^/]*)$ /loc/?a=$1; }
         location /drop/ { rewrite ^/drop/([^/]*)$ /loc/?a=$1?; }
         location /bare/ { rewrite ^/bare/ /loc/z?; }
         location /two/ { rewrite ^/two/ /loc/?a?b; }
         location /none/ { rewrite ^/no$ /loc/ last; return 200 none; }
         location /named/ { rewrite ^/named/(?<n>[a-z]+) /loc/$n$n; }
         location /case/ { rewrite ^/CASE/ /loc/ last; return 200 case; }
         location /unset/ { rewrite ^/unset/(x)?$ /loc/[$1]; }
         location /loc/@ { return 200 at; }",
        &[
            ("/server/a", "/loc/a "),
            ("/server/a?x=1", "/loc/a x=1"),
            ("/last/a?x", "/loc/a x"),
            ("/on/b", "on /loc/b"),
            ("/falls/b", "/loc/y "),
            ("/query/b", "/loc/ a=b"),
            ("/query/b?c=d", "/loc/ a=b&c=d"),
            ("/drop/b?c=d", "/loc/ a=b"),
            ("/bare/b?c=d", "/loc/z "),
            ("/two/b?c", "/loc/ a?b&c"),
            ("/none/b", "none"),
            ("/named/eva", "/loc/evaeva "),
            ("/case/b", "case"),
            ("/unset/", "/loc/[] "),
            ("/unset/x", "/loc/[x] "),
        ],
    );
}

#[test]
fn groups_are_escaped_in_queries_when_the_path_was() {
    check(
        "location /a/ { rewrite ^/a/(.*)$ /loc/$1?q=$1&u=$uri last; }
         location /s/ { rewrite ^/s/(.*)$ /loc/?q= break; set $x [$1]; return 200 $x; }
         location ~ ^/t/(.*)$ { set $x [$1]; return 200 \"$x $1\"; }
         location ~ ^/m/(.*)$ { rewrite ^/m/(.*)$ /n/$1; set $x [$1]; return 200 \"$x $1\"; }
         location /loc/ { return 200 \"$uri $args\"; }",
        &[
            ("/a/x&y", "/loc/x&y q=x&y&u=/a/x&y"),
            ("/a/x%26y", "/loc/x&y q=x%26y&u=/a/x&y"),
            ("/a/x+y", "/loc/x+y q=x%2By&u=/a/x+y"),
            ("/a/x%20y?%41", "/loc/x y q=x%20y&u=/a/x y&%41"),
            ("/a/%C3%BC", "/loc/\u{fc} q=%C3%BC&u=/a/\u{fc}"),
            ("/t/a%20b", "[a%20b] a b"),
            ("/m/a%20b", "[a b] a b"),
            ("/t/a&b", "[a&b] a&b"),
        ],
    );
}

#[test]
fn the_client_is_redirected() {
    check_redirects(
        "rewrite ^/r/(.*)$ /new/$1 redirect;
         rewrite ^/p/(.*)$ /new/$1 permanent;
         rewrite ^/u/(.*)$ http://other/$1;
         rewrite ^/s/(.*)$ https://other/$1?a=b;
         rewrite ^/v/(.*)$ $scheme://other/$1? permanent;
         rewrite ^/q/(.*)$ /new/$1?a=$1 permanent;
         rewrite ^/d/(.*)$ /new/$1? redirect;
         rewrite ^/lf/ http://other$uri;
         return 404;",
        &[
            ("/r/a", 302, "%%HERE%%/new/a"),
            ("/r/a?b=c", 302, "%%HERE%%/new/a?b=c"),
            ("/p/a", 301, "%%HERE%%/new/a"),
            ("/u/a", 302, "http://other/a"),
            ("/s/a?c", 302, "https://other/a?a=b&c"),
            ("/v/a?c", 301, "http://other/a"),
            ("/q/a?c", 301, "%%HERE%%/new/a?a=a&c"),
            ("/d/a?c", 302, "%%HERE%%/new/a"),
            ("/r/a%20b%41%2fc", 302, "%%HERE%%/new/a%20bA/c"),
            ("/r/a%25", 302, "%%HERE%%/new/a%25"),
            ("/r/a%3fb", 302, "%%HERE%%/new/a?b"),
            ("/q/a%20b&c", 301, "%%HERE%%/new/a%20b&c?a=a%20b%26c"),
            ("/none", 404, ""),
        ],
    );
}

#[test]
fn a_redirect_never_ends_its_field() {
    let server = Server::start(Config::server("rewrite ^/lf/ http://other$uri;"));
    let response = server.get("/lf/a%0d%0aX-Evil:%20b");
    assert_eq!((response.status, response.header("X-Evil")), (400, None), "{}", response.head());
}

#[test]
fn a_location_is_chosen_ten_times_at_most() {
    let server = Server::start(Config::server(
        "location /loop/ { rewrite ^/loop/(.*)$ /loop/x$1 last; }
         location /n/ {
             rewrite ^/n/0(.*)$ /n/$1 last;
             return 200 $uri;
         }",
    ));
    assert_eq!(server.get("/loop/").status, 500);
    server.wait_for_log(
        "rewrite or internal redirection cycle while processing \"/loop/xxxxxxxxxxx\"",
    );
    assert_eq!(server.get("/n/0000000000a").text(), "/n/a");
    assert_eq!(server.get("/n/00000000000a").status, 500);
}

#[test]
fn an_empty_path_is_an_error() {
    let server = Server::start(Config::server("rewrite ^/a/(.*)$ $1; location / { return 204; }"));
    assert_eq!(server.get("/a/").status, 500);
    server.wait_for_log("the rewritten URI has a zero length");
    assert_eq!(server.get("/b/").status, 204);
}

#[test]
fn a_rewritten_request_may_enter_an_internal_location() {
    check(
        "location /in/ { internal; return 200 in; }
         location /out/ { rewrite ^ /in/ last; }",
        &[("/out/", "in")],
    );
}

#[test]
fn break_keeps_the_location() {
    check(
        "rewrite ^/early/ /early2/; break; rewrite ^ /never/;
         location /early2/ { return 200 early; }
         location /files/ { root %%DIR%%/html; rewrite ^/files/(.*)$ /$1 break; }
         location /plain/ { root %%DIR%%/html; rewrite ^/plain/(.*)$ /$1; break; return 200 no; }
         location /if/ {
             set $a before;
             if ($uri ~ ^/if/x) { set $a within; break; set $a never; }
             set $a behind;
             return 200 $a;
         }
         location / { return 200 $uri; }",
        &[("/early/", "early"), ("/none/", "/none/")],
    );
    let config = Config::server(
        "root %%DIR%%/html;
         location /files/ { rewrite ^/files/(.*)$ /$1 break; }
         location /plain/ { rewrite ^/plain/(.*)$ /$1; break; return 200 no; }
         location /if/ {
             add_header X-Set \"[$a]\";
             set $a before;
             if ($uri ~ ^/if/x) { set $a within; break; set $a never; }
             set $a behind;
         }
         location / { return 200 moved; }",
    );
    let config = config
        .file("html/a.txt", "a file")
        .file("html/if/x.txt", "x file")
        .file("html/if/y.txt", "y file");
    let server = Server::start(config);
    assert_eq!(server.get("/files/a.txt").text(), "a file");
    assert_eq!(server.get("/plain/a.txt").text(), "a file");
    let response = server.get("/if/x.txt");
    assert_eq!((response.text().as_str(), response.header("X-Set")), ("x file", Some("[within]")));
    let response = server.get("/if/y.txt");
    assert_eq!((response.text().as_str(), response.header("X-Set")), ("y file", Some("[behind]")));
}

#[test]
fn conditions() {
    let config = Config::server(
        "set $r \"\";
         if ($arg_v) { set $r \"${r}T\"; }
         if ($arg_v = a) { set $r \"${r}E\"; }
         if ($arg_v != a) { set $r \"${r}N\"; }
         if ($arg_v = $arg_w) { set $r \"${r}W\"; }
         if ($arg_v = \"b c\") { set $r \"${r}S\"; }
         if ($arg_v ~ ^x(.)) { set $r \"${r}R$1\"; }
         if ($arg_v ~* ^x(.)) { set $r \"${r}C$1\"; }
         if ($arg_v !~ ^x) { set $r \"${r}r\"; }
         if ($arg_v !~* ^x) { set $r \"${r}c\"; }
         if ( $arg_v ~ \"^x{2}(?<n>.*)$\" ) { set $r \"${r}Q$n\"; }
         if (-f %%DIR%%/html/$arg_f) { set $r \"${r}f\"; }
         if (!-f %%DIR%%/html/$arg_f) { set $r \"${r}F\"; }
         if (-d %%DIR%%/html/$arg_f) { set $r \"${r}d\"; }
         if (!-d %%DIR%%/html/$arg_f) { set $r \"${r}D\"; }
         if (-e %%DIR%%/html/$arg_f) { set $r \"${r}e\"; }
         if (!-e %%DIR%%/html/$arg_f) { set $r \"${r}E\"; }
         if (-x %%DIR%%/html/$arg_f) { set $r \"${r}x\"; }
         if (!-x %%DIR%%/html/$arg_f) { set $r \"${r}X\"; }
         return 200 $r;",
    );
    let config = config.file("html/a", "");
    check_config(
        config,
        &[
            ("/?f=a", "NWrcfDeX"),
            ("/?f=b", "NWrcFDEX"),
            ("/?f=.", "NWrcFdex"),
            ("/?v=0&f=a", "NrcfDeX"),
            ("/?v=00&f=a", "TNrcfDeX"),
            ("/?v=a&f=a", "TErcfDeX"),
            ("/?v=a&w=a&f=a", "TEWrcfDeX"),
            ("/?v=b c&f=a", "TNrcfDeX"),
            ("/?v=xy&f=a", "TNRyCyfDeX"),
            ("/?v=XY&f=a", "TNCYrfDeX"),
            ("/?v=xxz&f=a", "TNRxCxQzfDeX"),
        ][..7],
    );
}

#[test]
fn an_if_of_a_server_changes_what_follows() {
    check(
        "if ($arg_go = away) { return 200 away; }
         if ($arg_go = on) { rewrite ^ /on; set $x set; break; }
         set $y later;
         location /on { return 200 \"on $x$y\"; }
         location / { return 200 root$y; }",
        &[("/?go=away", "away"), ("/?go=on", "on set"), ("/", "rootlater")],
    );
}

#[test]
fn the_last_true_if_of_a_location_answers() {
    let backend = Backend::with(|request| Answer::text(request.target.clone()));
    let config = Config::server(
        "location / {
             add_header X-Where outer;
             root %%DIR%%/html;
             if ($arg_a) { add_header X-Where a; }
             if ($arg_b) { add_header X-Where b; add_header X-More b; root %%DIR%%/other; }
             if ($arg_p) { proxy_pass http://127.0.0.1:%%BACKEND%%; }
             if ($arg_r) { return 402; }
         }
         location /proxy/ {
             proxy_pass http://127.0.0.1:%%BACKEND%%/new/;
             proxy_set_header X-Mark m;
             if ($arg_a) { add_header X-Where a; }
         }
         location ~ ^/alias/(.*)$ {
             alias %%DIR%%/html/$1;
             if ($arg_a) { add_header X-Where a; }
         }
         location /static/ {
             alias %%DIR%%/html/;
             if ($arg_a) { add_header X-Where a; }
         }
         error_page 402 = @pay;
         location @pay { return 200 pay; }",
    );
    let config =
        config.with("BACKEND", backend.port()).file("html/f", "html").file("other/f", "other");
    let server = Server::start(config);
    for (path, text, place) in [
        ("/f", "html", Some("outer")),
        ("/f?a=1", "html", Some("a")),
        ("/f?b=1", "other", Some("b")),
        ("/f?a=1&b=1", "other", Some("b")),
        ("/f?a=1&p=1", "/f?a=1&p=1", Some("outer")),
        ("/f?r=1", "pay", None),
        ("/proxy/x", "/new/x", None),
        ("/proxy/x?a=1", "/new/x?a=1", Some("a")),
        ("/alias/f", "html", None),
        ("/alias/f?a=1", "html", Some("a")),
        ("/static/f?a=1", "html", Some("a")),
    ] {
        let response = server.get(path);
        assert_eq!((response.text().as_str(), response.header("X-Where")), (text, place), "{path}");
    }
    assert_eq!(server.get("/f?b=1").header("X-More"), Some("b"));
    assert_eq!(backend.last_request().header("X-Mark"), Some("m"));
}

#[test]
fn variables_are_set() {
    check(
        "set $a 1;
         set $b $a$a;
         set $args_were $args;
         location /v { set $a 2; return 200 \"$a $b $c\"; }
         location /args { set $args x=2; return 200 \"$args $arg_x $is_args $request_uri\"; }
         location /none { set $args \"\"; return 200 \"[$args$is_args]\"; }
         location /arg { set $arg_x changed; return 200 $arg_x; }
         location /text { set $a \"x y\"; set $a \"$a z\"; return 200 $a; }
         location /never { if ($arg_c) { set $c yes; } return 200 [$c]; }
         location ~ ^/over/(?<a>.*)$ { return 200 $a; }",
        &[
            ("/v", "2 11 "),
            ("/args?x=1", "x=2 2 ? /args?x=1"),
            ("/none?x=1", "[]"),
            ("/arg?x=1", "changed"),
            ("/text", "x y z"),
            ("/never", "[]"),
            ("/never?c=1", "[yes]"),
            ("/over/z", "z"),
        ],
    );
}

#[test]
fn a_changed_request_is_passed_on_changed() {
    let backend = Backend::with(|request| Answer::text(request.target.clone()));
    let config = Config::server(
        "location /args/ { set $args q=1; proxy_pass http://127.0.0.1:%%BACKEND%%; }
         location /path/ { set $args q=1; proxy_pass http://127.0.0.1:%%BACKEND%%/p/; }
         location /break/ {
             rewrite ^/break/(.*)$ /other/$1 break;
             proxy_pass http://127.0.0.1:%%BACKEND%%/p/;
         }
         location /bare/ {
             rewrite ^/bare/(.*)$ /other/$1 break;
             proxy_pass http://127.0.0.1:%%BACKEND%%;
         }
         location /last/ { rewrite ^/last/(.*)$ /path/$1 last; }
         location /untouched/ { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
    );
    check_config(
        config.with("BACKEND", backend.port()),
        &[
            ("/args/%41?x", "/args/A?q=1"),
            ("/path/%41%20?x", "/p/A%20?q=1"),
            ("/break/%41%20?x", "/other/A%20?x"),
            ("/bare/a%2520?x", "/other/a%2520?x"),
            ("/last/a", "/p/a?q=1"),
            ("/untouched/%41?x", "/untouched/%41?x"),
        ],
    );
}

#[test]
fn an_alias_needs_its_location() {
    let config = Config::server(
        "location /i/ { alias %%DIR%%/html/; rewrite ^/i/old(.*)$ /j/new$1 break; }",
    );
    let server = Server::start(config.file("html/a", "a"));
    assert_eq!(server.get("/i/a").text(), "a");
    assert_eq!(server.get("/i/old/a").status, 500);
    let mut server = server;
    server.expect_alerts();
    server.wait_for_log("\"alias\" cannot be used in location \"/i/\" where URI was rewritten");
}

#[test]
fn matches_are_logged() {
    let config = Config::server(
        "error_log %%DIR%%/logs/rewrite.log notice;
         location /quiet/ { rewrite ^/quiet/ /to/; }
         location /to/ { return 200 to; }
         location /loud/ {
             rewrite_log on;
             rewrite ^/no /to/;
             rewrite ^/loud/(.*) /to/$1?b;
         }
         location /sent/ { rewrite_log on; rewrite ^ http://other/ redirect; }
         location /if/ { rewrite_log on; if ($uri ~ x) { return 204; } return 200 no; }",
    );
    let server = Server::start(config);
    server.get("/quiet/");
    server.get("/loud/x?a");
    server.get("/sent/");
    server.get("/if/");
    server.wait_for_line("logs/rewrite.log", "\"x\" does not match \"/if/\"");
    let log = server.read("logs/rewrite.log");
    for line in [
        "\"^/no\" does not match \"/loud/x\", client: ",
        "\"^/loud/(.*)\" matches \"/loud/x\", client: ",
        "rewritten data: \"/to/x\", args: \"b&a\", client: ",
        "rewritten redirect: \"http://other/\", client: ",
    ] {
        assert!(log.contains(line), "not in the log: {line}\n{log}");
    }
    assert!(!log.contains("/quiet/\""), "{log}");
}

#[test]
fn variables_without_a_value_are_told_unless_that_is_off() {
    let server = Server::start(Config::server(
        "error_log %%DIR%%/logs/warn.log warn;
         location /warn { if ($arg_x) { set $v 1; } return 200 \"$v$v\"; }
         location /quiet { uninitialized_variable_warn off; return 200 \"[$v]\"; }
         location /end { return 200 [$v]; }",
    ));
    assert_eq!(server.get("/quiet").text(), "[]");
    assert_eq!(server.get("/warn").text(), "");
    server.get("/end");
    let end = "request: \"GET /end";
    server.wait_for_line("logs/warn.log", end);
    let log = server.read("logs/warn.log");
    assert!(log.contains("request: \"GET /warn"), "{log}");
    assert!(!log.contains("request: \"GET /quiet"), "{log}");
    // Told once in a request.
    assert_eq!(log.matches("using uninitialized \"v\" variable, client: ").count(), 2);
}

#[test]
fn faults_are_told_in_nginx_words() {
    refused("rewrite ^ \"\";", "empty replacement in ");
    refused("rewrite ^ / sometimes;", "invalid parameter \"sometimes\" in ");
    refused("rewrite ^(/ /;", "pcre2_compile() failed: missing closing parenthesis in \"^(/\" in ");
    refused("rewrite ^;", "invalid number of arguments in \"rewrite\" directive in ");
    refused("rewrite ^ /$;", "invalid variable name in ");
    refused("rewrite ^ /$none;", "unknown \"none\" variable");
    refused("set x 1;", "invalid variable name \"x\" in ");
    refused("set $host 1;", "the duplicate \"host\" variable in ");
    refused("set $query_string 1;", "the duplicate \"query_string\" variable in ");
    refused("set $a $none;", "unknown \"none\" variable");
    refused("break 1;", "invalid number of arguments in \"break\" directive in ");
    refused("return 1000;", "invalid return code \"1000\" in ");
    refused("if { }", "invalid number of arguments in \"if\" directive in ");
    refused("if $a { }", "invalid condition \"$a\" in ");
    refused("if ($a { }", "invalid condition \"$a\" in ");
    refused("if () { }", "invalid condition \")\" in ");
    refused("if (a) { }", "invalid condition \"a\" in ");
    refused("if ($) { }", "invalid condition \"$\" in ");
    refused("if ($host = ) { }", "invalid condition \"$host\" in ");
    refused("if ($host == a) { }", "unexpected \"==\" in condition in ");
    refused("if ($host ~ \"(\") { }", "missing closing parenthesis in \"(\" in ");
    refused("if (-f) { }", "invalid condition \"-f\" in ");
    refused("if (-g a) { }", "invalid condition \"-g\" in ");
    refused("if (!-g a) { }", "invalid condition \"!-g\" in ");
    refused("if ($none) { }", "unknown \"none\" variable");
    refused("if ($host) { root a; }", "\"root\" directive is not allowed here in ");
    refused("if ($host) { if ($host) { } }", "\"if\" directive is not allowed here in ");
    refused("location / { if ($host) { alias a; } }", "\"alias\" directive is not allowed here");
    refused("location / { try_files a; }", "invalid number of arguments in \"try_files\"");
    refused("location / { try_files a =1000; }", "invalid code \"=1000\" in ");
}

#[test]
fn server_rewrites_run_again_after_an_internal_redirect() {
    check(
        "error_page 404 /missing;
         set $n x$n;
         rewrite ^/missing$ /found;
         location /found { return 200 \"found $n\"; }
         location / { return 404; }",
        &[("/a", "found xx")],
    );
}

#[test]
fn rewriting_within_a_named_location_leaves_it() {
    check(
        "location /a { return 402; error_page 402 = @n; }
         location @n { rewrite ^/a(.*)$ /b$1; }
         location /b { return 200 $uri; }",
        &[("/a/x", "/b/x")],
    );
}

#[test]
fn the_first_file_that_exists_answers() {
    let backend = Backend::with(|request| Answer::text(request.target.clone()));
    let config = Config::server(
        "root %%DIR%%/html;
         try_files /fallback.txt =404;
         location /files/ { try_files $uri $uri.txt $uri/ /files/last.txt; }
         location /code/ { try_files $uri =405; }
         location /named/ { try_files $uri @named; }
         location @named { return 200 \"named $uri\"; }
         location /query/ { try_files $uri /answer?path=$uri&$args; }
         location /answer { return 200 \"$uri $args\"; }
         location /dir/ { try_files $uri/ $uri =404; }
         location /alias/ { alias %%DIR%%/html/files/; try_files $uri $uri.txt last.txt =404; }
         location ~ ^/regex/(.*)$ { alias %%DIR%%/html/files; try_files /$1 /$1.txt =404; }
         location /proxy/ {
             try_files $uri.txt /proxy.txt =404;
             proxy_pass http://127.0.0.1:%%BACKEND%%;
         }
         location /if/ {
             try_files /files/a.txt =404;
             if ($arg_x) { add_header X-If x; }
         }
         location = /moved { rewrite ^ /files/b break; try_files $uri.txt =404; }",
    );
    let config = config
        .with("BACKEND", backend.port())
        .file("html/files/a", "a")
        .file("html/files/b.txt", "b")
        .file("html/files/last.txt", "last")
        .file("html/files/dir/index.html", "dir")
        .file("html/files/a.txt", "a.txt")
        .file("html/dir/d/index.html", "index")
        .file("html/proxy.txt", "")
        .file("html/fallback.txt", "fallback");
    check_config(
        config,
        &[
            ("/elsewhere", "fallback"),
            ("/files/a", "a"),
            ("/files/b", "b"),
            ("/files/dir/", "dir"),
            ("/files/none", "last"),
            ("/named/x", "named /named/x"),
            ("/query/x?a=b", "/answer path=/query/x&a=b"),
            ("/dir/d/", "index"),
            ("/alias/a", "a"),
            ("/alias/b", "b"),
            ("/alias/none", "last"),
            ("/regex/a", "a"),
            ("/regex/b", "b"),
            ("/proxy/x%41", "/proxy/x%41"),
            ("/if/none", "a.txt"),
            ("/moved", "b"),
        ],
    );
}

#[test]
fn try_files_answers_with_a_code() {
    let server = Server::start(Config::server("location / { try_files $uri =405; }"));
    assert_eq!(server.get("/x").status, 405);
    // As in nginx, an `if` does not take try_files over from its location.
    let config = Config::server(
        "root %%DIR%%/html; location / { try_files /a =405; if ($arg_x) { set $y z; } }",
    );
    let server = Server::start(config.file("html/a", "a").file("html/b", "b"));
    assert_eq!(server.get("/b").text(), "a");
    assert_eq!(server.get("/b?x=1").text(), "b");
}

#[test]
fn a_directory_without_its_slash_is_redirected() {
    let config = Config::server("root %%DIR%%/html; location / { try_files $uri/ =404; }");
    let server = Server::start(config.file("html/d/index.html", "d"));
    let response = server.get("/d");
    let place = format!("http://localhost:{}/d/", server.port(0));
    assert_eq!((response.status, response.header("Location")), (301, Some(place.as_str())));
}

#[test]
fn bodies_of_requests_survive_a_rewrite() {
    let backend = Backend::with(|request| Answer::text(request.body_text()));
    let config = Config::server(
        "location /a { rewrite ^ /b last; }
         location /b { proxy_pass http://127.0.0.1:%%BACKEND%%; }",
    );
    let server = Server::start(config.with("BACKEND", backend.port()));
    let mut client: Client = server.connect();
    assert_eq!(client.post("/a", "hello").text(), "hello");
    assert_eq!(backend.last_request().target, "/b");
}

#[test]
fn an_error_page_that_fails_is_replaced_where_the_first_error_was_recursive() {
    let server = Server::start(Config::server(
        "location / { error_page 404 = @again; return 404; }
         location @again { recursive_error_pages on; error_page 404 = @never; return 404; }
         location @never { return 200 never; }
         location /on/ { recursive_error_pages on; error_page 404 = @more; return 404; }
         location @more { error_page 404 = @last; return 404; }
         location @last { return 200 last; }",
    ));
    assert_eq!(server.get("/").status, 404);
    assert_eq!(server.get("/on/").text(), "last");
}

#[test]
fn nested_locations_are_as_internal_as_theirs() {
    let server = Server::start(Config::server(
        "location /in/ { internal; location /in/x { return 200 x; } }
         location /to/ { rewrite ^/to/(.*) /in/$1; }",
    ));
    assert_eq!(server.get("/in/x").status, 404);
    assert_eq!(server.get("/to/x").text(), "x");
}

#[test]
fn the_redirect_to_a_folder_has_the_settings_of_its_location() {
    let config = Config::server(
        "location /app/ { add_header X-Where app; proxy_pass http://127.0.0.1:%%BACKEND%%; }
         location /in/ { internal; proxy_pass http://127.0.0.1:%%BACKEND%%; }",
    );
    let backend = Backend::named("b");
    let server = Server::start(config.with("BACKEND", backend.port()));
    let response = server.get("/app");
    assert_eq!((response.status, response.header("X-Where")), (301, Some("app")));
    assert_eq!(server.get("/in").status, 404);
}

/// Any path at all: each is answered, by a worker that lives on.
#[test]
fn no_path_upsets_the_rewrites() {
    let config = Config::server(
        "root %%DIR%%/html;
         set $v $arg_q;
         if ($uri ~ \"(?<n>.)/(.*)$\") { set $v \"$n$2\"; }
         location / {
             if ($v ~ ^(.)(.)?) { set $args \"$1&$2\"; }
             if (-f %%DIR%%/html/$v) { add_header X-Found $v; }
             if ($args) { rewrite (.)(.)?$ $2$1?$1$args break; }
             try_files $uri $v/ /a$v?$v =404;
         }
         location /a { rewrite ^/a(/*)(.*)$ $1/b$2 last; return 200 $uri; }
         location ~ ^/b(.*) { alias %%DIR%%/html/$1; try_files $uri $1 @n; }
         location /c/ { alias %%DIR%%/html/; try_files $uri $v/$uri @n; }
         location /d { rewrite ^(.*)$ http://h$1?$1$v redirect; }
         location @n { rewrite ^/?(.*)$ /$1$v permanent; }",
    );
    let server = Server::start(config.file("html/a", "a"));
    let pid = server.workers();
    let alphabet: Vec<&str> =
        "/ / a b c d . .. %41 %2f %3f %26 %25 %ff %0a + ? ? & = q= $1 \\ ~ ( \u{e9}"
            .split(' ')
            .collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    for _ in 0..400 {
        let length = next(9);
        let path: String = (0..length).map(|_| alphabet[next(alphabet.len())]).collect();
        let response = server.get(&format!("/{path}"));
        assert!((200..=505).contains(&response.status), "/{path}: {}", response.status);
    }
    assert_eq!(server.workers(), pid);
}
