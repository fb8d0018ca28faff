//! Publishers' sessions on disk.

use kps_proto::history::KeptSession;
use rusqlite::{Connection, OptionalExtension};

use super::{
    checksum::{Checksum, Sum},
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// Adds a session; there is none of the same origin.
pub(super) fn save(
    connection: &Connection,
    sum: &mut Sum,
    session: &KeptSession,
    now: u64,
) -> Result<()> {
    let KeptSession { origin, published } = session;
    let checksum = checksum(session, now);
    let sql = "INSERT INTO sessions VALUES (?, ?, ?, ?)";
    let values = (origin, signed(*published), signed(now), checksum);
    connection.prepare_cached(sql)?.execute(values)?;
    sum.add(checksum);
    Ok(())
}

/// Forgets the session, if there is one.
pub(super) fn end(connection: &Connection, sum: &mut Sum, origin: &str) -> Result<()> {
    let sql = "DELETE FROM sessions WHERE origin = ? RETURNING checksum";
    let mut statement = connection.prepare_cached(sql)?;
    let checksum = statement.query_row([origin], |row| row.get(0)).optional()?;
    sum.remove(checksum.unwrap_or(0));
    Ok(())
}

/// Gives each of `sessions` the time that `now` makes of its own.
pub(super) fn restamp(
    connection: &Connection,
    sum: &mut Sum,
    sessions: &[(KeptSession, u64)],
    now: impl Fn(u64) -> u64,
) -> Result<()> {
    for (session, written) in sessions {
        end(connection, sum, &session.origin)?;
        save(connection, sum, session, now(*written))?;
    }
    Ok(())
}

/// Every session, with the time of the transaction that wrote it; their checksums make `sum`.
pub(super) fn load(connection: &Connection, sum: Sum) -> Result<Vec<(KeptSession, u64)>> {
    let mut statement = connection.prepare("SELECT * FROM sessions ORDER BY origin")?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    let mut found = Sum::default();
    while let Some(row) = rows.next()? {
        let session = KeptSession { origin: row.get(0)?, published: int(row, 1)? };
        let written = int(row, 2)?;
        let checksum = checksum(&session, written);
        if row.get::<_, i64>(3)? != checksum {
            return corrupt("a session does not have its checksum");
        }
        found.add(checksum);
        sessions.push((session, written));
    }
    if found != sum {
        return corrupt("sessions are missing or outdated");
    }
    Ok(sessions)
}

fn checksum(session: &KeptSession, written: u64) -> i64 {
    Checksum::of("sessions").text(&session.origin).ints([session.published, written]).done()
}
