//! A message as a row, borrowed either from the message or from SQLite.

use std::time::Duration;

use kps_proto::message::{ContentType, Extras, Offline, Payload};
use rusqlite::Row;

use super::{
    fault::{Result, corrupt},
    headers,
    schema::int,
};

/// The columns of a message, in the order of [`Columns`].
pub(super) const COLUMNS: &str = "position, topic, previous, seq, sender, number, time_ms, content_type, \
     maybe_duplicate, expires_ms, ttl_ms, id, headers, payload, checksum, addressees, policy";

/// How many there are.
pub(super) const WIDTH: usize = 17;

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
    pub(super) addressees: Option<&'a str>,
    pub(super) policy: Option<u64>,
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
            addressees: text(15)?,
            policy: some(16)?,
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
        add_policies(&mut hasher, self.addressees, self.policy);
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
        let mut found = extras(self.id, self.headers, self.ttl_ms)?;
        add_policies_to(&mut found, self.addressees, self.policy)?;
        Ok(found)
    }
}

/// What [`Extras::private`] and [`Extras::offline`] say, as a column; `None` if that is nothing.
pub(super) fn policy(extras: &Extras) -> Option<u64> {
    let policy = u64::from(extras.private) | (extras.offline as u64) << 1;
    (policy != 0).then_some(policy)
}

/// [`Extras::to`] as a column: a line each.
pub(super) fn addressees(extras: &Extras) -> Option<String> {
    let lines = extras.to.as_ref()?.iter().map(|entry| headers::line(entry));
    Some(lines.collect())
}

/// To a message's checksum; those of messages without are as they were before there were policies.
pub(super) fn add_policies(
    hasher: &mut crc32fast::Hasher,
    addressees: Option<&str>,
    policy: Option<u64>,
) {
    if let Some(addressees) = addressees {
        hasher.update(b"to");
        hasher.update(addressees.as_bytes());
    }
    if let Some(policy) = policy {
        hasher.update(b"policy");
        hasher.update(&policy.to_le_bytes());
    }
}

/// Adds what the columns say to the extras.
pub(super) fn add_policies_to(
    extras: &mut Option<Box<Extras>>,
    addressees: Option<&str>,
    policy: Option<u64>,
) -> Result<()> {
    if addressees.is_none() && policy.is_none() {
        return Ok(());
    }
    let extras = extras.get_or_insert_default();
    extras.to = addressees.map(headers::lines).transpose()?;
    let policy = policy.unwrap_or(0);
    extras.private = policy & 1 != 0;
    match u8::try_from(policy >> 1).ok().and_then(Offline::from_number) {
        Some(offline) => extras.offline = offline,
        None => return corrupt(format!("there is no policy {policy}")),
    }
    Ok(())
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
        ..Extras::default()
    };
    Ok((!extras.is_empty()).then(|| Box::new(extras)))
}
