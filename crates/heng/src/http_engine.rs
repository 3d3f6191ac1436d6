//! The HTTP engine behind the seam of `engines.rs`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use config::Scope;
use http::Http;
use system::errno::Errno;
use system::file::give_to;

use crate::engines::{Ending, Engine, Service, Surroundings, Wanted, WorkerSetup};

/// Compiles the `http` block.
pub(crate) fn compile(main: &Scope<'_>, surroundings: Surroundings<'_>) -> Option<Rc<dyn Engine>> {
    let Surroundings { prefix, logs, zones, .. } = surroundings;
    let modules = http_modules::list::MODULES;
    let surroundings = http::Surroundings { modules, prefix, logs, zones };
    let http = http::compile(main, surroundings)?;
    Some(Rc::new(HttpEngine { http: Rc::new(http) }))
}

struct HttpEngine {
    http: Rc<Http>,
}

impl Engine for HttpEngine {
    fn listeners(&self) -> Vec<Wanted> {
        let wanted = |endpoint: &Rc<http::Endpoint>| Wanted {
            address: endpoint.address.clone(),
            options: endpoint.options.clone(),
        };
        self.http.listeners.iter().map(wanted).collect()
    }

    fn prepare(&self, owner: Option<u32>) -> Result<(), String> {
        for folder in &self.http.temp_folders {
            let shown = folder.path().display();
            folder
                .create()
                .map_err(|error| format!("mkdir() \"{shown}\" failed ({})", Errno::from(error)))?;
            if let Some(user) = owner {
                give_to(folder.path(), user).map_err(|error| {
                    format!("chown(\"{shown}\", {user}) failed ({})", Errno::from(error))
                })?;
            }
        }
        Ok(())
    }

    fn opened(&self) {
        self.http.lifecycles.iter().for_each(|lifecycle| lifecycle.opened());
    }

    fn wants_keeper(&self) -> bool {
        self.http.lifecycles.iter().any(|lifecycle| lifecycle.wants_keeper())
    }

    fn keep(&self) {
        self.http.lifecycles.iter().for_each(|lifecycle| lifecycle.keeper_began());
    }

    fn worker_died(&self, number: usize) {
        for lifecycle in &self.http.lifecycles {
            lifecycle.worker_died(number);
        }
    }

    fn serve(self: Rc<Self>, setup: WorkerSetup) -> Rc<dyn Service> {
        for lifecycle in &self.http.lifecycles {
            lifecycle.worker_began(setup.number);
        }
        let worker = http::Worker::new(self.http.clone(), setup.seat);
        let service = Rc::new(HttpService {
            worker: worker.clone(),
            accepting: Cell::new(0),
            aborted: Cell::new(false),
            last_words: Cell::new(false),
            waiter: RefCell::new(None),
        });
        for (endpoint, listeners) in self.http.listeners.iter().zip(setup.listeners) {
            let (taker, place) = (worker.clone(), endpoint.clone());
            let take = move |passed| taker.clone().take_over(passed, &place);
            session::handover::offer(endpoint.address.clone(), Rc::new(take));
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

/// How long requests that were cut off may take to be logged.
const LAST_WORDS_MS: u64 = 100;

struct HttpService {
    worker: Rc<http::Worker>,
    /// Listeners that are still open. Each takes what waits in its queue before it closes.
    accepting: Cell<usize>,
    aborted: Cell<bool>,
    /// Requests were cut off and are to be logged.
    last_words: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl HttpService {
    fn wake(&self) {
        if let Some(waker) = self.waiter.take() {
            waker.wake();
        }
    }
}

impl Service for HttpService {
    fn end(&self, ending: Ending) {
        self.worker.end(match ending {
            Ending::Retire => http::Ending::Retire,
            Ending::Stop => http::Ending::Stop,
        });
    }

    fn abort(&self) {
        // The process leaves when its services have ended, and that closes every connection.
        self.aborted.set(true);
        self.last_words.set(self.worker.abort());
        self.wake();
    }

    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async {
            let mut drained = std::pin::pin!(http::drained());
            poll_fn(|cx| {
                if self.aborted.get() {
                    return Poll::Ready(());
                }
                *self.waiter.borrow_mut() = Some(cx.waker().clone());
                match self.accepting.get() {
                    // Only now no connection can come any more.
                    0 => drained.as_mut().poll(cx),
                    _ => Poll::Pending,
                }
            })
            .await;
            if self.last_words.get() {
                // Whoever takes longer to end is cut off without a word.
                net::timeout(LAST_WORDS_MS, http::drained()).await;
            }
        })
    }
}
