//! UDP sessions of `stream`: packets there and back, how sessions begin and end, limits.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use testkit::{Config, Server, patience};

/// How long is waited for what must not come.
const QUIET: Duration = Duration::from_millis(200);

/// A UDP server: `answer` says which packets answer one that came from an address.
fn backend(
    answer: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
) -> (u16, mpsc::Receiver<Vec<u8>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = socket.local_addr().expect("a bound socket").port();
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for packet in answer(&buffer[..length], from) {
                // The server under test may be gone.
                let _ = socket.send_to(&packet, from);
            }
            // Not every test wants to know what came.
            let _ = sender.send(buffer[..length].to_vec());
        }
    });
    (port, received)
}

/// A client that talks to a port of the loopback.
struct Client(UdpSocket);

impl Client {
    fn new(port: u16) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(("127.0.0.1", port)).expect("the loopback is there");
        socket.set_read_timeout(Some(patience())).expect("a limit of time");
        Client(socket)
    }

    fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).expect("a packet can be sent");
    }

    #[track_caller]
    fn receive(&self) -> String {
        let mut buffer = [0; 65_536];
        let length = self.0.recv(&mut buffer).expect("a packet comes");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[track_caller]
    fn ask(&self, text: &str) -> String {
        self.send(text.as_bytes());
        self.receive()
    }

    #[track_caller]
    fn expect_nothing(&self) {
        self.0.set_read_timeout(Some(QUIET)).expect("a limit of time");
        let mut buffer = [0; 16];
        assert!(self.0.recv(&mut buffer).is_err(), "a packet came");
        self.0.set_read_timeout(Some(patience())).expect("a limit of time");
    }
}

/// Answers with the port that a packet came from.
fn by_port() -> u16 {
    backend(|_, from| vec![from.port().to_string().into_bytes()]).0
}

#[test]
fn packets_of_a_client_are_one_session() {
    let port = by_port();
    let server = Server::start(
        Config::stream(
            "log_format all '$status $bytes_received $bytes_sent $protocol $upstream_addr';
             access_log %%DIR%%/logs/access.log all;
             server { listen 127.0.0.1:%%PORT_0%% udp; proxy_timeout 1s;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_0%%; return tcp; }",
        )
        .main("error_log %%DIR%%/error.log info; worker_processes 3;")
        .with("BACKEND", port),
    );
    assert_eq!(server.connect().read_to_end(), b"tcp");
    let (one, two) = (Client::new(server.port(0)), Client::new(server.port(0)));
    let (first, second) = (one.ask("a"), two.ask("a"));
    assert_ne!(first, second);
    for _ in 0..5 {
        assert_eq!((one.ask("a"), two.ask("a")), (first.clone(), second.clone()));
    }
    let line = server.wait_for_access("200 6");
    assert_eq!(line.trim(), format!("200 6 {} UDP 127.0.0.1:{port}", 6 * first.len()));
    server.wait_for_log("udp timed out, packets from/to client:6/6, bytes from/to client:6/");
    assert_ne!(one.ask("a"), first, "silence ends a session");
}

#[test]
fn answers_are_counted() {
    let (port, _) = backend(|packet, _| {
        let count: u8 = String::from_utf8_lossy(packet).parse().unwrap_or(0);
        (0..count).map(|i| vec![b'a' + i]).collect()
    });
    let server = Server::start(
        Config::stream(
            "log_format status '$status $server_port';
             access_log %%DIR%%/logs/access.log status;
             proxy_timeout 1s;
             server { listen 127.0.0.1:%%PORT_0%% udp; proxy_responses 0;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_1%% udp; proxy_responses 2;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .main("error_log %%DIR%%/error.log info;")
        .with("BACKEND", port),
    );
    let client = Client::new(server.port(0));
    client.send(b"1");
    client.expect_nothing();
    server.wait_for_log("udp done, packets from/to client:1/0");
    let client = Client::new(server.port(1));
    assert_eq!((client.ask("2"), client.receive()), ("a".to_owned(), "b".to_owned()));
    server.wait_for_log("udp done, packets from/to client:1/2");
    assert_eq!(client.ask("1"), "a");
    server.wait_for_log("upstream timed out (110: Connection timed out)");
    server.wait_for_access(&format!("502 {}", server.port(1)));
}

#[test]
fn requests_are_counted() {
    let port = by_port();
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%% udp; proxy_requests 2; proxy_responses 1;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", port),
    );
    let client = Client::new(server.port(0));
    let first = client.ask("1");
    assert_eq!(client.ask("2"), first);
    let second = client.ask("3");
    assert_ne!(second, first);
    assert_eq!(client.ask("4"), second);
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let port = by_port();
    let server = Server::start(
        Config::stream(
            "server { listen %%PORT_0%% udp; proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen %%PORT_1%% udp; return $server_addr:$server_port; }
             server { listen 127.0.0.3:%%PORT_1%% udp; return third; }",
        )
        .with("BACKEND", port),
    );
    let ask = |host: [u8; 4], port: usize| {
        // A connected socket takes packets from where it sends to, and from nowhere else.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(SocketAddr::from((host, server.port(port)))).expect("the loopback");
        socket.set_read_timeout(Some(patience())).expect("a limit of time");
        Client(socket).ask("x")
    };
    assert!(!ask([127, 0, 0, 2], 0).is_empty());
    assert_eq!(ask([127, 0, 0, 2], 1), format!("127.0.0.2:{}", server.port(1)));
    assert_eq!(ask([127, 0, 0, 3], 1), "third");
}

#[test]
fn packets_are_whole_however_long() {
    let (port, _) = backend(|packet, _| vec![packet.to_vec()]);
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%% udp; proxy_pass 127.0.0.1:%%BACKEND%%;
                 proxy_buffer_size 1k; }",
        )
        .with("BACKEND", port),
    );
    let client = Client::new(server.port(0));
    for length in [0, 1, 1500, 9000, 60_000] {
        let packet = "x".repeat(length);
        assert!(client.ask(&packet) == packet, "{length}");
    }
}

#[test]
fn a_backend_that_is_not_there_is_left_out() {
    let gone = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let gone_port = gone.local_addr().expect("a bound socket").port();
    drop(gone);
    let port = by_port();
    let server = Server::start(
        Config::stream(
            "upstream u { server 127.0.0.1:%%GONE%% max_fails=1; server 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_0%% udp; proxy_pass u; proxy_responses 1;
                 proxy_requests 1; }",
        )
        .main("error_log %%DIR%%/error.log info;")
        .with("GONE", gone_port)
        .with("BACKEND", port),
    );
    let client = Client::new(server.port(0));
    client.send(b"lost");
    server.wait_for_log("recv() failed (111: Connection refused)");
    for _ in 0..4 {
        assert!(!client.ask("x").is_empty());
    }
}

#[test]
fn rates_hold_for_packets() {
    let (port, came) = backend(|packet, _| vec![packet.to_vec()]);
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%% udp; proxy_download_rate 1k;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }
             server { listen 127.0.0.1:%%PORT_1%% udp; proxy_upload_rate 1k;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", port),
    );
    let client = Client::new(server.port(0));
    let packet = "x".repeat(700);
    assert_eq!(client.ask(&packet), packet);
    let begun = Instant::now();
    assert_eq!(client.ask(&packet), packet);
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    let client = Client::new(server.port(1));
    assert_eq!(client.ask(&packet), packet);
    client.send(packet.as_bytes());
    client.expect_nothing();
    assert_eq!(came.try_iter().count(), 3, "what is too fast is lost");
}

#[test]
fn the_client_is_told_in_front_of_the_first_packet() {
    let (port, came) = backend(|_, _| vec![b"ok".to_vec()]);
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%% udp; proxy_protocol on;
                 proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", port),
    );
    let client = Client::new(server.port(0));
    let from = client.0.local_addr().expect("a bound socket").port();
    assert_eq!((client.ask("one"), client.ask("two")), ("ok".to_owned(), "ok".to_owned()));
    let to = server.port(0);
    let first = came.recv_timeout(patience()).expect("the first packet");
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\none");
    assert_eq!(String::from_utf8_lossy(&first), expected);
    assert_eq!(came.recv_timeout(patience()).expect("the second packet"), b"two");
}

#[test]
fn packets_go_through_unix_sockets() {
    let server = Server::start(Config::stream(
        "server { listen unix:%%DIR%%/in.sock udp; proxy_pass unix:%%DIR%%/out.sock;
             proxy_responses 1; }
         server { listen unix:%%DIR%%/out.sock udp; return $protocol; }",
    ));
    let client = UnixDatagram::bind(server.path("client.sock")).expect("a path");
    client.set_read_timeout(Some(patience())).expect("a limit of time");
    client.connect(server.path("in.sock")).expect("the server listens");
    let mut buffer = [0; 16];
    for _ in 0..2 {
        client.send(b"x").expect("a packet can be sent");
        let length = client.recv(&mut buffer).expect("a packet comes");
        assert_eq!(&buffer[..length], b"UDP");
    }
}

#[test]
fn a_reload_goes_on_with_packets() {
    let port = by_port();
    let server = Server::start(
        Config::stream(
            "server { listen 127.0.0.1:%%PORT_0%% udp; proxy_pass 127.0.0.1:%%BACKEND%%; }",
        )
        .main("error_log %%DIR%%/error.log info; worker_processes 2;")
        .with("BACKEND", port),
    );
    let client = Client::new(server.port(0));
    client.ask("before");
    server.reload();
    client.ask("after");
    Client::new(server.port(0)).ask("new");
    server.wait_for_log("disconnected on shutdown");
}
