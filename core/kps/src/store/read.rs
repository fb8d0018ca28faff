//! Answers queries: finds the cheapest way to the next messages, and trusts nothing it reads.
//!
//! A message carries the position of its topic's previous one, a topic that of its last one. So a
//! read notices when a damaged file hides messages, not only when one was changed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use kps_proto::{
    history::{Page, Query, ReadFrom, Record},
    message::{Offline, Sender},
};
use rusqlite::{CachedStatement, Connection, Row};

use super::{
    catalogue::{Catalogue, Epochs, is_name},
    columns::{COLUMNS, Columns},
    fault::{Result, corrupt},
    schema::{IN_BLOCK, blocks, int, signed},
    senders::SenderRow,
    times,
};

/// Senders a connection remembers at most.
const MAX_SENDERS: usize = 16_384;

/// Messages of other topics that are passed over for each topic that matches, before these are
/// looked up one by one: about what a look-up costs.
const SKIP_PER_TOPIC: u64 = 16;

/// Messages passed over in any case.
const SKIP: u64 = 1024;

/// Senders that a connection has read before.
#[derive(Debug, Default)]
pub(super) struct SenderCache(HashMap<u64, Arc<Sender>>);

impl SenderCache {
    fn sender(&mut self, connection: &Connection, id: u64) -> Result<Arc<Sender>> {
        if let Some(sender) = self.0.get(&id) {
            return Ok(sender.clone());
        }
        let Some(row) = SenderRow::load(connection, id)? else {
            return corrupt(format!("sender {id} is missing"));
        };
        if self.0.len() >= MAX_SENDERS {
            self.0.clear();
        }
        self.0.insert(id, row.sender.clone());
        Ok(row.sender)
    }
}

/// What a query is about, taken from a [`Catalogue`]; then read from the same commit's data.
#[derive(Debug)]
pub(super) struct Plan {
    from: ReadFrom,
    max_count: usize,
    max_bytes: usize,
    /// The last position of all.
    tip: u64,
    namespace: Arc<str>,
    epochs: Epochs,
    /// The topics that match, be there something to read or not.
    topics: Vec<Candidate>,
    /// Up to here topics that match may have been removed and forgotten.
    forgotten: u64,
}

/// A topic that matches.
#[derive(Clone, Debug)]
struct Candidate {
    id: u64,
    name: Arc<str>,
    has_messages: bool,
    last: u64,
    removed: u64,
    /// The last of its messages seen by this read.
    seen: u64,
}

impl Plan {
    pub(super) fn new(catalogue: &Catalogue, query: &Query) -> Plan {
        let (namespace, found) = catalogue.matching(&query.namespace, &query.pattern);
        let topics: Vec<Candidate> = found
            .map(|(name, entry)| Candidate {
                id: entry.id,
                name: name.clone(),
                has_messages: entry.stats.messages > 0,
                last: entry.stats.last,
                removed: entry.stats.removed,
                seen: 0,
            })
            .collect();
        let known = is_name(query.pattern.as_str()) && !topics.is_empty();
        Plan {
            from: query.from,
            max_count: query.max_count.max(1),
            max_bytes: query.max_bytes,
            tip: catalogue.state.position,
            namespace: namespace.cloned().unwrap_or_else(|| query.namespace.as_str().into()),
            epochs: catalogue.epochs().clone(),
            topics,
            forgotten: if known { 0 } else { catalogue.state.forgotten },
        }
    }

    /// Reads the page.
    pub(super) fn run(
        mut self,
        connection: &Connection,
        senders: &mut SenderCache,
    ) -> Result<Page> {
        let (after, since) = match self.from {
            ReadFrom::After(position) => (position, 0),
            ReadFrom::Time(time) => (times::before(connection, time)?, time),
            ReadFrom::Last => return self.run_last(connection, senders),
        };
        let removed = self.topics.iter().map(|topic| topic.removed).max().unwrap_or(0);
        let removed = removed.max(self.forgotten) > after;
        self.topics.retain(|topic| topic.has_messages && topic.last > after);
        let mut reading = Reading {
            connection,
            senders,
            namespace: self.namespace.clone(),
            epochs: &self.epochs,
            after,
            since,
            max_count: self.max_count,
            max_bytes: self.max_bytes,
            records: Vec::new(),
            superseded: Vec::new(),
            bytes: 0,
        };
        let full = reading.fill(&mut self.topics, self.tip)?;
        let records = reading.records;
        // A full page ends at its last message; is there something behind it?
        let more = match records.last() {
            Some(last) if full => {
                self.topics.iter().any(|topic| topic.last > last.position).then_some(last.position)
            }
            _ => None,
        };
        if more.is_none()
            && let Some(topic) = self.topics.iter().find(|topic| topic.seen != topic.last)
        {
            return corrupt(format!(
                "messages of {:?} behind {} are missing",
                topic.name, topic.seen
            ));
        }
        let superseded = reading.superseded;
        let (through, more) = (more.unwrap_or(self.tip), more.is_some());
        Ok(Page { records, through, more, removed, superseded })
    }

    fn run_last(mut self, connection: &Connection, senders: &mut SenderCache) -> Result<Page> {
        self.topics.retain(|topic| topic.has_messages);
        self.topics.sort_unstable_by_key(|topic| topic.last);
        let mut reading = Reading {
            connection,
            senders,
            namespace: self.namespace.clone(),
            epochs: &self.epochs,
            after: 0,
            since: 0,
            max_count: self.max_count,
            max_bytes: self.max_bytes,
            records: Vec::new(),
            superseded: Vec::new(),
            bytes: 0,
        };
        let mut fetch = Fetch::new(connection)?;
        let mut more = None;
        for topic in &mut self.topics {
            if reading.is_full() {
                more = reading.records.last().map(|last| last.position);
                break;
            }
            // What precedes it is of no interest.
            topic.removed = u64::MAX;
            let position = topic.last;
            if !fetch.take(&mut reading, topic, position)? {
                // One too many: it is the first of the next page.
                more = reading.records.last().map(|last| last.position);
                break;
            }
        }
        let records = reading.records;
        Ok(Page {
            records,
            through: more.unwrap_or(self.tip),
            more: more.is_some(),
            removed: false,
            superseded: Vec::new(),
        })
    }
}

/// A page that is being filled.
struct Reading<'a> {
    connection: &'a Connection,
    senders: &'a mut SenderCache,
    namespace: Arc<str>,
    epochs: &'a Epochs,
    /// Where it starts: what precedes this position is not asked for.
    after: u64,
    /// Until a message is of this time or later, messages are left out.
    since: u64,
    max_count: usize,
    max_bytes: usize,
    records: Vec<Record>,
    /// See [`Page::superseded`].
    superseded: Vec<u64>,
    bytes: usize,
}

impl Reading<'_> {
    fn is_full(&self) -> bool {
        self.records.len() >= self.max_count
            || (!self.records.is_empty() && self.bytes >= self.max_bytes)
    }

    /// Reads the messages of `topics` behind `after` until the page is full; whether it is.
    fn fill(&mut self, topics: &mut [Candidate], tip: u64) -> Result<bool> {
        match topics {
            [] => Ok(false),
            [topic] => self.follow(topic),
            topics => match self.scan(topics, tip)? {
                Scan::Full => Ok(true),
                Scan::Ended => Ok(false),
                Scan::Sparse(position) => self.merge(topics, position),
            },
        }
    }

    /// One topic, by the index.
    fn follow(&mut self, topic: &mut Candidate) -> Result<bool> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {COLUMNS} {IN_BLOCK}"))?;
        let after = self.after.max(topic.removed);
        for block in blocks(after, topic.last) {
            let mut rows = statement.query((signed(block), signed(topic.id), signed(after)))?;
            while let Some(row) = rows.next()? {
                if self.is_full() || !self.take(row, topic)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Many topics, by looking at every message: the way when most match.
    fn scan(&mut self, topics: &mut [Candidate], tip: u64) -> Result<Scan> {
        let places: HashMap<u64, usize> =
            topics.iter().enumerate().map(|(place, topic)| (topic.id, place)).collect();
        let mut skip = SKIP.max(topics.len() as u64 * SKIP_PER_TOPIC);
        let sql = select("WHERE position > ? AND position <= ? ORDER BY position");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query((signed(self.after.min(tip)), signed(tip)))?;
        while !self.is_full() {
            let Some(row) = rows.next()? else { return Ok(Scan::Ended) };
            match places.get(&int(row, 1)?) {
                Some(&place) => {
                    if !self.take(row, &mut topics[place])? {
                        return Ok(Scan::Full);
                    }
                }
                None if skip == 0 => return Ok(Scan::Sparse(int(row, 0)?)),
                None => skip -= 1,
            }
        }
        Ok(Scan::Full)
    }

    /// Many topics of far more, behind `position`: by the index, always the topic whose next
    /// message is the oldest.
    fn merge(&mut self, topics: &mut [Candidate], position: u64) -> Result<bool> {
        let mut seek = Seek::new(self.connection)?;
        let mut fetch = Fetch::new(self.connection)?;
        let mut next = BinaryHeap::new();
        for (place, topic) in topics.iter().enumerate() {
            next.extend(seek.next(topic, position)?.map(|position| Reverse((position, place))));
        }
        while let Some(Reverse((position, place))) = next.pop() {
            if self.is_full() || !fetch.take(self, &mut topics[place], position)? {
                return Ok(true);
            }
            let following = seek.next(&topics[place], position)?;
            next.extend(following.map(|position| Reverse((position, place))));
        }
        Ok(false)
    }

    /// Adds the row's message to the page; `false` if there is no room for it.
    fn take(&mut self, row: &Row<'_>, topic: &mut Candidate) -> Result<bool> {
        let columns = Columns::read(row, |position| self.epochs.of(position))?;
        let position = columns.position;
        if columns.topic != topic.id || position > topic.last || position <= topic.seen {
            return corrupt(format!("message {position} is in the wrong place"));
        }
        let linked = match topic.seen {
            0 => columns.previous <= self.after.max(topic.removed),
            seen => columns.previous == seen,
        };
        if !linked {
            return corrupt(format!("message {} is missing", columns.previous));
        }
        let bytes = columns.payload.len();
        if columns.time_ms < self.since {
            topic.seen = position;
            return Ok(true);
        }
        if !self.records.is_empty() && self.bytes.saturating_add(bytes) > self.max_bytes {
            return Ok(false);
        }
        topic.seen = position;
        self.since = 0;
        self.bytes = self.bytes.saturating_add(bytes);
        let record = Record {
            position,
            epoch: self.epochs.of(position),
            namespace: self.namespace.clone(),
            topic: topic.name.clone(),
            seq: columns.seq,
            sender: self.senders.sender(self.connection, columns.sender)?,
            number: columns.number,
            time_ms: columns.time_ms,
            maybe_duplicate: columns.maybe_duplicate != 0,
            payload: columns.payload()?,
            extras: columns.extras()?,
            expires_ms: columns.expires_ms,
        };
        let is_latest =
            record.extras.as_ref().is_some_and(|extras| extras.offline == Offline::Latest);
        if is_latest && position < topic.last {
            self.superseded.push(position);
        }
        self.records.push(record);
        Ok(true)
    }
}

/// Finds a topic's messages by the index.
struct Seek<'c>(CachedStatement<'c>);

impl<'c> Seek<'c> {
    fn new(connection: &'c Connection) -> Result<Seek<'c>> {
        Ok(Seek(connection.prepare_cached(&format!("SELECT position {IN_BLOCK} LIMIT 1"))?))
    }

    /// The position of the topic's first message behind `position`.
    fn next(&mut self, topic: &Candidate, position: u64) -> Result<Option<u64>> {
        if topic.last <= position {
            return Ok(None);
        }
        for block in blocks(position.max(topic.removed), topic.last) {
            let mut rows = self.0.query((signed(block), signed(topic.id), signed(position)))?;
            if let Some(row) = rows.next()? {
                return Ok(Some(int(row, 0)?));
            }
        }
        corrupt(format!("message {} is missing", topic.last))
    }
}

/// Reads single messages.
struct Fetch<'c>(CachedStatement<'c>);

impl<'c> Fetch<'c> {
    fn new(connection: &'c Connection) -> Result<Fetch<'c>> {
        Ok(Fetch(connection.prepare_cached(&select("WHERE position = ?"))?))
    }

    /// Adds a message of `topic` to the page; `false` if there is no room for it.
    fn take(
        &mut self,
        page: &mut Reading<'_>,
        topic: &mut Candidate,
        position: u64,
    ) -> Result<bool> {
        let mut rows = self.0.query([signed(position)])?;
        match rows.next()? {
            Some(row) => page.take(row, topic),
            None => corrupt(format!("message {position} is missing")),
        }
    }
}

/// How a scan ended.
enum Scan {
    Full,
    /// There is nothing more.
    Ended,
    /// Too many messages of other topics, up to this position.
    Sparse(u64),
}

fn select(condition: &str) -> String {
    format!("SELECT {COLUMNS} FROM messages {condition}")
}
