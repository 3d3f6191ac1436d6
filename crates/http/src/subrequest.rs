//! Requests that other requests make: for their status, or to be a part of a body (`part`).

use crate::conclusion::log;
use crate::exchange::Exchange;
use crate::journey::{Answered, answer, contents, enter, filter, settle};
use crate::module::Verdict;
use session::log::Level;
use std::future::Future;

/// Runs a subrequest to its end; its response, with its body unread, is in the result, and
/// [`log_subrequest`] is to be called when that is read or given up. When the connection is to be
/// closed without an answer, `sent.logged_status` says how that is logged.
pub async fn subrequest(mut child: Exchange) -> Exchange {
    if child.depth > crate::exchange::MAX_SUBREQUESTS {
        let uri = session::log::Bytes(child.text(child.request.uri));
        child.log_error(Level::Error, format_args!("subrequests cycle while processing \"{uri}\""));
        child.response.status = 500;
        return child;
    }
    let future: std::pin::Pin<Box<dyn Future<Output = Verdict> + '_>> =
        Box::pin(async { enter(&mut child).await });
    let verdict = future.await;
    if let Answered::Close = settle(&mut child, verdict).await {
        // Without a word; a client that is gone was given its status already.
        child.response.status = *child.sent.logged_status.get_or_insert(444);
    }
    child
}

/// A subrequest is over: what there is to write about it is written.
pub fn log_subrequest(child: &mut Exchange) {
    log(child);
}

/// Takes a subrequest to an answer that is filtered and ready to be pulled; false when the
/// connection is to be closed without one.
pub(crate) async fn part(child: &mut Exchange) -> bool {
    if child.is_repeated {
        let verdict = contents(child).await;
        return matches!(settle(child, verdict).await, Answered::Response);
    }
    let mut answered = answer(child).await;
    while let Answered::Response = answered {
        match filter(child) {
            Some(status) => answered = settle(child, Verdict::Status(status)).await,
            None => return true,
        }
    }
    child.response.status = *child.sent.logged_status.get_or_insert(444);
    false
}
