//! Nanoseconds per pick and done, by group size and mix of weights.
//! `cargo run --release -p balance --example pick`

use std::hint::black_box;
use std::time::Instant;

use balance::{Ask, Memory, PeerOptions, Tried, round_robin};

const PICKS: u32 = 2_000_000;

fn main() {
    println!("{:>7}  {:>12}  {:>12}  {:>12}", "peers", "equal, ns", "3 weights", "1% resting");
    for count in [1, 2, 3, 8, 12, 16, 20, 24, 25, 28, 32, 64, 100, 1_000, 10_000] {
        let equal = measure(count, |_| 1, 0);
        let mixed = measure(count, |n| 1 + n % 3, 0);
        let resting = measure(count, |n| 1 + n % 3, count / 100);
        println!("{count:>7}  {equal:>12.1}  {mixed:>12.1}  {resting:>12.1}");
    }
}

fn measure(count: u32, weight: fn(u32) -> u32, resting: u32) -> f64 {
    let options: Vec<_> = (0..count)
        .map(|n| PeerOptions { weight: weight(n), fail_timeout: 1_000, ..PeerOptions::default() })
        .collect();
    let mut memory = Memory::new(&round_robin::METHOD, &options, &[]);
    for _ in 0..resting {
        let mut state = memory.state();
        if let Some(peer) = state.pick(&Ask::at(10_000), &mut Tried::new()) {
            state.failed(peer, 10_000);
        }
    }
    let start = Instant::now();
    for _ in 0..PICKS {
        let mut state = memory.state();
        let mut tried = Tried::new();
        if let Some(peer) = black_box(state.pick(&Ask::at(10_001), &mut tried)) {
            state.done(peer);
        }
    }
    start.elapsed().as_nanos() as f64 / f64::from(PICKS)
}
