//! Rows of CPU time: for each unit, after a start, and as a multiple of a light load.

use super::calls;
use super::contestant::{Contestant, Kind};
use super::figures::{self, Sample, Unit, Usage, median};
use super::load::{Answers, Load};
use super::outcome::{
    Measured, Outcome, Summary, add_absent, costs, heading, meets, ratios, rounds_text, shown,
};
use super::rows::{Idle, Row};
use super::scene::descriptors;
use super::stage::{Cores, Proxy, Running, Stage};
use super::{Options, outcome};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// So often a start is timed.
const STARTS: usize = 3;

/// Asks one contestant for so long.
pub(super) fn ask(
    stage: &Stage<'_>,
    proxy: &Proxy<'_>,
    load: &Load,
    cores: Cores,
    seconds: u32,
) -> Result<(Answers, Usage, Duration), String> {
    let mut command = load.command(stage, proxy, cores, seconds);
    let pid = proxy.pid();
    let mut before = Usage::of(pid)?;
    let mut start = Instant::now();
    // A load that opens many connections says when it begins to count.
    let answers = load.run_telling(&mut command, || {
        start = Instant::now();
        before = Usage::of(pid)?;
        Ok(())
    })?;
    let took = start.elapsed();
    Ok((answers, Usage::of(pid)?.since(&before), took))
}

/// Asks all contestants in turns, and counts system calls in a round of its own.
fn rounds<'a>(
    stage: &Stage<'a>,
    load: &Load,
    unit: Unit,
    cores: Cores,
    options: &Options,
) -> Vec<Measured<'a>> {
    let proxies = stage.proxies();
    let mut measured: Vec<Measured<'a>> =
        proxies.iter().map(|proxy| Measured::new(proxy.contestant)).collect();
    for round in 0..=options.rounds {
        // Who begins has a machine at rest, so everybody begins in turn.
        for turn in 0..proxies.len() {
            let at = (round + turn) % proxies.len();
            let (proxy, one) = (&proxies[at], &mut measured[at]);
            if one.is_lost() {
                continue;
            }
            // The first round opens files, connections and memory; it does not count.
            let seconds = if round == 0 { 1 } else { options.seconds };
            match ask(stage, proxy, load, cores, seconds) {
                Ok(_) if round == 0 => {}
                Ok((answers, used, took)) => {
                    one.add(Ok(Sample::new(&answers, &used, took, unit)));
                }
                Err(error) => one.add(Err(error)),
            }
        }
    }
    for (proxy, one) in proxies.iter().zip(&mut measured).filter(|(_, one)| !one.is_lost()) {
        one.calls = calls::per_unit(stage, proxy, load, cores, unit);
    }
    measured
}

/// A row of costs.
pub(super) fn measure(
    row: &Row,
    contestants: &[&Contestant],
    (load, unit, cores): (&Load, Unit, Cores),
    options: &Options,
) -> Result<Outcome, String> {
    let stage = Stage::set(row.name, contestants, &row.setting, cores)?;
    let measured = rounds(&stage, load, unit, cores, options);
    Ok(finish(row, &stage, &measured, unit, options))
}

fn finish(
    row: &Row,
    stage: &Stage<'_>,
    measured: &[Measured<'_>],
    unit: Unit,
    options: &Options,
) -> Outcome {
    let met = |kind, ratio| meets(row.target, kind, ratio);
    let (lines, summary) = ratios(measured, |sample| sample.cpu_us, met);
    let failed = measured.iter().map(Measured::failed).sum();
    let rounds = rounds_text(options.rounds, options.seconds);
    let text = heading(row) + &costs(measured, unit) + &rounds + &lines;
    let mut outcome = Outcome { text, summary, failed };
    add_absent(&mut outcome, stage.absent(), measured.iter());
    outcome
}

/// A row of costs with what the start took, and the memory after it.
pub(super) fn measure_start(
    row: &Row,
    contestants: &[&Contestant],
    load: &Load,
    options: &Options,
) -> Result<Outcome, String> {
    let mut times: Vec<(Kind, [f64; 2])> = Vec::new();
    let mut note = |stage: &Stage<'_>| {
        for proxy in stage.proxies() {
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            times.push((proxy.contestant.kind(), [ms(proxy.started_in), ms(proxy.start_cpu)]));
        }
    };
    for _ in 1..STARTS {
        note(&Stage::set(row.name, contestants, &row.setting, Cores::One)?);
    }
    let stage = Stage::set(row.name, contestants, &row.setting, Cores::One)?;
    note(&stage);
    let mut text = String::from("\n| proxy | start, ms | CPU ms of it | memory after it, KiB |\n");
    text.push_str("|---|---|---|---|\n");
    for proxy in stage.proxies() {
        let contestant = proxy.contestant;
        let memory = figures::proportional_bytes(proxy.pid())? / 1024;
        let own = || times.iter().filter(|(kind, _)| *kind == contestant.kind());
        let [start, cpu] = [0, 1].map(|place| median(own().map(|(_, times)| times[place])));
        let _ = writeln!(text, "| {} | {start:.0} | {cpu:.0} | {memory} |", contestant.name());
    }
    let _ = writeln!(text, "\nMedians of {STARTS} starts.");
    let unit = Unit::Request;
    let measured = rounds(&stage, load, unit, Cores::One, options);
    let mut outcome = finish(row, &stage, &measured, unit, options);
    outcome.text.push_str(&text);
    Ok(outcome)
}

/// A row of what a heavy load costs as a multiple of a light one.
pub(super) fn measure_cliff(
    row: &Row,
    contestants: &[&Contestant],
    (light, heavy, idle): (&Load, &Load, Idle),
    options: &Options,
) -> Result<Outcome, String> {
    let most = descriptors();
    // A connection that waits for its answer holds two descriptors of a proxy.
    let connections = u64::from(heavy.connections).min(most.saturating_sub(600) / 2);
    let heavy = Load { connections: connections as u32, ..*heavy };
    let stage = Stage::set(row.name, contestants, &row.setting, Cores::One)?;
    let besides = match idle {
        Idle::None => None,
        Idle::Connections(count) => {
            let name = format!("{}-beside", row.name);
            let other = Stage::set(&name, contestants, &row.setting, Cores::One)?;
            let count = u64::from(count).min(most.saturating_sub(3000)) as u32;
            let clients: Vec<Result<Running, String>> = other
                .proxies()
                .iter()
                .map(|proxy| other.idle_clients(proxy.ports.first, "plain", count))
                .collect();
            Some((other, clients, count))
        }
    };
    let under_load = besides.as_ref().map_or(&stage, |(other, ..)| other);
    let mut both = [&stage, under_load].map(|stage| -> Vec<Measured<'_>> {
        stage.proxies().iter().map(|proxy| Measured::new(proxy.contestant)).collect()
    });
    // Without its idle connections a contestant has no heavy load.
    for (one, clients) in both[1].iter_mut().zip(besides.iter().flat_map(|(_, clients, _)| clients))
    {
        if let Err(error) = clients {
            one.add(Err(error.clone()));
        }
    }
    for round in 0..=options.rounds {
        for contestant in contestants {
            for (stage, (load, measured)) in
                [&stage, under_load].into_iter().zip([light, &heavy].into_iter().zip(&mut both))
            {
                let mut pairs = stage.proxies().iter().zip(measured);
                let own = pairs.find(|(_, one)| one.contestant.kind() == contestant.kind());
                let Some((proxy, one)) = own.filter(|(_, one)| !one.is_lost()) else { continue };
                match ask(stage, proxy, load, Cores::One, options.seconds) {
                    Ok(_) if round == 0 => {}
                    Ok((answers, used, took)) => {
                        one.add(Ok(Sample::new(&answers, &used, took, Unit::Request)));
                    }
                    Err(error) => one.add(Err(error)),
                }
            }
        }
    }
    let mut outcome = cliff_table(row, &both);
    outcome.text.push_str(&rounds_text(options.rounds, options.seconds));
    let used = match &besides {
        Some((.., count)) => format!("{} connections beside {count} idle ones", heavy.connections),
        None => format!("{} connections", heavy.connections),
    };
    let _ = writeln!(
        outcome.text,
        "\nThe heavy load had {used}: a process has {most} descriptors here."
    );
    let mut absent = [stage.absent(), under_load.absent()].concat();
    absent.sort_unstable();
    absent.dedup();
    add_absent(&mut outcome, &absent, both.iter().flatten());
    Ok(outcome)
}

fn cliff_table(row: &Row, [light, heavy]: &[Vec<Measured<'_>>; 2]) -> Outcome {
    let mut text = heading(row);
    text.push_str("| proxy | CPU us/request, light | heavy | heavy / light | min | max | ");
    text.push_str("requests/s | p99 ms | failed |\n|---|---|---|---|---|---|---|---|---|\n");
    let mut summary = Summary { against: "its own light load".to_string(), ..Summary::default() };
    let mut failed = 0;
    for heavy in heavy {
        let kind = heavy.contestant.kind();
        let Some(light) = light.iter().find(|light| light.contestant.kind() == kind) else {
            continue;
        };
        let cost = |one: &Measured<'_>| median(one.samples.iter().map(|sample| sample.cpu_us));
        let pairs = || heavy.samples.iter().zip(&light.samples);
        let times = || pairs().map(|(heavy, light)| heavy.cpu_us / light.cpu_us);
        let (least, most) = figures::range(times());
        let ratio = median(times());
        let lost = light.failed() + heavy.failed();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {lost} |",
            heavy.contestant.name(),
            shown(cost(light), 2),
            shown(cost(heavy), 2),
            shown(ratio, 2),
            shown(least, 2),
            shown(most, 2),
            shown(median(heavy.samples.iter().map(|sample| sample.per_second)), 0),
            shown(median(heavy.samples.iter().map(|sample| sample.p99_ms)), 1),
        );
        failed += lost;
        if ratio.is_finite() {
            summary.set(kind, format!("{ratio:.2}"), outcome::meets(row.target, kind, ratio));
        }
    }
    // How heng stands to the peers under the heavy load is told too; the target is its own cliff.
    let (lines, _) = ratios(heavy, |sample| sample.cpu_us, |_, _| true);
    Outcome { text: text + &lines, summary, failed }
}
