//! Tasks that are answered together, and what their answers become. One task alone is a batch, too.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use kps_proto::ErrorKind;
use tokio::sync::{oneshot, watch};

use super::{
    envelope::envelope,
    pool::{Job, Waiting, Workers},
    progress::Progress,
    room::Taken,
    stop::Stop,
    task::{Run, Task, answer, guarded},
};
use crate::capability::{Failure, Outcome, Value};

/// What the answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `{"result": …}` of the one task, or its failure.
    One,
    /// The one task's own answer, or its failure.
    #[cfg_attr(not(feature = "wasm"), expect(dead_code, reason = "modules are loaded so"))]
    Bare,
    /// `{"results": [envelope, …]}`: each has its own failure.
    Envelopes,
    /// `{"results": […]}`, or the first failure.
    Results,
}

/// A task and what it is given.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) task: Task,
    pub(super) data: Value,
}

/// Tasks that are answered together.
#[derive(Debug)]
pub(super) struct Batch {
    shape: Shape,
    stop: Stop,
    total: usize,
    progress: Option<Progress>,
    /// What was not begun; empty when the batch was given up.
    items: Mutex<Vec<Option<Item>>>,
    /// Nothing more needs to begin: one failed and the answer is that, or nobody waits.
    over: AtomicBool,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    results: Vec<Value>,
    done: usize,
    /// Of the first item that failed; only where that is the answer.
    failed: Option<(usize, Failure)>,
    /// The deadline passed, or somebody cancelled, before all were done.
    stopped: Option<Failure>,
    reply: Option<(oneshot::Sender<Outcome>, Taken)>,
}

/// The answer to come. Dropping it gives the batch up.
#[derive(Debug)]
pub(super) struct Answer {
    batch: Arc<Batch>,
    reply: oneshot::Receiver<Outcome>,
    /// Tells tasks of the program, by being dropped.
    _here: watch::Sender<()>,
    answered: bool,
}

impl Batch {
    /// A batch of `items`; those that are `None` are [`put`](Batch::put) by the caller.
    pub(super) fn new(
        shape: Shape,
        items: Vec<Option<Item>>,
        stop: Stop,
        progress: Option<Progress>,
        taken: Taken,
    ) -> (Arc<Batch>, Answer) {
        let (sender, reply) = oneshot::channel();
        let total = items.len();
        let batch = Arc::new(Batch {
            shape,
            stop,
            total,
            progress,
            items: Mutex::new(items),
            over: AtomicBool::new(false),
            ledger: Mutex::new(Ledger {
                results: vec![Value::Null; total],
                done: 0,
                failed: None,
                stopped: None,
                reply: Some((sender, taken)),
            }),
        });
        if total == 0 {
            batch.finish(batch.ledger());
        }
        let (_here, _) = watch::channel(());
        (batch.clone(), Answer { batch, reply, _here, answered: false })
    }

    /// When its tasks should end early.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Whether the item was not begun and is still wanted.
    pub(super) fn waits(&self, index: usize) -> bool {
        !self.over.load(Ordering::Relaxed) && self.items().get(index).is_some_and(Option::is_some)
    }

    /// Takes what the item is given, to run it; `None`: it need not run any more.
    pub(super) fn take(&self, index: usize) -> Option<Value> {
        self.begin(index).map(|item| item.data)
    }

    /// The outcome of an item.
    pub(super) fn put(&self, index: usize, outcome: Outcome, took: Duration) {
        let outcome = match outcome {
            Err(failure) if self.shape == Shape::Results => {
                self.over.store(true, Ordering::Relaxed);
                Err(failure)
            }
            other => other,
        };
        let mut ledger = self.ledger();
        match (self.shape, outcome) {
            (Shape::Envelopes, outcome) => ledger.results[index] = envelope(outcome, took),
            (_, Ok(result)) => ledger.results[index] = result,
            (_, Err(failure)) => ledger.fail(index, failure),
        }
        self.count(ledger);
    }

    /// The item to run; one that need not run is counted as done.
    fn begin(&self, index: usize) -> Option<Item> {
        let item = self.items().get_mut(index).and_then(Option::take)?;
        let stopped = self.stop.check().err();
        if stopped.is_none() && !self.over.load(Ordering::Relaxed) {
            return Some(item);
        }
        let mut ledger = self.ledger();
        if stopped.is_some() {
            ledger.stopped = stopped;
        }
        self.count(ledger);
        None
    }

    /// One more item is done.
    fn count(&self, mut ledger: MutexGuard<'_, Ledger>) {
        ledger.done += 1;
        let done = ledger.done;
        drop(ledger);
        // Told before the answer is given: the last word on progress comes before it.
        if let Some(progress) = &self.progress
            && !self.over.load(Ordering::Relaxed)
        {
            progress.tell(done);
        }
        if done == self.total {
            self.finish(self.ledger());
        }
    }

    fn finish(&self, mut ledger: MutexGuard<'_, Ledger>) {
        let outcome = match (ledger.stopped.take(), ledger.failed.take()) {
            (Some(failure), _) => Err(failure),
            (None, Some((index, failure))) => Err(self.named(index, failure)),
            (None, None) => {
                let mut results = std::mem::take(&mut ledger.results);
                Ok(match self.shape {
                    Shape::One => answer(results.pop().unwrap_or_default()),
                    Shape::Bare => results.pop().unwrap_or_default(),
                    _ => Value::map([("results", results.into())]),
                })
            }
        };
        if let Some((reply, taken)) = ledger.reply.take() {
            drop(ledger);
            // Room before the answer: who has it may ask again at once.
            drop(taken);
            // Nobody may wait for it any more.
            let _ = reply.send(outcome);
        }
    }

    /// Says which item failed.
    fn named(&self, index: usize, failure: Failure) -> Failure {
        if matches!(self.shape, Shape::One | Shape::Bare) {
            return failure;
        }
        named_item(index, failure)
    }

    fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.stop.cancel.cancel();
        let items = std::mem::take(&mut *self.items());
        let reply = self.ledger().reply.take();
        // What a program's values do when they are dropped must not happen under the locks.
        drop((items, reply));
    }

    fn items(&self) -> MutexGuard<'_, Vec<Option<Item>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says which of several items failed.
pub(crate) fn named_item(index: usize, failure: Failure) -> Failure {
    let field = match &failure.field {
        Some(field) => format!("items[{index}].{field}"),
        None => format!("items[{index}]"),
    };
    let message = format!("items[{index}]: {}", failure.message);
    Failure { message, field: Some(field), ..failure }
}

impl Ledger {
    fn fail(&mut self, index: usize, failure: Failure) {
        if self.failed.as_ref().is_none_or(|(first, _)| index < *first) {
            self.failed = Some((index, failure));
        }
    }
}

impl Answer {
    /// Closed when nobody waits any more.
    pub(super) fn gone(&self) -> watch::Receiver<()> {
        self._here.subscribe()
    }
}

impl Future for Answer {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let polled = Pin::new(&mut self.reply).poll(cx);
        self.answered |= polled.is_ready();
        polled.map(|outcome| {
            outcome.unwrap_or_else(|_| {
                Err(Failure::new(ErrorKind::Internal, "a task ended without an answer"))
            })
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.answered {
            self.batch.give_up();
        }
    }
}

/// The items of a batch that run in the pool.
#[derive(Debug)]
pub(super) struct Pooled {
    batch: Arc<Batch>,
    indices: Vec<usize>,
    next: AtomicUsize,
}

impl Pooled {
    pub(super) fn new(batch: Arc<Batch>, indices: Vec<usize>) -> Pooled {
        Pooled { batch, indices, next: AtomicUsize::new(0) }
    }
}

impl Waiting for Pooled {
    fn left(&self) -> usize {
        match self.batch.items().is_empty() {
            true => 0,
            false => self.indices.len().saturating_sub(self.next.load(Ordering::Relaxed)),
        }
    }
}

impl Job for Pooled {
    fn step(&self, workers: &Arc<Workers>) -> bool {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(&index) = self.indices.get(next) else {
            return false;
        };
        if let Some(item) = self.batch.begin(index) {
            let begun = Instant::now();
            let run = Run { stop: &self.batch.stop, workers: Some(workers) };
            let outcome = item.task.run(item.data, &run);
            self.batch.put(index, outcome, begun.elapsed());
        }
        true
    }
}

impl Task {
    /// Runs it in this thread. Tasks of the program are not: they have a [`Lane`](super::host::Lane).
    pub(super) fn run(&self, data: Value, run: &Run<'_>) -> Outcome {
        match self {
            Task::Builtin(builtin) => guarded(builtin.name, || (builtin.run)(data, run)),
            #[cfg(feature = "wasm")]
            Task::Wasm(module) => {
                guarded("the interpreter of WebAssembly", || module.run(data, run))
            }
            #[cfg(feature = "wasm")]
            Task::Loader(loader) => loader.run(data),
            Task::Host(_) => Err(Failure::new(ErrorKind::Internal, "the program runs this task")),
        }
    }
}
