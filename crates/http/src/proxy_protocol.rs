//! The header that a proxy in front sends before the first request of a connection
//! (`listen ... proxy_protocol`), and the variables that show it.

use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::head::{NoHead, within};
use net::Block;
use session::log::Level;
use session::proxy_protocol::{Announced, Complaint, NoValue, Side};
use session::text::Span;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use system::errno::Errno;
use wire::proxy_protocol::{Broken, LONGEST, Origin, Parsed, parse};

/// Why a connection ends before its first request; the log's words.
enum End {
    Closed,
    TimedOut,
    Refused(Block, Broken),
}

/// Reads the header until `deadline` and keeps what it says and what follows it. False: there was
/// none, the log knows why, and the connection is to be closed.
pub(crate) async fn read_header(connection: &Rc<Connection>, deadline: u64) -> bool {
    let Err(end) = receive(connection, deadline).await else { return true };
    match end {
        End::Closed => tell(connection, Level::Info, format_args!("client closed connection")),
        End::TimedOut => log_timeout(connection),
        End::Refused(block, broken) => {
            let complaint = Complaint::new(broken, block.filled());
            tell(connection, Level::Error, format_args!("{complaint}"));
        }
    }
    false
}

/// The line for a client that says nothing, or goes on too slowly.
pub(crate) fn log_timeout(connection: &Connection) {
    let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
    tell(connection, Level::Info, format_args!("client timed out ({errno})"));
}

fn tell(connection: &Connection, level: Level, what: fmt::Arguments<'_>) {
    connection.log(level, format_args!("{what} while reading PROXY protocol"));
}

async fn receive(connection: &Rc<Connection>, deadline: u64) -> Result<(), End> {
    let ended = |no_head| match no_head {
        NoHead::TimedOut => End::TimedOut,
        _ => End::Closed,
    };
    // The longest header fits: whoever fills the block is refused or done.
    let first = poll_fn(|cx| connection.poll_lend(cx, LONGEST));
    let mut block = within(connection, deadline, first).await.map_err(ended)?;
    if block.is_empty() {
        return Err(End::Closed);
    }
    loop {
        match parse(block.filled()) {
            Ok(Parsed::Complete { len, origin }) => {
                keep(connection, block, len, origin);
                return Ok(());
            }
            Ok(Parsed::Partial) => {}
            Err(broken) => return Err(End::Refused(block, broken)),
        }
        let more = poll_fn(|cx| connection.stream.poll_fill(cx, &mut block));
        if within(connection, deadline, more).await.map_err(ended)? == 0 {
            return Err(End::Refused(block, Broken::Form));
        }
    }
}

fn keep(connection: &Connection, block: Block, len: usize, origin: Origin) {
    if let Some(said) = Announced::new(&block.filled()[..len], origin) {
        connection.announce(said);
    }
    if block.len() > len {
        let mut rest = block.freeze();
        rest.advance(len);
        connection.put_leftover(rest);
    }
}

type X = Exchange;
type Found = Option<Span>;

pub(crate) fn addr(x: &mut X) -> Found {
    Some(x.connection.announced()?.address(Side::Client, &mut x.arena))
}

pub(crate) fn client_port(x: &mut X) -> Found {
    Some(x.connection.announced()?.port(Side::Client, &mut x.arena))
}

pub(crate) fn server_addr(x: &mut X) -> Found {
    Some(x.connection.announced()?.address(Side::Server, &mut x.arena))
}

pub(crate) fn server_port(x: &mut X) -> Found {
    Some(x.connection.announced()?.port(Side::Server, &mut x.arena))
}

/// `$proxy_protocol_tlv_NAME`: an extension of version 2.
pub(crate) fn extension(x: &mut X, name: &str) -> Found {
    match x.connection.announced()?.extension(name, &mut x.arena) {
        Ok(value) => value,
        Err(NoValue::Broken) => {
            x.log_error(Level::Error, format_args!("broken PROXY protocol TLV"));
            None
        }
        Err(NoValue::NoSuchName) => {
            x.log_error(Level::Error, format_args!("unknown PROXY protocol TLV \"{name}\""));
            None
        }
    }
}
