//! The row of latency at a fixed rate.
//!
//! What makes up a high quantile is waiting, and most of it can come from elsewhere: from other
//! work of the machine, or from a load and a backend that are busy all the time. Therefore load,
//! backend and proxy run before everything else where they may, and the rate is lowered until load
//! and backend leave a part of their core idle. How busy they were stands in the table. A core that
//! is idle does not sleep meanwhile.

use super::Options;
use super::contestant::Contestant;
use super::cost::ask;
use super::figures::{Sample, Unit, Usage, median, range};
use super::load::{Load, Tool};
use super::outcome::{Measured, Outcome, add_absent, heading, meets, ratios};
use super::rows::{MOST, Row};
use super::stage::{Awake, Cores, Proxy, Stage, may_be_timed};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// There are so many times as many rounds as in other rows, each of a part of the time: whatever
/// stops the machine for a moment is in few of them, and a quantile varies more than a sum.
const MORE_ROUNDS: usize = 10;
const PART: f64 = 0.2;
/// The core of load and backend is busy for at most this share of the time.
const MOST_BUSY: f64 = 0.9;
/// The rate is lowered by this factor, so often at most.
const LESS: f64 = 0.8;
const LOWERED: usize = 8;

/// How busy everyone was in a round, as shares of the time.
#[derive(Clone, Copy, Default)]
struct Busy {
    /// Load and backend, which share a core.
    others: f64,
    proxy: f64,
    /// The proxy was ready to run and had to wait for its core.
    waited: f64,
}

/// Finds the highest rate of the slowest contestant, then asks all at half of it, in turns.
pub(super) fn measure(
    row: &Row,
    contestants: &[&Contestant],
    load: &Load,
    options: &Options,
) -> Result<Outcome, String> {
    let cores = Cores::Timed;
    let stage = Stage::set(row.name, contestants, &row.setting, cores)?;
    let _awake = Awake::keep(stage.peer())?;
    let mut measured: Vec<Measured<'_>> =
        stage.proxies().iter().map(|proxy| Measured::new(proxy.contestant)).collect();
    let mut slowest = f64::INFINITY;
    for (proxy, one) in stage.proxies().iter().zip(&mut measured) {
        match ask(&stage, proxy, &MOST, cores, options.seconds) {
            Ok((answers, _, took)) => {
                slowest = slowest.min(answers.done as f64 / took.as_secs_f64());
            }
            Err(error) => one.add(Err(error)),
        }
    }
    if !slowest.is_finite() {
        return Err("nobody answered".to_string());
    }
    let half = (slowest / 2.0).floor();
    let rate = lower(&stage, &measured, load, half, options)?;
    let mut busy: Vec<Vec<Busy>> = measured.iter().map(|_| Vec::new()).collect();
    let rounds = options.rounds * MORE_ROUNDS;
    for _ in 0..rounds {
        for ((proxy, one), busy) in stage.proxies().iter().zip(&mut measured).zip(&mut busy) {
            if one.is_lost() {
                continue;
            }
            one.add(at_rate(&stage, proxy, load, rate, options).map(|(sample, share)| {
                busy.push(share);
                sample
            }));
        }
    }
    let mut text = heading(row) + &table(&measured, &busy);
    let met = |kind, ratio| meets(row.target, kind, ratio);
    let (lines, summary) = ratios(&measured, |sample| sample.p99_ms, met);
    let precedence = match may_be_timed() {
        true => "All ran under SCHED_FIFO, so that no other work delayed them.",
        false => "They had no precedence (SCHED_FIFO) over the machine's other work.",
    };
    let _ = writeln!(
        text,
        "\n{rate:.0} requests per second; half of what the slowest reaches is {half:.0}.\n\
         {precedence}\nMedians of {rounds} rounds of {} s. The ratios are of the 99th \
         percentile.\n{lines}",
        f64::from(options.seconds) * PART
    );
    let failed = measured.iter().map(Measured::failed).sum();
    let mut outcome = Outcome { text, summary, failed };
    add_absent(&mut outcome, stage.absent(), measured.iter());
    Ok(outcome)
}

/// The highest rate at which the core of load and backend has time left with every contestant.
fn lower(
    stage: &Stage<'_>,
    measured: &[Measured<'_>],
    load: &Load,
    half: f64,
    options: &Options,
) -> Result<f64, String> {
    let mut rate = half;
    for _ in 0..LOWERED {
        let mut most: f64 = 0.0;
        for (proxy, one) in stage.proxies().iter().zip(measured) {
            if !one.is_lost() {
                most = most.max(at_rate(stage, proxy, load, rate, options)?.1.others);
            }
        }
        if most <= MOST_BUSY {
            return Ok(rate);
        }
        rate = (rate * LESS).floor();
    }
    Err("load and backend are too busy at any rate".to_string())
}

/// One contestant at a rate.
fn at_rate(
    stage: &Stage<'_>,
    proxy: &Proxy<'_>,
    load: &Load,
    rate: f64,
    options: &Options,
) -> Result<(Sample, Busy), String> {
    debug_assert!(matches!(load.tool, Tool::Peer { .. }), "wrk has no fixed rate");
    let mut command = load.command(stage, proxy, Cores::Timed, options.seconds);
    let seconds = f64::from(options.seconds) * PART;
    command.arg(format!("seconds={seconds}")).arg(format!("rate={rate}"));
    let used = || -> Result<[Usage; 2], String> {
        Ok([Usage::of(proxy.pid())?, Usage::of(proxy.backend_pid())?])
    };
    let mut before = used()?;
    let mut start = Instant::now();
    let answers = load.run_telling(&mut command, || {
        start = Instant::now();
        before = used()?;
        Ok(())
    })?;
    let took = start.elapsed();
    let [of_proxy, of_backend] = used()?;
    let (own, backend) = (of_proxy.since(&before[0]), of_backend.since(&before[1]));
    let share = |ns: u64| Duration::from_nanos(ns).as_secs_f64() / took.as_secs_f64();
    let busy = Busy {
        others: share(backend.run_ns) + answers.cpu_ms / 1000.0 / took.as_secs_f64(),
        proxy: share(own.run_ns),
        waited: share(own.wait_ns),
    };
    Ok((Sample::new(&answers, &own, took, Unit::Request), busy))
}

fn table(measured: &[Measured<'_>], busy: &[Vec<Busy>]) -> String {
    let mut text = String::from(
        "| proxy | p50 ms | p99 ms | min | max | p99.9 ms | CPU us/request | busy % | waited % | \
         load and backend busy % | failed |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (one, busy) in measured.iter().zip(busy).filter(|(one, _)| !one.is_lost()) {
        let of = |value: fn(&Sample) -> f64| median(one.samples.iter().map(value));
        let share = |value: fn(&Busy) -> f64| 100.0 * median(busy.iter().map(value));
        let (least, most) = range(one.samples.iter().map(|sample| sample.p99_ms));
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} | {least:.3} | {most:.3} | {:.3} | {:.2} | {:.0} | {:.1} | {:.0} \
             | {} |",
            one.contestant.name(),
            of(|sample| sample.p50_ms),
            of(|sample| sample.p99_ms),
            of(|sample| sample.p999_ms),
            of(|sample| sample.cpu_us),
            share(|busy| busy.proxy),
            share(|busy| busy.waited),
            share(|busy| busy.others),
            one.failed(),
        );
    }
    text
}
