//! The HTTP engine behind the seam of `engines.rs`.

use std::rc::Rc;

use config::Scope;
use http::Http;
use system::errno::Errno;
use system::file::give_to;

use crate::engines::{Ending, Engine, Service, Surroundings, Wanted, WorkerSetup};
use crate::service::{EngineService, Serving};

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
        let service = EngineService::new(Rc::new(HttpServing(worker.clone())));
        for (endpoint, listeners) in self.http.listeners.iter().zip(setup.listeners) {
            let (taker, place) = (worker.clone(), endpoint.clone());
            let take = move |passed| taker.clone().take_over(passed, &place);
            session::handover::offer(endpoint.address.clone(), Rc::new(take));
            for listener in listeners {
                service.accept(worker.clone().accept(listener, endpoint.clone()));
            }
        }
        service
    }
}

struct HttpServing(Rc<http::Worker>);

impl Serving for HttpServing {
    fn end(&self, ending: Ending) {
        self.0.end(match ending {
            Ending::Retire => http::Ending::Retire,
            Ending::Stop => http::Ending::Stop,
        });
    }

    fn abort(&self) {
        self.0.abort();
    }
}
