//! The configurations in `examples/`: each passes `-t` as it stands, runs, and does what its
//! comments say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use testkit::{Answer, Backend, Config, Response, Server};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn text_of(name: &str) -> String {
    let path = examples().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A copy of the example and of everything beside it, as the test's own prefix.
fn copy(text: &str) -> Config {
    let mut config = Config::new(text).file("run/.gitignore", "");
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(examples().join(&folder)).expect("a readable folder");
        for entry in entries {
            let entry = entry.expect("a readable folder");
            let path = folder.join(entry.file_name());
            let name = path.to_str().expect("a name in UTF-8");
            if name == "run" || name.ends_with(".conf") {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(path);
            } else {
                config = config.file(name, std::fs::read(entry.path()).expect("a readable file"));
            }
        }
    }
    config
}

/// Starts an example at ports of the test's own: `%%PORT_0%%` in place of 8080, `%%PORT_N%%` or
/// else `backends` in place of 8100 + N.
fn start(name: &str, backends: &[&Backend]) -> Server {
    let mut text = text_of(name).replace("127.0.0.1:8080", "127.0.0.1:%%PORT_0%%");
    for n in 1..10 {
        let port = match backends.get(n - 1) {
            Some(backend) => backend.port().to_string(),
            None => format!("%%PORT_{n}%%"),
        };
        text = text.replace(&format!("127.0.0.1:810{n}"), &format!("127.0.0.1:{port}"));
    }
    Server::start(copy(&text))
}

/// What the front answers to `GET path` with one more field.
fn ask(server: &Server, path: &str, name: &str, value: &str) -> Response {
    let host = if name == "Host" { value } else { "127.0.0.1" };
    let fields = [("Host", host), (name, value)];
    let fields = if name == "Host" { &fields[..1] } else { &fields };
    server.connect().request("GET", path, fields, b"")
}

#[test]
fn all_pass_the_check_as_they_stand() {
    let names = std::fs::read_dir(examples()).expect("the examples").filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.ends_with(".conf").then_some(name)
    });
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    let expected = [
        "balancing.conf",
        "databases.conf",
        "programs.conf",
        "reverse-proxy.conf",
        "sign-in.conf",
        "static-site.conf",
        "tuning.conf",
        "virtual-servers.conf",
        "websocket.conf",
    ];
    assert_eq!(names, expected, "each example has a test here");
    let contents = text_of("README.md");
    for name in &names {
        assert!(contents.contains(&format!("[{name}]({name})")), "README.md leaves out {name}");
        let outcome = Server::check(copy(&text_of(name))).expect(0);
        assert!(!outcome.stderr.contains("[warn]"), "{name}: {outcome}");
    }
}

#[test]
fn reverse_proxy() {
    let server = start("reverse-proxy.conf", &[]);
    let mut answers = BTreeMap::new();
    for _ in 0..8 {
        *answers.entry(server.get("/").expect(200).text()).or_insert(0) += 1;
    }
    let expected = [("large", 5), ("medium", 2), ("small", 1)]
        .map(|(name, count)| (format!("{name}: / for 127.0.0.1\n"), count));
    assert_eq!(answers, expected.into());
    assert!(server.get("/api/users").expect(200).text().contains(": /v1/users for "));
    assert_eq!(server.get("/frail").expect(200).text(), "large: /frail for 127.0.0.1\n");
    let line = server.wait_for_line("run/access.log", "/frail");
    assert!(line.contains(" with 503, 200 in "), "{line}");
}

#[test]
fn programs() {
    let program = Backend::script(|conversation| {
        let Ok(request) = conversation.read_some() else { return };
        let text = String::from_utf8_lossy(&request).into_owned();
        let is_told = |what: &str| text.contains(what);
        assert!(is_told("site/hello.php") && is_told("REQUEST_METHOD"), "{text}");
        let body = match is_told("PATH_INFO/more") {
            true => "Content-Type: text/html\n\nmore",
            false => "Content-Type: text/html\n\nof a program",
        };
        // A record of the answer, its end, and the end of the request.
        let mut answer = vec![1, 6, 0, 1, 0, body.len() as u8, 0, 0];
        answer.extend_from_slice(body.as_bytes());
        answer.extend_from_slice(&[1, 6, 0, 1, 0, 0, 0, 0, 1, 3, 0, 1, 0, 8, 0, 0]);
        answer.extend_from_slice(&[0; 8]);
        conversation.send(answer);
    });
    let server = start("programs.conf", &[&program]);
    assert_eq!(server.get("/hello.php/more?a=b").expect(200).text(), "more");
    let page = server.get("/parts.html").expect(200).text();
    assert!(page.contains("asked for /parts.html.") && page.contains("of a program"), "{page}");
    assert!(!page.contains("not there") && !page.contains("<!--#"), "{page}");
    drop(program);
    server.get("/hello.php").expect(502);
    assert!(server.get("/parts.html").expect(200).text().contains("The program is not there."));
}

#[test]
fn static_site() {
    let server = start("static-site.conf", &[]);
    let page = server.get("/").expect(200);
    assert_eq!(page.header("Content-Type"), Some("text/html"));
    assert_eq!(page.header("Cache-Control"), Some("max-age=0"));
    assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(page.header("Server"), Some("heng"));
    let etag = page.header("ETag").expect("files have an ETag");
    ask(&server, "/", "If-None-Match", etag).expect(304);
    let style = server.get("/style.css").expect(200);
    assert_eq!(style.header("Cache-Control"), Some("max-age=604800"));
    assert_eq!(
        ask(&server, "/files/notes.txt", "Range", "bytes=31-34").expect(206).text(),
        "one\n"
    );
    let notes = server.get("/files/notes.txt").expect(200);
    assert_eq!(notes.header("Content-Type"), Some("application/octet-stream"));
    assert!(server.get("/missing").expect(404).text().contains("Not here"));
    assert!(server.get("/not-found.html").expect(404).text().contains("Not here"));
    assert_eq!(server.get("/examples.txt").expect(200).text(), text_of("README.md"));
}

#[test]
fn virtual_servers() {
    let server = start("virtual-servers.conf", &[]);
    for (host, path, expected) in [
        ("shop.test", "/cart", "the cart\n"),
        ("shop.test", "/carts", "a page of the shop: /carts\n"),
        ("shop.test", "/pictures/x", "a picture: /pictures/x\n"),
        ("shop.test", "/pictures/small/x", "a small picture: /pictures/small/x\n"),
        ("shop.test", "/list.PDF", "a document: /list.PDF\n"),
        ("shop.test", "/product/17", "product number 17\n"),
        ("alice.users.test", "/", "the home page of alice\n"),
        ("docs.test", "/", "documents of docs.test\n"),
        ("old.docs.test", "/", "documents of old.docs.test\n"),
    ] {
        assert_eq!(ask(&server, path, "Host", host).expect(200).text(), expected, "{host}{path}");
    }
    let gone = ask(&server, "/internal/list.pdf", "Host", "shop.test").expect(410);
    assert_eq!(gone.text(), "/internal/list.pdf is no longer sold\n");
    let moved = ask(&server, "/cart?x", "Host", "www.shop.test").expect(301);
    assert_eq!(moved.header("Location"), Some("http://shop.test/cart?x"));
    assert_eq!(server.exchange("GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n"), "");
}

#[test]
fn websocket() {
    let backend = Backend::with(|request| match request.header("Upgrade") {
        Some("websocket") => Answer::upgrade("websocket"),
        _ => Answer::text("no upgrade was asked for").with_status(400, "Bad Request"),
    });
    let server = start("websocket.conf", &[&backend]);
    assert!(server.get("/").expect(200).text().contains("new WebSocket"));
    let mut client = server.connect();
    client.send(
        "GET /chat/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.read_head().status, 101);
    for message in ["one", "another"] {
        client.send(message);
        assert_eq!(client.read_exactly(message.len()), message.as_bytes());
    }
}

#[test]
fn sign_in() {
    let server = start("sign-in.conf", &[]);
    let refused = server.get("/private/").expect(401);
    assert!(refused.text().contains("Please sign in"));
    ask(&server, "/private/", "Cookie", "session=bob").expect(401);
    let welcome = ask(&server, "/private/", "Cookie", "session=alice").expect(200);
    assert_eq!(welcome.text(), "welcome, alice\n");
    ask(&server, "/check", "Cookie", "session=alice").expect(404);
    let page = server.get("/").expect(200).text();
    assert_eq!(page, "<title>[beta] Shop</title><a href=\"/cart\">cart</a>\n");
}

#[test]
fn tuning() {
    let server = start("tuning.conf", &[]);
    let ports: Vec<u16> = (0..4)
        .map(|_| {
            let text = server.get("/").expect(200).text();
            let rest = text.strip_prefix("port ").expect("a stand-in's answer");
            rest.split(',').next().expect("a port").parse().expect("a port")
        })
        .collect();
    assert_eq!(ports, [1, 2, 1, 2].map(|n| server.port(n)));
    assert!(!server.workers().is_empty());
    server.reload();
    server.get("/").expect(200);
    server.wait_for_line("run/access.log", "\"GET / HTTP/1.1\" 200");
}

#[test]
fn balancing() {
    let server = start("balancing.conf", &[]);
    let first = server.get("/");
    let cookie = first.header("Set-Cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("server_id=") && cookie.contains("httponly"), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair");
    for _ in 0..4 {
        assert_eq!(ask(&server, "/", "Cookie", pair).text(), first.text());
    }
    let image = |n: usize| server.get(&format!("/image/{n}")).text()[..3].to_owned();
    let owners: Vec<String> = (0..20).map(image).collect();
    assert_eq!(owners, (0..20).map(image).collect::<Vec<_>>(), "each has its server");
    assert!(owners.iter().any(|owner| *owner != owners[0]), "both have some");
    server.wait_until("one that is well", || server.get("/checked").status == 200);
    for _ in 0..4 {
        assert_eq!(server.get("/checked").text(), "two: /checked\n");
    }
    assert!(server.get("/status").text().starts_with("Active connections: "));
}

#[test]
fn databases() {
    let text = text_of("databases.conf");
    let text = text.replace("127.0.0.1:8080", "127.0.0.1:%%PORT_0%%");
    let text = text.replace("127.0.0.1:8090", "127.0.0.1:%%PORT_3%%");
    let text = text.replace("127.0.0.1:8101", "127.0.0.1:%%PORT_1%%");
    let text = text.replace("127.0.0.1:8102", "127.0.0.1:%%PORT_2%%");
    let server = Server::start(copy(&text));
    let who = |n: usize| {
        let said = server.connect_to(n).read_to_end();
        String::from_utf8_lossy(&said).into_owned()
    };
    assert_eq!((who(0), who(0)), ("first\n".to_owned(), "first\n".to_owned()));
    let mut both = [who(3), who(3)];
    both.sort();
    assert_eq!(both, ["first\n", "second\n"]);
    server.wait_for_line("run/sessions.log", ": 200 in ");
}
