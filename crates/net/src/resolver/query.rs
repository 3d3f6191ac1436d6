//! One question under way: which server, over UDP or TCP, when again, and what the answers say.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use system::driver::{Interest, Source, Timer, now};
use system::errno::Errno;
use system::socket::Address;
use wire::dns::{self, Kind, Reply};

use super::{Data, NOT_FOUND, Resolver, SERVER_FAILURE, Wanted, random};
use crate::{ConnectOptions, connect, timeout};

/// After so long the next server is asked (nginx's number).
const RESEND_MS: u64 = 5_000;
/// The longest a conversation over TCP takes.
const TCP_MS: u64 = 5_000;
/// The longest message over UDP.
const DATAGRAM: usize = 4_096;
/// Sockets kept open for late answers.
const SOCKETS: usize = 4;
/// Datagrams that are read in one turn.
const BURST: usize = 16;
/// Complaints about answers to one question.
const COMPLAINTS: u8 = 8;
/// Servers of one service that are looked at.
const SERVICES: usize = 256;

/// What a question ended with: data and for how many seconds it holds, or the response code and
/// for how many seconds the absence holds, if the answer says it.
pub(super) type Found = Result<(Data, u32), (u8, Option<u32>)>;

/// A question under way.
pub(super) struct Query {
    name: String,
    parts: Vec<Part>,
    gathered: Gathered,
    complaints: Cell<u8>,
}

/// The question for one type.
struct Part {
    kind: Kind,
    id: u16,
    message: Vec<u8>,
    answered: bool,
    /// An answer was cut short: from now on over TCP.
    tcp: bool,
}

/// A connected socket.
struct Socket {
    // Before the socket: it must be dropped first.
    source: Source,
    socket: UdpSocket,
    server: SocketAddr,
}

type Conversation = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>>>>;

impl Query {
    /// `None` when the name cannot be asked for.
    pub(super) fn new(resolver: &Resolver, wanted: Wanted, name: &str) -> Option<Query> {
        let kinds: &[Kind] = match wanted {
            Wanted::Host => match (resolver.settings.ipv4, resolver.settings.ipv6) {
                (true, true) => &[Kind::A, Kind::Aaaa],
                (true, false) => &[Kind::A],
                (false, _) => &[Kind::Aaaa],
            },
            Wanted::Service => &[Kind::Srv],
            Wanted::Name => &[Kind::Ptr],
        };
        let mut parts: Vec<Part> = Vec::with_capacity(kinds.len());
        for &kind in kinds {
            let mut id = random();
            if parts.iter().any(|part| part.id == id) {
                id = !id;
            }
            let message = dns::question(id, name, kind)?;
            parts.push(Part { kind, id, message, answered: false, tcp: false });
        }
        let asked = |kind| parts.iter().any(|part| part.kind == kind);
        let gathered = Gathered {
            v4: (!asked(Kind::A)).then(Vec::new),
            v6: (!asked(Kind::Aaaa)).then(Vec::new),
            ..Gathered::default()
        };
        Some(Query { name: name.to_owned(), parts, gathered, complaints: Cell::new(0) })
    }

    /// Asks until there is an answer. `None` when it was time to ask again and nobody waited.
    pub(super) async fn run(
        mut self,
        resolver: &Resolver,
        is_awaited: impl Fn() -> bool,
    ) -> Option<Found> {
        let servers = &resolver.settings.servers;
        let mut at = resolver.next_server.get() % servers.len().max(1);
        resolver.next_server.set(at + 1);
        let mut sockets: Vec<Socket> = Vec::new();
        let mut conversations: Vec<Conversation> = Vec::new();
        let timer = Timer::new();
        // How many servers may still be asked at once when one refuses.
        let mut spare = servers.len().saturating_sub(1);
        let mut send = true;
        loop {
            if send {
                timer.set(now().saturating_add(RESEND_MS));
                let sent = self.send(resolver, *servers.get(at)?, &mut sockets, &mut conversations);
                if sent.is_err() && spare > 0 {
                    spare -= 1;
                    at = (at + 1) % servers.len();
                    continue;
                }
                send = false;
            }
            let event =
                poll_fn(|cx| self.poll(cx, resolver, &mut sockets, &mut conversations, &timer));
            match event.await {
                Event::Found(found) => return Some(found),
                Event::Truncated => {
                    timer.set(now().saturating_add(RESEND_MS));
                    self.converse(*servers.get(at)?, &mut conversations);
                }
                Event::Refused if spare > 0 => {
                    spare -= 1;
                    at = (at + 1) % servers.len();
                    send = true;
                }
                Event::Refused => {}
                Event::Again => {
                    if !is_awaited() {
                        return None;
                    }
                    spare = servers.len().saturating_sub(1);
                    at = (at + 1) % servers.len();
                    send = true;
                }
            }
        }
    }

    /// Sends what is not answered to `server`.
    fn send(
        &mut self,
        resolver: &Resolver,
        server: SocketAddr,
        sockets: &mut Vec<Socket>,
        conversations: &mut Vec<Conversation>,
    ) -> Result<(), ()> {
        if self.parts.iter().any(|part| part.tcp && !part.answered) {
            self.converse(server, conversations);
        }
        if !self.parts.iter().any(|part| !part.tcp && !part.answered) {
            return Ok(());
        }
        let sent = Socket::open(server).and_then(|socket| {
            for part in self.parts.iter().filter(|part| !part.tcp && !part.answered) {
                socket.socket.send(&part.message).map_err(|error| ("send", error))?;
            }
            Ok(socket)
        });
        match sent {
            Ok(socket) => {
                if sockets.len() >= SOCKETS {
                    sockets.remove(0);
                }
                sockets.push(socket);
                Ok(())
            }
            Err((call, error)) => {
                self.complain_call(resolver, call, &error, server);
                Err(())
            }
        }
    }

    /// Asks over TCP what was cut short.
    fn converse(&mut self, server: SocketAddr, conversations: &mut Vec<Conversation>) {
        conversations.clear();
        for part in self.parts.iter().filter(|part| part.tcp && !part.answered) {
            let message = part.message.clone();
            conversations.push(Box::pin(async move {
                let talked = timeout(TCP_MS, over_tcp(server, &message)).await;
                talked.unwrap_or_else(|| Err("DNS server timed out over TCP".to_owned()))
            }));
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        resolver: &Resolver,
        sockets: &mut Vec<Socket>,
        conversations: &mut Vec<Conversation>,
        timer: &Timer,
    ) -> Poll<Event> {
        let mut buffer = [0; DATAGRAM];
        for at in 0..sockets.len() {
            for turn in 0..=BURST {
                if turn == BURST {
                    cx.waker().wake_by_ref();
                    break;
                }
                match sockets[at].poll_receive(cx, &mut buffer) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(length)) => {
                        if let Some(event) = self.understand(resolver, &buffer[..length], false) {
                            return Poll::Ready(event);
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        let broken = sockets.remove(at);
                        self.complain_call(resolver, "recv", &error, broken.server);
                        return Poll::Ready(Event::Refused);
                    }
                }
            }
        }
        let mut at = 0;
        while at < conversations.len() {
            let Poll::Ready(ended) = conversations[at].as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            drop(conversations.swap_remove(at));
            let event = match ended {
                Ok(message) => self.understand(resolver, &message, true),
                Err(reason) => {
                    self.complain(resolver, format_args!("{reason}"));
                    Some(Event::Refused)
                }
            };
            if let Some(event) = event {
                return Poll::Ready(event);
            }
        }
        timer.poll_expired(cx).map(|()| {
            timer.clear();
            Event::Again
        })
    }

    /// What a message means for the question; `None`: nothing, wait on.
    fn understand(&mut self, resolver: &Resolver, message: &[u8], tcp: bool) -> Option<Event> {
        let reply = match dns::reply(message) {
            Ok(reply) => reply,
            Err(bad) => {
                self.complain(resolver, format_args!("{bad}"));
                return None;
            }
        };
        let (id, name) = (reply.id, &reply.name);
        let asked = self.parts.iter_mut().find(|part| part.kind == reply.kind && !part.answered);
        let Some(part) = asked.filter(|_| *name == self.name) else {
            self.complain(resolver, format_args!("unexpected DNS response for {name}"));
            return None;
        };
        if id != part.id {
            let expected = part.id;
            self.complain(
                resolver,
                format_args!("wrong ident {id} in DNS response for {name}, expect {expected}"),
            );
            return None;
        }
        if reply.truncated {
            // Over TCP nothing can be cut short, and what is asked there needs no telling twice.
            if tcp || part.tcp {
                return None;
            }
            part.tcp = true;
            return Some(Event::Truncated);
        }
        part.answered = true;
        self.gathered.take(reply).map(Event::Found)
    }

    fn complain_call(
        &self,
        resolver: &Resolver,
        call: &str,
        error: &io::Error,
        server: SocketAddr,
    ) {
        let errno = Errno::from(error);
        let message = format_args!("{call}() failed ({errno}) while resolving, resolver: {server}");
        self.complain(resolver, message);
    }

    /// A server, or who pretends to be one, cannot fill the log.
    fn complain(&self, resolver: &Resolver, message: std::fmt::Arguments<'_>) {
        if self.complaints.get() < COMPLAINTS {
            self.complaints.set(self.complaints.get() + 1);
            resolver.complain(message);
        }
    }
}

/// What a wait ended with.
enum Event {
    Found(Found),
    /// An answer was cut short.
    Truncated,
    /// A server cannot be reached.
    Refused,
    /// Time to ask again.
    Again,
}

impl Socket {
    fn open(server: SocketAddr) -> Result<Socket, (&'static str, io::Error)> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).map_err(|error| ("bind", error))?;
        socket.set_nonblocking(true).map_err(|error| ("ioctl(FIONBIO)", error))?;
        socket.connect(server).map_err(|error| ("connect", error))?;
        let source = Source::new(socket.as_fd(), Interest::READ.closing())
            .map_err(|error| ("epoll_ctl", error))?;
        Ok(Socket { source, socket, server })
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.source.poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            match self.socket.recv(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear_readable();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// One question and its answer over TCP (RFC 7766).
async fn over_tcp(server: SocketAddr, message: &[u8]) -> Result<Vec<u8>, String> {
    let told = |call: &str, errno: Errno| {
        format!("{call}() failed ({errno}) while resolving, resolver: {server}")
    };
    let stream = connect(&Address::Inet(server), &ConnectOptions::default())
        .await
        .map_err(|error| told(error.call, error.errno))?;
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed).await.map_err(|error| told("send", Errno::from(&error)))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        if let Some((head, rest)) = answer.split_first_chunk::<2>() {
            let wanted = usize::from(u16::from_be_bytes(*head));
            if rest.len() >= wanted {
                return Ok(rest[..wanted].to_vec());
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) => return Err("DNS server closed the connection".to_owned()),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) => return Err(told("recv", Errno::from(&error))),
        }
    }
}

/// The answers so far. For addresses, those of the family that was answered last decide when
/// there are none, as in nginx: a name may be an alias in one and absent in the other.
#[derive(Default)]
struct Gathered {
    /// `None` while it is awaited.
    v4: Option<Vec<Ipv4Addr>>,
    v6: Option<Vec<Ipv6Addr>>,
    /// One family was answered.
    is_begun: bool,
    code: u8,
    ttl_s: Option<u32>,
    /// Every answer without records vouched for the absence so long.
    negative_s: Option<u32>,
}

impl Gathered {
    /// `None` while more is awaited.
    fn take(&mut self, reply: Reply) -> Option<Found> {
        let answer = reply.answer;
        let absent = (answer.is_empty && reply.code == 0) || reply.code == NOT_FOUND;
        match reply.kind {
            Kind::A | Kind::Aaaa => {}
            _ if reply.code != 0 || absent => {
                let code = if absent { NOT_FOUND } else { reply.code };
                return Some(Err((code, answer.negative_ttl_s)));
            }
            _ => return Some(other(reply.kind, answer)),
        }
        let last = usize::from(self.v4.is_none()) + usize::from(self.v6.is_none()) == 1;
        self.negative_s = match (self.is_begun, self.negative_s, answer.negative_ttl_s) {
            (false, _, only) => only,
            (true, Some(one), Some(other)) => Some(one.min(other)),
            _ => None,
        };
        self.is_begun = true;
        let v4 = |ip: &IpAddr| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None };
        let v6 = |ip: &IpAddr| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None };
        match reply.kind {
            Kind::A => self.v4 = Some(answer.addresses.iter().filter_map(v4).collect()),
            _ => self.v6 = Some(answer.addresses.iter().filter_map(v6).collect()),
        }
        if reply.code != 0 {
            self.code = reply.code;
        }
        if !answer.is_empty && reply.code == 0 {
            self.ttl_s = Some(self.ttl_s.unwrap_or(u32::MAX).min(answer.ttl_s));
        }
        if !last {
            return None;
        }
        if self.code != 0 {
            let holds = self.negative_s.filter(|_| self.code == NOT_FOUND);
            return Some(Err((self.code, holds)));
        }
        let (v4, v6) = (self.v4.take()?, self.v6.take()?);
        let ttl_s = self.ttl_s.unwrap_or(0);
        if !v4.is_empty() || !v6.is_empty() {
            return Some(Ok((Data::Addresses(v4, v6), ttl_s)));
        }
        match answer.alias {
            Some(alias) => Some(Ok((Data::Alias(alias), ttl_s))),
            None => Some(Err((NOT_FOUND, self.negative_s))),
        }
    }
}

/// What an answer says about a service or an address.
fn other(kind: Kind, answer: dns::Answer) -> Found {
    let ttl_s = answer.ttl_s;
    if kind == Kind::Srv && !answer.services.is_empty() {
        let mut services = answer.services;
        // A target of nothing says that there is no such service (RFC 2782).
        services.retain(|service| !service.host.is_empty());
        services.iter_mut().for_each(|service| service.weight = service.weight.max(1));
        services.sort_by_key(|service| service.priority);
        services.truncate(SERVICES);
        return match services.is_empty() {
            true => Err((NOT_FOUND, Some(ttl_s))),
            false => Ok((Data::Services(services), ttl_s)),
        };
    }
    if let Some(name) = answer.names.into_iter().next() {
        return Ok((Data::Name(name), ttl_s));
    }
    match answer.alias {
        Some(alias) => Ok((Data::Alias(alias), ttl_s)),
        None => Err((SERVER_FAILURE, None)),
    }
}
