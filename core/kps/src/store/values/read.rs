//! Reading, on any connection.

use bytes::Bytes;
use kps_proto::ErrorKind;
use rusqlite::{Connection, params};

use super::{
    chunks,
    row::{COLUMNS, DELETED, Row, find},
    schema::columns,
    seal::{KIND, Place, Seal},
    types::{Content, Etag, Meta, Stop, refused},
    write::crc,
};
use crate::store::{
    fault::{Result, corrupt},
    schema::signed,
};

/// Bytes of the keys of one page at most, about.
const PAGE_BYTES: usize = 256 << 10;

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) items: Vec<(String, Meta)>,
    /// There is more behind the last.
    pub(crate) more: bool,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) meta: Meta,
    pub(crate) deleted: bool,
    pub(crate) current: bool,
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) meta: Meta,
    pub(crate) bytes: Bytes,
}

/// A value, if it can be had.
type Fetched = std::result::Result<(Meta, Content), Stop>;

/// `not_found`.
#[cold]
pub(super) fn missing(key: &str) -> Stop {
    refused(ErrorKind::NotFound, format!("there is no key {key:?}"))
}

/// A value of at most `most` bytes.
pub(super) fn get(
    connection: &Connection,
    seal: &Seal,
    namespace: i64,
    key: &str,
    now: u64,
    most: u64,
) -> Fetched {
    const SQL: &str =
        concat!("SELECT ", columns!(), ", value FROM items WHERE namespace = ? AND key = ?");
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query(params![namespace, key])?;
    let Some(found) = rows.next()? else { return Err(missing(key)) };
    let row = Row::read(found, namespace, key)?;
    if row.is_expired(now) {
        return Err(missing(key));
    }
    content(connection, seal, namespace, key, &row, found, most)
}

/// An old version, or the current one, by its ETag.
pub(super) fn get_version(
    connection: &Connection,
    seal: &Seal,
    (namespace, key, now): (i64, &str, u64),
    etag: Etag,
    most: u64,
) -> Fetched {
    const CURRENT: &str = concat!(
        "SELECT ",
        columns!(),
        ", value FROM items WHERE namespace = ? AND key = ? AND version = ? AND hash = ?"
    );
    const OLD: &str = concat!(
        "SELECT ",
        columns!(),
        ", value FROM versions WHERE namespace = ? AND key = ? AND version = ? AND hash = ? AND form != 255"
    );
    for sql in [CURRENT, OLD] {
        let mut statement = connection.prepare_cached(sql)?;
        let version = params![namespace, key, signed(etag.version), signed(etag.hash)];
        let mut rows = statement.query(version)?;
        if let Some(found) = rows.next()? {
            let row = Row::read(found, namespace, key)?;
            if row.is_expired(now) {
                break;
            }
            return content(connection, seal, namespace, key, &row, found, most);
        }
    }
    Err(refused(ErrorKind::NotFound, format!("there is no version {etag} of {key:?}")))
}

fn content(
    connection: &Connection,
    seal: &Seal,
    namespace: i64,
    key: &str,
    row: &Row,
    found: &rusqlite::Row<'_>,
    most: u64,
) -> Fetched {
    if row.size > most {
        let sentence = format!(
            "the value of {key:?} has {} bytes, and at most {most} are returned at once: read it in \
             parts with get_part, or as a stream",
            row.size
        );
        return Err(refused(ErrorKind::TooLarge, sentence));
    }
    let bytes = match row.content {
        Some(content) => chunks::read(connection, seal, content, 0, row.size as usize)?,
        None => inline(seal, namespace, key, row, found)?,
    };
    if bytes.len() as u64 != row.size {
        corrupt(format!("the value of {key:?} does not have its {} bytes", row.size))?;
    }
    Ok((row.meta(), Content { kind: row.form & KIND, bytes }))
}

/// The bytes that the row itself has, in the column behind all others.
fn inline(
    seal: &Seal,
    namespace: i64,
    key: &str,
    row: &Row,
    found: &rusqlite::Row<'_>,
) -> Result<Bytes> {
    let kept = found.get_ref(COLUMNS)?.as_blob().map_err(rusqlite::Error::from)?;
    if crc(kept) != row.crc {
        return corrupt(format!("the value of {key:?} does not have its checksum"));
    }
    seal.open(&Place::Row(namespace, key, row.version), row.form, kept)
}

/// Up to `length` bytes from `offset`.
pub(super) fn get_part(
    connection: &Connection,
    seal: &Seal,
    (namespace, key, now): (i64, &str, u64),
    (offset, length): (u64, usize),
    etag: Option<&str>,
) -> std::result::Result<Part, Stop> {
    const SQL: &str =
        concat!("SELECT ", columns!(), ", value FROM items WHERE namespace = ? AND key = ?");
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query(params![namespace, key])?;
    let Some(found) = rows.next()? else { return Err(missing(key)) };
    let row = Row::read(found, namespace, key)?;
    if row.is_expired(now) {
        return Err(missing(key));
    }
    if let Some(wanted) = etag
        && wanted != row.etag().to_string()
    {
        let sentence = format!("{key:?} has changed: its ETag is {}, not {wanted}", row.etag());
        return Err(refused(ErrorKind::Conflict, sentence));
    }
    let wanted = (row.size.saturating_sub(offset)).min(length as u64) as usize;
    let bytes = match row.content {
        _ if wanted == 0 => Bytes::new(),
        Some(content) => chunks::read(connection, seal, content, offset, wanted)?,
        None => {
            let whole = inline(seal, namespace, key, &row, found)?;
            // What has another length is found by its size below.
            whole.slice(
                (offset as usize).min(whole.len())..(offset as usize + wanted).min(whole.len()),
            )
        }
    };
    if bytes.len() != wanted {
        corrupt(format!("the value of {key:?} does not have its {} bytes", row.size))?;
    }
    Ok(Part { meta: row.meta(), bytes })
}

/// What is known of the key.
pub(super) fn stat(
    connection: &Connection,
    namespace: i64,
    key: &str,
    now: u64,
) -> Result<Option<Meta>> {
    Ok(find(connection, namespace, key)?.filter(|row| !row.is_expired(now)).map(|row| row.meta()))
}

/// Keys that begin with `prefix`, in the order of their bytes, behind `after`.
pub(super) fn list(
    connection: &Connection,
    namespace: i64,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    now: u64,
) -> Result<Listing> {
    // The prefix itself may be a key: `>=` for it, `>` behind a key of an earlier page.
    const FROM: &str = concat!(
        "SELECT ",
        columns!(),
        ", key FROM items WHERE namespace = ? AND key >= ? ORDER BY namespace, key"
    );
    const AFTER: &str = concat!(
        "SELECT ",
        columns!(),
        ", key FROM items WHERE namespace = ? AND key > ? ORDER BY namespace, key"
    );
    let (sql, start) = match after {
        Some(after) if after >= prefix => (AFTER, after),
        _ => (FROM, prefix),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![namespace, start])?;
    let mut listing = Listing::default();
    let mut bytes = 0;
    while let Some(found) = rows.next()? {
        let key = found.get_ref(COLUMNS)?.as_str().map_err(rusqlite::Error::from)?;
        if !key.starts_with(prefix) {
            break;
        }
        let row = Row::read(found, namespace, key)?;
        if row.is_expired(now) {
            continue;
        }
        if listing.items.len() == limit || bytes > PAGE_BYTES {
            listing.more = true;
            break;
        }
        bytes += key.len();
        listing.items.push((key.to_owned(), row.meta()));
    }
    Ok(listing)
}

/// The key's versions, the newest first.
pub(super) fn history(
    connection: &Connection,
    namespace: i64,
    key: &str,
    limit: usize,
    now: u64,
) -> Result<Vec<Version>> {
    let current = find(connection, namespace, key)?;
    if current.as_ref().is_some_and(|row| row.is_expired(now)) {
        return Ok(Vec::new());
    }
    let version =
        |row: &Row, current| Version { meta: row.meta(), deleted: row.form == DELETED, current };
    let mut found: Vec<_> = current.iter().map(|row| version(row, true)).collect();
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM versions WHERE namespace = ? AND key = ? ORDER BY version DESC"
    );
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query(params![namespace, key])?;
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        found.push(version(&Row::read(row, namespace, key)?, false));
    }
    Ok(found)
}
