//! One row of `items` or `versions`, and its checksum.

use rusqlite::{Connection, Row as Found, params};

use super::{
    schema::columns,
    types::{Etag, Meta},
};
use crate::store::{
    checksum::Checksum,
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// `form` of a row of `versions` that says its key was deleted.
pub(super) const DELETED: u8 = 0xff;

/// A value without its bytes.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) version: u64,
    pub(super) hash: u64,
    /// What the bytes are and how they are kept: see [`seal`](super::seal).
    pub(super) form: u8,
    pub(super) size: u64,
    pub(super) modified_ms: u64,
    pub(super) expires_ms: Option<u64>,
    pub(super) content_type: Option<String>,
    /// Where its chunks are; `None`: the row has the bytes.
    pub(super) content: Option<i64>,
    /// Of the bytes in the row.
    pub(super) crc: i64,
}

/// Columns of a [`Row`]; what a statement selects beyond comes behind.
pub(super) const COLUMNS: usize = 11;

impl Row {
    /// Reads the columns, which must have their checksum.
    pub(super) fn read(row: &Found<'_>, namespace: i64, key: &str) -> Result<Row> {
        let found = Row {
            id: row.get(0)?,
            version: int(row, 1)?,
            hash: int(row, 2)?,
            form: row.get(3)?,
            size: int(row, 4)?,
            modified_ms: int(row, 5)?,
            expires_ms: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
            content_type: row.get(7)?,
            content: row.get(8)?,
            crc: row.get(9)?,
        };
        if row.get::<_, i64>(10)? != found.checksum(namespace, key) {
            return corrupt(format!("the value of {key:?} does not have its checksum"));
        }
        Ok(found)
    }

    pub(super) fn etag(&self) -> Etag {
        Etag { version: self.version, hash: self.hash }
    }

    pub(super) fn meta(&self) -> Meta {
        Meta {
            etag: self.etag(),
            kind: self.form & super::seal::KIND,
            size: self.size,
            modified_ms: self.modified_ms,
            expires_ms: self.expires_ms,
            content_type: self.content_type.clone(),
        }
    }

    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now)
    }

    /// Bytes that count against a quota.
    pub(super) fn cost(&self, key: &str) -> u64 {
        self.size + key.len() as u64
    }

    pub(super) fn checksum(&self, namespace: i64, key: &str) -> i64 {
        Checksum::of("items")
            .text(key)
            .text(self.content_type.as_deref().unwrap_or_default())
            .ints([
                namespace.cast_unsigned(),
                self.version,
                self.hash,
                u64::from(self.form),
                self.size,
                self.modified_ms,
                self.expires_ms.map_or(0, |expires| expires.wrapping_add(1)),
                self.content.unwrap_or(0).cast_unsigned(),
                self.crc.cast_unsigned(),
            ])
            .done()
    }

    /// Writes it into `items`: in the place of the row with its id, or as a new one if that is 0.
    pub(super) fn write(
        &self,
        connection: &Connection,
        namespace: i64,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<()> {
        const INSERT: &str =
            "INSERT INTO items VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        const UPDATE: &str = "UPDATE items SET namespace = ?, key = ?, version = ?, hash = ?, form = ?, \
            size = ?, modified_ms = ?, expires_ms = ?, content_type = ?, content = ?, value = ?, crc = ?, \
            checksum = ? WHERE id = ?";
        let checksum = self.checksum(namespace, key);
        macro_rules! execute {
            ($sql:expr $(, $last:expr)?) => {
                connection.prepare_cached($sql)?.execute(params![
                    namespace,
                    key,
                    signed(self.version),
                    signed(self.hash),
                    self.form,
                    signed(self.size),
                    signed(self.modified_ms),
                    self.expires_ms.map(signed),
                    self.content_type,
                    self.content,
                    value,
                    self.crc,
                    checksum
                    $(, $last)?
                ])?
            };
        }
        match self.id {
            0 => execute!(INSERT),
            id => execute!(UPDATE, id),
        };
        Ok(())
    }
}

/// The row of `key`, be it expired or not.
pub(super) fn find(connection: &Connection, namespace: i64, key: &str) -> Result<Option<Row>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM items WHERE namespace = ? AND key = ?");
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query(params![namespace, key])?;
    match rows.next()? {
        Some(row) => Row::read(row, namespace, key).map(Some),
        None => Ok(None),
    }
}
