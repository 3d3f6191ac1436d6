//! A real HAProxy and a real nginx beside us, before the same servers: weights, keys and failures
//! drawn by chance, the same choices one by one.
//!
//! `SEED=N` repeats a run; the seed is told when one fails. Needs of what HAProxy does with
//! requests under way are recorded (`crates/balance/tests/recorded/record_haproxy.py`).
//!
//! Needs: nginx, haproxy.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::{Backend, Client, Config, Port, Server, until};

const NGINX: &str = "/usr/sbin/nginx";

/// Numbers by chance (xorshift, Marsaglia 2003).
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(1) | 1);
        println!("SEED={seed}");
        Chance(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn word(&mut self) -> String {
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let count = 1 + self.below(12);
        (0..count).map(|_| char::from(letters[self.below(36) as usize])).collect()
    }

    fn weights(&mut self) -> Vec<u64> {
        let count = 2 + self.below(5);
        (0..count).map(|_| 1 + self.below(12)).collect()
    }
}

/// haproxy with a configuration of its own; ended when dropped.
struct Haproxy {
    child: Child,
    port: Port,
    admin: PathBuf,
}

impl Haproxy {
    /// Its files lie beside those of `server`.
    fn start(server: &Server, method: &str, rows: &str) -> Haproxy {
        let port = Port::reserve();
        let admin = server.path("admin");
        let text = format!(
            "global\n  nbthread 1\n  stats socket {} level admin\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 1m\n\
             \x20 timeout server 1m\n  option http-server-close\n\
             frontend f\n  bind 127.0.0.1:{port}\n\
             \x20 http-request set-src req.hdr(X-Client) if {{ req.hdr(X-Client) -m found }}\n\
             \x20 default_backend b\n\
             backend b\n  http-reuse never\n{method}\n{rows}\n",
            admin.display()
        );
        server.write("haproxy.cfg", text);
        let known = Path::new("/usr/sbin/haproxy");
        let mut command = Command::new(if known.exists() { known } else { "haproxy".as_ref() });
        command.arg("-db").arg("-f").arg(server.path("haproxy.cfg"));
        let child = command.stderr(Stdio::null()).spawn().expect("haproxy is installed");
        let haproxy = Haproxy { child, port, admin };
        let up = until(|| Client::try_connect(haproxy.port.number()).is_ok());
        assert!(up, "haproxy does not listen");
        haproxy
    }

    fn set(&self, server: usize, state: &str) {
        let mut stream = UnixStream::connect(&self.admin).expect("its socket");
        let command = format!("set server b/s{server} state {state}\n");
        stream.write_all(command.as_bytes()).expect("it reads");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it answers");
        assert_eq!(said.trim(), "", "{command}");
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Backends that say their number.
fn backends(count: usize) -> Vec<Backend> {
    const NUMBERS: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];
    NUMBERS[..count].iter().map(|number| Backend::named(number)).collect()
}

fn ask(port: u16, key: &str, address: &str) -> String {
    let mut client = Client::connect(port);
    client.send(format!(
        "GET /{key}/x?k={key} HTTP/1.1\r\nHost: h\r\nX-Key: {key}\r\nX-Client: {address}\r\n\
         Connection: close\r\n\r\n"
    ));
    client.read_response().expect(200).text().to_string()
}

/// Both choose alike while servers are taken down and back.
fn same_as_haproxy(chance: &mut Chance, ours: &str, theirs: &str) {
    let weights = chance.weights();
    let backends = backends(weights.len());
    let rows = |format: &dyn Fn(usize, u16, u64) -> String| -> String {
        let row = |(n, backend): (usize, &Backend)| format(n, backend.port(), weights[n]);
        backends.iter().enumerate().map(row).collect()
    };
    let own = rows(&|_, port, weight| format!("server 127.0.0.1:{port} weight={weight};"));
    let server = Server::start(Config::http(&format!(
        "set_real_ip_from 127.0.0.1; real_ip_header X-Client;
         upstream u {{ zone u 64k; {ours} {own} }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location / {{ proxy_pass http://u; proxy_http_version 1.0; }}
         }}
         server {{ listen 127.0.0.1:%%PORT_1%%; location / {{ api write=on; allow all; }} }}"
    )));
    let other =
        rows(&|n, port, weight| format!("  server s{n} 127.0.0.1:{port} weight {weight}\n"));
    let haproxy = Haproxy::start(&server, theirs, &other);
    let set = |n: usize, down: bool| {
        haproxy.set(n, if down { "maint" } else { "ready" });
        let body = format!("{{\"down\":{down}}}");
        let mut client = server.connect_to(1);
        client.send(format!(
            "PATCH /9/http/upstreams/u/servers/{n} HTTP/1.1\r\nHost: h\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.read_response().expect(200);
    };
    let mut is_down = vec![false; weights.len()];
    for n in 0..150 {
        if n % 15 == 9 {
            let subject = chance.below(weights.len() as u64) as usize;
            let others_left = (0..weights.len()).any(|n| n != subject && !is_down[n]);
            if is_down[subject] || others_left {
                is_down[subject] = !is_down[subject];
                set(subject, is_down[subject]);
            }
        }
        let key = chance.word();
        let address = format!("10.{}.{}.7", chance.below(255), chance.below(255));
        let expected = ask(haproxy.port.number(), &key, &address);
        let found = ask(server.port(0), &key, &address);
        assert_eq!(found, expected, "{ours} {weights:?}, request {n}, {is_down:?}");
    }
}

#[test]
fn haproxy_and_we_choose_alike() {
    let chance = &mut Chance::new();
    for method in ["roundrobin", "static-rr", "leastconn"] {
        same_as_haproxy(chance, &format!("balance {method};"), &format!("  balance {method}"));
    }
    let function = ["sdbm", "djb2", "wt6", "crc32"][chance.below(4) as usize];
    for kind in ["map-based", "consistent"] {
        for method in ["source", "uri", "uri depth 1", "url_param k", "hdr(X-Key)"] {
            for rest in ["", " avalanche"] {
                let kind = format!("{kind} {function}{rest}");
                let ours = format!("balance {method}; hash_type {kind};");
                same_as_haproxy(chance, &ours, &format!("  balance {method}\n  hash-type {kind}"));
            }
        }
    }
    let theirs = "  balance uri\n  hash-type consistent";
    same_as_haproxy(chance, "balance uri; hash_type consistent;", theirs);
}

/// Whom each of the two asked, in order, and what came of it.
fn asked(port: u16, key: &str, address: &str) -> String {
    let mut client = Client::connect(port);
    client.send(format!(
        "GET /?k={key} HTTP/1.1\r\nHost: h\r\nX-Client: {address}\r\nConnection: close\r\n\r\n"
    ));
    let response = client.read_response();
    format!("{} {}", response.status, response.header("X-Asked").unwrap_or("-"))
}

/// Both ask the same servers, in the same order, while servers die and come back.
fn same_as_nginx(chance: &mut Chance, method: &str, flags: &str) {
    let weights = chance.weights();
    let mut backends = backends(weights.len());
    let row = |(backend, weight): (&Backend, &u64)| {
        format!("server 127.0.0.1:{} weight={weight} {flags};", backend.port())
    };
    let rows: String = backends.iter().zip(&weights).map(row).collect();
    let config = Config::http(&format!(
        "set_real_ip_from 127.0.0.1; real_ip_header X-Client;
         upstream u {{ zone u 256k; {method} {rows} }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location / {{
                 proxy_pass http://u; proxy_http_version 1.0;
                 add_header X-Asked $upstream_addr always;
             }}
         }}"
    ));
    let [theirs, ours] = [config.clone().program(NGINX), config].map(Server::start);
    let mut is_down = vec![false; weights.len()];
    for n in 0..200 {
        if n % 20 == 13 {
            let subject = chance.below(weights.len() as u64) as usize;
            is_down[subject] = !is_down[subject];
            match is_down[subject] {
                true => backends[subject].down(),
                false => backends[subject].up(),
            }
        }
        let key = chance.word();
        let address = format!("10.{}.{}.7", chance.below(255), chance.below(255));
        let expected = asked(theirs.port(0), &key, &address);
        let found = asked(ours.port(0), &key, &address);
        let place = format!("{method} {flags} {weights:?}, request {n}, {is_down:?}");
        assert_eq!(found, expected, "{place}");
    }
}

#[test]
fn nginx_and_we_choose_alike_while_servers_die() {
    let chance = &mut Chance::new();
    for method in ["", "least_conn;", "ip_hash;", "hash $arg_k;", "hash $arg_k consistent;"] {
        // Servers that failed rest for good, after some failures, or never.
        for flags in ["fail_timeout=1h", "max_fails=3 fail_timeout=1h", "max_fails=0"] {
            same_as_nginx(chance, method, flags);
        }
    }
}
