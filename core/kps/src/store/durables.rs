//! Durable subscriptions' progress on disk.

use std::fmt::Write as _;

use kps_proto::history::Progress;
use rusqlite::Connection;

use super::{
    checksum::Checksum,
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// Replaces the state of the same namespace and name; whether there was none.
pub(super) fn save(connection: &Connection, progress: &Progress) -> Result<bool> {
    let beyond = write_positions(&progress.beyond);
    let attempts = write_attempts(&progress.attempts);
    let values = (
        &progress.namespace,
        &progress.name,
        &progress.pattern,
        signed(progress.done),
        &beyond,
        &attempts,
        checksum(progress, &beyond, &attempts),
    );
    let update = "UPDATE durables SET pattern = ?3, done = ?4, beyond = ?5, attempts = ?6, \
                  checksum = ?7 WHERE namespace = ?1 AND name = ?2";
    if connection.prepare_cached(update)?.execute(values)? > 0 {
        return Ok(false);
    }
    let insert = "INSERT INTO durables VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(insert)?.execute(values)?;
    Ok(true)
}

/// Forgets a durable subscription; whether there was one.
pub(super) fn end(connection: &Connection, namespace: &str, name: &str) -> Result<bool> {
    let sql = "DELETE FROM durables WHERE namespace = ? AND name = ?";
    Ok(connection.prepare_cached(sql)?.execute([namespace, name])? > 0)
}

/// Every durable subscription, by namespace and name.
pub(super) fn load(connection: &Connection) -> Result<Vec<Progress>> {
    let mut statement = connection.prepare("SELECT * FROM durables ORDER BY namespace, name")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (beyond, attempts): (String, String) = (row.get(4)?, row.get(5)?);
        let mut progress = Progress {
            namespace: row.get(0)?,
            name: row.get(1)?,
            pattern: row.get(2)?,
            done: int(row, 3)?,
            beyond: Vec::new(),
            attempts: Vec::new(),
        };
        let parsed = parse_positions(&beyond).zip(parse_attempts(&attempts));
        match parsed {
            Some((positions, counts))
                if row.get::<_, i64>(6)? == checksum(&progress, &beyond, &attempts) =>
            {
                (progress.beyond, progress.attempts) = (positions, counts);
            }
            _ => {
                return corrupt(format!(
                    "the durable subscription {:?} does not have its checksum",
                    progress.name
                ));
            }
        }
        all.push(progress);
    }
    Ok(all)
}

fn checksum(progress: &Progress, beyond: &str, attempts: &str) -> i64 {
    Checksum::of("durables")
        .text(&progress.namespace)
        .text(&progress.name)
        .text(&progress.pattern)
        .int(progress.done)
        .text(beyond)
        .text(attempts)
        .done()
}

/// `5 7 9`
fn write_positions(positions: &[u64]) -> String {
    let mut text = String::new();
    for position in positions {
        // Writing to a string cannot fail.
        let _ = write!(text, "{position} ");
    }
    text.truncate(text.trim_end().len());
    text
}

fn parse_positions(text: &str) -> Option<Vec<u64>> {
    text.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

/// `5:2 7:3`
fn write_attempts(attempts: &[(u64, u32)]) -> String {
    let mut text = String::new();
    for (position, times) in attempts {
        let _ = write!(text, "{position}:{times} ");
    }
    text.truncate(text.trim_end().len());
    text
}

fn parse_attempts(text: &str) -> Option<Vec<(u64, u32)>> {
    let pair = |word: &str| {
        let (position, times) = word.split_once(':')?;
        Some((position.parse().ok()?, times.parse().ok()?))
    };
    text.split_ascii_whitespace().map(pair).collect()
}
