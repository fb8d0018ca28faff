//! A message as a row, borrowed either from the message or from SQLite.

use std::time::Duration;

use kps_proto::message::{ContentType, Extras, Payload};
use rusqlite::Row;

use super::{
    fault::{Result, corrupt},
    headers,
    schema::int,
};

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
        headers: headers.map_or(Ok(Vec::new()), headers::parse)?,
        id: id.map(str::to_owned),
        ttl: ttl_ms.map(Duration::from_millis),
    };
    Ok((!extras.is_empty()).then(|| Box::new(extras)))
}
