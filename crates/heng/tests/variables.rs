//! Variables that modules compute: `split_clients`, `valid_referers`, `secure_link`.

use testkit::{Config, Server};

#[test]
fn split_clients_gives_a_text_always_the_same_value() {
    let server = Server::start(Config::http(
        "split_clients $arg_k-salt $half { 50% one; * two; }
         split_clients $arg_k $all { 100% \"always this\"; }
         server {
             listen 127.0.0.1:%%PORT_0%%;
             location / { return 200 $half; }
             location /all { return 200 $all; }
         }",
    ));
    let mut client = server.connect();
    let mut ones = 0;
    for n in 0..60 {
        let path = format!("/?k={n}");
        let value = client.get(&path).text();
        assert_eq!(client.get(&path).text(), value);
        match value.as_str() {
            "one" => ones += 1,
            other => assert_eq!(other, "two"),
        }
    }
    assert!((15..=45).contains(&ones), "{ones}");
    assert_eq!(client.get("/all?k=x").text(), "always this");
}

#[test]
fn valid_referers_tells_whose_pages_lead_here() {
    let server = Server::start(Config::server(
        "server_name own.example;
         valid_referers server_names partner.example;
         location / { return 200 [$invalid_referer]; }
         location /none {
             valid_referers none blocked server_names; return 200 [$invalid_referer];
         }
         location /path {
             valid_referers *.example/app/ ~\\.org/x; return 200 [$invalid_referer];
         }",
    ));
    let mut client = server.connect();
    for (path, referer, expected) in [
        ("/", Some("http://own.example/page"), "[]"),
        ("/", Some("https://Partner.example"), "[]"),
        ("/", Some("http://other.example/"), "[1]"),
        ("/", None, "[1]"),
        ("/none", None, "[]"),
        ("/none", Some("masked"), "[]"),
        ("/none", Some("http://partner.example"), "[1]"),
        ("/path", Some("http://a.example/app/x"), "[]"),
        ("/path", Some("http://a.example/other"), "[1]"),
        ("/path", Some("http://b.ORG/X"), "[]"),
    ] {
        let mut headers = vec![("Host", "own.example")];
        headers.extend(referer.map(|referer| ("Referer", referer)));
        assert_eq!(
            client.request("GET", path, &headers, b"").text(),
            expected,
            "{path} {referer:?}"
        );
    }
}

/// The hashes are of "/file secret", of "TIME/timed secret" and of "dir/fileword".
#[test]
fn secure_link_tells_links_made_with_the_secret() {
    let server = Server::start(Config::server(
        "location / {
             secure_link $arg_h; secure_link_md5 \"$uri secret\";
             return 200 [$secure_link];
         }
         location /timed {
             secure_link $arg_h,$arg_e; secure_link_md5 \"$arg_e$uri secret\";
             return 200 [$secure_link]$secure_link_expires;
         }
         location /p/ { secure_link_secret word; return 200 [$secure_link]; }
         location /plain { return 200 [$secure_link]$secure_link_expires; }",
    ));
    let mut client = server.connect();
    for (path, expected) in [
        ("/file?h=R1J3O1-RZX3AyoQFWtmDPw", "[1]"),
        ("/file?h=R1J3O1-RZX3AyoQFWtmDPwx", "[]"),
        ("/other?h=R1J3O1-RZX3AyoQFWtmDPw", "[]"),
        ("/file", "[]"),
        ("/timed?h=vY6IU184UWVV71g0cXAISg&e=4102444800", "[1]4102444800"),
        ("/timed?h=vY6IU184UWVV71g0cXAISg&e=4102444801", "[]4102444801"),
        ("/timed?h=Jb4sUBFN2_3XImcOL_BEdw&e=100", "[0]100"),
        ("/timed?h=Jb4sUBFN2_3XImcOL_BEdw&e=x", "[]"),
        ("/p/ea49327fd680dd3a09839e6852cfc42e/dir/file", "[dir/file]"),
        ("/p/ea49327fd680dd3a09839e6852cfc42e/dir/other", "[]"),
        ("/plain", "[]"),
    ] {
        assert_eq!(client.get(path).text(), expected, "{path}");
    }
}

#[test]
fn the_two_forms_of_secure_link_do_not_mix() {
    Server::check(Config::server("secure_link_secret a; secure_link $arg_h; return 204;"))
        .expect(1)
        .says("\"secure_link_secret\" cannot be mixed with \"secure_link\" and");
}
