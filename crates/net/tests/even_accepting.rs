//! 400 idle connections, opened one after another, over four workers that share a listener: each
//! worker holds 15 to 35 % of them. A program without the test harness, because it forks.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use net::{Address, Held, Kind, Listener, Seats, Settings, Sharing, Stream, Taking};
use system::process::{Exit, Fork, Pid, exit_now, fork, wait_for};
use system::socket::{ListenOptions, listen, local_address};

const NAME: &str = "workers_take_turns";
const WORKERS: usize = 4;
const CONNECTIONS: usize = 400;

/// Whether the client waits until a worker has taken its connection before it opens the next.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Waiting,
    Rushing,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        // What test runners ask first.
        if !arguments.iter().any(|word| word == "--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    // A processor that is taken away from a worker in the middle is not its fault: the best of
    // three counts.
    let fair = |pace| (0..3).any(|_| is_even(pace));
    if [Pace::Waiting, Pace::Rushing].into_iter().all(fair) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn is_even(pace: Pace) -> bool {
    let held = measure(pace);
    println!("{pace:?}: {held:?}");
    let fair = CONNECTIONS * 15 / 100..=CONNECTIONS * 35 / 100;
    held.is_ok_and(|held| {
        held.iter().sum::<usize>() == CONNECTIONS && held.iter().all(|count| fair.contains(count))
    })
}

/// Connections held by each worker.
fn measure(pace: Pace) -> io::Result<[usize; WORKERS]> {
    let any = Address::any_v4(0);
    let socket = listen(&any, &ListenOptions::default()).map_err(io::Error::other)?;
    let port = local_address(socket.as_fd())?.port().unwrap_or_default();
    let seats = Seats::new(WORKERS)?;
    let (mut taken, report) = io::pipe()?;
    let (alive, ours) = io::pipe()?;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        match fork()? {
            Fork::Parent { child } => workers.push(child),
            Fork::Child => {
                drop(ours);
                let outcome = work(number, &seats, socket, report.into(), alive.into());
                exit_now(i32::from(outcome.is_err()));
            }
        }
    }
    drop((report, alive, socket));
    let mut held = [0; WORKERS];
    let mut clients = Vec::new();
    let mut count = |n: usize| -> io::Result<()> {
        for _ in 0..n {
            let mut number = [0];
            taken.read_exact(&mut number)?;
            held[number[0] as usize] += 1;
        }
        Ok(())
    };
    // Each worker reports once before it takes connections.
    count(WORKERS)?;
    for _ in 0..CONNECTIONS {
        clients.push(TcpStream::connect(("127.0.0.1", port))?);
        if let Pace::Waiting = pace {
            count(1)?;
        }
    }
    if let Pace::Rushing = pace {
        count(CONNECTIONS)?;
    }
    held.iter_mut().for_each(|count| *count -= 1);
    drop(ours);
    for worker in workers {
        check_exit(worker)?;
    }
    Ok(held)
}

fn check_exit(worker: Pid) -> io::Result<()> {
    match wait_for(worker)? {
        Exit::Code(0) => Ok(()),
        other => Err(io::Error::other(format!("a worker ended with {other:?}"))),
    }
}

/// A worker: takes connections, tells each with its number, until the parent closes its pipe.
fn work(
    number: usize,
    seats: &Seats,
    socket: OwnedFd,
    report: OwnedFd,
    alive: OwnedFd,
) -> io::Result<()> {
    net::start(Settings { kind: Kind::Epoll, events: 512 })?;
    let seat = seats.take(number)?;
    net::block_on(async {
        let listener = Listener::new(socket, Sharing::Workers, Taking::One)?;
        let listener = listener.with_seat(seat.clone());
        rustix::io::write(&report, &[number as u8])?;
        net::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if rustix::io::write(&report, &[number as u8]).is_err() {
                    return;
                }
                net::spawn(hold(stream, seat.hold()));
            }
        });
        let parent = system::driver::Source::new(alive.as_fd(), system::driver::Interest::READ)?;
        std::future::poll_fn(|cx| parent.poll_hung_up(cx)).await;
        Ok(())
    })
}

/// An idle connection: one task that waits for the client to go.
async fn hold(stream: Stream, _held: Held) {
    let _ = stream.read(&mut [0; 16]).await;
}
