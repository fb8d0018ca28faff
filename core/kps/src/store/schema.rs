//! The store's tables. `SCHEMA.md` beside this file explains them to people; a test compares both.

use std::{ops::RangeInclusive, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    checksum::{Checksum, Sum},
    fault::{Result, corrupt},
    file::Kind,
};

/// The store's file.
pub(super) const STORE: Kind = Kind {
    name: "store",
    application_id: 0x6b70_7301,
    migrations: &[FIRST, AUDIT, RETAINED, POLICIES],
};

const FIRST: &str = "
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL,
    commits INTEGER NOT NULL,
    written_ms INTEGER NOT NULL,
    latest_ms INTEGER NOT NULL,
    forgotten INTEGER NOT NULL,
    next_topic INTEGER NOT NULL,
    next_sender INTEGER NOT NULL,
    epochs INTEGER NOT NULL,
    topics INTEGER NOT NULL,
    ids INTEGER NOT NULL,
    sessions INTEGER NOT NULL,
    durables INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY,
    start INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE topics (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE senders (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL,
    client_id TEXT NOT NULL,
    messages INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (origin, client_id)
) STRICT;
CREATE TABLE messages (
    position INTEGER PRIMARY KEY,
    topic INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    number INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    content_type INTEGER NOT NULL,
    maybe_duplicate INTEGER NOT NULL,
    expires_ms INTEGER,
    ttl_ms INTEGER,
    id TEXT,
    headers TEXT,
    payload BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX messages_by_topic ON messages (position >> 16, topic);
CREATE TABLE times (
    time_ms INTEGER PRIMARY KEY,
    position INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE ids (
    position INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE sessions (
    origin TEXT PRIMARY KEY,
    published INTEGER NOT NULL,
    written_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE durables (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    pattern TEXT NOT NULL,
    done INTEGER NOT NULL,
    beyond TEXT NOT NULL,
    attempts TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;
CREATE VIEW history AS
SELECT
    m.position,
    strftime('%Y-%m-%d %H:%M:%f', m.time_ms / 1000.0, 'unixepoch') AS time,
    t.namespace,
    t.name AS topic,
    m.seq,
    s.client_id AS sender,
    m.id,
    m.headers,
    CASE WHEN m.content_type < 2 THEN CAST(m.payload AS TEXT) ELSE m.payload END AS payload
FROM messages AS m
JOIN topics AS t ON t.id = m.topic
JOIN senders AS s ON s.id = m.sender;
";

/// The audit log, on its own: it has no columns in other tables.
const AUDIT: &str = "
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    client_id TEXT,
    detail TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
";

const RETAINED: &str = "
CREATE TABLE retained (
    namespace TEXT NOT NULL,
    topic TEXT NOT NULL,
    position INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    origin TEXT NOT NULL,
    client_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    content_type INTEGER NOT NULL,
    maybe_duplicate INTEGER NOT NULL,
    expires_ms INTEGER,
    ttl_ms INTEGER,
    id TEXT,
    headers TEXT,
    payload BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (namespace, topic)
) STRICT;
CREATE TABLE retained_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    retained INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
";

/// Who may have a message, and what else its publisher asked for.
const POLICIES: &str = "
ALTER TABLE messages ADD COLUMN addressees TEXT;
ALTER TABLE messages ADD COLUMN policy INTEGER;
DROP VIEW history;
CREATE VIEW history AS
SELECT
    m.position,
    strftime('%Y-%m-%d %H:%M:%f', m.time_ms / 1000.0, 'unixepoch') AS time,
    t.namespace,
    t.name AS topic,
    m.seq,
    s.client_id AS sender,
    m.id,
    m.headers,
    CASE WHEN m.content_type < 2 THEN CAST(m.payload AS TEXT) ELSE m.payload END AS payload,
    m.addressees,
    coalesce(m.policy, 0) & 1 AS private
FROM messages AS m
JOIN topics AS t ON t.id = m.topic
JOIN senders AS s ON s.id = m.sender;
";

/// The blocks of the index on topics that hold the positions behind `after` up to `last`.
///
/// The index is by block of 65,536 positions first: so messages of many topics, which come
/// together, are indexed together. By topic alone each would change a page of its own, and that
/// made writing to a thousand topics four times slower. A read of a topic that is silent for long
/// looks into each block, which takes a microsecond or two.
pub(super) fn blocks(after: u64, last: u64) -> RangeInclusive<u64> {
    (after.saturating_add(1) >> 16)..=(last >> 16)
}

/// Selects a topic's rows: parameters are block, topic and the position behind which to begin.
pub(super) const IN_BLOCK: &str = "FROM messages INDEXED BY messages_by_topic \
     WHERE position >> 16 = ? AND topic = ? AND position > ? ORDER BY position";

/// SQLite's integers are signed; the bits are kept.
pub(super) const fn signed(value: u64) -> i64 {
    value.cast_signed()
}

/// What [`signed`] was given.
pub(super) fn int(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

/// The row of `state`: what is true of the store as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) position: u64,
    pub(super) commits: u64,
    pub(super) written_ms: u64,
    pub(super) latest_ms: u64,
    pub(super) forgotten: u64,
    pub(super) next_topic: u64,
    pub(super) next_sender: u64,
    pub(super) epochs: Sum,
    pub(super) topics: Sum,
    pub(super) ids: Sum,
    pub(super) sessions: Sum,
    pub(super) durables: Sum,
}

impl State {
    fn values(&self) -> [u64; 12] {
        [
            self.position,
            self.commits,
            self.written_ms,
            self.latest_ms,
            self.forgotten,
            self.next_topic,
            self.next_sender,
            self.epochs.get().cast_unsigned(),
            self.topics.get().cast_unsigned(),
            self.ids.get().cast_unsigned(),
            self.sessions.get().cast_unsigned(),
            self.durables.get().cast_unsigned(),
        ]
    }

    /// `None` in a store that was just made.
    pub(super) fn load(connection: &Connection) -> Result<Option<State>> {
        let mut statement = connection.prepare_cached("SELECT * FROM state")?;
        let state = statement.query_row([], |row| {
            let state = State {
                position: int(row, 1)?,
                commits: int(row, 2)?,
                written_ms: int(row, 3)?,
                latest_ms: int(row, 4)?,
                forgotten: int(row, 5)?,
                next_topic: int(row, 6)?,
                next_sender: int(row, 7)?,
                epochs: Sum::new(row.get(8)?),
                topics: Sum::new(row.get(9)?),
                ids: Sum::new(row.get(10)?),
                sessions: Sum::new(row.get(11)?),
                durables: Sum::new(row.get(12)?),
            };
            Ok((state, row.get::<_, i64>(13)?))
        });
        match state.optional()? {
            Some((state, sum)) if sum != state.checksum() => {
                corrupt("the row of `state` does not have its checksum")
            }
            found => Ok(found.map(|(state, _)| state)),
        }
    }

    pub(super) fn save(&self, connection: &Connection) -> Result<()> {
        let sql = "REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut statement = connection.prepare_cached(sql)?;
        for (place, value) in self.values().into_iter().enumerate() {
            statement.raw_bind_parameter(place + 1, signed(value))?;
        }
        statement.raw_bind_parameter(13, self.checksum())?;
        statement.raw_execute()?;
        Ok(())
    }

    fn checksum(&self) -> i64 {
        Checksum::of("state").ints(self.values()).done()
    }
}

/// How many messages of a topic there are, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) messages: u64,
    /// Payload bytes.
    pub(super) bytes: u64,
    /// The oldest message's position; 0 without messages.
    pub(super) first: u64,
    /// The newest message's position, be it removed or not.
    pub(super) last: u64,
    /// Messages up to this position were removed.
    pub(super) removed: u64,
}

/// A row of `topics`.
#[derive(Clone, Debug)]
pub(super) struct TopicRow {
    pub(super) id: u64,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) stats: Stats,
}

impl TopicRow {
    /// Every topic; their checksums make `sum`.
    pub(super) fn load_all(connection: &Connection, sum: Sum) -> Result<Vec<TopicRow>> {
        let mut statement = connection.prepare_cached("SELECT * FROM topics ORDER BY id")?;
        let mut rows = statement.query([])?;
        let mut topics = Vec::new();
        let mut found = Sum::default();
        let mut namespace: Arc<str> = "".into();
        while let Some(row) = rows.next()? {
            // Most topics share one namespace.
            if row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)? != &*namespace {
                namespace = row.get(1)?;
            }
            let topic = TopicRow {
                id: int(row, 0)?,
                namespace: namespace.clone(),
                name: row.get(2)?,
                stats: Stats {
                    messages: int(row, 3)?,
                    bytes: int(row, 4)?,
                    first: int(row, 5)?,
                    last: int(row, 6)?,
                    removed: int(row, 7)?,
                },
            };
            if row.get::<_, i64>(8)? != topic.checksum() {
                return corrupt(format!("topic {} does not have its checksum", topic.id));
            }
            found.add(topic.checksum());
            topics.push(topic);
        }
        if found != sum {
            return corrupt("topics are missing or outdated");
        }
        Ok(topics)
    }

    /// Replaces the row of the same number.
    pub(super) fn save(&self, connection: &Connection) -> Result<()> {
        let sql = "INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE \
                   SET messages = excluded.messages, bytes = excluded.bytes, first = excluded.first, \
                   last = excluded.last, removed = excluded.removed, checksum = excluded.checksum";
        let Stats { messages, bytes, first, last, removed } = self.stats;
        connection.prepare_cached(sql)?.execute((
            signed(self.id),
            &*self.namespace,
            &*self.name,
            signed(messages),
            signed(bytes),
            signed(first),
            signed(last),
            signed(removed),
            self.checksum(),
        ))?;
        Ok(())
    }

    pub(super) fn checksum(&self) -> i64 {
        let Stats { messages, bytes, first, last, removed } = self.stats;
        Checksum::of("topics")
            .ints([self.id, messages, bytes, first, last, removed])
            .text(&self.namespace)
            .text(&self.name)
            .done()
    }
}
