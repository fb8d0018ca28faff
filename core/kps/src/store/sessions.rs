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
    let KeptSession { origin, namespace, client_id, secret, published } = session;
    let checksum = checksum(session, now);
    let sql = "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)";
    connection.prepare_cached(sql)?.execute((
        origin,
        namespace,
        client_id,
        &secret[..],
        signed(*published),
        signed(now),
        checksum,
    ))?;
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

/// Every session, with the time of the transaction that wrote it; their checksums make `sum`.
pub(super) fn load(connection: &Connection, sum: Sum) -> Result<Vec<(KeptSession, u64)>> {
    let mut statement = connection.prepare("SELECT * FROM sessions ORDER BY origin")?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    let mut found = Sum::default();
    while let Some(row) = rows.next()? {
        let session = KeptSession {
            origin: row.get(0)?,
            namespace: row.get(1)?,
            client_id: row.get(2)?,
            secret: row.get(3)?,
            published: int(row, 4)?,
        };
        let written = int(row, 5)?;
        let checksum = checksum(&session, written);
        if row.get::<_, i64>(6)? != checksum {
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
    Checksum::of("sessions")
        .text(&session.origin)
        .text(&session.namespace)
        .text(&session.client_id)
        .bytes(&session.secret)
        .ints([session.published, written])
        .done()
}
