//! Publishers' own message ids, kept for the window in which a repetition is recognised, be the
//! message itself removed or not.

use rusqlite::Connection;

use super::{
    checksum::{Checksum, Sum},
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// Notes the id of the message at `position`.
pub(super) fn save(
    connection: &Connection,
    sum: &mut Sum,
    position: u64,
    time_ms: u64,
    namespace: &str,
    id: &str,
) -> Result<()> {
    let checksum = checksum(position, time_ms, namespace, id);
    let mut statement = connection.prepare_cached("INSERT INTO ids VALUES (?, ?, ?, ?, ?)")?;
    statement.execute((signed(position), signed(time_ms), namespace, id, checksum))?;
    sum.add(checksum);
    Ok(())
}

/// Removes the oldest ids, at most `max`, as long as they are older than `before`. How many those
/// were, and how old the oldest one left is.
pub(super) fn prune(
    connection: &Connection,
    sum: &mut Sum,
    before: u64,
    max: u64,
) -> Result<(u64, Option<u64>)> {
    let mut removed = 0;
    let mut until = None;
    let mut oldest = None;
    {
        let sql = "SELECT position, time_ms, checksum FROM ids ORDER BY position LIMIT ?";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([signed(max.saturating_add(1))])?;
        while let Some(row) = rows.next()? {
            let time = int(row, 1)?;
            if time >= before || removed == max {
                oldest = Some(time);
                break;
            }
            removed += 1;
            sum.remove(row.get(2)?);
            until = Some(row.get::<_, i64>(0)?);
        }
    }
    if let Some(until) = until {
        connection.prepare_cached("DELETE FROM ids WHERE position <= ?")?.execute([until])?;
    }
    Ok((removed, oldest))
}

/// Gives every id the time that `now` makes of its own.
pub(super) fn restamp(
    connection: &Connection,
    sum: &mut Sum,
    now: impl Fn(u64) -> u64,
) -> Result<()> {
    let mut statement = connection.prepare("SELECT * FROM ids")?;
    let rows = statement.query_map([], |row| {
        let (namespace, id): (String, String) = (row.get(2)?, row.get(3)?);
        Ok((int(row, 0)?, int(row, 1)?, namespace, id, row.get(4)?))
    })?;
    let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let sql = "UPDATE ids SET time_ms = ?, checksum = ? WHERE position = ?";
    let mut update = connection.prepare(sql)?;
    for (position, time, namespace, id, old) in all {
        let time = now(time);
        let new = checksum(position, time, &namespace, &id);
        update.execute((signed(time), new, signed(position)))?;
        sum.remove(old);
        sum.add(new);
    }
    Ok(())
}

/// Every id as (namespace, id, when), oldest first; their checksums make `sum`.
pub(super) fn load(connection: &Connection, sum: Sum) -> Result<Vec<(String, String, u64)>> {
    let mut statement = connection.prepare("SELECT * FROM ids ORDER BY position")?;
    let mut rows = statement.query([])?;
    let mut ids = Vec::new();
    let mut found = Sum::default();
    while let Some(row) = rows.next()? {
        let (position, time) = (int(row, 0)?, int(row, 1)?);
        let (namespace, id): (String, String) = (row.get(2)?, row.get(3)?);
        let checksum = checksum(position, time, &namespace, &id);
        if row.get::<_, i64>(4)? != checksum {
            return corrupt(format!("the id of message {position} does not have its checksum"));
        }
        found.add(checksum);
        ids.push((namespace, id, time));
    }
    if found != sum {
        return corrupt("ids are missing or outdated");
    }
    Ok(ids)
}

fn checksum(position: u64, time_ms: u64, namespace: &str, id: &str) -> i64 {
    Checksum::of("ids").ints([position, time_ms]).text(namespace).text(id).done()
}
