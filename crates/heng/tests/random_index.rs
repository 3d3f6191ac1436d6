//! Files of a folder by chance.

use std::collections::BTreeSet;
use testkit::{Config, Server};

fn files(inside: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; {inside}"))
            .file("html/many/a", "a")
            .file("html/many/b", "b")
            .file("html/many/.hidden", "hidden")
            .file("html/many/folder/c", "c")
            .file("html/none/folder/index.html", "inner")
            .file("html/index/index.html", "index"),
    )
}

#[test]
fn any_file_may_answer() {
    let server = files("location / { random_index on; } location /index/ { random_index off; }");
    let mut client = server.connect();
    // All the same for two hundred draws of two: once in 2^199 runs.
    let seen: BTreeSet<String> =
        (0..200).map(|_| client.get("/many/").expect(200).text()).collect();
    assert_eq!(seen, BTreeSet::from(["a".to_string(), "b".to_string()]));
    assert_eq!(client.get("/none/").status, 403, "folders are no files");
    assert_eq!(client.get("/missing/").status, 404);
    server.wait_for_log("/html/missing\" failed (2: No such file or directory)");
    assert_eq!(client.get("/index/").expect(200).text(), "index");
}

#[test]
fn it_comes_before_index() {
    let server = files("location /many/ { random_index on; index /index/index.html; }");
    let body = server.get("/many/").expect(200).text();
    assert!(["a", "b"].contains(&body.as_str()), "{body}");
}
