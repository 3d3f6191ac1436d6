//! `cargo xtask test`: all tests of the workspace, with cargo-nextest where it is installed.
//!
//! Tests that need real programs stand in files `tests/peers_*.rs` and run only with `--peers`.
//! The last lines tell how many tests of each kind passed and failed.

use crate::artifacts::{self, Artifact};
use crate::peers;
use crate::workspace::{build_heng, cargo};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What the command line asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    peers: bool,
    driver: Option<String>,
    filter: Option<String>,
}

impl Options {
    /// Reads the arguments after `test`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--peers" => options.peers = true,
                "--driver" => {
                    let name = rest.next().ok_or("--driver needs a name")?;
                    options.driver = Some(name.clone());
                }
                flag if flag.starts_with('-') => return Err(format!("test does not know {flag}")),
                filter if options.filter.is_none() => options.filter = Some(filter.to_string()),
                second => return Err(format!("one filter at a time, not {second:?} as well")),
            }
        }
        Ok(options)
    }
}

/// How many tests went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Which tests a run takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Own,
    Peers,
}

impl Which {
    fn includes(self, artifact: &Artifact) -> bool {
        let peers = artifact.kind == "test" && artifact.name.starts_with("peers_");
        (self == Which::Peers) == peers
    }
}

/// Runs what `options` ask for; true when every test passed and nothing was missing.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let heng = build_heng()?;
    let complete = !options.peers || peers::provide()?;
    let mut kinds = vec![("own tests", Which::Own)];
    if options.peers {
        kinds.push(("tests against real programs", Which::Peers));
    }
    let nextest = has_nextest();
    let mut counts = Vec::new();
    let mut well = true;
    for (title, which) in kinds {
        let (count, succeeded) =
            if nextest { with_nextest(which, options)? } else { with_cargo(which, options)? };
        well &= succeeded && count.failed == 0;
        counts.push((title, count));
    }
    if options.filter.is_none() {
        let (count, succeeded) = examples()?;
        well &= succeeded && count.failed == 0;
        counts.push(("examples in the documentation", count));
    }
    if !nextest && options.filter.is_none() {
        println!("test: without cargo-nextest, tests of one file share a process");
    }
    println!("tested {}", heng.display());
    for (title, count) in counts {
        println!("{title}: {count}");
    }
    if !complete {
        println!("some programs are missing, see above");
    }
    Ok(well && complete)
}

fn has_nextest() -> bool {
    let mut probe = cargo();
    probe.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Runs tests with cargo-nextest and reads the counts from its summary.
fn with_nextest(which: Which, options: &Options) -> Result<(Count, bool), String> {
    let peers = "(kind(test) and binary(/^peers_/))";
    let set = if which == Which::Peers { peers.to_string() } else { format!("not {peers}") };
    let mut command = cargo();
    command.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"]);
    command.args(["--filterset", &set]);
    command.args(&options.filter);
    set_driver(&mut command, options);
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let mut count = Count::default();
    if let Some(stderr) = child.stderr.take() {
        // Lines that are no UTF-8 still are shown, with marks in place of what is not.
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            eprintln!("{line}");
            count += nextest_summary(&line).unwrap_or_default();
        }
    }
    let status = child.wait().map_err(|error| format!("lost cargo nextest: {error}"))?;
    Ok((count, status.success()))
}

fn set_driver(command: &mut Command, options: &Options) {
    if let Some(driver) = &options.driver {
        command.env("HENG_TEST_DRIVER", driver);
    }
}

/// The counts in the line `Summary [1.2s] 3 tests run: 2 passed (1 slow), 1 failed, 0 skipped`.
fn nextest_summary(line: &str) -> Option<Count> {
    let line = without_colours(line);
    let (before, counts) = line.split_once(" run: ")?;
    if !before.trim_start().starts_with("Summary [") {
        return None;
    }
    let mut count = Count::default();
    for part in counts.split(", ") {
        let mut words = part.split_whitespace();
        let (Some(number), Some(word)) = (words.next(), words.next()) else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        match word {
            "passed" => count.passed += number,
            "failed" | "timed" | "exec" => count.failed += number,
            _ => {}
        }
    }
    Some(count)
}

/// `line` without the escape sequences that colour a terminal.
fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut parts = line.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

/// Runs tests as `cargo test` does, one executable after the other.
fn with_cargo(which: Which, options: &Options) -> Result<(Count, bool), String> {
    let mut count = Count::default();
    let mut well = true;
    for artifact in artifacts::tests(&[])?.iter().filter(|artifact| which.includes(artifact)) {
        println!("     Running {}", artifact.name);
        let mut command = Command::new(&artifact.executable);
        command.args(&options.filter).current_dir(&artifact.package);
        command.env("CARGO_MANIFEST_DIR", &artifact.package).stdout(Stdio::piped());
        set_driver(&mut command, options);
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| format!("cannot run {command:?}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            print!("{text}");
        }
        let summaries: Vec<Count> = text.lines().filter_map(libtest_summary).collect();
        // An executable without a summary has a harness of its own, or died: it counts as one.
        if summaries.is_empty() {
            let passed = output.status.success();
            count += Count { passed: usize::from(passed), failed: usize::from(!passed) };
        }
        summaries.into_iter().for_each(|summary| count += summary);
        well &= output.status.success();
    }
    Ok((count, well))
}

/// Compiles and runs the examples in the documentation of the crates.
fn examples() -> Result<(Count, bool), String> {
    let mut command = cargo();
    command.args(["test", "--doc", "--workspace", "--quiet", "--no-fail-fast"]);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        print!("{text}");
    }
    let mut count = Count::default();
    text.lines().filter_map(libtest_summary).for_each(|summary| count += summary);
    Ok((count, output.status.success()))
}

/// The counts in the line `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
fn libtest_summary(line: &str) -> Option<Count> {
    let counts = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let before = counts.split(word).next()?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    Some(Count { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted() {
        let check = |line: &str, expected: Option<(usize, usize)>| {
            let found = nextest_summary(line).or_else(|| libtest_summary(line));
            assert_eq!(found.map(|count| (count.passed, count.failed)), expected, "{line:?}");
        };
        check("     Summary [   0.7s] 32 tests run: 32 passed, 0 skipped", Some((32, 0)));
        check(
            "     Summary [ 0.7s] 4/9 tests run: 2 passed (1 slow), 1 failed, 1 timed out, \
               0 skipped",
            Some((2, 2)),
        );
        check(
            "\u{1b}[32m     Summary\u{1b}[0m [ 0.1s] \u{1b}[1m3\u{1b}[0m tests run: \
               \u{1b}[1m3\u{1b}[0m \u{1b}[32mpassed\u{1b}[0m, 0 skipped",
            Some((3, 0)),
        );
        check("test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured", Some((3, 1)));
        check("running 3 tests", None);
    }

    #[test]
    fn options_are_read() {
        let check = |arguments: &[&str], expected: Option<Options>| {
            let arguments: Vec<String> = arguments.iter().map(|word| word.to_string()).collect();
            assert_eq!(Options::parse(&arguments).ok(), expected, "{arguments:?}");
        };
        check(&[], Some(Options::default()));
        check(
            &["--peers", "--driver", "poll", "keep"],
            Some(Options {
                peers: true,
                driver: Some("poll".to_string()),
                filter: Some("keep".to_string()),
            }),
        );
        check(&["--driver"], None);
        check(&["--unknown"], None);
        check(&["a", "b"], None);
    }
}
