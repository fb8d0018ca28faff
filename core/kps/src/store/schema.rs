//! The store's tables. `SCHEMA.md` beside this file explains them to people; a test compares both.

use std::{ops::RangeInclusive, sync::Arc};

use kps_proto::message::{ContentType, Extras, Payload};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    checksum::{Checksum, Sum},
    fault::{Result, corrupt},
    file::Kind,
};

/// The store's file.
pub(super) const STORE: Kind =
    Kind { name: "store", application_id: 0x6b70_7301, migrations: &[FIRST] };

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

/// The columns of a message, in the order of [`Columns`].
pub(super) const COLUMNS: &str = "position, topic, previous, seq, sender, number, time_ms, content_type, \
     maybe_duplicate, expires_ms, ttl_ms, id, headers, payload, checksum";

/// How many there are.
pub(super) const WIDTH: usize = 15;

/// A row of `messages`, borrowed from the message or from SQLite.
#[derive(Clone, Debug)]
pub(super) struct Columns<'a> {
    pub(super) position: u64,
    pub(super) topic: u64,
    pub(super) previous: u64,
    pub(super) seq: u64,
    pub(super) sender: u64,
    pub(super) number: u64,
    pub(super) time_ms: u64,
    pub(super) content_type: u64,
    pub(super) maybe_duplicate: u64,
    pub(super) expires_ms: Option<u64>,
    pub(super) ttl_ms: Option<u64>,
    pub(super) id: Option<&'a str>,
    pub(super) headers: Option<&'a str>,
    pub(super) payload: &'a [u8],
}

impl<'a> Columns<'a> {
    /// Reads what [`COLUMNS`] selected and compares the checksum.
    pub(super) fn read(row: &'a Row<'_>, epoch: impl FnOnce(u64) -> u64) -> Result<Columns<'a>> {
        let text = |column| {
            let text = row.get_ref(column)?.as_str_or_null();
            text.map_err(rusqlite::Error::from)
        };
        let some = |column| row.get(column).map(|value: Option<i64>| value.map(i64::cast_unsigned));
        let columns = Columns {
            position: int(row, 0)?,
            topic: int(row, 1)?,
            previous: int(row, 2)?,
            seq: int(row, 3)?,
            sender: int(row, 4)?,
            number: int(row, 5)?,
            time_ms: int(row, 6)?,
            content_type: int(row, 7)?,
            maybe_duplicate: int(row, 8)?,
            expires_ms: some(9)?,
            ttl_ms: some(10)?,
            id: text(11)?,
            headers: text(12)?,
            payload: row.get_ref(13)?.as_blob().map_err(rusqlite::Error::from)?,
        };
        if row.get::<_, i64>(14)? != columns.checksum(epoch(columns.position)) {
            return corrupt(format!("message {} does not have its checksum", columns.position));
        }
        Ok(columns)
    }

    /// Over everything that makes the message, its epoch too, which has no column.
    pub(super) fn checksum(&self, epoch: u64) -> i64 {
        let texts = self.id.map_or(0, str::len) + self.headers.map_or(0, str::len);
        let numbers = [
            epoch,
            self.position,
            self.topic,
            self.previous,
            self.seq,
            self.sender,
            self.number,
            self.time_ms,
            self.content_type,
            self.maybe_duplicate,
            self.expires_ms.map_or(u64::MAX, |at| at),
            self.ttl_ms.map_or(u64::MAX, |ttl| ttl),
            self.id.map_or(u64::MAX, |id| id.len() as u64),
            self.headers.map_or(u64::MAX, |headers| headers.len() as u64),
        ];
        // One run of bytes is hashed several times quicker than fourteen small ones.
        let mut fixed = [0; 14 * 8];
        for (place, number) in fixed.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&fixed);
        hasher.update(self.payload);
        if texts > 0 {
            hasher.update(self.id.unwrap_or("").as_bytes());
            hasher.update(self.headers.unwrap_or("").as_bytes());
        }
        i64::from(hasher.finalize())
    }

    /// The payload, copied.
    pub(super) fn payload(&self) -> Result<Payload> {
        Ok(Payload {
            content_type: content_type(self.content_type)?,
            bytes: self.payload.to_vec().into(),
        })
    }

    /// What the publisher added; `None` if that was nothing.
    pub(super) fn extras(&self) -> Result<Option<Box<Extras>>> {
        extras(self.id, self.headers, self.ttl_ms)
    }
}

/// The content type that a number stands for.
pub(super) fn content_type(number: u64) -> Result<ContentType> {
    match u8::try_from(number).ok().and_then(ContentType::from_number) {
        Some(content_type) => Ok(content_type),
        None => corrupt(format!("there is no content type {number}")),
    }
}

/// Extras from their columns; `None` if all are empty.
pub(super) fn extras(
    id: Option<&str>,
    headers: Option<&str>,
    ttl_ms: Option<u64>,
) -> Result<Option<Box<Extras>>> {
    let extras = Extras {
        headers: headers.map_or(Ok(Vec::new()), super::headers::parse)?,
        id: id.map(str::to_owned),
        ttl: ttl_ms.map(std::time::Duration::from_millis),
    };
    Ok((!extras.is_empty()).then(|| Box::new(extras)))
}
