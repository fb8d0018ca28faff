//! What a broker keeps on disk: messages, publishers' sessions, durable subscriptions' progress, in
//! one SQLite file that any SQLite tool can read (its tables: `SCHEMA.md` beside this file).
//!
//! A [`Store`] has a thread that writes. It takes everything that is queued, commits it in one
//! transaction, and tells [`StoreEvent::Committed`] when fsync has returned: alone a message is
//! committed at once, under load many share one fsync. Reads have a thread of their own and see
//! what is committed.
//!
//! * Every row carries a checksum, every message the position of its topic's previous one. A read
//!   that meets damage fails with `store_corrupt`; it never answers wrongly.
//! * One process writes; others may read beside it ([`StoreReader`]).
//! * After [`StoreEvent::Failed`] nothing more is written until the store is opened again; reads go
//!   on. What was not told as committed may be on disk or not.
//! * Messages are removed by the rules alone, oldest first and each rule by itself; topics without
//!   a rule keep what they have. Messages that have expired stay until a rule removes them, and
//!   reads return them: the bus decides. The file does not shrink; freed pages are used again.

mod book;
mod catalogue;
mod checksum;
mod durables;
mod fault;
mod file;
mod headers;
mod ids;
mod open;
mod queue;
mod read;
mod reader;
mod retention;
mod schema;
mod senders;
mod sessions;
#[cfg(test)]
mod tests;
mod times;
mod topics;
mod verify;
mod writer;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use kps_proto::{
    Error, ErrorKind, Result,
    history::{HistoryRule, Page, Query, Recovered, Write},
};

use self::{
    fault::File,
    file::Lock,
    queue::Queue,
    reader::Reader,
    retention::Rules,
    writer::{Done, Job, Writer},
};
pub use reader::StoreReader;
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
    /// What ages are measured with.
    pub now: Clock,
}

impl StoreOptions {
    /// With no rules, by the system's clock.
    pub fn new(dir: Option<PathBuf>) -> Self {
        let now: Clock = Arc::new(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(now.as_millis()).unwrap_or(0)
        });
        StoreOptions {
            dir,
            rules: Vec::new(),
            duplicate_window: Duration::from_secs(120),
            resume_window: Duration::from_secs(30),
            epoch: now(),
            now,
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
        let (connection, file, held) = match (&path, &options.dir) {
            (Some(path), Some(dir)) => {
                let file = File::Path(path.clone());
                fs::create_dir_all(dir).map_err(|error| file.tell_io("create", &error))?;
                let held = Lock::take(path)?;
                (schema::STORE.open(path)?, file, Some(held))
            }
            _ => (schema::STORE.in_memory()?, File::Memory, None),
        };
        let start = open::Start {
            rules: Rules::new(options.rules),
            duplicate_window: options.duplicate_window,
            resume_window: options.resume_window,
            epoch: options.epoch,
            now: (options.now)(),
        };
        let (book, catalogue, recovered) =
            open::begin(&connection, start).map_err(|trouble| file.tell(trouble))?;
        let catalogue = Arc::new(RwLock::new(catalogue));
        let writes = Arc::<Queue<Job>>::default();
        let mut threads = Vec::new();
        let reads = match &path {
            Some(path) => {
                let reader = Reader::open(path, catalogue.clone())?;
                let queue = Arc::default();
                threads.push(spawn(
                    "kps-store-read",
                    &file,
                    read_loop(reader, Arc::clone(&queue)),
                )?);
                Some(queue)
            }
            None => None,
        };
        let writer = Writer {
            connection,
            file: file.clone(),
            lock: held,
            book,
            epoch: recovered.epoch,
            catalogue,
            queue: writes.clone(),
            now: options.now,
            events,
        };
        let writing = spawn("kps-store", &file, || writer.run());
        let inner =
            Inner { writes, reads, threads: Mutex::new(threads), process: std::process::id() };
        // From here on dropping `inner` ends the reader, whatever happened to the writer.
        lock(&inner.threads).push(writing?);
        Ok((Store(Arc::new(inner)), recovered))
    }

    /// Queues `writes`, to be committed together. Never blocks; what is queued is bounded by the
    /// caller, who hears of every commit. Ignored after a failure and once the store is closed.
    pub fn write(&self, writes: Vec<Write>) {
        if self.0.is_here() {
            // A closed store says nothing, as after a failure.
            let _ = self.0.writes.push(Job::Write(writes));
        }
    }

    /// Reads; `done` is called on another thread and must not wait for this store.
    pub fn read(&self, query: Query, done: impl FnOnce(Result<Page>) + Send + 'static) {
        let done: Done = Box::new(done);
        if !self.0.is_here() {
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

struct Inner {
    writes: Arc<Queue<Job>>,
    /// `None` in memory, where the writer reads.
    reads: Option<Arc<Queue<(Query, Done)>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where the threads are: not in a forked child.
    process: u32,
}

impl Inner {
    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    fn close(&self) {
        if !self.is_here() {
            return;
        }
        if let Some(reads) = &self.reads {
            reads.close();
        }
        self.writes.close();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A callback may drop the last handle: its own thread ends by itself.
            if thread.thread().id() != thread::current().id() {
                // A panic of a callback was reported by the panic hook.
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("in_memory", &self.reads.is_none()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn read_loop(mut reader: Reader, queue: Arc<Queue<(Query, Done)>>) -> impl FnOnce() {
    move || {
        loop {
            let taken = queue.take(None, |_| false);
            for (query, done) in taken.jobs {
                done(reader.read(&query));
            }
            if taken.closed {
                return;
            }
        }
    }
}

fn spawn(name: &str, file: &File, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| file.tell_io("start a thread for", &error))
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed; open it again to read")
}

/// The database of the store in `dir`.
fn database_file(dir: &Path) -> PathBuf {
    dir.join("kps.db")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only moves happen under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
