//! Commands in pages: what they do, in which order answers come, and what mistakes leave behind.

use std::sync::Arc;
use testkit::{Answer, Backend, Config, Gate, Server};

/// A server with the pages, each asked for in turn.
#[track_caller]
fn check(rows: &[(&str, &str, &str)]) {
    let mut config = Config::server(
        "root %%DIR%%/html; ssi on; ssi_types text/plain;
         location /plain/ { ssi off; }
         location /empty { return 204; }
         location /args { return 200 '$args,$uri'; }
         location /method { return 200 '$request_method $request_uri'; }
         location /set { set $from_child 5; return 200 ''; }
         location /none { return 200 '$from_child'; }",
    )
    .file("html/plain/x", "<!--#echo var=\"uri\" -->")
    .file("html/dir/inner", "inner");
    for (number, (_, page, _)) in rows.iter().enumerate() {
        config = config.file(&format!("html/dir/{number}.html"), page);
    }
    let server = Server::start(config);
    let mut client = server.connect();
    for (number, (query, page, expected)) in rows.iter().enumerate() {
        let answer = client.get(&format!("/dir/{number}.html{query}")).expect(200);
        assert_eq!(answer.text(), *expected, "{page}");
    }
}

const ERROR: &str = "[an error occurred while processing the directive]";

#[test]
fn variables_are_shown_and_set() {
    check(&[
        ("", "plain <b>text</b> <!-- comment -->", "plain <b>text</b> <!-- comment -->"),
        ("?a=1", "<!--#echo var=\"arg_a\" -->", "1"),
        ("", "<!--#echo var=\"arg_a\" -->", "(none)"),
        ("", "<!--#echo var=\"arg_a\" default=\"no\" -->", "no"),
        ("?a=", "x<!--#echo var=\"arg_a\" default=\"no\" -->x", "xx"),
        (
            "?a=b",
            "<!--#set var=\"v\" value=\"$arg_a/${ARG_A}c\\$\" --><!--#echo var=\"V\" -->",
            "b/bc$",
        ),
        ("", "<!--#set var='v' value='<\"&>' --><!--#echo var='v' -->", "&lt;&quot;&amp;&gt;"),
        (
            "",
            "<!--#set var='v' value='<é>' --><!--#echo var='v' encoding='none' -->\
             <!--#echo var='v' encoding='url' --><!--#echo var='v' -->",
            "<é>%3C%C3%A9%3E%3C%C3%A9%3E",
        ),
        ("", "<!--#set var='v' value='$none$' -->x", &format!("{ERROR}x")),
    ]);
}

#[test]
fn conditions_choose_texts() {
    let four = "<!--#if expr=\"$arg_a\" -->A<!--#elif expr=\"$arg_b = x\" -->B\
                <!--#elif expr=\"$arg_b != /^[yz]+\\$/\" -->C<!--#else -->D<!--#endif -->.";
    let nested = "<!--#if expr='$arg_a' -->1<!--#if expr='$arg_b' -->2<!--#else -->3<!--#endif -->4\
                  <!--#else -->5<!--#if expr='$arg_b' -->6<!--#endif -->7<!--#endif -->";
    let groups = "<!--#if expr=\"$arg_a = /^(?<first>.)(.)/\" -->\
                  <!--#echo var=\"2\" --><!--#echo var=\"first\" --><!--#endif -->";
    check(&[
        ("?a=1", four, "A."),
        ("?b=x", four, "B."),
        ("?b=w", four, "C."),
        ("?b=yz", four, "D."),
        ("?a=1&b=1", nested, "124"),
        ("?a=1", nested, "134"),
        ("?b=1", nested, "567"),
        ("", nested, "57"),
        ("?a=xyz", groups, "yx"),
        ("", "<!--#else -->x", &format!("{ERROR}x")),
        ("", "<!--#if expr='$arg_a < 1' -->x<!--#else -->y<!--#endif -->", &format!("{ERROR}y")),
        ("", "<!--#if expr='$arg_a = /(/' -->x<!--#endif -->", ERROR),
    ]);
}

#[test]
fn answers_of_other_requests_are_included() {
    check(&[
        ("", "a<!--#include virtual=\"/dir/inner\" -->b", "ainnerb"),
        ("", "a<!--#include virtual=\"inner\" -->b", "ainnerb"),
        ("", "a<!--#include file=\"inner\" -->b", "ainnerb"),
        ("?x=/dir/in", "<!--#include virtual='${arg_x}ner' -->", "inner"),
        ("?q=1", "<!--#include virtual='/args?b=c' -->", "b=c,/args"),
        ("?q", "<!--#include virtual='/args%3fb' -->", ",/args?b"),
        ("", "<!--#include virtual='/method' -->", "GET /dir/6.html"),
        ("", "<!--#include virtual='/plain/x' -->", "<!--#echo var=\"uri\" -->"),
        ("", "[<!--#include virtual='/empty' -->]", "[]"),
        ("", "<!--#include virtual='0.html' wait='yes' -->!", "ainnerb!"),
        ("", "<!--#include virtual='/set' wait='yes' --><!--#include virtual='/none' -->", "5"),
        ("", "<!--#include virtual='../../x' -->", ERROR),
        ("", "<!--#include virtual='/a' file='b' -->", ERROR),
        ("", "<!--#include virtual='/a' wait='x' -->", ERROR),
        ("", "<!--#include -->", ERROR),
    ]);
}

#[test]
fn blocks_stand_in_and_answers_become_variables() {
    let block = "<!--#block name='b' -->[<!--#echo var='arg_a' default='d' -->]<!--#endblock -->";
    check(&[
        ("?a=1", &format!("{block}x<!--#include virtual='/lost?a=2' stub='b' -->"), "x[2]"),
        ("", &format!("{block}<!--#include virtual='/empty' stub='b' -->"), "[d]"),
        (
            "",
            &format!("{block}<!--#include virtual='/plain/lost' stub='b' -->"),
            "[<!--#echo var=\"arg_a\" default=\"d\" -->]",
        ),
        ("", &format!("{block}<!--#include virtual='inner' stub='b' -->"), "inner"),
        ("", "<!--#include virtual='inner' stub='b' -->", ERROR),
        ("", "<!--#include virtual='inner' set='s' -->got <!--#echo var='s' -->", "got inner"),
        ("", "<!--#include virtual='/lost' set='s' -->got <!--#echo var='s' -->", "got "),
        ("", "<!--#include virtual='inner' set='s' stub='b' -->", ERROR),
    ]);
}

#[test]
fn dates_have_the_form_that_a_page_wants() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; ssi on; add_header X-Date $date_gmt;
             location /local { return 200 $date_local; }",
        )
        .environment("TZ", "XYZ-3")
        .file(
            "html/a.html",
            "<!--#config timefmt='%Y' --><!--#echo var='date_gmt' -->-\
             <!--#config timefmt='%s' --><!--#echo var='date_local' -->",
        ),
    );
    let answer = server.get("/a.html");
    let head = answer.header("X-Date").expect("a date").to_owned();
    assert!(head.ends_with(" GMT") && head.contains("day, "), "{head}");
    let text = answer.text();
    let (year, seconds) = text.split_once('-').expect("two texts");
    assert!(head.contains(year) && year.len() == 4, "{head}: {text}");
    assert!(seconds.len() >= 10 && seconds.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    assert!(server.get("/local").text().ends_with(" XYZ"));
}

#[test]
fn mistakes_are_logged_and_may_be_silent() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; ssi on;
             location /silent/ { ssi_silent_errors on; }
             location /short/ { ssi_value_length 4; }",
        )
        .file("html/a.html", "1<!--#echo -->2<!--#config errmsg='oops' --><!--#lost -->3")
        .file("html/silent/a.html", "1<!--#echo -->2<!--#x -->3")
        .file("html/short/a.html", "<!--#echo var='uri1' default='12345' -->")
        .file("html/long.html", "<!--#echo var='uri1' default='12345' -->"),
    );
    assert_eq!(server.get("/a.html").text(), format!("1{ERROR}2oops3"));
    server.wait_for_log("mandatory \"var\" parameter is absent in \"echo\" SSI command");
    server.wait_for_log("invalid SSI command: \"lost\"");
    assert_eq!(server.get("/silent/a.html").text(), "123");
    assert_eq!(server.get("/long.html").text(), "12345");
    assert_eq!(server.get("/short/a.html").text(), ERROR);
    server.wait_for_log("too long \"12345...\" value of \"default\" parameter");
}

#[test]
fn heads_say_that_the_body_changes() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; ssi on;
             location /age/ { ssi_last_modified on; }
             location /types/ { ssi_types text/css; types { text/css css; text/xml xml; } }",
        )
        .file("html/a.html", "<!--#echo var='uri' -->")
        .file("html/age/a.html", "x")
        .file("html/types/a.css", "<!--#echo var='uri' -->")
        .file("html/types/a.xml", "<!--#echo var='uri' -->"),
    );
    let answer = server.get("/a.html");
    for name in ["Last-Modified", "ETag", "Accept-Ranges", "Content-Length"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let answer = server.get("/age/a.html");
    assert!(answer.header("Last-Modified").is_some());
    assert!(answer.header("ETag").is_some_and(|tag| tag.starts_with("W/")));
    assert_eq!(server.get("/types/a.css").text(), "/types/a.css");
    assert_eq!(server.get("/types/a.xml").text(), "<!--#echo var='uri' -->");
}

#[test]
fn answers_are_asked_for_at_once_and_sent_in_order() {
    let gate = Arc::new(Gate::new());
    let first = gate.clone();
    let backend = Backend::with(move |request| match request.target.as_str() {
        "/slow" => Answer::text("slow").after_gate(&first),
        other => Answer::text(format!("quick{other}")),
    });
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; location / { ssi on; }
             location /b/ { proxy_pass http://127.0.0.1:%%BACKEND%%/; }",
        )
        .with("BACKEND", backend.port())
        .file(
            "html/a.html",
            "1<!--#include virtual='/b/slow' -->2<!--#include virtual='/b/x' -->3\
             <!--#include virtual='/b/y' -->",
        ),
    );
    let mut client = server.connect();
    client.send("GET /a.html HTTP/1.1\r\nHost: a\r\n\r\n");
    // All three are asked although the first has not answered.
    backend.wait_requests(3);
    gate.open();
    assert_eq!(client.read_response().text(), "1slow2quick/x3quick/y");
    // The connection goes on.
    assert_eq!(client.get("/b/z").text(), "quick/z");
}

#[test]
fn a_part_that_breaks_off_breaks_the_page() {
    let backend = Backend::with(|_| Answer::text("0123456789").cut_after(5));
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; location / { ssi on; } location /close { return 444; }
             location /b/ { proxy_pass http://127.0.0.1:%%BACKEND%%/; }",
        )
        .with("BACKEND", backend.port())
        .file("html/a.html", "1<!--#include virtual='/b/' -->2")
        .file("html/c.html", "1<!--#include virtual='/close' -->2"),
    );
    for page in ["/a.html", "/c.html"] {
        let mut client = server.connect();
        client.send(format!("GET {page} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let text = String::from_utf8(client.read_to_end()).expect("a text");
        assert!(text.starts_with("HTTP/1.1 200") && !text.ends_with("0\r\n\r\n"), "{text}");
    }
}

#[test]
fn pages_that_include_themselves_come_to_an_end() {
    let server = Server::start(
        Config::server("root %%DIR%%/html; ssi on;")
            .file("html/a.html", "x<!--#include virtual='/a.html' -->"),
    );
    let text = server.get("/a.html").text();
    assert_eq!(text, format!("{}{ERROR}", "x".repeat(52)));
    server.wait_for_log("subrequests cycle while processing \"/a.html\"");
}

#[test]
fn filters_of_the_location_asked_are_applied() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; location / { ssi on; sub_filter outer OUTER; }
             location /b { sub_filter inner INNER; default_type text/html;
                           return 200 'inner outer'; }",
        )
        .file("html/a.html", "outer <!--#include virtual='/b' -->"),
    );
    // What is included is not filtered a second time.
    assert_eq!(server.get("/a.html").text(), "OUTER INNER outer");
}

#[test]
fn what_becomes_a_variable_is_bounded() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; ssi on;
             location /more/ { subrequest_output_buffer_size 10k; }",
        )
        .file("html/long", "x".repeat(5000))
        .file("html/a.html", "<!--#include virtual='/long' set='v' --><!--#echo var='v' -->")
        .file("html/more/a.html", "<!--#include virtual='/long' set='v' --><!--#echo var='v' -->"),
    );
    assert_eq!(server.get("/more/a.html").text().len(), 5000);
    let text = server.exchange("GET /a.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(!text.contains("xx"), "{text}");
    server.wait_for_log("too big subrequest response: 5000");
}

#[test]
fn subrequests_are_logged_where_that_is_wanted() {
    let server = Server::start(
        Config::http(
            "log_format uris '$uri $status';
             server { listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html; access_log uris.log uris;
                      location / { ssi on; } location /quiet { return 200 q; }
                      location /b { log_subrequest on; return 202 b; } }",
        )
        .file("html/a.html", "<!--#include virtual='/b' --><!--#include virtual='/quiet' -->"),
    );
    assert_eq!(server.get("/a.html").text(), "bq");
    server.wait_for_line("uris.log", "/a.html 200");
    assert_eq!(server.read("uris.log"), "/b 202\n/a.html 200\n");
}
