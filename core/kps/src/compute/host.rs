//! Tasks that the program itself brings: functions in Python or Node that run in workers of their
//! own, or futures in Rust.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use kps_proto::ErrorKind;
use tokio::sync::watch;

use super::{
    batch::Batch,
    pool::{Fair, Waiting, cores},
    task::panicked,
};
use crate::{
    capability::{Caller, Cancel, Failure, Outcome, Value},
    net::BoxFuture,
    runtime,
};

/// A task of the program.
///
/// It waits in the same order as others, but occupies no thread of the pool: where it computes is its
/// own affair.
pub trait HostTask: Send + Sync + 'static {
    /// Runs it once. Polled on kps' own thread: it must not block or compute there.
    ///
    /// When nobody waits for the answer any more, `cancel` is set and the future is dropped; whatever
    /// works for it should be ended then, since its place is given to the next.
    fn run(
        &self,
        data: Value,
        cancel: Cancel,
        deadline: Option<Instant>,
    ) -> BoxFuture<'static, Outcome>;

    /// How many may run at once; as many as there are cores if it does not say.
    fn concurrency(&self) -> usize {
        cores()
    }

    /// What it does, in a sentence, for `compute.tasks`.
    fn summary(&self) -> &str {
        ""
    }
}

impl std::fmt::Debug for dyn HostTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostTask").field("concurrency", &self.concurrency()).finish()
    }
}

/// A task of the program and what waits for it.
#[derive(Debug)]
pub(super) struct Lane {
    name: Arc<str>,
    task: Arc<dyn HostTask>,
    concurrency: usize,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    queue: Fair<Part>,
    running: usize,
}

/// One item of a batch.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) batch: Arc<Batch>,
    pub(super) index: usize,
    /// Closed when nobody waits for the batch any more.
    pub(super) gone: watch::Receiver<()>,
}

impl Waiting for Part {
    fn left(&self) -> usize {
        usize::from(self.batch.waits(self.index))
    }
}

impl Lane {
    pub(super) fn new(name: Arc<str>, task: Arc<dyn HostTask>) -> Lane {
        let concurrency = task.concurrency().max(1);
        Lane { name, task, concurrency, state: Mutex::default() }
    }

    pub(super) fn summary(&self) -> &str {
        self.task.summary()
    }

    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Has the part run when it is the caller's turn.
    pub(super) fn submit(self: &Arc<Self>, caller: &Caller, part: Part) {
        self.lock().queue.push(caller, Arc::new(part));
        self.begin();
    }

    /// Begins as many as may run.
    fn begin(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if state.running >= self.concurrency {
                return;
            }
            let Some(part) = state.queue.next() else { return };
            state.running += 1;
            drop(state);
            let place = Place(self.clone());
            let Some(data) = part.batch.take(part.index) else { continue };
            let lane = self.clone();
            runtime::spawn(async move {
                let _place = place;
                lane.run(&part, data).await;
            });
        }
    }

    async fn run(&self, part: &Part, data: Value) {
        let begun = Instant::now();
        let stop = part.batch.stop().clone();
        let (task, mut gone) = (self.task.clone(), part.gone.clone());
        // A task of the runtime, so that a panic is caught; aborted with this future.
        let running = runtime::spawn(async move {
            // It may compute a little before its first await: that is its future, too.
            task.run(data, stop.cancel, stop.deadline).await
        });
        let mut running = AbortOnDrop(running);
        tokio::select! {
            biased;
            _ = gone.changed() => {}
            outcome = &mut running.0 => {
                let outcome = outcome.unwrap_or_else(|error| Err(self.broken(error)));
                part.batch.put(part.index, outcome, begun.elapsed());
            }
        }
    }

    fn broken(&self, error: tokio::task::JoinError) -> Failure {
        let what = format!("the task {:?}", self.name);
        match error.try_into_panic() {
            Ok(panic) => panicked(&what, &*panic),
            Err(_) => Failure::new(ErrorKind::Unavailable, format!("{what} was ended")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that run; free for the next when this is dropped.
struct Place(Arc<Lane>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.begin();
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
