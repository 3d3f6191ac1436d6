//! `cargo xtask directives`: is there, for every directive, a test that needs it?
//!
//! First every black-box test runs once and records which directives its configurations hold.
//! Then, directive by directive, the tests that hold it run again with the directive deleted,
//! until one of them fails: that one proves that the directive does something. A directive that
//! can do nothing here is declared moot in its table, with the reason.

use crate::artifacts::{self, Artifact};
use crate::workspace::build_heng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many tests run at once: they wait more than they work.
const RUNNERS: usize = 4;

/// How long, in seconds, a test without its directive waits for what will not come.
const PATIENCE: &str = "4";

/// A directive as the program's tables list it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Directive {
    name: String,
    /// Why no test can need it.
    moot: Option<String>,
}

/// One test of one executable.
#[derive(Clone)]
struct Test {
    artifact: Artifact,
    name: String,
}

/// What became of a directive.
enum Verdict {
    Proved(String),
    Moot(String),
    /// Tests hold it, and none of them needs it.
    Unneeded(usize),
    /// No test holds it.
    Untested,
}

/// Judges the directives named, or all; true when each is proved or moot.
pub(crate) fn run(names: &[String]) -> Result<bool, String> {
    let heng = build_heng()?;
    let mut directives = listed(&heng)?;
    if let Some(unknown) = names.iter().find(|name| !directives.iter().any(|d| d.name == **name)) {
        return Err(format!("there is no directive {unknown:?}"));
    }
    directives.retain(|directive| names.is_empty() || names.contains(&directive.name));
    let tests = black_box_tests(&heng)?;
    println!("directives: recording {} tests", tests.len());
    let records = Records::new()?;
    let (held, failing) = record(&tests, &records);
    let verdicts = in_parallel(&directives, |directive| judge(directive, &tests, &held));
    let complete = report(&directives, &verdicts);
    for number in &failing {
        eprintln!("left out, since it fails with all its directives: {}", tests[*number]);
    }
    Ok(complete && failing.is_empty())
}

/// The directives of the tables: lines `NAME` or `NAME<tab>REASON` for those that are moot.
fn listed(heng: &Path) -> Result<Vec<Directive>, String> {
    let output = Command::new(heng).args(["manual", "--names"]).output();
    let output = output.map_err(|error| format!("cannot run heng: {error}"))?;
    if !output.status.success() {
        return Err("heng cannot list its directives".to_string());
    }
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_list(text: &str) -> Vec<Directive> {
    let mut directives: Vec<Directive> = text
        .lines()
        .map(|line| match line.split_once('\t') {
            Some((name, moot)) => {
                Directive { name: name.to_string(), moot: Some(moot.to_string()) }
            }
            None => Directive { name: line.to_string(), moot: None },
        })
        .filter(|directive| !directive.name.is_empty())
        .collect();
    directives.sort_by(|one, other| one.name.cmp(&other.name));
    directives.dedup_by(|one, other| one.name == other.name);
    directives
}

/// Every test of heng's test files, but for those that need real programs.
fn black_box_tests(heng: &Path) -> Result<Vec<Test>, String> {
    let mut tests = Vec::new();
    for artifact in artifacts::tests(&["heng"])? {
        if artifact.kind != "test" || artifact.name.starts_with("peers_") {
            continue;
        }
        let output = Command::new(&artifact.executable)
            .args(["--list", "--format", "terse"])
            .env("HENG_TEST_BINARY", heng)
            .output()
            .map_err(|error| format!("cannot list the tests of {}: {error}", artifact.name))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        tests.extend(names.map(|name| Test { artifact: artifact.clone(), name: name.to_string() }));
    }
    Ok(tests)
}

/// A temporary directory with a file for each test's record.
struct Records(PathBuf);

impl Records {
    fn new() -> Result<Records, String> {
        let path = std::env::temp_dir().join(format!("heng-directives-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Records(path))
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // What stays in a temporary directory does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs every test as it is. For each directive, the indices of the tests that hold it, those
/// with the fewest directives first; and the indices of the tests that fail as they are.
fn record(tests: &[Test], records: &Records) -> (BTreeMap<String, Vec<usize>>, Vec<usize>) {
    let numbered: Vec<(usize, &Test)> = tests.iter().enumerate().collect();
    let recorded = in_parallel(&numbered, |(number, test)| {
        let file = records.0.join(number.to_string());
        let passed = test.passes(|command| {
            command.env("HENG_RECORD_DIRECTIVES", &file);
        });
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut names: Vec<String> = text.lines().map(str::to_string).collect();
        names.sort();
        names.dedup();
        (passed, names)
    });
    let mut order: Vec<usize> = (0..tests.len()).collect();
    order.sort_by_key(|number| recorded[*number].1.len());
    let (passing, failing): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|number| recorded[*number].0);
    let mut held: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for number in passing {
        for name in &recorded[number].1 {
            held.entry(name.clone()).or_default().push(number);
        }
    }
    (held, failing)
}

impl std::fmt::Display for Test {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}::{}", self.artifact.name, self.name)
    }
}

impl Test {
    /// Runs this test alone, after `prepare` has set up its command.
    fn passes(&self, prepare: impl FnOnce(&mut Command)) -> bool {
        let mut command = Command::new(&self.artifact.executable);
        command.args(["--exact", &self.name]).current_dir(&self.artifact.package);
        command.env("CARGO_MANIFEST_DIR", &self.artifact.package);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        prepare(&mut command);
        command.status().is_ok_and(|status| status.success())
    }

    /// True when the test's own name or its file's speaks of the directive.
    fn speaks_of(&self, directive: &str) -> bool {
        let words = directive.split('_').filter(|word| word.len() > 2);
        words.into_iter().all(|word| self.name.contains(word) || self.artifact.name.contains(word))
    }
}

/// Looks for a test that fails without `directive`.
fn judge(directive: &Directive, tests: &[Test], held: &BTreeMap<String, Vec<usize>>) -> Verdict {
    let name = directive.name.as_str();
    if let Some(reason) = &directive.moot {
        return Verdict::Moot(reason.clone());
    }
    let Some(holders) = held.get(name) else { return Verdict::Untested };
    let mut order: Vec<&Test> = holders.iter().map(|number| &tests[*number]).collect();
    // Stable: among those that speak of it, and among the others, the smallest comes first.
    order.sort_by_key(|test| !test.speaks_of(name));
    let needs = |test: &&&Test| {
        !test.passes(|command| {
            command.env("HENG_DELETE_DIRECTIVE", name).env("HENG_TEST_PATIENCE", PATIENCE);
        })
    };
    match order.iter().find(needs) {
        Some(test) => Verdict::Proved(test.to_string()),
        None => Verdict::Unneeded(order.len()),
    }
}

/// Applies `work` to all items on a few threads and returns the results in their order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..RUNNERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { return };
                    let result = work(item);
                    // A panic of another worker ends the scope with a panic anyway.
                    results.lock().unwrap().push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Prints the verdicts that need attention, then the counts.
fn report(directives: &[Directive], verdicts: &[Verdict]) -> bool {
    let (mut proved, mut moot, mut open) = (0, 0, 0);
    for (directive, verdict) in directives.iter().zip(verdicts) {
        let name = &directive.name;
        match verdict {
            Verdict::Proved(test) => {
                proved += 1;
                println!("{name}: {test}");
            }
            Verdict::Moot(reason) => {
                moot += 1;
                println!("{name}: moot, {reason}");
            }
            Verdict::Unneeded(count) => {
                open += 1;
                eprintln!("{name}: none of the {count} tests that hold it needs it");
            }
            Verdict::Untested => {
                open += 1;
                eprintln!("{name}: no test holds it");
            }
        }
    }
    println!("directives: {proved} proved, {moot} moot, {open} without a test");
    open == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_directives_are_read() {
        let found = parse_list("root\naccept_mutex\tthe loop accepts evenly\n\nroot\n");
        let expected = [
            Directive {
                name: "accept_mutex".to_string(),
                moot: Some("the loop accepts evenly".to_string()),
            },
            Directive { name: "root".to_string(), moot: None },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn parallel_results_keep_their_order() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(
            in_parallel(&items, |item| item * 2),
            items.iter().map(|n| n * 2).collect::<Vec<_>>()
        );
    }
}
