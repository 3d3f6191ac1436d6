//! Through which links files are opened, and the cache of open files.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use testkit::{Config, Server};

fn serving(inside: &str) -> Server {
    let server = Server::start(
        Config::server(&format!("root %%DIR%%/html; {inside}"))
            .file("html/a.html", "text")
            .file("html/in/a.html", "inner")
            .file("html/in/index.html", "index"),
    );
    let html = server.path("html");
    symlink("a.html", html.join("link.html")).unwrap();
    symlink("in", html.join("way")).unwrap();
    foreign_link(&html.join("foreign.html"));
    server
}

/// A link that belongs to another user than the file it leads to.
fn foreign_link(path: &Path) {
    symlink("/etc/passwd", path).unwrap();
    // Where the test may not change owners it is not the owner of the file itself.
    let _ = lchown(path, Some(65534), None);
}

#[track_caller]
fn check(server: &Server, path: &str, status: u16) {
    assert_eq!(server.get(path).status, status, "{path}");
}

#[test]
fn links_are_followed_unless_forbidden() {
    let server = serving("");
    for path in ["/a.html", "/link.html", "/way/a.html", "/foreign.html", "/way/"] {
        check(&server, path, 200);
    }
    let server = serving("location / { disable_symlinks on from=%%DIR%%; }");
    check(&server, "/a.html", 200);
    check(&server, "/in/", 200);
    check(&server, "/link.html", 403);
    check(&server, "/foreign.html", 403);
    // A link in the place of a folder is not one.
    check(&server, "/way/a.html", 404);
    check(&server, "/way/", 404);
    server.wait_for_log("openat() \"");
    let server = serving("location / { disable_symlinks if_not_owner from=%%DIR%%; }");
    check(&server, "/a.html", 200);
    check(&server, "/link.html", 200);
    check(&server, "/way/a.html", 200);
    check(&server, "/foreign.html", 403);
}

#[test]
fn all_who_look_for_files_see_the_same() {
    let server = serving(
        "disable_symlinks on from=$document_root;
         location / { try_files $uri /a.html; }
         location = /if { if (-f $document_root/link.html) { return 200 link; } return 200 none; }",
    );
    assert_eq!(server.get("/link.html").expect(200).text(), "text");
    server.wait_for_log("openat() \"");
    assert_eq!(server.get("/if").expect(200).text(), "none");
}

#[test]
fn a_part_of_the_path_may_be_trusted() {
    let server = serving("location / { disable_symlinks on from=$document_root/way; }");
    check(&server, "/way/a.html", 200);
    let server = serving(
        "disable_symlinks on from=$document_root;
         location /exact/ { disable_symlinks on from=$request_filename; alias %%DIR%%/html/; }",
    );
    check(&server, "/link.html", 403);
    check(&server, "/exact/link.html", 200);
}

/// Puts another file in the place of `name`.
fn replace(server: &Server, name: &str, text: &str) {
    let fresh = server.path("html/fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, server.path("html").join(name)).unwrap();
}

#[test]
fn open_files_are_used_again() {
    let server = serving("open_file_cache max=10;");
    for text in ["text", "text"] {
        assert_eq!(server.get("/a.html").text(), text);
        replace(&server, "a.html", "other");
    }
    // Nor are removed files and folders looked for again.
    assert_eq!(server.get("/in/").text(), "index");
    fs::remove_dir_all(server.path("html/in")).unwrap();
    assert_eq!(server.get("/in/").text(), "index");
    // There is room for so many.
    let server = serving("open_file_cache max=1;");
    assert_eq!(server.get("/a.html").text(), "text");
    replace(&server, "a.html", "other");
    assert_eq!(server.get("/link.html").status, 200);
    assert_eq!(server.get("/a.html").text(), "other");
}

#[test]
fn what_is_known_is_believed_for_a_time() {
    let server = serving("open_file_cache max=10; open_file_cache_valid 0;");
    for text in ["text", "one", "two"] {
        replace(&server, "a.html", text);
        assert_eq!(server.get("/a.html").text(), text);
    }
    // The same file with other bytes: the length was looked up again as well.
    fs::write(server.path("html/a.html"), "longer").unwrap();
    assert_eq!(server.get("/a.html").text(), "longer");
}

#[test]
fn a_file_must_be_used_often_enough_to_stay_open() {
    let server = serving("open_file_cache max=10; open_file_cache_min_uses 3;");
    for (name, text) in [("one", "text"), ("two", "one"), ("three", "two"), ("four", "two")] {
        assert_eq!(server.get("/a.html").text(), text, "before {name}");
        replace(&server, "a.html", name);
    }
}

#[test]
fn errors_are_remembered_on_demand() {
    let server = serving("open_file_cache max=10; open_file_cache_errors on;");
    check(&server, "/new.html", 404);
    fs::write(server.path("html/new.html"), "new").unwrap();
    check(&server, "/new.html", 404);
    let server = serving("open_file_cache max=10;");
    check(&server, "/new.html", 404);
    fs::write(server.path("html/new.html"), "new").unwrap();
    check(&server, "/new.html", 200);
}

#[test]
fn levels_share_a_cache_unless_they_say_otherwise() {
    let server = serving(
        "open_file_cache max=10;
         location /off/ { alias %%DIR%%/html/; open_file_cache off; }
         location /own/ { alias %%DIR%%/html/; open_file_cache max=5; }
         location /same/ { alias %%DIR%%/html/; }",
    );
    assert_eq!(server.get("/a.html").text(), "text");
    replace(&server, "a.html", "other");
    assert_eq!(server.get("/same/a.html").text(), "text");
    assert_eq!(server.get("/own/a.html").text(), "other");
    assert_eq!(server.get("/off/a.html").text(), "other");
}

#[test]
fn forbidden_links_stay_forbidden_in_the_cache() {
    let server = serving(
        "open_file_cache max=10; open_file_cache_errors on;
         location /on/ { alias %%DIR%%/html/; disable_symlinks on from=$document_root; }",
    );
    for _ in 0..3 {
        check(&server, "/link.html", 200);
        check(&server, "/on/link.html", 403);
    }
}
