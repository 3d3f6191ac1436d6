//! `cargo xtask bench`: heng beside nginx and HAProxy, doing the same work in turns.
//!
//! All contestants run at the same time and are asked one after another, round after round
//! (A B C, B C A ...), so that whatever else the machine does falls on all of them alike. What
//! counts is the CPU time of all of a proxy's processes per request, from `/proc`, and the ratio
//! of two contestants within the same round. bench/README.md says how to read the figures.
//!
//! What there is to measure stands in [`rows`]; who takes part in [`contestant`], and their
//! processes and configurations in [`stage`] and [`scene`]. [`cost`], [`memory`] and [`latency`]
//! measure, with [`load`] and [`calls`], and [`micro`] counts instructions; [`figures`] has the
//! arithmetic and [`outcome`] the tables.

mod calls;
mod contestant;
mod cost;
mod figures;
mod latency;
mod load;
mod memory;
pub(crate) mod micro;
mod outcome;
mod rows;
mod scene;
mod stage;

use contestant::Contestant;
use outcome::Outcome;
use rows::{Measure, Row};
use stage::Precedence;
use std::fmt::Write;
use std::fs;
use std::process::Command;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    rounds: usize,
    /// How long each contestant is asked in each round.
    seconds: u32,
    /// Whether the figures are written to a file.
    write: bool,
    /// Whether memory is watched for ten minutes rather than one.
    long: bool,
    /// Whether the rows are only named.
    list: bool,
    rows: Vec<String>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options {
            rounds: 7,
            seconds: 3,
            write: false,
            long: false,
            list: false,
            rows: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut number = || {
                let value = rest.next().and_then(|value| value.parse::<u32>().ok());
                let value = value.filter(|value| *value > 0);
                value.ok_or_else(|| format!("{argument} needs a number"))
            };
            match argument.as_str() {
                "--rounds" => options.rounds = number()? as usize,
                "--seconds" => options.seconds = number()?,
                "--write" => options.write = true,
                "--long" => options.long = true,
                "--list" => options.list = true,
                name if rows::all().any(|row| row.name == name) => {
                    options.rows.push(name.to_string());
                }
                name => {
                    let names: Vec<&str> = rows::all().map(|row| row.name).collect();
                    return Err(format!("bench has no {name}; its rows are {}", names.join(", ")));
                }
            }
        }
        Ok(options)
    }

    fn wants(&self, row: &Row) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|name| name == row.name)
    }

    /// Where the figures are written: rows that are measured again do not replace the table of all,
    /// of which every figure is of one run, nor do peers that were `named` replace the system's.
    fn report(&self, named: bool) -> &'static str {
        match (self.rows.is_empty(), named) {
            (true, false) => "bench/RESULTS.md",
            (true, true) => "bench/RESULTS-named-peers.md",
            (false, _) => "bench/RESULTS-again.md",
        }
    }

    /// From which second to which one memory over time is judged.
    fn growth_window(&self) -> (u32, u32) {
        if self.long { (180, 600) } else { (20, 60) }
    }
}

/// Measures the rows; false when a contestant failed requests or a row could not be measured.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    if options.list {
        for row in rows::all() {
            println!("{:24}{}", row.name, row.text);
        }
        return Ok(true);
    }
    let wanted: Vec<&Row> = rows::all().filter(|row| options.wants(row)).collect();
    provide(&wanted);
    // Memory over time does not depend on who comes first, and takes long.
    let is_timed = wanted.iter().any(|row| !matches!(row.measure, Measure::Flat { .. }));
    let precedence = is_timed.then(Precedence::take).flatten();
    let (contestants, absent) = Contestant::find()?;
    let heading = heading(options, &contestants, &absent, precedence.is_some())?;
    print!("{heading}");
    let mut summary = String::from(
        "| row | heng | io_uring | against | target | met: heng / io_uring |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut tables = String::new();
    let mut area = None;
    let mut clean = true;
    for row in wanted {
        if area.replace(row.area) != Some(row.area) {
            let _ = writeln!(tables, "## {}\n", row.area.title());
        }
        let (text, line, row_clean) = match measure(row, &contestants, options) {
            Ok(outcome) => (outcome.text, outcome.summary.line(row), outcome.failed == 0),
            Err(reason) => {
                let reason = reason.trim().replace('\n', " ");
                let text = format!("{}Not measured: {reason}\n", outcome::heading(row));
                (text, format!("| `{}` | not measured | | | | |", row.name), false)
            }
        };
        clean &= row_clean;
        println!("{text}");
        let _ = writeln!(tables, "{text}");
        let _ = writeln!(summary, "{line}");
    }
    println!("{summary}");
    if options.write {
        let path = crate::workspace::root().join(options.report(contestant::are_peers_named()));
        let report = format!("{heading}## Summary\n\n{SUMMARY}\n{summary}\n{tables}");
        fs::write(&path, report.trim_end().to_string() + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(clean)
}

/// What stands above the summary.
const SUMMARY: &str = "\
Ratios are CPU time of heng divided by that of the better peer, medians over the rounds, unless a
row has another unit: bytes of an idle connection, a multiple of the own light load, p99 latency,
growth of memory.
";

/// Installs the programs that are missing, where this user may.
fn provide(rows: &[&Row]) {
    let mut programs = vec!["nginx", "haproxy"];
    programs.extend(rows.iter().flat_map(|row| row.programs()));
    if rows.iter().any(|row| row.setting.scene == scene::Scene::Stream) {
        programs.push(scene::STREAM_MODULE);
    }
    programs.sort_unstable();
    programs.dedup();
    crate::peers::provide_programs("bench", &programs);
}

fn heading(
    options: &Options,
    contestants: &[Contestant],
    absent: &[String],
    comes_first: bool,
) -> Result<String, String> {
    let mut text = String::from("# Results\n\nWritten by `cargo xtask bench --write`; ");
    let _ = writeln!(
        text,
        "README.md says how to read it, the configurations are beside it.\nMedians of {} \
         interleaved rounds of {} s, but where a row says otherwise.\n",
        options.rounds, options.seconds
    );
    for contestant in contestants {
        let _ = writeln!(text, "- {}: {}", contestant.name(), contestant.version()?);
    }
    for reason in absent {
        let _ = writeln!(text, "- skipped: {reason}");
    }
    let rest = if comes_first { ", other sessions after this one" } else { "" };
    let _ = writeln!(text, "- machine: {}{rest}\n", figures::machine());
    Ok(text)
}

/// One row with everybody who can take part in it.
fn measure(row: &Row, contestants: &[Contestant], options: &Options) -> Result<Outcome, String> {
    if let Some(program) = row.programs().into_iter().find(|name| !crate::peers::is_there(name)) {
        return Err(format!("there is no {program}"));
    }
    let mut skipped = String::new();
    let mut taking_part: Vec<&Contestant> = Vec::new();
    for contestant in contestants {
        match row.refusal(contestant.kind()) {
            Some(reason) => {
                let _ = writeln!(skipped, "\n{} {reason}.", contestant.name());
            }
            None if contestant.template().is_some() || row.shows_floor() => {
                taking_part.push(contestant);
            }
            None => {}
        }
    }
    let mut outcome = match &row.measure {
        Measure::Cpu { load, unit, cores, .. } => {
            cost::measure(row, &taking_part, (load, *unit, *cores), options)
        }
        Measure::Start { load } => cost::measure_start(row, &taking_part, load, options),
        Measure::Cliff { light, heavy, idle } => {
            cost::measure_cliff(row, &taking_part, (light, heavy, *idle), options)
        }
        Measure::Memory { kind, port, connections } => {
            memory::measure_idle(row, &taking_part, (kind, *port, *connections))
        }
        Measure::Latency { load } => latency::measure(row, &taking_part, load, options),
        Measure::Flat { load } => memory::measure_growth(row, &taking_part, load, options),
    }?;
    outcome.text.push_str(&skipped);
    Ok(outcome)
}

/// The first line that a program prints about itself.
fn first_line(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_rows() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
            Options::parse(&words)
        };
        let rows = vec!["small".to_string(), "idle".to_string()];
        let expected =
            Options { rounds: 9, seconds: 1, write: true, long: false, list: false, rows };
        assert_eq!(parse("--rounds 9 small --seconds 1 idle --write"), Ok(expected));
        assert!(parse("nothing").is_err_and(|text| text.contains("small-pinned")));
        assert!(parse("--rounds").is_err() && parse("--rounds 0").is_err());
        assert_eq!(parse("--long").unwrap().growth_window(), (180, 600));
        assert!(parse("--list").unwrap().list);
        assert_eq!(parse("--write").unwrap().report(false), "bench/RESULTS.md");
        assert_eq!(parse("--write").unwrap().report(true), "bench/RESULTS-named-peers.md");
        assert_eq!(parse("--write small").unwrap().report(true), "bench/RESULTS-again.md");
        let some = parse("tls-full").unwrap();
        let names: Vec<&str> =
            rows::all().filter(|row| some.wants(row)).map(|row| row.name).collect();
        assert_eq!(names, ["tls-full"]);
    }
}
