//! Durable subscriptions' progress on disk.

use std::fmt::Write as _;

use kps_proto::history::Progress;
use rusqlite::{Connection, OptionalExtension};

use super::{
    checksum::{Checksum, Sum},
    fault::{Result, corrupt},
    schema::{int, signed},
};

/// Adds a durable subscription's state; there is none of the same namespace and name.
pub(super) fn save(connection: &Connection, sum: &mut Sum, progress: &Progress) -> Result<()> {
    let beyond = write_positions(&progress.beyond);
    let attempts = write_attempts(&progress.attempts);
    let checksum = checksum(progress, &beyond, &attempts);
    let sql = "INSERT INTO durables VALUES (?, ?, ?, ?, ?, ?, ?)";
    connection.prepare_cached(sql)?.execute((
        &progress.namespace,
        &progress.name,
        &progress.pattern,
        signed(progress.done),
        beyond,
        attempts,
        checksum,
    ))?;
    sum.add(checksum);
    Ok(())
}

/// Forgets a durable subscription, if there is one.
pub(super) fn end(
    connection: &Connection,
    sum: &mut Sum,
    namespace: &str,
    name: &str,
) -> Result<()> {
    let sql = "DELETE FROM durables WHERE namespace = ? AND name = ? RETURNING checksum";
    let mut statement = connection.prepare_cached(sql)?;
    let checksum = statement.query_row([namespace, name], |row| row.get(0)).optional()?;
    sum.remove(checksum.unwrap_or(0));
    Ok(())
}

/// Every durable subscription, by namespace and name; their checksums make `sum`.
pub(super) fn load(connection: &Connection, sum: Sum) -> Result<Vec<Progress>> {
    let mut statement = connection.prepare("SELECT * FROM durables ORDER BY namespace, name")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    let mut found = Sum::default();
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
        let checksum = checksum(&progress, &beyond, &attempts);
        let parsed = parse_positions(&beyond).zip(parse_attempts(&attempts));
        match parsed {
            Some((positions, counts)) if row.get::<_, i64>(6)? == checksum => {
                (progress.beyond, progress.attempts) = (positions, counts);
            }
            _ => {
                return corrupt(format!(
                    "the durable subscription {:?} does not have its checksum",
                    progress.name
                ));
            }
        }
        found.add(checksum);
        all.push(progress);
    }
    if found != sum {
        return corrupt("durable subscriptions are missing or outdated");
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
