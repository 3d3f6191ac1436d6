//! An engine at work in a worker: listeners that are open, connections that are, and how both
//! come to an end. Every engine has the same.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use session::budget;

use crate::engines::{Ending, Service};

/// How long what was cut off may take to be logged.
const LAST_WORDS_MS: u64 = 100;

/// What an engine does about its end.
pub(crate) trait Serving {
    /// See [`Service::end`].
    fn end(&self, ending: Ending);

    /// Cuts off what is under way, so that it is logged and ends.
    fn abort(&self);
}

/// One engine's service.
pub(crate) struct EngineService {
    serving: Rc<dyn Serving>,
    /// Listeners that are still open. Each takes what waits in its queue before it closes.
    accepting: Cell<usize>,
    aborted: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl EngineService {
    pub(crate) fn new(serving: Rc<dyn Serving>) -> Rc<EngineService> {
        Rc::new(EngineService {
            serving,
            accepting: Cell::new(0),
            aborted: Cell::new(false),
            waiter: RefCell::new(None),
        })
    }

    /// Starts to take connections of a listener.
    pub(crate) fn accept(self: &Rc<EngineService>, accepting: impl Future<Output = ()> + 'static) {
        self.accepting.set(self.accepting.get() + 1);
        let service = self.clone();
        net::spawn(async move {
            accepting.await;
            service.accepting.set(service.accepting.get() - 1);
            service.wake();
        });
    }

    fn wake(&self) {
        if let Some(waker) = self.waiter.take() {
            waker.wake();
        }
    }
}

impl Service for EngineService {
    fn end(&self, ending: Ending) {
        self.serving.end(ending);
    }

    fn abort(&self) {
        self.aborted.set(true);
        self.serving.abort();
        self.wake();
    }

    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async {
            poll_fn(|cx| {
                if self.aborted.get() {
                    return Poll::Ready(());
                }
                *self.waiter.borrow_mut() = Some(cx.waker().clone());
                match self.accepting.get() {
                    // Only now no connection can come any more.
                    0 => budget::poll_unused(cx),
                    _ => Poll::Pending,
                }
            })
            .await;
            if self.aborted.get() {
                // The process leaves then, and that closes whatever is left.
                net::timeout(LAST_WORDS_MS, poll_fn(budget::poll_unused)).await;
            }
        })
    }
}
