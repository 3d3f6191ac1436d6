//! The header that a proxy in front sends before anything else (`listen ... proxy_protocol`).

use std::future::poll_fn;

use net::Block;
use session::log::Level;
use session::proxy_protocol::{Announced, Complaint};
use system::errno::Errno;
use wire::proxy_protocol::{Broken, LONGEST, Parsed, parse};

use crate::client::Client;
use crate::journey::{BAD_REQUEST, INTERNAL_ERROR, OK, within};
use crate::session::Session;

/// Reads the header, and keeps what it says and what follows it.
///
/// # Errors
/// The status with which the session ends; the log knows why.
pub(crate) async fn read(s: &mut Session) -> Result<(), u16> {
    s.doing = "reading PROXY protocol";
    let timeout_ms = s.server.settings.proxy_protocol_timeout_ms;
    let deadline = net::now().saturating_add(timeout_ms);
    // The longest header fits: whoever fills the block is refused or done.
    let mut block = Block::lend(LONGEST);
    loop {
        match parse(block.filled()) {
            Ok(Parsed::Complete { len, origin }) => {
                s.announced = Announced::new(&block.filled()[..len], origin).map(Box::new);
                block.consume(len);
                s.ahead = Some(block).filter(|block| !block.is_empty());
                s.doing = "initializing session";
                return Ok(());
            }
            Ok(Parsed::Partial) => {}
            Err(broken) => return Err(refuse(s, broken, &block)),
        }
        let Client::Connection(Some(stream)) = &s.client else { return Err(INTERNAL_ERROR) };
        match within(deadline, poll_fn(|cx| stream.poll_fill(cx, &mut block))).await {
            None => {
                let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
                s.log_errno(Level::Info, errno, format_args!("client timed out"));
                return Err(OK);
            }
            Some(Ok(0)) => return Err(refuse(s, Broken::Form, &block)),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                s.log_errno(Level::Info, (&error).into(), format_args!("recv() failed"));
                return Err(OK);
            }
        }
    }
}

fn refuse(s: &Session, broken: Broken, block: &Block) -> u16 {
    let complaint = Complaint::new(broken, block.filled());
    s.log_error(Level::Error, format_args!("{complaint}"));
    BAD_REQUEST
}
