//! What a developer runs: `cargo xtask test | tidy | docs | directives | bench`.
//!
//! Each command is a module with a `run` that returns whether all was well. The tasks use
//! nothing but the standard library, so that they build in seconds on a clean clone.
#![forbid(unsafe_code)]

mod artifacts;
mod bench;
mod directives;
mod docs;
mod peers;
mod source;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [--peers] [--driver NAME] [FILTER]
        build heng and run all tests; --peers adds those that need real programs (nginx,
        curl, ...) and installs these with apt-get where it may; --driver runs the black-box
        tests on that event driver; FILTER is a part of a test's name
  tidy
        test the laws of the house that a program can test
  docs [--check]
        write the reference manual from the directive tables; --check fails when it is stale
  directives [NAME...]
        for every directive, find a test that fails when the directive is deleted
  bench [--rounds N] [--seconds N] [--long] [--write] [ROW...]
        measure heng beside nginx and HAProxy, in turns; --write writes bench/RESULTS.md, --long
        watches memory for ten minutes; --list only names the rows
  bench micro [--write]
        count instructions per operation; --write writes bench/MICRO.md
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((command, rest)) => match command.as_str() {
            "test" => test::Options::parse(rest).and_then(|options| test::run(&options)),
            "tidy" if rest.is_empty() => tidy::run(),
            "docs" => match rest {
                [] => docs::write(),
                [flag] if flag == "--check" => docs::check(),
                _ => Err(format!("docs does not know {rest:?}")),
            },
            "directives" => directives::run(rest),
            "bench" if rest.first().is_some_and(|word| word == "micro") => {
                bench::micro::run(&rest[1..])
            }
            "bench" => bench::Options::parse(rest).and_then(|options| bench::run(&options)),
            "-h" | "--help" | "help" => {
                print!("{USAGE}");
                Ok(true)
            }
            _ => Err(format!("there is no task {arguments:?}\n\n{USAGE}")),
        },
        None => Err(USAGE.to_string()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}
