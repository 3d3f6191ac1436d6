//! Loads for plain TCP and UDP, whose backend sends back what it gets.
//!
//! `sessions` opens a connection, sends 64 bytes, reads them again and closes. `pings` does the
//! same on connections that stay. `packets` sends one packet of 64 bytes from a new socket and
//! waits for its echo, as a DNS client does; what does not come within a second counts as failed.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use net::{Address, ConnectOptions, Datagrams, Stream, connect};
use system::datagram::Batch;

use crate::load::{Counts, Failure, Orders, run};

/// What goes to and fro.
const MESSAGE: [u8; 64] = [b'm'; 64];
/// A packet that did not come back after so many milliseconds is lost.
const LOST_MS: u64 = 1000;
/// After a failure a task waits so long, in milliseconds, that it does not spin.
const PAUSE_MS: u64 = 10;

/// The load with a connection for each message.
pub(crate) async fn sessions(orders: &Orders) -> Result<(), Failure> {
    let address = orders.address()?;
    run(orders, |_, counts| open_and_close(address.clone(), counts)).await
}

async fn open_and_close(address: Address, counts: Rc<Counts>) {
    while !counts.is_over() {
        let start = net::precise_now_us();
        let one = async {
            let stream = open(&address).await?;
            ping(&stream).await
        };
        match one.await {
            Ok(()) => counts.done(start),
            Err(error) => {
                counts.failed(error);
                net::sleep(PAUSE_MS).await;
            }
        }
    }
}

async fn open(address: &Address) -> io::Result<Stream> {
    connect(address, &ConnectOptions::default()).await.map_err(io::Error::other)
}

async fn ping(stream: &Stream) -> io::Result<()> {
    stream.write_all(&MESSAGE).await?;
    let mut echo = [0; MESSAGE.len()];
    let mut filled = 0;
    while filled < echo.len() {
        match stream.read(&mut echo[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => filled += length,
        }
    }
    Ok(())
}

/// The load on connections that stay.
pub(crate) async fn pings(orders: &Orders) -> Result<(), Failure> {
    let address = orders.address()?;
    run(orders, |_, counts| to_and_fro(address.clone(), counts)).await
}

async fn to_and_fro(address: Address, counts: Rc<Counts>) {
    let stream = match open(&address).await {
        Ok(stream) => stream,
        Err(error) => return counts.failed(error),
    };
    while !counts.is_over() {
        let start = net::precise_now_us();
        match ping(&stream).await {
            Ok(()) => counts.done(start),
            Err(error) => return counts.failed(error),
        }
    }
}

/// The load of packets.
pub(crate) async fn packets(orders: &Orders) -> Result<(), Failure> {
    let address = orders.address()?;
    run(orders, |_, counts| send_packets(address.clone(), counts)).await
}

async fn send_packets(address: Address, counts: Rc<Counts>) {
    let mut batch = Batch::default();
    while !counts.is_over() {
        let start = net::precise_now_us();
        match net::timeout(LOST_MS, exchange(&address, &mut batch)).await {
            Some(Ok(true)) => counts.done(start),
            Some(Ok(false)) => counts.failed("another packet came back"),
            Some(Err(error)) => counts.failed(error),
            None => counts.failed("a packet was lost"),
        }
    }
}

/// A packet there and back; true when it is the same.
async fn exchange(address: &Address, batch: &mut Batch) -> io::Result<bool> {
    let socket =
        Datagrams::connect(address, &ConnectOptions::default()).map_err(io::Error::other)?;
    poll_fn(|cx| socket.poll_send(cx, &MESSAGE)).await?;
    while poll_fn(|cx| socket.poll_receive(cx, batch, 1)).await? == 0 {}
    Ok(batch.packets().all(|packet| packet.bytes == MESSAGE))
}
