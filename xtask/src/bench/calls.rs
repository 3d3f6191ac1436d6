//! System calls for each unit, counted in a run of its own, so that counting slows no figure.
//!
//! perf(1) counts them in the kernel at little cost where this user may; elsewhere strace(1) does,
//! which makes the proxy slow, but the number of calls for a request hardly depends on that.

use super::figures::{Unit, family, units};
use super::load::Load;
use super::stage::{Cores, Proxy, Running, Stage};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long each is counted, in seconds.
const SPAN: u32 = 1;
/// How long strace may take to attach or to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many calls the processes of a proxy make for each unit; none where nothing can count them.
pub(super) fn per_unit(
    stage: &Stage<'_>,
    proxy: &Proxy<'_>,
    load: &Load,
    cores: Cores,
    unit: Unit,
) -> Option<f64> {
    let pids = family(proxy.pid()).ok()?;
    let file = stage.directory().join("calls");
    let asked = load.command(stage, proxy, cores, SPAN);
    by_perf(&pids, &file, load, &asked, unit).or_else(|| by_strace(&pids, &file, load, asked, unit))
}

fn by_perf(pids: &[u32], file: &Path, load: &Load, asked: &Command, unit: Unit) -> Option<f64> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut perf = Command::new("perf");
    perf.args(["stat", "-e", "raw_syscalls:sys_enter", "-x,", "-o"]).arg(file);
    perf.arg("-p").arg(pids.join(",")).arg("--");
    perf.arg(asked.get_program()).args(asked.get_args());
    let _ = fs::remove_file(file);
    let answers = load.run(&mut perf).ok()?;
    let calls = perf_count(&fs::read_to_string(file).ok()?)?;
    Some(calls as f64 / units(&answers, unit))
}

/// The first word of the line with the event; `<not counted>` is no number.
fn perf_count(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

fn by_strace(
    pids: &[u32],
    file: &Path,
    load: &Load,
    mut asked: Command,
    unit: Unit,
) -> Option<f64> {
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-qq", "-o"]).arg(file);
    for pid in pids {
        strace.arg("-p").arg(pid.to_string());
    }
    let running = Running::start(strace.stderr(Stdio::null())).ok()?;
    let deadline = Instant::now() + PATIENCE;
    while !pids.iter().all(|pid| is_traced(*pid)) {
        if Instant::now() > deadline {
            return None;
        }
        std::thread::yield_now();
    }
    let answers = load.run(&mut asked).ok();
    // It writes its table when it is told to end.
    drop(running);
    let calls = strace_count(&fs::read_to_string(file).ok()?)?;
    Some(calls as f64 / units(&answers?, unit))
}

/// proc(5) `status`: `TracerPid` is 0 for who is not traced.
fn is_traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.is_some_and(|pid| pid.trim() != "0")
}

/// The fourth column of the last line, `100.00    0.01    3    1234    5 total`.
fn strace_count(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counters_are_read() {
        let perf = "# started on Sat Nov 21\n\n1234,,raw_syscalls:sys_enter,99,100.00,,\n";
        assert_eq!(perf_count(perf), Some(1234));
        assert_eq!(perf_count("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n \
                      60.00    0.010000           3      1000         5 read\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      100.00    0.020000           3      1234         5 total\n";
        assert_eq!(strace_count(strace), Some(1234));
        assert_eq!(strace_count(""), None);
    }
}
