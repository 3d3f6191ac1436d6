//! The first line about a wrong configuration is nginx's, and the other lines follow.

mod toy;

use toy::{lines, rows};

/// The first line about a text, with the directory left open.
fn first(text: &[u8], globals: &[&str]) -> String {
    let first = lines(text, &[], globals).into_iter().next().unwrap_or_default();
    first.replace("/etc/x/", "DIR/")
}

#[test]
fn the_first_line_is_that_of_nginx() {
    for (text, expected) in rows::ROWS {
        assert_eq!(first(text.as_bytes(), &[]), *expected, "about {text:?}");
    }
    for (globals, text, expected) in rows::GLOBALS {
        assert_eq!(first(text.as_bytes(), &[globals]), *expected, "about -g {globals:?}");
    }
}

#[test]
fn values_are_taken_and_refused_as_by_nginx() {
    for (name, value, taken) in rows::VALUES {
        let text = format!("http {{ {name} {value}; }}");
        assert_eq!(first(text.as_bytes(), &[]).is_empty(), *taken, "{name} {value}");
    }
}

#[test]
fn words_have_to_fit_into_the_buffer_of_nginx() {
    for (head, length, tail, expected) in rows::LONG {
        let text = format!("{head}{}{tail}", "x".repeat(*length));
        assert_eq!(first(text.as_bytes(), &[]), *expected, "{head}{length}{tail}");
    }
}

#[test]
fn a_long_message_is_cut_as_by_nginx() {
    let line = first(format!("foo{};", "o".repeat(2000)).as_bytes(), &[]);
    let expected = format!("unknown directive \"foo{}", "o".repeat(1024 - 22));
    assert_eq!(line, format!("[emerg] {expected} in DIR/nginx.conf:1"));
}

/// All lines about a text, without levels and paths.
fn check(text: &str, expected: &[&str]) {
    let found = lines(text.as_bytes(), &[], &[]);
    let short =
        |line: &String| line.replace("[emerg] ", "").replace(" in /etc/x/nginx.conf:", " @");
    let found: Vec<String> = found.iter().map(short).collect();
    assert_eq!(found, expected, "about {text}");
}

#[test]
fn everything_wrong_is_said_in_one_run() {
    check(
        "foo 1;\nevents x { worker_connections a; bar; }\nhttp {\n server { listen; }\n}\npid;\n",
        &[
            "unknown directive \"foo\" @1",
            "invalid number of arguments in \"events\" directive @2",
            "invalid number \"a\" @2",
            "unknown directive \"bar\" @2",
            "invalid number of arguments in \"listen\" directive @4",
            "invalid number of arguments in \"pid\" directive @6",
        ],
    );
    // A missing semicolon before a brace does not hide what follows the brace.
    check(
        "events { worker_connections 10 }\nfoo;",
        &["unexpected \"}\" @1", "unknown directive \"foo\" @2"],
    );
    // An open quote does not hide the lines that it swallows.
    check(
        "pid \"a;\nfoo;\nevents {}\nbar;",
        &[
            "unexpected end of file, expecting \";\" or \"}\" @4",
            "unknown directive \"foo\" @2",
            "unknown directive \"bar\" @4",
        ],
    );
    check(
        "pid \"a;\nfoo;\nworker_processes \"2\";\nbar;",
        &["unexpected \"2\" @3", "unknown directive \"foo\" @2", "unknown directive \"bar\" @4"],
    );
    // Braces that have no directive are read over.
    check(
        "{ foo; } ; events {} } bar;",
        &[
            "unexpected \"{\" @1",
            "unexpected \";\" @1",
            "unexpected \"}\" @1",
            "unknown directive \"bar\" @1",
        ],
    );
    // A block in a wrong place is looked into; an unknown one is not.
    check(
        "server { listen; }\nhttpx { foo; }",
        &[
            "\"server\" directive is not allowed here @1",
            "invalid number of arguments in \"listen\" directive @1",
            "unknown directive \"httpx\" @2",
        ],
    );
    check(
        "http {\n server { types {} types {} root a; root b; }\n server { root c; }\n}",
        &["\"root\" directive is duplicate @2"],
    );
}

#[test]
fn blocks_without_end_are_refused_not_followed() {
    let deep = "http {".repeat(100_000);
    let found = lines(deep.as_bytes(), &[], &[]);
    assert!(found.iter().any(|line| line.contains("more than 100 blocks")), "{}", found.len());
    let noise = "'a'b\n".repeat(100_000);
    assert!(lines(noise.as_bytes(), &[], &[]).len() < 200);
}
