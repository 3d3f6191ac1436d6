//! Tables in zones, used by several processes. A program without the test harness, because it
//! forks.

use std::process::ExitCode;
use std::sync::Arc;

use session::table::Table;
use system::process::{Exit, Fork, Pid, exit_now, fork, wait_for};
use system::shared::Zone;

const NAME: &str = "processes_share_a_table";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        // What test runners ask first.
        if !arguments.iter().any(|word| word == "--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    a_shard_whose_holder_died_is_empty();
    processes_count_together();
    ExitCode::SUCCESS
}

fn table(size: usize) -> Table {
    Table::new(&Arc::new(Zone::new(size).expect("memory"))).expect("a table")
}

/// Runs `work` in another process, which ends with the number that it gives.
fn elsewhere(work: impl FnOnce() -> i32) -> Pid {
    match fork().expect("a process") {
        Fork::Child => exit_now(work()),
        Fork::Parent { child } => child,
    }
}

fn a_shard_whose_holder_died_is_empty() {
    let table = table(32 * 1024);
    let hash = table.hash(b"a");
    let reference = {
        let mut entries = table.lock(hash, "z");
        let at = entries.insert(hash, b"a").expect("room");
        entries.reference(at, hash)
    };
    let child = elsewhere(|| {
        let mut entries = table.lock(hash, "z");
        entries.insert(hash, b"b");
        exit_now(3)
    });
    assert_eq!(wait_for(child).expect("its end"), Exit::Code(3));
    let mut entries = table.lock(hash, "z");
    assert_eq!((entries.find(hash, b"a"), entries.len()), (None, 0));
    assert_eq!(entries.resolve(reference), None);
    let at = entries.insert(hash, b"c").expect("room");
    assert_eq!((entries.oldest(), entries.resolve(reference)), (Some(at), None));
}

fn processes_count_together() {
    const TURNS: u32 = 5_000;
    let table = table(1 << 20);
    let count = || {
        for n in 0..TURNS {
            let key = (n % 50).to_be_bytes();
            let hash = table.hash(&key);
            let mut entries = table.lock(hash, "z");
            let found = entries.find(hash, &key);
            let Some(at) = found.or_else(|| entries.insert(hash, &key)) else { return 1 };
            let value = entries.value(at, 0) + 1;
            entries.set_value(at, 0, value);
        }
        0
    };
    let children = [elsewhere(count), elsewhere(count), elsewhere(count)];
    for child in children {
        assert_eq!(wait_for(child).expect("its end"), Exit::Code(0));
    }
    let mut total = 0;
    table.each_shard("z", |entries| {
        let mut next = entries.oldest();
        while let Some(at) = next {
            total += entries.value(at, 0);
            next = entries.newer(at);
        }
    });
    assert_eq!(total, u64::from(3 * TURNS));
}
