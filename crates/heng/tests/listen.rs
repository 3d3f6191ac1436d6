//! Listeners: addresses, their options, and how connections are shared among workers.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;
use testkit::{
    Client, Config, Server, Signal, Socket, has_ipv6, listeners, reaches, signal, sockets_of,
    steady,
};

/// A server with these `listen` directives that answers with the address it was reached at.
fn listening(listen: &str) -> Server {
    Server::start(Config::http(&format!(
        "server {{ {listen} location / {{ return 200 $server_addr:$server_port; }} }}"
    )))
}

/// The server's side of a client's connection.
#[track_caller]
fn accepted(client: &Client) -> Socket {
    client.other_side().expect("the other side of the connection")
}

#[test]
fn addresses_are_written_in_many_ways() {
    let server = listening("listen 127.0.0.1:%%PORT_0%%; listen *:%%PORT_1%%; listen %%PORT_2%%;");
    assert_eq!(server.get("/").text(), format!("127.0.0.1:{}", server.port(0)));
    for n in [1, 2] {
        let other = SocketAddr::from(([127, 0, 0, 9], server.port(n)));
        let text = Client::connect(other).get("/").text();
        assert_eq!(text, format!("127.0.0.9:{}", server.port(n)));
    }
    // The first is bound to its address alone.
    let other = SocketAddr::from(([127, 0, 0, 9], server.port(0)));
    assert!(Client::try_connect(other).is_err());
}

#[test]
fn host_names_are_looked_up() {
    let server = listening("listen localhost:%%PORT_0%%;");
    assert_eq!(server.get("/").expect(200).text(), format!("127.0.0.1:{}", server.port(0)));
}

#[test]
fn ipv6_is_its_own_family_unless_told() {
    assert!(has_ipv6(), "these tests need IPv6 on the loopback");
    let server = listening("listen [::1]:%%PORT_0%%; listen [::]:%%PORT_1%% ipv6only=off;");
    let address = |n| SocketAddr::from((Ipv6Addr::LOCALHOST, server.port(n)));
    let text = Client::connect(address(0)).get("/").text();
    assert_eq!(text, format!("::1:{}", server.port(0)));
    assert!(Client::try_connect(server.port(0)).is_err());
    Client::connect(address(1)).get("/").expect(200);
    server.connect_to(1).get("/").expect(200);
    let server = listening("listen [::]:%%PORT_0%%;");
    assert!(Client::try_connect(server.port(0)).is_err());
}

#[test]
fn unix_sockets_come_and_go_with_the_server() {
    let mut server = Server::start(Config::http(
        "server { listen unix:%%DIR%%/own.sock; location / { return 200 $remote_addr; } }",
    ));
    let path = server.path("own.sock");
    assert_eq!(Client::connect(path.clone()).get("/").expect(200).text(), "unix:");
    server.quit().expect(0);
    assert!(!path.exists());
}

#[test]
fn an_address_in_use_is_told() {
    let first = listening("listen 127.0.0.1:%%PORT_0%%;");
    let outcome = Server::try_start(
        Config::http("server { listen 127.0.0.1:%%TAKEN%%; }").with("TAKEN", first.port(0)),
    );
    let outcome = outcome.err().expect("a failed start").expect(1);
    let message =
        format!("bind() to 127.0.0.1:{} failed (98: Address already in use)", first.port(0));
    assert!(outcome.stderr.contains(&message), "{outcome}");
    first.get("/").expect(200);
}

#[test]
fn options_of_one_address_are_given_once() {
    let outcome = Server::check(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%% backlog=9; server_name a; }
         server { listen 127.0.0.1:%%PORT_0%% backlog=8; server_name b; }",
    ));
    outcome.expect(1).says("duplicate listen options for 127.0.0.1:");
    let outcome = Server::check(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%% default_server; }
         server { listen 127.0.0.1:%%PORT_0%% default_server; }",
    ));
    outcome.expect(1).says("a duplicate default server for 127.0.0.1:");
}

#[test]
fn backlog_bounds_the_queue() {
    let server = listening("listen 127.0.0.1:%%PORT_0%% backlog=3;");
    let worker = server.wait_workers(1)[0];
    server.get("/").expect(200);
    // A stopped worker accepts nothing: what is connected waits in the queue.
    signal(worker, Signal::STOP);
    let address = SocketAddr::from(([127, 0, 0, 1], server.port(0)));
    let limit = Duration::from_millis(200);
    let connect = || TcpStream::connect_timeout(&address, limit).ok();
    let queued: Vec<TcpStream> = std::iter::from_fn(connect).take(20).collect();
    signal(worker, Signal::CONT);
    assert!((3..=5).contains(&queued.len()), "{} connections fit", queued.len());
}

#[test]
fn so_keepalive_probes_idle_connections() {
    let server = listening(
        "listen 127.0.0.1:%%PORT_0%% so_keepalive=on; listen 127.0.0.1:%%PORT_1%%;
         listen 127.0.0.1:%%PORT_2%% so_keepalive=30s:5s:3;
         listen 127.0.0.1:%%PORT_3%% so_keepalive=off;",
    );
    let options = |n| {
        let mut client = server.connect_to(n);
        client.get("/").expect(200);
        server.options_of(&client)
    };
    assert!(options(0).keepalive);
    assert!(!options(1).keepalive && !options(3).keepalive);
    let probed = options(2);
    assert_eq!((probed.keepalive, probed.probes), (true, (30, 5, 3)));
}

#[test]
fn deferred_waits_for_the_first_bytes() {
    let server = listening("listen 127.0.0.1:%%PORT_0%% deferred; listen 127.0.0.1:%%PORT_1%%;");
    let mut client = server.connect();
    assert_eq!(accepted(&client).state, Socket::HALF_OPEN);
    client.get("/").expect(200);
    assert_eq!(accepted(&server.connect_to(1)).state, Socket::ESTABLISHED);
}

#[test]
fn rcvbuf_bounds_what_waits_unread() {
    let unread = |options: &str| {
        let server = listening(&format!("listen 127.0.0.1:%%PORT_0%% {options};"));
        let worker = server.wait_workers(1)[0];
        let mut client = server.connect();
        client.get("/").expect(200);
        signal(worker, Signal::STOP);
        client.set_timeout(Duration::from_millis(200));
        // Fails once nothing more fits on the way.
        let _ = client.try_send(vec![b'x'; 16 << 20]);
        let waiting = accepted(&client).receiving;
        signal(worker, Signal::CONT);
        waiting
    };
    let (small, usual) = (unread("rcvbuf=4k"), unread(""));
    assert!(small < 16 << 10 && usual > 32 << 10, "{small} and {usual} bytes");
}

#[test]
fn sndbuf_bounds_what_is_on_its_way() {
    let unacknowledged = |options: &str| {
        let server = Server::start(
            Config::http(&format!(
                "server {{ listen 127.0.0.1:%%PORT_0%% {options}; root %%DIR%%/html;
                           sendfile off; }}"
            ))
            .file("html/large", vec![b'x'; 32 << 20]),
        );
        let mut client = server.connect();
        client.stream().shrink_receive_buffer(4 << 10).unwrap();
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_head();
        // The server has to live as long.
        move || (&server, accepted(&client).sending).1 as usize
    };
    let usual = unacknowledged("");
    assert!(reaches((512 << 10) + 1, &usual), "{} bytes", usual());
    let small = steady(Duration::from_millis(200), unacknowledged("sndbuf=8k"));
    assert!(small < 128 << 10, "{small} bytes");
}

#[test]
fn reuseport_gives_each_worker_a_listener() {
    let count = |options: &str| {
        let server = Server::start(
            Config::http(&format!(
                "server {{ listen 127.0.0.1:%%PORT_0%% {options}; return 204; }}"
            ))
            .main("worker_processes 3;"),
        );
        server.wait_workers(3);
        server.get("/").expect(204);
        listeners(server.port(0)).len()
    };
    assert_eq!((count(""), count("reuseport")), (1, 3));
}

#[test]
fn bind_asks_for_a_socket_of_its_own() {
    // A wildcard of the same port serves the address too, unless it must be bound by itself,
    // which Linux refuses beside the wildcard.
    let config = |options: &str| {
        Config::http(&format!(
            "server {{ listen %%PORT_0%%; listen 127.0.0.1:%%PORT_0%% {options}; return 204; }}"
        ))
    };
    let server = Server::start(config(""));
    server.get("/").expect(204);
    assert_eq!(listeners(server.port(0)).len(), 1);
    let outcome = Server::try_start(config("bind")).err().expect("a failed start");
    outcome.expect(1).says("failed (98: Address already in use)");
}

#[test]
fn fastopen_is_accepted_and_serves() {
    let server = listening("listen 127.0.0.1:%%PORT_0%% fastopen=3;");
    server.get("/").expect(200);
}

#[test]
fn proxy_protocol_tells_the_first_address() {
    let server = Server::start(Config::http(
        "server { listen 127.0.0.1:%%PORT_0%% proxy_protocol;
             location / { return 200 $proxy_protocol_addr:$proxy_protocol_port/$remote_addr; } }",
    ));
    let mut client = server.connect();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 5678 80\r\n");
    let text = client.get("/").expect(200).text();
    assert_eq!(text, "192.0.2.7:5678/127.0.0.1");
    // Whoever does not speak it is not served.
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed();
    server.wait_for_log("broken header");
}

/// How long a process was kept waiting for a processor in all: proc(5), `schedstat`.
fn kept_waiting(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let waited = text.split(' ').nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(waited.unwrap_or(0))
}

/// How many of 400 connections each of four workers has, and how long the one that had to wait
/// for a processor longest did so meanwhile.
fn shares_of_400_connections() -> (Vec<usize>, Duration) {
    // However long it takes, none of them is idle for too long.
    let config = Config::server("keepalive_timeout 1h; location / { return 200 $pid; }");
    let server = Server::start(config.main("worker_processes 4;"));
    let workers = server.wait_workers(4);
    // All of them are at work.
    let mut seen = BTreeSet::new();
    server.wait_until("an answer of each", || {
        seen.insert(server.get("/").expect(200).text());
        seen.len() == workers.len()
    });
    let before: Vec<Duration> = workers.iter().map(|pid| kept_waiting(*pid)).collect();
    let clients: Vec<Client> = (0..400)
        .map(|_| {
            let mut client = server.connect();
            client.get("/").expect(200);
            client
        })
        .collect();
    let waits = workers.iter().zip(before).map(|(pid, before)| kept_waiting(*pid) - before);
    let longest = waits.max().unwrap_or_default();
    let established: Vec<u64> = clients
        .iter()
        .map(accepted)
        .filter(|socket| socket.state == Socket::ESTABLISHED)
        .map(|socket| socket.inode)
        .collect();
    assert_eq!(established.len(), clients.len());
    let share = |worker: &u32| {
        let own = sockets_of(*worker);
        established.iter().filter(|inode| own.contains(inode)).count()
    };
    (workers.iter().map(share).collect(), longest)
}

#[test]
fn four_workers_share_400_connections() {
    // A worker that is ready and gets no processor for some milliseconds is passed over by the
    // others; only then there is another attempt.
    for attempt in 1..=5 {
        let (shares, waited) = shares_of_400_connections();
        if shares.iter().all(|share| (60..=140).contains(share)) {
            return;
        }
        let is_slow = waited > Duration::from_millis(20);
        assert!(is_slow && attempt < 5, "{shares:?} of 400, after {waited:?} without processor");
    }
}

#[test]
fn worker_connections_counts_both_sides() {
    let mut server = Server::start(Config::new(
        "error_log %%DIR%%/error.log warn;
             events { worker_connections 12; }
             http { access_log %%DIR%%/logs/access.log;
                 server { listen 127.0.0.1:%%PORT_0%%; location / { return 204; } } }",
    ));
    let clients: Vec<Client> = (0..30)
        .map(|_| {
            let mut client = server.connect();
            // Whoever finds no place is dropped or waits; neither is an answer.
            let _ = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    server.expect_alerts();
    let line = server.wait_for_log("worker_connections are not enough");
    assert!(line.contains("12 worker_connections are not enough"), "{line}");
    drop(clients);
    server.wait_until("there is room again", || {
        Client::try_connect(server.port(0)).is_ok_and(|mut client| {
            client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
                && client.try_read_response().is_ok()
        })
    });
}
