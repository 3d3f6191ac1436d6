//! What all loads share: orders from the command line, tasks that work until the time is over,
//! counts, and the line that tells of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::str::FromStr;

use net::Address;
use rustix::time::{ClockId, clock_gettime};

/// How long connections may take to become warm, and how often that is looked at.
const WARMING_MS: u64 = 20_000;
const LOOK_MS: u64 = 10;

/// Why a load could not work.
pub(crate) type Failure = Box<dyn Error>;

/// The words behind a command: addresses without a name, and `name=value`.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    address: Option<String>,
    values: HashMap<String, String>,
}

impl Orders {
    pub(crate) fn parse(words: &[String]) -> Result<Orders, Failure> {
        let mut orders = Orders::default();
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => {
                    orders.values.insert(name.to_string(), value.to_string());
                }
                None if orders.address.is_none() => orders.address = Some(word.clone()),
                None => return Err(format!("{word} is one address too many").into()),
            }
        }
        Ok(orders)
    }

    /// Where the load goes.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        address(self.address.as_deref().ok_or("an address is missing")?)
    }

    /// The address of that name, when there is one.
    pub(crate) fn address_of(&self, name: &str) -> Result<Option<Address>, Failure> {
        self.values.get(name).map(|text| address(text)).transpose()
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A value, or `usual` when the orders do not name it.
    pub(crate) fn value<T>(&self, name: &str, usual: T) -> Result<T, Failure>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(text) = self.values.get(name) else { return Ok(usual) };
        text.parse().map_err(|error| format!("{name}={text}: {error}").into())
    }

    pub(crate) fn connections(&self) -> Result<usize, Failure> {
        self.value("connections", 64)
    }

    /// How long the load works, in milliseconds.
    pub(crate) fn span_ms(&self) -> Result<u64, Failure> {
        Ok((self.value("seconds", 1.0)? * 1000.0f64) as u64)
    }
}

fn address(text: &str) -> Result<Address, Failure> {
    Address::parse(text).ok_or_else(|| format!("{text} is no address").into())
}

/// What the tasks of a load count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    done: Cell<u64>,
    failed: Cell<u64>,
    bytes: Cell<u64>,
    /// How long each took, in microseconds.
    times_us: RefCell<Vec<u32>>,
    over: Cell<bool>,
    /// How many connections have had an answer.
    warm: Cell<usize>,
    /// CPU time of this process when counting began, in microseconds.
    cpu_before_us: Cell<u64>,
}

impl Counts {
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// One more, which was begun at `start_us` of [`net::precise_now_us`].
    pub(crate) fn done(&self, start_us: u64) {
        if !self.over.get() {
            self.done.set(self.done.get() + 1);
            let took = net::precise_now_us().saturating_sub(start_us);
            self.times_us.borrow_mut().push(u32::try_from(took).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        if !self.over.get() {
            self.bytes.set(self.bytes.get() + bytes as u64);
        }
    }

    /// One that failed; the first reason is told at the end.
    pub(crate) fn failed(&self, reason: impl fmt::Display) {
        if !self.over.get() {
            if self.failed.get() == 0 {
                eprintln!("first failure: {reason}");
            }
            self.failed.set(self.failed.get() + 1);
        }
    }

    /// A connection has had its first answer.
    pub(crate) fn warm(&self) {
        self.warm.set(self.warm.get() + 1);
    }

    /// Waits until so many connections are warm, or until that takes too long; forgets what was
    /// counted and prints `begin`.
    pub(crate) async fn all_warm(&self, connections: usize) {
        let deadline = net::now() + WARMING_MS;
        while self.warm.get() < connections && net::now() < deadline {
            net::sleep(LOOK_MS).await;
        }
        self.restart();
        println!("begin");
    }

    /// Forgets what was counted.
    fn restart(&self) {
        self.done.set(0);
        self.failed.set(0);
        self.bytes.set(0);
        self.times_us.borrow_mut().clear();
        self.cpu_before_us.set(cpu_us());
    }

    /// How many came to an end, well or not.
    pub(crate) fn settled(&self) -> u64 {
        self.done.get() + self.failed.get()
    }

    /// Prints everything as words that `cargo xtask bench` reads.
    pub(crate) fn tell(&self) {
        let cpu_us = cpu_us() - self.cpu_before_us.get();
        let mut times = self.times_us.borrow_mut();
        times.sort_unstable();
        println!(
            "done={} failed={} bytes={} p50_us={} p99_us={} p999_us={} cpu_us={}",
            self.done.get(),
            self.failed.get(),
            self.bytes.get(),
            quantile(&times, 0.5),
            quantile(&times, 0.99),
            quantile(&times, 0.999),
            cpu_us,
        );
    }
}

/// CPU time that this process has used, in microseconds.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// The value that this share of sorted values does not exceed; 0 of none.
pub(crate) fn quantile(sorted: &[u32], share: f64) -> u32 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(0)
}

/// Runs so many tasks until the time is over, and tells what they counted.
pub(crate) async fn run<F>(
    orders: &Orders,
    task: impl FnMut(usize, Rc<Counts>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = ()> + 'static,
{
    let counts = Rc::new(Counts::default());
    start(orders, &counts, task)?;
    finish(orders, &counts).await
}

/// The same, but what happens before all connections are warm does not count. `begin` is printed
/// when they are, or when that takes too long.
pub(crate) async fn run_warm<F>(
    orders: &Orders,
    task: impl FnMut(usize, Rc<Counts>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = ()> + 'static,
{
    let counts = Rc::new(Counts::default());
    start(orders, &counts, task)?;
    counts.all_warm(orders.connections()?).await;
    finish(orders, &counts).await
}

fn start<F>(
    orders: &Orders,
    counts: &Rc<Counts>,
    mut task: impl FnMut(usize, Rc<Counts>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = ()> + 'static,
{
    for number in 0..orders.connections()? {
        net::spawn(task(number, counts.clone()));
    }
    Ok(())
}

async fn finish(orders: &Orders, counts: &Counts) -> Result<(), Failure> {
    net::sleep(orders.span_ms()?).await;
    counts.over.set(true);
    counts.tell();
    Ok(())
}

/// A sequence of numbers without pattern: xorshift64*.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: usize) -> Chance {
        Chance((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_an_address_and_values() {
        let words: Vec<String> =
            ["127.0.0.1:80", "seconds=0.5", "kind=tls"].iter().map(|word| (*word).into()).collect();
        let orders = Orders::parse(&words).unwrap();
        assert_eq!(orders.address().unwrap().port(), Some(80));
        assert_eq!(orders.span_ms().unwrap(), 500);
        assert_eq!(orders.connections().unwrap(), 64);
        assert_eq!(orders.text("kind"), Some("tls"));
        assert!(Orders::parse(&["a".into(), "b".into()]).is_err());
        assert!(Orders::parse(&["seconds=x".into()]).unwrap().span_ms().is_err());
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let times: Vec<u32> = (1..=1000).collect();
        assert_eq!(quantile(&times, 0.5), 500);
        assert_eq!(quantile(&times, 0.99), 990);
        assert_eq!(quantile(&times, 0.999), 999);
        assert_eq!(quantile(&[7], 0.5), 7);
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[test]
    fn chance_spreads() {
        let mut chance = Chance::new(3);
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            seen[chance.below(10)] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }
}
