//! `cargo xtask tidy`: the laws of the house that a program can test.
//!
//! A law is a function from the files to findings. What is exempt stands in one table here, with
//! its reason; an exemption that nothing needs any more is a finding too. The laws of Rust files
//! are in [`rust`], those of manifests and the lock file in [`manifest`].

mod manifest;
mod rust;

use crate::workspace::{File, files};
use std::fmt;

/// Something against a law.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    law: Law,
    path: String,
    /// From 1; 0 when the whole file is meant.
    line: usize,
    /// What is wrong, without the place.
    what: String,
}

/// The laws, for exemptions and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Law {
    Opening,
    Unsafe,
    Columns,
    FileLength,
    FunctionLength,
    Marker,
    Sleep,
    Purity,
    Floor,
    Lock,
    Place,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {} ({:?})", self.path, self.what, self.law),
            line => write!(out, "{}:{line}: {} ({:?})", self.path, self.what, self.law),
        }
    }
}

/// A file, or a function written `file#function`, that a law does not bind.
struct Exemption {
    law: Law,
    place: &'static str,
    reason: &'static str,
}

const EXEMPT: &[Exemption] = &[
    Exemption {
        law: Law::Sleep,
        place: "crates/testkit/src/wait.rs",
        reason: "the pause between two looks at a condition, for every test",
    },
    Exemption {
        law: Law::Sleep,
        place: "crates/heng/src/listeners.rs",
        reason: "the pauses, as nginx makes them, before an address in use is tried again",
    },
    Exemption {
        law: Law::Sleep,
        place: "xtask/src/bench/memory.rs",
        reason: "the second between two looks at memory in a benchmark",
    },
    Exemption {
        law: Law::Purity,
        place: "crates/config/src/files.rs",
        reason: "the trait through which all files are read, and the disk behind it",
    },
    Exemption {
        law: Law::Purity,
        place: "crates/config/src/glob.rs",
        reason: "lists directories for the disk behind that trait",
    },
];

/// Tests every law and prints what is against one; true when nothing is.
pub(crate) fn run() -> Result<bool, String> {
    let files = files()?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        rust::check(file, &mut findings);
    }
    rust::check_roots(&files, &mut findings);
    manifest::check(&files, &mut findings);
    for file in &files {
        check_places(file, &mut findings);
    }
    let mut used = vec![false; EXEMPT.len()];
    findings.retain(|finding| !is_exempt(finding, &mut used));
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    for (exemption, _) in EXEMPT.iter().zip(used).filter(|(_, used)| !used) {
        eprintln!(
            "tidy: nothing needs the exemption of {} from {:?} any more ({})",
            exemption.place, exemption.law, exemption.reason
        );
        findings.push(finding(exemption.law, exemption.place, 0, "an exemption without use"));
    }
    if findings.is_empty() {
        println!("tidy: {} files keep the laws", files.len());
    }
    Ok(findings.is_empty())
}

fn finding(law: Law, path: &str, line: usize, what: impl Into<String>) -> Finding {
    Finding { law, path: path.to_string(), line, what: what.into() }
}

fn is_exempt(finding: &Finding, used: &mut [bool]) -> bool {
    let matches = |exemption: &Exemption| {
        exemption.law == finding.law
            && match exemption.place.split_once('#') {
                Some((path, name)) => {
                    path == finding.path && finding.what.contains(&format!("`{name}`"))
                }
                None => exemption.place == finding.path,
            }
    };
    let Some(at) = EXEMPT.iter().position(matches) else { return false };
    used[at] = true;
    true
}

/// No file names a directory of somebody's own machine.
fn check_places(file: &File, findings: &mut Vec<Finding>) {
    // Written apart, so that this table does not find itself.
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    for (number, line) in file.text.lines().enumerate() {
        for home in homes {
            let names = line.match_indices(home).any(|(at, _)| {
                // A longer path, or a word before the slash, is no absolute path of this kind.
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-$%}*".contains(c))
            });
            if names {
                let what = format!("names {home}, a place on one machine");
                findings.push(finding(Law::Place, &file.path, number + 1, what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the laws of single files say about `text` at `path`, as `law:line`.
    fn judge(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.to_string(), text: text.to_string() };
        let mut findings = Vec::new();
        rust::check(&file, &mut findings);
        check_places(&file, &mut findings);
        findings.iter().map(|found| format!("{:?}:{}", found.law, found.line)).collect()
    }

    #[test]
    fn laws_of_rust_files() {
        let check = |path: &str, text: &str, expected: &[&str]| {
            assert_eq!(judge(path, text), expected, "{path}: {text:?}");
        };
        let path = "crates/net/src/x.rs";
        check(path, "//! X.\nfn a() {}\n", &[]);
        check(path, "fn a() {}\n", &["Opening:1"]);
        check(path, "//! X.\nunsafe fn a() {}\n", &["Unsafe:2"]);
        check("crates/system/src/x.rs", "//! X.\nunsafe fn a() {}\n", &[]);
        check(path, "//! unsafe is a word here.\nconst A: &str = \"unsafe\";\n", &[]);
        check(path, &format!("//! X.\n// {}\n", "x".repeat(98)), &["Columns:2"]);
        check(path, &format!("//! X.\n// https://{}\n", "x".repeat(98)), &[]);
        check(path, concat!("//! X.\n// TO", "DO: y\n"), &["Marker:2"]);
        check(path, concat!("//! X.\nfn a() { to", "do!() }\n"), &["Marker:2"]);
        check(path, concat!("//! X.\n#[ig", "nore]\nfn a() {}\n"), &["Marker:2"]);
        check(path, "//! X.\nfn a() { std::thread::sleep(b); }\n", &["Sleep:2"]);
        check("crates/wire/src/x.rs", "//! X.\nuse std::time::Instant;\n", &["Purity:2"]);
        check(
            "crates/wire/src/x.rs",
            "//! X.\n#[cfg(test)]\nmod tests { use std::time::Instant; }\n",
            &[],
        );
        check(path, concat!("//! X.\n// See /ho", "me/me/x.\n"), &["Place:2"]);
        let long = format!("//! X.\nfn long() {{\n{}}}\n", "x;\n".repeat(70));
        check(path, &long, &["FunctionLength:2"]);
        let long = format!("//! X.\n{}", "const A: u8 = 0;\n".repeat(800));
        check(path, &long, &["FileLength:0"]);
    }
}
