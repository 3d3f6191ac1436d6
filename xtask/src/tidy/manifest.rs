//! The laws of manifests and of the lock file: floors of crates, number and versions of others.

use super::{Finding, Law, finding};
use crate::workspace::File;
use std::collections::BTreeMap;

/// The floor of each crate: a crate uses only those on lower floors. `balance` and others may
/// stand on the same floor as crates that they do not use.
const FLOORS: &[(&str, usize)] = &[
    ("config", 1),
    ("wire", 1),
    ("system", 1),
    ("balance", 2),
    ("net", 2),
    ("supervisor", 2),
    ("session", 3),
    ("upstream", 4),
    ("cache", 4),
    ("http", 5),
    ("stream", 5),
    ("mail", 5),
    ("dns", 5),
    ("packet", 5),
    ("http-modules", 6),
    ("heng", 7),
];

/// Crates for development: every crate may test with `testkit`, none is built with it.
const DEVELOPMENT: &[&str] = &["testkit", "xtask"];

const MOST_LOCKED: usize = 150;

/// Crates of others that are locked in two versions, each with the reason.
const TWICE: &[(&str, &str)] = &[
    ("getrandom", "of optional features of aws-lc-rs and rcgen that are off: never built"),
    ("syn", "of optional features of rcgen that are off: never built"),
    ("untrusted", "of an optional feature of aws-lc-rs that is off: never built"),
    ("windows-sys", "of other systems: never built"),
];

/// Judges every manifest and the lock file.
pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    for file in files {
        if file.path.ends_with("/Cargo.toml") && file.path.starts_with("crates/") {
            check_floors(file, findings);
        }
        if file.path == "Cargo.lock" {
            check_lock(file, findings);
        }
    }
}

fn check_floors(file: &File, findings: &mut Vec<Finding>) {
    let Some(name) = file.path.split('/').nth(1) else { return };
    if DEVELOPMENT.contains(&name) {
        return;
    }
    let Some(own) = floor(name) else {
        findings.push(finding(Law::Floor, &file.path, 0, format!("{name} has no floor")));
        return;
    };
    for (line, section, dependency) in dependencies(&file.text) {
        let for_tests = section == "dev-dependencies";
        let what = match floor(&dependency) {
            Some(other) if other < own => continue,
            Some(other) => format!("{name} (floor {own}) uses {dependency} (floor {other})"),
            None if DEVELOPMENT.contains(&dependency.as_str()) && !for_tests => {
                format!("{name} is built with {dependency}, which is for tests")
            }
            None => continue,
        };
        findings.push(finding(Law::Floor, &file.path, line, what));
    }
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().find(|(other, _)| *other == name).map(|(_, floor)| *floor)
}

/// The dependencies of a manifest: line, section, name.
fn dependencies(text: &str) -> Vec<(usize, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            // `[target.'...'.dependencies]` and `[dependencies.name]` count as well.
            section = header.rsplit("'.").next().unwrap_or(header).to_string();
            if let Some((kind, name)) = section.clone().split_once('.')
                && kind.ends_with("dependencies")
            {
                found.push((number + 1, kind.to_string(), name.to_string()));
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() {
                found.push((number + 1, section.clone(), name.to_string()));
            }
        }
    }
    found
}

fn check_lock(file: &File, findings: &mut Vec<Finding>) {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    let names = file.text.lines().filter_map(|line| line.strip_prefix("name = \""));
    for name in names.map(|name| name.trim_end_matches('"')) {
        *versions.entry(name).or_default() += 1;
    }
    let count: usize = versions.values().sum();
    if count > MOST_LOCKED {
        let what = format!("locks {count} crates, at most {MOST_LOCKED}");
        findings.push(finding(Law::Lock, &file.path, 0, what));
    }
    for (name, count) in versions {
        let listed = TWICE.iter().any(|(twice, _)| *twice == name);
        if count > 1 && !listed {
            let what = format!("locks {count} versions of {name}");
            findings.push(finding(Law::Lock, &file.path, 0, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_use_lower_floors_only() {
        let check = |name: &str, text: &str, expected: &[usize]| {
            let path = format!("crates/{name}/Cargo.toml");
            let mut findings = Vec::new();
            check_floors(&File { path, text: text.to_string() }, &mut findings);
            let lines: Vec<usize> = findings.iter().map(|found| found.line).collect();
            assert_eq!(lines, expected, "{name}: {text}");
        };
        check("net", "[dependencies]\nsystem.workspace = true\nlibc = \"1\"\n", &[]);
        check("net", "[dependencies]\nsession.workspace = true\n", &[2]);
        check("net", "[dependencies]\nbalance = { path = \"x\" }\n", &[2]);
        check("net", "[dependencies]\ntestkit.workspace = true\n", &[2]);
        check("net", "[dev-dependencies]\ntestkit.workspace = true\n", &[]);
        check("net", "[dependencies.http]\nworkspace = true\n", &[1]);
        check("net", "[target.'cfg(unix)'.dependencies]\nhttp.workspace = true\n", &[2]);
        check("new", "", &[0]);
    }

    #[test]
    fn the_lock_stays_small_and_single() {
        let check = |text: &str, expected: usize| {
            let mut findings = Vec::new();
            let file = File { path: "Cargo.lock".to_string(), text: text.to_string() };
            check_lock(&file, &mut findings);
            assert_eq!(findings.len(), expected, "{text}");
        };
        check("name = \"a\"\nname = \"b\"\n", 0);
        check("name = \"a\"\nname = \"a\"\n", 1);
        let many: String = (0..151).map(|n| format!("name = \"crate-{n}\"\n")).collect();
        check(&many, 1);
    }
}
