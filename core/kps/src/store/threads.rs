//! The threads behind a handle, which may be dropped anywhere: by their own callbacks, in a forked
//! child.

use std::{
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use kps_proto::Result;

use super::fault::File;

/// Threads of one process.
#[derive(Debug)]
pub(super) struct Threads {
    handles: Mutex<Vec<JoinHandle<()>>>,
    process: u32,
}

impl Threads {
    pub(super) fn new() -> Threads {
        Threads { handles: Mutex::default(), process: process::id() }
    }

    /// Starts a thread that works on `file`.
    pub(super) fn spawn(
        &self,
        name: &str,
        file: &File,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let thread = thread::Builder::new().name(name.into()).spawn(work);
        let thread = thread.map_err(|error| file.tell_io("start a thread for", &error))?;
        self.lock().push(thread);
        Ok(())
    }

    /// Whether the threads run in this process. In a forked child they do not, and nobody would
    /// ever release the locks that they held.
    pub(super) fn is_here(&self) -> bool {
        self.process == process::id()
    }

    /// Waits until all have ended, but for the calling one.
    pub(super) fn join(&self) {
        let handles = std::mem::take(&mut *self.lock());
        for handle in handles {
            if handle.thread().id() != thread::current().id() {
                // A panic of a callback was reported by the panic hook.
                let _ = handle.join();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // Only moves happen under the lock.
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
