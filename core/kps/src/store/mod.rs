//! What a broker keeps on disk: messages, publishers' sessions, durable subscriptions' progress, in
//! one SQLite file that any SQLite tool can read (its tables: `SCHEMA.md` beside this file).
//!
//! A [`Store`] has a thread that writes. It takes everything that is queued, commits it in one
//! transaction, and tells [`StoreEvent::Committed`] when fsync has returned: alone a message is
//! committed at once, under load many share one fsync. Reads have a thread of their own and see
//! what is committed.
//!
//! * Every row carries a checksum, every message the position of its topic's previous one. A read
//!   that meets damage fails with `store_corrupt`; it never answers wrongly. A file beside the
//!   database says how far commits had come: a log that lost its end is no shorter store.
//! * One process writes; others may read beside it ([`StoreReader`]).
//! * After [`StoreEvent::Failed`] nothing more is written until the store is opened again; reads go
//!   on. What was not told as committed may be on disk or not.
//! * Messages are removed by the rules alone, oldest first and each rule by itself; topics without
//!   a rule keep what they have. Messages that have expired stay until a rule removes them, and
//!   reads return them: the bus decides. The file does not shrink; freed pages are used again.

mod audit;
mod book;
mod breath;
mod catalogue;
mod checksum;
mod columns;
mod durables;
mod fault;
mod file;
mod headers;
mod ids;
mod mark;
mod open;
pub mod outbox;
mod queue;
mod read;
mod reader;
mod retained;
mod retention;
mod schema;
mod senders;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;
mod threads;
mod times;
mod topics;
#[cfg_attr(
    not(feature = "cloud"),
    allow(dead_code, unused_imports, reason = "some of it serves the cloud alone")
)]
pub(crate) mod values;
mod verify;
mod writer;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, RwLock, mpsc},
    time::{Duration, Instant, SystemTime},
};

use kps_proto::{
    Error, ErrorKind, Result,
    history::{HistoryRule, Page, Query, Recovered, Write},
};

use self::{
    fault::File,
    file::Lock,
    mark::{MarkFile, Marked},
    queue::Queue,
    reader::Reader,
    retention::Rules,
    threads::Threads,
    writer::{Done, Job, Writer},
};
pub use audit::{AuditEntry, AuditLimits, AuditQuery, AuditRow, read_audit};
pub use reader::StoreReader;
pub use values::{ValuesVerdict, verify_values};
pub use verify::{Verdict, verify};

/// Tells the time, milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a [`Store`] is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Where its files are (`kps.db` and its companions); made if it is missing. `None`: in memory.
    pub dir: Option<PathBuf>,
    /// What is kept; they may differ from last time.
    pub rules: Vec<HistoryRule>,
    /// For how long publishers' own ids are remembered (2 minutes).
    pub duplicate_window: Duration,
    /// For how long before the last commit a session must have been written to be continued
    /// (30 seconds).
    pub resume_window: Duration,
    /// The run that begins; if it is not above all earlier ones, the store takes the next number
    /// ([`Recovered::epoch`]).
    pub epoch: u64,
    /// What is kept of the audit log, once something is written to it.
    pub audit: AuditLimits,
    /// What the rules' ages are measured with.
    pub now: Clock,
    /// What the windows of ids and sessions are measured with: agrees with `now` when the store is
    /// opened, and counts on evenly whatever that is set to.
    pub steady: Clock,
}

impl StoreOptions {
    /// With no rules, by the system's clock.
    pub fn new(dir: Option<PathBuf>) -> Self {
        let now: Clock = Arc::new(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(now.as_millis()).unwrap_or(0)
        });
        let (begin, began) = (now(), Instant::now());
        let steady: Clock = Arc::new(move || {
            begin.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
        });
        StoreOptions {
            dir,
            rules: Vec::new(),
            duplicate_window: Duration::from_secs(120),
            resume_window: Duration::from_secs(30),
            epoch: begin,
            audit: AuditLimits::default(),
            now,
            steady,
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("dir", &self.dir)
            .field("rules", &self.rules)
            .field("duplicate_window", &self.duplicate_window)
            .field("resume_window", &self.resume_window)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What a store says of itself. Told on its writer's thread; must not block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// Everything written up to here is on disk, with what was written together with it. Told after
    /// each [`Store::write`], once for several that are queued, also when they hold no messages.
    Committed {
        /// The last position.
        position: u64,
        /// Changes of retained messages since the store was opened.
        retained: u64,
    },
    /// Nothing more is written until the store is opened again. Told once.
    Failed(Error),
}

/// An open store. Clones share it; with the last one it is [closed](Self::close).
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

impl Store {
    /// Opens the store, or makes it if there is none in the folder. `events` is called on the
    /// writer's thread.
    ///
    /// Errors: `store_failed` if another process has it, it was written by a newer kps, or the
    /// folder cannot be used; `store_corrupt` if the file is damaged.
    pub fn open(
        options: StoreOptions,
        events: impl FnMut(StoreEvent) + Send + 'static,
    ) -> Result<(Store, Recovered)> {
        let path = options.dir.as_deref().map(database_file);
        let (connection, file, lock, marked) = match (&path, &options.dir) {
            (Some(path), Some(dir)) => {
                let file = File::Path(path.clone());
                fs::create_dir_all(dir).map_err(|error| file.tell_io("create", &error))?;
                let lock = Lock::take(path)?;
                let marked = Marked::read(path);
                (schema::STORE.open(path)?, file, Some(lock), marked)
            }
            _ => (schema::STORE.in_memory()?, File::Memory, None, Marked::default()),
        };
        let start = open::Start {
            rules: Rules::new(options.rules),
            duplicate_window: options.duplicate_window,
            resume_window: options.resume_window,
            epoch: options.epoch,
            now: (options.steady)(),
        };
        let (book, catalogue, recovered) =
            open::begin(&connection, start, &marked).map_err(|trouble| file.tell(trouble))?;
        let mark = path.as_deref().map(MarkFile::open).transpose()?;
        if let Some(mark) = &mark {
            mark.write(book.state.commits).map_err(|trouble| file.tell(trouble))?;
        }
        let catalogue = Arc::new(RwLock::new(catalogue));
        let inner = Inner {
            writes: Arc::default(),
            reads: path.is_some().then(Arc::default),
            audit: audit::Waiting::default(),
            reader: Threads::new(),
            writer: Threads::new(),
        };
        if let (Some(path), Some(queue)) = (&path, &inner.reads) {
            let reader = Reader::open(path, catalogue.clone())?;
            let queue = queue.clone();
            inner.reader.spawn("kps-store-read", &file, || reader.run(queue))?;
        }
        let writer = Writer {
            file: file.clone(),
            lock,
            mark,
            audit: audit::Log::load(&connection, options.audit)
                .map_err(|trouble| file.tell(trouble))?,
            connection,
            book,
            epoch: recovered.epoch,
            catalogue,
            queue: inner.writes.clone(),
            now: options.now,
            steady: options.steady,
            events,
        };
        inner.writer.spawn("kps-store", &file, || writer.run())?;
        Ok((Store(Arc::new(inner)), recovered))
    }

    /// Queues `writes`, to be committed together. Never blocks; what is queued is bounded by the
    /// caller, who hears of every commit. Ignored after a failure and once the store is closed.
    pub fn write(&self, writes: Vec<Write>) {
        if self.0.writer.is_here() {
            // A closed store says nothing, as after a failure.
            let _ = self.0.writes.push(Job::Write(writes));
        }
    }

    /// Queues a row of the audit log, to be committed with what else is written. Never blocks: while
    /// 16,384 rows wait, what comes is counted, and a row says so later. Ignored after a failure and once
    /// the store is closed.
    pub fn audit(&self, row: AuditRow) {
        if self.0.writer.is_here() {
            let rows = self.0.audit.admit(row);
            if !rows.is_empty() {
                // As above.
                let _ = self.0.writes.push(Job::Audit(rows));
            }
        }
    }

    /// Reads; `done` is called on another thread and must not wait for this store.
    pub fn read(&self, query: Query, done: impl FnOnce(Result<Page>) + Send + 'static) {
        let done: Done = Box::new(done);
        if !self.0.writer.is_here() {
            return done(Err(closed()));
        }
        let refused = match &self.0.reads {
            Some(reads) => reads.push((query, done)).err().map(|(_, done)| done),
            None => match self.0.writes.push(Job::Read(Box::new(query), done)) {
                Err(Job::Read(_, done)) => Some(done),
                _ => None,
            },
        };
        if let Some(done) = refused {
            done(Err(closed()));
        }
    }

    /// Reads and waits for the answer.
    pub fn read_now(&self, query: &Query) -> Result<Page> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.read(query.clone(), move |page| {
            // The receiver waits below.
            let _ = sender.send(page);
        });
        receiver.recv().unwrap_or_else(|_| Err(closed()))
    }

    /// Writes what is queued, tidies up the file, and returns when that is done. Clones of this
    /// handle do nothing from now on.
    pub fn close(self) {
        self.0.close();
    }
}

#[derive(Debug)]
struct Inner {
    writes: Arc<Queue<Job>>,
    /// `None` in memory, where the writer reads.
    reads: Option<Arc<Queue<(Query, Done)>>>,
    audit: audit::Waiting,
    reader: Threads,
    writer: Threads,
}

impl Inner {
    fn close(&self) {
        if self.writer.is_here() {
            // The reader first: only the last to leave the file empties the log, and it may not.
            if let Some(reads) = &self.reads {
                reads.close();
            }
            self.reader.join();
            self.writes.close();
            self.writer.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed; open it again to read")
}

/// The database of the store in `dir`.
pub(crate) fn database_file(dir: &Path) -> PathBuf {
    dir.join("kps.db")
}
