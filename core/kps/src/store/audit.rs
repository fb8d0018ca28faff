//! The audit log on disk: one row per event, removed by count and age.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kps_proto::Result;
use rusqlite::Connection;

use super::{
    checksum::Checksum,
    database_file,
    fault::{self, File, corrupt},
    mark::Marked,
    schema::{STORE, State, int, signed},
};

/// Rows that may wait for the writer; what comes then is counted.
const WAITING: usize = 16_384;

/// Rows looked at for removal with each commit that adds some.
const SLICE: u64 = 1024;

/// What is kept of an audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// Rows; the oldest are removed.
    pub max_count: u64,
    /// Older rows are removed when new ones come.
    pub max_age: Duration,
}

impl Default for AuditLimits {
    /// 1,000,000 rows of 30 days.
    fn default() -> Self {
        AuditLimits { max_count: 1_000_000, max_age: Duration::from_secs(30 * 86_400) }
    }
}

/// An event to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// When, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The event's name.
    pub event: String,
    /// Whose, where known.
    pub client_id: Option<String>,
    /// Its arguments, as a JSON object.
    pub detail: String,
}

impl AuditRow {
    fn checksum(&self, id: u64) -> i64 {
        Checksum::of("audit")
            .ints([id, self.time_ms, u64::from(self.client_id.is_some())])
            .text(&self.event)
            .text(self.client_id.as_deref().unwrap_or_default())
            .text(&self.detail)
            .done()
    }
}

/// A row as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number: consecutive from 1.
    pub id: u64,
    /// When, UTC, as `2026-11-28T20:07:31.250Z`.
    pub time: String,
    /// The event.
    pub row: AuditRow,
}

/// Which rows to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Behind this number.
    pub after: u64,
    /// Not before this time, milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Only events of this name.
    pub event: Option<String>,
    /// At most so many.
    pub max_count: u64,
}

/// Counts what waits for the writer.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: Arc<AtomicUsize>,
    dropped: AtomicUsize,
}

impl Waiting {
    /// `row` with its place, behind a row that says how many found none before.
    pub(super) fn admit(&self, row: AuditRow) -> Vec<(AuditRow, Admission)> {
        if self.rows.load(Ordering::Relaxed) >= WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let missing = (dropped > 0).then(|| AuditRow {
            time_ms: row.time_ms,
            event: "events_dropped".into(),
            client_id: None,
            detail: format!("{{\"count\":{dropped}}}"),
        });
        missing.into_iter().chain([row]).map(|row| (row, Admission::new(&self.rows))).collect()
    }
}

/// A row's place among those that wait, until it is dropped.
pub(super) struct Admission(Arc<AtomicUsize>);

impl Admission {
    fn new(rows: &Arc<AtomicUsize>) -> Admission {
        rows.fetch_add(1, Ordering::Relaxed);
        Admission(rows.clone())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writer's view of the log.
#[derive(Debug)]
pub(super) struct Log {
    last: u64,
    limits: AuditLimits,
}

impl Log {
    pub(super) fn load(connection: &Connection, limits: AuditLimits) -> fault::Result<Log> {
        let sql = "SELECT coalesce(max(id), 0) FROM audit";
        let last = connection.query_row(sql, [], |row| int(row, 0))?;
        Ok(Log { last, limits })
    }

    /// Adds rows, and removes a slice of what the limits do not keep.
    pub(super) fn write(
        &mut self,
        connection: &Connection,
        rows: &[(AuditRow, Admission)],
        now: u64,
    ) -> fault::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut insert =
            connection.prepare_cached("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)")?;
        for (row, _) in rows {
            self.last += 1;
            let AuditRow { time_ms, event, client_id, detail } = row;
            let (id, time) = (signed(self.last), signed(*time_ms));
            insert.execute((id, time, event, client_id, detail, row.checksum(self.last)))?;
        }
        let AuditLimits { max_count, max_age } = self.limits;
        let age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        // Twice as many as were added, so that a lower limit than before is reached.
        let slice = SLICE.max(2 * rows.len() as u64);
        let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?) \
                   AND (id <= ? OR time_ms < ?)";
        let (oldest, earliest) = (self.last.saturating_sub(max_count), now.saturating_sub(age));
        connection.prepare_cached(sql)?.execute([slice, oldest, earliest].map(signed))?;
        Ok(())
    }
}

/// Reads a store's audit log, also while another process writes it. Rows in their order.
///
/// Errors: `store_failed` if it cannot be opened, `store_corrupt` if it is damaged.
pub fn read_audit(dir: &Path, query: &AuditQuery) -> Result<Vec<AuditEntry>> {
    let path = database_file(dir);
    let connection = STORE.open_reader(&path)?;
    let marked = Marked::read(&path);
    let read = || {
        let transaction = connection.unchecked_transaction()?;
        let state = State::load(&transaction)?;
        marked.check(&transaction, state.map_or(0, |state| state.commits))?;
        select(&transaction, query)
    };
    read().map_err(|trouble| File::Path(path.clone()).tell(trouble))
}

fn select(connection: &Connection, query: &AuditQuery) -> fault::Result<Vec<AuditEntry>> {
    let sql = "SELECT id, time_ms, event, client_id, detail, checksum, \
               strftime('%Y-%m-%dT%H:%M:%fZ', time_ms / 1000.0, 'unixepoch') FROM audit \
               WHERE id > ?1 AND time_ms >= ?2 AND (?3 IS NULL OR event = ?3) ORDER BY id LIMIT ?4";
    let mut statement = connection.prepare(sql)?;
    let AuditQuery { after, from_ms, event, max_count } = query;
    let most = signed((*max_count).min(i64::MAX.cast_unsigned()));
    let mut rows = statement.query((signed(*after), signed(*from_ms), event, most))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let id = int(row, 0)?;
        let kept = AuditRow {
            time_ms: int(row, 1)?,
            event: row.get(2)?,
            client_id: row.get(3)?,
            detail: row.get(4)?,
        };
        if row.get::<_, i64>(5)? != kept.checksum(id) {
            return corrupt(format!("row {id} of the audit log does not have its checksum"));
        }
        let time = row.get::<_, Option<String>>(6)?.unwrap_or_default();
        entries.push(AuditEntry { id, time, row: kept });
    }
    Ok(entries)
}

/// Compares every checksum, and that no row is missing between the first and the last.
pub(super) fn check(connection: &Connection) -> fault::Result<()> {
    let mut query = AuditQuery { max_count: 4096, ..AuditQuery::default() };
    loop {
        let page = select(connection, &query)?;
        let Some(last) = page.last() else { return Ok(()) };
        let first = if query.after == 0 { page[0].id } else { query.after + 1 };
        if let Some((missing, _)) = (first..).zip(&page).find(|(id, entry)| entry.id != *id) {
            return corrupt(format!("row {missing} of the audit log is missing"));
        }
        query.after = last.id;
    }
}
