//! The load `transfers`: long bodies, or a stream of bytes, read as fast as they come.
//!
//! `transfers ADDRESS kind=plain|tls|stream path=/LENGTH [bodies=N]`. `stream` reads without
//! asking. With `bodies` each connection ends after so many bodies and the load with the last of
//! them, however long that takes; without, it ends when the time is over.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use net::Address;
use rustls::ClientConfig;

use crate::client::{Link, answer, get};
use crate::load::{self, Counts, Failure, Orders};
use crate::secure::{Sessions, config};

/// What is read at once.
const BUFFER: usize = 256 << 10;
/// How often, in milliseconds, the load looks whether all bodies are there.
const LOOK_MS: u64 = 5;

struct Plan {
    address: Address,
    secure: Option<Arc<ClientConfig>>,
    /// None when nothing is asked.
    request: Option<Vec<u8>>,
    /// So many for each connection.
    bodies: Option<u64>,
}

/// The load.
pub(crate) async fn run(orders: &Orders) -> Result<(), Failure> {
    let kind = orders.text("kind").unwrap_or("plain");
    let bodies: u64 = orders.value("bodies", 0)?;
    let plan = Rc::new(Plan {
        address: orders.address()?,
        secure: (kind == "tls").then(|| config(Sessions::Full, &[])).transpose()?,
        request: (kind != "stream").then(|| get("bench", orders.text("path").unwrap_or("/"))),
        bodies: (bodies > 0).then_some(bodies),
    });
    if plan.bodies.is_none() {
        return load::run(orders, |_, counts| pull(plan.clone(), counts)).await;
    }
    let counts = Rc::new(Counts::default());
    let left = Rc::new(Cell::new(orders.connections()?));
    for _ in 0..left.get() {
        let (plan, counts, left) = (plan.clone(), counts.clone(), left.clone());
        net::spawn(async move {
            pull(plan, counts).await;
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        net::sleep(LOOK_MS).await;
    }
    counts.tell();
    Ok(())
}

async fn pull(plan: Rc<Plan>, counts: Rc<Counts>) {
    if let Err(error) = pull_on(&plan, &counts).await {
        counts.failed(error);
    }
}

async fn pull_on(plan: &Plan, counts: &Counts) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let link = Link::open(&plan.address, plan.secure.as_ref()).await?;
    let mut bodies = 0;
    while !counts.is_over() && plan.bodies != Some(bodies) {
        let Some(request) = &plan.request else {
            match link.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => counts.received(length),
            }
            continue;
        };
        let start = net::precise_now_us();
        link.write_all(request).await?;
        match answer(&link, &mut buffer, |bytes| counts.received(bytes)).await? {
            true => counts.done(start),
            false => counts.failed("a status that is not 200"),
        }
        bodies += 1;
    }
    Ok(())
}
