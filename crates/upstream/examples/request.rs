//! Nanoseconds for a request's share of this crate: begin, pick, take a kept connection, give it
//! back, done. `cargo run --release -p upstream --example request`

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use net::{Address, Listener, Sharing, Taking};
use system::socket::{ListenOptions, listen, local_address};
use upstream::{Connecting, Group, Keepalive, Member, Outcome, PeerOptions, Settings};

const REQUESTS: u32 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    net::start(net::Settings::default())?;
    net::block_on(async {
        for peers in [1, 3, 100, 10_000] {
            let nanoseconds = measure(peers).await?;
            println!("{peers:>6} peers: {nanoseconds:.1} ns a request");
        }
        Ok(())
    })
}

async fn measure(peers: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let any = Address::parse("127.0.0.1:0").ok_or("no address")?;
    let fd = listen(&any, &ListenOptions::default())?;
    let address = local_address(fd.as_fd())?;
    let listener = Listener::new(fd, Sharing::Alone, Taking::All)?;
    let member =
        Member { server: "here".into(), route: None, address, options: PeerOptions::default() };
    let group = Group::new(Settings {
        name: "group".into(),
        choice: upstream::Choice::default(),
        primaries: vec![member; peers],
        backups: Vec::new(),
        keepalive: Keepalive { requests: u64::MAX, ..Keepalive::DEFAULT },
    });
    let how = Connecting { timeout_ms: 1000, owner: 1, ..Connecting::default() };
    let mut attempts = group.begin();
    let peer = attempts.pick().map_err(|_| "no peer")?;
    let first = attempts.connect(peer, &how).await.map_err(|error| error.errno.to_string())?;
    let _held = listener.accept().await?;
    first.keep();
    drop(attempts);
    net::yield_now().await;
    let mut left = REQUESTS;
    let start = Instant::now();
    poll_fn(|cx| {
        while left > 0 {
            left -= 1;
            request(&group, cx);
        }
        Poll::Ready(())
    })
    .await;
    Ok(start.elapsed().as_nanos() as f64 / f64::from(REQUESTS))
}

fn request(group: &Rc<Group>, cx: &mut std::task::Context<'_>) {
    let mut attempts = group.begin();
    let Ok(peer) = attempts.pick() else { panic!("every request has a peer here") };
    let Some(lease) = attempts.take_kept(cx, peer, 1) else { panic!("the connection is kept") };
    lease.keep();
    attempts.done(Outcome::Ok);
}
