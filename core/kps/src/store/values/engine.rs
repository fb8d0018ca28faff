//! Turns jobs into transactions: several share one, and each stands for itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kps_proto::Error;
use rusqlite::Connection;

use super::{
    book::Book,
    seal::Seal,
    types::{Answer, Change, Done, Job, Op, Stop},
    upload::Uploads,
};
use crate::store::{
    Clock,
    fault::{self, File},
    file::Lock,
    mark::MarkFile,
};

/// What the engine keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Bytes of one value.
    pub(super) max_value: u64,
    /// Bytes of a namespace.
    pub(super) quota: Option<u64>,
    /// Old versions kept of each key.
    pub(super) versions: u32,
}

/// The one that writes.
pub(super) struct Engine {
    pub(super) connection: Connection,
    pub(super) file: File,
    pub(super) mark: Option<MarkFile>,
    pub(super) rules: Rules,
    pub(super) seal: Arc<Seal>,
    pub(super) now: Clock,
    pub(super) book: Book,
    pub(super) uploads: Uploads,
    /// The last number of a content.
    pub(super) last_content: i64,
    /// Contents whose chunks are to be removed.
    pub(super) garbage: Vec<i64>,
    /// Whether old versions may be there.
    pub(super) has_versions: bool,
    /// Told to readers.
    pub(super) ids: super::Ids,
    /// Whether the cloud may have values.
    pub(super) has_remotes: bool,
    /// When something is to be removed, as far as is known; `u64::MAX`: never.
    pub(super) soonest: u64,
    /// Values that expired and were removed, since the file was opened.
    pub(super) expired: u64,
    /// Whether anybody wants to hear of changes.
    pub(super) heard: Arc<AtomicBool>,
    /// What this transaction does beside the database.
    pub(super) effects: Effects,
    /// Kept for as long as the connection.
    pub(super) _lock: Option<Lock>,
}

/// What happens once a transaction is committed.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) changes: Vec<Change>,
    pub(super) freed: Vec<i64>,
    pub(super) expired: u64,
    /// The database changed, be it without a change of a value.
    pub(super) wrote: bool,
    /// Uploads that changed, by token.
    pub(super) uploads: Vec<String>,
}

impl Engine {
    /// Commits jobs, in order; per job its answer. What changed is told by [`changes`](Self::changes).
    pub(super) fn turn(&mut self, jobs: &[Job]) -> Vec<Answer> {
        match self.transaction(|engine| jobs.iter().map(|job| engine.job(job)).collect()) {
            Ok(answers) => answers,
            Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Changes that nobody was told of.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.effects.changes)
    }

    /// Whether [`Change`]s are to be noted.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// One transaction; nothing of it happened if it fails.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> fault::Result<T>,
    ) -> Result<T, Error> {
        let told = self.effects.changes.len();
        let tried = self.try_transaction(work);
        let effects = &mut self.effects;
        let (freed, uploads) =
            (std::mem::take(&mut effects.freed), std::mem::take(&mut effects.uploads));
        let expired = std::mem::take(&mut effects.expired);
        effects.wrote = false;
        match tried {
            Ok(done) => {
                self.garbage.extend(freed);
                self.expired += expired;
                Ok(done)
            }
            Err(trouble) => {
                if !self.connection.is_autocommit() {
                    // If even that fails, the next transaction cannot begin, and says why.
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                self.effects.changes.truncate(told);
                self.book.undo(0);
                // Their parts in this transaction are lost.
                for token in uploads {
                    self.garbage.extend(self.uploads.remove(&token));
                }
                Err(self.file.tell(trouble))
            }
        }
    }

    fn try_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> fault::Result<T>,
    ) -> fault::Result<T> {
        self.execute("BEGIN IMMEDIATE")?;
        let done = work(self)?;
        if self.book.point() == 0 && !self.effects.wrote {
            self.execute("ROLLBACK")?;
            return Ok(done);
        }
        self.book.save(&self.connection)?;
        self.execute("COMMIT")?;
        for (name, id) in self.book.new_ids() {
            self.ids.write().insert(name, id);
        }
        let commits = self.book.commit();
        match &self.mark {
            Some(mark) => mark.write(commits).map(|()| done),
            None => Ok(done),
        }
    }

    /// A statement without parameters or rows.
    pub(super) fn execute(&self, sql: &str) -> fault::Result<()> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn job(&mut self, job: &Job) -> fault::Result<Answer> {
        if job.atomic {
            return self.atomic(job);
        }
        let mut answers = Vec::with_capacity(job.ops.len());
        for op in &job.ops {
            match self.op(&job.namespace, op) {
                Ok(done) => answers.push(Ok(done)),
                Err(Stop::Refused(error)) => answers.push(Err(error)),
                Err(Stop::Trouble(trouble)) => return Err(trouble),
            }
        }
        Ok(Ok(answers))
    }

    fn atomic(&mut self, job: &Job) -> fault::Result<Answer> {
        self.execute("SAVEPOINT atomic")?;
        let point = self.book.point();
        let (told, freed) = (self.effects.changes.len(), self.effects.freed.len());
        let (expired, wrote) = (self.effects.expired, self.effects.wrote);
        let mut answers = Vec::with_capacity(job.ops.len());
        let mut stopped = None;
        for (place, op) in job.ops.iter().enumerate() {
            match self.op(&job.namespace, op) {
                Ok(done) => answers.push(Ok(done)),
                Err(Stop::Trouble(trouble)) => return Err(trouble),
                Err(Stop::Refused(error)) => {
                    let sentence = format!("operation {place}: {}", error.message());
                    stopped = Some(Error::new(error.kind(), sentence));
                    break;
                }
            }
        }
        let Some(error) = stopped else {
            self.execute("RELEASE atomic")?;
            return Ok(Ok(answers));
        };
        self.execute("ROLLBACK TO atomic")?;
        self.execute("RELEASE atomic")?;
        self.book.undo(point);
        self.effects.changes.truncate(told);
        self.effects.freed.truncate(freed);
        self.effects.expired = expired;
        self.effects.wrote = wrote;
        Ok(Err(error))
    }

    fn op(&mut self, namespace: &Arc<str>, op: &Op) -> Result<Done, Stop> {
        match op {
            Op::Save(save, content) => self.save(namespace, save, content),
            Op::Delete(key, condition) => self.delete(namespace, key, condition),
            Op::Check(key, condition) => self.check(namespace, key, condition),
            Op::Get(key) => self.get(namespace, key),
            Op::Begin(save) => self.begin_upload(namespace, save),
            Op::Part(token, number, bytes) => self.add_part(namespace, token, *number, bytes),
            Op::Finish(token) => self.finish_upload(namespace, token),
            Op::Abandon(token) => self.abandon_upload(namespace, token),
            Op::Adopt(key, remote, expected) => self.adopt(namespace, key, remote, *expected),
            Op::Remote(key, remote) => self.note_remote(namespace, key, remote.as_ref()),
        }
    }
}
