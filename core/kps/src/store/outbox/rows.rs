//! The outbox' tables.

use kps_proto::message::Payload;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    super::{
        checksum::{Checksum, Sum},
        columns::{self, content_type, extras},
        fault::{Result, corrupt},
        headers,
        mark::Marked,
        schema::{int, signed},
    },
    Destination, Kept,
};

/// An empty file of more pages than that is made small when it is opened.
const SMALL: i64 = 128;

/// The kind of a topic that is to retain the message.
const RETAINED: u64 = 3;
const DOCUMENT: u64 = 4;

/// The row of `state`: what is true of the outbox as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// Transactions there were.
    pub(super) commits: u64,
    /// Of the rows of `entries`.
    pub(super) entries: Sum,
}

impl State {
    /// `None` in an outbox that was just made.
    fn load(connection: &Connection) -> Result<Option<State>> {
        let sql = "SELECT commits, entries, checksum FROM state";
        let state = connection.query_row(sql, [], |row| {
            let state = State { commits: int(row, 0)?, entries: Sum::new(row.get(1)?) };
            Ok((state, row.get::<_, i64>(2)?))
        });
        match state.optional()? {
            Some((state, sum)) if sum != state.checksum() => {
                corrupt("the row of `state` does not have its checksum")
            }
            found => Ok(found.map(|(state, _)| state)),
        }
    }

    pub(super) fn save(&self, connection: &Connection) -> Result<()> {
        let mut statement = connection.prepare_cached("REPLACE INTO state VALUES (1, ?, ?, ?)")?;
        statement.execute((signed(self.commits), self.entries.get(), self.checksum()))?;
        Ok(())
    }

    fn checksum(&self) -> i64 {
        let State { commits, entries } = self;
        Checksum::of("state").ints([*commits, entries.get().cast_unsigned()]).done()
    }
}

/// Everything in the file, checked. `marked` was read before.
pub(super) fn load(connection: &Connection, marked: &Marked) -> Result<(Vec<Kept>, State)> {
    let state = State::load(connection)?;
    // Before anything is written: that would replace what is left behind the damage.
    marked.check(connection, state.map_or(0, |state| state.commits))?;
    let state = match state {
        Some(state) => state,
        None => {
            State::default().save(connection)?;
            State::default()
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
    if found != state.entries {
        return corrupt("messages are missing or outdated");
    }
    drop(rows);
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if kept.is_empty() && pages > SMALL {
        connection.execute_batch("VACUUM")?;
    }
    Ok((kept, state))
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
    addressees: Option<&'a str>,
    policy: Option<u64>,
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
        let sum = Checksum::of("entries")
            .ints(numbers)
            .text(self.destination)
            .text(self.id.unwrap_or(""))
            .text(self.headers.unwrap_or(""))
            .bytes(self.payload);
        // Entries without are as they were before there were policies.
        match (self.addressees, self.policy) {
            (None, None) => sum.done(),
            (addressees, policy) => sum
                .ints([addressees.is_some().into(), policy.unwrap_or(0)])
                .text(addressees.unwrap_or(""))
                .done(),
        }
    }
}

/// Adds a row; its checksum.
pub(super) fn insert(connection: &Connection, kept: &Kept) -> Result<i64> {
    let (kind, destination) = match &kept.destination {
        Destination::Topic(topic) if kept.retain => (RETAINED, topic),
        Destination::Topic(topic) => (0, topic),
        Destination::Client(id) => (1, id),
        Destination::Server(address) => (2, address),
        Destination::Document(name) => (DOCUMENT, name),
    };
    let extras = kept.extras.as_deref();
    let headers = extras.and_then(|extras| headers::write(&extras.headers));
    let ttl = extras.and_then(|extras| extras.ttl);
    let addressees = extras.and_then(columns::addressees);
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
        addressees: addressees.as_deref(),
        policy: extras.and_then(columns::policy),
    };
    let checksum = columns.checksum();
    let sql = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
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
        columns.addressees,
        columns.policy.map(signed),
    ))?;
    Ok(checksum)
}

fn parse(row: &Row<'_>) -> Result<Kept> {
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
        addressees: text(11)?,
        policy: some(12)?,
    };
    let place = columns.place;
    if row.get::<_, i64>(10)? != columns.checksum() {
        return corrupt(format!("the message at place {place} does not have its checksum"));
    }
    let name = columns.destination.to_owned();
    let destination = match columns.kind {
        0 | RETAINED => Destination::Topic(name),
        1 => Destination::Client(name),
        2 => Destination::Server(name),
        DOCUMENT => Destination::Document(name),
        kind => return corrupt(format!("there is no destination of kind {kind}")),
    };
    let mut extras = extras(columns.id, columns.headers, columns.ttl_ms)?;
    columns::add_policies_to(&mut extras, columns.addressees, columns.policy)?;
    Ok(Kept {
        place,
        destination,
        retain: columns.kind == RETAINED,
        payload: Payload {
            content_type: content_type(columns.content_type)?,
            bytes: columns.payload.to_vec().into(),
        },
        extras,
        expires_ms: columns.expires_ms,
        published_ms: columns.published_ms,
    })
}
