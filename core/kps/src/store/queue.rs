//! The queue in front of a thread that owns a database.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// From many threads to one. What it holds is bounded by those who push.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

/// What [`Queue::take`] found.
pub(super) struct Taken<T> {
    /// In the order pushed.
    pub(super) jobs: Vec<T>,
    /// Nothing will come after what is queued now.
    pub(super) closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { jobs: VecDeque::new(), closed: false };
        Queue { state: Mutex::new(state), ready: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Appends; gives the job back once the queue is closed.
    pub(super) fn push(&self, job: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Refuses what comes; what is queued is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// Waits until there is something, the queue is closed, or `patience` ran out. Then takes the
    /// first job and those behind it for as long as `fits` agrees.
    pub(super) fn take(
        &self,
        patience: Option<Duration>,
        mut fits: impl FnMut(&T) -> bool,
    ) -> Taken<T> {
        let until = patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.closed {
            let Some(until) = until else {
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.ready.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut jobs = Vec::new();
        while let Some(job) = state.jobs.front() {
            // Always asked, so that it can count.
            if !fits(job) && !jobs.is_empty() {
                break;
            }
            jobs.extend(state.jobs.pop_front());
        }
        Taken { closed: state.closed && state.jobs.is_empty(), jobs }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic cannot leave the queue half-changed: only item moves happen under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Queue")
            .field("waiting", &state.jobs.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}
