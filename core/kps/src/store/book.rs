//! What a transaction does: messages go to disk as they come, everything that is replaced (counts,
//! sessions, progress) once at the end.

use std::{collections::HashMap, sync::Arc};

use kps_proto::history::{KeptSession, Progress, Record, Write};
use rusqlite::{CachedStatement, Connection};

use super::{
    breath::Breath,
    catalogue::Catalogue,
    checksum::Sum,
    columns::{self, COLUMNS, Columns, WIDTH},
    durables,
    fault::Result,
    headers, ids, retained,
    retention::Rules,
    schema::{State, Stats, TopicRow, signed},
    senders::Senders,
    sessions,
    times::{self, Mark},
    topics::Topics,
};

/// Messages that one INSERT takes: a third quicker than one by one.
const ROWS: usize = 16;

/// Messages that a transaction removes at most, if it does not write more.
const SLICE: u64 = 1024;

/// Removed messages after which the marks of time are looked through.
const PRUNE_EVERY: u64 = 4096;

/// The writer's view of the store, ahead of what is committed while a transaction lasts. After a
/// failed transaction it is of no use any more.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) state: State,
    topics: Topics,
    senders: Senders,
    rules: Rules,
    mark: Option<Mark>,
    /// How long ids are kept, milliseconds.
    duplicate_window: u64,
    /// The time of the oldest id, if it is known.
    oldest_id: Option<u64>,
    /// Removed since the marks were looked through.
    removed: u64,
    sessions: HashMap<String, Option<KeptSession>>,
    durables: HashMap<(String, String), Option<Progress>>,
    /// By namespace and topic.
    retained: HashMap<(Arc<str>, Arc<str>), Change>,
    /// Of the rows of `retained`.
    retained_sum: Sum,
    /// Changes of retained messages so far.
    retained_count: u64,
}

impl Book {
    /// As `catalogue` says.
    pub(super) fn load(
        connection: &Connection,
        catalogue: &Catalogue,
        mut rules: Rules,
        duplicate_window: u64,
    ) -> Result<Book> {
        let mut topics = Topics::default();
        for topic in catalogue.topics() {
            let rule = rules.of(&topic.name);
            rules.count(rule, &topic);
            topics.insert(topic, rule, true);
        }
        Ok(Book {
            state: catalogue.state,
            topics,
            senders: Senders::default(),
            rules,
            mark: Mark::load_newest(connection)?,
            duplicate_window,
            oldest_id: Some(0),
            removed: 0,
            sessions: HashMap::new(),
            durables: HashMap::new(),
            retained: HashMap::new(),
            retained_sum: retained::load_sum(connection)?,
            retained_count: 0,
        })
    }

    /// Writes all of `writes`; their positions are known to be consecutive.
    pub(super) fn write(
        &mut self,
        connection: &Connection,
        writes: impl Iterator<Item = Write>,
    ) -> Result<()> {
        let mut insert = Insert::new(connection)?;
        let mut breath = Breath::default();
        for write in writes {
            breath.row();
            match write {
                Write::Record(record) => self.record(connection, &mut insert, *record)?,
                Write::Session(session) => {
                    self.sessions.insert(session.origin.clone(), Some(session));
                }
                Write::SessionEnded(origin) => {
                    self.sessions.insert(origin, None);
                }
                Write::Retained(record) => {
                    let key = (record.namespace.clone(), record.topic.clone());
                    self.retained.insert(key, Some(record));
                    self.retained_count += 1;
                }
                Write::RetainedEnded(namespace, topic) => {
                    self.retained.insert((namespace, topic), None);
                    self.retained_count += 1;
                }
                Write::Progress(progress) => {
                    let key = (progress.namespace.clone(), progress.name.clone());
                    self.durables.insert(key, Some(progress));
                }
                Write::DurableEnded(namespace, name) => {
                    self.durables.insert((namespace, name), None);
                }
            }
        }
        insert.flush()
    }

    /// Removes what the rules do not keep at `now`, and ids whose window is over, a slice of it.
    pub(super) fn enforce(
        &mut self,
        connection: &Connection,
        (now, steady): (u64, u64),
        written: u64,
    ) -> Result<Enforced> {
        let max = SLICE.max(written.saturating_mul(2));
        let Book { rules, topics, senders, state, .. } = self;
        let removed = rules.enforce(connection, topics, senders, now, max)?;
        let topics = topics.forget(connection, state, max)?;
        let mut ids = 0;
        let before = steady.saturating_sub(self.duplicate_window);
        if self.oldest_id.is_some_and(|oldest| oldest < before) {
            (ids, self.oldest_id) = ids::prune(connection, &mut state.ids, before, max)?;
        }
        self.removed += removed;
        if self.removed >= PRUNE_EVERY {
            self.removed = 0;
            let sql = "SELECT coalesce(min(position), 0) FROM messages";
            let first: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            times::prune(connection, first.cast_unsigned())?;
        }
        Ok(Enforced {
            any: removed + topics + ids > 0,
            more: [removed, topics, ids].contains(&max),
        })
    }

    /// Writes what is replaced; the transaction is complete then. `now` is when something was last
    /// asked for: removing messages does not count.
    pub(super) fn finish(&mut self, connection: &Connection, now: u64) -> Result<()> {
        for (origin, session) in self.sessions.drain() {
            let sum = &mut self.state.sessions;
            sessions::end(connection, sum, &origin)?;
            if let Some(session) = session {
                sessions::save(connection, sum, &session, now)?;
            }
        }
        for ((namespace, name), progress) in self.durables.drain() {
            let sum = &mut self.state.durables;
            durables::end(connection, sum, &namespace, &name)?;
            if let Some(progress) = progress {
                durables::save(connection, sum, &progress)?;
            }
        }
        if !self.retained.is_empty() {
            for ((namespace, topic), record) in self.retained.drain() {
                let sum = &mut self.retained_sum;
                retained::end(connection, sum, &namespace, &topic)?;
                if let Some(record) = record {
                    retained::save(connection, sum, &record)?;
                }
            }
            retained::save_sum(connection, self.retained_sum)?;
        }
        self.topics.save(connection, &mut self.state)?;
        self.senders.save(connection)?;
        self.state.commits += 1;
        self.state.written_ms = now;
        self.state.save(connection)
    }

    /// The transaction is committed: tells the readers.
    pub(super) fn publish(&mut self, catalogue: &mut Catalogue) {
        self.senders.committed();
        self.topics.publish(catalogue);
        catalogue.state = self.state;
    }

    /// Changes of retained messages that were written.
    pub(super) fn retained(&self) -> u64 {
        self.retained_count
    }

    /// How long there is nothing to remove.
    pub(super) fn idle(&self, now: u64) -> Option<std::time::Duration> {
        self.rules.next_due(now)
    }

    fn record(
        &mut self,
        connection: &Connection,
        insert: &mut Insert<'_>,
        record: Record,
    ) -> Result<()> {
        let topic = match self.topics.find(&record.namespace, &record.topic) {
            Some(id) => id,
            None => self.new_topic(&record),
        };
        let sender = self.senders.add(connection, &mut self.state, &record.sender)?;
        let position = record.position;
        let bytes = record.payload.bytes.len() as u64;
        let mut before = Stats::default();
        let changed = self.topics.change(topic, |stats| {
            before = *stats;
            if stats.messages == 0 {
                stats.first = position;
            }
            stats.messages += 1;
            stats.bytes += bytes;
            stats.last = position;
        });
        if let Some(rule) = changed.and_then(|topic| topic.rule) {
            self.rules.add(rule, topic, position, bytes, before.messages == 0);
        }
        self.state.position = position;
        self.state.latest_ms = self.state.latest_ms.max(record.time_ms);
        let latest = self.state.latest_ms;
        if self.mark.is_none_or(|mark| mark.is_due(latest, position)) {
            self.mark = Some(Mark::save(connection, latest, position)?);
        }
        if let Some(id) = record.extras.as_ref().and_then(|extras| extras.id.as_ref()) {
            let sum = &mut self.state.ids;
            ids::save(connection, sum, position, record.time_ms, &record.namespace, id)?;
            self.oldest_id.get_or_insert(record.time_ms);
        }
        insert.add(Waiting { record, topic, sender, previous: before.last })
    }

    fn new_topic(&mut self, record: &Record) -> u64 {
        let id = self.state.next_topic;
        self.state.next_topic += 1;
        // It may be one that was forgotten.
        let stats = Stats { removed: self.state.forgotten, ..Stats::default() };
        let (namespace, name) = (record.namespace.clone(), record.topic.clone());
        let rule = self.rules.of(&name);
        self.topics.insert(TopicRow { id, namespace, name, stats }, rule, false);
        id
    }
}

/// A topic's new retained message; `None`: it has none any more.
type Change = Option<Box<Record>>;

/// What [`Book::enforce`] did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enforced {
    /// There is something to commit.
    pub(super) any: bool,
    /// There may be more to remove.
    pub(super) more: bool,
}

/// A message whose row is not yet written.
struct Waiting {
    record: Record,
    topic: u64,
    sender: u64,
    previous: u64,
}

/// Collects rows for one INSERT.
struct Insert<'c> {
    many: CachedStatement<'c>,
    one: CachedStatement<'c>,
    waiting: Vec<Waiting>,
}

impl<'c> Insert<'c> {
    fn new(connection: &'c Connection) -> Result<Insert<'c>> {
        let sql = |rows: usize| {
            let row = format!("({})", ["?"; WIDTH].join(", "));
            format!("INSERT INTO messages ({COLUMNS}) VALUES {}", vec![row; rows].join(", "))
        };
        Ok(Insert {
            many: connection.prepare_cached(&sql(ROWS))?,
            one: connection.prepare_cached(&sql(1))?,
            waiting: Vec::with_capacity(ROWS),
        })
    }

    fn add(&mut self, waiting: Waiting) -> Result<()> {
        self.waiting.push(waiting);
        if self.waiting.len() < ROWS {
            return Ok(());
        }
        for (place, waiting) in self.waiting.iter().enumerate() {
            bind(&mut self.many, place * WIDTH, waiting)?;
        }
        self.waiting.clear();
        self.many.raw_execute()?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for waiting in self.waiting.drain(..) {
            bind(&mut self.one, 0, &waiting)?;
            self.one.raw_execute()?;
        }
        Ok(())
    }
}

/// Binds one row's values behind the first `base` parameters.
fn bind(statement: &mut CachedStatement<'_>, base: usize, waiting: &Waiting) -> Result<()> {
    let Waiting { record, topic, sender, previous } = waiting;
    let extras = record.extras.as_deref();
    let headers = extras.and_then(|extras| headers::write(&extras.headers));
    let ttl = extras.and_then(|extras| extras.ttl);
    let addressees = extras.and_then(columns::addressees);
    let columns = Columns {
        position: record.position,
        topic: *topic,
        previous: *previous,
        seq: record.seq,
        sender: *sender,
        number: record.number,
        time_ms: record.time_ms,
        content_type: record.payload.content_type as u64,
        maybe_duplicate: record.maybe_duplicate.into(),
        expires_ms: record.expires_ms,
        ttl_ms: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        id: extras.and_then(|extras| extras.id.as_deref()),
        headers: headers.as_deref(),
        payload: &record.payload.bytes,
        addressees: addressees.as_deref(),
        policy: extras.and_then(columns::policy),
    };
    let numbers = [
        columns.position,
        columns.topic,
        columns.previous,
        columns.seq,
        columns.sender,
        columns.number,
        columns.time_ms,
        columns.content_type,
        columns.maybe_duplicate,
    ];
    for (place, number) in numbers.into_iter().enumerate() {
        statement.raw_bind_parameter(base + place + 1, signed(number))?;
    }
    statement.raw_bind_parameter(base + 10, columns.expires_ms.map(signed))?;
    statement.raw_bind_parameter(base + 11, columns.ttl_ms.map(signed))?;
    statement.raw_bind_parameter(base + 12, columns.id)?;
    statement.raw_bind_parameter(base + 13, columns.headers)?;
    statement.raw_bind_parameter(base + 14, columns.payload)?;
    statement.raw_bind_parameter(base + 15, columns.checksum(record.epoch))?;
    statement.raw_bind_parameter(base + 16, columns.addressees)?;
    statement.raw_bind_parameter(base + 17, columns.policy.map(signed))?;
    Ok(())
}
