//! Publishers' sessions on disk.

use kps_proto::history::KeptSession;
use rusqlite::Connection;

use super::{
    checksum::Checksum,
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// Replaces the session of the same origin; whether there was none.
pub(super) fn save(connection: &Connection, session: &KeptSession, now: u64) -> Result<bool> {
    let KeptSession { origin, published } = session;
    let values = (origin, signed(*published), signed(now), checksum(session, now));
    let update =
        "UPDATE sessions SET published = ?2, written_ms = ?3, checksum = ?4 WHERE origin = ?1";
    if connection.prepare_cached(update)?.execute(values)? > 0 {
        return Ok(false);
    }
    let insert = "INSERT INTO sessions VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(insert)?.execute(values)?;
    Ok(true)
}

/// Forgets the session; whether there was one.
pub(super) fn end(connection: &Connection, origin: &str) -> Result<bool> {
    let mut statement = connection.prepare_cached("DELETE FROM sessions WHERE origin = ?")?;
    Ok(statement.execute([origin])? > 0)
}

/// Every session, with the time of the transaction that wrote it.
pub(super) fn load(connection: &Connection) -> Result<Vec<(KeptSession, u64)>> {
    let mut statement = connection.prepare("SELECT * FROM sessions ORDER BY origin")?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        let session = KeptSession { origin: row.get(0)?, published: int(row, 1)? };
        let written = int(row, 2)?;
        if row.get::<_, i64>(3)? != checksum(&session, written) {
            return corrupt("a session does not have its checksum");
        }
        sessions.push((session, written));
    }
    Ok(sessions)
}

fn checksum(session: &KeptSession, written: u64) -> i64 {
    Checksum::of("sessions").text(&session.origin).ints([session.published, written]).done()
}
