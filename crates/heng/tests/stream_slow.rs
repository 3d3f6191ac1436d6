//! Many slow transfers at once, by workers without privileges.

use testkit::{Backend, Config, Server};

/// How many there are; each holds two descriptors here and two in the server.
const TRANSFERS: usize = 2_000;
/// More than the sockets between server and client hold: the rest waits in the server, or behind.
const BODY: usize = 512 << 10;

#[test]
fn two_thousand_slow_transfers_do_not_hold_up_a_quick_one() {
    let backend = Backend::script(|conversation| {
        // Pieces that many backends can share.
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..BODY / piece.len() {
            if !conversation.send(&piece) {
                break;
            }
        }
    });
    let server = Server::start(
        Config::new(
            "worker_processes 1; worker_rlimit_nofile 20000; events { worker_connections 10000; }
             stream { server { listen 127.0.0.1:%%PORT_0%% sndbuf=64k; proxy_socket_rcvbuf 64k;
                 proxy_pass 127.0.0.1:%%BACKEND%%; } }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut slow = Vec::new();
    while slow.len() < TRANSFERS {
        // In groups, since the backend's queue is short.
        for _ in 0..100 {
            slow.push(server.connect());
        }
        server.wait_until("the transfers are under way", || backend.connections() == slow.len());
    }
    let mut quick = server.connect();
    assert_eq!(quick.read_to_end().len(), BODY);
    // Each of the others has something, and goes on when it is asked.
    for client in slow.iter_mut().step_by(50) {
        assert_eq!(client.read_exactly(200_000).len(), 200_000);
    }
}
