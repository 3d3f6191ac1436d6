//! A resolver against servers on the loopback, one thread, real sockets.

use super::*;
use crate::sleep;
use crate::testing::on_each;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use system::driver::{Interest, Kind, Settings as DriverSettings, Source, block_on, start, stop};

/// A server that answers what `answer` says: for the n-th question, its name and type. Nothing
/// is silence.
struct Server {
    address: SocketAddr,
    asked: Rc<Cell<usize>>,
    stop: Rc<Cell<bool>>,
    waker: Rc<RefCell<Option<Waker>>>,
}

impl Server {
    fn new(answer: impl Fn(usize, &str, u8) -> Option<Reply> + 'static) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let waker = Rc::new(RefCell::new(None));
        let server =
            Server { address, asked: asked.clone(), stop: stop.clone(), waker: waker.clone() };
        let source = Source::new(socket.as_fd(), Interest::READ).unwrap();
        spawn(poll_fn(move |cx| {
            *waker.borrow_mut() = Some(cx.waker().clone());
            let mut buffer = [0; 600];
            while !stop.get() && source.poll_readable(cx).is_ready() {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    source.clear_readable();
                    continue;
                };
                let question = &buffer[..length];
                let (name, kind) = asked_for(question);
                let reply = answer(asked.get(), &name, kind);
                asked.set(asked.get() + 1);
                if let Some(reply) = reply {
                    socket.send_to(&reply.message(question), from).unwrap();
                }
            }
            if stop.get() { Poll::Ready(()) } else { Poll::Pending }
        }));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn asked_for(question: &[u8]) -> (String, u8) {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    (labels.join("."), question[at + 2])
}

#[derive(Default)]
struct Reply {
    code: u8,
    ttl: u32,
    v4: Vec<u8>,
    alias: Option<&'static [u8]>,
    name: Option<&'static [u8]>,
    forged: bool,
}

impl Reply {
    fn v4(last_octets: &[u8], ttl: u32) -> Option<Reply> {
        Some(Reply { v4: last_octets.to_vec(), ttl, ..Reply::default() })
    }

    fn message(&self, question: &[u8]) -> Vec<u8> {
        let mut out = question.to_vec();
        out[2] = 0x81;
        out[3] = 0x80 | self.code;
        let others = [self.alias, self.name].into_iter().flatten().count();
        out[7] = (self.v4.len() + others) as u8;
        if self.forged {
            out[0] ^= 1;
        }
        let mut record = |kind: u8, data: &[u8]| {
            out.extend([0xc0, 12, 0, kind, 0, 1]);
            out.extend(self.ttl.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        };
        self.v4.iter().for_each(|last| record(1, &[10, 0, 0, *last]));
        if let Some(alias) = self.alias {
            record(5, alias);
        }
        if let Some(name) = self.name {
            record(12, name);
        }
        out
    }
}

fn resolver(servers: &[&Server], ipv6: bool) -> (Rc<Resolver>, Rc<RefCell<Vec<String>>>) {
    let servers = servers.iter().map(|server| server.address).collect();
    let told = Rc::new(RefCell::new(Vec::new()));
    let log = told.clone();
    let complaints =
        Box::new(move |text: fmt::Arguments<'_>| log.borrow_mut().push(text.to_string()));
    let settings = Settings { servers, valid_ms: None, ipv4: true, ipv6 };
    (Resolver::new(settings, complaints), told)
}

fn text(found: Result<Hosts, Failure>) -> String {
    match found {
        Ok(hosts) => hosts.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
        Err(failure) => failure.to_string(),
    }
}

/// Lets the server's task end, so that none is left when the test ends.
async fn leave(servers: Vec<Server>) {
    drop(servers);
    sleep(1).await;
}

#[test]
fn what_is_asked_at_once_is_asked_once_and_remembered() {
    on_each(|| async {
        let server = Server::new(|_, _, _| Reply::v4(&[1, 2], 60));
        let (resolver, _) = resolver(&[&server], false);
        let one = Box::pin(resolver.host("A.b.", 1000)) as Pin<Box<dyn Future<Output = _> + '_>>;
        let found = all(vec![one, Box::pin(resolver.host("a.B", 1000))]).await;
        assert_eq!(found.into_iter().map(text).collect::<Vec<_>>(), ["10.0.0.1 10.0.0.2"; 2]);
        assert_eq!(server.asked.get(), 1);
        let again = resolver.host("a.b", 1000).await.unwrap();
        assert_eq!((again.addresses.len(), server.asked.get()), (2, 1));
        assert_eq!(resolver.counts().requests, [3, 0, 0]);
        assert_eq!(text(resolver.host("a..b", 1000).await), "3: Host not found");
        leave(vec![server]).await;
    });
}

#[test]
fn failures_are_not_remembered_and_servers_take_turns() {
    on_each(|| async {
        let bad = Server::new(|_, _, _| Some(Reply { code: 2, ..Reply::default() }));
        let good = Server::new(|_, _, _| Reply::v4(&[1], 60));
        let (resolver, _) = resolver(&[&bad, &good], false);
        assert_eq!(text(resolver.host("a.b", 1000).await), "2: Server failure");
        assert_eq!(text(resolver.host("a.b", 1000).await), "10.0.0.1");
        assert_eq!((bad.asked.get(), good.asked.get()), (1, 1));
        leave(vec![bad, good]).await;
    });
}

#[test]
fn aliases_are_followed_and_circles_end() {
    on_each(|| async {
        let server = Server::new(|_, name, _| match name {
            "real.x" => Reply::v4(&[7], 60),
            "a.b" => Some(Reply { alias: Some(b"\x04real\x01x\0"), ..Reply::default() }),
            "p.q" => Some(Reply { alias: Some(b"\x01r\x01q\0"), ttl: 9, ..Reply::default() }),
            _ => Some(Reply { alias: Some(b"\x01p\x01q\0"), ttl: 9, ..Reply::default() }),
        });
        let (resolver, _) = resolver(&[&server], false);
        assert_eq!(text(resolver.host("a.b", 1000).await), "10.0.0.7");
        assert_eq!(text(resolver.host("p.q", 1000).await), "3: Host not found");
        leave(vec![server]).await;
    });
}

#[test]
fn addresses_have_names() {
    on_each(|| async {
        let server = Server::new(|_, name, _| match name {
            "4.0.0.10.in-addr.arpa" => {
                Some(Reply { name: Some(b"\x04host\x01x\0"), ttl: 9, ..Reply::default() })
            }
            _ => Some(Reply { code: 3, ..Reply::default() }),
        });
        let (resolver, _) = resolver(&[&server], false);
        let ask = |last| resolver.name_of(IpAddr::from([10, 0, 0, last]), 1000);
        assert_eq!(ask(4).await.as_deref(), Ok("host.x"));
        assert_eq!(ask(5).await.map_err(|failure| failure.code), Err(NOT_FOUND));
        leave(vec![server]).await;
    });
}

#[test]
fn forged_answers_do_not_count() {
    // The flight outlives the test: it sleeps until it is time to ask again.
    start(DriverSettings { kind: Kind::Epoll, events: 16 }).unwrap();
    block_on(async {
        let server = Server::new(|n, _, _| match n {
            0 => Some(Reply { forged: true, v4: vec![6], ..Reply::default() }),
            _ => None,
        });
        let (resolver, told) = resolver(&[&server], false);
        assert_eq!(text(resolver.host("a.b", 30).await), "110: Operation timed out");
        assert!(told.borrow()[0].starts_with("wrong ident "), "{told:?}");
        assert_eq!(resolver.counts().timed_out, 1);
    });
    stop().unwrap();
}

#[test]
fn a_server_that_refuses_is_left_for_the_next() {
    // select(2) takes the error for itself: there the next server is asked when it is time.
    start(DriverSettings { kind: Kind::Epoll, events: 16 }).unwrap();
    block_on(async {
        let gone = Server::new(|_, _, _| None);
        let good = Server::new(|_, _, _| Reply::v4(&[3], 60));
        let (resolver, told) = resolver(&[&gone, &good], false);
        leave(vec![gone]).await;
        let found = text(resolver.host("a.b", 2000).await);
        assert_eq!(found, "10.0.0.3");
        assert!(told.borrow()[0].contains("recv() failed (111: Connection refused)"), "{told:?}");
        leave(vec![good]).await;
    });
    stop().unwrap();
}

#[test]
fn rotation_keeps_all() {
    let v4: Vec<Ipv4Addr> = (1..4).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
    let v6: Vec<Ipv6Addr> = (1..3).map(|n| Ipv6Addr::new(n, 0, 0, 0, 0, 0, 0, 0)).collect();
    let plain = rotated(&v4, &v6, 0);
    assert_eq!(plain.len(), 5);
    for turn in 0..2000 {
        let mut turned = rotated(&v4, &v6, turn);
        turned.sort();
        assert_eq!(turned, plain);
    }
    assert!(rotated(&[], &[], 7).is_empty());
}
