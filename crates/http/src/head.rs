//! Reading a request's head: within nginx's limits, from bytes left over or from the socket.

use crate::connection::Connection;
use crate::settings::HeadLimits;
use net::{Block, Chunk};
use session::text::Arena;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use wire::http1::{BadRequest, Field, Parsed, RequestLine, RequestParser};

/// How much is read at first: most heads fit, and the block goes back as soon as it is parsed.
const FIRST_READ: usize = 4096;

thread_local! {
    static FIELDS: RefCell<Vec<Vec<Field>>> = const { RefCell::new(Vec::new()) };
}

/// A complete head. Its bytes lie at the start of the arena.
pub(crate) struct Head {
    pub(crate) arena: Arena,
    pub(crate) line: RequestLine,
    pub(crate) fields: Vec<Field>,
    pub(crate) length: u32,
    /// The first field line that was left out because of its name.
    pub(crate) dropped: Option<wire::http1::Slice>,
}

/// Why there is no head to serve.
pub(crate) enum NoHead {
    /// Nothing has come yet after all.
    Nothing,
    /// The client closed, or the connection broke, between requests.
    Closed,
    /// The client closed in the middle of a head.
    ClosedEarly,
    /// The client took too long.
    TimedOut,
    /// What was received is no request; the arena holds it.
    Bad { arena: Arena, line: Option<RequestLine>, fault: Fault },
}

/// What is wrong with a head.
pub(crate) enum Fault {
    /// Its form.
    Form(BadRequest),
    /// The request line is longer than a large buffer.
    LineTooLong,
    /// A field is longer than a large buffer.
    FieldTooLong,
    /// All together are longer than the large buffers.
    TooLarge,
}

/// Bytes being parsed: left over from before, or read into a block of our own.
enum Input {
    Left(Chunk),
    Block(Block),
    /// Where the head is going to stay.
    Arena(Arena),
}

impl Input {
    fn bytes(&self) -> &[u8] {
        match self {
            Input::Left(chunk) => chunk,
            Input::Block(block) => block.filled(),
            Input::Arena(arena) => arena.bytes(),
        }
    }

    /// The same bytes with room for more behind them.
    fn roomy(self) -> Block {
        let needed = self.bytes().len() + FIRST_READ;
        match self {
            Input::Block(block) if !block.is_full() => block,
            other => {
                let mut larger = Block::lend(needed.next_power_of_two());
                larger.append(other.bytes());
                larger
            }
        }
    }

    /// The first bytes in an arena, and those behind them.
    fn split(self, used: usize) -> (Arena, Option<Chunk>) {
        let mut arena = match self {
            Input::Arena(mut arena) => {
                let rest = arena.bytes().get(used..).filter(|rest| !rest.is_empty());
                let rest = rest.map(Chunk::copy_of);
                arena.bytes_mut().truncate(used);
                return (arena, rest);
            }
            _ => Arena::new(),
        };
        arena.push(self.bytes().get(..used).unwrap_or_default());
        let mut chunk = match self {
            Input::Left(chunk) => chunk,
            Input::Block(block) if block.len() > used => block.freeze(),
            _ => return (arena, None),
        };
        chunk.advance(used);
        (arena, Some(chunk))
    }
}

/// An empty list of fields from the worker's pool; [`return_fields`] gives it back.
pub(crate) fn lend_fields() -> Vec<Field> {
    FIELDS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(32))
}

pub(crate) fn return_fields(mut fields: Vec<Field>) {
    fields.clear();
    FIELDS.with_borrow_mut(|pool| {
        if pool.len() < 64 && fields.capacity() <= 256 {
            pool.push(fields);
        }
    });
}

/// Reads one head.
pub(crate) async fn read(connection: &Rc<Connection>, limits: &HeadLimits) -> Result<Head, NoHead> {
    let mut parser = RequestParser::new(limits.parsing);
    let mut fields = lend_fields();
    let mut input = match connection.take_leftover() {
        Some(chunk) => Input::Left(chunk),
        None => {
            // Nothing is waited for here: that is done where a connection costs least.
            let first = poll_fn(|cx| Poll::Ready(poll_first(cx, connection)));
            let Poll::Ready(first) = first.await else {
                return_fields(fields);
                return Err(NoHead::Nothing);
            };
            let first = first.map_err(|_| NoHead::Closed)?;
            if first.bytes().is_empty() {
                return Err(NoHead::Closed);
            }
            first
        }
    };
    let deadline = net::now().saturating_add(limits.timeout_ms);
    loop {
        let parsed = parser.parse(input.bytes(), &mut fields);
        let fault = match parsed {
            Ok(Parsed::Complete { len, line }) => {
                match complete_fault(limits, len, &line, &fields) {
                    None => return Ok(finish(connection, input, &parser, len, line, fields)),
                    Some(fault) => Some(fault),
                }
            }
            Ok(Parsed::Partial) => partial_fault(limits, &parser, input.bytes().len()),
            Err(bad) => Some(Fault::Form(bad)),
        };
        if let Some(fault) = fault {
            let mut arena = Arena::new();
            arena.push(input.bytes());
            return_fields(fields);
            return Err(NoHead::Bad { arena, line: parser.line().copied(), fault });
        }
        let mut block = input.roomy();
        let more = poll_fn(|cx| connection.stream.poll_fill(cx, &mut block));
        let count = within(connection, deadline, more).await?;
        if count == 0 {
            return Err(if parser.started() { NoHead::ClosedEarly } else { NoHead::Closed });
        }
        input = Input::Block(block);
    }
}

/// The first bytes: what was received ahead goes where the head stays, the rest into a block.
fn poll_first(cx: &mut Context<'_>, connection: &Connection) -> Poll<io::Result<Input>> {
    let received = connection.stream.received_bytes();
    if received == 0 {
        let block = ready!(connection.poll_lend(cx, FIRST_READ))?;
        return Poll::Ready(Ok(Input::Block(block)));
    }
    let mut arena = Arena::new();
    let bytes = arena.bytes_mut();
    bytes.resize(received, 0);
    let count = ready!(connection.stream.poll_read(cx, bytes))?;
    bytes.truncate(count);
    Poll::Ready(Ok(Input::Arena(arena)))
}

/// Waits for `reading` until the deadline.
pub(crate) async fn within<T>(
    connection: &Connection,
    deadline: u64,
    reading: impl Future<Output = io::Result<T>>,
) -> Result<T, NoHead> {
    let mut reading = std::pin::pin!(reading);
    let mut armed = false;
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = reading.as_mut().poll(cx) {
            return Poll::Ready(outcome.map_err(|_| NoHead::Closed));
        }
        if !armed {
            connection.timer.set(deadline);
            armed = true;
        }
        connection.timer.poll_expired(cx).map(|()| Err(NoHead::TimedOut))
    })
    .await
}

fn finish(
    connection: &Connection,
    input: Input,
    parser: &RequestParser,
    len: usize,
    line: RequestLine,
    fields: Vec<Field>,
) -> Head {
    let (arena, rest) = input.split(len);
    if let Some(rest) = rest {
        connection.put_leftover(rest);
    }
    let dropped = match parser.dropped() {
        (0, _) => None,
        (_, first) => Some(first),
    };
    Head { arena, line, fields, length: len as u32, dropped }
}

/// nginx's limits on a head that is not complete yet.
fn partial_fault(limits: &HeadLimits, parser: &RequestParser, have: usize) -> Option<Fault> {
    let longest = limits.large_size.max(limits.buffer_size);
    let line = have - parser.line_start().min(have);
    if parser.line().is_none() {
        return (parser.started() && line >= longest).then_some(Fault::LineTooLong);
    }
    if line >= longest {
        return Some(Fault::FieldTooLong);
    }
    (have > total(limits)).then_some(Fault::TooLarge)
}

/// The same for a head that came whole, before anyone could look at its beginning.
fn complete_fault(
    limits: &HeadLimits,
    len: usize,
    line: &RequestLine,
    fields: &[Field],
) -> Option<Fault> {
    if len <= limits.buffer_size {
        return None;
    }
    let longest = limits.large_size.max(limits.buffer_size);
    if line.text.len as usize >= longest {
        return Some(Fault::LineTooLong);
    }
    let too_long = |field: &Field| field.value.end() - field.name.at as usize >= longest;
    if fields.iter().any(too_long) {
        return Some(Fault::FieldTooLong);
    }
    (len > total(limits)).then_some(Fault::TooLarge)
}

fn total(limits: &HeadLimits) -> usize {
    limits.buffer_size + limits.large_count * limits.large_size
}
