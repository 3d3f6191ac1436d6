//! Loads: wrk, h2load and those of `bench-peer`, how they are called and what they print.

use super::stage::{Cores, Proxy, Stage};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a browser sends, so that heads have a usual size.
const BROWSER: &[&str] = &[
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
     Chrome/130.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br",
    "Accept-Language: en-US,en;q=0.9",
    "Cookie: session=0123456789abcdef; theme=dark",
];

/// Who asks, what, where, and over how many connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) tool: Tool,
    pub(super) port: Port,
    pub(super) connections: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tool {
    Wrk {
        scheme: &'static str,
        path: &'static str,
        reuse: Reuse,
    },
    H2load {
        scheme: &'static str,
        path: &'static str,
        streams: u32,
    },
    /// A load of `bench-peer` and the words it gets.
    Peer {
        command: &'static str,
        words: &'static [&'static str],
    },
}

/// Whether a client's connection serves more than one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reuse {
    KeepAlive,
    Close,
}

/// Which of a proxy's ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Port {
    First,
    Second,
    Third,
}

impl Port {
    pub(super) fn of(self, proxy: &Proxy<'_>) -> u16 {
        match self {
            Port::First => proxy.ports.first,
            Port::Second => proxy.ports.second,
            Port::Third => proxy.ports.third,
        }
    }
}

/// What a load saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Answers {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) bytes: u64,
    /// Latencies; not a number where the load does not tell them.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    /// CPU time of the load itself while it counted; not a number where it does not tell.
    pub(super) cpu_ms: f64,
}

impl Answers {
    const NOTHING: Answers = Answers {
        done: 0,
        failed: 0,
        bytes: 0,
        p50_ms: f64::NAN,
        p99_ms: f64::NAN,
        p999_ms: f64::NAN,
        cpu_ms: f64::NAN,
    };
}

impl Load {
    /// The program that must be there; none for our own.
    pub(super) fn program(&self) -> Option<&'static str> {
        match self.tool {
            Tool::Wrk { .. } => Some("wrk"),
            Tool::H2load { .. } => Some("h2load"),
            Tool::Peer { .. } => None,
        }
    }

    /// The command that asks `proxy` for so many seconds.
    pub(super) fn command(
        &self,
        stage: &Stage<'_>,
        proxy: &Proxy<'_>,
        cores: Cores,
        seconds: u32,
    ) -> Command {
        let mut command = cores.for_load();
        let (port, connections) = (self.port.of(proxy), self.connections);
        match self.tool {
            Tool::Wrk { scheme, path, reuse } => {
                command.args(["wrk", "-t1", "--latency", "--timeout", "30s"]);
                command.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
                add_browser(&mut command);
                if reuse == Reuse::Close {
                    command.args(["-H", "Connection: close"]);
                }
                command.arg(format!("{scheme}://127.0.0.1:{port}{path}"));
            }
            Tool::H2load { scheme, path, streams } => {
                command.args(["h2load", "-t1"]).arg(format!("-c{connections}"));
                command.arg(format!("-m{streams}")).arg(format!("-D{seconds}"));
                add_browser(&mut command);
                command.arg(format!("{scheme}://127.0.0.1:{port}{path}"));
            }
            Tool::Peer { command: name, words } => {
                command.arg(stage.peer()).arg(name).arg(format!("127.0.0.1:{port}"));
                command.arg(format!("connections={connections}"));
                command.arg(format!("seconds={seconds}"));
                command.args(words.iter().map(|word| fill(word, stage.directory(), proxy)));
            }
        }
        command
    }

    /// Runs its command and reads what it prints.
    pub(super) fn run(&self, command: &mut Command) -> Result<Answers, String> {
        self.run_telling(command, || Ok(()))
    }

    /// The same; `begin` is called when the load says that it begins to count.
    pub(super) fn run_telling(
        &self,
        command: &mut Command,
        mut begin: impl FnMut() -> Result<(), String>,
    ) -> Result<Answers, String> {
        let failed = |error: std::io::Error| format!("cannot run a load: {error}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut text = String::new();
        let output = child.stdout.take().ok_or("a load without output")?;
        for line in BufReader::new(output).lines() {
            let line = line.map_err(failed)?;
            match line == "begin" {
                true => begin()?,
                false => text = text + &line + "\n",
            }
        }
        let output = child.wait_with_output().map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let read = self.read(&text).filter(|answers| answers.done > 0 || answers.bytes > 0);
        let answers = read.ok_or_else(|| format!("no answers: {text}{said}"))?;
        if answers.failed > 0 {
            eprintln!("bench: {} failed. {}", answers.failed, said.trim());
        }
        Ok(answers)
    }

    /// What its program printed.
    pub(super) fn read(&self, text: &str) -> Option<Answers> {
        match self.tool {
            Tool::Wrk { .. } => read_wrk(text),
            Tool::H2load { .. } => read_h2load(text),
            Tool::Peer { .. } => read_peer(text),
        }
    }
}

/// Words may name the stage's directory and the proxy's ports, as configurations do.
fn fill(word: &str, directory: &Path, proxy: &Proxy<'_>) -> String {
    word.replace("%DIR%", &directory.to_string_lossy())
        .replace("%PORT%", &proxy.ports.first.to_string())
}

fn add_browser(command: &mut Command) {
    for header in BROWSER {
        command.args(["-H", header]);
    }
}

fn read_wrk(text: &str) -> Option<Answers> {
    let mut found = Answers::NOTHING;
    for line in text.lines().map(str::trim) {
        if let Some((number, _)) = line.split_once(" requests in ") {
            found.done = number.parse().ok()?;
        } else if let Some(number) = line.strip_prefix("Non-2xx or 3xx responses: ") {
            found.failed += number.parse::<u64>().ok()?;
        } else if let Some(numbers) = line.strip_prefix("Socket errors: ") {
            let words = numbers.split([' ', ',']);
            found.failed += words.filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
        } else if let Some(value) = line.strip_prefix("50%") {
            found.p50_ms = milliseconds(value.trim())?;
        } else if let Some(value) = line.strip_prefix("99%") {
            found.p99_ms = milliseconds(value.trim())?;
        }
    }
    Some(found)
}

/// `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout`. It tells
/// no quantiles of latency.
fn read_h2load(text: &str) -> Option<Answers> {
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let of = |name: &str| {
        let part = line.split(", ").find_map(|part| part.strip_suffix(name))?;
        part.trim().parse::<u64>().ok()
    };
    let failed = of("failed")? + of("errored")? + of("timeout")?;
    let codes = text.lines().find_map(|line| line.strip_prefix("status codes: "))?;
    let good = codes.split(" 2xx").next()?.trim().parse().ok()?;
    Some(Answers { done: good, failed, ..Answers::NOTHING })
}

/// `done=1 failed=0 bytes=2 p50_us=3 p99_us=4 p999_us=5 cpu_us=6`.
fn read_peer(text: &str) -> Option<Answers> {
    let of = |name: &str| {
        let mut words = text.split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(other, _)| *other == name)?.1.parse::<u64>().ok()
    };
    let ms = |name: &str| Some(of(name)? as f64 / 1000.0);
    Some(Answers {
        done: of("done")?,
        failed: of("failed")?,
        bytes: of("bytes")?,
        p50_ms: ms("p50_us")?,
        p99_ms: ms("p99_us")?,
        p999_ms: ms("p999_us")?,
        cpu_ms: ms("cpu_us")?,
    })
}

/// `812.00us`, `1.20ms`, `2.00s`.
fn milliseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "Running 3s test @ http://127.0.0.1:1/\n  Latency Distribution\n     \
                    50%  812.00us\n     99%    1.20ms\n  140000 requests in 3.00s, 45.62MB read\n  \
                    Socket errors: connect 0, read 1, write 2, timeout 3\n  \
                    Non-2xx or 3xx responses: 4\nRequests/sec:  46666.66\n";
        let found = read_wrk(text).unwrap();
        assert_eq!((found.done, found.failed), (140_000, 10));
        assert_eq!((found.p50_ms, found.p99_ms), (0.812, 1.2));
        assert!(found.p999_ms.is_nan());
        assert_eq!(milliseconds("2.00s"), Some(2000.0));
        assert_eq!(milliseconds("2"), None);
    }

    #[test]
    fn what_h2load_prints_is_read() {
        let text = "finished in 1.00s, 51234.00 req/s, 12.03MB/s\n\
                    requests: 51234 total, 51874 started, 51234 done, 51200 succeeded, 30 failed, \
                    3 errored, 1 timeout\n\
                    status codes: 51190 2xx, 0 3xx, 10 4xx, 34 5xx\n";
        let found = read_h2load(text).unwrap();
        assert_eq!((found.done, found.failed), (51_190, 34));
        assert_eq!(read_h2load("nothing"), None);
    }

    #[test]
    fn what_our_own_loads_print_is_read() {
        let text = "done=7 failed=1 bytes=9 p50_us=1500 p99_us=2 p999_us=3 cpu_us=8000\n";
        let found = read_peer(text);
        let (p50_ms, p99_ms, p999_ms, cpu_ms) = (1.5, 0.002, 0.003, 8.0);
        let expected = Answers { done: 7, failed: 1, bytes: 9, p50_ms, p99_ms, p999_ms, cpu_ms };
        assert_eq!(found, Some(expected));
        assert_eq!(read_peer("done=7"), None);
    }
}
