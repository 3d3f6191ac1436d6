//! Figures: CPU time and memory of a family of processes, medians, ratios and slopes.

use super::load::Answers;
use std::fs;
use std::time::Duration;

/// CPU time that processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// On the processor, in nanoseconds: proc(5) `schedstat` of every thread.
    pub(super) run_ns: u64,
    /// Ready to run, but waiting for the processor: the second field there.
    pub(super) wait_ns: u64,
    /// In user mode and in the kernel, in clock ticks: proc(5) `stat`.
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
}

impl Usage {
    /// Of a process and its children.
    pub(super) fn of(pid: u32) -> Result<Usage, String> {
        let mut sum = Usage::default();
        for pid in family(pid)? {
            let (run, wait) = schedstat(pid)?;
            sum.run_ns += run;
            sum.wait_ns += wait;
            let (user, system) = ticks(&read(pid, "stat")?).unwrap_or((0, 0));
            sum.user_ticks += user;
            sum.system_ticks += system;
        }
        Ok(sum)
    }

    /// What was used since an earlier look.
    pub(super) fn since(&self, before: &Usage) -> Usage {
        Usage {
            run_ns: self.run_ns.saturating_sub(before.run_ns),
            wait_ns: self.wait_ns.saturating_sub(before.wait_ns),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }
}

/// What all threads of a process ran and waited; the kernel's workers for io_uring are among them.
fn schedstat(pid: u32) -> Result<(u64, u64), String> {
    let path = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&path).map_err(|error| format!("cannot list {path}: {error}"))?;
    let (mut run, mut wait) = (0, 0);
    for thread in threads.flatten() {
        // A thread may have ended meanwhile.
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let mut numbers = text.split_whitespace().filter_map(|text| text.parse::<u64>().ok());
        run += numbers.next().unwrap_or(0);
        wait += numbers.next().unwrap_or(0);
    }
    Ok((run, wait))
}

/// utime and stime, fields 14 and 15 of proc(5) `stat`; the name in field 2 may hold spaces.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut words = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn read(pid: u32, name: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// A process and its children, from proc(5) `task/PID/children`.
pub(super) fn family(pid: u32) -> Result<Vec<u32>, String> {
    let children = read(pid, &format!("task/{pid}/children"))?;
    let children = children.split_whitespace().filter_map(|text| text.parse().ok());
    Ok([pid].into_iter().chain(children).collect())
}

/// Memory that only these processes have, in bytes: proc(5) `smaps_rollup`.
pub(super) fn private_bytes(pid: u32) -> Result<u64, String> {
    rollup(pid, "Private_")
}

/// All memory of these processes, in bytes, shared pages divided by those who share them.
pub(super) fn proportional_bytes(pid: u32) -> Result<u64, String> {
    rollup(pid, "Pss:")
}

/// The sum of the lines of proc(5) `smaps_rollup` that begin so, of a process and its children.
fn rollup(pid: u32, beginning: &str) -> Result<u64, String> {
    let mut kib = 0;
    for pid in family(pid)? {
        let rollup = read(pid, "smaps_rollup")?;
        let lines = rollup.lines().filter(|line| line.starts_with(beginning));
        kib += lines
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(kib * 1024)
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Request,
    Handshake,
    Session,
    Message,
    Packet,
    /// 2^30 bytes that came through.
    Gibibyte,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Request => "request",
            Unit::Handshake => "handshake",
            Unit::Session => "session",
            Unit::Message => "message",
            Unit::Packet => "packet",
            Unit::Gibibyte => "GiB",
        }
    }

    /// How many of them a load had.
    fn of(self, answers: &Answers) -> f64 {
        match self {
            Unit::Gibibyte => answers.bytes as f64 / f64::from(1 << 30),
            _ => answers.done as f64,
        }
    }
}

/// One contestant in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// For each unit.
    pub(super) cpu_us: f64,
    pub(super) user_us: f64,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) failed: u64,
}

impl Sample {
    pub(super) fn new(answers: &Answers, used: &Usage, took: Duration, unit: Unit) -> Sample {
        let units = unit.of(answers);
        let cpu_us = used.run_ns as f64 / 1000.0 / units;
        // Ticks are coarse; only how they divide the time is taken from them.
        let ticks = (used.user_ticks + used.system_ticks).max(1) as f64;
        Sample {
            cpu_us,
            user_us: cpu_us * used.user_ticks as f64 / ticks,
            per_second: units / took.as_secs_f64(),
            p50_ms: answers.p50_ms,
            p99_ms: answers.p99_ms,
            p999_ms: answers.p999_ms,
            failed: answers.failed,
        }
    }
}

/// How many of a unit there were, for figures that are not of time.
pub(super) fn units(answers: &Answers, unit: Unit) -> f64 {
    unit.of(answers)
}

/// The middle value; the mean of both where there are two.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

/// Which of several contestants costs the least.
pub(super) fn best(samples: &[&[Sample]], value: fn(&Sample) -> f64) -> Option<usize> {
    let cost = |samples: &[Sample]| median(samples.iter().map(value));
    (0..samples.len()).min_by(|a, b| cost(samples[*a]).total_cmp(&cost(samples[*b])))
}

/// The median of the ratios of two contestants within each round.
pub(super) fn ratio(own: &[Sample], peer: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    median(own.iter().zip(peer).map(|(own, peer)| value(own) / value(peer)))
}

/// The smallest and the largest value; not a number of none.
pub(super) fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (values.clone().fold(f64::NAN, f64::min), values.fold(f64::NAN, f64::max))
}

/// By how much a line through the points rises from the first to the last of them, as a share of
/// where it begins. The line is that of least squares.
pub(super) fn rise(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let slope = covariance / variance;
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        return f64::NAN;
    };
    slope * (last - first) / (mean_y + slope * (first - mean_x))
}

/// The processor, the kernel, and how busy the machine is otherwise.
pub(super) fn machine() -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = file("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = file("/proc/sys/kernel/osrelease");
    let load = file("/proc/loadavg");
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!("{count} x {model}, Linux {}, load average {load} at the start", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 250 0 0 20 0 1 0 5 6 7\n";
        assert_eq!(ticks(stat), Some((150, 250)));
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let samples = |costs: &[f64]| -> Vec<Sample> {
            let sample = |cpu_us: &f64| Sample {
                cpu_us: *cpu_us,
                user_us: 0.0,
                per_second: 0.0,
                p50_ms: 0.0,
                p99_ms: 0.0,
                p999_ms: 0.0,
                failed: 0,
            };
            costs.iter().map(sample).collect()
        };
        // The second round was noisy for all.
        let rounds = [
            samples(&[5.0, 20.0, 5.0]),
            samples(&[11.0, 50.0, 12.0]),
            samples(&[10.0, 40.0, 10.0]),
        ];
        let cost = |sample: &Sample| sample.cpu_us;
        assert_eq!(best(&[&rounds[1], &rounds[2]], cost), Some(1));
        assert_eq!(ratio(&rounds[0], &rounds[2], cost), 0.5);
        assert_eq!(median([3.0, 1.0].into_iter()), 2.0);
        assert_eq!(range([3.0, 1.0, 2.0].into_iter()), (1.0, 3.0));
    }

    #[test]
    fn samples_are_by_unit() {
        let answers = Answers { done: 100, bytes: 1 << 29, failed: 1, ..Answers::default() };
        let used = Usage { run_ns: 1_000_000, user_ticks: 1, system_ticks: 3, ..Usage::default() };
        let second = Duration::from_secs(2);
        let sample = Sample::new(&answers, &used, second, Unit::Request);
        assert_eq!((sample.cpu_us, sample.user_us, sample.per_second), (10.0, 2.5, 50.0));
        let sample = Sample::new(&answers, &used, second, Unit::Gibibyte);
        assert_eq!((sample.cpu_us, sample.per_second), (2000.0, 0.25));
    }

    #[test]
    fn a_rise_is_that_of_the_line() {
        assert_eq!(rise(&[(0.0, 100.0), (1.0, 105.0), (2.0, 110.0)]), 0.1);
        assert_eq!(rise(&[(0.0, 5.0), (1.0, 5.0), (2.0, 5.0)]), 0.0);
        assert!(rise(&[]).is_nan());
    }
}
