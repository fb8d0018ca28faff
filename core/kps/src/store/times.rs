//! Marks that find the position of a time: every now and then (a time, a position up to which no
//! message is later). Positions follow the order of acceptance and the clock may be set back, so
//! a mark keeps the latest time so far.

use rusqlite::{Connection, OptionalExtension};

use super::{
    checksum::Checksum,
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// Milliseconds from one mark to the next.
const STEP_MS: u64 = 1000;

/// Positions from one mark to the next, should they be fewer.
const STEP: u64 = 10_000;

/// The newest mark.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    time_ms: u64,
    position: u64,
}

impl Mark {
    pub(super) fn load_newest(connection: &Connection) -> Result<Option<Mark>> {
        find(connection, i64::MAX)
    }

    /// Whether there should be another one where `latest_ms` was reached at `position`.
    pub(super) fn is_due(self, latest_ms: u64, position: u64) -> bool {
        latest_ms >= self.time_ms.saturating_add(STEP_MS)
            || (latest_ms > self.time_ms && position >= self.position.saturating_add(STEP))
    }

    /// Adds a mark.
    pub(super) fn save(connection: &Connection, time_ms: u64, position: u64) -> Result<Mark> {
        let mut statement = connection.prepare_cached("INSERT INTO times VALUES (?, ?, ?)")?;
        statement.execute((signed(time_ms), signed(position), checksum(time_ms, position)))?;
        Ok(Mark { time_ms, position })
    }
}

/// A position up to which every message is earlier than `time_ms`, and not far from the last such.
pub(super) fn before(connection: &Connection, time_ms: u64) -> Result<u64> {
    // Times beyond SQLite's integers are later than any mark.
    let mark = find(connection, i64::try_from(time_ms).unwrap_or(i64::MAX))?;
    Ok(mark.map_or(0, |mark| mark.position))
}

/// Compares every mark's checksum, and that they rise.
pub(super) fn check(connection: &Connection) -> Result<()> {
    let sql = "SELECT time_ms, position, checksum FROM times ORDER BY time_ms";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        let (time, position) = (int(row, 0)?, int(row, 1)?);
        if row.get::<_, i64>(2)? != checksum(time, position) || position <= last {
            return corrupt(format!("the mark of time {time} is wrong"));
        }
        last = position;
    }
    Ok(())
}

/// Removes marks of removed messages: a few of those below `position`.
pub(super) fn prune(connection: &Connection, position: u64) -> Result<()> {
    let sql = "DELETE FROM times WHERE time_ms IN (SELECT time_ms FROM times ORDER BY time_ms \
               LIMIT 256) AND position < ?";
    connection.prepare_cached(sql)?.execute([signed(position)])?;
    Ok(())
}

fn find(connection: &Connection, before: i64) -> Result<Option<Mark>> {
    let sql = "SELECT time_ms, position, checksum FROM times WHERE time_ms < ? \
               ORDER BY time_ms DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([before], |row| {
        let mark = Mark { time_ms: int(row, 0)?, position: int(row, 1)? };
        Ok((mark, row.get::<_, i64>(2)?))
    });
    match found.optional()? {
        Some((mark, sum)) if sum != checksum(mark.time_ms, mark.position) => {
            corrupt("a mark of time does not have its checksum")
        }
        found => Ok(found.map(|(mark, _)| mark)),
    }
}

fn checksum(time_ms: u64, position: u64) -> i64 {
    Checksum::of("times").ints([time_ms, position]).done()
}
