//! Figures: CPU time and memory of a family of processes, what wrk says, medians and ratios.

use std::fs;
use std::process::Command;

/// CPU time that processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// On the processor, in nanoseconds: proc(5) `schedstat`.
    pub(super) run_ns: u64,
    /// In user mode and in the kernel, in clock ticks: proc(5) `stat`.
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
}

impl Usage {
    /// Of a process and its children.
    pub(super) fn of(pid: u32) -> Result<Usage, String> {
        let mut sum = Usage::default();
        for pid in family(pid)? {
            let run = read(pid, "schedstat")?;
            let first = run.split_whitespace().next().and_then(|text| text.parse().ok());
            sum.run_ns += first.unwrap_or(0);
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
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }
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
fn family(pid: u32) -> Result<Vec<u32>, String> {
    let children = read(pid, &format!("task/{pid}/children"))?;
    let children = children.split_whitespace().filter_map(|text| text.parse().ok());
    Ok([pid].into_iter().chain(children).collect())
}

/// Memory that only these processes have, in bytes: proc(5) `smaps_rollup`.
pub(super) fn private_bytes(pid: u32) -> Result<u64, String> {
    let mut kib = 0;
    for pid in family(pid)? {
        let rollup = read(pid, "smaps_rollup")?;
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        kib += private
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(kib * 1024)
}

/// What wrk saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Answers {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) p99_ms: f64,
}

/// Runs wrk and reads what it prints.
pub(super) fn run_wrk(command: &mut Command) -> Result<Answers, String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answers = answers(&text).filter(|answers| answers.requests > 0);
    answers.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("wrk got no answers: {text}{said}")
    })
}

fn answers(text: &str) -> Option<Answers> {
    let mut found = Answers::default();
    for line in text.lines().map(str::trim) {
        if let Some((number, _)) = line.split_once(" requests in ") {
            found.requests = number.parse().ok()?;
        } else if let Some(number) = line.strip_prefix("Non-2xx or 3xx responses: ") {
            found.failed += number.parse::<u64>().ok()?;
        } else if let Some(numbers) = line.strip_prefix("Socket errors: ") {
            let words = numbers.split([' ', ',']);
            found.failed += words.filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
        } else if let Some(value) = line.strip_prefix("99%") {
            found.p99_ms = milliseconds(value.trim())?;
        }
    }
    Some(found)
}

/// `812.00us`, `1.20ms`, `2.00s`.
fn milliseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

/// One contestant in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) cpu_us: f64,
    pub(super) user_us: f64,
    pub(super) per_second: f64,
    pub(super) p99_ms: f64,
    pub(super) failed: u64,
}

impl Sample {
    pub(super) fn new(answers: &Answers, used: &Usage, seconds: u32) -> Sample {
        let requests = answers.requests as f64;
        let cpu_us = used.run_ns as f64 / 1000.0 / requests;
        // Ticks are coarse; only how they divide the time is taken from them.
        let ticks = (used.user_ticks + used.system_ticks).max(1) as f64;
        Sample {
            cpu_us,
            user_us: cpu_us * used.user_ticks as f64 / ticks,
            per_second: requests / f64::from(seconds),
            p99_ms: answers.p99_ms,
            failed: answers.failed,
        }
    }
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
pub(super) fn best(samples: &[&[Sample]]) -> Option<usize> {
    let cost = |samples: &[Sample]| median(samples.iter().map(|sample| sample.cpu_us));
    (0..samples.len()).min_by(|a, b| cost(samples[*a]).total_cmp(&cost(samples[*b])))
}

/// The median of the ratios of two contestants within each round.
pub(super) fn ratio(own: &[Sample], peer: &[Sample]) -> f64 {
    median(own.iter().zip(peer).map(|(own, peer)| own.cpu_us / peer.cpu_us))
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
    fn what_wrk_prints_is_read() {
        let text = "Running 3s test @ http://127.0.0.1:1/\n  Latency Distribution\n     \
                    50%  812.00us\n     99%    1.20ms\n  140000 requests in 3.00s, 45.62MB read\n  \
                    Socket errors: connect 0, read 1, write 2, timeout 3\n  \
                    Non-2xx or 3xx responses: 4\nRequests/sec:  46666.66\n";
        let expected = Answers { requests: 140000, failed: 10, p99_ms: 1.2 };
        assert_eq!(answers(text), Some(expected));
        assert_eq!(milliseconds("812.00us"), Some(0.812));
        assert_eq!(milliseconds("2.00s"), Some(2000.0));
    }

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
                p99_ms: 0.0,
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
        assert_eq!(best(&[&rounds[1], &rounds[2]]), Some(1));
        assert_eq!(ratio(&rounds[0], &rounds[2]), 0.5);
        assert_eq!(median([3.0, 1.0].into_iter()), 2.0);
    }
}
