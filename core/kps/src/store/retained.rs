//! Retained messages on disk: one row for each topic that has one, replaced as a whole.

use std::sync::Arc;

use kps_proto::{
    history::Record,
    message::{Payload, Sender},
};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    checksum::{Checksum, Sum},
    columns::{content_type, extras},
    fault::{Result, corrupt},
    headers,
    schema::{int, signed},
};

/// The sum of all rows' checksums as the file says; nothing was ever retained in a store without it.
pub(super) fn load_sum(connection: &Connection) -> Result<Sum> {
    let sql = "SELECT retained, checksum FROM retained_state";
    let found = connection
        .query_row(sql, [], |row| Ok((Sum::new(row.get(0)?), row.get::<_, i64>(1)?)))
        .optional()?;
    match found {
        Some((sum, checksum)) if checksum != checksum_of_sum(sum) => {
            corrupt("the row of `retained_state` does not have its checksum")
        }
        found => Ok(found.map(|(sum, _)| sum).unwrap_or_default()),
    }
}

pub(super) fn save_sum(connection: &Connection, sum: Sum) -> Result<()> {
    let mut statement =
        connection.prepare_cached("REPLACE INTO retained_state VALUES (1, ?, ?)")?;
    statement.execute((sum.get(), checksum_of_sum(sum)))?;
    Ok(())
}

/// Adds a message; there is none of the same namespace and topic.
pub(super) fn save(connection: &Connection, sum: &mut Sum, record: &Record) -> Result<()> {
    let extras = record.extras.as_deref();
    let headers = extras.and_then(|extras| headers::write(&extras.headers));
    let ttl = extras.and_then(|extras| extras.ttl);
    let columns = Columns {
        record,
        ttl_ms: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        headers: headers.as_deref(),
    };
    let checksum = columns.checksum();
    let sql = "INSERT INTO retained VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.raw_bind_parameter(1, &*record.namespace)?;
    statement.raw_bind_parameter(2, &*record.topic)?;
    for (place, number) in (3..).zip([record.position, record.epoch, record.seq]) {
        statement.raw_bind_parameter(place, signed(number))?;
    }
    statement.raw_bind_parameter(6, &record.sender.origin)?;
    statement.raw_bind_parameter(7, &record.sender.id)?;
    let numbers = [
        record.number,
        record.time_ms,
        record.payload.content_type as u64,
        record.maybe_duplicate.into(),
    ];
    for (place, number) in (8..).zip(numbers) {
        statement.raw_bind_parameter(place, signed(number))?;
    }
    statement.raw_bind_parameter(12, record.expires_ms.map(signed))?;
    statement.raw_bind_parameter(13, columns.ttl_ms.map(signed))?;
    statement.raw_bind_parameter(14, columns.id())?;
    statement.raw_bind_parameter(15, columns.headers)?;
    statement.raw_bind_parameter(16, &record.payload.bytes[..])?;
    statement.raw_bind_parameter(17, checksum)?;
    statement.raw_execute()?;
    sum.add(checksum);
    Ok(())
}

/// Forgets a topic's message, if it has one.
pub(super) fn end(
    connection: &Connection,
    sum: &mut Sum,
    namespace: &str,
    topic: &str,
) -> Result<()> {
    let sql = "DELETE FROM retained WHERE namespace = ? AND topic = ? RETURNING checksum";
    let mut statement = connection.prepare_cached(sql)?;
    let checksum = statement.query_row([namespace, topic], |row| row.get(0)).optional()?;
    sum.remove(checksum.unwrap_or(0));
    Ok(())
}

/// Every message, in the order of time; their checksums make `sum`.
pub(super) fn load(connection: &Connection, sum: Sum) -> Result<Vec<Record>> {
    let mut statement = connection.prepare("SELECT * FROM retained ORDER BY epoch, time_ms")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    let mut found = Sum::default();
    while let Some(row) = rows.next()? {
        let (record, checksum) = parse(row)?;
        found.add(checksum);
        all.push(record);
    }
    if found != sum {
        return corrupt("retained messages are missing or outdated");
    }
    Ok(all)
}

fn parse(row: &Row<'_>) -> Result<(Record, i64)> {
    let some = |column| row.get(column).map(|value: Option<i64>| value.map(i64::cast_unsigned));
    let (id, headers): (Option<String>, Option<String>) = (row.get(13)?, row.get(14)?);
    let ttl_ms = some(12)?;
    let topic: Arc<str> = row.get(1)?;
    let extras = extras(id.as_deref(), headers.as_deref(), ttl_ms);
    let record = Record {
        namespace: row.get(0)?,
        topic: topic.clone(),
        position: int(row, 2)?,
        epoch: int(row, 3)?,
        seq: int(row, 4)?,
        sender: Arc::new(Sender { origin: row.get(5)?, id: row.get(6)? }),
        number: int(row, 7)?,
        time_ms: int(row, 8)?,
        payload: Payload {
            content_type: content_type(int(row, 9)?)?,
            bytes: row.get::<_, Vec<u8>>(15)?.into(),
        },
        maybe_duplicate: int(row, 10)? != 0,
        expires_ms: some(11)?,
        extras: extras.unwrap_or_default(),
    };
    let checksum = Columns { record: &record, ttl_ms, headers: headers.as_deref() }.checksum();
    if row.get::<_, i64>(16)? != checksum {
        return corrupt(format!("the retained message of {topic:?} does not have its checksum"));
    }
    Ok((record, checksum))
}

/// A row: the message, and what is written otherwise than it is kept in memory.
struct Columns<'a> {
    record: &'a Record,
    ttl_ms: Option<u64>,
    headers: Option<&'a str>,
}

impl Columns<'_> {
    fn id(&self) -> Option<&str> {
        self.record.extras.as_ref().and_then(|extras| extras.id.as_deref())
    }

    fn checksum(&self) -> i64 {
        let Record { position, epoch, seq, sender, number, time_ms, payload, .. } = self.record;
        let numbers = [
            *position,
            *epoch,
            *seq,
            *number,
            *time_ms,
            payload.content_type as u64,
            self.record.maybe_duplicate.into(),
            self.record.expires_ms.is_some().into(),
            self.record.expires_ms.unwrap_or(0),
            self.ttl_ms.is_some().into(),
            self.ttl_ms.unwrap_or(0),
            self.id().is_some().into(),
            self.headers.is_some().into(),
        ];
        Checksum::of("retained")
            .ints(numbers)
            .text(&self.record.namespace)
            .text(&self.record.topic)
            .text(&sender.origin)
            .text(&sender.id)
            .text(self.id().unwrap_or(""))
            .text(self.headers.unwrap_or(""))
            .bytes(&payload.bytes)
            .done()
    }
}

fn checksum_of_sum(sum: Sum) -> i64 {
    Checksum::of("retained_state").int(sum.get().cast_unsigned()).done()
}
