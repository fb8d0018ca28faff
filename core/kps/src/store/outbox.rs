//! A client's outbox on disk: what was published and is not yet confirmed survives the process.
//!
//! A thread writes, as for a [`Store`](super::Store): what is queued shares one fsync. An entry
//! that is done before it was written never reaches the disk.

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use kps_proto::{
    Error, ErrorKind, Result,
    message::{Extras, Payload},
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use self::rows::State;
use super::{
    breath::Breath,
    fault::{self, File},
    file::{Kind, Lock},
    mark::{MarkFile, Marked},
    queue::Queue,
    schema::signed,
    threads::Threads,
};

/// The outbox' file.
pub(super) const OUTBOX: Kind =
    Kind { name: "outbox", application_id: 0x6b70_7302, migrations: &[FIRST, POLICIES, DOCUMENTS] };

const FIRST: &str = "
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    commits INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE entries (
    place INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    destination TEXT NOT NULL,
    published_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    content_type INTEGER NOT NULL,
    ttl_ms INTEGER,
    id TEXT,
    headers TEXT,
    payload BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
";

/// As in the store's file.
const POLICIES: &str = "
ALTER TABLE entries ADD COLUMN addressees TEXT;
ALTER TABLE entries ADD COLUMN policy INTEGER;
";

/// Operations on documents are kept as well, which older versions do not know.
const DOCUMENTS: &str = "";

/// Entries in one transaction, about.
const MAX_ENTRIES: usize = 16_384;

/// Payload bytes in one transaction, about.
const MAX_BYTES: usize = 8 << 20;

/// How long it is put off to delete entries that are done, so that it shares an fsync with what is
/// pushed next.
const DONE_DELAY: Duration = Duration::from_millis(100);

/// Where a kept message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A topic's subscribers.
    Topic(String),
    /// The client of this id.
    Client(String),
    /// The server at this address.
    Server(String),
    /// A client's document: it is no message, but an operation that the server may not have.
    Document(String),
}

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place in the outbox, below 2^63; each above the one before.
    pub place: u64,
    /// Where it goes.
    pub destination: Destination,
    /// It is to be its topic's retained message.
    pub retain: bool,
    /// The payload.
    pub payload: Payload,
    /// Headers, the publisher's own id, time to live (whole milliseconds), who may have it, and its
    /// offline policy.
    pub extras: Option<Box<Extras>>,
    /// Not to be sent from then on, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// When it was published, milliseconds since the Unix epoch.
    pub published_ms: u64,
}

/// What an outbox says of itself. Told on its own thread; must not block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxEvent {
    /// Everything pushed up to this place is on disk, or done.
    Committed {
        /// The last place.
        place: u64,
    },
    /// Nothing more is written until the outbox is opened again. Told once.
    Failed(Error),
}

/// An open outbox. When it is dropped it writes what is queued first.
#[derive(Debug)]
pub struct OutboxFile {
    queue: Arc<Queue<Job>>,
    threads: Threads,
}

impl OutboxFile {
    /// Opens the file, or makes it if there is none (in a folder that exists), and returns what it
    /// keeps, in order. `events` is called on the outbox' thread.
    ///
    /// Errors: `store_failed` if another process has it, it was written by a newer kps, or the path
    /// cannot be used; `store_corrupt` if the file is damaged.
    pub fn open(
        path: &Path,
        events: impl FnMut(OutboxEvent) + Send + 'static,
    ) -> Result<(OutboxFile, Vec<Kept>)> {
        let file = File::Path(path.into());
        let lock = Lock::take(path)?;
        let marked = Marked::read(path);
        let connection = OUTBOX.open(path)?;
        let loaded = rows::load(&connection, &marked);
        let (kept, state) = loaded.map_err(|trouble| file.tell(trouble))?;
        let mark = MarkFile::open(path)?;
        let outbox = OutboxFile { queue: Arc::default(), threads: Threads::new() };
        let writer = Writer {
            connection,
            file: file.clone(),
            lock,
            mark,
            queue: outbox.queue.clone(),
            events,
            state,
            last: kept.last().map_or(0, |kept| kept.place),
            done: BTreeSet::new(),
        };
        outbox.threads.spawn("kps-outbox", &file, || writer.run())?;
        Ok((outbox, kept))
    }

    /// Keeps a message. Never blocks; what is queued is bounded by the caller, who hears of every
    /// commit. Ignored after a failure.
    pub fn push(&self, kept: Kept) {
        self.queue(Job::Push(Box::new(kept)));
    }

    /// The message at this place need not be kept any longer. If the process is killed within a
    /// tenth of a second it may be there all the same when the outbox is opened again.
    pub fn done(&self, place: u64) {
        self.queue(Job::Done(place));
    }

    /// Writes what is queued and returns when that is done.
    pub fn close(self) {}

    fn queue(&self, job: Job) {
        if self.threads.is_here() {
            // It is closed only when it is dropped.
            let _ = self.queue.push(job);
        }
    }
}

impl Drop for OutboxFile {
    fn drop(&mut self) {
        if self.threads.is_here() {
            self.queue.close();
            self.threads.join();
        }
    }
}

enum Job {
    Push(Box<Kept>),
    Done(u64),
}

/// All that the thread owns.
struct Writer<E> {
    connection: Connection,
    file: File,
    lock: Lock,
    mark: MarkFile,
    queue: Arc<Queue<Job>>,
    events: E,
    state: State,
    /// The last place pushed.
    last: u64,
    /// Places in the file that are to be deleted.
    done: BTreeSet<u64>,
}

impl<E: FnMut(OutboxEvent)> Writer<E> {
    /// Works until the queue is closed and empty.
    fn run(mut self) {
        let mut failed = false;
        loop {
            let patience = (!failed && !self.done.is_empty()).then_some(DONE_DELAY);
            let (mut entries, mut bytes) = (0, 0);
            let taken = self.queue.take(patience, |job| {
                entries += 1;
                if let Job::Push(kept) = job {
                    bytes += kept.payload.bytes.len();
                }
                entries <= MAX_ENTRIES && bytes <= MAX_BYTES
            });
            if !failed && let Err(error) = self.turn(taken.jobs, taken.closed) {
                failed = true;
                (self.events)(OutboxEvent::Failed(error));
            }
            if taken.closed {
                break;
            }
        }
        // Moves the log into the file. Whether or not that works, nothing is lost.
        let _ = self.connection.close();
        drop(self.lock);
    }

    fn turn(&mut self, jobs: Vec<Job>, closed: bool) -> Result<()> {
        let asked = !jobs.is_empty();
        let before = self.last;
        let mut pushed = BTreeMap::new();
        let mut fault = None;
        for job in jobs {
            match job {
                Job::Done(place) => {
                    if pushed.remove(&place).is_none() {
                        self.done.insert(place);
                    }
                }
                Job::Push(kept) if kept.place <= self.last || kept.place > i64::MAX as u64 => {
                    fault = Some(format!(
                        "{} cannot keep a message at place {}: the last is {}; nothing more is \
                         written until it is opened again",
                        self.file, kept.place, self.last
                    ));
                    break;
                }
                Job::Push(kept) => {
                    self.last = kept.place;
                    pushed.insert(kept.place, kept);
                }
            }
        }
        // Alone, what is done waits for company: until nothing more was said for a while.
        let waited = !asked || closed || self.done.len() >= MAX_ENTRIES;
        if !pushed.is_empty() || (waited && !self.done.is_empty()) {
            self.commit(&pushed).map_err(|trouble| self.file.tell(trouble))?;
        }
        if self.last > before {
            (self.events)(OutboxEvent::Committed { place: self.last });
        }
        match fault {
            Some(sentence) => Err(Error::new(ErrorKind::StoreFailed, sentence)),
            None => Ok(()),
        }
    }

    fn commit(&mut self, pushed: &BTreeMap<u64, Box<Kept>>) -> fault::Result<()> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut breath = Breath::default();
        {
            let sql = "DELETE FROM entries WHERE place = ? RETURNING checksum";
            let mut delete = transaction.prepare_cached(sql)?;
            for &place in &self.done {
                let gone = delete.query_row([signed(place)], |row| row.get(0)).optional()?;
                self.state.entries.remove(gone.unwrap_or(0));
                breath.row();
            }
        }
        for kept in pushed.values() {
            self.state.entries.add(rows::insert(&transaction, kept)?);
            breath.row();
        }
        self.state.commits += 1;
        self.state.save(&transaction)?;
        transaction.commit()?;
        self.done.clear();
        self.mark.write(self.state.commits)
    }
}
