//! The rows that this crate is held to are what a real nginx says.
//!
//! Needs: nginx.

mod toy;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use toy::{lines, rows};

const NGINX: &str = "/usr/sbin/nginx";

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("config-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn nginx(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(NGINX)
            .arg("-p")
            .arg(&self.0)
            .args(["-c", "nginx.conf", "-e", "error.log"])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What nginx says first.
    fn first_line(&self, arguments: &[&str]) -> String {
        let output = self.nginx(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = text.replace(self.0.to_str().unwrap(), "DIR");
        let Some(text) = text.strip_prefix("nginx: [") else { return String::new() };
        // A message may itself hold newlines.
        let end = text.find("\nnginx: ").unwrap_or(text.len());
        format!("[{}", &text[..end])
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a line is about something that the toy vocabulary does not know: nginx's modules say
/// it while or after the language is content.
fn is_foreign(line: &str) -> bool {
    const PARTS: &[&str] = &[
        "\"proxy_busy_buffers_size\" must be",
        "mkdir()",
        "invalid parameter",
        "duplicate extension",
        "exceed open file",
    ];
    // A mutation may hit upon a directive that only nginx has.
    let registry = toy::registry();
    let is_known = |name: &str| name == "include" || !registry.named(name.as_bytes()).is_empty();
    let names_known = line.split('"').skip(1).step_by(2).any(is_known);
    let about_name = line.contains("directive \"") || line.contains("\" directive");
    let about_name = about_name && !line.contains("unknown directive");
    let beyond = about_name && !names_known;
    // What has no place was found after parsing.
    let later =
        !line.is_empty() && !line.contains(" in DIR/") && !line.ends_with(" in command line");
    beyond || later || PARTS.iter().any(|part| line.contains(part))
}

fn first_line(text: &[u8], arguments: &[&str]) -> String {
    let directory = Directory::new();
    directory.write("nginx.conf", text);
    directory.first_line(&[&["-t"], arguments].concat())
}

/// As `first_line`, empty when the language is content.
fn first_of_language(text: &[u8], arguments: &[&str]) -> String {
    let line = first_line(text, arguments);
    if is_foreign(&line) { String::new() } else { line }
}

#[test]
fn the_rows_are_what_nginx_says() {
    for (text, expected) in rows::ROWS {
        assert_eq!(first_of_language(text.as_bytes(), &[]), *expected, "about {text:?}");
    }
    for (globals, text, expected) in rows::GLOBALS {
        assert_eq!(
            first_of_language(text.as_bytes(), &["-g", globals]),
            *expected,
            "-g {globals:?}"
        );
    }
}

#[test]
fn the_values_are_what_nginx_takes() {
    for (name, value, taken) in rows::VALUES {
        let text = format!("http {{ {name} {value}; }}");
        assert_eq!(first_of_language(text.as_bytes(), &[]).is_empty(), *taken, "{name} {value}");
    }
}

#[test]
fn the_buffer_of_nginx_is_as_long_as_said() {
    for (head, length, tail, expected) in rows::LONG {
        let text = format!("{head}{}{tail}", "x".repeat(*length));
        assert_eq!(first_of_language(text.as_bytes(), &[]), *expected, "{head}{length}{tail}");
    }
}

/// Mutated configurations: both say the same first, as far as the toy vocabulary reaches.
#[test]
fn mutated_configurations_meet_the_same_first_line() {
    let count = std::env::var("MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut random = Random(seed);
    for round in 0..count {
        let text = mutated(&mut random);
        let theirs = first_line(&text, &[]);
        let ours = lines(&text, &[], &[]).into_iter().next().unwrap_or_default();
        let ours = ours.replace("/etc/x/", "DIR/");
        if is_foreign(&theirs) {
            continue;
        }
        let shown = String::from_utf8_lossy(&text);
        assert_eq!(ours, theirs, "seed {seed}, round {round}, about:\n{shown}\n");
    }
}

const SEEDS: &[&str] = &[
    "worker_processes 1;\npid 'a b';\nevents {\n    worker_connections 10; # ten\n}\n",
    "events {}\nhttp {\n  tcp_nodelay on;\n  types { text/html html htm; a/b \"c\"; }\n\
     server {\n root \"/a b\";\n client_header_timeout '1d 2h';\n}\n}\n",
    "events { }\nhttp { proxy_next_upstream error timeout; gzip_comp_level 3;\n\
     client_body_buffer_size 8k; proxy_buffers 4 8k; if_modified_since exact;\n\
     server { keepalive_requests 5; add_header A \"b c\" always; } }\n",
];

fn mutated(random: &mut Random) -> Vec<u8> {
    const PIECES: &[&str] = &[
        ";", "{", "}", "\"", "'", "\\", "$", "#", "\n", " ", ")", "(", "${", "x", "\r\n", "\t",
        "0", "\\\"", "\"a\"", "foo ", "events ", "server {", "k", "''",
    ];
    let mut text = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(text.len());
        let piece = PIECES[random.below(PIECES.len())].bytes();
        match random.below(3) {
            0 => drop(text.remove(at)),
            1 => drop(text.splice(at..at, piece)),
            _ => drop(text.splice(at..=at, piece)),
        }
    }
    text
}

/// A small generator (xorshift), so that a seed says everything.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((value ^ (value >> 31)) % limit as u64) as usize
    }
}

#[test]
fn a_dump_is_the_same_byte_for_byte() {
    let directory = Directory::new();
    directory.write("nginx.conf", b"events {}\ninclude sub/*.conf;\ninclude ./one.conf;\n");
    directory.write("sub/b.conf", b"# b, without newline at the end");
    directory.write("sub/a.conf", b"include one.conf;\n\xff\n".as_slice().split_at(18).0);
    directory.write("sub/.hidden.conf", b"foo;");
    directory.write("one.conf", b"# one\r\n");
    let theirs = directory.nginx(&["-T", "-q"]).stdout;
    let (tree, found) = config::load(
        &config::DiskFiles,
        Path::new("nginx.conf"),
        &directory.0,
        &[],
        &toy::registry(),
    );
    assert_eq!(found, []);
    let ours = config::dump(&tree);
    assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
}
