//! What cargo built, read from its JSON messages.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// An executable: a program, or the tests of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// The target's name, such as `keepalive` for `tests/keepalive.rs`.
    pub(crate) name: String,
    /// The kind of target: `lib`, `bin`, `test`.
    pub(crate) kind: String,
    /// True for the harness with the target's tests, false for the program itself.
    pub(crate) tests: bool,
    /// The directory of its package, where its tests run.
    pub(crate) package: PathBuf,
    /// The file to execute.
    pub(crate) executable: PathBuf,
}

/// Builds the tests of the workspace, or of some packages, and returns their executables.
pub(crate) fn tests(packages: &[&str]) -> Result<Vec<Artifact>, String> {
    let mut build = crate::workspace::cargo();
    build.args(["test", "--no-run", "--quiet", "--message-format=json"]);
    match packages {
        [] => build.arg("--workspace"),
        _ => build.args(packages.iter().flat_map(|package| ["--package", package])),
    };
    // Programs and examples, which the tests may need, are built along with them.
    Ok(built_by(&mut build)?.into_iter().filter(|artifact| artifact.tests).collect())
}

/// Runs a cargo command with `--message-format=json` and collects the executables it names.
pub(crate) fn built_by(command: &mut Command) -> Result<Vec<Artifact>, String> {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        for line in text.lines() {
            if let Some(rendered) = string_field(line, "rendered") {
                eprintln!("{rendered}");
            }
        }
        return Err("the build failed".to_string());
    }
    Ok(text.lines().filter_map(artifact).collect())
}

/// The executable that a message of cargo announces.
fn artifact(line: &str) -> Option<Artifact> {
    if !line.starts_with("{\"reason\":\"compiler-artifact\"") {
        return None;
    }
    let target = &line[line.find("\"target\":{")?..];
    let kind = &target[target.find("\"kind\":[")?..];
    let profile = &line[line.find("\"profile\":{")?..];
    let manifest = PathBuf::from(string_field(line, "manifest_path")?);
    Some(Artifact {
        name: string_field(target, "name")?,
        kind: kind.split('"').nth(3)?.to_string(),
        tests: profile[..profile.find('}')?].contains("\"test\":true"),
        package: manifest.parent()?.to_path_buf(),
        executable: string_field(line, "executable")?.into(),
    })
}

/// The first string field of that name in a line of JSON.
fn string_field(json: &str, name: &str) -> Option<String> {
    let key = format!("\"{name}\":\"");
    let value = &json[json.find(&key)? + key.len()..];
    let mut text = String::new();
    let mut characters = value.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => match characters.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'u' => {
                    let digits: String = characters.by_ref().take(4).collect();
                    text.push(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)?);
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_cargo_are_read() {
        let line = concat!(
            r#"{"reason":"compiler-artifact","package_id":"path+file:///w/crates/a#0.1.0","#,
            r#""manifest_path":"/w/crates/a/Cargo.toml","target":{"kind":["test"],"#,
            r#""crate_types":["bin"],"name":"some \"name\"","src_path":"/w/t.rs","test":true},"#,
            r#""profile":{"opt_level":"0","test":true},"features":[],"#,
            r#""executable":"/w/target/debug/deps/t-1","fresh":true}"#
        );
        let expected = Artifact {
            name: "some \"name\"".to_string(),
            kind: "test".to_string(),
            tests: true,
            package: "/w/crates/a".into(),
            executable: "/w/target/debug/deps/t-1".into(),
        };
        assert_eq!(artifact(line), Some(expected));
        assert_eq!(artifact(&line.replace("\"/w/target/debug/deps/t-1\"", "null")), None);
        assert_eq!(artifact("{\"reason\":\"build-finished\",\"success\":true}"), None);
    }

    #[test]
    fn escapes_in_strings_are_undone() {
        let check = |json: &str, expected: Option<&str>| {
            assert_eq!(string_field(json, "a").as_deref(), expected, "{json}");
        };
        check(r#"{"a":"x\ny\t\"\\\u001b["}"#, Some("x\ny\t\"\\\u{1b}["));
        check(r#"{"b":"x"}"#, None);
        check(r#"{"a":null}"#, None);
        check(r#"{"a":"cut"#, None);
    }
}
