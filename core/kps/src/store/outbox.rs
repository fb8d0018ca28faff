//! A client's outbox on disk: what was published and is not yet confirmed survives the process.
//!
//! A thread writes, as for a [`Store`](super::Store): what is queued shares one fsync. An entry
//! that is done before it was written never reaches the disk.

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

use super::{
    checksum::{Checksum, Sum},
    fault::{self, File, Trouble, corrupt},
    file::{Kind, Lock},
    headers,
    queue::Queue,
    schema::{content_type, extras, int, signed},
    threads::Threads,
};

/// The outbox' file.
pub(super) const OUTBOX: Kind =
    Kind { name: "outbox", application_id: 0x6b70_7302, migrations: &[FIRST] };

const FIRST: &str = "
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
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

/// Entries in one transaction, about.
const MAX_ENTRIES: usize = 16_384;

/// Payload bytes in one transaction, about.
const MAX_BYTES: usize = 8 << 20;

/// How long it is put off to delete entries that are done, so that it shares an fsync with what is
/// pushed next.
const DONE_DELAY: Duration = Duration::from_millis(100);

/// An empty file of more pages than that is made small when it is opened.
const SMALL: i64 = 128;

/// Where a kept message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A topic's subscribers.
    Topic(String),
    /// The client of this id.
    Client(String),
    /// The server at this address.
    Server(String),
}

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place in the outbox, below 2^63; each above the one before.
    pub place: u64,
    /// Where it goes.
    pub destination: Destination,
    /// The payload.
    pub payload: Payload,
    /// Headers, the publisher's own id, time to live (whole milliseconds).
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
        let connection = OUTBOX.open(path)?;
        let (kept, entries) = load(&connection).map_err(|trouble| file.tell(trouble))?;
        let outbox = OutboxFile { queue: Arc::default(), threads: Threads::new() };
        let writer = Writer {
            connection,
            file: file.clone(),
            lock,
            queue: outbox.queue.clone(),
            events,
            entries,
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
    queue: Arc<Queue<Job>>,
    events: E,
    /// Of the rows in the file.
    entries: Sum,
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
        {
            let sql = "DELETE FROM entries WHERE place = ? RETURNING checksum";
            let mut delete = transaction.prepare_cached(sql)?;
            for &place in &self.done {
                let gone = delete.query_row([signed(place)], |row| row.get(0)).optional()?;
                self.entries.remove(gone.unwrap_or(0));
            }
        }
        for kept in pushed.values() {
            self.entries.add(insert(&transaction, kept)?);
        }
        save_sum(&transaction, self.entries)?;
        transaction.commit()?;
        self.done.clear();
        Ok(())
    }
}

/// Everything in the file, checked, with the sum of its checksums.
fn load(connection: &Connection) -> fault::Result<(Vec<Kept>, Sum)> {
    let state = connection.query_row("SELECT entries, checksum FROM state", [], |row| {
        Ok((Sum::new(row.get(0)?), row.get::<_, i64>(1)?))
    });
    let sum = match state.optional()? {
        Some((sum, checksum)) if checksum == sum_checksum(sum) => sum,
        Some(_) => return corrupt("the row of `state` does not have its checksum"),
        // It was just made.
        None => {
            save_sum(connection, Sum::default())?;
            Sum::default()
        }
    };
    let mut kept = Vec::new();
    let mut found = Sum::default();
    let mut statement = connection.prepare("SELECT * FROM entries ORDER BY place")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        kept.push(parse(row)?);
        found.add(row.get(10)?);
    }
    if found != sum {
        return corrupt("messages are missing or outdated");
    }
    drop(rows);
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if kept.is_empty() && pages > SMALL {
        connection.execute_batch("VACUUM")?;
    }
    Ok((kept, sum))
}

fn save_sum(connection: &Connection, entries: Sum) -> fault::Result<()> {
    let mut statement = connection.prepare_cached("REPLACE INTO state VALUES (1, ?, ?)")?;
    statement.execute((entries.get(), sum_checksum(entries)))?;
    Ok(())
}

fn sum_checksum(entries: Sum) -> i64 {
    Checksum::of("state").int(entries.get().cast_unsigned()).done()
}

/// A row of `entries`.
struct Columns<'a> {
    place: u64,
    kind: u64,
    destination: &'a str,
    published_ms: u64,
    expires_ms: Option<u64>,
    content_type: u64,
    ttl_ms: Option<u64>,
    id: Option<&'a str>,
    headers: Option<&'a str>,
    payload: &'a [u8],
}

impl Columns<'_> {
    fn checksum(&self) -> i64 {
        let numbers = [
            self.place,
            self.kind,
            self.published_ms,
            self.content_type,
            self.expires_ms.is_some().into(),
            self.expires_ms.unwrap_or(0),
            self.ttl_ms.is_some().into(),
            self.ttl_ms.unwrap_or(0),
            self.id.is_some().into(),
            self.headers.is_some().into(),
        ];
        Checksum::of("entries")
            .ints(numbers)
            .text(self.destination)
            .text(self.id.unwrap_or(""))
            .text(self.headers.unwrap_or(""))
            .bytes(self.payload)
            .done()
    }
}

/// Adds a row; its checksum.
fn insert(connection: &Connection, kept: &Kept) -> fault::Result<i64> {
    let (kind, destination) = match &kept.destination {
        Destination::Topic(topic) => (0, topic),
        Destination::Client(id) => (1, id),
        Destination::Server(address) => (2, address),
    };
    let extras = kept.extras.as_deref();
    let headers = extras.and_then(|extras| headers::write(&extras.headers));
    let ttl = extras.and_then(|extras| extras.ttl);
    let columns = Columns {
        place: kept.place,
        kind,
        destination,
        published_ms: kept.published_ms,
        expires_ms: kept.expires_ms,
        content_type: kept.payload.content_type as u64,
        ttl_ms: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        id: extras.and_then(|extras| extras.id.as_deref()),
        headers: headers.as_deref(),
        payload: &kept.payload.bytes,
    };
    let checksum = columns.checksum();
    let sql = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    connection.prepare_cached(sql)?.execute((
        signed(columns.place),
        signed(columns.kind),
        columns.destination,
        signed(columns.published_ms),
        columns.expires_ms.map(signed),
        signed(columns.content_type),
        columns.ttl_ms.map(signed),
        columns.id,
        columns.headers,
        columns.payload,
        checksum,
    ))?;
    Ok(checksum)
}

fn parse(row: &rusqlite::Row<'_>) -> fault::Result<Kept> {
    let text = |column| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
    let some = |column| row.get(column).map(|value: Option<i64>| value.map(i64::cast_unsigned));
    let columns = Columns {
        place: int(row, 0)?,
        kind: int(row, 1)?,
        destination: text(2)?.unwrap_or(""),
        published_ms: int(row, 3)?,
        expires_ms: some(4)?,
        content_type: int(row, 5)?,
        ttl_ms: some(6)?,
        id: text(7)?,
        headers: text(8)?,
        payload: row.get_ref(9)?.as_blob().map_err(rusqlite::Error::from)?,
    };
    let place = columns.place;
    if row.get::<_, i64>(10)? != columns.checksum() {
        return corrupt(format!("the message at place {place} does not have its checksum"));
    }
    let name = columns.destination.to_owned();
    let destination = match columns.kind {
        0 => Destination::Topic(name),
        1 => Destination::Client(name),
        2 => Destination::Server(name),
        kind => return Err(Trouble::Corrupt(format!("there is no destination of kind {kind}"))),
    };
    Ok(Kept {
        place,
        destination,
        payload: Payload {
            content_type: content_type(columns.content_type)?,
            bytes: columns.payload.to_vec().into(),
        },
        extras: extras(columns.id, columns.headers, columns.ttl_ms)?,
        expires_ms: columns.expires_ms,
        published_ms: columns.published_ms,
    })
}
