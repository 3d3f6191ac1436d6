//! The listening sockets of a program: opened once, kept over reloads and upgrades.
//!
//! A set belongs to one configuration; sets of successive configurations share the sockets that
//! both want. With `reuseport` an address has a socket for each worker. A socket that is not
//! needed any more because there are fewer workers stays open and is served by one of them:
//! closing it would reset the connections that wait in its queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use net::{Listener, Seat, Sharing, Taking};
use session::log::{Level, Log, no_context};
use session::{log, log_errno};
use system::socket::{self, Address, ListenOptions, SocketError, Transport};

use crate::engines::Wanted;

/// How often a taken address is tried (nginx: 5), and how long is waited in between.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// One address and its sockets.
struct Open {
    address: Address,
    transport: Transport,
    /// Nothing for a socket of an older program: how that one opened it is not known.
    options: Option<ListenOptions>,
    sockets: Vec<Rc<OwnedFd>>,
}

/// All listening sockets of one configuration.
#[derive(Default)]
pub struct Listeners {
    open: Vec<Open>,
}

/// Whether sockets are opened to serve, or to see whether they could be (`-t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Serve,
    Test,
}

/// Some listener could not be opened; the log says which and why.
#[derive(Debug)]
pub struct CannotListen;

impl Listeners {
    /// Takes over the sockets of an older program, by the numbers in its environment variable:
    /// `7;8;`. What is not a listening socket is said and left out.
    pub fn inherit(variable: &str, log: &Log) -> Listeners {
        log!(log, Level::Notice, None, &no_context, "using inherited sockets from \"{variable}\"");
        let mut listeners = Listeners::default();
        for word in variable.split([';', ':']).filter(|word| !word.is_empty()) {
            let Ok(number) = word.parse::<RawFd>() else {
                log!(
                    log,
                    Level::Emerg,
                    None,
                    &no_context,
                    "invalid socket number \"{word}\" in NGINX environment variable, \
                     ignoring the rest of the variable"
                );
                break;
            };
            match socket::adopt_listener(number) {
                Ok((socket, address, transport)) => {
                    listeners.add(address, transport, Rc::new(socket));
                }
                Err(error) => log_errno!(
                    log,
                    Level::Crit,
                    error.into(),
                    None,
                    &no_context,
                    "getsockname() of the inherited socket #{number} failed"
                ),
            }
        }
        listeners
    }

    fn add(&mut self, address: Address, transport: Transport, socket: Rc<OwnedFd>) {
        let mut open = self.open.iter_mut();
        match open.find(|open| open.address == address && open.transport == transport) {
            Some(open) => open.sockets.push(socket),
            None => {
                self.open.push(Open { address, transport, options: None, sockets: vec![socket] });
            }
        }
    }

    /// The set that a configuration wants: sockets of this set where there are such, new ones
    /// for the rest. This set stays as it is, so that a failure changes nothing.
    ///
    /// An address that is in use is tried again for two seconds, all of them in each round.
    pub fn reopen(
        &self,
        wanted: &[Wanted],
        workers: usize,
        purpose: Purpose,
        log: &Log,
    ) -> Result<Listeners, CannotListen> {
        let open = wanted.iter().map(|wanted| self.kept(wanted, log)).collect();
        let mut next = Listeners { open };
        let outcome = next.open_all(workers, purpose, log);
        if outcome.is_err() {
            next.remove_files_unlike(self);
        }
        outcome.map(|()| next)
    }

    fn open_all(
        &mut self,
        workers: usize,
        purpose: Purpose,
        log: &Log,
    ) -> Result<(), CannotListen> {
        for attempt in 1..=TRIES {
            if !self.open_missing(workers, purpose, log)? {
                return Ok(());
            }
            let wait = BETWEEN_TRIES.as_millis();
            log!(log, Level::Notice, None, &no_context, "try again to bind() after {wait}ms");
            if attempt < TRIES {
                std::thread::sleep(BETWEEN_TRIES);
            }
        }
        log!(log, Level::Emerg, None, &no_context, "still could not bind()");
        Err(CannotListen)
    }

    /// An entry with the sockets that exist already, made to fit the options.
    fn kept(&self, wanted: &Wanted, log: &Log) -> Open {
        let Wanted { address, options } = wanted;
        let mut sockets = Vec::new();
        let transport = options.transport;
        let mut open = self.open.iter();
        if let Some(old) = open.find(|open| open.address == *address && open.transport == transport)
        {
            sockets.clone_from(&old.sockets);
            if old.options.as_ref() != Some(options) {
                for socket in &sockets {
                    socket::reconfigure_listener(socket.as_fd(), address, options, &mut |error| {
                        say_ignored(log, address, error);
                    });
                }
            }
        }
        Open { address: address.clone(), transport, options: Some(options.clone()), sockets }
    }

    /// Opens what is missing; true when an address was in use and may be free later.
    fn open_missing(
        &mut self,
        workers: usize,
        purpose: Purpose,
        log: &Log,
    ) -> Result<bool, CannotListen> {
        let mut again = false;
        for open in &mut self.open {
            let Some(options) = &open.options else { continue };
            let count = if has_own_sockets(options, &open.address) { workers.max(1) } else { 1 };
            while open.sockets.len() < count {
                let mut complain = |error| say_ignored(log, &open.address, error);
                match open_one(&open.address, options, &open.sockets, &mut complain) {
                    Ok(socket) => open.sockets.push(Rc::new(socket)),
                    Err(error) if error.is_address_in_use() && purpose == Purpose::Test => break,
                    Err(error) => {
                        say_failed(log, &open.address, options, error);
                        if !error.is_address_in_use() {
                            return Err(CannotListen);
                        }
                        again = true;
                        break;
                    }
                }
            }
        }
        if purpose == Purpose::Test {
            self.remove_files_unlike(&Listeners::default());
        }
        Ok(again)
    }

    /// The listeners of one worker out of `workers`, watched by its driver: for each entry those
    /// sockets that are its own, or the one that all share.
    pub fn of_worker(
        &self,
        number: usize,
        workers: usize,
        taking: Taking,
        seat: Option<&Rc<Seat>>,
    ) -> io::Result<Vec<Vec<Listener>>> {
        self.open
            .iter()
            .map(|open| {
                let own = |options| has_own_sockets(options, &open.address);
                let own = open.options.as_ref().is_some_and(own);
                let apart = own && open.sockets.len() >= workers.max(1);
                let alone = apart || workers <= 1;
                let sharing = if alone { Sharing::Alone } else { Sharing::Workers };
                let own = open
                    .sockets
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| !apart || at % workers.max(1) == number);
                own.map(|(_, socket)| {
                    let listener = Listener::new(socket.try_clone()?, sharing, taking)?;
                    Ok(match seat {
                        Some(seat) => listener.with_seat(seat.clone()),
                        None => listener,
                    })
                })
                .collect()
            })
            .collect()
    }

    /// All sockets, for handing them to a new program.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().flat_map(|open| &open.sockets).map(|socket| socket.as_fd())
    }

    /// The value of the environment variable that hands the sockets over: `7;8;`.
    pub fn numbers(&self) -> String {
        self.descriptors().map(|socket| format!("{};", socket.as_raw_fd())).collect()
    }

    /// Removes the files of unix sockets that are in this set and not in another one.
    pub fn remove_files_unlike(&self, other: &Listeners) {
        let same = |a: &Open, b: &Open| a.address == b.address && a.transport == b.transport;
        let in_other = |open: &&Open| other.open.iter().any(|kept| same(kept, open));
        for open in self.open.iter().filter(|open| !in_other(open)) {
            if let Address::Unix(path) = &open.address
                && !open.sockets.is_empty()
            {
                // It may be gone already, removed by hand.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Whether each worker gets a socket of its own. Packets always need it: the kernel then leads
/// all packets of a client to the same worker, which is the one that knows its session.
fn has_own_sockets(options: &ListenOptions, address: &Address) -> bool {
    (options.reuseport || options.transport == Transport::Datagram) && !address.is_unix()
}

/// Opens one more socket of an address. The first one for packets is bound without sharing, so
/// that another program that is there already is noticed; it shares with ours afterwards.
fn open_one(
    address: &Address,
    options: &ListenOptions,
    present: &[Rc<OwnedFd>],
    complain: &mut dyn FnMut(SocketError),
) -> Result<OwnedFd, SocketError> {
    if options.reuseport || options.transport == Transport::Stream || present.is_empty() {
        return socket::listen_leniently(address, options, complain);
    }
    for socket in present {
        socket::set_reuseport(socket.as_fd())?;
    }
    let options = ListenOptions { reuseport: true, ..options.clone() };
    socket::listen_leniently(address, &options, complain)
}

fn say_failed(log: &Log, address: &Address, options: &ListenOptions, error: SocketError) {
    let SocketError { call, errno } = error;
    let failed = match call {
        "bind" => format!("bind() to {address} failed"),
        "listen" => format!("listen() to {address}, backlog {} failed", options.backlog),
        "socket" => format!("socket() {address} failed"),
        "chmod" => format!("chmod() \"{address}\" failed"),
        call => format!("{call} {address} failed"),
    };
    log_errno!(log, Level::Emerg, errno, None, &no_context, "{failed}");
}

fn say_ignored(log: &Log, address: &Address, error: SocketError) {
    let SocketError { call, errno } = error;
    log_errno!(log, Level::Alert, errno, None, &no_context, "{call} {address} failed, ignored");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: &Address, reuseport: bool) -> Wanted {
        let options = ListenOptions { reuseport, ..ListenOptions::default() };
        Wanted { address: address.clone(), options }
    }

    /// A free address, for the moment.
    fn free_address() -> Address {
        let any = Address::parse("127.0.0.1:0").unwrap();
        let socket = socket::listen(&any, &ListenOptions::default()).unwrap();
        socket::local_address(socket.as_fd()).unwrap()
    }

    fn numbers_of(listeners: &Listeners) -> Vec<RawFd> {
        listeners.descriptors().map(|socket| socket.as_raw_fd()).collect()
    }

    #[test]
    fn a_reload_keeps_what_both_want() {
        let log = Log::silent();
        let (stays, goes, comes) = (free_address(), free_address(), free_address());
        let first = Listeners::default()
            .reopen(&[wanted(&stays, false), wanted(&goes, false)], 2, Purpose::Serve, &log)
            .unwrap();
        let second = first
            .reopen(&[wanted(&comes, false), wanted(&stays, false)], 2, Purpose::Serve, &log)
            .unwrap();
        assert_eq!(numbers_of(&second)[1], numbers_of(&first)[0]);
        drop(first);
        assert!(socket::listen(&goes, &ListenOptions::default()).is_ok());
        assert!(socket::listen(&stays, &ListenOptions::default()).is_err());
    }

    #[test]
    fn reuseport_has_a_socket_per_worker_and_loses_none() {
        let log = Log::silent();
        let address = free_address();
        let apart = [wanted(&address, true)];
        let four = Listeners::default().reopen(&apart, 4, Purpose::Serve, &log).unwrap();
        assert_eq!(four.open[0].sockets.len(), 4);
        let two = four.reopen(&apart, 2, Purpose::Serve, &log).unwrap();
        assert_eq!(numbers_of(&two), numbers_of(&four));
        let shared = two.reopen(&[wanted(&address, false)], 2, Purpose::Serve, &log).unwrap();
        assert_eq!(numbers_of(&shared), numbers_of(&four));
    }

    #[test]
    fn what_one_program_hands_over_the_next_one_serves() {
        use std::os::fd::IntoRawFd;
        let log = Log::silent();
        let address = free_address();
        let wanted = [wanted(&address, true)];
        let old = Listeners::default().reopen(&wanted, 2, Purpose::Serve, &log).unwrap();
        // Copies stand for what exec would leave in the new program.
        let copies: Vec<RawFd> =
            old.descriptors().map(|fd| fd.try_clone_to_owned().unwrap().into_raw_fd()).collect();
        let variable: String = copies.iter().map(|number| format!("{number};")).collect();
        let inherited = Listeners::inherit(&format!("{variable}x;1;"), &log);
        assert_eq!(numbers_of(&inherited), copies);
        let new = inherited.reopen(&wanted, 2, Purpose::Serve, &log).unwrap();
        assert_eq!(numbers_of(&new), copies);
        assert_eq!(old.numbers().matches(';').count(), 2);
    }

    #[test]
    fn a_test_neither_waits_nor_leaves_files() {
        let log = Log::silent();
        let taken = free_address();
        let _holder = socket::listen(&taken, &ListenOptions::default()).unwrap();
        let path = std::env::temp_dir().join(format!("heng-listeners-{}", std::process::id()));
        let unix = Address::Unix(path.clone());
        let both = [wanted(&taken, false), wanted(&unix, false)];
        assert!(Listeners::default().reopen(&both, 1, Purpose::Test, &log).is_ok());
        assert!(!path.exists());
    }

    #[test]
    fn an_address_that_cannot_be_is_refused_at_once() {
        let log = Log::silent();
        // Documentation's own network (RFC 5737): no interface has it.
        let foreign = Address::parse("192.0.2.1:80").unwrap();
        let outcome =
            Listeners::default().reopen(&[wanted(&foreign, false)], 1, Purpose::Serve, &log);
        assert!(outcome.is_err());
    }
}
