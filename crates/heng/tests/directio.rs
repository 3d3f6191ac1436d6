//! Files that are read past the kernel's cache.

use std::fs;
use testkit::{Config, Server};

const LENGTH: usize = 3_000_001;

fn text() -> Vec<u8> {
    (0..LENGTH).map(|at| (at / 7 % 251) as u8).collect()
}

fn serving(inside: &str) -> Server {
    Server::start(
        Config::server(&format!("root %%DIR%%/html; {inside}"))
            .file("html/large", text())
            .file("html/small", "small"),
    )
}

/// Whether the worker has a file open with O_DIRECT.
fn reads_directly(server: &Server) -> bool {
    let folder = format!("/proc/{}/fdinfo", server.workers()[0]);
    fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let about = fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        flags.is_some_and(|flags| flags & 0o40000 != 0)
    })
}

#[test]
fn large_files_are_read_past_the_cache() {
    let server = serving("directio 1m; sendfile on;");
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.read_head().expect(200);
    server.wait_until("the file is open", || reads_directly(&server));
    assert!(client.read_to_end() == text());
    server.wait_until("the file is closed", || !reads_directly(&server));
    assert_eq!(server.get("/small").text(), "small");
}

#[test]
fn parts_need_not_be_aligned() {
    let server = serving("directio 4k; directio_alignment 512; open_file_cache max=10;");
    let whole = text();
    for (from, to) in [(0, 0), (1, 5000), (4095, 4096), (8192, 12287), (100_001, 900_000)] {
        let fields = [("Host", "a"), ("Range", &*format!("bytes={from}-{to}"))];
        let response = server.connect().request("GET", "/large", &fields, b"").expect(206);
        assert!(response.body == whole[from..=to], "{from}-{to}");
    }
    let tail = [("Host", "a"), ("Range", "bytes=-10")];
    let response = server.connect().request("GET", "/large", &tail, b"").expect(206);
    assert!(response.body == whole[LENGTH - 10..]);
    // Several parts are read as ever.
    let fields = [("Host", "a"), ("Range", "bytes=0-1,5-6")];
    server.connect().request("GET", "/large", &fields, b"").expect(206);
    assert!(server.get("/large").body == whole);
}

#[test]
fn pools_are_checked() {
    let check = |main: &str, inside: &str, expected: &str| {
        let outcome = Server::check(Config::server(inside).main(main));
        assert!(outcome.stderr.contains(expected), "{main} {inside}: {}", outcome.stderr);
    };
    check("", "aio threads; aio_write on;", "test is successful");
    check("thread_pool a threads=2;", "aio threads=a;", "test is successful");
    check("thread_pool a threads=2;", "aio threads=b;", "unknown thread pool \"b\"");
    check("thread_pool a threads=2; thread_pool a threads=2;", "", "duplicate thread pool \"a\"");
    check("", "aio maybe;", "invalid value");
}
