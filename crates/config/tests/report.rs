//! What a person sees: the source line, the caret, the help; and the pages of the manual.

mod toy;

use config::{AnyDirective, Arity, Directive, MAIN, MemoryFiles, Registry, manual, read};

/// All findings about a text, rendered.
fn check(text: &str, expected: &str) {
    let files = MemoryFiles::new().with("/x.conf", text);
    let (tree, found) =
        config::load(&files, "/x.conf".as_ref(), "/".as_ref(), &[], &toy::registry());
    let shown: Vec<_> = found.iter().map(|one| one.render(&tree, "heng", false)).collect();
    assert_eq!(shown.join("\n"), expected, "about {text}");
}

#[test]
fn a_finding_points_at_its_place() {
    check(
        "events {}\nhttp {\n\tserver {\n\t\tserver_nmae a;\r\n    }\n}\n",
        "heng: [emerg] unknown directive \"server_nmae\" in /x.conf:4
  |
4 |         server_nmae a;
  |         ^^^^^^^^^^^
  = help: did you mean \"server_name\"?",
    );
    check(
        "http {\n    proxy_buffers 8\n        4x\n    ;\n}",
        "heng: [emerg] \"proxy_buffers\" directive invalid value in /x.conf:4
  |
3 |         4x
  |         ^^",
    );
    check(
        "listen 80;",
        "heng: [emerg] \"listen\" directive is not allowed here in /x.conf:1
  |
1 | listen 80;
  | ^^^^^^
  = help: it belongs in: server",
    );
    check(
        "pid a;\n\n\n\n\n\n\n\n\npid b;",
        "heng: [emerg] \"pid\" directive is duplicate in /x.conf:10
   |
10 | pid b;
   | ^^^^^
   = help: it was given before in /x.conf:1",
    );
    check(
        "http {\n  keepalive_requests;\n",
        "heng: [emerg] invalid number of arguments in \"keepalive_requests\" directive in /x.conf:2
  |
2 |   keepalive_requests;
  |   ^^^^^^^^^^^^^^^^^^
  = help: the syntax is: keepalive_requests NUMBER;
heng: [emerg] unexpected end of file, expecting \"}\" in /x.conf:3
  |
3 |
  | ^
  = help: \"http\" was opened on line 1",
    );
    check(
        "events {\n    worker_connections 10\n}",
        "heng: [emerg] unexpected \"}\" in /x.conf:3
  |
3 | }
  | ^
  = help: a \";\" is missing before it",
    );
    check(
        "http { proxy_next_upstream eror; }",
        "heng: [emerg] invalid value \"eror\" in /x.conf:1
  |
1 | http { proxy_next_upstream eror; }
  |                            ^^^^
  = help: did you mean \"error\"?",
    );
    check(
        "\u{feff}events {}",
        "heng: [emerg] unknown directive \"\u{feff}events\" in /x.conf:1
  |
1 | \u{feff}events {}
  | ^^^^^^^
  = help: the file begins with a byte order mark before \"events\": remove it",
    );
}

#[test]
fn a_long_line_is_cut_around_the_caret() {
    let text = format!("pid {};{} foo{};", "a".repeat(500), " ".repeat(3), "o".repeat(300));
    let files = MemoryFiles::new().with("/x.conf", text);
    let (tree, found) =
        config::load(&files, "/x.conf".as_ref(), "/".as_ref(), &[], &toy::registry());
    let shown = found[0].render(&tree, "heng", false);
    let longest = shown.lines().skip(1).map(|line| line.chars().count()).max();
    assert!(longest <= Some(130), "{shown}");
    assert!(shown.contains("; ") && shown.contains("^^^"), "{shown}");
}

#[test]
fn colour_changes_no_word() {
    let files = MemoryFiles::new().with("/x.conf", "lisen;");
    let (tree, found) =
        config::load(&files, "/x.conf".as_ref(), "/".as_ref(), &[], &toy::registry());
    let coloured = found[0].render(&tree, "heng", true);
    assert!(coloured.contains("\x1b[1;31m"));
    let mut plain = coloured;
    for code in ["\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, found[0].render(&tree, "heng", false));
}

#[test]
fn the_manual_shows_what_the_tables_say() {
    let page = manual::render(
        "Core",
        "About the whole.",
        &[&toy::WORKER_PROCESSES, &toy::LOCATION_BLOCK],
        &[("$host", "The name asked for.")],
    );
    let expected = "# Core

About the whole.

## Directives

### worker_processes

- Syntax: `worker_processes NUMBER | auto;`
- Default: `worker_processes 1;`
- Context: main

How many workers.

```nginx
worker_processes 4;
```

### location

- Syntax: `location [= | ~ | ~* | ^~] URI { ... }`
- Syntax: `location @NAME { ... }`
- Default: none
- Context: server, location

A part of a site.

```nginx
location / { root /srv; }
```

## Variables

- `$host`: The name asked for.
";
    assert_eq!(page, expected);
}

#[test]
fn tables_without_fault_have_none_and_others_are_told() {
    assert_eq!(toy::registry().faults(), Vec::<String>::new());
    static BAD: Directive<u64> = Directive::new("bad", &[MAIN], read::number)
        .default("many")
        .syntax("bad NUMBER;")
        .text("Bad.")
        .example("bad a b;");
    static BARE: Directive<()> = Directive::new("bare", &[MAIN], read::nothing).takes(Arity::None);
    static TABLE: &[&dyn AnyDirective] = &[&BAD, &BARE];
    let expected = [
        "bad: the default \"many\": \"bad\" directive invalid number",
        "bad: the example: invalid number of arguments in \"bad\" directive",
        "bare: no syntax",
        "bare: no text",
        "bare: no example",
    ];
    assert_eq!(Registry::new(&[TABLE]).faults(), expected);
}

#[test]
#[should_panic(expected = "\"pid\" is declared twice in \"main\"")]
fn a_name_stands_once_in_a_context() {
    static TABLE: &[&dyn AnyDirective] = &[&toy::PID, &toy::PID];
    Registry::new(&[TABLE]);
}
