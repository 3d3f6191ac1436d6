//! The row of latency at a fixed rate.

use super::Options;
use super::contestant::Contestant;
use super::cost::ask;
use super::figures::{Sample, Unit, median, range};
use super::load::{Load, Tool};
use super::outcome::{Measured, Outcome, heading, meets, ratios};
use super::rows::{MOST, Row};
use super::stage::{Cores, Stage};
use std::fmt::Write as _;

/// Finds the highest rate of the slowest contestant, then asks all at half of it, in turns.
pub(super) fn measure(
    row: &Row,
    contestants: &[&Contestant],
    load: &Load,
    options: &Options,
) -> Result<Outcome, String> {
    let cores = Cores::Apart;
    let stage = Stage::set(row.name, contestants, &row.setting, cores)?;
    let mut slowest = f64::INFINITY;
    for proxy in stage.proxies() {
        let (answers, _, took) = ask(&stage, proxy, &MOST, cores, options.seconds)?;
        slowest = slowest.min(answers.done as f64 / took.as_secs_f64());
    }
    let rate = (slowest / 2.0).floor();
    let mut measured: Vec<Measured<'_>> = contestants
        .iter()
        .map(|contestant| Measured { contestant, samples: Vec::new(), calls: None })
        .collect();
    for _ in 0..options.rounds {
        for (proxy, one) in stage.proxies().iter().zip(&mut measured) {
            let mut command = load.command(&stage, proxy, cores, options.seconds);
            command.arg(format!("rate={rate}"));
            let before = super::figures::Usage::of(proxy.pid())?;
            let start = std::time::Instant::now();
            let answers = load.run(&mut command)?;
            let used = super::figures::Usage::of(proxy.pid())?.since(&before);
            one.samples.push(Sample::new(&answers, &used, start.elapsed(), Unit::Request));
        }
    }
    debug_assert!(matches!(load.tool, Tool::Peer { .. }), "wrk has no fixed rate");
    let mut text = heading(row) + &table(&measured);
    let met = |kind, ratio| meets(row.target, kind, ratio);
    let (lines, summary) = ratios(&measured, |sample| sample.p99_ms, met);
    let _ = writeln!(
        text,
        "\n{rate:.0} requests per second. The ratios are of the 99th percentile.\n{lines}"
    );
    let failed = measured.iter().map(Measured::failed).sum();
    Ok(Outcome { text, summary, failed })
}

fn table(measured: &[Measured<'_>]) -> String {
    let mut text = String::from(
        "| proxy | p50 ms | p99 ms | min | max | p99.9 ms | CPU us/request | failed |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for one in measured {
        let of = |value: fn(&Sample) -> f64| median(one.samples.iter().map(value));
        let (least, most) = range(one.samples.iter().map(|sample| sample.p99_ms));
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} | {least:.3} | {most:.3} | {:.3} | {:.2} | {} |",
            one.contestant.name(),
            of(|sample| sample.p50_ms),
            of(|sample| sample.p99_ms),
            of(|sample| sample.p999_ms),
            of(|sample| sample.cpu_us),
            one.failed(),
        );
    }
    text
}
