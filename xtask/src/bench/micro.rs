//! `cargo xtask bench micro`: instructions per operation, which hold on a noisy machine.
//!
//! valgrind(1) counts the instructions of a program that does something n times, and of the same
//! program that does it m times; the difference is what m - n operations take, and what starts and
//! ends the program is in neither. Parsers and algorithms are counted alone, in example programs
//! beside them. Everything that needs a configuration is counted in the whole program, a request
//! at a time over one connection: what a feature takes is the difference to the plain request.
//! Kernel time, cache misses and waiting are not in these figures; the other rows have them.

use super::stage::{Running, built, free_port};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A figure that moved by more than this share is marked.
const NOTABLE: f64 = 0.02;
/// How often the example programs do their work, in the first and in the second run.
const TIMES: [u32; 2] = [1000, 11_000];
/// How many requests the whole program gets in the first and in the second run.
const REQUESTS: [u32; 2] = [300, 1300];
const TABLE: &str = "bench/MICRO.md";

/// What is counted.
enum Work {
    /// An example program: package, name, and the words in front of the number.
    Example([&'static str; 2], &'static [&'static str]),
    /// A request to the whole program.
    Request(Request),
}

/// One way to configure a server, and what is asked of it.
#[derive(Default)]
struct Request {
    /// In front of the servers.
    http: &'static str,
    /// Inside the server that answers.
    server: &'static str,
    path: &'static str,
    /// How many other servers and locations there are.
    servers: u32,
    prefixes: u32,
    patterns: u32,
}

const HEADS: [&str; 2] = ["wire", "head_bench"];
const PICKS: [&str; 2] = ["balance", "count_picks"];
/// What answers in the plain request.
const OK: &str = "location / { return 200 ok; }";

/// A row: its name in the table and what it counts.
fn works() -> Vec<(String, Work)> {
    let mut works = Vec::new();
    let heads: [(&str, &'static [&'static str]); 4] = [
        ("head of a request", &["request"]),
        ("head of a request, framing, host and target", &["request-all"]),
        ("head of a response and framing", &["response"]),
        ("target of a request", &["target"]),
    ];
    for (name, words) in heads {
        works.push((name.to_string(), Work::Example(HEADS, words)));
    }
    let picks: [(&str, &'static [&'static str]); 12] = [
        ("pick: round robin, 3 peers", &["round_robin", "3"]),
        ("pick: round robin, 100 peers", &["round_robin", "100"]),
        ("pick: round robin, 10,000 peers", &["round_robin", "10000"]),
        ("pick: least_conn, 3 peers", &["least_conn", "3"]),
        ("pick: least_conn, 100 peers", &["least_conn", "100"]),
        ("pick: least_conn, 10,000 peers", &["least_conn", "10000"]),
        ("pick: hash, 3 peers", &["hash", "3"]),
        ("pick: hash, 100 peers", &["hash", "100"]),
        ("pick: hash, 10,000 peers", &["hash", "10000"]),
        ("pick: consistent hash, 3 peers", &["hash consistent", "3"]),
        ("pick: consistent hash, 100 peers", &["hash consistent", "100"]),
        ("pick: consistent hash, 10,000 peers", &["hash consistent", "10000"]),
    ];
    for (name, words) in picks {
        works.push((name.to_string(), Work::Example(PICKS, words)));
    }
    let plain = || Request { server: OK, path: "/", ..Request::default() };
    let requests = [
        ("plain", plain()),
        ("10 more locations", Request { prefixes: 10, ..plain() }),
        ("1,000 more locations", Request { prefixes: 1000, ..plain() }),
        ("10 regular expressions tried in vain", Request { patterns: 10, ..plain() }),
        ("10 more servers", Request { servers: 10, ..plain() }),
        ("1,000 more servers", Request { servers: 1000, ..plain() }),
        ("a line in the access log", Request { http: LOG, ..plain() }),
        ("a field with four variables", Request { server: FIELD, ..plain() }),
        ("passed on to a backend", Request { server: PROXY, ..plain() }),
    ];
    for (name, request) in requests {
        works.push((format!("request: {name}"), Work::Request(request)));
    }
    works
}

const LOG: &str = "access_log %DIR%/access.log combined buffer=64k;";
const FIELD: &str = "location / {
    add_header X-All \"$remote_addr $host $request_uri $http_user_agent\";
    return 200 ok;
}";
const PROXY: &str = "location / {
    proxy_pass http://backend;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
}";

/// Counts everything and compares it with the table in the repository; `--write` replaces that.
pub(crate) fn run(arguments: &[String]) -> Result<bool, String> {
    let write = match arguments {
        [] => false,
        [flag] if flag == "--write" => true,
        _ => return Err(format!("bench micro knows --write, not {arguments:?}")),
    };
    crate::peers::provide_programs("bench", &["valgrind"]);
    if !crate::peers::is_there("valgrind") {
        return Err("there is no valgrind, which counts instructions".to_string());
    }
    let path = crate::workspace::root().join(TABLE);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let counter = Counter::new()?;
    let mut figures = Vec::new();
    for (name, work) in works() {
        let figure = counter.count(&work).map_err(|error| format!("{name}: {error}"))?;
        println!("{}", line(&name, figure, known(&before, &name)));
        figures.push((name, figure));
    }
    if write {
        let mut text = HEADING.to_string();
        for (name, figure) in &figures {
            let _ = writeln!(text, "{}", line(name, *figure, known(&before, name)));
        }
        fs::write(&path, text).map_err(|error| format!("cannot write {TABLE}: {error}"))?;
    }
    Ok(true)
}

const HEADING: &str = "\
# Instructions per operation

Written by `cargo xtask bench micro --write`, which compares with the table that was here before;
what moved by more than 2 % is bold. Instructions in user mode, counted by valgrind: they hold on a
noisy machine, but say nothing of the kernel, of caches or of waiting. A request is one of a browser
to the whole program on epoll, answered with a constant unless the row says otherwise.

| operation | instructions | before | change |
|---|---|---|---|
";

fn line(name: &str, figure: f64, before: Option<f64>) -> String {
    let Some(before) = before else { return format!("| {name} | {figure:.0} | – | – |") };
    let change = figure / before - 1.0;
    let percent = format!("{:+.1} %", change * 100.0);
    match change.abs() > NOTABLE {
        true => format!("| {name} | {figure:.0} | {before:.0} | **{percent}** |"),
        false => format!("| {name} | {figure:.0} | {before:.0} | {percent} |"),
    }
}

/// The figure that a table has for a name.
fn known(table: &str, name: &str) -> Option<f64> {
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let (_, rest) = rows.find(|(other, _)| *other == name)?;
    rest.split(" | ").next()?.parse().ok()
}

/// The programs that are counted, and room for their files.
struct Counter {
    heng: PathBuf,
    peer: PathBuf,
    examples: Vec<([&'static str; 2], PathBuf)>,
    directory: PathBuf,
}

impl Counter {
    fn new() -> Result<Counter, String> {
        let mut examples = Vec::new();
        for [package, name] in [HEADS, PICKS] {
            examples.push(([package, name], built(package, &["--example", name], name)?));
        }
        let heng = match std::env::var_os("HENG_BENCH_HENG") {
            Some(program) => PathBuf::from(program),
            None => built("heng", &[], "heng")?,
        };
        let peer = built("bench-peer", &[], "bench-peer")?;
        let directory = crate::workspace::root().join("target/bench/micro");
        fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        Ok(Counter { heng, peer, examples, directory })
    }

    /// Instructions per operation.
    fn count(&self, work: &Work) -> Result<f64, String> {
        match work {
            Work::Example(example, words) => {
                let found = self.examples.iter().find(|(name, _)| name == example);
                let (_, program) = found.ok_or("an example that was not built")?;
                let of = |times: u32| {
                    let mut command = self.valgrind(program);
                    command.args(*words).arg(times.to_string());
                    let status = command.status().map_err(|error| error.to_string())?;
                    match status.success() {
                        true => self.collected(),
                        false => Err(self.said()),
                    }
                };
                per_operation(TIMES, of)
            }
            Work::Request(request) => {
                per_operation(REQUESTS, |times| self.count_requests(request, times))
            }
        }
    }

    fn count_requests(&self, request: &Request, times: u32) -> Result<u64, String> {
        let (port, backend) = (free_port()?, free_port()?);
        let path = self.directory.join("heng.conf");
        fs::write(&path, request.configuration(&self.directory, port, backend))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let mut peer = Command::new(&self.peer);
        peer.arg("serve").arg(format!("http=127.0.0.1:{backend}"));
        let backend = Running::start_ready(&mut peer)?;
        let mut command = self.valgrind(&self.heng);
        command.arg("-p").arg(&self.directory).arg("-c").arg(&path);
        let mut running = Running::start(&mut command)?;
        running.wait_for(port).map_err(|error| format!("{error}: {}", self.said()))?;
        let mut load = Command::new(&self.peer);
        load.arg("transfers").arg(format!("127.0.0.1:{port}")).arg("connections=1");
        load.arg(format!("bodies={times}")).arg(format!("path={}", request.path));
        let output = load.output().map_err(|error| format!("cannot run {load:?}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !text.starts_with(&format!("done={times} failed=0 ")) {
            return Err(format!("requests failed: {text}"));
        }
        // It tells what it counted when it ends.
        drop((running, backend));
        self.collected()
    }

    fn valgrind(&self, program: &Path) -> Command {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.arg(format!("--log-file={}", self.log().display())).arg(program);
        command.stdout(Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.directory.join("valgrind.log")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn collected(&self) -> Result<u64, String> {
        let said = self.said();
        collected(&said).ok_or_else(|| format!("valgrind counted nothing: {said}"))
    }
}

/// What the last of `==7== Collected : 123` says.
fn collected(log: &str) -> Option<u64> {
    let mut lines = log.lines().rev().filter_map(|line| line.split_once("Collected : "));
    lines.next()?.1.trim().parse().ok()
}

/// What one operation takes, from two counts.
fn per_operation(
    times: [u32; 2],
    count: impl Fn(u32) -> Result<u64, String>,
) -> Result<f64, String> {
    let [few, many] = [count(times[0])?, count(times[1])?];
    Ok(many.saturating_sub(few) as f64 / f64::from(times[1] - times[0]))
}

impl Request {
    /// One process without a master, which listens on `port`.
    fn configuration(&self, directory: &Path, port: u16, backend: u16) -> String {
        let directory = directory.to_string_lossy();
        let mut text = format!(
            "daemon off;\nmaster_process off;\npid {directory}/heng.pid;\n\
             error_log {directory}/error.log;\nevents {{ use epoll; worker_connections 64; }}\n\
             http {{\n    client_body_temp_path {directory}/body;\n    \
             proxy_temp_path {directory}/proxy;\n    keepalive_requests 1000000;\n"
        );
        let http = if self.http.is_empty() { "access_log off;" } else { self.http };
        let _ = writeln!(text, "    {}", http.replace("%DIR%", &directory));
        let _ =
            writeln!(text, "    upstream backend {{ server 127.0.0.1:{backend}; keepalive 8; }}");
        for number in 0..self.servers {
            let _ = writeln!(
                text,
                "    server {{ listen 127.0.0.1:{port}; server_name n{number}.example; \
                 return 404; }}"
            );
        }
        let _ =
            writeln!(text, "    server {{\n    listen 127.0.0.1:{port};\n    server_name bench;");
        for number in 0..self.prefixes {
            let _ = writeln!(text, "    location /part{number}/ {{ return 404; }}");
        }
        for number in 0..self.patterns {
            let _ = writeln!(text, "    location ~ \\.ending{number}$ {{ return 404; }}");
        }
        let _ = writeln!(text, "    {}\n    }}\n}}", self.server);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_compared_with_the_table_before() {
        let table = format!("{HEADING}{}\n", line("target of a request", 1000.0, None));
        assert_eq!(known(&table, "target of a request"), Some(1000.0));
        assert_eq!(known(&table, "operation"), None);
        let same = line("target of a request", 1019.0, known(&table, "target of a request"));
        assert_eq!(same, "| target of a request | 1019 | 1000 | +1.9 % |");
        let less = line("target of a request", 970.0, Some(1000.0));
        assert_eq!(less, "| target of a request | 970 | 1000 | **-3.0 %** |");
        assert_eq!(known(&format!("{table}{same}\n"), "target of a request"), Some(1000.0));
    }

    #[test]
    fn what_valgrind_says_is_read() {
        let log = "==7== Events    : Ir\n==7== Collected : 2412345\n==7== \n";
        assert_eq!(collected(log), Some(2_412_345));
        assert_eq!(collected("==7== Events : Ir\n"), None);
        let count = |times: u32| Ok(5000 + 7 * u64::from(times));
        assert_eq!(per_operation([10, 110], count), Ok(7.0));
    }

    #[test]
    fn names_of_operations_are_their_own() {
        let mut names: Vec<String> = works().into_iter().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
