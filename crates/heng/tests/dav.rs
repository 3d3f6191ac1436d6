//! Files that clients store, delete, copy and move.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use testkit::{Config, Response, Server};

fn serving(inside: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; absolute_redirect off; {inside}"))
            .file("html/a", "text")
            .file("html/folder/b", "inner")
            .file("html/folder/in/c", "deep"),
    )
}

const ALL: &str = "dav_methods PUT DELETE MKCOL COPY MOVE;";

fn ask(server: &Server, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Response {
    let length = body.len().to_string();
    let mut all = vec![("Host", "a"), ("Content-Length", &*length)];
    all.extend_from_slice(fields);
    server.connect().request(method, path, &all, body.as_bytes())
}

#[track_caller]
fn check(server: &Server, method: &str, path: &str, fields: &[(&str, &str)], status: u16) {
    assert_eq!(ask(server, method, path, fields, "").status, status, "{method} {path} {fields:?}");
}

#[test]
fn files_are_stored_and_replaced() {
    let server = serving(ALL);
    let response = ask(&server, "PUT", "/new%20file", &[], "0123456789").expect(201);
    assert_eq!(response.header("Location"), Some("/new%20file"));
    assert_eq!(response.header("Content-Length"), Some("0"));
    assert_eq!(server.read("html/new file"), "0123456789");
    ask(&server, "PUT", "/new%20file", &[], "other").expect(204);
    assert_eq!(server.read("html/new file"), "other");
    ask(&server, "PUT", "/new%20file", &[], "").expect(204);
    assert_eq!(server.read("html/new file"), "");
    let long = "long text. ".repeat(30_000);
    ask(&server, "PUT", "/long", &[], &long).expect(201);
    assert_eq!(server.read("html/long"), long);
    let date = [("Date", "Thu, 01 Jan 2026 00:00:00 GMT")];
    ask(&server, "PUT", "/dated", &date, "x").expect(201);
    let changed = fs::metadata(server.path("html/dated")).unwrap().modified().unwrap();
    let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 1_767_225_600);
    check(&server, "PUT", "/folder", &[], 409);
    check(&server, "PUT", "/folder/", &[], 409);
    check(&server, "PUT", "/x", &[("Content-Range", "bytes 0-1/5")], 501);
    // What was taken in leaves nothing behind.
    check(&server, "PUT", "/none/file", &[], 500);
    let left = fs::read_dir(server.path("client_body_temp")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    server.wait_for_log("rename() \"");
}

#[test]
fn methods_are_refused_unless_they_are_named() {
    let server = serving("location / { } location /put/ { dav_methods put; }");
    for method in ["PUT", "DELETE", "MKCOL", "COPY", "MOVE"] {
        check(&server, method, "/a", &[], 405);
    }
    check(&server, "DELETE", "/put/a", &[], 405);
    assert_eq!(server.read("html/a"), "text");
}

#[test]
fn permissions_and_missing_folders_are_as_told() {
    let server = serving(&format!(
        "{ALL} location / {{ dav_access user:rw group:r all:r; }}
         location /full/ {{ create_full_put_path on; dav_access group:rw; }}"
    ));
    let mode = |path: &str| {
        fs::metadata(server.path(&format!("html/{path}"))).unwrap().permissions().mode() & 0o777
    };
    ask(&server, "PUT", "/x", &[], "x").expect(201);
    assert_eq!(mode("x"), 0o644);
    let response = ask(&server, "PUT", "/full/1/2/x", &[], "x").expect(201);
    assert_eq!(response.header("Location"), Some("/full/1/2/x"));
    assert_eq!(mode("full/1/2/x"), 0o660);
    assert_eq!(mode("full/1") & 0o700, 0o700);
    let plain = serving(ALL);
    ask(&plain, "PUT", "/x", &[], "x").expect(201);
    let found = fs::metadata(plain.path("html/x")).unwrap().permissions().mode() & 0o777;
    assert_eq!(found, 0o600);
}

#[test]
fn files_and_folders_are_deleted() {
    let server = serving(ALL);
    check(&server, "DELETE", "/a", &[], 204);
    check(&server, "DELETE", "/a", &[], 404);
    check(&server, "DELETE", "/folder", &[], 409);
    check(&server, "DELETE", "/folder/", &[("Depth", "0")], 400);
    check(&server, "DELETE", "/folder/b", &[("Depth", "1")], 400);
    check(&server, "DELETE", "/folder/b", &[("Depth", "all")], 400);
    server.wait_for_log("client sent invalid \"Depth\" header: \"all\"");
    assert_eq!(ask(&server, "DELETE", "/folder/", &[], "body").status, 415);
    std::os::unix::fs::symlink("/etc", server.path("html/folder/link")).unwrap();
    check(&server, "DELETE", "/folder/", &[("Depth", "infinity")], 204);
    assert!(!server.path("html/folder").exists() && fs::metadata("/etc").unwrap().is_dir());
    let server = serving(&format!("{ALL} min_delete_depth 2;"));
    check(&server, "DELETE", "/folder/", &[], 409);
    check(&server, "DELETE", "/folder/b", &[], 204);
    server.wait_for_log("insufficient URI depth:1 to DELETE");
}

#[test]
fn folders_are_made() {
    let server = serving(ALL);
    let response = ask(&server, "MKCOL", "/new/", &[], "").expect(201);
    assert_eq!(response.header("Location"), Some("/new/"));
    assert!(server.path("html/new").is_dir());
    check(&server, "MKCOL", "/new/", &[], 405);
    check(&server, "MKCOL", "/other", &[], 409);
    check(&server, "MKCOL", "/none/new/", &[], 409);
    assert_eq!(ask(&server, "MKCOL", "/more/", &[], "body").status, 415);
}

#[test]
fn files_and_folders_are_copied_and_moved() {
    let server = serving(ALL);
    let to = |place: &'static str| [("Destination", place)];
    check(&server, "COPY", "/a", &to("/copy%20of%20a"), 204);
    assert_eq!(server.read("html/copy of a"), "text");
    check(&server, "MOVE", "/a", &to("http://a/moved"), 204);
    assert!(!server.path("html/a").exists());
    assert_eq!(server.read("html/moved"), "text");
    check(&server, "COPY", "/folder/", &to("/twin/"), 201);
    assert_eq!(server.read("html/twin/in/c"), "deep");
    check(&server, "COPY", "/folder/", &to("/twin/"), 201);
    check(&server, "MOVE", "/folder/", &to("/gone/"), 201);
    assert_eq!(server.read("html/gone/b"), "inner");
    assert!(!server.path("html/folder").exists());
    check(&server, "MOVE", "/none", &to("/x"), 404);
}

#[test]
fn destinations_are_judged() {
    let server = serving(&format!(
        "{ALL} location /i/ {{ alias %%DIR%%/html/; }}
         location /j {{ alias %%DIR%%/html/; }}"
    ));
    check(&server, "COPY", "/a", &[], 400);
    for place in ["", "x", "ftp://a/x", "http://b/x", "http://a", "/../x", "/%2e%2e/x", "/x/.."] {
        check(&server, "COPY", "/a", &[("Destination", place)], 400);
    }
    let x = ("Destination", "/folder/b");
    check(&server, "COPY", "/a", &[x, ("Overwrite", "F")], 412);
    check(&server, "COPY", "/a", &[x, ("Overwrite", "yes")], 400);
    check(&server, "COPY", "/a", &[x, ("Depth", "1")], 400);
    check(&server, "MOVE", "/a", &[x, ("Depth", "0")], 400);
    check(&server, "COPY", "/a", &[x, ("Depth", "0"), ("Overwrite", "t")], 204);
    check(&server, "COPY", "/a", &[("Destination", "/folder/")], 409);
    check(&server, "COPY", "/a", &[("Destination", "/folder")], 409);
    check(&server, "COPY", "/a", &[("Destination", "/a")], 403);
    check(&server, "COPY", "/folder/", &[("Destination", "/folder/in/x/")], 403);
    check(&server, "MOVE", "/folder/in/", &[("Destination", "/folder/")], 403);
    check(&server, "COPY", "/i/a", &[("Destination", "/i/copied")], 204);
    assert_eq!(server.read("html/copied"), "text");
    // What does not begin with the location's name has no place below its alias.
    check(&server, "COPY", "/i/a", &[("Destination", "/abcd/x")], 400);
    check(&server, "PUT", "/j../x", &[], 404);
    assert!(!server.path("x").exists());
}
