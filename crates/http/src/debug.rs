//! What is logged of requests at level `debug`: the main events, in nginx's words.

use crate::connection::Connection;
use crate::exchange::Exchange;
use session::log::{Bytes, Level};
use std::os::fd::{AsFd, AsRawFd};

/// Whether anybody wants to know.
#[inline]
fn is_wanted(x: &Exchange) -> bool {
    x.log().enabled(Level::Debug) || x.connection.is_debugged()
}

fn is_wanted_of(connection: &Connection) -> bool {
    let log = connection.served.sites.default_site().map(|site| &site.root.error_log);
    log.is_some_and(|log| log.enabled(Level::Debug)) || connection.is_debugged()
}

/// A connection was accepted.
pub(crate) fn accepted(connection: &Connection) {
    if is_wanted_of(connection) {
        let file = connection.stream.as_fd().as_raw_fd();
        let message = match connection.peer() {
            Some(peer) => format!("accept: {peer} fd:{file}"),
            None => format!("accept: unix: fd:{file}"),
        };
        connection.log(Level::Debug, format_args!("{message}"));
    }
}

/// A connection is closed.
pub(crate) fn closed(connection: &Connection) {
    if is_wanted_of(connection) {
        let file = connection.stream.as_fd().as_raw_fd();
        connection.log(Level::Debug, format_args!("close http connection: {file}"));
    }
}

/// The head of a request was read.
pub(crate) fn request(x: &Exchange) {
    if !is_wanted(x) {
        return;
    }
    let say = |label: &str, text: &[u8]| {
        x.log_error(Level::Debug, format_args!("{label}: \"{}\"", Bytes(text)));
    };
    let request = &x.request;
    say("http request line", x.text(request.line));
    say("http uri", x.text(request.uri));
    say("http args", x.text(request.args));
    for field in request.headers.iter() {
        let (name, value) = (Bytes(field.name(&x.arena)), Bytes(x.text(field.value)));
        x.log_error(Level::Debug, format_args!("http header: \"{name}: {value}\""));
    }
    x.log_error(Level::Debug, format_args!("http header done"));
}

/// A location was chosen.
pub(crate) fn location(x: &Exchange) {
    if is_wanted(x) {
        let name = Bytes(&x.location.name);
        x.log_error(Level::Debug, format_args!("using configuration \"{name}\""));
    }
}

/// A request goes on elsewhere.
pub(crate) fn redirected(x: &Exchange) {
    if is_wanted(x) {
        let (uri, args) = (Bytes(x.text(x.request.uri)), Bytes(x.text(x.request.args)));
        x.log_error(Level::Debug, format_args!("internal redirect: \"{uri}?{args}\""));
    }
}

/// A request is over.
pub(crate) fn over(x: &Exchange) {
    if is_wanted(x) {
        let (status, uri) = (x.response.status, Bytes(x.text(x.request.uri)));
        let args = Bytes(x.text(x.request.args));
        let message = format_args!("http finalize request: {status}, \"{uri}?{args}\"");
        x.log_error(Level::Debug, message);
        x.log_error(Level::Debug, format_args!("http log handler"));
    }
}
