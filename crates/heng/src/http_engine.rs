//! The HTTP engine behind the seam of `engines`.

use crate::engines::{Compile, Ending, Engine, Service, Surroundings, Wanted, WorkerSetup};
use config::Scope;
use http::{Http, Worker};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use system::errno::Errno;

/// Compiles the `http` block.
pub const COMPILE: Compile = compile;

struct HttpEngine {
    http: Rc<Http>,
}

fn compile(scope: &Scope<'_>, surroundings: Surroundings<'_>) -> Option<Rc<dyn Engine>> {
    let about = http::Surroundings {
        modules: http_modules::list::MODULES,
        prefix: surroundings.prefix,
        logs: surroundings.logs,
    };
    let http = Rc::new(http::compile(scope, about)?);
    Some(Rc::new(HttpEngine { http }))
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
            make(folder.path(), owner)?;
        }
        Ok(())
    }

    fn serve(self: Rc<Self>, setup: WorkerSetup) -> Rc<dyn Service> {
        session::budget::set_limit(setup.connections);
        let worker = Worker::new(self.http.clone());
        for (endpoint, listeners) in self.http.listeners.iter().zip(setup.listeners) {
            for listener in listeners {
                net::spawn(worker.clone().accept(listener, endpoint.clone()));
            }
        }
        Rc::new(HttpService { worker, aborted: Cell::new(false), waiter: Cell::new(None) })
    }
}

fn make(path: &Path, owner: Option<u32>) -> Result<(), String> {
    system::file::make_directory(path, 0o700, owner).map_err(|error| {
        format!("mkdir() \"{}\" failed ({})", path.display(), Errno::from(&error))
    })
}

struct HttpService {
    worker: Rc<Worker>,
    aborted: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Service for HttpService {
    fn end(&self, ending: Ending) {
        self.worker.end(match ending {
            Ending::Retire => http::Ending::Retire,
            Ending::Stop => http::Ending::Stop,
        });
    }

    fn abort(&self) {
        self.aborted.set(true);
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    fn ended<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(poll_fn(|cx| {
            if self.aborted.get() {
                return Poll::Ready(());
            }
            self.waiter.set(Some(cx.waker().clone()));
            session::budget::poll_unused(cx)
        }))
    }
}
