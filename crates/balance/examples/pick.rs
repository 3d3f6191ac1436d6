//! Nanoseconds per pick and done, by algorithm and group size.
//! `cargo run --release -p balance --example pick`

use std::hint::black_box;
use std::time::{Duration, Instant};

use balance::{Ask, Index, Key, METHODS, Memory, Method, PeerOptions, Tried, round_robin};

/// So long each figure is measured.
const SPAN: Duration = Duration::from_millis(100);

fn main() {
    println!("{:<34} {:>8} {:>8} {:>8} {:>8}", "ns per pick", "3", "100", "1,000", "10,000");
    for method in METHODS {
        print!("{:<34}", method.name);
        for count in [3, 100, 1_000, 10_000] {
            print!(" {:>8.1}", measure(method, count, |_| 1, 0));
        }
        println!();
    }
    println!("\n{:<34} {:>8} {:>8} {:>8} {:>8}", "round robin", "3", "100", "1,000", "10,000");
    let of = |name: &str, weight: fn(u32) -> u32, resting: fn(u32) -> u32| {
        print!("{name:<34}");
        for count in [3, 100, 1_000, 10_000] {
            print!(" {:>8.1}", measure(&round_robin::METHOD, count, weight, resting(count)));
        }
        println!();
    };
    of("three weights", |n| 1 + n % 3, |_| 0);
    of("three weights, 1 % resting", |n| 1 + n % 3, |count| count / 100);
    of("a hundred weights", |n| 1 + n % 100, |_| 0);
    println!(
        "\n{:<34} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "10,000 peers, trouble", "half down", "99 % down", "half full", "99 % full", "all full"
    );
    for method in METHODS {
        print!("{:<34}", method.name);
        for trouble in TROUBLES {
            print!(" {:>9.1}", measure_trouble(method, *trouble));
        }
        println!();
    }
}

/// What is the matter with the peer of a number.
type Trouble = fn(u32, &mut PeerOptions);

const TROUBLES: &[Trouble] = &[
    |n, peer| peer.down = n % 2 == 0,
    |n, peer| peer.down = n % 100 != 0,
    |n, peer| peer.max_conns = n % 2,
    |n, peer| peer.max_conns = u32::from(n % 100 != 0),
    |_, peer| peer.max_conns = 1,
];

/// Nanoseconds per pick and done when peers have trouble; those that have a limit are full.
fn measure_trouble(method: &'static Method, trouble: Trouble) -> f64 {
    const COUNT: u32 = 10_000;
    let options: Vec<_> = (0..COUNT)
        .map(|n| {
            let mut peer = PeerOptions::default();
            trouble(n, &mut peer);
            peer
        })
        .collect();
    let mut memory = Memory::new(method, &options, &[]);
    let names: Vec<String> =
        (0..COUNT).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250)).collect();
    let index = Index::new(method, &memory.state().members(), &|peer| &names[peer as usize]);
    // Whoever has a limit is given its one request.
    for (peer, _) in (0..).zip(&options).filter(|(_, options)| options.max_conns > 0) {
        let bound = [peer];
        let ask = Ask { bound: &bound, index: Some(&index), ..Ask::at(10_001) };
        memory.state().pick(&ask, &mut Tried::new());
    }
    timed(&mut memory, &index)
}

fn timed(memory: &mut Memory, index: &Index) -> f64 {
    let mut picks = 0u64;
    let start = Instant::now();
    while start.elapsed() < SPAN {
        for _ in 0..100 {
            picks += 1;
            let mut state = memory.state();
            let mut tried = Tried::new();
            let ask = Ask {
                key: Key::text(&picks.to_le_bytes()),
                random: picks.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                index: Some(index),
                ..Ask::at(10_001)
            };
            if let Some(peer) = black_box(state.pick(&ask, &mut tried)) {
                state.done(peer);
            }
        }
    }
    start.elapsed().as_nanos() as f64 / picks as f64
}

fn measure(method: &'static Method, count: u32, weight: fn(u32) -> u32, resting: u32) -> f64 {
    let options: Vec<_> = (0..count)
        .map(|n| PeerOptions { weight: weight(n), fail_timeout: 1_000, ..PeerOptions::default() })
        .collect();
    let mut memory = Memory::new(method, &options, &[]);
    let names: Vec<String> =
        (0..count).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250)).collect();
    let members = memory.state().members();
    let index = Index::new(method, &members, &|peer| &names[peer as usize]);
    let ask = |n: u64| Ask {
        key: Key::text(&n.to_le_bytes()),
        random: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        index: Some(&index),
        ..Ask::at(10_001)
    };
    for n in 0..u64::from(resting) {
        let mut state = memory.state();
        if let Some(peer) = state.pick(&ask(n), &mut Tried::new()) {
            state.failed(peer, 10_000);
        }
    }
    timed(&mut memory, &index)
}
