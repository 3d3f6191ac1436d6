//! Groups over real loopback connections: what is kept, what is closed, and who is asked next.
//!
//! The backends run on the same loop as the requests. A backend answers each line with the
//! number of its connection and of the line; `close` makes it hang up instead. It tells when a
//! connection of its has ended, so that no test waits for a while and hopes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;

use balance::{Method, least_conn, round_robin};
use net::{Address, Listener, Sharing, Stream, Taking, block_on, spawn, yield_now};
use system::errno::Errno;
use system::socket::{ListenOptions, listen, local_address};
use upstream::{
    Attempts, ConnectFailure, Connecting, Group, Keepalive, Lease, Member, NoPeer, Outcome,
    PeerOptions, Settings, Verdict,
};

/// No wait of a test takes this long unless something is broken.
const PATIENCE_MS: u64 = 20_000;

const HOW: Connecting = Connecting {
    timeout_ms: 10_000,
    owner: 1,
    options: net::ConnectOptions {
        local: None,
        transparent: false,
        keepalive: system::socket::Keepalive::System,
        nodelay: true,
        receive_buffer: None,
        send_buffer: None,
    },
};

fn run<F: Future<Output = ()>>(test: F) {
    net::start(net::Settings::default()).expect("a loop");
    block_on(async {
        net::timeout(PATIENCE_MS, test).await.expect("the test hangs");
    });
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        yield_now().await;
    }
}

#[derive(Clone)]
struct Backend {
    address: Address,
    accepted: Rc<Cell<usize>>,
    ended: Rc<Cell<usize>>,
}

impl Backend {
    fn start() -> Backend {
        let any = Address::parse("127.0.0.1:0").expect("an address");
        let fd = listen(&any, &ListenOptions::default()).expect("a listener");
        let address = local_address(fd.as_fd()).expect("its address");
        let listener = Listener::new(fd, Sharing::Alone, Taking::All).expect("a watch");
        let backend = Backend { address, accepted: Rc::default(), ended: Rc::default() };
        let own = backend.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                own.accepted.set(own.accepted.get() + 1);
                let number = own.accepted.get();
                let ended = own.ended.clone();
                spawn(async move {
                    serve(stream, number).await;
                    ended.set(ended.get() + 1);
                });
            }
        });
        backend
    }

    fn member(&self) -> Member {
        member(self.address.clone(), PeerOptions::default())
    }
}

async fn serve(stream: Stream, number: usize) {
    let mut buffer = [0; 64];
    let mut lines = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if buffer.starts_with(b"close") {
            return;
        }
        lines += buffer[..length].iter().filter(|&&byte| byte == b'\n').count();
        if stream.write_all(format!("{number} {lines}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn member(address: Address, options: PeerOptions) -> Member {
    Member { server: "configured".into(), route: None, address, options }
}

fn group(keepalive: Keepalive, members: Vec<Member>) -> Rc<Group> {
    group_by(&round_robin::METHOD, keepalive, members)
}

fn group_by(method: &'static Method, keepalive: Keepalive, primaries: Vec<Member>) -> Rc<Group> {
    Group::new(Settings {
        name: "group".into(),
        choice: upstream::Choice::plain(method),
        primaries,
        backups: Vec::new(),
        keepalive,
    })
}

fn keep(connections: u32) -> Keepalive {
    Keepalive { connections, local: false, ..Keepalive::DEFAULT }
}

async fn lease(attempts: &mut Attempts, how: &Connecting) -> Lease {
    let peer = attempts.pick().expect("a live peer");
    attempts.connect(peer, how).await.expect("a connection")
}

async fn say(lease: &Lease, line: &str) -> String {
    lease.stream().write_all(line.as_bytes()).await.expect("room");
    let mut buffer = [0; 64];
    let length = lease.stream().read(&mut buffer).await.unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
}

/// One request that keeps its connection; what the backend said.
async fn ask(group: &Rc<Group>, how: &Connecting) -> String {
    let mut attempts = group.begin();
    let lease = lease(&mut attempts, how).await;
    let answer = say(&lease, "hello\n").await;
    lease.keep();
    attempts.done(Outcome::Ok);
    answer
}

#[test]
fn a_kept_connection_is_used_again() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(2), vec![backend.member()]);
        assert_eq!(ask(&group, &HOW).await, "1 1");
        assert_eq!(group.idle(), 1);
        let mut attempts = group.begin();
        let lease = lease(&mut attempts, &HOW).await;
        assert_eq!((lease.reused(), lease.requests(), group.idle()), (true, 2, 0));
        assert_eq!(attempts.peer().map(|peer| peer.address.clone()), Some(backend.address.clone()));
        drop(lease);
        drop(attempts);
        until(|| backend.ended.get() == 1).await;
        assert_eq!(ask(&group, &HOW).await, "2 1");
    });
}

#[test]
fn nothing_is_kept_without_keepalive() {
    run(async {
        let backend = Backend::start();
        let group = group(Keepalive::OFF, vec![backend.member()]);
        assert_eq!(ask(&group, &HOW).await, "1 1");
        assert_eq!(group.idle(), 0);
        assert_eq!(ask(&group, &HOW).await, "2 1");
        until(|| backend.ended.get() == 2).await;
    });
}

#[test]
fn a_connection_serves_so_many_requests() {
    run(async {
        let backend = Backend::start();
        let group = group(Keepalive { requests: 2, ..keep(2) }, vec![backend.member()]);
        for expected in ["1 1", "1 2", "2 1", "2 2", "3 1"] {
            assert_eq!(ask(&group, &HOW).await, expected);
        }
    });
}

#[test]
fn an_idle_connection_ends_with_its_time() {
    run(async {
        let backend = Backend::start();
        let group = group(Keepalive { timeout_ms: 15, ..keep(2) }, vec![backend.member()]);
        ask(&group, &HOW).await;
        let since = net::now();
        until(|| backend.ended.get() == 1).await;
        assert!(net::now() - since >= 14);
        assert_eq!(group.idle(), 0);
        // The watch goes on for later connections.
        ask(&group, &HOW).await;
        until(|| backend.ended.get() == 2).await;
    });
}

#[test]
fn what_the_peer_closes_leaves_the_pool_by_itself() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(8), vec![backend.member()]);
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut attempts = group.begin();
            let lease = lease(&mut attempts, &HOW).await;
            open.push((attempts, lease));
        }
        for (n, (_, lease)) in open.into_iter().enumerate() {
            if n == 1 {
                lease.stream().write_all(b"close\n").await.expect("room");
            }
            lease.keep();
        }
        assert_eq!(group.idle(), 3);
        until(|| group.idle() == 2).await;
        assert_eq!(ask(&group, &HOW).await, "3 1");
    });
}

#[test]
fn bytes_that_nobody_asked_for_spoil_a_connection() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(8), vec![backend.member()]);
        let mut attempts = group.begin();
        let lease = lease(&mut attempts, &HOW).await;
        lease.stream().write_all(b"answer later\n").await.expect("room");
        lease.keep();
        until(|| group.idle() == 0).await;
        until(|| backend.ended.get() == 1).await;
    });
}

#[test]
fn the_longest_unused_connection_makes_room() {
    run(async {
        let backends = [Backend::start(), Backend::start()];
        let group = group(keep(1), backends.iter().map(Backend::member).collect());
        // The peers take turns, so each connection is pushed out by the other peer's.
        for expected in ["1 1", "1 1", "2 1", "2 1", "3 1"] {
            assert_eq!(ask(&group, &HOW).await, expected);
            assert_eq!(group.idle(), 1);
        }
    });
}

#[test]
fn a_burst_beyond_the_limit_keeps_its_connections_for_a_while() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(2), vec![backend.member()]);
        for round in 0..3 {
            let mut open = Vec::new();
            for _ in 0..8 {
                let mut attempts = group.begin();
                let lease = lease(&mut attempts, &HOW).await;
                assert_eq!(lease.reused(), round > 0);
                open.push((attempts, lease));
            }
            open.into_iter().for_each(|(_, lease)| lease.keep());
            assert_eq!(group.idle(), 8);
        }
        assert_eq!(backend.accepted.get(), 8);
        // Once the burst is over, only the configured number stays.
        until(|| backend.ended.get() == 6).await;
        assert_eq!(group.idle(), 2);
    });
}

#[test]
fn locations_share_connections_unless_told_otherwise() {
    run(async {
        let backend = Backend::start();
        let other = Connecting { owner: 2, ..HOW };
        let shared = group(keep(4), vec![backend.member()]);
        assert_eq!(ask(&shared, &HOW).await, "1 1");
        assert_eq!(ask(&shared, &other).await, "1 2");
        let local = group(Keepalive { local: true, ..keep(4) }, vec![backend.member()]);
        assert_eq!(ask(&local, &HOW).await, "2 1");
        assert_eq!(ask(&local, &other).await, "3 1");
        assert_eq!(ask(&local, &HOW).await, "2 2");
        assert_eq!(ask(&local, &other).await, "3 2");
    });
}

#[test]
fn servers_with_one_address_share_connections() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(4), vec![backend.member(), backend.member()]);
        for expected in ["1 1", "1 2", "1 3"] {
            assert_eq!(ask(&group, &HOW).await, expected);
        }
    });
}

#[test]
fn a_stale_connection_is_nobody_s_fault() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(4), vec![backend.member(), backend.member()]);
        for _ in 0..2 {
            let (mut a, mut b) = (group.begin(), group.begin());
            let (first, second) = (lease(&mut a, &HOW).await, lease(&mut b, &HOW).await);
            first.keep();
            second.keep();
        }
        let mut attempts = group.begin();
        assert_eq!(attempts.tries_left(), 2);
        let stale = lease(&mut attempts, &HOW).await;
        assert!(stale.reused());
        assert_eq!(say(&stale, "close\n").await, "");
        assert_eq!(attempts.done(Outcome::Stale), Verdict::Usable);
        assert_eq!(attempts.tries_left(), 2);
        // There is another kept connection; it could be as stale, so it is left alone.
        assert_eq!(group.idle(), 1);
        let again = lease(&mut attempts, &HOW).await;
        assert!(!again.reused());
        assert_eq!(say(&again, "hello\n").await, "3 1");
    });
}

#[test]
fn a_stale_connection_leaves_its_peer_in_the_game() {
    run(async {
        let backend = Backend::start();
        let down = PeerOptions { down: true, ..PeerOptions::default() };
        let members = vec![backend.member(), member(backend.address.clone(), down)];
        let group = group(keep(4), members);
        let mut attempts = group.begin();
        for outcome in [Outcome::Stale, Outcome::NotCounted] {
            assert_eq!(attempts.pick(), Ok(0));
            attempts.done(outcome);
        }
        assert_eq!(attempts.pick(), Err(NoPeer));
    });
}

#[test]
fn a_refusing_peer_is_blamed_and_the_next_one_asked() {
    run(async {
        let gone = {
            let any = Address::parse("127.0.0.1:0").expect("an address");
            let fd = listen(&any, &ListenOptions::default()).expect("a listener");
            local_address(fd.as_fd()).expect("its address")
        };
        let backend = Backend::start();
        let group = group(keep(1), vec![member(gone, PeerOptions::default()), backend.member()]);
        let mut attempts = group.begin();
        let peer = attempts.pick().expect("the first peer");
        let error = attempts.connect(peer, &HOW).await.expect_err("nobody listens");
        assert_eq!((error.kind, error.call), (ConnectFailure::Refused, "connect"));
        assert_eq!(error.errno, Errno::from(rustix::io::Errno::CONNREFUSED));
        assert!(!error.at_once);
        assert_eq!(attempts.done(Outcome::Failed), Verdict::Disabled);
        assert_eq!(attempts.tries_left(), 1);
        let lease = lease(&mut attempts, &HOW).await;
        assert_eq!(say(&lease, "hello\n").await, "1 1");
        // The first peer rests now.
        for _ in 0..3 {
            assert_eq!(group.begin().pick(), Ok(1));
        }
        attempts.done(Outcome::Failed);
        assert_eq!((attempts.pick(), attempts.tries_left()), (Err(NoPeer), 0));
    });
}

#[test]
fn a_missing_unix_socket_fails_in_the_call() {
    run(async {
        let path = PathBuf::from("/nonexistent/upstream.sock");
        let group = group(keep(1), vec![member(Address::Unix(path), PeerOptions::default())]);
        let mut attempts = group.begin();
        let peer = attempts.pick().expect("the only peer");
        let error = attempts.connect(peer, &HOW).await.expect_err("no such file");
        assert_eq!((error.kind, error.at_once), (ConnectFailure::Refused, true));
        assert_eq!(error.errno, Errno::from(rustix::io::Errno::NOENT));
        // The only peer is never blamed, and there is no second try.
        assert_eq!(attempts.done(Outcome::Failed), Verdict::Usable);
        assert_eq!(attempts.tries_left(), 0);
        assert_eq!(group.begin().pick(), Ok(0));
    });
}

#[test]
fn a_peer_that_does_not_answer_is_given_up() {
    run(async {
        // A queue with room for one: the kernel drops what comes after.
        let any = Address::parse("127.0.0.1:0").expect("an address");
        let options = ListenOptions { backlog: 0, ..ListenOptions::default() };
        let full = listen(&any, &options).expect("a listener");
        let address = local_address(full.as_fd()).expect("its address");
        let group = group(keep(1), vec![member(address, PeerOptions::default())]);
        let mut first = group.begin();
        let _queued = lease(&mut first, &HOW).await;
        let mut attempts = group.begin();
        let peer = attempts.pick().expect("the only peer");
        let hasty = Connecting { timeout_ms: 20, ..HOW };
        let error = attempts.connect(peer, &hasty).await.expect_err("no room");
        assert_eq!(error.kind, ConnectFailure::Timeout);
        assert_eq!(error.errno, Errno::from(rustix::io::Errno::TIMEDOUT));
    });
}

#[test]
fn a_local_address_that_is_not_ours_is_our_fault() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(1), vec![backend.member()]);
        let mut how = HOW.clone();
        how.options.local = Address::parse("192.0.2.1:0");
        let mut attempts = group.begin();
        let peer = attempts.pick().expect("the only peer");
        let error = attempts.connect(peer, &how).await.expect_err("not our address");
        assert_eq!((error.kind, error.call), (ConnectFailure::Ours, "bind"));
    });
}

#[test]
fn full_peers_are_passed_over() {
    run(async {
        let backend = Backend::start();
        let one = PeerOptions { max_conns: 1, ..PeerOptions::default() };
        for method in [&round_robin::METHOD, &least_conn::METHOD] {
            let members = vec![member(backend.address.clone(), one); 2];
            let group = group_by(method, keep(1), members);
            let (mut a, mut b, mut c) = (group.begin(), group.begin(), group.begin());
            assert_eq!((a.pick(), b.pick(), c.pick()), (Ok(0), Ok(1), Err(NoPeer)));
            assert_eq!((group.conns(0), group.conns(1)), (1, 1));
            a.done(Outcome::NotCounted);
            assert_eq!(c.pick(), Ok(0));
            drop(c);
            assert_eq!(group.conns(0), 0, "a request that vanished leaves no trace");
            drop(b);
            assert_eq!(group.conns(1), 0);
        }
    });
}

#[test]
fn a_retired_group_keeps_nothing() {
    run(async {
        let backend = Backend::start();
        let group = group(keep(4), vec![backend.member()]);
        ask(&group, &HOW).await;
        let mut attempts = group.begin();
        let held = lease(&mut attempts, &HOW).await;
        let mut second = group.begin();
        lease(&mut second, &HOW).await.keep();
        assert_eq!(group.idle(), 1);
        group.retire();
        assert_eq!(group.idle(), 0);
        until(|| backend.ended.get() == 1).await;
        held.keep();
        assert_eq!(group.idle(), 0);
        assert_eq!(ask(&group, &HOW).await, "3 1");
        until(|| backend.ended.get() == 3).await;
    });
}

#[test]
fn the_watch_ends_with_its_group() {
    run(async {
        let backend = Backend::start();
        let before = net::live_tasks();
        let group = group(keep(4), vec![backend.member()]);
        ask(&group, &HOW).await;
        until(|| net::live_tasks() == before + 2).await;
        drop(group);
        until(|| backend.ended.get() == 1).await;
        until(|| net::live_tasks() == before).await;
    });
}

#[test]
fn retries_are_limited() {
    run(async {
        let backend = Backend::start();
        let down = PeerOptions { down: true, ..PeerOptions::default() };
        let mut members = vec![backend.member(); 4];
        members.push(member(backend.address.clone(), down));
        let group = group(keep(1), members);
        let mut attempts = group.begin();
        assert_eq!(attempts.tries_left(), 4);
        attempts.limit_tries(0);
        assert_eq!(attempts.tries_left(), 4);
        attempts.limit_tries(2);
        let order = RefCell::new(Vec::new());
        while attempts.tries_left() > 0 {
            order.borrow_mut().extend(attempts.pick());
            attempts.done(Outcome::Failed);
        }
        assert_eq!(order.take(), [0, 1]);
    });
}
