//! What the tests of this crate share: a loop with a watchdog, and connected pairs.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use system::driver::{Kind, Settings, block_on, live_tasks, start, stop};
use system::socket::{Address, ListenOptions, listen, local_address};

use crate::listener::{Listener, Sharing, Taking};
use crate::stream::Stream;
use crate::{ConnectOptions, connect, timeout};

/// Runs a test under each kernel interface; none may take longer than 30 seconds.
pub(crate) fn on_each<F: Future<Output = ()>>(main: impl Fn() -> F) {
    for kind in [Kind::Epoll, Kind::Poll, Kind::Select, Kind::IoUring] {
        start(Settings { kind, events: 16 }).unwrap();
        block_on(async {
            let done = timeout(30_000, main()).await;
            assert!(done.is_some(), "{kind:?}: nothing happened for 30 s");
            assert_eq!(live_tasks(), 0, "{kind:?}");
        });
        stop().unwrap();
    }
}

/// A listener on a free port of the loopback, and its address.
pub(crate) fn listener(taking: Taking) -> (Listener, Address) {
    let address = Address::parse("127.0.0.1:0").unwrap();
    let socket = listen(&address, &ListenOptions::default()).unwrap();
    let address = local_address(socket.as_fd()).unwrap();
    (Listener::new(socket, Sharing::Alone, taking).unwrap(), address)
}

/// Two ends of a TCP connection.
pub(crate) async fn tcp_pair() -> (Stream, Stream) {
    let (listener, address) = listener(Taking::One);
    let client = connect(&address, &ConnectOptions::default()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// Two ends of a unix connection.
pub(crate) fn unix_pair() -> (Stream, Stream) {
    let (a, b) = UnixStream::pair().unwrap();
    let stream = |socket: UnixStream| {
        socket.set_nonblocking(true).unwrap();
        Stream::new(OwnedFd::from(socket), true).unwrap()
    };
    (stream(a), stream(b))
}

/// Reads to the end of the stream.
pub(crate) async fn read_all(stream: &Stream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 100_000];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Bytes that differ from their neighbours at any distance that matters.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}
