//! `map`: variables from tables.

use testkit::{Config, Server};

#[test]
fn a_map_chooses_a_value() {
    let server = Server::start(
        Config::http(
            "map $arg_k $value {
                 default none;
                 One first;
                 ~^t(?<rest>.*)$ t-$rest;
                 ~*^X(.)$ $1;
                 include %%DIR%%/rows.conf;
                 \\default literal;
                 mixed $uri-$other;
             }
             map $value-$arg_k $other { none-mixed seen; first-one twice; default '?'; }
             map $http_host $site {
                 hostnames;
                 .example.com example;
                 www.* www;
                 default other;
             }
             server {
                 listen 127.0.0.1:%%PORT_0%%;
                 location / { return 200 $value; }
                 location /other { return 200 $other; }
                 location /site { return 200 $site; }
             }",
        )
        .file("rows.conf", "inc included; inc2 \"two words\";"),
    );
    let mut client = server.connect();
    for (path, expected) in [
        ("/?k=one", "first"),
        ("/?k=ONE", "first"),
        ("/?k=two", "t-wo"),
        ("/?k=xy", "y"),
        ("/?k=inc", "included"),
        ("/?k=inc2", "two words"),
        ("/?k=default", "literal"),
        ("/?k=", "none"),
        ("/", "none"),
        ("/other?k=one", "twice"),
        ("/other?k=z", "?"),
    ] {
        assert_eq!(client.get(path).text(), expected, "{path}");
    }
    for (host, expected) in [("a.EXAMPLE.com.", "example"), ("www.org", "www"), ("x", "other")] {
        let response = client.request("GET", "/site", &[("Host", host)], b"");
        assert_eq!(response.text(), expected, "{host}");
    }
}

#[test]
fn a_volatile_map_is_looked_up_at_each_use() {
    let server = Server::start(Config::http(
        "map $uri $kept { default $uri; }
         map $uri $fresh { volatile; default $uri; }
         server {
             listen 127.0.0.1:%%PORT_0%%;
             error_page 404 = /page;
             location / { root %%DIR%%/none$kept$fresh; }
             location /page { return 200 $kept|$fresh; }
         }",
    ));
    assert_eq!(server.get("/first").text(), "/first|/page");
}
