//! `cargo xtask bench`: heng beside nginx and HAProxy, doing the same work in turns.
//!
//! All contestants run at the same time and are asked one after another, round after round
//! (A B C A B C ...), so that whatever else the machine does falls on all of them alike. What
//! counts is the CPU time of all of a proxy's processes per request, from `/proc`, and the ratio
//! of two contestants within the same round. bench/README.md says how to read the figures.
//! Processes are in [`stage`], figures in [`figures`].

mod figures;
mod stage;

use figures::{Sample, Usage, median};
use stage::{Contestant, Cores, Stage};
use std::fmt::Write;
use std::fs;
use std::process::Command;

/// What a row measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Measure {
    /// CPU time per request.
    Requests { path: &'static str, connections: u32, cores: Cores, reuse: Reuse },
    /// Private memory for each connection that is idle after one request.
    Idle { connections: u32 },
}

/// Whether a client's connection serves more than one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reuse {
    KeepAlive,
    Close,
}

/// One line of the results.
struct Row {
    name: &'static str,
    text: &'static str,
    measure: Measure,
    /// Whether accesses are logged.
    log: bool,
    /// HAProxy serves no files.
    files: bool,
}

impl Row {
    /// Whether a contestant can do the work of this row. The floor stands beside rows that need
    /// nothing but passing on.
    fn takes(&self, contestant: &Contestant) -> bool {
        let relays = matches!(self.measure, Measure::Requests { reuse: Reuse::KeepAlive, .. });
        match contestant.is_floor() {
            true => relays && !self.files && !self.log,
            false => !self.files || contestant.serves_files(),
        }
    }
}

const SMALL: Measure =
    Measure::Requests { path: "/", connections: 64, cores: Cores::One, reuse: Reuse::KeepAlive };

const fn proxying(name: &'static str, text: &'static str, measure: Measure) -> Row {
    Row { name, text, measure, log: false, files: false }
}

const fn requests(path: &'static str, connections: u32, cores: Cores, reuse: Reuse) -> Measure {
    Measure::Requests { path, connections, cores, reuse }
}

const ROWS: &[Row] = &[
    proxying("small", "128 B, 64 connections", SMALL),
    Row { log: true, ..proxying("small-log", "128 B, 64 connections, accesses logged", SMALL) },
    proxying(
        "small-pinned",
        "128 B, 64 connections, the proxy alone on a core",
        requests("/", 64, Cores::Apart, Reuse::KeepAlive),
    ),
    proxying(
        "small-512",
        "128 B, 512 connections",
        requests("/", 512, Cores::One, Reuse::KeepAlive),
    ),
    proxying("16k", "16 KiB, 64 connections", requests("/16384", 64, Cores::One, Reuse::KeepAlive)),
    proxying(
        "close",
        "128 B, a connection for each request, 64 at a time",
        requests("/", 64, Cores::One, Reuse::Close),
    ),
    Row {
        files: true,
        ..proxying(
            "static",
            "a file of 1 KiB, 64 connections",
            requests("/static/1k", 64, Cores::One, Reuse::KeepAlive),
        )
    },
    proxying(
        "idle",
        "private memory for an idle keep-alive connection, of 9,000",
        Measure::Idle { connections: 9000 },
    ),
];

/// What a browser sends, so that heads have a usual size.
const BROWSER: &[&str] = &[
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
     Chrome/130.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br",
    "Accept-Language: en-US,en;q=0.9",
    "Cookie: session=0123456789abcdef; theme=dark",
];

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    rounds: usize,
    /// How long each contestant is asked in each round.
    seconds: u32,
    /// Whether bench/RESULTS.md is written.
    write: bool,
    rows: Vec<String>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options { rounds: 7, seconds: 3, write: false, rows: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut number = || {
                let value = rest.next().and_then(|value| value.parse::<u32>().ok());
                let value = value.filter(|value| *value > 0);
                value.ok_or_else(|| format!("{argument} needs a number"))
            };
            match argument.as_str() {
                "--rounds" => options.rounds = number()? as usize,
                "--seconds" => options.seconds = number()?,
                "--write" => options.write = true,
                name if ROWS.iter().any(|row| row.name == name) => {
                    options.rows.push(name.to_string());
                }
                name => {
                    let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
                    return Err(format!("bench has no {name}; its rows are {}", names.join(", ")));
                }
            }
        }
        Ok(options)
    }
}

/// Measures the rows; false when a contestant failed requests.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let contestants = Contestant::find()?;
    let mut report = heading(options, &contestants)?;
    print!("{report}");
    let wanted =
        |row: &&Row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name);
    let mut clean = true;
    for row in ROWS.iter().filter(wanted) {
        let taking_part: Vec<&Contestant> =
            contestants.iter().filter(|one| row.takes(one)).collect();
        let (text, row_clean) = match row.measure {
            Measure::Requests { .. } => measure_requests(row, &taking_part, options)?,
            Measure::Idle { connections } => (measure_idle(row, &taking_part, connections)?, true),
        };
        clean &= row_clean;
        println!("{text}");
        let _ = writeln!(report, "{text}");
    }
    if options.write {
        let path = crate::workspace::root().join("bench/RESULTS.md");
        fs::write(&path, report.trim_end().to_string() + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(clean)
}

fn heading(options: &Options, contestants: &[Contestant]) -> Result<String, String> {
    let mut text = String::from("# Results\n\nWritten by `cargo xtask bench --write`; ");
    let _ = writeln!(
        text,
        "bench/README.md says how to read it.\nMedians of {} interleaved rounds of {} s.\n",
        options.rounds, options.seconds
    );
    for contestant in contestants {
        let _ = writeln!(text, "- {}: {}", contestant.name(), contestant.version()?);
    }
    let _ = writeln!(text, "- machine: {}\n", figures::machine());
    Ok(text)
}

/// Asks all contestants in turns; the row as a table, and whether every request was answered.
fn measure_requests(
    row: &Row,
    contestants: &[&Contestant],
    options: &Options,
) -> Result<(String, bool), String> {
    let Measure::Requests { path, connections, cores, reuse } = row.measure else {
        return Err(format!("row {} measures no requests", row.name));
    };
    let stage = Stage::set(contestants, cores, row.log)?;
    let mut samples: Vec<Vec<Sample>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=options.rounds {
        for (proxy, samples) in stage.proxies().iter().zip(&mut samples) {
            // The first round opens files, connections and memory; it does not count.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let before = Usage::of(proxy.pid())?;
            let mut wrk = cores.for_load();
            wrk.args(["wrk", "-t1", "--latency"]);
            wrk.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
            for header in BROWSER {
                wrk.args(["-H", header]);
            }
            if reuse == Reuse::Close {
                wrk.args(["-H", "Connection: close"]);
            }
            wrk.arg(format!("http://127.0.0.1:{}{path}", proxy.port()));
            let answers = figures::run_wrk(&mut wrk)?;
            let used = Usage::of(proxy.pid())?.since(&before);
            if round > 0 {
                samples.push(Sample::new(&answers, &used, seconds));
            }
        }
    }
    let failed: u64 = samples.iter().flatten().map(|sample| sample.failed).sum();
    Ok((requests_table(row, contestants, &samples), failed == 0))
}

fn requests_table(row: &Row, contestants: &[&Contestant], samples: &[Vec<Sample>]) -> String {
    let mut text = format!("## {}: {}\n\n", row.name, row.text);
    text.push_str("| proxy | CPU us/request | user | system | requests/s | p99 ms | failed |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for (contestant, samples) in contestants.iter().zip(samples) {
        let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
        let failed: u64 = samples.iter().map(|sample| sample.failed).sum();
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} | {failed} |",
            contestant.name(),
            of(|sample| sample.cpu_us),
            of(|sample| sample.user_us),
            of(|sample| sample.cpu_us - sample.user_us),
            of(|sample| sample.per_second),
            of(|sample| sample.p99_ms),
        );
    }
    let row: Vec<(&Contestant, &[Sample])> =
        contestants.iter().copied().zip(samples.iter().map(Vec::as_slice)).collect();
    let is_peer = |one: &Contestant| !one.is_own() && !one.is_floor();
    let peers: Vec<_> = row.iter().filter(|(one, _)| is_peer(one)).collect();
    let costs: Vec<&[Sample]> = peers.iter().map(|(_, samples)| *samples).collect();
    let Some((peer, against)) = figures::best(&costs).map(|best| peers[best]) else {
        return text;
    };
    for (own, samples) in row.iter().filter(|(one, _)| !is_peer(one)) {
        let ratio = figures::ratio(samples, against);
        let _ = writeln!(text, "\n{} / {}: {ratio:.2}", own.name(), peer.name());
    }
    text
}

/// Private memory per idle connection, one contestant after another.
fn measure_idle(
    row: &Row,
    contestants: &[&Contestant],
    connections: u32,
) -> Result<String, String> {
    let mut text = format!("## {}: {}\n\n", row.name, row.text);
    text.push_str("| proxy | bytes per connection | KiB before the first one |\n|---|---|---|\n");
    for contestant in contestants {
        let stage = Stage::set(&[contestant], Cores::One, row.log)?;
        let Some(proxy) = stage.proxies().first() else { continue };
        let bare = figures::private_bytes(proxy.pid())?;
        // The first ones open what all share.
        let warm = stage.idle_clients(proxy, 200)?;
        let before = figures::private_bytes(proxy.pid())?;
        let many = stage.idle_clients(proxy, connections)?;
        let after = figures::private_bytes(proxy.pid())?;
        drop((warm, many));
        let each = after.saturating_sub(before) as f64 / f64::from(connections);
        let name = contestant.name();
        let _ = writeln!(text, "| {name} | {each:.0} | {} |", bare / 1024);
    }
    Ok(text)
}

/// The first line that a program prints about itself.
fn first_line(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_rows() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
            Options::parse(&words)
        };
        let rows = vec!["small".to_string(), "idle".to_string()];
        let expected = Options { rounds: 9, seconds: 1, write: true, rows };
        assert_eq!(parse("--rounds 9 small --seconds 1 idle --write"), Ok(expected));
        assert!(parse("nothing").is_err_and(|text| text.contains("small-pinned")));
        assert!(parse("--rounds").is_err() && parse("--rounds 0").is_err());
    }

    #[test]
    fn names_of_rows_are_their_own() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
