//! The thread that commits what waits, removes what expired, moves the log into the database, and
//! tells of changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    engine::Engine,
    types::{Answer, Change, Job},
};
use crate::store::{breath::Breath, queue::Queue};

/// Jobs in one transaction, about.
const MAX_JOBS: usize = 4096;

/// Bytes in one transaction, about.
const MAX_BYTES: usize = 8 << 20;

/// How often is looked for what expired: at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the thread is asked to do.
pub(super) enum Work {
    /// Commit it and answer.
    Job(Job, oneshot::Sender<Answer>),
    /// Tell of changes that are committed.
    Tell(Vec<Change>),
    /// Move the log into the database.
    Checkpoint,
    /// Something has come that expires earlier than what was known.
    Sweep,
}

/// Who hears of changes.
pub(super) type Listener = Box<dyn Fn(Vec<Change>) + Send>;

/// The engine, until it is closed.
pub(super) type Shared = Arc<Mutex<Option<Engine>>>;

pub(super) struct Worker {
    pub(super) engine: Shared,
    pub(super) queue: Arc<Queue<Work>>,
    /// Bytes of the jobs that wait.
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) listener: Listener,
    /// Moves the log into the database beside the one that writes.
    pub(super) checkpoints: Option<Connection>,
}

/// What a job takes of what may wait.
pub(super) fn weight(job: &Job) -> usize {
    job.ops.iter().map(|op| 256 + op.weight()).sum()
}

impl Worker {
    /// Works until the queue is closed and empty.
    pub(super) fn run(self) {
        let mut breath = Breath::default();
        loop {
            let (mut jobs, mut bytes) = (0, 0);
            let taken = self.queue.take(self.patience(), |work| {
                if let Work::Job(job, _) = work {
                    jobs += 1;
                    bytes += weight(job);
                }
                jobs <= MAX_JOBS && bytes <= MAX_BYTES
            });
            let (mut jobs, mut senders, mut weights) = (Vec::new(), Vec::new(), 0);
            for work in taken.jobs {
                match work {
                    Work::Job(job, sender) => {
                        weights += weight(&job);
                        // Nobody waits: it was not begun.
                        if !sender.is_closed() {
                            jobs.push(job);
                            senders.push(sender);
                        }
                    }
                    Work::Tell(changes) => (self.listener)(changes),
                    Work::Checkpoint => self.checkpoint(),
                    Work::Sweep => {}
                }
            }
            if let Some(engine) = &mut *self.engine.lock() {
                let answers = if jobs.is_empty() { Vec::new() } else { engine.turn(&jobs) };
                // Only now may others go ahead of the queue.
                self.waiting.fetch_sub(weights, Ordering::Release);
                for (sender, answer) in senders.into_iter().zip(answers) {
                    // Whoever asked may have gone.
                    let _ = sender.send(answer);
                }
                if engine.is_due() && engine.sweep().is_err() {
                    // It fails for those who save as well, and they are told.
                    engine.soonest = u64::MAX;
                    engine.garbage.clear();
                }
                tell(engine, &self.queue);
            }
            breath.row();
            if taken.closed {
                break;
            }
        }
    }

    /// How long nothing has to be removed, as far as is known.
    fn patience(&self) -> Option<Duration> {
        let engine = self.engine.lock();
        let engine = engine.as_ref()?;
        if !engine.garbage.is_empty() {
            return Some(Duration::ZERO);
        }
        let left = engine.soonest.saturating_sub((engine.now)());
        Some(Duration::from_millis(left).clamp(SWEEP.0, SWEEP.1))
    }

    fn checkpoint(&self) {
        let Some(connection) = &self.checkpoints else { return };
        let log = |mode| {
            connection.query_row(mode, [], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        };
        // Whether or not it works, nothing is lost: the log grows until it does.
        let done = log("PRAGMA wal_checkpoint(PASSIVE)");
        if done.is_ok_and(|(pages, _)| pages > 8 * super::CHECKPOINT_PAGES) {
            // Those who write never leave it alone: they wait once.
            let _engine = self.engine.lock();
            let _ = log("PRAGMA wal_checkpoint(RESTART)");
        }
    }
}

/// Has the thread tell of changes: in the order of their transactions, for the engine is locked.
pub(super) fn tell(engine: &mut Engine, queue: &Queue<Work>) {
    let changes = engine.changes();
    if !changes.is_empty() {
        // Once it is closed nobody listens.
        let _ = queue.push(Work::Tell(changes));
    }
}
