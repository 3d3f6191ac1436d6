//! The other ends of a benchmark, in one thread each and cheap enough not to be what is measured.
//!
//! ```text
//! bench-peer serve [http=ADDRESS] [echo=ADDRESS] [source=ADDRESS] [packets=ADDRESS]
//!     backends: answers to HTTP requests, bytes that come back, bytes without end, packets that
//!     come back
//! bench-peer idle ADDRESS kind=plain|tls|h2|stream connections=N
//!     opens connections, sends one request over each, and keeps them silent until its standard
//!     input ends
//! bench-peer spin
//!     computes, so that the core it runs on does not sleep, until its parent is gone
//! bench-peer LOAD ADDRESS [connections=N] [seconds=N] ...
//!     asks as fast as it is answered, then prints what came of it
//! ```
//! The backends and `idle` print `ready` once they are. The loads are `handshakes`, `transfers`,
//! `sessions`, `pings`, `packets`, `requests`, `pace` and `mixture`, each described in its module.
#![forbid(unsafe_code)]

mod backend;
mod client;
mod idle;
mod load;
mod mixture;
mod pace;
mod secure;
mod streams;
mod transfers;

use load::{Failure, Orders};
use system::process::{Resource, limit, set_limit};

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = words.split_first() else {
        return Err("usage: bench-peer serve|idle|spin|LOAD ...".into());
    };
    if name == "spin" {
        spin();
        return Ok(());
    }
    raise_limit();
    net::start(net::Settings::default())?;
    let orders = Orders::parse(rest)?;
    match name.as_str() {
        "serve" => net::block_on(backend::serve(&orders)),
        "idle" => net::block_on(idle::run(&orders)),
        "handshakes" => net::block_on(secure::handshakes(&orders)),
        "transfers" => net::block_on(transfers::run(&orders)),
        "sessions" => net::block_on(streams::sessions(&orders)),
        "pings" => net::block_on(streams::pings(&orders)),
        "packets" => net::block_on(streams::packets(&orders)),
        "requests" => net::block_on(client::requests(&orders)),
        "pace" => net::block_on(pace::run(&orders)),
        "mixture" => net::block_on(mixture::run(&orders)),
        _ => Err(format!("there is no {name}").into()),
    }
}

/// Keeps a core from sleeping until whoever started this process is gone.
fn spin() {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        // Not `spin_loop`: a processor that is told so may be lent to another machine.
        (0..10_000_000_u32).for_each(|turn| {
            std::hint::black_box(turn);
        });
    }
}

/// Opens as many descriptors as this user may; a load that needs more fails by itself.
fn raise_limit() {
    if let Some(most) = limit(Resource::Descriptors).hard {
        let _ = set_limit(Resource::Descriptors, most);
    }
}
