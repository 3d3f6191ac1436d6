//! Rows of CPU time: for each unit, after a start, and as a multiple of a light load.

use super::calls;
use super::contestant::Contestant;
use super::figures::{self, Sample, Unit, Usage, median};
use super::load::{Answers, Load};
use super::outcome::{Measured, Outcome, Summary, costs, heading, meets, ratios, shown};
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
    stage: &Stage,
    proxy: &Proxy,
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
    stage: &Stage,
    contestants: &[&'a Contestant],
    load: &Load,
    unit: Unit,
    cores: Cores,
    options: &Options,
) -> Result<Vec<Measured<'a>>, String> {
    let mut measured: Vec<Measured<'a>> = contestants
        .iter()
        .map(|contestant| Measured { contestant, samples: Vec::new(), calls: None })
        .collect();
    for round in 0..=options.rounds {
        for (proxy, one) in stage.proxies().iter().zip(&mut measured) {
            // The first round opens files, connections and memory; it does not count.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let (answers, used, took) = ask(stage, proxy, load, cores, seconds)
                .map_err(|error| format!("{}: {error}", one.contestant.name()))?;
            if round > 0 {
                one.samples.push(Sample::new(&answers, &used, took, unit));
            }
        }
    }
    for (proxy, one) in stage.proxies().iter().zip(&mut measured) {
        one.calls = calls::per_unit(stage, proxy, load, cores, unit);
    }
    Ok(measured)
}

/// A row of costs.
pub(super) fn measure(
    row: &Row,
    contestants: &[&Contestant],
    (load, unit, cores): (&Load, Unit, Cores),
    options: &Options,
) -> Result<Outcome, String> {
    let stage = Stage::set(row.name, contestants, &row.setting, cores)?;
    let measured = rounds(&stage, contestants, load, unit, cores, options)?;
    Ok(finish(row, &measured, unit))
}

fn finish(row: &Row, measured: &[Measured<'_>], unit: Unit) -> Outcome {
    let met = |kind, ratio| meets(row.target, kind, ratio);
    let (lines, summary) = ratios(measured, |sample| sample.cpu_us, met);
    let failed = measured.iter().map(Measured::failed).sum();
    Outcome { text: heading(row) + &costs(measured, unit) + &lines, summary, failed }
}

/// A row of costs with what the start took, and the memory after it.
pub(super) fn measure_start(
    row: &Row,
    contestants: &[&Contestant],
    load: &Load,
    options: &Options,
) -> Result<Outcome, String> {
    let mut times: Vec<Vec<[f64; 2]>> = contestants.iter().map(|_| Vec::new()).collect();
    let mut note = |stage: &Stage| {
        for (proxy, times) in stage.proxies().iter().zip(&mut times) {
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            times.push([ms(proxy.started_in), ms(proxy.start_cpu)]);
        }
    };
    for _ in 1..STARTS {
        note(&Stage::set(row.name, contestants, &row.setting, Cores::One)?);
    }
    let stage = Stage::set(row.name, contestants, &row.setting, Cores::One)?;
    note(&stage);
    let mut text = String::from("\n| proxy | start, ms | CPU ms of it | memory after it, KiB |\n");
    text.push_str("|---|---|---|---|\n");
    for ((contestant, proxy), times) in contestants.iter().zip(stage.proxies()).zip(&times) {
        let memory = figures::proportional_bytes(proxy.pid())? / 1024;
        let [start, cpu] = [0, 1].map(|place| median(times.iter().map(|times| times[place])));
        let _ = writeln!(text, "| {} | {start:.0} | {cpu:.0} | {memory} |", contestant.name());
    }
    let unit = Unit::Request;
    let measured = rounds(&stage, contestants, load, unit, Cores::One, options)?;
    let mut outcome = finish(row, &measured, unit);
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
            let clients = other.proxies().iter();
            let clients: Result<Vec<Running>, String> = clients
                .map(|proxy| other.idle_clients(proxy.ports.first, "plain", count))
                .collect();
            Some((other, clients?, count))
        }
    };
    let under_load = besides.as_ref().map_or(&stage, |(other, ..)| other);
    let mut samples: Vec<[Vec<Sample>; 2]> =
        contestants.iter().map(|_| Default::default()).collect();
    for round in 0..=options.rounds {
        for (number, samples) in samples.iter_mut().enumerate() {
            let named = |error: String| format!("{}: {error}", contestants[number].name());
            for (place, (stage, load)) in
                [(&stage, light), (under_load, &heavy)].into_iter().enumerate()
            {
                let proxy = &stage.proxies()[number];
                let (answers, used, took) =
                    ask(stage, proxy, load, Cores::One, options.seconds).map_err(named)?;
                if round > 0 {
                    samples[place].push(Sample::new(&answers, &used, took, Unit::Request));
                }
            }
        }
    }
    let mut outcome = cliff_table(row, contestants, &samples);
    let used = match &besides {
        Some((.., count)) => format!("{} connections beside {count} idle ones", heavy.connections),
        None => format!("{} connections", heavy.connections),
    };
    let _ = writeln!(
        outcome.text,
        "\nThe heavy load had {used}: a process has {most} descriptors here."
    );
    Ok(outcome)
}

fn cliff_table(row: &Row, contestants: &[&Contestant], samples: &[[Vec<Sample>; 2]]) -> Outcome {
    let mut text = heading(row);
    text.push_str("| proxy | CPU us/request, light | heavy | heavy / light | min | max | ");
    text.push_str("requests/s | p99 ms | failed |\n|---|---|---|---|---|---|---|---|---|\n");
    let mut summary = Summary { against: "its own light load".to_string(), ..Summary::default() };
    let mut failed = 0;
    for (contestant, [light, heavy]) in contestants.iter().zip(samples) {
        let cost = |samples: &[Sample]| median(samples.iter().map(|sample| sample.cpu_us));
        let times = || heavy.iter().zip(light).map(|(heavy, light)| heavy.cpu_us / light.cpu_us);
        let (least, most) = figures::range(times());
        let ratio = median(times());
        let lost: u64 = light.iter().chain(heavy).map(|sample| sample.failed).sum();
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {ratio:.2} | {least:.2} | {most:.2} | {:.0} | {} | {lost} |",
            contestant.name(),
            cost(light),
            cost(heavy),
            median(heavy.iter().map(|sample| sample.per_second)),
            shown(median(heavy.iter().map(|sample| sample.p99_ms)), 1),
        );
        failed += lost;
        let kind = contestant.kind();
        summary.set(kind, format!("{ratio:.2}"), outcome::meets(row.target, kind, ratio));
    }
    let heavy: Vec<Measured<'_>> = contestants
        .iter()
        .zip(samples)
        .map(|(contestant, [_, heavy])| Measured {
            contestant,
            samples: heavy.clone(),
            calls: None,
        })
        .collect();
    // How heng stands to the peers under the heavy load is told too; the target is its own cliff.
    let (lines, _) = ratios(&heavy, |sample| sample.cpu_us, |_, _| true);
    Outcome { text: text + &lines, summary, failed }
}
