//! What a row came to: its table, and the line that it gets in the summary.

use super::contestant::{Contestant, Kind};
use super::figures::{self, Sample, median, range};
use super::rows::{Row, Target};
use std::fmt::Write as _;

/// A measured row.
pub(super) struct Outcome {
    /// Markdown, with its heading.
    pub(super) text: String,
    pub(super) summary: Summary,
    /// Requests that were not answered as they should.
    pub(super) failed: u64,
}

/// How heng stands to its target.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) heng: Option<Judged>,
    pub(super) uring: Option<Judged>,
    /// What heng's figure is compared with.
    pub(super) against: String,
}

#[derive(Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) text: String,
    pub(super) met: bool,
}

impl Summary {
    /// Sets the figure of one of the two.
    pub(super) fn set(&mut self, kind: Kind, text: String, met: bool) {
        match kind {
            Kind::Heng => self.heng = Some(Judged { text, met }),
            Kind::HengUring => self.uring = Some(Judged { text, met }),
            _ => {}
        }
    }

    /// A line of the table at the top of the results.
    pub(super) fn line(&self, row: &Row) -> String {
        let text = |judged: &Option<Judged>| {
            judged.as_ref().map_or_else(|| "–".to_string(), |judged| judged.text.clone())
        };
        let met = |judged: &Option<Judged>| match judged {
            None => "–",
            Some(judged) if judged.met => "yes",
            Some(_) => "no",
        };
        format!(
            "| `{}` | {} | {} | {} | {} | {} / {} |",
            row.name,
            text(&self.heng),
            text(&self.uring),
            self.against,
            row.target.text(),
            met(&self.heng),
            met(&self.uring)
        )
    }
}

impl Target {
    fn text(self) -> String {
        match self {
            Target::Ratio { epoll, uring } if epoll == uring => format!("<= {epoll:.2}"),
            Target::Ratio { epoll, uring } => format!("<= {epoll:.2} / {uring:.2}"),
            Target::Bytes(bytes) if bytes.is_finite() => {
                format!("<= {bytes:.0} B, less than the peers")
            }
            Target::Bytes(_) => "less than the peers".to_string(),
            Target::Cliff(most) => format!("<= {most:.2} of its own"),
            Target::Latency(most) => format!("p99 <= {most:.2}"),
            Target::Rise(most) => format!("<= {:.1} %", most * 100.0),
        }
    }
}

/// A contestant and what it took in each round.
pub(super) struct Measured<'a> {
    pub(super) contestant: &'a Contestant,
    pub(super) samples: Vec<Sample>,
    /// System calls for each unit, where they could be counted.
    pub(super) calls: Option<f64>,
    /// Why there are no figures of it.
    pub(super) lost: Option<String>,
}

impl<'a> Measured<'a> {
    pub(super) fn new(contestant: &'a Contestant) -> Measured<'a> {
        Measured { contestant, samples: Vec::new(), calls: None, lost: None }
    }

    /// Adds a round; one that could not be measured takes the contestant out of the row.
    pub(super) fn add(&mut self, sample: Result<Sample, String>) {
        match sample {
            Ok(sample) => self.samples.push(sample),
            Err(reason) => {
                self.samples.clear();
                self.lost = Some(reason);
            }
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    pub(super) fn failed(&self) -> u64 {
        self.samples.iter().map(|sample| sample.failed).sum()
    }
}

/// Adds to a row who has no figures and why: those that did not start, and those that were lost.
pub(super) fn add_absent<'a>(
    outcome: &mut Outcome,
    absent: &[String],
    measured: impl Iterator<Item = &'a Measured<'a>>,
) {
    let lost = measured.filter_map(|one| Some((one.contestant.name(), one.lost.as_ref()?)));
    let lost = lost.map(|(name, reason)| format!("{name}: {reason}"));
    for reason in absent.iter().cloned().chain(lost) {
        let reason = reason.trim().replace('\n', " ");
        let _ = writeln!(outcome.text, "\nNo figures of {reason}");
        outcome.failed += 1;
    }
}

/// How often and how long a row was measured.
pub(super) fn rounds_text(rounds: usize, seconds: u32) -> String {
    format!("\nMedians of {rounds} rounds of {seconds} s.\n")
}

/// The heading of a row.
pub(super) fn heading(row: &Row) -> String {
    format!("### {}: {}\n\n", row.name, row.text)
}

/// A figure, or a dash where there is none.
pub(super) fn shown(value: f64, digits: usize) -> String {
    match value.is_finite() {
        true => format!("{value:.digits$}"),
        false => "–".to_string(),
    }
}

/// Costs as a table. `unit` is what is counted; gibibytes cost milliseconds, others microseconds.
pub(super) fn costs(measured: &[Measured<'_>], unit: figures::Unit) -> String {
    let (scale, time) = match unit {
        figures::Unit::Gibibyte => (1e-3, "ms"),
        _ => (1.0, "us"),
    };
    let name = unit.name();
    let mut text = format!(
        "| proxy | CPU {time}/{name} | min | max | user | system | {name}s per CPU second | \
         {name}s/s | calls/{name} | p50 ms | p99 ms | failed |\n"
    );
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for one in measured {
        let of = |value: fn(&Sample) -> f64| median(one.samples.iter().map(value));
        let cpu = of(|sample| sample.cpu_us);
        let (least, most) = range(one.samples.iter().map(|sample| sample.cpu_us));
        let user = of(|sample| sample.user_us);
        let system = of(|sample| sample.cpu_us - sample.user_us);
        let rate = of(|sample| sample.per_second);
        let digits = |value: f64| if value < 100.0 { 2 } else { 0 };
        let _ = write!(text, "| {} ", one.contestant.name());
        for value in [cpu, least, most, user, system].map(|value| value * scale) {
            let _ = write!(text, "| {} ", shown(value, 2));
        }
        for value in [1e6 / cpu, rate] {
            let _ = write!(text, "| {} ", shown(value, digits(value)));
        }
        let calls = one.calls.unwrap_or(f64::NAN);
        let _ = write!(text, "| {} ", shown(calls, digits(calls)));
        let _ = write!(text, "| {} ", shown(of(|sample| sample.p50_ms), 2));
        let _ = write!(text, "| {} ", shown(of(|sample| sample.p99_ms), 2));
        let _ = writeln!(text, "| {} |", one.failed());
    }
    text
}

/// Everyone's ratio to the better peer as lines, and heng's for the summary. The peer is the one
/// whose median of `value` is smaller.
pub(super) fn ratios(
    measured: &[Measured<'_>],
    value: fn(&Sample) -> f64,
    met: impl Fn(Kind, f64) -> bool,
) -> (String, Summary) {
    let present = || measured.iter().filter(|one| !one.samples.is_empty());
    let peers: Vec<_> = present().filter(|one| one.contestant.is_peer()).collect();
    let costs: Vec<&[Sample]> = peers.iter().map(|one| one.samples.as_slice()).collect();
    let mut summary = Summary::default();
    let Some(peer) = figures::best(&costs, value).map(|best| peers[best]) else {
        return ("\nNo peer took part.\n".to_string(), summary);
    };
    let mut text = String::new();
    summary.against = peer.contestant.name().to_string();
    for own in present().filter(|one| !one.contestant.is_peer()) {
        let ratio = figures::ratio(&own.samples, &peer.samples, value);
        let name = own.contestant.name();
        let _ = writeln!(text, "\n{name} / {}: {ratio:.2}", summary.against);
        let kind = own.contestant.kind();
        summary.set(kind, format!("{ratio:.2}"), met(kind, ratio));
        let before = own.contestant.before();
        if let Some(other) = present().find(|one| Some(one.contestant.kind()) == before) {
            let ratio = figures::ratio(&own.samples, &other.samples, value);
            let _ = writeln!(text, "\n{name} / {}: {ratio:.3}", other.contestant.name());
        }
    }
    (text, summary)
}

/// Whether a ratio meets the target of a row.
pub(super) fn meets(target: Target, kind: Kind, ratio: f64) -> bool {
    match target {
        Target::Ratio { epoll, uring } => match kind {
            Kind::HengUring => ratio <= uring,
            _ => ratio <= epoll,
        },
        Target::Cliff(most) | Target::Latency(most) | Target::Rise(most) => ratio <= most,
        Target::Bytes(most) => ratio <= most,
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Unit;
    use super::super::rows;
    use super::*;

    fn measured(contestant: &Contestant, costs: [f64; 3], failed: u64) -> Measured<'_> {
        let sample = |cpu_us| Sample {
            cpu_us,
            user_us: cpu_us / 4.0,
            per_second: 1000.0,
            p50_ms: 1.0,
            p99_ms: f64::NAN,
            p999_ms: f64::NAN,
            failed,
        };
        Measured { samples: costs.map(sample).to_vec(), ..Measured::new(contestant) }
    }

    #[test]
    fn the_better_peer_is_the_measure() {
        let kinds = [Kind::Heng, Kind::HengUring, Kind::Before, Kind::Nginx, Kind::Haproxy];
        let contestants = kinds.map(Contestant::of_kind);
        let costs_of = [[6.0; 3], [5.0; 3], [8.0; 3], [10.0, 12.0, 10.0], [20.0, 8.0, 20.0]];
        let all: Vec<Measured<'_>> = contestants
            .iter()
            .zip(costs_of)
            .map(|(contestant, costs)| measured(contestant, costs, 0))
            .collect();
        let target = Target::Ratio { epoll: 0.65, uring: 0.45 };
        let (text, summary) =
            ratios(&all, |sample| sample.cpu_us, |kind, ratio| meets(target, kind, ratio));
        assert!(text.contains("heng / nginx: 0.60"), "{text}");
        assert!(text.contains("heng / heng-before: 0.750"), "{text}");
        assert_eq!(summary.against, "nginx");
        assert_eq!(summary.heng, Some(Judged { text: "0.60".into(), met: true }));
        assert_eq!(summary.uring, Some(Judged { text: "0.50".into(), met: false }));
        let row = rows::all().find(|row| row.name == "small").unwrap();
        let line = summary.line(row);
        assert_eq!(line, "| `small` | 0.60 | 0.50 | nginx | <= 0.65 / 0.55 | yes / no |");
    }

    #[test]
    fn who_is_lost_leaves_the_others_their_figures() {
        let kinds = [Kind::Heng, Kind::HengUring, Kind::Nginx, Kind::Haproxy];
        let contestants = kinds.map(Contestant::of_kind);
        let mut all: Vec<Measured<'_>> = contestants
            .iter()
            .zip([6.0, 5.0, 10.0, 1.0])
            .map(|(contestant, cost)| measured(contestant, [cost; 3], 0))
            .collect();
        all[1].add(Err("no answers".to_string()));
        all[3].add(Err("no answers:\nnone".to_string()));
        let (text, summary) = ratios(&all, |sample| sample.cpu_us, |_, _| true);
        assert_eq!(text, "\nheng / nginx: 0.60\n");
        assert!(summary.uring.is_none());
        let mut outcome = Outcome { text, summary, failed: 0 };
        add_absent(&mut outcome, &["heng-before: ended".to_string()], all.iter());
        assert!(outcome.text.contains("No figures of heng-before: ended\n"), "{}", outcome.text);
        assert!(outcome.text.ends_with("haproxy: no answers: none\n"), "{}", outcome.text);
        assert_eq!(outcome.failed, 3);
        assert!(costs(&all, Unit::Request).contains("| haproxy | – |"));
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let nginx = Contestant::of_kind(Kind::Nginx);
        let text = costs(&[measured(&nginx, [2000.0, 1000.0, 3000.0], 1)], Unit::Gibibyte);
        let line = text.lines().last().unwrap();
        assert!(line.starts_with("| nginx | 2.00 | 1.00 | 3.00 | 0.50 | 1.50 |"), "{line}");
        assert!(line.ends_with("| – | 1.00 | – | 3 |"), "{line}");
        let row = rows::all().next().unwrap();
        assert!(Summary::default().line(row).ends_with("| – / – |"));
    }
}
