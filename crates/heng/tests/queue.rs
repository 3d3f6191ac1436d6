//! `queue`: requests that wait for a server that has room.

use testkit::{Answer, Backend, Client, Config, Gate, Server};

fn start(group: &str, main: &str, backend: &Backend) -> Server {
    let config = Config::http(&format!(
        "upstream u {{ {group} }}
         server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://u; }} }}"
    ));
    Server::start(config.with("A", backend.port()).main(main))
}

/// A backend whose answers name the request's path, once the gate is open.
fn held(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::with(move |request| Answer::text(request.target.as_bytes()).after_gate(&gate))
}

fn ask(server: &Server, path: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.wait_until_read();
    client
}

#[test]
fn requests_wait_in_their_order() {
    for main in ["", "worker_processes 1;"] {
        let gate = Gate::new();
        let backend = held(&gate);
        let zone = if main.is_empty() { "" } else { "zone u 128k;" };
        let group = format!("{zone} server 127.0.0.1:%%A%% max_conns=1; queue 10;");
        let server = start(&group, main, &backend);
        let mut clients = vec![ask(&server, "/0")];
        gate.wait_arrived(1);
        clients.extend((1..5).map(|n| ask(&server, &format!("/{n}"))));
        assert_eq!(backend.request_count(), 1, "the others wait");
        gate.open();
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read_response().expect(200).text(), format!("/{n}"));
        }
        let order: String = backend.requests().iter().map(|r| r.target.replace('/', "")).collect();
        assert_eq!(order, "01234");
    }
}

#[test]
fn a_full_queue_refuses() {
    let gate = Gate::new();
    let backend = held(&gate);
    let server = start("server 127.0.0.1:%%A%% max_conns=1; queue 1;", "", &backend);
    let mut first = ask(&server, "/1");
    gate.wait_arrived(1);
    let mut second = ask(&server, "/2");
    server.get("/3").expect(502);
    server.wait_for_log("upstream queue is full while connecting to upstream");
    gate.open();
    first.read_response().expect(200);
    second.read_response().expect(200);
}

#[test]
fn waiting_ends() {
    let gate = Gate::new();
    let backend = held(&gate);
    let group = "server 127.0.0.1:%%A%% max_conns=1; queue 9 timeout=50ms;";
    let server = start(group, "", &backend);
    let mut first = ask(&server, "/1");
    gate.wait_arrived(1);
    server.get("/2").expect(502);
    server.wait_for_log("upstream queue timed out while connecting to upstream");
    gate.open();
    first.read_response().expect(200);
    server.get("/3").expect(200);
}

#[test]
fn a_client_that_leaves_gives_its_place_up() {
    let gate = Gate::new();
    let backend = held(&gate);
    let server = start("server 127.0.0.1:%%A%% max_conns=1; queue 1;", "", &backend);
    let mut first = ask(&server, "/1");
    gate.wait_arrived(1);
    drop(ask(&server, "/2"));
    // Its place is free as soon as we see it leave.
    let mut third = None;
    server.wait_until("the place is free", || {
        let mut client = ask(&server, "/3");
        client.set_timeout(std::time::Duration::from_millis(100));
        match client.try_read_response() {
            Ok(refused) => {
                refused.expect(502);
                false
            }
            Err(_) => {
                third = Some(client);
                true
            }
        }
    });
    gate.open();
    first.read_response().expect(200);
}

#[test]
fn nobody_waits_for_servers_that_are_down() {
    let backend = Backend::refusing();
    let server = start("server 127.0.0.1:%%A%% down; queue 10 timeout=1h;", "", &backend);
    server.get("/").expect(502);
    server.wait_for_log("no live upstreams while connecting to upstream");
}

#[test]
fn a_zone_counts_all_who_wait() {
    let gate = Gate::new();
    let backend = held(&gate);
    let group = "zone u 128k; server 127.0.0.1:%%A%% max_conns=1; queue 3;";
    let server = start(group, "worker_processes 2;", &backend);
    let mut clients = vec![ask(&server, "/0")];
    gate.wait_arrived(1);
    // Three wait, in whichever worker; any more are refused.
    clients.extend((1..4).map(|n| ask(&server, &format!("/{n}"))));
    for _ in 0..4 {
        server.get("/4").expect(502);
    }
    gate.open();
    for client in &mut clients {
        client.read_response().expect(200);
    }
}
