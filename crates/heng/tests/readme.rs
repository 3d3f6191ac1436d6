//! What README.md says is true: its first configuration works, what it lists as working exists,
//! and what it lists as refused is refused.

use std::path::Path;
use std::process::Command;

use testkit::{Backend, Config, Server, binary};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    std::fs::read_to_string(path).expect("there is a README.md")
}

/// The part of a text between two marks.
#[track_caller]
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from:?}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to:?} after {from:?}")).0
}

/// The words in backticks that could be names of directives.
fn names(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    quoted.filter(is_name).collect()
}

/// The directives that the program knows.
fn known() -> Vec<String> {
    let mut command = Command::new(binary());
    let output = command.args(["manual", "--names"]).output().expect("the program can be started");
    let text = String::from_utf8(output.stdout).expect("names in UTF-8");
    let name = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    text.lines().map(name).collect()
}

#[test]
fn what_it_lists_is_there_and_the_rest_is_not() {
    let (text, known) = (readme(), known());
    let known = |name: &&str| known.iter().any(|directive| directive == name);
    // Parameters of `server` in a group, a word of the language, and the name of a link.
    let parameters = [
        "weight",
        "max_fails",
        "fail_timeout",
        "max_conns",
        "slow_start",
        "backup",
        "down",
        "drain",
        "include",
        "nginx",
    ];
    let works = names(between(&text, "## What works today", "## What is refused"));
    assert!(works.len() > 30, "{works:?}");
    let missing: Vec<_> =
        works.iter().filter(|name| !known(name) && !parameters.contains(name)).collect();
    assert!(missing.is_empty(), "listed as working: {missing:?}");

    let refused = names(between(&text, "## What is refused", "## Where to go"));
    assert!(refused.len() > 2, "{refused:?}");
    let there: Vec<_> = refused.iter().filter(|name| known(name)).collect();
    assert!(there.is_empty(), "listed as refused: {there:?}");
}

#[test]
fn its_first_configuration_balances() {
    let text = readme();
    let text = between(&text, "```nginx\n", "```")
        .replace("127.0.0.1:3000", "127.0.0.1:%%ONE%%")
        .replace("127.0.0.1:3001", "127.0.0.1:%%OTHER%%")
        .replace("listen 8080", "listen %%PORT_0%%");
    let (one, other) = (Backend::named("one"), Backend::named("other"));
    let config = Config::new(&text).with("ONE", one.port()).with("OTHER", other.port());
    assert!(!Server::check(config.clone()).expect(0).stderr.contains("[warn]"));
    let server = Server::start(config);
    let answers: Vec<_> = (0..6).map(|_| server.get("/").expect(200).text()).collect();
    let count = |name: &str| answers.iter().filter(|answer| answer.contains(name)).count();
    assert_eq!((count("one"), count("other")), (4, 2), "{answers:?}");
    server.wait_for_line("access.log", "GET / HTTP/1.1");
}

#[test]
fn its_links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in ["README.md", "ARCHITECTURE.md", "examples/README.md"] {
        let path = root.join(file);
        let text = std::fs::read_to_string(&path).expect("a document");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = path.with_file_name(link);
            assert!(link.starts_with('#') || target.exists(), "{file} links to {link}");
        }
    }
}
