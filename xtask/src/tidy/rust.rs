//! The laws of Rust files: how they open, how long things are, what they may not name.

use super::{Finding, Law, finding};
use crate::source::{Source, line_of, words};
use crate::workspace::File;

/// The crates in which unsafe code may stand.
const UNSAFE_CRATES: &[&str] = &["crates/system/", "crates/packet/"];

/// Crates without clock, random source, files, sockets or threads, and words that betray these.
const PURE_CRATES: &[&str] =
    &["crates/config/", "crates/wire/", "crates/balance/", "crates/supervisor/"];
const IMPURE: &[&str] = &[
    "SystemTime",
    "Instant",
    "RandomState",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::fd",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "println!",
    "eprintln!",
];

const MOST_COLUMNS: usize = 100;
const MOST_LINES: usize = 800;
const MOST_FUNCTION_LINES: usize = 70;

/// Judges one Rust file.
pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    let source = Source::new(&file.text);
    let path = file.path.as_str();
    if !file.text.starts_with("//!") {
        findings.push(finding(Law::Opening, path, 1, "does not open with `//!`"));
    }
    check_unsafe(path, &source, findings);
    check_lengths(path, &source, findings);
    check_markers(path, &source, findings);
    for at in source.code.match_indices("thread::sleep").map(|(at, _)| at) {
        let line = line_of(&source.code, at);
        findings.push(finding(Law::Sleep, path, line, "sleeps instead of waiting for something"));
    }
    check_purity(path, &source, findings);
}

fn is_in(path: &str, directories: &[&str]) -> bool {
    directories.iter().any(|directory| path.starts_with(directory))
}

fn check_unsafe(path: &str, source: &Source, findings: &mut Vec<Finding>) {
    if is_in(path, UNSAFE_CRATES) {
        return;
    }
    for at in words(&source.code, "unsafe") {
        let line = line_of(&source.code, at);
        findings.push(finding(Law::Unsafe, path, line, "unsafe code outside its crates"));
    }
}

fn check_lengths(path: &str, source: &Source, findings: &mut Vec<Finding>) {
    for (number, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        let address = line.contains("http://") || line.contains("https://");
        if columns > MOST_COLUMNS && !address {
            let what = format!("{columns} columns, at most {MOST_COLUMNS}");
            findings.push(finding(Law::Columns, path, number + 1, what));
        }
    }
    let lines = source.code_without_tests().lines().count();
    if lines > MOST_LINES && !path.contains("/tests/") {
        let what = format!("{lines} lines without tests, at most {MOST_LINES}");
        findings.push(finding(Law::FileLength, path, 0, what));
    }
    // Tests may hold tables as long as there are cases.
    let tests = if path.contains("/tests/") { 0 } else { source.tests_at() };
    let first_of_tests = line_of(source.text, tests);
    for function in source.functions() {
        if function.length > MOST_FUNCTION_LINES && function.line < first_of_tests {
            let (name, length) = (&function.name, function.length);
            let what = format!("`{name}` has {length} lines, at most {MOST_FUNCTION_LINES}");
            findings.push(finding(Law::FunctionLength, path, function.line, what));
        }
    }
}

/// Nothing is left for later: no marks in comments, no holes in code, no tests switched off.
fn check_markers(path: &str, source: &Source, findings: &mut Vec<Finding>) {
    // Written apart, so that these tables do not find themselves.
    let in_comments =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    for mark in in_comments {
        // Strings may hold such words, names of temporary files do; comments may not.
        for at in words(source.text, mark).filter(|at| is_comment(source, *at)) {
            let line = line_of(source.text, at);
            findings.push(finding(Law::Marker, path, line, format!("leaves a {mark}")));
        }
    }
    for hole in ["todo!", "unimplemented!", "#[ignore"] {
        for (at, _) in source.code.match_indices(hole) {
            let line = line_of(&source.code, at);
            findings.push(finding(Law::Marker, path, line, format!("leaves a {hole}")));
        }
    }
}

/// True when the byte at `at` stands in a line comment.
fn is_comment(source: &Source, at: usize) -> bool {
    let start = source.text[..at].rfind('\n').map_or(0, |line| line + 1);
    source.text[start..at].find("//").is_some_and(|comment| {
        // In code without literals, what follows the slashes of a comment is blank.
        source.code.as_bytes()[start + comment] == b' '
    })
}

fn check_purity(path: &str, source: &Source, findings: &mut Vec<Finding>) {
    if !is_in(path, PURE_CRATES) || !path.contains("/src/") {
        return;
    }
    let code = source.code_without_tests();
    for word in IMPURE {
        let word = word.trim_end_matches('!');
        for at in code.match_indices(word).map(|(at, _)| at) {
            let joined = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !joined {
                let what = format!("names {word} in a pure crate");
                findings.push(finding(Law::Purity, path, line_of(code, at), what));
            }
        }
    }
}

/// Every crate outside the two forbids unsafe code at its root.
pub(super) fn check_roots(files: &[File], findings: &mut Vec<Finding>) {
    let is_root = |path: &str| path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
    for file in files.iter().filter(|file| is_root(&file.path)) {
        let code = Source::new(&file.text).code;
        if !is_in(&file.path, UNSAFE_CRATES) && !code.contains("#![forbid(unsafe_code)]") {
            let what = "does not say #![forbid(unsafe_code)]";
            findings.push(finding(Law::Unsafe, &file.path, 0, what));
        }
    }
}
