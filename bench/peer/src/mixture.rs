//! The load `mixture`: what a day brings, at a moderate rate, to see whether memory stays flat.
//!
//! `mixture ADDRESS secure=ADDRESS`: kept connections, connections for one request, TLS, long
//! bodies in both directions, and clients that leave in the middle of a body, of a request or of a
//! TLS handshake. Aborts are not failures.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use net::Address;
use rustls::ClientConfig;

use crate::client::{BROWSER, Link, answer, get};
use crate::load::{self, Chance, Counts, Failure, Orders};
use crate::secure::{Sessions, config};

/// Between two actions of a task, in milliseconds: at least one, less than this.
const PAUSE_MS: usize = 20;
/// The longest body, in bytes.
const LONGEST: usize = 256 << 10;
/// A kept connection serves so many requests.
const KEPT: usize = 50;

struct Plan {
    plain: Address,
    secure: Address,
    full: Arc<ClientConfig>,
    resumed: Arc<ClientConfig>,
}

/// The load.
pub(crate) async fn run(orders: &Orders) -> Result<(), Failure> {
    let plan = Rc::new(Plan {
        plain: orders.address()?,
        secure: orders.address_of("secure")?.ok_or("secure=ADDRESS is missing")?,
        full: config(Sessions::Full, &[])?,
        resumed: config(Sessions::Resumed, &[])?,
    });
    load::run(orders, |number, counts| work(plan.clone(), Chance::new(number), counts)).await
}

async fn work(plan: Rc<Plan>, mut chance: Chance, counts: Rc<Counts>) {
    let mut buffer = vec![0; 16 << 10];
    while !counts.is_over() {
        let start = net::precise_now_us();
        match act(&plan, &mut chance, &mut buffer, &counts).await {
            Ok(()) => counts.done(start),
            Err(error) => counts.failed(error),
        }
        pause(&mut chance).await;
    }
}

async fn pause(chance: &mut Chance) {
    net::sleep(1 + chance.below(PAUSE_MS) as u64).await;
}

/// One of the things that clients do.
async fn act(plan: &Plan, chance: &mut Chance, buffer: &mut [u8], counts: &Counts) -> Outcome {
    let (address, secure) = match chance.below(4) {
        0 => (&plan.secure, Some(&plan.full)),
        1 => (&plan.secure, Some(&plan.resumed)),
        _ => (&plan.plain, None),
    };
    let long = get("bench", &format!("/{}", chance.below(LONGEST)));
    match chance.below(8) {
        0 | 1 => {
            let link = Link::open(address, secure).await?;
            for _ in 0..chance.below(KEPT) {
                link.write_all(&get("bench", "/")).await?;
                finish(&link, buffer, counts).await?;
                pause(chance).await;
            }
        }
        2 => {
            let link = Link::open(address, secure).await?;
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{BROWSER}\r\n");
            link.write_all(text.as_bytes()).await?;
            finish(&link, buffer, counts).await?;
        }
        3 | 4 => {
            let link = Link::open(address, secure).await?;
            link.write_all(&long).await?;
            finish(&link, buffer, counts).await?;
        }
        5 => {
            let link = Link::open(address, secure).await?;
            upload(&link, chance.below(LONGEST)).await?;
            finish(&link, buffer, counts).await?;
        }
        6 => {
            let link = Link::open(address, secure).await?;
            link.write_all(&long).await?;
            link.read(buffer).await?;
            link.abort();
        }
        _ => leave_early(plan, chance).await?,
    }
    Ok(())
}

type Outcome = io::Result<()>;

async fn finish(link: &Link, buffer: &mut [u8], counts: &Counts) -> Outcome {
    match answer(link, buffer, |bytes| counts.received(bytes)).await? {
        true => Ok(()),
        false => Err(io::Error::other("an answer that is not 200")),
    }
}

async fn upload(link: &Link, length: usize) -> Outcome {
    let head =
        format!("POST / HTTP/1.1\r\nHost: bench\r\n{BROWSER}Content-Length: {length}\r\n\r\n");
    link.write_all(head.as_bytes()).await?;
    link.write_all(&vec![b'u'; length]).await
}

/// Half a request, or half a handshake: the head of a record that promises 512 bytes.
async fn leave_early(plan: &Plan, chance: &mut Chance) -> Outcome {
    let (address, bytes): (_, &[u8]) = match chance.below(2) {
        0 => (&plan.plain, b"GET / HTTP/1.1\r\nHost: ben"),
        _ => (&plan.secure, b"\x16\x03\x01\x02\x00\x01"),
    };
    let link = Link::open(address, None).await?;
    link.write_all(bytes).await?;
    pause(chance).await;
    link.abort();
    Ok(())
}
