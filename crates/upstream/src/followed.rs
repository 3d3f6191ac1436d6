//! The groups of an engine, following the lives of the workers.

use std::cell::RefCell;
use std::rc::Rc;

use session::lifecycle::Lifecycle;

use crate::Groups;

/// All groups of an engine's configuration.
pub struct Followed {
    engine: &'static str,
    groups: Rc<RefCell<Groups>>,
}

impl Followed {
    /// The groups of `engine`, as the API calls it: `http`, `stream`.
    pub fn new(engine: &'static str, groups: Rc<RefCell<Groups>>) -> Followed {
        Followed { engine, groups }
    }
}

impl Lifecycle for Followed {
    fn opened(&self) {
        self.groups.borrow().iter().for_each(|group| group.open());
    }

    fn wants_keeper(&self) -> bool {
        self.groups.borrow().iter().any(|group| group.has_names())
    }

    fn keeper_began(&self) {
        self.groups.borrow().iter().for_each(|group| group.follow_names());
    }

    fn worker_began(&self, number: usize) {
        let groups = self.groups.borrow();
        groups.iter().for_each(|group| group.enter_worker(number));
        groups.all_named().for_each(|group| crate::admin::announce(self.engine, group));
    }

    fn worker_ends(&self) {
        self.groups.borrow().iter().for_each(|group| group.retire());
    }

    fn worker_died(&self, number: usize) {
        self.groups.borrow().iter().for_each(|group| group.worker_died(number));
    }
}
