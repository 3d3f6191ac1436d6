//! Access logs that are compressed, and those that stay open although their paths have variables.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use testkit::{Config, Server, Signal};

/// What `gzip -d` makes of a file.
fn unpacked(bytes: &[u8]) -> String {
    let gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut gzip = gzip.expect("gzip runs");
    gzip.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(gzip.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn lines_are_compressed() {
    let mut server = Server::start(Config::http(
        "log_format short $uri; access_log %%DIR%%/logs/packed.gz short gzip flush=1h;
         server { listen 127.0.0.1:%%PORT_0%%; location / { return 204; } }",
    ));
    let mut expected = String::new();
    for at in 0..300 {
        server.get(&format!("/request/{at}"));
        expected.push_str(&format!("/request/{at}\n"));
        if at == 200 {
            // Members follow one another.
            server.signal(Signal::USR1);
            server.wait_until("the log is written", || {
                fs::metadata(server.path("logs/packed.gz")).unwrap().len() > 0
            });
        }
    }
    server.quit();
    let bytes = fs::read(server.path("logs/packed.gz")).unwrap();
    assert!(bytes.len() * 3 < expected.len(), "{} of {}", bytes.len(), expected.len());
    assert_eq!(unpacked(&bytes), expected);
}

fn with_names(inside: &str) -> Server {
    Server::start(
        Config::http(&format!(
            "log_format short $uri; {inside}
             server {{ listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/html;
                 access_log %%DIR%%/logs/$arg_to.log short; location / {{ return 204; }} }}"
        ))
        .file("html/a", ""),
    )
}

#[test]
fn logs_named_by_variables_stay_open() {
    for (inside, stays) in [("", false), ("open_log_file_cache max=10;", true)] {
        let server = with_names(inside);
        server.get("/one?to=x");
        server.wait_for_line("logs/x.log", "/one");
        fs::rename(server.path("logs/x.log"), server.path("logs/old.log")).unwrap();
        server.get("/two?to=x");
        server.wait_for_line(if stays { "logs/old.log" } else { "logs/x.log" }, "/two");
    }
    // It is looked whether the path still leads to the file.
    let server = with_names("open_log_file_cache max=10 valid=0;");
    server.get("/one?to=x");
    server.wait_for_line("logs/x.log", "/one");
    fs::rename(server.path("logs/x.log"), server.path("logs/old.log")).unwrap();
    server.get("/two?to=x");
    server.wait_for_line("logs/x.log", "/two");
}

#[test]
fn links_to_logs_are_forbidden_too() {
    let server = with_names("disable_symlinks on from=%%DIR%%;");
    std::os::unix::fs::symlink("real.log", server.path("logs/link.log")).unwrap();
    server.get("/one?to=link");
    server.wait_for_log("openat() \"");
    server.get("/two?to=plain");
    server.wait_for_line("logs/plain.log", "/two");
    assert!(!server.path("logs/real.log").exists());
}

#[test]
fn faults_are_named() {
    let check = |line: &str, expected: &str| {
        let outcome = Server::check(Config::http(line));
        assert!(outcome.stderr.contains(expected), "{line}: {}", outcome.stderr);
    };
    check(
        "open_log_file_cache max=1 uses=2;",
        "invalid \"open_log_file_cache\" parameter \"uses=2\"",
    );
    check("access_log a combined gzip=11;", "invalid compression level \"11\"");
    check(
        "access_log a combined gzip; server { listen 127.0.0.1:%%PORT_0%%;
             access_log a combined gzip=2; }",
        "access_log \"a\" already defined with conflicting parameters",
    );
}
