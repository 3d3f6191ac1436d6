//! The stream engine behind the seam of `engines.rs`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use config::Scope;
use session::budget;
use stream::Stream;

use crate::engines::{Ending, Engine, Service, Surroundings, Wanted, WorkerSetup};

/// Compiles the `stream` block.
pub(crate) fn compile(main: &Scope<'_>, surroundings: Surroundings<'_>) -> Option<Rc<dyn Engine>> {
    let Surroundings { logs, zones, .. } = surroundings;
    let modules = stream::list::MODULES;
    let stream = stream::compile(main, stream::Surroundings { modules, logs, zones })?;
    Some(Rc::new(StreamEngine { stream: Rc::new(stream) }))
}

struct StreamEngine {
    stream: Rc<Stream>,
}

impl Engine for StreamEngine {
    fn listeners(&self) -> Vec<Wanted> {
        let wanted = |endpoint: &Rc<stream::Endpoint>| Wanted {
            address: endpoint.address.clone(),
            options: endpoint.options.clone(),
        };
        self.stream.listeners.iter().map(wanted).collect()
    }

    fn prepare(&self, _: Option<u32>) -> Result<(), String> {
        Ok(())
    }

    fn opened(&self) {
        self.stream.lifecycles.iter().for_each(|lifecycle| lifecycle.opened());
    }

    fn wants_keeper(&self) -> bool {
        self.stream.lifecycles.iter().any(|lifecycle| lifecycle.wants_keeper())
    }

    fn keep(&self) {
        self.stream.lifecycles.iter().for_each(|lifecycle| lifecycle.keeper_began());
    }

    fn worker_died(&self, number: usize) {
        for lifecycle in &self.stream.lifecycles {
            lifecycle.worker_died(number);
        }
    }

    fn serve(self: Rc<Self>, setup: WorkerSetup) -> Rc<dyn Service> {
        for lifecycle in &self.stream.lifecycles {
            lifecycle.worker_began(setup.number);
        }
        let worker = stream::Worker::new(self.stream.clone(), setup.seat);
        let service = Rc::new(StreamService {
            worker: worker.clone(),
            accepting: Cell::new(0),
            aborted: Cell::new(false),
            waiter: RefCell::new(None),
        });
        for (endpoint, listeners) in self.stream.listeners.iter().zip(setup.listeners) {
            for listener in listeners {
                let accepting = worker.clone().accept(listener, endpoint.clone());
                service.accepting.set(service.accepting.get() + 1);
                let service = service.clone();
                net::spawn(async move {
                    accepting.await;
                    service.accepting.set(service.accepting.get() - 1);
                    service.wake();
                });
            }
        }
        service
    }
}

struct StreamService {
    worker: Rc<stream::Worker>,
    /// Listeners that are still open. Each takes what waits in its queue before it closes.
    accepting: Cell<usize>,
    aborted: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl StreamService {
    fn wake(&self) {
        if let Some(waker) = self.waiter.take() {
            waker.wake();
        }
    }
}

impl Service for StreamService {
    fn end(&self, _: Ending) {
        // Sessions are in use: none is idle, whatever follows.
        self.worker.end();
    }

    fn abort(&self) {
        // The process leaves when its services have ended, and that closes every connection.
        self.aborted.set(true);
        self.wake();
    }

    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(poll_fn(|cx| {
            if self.aborted.get() {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(cx.waker().clone());
            match self.accepting.get() {
                // Only now no connection can come any more.
                0 => budget::poll_unused(cx),
                _ => Poll::Pending,
            }
        }))
    }
}
