//! What follows the lives of workers, for every engine.

/// Something of a configuration that outlives conversations and follows the workers' lives:
/// groups of peers with their kept connections and their counts in shared memory.
pub trait Lifecycle {
    /// A worker begins, in its process; `number` is its place among those of its configuration.
    fn worker_began(&self, number: usize);
    /// The worker of this process takes no further clients.
    fn worker_ends(&self);
    /// Told in the master: a worker died without being asked to leave.
    fn worker_died(&self, number: usize);
    /// Told in the master: the configuration is put to use, its zones have their memory, and no
    /// worker is forked yet.
    fn opened(&self) {}
    /// Whether there is work for the keeper: the one process beside the workers that looks after
    /// what they share.
    fn wants_keeper(&self) -> bool {
        false
    }
    /// The keeper begins, in its process, which has an event loop and no listeners.
    fn keeper_began(&self) {}
}
