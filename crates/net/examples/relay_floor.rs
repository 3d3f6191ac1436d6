//! What the runtime alone costs: a relay that parses nothing, one upstream connection per client.
//!
//! ```text
//! relay_floor answer ADDRESS [BODY]        answers each read with a response of BODY bytes
//! relay_floor relay ADDRESS UPSTREAM       passes on what it reads, in both directions
//! ```
//! Drive it with an HTTP client that sends one request at a time and divide the relay's CPU time
//! (`/proc/PID/stat`) by the requests. `idle` in place of `relay` prints the memory per
//! connection when its standard input ends.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;

use net::{Address, Closing, Listener, OutQueue, RelaySettings, Sharing, Stream, Taking};
use system::socket::{ListenOptions, listen};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, rest @ ..] = words.as_slice() else {
        return Err("usage: relay_floor answer|relay|idle ADDRESS [BODY|UPSTREAM]".into());
    };
    let address = Address::parse(address).ok_or("not an address")?;
    let socket = listen(&address, &ListenOptions::default())?;
    system::socket::set_nodelay(socket.as_fd(), true)?;
    net::start(net::Settings::default())?;
    let listener = Listener::new(socket, Sharing::Alone, Taking::One)?;
    match (mode.as_str(), rest) {
        ("answer", rest) => {
            let length = rest.first().map_or(Ok(128), |text| text.parse())?;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let response: Rc<[u8]> = [head.as_bytes(), &vec![b'x'; length]].concat().into();
            net::block_on(async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    net::spawn(answer(stream, response.clone()));
                }
            })
        }
        ("relay", [upstream]) => {
            let upstream = Rc::new(Address::parse(upstream).ok_or("not an address")?);
            net::block_on(async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    net::spawn(pass(stream, upstream.clone()));
                }
            })
        }
        ("idle", _) => net::block_on(async {
            net::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    net::spawn(idle(stream));
                }
            });
            let input = system::driver::Interest::READ;
            let end = system::driver::Source::new(std::io::stdin().as_fd(), input)?;
            poll_fn(|cx| end.poll_hung_up(cx)).await;
            let tasks = net::live_tasks() - 1;
            let total = net::memory::total();
            println!("{tasks} connections, {} bytes each", total / tasks.max(1));
            Ok(())
        }),
        _ => Err("unknown mode".into()),
    }
}

async fn answer(stream: Stream, response: Rc<[u8]>) {
    loop {
        match poll_fn(|cx| stream.poll_lend(cx, 4096)).await {
            Ok(block) if !block.is_empty() => {}
            _ => return,
        }
        if stream.write_all(&response).await.is_err() {
            return;
        }
    }
}

async fn pass(stream: Stream, upstream: Rc<Address>) {
    let Ok(upstream) = net::connect(&upstream, &net::ConnectOptions::default()).await else {
        return;
    };
    let settings =
        RelaySettings { buffer: 16 << 10, idle_ms: Some(60_000), closing: Closing::Together };
    let (a, b) = (OutQueue::new(), OutQueue::new());
    net::relay::relay(&stream, &upstream, a, b, &settings, |_, _| {}).await;
}

async fn idle(stream: Stream) {
    let timer = net::Timer::new();
    timer.set(net::now() + 75_000);
    poll_fn(|cx| {
        if timer.poll_expired(cx).is_ready() {
            return std::task::Poll::Ready(());
        }
        stream.poll_lend(cx, 1024).map(|_| ())
    })
    .await;
}
