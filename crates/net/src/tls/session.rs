//! The layer above a socket that speaks TLS: what a stream reads and writes goes through here
//! once the handshake is over.
//!
//! rustls computes, the stream moves bytes. Three rules keep readiness right:
//!
//! - What rustls has decrypted is handed out before the socket is asked for more.
//! - A block is lent only when the socket has something, and given back at once. What does not
//!   fit into rustls stays here; an idle connection has none of it.
//! - A write that returned may leave encrypted bytes behind. The next write, and
//!   [`Stream::poll_flush`], send them first.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use rustls::{Connection, HandshakeKind, NamedGroup, SignatureScheme};

use crate::buffer::{Block, Chunk};
use crate::stream::{Push, Stream};

use super::check::{Fault, Purpose, Trust};
use super::names;
use super::x509::Certificate;

/// Bytes that are received at a time: a record of full length but for its frame. rustls holds
/// back further input when so much of its output is unread.
const RECEIVE: usize = 16 << 10;

/// A connection's TLS, after the handshake.
pub struct Session {
    state: RefCell<Connection>,
    /// Received, but not given to rustls yet.
    inbox: Cell<Option<Box<Chunk>>>,
    /// What the client sent before the handshake was over, and nobody has read.
    early: RefCell<Option<Box<Early>>>,
    hello: Option<Box<Hello>>,
    /// What the last check of the peer's certificates said, and by whose measure.
    verdict: RefCell<Option<Verdict>>,
    /// What asking about revocation said, and for whose trust it was asked.
    asked: RefCell<Option<Asked>>,
    /// What an engine remembers of the handshake.
    attached: OnceCell<Rc<dyn Any>>,
}

/// Early data, and how much of it was read.
pub(super) struct Early {
    bytes: Vec<u8>,
    at: usize,
}

/// By whose measure, and what it is.
type Verdict = (Rc<Trust>, Result<(), Fault>);

/// For whose trust it was asked, and what is wrong.
type Asked = (Rc<Trust>, Result<(), &'static str>);

/// What a client said first.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    /// The name it wants to reach (SNI), in lower case.
    pub server_name: Option<Box<str>>,
    suites: Box<[rustls::CipherSuite]>,
    groups: Box<[NamedGroup]>,
    schemes: Box<[SignatureScheme]>,
    /// Of the session that followed.
    pub(super) session_id: [u8; 32],
}

impl Hello {
    pub(super) fn of(hello: &rustls::server::ClientHello<'_>) -> Hello {
        Hello {
            server_name: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
            suites: hello.cipher_suites().into(),
            groups: hello.named_groups().unwrap_or_default().into(),
            schemes: hello.signature_schemes().into(),
            session_id: [0; 32],
        }
    }
}

/// What rustls writes to: the stream's plain side.
struct Sink<'a, 'b> {
    stream: &'a Stream,
    cx: &'a mut Context<'b>,
    push: Push,
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.stream.poll_send_plain(self.cx, slices, self.push) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what rustls wants to send.
pub(super) fn poll_flush(
    state: &mut Connection,
    stream: &Stream,
    cx: &mut Context<'_>,
    push: Push,
) -> Poll<io::Result<()>> {
    while state.wants_write() {
        match state.write_tls(&mut Sink { stream, cx, push }) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Sends what reading made rustls say: alerts, and keys that change. While someone waits to
/// write, that one sends it.
fn answer(state: &mut Connection, stream: &Stream) {
    if stream.source().is_writable() {
        let mut cx = Context::from_waker(Waker::noop());
        // A peer that is gone need not hear it; the reader is told by its own error.
        let _ = state.write_tls(&mut Sink { stream, cx: &mut cx, push: Push::Now });
    }
}

/// Gives rustls what was received, until it has something to read; the rest stays.
pub(super) fn feed(state: &mut Connection, input: &mut Chunk) -> Result<(), rustls::Error> {
    while !input.is_empty() {
        let mut rest: &[u8] = input;
        let before = rest.len();
        // Reading from memory fails only when rustls has unread output.
        if state.read_tls(&mut rest).is_err() {
            return Ok(());
        }
        let taken = before - rest.len();
        input.advance(taken);
        let now = state.process_new_packets()?;
        if now.plaintext_bytes_to_read() != 0 || taken == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// What rustls has taken of a client's early data since the last time (RFC 8446 section 2.3).
pub(super) fn early(state: &mut Connection) -> Option<Box<Early>> {
    let Connection::Server(server) = state else { return None };
    let mut bytes = Vec::new();
    // Reading from memory cannot fail; how much there may be is limited by the configuration.
    let _ = server.early_data()?.read_to_end(&mut bytes);
    (!bytes.is_empty()).then(|| Box::new(Early { bytes, at: 0 }))
}

/// An error of the protocol as the error of a read.
pub(super) fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Session {
    pub(super) fn new(
        state: Connection,
        inbox: Option<Chunk>,
        early: Option<Box<Early>>,
        hello: Option<Box<Hello>>,
    ) -> Box<Session> {
        let inbox = inbox.filter(|rest| !rest.is_empty()).map(Box::new);
        Box::new(Session {
            state: RefCell::new(state),
            inbox: Cell::new(inbox),
            early: RefCell::new(early),
            hello,
            verdict: RefCell::new(None),
            asked: RefCell::new(None),
            attached: OnceCell::new(),
        })
    }

    /// Ready when something can be read: with the number of bytes, 0 at the end of the stream.
    pub(crate) fn poll_received(
        &self,
        stream: &Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(early) = &*self.early.borrow() {
                return Poll::Ready(Ok(early.bytes.len() - early.at));
            }
            let mut state = self.state.borrow_mut();
            match state.reader().fill_buf() {
                Ok(bytes) => return Poll::Ready(Ok(bytes.len())),
                // Many peers close without a farewell; lengths tell whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(0));
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                Err(_) => {}
            }
            let mut input = match self.inbox.take() {
                Some(input) => input,
                None => {
                    let block = ready!(stream.poll_lend_plain(cx, RECEIVE, usize::MAX))?;
                    if block.is_empty() {
                        // Tells rustls of the end; it says nothing new about it.
                        let _ = state.read_tls(&mut io::empty());
                        continue;
                    }
                    Box::new(block.freeze())
                }
            };
            let was_early = state.is_handshaking();
            let fed = feed(&mut state, &mut input);
            if state.wants_write() {
                answer(&mut state, stream);
            }
            if was_early {
                *self.early.borrow_mut() = early(&mut state);
            }
            if !input.is_empty() {
                self.inbox.set(Some(input));
            }
            if let Err(error) = fed {
                return Poll::Ready(Err(broken(error)));
            }
        }
    }

    pub(crate) fn poll_read(
        &self,
        stream: &Stream,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.poll_received(stream, cx) {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(_)) => filled += self.take(&mut buffer[filled..])?,
                // What was read already comes first; the error or the wait comes again.
                Poll::Ready(Err(_)) | Poll::Pending if filled != 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(filled))
    }

    /// Reads what is there: early data first.
    fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut slot = self.early.borrow_mut();
        let Some(early) = &mut *slot else { return self.state.borrow_mut().reader().read(buffer) };
        let rest = &early.bytes[early.at..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        early.at += n;
        if early.at == early.bytes.len() {
            *slot = None;
        }
        Ok(n)
    }

    pub(crate) fn poll_lend(
        &self,
        stream: &Stream,
        cx: &mut Context<'_>,
        size: usize,
        limit: usize,
    ) -> Poll<io::Result<Block>> {
        let there = ready!(self.poll_received(stream, cx))?;
        let mut block = Block::lend(size);
        if there != 0 {
            let spare = block.spare();
            let limit = limit.min(spare.len());
            let n = ready!(self.poll_read(stream, cx, &mut spare[..limit]))?;
            block.advance(n);
        }
        Poll::Ready(Ok(block))
    }

    pub(crate) fn poll_send(
        &self,
        stream: &Stream,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        push: Push,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(stream, cx))?;
        let mut state = self.state.borrow_mut();
        let n = state.writer().write_vectored(slices)?;
        // Whoever is told of `n` bytes flushes before it calls them sent.
        match poll_flush(&mut state, stream, cx, push) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    pub(crate) fn poll_flush(&self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_flush(&mut self.state.borrow_mut(), stream, cx, Push::Now)
    }

    /// Tells the peer that nothing more is sent, once. Nobody waits for it: with a full socket it
    /// is not told.
    pub(crate) fn say_goodbye(&self, stream: &Stream) {
        let mut state = self.state.borrow_mut();
        state.send_close_notify();
        let mut cx = Context::from_waker(Waker::noop());
        // A peer that is gone need not be told.
        let _ = poll_flush(&mut state, stream, &mut cx, Push::Now);
    }

    /// Remembers something of the handshake, once.
    pub fn attach(&self, what: Rc<dyn Any>) {
        let _ = self.attached.set(what);
    }

    /// What was attached, if it is a `T`.
    pub fn attached<T: 'static>(&self) -> Option<Rc<T>> {
        self.attached.get()?.clone().downcast().ok()
    }

    /// Whether the peer is a client.
    fn is_server(&self) -> bool {
        matches!(*self.state.borrow(), Connection::Server(_))
    }

    /// `TLSv1.2`, `TLSv1.3`.
    pub fn protocol(&self) -> &'static str {
        self.state.borrow().protocol_version().map_or("", names::protocol)
    }

    /// OpenSSL's name of the cipher suite.
    pub fn cipher(&self) -> String {
        let suite = self.state.borrow().negotiated_cipher_suite();
        suite.map_or_else(String::new, |suite| names::suite(suite.suite()))
    }

    /// The name of the group that made the keys; none for a session that was resumed without.
    pub fn curve(&self) -> Option<String> {
        let group = self.state.borrow().negotiated_key_exchange_group()?.name();
        Some(names::group(group))
    }

    /// The suites that the client offered, as `$ssl_ciphers` lists them.
    pub fn ciphers(&self) -> String {
        // GREASE and the signalling values of renegotiation are no suites, but shown as numbers.
        self.listed(|hello| hello.suites.iter().map(|one| names::suite(*one)).collect())
    }

    /// The groups that the client offered.
    pub fn curves(&self) -> String {
        self.listed(|hello| hello.groups.iter().map(|one| names::group(*one)).collect())
    }

    /// The signature schemes that the client offered.
    pub fn schemes(&self) -> String {
        self.listed(|hello| hello.schemes.iter().map(|one| names::scheme(*one)).collect())
    }

    fn listed(&self, list: impl Fn(&Hello) -> Vec<String>) -> String {
        self.hello.as_ref().map_or_else(String::new, |hello| list(hello).join(":"))
    }

    /// The name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.hello.as_ref()?.server_name.as_deref()
    }

    /// The session's id in hexadecimal digits; it stays when the session is resumed.
    pub fn id_text(&self) -> String {
        let id = self.hello.as_ref().map(|hello| &hello.session_id[..]).unwrap_or_default();
        id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether an earlier session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.state.borrow().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the client sent early data and has not finished the handshake, as far as was read:
    /// what it sent may be a copy of what it sent before (RFC 8470 section 2).
    pub fn is_early(&self) -> bool {
        self.is_server() && self.state.borrow().is_handshaking()
    }

    /// The protocol that both agreed on (ALPN).
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.state.borrow().alpn_protocol().map(<[u8]>::to_vec)
    }

    /// What the peer showed, its own certificate first.
    pub fn certificates(&self) -> Vec<Certificate> {
        let state = self.state.borrow();
        let shown = state.peer_certificates().unwrap_or_default();
        shown.iter().filter_map(|one| Certificate::read(one)).collect()
    }

    /// The peer's own certificate.
    pub fn certificate(&self) -> Option<Certificate> {
        let state = self.state.borrow();
        Certificate::read(state.peer_certificates()?.first()?)
    }

    /// Whether the peer showed a certificate.
    pub fn has_certificate(&self) -> bool {
        self.state.borrow().peer_certificates().is_some_and(|shown| !shown.is_empty())
    }

    /// Whether the peer's certificates lead to someone whom `trust` trusts; `None` when it
    /// showed none. Checked once per connection and `trust`. `now` is in seconds since 1970.
    pub fn verdict(&self, trust: &Rc<Trust>, now: i64) -> Option<Result<(), Fault>> {
        if !self.has_certificate() {
            return None;
        }
        if let Some((known, verdict)) = &*self.verdict.borrow()
            && Rc::ptr_eq(known, trust)
        {
            return Some(*verdict);
        }
        let purpose = if self.is_server() { Purpose::Client } else { Purpose::Server };
        let verdict = trust.check(&self.certificates(), purpose, now);
        *self.verdict.borrow_mut() = Some((trust.clone(), verdict));
        Some(verdict)
    }

    /// Keeps what asking about revocation said of a peer whose chain `trust` takes.
    pub fn keep_asked(&self, trust: &Rc<Trust>, outcome: Result<(), &'static str>) {
        *self.asked.borrow_mut() = Some((trust.clone(), outcome));
    }

    /// What asking about revocation said, if it was asked for `trust`.
    pub fn asked(&self, trust: &Rc<Trust>) -> Option<Result<(), &'static str>> {
        let asked = self.asked.borrow();
        let (_, outcome) = asked.as_ref().filter(|(known, _)| Rc::ptr_eq(known, trust))?;
        Some(*outcome)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Session").field("protocol", &self.protocol()).finish_non_exhaustive()
    }
}
