//! Values under keys, in one SQLite file (`values.db`; its tables: `SCHEMA.md` in the folder above) or in
//! memory.
//!
//! Reads run on the thread that asks, on connections of their own. Writes are [`Job`]s: with full
//! durability one thread commits what waits in one transaction and answers when fsync has returned;
//! otherwise the thread that asks commits at once. Every row carries a checksum, and a file beside the
//! database says how far commits had come: what is damaged is told, never returned.

mod book;
mod chunks;
mod encryption;
mod engine;
mod options;
mod query;
mod read;
mod remotes;
mod row;
mod schema;
mod seal;
mod sweep;

mod types;
mod upload;
mod verify;
mod worker;
mod write;

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use kps_proto::{Error, ErrorKind, Result};
use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

pub(super) use self::schema::VALUES;
pub(crate) use self::seal::short;
use self::{
    book::Book,
    engine::{Effects, Engine, Rules},
    seal::{Place, Seal},
    types::Stop,
    upload::Uploads,
    worker::{Shared, Work, Worker, tell, weight},
};
pub(crate) use self::{
    book::Tally,
    chunks::{CHUNK, MAX_PART},
    query::{Parameters, Queried, Query},
    read::{Listing, Part, Version},
    remotes::Remote,
    types::{Answer, Condition, Content, Done, Etag, Job, Meta, Op, Save},
};
pub use self::{
    options::{Durability, StorageOptions},
    seal::Key,
    types::{Change, ChangeKind},
    verify::{ValuesVerdict, verify_values},
};
use super::{
    Clock,
    fault::File,
    file::Lock,
    mark::{MarkFile, Marked},
    queue::Queue,
    threads::Threads,
};

/// Pages in the log (8 MiB) after which they are moved into the database.
const CHECKPOINT_PAGES: i64 = 1024;

/// Bytes of jobs that wait at most.
const MAX_WAITING: usize = 256 << 20;

/// Larger jobs are never done on the thread that asks.
const MAX_AT_ONCE: usize = 64 << 10;

/// Bytes of a value that is read on the thread that asks.
pub(crate) const QUICK: u64 = chunks::INLINE as u64;

/// Which connection reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Quick,
    /// What takes some milliseconds, so that quick ones do not wait for it.
    Long,
}

/// How values are kept.
pub(crate) struct Options {
    /// The file; `None`: in memory.
    pub(crate) path: Option<PathBuf>,
    pub(crate) max_value: u64,
    pub(crate) quota: Option<u64>,
    pub(crate) versions: u32,
    pub(crate) key: Option<Key>,
    pub(crate) compress: bool,
    /// fsync before an answer.
    pub(crate) full: bool,
    pub(crate) now: Clock,
    /// Whether anybody wants to hear of changes; may be set at any time.
    pub(crate) heard: Arc<AtomicBool>,
    /// Told on a thread of its own; must not block.
    pub(crate) listener: Box<dyn Fn(Vec<Change>) + Send>,
}

/// Numbers of namespaces: known to readers without asking the one that writes.
type Ids = Arc<RwLock<HashMap<Arc<str>, i64>>>;

/// Open values.
pub(crate) struct Values {
    engine: Shared,
    queue: Arc<Queue<Work>>,
    waiting: Arc<AtomicUsize>,
    threads: Threads,
    file: File,
    /// For reads; none in memory.
    reader: Option<Mutex<Option<Connection>>>,
    /// For long reads.
    bulk: Mutex<Option<Connection>>,
    seal: Arc<Seal>,
    now: Clock,
    /// Commits happen on the thread that asks.
    at_once: bool,
    commits: AtomicUsize,
    ids: Ids,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What is to come of a [`Job`].
pub(crate) enum Submitted {
    /// It is done.
    Ready(Answer),
    /// It waits for its fsync.
    Later(oneshot::Receiver<Answer>),
}

impl Values {
    /// Opens the file, or makes it if there is none.
    ///
    /// Errors: `store_failed` if another process has it, it was written by a newer kps, or the path
    /// cannot be used; `store_corrupt` if it is damaged; `unauthorized` if it needs another key.
    pub(crate) fn open(options: Options) -> Result<Values> {
        let path = options.path;
        let file = path.clone().map_or(File::Memory, File::Path);
        let (connection, lock, marked) = match &path {
            Some(path) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(|error| file.tell_io("create", &error))?;
                }
                let lock = Lock::take(path)?;
                let marked = Marked::read(path);
                (VALUES.open(path)?, Some(lock), Some(marked))
            }
            None => (VALUES.in_memory()?, None, None),
        };
        let trouble = |trouble| file.tell(trouble);
        if !options.full {
            set_normal(&connection).map_err(|error| trouble(error.into()))?;
        }
        let book = Book::load(&connection).map_err(trouble)?;
        let commits: u64 = book.all().map(|(_, tally)| tally.version).sum();
        if let Some(marked) = &marked {
            marked.check(&connection, commits).map_err(trouble)?;
        }
        let (garbage, last_content) = chunks::load(&connection).map_err(trouble)?;
        let key = encryption::open(&connection, options.key.as_ref(), &file)?;
        let seal = Arc::new(Seal::new(options.compress, key.as_ref()));
        let mark = path.as_deref().map(MarkFile::open).transpose()?;
        if let Some(mark) = &mark {
            mark.write(commits).map_err(trouble)?;
        }
        let (has_versions, has_remotes) = connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM versions), EXISTS (SELECT 1 FROM remotes)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(|error| trouble(error.into()))?;
        let ids: HashMap<_, _> = book.all().map(|(name, tally)| (name.clone(), tally.id)).collect();
        let ids: Ids = Arc::new(RwLock::new(ids));
        let reader = match &path {
            Some(path) => Some(Mutex::new(Some(VALUES.open_reader(path)?))),
            None => None,
        };
        let checkpoints = match &path {
            Some(path) if !options.full => Some(
                Connection::open_with_flags(
                    path,
                    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
                )
                .map_err(|error| trouble(error.into()))?,
            ),
            _ => None,
        };
        let engine = Engine {
            connection,
            file: file.clone(),
            mark,
            rules: Rules {
                max_value: options.max_value,
                quota: options.quota,
                versions: options.versions,
            },
            seal: seal.clone(),
            now: options.now.clone(),
            book,
            uploads: Uploads::default(),
            last_content,
            garbage,
            has_versions,
            has_remotes,
            ids: ids.clone(),
            soonest: 0,
            expired: 0,
            heard: options.heard,
            effects: Effects::default(),
            _lock: lock,
        };
        let values = Values {
            engine: Arc::new(Mutex::new(Some(engine))),
            queue: Arc::default(),
            waiting: Arc::default(),
            threads: Threads::new(),
            file,
            reader,
            bulk: Mutex::default(),
            seal,
            now: options.now,
            at_once: path.is_none() || !options.full,
            commits: AtomicUsize::new(0),
            ids,
        };
        let worker = Worker {
            engine: values.engine.clone(),
            queue: values.queue.clone(),
            waiting: values.waiting.clone(),
            listener: options.listener,
            checkpoints,
        };
        values.threads.spawn("kps-storage", &values.file, || worker.run())?;
        Ok(values)
    }

    /// Does a job, or has it done.
    pub(crate) fn submit(&self, job: Job) -> Submitted {
        if !self.threads.is_here() {
            return Submitted::Ready(Err(closed()));
        }
        let weight = weight(&job);
        // What waits already goes first, and nobody waits here for long work of the thread.
        if self.at_once
            && weight <= MAX_AT_ONCE
            && self.waiting.load(Ordering::Acquire) == 0
            && let Some(mut engine) = self.engine.try_lock()
        {
            return Submitted::Ready(match &mut *engine {
                Some(engine) => self.commit(engine, &job),
                None => Err(closed()),
            });
        }
        if self.waiting.load(Ordering::Relaxed) > MAX_WAITING {
            let sentence = "too much waits to be written; try again soon";
            return Submitted::Ready(Err(Error::new(ErrorKind::Unavailable, sentence)));
        }
        self.waiting.fetch_add(weight, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self.queue.push(Work::Job(job, sender)) {
            Ok(()) => Submitted::Later(receiver),
            Err(_) => Submitted::Ready(Err(closed())),
        }
    }

    fn commit(&self, engine: &mut Engine, job: &Job) -> Answer {
        let sweep = engine.soonest;
        let answer = engine.turn(std::slice::from_ref(job)).pop().unwrap_or_else(|| Err(closed()));
        tell(engine, &self.queue);
        let mut wake = None;
        if !engine.garbage.is_empty() || engine.soonest < sweep {
            wake = Some(Work::Sweep);
        }
        if self.commits.fetch_add(1, Ordering::Relaxed) % 256 == 255 && self.reader.is_some() {
            wake = Some(Work::Checkpoint);
        }
        if let Some(work) = wake {
            // Once it is closed there is nothing to do.
            let _ = self.queue.push(work);
        }
        answer
    }

    /// Reads with `read`, which is given the namespace's number and the time.
    fn read<T>(
        &self,
        namespace: &str,
        lane: Lane,
        none: impl FnOnce() -> std::result::Result<T, Stop>,
        read: impl FnOnce(&Connection, i64, u64) -> std::result::Result<T, Stop>,
    ) -> Result<T> {
        if !self.threads.is_here() {
            return Err(closed());
        }
        let now = (self.now)();
        let done = match self.id(namespace) {
            None => none(),
            Some(id) => match (&self.reader, &self.file) {
                (Some(quick), File::Path(path)) if lane == Lane::Long && quick.lock().is_some() => {
                    let mut bulk = self.bulk.lock();
                    if bulk.is_none() {
                        *bulk = Some(VALUES.open_reader(path)?);
                    }
                    read(bulk.as_ref().ok_or_else(closed)?, id, now)
                }
                (Some(reader), _) => {
                    let reader = reader.lock();
                    read(reader.as_ref().ok_or_else(closed)?, id, now)
                }
                (None, _) => {
                    let engine = self.engine.lock();
                    read(&engine.as_ref().ok_or_else(closed)?.connection, id, now)
                }
            },
        };
        done.map_err(|stop| match stop {
            Stop::Refused(error) => error,
            Stop::Trouble(trouble) => self.file.tell(trouble),
        })
    }

    /// The namespace's number, once something was saved in it.
    fn id(&self, namespace: &str) -> Option<i64> {
        self.ids.read().get(namespace).copied()
    }

    /// A value of at most `most` bytes.
    pub(crate) fn get(&self, namespace: &str, key: &str, most: u64) -> Result<(Meta, Content)> {
        let lane = if most > QUICK { Lane::Long } else { Lane::Quick };
        self.read(
            namespace,
            lane,
            || Err(read::missing(key)),
            |connection, id, now| read::get(connection, &self.seal, id, key, now, most),
        )
    }

    /// A version of the key.
    pub(crate) fn get_version(
        &self,
        namespace: &str,
        key: &str,
        etag: Etag,
        most: u64,
    ) -> Result<(Meta, Content)> {
        let lane = if most > QUICK { Lane::Long } else { Lane::Quick };
        self.read(
            namespace,
            lane,
            || Err(read::missing(key)),
            |connection, id, now| {
                read::get_version(connection, &self.seal, (id, key, now), etag, most)
            },
        )
    }

    /// What is known of a key.
    pub(crate) fn stat(&self, namespace: &str, key: &str) -> Result<Option<Meta>> {
        self.read(
            namespace,
            Lane::Quick,
            || Ok(None),
            |connection, id, now| Ok(read::stat(connection, id, key, now)?),
        )
    }

    /// A part of a value.
    pub(crate) fn get_part(
        &self,
        namespace: &str,
        key: &str,
        offset: u64,
        length: usize,
        etag: Option<&str>,
    ) -> Result<Part> {
        self.read(
            namespace,
            Lane::Quick,
            || Err(read::missing(key)),
            |connection, id, now| {
                let part = (offset, length);
                read::get_part(connection, &self.seal, (id, key, now), part, etag)
            },
        )
    }

    /// A page of keys.
    pub(crate) fn list(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing> {
        self.read(
            namespace,
            Lane::Quick,
            || Ok(Listing::default()),
            |connection, id, now| Ok(read::list(connection, id, prefix, after, limit, now)?),
        )
    }

    /// A key's versions.
    pub(crate) fn history(&self, namespace: &str, key: &str, limit: usize) -> Result<Vec<Version>> {
        self.read(
            namespace,
            Lane::Quick,
            || Ok(Vec::new()),
            |connection, id, now| Ok(read::history(connection, id, key, limit, now)?),
        )
    }

    /// What is known of a key's value in the cloud.
    pub(crate) fn remote(&self, namespace: &str, key: &str) -> Result<Option<Remote>> {
        self.read(
            namespace,
            Lane::Quick,
            || Ok(None),
            |connection, id, _| Ok(remotes::find_remote(connection, id, key)?),
        )
    }

    /// A chunk as the cloud keeps it, and the `form` that says how.
    pub(crate) fn seal_chunk(&self, id: &str, number: u64, bytes: &[u8]) -> Result<(u8, Vec<u8>)> {
        let sealed = self.seal.seal(&Place::Cloud(id, number), 0, bytes);
        let (form, kept) = sealed.map_err(|trouble| self.file.tell(trouble))?;
        Ok((form, kept.into_owned()))
    }

    /// What [`seal_chunk`](Self::seal_chunk) was given.
    pub(crate) fn open_chunk(&self, id: &str, number: u64, form: u8, kept: &[u8]) -> Result<Bytes> {
        self.seal.open(&Place::Cloud(id, number), form, kept).map_err(|_| {
            let sentence =
                "a value in the cloud cannot be read with this storage's key, or is damaged";
            Error::new(ErrorKind::StoreCorrupt, sentence)
        })
    }

    /// What hashes a value for its ETag.
    pub(crate) fn hasher(&self, kind: u8) -> blake3::Hasher {
        self.seal.hasher(kind)
    }

    /// The time, milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        (self.now)()
    }

    /// SQL, read-only.
    pub(crate) fn query(&self, namespace: &str, query: &Query) -> Result<Queried> {
        if !self.threads.is_here() {
            return Err(closed());
        }
        let id = self.id(namespace).unwrap_or(0);
        let scope = query::Scope { seal: &self.seal, namespace: id, now: (self.now)() };
        match (&self.file, &self.reader) {
            (File::Path(path), Some(reader)) if reader.lock().is_some() => {
                query::on_file(path, &self.file, scope, query)
            }
            (File::Path(_), _) => Err(closed()),
            (File::Memory, _) => {
                let mut engine = self.engine.lock();
                let connection = &mut engine.as_mut().ok_or_else(closed)?.connection;
                let copied = query::copy(connection, &self.file);
                drop(engine);
                query::on_connection(&mut copied?, &self.file, scope, query)
            }
        }
    }

    /// Keys and bytes of a namespace; expired values that were removed, and uploads under way.
    pub(crate) fn tally(&self, namespace: &str) -> Result<(Tally, u64, usize)> {
        if !self.threads.is_here() {
            return Err(closed());
        }
        let engine = self.engine.lock();
        let engine = engine.as_ref().ok_or_else(closed)?;
        let tally = engine.book.get(namespace).unwrap_or_default();
        Ok((tally, engine.expired, engine.uploads.len()))
    }

    /// Removes everything that is to be removed now.
    #[cfg(test)]
    pub(crate) fn sweep(&self) {
        while let Some(engine) = &mut *self.engine.lock()
            && engine.sweep().unwrap()
        {}
        if let Some(engine) = &mut *self.engine.lock() {
            tell(engine, &self.queue);
        }
    }

    /// The file cannot grow any more.
    #[cfg(test)]
    pub(crate) fn fill_disk(&self) {
        let engine = self.engine.lock();
        let connection = &engine.as_ref().unwrap().connection;
        let pages: i64 =
            connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let sql = format!("PRAGMA max_page_count = {pages}");
        connection.query_row(&sql, [], |_| Ok(())).unwrap();
    }

    /// Chunks of all values.
    #[cfg(test)]
    pub(crate) fn count_chunks(&self) -> i64 {
        let engine = self.engine.lock();
        let connection = &engine.as_ref().unwrap().connection;
        connection.query_row("SELECT count(*) FROM chunks", [], |row| row.get(0)).unwrap()
    }

    /// Writes what waits, tidies up the file, and returns when that is done.
    pub(crate) fn close(&self) {
        if !self.threads.is_here() {
            return;
        }
        self.queue.close();
        self.threads.join();
        // The readers first: only the last to leave the file empties the log, and it may not.
        if let Some(reader) = &self.reader {
            *reader.lock() = None;
        }
        *self.bulk.lock() = None;
        *self.engine.lock() = None;
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        self.close();
    }
}

/// Commits without fsync; the worker moves the log into the database.
fn set_normal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the storage was closed; open it again")
}

/// The file of values in `folder`.
pub(crate) fn values_file(folder: &Path) -> PathBuf {
    folder.join("values.db")
}
