//! Large values, in chunks that are read and written one at a time.

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, OptionalExtension, params};

use super::seal::{Place, Seal};
use crate::store::{
    checksum::Checksum,
    fault::{Result, corrupt},
    schema::signed,
};

/// Longer values are kept in chunks.
pub(super) const INLINE: usize = 256 << 10;

/// Bytes of a chunk, and of an upload's parts as they are best sent: fits a message, also as base64.
pub(crate) const CHUNK: usize = 512 << 10;

/// Bytes of a part at most.
pub(crate) const MAX_PART: usize = 1 << 20;

/// Chunks of one value at most.
pub(super) const MAX_CHUNKS: u64 = 65_536;

/// Chunks removed in one transaction: about a millisecond's work.
const REMOVED: u32 = 4;

/// A place for chunks that no value has yet.
pub(super) fn begin(connection: &Connection, content: i64, live: bool) -> Result<()> {
    connection.prepare_cached("INSERT INTO contents VALUES (?, ?)")?.execute((content, live))?;
    Ok(())
}

/// Whether a value has the chunks; those that none has are removed.
pub(super) fn set_live(connection: &Connection, content: i64, live: bool) -> Result<()> {
    let mut update = connection.prepare_cached("UPDATE contents SET live = ?2 WHERE id = ?1")?;
    match update.execute((content, live))? {
        1 => Ok(()),
        _ => corrupt(format!("the content {content} is missing")),
    }
}

/// Writes one chunk.
pub(super) fn write(
    connection: &Connection,
    seal: &Seal,
    content: i64,
    start: u64,
    bytes: &[u8],
) -> Result<()> {
    let (form, kept) = seal.seal(&Place::Chunk(content, start), 0, bytes)?;
    let size = bytes.len() as u64;
    connection.prepare_cached("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)")?.execute(params![
        content,
        signed(start),
        form,
        signed(size),
        &*kept,
        checksum(content, start, form, size, &kept)
    ])?;
    Ok(())
}

/// Writes a whole value.
pub(super) fn write_all(
    connection: &Connection,
    seal: &Seal,
    content: i64,
    bytes: &[u8],
) -> Result<()> {
    begin(connection, content, true)?;
    let mut start = 0;
    for chunk in bytes.chunks(CHUNK) {
        write(connection, seal, content, start, chunk)?;
        start += chunk.len() as u64;
    }
    Ok(())
}

/// Up to `length` bytes from `offset`, fewer only at the end.
pub(super) fn read(
    connection: &Connection,
    seal: &Seal,
    content: i64,
    offset: u64,
    length: usize,
) -> Result<Bytes> {
    // The chunk that holds the offset is the last to start at it or before.
    const SQL: &str = "SELECT start, form, size, bytes, checksum FROM chunks WHERE content = ?1 AND \
        start >= (SELECT max(start) FROM chunks WHERE content = ?1 AND start <= ?2) ORDER BY start";
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query((content, signed(offset)))?;
    let mut read = BytesMut::new();
    let mut next = offset;
    while read.len() < length
        && let Some(row) = rows.next()?
    {
        let start = row.get::<_, i64>(0)?.cast_unsigned();
        let (form, size) = (row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned());
        let kept = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        if row.get::<_, i64>(4)? != checksum(content, start, form, size, kept) {
            return corrupt(format!("a chunk of content {content} does not have its checksum"));
        }
        let bytes = seal.open(&Place::Chunk(content, start), form, kept)?;
        let skip = next.checked_sub(start).filter(|&skip| skip <= size);
        let Some(skip) =
            skip.filter(|&skip| bytes.len() as u64 == size && (skip == 0 || read.is_empty()))
        else {
            return corrupt(format!("the chunks of content {content} do not follow each other"));
        };
        let part = &bytes[skip as usize..];
        let part = &part[..part.len().min(length - read.len())];
        read.extend_from_slice(part);
        next += part.len() as u64;
    }
    Ok(read.freeze())
}

/// The bytes of all chunks together, which must have their checksums and follow each other.
pub(super) fn check(connection: &Connection, content: i64) -> Result<u64> {
    const SQL: &str =
        "SELECT start, form, size, bytes, checksum FROM chunks WHERE content = ? ORDER BY start";
    let mut statement = connection.prepare_cached(SQL)?;
    let mut rows = statement.query([content])?;
    let mut next = 0;
    while let Some(row) = rows.next()? {
        let start = row.get::<_, i64>(0)?.cast_unsigned();
        let (form, size) = (row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned());
        let kept = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        if row.get::<_, i64>(4)? != checksum(content, start, form, size, kept) {
            return corrupt(format!("a chunk of content {content} does not have its checksum"));
        }
        if start != next {
            return corrupt(format!("the chunks of content {content} do not follow each other"));
        }
        next = start.saturating_add(size);
    }
    Ok(next)
}

/// Removes some chunks that no value has; whether those of `content` are all gone.
pub(super) fn remove_some(connection: &Connection, content: i64) -> Result<bool> {
    const SQL: &str = "DELETE FROM chunks WHERE content = ?1 AND start IN \
        (SELECT start FROM chunks WHERE content = ?1 ORDER BY start LIMIT ?2)";
    let removed = connection.prepare_cached(SQL)?.execute((content, REMOVED))?;
    if removed >= REMOVED as usize {
        return Ok(false);
    }
    connection.prepare_cached("DELETE FROM contents WHERE id = ?")?.execute([content])?;
    Ok(true)
}

/// Contents that no value has, left over from an earlier run, and the highest number in use.
pub(super) fn load(connection: &Connection) -> Result<(Vec<i64>, i64)> {
    let mut statement = connection.prepare("SELECT id FROM contents WHERE live = 0")?;
    let unused = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let last = connection.query_row("SELECT max(id) FROM contents", [], |row| row.get(0));
    Ok((unused, last.optional()?.flatten().unwrap_or(0)))
}

fn checksum(content: i64, start: u64, form: u8, size: u64, bytes: &[u8]) -> i64 {
    Checksum::of("chunks")
        .ints([content.cast_unsigned(), start, u64::from(form), size])
        .bytes(bytes)
        .done()
}
