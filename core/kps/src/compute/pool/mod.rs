//! Threads that run tasks: one per core, each task on one of them, callers by turns.
//!
//! Not rayon's: its queue knows no callers and nothing of tasks that were given up, a thread that
//! waits for its share of an array would begin somebody's long task meanwhile, and a forked child
//! would wait for threads that it does not have.

mod fair;
mod team;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kps_proto::ErrorKind;

pub(super) use self::fair::{Fair, Waiting};
use crate::capability::{Caller, Failure};

/// A worker runs tasks of the same job for so long before it is the next caller's turn. Long enough
/// for tiny tasks to cost little more than themselves, short enough to be fair.
const TURN: Duration = Duration::from_micros(200);

/// What workers run.
pub(super) trait Job: Waiting + Send + Sync {
    /// Begins and runs one task; `false`: none was left.
    fn step(&self, workers: &Arc<Workers>) -> bool;
}

/// The threads; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    workers: Arc<Workers>,
    process: u32,
}

impl Pool {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// `unavailable`: the system starts none.
    pub(super) fn new(threads: usize) -> Result<Pool, Failure> {
        let workers = Arc::new(Workers {
            threads: threads.max(1),
            queue: Mutex::default(),
            work: Condvar::new(),
        });
        // Before the threads: if one does not start, dropping this ends those that did.
        let pool = Pool { workers, process: std::process::id() };
        for number in 0..pool.workers.threads {
            let workers = pool.workers.clone();
            thread::Builder::new()
                .name(format!("kps-compute-{number}"))
                .spawn(move || workers.work())
                .map_err(|error| {
                    let sentence = format!("the system starts no thread for compute: {error}");
                    Failure::new(ErrorKind::Unavailable, sentence).retryable()
                })?;
        }
        Ok(pool)
    }

    /// The one of this process, with a thread per core; a forked child gets its own.
    ///
    /// # Errors
    /// `unavailable`: the system starts no threads.
    pub(super) fn shared() -> Result<&'static Pool, Failure> {
        /// Not a lock: a child could inherit it locked.
        static SHARED: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());
        let known = SHARED.load(Ordering::Acquire);
        // SAFETY: null, or made by `Box::into_raw` below and never freed.
        if let Some(pool) = unsafe { known.as_ref() }
            && pool.process == std::process::id()
        {
            return Ok(pool);
        }
        let ours = Box::into_raw(Box::new(Pool::new(cores())?));
        let swapped = SHARED.compare_exchange(known, ours, Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: `ours` was made above and is dropped only if nobody else saw it; the other pointer
        // is of another thread that was faster, and is never freed.
        unsafe {
            match swapped {
                Ok(_) => Ok(&*ours),
                Err(theirs) => {
                    drop(Box::from_raw(ours));
                    Ok(&*theirs)
                }
            }
        }
    }

    /// Has the tasks of `job` run when it is the caller's turn.
    pub(super) fn submit(&self, caller: &Caller, job: Arc<dyn Job>) {
        self.workers.submit(caller, job);
    }

    /// What tasks know of it.
    #[cfg(test)]
    pub(super) fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.workers.lock().closing = true;
        self.workers.work.notify_all();
    }
}

/// How many cores this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Workers {
    threads: usize,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    calls: Fair<dyn Job>,
    /// Parts of running tasks, for threads that have nothing else to do.
    parts: VecDeque<Arc<dyn Job>>,
    idle: usize,
    closing: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("idle", &self.idle).finish_non_exhaustive()
    }
}

impl Workers {
    fn submit(&self, caller: &Caller, job: Arc<dyn Job>) {
        let tasks = job.left();
        let mut queue = self.lock();
        queue.calls.push(caller, job);
        let wanted = tasks.min(queue.idle);
        drop(queue);
        self.wake(wanted);
    }

    /// Has idle threads help with a running task.
    fn share(&self, job: Arc<dyn Job>) {
        let parts = job.left();
        let mut queue = self.lock();
        let wanted = parts.min(queue.idle);
        queue.parts.push_back(job);
        drop(queue);
        self.wake(wanted);
    }

    fn wake(&self, threads: usize) {
        for _ in 0..threads {
            self.work.notify_one();
        }
    }

    fn work(self: Arc<Self>) {
        while let Some(job) = self.next() {
            let begun = Instant::now();
            // Jobs catch what their tasks do; this is for mistakes of their own.
            let _ =
                catch_unwind(AssertUnwindSafe(
                    || {
                        while job.step(&self) && begun.elapsed() < TURN {}
                    },
                ));
        }
    }

    fn next(&self) -> Option<Arc<dyn Job>> {
        let mut queue = self.lock();
        loop {
            if queue.closing {
                return None;
            }
            if let Some(job) = queue.calls.next() {
                return Some(job);
            }
            while let Some(job) = queue.parts.front() {
                match job.left() {
                    0 => drop(queue.parts.pop_front()),
                    _ => return Some(job.clone()),
                }
            }
            queue.idle += 1;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics under this lock; and if, the queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
