//! Rows of memory: for each idle connection, and over time.

use super::Options;
use super::contestant::Contestant;
use super::figures;
use super::load::{Load, Port};
use super::outcome::{Outcome, Summary, add_absent, heading, meets};
use super::rows::Row;
use super::scene::descriptors;
use super::stage::{Cores, Stage};
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// So many connections open what all share.
const WARM: u32 = 200;
/// Between two looks at memory over time.
const LOOK: Duration = Duration::from_secs(1);

/// Private memory per idle connection, one contestant after another.
pub(super) fn measure_idle(
    row: &Row,
    contestants: &[&Contestant],
    (kind, port, connections): (&str, Port, u32),
) -> Result<Outcome, String> {
    // A session through a proxy of TCP holds two descriptors.
    let most = descriptors().saturating_sub(1000) / 2;
    let connections = u64::from(connections).min(most) as u32;
    let mut text = heading(row);
    text.push_str("| proxy | bytes per connection | KiB with one |\n|---|---|---|\n");
    let mut found = Vec::new();
    let mut lost = Vec::new();
    for contestant in contestants {
        match idle_of(row, contestant, (kind, port, connections)) {
            Ok((bare, each)) => {
                let _ = writeln!(text, "| {} | {each:.0} | {bare} |", contestant.name());
                found.push((*contestant, each));
            }
            Err(error) => lost.push(error),
        }
    }
    let _ = writeln!(text, "\nOf {connections} connections.");
    let mut outcome = Outcome { text, summary: judge_idle(row, &found), failed: 0 };
    add_absent(&mut outcome, &lost, std::iter::empty());
    Ok(outcome)
}

/// Memory of one contestant with one connection, in KiB, and for each further one, in bytes.
fn idle_of(
    row: &Row,
    contestant: &Contestant,
    (kind, port, connections): (&str, Port, u32),
) -> Result<(u64, f64), String> {
    let stage = Stage::set(row.name, &[contestant], &row.setting, Cores::One)?;
    let Some(proxy) = stage.proxies().first() else { return Err(stage.absent().concat()) };
    let named = |error: String| format!("{}: {error}", contestant.name());
    // The port may accept before the worker is there; the first answer comes from it.
    let first = stage.idle_clients(port.of(proxy), kind, 1).map_err(named)?;
    let bare = figures::private_bytes(proxy.pid())?;
    let warm = stage.idle_clients(port.of(proxy), kind, WARM).map_err(named)?;
    let before = figures::private_bytes(proxy.pid())?;
    let many = stage.idle_clients(port.of(proxy), kind, connections).map_err(named)?;
    let after = figures::private_bytes(proxy.pid())?;
    drop((first, warm, many));
    Ok((bare / 1024, after.saturating_sub(before) as f64 / f64::from(connections)))
}

fn judge_idle(row: &Row, found: &[(&Contestant, f64)]) -> Summary {
    let mut summary = Summary::default();
    let peers = found.iter().filter(|(one, _)| one.is_peer());
    let Some((peer, least)) = peers.min_by(|(_, a), (_, b)| a.total_cmp(b)) else {
        return summary;
    };
    summary.against = format!("{} ({least:.0} B)", peer.name());
    for (one, bytes) in found {
        let met = meets(row.target, one.kind(), *bytes) && bytes < least;
        summary.set(one.kind(), format!("{bytes:.0} B"), met);
    }
    summary
}

/// Growth of private memory while all contestants are under the same mixture of loads at once.
pub(super) fn measure_growth(
    row: &Row,
    contestants: &[&Contestant],
    load: &Load,
    options: &Options,
) -> Result<Outcome, String> {
    let (from, seconds) = options.growth_window();
    let stage = Stage::set(row.name, contestants, &row.setting, Cores::One)?;
    let mut loads = Vec::new();
    for proxy in stage.proxies() {
        let mut command = load.command(&stage, proxy, Cores::Apart, seconds);
        let child = command.stdout(Stdio::piped()).spawn();
        loads.push(child.map_err(|error| format!("cannot run {command:?}: {error}"))?);
    }
    let start = Instant::now();
    let mut points: Vec<Vec<(f64, f64)>> = loads.iter().map(|_| Vec::new()).collect();
    while start.elapsed() + LOOK < Duration::from_secs(u64::from(seconds)) {
        std::thread::sleep(LOOK);
        for (proxy, points) in stage.proxies().iter().zip(&mut points) {
            // One that is gone has no more points, and its load tells why.
            if let Ok(bytes) = figures::private_bytes(proxy.pid()) {
                points.push((start.elapsed().as_secs_f64(), bytes as f64));
            }
        }
    }
    let mut text = heading(row);
    text.push_str("| proxy | KiB after the first second | KiB at the end | growth, % | actions | ");
    text.push_str("failed |\n|---|---|---|---|---|---|\n");
    let mut summary = Summary { against: "itself".to_string(), ..Summary::default() };
    let mut failed = 0;
    let mut lost = Vec::new();
    for ((proxy, points), child) in stage.proxies().iter().zip(&points).zip(loads) {
        let contestant = proxy.contestant;
        let output = child.wait_with_output().map_err(|error| format!("a load: {error}"))?;
        let Some(answers) = load.read(&String::from_utf8_lossy(&output.stdout)) else {
            lost.push(format!("{}: the load told nothing", contestant.name()));
            continue;
        };
        let late: Vec<(f64, f64)> =
            points.iter().filter(|(time, _)| *time >= f64::from(from)).copied().collect();
        let growth = figures::rise(&late);
        let kib = |point: Option<&(f64, f64)>| point.map_or(f64::NAN, |(_, bytes)| bytes / 1024.0);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.2} | {} | {} |",
            contestant.name(),
            kib(points.first()),
            kib(points.last()),
            growth * 100.0,
            answers.done,
            answers.failed,
        );
        failed += answers.failed;
        let met = meets(row.target, contestant.kind(), growth);
        summary.set(contestant.kind(), format!("{:.2} %", growth * 100.0), met);
    }
    let _ = writeln!(
        text,
        "\nGrowth is that of a line through the figures of every second from second {from} to \
         second {seconds}."
    );
    let mut outcome = Outcome { text, summary, failed };
    lost.extend_from_slice(stage.absent());
    add_absent(&mut outcome, &lost, std::iter::empty());
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::super::contestant::Kind;
    use super::super::outcome::Judged;
    use super::super::rows::{self, Target};
    use super::*;

    #[test]
    fn idle_memory_is_held_against_a_limit_and_the_peers() {
        let row = rows::all().find(|row| row.name == "idle").unwrap();
        assert_eq!(row.target, Target::Bytes(300.0));
        let kinds = [Kind::Heng, Kind::HengUring, Kind::Nginx, Kind::Haproxy];
        let contestants = kinds.map(Contestant::of_kind);
        let found: Vec<_> = contestants.iter().zip([290.0, 310.0, 536.0, 1144.0]).collect();
        let summary = judge_idle(row, &found);
        assert_eq!(summary.against, "nginx (536 B)");
        assert_eq!(summary.heng, Some(Judged { text: "290 B".into(), met: true }));
        assert_eq!(summary.uring, Some(Judged { text: "310 B".into(), met: false }));
    }
}
