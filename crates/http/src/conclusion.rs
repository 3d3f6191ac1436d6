//! What follows an answer: `post_action`, and the access log.

use crate::body::Body;
use crate::debug;
use crate::exchange::Exchange;
use crate::journey::settle;
use crate::module::Verdict;
use session::text::Span;
use std::future::poll_fn;
use std::task::{Poll, ready};

/// How many bytes of an answer that nobody sees are read, and for how long, in milliseconds.
const DRAINED: u64 = 64 * 1024;
const DRAINED_MS: u64 = 1000;

/// What follows an answer: `post_action`, and the log.
pub(crate) async fn conclude(x: &mut Exchange) {
    if x.location.settings.post_action.is_some() {
        Box::pin(post_action(x)).await;
    }
    log(x);
}

/// Takes the request once more to where `post_action` says. What is known of its answer stays.
async fn post_action(x: &mut Exchange) {
    let Some(to) = x.location.settings.post_action.clone() else { return };
    let status = x.response.status;
    x.sent.logged_status.get_or_insert(status);
    x.background = true;
    x.bare_errors = true;
    let verdict = match to.strip_prefix('@') {
        Some(name) => Verdict::Named(name.into()),
        None => Verdict::Internal { uri: x.arena.push(to.as_bytes()), args: Span::EMPTY },
    };
    settle(x, verdict).await;
    // A backend's connection can be used again when all was read.
    let mut body = std::mem::take(&mut x.response.body);
    let mut read = 0;
    let drained = poll_fn(|cx| {
        while read < DRAINED && !matches!(body, Body::Empty | Body::Tunnel(_)) {
            match ready!(body.poll_pull(cx, x)) {
                Ok(Some(piece)) => read += piece.data.len().max(1),
                _ => break,
            }
        }
        Poll::Ready(())
    });
    net::timeout(DRAINED_MS, drained).await;
}

/// Runs the location's loggers.
pub(crate) fn log(x: &mut Exchange) {
    debug::over(x);
    if !x.is_main() && !x.location.settings.log_subrequest {
        return;
    }
    let location = x.location.clone();
    for logger in &location.loggers {
        logger.log(x);
    }
}
