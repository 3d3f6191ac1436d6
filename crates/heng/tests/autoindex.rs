//! Lists of folders in all formats.

use std::fs::{File, FileTimes};
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};
use testkit::{Config, Response, Server};

/// 2001-09-09T01:46:40Z.
const CHANGED_S: u64 = 1_000_000_000;

/// A server with a folder `html/list` in which everything was changed at the same second.
fn lists(inside: &str) -> Server {
    let config = Config::server(&format!("root %%DIR%%/html; {inside}"))
        .environment("TZ", "EAST-5:30")
        .file("html/list/b.txt", "0123456789")
        .file("html/list/big", vec![b'x'; 10_752])
        .file("html/list/a \"<&>?", "")
        .file("html/list/.hidden", "")
        .file("html/list/folder/.keep", "");
    let server = Server::start(config);
    let folder = server.path("html/list");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED_S);
    for name in ["b.txt", "big", "a \"<&>?", "folder"] {
        let file = File::open(folder.join(name)).expect("an entry");
        file.set_times(FileTimes::new().set_modified(time)).expect("a time");
    }
    server
}

fn get(server: &Server, path: &str) -> Response {
    server.get(path).expect(200)
}

#[test]
fn html() {
    let server = lists("autoindex on;");
    let response = get(&server, "/list/");
    assert_eq!(response.header("Content-Type"), Some("text/html"));
    assert_eq!(response.header("Content-Length"), None);
    let row = |link: &str, name: &str, width: usize, size: &str| {
        let blanks = " ".repeat(51 - width);
        format!("<a href=\"{link}\">{name}</a>{blanks}09-Sep-2001 01:46 {size:>19}\r\n")
    };
    let expected = [
        "<html>\r\n<head><title>Index of /list/</title></head>\r\n<body>\r\n\
         <h1>Index of /list/</h1><hr><pre><a href=\"../\">../</a>\r\n",
        &row("folder/", "folder/", 7, "-"),
        &row("a%20%22%3C%26%3E%3F", "a &quot;&lt;&amp;&gt;?", 7, "0"),
        &row("b.txt", "b.txt", 5, "10"),
        &row("big", "big", 3, "10752"),
        "</pre><hr></body>\r\n</html>\r\n",
    ];
    assert_eq!(response.text(), expected.concat());

    let head = server.connect().request("HEAD", "/list/", &[("Host", "a")], b"");
    assert_eq!(head.expect(200).header("Content-Type"), Some("text/html"));
    assert_eq!(server.connect().post("/list/", b"").status, 403);
    assert_eq!(server.get("/none/").status, 404);
}

#[test]
fn off_and_indexes() {
    let server = lists("autoindex on; location /list/folder/ { autoindex off; } index b.txt;");
    assert_eq!(get(&server, "/list/").text(), "0123456789", "an index comes first");
    assert_eq!(server.get("/list/folder/").status, 403);
}

#[test]
fn times_and_sizes_of_html() {
    let server = lists(
        "autoindex on;
         location /list/ { autoindex_localtime on; autoindex_exact_size off; }",
    );
    let text = get(&server, "/list/").text();
    let ends = |start: &str, end: &str| {
        let line = text.lines().find(|line| line.contains(start)).expect("a line");
        assert!(line.ends_with(end), "{line}");
    };
    ends("b.txt", " 09-Sep-2001 07:16      10");
    ends("big", " 09-Sep-2001 07:16     11K");
    ends("folder", " 09-Sep-2001 07:16       -");
}

#[test]
fn json_and_jsonp() {
    let server = lists(
        "autoindex on; autoindex_format json;
         location /call/ { alias %%DIR%%/html/list/; autoindex_format jsonp; }",
    );
    let response = get(&server, "/list/");
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let time = "Sun, 09 Sep 2001 01:46:40 GMT";
    let array = [
        "[\r\n{ \"name\":\"folder\", \"type\":\"directory\", \"mtime\":\"TIME\" },",
        "\r\n{ \"name\":\"a \\\"<&>?\", \"type\":\"file\", \"mtime\":\"TIME\", \"size\":0 },",
        "\r\n{ \"name\":\"b.txt\", \"type\":\"file\", \"mtime\":\"TIME\", \"size\":10 },",
        "\r\n{ \"name\":\"big\", \"type\":\"file\", \"mtime\":\"TIME\", \"size\":10752 }\r\n]",
    ];
    let array = array.concat().replace("TIME", time);
    assert_eq!(response.text(), array);

    let response = get(&server, "/call/?callback=a.b_1");
    assert_eq!(response.header("Content-Type"), Some("application/javascript"));
    assert_eq!(response.text(), format!("/* callback */\r\na.b_1({array});"));
    assert_eq!(get(&server, "/call/folder/?callback=f").text(), "/* callback */\r\nf([\r\n]);");
    for path in ["/call/", "/call/?callback="] {
        let response = get(&server, path);
        assert_eq!(response.header("Content-Type"), Some("application/json"), "{path}");
        assert_eq!(response.text(), array, "{path}");
    }
    assert_eq!(server.get("/call/?callback=a(b").status, 400);
    assert_eq!(server.get(&format!("/call/?callback={}", "a".repeat(129))).status, 400);
    assert_eq!(server.get(&format!("/call/?callback={}", "a".repeat(128))).status, 200);
}

#[test]
fn xml() {
    let server = lists("autoindex on; autoindex_format xml;");
    let response = get(&server, "/list/");
    assert_eq!(response.header("Content-Type"), Some("text/xml; charset=utf-8"));
    let list = [
        "<?xml version=\"1.0\"?>\r\n<list>\r\n",
        "<directory mtime=\"TIME\">folder</directory>\r\n",
        "<file mtime=\"TIME\" size=\"0\">a &quot;&lt;&amp;&gt;?</file>\r\n",
        "<file mtime=\"TIME\" size=\"10\">b.txt</file>\r\n",
        "<file mtime=\"TIME\" size=\"10752\">big</file>\r\n</list>\r\n",
    ];
    assert_eq!(response.text(), list.concat().replace("TIME", "2001-09-09T01:46:40Z"));
}

#[test]
fn links_are_followed_and_broken_ones_are_shown() {
    let server = lists("autoindex on; autoindex_format json;");
    let folder = server.path("html/list/folder");
    symlink("nowhere", folder.join("broken")).expect("a link");
    symlink("..", folder.join("up")).expect("a link");
    symlink("../b.txt", folder.join("text")).expect("a link");
    let text = get(&server, "/list/folder/").text();
    let kinds: Vec<&str> =
        text.lines().filter_map(|line| line.split("\", \"mtime").next()).collect();
    let expected = [
        "[",
        "{ \"name\":\"up\", \"type\":\"directory",
        "{ \"name\":\"broken\", \"type\":\"other",
        "{ \"name\":\"text\", \"type\":\"file",
        "]",
    ];
    assert_eq!(kinds, expected);
}
