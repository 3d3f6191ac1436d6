//! The stream engine behind the seam of `engines.rs`.

use std::rc::Rc;

use config::Scope;
use stream::Stream;

use crate::engines::{Ending, Engine, Service, Surroundings, Wanted, WorkerSetup};
use crate::service::{EngineService, Serving};

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
        let service = EngineService::new(Rc::new(StreamServing(worker.clone())));
        for (endpoint, listeners) in self.stream.listeners.iter().zip(setup.listeners) {
            for listener in listeners {
                service.accept(worker.clone().accept(listener, endpoint.clone()));
            }
        }
        service
    }
}

struct StreamServing(Rc<stream::Worker>);

impl Serving for StreamServing {
    fn end(&self, _: Ending) {
        // Sessions are in use: none is idle, whatever follows.
        self.0.end();
    }

    fn abort(&self) {
        self.0.abort();
    }
}
