//! A group in a zone: how long it takes to make, what memory it takes, and nanoseconds per pick
//! and done with one, two and eight processes at it.
//! `cargo run --release -p upstream --example zone`

use std::rc::Rc;
use std::time::{Duration, Instant};

use balance::{Key, Method, hash, least_conn, random, round_robin};
use net::Address;
use system::process::{Exit, Fork, exit_now, fork, wait_for};
use upstream::{Choice, Group, Keepalive, Member, Outcome, Settings};

/// So long each figure is measured.
const SPAN: Duration = Duration::from_millis(300);

fn main() {
    let methods: [&'static Method; 4] =
        [&round_robin::METHOD, &least_conn::METHOD, &hash::CONSISTENT, &random::TWO];
    println!(
        "{:<18} {:>7} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "", "peers", "made, ms", "KiB", "1", "2", "8"
    );
    for method in methods {
        for count in [3, 100, 10_000] {
            let before = resident_kib();
            let start = Instant::now();
            let group = group(method, count);
            // The first pick works out what the algorithm goes by.
            pick(&group, 0);
            let made = start.elapsed();
            let memory = resident_kib().saturating_sub(before);
            print!("{:<18} {count:>7} {:>9.1} {memory:>9}", method.name, made.as_secs_f64() * 1e3);
            for processes in [1, 2, 8] {
                print!(" {:>8.0}", measure(&group, processes));
            }
            println!();
        }
    }
}

fn group(method: &'static Method, count: u32) -> Rc<Group> {
    let member = |n: u32| {
        let name = format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255);
        let address = Address::parse(&name).unwrap_or_else(|| panic!("{name} is an address"));
        Member::new(&name, address)
    };
    let group = Group::new(Settings {
        name: "group".into(),
        choice: Choice::plain(method),
        primaries: (0..count).map(member).collect(),
        backups: Vec::new(),
        keepalive: Keepalive::OFF,
    });
    if let Err(reason) = group.share("zone") {
        panic!("{reason}");
    }
    group
}

fn pick(group: &Rc<Group>, n: u64) {
    let mut attempts = group.begin();
    attempts.set_key(Key::text(&n.to_le_bytes()));
    assert!(attempts.pick().is_ok(), "every request has a peer here");
    attempts.done(Outcome::Ok);
}

/// Nanoseconds that a pick takes a process while so many are at it.
fn measure(group: &Rc<Group>, processes: usize) -> f64 {
    let children: Vec<_> = (0..processes)
        .filter_map(|number| match fork() {
            Ok(Fork::Parent { child }) => Some(child),
            Ok(Fork::Child) => {
                group.enter_worker(number);
                exit_now(run(group))
            }
            Err(error) => panic!("{error}"),
        })
        .collect();
    // A process has eight bits to tell: the logarithm of its time, in sixteenths.
    let times = children.into_iter().map(|child| match wait_for(child) {
        Ok(Exit::Code(code)) => 2f64.powf(f64::from(code) / 16.0),
        other => panic!("{other:?}"),
    });
    times.sum::<f64>() / processes as f64
}

fn run(group: &Rc<Group>) -> i32 {
    let start = Instant::now();
    let mut picks = 0;
    while start.elapsed() < SPAN {
        for _ in 0..100 {
            picks += 1;
            pick(group, picks);
        }
    }
    let nanoseconds = start.elapsed().as_nanos() as f64 / picks as f64;
    (nanoseconds.log2() * 16.0).round() as i32
}

/// What this process holds in memory.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
