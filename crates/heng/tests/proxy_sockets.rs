//! The kernel's buffers of connections to backends.

use testkit::{Answer, Backend, Config, Server, Socket, options_of, sockets};

#[test]
fn buffers_have_the_sizes_that_are_asked_for() {
    let backend = Backend::with(|_| Answer::silence());
    let server = Server::start(
        Config::server(
            "location / { proxy_socket_rcvbuf 20k; proxy_socket_sndbuf 30k;
                          proxy_pass http://127.0.0.1:%%BACKEND%%; }",
        )
        .with("BACKEND", backend.port()),
    );
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_requests(1);
    let ours = |socket: &Socket| {
        socket.remote_port == backend.port() && socket.state == Socket::ESTABLISHED
    };
    let side = sockets(backend.port()).into_iter().find(ours).expect("a connection");
    let mut workers = server.workers().into_iter();
    let options = workers.find_map(|pid| options_of(pid, side.inode)).expect("a worker's socket");
    // The kernel keeps twice of what was asked for.
    assert_eq!((options.receive_buffer, options.send_buffer), (2 * 20 * 1024, 2 * 30 * 1024));
}
