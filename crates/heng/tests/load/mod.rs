//! Clients that keep a server busy and notice every loss, and which worker served them.
//!
//! A loss is an answer that did not come, came broken or with an error, or the end of a
//! connection of which the client was never told and which was not idle for [`SPARED`].

// Each file of tests that has this module uses its own part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::{Client, Config, Response, Server, until};

/// A connection that was quiet for so long may be closed by a worker that retires.
pub(crate) const SPARED: Duration = Duration::from_secs(2);

/// How long a thoughtful client is quiet between two requests.
const THOUGHT: Duration = Duration::from_millis(700);

/// A server whose answers name the worker that holds the client's connection: at `/` it answers
/// itself, at `/through` it asks another of its own servers over a connection of its own.
pub(crate) fn telling_workers(main: &str) -> Config {
    Config::http(
        "access_log off; keepalive_requests 1000000;
         server {
             listen 127.0.0.1:%%PORT_0%%;
             add_header X-Worker $pid always;
             location / { return 200 $pid; }
             location /through { proxy_pass http://127.0.0.1:%%PORT_1%%; }
         }
         server { listen 127.0.0.1:%%PORT_1%%; return 200 through; }",
    )
    .main("error_log error.log notice;")
    .main(main)
}

/// The worker that gave an answer.
#[track_caller]
pub(crate) fn worker_of(response: &Response) -> u32 {
    let name = response.header("X-Worker").expect("the answer names its worker");
    name.parse().expect("a process id")
}

/// What clients saw, summed up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Answers by the worker that gave them.
    pub(crate) answers: BTreeMap<u32, u64>,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// Answers that announced the end of their connection.
    pub(crate) farewells: u64,
    /// What went wrong, as far as it was kept.
    pub(crate) losses: Vec<String>,
}

impl Seen {
    /// All answers.
    pub(crate) fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Fails the test if anything was lost.
    #[track_caller]
    pub(crate) fn expect_no_losses(&self, server: &Server) {
        let Seen { losses, connections, .. } = self;
        assert!(
            losses.is_empty(),
            "of {} requests over {connections} connections these were lost: {losses:#?}{}",
            self.total(),
            server.shown_log()
        );
    }
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// For each client, the answers it got.
    progress: Vec<AtomicU64>,
    seen: Mutex<Seen>,
}

/// How a client behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It asks again as soon as it is answered.
    Busy { path: &'static str },
    /// It is quiet for a while between requests, but never for as long as [`SPARED`].
    Thoughtful,
}

impl Load {
    /// Starts `busy` clients that never pause, and a few thoughtful ones, over a connection each.
    pub(crate) fn start(port: u16, busy: usize) -> Load {
        let manners = (0..busy)
            .map(|n| Manner::Busy { path: if n % 5 == 0 { "/through" } else { "/" } })
            .chain([Manner::Thoughtful; 5]);
        let manners: Vec<Manner> = manners.collect();
        let progress = manners.iter().map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { progress, ..Shared::default() });
        let clients = manners.into_iter().enumerate().map(|(number, manner)| {
            let shared = shared.clone();
            std::thread::spawn(move || visit(port, manner, number, &shared))
        });
        Load { clients: clients.collect(), shared }
    }

    /// Waits until every client has got another answer.
    #[track_caller]
    pub(crate) fn wait_answers(&self) {
        let counts = || -> Vec<u64> {
            self.shared.progress.iter().map(|count| count.load(Ordering::Relaxed)).collect()
        };
        let before = counts();
        // A client that lost something goes on, so that only a dead server stops the load.
        let done = until(|| counts().iter().zip(&before).all(|(now, before)| now > before));
        assert!(done, "clients wait in vain for answers: {:?}", self.shared.losses());
    }

    /// Waits until a worker that is not one of `old` has answered each client's request.
    #[track_caller]
    pub(crate) fn wait_moved(&self, old: &[u32]) {
        self.wait_answers();
        let before = self.shared.answers_of(old);
        self.wait_answers();
        let after = self.shared.answers_of(old);
        assert_eq!(before, after, "old workers still answer");
    }

    /// Ends the clients and tells what they saw.
    #[track_caller]
    pub(crate) fn stop(self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn lost(&self, what: String) {
        self.note(|seen| {
            // A server that fails all the time needs no more than a few examples.
            if seen.losses.len() < 20 {
                seen.losses.push(what);
            }
        });
    }

    fn losses(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).losses.clone()
    }

    fn answers_of(&self, workers: &[u32]) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().filter_map(|pid| seen.answers.get(pid)).sum()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One client's life: connection after connection, each until the server announces its end.
fn visit(port: u16, manner: Manner, number: usize, shared: &Shared) {
    while !shared.stopped() {
        let mut client = match Client::try_connect(port) {
            Ok(client) => client,
            Err(error) => return shared.lost(format!("client {number} cannot connect: {error}")),
        };
        shared.note(|seen| seen.connections += 1);
        converse(&mut client, manner, number, shared);
    }
}

fn converse(client: &mut Client, manner: Manner, number: usize, shared: &Shared) {
    let path = match manner {
        Manner::Busy { path } => path,
        Manner::Thoughtful => "/",
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    for asked in 1.. {
        if shared.stopped() {
            return;
        }
        let sent = Instant::now();
        let lost = |what: String| {
            let waited = sent.elapsed();
            shared.lost(format!("client {number}, request {asked}, after {waited:?}: {what}"));
        };
        if let Err(error) = client.try_send(&request) {
            return lost(format!("cannot send: {error}"));
        }
        let response = match client.try_read_response() {
            Ok(response) if response.status == 200 => response,
            Ok(response) => return lost(format!("answered with {}", response.status)),
            Err(error) => return lost(format!("no answer: {error}")),
        };
        shared.progress[number].fetch_add(1, Ordering::Relaxed);
        let closing = response.header("Connection") == Some("close");
        shared.note(|seen| {
            *seen.answers.entry(worker_of(&response)).or_default() += 1;
            seen.farewells += u64::from(closing);
        });
        if closing {
            return;
        }
        if manner == Manner::Thoughtful {
            // What the client thinks about takes time; nothing is waited for.
            let _ = until(|| shared.stopped() || sent.elapsed() >= THOUGHT);
        }
    }
}
