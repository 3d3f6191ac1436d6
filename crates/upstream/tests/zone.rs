//! A group in a zone, used by several processes. A program without the test harness, because it
//! forks.

use std::process::ExitCode;
use std::rc::Rc;

use net::Address;
use system::process::{Exit, Fork, exit_now, fork, wait_for};
use system::signals::{Signal, send};
use upstream::{
    Attempts, Group, Keepalive, Member, NoPeer, Outcome, PeerOptions, Settings, Verdict,
};

const NAME: &str = "processes_share_a_group";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        // What test runners ask first.
        if !arguments.iter().any(|word| word == "--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    processes_take_turns_together();
    a_failure_in_one_process_counts_in_all();
    a_limit_holds_for_all();
    what_a_dead_worker_had_under_way_is_taken_back();
    a_killed_worker_leaves_a_working_group();
    ExitCode::SUCCESS
}

fn group(count: usize, options: PeerOptions) -> Rc<Group> {
    let address = Address::parse("127.0.0.1:1").expect("an address");
    let group = Group::new(Settings {
        name: "group".into(),
        choice: upstream::Choice::default(),
        primaries: vec![Member { server: "here".into(), route: None, address, options }; count],
        backups: Vec::new(),
        keepalive: Keepalive::OFF,
    });
    group.share("z").expect("memory for a zone");
    group
}

/// Runs `work` in another process, which ends with the number that it gives.
fn elsewhere(work: impl FnOnce() -> i32) -> i32 {
    match fork().expect("a process") {
        Fork::Child => exit_now(work()),
        Fork::Parent { child } => match wait_for(child).expect("its end") {
            Exit::Code(code) => code,
            other => panic!("{other:?}"),
        },
    }
}

fn processes_take_turns_together() {
    for count in [3, 100, 2_000, 20_000] {
        let group = group(count, PeerOptions::default());
        let mut own = group.begin();
        assert_eq!((own.pick(), own.tries_left()), (Ok(0), count as u32));
        let other = || group.begin().pick().map_or(99, |peer| peer as i32);
        assert_eq!((elsewhere(other), elsewhere(other)), (1, 2));
        assert_eq!((group.conns(0), group.conns(1)), (1, 0));
    }
}

fn a_failure_in_one_process_counts_in_all() {
    let group = group(2, PeerOptions::default());
    let failing = || {
        let mut attempts = group.begin();
        assert!(attempts.pick().is_ok());
        i32::from(attempts.done(Outcome::Failed) == Verdict::Disabled)
    };
    assert_eq!(elsewhere(failing), 1);
    for _ in 0..3 {
        assert_eq!(group.begin().pick(), Ok(1));
    }
}

fn a_limit_holds_for_all() {
    let group = group(2, PeerOptions { max_conns: 1, ..PeerOptions::default() });
    let mut own = group.begin();
    assert_eq!(own.pick(), Ok(0));
    let other = || {
        let (mut second, mut third) = (group.begin(), group.begin());
        i32::from((second.pick(), third.pick()) == (Ok(1), Err(NoPeer)))
    };
    assert_eq!(elsewhere(other), 1);
}

fn what_a_dead_worker_had_under_way_is_taken_back() {
    let group = group(2, PeerOptions { max_conns: 2, ..PeerOptions::default() });
    let dying = || {
        group.enter_worker(5);
        let mut open: Vec<Attempts> = (0..4).map(|_| group.begin()).collect();
        let picked = open.iter_mut().filter_map(|attempts| attempts.pick().ok()).count();
        exit_now(picked as i32)
    };
    assert_eq!(elsewhere(dying), 4);
    assert_eq!(group.begin().pick(), Err(NoPeer));
    group.worker_died(4);
    assert_eq!((group.conns(0), group.conns(1)), (2, 2));
    group.worker_died(5);
    assert_eq!((group.conns(0), group.conns(1)), (0, 0));
    assert!(group.begin().pick().is_ok());
    group.worker_died(1_000_000);
}

/// A worker is killed at any moment, often while it holds the lock.
fn a_killed_worker_leaves_a_working_group() {
    const KILLS: u32 = 100;
    let group = group(50, PeerOptions::default());
    let pick = || group.begin().pick().expect("a live peer");
    for _ in 0..KILLS {
        let child = match fork().expect("a process") {
            Fork::Parent { child } => child,
            Fork::Child => {
                group.enter_worker(0);
                loop {
                    let _ = group.begin().pick();
                }
            }
        };
        // It runs as soon as it takes a turn between two of ours.
        while (pick() + 1) % 50 == pick() {}
        send(child, Signal::KILL).expect("to kill it");
        assert!(matches!(wait_for(child), Ok(Exit::Signal { .. })));
        pick();
        group.worker_died(0);
    }
    let left: u32 = (0..50).map(|peer| group.conns(peer)).sum();
    assert_eq!(left, 0, "requests under way after {KILLS} kills");
    assert_eq!(group.begin().tries_left(), 50);
}
