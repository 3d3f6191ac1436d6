//! Waiting for a time, and limiting the time of other waits.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use system::driver::{Timer, now};

/// Waits `ms` milliseconds.
pub async fn sleep(ms: u64) {
    let timer = Timer::new();
    timer.set(now().saturating_add(ms));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// The output of `future`, or `None` when it took longer than `ms` milliseconds; the future is
/// dropped then. A result that is there in time wins.
pub async fn timeout<F: Future>(ms: u64, future: F) -> Option<F::Output> {
    let timer = Timer::new();
    timer.set(now().saturating_add(ms));
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        timer.poll_expired(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_each;
    use crate::{Either, race};
    use std::future::{pending, ready};

    #[test]
    fn what_comes_first_wins() {
        on_each(|| async {
            let begin = now();
            assert_eq!(timeout(2, pending::<()>()).await, None);
            assert!(now() >= begin + 2);
            assert_eq!(timeout(0, ready(5)).await, Some(5));
            assert_eq!(timeout(60_000, sleep(1)).await, Some(()));
            assert_eq!(race(sleep(60_000), sleep(1)).await, Either::Second(()));
            assert_eq!(race(ready(1), ready(2)).await, Either::First(1));
        });
    }
}
