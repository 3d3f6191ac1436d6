//! Holding a request back for a while: `limit_req`, `auth_delay`.

use crate::exchange::Exchange;
use crate::module::Verdict;
use session::log::Level;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Waits so many milliseconds: `Next`, unless the client leaves meanwhile.
pub async fn hold(x: &mut Exchange, ms: u64) -> Verdict {
    let side = x.side();
    let mut sleep = pin!(net::sleep(ms));
    let stays = poll_fn(|cx| match sleep.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => side.poll_gone(cx).map(|()| false),
    });
    if stays.await {
        return Verdict::Next;
    }
    x.log_error(Level::Info, format_args!("client prematurely closed connection"));
    Verdict::Status(499)
}
