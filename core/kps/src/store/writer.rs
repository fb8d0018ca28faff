//! The thread that writes: takes everything that is queued, commits it at once, says so, goes on.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use kps_proto::{
    Error, ErrorKind, Result,
    history::{Page, Query, Write},
};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    Clock, StoreEvent,
    audit::{Admission, AuditRow, Log},
    book::Book,
    catalogue::Catalogue,
    fault::{self, File},
    file::Lock,
    mark::MarkFile,
    queue::Queue,
    read::{Plan, SenderCache},
};

/// Writes in one transaction, about.
const MAX_WRITES: usize = 16_384;

/// Payload bytes in one transaction, about.
const MAX_BYTES: usize = 8 << 20;

/// Positions are below, so that every language can hold them.
const MAX_POSITION: u64 = 1 << 53;

/// How often messages that became too old are looked for: at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the writer is asked to do.
pub(super) enum Job {
    /// All of it in one transaction.
    Write(Vec<Write>),
    /// Rows of the audit log.
    Audit(Vec<(AuditRow, Admission)>),
    /// Of a store in memory, which has no other connection.
    Read(Box<Query>, Done),
}

/// Is told the page.
pub(super) type Done = Box<dyn FnOnce(Result<Page>) + Send>;

/// All that the thread owns.
pub(super) struct Writer<E> {
    pub(super) connection: Connection,
    pub(super) file: File,
    pub(super) lock: Option<Lock>,
    /// `None` in memory.
    pub(super) mark: Option<MarkFile>,
    pub(super) book: Book,
    pub(super) audit: Log,
    pub(super) epoch: u64,
    pub(super) catalogue: Arc<RwLock<Catalogue>>,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) now: Clock,
    pub(super) steady: Clock,
    pub(super) events: E,
}

impl<E: FnMut(StoreEvent)> Writer<E> {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut senders = SenderCache::default();
        let mut failed = false;
        // The rules may be others than last time.
        let mut more = true;
        loop {
            let patience = match self.book.idle((self.now)()) {
                _ if failed => None,
                _ if more => Some(Duration::ZERO),
                idle => idle.map(|idle| idle.clamp(SWEEP.0, SWEEP.1)),
            };
            let (mut writes, mut bytes) = (0, 0);
            let taken = self.queue.take(patience, |job| {
                match job {
                    Job::Write(batch) => {
                        writes += batch.len();
                        bytes += batch.iter().map(size).sum::<usize>();
                    }
                    Job::Audit(rows) => writes += rows.len(),
                    Job::Read(..) => {}
                }
                writes <= MAX_WRITES && bytes <= MAX_BYTES
            });
            let mut batches = Vec::new();
            let mut audit = Vec::new();
            let mut reads = Vec::new();
            for job in taken.jobs {
                match job {
                    Job::Write(batch) => batches.push(batch),
                    Job::Audit(rows) => audit.extend(rows),
                    Job::Read(query, done) => reads.push((query, done)),
                }
            }
            if !failed {
                match self.turn(batches, &audit) {
                    Ok(again) => more = again,
                    Err(error) => {
                        failed = true;
                        (self.events)(StoreEvent::Failed(error));
                    }
                }
            }
            for (query, done) in reads {
                done(self.read(&query, &mut senders));
            }
            if taken.closed {
                break;
            }
        }
        // Moves the log into the database. Whether or not that works, nothing is lost.
        let _ = self.connection.close();
        drop(self.lock);
    }

    /// Commits `batches` and rows of the audit log; whether there is more to remove.
    fn turn(
        &mut self,
        mut batches: Vec<Vec<Write>>,
        audit: &[(AuditRow, Admission)],
    ) -> Result<bool> {
        let fault = self.check(&batches);
        if let Some((place, _)) = fault {
            // What was asked for before is still written.
            batches.truncate(place);
        }
        let asked = !batches.is_empty();
        let more = self.commit(batches, audit).map_err(|trouble| self.file.tell(trouble))?;
        if asked {
            (self.events)(StoreEvent::Committed {
                position: self.book.state.position,
                retained: self.book.retained(),
            });
        }
        match fault {
            Some((_, error)) => Err(error),
            None => Ok(more),
        }
    }

    /// One transaction, if there is anything to write. Whether there is more to remove.
    fn commit(
        &mut self,
        batches: Vec<Vec<Write>>,
        audit: &[(AuditRow, Admission)],
    ) -> fault::Result<bool> {
        let (now, steady) = ((self.now)(), (self.steady)());
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let written = batches.iter().map(Vec::len).sum::<usize>() + audit.len();
        self.book.write(&transaction, batches.into_iter().flatten())?;
        self.audit.write(&transaction, audit, now)?;
        let enforced = self.book.enforce(&transaction, (now, steady), written as u64)?;
        if written == 0 && !enforced.any {
            transaction.rollback()?;
            return Ok(false);
        }
        let asked = if written > 0 { steady } else { self.book.state.written_ms };
        self.book.finish(&transaction, asked)?;
        transaction.commit()?;
        let marked = self.mark.as_ref().map(|mark| mark.write(self.book.state.commits));
        // Whatever became of the mark, the transaction is committed.
        let mut catalogue = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        self.book.publish(&mut catalogue);
        marked.transpose()?;
        Ok(enforced.more)
    }

    /// The first batch that cannot be written, and why.
    fn check(&self, batches: &[Vec<Write>]) -> Option<(usize, Error)> {
        let mut last = self.book.state.position;
        for (place, batch) in batches.iter().enumerate() {
            for write in batch {
                let Write::Record(record) = write else { continue };
                let (position, epoch) = (record.position, record.epoch);
                if position != last + 1 || position >= MAX_POSITION || epoch != self.epoch {
                    let error = Error::new(
                        ErrorKind::StoreFailed,
                        format!(
                            "{} cannot take a message at position {position} of epoch {epoch}: the \
                             next is {} of epoch {}, below 2^53; nothing more is written until it \
                             is opened again",
                            self.file,
                            last + 1,
                            self.epoch
                        ),
                    );
                    return Some((place, error));
                }
                last = position;
            }
        }
        None
    }

    fn read(&self, query: &Query, senders: &mut SenderCache) -> Result<Page> {
        let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan::new(&catalogue, query);
        drop(catalogue);
        plan.run(&self.connection, senders).map_err(|trouble| self.file.tell(trouble))
    }
}

/// The payload bytes of a write.
fn size(write: &Write) -> usize {
    match write {
        Write::Record(record) | Write::Retained(record) => record.payload.bytes.len(),
        _ => 0,
    }
}
