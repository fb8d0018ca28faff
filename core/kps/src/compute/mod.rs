//! The capability `compute`: tasks in parallel, cancellable, sandboxed. Its manual is
//! [`manual::compute`](crate::manual::compute).

mod array;
mod batch;
mod builtin;
mod capability;
mod envelope;
mod host;
mod pool;
mod progress;
mod registry;
mod room;
mod stop;
mod task;
#[cfg(test)]
mod tests;
#[cfg(feature = "wasm")]
mod wasm;
#[cfg(not(feature = "wasm"))]
mod without_wasm;

use std::sync::Arc;

pub(crate) use self::{batch::named_item, envelope::failed_envelope, pool::cores};
pub use self::{builtin::Sha256Stream, host::HostTask};
use self::{host::Lane, pool::Pool, registry::Registry, room::Room, task::Task};
use crate::capability::Failure;

/// How much a [`Compute`] takes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ComputeOptions {
    /// Threads that run tasks. `None`: one per core, shared with everybody else in this process.
    pub threads: Option<usize>,
    /// Tasks that may wait or run at once; more are refused with `quota_exceeded`.
    pub max_tasks: usize,
    /// Bytes that they may hold together.
    pub max_bytes: usize,
}

impl Default for ComputeOptions {
    fn default() -> Self {
        ComputeOptions { threads: None, max_tasks: 100_000, max_bytes: 4 << 30 }
    }
}

/// Runs tasks. Clones are the same.
#[derive(Clone, Debug)]
pub struct Compute(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    room: Arc<Room>,
    /// Its own threads, if it has some.
    pool: Option<Pool>,
}

impl Compute {
    /// With the built-in tasks. Threads start when they are needed, unless it has its own.
    ///
    /// # Errors
    /// `unavailable`: the system starts no threads.
    pub fn new(options: ComputeOptions) -> Result<Compute, Failure> {
        Ok(Compute(Arc::new(Inner {
            registry: Registry::new(),
            room: Room::new(options.max_tasks, options.max_bytes),
            pool: options.threads.map(Pool::new).transpose()?,
        })))
    }

    /// Makes a function of the program the task `name`.
    ///
    /// # Errors
    /// `conflict`: the name is taken; `invalid_payload`: it is none.
    pub fn register(&self, name: &str, task: Arc<dyn HostTask>) -> Result<(), Failure> {
        self.registry().add(name, Task::Host(Arc::new(Lane::new(name.into(), task))))
    }

    /// Takes such a task away. What was called before goes on.
    ///
    /// # Errors
    /// `not_found`; `conflict`: it is not the program's own.
    pub fn unregister(&self, name: &str) -> Result<(), Failure> {
        self.registry().remove(name, |task| matches!(task, Task::Host(_)))
    }

    /// That there is a task of this name.
    ///
    /// # Errors
    /// `not_found`, with the names there are.
    pub(crate) fn check(&self, name: &str) -> Result<(), Failure> {
        self.registry().find(name).map(drop)
    }

    /// Takes all tasks of the program away, so that what works for them ends.
    pub(crate) fn close(&self) {
        for (name, task) in self.registry().list() {
            if matches!(task, Task::Host(_)) {
                // Somebody may have been faster.
                let _ = self.unregister(&name);
            }
        }
    }

    fn registry(&self) -> &Registry {
        &self.0.registry
    }

    fn room(&self) -> &Arc<Room> {
        &self.0.room
    }

    fn pool(&self) -> Result<&Pool, Failure> {
        match &self.0.pool {
            Some(pool) => Ok(pool),
            None => Pool::shared(),
        }
    }
}
